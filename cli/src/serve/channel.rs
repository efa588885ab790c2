//! The line between the supervisor and a worker: messages in JSON over a pair of sockets. Its end is the other's end.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::config::{Camera, Supervision};

/// A camera's table is some kilobytes; the kernel takes no message beyond 200.
const MESSAGE_MOST: usize = 256 << 10;

/// From the supervisor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// Once, at the beginning.
    Serve { camera: Box<Camera>, supervision: Supervision },
    /// Goes on with other controls, preview and recording.
    Change { camera: Box<Camera> },
    /// Goes on by other rules.
    Rules { supervision: Supervision },
}

/// From the worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum News {
    /// All was well so many milliseconds ago. It goes by the rules that it was sent as often.
    Beat { age_ms: u64, state: State, rules: u64 },
    /// It is about to end because somebody told it to.
    Quit,
}

/// What a worker is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    Starting,
    /// Its camera is not there, or somebody else's.
    Waiting,
    Idle,
    Streaming,
    /// It serves what it cannot get frames of.
    Troubled,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Starting => "starting",
            State::Waiting => "waiting",
            State::Idle => "idle",
            State::Streaming => "streaming",
            State::Troubled => "in trouble",
        }
    }
}

/// One end, which sends one kind of message and receives the other. Neither call waits.
pub struct Channel<Sent, Received> {
    fd: OwnedFd,
    messages: PhantomData<fn(Sent) -> Received>,
}

pub enum Next<Received> {
    Message(Received),
    Nothing,
    End,
}

/// Both ends; no program that is started inherits one that it is not given.
pub fn pair() -> io::Result<(Channel<Order, News>, OwnedFd)> {
    let (own, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    Ok((Channel { fd: own, messages: PhantomData }, other))
}

/// The end that this process was given.
pub fn inherited(number: RawFd) -> io::Result<Channel<News, Order>> {
    // SAFETY: borrowed for one call, which tells where there is no such descriptor.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // SAFETY: it is open, and was passed on for nobody but us.
    Ok(Channel { fd: unsafe { OwnedFd::from_raw_fd(number) }, messages: PhantomData })
}

impl<Sent: Serialize, Received: DeserializeOwned> Channel<Sent, Received> {
    pub fn send(&self, message: &Sent) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        send(self.fd.as_raw_fd(), &text, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
        Ok(())
    }

    pub fn receive(&self) -> Next<Received> {
        let mut bytes = vec![0; MESSAGE_MOST];
        match recv(self.fd.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
            Err(Errno::EAGAIN | Errno::EINTR) => Next::Nothing,
            Ok(0) | Err(_) => Next::End,
            // Both ends are the same program: what cannot be read is an end that went wrong.
            Ok(count) => serde_json::from_slice(&bytes[..count]).map_or(Next::End, Next::Message),
        }
    }
}

impl<Sent, Received> AsFd for Channel<Sent, Received> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    #[test]
    fn what_is_sent_arrives_and_the_end_is_seen() {
        let (supervisor, end) = pair().unwrap();
        let worker = inherited(end.into_raw_fd()).unwrap();
        assert!(matches!(worker.receive(), Next::Nothing));
        let text = "[camera.a]\nuri = \"virtual:a\"\n[camera.a.controls]\n".to_owned()
            + &(0..256)
                .map(|index| format!("{} = {}\n", format!("{index:03}").repeat(21), i64::MIN))
                .collect::<String>();
        let camera = super::super::config::parse(&text, "c").unwrap().cameras.remove(0);
        let order = Order::Change { camera: Box::new(camera) };
        supervisor.send(&order).unwrap();
        assert!(matches!(worker.receive(), Next::Message(received) if received == order), "the largest table fits");
        drop(supervisor);
        assert!(matches!(worker.receive(), Next::End));
        assert!(worker.send(&News::Quit).is_err());
    }
}
