//! A camera's recordings, one after the other: what was ordered is carried out by a thread of its own, as a disk may hang,
//! and who orders is to be answered then and to wait for nothing.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use camlease::{Error, Kind, LateAnswer, Map, Result};
use serde_json::Value;

use super::{Container, QUALITY, RecordOptions, Recorder, STOP_PATIENCE, spawn};
use crate::serve::config;

/// Orders that wait for their turn.
const ORDERS_MOST: usize = 4;

pub struct Archive {
    shared: Arc<Shared>,
    orders: Sender<Order>,
}

struct Shared {
    camera: String,
    /// Orders that somebody waits for.
    waiting: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    config: Option<config::Recording>,
    /// The newest, which may have ended.
    recorder: Option<Arc<Recorder>>,
    /// Why none began though it should have.
    error: Option<String>,
}

enum Order {
    /// What the configuration turns on.
    Begin,
    Start(Option<PathBuf>, LateAnswer),
    Stop(LateAnswer),
    Change(Option<config::Recording>),
    End(Duration, SyncSender<()>),
}

impl Archive {
    pub fn new(camera: &str, config: Option<config::Recording>) -> io::Result<Archive> {
        let state = Mutex::new(State { config, recorder: None, error: None });
        let shared = Arc::new(Shared { camera: camera.to_owned(), waiting: AtomicUsize::new(0), state });
        let (orders, ordered) = channel();
        let own = shared.clone();
        spawn("camlease-archive", move || own.work(&ordered))?;
        Ok(Archive { shared, orders })
    }

    pub fn begin(&self) {
        let _ = self.orders.send(Order::Begin);
    }

    pub fn change(&self, config: Option<config::Recording>) {
        let _ = self.orders.send(Order::Change(config));
    }

    pub fn order(&self, is_on: bool, file: Option<PathBuf>, answer: LateAnswer) {
        if self.shared.waiting.fetch_add(1, Ordering::SeqCst) >= ORDERS_MOST {
            self.shared.waiting.fetch_sub(1, Ordering::SeqCst);
            let message = format!("{}: its disk has not answered to what was ordered before", self.shared.camera);
            return answer
                .give(Err(Error::new(Kind::Busy, message).hint("try again, and see whether the disk is well")));
        }
        // The thread that receives them ends with this alone.
        let _ = self.orders.send(if is_on { Order::Start(file, answer) } else { Order::Stop(answer) });
    }

    /// Ends what is recorded. Longer than this nobody waits.
    pub fn end(&self, patience: Duration) {
        let (done, ended) = sync_channel(1);
        if self.orders.send(Order::End(patience, done)).is_ok() {
            let _ = ended.recv_timeout(patience);
        }
    }

    /// Where files are created.
    pub fn folder(&self) -> Result<PathBuf> {
        self.shared.state().config.as_ref().map(|config| config.folder.clone()).ok_or_else(|| self.shared.no_folder())
    }

    pub fn status(&self) -> Map {
        self.shared.status()
    }
}

impl Shared {
    fn work(&self, orders: &Receiver<Order>) {
        let mut has_begun = false;
        for order in orders {
            match order {
                Order::Begin => {
                    has_begun = true;
                    let is_on = self.state().config.as_ref().is_some_and(|config| config.on);
                    if is_on && self.recorder().is_none_or(|recorder| !recorder.is_on()) {
                        self.start_by_itself();
                    }
                }
                Order::Start(file, answer) => self.answer(answer, self.start(file)),
                Order::Stop(answer) => {
                    self.stop(STOP_PATIENCE);
                    self.answer(answer, Ok(self.status()));
                }
                Order::Change(config) if has_begun => self.change(config),
                Order::Change(config) => self.state().config = config,
                Order::End(patience, done) => {
                    self.stop(patience);
                    let _ = done.send(());
                }
            }
        }
    }

    fn answer(&self, answer: LateAnswer, outcome: Result<Map>) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        answer.give(outcome);
    }

    /// Goes on recording in a new file where another configuration wants that; begins or ends where it says so.
    fn change(&self, config: Option<config::Recording>) {
        let before = std::mem::replace(&mut self.state().config, config.clone());
        if before == config {
            return;
        }
        let was_on = self.recorder().is_some_and(|recorder| recorder.is_on());
        self.stop(STOP_PATIENCE);
        self.state().error = None;
        // By command it goes on beyond the change, by the configuration for as long as that says so.
        let by_command = was_on && !before.is_some_and(|before| before.on);
        if config.is_some_and(|config| config.on || by_command) {
            self.start_by_itself();
        }
    }

    fn start_by_itself(&self) {
        let started = self.start(None);
        self.state().error = started.err().map(|error| error.to_string());
    }

    fn start(&self, file: Option<PathBuf>) -> Result<Map> {
        if let Some(recorder) = self.recorder().filter(|recorder| recorder.is_on()) {
            return match file {
                None => Ok(recorder.status()),
                Some(_) => Err(Error::new(Kind::Busy, format!("{}: it is recorded already", self.camera))
                    .hint(format_args!("\"camlease ctl {} record off\" ends that", self.camera))),
            };
        }
        let config = self.state().config.clone().ok_or_else(|| self.no_folder())?;
        let recorder = Recorder::start(&self.camera, options(config), file)?;
        let status = recorder.status();
        let mut state = self.state();
        state.recorder = Some(Arc::new(recorder));
        state.error = None;
        Ok(status)
    }

    fn stop(&self, patience: Duration) {
        if let Some(recorder) = self.recorder() {
            recorder.stop_within(patience);
        }
    }

    fn status(&self) -> Map {
        let (recorder, error) = {
            let state = self.state();
            (state.recorder.clone(), state.error.clone())
        };
        let mut status = match recorder {
            Some(recorder) => recorder.status(),
            None => [("on".to_owned(), false.into()), ("error".to_owned(), Value::Null)].into_iter().collect(),
        };
        if let Some(error) = error {
            status.insert("error".into(), error.into());
        }
        status
    }

    fn recorder(&self) -> Option<Arc<Recorder>> {
        self.state().recorder.clone()
    }

    fn no_folder(&self) -> Error {
        let message = format!("{}: no folder for its recordings is configured", self.camera);
        let hint =
            format_args!("write folder = \"/var/lib/camlease\" below [camera.{}.recording], and reload", self.camera);
        Error::new(Kind::WrongState, message).hint(hint)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn options(config: config::Recording) -> RecordOptions {
    let config::Recording { folder, format, max_seconds, max_bytes, max_files, min_free, on: _ } = config;
    let container = match format {
        config::Container::Mkv => Container::Matroska,
        config::Container::Y4m => Container::Y4m,
        config::Container::Raw => Container::Raw,
    };
    RecordOptions { folder, container, quality: QUALITY, max_bytes, max_seconds, max_files, min_free }
}
