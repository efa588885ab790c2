/* Stands between the library and the kernel, and makes chosen calls fail with a chosen errno. Preloaded: LD_PRELOAD.
 *
 * A rule is a line "CALL SKIP COUNT ERRNO [after]": of the calls that match, SKIP are let through, then COUNT fail (0: all
 * from there on). With "after" the call is made and its success is hidden: what a driver does that fails late. CALL is a
 * name as below, or a request of V4L2 as VIDIOC_QBUF. A program sets the rule by interpose_arm(), which it finds by
 * dlsym(); INTERPOSE in the environment sets the first one.
 *
 * build: -shared -fPIC
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/usbdevice_fs.h>
#include <linux/videodev2.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static const struct {
    const char *name;
    unsigned long request;
} requests[] = {
#define REQUEST(name) { #name, name }
    REQUEST(VIDIOC_QUERYCAP), REQUEST(VIDIOC_G_FMT),    REQUEST(VIDIOC_S_FMT),      REQUEST(VIDIOC_G_PARM),
    REQUEST(VIDIOC_S_PARM),   REQUEST(VIDIOC_REQBUFS),  REQUEST(VIDIOC_QUERYBUF),   REQUEST(VIDIOC_QBUF),
    REQUEST(VIDIOC_DQBUF),    REQUEST(VIDIOC_STREAMON), REQUEST(VIDIOC_STREAMOFF),  REQUEST(VIDIOC_S_PRIORITY),
    REQUEST(VIDIOC_ENUM_FMT), REQUEST(VIDIOC_G_EXT_CTRLS), REQUEST(VIDIOC_S_EXT_CTRLS), REQUEST(VIDIOC_QUERY_EXT_CTRL),
    REQUEST(VIDIOC_ENUM_FRAMESIZES), REQUEST(VIDIOC_ENUM_FRAMEINTERVALS), REQUEST(VIDIOC_QUERYMENU),
    REQUEST(USBDEVFS_RESET),
};

static struct {
    char call[64];
    int error;
    unsigned skip, count;
    bool after;
    atomic_bool armed;
    atomic_uint seen, failed;
} rule;

__attribute__((visibility("default"))) void interpose_disarm(void)
{
    atomic_store(&rule.armed, false);
}

/* How many calls matched, and how many of them failed. */
__attribute__((visibility("default"))) void interpose_tell(unsigned *seen, unsigned *failed)
{
    *seen = atomic_load(&rule.seen);
    *failed = atomic_load(&rule.failed);
}

__attribute__((visibility("default"))) bool interpose_arm(const char *line)
{
    char after[8] = "";
    interpose_disarm();
    if (sscanf(line, "%63s %u %u %d %7s", rule.call, &rule.skip, &rule.count, &rule.error, after) < 4)
        return false;
    rule.after = strcmp(after, "after") == 0;
    atomic_store(&rule.seen, 0);
    atomic_store(&rule.failed, 0);
    atomic_store(&rule.armed, true);
    return true;
}

__attribute__((constructor)) static void from_environment(void)
{
    const char *line = getenv("INTERPOSE");
    if (line && !interpose_arm(line)) {
        fprintf(stderr, "INTERPOSE=%s is no rule\n", line);
        abort();
    }
}

/* Is this call to fail? */
static bool hit(const char *call)
{
    if (!atomic_load(&rule.armed) || strcmp(call, rule.call) != 0)
        return false;
    unsigned number = atomic_fetch_add(&rule.seen, 1);
    if (number < rule.skip || (rule.count && number >= rule.skip + rule.count))
        return false;
    atomic_fetch_add(&rule.failed, 1);
    return true;
}

#define REAL(name)                                                                                                     \
    static __typeof__(&name) real;                                                                                     \
    if (!real)                                                                                                         \
    real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* A call that gives -1, or what `failure` is. */
#define STAND_BETWEEN(type, name, parameters, arguments, matches, label, failure)                                      \
    __attribute__((visibility("default"))) type name parameters                                                        \
    {                                                                                                                  \
        REAL(name);                                                                                                    \
        if ((matches) && hit(label)) {                                                                                 \
            if (rule.after)                                                                                            \
                (void)real arguments;                                                                                  \
            errno = rule.error;                                                                                        \
            return failure;                                                                                            \
        }                                                                                                              \
        return real arguments;                                                                                         \
    }

static const char *kind_of_map(int flags)
{
    return flags & MAP_ANONYMOUS ? flags & MAP_FIXED ? "mmap_fixed" : "mmap_anonymous" : "mmap";
}

STAND_BETWEEN(void *, mmap, (void *at, size_t length, int prot, int flags, int fd, off_t offset),
              (at, length, prot, flags, fd, offset), true, kind_of_map(flags), MAP_FAILED)
STAND_BETWEEN(void *, mmap64, (void *at, size_t length, int prot, int flags, int fd, off64_t offset),
              (at, length, prot, flags, fd, offset), true, kind_of_map(flags), MAP_FAILED)
STAND_BETWEEN(int, munmap, (void *at, size_t length), (at, length), true, "munmap", -1)
STAND_BETWEEN(int, madvise, (void *at, size_t length, int advice), (at, length, advice), true,
              advice == MADV_DOFORK ? "madvise_dofork" : "madvise", -1)
/* Of the program's first thread alone: the library's own wait by it as well. */
STAND_BETWEEN(int, ppoll, (struct pollfd * fds, nfds_t count, const struct timespec *timeout, const sigset_t *mask),
              (fds, count, timeout, mask), gettid() == getpid(), "ppoll", -1)
STAND_BETWEEN(int, epoll_wait, (int epoll, struct epoll_event *events, int most, int timeout),
              (epoll, events, most, timeout), true, "epoll_wait", -1)
STAND_BETWEEN(int, flock, (int fd, int operation), (fd, operation), (operation & LOCK_EX) != 0, "flock", -1)
STAND_BETWEEN(int, eventfd, (unsigned value, int flags), (value, flags), true, "eventfd", -1)
STAND_BETWEEN(int, epoll_create1, (int flags), (flags), true, "epoll_create1", -1)
STAND_BETWEEN(int, epoll_ctl, (int epoll, int operation, int fd, struct epoll_event *event),
              (epoll, operation, fd, event), operation == EPOLL_CTL_ADD, "epoll_ctl", -1)
STAND_BETWEEN(int, timerfd_create, (int clock, int flags), (clock, flags), true, "timerfd_create", -1)
STAND_BETWEEN(int, inotify_init1, (int flags), (flags), true, "inotify_init1", -1)
STAND_BETWEEN(int, inotify_add_watch, (int fd, const char *path, uint32_t mask), (fd, path, mask), true,
              "inotify_add_watch", -1)
STAND_BETWEEN(int, socket, (int domain, int type, int protocol), (domain, type, protocol), true, "socket", -1)
STAND_BETWEEN(int, bind, (int fd, __CONST_SOCKADDR_ARG address, socklen_t length), (fd, address, length), true, "bind",
              -1)
STAND_BETWEEN(int, listen, (int fd, int backlog), (fd, backlog), true, "listen", -1)
STAND_BETWEEN(int, connect, (int fd, __CONST_SOCKADDR_ARG address, socklen_t length), (fd, address, length), true,
              "connect", -1)
STAND_BETWEEN(int, fchmod, (int fd, mode_t mode), (fd, mode), true, "fchmod", -1)
STAND_BETWEEN(int, unlink, (const char *path), (path), strstr(path, "/camlease-") != NULL, "unlink", -1)
STAND_BETWEEN(ssize_t, pwrite64, (int fd, const void *bytes, size_t length, off64_t at), (fd, bytes, length, at), true,
              "pwrite", -1)
/* It returns what is wrong. */
STAND_BETWEEN(int, pthread_create,
              (pthread_t * thread, const pthread_attr_t *attributes, void *(*body)(void *), void *argument),
              (thread, attributes, body, argument), true, "pthread_create", rule.error)
STAND_BETWEEN(int, pipe2, (int ends[2], int flags), (ends, flags), true, "pipe2", -1)

/* With a variable tail. Nodes of cameras and new leases are told apart from what else a process opens. */
static const char *kind_of_file(const char *path, int flags)
{
    return strncmp(path, "/dev/video", 10) == 0            ? "open"
           : strncmp(path, "/dev/bus/usb/", 13) == 0       ? "open_usb"
           : strstr(path, "/camlease-") && flags & O_CREAT ? "open_lease"
                                                           : "";
}

#define OPEN(name, parameters, ...)                                                                                    \
    __attribute__((visibility("default"))) int name parameters                                                         \
    {                                                                                                                  \
        va_list tail;                                                                                                  \
        va_start(tail, flags);                                                                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(tail, mode_t) : 0;                                        \
        va_end(tail);                                                                                                  \
        REAL(name);                                                                                                    \
        if (hit(kind_of_file(path, flags))) {                                                                          \
            errno = rule.error;                                                                                        \
            return -1;                                                                                                 \
        }                                                                                                              \
        return real(__VA_ARGS__, mode);                                                                                \
    }
OPEN(open, (const char *path, int flags, ...), path, flags)
OPEN(open64, (const char *path, int flags, ...), path, flags)
OPEN(openat, (int folder, const char *path, int flags, ...), folder, path, flags)
OPEN(openat64, (int folder, const char *path, int flags, ...), folder, path, flags)

__attribute__((visibility("default"))) int fcntl(int fd, int command, ...)
{
    va_list tail;
    va_start(tail, command);
    void *argument = va_arg(tail, void *);
    va_end(tail);
    REAL(fcntl);
    if (command == F_OFD_SETLK && hit("lock_lease")) {
        errno = rule.error;
        return -1;
    }
    return real(fd, command, argument);
}

__attribute__((visibility("default"))) void *mremap(void *at, size_t old, size_t new, int flags, ...)
{
    va_list tail;
    va_start(tail, flags);
    void *to = flags & MREMAP_FIXED ? va_arg(tail, void *) : NULL;
    va_end(tail);
    REAL(mremap);
    if (hit("mremap")) {
        errno = rule.error;
        return MAP_FAILED;
    }
    return real(at, old, new, flags, to);
}

/* The library makes those of V4L2 by syscall(), and those of USB by ioctl(). */
static bool hit_request(unsigned long request)
{
    if (!atomic_load(&rule.armed))
        return false;
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++)
        if (requests[i].request == (request & 0xffffffff))
            return hit(requests[i].name);
    return false;
}

__attribute__((visibility("default"))) long syscall(long number, ...)
{
    va_list tail;
    long a[6];
    va_start(tail, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(tail, long);
    va_end(tail);
    REAL(syscall);
    if (number == SYS_ioctl && hit_request((unsigned long)a[1])) {
        if (rule.after)
            real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
        errno = rule.error;
        return -1;
    }
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

__attribute__((visibility("default"))) int ioctl(int fd, unsigned long request, ...)
{
    va_list tail;
    va_start(tail, request);
    void *argument = va_arg(tail, void *);
    va_end(tail);
    REAL(ioctl);
    if (hit_request(request)) {
        if (rule.after)
            real(fd, request, argument);
        errno = rule.error;
        return -1;
    }
    return real(fd, request, argument);
}
