//! What a camera process asks of the library to share its camera.

use std::sync::Arc;
use std::time::Duration;

use camlease::{
    Allowed, Camera, Commands, DropPolicy, FourCc, LateAnswer, Map, Rate, ShareOptions, ShareStart, StreamRequest,
};

use super::channel::State;
use super::config::{self, Drop, Start, Who};
use super::desk::Desk;

pub fn share(camera: &Camera, config: &config::Camera, desk: Arc<Desk>) -> camlease::Result<()> {
    camera.share(options(config, desk))
}

pub fn options(config: &config::Camera, desk: Arc<Desk>) -> ShareOptions {
    ShareOptions {
        name: config.name.clone(),
        readers: allowed(&config.readers),
        commanders: allowed(&config.commanders),
        request: StreamRequest {
            width: config.width,
            height: config.height,
            fourcc: FourCc::parse(&config.format).unwrap_or_default(),
            rate: Rate { numerator: config.fps.0, denominator: config.fps.1 },
            buffers: config.buffers,
            drop_policy: match config.drop {
                Drop::Oldest => DropPolicy::Oldest,
                Drop::Newest => DropPolicy::Newest,
            },
            ..StreamRequest::default()
        },
        start: match config.start {
            Start::Always => ShareStart::Always,
            Start::OnDemand => ShareStart::OnDemand,
        },
        history: config.history,
        max_bytes: config.max_bytes,
        commands: Some(Arc::new(AtTheDesk(desk))),
        ..ShareOptions::default()
    }
}

pub fn allowed(who: &Who) -> Allowed {
    match who {
        Who::Owner => Allowed::Owner,
        Who::Group(group) => Allowed::Group(*group),
        Who::Everyone => Allowed::Everyone,
    }
}

/// Passes on what the library does not know itself.
struct AtTheDesk(Arc<Desk>);

impl Commands for AtTheDesk {
    fn command(&self, verb: &str, request: &Map) -> Option<camlease::Result<Map>> {
        self.0.command(verb, request)
    }

    fn begin(&self, verb: &str, request: &Map, answer: LateAnswer) -> Option<LateAnswer> {
        self.0.begin_command(verb, request, answer)
    }

    fn status(&self) -> Map {
        self.0.status()
    }
}

/// How a shared camera fares, how long ago that was certain, and why it gives no frames. `None` where it is not shared any
/// more.
pub fn look(camera: &Camera) -> Option<(State, Duration, Option<String>)> {
    let info = camera.share_info()?;
    let state = match (&info.trouble, info.streaming) {
        (Some(_), _) => State::Troubled,
        (None, true) => State::Streaming,
        (None, false) => State::Idle,
    };
    Some((state, info.pulse, info.trouble))
}

/// Readers see that it is gone; its stream ends.
pub fn end(camera: &Camera) {
    let _ = camera.unshare();
}
