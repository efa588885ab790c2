//! Removing who has a camera, safely: each holder is asked where it is one of ours, then ended by SIGTERM and, after a
//! grace, by SIGKILL; whom nobody should end is refused.
//!
//! Whether the camera is free is never concluded but tried: by claiming it. Who merely has it open beside its holder
//! keeps nobody from it, and is left in peace.

use std::fmt;
use std::time::{Duration, Instant};

use crate::acquire;
use crate::backend::{self, Device, Source};
use crate::error::{Error, Kind, Result};
use crate::holders::{Activity, Condition, Holder, Holders, user_name};
use crate::kernel::{self, Event, poll, readable};
use crate::lease::{self, Ask, Filing, Petition, Progress};
use crate::policy;
use crate::process::{Missing, Process, ancestors, own_pid, stuck, stuck_in};
use crate::signals;
use crate::uri::Uri;

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
    /// Nothing was done: it would have been ended, had let go by itself, or would have been ended in vain.
    None,
    /// It was asked, and let go.
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
    /// Why nothing was done to it, or what a dry run would do; why it was refused or survived, and what would help; else
    /// empty.
    pub reason: String,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::None => "left",
            Outcome::Yielded => "yielded",
            Outcome::Terminated => "terminated",
            Outcome::Killed => "killed",
            Outcome::Refused => "refused",
            Outcome::Survived => "survived",
        })
    }
}

impl fmt::Display for Evicted {
    /// "v4l2-ctl (pid 812, user root, streaming): refused: it is an ancestor of this process..."
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.holder, self.outcome)?;
        if !self.reason.is_empty() {
            write!(f, ": {}", self.reason)?;
        }
        Ok(())
    }
}

/// Removes who has a camera, and claims it for a moment to be sure of it.
///
/// Only those are removed who keep the camera: who streams, or has a lease; where the camera is busy all the same,
/// those who have it open. All have the same time.
///
/// `Ok` when each holder's outcome is known: the camera was free at the end where none is refused or survived, and `only`
/// left none alone. `Kind::Busy` when it is not free, and nobody is found who has it, or somebody new each time.
pub fn evict(uri: &str, options: EvictOptions<'_>) -> Result<Vec<Evicted>> {
    let _inside = signals::inside();
    acquire::refuse_when_shut_down(uri)?;
    let parsed = Uri::parse(uri)?;
    let mut source = backend::source(&parsed)?;
    if let Uri::Shared(_) = parsed {
        drop(source.acquire()?);
        return Err(Error::new(Kind::Unsupported, format!("{uri}: it is read beside others, who need not leave"))
            .hint("name the camera behind it to have it alone"));
    }
    // It has the camera itself for moments, as an open has that is under way.
    let _opening = acquire::Opening::begin();
    let wait = acquire::Entry::new()?;
    let mut sleep = |fds: &mut Vec<libc::pollfd>, until| {
        fds.push(readable(wait.event.fd()));
        fds.extend(options.cancel.map(|event| readable(event.fd())));
        poll(fds, Some(until)).map_err(|e| Error::system(format!("{uri}: waiting for its holders to end"), e))?;
        acquire::refuse_when_shut_down(uri)?;
        match options.cancel.is_some() && fds.last().is_some_and(|cancel| cancel.revents != 0) {
            true => Err(Error::new(Kind::Closed, format!("{uri}: the eviction was cancelled"))),
            false => Ok(()),
        }
    };
    let mut all: Vec<Evicted> = Vec::new();
    for _ in 0..policy::EVICTION_ROUNDS {
        let round = evict_holders(uri, source.as_mut(), &options, true, &mut sleep)?;
        let nobody = round.list.is_empty();
        // One that was seen in an earlier round is told as it is now.
        all.retain(|old: &Evicted| !round.list.iter().any(|new| same(&new.holder, &old.holder)));
        all.extend(round.list);
        if round.device.is_some() || options.dry_run || round.left_alone || round.kept {
            return Ok(all);
        }
        if nobody {
            break;
        }
        // Who has it now came meanwhile, or was not seen to keep it.
    }
    Err(busy_still(uri, &all, &lease::holders(source.as_ref())))
}

/// Everybody who was found is gone, and yet it is not free.
fn busy_still(uri: &str, all: &[Evicted], now: &Holders) -> Error {
    let error = Error::new(Kind::Busy, format!("{uri}: it is busy still"));
    let error = match all.len() {
        0 => error,
        1 => error.hint("its holder is gone"),
        gone => error.hint(format!("{gone} holders are gone")),
    };
    if !now.list.is_empty() {
        let service = "stop what starts that program again, as a service, and evict once more";
        return error.hint(format!("now it is {now}")).hint(service);
    }
    let error = error.hint(now);
    // One that hangs while it closes the camera has no open file any more, and one that ends no mapping either.
    let error = stuck().into_iter().take(STUCK_TOLD).fold(error, |error, (pid, command, place)| {
        error.hint(format!("{command} (pid {pid}) is inside the kernel (state D, in {place}) and may be closing it"))
    });
    error.hint(
        "an open file of it may also be on its way through a socket, be the kernel's, or a process's that is not visible \
         from here, as from inside a container: evict as root on the host, unplug the camera or reset it (camlease reset)",
    )
}

/// Most processes that a message names for being stuck.
const STUCK_TOLD: usize = 3;

fn same(one: &Holder, other: &Holder) -> bool {
    (one.pid, one.start_time) == (other.pid, other.start_time)
}

/// What one look at a camera's holders, and their removal, came to.
pub(crate) struct Round {
    pub list: Vec<Evicted>,
    /// The camera itself, where it is free: whoever wants it has it already.
    pub device: Option<Box<dyn Device>>,
    /// One that is refused or survived has it still.
    pub kept: bool,
    /// `EvictOptions::only` has passed over a holder.
    pub left_alone: bool,
}

/// Waits until one of the descriptors has something or the time has come; may add descriptors of its own. Its failure
/// ends the eviction: a cancelled wait, a shutdown.
pub(crate) type Sleep<'a> = &'a mut dyn FnMut(&mut Vec<libc::pollfd>, Instant) -> Result<()>;

/// Removes who has the camera now, and claims it. Without a device in the answer it is busy still: by those who are
/// refused or survived, or by others who came meanwhile. `ask`: they have not been asked yet.
pub(crate) fn evict_holders(
    uri: &str,
    source: &mut dyn Source,
    options: &EvictOptions<'_>,
    ask: bool,
    sleep: Sleep<'_>,
) -> Result<Round> {
    let mut seen = keepers(lease::holders(source).list);
    loop {
        if !hangs(&seen) {
            let device = claim(source)?;
            if device.is_some() {
                return Ok(Round { list: Vec::new(), device, kept: false, left_alone: false });
            }
            if seen.0.is_empty() {
                seen = keepers(lease::holders(source).list); // it came between the look and the claim
            }
        }
        if !seen.0.iter().any(is_newborn) {
            break;
        }
        sleep(&mut Vec::new(), Instant::now() + policy::EVICTION_LOOK)?;
        seen = keepers(lease::holders(source).list);
    }
    let filings = source.filings();
    if filings.len() > 1 {
        let message =
            format!("{uri}: {} cameras have this name, and it does not say whose holder is to go", filings.len());
        return Err(Error::new(Kind::InvalidArgument, message).hint("name one by its serial number or its node"));
    }
    let (keepers, certain) = seen;
    let found = keepers.len();
    let wanted = keepers.into_iter().filter(|holder| options.only.is_none_or(|only| only(holder)));
    let mut cases: Vec<_> = wanted.map(Case::new).collect();
    let left_alone = cases.len() < found;
    cases.iter_mut().for_each(Case::check);
    if certain {
        spare_in_vain(&mut cases);
    }
    let mut eviction = Eviction { filings, cases, options, ask, sleep };
    let device = match options.dry_run {
        true => {
            eviction.cases.iter_mut().for_each(|case| case.announce(options.grace));
            None
        }
        false => eviction.run(source)?,
    };
    let kept = device.is_none() && eviction.is_kept();
    Ok(Round { list: eviction.cases.into_iter().map(|case| case.evicted).collect(), device, kept, left_alone })
}

/// The camera, if it is free.
fn claim(source: &mut dyn Source) -> Result<Option<Box<dyn Device>>> {
    match source.acquire() {
        Ok(device) => Ok(Some(device)),
        Err(error) if error.kind() == Kind::Busy => Ok(None),
        Err(error) => Err(error),
    }
}

/// Those of a busy camera's holders who keep it busy, and whether that is certain. Where nobody streams, one of those
/// who have it open has its buffers without a mapping of them, and nobody can tell which one.
fn keepers(mut holders: Vec<Holder>) -> (Vec<Holder>, bool) {
    let surely = |holder: &Holder| {
        holder.lease.is_some() || holder.activity == Activity::Streaming && holder.other_node.is_none()
    };
    let certain = holders.iter().any(surely);
    if certain {
        holders.retain(surely);
    } else if holders.iter().any(|holder| holder.other_node.is_none()) {
        holders.retain(|holder| holder.other_node.is_none());
    }
    (holders, certain)
}

/// Whether it may be the child that a holder is just making, to run another program: it has the holder's open files
/// until then, and means nothing by it.
fn is_newborn(holder: &Holder) -> bool {
    if holder.lease.is_some() || holder.start_time == 0 {
        return false;
    }
    let born = Duration::from_secs_f64(holder.start_time as f64 / kernel::ticks_per_second());
    let now = Duration::from_nanos(kernel::clock_ns(libc::CLOCK_BOOTTIME) as u64);
    now.saturating_sub(born) < policy::EVICTION_AGE
}

/// Whether its holder is inside the driver, which may make whoever claims the camera wait as well.
fn hangs((keepers, certain): &(Vec<Holder>, bool)) -> bool {
    *certain && keepers.iter().any(|holder| stuck_in(holder.pid).is_some())
}

/// A camera that one of them keeps for certain does not come free by the end of the others.
fn spare_in_vain(cases: &mut [Case]) {
    let Some(keeper) = cases.iter().find(|case| case.keeps).map(|case| case.evicted.holder.pid) else { return };
    for case in cases.iter_mut().filter(|case| case.is_pending()) {
        case.end(
            Outcome::None,
            format!("left alone: process {keeper}, which is refused, keeps the camera all the same"),
        );
    }
}

/// One holder on its way out.
struct Case {
    evicted: Evicted,
    /// `None` when there is nobody to signal.
    process: Option<Process>,
    step: Step,
    /// It is refused, and has the camera.
    keeps: bool,
}

enum Step {
    /// Nothing was done yet.
    Found,
    Asked(Ask, Instant),
    Terminated(Instant),
    Killed(Instant),
    Done,
}

impl Case {
    fn new(holder: Holder) -> Case {
        let evicted = Evicted { holder, outcome: Outcome::None, reason: String::new() };
        Case { evicted, process: None, step: Step::Found, keeps: false }
    }

    fn end(&mut self, outcome: Outcome, reason: impl Into<String>) {
        self.evicted.outcome = outcome;
        self.evicted.reason = reason.into();
        self.step = Step::Done;
    }

    fn is_pending(&self) -> bool {
        !matches!(self.step, Step::Done)
    }

    /// Takes hold of the process, and refuses whom nobody should end.
    fn check(&mut self) {
        let pid = self.evicted.holder.pid;
        match Process::find(pid, self.evicted.holder.start_time) {
            Err(Missing::Gone) => self.end(Outcome::None, "it had ended by itself"),
            Err(Missing::Reused) => self.end(
                Outcome::Refused,
                format!("the holder has ended, and its pid {pid} is another process's by now (its start time differs)"),
            ),
            // It may still be asked.
            Err(Missing::Elsewhere) if self.evicted.holder.lease.is_some() => {}
            Err(Missing::Elsewhere) => self.refuse_elsewhere(),
            Ok(process) => {
                if let Some(reason) = refusal(&self.evicted.holder, &process) {
                    self.refuse(reason);
                }
                self.process = Some(process);
            }
        }
    }

    /// It has the camera, and is not to be ended.
    fn refuse(&mut self, reason: impl Into<String>) {
        self.keeps = true;
        self.end(Outcome::Refused, reason);
    }

    fn refuse_elsewhere(&mut self) {
        self.refuse(
            "it is in another pid namespace than this process, as in another container, where no signal from here \
             reaches it: evict it there, or on the host",
        );
    }

    /// Says what would be done.
    fn announce(&mut self, grace: Duration) {
        if !self.is_pending() {
            return;
        }
        let grace = grace.as_secs_f64();
        let Some(process) = &self.process else {
            return self.end(
                Outcome::None,
                "would be asked; it is in another pid namespace, where no signal from here reaches it",
            );
        };
        let mut reason = match self.evicted.holder.lease {
            Some(_) => format!("would be asked, then ended by SIGTERM and, after {grace} s, by SIGKILL"),
            None => format!("would be ended by SIGTERM and, after {grace} s, by SIGKILL"),
        };
        if process.is_first_of_its_namespace() {
            reason += "; it is the first process of a container, which would end with it";
        }
        if let Some(place) = process.stuck_in() {
            reason += &format!("; it is inside the kernel (state D, in {place}), where it may heed no signal");
        }
        self.end(Outcome::None, reason);
    }

    fn terminate(&mut self, until: Instant) {
        if self.process.is_none() {
            return self.refuse_elsewhere();
        }
        self.step = Step::Terminated(until);
        if self.signal(libc::SIGTERM) && self.process.as_ref().is_some_and(|it| it.condition() == Condition::Stopped) {
            // It would act on SIGTERM only when it is continued.
            self.signal(libc::SIGCONT);
        }
    }

    fn kill(&mut self, until: Instant) {
        self.step = Step::Killed(until);
        self.signal(libc::SIGKILL);
    }

    /// Whether the signal was sent. One that has ended is seen at the next look.
    fn signal(&mut self, signal: i32) -> bool {
        match self.process.as_ref().map(|process| process.signal(signal)) {
            Some(Err(error)) if error.raw_os_error() == Some(libc::EPERM) => {
                // It changed its user after it was checked, as by setuid or a program with that bit.
                self.refuse(other_users(&self.evicted.holder));
                false
            }
            Some(Ok(())) => true,
            _ => false,
        }
    }

    /// It has let go, by what was done to it last.
    fn let_go(&mut self) {
        let outcome = match self.step {
            Step::Found | Step::Done => return,
            Step::Asked(..) => Outcome::Yielded,
            Step::Terminated(_) => Outcome::Terminated,
            Step::Killed(_) => Outcome::Killed,
        };
        self.end(outcome, "");
    }

    fn survive(&mut self) {
        let Some(process) = &self.process else { return };
        let (condition, place, tracer) = (process.condition(), process.stuck_in(), process.tracer());
        self.evicted.holder.condition = condition;
        self.end(Outcome::Survived, survival(condition, place.as_deref(), tracer));
    }

    /// When what was done to it last has had its time.
    fn deadline(&self) -> Option<Instant> {
        match self.step {
            Step::Asked(_, until) | Step::Terminated(until) | Step::Killed(until) => Some(until),
            Step::Found | Step::Done => None,
        }
    }

    fn is_overdue(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|until| now >= until)
    }

    /// Takes in what the holder, or its end, has told.
    fn look(&mut self, grace: Duration) {
        if self.is_pending() && self.process.as_ref().is_some_and(Process::has_ended) {
            return self.let_go();
        }
        let Step::Asked(ask, until) = &mut self.step else { return };
        match ask.progress() {
            Progress::Pending => {}
            // Let go of, and claimed anew: its holder has it still for a moment after it handed it over, and only what
            // was claimed is free for everybody when it is let go of.
            Progress::Handed(camera) => {
                drop(camera);
                self.let_go();
            }
            Progress::Refused(reason) => {
                log::debug!("{reason}");
                self.terminate(Instant::now() + grace);
            }
            // Whether it keeps the camera is found out by who has it, once its driver had the time to notice.
            Progress::Gone => *until = (*until).min(Instant::now() + policy::EVICTION_SETTLE),
        }
    }
}

/// Why nobody should end this process.
fn refusal(holder: &Holder, process: &Process) -> Option<String> {
    if holder.pid == own_pid() {
        return Some("it is this process itself: close its camera instead (camlease_camera_close)".into());
    }
    if holder.pid == 1 {
        return Some("it is process 1, with which the machine or the container ends: have it close the camera".into());
    }
    if process.is_kernel_thread() {
        return Some("it is a kernel thread, which no signal ends: unload what it belongs to".into());
    }
    if ancestors().contains(&holder.pid) {
        return Some(
            "it is an ancestor of this process, which may end with it: close the camera there, or evict from another \
             place"
                .into(),
        );
    }
    // Who may signal whom is the kernel's to say: users, capabilities and security modules are in its answer.
    let forbidden = process.signal(0).is_err_and(|error| error.raw_os_error() == Some(libc::EPERM));
    forbidden.then(|| other_users(holder))
}

fn other_users(holder: &Holder) -> String {
    let user = user_name(holder.uid);
    format!("it is a process of user {user}, which this one may not signal: evict as that user, or as root (CAP_KILL)")
}

/// Why a killed process is there still, and what would help.
fn survival(condition: Condition, place: Option<&str>, tracer: Option<i32>) -> String {
    let frozen = place.is_some_and(|place| place.contains("refrigerator") || place.contains("freezer"));
    match (condition, place) {
        (_, Some(place)) if frozen => {
            format!("it is frozen by its control group (state D, in {place}) and ends when it is thawed: thaw it")
        }
        (_, Some(place)) => format!(
            "it is inside the kernel (state D, in {place}) and no signal reaches it until the driver returns; then it \
             ends. Unplug the camera or reset its USB port (camlease reset), else reboot"
        ),
        (Condition::Zombie, _) => {
            let parent = "its first thread ended and the others are ending still (state Z)";
            match tracer {
                Some(tracer) => format!("{parent}: its debugger, process {tracer}, has to let go of it"),
                None => format!("{parent}: evict once more; if it stays, reset the camera (camlease reset) or reboot"),
            }
        }
        _ => match tracer {
            Some(tracer) => {
                format!("it was killed and has not ended: its debugger, process {tracer}, has to let go of it")
            }
            None => {
                "it was killed and has not ended yet, as one does with much memory to give back: evict once more".into()
            }
        },
    }
}

/// The removal of all holders, at the same time.
struct Eviction<'a, 'b> {
    filings: Vec<Filing>,
    cases: Vec<Case>,
    options: &'a EvictOptions<'b>,
    ask: bool,
    sleep: Sleep<'a>,
}

impl Eviction<'_, '_> {
    /// The camera, if it came free.
    fn run(&mut self, source: &mut dyn Source) -> Result<Option<Box<dyn Device>>> {
        self.begin();
        while self.cases.iter().any(Case::is_pending) {
            self.sleep()?;
            // What a process did at its end comes before what can be concluded from a free camera.
            self.cases.iter_mut().for_each(|case| case.look(self.options.grace));
            if let Some(device) = self.claim(source)? {
                self.cases.iter_mut().for_each(Case::let_go);
                return Ok(Some(device));
            }
            if self.cases.iter().any(|case| case.is_overdue(Instant::now())) {
                self.go_on(&lease::holders(source));
            }
        }
        self.settle(source)
    }

    fn begin(&mut self) {
        let EvictOptions { grace, name, .. } = self.options;
        let petition = Petition { name: name.clone(), priority: 0, must: true, grace: *grace };
        // One time for all: who is left when the others are killed may end by their end.
        let until = Instant::now() + *grace;
        for case in self.cases.iter_mut().filter(|case| case.is_pending()) {
            let pid = case.evicted.holder.pid;
            match self.ask.then(|| Ask::begin(&self.filings, pid, &petition)).flatten() {
                Some(Ok(ask)) => case.step = Step::Asked(ask, until + policy::HAND_OVER_LATE),
                Some(Err(error)) => {
                    log::debug!("process {} cannot be asked: {error}", case.evicted.holder.pid);
                    case.terminate(until);
                }
                None => case.terminate(until),
            }
        }
    }

    /// Until one of them tells something, has had its time, or may have let go without telling.
    fn sleep(&mut self) -> Result<()> {
        let mut fds = Vec::new();
        let mut until = Instant::now() + policy::EVICTION_LOOK;
        for case in self.cases.iter().filter(|case| case.is_pending()) {
            fds.extend(case.process.as_ref().map(|process| readable(process.fd())));
            if let Step::Asked(ask, _) = &case.step {
                fds.push(readable(ask.fd()));
            }
            until = case.deadline().map_or(until, |deadline| until.min(deadline));
        }
        (self.sleep)(&mut fds, until).map_err(|error| self.told_so_far(error))
    }

    fn claim(&self, source: &mut dyn Source) -> Result<Option<Box<dyn Device>>> {
        // One that is inside the driver may make whoever claims the camera wait as well.
        let hangs = |case: &Case| {
            (case.is_pending() || case.evicted.outcome == Outcome::Survived)
                && case.process.as_ref().is_some_and(|process| process.stuck_in().is_some())
        };
        if self.cases.iter().any(hangs) {
            return Ok(None);
        }
        claim(source).map_err(|error| self.told_so_far(error))
    }

    /// A failure on the way does not hide what was done.
    fn told_so_far(&self, error: Error) -> Error {
        let done = self.cases.iter().filter_map(|case| {
            let pid = case.evicted.holder.pid;
            match (&case.step, case.evicted.outcome) {
                (Step::Asked(..), _) => Some(format!("process {pid} was asked to let go")),
                (Step::Terminated(_), _) => Some(format!("process {pid} was sent SIGTERM")),
                (Step::Killed(_), _) => Some(format!("process {pid} was sent SIGKILL")),
                (_, Outcome::Yielded) => Some(format!("process {pid} let go when it was asked")),
                (_, Outcome::Terminated) => Some(format!("process {pid} let go after SIGTERM")),
                (_, Outcome::Killed) => Some(format!("process {pid} was killed")),
                _ => None,
            }
        });
        done.fold(error, Error::hint)
    }

    /// Those whose time is over let the camera go meanwhile, or are dealt with in the next way.
    fn go_on(&mut self, holders: &Holders) {
        let now = Instant::now();
        for case in self.cases.iter_mut().filter(|case| case.is_overdue(now)) {
            // One that streamed and merely has it open now has let go. One that had it open may have: only the claim
            // tells, and that was refused.
            let seen = &case.evicted.holder;
            let keeps = holders.list.iter().any(|now| same(now, seen) && now.activity >= seen.activity)
                // One that hangs in the driver while it closes the camera, or ends, has no open file any more.
                || case.process.as_ref().is_some_and(|process| process.is_ending())
                // One that was asked may be in there for any other reason.
                || !matches!(case.step, Step::Asked(..))
                    && case.process.as_ref().is_some_and(|process| process.stuck_in().is_some());
            match &case.step {
                _ if !keeps => case.let_go(),
                Step::Asked(..) => case.terminate(now + self.options.grace),
                Step::Terminated(_) => case.kill(now + policy::EVICTION_KILL),
                Step::Killed(_) => case.survive(),
                Step::Found | Step::Done => {}
            }
        }
    }

    fn is_kept(&self) -> bool {
        self.cases.iter().any(|case| case.keeps || case.evicted.outcome == Outcome::Survived)
    }

    /// Claims the camera; where all have gone, for as long as its driver may need to notice.
    fn settle(&mut self, source: &mut dyn Source) -> Result<Option<Box<dyn Device>>> {
        let kept = self.is_kept();
        let begun = Instant::now();
        let mut looked = false;
        loop {
            let device = self.claim(source)?;
            let waited = begun.elapsed();
            if device.is_some() || kept || self.cases.is_empty() || waited >= policy::EVICTION_SETTLE {
                return Ok(device);
            }
            if waited >= policy::TIGHT_WINDOW && !std::mem::replace(&mut looked, true) && self.is_succeeded(source) {
                return Ok(None);
            }
            let pause = if waited < policy::TIGHT_WINDOW { policy::TIGHT_STEP } else { policy::POLL_FIRST };
            (self.sleep)(&mut Vec::new(), Instant::now() + pause).map_err(|error| self.told_so_far(error))?;
        }
    }

    /// Whether somebody else has the camera by now.
    fn is_succeeded(&self, source: &dyn Source) -> bool {
        let (keepers, certain) = keepers(lease::holders(source).list);
        let is_new = |holder: &Holder| !self.cases.iter().any(|case| same(&case.evicted.holder, holder));
        certain && keepers.iter().any(is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(pid: i32, activity: Activity) -> Holder {
        Holder {
            pid,
            uid: 0,
            start_time: 1,
            activity,
            command: "/usr/bin/v4l2-ctl --stream-mmap".into(),
            condition: Condition::Alive,
            lease: None,
            other_node: None,
            locks_other_node: false,
        }
    }

    fn found(pid: i32) -> Process {
        let stat = procfs::process::Process::new(pid).unwrap().stat().unwrap();
        Process::find(pid, stat.starttime).unwrap()
    }

    #[test]
    fn the_first_process_and_kernel_threads_are_refused() {
        let reason = refusal(&holder(1, Activity::Streaming), &found(1)).unwrap();
        assert!(reason.contains("process 1") && reason.contains("have it close"), "{reason}");
        let mut all = procfs::process::all_processes().unwrap().flatten();
        // Others may end meanwhile.
        let is_kernels = |process: &procfs::process::Process| {
            let start_time = process.stat().ok()?.starttime;
            Some(Process::find(process.pid(), start_time).ok()?.is_kernel_thread())
        };
        let Some(thread) = all.find(|process| is_kernels(process) == Some(true)).map(|process| process.pid()) else {
            eprintln!("SKIPPED: kernel threads: none is visible from inside a container");
            return;
        };
        let reason = refusal(&holder(thread, Activity::Streaming), &found(thread)).unwrap();
        assert!(reason.contains("kernel thread, which no signal ends"), "{reason}");
    }

    #[test]
    fn who_merely_has_it_open_is_no_keeper_beside_one() {
        let pids = |(keepers, certain): (Vec<Holder>, bool)| {
            (keepers.iter().map(|holder| holder.pid).collect::<Vec<_>>(), certain)
        };
        let open = holder(2, Activity::Open);
        let other = Holder { other_node: Some("/dev/video1".into()), ..holder(3, Activity::Streaming) };
        let ours = Holder {
            lease: Some(crate::lease::Record {
                name: "eye".into(),
                priority: 0,
                since_ns: 1,
                streaming: false,
                share: None,
            }),
            ..holder(4, Activity::Open)
        };
        let streams = holder(5, Activity::Streaming);
        assert_eq!(pids(keepers(vec![streams, open.clone(), other.clone()])), (vec![5], true));
        assert_eq!(pids(keepers(vec![ours, open.clone(), other.clone()])), (vec![4], true));
        assert_eq!(pids(keepers(vec![open, other.clone()])), (vec![2], false));
        assert_eq!(pids(keepers(vec![other])), (vec![3], false));
        assert_eq!(pids(keepers(vec![])), (vec![], false));
    }

    #[test]
    fn a_survivor_comes_with_what_helps() {
        for (condition, place, tracer, words) in [
            (Condition::Stuck, Some("uvc_queue_cancel"), None, "state D, in uvc_queue_cancel"),
            (Condition::Stuck, Some("usb_kill_urb"), None, "reset its USB port (camlease reset), else reboot"),
            (Condition::Stuck, Some("__refrigerator"), None, "thaw it"),
            (Condition::Zombie, None, None, "state Z"),
            (Condition::Zombie, None, Some(77), "its debugger, process 77, has to let go of it"),
            (Condition::Stopped, None, Some(77), "its debugger, process 77, has to let go of it"),
            (Condition::Alive, None, None, "evict once more"),
        ] {
            let reason = survival(condition, place, tracer);
            assert!(reason.contains(words), "\"{words}\" is not in: {reason}");
        }
    }

    #[test]
    fn an_outcome_is_told_in_a_line() {
        let mut evicted =
            Evicted { holder: holder(812, Activity::Streaming), outcome: Outcome::Killed, reason: String::new() };
        assert_eq!(evicted.to_string(), "v4l2-ctl (pid 812, user root, streaming): killed");
        evicted.outcome = Outcome::Refused;
        evicted.reason = "it is process 1".into();
        assert_eq!(evicted.to_string(), "v4l2-ctl (pid 812, user root, streaming): refused: it is process 1");
    }
}
