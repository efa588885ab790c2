//! Getting a camera that somebody else may have: wake by the kernel's notice that the holder let go,
//! try again at once and for as long as the driver still needs, and poll slowly beneath for the
//! release that gives no notice.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::time::{Duration, Instant};

use crate::backend::{Device, Notice, Source};
use crate::error::{Error, Kind, Result};
use crate::evict::{EvictOptions, Outcome, evict_holders};
use crate::holders::Holders;
use crate::kernel::{Event, Inotify, poll, readable};
use crate::lease::{self, Ask, Found, Petition, Progress};
use crate::policy;
use crate::slab::{Slab, Token};
use crate::{fork, signals};

/// Told who holds a camera when a wait for it begins, and again when that changes: in words, and as a list.
pub type OnWait<'a> = &'a mut dyn FnMut(&str, &Holders);

/// Makes ready what a camera that is waited for will need.
pub type Prepare<'b> = &'b mut dyn FnMut(&dyn Source);

/// How an open waits.
pub struct Wait<'a, 'b> {
    /// `None` waits without end; zero tries once.
    pub timeout: Option<Duration>,
    /// Wait for a camera that is not there at all, too.
    pub for_device: bool,
    /// The camera was reset: until it is back for good, any failure may be one that passes.
    pub after_reset: bool,
    /// Ends the wait when it is signalled.
    pub cancel: Option<&'a Event>,
    pub on_wait: Option<OnWait<'a>>,
    /// Called once when the wait begins, for what can be made ready meanwhile.
    pub prepare: Option<Prepare<'b>>,
    /// Holders are asked to hand the camera over, with these words.
    pub ask: Option<Petition>,
    /// A holder that is asked in vain, or cannot be asked, is ended after this grace.
    pub evict: Option<Duration>,
}

impl Wait<'_, '_> {
    /// Waits, and does nothing about those who have the camera.
    pub fn quietly(timeout: Option<Duration>) -> Self {
        Wait {
            timeout,
            for_device: false,
            after_reset: false,
            cancel: None,
            on_wait: None,
            prepare: None,
            ask: None,
            evict: None,
        }
    }
}

/// A camera that was got, and what it took.
pub struct Acquired {
    pub device: Box<dyn Device>,
    pub attempts: u64,
    pub waited: Duration,
    /// What the wait was woken by, without use now. Closing it at once would hold the camera's opener up.
    pub spent: Option<Inotify>,
}

/// One event for each wait that is under way, for shutdown.
static WAITS: Slab<Arc<Event>> = Slab::new(1);
static SHUT_DOWN: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// How many waits this thread is in: an `on_wait` may end the process, or open another camera.
    static OWN_WAITS: Cell<usize> = const { Cell::new(0) };
}

/// The opens that are under way, for a release on a signal.
static OPENS: Slab<Open> = Slab::new(13);
/// Releases on signals so far, and the signal of the last: `[count][signal: 8 bits]`.
static RELEASES: AtomicU64 = AtomicU64::new(0);
/// The process, by its epoch, in which one is under way; 0 for none. What is opened meanwhile would be in use when the
/// signal has its effect. A child of that moment has not the thread that would end it.
static RELEASING: AtomicU64 = AtomicU64::new(0);

struct Open {
    epoch: u64,
    /// [`RELEASES`] at its begin.
    seen: u64,
    /// A function of the host's runs in the middle of it.
    calls_out: AtomicBool,
}

thread_local! {
    /// The innermost open that this thread is in, and [`RELEASES`] at its begin.
    static OPENING: Cell<Option<(Token, u64)>> = const { Cell::new(None) };
}

/// An open that is under way in this thread.
pub struct Opening {
    outer: Option<(Token, u64)>,
}

impl Opening {
    pub fn begin() -> Opening {
        let seen = RELEASES.load(Ordering::SeqCst);
        let open = OPENS.insert(Open { epoch: fork::epoch(), seen, calls_out: AtomicBool::new(false) });
        fence(Ordering::SeqCst); // a release that does not see this open is seen by it
        // One for which there is no place is not waited for, and that is all.
        Opening { outer: OPENING.replace(Some((open.unwrap_or(0), seen))) }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some((open, _)) = OPENING.replace(self.outer) {
            OPENS.remove(open);
        }
    }
}

/// Runs a function of the host's in the middle of an open, which holds no camera meanwhile.
fn call_out(call: impl FnOnce()) {
    let open = OPENING.get().and_then(|(open, _)| OPENS.get(open));
    let calls_out = |calls: bool| open.iter().for_each(|open| open.calls_out.store(calls, Ordering::SeqCst));
    calls_out(true);
    {
        let _outside = signals::outside();
        call();
    }
    calls_out(false);
}

/// A signal ends all opens that are under way, and refuses others while this lives.
pub struct Release(());

impl Release {
    pub fn begin(signal: i32) -> Release {
        RELEASING.store(fork::epoch(), Ordering::SeqCst);
        let count = (RELEASES.load(Ordering::SeqCst) >> 8) + 1;
        RELEASES.store(count << 8 | signal as u64, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        WAITS.each().for_each(|(_, wait)| wait.signal());
        Release(())
    }

    /// Whether an open that it has ended may hold a camera still.
    pub fn opens_under_way(&self) -> bool {
        let releases = RELEASES.load(Ordering::SeqCst);
        let mut before = OPENS.each().filter(|(_, open)| open.epoch == fork::epoch() && open.seen != releases);
        before.any(|(_, open)| !open.calls_out.load(Ordering::SeqCst))
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        RELEASING.store(0, Ordering::SeqCst);
    }
}

/// No open succeeds from now on, and those that wait give up.
pub fn shut_down() {
    SHUT_DOWN.store(true, Ordering::SeqCst);
    fence(Ordering::SeqCst);
    WAITS.each().for_each(|(_, wait)| wait.signal());
}

/// Whether any other thread of this process waits for a camera. A child sees its parent's waits as well.
pub fn others_wait() -> bool {
    WAITS.each().filter(|(_, wait)| wait.is_own()).count() > OWN_WAITS.get()
}

pub fn is_shut_down() -> bool {
    SHUT_DOWN.load(Ordering::SeqCst)
}

pub fn refuse_when_shut_down(uri: &str) -> Result<()> {
    let releases = RELEASES.load(Ordering::SeqCst);
    if RELEASING.load(Ordering::SeqCst) == fork::epoch() || OPENING.get().is_some_and(|(_, seen)| seen != releases) {
        let signal = signals::name(releases as u8 as i32);
        return Err(Error::new(Kind::Closed, format!("{uri}: {signal} came while it was being opened"))
            .hint("open it again if the program is to go on"));
    }
    match SHUT_DOWN.load(Ordering::SeqCst) {
        true => {
            Err(Error::new(Kind::ShutDown, format!("{uri}: the library was shut down; nothing can be opened any more")))
        }
        false => Ok(()),
    }
}

/// Gets the camera, or says why not.
pub fn acquire<'a>(uri: &'a str, source: &mut dyn Source, wait: Wait<'a, '_>) -> Result<Acquired> {
    let begun = Instant::now();
    let mut waiting = Waiting {
        uri,
        begun,
        deadline: wait.timeout.map(|timeout| begun + timeout),
        evict_at: None,
        wait,
        attempts: 0,
        tight_until: begun,
        pause: policy::POLL_FIRST,
        last_holders: None,
        news: false,
        leases: None,
        look_at: begun + policy::LEASE_LOOK,
        asks: Vec::new(),
        asked: Vec::new(),
        refusals: Vec::new(),
        evictions: 0,
    };
    waiting.set_eviction();
    source.will_wait(waiting.deadline, waiting.wait.cancel)?;
    let mut refusal = match waiting.attempt(source)? {
        Ok(device) => return Ok(waiting.got(device)),
        Err(refusal) => refusal,
    };
    if waiting.wait.timeout == Some(Duration::ZERO) {
        return Err(waiting.give_up(source, refusal));
    }
    waiting.ask(source);
    // From here on a notice is not missed: the next attempt comes after the watch was set up.
    let mut watch = Watch::new(source)?;
    let mut told = false;
    let mut noticed = false;
    loop {
        match waiting.attempt(source)? {
            Ok(device) => return Ok(Acquired { spent: watch.end(), ..waiting.got(device) }),
            Err(again) => refusal = again,
        }
        // Only now: after a notice the attempt is what is urgent.
        if std::mem::take(&mut noticed) {
            watch.renew(source);
        }
        if waiting.deadline.is_some_and(|at| Instant::now() >= at) {
            return Err(waiting.give_up(source, refusal));
        }
        if !told {
            told = true;
            if let Some(prepare) = waiting.wait.prepare.as_mut() {
                prepare(source);
            }
            waiting.tell(source, &refusal);
            continue; // the look at /proc took its time: the camera may be free by now
        }
        // One who has just got the camera may be asked first, as any other.
        if waiting.is_to_evict()
            && !waiting.ask(source)
            && let Some(device) = waiting.evict(source, &watch)?
        {
            return Ok(Acquired { spent: watch.end(), ..waiting.got(device) });
        }
        noticed = waiting.sleep(&watch)?;
        if noticed {
            waiting.tight_until = Instant::now() + policy::TIGHT_WINDOW;
            waiting.pause = policy::POLL_FIRST;
            waiting.news = true;
        } else if waiting.news && Instant::now() >= waiting.tight_until {
            // Something was noticed, and yet the camera is not free: has it another holder?
            let asked = waiting.ask(source);
            waiting.tell(source, &refusal);
            // Those who were asked before have their time, whatever was noticed.
            if !asked && waiting.evict_at.is_none() {
                waiting.set_eviction();
            }
        } else if waiting.has_other_leases(source) {
            waiting.news = true;
        }
    }
}

struct Waiting<'a, 'b> {
    uri: &'a str,
    wait: Wait<'a, 'b>,
    begun: Instant,
    deadline: Option<Instant>,
    attempts: u64,
    /// Until when attempts follow each other closely.
    tight_until: Instant,
    pause: Duration,
    last_holders: Option<Holders>,
    /// Something was noticed since the holders were looked up.
    news: bool,
    /// The leases at the last look, and when to look again.
    leases: Option<Vec<PathBuf>>,
    look_at: Instant,
    /// Holders that were asked and have not answered for good.
    asks: Vec<Ask>,
    /// The leases whose holders were asked.
    asked: Vec<PathBuf>,
    /// Why those who were asked, or were to be evicted, keep the camera.
    refusals: Vec<String>,
    /// When those who have the camera are evicted, though they were asked. `None` once they were, until others come.
    evict_at: Option<Instant>,
    evictions: u32,
}

impl Waiting<'_, '_> {
    /// The camera, or a refusal that waiting may end; any other failure ends the wait.
    fn attempt(&mut self, source: &mut dyn Source) -> Result<Result<Box<dyn Device>>> {
        refuse_when_shut_down(self.uri)?;
        self.attempts += 1;
        match self.handed_over(source).map_or_else(|| source.acquire(), Ok) {
            Ok(device) => {
                // A shutdown that ran meanwhile did not see this camera.
                refuse_when_shut_down(self.uri)?;
                Ok(Ok(device))
            }
            Err(error) if self.may_pass(error.kind()) => Ok(Err(error)),
            Err(error) => Err(error),
        }
    }

    /// Asks those who hold the camera now and have not been asked yet; whether there was one who could be, and has time
    /// from now on. Where the name fits several cameras, one after the other: one is all that is wanted.
    fn ask(&mut self, source: &dyn Source) -> bool {
        let Some(petition) = &self.wait.ask else { return false };
        let before = self.asks.len();
        let left = self.deadline.map_or(petition.grace, |at| at.saturating_duration_since(Instant::now()));
        let petition = Petition { grace: petition.grace.min(left), ..petition.clone() };
        let filings = source.filings();
        let holders = lease::find(&filings);
        self.leases = Some(leases(&holders));
        for holder in holders {
            let lease = holder.lease().to_owned();
            if self.asked.contains(&lease) {
                continue;
            }
            if filings.len() > 1 && !self.asks.is_empty() {
                break;
            }
            match Ask::of(holder, &petition) {
                Ok(ask) => self.asks.push(ask),
                // One that ends just now is no refusal: the next attempt tells.
                Err(error) if matches!(error.errno(), libc::ECONNREFUSED | libc::ENOENT | libc::EPIPE) => {
                    // One that has it still, and had no patience with this thread, is asked again at the next look.
                    self.leases.iter_mut().for_each(|seen| seen.retain(|other| *other != lease));
                    continue;
                }
                Err(error) => self.refusals.push(error.message().to_owned()),
            }
            self.asked.push(lease);
        }
        let asked = self.asks.len() > before;
        if asked {
            self.set_eviction();
        }
        asked
    }

    /// Whether others tell that they hold it than did at the last look. There is no notice of a camera that is passed
    /// on while it stays open, nor of a lease, which a new holder files a moment after it got the camera.
    fn has_other_leases(&mut self, source: &dyn Source) -> bool {
        let now = Instant::now();
        let is_told = self.wait.ask.is_some() || self.wait.on_wait.is_some();
        if !is_told || now < self.look_at {
            return false;
        }
        self.look_at = now + policy::LEASE_LOOK;
        let found = leases(&lease::find(&source.filings()));
        let is_other = self.leases.as_ref().is_some_and(|leases| *leases != found);
        self.leases = Some(found);
        is_other
    }

    /// The camera, where one of those who were asked has passed it on.
    fn handed_over(&mut self, source: &mut dyn Source) -> Option<Box<dyn Device>> {
        let mut device = None;
        let (uri, refusals, asked) = (self.uri, &mut self.refusals, &mut self.asked);
        self.asks.retain_mut(|ask| match ask.progress() {
            Progress::Pending => true,
            Progress::Handed(camera) => {
                // Where it cannot be used it is let go of by that, and the next attempt claims it.
                let received = source.receive(camera).inspect_err(|error| log::warn!("{uri}: handed over: {error}"));
                // The camera is free when this one lets it go: not while its last holder has a copy.
                ask.await_end(Instant::now() + policy::HAND_OVER_END);
                device = device.take().or(received.ok());
                false
            }
            Progress::Refused(reason) => {
                refusals.push(reason);
                false
            }
            Progress::Gone => {
                // It may have the lease still, and is asked again then.
                asked.retain(|lease| lease != ask.holder().lease());
                false
            }
        });
        device
    }

    /// Gives those who were asked the time that they may take: one who has frames out uses its grace up, and hands the
    /// camera over after that.
    fn set_eviction(&mut self) {
        let asked = self.wait.ask.as_ref().map_or(Duration::ZERO, |petition| petition.grace + policy::HAND_OVER_LATE);
        self.evict_at = self.wait.evict.map(|grace| Instant::now() + grace.max(asked));
    }

    /// Whether nothing is left but to end those who have the camera. One that has just changed hands is left its moment:
    /// its new holder files a lease after it got the camera, and one that closes gives its lease up before.
    fn is_to_evict(&self) -> bool {
        let now = Instant::now();
        let settled = now >= self.tight_until.max(self.begun + policy::TIGHT_WINDOW);
        let asked_in_vain = |at| self.asks.is_empty() && settled || now >= at;
        self.evictions < policy::EVICTION_ROUNDS && self.evict_at.is_some_and(asked_in_vain)
    }

    /// Ends those who have the camera; the camera where it is free by that.
    fn evict(&mut self, source: &mut dyn Source, watch: &Watch) -> Result<Option<Box<dyn Device>>> {
        self.asks.clear();
        self.evictions += 1;
        self.evict_at = None;
        let name = self.wait.ask.as_ref().map(|petition| petition.name.clone()).unwrap_or_default();
        let grace = self.wait.evict.unwrap_or(policy::EVICTION_GRACE);
        let options = EvictOptions { grace, name, ..EvictOptions::default() };
        let mut sleep = |fds: &mut Vec<libc::pollfd>, until: Instant| {
            let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
            self.rest(fds, watch, self.deadline.map_or(until, |deadline| deadline.min(until)))?;
            match late {
                true => Err(Error::new(Kind::Busy, format!("{}: the time was up while its holders ended", self.uri))),
                false => Ok(()),
            }
        };
        let round = evict_holders(self.uri, source, &options, false, &mut sleep)?;
        let kept = round.list.iter().filter(|case| matches!(case.outcome, Outcome::Refused | Outcome::Survived));
        self.refusals.extend(kept.map(ToString::to_string));
        Ok(round.device)
    }

    fn may_pass(&self, kind: Kind) -> bool {
        match kind {
            Kind::Busy => true,
            Kind::NotFound if self.wait.for_device => true,
            // Its holder may reset it, or somebody replug it, while we wait: it goes, comes back with
            // the system's rights, and gets its group from udev a moment later.
            Kind::NotFound | Kind::Disconnected | Kind::Permission => self.attempts > 1 || self.wait.after_reset,
            Kind::Io | Kind::Timeout => self.wait.after_reset,
            _ => false,
        }
    }

    /// Waits for a notice, or for as long as the next attempt is put off; true when something was noticed.
    fn sleep(&mut self, watch: &Watch) -> Result<bool> {
        let now = Instant::now();
        let pause = if now < self.tight_until {
            policy::TIGHT_STEP
        } else {
            let pause = self.pause;
            self.pause = (pause * 2).min(policy::POLL_LONGEST);
            pause
        };
        let until = self.deadline.map_or(now + pause, |deadline| deadline.min(now + pause));
        let mut fds: Vec<_> = watch.fds().map(readable).to_vec();
        fds.extend(self.asks.iter().map(|ask| readable(ask.fd())));
        let known = fds.len();
        self.rest(&mut fds, watch, until)?;
        Ok(fds[..known].iter().any(|fd| fd.revents != 0))
    }

    /// Waits until one of `fds` has something or the time has come; a failure where the wait is to end.
    fn rest(&self, fds: &mut Vec<libc::pollfd>, watch: &Watch, until: Instant) -> Result<()> {
        fds.push(readable(watch.shutdown.event.fd()));
        fds.extend(self.wait.cancel.map(|event| readable(event.fd())));
        poll(fds, Some(until)).map_err(|e| Error::system(format!("{}: waiting for it", self.uri), e))?;
        refuse_when_shut_down(self.uri)?;
        match self.wait.cancel.is_some() && fds.last().is_some_and(|cancel| cancel.revents != 0) {
            true => Err(Error::new(Kind::Closed, format!("{}: the wait for it was cancelled", self.uri))),
            false => Ok(()),
        }
    }

    /// Tells the host who holds the camera, if that is news.
    fn tell(&mut self, source: &dyn Source, refusal: &Error) {
        self.news = false;
        let Some(on_wait) = self.wait.on_wait.as_mut() else { return };
        let holders = lease::holders(source);
        if self.last_holders.as_ref() != Some(&holders) {
            let message = match refusal.kind() {
                Kind::Busy => format!("{}: waiting for it, {holders}", self.uri),
                _ => format!("{}: waiting for it, {refusal}", self.uri),
            };
            call_out(|| on_wait(&message, &holders));
            self.last_holders = Some(holders);
        }
    }

    fn got(&self, device: Box<dyn Device>) -> Acquired {
        Acquired { device, attempts: self.attempts, waited: self.begun.elapsed(), spent: None }
    }

    fn give_up(&self, source: &dyn Source, refusal: Error) -> Error {
        if refusal.kind() != Kind::Busy {
            return refusal;
        }
        let waited = self.begun.elapsed();
        let tried = match self.attempts {
            1 => "tried once".to_owned(),
            attempts => format!("waited {:.1} s and tried {attempts} times", waited.as_secs_f64()),
        };
        let holders = lease::holders(source);
        let shared = holders.list.iter().find_map(|holder| holder.shares_as().map(str::to_owned));
        let refusal = refusal.hint(holders);
        let refusal = self.refusals.iter().fold(refusal, |refusal, reason| refusal.hint(reason));
        match shared {
            Some(name) => refusal.hint(format!("{tried}; open shared:{name} to read it beside others")),
            None => refusal.hint(format!("{tried}; stop that program, or wait longer (timeout_ms)")),
        }
    }
}

/// By their files, whose names are random: one process may have several, one after the other.
fn leases(holders: &[Found]) -> Vec<PathBuf> {
    let mut leases: Vec<_> = holders.iter().map(|holder| holder.lease().to_owned()).collect();
    leases.sort_unstable();
    leases
}

/// What wakes a wait: file-system notices and a holder's hang-up.
struct Watch {
    inotify: Option<Inotify>,
    notice: Notice,
    shutdown: Entry,
}

/// A wait's place in [`WAITS`]: a shutdown signals it, and gives its thread the time to return.
pub struct Entry {
    pub event: Arc<Event>,
    token: Token,
    /// It counts for the thread that made it.
    own: bool,
}

impl Entry {
    pub fn new() -> Result<Entry> {
        let mut entry = Entry::of_another_thread()?;
        OWN_WAITS.set(OWN_WAITS.get() + 1);
        entry.own = true;
        Ok(entry)
    }

    /// To be moved into a thread of the library's.
    pub fn of_another_thread() -> Result<Entry> {
        let event = Arc::new(Event::new().map_err(|e| Error::system("creating an event to wait with", e))?);
        let token = WAITS
            .insert(event.clone())
            .map_err(|_| Error::new(Kind::Internal, "more opens wait than there are places for"))?;
        fence(Ordering::SeqCst);
        if refuse_when_shut_down("").is_err() {
            event.signal(); // the shutdown or signal that has just come did not see it
        }
        Ok(Entry { event, token, own: false })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.own {
            OWN_WAITS.set(OWN_WAITS.get() - 1);
        }
        WAITS.remove(self.token);
    }
}

impl Watch {
    fn new(source: &mut dyn Source) -> Result<Watch> {
        let inotify = Inotify::new().inspect_err(|e| log::warn!("no inotify ({e}): a busy camera is polled")).ok();
        let mut watch = Watch { inotify, notice: Notice::default(), shutdown: Entry::new()? };
        watch.renew(source);
        Ok(watch)
    }

    /// Takes what was noticed, and follows the camera to where it is now.
    fn renew(&mut self, source: &mut dyn Source) {
        if let Some(inotify) = &self.inotify {
            inotify.clear();
        }
        self.notice = source.notice().unwrap_or_default();
        let Some(inotify) = &mut self.inotify else { return };
        let appear = libc::IN_CREATE | libc::IN_DELETE | libc::IN_ATTRIB | libc::IN_MOVED_TO;
        // What cannot be watched is polled: a node that is not there, a folder that may not be read.
        self.notice.nodes.iter().for_each(|node| drop(inotify.watch(node, libc::IN_CLOSE)));
        self.notice.folders.iter().for_each(|folder| drop(inotify.watch(folder, appear | libc::IN_ONLYDIR)));
    }

    fn end(mut self) -> Option<Inotify> {
        self.inotify.as_mut().into_iter().for_each(Inotify::unwatch);
        self.inotify.take()
    }

    fn fds(&self) -> [i32; 2] {
        // poll passes over negative numbers.
        [self.inotify.as_ref().map_or(-1, Inotify::fd), self.notice.hangup.as_ref().map_or(-1, |fd| fd.number())]
    }
}
