/* A program that holds a camera in some way and then ends in some way, for the release tests.
 *
 * holder LIBRARY URI STATE ENDING
 *   STATE:  opened, started, frame (one out), waiting_frame, waiting_busy
 *   ENDING: close, exit, return, dlclose, shutdown, exec, fork_exit, fork_killed, abort, signal
 *
 * "ready" is printed when the state is reached; a line on stdin then brings the ending. Endings that leave a process
 * alive print "ended" and its pid, and that process stays until it is killed: it must hold nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "camlease.h"

#define CALL(name) static __typeof__(camlease_##name) *name
CALL(camera_open);
CALL(camera_close);
CALL(camera_start);
CALL(camera_next_frame);
CALL(frame_info);
CALL(frame_release);
CALL(cancel_new);
CALL(cancel_signal);
CALL(cancel_free);
CALL(shutdown);
CALL(status_name);
CALL(last_error_message);

static void *library;
static camlease_camera *camera;
static camlease_frame *frames[4];
static camlease_cancel *cancel;
static pthread_t waiter;
static int waits;
static const char *uri;

static void die(const char *what)
{
    fprintf(stderr, "holder: %s: %s\n", what, last_error_message ? last_error_message() : dlerror());
    _exit(9);
}

static void *look_up(const char *name)
{
    void *found = dlsym(library, name);
    if (!found)
        die(name);
    return found;
}

static void load(const char *path)
{
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        die(path);
#define LOAD(name) *(void **)&name = look_up("camlease_" #name) /* as POSIX has it for dlsym */
    LOAD(last_error_message);
    LOAD(camera_open);
    LOAD(camera_close);
    LOAD(camera_start);
    LOAD(camera_next_frame);
    LOAD(frame_info);
    LOAD(frame_release);
    LOAD(cancel_new);
    LOAD(cancel_signal);
    LOAD(cancel_free);
    LOAD(shutdown);
    LOAD(status_name);
}

/* What the waiting call returned; told on stdout, so that a test sees that it did return. */
static void woken(camlease_status status)
{
    char line[64];
    int length = snprintf(line, sizeof line, "woken %s\n", status_name(status));
    if (write(STDOUT_FILENO, line, (size_t)length) < 0)
        _exit(8);
}

static void *wait_for_frame(void *unused)
{
    camlease_frame *frame;
    (void)unused;
    woken(camera_next_frame(camera, -1, &frame));
    return NULL;
}

static void told(void *user_data, const char *message, const camlease_holder *holders, size_t count)
{
    (void)user_data, (void)holders;
    fprintf(stderr, "holder: %s (%zu)\n", message, count);
    if (write(STDOUT_FILENO, "ready\n", 6) < 0)
        _exit(8);
}

static void *wait_for_camera(void *unused)
{
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    camlease_camera *other;
    (void)unused;
    options.timeout_ms = -1;
    options.cancel = cancel;
    options.on_wait = told;
    woken(camera_open(uri, &options, &other));
    return NULL;
}

static void reach(const char *state)
{
    if (strcmp(state, "waiting_busy") == 0) {
        if (cancel_new(&cancel))
            die("cancel_new");
        waits = 1;
        if (pthread_create(&waiter, NULL, wait_for_camera, NULL))
            _exit(7);
        return; /* told() says ready */
    }
    if (camera_open(uri, NULL, &camera))
        die("open");
    if (strcmp(state, "opened") != 0) {
        camlease_stream_options options = CAMLEASE_STREAM_OPTIONS_INIT;
        int wanted = strcmp(state, "started") == 0 ? 0 : strcmp(state, "frame") == 0 ? 1 : 4;
        options.buffers = 4;
        options.drop_policy = CAMLEASE_DROP_NEWEST;
        if (camera_start(camera, &options))
            die("start");
        for (int i = 0; i < wanted; i++)
            if (camera_next_frame(camera, 10000, &frames[i]))
                die("next_frame");
        if (wanted == 4) { /* every buffer is out: no frame can come */
            waits = 1;
            if (pthread_create(&waiter, NULL, wait_for_frame, NULL))
                _exit(7);
            usleep(50000); /* for the thread to be inside; nothing else depends on it */
        }
    }
    puts("ready");
}

static void stay(void)
{
    printf("ended %d\n", (int)getpid());
    fflush(stdout);
    for (;;)
        pause();
}

/* A frame that was out is read to its last byte: after the ending it must still be there. */
static void read_frames(void)
{
    static volatile unsigned sum;
    for (int i = 0; i < 4 && frames[i]; i++) {
        camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
        if (frame_info(frames[i], &data))
            die("frame_info");
        for (size_t at = 0; at < data.size; at += 512)
            sum += data.data[at];
    }
}

/* The same without a call: where the bytes are was found out before. */
static const uint8_t *bytes[4];
static size_t sizes[4];
static unsigned sums[4];

static unsigned sum_of(int frame)
{
    unsigned sum = 0;
    for (size_t at = 0; at < sizes[frame]; at++)
        sum = sum * 31 + bytes[frame][at];
    return sum;
}

static void remember_frames(void)
{
    for (int i = 0; i < 4 && frames[i]; i++) {
        camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
        if (frame_info(frames[i], &data))
            die("frame_info");
        bytes[i] = data.data;
        sizes[i] = data.size;
        sums[i] = sum_of(i);
    }
}

static void end(const char *ending, char **argv)
{
    if (strcmp(ending, "close") == 0) {
        if (camera && camera_close(camera))
            die("close");
        if (cancel && cancel_signal(cancel))
            die("cancel");
        if (waits)
            pthread_join(waiter, NULL);
        read_frames();
        if (camera) { /* free when close has returned, also where a thread waited for a frame */
            camlease_open_options once = CAMLEASE_OPEN_OPTIONS_INIT;
            once.timeout_ms = 0;
            if (camera_open(uri, &once, &camera))
                die("an open right after the close");
            camera_close(camera);
        }
        stay();
    }
    if (strcmp(ending, "shutdown") == 0) {
        if (shutdown())
            die("shutdown");
        if (waits)
            pthread_join(waiter, NULL);
        read_frames();
        stay();
    }
    if (strcmp(ending, "dlclose") == 0) {
        dlclose(library);
        if (waits)
            pthread_join(waiter, NULL);
        if (dlopen(argv[1], RTLD_NOW | RTLD_NOLOAD)) {
            fprintf(stderr, "holder: the library is still loaded\n");
            _exit(6);
        }
        stay();
    }
    if (strcmp(ending, "exit") == 0)
        exit(0);
    if (strcmp(ending, "abort") == 0)
        abort();
    if (strcmp(ending, "exec") == 0) {
        char line[64];
        snprintf(line, sizeof line, "echo ended $$; exec sleep 1000");
        execl("/bin/sh", "sh", "-c", line, (char *)NULL);
        _exit(5);
    }
    if (strncmp(ending, "fork_", 5) == 0) {
        pid_t child;
        remember_frames();
        child = fork();
        if (child < 0)
            _exit(4);
        if (child == 0) {
            prctl(PR_SET_PDEATHSIG, 0);
            /* No call of the library's: a child that makes none must hold nothing, and can read the frames. */
            for (int i = 0; i < 4 && frames[i]; i++)
                if (sum_of(i) != sums[i])
                    die("a child's frame");
            stay();
        }
        if (strcmp(ending, "fork_exit") == 0)
            exit(0);
        kill(getpid(), SIGKILL);
    }
    for (;;) /* a signal from the test ends it */
        pause();
}

int main(int argc, char **argv)
{
    char line[16];
    if (argc != 5)
        return 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    load(argv[1]);
    uri = argv[2];
    reach(argv[3]);
    if (!fgets(line, sizeof line, stdin))
        return 3;
    if (strcmp(argv[4], "return") == 0)
        return 0;
    end(argv[4], argv);
    return 1;
}
