//! PNG pictures of any depth and colour as 8-bit RGB.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::Path;

use png::{ColorType, DecodingError, Transformations};

use super::Size;
use crate::error::{Error, Result};

pub const MAGIC: [u8; 8] = *b"\x89PNG\r\n\x1A\n";

/// The size that the head of a PNG tells: its header is always the first chunk.
pub fn size(head: &[u8]) -> Option<Size> {
    let number = |at: usize| Some(u32::from_be_bytes(head.get(at..at + 4)?.try_into().ok()?));
    if head.get(12..16)? != b"IHDR" {
        return None;
    }
    Some(Size { width: number(16)?, height: number(20)? }).filter(|size| size.width > 0 && size.height > 0)
}

/// A decoder with the memory that it needs again for the next picture.
#[derive(Default)]
pub struct Decoder {
    samples: Vec<u8>,
}

/// What became of a picture.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    Whole,
    /// The rows up to the damage are there; the others are what was there before.
    Damaged,
    OtherSize(Size),
}

impl Decoder {
    /// Decodes the picture in `file` to RGB; of an animation the first one. Transparency is left out.
    pub fn decode(&mut self, path: &Path, file: File, size: Size, into: &mut [u8]) -> Result<Decoded> {
        match self.decode_into(file, size, into) {
            Ok(decoded) => Ok(decoded),
            Err(DecodingError::IoError(error)) if error.kind() != ErrorKind::UnexpectedEof => {
                Err(Error::system(format!("reading {}", path.display()), error))
            }
            Err(_) => Ok(Decoded::Damaged),
        }
    }

    fn decode_into(&mut self, file: File, size: Size, into: &mut [u8]) -> std::result::Result<Decoded, DecodingError> {
        let mut decoder = png::Decoder::new(BufReader::new(file));
        decoder.set_ignore_text_chunk(true);
        decoder.set_transformations(Transformations::normalize_to_color8());
        let mut reader = decoder.read_info()?;
        let found = Size { width: reader.info().width, height: reader.info().height };
        if found != size {
            return Ok(Decoded::OtherSize(found));
        }
        let rgb = &mut into[..size.pixels() * 3];
        let color = reader.output_color_type().0;
        if color == ColorType::Rgb {
            reader.next_frame(rgb)?;
            return Ok(Decoded::Whole);
        }
        self.samples.resize(size.pixels() * color.samples(), 0);
        let decoded = reader.next_frame(&mut self.samples);
        to_rgb(&self.samples, color.samples(), rgb);
        decoded.map(|_| Decoded::Whole)
    }
}

/// Grey (one sample), grey and alpha (two), or RGB and alpha (four), to RGB.
fn to_rgb(samples: &[u8], each: usize, rgb: &mut [u8]) {
    for (pixel, sample) in rgb.chunks_exact_mut(3).zip(samples.chunks_exact(each)) {
        match *sample {
            [red, green, blue, _] => pixel.copy_from_slice(&[red, green, blue]),
            [grey, ..] => pixel.fill(grey),
            [] => {}
        }
    }
}
