//! Kills this process where it hangs and nobody is left to do so.

use std::io;
use std::time::Duration;

use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

pub struct LastResort(Timer);

impl LastResort {
    pub fn new() -> io::Result<LastResort> {
        // By the one signal that reaches a stopped process, too.
        let killing = SigEvent::new(SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 });
        Ok(LastResort(Timer::new(ClockId::CLOCK_MONOTONIC, killing)?))
    }

    /// Put off to then, whatever it was before.
    pub fn is_due_in(&mut self, time: Duration) {
        let _ = self.0.set(Expiration::OneShot(time.into()), TimerSetTimeFlags::empty());
    }
}
