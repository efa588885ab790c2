//! The reset of a camera's port, and the wait for the same camera's return: claimed, and with a fresh frame.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{Camera, Shared, name_camera};
use crate::acquire::{self, Acquired, Entry, Wait, acquire};
use crate::backend::{self, Device, Port, Stream};
use crate::error::{Error, Kind, Result};
use crate::format::StreamRequest;
use crate::holders::{Activity, Holders};
use crate::kernel::{self, Epoll, Event, Thread, readable};
use crate::lease::{self, LastExit};
use crate::uri::Uri;
use crate::{exit, policy, signals, timed};

const PLUG_IN_AGAIN: &str = "unplug it and plug it in again";

impl Camera {
    /// Resets the camera's port, and waits for its return and a fresh frame. A stream goes on. Other calls wait
    /// meanwhile.
    pub fn reset(&self, timeout: Option<Duration>) -> Result<()> {
        // It waits with locks that a release on a signal needs.
        let _inside = signals::inside();
        let reset = Reset::begin(&self.shared.identity.uri, timeout, Some(&self.shared.wake))?;
        let mut is_other_device = false;
        let outcome = self.shared.reset(&reset, &mut is_other_device);
        // Not before: filing looks at the device, and a doorbell that is answered just now wants the stream's lock.
        if is_other_device {
            self.shared.refile_lease();
        }
        outcome
    }

    /// Before the first use of a camera whose last holder died while it was streaming. One that cannot be reset here is
    /// used as it is.
    pub(super) fn reset_after_dirty_exit(&self) -> Result<()> {
        if self.last_exit() != LastExit::Dirty {
            return Ok(());
        }
        let cannot = |kind| matches!(kind, Kind::Unsupported | Kind::Permission | Kind::Busy);
        match self.reset(Some(policy::RESET_TIMEOUT)) {
            Err(error) if cannot(error.kind()) => log::warn!("its last holder died while it was streaming: {error}"),
            outcome => outcome?,
        }
        Ok(())
    }
}

impl Shared {
    /// Tells as well whether the camera came back as another device to the kernel.
    fn reset(&self, reset: &Reset, is_other_device: &mut bool) -> Result<()> {
        let mut running = self.lock_stream()?;
        // What can be refused is refused before anything is given up.
        let port = self.with_device(|device| device.port())?;
        reset.refuse_if_in_use(port.others())?;
        let in_time = || reset.left() != Some(Duration::ZERO);
        let held = timed::write_by(&self.device, reset.deadline).filter(|_| in_time());
        let mut held = held.ok_or_else(|| {
            Error::new(Kind::Timeout, format!("{}: other calls took the time that its reset had", reset.uri))
        })?;
        self.send_waiters_away(None);

        let streamed = running.stream.take().is_some_and(|mut stream| {
            stream.unwatch(&self.ready);
            true
        });
        self.round.fetch_add(1, Ordering::Relaxed);
        let filing = held.as_ref().and_then(|device| device.filing());
        let (refusal, got) = match reset.cycle(held.take(), port) {
            Ok(back) => back,
            Err(error) => {
                self.check()?; // it ended meanwhile, which ended the wait
                // Before anybody can regain it, and file a lease of its own.
                drop(self.take_lease());
                *timed::lock(&self.lost) = error.message().to_owned();
                self.mark_ended(Kind::Disconnected);
                return Err(error);
            }
        };
        let device = &**held.insert(got.device);
        *is_other_device = device.filing() != filing;

        let request = if streamed { running.request.clone() } else { StreamRequest::default() };
        let fresh = reset.start(device, &request).and_then(|mut stream| {
            let fresh = reset.fresh_frame(stream.as_mut());
            let goes_on = match streamed {
                true => self.begin_stream(&mut running, stream, &request),
                false => stream.stop(),
            };
            fresh.and(goes_on)
        });
        self.counters.resets.fetch_add(refusal.is_none().into(), Ordering::Relaxed);
        self.check()?;
        fresh.and(refusal.map_or(Ok(()), Err))
    }
}

/// Resets a camera that nobody streams from, by its name, also one that cannot be opened any more. How long it took
/// until it had given a fresh frame. It is let go afterwards.
pub fn reset(uri: &str, timeout: Option<Duration>) -> Result<Duration> {
    let begun = Instant::now();
    acquire::refuse_when_shut_down(uri)?;
    exit::watch();
    let reset = Reset::begin(uri, timeout, None)?;
    let name = |error| name_camera(uri, error, format_args!("resetting {uri}"));
    let port = backend::source(&Uri::parse(uri)?)?.port().map_err(name)?;
    let mut source = port.source();
    let device = match source.acquire() {
        Ok(device) => Some(device),
        Err(error) if error.kind() == Kind::Busy => return Err(name(error.hint(lease::holders(source.as_ref())))),
        // Afterwards it could not be claimed either.
        Err(error) if error.kind() == Kind::Permission => return Err(name(error)),
        // What ails it is what it is to be reset for; but it may be that somebody streams from it none the less.
        Err(_) => {
            let mut holders = source.holders();
            holders.list.retain(|holder| holder.activity == Activity::Streaming);
            reset.refuse_if_in_use(holders)?;
            None
        }
    };
    reset.refuse_if_in_use(port.others())?;
    drop(source); // what it keeps open would keep the node's number from coming back
    let (refusal, got) = reset.cycle(device, port)?;
    reset.verify(got.device.as_ref())?;
    refusal.map_or(Ok(begun.elapsed()), Err)
}

/// A reset that is under way.
struct Reset<'a> {
    uri: &'a str,
    begun: Instant,
    deadline: Option<Instant>,
    cancel: Option<&'a Event>,
    /// Exit and unload wait for this thread.
    shutdown: Entry,
}

impl<'a> Reset<'a> {
    fn begin(uri: &'a str, timeout: Option<Duration>, cancel: Option<&'a Event>) -> Result<Reset<'a>> {
        if timeout == Some(Duration::ZERO) {
            return Err(Error::new(Kind::InvalidArgument, format!("{uri}: a reset cannot be done in no time"))
                .hint("give it some seconds (timeout_ms)"));
        }
        let begun = Instant::now();
        let deadline = timeout.and_then(|timeout| begun.checked_add(timeout));
        let shutdown = Entry::new().map_err(|error| error.context(format_args!("{uri}: preparing its reset")))?;
        Ok(Reset { uri, begun, deadline, cancel, shutdown })
    }

    fn left(&self) -> Option<Duration> {
        self.deadline.map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn refuse_if_in_use(&self, others: Holders) -> Result<()> {
        match others.list.is_empty() {
            true => Ok(()),
            false => Err(Error::new(Kind::Busy, format!("{}: a reset would take the device from others", self.uri))
                .hint(others)
                .hint("stop that program first")),
        }
    }

    /// Lets the device go, resets its port, and gets it again. The port's refusal, if it refused, and the device: a
    /// camera that was not reset comes back, too.
    fn cycle(&self, device: Option<Box<dyn Device>>, port: Box<dyn Port>) -> Result<(Option<Error>, Acquired)> {
        let mut source = port.source();
        let refusal = self.reset_port(port, device)?.err();
        let wait = Wait { for_device: true, after_reset: true, cancel: self.cancel, ..Wait::quietly(self.left()) };
        match acquire(self.uri, source.as_mut(), wait) {
            // A port that answers so has seen the camera leave, and here it is again.
            Ok(got) => Ok((refusal.filter(|error| error.kind() != Kind::Disconnected), got)),
            Err(error) if matches!(error.kind(), Kind::Closed | Kind::ShutDown) => Err(error),
            Err(error) => Err(self.lost(refusal.as_ref(), error)),
        }
    }

    /// Resets the port, in a thread: the kernel asks a camera that does not answer again and again, for many seconds,
    /// and cannot be interrupted. It goes on with that when the time is up.
    fn reset_port(&self, port: Box<dyn Port>, device: Option<Box<dyn Device>>) -> Result<Result<()>> {
        let failed = |e| Error::system(format!("{}: preparing its reset", self.uri), e);
        let (done, entry) = match (Event::new(), Entry::of_another_thread()) {
            (Ok(done), Ok(entry)) => (Arc::new(done), entry),
            (Err(error), _) => return Ok(Err(failed(error))),
            (_, Err(error)) => return Ok(Err(error.context(format_args!("{}: preparing its reset", self.uri)))),
        };
        let outcome = Arc::new(Mutex::new(None));
        let body = {
            let (done, outcome) = (done.clone(), outcome.clone());
            move || {
                let reset = port.reset();
                drop(port);
                *timed::lock(&outcome) = Some(reset);
                done.signal();
                drop(entry); // an unload waits for that
            }
        };
        let thread = match Thread::start(c"camlease-reset", body) {
            Ok(thread) => thread,
            Err(error) => return Ok(Err(failed(error))),
        };
        if let Some(device) = device {
            self.let_go(device, || timed::lock(&outcome).is_some());
        }
        while timed::lock(&outcome).is_none() {
            if self.left() == Some(Duration::ZERO) {
                thread.detach();
                let waited = self.begun.elapsed().as_secs_f64();
                let message = format!("{}: its reset did not end within {waited:.1} s: it does not answer", self.uri);
                return Err(Error::new(Kind::Disconnected, message).hint(PLUG_IN_AGAIN));
            }
            if let Err(ended) = self.wait(Some(done.fd()), None) {
                thread.detach();
                return Err(ended);
            }
        }
        // It has nothing left to wait for.
        thread.join_by(Instant::now() + policy::RESET_CLOSE_PATIENCE);
        let outcome = timed::lock(&outcome).take();
        Ok(outcome.unwrap_or(Ok(())))
    }

    /// Lets the device go once the reset has taken it away, and not before: whoever waits for it would get it, and lose it
    /// again. At once then, so that its node's number is free when it comes back.
    fn let_go(&self, device: Box<dyn Device>, is_over: impl Fn() -> bool) {
        let patience = Instant::now() + policy::RESET_CLOSE_PATIENCE;
        let patience = self.deadline.map_or(patience, |deadline| deadline.min(patience));
        while !device.is_gone() && !is_over() && Instant::now() < patience {
            std::thread::sleep(policy::LEAVE_STEP);
        }
        if let Some(closing) = device.let_go()
            && !closing.end_by(patience + policy::RESET_CLOSE_PATIENCE)
        {
            log::warn!("{}: its driver hangs; the port is reset beneath it", self.uri);
        }
    }

    fn lost(&self, refusal: Option<&Error>, cause: Error) -> Error {
        let waited = self.begun.elapsed().as_secs_f64();
        let after =
            refusal.map_or_else(|| "it was reset".to_owned(), |refusal| format!("its reset failed ({refusal})"));
        let has_it_somebody = cause.kind() == Kind::Busy;
        let what = format!("{}: {after}, and could not be had again within {waited:.1} s", self.uri);
        let error = cause.context(what).with_kind(Kind::Disconnected);
        if has_it_somebody { error } else { error.hint(PLUG_IN_AGAIN) }
    }

    fn verify(&self, device: &dyn Device) -> Result<()> {
        let mut stream = self.start(device, &StreamRequest::default())?;
        let fresh = self.fresh_frame(stream.as_mut());
        fresh.and(stream.stop())
    }

    /// Starts a stream. A camera that has just started up itself may refuse at first.
    fn start(&self, device: &dyn Device, request: &StreamRequest) -> Result<Box<dyn Stream>> {
        loop {
            let error = match device.start(request) {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            let passes = matches!(error.kind(), Kind::Io | Kind::Timeout);
            if !passes || self.left() == Some(Duration::ZERO) {
                return Err(name_camera(self.uri, error, format_args!("{}: after its reset", self.uri)));
            }
            self.wait(None, Some(Instant::now() + policy::POLL_LONGEST))?;
        }
    }

    /// Waits for a whole frame of a stream that has just begun.
    fn fresh_frame(&self, stream: &mut dyn Stream) -> Result<()> {
        let failed = |e| Error::system(format!("{}: watching it", self.uri), e);
        let ready = Arc::new(Epoll::new().map_err(failed)?);
        stream.watch(&ready).map_err(failed)?;
        let fresh = self.await_fresh_frame(stream, &ready);
        stream.unwatch(&ready);
        fresh
    }

    fn await_fresh_frame(&self, stream: &mut dyn Stream, ready: &Epoll) -> Result<()> {
        loop {
            if let Some(filled) = stream.dequeue(true)? {
                stream.requeue(filled.index)?;
                if !filled.corrupt {
                    return Ok(());
                }
            }
            if self.left() == Some(Duration::ZERO) {
                let waited = self.begun.elapsed().as_secs_f64();
                let message =
                    format!("{}: it is back after its reset, but gave no frame within {waited:.1} s", self.uri);
                return Err(
                    Error::new(Kind::Timeout, message).hint("give it more time, or unplug it and plug it in again")
                );
            }
            self.wait(Some(ready.fd()), None)?;
        }
    }

    /// Waits until the descriptor has something, or until then; an error when the camera or the library ended meanwhile.
    fn wait(&self, fd: Option<RawFd>, until: Option<Instant>) -> Result<()> {
        let until = self.deadline.into_iter().chain(until).min();
        let mut fds = vec![readable(self.shutdown.event.fd())];
        fds.extend(self.cancel.map(|event| readable(event.fd())));
        let ends = fds.len();
        fds.extend(fd.map(readable));
        if let Err(error) = kernel::poll(&mut fds, until) {
            // Giving up would lose the camera: it is looked at again a little later.
            log::warn!("{}: waiting for it: {error}", self.uri);
            std::thread::sleep(policy::POLL_LONGEST);
        }
        acquire::refuse_when_shut_down(self.uri)?;
        match fds[..ends].iter().any(|fd| fd.revents != 0) {
            true => Err(Error::new(Kind::Closed, format!("{}: the reset was cancelled", self.uri))),
            false => Ok(()),
        }
    }
}
