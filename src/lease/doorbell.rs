//! The holder's side of a hand-over: a thread that listens for those who ask for the camera.

use std::ffi::CStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use super::Asker;
use super::ask::{self, GONE, HANDED, KEPT, YIELDS};
use crate::kernel::{self, Event, Fd, MessageSocket, poll, readable};
use crate::worker::Worker;
use crate::{policy, timed};

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
}

pub struct Doorbell {
    worker: Worker,
    door: Arc<Mutex<Option<Weak<dyn Door>>>>,
    path: PathBuf,
}

impl Doorbell {
    /// Listens at a path that does not exist yet. Nobody is there before [`Doorbell::begin`].
    pub fn hang(path: &Path) -> io::Result<Doorbell> {
        let socket = MessageSocket::listen(path)?;
        let door = Arc::<Mutex<Option<Weak<dyn Door>>>>::default();
        let opens = door.clone();
        let worker = Worker::start(THREAD, move |stop| serve(socket, stop, &opens));
        let worker = worker.inspect_err(|_| drop(std::fs::remove_file(path)))?;
        Ok(Doorbell { worker, door, path: path.to_owned() })
    }

    /// The camera is there to be asked for. Its thread is not woken: that would take the processor from whoever has
    /// just got the camera.
    pub fn begin(&self, door: Weak<dyn Door>) {
        *timed::lock(&self.door) = Some(door);
    }

    pub fn stop(&self) {
        self.worker.stop();
    }

    /// Ends it. A hand-over that is under way is finished first, but not waited for beyond the deadline.
    pub fn end_by(self, deadline: Instant) {
        if !self.worker.end_by(deadline) {
            log::warn!("{}: a callback about a hand-over does not return", self.path.display());
        }
    }
}

fn serve(socket: MessageSocket, stop: &Event, door: &Mutex<Option<Weak<dyn Door>>>) {
    loop {
        let mut fds = [readable(socket.fd()), readable(stop.fd())];
        if poll(&mut fds, None).is_err() || fds[1].revents != 0 {
            return;
        }
        // One who hung up again is no reason to end, and one who comes before the camera is there finds nobody.
        let caller = match socket.accept() {
            Ok(caller) => caller,
            Err(error) => {
                if kernel::is_shortage(&error) {
                    // The caller stays in the queue: without a pause this would go round and round.
                    let _ = poll(&mut fds[1..], Some(Instant::now() + policy::ACCEPT_PAUSE));
                }
                continue;
            }
        };
        let Some(door) = timed::lock(door).clone() else { continue };
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
    let Ok(length) = caller.receive_words(&mut bytes) else { return false };
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
            let _ = caller.send(format!("{KEPT}{reason}").as_bytes(), &[]);
            false
        }
        Verdict::Gone => {
            let _ = caller.send(GONE, &[]);
            true
        }
        Verdict::Yield => {
            let _ = caller.send(YIELDS, &[]);
            let sent = match door.hand_over(Instant::now() + asker.grace) {
                HandedOver::Camera(camera) => {
                    let sent = caller.send(HANDED, &[&camera]);
                    drop(camera); // before the hang-up, by which the other one knows it gone
                    sent
                }
                HandedOver::Free => caller.send(GONE, &[]),
            };
            if let Err(error) = sent {
                log::info!("the one who asked (pid {}) has gone: {error}", asker.pid);
            }
            true
        }
    }
}
