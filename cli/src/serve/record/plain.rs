//! Frames as they are, one after the other, and an index beside them: Y4M, which players read, or the camera's bytes.
//!
//! The index is JSON Lines: the first line says what all frames share, and each other one where a frame is, when it
//! was taken and its number. It is written after the frames that it tells of, every second: its last line may be torn,
//! and whatever a whole line tells of is there.

use std::io;

use camlease::{FourCc, Rate};
use serde_json::json;

use super::disk::Disk;
use super::picture::{Picture, Shape};
use crate::capture::clip;

const FRAME: &[u8] = b"FRAME\n";

pub struct Writer {
    disk: Disk,
    index: Disk,
    is_y4m: bool,
    lines: Vec<u8>,
}

/// A frame's line in the index is shorter.
const LINE_BYTES: u64 = 160;

impl Writer {
    pub fn new(mut disk: Disk, mut index: Disk, shape: &Shape, rate: Rate) -> io::Result<Writer> {
        let mut head = json!({
            "camlease-index": 1, "width": shape.width, "height": shape.height, "fourcc": shape.fourcc.to_string(),
            "fps": [rate.numerator, rate.denominator], "strides": shape.strides,
        });
        if let Some(chroma) = shape.chroma {
            disk.append(&[clip::head(shape.width, shape.height, rate, chroma).as_bytes()])?;
            head["fourcc"] = json!(FourCc::new(b"Y4M ").to_string());
        }
        index.append(&[format!("{head}\n").as_bytes()])?;
        Ok(Writer { disk, index, is_y4m: shape.chroma.is_some(), lines: Vec::new() })
    }

    pub fn put(&mut self, picture: &Picture) -> io::Result<()> {
        let before = if self.is_y4m { FRAME } else { b"" };
        let offset = self.disk.bytes() + before.len() as u64;
        self.disk.append(&[before, &picture.bytes])?;
        let line = json!({
            "sequence": picture.sequence, "timestamp_ns": picture.timestamp_ns, "offset": offset,
            "planes": picture.planes,
        });
        self.lines.extend(format!("{line}\n").into_bytes());
        Ok(())
    }

    pub fn flush(&mut self) -> io::Result<()> {
        if !self.lines.is_empty() {
            self.index.append(&[&self.lines])?;
            self.lines.clear();
        }
        Ok(())
    }

    pub fn bytes(&self) -> u64 {
        self.disk.bytes() + self.index.bytes() + self.lines.len() as u64 + LINE_BYTES
    }

    pub fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        Ok(self.disk.bytes() + self.index.bytes())
    }
}
