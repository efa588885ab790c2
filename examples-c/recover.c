/* recover: goes on when the camera is unplugged and comes back.
 * A camera that is gone stays gone for its handle: close it, and open it again when the device is back. */
#define _POSIX_C_SOURCE 200809L
#include <camlease.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static volatile sig_atomic_t interrupted;
static camlease_cancel *cancel;

static void on_interrupt(int number)
{
    int kept = errno;

    (void)number;
    interrupted = 1;
    camlease_cancel_signal(cancel);
    errno = kept;
}

static void on_wait(void *user_data, const char *message, const camlease_holder *holders, size_t count)
{
    (void)user_data, (void)holders, (void)count;
    printf("%s\n", message);
}

/* Whether opening the camera anew may help. */
static bool may_come_back(camlease_status status)
{
    return status == CAMLEASE_DISCONNECTED || status == CAMLEASE_IO || status == CAMLEASE_TIMEOUT;
}

/* One life of the camera: from open to the failure that ends it. */
static camlease_status live_once(const char *uri, unsigned long most, unsigned long *count)
{
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    camlease_camera *camera = NULL;

    options.timeout_ms = -1;
    options.flags = CAMLEASE_OPEN_WAIT_FOR_DEVICE;
    options.name = "recover";
    options.on_wait = on_wait;
    options.cancel = cancel;
    camlease_status status = camlease_camera_open(uri, &options, &camera);
    if (status == CAMLEASE_OK)
        status = camlease_camera_start(camera, NULL);
    if (status == CAMLEASE_OK)
        printf("%s: streaming\n", uri);
    while (status == CAMLEASE_OK && !interrupted && (most == 0 || *count < most)) {
        camlease_frame *frame = NULL;
        status = camlease_camera_next_frame(camera, 3000, &frame);
        if (status == CAMLEASE_OK) {
            ++*count;
            camlease_frame_release(frame);
        }
    }
    if (status != CAMLEASE_OK)
        printf("%s\n", camlease_last_error_message()); /* before close, which might fail in its turn */
    if (camera)
        camlease_camera_close(camera);
    return status;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    camlease_status status = CAMLEASE_OK;
    unsigned long most = 0, count = 0, lives = 0;

    if (argc < 2 || argc > 3) {
        fprintf(stderr,
                "usage: %s CAMERA [FRAMES]\n"
                "Streams FRAMES frames, or until Ctrl+C, however often the camera is unplugged meanwhile.\n"
                "Without a camera: %s 'virtual:test?unplug=50&return=2000' 200\n",
                argv[0], argv[0]);
        return 2;
    }
    if (argc == 3)
        most = strtoul(argv[2], NULL, 10);
    if (camlease_cancel_new(&cancel) != CAMLEASE_OK) {
        fprintf(stderr, "%s\n", camlease_last_error_message());
        return 1;
    }
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    do {
        status = live_once(argv[1], most, &count);
        lives++;
    } while (may_come_back(status) && !interrupted);
    printf("%lu frames, opened %lu times\n", count, lives);
    signal(SIGINT, SIG_DFL); /* before the handle goes that the handler uses */
    camlease_cancel_free(cancel);
    if (interrupted)
        return 130;
    return status == CAMLEASE_OK ? 0 : 1;
}
