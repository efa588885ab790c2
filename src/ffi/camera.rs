//! Camera handles: open, stream, look, close.

use std::ffi::{CString, c_char, c_void};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::cancel::{CANCELS, camlease_cancel};
use super::frame::{FRAMES, camlease_frame};
use super::handle::Handles;
use super::holder_list::{self, camlease_holder};
use super::status::{call, call_that_waits, camlease_status};
use super::structs::{Extensible, c_text, handle_place, place, read, text, timeout, write};
use crate::camera::{Access, Camera, OnBusy, OpenOptions};
use crate::error::{Error, Kind, Result};
use crate::format::{DropPolicy, FourCc, Rate, StreamRequest};
use crate::holders::Holders;
use crate::lease::{Answer, Asker, LastExit, OnAsk};

/// A camera that this process holds.
pub struct camlease_camera {
    _private: [u8; 0],
}

/// A camera and the texts about it that were lent to the host.
pub struct Opened {
    pub camera: Camera,
    /// Of its last stream.
    buffers: AtomicU32,
    uri: CString,
    name: CString,
    driver: CString,
    serial: CString,
    bus: CString,
}

pub static CAMERAS: Handles<Opened> = Handles::new(3, "camera");

/// A busy camera is waited for, up to timeout_ms.
pub const CAMLEASE_ON_BUSY_WAIT: u32 = 0;
/// A holder that uses this library is asked to hand the camera over, and does so when the priority of this open is
/// the higher one, or its host agrees; meanwhile, and otherwise, the camera is waited for.
pub const CAMLEASE_ON_BUSY_ASK: u32 = 1;
/// A holder that uses this library is told to hand the camera over; one that does not, or cannot, is ended as
/// camlease_evict() does it. Needs the rights to end it.
pub const CAMLEASE_ON_BUSY_EVICT: u32 = 2;

/// Wait for a camera that is not there at all, too: not plugged in yet, or unplugged.
pub const CAMLEASE_OPEN_WAIT_FOR_DEVICE: u32 = 1;
/// Reset the device before its use when its last holder died while streaming (camlease_camera_info.last_exit), as
/// camlease_camera_reset() does it; a camera that is not on USB is used as it is. That may take ten seconds beyond
/// timeout_ms, and cancel does not end it.
pub const CAMLEASE_OPEN_RESET_AFTER_DIRTY_EXIT: u32 = 2;

const OPEN_FLAGS: u32 = CAMLEASE_OPEN_WAIT_FOR_DEVICE | CAMLEASE_OPEN_RESET_AFTER_DIRTY_EXIT;

/// The camera itself, for this process alone. Where another process shares it, it is busy, and the message tells by
/// which name. A camera that was named as shared:NAME is attached to all the same.
pub const CAMLEASE_ACCESS_EXCLUSIVE: u32 = 0;
/// Attached to the camera where it is shared, as if it were opened as shared:NAME; else it is shared from now on, by a
/// process of its own, until a second after its last user has gone. That process is the camlease command's, which is
/// looked for by the environment variable CAMLEASE_COMMAND, beside this library, and in PATH; CAMLEASE_UNSUPPORTED
/// where it is not found. Where somebody has the camera for itself it is waited for.
pub const CAMLEASE_ACCESS_SHARED: u32 = 1;
/// Attached to the camera where it is shared, to read frames and command nothing; else CAMLEASE_NOT_FOUND.
pub const CAMLEASE_ACCESS_MONITOR: u32 = 2;

/// Told, in the thread that opens, when it begins to wait for a busy camera, and again when the holders
/// change. It may call this library, but must not throw. The pointers are valid during the callback.
///
/// @param user_data camlease_open_options.user_data.
/// @param message Who holds the camera, in words.
/// @param holders The holders, `count` of them.
/// @param count 0 when nobody was found.
pub type camlease_wait_callback = Option<
    unsafe extern "C" fn(user_data: *mut c_void, message: *const c_char, holders: *const camlease_holder, count: usize),
>;

/// Who asks for a camera that this process holds. Initialised by the library.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camlease_asker {
    /// Size of the struct as the library knows it.
    pub struct_size: usize,
    /// Its process id, by the kernel's word; 0 for a process of another container.
    pub pid: i32,
    /// Its effective user, by the kernel's word: this process's own, or root.
    pub uid: u32,
    /// Its priority.
    pub priority: i32,
    /// 1 when the camera is lost whatever the answer: its priority is the higher one, or it evicts.
    pub must: u32,
    /// Milliseconds that this process has to release its frames.
    pub grace_ms: u64,
    /// What it calls itself, or "". Valid during the callback.
    pub name: *const c_char,
}
// SAFETY: integers and pointers, the size first.
unsafe impl Extensible for camlease_asker {
    const NAME: &'static str = "camlease_asker";
}

/// The one who asks gets the camera if its priority is the higher one.
pub const CAMLEASE_ANSWER_BY_PRIORITY: u32 = 0;
/// The one who asks gets the camera.
pub const CAMLEASE_ANSWER_YIELD: u32 = 1;

/// Told, in a thread of the library's, that somebody asks for the camera. Where camlease_asker.must is 1, or the
/// callback yields, it is lost once the callback has returned: then calls on it return CAMLEASE_EVICTED, its descriptor
/// (camlease_camera_fd) is readable, and the camera changes hands as soon as the host has released its frames, or
/// closes it, or grace_ms are over: frames that are out stay readable. The callback may call this library, close this
/// camera included, must return soon, and must not throw.
///
/// @param user_data camlease_open_options.user_data.
/// @param asker Who asks; valid during the callback.
/// @return CAMLEASE_ANSWER_BY_PRIORITY or CAMLEASE_ANSWER_YIELD.
pub type camlease_ask_callback =
    Option<unsafe extern "C" fn(user_data: *mut c_void, asker: *const camlease_asker) -> u32>;

/// How to open a camera. Initialise with CAMLEASE_OPEN_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camlease_open_options {
    /// Set by the initialiser.
    pub struct_size: usize,
    /// Milliseconds to wait for a busy camera; 0 tries once, -1 waits without end.
    pub timeout_ms: i32,
    /// CAMLEASE_ON_BUSY_WAIT, CAMLEASE_ON_BUSY_ASK or CAMLEASE_ON_BUSY_EVICT.
    pub on_busy: u32,
    /// Of those who ask for a camera the one with the higher priority gets it; an equal one does not take it away.
    pub priority: i32,
    /// What this holder calls itself, or NULL. Others see it, up to 256 bytes.
    pub name: *const c_char,
    /// Sum of CAMLEASE_OPEN_ flags, or 0.
    pub flags: u32,
    /// Told who holds the camera while this call waits, or NULL.
    pub on_wait: camlease_wait_callback,
    /// Handed to on_wait and on_ask.
    pub user_data: *mut c_void,
    /// Ends the wait when it is signalled, or NULL.
    pub cancel: *mut camlease_cancel,
    /// Told when somebody asks for this camera once it is open, or NULL: then priorities alone decide.
    pub on_ask: camlease_ask_callback,
    /// Milliseconds that a holder gets: to release its frames when it is asked, and to end after SIGTERM when it is
    /// evicted. 0 for 500 and 2000.
    pub grace_ms: i32,
    /// Not read: padding, for programs that were compiled before there was an access.
    pub reserved: u32,
    /// CAMLEASE_ACCESS_EXCLUSIVE, CAMLEASE_ACCESS_SHARED or CAMLEASE_ACCESS_MONITOR. on_busy, priority, grace_ms and
    /// on_ask are about a camera itself, and of no effect on one that is attached to.
    pub access: u32,
}
// SAFETY: integers and pointers (a function pointer in an Option is one that may be NULL), the size first.
unsafe impl Extensible for camlease_open_options {
    const NAME: &'static str = "camlease_open_options";
}

/// The newest frame is what the host gets; older ones that it did not take are dropped. A host that was away for
/// so long that no buffer was left for newer ones waits for a fresh frame, up to its timeout; with timeout_ms 0 it
/// gets what there is. Each reader of a shared camera has a policy of its own.
pub const CAMLEASE_DROP_OLDEST: u32 = 0;
/// Frames come in order; the driver drops when all buffers are full. A reader of a shared camera that is late by more
/// frames than that keeps (camlease_share_options.history) loses the oldest ones, and no other reader loses any.
pub const CAMLEASE_DROP_NEWEST: u32 = 1;

/// What to stream. Initialise with CAMLEASE_STREAM_OPTIONS_INIT. A camera gives the nearest size and rate that it can;
/// camlease_camera_info() tells what it gave. A shared camera gives a reader what is streamed already; a size or format
/// that is another one is set where nobody else reads and this process may command it, and else CAMLEASE_BUSY or
/// CAMLEASE_PERMISSION.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camlease_stream_options {
    /// Set by the initialiser.
    pub struct_size: usize,
    /// Pixels; 0 for the device's own.
    pub width: u32,
    /// Pixels; 0 for the device's own.
    pub height: u32,
    /// A V4L2 pixel format, as CAMLEASE_FOURCC('Y','U','Y','V'); 0 for the device's own. One that the camera
    /// does not offer is CAMLEASE_UNSUPPORTED.
    pub fourcc: u32,
    /// Frames per second are fps_numerator / fps_denominator; both 0 for the device's own.
    pub fps_numerator: u32,
    /// See fps_numerator.
    pub fps_denominator: u32,
    /// Buffers that go round between driver and host, 1 to 32; 0 for 4, or fewer where max_bytes asks for it. Of a
    /// shared camera the frames that this reader may hold at a time, 0 for 2; it may be given fewer, which
    /// camlease_camera_info() tells.
    pub buffers: u32,
    /// CAMLEASE_DROP_OLDEST or CAMLEASE_DROP_NEWEST.
    pub drop_policy: u32,
    /// Most bytes that all buffers together may take, else CAMLEASE_BUDGET; 0: no bound.
    pub max_bytes: u64,
}
// SAFETY: integers, the size first.
unsafe impl Extensible for camlease_stream_options {
    const NAME: &'static str = "camlease_stream_options";
}

/// The camera is held and does not stream.
pub const CAMLEASE_CAMERA_OPENED: u32 = 0;
/// The camera streams.
pub const CAMLEASE_CAMERA_STREAMING: u32 = 1;

/// The last holder let the camera go, or none is known since the machine was started. Users of this library are known.
pub const CAMLEASE_EXIT_CLEAN: u32 = 0;
/// The last holder died while it had the camera open.
pub const CAMLEASE_EXIT_DIED: u32 = 1;
/// The last holder died while it was streaming: some devices then need a reset.
pub const CAMLEASE_EXIT_DIRTY: u32 = 2;

/// Who a camera is and what its stream is set to. Initialise with CAMLEASE_CAMERA_INFO_INIT. The texts are
/// UTF-8, never NULL, and valid until the camera is closed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camlease_camera_info {
    /// Set by the initialiser.
    pub struct_size: usize,
    /// A name that opens it again: the node that was found behind a link, for a V4L2 camera; shared:NAME, for one that
    /// another process shares, however it was named. What follows is then told of the camera behind it.
    pub uri: *const c_char,
    /// What the driver calls it.
    pub name: *const c_char,
    /// The driver.
    pub driver: *const c_char,
    /// Its USB serial number, or "".
    pub serial: *const c_char,
    /// Where it is plugged in, or "".
    pub bus: *const c_char,
    /// CAMLEASE_CAMERA_OPENED or CAMLEASE_CAMERA_STREAMING.
    pub state: u32,
    /// Pixels. This and what follows is the driver's answer at the last start, 0 before the first. A shared camera's
    /// may change while it is read: then with the first frame of the new format that is taken.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Pixel format.
    pub fourcc: u32,
    /// Bytes from one line to the next in the first plane; 0 for compressed frames.
    pub stride: u32,
    /// Frames per second are fps_numerator / fps_denominator; 0/0 where the driver does not tell.
    pub fps_numerator: u32,
    /// See fps_numerator.
    pub fps_denominator: u32,
    /// Buffers.
    pub buffers: u32,
    /// Memory planes of a frame.
    pub planes: u32,
    /// Bytes of all buffers together.
    pub buffer_bytes: u64,
    /// How the holder before this one ended: CAMLEASE_EXIT_CLEAN, CAMLEASE_EXIT_DIED or CAMLEASE_EXIT_DIRTY.
    pub last_exit: u32,
    /// The priority that it was opened with.
    pub priority: i32,
}
// SAFETY: integers and pointers, the size first.
unsafe impl Extensible for camlease_camera_info {
    const NAME: &'static str = "camlease_camera_info";
}

/// Counters since the camera was opened. Initialise with CAMLEASE_CAMERA_STATS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camlease_camera_stats {
    /// Set by the initialiser.
    pub struct_size: usize,
    /// Frames that the host got.
    pub frames: u64,
    /// Frames that the camera made and the host did not get: gaps in the sequence numbers. Of shared:NAME?every=N, or
    /// with rate=R, those that were not wanted are among them.
    pub dropped: u64,
    /// Frames that were flagged CAMLEASE_FRAME_CORRUPT.
    pub corrupt: u64,
    /// Attempts that opening it took.
    pub open_attempts: u64,
    /// Nanoseconds that opening it waited.
    pub busy_wait_ns: u64,
    /// Resets of the device, by camlease_camera_reset() and before its use.
    pub resets: u64,
    /// Times that the stream stalled. 0 in this version.
    pub stalls: u64,
    /// Times that the device was opened again underneath: by camlease_camera_regain().
    pub reconnects: u64,
    /// Frames with the host now.
    pub frames_out: u64,
    /// Bytes of memory that these keep.
    pub bytes_out: u64,
    /// Frames of a shared camera that were published since the last one that the host took; 0 for others. While another
    /// thread is inside a driver, as it was told last.
    pub behind: u64,
}
// SAFETY: integers, the size first.
unsafe impl Extensible for camlease_camera_stats {
    const NAME: &'static str = "camlease_camera_stats";
}

/// Opens a camera. After CAMLEASE_OK no other program can stream from it. A camera that somebody else has is waited
/// for: the call wakes by the kernel's notice that the holder let go. shared:NAME is a camera that another process
/// shares, by camlease_share_start() or the command camlease serve: any number of readers open it, and none keeps it
/// from others.
///
/// @param uri The camera: /dev/videoN or another path to a video node, v4l2:PATH, usb:VID:PID[:SERIAL],
/// virtual:NAME?width=640&height=480&fps=30&fourcc=YUYV, file:PATH?loop=1&fps=30, shared:NAME?every=N&rate=R.
/// @param options NULL for the initialiser's values.
/// @param out The camera, to be closed by camlease_camera_close(). NULL on failure.
/// @return CAMLEASE_OK; CAMLEASE_BUSY when it was not free in time (the message names who has it);
/// CAMLEASE_NOT_FOUND, CAMLEASE_PERMISSION, CAMLEASE_UNSUPPORTED (no camera, or a kind that this version
/// does not know), CAMLEASE_DISCONNECTED, CAMLEASE_IO; CAMLEASE_CLOSED when it was cancelled;
/// CAMLEASE_SHUT_DOWN. Callable from any thread; two opens of one camera are two holders.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_camera_open(
    uri: *const c_char,
    options: *const camlease_open_options,
    out: *mut *mut camlease_camera,
) -> camlease_status {
    call_that_waits(|| {
        // SAFETY: see the conventions.
        let (out, uri, options) = unsafe { (handle_place(out)?, text(uri, "uri")?, read(options)?) };
        *out = CAMERAS.add(open(uri, options)?)?;
        Ok(())
    })
}

fn open(uri: &str, options: Option<camlease_open_options>) -> Result<Opened> {
    let Some(options) = options else { return Ok(Opened::new(Camera::open(uri, OpenOptions::default())?)) };
    let invalid = |what: String| Error::new(Kind::InvalidArgument, format!("{uri}: {what}"));
    let on_busy = match options.on_busy {
        CAMLEASE_ON_BUSY_WAIT => OnBusy::Wait,
        CAMLEASE_ON_BUSY_ASK => OnBusy::Ask,
        CAMLEASE_ON_BUSY_EVICT => OnBusy::Evict,
        other => return Err(invalid(format!("there is no on_busy {other}"))),
    };
    if options.flags & !OPEN_FLAGS != 0 {
        return Err(invalid(format!("flags 0x{:x} has one that is not known", options.flags)));
    }
    let access = match options.access {
        CAMLEASE_ACCESS_EXCLUSIVE => Access::Exclusive,
        CAMLEASE_ACCESS_SHARED => Access::Shared,
        CAMLEASE_ACCESS_MONITOR => Access::Monitor,
        other => return Err(invalid(format!("there is no access {other}"))),
    };
    let grace = match options.grace_ms {
        0 => None,
        ms => Some(Duration::from_millis(
            u64::try_from(ms).map_err(|_| invalid(format!("grace_ms = {ms} is negative; 0 is for the default")))?,
        )),
    };
    // SAFETY: see the conventions.
    let name = if options.name.is_null() { "" } else { unsafe { text(options.name, "name") }? };
    let cancel = if options.cancel.is_null() { None } else { Some(CANCELS.get(options.cancel)?) };
    let mut on_wait = options.on_wait.map(|callback| {
        move |message: &str, holders: &Holders| {
            holder_list::lend(holders, |holders| {
                let message = c_text(message);
                // SAFETY: the host's function, with its own data and pointers that live through the call.
                unsafe { callback(options.user_data, message.as_ptr(), holders.as_ptr(), holders.len()) };
            });
        }
    });
    let camera = Camera::open(
        uri,
        OpenOptions {
            timeout: timeout(options.timeout_ms)?,
            wait_for_device: options.flags & CAMLEASE_OPEN_WAIT_FOR_DEVICE != 0,
            cancel: cancel.as_ref().map(|cancel| &***cancel),
            on_wait: on_wait.as_mut().map(|told| told as &mut dyn FnMut(&str, &Holders)),
            name: name.to_owned(),
            on_busy,
            priority: options.priority,
            grace,
            reset_after_dirty_exit: options.flags & CAMLEASE_OPEN_RESET_AFTER_DIRTY_EXIT != 0,
            on_ask: host_on_ask(&options),
            access,
        },
    )?;
    Ok(Opened::new(camera))
}

/// The host's callback and its data.
struct HostOnAsk(camlease_ask_callback, *mut c_void);
// SAFETY: the pointer is the host's, handed back to it and not used here.
unsafe impl Send for HostOnAsk {}
// SAFETY: as above.
unsafe impl Sync for HostOnAsk {}

impl HostOnAsk {
    fn call(&self, asker: &Asker) -> Answer {
        let HostOnAsk(Some(callback), user_data) = self else { return Answer::ByPriority };
        let name = c_text(&asker.name);
        let asker = camlease_asker {
            struct_size: size_of::<camlease_asker>(),
            pid: asker.pid,
            uid: asker.uid,
            priority: asker.priority,
            must: asker.must.into(),
            grace_ms: asker.grace.as_millis() as u64,
            name: name.as_ptr(),
        };
        // SAFETY: the host's function, with its own data and a pointer that lives through the call.
        match unsafe { callback(*user_data, &asker) } {
            CAMLEASE_ANSWER_YIELD => Answer::Yield,
            CAMLEASE_ANSWER_BY_PRIORITY => Answer::ByPriority,
            other => {
                log::warn!("there is no answer {other}: priorities decide");
                Answer::ByPriority
            }
        }
    }
}

fn host_on_ask(options: &camlease_open_options) -> Option<OnAsk> {
    let host = HostOnAsk(options.on_ask, options.user_data);
    options.on_ask.is_some().then(|| Box::new(move |asker: &Asker| host.call(asker)) as OnAsk)
}

impl Opened {
    fn new(camera: Camera) -> Opened {
        let identity = camera.identity();
        let [uri, name, driver, serial, bus] =
            [&identity.uri, &identity.name, &identity.driver, &identity.serial, &identity.bus].map(|text| c_text(text));
        Opened { camera, buffers: AtomicU32::new(0), uri, name, driver, serial, bus }
    }
}

/// Closes a camera: the device is free for others when this returns, even with frames out, which stay readable
/// at their addresses until they are released. Calls that wait on it return CAMLEASE_CLOSED.
///
/// @param camera The camera; its handle is used up.
/// @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_camera_close(camera: *mut camlease_camera) -> camlease_status {
    call_that_waits(|| {
        CAMERAS.remove(camera)?.camera.close();
        Ok(())
    })
}

/// Gets a camera back under its handle that was handed over to somebody else (CAMLEASE_EVICTED), or that a reset lost
/// (CAMLEASE_DISCONNECTED from then on): waits until it is free again, or back. It does not stream then, and what
/// camlease_camera_info() lent stays as it was.
///
/// @param camera The camera.
/// @param timeout_ms Milliseconds to wait; 0 tries once, -1 waits without end.
/// @return CAMLEASE_OK; CAMLEASE_BUSY, CAMLEASE_NOT_FOUND and the like as camlease_camera_open(); CAMLEASE_WRONG_STATE
/// when it is held, or another thread waits for it already; CAMLEASE_CLOSED when it was closed meanwhile;
/// CAMLEASE_SHUT_DOWN, CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_camera_regain(camera: *mut camlease_camera, timeout_ms: i32) -> camlease_status {
    call_that_waits(|| CAMERAS.get(camera)?.camera.regain(timeout(timeout_ms)?))
}

/// Starts streaming.
///
/// @param camera The camera.
/// @param options NULL for the device's own values.
/// @return CAMLEASE_OK; CAMLEASE_WRONG_STATE when it streams already; CAMLEASE_NO_BANDWIDTH when the USB bus is full;
/// CAMLEASE_BUDGET, CAMLEASE_UNSUPPORTED, CAMLEASE_INVALID_ARGUMENT, CAMLEASE_IO, CAMLEASE_DISCONNECTED;
/// CAMLEASE_EVICTED when it was handed over; CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. For shared:NAME also
/// CAMLEASE_NOT_FOUND when nobody shares it any more; CAMLEASE_BUSY, CAMLEASE_PERMISSION when it is streamed otherwise
/// (see camlease_stream_options); CAMLEASE_BUDGET when its memory is taken by other readers; CAMLEASE_TIMEOUT when no
/// frames are to be had within 10 s; CAMLEASE_WRONG_STATE when it was stopped by command. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_camera_start(
    camera: *mut camlease_camera,
    options: *const camlease_stream_options,
) -> camlease_status {
    call_that_waits(|| {
        // SAFETY: see the conventions.
        let request = unsafe { read(options) }?.map_or(Ok(StreamRequest::default()), request)?;
        let opened = CAMERAS.get(camera)?;
        opened.buffers.store(opened.camera.start(&request)?.buffers, Ordering::Relaxed);
        // Room for all frames that all cameras can have out, so that no frame allocates.
        FRAMES.reserve(CAMERAS.each().map(|opened| opened.buffers.load(Ordering::Relaxed)).sum());
        Ok(())
    })
}

pub fn request(options: camlease_stream_options) -> Result<StreamRequest> {
    let drop_policy = match options.drop_policy {
        CAMLEASE_DROP_OLDEST => DropPolicy::Oldest,
        CAMLEASE_DROP_NEWEST => DropPolicy::Newest,
        other => return Err(Error::new(Kind::InvalidArgument, format!("there is no drop_policy {other}"))),
    };
    Ok(StreamRequest {
        width: options.width,
        height: options.height,
        fourcc: FourCc(options.fourcc),
        rate: Rate::new(options.fps_numerator, options.fps_denominator),
        buffers: options.buffers,
        drop_policy,
        max_bytes: options.max_bytes,
    })
}

/// Stops streaming. The camera stays held; frames that are out stay readable. Calls that wait for a frame
/// return CAMLEASE_WRONG_STATE.
///
/// @param camera The camera.
/// @return CAMLEASE_OK; CAMLEASE_WRONG_STATE when it does not stream; CAMLEASE_DISCONNECTED or CAMLEASE_IO when
/// the driver reports an error (the stream has ended all the same); CAMLEASE_INVALID_HANDLE,
/// CAMLEASE_FORKED. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_camera_stop(camera: *mut camlease_camera) -> camlease_status {
    call_that_waits(|| CAMERAS.get(camera)?.camera.stop())
}

/// Takes the next frame: the newest, or the next in order, by camlease_stream_options.drop_policy.
///
/// A shared camera's reader goes on under the same handle whatever becomes of the process that shares it: once told of
/// its end (CAMLEASE_DISCONNECTED) the host calls on, which waits up to timeout_ms, and frames come again when that
/// process is back, in another size or format where that has one, and with sequence numbers from 0.
///
/// @param camera The camera.
/// @param timeout_ms Milliseconds to wait; 0 tries once, -1 waits without end.
/// @param out The frame, to be released by camlease_frame_release(). NULL on failure.
/// @return CAMLEASE_OK; CAMLEASE_TIMEOUT; CAMLEASE_WRONG_STATE when it does not stream; CAMLEASE_DISCONNECTED when the
/// camera is gone; CAMLEASE_IO when the driver's queue broke; CAMLEASE_CLOSED, CAMLEASE_SHUT_DOWN or CAMLEASE_EVICTED
/// when that happened meanwhile, or before; CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_camera_next_frame(
    camera: *mut camlease_camera,
    timeout_ms: i32,
    out: *mut *mut camlease_frame,
) -> camlease_status {
    call_that_waits(|| {
        // SAFETY: see the conventions.
        let out = unsafe { handle_place(out) }?;
        *out = FRAMES.add(CAMERAS.get(camera)?.camera.next_frame(timeout(timeout_ms)?)?)?;
        Ok(())
    })
}

/// A descriptor for the host's own poll, epoll or select loop. It is readable when a frame can be had, and when
/// the next call would report an error. The library's own: not to be read or closed. It holds no device.
///
/// @param camera The camera.
/// @param out The descriptor, valid until the camera is closed.
/// @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED, CAMLEASE_EVICTED or CAMLEASE_SHUT_DOWN. Callable from
/// any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_camera_fd(camera: *mut camlease_camera, out: *mut i32) -> camlease_status {
    call(|| {
        // SAFETY: see the conventions.
        let out = unsafe { place(out) }?;
        out.write(CAMERAS.get(camera)?.camera.fd()?);
        Ok(())
    })
}

/// Who the camera is and what its stream is set to.
///
/// @param camera The camera.
/// @param out To be filled.
/// @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED or CAMLEASE_INVALID_ARGUMENT. Callable from any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_camera_info(
    camera: *mut camlease_camera,
    out: *mut camlease_camera_info,
) -> camlease_status {
    call(|| {
        let opened = CAMERAS.get(camera)?;
        let (format, streaming) = opened.camera.stream_format();
        let info = camlease_camera_info {
            struct_size: 0,
            uri: opened.uri.as_ptr(),
            name: opened.name.as_ptr(),
            driver: opened.driver.as_ptr(),
            serial: opened.serial.as_ptr(),
            bus: opened.bus.as_ptr(),
            state: if streaming { CAMLEASE_CAMERA_STREAMING } else { CAMLEASE_CAMERA_OPENED },
            width: format.width,
            height: format.height,
            fourcc: format.fourcc.0,
            stride: format.stride,
            fps_numerator: format.rate.numerator,
            fps_denominator: format.rate.denominator,
            buffers: format.buffers,
            planes: format.planes.len() as u32,
            buffer_bytes: format.bytes(),
            last_exit: match opened.camera.last_exit() {
                LastExit::Clean => CAMLEASE_EXIT_CLEAN,
                LastExit::Died => CAMLEASE_EXIT_DIED,
                LastExit::Dirty => CAMLEASE_EXIT_DIRTY,
            },
            priority: opened.camera.priority(),
        };
        // SAFETY: see the conventions.
        unsafe { write(out, info) }
    })
}

/// Counters since the camera was opened.
///
/// @param camera The camera.
/// @param out To be filled.
/// @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED or CAMLEASE_INVALID_ARGUMENT. Callable from any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_camera_stats(
    camera: *mut camlease_camera,
    out: *mut camlease_camera_stats,
) -> camlease_status {
    call(|| {
        let stats = CAMERAS.get(camera)?.camera.stats();
        let stats = camlease_camera_stats {
            struct_size: 0,
            frames: stats.frames,
            dropped: stats.dropped,
            corrupt: stats.corrupt,
            open_attempts: stats.open_attempts,
            busy_wait_ns: stats.busy_wait_ns,
            resets: stats.resets,
            stalls: stats.stalls,
            reconnects: stats.reconnects,
            frames_out: stats.frames_out,
            bytes_out: stats.bytes_out,
            behind: stats.behind,
        };
        // SAFETY: see the conventions.
        unsafe { write(out, stats) }
    })
}

/// Reads a control. The id is V4L2's.
///
/// @param camera The camera.
/// @param id As camlease_control_list_get() tells it.
/// @param out The value.
/// @return CAMLEASE_OK; CAMLEASE_INVALID_ARGUMENT when there is no such control; CAMLEASE_UNSUPPORTED when it
/// cannot be read; CAMLEASE_TIMEOUT when the camera does not answer; CAMLEASE_IO, CAMLEASE_DISCONNECTED;
/// CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_camera_get_control(
    camera: *mut camlease_camera,
    id: u32,
    out: *mut i64,
) -> camlease_status {
    call_that_waits(|| {
        // SAFETY: see the conventions.
        let out = unsafe { place(out) }?;
        out.write(CAMERAS.get(camera)?.camera.control(id)?);
        Ok(())
    })
}

/// Sets a control. A driver may round the value: read it back. Frames go on meanwhile.
///
/// @param camera The camera.
/// @param id As camlease_control_list_get() tells it.
/// @param value Within the control's minimum and maximum; anything for a button.
/// @return As camlease_camera_get_control(), and CAMLEASE_WRONG_STATE when another setting or the stream has
/// the control. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_camera_set_control(
    camera: *mut camlease_camera,
    id: u32,
    value: i64,
) -> camlease_status {
    call_that_waits(|| CAMERAS.get(camera)?.camera.set_control(id, value))
}
