/* A program without the library that keeps a virtual camera: whoever is bound to its name has it.
 *
 * foreign NAME MODE
 *   plain    until a signal ends it
 *   stubborn ignores SIGTERM, SIGINT and SIGHUP
 *   leave    a child keeps it, ignoring SIGHUP; the program itself fails with exit code 3
 *   once     has it for a moment and fails with exit code 4
 */
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void keep(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int length = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "camlease/virtual/%s", name);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length)) || listen(fd, 8)) {
        perror("foreign: the camera");
        _exit(9);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    /* Before it has the camera: whoever sees that may signal it at once. */
    if (strcmp(argv[2], "stubborn") == 0) {
        signal(SIGTERM, SIG_IGN);
        signal(SIGINT, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
    }
    keep(argv[1]);
    printf("ready %d\n", (int)getpid());
    if (strcmp(argv[2], "once") == 0)
        return 4;
    if (strcmp(argv[2], "leave") == 0) {
        pid_t child = fork();
        if (child != 0)
            return child < 0 ? 9 : 3;
        signal(SIGHUP, SIG_IGN);
    }
    for (;;)
        pause();
}
