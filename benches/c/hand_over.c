/* How long a camera gives no frames when it changes hands: from the last frame of the one to the first of the other, by
 * the times at which they arrive.
 *
 * hand_over CAMERA WIDTH HEIGHT FPS ROUNDS SLOW_ROUNDS
 *
 * Two parties stream in turns, as two processes or as two threads of one:
 *   hand-over   the other opens with CAMLEASE_ON_BUSY_ASK and the higher priority, and starts
 *   close-open  the one closes, says so, and the other opens and starts
 *   sleep 2 s   the same with a pause of 2 s in between, as scripts have it; SLOW_ROUNDS of it
 * Beside them what no hand-over can do without: on one descriptor, by one party, the stream is stopped, and started again.
 *   bare        STREAMOFF, munmap, REQBUFS 0, S_FMT, S_PARM, REQBUFS, mmap, QBUF, STREAMON; a V4L2 node only
 *   stop-start  camlease_camera_stop(), camlease_camera_start()
 */
#include "bench.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#define TARGET 2.0 /* frame intervals */
#define PATIENCE_MS 20000

enum way { HAND_OVER, CLOSE_OPEN, SLEEP, WAYS };

/* What a party is told: the way in which it gets the camera, and then when to close where that is its part. */
enum order { TAKE, CLOSE, END };
struct command {
    enum order order;
    enum way way;
    int32_t priority;
};

/* What it reports. */
struct report {
    int64_t first_ns, last_ns; /* frames */
    int64_t asked_ns, opened_ns, started_ns;
    double interval_ns; /* median */
};

struct party {
    int orders, reports; /* the other's ends of its pipes */
    int own_orders, own_reports;
};

static const char *uri;
static unsigned width, height, fps;

static void put(int to, const void *what, size_t length)
{
    if (write(to, what, length) != (ssize_t)length)
        die("a pipe");
}

static void get(int from, void *what, size_t length)
{
    struct pollfd ready = { .fd = from, .events = POLLIN };
    if (poll(&ready, 1, PATIENCE_MS) != 1 || read(from, what, length) != (ssize_t)length)
        die("a party did not report");
}

static int is_told(int from)
{
    struct pollfd ready = { .fd = from, .events = POLLIN };
    return poll(&ready, 1, 0) == 1;
}

static void start(camlease_camera *camera)
{
    camlease_stream_options options = CAMLEASE_STREAM_OPTIONS_INIT;
    options.width = width;
    options.height = height;
    options.fourcc = CAMLEASE_FOURCC('Y', 'U', 'Y', 'V');
    options.fps_numerator = fps;
    options.fps_denominator = 1;
    options.buffers = BUFFERS;
    must(camlease_camera_start(camera, &options), "start");
}

/* When the next frame arrived; 0 when the camera was handed over. */
static int64_t next(camlease_camera *camera)
{
    camlease_frame *frame;
    int64_t arrived;
    camlease_status status = camlease_camera_next_frame(camera, 10000, &frame);
    if (status == CAMLEASE_EVICTED)
        return 0;
    must(status, "next_frame");
    arrived = now_ns(CLOCK_MONOTONIC);
    must(camlease_frame_release(frame), "release");
    return arrived;
}

/* Gets the camera, reports its first frame, and streams until it is lost or to be closed; then reports its last. */
static void take(const struct party *self, struct command command)
{
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    struct report report = { 0 };
    struct series intervals = { 0 };
    camlease_camera *camera;
    options.timeout_ms = 10000;
    options.priority = command.priority;
    options.on_busy = command.way == HAND_OVER ? CAMLEASE_ON_BUSY_ASK : CAMLEASE_ON_BUSY_WAIT;
    report.asked_ns = now_ns(CLOCK_MONOTONIC);
    must(camlease_camera_open(uri, &options, &camera), "open");
    report.opened_ns = now_ns(CLOCK_MONOTONIC);
    start(camera);
    report.started_ns = now_ns(CLOCK_MONOTONIC);
    report.first_ns = report.last_ns = next(camera);
    if (!report.first_ns)
        die("it was lost before its first frame");
    put(self->own_reports, &report, sizeof report);
    while (!is_told(self->own_orders)) {
        int64_t arrived = next(camera);
        if (!arrived)
            break;
        add(&intervals, (double)(arrived - report.last_ns));
        report.last_ns = arrived;
    }
    must(camlease_camera_close(camera), "close");
    report.interval_ns = median(&intervals);
    put(self->own_reports, &report, sizeof report);
    free(intervals.values);
}

static void *obey(void *which)
{
    const struct party *self = which;
    for (;;) {
        struct command command;
        /* It waits for the other one's turn as well. */
        if (read(self->own_orders, &command, sizeof command) != sizeof command || command.order == END)
            return NULL;
        if (command.order == TAKE)
            take(self, command);
    }
}

static struct party party(void)
{
    int orders[2], reports[2];
    if (pipe2(orders, O_CLOEXEC) || pipe2(reports, O_CLOEXEC))
        die("pipe");
    return (struct party){ orders[1], reports[0], orders[0], reports[1] };
}

/* Rounds of one way between two parties; the gaps, in frame intervals and in milliseconds. */
static void measure(struct party *parties, enum way way, unsigned rounds, struct series *gaps, struct series *times,
                    struct series *opens)
{
    struct command take_it = { TAKE, way, 0 }, close_it = { CLOSE, way, 0 };
    struct report first, last;
    put(parties[0].orders, &take_it, sizeof take_it);
    get(parties[0].reports, &first, sizeof first);
    for (unsigned round = 0; round < rounds; round++) {
        struct party *from = &parties[round % 2], *to = &parties[(round + 1) % 2];
        take_it.priority++;
        /* Some frames, and any moment between two. */
        usleep((useconds_t)(8 * 1000000 / fps + (unsigned)rand() % (1000000 / fps)));
        if (way == HAND_OVER) {
            put(to->orders, &take_it, sizeof take_it);
            get(from->reports, &last, sizeof last);
        } else {
            put(from->orders, &close_it, sizeof close_it);
            get(from->reports, &last, sizeof last);
            if (way == SLEEP)
                sleep(2);
            put(to->orders, &take_it, sizeof take_it);
        }
        get(to->reports, &first, sizeof first);
        if (first.first_ns <= last.last_ns)
            die("both had frames");
        add(times, (double)(first.first_ns - last.last_ns) / 1e6);
        add(gaps, (double)(first.first_ns - last.last_ns) / last.interval_ns);
        add(opens, (double)(first.opened_ns - first.asked_ns) / 1e6);
    }
    put(parties[rounds % 2].orders, &close_it, sizeof close_it);
    get(parties[rounds % 2].reports, &last, sizeof last);
}

/* The same descriptor, stopped and started again, by hand. */
static void restart_bare(unsigned rounds, struct series *gaps, struct series *times)
{
    struct bare camera;
    bare_open(&camera, uri);
    bare_start(&camera, width, height, fps);
    for (unsigned round = 0; round <= rounds; round++) {
        enum v4l2_buf_type type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
        struct series intervals = { 0 };
        int64_t last = 0, first;
        struct v4l2_buffer buffer;
        for (int frames = 0; frames < 10; frames++) {
            buffer = bare_next(&camera, 10000);
            if (last)
                add(&intervals, (double)(now_ns(CLOCK_MONOTONIC) - last));
            last = now_ns(CLOCK_MONOTONIC);
            bare_release(&camera, &buffer);
        }
        if (round == rounds)
            break;
        usleep((useconds_t)rand() % (1000000 / fps));
        if (request(camera.fd, VIDIOC_STREAMOFF, &type))
            die("STREAMOFF");
        for (unsigned at = 0; at < camera.count; at++)
            munmap(camera.buffers[at].data, camera.buffers[at].length);
        if (bare_claim(&camera, 0))
            die("REQBUFS 0");
        bare_start(&camera, width, height, fps);
        buffer = bare_next(&camera, 10000);
        first = now_ns(CLOCK_MONOTONIC);
        bare_release(&camera, &buffer);
        add(times, (double)(first - last) / 1e6);
        add(gaps, (double)(first - last) / median(&intervals));
        free(intervals.values);
    }
    bare_close(&camera);
}

static void restart(unsigned rounds, struct series *gaps, struct series *times)
{
    camlease_camera *camera;
    must(camlease_camera_open(uri, NULL, &camera), "open");
    start(camera);
    for (unsigned round = 0; round < rounds; round++) {
        struct series intervals = { 0 };
        int64_t last = next(camera), first;
        for (int frames = 0; frames < 9; frames++) {
            int64_t arrived = next(camera);
            add(&intervals, (double)(arrived - last));
            last = arrived;
        }
        usleep((useconds_t)rand() % (1000000 / fps));
        must(camlease_camera_stop(camera), "stop");
        start(camera);
        first = next(camera);
        add(times, (double)(first - last) / 1e6);
        add(gaps, (double)(first - last) / median(&intervals));
        free(intervals.values);
    }
    must(camlease_camera_close(camera), "close");
}

static void print(const char *name, const struct series *gaps, const struct series *times, const struct series *opens)
{
    char opened[32] = "";
    if (opens && opens->count)
        snprintf(opened, sizeof opened, "%9.2f", median(opens));
    printf("%-30s %6zu %10.1f %9.1f %10.2f %8.2f %9s\n", name, gaps->count, median(times), quantile(times, 1),
           median(gaps), quantile(gaps, 1), opened);
    fflush(stdout);
}

/* All ways between two parties that are there. */
static double between(struct party *parties, const char *where, unsigned rounds, unsigned slow_rounds)
{
    static const char *const names[WAYS] = { "hand-over", "close-open", "sleep 2 s" };
    double result = 0;
    for (enum way way = 0; way < WAYS; way++) {
        struct series gaps = { 0 }, times = { 0 }, opens = { 0 };
        char name[64];
        measure(parties, way, way == SLEEP ? slow_rounds : rounds, &gaps, &times, &opens);
        snprintf(name, sizeof name, "%s, %s", names[way], where);
        print(name, &gaps, &times, &opens);
        if (way == HAND_OVER)
            result = median(&gaps);
    }
    return result;
}

int main(int argc, char **argv)
{
    struct party processes[2], threads[2];
    unsigned rounds, slow_rounds;
    double ratios[2];
    if (argc != 7)
        die("usage: hand_over CAMERA WIDTH HEIGHT FPS ROUNDS SLOW_ROUNDS");
    uri = argv[1];
    width = number(argv[2]);
    height = number(argv[3]);
    fps = number(argv[4]);
    rounds = number(argv[5]);
    slow_rounds = number(argv[6]);
    srand(1);
    for (int at = 0; at < 2; at++) {
        processes[at] = party();
        fflush(NULL);
        switch (fork()) {
        case -1: die("fork");
        case 0:
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            close(processes[at].orders); /* so that its parent's end is its own */
            obey(&processes[at]);
            _exit(0);
        }
    }
    printf("%-30s %6s %10s %9s %10s %8s %9s\n", "", "rounds", "median ms", "worst ms", "intervals", "worst", "open ms");
    if (uri[0] == '/') {
        struct series gaps = { 0 }, times = { 0 };
        restart_bare(rounds, &gaps, &times);
        print("bare, one descriptor", &gaps, &times, NULL);
    }
    struct series gaps = { 0 }, times = { 0 };
    restart(rounds, &gaps, &times);
    print("stop-start, one handle", &gaps, &times, NULL);
    ratios[0] = between(processes, "two processes", rounds, slow_rounds);
    for (int at = 0; at < 2; at++) {
        struct command end = { END, 0, 0 };
        pthread_t thread;
        put(processes[at].orders, &end, sizeof end);
        wait(NULL);
        threads[at] = party();
        if (pthread_create(&thread, NULL, obey, &threads[at]))
            die("pthread_create");
        pthread_detach(thread);
    }
    ratios[1] = between(threads, "one process", rounds, slow_rounds);
    for (int at = 0; at < 2; at++)
        printf("target: %s, the median gap at most %.1f intervals: %.2f, %s\n", at ? "one process" : "two processes",
               TARGET, ratios[at], verdict(ratios[at], TARGET));
    return 0;
}
