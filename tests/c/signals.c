/* What signals do to a program that asked for the release on signals, for tests/signals.rs.
 *
 * signals HOW URI [ARGUMENT]...
 *
 * Each HOW is a function at the end of this file; it ends the program with 0 where all is as it should be, says what is
 * not and ends with 1, or waits for the test's signal after "ready".
 *
 * build: -rdynamic
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "camlease.h"

static void *library;
static const char *uri;
static char **arguments;

/* Of a release, seconds. What waits for something that does not come waits for as long as the shutdown timeout, which is
 * far more than a busy machine takes for what comes at once. */
#define SHUTDOWN_TIMEOUT_MS 60000
#define AT_ONCE 20

#define CALL(name) ((__typeof__(camlease_##name) *)look_up("camlease_" #name))

static void *look_up(const char *name)
{
    void *found = dlsym(library, name);
    if (!found) {
        fprintf(stderr, "signals: %s\n", dlerror());
        _exit(9);
    }
    return found;
}

static void fail(int line, const char *what)
{
    fprintf(stderr, "signals.c:%d: %s (errno %d; %s)\n", line, what, errno,
            library ? CALL(last_error_message)() : "unloaded");
    _exit(1);
}

#define EXPECT(condition)                                                                                              \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            fail(__LINE__, #condition);                                                                                \
    } while (0)

static void say(const char *text)
{
    EXPECT(write(STDOUT_FILENO, text, strlen(text)) == (ssize_t)strlen(text));
}

static void load(void)
{
    library = dlopen("libcamlease.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "signals: %s\n", dlerror());
        _exit(9);
    }
    CALL(set_shutdown_timeout)(SHUTDOWN_TIMEOUT_MS);
}

static void unload(void)
{
    EXPECT(dlclose(library) == 0);
    library = NULL;
    EXPECT(!dlopen("libcamlease.so.0", RTLD_NOW | RTLD_NOLOAD));
}

static camlease_camera *hold(const char *what)
{
    camlease_camera *camera;
    EXPECT(CALL(camera_open)(what, NULL, &camera) == CAMLEASE_OK);
    EXPECT(CALL(camera_start)(camera, NULL) == CAMLEASE_OK);
    return camera;
}

static void ask(uint32_t set)
{
    EXPECT(CALL(release_on_signals)(set) == CAMLEASE_OK);
}

/* Can a program that does not know of the library take the camera's buffers? */
static int is_free_node(const char *node)
{
    struct v4l2_requestbuffers one = { .count = 1, .type = V4L2_BUF_TYPE_VIDEO_CAPTURE, .memory = V4L2_MEMORY_MMAP };
    int probe = open(node, O_RDWR | O_CLOEXEC);
    int taken = probe >= 0 && ioctl(probe, VIDIOC_REQBUFS, &one) == 0;
    close(probe);
    return taken;
}

/* Is the camera free? The lease of a virtual one is a name that can be bound then. Async-signal-safe. */
static int is_free(const char *camera)
{
    if (strncmp(camera, "/dev/", 5) == 0)
        return is_free_node(camera);
    struct sockaddr_un name = { .sun_family = AF_UNIX };
    static const char prefix[] = "camlease/virtual/";
    size_t length = strcspn(camera + strlen("virtual:"), "?");
    int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), bound;
    memcpy(name.sun_path + 1, prefix, sizeof prefix - 1);
    memcpy(name.sun_path + sizeof prefix, camera + strlen("virtual:"), length);
    bound = bind(probe, (struct sockaddr *)&name,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + sizeof prefix + length));
    close(probe);
    return bound == 0;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void ready_and_wait(void)
{
    say("ready\n");
    for (;;)
        pause();
}

/* What a handler of the host's saw. */
struct seen {
    int runs, signal, value, code, free;
    pid_t thread;
    int on_other_stack, blocked_own, blocked_usr2, error;
};
static struct seen seen;
static char other_stack[8192]; /* SIGSTKSZ, as it was a constant */

static void look(int signal)
{
    sigset_t blocked;
    char here;
    seen.runs++;
    seen.signal = signal;
    seen.thread = gettid();
    seen.free = is_free(uri);
    seen.on_other_stack = &here >= other_stack && &here < other_stack + sizeof other_stack;
    pthread_sigmask(SIG_BLOCK, NULL, &blocked);
    seen.blocked_own = sigismember(&blocked, signal);
    seen.blocked_usr2 = sigismember(&blocked, SIGUSR2);
    errno = 4711; /* as a careless handler does */
}

static void plain(int signal)
{
    look(signal);
}

static void with_info(int signal, siginfo_t *info, void *context)
{
    seen.value = info->si_value.sival_int;
    seen.code = info->si_code;
    if (!context)
        _exit(21);
    look(signal);
}

static void handle(int signal, int flags)
{
    struct sigaction action = { .sa_flags = flags };
    if (flags & SA_SIGINFO)
        action.sa_sigaction = with_info;
    else
        action.sa_handler = plain;
    sigaddset(&action.sa_mask, SIGUSR2);
    EXPECT(sigaction(signal, &action, NULL) == 0);
}

static int is_installed(int signal, void *handler)
{
    struct sigaction action;
    sigaction(signal, NULL, &action);
    return (void *)action.sa_sigaction == handler;
}

/* But for what the C library sets by itself, SA_RESTORER, where somebody has ever set something. */
static int same(const struct sigaction *a, const struct sigaction *b)
{
    return (void *)a->sa_sigaction == (void *)b->sa_sigaction && !((a->sa_flags ^ b->sa_flags) & ~0x04000000) &&
           memcmp(&a->sa_mask, &b->sa_mask, 8) == 0;
}

/* The effect of a signal that does not come in the call that sends it, as one that was blocked (some C libraries block it
 * in raise). It comes at once, but where the machine keeps the release from its processor for so long that it is taken to
 * stand still for what this thread has: then it comes when the release is over. */
static int effect_comes(int runs)
{
    for (double until = now() + 5; *(volatile int *)&seen.runs < runs && now() < until;)
        usleep(1000);
    return seen.runs == runs;
}

/* Waits until a thread sleeps in the kernel. */
static void await_sleep(pid_t thread)
{
    char path[64], line[512], state = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
    for (int i = 0; i < 20000 && state != 'S'; i++) {
        FILE *file = fopen(path, "r");
        if (file && fgets(line, sizeof line, file))
            state = strrchr(line, ')')[2];
        if (file)
            fclose(file);
        usleep(1000);
    }
    EXPECT(state == 'S');
}

/* ---- nothing: no handler is installed, thread's mask is as it was, without the call ---- */

static void nothing(void)
{
    struct sigaction before[65] = { 0 }, after;
    sigset_t blocked_before, blocked_after;
    camlease_frame *frame;
    for (int signal = 1; signal < 65; signal++)
        sigaction(signal, NULL, &before[signal]);
    pthread_sigmask(SIG_BLOCK, NULL, &blocked_before);
    camlease_camera *camera = hold(uri);
    EXPECT(CALL(camera_next_frame)(camera, 5000, &frame) == CAMLEASE_OK);
    for (int signal = 1; signal < 65; signal++) {
        memset(&after, 0, sizeof after);
        sigaction(signal, NULL, &after);
        EXPECT(same(&before[signal], &after));
    }
    pthread_sigmask(SIG_BLOCK, NULL, &blocked_after);
    EXPECT(memcmp(&blocked_before, &blocked_after, 8) == 0);
}

/* ---- wait [URI]...: cameras are held, the test sends the signal ---- */

static void wait_for_signal(void)
{
    for (char **other = arguments; *other; other++)
        if (strncmp(*other, "virtual:", 8) == 0)
            hold(*other);
        else
            CALL(set_shutdown_timeout)((uint32_t)atoi(*other));
    hold(uri);
    ask(CAMLEASE_SIGNAL_USUAL);
    ready_and_wait();
}

/* ---- handler: the host's own runs once, after the release, with what it would get without us ---- */

static void handler(void)
{
    static const int flags[] = { SA_SIGINFO, 0, SA_SIGINFO | SA_RESTART, SA_SIGINFO | SA_NODEFER };
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++) {
        camlease_camera *camera = hold(uri);
        camlease_frame *frame, *kept;
        camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
        union sigval value = { .sival_int = 815 };
        struct seen without;
        EXPECT(CALL(camera_next_frame)(camera, 5000, &kept) == CAMLEASE_OK);
        handle(SIGTERM, flags[i]);
        memset(&seen, 0, sizeof seen);
        EXPECT(sigqueue(getpid(), SIGTERM, value) == 0 && seen.runs == 1 && !seen.free);
        without = seen;
        ask(CAMLEASE_SIGNAL_TERM);
        memset(&seen, 0, sizeof seen);
        errno = 17;
        int sent = sigqueue(getpid(), SIGTERM, value);
        EXPECT(sent == 0 && seen.runs == 1);
        EXPECT(seen.free);
        seen.free = 0;
        EXPECT(memcmp(&seen, &without, sizeof seen) == 0);
        EXPECT(CALL(camera_next_frame)(camera, 5000, &frame) == CAMLEASE_CLOSED);
        EXPECT(strstr(CALL(last_error_message)(), "SIGTERM"));
        EXPECT(CALL(frame_info)(kept, &data) == CAMLEASE_OK && data.size && data.data[0] + data.data[data.size - 1] >= 0);
        EXPECT(CALL(frame_release)(kept) == CAMLEASE_OK);
        EXPECT(CALL(camera_close)(camera) == CAMLEASE_OK);
        /* The host goes on, and the next signal releases again. */
        camera = hold(uri);
        seen.runs = 0;
        EXPECT(raise(SIGTERM) == 0 && effect_comes(1) && seen.free);
        EXPECT(CALL(camera_close)(camera) == CAMLEASE_OK);
        ask(0);
    }
}

/* ---- resethand: SA_RESETHAND means once ---- */

static void resethand(void)
{
    hold(uri);
    handle(SIGTERM, (int)(SA_RESETHAND | SA_NODEFER));
    ask(CAMLEASE_SIGNAL_TERM);
    raise(SIGTERM);
    EXPECT(seen.runs == 1 && seen.free && is_installed(SIGTERM, SIG_DFL));
    say("once\n");
    raise(SIGTERM);
}

/* ---- altstack ---- */

static void altstack(void)
{
    stack_t stack = { .ss_sp = other_stack, .ss_size = sizeof other_stack };
    EXPECT(sigaltstack(&stack, NULL) == 0);
    hold(uri);
    handle(SIGINT, SA_ONSTACK);
    handle(SIGTERM, 0);
    ask(CAMLEASE_SIGNAL_USUAL);
    raise(SIGINT);
    EXPECT(seen.runs == 1 && seen.on_other_stack && seen.free);
    raise(SIGTERM);
    EXPECT(seen.runs == 2 && !seen.on_other_stack);
}

/* ---- syscalls: what a signal does to a call that waits is the same with and without us ---- */

enum waiting { PAUSE, READ, NANOSLEEP, SIGSUSPEND, POLL, WAITINGS };
struct outcome {
    long result;
    int error, runs;
};
static int ends[2];

struct sleeper {
    enum waiting how;
    _Atomic pid_t thread;
    struct outcome outcome;
};

static void *sleep_somehow(void *argument)
{
    struct sleeper *sleeper = argument;
    struct timespec time = { .tv_sec = 20 }; /* the signal ends it, however late it is sent */
    struct pollfd readable = { .fd = ends[0], .events = POLLIN };
    sigset_t none, usr1;
    char byte;
    long result = 0;
    sigemptyset(&none);
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
    if (sleeper->how == SIGSUSPEND)
        pthread_sigmask(SIG_BLOCK, &usr1, NULL);
    sleeper->thread = gettid();
    errno = 0;
    switch (sleeper->how) {
    case PAUSE: result = pause(); break;
    case READ: result = read(ends[0], &byte, 1); break;
    case NANOSLEEP: result = nanosleep(&time, NULL); break;
    case SIGSUSPEND: result = sigsuspend(&none); break;
    case POLL: result = poll(&readable, 1, 20000); break;
    case WAITINGS: break;
    }
    sleeper->outcome = (struct outcome){ result, errno, seen.runs };
    return NULL;
}

static struct outcome interrupt(enum waiting how, int restarts)
{
    struct sleeper sleeper = { .how = how };
    pthread_t thread;
    seen.runs = 0;
    EXPECT(pthread_create(&thread, NULL, sleep_somehow, &sleeper) == 0);
    while (!sleeper.thread)
        usleep(1000);
    await_sleep(sleeper.thread);
    pthread_kill(thread, SIGUSR1);
    if (how == READ && restarts) {
        for (int i = 0; i < 20000 && !*(volatile int *)&seen.runs; i++)
            usleep(1000);
        EXPECT(write(ends[1], "x", 1) == 1);
    }
    pthread_join(thread, NULL);
    return sleeper.outcome;
}

static void syscalls(void)
{
    static const int flags[] = { 0, SA_RESTART };
    EXPECT(pipe(ends) == 0);
    for (int how = 0; how < WAITINGS; how++)
        for (int i = 0; i < 2; i++) {
            struct outcome without, with;
            ask(0);
            handle(SIGUSR1, flags[i]);
            without = interrupt(how, flags[i]);
            camlease_camera *camera = hold(uri);
            ask(CAMLEASE_SIGNAL_USR1);
            with = interrupt(how, flags[i]);
            EXPECT(seen.free);
            EXPECT(CALL(camera_close)(camera) == CAMLEASE_OK);
            if (with.result != without.result || with.error != without.error || with.runs != without.runs) {
                fprintf(stderr, "how %d flags %x: %ld %d %d, without us %ld %d %d\n", how, (unsigned)flags[i],
                        with.result, with.error, with.runs, without.result, without.error, without.runs);
                _exit(1);
            }
        }
}

/* ---- inside: a thread that is in a call is got out of it, and its handler has run before the call returns ---- */

static camlease_camera *waited_on;
static _Atomic pid_t waiter;
static int runs_at_return;
static camlease_status returned;
static char words[512];

static void *wait_for_frame(void *unused)
{
    camlease_frame *frame;
    (void)unused;
    waiter = gettid();
    returned = CALL(camera_next_frame)(waited_on, -1, &frame);
    runs_at_return = seen.runs;
    snprintf(words, sizeof words, "%s", CALL(last_error_message)());
    return NULL;
}

static void *wait_for_camera(void *unused)
{
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    camlease_camera *other;
    (void)unused;
    options.timeout_ms = -1;
    waiter = gettid();
    returned = CALL(camera_open)(uri, &options, &other);
    runs_at_return = seen.runs;
    snprintf(words, sizeof words, "%s", CALL(last_error_message)());
    return NULL;
}

/* Whether the handler had run when the call returned. */
static int got_out(void *(*call)(void *), const char *stalled, int elsewhere)
{
    pthread_t thread;
    camlease_camera *camera = waited_on = hold(stalled);
    memset(&seen, 0, sizeof seen);
    waiter = 0;
    EXPECT(pthread_create(&thread, NULL, call, NULL) == 0);
    while (!waiter)
        usleep(1000);
    /* Into the wait itself, which nothing tells of; found earlier, it gives the same result. */
    usleep(20000);
    await_sleep(waiter);
    double begun = now();
    pthread_kill(elsewhere ? pthread_self() : thread, SIGINT);
    pthread_join(thread, NULL);
    EXPECT(now() - begun < AT_ONCE);
    EXPECT(returned == CAMLEASE_CLOSED && strstr(words, "SIGINT"));
    EXPECT(seen.runs == 1 && seen.free && seen.code == SI_TKILL);
    EXPECT(seen.thread == (elsewhere ? getpid() : waiter));
    EXPECT(CALL(camera_close)(camera) == CAMLEASE_OK);
    return runs_at_return == 1;
}

static void inside(void)
{
    void *(*calls[])(void *) = { wait_for_frame, wait_for_camera };
    char stalled[128];
    snprintf(stalled, sizeof stalled, "%s?stall=0", uri);
    handle(SIGINT, SA_SIGINFO);
    ask(CAMLEASE_SIGNAL_INT);
    for (int i = 0; i < 2; i++)
        EXPECT(got_out(calls[i], stalled, 0));
    /* A signal's effect in another thread is waited for, and not for ever: one whose thread has to wait for its processor
     * may be late. */
    for (int i = 0; i < 2; i++) {
        int attempts = 0;
        while (!got_out(calls[i], stalled, 1))
            EXPECT(++attempts < 4);
    }
}

/* ---- on_wait: a signal in a callback of the host's has its effect there ---- */

static void told(void *user_data, const char *message, const camlease_holder *holders, size_t count)
{
    (void)user_data, (void)message, (void)holders, (void)count;
    if (!seen.runs) {
        double begun = now();
        raise(SIGINT);
        EXPECT(seen.runs == 1 && seen.free && now() - begun < AT_ONCE);
    }
}

static void on_wait(void)
{
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    camlease_camera *other;
    hold(uri);
    handle(SIGINT, 0);
    ask(CAMLEASE_SIGNAL_INT);
    options.on_wait = told;
    EXPECT(CALL(camera_open)(uri, &options, &other) == CAMLEASE_CLOSED);
    EXPECT(seen.runs == 1);
}

/* ---- stress: no signal is lost, and nothing waits for itself ---- */

static atomic_int counted[2], goes_on = 1;
static atomic_long calls_made;

static void count(int signal)
{
    counted[signal == SIGUSR1]++;
}

static void *cycle(void *name)
{
    camlease_camera *camera;
    camlease_frame *frame;
    while (goes_on) {
        if (CALL(camera_open)(name, NULL, &camera))
            continue;
        for (int i = 0; i < 3 && CALL(camera_start)(camera, NULL) == CAMLEASE_OK; i++) {
            for (int k = 0; k < 3; k++)
                if (CALL(camera_next_frame)(camera, 20, &frame) == CAMLEASE_OK)
                    CALL(frame_release)(frame);
            CALL(camera_stop)(camera);
            calls_made++;
        }
        CALL(camera_close)(camera);
    }
    return NULL;
}

static void *allocate(void *unused)
{
    void *kept[64] = { 0 };
    (void)unused;
    for (unsigned i = 0; goes_on; i++) {
        free(kept[i % 64]);
        kept[i % 64] = malloc(2000 + i % 7 * 1000);
        if (i % 512 == 0)
            usleep(300); /* the allocator's lock is not fair: without a pause the others starve for seconds */
    }
    for (int i = 0; i < 64; i++)
        free(kept[i]);
    return NULL;
}

static void stress(void)
{
    enum { CYCLES = 3, THREADS = 4 };
    pthread_t threads[THREADS];
    char names[CYCLES][128];
    int rounds = atoi(arguments[0]);
    struct sigaction action = { .sa_handler = count };
    double slowest = 0, all = 0;
    mallopt(M_ARENA_MAX, 1); /* one lock for all */
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    ask(CAMLEASE_SIGNAL_USR1 | CAMLEASE_SIGNAL_USR2);
    for (int i = 0; i < CYCLES; i++) {
        snprintf(names[i], sizeof names[i], "%s-%d?fps=1000&width=64&height=48", uri, i);
        EXPECT(pthread_create(&threads[i], NULL, cycle, names[i]) == 0);
    }
    EXPECT(pthread_create(&threads[CYCLES], NULL, allocate, NULL) == 0);
    for (int i = 0; i < rounds; i++) {
        int signal = i % 3 ? SIGUSR1 : SIGUSR2;
        int before = counted[signal == SIGUSR1];
        double begun = now();
        EXPECT(pthread_kill(threads[(i / 2) % THREADS], signal) == 0);
        /* Every other time the next, of the other kind, is sent while this one is worked on. */
        int before_usr2 = counted[0];
        if (i % 3 == 1)
            EXPECT(pthread_kill(threads[(i / 2 + 1) % THREADS], SIGUSR2) == 0);
        while (counted[signal == SIGUSR1] == before || (i % 3 == 1 && counted[0] == before_usr2)) {
            EXPECT(now() - begun < AT_ONCE);
            sched_yield();
        }
        double took = now() - begun;
        slowest = took > slowest ? took : slowest;
        all += took;
        usleep((unsigned)(i % 7) * 500); /* so that signals find every stage of a camera's life */
    }
    goes_on = 0;
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    printf("%d signals, %ld streams, mean %.2f ms, slowest %.1f ms\n", counted[0] + counted[1], (long)calls_made,
           all / rounds * 1000, slowest * 1000);
    EXPECT(counted[0] + counted[1] == rounds + rounds / 3 + (rounds % 3 == 2));
    EXPECT(calls_made > 0);
    EXPECT(slowest < AT_ONCE);
    /* Nobody is left inside the library: there is nothing to wait for. */
    double begun = now();
    EXPECT(CALL(shutdown)() == CAMLEASE_OK);
    EXPECT(now() - begun < AT_ONCE);
}

/* ---- ignored ---- */

static void ignored(void)
{
    camlease_camera *camera = hold(uri);
    camlease_frame *frame;
    signal(SIGHUP, SIG_IGN);
    ask(CAMLEASE_SIGNAL_USUAL);
    EXPECT(is_installed(SIGHUP, SIG_IGN));
    EXPECT(!is_installed(SIGINT, SIG_DFL));
    raise(SIGHUP);
    EXPECT(CALL(camera_next_frame)(camera, 5000, &frame) == CAMLEASE_OK);
}

/* ---- later: handlers that come after ours replace it, and may call it ---- */

static struct sigaction old;

static void calls_old(int signal, siginfo_t *info, void *context)
{
    seen.error++;
    old.sa_sigaction(signal, info, context);
}

static void calls_old_plainly(int signal)
{
    seen.error++;
    old.sa_handler(signal);
}

static void later(void)
{
    camlease_camera *camera = hold(uri);
    camlease_frame *frame;
    handle(SIGTERM, 0);
    ask(CAMLEASE_SIGNAL_TERM);
    struct sigaction theirs = { .sa_handler = count };
    EXPECT(sigaction(SIGTERM, &theirs, &old) == 0);
    raise(SIGTERM);
    EXPECT(counted[0] == 1 && seen.runs == 0);
    EXPECT(CALL(camera_next_frame)(camera, 5000, &frame) == CAMLEASE_OK);
    theirs = (struct sigaction){ .sa_sigaction = calls_old, .sa_flags = SA_SIGINFO };
    EXPECT(sigaction(SIGTERM, &theirs, NULL) == 0);
    raise(SIGTERM);
    EXPECT(seen.error == 1 && seen.runs == 1 && seen.free);
    EXPECT(CALL(camera_close)(camera) == CAMLEASE_OK);
    camera = hold(uri);
    theirs = (struct sigaction){ .sa_handler = calls_old_plainly };
    EXPECT(sigaction(SIGTERM, &theirs, NULL) == 0);
    raise(SIGTERM);
    EXPECT(seen.error == 2 && seen.runs == 2 && seen.free);
    /* Asked for again, ours comes before theirs, which goes on to our former one: once each. */
    EXPECT(CALL(camera_close)(camera) == CAMLEASE_OK);
    camera = hold(uri);
    ask(CAMLEASE_SIGNAL_TERM);
    EXPECT(!is_installed(SIGTERM, (void *)calls_old_plainly));
    raise(SIGTERM);
    EXPECT(seen.error == 3 && seen.runs == 3 && seen.free);
    ask(0);
    EXPECT(is_installed(SIGTERM, (void *)calls_old_plainly));
    EXPECT(CALL(camera_close)(camera) == CAMLEASE_OK);
    /* In a thread that is in a call: the effect comes at once there, and neither handler runs twice. */
    pthread_t thread;
    char stalled[128];
    snprintf(stalled, sizeof stalled, "%s?stall=0", uri);
    handle(SIGTERM, 0);
    ask(CAMLEASE_SIGNAL_TERM);
    theirs = (struct sigaction){ .sa_sigaction = calls_old, .sa_flags = SA_SIGINFO };
    EXPECT(sigaction(SIGTERM, &theirs, &old) == 0);
    camera = waited_on = hold(stalled);
    EXPECT(pthread_create(&thread, NULL, wait_for_frame, NULL) == 0);
    while (!waiter)
        usleep(1000);
    usleep(20000);
    pthread_kill(thread, SIGTERM);
    pthread_join(thread, NULL);
    EXPECT(returned == CAMLEASE_CLOSED && seen.error == 4 && seen.runs == 4);
}

/* ---- back: what was there before comes back, where ours is still what is installed ---- */

static void back(void)
{
    static const int signals[] = { SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1 };
    struct sigaction before[5], after;
    camlease_camera *camera = hold(uri);
    handle(SIGINT, SA_RESTART | SA_SIGINFO);
    handle(SIGUSR1, (int)SA_RESETHAND);
    for (int i = 0; i < 5; i++)
        sigaction(signals[i], NULL, &before[i]);
    for (int round = 0; round < 1000; round++) {
        ask(CAMLEASE_SIGNAL_USUAL | CAMLEASE_SIGNAL_USR1);
        ask(CAMLEASE_SIGNAL_INT);
        for (int i = 0; i < 5; i++) {
            sigaction(signals[i], NULL, &after);
            EXPECT(same(&before[i], &after) == (i != 1));
        }
        ask(0);
        sigaction(SIGINT, NULL, &after);
        EXPECT(same(&before[1], &after));
    }
    ask(CAMLEASE_SIGNAL_TERM);
    signal(SIGTERM, plain);
    ask(0);
    EXPECT(is_installed(SIGTERM, (void *)plain));
    raise(SIGTERM);
    EXPECT(seen.runs == 1 && !seen.free);
    EXPECT(CALL(release_on_signals)(1u << 20) == CAMLEASE_INVALID_ARGUMENT);
    EXPECT(CALL(camera_close)(camera) == CAMLEASE_OK);
    EXPECT(CALL(shutdown)() == CAMLEASE_OK);
    EXPECT(CALL(release_on_signals)(CAMLEASE_SIGNAL_TERM) == CAMLEASE_SHUT_DOWN);
    ask(0);
}

/* ---- unloaded: after dlclose signals do what they do without us; ARGUMENT: which way they come ---- */

static void unloaded(void)
{
    const char *way = arguments[0];
    int handled = strstr(way, "handled") != NULL;
    hold(uri);
    if (handled)
        handle(SIGTERM, SA_SIGINFO);
    ask(CAMLEASE_SIGNAL_USUAL);
    struct sigaction mine = { .sa_handler = count };
    if (strstr(way, "replaced"))
        EXPECT(sigaction(SIGTERM, &mine, &old) == 0);
    else
        sigaction(SIGTERM, NULL, &old);
    unload();
    EXPECT(is_free(uri));
    if (strstr(way, "replaced")) {
        raise(SIGTERM);
        EXPECT(counted[0] == 1 && seen.runs == 0);
    }
    if (strstr(way, "restored"))
        EXPECT(sigaction(SIGTERM, &old, NULL) == 0);
    if (strstr(way, "called")) {
        mine = (struct sigaction){ .sa_sigaction = calls_old, .sa_flags = SA_SIGINFO };
        EXPECT(sigaction(SIGTERM, &mine, NULL) == 0);
    }
    say("unloaded\n");
    raise(SIGTERM);
    EXPECT(seen.runs == handled); /* else this is not reached */
    if (strstr(way, "again")) {
        load();
        hold(uri);
        ask(CAMLEASE_SIGNAL_TERM);
        raise(SIGTERM);
        EXPECT(seen.runs == 2 && seen.free);
    }
}

/* ---- unloading: the library is unloaded while another thread waits in the handler ---- */

static void *raise_here(void *unused)
{
    (void)unused;
    waiter = gettid();
    raise(SIGTERM);
    return NULL;
}

static void unloading(void)
{
    pthread_t thread;
    handle(SIGTERM, 0);
    hold(uri); /* which hangs */
    CALL(set_shutdown_timeout)(5000);
    ask(CAMLEASE_SIGNAL_TERM);
    EXPECT(pthread_create(&thread, NULL, raise_here, NULL) == 0);
    while (!waiter)
        usleep(1000);
    usleep(100000); /* into the handler; the time is the test's, not the library's */
    EXPECT(seen.runs == 0);
    unload();
    pthread_join(thread, NULL);
    EXPECT(seen.runs == 1);
}

/* ---- unload_in_handler ---- */

static void unloads(int signal)
{
    look(signal);
    unload();
}

static void unload_in_handler(void)
{
    hold(uri);
    signal(SIGTERM, unloads);
    ask(CAMLEASE_SIGNAL_TERM);
    double begun = now();
    raise(SIGTERM);
    EXPECT(seen.runs == 1 && seen.free && now() - begun < AT_ONCE && is_installed(SIGTERM, (void *)unloads));
}

/* ---- forked: a child that has not asked gets the signal as it is, and the parent's camera stays ---- */

static void forked(void)
{
    camlease_camera *camera = hold(uri);
    camlease_frame *frame;
    int status;
    handle(SIGTERM, 0);
    ask(CAMLEASE_SIGNAL_USUAL);
    pid_t child = fork();
    if (child == 0) {
        double begun = now();
        raise(SIGTERM);
        EXPECT(seen.runs == 1 && !seen.free && now() - begun < AT_ONCE);
        raise(SIGINT);
        _exit(3);
    }
    EXPECT(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGINT);
    EXPECT(CALL(camera_next_frame)(camera, 5000, &frame) == CAMLEASE_OK);
    /* One that asks for itself has its own cameras released. */
    child = fork();
    if (child == 0) {
        char own[128];
        snprintf(own, sizeof own, "%s-child", uri);
        hold(own);
        uri = own;
        ask(CAMLEASE_SIGNAL_USUAL);
        raise(SIGTERM);
        EXPECT(seen.runs == 1 && seen.free);
        unload();
        EXPECT(is_installed(SIGTERM, (void *)plain));
        _exit(0);
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    /* One that unloads what it inherited is left with its own handler. */
    child = fork();
    if (child == 0) {
        double begun = now();
        unload();
        raise(SIGTERM);
        EXPECT(seen.runs == 1 && now() - begun < AT_ONCE);
        _exit(0);
    }
    EXPECT(waitpid(child, &status, 0) == child && status == 0);
    EXPECT(CALL(camera_next_frame)(camera, 5000, &frame) == CAMLEASE_OK);
    raise(SIGTERM);
    EXPECT(seen.runs == 1 && seen.free);
}

/* ---- blocked ---- */

static void blocked(void)
{
    sigset_t term, pending;
    camlease_camera *camera = hold(uri);
    camlease_frame *frame;
    handle(SIGTERM, 0);
    ask(CAMLEASE_SIGNAL_TERM);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &term, NULL);
    raise(SIGTERM);
    sigpending(&pending);
    EXPECT(seen.runs == 0 && sigismember(&pending, SIGTERM));
    EXPECT(CALL(camera_next_frame)(camera, 5000, &frame) == CAMLEASE_OK);
    pthread_sigmask(SIG_UNBLOCK, &term, NULL);
    EXPECT(effect_comes(1) && seen.free);
}

/* ---- suspended: the default action where the signal is blocked but for sigsuspend ---- */

static void suspended(void)
{
    sigset_t term, none;
    hold(uri);
    sigemptyset(&none);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &term, NULL);
    ask(CAMLEASE_SIGNAL_TERM);
    say("ready\n");
    sigsuspend(&none);
    say("sigsuspend returned\n");
}

/* ---- refused: the system refuses executable memory ---- */

static void refused(void)
{
#ifndef PR_SET_MDWE
#define PR_SET_MDWE 65
#endif
    if (prctl(PR_SET_MDWE, 1, 0, 0, 0) != 0) {
        say("SKIPPED: this kernel has no PR_SET_MDWE\n");
        return;
    }
    hold(uri);
    handle(SIGTERM, SA_SIGINFO);
    ask(CAMLEASE_SIGNAL_USUAL);
    raise(SIGTERM);
    EXPECT(seen.runs == 1 && seen.free && seen.code == SI_TKILL);
    struct sigaction mine = { .sa_sigaction = calls_old, .sa_flags = SA_SIGINFO };
    EXPECT(sigaction(SIGTERM, &mine, &old) == 0);
    ask(CAMLEASE_SIGNAL_USUAL);
    raise(SIGTERM);
    EXPECT(seen.error == 1 && seen.runs == 2);
    EXPECT(dlclose(library) == 0);
    EXPECT(dlopen("libcamlease.so.0", RTLD_NOW | RTLD_NOLOAD)); /* stays, as it must */
    raise(SIGTERM);
    EXPECT(seen.error == 2 && seen.runs == 3);
    raise(SIGINT);
}

/* ---- busy: signals come upon code that has a lock which the release needs ---- */

static void busy(void)
{
    static void *kept[64];
    char name[128];
    int rounds = atoi(arguments[0]);
    struct sigaction action = { .sa_handler = count };
    struct itimerspec soon = { 0 };
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2 };
    timer_t timer;
    double slowest = 0;
    mallopt(M_ARENA_MAX, 1);
    sigaction(SIGUSR2, &action, NULL);
    ask(CAMLEASE_SIGNAL_USR2);
    EXPECT(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
    for (int i = 0; i < rounds; i++) {
        snprintf(name, sizeof name, "%s?width=64&height=48", uri);
        camlease_camera *camera = hold(name);
        int before = counted[0];
        double begun = now();
        soon.it_value.tv_nsec = 100000 + i % 97 * 1000;
        EXPECT(timer_settime(timer, 0, &soon, NULL) == 0);
        for (unsigned k = 0; counted[0] == before; k++) {
            free(kept[k % 64]);
            kept[k % 64] = malloc(2000 + k % 7 * 1000);
            EXPECT(k % 4096 || now() - begun < AT_ONCE);
        }
        EXPECT(is_free(uri));
        slowest = now() - begun > slowest ? now() - begun : slowest;
        EXPECT(CALL(camera_close)(camera) == CAMLEASE_OK);
    }
    printf("%d signals, slowest %.1f ms\n", rounds, slowest * 1000);
    EXPECT(slowest < AT_ONCE);
}

static const struct {
    const char *name;
    void (*run)(void);
} hows[] = {
#define HOW(name) { #name, name }
    HOW(nothing),   HOW(handler),  HOW(resethand), HOW(altstack),          HOW(syscalls), HOW(inside),
    HOW(on_wait),   HOW(stress),   HOW(ignored),   HOW(later),             HOW(back),     HOW(unloaded),
    HOW(unloading), HOW(forked),   HOW(blocked),   HOW(unload_in_handler), HOW(suspended), HOW(refused),
    HOW(busy),      { "wait", wait_for_signal },
};

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    setvbuf(stdout, NULL, _IONBF, 0);
    uri = argv[2];
    arguments = argv + 3;
    load();
    for (size_t i = 0; i < sizeof hows / sizeof hows[0]; i++)
        if (strcmp(argv[1], hows[i].name) == 0) {
            hows[i].run();
            return 0;
        }
    return 2;
}
