//! The managed camera: opened once, streamed from by any thread, and let go for certain.

use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};
use std::time::{Duration, Instant};

use crate::acquire::{self, OnWait, Wait, acquire};
use crate::backend::{self, Device, Filled, Identity, Source, Stream};
use crate::error::{Error, Kind, Result};
use crate::format::{Control, Format, Rate, StreamFormat, StreamRequest};
use crate::frame::Frame;
use crate::holders::Holders;
use crate::kernel::{Epoll, Event, Inotify};
use crate::lease::{self, Answer, Asker, Door, Doorbell, HandedOver, LastExit, Lease, OnAsk, Petition, Verdict};
use crate::policy;
use crate::share::{Share, access};
use crate::slab::{Slab, Token};
use crate::timed;
use crate::uri::Uri;
use crate::{exit, fork, signals, worker};

mod reset;
mod share;

pub use reset::reset;

/// How to open a camera.
pub struct OpenOptions<'a> {
    /// How long to wait for a busy camera; `None` waits without end, zero tries once.
    pub timeout: Option<Duration>,
    /// Wait for a camera that is not there at all, too.
    pub wait_for_device: bool,
    /// Ends the wait when it is signalled.
    pub cancel: Option<&'a Event>,
    /// Told who holds the camera when a wait begins, and again when that changes.
    pub on_wait: Option<OnWait<'a>>,
    /// What this holder calls itself.
    pub name: String,
    /// What is done when somebody else has it.
    pub on_busy: OnBusy,
    /// This holder's priority: the higher one gets the camera when it asks for it.
    pub priority: i32,
    /// How long a holder that is asked or evicted has to let go.
    /// `None` for half a second when it is asked, and two when it is evicted.
    pub grace: Option<Duration>,
    /// Reset the device before its use when its last holder died while streaming.
    pub reset_after_dirty_exit: bool,
    /// Told when somebody asks for this camera.
    pub on_ask: Option<OnAsk>,
    pub access: Access,
}

/// Whether a camera is to be this process's alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// The camera itself; `shared:NAME` attaches all the same.
    #[default]
    Exclusive,
    /// Attached to it where it is shared; else it is shared from now on, by a process of its own, until its last user has
    /// gone.
    Shared,
    /// Attached to it where it is shared, to look at its frames and nothing else.
    Monitor,
}

/// What an open does about a camera that somebody else has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBusy {
    /// Waits.
    #[default]
    Wait,
    /// Asks the holder to hand it over, and waits.
    Ask,
    /// Asks the holder, ends it if need be, and waits.
    Evict,
}

impl Default for OpenOptions<'_> {
    fn default() -> Self {
        OpenOptions {
            timeout: Some(policy::OPEN_TIMEOUT),
            wait_for_device: false,
            cancel: None,
            on_wait: None,
            name: String::new(),
            on_busy: OnBusy::Wait,
            priority: 0,
            grace: None,
            reset_after_dirty_exit: false,
            on_ask: None,
            access: Access::Exclusive,
        }
    }
}

/// Counters since the camera was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    pub frames: u64,
    /// Frames that the camera made and the host did not get, from gaps in the sequence numbers.
    pub dropped: u64,
    pub corrupt: u64,
    pub open_attempts: u64,
    pub busy_wait_ns: u64,
    pub resets: u64,
    pub stalls: u64,
    pub reconnects: u64,
    /// Frames with the host now, and the bytes of the buffers that they keep.
    pub frames_out: u64,
    pub bytes_out: u64,
    /// Frames of a shared camera that were published and not taken yet.
    pub behind: u64,
}

/// A camera that is held. Dropping it closes it.
pub struct Camera {
    shared: Arc<Shared>,
    token: Token,
}

pub(crate) struct Shared {
    /// What it was opened by.
    uri: String,
    identity: Identity,
    holder_name: String,
    priority: i32,
    on_ask: Option<OnAsk>,
    epoch: u64,
    /// Its place in the order of opens.
    number: u64,
    /// Why the camera ended: 0 while it has not, else 1 + the index in [`ENDS`], or [`SIGNALLED`] + the signal.
    ended: AtomicU8,
    /// Signalled for good when the camera has ended, and for a moment when the stream stops.
    wake: Event,
    /// Threads that wait for a frame. Rises only while the stream's lock is held.
    waiting: AtomicU32,
    /// Descriptor for the host's own loop: the stream's and `wake`.
    ready: Arc<Epoll>,
    stream: Mutex<Running>,
    device: RwLock<Option<Box<dyn Device>>>,
    /// Counts starts: a frame belongs to one of them. Changes only while the stream's lock is held.
    round: AtomicU64,
    /// What others are told. Taken after all others but `share`, and not held while a doorbell is waited for.
    lease: Mutex<Option<Lease>>,
    /// Who the camera was handed over to, in words.
    handed_to: Mutex<String>,
    /// Why it is gone, where a reset lost it.
    lost: Mutex<String>,
    /// Ends the wait of the thread that wants it back.
    regaining: Mutex<Option<Arc<Event>>>,
    counters: Counters,
    /// Who gives its frames to others, where it is shared. Taken last, and not held while anything is waited for.
    share: Mutex<Option<Share>>,
    /// The stream is the share's, and not the host's.
    is_shared: AtomicBool,
    /// The share's thread streams. Changes only while the share's lock is held.
    share_streams: AtomicBool,
    _spent: Option<Inotify>,
}

/// The stream, if there is one. Taken before `device` where both are.
#[derive(Default)]
struct Running {
    stream: Option<Box<dyn Stream>>,
    /// What the running stream was asked for.
    request: StreamRequest,
    last_sequence: Option<u64>,
    /// What the running, or else the last, stream was set to.
    format: StreamFormat,
}

#[derive(Default)]
struct Counters {
    frames: AtomicU64,
    dropped: AtomicU64,
    corrupt: AtomicU64,
    open_attempts: AtomicU64,
    busy_wait_ns: AtomicU64,
    resets: AtomicU64,
    reconnects: AtomicU64,
    frames_out: AtomicU64,
    bytes_out: AtomicU64,
    /// As it was told last.
    behind: AtomicU64,
}

const ENDS: [Kind; 4] = [Kind::Closed, Kind::ShutDown, Kind::Evicted, Kind::Disconnected];
const SIGNALLED: u8 = 128;

/// Whether an end is for good. A camera that was handed over, or is gone, may be regained.
fn is_final(end: u8) -> bool {
    end == 1 || end == 2 || end >= SIGNALLED
}

static OPENED: AtomicU64 = AtomicU64::new(0);

/// All cameras of this process, for exit and shutdown. A child sees its parent's as well, and leaves
/// them alone.
static LIVE: Slab<Weak<Shared>> = Slab::new(2);

fn live() -> impl Iterator<Item = Arc<Shared>> {
    LIVE.each().filter_map(|(_, camera)| camera.upgrade()).filter(|camera| camera.epoch == fork::epoch())
}

impl Camera {
    /// Opens a camera by name, waiting for it where somebody else has it.
    pub fn open<'a>(uri: &'a str, options: OpenOptions<'a>) -> Result<Camera> {
        let _inside = signals::inside();
        let _opening = acquire::Opening::begin();
        acquire::refuse_when_shut_down(uri)?;
        exit::watch();
        let mut source = access::source(uri, &options)?;
        let petition = |must| Petition {
            name: options.name.clone(),
            priority: options.priority,
            must,
            grace: options.grace.unwrap_or(policy::HAND_OVER_GRACE),
        };
        let mut lease = None;
        let (name, priority) = (options.name.clone(), options.priority);
        let mut prepare = |source: &dyn Source| {
            // One that cannot be made ready now is tried again when the camera is there.
            if options.access == Access::Exclusive
                && let [filing] = &source.filings()[..]
            {
                lease = Lease::prepare(filing, &name, priority).ok();
            }
        };
        let wait = Wait {
            prepare: Some(&mut prepare),
            timeout: options.timeout,
            for_device: options.wait_for_device,
            after_reset: false,
            cancel: options.cancel,
            on_wait: options.on_wait,
            ask: (options.on_busy != OnBusy::Wait).then(|| petition(options.on_busy == OnBusy::Evict)),
            evict: (options.on_busy == OnBusy::Evict).then(|| options.grace.unwrap_or(policy::EVICTION_GRACE)),
        };
        let got = acquire(uri, source.as_mut(), wait)
            .map_err(|error| name_camera(uri, error, format_args!("opening {uri}")))?;
        let fail = |e| Error::system(format!("{uri}: creating its descriptors"), e);
        let (wake, ready) = (Event::new().map_err(fail)?, Epoll::new().map_err(fail)?);
        ready.add(wake.fd()).map_err(fail)?;
        let shared = Arc::new(Shared {
            uri: uri.to_owned(),
            identity: got.device.identity().clone(),
            holder_name: options.name,
            priority: options.priority,
            on_ask: options.on_ask,
            epoch: fork::epoch(),
            number: OPENED.fetch_add(1, Ordering::Relaxed),
            ended: AtomicU8::new(0),
            wake,
            waiting: AtomicU32::new(0),
            ready: Arc::new(ready),
            stream: Mutex::default(),
            device: RwLock::new(Some(got.device)),
            round: AtomicU64::new(0),
            lease: Mutex::default(),
            handed_to: Mutex::default(),
            lost: Mutex::default(),
            regaining: Mutex::default(),
            counters: Counters::default(),
            share: Mutex::default(),
            is_shared: AtomicBool::new(false),
            share_streams: AtomicBool::new(false),
            _spent: got.spent,
        });
        shared.counters.open_attempts.store(got.attempts, Ordering::Relaxed);
        shared.counters.busy_wait_ns.store(got.waited.as_nanos() as u64, Ordering::Relaxed);
        shared.file_lease(lease);
        let token = LIVE
            .insert(Arc::downgrade(&shared))
            .map_err(|_| Error::new(Kind::Internal, format!("{uri}: a million cameras are open already")))?;
        // Either a shutdown sees this camera now, or it is seen here.
        fence(Ordering::SeqCst);
        let camera = Camera { shared, token };
        // A shutdown that ran meanwhile did not see it.
        acquire::refuse_when_shut_down(uri)?;
        if options.reset_after_dirty_exit {
            camera.reset_after_dirty_exit()?;
        }
        Ok(camera)
    }

    /// Lets the camera go. Frames that are out stay readable. Waiting calls return.
    pub fn close(&self) {
        let _inside = signals::inside();
        // A child leaves its parent's camera alone: it let go of it at the fork.
        let shared = &self.shared;
        if shared.epoch != fork::epoch() {
            return;
        }
        shared.mark_ended(Kind::Closed);
        let patience = Instant::now() + policy::HAND_OVER_END;
        if let Some(share) = shared.take_share() {
            share.end_by(patience);
        }
        if let Some(bell) = shared.take_bell() {
            bell.end_by(patience);
        }
        let device = shared.take_device(None, false);
        // First: another holder's lease must not stand beside it.
        drop(shared.take_lease());
        drop(device);
    }

    pub fn priority(&self) -> i32 {
        self.shared.priority
    }

    /// How the holder before this one ended.
    pub fn last_exit(&self) -> LastExit {
        timed::lock(&self.shared.lease).as_ref().map(Lease::last_exit).unwrap_or_default()
    }

    /// Gets a camera back that was handed over to somebody else, or that is gone: waits until it is free. Closing it
    /// from another thread ends the wait.
    pub fn regain(&self, timeout: Option<Duration>) -> Result<()> {
        let _inside = signals::inside();
        let _opening = acquire::Opening::begin();
        self.shared.is_the_hosts()?;
        self.shared.regain_within(timeout)
    }

    pub fn identity(&self) -> &Identity {
        &self.shared.identity
    }

    /// What this holder called itself when it opened the camera.
    pub fn holder_name(&self) -> &str {
        &self.shared.holder_name
    }

    pub fn formats(&self) -> Result<Vec<Format>> {
        self.shared.with_device(|device| device.formats())
    }

    pub fn controls(&self) -> Result<Vec<Control>> {
        self.shared.with_device(|device| device.controls())
    }

    pub fn control(&self, id: u32) -> Result<i64> {
        self.shared.with_device(|device| device.control(id))
    }

    pub fn set_control(&self, id: u32, value: i64) -> Result<()> {
        self.shared.with_device(|device| device.set_control(id, value))
    }

    /// Starts streaming; what the driver gave comes back.
    pub fn start(&self, request: &StreamRequest) -> Result<StreamFormat> {
        let _inside = signals::inside();
        self.shared.start(request, Shared::is_the_hosts)
    }

    /// Stops streaming; the camera stays held. Frames that are out stay readable.
    pub fn stop(&self) -> Result<()> {
        let _inside = signals::inside();
        self.shared.stop(Shared::is_the_hosts)
    }

    /// What the stream is set to, and whether it runs; all 0 before the first start.
    pub fn stream_format(&self) -> (StreamFormat, bool) {
        let _inside = signals::inside();
        let running = timed::lock(&self.shared.stream);
        (running.format.clone(), running.stream.is_some())
    }

    /// The next frame, waiting up to `timeout` (`None`: without end) for it.
    pub fn next_frame(&self, timeout: Option<Duration>) -> Result<Frame> {
        let _inside = signals::inside();
        self.shared.is_the_hosts()?;
        self.shared.next_frame(timeout)
    }

    /// Readable when a frame can be had, and when the camera has ended. Valid until it is closed.
    pub fn fd(&self) -> Result<RawFd> {
        self.shared.check()?;
        Ok(self.shared.ready.fd())
    }

    pub fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        // A thread that is inside a driver keeps the stream: whoever looks because of that is to see the rest.
        if let Some(running) = timed::lock_by(&self.shared.stream, Some(Instant::now() + policy::GLANCE)) {
            let behind = running.stream.as_ref().map_or(0, |stream| stream.behind());
            counters.behind.store(behind, Ordering::Relaxed);
        }
        // First: of frames that come meanwhile, none is out that is not counted.
        let frames_out = counters.frames_out.load(Ordering::Acquire);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            frames: read(&counters.frames),
            dropped: read(&counters.dropped),
            corrupt: read(&counters.corrupt),
            open_attempts: read(&counters.open_attempts),
            busy_wait_ns: read(&counters.busy_wait_ns),
            resets: read(&counters.resets),
            reconnects: read(&counters.reconnects),
            frames_out,
            bytes_out: read(&counters.bytes_out),
            behind: read(&counters.behind),
            ..Stats::default()
        }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        self.close();
        LIVE.remove(self.token);
    }
}

impl Shared {
    /// Whether calls may still use the camera.
    fn check(&self) -> Result<()> {
        let end = self.ended.load(Ordering::SeqCst);
        if self.epoch == fork::epoch() && end == 0 { Ok(()) } else { Err(self.refusal(end)) }
    }

    /// Why calls may not use a camera that ended this way; another thread may regain it in the same moment.
    #[cold]
    fn refusal(&self, end: u8) -> Error {
        let uri = &self.identity.uri;
        if self.epoch != fork::epoch() || end == 0 {
            return Error::new(Kind::Forked, format!("{uri}: this camera belongs to the parent process"))
                .hint("open it in this process, once the parent has closed it");
        }
        if end >= SIGNALLED {
            let signal = signals::name((end - SIGNALLED).into());
            return Error::new(Kind::Closed, format!("{uri}: the camera was released because of {signal}"))
                .hint("close it; it can be opened again if the program is to go on");
        }
        let kind = ENDS[usize::from(end) - 1];
        let error = |words: &str| Error::new(kind, format!("{uri}: the camera {words}"));
        match kind {
            Kind::Closed => error("was closed"),
            Kind::ShutDown => error("was closed because the library was shut down"),
            Kind::Evicted => error(&format!("was handed over to {}", timed::lock(&self.handed_to)))
                .hint("close it, or wait until it is free again (camlease_camera_regain)"),
            _ => match timed::lock(&self.lost).clone() {
                reason if reason.is_empty() => error("is gone"),
                reason => Error::new(kind, reason),
            }
            .hint("close it, or wait until it is back (camlease_camera_regain)"),
        }
    }

    /// How the camera was lost that is to be regained.
    fn loss(&self) -> Result<u8> {
        match self.ended.load(Ordering::SeqCst) {
            end if self.epoch != fork::epoch() || is_final(end) => Err(self.refusal(end)),
            0 => Err(self.wrong_state("it is held; only a camera that was handed over or is gone can be regained")),
            end => Ok(end),
        }
    }

    fn wrong_state(&self, why: &str) -> Error {
        Error::new(Kind::WrongState, format!("{}: {why}", self.identity.uri))
    }

    fn lock_stream(&self) -> Result<MutexGuard<'_, Running>> {
        self.check()?;
        let running = timed::lock(&self.stream);
        self.check()?; // it may have ended while this thread waited for the lock
        Ok(running)
    }

    /// The same for one who may not always do so: the host of a shared camera does not wait for the thread that streams,
    /// and one who comes while it is about to be shared does so before or not at all.
    fn lock_stream_of(&self, may: impl Fn(&Self) -> Result<()>) -> Result<MutexGuard<'_, Running>> {
        may(self)?;
        let running = self.lock_stream()?;
        may(self)?;
        Ok(running)
    }

    fn running<'a>(&self, running: &'a mut Running) -> Result<&'a mut Box<dyn Stream>> {
        running.stream.as_mut().ok_or_else(|| self.wrong_state("it does not stream").hint("start it first"))
    }

    fn start(&self, request: &StreamRequest, may: impl Fn(&Self) -> Result<()>) -> Result<StreamFormat> {
        check_request(&self.identity.uri, request)?;
        let mut running = self.lock_stream_of(may)?;
        if running.stream.is_some() {
            return Err(self.wrong_state("it streams already").hint("stop it first"));
        }
        // Before the driver streams, and not after: one that is killed in between is to be told of as streaming.
        self.tell_streaming(true);
        let started = self.with_device(|device| device.start(request));
        let stream = started.inspect_err(|_| self.tell_streaming(false)).map_err(|error| match error.kind() {
            Kind::Busy => error.hint(holders(&self.identity.uri).map(|all| all.to_string()).unwrap_or_default()),
            _ => name_camera(&self.identity.uri, error, &self.identity.uri),
        })?;
        self.begin_stream(&mut running, stream, request)?;
        Ok(running.format.clone())
    }

    fn stop(&self, may: impl Fn(&Self) -> Result<()>) -> Result<()> {
        let mut running = self.lock_stream_of(may)?;
        let mut stream = running.stream.take().ok_or_else(|| self.wrong_state("it does not stream"))?;
        stream.unwatch(&self.ready);
        self.send_waiters_away(None);
        let stopped = stream.stop();
        self.tell_streaming(false);
        stopped
    }

    fn next_frame(self: &Arc<Self>, timeout: Option<Duration>) -> Result<Frame> {
        let begun = Instant::now();
        let mut left = timeout;
        loop {
            let in_time = left != Some(Duration::ZERO) && {
                let mut running = self.lock_stream()?;
                if let Some(filled) = self.running(&mut running)?.at_hand()? {
                    return Ok(self.frame(&mut running, filled));
                }
                // Counted before the lock is given up: whoever ends the stream waits for it.
                let waiting = self.begin_to_wait();
                drop(running);
                waiting.up_to(left)?
            };
            let mut running = self.lock_stream()?;
            if let Some(filled) = self.running(&mut running)?.dequeue(timeout != Some(Duration::ZERO))? {
                return Ok(self.frame(&mut running, filled));
            }
            if !in_time {
                return Err(self.late(&running, timeout));
            }
            drop(running);
            left = timeout.map(|timeout| timeout.saturating_sub(begun.elapsed()));
        }
    }

    fn late(&self, running: &Running, timeout: Option<Duration>) -> Error {
        if let Some(trouble) = running.stream.as_ref().and_then(|stream| stream.trouble()) {
            return trouble;
        }
        let uri = &self.identity.uri;
        let waited = timeout.unwrap_or_default().as_millis();
        let error = Error::new(Kind::Timeout, format!("{uri}: no frame came within {waited} ms"));
        let out = self.counters.frames_out.load(Ordering::Relaxed);
        let buffers = running.format.buffers;
        match out >= u64::from(buffers) {
            true => error.hint(format!(
                "all {buffers} buffers are out with the host: release frames, or start with more buffers"
            )),
            false => error.hint("the camera may have stalled, or be slower than the timeout"),
        }
    }

    /// Hands frames of a stream that has just begun to the host.
    fn begin_stream(&self, running: &mut Running, mut stream: Box<dyn Stream>, request: &StreamRequest) -> Result<()> {
        if let Err(error) = stream.watch(&self.ready) {
            let _ = stream.stop(); // dropping it alone would leave the driver streaming
            return Err(Error::system(format!("{}: watching it", self.identity.uri), error));
        }
        self.clear_wake();
        self.round.fetch_add(1, Ordering::Relaxed);
        running.last_sequence = None;
        running.format = stream.format().clone();
        running.request = request.clone();
        running.stream = Some(stream);
        Ok(())
    }

    fn with_device<T>(&self, call: impl FnOnce(&dyn Device) -> Result<T>) -> Result<T> {
        let _inside = signals::inside();
        self.check()?;
        let device = timed::read(&self.device);
        match device.as_ref() {
            // A wait that the camera's end ended says why that was.
            Some(device) => call(device.as_ref()).map_err(|error| match error.kind() {
                Kind::Closed => self.check().err().unwrap_or(error),
                _ => error,
            }),
            None => Err(self.check().err().unwrap_or_else(|| self.wrong_state("it was let go"))),
        }
    }

    fn clear_wake(&self) {
        self.wake.clear();
        if self.ended.load(Ordering::SeqCst) != 0 {
            self.wake.signal(); // it ended in between, and must stay readable
        }
    }

    fn begin_to_wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waiting { camera: self }
    }

    /// Wakes those who wait for a frame, and waits until they have left. Called with the stream's lock, so that no
    /// other comes.
    fn send_waiters_away(&self, deadline: Option<Instant>) {
        while self.waiting.load(Ordering::SeqCst) > 0 && deadline.is_none_or(|at| Instant::now() < at) {
            self.wake.signal();
            std::thread::sleep(policy::TIGHT_STEP);
        }
        if self.ended.load(Ordering::SeqCst) == 0 {
            self.clear_wake();
        }
    }

    fn frame(self: &Arc<Self>, running: &mut Running, filled: Filled) -> Frame {
        let (sequence, corrupt) = (filled.sequence, filled.corrupt);
        if let Some(stream) = running.stream.as_mut()
            && stream.has_new_format()
        {
            running.format = stream.format().clone();
        }
        let lost = running.last_sequence.map_or(0, |last| sequence.saturating_sub(last + 1));
        running.last_sequence = Some(sequence);
        let frame = Frame::new(self.clone(), self.round.load(Ordering::Relaxed), &running.format, filled);
        let counters = &self.counters;
        counters.frames.fetch_add(1, Ordering::Relaxed);
        counters.dropped.fetch_add(lost, Ordering::Relaxed);
        counters.corrupt.fetch_add(corrupt.into(), Ordering::Relaxed);
        // Who sees it out sees it counted.
        counters.frames_out.fetch_add(1, Ordering::Release);
        counters.bytes_out.fetch_add(frame.memory(), Ordering::Relaxed);
        frame
    }

    /// A frame is released: its buffer goes back to the stream that it came from, if that still runs.
    /// Else its memory goes with the last reference to it.
    pub(crate) fn take_back(&self, round: u64, memory: u64, filled: &Filled) {
        let _inside = signals::inside();
        self.counters.frames_out.fetch_sub(1, Ordering::Relaxed);
        self.counters.bytes_out.fetch_sub(memory, Ordering::Relaxed);
        // A frame of an earlier stream has nothing to give back, and a reset has the lock for seconds.
        if self.round.load(Ordering::Relaxed) != round {
            return;
        }
        let mut running = timed::lock(&self.stream);
        if self.round.load(Ordering::Relaxed) != round {
            return;
        }
        let Some(stream) = running.stream.as_mut() else { return };
        filled.buffer.take_back();
        if let Err(error) = stream.requeue(filled.index) {
            // The camera is gone or its queue broke: the next call for a frame says so.
            log::debug!("{}: {error}", self.identity.uri);
        }
    }

    /// The camera has ended, for the reason that came first, or for good. Calls that wait return. False when it had
    /// ended before.
    fn mark_ended(&self, why: Kind) -> bool {
        self.mark(1 + ENDS.iter().position(|kind| *kind == why).unwrap_or(0) as u8)
    }

    fn mark(&self, end: u8) -> bool {
        let may = |now| now == 0 || is_final(end) && !is_final(now);
        let set = |now| may(now).then_some(end);
        let marked = self.ended.fetch_update(Ordering::SeqCst, Ordering::SeqCst, set).is_ok();
        if let Some(regaining) = timed::lock(&self.regaining).as_ref().filter(|_| is_final(end)) {
            regaining.signal();
        }
        self.wake.signal();
        // One who comes second may not get the lock: whoever was first has told the device.
        if let Ok(device) = self.device.try_read()
            && let Some(device) = device.as_ref()
        {
            device.end();
        }
        marked
    }

    /// Tells others who holds the camera, by a lease that was made ready where there is one. A camera of which others
    /// cannot be told is held all the same.
    fn file_lease(self: &Arc<Self>, ready: Option<Lease>) {
        let Some(filing) = timed::read(&self.device).as_ref().and_then(|device| device.filing()) else { return };
        let ready = match ready {
            Some(lease) if *lease.filing() == filing => Ok(lease),
            _ => Lease::prepare(&filing, &self.holder_name, self.priority),
        };
        // Locked until it is in its place: whoever asks at once must not have the camera handed over beside a lease
        // that nobody withdraws.
        let mut place = timed::lock(&self.lease);
        match ready {
            Ok(mut lease) => {
                let door: Weak<dyn Door> = Arc::<Shared>::downgrade(self);
                lease.hold(door);
                self.tell_share_in(&lease);
                *place = Some(lease);
            }
            Err(error) => log::warn!("{}: others cannot be told who holds it: {error}", self.uri),
        }
        drop(place);
        // Whoever closed it meanwhile may have found no lease to give up.
        if is_final(self.ended.load(Ordering::SeqCst)) {
            drop(self.take_lease());
        }
    }

    fn tell_streaming(&self, streaming: bool) {
        if let Some(lease) = timed::lock(&self.lease).as_ref() {
            lease.set_streaming(streaming);
        }
    }

    /// What others were told: dropping it withdraws it. Not to be dropped under the lock, as that may wait for a
    /// doorbell which wants it.
    fn take_lease(&self) -> Option<Lease> {
        timed::lock(&self.lease).take()
    }

    /// Tells others by what the camera is known now.
    fn refile_lease(self: &Arc<Self>) {
        let former = self.take_lease().map(|lease| lease.last_exit());
        self.file_lease(None);
        if let (Some(last_exit), Some(lease)) = (former, timed::lock(&self.lease).as_mut()) {
            lease.go_on_after(last_exit);
        }
        self.tell_streaming(timed::lock(&self.stream).stream.is_some());
    }

    fn take_bell(&self) -> Option<Doorbell> {
        timed::lock(&self.lease).as_mut().and_then(Lease::take_bell)
    }

    fn regain_within(self: &Arc<Self>, timeout: Option<Duration>) -> Result<()> {
        self.loss()?;
        let cancel = Arc::new(Event::new().map_err(|e| Error::system(format!("{}: regaining it", self.uri), e))?);
        let end = {
            let mut regaining = timed::lock(&self.regaining);
            if regaining.is_some() {
                return Err(self.wrong_state("another thread waits to regain it already"));
            }
            // Again: that thread may have got it back just now, and a wait for one's own camera does not end.
            let end = self.loss()?;
            *regaining = Some(cancel.clone());
            end
        };
        let regained = self.regain(end, timeout, &cancel);
        *timed::lock(&self.regaining) = None;
        regained
    }

    /// Gets the camera back that ended that way.
    fn regain(self: &Arc<Self>, end: u8, timeout: Option<Duration>, cancel: &Event) -> Result<()> {
        let now = self.ended.load(Ordering::SeqCst);
        if is_final(now) {
            return Err(self.refusal(now)); // closed before there was a wait to end
        }
        let gone = ENDS[usize::from(end) - 1] == Kind::Disconnected;
        // The name that it was opened by may fit another camera as well, or find it where it is now.
        let name = if gone { &self.uri } else { &self.identity.uri };
        let mut source = backend::source(&Uri::parse(name)?)?;
        let wait = Wait { for_device: gone, cancel: Some(cancel), ..Wait::quietly(timeout) };
        let got = acquire(&self.uri, source.as_mut(), wait)
            .map_err(|error| name_camera(&self.uri, error, format_args!("regaining {}", self.uri)))?;
        let who = |camera: &Identity| (camera.serial.clone(), camera.bus.clone(), camera.name.clone());
        if who(got.device.identity()) != who(&self.identity) {
            let now = &got.device.identity().name;
            return Err(Error::new(Kind::NotFound, format!("{}: it is another camera by now ({now})", self.uri))
                .hint("close this one, and open the other by its own name"));
        }
        // That of the hand-over, which may still be saying good-bye.
        drop(self.take_lease());
        timed::lock(&self.lost).clear();
        let running = timed::lock(&self.stream);
        *timed::write(&self.device) = Some(got.device);
        if let Err(now) = self.ended.compare_exchange(end, 0, Ordering::SeqCst, Ordering::SeqCst) {
            // Closed meanwhile, perhaps before the device was there to be taken.
            drop(timed::write(&self.device).take());
            return Err(self.refusal(now));
        }
        self.clear_wake();
        drop(running);
        self.file_lease(None);
        self.tell_streaming(timed::lock(&self.stream).stream.is_some());
        self.counters.reconnects.fetch_add(1, Ordering::Relaxed);
        self.counters.busy_wait_ns.fetch_add(got.waited.as_nanos() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The device of an ended camera, the stream ended: in order, where somebody else goes on with the device. `None`
    /// where there is none any more; an error when a thread is inside the driver until after the deadline: no more can be
    /// done than wait for it.
    fn take_device(
        &self,
        deadline: Option<Instant>,
        in_order: bool,
    ) -> std::result::Result<Option<Box<dyn Device>>, Hangs> {
        let mut running = timed::lock_by(&self.stream, deadline).ok_or(Hangs)?;
        self.send_waiters_away(deadline);
        if let Some(mut stream) = running.stream.take() {
            stream.unwatch(&self.ready);
            if in_order && let Err(error) = stream.stop() {
                log::warn!("{}: {error}", self.identity.uri);
            }
        }
        let mut device = timed::write_by(&self.device, deadline).ok_or(Hangs)?;
        Ok(device.take())
    }
}

impl Door for Shared {
    fn asked(&self, asker: &Asker) -> Verdict {
        if self.check().is_err() {
            return Verdict::Gone;
        }
        let asker = Asker { must: asker.must || asker.priority > self.priority, ..asker.clone() };
        // Told before it is lost: the host may want to do something with it yet.
        let answer = self.on_ask.as_ref().map_or(Answer::ByPriority, |told| told(&asker));
        if !asker.must && answer == Answer::ByPriority {
            let (own, other) = (self.priority, asker.priority);
            return Verdict::Keep(format!("its priority is {own}, and the one who asks has {other}"));
        }
        *timed::lock(&self.handed_to) = asker.to_string();
        match self.mark_ended(Kind::Evicted) {
            true => Verdict::Yield,
            false => Verdict::Gone,
        }
    }

    fn hand_over(&self, deadline: Instant) -> HandedOver {
        let finishes = || self.counters.frames_out.load(Ordering::Relaxed) > 0;
        let is_over = || Instant::now() >= deadline || is_final(self.ended.load(Ordering::SeqCst));
        while finishes() && !is_over() {
            std::thread::sleep(policy::LEAVE_STEP);
        }
        // A thread that is inside the driver is waited for: nobody else lets the camera go, but a close.
        let device = loop {
            match self.take_device(Some(Instant::now() + policy::HAND_OVER_END), true) {
                Ok(device) => break device,
                Err(Hangs) if is_final(self.ended.load(Ordering::SeqCst)) => break None,
                Err(Hangs) => {}
            }
        };
        // First: the next holder files its own at once.
        if let Some(lease) = timed::lock(&self.lease).as_mut() {
            lease.withdraw();
        }
        device.and_then(|device| device.hand_over()).map_or(HandedOver::Free, HandedOver::Camera)
    }
}

/// A driver does not return.
struct Hangs;

/// A thread that is about to wait for a frame, or does.
struct Waiting<'a> {
    camera: &'a Shared,
}

impl Waiting<'_> {
    /// Waits until the stream may have something; false when the time is up.
    ///
    /// One descriptor to wait on costs less than two, and epoll, unlike poll, keeps no hold of the device's open file
    /// while it waits: a close meanwhile closes it.
    fn up_to(self, timeout: Option<Duration>) -> Result<bool> {
        let seen = self.camera.ready.wait(timeout);
        seen.map_err(|e| Error::system(format!("{}: waiting for a frame", self.camera.identity.uri), e))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.camera.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Closes every camera of this process, all together by `timeout`, and lets none be opened after.
/// Calls that wait return `Kind::ShutDown`. False when a driver hung for longer.
pub fn shut_down(timeout: Duration) -> bool {
    let _inside = signals::inside();
    // Before any is woken, which may then be on its way out and counted no more.
    let are_left = || exit::others_visit() || acquire::others_wait() || worker::are_left();
    let were_there = are_left();
    acquire::shut_down();
    let deadline = Instant::now() + timeout;
    let cameras: Vec<_> = live().collect();
    for camera in &cameras {
        camera.mark_ended(Kind::ShutDown);
    }
    let hanging = let_go(&cameras, Duration::ZERO, deadline, &|_| ());
    hanging.iter().for_each(|uri| log::error!("{uri}: its driver hangs; the kernel lets go of it when it returns"));
    if were_there || are_left() {
        // An unload takes the code away beneath the threads that are in it: they get the time to return.
        while are_left() && Instant::now() < deadline {
            std::thread::sleep(policy::LEAVE_STEP);
        }
        std::thread::sleep(policy::LEAVE_GRACE);
    }
    hanging.is_empty()
}

/// Closes every camera of this process because of a signal, the last one opened first, all by `deadline`. Calls that
/// wait return `Kind::Closed`. Told when it begins to wait for the kernel alone, and when that ends. The cameras whose
/// drivers hung for longer.
pub fn release(signal: i32, deadline: Instant, in_kernel: &dyn Fn(bool)) -> Vec<String> {
    let opens = acquire::Release::begin(signal);
    let mut cameras: Vec<_> = live().collect();
    cameras.sort_unstable_by_key(|camera| std::cmp::Reverse(camera.number));
    for camera in &cameras {
        camera.mark(SIGNALLED + signal as u8);
    }
    let hanging = let_go(&cameras, policy::RELEASE_TURN, deadline, in_kernel);
    // Those see the signal, and let go of what they have got.
    while opens.opens_under_way() && Instant::now() < deadline {
        std::thread::sleep(policy::TIGHT_STEP);
    }
    hanging
}

/// Lets ended cameras go, in this order, and gives those that hang. Where there are turns, one that hangs takes no more
/// than its turn from the others; without, all begin to close before any is waited for.
fn let_go(cameras: &[Arc<Shared>], turn: Duration, deadline: Instant, in_kernel: &dyn Fn(bool)) -> Vec<String> {
    // Hand-overs that are under way are finished first, all at the same time.
    let shares: Vec<_> = cameras.iter().filter_map(|camera| camera.take_share_by(deadline)).collect();
    shares.iter().for_each(Share::stop);
    let bells: Vec<_> = cameras.iter().filter_map(|camera| camera.take_bell()).collect();
    bells.iter().for_each(Doorbell::stop);
    // A callback that does not return takes no more than that from the others.
    let patience = deadline.min(Instant::now() + if turn.is_zero() { policy::HAND_OVER_END } else { turn });
    for share in shares {
        share.end_by(patience);
        in_kernel(false); // a step
    }
    for bell in bells {
        bell.end_by(patience);
        in_kernel(false); // a step
    }
    let begin = |camera: &Arc<Shared>, by: Instant| {
        let device = camera.take_device(Some(by), false)?;
        in_kernel(false);
        // First: another holder's lease must not stand beside it.
        drop(camera.take_lease());
        in_kernel(false);
        let mut closing = device.and_then(|device| device.let_go());
        in_kernel(true);
        if let Some(closing) = &mut closing {
            closing.is_closed_by(deadline.min(Instant::now() + turn));
        }
        in_kernel(false);
        Ok(closing)
    };
    let by = || if turn.is_zero() { deadline } else { deadline.min(Instant::now() + turn) };
    let closing: Vec<std::result::Result<_, Hangs>> = cameras.iter().map(|camera| begin(camera, by())).collect();
    let mut hanging = Vec::new();
    for (camera, closing) in cameras.iter().zip(closing) {
        let closing = closing.or_else(|_| begin(camera, deadline));
        in_kernel(true);
        let in_time = closing.is_ok_and(|closing| closing.is_none_or(|closing| closing.end_by(deadline)));
        in_kernel(false);
        if !in_time {
            hanging.push(camera.identity.uri.clone());
        }
    }
    hanging
}

/// What a camera offers, whoever has it.
pub fn formats(uri: &str) -> Result<Vec<Format>> {
    backend::source(&Uri::parse(uri)?)?.formats().map_err(|error| name_camera(uri, error, uri))
}

/// Who holds a camera, by its name.
pub fn holders(uri: &str) -> Result<Holders> {
    Ok(lease::holders(backend::source(&Uri::parse(uri)?)?.as_ref()))
}

/// A failure names the camera that was asked for, even where the message names its node, or none.
fn name_camera(uri: &str, error: Error, context: impl std::fmt::Display) -> Error {
    let named =
        error.message().contains(uri) || uri.strip_prefix("v4l2:").is_some_and(|path| error.message().contains(path));
    if named { error } else { error.context(context) }
}

fn check_request(uri: &str, request: &StreamRequest) -> Result<()> {
    let Rate { numerator, denominator } = request.rate;
    let complaint = if (numerator == 0) != (denominator == 0) {
        format!("a frame rate of {numerator}/{denominator} is none; give both parts, or neither for the device's own")
    } else if request.buffers > policy::BUFFERS_MOST {
        format!("{} buffers are more than the {} that a V4L2 queue has", request.buffers, policy::BUFFERS_MOST)
    } else {
        return Ok(());
    };
    Err(Error::new(Kind::InvalidArgument, format!("{uri}: {complaint}")))
}
