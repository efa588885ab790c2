//! Any bytes from clients of a shared camera, heard as the listening thread hears them.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::{Client, Server};
use crate::backend::Identity;
use crate::error::{Error, Kind, Result};
use crate::format::{Control, ControlKind, Format, FourCc, Rate, StreamFormat, StreamRequest};
use crate::frame::Frame;
use crate::kernel::{Fd, MessageSocket};
use crate::policy;
use crate::share::hub::Hub;
use crate::share::memory::Mapping;
use crate::share::publish::Publishing;
use crate::share::ring::Told;
use crate::share::wire;
use crate::share::{Feed, Lending, ShareOptions};

const CLIENTS: usize = 2;

/// Lines: each is a message of a client's, but for those that begin with one of these.
///   0, 1      which client speaks from here on
///   +         a frame is published
///   >         the thread that streams carries out what was ordered
///   @         words of a reader's page are overwritten by what follows
///   !         a client hangs up
pub fn hear(data: &[u8]) {
    let camera: Arc<dyn Feed> = Arc::new(Camera);
    let options = ShareOptions { name: "hostile".into(), max_bytes: 128 << 10, ..ShareOptions::default() };
    let Ok(hub) = Hub::new(options, Identity::default(), Some(Arc::downgrade(&camera) as Weak<dyn Feed>)) else {
        return;
    };
    let hub = Arc::new(hub);
    let mut server = Server {
        hub: &hub,
        clients: Vec::new(),
        next: 1,
        controller: None,
        room: vec![0; policy::MESSAGE_MOST],
        spare: None,
    };
    let mut publisher = Publishing::new(&hub);
    let mut ends: Vec<Option<End>> = (0..CLIENTS).map(|_| End::enter(&mut server)).collect();
    let (mut at, mut room) = (0, vec![0; policy::ANSWER_MOST]);
    for line in data.split(|byte| *byte == b'\n').take(64) {
        match line.first() {
            Some(digit @ b'0'..=b'1') if line.len() == 1 => at = usize::from(digit - b'0'),
            Some(b'+') => {
                hub.publish(&[line, line], Told { sequence: 1, timestamp_ns: line.len() as i64, ..Told::default() });
            }
            Some(b'>') => {
                while let Some(order) = hub.next_order() {
                    publisher.carry_out(&camera, order);
                }
                publisher.step(&camera);
                server.pass_results_on();
            }
            Some(b'@') => ends[at].iter_mut().for_each(|end| end.spoil(&line[1..])),
            Some(b'!') => ends[at] = None,
            _ => {
                let Some(end) = &ends[at] else { continue };
                if line.is_empty() || end.socket.send(line, &[]).is_err() {
                    continue;
                }
            }
        }
        // As much as the loop does, without its waiting.
        server.hear(1 + at as u64);
        server.pass_results_on();
        ends.iter_mut().flatten().for_each(|end| end.read(&mut room));
    }
    assert!(server.clients.len() <= CLIENTS && hub.info().readers <= server.clients.len());
    wire::to_line(server.status());
}

/// A client's end of a connection, and what came over it.
struct End {
    socket: MessageSocket,
    /// The page that it was given.
    page: Option<Mapping>,
}

impl End {
    fn enter(server: &mut Server<'_>) -> Option<End> {
        let (socket, other) = MessageSocket::pair().ok()?;
        let peer = other.peer().ok()?;
        let now = Instant::now();
        server.clients.push(Client {
            id: server.next,
            socket: Arc::new(other),
            peer,
            name: None,
            may_read: true,
            may_command: true,
            came: now,
            credit: 1e9,
            credited: now,
        });
        server.next += 1;
        Some(End { socket, page: None })
    }

    /// Whatever the server says is a message, and one that a reader of ours understands.
    fn read(&mut self, room: &mut [u8]) {
        while let Ok((length @ 1.., [file, page, _wake])) = self.socket.receive_with::<3>(room) {
            let message = wire::parse(&room[..length]).expect("the server says what is no message");
            if wire::word(&message, "event") == Some("generation") {
                let file: Fd = file.expect("a ring without memory");
                let bytes = file.as_file().metadata().map_or(0, |about| about.len());
                wire::generation_of(&message, bytes).expect("a ring that is not sound");
                self.page = page.and_then(|page| Mapping::of(&page, policy::PAGE, true).ok());
            } else if message.get("ok") == Some(&false.into()) {
                assert!(!wire::failure_of(&message).message().is_empty());
            }
        }
    }

    fn spoil(&mut self, bytes: &[u8]) {
        if let Some(page) = &self.page {
            page.write(0, &bytes[..bytes.len().min(48)]);
        }
    }
}

/// A camera that does what it is told as far as it can.
struct Camera;

impl Feed for Camera {
    fn formats(&self) -> Result<Vec<Format>> {
        Ok(vec![Format {
            fourcc: FourCc::default(),
            description: "\"\\\u{1}".into(),
            compressed: false,
            width: (1, 64, 1),
            height: (1, 64, 1),
            slowest: Rate::new(1, 1),
            fastest: Rate::new(30, 1),
        }])
    }

    fn controls(&self) -> Result<Vec<Control>> {
        Ok(vec![Control {
            id: 7,
            name: "Brightness".into(),
            kind: ControlKind::Menu,
            minimum: i64::MIN,
            maximum: i64::MAX,
            step: 1,
            default: 0,
            readable: true,
            writable: true,
            active: true,
            menu: vec![(1, "One".into())],
        }])
    }

    fn control(&self, id: u32) -> Result<i64> {
        Ok(id.into())
    }

    fn set_control(&self, id: u32, value: i64) -> Result<()> {
        match value {
            0 => Err(Error::new(Kind::InvalidArgument, format!("control {id} cannot be 0"))),
            _ => Ok(()),
        }
    }

    fn may_lend(&self) -> bool {
        false
    }

    fn lend(&self) -> Option<Lending> {
        None
    }

    fn begin(&self, request: &StreamRequest) -> Result<StreamFormat> {
        let (width, height) = (request.width.max(1), request.height.max(1));
        if width > 64 || height > 64 {
            return Err(Error::new(Kind::Unsupported, format!("no {width}x{height}")));
        }
        let planes = vec![(width * 2, (width * height * 2) as usize); 1 + (width % 3) as usize];
        let (fourcc, rate) = (request.fourcc, request.rate);
        Ok(StreamFormat { width, height, fourcc, rate, stride: width * 2, planes, buffers: 4 })
    }

    fn end(&self) -> Result<()> {
        Ok(())
    }

    fn next(self: Arc<Self>, _timeout: Duration) -> Result<Frame> {
        Err(Error::new(Kind::Timeout, "none"))
    }

    fn recover(self: Arc<Self>, reason: &Error, _timeout: Duration) -> Result<()> {
        Err(reason.clone())
    }
}
