/* A program that knows nothing of this library, has the virtual camera NAME by its socket, and is to be evicted.
 *
 * evictee NAME WHAT [COMMAND...]
 *   plain    ends by SIGTERM
 *   ignore   ignores SIGTERM
 *   late     ends 200 ms after SIGTERM
 *   stop     stops itself; continued, it says "got SIGTERM" and ends
 *   close    on SIGTERM it lets the camera go and stays
 *   busy     on SIGTERM it stays, and lets the camera go 300 ms later
 *   child    a child of it has the camera as well
 *   children it has four children, and all say "got SIGTERM MS"
 *            of the monotonic clock, and stay
 *   heir     on SIGTERM it leaves a child with the camera, and ends; the child ends by SIGTERM
 *   heirs    the same, and the child does as its parent did, for ever
 *   zombie   its first thread ends, another one stays
 *   user     becomes user 65534
 *   vfork    waits in vfork, where only SIGKILL reaches it
 *   init     is the first process of a pid namespace
 *   traced   is stopped under a debugger's eyes
 *   parent   runs COMMAND, which does not inherit the camera, and waits for it
 *   first    the same, as the first process of a pid namespace with a /proc of its own
 *   parents  as parent, and a child of it has the camera as well
 *
 * With NAME/streaming it streams, as far as others see. "ready PID" is printed when it has the camera, for each process
 * that has it.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int sockets[2] = { -1, -1 };

static int take(const char *name)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int length = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "camlease/virtual/%s", name);
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)length);
    if (bind(made, (struct sockaddr *)&address, size) || listen(made, 16)) {
        perror("evictee");
        exit(2);
    }
    return made;
}

static void let_go(void)
{
    close(sockets[0]);
    close(sockets[1]);
}

static void say(const char *what, int number)
{
    char line[64];
    int length = snprintf(line, sizeof line, number ? "%s %d\n" : "%s\n", what, number);
    if (write(STDOUT_FILENO, line, (size_t)length) < 0)
        _exit(3);
}

static void stay(void)
{
    for (;;)
        pause();
}

static void stay_for_a_while(void)
{
    usleep(200000);
    _exit(0);
}

static void on_stopped(int unused)
{
    (void)unused;
    say("got SIGTERM", 0);
    _exit(0);
}

static void on_children(int unused)
{
    struct timespec now;
    (void)unused;
    clock_gettime(CLOCK_MONOTONIC, &now);
    say("got SIGTERM", (int)(now.tv_sec % 1000000 * 1000 + now.tv_nsec / 1000000));
}

static void on_late(int unused)
{
    (void)unused;
    stay_for_a_while();
}

static void on_close(int unused)
{
    (void)unused;
    let_go();
}

static void on_busy(int unused)
{
    (void)unused;
    usleep(300000);
    let_go();
}

static int for_ever;

static void on_heir(int unused)
{
    (void)unused;
    if (fork())
        _exit(0);
    if (!for_ever)
        signal(SIGTERM, SIG_DFL);
}

static void *other_thread(void *unused)
{
    (void)unused;
    usleep(50000); /* for the first thread to end; a test waits until it has */
    say("ready", (int)getpid());
    stay();
    return NULL;
}

/* A test that ends, however, leaves none of these behind. */
static pid_t child(void)
{
    pid_t made = fork();
    if (made < 0)
        _exit(4);
    if (made == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return made;
}

static int is(const char *what, const char *wanted)
{
    return strcmp(what, wanted) == 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 2 ? argv[2] : "";
    char *slash = argc > 1 ? strchr(argv[1], '/') : NULL;
    int status = 0;
    if (argc < 3)
        return 1;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (is(what, "init") || is(what, "first")) {
        if (unshare(is(what, "init") ? CLONE_NEWPID : CLONE_NEWPID | CLONE_NEWNS))
            return 5;
        pid_t made = child();
        if (made) {
            say("ready", made); /* the test looks until it has the camera */
            waitpid(made, &status, 0);
            return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
        }
    }
    if (is(what, "first")) {
        if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("proc", "/proc", "proc", 0, NULL))
            return 10;
    }
    if (slash) {
        sockets[1] = take(argv[1]);
        *slash = '\0';
    }
    sockets[0] = take(argv[1]);

    if (is(what, "ignore"))
        signal(SIGTERM, SIG_IGN);
    if (is(what, "children"))
        signal(SIGTERM, on_children);
    if (is(what, "late") || is(what, "vfork")) /* without a handler SIGTERM would end it there as SIGKILL does */
        signal(SIGTERM, on_late);
    if (is(what, "stop"))
        signal(SIGTERM, on_stopped);
    if (is(what, "close"))
        signal(SIGTERM, on_close);
    if (is(what, "busy"))
        signal(SIGTERM, on_busy);
    if (is(what, "heir") || is(what, "heirs")) {
        struct sigaction action = { .sa_handler = on_heir, .sa_flags = SA_NODEFER };
        for_ever = is(what, "heirs");
        sigaction(SIGTERM, &action, NULL);
    }
    if (is(what, "user") && (setgid(65534) || setuid(65534)))
        return 6;
    if (is(what, "zombie")) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, other_thread, NULL))
            return 7;
        pthread_exit(NULL);
    }
    if (is(what, "traced")) {
        pid_t made = child();
        if (made == 0) {
            ptrace(PTRACE_TRACEME, 0, NULL, NULL);
            raise(SIGSTOP);
            stay();
        }
        let_go();
        waitpid(made, &status, WUNTRACED);
        say("ready", made);
        stay(); /* and never lets go of it */
    }
    for (int left = is(what, "children") ? 4 : is(what, "child") || is(what, "parents"); left > 0; left--) {
        pid_t made = child();
        if (made == 0)
            stay();
        say("ready", made);
    }
    if (!is(what, "init") && !is(what, "first"))
        say("ready", (int)getpid());
    if (is(what, "stop"))
        raise(SIGSTOP);
    if (is(what, "vfork")) {
        if (vfork() == 0) { /* it shares the memory, and has descriptors of its own */
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            let_go();
            for (;;)
                pause();
        }
    }
    if (is(what, "parent") || is(what, "parents") || is(what, "first")) {
        pid_t made = child();
        if (made == 0) {
            execv(argv[3], argv + 3);
            _exit(8);
        }
        waitpid(made, &status, 0);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 9;
    }
    stay();
}
