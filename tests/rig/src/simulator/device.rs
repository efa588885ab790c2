//! The device as its default endpoint shows it: standard requests (USB 2.0, 9.4), the units' controls, and the
//! negotiation of a stream (UVC 1.0, 4.3.1.1).

use super::catalogue::{Catalogue, Mode};
use super::controls::{Controls, Refusal, request};
use super::descriptors::{self, CONTROL_INTERFACE, STREAMING_INTERFACE};
use super::streaming::Transfer;

const GET_STATUS: u8 = 0;
const CLEAR_FEATURE: u8 = 1;
const SET_FEATURE: u8 = 3;
const GET_DESCRIPTOR: u8 = 6;
const GET_CONFIGURATION: u8 = 8;
const SET_CONFIGURATION: u8 = 9;
const GET_INTERFACE: u8 = 10;
const SET_INTERFACE: u8 = 11;

const DEVICE_DESCRIPTOR: u16 = 1;

const VIDEO_PROBE: u8 = 1;
const VIDEO_COMMIT: u8 = 2;
const REQUEST_ERROR_CODE: u8 = 2;

/// Bytes of the probe and commit controls in UVC 1.0 (table 4-47).
const PROBE_BYTES: usize = 26;

/// What goes back for a control request.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Data(Vec<u8>),
    /// This many bytes were taken.
    Taken(u32),
    Stall,
}

#[derive(Debug, PartialEq, Eq)]
pub enum StreamChange {
    Start(Mode),
    Stop,
}

/// The eight bytes that open a control request (USB 2.0, table 9-2).
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    request_type: u8,
    request: u8,
    value: u16,
    index: u16,
    length: u16,
}

impl Setup {
    pub fn parse(bytes: [u8; 8]) -> Setup {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        Setup { request_type: bytes[0], request: bytes[1], value: word(2), index: word(4), length: word(6) }
    }

    /// Is it for a control of the camera itself, as a user moves them?
    pub fn is_for_a_unit(&self) -> bool {
        self.is_class() && self.interface() == CONTROL_INTERFACE && self.unit() != 0
    }

    /// Does the host ask who the device is? It does so when it comes, and after a reset of its port.
    pub fn asks_who(&self) -> bool {
        !self.is_class() && self.request == GET_DESCRIPTOR && self.value >> 8 == DEVICE_DESCRIPTOR
    }

    fn is_class(&self) -> bool {
        self.request_type & 0x60 == 0x20
    }

    fn is_for_an_endpoint(&self) -> bool {
        self.request_type & 0x1f == 2
    }

    fn interface(&self) -> u8 {
        self.index as u8
    }

    fn unit(&self) -> u8 {
        (self.index >> 8) as u8
    }

    fn selector(&self) -> u8 {
        (self.value >> 8) as u8
    }
}

/// How many of the next negotiations are refused.
#[derive(Default)]
pub struct Stalls {
    pub probes: u32,
    pub commits: u32,
}

pub struct Device {
    catalogue: Catalogue,
    transfer: Transfer,
    serial: String,
    controls: Controls,
    negotiated: Mode,
    alternate_setting: u8,
    last_refusal: Refusal,
    pub stalls: Stalls,
}

type Outcome = (Answer, Option<StreamChange>);

impl Device {
    pub fn new(catalogue: Catalogue, transfer: Transfer, serial: &str) -> Device {
        Device {
            catalogue,
            transfer,
            serial: serial.into(),
            controls: Controls::new(),
            negotiated: catalogue.negotiate(0, 0, 0),
            alternate_setting: 0,
            last_refusal: Refusal::None,
            stalls: Stalls::default(),
        }
    }

    /// Plugged in anew, or reset: what was set is forgotten, what was ordered stays.
    pub fn power_on(&mut self) {
        let stalls = std::mem::take(&mut self.stalls);
        *self = Device { stalls, ..Device::new(self.catalogue, self.transfer, &self.serial) };
    }

    pub fn request(&mut self, setup: Setup, data: &[u8]) -> Outcome {
        let (mut answer, change) = if setup.is_class() {
            match (setup.interface(), setup.unit()) {
                (STREAMING_INTERFACE, _) => self.negotiate(setup, data),
                (_, 0) => (self.error_code(setup), None),
                _ => (self.unit_control(setup, data), None),
            }
        } else {
            self.standard(setup)
        };
        if let Answer::Data(bytes) = &mut answer {
            bytes.truncate(usize::from(setup.length));
        }
        (answer, change)
    }

    fn standard(&mut self, setup: Setup) -> Outcome {
        let taken = Answer::Taken(0);
        match setup.request {
            GET_DESCRIPTOR => (self.descriptor(setup), None),
            GET_STATUS => (Answer::Data(vec![0, 0]), None),
            GET_CONFIGURATION => (Answer::Data(vec![1]), None),
            GET_INTERFACE if setup.interface() == STREAMING_INTERFACE => {
                (Answer::Data(vec![self.alternate_setting]), None)
            }
            GET_INTERFACE => (Answer::Data(vec![0]), None),
            // After a reset it is as after it was plugged in.
            SET_CONFIGURATION => {
                self.power_on();
                (taken, Some(StreamChange::Stop))
            }
            SET_FEATURE => (taken, None),
            SET_INTERFACE if setup.interface() == STREAMING_INTERFACE => {
                self.alternate_setting = setup.value as u8;
                // Bandwidth is what starts an isochronous stream, and taking it away is what stops it.
                match (self.transfer, self.alternate_setting) {
                    (Transfer::Isochronous, 0) => (taken, Some(StreamChange::Stop)),
                    (Transfer::Isochronous, _) => (taken, Some(StreamChange::Start(self.negotiated))),
                    (Transfer::Bulk, _) => (taken, None),
                }
            }
            SET_INTERFACE => (taken, None),
            // UVC has no word for stopping a bulk stream. Windows clears the endpoint's halt, and so does uvcvideo.
            CLEAR_FEATURE if setup.is_for_an_endpoint() && self.transfer == Transfer::Bulk => {
                (taken, Some(StreamChange::Stop))
            }
            CLEAR_FEATURE => (taken, None),
            _ => (Answer::Stall, None),
        }
    }

    fn descriptor(&self, setup: Setup) -> Answer {
        let (kind, index) = (setup.value >> 8, setup.value as u8);
        let bytes = match kind {
            DEVICE_DESCRIPTOR => Some(descriptors::device()),
            2 => Some(descriptors::configuration(&self.catalogue, self.transfer)),
            3 => descriptors::string(index, &self.serial),
            _ => None,
        };
        bytes.map_or(Answer::Stall, Answer::Data)
    }

    fn negotiate(&mut self, setup: Setup, data: &[u8]) -> Outcome {
        let selector = setup.selector();
        let stalls = match selector {
            VIDEO_PROBE => &mut self.stalls.probes,
            VIDEO_COMMIT => &mut self.stalls.commits,
            _ => return (self.refuse(Refusal::InvalidControl), None),
        };
        match setup.request {
            request::SET_CUR => {
                if *stalls > 0 {
                    *stalls -= 1;
                    return (Answer::Stall, None);
                }
                if data.len() < PROBE_BYTES {
                    return (self.refuse(Refusal::InvalidRequest), None);
                }
                let interval = u32::from_le_bytes([data[4], data[5], data[6], data[7]]);
                self.negotiated = self.catalogue.negotiate(data[2], data[3], interval);
                let starts = selector == VIDEO_COMMIT && self.transfer == Transfer::Bulk;
                (Answer::Taken(data.len() as u32), starts.then_some(StreamChange::Start(self.negotiated)))
            }
            request::GET_CUR => (Answer::Data(self.probe(self.negotiated)), None),
            request::GET_MIN | request::GET_MAX | request::GET_DEF => {
                (Answer::Data(self.probe(self.catalogue.negotiate(0, 0, 0))), None)
            }
            request::GET_LEN => (Answer::Data((PROBE_BYTES as u16).to_le_bytes().to_vec()), None),
            request::GET_INFO => (Answer::Data(vec![0b11]), None),
            _ => (self.refuse(Refusal::InvalidRequest), None),
        }
    }

    fn probe(&self, mode: Mode) -> Vec<u8> {
        let mut bytes = vec![0; PROBE_BYTES];
        bytes[2] = mode.format as u8;
        bytes[3] = mode.frame;
        bytes[4..8].copy_from_slice(&mode.interval.to_le_bytes());
        bytes[18..22].copy_from_slice(&mode.size.bytes().to_le_bytes());
        bytes[22..26].copy_from_slice(&self.transfer.payload_bytes().to_le_bytes());
        bytes
    }

    fn error_code(&mut self, setup: Setup) -> Answer {
        if setup.selector() == REQUEST_ERROR_CODE && setup.request == request::GET_CUR {
            Answer::Data(vec![self.last_refusal as u8])
        } else {
            self.refuse(Refusal::InvalidControl)
        }
    }

    fn unit_control(&mut self, setup: Setup, data: &[u8]) -> Answer {
        let (unit, selector) = (setup.unit(), setup.selector());
        let outcome = if setup.request == request::SET_CUR {
            self.controls.set(unit, selector, data).map(|()| Answer::Taken(data.len() as u32))
        } else {
            self.controls.get(unit, selector, setup.request).map(Answer::Data)
        };
        outcome.unwrap_or_else(|refusal| self.refuse(refusal))
    }

    fn refuse(&mut self, refusal: Refusal) -> Answer {
        self.last_refusal = refusal;
        Answer::Stall
    }
}
