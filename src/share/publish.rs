//! The thread that streams from a camera and publishes its frames. It alone starts and stops the stream of a camera that
//! is shared.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::json;

use super::hub::{Hub, Order, What};
use super::ring::{PLANES_MOST, Told};
use super::wire::{self, map};
use super::{Feed, Lending};
use crate::error::{Error, Kind, Result};
use crate::format::{StreamFormat, StreamRequest};
use crate::frame::{Frame, Lent};
use crate::kernel::{Event, monotonic_ns, poll, readable};
use crate::{fork, policy};

pub fn run(hub: &Hub, stop: &Event) {
    publish(hub, stop);
    hub.end_generation(None);
    hub.left.signal();
}

fn publish(hub: &Hub, stop: &Event) {
    let mut publisher = Publishing::new(hub);
    let epoch = fork::epoch();
    loop {
        hub.published_at.store(monotonic_ns(), Ordering::Relaxed);
        let Some(feed) = hub.feed.as_ref().and_then(|feed| feed.upgrade()).filter(|_| epoch == fork::epoch()) else {
            break;
        };
        if is_signalled(stop) {
            publisher.stop(&feed, None);
            break;
        }
        while let Some(order) = hub.next_order() {
            publisher.carry_out(&feed, order);
        }
        if !publisher.step(&feed) {
            break;
        }
        drop(feed); // not while it waits: the camera may be closed by then
        if !publisher.streams {
            let mut fds = [readable(stop.fd()), readable(hub.orders.fd())];
            let _ = poll(&mut fds, Some(Instant::now() + policy::SHARE_STEP));
            hub.orders.clear();
        }
    }
}

fn is_signalled(event: &Event) -> bool {
    let mut fds = [readable(event.fd())];
    poll(&mut fds, Some(Instant::now())).unwrap_or(true)
}

pub struct Publishing<'a> {
    hub: &'a Hub,
    streams: bool,
    /// Since when nobody reads.
    idle_since: Option<Instant>,
    /// When the camera is tried again that could not be started.
    retry_at: Instant,
    /// The start whose buffers readers have; `None` where all frames are copied.
    round: Option<u64>,
    /// Buffers that the driver keeps, whatever readers hold.
    keeps: usize,
    /// By the buffer, the frames that readers find in the driver's own, and how many were published with each.
    lent: Vec<Option<(Lent, u64)>>,
}

impl Publishing<'_> {
    pub fn new(hub: &Hub) -> Publishing<'_> {
        let retry_at = Instant::now();
        Publishing { hub, streams: false, idle_since: None, retry_at, round: None, keeps: 0, lent: Vec::new() }
    }

    /// Starts, stops or publishes a frame, whatever is due. False when the camera has ended for good.
    pub fn step(&mut self, feed: &Arc<dyn Feed>) -> bool {
        if self.is_wanted() && !self.streams && Instant::now() >= self.retry_at {
            let request = self.hub.request();
            if let Err(error) = self.start(feed, &request) {
                return self.fail(feed, error);
            }
        } else if self.streams && !self.is_wanted() {
            self.stop(feed, None);
        }
        if !self.streams {
            return true;
        }
        match feed.clone().next(policy::SHARE_STEP) {
            Ok(frame) => {
                if self.round.is_some_and(|round| round != frame.round()) {
                    self.lend_anew(feed);
                }
                self.publish(frame);
                true
            }
            Err(error) if error.kind() == Kind::Timeout => true,
            Err(error) => self.fail(feed, error),
        }
    }

    fn publish(&mut self, frame: Frame) {
        let told = Told {
            sequence: frame.sequence(),
            timestamp_ns: frame.timestamp_ns(),
            corrupt: frame.is_corrupt(),
            ..Told::default()
        };
        if self.can_lend(&frame) {
            self.lend(frame, told);
        } else {
            let planes: [&[u8]; PLANES_MOST] =
                std::array::from_fn(|plane| if plane < frame.planes() { frame.data(plane) } else { &[] });
            self.hub.publish(&planes[..frame.planes()], told);
        }
        self.take_back();
    }

    /// Whether enough buffers are left with the driver without this frame's.
    fn can_lend(&self, frame: &Frame) -> bool {
        // After a reset of the camera a stream has other buffers than those that readers have.
        let is_theirs = self.round == Some(frame.round()) && frame.index() < self.lent.len();
        let out = self.lent.iter().flatten().count() + 1;
        is_theirs && out + self.keeps <= frame.buffers()
    }

    fn lend(&mut self, frame: Frame, told: Told) {
        let (buffer, mut told) = (frame.index(), told);
        for plane in 0..frame.planes() {
            let (offset, used) = frame.place(plane);
            (told.offset[plane], told.used[plane]) = (offset as u64, used as u64);
        }
        // Before anybody sees it: from then on the buffer must not go back by an accident.
        let lent = frame.lend();
        match self.hub.publish_lent(buffer, told) {
            Some(published) => self.lent[buffer] = Some((lent, published)),
            None => lent.give_back(),
        }
    }

    /// Gives the driver back what nobody reads and nobody is to find any more.
    fn take_back(&mut self) {
        let lent = self.lent.iter().enumerate();
        let published = lent.filter_map(|(buffer, lent)| Some((buffer, lent.as_ref()?.1)));
        let emptied = self.hub.empty_lent(published);
        for (_, place) in self.lent.iter_mut().enumerate().filter(|(buffer, _)| emptied & 1 << buffer != 0) {
            if let Some((lent, _)) = place.take() {
                lent.give_back();
            }
        }
    }

    /// Whether frames are wanted, or were a moment ago.
    fn is_wanted(&mut self) -> bool {
        if self.hub.is_wanted() {
            self.idle_since = None;
            return true;
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        self.streams && since.elapsed() < policy::SHARE_LINGER && !self.hub.is_stopped()
    }

    fn start(&mut self, feed: &Arc<dyn Feed>, request: &StreamRequest) -> Result<()> {
        let (format, lending) = match self.hub.lends() && feed.may_lend() {
            true => self.begin_lending(feed, request)?,
            false => (feed.begin(request)?, None),
        };
        if let Err(error) = self.begin_generation(&format, lending) {
            let _ = feed.end();
            return Err(error);
        }
        self.streams = true;
        Ok(())
    }

    fn begin_generation(&mut self, format: &StreamFormat, lending: Option<Lending>) -> Result<()> {
        let round = lending.as_ref().map(|lending| lending.round);
        let buffers = lending.map_or(Vec::new(), |Lending { buffers, .. }| buffers);
        let count = self.hub.begin_generation(format, buffers)?;
        self.lent.clear();
        self.lent.resize_with(count, || None);
        self.round = round;
        Ok(())
    }

    /// The camera was reset, and its stream has other buffers than those that readers have.
    fn lend_anew(&mut self, feed: &Arc<dyn Feed>) {
        let format = self.hub.format().unwrap_or_default();
        if let Err(error) = self.begin_generation(&format, feed.lend()) {
            log::warn!("shared:{}: {error}", self.hub.name);
            self.round = None; // its frames are copied into the memory that there is
        }
    }

    /// Begins with buffers for readers to hold; where that is too much memory, without.
    fn begin_lending(
        &mut self,
        feed: &Arc<dyn Feed>,
        request: &StreamRequest,
    ) -> Result<(StreamFormat, Option<Lending>)> {
        // The driver is to have as many as if all frames were copied, which takes one at a time.
        let keeps = request.buffers.max(policy::BUFFERS_DEFAULT) - 1;
        let newest = self.hub.history().min(policy::SHARE_LENT_MOST as u32 - policy::SHARE_LENT_HELD);
        let buffers = (keeps + newest + policy::SHARE_LENT_HELD).min(policy::BUFFERS_MOST);
        self.keeps = keeps as usize;
        match feed.begin(&StreamRequest { buffers, ..request.clone() }) {
            Ok(format) if self.hub.has_room(&format) => Ok((format, feed.lend())),
            Ok(_) => {
                feed.end()?;
                Ok((feed.begin(request)?, None))
            }
            Err(error) if error.kind() == Kind::Budget => Ok((feed.begin(request)?, None)),
            Err(error) => Err(error),
        }
    }

    fn stop(&mut self, feed: &Arc<dyn Feed>, trouble: Option<Error>) {
        if self.streams {
            self.streams = false;
            if let Err(error) = feed.end() {
                log::debug!("shared:{}: {error}", self.hub.name);
            }
        }
        self.hub.end_generation(trouble);
        // Not given back: readers may have them still.
        self.lent.clear();
        self.round = None;
    }

    /// What is done about a camera that gives no frames: it is got back, or tried again a little later.
    fn fail(&mut self, feed: &Arc<dyn Feed>, error: Error) -> bool {
        let kind = error.kind();
        if has_ended(kind) {
            // That is no trouble of the readers': they see that the share ends, while their own cameras are open still.
            self.stop(feed, None);
            return false;
        }
        // Its own next step is for the one who has the camera; readers have nothing to do.
        let told = match kind {
            Kind::Disconnected | Kind::Evicted => error.clone().hint_instead("frames come again when it is back"),
            Kind::Io => error.clone().hint_instead("it is started again by itself"),
            _ => error.clone(),
        };
        if !self.hub.has_trouble(&told) {
            log::warn!("shared:{}: {told}", self.hub.name);
        }
        self.stop(feed, Some(told));
        self.retry_at = Instant::now() + policy::SHARE_RETRY;
        match kind {
            Kind::Disconnected | Kind::Evicted => match feed.clone().recover(&error, policy::SHARE_STEP) {
                Ok(()) => {
                    log::info!("shared:{}: the camera is back", self.hub.name);
                    self.retry_at = Instant::now();
                    true
                }
                Err(error) => !has_ended(error.kind()),
            },
            _ => true,
        }
    }

    pub fn carry_out(&mut self, feed: &Arc<dyn Feed>, order: Order) {
        let outcome = match &order.what {
            What::Start => {
                self.hub.set_ordered(true);
                let request = self.hub.request();
                if self.streams { Ok(()) } else { self.start(feed, &request) }
            }
            What::Stop => {
                self.hub.set_ordered(false);
                let stopped =
                    Error::new(Kind::WrongState, format!("shared:{}: it was stopped by command", self.hub.name));
                self.stop(feed, Some(stopped.hint("start it again (camlease ctl NAME start)")));
                Ok(())
            }
            What::Format(request) => self.change_format(feed, request),
        };
        let format = self.hub.format();
        let outcome = outcome.map(|()| map(json!({ "format": format.as_ref().map(wire::of_format) })));
        self.hub.is_done(order, outcome);
    }

    /// Sets another format; the former one again where the driver refuses it.
    fn change_format(&mut self, feed: &Arc<dyn Feed>, request: &StreamRequest) -> Result<()> {
        let former = self.hub.request();
        let streamed = self.streams;
        self.stop(feed, None);
        let set = self.start(feed, request).and_then(|()| {
            let given = self.hub.format().unwrap_or_default();
            let differs = |asked: u32, given: u32| asked != 0 && asked != given;
            if differs(request.width, given.width) || differs(request.height, given.height) {
                return Err(Error::new(
                    Kind::Unsupported,
                    format!(
                        "{}: it has no {}x{}; the nearest is {}x{}",
                        self.hub.identity.uri, request.width, request.height, given.width, given.height
                    ),
                ));
            }
            Ok(())
        });
        match set {
            Ok(()) => {
                self.hub.set_request(request.clone());
                Ok(())
            }
            Err(error) => {
                self.stop(feed, None);
                if !streamed {
                    return Err(error.hint("what is streamed next is what it was"));
                }
                match self.start(feed, &former) {
                    Ok(()) => Err(error.hint("the former format goes on")),
                    Err(again) => {
                        let words = format!("going back to the former format failed, too: {}", again.what());
                        self.fail(feed, again);
                        Err(error.hint(words))
                    }
                }
            }
        }
    }
}

/// Whether the host has closed the camera, or is about to end.
fn has_ended(kind: Kind) -> bool {
    matches!(kind, Kind::Closed | Kind::ShutDown | Kind::Forked)
}
