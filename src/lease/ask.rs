//! Asking a holder for its camera, over the socket that its lease names.

use std::os::fd::RawFd;
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::kernel::Fd;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Petition {
    /// Who asks, in its own words.
    pub name: String,
    pub priority: i32,
    /// The holder yields whatever its priority: it is being evicted.
    pub must: bool,
    /// How long it may take to finish with its frames.
    pub grace: Duration,
}

/// A holder that was asked.
pub struct Ask {
    _private: (),
}

/// How an ask stands.
pub enum Progress {
    /// No answer yet, or a yes and the camera is not here yet.
    Pending,
    /// It keeps the camera, for this reason.
    Refused(String),
    /// The open camera itself: dropping it lets the camera go.
    Handed(Fd),
    /// The holder hung up: it is gone, or let the camera go without handing it over.
    Gone,
}

impl Ask {
    /// Asks the process `pid` for one of the cameras with these keys. `None` where it has no lease on one; a failure
    /// where it cannot be asked: another user's, or it does not listen.
    pub fn begin(keys: &[String], pid: i32, petition: &Petition) -> Option<Result<Ask>> {
        let _ = (keys, pid, petition);
        Some(Err(Error::new(Kind::Unsupported, "not there yet"))).filter(|_| false)
    }

    /// Readable when [`Ask::progress`] has news.
    pub fn fd(&self) -> RawFd {
        -1
    }

    pub fn progress(&mut self) -> Progress {
        Progress::Gone
    }
}
