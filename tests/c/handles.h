/* What the randomised programs on handles share: dice, bad handles, structs of every size, and the look at a status. */
#ifndef HANDLES_H
#define HANDLES_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "camlease.h"

/* Sets of statuses. */
#define S(name) (1u << CAMLEASE_##name)
#define ARGUMENT S(INVALID_ARGUMENT)
#define HANDLE S(INVALID_HANDLE)

enum kind { CAMERA, FRAME, DEVICES, HOLDERS, FORMATS, CONTROLS, CANCEL, KINDS };

/* One thread's luck and its place in the run. */
struct player {
    uint64_t state;   /* of its dice */
    uint64_t calls;   /* made so far */
    uint64_t refused; /* of these */
    uint64_t seed;
    unsigned number;
    char mark[256];
};

static inline uint64_t roll(struct player *p)
{
    uint64_t z = p->state += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* 0 to sides - 1 */
static inline uint32_t dice(struct player *p, uint32_t sides)
{
    return (uint32_t)((roll(p) >> 32) * sides >> 32);
}

static inline bool chance(struct player *p, uint32_t percent)
{
    return dice(p, 100) < percent;
}

static inline int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

__attribute__((noreturn, format(printf, 2, 3))) static inline void wrong(struct player *p, const char *format, ...)
{
    va_list arguments;
    fprintf(stderr, "WRONG (seed %" PRIu64 ", thread %u, call %" PRIu64 ", pid %d): ", p->seed, p->number, p->calls,
            (int)getpid());
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    _exit(70);
}

#define MUST(p, condition, ...)                                                                                        \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            wrong(p, "not so: " #condition "; " __VA_ARGS__);                                                          \
    } while (0)

static inline void names_of(uint32_t set, char *text, size_t room)
{
    size_t at = 0;
    text[0] = 0;
    for (uint32_t status = 0; status < 32; status++)
        if (set & (1u << status) && at < room)
            at += (size_t)snprintf(text + at, room - at, " %s", camlease_status_name(status));
}

/* A failure of a kind that the call to come cannot repeat word for word: if the message is the same afterwards, that
 * call set none. */
static inline void mark(struct player *p, enum kind kind)
{
    camlease_status marked = kind == CANCEL ? camlease_frame_release(NULL) : camlease_cancel_signal(NULL);
    if (marked != CAMLEASE_INVALID_HANDLE)
        wrong(p, "NULL is taken for a handle: %s", camlease_status_name(marked));
    snprintf(p->mark, sizeof p->mark, "%s", camlease_last_error_message());
}

/* Looks at what a call gave: one of the promised statuses, and words for a failure. */
static inline camlease_status judge(struct player *p, const char *call, camlease_status status, uint32_t allowed)
{
    p->calls += 1;
    const char *message = camlease_last_error_message();
    if (status >= 32 || !(allowed & (1u << status))) {
        char names[512];
        names_of(allowed, names, sizeof names);
        wrong(p, "%s gave %s (%s), but only these are promised:%s", call, camlease_status_name(status),
              status ? message : "", names);
    }
    if (status) {
        p->refused += 1;
        if (!message[0] || strcmp(message, p->mark) == 0)
            wrong(p, "%s failed with %s and set no message", call, camlease_status_name(status));
        if (camlease_last_error_errno() < 0)
            wrong(p, "%s failed with errno %d", call, (int)camlease_last_error_errno());
    }
    return status;
}

/* Makes a call and judges it. `kind` is the kind of handle that it takes. */
#define CALL(p, kind, allowed, call) (mark(p, kind), judge(p, #call, (call), (allowed)))

/* The same for a call with a handle output, which must be NULL on failure and must not on success. */
#define CALL_OUT(p, kind, allowed, out, call)                                                                          \
    __extension__({                                                                                                    \
        (out) = (void *)(uintptr_t)0x5a5a;                                                                             \
        mark(p, kind);                                                                                                 \
        camlease_status given_ = (call);                                                                               \
        judge_out(p, #call, given_, (allowed), (out));                                                                 \
    })

static inline camlease_status judge_out(struct player *p, const char *call, camlease_status status, uint32_t allowed,
                                        const void *out)
{
    judge(p, call, status, allowed);
    if ((status == CAMLEASE_OK) != (out != NULL) || out == (void *)(uintptr_t)0x5a5a)
        wrong(p, "%s gave %s and the handle %p", call, camlease_status_name(status), out);
    return status;
}

/* A handle that never was one. `real` is a live one to start from, or NULL. */
static inline void *made_up(struct player *p, void *real)
{
    uintptr_t bits = (uintptr_t)real;
    switch (dice(p, 6)) {
    case 0:
        return (void *)(uintptr_t)roll(p);
    case 1:
        return (void *)(bits ^ (uintptr_t)1 << dice(p, 64));
    case 2:
        return (void *)(bits + (uintptr_t)dice(p, 4096) - 2048);
    case 3:
        return (void *)(uintptr_t)dice(p, 65536);
    case 4:
        return p; /* memory that exists */
    default:
        return (void *)(bits << dice(p, 64) | (uintptr_t)dice(p, 2));
    }
}

/* A struct for the library to fill, of a size that need not be the one it knows. */
#define MOST 4096
struct filled {
    union {
        uint8_t bytes[MOST + 16];
        size_t struct_size;
        struct camlease_camera_info info;
        struct camlease_camera_stats stats;
        struct camlease_frame_data frame;
        struct camlease_device_info device;
        struct camlease_holder holder;
        struct camlease_format_info format;
        struct camlease_control_info control;
    };
    size_t known;
    bool whole;       /* filled to the end of what is known */
    uint32_t allowed; /* S(OK), or ARGUMENT where the size is refused */
    bool none;        /* NULL is passed */
};

static inline void prepare(struct player *p, struct filled *f, size_t known)
{
    uint32_t way = dice(p, 100);
    memset(f->bytes, 0xa5, sizeof f->bytes);
    f->known = known;
    f->allowed = S(OK);
    f->none = false;
    f->struct_size = known;
    if (way >= 70) {
        if (way < 78) { /* an older program's */
            f->struct_size = sizeof(size_t) + dice(p, (uint32_t)(known - sizeof(size_t)));
        } else if (way < 86) { /* a newer program's, which asks for nothing new */
            f->struct_size = known + dice(p, (uint32_t)(MOST - known + 1));
            memset(f->bytes + known, 0, f->struct_size - known);
        } else if (way < 90) { /* a newer program's, which does */
            f->struct_size = known + 1 + dice(p, (uint32_t)(MOST - known));
            memset(f->bytes + known, 0, f->struct_size - known);
            f->bytes[known + dice(p, (uint32_t)(f->struct_size - known))] = (uint8_t)(1 + dice(p, 255));
            f->allowed = ARGUMENT;
        } else if (way < 96) { /* not initialised */
            static const size_t bad[] = { 0, 1, 7, MOST + 1, SIZE_MAX, SIZE_MAX / 2 };
            f->struct_size = bad[dice(p, 6)];
            f->allowed = ARGUMENT;
        } else {
            f->none = true;
            f->allowed = ARGUMENT;
        }
    }
    f->whole = !f->none && f->allowed == S(OK) && f->struct_size >= known;
}

static inline void *place(struct filled *f)
{
    return f->none ? NULL : f->bytes;
}

/* The library wrote what the caller knows, nothing beyond, and nothing at all when it failed. */
static inline void look(struct player *p, const char *call, struct filled *f, size_t size_before, bool ok)
{
    size_t end = ok && !f->none ? (f->struct_size < f->known ? f->struct_size : f->known) : sizeof(size_t);
    if (f->struct_size != size_before)
        wrong(p, "%s changed struct_size from %zu to %zu", call, size_before, f->struct_size);
    for (size_t at = end; at < f->known; at++)
        if (f->bytes[at] != 0xa5)
            wrong(p, "%s wrote byte %zu of a struct of %zu bytes", call, at, size_before);
    size_t canary = size_before <= MOST && size_before > f->known ? size_before : f->known;
    for (size_t at = canary; at < sizeof f->bytes; at += at < f->known + 64 ? 1 : 61)
        if (f->bytes[at] != 0xa5)
            wrong(p, "%s wrote byte %zu past a struct of %zu bytes", call, at, size_before);
}

#define CALL_FILL(p, kind, f, handle_set, call)                                                                        \
    do {                                                                                                               \
        size_t before_ = (f)->struct_size;                                                                             \
        uint32_t set_ = (handle_set);                                                                                  \
        /* with several reasons to refuse, any of them will do */                                                      \
        uint32_t allowed_ = set_ == S(OK) ? (f)->allowed : (f)->allowed == S(OK) ? set_ : (set_ & ~S(OK)) | ARGUMENT;  \
        camlease_status status_ = CALL(p, kind, allowed_, call);                                                       \
        look(p, #call, f, before_, status_ == CAMLEASE_OK);                                                            \
        (f)->whole = (f)->whole && status_ == CAMLEASE_OK;                                                             \
    } while (0)

/* Descriptors of this process, those of the look itself apart. */
static inline int descriptors(void)
{
    int count = 0;
    DIR *folder = opendir("/proc/self/fd");
    if (!folder)
        return -1;
    for (struct dirent *entry; (entry = readdir(folder));)
        count += entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(folder);
    closedir(folder);
    return count;
}

/* For a failure: what they are. */
static inline void tell_descriptors(void)
{
    for (int fd = 0; fd < 256; fd++) {
        char path[64], target[256];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(path, target, sizeof target);
        if (length > 0)
            fprintf(stderr, "descriptor %d: %.*s\n", fd, (int)length, target);
    }
}

/* Waits until the other threads of this process have nothing to do. A child made past fork's handlers gets what they have
 * in the making; any child has what is known to them alone, which looks like a leak in it. Under valgrind one that could
 * run sleeps as well, until this one does. */
static inline void others_are_idle(struct player *p)
{
    int64_t until = now_ns() + INT64_C(20000000000);
    for (int idle_looks = 0; idle_looks < 3;) {
        bool idle;
        DIR *folder = opendir("/proc/self/task");
        idle = folder;
        for (struct dirent *entry; folder && (entry = readdir(folder));) {
            char path[64], line[512] = "";
            if (atoi(entry->d_name) <= 0 || atoi(entry->d_name) == (int)syscall(SYS_gettid))
                continue;
            snprintf(path, sizeof path, "/proc/self/task/%d/stat", atoi(entry->d_name));
            FILE *file = fopen(path, "re");
            if (!file)
                continue; /* it has ended */
            const char *name_end = fgets(line, sizeof line, file) ? strrchr(line, ')') : NULL;
            idle = idle && name_end && (name_end[2] == 'S' || name_end[2] == 'Z' || name_end[2] == 'X');
            fclose(file);
        }
        if (folder)
            closedir(folder);
        if (now_ns() > until)
            wrong(p, "the library's threads do not rest");
        idle_looks = idle ? idle_looks + 1 : 0;
        usleep(500);
    }
}

/* The ways to make a child: fork runs handlers, the other two do not. */
enum way { FORK, UNDERSCORE_FORK, CLONE, WAYS };
static inline pid_t make_child(enum way way)
{
    switch (way) {
    case FORK:
        return fork();
    case UNDERSCORE_FORK:
        return _Fork();
    default:
        return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
    }
}

/* Waits for a child, which tells by status 0 that all was as it should be. */
static inline void see_child_off(struct player *p, pid_t child)
{
    int status = -1;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            wrong(p, "waitpid: %s", strerror(errno));
    if (status != 0)
        wrong(p, "child %d ended with status 0x%x", (int)child, (unsigned)status);
}

#endif
