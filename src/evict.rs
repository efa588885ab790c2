//! Removing who has a camera, safely: each holder is asked where it is one of ours, then ended by SIGTERM and, after a
//! grace, by SIGKILL; whom nobody should end is refused.

use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::holders::Holder;
use crate::kernel::Event;
use crate::policy;

/// How to evict.
pub struct EvictOptions<'a> {
    /// Says what would be done to each holder, and does nothing.
    pub dry_run: bool,
    /// How long a holder has to let go, once when it is asked and once more after SIGTERM.
    pub grace: Duration,
    /// What the one who evicts calls itself; told to a holder that is asked.
    pub name: String,
    /// Holders for which this is false are left alone and not reported.
    pub only: Option<&'a dyn Fn(&Holder) -> bool>,
    /// Ends the waiting when it is signalled.
    pub cancel: Option<&'a Event>,
}

impl Default for EvictOptions<'_> {
    fn default() -> Self {
        EvictOptions { dry_run: false, grace: policy::EVICTION_GRACE, name: String::new(), only: None, cancel: None }
    }
}

/// What became of a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was done: it would have been terminated, or had let go by itself.
    None,
    /// It was asked, and handed the camera over.
    Yielded,
    /// It let go after SIGTERM.
    Terminated,
    /// It ended by SIGKILL.
    Killed,
    /// It is not to be ended: the reason says why.
    Refused,
    /// It has the camera still: the reason says why.
    Survived,
}

/// A holder, and what was done to it.
#[derive(Debug, Clone)]
pub struct Evicted {
    pub holder: Holder,
    pub outcome: Outcome,
    /// Why it was refused or survived and what would help, or what a dry run would do; else empty.
    pub reason: String,
}

/// Removes who has a camera, and claims it for a moment to be sure of it.
///
/// `Ok` when each holder's outcome is known: the camera is free where none is refused or survived. `Kind::Busy` when
/// it is not free, and nobody is found who has it.
pub fn evict(uri: &str, options: EvictOptions<'_>) -> Result<Vec<Evicted>> {
    let _ = options;
    Err(Error::new(Kind::Unsupported, format!("{uri}: eviction is not there yet")))
}
