/* What a frame costs, and how late it is, by hand and through the library.
 *
 * frame_path NODE WIDTH HEIGHT FPS ROUNDS FRAMES
 *
 * Each round every contender streams FRAMES frames, in turns, and so twice: once leaving the frame alone, once reading
 * all its bytes, as the least that a program does with a frame.
 *   bare      poll, DQBUF, QBUF
 *   newest    camlease_camera_next_frame, frame_info, frame_release, with CAMLEASE_DROP_OLDEST (the library's default)
 *   in order  the same with CAMLEASE_DROP_NEWEST, which is what a V4L2 queue does by itself
 *   v4l2-ctl  v4l2-ctl --stream-mmap; it tells no latency and reads no byte
 * CPU is the thread's, user and system, over blocks of frames; the median block counts, so that a disturbance of the
 * machine does not. Latency is from the driver's timestamp to the frame's being in the program's hands.
 */
#include "bench.h"

#include <sys/resource.h>
#include <sys/wait.h>

#define BLOCK 10   /* frames between two looks at the CPU clock, whose own cost is a system call */
#define WARM_UP 10 /* frames that are not measured after a start */
#define TARGET 1.03

enum contender { BARE, NEWEST, IN_ORDER, OURS, V4L2_CTL = OURS, CONTENDERS };
static const char *const names[CONTENDERS] = { "bare", "newest", "in order", "v4l2-ctl" };

struct figures {
    struct series cpu_us, latency_ms;
};

static const char *node;
static unsigned width, height, fps, frames;
static int reads_bytes;
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
            add(&figures->cpu_us, (double)(now - block_began) / 1e3 / BLOCK);
        block_began = now;
    }
}

static void run_bare(struct figures *figures)
{
    struct bare camera;
    bare_open(&camera, node);
    bare_start(&camera, width, height, fps);
    for (unsigned at = 0; at <= WARM_UP + frames; at++) {
        struct v4l2_buffer buffer = bare_next(&camera, 5000);
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

/* CPU of a whole run of v4l2-ctl, in us. */
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
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1e6
           + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

static void run_v4l2_ctl(struct figures *figures)
{
    /* Its start costs more than its frames: of two runs the difference counts. */
    double start = v4l2_ctl(WARM_UP);
    add(&figures->cpu_us, (v4l2_ctl(WARM_UP + frames) - start) / frames);
}

static void run(enum contender contender, struct figures *figures)
{
    switch (contender) {
    case BARE:
        run_bare(figures);
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

static void print(const struct figures *figures)
{
    const struct figures *bare = &figures[BARE];
    printf("%-10s %12s %8s %13s %8s %9s\n", reads_bytes ? "bytes read" : "left alone", "CPU us/frame", "x bare",
           "latency ms", "p99 ms", "x bare");
    for (int contender = 0; contender < CONTENDERS; contender++) {
        const struct figures *own = &figures[contender];
        if (own->cpu_us.count == 0)
            continue;
        printf("%-10s %12.1f %8.3f", names[contender], median(&own->cpu_us), median(&own->cpu_us) / median(&bare->cpu_us));
        if (own->latency_ms.count)
            printf(" %13.3f %8.3f %9.3f", median(&own->latency_ms), quantile(&own->latency_ms, 0.99),
                   median(&own->latency_ms) / median(&bare->latency_ms));
        putchar('\n');
    }
    for (int contender = NEWEST; contender < OURS; contender++) {
        double cpu = median(&figures[contender].cpu_us) / median(&bare->cpu_us);
        double latency = median(&figures[contender].latency_ms) / median(&bare->latency_ms);
        printf("target: %s at most %.2f x bare: CPU %.3f, %s; latency %.3f, %s\n", names[contender], TARGET, cpu,
               verdict(cpu, TARGET), latency, verdict(latency, TARGET));
    }
}

int main(int argc, char **argv)
{
    static struct figures figures[2][CONTENDERS];
    unsigned rounds;
    if (argc != 7)
        die("usage: frame_path NODE WIDTH HEIGHT FPS ROUNDS FRAMES");
    node = argv[1];
    width = number(argv[2]);
    height = number(argv[3]);
    fps = number(argv[4]);
    rounds = number(argv[5]);
    frames = number(argv[6]);
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
