/* What a forked child must not do to others, one scenario after the other, each for children made by fork, _Fork and
 * clone. Prints a line for each; ends at the first that fails.
 *
 * handles_fork URI
 *   URI: a camera that nobody has. Frames of it are kept over the fork, but a driver's memory only where handlers run.
 *
 * build:
 */
#include "handles.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>

static struct player self;
#define P (&self)
/* A child's exit has nothing to wait for, and a machine may be slow. One that waits for itself does so for the shutdown
 * timeout. */
#define SHUTDOWN_TIMEOUT_MS 20000
#define EXIT_MOST_NS INT64_C(10000000000)

static camlease_camera *camera;
static atomic_bool told;
static bool driver; /* the camera is a device */
static _Atomic int64_t *child_begun; /* seen by the parent, too */

/* Whether a child made in this way has its parent's frames. */
static bool inherits(enum way way)
{
    return way == FORK || !driver;
}

static void *wait_for_frame(void *unused)
{
    camlease_frame *frame;
    (void)unused;
    atomic_store(&told, true);
    CALL_OUT(P, CAMERA, S(CLOSED), frame, camlease_camera_next_frame(camera, -1, &frame));
    return NULL;
}

static void note(void *user_data, const char *message, const camlease_holder *holders, size_t count)
{
    (void)user_data, (void)message, (void)holders, (void)count;
    atomic_store(&told, true);
}

static void *wait_for_camera(void *options)
{
    camlease_camera *other;
    static struct player player;
    CALL_OUT(&player, CAMERA, S(CLOSED), other, camlease_camera_open(((camlease_open_options *)options)->user_data, options, &other));
    return NULL;
}

/* In the child: takes every free descriptor number that the parent may use, by files that must stay empty. */
static void fill_numbers(int folder, int *files)
{
    for (int i = 0; i < 64; i++) {
        char name[32];
        snprintf(name, sizeof name, "file-%d", i);
        files[i] = openat(folder, name, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
    }
}

/* The parent's threads wait for a busy camera and for a frame. A child's exit takes no time, writes to nobody's
 * descriptors, and disturbs neither of the parent's waits. */
static void exit_beside_waits(const char *uri, enum way way)
{
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    camlease_stream_options stream = CAMLEASE_STREAM_OPTIONS_INIT;
    camlease_frame *frame;
    pthread_t opener, taker;
    /* In memory, where there is such a folder: the child's files are not to wait for a disk. */
    char folder[64];
    snprintf(folder, sizeof folder, "%s/handles-fork-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    MUST(P, mkdtemp(folder));
    int at = open(folder, O_DIRECTORY | O_CLOEXEC);
    CALL_OUT(P, CAMERA, S(OK), camera, camlease_camera_open(uri, NULL, &camera));
    stream.buffers = 2;
    CALL(P, CAMERA, S(OK), camlease_camera_start(camera, &stream));
    struct camlease_camera_info info = CAMLEASE_CAMERA_INFO_INIT;
    struct camlease_frame_data data[32];
    camlease_frame *frames[32];
    CALL(P, CAMERA, S(OK), camlease_camera_info(camera, &info));
    int count = (int)info.buffers; /* a driver may want more than two; with all out no frame can come */
    for (int i = 0; i < count; i++) {
        data[i] = (struct camlease_frame_data)CAMLEASE_FRAME_DATA_INIT;
        CALL_OUT(P, CAMERA, S(OK), frame, camlease_camera_next_frame(camera, 60000, &frame));
        CALL(P, FRAME, S(OK), camlease_frame_info(frame, &data[i]));
        frames[i] = frame;
    }
    options.timeout_ms = -1;
    options.on_wait = note;
    options.user_data = (void *)uri;
    CALL_OUT(P, CANCEL, S(OK), options.cancel, camlease_cancel_new(&options.cancel));
    atomic_store(&told, false);
    MUST(P, pthread_create(&opener, NULL, wait_for_camera, &options) == 0);
    while (!atomic_load(&told))
        usleep(1000);
    atomic_store(&told, false);
    MUST(P, pthread_create(&taker, NULL, wait_for_frame, NULL) == 0);
    while (!atomic_load(&told))
        usleep(1000);
    others_are_idle(P); /* it told before it called */

    pid_t child = make_child(way);
    if (child == 0) {
        atomic_store(child_begun, now_ns());
        int files[64];
        camlease_frame *none;
        CALL_OUT(P, CAMERA, S(FORKED), none, camlease_camera_next_frame(camera, 0, &none));
        for (int i = 0; i < count; i++) {
            static volatile unsigned sum; /* the bytes are there in the child */
            for (size_t byte = 0; byte < data[i].size && inherits(way); byte += 64)
                sum += data[i].data[byte];
            CALL(P, FRAME, S(FORKED), camlease_frame_release(frames[i]));
        }
        CALL(P, CANCEL, S(FORKED), camlease_cancel_signal(options.cancel));
        fill_numbers(at, files);
        exit(0);
    }
    see_child_off(P, child);
    int64_t took = now_ns() - atomic_load(child_begun);
    for (int i = 0; i < 64; i++) {
        char name[32];
        struct stat about;
        snprintf(name, sizeof name, "file-%d", i);
        MUST(P, fstatat(at, name, &about, 0) == 0);
        MUST(P, about.st_size == 0, "a child's exit wrote %d bytes to a file of its own", (int)about.st_size);
        unlinkat(at, name, 0);
    }
    MUST(P, took < EXIT_MOST_NS, "a child's exit took %.3f s", (double)took / 1e9);
    MUST(P, pthread_tryjoin_np(opener, NULL) == EBUSY, "a child ended its parent's wait for a camera");
    MUST(P, pthread_tryjoin_np(taker, NULL) == EBUSY, "a child ended its parent's wait for a frame");
    CALL(P, CANCEL, S(OK), camlease_cancel_signal(options.cancel));
    pthread_join(opener, NULL);
    CALL(P, CANCEL, S(OK), camlease_cancel_free(options.cancel));
    for (int i = 0; i < count; i++) {
        struct camlease_frame_data again = CAMLEASE_FRAME_DATA_INIT;
        CALL(P, FRAME, S(OK), camlease_frame_info(frames[i], &again));
        MUST(P, again.sequence == data[i].sequence && again.data == data[i].data);
    }
    CALL(P, CAMERA, S(OK), camlease_camera_close(camera));
    pthread_join(taker, NULL);
    for (int i = 0; i < count; i++)
        CALL(P, FRAME, S(OK), camlease_frame_release(frames[i]));
    close(at);
    rmdir(folder);
}

/* Things without a camera belong to their process as well: the first one of all was made before any descriptor. */
static void lists_of_the_parent(const char *uri, enum way way)
{
    static camlease_device_list *first;
    camlease_device_list *list;
    (void)uri;
    if (!first)
        CALL_OUT(P, DEVICES, S(OK), first, camlease_device_list_new(&first));
    CALL_OUT(P, DEVICES, S(OK), list, camlease_device_list_new(&list));
    pid_t child = make_child(way);
    if (child == 0) {
        struct camlease_device_info info = CAMLEASE_DEVICE_INFO_INIT;
        CALL(P, DEVICES, S(FORKED), camlease_device_list_get(first, 0, &info));
        CALL(P, DEVICES, S(FORKED), camlease_device_list_free(list));
        MUST(P, camlease_device_list_len(list) == 0);
        CALL_OUT(P, DEVICES, S(OK), list, camlease_device_list_new(&list));
        CALL(P, DEVICES, S(OK), camlease_device_list_free(list));
        _exit(0);
    }
    see_child_off(P, child);
    CALL(P, DEVICES, S(OK), camlease_device_list_free(list));
}

/* A child lives on; its parent closes the camera, which is free at once, and the child can have it. */
static void camera_goes_over_to_the_child(const char *uri, enum way way)
{
    int go[2], looked[2];
    char byte;
    MUST(P, pipe2(go, O_CLOEXEC) == 0 && pipe2(looked, O_CLOEXEC) == 0);
    CALL_OUT(P, CAMERA, S(OK), camera, camlease_camera_open(uri, NULL, &camera));
    CALL(P, CAMERA, S(OK), camlease_camera_start(camera, NULL));
    camlease_frame *frame;
    CALL_OUT(P, CAMERA, S(OK), frame, camlease_camera_next_frame(camera, 60000, &frame));
    struct camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
    CALL(P, FRAME, S(OK), camlease_frame_info(frame, &data));
    uint8_t *copy = malloc(data.size);
    memcpy(copy, data.data, data.size);
    pid_t child = make_child(way);
    if (child == 0) {
        camlease_camera *own;
        camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
        options.timeout_ms = 0;
        close(go[1]);
        CALL_OUT(P, CAMERA, S(BUSY), own, camlease_camera_open(uri, &options, &own));
        close(looked[1]);
        MUST(P, read(go[0], &byte, 1) == 0); /* the parent has closed it */
        CALL_OUT(P, CAMERA, S(OK), own, camlease_camera_open(uri, &options, &own));
        MUST(P, !inherits(way) || memcmp(copy, data.data, data.size) == 0, "a frame changed in the child");
        CALL(P, CAMERA, S(OK), camlease_camera_start(own, NULL));
        camlease_frame *another;
        CALL_OUT(P, CAMERA, S(OK), another, camlease_camera_next_frame(own, 60000, &another));
        CALL(P, CAMERA, S(FORKED), camlease_camera_close(camera));
        CALL(P, FRAME, S(OK), camlease_frame_release(another));
        CALL(P, CAMERA, S(OK), camlease_camera_close(own));
        MUST(P, !inherits(way) || memcmp(copy, data.data, data.size) == 0, "a frame changed in the child");
        _exit(0);
    }
    close(go[0]);
    close(looked[1]);
    MUST(P, read(looked[0], &byte, 1) == 0);
    close(looked[0]);
    CALL(P, CAMERA, S(OK), camlease_camera_close(camera));
    close(go[1]);
    see_child_off(P, child);
    MUST(P, memcmp(copy, data.data, data.size) == 0);
    CALL(P, FRAME, S(OK), camlease_frame_release(frame));
    free(copy);
}

/* A child's threads make the first calls all at once: none of them may take the parent's camera for its own. */
static pthread_barrier_t start_line;
static void *first_call(void *unused)
{
    (void)unused;
    pthread_barrier_wait(&start_line);
    for (int i = 0; i < 50; i++) {
        camlease_status status = camlease_camera_set_control(camera, 0x00980900, 77);
        MUST(P, status == CAMLEASE_FORKED, "%s in call %d", camlease_status_name(status), i);
    }
    return NULL;
}

static void threads_of_a_child(const char *uri, enum way way)
{
    CALL_OUT(P, CAMERA, S(OK), camera, camlease_camera_open(uri, NULL, &camera));
    for (int round = 0; round < 100; round++) {
        pid_t child = make_child(way);
        if (child == 0) {
            pthread_t threads[4];
            MUST(P, pthread_barrier_init(&start_line, NULL, 4) == 0);
            for (int i = 0; i < 4; i++)
                MUST(P, pthread_create(&threads[i], NULL, first_call, NULL) == 0);
            for (int i = 0; i < 4; i++)
                pthread_join(threads[i], NULL);
            _exit(0);
        }
        see_child_off(P, child);
    }
    CALL(P, CAMERA, S(OK), camlease_camera_close(camera));
}

static camlease_camera *ask(const char *uri, int32_t priority, int32_t timeout, uint32_t allowed)
{
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    camlease_camera *got;
    options.on_busy = CAMLEASE_ON_BUSY_ASK;
    options.priority = priority;
    options.timeout_ms = timeout;
    options.grace_ms = 50;
    CALL_OUT(P, CAMERA, allowed, got, camlease_camera_open(uri, &options, &got));
    return got;
}

/* A camera was handed over within the parent, and then to a child, which dies with it. */
static void hand_over_to_a_child(const char *uri, enum way way)
{
    camlease_camera *first, *second;
    camlease_frame *frame;
    char pid[32];
    first = ask(uri, 0, 20000, S(OK));
    CALL(P, CAMERA, S(OK), camlease_camera_start(first, NULL));
    CALL_OUT(P, CAMERA, S(OK), frame, camlease_camera_next_frame(first, 60000, &frame));
    struct camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
    CALL(P, FRAME, S(OK), camlease_frame_info(frame, &data));
    uint8_t *copy = malloc(data.size);
    memcpy(copy, data.data, data.size);
    second = ask(uri, 1, 60000, S(OK));
    CALL(P, CAMERA, S(EVICTED), camlease_camera_stop(first));
    others_are_idle(P);
    pid_t child = make_child(way);
    if (child == 0) {
        camlease_camera *both[] = { first, second };
        for (int i = 0; i < 2; i++) {
            CALL(P, CAMERA, S(FORKED), camlease_camera_regain(both[i], -1));
            CALL(P, CAMERA, S(FORKED), camlease_camera_reset(both[i], NULL));
            CALL(P, CAMERA, S(FORKED), camlease_camera_start(both[i], NULL));
        }
        MUST(P, !inherits(way) || memcmp(copy, data.data, data.size) == 0, "a frame changed in the child");
        ask(uri, 1, 300, S(BUSY)); /* an equal one does not get it */
        snprintf(pid, sizeof pid, "pid %d", (int)getppid());
        MUST(P, strstr(camlease_last_error_message(), pid), "%s", camlease_last_error_message());
        camlease_holder_list *list;
        struct camlease_holder holder = CAMLEASE_HOLDER_INIT;
        CALL_OUT(P, HOLDERS, S(OK), list, camlease_evict(uri, NULL, &list));
        MUST(P, camlease_holder_list_len(list) == 1);
        CALL(P, HOLDERS, S(OK), camlease_holder_list_get(list, 0, &holder));
        MUST(P, holder.pid == getppid() && holder.outcome == CAMLEASE_OUTCOME_REFUSED && strstr(holder.reason, "ancestor"));
        camlease_camera *own = ask(uri, 2, 60000, S(OK));
        CALL(P, CAMERA, S(OK), camlease_camera_start(own, NULL));
        _exit(0);
    }
    see_child_off(P, child);
    CALL(P, CAMERA, S(EVICTED), camlease_camera_start(second, NULL));
    snprintf(pid, sizeof pid, "pid %d,", (int)child);
    MUST(P, strstr(camlease_last_error_message(), pid), "%s", camlease_last_error_message());
    CALL(P, CAMERA, S(OK), camlease_camera_regain(second, 20000));
    struct camlease_camera_info info = CAMLEASE_CAMERA_INFO_INIT;
    CALL(P, CAMERA, S(OK), camlease_camera_info(second, &info));
    MUST(P, info.last_exit == CAMLEASE_EXIT_DIRTY, "the child died while it was streaming: %u", info.last_exit);
    CALL(P, CAMERA, S(BUSY), camlease_camera_regain(first, 0));
    CALL(P, CAMERA, S(OK), camlease_camera_close(second));
    CALL(P, CAMERA, S(OK), camlease_camera_regain(first, 20000));
    CALL(P, CAMERA, S(OK), camlease_camera_start(first, NULL));
    MUST(P, memcmp(copy, data.data, data.size) == 0, "a frame of before the hand-over changed");
    CALL(P, FRAME, S(OK), camlease_frame_release(frame));
    CALL_OUT(P, CAMERA, S(OK), frame, camlease_camera_next_frame(first, 60000, &frame));
    CALL(P, FRAME, S(OK), camlease_frame_release(frame));
    CALL(P, CAMERA, S(OK), camlease_camera_close(first));
    free(copy);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(const char *, enum way);
    } scenarios[] = {
        { "lists_of_the_parent", lists_of_the_parent },
        { "exit_beside_waits", exit_beside_waits },
        { "camera_goes_over_to_the_child", camera_goes_over_to_the_child },
        { "threads_of_a_child", threads_of_a_child },
        { "hand_over_to_a_child", hand_over_to_a_child },
    };
    static const char *const ways[] = { "fork", "_Fork", "clone" };
    if (argc != 2)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    driver = argv[1][0] == '/';
    child_begun = mmap(NULL, sizeof *child_begun, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MUST(P, child_begun != MAP_FAILED);
    camlease_set_shutdown_timeout(SHUTDOWN_TIMEOUT_MS);
    for (size_t i = 0; i < sizeof scenarios / sizeof scenarios[0]; i++)
        for (int way = 0; way < WAYS; way++) {
            int before = descriptors();
            printf("%s by %s\n", scenarios[i].name, ways[way]);
            fflush(NULL);
            scenarios[i].run(argv[1], (enum way)way);
            MUST(P, descriptors() == before, "descriptors are left");
        }
    return 0;
}
