//! The camera's controls and how a host asks for them (UVC 1.0, 4.2).

use super::descriptors::{CAMERA_TERMINAL, PROCESSING_UNIT};

/// Class-specific requests (table A-8).
pub mod request {
    pub const SET_CUR: u8 = 0x01;
    pub const GET_CUR: u8 = 0x81;
    pub const GET_MIN: u8 = 0x82;
    pub const GET_MAX: u8 = 0x83;
    pub const GET_RES: u8 = 0x84;
    pub const GET_LEN: u8 = 0x85;
    pub const GET_INFO: u8 = 0x86;
    pub const GET_DEF: u8 = 0x87;
}

/// Why a request was refused, as the host may ask afterwards (4.2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    None = 0,
    WrongState = 2,
    OutOfRange = 4,
    InvalidUnit = 5,
    InvalidControl = 6,
    InvalidRequest = 7,
}

const BRIGHTNESS: u8 = 2;
const CONTRAST: u8 = 3;
const EXPOSURE_MODE: u8 = 2;
const EXPOSURE_TIME: u8 = 4;
const EXPOSURE_BY_APERTURE: i32 = 8; // automatic, with a fixed aperture: what webcams have

const SUPPORTS_GET_AND_SET: u8 = 0b11;

struct Control {
    unit: u8,
    selector: u8,
    bytes: usize,
    minimum: i32,
    maximum: i32,
    /// Of a bitmap: the values that may be chosen.
    resolution: i32,
    default: i32,
    value: i32,
}

impl Control {
    const fn new(unit: u8, selector: u8, bytes: usize, range: (i32, i32), resolution: i32, default: i32) -> Control {
        Control { unit, selector, bytes, minimum: range.0, maximum: range.1, resolution, default, value: default }
    }
}

pub struct Controls {
    controls: [Control; 4],
}

impl Controls {
    pub fn new() -> Controls {
        Controls {
            controls: [
                Control::new(PROCESSING_UNIT, BRIGHTNESS, 2, (-64, 64), 1, 0),
                Control::new(PROCESSING_UNIT, CONTRAST, 2, (0, 100), 1, 50),
                Control::new(CAMERA_TERMINAL, EXPOSURE_MODE, 1, (1, 8), 0b1001, EXPOSURE_BY_APERTURE),
                // In units of 100 us.
                Control::new(CAMERA_TERMINAL, EXPOSURE_TIME, 4, (1, 5000), 1, 100),
            ],
        }
    }

    pub fn get(&self, unit: u8, selector: u8, request: u8) -> Result<Vec<u8>, Refusal> {
        let control = &self.controls[self.find(unit, selector)?];
        let value = match request {
            request::GET_CUR => control.value,
            request::GET_MIN => control.minimum,
            request::GET_MAX => control.maximum,
            request::GET_RES => control.resolution,
            request::GET_DEF => control.default,
            request::GET_LEN => return Ok((control.bytes as u16).to_le_bytes().to_vec()),
            request::GET_INFO => return Ok(vec![SUPPORTS_GET_AND_SET]),
            _ => return Err(Refusal::InvalidRequest),
        };
        Ok(value.to_le_bytes()[..control.bytes].to_vec())
    }

    pub fn set(&mut self, unit: u8, selector: u8, data: &[u8]) -> Result<(), Refusal> {
        let index = self.find(unit, selector)?;
        if unit == CAMERA_TERMINAL && selector == EXPOSURE_TIME && self.exposes_by_itself() {
            return Err(Refusal::WrongState);
        }
        let control = &mut self.controls[index];
        if data.len() != control.bytes {
            return Err(Refusal::InvalidRequest);
        }
        let negative = control.minimum < 0 && data[data.len() - 1] & 0x80 != 0;
        let mut bytes = if negative { [0xff; 4] } else { [0; 4] };
        bytes[..data.len()].copy_from_slice(data);
        let value = i32::from_le_bytes(bytes);
        if !(control.minimum..=control.maximum).contains(&value) {
            return Err(Refusal::OutOfRange);
        }
        control.value = value;
        Ok(())
    }

    fn exposes_by_itself(&self) -> bool {
        self.controls.iter().any(|control| {
            control.unit == CAMERA_TERMINAL
                && control.selector == EXPOSURE_MODE
                && control.value == EXPOSURE_BY_APERTURE
        })
    }

    fn find(&self, unit: u8, selector: u8) -> Result<usize, Refusal> {
        if !self.controls.iter().any(|control| control.unit == unit) {
            return Err(Refusal::InvalidUnit);
        }
        self.controls
            .iter()
            .position(|control| control.unit == unit && control.selector == selector)
            .ok_or(Refusal::InvalidControl)
    }
}
