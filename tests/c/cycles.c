/* Opens a camera, starts it, takes a frame and closes it, again and again, and tells what the process has after a few
 * rounds and at the end: it must be the same.
 *
 * cycles URI CYCLES
 *
 * Four ways by turns: released and stopped before the close; closed with the frame out; released, not stopped; stopped and
 * started again with frames out of both streams. Every hundredth time others try to open it meanwhile, and lists are made.
 */
#include <dirent.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "camlease.h"

static void must(camlease_status status, camlease_status wanted, const char *what, uint64_t cycle)
{
    if (status == wanted)
        return;
    fprintf(stderr, "cycles: %s in cycle %" PRIu64 ": %s instead of %s: %s\n", what, cycle, camlease_status_name(status),
            camlease_status_name(wanted), camlease_last_error_message());
    exit(1);
}
#define OK(call) must(camlease_##call, CAMLEASE_OK, #call, cycle)

struct figures {
    int descriptors, threads, mappings;
    long resident, anonymous; /* kB: all, and without the pages of files, as of the library itself */
};

static int entries(const char *path)
{
    int count = 0;
    DIR *folder = opendir(path);
    if (!folder)
        exit(2);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count - 2;
}

static struct figures look(void)
{
    struct figures f = { entries("/proc/self/fd") - 1, entries("/proc/self/task"), 0, 0, 0 };
    char line[1024];
    malloc_trim(0); /* what the allocator keeps for later is nobody's leak */
    FILE *file = fopen("/proc/self/maps", "re");
    while (file && fgets(line, sizeof line, file))
        f.mappings++;
    if (!file)
        exit(2);
    fclose(file);
    file = fopen("/proc/self/smaps_rollup", "re"); /* counted page by page; status is off by some hundred kB */
    while (file && fgets(line, sizeof line, file)) {
        sscanf(line, "Rss: %ld", &f.resident);
        sscanf(line, "Anonymous: %ld", &f.anonymous);
    }
    if (!file)
        exit(2);
    fclose(file);
    return f;
}

/* A thread that was joined is in /proc a moment longer: looks until there are so many. */
static struct figures look_for(int threads)
{
    struct figures f = look();
    for (int tries = 0; tries < 2000 && f.threads != threads; tries++) {
        usleep(10000);
        f = look();
    }
    return f;
}

static void tell(const char *when, struct figures f)
{
    printf("%s descriptors=%d threads=%d mappings=%d resident=%ld anonymous=%ld\n", when, f.descriptors, f.threads,
           f.mappings, f.resident, f.anonymous);
}

static unsigned sum; /* of bytes of frames: they are read */

static camlease_frame *take(camlease_camera *camera, uint64_t cycle)
{
    camlease_frame *frame;
    struct camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
    OK(camera_next_frame(camera, 20000, &frame));
    OK(frame_info(frame, &data));
    for (size_t at = 0; at < data.size; at += 4096)
        sum += data.data[at];
    return frame;
}

static void meanwhile(const char *uri, camlease_camera *camera, uint64_t cycle)
{
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    camlease_camera *other;
    camlease_format_list *formats;
    camlease_control_list *controls;
    camlease_device_list *devices;
    camlease_holder_list *holders;
    for (options.timeout_ms = 0; options.timeout_ms < 4; options.timeout_ms += 3)
        must(camlease_camera_open(uri, &options, &other), CAMLEASE_BUSY, "a second open", cycle);
    OK(format_list_new(camera, &formats));
    OK(format_list_free(formats));
    OK(control_list_new(camera, &controls));
    OK(control_list_free(controls));
    OK(device_list_new(&devices));
    OK(device_list_free(devices));
    OK(holder_list_new(uri, &holders));
    OK(holder_list_free(holders));
}

static void turn(const char *uri, uint64_t cycle)
{
    camlease_camera *camera;
    camlease_frame *frame, *second;
    OK(camera_open(uri, NULL, &camera));
    OK(camera_start(camera, NULL));
    frame = take(camera, cycle);
    if (cycle % 100 == 7)
        meanwhile(uri, camera, cycle);
    switch (cycle % 4) {
    case 0:
        OK(frame_release(frame));
        OK(camera_stop(camera));
        OK(camera_close(camera));
        break;
    case 1:
        OK(camera_close(camera));
        OK(frame_release(frame));
        break;
    case 2:
        OK(frame_release(frame));
        OK(camera_close(camera));
        break;
    default:
        OK(camera_stop(camera));
        OK(camera_start(camera, NULL));
        second = take(camera, cycle);
        OK(camera_close(camera));
        OK(frame_release(second));
        OK(frame_release(frame));
    }
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    uint64_t cycles = strtoull(argv[2], NULL, 0), warm = cycles / 10 < 200 ? cycles / 10 + 8 : 208;
    for (uint64_t cycle = 0; cycle < warm; cycle++)
        turn(argv[1], cycle);
    struct timespec begun, ended;
    struct figures first = look_for(1); /* with its camera closed there is none of the library's */
    clock_gettime(CLOCK_MONOTONIC, &begun);
    for (uint64_t cycle = 0; cycle < cycles; cycle++)
        turn(argv[1], cycle);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    struct figures last = look_for(first.threads);
    double seconds = (double)(ended.tv_sec - begun.tv_sec) + (double)(ended.tv_nsec - begun.tv_nsec) / 1e9;
    tell("first", first);
    tell("last", last);
    printf("cycles %" PRIu64 " in %.1f s, %.3f ms each\n", cycles, seconds, seconds * 1e3 / (double)cycles);
    return 0;
}
