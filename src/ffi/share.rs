//! Sharing a camera with other processes, and speaking to the process that shares one.

use std::ffi::{CString, c_char};

use super::camera::{CAMERAS, camlease_camera, camlease_stream_options, request};
use super::handle::Handles;
use super::status::{call, call_that_waits, camlease_status};
use super::structs::{Extensible, c_text, handle_place, read, text, timeout};
use crate::error::{Error, Kind, Result};
use crate::policy;
use crate::share::{Allowed, ShareOptions, ShareStart, wire};

/// An answer of a process that shares a camera. It is the host's, and needs no camera that is open.
pub struct camlease_reply {
    _private: [u8; 0],
}

static REPLIES: Handles<CString> = Handles::new(15, "reply");

/// The user of the process that shares the camera, and root. The kernel tells who a client is.
pub const CAMLEASE_ALLOWED_OWNER: u32 = 0;
/// These, and the members of a group.
pub const CAMLEASE_ALLOWED_GROUP: u32 = 1;
/// Everybody on this machine.
pub const CAMLEASE_ALLOWED_EVERYONE: u32 = 2;

/// The camera streams while somebody reads it, and for a second after.
pub const CAMLEASE_SHARE_ON_DEMAND: u32 = 0;
/// The camera streams all the time.
pub const CAMLEASE_SHARE_ALWAYS: u32 = 1;

/// How to share a camera. Initialise with CAMLEASE_SHARE_OPTIONS_INIT. What it points to is read during the call alone.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camlease_share_options {
    /// Set by the initialiser.
    pub struct_size: usize,
    /// By what name others open it, as shared:NAME: up to 64 letters, digits, dots, dashes and underscores. It is one
    /// for the whole machine.
    pub name: *const c_char,
    /// Who may read it: CAMLEASE_ALLOWED_OWNER, CAMLEASE_ALLOWED_GROUP or CAMLEASE_ALLOWED_EVERYONE.
    pub readers: u32,
    /// The group's number (gid), for CAMLEASE_ALLOWED_GROUP.
    pub readers_group: u32,
    /// Who may start and stop it, and set its format and controls: one of CAMLEASE_ALLOWED_. Who is not
    /// among the readers may look at the camera's status, formats and controls, and gets no frames.
    pub commanders: u32,
    /// See readers_group.
    pub commanders_group: u32,
    /// CAMLEASE_SHARE_ON_DEMAND or CAMLEASE_SHARE_ALWAYS.
    pub start: u32,
    /// How many of the newest frames are kept for readers who take all in order (CAMLEASE_DROP_NEWEST), 1 to 32; 0 for
    /// 4.
    pub history: u32,
    /// Most bytes of memory for the frames of one format; 0 for 512 MiB. It is taken as readers hold frames, up to 64
    /// of them, and has to have room for history + 2.
    pub max_bytes: u64,
    /// What is streamed until somebody asks for something else, or NULL for the device's own. buffers and max_bytes are
    /// about the camera's own buffers, drop_policy about the frames that this process takes out of them: without it
    /// CAMLEASE_DROP_NEWEST.
    pub stream: *const camlease_stream_options,
}
// SAFETY: integers and pointers, the size first.
unsafe impl Extensible for camlease_share_options {
    const NAME: &'static str = "camlease_share_options";
}

/// Shares an open camera with other processes, which open it as shared:NAME by the same calls as any camera. Its frames
/// are copied once, or not at all, into memory that readers can only read; each reader gets its own, and none delays
/// another or this process. The stream is the share's from now on: to read the camera in this process, open shared:NAME
/// here, too. The share ends with camlease_share_stop(), with camlease_camera_close(), and with this process, however
/// that ends.
///
/// Meanwhile camlease_camera_start(), _stop(), _next_frame() and _regain() on this handle give
/// CAMLEASE_WRONG_STATE; controls, lists, camlease_camera_info() and camlease_camera_stats() go on. Two threads of the
/// library's serve the readers, with all signals blocked: the host need not do anything. When the camera is gone, or is
/// handed over to somebody else, they get it back as soon as it is there again, and the readers go on.
///
/// @param camera The camera, which stays the host's; it must not stream.
/// @param options How; the name is needed.
/// @return CAMLEASE_OK, also where the camera cannot stream: that is found when somebody reads. CAMLEASE_BUSY when a
/// camera is shared by this name already; CAMLEASE_WRONG_STATE when the camera streams or is shared already;
/// CAMLEASE_UNSUPPORTED for a camera that was opened as shared:NAME, or attached to: others open it as that, too;
/// CAMLEASE_INVALID_ARGUMENT, also for options NULL; CAMLEASE_PERMISSION, CAMLEASE_NOT_FOUND, CAMLEASE_IO when the name
/// cannot be put into the runtime folder; CAMLEASE_DISCONNECTED, CAMLEASE_EVICTED, CAMLEASE_SHUT_DOWN;
/// CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_share_start(
    camera: *mut camlease_camera,
    options: *const camlease_share_options,
) -> camlease_status {
    call_that_waits(|| {
        // SAFETY: see the conventions.
        let options = unsafe { share_options(options) }?;
        CAMERAS.get(camera)?.camera.share(options)
    })
}

/// SAFETY: as the conventions have it for what the host passes.
unsafe fn share_options(options: *const camlease_share_options) -> Result<ShareOptions> {
    let missing = || Error::new(Kind::InvalidArgument, "options is NULL: a name to share the camera by is needed");
    // SAFETY: see above.
    let options = unsafe { read(options) }?.ok_or_else(missing)?;
    let allowed = |what: &str, who, group| match who {
        CAMLEASE_ALLOWED_OWNER => Ok(Allowed::Owner),
        CAMLEASE_ALLOWED_GROUP => Ok(Allowed::Group(group)),
        CAMLEASE_ALLOWED_EVERYONE => Ok(Allowed::Everyone),
        other => Err(Error::new(Kind::InvalidArgument, format!("{what} = {other}: there is no such choice"))),
    };
    let default = ShareOptions::default();
    Ok(ShareOptions {
        // SAFETY: see above.
        name: unsafe { text(options.name, "name") }?.to_owned(),
        readers: allowed("readers", options.readers, options.readers_group)?,
        commanders: allowed("commanders", options.commanders, options.commanders_group)?,
        // SAFETY: see above.
        request: unsafe { read(options.stream) }?.map_or(Ok(default.request), request)?,
        start: match options.start {
            CAMLEASE_SHARE_ON_DEMAND => ShareStart::OnDemand,
            CAMLEASE_SHARE_ALWAYS => ShareStart::Always,
            other => return Err(Error::new(Kind::InvalidArgument, format!("there is no start {other}"))),
        },
        history: match options.history {
            count @ 0..=policy::SHARE_HISTORY_MOST => count,
            more => {
                let message = format!("history = {more} frames are more than {}", policy::SHARE_HISTORY_MOST);
                return Err(Error::new(Kind::InvalidArgument, message));
            }
        },
        max_bytes: options.max_bytes,
        lend: default.lend,
        commands: None,
    })
}

/// Shares a camera no longer: its readers see CAMLEASE_DISCONNECTED, and frames that they hold stay readable to them.
/// The camera stays held, and does not stream.
///
/// @param camera The camera.
/// @return CAMLEASE_OK; CAMLEASE_WRONG_STATE when it is not shared; CAMLEASE_TIMEOUT when a driver does not return to the
/// library's thread within a second: the readers are gone then, too, but the stream is not the host's before a further
/// call gives CAMLEASE_OK; CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_share_stop(camera: *mut camlease_camera) -> camlease_status {
    call_that_waits(|| CAMERAS.get(camera)?.camera.unshare())
}

/// Sends a command to the process that shares a camera, and waits for its answer: {"do": "status"}, and what else the
/// manual's chapter on sharing lists. Commands that change something need the rights to
/// (camlease_share_options.commanders); {"do": "take-control", "priority": N} reserves them for this handle, until
/// {"do": "release-control"}, its close, or somebody takes it with a higher priority, and the stream goes on meanwhile.
/// It goes to the process that shares the camera by then.
///
/// @param camera A camera that was opened as shared:NAME, or with an access by which it was attached to; it need not
/// stream. For the one who shares it, {"do": "status"} alone.
/// @param request A JSON object, up to 4000 bytes of UTF-8.
/// @param timeout_ms Milliseconds to wait for the answer; -1 waits without end.
/// @param out The answer, a JSON object, to be freed by camlease_reply_free(). NULL on failure.
/// @return CAMLEASE_OK; the failure that the other process tells of, with its message: CAMLEASE_PERMISSION when this
/// process may not command, CAMLEASE_BUSY when another has taken the control or reads a format that would change,
/// CAMLEASE_UNSUPPORTED for a command that is not known there; CAMLEASE_TIMEOUT when it does not answer;
/// CAMLEASE_DISCONNECTED when it went meanwhile, CAMLEASE_NOT_FOUND when nobody shares the camera any more;
/// CAMLEASE_INVALID_ARGUMENT when request is no JSON object or too long; CAMLEASE_UNSUPPORTED for a camera that is not
/// shared; CAMLEASE_WRONG_STATE for the one who shares it; CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. Callable from any
/// thread: commands by one handle take turns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_camera_command(
    camera: *mut camlease_camera,
    request: *const c_char,
    timeout_ms: i32,
    out: *mut *mut camlease_reply,
) -> camlease_status {
    call_that_waits(|| {
        // SAFETY: see the conventions.
        let (out, request) = unsafe { (handle_place(out)?, text(request, "request")?) };
        let request = match serde_json::from_str(request) {
            Ok(serde_json::Value::Object(request)) => request,
            Ok(_) => {
                return Err(Error::new(Kind::InvalidArgument, "request is no JSON object, as {\"do\": \"status\"} is"));
            }
            Err(error) => return Err(Error::new(Kind::InvalidArgument, format!("request is no JSON: {error}"))),
        };
        let answer = CAMERAS.get(camera)?.camera.command(request, timeout(timeout_ms)?.unwrap_or(policy::FOR_EVER))?;
        let line = wire::to_line(answer);
        *out = REPLIES.add(c_text(String::from_utf8_lossy(&line).trim_end()))?;
        Ok(())
    })
}

/// The text of an answer.
///
/// @param reply The answer.
/// @return A JSON object in one line, valid until the answer is freed; NULL when this is no answer's handle. Callable
/// from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_reply_text(reply: *const camlease_reply) -> *const c_char {
    let mut found = std::ptr::null();
    call(|| {
        found = REPLIES.get(reply)?.as_ptr();
        Ok(())
    });
    found
}

/// Frees an answer.
///
/// @param reply The answer; its handle is used up.
/// @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_reply_free(reply: *mut camlease_reply) -> camlease_status {
    call(|| REPLIES.remove(reply).map(drop))
}
