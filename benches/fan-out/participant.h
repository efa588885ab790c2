/* What producers and readers of the fan-out benchmark share: the frame's marks, the clock, the log, and the words by
 * which the driver (fan_out.py) leads them. In C that is also C++. participant.rs and by_python.py say the same.
 *
 *   PROGRAM producer SETTING=VALUE...     PROGRAM reader SETTING=VALUE...
 *
 * A producer prints "up PID", then publishes at 30 fps, so that readers find the way, until it reads "go". Then come the
 * frames that count, and "done FIRST COUNT NANOSECONDS". At "stop" it publishes a frame that ends its readers. A reader
 * prints "ready PID" at its first frame. */
#ifndef PARTICIPANT_H
#define PARTICIPANT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LAST UINT64_MAX      /* the sequence of the frame that ends readers */
#define DEPTH 4              /* frames that may wait for a reader, with whatever has a queue */
#define SECOND 1000000000LL
#define WARM_UP_FPS 30

/* A frame in the log: a producer's with the moments before the hand-over and before the wake-up (0: not known), a
 * reader's with the moment at which its bytes could be read. */
struct entry {
    uint64_t sequence;
    int64_t at, woke;
};

/* The driver reads it while this process runs, so nothing is lost with a process that gets killed. */
struct log {
    uint64_t count, torn;
    struct entry entries[];
};

struct participant {
    const char *folder;    /* for whatever has a name: sockets, files; the driver removes it */
    size_t bytes;          /* of a frame */
    unsigned width, height, readers, port;
    char format[8];
    unsigned fps;          /* 0: as fast as it goes */
    uint64_t frames;       /* that count, at most */
    int64_t limit;         /* nanoseconds that they may take */
    struct log *log;
    uint64_t room;
    uint64_t last;         /* a reader's newest sequence */
    int ready;
};

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
    va_list arguments;
    int cause = errno;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, " (%s)\n", strerror(cause));
    fflush(NULL);
    _exit(2);
}

static inline int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

static inline void say(const char *line)
{
    if (write(1, line, strlen(line)) < 0)
        die("write to the driver");
}

static inline void open_log(struct participant *self, const char *path)
{
    struct stat status;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *memory;
    if (fd < 0 || fstat(fd, &status))
        die("%s", path);
    memory = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (memory == MAP_FAILED)
        die("%s", path);
    close(fd);
    self->log = (struct log *)memory;
    self->room = ((uint64_t)status.st_size - sizeof(struct log)) / sizeof(struct entry);
}

/* True for a producer. */
static inline int take_part(struct participant *self, int argc, char **argv)
{
    memset(self, 0, sizeof *self);
    if (argc < 2)
        die("usage: %s producer|reader SETTING=VALUE...", argv[0]);
    for (int at = 2; at < argc; at++) {
        char *value = strchr(argv[at], '=');
        size_t length;
        if (!value)
            die("%s is no setting", argv[at]);
        length = (size_t)(value++ - argv[at]);
#define IS(name) (length == sizeof name - 1 && !strncmp(argv[at], name, length))
        if (IS("folder"))
            self->folder = value;
        else if (IS("log"))
            open_log(self, value);
        else if (IS("format"))
            snprintf(self->format, sizeof self->format, "%s", value);
        else if (IS("bytes"))
            self->bytes = strtoull(value, NULL, 10);
        else if (IS("width"))
            self->width = (unsigned)strtoul(value, NULL, 10);
        else if (IS("height"))
            self->height = (unsigned)strtoul(value, NULL, 10);
        else if (IS("readers"))
            self->readers = (unsigned)strtoul(value, NULL, 10);
        else if (IS("port"))
            self->port = (unsigned)strtoul(value, NULL, 10);
        else if (IS("fps"))
            self->fps = (unsigned)strtoul(value, NULL, 10);
        else if (IS("frames"))
            self->frames = strtoull(value, NULL, 10);
        else if (IS("limit"))
            self->limit = strtoll(value, NULL, 10);
        else
            die("%s is no setting", argv[at]);
#undef IS
    }
    if (!self->log || !self->folder || self->bytes < 24)
        die("a setting is missing");
    return !strcmp(argv[1], "producer");
}

/* The sequence at both ends of a frame: it tells a frame that was overwritten while it was read. */
static inline void mark(uint8_t *frame, size_t bytes, uint64_t sequence)
{
    memcpy(frame, &sequence, sizeof sequence);
    memcpy(frame + bytes - sizeof sequence, &sequence, sizeof sequence);
}


/* Just before a frame is handed over. */
static inline void published(struct participant *self, uint64_t sequence)
{
    uint64_t at = self->log->count;
    struct entry entry = { sequence, 0, 0 };
    if (at == self->room || sequence == LAST)
        return;
    self->log->entries[at] = entry;
    self->log->entries[at].at = now_ns();
    __atomic_store_n(&self->log->count, at + 1, __ATOMIC_RELEASE);
}

/* Just before its readers are woken, where that can be told. */
static inline void woke(struct participant *self, uint64_t sequence)
{
    struct entry *newest = &self->log->entries[self->log->count - 1];
    if (self->log->count && newest->sequence == sequence)
        newest->woke = now_ns();
}

/* A frame can be read. 0: it was the last one. */
static inline int received(struct participant *self, const uint8_t *frame, size_t bytes)
{
    uint64_t head, tail, at = self->log->count;
    struct entry entry;
    memcpy(&head, frame, sizeof head);
    memcpy(&tail, frame + self->bytes - sizeof tail, sizeof tail);
    entry.at = now_ns();
    entry.sequence = head;
    entry.woke = 0;
    if (bytes < self->bytes)
        die("a frame of %zu bytes in place of %zu", bytes, self->bytes);
    if (head == LAST)
        return 0;
    if (head != tail || (self->ready && head <= self->last)) {
        self->log->torn++;
        return 1;
    }
    self->last = head;
    if (at < self->room) {
        self->log->entries[at] = entry;
        __atomic_store_n(&self->log->count, at + 1, __ATOMIC_RELEASE);
    }
    if (!self->ready) {
        char line[32];
        self->ready = 1;
        snprintf(line, sizeof line, "ready %d\n", (int)getpid());
        say(line);
    }
    return 1;
}

static inline void sleep_until(int64_t moment)
{
    struct timespec at = { moment / SECOND, moment % SECOND };
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) == EINTR)
        ;
}

/* What the driver said, within that time: 'g'o, 's'top, or 0. */
static inline char heard(int timeout_ms)
{
    struct pollfd input = { 0, POLLIN, 0 };
    char line[64];
    ssize_t length;
    if (poll(&input, 1, timeout_ms) <= 0)
        return 0;
    length = read(0, line, sizeof line);
    return length > 0 ? line[0] : 's';
}

/* A producer's whole life. */
static inline void produce(struct participant *self, void (*publish)(struct participant *, uint64_t sequence))
{
    uint64_t sequence = 0, first;
    int64_t began, due;
    char line[96];
    snprintf(line, sizeof line, "up %d\n", (int)getpid());
    say(line);
    while (heard(1000 / WARM_UP_FPS) != 'g')
        publish(self, sequence++);
    first = sequence;
    began = due = now_ns();
    while (sequence - first < self->frames && now_ns() - began < self->limit) {
        if (self->fps) {
            due += SECOND / self->fps;
            if (due < now_ns() - SECOND / self->fps)
                due = now_ns(); /* a producer that is late drops its beat, as a camera does */
            sleep_until(due);
        }
        publish(self, sequence++);
    }
    snprintf(line, sizeof line, "done %llu %llu %lld\n", (unsigned long long)first,
             (unsigned long long)(sequence - first), (long long)(now_ns() - began));
    say(line);
    while (heard(10000) == 0)
        ;
    for (int times = 0; times < 5; times++) {
        publish(self, LAST);
        usleep(20000);
    }
}

#endif
