/* A program that knows nothing of this library and has a camera by plain V4L2, for the busy tests.
 *
 * neighbour NODE WHAT
 *   open     merely has the node open
 *   lock     has it open and locked, as libcamera has a media controller
 *   stream   streams; on a line on stdin it lets go by STREAMOFF and REQBUFS(0), which gives no notice, and stays
 *   metadata streams from a node that carries metadata
 *   inherit  streams, forks a child that inherits descriptor and mappings, and exits: the child keeps the camera
 *   steal    tries to take the camera's buffers as fast as it can; on a line on stdin it tells how often it could
 *
 * "ready PID" is printed when it has what it is to have.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <poll.h>
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

static unsigned type = V4L2_BUF_TYPE_VIDEO_CAPTURE;

static int request(int fd, unsigned count)
{
    struct v4l2_requestbuffers buffers;
    memset(&buffers, 0, sizeof buffers);
    buffers.count = count;
    buffers.type = type;
    buffers.memory = V4L2_MEMORY_MMAP;
    return ioctl(fd, VIDIOC_REQBUFS, &buffers);
}

static void *maps[2];
static size_t lengths[2];

static int stream(int fd)
{
    if (request(fd, 2))
        return -1;
    for (unsigned i = 0; i < 2; i++) {
        struct v4l2_buffer buffer;
        memset(&buffer, 0, sizeof buffer);
        buffer.index = i;
        buffer.type = type;
        buffer.memory = V4L2_MEMORY_MMAP;
        if (ioctl(fd, VIDIOC_QUERYBUF, &buffer))
            return -1;
        lengths[i] = buffer.length;
        maps[i] = mmap(NULL, buffer.length, PROT_READ, MAP_SHARED, fd, buffer.m.offset);
        if (maps[i] == MAP_FAILED || ioctl(fd, VIDIOC_QBUF, &buffer))
            return -1;
    }
    return ioctl(fd, VIDIOC_STREAMON, &type);
}

int main(int argc, char **argv)
{
    char line[16];
    int fd = argc == 3 ? open(argv[1], O_RDWR | O_NONBLOCK) : -1; /* no O_CLOEXEC: as too many programs do */
    if (fd < 0)
        return 2;
    if (strcmp(argv[2], "steal") == 0) {
        struct pollfd order = { STDIN_FILENO, POLLIN, 0 };
        unsigned long tries = 0, thefts = 0;
        ready();
        for (; poll(&order, 1, 0) == 0; tries++)
            if (request(fd, 1) == 0) {
                thefts++;
                request(fd, 0);
            }
        printf("stole %lu of %lu\n", thefts, tries);
        return 0;
    }
    if (strcmp(argv[2], "metadata") == 0)
        type = V4L2_BUF_TYPE_META_CAPTURE;
    if (strcmp(argv[2], "lock") == 0 && lockf(fd, F_TLOCK, 0))
        return 5;
    if (strcmp(argv[2], "open") != 0 && strcmp(argv[2], "lock") != 0 && stream(fd)) {
        perror("neighbour");
        return 3;
    }
    if (strcmp(argv[2], "inherit") == 0) {
        pid_t child = fork();
        if (child)
            return child < 0;
    }
    ready();
    if (strcmp(argv[2], "inherit") == 0)
        pause();
    if (!fgets(line, sizeof line, stdin))
        return 0;
    if (strcmp(argv[2], "stream") == 0) {
        ioctl(fd, VIDIOC_STREAMOFF, &type);
        for (int i = 0; i < 2; i++)
            munmap(maps[i], lengths[i]);
        if (request(fd, 0))
            return 4;
        printf("let go\n");
        fflush(stdout);
    }
    pause();
    return 0;
}
