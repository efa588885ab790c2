//! A V4L2 stream: the driver's buffers, mapped, going round between driver and host.

use std::sync::Arc;

use super::device::reclaim;
use super::export::exported;
use super::node::{Dequeued, OpenNode, Request};
use crate::backend::{Filled, Stream};
use crate::error::Result;
use crate::format::{DropPolicy, StreamFormat, layout};
use crate::kernel::{Epoll, Fd, clock_ns, monotonic_ns};
use crate::memory::Buffer;
use crate::policy;

pub struct Mapped {
    node: Arc<OpenNode>,
    format: StreamFormat,
    buffers: Vec<Arc<Buffer>>,
    policy: DropPolicy,
    /// Fewest bytes of a whole frame; 0 where frames are compressed or their layout is not known.
    whole: usize,
    /// The kernel counts frames in 32 bits: 828 days at 60 fps.
    sequence: u64,
    /// Buffers with the driver, full ones included.
    queued: u32,
    /// From this age on a frame is stale when no buffer was left for a newer one.
    stale_ns: i64,
    /// The last frame was one, and was given back.
    skipped_stale: bool,
    clock: Clock,
}

impl Mapped {
    pub fn new(node: Arc<OpenNode>, format: StreamFormat, drop_policy: DropPolicy) -> Mapped {
        let whole = match format.planes.len() {
            1 => layout(format.fourcc, format.width, format.height).map_or(0, |(_, bytes)| bytes),
            _ => 0,
        };
        let stale_ns = match format.rate.is_set() {
            true => format.rate.ns_of(policy::STALE_INTERVALS),
            false => policy::STALE_NS,
        };
        let buffers = Vec::with_capacity(format.buffers as usize);
        Mapped {
            node,
            format,
            buffers,
            policy: drop_policy,
            whole,
            sequence: 0,
            queued: 0,
            stale_ns,
            skipped_stale: false,
            clock: Clock::default(),
        }
    }

    pub fn add(&mut self, buffer: Arc<Buffer>) {
        self.buffers.push(buffer);
    }

    fn filled(&mut self, full: Dequeued) -> Filled {
        let ahead = full.sequence.wrapping_sub(self.sequence as u32);
        // A driver may restart its count; only a step forward is taken for the 32 bits' next round.
        self.sequence = match ahead < u32::MAX / 2 {
            true => self.sequence + u64::from(ahead),
            false => (self.sequence & !u64::from(u32::MAX)) | u64::from(full.sequence),
        };
        Filled {
            index: full.index,
            buffer: self.buffers[full.index as usize].clone(),
            offset: full.offset,
            used: full.used,
            sequence: self.sequence,
            timestamp_ns: self.clock.monotonic_of(full.timestamp_us * 1000),
            corrupt: full.corrupt || full.used[0] < self.whole,
        }
    }

    /// The newest full buffer, the older ones given back; or the oldest one, where frames come in order. And how
    /// many were full.
    fn take_full(&mut self) -> Result<Option<(Dequeued, u32)>> {
        let mut newest: Option<Dequeued> = None;
        let mut taken = 0;
        loop {
            match self.node.dequeue() {
                Ok(Some(full)) => {
                    self.queued -= 1;
                    taken += 1;
                    if let Some(older) = newest.replace(full) {
                        self.requeue(older.index)?;
                    }
                    if self.policy == DropPolicy::Newest {
                        break;
                    }
                }
                Ok(None) => break,
                // What came before the failure is still good; the next call meets the failure again.
                Err(_) if newest.is_some() => break,
                Err(error) => return Err(self.node.failed(Request::Dequeue, error)),
            }
        }
        Ok(newest.map(|full| (full, taken)))
    }

    fn detach(&self) {
        self.buffers.iter().for_each(|buffer| buffer.detach());
    }
}

impl Stream for Mapped {
    fn format(&self) -> &StreamFormat {
        &self.format
    }

    fn watch(&mut self, ready: &Arc<Epoll>) -> std::io::Result<()> {
        ready.add(self.node.fd.number())
    }

    fn unwatch(&mut self, ready: &Epoll) {
        ready.remove(self.node.fd.number());
    }

    fn dequeue(&mut self, can_wait: bool) -> Result<Option<Filled>> {
        let queued = self.queued;
        let Some((newest, taken)) = self.take_full()? else { return Ok(None) };
        let filled = self.filled(newest);
        // The host was away for so long that the driver ran out of buffers: what is there is old. With the
        // buffers back, a fresh frame comes within an interval. Once: a host that is always late gets frames, too.
        let starved = self.policy == DropPolicy::Oldest && taken >= queued;
        let stale = starved && monotonic_ns() - filled.timestamp_ns > self.stale_ns;
        self.skipped_stale = can_wait && stale && !self.skipped_stale;
        if self.skipped_stale {
            self.requeue(filled.index)?;
            return Ok(None);
        }
        Ok(Some(filled))
    }

    fn requeue(&mut self, index: u32) -> Result<()> {
        self.node.queue(index).map_err(|e| self.node.failed(Request::Queue, e))?;
        self.queued += 1;
        Ok(())
    }

    fn export(&self) -> Vec<Vec<Fd>> {
        exported(&self.node, &self.buffers).unwrap_or_else(|error| {
            log::debug!("{}: its buffers cannot be read by others: {error}", self.node.path.display());
            Vec::new()
        })
    }

    fn stop(self: Box<Self>) -> Result<()> {
        let node = self.node.clone();
        node.raise_priority();
        let stopped = node.stream_off();
        self.detach();
        reclaim(&node);
        node.restore_priority();
        stopped.map_err(|e| node.failed(Request::StreamOff, e))
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        self.detach();
    }
}

/// Drivers stamp in CLOCK_MONOTONIC, CLOCK_REALTIME (older ones, and uvcvideo when it is told so,
/// which then still claims monotonic) or not at all. Whose present a stamp is near, that clock it is.
#[derive(Default)]
struct Clock {
    /// The last stamp that was monotonic: one that follows it closely is so, too, and needs no look at a clock.
    monotonic: Option<i64>,
}

impl Clock {
    fn monotonic_of(&mut self, stamp_ns: i64) -> i64 {
        let near = 0..=policy::CLOCK_TOLERANCE_NS;
        if !self.monotonic.is_some_and(|last| near.contains(&(stamp_ns - last))) {
            let now = monotonic_ns();
            if !near.contains(&(now - stamp_ns).abs()) {
                self.monotonic = None;
                let since_start = stamp_ns - real_ahead_ns();
                return if near.contains(&(now - since_start).abs()) { since_start } else { now };
            }
        }
        self.monotonic = Some(stamp_ns);
        stamp_ns
    }
}

/// How far CLOCK_REALTIME is ahead of CLOCK_MONOTONIC: by the closest of some looks, as a thread may be stopped between
/// two clocks.
fn real_ahead_ns() -> i64 {
    let look = || {
        let (before, real, after) = (monotonic_ns(), clock_ns(libc::CLOCK_REALTIME), monotonic_ns());
        (after - before, real - before)
    };
    (0..4).map(|_| look()).min().map_or(0, |(_, ahead)| ahead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_of_other_clocks_become_monotonic() {
        let monotonic_of = |stamp_ns| Clock::default().monotonic_of(stamp_ns);
        let now = monotonic_ns();
        assert_eq!(monotonic_of(now - 5_000_000), now - 5_000_000);
        let real = clock_ns(libc::CLOCK_REALTIME);
        let converted = monotonic_of(real - 5_000_000);
        // However long this took.
        let during = now..=monotonic_ns();
        let nearly = |ns: i64| during.start() - 1_000_000_000 < ns && ns < during.end() + 1_000_000_000;
        assert!(nearly(converted + 5_000_000), "{converted} {now}");
        assert!(nearly(monotonic_of(0)) || now < policy::CLOCK_TOLERANCE_NS);
    }
}
