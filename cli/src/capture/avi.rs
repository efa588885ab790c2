//! AVI with one stream of JPEGs, as players have read it for thirty years (RIFF, "AVI RIFF File Reference").

use std::io::{self, Seek, SeekFrom, Write};

use camlease::Rate;

/// Sizes in RIFF have 32 bits, and some readers take them as signed; the index comes on top.
const FULL: u64 = 1_900_000_000;

/// AVIF_HASINDEX and AVIIF_KEYFRAME.
const HAS_INDEX: u32 = 0x10;
const KEY_FRAME: u32 = 0x10;

pub struct Writer<W: Write + Seek> {
    out: W,
    width: u32,
    height: u32,
    rate: Rate,
    /// Where each frame is, counted from the list's type, and its bytes.
    index: Vec<(u32, u32)>,
    largest: u32,
    first_ns: i64,
    last_ns: i64,
    bytes: u64,
}

impl<W: Write + Seek> Writer<W> {
    pub fn new(mut out: W, width: u32, height: u32, rate: Rate) -> io::Result<Writer<W>> {
        let head = head(width, height, Duration::nominal(rate), 0, 0, 0, 0);
        out.write_all(&head)?;
        let bytes = head.len() as u64;
        Ok(Writer { out, width, height, rate, index: Vec::new(), largest: 0, first_ns: 0, last_ns: 0, bytes })
    }

    pub fn put(&mut self, jpeg: &[u8], timestamp_ns: i64) -> io::Result<()> {
        if self.index.is_empty() {
            self.first_ns = timestamp_ns;
        }
        self.last_ns = timestamp_ns;
        let length = jpeg.len() as u32;
        let movie = HEAD as u64 - 4;
        self.index.push(((self.bytes - movie) as u32, length));
        self.largest = self.largest.max(length);
        self.out.write_all(b"00dc")?;
        self.out.write_all(&length.to_le_bytes())?;
        self.out.write_all(jpeg)?;
        if length % 2 == 1 {
            self.out.write_all(&[0])?;
        }
        self.bytes += 8 + u64::from(length.next_multiple_of(2));
        Ok(())
    }

    pub fn is_full(&self) -> bool {
        self.bytes > FULL
    }

    /// Writes the index, and the head anew: only now it is known how many frames there are, and how fast they came.
    pub fn finish(&mut self) -> io::Result<u64> {
        let movie = (self.bytes - HEAD as u64 + 4) as u32;
        let mut index = Vec::from(*b"idx1");
        index.extend((self.index.len() as u32 * 16).to_le_bytes());
        for (at, length) in &self.index {
            index.extend(b"00dc");
            [KEY_FRAME, *at, *length].iter().for_each(|word| index.extend(word.to_le_bytes()));
        }
        self.out.write_all(&index)?;
        self.bytes += index.len() as u64;
        let frames = self.index.len() as u32;
        let pace = Duration::measured(self.last_ns - self.first_ns, frames).unwrap_or(Duration::nominal(self.rate));
        let head = head(self.width, self.height, pace, frames, self.largest, (self.bytes - 8) as u32, movie);
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&head)?;
        self.out.flush()?;
        Ok(self.bytes)
    }
}

/// How long a frame is shown: `scale / rate` seconds.
#[derive(Clone, Copy)]
struct Duration {
    scale: u32,
    rate: u32,
}

impl Duration {
    fn nominal(rate: Rate) -> Duration {
        match rate.is_set() {
            true => Duration { scale: rate.denominator, rate: rate.numerator },
            false => Duration { scale: 1, rate: 30 },
        }
    }

    /// A camera in the dark is slower than its rate says.
    fn measured(ns: i64, frames: u32) -> Option<Duration> {
        let scale = u32::try_from(ns / 1000 / i64::from(frames.checked_sub(1).filter(|gaps| *gaps > 0)?)).ok()?;
        (scale > 0).then_some(Duration { scale, rate: 1_000_000 })
    }

    fn microseconds(self) -> u32 {
        (u64::from(self.scale) * 1_000_000 / u64::from(self.rate.max(1))) as u32
    }
}

/// Bytes before the first frame.
const HEAD: usize = 12 + 12 + 64 + 12 + 64 + 48 + 12;

fn head(width: u32, height: u32, pace: Duration, frames: u32, largest: u32, riff: u32, movie: u32) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD);
    let mut text = |words: &[&[u8]]| words.iter().for_each(|word| head.extend(*word));
    let le = u32::to_le_bytes;
    text(&[b"RIFF", &le(riff), b"AVI "]);
    text(&[b"LIST", &le(4 + 64 + 12 + 64 + 48), b"hdrl"]);
    text(&[b"avih", &le(56), &le(pace.microseconds()), &le(0), &le(0), &le(HAS_INDEX), &le(frames), &le(0)]);
    text(&[&le(1), &le(largest), &le(width), &le(height), &[0; 16]]);
    text(&[b"LIST", &le(4 + 64 + 48), b"strl"]);
    text(&[b"strh", &le(56), b"vids", b"MJPG", &le(0), &le(0), &le(0), &le(pace.scale), &le(pace.rate), &le(0)]);
    text(&[&le(frames), &le(largest), &le(u32::MAX), &le(0), &[0; 4]]);
    text(&[&(width as u16).to_le_bytes(), &(height as u16).to_le_bytes()]);
    text(&[b"strf", &le(40), &le(40), &le(width), &le(height), &[1, 0, 24, 0], b"MJPG", &le(width * height * 3)]);
    text(&[&[0; 16]]);
    text(&[b"LIST", &le(movie), b"movi"]);
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn sizes_and_index_lead_to_the_frames() {
        let mut file = Cursor::new(Vec::new());
        let mut writer = Writer::new(&mut file, 64, 48, Rate::default()).unwrap();
        writer.put(b"first", 1_000_000_000).unwrap();
        writer.put(b"second", 1_100_000_000).unwrap();
        let bytes = writer.finish().unwrap() as usize;
        let file = file.into_inner();
        assert_eq!(file.len(), bytes);
        let word = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!(word(4), bytes - 8);
        let movie = HEAD - 4;
        assert_eq!(&file[movie..HEAD], b"movi");
        let index = movie - 4 + 4 + word(movie - 4);
        assert_eq!((&file[index..index + 4], word(index + 4)), (&b"idx1"[..], 32));
        for (at, content) in [(index + 8, &b"first"[..]), (index + 24, b"second")] {
            let frame = movie + word(at + 8);
            assert_eq!(&file[frame..frame + 4], b"00dc");
            assert_eq!(&file[frame + 8..frame + 8 + word(at + 12)], content);
        }
        assert_eq!(word(32), 100_000, "microseconds for each frame, as they came");
        assert_eq!(word(48), 2, "frames");
    }
}
