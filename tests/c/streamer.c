/* A program that knows nothing of this library and keeps a V4L2 camera in an unusual way, to be evicted.
 *
 * streamer NODE WHAT
 *   buffers  has its buffers, without a mapping of them
 *   mapping  has a mapping of a buffer, and no open file
 *   zombie   streams in another thread; its first one has ended
 *   stop     streams; on SIGTERM it lets go by STREAMOFF and REQBUFS(0), with the node open still, and stays
 *   control  streams, and on a line on stdin sets the brightness again and again, for as long as it lives
 *
 * "ready PID" is printed when it has what it is to have.
 */
#include <fcntl.h>
#include <linux/videodev2.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static int fd;
static void *map;
static size_t length;
static int type = V4L2_BUF_TYPE_VIDEO_CAPTURE;

static void check(int good, const char *what)
{
    if (good)
        return;
    perror(what);
    exit(2);
}

static int request(unsigned count)
{
    struct v4l2_requestbuffers buffers;
    memset(&buffers, 0, sizeof buffers);
    buffers.count = count;
    buffers.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    buffers.memory = V4L2_MEMORY_MMAP;
    return ioctl(fd, VIDIOC_REQBUFS, &buffers);
}

static void map_one(void)
{
    struct v4l2_buffer buffer;
    memset(&buffer, 0, sizeof buffer);
    buffer.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    buffer.memory = V4L2_MEMORY_MMAP;
    check(ioctl(fd, VIDIOC_QUERYBUF, &buffer) == 0, "VIDIOC_QUERYBUF");
    length = buffer.length;
    map = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, buffer.m.offset);
    check(map != MAP_FAILED, "mmap");
    check(ioctl(fd, VIDIOC_QBUF, &buffer) == 0, "VIDIOC_QBUF");
}

static void ready(void)
{
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
}

static void *other_thread(void *unused)
{
    (void)unused;
    usleep(50000); /* for the first thread to end; the test waits until it has */
    ready();
    for (;;)
        pause();
    return NULL;
}

static void on_stop(int unused)
{
    (void)unused;
    ioctl(fd, VIDIOC_STREAMOFF, &type);
    munmap(map, length);
    request(0);
}

int main(int argc, char **argv)
{
    const char *what = argc == 3 ? argv[2] : "";
    check(argc == 3 && (fd = open(argv[1], O_RDWR)) >= 0, "open");
    check(request(2) == 0, "VIDIOC_REQBUFS");
    if (strcmp(what, "buffers") != 0)
        map_one();
    if (strcmp(what, "buffers") != 0 && strcmp(what, "mapping") != 0)
        check(ioctl(fd, VIDIOC_STREAMON, &type) == 0, "VIDIOC_STREAMON");
    if (strcmp(what, "mapping") == 0)
        check(close(fd) == 0, "close");
    if (strcmp(what, "zombie") == 0) {
        pthread_t thread;
        check(pthread_create(&thread, NULL, other_thread, NULL) == 0, "thread");
        pthread_exit(NULL);
    }
    if (strcmp(what, "stop") == 0)
        signal(SIGTERM, on_stop);
    ready();
    if (strcmp(what, "control") == 0) {
        struct v4l2_control brightness = { V4L2_CID_BRIGHTNESS, 0 };
        check(getchar() != EOF, "stdin");
        for (;; brightness.value ^= 1)
            ioctl(fd, VIDIOC_S_CTRL, &brightness); /* fails after five seconds where the camera does not answer */
    }
    for (;;)
        pause();
}
