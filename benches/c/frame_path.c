/* What a frame costs, and how late it is, by hand and through the library.
 *
 * frame_path UNIT NODE WIDTH HEIGHT FPS ROUNDS FRAMES
 *
 * Each round every contender streams FRAMES frames, in turns, and so twice: once leaving the frame alone, once reading
 * all its bytes, as the least that a program does with a frame.
 *   bare         by hand: poll, DQBUF, QBUF
 *   in order     camlease_camera_next_frame, frame_info, frame_release, with CAMLEASE_DROP_NEWEST: the same job as bare
 *   bare newest  by hand: poll, DQBUF until there is none, QBUF of all but the last, and later of that
 *   newest       the library with CAMLEASE_DROP_OLDEST, its default: the same job as bare newest
 *   v4l2-ctl     v4l2-ctl --stream-mmap; it tells no latency and reads no byte
 * UNIT is time, or instructions on a machine whose clock counts them, a nanosecond each. CPU is the thread's, user and system, over blocks of frames; the median block counts, so that a disturbance of the
 * machine does not. Latency is from the driver's timestamp to the frame's being in the program's hands.
 */
#include "bench.h"

#include <sys/resource.h>
#include <sys/wait.h>

#define BLOCK 10   /* frames between two looks at the CPU clock, whose own cost is a system call */
#define WARM_UP 10 /* frames that are not measured after a start */
#define TARGET 1.03

enum contender { BARE, IN_ORDER, BARE_NEWEST, NEWEST, OURS, V4L2_CTL = OURS, CONTENDERS };
static const char *const names[CONTENDERS] = { "bare", "in order", "bare newest", "newest", "v4l2-ctl" };
static const enum contender peers[OURS] = { BARE, BARE, BARE_NEWEST, BARE_NEWEST };

struct figures {
    struct series cpu_ns, latency_ms;
};

static const char *node;
static unsigned width, height, fps, frames;
static int reads_bytes, counts;
static volatile uint64_t sink;

static void look(const uint8_t *data, size_t size)
{
    uint64_t sum = 0, word;
    if (!reads_bytes)
        return;
    for (size_t at = 0; at + sizeof word <= size; at += sizeof word) {
        memcpy(&word, data + at, sizeof word);
        sum += word;
    }
    sink = sum;
}

/* Called with each frame that was got, before anything is done with it. */
static void note(struct figures *figures, unsigned at, int64_t timestamp_ns)
{
    static int64_t block_began;
    if (at >= WARM_UP)
        add(&figures->latency_ms, (double)(now_ns(CLOCK_MONOTONIC) - timestamp_ns) / 1e6);
    if (at >= WARM_UP && (at - WARM_UP) % BLOCK == 0) {
        int64_t now = now_ns(CLOCK_THREAD_CPUTIME_ID);
        if (at > WARM_UP)
            add(&figures->cpu_ns, (double)(now - block_began) / BLOCK);
        block_began = now;
    }
}

/* Takes all that is there; the last of it. */
static struct v4l2_buffer drain(struct bare *camera, struct v4l2_buffer newest)
{
    for (;;) {
        struct v4l2_buffer next = bare_buffer(0);
        if (request(camera->fd, VIDIOC_DQBUF, &next))
            return newest;
        bare_release(camera, &newest);
        newest = next;
    }
}

static void run_bare(struct figures *figures, int newest)
{
    struct bare camera;
    bare_open(&camera, node);
    bare_start(&camera, width, height, fps);
    for (unsigned at = 0; at <= WARM_UP + frames; at++) {
        struct v4l2_buffer buffer = bare_next(&camera, 5000);
        if (newest)
            buffer = drain(&camera, buffer);
        note(figures, at, buffer.timestamp.tv_sec * INT64_C(1000000000) + buffer.timestamp.tv_usec * 1000);
        look(camera.buffers[buffer.index].data, buffer.bytesused);
        bare_release(&camera, &buffer);
    }
    bare_close(&camera);
}

static void run_camlease(struct figures *figures, uint32_t drop_policy)
{
    camlease_stream_options options = CAMLEASE_STREAM_OPTIONS_INIT;
    camlease_camera *camera;
    options.width = width;
    options.height = height;
    options.fourcc = V4L2_PIX_FMT_YUYV;
    options.fps_numerator = fps;
    options.fps_denominator = 1;
    options.buffers = BUFFERS;
    options.drop_policy = drop_policy;
    must(camlease_camera_open(node, NULL, &camera), "open");
    must(camlease_camera_start(camera, &options), "start");
    for (unsigned at = 0; at <= WARM_UP + frames; at++) {
        camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
        camlease_frame *frame;
        must(camlease_camera_next_frame(camera, 5000, &frame), "next_frame");
        must(camlease_frame_info(frame, &data), "frame_info");
        note(figures, at, data.timestamp_ns);
        look(data.data, data.size);
        must(camlease_frame_release(frame), "frame_release");
    }
    must(camlease_camera_close(camera), "close");
}

/* CPU of a whole run of v4l2-ctl, in ns. */
static double v4l2_ctl(unsigned count)
{
    char line[64];
    struct rusage used;
    int status;
    pid_t child;
    snprintf(line, sizeof line, "--stream-count=%u", count);
    child = fork();
    if (child < 0)
        die("fork");
    if (child == 0) {
        int nowhere = open("/dev/null", O_WRONLY);
        dup2(nowhere, STDOUT_FILENO);
        dup2(nowhere, STDERR_FILENO);
        execlp("v4l2-ctl", "v4l2-ctl", "-d", node, "--stream-mmap=4", line, (char *)NULL);
        _exit(127);
    }
    if (wait4(child, &status, 0, &used) != child || status != 0)
        die("v4l2-ctl: %d", status);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e9
           + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e3;
}

static void run_v4l2_ctl(struct figures *figures)
{
    /* Its start costs more than its frames: of two runs the difference counts. */
    double start = v4l2_ctl(WARM_UP);
    add(&figures->cpu_ns, (v4l2_ctl(WARM_UP + frames) - start) / frames);
}

static void run(enum contender contender, struct figures *figures)
{
    switch (contender) {
    case BARE:
    case BARE_NEWEST:
        run_bare(figures, contender == BARE_NEWEST);
        break;
    case NEWEST:
        run_camlease(figures, CAMLEASE_DROP_OLDEST);
        break;
    case IN_ORDER:
        run_camlease(figures, CAMLEASE_DROP_NEWEST);
        break;
    default:
        run_v4l2_ctl(figures);
    }
}

static double ratio(const struct series *own, const struct series *peer)
{
    return median(own) / median(peer);
}

static void print(const struct figures *figures)
{
    const struct figures *bare = &figures[BARE];
    printf("%-12s %15s %8s %11s %8s %8s\n", reads_bytes ? "bytes read" : "left alone",
           counts ? "instr./frame" : "CPU us/frame", "x bare", "latency ms", "p99 ms", "x bare");
    for (int contender = 0; contender < CONTENDERS; contender++) {
        const struct figures *own = &figures[contender];
        if (own->cpu_ns.count == 0)
            continue;
        printf("%-12s %15.*f %8.3f", names[contender], counts ? 0 : 1, median(&own->cpu_ns) / (counts ? 1 : 1e3),
               ratio(&own->cpu_ns, &bare->cpu_ns));
        if (own->latency_ms.count)
            printf(" %11.3f %8.3f %8.3f", median(&own->latency_ms), quantile(&own->latency_ms, 0.99),
                   ratio(&own->latency_ms, &bare->latency_ms));
        putchar('\n');
    }
    for (int contender = 0; contender < OURS; contender++) {
        const struct figures *own = &figures[contender], *peer = &figures[peers[contender]];
        double cpu = ratio(&own->cpu_ns, &peer->cpu_ns), latency = ratio(&own->latency_ms, &peer->latency_ms);
        if (own != peer)
            printf("target: %s at most %.2f x %s: CPU %.3f, %s; latency %.3f, %s\n", names[contender], TARGET,
                   names[peers[contender]], cpu, verdict(cpu, TARGET), latency, verdict(latency, TARGET));
    }
}

int main(int argc, char **argv)
{
    static struct figures figures[2][CONTENDERS];
    unsigned rounds;
    if (argc != 8)
        die("usage: frame_path time|instructions NODE WIDTH HEIGHT FPS ROUNDS FRAMES");
    counts = strcmp(argv[1], "instructions") == 0;
    node = argv[2];
    width = number(argv[3]);
    height = number(argv[4]);
    fps = number(argv[5]);
    rounds = number(argv[6]);
    frames = number(argv[7]);
    for (unsigned round = 0; round < rounds; round++) {
        for (reads_bytes = 0; reads_bytes < 2; reads_bytes++) {
            for (unsigned turn = 0; turn < OURS; turn++) {
                unsigned contender = (turn + round) % OURS; /* another one goes first in each round */
                run((enum contender)contender, &figures[reads_bytes][contender]);
            }
        }
        run(V4L2_CTL, &figures[0][V4L2_CTL]);
    }
    for (reads_bytes = 0; reads_bytes < 2; reads_bytes++)
        print(figures[reads_bytes]);
    return 0;
}
