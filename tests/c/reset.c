/* Resets a camera in a program of its own: what becomes of its stream, of a frame that is out, and of the process.
 *
 * reset URI ROUNDS   opens it, streams, resets it so many times, and tells what it has before and after. A reset that is
 *                    refused is told by its status and message, and the stream has to go on.
 * reset URI exit     a thread resets it and waits without end for its return; a line on stdin, and the program exits.
 * reset URI fork     the same, and the line makes it fork instead: the child stays until it is killed, and must have
 *                    nothing of the camera.
 */
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "camlease.h"

static camlease_camera *camera;

static void must(camlease_status status, const char *what)
{
    if (status == CAMLEASE_OK)
        return;
    fprintf(stderr, "reset: %s: %s: %s\n", what, camlease_status_name(status), camlease_last_error_message());
    _exit(1);
}
#define OK(call) must(camlease_##call, #call)

static int entries(const char *path)
{
    int count = 0;
    DIR *folder = opendir(path);
    if (!folder)
        _exit(2);
    while (readdir(folder))
        count++;
    closedir(folder);
    return count - 2;
}

struct figures {
    int descriptors, threads, mappings;
};

static struct figures look(void)
{
    struct figures f = { entries("/proc/self/fd") - 1, entries("/proc/self/task"), 0 };
    int letter;
    FILE *file = fopen("/proc/self/maps", "re");
    if (!file)
        _exit(2);
    while ((letter = getc(file)) != EOF)
        f.mappings += letter == '\n';
    fclose(file);
    return f;
}

/* A thread that was joined is in /proc a moment longer: looks until several looks agree, and at the end until they are
 * what they were at first. */
static void tell(const char *when)
{
    static struct figures first;
    static int is_known;
    struct figures f = look();
    for (int tries = 0, agreed = 0; tries < 400 && agreed < 6; tries++) {
        usleep(50000);
        struct figures before = f;
        f = look();
        int is_same = memcmp(&before, &f, sizeof f) == 0;
        agreed = is_same && (!is_known || f.threads == first.threads) ? agreed + 1 : 0;
    }
    if (!is_known)
        first = f;
    is_known = 1;
    printf("%s descriptors=%d threads=%d mappings=%d\n", when, f.descriptors, f.threads, f.mappings);
}

static unsigned sum_of(const struct camlease_frame_data *data)
{
    unsigned sum = 0;
    for (size_t at = 0; at < data->size; at++)
        sum = sum * 31 + data->data[at];
    return sum;
}

static int refused(camlease_status status)
{
    if (status == CAMLEASE_OK)
        return 0;
    printf("%s %s\n", camlease_status_name(status), camlease_last_error_message());
    return 1;
}

static void rounds(int count)
{
    camlease_reset_options options = CAMLEASE_RESET_OPTIONS_INIT;
    struct camlease_camera_stats stats = CAMLEASE_CAMERA_STATS_INIT;
    struct camlease_frame_data kept = CAMLEASE_FRAME_DATA_INIT, data = CAMLEASE_FRAME_DATA_INIT;
    camlease_frame *out, *frame;
    options.timeout_ms = 30000;
    OK(camera_next_frame(camera, 10000, &out));
    OK(frame_info(out, &kept));
    unsigned sum = sum_of(&kept);
    uint64_t done = 0;
    for (int round = 0; round < count; round++) {
        done += !refused(camlease_camera_reset(camera, &options));
        OK(camera_next_frame(camera, 10000, &frame));
        OK(frame_info(frame, &data));
        OK(frame_release(frame));
        if (data.size != kept.size || data.width != kept.width || data.fourcc != kept.fourcc)
            must(CAMLEASE_INTERNAL, "the frames are others");
        if (round == 0)
            tell("first"); /* what the first reset allocates for good is no leak */
    }
    tell("last");
    OK(frame_info(out, &data));
    if (data.data != kept.data || sum_of(&data) != sum)
        must(CAMLEASE_INTERNAL, "the frame that was out has changed");
    OK(camera_stats(camera, &stats));
    if (stats.resets != done || stats.frames_out != 1)
        must(CAMLEASE_INTERNAL, "the counters");
    OK(frame_release(out));
    OK(camera_close(camera));
    printf("reset %d times\n", (int)done);
}

static void *reset_without_end(void *unused)
{
    camlease_reset_options options = CAMLEASE_RESET_OPTIONS_INIT;
    options.timeout_ms = -1;
    (void)unused;
    puts("resetting");
    refused(camlease_camera_reset(camera, &options));
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    char line[16];
    if (argc != 3)
        return 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    OK(camera_open(argv[1], NULL, &camera));
    OK(camera_start(camera, NULL));
    if (atoi(argv[2]) > 0) {
        rounds(atoi(argv[2]));
        return 0;
    }
    if (pthread_create(&thread, NULL, reset_without_end, NULL) || !fgets(line, sizeof line, stdin))
        return 3;
    if (strcmp(argv[2], "exit") == 0)
        exit(0);
    pid_t child = fork();
    if (child < 0)
        return 4;
    if (child == 0)
        for (;;)
            pause();
    printf("forked %d\n", (int)child);
    pthread_join(thread, NULL); /* it comes back while the child is there */
    return 0;
}
