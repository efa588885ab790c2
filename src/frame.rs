//! One frame: bytes that stay readable, at the same address, until it is released.

use std::sync::Arc;

use crate::backend::Filled;
use crate::camera::Shared;
use crate::fork;
use crate::format::{FourCc, StreamFormat};
use crate::memory::PLANES_MOST;

/// One frame. Its bytes stay readable, at the same address, until this is dropped, whatever becomes of
/// the stream, the camera and the device.
pub struct Frame {
    filled: Filled,
    width: u32,
    height: u32,
    fourcc: FourCc,
    strides: [u32; PLANES_MOST],
    /// How many buffers its stream has.
    buffers: u32,
    /// The start that it came from: only to that one its buffer goes back.
    round: u64,
    epoch: u64,
    camera: Arc<Shared>,
}

impl Frame {
    pub(crate) fn new(camera: Arc<Shared>, round: u64, format: &StreamFormat, filled: Filled) -> Frame {
        filled.buffer.hand_out();
        let mut strides = [0; PLANES_MOST];
        for (stride, plane) in strides.iter_mut().zip(&format.planes) {
            *stride = plane.0;
        }
        let (width, height, fourcc) = (format.width, format.height, format.fourcc);
        let buffers = format.buffers;
        Frame { filled, width, height, fourcc, strides, buffers, round, epoch: fork::epoch(), camera }
    }

    /// Bytes of memory that the frame keeps.
    pub(crate) fn memory(&self) -> u64 {
        (0..self.planes()).map(|at| self.filled.buffer.plane(at).1 as u64).sum()
    }

    pub fn width(&self) -> u32 {
        self.width
    }

    pub fn height(&self) -> u32 {
        self.height
    }

    pub fn fourcc(&self) -> FourCc {
        self.fourcc
    }

    /// How many memory planes the frame has, 1 to 4.
    pub fn planes(&self) -> usize {
        self.filled.buffer.planes()
    }

    /// The bytes of a memory plane.
    pub fn data(&self, plane: usize) -> &[u8] {
        let (start, length) = self.filled.buffer.plane(plane);
        let offset = self.filled.offset[plane].min(length);
        let used = self.filled.used[plane].min(length - offset);
        // SAFETY: within the mapping, which stays while the buffer is handed out: until self is dropped. Nothing of this
        // process writes there meanwhile, and a driver does not; a process that shares a camera is trusted not to.
        unsafe { std::slice::from_raw_parts(start.add(offset), used) }
    }

    /// Bytes from one line to the next in a memory plane; 0 for compressed frames.
    pub fn stride(&self, plane: usize) -> u32 {
        self.strides[plane]
    }

    /// The camera's own count; a gap tells of frames that were dropped.
    pub fn sequence(&self) -> u64 {
        self.filled.sequence
    }

    /// Of the exposure, or as near as the driver tells, in nanoseconds of CLOCK_MONOTONIC.
    pub fn timestamp_ns(&self) -> i64 {
        self.filled.timestamp_ns
    }

    pub fn is_corrupt(&self) -> bool {
        self.filled.corrupt
    }

    /// Which of its stream's buffers it is in.
    pub(crate) fn index(&self) -> usize {
        self.filled.index as usize
    }

    /// How many its stream has.
    pub(crate) fn buffers(&self) -> usize {
        self.buffers as usize
    }

    /// Where in a plane's memory its bytes begin, and how many they are.
    pub(crate) fn place(&self, plane: usize) -> (usize, usize) {
        (self.filled.offset[plane], self.filled.used[plane])
    }

    /// The start that it came from.
    pub(crate) fn round(&self) -> u64 {
        self.round
    }

    /// Leaves the frame to others, who read its buffer on their own.
    pub(crate) fn lend(self) -> Lent {
        // This process does not read it any more: at the stream's end it is no copy that has to be made.
        self.filled.buffer.take_back();
        Lent { frame: Some(self) }
    }

    /// Whether the frame came with the parent process.
    pub fn is_forked(&self) -> bool {
        self.epoch != fork::epoch()
    }
}

/// A frame whose buffer others read. Unless it is given back, its stream never fills that buffer again.
pub(crate) struct Lent {
    frame: Option<Frame>,
}

impl Lent {
    /// Nobody reads it any more.
    pub(crate) fn give_back(mut self) {
        drop(self.frame.take());
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(frame) = &mut self.frame {
            frame.round = NO_ROUND;
        }
    }
}

/// Starts are counted from 1.
const NO_ROUND: u64 = 0;

impl Drop for Frame {
    fn drop(&mut self) {
        if !self.is_forked() {
            self.camera.take_back(self.round, self.memory(), &self.filled);
        }
    }
}
