//! Signals as something to be read, while more is to be done than to end.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Signals that are read from here instead of taking their effect, until this is dropped.
pub struct Signals {
    fd: SignalFd,
    before: SigSet,
}

/// A signal, and whether the terminal sent it, to all programs in the foreground.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    pub signal: Signal,
    pub by_terminal: bool,
}

impl Signals {
    pub fn take(signals: &[Signal]) -> std::io::Result<Signals> {
        // A blocked signal is read here even where it is ignored, as SIGHUP is under nohup: that one stays ignored.
        let ignored = procfs::process::Process::myself().and_then(|own| own.status()).map_or(0, |status| status.sigign);
        let set: SigSet = signals.iter().copied().filter(|signal| ignored & (1 << (*signal as i32 - 1)) == 0).collect();
        let before = set.thread_swap_mask(nix::sys::signal::SigmaskHow::SIG_BLOCK)?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Signals { fd, before })
    }

    /// What was blocked before: a program that is started is to have its signals.
    pub fn mask_before(&self) -> SigSet {
        self.before
    }

    /// The next signal that has come.
    pub fn next(&self) -> Option<Received> {
        let info = self.fd.read_signal().ok()??;
        let signal = Signal::try_from(info.ssi_signo as i32).ok()?;
        Some(Received { signal, by_terminal: info.ssi_code == SI_KERNEL })
    }
}

/// From asm-generic/siginfo.h: "sent by the kernel from somewhere", such as the terminal's driver.
const SI_KERNEL: i32 = 0x80;

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // What came and was not read takes its effect now.
        let _ = self.before.thread_set_mask();
    }
}

/// Waits until one of these is readable; which are.
pub fn wait<const N: usize>(fds: [BorrowedFd<'_>; N], timeout: Option<Duration>) -> [bool; N] {
    let mut readable = wait_for(&fds, timeout).into_iter();
    fds.map(|_| readable.next().unwrap_or(false))
}

/// The same, for any number of them.
pub fn wait_for(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Vec<bool> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    loop {
        let left = match deadline {
            // Rounded up: a millisecond early would be a busy loop.
            Some(at) => {
                PollTimeout::try_from(at.saturating_duration_since(Instant::now()) + Duration::from_micros(999))
                    .unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        match poll(&mut polled, left) {
            Err(Errno::EINTR) => continue,
            _ => return polled.iter().map(|fd| fd.revents().is_some_and(|events| !events.is_empty())).collect(),
        }
    }
}
