//! Status values, and how a failure reaches the host: the value is returned, the words are kept for
//! the thread.

use std::any::Any;
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Kind, Result};
use crate::{exit, fork};

/// What a call returns: 0 on success, else one of the CAMLEASE_ status values. A value is never reused.
pub type camlease_status = u32;

/// Success.
pub const CAMLEASE_OK: camlease_status = 0;
/// An argument is not what the call takes; the message says which.
pub const CAMLEASE_INVALID_ARGUMENT: camlease_status = 1;
/// The handle is NULL, was closed, freed or released, is of another kind, or never was one.
pub const CAMLEASE_INVALID_HANDLE: camlease_status = 2;
/// There is no such camera or file.
pub const CAMLEASE_NOT_FOUND: camlease_status = 3;
/// Somebody else has the camera; the message says who.
pub const CAMLEASE_BUSY: camlease_status = 4;
/// Nothing happened in time.
pub const CAMLEASE_TIMEOUT: camlease_status = 5;
/// The camera is gone: unplugged, or its driver let go of it, or a recording has ended.
pub const CAMLEASE_DISCONNECTED: camlease_status = 6;
/// The system does not allow it; the message names the group to join.
pub const CAMLEASE_PERMISSION: camlease_status = 7;
/// The camera, or this version of the library, cannot do it.
pub const CAMLEASE_UNSUPPORTED: camlease_status = 8;
/// Not now: the camera streams already, or does not stream.
pub const CAMLEASE_WRONG_STATE: camlease_status = 9;
/// The driver or the hardware reports an error.
pub const CAMLEASE_IO: camlease_status = 10;
/// The USB bus is full; the message says what would need less.
pub const CAMLEASE_NO_BANDWIDTH: camlease_status = 11;
/// A bound on memory would be passed, the host's own or the kernel's.
pub const CAMLEASE_BUDGET: camlease_status = 12;
/// The camera was handed over to somebody else.
pub const CAMLEASE_EVICTED: camlease_status = 13;
/// The handle belongs to the parent process.
pub const CAMLEASE_FORKED: camlease_status = 14;
/// The library was shut down.
pub const CAMLEASE_SHUT_DOWN: camlease_status = 15;
/// The camera stopped sending frames.
pub const CAMLEASE_STALLED: camlease_status = 16;
/// The camera was closed, or the wait for it cancelled, while this call waited.
pub const CAMLEASE_CLOSED: camlease_status = 17;
/// An error of the library itself; please report it with the message.
pub const CAMLEASE_INTERNAL: camlease_status = 255;

/// The one table from failures to status values, with their names.
const STATUSES: [(Option<Kind>, camlease_status, &CStr); 19] = [
    (None, CAMLEASE_OK, c"CAMLEASE_OK"),
    (Some(Kind::InvalidArgument), CAMLEASE_INVALID_ARGUMENT, c"CAMLEASE_INVALID_ARGUMENT"),
    (Some(Kind::InvalidHandle), CAMLEASE_INVALID_HANDLE, c"CAMLEASE_INVALID_HANDLE"),
    (Some(Kind::NotFound), CAMLEASE_NOT_FOUND, c"CAMLEASE_NOT_FOUND"),
    (Some(Kind::Busy), CAMLEASE_BUSY, c"CAMLEASE_BUSY"),
    (Some(Kind::Timeout), CAMLEASE_TIMEOUT, c"CAMLEASE_TIMEOUT"),
    (Some(Kind::Disconnected), CAMLEASE_DISCONNECTED, c"CAMLEASE_DISCONNECTED"),
    (Some(Kind::Permission), CAMLEASE_PERMISSION, c"CAMLEASE_PERMISSION"),
    (Some(Kind::Unsupported), CAMLEASE_UNSUPPORTED, c"CAMLEASE_UNSUPPORTED"),
    (Some(Kind::WrongState), CAMLEASE_WRONG_STATE, c"CAMLEASE_WRONG_STATE"),
    (Some(Kind::Io), CAMLEASE_IO, c"CAMLEASE_IO"),
    (Some(Kind::NoBandwidth), CAMLEASE_NO_BANDWIDTH, c"CAMLEASE_NO_BANDWIDTH"),
    (Some(Kind::Budget), CAMLEASE_BUDGET, c"CAMLEASE_BUDGET"),
    (Some(Kind::Evicted), CAMLEASE_EVICTED, c"CAMLEASE_EVICTED"),
    (Some(Kind::Forked), CAMLEASE_FORKED, c"CAMLEASE_FORKED"),
    (Some(Kind::ShutDown), CAMLEASE_SHUT_DOWN, c"CAMLEASE_SHUT_DOWN"),
    (Some(Kind::Stalled), CAMLEASE_STALLED, c"CAMLEASE_STALLED"),
    (Some(Kind::Closed), CAMLEASE_CLOSED, c"CAMLEASE_CLOSED"),
    (Some(Kind::Internal), CAMLEASE_INTERNAL, c"CAMLEASE_INTERNAL"),
];

fn status_of(kind: Kind) -> camlease_status {
    STATUSES.iter().find(|row| row.0 == Some(kind)).map_or(CAMLEASE_INTERNAL, |row| row.1)
}

const MESSAGE_MOST: usize = 2048;

/// A thread's last failure. Without a destructor: one would keep the library from being unloaded.
struct Last {
    message: [u8; MESSAGE_MOST],
    errno: i32,
}

thread_local! {
    static LAST: UnsafeCell<Last> = const { UnsafeCell::new(Last { message: [0; MESSAGE_MOST], errno: 0 }) };
}

fn remember(error: &Error) {
    let text = error.message();
    let mut end = text.len().min(MESSAGE_MOST - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    LAST.with(|last| {
        // SAFETY: this thread's own, and nothing else has a reference to it meanwhile.
        let last = unsafe { &mut *last.get() };
        last.message[..end].copy_from_slice(&text.as_bytes()[..end]);
        last.message[end] = 0;
        last.errno = error.errno();
    });
}

/// Runs an export's body: its failure becomes a status value and the thread's message, and so does a
/// panic, which must not cross into C.
pub fn call(body: impl FnOnce() -> Result<()>) -> camlease_status {
    // Any call, even one that fails, is where a child that no handler saw lets go of its parent's cameras.
    fork::epoch();
    let error = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return CAMLEASE_OK,
        Ok(Err(error)) => error,
        Err(payload) => from_panic(payload),
    };
    remember(&error);
    status_of(error.kind())
}

/// The same for a call that may wait, for a driver, a holder or another process: an unload waits until its thread has left.
pub fn call_that_waits(body: impl FnOnce() -> Result<()>) -> camlease_status {
    let _visit = exit::Visit::begin();
    call(body)
}

/// The same for a call that returns a number: 0 when it fails.
pub fn count(body: impl FnOnce() -> Result<usize>) -> usize {
    let mut number = 0;
    call(|| {
        number = body()?;
        Ok(())
    });
    number
}

fn from_panic(payload: Box<dyn Any + Send>) -> Error {
    let words = payload.downcast_ref::<&str>().map(|text| text.to_string());
    let words = words.or_else(|| payload.downcast_ref::<String>().cloned());
    // Its destructor might panic again, which would abort the host.
    std::mem::forget(payload);
    let words = words.unwrap_or_else(|| "a panic without words".into());
    Error::new(Kind::Internal, format!("camlease has an error of its own: {words}")).hint("please report it")
}

/// Name of a status value, as "CAMLEASE_BUSY".
///
/// @param status Any number.
/// @return A string that is never freed; "CAMLEASE_UNKNOWN" for a number that is no status value.
/// Callable from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn camlease_status_name(status: camlease_status) -> *const c_char {
    STATUSES.iter().find(|row| row.1 == status).map_or(c"CAMLEASE_UNKNOWN", |row| row.2).as_ptr()
}

/// The calling thread's last failure in words: the camera, what was tried, the reason, what to do.
///
/// @return UTF-8 text, never NULL; "" before the first failure. Valid until the thread's next failing
/// call or its end.
#[unsafe(no_mangle)]
pub extern "C" fn camlease_last_error_message() -> *const c_char {
    // SAFETY: this thread's own buffer, always terminated.
    LAST.with(|last| unsafe { (*last.get()).message.as_ptr().cast() })
}

/// The operating system's error number behind the calling thread's last failure.
///
/// @return An errno value, or 0 where no system call failed.
#[unsafe(no_mangle)]
pub extern "C" fn camlease_last_error_errno() -> i32 {
    // SAFETY: this thread's own.
    LAST.with(|last| unsafe { (*last.get()).errno })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> String {
        // SAFETY: a terminated string of this thread's.
        unsafe { CStr::from_ptr(camlease_last_error_message()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_panic_becomes_a_status_with_its_words() {
        assert_eq!(call(|| panic!("seven {}", 7)), CAMLEASE_INTERNAL);
        assert!(message().contains("seven 7"), "{}", message());
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("in drop");
            }
        }
        assert_eq!(call(|| std::panic::panic_any(Bomb)), CAMLEASE_INTERNAL);
        assert!(message().contains("without words"));
    }

    #[test]
    fn long_messages_end_at_a_character() {
        call(|| Err(Error::new(Kind::Io, "ä".repeat(MESSAGE_MOST))));
        assert_eq!(message(), "ä".repeat((MESSAGE_MOST - 1) / 2));
        assert_eq!(call(|| Ok(())), CAMLEASE_OK);
        assert!(!message().is_empty(), "success leaves the last failure as it is");
    }

    #[test]
    fn every_status_has_one_value_and_one_name() {
        for (at, row) in STATUSES.iter().enumerate() {
            assert!(STATUSES[..at].iter().all(|other| other.0 != row.0 && other.1 != row.1 && other.2 != row.2));
            // SAFETY: a static string.
            assert_eq!(unsafe { CStr::from_ptr(camlease_status_name(row.1)) }, row.2);
        }
        // SAFETY: a static string.
        assert_eq!(unsafe { CStr::from_ptr(camlease_status_name(4711)) }, c"CAMLEASE_UNKNOWN");
    }
}
