//! One camera for many: a process that has it publishes its frames in shared memory, and others read them there.
//!
//! `ring` is the protocol of that memory, `memory` the memory; `hub` is what the two threads of a shared camera have in
//! common, of which `publish` streams and `server` listens; `wire` is what goes over the socket, `link` its other end.

use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::backend::Identity;
use crate::error::{Error, Kind, Result};
use crate::format::{Control, Format, StreamFormat, StreamRequest};
use crate::frame::Frame;
use crate::kernel::{Fd, MessageSocket};
use crate::lease::{self, Filing, Sign, Users};
use crate::worker::Worker;
use crate::{fork, policy, timed};

pub mod access;
mod hub;
pub mod link;
pub mod memory;
mod publish;
pub mod ring;
pub mod server;
pub mod spawn;
pub mod wire;

mod sync {
    pub use std::sync::atomic::{AtomicU64, Ordering, fence};
}

use hub::Hub;
pub use link::{Served, command, shares};
use wire::Map;

/// How to share a camera.
pub struct ShareOptions {
    /// By what name others open it, as `shared:NAME`: up to 64 letters, digits, dots, dashes and underscores.
    pub name: String,
    /// Who may read it.
    pub readers: Allowed,
    /// Who may start and stop it, and set its format and controls; that is not to read it.
    pub commanders: Allowed,
    /// What is streamed until somebody asks for something else.
    pub request: StreamRequest,
    pub start: ShareStart,
    /// How many of the newest frames are kept for readers who take all in order; 0 for 4.
    pub history: u32,
    /// Most bytes of memory for frames; 0 for 512 MiB. It is taken as readers hold frames.
    pub max_bytes: u64,
    /// Readers read the driver's own buffers where they can do so cheaply and nobody but this user and root may read;
    /// else, and where too few are left with the driver, each frame is copied once.
    pub lend: bool,
    /// Commands beyond the library's own.
    pub commands: Option<Arc<dyn Commands>>,
}

impl Default for ShareOptions {
    fn default() -> Self {
        ShareOptions {
            name: String::new(),
            readers: Allowed::Owner,
            commanders: Allowed::Owner,
            request: StreamRequest { drop_policy: crate::format::DropPolicy::Newest, ..StreamRequest::default() },
            start: ShareStart::OnDemand,
            history: 0,
            max_bytes: 0,
            lend: true,
            commands: None,
        }
    }
}

/// Who may do something beside this user and root. The kernel tells who a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allowed {
    Owner,
    /// The members of this group.
    Group(u32),
    Everyone,
}

/// When a shared camera streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShareStart {
    Always,
    /// While somebody reads it.
    OnDemand,
}

/// Commands that whoever shares a camera adds. Called in a thread of the library's, which answers nobody meanwhile.
pub trait Commands: Send + Sync {
    /// `None` for a verb that is not known, or that [`Commands::begin`] knows.
    fn command(&self, verb: &str, request: &Map) -> Option<Result<Map>>;

    /// A command that takes longer than a moment: a thread of the host's gives the answer when it is done. Returns
    /// `answer` for a verb that is not known.
    fn begin(&self, _verb: &str, _request: &Map, answer: LateAnswer) -> Option<LateAnswer> {
        Some(answer)
    }

    /// What is added to the answer to "status".
    fn status(&self) -> Map;
}

/// Where the answer to a command goes. One that is dropped instead of given is a failure to the client.
pub struct LateAnswer {
    hub: Arc<Hub>,
    client: u64,
    /// What the client called its request.
    id: serde_json::Value,
    is_given: bool,
}

impl LateAnswer {
    fn new(hub: Arc<Hub>, client: u64, id: serde_json::Value) -> LateAnswer {
        LateAnswer { hub, client, id, is_given: false }
    }

    /// From any thread. Where the client has gone meanwhile, nobody gets it.
    pub fn give(mut self, outcome: Result<Map>) {
        self.send(outcome);
    }

    fn send(&mut self, outcome: Result<Map>) {
        self.is_given = true;
        self.hub.give(self.client, self.id.take(), outcome);
    }
}

impl Drop for LateAnswer {
    fn drop(&mut self) {
        if !self.is_given {
            let message = format!("shared:{}: whoever serves it gave no answer", self.hub.name);
            self.send(Err(Error::new(Kind::Internal, message)));
        }
    }
}

/// How a shared camera fares.
#[derive(Debug, Clone, PartialEq)]
pub struct ShareInfo {
    pub name: String,
    pub streaming: bool,
    /// Who reads frames, and who is connected at all.
    pub readers: usize,
    pub clients: usize,
    pub published: u64,
    /// Since its threads stepped last: more than a second only where a driver does not return.
    pub pulse: Duration,
    /// Why it does not stream though it should.
    pub trouble: Option<String>,
}

/// Where the frames of a shared camera come from.
pub trait Feed: Send + Sync {
    fn formats(&self) -> Result<Vec<Format>>;
    fn controls(&self) -> Result<Vec<Control>>;
    fn control(&self, id: u32) -> Result<i64>;
    fn set_control(&self, id: u32, value: i64) -> Result<()>;
    fn begin(&self, request: &StreamRequest) -> Result<StreamFormat>;
    /// Whether readers could read the buffers of a stream themselves. Asked before it begins.
    fn may_lend(&self) -> bool;
    /// The buffers of the stream that has begun, where readers can.
    fn lend(&self) -> Option<Lending>;
    fn end(&self) -> Result<()>;
    fn next(self: Arc<Self>, timeout: Duration) -> Result<Frame>;
    /// Gets the camera back that is gone, for that reason, or was handed over.
    fn recover(self: Arc<Self>, reason: &Error, timeout: Duration) -> Result<()>;
}

/// The buffers of one stream, for readers to map: by their index, one file for each plane.
pub struct Lending {
    pub buffers: Vec<Vec<Fd>>,
    /// Which start it is: a frame of another one is in another buffer.
    pub round: u64,
}

/// What a share's name is filed under.
pub fn filing(name: &str, users: Users) -> Filing {
    Filing { key: format!("{}{name}", lease::SIGN), instance: String::new(), users }
}

/// A camera that is shared. Dropping it ends that.
pub struct Share {
    hub: Arc<Hub>,
    /// `None` when it has ended.
    sign: Option<Sign>,
    listener: Option<Worker>,
    publisher: Option<Worker>,
    epoch: u64,
}

impl Share {
    pub fn begin(options: ShareOptions, identity: Identity, feed: Option<Weak<dyn Feed>>) -> Result<Share> {
        let name = options.name.clone();
        if !lease::is_share_name(&name) {
            let most = policy::SHARE_NAME_MOST;
            let message = format!("\"{name}\" is no name to share a camera by");
            return Err(Error::new(Kind::InvalidArgument, message)
                .hint(format!("take up to {most} letters, digits, dots, dashes and underscores")));
        }
        let failed = |e| Error::system(format!("shared:{name}: starting to share it"), e);
        let (users, group) = match (options.readers, options.commanders) {
            (Allowed::Group(group), _) | (_, Allowed::Group(group)) => (Users::Group(group), Some(group)),
            _ => (Users::Root, None),
        };
        let mode = match (options.readers, options.commanders) {
            (Allowed::Everyone, _) | (_, Allowed::Everyone) => 0o666,
            // A file has one group: whoever comes is asked for the other one.
            (Allowed::Group(readers), Allowed::Group(commanders)) if readers != commanders => 0o666,
            _ if group.is_some() => 0o660,
            _ => 0o600,
        };
        let holder = options.name.clone();
        let listen = |path: &Path| {
            let socket = MessageSocket::listen(path)?;
            if let Some(group) = group {
                std::os::unix::fs::lchown(path, None, Some(group))?;
            }
            // After the group: the file's own group is not to be let in even for a moment.
            if mode != 0o600 {
                std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
            }
            Ok(socket)
        };
        let (sign, socket) = Sign::put(&filing(&name, users), &holder, listen)?;
        let hub = Arc::new(Hub::new(options, identity, feed).map_err(failed)?);
        let listens = hub.clone();
        let listener =
            Worker::start(c"camlease-share", move |stop| server::serve(&listens, &socket, stop)).map_err(failed)?;
        let mut share =
            Share { hub, sign: Some(sign), listener: Some(listener), publisher: None, epoch: fork::epoch() };
        if share.hub.feed.is_some() {
            let publishes = share.hub.clone();
            let publisher = Worker::start(c"camlease-frames", move |stop| publish::run(&publishes, stop));
            share.publisher = Some(publisher.map_err(failed)?);
        }
        Ok(share)
    }

    pub fn name(&self) -> &str {
        &self.hub.name
    }

    pub fn info(&self) -> ShareInfo {
        self.hub.info()
    }

    /// A forked child has neither its threads nor its memory, and its locks may be locked for ever there.
    pub fn is_own(&self) -> bool {
        self.epoch == fork::epoch()
    }

    pub fn status(&self) -> Map {
        self.hub.status()
    }

    /// Has its threads end, without waiting for them.
    pub fn stop(&self) {
        self.listener.iter().chain(&self.publisher).for_each(Worker::stop);
        self.hub.orders.signal();
    }

    /// Ends it; a thread that is inside a driver is waited for no longer than the deadline.
    pub fn end_by(mut self, deadline: Instant) {
        self.end(deadline);
    }

    /// Ends it for its readers in any case. False when the thread that streams is inside a driver still at the deadline:
    /// the stream is its own until another call says that it has left.
    pub fn try_end(&mut self, deadline: Instant) -> bool {
        if self.is_own() && self.publisher.is_some() {
            self.stop();
            if !self.hub.has_left_by(deadline) {
                self.end_for_readers(deadline);
                return false;
            }
        }
        self.end(deadline);
        true
    }

    fn end(&mut self, deadline: Instant) {
        if !self.is_own() {
            return self.publisher.take().into_iter().chain(self.listener.take()).for_each(std::mem::forget);
        }
        self.stop();
        let publisher = self.publisher.take();
        self.await_end(publisher, deadline);
        self.end_for_readers(deadline);
    }

    fn end_for_readers(&mut self, deadline: Instant) {
        let listener = self.listener.take();
        self.await_end(listener, deadline);
        self.hub.end();
        self.sign = None;
    }

    fn await_end(&self, worker: Option<Worker>, deadline: Instant) {
        if worker.is_some_and(|worker| !worker.end_by(deadline)) {
            log::warn!("shared:{}: one of its threads does not return", self.hub.name);
        }
    }

    /// Whether it can be found by its name.
    pub fn is_open(&self) -> bool {
        self.sign.is_some()
    }

    pub fn set_streaming(&self, streaming: bool) {
        if let Some(sign) = &self.sign {
            sign.set_streaming(streaming);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.end(Instant::now() + policy::HAND_OVER_END);
    }
}

/// A shared camera whose frames this process makes itself. Dropping it ends it.
pub struct Publisher {
    share: Share,
    /// One frame after the other.
    publishing: Mutex<()>,
}

impl Publisher {
    /// Its frames have this format: the planes' sizes are the most that a frame may have.
    pub fn new(options: ShareOptions, format: &StreamFormat) -> Result<Publisher> {
        crate::exit::watch();
        let identity = Identity {
            uri: format!("shared:{}", options.name),
            name: options.name.clone(),
            driver: "camlease".into(),
            ..Identity::default()
        };
        let share = Share::begin(options, identity, None)?;
        share.hub.begin_generation(format, Vec::new())?;
        share.set_streaming(true);
        Ok(Publisher { share, publishing: Mutex::default() })
    }

    /// Copies a frame into shared memory and shows it to the readers. False when there was no room, because readers hold
    /// all that there is, and in a forked child.
    pub fn publish(&self, planes: &[&[u8]], sequence: u64, timestamp_ns: i64, corrupt: bool) -> bool {
        if !self.share.is_own() {
            return false;
        }
        let _one = timed::lock(&self.publishing);
        self.share.hub.publish(planes, ring::Told { sequence, timestamp_ns, corrupt, ..ring::Told::default() })
    }

    /// Frames have this format from now on. Readers go over to it by themselves; what they hold stays.
    pub fn set_format(&self, format: &StreamFormat) -> Result<()> {
        if !self.share.is_own() {
            let name = self.share.name();
            return Err(Error::new(Kind::Forked, format!("shared:{name}: it belongs to the parent process"))
                .hint("share it by another name in this process"));
        }
        let _one = timed::lock(&self.publishing);
        self.share.hub.begin_generation(format, Vec::new()).map(drop)
    }

    pub fn info(&self) -> ShareInfo {
        match self.share.is_own() {
            true => self.share.info(),
            false => ShareInfo {
                name: self.share.name().to_owned(),
                streaming: false,
                readers: 0,
                clients: 0,
                published: 0,
                pulse: Duration::ZERO,
                trouble: None,
            },
        }
    }
}
