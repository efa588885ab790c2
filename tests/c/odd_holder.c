/* A process that has a node in one of the ways that are easily overlooked.
 *
 * odd_holder NODE plain      opens it
 * odd_holder NODE ended      opens it; then its first thread ends, and another one goes on
 * odd_holder NODE unshared   a thread with descriptors of its own opens it
 * odd_holder NODE elsewhere  opens it in name spaces of its own, where it has another path
 * odd_holder NODE closed     opens it, and closes it again
 * odd_holder NODE mapped     maps a buffer of a V4L2 camera and closes the node
 * odd_holder NODE elsewhere-mapped  the same in name spaces of its own, by a node that is another file
 * odd_holder NODE churn      children open it and end at once, again and again
 *
 * Prints "ready PID" with the holder's id and stays until it is killed, or its input ends. Status 77: the kernel does
 * not let this user do that.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *node;

static void fail(const char *what)
{
    perror(what);
    exit(errno == EPERM || errno == EACCES || errno == ENOSPC ? 77 : 1);
}

static int get(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        fail(path);
    return fd;
}

static void stay(pid_t holder)
{
    char byte;
    printf("ready %d\n", (int)holder);
    fflush(stdout);
    while (read(0, &byte, 1) > 0)
        continue;
    _exit(0);
}

/* Goes on when the first thread has ended, by the kernel's word. */
static void *after_the_first(void *unused)
{
    for (;;) {
        char path[64], line[256] = "";
        FILE *file;
        snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)getpid());
        file = fopen(path, "re");
        if (!file)
            fail(path);
        if (!fgets(line, sizeof line, file))
            fail("the first thread's state");
        fclose(file);
        if (strstr(line, ") Z "))
            break;
        sched_yield();
    }
    stay(getpid());
    return unused;
}

static void *with_own_descriptors(void *unused)
{
    if (unshare(CLONE_FILES))
        fail("unshare");
    get(node);
    stay(getpid());
    return unused;
}

static void start(void *(*body)(void *))
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, body, NULL))
        fail("pthread_create");
}

static void map(const char *path)
{
    struct v4l2_requestbuffers buffers = { .count = 2,
                                           .type = V4L2_BUF_TYPE_VIDEO_CAPTURE,
                                           .memory = V4L2_MEMORY_MMAP };
    struct v4l2_buffer buffer = { .type = V4L2_BUF_TYPE_VIDEO_CAPTURE, .memory = V4L2_MEMORY_MMAP };
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, VIDIOC_REQBUFS, &buffers) || ioctl(fd, VIDIOC_QUERYBUF, &buffer))
        fail(path);
    if (mmap(NULL, buffer.length, PROT_READ, MAP_SHARED, fd, buffer.m.offset) == MAP_FAILED)
        fail("mmap");
    close(fd);
}

/* A device node of its own file, in a file system that nobody else sees. */
static void make_node(char *path, size_t room)
{
    struct stat known;
    if (stat(node, &known) || mount("none", "/mnt", "tmpfs", 0, NULL))
        fail("/mnt");
    snprintf(path, room, "/mnt/eye");
    if (mknod(path, S_IFCHR | 0600, known.st_rdev))
        fail(path);
}

static void elsewhere(int mapped)
{
    char path[] = "/tmp/odd-holder-XXXXXX", other[16] = "";
    int place, ready[2];
    pid_t child;
    char byte = 0;
    if (unshare(CLONE_NEWNS | CLONE_NEWPID | (geteuid() ? CLONE_NEWUSER : 0)))
        fail("unshare");
    place = mkostemp(path, O_CLOEXEC);
    if (place < 0 || pipe(ready))
        fail(path);
    close(place);
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount(node, path, NULL, MS_BIND, NULL))
        fail("mount");
    if (mapped)
        make_node(other, sizeof other);
    child = fork();
    if (child < 0)
        fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (mapped)
            map(other);
        else
            get(path);
        byte = 1;
        if (write(ready[1], &byte, 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    if (read(ready[0], &byte, 1) != 1)
        fail("the child");
    umount2(path, MNT_DETACH); /* the child keeps it */
    unlink(path);
    stay(child);
}

static void churn(void)
{
    pid_t parent = getpid();
    for (int worker = 0; worker < 3; worker++)
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            while (getppid() == parent) {
                pid_t child = fork();
                if (child == 0) {
                    get(node);
                    _exit(0);
                }
                waitpid(child, NULL, 0);
            }
            _exit(0);
        }
    stay(parent);
}

int main(int argc, char **argv)
{
    const char *what = argc == 3 ? argv[2] : "";
    node = argc == 3 ? argv[1] : "";
    if (strcmp(what, "plain") == 0) {
        get(node);
        stay(getpid());
    } else if (strcmp(what, "ended") == 0) {
        get(node);
        start(after_the_first);
        pthread_exit(NULL);
    } else if (strcmp(what, "unshared") == 0) {
        start(with_own_descriptors);
        for (;;)
            pause();
    } else if (strcmp(what, "elsewhere") == 0) {
        elsewhere(0);
    } else if (strcmp(what, "elsewhere-mapped") == 0) {
        elsewhere(1);
    } else if (strcmp(what, "mapped") == 0) {
        map(node);
        stay(getpid());
    } else if (strcmp(what, "closed") == 0) {
        close(get(node));
        stay(getpid());
    } else if (strcmp(what, "churn") == 0) {
        churn();
    }
    fprintf(stderr, "usage: odd_holder NODE WHAT\n");
    return 2;
}
