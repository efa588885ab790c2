//! The command as a process: started, signalled, reaped, and those that it leaves behind.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, Signal, kill, signal};
use nix::unistd::Pid;
use procfs::process::Process;

/// From now on, processes whose parent ends become our children, and not those of init: so they are known.
pub fn adopt_orphans() -> nix::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// The command while it runs.
pub struct Running {
    pid: Pid,
}

impl Running {
    /// Starts it with these signals blocked: those that were before some were taken to be read.
    pub fn start(command: &[OsString], mask: SigSet) -> std::io::Result<Running> {
        let mut process = Command::new(&command[0]);
        process.args(&command[1..]);
        // SAFETY: between fork and exec only sigprocmask is called, which is async-signal-safe and allocates nothing.
        unsafe { process.pre_exec(move || Ok(mask.thread_set_mask()?)) };
        let child = process.spawn()?;
        Ok(Running { pid: Pid::from_raw(child.id() as i32) })
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// To the command, which is not reaped yet: the number is its own.
    pub fn send(&self, signal: Signal) {
        let _ = kill(self.pid, signal);
        if signal == Signal::SIGTERM {
            let _ = kill(self.pid, Signal::SIGCONT); // a stopped one would never see it
        }
    }

    /// How the command ended, if it has. Those that it left and that have ended meanwhile are reaped as well.
    pub fn reap(&mut self) -> Option<Ended> {
        let own = self.pid.as_raw();
        std::iter::from_fn(next_ended).find(|(pid, _)| *pid == own).map(|(_, status)| Ended(status))
    }
}

/// Reaps whoever has ended.
pub fn reap_orphans() {
    std::iter::from_fn(next_ended).for_each(drop);
}

/// Reaps a child that has ended.
fn next_ended() -> Option<(i32, ExitStatus)> {
    loop {
        let mut status = 0;
        // nix's own call has no word for an end by a real-time signal: the child is reaped then, and who it was is lost.
        // SAFETY: the status is written into a variable of its type.
        match unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) } {
            -1 if Errno::last() == Errno::EINTR => {}
            -1 | 0 => return None,
            pid => return Some((pid, ExitStatus::from_raw(status))),
        }
    }
}

/// Children are to be waited for. Whoever ignores SIGCHLD, which may be inherited, has the kernel reap them: their end
/// would never be known, and their number soon be a stranger's.
pub fn keep_ended_children() -> nix::Result<()> {
    // SAFETY: no handler of ours is installed.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map(drop)
}

/// Whether a process descends from this one: the command itself is not among them once it is reaped.
pub fn is_left_behind(pid: i32, start_time: u64) -> bool {
    let own = std::process::id() as i32;
    let Ok(stat) = Process::new(pid).and_then(|process| process.stat()) else { return false };
    let mut parent = stat.ppid;
    // The number may be another process's by now.
    if stat.starttime != start_time || pid == own {
        return false;
    }
    while parent > 1 && parent != own {
        let Ok(stat) = Process::new(parent).and_then(|process| process.stat()) else { return false };
        parent = stat.ppid;
    }
    parent == own
}

/// How the command ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended(ExitStatus);

impl Ended {
    /// As a shell tells it.
    pub fn exit_code(&self) -> u8 {
        match (self.0.code(), self.0.signal()) {
            (Some(code), _) => code as u8,
            (None, signal) => 128 + signal.unwrap_or(0) as u8,
        }
    }

    pub fn signal(&self) -> Option<i32> {
        self.0.signal()
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.code(), self.0.signal().and_then(|signal| Signal::try_from(signal).ok())) {
            (Some(0), _) => f.write_str("has ended"),
            (Some(code), _) => write!(f, "failed with exit code {code}"),
            (None, Some(signal)) => write!(f, "was killed by {signal}"),
            (None, None) => write!(f, "was killed by signal {}", self.0.signal().unwrap_or(0)),
        }
    }
}
