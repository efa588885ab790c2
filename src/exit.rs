//! The end of the process, or of this library in it: cameras that the host forgot are closed.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::{camera, policy, signals};

static TIMEOUT_MS: AtomicU32 = AtomicU32::new(policy::SHUTDOWN_TIMEOUT.as_millis() as u32);

/// How long exit, unload and shutdown may take when a driver hangs.
pub fn timeout() -> Duration {
    Duration::from_millis(TIMEOUT_MS.load(Ordering::Relaxed).into())
}

pub fn set_timeout(timeout: Duration) {
    TIMEOUT_MS.store(timeout.as_millis().min(u32::MAX.into()) as u32, Ordering::Relaxed);
}

/// Registers the end; called before the first camera is opened.
pub fn watch() {
    static WATCHES: AtomicBool = AtomicBool::new(false);
    if WATCHES.swap(true, Ordering::SeqCst) {
        return;
    }
    // SAFETY: libc binds the registration to the library that this code is in: the handler runs when
    // that is unloaded, or at exit, whichever is first. A child that exits runs it, too: cameras of its
    // parent are not its own, and are left alone.
    unsafe { libc::atexit(ended) };
}

extern "C" fn ended() {
    // Nobody is left to be told of a panic.
    let _ = std::panic::catch_unwind(|| {
        camera::shut_down(timeout());
        signals::end(Instant::now() + timeout());
    });
}
