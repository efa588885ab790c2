//! Calls on the library as a whole: version, log, shutdown.

use std::ffi::{c_char, c_void};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::status::{call, camlease_status};
use super::structs::c_text;
use crate::error::{Error, Kind};
use crate::{camera, exit, policy, timed};

/// Version of the library that runs, for a program that loaded it at run time.
///
/// @return `major << 16 | minor << 8 | patch`.
#[unsafe(no_mangle)]
pub extern "C" fn camlease_version() -> u32 {
    let part = |text: &str| text.parse::<u32>().unwrap_or(0);
    part(env!("CARGO_PKG_VERSION_MAJOR")) << 16
        | part(env!("CARGO_PKG_VERSION_MINOR")) << 8
        | part(env!("CARGO_PKG_VERSION_PATCH"))
}

/// Version of the library that runs, in words.
///
/// @return A string such as "0.1.0", never freed.
#[unsafe(no_mangle)]
pub extern "C" fn camlease_version_string() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// Closes every camera of this process and lets none be opened after: a later open gives
/// CAMLEASE_SHUT_DOWN, and so does every call that waits now, or that uses a camera which was open.
/// Frames that are out stay readable until they are released. Handles are still to be closed and
/// freed. Runs by itself at exit and when the library is unloaded. Callable from any thread, any
/// number of times.
///
/// @return CAMLEASE_OK; CAMLEASE_TIMEOUT when a driver hung for longer than
/// camlease_set_shutdown_timeout() allows: the kernel then lets go of that camera when it returns.
#[unsafe(no_mangle)]
pub extern "C" fn camlease_shutdown() -> camlease_status {
    call(|| {
        if camera::shut_down(exit::timeout()) {
            return Ok(());
        }
        let waited = exit::timeout().as_millis();
        Err(Error::new(Kind::Timeout, format!("shutdown: a camera's driver hung for longer than {waited} ms"))
            .hint("the log names the camera; the kernel lets go of it when the driver returns"))
    })
}

/// Bounds how long exit, unload and camlease_shutdown() may take when a driver hangs.
///
/// @param timeout_ms Milliseconds for all cameras together; 3000 unless set. Callable from any thread.
#[unsafe(no_mangle)]
pub extern "C" fn camlease_set_shutdown_timeout(timeout_ms: u32) {
    exit::set_timeout(Duration::from_millis(timeout_ms.into()));
}

/// Something went wrong that no call could return.
pub const CAMLEASE_LOG_ERROR: u32 = 1;
/// Something works less well than it should.
pub const CAMLEASE_LOG_WARNING: u32 = 2;
/// Rare events of interest.
pub const CAMLEASE_LOG_INFO: u32 = 3;
/// What a developer of the library wants to know.
pub const CAMLEASE_LOG_DEBUG: u32 = 4;

/// Takes a log message. It may come from any thread that is in a call of this library, from several
/// at once, and must not call this library nor throw.
///
/// @param user_data What was given with the callback.
/// @param level CAMLEASE_LOG_ERROR to CAMLEASE_LOG_DEBUG.
/// @param message UTF-8 text without a line end, valid during the callback.
pub type camlease_log_callback =
    Option<unsafe extern "C" fn(user_data: *mut c_void, level: u32, message: *const c_char)>;

struct Sink {
    callback: camlease_log_callback,
    user_data: *mut c_void,
}
// SAFETY: the pointer is the host's, handed back to it and not used here.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

static SINK: RwLock<Sink> = RwLock::new(Sink { callback: None, user_data: std::ptr::null_mut() });

struct Forward;

impl log::Log for Forward {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.target().starts_with("camlease")
    }

    fn log(&self, record: &log::Record<'_>) {
        let level = match record.level() {
            log::Level::Error => CAMLEASE_LOG_ERROR,
            log::Level::Warn => CAMLEASE_LOG_WARNING,
            log::Level::Info => CAMLEASE_LOG_INFO,
            _ => CAMLEASE_LOG_DEBUG,
        };
        if !self.enabled(record.metadata()) {
            return;
        }
        // Not waited for: in a forked child a lock may be held by a thread that is not there.
        let Ok(sink) = SINK.try_read() else { return };
        if let Some(callback) = sink.callback {
            let message = c_text(&record.args().to_string());
            // SAFETY: the host's function, with what it was registered with.
            unsafe { callback(sink.user_data, level, message.as_ptr()) };
        }
    }

    fn flush(&self) {}
}

/// Sets where log messages go. Without this call the library prints nothing.
///
/// @param callback Takes messages from now on; NULL for none. When this call returns, no thread is in
/// the former callback any more.
/// @param user_data Handed to the callback.
/// @param level The most talkative level wanted, CAMLEASE_LOG_ERROR to CAMLEASE_LOG_DEBUG.
/// @return CAMLEASE_OK; CAMLEASE_INVALID_ARGUMENT for another level; CAMLEASE_UNSUPPORTED in a Rust
/// program that has a logger of its own; CAMLEASE_WRONG_STATE when a thread does not return from the former
/// callback. Callable from any thread, but not from a log callback.
#[unsafe(no_mangle)]
pub extern "C" fn camlease_set_log_callback(
    callback: camlease_log_callback,
    user_data: *mut c_void,
    level: u32,
) -> camlease_status {
    static OURS: AtomicBool = AtomicBool::new(false);
    call(|| {
        let filter = match level {
            CAMLEASE_LOG_ERROR => log::LevelFilter::Error,
            CAMLEASE_LOG_WARNING => log::LevelFilter::Warn,
            CAMLEASE_LOG_INFO => log::LevelFilter::Info,
            CAMLEASE_LOG_DEBUG => log::LevelFilter::Debug,
            _ => return Err(Error::new(Kind::InvalidArgument, format!("there is no log level {level}"))),
        };
        // Bounded: in a forked child a callback may be under way in a thread that is not there.
        let deadline = Some(Instant::now() + policy::LOG_PATIENCE);
        let mut sink = timed::write_by(&SINK, deadline)
            .ok_or_else(|| Error::new(Kind::WrongState, "a thread does not return from the former log callback"))?;
        if !OURS.load(Ordering::Relaxed) {
            log::set_logger(&Forward).map_err(|_| {
                Error::new(Kind::Unsupported, "this program has a logger of its own, which takes the messages")
            })?;
            OURS.store(true, Ordering::Relaxed);
        }
        log::set_max_level(if callback.is_some() { filter } else { log::LevelFilter::Off });
        *sink = Sink { callback, user_data };
        Ok(())
    })
}
