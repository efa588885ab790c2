//! JPEG as it lies in a file: where one ends, how large its picture is, and its pixels.
//!
//! Where one ends is found by going from marker to marker (ITU-T T.81, annex B): a thumbnail has a
//! start and an end of its own inside an application segment, which is passed over by its length.

use std::io::BufRead;
use std::panic::{AssertUnwindSafe, catch_unwind};

use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::Size;
use super::bytes::{Bytes, Window};
use crate::error::Result;
use crate::policy;

/// A start of image and the first byte of the marker that must follow.
pub const MAGIC: [u8; 3] = [0xFF, 0xD8, 0xFF];

const TEM: u8 = 0x01;
const RST0: u8 = 0xD0;
const RST7: u8 = 0xD7;
const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;

/// Where one JPEG lies, and what its markers tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub start: u64,
    pub end: u64,
    pub ending: Ending,
    pub size: Option<Size>,
}

impl Extent {
    pub fn length(&self) -> usize {
        (self.end - self.start) as usize
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With its end marker, and nothing strange before it.
    Whole,
    /// The next one begins where this one should go on, or something that is no marker stands for one.
    Broken,
    /// The file ends first.
    Cut,
}

/// Where the first JPEG begins at or after `at`. What stands between two, padding or the head of a
/// part of an HTTP stream, is passed over.
pub fn find_start(window: &mut Window, mut at: u64) -> Result<Option<u64>> {
    while let Some(found) = find_ff(window, at)? {
        if window.at(found, MAGIC.len())?.starts_with(&MAGIC) {
            return Ok(Some(found));
        }
        at = found + 1;
    }
    Ok(None)
}

/// The JPEG that starts at `start`, to its end.
pub fn extent(window: &mut Window, start: u64) -> Result<Extent> {
    let mut size = None;
    let mut whole = true;
    let mut at = start + 2;
    let (end, ending) = loop {
        match next_marker(window, at)? {
            Step::Bare { marker: EOI, end, .. } if whole => break (end, Ending::Whole),
            Step::Bare { marker: EOI, end, .. } => break (end, Ending::Broken),
            Step::Bare { marker: SOI, at, .. } => break (at, Ending::Broken),
            Step::Bare { end, .. } => at = end,
            Step::Segment { marker: SOS, end, .. } => match scan_end(window, end)? {
                Some(end) => at = end,
                None => break (window.bytes().length()?, Ending::Cut),
            },
            Step::Segment { marker, body, end } => {
                size = size.or(frame_size(window, marker, body)?);
                at = end;
            }
            Step::Strange => {
                whole = false;
                match scan_end(window, at + 1)? {
                    Some(end) => at = end,
                    None => break (window.bytes().length()?, Ending::Cut),
                }
            }
            Step::Cut => break (window.bytes().length()?, Ending::Cut),
        }
    };
    // The file may have been cut meanwhile.
    Ok(Extent { start, end: end.max(start), ending, size })
}

/// The size of the picture in the JPEG that starts at `start`, read no further than needed; none when
/// its head is broken.
pub fn size(window: &mut Window, start: u64) -> Result<Option<Size>> {
    let mut at = start + 2;
    loop {
        match next_marker(window, at)? {
            Step::Segment { marker: SOS, .. } | Step::Strange | Step::Cut => return Ok(None),
            Step::Bare { marker: SOI | EOI, .. } => return Ok(None),
            Step::Bare { end, .. } => at = end,
            Step::Segment { marker, body, end } => match frame_size(window, marker, body)? {
                Some(size) => return Ok(Some(size)),
                None => at = end,
            },
        }
    }
}

enum Step {
    /// A marker that stands alone.
    Bare {
        marker: u8,
        at: u64,
        end: u64,
    },
    /// A marker with a segment: its bytes behind the length are from `body` to `end`.
    Segment {
        marker: u8,
        body: u64,
        end: u64,
    },
    /// No marker stands here.
    Strange,
    Cut,
}

/// The marker at `at`, where one must be.
fn next_marker(window: &mut Window, at: u64) -> Result<Step> {
    // Any number of 0xFF may stand before a marker (B.1.1.2).
    let fill = match window.at(at, 1)? {
        [] => return Ok(Step::Cut),
        bytes => bytes.iter().take_while(|&&byte| byte == 0xFF).count(),
    };
    let Some(lead) = fill.checked_sub(1) else { return Ok(Step::Strange) };
    let at = at + lead as u64;
    Ok(match *window.at(at, 5)? {
        [_, 0x00 | 0xFF, ..] => Step::Strange,
        [_, marker @ (TEM | RST0..=RST7 | SOI | EOI), ..] => Step::Bare { marker, at, end: at + 2 },
        [_, marker, high, low, first, ..] => {
            let length = u64::from(u16::from_be_bytes([high, low]));
            let end = at + 2 + length;
            // A damaged length must not lead into a later frame: it is told twice in a scan's head
            // (B.2.3), and behind any other segment another marker follows.
            let holds = match marker {
                SOS => length == 6 + 2 * u64::from(first),
                _ => length >= 2 && window.at(end, 1)?.first().is_none_or(|&byte| byte == 0xFF),
            };
            if holds { Step::Segment { marker, body: at + 4, end } } else { Step::Strange }
        }
        _ => Step::Cut,
    })
}

/// Where the entropy-coded data ends in which `at` lies: at the next marker that is not part of it.
fn scan_end(window: &mut Window, mut at: u64) -> Result<Option<u64>> {
    while let Some(found) = find_ff(window, at)? {
        at = match *window.at(found, 3)? {
            [_, 0x00 | RST0..=RST7, ..] => found + 2,
            [_, 0xFF, ..] => found + 1,
            // A flipped bit makes a start marker now and then, but hardly ever one with another behind it.
            [_, SOI, next, ..] if next != 0xFF => found + 2,
            [_, _, ..] => return Ok(Some(found)),
            _ => return Ok(None),
        };
    }
    Ok(None)
}

/// What a frame header (SOFn) says of the size; any other segment says nothing.
fn frame_size(window: &mut Window, marker: u8, body: u64) -> Result<Option<Size>> {
    // C4, C8 and CC are among them and are not frame headers: DHT, JPG and DAC.
    if !matches!(marker, 0xC0..=0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF) {
        return Ok(None);
    }
    Ok(match *window.at(body, 5)? {
        [_precision, high, low, wide, narrow, ..] => Some(Size {
            width: u16::from_be_bytes([wide, narrow]).into(),
            height: u16::from_be_bytes([high, low]).into(),
        })
        // A height of 0 is told behind the first scan (DNL), which no camera does and few decoders know.
        .filter(|size| size.width > 0 && size.height > 0),
        _ => None,
    })
}

fn find_ff(window: &mut Window, mut at: u64) -> Result<Option<u64>> {
    loop {
        let bytes = window.at(at, 1)?;
        // The standard library's way to libc's memchr.
        let mut rest = bytes;
        let passed = rest.skip_until(0xFF).unwrap_or(0);
        match bytes[..passed].last() {
            None => return Ok(None),
            Some(0xFF) => return Ok(Some(at + passed as u64 - 1)),
            Some(_) => at += passed as u64,
        }
    }
}

/// What the decoder does where the data is damaged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// It stops and says so.
    Strict,
    /// It fills the rest with grey and says nothing.
    Lenient,
}

/// A decoder with the memory that it needs again for the next picture.
#[derive(Default)]
pub struct Decoder {
    compressed: Vec<u8>,
}

impl Decoder {
    /// Decodes one JPEG to RGB, and says whether all of it could be decoded. What could not be is grey,
    /// or what `into` held before when nothing could.
    pub fn decode(&mut self, bytes: &Bytes, jpeg: &Extent, size: Size, into: &mut [u8]) -> Result<bool> {
        self.load(bytes, jpeg)?;
        if self.try_as(Mode::Strict, size, into) {
            return Ok(jpeg.ending == Ending::Whole);
        }
        self.try_as(Mode::Lenient, size, into);
        Ok(false)
    }

    /// Reads it, and puts behind its start the segment that tells the decoder to use the standard
    /// Huffman tables where it has none of its own: most UVC cameras leave them out.
    fn load(&mut self, bytes: &Bytes, jpeg: &Extent) -> Result<()> {
        const HEAD: [u8; 11] = *b"\xFF\xD8\xFF\xE0\x00\x07AVI1\0";
        self.compressed.resize(HEAD.len() + jpeg.length().min(policy::JPEG_MOST).saturating_sub(2), 0);
        let (head, rest) = self.compressed.split_at_mut(HEAD.len());
        head.copy_from_slice(&HEAD);
        bytes.read(jpeg.start + 2, rest)
    }

    /// The decoder panics at rare damage: of 240,000 frames with a few random bytes in them, 2 failed an
    /// assertion of its upsampler (0.5.15). That must not take the stream with it.
    fn try_as(&self, mode: Mode, size: Size, into: &mut [u8]) -> bool {
        catch_unwind(AssertUnwindSafe(|| self.decode_as(mode, size, into))).is_ok_and(|decoded| decoded.is_ok())
    }

    fn decode_as(&self, mode: Mode, size: Size, into: &mut [u8]) -> std::result::Result<(), DecodeErrors> {
        let options = DecoderOptions::default()
            .set_strict_mode(mode == Mode::Strict)
            .set_max_width(policy::SIDE_MOST as usize)
            .set_max_height(policy::SIDE_MOST as usize)
            .jpeg_set_out_colorspace(ColorSpace::RGB);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(self.compressed.as_slice()), options);
        decoder.decode_headers()?;
        if decoder.dimensions() != Some((size.width as usize, size.height as usize)) {
            return Err(DecodeErrors::FormatStatic("another size"));
        }
        decoder.decode_into(into)
    }
}
