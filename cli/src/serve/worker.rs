//! The worker: has one camera, shares it, and tells the supervisor that all is well for as long as it is.

use std::os::fd::{AsFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

use camlease::{Camera, Error, Kind};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::signal::Signal;

use super::channel::{self, Channel, News, Next, Order, State};
use super::config::{self, Supervision};
use super::controls::{self, Kept};
use super::desk::Desk;
use super::journal::{self, Level, say};
use super::last_resort::LastResort;
use super::opening::Opening;
use super::sharing;
use crate::output::Exit;
use crate::signals::{Signals, wait};

/// How long the first order may take to come.
const ORDER_PATIENCE: Duration = Duration::from_secs(10);

struct Worker {
    channel: Channel<News, Order>,
    signals: Signals,
    wake: Arc<EventFd>,
    config: config::Camera,
    rules: Supervision,
    /// How often other ones came.
    rules_taken: u64,
    desk: Arc<Desk>,
    last_resort: LastResort,
    told_trouble: Option<String>,
}

/// Why a worker ends.
enum End {
    /// It was told to, or nobody is left to tell it anything.
    Told,
    Quit,
    Failed(Error),
}

pub fn run(name: &str, channel: RawFd) -> Exit {
    journal::take_from_library(name);
    // It was started by the path of its own program, of which the kernel would call it "exe".
    let _ = nix::sys::prctl::set_name(c"camlease");
    match begin(name, channel) {
        Ok(Some(worker)) => worker.work(),
        Ok(None) => Exit::OK,
        Err(error) => {
            say(Level::Error, name, format_args!("its process cannot begin: {error}"));
            Exit::FAILURE
        }
    }
}

/// `None` where the supervisor has gone before it said what to do.
fn begin(name: &str, channel: RawFd) -> std::io::Result<Option<Worker>> {
    let signals = Signals::take(&[Signal::SIGTERM, Signal::SIGINT])?;
    let channel = channel::inherited(channel)?;
    let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
    wait([channel.as_fd()], Some(ORDER_PATIENCE));
    let Next::Message(Order::Serve { camera, supervision }) = channel.receive() else {
        say(Level::Error, name, "no order came from the supervisor");
        return Ok(None);
    };
    let desk = Arc::new(Desk::new(wake.clone(), &camera)?);
    let last_resort = LastResort::new()?;
    let (config, rules, rules_taken, told_trouble) = (*camera, supervision, 0, None);
    Ok(Some(Worker { channel, signals, wake, config, rules, rules_taken, desk, last_resort, told_trouble }))
}

impl Worker {
    fn work(mut self) -> Exit {
        let name = self.config.name.clone();
        let end = match self.open() {
            Ok(camera) => {
                let camera = Arc::new(camera);
                let end = self.serve(&camera);
                self.limit_the_end();
                if matches!(end, End::Quit) {
                    // Before what may hang: killed in that, it has quit all the same.
                    let _ = self.channel.send(&News::Quit);
                }
                // The camera is let go in order on a disk that hangs, too.
                self.desk.end(self.rules.stop_grace / 2);
                sharing::end(&camera);
                camera.close();
                end
            }
            Err(end) => end,
        };
        match end {
            End::Told | End::Quit => Exit::OK,
            End::Failed(error) => {
                say(Level::Error, &name, &error);
                Exit::of(error.kind())
            }
        }
    }

    fn open(&mut self) -> Result<Camera, End> {
        let mut opening = Opening::begin(&self.config, self.wake.clone()).map_err(End::Failed)?;
        loop {
            if let Some(opened) = opening.result() {
                return opened.map_err(End::Failed);
            }
            self.beat(if opening.waits() { State::Waiting } else { State::Starting }, opening.age());
            let end = self.rest(|worker, changed| {
                worker.desk.change(&changed);
                worker.config = changed;
            });
            if let Some(end) = end {
                self.limit_the_end();
                opening.cancel();
                return Err(end);
            }
        }
    }

    fn serve(&mut self, camera: &Arc<Camera>) -> End {
        let kept = Kept::begin(&self.config.name, camera.clone(), &self.config.controls);
        let kept = match kept {
            Ok(kept) => kept,
            Err(error) => return End::Failed(Error::system("starting a thread", error)),
        };
        self.set_controls(camera);
        if let Err(error) = sharing::share(camera, &self.config, self.desk.clone()) {
            return End::Failed(error);
        }
        say(Level::Info, &self.config.name, format_args!("{} is served", camera.identity().uri));
        self.desk.begin();
        loop {
            let Some((state, age, trouble)) = sharing::look(camera) else {
                let message = format!("{}: it is not shared any more", self.config.name);
                return End::Failed(Error::new(Kind::Disconnected, message));
            };
            self.tell_trouble(trouble);
            kept.look();
            self.desk.look();
            self.beat(state, age);
            let end = self.rest(|worker, changed| {
                let controls_changed = worker.config.controls != changed.controls;
                worker.config = changed;
                if controls_changed {
                    kept.change(&worker.config.controls);
                    worker.set_controls(camera);
                }
                worker.desk.change(&worker.config);
                say(Level::Info, &worker.config.name, "changed while it goes on");
            });
            if let Some(end) = end {
                return end;
            }
        }
    }

    fn set_controls(&self, camera: &Camera) {
        for failure in controls::set(camera, &self.config.controls) {
            say(Level::Warning, &self.config.name, failure);
        }
    }

    fn tell_trouble(&mut self, trouble: Option<String>) {
        if trouble == self.told_trouble {
            return;
        }
        match &trouble {
            Some(trouble) => say(Level::Warning, &self.config.name, trouble),
            None => say(Level::Info, &self.config.name, "all is well again"),
        }
        self.told_trouble = trouble;
    }

    fn beat(&mut self, state: State, age: Duration) {
        // Later than the supervisor would.
        self.last_resort.is_due_in(self.rules.hang_timeout * 2 + self.rules.stop_grace);
        // A supervisor that does not read now has its beats still before it.
        let _ = self.channel.send(&News::Beat { age_ms: age.as_millis() as u64, state, rules: self.rules_taken });
    }

    /// Waits for the time of the next heartbeat, or for something to do; the end, where that is it.
    fn rest(&mut self, mut change: impl FnMut(&mut Worker, config::Camera)) -> Option<End> {
        wait([self.channel.as_fd(), self.signals.as_fd(), self.wake.as_fd()], Some(self.rules.heartbeat));
        let _ = self.wake.read();
        if self.signals.next().is_some() {
            return Some(End::Told);
        }
        loop {
            match self.channel.receive() {
                Next::Nothing => break,
                Next::End => {
                    say(Level::Warning, &self.config.name, "the supervisor is gone: stopped");
                    return Some(End::Told);
                }
                Next::Message(Order::Change { camera }) => change(self, *camera),
                Next::Message(Order::Rules { supervision }) => {
                    self.rules = supervision;
                    self.rules_taken += 1;
                }
                Next::Message(Order::Serve { .. }) => {}
            }
        }
        self.desk.quits().then_some(End::Quit)
    }

    /// A driver or a disk may keep this process from its end.
    fn limit_the_end(&mut self) {
        self.last_resort.is_due_in(self.rules.stop_grace);
    }
}
