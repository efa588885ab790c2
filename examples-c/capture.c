/* capture: saves one picture of a camera. */
#define _POSIX_C_SOURCE 200809L
#include <camlease.h>
#include <stdio.h>
#include <stdlib.h>

#include "picture.h"

/* The first frames of many cameras are dark: exposure and white balance are still on their way. */
#define SETTLE_FRAMES 5

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, camlease_last_error_message());
    return 1;
}

static void on_wait(void *user_data, const char *message, const camlease_holder *holders, size_t count)
{
    (void)user_data, (void)holders, (void)count;
    fprintf(stderr, "%s\n", message);
}

/* The camera's first pixel format that can be saved. */
static int choose_format(camlease_camera *camera, uint32_t *chosen)
{
    camlease_format_list *formats = NULL;

    *chosen = 0;
    if (camlease_format_list_new(camera, &formats) != CAMLEASE_OK)
        return failed("listing the camera's formats");
    for (size_t i = 0; i < camlease_format_list_len(formats) && *chosen == 0; i++) {
        camlease_format_info format = CAMLEASE_FORMAT_INFO_INIT;
        if (camlease_format_list_get(formats, i, &format) == CAMLEASE_OK && picture_knows(format.fourcc))
            *chosen = format.fourcc;
    }
    camlease_format_list_free(formats);
    if (*chosen == 0)
        fprintf(stderr, "the camera offers no pixel format that this program can save\n");
    return *chosen == 0;
}

/* Streams in the camera's own format, or in its first one that can be saved. */
static int start(camlease_camera *camera)
{
    struct camlease_camera_info info = CAMLEASE_CAMERA_INFO_INIT;
    camlease_stream_options options = CAMLEASE_STREAM_OPTIONS_INIT;

    if (camlease_camera_start(camera, NULL) != CAMLEASE_OK || camlease_camera_info(camera, &info) != CAMLEASE_OK)
        return failed("starting the stream");
    if (picture_knows(info.fourcc))
        return 0;
    if (choose_format(camera, &options.fourcc) != 0)
        return 1;
    if (camlease_camera_stop(camera) != CAMLEASE_OK || camlease_camera_start(camera, &options) != CAMLEASE_OK)
        return failed("starting the stream anew");
    return 0;
}

/* Passes over the first frames, then saves the first one that is whole. */
static int save_one(camlease_camera *camera, const char *prefix)
{
    char name[4096];

    for (int taken = 1; taken <= 100; taken++) {
        camlease_frame *frame = NULL;
        camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
        const char *problem = NULL;

        if (camlease_camera_next_frame(camera, 5000, &frame) != CAMLEASE_OK)
            return failed("waiting for a frame");
        if (camlease_frame_info(frame, &data) != CAMLEASE_OK) {
            camlease_frame_release(frame);
            return failed("reading a frame");
        }
        if (taken <= SETTLE_FRAMES || (data.flags & CAMLEASE_FRAME_CORRUPT)) {
            camlease_frame_release(frame);
            continue;
        }
        problem = picture_save(&data, prefix, name, sizeof name);
        if (problem)
            fprintf(stderr, "saving %s: %s\n", name, problem);
        else
            printf("saved frame %llu, %ux%u, as %s\n", (unsigned long long)data.sequence, (unsigned)data.width,
                   (unsigned)data.height, name);
        camlease_frame_release(frame);
        return problem ? 1 : 0;
    }
    fprintf(stderr, "the camera sends damaged frames only\n");
    return 1;
}

int main(int argc, char **argv)
{
    camlease_open_options open = CAMLEASE_OPEN_OPTIONS_INIT;
    camlease_camera *camera = NULL;

    if (argc < 3 || argc > 4) {
        fprintf(stderr,
                "usage: %s CAMERA PREFIX [SECONDS]\n"
                "Saves one picture as PREFIX.ppm or PREFIX.jpg. A busy camera is waited for, 5 seconds unless told.\n"
                "CAMERA is /dev/video0, usb:046d:0825, virtual:test, file:recording.mjpeg, ...\n",
                argv[0]);
        return 2;
    }
    open.name = "capture";
    open.on_wait = on_wait;
    if (argc == 4)
        open.timeout_ms = (int32_t)(strtod(argv[3], NULL) * 1000);
    if (camlease_camera_open(argv[1], &open, &camera) != CAMLEASE_OK)
        return failed("opening the camera");

    int result = start(camera);
    if (result == 0)
        result = save_one(camera, argv[2]);
    camlease_camera_close(camera); /* stops the stream as well */
    return result;
}
