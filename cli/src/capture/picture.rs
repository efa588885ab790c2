//! One frame as a picture.

use std::borrow::Cow;

use camlease::Frame;
use zune_jpeg::zune_core::colorspace::ColorSpace;

use super::pixels::{self, Pixels};
use super::{jpeg, target};

/// The bytes of a PNG or JPEG file; none where the frame is damaged.
pub fn encode(frame: &Frame, kind: target::Kind, quality: u8) -> Option<Vec<u8>> {
    if kind == target::Kind::Jpg { jpeg_of(frame, quality).map(Cow::into_owned) } else { png_of(frame) }
}

/// A JPEG with its tables: the camera's own where it makes some, so that nothing is lost.
pub fn jpeg_of(frame: &Frame, quality: u8) -> Option<Cow<'_, [u8]>> {
    let (width, height) = (frame.width(), frame.height());
    match Pixels::of(frame)? {
        // Decoded to know that it is whole.
        Pixels::Jpeg(bytes) => jpeg::decode(bytes, ColorSpace::RGB).map(|_| jpeg::with_tables(bytes)),
        Pixels::Grey { bytes, stride } => {
            jpeg::encode(&pixels::tight(bytes, stride, width as usize), width, height, true, quality).map(Cow::Owned)
        }
        other => jpeg::encode(&other.rgb(width, height)?, width, height, false, quality).map(Cow::Owned),
    }
}

fn png_of(frame: &Frame) -> Option<Vec<u8>> {
    let (width, height) = (frame.width(), frame.height());
    match Pixels::of(frame)? {
        Pixels::Jpeg(bytes) => {
            let (rgb, width, height) = jpeg::decode(bytes, ColorSpace::RGB)?;
            png(&rgb, width as u32, height as u32, png::ColorType::Rgb)
        }
        Pixels::Grey { bytes, stride } => {
            png(&pixels::tight(bytes, stride, width as usize), width, height, png::ColorType::Grayscale)
        }
        other => png(&other.rgb(width, height)?, width, height, png::ColorType::Rgb),
    }
}

fn png(pixels: &[u8], width: u32, height: u32, colour: png::ColorType) -> Option<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(colour);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().ok()?;
    writer.write_image_data(pixels).ok()?;
    writer.finish().ok()?;
    Some(file)
}
