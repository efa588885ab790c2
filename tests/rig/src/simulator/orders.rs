//! Orders to misbehave, one a line, and the answers to them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

/// What can be ordered. A count is 1 when the line has none; 0 takes an order back.
#[derive(Debug, PartialEq, Eq)]
pub enum Order {
    /// `pause`: silence, no frame and no error.
    Pause,
    /// `resume`
    Resume,
    /// `error-bit N`: the next N frames carry the payload header's error bit.
    ErrorBits(u32),
    /// `half-frame N`: the next N frames end in their middle.
    HalfFrames(u32),
    /// `packet-errors N`: the next N isochronous packets arrive broken.
    PacketErrors(u32),
    /// `stall-probe N`: the next N attempts to negotiate a format fail.
    StallProbes(u32),
    /// `stall-commit N`: the next N attempts to start the stream fail.
    StallCommits(u32),
    /// `delay-controls MS`: requests for the camera's controls are answered so much later.
    DelayControls(Duration),
    /// `detach`: unplug.
    Detach,
    /// `vanish N`: unplugged the next N times that the host asks who it is, as it does to find the camera again after a
    /// reset.
    Vanish(u32),
    /// `attach`: plug in again, into the same port.
    Attach,
    /// `state`: what is armed still, whether it streams, how many frames it began.
    State,
    /// `exit`: unplug for good.
    Exit,
}

impl Order {
    /// `None` for an empty line.
    pub fn parse(line: &str) -> Result<Option<Order>, String> {
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else { return Ok(None) };
        let number =
            words.next().map(|word| word.parse::<u32>().map_err(|_| format!("not a number: {word}"))).transpose()?;
        let count = number.unwrap_or(1);
        let order = match name {
            "pause" => Order::Pause,
            "resume" => Order::Resume,
            "error-bit" => Order::ErrorBits(count),
            "half-frame" => Order::HalfFrames(count),
            "packet-errors" => Order::PacketErrors(count),
            "stall-probe" => Order::StallProbes(count),
            "stall-commit" => Order::StallCommits(count),
            "delay-controls" => {
                let milliseconds = number.ok_or("delay-controls: how many milliseconds?")?;
                Order::DelayControls(Duration::from_millis(milliseconds.into()))
            }
            "detach" => Order::Detach,
            "vanish" => Order::Vanish(count),
            "attach" => Order::Attach,
            "state" => Order::State,
            "exit" => Order::Exit,
            _ => return Err(format!("no such order: {name}")),
        };
        Ok(Some(order))
    }
}

/// Where orders come in.
pub struct Inbox {
    file: File,
    pending: Vec<u8>,
}

impl Inbox {
    pub fn new(file: File) -> Inbox {
        Inbox { file, pending: Vec::new() }
    }

    pub fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Reads what is there, once it is known that something is; false at the end.
    pub fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 512];
        let count = self.file.read(&mut buffer)?;
        self.pending.extend_from_slice(&buffer[..count]);
        Ok(count > 0)
    }

    pub fn next_line(&mut self) -> Option<String> {
        let end = self.pending.iter().position(|&byte| byte == b'\n')?;
        let line: Vec<u8> = self.pending.drain(..=end).collect();
        Some(String::from_utf8_lossy(&line).into_owned())
    }
}

/// Answers an order. Nobody may be listening, and that is no reason to unplug the camera.
pub fn answer(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
