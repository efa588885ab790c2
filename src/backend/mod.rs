//! The wall between the managed camera and the kinds of camera. A backend knows how its kind is
//! acquired, streamed and let go, and nothing of handles, waiting or C.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::format::{Control, Format, StreamFormat, StreamRequest};
use crate::holders::Holders;
use crate::kernel::{Closing, Epoll, Event, Fd};
use crate::lease::Filing;
use crate::memory::{Buffer, PLANES_MOST};
use crate::share::wire::Map;
use crate::uri::Uri;

mod file;
mod paced;
pub mod shared;
mod v4l2;
mod virtual_camera;

/// One camera that was named and is not held yet. A wait for it keeps one of these: what an attempt
/// opened may stay open in it for the next.
pub trait Source: Send {
    /// Until when there will be attempts, and what ends them: for a kind of which an attempt asks another process.
    fn will_wait(&mut self, _until: Option<Instant>, _cancel: Option<&Event>) -> Result<()> {
        Ok(())
    }

    /// One attempt, without waiting. `Kind::Busy` when somebody else has it.
    fn acquire(&mut self) -> Result<Box<dyn Device>>;

    /// Where the kernel will tell that another attempt is worth it.
    fn notice(&mut self) -> Result<Notice>;

    /// Who has it.
    fn holders(&self) -> Holders;

    /// What leases on it are filed under: one for each camera that the name may mean, none for a kind that anybody can
    /// open at any time.
    fn filings(&self) -> Vec<Filing>;

    /// The port that the camera is plugged into, whoever has it and whatever ails it.
    fn port(&self) -> Result<Box<dyn Port>>;

    /// Takes over a camera that its holder handed over as an open file. A failure where it is not this camera, or
    /// cannot be used: then it is let go of.
    fn receive(&mut self, camera: Fd) -> Result<Box<dyn Device>>;

    /// What it offers, whoever has it.
    fn formats(&self) -> Result<Vec<Format>>;
}

/// What to watch while somebody else has the camera.
#[derive(Default)]
pub struct Notice {
    /// Nodes: a close of one may have been the holder's.
    pub nodes: Vec<PathBuf>,
    /// Folders in which nodes appear and vanish.
    pub folders: Vec<PathBuf>,
    /// A connection that hangs up when the holder is gone.
    pub hangup: Option<Fd>,
}

/// Who a camera is, for people and for finding it again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    pub uri: String,
    pub name: String,
    pub driver: String,
    pub serial: String,
    pub bus: String,
}

/// A camera that is held: nobody else can stream from it until this is dropped or let go.
/// Calls come from any thread, at the same time.
pub trait Device: Send + Sync {
    fn identity(&self) -> &Identity;
    fn formats(&self) -> Result<Vec<Format>>;
    fn controls(&self) -> Result<Vec<Control>>;
    fn control(&self, id: u32) -> Result<i64>;
    fn set_control(&self, id: u32, value: i64) -> Result<()>;

    /// Passes a command on to the process that has the camera.
    fn command(&self, _request: Map, _timeout: Duration) -> Result<Map> {
        Err(Error::new(Kind::Unsupported, format!("{}: no other process shares it", self.identity().uri))
            .hint("open shared:NAME to command a camera that is shared"))
    }

    /// The camera ends: calls that wait for another process return.
    fn end(&self) {}

    /// Whether others could read its buffers as they read ordinary memory, and it were free while they have some. Asked
    /// while it does not stream.
    fn may_export(&self) -> bool {
        false
    }

    /// Starts streaming. The caller sees to it that there is one stream at a time.
    fn start(&self, request: &StreamRequest) -> Result<Box<dyn Stream>>;

    /// The port that it is plugged into; UNSUPPORTED, with the reason, for a kind that has none.
    fn port(&self) -> Result<Box<dyn Port>>;

    /// Whether the driver has let go of it: it was unplugged, or its port reset.
    fn is_gone(&self) -> bool {
        false
    }

    /// What its lease is filed under; `None` for a kind that anybody can open at any time.
    fn filing(&self) -> Option<Filing> {
        None
    }

    /// Gives up the open file that the camera is held by, to be passed on: whoever has it then holds the camera. The
    /// stream has been stopped. `None` where there is nothing that could be passed on, and the camera is free.
    fn hand_over(self: Box<Self>) -> Option<Fd> {
        None
    }

    /// Lets the camera go, in the background: its driver may hang. Dropping it does the same here and now, and all that is
    /// needed where this is `None`.
    fn let_go(self: Box<Self>) -> Option<Closing> {
        None
    }
}

/// A port that is open to reset the camera in it. Having it open disturbs nobody.
pub trait Port: Send {
    /// Resets the camera: whoever has it open loses it.
    fn reset(&self) -> Result<()>;

    /// The same camera, for when it is back.
    fn source(&self) -> Box<dyn Source>;

    /// Who streams from other nodes of the same device, and would lose them.
    fn others(&self) -> Holders;
}

/// A running stream. One caller at a time.
pub trait Stream: Send {
    fn format(&self) -> &StreamFormat;

    /// Has this be readable when [`Stream::dequeue`] has a frame or an error, until [`Stream::unwatch`].
    fn watch(&mut self, ready: &Arc<Epoll>) -> std::io::Result<()>;
    fn unwatch(&mut self, ready: &Epoll);

    /// The next frame, where it is known to be there without asking the kernel.
    fn at_hand(&mut self) -> Result<Option<Filled>> {
        Ok(None)
    }

    /// The next frame by the drop policy that the stream was started with, if there is one now. A caller
    /// that can wait, and has waited, gets no stale one where a fresh one is about to come.
    fn dequeue(&mut self, can_wait: bool) -> Result<Option<Filled>>;

    /// Gives a dequeued buffer back to be filled again.
    fn requeue(&mut self, index: u32) -> Result<()>;

    /// Whether frames have come in another format since this was asked last: [`Stream::format`] tells which.
    fn has_new_format(&mut self) -> bool {
        false
    }

    /// Why no frame comes, where that is known.
    fn trouble(&self) -> Option<Error> {
        None
    }

    /// Frames that are there and were not taken, where others decide how many there are.
    fn behind(&self) -> u64 {
        0
    }

    /// Its buffers as files that other processes can map to read them: by their index, one for each plane. For a device
    /// that may export them; none where it turns out that there are no such files.
    fn export(&self) -> Vec<Vec<Fd>> {
        Vec::new()
    }

    /// Ends the stream and gives up its memory; frames that are handed out stay readable. The device
    /// stays held. Dropping a stream gives up its memory alone, without a call that a driver could hang in:
    /// letting the device go does the rest.
    fn stop(self: Box<Self>) -> Result<()>;
}

/// A buffer with a frame in it.
pub struct Filled {
    pub index: u32,
    pub buffer: Arc<Buffer>,
    /// Where in each plane the picture begins, and how many bytes it has.
    pub offset: [usize; PLANES_MOST],
    pub used: [usize; PLANES_MOST],
    pub sequence: u64,
    /// Of the exposure, or as near as the driver tells, in nanoseconds of CLOCK_MONOTONIC.
    pub timestamp_ns: i64,
    pub corrupt: bool,
}

/// The backend's view of a parsed name.
pub fn source(uri: &Uri) -> Result<Box<dyn Source>> {
    Ok(match uri {
        Uri::V4l2(node) => Box::new(v4l2::Node::at(node.clone())),
        Uri::Usb(device) => Box::new(v4l2::Node::on_usb(device.clone())),
        Uri::Virtual(options) => Box::new(virtual_camera::Virtual::new(options)?),
        Uri::File(options) => Box::new(file::Recording::new(options)?),
        Uri::Shared(options) => Box::new(shared::Shared::new(options)?),
    })
}

/// A camera of this machine, held or not.
#[derive(Debug, Clone)]
pub struct Found {
    pub identity: Identity,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Free,
    Open,
    Streaming,
    Unknown,
}

/// The cameras of this machine: nodes that give pictures, virtual cameras that are held, and those that are shared.
pub fn list() -> Result<Vec<Found>> {
    let mut found = v4l2::list()?;
    found.extend(virtual_camera::list());
    found.extend(shared::list());
    Ok(found)
}
