//! The holder's side of a hand-over: a thread that listens for those who ask for the camera.

use std::ffi::CStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Asker;
use super::ask::{self, GONE, HANDED, KEPT, YIELDS};
use crate::kernel::{self, Event, Fd, MessageSocket, Thread, poll, readable};
use crate::policy;

const THREAD: &CStr = c"camlease-lease";

/// What opens when the bell rings: the camera.
pub trait Door: Send + Sync {
    /// Whether the one who asks gets it. After a yes the camera has ended for its host.
    fn asked(&self, asker: &Asker) -> Verdict;

    /// Ends the camera's use, by the deadline at the latest, and gives up its open file.
    fn hand_over(&self, deadline: Instant) -> HandedOver;
}

pub enum Verdict {
    /// It is kept, for this reason.
    Keep(String),
    Yield,
    /// It was closed just now.
    Gone,
}

pub enum HandedOver {
    /// The camera's open file, to be passed on.
    Camera(Fd),
    /// It is free: there was nothing to pass on.
    Free,
    /// Its driver does not return.
    Hangs,
}

pub struct Doorbell {
    thread: Thread,
    stop: Arc<Event>,
    path: PathBuf,
}

impl Doorbell {
    /// Listens at a path that does not exist yet, for as long as `door` is there.
    pub fn hang(path: &Path, door: Weak<dyn Door>) -> io::Result<Doorbell> {
        let socket = MessageSocket::listen(path)?;
        let stop = Arc::new(Event::new()?);
        let stopped = stop.clone();
        let thread = Thread::start(THREAD, move || serve(socket, &stopped, door));
        let thread = thread.inspect_err(|_| drop(std::fs::remove_file(path)))?;
        Ok(Doorbell { thread, stop, path: path.to_owned() })
    }

    pub fn stop(&self) {
        self.stop.signal();
    }

    /// Ends it. A hand-over that is under way is finished first, but not waited for beyond the deadline.
    pub fn end_by(self, deadline: Instant) {
        if !self.stop.is_own() {
            return; // a parent's
        }
        self.stop();
        let _ = std::fs::remove_file(&self.path);
        if self.thread.is_current() {
            // The host closes the camera in the callback about the one who asks.
            self.thread.detach();
        } else if !self.thread.join_by(deadline) {
            log::warn!("{}: a callback about a hand-over does not return", self.path.display());
        }
    }
}

fn serve(socket: MessageSocket, stop: &Event, door: Weak<dyn Door>) {
    loop {
        let mut fds = [readable(socket.fd()), readable(stop.fd())];
        if poll(&mut fds, None).is_err() || fds[1].revents != 0 {
            return;
        }
        // One who hung up again is no reason to end.
        let Ok(caller) = socket.accept() else { continue };
        let Some(door) = door.upgrade() else { return };
        if answer(&caller, stop, door.as_ref()) {
            return;
        }
    }
}

/// Hears one who asks. True when the camera is the holder's no longer.
fn answer(caller: &MessageSocket, stop: &Event, door: &dyn Door) -> bool {
    // The socket's mode lets only this user and root in; the kernel's word on who it is stands all the same.
    let Some(peer) = caller.peer().ok().filter(|peer| peer.uid == 0 || peer.uid == kernel::effective_user()) else {
        return false;
    };
    let deadline = Instant::now() + policy::ASK_PATIENCE;
    let mut fds = [readable(caller.fd()), readable(stop.fd())];
    if !poll(&mut fds, Some(deadline)).unwrap_or(false) || fds[0].revents == 0 {
        return false;
    }
    let mut bytes = [0u8; policy::PAGE];
    let Ok((length, _unwanted)) = caller.receive(&mut bytes) else { return false };
    let text = std::str::from_utf8(&bytes[..length]).ok();
    // One who has given up gets nothing, and its holder is not to lose the camera to nobody.
    let mut hangup = [readable(caller.fd())];
    if poll(&mut hangup, Some(Instant::now())).is_err() || hangup[0].revents & libc::POLLHUP != 0 {
        return false;
    }
    // One who only looks who is here hangs up without a word.
    let Some(asker) = text.and_then(|text| ask::parse(text, peer)) else { return false };
    match door.asked(&asker) {
        Verdict::Keep(reason) => {
            let _ = caller.send(format!("{KEPT}{reason}").as_bytes(), None);
            false
        }
        Verdict::Gone => {
            let _ = caller.send(GONE, None);
            true
        }
        Verdict::Yield => {
            let _ = caller.send(YIELDS, None);
            let sent = match door.hand_over(Instant::now() + asker.grace) {
                HandedOver::Camera(camera) => caller.send(HANDED, Some(&camera)),
                HandedOver::Free => caller.send(GONE, None),
                HandedOver::Hangs => caller.send(format!("{KEPT}its driver does not return").as_bytes(), None),
            };
            if let Err(error) = sent {
                log::info!("the one who asked (pid {}) has gone: {error}", asker.pid);
            }
            true
        }
    }
}

/// The longest grace that is waited for: one who asks with more has made a mistake.
pub const GRACE_MOST: Duration = Duration::from_secs(3600);
