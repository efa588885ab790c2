/* build: -shared -fPIC
 *
 * Preloaded, it tells on stdout when the lease of a virtual camera has been closed: "closed NAME". The close of one with
 * "slow" in its name takes 300 ms, and that of one with "hang" never returns. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* The camera's name, or NULL where it is no lease of one. */
static const char *camera_of(int fd, struct sockaddr_un *name)
{
    static const char prefix[] = "camlease/virtual/";
    int listens = 0;
    socklen_t length = sizeof *name, size = sizeof listens;
    memset(name, 0, sizeof *name);
    if (getsockname(fd, (struct sockaddr *)name, &length) != 0 || name->sun_family != AF_UNIX ||
        memcmp(name->sun_path + 1, prefix, sizeof prefix - 1) != 0 || strstr(name->sun_path + 1, "/streaming") ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || !listens)
        return NULL;
    return name->sun_path + sizeof prefix;
}

int close(int fd)
{
    static int (*real)(int);
    struct sockaddr_un name;
    const char *camera = camera_of(fd, &name);
    char line[160];
    int result, length;
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "close");
    if (!camera)
        return real(fd);
    if (strstr(camera, "hang"))
        sleep(600);
    if (strstr(camera, "slow"))
        usleep(300000);
    result = real(fd);
    length = snprintf(line, sizeof line, "closed %s\n", camera);
    return write(STDOUT_FILENO, line, (size_t)length) == length ? result : -1;
}
