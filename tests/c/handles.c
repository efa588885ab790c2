/* Random calls of the whole interface with valid, released, foreign, made-up and NULL handles, by one thread. A model of
 * what is held knows what each call has to give. Children made by fork, _Fork and clone look at what they inherited.
 *
 * handles SEED CALLS FOLDER
 *   FOLDER: has video.y4m, 16x8, 5 frames
 *
 * build: -fsanitize=address,undefined -fno-sanitize-recover=undefined
 * build: -DPLAIN
 */
#include "handles.h"

#include <poll.h>
#include <stdatomic.h>

#define BRIGHTNESS 0x00980900u
#define LIVE_MOST 64
#define STALE_MOST 4096

/* What a camera is asked for, and so what it does. Virtual ones have their name to themselves. */
enum manner { PLAIN_FRAMES, STALLS, CORRUPTS, UNPLUGS, LOOPS, ENDS };
struct source {
    char uri[256];
    char name[96]; /* of a virtual camera; "" for a file */
    enum manner manner;
    int64_t brightness;
    uint32_t last_exit; /* what the next to get it is told of its last holder */
};
#define SOURCES 10
#define UNPLUGGED_FROM 6 /* sources before are virtual cameras that stay there */

struct thing {
    void *handle;
    /* a camera */
    uint64_t id;
    int source;
    bool streaming, over;
    uint32_t ended; /* what calls give since it was handed over, or released on a signal; 0 before */
    int32_t priority;
    char name[32];
    uint32_t last_exit, regained;
    struct ear *ear;
    int32_t fd; /* 0 until it was asked for */
    uint32_t width, height, fourcc, buffers, rounds;
    uint32_t held, out; /* frames of this round with us, and of all rounds */
    uint64_t frames, corrupt, dropped, bytes_out, sequence;
    bool has_sequence;
    /* a frame */
    uint64_t camera;
    uint32_t round;
    struct camlease_frame_data data;
    uint64_t sum;
    /* a list */
    size_t length;
    uint64_t unreadable;
    /* a cancel */
    bool signalled;
};

static struct game {
    struct player player;
    struct thing live[KINDS][LIVE_MOST];
    int count[KINDS];
    void *stale[KINDS][STALE_MOST];
    uint64_t stales[KINDS];
    struct source sources[SOURCES];
    uint64_t next_id;
    uint64_t forks;
    bool shut_down;
    int first_descriptors;
    char prefix[64];
    uint32_t signals; /* those that cameras are released on */
    uint64_t asks, handed_over, evictions, releases;
} game;
#define P (&game.player)

static uint64_t logged;
static void take_log(void *user_data, uint32_t level, const char *message)
{
    (void)user_data;
    if (level < CAMLEASE_LOG_ERROR || level > CAMLEASE_LOG_DEBUG || !message)
        abort();
    __atomic_fetch_add(&logged, 1, __ATOMIC_RELAXED);
}

static _Atomic uint64_t signals_seen; /* by the host's own handler */
static void take_signal(int number)
{
    (void)number;
    atomic_fetch_add(&signals_seen, 1);
}

/* ---- those who ask ---- */

/* An ask is known by its name, also to a callback that comes late. */
#define ASKS 4096
static struct asking {
    char name[32];
    int32_t priority;
    uint32_t grace;
    bool must, child;
    atomic_bool over; /* the one who asked has left */
} askings[ASKS];

/* What a camera's on_ask does, in a thread of the library's, while this one asks. */
enum answer { BY_PRIORITY, YIELDS, ODD, LOOKS, OPENS, CLOSES, ANSWERS };
struct ear {
    camlease_camera *camera;
    int source;
    enum answer answer;
    bool used;
    _Atomic bool closed;
    atomic_int inside;
    struct player player;
};
#define EARS 32
static struct ear ears[EARS];

static uint32_t hear(void *user_data, const camlease_asker *asker)
{
    struct ear *ear = user_data;
    struct player *p = &ear->player;
    atomic_fetch_add(&ear->inside, 1);
    unsigned serial = ASKS;
    sscanf(asker->name, "ask %u", &serial);
    MUST(p, serial < ASKS, "an asker is called %s", asker->name);
    struct asking *asking = &askings[serial];
    MUST(p, strcmp(asker->name, asking->name) == 0 && asker->struct_size == sizeof *asker);
    MUST(p, asking->child != (asker->pid == getpid()) && asker->pid > 0 && asker->uid == geteuid());
    MUST(p, asker->priority == asking->priority && asker->must == asking->must, "%d", asker->priority);
    MUST(p, asker->grace_ms <= asking->grace, "%" PRIu64 " ms, not %u", asker->grace_ms, asking->grace);
    uint32_t answer = CAMLEASE_ANSWER_BY_PRIORITY;
    /* Once the asker has left, anything may have become of the camera: whether it has is asked after the call. */
#define HEARD(set, call)                                                                                               \
    __extension__({                                                                                                    \
        mark(p, CAMERA);                                                                                               \
        camlease_status heard_ = (call);                                                                               \
        judge(p, #call, heard_, (set) | (atomic_load(&asking->over) ? ~0u : 0));                                       \
    })
    switch (ear->answer) {
    case YIELDS:
        answer = CAMLEASE_ANSWER_YIELD;
        break;
    case ODD:
        answer = 2 + (uint32_t)(roll(p) >> 33);
        break;
    case LOOKS: {
        struct camlease_camera_info info = CAMLEASE_CAMERA_INFO_INIT;
        struct camlease_camera_stats stats = CAMLEASE_CAMERA_STATS_INIT;
        int32_t fd;
        int64_t value;
        HEARD(S(OK), camlease_camera_info(ear->camera, &info));
        HEARD(S(OK), camlease_camera_stats(ear->camera, &stats));
        HEARD(S(OK), camlease_camera_fd(ear->camera, &fd));
        HEARD(S(OK), camlease_camera_get_control(ear->camera, BRIGHTNESS, &value));
        HEARD(S(WRONG_STATE), camlease_camera_regain(ear->camera, 0));
        HEARD(S(UNSUPPORTED), camlease_camera_reset(ear->camera, NULL));
        break;
    }
    case OPENS: {
        char uri[128];
        camlease_camera *camera;
        camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
        options.timeout_ms = 0;
        /* its own: another camera's callback may be at it still, when the one who asked there has left */
        snprintf(uri, sizeof uri, "virtual:%s-heard-%u?width=16&height=8&fps=1000", game.prefix, serial);
        if (!HEARD(S(OK), camlease_camera_open(uri, &options, &camera))) {
            HEARD(S(OK), camlease_camera_start(camera, NULL));
            HEARD(S(OK), camlease_camera_close(camera));
        }
        break;
    }
    case CLOSES:
        HEARD(S(OK), camlease_camera_close(ear->camera));
        HEARD(HANDLE, camlease_camera_close(ear->camera));
        atomic_store(&ear->closed, true);
        answer = dice(p, 2);
        break;
    default:
        break;
    }
    atomic_fetch_sub(&ear->inside, 1);
    return answer;
}

static struct ear *new_ear(int source)
{
    for (int i = 0; i < EARS; i++)
        if (!ears[i].used && !atomic_load(&ears[i].inside)) {
            ears[i].source = source;
            ears[i].answer = (enum answer)dice(P, ANSWERS);
            ears[i].closed = false;
            return &ears[i];
        }
    wrong(P, "callbacks do not return");
}

/* ---- picking handles ---- */

static bool is_live(enum kind kind, const void *handle)
{
    for (int i = 0; i < game.count[kind]; i++)
        if (game.live[kind][i].handle == handle)
            return true;
    return false;
}

/* A handle for a call that takes `kind`; *thing is NULL where it is not a valid one. */
static void *pick(enum kind kind, struct thing **thing)
{
    uint32_t way = dice(P, 100);
    *thing = NULL;
    if (way < 72 && game.count[kind]) {
        *thing = &game.live[kind][dice(P, (uint32_t)game.count[kind])];
        return (*thing)->handle;
    }
    if (way < 84 && game.stales[kind]) {
        uint64_t known = game.stales[kind] < STALE_MOST ? game.stales[kind] : STALE_MOST;
        return game.stale[kind][dice(P, (uint32_t)known)];
    }
    enum kind other = (enum kind)dice(P, KINDS);
    void *real = game.count[other] ? game.live[other][dice(P, (uint32_t)game.count[other])].handle : NULL;
    if (way < 92 && other != kind)
        return real;
    if (way < 97) {
        void *handle = made_up(P, real);
        if (!is_live(kind, handle))
            return handle;
    }
    return NULL;
}

static struct thing *enter(enum kind kind, void *handle)
{
    MUST(P, game.count[kind] < LIVE_MOST);
    struct thing *thing = &game.live[kind][game.count[kind]++];
    memset(thing, 0, sizeof *thing);
    thing->handle = handle;
    thing->id = ++game.next_id;
    for (int k = 0; k < KINDS; k++) /* a handle is one thing, and none that was released */
        for (int i = 0; i < game.count[k]; i++)
            MUST(P, &game.live[k][i] == thing || game.live[k][i].handle != handle, "a handle was given twice");
    uint64_t known = game.stales[kind] < STALE_MOST ? game.stales[kind] : STALE_MOST;
    for (uint64_t i = 0; i < known; i++)
        MUST(P, game.stale[kind][i] != handle, "a released handle came again");
    return thing;
}

static void leave(enum kind kind, struct thing *thing)
{
    uint64_t at = game.stales[kind]++;
    if (at >= STALE_MOST) /* old ones stay in: they are invalid for ever */
        at = dice(P, STALE_MOST);
    game.stale[kind][at] = thing->handle;
    if (thing->ear)
        thing->ear->used = false;
    *thing = game.live[kind][--game.count[kind]];
}

static struct thing *camera_by_id(uint64_t id)
{
    for (int i = 0; i < game.count[CAMERA]; i++)
        if (game.live[CAMERA][i].id == id)
            return &game.live[CAMERA][i];
    return NULL;
}

static struct thing *holder_of(int source)
{
    for (int i = 0; i < game.count[CAMERA]; i++)
        if (game.live[CAMERA][i].source == source && !game.live[CAMERA][i].ended)
            return &game.live[CAMERA][i];
    return NULL;
}

/* For a call that needs no more than a camera that may be used. */
static uint32_t usable(const struct thing *thing, uint32_t otherwise)
{
    /* what was released on a signal was not open any more when the library was shut down */
    return !thing                        ? HANDLE :
           thing->ended == S(CLOSED)     ? S(CLOSED) :
           game.shut_down                ? S(SHUT_DOWN) :
           thing->ended                  ? thing->ended :
                                           otherwise;
}

/* ---- cameras ---- */

static uint64_t sum_of(const struct camlease_frame_data *data)
{
    uint64_t sum = 0xcbf29ce484222325u;
    size_t step = data->size / 512 + 1;
    for (size_t at = 0; at < data->size; at += step)
        sum = (sum ^ data->data[at]) * 0x100000001b3u;
    return sum;
}

static const struct {
    const char *uri;
    uint32_t allowed;
} no_cameras[] = {
    { "", ARGUMENT },
    { "video0", ARGUMENT },
    { "v4l2:", ARGUMENT },
    { "usb:xyz", ARGUMENT },
    { "virtual:", ARGUMENT },
    { "virtual:a b", ARGUMENT },
    { "virtual:a?fps=0", ARGUMENT },
    { "virtual:a?colour=red", ARGUMENT },
    { "virtual:\xff\xfe", ARGUMENT },
    { "file:", ARGUMENT },
    { "ftp:x", ARGUMENT },
    { "/etc/passwd", ARGUMENT },
    { "realsense:", S(UNSUPPORTED) },
    { "libcamera:1", S(UNSUPPORTED) },
    { "shared:x", S(NOT_FOUND) },
    { "/dev/null", S(UNSUPPORTED) },
    { "file:/dev/null", S(UNSUPPORTED) },
    { "/dev/no-such-node", S(NOT_FOUND) },
    { "v4l2:/dev/v4l/by-id/none", S(NOT_FOUND) },
    { "usb:dead:beef:1", S(NOT_FOUND) },
    { "file:/no/such/file.y4m", S(NOT_FOUND) },
};

static void open_no_camera(void)
{
    uint32_t which = dice(P, sizeof no_cameras / sizeof no_cameras[0] + 1);
    const char *uri = NULL;
    uint32_t allowed = ARGUMENT;
    if (which > 0) {
        uri = no_cameras[which - 1].uri;
        allowed = no_cameras[which - 1].allowed;
    }
    if (game.shut_down)
        allowed |= S(SHUT_DOWN);
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    options.timeout_ms = 0;
    camlease_camera *camera;
    CALL_OUT(P, CAMERA, allowed, camera, camlease_camera_open(uri, &options, &camera));
    if (uri && allowed == S(NOT_FOUND))
        MUST(P, strstr(camlease_last_error_message(), strchr(uri, '/') ? strchr(uri, '/') : uri[0] == 'u' ? "dead" : uri),
             "no name: %s", camlease_last_error_message());
}

/* Near each other most of the time. */
static int32_t some_priority(void)
{
    return chance(P, 80) ? (int32_t)dice(P, 5) - 2 : (int32_t)roll(P);
}

static struct asking *new_asking(const camlease_open_options *options, const struct thing *holder, bool child)
{
    unsigned serial = (unsigned)(game.asks++ % ASKS);
    struct asking *asking = &askings[serial];
    snprintf(asking->name, sizeof asking->name, "ask %u", serial);
    asking->priority = options->priority;
    asking->grace = options->grace_ms ? (uint32_t)options->grace_ms : 500;
    asking->must = options->on_busy == CAMLEASE_ON_BUSY_EVICT || options->priority > holder->priority;
    asking->child = child;
    atomic_store(&asking->over, false);
    return asking;
}

/* Whether one who asks gets this camera: by priority, or because its host says so or closes it. */
static bool is_lost(const struct thing *holder, const camlease_open_options *options)
{
    return options->on_busy == CAMLEASE_ON_BUSY_EVICT || options->priority > holder->priority ||
           (holder->ear && (holder->ear->answer == YIELDS || holder->ear->answer == CLOSES));
}

/* A camera of ours is another's now. */
static void lose(struct thing *holder, pid_t who)
{
    game.handed_over++;
    struct ear *ear = holder->ear;
    for (int64_t until = now_ns() + INT64_C(20000000000); ear && atomic_load(&ear->inside);) {
        MUST(P, now_ns() < until, "a callback does not return");
        usleep(100);
    }
    if (ear && ear->answer == CLOSES) {
        MUST(P, atomic_load(&ear->closed));
        leave(CAMERA, holder);
        return;
    }
    holder->ended = S(EVICTED);
    holder->streaming = false;
    CALL(P, CAMERA, S(EVICTED), camlease_camera_stop(holder->handle));
    char pid[32];
    snprintf(pid, sizeof pid, "(pid %d)", (int)who);
    MUST(P, strstr(camlease_last_error_message(), pid), "who has it? %s", camlease_last_error_message());
    struct pollfd look = { .fd = holder->fd, .events = POLLIN };
    MUST(P, !holder->fd || poll(&look, 1, 0) == 1, "a descriptor does not tell that the camera is lost");
}

/* The message of a BUSY. */
static void names_holder(const struct source *s)
{
    char pid[32];
    snprintf(pid, sizeof pid, "pid %d", (int)getpid());
    MUST(P, strstr(camlease_last_error_message(), pid) && strstr(camlease_last_error_message(), s->name),
         "who has it? %s", camlease_last_error_message());
}

static void open_one(int source)
{
    struct source *s = &game.sources[source];
    struct thing *holder = s->name[0] ? holder_of(source) : NULL;
    bool busy = holder;
    uint32_t allowed = game.count[CAMERA] >= 8 ? 0 : S(OK);
    if (!allowed)
        return;
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    options.timeout_ms = busy && chance(P, 30) ? 1 + (int32_t)dice(P, 3) : 0;
    options.name = chance(P, 50) ? "a tester" : NULL;
    options.priority = some_priority();
    options.flags = (chance(P, 20) ? CAMLEASE_OPEN_WAIT_FOR_DEVICE : 0) |
                    (chance(P, 20) ? CAMLEASE_OPEN_RESET_AFTER_DIRTY_EXIT : 0);
    options.on_busy = chance(P, 40) ? CAMLEASE_ON_BUSY_WAIT : chance(P, 60) ? CAMLEASE_ON_BUSY_ASK : CAMLEASE_ON_BUSY_EVICT;
    options.grace_ms = chance(P, 95) ? 1 + (int32_t)dice(P, 8) : 0;
    struct ear *ear = NULL;
    if (chance(P, 60)) {
        ear = new_ear(source);
        options.on_ask = hear;
        options.user_data = ear;
    }
    if (busy)
        allowed = S(BUSY);
    if (s->manner == UNPLUGS)
        allowed |= S(NOT_FOUND); /* for a millisecond after it was unplugged */
    struct thing *cancel = NULL;
    bool hasty = false; /* the one who asks may leave before it is answered */
    /* An ask with timeout_ms = 0 is none. */
    bool asks = busy && !game.shut_down && options.on_busy != CAMLEASE_ON_BUSY_WAIT && chance(P, 70);
    bool wins = asks && is_lost(holder, &options);
    if (asks) {
        options.name = new_asking(&options, holder, false)->name;
        hasty = wins && chance(P, 15);
        options.timeout_ms = hasty ? 1 + (int32_t)dice(P, 3) : !wins ? 30 : chance(P, 50) ? -1 : 60000;
        allowed = (allowed & ~S(BUSY)) | (wins ? S(OK) : S(BUSY)) | (hasty ? S(BUSY) : 0);
    } else if (options.on_busy != CAMLEASE_ON_BUSY_WAIT) {
        options.timeout_ms = 0;
    }
    if (chance(P, 20)) {
        options.cancel = pick(CANCEL, &cancel);
        if (options.cancel && !cancel)
            allowed = HANDLE, asks = false;
        else if (cancel && cancel->signalled && busy && !asks && options.on_busy == CAMLEASE_ON_BUSY_WAIT && chance(P, 50)) {
            options.timeout_ms = chance(P, 50) ? -1 : 60000;
            allowed = S(CLOSED) | (allowed & S(NOT_FOUND));
        } else if (cancel && cancel->signalled) {
            allowed |= S(CLOSED);
            hasty = wins;
        }
    }
    if (game.shut_down)
        allowed = S(SHUT_DOWN) | (allowed & HANDLE);
    const camlease_open_options *given = &options;
    bool fault = false;
    static struct { camlease_open_options known; uint8_t more[64]; } newer;
    switch (dice(P, 34)) {
    case 0:
        options.timeout_ms = -2 - (int32_t)dice(P, 1000);
        fault = true;
        break;
    case 1:
        options.grace_ms = -1 - (int32_t)(roll(P) >> 34);
        fault = true;
        break;
    case 2:
        options.on_busy = 3 + (uint32_t)(roll(P) >> 34);
        fault = true;
        break;
    case 3:
        options.flags |= 4u << dice(P, 30);
        fault = true;
        break;
    case 4:
        options.struct_size = dice(P, 2) ? dice(P, 8) : 4097 + roll(P) % 100000;
        fault = true;
        break;
    case 5: /* a later version's struct, with a member that this one does not know */
        memset(&newer, 0, sizeof newer);
        newer.known = options;
        newer.known.struct_size = sizeof newer;
        newer.more[dice(P, 64)] = 1;
        given = &newer.known;
        fault = true;
        break;
    case 6: /* the same, and it is not used */
        memset(&newer, 0, sizeof newer);
        newer.known = options;
        newer.known.struct_size = sizeof newer;
        given = &newer.known;
        break;
    case 7: /* an earlier version's struct, that ends before flags */
        if (!cancel && !options.cancel && !asks) {
            options.struct_size = offsetof(camlease_open_options, flags);
            ear = NULL;
            break;
        }
        break;
    case 8: /* an earlier version's struct, that ends before on_ask; the library's own grace */
        options.struct_size = offsetof(camlease_open_options, on_ask);
        options.grace_ms = 0;
        ear = NULL;
        if (asks)
            askings[(game.asks - 1) % ASKS].grace = 500;
        break;
    case 9:
        options.name = "\xc3\x28"; /* no UTF-8 */
        fault = true;
        break;
    case 10:
        CALL(P, CAMERA, (allowed & ~S(OK)) | ARGUMENT, camlease_camera_open(s->uri, &options, NULL));
        return;
    case 11:
        if (!busy && !cancel && !options.cancel) {
            given = NULL;
            ear = NULL;
        }
        break;
    }
    if (fault) { /* found before anything is done */
        allowed = (allowed & ~S(OK)) | ARGUMENT;
        asks = false;
    }
    int64_t begun = now_ns();
    camlease_camera *camera;
    camlease_status status = CALL_OUT(P, CAMERA, allowed, camera, camlease_camera_open(s->uri, given, &camera));
    if (status && asks && hasty) { /* what became of the ask is known when another one is answered */
        options.timeout_ms = 60000;
        options.cancel = NULL;
        begun = now_ns();
        do
            status = CALL_OUT(P, CAMERA, S(OK) | (allowed & S(NOT_FOUND)), camera,
                              camlease_camera_open(s->uri, &options, &camera));
        while (status);
    }
    if (asks)
        atomic_store(&askings[(game.asks - 1) % ASKS].over, true);
    if (status) {
        if (status == CAMLEASE_BUSY)
            names_holder(s);
        if (busy && !game.shut_down) /* nobody took it away */
            CALL(P, CAMERA, S(OK), camlease_camera_fd(holder->handle, &holder->fd));
        return;
    }
    MUST(P, busy == (asks && wins));
    if (busy) {
        double took = (double)(now_ns() - begun) / 1e6;
        bool whole = !hasty && holder->out && !(holder->ear && holder->ear->answer == CLOSES);
        MUST(P, !whole || took >= (options.grace_ms ? options.grace_ms : 500), "handed over after %.1f ms", took);
        lose(holder, getpid());
    }
    struct thing *thing = enter(CAMERA, camera);
    thing->source = source;
    thing->priority = given ? options.priority : 0;
    snprintf(thing->name, sizeof thing->name, "%s", given && options.name ? options.name : "");
    thing->last_exit = s->last_exit;
    s->last_exit = CAMLEASE_EXIT_CLEAN;
    s->brightness = 128;
    thing->ear = ear;
    if (ear) {
        ear->camera = camera;
        ear->used = true;
    }
}

static void op_open(void)
{
    if (chance(P, 25)) {
        open_no_camera();
        return;
    }
    int source = (int)dice(P, SOURCES);
    if (game.sources[source].name[0] && holder_of(source) && chance(P, 70)) /* busy ones cost a look at all processes */
        return;
    open_one(source);
}

/* One that is busy. */
static void op_open_held(void)
{
    struct thing *thing = game.count[CAMERA] ? &game.live[CAMERA][dice(P, (uint32_t)game.count[CAMERA])] : NULL;
    if (thing && !thing->ended && game.sources[thing->source].name[0])
        open_one(thing->source);
}

static void op_close(void)
{
    struct thing *thing;
    camlease_camera *camera = pick(CAMERA, &thing);
    if (thing && chance(P, 60)) /* cameras live for a while */
        return;
    CALL(P, CAMERA, thing ? S(OK) : HANDLE, camlease_camera_close(camera));
    if (thing)
        leave(CAMERA, thing);
}

static void op_regain(void)
{
    struct thing *thing;
    camlease_camera *camera = pick(CAMERA, &thing);
    struct source *s = thing ? &game.sources[thing->source] : NULL;
    bool evicted = thing && thing->ended == S(EVICTED);
    bool busy = evicted && holder_of(thing->source);
    uint32_t allowed = !evicted || game.shut_down ? usable(thing, S(WRONG_STATE)) : busy ? S(BUSY) : S(OK);
    if (evicted && s->manner == UNPLUGS && !game.shut_down)
        allowed |= S(NOT_FOUND);
    int32_t timeout = 0;
    uint32_t way = dice(P, 100);
    if (busy && way < 70) /* costs a look at all processes */
        return;
    if (way >= 95)
        timeout = -2 - (int32_t)(roll(P) >> 34);
    else if (way >= 60)
        timeout = busy ? 1 + (int32_t)dice(P, 3) : chance(P, 50) ? -1 : 60000;
    if (timeout < -1)
        allowed = thing ? ARGUMENT : HANDLE;
    camlease_status status = CALL(P, CAMERA, allowed, camlease_camera_regain(camera, timeout));
    if (status == CAMLEASE_BUSY)
        names_holder(s);
    if (status)
        return;
    thing->ended = 0;
    thing->over = false;
    thing->regained++;
    thing->last_exit = s->last_exit;
    s->last_exit = CAMLEASE_EXIT_CLEAN;
    s->brightness = 128;
    struct pollfd look = { .fd = thing->fd, .events = POLLIN };
    MUST(P, !thing->fd || poll(&look, 1, 0) == 0, "a regained camera's descriptor is readable");
    CALL(P, CAMERA, S(WRONG_STATE), camlease_camera_regain(camera, timeout));
}

/* Nobody but this process has a camera here, and it does not remove itself. */
static void op_evict(void)
{
    camlease_evict_options options = CAMLEASE_EVICT_OPTIONS_INIT;
    camlease_holder_list *list;
    struct thing *cancel = NULL;
    int source = (int)dice(P, SOURCES);
    struct source *s = &game.sources[source];
    struct thing *holder = s->name[0] ? holder_of(source) : NULL;
    const char *uri = s->uri;
    uint32_t allowed = S(OK) | (s->manner == UNPLUGS ? S(NOT_FOUND) : 0);
    if (chance(P, 20)) {
        uint32_t which = dice(P, sizeof no_cameras / sizeof no_cameras[0] + 1);
        uri = which ? no_cameras[which - 1].uri : NULL;
        allowed = which ? no_cameras[which - 1].allowed : ARGUMENT;
    }
    options.flags = dice(P, 2);
    options.grace_ms = (int32_t)dice(P, 5);
    options.name = chance(P, 50) ? "an evictor" : NULL;
    bool certain = uri == s->uri;
    if (game.shut_down)
        allowed = S(SHUT_DOWN) | (uri == s->uri ? 0 : allowed & ~S(OK));
    if (chance(P, 20)) {
        options.cancel = pick(CANCEL, &cancel); /* a signalled one does not matter: there is nothing to wait for */
        if (options.cancel && !cancel)
            allowed = (allowed & ~S(OK)) | HANDLE;
    }
    const camlease_evict_options *given = chance(P, 10) && !options.cancel ? NULL : &options;
    if (given)
        switch (dice(P, 24)) {
        case 0:
            options.flags |= 2u << dice(P, 31);
            allowed = (allowed & ~S(OK)) | ARGUMENT;
            break;
        case 1:
            options.grace_ms = -1 - (int32_t)(roll(P) >> 34);
            allowed = (allowed & ~S(OK)) | ARGUMENT;
            break;
        case 2:
            options.struct_size = dice(P, 2) ? dice(P, 8) : 4097 + roll(P) % 100000;
            allowed = (allowed & ~S(OK)) | ARGUMENT;
            break;
        case 3:
            options.name = "\xc3\x28"; /* no UTF-8 */
            allowed = (allowed & ~S(OK)) | ARGUMENT;
            break;
        case 4:
            CALL(P, HOLDERS, (allowed & ~S(OK)) | ARGUMENT, camlease_evict(uri, &options, NULL));
            return;
        }
    if (game.count[HOLDERS] >= LIVE_MOST || CALL_OUT(P, HOLDERS, allowed, list, camlease_evict(uri, given, &list)))
        return;
    MUST(P, certain);
    game.evictions++;
    struct thing *thing = enter(HOLDERS, list);
    thing->length = camlease_holder_list_len(list);
    thing->unreadable = camlease_holder_list_unreadable(list);
    MUST(P, thing->length == (holder ? 1 : 0), "%zu holders of %s", thing->length, uri);
    if (holder) {
        struct camlease_holder found = CAMLEASE_HOLDER_INIT;
        CALL(P, HOLDERS, S(OK), camlease_holder_list_get(list, 0, &found));
        MUST(P, found.pid == getpid() && found.outcome == CAMLEASE_OUTCOME_REFUSED, "outcome %u", found.outcome);
        MUST(P, strstr(found.reason, "this process itself"), "%s", found.reason);
        MUST(P, strcmp(found.name, holder->name) == 0 && found.priority == holder->priority, "%s", found.name);
        CALL(P, CAMERA, S(OK), camlease_camera_fd(holder->handle, &holder->fd)); /* it has it still */
    }
}

/* Every camera is released before the host's own handler runs. */
static void op_signals(void)
{
    if (chance(P, 50)) {
        uint32_t set = chance(P, 80) ? CAMLEASE_SIGNAL_USR1 | dice(P, 512) : chance(P, 50) ? 0 : (uint32_t)roll(P);
        uint32_t allowed = set && game.shut_down ? S(SHUT_DOWN) : S(OK);
        if (set >> 9)
            allowed = (allowed & ~S(OK)) | ARGUMENT;
        if (!CALL(P, FRAME, allowed, camlease_release_on_signals(set)))
            game.signals = set;
        return;
    }
    int number = chance(P, 80) ? SIGUSR1 : SIGUSR2;
    bool released = game.signals & (number == SIGUSR1 ? CAMLEASE_SIGNAL_USR1 : CAMLEASE_SIGNAL_USR2);
    uint64_t seen = atomic_load(&signals_seen);
    P->calls++;
    raise(number);
    /* On a busy machine the handler comes when the release is over. */
    for (int64_t until = now_ns() + INT64_C(20000000000); atomic_load(&signals_seen) == seen;) {
        MUST(P, now_ns() < until, "the host's handler was not called");
        usleep(100);
    }
    MUST(P, atomic_load(&signals_seen) == seen + 1, "the host's handler was called twice");
    if (!released || game.shut_down)
        return;
    game.releases++;
    for (int i = 0; i < game.count[CAMERA]; i++) {
        struct thing *camera = &game.live[CAMERA][i];
        if (camera->ended == S(CLOSED)) /* by an earlier one */
            continue;
        camera->ended = S(CLOSED);
        camera->streaming = false;
        CALL(P, CAMERA, S(CLOSED), camlease_camera_stop(camera->handle));
        MUST(P, strstr(camlease_last_error_message(), number == SIGUSR1 ? "SIGUSR1" : "SIGUSR2"), "%s",
             camlease_last_error_message());
    }
}

static void op_start(void)
{
    static const uint32_t codes[] = {
        CAMLEASE_FOURCC('Y', 'U', 'Y', 'V'), CAMLEASE_FOURCC('U', 'Y', 'V', 'Y'), CAMLEASE_FOURCC('N', 'V', '1', '2'),
        CAMLEASE_FOURCC('G', 'R', 'E', 'Y'), CAMLEASE_FOURCC('R', 'G', 'B', '3'), CAMLEASE_FOURCC('B', 'G', 'R', '3'),
    };
    struct thing *thing;
    camlease_camera *camera = pick(CAMERA, &thing);
    bool virtual = thing && game.sources[thing->source].name[0];
    camlease_stream_options options = CAMLEASE_STREAM_OPTIONS_INIT;
    uint32_t allowed = usable(thing, thing && thing->streaming ? S(WRONG_STATE) : S(OK));
    if (thing && thing->over && allowed == S(OK))
        allowed |= S(DISCONNECTED);
    options.buffers = dice(P, 6);
    options.drop_policy = dice(P, 2);
    if (virtual && chance(P, 50)) {
        options.fourcc = codes[dice(P, 6)];
        options.width = 8 + dice(P, 60);
        options.height = 8 + dice(P, 40);
    }
    if (chance(P, 30)) {
        options.fps_numerator = 500 + dice(P, 5000);
        options.fps_denominator = 1;
    }
    uint32_t fault = 0;
    static struct { camlease_stream_options known; uint8_t more[8]; } newer;
    const camlease_stream_options *given = chance(P, 10) ? NULL : &options;
    if (given)
        switch (dice(P, 24)) {
        case 0:
            options.drop_policy = 2 + (uint32_t)(roll(P) >> 33);
            fault = ARGUMENT;
            break;
        case 1:
            options.fps_numerator = 0;
            options.fps_denominator = 1 + dice(P, 9);
            fault = ARGUMENT;
            break;
        case 2:
            options.buffers = 33 + (uint32_t)(roll(P) >> 33);
            fault = ARGUMENT;
            break;
        case 3:
            options.fourcc = CAMLEASE_FOURCC('N', 'O', 'N', 'E');
            fault = S(UNSUPPORTED);
            break;
        case 4:
            options.max_bytes = 1 + dice(P, 60); /* less than any frame here */
            fault = S(BUDGET);
            break;
        case 5:
            options.struct_size = dice(P, 8);
            fault = ARGUMENT;
            break;
        case 6:
            memset(&newer, 0, sizeof newer);
            newer.known = options;
            newer.known.struct_size = sizeof newer;
            newer.more[7] = (uint8_t)dice(P, 2);
            fault = newer.more[7] ? ARGUMENT : 0;
            given = &newer.known;
            break;
        case 7:
            options.struct_size = offsetof(camlease_stream_options, fourcc) + dice(P, 4);
            options.fourcc = 0;
            break;
        }
    if (fault)
        allowed = allowed == S(OK) ? fault : (allowed & ~S(OK)) | fault;
    if (CALL(P, CAMERA, allowed, camlease_camera_start(camera, given)))
        return;
    thing->streaming = true;
    thing->over = false;
    thing->rounds++;
    thing->held = 0;
    thing->has_sequence = false;
    struct camlease_camera_info info = CAMLEASE_CAMERA_INFO_INIT;
    CALL(P, CAMERA, S(OK), camlease_camera_info(camera, &info));
    MUST(P, info.state == CAMLEASE_CAMERA_STREAMING && info.buffers >= 1 && info.planes == 1 && info.width && info.height);
    if (given && given->struct_size >= sizeof options) {
        MUST(P, !options.buffers || info.buffers == options.buffers, "%u", info.buffers);
        MUST(P, !options.fourcc || info.fourcc == options.fourcc);
        MUST(P, !options.fourcc || (info.width == (options.width & ~1u) || info.width == options.width));
    }
    thing->width = info.width;
    thing->height = info.height;
    thing->fourcc = info.fourcc;
    thing->buffers = info.buffers;
}

static void op_stop(void)
{
    struct thing *thing;
    camlease_camera *camera = pick(CAMERA, &thing);
    if (!CALL(P, CAMERA, usable(thing, thing && thing->streaming ? S(OK) : S(WRONG_STATE)), camlease_camera_stop(camera)))
        thing->streaming = false;
}

/* Nothing here has a port to reset: it goes on as it was. */
static void op_reset(void)
{
    struct thing *thing;
    camlease_camera *camera = pick(CAMERA, &thing);
    camlease_reset_options options = CAMLEASE_RESET_OPTIONS_INIT;
    options.timeout_ms = (int32_t)dice(P, 5) - 2;
    bool given = chance(P, 50), wrong = given && (options.timeout_ms == -2 || options.timeout_ms == 0);
    uint32_t allowed = wrong ? usable(thing, 0) | ARGUMENT : usable(thing, S(UNSUPPORTED));
    CALL(P, CAMERA, allowed, camlease_camera_reset(camera, given ? &options : NULL));
}

static void look_at_frame(struct thing *frame, struct thing *camera)
{
    const struct source *s = &game.sources[camera->source];
    struct camlease_frame_data *data = &frame->data;
    *data = (struct camlease_frame_data)CAMLEASE_FRAME_DATA_INIT;
    CALL(P, FRAME, S(OK), camlease_frame_info(frame->handle, data));
    MUST(P, data->width == camera->width && data->height == camera->height && data->fourcc == camera->fourcc);
    MUST(P, data->planes == 1 && data->size > 0 && data->data == data->plane[0].data && data->size == data->plane[0].size);
    MUST(P, !camera->has_sequence || data->sequence > camera->sequence, "%" PRIu64, data->sequence);
    MUST(P, data->timestamp_ns <= now_ns() && data->timestamp_ns > now_ns() - INT64_C(600000000000));
    if (s->name[0]) {
        uint64_t number[2];
        memcpy(number, data->data, sizeof number);
        MUST(P, number[0] == data->sequence && number[1] == (uint64_t)data->timestamp_ns);
    }
    bool corrupt = s->manner == CORRUPTS && (data->sequence + 1) % 2 == 0;
    MUST(P, data->flags == (corrupt ? CAMLEASE_FRAME_CORRUPT : 0));
    MUST(P, s->manner != STALLS || data->sequence < 3);
    MUST(P, s->manner != UNPLUGS || data->sequence < 4);
    if (camera->has_sequence)
        camera->dropped += data->sequence - camera->sequence - 1;
    camera->has_sequence = true;
    camera->sequence = data->sequence;
    camera->corrupt += corrupt;
    camera->frames++;
    camera->held++;
    camera->out++;
    camera->bytes_out += data->size;
    frame->camera = camera->id;
    frame->round = camera->rounds;
    frame->sum = sum_of(data);
}

static void op_next_frame(void)
{
    struct thing *thing;
    camlease_camera *camera = pick(CAMERA, &thing);
    if (game.count[FRAME] >= LIVE_MOST)
        return;
    uint32_t allowed = usable(thing, S(WRONG_STATE));
    int32_t timeout = 0;
    uint32_t way = dice(P, 100);
    if (way >= 92)
        timeout = -2 - (int32_t)(roll(P) >> 34);
    else if (way >= 55)
        timeout = 1 + (int32_t)dice(P, 2);
    if (allowed == S(WRONG_STATE) && thing->streaming) {
        enum manner manner = game.sources[thing->source].manner;
        bool starved = thing->held >= thing->buffers;
        bool may_end = manner == UNPLUGS || manner == ENDS;
        allowed = starved ? S(TIMEOUT) : S(OK) | S(TIMEOUT) | (may_end ? S(DISCONNECTED) : 0);
        if (thing->over)
            allowed = starved ? S(TIMEOUT) : S(DISCONNECTED);
        if (!starved && manner != STALLS && chance(P, 15)) { /* one comes for certain */
            timeout = chance(P, 50) ? -1 : 60000;
            allowed &= ~S(TIMEOUT);
        }
    }
    if (timeout < -1)
        allowed = thing && (allowed & S(OK)) ? ARGUMENT : (allowed & ~S(OK)) | ARGUMENT;
    camlease_frame *frame;
    if (chance(P, 3)) {
        CALL(P, CAMERA, thing ? ARGUMENT | (allowed & ~S(OK)) : HANDLE | ARGUMENT,
             camlease_camera_next_frame(camera, timeout, NULL));
        return;
    }
    camlease_status status = CALL_OUT(P, CAMERA, allowed, frame, camlease_camera_next_frame(camera, timeout, &frame));
    if (status == CAMLEASE_DISCONNECTED)
        thing->over = true;
    if (status == CAMLEASE_OK)
        look_at_frame(enter(FRAME, frame), thing);
}

static void op_fd(void)
{
    struct thing *thing;
    camlease_camera *camera = pick(CAMERA, &thing);
    int32_t fd = -77;
    if (chance(P, 5)) {
        CALL(P, CAMERA, ARGUMENT | usable(thing, 0), camlease_camera_fd(camera, NULL));
        return;
    }
    if (CALL(P, CAMERA, usable(thing, S(OK)), camlease_camera_fd(camera, &fd))) {
        MUST(P, fd == -77, "written on failure");
        struct pollfd ended = { .fd = thing ? thing->fd : -1, .events = POLLIN };
        MUST(P, !thing || !thing->fd || poll(&ended, 1, 0) == 1, "an ended camera's descriptor is not readable");
        return;
    }
    MUST(P, !thing->fd || thing->fd == fd, "another descriptor");
    thing->fd = fd;
    struct pollfd look = { .fd = fd, .events = POLLIN };
    enum manner manner = game.sources[thing->source].manner;
    if (thing->streaming && thing->held >= thing->buffers)
        MUST(P, poll(&look, 1, 0) == 0, "readable, while every buffer is out");
    else if (thing->streaming && manner != STALLS && chance(P, 20))
        MUST(P, poll(&look, 1, 60000) == 1 && look.revents == POLLIN, "a frame was due");
}

static void op_info(void)
{
    struct thing *thing;
    camlease_camera *camera = pick(CAMERA, &thing);
    static struct filled f;
    prepare(P, &f, sizeof(struct camlease_camera_info));
    CALL_FILL(P, CAMERA, &f, thing ? S(OK) : HANDLE, camlease_camera_info(camera, place(&f)));
    if (!f.whole)
        return;
    const struct source *s = &game.sources[thing->source];
    MUST(P, strcmp(f.info.uri, s->uri) == 0, "%s", f.info.uri);
    MUST(P, strcmp(f.info.name, s->name[0] ? s->name : "video.y4m") == 0, "%s", f.info.name);
    MUST(P, f.info.driver[0] && !f.info.serial[0] && f.info.bus && f.info.priority == thing->priority);
    if (!game.shut_down && !thing->ended)
        MUST(P, f.info.last_exit == thing->last_exit, "%u, not %u", f.info.last_exit, thing->last_exit);
    if (!game.shut_down)
        MUST(P, f.info.state == (thing->streaming ? CAMLEASE_CAMERA_STREAMING : CAMLEASE_CAMERA_OPENED));
    MUST(P, f.info.width == thing->width && f.info.fourcc == thing->fourcc && f.info.buffers == thing->buffers);
}

static void op_stats(void)
{
    struct thing *thing;
    camlease_camera *camera = pick(CAMERA, &thing);
    static struct filled f;
    prepare(P, &f, sizeof(struct camlease_camera_stats));
    CALL_FILL(P, CAMERA, &f, thing ? S(OK) : HANDLE, camlease_camera_stats(camera, place(&f)));
    if (!f.whole)
        return;
    MUST(P, f.stats.frames == thing->frames && f.stats.corrupt == thing->corrupt, "%" PRIu64, f.stats.frames);
    MUST(P, f.stats.dropped == thing->dropped, "%" PRIu64 ", not %" PRIu64, f.stats.dropped, thing->dropped);
    MUST(P, f.stats.frames_out == thing->out && f.stats.bytes_out == thing->bytes_out, "%" PRIu64, f.stats.frames_out);
    MUST(P, f.stats.open_attempts >= 1 && !f.stats.resets && !f.stats.stalls);
    MUST(P, f.stats.reconnects == thing->regained, "%" PRIu64, f.stats.reconnects);
}

static void op_control(void)
{
    struct thing *thing;
    camlease_camera *camera = pick(CAMERA, &thing);
    struct source *s = thing ? &game.sources[thing->source] : NULL;
    bool known = chance(P, 70);
    uint32_t id = known ? BRIGHTNESS : (uint32_t)roll(P);
    known = id == BRIGHTNESS;
    /* a file has no control at all */
    uint32_t allowed = usable(thing, s && s->name[0] ? (known ? S(OK) : ARGUMENT) : ARGUMENT | S(UNSUPPORTED));
    if (chance(P, 50)) {
        int64_t value = -77;
        if (chance(P, 5)) {
            CALL(P, CAMERA, (allowed & ~S(OK)) | ARGUMENT, camlease_camera_get_control(camera, id, NULL));
        } else if (!CALL(P, CAMERA, allowed, camlease_camera_get_control(camera, id, &value))) {
            MUST(P, value == s->brightness, "%" PRId64, value);
        } else {
            MUST(P, value == -77, "written on failure");
        }
    } else {
        int64_t value = chance(P, 70) ? dice(P, 256) : (int64_t)roll(P);
        if ((value < 0 || value > 255) && (allowed & S(OK)))
            allowed = ARGUMENT;
        if (!CALL(P, CAMERA, allowed, camlease_camera_set_control(camera, id, value)))
            s->brightness = value;
    }
}

/* ---- frames ---- */

static void op_frame_info(void)
{
    struct thing *thing;
    camlease_frame *frame = pick(FRAME, &thing);
    static struct filled f;
    prepare(P, &f, sizeof(struct camlease_frame_data));
    CALL_FILL(P, FRAME, &f, thing ? S(OK) : HANDLE, camlease_frame_info(frame, place(&f)));
    if (thing) /* the bytes are there, whatever became of the camera */
        MUST(P, sum_of(&thing->data) == thing->sum, "a frame's bytes changed");
    if (!f.whole)
        return;
    f.frame.struct_size = thing->data.struct_size;
    MUST(P, memcmp(&f.frame.data, &thing->data.data,
                   offsetof(struct camlease_frame_data, plane) - offsetof(struct camlease_frame_data, data)) == 0);
}

static void release(struct thing *thing)
{
    struct thing *camera = camera_by_id(thing->camera);
    MUST(P, sum_of(&thing->data) == thing->sum, "a frame's bytes changed");
    CALL(P, FRAME, S(OK), camlease_frame_release(thing->handle));
    if (camera) {
        camera->out--;
        camera->bytes_out -= thing->data.size;
        if (camera->streaming && camera->rounds == thing->round)
            camera->held--;
    }
    leave(FRAME, thing);
}

static void op_release(void)
{
    struct thing *thing;
    camlease_frame *frame = pick(FRAME, &thing);
    if (thing)
        release(thing);
    else
        CALL(P, FRAME, HANDLE, camlease_frame_release(frame));
}

/* ---- lists: four kinds that work alike ---- */

static const struct list {
    camlease_status (*get)(const void *, size_t, void *);
    size_t (*len)(const void *);
    camlease_status (*free)(void *);
    size_t size;
} lists[KINDS] = {
#define LIST(name, entry)                                                                                              \
    { (camlease_status(*)(const void *, size_t, void *))(void (*)(void))camlease_##name##_list_get,                    \
      (size_t(*)(const void *))(void (*)(void))camlease_##name##_list_len,                                             \
      (camlease_status(*)(void *))(void (*)(void))camlease_##name##_list_free, sizeof(entry) }
    [DEVICES] = LIST(device, struct camlease_device_info),
    [HOLDERS] = LIST(holder, struct camlease_holder),
    [FORMATS] = LIST(format, struct camlease_format_info),
    [CONTROLS] = LIST(control, struct camlease_control_info),
};

static enum kind any_list(void)
{
    return (enum kind)(DEVICES + dice(P, 4));
}

static void new_device_list(void)
{
    camlease_device_list *list;
    CALL_OUT(P, DEVICES, S(OK), list, camlease_device_list_new(&list));
    struct thing *thing = enter(DEVICES, list);
    thing->length = camlease_device_list_len(list);
    for (int i = 0; i < game.count[CAMERA]; i++) {
        const struct thing *camera = &game.live[CAMERA][i];
        const struct source *s = &game.sources[camera->source];
        bool found = !s->name[0] || game.shut_down || camera->ended;
        for (size_t at = 0; at < thing->length && !found; at++) {
            struct camlease_device_info info = CAMLEASE_DEVICE_INFO_INIT;
            CALL(P, DEVICES, S(OK), camlease_device_list_get(list, at, &info));
            if (strcmp(info.name, s->name) == 0) {
                found = true;
                MUST(P, info.state == (camera->streaming ? CAMLEASE_DEVICE_STREAMING : CAMLEASE_DEVICE_OPEN));
            }
        }
        MUST(P, found, "%s is held and not listed", s->uri);
    }
}

static void new_holder_list(void)
{
    camlease_holder_list *list;
    if (chance(P, 30)) {
        static const char *bad[] = { NULL, "", "ftp:x", "virtual:a b", "realsense:1" };
        CALL_OUT(P, HOLDERS, ARGUMENT | S(UNSUPPORTED), list, camlease_holder_list_new(bad[dice(P, 5)], &list));
        return;
    }
    int source = (int)dice(P, SOURCES);
    const struct source *s = &game.sources[source];
    CALL_OUT(P, HOLDERS, S(OK), list, camlease_holder_list_new(s->uri, &list));
    struct thing *thing = enter(HOLDERS, list);
    struct thing *camera = s->name[0] && !game.shut_down ? holder_of(source) : NULL;
    thing->length = camlease_holder_list_len(list);
    thing->unreadable = camlease_holder_list_unreadable(list);
    MUST(P, thing->length == (camera ? 1 : 0), "%zu holders of %s", thing->length, s->uri);
    if (camera) {
        struct camlease_holder holder = CAMLEASE_HOLDER_INIT;
        CALL(P, HOLDERS, S(OK), camlease_holder_list_get(list, 0, &holder));
        MUST(P, holder.pid == getpid() && holder.uid == geteuid() && holder.start_time && holder.command[0]);
        MUST(P, holder.activity == (camera->streaming ? CAMLEASE_ACTIVITY_STREAMING : CAMLEASE_ACTIVITY_OPEN));
        MUST(P, holder.outcome == CAMLEASE_OUTCOME_NONE && holder.condition == CAMLEASE_CONDITION_ALIVE);
        MUST(P, strcmp(holder.name, camera->name) == 0 && holder.priority == camera->priority && holder.since_ns, "%s (%d)",
             holder.name, holder.priority);
    }
}

static void op_list_new(void)
{
    enum kind kind = any_list();
    if (game.count[kind] >= LIVE_MOST || ((kind == DEVICES || kind == HOLDERS) && !chance(P, 5)))
        return;
    void *list;
    struct thing *camera;
    if (kind == DEVICES) {
        new_device_list();
    } else if (kind == HOLDERS) {
        new_holder_list();
    } else {
        camlease_camera *handle = pick(CAMERA, &camera);
        uint32_t allowed = usable(camera, S(OK));
        if (chance(P, 5)) {
            CALL(P, kind, (allowed & ~S(OK)) | ARGUMENT, camlease_format_list_new(handle, NULL));
            CALL(P, kind, (allowed & ~S(OK)) | ARGUMENT, camlease_control_list_new(handle, NULL));
            return;
        }
        if (kind == FORMATS)
            CALL_OUT(P, kind, allowed, list, camlease_format_list_new(handle, (camlease_format_list **)&list));
        else
            CALL_OUT(P, kind, allowed, list, camlease_control_list_new(handle, (camlease_control_list **)&list));
        if (list) {
            bool virtual = game.sources[camera->source].name[0];
            struct thing *thing = enter(kind, list);
            thing->length = lists[kind].len(list);
            MUST(P, thing->length == (kind == FORMATS ? (virtual ? 6 : 1) : (virtual ? 1 : 0)), "%zu", thing->length);
        }
    }
}

static void op_list_use(void)
{
    enum kind kind = any_list();
    struct thing *thing;
    void *list = pick(kind, &thing);
    if (chance(P, 30)) {
        P->calls++;
        size_t length = lists[kind].len(list);
        MUST(P, length == (thing ? thing->length : 0), "a length of %zu", length);
    } else if (kind == HOLDERS && chance(P, 20)) {
        P->calls++;
        MUST(P, camlease_holder_list_unreadable(list) == (thing ? thing->unreadable : 0));
    } else if (kind == CONTROLS && chance(P, 30)) {
        int64_t value = -77;
        const char *name = "untouched";
        /* none of these controls has a menu */
        CALL(P, kind, thing ? ARGUMENT : HANDLE | ARGUMENT,
             camlease_control_list_menu(list, dice(P, 3), dice(P, 3), chance(P, 10) ? NULL : &value, &name));
        MUST(P, value == -77 && strcmp(name, "untouched") == 0);
    } else {
        static struct filled f;
        prepare(P, &f, lists[kind].size);
        size_t index = chance(P, 90) ? dice(P, 8) : (size_t)roll(P);
        bool within = thing && index < thing->length;
        CALL_FILL(P, kind, &f, !thing ? HANDLE : within ? S(OK) : ARGUMENT, lists[kind].get(list, index, place(&f)));
        if (f.whole && kind == FORMATS)
            MUST(P, f.format.description && f.format.max_width >= f.format.min_width && f.format.fourcc);
        if (f.whole && kind == CONTROLS)
            MUST(P, f.control.id == BRIGHTNESS && strcmp(f.control.name, "Brightness") == 0 && f.control.maximum == 255);
    }
}

static void op_list_free(void)
{
    enum kind kind = any_list();
    struct thing *thing;
    void *list = pick(kind, &thing);
    if (thing && (kind == DEVICES || kind == HOLDERS) && game.count[kind] < LIVE_MOST / 2 && chance(P, 80))
        return;
    CALL(P, kind, thing ? S(OK) : HANDLE, lists[kind].free(list));
    if (thing)
        leave(kind, thing);
}

/* ---- the rest ---- */

static void op_cancel(void)
{
    struct thing *thing;
    camlease_cancel *cancel;
    uint32_t way = dice(P, 3);
    if (way == 0 && game.count[CANCEL] < 8) {
        CALL_OUT(P, CANCEL, S(OK), cancel, camlease_cancel_new(&cancel));
        enter(CANCEL, cancel);
        return;
    }
    cancel = pick(CANCEL, &thing);
    if (way == 1) {
        if (!CALL(P, CANCEL, thing ? S(OK) : HANDLE, camlease_cancel_signal(cancel)))
            thing->signalled = true;
    } else if (!CALL(P, CANCEL, thing ? S(OK) : HANDLE, camlease_cancel_free(cancel))) {
        leave(CANCEL, thing);
    }
}

/* A camera is shared for a moment. What others see of it is tested elsewhere: here that it is in nobody's way. */
static void op_share(void)
{
    struct thing *thing;
    camlease_camera *camera = pick(CAMERA, &thing);
    camlease_share_options options = CAMLEASE_SHARE_OPTIONS_INIT;
    camlease_reply *reply = NULL;
    char name[96];
    snprintf(name, sizeof name, "%.40s-%u", game.prefix, dice(P, 3));
    options.name = name;
    uint32_t allowed = usable(thing, thing && thing->streaming ? S(WRONG_STATE) : S(OK));
    uint32_t invalid = dice(P, 20);
    switch (invalid) {
    case 0:
        options.name = NULL;
        break;
    case 1:
        options.name = "\xc3\x28"; /* no UTF-8 */
        break;
    case 2:
        options.start = 2 + dice(P, 100);
        break;
    case 3:
        options.readers = 3 + dice(P, 100);
        break;
    case 4:
        options.commanders = 3 + dice(P, 100);
        break;
    case 5:
        options.history = 33 + dice(P, 100);
        break;
    case 6:
        options.struct_size = dice(P, 2) ? dice(P, 8) : 4097 + roll(P) % 100000;
        break;
    case 7:
        CALL(P, CAMERA, ARGUMENT, camlease_share_start(camera, NULL));
        return;
    }
    if (invalid < 7) {
        CALL(P, CAMERA, ARGUMENT, camlease_share_start(camera, &options));
        return;
    }
    if (invalid == 8) { /* with what is no name, the camera is judged first */
        options.name = "a name";
        allowed = allowed & S(OK) ? ARGUMENT : allowed;
    }
    const char *status = "{\"do\": \"status\"}";
    if (CALL(P, CAMERA, allowed, camlease_share_start(camera, &options))) {
        CALL(P, CAMERA, thing ? S(WRONG_STATE) : HANDLE, camlease_share_stop(camera));
        CALL_OUT(P, CAMERA, usable(thing, S(UNSUPPORTED)), reply, camlease_camera_command(camera, status, 1000, &reply));
        CALL(P, CAMERA, HANDLE, camlease_reply_free(made_up(P, camera)));
        return;
    }
    camlease_frame *frame;
    CALL(P, CAMERA, S(WRONG_STATE), camlease_share_start(camera, &options));
    CALL(P, CAMERA, S(WRONG_STATE), camlease_camera_start(camera, NULL));
    CALL(P, CAMERA, S(WRONG_STATE), camlease_camera_stop(camera));
    CALL_OUT(P, CAMERA, S(WRONG_STATE), frame, camlease_camera_next_frame(camera, 1000, &frame));
    MUST(P, strstr(camlease_last_error_message(), name), "where to read it: %s", camlease_last_error_message());
    CALL_OUT(P, CAMERA, ARGUMENT, reply, camlease_camera_command(camera, chance(P, 50) ? "no JSON" : NULL, 1000, &reply));
    CALL(P, CAMERA, ARGUMENT, camlease_camera_command(camera, status, 1000, NULL));
    CALL_OUT(P, CAMERA, S(OK), reply, camlease_camera_command(camera, status, 1000, &reply));
    MUST(P, strstr(camlease_reply_text(reply), name), "%s", camlease_reply_text(reply));
    CALL(P, CAMERA, S(OK), camlease_reply_free(reply));
    CALL(P, CAMERA, HANDLE, camlease_reply_free(reply));
    MUST(P, !camlease_reply_text(reply), "a reply that was freed has a text");
    CALL(P, CAMERA, S(OK), camlease_share_stop(camera));
    CALL(P, CAMERA, S(WRONG_STATE), camlease_share_stop(camera));
}

static void op_null_out(void)
{
    CALL(P, DEVICES, ARGUMENT, camlease_device_list_new(NULL));
    CALL(P, HOLDERS, ARGUMENT, camlease_holder_list_new(game.sources[0].uri, NULL));
    CALL(P, CANCEL, ARGUMENT, camlease_cancel_new(NULL));
}

/* It bounds the release on a signal, too: as long as a busy machine may need for that, where nothing hangs. */
static void set_shutdown_timeout(void)
{
    camlease_set_shutdown_timeout(20000 + dice(P, 1000));
}

static void op_library(void)
{
    P->calls += 3;
    MUST(P, camlease_version() == (CAMLEASE_VERSION_MAJOR << 16 | CAMLEASE_VERSION_MINOR << 8 | CAMLEASE_VERSION_PATCH));
    MUST(P, camlease_version_string()[0]);
    camlease_status any = chance(P, 50) ? dice(P, 300) : (camlease_status)roll(P);
    MUST(P, strncmp(camlease_status_name(any), "CAMLEASE_", 9) == 0);
    if (chance(P, 10)) {
        uint32_t level = dice(P, 7);
        bool known = level >= CAMLEASE_LOG_ERROR && level <= CAMLEASE_LOG_DEBUG;
        CALL(P, FRAME, known ? S(OK) : ARGUMENT,
             camlease_set_log_callback(chance(P, 50) ? take_log : NULL, &game, level));
    }
    set_shutdown_timeout();
}

/* ---- children ---- */

/* What a child does with one of its parent's cameras, decided before it is made: it opens one that is free, or asks for
 * one that its parent has. */
static struct plan {
    bool proper; /* it ends by exit() */
    int source;  /* -1 for none */
    bool holder, wins, streams;
    struct camlease_open_options options;
} plan;

static void make_plan(void)
{
    plan = (struct plan){ .proper = chance(P, 50), .source = -1, .options = CAMLEASE_OPEN_OPTIONS_INIT };
    int source = (int)dice(P, UNPLUGGED_FROM);
    if (game.shut_down || chance(P, 30))
        return;
    plan.source = source;
    plan.streams = chance(P, 60);
    struct thing *holder = holder_of(source);
    plan.holder = holder;
    if (holder) {
        plan.options.on_busy = CAMLEASE_ON_BUSY_ASK;
        plan.options.priority = some_priority();
        plan.options.grace_ms = 1 + (int32_t)dice(P, 5);
        plan.options.name = new_asking(&plan.options, holder, true)->name;
        plan.wins = is_lost(holder, &plan.options);
        plan.options.timeout_ms = plan.wins ? 60000 : 30;
    } else {
        plan.options.timeout_ms = 0;
    }
}

static void carry_plan_out(struct player *p)
{
    struct source *s = &game.sources[plan.source];
    camlease_camera *camera;
    camlease_holder_list *list;
    struct camlease_camera_info info = CAMLEASE_CAMERA_INFO_INIT;
    if (plan.holder) { /* an ancestor is not ended */
        struct camlease_holder holder = CAMLEASE_HOLDER_INIT;
        CALL_OUT(p, HOLDERS, S(OK), list, camlease_evict(s->uri, NULL, &list));
        MUST(p, camlease_holder_list_len(list) == 1);
        CALL(p, HOLDERS, S(OK), camlease_holder_list_get(list, 0, &holder));
        MUST(p, holder.pid == getppid() && holder.outcome == CAMLEASE_OUTCOME_REFUSED, "outcome %u", holder.outcome);
        MUST(p, strstr(holder.reason, "ancestor"), "%s", holder.reason);
        CALL(p, HOLDERS, S(OK), camlease_holder_list_free(list));
    }
    CALL_OUT(p, CAMERA, plan.holder && !plan.wins ? S(BUSY) : S(OK), camera,
             camlease_camera_open(s->uri, &plan.options, &camera));
    if (!camera)
        return;
    CALL(p, CAMERA, S(OK), camlease_camera_info(camera, &info));
    MUST(p, info.last_exit == (plan.holder ? (uint32_t)CAMLEASE_EXIT_CLEAN : s->last_exit), "%u", info.last_exit);
    if (plan.streams)
        CALL(p, CAMERA, S(OK), camlease_camera_start(camera, NULL));
}

/* What the plan has changed for the parent. */
static void see_plan(pid_t child)
{
    if (plan.source < 0)
        return;
    struct thing *holder = plan.holder ? holder_of(plan.source) : NULL;
    if (holder && !plan.wins) {
        CALL(P, CAMERA, S(OK), camlease_camera_fd(holder->handle, &holder->fd));
        return;
    }
    if (holder)
        lose(holder, child);
    game.sources[plan.source].last_exit = plan.proper ? CAMLEASE_EXIT_CLEAN :
                                          plan.streams ? CAMLEASE_EXIT_DIRTY :
                                                         CAMLEASE_EXIT_DIED;
}

static void in_child(enum way way)
{
    struct player *p = P;
    bool proper = plan.proper;
    static struct filled f;
    /* The first call of a child that no handler announced is where it lets go: let it be any. */
    for (int at = 0; at < KINDS; at++) {
        enum kind kind = (enum kind)((at + way) % KINDS);
        for (int i = 0; i < game.count[kind]; i++) {
            void *handle = game.live[kind][i].handle;
            int32_t fd;
            int64_t value;
            void *out;
            f.struct_size = sizeof(struct camlease_frame_data);
            switch (kind) {
            case CAMERA:
                CALL(p, kind, S(FORKED), camlease_camera_start(handle, NULL));
                CALL(p, kind, S(FORKED), camlease_camera_stop(handle));
                CALL(p, kind, S(FORKED), camlease_camera_reset(handle, NULL));
                CALL(p, kind, S(FORKED), camlease_camera_regain(handle, -1));
                CALL_OUT(p, kind, S(FORKED), out, camlease_camera_next_frame(handle, -1, (camlease_frame **)&out));
                CALL(p, kind, S(FORKED), camlease_camera_fd(handle, &fd));
                CALL(p, kind, S(FORKED), camlease_camera_info(handle, &f.info));
                CALL(p, kind, S(FORKED), camlease_camera_stats(handle, &f.stats));
                CALL(p, kind, S(FORKED), camlease_camera_get_control(handle, BRIGHTNESS, &value));
                CALL(p, kind, S(FORKED), camlease_camera_set_control(handle, BRIGHTNESS, 1));
                CALL_OUT(p, kind, S(FORKED), out, camlease_format_list_new(handle, (camlease_format_list **)&out));
                CALL_OUT(p, kind, S(FORKED), out, camlease_control_list_new(handle, (camlease_control_list **)&out));
                CALL(p, kind, S(FORKED), camlease_camera_close(handle));
                break;
            case FRAME:
                MUST(p, sum_of(&game.live[kind][i].data) == game.live[kind][i].sum, "a child reads another frame");
                CALL(p, kind, S(FORKED), camlease_frame_info(handle, &f.frame));
                CALL(p, kind, S(FORKED), camlease_frame_release(handle));
                MUST(p, sum_of(&game.live[kind][i].data) == game.live[kind][i].sum);
                break;
            case CANCEL:
                CALL(p, kind, S(FORKED), camlease_cancel_signal(handle));
                CALL(p, kind, S(FORKED), camlease_cancel_free(handle));
                break;
            default:
                MUST(p, lists[kind].len(handle) == 0);
                CALL(p, kind, S(FORKED), lists[kind].get(handle, 0, f.bytes));
                CALL(p, kind, S(FORKED), lists[kind].free(handle));
            }
        }
        if (game.stales[kind])
            for (int i = 0; i < 4; i++) {
                uint64_t known = game.stales[kind] < STALE_MOST ? game.stales[kind] : STALE_MOST;
                void *handle = game.stale[kind][dice(p, (uint32_t)known)];
                if (kind == CAMERA)
                    CALL(p, kind, HANDLE, camlease_camera_stop(handle));
                else if (kind == FRAME)
                    CALL(p, kind, HANDLE, camlease_frame_release(handle));
            }
    }
    mark(p, CAMERA); /* a first call, had there been nothing */
    int left = descriptors();
    if (left > game.first_descriptors)
        tell_descriptors();
    MUST(p, left <= game.first_descriptors, "a child has %d descriptors, not %d", left, game.first_descriptors);

    /* It has what it needs for cameras of its own, and its parent's stay its parent's. */
    char uri[256];
    camlease_camera *camera;
    camlease_open_options options = CAMLEASE_OPEN_OPTIONS_INIT;
    options.timeout_ms = 0;
    struct thing *held = game.count[CAMERA] ? &game.live[CAMERA][dice(p, (uint32_t)game.count[CAMERA])] : NULL;
    if (held && held->ended)
        held = NULL;
    snprintf(uri, sizeof uri, "virtual:%s-child-%d?width=16&height=8&fps=1000", game.prefix, (int)getpid());
    uint32_t open = game.shut_down ? S(SHUT_DOWN) : S(OK);
    CALL_OUT(p, CAMERA, open, camera, camlease_camera_open(uri, &options, &camera));
    if (held && game.sources[held->source].name[0] && !game.shut_down) {
        camlease_camera *busy;
        uint32_t allowed = S(BUSY) | (game.sources[held->source].manner == UNPLUGS ? S(NOT_FOUND) : 0);
        CALL_OUT(p, CAMERA, allowed, busy, camlease_camera_open(game.sources[held->source].uri, &options, &busy));
    }
    if (camera) {
        camlease_frame *frame;
        struct camlease_frame_data data = CAMLEASE_FRAME_DATA_INIT;
        CALL(p, CAMERA, S(OK), camlease_camera_start(camera, NULL));
        CALL_OUT(p, CAMERA, S(OK), frame, camlease_camera_next_frame(camera, 60000, &frame));
        CALL(p, FRAME, S(OK), camlease_frame_info(frame, &data));
        MUST(p, data.width == 16 && data.data[0] == (uint8_t)data.sequence);
        if (chance(p, 50))
            CALL(p, FRAME, S(OK), camlease_frame_release(frame));
        if (chance(p, 50))
            CALL(p, CAMERA, S(OK), camlease_camera_close(camera));
    }
    if (plan.source >= 0)
        carry_plan_out(p);
    if (!proper)
        _exit(0);
    if (chance(p, 30))
        CALL(p, CAMERA, S(OK), camlease_shutdown());
    exit(0);
}

/* One that sleeps for a lock in the middle of a callback looks idle, and is not. */
static void callbacks_return(void)
{
    int64_t until = now_ns() + INT64_C(20000000000);
    for (int i = 0; i < EARS; i++)
        while (atomic_load(&ears[i].inside) && now_ns() < until)
            usleep(100);
}

static void op_fork(void)
{
    enum way way = (enum way)dice(P, WAYS);
    fflush(NULL);
    make_plan();
    callbacks_return();
    others_are_idle(P);
    pid_t child = make_child(way);
    if (child < 0)
        wrong(P, "no child: %s", strerror(errno));
    if (child == 0) {
        P->number = 100 + (unsigned)way;
        in_child(way);
    }
    see_child_off(P, child);
    if (plan.holder)
        atomic_store(&askings[(game.asks - 1) % ASKS].over, true);
    see_plan(child);
    game.forks++;
    for (int i = 0; i < game.count[FRAME]; i++)
        MUST(P, sum_of(&game.live[FRAME][i].data) == game.live[FRAME][i].sum, "after a fork");
}

/* ---- the run ---- */

static const struct {
    void (*op)(void);
    uint32_t weight;
} ops[] = {
    { op_open, 30 },       { op_close, 30 },      { op_start, 60 },    { op_stop, 25 },    { op_next_frame, 260 },
    { op_fd, 50 },         { op_info, 80 },       { op_stats, 80 },    { op_control, 80 }, { op_frame_info, 150 },
    { op_release, 250 },   { op_list_new, 40 },   { op_list_use, 150 }, { op_list_free, 40 }, { op_cancel, 60 },
    { op_null_out, 5 },    { op_library, 20 },    { op_reset, 15 },    { op_regain, 30 }, { op_evict, 3 },
    { op_signals, 2 },     { op_open_held, 30 },  { op_share, 3 },
};

static void step(void)
{
    uint32_t sum = 0;
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++)
        sum += ops[i].weight;
    uint32_t at = dice(P, sum);
    for (size_t i = 0; i < sizeof ops / sizeof ops[0]; i++) {
        if (at < ops[i].weight) {
            ops[i].op();
            return;
        }
        at -= ops[i].weight;
    }
}

static void name_sources(const char *folder)
{
    static const char *const faults[] = { "", "", "&fourcc=NV12", "&fourcc=RGB3", "&stall=3", "&corrupt=2",
                                          "&unplug=4&return=1" };
    char prefix[sizeof game.prefix];
    /* With the time: another process that had this pid may have left leases of its dead children. */
    snprintf(prefix, sizeof prefix, "handles-%d-%06x", (int)getpid(), (unsigned)(now_ns() / 1000000) & 0xffffff);
    memcpy(game.prefix, prefix, sizeof prefix);
    for (int i = 0; i < SOURCES; i++) {
        struct source *s = &game.sources[i];
        if (i < 7) {
            char name[sizeof s->name];
            snprintf(name, sizeof name, "%.40s-%d", prefix, i);
            snprintf(s->uri, sizeof s->uri, "virtual:%s?width=%d&height=24&fps=1000%s", name, 32 + 8 * i, faults[i]);
            memcpy(s->name, name, sizeof name);
            s->manner = i < 4 ? PLAIN_FRAMES : i == 4 ? STALLS : i < UNPLUGGED_FROM ? CORRUPTS : UNPLUGS;
        } else {
            static const char *const paces[] = { "loop=1&fps=0", "loop=1&fps=1000", "fps=0" };
            snprintf(s->uri, sizeof s->uri, "file:%s/video.y4m?%s", folder, paces[i - 7]);
            s->manner = i < 9 ? LOOPS : ENDS;
        }
    }
}

static void release_all(void)
{
    while (game.count[FRAME])
        release(&game.live[FRAME][0]);
    while (game.count[CAMERA]) {
        CALL(P, CAMERA, S(OK), camlease_camera_close(game.live[CAMERA][0].handle));
        leave(CAMERA, &game.live[CAMERA][0]);
    }
    while (game.count[CANCEL]) {
        CALL(P, CANCEL, S(OK), camlease_cancel_free(game.live[CANCEL][0].handle));
        leave(CANCEL, &game.live[CANCEL][0]);
    }
    for (int kind = DEVICES; kind <= CONTROLS; kind++)
        while (game.count[kind]) {
            CALL(P, (enum kind)kind, S(OK), lists[kind].free(game.live[kind][0].handle));
            leave((enum kind)kind, &game.live[kind][0]);
        }
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    P->seed = P->state = strtoull(argv[1], NULL, 0);
    uint64_t calls = strtoull(argv[2], NULL, 0);
    name_sources(argv[3]);
    MUST(P, camlease_last_error_message() && !camlease_last_error_message()[0], "a failure before the first");
    set_shutdown_timeout();
    struct sigaction action = { .sa_handler = take_signal, .sa_flags = SA_RESTART };
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    for (unsigned i = 0; i < EARS; i++) {
        ears[i].player.seed = ears[i].player.state = P->seed;
        ears[i].player.number = 1 + i;
    }
    descriptors(); /* whatever it needs for itself is there now */
    game.first_descriptors = descriptors();
    uint64_t fork_every = calls / 40 + 1, next_fork = fork_every;
    int64_t begun = now_ns();
    while (P->calls < calls) {
        step();
        if (P->calls >= next_fork) {
            next_fork = P->calls + fork_every;
            op_fork();
        }
    }
    int during = descriptors();

    /* Shut down with things open, and go on: every camera says so, frames stay, all is still to be released. */
    CALL(P, CAMERA, S(OK), camlease_shutdown());
    game.shut_down = true;
    for (uint64_t until = P->calls + 2000; P->calls < until;)
        step();
    op_fork();
    bool forgetful = P->seed % 2;
    if (!forgetful)
        release_all();
    int left = descriptors();
    uint64_t made = P->calls;
    for (int i = 0; i < EARS; i++)
        made += ears[i].player.calls;
    printf("handles: %" PRIu64 " calls, %" PRIu64 " refused, %" PRIu64 " children, %" PRIu64 " asks, %" PRIu64
           " hand-overs, %" PRIu64 " evictions, %" PRIu64 " releases on signals, seed %" PRIu64
           ", %.1f s, %d descriptors at most points, %d at the end%s\n",
           made, P->refused, game.forks, game.asks, game.handed_over, game.evictions, game.releases,
           P->seed, (double)(now_ns() - begun) / 1e9, during, left,
           forgetful ? ", all forgotten" : "");
    if (!forgetful)
        MUST(P, left == game.first_descriptors, "%d descriptors are left, not %d", left, game.first_descriptors);
    return 0;
}
