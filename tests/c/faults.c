/* Takes a camera through its life with one kernel call failing on the way, and tells what came of it. interpose.c has to be
 * preloaded.
 *
 * faults URI
 *
 * Standard input has a line for each case: PHASE MS RULE, with RULE as interpose.c takes it, in force during one call:
 *   open, start, frame, release, stop, close: that call of an open-start-frame-stop-start-frame-close; the wait for the
 *     frame lasts up to MS milliseconds;
 *   wait: an open of the camera while it is held, for MS milliseconds;
 *   fork: a fork with a frame out;
 *   ask: an open that asks for it while it is held, with a higher priority, for MS milliseconds. It may get it.
 * The answer is a line of NAME=VALUE, separated by tabs, the last of them message. What failed is tried again without the
 * fault ("again"); whatever happened, the camera is closed and must have left nothing ("left"); and a life without a fault
 * follows ("next").
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <inttypes.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "camlease.h"

static bool (*interpose_arm)(const char *);
static void (*interpose_disarm)(void);
static void (*interpose_tell)(unsigned *, unsigned *);

static const char *uri;
static char phase[16], rule[128];
static int patience; /* milliseconds, of the call in which the rule is in force */

static struct {
    bool tried;
    camlease_status status;
    int error;
    char message[1024];
    unsigned seen, failed, warned;
    double milliseconds;
} outcome;

static bool in_force;

static void take_log(void *user_data, uint32_t level, const char *message)
{
    (void)user_data, (void)message;
    if (level <= CAMLEASE_LOG_WARNING && in_force)
        outcome.warned++;
}

static double milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* Puts the fault in force if it is for this phase. */
static bool begin(const char *now)
{
    if (outcome.tried || strcmp(phase, now) != 0)
        return false;
    outcome.tried = true;
    if (!interpose_arm(rule)) {
        fprintf(stderr, "faults: \"%s\" is no rule\n", rule);
        exit(2);
    }
    outcome.milliseconds = milliseconds();
    in_force = true;
    return true;
}

static camlease_status end(bool begun, camlease_status status)
{
    if (!begun)
        return status;
    outcome.milliseconds = milliseconds() - outcome.milliseconds;
    interpose_disarm();
    in_force = false;
    interpose_tell(&outcome.seen, &outcome.failed);
    outcome.status = status;
    if (status) {
        outcome.error = camlease_last_error_errno();
        snprintf(outcome.message, sizeof outcome.message, "%s", camlease_last_error_message());
    }
    return status;
}

#define IN(now, call)                                                                                                  \
    __extension__({                                                                                                    \
        bool begun_ = begin(now);                                                                                      \
        end(begun_, (call));                                                                                           \
    })

static void expect(camlease_status status, const char *what)
{
    if (status == CAMLEASE_OK)
        return;
    printf("broken=%s %s: %s\n", what, camlease_status_name(status), camlease_last_error_message());
    exit(3);
}

/* What the process has: descriptors, threads, mappings of the node. */
struct belongings {
    int descriptors, threads, mappings;
};

static int entries(const char *path)
{
    int count = 0;
    DIR *folder = opendir(path);
    while (folder && readdir(folder))
        count++;
    closedir(folder);
    return count - 2; /* . and .. */
}

static struct belongings look(void)
{
    struct belongings b = { entries("/proc/self/fd"), entries("/proc/self/task"), 0 };
    char line[1024];
    FILE *maps = fopen("/proc/self/maps", "re");
    while (maps && fgets(line, sizeof line, maps))
        b.mappings += strstr(line, "/dev/video") != NULL;
    fclose(maps);
    return b;
}

/* A thread that was joined is in /proc a moment longer: looks until there are so many. */
static struct belongings look_for(int threads)
{
    struct belongings b = look();
    for (int tries = 0; tries < 2000 && b.threads != threads; tries++) {
        usleep(10000);
        b = look();
    }
    return b;
}

static long anonymous(void)
{
    long size = -1;
    char line[1024];
    malloc_trim(0);
    FILE *file = fopen("/proc/self/smaps_rollup", "re");
    while (file && fgets(line, sizeof line, file))
        sscanf(line, "Anonymous: %ld", &size);
    fclose(file);
    return size;
}

static unsigned sum; /* of bytes of frames: reading is what would crash */

static void read_frame(const struct camlease_frame_data *data)
{
    for (uint32_t plane = 0; plane < data->planes; plane++)
        for (size_t at = 0; at < data->plane[plane].size; at += 1024)
            sum += data->plane[plane].data[at];
}

static camlease_status start(camlease_camera *camera)
{
    camlease_stream_options options = CAMLEASE_STREAM_OPTIONS_INIT;
    options.width = 640; /* so that format and rate are set, and not only read */
    options.height = 360;
    options.fps_numerator = 30;
    options.fps_denominator = 1;
    options.buffers = 4;
    options.drop_policy = CAMLEASE_DROP_NEWEST;
    return camlease_camera_start(camera, &options);
}

static void in_child(camlease_frame *frame, const struct camlease_frame_data *data, const uint8_t *copy)
{
    if (camlease_frame_release(frame) != CAMLEASE_FORKED)
        _exit(4);
    read_frame(data);
    /* A child without memory for a copy reads zeroes, as a close in that state gives. */
    _exit(memcmp(data->data, copy, data->size) == 0 ? 0 : 5);
}

/* A camera that was lost is regained, one that is held streams or can be started; then it can be reset. */
static camlease_status after_failed_reset(camlease_camera *camera)
{
    struct camlease_camera_info info = CAMLEASE_CAMERA_INFO_INIT;
    if (outcome.status == CAMLEASE_DISCONNECTED) /* which fails where it was refused before anything was given up */
        camlease_camera_regain(camera, 10000);
    expect(camlease_camera_info(camera, &info), "info");
    if (info.state != CAMLEASE_CAMERA_STREAMING)
        expect(start(camera), "the start after the reset");
    return camlease_camera_reset(camera, NULL);
}

/* One life. The status of the phase's second attempt goes to *again. */
static void live(bool faulty, camlease_status *again)
{
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    camlease_camera *camera, *other;
    camlease_frame *frame;
    struct camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
    options.timeout_ms = 0;
    *again = CAMLEASE_OK;

    if (IN("open", camlease_camera_open(uri, &options, &camera))) {
        expect(camera ? CAMLEASE_INTERNAL : CAMLEASE_OK, "a failed open's output");
        expect(*again = camlease_camera_open(uri, &options, &camera), "the second open");
    }
    if (strcmp(phase, "wait") == 0 && faulty) {
        options.timeout_ms = patience;
        if (IN("wait", camlease_camera_open(uri, &options, &other)) == CAMLEASE_OK)
            expect(CAMLEASE_INTERNAL, "two have the camera");
    }
    if (strcmp(phase, "ask") == 0 && faulty) {
        options.on_busy = CAMLEASE_ON_BUSY_ASK;
        options.priority = 1;
        options.timeout_ms = patience;
        /* whoever has it then goes on; without a fault it is asked for in time */
        if (IN("ask", camlease_camera_open(uri, &options, &other)))
            options.timeout_ms = 10000, expect(*again = camlease_camera_open(uri, &options, &other), "the second ask");
        if (camlease_camera_stop(camera) != CAMLEASE_EVICTED)
            expect(CAMLEASE_INTERNAL, "two have the camera");
        expect(camlease_camera_close(camera), "close of one that was handed over");
        camera = other;
    }
    struct camlease_camera_info info = CAMLEASE_CAMERA_INFO_INIT;
    expect(camlease_camera_info(camera, &info), "info");
    if (info.last_exit != CAMLEASE_EXIT_CLEAN) /* whatever could not be filed or removed: nobody died */
        expect(CAMLEASE_INTERNAL, "the last exit");
    if (IN("start", start(camera)))
        expect(*again = start(camera), "the second start");
    if (IN("frame", camlease_camera_next_frame(camera, faulty && strcmp(phase, "frame") == 0 ? patience : 5000, &frame)))
        expect(*again = camlease_camera_next_frame(camera, 5000, &frame), "the second wait for a frame");
    expect(camlease_frame_info(frame, &data), "frame_info");
    read_frame(&data);
    if (strcmp(phase, "fork") == 0 && faulty) {
        uint8_t *copy = malloc(data.size);
        memcpy(copy, data.data, data.size);
        bool begun = begin("fork");
        pid_t child = fork();
        if (child == 0)
            in_child(frame, &data, copy);
        int status = -1;
        waitpid(child, &status, 0);
        end(begun, status == 0 ? CAMLEASE_OK : CAMLEASE_INTERNAL);
        if (status)
            snprintf(outcome.message, sizeof outcome.message, "the child ended with 0x%x", (unsigned)status);
        if (memcmp(copy, data.data, data.size) != 0)
            expect(CAMLEASE_INTERNAL, "the parent's frame");
        free(copy);
    }
    if (strcmp(phase, "reset") == 0 && faulty && IN("reset", camlease_camera_reset(camera, NULL)))
        *again = after_failed_reset(camera);
    expect(IN("release", camlease_frame_release(frame)), "release");
    expect(camlease_camera_next_frame(camera, 5000, &frame), "a frame after a release");
    expect(camlease_frame_info(frame, &data), "frame_info");
    IN("stop", camlease_camera_stop(camera)); /* the stream has ended in any case */
    read_frame(&data);
    expect(camlease_frame_release(frame), "release after stop");
    expect(*again |= start(camera), "the start after the stop");
    expect(camlease_camera_next_frame(camera, 5000, &frame), "a frame of the second stream");
    expect(camlease_frame_info(frame, &data), "frame_info");
    expect(IN("close", camlease_camera_close(camera)), "close");
    read_frame(&data);
    expect(camlease_frame_release(frame), "release after close");
}

static void *find(const char *name)
{
    void *found = dlsym(RTLD_DEFAULT, name);
    if (!found) {
        fprintf(stderr, "faults: %s is not there: preload interpose\n", name);
        exit(2);
    }
    return found;
}

int main(int argc, char **argv)
{
    char line[256];
    camlease_status again, next;
    if (argc != 2)
        return 2;
    uri = argv[1];
    setvbuf(stdout, NULL, _IOLBF, 0);
    *(void **)&interpose_arm = find("interpose_arm");
    *(void **)&interpose_disarm = find("interpose_disarm");
    *(void **)&interpose_tell = find("interpose_tell");
    expect(camlease_set_log_callback(take_log, NULL, CAMLEASE_LOG_WARNING), "set_log_callback");
    live(false, &again); /* what is there for good is there now */
    long before = anonymous();
    struct belongings first = look_for(1); /* with a camera closed there is none of the library's */
    while (fgets(line, sizeof line, stdin)) {
        memset(&outcome, 0, sizeof outcome);
        phase[0] = rule[0] = 0;
        if (sscanf(line, "%15s %d %127[^\n]", phase, &patience, rule) != 3) {
            fprintf(stderr, "faults: \"%s\" is no case\n", line);
            return 2;
        }
        alarm(60); /* a case that hangs is a failure of its own */
        live(true, &again);
        struct belongings left = look_for(first.threads);
        double begun = milliseconds();
        phase[0] = 0;
        live(false, &next);
        printf("status=%s\terrno=%d\tseen=%u\tfailed=%u\twarned=%u\tms=%.1f\tagain=%s\tleft=%d,%d,%d\tnext=%.1f\tmessage=%s\n",
               camlease_status_name(outcome.status), outcome.error, outcome.seen, outcome.failed, outcome.warned,
               outcome.milliseconds,
               camlease_status_name(again), left.descriptors - first.descriptors, left.threads - first.threads,
               left.mappings - first.mappings, milliseconds() - begun, outcome.message);
    }
    printf("grown=%ld\n", anonymous() - before);
    return 0;
}
