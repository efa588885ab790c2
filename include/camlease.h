/**
 * @file camlease.h
 * Managed camera handles: opens that wait for a busy camera and say who has it, release that cannot leak.
 *
 * Conventions, for every call:
 * - A call that can fail returns a camlease_status; 0 is success. Outputs come last and are written on success; on
 *   failure a handle output is set to NULL.
 * - camlease_last_error_message() tells the calling thread's last failure in words.
 * - A handle is never dereferenced before it was looked up: one that was closed, made up, or belongs to the parent
 *   of a forked process gives CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED, in every call, for ever.
 * - Any call may be made from any thread. One on a camera that is closed or shut down meanwhile gives
 *   CAMLEASE_CLOSED or CAMLEASE_SHUT_DOWN.
 * - Structs begin with struct_size and grow at their end only. Initialise them with their macro CAMLEASE_..._INIT;
 *   non-zero bytes past the end that the library knows are refused.
 * - Any integer may be passed for an enumerated value: one that is not known is CAMLEASE_INVALID_ARGUMENT.
 * - No signal handler is installed, unless camlease_release_on_signals() asks for it.
 * - camlease_camera_info and camlease_camera_stats are calls and structs: write "struct" before the structs' names.
 *
 * Generated from the sources; do not edit.
 */

#ifndef CAMLEASE_H
#define CAMLEASE_H

#include <stddef.h>
#include <stdint.h>

/** Version of this header. camlease_version() tells the library's. */
#define CAMLEASE_VERSION_MAJOR 0

/** Version of this header. camlease_version() tells the library's. */
#define CAMLEASE_VERSION_MINOR 1

/** Version of this header. camlease_version() tells the library's. */
#define CAMLEASE_VERSION_PATCH 0

/** A V4L2 pixel format, as CAMLEASE_FOURCC('Y', 'U', 'Y', 'V'). */
#define CAMLEASE_FOURCC(a, b, c, d) \
    ((uint32_t)(a) | ((uint32_t)(b) << 8) | ((uint32_t)(c) << 16) | ((uint32_t)(d) << 24))

/** Initialiser of a struct camlease_open_options. */
#define CAMLEASE_OPEN_OPTIONS_INIT { sizeof(struct camlease_open_options), 5000, 0, 0, NULL, 0, NULL, NULL, NULL, NULL, 0, 0, 0 }

/** Initialiser of a struct camlease_asker. */
#define CAMLEASE_ASKER_INIT { sizeof(struct camlease_asker), 0, 0, 0, 0, 0, NULL }

/** Initialiser of a struct camlease_reset_options. */
#define CAMLEASE_RESET_OPTIONS_INIT { sizeof(struct camlease_reset_options), 10000 }

/** Initialiser of a struct camlease_stream_options. */
#define CAMLEASE_STREAM_OPTIONS_INIT { sizeof(struct camlease_stream_options), 0, 0, 0, 0, 0, 0, 0, 0 }

/** Initialiser of a struct camlease_camera_info. */
#define CAMLEASE_CAMERA_INFO_INIT { sizeof(struct camlease_camera_info), NULL, NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/** Initialiser of a struct camlease_camera_stats. */
#define CAMLEASE_CAMERA_STATS_INIT { sizeof(struct camlease_camera_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/** Initialiser of a struct camlease_share_options. */
#define CAMLEASE_SHARE_OPTIONS_INIT { sizeof(struct camlease_share_options), NULL, 0, 0, 0, 0, 0, 0, 0, NULL }

/** Initialiser of a struct camlease_frame_data. */
#define CAMLEASE_FRAME_DATA_INIT { sizeof(struct camlease_frame_data), NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, { { NULL, 0, 0 }, { NULL, 0, 0 }, { NULL, 0, 0 }, { NULL, 0, 0 } } }

/** Initialiser of a struct camlease_device_info. */
#define CAMLEASE_DEVICE_INFO_INIT { sizeof(struct camlease_device_info), NULL, NULL, NULL, NULL, NULL, 0 }

/** Initialiser of a struct camlease_holder. */
#define CAMLEASE_HOLDER_INIT { sizeof(struct camlease_holder), 0, 0, 0, 0, NULL, NULL, 0, NULL, 0, 0, 0, NULL }

/** Initialiser of a struct camlease_evict_options. */
#define CAMLEASE_EVICT_OPTIONS_INIT { sizeof(struct camlease_evict_options), 0, 2000, NULL, NULL }

/** Initialiser of a struct camlease_format_info. */
#define CAMLEASE_FORMAT_INFO_INIT { sizeof(struct camlease_format_info), 0, 0, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }

/** Initialiser of a struct camlease_control_info. */
#define CAMLEASE_CONTROL_INFO_INIT { sizeof(struct camlease_control_info), 0, 0, NULL, 0, 0, 0, 0, 0, 0 }

typedef struct camlease_camera camlease_camera; /**< See the struct. */
typedef struct camlease_frame camlease_frame; /**< See the struct. */
typedef struct camlease_device_list camlease_device_list; /**< See the struct. */
typedef struct camlease_holder_list camlease_holder_list; /**< See the struct. */
typedef struct camlease_format_list camlease_format_list; /**< See the struct. */
typedef struct camlease_control_list camlease_control_list; /**< See the struct. */
typedef struct camlease_cancel camlease_cancel; /**< See the struct. */
typedef struct camlease_reply camlease_reply; /**< See the struct. */
typedef struct camlease_share_options camlease_share_options; /**< See the struct. */
typedef struct camlease_asker camlease_asker; /**< See the struct. */
typedef struct camlease_open_options camlease_open_options; /**< See the struct. */
typedef struct camlease_stream_options camlease_stream_options; /**< See the struct. */
typedef struct camlease_reset_options camlease_reset_options; /**< See the struct. */
typedef struct camlease_frame_data camlease_frame_data; /**< See the struct. */
typedef struct camlease_plane camlease_plane; /**< See the struct. */
typedef struct camlease_device_info camlease_device_info; /**< See the struct. */
typedef struct camlease_holder camlease_holder; /**< See the struct. */
typedef struct camlease_evict_options camlease_evict_options; /**< See the struct. */
typedef struct camlease_format_info camlease_format_info; /**< See the struct. */
typedef struct camlease_control_info camlease_control_info; /**< See the struct. */


/**
 * A busy camera is waited for, up to timeout_ms.
 */
#define CAMLEASE_ON_BUSY_WAIT 0

/**
 * A holder that uses this library is asked to hand the camera over, and does so when the priority of this open is
 * the higher one, or its host agrees; meanwhile, and otherwise, the camera is waited for.
 */
#define CAMLEASE_ON_BUSY_ASK 1

/**
 * A holder that uses this library is told to hand the camera over; one that does not, or cannot, is ended as
 * camlease_evict() does it. Needs the rights to end it.
 */
#define CAMLEASE_ON_BUSY_EVICT 2

/**
 * Wait for a camera that is not there at all, too: not plugged in yet, or unplugged.
 */
#define CAMLEASE_OPEN_WAIT_FOR_DEVICE 1

/**
 * Reset the device before its use when its last holder died while streaming (camlease_camera_info.last_exit), as
 * camlease_camera_reset() does it; a camera that is not on USB is used as it is. That may take ten seconds beyond
 * timeout_ms, and cancel does not end it.
 */
#define CAMLEASE_OPEN_RESET_AFTER_DIRTY_EXIT 2

/**
 * The camera itself, for this process alone. Where another process shares it, it is busy, and the message tells by
 * which name. A camera that was named as shared:NAME is attached to all the same.
 */
#define CAMLEASE_ACCESS_EXCLUSIVE 0

/**
 * Attached to the camera where it is shared, as if it were opened as shared:NAME; else it is shared from now on, by a
 * process of its own, until a second after its last user has gone. That process is the camlease command's, which is
 * looked for by the environment variable CAMLEASE_COMMAND, beside this library, and in PATH; CAMLEASE_UNSUPPORTED
 * where it is not found. Where somebody has the camera for itself it is waited for.
 */
#define CAMLEASE_ACCESS_SHARED 1

/**
 * Attached to the camera where it is shared, to read frames and command nothing; else CAMLEASE_NOT_FOUND.
 */
#define CAMLEASE_ACCESS_MONITOR 2

/**
 * The one who asks gets the camera if its priority is the higher one.
 */
#define CAMLEASE_ANSWER_BY_PRIORITY 0

/**
 * The one who asks gets the camera.
 */
#define CAMLEASE_ANSWER_YIELD 1

/**
 * The newest frame is what the host gets; older ones that it did not take are dropped. A host that was away for
 * so long that no buffer was left for newer ones waits for a fresh frame, up to its timeout; with timeout_ms 0 it
 * gets what there is. Each reader of a shared camera has a policy of its own.
 */
#define CAMLEASE_DROP_OLDEST 0

/**
 * Frames come in order; the driver drops when all buffers are full. A reader of a shared camera that is late by more
 * frames than that keeps (camlease_share_options.history) loses the oldest ones, and no other reader loses any.
 */
#define CAMLEASE_DROP_NEWEST 1

/**
 * The camera is held and does not stream.
 */
#define CAMLEASE_CAMERA_OPENED 0

/**
 * The camera streams.
 */
#define CAMLEASE_CAMERA_STREAMING 1

/**
 * The last holder let the camera go, or none is known since the machine was started. Users of this library are known.
 */
#define CAMLEASE_EXIT_CLEAN 0

/**
 * The last holder died while it had the camera open.
 */
#define CAMLEASE_EXIT_DIED 1

/**
 * The last holder died while it was streaming: some devices then need a reset.
 */
#define CAMLEASE_EXIT_DIRTY 2

/**
 * A number.
 */
#define CAMLEASE_CONTROL_INTEGER 1

/**
 * 0 or 1.
 */
#define CAMLEASE_CONTROL_BOOLEAN 2

/**
 * One of several named values; camlease_control_list_menu() tells the names.
 */
#define CAMLEASE_CONTROL_MENU 3

/**
 * An action: setting it to anything does it.
 */
#define CAMLEASE_CONTROL_BUTTON 4

/**
 * A number of 64 bits.
 */
#define CAMLEASE_CONTROL_INTEGER64 5

/**
 * One bit for each of several things.
 */
#define CAMLEASE_CONTROL_BITMASK 8

/**
 * One of several numbers; camlease_control_list_menu() tells them.
 */
#define CAMLEASE_CONTROL_INTEGER_MENU 9

/**
 * Text or a struct, which these calls neither read nor set.
 */
#define CAMLEASE_CONTROL_OTHER 255

/**
 * camlease_camera_get_control() can read it.
 */
#define CAMLEASE_CONTROL_READABLE 1

/**
 * camlease_camera_set_control() can set it.
 */
#define CAMLEASE_CONTROL_WRITABLE 2

/**
 * It has an effect now; another setting, as an automatic, may take it away.
 */
#define CAMLEASE_CONTROL_ACTIVE 4

/**
 * Nobody has the camera.
 */
#define CAMLEASE_DEVICE_FREE 0

/**
 * Somebody has a node of it open; that keeps nobody from streaming.
 */
#define CAMLEASE_DEVICE_OPEN 1

/**
 * Somebody has its buffers.
 */
#define CAMLEASE_DEVICE_STREAMING 2

/**
 * It could not be found out, as when the node may not be opened.
 */
#define CAMLEASE_DEVICE_UNKNOWN 3

/**
 * Nothing was done to the holder: camlease_evict() was a dry run, or it had ended by itself, or its end would have
 * freed nothing. camlease_holder.reason tells.
 */
#define CAMLEASE_OUTCOME_NONE 0

/**
 * The holder was asked, and let the camera go.
 */
#define CAMLEASE_OUTCOME_YIELDED 1

/**
 * The holder let the camera go after SIGTERM.
 */
#define CAMLEASE_OUTCOME_TERMINATED 2

/**
 * The holder ended by SIGKILL.
 */
#define CAMLEASE_OUTCOME_KILLED 3

/**
 * The holder is not to be ended, see camlease_holder.reason.
 */
#define CAMLEASE_OUTCOME_REFUSED 4

/**
 * The holder was killed and has the camera still, see camlease_holder.reason.
 */
#define CAMLEASE_OUTCOME_SURVIVED 5

/**
 * Do nothing, and tell in each holder's reason what would be done.
 */
#define CAMLEASE_EVICT_DRY_RUN 1

/**
 * Frames in this format are compressed, and vary in size.
 */
#define CAMLEASE_FORMAT_COMPRESSED 1

/**
 * The frame is damaged: the driver says so, or bytes are missing.
 */
#define CAMLEASE_FRAME_CORRUPT 1

/**
 * The process merely has a node of the camera open.
 */
#define CAMLEASE_ACTIVITY_OPEN 1

/**
 * The process streams: it has the driver's buffers mapped.
 */
#define CAMLEASE_ACTIVITY_STREAMING 2

/**
 * The process runs, or waits for something.
 */
#define CAMLEASE_CONDITION_ALIVE 0

/**
 * The process was stopped (SIGSTOP, Ctrl+Z, a debugger), and answers nobody.
 */
#define CAMLEASE_CONDITION_STOPPED 1

/**
 * The process is inside the kernel and no signal reaches it (state D).
 */
#define CAMLEASE_CONDITION_STUCK 2

/**
 * The process's first thread has ended, others go on with what it has open (state Z).
 */
#define CAMLEASE_CONDITION_ZOMBIE 3

/**
 * Something went wrong that no call could return.
 */
#define CAMLEASE_LOG_ERROR 1

/**
 * Something works less well than it should.
 */
#define CAMLEASE_LOG_WARNING 2

/**
 * Rare events of interest.
 */
#define CAMLEASE_LOG_INFO 3

/**
 * What a developer of the library wants to know.
 */
#define CAMLEASE_LOG_DEBUG 4

/**
 * The user of the process that shares the camera, and root. The kernel tells who a client is.
 */
#define CAMLEASE_ALLOWED_OWNER 0

/**
 * These, and the members of a group.
 */
#define CAMLEASE_ALLOWED_GROUP 1

/**
 * Everybody on this machine.
 */
#define CAMLEASE_ALLOWED_EVERYONE 2

/**
 * The camera streams while somebody reads it, and for a second after.
 */
#define CAMLEASE_SHARE_ON_DEMAND 0

/**
 * The camera streams all the time.
 */
#define CAMLEASE_SHARE_ALWAYS 1

/**
 * SIGHUP: the terminal is gone.
 */
#define CAMLEASE_SIGNAL_HUP 1

/**
 * SIGINT: Ctrl+C.
 */
#define CAMLEASE_SIGNAL_INT 2

/**
 * SIGQUIT: Ctrl+\.
 */
#define CAMLEASE_SIGNAL_QUIT 4

/**
 * SIGTERM: what service managers and kill send.
 */
#define CAMLEASE_SIGNAL_TERM 8

/**
 * SIGPIPE: whoever read the output is gone.
 */
#define CAMLEASE_SIGNAL_PIPE 16

/**
 * SIGALRM.
 */
#define CAMLEASE_SIGNAL_ALRM 32

/**
 * SIGUSR1.
 */
#define CAMLEASE_SIGNAL_USR1 64

/**
 * SIGUSR2.
 */
#define CAMLEASE_SIGNAL_USR2 128

/**
 * SIGXCPU: the processor time is used up.
 */
#define CAMLEASE_SIGNAL_XCPU 256

/**
 * Those by which a program is asked to end: SIGHUP, SIGINT, SIGQUIT and SIGTERM.
 */
#define CAMLEASE_SIGNAL_USUAL 15

/**
 * A camera that this process holds.
 */
struct camlease_camera;

/**
 * A way to end a camlease_camera_open() that waits.
 */
struct camlease_cancel;

/**
 * A camera's controls.
 */
struct camlease_control_list;

/**
 * The cameras that were there when the list was made.
 */
struct camlease_device_list;

/**
 * What a camera offers.
 */
struct camlease_format_list;

/**
 * A frame that the host has. Its bytes stay readable, at the same address, until it is released, whatever
 * becomes of the stream, the camera and the device.
 */
struct camlease_frame;

/**
 * Who had a camera when the list was made.
 */
struct camlease_holder_list;

/**
 * An answer of a process that shares a camera. It is the host's, and needs no camera that is open.
 */
struct camlease_reply;

/**
 * What a call returns: 0 on success, else one of the CAMLEASE_ status values. A value is never reused.
 */
typedef uint32_t camlease_status;

/**
 * A process that has a camera. Initialise with CAMLEASE_HOLDER_INIT. The texts are UTF-8, never NULL, and
 * valid until the list is freed.
 */
struct camlease_holder {
  /**
   * Set by the initialiser.
   */
  size_t struct_size;
  /**
   * Process id.
   */
  int32_t pid;
  /**
   * Its effective user.
   */
  uint32_t uid;
  /**
   * Clock ticks since boot, as in /proc/PID/stat: with pid it names one process for ever.
   */
  uint64_t start_time;
  /**
   * CAMLEASE_ACTIVITY_OPEN or CAMLEASE_ACTIVITY_STREAMING.
   */
  uint32_t activity;
  /**
   * Its command line, without characters that would steer a terminal.
   */
  const char *command;
  /**
   * What it called itself when it opened the camera; "" where that is not known.
   */
  const char *name;
  /**
   * What camlease_evict() did to it, one of CAMLEASE_OUTCOME_; CAMLEASE_OUTCOME_NONE elsewhere.
   */
  uint32_t outcome;
  /**
   * Why it was refused or survived and what would help, why nothing was done, or what a dry run would do; else "".
   */
  const char *reason;
  /**
   * What the kernel says of the process, one of CAMLEASE_CONDITION_.
   */
  uint32_t condition;
  /**
   * Its camlease_open_options.priority; 0 where that is not known.
   */
  int32_t priority;
  /**
   * When it got the camera, in nanoseconds of CLOCK_BOOTTIME; 0 where that is not known.
   */
  uint64_t since_ns;
  /**
   * The name by which it shares the camera, which shared:NAME opens; "" where it does not, or that is not known.
   */
  const char *share;
};

/**
 * Told, in the thread that opens, when it begins to wait for a busy camera, and again when the holders
 * change. It may call this library, but must not throw. The pointers are valid during the callback.
 *
 * @param user_data camlease_open_options.user_data.
 * @param message Who holds the camera, in words.
 * @param holders The holders, count of them.
 * @param count 0 when nobody was found.
 */
typedef void (*camlease_wait_callback)(void *user_data,
                                       const char *message,
                                       const struct camlease_holder *holders,
                                       size_t count);

/**
 * Who asks for a camera that this process holds. Initialised by the library.
 */
struct camlease_asker {
  /**
   * Size of the struct as the library knows it.
   */
  size_t struct_size;
  /**
   * Its process id, by the kernel's word; 0 for a process of another container.
   */
  int32_t pid;
  /**
   * Its effective user, by the kernel's word: this process's own, or root.
   */
  uint32_t uid;
  /**
   * Its priority.
   */
  int32_t priority;
  /**
   * 1 when the camera is lost whatever the answer: its priority is the higher one, or it evicts.
   */
  uint32_t must;
  /**
   * Milliseconds that this process has to release its frames.
   */
  uint64_t grace_ms;
  /**
   * What it calls itself, or "". Valid during the callback.
   */
  const char *name;
};

/**
 * Told, in a thread of the library's, that somebody asks for the camera. Where camlease_asker.must is 1, or the
 * callback yields, it is lost once the callback has returned: then calls on it return CAMLEASE_EVICTED, its descriptor
 * (camlease_camera_fd) is readable, and the camera changes hands as soon as the host has released its frames, or
 * closes it, or grace_ms are over: frames that are out stay readable. The callback may call this library, close this
 * camera included, must return soon, and must not throw.
 *
 * @param user_data camlease_open_options.user_data.
 * @param asker Who asks; valid during the callback.
 * @return CAMLEASE_ANSWER_BY_PRIORITY or CAMLEASE_ANSWER_YIELD.
 */
typedef uint32_t (*camlease_ask_callback)(void *user_data, const struct camlease_asker *asker);

/**
 * How to open a camera. Initialise with CAMLEASE_OPEN_OPTIONS_INIT.
 */
struct camlease_open_options {
  /**
   * Set by the initialiser.
   */
  size_t struct_size;
  /**
   * Milliseconds to wait for a busy camera; 0 tries once, -1 waits without end.
   */
  int32_t timeout_ms;
  /**
   * CAMLEASE_ON_BUSY_WAIT, CAMLEASE_ON_BUSY_ASK or CAMLEASE_ON_BUSY_EVICT.
   */
  uint32_t on_busy;
  /**
   * Of those who ask for a camera the one with the higher priority gets it; an equal one does not take it away.
   */
  int32_t priority;
  /**
   * What this holder calls itself, or NULL. Others see it, up to 256 bytes.
   */
  const char *name;
  /**
   * Sum of CAMLEASE_OPEN_ flags, or 0.
   */
  uint32_t flags;
  /**
   * Told who holds the camera while this call waits, or NULL.
   */
  camlease_wait_callback on_wait;
  /**
   * Handed to on_wait and on_ask.
   */
  void *user_data;
  /**
   * Ends the wait when it is signalled, or NULL.
   */
  struct camlease_cancel *cancel;
  /**
   * Told when somebody asks for this camera once it is open, or NULL: then priorities alone decide.
   */
  camlease_ask_callback on_ask;
  /**
   * Milliseconds that a holder gets: to release its frames when it is asked, and to end after SIGTERM when it is
   * evicted. 0 for 500 and 2000.
   */
  int32_t grace_ms;
  /**
   * Not read: padding, for programs that were compiled before there was an access.
   */
  uint32_t reserved;
  /**
   * CAMLEASE_ACCESS_EXCLUSIVE, CAMLEASE_ACCESS_SHARED or CAMLEASE_ACCESS_MONITOR. on_busy, priority, grace_ms and
   * on_ask are about a camera itself, and of no effect on one that is attached to.
   */
  uint32_t access;
};

/**
 * What to stream. Initialise with CAMLEASE_STREAM_OPTIONS_INIT. A camera gives the nearest size and rate that it can;
 * camlease_camera_info() tells what it gave. A shared camera gives a reader what is streamed already; a size or format
 * that is another one is set where nobody else reads and this process may command it, and else CAMLEASE_BUSY or
 * CAMLEASE_PERMISSION.
 */
struct camlease_stream_options {
  /**
   * Set by the initialiser.
   */
  size_t struct_size;
  /**
   * Pixels; 0 for the device's own.
   */
  uint32_t width;
  /**
   * Pixels; 0 for the device's own.
   */
  uint32_t height;
  /**
   * A V4L2 pixel format, as CAMLEASE_FOURCC('Y','U','Y','V'); 0 for the device's own. One that the camera
   * does not offer is CAMLEASE_UNSUPPORTED.
   */
  uint32_t fourcc;
  /**
   * Frames per second are fps_numerator / fps_denominator; both 0 for the device's own.
   */
  uint32_t fps_numerator;
  /**
   * See fps_numerator.
   */
  uint32_t fps_denominator;
  /**
   * Buffers that go round between driver and host, 1 to 32; 0 for 4, or fewer where max_bytes asks for it. Of a
   * shared camera the frames that this reader may hold at a time, 0 for 2; it may be given fewer, which
   * camlease_camera_info() tells.
   */
  uint32_t buffers;
  /**
   * CAMLEASE_DROP_OLDEST or CAMLEASE_DROP_NEWEST.
   */
  uint32_t drop_policy;
  /**
   * Most bytes that all buffers together may take, else CAMLEASE_BUDGET; 0: no bound.
   */
  uint64_t max_bytes;
};

/**
 * Who a camera is and what its stream is set to. Initialise with CAMLEASE_CAMERA_INFO_INIT. The texts are
 * UTF-8, never NULL, and valid until the camera is closed.
 */
struct camlease_camera_info {
  /**
   * Set by the initialiser.
   */
  size_t struct_size;
  /**
   * A name that opens it again: the node that was found behind a link, for a V4L2 camera; shared:NAME, for one that
   * another process shares, however it was named. What follows is then told of the camera behind it.
   */
  const char *uri;
  /**
   * What the driver calls it.
   */
  const char *name;
  /**
   * The driver.
   */
  const char *driver;
  /**
   * Its USB serial number, or "".
   */
  const char *serial;
  /**
   * Where it is plugged in, or "".
   */
  const char *bus;
  /**
   * CAMLEASE_CAMERA_OPENED or CAMLEASE_CAMERA_STREAMING.
   */
  uint32_t state;
  /**
   * Pixels. This and what follows is the driver's answer at the last start, 0 before the first. A shared camera's
   * may change while it is read: then with the first frame of the new format that is taken.
   */
  uint32_t width;
  /**
   * Pixels.
   */
  uint32_t height;
  /**
   * Pixel format.
   */
  uint32_t fourcc;
  /**
   * Bytes from one line to the next in the first plane; 0 for compressed frames.
   */
  uint32_t stride;
  /**
   * Frames per second are fps_numerator / fps_denominator; 0/0 where the driver does not tell.
   */
  uint32_t fps_numerator;
  /**
   * See fps_numerator.
   */
  uint32_t fps_denominator;
  /**
   * Buffers.
   */
  uint32_t buffers;
  /**
   * Memory planes of a frame.
   */
  uint32_t planes;
  /**
   * Bytes of all buffers together.
   */
  uint64_t buffer_bytes;
  /**
   * How the holder before this one ended: CAMLEASE_EXIT_CLEAN, CAMLEASE_EXIT_DIED or CAMLEASE_EXIT_DIRTY.
   */
  uint32_t last_exit;
  /**
   * The priority that it was opened with.
   */
  int32_t priority;
};

/**
 * Counters since the camera was opened. Initialise with CAMLEASE_CAMERA_STATS_INIT.
 */
struct camlease_camera_stats {
  /**
   * Set by the initialiser.
   */
  size_t struct_size;
  /**
   * Frames that the host got.
   */
  uint64_t frames;
  /**
   * Frames that the camera made and the host did not get: gaps in the sequence numbers. Of shared:NAME?every=N, or
   * with rate=R, those that were not wanted are among them.
   */
  uint64_t dropped;
  /**
   * Frames that were flagged CAMLEASE_FRAME_CORRUPT.
   */
  uint64_t corrupt;
  /**
   * Attempts that opening it took.
   */
  uint64_t open_attempts;
  /**
   * Nanoseconds that opening it waited.
   */
  uint64_t busy_wait_ns;
  /**
   * Resets of the device, by camlease_camera_reset() and before its use.
   */
  uint64_t resets;
  /**
   * Times that the stream stalled. 0 in this version.
   */
  uint64_t stalls;
  /**
   * Times that the device was opened again underneath: by camlease_camera_regain().
   */
  uint64_t reconnects;
  /**
   * Frames with the host now.
   */
  uint64_t frames_out;
  /**
   * Bytes of memory that these keep.
   */
  uint64_t bytes_out;
  /**
   * Frames of a shared camera that were published since the last one that the host took; 0 for others. While another
   * thread is inside a driver, as it was told last.
   */
  uint64_t behind;
};

/**
 * One control. Initialise with CAMLEASE_CONTROL_INFO_INIT.
 */
struct camlease_control_info {
  /**
   * Set by the initialiser.
   */
  size_t struct_size;
  /**
   * V4L2's id.
   */
  uint32_t id;
  /**
   * CAMLEASE_CONTROL_INTEGER to CAMLEASE_CONTROL_OTHER; V4L2's number of the type where it has one.
   */
  uint32_t kind;
  /**
   * The driver's words, UTF-8, valid until the list is freed.
   */
  const char *name;
  /**
   * Least value.
   */
  int64_t minimum;
  /**
   * Greatest value.
   */
  int64_t maximum;
  /**
   * From one value to the next.
   */
  int64_t step;
  /**
   * What the camera starts with.
   */
  int64_t default_value;
  /**
   * Sum of CAMLEASE_CONTROL_READABLE, CAMLEASE_CONTROL_WRITABLE and CAMLEASE_CONTROL_ACTIVE.
   */
  uint32_t flags;
  /**
   * Entries of its menu, or 0.
   */
  uint32_t menu_len;
};

/**
 * A camera of this machine. Initialise with CAMLEASE_DEVICE_INFO_INIT. The texts are UTF-8, never NULL, and
 * valid until the list is freed.
 */
struct camlease_device_info {
  /**
   * Set by the initialiser.
   */
  size_t struct_size;
  /**
   * The name that opens it.
   */
  const char *uri;
  /**
   * What the driver calls it.
   */
  const char *name;
  /**
   * The driver.
   */
  const char *driver;
  /**
   * Its USB serial number, or "".
   */
  const char *serial;
  /**
   * Where it is plugged in, or "".
   */
  const char *bus;
  /**
   * CAMLEASE_DEVICE_FREE to CAMLEASE_DEVICE_UNKNOWN.
   */
  uint32_t state;
};

/**
 * How to evict. Initialise with CAMLEASE_EVICT_OPTIONS_INIT.
 */
struct camlease_evict_options {
  /**
   * Set by the initialiser.
   */
  size_t struct_size;
  /**
   * Sum of CAMLEASE_EVICT_ flags, or 0.
   */
  uint32_t flags;
  /**
   * Milliseconds that a holder has to let go: once when it is asked, and once more after SIGTERM. Then it is killed.
   */
  int32_t grace_ms;
  /**
   * What the caller calls itself, told to a holder that is asked; or NULL.
   */
  const char *name;
  /**
   * Ends the wait when it is signalled, or NULL. What was done until then stays done.
   */
  struct camlease_cancel *cancel;
};

/**
 * A pixel format in one size, or in a range of sizes, at one rate, or in a range of rates. Initialise with
 * CAMLEASE_FORMAT_INFO_INIT.
 */
struct camlease_format_info {
  /**
   * Set by the initialiser.
   */
  size_t struct_size;
  /**
   * V4L2 pixel format.
   */
  uint32_t fourcc;
  /**
   * Sum of CAMLEASE_FORMAT_ flags, or 0.
   */
  uint32_t flags;
  /**
   * The driver's words for the format, UTF-8, valid until the list is freed.
   */
  const char *description;
  /**
   * Pixels. Equal least and greatest values for a single size.
   */
  uint32_t min_width;
  /**
   * Pixels.
   */
  uint32_t max_width;
  /**
   * Pixels from one width to the next in a range; 0 for a single size.
   */
  uint32_t step_width;
  /**
   * Pixels.
   */
  uint32_t min_height;
  /**
   * Pixels.
   */
  uint32_t max_height;
  /**
   * Pixels from one height to the next in a range; 0 for a single size.
   */
  uint32_t step_height;
  /**
   * The slowest rate, frames per second as a fraction; 0/0 where the driver does not tell.
   */
  uint32_t min_fps_numerator;
  /**
   * See min_fps_numerator.
   */
  uint32_t min_fps_denominator;
  /**
   * The fastest rate, equal to the slowest for a single rate.
   */
  uint32_t max_fps_numerator;
  /**
   * See max_fps_numerator.
   */
  uint32_t max_fps_denominator;
};

/**
 * One memory plane of a frame.
 */
struct camlease_plane {
  /**
   * First byte.
   */
  const uint8_t *data;
  /**
   * Bytes.
   */
  size_t size;
  /**
   * Bytes from one line to the next; 0 for compressed frames.
   */
  uint32_t stride;
};

/**
 * What a frame holds. Initialise with CAMLEASE_FRAME_DATA_INIT. The pointers are valid until the frame is
 * released; the bytes are not to be written.
 */
struct camlease_frame_data {
  /**
   * Set by the initialiser.
   */
  size_t struct_size;
  /**
   * First byte of the first plane.
   */
  const uint8_t *data;
  /**
   * Bytes in the first plane.
   */
  size_t size;
  /**
   * Pixels.
   */
  uint32_t width;
  /**
   * Pixels.
   */
  uint32_t height;
  /**
   * V4L2 pixel format.
   */
  uint32_t fourcc;
  /**
   * Bytes from one line to the next in the first plane; 0 for compressed frames.
   */
  uint32_t stride;
  /**
   * The camera's own count; a gap tells of frames that were dropped.
   */
  uint64_t sequence;
  /**
   * Of the exposure, or as near as the driver tells, in nanoseconds of CLOCK_MONOTONIC.
   */
  int64_t timestamp_ns;
  /**
   * Sum of CAMLEASE_FRAME_ flags, or 0.
   */
  uint32_t flags;
  /**
   * Memory planes, 1 to 4. A planar format in one piece of memory, as V4L2's NV12, has one.
   */
  uint32_t planes;
  /**
   * The planes, the first one again included.
   */
  struct camlease_plane plane[4];
};

/**
 * Takes a log message. It may come from any thread that is in a call of this library, from several
 * at once, and must not call this library nor throw.
 *
 * @param user_data What was given with the callback.
 * @param level CAMLEASE_LOG_ERROR to CAMLEASE_LOG_DEBUG.
 * @param message UTF-8 text without a line end, valid during the callback.
 */
typedef void (*camlease_log_callback)(void *user_data, uint32_t level, const char *message);

/**
 * How to reset a camera. Initialise with CAMLEASE_RESET_OPTIONS_INIT.
 */
struct camlease_reset_options {
  /**
   * Set by the initialiser.
   */
  size_t struct_size;
  /**
   * Milliseconds for all of it: the reset, the camera's return, and a fresh frame. -1 waits without end.
   */
  int32_t timeout_ms;
};

/**
 * How to share a camera. Initialise with CAMLEASE_SHARE_OPTIONS_INIT. What it points to is read during the call alone.
 */
struct camlease_share_options {
  /**
   * Set by the initialiser.
   */
  size_t struct_size;
  /**
   * By what name others open it, as shared:NAME: up to 64 letters, digits, dots, dashes and underscores. It is one
   * for the whole machine.
   */
  const char *name;
  /**
   * Who may read it: CAMLEASE_ALLOWED_OWNER, CAMLEASE_ALLOWED_GROUP or CAMLEASE_ALLOWED_EVERYONE.
   */
  uint32_t readers;
  /**
   * The group's number (gid), for CAMLEASE_ALLOWED_GROUP.
   */
  uint32_t readers_group;
  /**
   * Who may start and stop it, and set its format and controls: one of CAMLEASE_ALLOWED_. Who is not
   * among the readers may look at the camera's status, formats and controls, and gets no frames.
   */
  uint32_t commanders;
  /**
   * See readers_group.
   */
  uint32_t commanders_group;
  /**
   * CAMLEASE_SHARE_ON_DEMAND or CAMLEASE_SHARE_ALWAYS.
   */
  uint32_t start;
  /**
   * How many of the newest frames are kept for readers who take all in order (CAMLEASE_DROP_NEWEST), 1 to 32; 0 for
   * 4.
   */
  uint32_t history;
  /**
   * Most bytes of memory for the frames of one format; 0 for 512 MiB. It is taken as readers hold frames, up to 64
   * of them, and has to have room for history + 2.
   */
  uint64_t max_bytes;
  /**
   * What is streamed until somebody asks for something else, or NULL for the device's own. buffers and max_bytes are
   * about the camera's own buffers, drop_policy about the frames that this process takes out of them: without it
   * CAMLEASE_DROP_NEWEST.
   */
  const struct camlease_stream_options *stream;
};

/**
 * Success.
 */
#define CAMLEASE_OK 0

/**
 * An argument is not what the call takes; the message says which.
 */
#define CAMLEASE_INVALID_ARGUMENT 1

/**
 * The handle is NULL, was closed, freed or released, is of another kind, or never was one.
 */
#define CAMLEASE_INVALID_HANDLE 2

/**
 * There is no such camera or file.
 */
#define CAMLEASE_NOT_FOUND 3

/**
 * Somebody else has the camera; the message says who.
 */
#define CAMLEASE_BUSY 4

/**
 * Nothing happened in time.
 */
#define CAMLEASE_TIMEOUT 5

/**
 * The camera is gone: unplugged, or its driver let go of it, or a recording has ended.
 */
#define CAMLEASE_DISCONNECTED 6

/**
 * The system does not allow it; the message names the group to join.
 */
#define CAMLEASE_PERMISSION 7

/**
 * The camera, or this version of the library, cannot do it.
 */
#define CAMLEASE_UNSUPPORTED 8

/**
 * Not now: the camera streams already, or does not stream.
 */
#define CAMLEASE_WRONG_STATE 9

/**
 * The driver or the hardware reports an error.
 */
#define CAMLEASE_IO 10

/**
 * The USB bus is full; the message says what would need less.
 */
#define CAMLEASE_NO_BANDWIDTH 11

/**
 * A bound on memory would be passed, the host's own or the kernel's.
 */
#define CAMLEASE_BUDGET 12

/**
 * The camera was handed over to somebody else.
 */
#define CAMLEASE_EVICTED 13

/**
 * The handle belongs to the parent process.
 */
#define CAMLEASE_FORKED 14

/**
 * The library was shut down.
 */
#define CAMLEASE_SHUT_DOWN 15

/**
 * The camera stopped sending frames.
 */
#define CAMLEASE_STALLED 16

/**
 * The camera was closed, or the wait for it cancelled, while this call waited.
 */
#define CAMLEASE_CLOSED 17

/**
 * An error of the library itself; please report it with the message.
 */
#define CAMLEASE_INTERNAL 255

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Opens a camera. After CAMLEASE_OK no other program can stream from it. A camera that somebody else has is waited
 * for: the call wakes by the kernel's notice that the holder let go. shared:NAME is a camera that another process
 * shares, by camlease_share_start() or the command camlease serve: any number of readers open it, and none keeps it
 * from others.
 *
 * @param uri The camera: /dev/videoN or another path to a video node, v4l2:PATH, usb:VID:PID[:SERIAL],
 * virtual:NAME?width=640&height=480&fps=30&fourcc=YUYV, file:PATH?loop=1&fps=30, shared:NAME?every=N&rate=R.
 * @param options NULL for the initialiser's values.
 * @param out The camera, to be closed by camlease_camera_close(). NULL on failure.
 * @return CAMLEASE_OK; CAMLEASE_BUSY when it was not free in time (the message names who has it);
 * CAMLEASE_NOT_FOUND, CAMLEASE_PERMISSION, CAMLEASE_UNSUPPORTED (no camera, or a kind that this version
 * does not know), CAMLEASE_DISCONNECTED, CAMLEASE_IO; CAMLEASE_CLOSED when it was cancelled;
 * CAMLEASE_SHUT_DOWN. Callable from any thread; two opens of one camera are two holders.
 */
camlease_status camlease_camera_open(const char *uri,
                                     const struct camlease_open_options *options,
                                     struct camlease_camera **out);

/**
 * Closes a camera: the device is free for others when this returns, even with frames out, which stay readable
 * at their addresses until they are released. Calls that wait on it return CAMLEASE_CLOSED.
 *
 * @param camera The camera; its handle is used up.
 * @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED. Callable from any thread.
 */
camlease_status camlease_camera_close(struct camlease_camera *camera);

/**
 * Gets a camera back under its handle that was handed over to somebody else (CAMLEASE_EVICTED), or that a reset lost
 * (CAMLEASE_DISCONNECTED from then on): waits until it is free again, or back. It does not stream then, and what
 * camlease_camera_info() lent stays as it was.
 *
 * @param camera The camera.
 * @param timeout_ms Milliseconds to wait; 0 tries once, -1 waits without end.
 * @return CAMLEASE_OK; CAMLEASE_BUSY, CAMLEASE_NOT_FOUND and the like as camlease_camera_open(); CAMLEASE_WRONG_STATE
 * when it is held, or another thread waits for it already; CAMLEASE_CLOSED when it was closed meanwhile;
 * CAMLEASE_SHUT_DOWN, CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. Callable from any thread.
 */
camlease_status camlease_camera_regain(struct camlease_camera *camera,
                                       int32_t timeout_ms);

/**
 * Starts streaming.
 *
 * @param camera The camera.
 * @param options NULL for the device's own values.
 * @return CAMLEASE_OK; CAMLEASE_WRONG_STATE when it streams already; CAMLEASE_NO_BANDWIDTH when the USB bus is full;
 * CAMLEASE_BUDGET, CAMLEASE_UNSUPPORTED, CAMLEASE_INVALID_ARGUMENT, CAMLEASE_IO, CAMLEASE_DISCONNECTED;
 * CAMLEASE_EVICTED when it was handed over; CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. For shared:NAME also
 * CAMLEASE_NOT_FOUND when nobody shares it any more; CAMLEASE_BUSY, CAMLEASE_PERMISSION when it is streamed otherwise
 * (see camlease_stream_options); CAMLEASE_BUDGET when its memory is taken by other readers; CAMLEASE_TIMEOUT when no
 * frames are to be had within 10 s; CAMLEASE_WRONG_STATE when it was stopped by command. Callable from any thread.
 */
camlease_status camlease_camera_start(struct camlease_camera *camera,
                                      const struct camlease_stream_options *options);

/**
 * Stops streaming. The camera stays held; frames that are out stay readable. Calls that wait for a frame
 * return CAMLEASE_WRONG_STATE.
 *
 * @param camera The camera.
 * @return CAMLEASE_OK; CAMLEASE_WRONG_STATE when it does not stream; CAMLEASE_DISCONNECTED or CAMLEASE_IO when
 * the driver reports an error (the stream has ended all the same); CAMLEASE_INVALID_HANDLE,
 * CAMLEASE_FORKED. Callable from any thread.
 */
camlease_status camlease_camera_stop(struct camlease_camera *camera);

/**
 * Takes the next frame: the newest, or the next in order, by camlease_stream_options.drop_policy.
 *
 * A shared camera's reader goes on under the same handle whatever becomes of the process that shares it: once told of
 * its end (CAMLEASE_DISCONNECTED) the host calls on, which waits up to timeout_ms, and frames come again when that
 * process is back, in another size or format where that has one, and with sequence numbers from 0.
 *
 * @param camera The camera.
 * @param timeout_ms Milliseconds to wait; 0 tries once, -1 waits without end.
 * @param out The frame, to be released by camlease_frame_release(). NULL on failure.
 * @return CAMLEASE_OK; CAMLEASE_TIMEOUT; CAMLEASE_WRONG_STATE when it does not stream; CAMLEASE_DISCONNECTED when the
 * camera is gone; CAMLEASE_IO when the driver's queue broke; CAMLEASE_CLOSED, CAMLEASE_SHUT_DOWN or CAMLEASE_EVICTED
 * when that happened meanwhile, or before; CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. Callable from any thread.
 */
camlease_status camlease_camera_next_frame(struct camlease_camera *camera,
                                           int32_t timeout_ms,
                                           struct camlease_frame **out);

/**
 * A descriptor for the host's own poll, epoll or select loop. It is readable when a frame can be had, and when
 * the next call would report an error. The library's own: not to be read or closed. It holds no device.
 *
 * @param camera The camera.
 * @param out The descriptor, valid until the camera is closed.
 * @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED, CAMLEASE_EVICTED or CAMLEASE_SHUT_DOWN. Callable from
 * any thread.
 */
camlease_status camlease_camera_fd(struct camlease_camera *camera,
                                   int32_t *out);

/**
 * Who the camera is and what its stream is set to.
 *
 * @param camera The camera.
 * @param out To be filled.
 * @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED or CAMLEASE_INVALID_ARGUMENT. Callable from any
 * thread.
 */
camlease_status camlease_camera_info(struct camlease_camera *camera,
                                     struct camlease_camera_info *out);

/**
 * Counters since the camera was opened.
 *
 * @param camera The camera.
 * @param out To be filled.
 * @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED or CAMLEASE_INVALID_ARGUMENT. Callable from any
 * thread.
 */
camlease_status camlease_camera_stats(struct camlease_camera *camera,
                                      struct camlease_camera_stats *out);

/**
 * Reads a control. The id is V4L2's.
 *
 * @param camera The camera.
 * @param id As camlease_control_list_get() tells it.
 * @param out The value.
 * @return CAMLEASE_OK; CAMLEASE_INVALID_ARGUMENT when there is no such control; CAMLEASE_UNSUPPORTED when it
 * cannot be read; CAMLEASE_TIMEOUT when the camera does not answer; CAMLEASE_IO, CAMLEASE_DISCONNECTED;
 * CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. Callable from any thread.
 */
camlease_status camlease_camera_get_control(struct camlease_camera *camera, uint32_t id, int64_t *out);

/**
 * Sets a control. A driver may round the value: read it back. Frames go on meanwhile.
 *
 * @param camera The camera.
 * @param id As camlease_control_list_get() tells it.
 * @param value Within the control's minimum and maximum; anything for a button.
 * @return As camlease_camera_get_control(), and CAMLEASE_WRONG_STATE when another setting or the stream has
 * the control. Callable from any thread.
 */
camlease_status camlease_camera_set_control(struct camlease_camera *camera, uint32_t id, int64_t value);

/**
 * Makes a handle that camlease_open_options.cancel takes.
 *
 * @param out The handle, to be freed by camlease_cancel_free().
 * @return CAMLEASE_OK, or CAMLEASE_IO when the process has no descriptor left.
 */
camlease_status camlease_cancel_new(struct camlease_cancel **out);

/**
 * Ends every open that waits with this handle, now and later: they give CAMLEASE_CLOSED. Callable from
 * any thread, and, with a handle that is valid, from a signal handler.
 *
 * @param cancel The handle.
 * @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED.
 */
camlease_status camlease_cancel_signal(struct camlease_cancel *cancel);

/**
 * Frees the handle. Opens that wait with it go on to wait.
 *
 * @param cancel The handle.
 * @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED.
 */
camlease_status camlease_cancel_free(struct camlease_cancel *cancel);

/**
 * Lists a camera's controls.
 *
 * @param camera The camera; it may stream meanwhile.
 * @param out The list, to be freed by camlease_control_list_free(). NULL on failure.
 * @return CAMLEASE_OK; CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. Callable from any thread.
 */
camlease_status camlease_control_list_new(struct camlease_camera *camera, struct camlease_control_list **out);

/**
 * How many controls a list has.
 *
 * @param list The list.
 * @return The number; 0 for a handle that is none.
 */
size_t camlease_control_list_len(const struct camlease_control_list *list);

/**
 * One control of a list.
 *
 * @param list The list.
 * @param index From 0.
 * @param out To be filled.
 * @return CAMLEASE_OK; CAMLEASE_INVALID_ARGUMENT when the list is not that long; CAMLEASE_INVALID_HANDLE,
 * CAMLEASE_FORKED. Callable from any thread.
 */
camlease_status camlease_control_list_get(const struct camlease_control_list *list,
                                          size_t index,
                                          struct camlease_control_info *out);

/**
 * One entry of a menu control.
 *
 * @param list The list.
 * @param index The control, from 0.
 * @param item The entry, from 0 to menu_len - 1.
 * @param value The value that chooses it.
 * @param name Its name, UTF-8, valid until the list is freed.
 * @return As camlease_control_list_get().
 */
camlease_status camlease_control_list_menu(const struct camlease_control_list *list,
                                           size_t index,
                                           size_t item,
                                           int64_t *value,
                                           const char **name);

/**
 * Frees a list and the texts in it.
 *
 * @param list The list; its handle is used up.
 * @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED.
 */
camlease_status camlease_control_list_free(struct camlease_control_list *list);

/**
 * Lists the cameras of this machine: V4L2 nodes that give pictures, and virtual cameras that somebody holds.
 *
 * @param out The list, to be freed by camlease_device_list_free(). NULL on failure.
 * @return CAMLEASE_OK, also when there is no camera. Callable from any thread.
 */
camlease_status camlease_device_list_new(struct camlease_device_list **out);

/**
 * How many cameras a list has.
 *
 * @param list The list.
 * @return The number; 0 for a handle that is none.
 */
size_t camlease_device_list_len(const struct camlease_device_list *list);

/**
 * One camera of a list.
 *
 * @param list The list.
 * @param index From 0.
 * @param out To be filled.
 * @return CAMLEASE_OK; CAMLEASE_INVALID_ARGUMENT when the list is not that long; CAMLEASE_INVALID_HANDLE,
 * CAMLEASE_FORKED. Callable from any thread.
 */
camlease_status camlease_device_list_get(const struct camlease_device_list *list,
                                         size_t index,
                                         struct camlease_device_info *out);

/**
 * Frees a list and the texts in it.
 *
 * @param list The list; its handle is used up.
 * @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED.
 */
camlease_status camlease_device_list_free(struct camlease_device_list *list);

/**
 * Removes the processes that keep a camera busy, all at the same time: one that uses this library is asked to hand it
 * over; then they are sent SIGTERM, and SIGKILL to those who have not let go in time. At the end the camera is claimed
 * for a moment, to be sure that it is free. A process that merely has it open beside its holder is left in peace.
 *
 * Refused are this process and its ancestors, process 1, kernel threads, processes that this one may not signal, and a
 * pid that is another process's by now. Where one is refused that streams, the others are left alone as well: their end
 * would free nothing.
 *
 * @param uri The camera, as for camlease_camera_open(); a name that fits several cameras is refused.
 * @param options NULL for the initialiser's values.
 * @param out Each holder with outcome and reason, to be freed by camlease_holder_list_free(); empty when the camera
 * was free. NULL on failure.
 * @return CAMLEASE_OK when each outcome is known: the camera was free at the end where no outcome is
 * CAMLEASE_OUTCOME_REFUSED or CAMLEASE_OUTCOME_SURVIVED. CAMLEASE_BUSY when it is not free and nobody is found who has
 * it, or somebody new each time; CAMLEASE_CLOSED when it was cancelled; what camlease_camera_open() gives where the
 * camera cannot be claimed for another reason. Callable from any thread.
 */
camlease_status camlease_evict(const char *uri,
                               const struct camlease_evict_options *options,
                               struct camlease_holder_list **out);

/**
 * Lists what a camera offers.
 *
 * @param camera The camera; it may stream meanwhile.
 * @param out The list, to be freed by camlease_format_list_free(). NULL on failure.
 * @return CAMLEASE_OK, CAMLEASE_DISCONNECTED, CAMLEASE_IO; CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. Callable
 * from any thread.
 */
camlease_status camlease_format_list_new(struct camlease_camera *camera, struct camlease_format_list **out);

/**
 * How many entries a list has.
 *
 * @param list The list.
 * @return The number; 0 for a handle that is none.
 */
size_t camlease_format_list_len(const struct camlease_format_list *list);

/**
 * One entry of a list.
 *
 * @param list The list.
 * @param index From 0.
 * @param out To be filled.
 * @return CAMLEASE_OK; CAMLEASE_INVALID_ARGUMENT when the list is not that long; CAMLEASE_INVALID_HANDLE,
 * CAMLEASE_FORKED. Callable from any thread.
 */
camlease_status camlease_format_list_get(const struct camlease_format_list *list,
                                         size_t index,
                                         struct camlease_format_info *out);

/**
 * Frees a list and the texts in it.
 *
 * @param list The list; its handle is used up.
 * @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED.
 */
camlease_status camlease_format_list_free(struct camlease_format_list *list);

/**
 * What a frame holds.
 *
 * @param frame The frame.
 * @param out To be filled.
 * @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED or CAMLEASE_INVALID_ARGUMENT. Callable from any
 * thread.
 */
camlease_status camlease_frame_info(const struct camlease_frame *frame,
                                    struct camlease_frame_data *out);

/**
 * Releases a frame: its buffer goes back to the camera.
 *
 * @param frame The frame; its handle is used up.
 * @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED. Callable from any thread.
 */
camlease_status camlease_frame_release(struct camlease_frame *frame);

/**
 * Finds who has a camera, this process included. It is read from /proc: nothing can be stale.
 *
 * @param uri The camera, as for camlease_camera_open().
 * @param out The list, to be freed by camlease_holder_list_free(). NULL on failure.
 * @return CAMLEASE_OK, also when nobody has it or there is no such camera; CAMLEASE_INVALID_ARGUMENT or
 * CAMLEASE_UNSUPPORTED for a name that is none. Callable from any thread.
 */
camlease_status camlease_holder_list_new(const char *uri, struct camlease_holder_list **out);

/**
 * How many holders a list has.
 *
 * @param list The list.
 * @return The number; 0 for a handle that is none.
 */
size_t camlease_holder_list_len(const struct camlease_holder_list *list);

/**
 * How many processes could not be looked at, as those of other users: they may be holders, too.
 *
 * @param list The list.
 * @return The number; 0 when the list is complete, or for a handle that is none.
 */
size_t camlease_holder_list_unreadable(const struct camlease_holder_list *list);

/**
 * One holder of a list: those who stream first.
 *
 * @param list The list.
 * @param index From 0.
 * @param out To be filled.
 * @return CAMLEASE_OK; CAMLEASE_INVALID_ARGUMENT when the list is not that long; CAMLEASE_INVALID_HANDLE,
 * CAMLEASE_FORKED. Callable from any thread.
 */
camlease_status camlease_holder_list_get(const struct camlease_holder_list *list,
                                         size_t index,
                                         struct camlease_holder *out);

/**
 * Frees a list and the texts in it.
 *
 * @param list The list; its handle is used up.
 * @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED.
 */
camlease_status camlease_holder_list_free(struct camlease_holder_list *list);

/**
 * Version of the library that runs, for a program that loaded it at run time.
 *
 * @return major << 16 | minor << 8 | patch.
 */
uint32_t camlease_version(void);

/**
 * Version of the library that runs, in words.
 *
 * @return A string such as "0.1.0", never freed.
 */
const char *camlease_version_string(void);

/**
 * Closes every camera of this process and lets none be opened after: a later open gives
 * CAMLEASE_SHUT_DOWN, and so does every call that waits now, or that uses a camera which was open.
 * Frames that are out stay readable until they are released. Handles are still to be closed and
 * freed. Runs by itself at exit and when the library is unloaded. Callable from any thread, any
 * number of times.
 *
 * @return CAMLEASE_OK; CAMLEASE_TIMEOUT when a driver hung for longer than
 * camlease_set_shutdown_timeout() allows: the kernel then lets go of that camera when it returns.
 */
camlease_status camlease_shutdown(void);

/**
 * Bounds how long exit, unload and camlease_shutdown() may take when a driver hangs.
 *
 * @param timeout_ms Milliseconds for all cameras together; 3000 unless set. Callable from any thread.
 */
void camlease_set_shutdown_timeout(uint32_t timeout_ms);

/**
 * Sets where log messages go. Without this call the library prints nothing.
 *
 * @param callback Takes messages from now on; NULL for none. When this call returns, no thread is in
 * the former callback any more.
 * @param user_data Handed to the callback.
 * @param level The most talkative level wanted, CAMLEASE_LOG_ERROR to CAMLEASE_LOG_DEBUG.
 * @return CAMLEASE_OK; CAMLEASE_INVALID_ARGUMENT for another level; CAMLEASE_UNSUPPORTED in a Rust
 * program that has a logger of its own; CAMLEASE_WRONG_STATE when a thread does not return from the former
 * callback. Callable from any thread, but not from a log callback.
 */
camlease_status camlease_set_log_callback(camlease_log_callback callback, void *user_data, uint32_t level);

/**
 * Resets a camera's USB port, as if it were unplugged and plugged in again: for one that is stuck. Waits until the
 * same camera is back, claims it, and sees a fresh frame of it.
 *
 * A camera that streamed streams on, with what it was started with, and its sequence numbers begin anew; one that
 * did not does not afterwards. The handle and its descriptor stay. Frames that are out stay readable. Other calls on
 * the camera wait meanwhile, but for camlease_frame_release() and camlease_camera_close(). Controls have the values
 * that the camera has when it is plugged in. All of the device is reset: a camera's microphone, too.
 *
 * When it does not come back, it is lost: calls on it give CAMLEASE_DISCONNECTED and the reason, until
 * camlease_camera_regain() gets it back. The kernel asks a camera that does not answer for some seconds more than this
 * call may wait.
 *
 * @param camera The camera.
 * @param options NULL for the initialiser's values.
 * @return CAMLEASE_OK. With nothing changed: CAMLEASE_UNSUPPORTED for a camera that is not on USB;
 * CAMLEASE_PERMISSION (the message has the udev rule that grants it); CAMLEASE_BUSY when somebody streams from another
 * node of the same device; CAMLEASE_INVALID_ARGUMENT, which timeout_ms 0 is, too. And
 * CAMLEASE_IO when the port refused, and the camera goes on as before; CAMLEASE_TIMEOUT when the camera is back and
 * held, but no frame came in time, or another failure of camlease_camera_start(), when it is held and does not stream;
 * CAMLEASE_DISCONNECTED when it is lost: it did not come back in time, or somebody else took it; CAMLEASE_CLOSED,
 * CAMLEASE_SHUT_DOWN or CAMLEASE_EVICTED when that happened meanwhile; CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED.
 * Callable from any thread.
 */
camlease_status camlease_camera_reset(struct camlease_camera *camera,
                                      const struct camlease_reset_options *options);

/**
 * Shares an open camera with other processes, which open it as shared:NAME by the same calls as any camera. Its frames
 * are copied once, or not at all, into memory that readers can only read; each reader gets its own, and none delays
 * another or this process. The stream is the share's from now on: to read the camera in this process, open shared:NAME
 * here, too. The share ends with camlease_share_stop(), with camlease_camera_close(), and with this process, however
 * that ends.
 *
 * Meanwhile camlease_camera_start(), _stop(), _next_frame() and _regain() on this handle give
 * CAMLEASE_WRONG_STATE; controls, lists, camlease_camera_info() and camlease_camera_stats() go on. Two threads of the
 * library's serve the readers, with all signals blocked: the host need not do anything. When the camera is gone, or is
 * handed over to somebody else, they get it back as soon as it is there again, and the readers go on.
 *
 * @param camera The camera, which stays the host's; it must not stream.
 * @param options How; the name is needed.
 * @return CAMLEASE_OK, also where the camera cannot stream: that is found when somebody reads. CAMLEASE_BUSY when a
 * camera is shared by this name already; CAMLEASE_WRONG_STATE when the camera streams or is shared already;
 * CAMLEASE_UNSUPPORTED for a camera that was opened as shared:NAME, or attached to: others open it as that, too;
 * CAMLEASE_INVALID_ARGUMENT, also for options NULL; CAMLEASE_PERMISSION, CAMLEASE_NOT_FOUND, CAMLEASE_IO when the name
 * cannot be put into the runtime folder; CAMLEASE_DISCONNECTED, CAMLEASE_EVICTED, CAMLEASE_SHUT_DOWN;
 * CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. Callable from any thread.
 */
camlease_status camlease_share_start(struct camlease_camera *camera,
                                     const struct camlease_share_options *options);

/**
 * Shares a camera no longer: its readers see CAMLEASE_DISCONNECTED, and frames that they hold stay readable to them.
 * The camera stays held, and does not stream.
 *
 * @param camera The camera.
 * @return CAMLEASE_OK; CAMLEASE_WRONG_STATE when it is not shared; CAMLEASE_TIMEOUT when a driver does not return to the
 * library's thread within a second: the readers are gone then, too, but the stream is not the host's before a further
 * call gives CAMLEASE_OK; CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. Callable from any thread.
 */
camlease_status camlease_share_stop(struct camlease_camera *camera);

/**
 * Sends a command to the process that shares a camera, and waits for its answer: {"do": "status"}, and what else the
 * manual's chapter on sharing lists. Commands that change something need the rights to
 * (camlease_share_options.commanders); {"do": "take-control", "priority": N} reserves them for this handle, until
 * {"do": "release-control"}, its close, or somebody takes it with a higher priority, and the stream goes on meanwhile.
 * It goes to the process that shares the camera by then.
 *
 * @param camera A camera that was opened as shared:NAME, or with an access by which it was attached to; it need not
 * stream. For the one who shares it, {"do": "status"} alone.
 * @param request A JSON object, up to 4000 bytes of UTF-8.
 * @param timeout_ms Milliseconds to wait for the answer; -1 waits without end.
 * @param out The answer, a JSON object, to be freed by camlease_reply_free(). NULL on failure.
 * @return CAMLEASE_OK; the failure that the other process tells of, with its message: CAMLEASE_PERMISSION when this
 * process may not command, CAMLEASE_BUSY when another has taken the control or reads a format that would change,
 * CAMLEASE_UNSUPPORTED for a command that is not known there; CAMLEASE_TIMEOUT when it does not answer;
 * CAMLEASE_DISCONNECTED when it went meanwhile, CAMLEASE_NOT_FOUND when nobody shares the camera any more;
 * CAMLEASE_INVALID_ARGUMENT when request is no JSON object or too long; CAMLEASE_UNSUPPORTED for a camera that is not
 * shared; CAMLEASE_WRONG_STATE for the one who shares it; CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. Callable from any
 * thread: commands by one handle take turns.
 */
camlease_status camlease_camera_command(struct camlease_camera *camera,
                                        const char *request,
                                        int32_t timeout_ms,
                                        struct camlease_reply **out);

/**
 * The text of an answer.
 *
 * @param reply The answer.
 * @return A JSON object in one line, valid until the answer is freed; NULL when this is no answer's handle. Callable
 * from any thread.
 */
const char *camlease_reply_text(const struct camlease_reply *reply);

/**
 * Frees an answer.
 *
 * @param reply The answer; its handle is used up.
 * @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED. Callable from any thread.
 */
camlease_status camlease_reply_free(struct camlease_reply *reply);

/**
 * From now on, when one of these signals arrives, the cameras of this process are released, the last one opened
 * first, and then the signal does what it would have done without this library: the host's own handler runs, in the
 * same thread and with the same arguments, or the default action is taken. The release takes up to
 * camlease_set_shutdown_timeout(). A second signal is not held up by the first.
 *
 * Calls on released cameras give CAMLEASE_CLOSED, and so do opens that were under way; their handles are still to be
 * closed. Cameras may be opened again if the host goes on. Handlers that the host installs later replace this
 * library's; they may call what they replaced. An ignored signal stays ignored. A thread that the signal finds in a call
 * of this library gets its effect before that call returns.
 *
 * @param set Sum of CAMLEASE_SIGNAL_ values, which replaces the former set; 0 takes this library's handlers away again.
 * So does unloading the library.
 * @return CAMLEASE_OK; CAMLEASE_INVALID_ARGUMENT for a value that is not known; CAMLEASE_SHUT_DOWN; CAMLEASE_IO when
 * the process has no thread or memory left. Callable from any thread, but not from a signal handler.
 */
camlease_status camlease_release_on_signals(uint32_t set);

/**
 * Name of a status value, as "CAMLEASE_BUSY".
 *
 * @param status Any number.
 * @return A string that is never freed; "CAMLEASE_UNKNOWN" for a number that is no status value.
 * Callable from any thread.
 */
const char *camlease_status_name(camlease_status status);

/**
 * The calling thread's last failure in words: the camera, what was tried, the reason, what to do.
 *
 * @return UTF-8 text, never NULL; "" before the first failure. Valid until the thread's next failing
 * call or its end.
 */
const char *camlease_last_error_message(void);

/**
 * The operating system's error number behind the calling thread's last failure.
 *
 * @return An errno value, or 0 where no system call failed.
 */
int32_t camlease_last_error_errno(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CAMLEASE_H */
