//! Asking a holder for its camera, over the socket beside its lease.

use std::fmt;
use std::io::ErrorKind;
use std::os::fd::RawFd;
use std::path::Path;
use std::time::{Duration, Instant};

use super::record::{field, number, one_line};
use super::{Asker, Filing, Found, find};
use crate::error::{Error, Kind, Result};
use crate::kernel::{self, Fd, MessageSocket, Peer, poll, readable};
use crate::policy;

const HEAD: &str = "camlease ask 1\n";

// A holder's answers.
pub const KEPT: &str = "kept ";
pub const YIELDS: &[u8] = b"yields";
pub const HANDED: &[u8] = b"handed";
pub const GONE: &[u8] = b"gone";

/// What is asked.
#[derive(Debug, Clone)]
pub struct Petition {
    /// Who asks, in its own words.
    pub name: String,
    pub priority: i32,
    /// The holder yields whatever its priority: it is being evicted.
    pub must: bool,
    /// How long it may take to finish with its frames.
    pub grace: Duration,
}

/// A holder that was asked.
pub struct Ask {
    socket: MessageSocket,
    holder: Found,
}

/// How an ask stands.
pub enum Progress {
    /// No answer yet, or a yes and the camera is not here yet.
    Pending,
    /// It keeps the camera, for this reason.
    Refused(String),
    /// The open camera itself: dropping it lets the camera go.
    Handed(Fd),
    /// The holder hung up: it is gone, or let the camera go without handing it over.
    Gone,
}

impl Ask {
    /// Asks the process `pid` for one of these cameras. `None` where it has no lease on one; a failure
    /// where it cannot be asked: another user's, or it does not listen.
    pub fn begin(filings: &[Filing], pid: i32, petition: &Petition) -> Option<Result<Ask>> {
        let holder = find(filings).into_iter().find(|found| found.pid == pid)?;
        Some(Ask::of(holder, petition))
    }

    pub fn of(holder: Found, petition: &Petition) -> Result<Ask> {
        let who = holder.words();
        let socket = MessageSocket::connect(&holder.door).map_err(|error| match error.kind() {
            ErrorKind::PermissionDenied => Error::new(Kind::Permission, format!("{who} cannot be asked"))
                .hint("only the same user and root may ask a holder"),
            ErrorKind::WouldBlock => Error::new(Kind::Timeout, format!("{who} does not answer")),
            _ => Error::system(format!("asking {who}"), error),
        })?;
        // Somebody else may have put a socket there, where the holder has none.
        let is_holders = |peer: &Peer| peer.uid == holder.uid || peer.uid == 0;
        if !socket.peer().is_ok_and(|peer| is_holders(&peer)) {
            return Err(Error::new(
                Kind::Permission,
                format!("{who} cannot be asked: another user listens in its name"),
            ));
        }
        let text = format!(
            "{HEAD}priority {}\nmust {}\ngrace {}\nname {}\n",
            petition.priority,
            u8::from(petition.must),
            petition.grace.as_millis(),
            one_line(&petition.name)
        );
        socket.send(text.as_bytes(), &[]).map_err(|error| Error::system(format!("asking {who}"), error))?;
        Ok(Ask { socket, holder })
    }

    pub fn holder(&self) -> &Found {
        &self.holder
    }

    /// Readable when [`Ask::progress`] has news.
    pub fn fd(&self) -> RawFd {
        self.socket.fd()
    }

    /// Waits until the holder hangs up, which it does when it has let go of all that it handed over.
    pub fn await_end(&self, deadline: Instant) {
        let _ = poll(&mut [readable(self.fd())], Some(deadline));
    }

    pub fn progress(&mut self) -> Progress {
        let mut bytes = [0u8; policy::PAGE];
        // A user whose process keeps a copy could go on meddling with it: from another user than root the camera is not
        // taken, but claimed anew once it is let go of.
        let received = match [0, kernel::effective_user()].contains(&self.holder.uid) {
            true => self.socket.receive(&mut bytes),
            false => self.socket.receive_words(&mut bytes).map(|length| (length, None)),
        };
        let (length, passed) = match received {
            Ok(message) => message,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Progress::Pending;
            }
            Err(_) => return Progress::Gone,
        };
        match (&bytes[..length], passed) {
            // One message for each call: a holder that goes on talking must not keep the one who asks.
            (YIELDS, _) => Progress::Pending,
            (HANDED, Some(camera)) => Progress::Handed(camera),
            (other, _) => {
                let reason = std::str::from_utf8(other).ok().and_then(|text| text.strip_prefix(KEPT));
                reason.map_or(Progress::Gone, |reason| {
                    Progress::Refused(format!("{} keeps it: {}", self.holder.words(), one_line(reason)))
                })
            }
        }
    }
}

impl Found {
    /// The holder, for a message.
    fn words(&self) -> String {
        match self.record.name.as_str() {
            "" => format!("its holder (pid {})", self.pid),
            name => format!("its holder \"{name}\" (pid {})", self.pid),
        }
    }
}

impl fmt::Display for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name.as_str() {
            "" => write!(f, "pid {}", self.pid)?,
            name => write!(f, "\"{name}\" (pid {})", self.pid)?,
        }
        write!(f, ", priority {}", self.priority)
    }
}

/// What one who is connected asks. `None` where that is nothing.
pub fn parse(text: &str, peer: Peer) -> Option<Asker> {
    text.starts_with(HEAD).then_some(())?;
    Some(Asker {
        pid: peer.pid,
        uid: peer.uid,
        name: one_line(field(text, "name")?),
        priority: number(text, "priority")?,
        must: number::<u8>(text, "must")? != 0,
        grace: Duration::from_millis(number(text, "grace")?).min(policy::GRACE_MOST),
    })
}

/// Who listens there.
pub fn peer_of(path: &Path) -> Option<Peer> {
    MessageSocket::connect(path).ok()?.peer().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_requests_are_none() {
        let peer = Peer { pid: 1, uid: 2 };
        let good = format!("{HEAD}priority -5\nmust 1\ngrace 250\nname a b\n");
        let asker = parse(&good, peer).unwrap();
        assert_eq!((asker.pid, asker.uid, asker.priority, asker.must), (1, 2, -5, true));
        assert_eq!((asker.grace, asker.name.as_str()), (Duration::from_millis(250), "a b"));
        for bad in [
            "",
            "camlease ask 2\n",
            HEAD,
            &good.replace("priority -5", "priority 99999999999"),
            &good.replace("grace 250", "grace -1"),
            &good.replace("must 1\n", ""),
            &good.replace("name a b\n", ""),
        ] {
            assert!(parse(bad, peer).is_none(), "{bad:?}");
        }
        let long = good.replace("250", "99999999999");
        assert_eq!(parse(&long, peer).unwrap().grace, policy::GRACE_MOST, "a grace has a bound");
    }
}
