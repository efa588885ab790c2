/* shared_reader: reads a camera that another process shares, and goes on when that process is gone and comes back.
 * Also compiles as C++. */
#define _POSIX_C_SOURCE 200809L
#include <camlease.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static volatile sig_atomic_t interrupted;
static camlease_cancel *cancel;

static void on_interrupt(int number)
{
    int kept = errno;

    (void)number;
    interrupted = 1;
    camlease_cancel_signal(cancel); /* ends an open that waits */
    errno = kept;
}

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, camlease_last_error_message());
    return 1;
}

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now); /* the clock of the frames' timestamps */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Whether frames may come again by themselves: the library attaches anew as soon as the camera's process is back. */
static bool may_go_on(camlease_status status)
{
    return status != CAMLEASE_CLOSED && status != CAMLEASE_SHUT_DOWN && status != CAMLEASE_INVALID_HANDLE &&
           status != CAMLEASE_FORKED && status != CAMLEASE_PERMISSION && status != CAMLEASE_INTERNAL;
}

/* The format may be another one after a command, or when the process comes back: it is told with each frame. */
static void tell_format(const struct camlease_frame_data *data, struct camlease_frame_data *last)
{
    if (data->width != last->width || data->height != last->height || data->fourcc != last->fourcc)
        printf("format: %ux%u %.4s\n", (unsigned)data->width, (unsigned)data->height, (const char *)&data->fourcc);
    *last = *data;
}

static void tell_progress(camlease_camera *camera, const struct camlease_frame_data *data)
{
    struct camlease_camera_stats stats = CAMLEASE_CAMERA_STATS_INIT;

    if (camlease_camera_stats(camera, &stats) == CAMLEASE_OK)
        printf("frame %llu, %.1f ms old, %llu taken, %llu not taken yet, %llu passed over or lost\n",
               (unsigned long long)data->sequence, (double)(now_ns() - data->timestamp_ns) / 1e6,
               (unsigned long long)stats.frames, (unsigned long long)stats.behind, (unsigned long long)stats.dropped);
}

static int read_frames(camlease_camera *camera, const camlease_stream_options *options, unsigned long most)
{
    struct camlease_frame_data last = CAMLEASE_FRAME_DATA_INIT;
    int64_t told = 0;
    bool away = false;

    if (camlease_camera_start(camera, options) != CAMLEASE_OK)
        return failed("starting to read");
    for (unsigned long count = 0; !interrupted && (most == 0 || count < most);) {
        camlease_frame *frame = NULL;
        camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
        camlease_status status = camlease_camera_next_frame(camera, 500, &frame);

        if (status != CAMLEASE_OK) {
            if (!may_go_on(status))
                return failed("reading");
            if (!away)
                printf("no frames: %s\n", camlease_last_error_message());
            away = true;
            continue;
        }
        if (away)
            printf("frames come again\n");
        away = false;
        if (camlease_frame_info(frame, &data) == CAMLEASE_OK) {
            tell_format(&data, &last);
            if (now_ns() - told >= 1000000000) {
                told = now_ns();
                tell_progress(camera, &data);
            }
        }
        camlease_frame_release(frame); /* soon: the camera's process cannot use its memory before */
        count++;
    }
    return 0;
}

/* Asks the camera's process for something, and prints its answer, one line of JSON. */
static int command(camlease_camera *camera, const char *request)
{
    camlease_reply *reply = NULL;

    if (camlease_camera_command(camera, request, 5000, &reply) != CAMLEASE_OK)
        return failed(request);
    printf("%s\n", camlease_reply_text(reply));
    camlease_reply_free(reply);
    return 0;
}

static int usage(const char *program)
{
    fprintf(stderr,
            "usage: %s NAME [--in-order] [--hold FRAMES] [--count FRAMES]   reads, until Ctrl+C or FRAMES frames\n"
            "       %s NAME --status | --stop | --start                     commands the camera's process\n"
            "NAME is a shared camera's; NAME?every=3 reads every third frame, NAME?rate=5 at most 5 in a second.\n",
            program, program);
    return 2;
}

int main(int argc, char **argv)
{
    camlease_open_options open = CAMLEASE_OPEN_OPTIONS_INIT;
    camlease_stream_options stream = CAMLEASE_STREAM_OPTIONS_INIT; /* size and format: what there is */
    camlease_camera *camera = NULL;
    struct sigaction action;
    const char *request = NULL;
    unsigned long most = 0;
    char uri[512];

    if (argc < 2 || argv[1][0] == '-')
        return usage(argv[0]);
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--in-order") == 0)
            stream.drop_policy = CAMLEASE_DROP_NEWEST; /* all that can be had; without it always the newest */
        else if (strcmp(argv[i], "--hold") == 0 && i + 1 < argc)
            stream.buffers = (uint32_t)strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--count") == 0 && i + 1 < argc)
            most = strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--status") == 0)
            request = "{\"do\": \"status\"}";
        else if (strcmp(argv[i], "--stop") == 0)
            request = "{\"do\": \"stop\"}";
        else if (strcmp(argv[i], "--start") == 0)
            request = "{\"do\": \"start\"}";
        else
            return usage(argv[0]);
    }
    if (snprintf(uri, sizeof uri, "shared:%s", argv[1]) >= (int)sizeof uri)
        return usage(argv[0]);
    if (camlease_cancel_new(&cancel) != CAMLEASE_OK)
        return failed("preparing");
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    action.sa_flags = (int)SA_RESETHAND;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);

    open.name = "shared_reader";
    open.cancel = cancel;
    if (request == NULL) {
        open.access = CAMLEASE_ACCESS_MONITOR; /* it will command nothing */
        open.timeout_ms = -1;
        open.flags = CAMLEASE_OPEN_WAIT_FOR_DEVICE; /* nobody may share it yet */
    }
    int result = 0;
    if (camlease_camera_open(uri, &open, &camera) != CAMLEASE_OK)
        result = failed("opening it");
    else if (request != NULL)
        result = command(camera, request);
    else
        result = read_frames(camera, &stream, most);
    if (camera != NULL)
        camlease_camera_close(camera);
    signal(SIGINT, SIG_DFL); /* before the handle goes that the handler uses */
    camlease_cancel_free(cancel);
    return interrupted ? 130 : result;
}
