//! Standard output, a pipe or a device: whoever reads there may not read, and a signal is to end the wait for it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::signals::Signals;

/// The errno of a write that a signal ended. No write to a file gives it.
pub const INTERRUPTED: i32 = libc::ECANCELED;

/// How long a reader has to take the rest of a frame, once a signal has come.
const GRACE: Duration = Duration::from_millis(500);

/// A pipe that can be written takes this without blocking (PIPE_BUF).
const PIECE: usize = 4096;

pub struct Outlet<'a> {
    file: File,
    /// Standard output may be a file on a disk, which takes all at once.
    is_file: bool,
    signals: &'a Signals,
}

impl<'a> Outlet<'a> {
    pub fn new(file: File, signals: &'a Signals) -> Outlet<'a> {
        Outlet { is_file: file.metadata().is_ok_and(|kind| kind.is_file()), file, signals }
    }

    /// Without waiting for a pipe's reader: where there is none, it fails with ENXIO.
    pub fn open_now(path: &Path, signals: &'a Signals) -> io::Result<Outlet<'a>> {
        let file = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Outlet::new(file, signals))
    }

    /// Waits until something can be written. The file is not made non-blocking for this: it may be the shell's as well.
    fn wait(&self) -> io::Result<()> {
        let mut give_up: Option<Instant> = None;
        loop {
            let timeout = match give_up {
                Some(at) => {
                    PollTimeout::try_from(at.saturating_duration_since(Instant::now())).unwrap_or(PollTimeout::ZERO)
                }
                None => PollTimeout::NONE,
            };
            // Once a signal is there, its descriptor would end every wait at once.
            let signals = if give_up.is_some() { PollFlags::empty() } else { PollFlags::POLLIN };
            let mut fds =
                [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT), PollFd::new(self.signals.as_fd(), signals)];
            match poll(&mut fds, timeout) {
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
            if fds[0].any().unwrap_or(true) {
                return Ok(());
            }
            match give_up {
                None => give_up = Some(Instant::now() + GRACE),
                Some(at) if Instant::now() >= at => return Err(io::Error::from_raw_os_error(INTERRUPTED)),
                Some(_) => {}
            }
        }
    }
}

impl Write for Outlet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_file {
            return self.file.write(bytes);
        }
        loop {
            self.wait()?;
            match self.file.write(&bytes[..bytes.len().min(PIECE)]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
