/* share: has a camera, shares it with other processes, and goes on with its own work, for which it reads the camera as
 * they do. Also compiles as C++. */
#define _POSIX_C_SOURCE 200809L
#include <camlease.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number)
{
    (void)number;
    interrupted = 1; /* the loop looks at this at least every second */
}

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, camlease_last_error_message());
    return 1;
}

/* The work: the mean of a frame's bytes, which for most formats tells how bright it is. */
static double brightness(const struct camlease_frame_data *data)
{
    unsigned long long sum = 0;

    for (size_t i = 0; i < data->size; i++)
        sum += data->data[i];
    return data->size ? (double)sum / (double)data->size : 0.0;
}

/* The share's own account, one line of JSON: who reads, who fell behind, and why nothing comes. */
static int print_status(camlease_camera *camera)
{
    camlease_reply *reply = NULL;

    if (camlease_camera_command(camera, "{\"do\": \"status\"}", 5000, &reply) != CAMLEASE_OK)
        return failed("asking for the status");
    printf("status %s\n", camlease_reply_text(reply));
    camlease_reply_free(reply);
    return 0;
}

/* Reads shared:NAME like everybody else: the frames come without another copy. */
static int work(const char *name)
{
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    camlease_camera *reader = NULL;
    char uri[256];
    time_t told = 0;
    int result = 0;

    snprintf(uri, sizeof uri, "shared:%s", name);
    options.name = "share itself";
    if (camlease_camera_open(uri, &options, &reader) != CAMLEASE_OK)
        return failed("opening what was shared");
    if (camlease_camera_start(reader, NULL) != CAMLEASE_OK)
        result = failed("reading what was shared");
    while (result == 0 && !interrupted) {
        camlease_frame *frame = NULL;
        camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
        camlease_status status = camlease_camera_next_frame(reader, 1000, &frame);

        if (status != CAMLEASE_OK) {
            /* It is unplugged and may come back, or was stopped by command; the library goes on trying. */
            fprintf(stderr, "%s\n", camlease_last_error_message());
            continue;
        }
        if (time(NULL) != told && camlease_frame_info(frame, &data) == CAMLEASE_OK) {
            told = time(NULL);
            printf("frame %llu, brightness %.1f\n", (unsigned long long)data.sequence, brightness(&data));
        }
        camlease_frame_release(frame);
    }
    camlease_camera_close(reader);
    return result;
}

int main(int argc, char **argv)
{
    camlease_share_options options = CAMLEASE_SHARE_OPTIONS_INIT;
    struct sigaction action;
    camlease_camera *camera = NULL;

    if (argc != 3) {
        fprintf(stderr,
                "usage: %s CAMERA NAME\n"
                "Opens the camera and shares it until Ctrl+C: others open it as shared:NAME.\n"
                "Without a camera: %s virtual:test front\n",
                argv[0], argv[0]);
        return 2;
    }
    memset(&action, 0, sizeof action);
    action.sa_handler = on_interrupt;
    action.sa_flags = (int)SA_RESETHAND;
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);

    if (camlease_camera_open(argv[1], NULL, &camera) != CAMLEASE_OK)
        return failed("opening the camera");
    options.name = argv[2];
    options.start = CAMLEASE_SHARE_ON_DEMAND; /* it streams while somebody reads */
    options.readers = CAMLEASE_ALLOWED_OWNER; /* this user and root */
    int result = 0;
    if (camlease_share_start(camera, &options) != CAMLEASE_OK) {
        result = failed("sharing the camera");
    } else {
        printf("%s is shared as shared:%s\n", argv[1], argv[2]);
        result = work(argv[2]);
        print_status(camera);
    }
    camlease_camera_close(camera); /* ends the share as well */
    return result;
}
