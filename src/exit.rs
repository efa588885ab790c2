//! The end of the process, or of this library in it: cameras that the host forgot are closed.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::{camera, fork, policy, signals};

static TIMEOUT_MS: AtomicU32 = AtomicU32::new(policy::SHUTDOWN_TIMEOUT.as_millis() as u32);

/// How long exit, unload and shutdown may take when a driver hangs.
pub fn timeout() -> Duration {
    Duration::from_millis(TIMEOUT_MS.load(Ordering::Relaxed).into())
}

pub fn set_timeout(timeout: Duration) {
    TIMEOUT_MS.store(timeout.as_millis().min(u32::MAX.into()) as u32, Ordering::Relaxed);
}

/// Threads inside C calls that may wait: `[whose, by the process's epoch: 32 bits][how many: 32 bits]`. A child has none
/// of its parent's.
static VISITS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Whose, and how many of them are this thread's: a function of the host's that a call runs may call again, or end
    /// the process.
    static OWN_VISITS: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// While this lives, a thread is inside such a call: an unload waits until it has left the library. It lives to the end
/// of the call; what follows are a few instructions.
pub struct Visit {
    whose: u64,
}

/// This process, in [`VISITS`].
fn ours() -> u64 {
    fork::epoch() << 32
}

/// How many of `visits` are those of `whose`.
fn visits_of(whose: u64, visits: u64) -> u64 {
    if visits >> 32 == whose >> 32 { visits & u64::from(u32::MAX) } else { 0 }
}

impl Visit {
    pub fn begin() -> Visit {
        let whose = ours();
        let one_more = |visits| Some(whose | (visits_of(whose, visits) + 1));
        let _ = VISITS.fetch_update(Ordering::SeqCst, Ordering::Relaxed, one_more);
        let (of, own) = OWN_VISITS.get();
        OWN_VISITS.set((whose, if of == whose { own + 1 } else { 1 }));
        Visit { whose }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        // A child that was made in the middle of a call leaves its parent's alone.
        if self.whose == ours() {
            OWN_VISITS.set((self.whose, OWN_VISITS.get().1 - 1));
            VISITS.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Whether another thread of this process is inside a call that may wait.
pub fn others_visit() -> bool {
    let (of, own) = OWN_VISITS.get();
    let own = if of == ours() { own } else { 0 };
    visits_of(ours(), VISITS.load(Ordering::SeqCst)) > own
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
