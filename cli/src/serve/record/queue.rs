//! Pictures between the camera and the disk, bounded by their bytes. Who puts one in never waits: where the disk is slow,
//! the recording becomes thinner.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::picture::Picture;

pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    most: usize,
}

#[derive(Default)]
struct State {
    pictures: VecDeque<Picture>,
    bytes: usize,
    /// Pictures that were offered since the queue began to thin.
    offered: u64,
    end: End,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    /// Nothing more is put in; what is in is written.
    Closed,
    /// Nothing more is written.
    Dead,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Offered {
    Taken,
    Thinned,
    Over,
}

pub enum Next {
    Picture(Picture),
    /// None came until the deadline.
    Late,
    End,
}

impl Queue {
    pub fn new(most: usize) -> Queue {
        Queue { state: Mutex::default(), changed: Condvar::new(), most }
    }

    pub fn offer(&self, picture: Picture) -> Offered {
        let mut state = self.lock();
        if state.end != End::Open {
            return Offered::Over;
        }
        if !state.has_room(picture.bytes.len(), self.most) {
            return Offered::Thinned;
        }
        state.bytes += picture.bytes.len();
        state.pictures.push_back(picture);
        self.changed.notify_all();
        Offered::Taken
    }

    pub fn next(&self, deadline: Instant) -> Next {
        let mut state = self.lock();
        loop {
            if state.end == End::Dead {
                return Next::End;
            }
            if let Some(picture) = state.pictures.pop_front() {
                state.bytes -= picture.bytes.len();
                return Next::Picture(picture);
            }
            if state.end == End::Closed {
                return Next::End;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Late;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub fn close(&self) {
        let mut state = self.lock();
        if state.end == End::Open {
            state.end = End::Closed;
        }
        self.changed.notify_all();
    }

    /// Also of what is in.
    pub fn kill(&self) {
        let mut state = self.lock();
        state.end = End::Dead;
        state.pictures.clear();
        state.bytes = 0;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The fuller the queue, the fewer pictures get in: evenly thinned, a recording shows more than with long gaps.
    fn has_room(&mut self, bytes: usize, most: usize) -> bool {
        if self.bytes == 0 {
            self.offered = 0;
            return true;
        }
        let step = match self.bytes.saturating_mul(4) / most.max(1) {
            0..2 => 1,
            2 => 2,
            _ => 4,
        };
        self.offered += 1;
        self.bytes + bytes <= most && self.offered.is_multiple_of(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::record::picture::Shape;
    use camlease::{FourCc, Rate};
    use std::time::Duration;

    fn picture(sequence: u64, bytes: usize) -> Picture {
        let shape = Shape { width: 1, height: 1, fourcc: FourCc::default(), strides: vec![], chroma: None };
        Picture { bytes: vec![0; bytes], planes: vec![], shape, rate: Rate::default(), sequence, timestamp_ns: 0 }
    }

    fn drain(queue: &Queue) -> Vec<u64> {
        let next = || match queue.next(Instant::now()) {
            Next::Picture(picture) => Some(picture.sequence),
            _ => None,
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn a_full_queue_thins_and_never_waits() {
        let queue = Queue::new(1000);
        let taken = (0..100).filter(|at| queue.offer(picture(*at, 50)) == Offered::Taken).count();
        // The first half in full, then every second, then every fourth.
        assert_eq!(taken, 20);
        let kept = drain(&queue);
        assert_eq!(&kept[..10], (0..10).collect::<Vec<u64>>());
        assert_eq!(kept[11] - kept[10], 2);
        assert_eq!(kept[18] - kept[17], 4);
        assert_eq!(queue.offer(picture(0, 5000)), Offered::Taken, "one that is larger than the queue");
        assert_eq!(queue.offer(picture(0, 1)), Offered::Thinned);
    }

    #[test]
    fn what_is_in_is_written_after_the_end_unless_the_disk_is_dead() {
        let queue = Queue::new(1000);
        queue.offer(picture(1, 1));
        queue.close();
        assert_eq!(queue.offer(picture(2, 1)), Offered::Over);
        assert_eq!(drain(&queue), [1]);
        assert!(matches!(queue.next(Instant::now() + Duration::from_secs(9)), Next::End));
        let queue = Queue::new(1000);
        queue.offer(picture(1, 1));
        queue.kill();
        assert!(matches!(queue.next(Instant::now()), Next::End));
    }
}
