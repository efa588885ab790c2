/* What the benchmarks share: clocks, order statistics, and V4L2 as a careful programmer writes it by hand. */
#ifndef BENCH_H
#define BENCH_H

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "camlease.h"

#define BUFFERS 4 /* of every stream here, by hand or through the library */

/* Something broke: no figure of this run counts. */
__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *format, ...)
{
    va_list arguments;
    int cause = errno;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, " (errno: %s; camlease: %s)\n", strerror(cause), camlease_last_error_message());
    fflush(NULL);
    _exit(2);
}

static inline void must(camlease_status status, const char *what)
{
    if (status != CAMLEASE_OK)
        die("%s: %s", what, camlease_status_name(status));
}

static inline int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static inline unsigned number(const char *text)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (end == text || *end != '\0' || value > 100000000)
        die("%s is no number", text);
    return (unsigned)value;
}

/* Figures of one kind, in the order in which they were taken. */
struct series {
    double *values;
    size_t count, room;
};

static inline void add(struct series *series, double value)
{
    if (series->count == series->room) {
        series->room = series->room ? 2 * series->room : 256;
        series->values = realloc(series->values, series->room * sizeof *series->values);
        if (!series->values)
            die("out of memory");
    }
    series->values[series->count++] = value;
}

static inline int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The value that `share` (0 to 1) of the figures do not exceed; 0.5 is the median. */
static inline double quantile(const struct series *series, double share)
{
    double *sorted, value;
    size_t above;
    if (series->count == 0)
        return 0;
    sorted = malloc(series->count * sizeof *sorted);
    if (!sorted)
        die("out of memory");
    memcpy(sorted, series->values, series->count * sizeof *sorted);
    qsort(sorted, series->count, sizeof *sorted, compare_doubles);
    above = (size_t)(share * (double)(series->count - 1));
    value = sorted[above];
    if (above + 1 < series->count) {
        double rest = share * (double)(series->count - 1) - (double)above;
        value += rest * (sorted[above + 1] - value);
    }
    free(sorted);
    return value;
}

static inline double median(const struct series *series)
{
    return quantile(series, 0.5);
}

static inline const char *verdict(double ratio, double most)
{
    return ratio <= most ? "met" : "missed";
}

/* A V4L2 camera by hand: single-planar, mmap. */
struct bare {
    int fd;
    unsigned count;
    struct {
        uint8_t *data;
        size_t length;
    } buffers[BUFFERS];
};

/* A signal does not end a request. */
static inline int request(int fd, unsigned long code, void *argument)
{
    int result;
    do
        result = ioctl(fd, code, argument);
    while (result == -1 && errno == EINTR);
    return result;
}

static inline void bare_open(struct bare *camera, const char *node)
{
    memset(camera, 0, sizeof *camera);
    camera->fd = open(node, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (camera->fd < 0)
        die("%s", node);
}

/* Takes (or with 0 gives up) the driver's buffers: whoever has them is the one who may stream. */
static inline int bare_claim(struct bare *camera, unsigned count)
{
    struct v4l2_requestbuffers buffers = { .count = count,
                                           .type = V4L2_BUF_TYPE_VIDEO_CAPTURE,
                                           .memory = V4L2_MEMORY_MMAP };
    int result = request(camera->fd, VIDIOC_REQBUFS, &buffers);
    camera->count = buffers.count;
    return result;
}

static inline struct v4l2_buffer bare_buffer(unsigned index)
{
    struct v4l2_buffer buffer = { .index = index,
                                  .type = V4L2_BUF_TYPE_VIDEO_CAPTURE,
                                  .memory = V4L2_MEMORY_MMAP };
    return buffer;
}

static inline void bare_start(struct bare *camera, unsigned width, unsigned height, unsigned fps)
{
    enum v4l2_buf_type type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    struct v4l2_format format = { .type = type };
    struct v4l2_streamparm rate = { .type = type };
    format.fmt.pix.width = width;
    format.fmt.pix.height = height;
    format.fmt.pix.pixelformat = V4L2_PIX_FMT_YUYV;
    if (request(camera->fd, VIDIOC_S_FMT, &format) || format.fmt.pix.width != width || format.fmt.pix.height != height)
        die("S_FMT %ux%u", width, height);
    rate.parm.capture.timeperframe.numerator = 1;
    rate.parm.capture.timeperframe.denominator = fps;
    if (request(camera->fd, VIDIOC_S_PARM, &rate))
        die("S_PARM %u", fps);
    if (bare_claim(camera, BUFFERS) || camera->count != BUFFERS)
        die("REQBUFS");
    for (unsigned at = 0; at < camera->count; at++) {
        struct v4l2_buffer buffer = bare_buffer(at);
        void *data;
        if (request(camera->fd, VIDIOC_QUERYBUF, &buffer))
            die("QUERYBUF");
        data = mmap(NULL, buffer.length, PROT_READ, MAP_SHARED, camera->fd, buffer.m.offset);
        if (data == MAP_FAILED)
            die("mmap");
        camera->buffers[at].data = data;
        camera->buffers[at].length = buffer.length;
        if (request(camera->fd, VIDIOC_QBUF, &buffer))
            die("QBUF");
    }
    if (request(camera->fd, VIDIOC_STREAMON, &type))
        die("STREAMON");
}

/* The next frame in order; it is given back by bare_release(). */
static inline struct v4l2_buffer bare_next(struct bare *camera, int timeout_ms)
{
    for (;;) {
        struct pollfd ready = { .fd = camera->fd, .events = POLLIN };
        struct v4l2_buffer buffer = bare_buffer(0);
        int found = poll(&ready, 1, timeout_ms);
        if (found == 0)
            die("no frame within %d ms", timeout_ms);
        if (found < 0 && errno != EINTR)
            die("poll");
        if (found < 0)
            continue;
        if (request(camera->fd, VIDIOC_DQBUF, &buffer) == 0)
            return buffer;
        if (errno != EAGAIN)
            die("DQBUF");
    }
}

static inline void bare_release(struct bare *camera, struct v4l2_buffer *buffer)
{
    if (request(camera->fd, VIDIOC_QBUF, buffer))
        die("QBUF");
}

static inline void bare_close(struct bare *camera)
{
    for (unsigned at = 0; at < BUFFERS; at++)
        if (camera->buffers[at].data)
            munmap(camera->buffers[at].data, camera->buffers[at].length);
    close(camera->fd);
}

#endif
