/* One of several programs that contend for a camera until they are killed, or the board says that it is over.
 *
 * contend URI BOARD SLOT SEED
 *
 * It opens the camera with a random priority, waiting or asking, holds it for a while or streams from it, sometimes forks
 * a child, and closes it or, when it was handed over to another one, gets it back.
 *
 * BOARD is a file that all of them share, see tests/support/contention.rs, which makes it and kills. Its first word is the
 * witness: whoever holds the camera has its pid in it, from the return of open until just before close. One that must
 * yield takes it out in its callback, which is before the camera changes hands. Whoever finds another one's pid there,
 * that of a living process, says so.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "camlease.h"

#define SLOTS 16
#define WORDS 480
#define GAPS (1 << 18)

enum phase { IDLE, OPENING, HOLDING };

/* What a holder's end may look like to the next one: 1 << CAMLEASE_EXIT_ */
enum { CLEAN = 1 << CAMLEASE_EXIT_CLEAN, DIED = 1 << CAMLEASE_EXIT_DIED, DIRTY = 1 << CAMLEASE_EXIT_DIRTY };
#define ANY (CLEAN | DIED | DIRTY)

struct slot {
    _Atomic uint32_t pid;
    _Atomic uint32_t phase;
    _Atomic uint32_t killed; /* set before the signal is sent */
    _Atomic uint32_t rest;
    _Atomic uint64_t since_us; /* when it began to wait */
};

/* tests/support/contention.rs has the same. */
struct board {
    _Atomic uint32_t holder;
    _Atomic uint32_t stop;
    _Atomic uint32_t complaints;
    _Atomic uint32_t blurs; /* holders that the witness did not see, and kills of some that may have been such */
    _Atomic uint32_t blurs_at_claim;
    _Atomic uint32_t rest;
    _Atomic uint64_t claims;
    _Atomic uint64_t leaves; /* what the holder leaves behind, were it killed now: claim << 8 | 1 << CAMLEASE_EXIT_... */
    _Atomic uint64_t freed; /* the claim that ended last, and when: claim << 40 | microseconds */
    _Atomic uint64_t begun_us;
    _Atomic uint32_t evicted, regained, frames, forked, after_death, exits_checked, dirty, busy;
    struct slot slots[SLOTS];
    char words[WORDS];
    _Atomic uint32_t gaps[GAPS]; /* microseconds from free to claimed while somebody waited, else 0; by claim */
};

static struct board *board;
static struct slot *slot;
static uint32_t own;
static uint64_t random_state;
static camlease_camera *camera;
static const char *uri;

/* The witness and whether the camera is lost: set by the callback, in the library's thread. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int holding, lost;
static uint64_t claim;

static uint64_t now_us(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000 - board->begun_us;
}

static uint32_t below(uint32_t bound)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)((random_state * UINT64_C(0x2545F4914F6CDD1D)) >> 33) % bound;
}

/* The first complaint is kept; all end this process. */
__attribute__((noreturn, format(printf, 1, 2))) static void complain(const char *format, ...)
{
    va_list arguments;
    if (atomic_fetch_add(&board->complaints, 1) == 0) {
        int length = snprintf(board->words, WORDS, "claim %llu, pid %u: ", (unsigned long long)board->claims, own);
        va_start(arguments, format);
        vsnprintf(board->words + length, WORDS - (size_t)length, format, arguments);
        va_end(arguments);
    }
    _exit(3);
}

static void note_freed(void)
{
    uint64_t freed = claim << 40 | now_us(), before = board->freed;
    while (before < freed && !atomic_compare_exchange_weak(&board->freed, &before, freed))
        ;
}

/* One whose end was ordered, and which has it behind it but for its parent's notice. */
static int is_dead(uint32_t pid)
{
    char path[64], text[512] = "";
    const char *state;
    int fd;
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 1;
    if (read(fd, text, sizeof text - 1) < 0)
        text[0] = '\0';
    close(fd);
    state = strrchr(text, ')');
    return !state || strchr("ZX", state[2]) != NULL;
}

static int was_killed(uint32_t pid)
{
    for (int at = 0; at < SLOTS; at++)
        if (board->slots[at].pid == pid && board->slots[at].killed)
            return 1;
    return 0;
}

/* Whether one that may have had the camera, unseen by the witness, has just been killed. */
static int is_blurred(void)
{
    for (int at = 0; at < SLOTS; at++)
        if (board->slots[at].killed && board->slots[at].phase == OPENING)
            return 1;
    return board->blurs != board->blurs_at_claim;
}

/* Enters this process as the holder; open has just returned. */
static void enter(void)
{
    uint32_t seen = 0, last_exit, left;
    uint64_t begun = now_us(), oldest = slot->since_us, freed, gap = 0;
    struct camlease_camera_info info = CAMLEASE_CAMERA_INFO_INIT;
    pthread_mutex_lock(&lock);
    if (lost) {
        claim = board->claims; /* nobody else's, until it has changed hands */
        slot->phase = HOLDING;
        pthread_mutex_unlock(&lock);
        return;
    }
    while (!atomic_compare_exchange_strong(&board->holder, &seen, own)) {
        /* A killed one's pid stays until the test has noticed its end. That the kernel says so, too, may take until
         * all that it had is closed; this one here may be killed and followed by another while it waits. */
        if (!was_killed(seen) && board->holder == seen)
            complain("two holders: pid %u holds it as well", seen);
        if (now_us() - begun > 15000000)
            complain("two holders: pid %u was killed and did not end within 15 s", seen);
        if (!is_dead(seen)) {
            usleep(50);
            seen = 0;
            continue;
        }
        uint32_t expected = seen;
        if (atomic_compare_exchange_strong(&board->holder, &expected, own)) {
            atomic_fetch_add(&board->after_death, 1);
            break;
        }
        seen = 0;
    }
    holding = 1;
    /* Who waited longest while it was free. */
    for (int at = 0; at < SLOTS; at++)
        if (board->slots[at].phase == OPENING && board->slots[at].since_us < oldest)
            oldest = board->slots[at].since_us;
    freed = board->freed;
    if (freed >> 40 == board->claims) {
        uint64_t from = freed & ((UINT64_C(1) << 40) - 1);
        from = from > oldest ? from : oldest;
        gap = begun > from ? begun - from : 0;
    }
    left = (uint32_t)board->leaves & ANY;
    claim = ++board->claims;
    if (claim < GAPS)
        board->gaps[claim] = (uint32_t)gap;
    if (camlease_camera_info(camera, &info))
        complain("info: %s", camlease_last_error_message());
    last_exit = info.last_exit;
    if (!is_blurred()) {
        atomic_fetch_add(&board->exits_checked, 1);
        if (!(left & 1u << last_exit))
            complain("last_exit is %u, and the one before left %u", last_exit, left);
        if (last_exit == CAMLEASE_EXIT_DIRTY)
            atomic_fetch_add(&board->dirty, 1);
    }
    board->blurs_at_claim = board->blurs;
    board->leaves = claim << 8 | DIED;
    slot->phase = HOLDING; /* only now: one that is killed before is not known to the witness */
    pthread_mutex_unlock(&lock);
}

/* Takes this process out, with the lock. False where the camera is lost, or not entered yet. */
static int leave_locked(void)
{
    uint32_t expected = own;
    if (!holding)
        return 0;
    holding = 0;
    board->leaves = claim << 8 | ANY;
    if (!atomic_compare_exchange_strong(&board->holder, &expected, 0))
        complain("two holders: pid %u took the place of this one", expected);
    return 1;
}

static int leave(void)
{
    int held;
    pthread_mutex_lock(&lock);
    held = leave_locked();
    pthread_mutex_unlock(&lock);
    return held;
}

static void leaves(uint32_t what)
{
    pthread_mutex_lock(&lock);
    if (holding)
        board->leaves = claim << 8 | what;
    pthread_mutex_unlock(&lock);
}

static void set_lost(int whether)
{
    pthread_mutex_lock(&lock);
    lost = whether;
    pthread_mutex_unlock(&lock);
}

static uint32_t asked(void *user_data, const camlease_asker *asker)
{
    int yields = asker->must || below(4) == 0;
    (void)user_data;
    if (yields) {
        pthread_mutex_lock(&lock);
        if (!leave_locked())
            board->blurs++; /* open has not returned yet, and the one who asks is the next to come */
        lost = 1;
        pthread_mutex_unlock(&lock);
    }
    return yields ? CAMLEASE_ANSWER_YIELD : CAMLEASE_ANSWER_BY_PRIORITY;
}

/* What a call returned for a camera that is held, or was until just now. False when it is lost. */
static int went_on(camlease_status status, const char *call)
{
    int is_lost;
    if (!status)
        return 1;
    pthread_mutex_lock(&lock);
    is_lost = lost;
    pthread_mutex_unlock(&lock);
    if (status != CAMLEASE_EVICTED || !is_lost)
        complain("%s: %s: %s", call, camlease_status_name(status), camlease_last_error_message());
    return 0;
}

static void fork_child(void)
{
    unsigned pause = below(20000);
    pid_t child = fork();
    if (child == 0) {
        usleep(pause);
        _exit(0);
    }
    if (child > 0)
        atomic_fetch_add(&board->forked, 1);
}

/* Holds it for some milliseconds, streaming or not. False when it was lost. */
static int hold(void)
{
    camlease_frame *frame = NULL;
    int fd, keeps = 1;
    if (below(3) == 0) {
        struct pollfd ended = { .events = POLLIN };
        if (!went_on(camlease_camera_fd(camera, &fd), "fd"))
            return 0;
        ended.fd = fd;
        return poll(&ended, 1, (int)below(20)) <= 0;
    }
    camlease_stream_options options = CAMLEASE_STREAM_OPTIONS_INIT;
    options.width = below(2) ? 320 : 640;
    options.height = options.width * 9 / 16;
    leaves(DIED | DIRTY);
    if (!went_on(camlease_camera_start(camera, &options), "start"))
        return 0;
    leaves(DIRTY);
    if (below(8) == 0)
        fork_child();
    for (uint32_t left = below(8); left > 0 && keeps; left--) {
        camlease_frame *next;
        uint32_t before = board->holder;
        camlease_status status = camlease_camera_next_frame(camera, 10000, &next);
        if (status == CAMLEASE_OK && before != own && before != 0 && !was_killed(before) && board->holder == before)
            complain("a frame for this one while pid %u has the camera", before);
        keeps = went_on(status, "next_frame");
        if (keeps) {
            atomic_fetch_add(&board->frames, 1);
            if (frame)
                camlease_frame_release(frame);
            frame = next;
        }
    }
    if (frame && below(2))
        camlease_frame_release(frame), frame = NULL;
    if (keeps && below(2)) {
        leaves(DIED | DIRTY);
        keeps = went_on(camlease_camera_stop(camera), "stop");
        leaves(DIED);
    }
    if (frame)
        camlease_frame_release(frame);
    return keeps;
}

static void begin_to_wait(void)
{
    set_lost(0);
    slot->since_us = now_us();
    slot->phase = OPENING;
}

static int waited(camlease_status status, const char *call)
{
    if (status == CAMLEASE_OK) {
        enter();
        return 1;
    }
    slot->phase = IDLE;
    if (status != CAMLEASE_BUSY)
        complain("%s: %s: %s", call, camlease_status_name(status), camlease_last_error_message());
    atomic_fetch_add(&board->busy, 1);
    return 0;
}

static void turn(void)
{
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    options.timeout_ms = 20 + (int)below(3000);
    options.on_busy = below(3) ? CAMLEASE_ON_BUSY_ASK : CAMLEASE_ON_BUSY_WAIT;
    options.priority = (int)below(4);
    options.grace_ms = 20 + (int)below(200);
    options.on_ask = asked;
    begin_to_wait();
    if (!waited(camlease_camera_open(uri, &options, &camera), "open"))
        return;
    for (;;) {
        if (hold() && leave()) {
            uint64_t before = claim << 8 | ANY;
            if (camlease_camera_close(camera))
                complain("close: %s", camlease_last_error_message());
            atomic_compare_exchange_strong(&board->leaves, &before, claim << 8 | CLEAN);
            note_freed();
            slot->phase = IDLE;
            return;
        }
        /* The frames are back: from now on nothing keeps it from changing hands. */
        note_freed();
        atomic_fetch_add(&board->evicted, 1);
        slot->phase = IDLE;
        if (below(2)) {
            if (camlease_camera_close(camera))
                complain("close: %s", camlease_last_error_message());
            return;
        }
        begin_to_wait();
        camlease_status status = camlease_camera_regain(camera, (int)below(1000));
        if (status == CAMLEASE_WRONG_STATE) {
            /* The callback was told, and the camera is not marked as lost yet. */
            set_lost(1);
            slot->phase = HOLDING;
            usleep(100);
            continue;
        }
        if (!waited(status, "regain")) {
            if (camlease_camera_close(camera))
                complain("close: %s", camlease_last_error_message());
            return;
        }
        atomic_fetch_add(&board->regained, 1);
    }
}

int main(int argc, char **argv)
{
    int fd;
    if (argc != 5)
        return 2;
    uri = argv[1];
    fd = open(argv[2], O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return 2;
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (board == MAP_FAILED)
        return 2;
    close(fd);
    slot = &board->slots[atoi(argv[3])];
    random_state = strtoull(argv[4], NULL, 10) * 2 + 1;
    own = (uint32_t)getpid();
    while (!board->stop) {
        turn();
        usleep(below(3000));
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
    return 0;
}
