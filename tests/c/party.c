/* A program that does with cameras what its standard input says, a command to a line, and answers each with a line.
 *
 *   open URI ON_BUSY PRIORITY TIMEOUT GRACE [NAME]   ON_BUSY: wait, ask, evict; adds "reset" in place of NAME's word
 *   share NAME [WIDTH HEIGHT]                         shares the camera; it streams at once
 *   start [WIDTH HEIGHT] | stop | frame [TIMEOUT] | release | check | close | regain TIMEOUT | info | fd TIMEOUT
 *   answer yield|priority|close                       what the callback about one who asks does
 *   fork                                              a child that keeps all, sleeping
 *   exit
 *
 * An answer is the status without CAMLEASE_, and what else there is to say; "open" and "frame" tell the monotonic time
 * in microseconds. The callback says "asked PID UID PRIORITY MUST GRACE NAME" on standard error.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "camlease.h"

static camlease_camera *camera;
static camlease_frame *frame;
static unsigned frame_sum;
static int ready = -1; /* the camera's descriptor */
static int answer; /* 0: by priority, 1: yield, 2: close */

static const char *word(camlease_status status)
{
    return camlease_status_name(status) + strlen("CAMLEASE_");
}

static long long now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

static void say(camlease_status status)
{
    if (status)
        printf("%s %s\n", word(status), camlease_last_error_message());
    else
        printf("OK %lld\n", now_us());
}

static uint32_t asked(void *user_data, const camlease_asker *asker)
{
    int answered = answer; /* whoever reads the line may give another answer for the next */
    fprintf(stderr, "asked %d %u %d %u %llu %s\n", asker->pid, asker->uid, asker->priority, asker->must,
            (unsigned long long)asker->grace_ms, asker->name);
    if (user_data != &answer)
        abort();
    if (answered == 2)
        camlease_camera_close(camera);
    return answered == 1 ? CAMLEASE_ANSWER_YIELD : CAMLEASE_ANSWER_BY_PRIORITY;
}

static void open_camera(char *rest)
{
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    char uri[256], on_busy[16], name[128] = "";
    if (sscanf(rest, "%255s %15s %d %d %d %127[^\n]", uri, on_busy, &options.priority, &options.timeout_ms,
               &options.grace_ms, name) < 5)
        exit(2);
    options.on_busy = strcmp(on_busy, "ask") == 0     ? CAMLEASE_ON_BUSY_ASK
                      : strcmp(on_busy, "evict") == 0 ? CAMLEASE_ON_BUSY_EVICT
                                                      : CAMLEASE_ON_BUSY_WAIT;
    if (strcmp(name, "reset") == 0)
        options.flags = CAMLEASE_OPEN_RESET_AFTER_DIRTY_EXIT;
    options.name = name;
    options.on_ask = asked;
    options.user_data = &answer;
    camlease_status status = camlease_camera_open(uri, &options, &camera);
    if (!status)
        status = camlease_camera_fd(camera, &ready);
    say(status);
}

static void share_camera(char *rest)
{
    camlease_stream_options stream = CAMLEASE_STREAM_OPTIONS_INIT;
    camlease_share_options options = CAMLEASE_SHARE_OPTIONS_INIT;
    char name[80] = "";
    sscanf(rest, "%79s %u %u", name, &stream.width, &stream.height);
    stream.drop_policy = CAMLEASE_DROP_NEWEST;
    options.name = name;
    options.start = CAMLEASE_SHARE_ALWAYS;
    options.stream = &stream;
    say(camlease_share_start(camera, &options));
}

static unsigned sum_of(camlease_frame *of)
{
    camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
    unsigned sum = 0;
    if (camlease_frame_info(of, &data))
        return 0;
    for (size_t at = 0; at < data.size; at++)
        sum = sum * 31 + data.data[at];
    return sum;
}

int main(void)
{
    char line[512];
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stderr, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin)) {
        char command[32] = "", *rest = line;
        int length = 0;
        sscanf(line, "%31s %n", command, &length);
        rest += length;
        if (strcmp(command, "open") == 0) {
            open_camera(rest);
        } else if (strcmp(command, "share") == 0) {
            share_camera(rest);
        } else if (strcmp(command, "start") == 0) {
            camlease_stream_options options = CAMLEASE_STREAM_OPTIONS_INIT;
            sscanf(rest, "%u %u", &options.width, &options.height);
            options.buffers = 4;
            say(camlease_camera_start(camera, &options));
        } else if (strcmp(command, "stop") == 0) {
            say(camlease_camera_stop(camera));
        } else if (strcmp(command, "frame") == 0) {
            int timeout = *rest ? atoi(rest) : 5000;
            camlease_frame *next;
            camlease_status status = camlease_camera_next_frame(camera, timeout, &next);
            if (!status) {
                if (frame)
                    camlease_frame_release(frame);
                frame = next;
                frame_sum = sum_of(frame);
            }
            say(status);
        } else if (strcmp(command, "release") == 0) {
            say(camlease_frame_release(frame));
            frame = NULL;
        } else if (strcmp(command, "check") == 0) { /* the frame that is out has the bytes that it had */
            puts(frame && sum_of(frame) == frame_sum ? "OK" : "DIFFERENT");
        } else if (strcmp(command, "close") == 0) {
            say(camlease_camera_close(camera));
        } else if (strcmp(command, "regain") == 0) {
            say(camlease_camera_regain(camera, atoi(rest)));
        } else if (strcmp(command, "info") == 0) {
            struct camlease_camera_info info = CAMLEASE_CAMERA_INFO_INIT;
            struct camlease_camera_stats stats = CAMLEASE_CAMERA_STATS_INIT;
            camlease_status status = camlease_camera_info(camera, &info);
            if (!status)
                status = camlease_camera_stats(camera, &stats);
            if (status)
                say(status);
            else
                printf("OK state=%u width=%u last_exit=%u priority=%d reconnects=%llu resets=%llu attempts=%llu\n",
                       info.state, info.width, info.last_exit, info.priority, (unsigned long long)stats.reconnects,
                       (unsigned long long)stats.resets, (unsigned long long)stats.open_attempts);
        } else if (strcmp(command, "fd") == 0) {
            struct pollfd wait = {.fd = ready, .events = POLLIN};
            printf("OK %d\n", poll(&wait, 1, atoi(rest)));
        } else if (strcmp(command, "answer") == 0) {
            answer = strncmp(rest, "yield", 5) == 0 ? 1 : strncmp(rest, "close", 5) == 0 ? 2 : 0;
            puts("OK");
        } else if (strcmp(command, "fork") == 0) {
            pid_t child = fork();
            if (child == 0)
                for (;;)
                    pause();
            printf("OK %d\n", (int)child);
        } else if (strcmp(command, "exit") == 0) {
            return 0;
        } else {
            return 2;
        }
    }
    return 0;
}
