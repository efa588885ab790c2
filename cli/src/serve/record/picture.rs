//! What a frame becomes on its way to the disk: bytes of its own, so that the camera has its buffer back at once.

use camlease::{FourCc, Frame, Rate};

use super::Container;
use crate::capture::clip::{self, Chroma};
use crate::capture::pixels::Pixels;
use crate::capture::{jpeg, picture};

pub struct Picture {
    pub bytes: Vec<u8>,
    /// Bytes of each memory plane, one after the other.
    pub planes: Vec<usize>,
    pub shape: Shape,
    pub rate: Rate,
    pub sequence: u64,
    pub timestamp_ns: i64,
}

/// What all frames of one file have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    pub width: u32,
    pub height: u32,
    pub fourcc: FourCc,
    /// Bytes from one line to the next in each memory plane; 0 for compressed frames.
    pub strides: Vec<u32>,
    /// In a Y4M file.
    pub chroma: Option<Chroma>,
}

impl Picture {
    /// None where the frame is damaged, or its pixel format is not known.
    pub fn of(frame: &Frame, container: Container, quality: u8, rate: Rate) -> Option<Picture> {
        if frame.is_corrupt() {
            return None;
        }
        let (mut width, mut height) = (frame.width(), frame.height());
        let (mut strides, mut chroma) = (vec![], None);
        let parts: Vec<Vec<u8>> = match container {
            Container::Matroska => vec![match Pixels::of(frame)? {
                Pixels::Jpeg(bytes) => jpeg::has_headers(bytes).then(|| jpeg::with_tables(bytes).into_owned())?,
                _ => picture::jpeg_of(frame, quality)?.into_owned(),
            }],
            Container::Y4m => {
                let (planes, wide, high, tag) = clip::planes(&Pixels::of(frame)?, width, height)?;
                (width, height, chroma) = (wide, high, Some(tag));
                planes
            }
            Container::Raw => {
                strides = (0..frame.planes()).map(|plane| frame.stride(plane)).collect();
                (0..frame.planes()).map(|plane| frame.data(plane).to_vec()).collect()
            }
        };
        let fourcc = if container == Container::Raw { frame.fourcc() } else { FourCc::default() };
        let planes = parts.iter().map(Vec::len).collect();
        // One part is moved and not copied.
        let bytes = parts.into_iter().reduce(|mut all, part| {
            all.extend(part);
            all
        })?;
        let (sequence, timestamp_ns) = (frame.sequence(), frame.timestamp_ns());
        let shape = Shape { width, height, fourcc, strides, chroma };
        Some(Picture { bytes, planes, shape, rate, sequence, timestamp_ns })
    }
}
