//! JPEG as cameras send it: decoded, encoded, and made whole.

use std::borrow::Cow;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// The Huffman tables of Annex K, as a segment. Motion JPEG may leave them out, and still pictures may not.
const TABLES: &[u8] = include_bytes!("tables.dht");

const SOI: [u8; 2] = [0xFF, 0xD8];
const DHT: u8 = 0xC4;
const SOS: u8 = 0xDA;

/// The same JPEG with Huffman tables, which readers of pictures expect.
pub fn with_tables(jpeg: &[u8]) -> Cow<'_, [u8]> {
    if !jpeg.starts_with(&SOI) {
        return Cow::Borrowed(jpeg);
    }
    let mut at = 2;
    loop {
        let (Some([0xFF, marker]), Some(&[high, low])) = (jpeg.get(at..at + 2), jpeg.get(at + 2..at + 4)) else {
            return Cow::Borrowed(jpeg);
        };
        match *marker {
            DHT => return Cow::Borrowed(jpeg),
            SOS => return Cow::Owned([&jpeg[..at], TABLES, &jpeg[at..]].concat()),
            0xFF => at += 1, // fill byte
            _ => at += 2 + usize::from(u16::from_be_bytes([high, low])),
        }
    }
}

/// Three bytes for each pixel, and width and height. None where the JPEG is damaged.
pub fn decode(jpeg: &[u8], into: ColorSpace) -> Option<(Vec<u8>, usize, usize)> {
    let whole = with_tables(jpeg);
    // A damaged frame may make the decoder panic, and is merely left out.
    let decoded = in_silence(|| {
        let options = DecoderOptions::default().jpeg_set_out_colorspace(into);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&whole), options);
        let pixels = decoder.decode().ok()?;
        let (width, height) = decoder.dimensions()?;
        (pixels.len() == width * height * 3).then_some((pixels, width, height))
    });
    decoded.flatten()
}

/// None where it panicked, of which nothing is printed. The hook is the whole process's and its threads decode at the same
/// time: it is put in once, and asks whose panic it is.
fn in_silence<T>(work: impl FnOnce() -> T) -> Option<T> {
    thread_local!(static IS_SILENT: Cell<bool> = const { Cell::new(false) });
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !IS_SILENT.get() {
                before(panic);
            }
        }));
    });
    IS_SILENT.set(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    IS_SILENT.set(false);
    outcome.ok()
}

/// Whether the headers of a JPEG lead to picture data: what comes then is not looked at, as that takes a decoder's time.
pub fn has_headers(jpeg: &[u8]) -> bool {
    let mut at = 2;
    jpeg.starts_with(&SOI)
        && loop {
            match jpeg.get(at..at + 4) {
                Some([0xFF, SOS, ..]) => break true,
                Some([0xFF, 0xFF, ..]) => at += 1, // fill byte
                Some([0xFF, _, high, low]) => at += 2 + usize::from(u16::from_be_bytes([*high, *low])),
                _ => break false,
            }
        }
}

pub fn encode(pixels: &[u8], width: u32, height: u32, grey: bool, quality: u8) -> Option<Vec<u8>> {
    let colour = if grey { ColorType::Luma } else { ColorType::Rgb };
    let mut jpeg = Vec::new();
    let mut encoder = Encoder::new(&mut jpeg, quality);
    // What cameras send themselves, and what every player of Motion JPEG takes.
    encoder.set_sampling_factor(SamplingFactor::F_2_1);
    encoder.encode(pixels, width.try_into().ok()?, height.try_into().ok()?, colour).ok()?;
    Some(jpeg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jpeg_without_tables_gets_them() {
        let picture: Vec<u8> = [200, 30, 30].repeat(16 * 16);
        let whole = encode(&picture, 16, 16, false, 90).unwrap();
        assert!(matches!(with_tables(&whole), Cow::Borrowed(_)), "it has tables");
        // jpeg-encoder writes the tables of Annex K: without their segments, ours must do.
        let mut bare = Vec::from(SOI);
        let mut at = 2;
        while whole[at + 1] != SOS {
            let length = 2 + usize::from(u16::from_be_bytes([whole[at + 2], whole[at + 3]]));
            if whole[at + 1] != DHT {
                bare.extend(&whole[at..at + length]);
            }
            at += length;
        }
        bare.extend(&whole[at..]);
        assert!(bare.len() + 300 < whole.len());
        let (pixels, width, height) = decode(&bare, ColorSpace::RGB).expect("it is decoded");
        assert_eq!((width, height), (16, 16));
        assert_eq!(pixels, decode(&whole, ColorSpace::RGB).unwrap().0);
    }

    #[test]
    fn damage_is_no_picture() {
        for bytes in [&b""[..], &SOI, b"no jpeg", &[0xFF, 0xD8, 0xFF, 0xDA, 0, 2], &[0xFF, 0xD8, 0xFF, 0xC0, 0, 0]] {
            assert!(decode(bytes, ColorSpace::RGB).is_none());
        }
    }

    #[test]
    fn headers_are_followed_to_the_picture() {
        let whole = encode(&[9; 16 * 16 * 3], 16, 16, false, 90).unwrap();
        assert!(has_headers(&whole));
        for bytes in [&b""[..], &SOI, b"no jpeg", &whole[..20], &[0xFF, 0xD8, 0xFF, 0xC0, 0, 0]] {
            assert!(!has_headers(bytes));
        }
    }
}
