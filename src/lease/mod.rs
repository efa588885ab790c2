//! Who holds what, told by the holders themselves: each camera that is held has a lease, a file in the runtime folder
//! that its holder has locked. The kernel drops the lock with the holder, so nothing can be stale.

use std::time::Duration;

mod ask;

pub use ask::{Ask, Petition, Progress};

/// What a holder tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it calls itself.
    pub name: String,
    pub priority: i32,
    /// When it got the camera, in nanoseconds of CLOCK_BOOTTIME.
    pub since_ns: u64,
    /// Whether it streams.
    pub streaming: bool,
}

/// How a camera's last holder ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LastExit {
    /// It let the camera go, or none is known since the machine was started.
    #[default]
    Clean,
    /// It died while it held the camera and did not stream.
    Died,
    /// It died while it was streaming.
    Dirty,
}

/// Who asks for a camera.
#[derive(Debug, Clone)]
pub struct Asker {
    pub pid: i32,
    pub uid: u32,
    pub name: String,
    pub priority: i32,
    /// Whether the camera is lost whatever the answer: the asker's priority is higher, or it evicts.
    pub must: bool,
    /// How long the holder may take to finish with its frames.
    pub grace: Duration,
}

/// A holder's answer to one who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// As priorities say: the higher one gets it, an equal one does not.
    ByPriority,
    /// The asker gets it.
    Yield,
}

/// Told, in a thread of the library's, that somebody asks for the camera.
pub type OnAsk = Box<dyn Fn(&Asker) -> Answer + Send + Sync>;
