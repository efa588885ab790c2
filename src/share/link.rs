//! A client's connection to a shared camera's process.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use super::filing;
use super::wire::{self, Map, map, number};
use crate::acquire::Entry;
use crate::error::{Error, Kind, Result};
use crate::kernel::{self, Event, Fd, MessageSocket, PASSED_MOST, Received, poll, readable};
use crate::lease::{self, Found, Users};
use crate::policy;

/// What helps where this process has none left.
pub const MORE_DESCRIPTORS: &str = "close some descriptors, or raise the limit (ulimit -n)";

/// Descriptors that come with a message.
pub type Passed = Vec<Fd>;

/// A camera that somebody shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    pub name: String,
    /// 0 for a process of another container.
    pub pid: i32,
    pub uid: u32,
    pub streaming: bool,
}

/// All cameras that are shared on this machine, as far as this user can know of them.
pub fn shares() -> Vec<Served> {
    let of_name = |name: String| {
        let Some(found) = serving(&name) else {
            lease::clear_away(&filing(&name, Users::Peers));
            return None;
        };
        Some(Served { name, pid: found.pid, uid: found.uid, streaming: found.record.streaming })
    };
    lease::signs().into_iter().filter_map(of_name).collect()
}

/// Who serves a name: this user before root before its groups. Somebody else only where none of these does: anybody can
/// take a name that is free, and whoever opens it asks for it.
pub fn serving(name: &str) -> Option<Found> {
    serving_after(name, None)
}

/// The same for one who has read from a process of that user: a stranger who takes the name while it is free is not whom
/// that one opened.
fn serving_after(name: &str, before: Option<u32>) -> Option<Found> {
    let rank = |found: &Found| match found.uid {
        own if own == kernel::effective_user() => 0,
        0 => 1,
        _ => 2,
    };
    let first = |users| {
        let all = lease::find(&[filing(name, users)]).into_iter();
        all.filter(|found| before.is_none_or(|before| found.uid == before || rank(found) < 2)).min_by_key(rank)
    };
    first(Users::Peers).or_else(|| first(Users::All))
}

/// Sends one command to a shared camera's process; its answer.
pub fn command(name: &str, request: Map, timeout: Duration) -> Result<Map> {
    let caller = Caller { name, holder: "", monitor: false, before: None };
    let shutdown = Entry::new()?;
    let ends = [shutdown.event.clone()];
    let (link, _) = Link::connect(&caller, timeout, &ends)?;
    link.ask(request, timeout, &ends)
}

/// Who connects, and to whom.
pub struct Caller<'a> {
    /// The camera's.
    pub name: &'a str,
    /// What this one calls itself.
    pub holder: &'a str,
    /// It will command nothing.
    pub monitor: bool,
    /// The user whose process it was connected to before: beside that, root and this user alone are trusted now.
    pub before: Option<u32>,
}

pub struct Link {
    socket: MessageSocket,
    name: String,
    user: u32,
    asked: AtomicU64,
    /// For what comes: of so much the kernel gives what is used.
    room: RefCell<Vec<u8>>,
}

/// What came over a link.
pub enum News {
    Nothing,
    Message(Map, Passed),
    /// Something that could not be received as it was sent.
    Broken(Error),
    /// The process at the other end is gone, or sent this one away.
    Gone,
}

impl Link {
    /// Connects to whoever serves the name; what it says of the camera.
    pub fn connect(caller: &Caller, patience: Duration, ends: &[Arc<Event>]) -> Result<(Link, Map)> {
        let (link, hello) = Link::greet(caller)?;
        let welcome = link.answer(hello, patience, ends)?;
        Ok((link, welcome))
    }

    /// Connects, and says hello without waiting for the answer; what [`Link::answer`] takes.
    pub fn greet(caller: &Caller) -> Result<(Link, Result<u64>)> {
        let Caller { name, holder, monitor, before } = *caller;
        let Some(found) = serving_after(name, before) else {
            // Who cannot look finds nobody.
            kernel::has_room_for(policy::LOOK_UP_DESCRIPTORS).map_err(|error| {
                Error::system(format!("shared:{name}: looking for its process"), error).hint(MORE_DESCRIPTORS)
            })?;
            lease::clear_away(&filing(name, Users::Peers));
            let nobody = Error::new(Kind::NotFound, format!("shared:{name}: nobody serves a camera by this name"));
            return Err(match before.and_then(|_| serving(name)) {
                Some(stranger) => {
                    nobody.hint(format!("user {} has taken the name: open it anew to read that", stranger.uid))
                }
                None => nobody.hint(others(name)),
            });
        };
        let failed = |error: std::io::Error| match error.kind() {
            ErrorKind::PermissionDenied => {
                Error::new(Kind::Permission, format!("shared:{name}: user {} serves it for others", found.uid))
                    .hint("its readers setting says who may read it")
            }
            // It ended just now.
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => {
                Error::new(Kind::NotFound, format!("shared:{name}: nobody serves a camera by this name any more"))
            }
            ErrorKind::WouldBlock => Error::new(Kind::Timeout, format!("shared:{name}: its process does not answer")),
            _ => Error::system(format!("shared:{name}: connecting to its process"), error),
        };
        let socket = MessageSocket::connect(found.door()).map_err(failed)?;
        // Somebody else may have put a socket there, where the other has none.
        if !socket.peer().is_ok_and(|peer| peer.uid == found.uid || peer.uid == 0) {
            return Err(Error::new(Kind::Permission, format!("shared:{name}: another user listens in its name")));
        }
        let link = Link::new(socket, name, found.uid);
        let hello = map(json!({ "do": "hello", "name": holder, "monitor": monitor }));
        let sent = link.send(hello);
        Ok((link, sent))
    }

    /// One whose other end is not a shared camera's process.
    #[cfg(any(test, fuzzing))]
    pub fn over(socket: MessageSocket) -> Link {
        Link::new(socket, "", 0)
    }

    fn new(socket: MessageSocket, name: &str, user: u32) -> Link {
        let room = RefCell::new(vec![0; policy::ANSWER_MOST]);
        Link { socket, name: name.to_owned(), user, asked: AtomicU64::new(0), room }
    }

    /// Whose process is at the other end.
    pub fn user(&self) -> u32 {
        self.user
    }

    /// Readable when something came.
    pub fn fd(&self) -> RawFd {
        self.socket.fd()
    }

    pub fn send(&self, mut request: Map) -> Result<u64> {
        let id = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        request.insert("id".into(), id.into());
        let line = wire::to_line(request);
        if line.len() > policy::MESSAGE_MOST {
            let message = format!("shared:{}: a command has {} bytes at most", self.name, policy::MESSAGE_MOST);
            return Err(Error::new(Kind::InvalidArgument, message));
        }
        self.socket.send(&line, &[]).map(|()| id).map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => self.gone(),
            _ => Error::system(format!("shared:{}: speaking to its process", self.name), error),
        })
    }

    /// What came next, without waiting.
    pub fn news(&self) -> News {
        let mut room = self.room.borrow_mut();
        let receive = |room: &mut [u8]| self.socket.receive_all::<PASSED_MOST>(room);
        let received = receive(&mut room).or_else(|error| match error.kind() {
            // It hung up before it had read all. That comes first; what it said before, why perhaps, is still to be read.
            ErrorKind::ConnectionReset => receive(&mut room),
            _ => Err(error),
        });
        match received {
            Ok(Received { length: 0, .. }) => News::Gone,
            Ok(Received { is_cut: true, .. }) => {
                let most = policy::ANSWER_MOST;
                let message = format!("shared:{}: what its process says is longer than {most} bytes", self.name);
                News::Broken(Error::new(Kind::Internal, message))
            }
            Ok(Received { has_lost: true, .. }) => {
                let cause = std::io::Error::from_raw_os_error(libc::EMFILE);
                News::Broken(
                    Error::system(format!("shared:{}: receiving its memory", self.name), cause).hint(MORE_DESCRIPTORS),
                )
            }
            Ok(Received { length, passed, .. }) => match wire::parse(&room[..length]) {
                Some(message) => News::Message(message, passed.into_iter().map_while(|fd| fd).collect()),
                None => News::Gone,
            },
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => News::Nothing,
            Err(_) => News::Gone,
        }
    }

    /// Whether the process at the other end is gone. Events that came are lost by that.
    pub fn is_gone(&self) -> bool {
        for _ in 0..policy::MESSAGES_AT_ONCE {
            match self.news() {
                News::Nothing => return false,
                News::Message(..) | News::Broken(_) => {}
                News::Gone => return true,
            }
        }
        false
    }

    /// Waits for what comes after what came, and for no longer than that: who never stops speaking is no reason to stay.
    /// What came in time counts also where this thread was late to see it.
    pub fn await_more(&self, deadline: Instant, ends: &[Arc<Event>]) -> Result<()> {
        let late = Instant::now() >= deadline;
        let mut fds: Vec<_> = ends.iter().map(|end| readable(end.fd())).collect();
        fds.push(readable(self.fd()));
        let came = poll(&mut fds, Some(deadline))
            .map_err(|error| Error::system(format!("shared:{}: waiting", self.name), error))?;
        if fds[..ends.len()].iter().any(|end| end.revents != 0) {
            return Err(Error::new(Kind::Closed, format!("shared:{}: the wait for its process was ended", self.name)));
        }
        match came && !late {
            true => Ok(()),
            false => Err(Error::new(Kind::Timeout, format!("shared:{}: its process does not answer", self.name))
                .hint("it may be waiting for the camera; a supervisor replaces one that hangs")),
        }
    }

    /// Asks, and waits for the answer, or until one of the ends is signalled. Events that come before it are lost: a link
    /// that reads asks nothing else.
    pub fn ask(&self, request: Map, timeout: Duration, ends: &[Arc<Event>]) -> Result<Map> {
        self.answer(self.send(request), timeout, ends)
    }

    /// Waits for the answer to what was sent.
    fn answer(&self, id: Result<u64>, timeout: Duration, ends: &[Arc<Event>]) -> Result<Map> {
        let deadline = Instant::now() + timeout.min(policy::FOR_EVER);
        // What is not answered for want of permission is refused before the request is read.
        if let Err(error) = &id
            && error.kind() != Kind::Disconnected
        {
            return Err(error.clone());
        }
        loop {
            match self.news() {
                News::Message(message, _) => match (number(&message, "id"), message.get("ok")) {
                    (Some(answered), Some(ok)) if id.as_ref().is_ok_and(|id| *id == answered) => {
                        return if ok == true { Ok(message) } else { Err(wire::failure_of(&message)) };
                    }
                    (None, Some(ok)) if ok == false => return Err(wire::failure_of(&message)),
                    _ => {}
                },
                News::Gone => return Err(id.err().unwrap_or_else(|| self.gone())),
                News::Broken(error) => return Err(error),
                News::Nothing => {}
            }
            self.await_more(deadline, ends)?;
        }
    }

    pub fn gone(&self) -> Error {
        Error::new(Kind::Disconnected, format!("shared:{}: its process is gone", self.name))
            .hint("it is attached again when that returns")
    }
}

/// What else could have been meant.
fn others(name: &str) -> String {
    let others: Vec<String> = shares().into_iter().map(|served| served.name).filter(|other| other != name).collect();
    match others.is_empty() {
        true => "none is shared now; start one with camlease serve, or camlease_share_start()".into(),
        false => format!("shared now: {}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Link, MessageSocket) {
        let (here, there) = MessageSocket::pair().unwrap();
        (Link::over(here), there)
    }

    fn status() -> Map {
        map(json!({ "do": "status" }))
    }

    #[test]
    fn a_wait_ends_when_it_is_to() {
        let (link, _there) = pair();
        let ends = [Arc::new(Event::new().unwrap()), Arc::new(Event::new().unwrap())];
        std::thread::scope(|scope| {
            scope.spawn(|| ends[1].signal());
            assert_eq!(link.ask(status(), Duration::MAX, &ends).unwrap_err().kind(), Kind::Closed);
        });
    }

    #[test]
    fn what_does_not_come_whole_is_told() {
        let (link, there) = pair();
        let room = Link { room: RefCell::new(vec![0; 64]), ..link };
        there.send(&[b' '; 65], &[]).unwrap();
        let long = room.ask(status(), Duration::from_secs(20), &[]).unwrap_err();
        assert!(long.kind() == Kind::Internal && long.message().contains("longer than"), "{long}");
        assert!(!room.is_gone());
        let file = Fd::open("/dev/null".as_ref(), libc::O_RDONLY).unwrap();
        there.send(b"{}", &[&file; 3]).unwrap();
        let part = room.socket.receive_all::<2>(&mut [0; 2]).unwrap();
        assert!(part.has_lost && !part.is_cut && part.passed.iter().all(Option::is_some));
    }

    #[test]
    fn who_never_stops_speaking_is_not_listened_to_for_ever() {
        let (link, there) = pair();
        let stop = Event::new().unwrap();
        std::thread::scope(|scope| {
            let floods = scope.spawn(|| {
                let mut seen = [readable(stop.fd())];
                while !poll(&mut seen, Some(Instant::now())).unwrap() {
                    let _ = there.send(br#"{"camlease":1,"event":"trouble"}"#, &[]);
                }
            });
            let begun = Instant::now();
            let late = link.ask(status(), Duration::from_millis(100), &[]).unwrap_err();
            assert_eq!(late.kind(), Kind::Timeout, "{late}");
            assert!(!link.is_gone());
            assert!(begun.elapsed() < Duration::from_secs(10));
            stop.signal();
            floods.join().unwrap();
        });
    }
}
