//! The supervisor: one worker for each camera, started again when it fails, replaced when it hangs, stopped in order.

use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpid, getppid};

use super::channel::{self, Channel, News, Next, Order, State};
use super::config::{Camera, Config, Supervision};
use super::journal::{Level, SUPERVISOR, say};
use super::notify::{self, Notify};
use super::pacing::{Pacing, Verdict};
use crate::naming::shown;
use crate::output::Exit;
use crate::signals::{Signals, wait_for};

/// How long a killed worker may take to end before it is replaced all the same: its driver's close is in it.
const KILL_PATIENCE: Duration = Duration::from_secs(1);

/// What a process gets beyond the hang timeout before its first word: a busy machine takes its time to load a program.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// What a worker is told to stop by: it may be sent more of them than one.
const STOPPING: [Signal; 2] = [Signal::SIGTERM, Signal::SIGINT];

pub struct Supervisor {
    path: PathBuf,
    json: bool,
    rules: Supervision,
    wards: Vec<Ward>,
    /// Killed and not ended: a driver keeps them.
    stuck: Vec<Pid>,
    notify: Notify,
    signals: Signals,
    /// The service manager was told that all is up.
    is_ready: bool,
    is_stopping: bool,
}

/// A camera that is looked after.
struct Ward {
    camera: Camera,
    pacing: Pacing,
    life: Life,
}

enum Life {
    Running(Worker),
    /// Told to stop, or killed; it has time until then.
    Ending {
        worker: Worker,
        by: Instant,
        killed: bool,
        then: Then,
    },
    Pausing {
        until: Instant,
    },
    /// Somebody told it to end, and nobody to come back.
    Quit,
    /// Not to be looked after any more.
    Gone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// With what is configured by then.
    Start,
    Fail,
    /// Somebody told it to end, and it may be slow to do so.
    Quit,
    Nothing,
}

struct Worker {
    pid: Pid,
    channel: Channel<Order, News>,
    begun: Instant,
    /// When all was well for the last time; before its first word, as much later as it may take to speak.
    well: Instant,
    has_spoken: bool,
    /// How long it may be silent: by the rules that it goes by itself, and not by newer ones that it has not taken yet.
    hang_timeout: Duration,
    /// How often it was sent other rules, and how often it had taken them.
    rules_sent: u64,
    rules_taken: u64,
    state: State,
}

pub fn run(path: &Path, config: Config, json: bool) -> Exit {
    let taken = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD];
    // Ends of workers are to be told, whatever whoever started us does about its children.
    let signals = crate::run::keep_ended_children().map_err(Into::into).and_then(|()| Signals::take(&taken));
    let signals = match signals {
        Ok(signals) => signals,
        Err(error) => {
            say(Level::Error, SUPERVISOR, format_args!("signalfd: {error}"));
            return Exit::FAILURE;
        }
    };
    let notify = Notify::from_environment();
    let wards = config.cameras.into_iter().map(|camera| Ward::new(camera, Instant::now())).collect();
    let supervisor = Supervisor {
        path: path.to_owned(),
        json,
        rules: config.supervision,
        wards,
        stuck: Vec::new(),
        notify,
        signals,
        is_ready: false,
        is_stopping: false,
    };
    supervisor.supervise()
}

impl Ward {
    fn new(camera: Camera, until: Instant) -> Ward {
        Ward { camera, pacing: Pacing::default(), life: Life::Pausing { until } }
    }

    fn worker(&self) -> Option<&Worker> {
        match &self.life {
            Life::Running(worker) | Life::Ending { worker, .. } => Some(worker),
            _ => None,
        }
    }

    /// Whether it has shown how it goes.
    fn is_settled(&self) -> bool {
        match &self.life {
            Life::Running(worker) => worker.state != State::Starting,
            Life::Ending { .. } => false,
            _ => true,
        }
    }

    fn state(&self) -> &'static str {
        match &self.life {
            Life::Running(worker) => worker.state.name(),
            Life::Ending { .. } => "ending",
            Life::Pausing { .. } => "failed",
            Life::Quit | Life::Gone => "quit",
        }
    }
}

impl Supervisor {
    fn supervise(mut self) -> Exit {
        let mut heard = Instant::now();
        loop {
            self.do_what_is_due(heard);
            self.tell();
            if self.wards.iter().all(|ward| matches!(ward.life, Life::Quit | Life::Gone)) {
                if !self.is_stopping {
                    say(Level::Notice, SUPERVISOR, "all cameras were told to quit: ended");
                    self.notify.stopping();
                }
                return Exit::OK;
            }
            let due = self.due();
            let timeout = due.map(|due| due.saturating_duration_since(Instant::now()));
            let mut fds = vec![self.signals.as_fd()];
            fds.extend(self.wards.iter().filter_map(Ward::worker).map(|worker| worker.channel.as_fd()));
            wait_for(&fds, timeout);
            // What workers said later may not have been heard, as where this process is stopped from here on.
            heard = Instant::now();
            // Who was stopped itself cannot tell who hangs: all have their time anew.
            let late = due.is_some_and(|due| heard > due + self.rules.hang_timeout / 2);
            for ward in &mut self.wards {
                ward.listen(late, &self.rules);
            }
            while let Some(received) = self.signals.next() {
                match received.signal {
                    Signal::SIGHUP => self.reload(),
                    signal if STOPPING.contains(&signal) => self.stop(signal),
                    _ => {} // a child has ended: they are all looked at
                }
            }
            self.reap();
        }
    }

    /// When something is to be done though nothing happens.
    fn due(&self) -> Option<Instant> {
        let ward = |ward: &Ward| match &ward.life {
            Life::Running(worker) => Some(worker.well + worker.hang_timeout),
            Life::Ending { by, .. } => Some(*by),
            Life::Pausing { until } => Some(*until),
            Life::Quit | Life::Gone => None,
        };
        self.wards.iter().filter_map(ward).chain(self.notify.due()).min()
    }

    /// All that workers said until `heard` was listened to.
    fn do_what_is_due(&mut self, heard: Instant) {
        let now = Instant::now();
        self.notify.beat();
        for index in 0..self.wards.len() {
            let ward = &mut self.wards[index];
            match &mut ward.life {
                Life::Pausing { until } if *until <= now => self.start(index),
                Life::Running(worker) if worker.well + worker.hang_timeout <= heard => {
                    let (pid, silent) = (worker.pid, shown(worker.hang_timeout));
                    let message = format!("its process (pid {pid}) was not well for {silent}: killed, to be replaced");
                    say(Level::Error, &ward.camera.name, message);
                    ward.end(Signal::SIGKILL, KILL_PATIENCE, Then::Fail);
                }
                Life::Ending { worker, by, killed: false, .. } if *by <= now => {
                    let message = format!("its process (pid {}) did not stop in time: killed", worker.pid);
                    say(Level::Warning, &ward.camera.name, message);
                    ward.kill();
                }
                Life::Ending { worker, by, killed: true, .. } if *by <= now => {
                    let message = format!("its process (pid {}) hangs in the driver, killed as it is", worker.pid);
                    say(Level::Error, &ward.camera.name, message);
                    self.stuck.push(worker.pid);
                    self.ended(index, None);
                }
                _ => {}
            }
        }
    }

    fn start(&mut self, index: usize) {
        let ward = &mut self.wards[index];
        match start(&ward.camera, &self.rules, self.json, self.signals.mask_before()) {
            Ok(worker) => ward.life = Life::Running(worker),
            Err(error) => {
                say(Level::Error, &ward.camera.name, format_args!("its process cannot be started: {error}"));
                self.fail(index, Duration::ZERO);
            }
        }
    }

    /// Looks who has ended.
    fn reap(&mut self) {
        self.stuck.retain(|pid| waitpid(*pid, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive));
        for index in 0..self.wards.len() {
            let Some(worker) = self.wards[index].worker() else { continue };
            match waitpid(worker.pid, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => {}
                Ok(status) => {
                    self.wards[index].listen(false, &self.rules); // its last words
                    self.ended(index, Some(status));
                }
                // Ended by a signal that nix has no name for.
                Err(_) => self.ended(index, None),
            }
        }
    }

    /// A worker has ended, or will never.
    fn ended(&mut self, index: usize, status: Option<WaitStatus>) {
        let ward = &mut self.wards[index];
        let name = &ward.camera.name;
        let (worker, then) = match std::mem::replace(&mut ward.life, Life::Gone) {
            Life::Running(worker) => (worker, None),
            Life::Ending { worker, then, .. } => (worker, Some(then)),
            other => return ward.life = other,
        };
        let how = match status {
            Some(WaitStatus::Exited(_, 0)) => "has ended".to_owned(),
            Some(WaitStatus::Exited(_, code)) => format!("failed with exit code {code}"),
            Some(WaitStatus::Signaled(_, signal, _)) => format!("was killed by {signal}"),
            _ => "is lost".to_owned(),
        };
        let pid = worker.pid;
        if !matches!(status, Some(WaitStatus::Exited(..))) {
            camlease::tidy(); // it had no time to, and may not come back soon
        }
        match then {
            Some(Then::Nothing) => say(Level::Info, name, format_args!("stopped (pid {pid})")),
            Some(Then::Start) => ward.life = Life::Pausing { until: Instant::now() },
            Some(Then::Quit) => {
                say(Level::Notice, name, format_args!("its process (pid {pid}) was told to quit"));
                ward.life = Life::Quit;
            }
            Some(Then::Fail) => self.fail(index, worker.begun.elapsed()),
            None => {
                say(Level::Error, name, format_args!("its process (pid {pid}) {how}"));
                self.fail(index, worker.begun.elapsed());
            }
        }
    }

    fn fail(&mut self, index: usize, ran: Duration) {
        let (ward, rules, now) = (&mut self.wards[index], &self.rules, Instant::now());
        let delay = match ward.pacing.failed(rules, now, ran) {
            Verdict::Again(delay) => {
                say(Level::Notice, &ward.camera.name, format_args!("started again in {}", shown(delay)));
                delay
            }
            Verdict::LeftAlone(pause) => {
                let (times, window, pause_shown) = (rules.failures, shown(rules.window), shown(pause));
                let message = format!("it fails again and again ({times} times within {window} are too many)");
                say(
                    Level::Error,
                    &ward.camera.name,
                    format_args!("{message}: left alone for {pause_shown}, then tried once"),
                );
                pause
            }
        };
        ward.life = Life::Pausing { until: now + delay };
    }

    fn stop(&mut self, signal: Signal) {
        let again = std::mem::replace(&mut self.is_stopping, true);
        if !again {
            say(Level::Info, SUPERVISOR, format_args!("{signal}: stopping"));
            self.notify.stopping();
        }
        for ward in &mut self.wards {
            match &mut ward.life {
                // Pressed twice by a person who does not want to wait.
                Life::Ending { killed: false, .. } if again && signal == Signal::SIGINT => ward.kill(),
                Life::Ending { then, .. } => *then = Then::Nothing,
                Life::Running(_) => ward.end(Signal::SIGTERM, self.rules.stop_grace, Then::Nothing),
                _ => ward.life = Life::Gone,
            }
        }
    }

    /// Reads the file again, and applies what is new in it.
    fn reload(&mut self) {
        if self.is_stopping {
            return;
        }
        self.notify.reloading();
        self.is_ready = false;
        match super::read(&self.path) {
            Ok(Ok(config)) => self.apply(config),
            Ok(Err(complaints)) => {
                complaints.iter().for_each(|complaint| say(Level::Error, SUPERVISOR, complaint));
                say(Level::Error, SUPERVISOR, "the file has mistakes: all stays as it was");
            }
            Err(error) => say(Level::Error, SUPERVISOR, format_args!("{error}: all stays as it was")),
        }
    }

    fn apply(&mut self, config: Config) {
        if self.rules != config.supervision {
            self.rules = config.supervision;
            self.wards.iter_mut().for_each(|ward| ward.pass_on(&self.rules));
        }
        for ward in &mut self.wards {
            if !config.cameras.iter().any(|camera| camera.name == ward.camera.name) {
                say(Level::Info, &ward.camera.name, "not in the file any more: stopped");
                ward.let_go(&self.rules);
            }
        }
        for camera in config.cameras {
            let found = self.wards.iter().position(|ward| {
                let leaves = matches!(ward.life, Life::Gone | Life::Ending { then: Then::Nothing, .. });
                ward.camera.name == camera.name && !leaves
            });
            match found {
                Some(index) => self.change(index, camera),
                None => {
                    say(Level::Info, &camera.name, "new in the file");
                    self.wards.push(Ward::new(camera, Instant::now()));
                }
            }
        }
        self.wards.retain(|ward| !matches!(ward.life, Life::Gone));
        say(Level::Info, SUPERVISOR, "the file was read again");
    }

    fn change(&mut self, index: usize, camera: Camera) {
        let ward = &mut self.wards[index];
        let is_same = ward.camera == camera;
        let in_passing = ward.camera.differs_in_passing(&camera);
        ward.camera = camera;
        let name = &ward.camera.name;
        match &mut ward.life {
            // Whoever reloads may have mended what it failed by.
            Life::Pausing { .. } => {
                ward.pacing = Pacing::default();
                ward.life = Life::Pausing { until: Instant::now() };
            }
            Life::Quit => {
                say(Level::Info, name, "served again");
                *ward = Ward::new(ward.camera.clone(), Instant::now());
            }
            Life::Running(worker) if !is_same => {
                let sent =
                    in_passing && worker.channel.send(&Order::Change { camera: ward.camera.clone().into() }).is_ok();
                if !sent {
                    say(Level::Info, name, "changed: its process is started anew");
                    ward.end(Signal::SIGTERM, self.rules.stop_grace, Then::Start);
                }
            }
            Life::Ending { then, .. } if *then == Then::Quit => *then = Then::Start,
            // What it is started with is what stands in the file by then.
            Life::Ending { .. } | Life::Running(_) | Life::Gone => {}
        }
    }

    /// What the service manager is to know.
    fn tell(&mut self) {
        if self.is_stopping {
            return;
        }
        let all: Vec<_> = self.wards.iter().map(|ward| format!("{} {}", ward.camera.name, ward.state())).collect();
        self.notify.status(all.join(", "));
        if !self.is_ready && self.wards.iter().all(Ward::is_settled) {
            self.is_ready = true;
            self.notify.ready();
        }
    }
}

impl Ward {
    /// Takes what the worker has to say.
    fn listen(&mut self, late: bool, rules: &Supervision) {
        let (Life::Running(worker) | Life::Ending { worker, .. }) = &mut self.life else { return };
        if late {
            worker.well = worker.well.max(Instant::now());
        }
        let mut quits = false;
        while let Next::Message(news) = worker.channel.receive() {
            match news {
                News::Beat { age_ms, state, rules: taken } => {
                    let at = Instant::now().checked_sub(Duration::from_millis(age_ms)).unwrap_or(worker.begun);
                    worker.well = if worker.has_spoken { worker.well.max(at) } else { at };
                    worker.has_spoken = true;
                    worker.state = state;
                    if std::mem::replace(&mut worker.rules_taken, taken) != taken && taken == worker.rules_sent {
                        worker.hang_timeout = rules.hang_timeout;
                        worker.well = worker.well.max(Instant::now());
                    }
                }
                News::Quit => quits = true,
            }
        }
        match &mut self.life {
            // It ends by itself, if its driver and its disk let it.
            Life::Running(_) if quits => self.expect_the_end(rules.stop_grace, Then::Quit),
            Life::Ending { then, .. } if quits && *then == Then::Fail => *then = Then::Quit,
            _ => {}
        }
    }

    /// Other rules than those that it was started with.
    fn pass_on(&mut self, rules: &Supervision) {
        let Life::Running(worker) = &mut self.life else { return };
        match worker.channel.send(&Order::Rules { supervision: rules.clone() }) {
            Ok(()) => {
                worker.rules_sent += 1;
                worker.hang_timeout = worker.hang_timeout.max(rules.hang_timeout);
            }
            Err(_) => {
                say(Level::Info, &self.camera.name, "it does not take other rules: its process is started anew");
                self.end(Signal::SIGTERM, rules.stop_grace, Then::Start);
            }
        }
    }

    fn expect_the_end(&mut self, grace: Duration, then: Then) {
        self.life = match std::mem::replace(&mut self.life, Life::Gone) {
            Life::Running(worker) => Life::Ending { worker, by: Instant::now() + grace, killed: false, then },
            other => other,
        };
    }

    fn end(&mut self, signal: Signal, grace: Duration, then: Then) {
        self.life = match std::mem::replace(&mut self.life, Life::Gone) {
            Life::Running(worker) | Life::Ending { worker, .. } => {
                // Not reaped yet: the number is its own.
                let _ = kill(worker.pid, signal);
                let _ = kill(worker.pid, Signal::SIGCONT); // a stopped one would never see the other
                Life::Ending { worker, by: Instant::now() + grace, killed: signal == Signal::SIGKILL, then }
            }
            other => other,
        };
    }

    fn kill(&mut self) {
        if let Life::Ending { then, .. } = self.life {
            self.end(Signal::SIGKILL, KILL_PATIENCE, then);
        }
    }

    fn let_go(&mut self, rules: &Supervision) {
        match &mut self.life {
            Life::Running(_) => self.end(Signal::SIGTERM, rules.stop_grace, Then::Nothing),
            Life::Ending { then, .. } => *then = Then::Nothing,
            life => *life = Life::Gone,
        }
    }
}

fn start(camera: &Camera, rules: &Supervision, json: bool, mask: SigSet) -> std::io::Result<Worker> {
    let (channel, end) = channel::pair()?;
    // By this path it is the same program, also where the file was replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0("camlease").args(["serve", "--worker", &camera.name, "--channel", &end.as_raw_fd().to_string()]);
    if json {
        command.arg("--json");
    }
    for variable in notify::VARIABLES {
        command.env_remove(variable);
    }
    // A group of its own: the terminal's Ctrl+C is for the supervisor, who stops all in order.
    command.stdin(Stdio::null()).process_group(0);
    let (supervisor, passed) = (getpid(), end.as_raw_fd());
    let prepare = move || {
        mask.thread_set_mask()?;
        // Where the supervisor is killed, the kernel tells the worker; so does the channel's end, to one that reads it.
        nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
        if getppid() != supervisor {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        // SAFETY: the descriptor is open in the child until it is another program.
        let end = unsafe { std::os::fd::BorrowedFd::borrow_raw(passed) };
        fcntl(end, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made, and nothing is allocated.
    unsafe { command.pre_exec(prepare) };
    let mut child = command.spawn()?;
    // Before the order: what the worker says then comes after it.
    say(Level::Info, &camera.name, format_args!("started (pid {})", child.id()));
    let order = Order::Serve { camera: camera.clone().into(), supervision: rules.clone() };
    if let Err(error) = channel.send(&order) {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    let now = Instant::now();
    let pid = Pid::from_raw(child.id() as i32);
    Ok(Worker {
        pid,
        channel,
        begun: now,
        well: now + START_PATIENCE,
        has_spoken: false,
        hang_timeout: rules.hang_timeout,
        rules_sent: 0,
        rules_taken: 0,
        state: State::Starting,
    })
}
