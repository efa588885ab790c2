/* Random calls of the whole interface by many threads on handles that they share: each may be closed, freed or released
 * by another thread at any moment, also inside the call that uses it. What may come back is what the call promises; what
 * was opened is closed exactly once. The first thread closes cameras all the while, so that no wait without end lasts,
 * looks whether all get on, sends signals on which all cameras are released, and at last shuts the library down beneath
 * them. Cameras are asked for, handed over and regained by all of them at the same time.
 *
 * handles_threads SEED CALLS THREADS
 *
 * build: -fsanitize=address,undefined -fno-sanitize-recover=undefined
 * build: -DFORKS
 * build: -DPLAIN
 */
#include "handles.h"

#include <stdatomic.h>

#define SLOTS 6
#define OWN_MOST 4
#define NAMES 5
#define ROUNDS 4 /* of threads: each ends and is followed by another */
#define STUCK_NS INT64_C(60000000000)
#define BRIGHTNESS 0x00980900u

static _Atomic(void *) slots[KINDS][SLOTS];
static _Atomic uint64_t made[KINDS], ended[KINDS];
static atomic_bool shutting_down, signalled;
static _Atomic uint64_t signals_seen, asked, regained;
static atomic_int running;
static char names[NAMES][128];

struct worker {
    struct player player;
    pthread_t thread;
    uint64_t calls;
    _Atomic uint64_t progress;
    _Atomic(const char *) at; /* the call that it is in, for when it is stuck */
    struct own {
        camlease_frame *frame;
        struct camlease_frame_data data;
        uint64_t sum;
    } own[OWN_MOST];
    int owns;
    void *released[KINDS]; /* the last that this thread ended: invalid for certain */
    uint64_t children;
};

static const struct {
    camlease_status (*end)(void *);
    size_t (*len)(const void *);
    camlease_status (*get)(const void *, size_t, void *);
    size_t size;
} table[KINDS] = {
#define END(call) (camlease_status(*)(void *))(void (*)(void))call
#define LIST(name, entry)                                                                                              \
    { END(camlease_##name##_list_free), (size_t(*)(const void *))(void (*)(void))camlease_##name##_list_len,           \
      (camlease_status(*)(const void *, size_t, void *))(void (*)(void))camlease_##name##_list_get, sizeof(entry) }
    [CAMERA] = { END(camlease_camera_close), NULL, NULL, 0 },
    [FRAME] = { END(camlease_frame_release), NULL, NULL, 0 },
    [CANCEL] = { END(camlease_cancel_free), NULL, NULL, 0 },
    [DEVICES] = LIST(device, struct camlease_device_info),
    [HOLDERS] = LIST(holder, struct camlease_holder),
    [FORMATS] = LIST(format, struct camlease_format_info),
    [CONTROLS] = LIST(control, struct camlease_control_info),
};

/* What a camera that another thread closed, asked for or released gives. */
#define LOST (S(CLOSED) | S(EVICTED))

static void take_signal(int number)
{
    (void)number;
    atomic_fetch_add(&signals_seen, 1);
}

static uint32_t and_shut_down(uint32_t set)
{
    return set | S(SHUT_DOWN);
}

/* SHUT_DOWN is in every set, and right only when there was a shutdown. */
static camlease_status honest(struct player *p, camlease_status status)
{
    if (status == CAMLEASE_SHUT_DOWN && !atomic_load(&shutting_down))
        wrong(p, "SHUT_DOWN without a shutdown");
    return status;
}

#define TRY(w, kind, allowed, call)                                                                                    \
    (atomic_store(&(w)->at, #call), honest(&(w)->player, CALL(&(w)->player, kind, and_shut_down(allowed), call)))
#define TRY_OUT(w, kind, allowed, out, call)                                                                           \
    (atomic_store(&(w)->at, #call), honest(&(w)->player, CALL_OUT(&(w)->player, kind, and_shut_down(allowed), out, call)))

/* A handle for a call that takes `kind`, and what a bad one of that sort gives: 0 where it may be valid. */
static void *pick(struct worker *w, enum kind kind, uint32_t *bad)
{
    struct player *p = &w->player;
    uint32_t way = dice(p, 100);
    *bad = 0;
    if (way < 75)
        return atomic_load(&slots[kind][dice(p, SLOTS)]);
    *bad = HANDLE;
    if (way < 83)
        return w->released[kind];
    enum kind other = (enum kind)((kind + 1 + dice(p, KINDS - 1)) % KINDS);
    if (way < 92)
        return atomic_load(&slots[other][dice(p, SLOTS)]);
    if (way < 97) {
        *bad = 0; /* by chance it may be another thread's */
        return made_up(p, atomic_load(&slots[other][dice(p, SLOTS)]));
    }
    return NULL;
}

static uint32_t or_bad(uint32_t bad, uint32_t set)
{
    return bad ? bad : set | HANDLE;
}

static void end(struct worker *w, enum kind kind, void *handle, uint32_t bad)
{
    if (TRY(w, kind, or_bad(bad, S(OK)), table[kind].end(handle)) == CAMLEASE_OK) {
        atomic_fetch_add(&ended[kind], 1);
        w->released[kind] = handle;
    }
}

/* Lets all threads have a handle; what was in its place before is ended. */
static void share(struct worker *w, enum kind kind, void *handle)
{
    void *before = atomic_exchange(&slots[kind][dice(&w->player, SLOTS)], handle);
    if (before)
        end(w, kind, before, 0);
}

static uint64_t sum_of(const struct camlease_frame_data *data)
{
    uint64_t sum = 0xcbf29ce484222325u;
    for (size_t at = 0; at < data->size; at += 7)
        sum = (sum ^ data->data[at]) * 0x100000001b3u;
    return sum;
}

/* Told in a thread of the library's, while all others go on. */
static uint32_t hear(void *user_data, const camlease_asker *asker)
{
    uint64_t number = atomic_fetch_add(&asked, 1);
    struct player player = { .state = number, .seed = (uintptr_t)user_data, .number = 1000 }, *p = &player;
    MUST(p, asker->struct_size == sizeof *asker && asker->pid == getpid() && asker->uid == geteuid());
    MUST(p, strcmp(asker->name, "a thread") == 0 && asker->priority >= 0 && asker->priority < 3 && asker->must < 2);
    if (chance(p, 20)) { /* any camera: this one, if it comes so */
        void *camera = atomic_exchange(&slots[CAMERA][dice(p, SLOTS)], NULL);
        if (camera && CALL(p, CAMERA, S(OK) | HANDLE, camlease_camera_close(camera)) == CAMLEASE_OK)
            atomic_fetch_add(&ended[CAMERA], 1);
    }
    return dice(p, 3);
}

static void op_open(struct worker *w)
{
    struct player *p = &w->player;
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    uint32_t allowed = S(OK) | S(BUSY), bad = HANDLE;
    uint32_t way = dice(p, 100);
    options.timeout_ms = way < 35 ? 0 : way < 97 ? (int32_t)dice(p, 20) : -1;
    options.on_busy = dice(p, 3);
    options.priority = (int32_t)dice(p, 3);
    options.grace_ms = 1 + (int32_t)dice(p, 5);
    options.name = "a thread";
    options.flags = chance(p, 10) ? CAMLEASE_OPEN_RESET_AFTER_DIRTY_EXIT : 0;
    if (chance(p, 60)) {
        options.on_ask = hear;
        options.user_data = (void *)(uintptr_t)p->seed;
    }
    if (chance(p, 40)) {
        options.cancel = pick(w, CANCEL, &bad);
        if (options.cancel)
            allowed = bad ? HANDLE : allowed | S(CLOSED) | HANDLE;
    }
    camlease_camera *camera;
    bool cancelled = allowed & S(CLOSED);
    allowed |= bad && options.cancel ? 0 : S(CLOSED);
    camlease_status status =
        TRY_OUT(w, CAMERA, allowed, camera, camlease_camera_open(names[dice(p, NAMES)], &options, &camera));
    MUST(p, status != CAMLEASE_CLOSED || cancelled || atomic_load(&signalled), "neither cancelled nor signalled");
    if (status)
        return;
    atomic_fetch_add(&made[CAMERA], 1);
    share(w, CAMERA, camera);
}

static void op_start(struct worker *w)
{
    uint32_t bad;
    camlease_camera *camera = pick(w, CAMERA, &bad);
    camlease_stream_options options = CAMLEASE_STREAM_OPTIONS_INIT;
    options.buffers = 1 + dice(&w->player, 4);
    options.drop_policy = dice(&w->player, 2);
    TRY(w, CAMERA, or_bad(bad, S(OK) | S(WRONG_STATE) | LOST), camlease_camera_start(camera, &options));
}

static void op_stop(struct worker *w)
{
    uint32_t bad;
    camlease_camera *camera = pick(w, CAMERA, &bad);
    TRY(w, CAMERA, or_bad(bad, S(OK) | S(WRONG_STATE) | LOST), camlease_camera_stop(camera));
}

static void op_regain(struct worker *w)
{
    uint32_t bad, way = dice(&w->player, 100);
    camlease_camera *camera = pick(w, CAMERA, &bad);
    int32_t timeout = way < 70 ? 0 : way < 97 ? (int32_t)dice(&w->player, 10) : -1;
    uint32_t allowed = S(OK) | S(WRONG_STATE) | S(CLOSED) | (timeout < 0 ? 0 : S(BUSY));
    if (!TRY(w, CAMERA, or_bad(bad, allowed), camlease_camera_regain(camera, timeout)))
        atomic_fetch_add(&regained, 1);
}

static void op_reset(struct worker *w)
{
    uint32_t bad;
    camlease_camera *camera = pick(w, CAMERA, &bad);
    TRY(w, CAMERA, or_bad(bad, S(UNSUPPORTED) | LOST), camlease_camera_reset(camera, NULL));
}

/* It finds this process, or nobody, and leaves the camera where it is. */
static void op_evict(struct worker *w)
{
    struct player *p = &w->player;
    camlease_evict_options options = CAMLEASE_EVICT_OPTIONS_INIT;
    camlease_holder_list *list;
    uint32_t allowed = S(OK) | S(BUSY), bad;
    if (!chance(p, 10))
        return; /* it reads all of /proc */
    options.flags = dice(p, 2);
    options.grace_ms = (int32_t)dice(p, 3);
    if (chance(p, 30)) {
        options.cancel = pick(w, CANCEL, &bad);
        if (options.cancel)
            allowed = bad ? HANDLE : allowed | S(CLOSED) | HANDLE;
    }
    atomic_store(&w->at, "camlease_evict");
    allowed |= allowed == HANDLE ? 0 : S(CLOSED);
    bool may_close = options.cancel || atomic_load(&signalled);
    camlease_status status =
        TRY_OUT(w, HOLDERS, allowed, list, camlease_evict(names[dice(p, NAMES)], &options, &list));
    MUST(p, status != CAMLEASE_CLOSED || may_close || atomic_load(&signalled));
    if (status)
        return;
    size_t length = camlease_holder_list_len(list);
#ifndef FORKS
    MUST(p, length <= 1, "%zu holders", length);
#endif
    for (size_t i = 0; i < length; i++) {
        struct camlease_holder holder = CAMLEASE_HOLDER_INIT;
        TRY(w, HOLDERS, S(OK), camlease_holder_list_get(list, i, &holder));
        bool own = holder.pid == getpid() && holder.outcome == CAMLEASE_OUTCOME_REFUSED;
#ifdef FORKS
        own |= holder.outcome == CAMLEASE_OUTCOME_NONE; /* a child that had not let go yet */
#endif
        MUST(p, own, "pid %d, outcome %u: %s", holder.pid, holder.outcome, holder.reason);
    }
    TRY(w, HOLDERS, S(OK), camlease_holder_list_free(list));
}

static void op_next_frame(struct worker *w)
{
    struct player *p = &w->player;
    uint32_t bad, way = dice(p, 1000);
    camlease_camera *camera = pick(w, CAMERA, &bad);
    int32_t timeout = way < 600 ? 0 : way < 990 ? (int32_t)dice(p, 4) : -1;
    uint32_t allowed = S(OK) | S(WRONG_STATE) | LOST | (timeout < 0 ? 0 : S(TIMEOUT));
    camlease_frame *frame;
    if (TRY_OUT(w, CAMERA, or_bad(bad, allowed), frame, camlease_camera_next_frame(camera, timeout, &frame)))
        return;
    atomic_fetch_add(&made[FRAME], 1);
    struct own own = { .frame = frame, .data = CAMLEASE_FRAME_DATA_INIT };
    TRY(w, FRAME, S(OK), camlease_frame_info(frame, &own.data));
    uint64_t number[2];
    memcpy(number, own.data.data, sizeof number);
    MUST(p, number[0] == own.data.sequence && number[1] == (uint64_t)own.data.timestamp_ns, "another frame's bytes");
    own.sum = sum_of(&own.data);
    if (w->owns < OWN_MOST && chance(p, 50))
        w->own[w->owns++] = own;
    else
        share(w, FRAME, frame);
}

/* Frames that no other thread knows of: all is certain. */
static void op_own_frame(struct worker *w)
{
    struct player *p = &w->player;
    if (!w->owns)
        return;
    int which = (int)dice(p, (uint32_t)w->owns);
    struct own *own = &w->own[which];
    MUST(p, sum_of(&own->data) == own->sum, "a frame's bytes changed");
    struct camlease_frame_data again = CAMLEASE_FRAME_DATA_INIT;
    TRY(w, FRAME, S(OK), camlease_frame_info(own->frame, &again));
    MUST(p, again.data == own->data.data && again.sequence == own->data.sequence);
    if (chance(p, 50)) {
        camlease_frame *frame = own->frame;
        *own = w->own[--w->owns];
        end(w, FRAME, frame, S(OK));
        TRY(w, FRAME, HANDLE, camlease_frame_release(frame));
    }
}

static void op_look(struct worker *w)
{
    struct player *p = &w->player;
    uint32_t bad;
    camlease_camera *camera = pick(w, CAMERA, &bad);
    struct camlease_camera_info info = CAMLEASE_CAMERA_INFO_INIT;
    struct camlease_camera_stats stats = CAMLEASE_CAMERA_STATS_INIT;
    int32_t fd;
    int64_t value;
    switch (dice(p, 5)) {
    case 0:
        TRY(w, CAMERA, or_bad(bad, S(OK)), camlease_camera_info(camera, &info));
        break;
    case 1:
        if (!TRY(w, CAMERA, or_bad(bad, S(OK)), camlease_camera_stats(camera, &stats)))
            MUST(p, stats.frames_out < 1000000 && stats.frames >= stats.frames_out && stats.open_attempts);
        break;
    case 2:
        TRY(w, CAMERA, or_bad(bad, S(OK) | LOST), camlease_camera_fd(camera, &fd));
        break;
    case 3:
        if (!TRY(w, CAMERA, or_bad(bad, S(OK) | LOST), camlease_camera_get_control(camera, BRIGHTNESS, &value)))
            MUST(p, value >= 0 && value <= 255);
        break;
    default:
        TRY(w, CAMERA, or_bad(bad, S(OK) | LOST), camlease_camera_set_control(camera, BRIGHTNESS, dice(p, 256)));
    }
}

static void op_frame(struct worker *w)
{
    uint32_t bad;
    camlease_frame *frame = pick(w, FRAME, &bad);
    static _Thread_local struct filled f;
    if (chance(&w->player, 50)) {
        prepare(&w->player, &f, sizeof(struct camlease_frame_data));
        atomic_store(&w->at, "camlease_frame_info");
        /* with a bad size and a bad handle either may be told */
        size_t before = f.struct_size;
        uint32_t allowed = bad ? bad | (f.allowed & ~S(OK)) : f.allowed | HANDLE;
        camlease_status status = CALL(&w->player, FRAME, allowed, camlease_frame_info(frame, place(&f)));
        look(&w->player, "camlease_frame_info", &f, before, status == CAMLEASE_OK);
    } else {
        end(w, FRAME, frame, bad);
    }
}

static void op_list(struct worker *w)
{
    struct player *p = &w->player;
    enum kind kind = (enum kind)(DEVICES + dice(p, 4));
    uint32_t bad;
    void *list;
    uint32_t way = dice(p, 100);
    if (way < 20) {
        void *camera = pick(w, CAMERA, &bad);
        uint32_t allowed = or_bad(bad, S(OK) | LOST);
        if (kind == FORMATS)
            TRY_OUT(w, kind, allowed, list, camlease_format_list_new(camera, (camlease_format_list **)&list));
        else if (kind == CONTROLS)
            TRY_OUT(w, kind, allowed, list, camlease_control_list_new(camera, (camlease_control_list **)&list));
        else if (!chance(p, 3))
            return; /* they read all of /proc */
        else if (kind == DEVICES)
            TRY_OUT(w, kind, S(OK), list, camlease_device_list_new((camlease_device_list **)&list));
        else
            TRY_OUT(w, kind, S(OK), list,
                    camlease_holder_list_new(names[dice(p, NAMES)], (camlease_holder_list **)&list));
        if (list) {
            atomic_fetch_add(&made[kind], 1);
            share(w, kind, list);
        }
    } else if (way < 50) {
        list = pick(w, kind, &bad);
        size_t length = table[kind].len(list);
        p->calls++;
        MUST(p, length < 100000 && (!bad || length == 0), "%zu", length);
    } else if (way < 85) {
        static _Thread_local struct filled f;
        memset(&f, 0, sizeof f);
        f.struct_size = table[kind].size;
        list = pick(w, kind, &bad);
        TRY(w, kind, or_bad(bad, S(OK) | ARGUMENT), table[kind].get(list, dice(p, 7), f.bytes));
    } else {
        list = pick(w, kind, &bad);
        end(w, kind, list, bad);
    }
}

static void op_cancel(struct worker *w)
{
    uint32_t bad;
    camlease_cancel *cancel;
    switch (dice(&w->player, 3)) {
    case 0:
        if (!TRY_OUT(w, CANCEL, S(OK), cancel, camlease_cancel_new(&cancel))) {
            atomic_fetch_add(&made[CANCEL], 1);
            share(w, CANCEL, cancel);
        }
        break;
    case 1:
        cancel = pick(w, CANCEL, &bad);
        TRY(w, CANCEL, or_bad(bad, S(OK)), camlease_cancel_signal(cancel));
        break;
    default:
        cancel = pick(w, CANCEL, &bad);
        end(w, CANCEL, cancel, bad);
    }
}

static void op_close(struct worker *w)
{
    uint32_t bad;
    if (chance(&w->player, 5)) {
        camlease_camera *camera = pick(w, CAMERA, &bad);
        end(w, CAMERA, camera, bad);
    }
}

#ifdef FORKS
/* A child has this one thread; what the others were doing when it was made must not hold it up. */
static void in_child(struct worker *w)
{
    struct player *p = &w->player;
    bool last = atomic_load(&shutting_down);
    alarm(100);
    p->number += 100;
    for (int kind = 0; kind < KINDS; kind++)
        for (int i = 0; i < SLOTS; i++) {
            void *handle = atomic_load(&slots[kind][i]);
            CALL(p, (enum kind)kind, handle ? S(FORKED) | HANDLE : HANDLE, table[kind].end(handle));
        }
    for (int i = 0; i < w->owns; i++) {
        CALL(p, FRAME, S(FORKED), camlease_frame_release(w->own[i].frame));
        MUST(p, sum_of(&w->own[i].data) == w->own[i].sum, "a child reads another frame");
    }
    char uri[128];
    snprintf(uri, sizeof uri, "virtual:child-%d?width=16&height=8&fps=1000", (int)getpid());
    camlease_camera *camera;
    camlease_frame *frame;
    struct camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
    CALL_OUT(p, CAMERA, S(OK) | (last ? S(SHUT_DOWN) : 0), camera, camlease_camera_open(uri, NULL, &camera));
    if (camera) {
        CALL(p, CAMERA, S(OK), camlease_camera_start(camera, NULL));
        CALL_OUT(p, CAMERA, S(OK), frame, camlease_camera_next_frame(camera, 60000, &frame));
        CALL(p, FRAME, S(OK), camlease_frame_info(frame, &data));
        MUST(p, data.data[0] == (uint8_t)data.sequence);
        CALL(p, FRAME, S(OK), camlease_frame_release(frame));
        if (chance(p, 50))
            CALL(p, CAMERA, S(OK), camlease_camera_close(camera));
    }
    if (chance(p, 50))
        _exit(0);
    exit(0);
}

static void op_fork(struct worker *w)
{
    atomic_store(&w->at, "fork");
    pid_t child = fork();
    if (child == 0)
        in_child(w);
    MUST(&w->player, child > 0);
    atomic_store(&w->at, "waitpid of a child");
    see_child_off(&w->player, child);
    w->children++;
}
#endif

static void *work(void *argument)
{
    struct worker *w = argument;
    struct player *p = &w->player;
    static const struct {
        void (*op)(struct worker *);
        uint32_t weight;
    } ops[] = {
        { op_open, 40 },      { op_close, 40 }, { op_start, 70 }, { op_stop, 30 },   { op_next_frame, 300 },
        { op_own_frame, 150 }, { op_look, 200 }, { op_frame, 150 }, { op_list, 120 }, { op_cancel, 60 },
        { op_regain, 20 },    { op_reset, 10 }, { op_evict, 10 },
    };
    uint32_t sum = 0;
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        sum += ops[i].weight;
    p->calls = p->refused = 0;
    MUST(p, !camlease_last_error_message()[0], "a new thread has no failure yet");
#ifdef FORKS
    uint64_t next_fork = w->calls / 8;
#endif
    while (p->calls < w->calls) {
        uint32_t at = dice(p, sum);
        size_t which = 0;
        for (; at >= ops[which].weight; which++)
            at -= ops[which].weight;
        ops[which].op(w);
        atomic_store(&w->progress, p->calls);
#ifdef FORKS
        if (p->calls >= next_fork) {
            next_fork += w->calls / 8 + 1;
            op_fork(w);
        }
#endif
    }
    while (w->owns)
        end(w, FRAME, w->own[--w->owns].frame, S(OK));
    atomic_fetch_sub(&running, 1);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    uint64_t seed = strtoull(argv[1], NULL, 0), calls = strtoull(argv[2], NULL, 0);
    unsigned threads = (unsigned)strtoul(argv[3], NULL, 0);
    struct worker *workers = calloc(threads + 1, sizeof *workers);
    struct worker *self = &workers[threads];
    self->player = (struct player){ .state = ~seed, .seed = seed, .number = threads };
    for (int i = 0; i < NAMES; i++)
        snprintf(names[i], sizeof names[i], "virtual:threads-%d-%d?width=32&height=16&fps=1000", (int)getpid(), i);
    struct sigaction action = { .sa_handler = take_signal, .sa_flags = SA_RESTART };
    sigaction(SIGUSR1, &action, NULL);
    uint64_t sent = 0;
    camlease_set_shutdown_timeout(20000); /* as long as a busy machine may need where nothing hangs */
    descriptors();
    int first = descriptors();
    int64_t begun = now_ns();
    uint64_t total = 0, refused = 0, children = 0;
    for (unsigned round = 0; round < ROUNDS; round++) {
        atomic_store(&running, (int)threads);
        for (unsigned i = 0; i < threads; i++) {
            struct worker *w = &workers[i];
            w->player = (struct player){ .state = seed * 1000003 + round * 1009 + i, .seed = seed, .number = i };
            w->calls = calls / threads / ROUNDS;
            atomic_store(&w->progress, 0); /* the last round's is no part of this one's */
            if (pthread_create(&w->thread, NULL, work, w))
                return 3;
        }
        int64_t moved = now_ns();
        uint64_t before = 0;
        while (atomic_load(&running) > 0) {
            struct timespec pause = { 0, 20000000 };
            nanosleep(&pause, NULL); /* the pace at which cameras are taken away */
            void *camera = atomic_exchange(&slots[CAMERA][dice(&self->player, SLOTS)], NULL);
            if (camera)
                end(self, CAMERA, camera, 0);
            uint64_t now = 0;
            for (unsigned i = 0; i < threads; i++)
                now += atomic_load(&workers[i].progress);
            if (now != before) {
                before = now;
                moved = now_ns();
            }
            if (round > 0 && !atomic_load(&shutting_down) && chance(&self->player, 10)) {
                /* whichever thread it finds, in whatever it does */
                atomic_store(&signalled, true);
                TRY(self, FRAME, S(OK), camlease_release_on_signals(chance(&self->player, 90) ? CAMLEASE_SIGNAL_USR1 : 0));
                uint64_t seen = atomic_load(&signals_seen);
                kill(getpid(), SIGUSR1);
                sent++;
                for (int64_t until = now_ns() + STUCK_NS; atomic_load(&signals_seen) == seen;) {
                    MUST(&self->player, now_ns() < until, "the host's handler was not called");
                    usleep(100);
                }
            }
            if (now_ns() - moved > STUCK_NS) {
                for (unsigned i = 0; i < threads; i++)
                    fprintf(stderr, "thread %u is in %s\n", i, atomic_load(&workers[i].at));
                wrong(&self->player, "nobody got on for a minute");
            }
            if (round == ROUNDS - 1 && now > calls / ROUNDS / 2 && !atomic_load(&shutting_down)) {
                atomic_store(&shutting_down, true);
                TRY(self, CAMERA, S(OK), camlease_shutdown());
            }
        }
        for (unsigned i = 0; i < threads; i++) {
            pthread_join(workers[i].thread, NULL);
            total += workers[i].player.calls;
            refused += workers[i].player.refused;
            children += workers[i].children;
            workers[i].children = 0;
        }
    }
    if (!atomic_load(&shutting_down)) { /* this thread did not run in the second half of the last round */
        atomic_store(&shutting_down, true);
        TRY(self, CAMERA, S(OK), camlease_shutdown());
    }
    int64_t patience = now_ns() + STUCK_NS;
    for (int kind = 0; kind < KINDS; kind++) {
        for (int i = 0; i < SLOTS; i++) {
            void *handle = atomic_load(&slots[kind][i]);
            if (handle)
                end(self, (enum kind)kind, handle, 0);
        }
        /* A callback may be about to count what it has closed. */
        while (atomic_load(&made[kind]) != atomic_load(&ended[kind]) && now_ns() < patience)
            usleep(1000);
        MUST(&self->player, made[kind] == ended[kind], "of kind %d %" PRIu64 " were made and %" PRIu64 " ended", kind,
             made[kind], ended[kind]);
    }
    int left = descriptors();
    for (; left != first && now_ns() < patience; left = descriptors())
        usleep(1000); /* what a callback has closed is closed by its thread */
    MUST(&self->player, signals_seen == sent, "%" PRIu64 " signals were seen of %" PRIu64, signals_seen, sent);
    printf("handles_threads: %" PRIu64 " calls by %u threads, %" PRIu64 " refused, %" PRIu64 " cameras, %" PRIu64
           " asks, %" PRIu64 " regained, %" PRIu64 " frames, %" PRIu64 " children, %" PRIu64 " signals, seed %" PRIu64
           ", %.1f s\n",
           total, threads, refused, made[CAMERA], asked, regained, made[FRAME], children, sent, seed, (double)(now_ns() - begun) / 1e9);
    MUST(&self->player, left == first, "%d descriptors are left, not %d", left, first);
    free(workers);
    return 0;
}
