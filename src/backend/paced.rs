//! A stream of pictures that are made when they are due: the queue of a driver without the driver.
//! Buffers are filled, dropped and given back as a V4L2 queue does it, but the work of making a
//! picture is done when it is taken. No thread: a timer tells when one is due.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Filled, Stream};
use crate::error::{Error, Kind, Result};
use crate::format::{DropPolicy, Rate, StreamFormat, StreamRequest};
use crate::kernel::{Epoll, Timer, monotonic_ns};
use crate::memory::{Buffer, PLANES_MOST};
use crate::policy;

/// What the frames of a stream show.
pub trait Picture: Send {
    /// Makes frame number `sequence` in `into`, which holds whatever an earlier frame left there.
    /// An error ends the stream: the end of a recording is `Kind::Disconnected`.
    fn paint(&mut self, sequence: u64, timestamp_ns: i64, into: &mut [u8]) -> Result<Painted>;
}

pub struct Painted {
    pub used: usize,
    pub corrupt: bool,
}

/// When frames are due.
pub enum Pace {
    At(Rate),
    /// At a rate, but no further frame after so many: a camera that stalls.
    Stalling(Rate, u64),
    /// As fast as they are taken; none is dropped.
    Unpaced,
}

pub struct Paced {
    format: StreamFormat,
    pace: Pace,
    policy: DropPolicy,
    picture: Box<dyn Picture>,
    /// Kept for as long as the stream runs.
    _mark: Option<Box<dyn Send>>,
    timer: Timer,
    start_ns: i64,
    buffers: Vec<Arc<Buffer>>,
    free: VecDeque<u32>,
    /// Due and not taken yet: buffer and sequence number.
    due: VecDeque<(u32, u64)>,
    /// The first sequence number that was neither put into `due` nor dropped.
    next: u64,
}

impl Paced {
    /// `format` tells size and rate of one frame; how many buffers there are follows from `request`.
    pub fn start(
        mut format: StreamFormat,
        pace: Pace,
        request: &StreamRequest,
        picture: Box<dyn Picture>,
        mark: Option<Box<dyn Send>>,
    ) -> Result<Paced> {
        let length = format.planes[0].1;
        format.buffers = buffers_within(request, length as u64)?;
        let no_memory = |e| Error::system(format!("allocating {} frames of {length} bytes", format.buffers), e);
        let buffers = (0..format.buffers)
            .map(|_| Buffer::anonymous(length))
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(no_memory)?;
        let timer = Timer::new().map_err(|e| Error::system("creating a timer", e))?;
        let free = (0..format.buffers).collect();
        let stream = Paced {
            format,
            pace,
            policy: request.drop_policy,
            picture,
            _mark: mark,
            timer,
            start_ns: monotonic_ns(),
            buffers,
            free,
            due: VecDeque::with_capacity(policy::BUFFERS_MOST as usize),
            next: 0,
        };
        stream.arm();
        Ok(stream)
    }

    /// When frame `sequence` is due, if ever.
    fn due_at(&self, sequence: u64) -> Option<i64> {
        match self.pace {
            Pace::Stalling(_, most) if sequence >= most => None,
            Pace::At(rate) | Pace::Stalling(rate, _) => Some(self.start_ns + rate.ns_of(sequence)),
            Pace::Unpaced => Some(self.start_ns),
        }
    }

    /// Does what a driver would have done by now: fills free buffers in order, drops what finds none.
    fn advance(&mut self, now_ns: i64) {
        let (rate, most) = match self.pace {
            Pace::At(rate) => (rate, u64::MAX),
            Pace::Stalling(rate, most) => (rate, most),
            Pace::Unpaced => {
                if self.due.is_empty()
                    && let Some(index) = self.free.pop_front()
                {
                    self.due.push_back((index, self.next));
                    self.next += 1;
                }
                return;
            }
        };
        let end = (rate.frames_in(now_ns - self.start_ns) + 1).min(most);
        if self.policy == DropPolicy::Oldest && end > self.next {
            // Whoever wants the newest gives the older ones back at once: so do we, unpainted.
            self.free.extend(self.due.drain(..).map(|(index, _)| index));
            self.next = self.next.max(end - 1);
        }
        while self.next < end {
            let Some(index) = self.free.pop_front() else { break };
            self.due.push_back((index, self.next));
            self.next += 1;
        }
        // What was due meanwhile and found no buffer is lost.
        self.next = self.next.max(end);
    }

    /// Readable now, at the next due time, or not before a buffer comes back.
    fn arm(&self) {
        let at = match (self.due.is_empty(), self.free.is_empty()) {
            (false, _) => Some(0),
            (true, false) => self.due_at(self.next),
            (true, true) => None,
        };
        self.timer.arm(at);
    }
}

impl Stream for Paced {
    fn format(&self) -> &StreamFormat {
        &self.format
    }

    fn watch(&mut self, ready: &Arc<Epoll>) -> std::io::Result<()> {
        ready.add(self.timer.fd())
    }

    fn unwatch(&mut self, ready: &Epoll) {
        ready.remove(self.timer.fd());
    }

    fn dequeue(&mut self, _can_wait: bool) -> Result<Option<Filled>> {
        let now = monotonic_ns();
        self.advance(now);
        let taken = self.due.pop_front();
        self.arm();
        let Some((index, sequence)) = taken else { return Ok(None) };
        let timestamp_ns = match self.pace {
            Pace::Unpaced => now,
            _ => self.due_at(sequence).unwrap_or(now),
        };
        let buffer = self.buffers[index as usize].clone();
        let mut painted = None;
        buffer.fill(|bytes| painted = Some(self.picture.paint(sequence, timestamp_ns, bytes)));
        match painted.unwrap_or_else(|| Err(Error::new(Kind::Internal, "a frame was queued while it was out"))) {
            Ok(Painted { used, corrupt }) => {
                let mut planes = [0; PLANES_MOST];
                planes[0] = used;
                Ok(Some(Filled {
                    index,
                    buffer,
                    offset: [0; PLANES_MOST],
                    used: planes,
                    sequence,
                    timestamp_ns,
                    corrupt,
                }))
            }
            Err(error) => {
                // The same error again at the next call: the stream has ended, and pollers see it.
                self.due.push_front((index, sequence));
                self.arm();
                Err(error)
            }
        }
    }

    fn requeue(&mut self, index: u32) -> Result<()> {
        // What was due before the buffer came back did not find it.
        self.advance(monotonic_ns());
        self.free.push_back(index);
        self.arm();
        Ok(())
    }

    fn stop(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// How many buffers a host gets that asks for so many, or for none in particular, within its bound.
pub fn buffers_within(request: &StreamRequest, frame_bytes: u64) -> Result<u32> {
    let fits = match request.max_bytes {
        0 => u64::from(policy::BUFFERS_MOST),
        most => most / frame_bytes.max(1),
    };
    let (wanted, least) = match request.buffers {
        0 => (policy::BUFFERS_DEFAULT, policy::BUFFERS_LEAST),
        asked => (asked, asked),
    };
    let count = u64::from(wanted).min(fits) as u32;
    if count < least {
        let needed = u64::from(least) * frame_bytes;
        return Err(Error::new(
            Kind::Budget,
            format!(
                "{least} buffers of {frame_bytes} bytes are {needed} bytes, more than max_bytes = {}",
                request.max_bytes
            ),
        )
        .hint("raise max_bytes, or ask for fewer buffers, a smaller size or a compressed format"));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::GREY;

    /// So slow that no frame more comes while a test looks.
    const SLOW: Rate = Rate { numerator: 1, denominator: 10 };

    struct Counter;
    impl Picture for Counter {
        fn paint(&mut self, sequence: u64, _: i64, into: &mut [u8]) -> Result<Painted> {
            if sequence == 99 {
                return Err(Error::new(Kind::Disconnected, "end"));
            }
            into[0] = sequence as u8;
            Ok(Painted { used: 1, corrupt: false })
        }
    }

    fn stream(pace: Pace, drop_policy: DropPolicy, buffers: u32) -> Paced {
        let format = StreamFormat { width: 1, height: 1, fourcc: GREY, planes: vec![(1, 1)], ..Default::default() };
        let request = StreamRequest { buffers, drop_policy, ..Default::default() };
        Paced::start(format, pace, &request, Box::new(Counter), None).unwrap()
    }

    fn sequences(stream: &mut Paced) -> Vec<u64> {
        std::iter::from_fn(|| stream.dequeue(true).unwrap()).map(|filled| filled.sequence).collect()
    }

    /// A stream that was started `frames` intervals ago.
    fn started_ago(stream: &mut Paced, frames: u64) {
        stream.start_ns = monotonic_ns() - SLOW.ns_of(frames) - 1000;
    }

    #[test]
    fn in_order_the_driver_drops_what_finds_no_buffer() {
        let mut stream = stream(Pace::At(SLOW), DropPolicy::Newest, 3);
        started_ago(&mut stream, 9);
        assert_eq!(sequences(&mut stream), [0, 1, 2]);
        stream.requeue(0).unwrap();
        started_ago(&mut stream, 12);
        assert_eq!(sequences(&mut stream), [10], "3 to 9 found no buffer, 11 and 12 neither");
    }

    #[test]
    fn newest_gives_the_newest() {
        let mut stream = stream(Pace::At(SLOW), DropPolicy::Oldest, 3);
        started_ago(&mut stream, 9);
        assert_eq!(sequences(&mut stream), [9]);
        started_ago(&mut stream, 11);
        assert_eq!(sequences(&mut stream), [11]);
    }

    #[test]
    fn unpaced_loses_nothing() {
        let mut stream = stream(Pace::Unpaced, DropPolicy::Oldest, 2);
        for expected in 0..20 {
            let filled = stream.dequeue(true).unwrap().unwrap();
            assert_eq!(filled.sequence, expected);
            stream.requeue(filled.index).unwrap();
        }
    }

    #[test]
    fn a_stalled_stream_gives_no_more_and_an_ended_one_says_so() {
        let mut stalled = stream(Pace::Stalling(SLOW, 2), DropPolicy::Newest, 4);
        started_ago(&mut stalled, 50);
        assert_eq!(sequences(&mut stalled), [0, 1]);
        let mut ended = stream(Pace::At(SLOW), DropPolicy::Oldest, 2);
        started_ago(&mut ended, 99);
        assert_eq!(ended.dequeue(true).err().unwrap().kind(), Kind::Disconnected);
    }

    #[test]
    fn a_bound_on_memory_gives_fewer_buffers_or_an_error() {
        let request = |buffers, max_bytes| StreamRequest { buffers, max_bytes, ..Default::default() };
        assert_eq!(buffers_within(&request(0, 0), 1000).unwrap(), policy::BUFFERS_DEFAULT);
        assert_eq!(buffers_within(&request(0, 3500), 1000).unwrap(), 3);
        assert_eq!(buffers_within(&request(0, 1500), 1000).unwrap_err().kind(), Kind::Budget);
        assert_eq!(buffers_within(&request(4, 3500), 1000).unwrap_err().kind(), Kind::Budget);
        assert_eq!(buffers_within(&request(1, 1500), 1000).unwrap(), 1);
    }
}
