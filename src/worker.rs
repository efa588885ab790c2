//! A thread of the library's that listens for something until it is stopped.

use std::ffi::CStr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::kernel::{Event, Thread};
use crate::slab::Slab;
use crate::{fork, signals};

/// The threads that nobody waits for any more, by whose process they are.
static LEFT: Slab<u64> = Slab::new(14);

/// Whether one of this process's is there still, as one is for a moment whose callback closed the camera. An unload takes
/// the code away beneath it.
pub fn are_left() -> bool {
    LEFT.each().any(|(_, epoch)| *epoch == fork::epoch())
}

pub struct Worker {
    thread: Thread,
    stop: Arc<Event>,
    /// Its place in [`LEFT`], 0 for none, or [`ENDED`].
    left: Arc<AtomicU64>,
}

/// In the place of a place: the thread has done what it was to do, and needs none any more.
const ENDED: u64 = u64::MAX;

impl Worker {
    /// Starts one, which is to return when the event is signalled.
    pub fn start(name: &CStr, body: impl FnOnce(&Event) + Send + 'static) -> io::Result<Worker> {
        let stop = Arc::new(Event::new()?);
        let left = Arc::<AtomicU64>::default();
        let (stopped, place) = (stop.clone(), left.clone());
        let thread = Thread::start(name, move || {
            // A release waits for this thread: it must not wait for the release at the end of a call.
            std::mem::forget(signals::inside());
            body(&stopped);
            LEFT.remove(place.swap(ENDED, Ordering::SeqCst));
        })?;
        Ok(Worker { thread, stop, left })
    }

    pub fn stop(&self) {
        self.stop.signal();
    }

    /// Ends it, but waits no longer than the deadline: false when it runs still.
    pub fn end_by(self, deadline: Instant) -> bool {
        if !self.stop.is_own() {
            return true; // a parent's
        }
        self.stop();
        // Before it is waited for: it may end, and leave its place, the moment after the wait was given up.
        let place = LEFT.insert(fork::epoch()).unwrap_or(0);
        let has_ended = self.left.swap(place, Ordering::SeqCst) == ENDED;
        if self.thread.is_current() {
            // It was ended from within: by the host, in a callback.
            self.thread.detach();
            return true;
        }
        let joined = self.thread.join_by(deadline);
        if joined || has_ended {
            LEFT.remove(place);
        }
        joined
    }
}
