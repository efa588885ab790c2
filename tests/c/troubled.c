/* A program that has a camera in a way that nobody wants, for the doctor's tests.
 *
 * troubled NODE WHAT
 *   mapping  maps the camera's memory, closes the node and forgets the mapping
 *   thread   has the node open; its first thread ends, and another one stays
 *   claim    NODE is a webcam's in /dev/bus/usb: takes its interface 0 from the driver, as libusb does
 *
 * "ready PID" is printed when it has what it is to have.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/usbdevice_fs.h>
#include <linux/videodev2.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static void ready(void)
{
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
}

static int map(int fd)
{
    struct v4l2_requestbuffers buffers;
    struct v4l2_buffer buffer;
    memset(&buffers, 0, sizeof buffers);
    buffers.count = 2;
    buffers.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    buffers.memory = V4L2_MEMORY_MMAP;
    if (ioctl(fd, VIDIOC_REQBUFS, &buffers))
        return -1;
    memset(&buffer, 0, sizeof buffer);
    buffer.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    buffer.memory = V4L2_MEMORY_MMAP;
    if (ioctl(fd, VIDIOC_QUERYBUF, &buffer))
        return -1;
    return mmap(NULL, buffer.length, PROT_READ, MAP_SHARED, fd, buffer.m.offset) == MAP_FAILED ? -1 : 0;
}

/* A thread's wait for another ends when that one has ended, whatever else lives. */
static __attribute__((noreturn)) void *outlive(void *first)
{
    pthread_join(*(pthread_t *)first, NULL);
    ready();
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    static pthread_t first;
    pthread_t other;
    int fd = argc == 3 ? open(argv[1], O_RDWR | O_NONBLOCK | O_CLOEXEC) : -1;
    if (fd < 0)
        return 2;
    if (strcmp(argv[2], "mapping") == 0) {
        if (map(fd))
            return 3;
        close(fd);
        ready();
        for (;;)
            pause();
    }
    if (strcmp(argv[2], "claim") == 0) {
        struct usbdevfs_disconnect_claim claim;
        memset(&claim, 0, sizeof claim);
        if (ioctl(fd, USBDEVFS_DISCONNECT_CLAIM, &claim))
            return 5;
        ready();
        for (;;)
            pause();
    }
    first = pthread_self();
    if (pthread_create(&other, NULL, outlive, &first))
        return 4;
    pthread_exit(NULL);
}
