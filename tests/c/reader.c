/* A program that reads a camera in order, until its standard input ends, and tells what it gets.
 *
 * reader URI [NAME]
 *
 * frame SEQUENCE WIDTH HEIGHT BYTES SUM CORRUPT   of all planes: their bytes together, and a sum over them
 * failed STATUS WORDS                             and it goes on
 * closed DROPPED                                  when it was told to end
 */
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "camlease.h"

/* Eight bytes at a step: under emulation each step counts. tests/rig/src/picture.rs has the same. */
static uint64_t sum_of(const struct camlease_plane *plane, uint64_t sum)
{
    size_t at = 0;
    for (; at + 8 <= plane->size; at += 8) {
        uint64_t word;
        memcpy(&word, plane->data + at, 8);
        sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
    }
    for (; at < plane->size; at++)
        sum = (sum ^ plane->data[at]) * UINT64_C(0x9e3779b97f4a7c15);
    return sum;
}

static int is_told_to_end(void)
{
    struct pollfd input = {.fd = 0, .events = POLLIN};
    return poll(&input, 1, 0) == 1;
}

static void check(camlease_status status, const char *what)
{
    if (!status)
        return;
    printf("%s: %s %s\n", what, camlease_status_name(status), camlease_last_error_message());
    exit(1);
}

static void tell(camlease_frame *frame)
{
    camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
    check(camlease_frame_info(frame, &data), "frame_info");
    uint64_t sum = 0;
    size_t bytes = 0;
    for (uint32_t plane = 0; plane < data.planes; plane++) {
        sum = sum_of(&data.plane[plane], sum);
        bytes += data.plane[plane].size;
    }
    printf("frame %" PRIu64 " %u %u %zu %" PRIu64 " %d\n", data.sequence, data.width, data.height, bytes, sum,
           (data.flags & CAMLEASE_FRAME_CORRUPT) != 0);
    check(camlease_frame_release(frame), "release");
}

int main(int argc, char **argv)
{
    camlease_open_options open = CAMLEASE_OPEN_OPTIONS_INIT;
    camlease_stream_options stream = CAMLEASE_STREAM_OPTIONS_INIT;
    struct camlease_camera_stats stats = CAMLEASE_CAMERA_STATS_INIT;
    camlease_camera *camera;
    if (argc < 2)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    open.name = argc > 2 ? argv[2] : "reader";
    check(camlease_camera_open(argv[1], &open, &camera), "open");
    stream.drop_policy = CAMLEASE_DROP_NEWEST;
    check(camlease_camera_start(camera, &stream), "start");
    while (!is_told_to_end()) {
        camlease_frame *frame;
        camlease_status status = camlease_camera_next_frame(camera, 200, &frame);
        if (!status)
            tell(frame);
        else
            printf("failed %s %s\n", camlease_status_name(status) + strlen("CAMLEASE_"), camlease_last_error_message());
    }
    check(camlease_camera_stats(camera, &stats), "stats");
    check(camlease_camera_close(camera), "close");
    printf("closed %" PRIu64 "\n", stats.dropped);
    return 0;
}
