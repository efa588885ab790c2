//! The thread that streams from a camera and publishes its frames. It alone starts and stops the stream of a camera that
//! is shared.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use serde_json::json;

use super::Feed;
use super::hub::{Hub, Order, What};
use super::ring::{PLANES_MOST, Told};
use super::wire::{self, map};
use crate::error::{Error, Kind, Result};
use crate::format::StreamRequest;
use crate::kernel::{Event, monotonic_ns, poll, readable};
use crate::{fork, policy};

pub fn run(hub: &Hub, stop: &Event) {
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
    hub.end_generation(None);
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
}

impl Publishing<'_> {
    pub fn new(hub: &Hub) -> Publishing<'_> {
        Publishing { hub, streams: false, idle_since: None, retry_at: Instant::now() }
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
                let planes: [&[u8]; PLANES_MOST] =
                    std::array::from_fn(|plane| if plane < frame.planes() { frame.data(plane) } else { &[] });
                let told = Told {
                    sequence: frame.sequence(),
                    timestamp_ns: frame.timestamp_ns(),
                    corrupt: frame.is_corrupt(),
                    ..Told::default()
                };
                self.hub.publish(&planes[..frame.planes()], told);
                true
            }
            Err(error) if error.kind() == Kind::Timeout => true,
            Err(error) => self.fail(feed, error),
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
        let format = feed.begin(request)?;
        if let Err(error) = self.hub.begin_generation(&format) {
            let _ = feed.end();
            return Err(error);
        }
        self.streams = true;
        Ok(())
    }

    fn stop(&mut self, feed: &Arc<dyn Feed>, trouble: Option<Error>) {
        if self.streams {
            self.streams = false;
            if let Err(error) = feed.end() {
                log::debug!("shared:{}: {error}", self.hub.name);
            }
        }
        self.hub.end_generation(trouble);
    }

    /// What is done about a camera that gives no frames: it is got back, or tried again a little later.
    fn fail(&mut self, feed: &Arc<dyn Feed>, error: Error) -> bool {
        if !self.hub.has_trouble(&error) {
            log::warn!("shared:{}: {error}", self.hub.name);
        }
        let kind = error.kind();
        self.stop(feed, Some(error.clone()));
        self.retry_at = Instant::now() + policy::SHARE_RETRY;
        match kind {
            Kind::Closed | Kind::ShutDown | Kind::Forked => false,
            Kind::Disconnected | Kind::Evicted => match feed.clone().recover(&error, policy::SHARE_STEP) {
                Ok(()) => {
                    log::info!("shared:{}: the camera is back", self.hub.name);
                    self.retry_at = Instant::now();
                    true
                }
                Err(error) => !matches!(error.kind(), Kind::Closed | Kind::ShutDown | Kind::Forked),
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
                if streamed && let Err(again) = self.start(feed, &former) {
                    self.fail(feed, again);
                }
                Err(error.hint("the former format goes on"))
            }
        }
    }
}
