//! `camlease run`: a program that needs cameras, started when they are free and started again when it fails.

mod cameras;
mod command;
mod escalation;

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use camlease::{Camera, EvictOptions, Evicted, Holder, Holders, OnBusy, OpenOptions, Outcome};
use nix::sys::signal::Signal;
use serde::Serialize;

use crate::naming;
use crate::output::{Exit, Output, Paint};
use crate::signals::{Signals, wait};
use crate::telling::{self, HolderJson};
pub use command::keep_ended_children;
use command::{Ended, Running};
use escalation::Escalation;

/// For the help.
pub const JSON: &str = r#"Standard output is the command's. With --json, what camlease itself tells comes on standard error, one line for each event: {"event": "waiting"|"started"|"ended"|"released"|"left"|"retrying"|"signal"|"gave_up", "try", ...}; "waiting" has "camera" and "holders", "started" "pid", "ended" "exit_code" and "signal", "released" "camera", "holder" and "outcome", "left" "camera" and "holder", "retrying" "delay_ms", "signal" "signal"."#;

/// The longest pause between two tries, whatever they were doubled to.
const DELAY_MOST: Duration = Duration::from_secs(60);

/// A command that ran for so long had started well: tries and pauses are counted afresh.
const RAN_WELL: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A camera that the command needs; may be given several times
    #[arg(short, long = "camera", value_name = "CAMERA", required = true, value_parser = naming::camera)]
    cameras: Vec<String>,
    /// How often the command is started again, in a row, when it fails
    #[arg(long, value_name = "N", default_value_t = 3)]
    retries: u32,
    /// The pause before it is started again; doubled after every failure, up to a minute
    #[arg(long, value_name = "TIME", value_parser = naming::time, default_value = "3s")]
    delay: Duration,
    /// Get a busy camera by asking its holder, and by ending it if need be
    #[arg(long, conflicts_with = "ask")]
    evict: bool,
    /// Ask the holder of a busy camera for it, and wait
    #[arg(long)]
    ask: bool,
    /// How important the command is to a holder that is asked: a higher priority than its own gets the camera
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    priority: i32,
    /// Give up on a busy camera after this time [default: never]
    #[arg(long, value_name = "TIME", value_parser = naming::time)]
    timeout: Option<Duration>,
    /// How long a process has to end after a signal, before it is sent a stronger one
    #[arg(long, value_name = "TIME", value_parser = naming::time, default_value = "5s")]
    grace: Duration,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Event<'a> {
    Waiting { r#try: u32, camera: &'a str, holders: Vec<HolderJson> },
    Started { r#try: u32, pid: i32 },
    Ended { r#try: u32, exit_code: u8, signal: Option<i32> },
    Released { r#try: u32, camera: &'a str, holder: HolderJson, outcome: &'static str },
    Left { r#try: u32, camera: &'a str, holder: HolderJson },
    Retrying { r#try: u32, delay_ms: u128 },
    Signal { r#try: u32, signal: &'static str },
    GaveUp { r#try: u32, exit_code: u8 },
}

/// Signals that end the command and us.
const ENDING: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
/// Signals that mean something to the command alone.
const PASSED: [Signal; 2] = [Signal::SIGUSR1, Signal::SIGUSR2];

struct Run<'a> {
    args: &'a Args,
    output: &'a Output,
    /// Counts from 1.
    tries: u32,
}

pub fn run(args: &Args, output: &Output) -> Exit {
    if let Err(error) = command::keep_ended_children() {
        return output.fail_with(Exit::FAILURE, "internal", format_args!("run: SIGCHLD: {error}"));
    }
    if let Err(error) = command::adopt_orphans() {
        return output.fail_with(Exit::FAILURE, "internal", format_args!("run: becoming a subreaper: {error}"));
    }
    Run { args, output, tries: 0 }.supervise()
}

impl Run<'_> {
    fn supervise(mut self) -> Exit {
        let (mut delay, mut failures) = (self.args.delay, 0);
        loop {
            self.tries += 1;
            // Signals take their usual effect here: a wait just ends.
            if let Err(error) = self.acquire() {
                return self.output.fail(&error);
            }
            let signals = match Signals::take(&[&ENDING[..], &PASSED, &[Signal::SIGCHLD]].concat()) {
                Ok(signals) => signals,
                Err(error) => {
                    return self.output.fail_with(Exit::FAILURE, "internal", format_args!("run: signalfd: {error}"));
                }
            };
            let begun = Instant::now();
            let (ended, told_to_end) = match self.once(&signals) {
                Ok(end) => end,
                Err(exit) => return exit,
            };
            let exit = Exit(ended.exit_code());
            if exit == Exit::OK && !told_to_end {
                // Whoever does its work in the background means to: that is told, and left alone.
                self.tell_what_it_left();
                return exit;
            }
            self.release_what_it_left();
            if told_to_end {
                return exit;
            }
            if begun.elapsed() > RAN_WELL {
                (delay, failures) = (self.args.delay, 0);
            }
            failures += 1;
            if failures > self.args.retries {
                self.tell(Event::GaveUp { r#try: self.tries, exit_code: exit.0 }, |run| {
                    format!("{} failed {failures} times in a row: given up", run.program())
                });
                return exit;
            }
            self.tell(Event::Retrying { r#try: self.tries, delay_ms: delay.as_millis() }, |run| {
                let shown = naming::shown(delay);
                format!("started again in {shown} (retry {failures} of {})", run.args.retries)
            });
            if let Some(signal) = pause(&signals, delay) {
                self.tell_signal(signal);
                return Exit(128 + signal as u8);
            }
            delay = (delay * 2).min(DELAY_MOST.max(self.args.delay));
        }
    }

    fn program(&self) -> std::ffi::os_str::Display<'_> {
        self.args.command[0].display()
    }

    /// Has all cameras at once for a moment, so that the command finds them free.
    fn acquire(&self) -> camlease::Result<()> {
        let deadline = self.args.timeout.map(|timeout| Instant::now() + timeout);
        let mut held = Vec::new();
        for camera in cameras::in_order(&self.args.cameras) {
            let mut on_wait = |message: &str, holders: &Holders| {
                let event = Event::Waiting {
                    r#try: self.tries,
                    camera,
                    holders: holders.list.iter().map(HolderJson::from).collect(),
                };
                self.tell(event, |_| message.to_owned());
            };
            let on_busy = match (self.args.evict, self.args.ask) {
                (true, _) => OnBusy::Evict,
                (_, true) => OnBusy::Ask,
                _ => OnBusy::Wait,
            };
            let options = OpenOptions {
                timeout: deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())),
                on_wait: Some(&mut on_wait),
                on_busy,
                priority: self.args.priority,
                grace: Some(self.args.grace),
                name: "camlease run".into(),
                ..OpenOptions::default()
            };
            held.push(Camera::open(camera, options)?);
        }
        Ok(())
    }

    /// Runs the command once: how it ended, and whether because we were told to end.
    fn once(&self, signals: &Signals) -> Result<(Ended, bool), Exit> {
        let mut running = Running::start(&self.args.command, signals.mask_before()).map_err(|error| {
            // As a shell has it.
            let (exit, kind) = match error.kind() {
                std::io::ErrorKind::NotFound => (Exit(127), "not_found"),
                _ => (Exit(126), "permission"),
            };
            self.output.fail_with(exit, kind, format_args!("{}: it cannot be started: {error}", self.program()))
        })?;
        self.tell(Event::Started { r#try: self.tries, pid: running.pid() }, |run| {
            format!("{} started (pid {})", run.program(), running.pid())
        });
        let mut told_to_end = false;
        let mut escalation = Escalation::new(self.args.grace);
        let ended = loop {
            if let Some(ended) = running.reap() {
                break ended;
            }
            wait([signals.as_fd()], escalation.left());
            escalation.due().into_iter().for_each(|signal| running.send(signal));
            while let Some(received) = signals.next() {
                match received.signal {
                    Signal::SIGCHLD => {}
                    signal if PASSED.contains(&signal) => running.send(signal),
                    signal => {
                        self.tell_signal(signal);
                        told_to_end = true;
                        escalation.told(received).into_iter().for_each(|signal| running.send(signal));
                    }
                }
            }
        };
        let event = Event::Ended { r#try: self.tries, exit_code: ended.exit_code(), signal: ended.signal() };
        self.tell(event, |run| format!("{} {ended}", run.program()));
        Ok((ended, told_to_end))
    }

    /// Frees the cameras from processes that the command left behind, and from no others.
    fn release_what_it_left(&self) {
        for camera in cameras::in_order(&self.args.cameras) {
            let only = |holder: &Holder| command::is_left_behind(holder.pid, holder.start_time);
            if !camlease::holders(camera).is_ok_and(|holders| holders.list.iter().any(only)) {
                continue;
            }
            let options = EvictOptions {
                grace: self.args.grace,
                name: "camlease run".into(),
                only: Some(&only),
                ..EvictOptions::default()
            };
            match camlease::evict(camera, options) {
                Ok(evicted) => evicted.iter().for_each(|entry| self.tell_released(camera, entry)),
                Err(error) => drop(self.output.fail(&error)),
            }
            command::reap_orphans();
        }
    }

    fn tell_what_it_left(&self) {
        for camera in cameras::in_order(&self.args.cameras) {
            let holders = camlease::holders(camera).unwrap_or_default().list;
            for holder in holders.iter().filter(|holder| command::is_left_behind(holder.pid, holder.start_time)) {
                let event = Event::Left { r#try: self.tries, camera, holder: HolderJson::from(holder) };
                self.tell(event, |_| {
                    format!("{camera}: it left {holder}, which has it still: camlease release {camera}")
                });
            }
        }
    }

    fn tell_released(&self, camera: &str, entry: &Evicted) {
        let event = Event::Released {
            r#try: self.tries,
            camera,
            holder: HolderJson::from(&entry.holder),
            outcome: telling::outcome_name(entry.outcome),
        };
        self.tell(event, |_| {
            let left = match entry.outcome {
                Outcome::None => "had let it go",
                Outcome::Yielded => "handed it over",
                Outcome::Terminated => "terminated",
                Outcome::Killed => "killed",
                Outcome::Refused | Outcome::Survived => "has it still",
            };
            let reason = if entry.reason.is_empty() { String::new() } else { format!(": {}", entry.reason) };
            format!("{camera}: it left {}: {left}{reason}", entry.holder)
        });
    }

    fn tell_signal(&self, signal: Signal) {
        self.tell(Event::Signal { r#try: self.tries, signal: signal.as_str() }, |_| format!("{signal}: ending"));
    }

    fn tell(&self, event: Event<'_>, words: impl FnOnce(&Self) -> String) {
        if self.output.is_json() {
            self.output.event_on_stderr(&event);
        } else {
            self.output.note(format_args!("{} {}", self.output.paint_note(Paint::Faint, "camlease:"), words(self)));
        }
    }
}

/// Waits, unless a signal ends the wait.
fn pause(signals: &Signals, delay: Duration) -> Option<Signal> {
    let until = Instant::now() + delay;
    loop {
        wait([signals.as_fd()], Some(until.saturating_duration_since(Instant::now())));
        while let Some(received) = signals.next() {
            if ENDING.contains(&received.signal) {
                return Some(received.signal);
            }
        }
        command::reap_orphans();
        if Instant::now() >= until {
            return None;
        }
    }
}
