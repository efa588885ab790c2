//! The descriptors that tell the driver what this device is: USB 2.0, chapter 9, and UVC 1.0, chapter 3.

use super::catalogue::{Catalogue, Format, Size};
use super::streaming::Transfer;

pub const CONTROL_INTERFACE: u8 = 0;
pub const STREAMING_INTERFACE: u8 = 1;
pub const CAMERA_TERMINAL: u8 = 1;
pub const PROCESSING_UNIT: u8 = 2;
const OUTPUT_TERMINAL: u8 = 3;

const VIDEO_ENDPOINT: u8 = 0x81;
const STATUS_ENDPOINT: u8 = 0x83;

const STRING_MANUFACTURER: u8 = 1;
const STRING_PRODUCT: u8 = 2;
const STRING_SERIAL: u8 = 3;

const CLASS_SPECIFIC_INTERFACE: u8 = 0x24;

pub fn device() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend([18, 1]);
    bytes.extend(0x0200u16.to_le_bytes());
    // "Miscellaneous, interface association": one function over two interfaces.
    bytes.extend([0xef, 2, 1, 64]);
    // A product id that pid.codes keeps for tests.
    bytes.extend(0x1209u16.to_le_bytes());
    bytes.extend(0x0001u16.to_le_bytes());
    bytes.extend(0x0100u16.to_le_bytes());
    bytes.extend([STRING_MANUFACTURER, STRING_PRODUCT, STRING_SERIAL, 1]);
    bytes
}

pub fn string(index: u8, serial: &str) -> Option<Vec<u8>> {
    let text = match index {
        0 => return Some(vec![4, 3, 0x09, 0x04]), // the languages: US English
        STRING_MANUFACTURER => "Camlease",
        STRING_PRODUCT => "Rig Camera",
        STRING_SERIAL => serial,
        _ => return None,
    };
    let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut bytes = vec![units.len() as u8 + 2, 3];
    bytes.extend(units);
    Some(bytes)
}

pub fn configuration(catalogue: &Catalogue, transfer: Transfer) -> Vec<u8> {
    let mut bytes = vec![9, 2, 0, 0, 2, 1, 0, 0x80, 250];
    // The association: two interfaces from 0, class video, a video interface collection.
    bytes.extend([8, 11, CONTROL_INTERFACE, 2, 14, 3, 0, STRING_PRODUCT]);
    control_interface(&mut bytes);
    streaming_interface(&mut bytes, catalogue, transfer);
    set_length(&mut bytes, 0, 2);
    bytes
}

/// Writes into the descriptor that begins at `start` the length of all from there on.
fn set_length(bytes: &mut [u8], start: usize, offset: usize) {
    let length = (bytes.len() - start) as u16;
    bytes[start + offset..start + offset + 2].copy_from_slice(&length.to_le_bytes());
}

fn control_interface(bytes: &mut Vec<u8>) {
    bytes.extend([9, 4, CONTROL_INTERFACE, 0, 1, 14, 1, 0, STRING_PRODUCT]);
    // 3.7.2: the header, UVC 1.0, a clock of 48 MHz, one streaming interface.
    let header = bytes.len();
    bytes.extend([13, CLASS_SPECIFIC_INTERFACE, 1]);
    bytes.extend(0x0100u16.to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(48_000_000u32.to_le_bytes());
    bytes.extend([1, STREAMING_INTERFACE]);
    // 3.7.2.3: the camera; bits 1 and 3: exposure mode and exposure time.
    bytes.extend([17, CLASS_SPECIFIC_INTERFACE, 2, CAMERA_TERMINAL]);
    bytes.extend(0x0201u16.to_le_bytes());
    bytes.extend([0, 0, 0, 0, 0, 0, 0, 0, 2, 0b1010, 0]);
    // 3.7.2.5: the processing unit; bits 0 and 1: brightness and contrast.
    bytes.extend([11, CLASS_SPECIFIC_INTERFACE, 5, PROCESSING_UNIT, CAMERA_TERMINAL, 0, 0, 2, 0b11, 0, 0]);
    // 3.7.2.2: the way out, to USB.
    bytes.extend([9, CLASS_SPECIFIC_INTERFACE, 3, OUTPUT_TERMINAL]);
    bytes.extend(0x0101u16.to_le_bytes());
    bytes.extend([0, PROCESSING_UNIT, 0]);
    set_length(bytes, header, 5);
    // The status endpoint. Nothing is ever reported on it, but real cameras have one and the driver polls it.
    bytes.extend([7, 5, STATUS_ENDPOINT, 3, 16, 0, 8]);
    bytes.extend([5, 0x25, 3, 16, 0]);
}

fn streaming_interface(bytes: &mut Vec<u8>, catalogue: &Catalogue, transfer: Transfer) {
    // A bulk camera has its endpoint at once; an isochronous one has alternate setting 0 without any bandwidth.
    let endpoints = u8::from(transfer == Transfer::Bulk);
    bytes.extend([9, 4, STREAMING_INTERFACE, 0, endpoints, 14, 2, 0, 0]);
    // 3.9.2.1: the input header.
    let header = bytes.len();
    bytes.extend([15, CLASS_SPECIFIC_INTERFACE, 1, 2, 0, 0, VIDEO_ENDPOINT, 0, OUTPUT_TERMINAL, 0, 0, 0, 1, 0, 0]);
    yuyv_format(bytes, catalogue);
    mjpeg_format(bytes, catalogue);
    set_length(bytes, header, 4);
    match transfer {
        Transfer::Bulk => bytes.extend([7, 5, VIDEO_ENDPOINT, 2, 0, 2, 0]),
        Transfer::Isochronous => {
            bytes.extend([9, 4, STREAMING_INTERFACE, 1, 1, 14, 2, 0, 0]);
            // Three packets of 1024 bytes in each microframe: the most that USB 2.0 carries, 24 MB/s.
            bytes.extend([7, 5, VIDEO_ENDPOINT, 5, 0x00, 0x14, 1]);
        }
    }
}

fn yuyv_format(bytes: &mut Vec<u8>, catalogue: &Catalogue) {
    bytes.extend([27, CLASS_SPECIFIC_INTERFACE, 4, Format::Yuyv as u8, catalogue.sizes.len() as u8]);
    // The GUID of a FOURCC: its four letters and a fixed rest.
    bytes.extend(*b"YUY2\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71");
    bytes.extend([16, 1, 0, 0, 0, 0]);
    frames(bytes, catalogue, 5);
    colour_matching(bytes);
}

fn mjpeg_format(bytes: &mut Vec<u8>, catalogue: &Catalogue) {
    bytes.extend([11, CLASS_SPECIFIC_INTERFACE, 6, Format::Mjpeg as u8, catalogue.sizes.len() as u8]);
    bytes.extend([0, 1, 0, 0, 0, 0]);
    frames(bytes, catalogue, 7);
    colour_matching(bytes);
}

/// The sizes of a format, each with its rates; uncompressed and MJPEG ones have the same shape.
fn frames(bytes: &mut Vec<u8>, catalogue: &Catalogue, subtype: u8) {
    let [fast, slow] = catalogue.intervals;
    let bit_rate = |size: Size, interval: u32| {
        let rate = u64::from(size.bytes()) * 8 * 10_000_000 / u64::from(interval);
        u32::try_from(rate).unwrap_or(u32::MAX)
    };
    for (index, &size) in catalogue.sizes.iter().enumerate() {
        bytes.extend([34, CLASS_SPECIFIC_INTERFACE, subtype, index as u8 + 1, 0]);
        bytes.extend((size.width as u16).to_le_bytes());
        bytes.extend((size.height as u16).to_le_bytes());
        bytes.extend(bit_rate(size, slow).to_le_bytes());
        bytes.extend(bit_rate(size, fast).to_le_bytes());
        bytes.extend(size.bytes().to_le_bytes());
        bytes.extend(fast.to_le_bytes());
        bytes.push(2);
        bytes.extend(fast.to_le_bytes());
        bytes.extend(slow.to_le_bytes());
    }
}

/// 3.9.2.6: BT.709 primaries and transfer, SMPTE 170M matrix, the values that the specification takes for granted.
fn colour_matching(bytes: &mut Vec<u8>) {
    bytes.extend([6, CLASS_SPECIFIC_INTERFACE, 13, 1, 1, 4]);
}
