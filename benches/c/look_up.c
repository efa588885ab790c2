/* What it costs to find the thing behind a handle.
 *
 * look_up ROUNDS CALLS
 *
 *   empty     a call of the library that does nothing: camlease_version()
 *   mutex     the usual registry: a table under one pthread mutex, which counts users while a call runs
 *   fd        camlease_camera_fd()
 *   frame     camlease_frame_info()
 * with 1 thread, with 8 threads on one camera, and with 8 threads that have a camera each. CPU time of the calling
 * thread for one call, so that threads which wait for a processor do not count as slow ones; and calls of all threads
 * together per microsecond.
 */
#include "bench.h"

#include <pthread.h>

#define THREADS 8
#define SLOTS 64

enum subject { EMPTY, MUTEX, FD, FRAME, SUBJECTS };
static const char *const names[SUBJECTS] = { "empty call", "mutex table", "camera_fd", "frame_info" };
enum setting { ALONE, ONE_CAMERA, OWN_CAMERAS, SETTINGS };

static camlease_camera *cameras[THREADS];
static camlease_frame *frames[THREADS];
static unsigned calls;

/* The peer: handles are numbers, a table under a lock tells what they mean. */
struct entry {
    uint64_t handle;
    int users, fd;
};
static struct entry table[SLOTS];
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;

static struct entry *find(uint64_t handle)
{
    for (unsigned at = (unsigned)(handle * UINT64_C(0x9e3779b97f4a7c15) >> 58);; at = (at + 1) % SLOTS) {
        if (table[at].handle == handle)
            return &table[at];
        if (table[at].handle == 0)
            return NULL;
    }
}

static void enter(uint64_t handle)
{
    unsigned at = (unsigned)(handle * UINT64_C(0x9e3779b97f4a7c15) >> 58);
    while (table[at].handle != 0)
        at = (at + 1) % SLOTS;
    table[at] = (struct entry){ handle, 0, 3 };
}

__attribute__((noinline)) static int mutex_fd(uint64_t handle, int *fd)
{
    struct entry *entry;
    pthread_mutex_lock(&table_lock);
    entry = find(handle);
    if (entry)
        entry->users++; /* keeps it while the call uses it without the lock */
    pthread_mutex_unlock(&table_lock);
    if (!entry)
        return CAMLEASE_INVALID_HANDLE;
    *fd = entry->fd;
    pthread_mutex_lock(&table_lock);
    entry->users--;
    pthread_mutex_unlock(&table_lock);
    return CAMLEASE_OK;
}

struct job {
    pthread_t thread;
    enum subject subject;
    unsigned camera;
    pthread_barrier_t *start;
    int64_t cpu_ns, began_ns, ended_ns;
};

static void *work(void *given)
{
    struct job *job = given;
    camlease_camera *camera = cameras[job->camera];
    camlease_frame *frame = frames[job->camera];
    camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
    volatile uint32_t seen = 0;
    unsigned failures = 0;
    int32_t fd = 0;
    int64_t began;
    pthread_barrier_wait(job->start);
    job->began_ns = now_ns(CLOCK_MONOTONIC);
    began = now_ns(CLOCK_THREAD_CPUTIME_ID);
    switch (job->subject) {
    case EMPTY:
        for (unsigned at = 0; at < calls; at++)
            seen = camlease_version();
        break;
    case MUTEX:
        for (unsigned at = 0; at < calls; at++)
            failures += mutex_fd((uint64_t)(uintptr_t)camera, &fd) != CAMLEASE_OK;
        break;
    case FD:
        for (unsigned at = 0; at < calls; at++)
            failures += camlease_camera_fd(camera, &fd) != CAMLEASE_OK;
        break;
    default:
        for (unsigned at = 0; at < calls; at++)
            failures += camlease_frame_info(frame, &data) != CAMLEASE_OK;
    }
    job->cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID) - began;
    job->ended_ns = now_ns(CLOCK_MONOTONIC);
    (void)seen;
    if (failures)
        die("%u of %u calls failed", failures, calls);
    return NULL;
}

static void measure(enum subject subject, enum setting setting, struct series *cpu_ns, struct series *per_us)
{
    unsigned threads = setting == ALONE ? 1 : THREADS;
    struct job jobs[THREADS];
    pthread_barrier_t start;
    int64_t began = INT64_MAX, ended = 0, cpu = 0;
    pthread_barrier_init(&start, NULL, threads);
    for (unsigned at = 0; at < threads; at++) {
        jobs[at] = (struct job){ .subject = subject, .camera = setting == OWN_CAMERAS ? at : 0, .start = &start };
        if (pthread_create(&jobs[at].thread, NULL, work, &jobs[at]))
            die("pthread_create");
    }
    for (unsigned at = 0; at < threads; at++) {
        pthread_join(jobs[at].thread, NULL);
        cpu += jobs[at].cpu_ns;
        began = jobs[at].began_ns < began ? jobs[at].began_ns : began;
        ended = jobs[at].ended_ns > ended ? jobs[at].ended_ns : ended;
    }
    pthread_barrier_destroy(&start);
    add(cpu_ns, (double)cpu / threads / calls);
    add(per_us, (double)calls * threads * 1e3 / (double)(ended - began));
}

int main(int argc, char **argv)
{
    static struct series cpu_ns[SETTINGS][SUBJECTS], per_us[SETTINGS][SUBJECTS];
    static const char *const settings[SETTINGS] = { "1 thread", "8 threads, one camera", "8 threads, a camera each" };
    unsigned rounds;
    if (argc != 3)
        die("usage: look_up ROUNDS CALLS");
    rounds = number(argv[1]);
    calls = number(argv[2]);
    for (int at = 0; at < THREADS; at++) {
        char uri[64];
        snprintf(uri, sizeof uri, "virtual:bench-%d-%d?width=64&height=48", (int)getpid(), at);
        must(camlease_camera_open(uri, NULL, &cameras[at]), uri);
        must(camlease_camera_start(cameras[at], NULL), uri);
        must(camlease_camera_next_frame(cameras[at], 5000, &frames[at]), uri);
        enter((uint64_t)(uintptr_t)cameras[at]);
    }
    for (unsigned round = 0; round < rounds; round++)
        for (int setting = 0; setting < SETTINGS; setting++)
            for (unsigned turn = 0; turn < SUBJECTS; turn++) {
                unsigned subject = (turn + round) % SUBJECTS;
                measure((enum subject)subject, (enum setting)setting, &cpu_ns[setting][subject], &per_us[setting][subject]);
            }
    printf("%-26s", "CPU ns/call (calls/us)");
    for (int subject = 0; subject < SUBJECTS; subject++)
        printf(" %17s", names[subject]);
    putchar('\n');
    for (int setting = 0; setting < SETTINGS; setting++) {
        printf("%-26s", settings[setting]);
        for (int subject = 0; subject < SUBJECTS; subject++)
            printf(" %8.1f (%6.1f)", median(&cpu_ns[setting][subject]), median(&per_us[setting][subject]));
        putchar('\n');
    }
    for (int at = 0; at < THREADS; at++) {
        must(camlease_frame_release(frames[at]), "frame_release");
        must(camlease_camera_close(cameras[at]), "close");
    }
    return 0;
}
