/* build: -shared -fPIC
 *
 * Preloaded, it makes the close of a virtual camera's lease hang, as a driver hangs that waits for its hardware. Closing
 * anything else works. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int is_lease(int fd)
{
    static const char prefix[] = "camlease/virtual/";
    struct sockaddr_un name;
    socklen_t length = sizeof name;
    memset(&name, 0, sizeof name);
    return getsockname(fd, (struct sockaddr *)&name, &length) == 0 && name.sun_family == AF_UNIX &&
           memcmp(name.sun_path + 1, prefix, sizeof prefix - 1) == 0 && !strstr(name.sun_path + 1, "/streaming");
}

int close(int fd)
{
    static int (*real)(int);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "close");
    if (is_lease(fd))
        sleep(600);
    return real(fd);
}
