//! Commands to a camera process that the library does not know itself: its end, the preview, recordings and snapshots; and
//! what of that the camera's configuration turns on.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use camlease::{Allowed, Error, Kind, LateAnswer, Map, Rate, Result};
use nix::sys::eventfd::EventFd;
use serde_json::Value;

use super::config;
use super::journal::{Level, say};
use super::preview::{Preview, PreviewOptions};
use super::record::archive::Archive;
use super::record::{QUALITY, snapshot, spawn};
use super::sharing::allowed;

/// Snapshots at a time: each has a thread, for as long as a disk may hang.
const SNAPSHOTS_MOST: usize = 4;

pub struct Desk {
    name: String,
    readers: Allowed,
    /// Wakes the worker's main thread.
    wake: Arc<EventFd>,
    quits: AtomicBool,
    offer: Mutex<Offer>,
    archive: Archive,
    snapshots: Arc<AtomicUsize>,
    /// What was said of preview and recording last.
    told: Mutex<[Option<String>; 2]>,
}

/// The preview, and how it was last configured.
struct Offer {
    /// The camera is shared: before, nothing is begun.
    is_due: bool,
    config: Option<config::Preview>,
    preview: Option<Preview>,
    /// Why there is none though there should be.
    error: Option<Error>,
}

impl Desk {
    pub fn new(wake: Arc<EventFd>, camera: &config::Camera) -> io::Result<Desk> {
        Ok(Desk {
            name: camera.name.clone(),
            readers: allowed(&camera.readers),
            wake,
            quits: AtomicBool::new(false),
            offer: Mutex::new(Offer { is_due: false, config: camera.preview.clone(), preview: None, error: None }),
            archive: Archive::new(&camera.name, camera.recording.clone())?,
            snapshots: Arc::default(),
            told: Mutex::default(),
        })
    }

    /// The camera is shared now: what its configuration turns on begins.
    pub fn begin(&self) {
        let mut offer = lock(&self.offer);
        offer.is_due = true;
        if offer.config.is_some() && offer.preview.is_none() {
            self.offer(&mut offer, true);
        }
        drop(offer);
        self.archive.begin();
    }

    /// Goes on with another configuration of preview and recording.
    pub fn change(&self, camera: &config::Camera) {
        let mut offer = lock(&self.offer);
        if offer.config != camera.preview {
            offer.config = camera.preview.clone();
            let is_on = offer.is_due && offer.config.is_some();
            self.offer(&mut offer, is_on);
        }
        drop(offer);
        self.archive.change(camera.recording.clone());
    }

    /// Ends preview and recording; a disk that does not answer is waited for no longer than this.
    pub fn end(&self, patience: Duration) {
        lock(&self.offer).preview = None;
        self.archive.end(patience);
    }

    /// Says what has gone wrong with preview and recording, once.
    pub fn look(&self) {
        let word = |status: &Map, key: &str| status.get(key)?.as_str().map(str::to_owned);
        let (preview, recording) = (self.preview_status(), self.archive.status());
        let ended = word(&recording, "ended").map(|why| format!("it ended: {why}"));
        let now = [word(&preview, "error"), word(&recording, "error").or(ended)];
        let mut told = lock(&self.told);
        for (what, (now, told)) in ["preview", "recording"].iter().zip(now.into_iter().zip(told.iter_mut())) {
            if let Some(trouble) = now.as_ref().filter(|_| now != *told) {
                say(Level::Warning, &self.name, format_args!("{what}: {trouble}"));
            }
            *told = now;
        }
    }

    /// What is done at once.
    pub fn command(&self, verb: &str, request: &Map) -> Option<Result<Map>> {
        match verb {
            "quit" => {
                self.quits.store(true, Ordering::SeqCst);
                let _ = self.wake.write(1);
                Some(Ok(Map::new()))
            }
            "preview" => Some(self.preview(request)),
            _ => None,
        }
    }

    /// What waits for a disk, or for the camera. Returns `answer` for other verbs.
    pub fn begin_command(&self, verb: &str, request: &Map, answer: LateAnswer) -> Option<LateAnswer> {
        match verb {
            "record" => match is_on(request).and_then(|is_on| Ok((is_on, file(request)?))) {
                Ok((is_on, file)) => self.archive.order(is_on, file, answer),
                Err(error) => answer.give(Err(error)),
            },
            "snapshot" => match file(request).and_then(|file| Ok((file, self.archive.folder()?, self.turn()?))) {
                Ok((file, folder, turn)) => self.snapshot(file, folder, turn, answer),
                Err(error) => answer.give(Err(error)),
            },
            _ => return Some(answer),
        }
        None
    }

    /// What is added to the answer to "status".
    pub fn status(&self) -> Map {
        let (preview, recording) = (self.preview_status(), self.archive.status());
        [("preview".to_owned(), preview.into()), ("recording".to_owned(), recording.into())].into_iter().collect()
    }

    /// Whether somebody told the process to end.
    pub fn quits(&self) -> bool {
        self.quits.load(Ordering::SeqCst)
    }

    fn preview(&self, request: &Map) -> Result<Map> {
        let is_on = is_on(request)?;
        let mut offer = lock(&self.offer);
        if is_on != offer.preview.is_some() {
            self.offer(&mut offer, is_on);
        }
        let failure = offer.error.clone();
        drop(offer);
        match failure {
            Some(failure) => Err(failure),
            None => Ok(self.preview_status()),
        }
    }

    fn offer(&self, offer: &mut Offer, is_on: bool) {
        (offer.preview, offer.error) = (None, None);
        if !is_on {
            return;
        }
        let config::Preview { width, fps, quality } = offer.config.clone().unwrap_or_default();
        let options = PreviewOptions { width, rate: Rate::new(fps.0, fps.1), quality, readers: self.readers };
        match Preview::start(&self.name, options) {
            Ok(preview) => offer.preview = Some(preview),
            Err(error) => offer.error = Some(error),
        }
    }

    fn preview_status(&self) -> Map {
        let offer = lock(&self.offer);
        match &offer.preview {
            Some(preview) => preview.status(),
            None => {
                let error = offer.error.as_ref().map_or(Value::Null, |error| error.to_string().into());
                [("on".to_owned(), false.into()), ("error".to_owned(), error)].into_iter().collect()
            }
        }
    }

    /// To take a snapshot.
    fn turn(&self) -> Result<Turn> {
        let turn = Turn(self.snapshots.clone());
        if self.snapshots.fetch_add(1, Ordering::SeqCst) < SNAPSHOTS_MOST {
            return Ok(turn);
        }
        let message = format!("{}: {SNAPSHOTS_MOST} snapshots are being taken already", self.name);
        Err(Error::new(Kind::Busy, message).hint("try again; if that does not help, see whether its disk answers"))
    }

    /// By a thread of its own, which reads the camera as any other reader does.
    fn snapshot(&self, file: Option<PathBuf>, folder: PathBuf, turn: Turn, answer: LateAnswer) {
        let name = self.name.clone();
        let taking = move || {
            let taken = snapshot::take(&name, &folder, file.as_deref(), QUALITY);
            drop(turn);
            answer.give(taken);
        };
        if let Err(error) = spawn("camlease-picture", taking) {
            // The answer went with the thread that did not begin.
            say(Level::Warning, &self.name, format_args!("snapshot: {error}"));
        }
    }
}

struct Turn(Arc<AtomicUsize>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn is_on(request: &Map) -> Result<bool> {
    request.get("on").and_then(Value::as_bool).ok_or_else(|| {
        Error::new(Kind::InvalidArgument, "\"on\" is missing: true or false").hint("as {\"do\":\"record\",\"on\":true}")
    })
}

fn file(request: &Map) -> Result<Option<PathBuf>> {
    match request.get("file") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(file)) => Ok(Some(file.into())),
        Some(other) => Err(Error::new(Kind::InvalidArgument, format!("\"file\": {other} is not a name"))),
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}
