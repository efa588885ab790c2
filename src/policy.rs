//! Every number that is a choice of ours, with its unit and its reason.

use std::time::Duration;

/// How long `open` waits for a busy camera when the host does not say.
pub const OPEN_TIMEOUT: Duration = Duration::from_millis(5000);

/// After the kernel's notice that a holder closed the node, the driver still lets go of the buffers:
/// 24 ms were seen at most on uvcvideo, 6.5 ms on vivid. Twice that, then back off.
pub const TIGHT_WINDOW: Duration = Duration::from_millis(50);

/// Pause between two claims inside [`TIGHT_WINDOW`].
pub const TIGHT_STEP: Duration = Duration::from_micros(100);

/// First and longest pause between two claims when nothing was noticed: a holder that lets go by
/// STREAMOFF and REQBUFS(0) gives no notice at all.
pub const POLL_FIRST: Duration = Duration::from_millis(2);
pub const POLL_LONGEST: Duration = Duration::from_millis(50);

/// How long a holder that is asked for its camera has to finish with its frames, when the one who asks does not say.
pub const HAND_OVER_GRACE: Duration = Duration::from_millis(500);

/// How often a wait looks whether others tell that they hold the camera: that takes some 0.1 ms.
pub const LEASE_LOOK: Duration = Duration::from_millis(100);

/// How long the one who asks may take to say what it wants, once it is connected.
pub const ASK_PATIENCE: Duration = Duration::from_millis(200);

/// How long close waits for a hand-over that is under way, or for the host's callback about one.
pub const HAND_OVER_END: Duration = Duration::from_millis(1000);

/// Longest name of a holder that others see, in bytes.
pub const NAME_MOST: usize = 256;

/// How many descriptors a look at who has a lease takes at a time: its file, and of the process its folder and a file in it.
pub const LOOK_UP_DESCRIPTORS: usize = 3;

/// Most leases in the runtime folder before those of holders that died go, the oldest half of them.
pub const LEASES_KEPT: usize = 512;

/// Most leases of one camera that are looked at: of its holder, those who wait, and what dead ones left.
pub const LEASES_MOST: usize = 256;

/// The longest grace that a holder gives: one who asks for more has made a mistake.
pub const GRACE_MOST: Duration = Duration::from_secs(3600);

/// How long a doorbell that cannot be answered for want of descriptors is left alone.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Names that are tried for a lease's file: each is random, so that a second is needed only under attack.
pub const LEASE_NAMES: usize = 8;

/// How long a new holder waits until the kernel has closed all that a dying one had open: the camera's close is what it
/// waited for already, what else there may be takes microseconds, and more where the processors are busy.
pub const LEASE_SETTLE: Duration = Duration::from_millis(200);

/// How long the stream is waited for to tell a figure of it, before the one is told that was seen last.
pub const GLANCE: Duration = Duration::from_millis(20);

/// How long a holder has after SIGTERM before it is killed, when the host does not say: a program that closes files
/// and stops motors needs about a second.
pub const EVICTION_GRACE: Duration = Duration::from_millis(2000);

/// How much longer than its grace a holder that is asked is waited for: it uses the grace up where frames are out with
/// its host, and then makes these private copies and passes the camera on. One that obeys is not to be ended because the
/// processors are busy; only whoever evicts one that hangs waits that long.
pub const HAND_OVER_LATE: Duration = Duration::from_millis(2000);

/// How long a reset, the camera's return and a fresh frame may take when the host does not say: half a second was seen,
/// and the kernel asks a camera that is slow to answer for five seconds before it asks again.
pub const RESET_TIMEOUT: Duration = Duration::from_millis(10_000);

/// How long a device that is reset may take to close before: a driver that waits for a dead camera in it returns when
/// the reset comes.
pub const RESET_CLOSE_PATIENCE: Duration = Duration::from_millis(1000);

/// Younger processes without a lease are not ended: a holder's child has its open files from fork to exec, or until it
/// has let go of them, for as long as a busy machine takes to come to it.
pub const EVICTION_AGE: Duration = Duration::from_millis(500);

/// How often an eviction tries whether the camera is free: a holder that lets go without ending gives no notice.
pub const EVICTION_LOOK: Duration = Duration::from_millis(50);

/// How long a killed process may take to end: its driver's close is in it, and more is not waited for.
pub const EVICTION_KILL: Duration = Duration::from_millis(3000);

/// How long the driver may take to let go after the last holder did: twenty times what was seen ([`TIGHT_WINDOW`]), as
/// to give up too early would end who merely has the camera open.
pub const EVICTION_SETTLE: Duration = Duration::from_millis(500);

/// How often an eviction turns to holders that came meanwhile: a program that is started again each time wins.
pub const EVICTION_ROUNDS: u32 = 3;

/// Buffers of a stream when the host does not say: one with the host, one being filled, two between.
pub const BUFFERS_DEFAULT: u32 = 4;
/// Fewest buffers that keep a stream going while the host looks at one frame.
pub const BUFFERS_LEAST: u32 = 2;
/// Most buffers that a V4L2 queue has (VIDEO_MAX_FRAME).
pub const BUFFERS_MOST: u32 = 32;

/// A frame that has waited for so many intervals, or so long where the rate is not known, is stale to a host that
/// wants the newest.
pub const STALE_INTERVALS: u64 = 2;
pub const STALE_NS: i64 = 100_000_000;

/// Bound of exit, unload and shutdown, all cameras together, when the host does not say.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_millis(3000);

/// How often shutdown looks whether waiting threads have left, and how long the last one then has to
/// return to its caller.
pub const LEAVE_STEP: Duration = Duration::from_millis(1);
pub const LEAVE_GRACE: Duration = Duration::from_millis(20);

/// On a signal, how long one camera has to be closed before the next one's turn comes: twice what uvcvideo was seen to
/// take. One that hangs goes on to be closed meanwhile.
pub const RELEASE_TURN: Duration = Duration::from_millis(50);

/// After so long without a step of the release, the thread that a signal interrupted is taken to have what the release
/// needs. A step takes less than 1 ms, a copy of large frames that are out 10 ms, and giving up a lease the time that a disk
/// or an emulated machine's takes: 50 ms were seen.
pub const RELEASE_STALL: Duration = Duration::from_millis(100);

/// How long a call that a signal ended waits for the signal's effect in another thread before it returns: a release
/// where no driver hangs.
pub const RELEASE_HOLD: Duration = Duration::from_millis(200);

/// How long a call that sets the signals waits for another one.
pub const SIGNALS_PATIENCE: Duration = Duration::from_millis(1000);

/// How long fork waits for what is in the making, and for the child to let go; and how long what is to be made waits
/// for a fork.
pub const FORK_PATIENCE: Duration = Duration::from_millis(500);

/// A driver's timestamp is taken for a clock's when it lies within this much of that clock's present.
pub const CLOCK_TOLERANCE_NS: i64 = 10_000_000_000;

/// How long a new log callback waits for threads to return from the former one.
pub const LOG_PATIENCE: Duration = Duration::from_millis(1000);

/// Longest name of a virtual camera, in bytes: it becomes part of an abstract socket's name (107 at most).
pub const VIRTUAL_NAME_MOST: usize = 64;

/// Largest side of a virtual or decoded picture, in pixels.
pub const SIDE_MOST: u32 = 16_384;

/// Smallest side of a virtual picture, in pixels: room for the number and time that a frame carries.
pub const VIRTUAL_SIDE_LEAST: u32 = 8;

/// The rate of a recording that tells none, in frames per second.
pub const FILE_FPS_DEFAULT: u32 = 30;

/// Fastest pace of virtual and file cameras, in frames per second: a timer's wake-ups cost more than the frames beyond it.
pub const FPS_MOST: u32 = 1000;

/// Bytes of a file that are looked at together: a frame's head and its thumbnail fit in.
pub const FILE_WINDOW: usize = 64 << 10;

/// Motion JPEG files up to this many bytes are read through at the start of a stream, to know the
/// largest frame: less than a tenth of a second from the page cache, about one from a slow disk.
pub const INDEX_AT_ONCE: u64 = 64 << 20;

/// Most bytes of one JPEG: more than any of [`SIDE_MOST`] that a camera makes. A damaged file
/// must not make us allocate as much as it is long.
pub const JPEG_MOST: usize = 256 << 20;

/// Largest struct a host may pass: as the kernel's extensible system calls, one page.
pub const STRUCT_SIZE_MOST: usize = 4096;

/// Bytes of memory for a few words of our own.
pub const PAGE: usize = 4096;

/// How long a stream's start and stop wait for another program's raised V4L2 priority, and how often they look: our own
/// cameras raise theirs for less than a millisecond.
pub const PRIORITY_PATIENCE: Duration = Duration::from_millis(50);
pub const PRIORITY_STEP: Duration = Duration::from_millis(1);

/// A search for holders is shared by as many threads as there are processors, but no more than this: those who stream
/// need theirs.
pub const SCAN_THREADS_MOST: usize = 4;
/// Processes for each of them: with 20 descriptors each they take 1 ms, and a thread's start 0.05 ms.
pub const SCAN_SHARE: usize = 64;

/// Longest name of a shared camera, in bytes: it becomes part of a file's name.
pub const SHARE_NAME_MOST: usize = 64;

/// Frames that a shared camera keeps for readers who take all in order, when the host does not say: at 30 frames per second
/// they may be a tenth of a second late.
pub const SHARE_HISTORY: u32 = 4;
/// And the most: the rest of a ring's slots is for frames that readers hold.
pub const SHARE_HISTORY_MOST: u32 = 32;

/// Most memory of a shared camera's frames when the host does not say: 40 frames of 4K NV12. It is taken only as readers
/// hold frames.
pub const SHARE_BYTES: u64 = 512 << 20;

/// Most buffers of a driver that readers of a shared camera read themselves; the rest of a ring's slots is for copies.
pub const SHARE_LENT_MOST: usize = 16;
/// Of these, the ones that are there for readers to hold; the others are for the newest frames.
pub const SHARE_LENT_HELD: u32 = 5;

/// How many bytes of a driver's exported buffer are read for measure, how often, and by how much slower than ordinary
/// memory they may be. Uncached memory is slower by a factor of 10 and more.
pub const EXPORT_SAMPLE: usize = 128 << 10;
pub const EXPORT_ROUNDS: u32 = 4;
pub const EXPORT_DEARER: u32 = 4;
pub const EXPORT_SLACK: Duration = Duration::from_micros(5);

/// Frames that a reader of a shared camera may hold when it does not say: one in use, one that it has just got.
pub const SHARE_HOLD: u32 = 2;

/// Slots beside the frames that readers may hold: the newest one, and one that is being written.
pub const SHARE_SPARE: u32 = 2;

/// How often the threads of a shared camera step when nothing happens: a supervisor sees by that that they do not hang.
pub const SHARE_STEP: Duration = Duration::from_millis(200);

/// How long a shared camera that streams on demand goes on without readers: one that changes its mind pays no new start.
pub const SHARE_LINGER: Duration = Duration::from_millis(1000);

/// How long a reader waits for the first frames' memory: a driver's start takes up to seconds.
pub const SHARE_START: Duration = Duration::from_millis(10_000);

/// How long a client waits for an answer: what is asked may have to wait for a camera that is slow.
pub const SHARE_ANSWER: Duration = Duration::from_millis(5000);

/// And at least for the first one, however short its open may be: the process may have to be scheduled first.
pub const SHARE_HELLO: Duration = Duration::from_millis(1000);

/// How long a process that is started to share a camera may take to open it, and until it says so: some drivers' first open
/// takes seconds.
pub const SHARE_SPAWNED_OPEN: Duration = Duration::from_millis(5000);
pub const SHARE_SPAWN: Duration = Duration::from_millis(10_000);

/// The least of that, for an open that tries once: a process's start takes its time.
pub const SHARE_SPAWN_LEAST: Duration = Duration::from_millis(2000);

/// How long what was started may take to be out of the way: it has nothing more to do than to leave a child behind.
pub const SHARE_SPAWN_END: Duration = Duration::from_millis(200);

/// How often a reader has one started anew, where it died.
pub const SHARE_RESPAWN: Duration = Duration::from_millis(1000);

/// How often a reader whose producer is gone looks for its return.
pub const SHARE_LOOK: Duration = Duration::from_millis(100);

/// Longest message to a shared camera's process, and longest answer, in bytes: more than a socket takes at once, unless the
/// system's administrator had it take more.
pub const MESSAGE_MOST: usize = 4096;
pub const ANSWER_MOST: usize = 256 << 10;

/// Messages of such a process that are dealt with in one look: one that does nothing but speak holds nobody up.
pub const MESSAGES_AT_ONCE: usize = 64;

/// Most clients of one shared camera.
pub const CLIENTS_MOST: usize = 128;

/// And of one process among them: a reader's stream is one, and its camera another.
pub const CLIENTS_OF_ONE_MOST: usize = 64;
/// And of one user, who is neither the owner nor root.
pub const CLIENTS_OF_USER_MOST: usize = CLIENTS_MOST / 2;
/// And the places that are the owner's and root's alone.
pub const CLIENTS_KEPT: usize = 16;

/// Messages of one client that are answered in a second: one that sends more waits.
pub const MESSAGES_PER_SECOND: u32 = 200;

/// Commands that may wait until the thread that streams carries them out.
pub const ORDERS_MOST: usize = 64;

/// How long a client may take to say who it is.
pub const HELLO_PATIENCE: Duration = Duration::from_millis(2000);

/// How long a shared camera that failed is left alone before it is tried again.
pub const SHARE_RETRY: Duration = Duration::from_millis(500);

/// Without end, where a time must be given.
pub const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
