/* What a frame of a shared camera costs: the process that shares it, and one that reads it.
 *
 * share_path UNIT NODE WIDTH HEIGHT FPS ROUNDS FRAMES
 *
 * Each round, in turns, the driver's own buffers are lent to the reader (readers: this user), or each frame is copied once
 * (readers: everyone). The reader takes all frames in order and reads all their bytes.
 * UNIT is time, or instructions on a machine whose clock counts them, a nanosecond each. CPU is the processes', user and
 * system, over FRAMES frames, start and end left out. Latency is from the driver's timestamp to the frame's being in the
 * reader's hands.
 */
#include "bench.h"

#include <sys/wait.h>

#define WARM_UP 60 /* frames that are not measured after a start: all memory is mapped and was written by then */

enum way { LENT, COPIED, WAYS };
static const char *const names[WAYS] = { "lent", "copied" };

struct figures {
    struct series sharer_ns, reader_ns, latency_ms;
};

static const char *node;
static char name[64], uri[80];
static unsigned width, height, fps, frames;
static int counts;
static volatile uint64_t sink;

/* What the reader tells: first that it is warm, and then how it fared. */
struct told {
    int64_t cpu_ns;
    double latency_ms;
};

static void tell(int fd, struct told told)
{
    if (write(fd, &told, sizeof told) != sizeof told)
        die("write");
}

static void reader(int out)
{
    struct series latency = { 0 };
    camlease_camera *camera;
    camlease_stream_options options = CAMLEASE_STREAM_OPTIONS_INIT;
    int64_t begun = 0;
    options.drop_policy = CAMLEASE_DROP_NEWEST;
    must(camlease_camera_open(uri, NULL, &camera), "open");
    must(camlease_camera_start(camera, &options), "start");
    for (unsigned at = 0; at < WARM_UP + frames; at++) {
        camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
        camlease_frame *frame;
        uint64_t sum = 0, word;
        if (at == WARM_UP) {
            tell(out, (struct told){ 0, 0 });
            begun = now_ns(CLOCK_PROCESS_CPUTIME_ID);
        }
        must(camlease_camera_next_frame(camera, 10000, &frame), "next_frame");
        must(camlease_frame_info(frame, &data), "frame_info");
        if (at >= WARM_UP)
            add(&latency, (double)(now_ns(CLOCK_MONOTONIC) - data.timestamp_ns) / 1e6);
        for (size_t place = 0; place + sizeof word <= data.size; place += sizeof word) {
            memcpy(&word, (const uint8_t *)data.data + place, sizeof word);
            sum += word;
        }
        sink = sum;
        must(camlease_frame_release(frame), "frame_release");
    }
    tell(out, (struct told){ now_ns(CLOCK_PROCESS_CPUTIME_ID) - begun, median(&latency) });
    must(camlease_camera_close(camera), "close");
}

static struct told hear(int fd)
{
    struct told told;
    if (read(fd, &told, sizeof told) != sizeof told)
        die("the reader ended");
    return told;
}

/* In a process of its own, so that each begins alike. */
static void sharer(enum way way, int in, int out, int ready)
{
    camlease_share_options options = CAMLEASE_SHARE_OPTIONS_INIT;
    camlease_stream_options stream = CAMLEASE_STREAM_OPTIONS_INIT;
    camlease_camera *camera;
    int64_t begun, used;
    struct told told;
    stream.width = width;
    stream.height = height;
    stream.fourcc = V4L2_PIX_FMT_YUYV;
    stream.fps_numerator = fps;
    stream.fps_denominator = 1;
    stream.drop_policy = CAMLEASE_DROP_NEWEST;
    options.name = name;
    options.readers = way == LENT ? CAMLEASE_ALLOWED_OWNER : CAMLEASE_ALLOWED_EVERYONE;
    options.stream = &stream;
    must(camlease_camera_open(node, NULL, &camera), "open");
    must(camlease_share_start(camera, &options), "share");
    if (write(ready, "", 1) != 1)
        die("write");
    hear(in);
    begun = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    told = hear(in);
    used = now_ns(CLOCK_PROCESS_CPUTIME_ID) - begun;
    must(camlease_camera_close(camera), "close");
    tell(out, told);
    tell(out, (struct told){ used, 0 });
}

static void run(enum way way, struct figures *figures)
{
    int from_reader[2], from_sharer[2], ready[2];
    struct told told;
    int status;
    if (pipe(from_reader) || pipe(from_sharer) || pipe(ready))
        die("pipe");
    /* Before either uses the library. */
    if (fork() == 0) {
        sharer(way, from_reader[0], from_sharer[1], ready[1]);
        _exit(0);
    }
    if (fork() == 0) {
        char byte;
        close(ready[1]);
        if (read(ready[0], &byte, 1) != 1)
            die("nothing is shared");
        reader(from_reader[1]);
        _exit(0);
    }
    close(ready[1]);
    close(from_reader[1]);
    close(from_sharer[1]);
    told = hear(from_sharer[0]);
    add(&figures->reader_ns, (double)told.cpu_ns / frames);
    add(&figures->latency_ms, told.latency_ms);
    told = hear(from_sharer[0]);
    add(&figures->sharer_ns, (double)told.cpu_ns / frames);
    close(from_reader[0]);
    close(from_sharer[0]);
    close(ready[0]);
    while (wait(&status) > 0)
        if (status != 0)
            die("a process failed: %d", status);
}

int main(int argc, char **argv)
{
    static struct figures figures[WAYS];
    unsigned rounds;
    double unit;
    if (argc != 8)
        die("usage: share_path time|instructions NODE WIDTH HEIGHT FPS ROUNDS FRAMES");
    counts = strcmp(argv[1], "instructions") == 0;
    node = argv[2];
    width = number(argv[3]);
    height = number(argv[4]);
    fps = number(argv[5]);
    rounds = number(argv[6]);
    frames = number(argv[7]);
    snprintf(name, sizeof name, "bench-%d", (int)getpid());
    snprintf(uri, sizeof uri, "shared:%s", name);
    for (unsigned round = 0; round < rounds; round++)
        for (unsigned turn = 0; turn < WAYS; turn++)
            run((enum way)((turn + round) % WAYS), &figures[(turn + round) % WAYS]);
    unit = counts ? 1 : 1e3;
    printf("%-8s %18s %18s %11s\n", counts ? "instr." : "CPU us", "shares, a frame", "reads, a frame", "latency ms");
    for (int way = 0; way < WAYS; way++)
        printf("%-8s %18.*f %18.*f %11.3f\n", names[way], counts ? 0 : 1, median(&figures[way].sharer_ns) / unit,
               counts ? 0 : 1, median(&figures[way].reader_ns) / unit, median(&figures[way].latency_ms));
    printf("copied / lent: shares %.2f, reads %.2f\n", median(&figures[COPIED].sharer_ns) / median(&figures[LENT].sharer_ns),
           median(&figures[COPIED].reader_ns) / median(&figures[LENT].reader_ns));
    return 0;
}
