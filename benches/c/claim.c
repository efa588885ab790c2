/* How soon a waiter has the camera after its holder was killed.
 *
 * claim NODE ROUNDS SLOW_ROUNDS
 *
 * Each round a process streams from NODE by plain V4L2, another waits for it, and a third, this one, kills the first by
 * SIGKILL: the time is from just before the kill to just after the waiter's claim. Three waiters take turns:
 *   bare      inotify on the node, then REQBUFS every 100 us on a descriptor that is open already
 *   camlease  camlease_camera_open()
 *   sleep     open, REQBUFS, close, sleep for 500 ms, again; only every so often, as each of its rounds takes long
 */
#include "bench.h"

#include <signal.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define SLEEP_MS 500
#define TIGHT_US 100
/* The kernel tells of the close before the driver lets go, and no second notice comes: whoever gave up in between would
 * wait for ever. This only ends a round in which the camera never becomes free. */
#define TIGHT_WINDOW_NS INT64_C(10000000000)
#define TARGET 1.5

enum waiter { BARE, CAMLEASE, SLEEP, WAITERS };
static const char *const names[WAITERS] = { "bare", "camlease", "sleep 500 ms" };

/* What a waiter reports: first that it waits, then when it had the camera. */
struct report {
    int64_t claimed_ns;
    uint64_t attempts;
};

static const char *node;
static int answers;

static void send_report(struct report report)
{
    if (write(answers, &report, sizeof report) != sizeof report)
        _exit(3);
}

static struct report receive_report(int from)
{
    struct report report;
    struct pollfd ready = { .fd = from, .events = POLLIN };
    if (poll(&ready, 1, 20000) != 1 || read(from, &report, sizeof report) != sizeof report)
        die("a process did not report");
    return report;
}

static void waits(void)
{
    send_report((struct report){ 0, 0 });
}

static void hold(void)
{
    struct bare camera;
    bare_open(&camera, node);
    bare_start(&camera, 640, 360, 30);
    for (int told = 0;; told = 1) {
        struct v4l2_buffer buffer = bare_next(&camera, 10000);
        bare_release(&camera, &buffer);
        if (!told)
            waits();
    }
}

static void wait_bare(void)
{
    struct bare camera;
    struct report report = { 0, 1 };
    struct pollfd notice = { .fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), .events = POLLIN };
    char events[4096];
    bare_open(&camera, node);
    if (notice.fd < 0 || inotify_add_watch(notice.fd, node, IN_CLOSE) < 0)
        die("inotify");
    if (bare_claim(&camera, 1) == 0)
        die("the camera is not busy");
    waits();
    for (;;) {
        int64_t until;
        if (poll(&notice, 1, 10000) != 1)
            die("no notice");
        until = now_ns(CLOCK_MONOTONIC) + TIGHT_WINDOW_NS;
        do {
            report.attempts++;
            if (bare_claim(&camera, 1) == 0) {
                report.claimed_ns = now_ns(CLOCK_MONOTONIC);
                send_report(report);
                return;
            }
            usleep(TIGHT_US);
        } while (now_ns(CLOCK_MONOTONIC) < until);
        while (read(notice.fd, events, sizeof events) > 0)
            ;
    }
}

static void told(void *user_data, const char *message, const camlease_holder *holders, size_t count)
{
    int *before = user_data;
    (void)message, (void)holders, (void)count;
    if (!(*before)++)
        waits();
}

static void wait_camlease(void)
{
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    struct camlease_camera_stats stats = CAMLEASE_CAMERA_STATS_INIT;
    struct report report = { 0, 0 };
    camlease_camera *camera;
    int before = 0;
    options.timeout_ms = 20000;
    options.on_wait = told;
    options.user_data = &before;
    must(camlease_camera_open(node, &options, &camera), "open");
    report.claimed_ns = now_ns(CLOCK_MONOTONIC);
    must(camlease_camera_stats(camera, &stats), "stats");
    report.attempts = stats.open_attempts;
    send_report(report);
    must(camlease_camera_close(camera), "close");
}

static void wait_asleep(void)
{
    struct report report = { 0, 0 };
    for (;;) {
        struct bare camera;
        bare_open(&camera, node);
        report.attempts++;
        if (bare_claim(&camera, 1) == 0) {
            report.claimed_ns = now_ns(CLOCK_MONOTONIC);
            send_report(report);
            return;
        }
        close(camera.fd);
        if (report.attempts == 1)
            waits();
        usleep(SLEEP_MS * 1000);
    }
}

static pid_t begin(void (*run)(void), int *reports)
{
    int ends[2];
    pid_t child;
    if (pipe2(ends, O_CLOEXEC))
        die("pipe");
    fflush(NULL);
    child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        answers = ends[1];
        run();
        _exit(0);
    }
    close(ends[1]);
    *reports = ends[0];
    receive_report(ends[0]);
    return child;
}

static struct report round_of(enum waiter waiter)
{
    static void (*const runs[WAITERS])(void) = { wait_bare, wait_camlease, wait_asleep };
    int from_holder, from_waiter, status;
    pid_t holder = begin(hold, &from_holder);
    pid_t waiting = begin(runs[waiter], &from_waiter);
    int64_t killed;
    struct report report;
    /* The kill is to fall anywhere between two tries of a waiter that polls. */
    usleep((useconds_t)(30000 + rand() % (waiter == SLEEP ? SLEEP_MS * 1000 : 60000)));
    killed = now_ns(CLOCK_MONOTONIC);
    kill(holder, SIGKILL);
    report = receive_report(from_waiter);
    report.claimed_ns -= killed;
    if (report.claimed_ns <= 0)
        die("the waiter had the camera before its holder's end");
    if (waitpid(waiting, &status, 0) != waiting || status != 0)
        die("the waiter failed: %d", status);
    waitpid(holder, &status, 0);
    close(from_holder);
    close(from_waiter);
    return report;
}

int main(int argc, char **argv)
{
    struct series times[WAITERS] = { { 0 } }, tries[WAITERS] = { { 0 } };
    unsigned rounds, slow_rounds;
    double ratio;
    if (argc != 4)
        die("usage: claim NODE ROUNDS SLOW_ROUNDS");
    node = argv[1];
    rounds = number(argv[2]);
    slow_rounds = number(argv[3]);
    srand(1);
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned turn = 0; turn < WAITERS; turn++) {
            /* Whoever goes first in one round goes second in the next. */
            enum waiter waiter = turn == SLEEP ? SLEEP : (enum waiter)((turn + round) % SLEEP);
            struct report report;
            if (waiter == SLEEP && times[SLEEP].count * rounds >= slow_rounds * (round + 1))
                continue;
            report = round_of(waiter);
            add(&times[waiter], (double)report.claimed_ns / 1e6);
            add(&tries[waiter], (double)report.attempts);
        }
    }
    printf("%-14s %7s %11s %8s %8s %7s %9s\n", "waiter", "rounds", "median ms", "p99 ms", "most ms", "tries", "x bare");
    for (int waiter = 0; waiter < WAITERS; waiter++) {
        const struct series *time = &times[waiter];
        printf("%-14s %7zu %11.2f %8.2f %8.2f %7.0f %9.2f\n", names[waiter], time->count, median(time),
               quantile(time, 0.99), quantile(time, 1), median(&tries[waiter]), median(time) / median(&times[BARE]));
    }
    ratio = median(&times[CAMLEASE]) / median(&times[BARE]);
    printf("target: camlease's median at most %.2f x bare: %.2f, %s\n", TARGET, ratio, verdict(ratio, TARGET));
    return 0;
}
