/* wait_busy: waits for a camera that somebody else has, is told who that is, and streams as soon as it is free.
 * Ctrl+C ends the wait and the stream alike; a second one ends the program at once. */
#define _POSIX_C_SOURCE 200809L
#include <camlease.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static volatile sig_atomic_t interrupted;
static camlease_cancel *cancel;

static void on_interrupt(int number)
{
    int kept = errno;

    (void)number;
    interrupted = 1;
    camlease_cancel_signal(cancel); /* may be called from a signal handler */
    errno = kept;
}

/* A line with the time of day, in seconds since 1970, before it. */
static void say(const char *format, ...)
{
    struct timespec now;
    va_list arguments;

    clock_gettime(CLOCK_REALTIME, &now);
    printf("%lld.%06ld ", (long long)now.tv_sec, now.tv_nsec / 1000);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

/* Called in this thread, by open, when it begins to wait, and when the holders change. */
static void on_wait(void *user_data, const char *message, const camlease_holder *holders, size_t count)
{
    (void)user_data;
    say("%s", message);
    for (size_t i = 0; i < count; i++)
        say("holder: pid %d, %s", (int)holders[i].pid, holders[i].command);
}

/* Takes frames until there were enough (0: no end), or somebody pressed Ctrl+C. */
static int stream(camlease_camera *camera, unsigned long most)
{
    camlease_status status = camlease_camera_start(camera, NULL);

    for (unsigned long count = 0; status == CAMLEASE_OK && !interrupted && (most == 0 || count < most);) {
        camlease_frame *frame = NULL;
        status = camlease_camera_next_frame(camera, 1000, &frame);
        if (status == CAMLEASE_TIMEOUT) {
            say("no frame for a second");
            status = CAMLEASE_OK;
        } else if (status == CAMLEASE_OK) {
            if (count++ == 0)
                say("the first frame");
            camlease_frame_release(frame);
        }
    }
    if (status != CAMLEASE_OK)
        fprintf(stderr, "streaming: %s\n", camlease_last_error_message());
    return status == CAMLEASE_OK ? 0 : 1;
}

int main(int argc, char **argv)
{
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    camlease_camera *camera = NULL;
    int result = 1;

    if (argc < 2 || argc > 3) {
        fprintf(stderr,
                "usage: %s CAMERA [FRAMES]\n"
                "Waits for the camera, however long it takes, and streams FRAMES frames, or until Ctrl+C.\n",
                argv[0]);
        return 2;
    }
    if (camlease_cancel_new(&cancel) != CAMLEASE_OK) {
        fprintf(stderr, "%s\n", camlease_last_error_message());
        return 1;
    }
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);

    options.timeout_ms = -1;
    options.name = "wait_busy";
    options.on_wait = on_wait;
    options.cancel = cancel;
    camlease_status status = camlease_camera_open(argv[1], &options, &camera);
    if (status == CAMLEASE_OK) {
        struct camlease_camera_stats stats = CAMLEASE_CAMERA_STATS_INIT;
        say("has the camera");
        result = stream(camera, argc == 3 ? strtoul(argv[2], NULL, 10) : 0);
        if (camlease_camera_stats(camera, &stats) == CAMLEASE_OK)
            say("%llu frames, %llu dropped, after a wait of %.3f s", (unsigned long long)stats.frames,
                (unsigned long long)stats.dropped, (double)stats.busy_wait_ns / 1e9);
        camlease_camera_close(camera);
    } else if (status == CAMLEASE_CLOSED) {
        say("no longer waiting");
    } else {
        fprintf(stderr, "opening the camera: %s\n", camlease_last_error_message());
    }
    signal(SIGINT, SIG_DFL); /* before the handle goes that the handler uses */
    camlease_cancel_free(cancel);
    return interrupted ? 130 : result;
}
