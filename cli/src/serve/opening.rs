//! Getting the camera, in a thread of its own: meanwhile the main thread tells that all is well, and hears of the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use camlease::{Camera, Error, Event, Holders, Kind, OpenOptions};
use nix::sys::eventfd::EventFd;

use super::config;
use super::journal::{Level, say};

/// How long one try waits. A driver that hangs is told from a camera that is busy by a try that takes longer.
const STEP: Duration = Duration::from_secs(2);

pub struct Opening {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<camlease::Result<Camera>>>,
}

struct Shared {
    cancel: Event,
    /// When the current try began.
    step: Mutex<Instant>,
    waits: AtomicBool,
}

impl Opening {
    /// `wake` is armed when it has come to an end.
    pub fn begin(camera: &config::Camera, wake: EventFd) -> camlease::Result<Opening> {
        let cancel = Event::new().map_err(|error| Error::system("creating an event", error))?;
        let shared = Shared { cancel, step: Mutex::new(Instant::now()), waits: AtomicBool::new(false) };
        let shared = Arc::new(shared);
        let (own, camera) = (shared.clone(), camera.clone());
        let thread = std::thread::Builder::new().name("camlease-open".into()).spawn(move || {
            let opened = own.open(&camera);
            let _ = wake.write(1);
            opened
        });
        let thread = thread.map_err(|error| Error::system("starting a thread", error))?;
        Ok(Opening { shared, thread: Some(thread) })
    }

    /// What came of it, once that is known.
    pub fn result(&mut self) -> Option<camlease::Result<Camera>> {
        let thread = self.thread.take_if(|thread| thread.is_finished())?;
        Some(thread.join().unwrap_or_else(|_| Err(Error::new(Kind::Internal, "opening it panicked"))))
    }

    /// How long ago it was certain that no driver hangs.
    pub fn age(&self) -> Duration {
        self.shared.step.lock().unwrap_or_else(PoisonError::into_inner).elapsed().saturating_sub(STEP)
    }

    pub fn waits(&self) -> bool {
        self.shared.waits.load(Ordering::Relaxed)
    }

    /// Ends it, wherever it is.
    pub fn cancel(mut self) {
        self.shared.cancel.signal();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn open(&self, camera: &config::Camera) -> camlease::Result<Camera> {
        let mut told = String::new();
        loop {
            *self.step.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            let mut on_wait = |message: &str, _: &Holders| {
                self.waits.store(true, Ordering::Relaxed);
                if told != message {
                    say(Level::Notice, &camera.name, message);
                    told = message.to_owned();
                }
            };
            let options = OpenOptions {
                timeout: Some(STEP),
                wait_for_device: true,
                cancel: Some(&self.cancel),
                on_wait: Some(&mut on_wait),
                name: format!("camlease serve {}", camera.name),
                priority: camera.priority,
                ..OpenOptions::default()
            };
            match Camera::open(&camera.uri, options) {
                Err(error) if matches!(error.kind(), Kind::Busy | Kind::NotFound | Kind::Timeout) => {}
                opened => return opened,
            }
        }
    }
}
