//! Motion JPEG without a container: one JPEG after the other.

use super::bytes::{Bytes, Window};
use super::index::Index;
use super::jpeg::{self, Ending, Extent};
use super::{Footage, Shape, Showing, broken, ended, rgb_layout};
use crate::backend::paced::{Painted, Picture};
use crate::error::Result;
use crate::format::{FourCc, MJPEG, RGB24};
use crate::policy;

pub struct Mjpeg {
    bytes: Bytes,
    shape: Shape,
}

impl Mjpeg {
    pub fn probe(bytes: Bytes) -> Result<Mjpeg> {
        let mut window = Window::new(bytes.clone(), policy::FILE_WINDOW);
        let Some(first) = next_frame(&mut window, None)? else {
            return Err(broken(bytes.path(), "there is no whole frame in it"));
        };
        let size = first.size.ok_or_else(|| broken(bytes.path(), "its first frame does not tell its size"))?;
        let shape = Shape { size: size.within_bounds(bytes.path())?, rate: None, offers: vec![MJPEG, RGB24] };
        Ok(Mjpeg { bytes, shape })
    }
}

impl Footage for Mjpeg {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn show(&self, fourcc: FourCc, repeat: bool) -> Result<Showing> {
        let mut frames = Frames {
            window: Window::new(self.bytes.clone(), policy::FILE_WINDOW),
            index: Index::new(repeat),
            shape: self.shape.clone(),
            decoder: (fourcc == RGB24).then(jpeg::Decoder::default),
        };
        let (stride, largest) = match fourcc {
            RGB24 => rgb_layout(self.shape.size),
            _ => (0, frames.largest()?),
        };
        Ok(Showing { picture: Box::new(frames), stride, largest })
    }
}

struct Frames {
    window: Window,
    index: Index<Extent>,
    shape: Shape,
    /// When pixels are asked for.
    decoder: Option<jpeg::Decoder>,
}

impl Frames {
    /// Bytes that hold any frame. A file that is read through in a moment tells. For a larger one it is
    /// what a UVC camera calls its bound, two bytes for a pixel, or four times the first frame if that
    /// is more; a frame that is larger still comes cut and marked.
    fn largest(&mut self) -> Result<usize> {
        let Frames { window, index, shape, .. } = self;
        if window.bytes().length()? <= policy::INDEX_AT_ONCE {
            let frames = index.all(|last| next_frame(window, last))?;
            return Ok(frames.iter().map(Extent::length).max().unwrap_or(1));
        }
        let first = index.frame(0, |last| next_frame(window, last))?;
        Ok((shape.size.pixels() * 2).max(first.map_or(0, |first| first.length() * 4)))
    }
}

impl Picture for Frames {
    fn paint(&mut self, sequence: u64, _: i64, into: &mut [u8]) -> Result<Painted> {
        let Frames { window, index, shape, decoder } = self;
        let Some(frame) = index.frame(sequence, |last| next_frame(window, last))? else {
            return Err(ended(window.bytes().path()));
        };
        match decoder {
            Some(decoder) => {
                let whole = decoder.decode(window.bytes(), &frame, shape.size, into)?;
                Ok(Painted { used: rgb_layout(shape.size).1, corrupt: !whole })
            }
            None => {
                let used = frame.length().min(into.len());
                window.bytes().read(frame.start, &mut into[..used])?;
                // One of another size is a damaged one: a stream keeps its size.
                let whole = frame.ending == Ending::Whole && frame.size == Some(shape.size);
                Ok(Painted { used, corrupt: !whole || used < frame.length() })
            }
        }
    }
}

/// The frame behind `last`, or the first; none when the file has no further one that does not end with it.
fn next_frame(window: &mut Window, last: Option<Extent>) -> Result<Option<Extent>> {
    let Some(start) = jpeg::find_start(window, last.map_or(0, |last| last.end))? else { return Ok(None) };
    let frame = jpeg::extent(window, start)?;
    Ok((frame.ending != Ending::Cut).then_some(frame))
}
