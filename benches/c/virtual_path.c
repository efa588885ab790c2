/* The frame path without a driver: CPU of a frame of a virtual camera, beside a timer and a copy of as many bytes.
 *
 * virtual_path WIDTH HEIGHT FPS ROUNDS FRAMES
 *
 *   bare      poll on a periodic timerfd, read, memcpy of a picture, its number and time put in
 *   camlease  virtual: at the same rate; its picture has a moving mark besides, in an eighth of its lines
 */
#include "bench.h"

#include <sys/timerfd.h>

#define BLOCK 50
#define WARM_UP 20

static unsigned width, height, fps, frames;

static void note(struct series *cpu_ns, unsigned at)
{
    static int64_t block_began;
    if (at >= WARM_UP && (at - WARM_UP) % BLOCK == 0) {
        int64_t now = now_ns(CLOCK_THREAD_CPUTIME_ID);
        if (at > WARM_UP)
            add(cpu_ns, (double)(now - block_began) / BLOCK);
        block_began = now;
    }
}

static void run_bare(struct series *cpu_ns)
{
    size_t size = (size_t)width * height * 2;
    uint8_t *picture = malloc(size), *buffers[BUFFERS];
    struct itimerspec period = { .it_interval.tv_nsec = 1000000000 / (long)fps, .it_value.tv_nsec = 1 };
    struct pollfd timer = { .fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), .events = POLLIN };
    uint64_t sequence = 0, expired;
    if (!picture || timer.fd < 0 || timerfd_settime(timer.fd, 0, &period, NULL))
        die("bare loop");
    memset(picture, 128, size);
    for (int at = 0; at < BUFFERS; at++)
        if (!(buffers[at] = malloc(size)))
            die("out of memory");
    for (unsigned at = 0; at <= WARM_UP + frames; at++) {
        uint8_t *into = buffers[at % BUFFERS];
        int64_t now;
        if (poll(&timer, 1, 5000) != 1 || read(timer.fd, &expired, sizeof expired) != sizeof expired)
            die("timer");
        sequence += expired;
        now = now_ns(CLOCK_MONOTONIC);
        memcpy(into, picture, size);
        memcpy(into, &sequence, sizeof sequence);
        memcpy(into + 8, &now, sizeof now);
        note(cpu_ns, at);
    }
    close(timer.fd);
    free(picture);
    for (int at = 0; at < BUFFERS; at++)
        free(buffers[at]);
}

static void run_camlease(struct series *cpu_ns, uint32_t drop_policy)
{
    camlease_stream_options options = CAMLEASE_STREAM_OPTIONS_INIT;
    camlease_camera *camera;
    char uri[128];
    snprintf(uri, sizeof uri, "virtual:bench-%d?width=%u&height=%u&fps=%u", (int)getpid(), width, height, fps);
    options.buffers = BUFFERS;
    options.drop_policy = drop_policy;
    must(camlease_camera_open(uri, NULL, &camera), "open");
    must(camlease_camera_start(camera, &options), "start");
    for (unsigned at = 0; at <= WARM_UP + frames; at++) {
        camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
        camlease_frame *frame;
        must(camlease_camera_next_frame(camera, 5000, &frame), "next_frame");
        must(camlease_frame_info(frame, &data), "frame_info");
        must(camlease_frame_release(frame), "frame_release");
        note(cpu_ns, at);
    }
    must(camlease_camera_close(camera), "close");
}

int main(int argc, char **argv)
{
    static const char *const names[] = { "bare", "newest", "in order" };
    struct series cpu_ns[3] = { { 0 } };
    unsigned rounds;
    if (argc != 6)
        die("usage: virtual_path WIDTH HEIGHT FPS ROUNDS FRAMES");
    width = number(argv[1]);
    height = number(argv[2]);
    fps = number(argv[3]);
    rounds = number(argv[4]);
    frames = number(argv[5]);
    for (unsigned round = 0; round < rounds; round++) {
        for (unsigned turn = 0; turn < 3; turn++) {
            unsigned contender = (turn + round) % 3;
            if (contender == 0)
                run_bare(&cpu_ns[0]);
            else
                run_camlease(&cpu_ns[contender], contender == 1 ? CAMLEASE_DROP_OLDEST : CAMLEASE_DROP_NEWEST);
        }
    }
    printf("%-10s %13s %8s %8s\n", "loop", "CPU ns/frame", "p99", "x bare");
    for (unsigned contender = 0; contender < 3; contender++)
        printf("%-10s %13.0f %8.0f %8.2f\n", names[contender], median(&cpu_ns[contender]),
               quantile(&cpu_ns[contender], 0.99), median(&cpu_ns[contender]) / median(&cpu_ns[0]));
    return 0;
}
