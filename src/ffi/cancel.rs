//! Handles that end a waiting open from another thread.

use super::handle::Handles;
use super::status::{call, camlease_status};
use super::structs::handle_place;
use crate::error::Error;
use crate::kernel::Event;

/// A way to end a camlease_camera_open() that waits.
pub struct camlease_cancel {
    _private: [u8; 0],
}

pub static CANCELS: Handles<Event> = Handles::new(9, "cancel");

/// Makes a handle that camlease_open_options.cancel takes.
///
/// @param out The handle, to be freed by camlease_cancel_free().
/// @return CAMLEASE_OK, or CAMLEASE_IO when the process has no descriptor left.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_cancel_new(out: *mut *mut camlease_cancel) -> camlease_status {
    call(|| {
        // SAFETY: see the conventions.
        let out = unsafe { handle_place(out) }?;
        *out = CANCELS.add(Event::new().map_err(|e| Error::system("creating an event", e))?)?;
        Ok(())
    })
}

/// Ends every open that waits with this handle, now and later: they give CAMLEASE_CLOSED. Callable from
/// any thread, and, with a handle that is valid, from a signal handler.
///
/// @param cancel The handle.
/// @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_cancel_signal(cancel: *mut camlease_cancel) -> camlease_status {
    call(|| {
        CANCELS.get(cancel)?.signal();
        Ok(())
    })
}

/// Frees the handle. Opens that wait with it go on to wait.
///
/// @param cancel The handle.
/// @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_cancel_free(cancel: *mut camlease_cancel) -> camlease_status {
    call(|| CANCELS.remove(cancel).map(drop))
}
