//! What the service manager is told, by the protocol of sd_notify(3).
//!
//! The crates for it know no abstract socket, and block where the manager does not read: a supervisor that waits for its
//! manager would let its cameras hang.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// What a process that is started is not to inherit.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

pub struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often the manager wants to hear of us, halved: so it says itself.
    every: Option<Duration>,
    next: Instant,
    status: String,
}

impl Notify {
    pub fn from_environment() -> Notify {
        let [address, interval, pid] = VARIABLES.map(|name| std::env::var(name).unwrap_or_default());
        let socket = address_of(&address).and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        let is_ours = pid.is_empty() || pid.parse() == Ok(std::process::id());
        let interval = interval.parse().ok().filter(|microseconds| *microseconds > 0 && is_ours);
        let every = interval.filter(|_| socket.is_some()).map(|microseconds| Duration::from_micros(microseconds) / 2);
        Notify { socket, every, next: Instant::now(), status: String::new() }
    }

    pub fn ready(&self) {
        self.send("READY=1");
    }

    pub fn reloading(&self) {
        // The manager tells by the time whether this answers its own signal.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// One line for a person, if it is news.
    pub fn status(&mut self, status: String) {
        if status != self.status {
            self.send(&format!("STATUS={}", status.replace('\n', " ")));
            self.status = status;
        }
    }

    /// Tells that we are alive, where that is due.
    pub fn beat(&mut self) {
        let Some(every) = self.every else { return };
        if Instant::now() >= self.next {
            self.send("WATCHDOG=1");
            self.next = Instant::now() + every;
        }
    }

    /// When [`Notify::beat`] is to be called next.
    pub fn due(&self) -> Option<Instant> {
        self.every.map(|_| self.next)
    }

    fn send(&self, state: &str) {
        if let Some((socket, address)) = &self.socket {
            // A manager that does not read has its own troubles.
            let _ = socket.send_to_addr(state.as_bytes(), address);
        }
    }
}

fn address_of(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).ok(),
        None if text.starts_with('/') => SocketAddr::from_pathname(text).ok(),
        None => None,
    }
}
