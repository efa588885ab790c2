//! What the command is sent when it is to end: the signal that came, then stronger ones, with a grace between.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::signals::Received;

pub struct Escalation {
    grace: Duration,
    /// What it is sent when its time is over.
    next: Option<Signal>,
    /// Until when it has time, once it was told.
    end_by: Option<Instant>,
    /// The person has pressed Ctrl+C or Ctrl+\ before.
    pressed: bool,
}

impl Escalation {
    pub fn new(grace: Duration) -> Escalation {
        Escalation { grace, next: Some(Signal::SIGTERM), end_by: None, pressed: false }
    }

    /// How long the command still has.
    pub fn left(&self) -> Option<Duration> {
        self.end_by.map(|at| at.saturating_duration_since(Instant::now()))
    }

    /// What it is to be sent now because its time is over.
    pub fn due(&mut self) -> Option<Signal> {
        self.end_by.filter(|at| Instant::now() >= *at)?;
        let signal = self.next;
        (self.next, self.end_by) = match signal {
            Some(Signal::SIGTERM) => (Some(Signal::SIGKILL), Some(Instant::now() + self.grace)),
            // A driver may keep it in the kernel: nothing is stronger than SIGKILL.
            _ => (None, None),
        };
        signal
    }

    /// A signal has come that ends it: what it is to be sent for that.
    pub fn told(&mut self, received: Received) -> Option<Signal> {
        let signal = received.signal;
        let first = self.end_by.is_none() && self.next == Some(Signal::SIGTERM);
        if signal == Signal::SIGTERM && self.next == Some(Signal::SIGTERM) {
            self.next = Some(Signal::SIGKILL);
            self.end_by = Some(Instant::now() + self.grace);
        } else if first {
            self.end_by = Some(Instant::now() + self.grace);
        }
        // Twice by a person who does not want to wait. A terminal that closes and a service that is stopped send SIGHUP
        // and SIGTERM several times, and mean one and the same.
        if matches!(signal, Signal::SIGINT | Signal::SIGQUIT) && std::mem::replace(&mut self.pressed, true) {
            return Some(Signal::SIGKILL);
        }
        self.pressed |= matches!(signal, Signal::SIGINT | Signal::SIGQUIT);
        // Its keys the terminal has sent to the command as well. That it was closed it tells to its session's first
        // process alone.
        (!received.by_terminal || signal == Signal::SIGHUP).then_some(signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(escalation: &mut Escalation, signal: Signal, by_terminal: bool) -> Option<Signal> {
        escalation.told(Received { signal, by_terminal })
    }

    #[test]
    fn keys_pressed_twice_are_impatience_and_other_repetition_is_none() {
        let mut escalation = Escalation::new(Duration::from_secs(60));
        for signal in [Signal::SIGHUP, Signal::SIGHUP, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGTERM] {
            assert_eq!(told(&mut escalation, signal, false), Some(signal));
        }
        assert_eq!(told(&mut escalation, Signal::SIGINT, true), None, "the terminal has sent it");
        assert_eq!(told(&mut escalation, Signal::SIGQUIT, true), Some(Signal::SIGKILL));
        assert_eq!(told(&mut Escalation::new(Duration::ZERO), Signal::SIGHUP, true), Some(Signal::SIGHUP));
    }

    #[test]
    fn what_is_due_becomes_stronger_once() {
        let mut escalation = Escalation::new(Duration::ZERO);
        assert_eq!((escalation.left(), escalation.due()), (None, None), "nobody told it to end");
        told(&mut escalation, Signal::SIGINT, false);
        let due = [(); 3].map(|()| escalation.due());
        assert_eq!(due, [Some(Signal::SIGTERM), Some(Signal::SIGKILL), None]);
        assert_eq!(escalation.left(), None);
        // SIGTERM that was passed on is not sent anew.
        let mut escalation = Escalation::new(Duration::ZERO);
        told(&mut escalation, Signal::SIGTERM, false);
        assert_eq!(escalation.due(), Some(Signal::SIGKILL));
    }
}
