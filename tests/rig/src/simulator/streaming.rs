//! The stream of frames: when one is due, how it is cut into payloads (UVC 1.0, 2.4.3), and the faults in it.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use super::catalogue::{Catalogue, Format, Mode};
use super::usbip::{Link, Packet, Submit};
use crate::picture::Picture;

/// How frames travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    Isochronous,
    Bulk,
}

impl Transfer {
    /// Bytes of the largest payload. Isochronous: what a microframe carries. Bulk: uvcvideo's largest transfer (32
    /// packets of 512 bytes), so that each transfer is one payload and has one header.
    pub fn payload_bytes(self) -> u32 {
        match self {
            Transfer::Isochronous => 3 * 1024,
            Transfer::Bulk => 32 * 512,
        }
    }
}

/// Bits of the payload header (2.4.3.3); the header has no time stamps.
const HEADER_BYTES: usize = 2;
const FRAME_ID: u8 = 1;
const END_OF_FRAME: u8 = 1 << 1;
const ERROR: u8 = 1 << 6;
const END_OF_HEADER: u8 = 1 << 7;

/// The endpoint of the video, as USB/IP names it: without the direction bit.
const VIDEO: u32 = 1;

/// Faults that are armed: each is spent by the next frames or packets.
#[derive(Default)]
pub struct Faults {
    pub error_bits: u32,
    pub half_frames: u32,
    pub packet_errors: u32,
}

pub struct Streaming {
    pub transfer: Transfer,
    pub faults: Faults,
    mode: Mode,
    running: bool,
    paused: bool,
    frame: Vec<u8>,
    sent: usize,
    /// Frames begun since the simulator started. It goes on over streams and replugs, so that an old frame is known.
    number: u32,
    next_frame: Instant,
    /// The bit that tells one frame's payloads from the next one's.
    frame_id: u8,
    /// Transfers that wait for a frame.
    waiting: VecDeque<Submit>,
    /// Transfers of the status endpoint, which never reports anything.
    status: Vec<u32>,
    payloads: Vec<u8>,
}

impl Streaming {
    pub fn new(catalogue: Catalogue, transfer: Transfer) -> Streaming {
        Streaming {
            transfer,
            faults: Faults::default(),
            mode: catalogue.negotiate(0, 0, 0),
            running: false,
            paused: false,
            frame: Vec::new(),
            sent: 0,
            number: 0,
            next_frame: Instant::now(),
            frame_id: 0,
            waiting: VecDeque::new(),
            status: Vec::new(),
            payloads: Vec::new(),
        }
    }

    pub fn start(&mut self, mode: Mode, now: Instant) {
        self.mode = mode;
        self.running = true;
        self.frame.clear();
        self.sent = 0;
        self.next_frame = now;
    }

    pub fn stop(&mut self) {
        self.running = false;
    }

    /// The host is gone, and its transfers with it.
    pub fn reset(&mut self) {
        self.stop();
        self.waiting.clear();
        self.status.clear();
    }

    pub fn pause(&mut self) {
        self.paused = true;
    }

    pub fn resume(&mut self, now: Instant) {
        self.paused = false;
        self.next_frame = self.next_frame.max(now);
    }

    pub fn is_running(&self) -> bool {
        self.running
    }

    pub fn frames(&self) -> u32 {
        self.number
    }

    pub fn queue(&mut self, submit: Submit) {
        if submit.endpoint == VIDEO {
            self.waiting.push_back(submit);
        } else {
            self.status.push(submit.request);
        }
    }

    /// Drops a transfer that the host takes back; false if it was answered already.
    pub fn forget(&mut self, victim: u32) -> bool {
        let before = self.waiting.len() + self.status.len();
        self.waiting.retain(|submit| submit.request != victim);
        self.status.retain(|&request| request != victim);
        self.waiting.len() + self.status.len() < before
    }

    pub fn next_due(&self) -> Option<Instant> {
        (self.running && !self.paused && !self.waiting.is_empty()).then_some(self.next_frame)
    }

    /// Answers waiting transfers for as long as there is a frame to send.
    pub fn send_due(&mut self, link: &mut Link, now: Instant) -> io::Result<()> {
        while !self.waiting.is_empty() && self.has_data(now) {
            let Some(submit) = self.waiting.pop_front() else { break };
            self.payloads.clear();
            match self.transfer {
                Transfer::Bulk => {
                    let room = submit.length.min(self.transfer.payload_bytes());
                    self.payload(room as usize);
                    link.complete(submit.request, &self.payloads)?;
                }
                Transfer::Isochronous => {
                    let packets = self.packets(&submit.packets, now);
                    link.complete_isochronous(&submit, &self.payloads, &packets)?;
                }
            }
        }
        Ok(())
    }

    /// Fills the packets of one transfer, with nothing once no frame is due.
    fn packets(&mut self, asked: &[Packet], now: Instant) -> Vec<Packet> {
        let mut packets = asked.to_vec();
        for packet in &mut packets {
            packet.actual = if self.has_data(now) { self.payload(packet.length as usize) } else { 0 };
            if packet.actual > 0 && self.faults.packet_errors > 0 {
                self.faults.packet_errors -= 1;
                packet.status = -libc::EILSEQ; // what a host controller reports for a packet with a bad checksum
            }
        }
        packets
    }

    /// Is there something to send? Begins the next frame when its time has come.
    fn has_data(&mut self, now: Instant) -> bool {
        if !self.running || self.paused {
            return false;
        }
        if self.sent < self.frame.len() {
            return true;
        }
        if now < self.next_frame {
            return false;
        }
        self.begin_frame(now);
        true
    }

    fn begin_frame(&mut self, now: Instant) {
        self.number = self.number.wrapping_add(1);
        let picture = Picture { width: self.mode.size.width, height: self.mode.size.height, number: self.number };
        match self.mode.format {
            Format::Yuyv => picture.yuyv(&mut self.frame),
            Format::Mjpeg => picture.jpeg(&mut self.frame),
        }
        if self.faults.half_frames > 0 {
            self.faults.half_frames -= 1;
            self.frame.truncate(self.frame.len() / 2);
        }
        self.sent = 0;
        self.frame_id ^= FRAME_ID;
        // A frame that comes too late moves the ones after it: a camera makes none up.
        let interval = Duration::from_nanos(u64::from(self.mode.interval) * 100);
        self.next_frame = (self.next_frame + interval).max(now);
    }

    /// Appends the next payload to `payloads`; its bytes.
    fn payload(&mut self, room: usize) -> u32 {
        let rest = &self.frame[self.sent..];
        let part = &rest[..rest.len().min(room - HEADER_BYTES)];
        let mut bits = END_OF_HEADER | self.frame_id;
        if part.len() == rest.len() {
            bits |= END_OF_FRAME;
            // One frame, one bit: on the last payload each counted order spoils one frame.
            if self.faults.error_bits > 0 {
                self.faults.error_bits -= 1;
                bits |= ERROR;
            }
        }
        self.payloads.extend_from_slice(&[HEADER_BYTES as u8, bits]);
        self.payloads.extend_from_slice(part);
        self.sent += part.len();
        (HEADER_BYTES + part.len()) as u32
    }
}
