//! `shared:NAME`: a camera that another process has and publishes. Frames are read where that wrote them; their memory
//! is mapped read-only and handled as a driver's.
//!
//! `every=N` takes every Nth frame, `rate=R` at most R in a second.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Device, Filled, Found, Identity, Notice, Port, Source, State, Stream};
use crate::acquire::{Entry, refuse_when_shut_down};
use crate::error::{Error, Kind, Result};
use crate::format::{Control, Format, StreamFormat, StreamRequest};
use crate::holders::{self, Activity, Holders};
use crate::kernel::{Ear, Epoll, Event, Fd, Timer, monotonic_ns};
use crate::lease::{self, Filing};
use crate::memory::Buffer;
use crate::share::link::{self, Caller, Link, News, Passed, serving};
use crate::share::memory::{Mapping, is_drivers, is_for_good, mark_reading};
use crate::share::ring::{self, Reader, Taken};
use crate::share::spawn::{Spawned, Wanted};
use crate::share::wire::{self, Attachment, Geometry, Map, map, word};
use crate::uri::Options;
use crate::{policy, timed};

#[cfg(any(test, fuzzing))]
pub mod hostile;

#[derive(Clone)]
pub struct Shared {
    uri: String,
    name: String,
    every: u64,
    /// Least time between two frames.
    interval_ns: i64,
    /// What this reader calls itself.
    reader: String,
    monitor: bool,
    /// The user whose process shares it, once it was connected to.
    user: Option<u32>,
    /// Until when an open goes on that has a timeout.
    until: Option<Instant>,
    /// What ends a wait for its process: a cancel event while it is opened, and the end of the camera after that.
    ends: Vec<Arc<Event>>,
    /// The camera behind it, where a process that dies is replaced by its readers.
    camera: Option<Wanted>,
}

impl Shared {
    pub fn new(options: &Options) -> Result<Shared> {
        options.only(&["every", "rate"])?;
        let name = options.target.clone();
        if !lease::is_share_name(&name) {
            let most = policy::SHARE_NAME_MOST;
            return Err(
                options.invalid(format!("a name has up to {most} letters, digits, dots, dashes and underscores"))
            );
        }
        let interval_ns = match options.has("rate") {
            true => 1_000_000_000 / options.number("rate", 1, 1..=u64::from(policy::FPS_MOST))? as i64,
            false => 0,
        };
        let every = options.number("every", 1, 1..=1_000_000)?;
        Ok(Shared {
            uri: options.uri.clone(),
            name,
            every,
            interval_ns,
            reader: String::new(),
            monitor: false,
            user: None,
            until: None,
            ends: Vec::new(),
            camera: None,
        })
    }

    /// Who reads, and whether it will command nothing.
    pub fn for_reader(self, reader: &str, monitor: bool) -> Shared {
        Shared { reader: reader.to_owned(), monitor, ..self }
    }

    /// One of that name.
    pub fn named(name: &str) -> Shared {
        let uri = format!("shared:{name}");
        let (name, reader) = (name.to_owned(), String::new());
        let (monitor, user, until, ends, camera) = (false, None, None, Vec::new(), None);
        Shared { uri, name, every: 1, interval_ns: 0, reader, monitor, user, until, ends, camera }
    }

    /// Whoever reads it has another process share this camera, where the one that did is gone.
    pub fn served_by(self, camera: Option<Wanted>) -> Shared {
        Shared { camera, ..self }
    }

    fn caller(&self) -> Caller<'_> {
        Caller { name: &self.name, holder: &self.reader, monitor: self.monitor, before: self.user }
    }

    fn connect(&self) -> Result<(Link, Map)> {
        let left = self.until.map_or(policy::SHARE_ANSWER, |until| until.saturating_duration_since(Instant::now()));
        let patience = left.clamp(policy::SHARE_HELLO, policy::SHARE_ANSWER);
        Link::connect(&self.caller(), patience, &self.ends)
    }
}

/// The cameras that are shared now.
pub fn list() -> Vec<Found> {
    let of = |served: link::Served| {
        let identity = Identity {
            uri: format!("shared:{}", served.name),
            name: served.name,
            driver: "shared".into(),
            ..Identity::default()
        };
        Found { identity, state: if served.streaming { State::Streaming } else { State::Open } }
    };
    link::shares().into_iter().map(of).collect()
}

impl Source for Shared {
    fn will_wait(&mut self, until: Option<Instant>, cancel: Option<&Event>) -> Result<()> {
        let failed = |e| Error::system(format!("{}: creating its descriptors", self.uri), e);
        self.until = until;
        self.ends = cancel.map(Event::twin).transpose().map_err(failed)?.map(Arc::new).into_iter().collect();
        Ok(())
    }

    fn acquire(&mut self) -> Result<Box<dyn Device>> {
        let shutdown = Entry::new()?;
        let ends = self.ends.iter().cloned().chain([shutdown.event.clone()]).collect();
        let connected = Shared { ends, ..self.clone() }.connect();
        refuse_when_shut_down(&self.uri)?;
        let (link, welcome) = connected?;
        let text = |key: &str| word(&welcome, key).unwrap_or("").to_owned();
        let identity = Identity {
            uri: self.uri.clone(),
            name: text("camera"),
            driver: text("driver"),
            serial: text("serial"),
            bus: text("bus"),
        };
        let end = Event::new().map_err(|e| Error::system(format!("{}: creating its descriptors", self.uri), e))?;
        let end = Arc::new(end);
        let (user, until, ends) = (Some(link.user()), None, vec![end.clone()]);
        let source = Shared { user, until, ends, ..self.clone() };
        Ok(Box::new(Served { source, identity, end, link: Mutex::new(Some(link)) }))
    }

    fn notice(&mut self) -> Result<Notice> {
        Ok(Notice { folders: lease::folders(), ..Notice::default() })
    }

    fn holders(&self) -> Holders {
        let serving = serving(&self.name);
        let holder = serving.and_then(|found| {
            let activity = if found.record.streaming { Activity::Streaming } else { Activity::Open };
            let holder = holders::known(found.pid, activity)?;
            Some(holders::Holder { lease: Some(found.record), ..holder })
        });
        Holders { list: holder.into_iter().collect(), unreadable: 0 }
    }

    fn filings(&self) -> Vec<Filing> {
        Vec::new()
    }

    fn port(&self) -> Result<Box<dyn Port>> {
        Err(no_port(&self.uri))
    }

    fn receive(&mut self, _camera: Fd) -> Result<Box<dyn Device>> {
        Err(Error::new(Kind::Unsupported, format!("{}: a shared camera is not handed over", self.uri)))
    }

    fn formats(&self) -> Result<Vec<Format>> {
        formats(&self.connect()?.0, &self.ends)
    }
}

fn no_port(uri: &str) -> Error {
    Error::new(Kind::Unsupported, format!("{uri}: a shared camera has no port of its own"))
        .hint("reset the camera behind it")
}

fn unreadable(uri: &str) -> Error {
    Error::new(Kind::Internal, format!("{uri}: its process answers in words that this version does not know"))
}

fn formats(link: &Link, ends: &[Arc<Event>]) -> Result<Vec<Format>> {
    let answer = link.ask(map(serde_json::json!({ "do": "formats" })), policy::SHARE_ANSWER, ends)?;
    let list = answer.get("formats").and_then(Value::as_array);
    Ok(list.into_iter().flatten().filter_map(wire::offer_of).collect())
}

/// A connection to the process that has the camera.
struct Served {
    source: Shared,
    identity: Identity,
    /// Signalled when the camera ends: no call waits for the process any more.
    end: Arc<Event>,
    /// `None` while that process is gone.
    link: Mutex<Option<Link>>,
}

impl Served {
    fn ask(&self, request: Map, timeout: Duration) -> Result<Map> {
        let timeout = timeout.min(policy::FOR_EVER);
        let deadline = Instant::now() + timeout;
        let mut link = timed::lock_by(&self.link, Some(deadline)).ok_or_else(|| {
            let message = format!("{}: its process has not answered another call yet", self.identity.uri);
            Error::new(Kind::Timeout, message)
        })?;
        // That of a process that is gone, while another one may be there already.
        if link.as_ref().is_none_or(Link::is_gone) {
            *link = Some(self.source.connect()?.0);
        }
        let Some(connected) = link.as_ref() else { return Err(unreadable(&self.identity.uri)) };
        let left = deadline.saturating_duration_since(Instant::now());
        connected.ask(request, left, &self.source.ends).inspect_err(|error| {
            // The next call connects anew.
            if error.kind() == Kind::Disconnected {
                *link = None;
            }
        })
    }

    fn control_call(&self, id: u32, value: Option<i64>) -> Result<i64> {
        let mut request = map(serde_json::json!({ "do": "control", "control": id }));
        request.extend(value.map(|value| ("value".to_owned(), value.into())));
        let answer = self.ask(request, policy::SHARE_ANSWER)?;
        answer.get("value").and_then(Value::as_i64).ok_or_else(|| unreadable(&self.identity.uri))
    }
}

impl Device for Served {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn formats(&self) -> Result<Vec<Format>> {
        formats(&self.source.connect()?.0, &self.source.ends)
    }

    fn controls(&self) -> Result<Vec<Control>> {
        let answer = self.ask(map(serde_json::json!({ "do": "controls" })), policy::SHARE_ANSWER)?;
        let list = answer.get("controls").and_then(Value::as_array);
        Ok(list.into_iter().flatten().filter_map(wire::control_of).collect())
    }

    fn control(&self, id: u32) -> Result<i64> {
        self.control_call(id, None)
    }

    fn set_control(&self, id: u32, value: i64) -> Result<()> {
        self.control_call(id, Some(value)).map(drop)
    }

    fn command(&self, request: Map, timeout: Duration) -> Result<Map> {
        self.ask(request, timeout)
    }

    fn end(&self) {
        self.end.signal();
    }

    fn start(&self, request: &StreamRequest) -> Result<Box<dyn Stream>> {
        Ok(Box::new(Attached::begin(self.source.clone(), request)?))
    }

    fn port(&self) -> Result<Box<dyn Port>> {
        Err(no_port(&self.identity.uri))
    }
}

/// As many of a frame's index tell the slot; the others, the ring.
const SLOT_BITS: u32 = ring::SLOTS_MOST.next_power_of_two().ilog2();

/// A stream that is read where another process writes it.
struct Attached {
    source: Shared,
    attachment: Attachment,
    format: StreamFormat,
    link: Option<Link>,
    ring: Option<Ring>,
    /// Counts rings: a frame belongs to one of them.
    rings: u32,
    /// What the ring's bell, the link, the event of this end, and the timer while the process is away, are watched by.
    ready: Option<Arc<Epoll>>,
    /// A frame is there though the bell was not rung for it.
    here: Event,
    /// That was signalled.
    is_here: bool,
    retry: Timer,
    /// When that rings, of CLOCK_MONOTONIC: no call looks for the process before.
    retry_ns: i64,
    /// A process that was started to share the camera again, and when.
    spawned: Option<(Option<Spawned>, Instant)>,
    /// Why no frames come.
    trouble: Option<Error>,
    /// The host has not been told of that yet.
    is_news: bool,
    /// The format is another one than that which was asked for last.
    is_reformatted: bool,
}

/// The memory of one generation of frames.
struct Ring {
    file: Fd,
    header: Mapping,
    control: Mapping,
    bell: Ear,
    /// The bell will be rung for the next frame. While nobody has waited on it since, it is readable then.
    is_armed: bool,
    is_rung: bool,
    reader: Reader,
    geometry: Geometry,
    /// The driver's buffers that are slots, one file for each plane.
    lent: Vec<Fd>,
    /// Mapped when a frame came in them first.
    buffers: Vec<Option<Arc<Buffer>>>,
    /// The reader holds as many as it may, and is not to be woken before it gives one back.
    is_full: bool,
}

impl Ring {
    fn header(&self) -> &ring::Header {
        // SAFETY: a struct of atomics.
        unsafe { self.header.atomics() }
    }

    fn buffer(&mut self, slot: usize) -> Result<Arc<Buffer>> {
        let place = &mut self.buffers[slot];
        if let Some(buffer) = place {
            return Ok(buffer.clone());
        }
        let of_memory = |plane| {
            let (at, length) = self.geometry.plane(slot, plane);
            (self.file.number(), at as i64, length)
        };
        let lent = lent_files(&self.lent, &self.geometry, slot);
        let of_driver = |plane: usize| (lent[plane].number(), 0, self.geometry.planes[plane].1);
        let all = 0..self.geometry.planes.len();
        let planes: Vec<_> = if lent.is_empty() { all.map(of_memory).collect() } else { all.map(of_driver).collect() };
        let buffer = Buffer::map(&planes).map_err(|e| Error::system("mapping the frames of a shared camera", e))?;
        Ok(place.insert(buffer).clone())
    }

    /// Tells the driver whose buffer a slot is that its bytes are read now, or were.
    fn mark_reading(&self, slot: usize, begins: bool) -> Result<()> {
        let files = lent_files(&self.lent, &self.geometry, slot);
        let marked = files.iter().try_for_each(|file| mark_reading(file, begins));
        marked.map_err(|e| Error::system("reading the frames of a shared camera (DMA_BUF_IOCTL_SYNC)", e))
    }
}

/// The files of a slot that is a driver's buffer; none of another.
fn lent_files<'a>(lent: &'a [Fd], geometry: &Geometry, slot: usize) -> &'a [Fd] {
    let planes = geometry.planes.len();
    slot.checked_sub(geometry.slots).map_or(&[], |at| &lent[at * planes..][..planes])
}

impl Drop for Ring {
    fn drop(&mut self) {
        // Frames that are out become copies: the writer may use their memory from now on.
        self.buffers.iter().flatten().for_each(|buffer| buffer.detach());
    }
}

impl Attached {
    fn new(source: Shared, request: &StreamRequest) -> Result<Attached> {
        let failed = |e| Error::system(format!("{}: creating its descriptors", source.uri), e);
        let (here, retry) = (Event::new().map_err(failed)?, Timer::new().map_err(failed)?);
        let attachment = Attachment {
            mode: wire::mode_of(request.drop_policy, source.every, source.interval_ns),
            hold: request.buffers,
            wants: request.clone(),
        };
        let format = StreamFormat::default();
        Ok(Attached {
            source,
            attachment,
            format,
            link: None,
            ring: None,
            rings: 0,
            ready: None,
            here,
            is_here: false,
            retry,
            retry_ns: 0,
            spawned: None,
            trouble: None,
            is_news: false,
            is_reformatted: false,
        })
    }

    fn begin(source: Shared, request: &StreamRequest) -> Result<Attached> {
        let mut attached = Attached::new(source, request)?;
        let link = attached.source.connect()?.0;
        attached.attach(link)?;
        let deadline = Instant::now() + policy::SHARE_START;
        loop {
            let news = attached.link.as_ref().map_or(News::Gone, Link::news);
            attached.take_in(news)?;
            if let Some(trouble) = attached.trouble.take() {
                return Err(trouble);
            }
            match &attached.link {
                Some(link) if attached.ring.is_none() => link.await_more(deadline, &attached.source.ends)?,
                _ => break,
            }
        }
        let most = request.max_bytes;
        let needed = attached.format.bytes();
        if most != 0 && needed > most {
            return Err(Error::new(
                Kind::Budget,
                format!(
                    "{}: its frames that may be held are {needed} bytes, more than max_bytes = {most}",
                    attached.source.uri
                ),
            )
            .hint("raise max_bytes, or hold fewer frames (buffers)"));
        }
        Ok(attached)
    }

    /// Asks for frames over a new link. Their memory comes later.
    fn attach(&mut self, link: Link) -> Result<()> {
        let watched = self.ready.as_ref().map_or(Ok(()), |ready| ready.add(link.fd()));
        watched.map_err(|e| Error::system(format!("{}: watching it", self.source.uri), e))?;
        self.leave();
        self.link.insert(link).send(wire::of_attachment(&self.attachment)).map(drop)
    }

    /// Deals with what came over the link. An error where frames will not come from it any more.
    fn take_in(&mut self, news: News) -> Result<()> {
        match news {
            News::Nothing => Ok(()),
            News::Gone => Err(self.lose()),
            News::Broken(error) => Err(error),
            News::Message(message, passed) => match word(&message, "event") {
                Some("generation") => self.enter(&message, passed),
                Some("trouble") => {
                    self.trouble = Some(wire::failure_of(&message));
                    self.is_news = true;
                    Ok(())
                }
                None if message.get("ok") == Some(&Value::Bool(false)) => Err(wire::failure_of(&message)),
                _ => Ok(()),
            },
        }
    }

    /// Goes over to a new ring.
    fn enter(&mut self, message: &Map, passed: Passed) -> Result<()> {
        let uri = &self.source.uri.clone();
        let mut passed = passed.into_iter();
        let (Some(file), Some(control), Some(bell)) = (passed.next(), passed.next(), passed.next()) else {
            return Err(unreadable(uri));
        };
        let lent: Vec<Fd> = passed.collect();
        let failed = |e| Error::system(format!("{uri}: mapping its memory"), e);
        // Memory that somebody could cut off beneath this process would kill it. Before its length is looked at: until it
        // is sealed, that is not for good.
        if !is_for_good(&file) || !is_for_good(&control) {
            return Err(unreadable(uri));
        }
        let length = |file: &Fd| file.as_file().metadata().map(|about| about.len());
        let generation = wire::generation_of(message, length(&file).map_err(failed)?).ok_or_else(|| unreadable(uri))?;
        if lent.len() < generation.geometry.files() {
            let cause = std::io::Error::from_raw_os_error(libc::EMFILE);
            return Err(Error::system(format!("{uri}: receiving its buffers"), cause).hint(link::MORE_DESCRIPTORS));
        }
        if length(&control).map_err(failed)? < policy::PAGE as u64 || !lent.iter().all(is_drivers) {
            return Err(unreadable(uri));
        }
        let header = Mapping::of(&file, generation.geometry.first, false).map_err(failed)?;
        let control = Mapping::of(&control, policy::PAGE, true).map_err(failed)?;
        let bell = Ear::from_fd(bell);
        self.leave();
        self.ready.as_ref().map_or(Ok(()), |ready| ready.add_edges(bell.fd())).map_err(failed)?;
        // SAFETY: a struct of atomics.
        let reader =
            Reader::new(unsafe { header.atomics() }, self.attachment.mode, generation.geometry.all(), generation.quota);
        let geometry = generation.geometry;
        let (is_armed, is_rung, is_full) = (false, false, false);
        let buffers = vec![None; geometry.all()];
        self.ring =
            Some(Ring { file, header, control, bell, is_armed, is_rung, reader, geometry, lent, buffers, is_full });
        self.rings = (self.rings + 1) & (u32::MAX >> SLOT_BITS);
        self.format = generation.format;
        self.is_reformatted = true;
        self.trouble = None;
        self.arm(Woken::ByNobody);
        Ok(())
    }

    fn leave(&mut self) {
        if let Some(ring) = self.ring.take() {
            self.forget(ring.bell.fd());
        }
    }

    fn forget(&self, fd: RawFd) {
        self.ready.iter().for_each(|ready| ready.remove(fd));
    }

    /// The process is gone, or sent this reader away. Frames that are out stay as they are, unless that process goes
    /// on and writes them anew: it sends away who holds more than it may, or says what is no message.
    fn lose(&mut self) -> Error {
        let uri = &self.source.uri;
        let gone = Error::new(Kind::Disconnected, format!("{uri}: its process is gone"))
            .hint("frames come again when that returns");
        self.refused(&gone);
        gone
    }

    /// Frames will not come over this link any more: a new one is tried a little later.
    fn refused(&mut self, why: &Error) {
        if let Some(link) = self.link.take() {
            self.forget(link.fd());
        }
        if let Some(ring) = &self.ring {
            self.forget(ring.bell.fd());
        }
        self.trouble = Some(why.clone());
        self.retry_ns = monotonic_ns() + policy::SHARE_LOOK.as_nanos() as i64;
        self.retry.arm(Some(self.retry_ns));
    }

    /// Looks whether the process is back.
    fn return_to(&mut self) {
        self.retry.arm(None);
        // The answers are not waited for: where processors are scarce, they come later than a host would wait here.
        match Link::greet(&self.source.caller()).and_then(|(link, _)| self.attach(link)) {
            Ok(()) => self.spawned = None,
            Err(error) => {
                log::debug!("{error}");
                if error.kind() == Kind::NotFound {
                    self.spawn();
                }
                let why = self.trouble.take().unwrap_or(error);
                self.refused(&why);
            }
        }
    }

    /// Has a process share the camera again, where that is the readers' affair.
    fn spawn(&mut self) {
        let Some(camera) = &self.source.camera else { return };
        if let Some((spawned, at)) = &mut self.spawned {
            if let Some(said) = spawned.as_mut().and_then(Spawned::report) {
                said.unwrap_or_else(|error| log::info!("{}: {error}", camera.uri));
                *spawned = None;
            }
            // One that has not said how it went is on its way: its start takes time where processors are scarce.
            let patience = if spawned.is_some() { policy::SHARE_SPAWN } else { policy::SHARE_RESPAWN };
            if at.elapsed() < patience {
                return;
            }
        }
        let spawned = Spawned::start(camera, &self.source.name, policy::SHARE_RESPAWN);
        self.spawned = Some((spawned.inspect_err(|error| log::warn!("{error}")).ok(), Instant::now()));
    }

    fn take(&mut self) -> Result<Option<Filled>> {
        let rings = self.rings;
        let Some(ring) = &mut self.ring else { return Ok(None) };
        // SAFETY: structs of atomics.
        let (header, control): (&ring::Header, &ring::Control) =
            unsafe { (ring.header.atomics(), ring.control.atomics()) };
        let (slot, told) = match ring.reader.take(header, control) {
            Taken::Frame { slot, told } => (slot, told),
            Taken::Full => {
                ring.is_full = true;
                return Ok(None);
            }
            Taken::Nothing => return Ok(None),
        };
        let buffer = match ring.buffer(slot).and_then(|buffer| ring.mark_reading(slot, true).map(|()| buffer)) {
            Ok(buffer) => buffer,
            Err(error) => {
                let control = &ring.control;
                // SAFETY: a struct of atomics.
                ring.reader.release(unsafe { control.atomics() }, slot);
                self.arm(Woken::ByNobody); // frames go on
                return Err(error);
            }
        };
        Ok(Some(Filled {
            index: rings << SLOT_BITS | slot as u32,
            buffer,
            offset: told.offset.map(|offset| offset as usize),
            used: told.used.map(|used| used as usize),
            sequence: told.sequence,
            timestamp_ns: told.timestamp_ns,
            corrupt: told.corrupt,
        }))
    }

    /// Has whoever watches be told when there is a frame, and not before.
    fn arm(&mut self, woken: Woken) {
        let pending = match &self.ring {
            Some(ring) => !ring.is_full && ring.reader.behind(ring.header()) > 0,
            None => return self.tell_here(false),
        };
        // Several threads may wait: while frames are there, none of them sleeps.
        self.tell_here(pending);
        let Some(ring) = &mut self.ring else { return };
        // SAFETY: structs of atomics.
        let (header, control): (&ring::Header, &ring::Control) =
            unsafe { (ring.header.atomics(), ring.control.atomics()) };
        if ring.is_armed && !control.waits() {
            (ring.is_armed, ring.is_rung) = (false, true);
        }
        match woken {
            Woken::ByWait => ring.is_rung = false,
            // The writer took notice of a wait, and rang only after this end had looked.
            Woken::ForNothing => ring.is_rung = true,
            Woken::ByNobody => {}
        }
        if pending {
            return;
        }
        if std::mem::take(&mut ring.is_rung) {
            ring.bell.clear();
        }
        if !ring.is_full {
            ring.is_armed = ring.reader.wait(header, control);
            let came = !ring.is_armed && ring.reader.behind(header) > 0;
            self.tell_here(came);
        }
    }

    fn tell_here(&mut self, is_here: bool) {
        match (std::mem::replace(&mut self.is_here, is_here), is_here) {
            (false, true) => self.here.signal(),
            (true, false) => self.here.clear(),
            _ => {}
        }
    }
}

/// What a look for frames was caused by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    /// A wait, which took notice of the bell.
    ByWait,
    /// The host's own, which may have seen the bell.
    ByNobody,
    /// The same, and there was nothing.
    ForNothing,
}

impl Stream for Attached {
    fn format(&self) -> &StreamFormat {
        &self.format
    }

    fn watch(&mut self, ready: &Arc<Epoll>) -> std::io::Result<()> {
        self.ready = Some(ready.clone());
        ready.add(self.retry.fd())?;
        ready.add(self.here.fd())?;
        self.link.as_ref().map_or(Ok(()), |link| ready.add(link.fd()))?;
        // By its edges: a wait takes notice of the bell, and nothing more has to be asked of the kernel before the next.
        self.ring.as_ref().map_or(Ok(()), |ring| ready.add_edges(ring.bell.fd()))
    }

    fn unwatch(&mut self, ready: &Epoll) {
        self.ready = None;
        let link = self.link.as_ref().map(Link::fd);
        let bell = self.ring.as_ref().map(|ring| ring.bell.fd());
        [self.retry.fd(), self.here.fd()].into_iter().chain(link).chain(bell).for_each(|fd| ready.remove(fd));
    }

    fn at_hand(&mut self) -> Result<Option<Filled>> {
        if self.ring.as_ref().is_none_or(|ring| ring.reader.behind(ring.header()) == 0) {
            return Ok(None);
        }
        let taken = self.take()?;
        if taken.is_some() {
            self.arm(Woken::ByNobody);
        }
        Ok(taken)
    }

    fn dequeue(&mut self, can_wait: bool) -> Result<Option<Filled>> {
        let woken = if can_wait { Woken::ByWait } else { Woken::ByNobody };
        if let Some(filled) = self.take()? {
            self.arm(woken);
            return Ok(Some(filled));
        }
        if self.link.is_none() && monotonic_ns() >= self.retry_ns {
            self.return_to();
        }
        for _ in 0..policy::MESSAGES_AT_ONCE {
            match self.link.as_ref().map_or(News::Nothing, Link::news) {
                News::Nothing => break,
                news => self.take_in(news).inspect_err(|error| self.refused(error))?,
            }
        }
        let taken = self.take()?;
        self.arm(if can_wait || taken.is_some() { woken } else { Woken::ForNothing });
        match &self.trouble {
            // Once: whoever goes on waiting may get frames again.
            Some(trouble) if taken.is_none() && std::mem::take(&mut self.is_news) => Err(trouble.clone()),
            _ => Ok(taken),
        }
    }

    fn requeue(&mut self, index: u32) -> Result<()> {
        let (rings, slot) = (index >> SLOT_BITS, (index & ((1 << SLOT_BITS) - 1)) as usize);
        if rings != self.rings {
            return Ok(()); // its ring is gone
        }
        let Some(ring) = &mut self.ring else { return Ok(()) };
        if let Err(error) = ring.mark_reading(slot, false) {
            log::debug!("{}: {error}", self.source.uri);
        }
        // SAFETY: a struct of atomics.
        ring.reader.release(unsafe { ring.control.atomics() }, slot);
        if std::mem::take(&mut ring.is_full) {
            self.arm(Woken::ByNobody);
        }
        Ok(())
    }

    fn stop(self: Box<Self>) -> Result<()> {
        Ok(())
    }

    fn has_new_format(&mut self) -> bool {
        std::mem::take(&mut self.is_reformatted)
    }

    fn trouble(&self) -> Option<Error> {
        self.trouble.clone()
    }

    fn behind(&self) -> u64 {
        self.ring.as_ref().map_or(0, |ring| ring.reader.behind(ring.header()))
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // First, and then the link: what is held is the writer's again once that is closed.
        self.leave();
    }
}
