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
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    cancel: Event,
    /// When the current try began.
    step: Mutex<Instant>,
    waits: AtomicBool,
    /// There before whoever waits for it is woken.
    opened: Mutex<Option<camlease::Result<Camera>>>,
}

impl Opening {
    /// `wake` is armed when it has come to an end.
    pub fn begin(camera: &config::Camera, wake: Arc<EventFd>) -> camlease::Result<Opening> {
        let cancel = Event::new().map_err(|error| Error::system("creating an event", error))?;
        let (step, waits, opened) = (Mutex::new(Instant::now()), AtomicBool::new(false), Mutex::new(None));
        let shared = Arc::new(Shared { cancel, step, waits, opened });
        let (own, camera) = (shared.clone(), camera.clone());
        let thread = std::thread::Builder::new().name("camlease-open".into()).spawn(move || {
            let opened = own.open(&camera);
            *own.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened);
            let _ = wake.write(1);
        });
        let thread = thread.map_err(|error| Error::system("starting a thread", error))?;
        Ok(Opening { shared, thread: Some(thread) })
    }

    /// What came of it, once that is known.
    pub fn result(&mut self) -> Option<camlease::Result<Camera>> {
        let has_ended = self.thread.as_ref()?.is_finished();
        let opened = self.shared.opened.lock().unwrap_or_else(PoisonError::into_inner).take();
        let opened = opened.or_else(|| has_ended.then(|| Err(Error::new(Kind::Internal, "opening it panicked"))))?;
        let _ = self.thread.take()?.join();
        Some(opened)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::wait;
    use nix::sys::eventfd::EfdFlags;
    use std::os::fd::AsFd;

    #[test]
    fn whoever_is_woken_has_the_camera_at_once() {
        let text = format!("[camera.a]\nuri = \"virtual:opening-{}\"\n", std::process::id());
        let camera = config::parse(&text, "c").unwrap().cameras.remove(0);
        for _ in 0..50 {
            let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).unwrap());
            let mut opening = Opening::begin(&camera, wake.clone()).unwrap();
            assert!(wait([wake.as_fd()], Some(Duration::from_secs(30)))[0]);
            opening.result().expect("its result").unwrap().close();
        }
    }
}
