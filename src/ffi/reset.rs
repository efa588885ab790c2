//! The reset of a camera's device.

use super::camera::{CAMERAS, camlease_camera};
use super::status::{call_that_waits, camlease_status};
use super::structs::{Extensible, read, timeout};
use crate::policy;

/// How to reset a camera. Initialise with CAMLEASE_RESET_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camlease_reset_options {
    /// Set by the initialiser.
    pub struct_size: usize,
    /// Milliseconds for all of it: the reset, the camera's return, and a fresh frame. -1 waits without end.
    pub timeout_ms: i32,
}
// SAFETY: integers, the size first.
unsafe impl Extensible for camlease_reset_options {
    const NAME: &'static str = "camlease_reset_options";
}

/// Resets a camera's USB port, as if it were unplugged and plugged in again: for one that is stuck. Waits until the
/// same camera is back, claims it, and sees a fresh frame of it.
///
/// A camera that streamed streams on, with what it was started with, and its sequence numbers begin anew; one that
/// did not does not afterwards. The handle and its descriptor stay. Frames that are out stay readable. Other calls on
/// the camera wait meanwhile, but for camlease_frame_release() and camlease_camera_close(). Controls have the values
/// that the camera has when it is plugged in. All of the device is reset: a camera's microphone, too.
///
/// When it does not come back, it is lost: calls on it give CAMLEASE_DISCONNECTED and the reason, until
/// camlease_camera_regain() gets it back. The kernel asks a camera that does not answer for some seconds more than this
/// call may wait.
///
/// @param camera The camera.
/// @param options NULL for the initialiser's values.
/// @return CAMLEASE_OK. With nothing changed: CAMLEASE_UNSUPPORTED for a camera that is not on USB;
/// CAMLEASE_PERMISSION (the message has the udev rule that grants it); CAMLEASE_BUSY when somebody streams from another
/// node of the same device; CAMLEASE_INVALID_ARGUMENT, which timeout_ms 0 is, too. And
/// CAMLEASE_IO when the port refused, and the camera goes on as before; CAMLEASE_TIMEOUT when the camera is back and
/// held, but no frame came in time, or another failure of camlease_camera_start(), when it is held and does not stream;
/// CAMLEASE_DISCONNECTED when it is lost: it did not come back in time, or somebody else took it; CAMLEASE_CLOSED,
/// CAMLEASE_SHUT_DOWN or CAMLEASE_EVICTED when that happened meanwhile; CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED.
/// Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_camera_reset(
    camera: *mut camlease_camera,
    options: *const camlease_reset_options,
) -> camlease_status {
    call_that_waits(|| {
        // SAFETY: see the conventions.
        let options = unsafe { read(options) }?;
        let timeout = options.map_or(Ok(Some(policy::RESET_TIMEOUT)), |options| timeout(options.timeout_ms));
        CAMERAS.get(camera)?.camera.reset(timeout?)
    })
}
