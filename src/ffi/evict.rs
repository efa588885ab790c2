//! Removing who has a camera.

use std::ffi::c_char;
use std::time::Duration;

use super::cancel::{CANCELS, camlease_cancel};
use super::holder_list::{camlease_holder_list, list_evicted};
use super::status::{call_that_waits, camlease_status};
use super::structs::{Extensible, handle_place, read, text};
use crate::error::{Error, Kind, Result};
use crate::evict::{EvictOptions, Evicted, evict};

/// Nothing was done to the holder: camlease_evict() was a dry run, or it had ended by itself, or its end would have
/// freed nothing. camlease_holder.reason tells.
pub const CAMLEASE_OUTCOME_NONE: u32 = 0;
/// The holder was asked, and let the camera go.
pub const CAMLEASE_OUTCOME_YIELDED: u32 = 1;
/// The holder let the camera go after SIGTERM.
pub const CAMLEASE_OUTCOME_TERMINATED: u32 = 2;
/// The holder ended by SIGKILL.
pub const CAMLEASE_OUTCOME_KILLED: u32 = 3;
/// The holder is not to be ended, see camlease_holder.reason.
pub const CAMLEASE_OUTCOME_REFUSED: u32 = 4;
/// The holder was killed and has the camera still, see camlease_holder.reason.
pub const CAMLEASE_OUTCOME_SURVIVED: u32 = 5;

/// Do nothing, and tell in each holder's reason what would be done.
pub const CAMLEASE_EVICT_DRY_RUN: u32 = 1;

/// How to evict. Initialise with CAMLEASE_EVICT_OPTIONS_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camlease_evict_options {
    /// Set by the initialiser.
    pub struct_size: usize,
    /// Sum of CAMLEASE_EVICT_ flags, or 0.
    pub flags: u32,
    /// Milliseconds that a holder has to let go: once when it is asked, and once more after SIGTERM. Then it is killed.
    pub grace_ms: i32,
    /// What the caller calls itself, told to a holder that is asked; or NULL.
    pub name: *const c_char,
    /// Ends the wait when it is signalled, or NULL. What was done until then stays done.
    pub cancel: *mut camlease_cancel,
}
// SAFETY: integers and pointers, the size first.
unsafe impl Extensible for camlease_evict_options {
    const NAME: &'static str = "camlease_evict_options";
}

/// Removes the processes that keep a camera busy, all at the same time: one that uses this library is asked to hand it
/// over; then they are sent SIGTERM, and SIGKILL to those who have not let go in time. At the end the camera is claimed
/// for a moment, to be sure that it is free. A process that merely has it open beside its holder is left in peace.
///
/// Refused are this process and its ancestors, process 1, kernel threads, processes that this one may not signal, and a
/// pid that is another process's by now. Where one is refused that streams, the others are left alone as well: their end
/// would free nothing.
///
/// @param uri The camera, as for camlease_camera_open(); a name that fits several cameras is refused.
/// @param options NULL for the initialiser's values.
/// @param out Each holder with outcome and reason, to be freed by camlease_holder_list_free(); empty when the camera
/// was free. NULL on failure.
/// @return CAMLEASE_OK when each outcome is known: the camera was free at the end where no outcome is
/// CAMLEASE_OUTCOME_REFUSED or CAMLEASE_OUTCOME_SURVIVED. CAMLEASE_BUSY when it is not free and nobody is found who has
/// it, or somebody new each time; CAMLEASE_CLOSED when it was cancelled; what camlease_camera_open() gives where the
/// camera cannot be claimed for another reason. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_evict(
    uri: *const c_char,
    options: *const camlease_evict_options,
    out: *mut *mut camlease_holder_list,
) -> camlease_status {
    call_that_waits(|| {
        // SAFETY: see the conventions.
        let (out, uri, options) = unsafe { (handle_place(out)?, text(uri, "uri")?, read(options)?) };
        *out =
            list_evicted(&options.map_or_else(|| evict(uri, EvictOptions::default()), |options| run(uri, options))?)?;
        Ok(())
    })
}

fn run(uri: &str, options: camlease_evict_options) -> Result<Vec<Evicted>> {
    let invalid = |what: String| Error::new(Kind::InvalidArgument, format!("{uri}: {what}"));
    if options.flags & !CAMLEASE_EVICT_DRY_RUN != 0 {
        return Err(invalid(format!("flags 0x{:x} has one that is not known", options.flags)));
    }
    let grace = u64::try_from(options.grace_ms)
        .map_err(|_| invalid(format!("grace_ms is {}", options.grace_ms)).hint("give milliseconds; 0 kills at once"))?;
    // SAFETY: see the conventions.
    let name = if options.name.is_null() { "" } else { unsafe { text(options.name, "name") }? };
    let cancel = if options.cancel.is_null() { None } else { Some(CANCELS.get(options.cancel)?) };
    evict(
        uri,
        EvictOptions {
            dry_run: options.flags & CAMLEASE_EVICT_DRY_RUN != 0,
            grace: Duration::from_millis(grace),
            name: name.to_owned(),
            only: None,
            cancel: cancel.as_ref().map(|cancel| &***cancel),
        },
    )
}
