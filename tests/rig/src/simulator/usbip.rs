//! The USB/IP wire, as Documentation/usb/usbip_protocol.rst of the kernel has it: a header of 48 bytes, big-endian, then
//! the data, then the packets' descriptors of an isochronous transfer.

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use super::device::Answer;

const CMD_SUBMIT: u32 = 1;
const CMD_UNLINK: u32 = 2;
const RET_SUBMIT: u32 = 3;
const RET_UNLINK: u32 = 4;

const HEADER_WORDS: usize = 12;
const PACKET_BYTES: usize = 16;
const DIRECTION_OUT: u32 = 0;

/// A transfer that the driver asks for: one URB.
pub struct Submit {
    /// The kernel's number for it, given back with the answer.
    pub request: u32,
    pub endpoint: u32,
    /// Bytes that the driver has room for, or sends.
    pub length: u32,
    pub setup: [u8; 8],
    /// What the driver sends.
    pub data: Vec<u8>,
    start_frame: u32,
    /// Of an isochronous transfer.
    pub packets: Vec<Packet>,
}

#[derive(Clone, Copy)]
pub struct Packet {
    offset: u32,
    pub length: u32,
    pub actual: u32,
    pub status: i32,
}

pub enum Request {
    Submit(Submit),
    /// Take `victim` back.
    Unlink {
        request: u32,
        victim: u32,
    },
}

pub struct Link {
    socket: UnixStream,
    message: Vec<u8>,
}

impl Link {
    pub fn new(socket: UnixStream) -> Link {
        Link { socket, message: Vec::new() }
    }

    pub fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// The next request. Blocks in the middle of one only, and the kernel sends each as a whole.
    pub fn receive(&mut self) -> io::Result<Request> {
        let mut header = [0; HEADER_WORDS * 4];
        self.socket.read_exact(&mut header)?;
        let word = |index: usize| {
            let at = index * 4;
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
        };
        let (command, request, direction, endpoint) = (word(0), word(1), word(3), word(4));
        match command {
            CMD_UNLINK => Ok(Request::Unlink { request, victim: word(5) }),
            CMD_SUBMIT => {
                let length = word(6);
                let mut setup = [0; 8];
                setup.copy_from_slice(&header[40..]);
                let mut data = vec![0; if direction == DIRECTION_OUT { length as usize } else { 0 }];
                self.socket.read_exact(&mut data)?;
                // No packets are 0 to some kernels and -1 to others.
                let packets = self.receive_packets((word(8) as i32).max(0) as usize)?;
                Ok(Request::Submit(Submit { request, endpoint, length, setup, data, start_frame: word(7), packets }))
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("USB/IP command {command}"))),
        }
    }

    fn receive_packets(&mut self, count: usize) -> io::Result<Vec<Packet>> {
        let mut bytes = vec![0; count * PACKET_BYTES];
        self.socket.read_exact(&mut bytes)?;
        let word =
            |bytes: &[u8], at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Ok(bytes
            .chunks_exact(PACKET_BYTES)
            .map(|packet| Packet { offset: word(packet, 0), length: word(packet, 4), actual: 0, status: 0 })
            .collect())
    }

    /// Answers a control request.
    pub fn answer(&mut self, request: u32, answer: &Answer) -> io::Result<()> {
        match answer {
            Answer::Data(bytes) => self.complete(request, bytes),
            Answer::Taken(count) => self.send([RET_SUBMIT, request, 0, 0, 0, 0, *count, 0, 0, 0, 0, 0], &[], &[]),
            Answer::Stall => {
                let status = -libc::EPIPE as u32;
                self.send([RET_SUBMIT, request, 0, 0, 0, status, 0, 0, 0, 0, 0, 0], &[], &[])
            }
        }
    }

    /// Answers a transfer to the host.
    pub fn complete(&mut self, request: u32, data: &[u8]) -> io::Result<()> {
        self.send([RET_SUBMIT, request, 0, 0, 0, 0, data.len() as u32, 0, 0, 0, 0, 0], data, &[])
    }

    /// Answers an isochronous transfer. `data` holds the packets' bytes without the gaps between them; the kernel puts
    /// each back to its offset.
    pub fn complete_isochronous(&mut self, submit: &Submit, data: &[u8], packets: &[Packet]) -> io::Result<()> {
        let errors = packets.iter().filter(|packet| packet.status != 0).count() as u32;
        let (actual, start, count) = (data.len() as u32, submit.start_frame, packets.len() as u32);
        self.send([RET_SUBMIT, submit.request, 0, 0, 0, 0, actual, start, count, errors, 0, 0], data, packets)
    }

    /// Answers an unlink: the victim is never answered then, unless it was before.
    pub fn unlinked(&mut self, request: u32, found: bool) -> io::Result<()> {
        let status = if found { -libc::ECONNRESET as u32 } else { 0 };
        self.send([RET_UNLINK, request, 0, 0, 0, status, 0, 0, 0, 0, 0, 0], &[], &[])
    }

    fn send(&mut self, header: [u32; HEADER_WORDS], data: &[u8], packets: &[Packet]) -> io::Result<()> {
        self.message.clear();
        for word in header {
            self.message.extend_from_slice(&word.to_be_bytes());
        }
        self.message.extend_from_slice(data);
        for packet in packets {
            for word in [packet.offset, packet.length, packet.actual, packet.status as u32] {
                self.message.extend_from_slice(&word.to_be_bytes());
            }
        }
        self.socket.write_all(&self.message)
    }
}
