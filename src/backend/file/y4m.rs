//! YUV4MPEG2, the uncompressed stream of mjpegtools and ffmpeg: a line for the file, then a line and
//! the planes for each frame.
//!
//! Read here and not by a crate: a camera jumps to the frame that is due, and needs to know where it lies.

use super::bytes::{Bytes, Window};
use super::index::Index;
use super::{Footage, Shape, Showing, Size, broken, ended, unsupported};
use crate::backend::paced::{Painted, Picture};
use crate::error::Result;
use crate::format::{FourCc, GREY, Rate, YUV420, YUV422P, layout};

pub const MAGIC: &[u8] = b"YUV4MPEG2 ";

/// Longest line for the file or a frame, in bytes: four times what ffmpeg reads of one.
const LINE_MOST: usize = 1024;

pub struct Y4m {
    bytes: Bytes,
    shape: Shape,
    /// Stride and bytes of a frame.
    layout: (u32, usize),
    /// Where the line of the first frame begins.
    first: u64,
}

impl Y4m {
    pub fn probe(bytes: Bytes) -> Result<Y4m> {
        let mut window = Window::new(bytes.clone(), LINE_MOST);
        let head = window.at(0, LINE_MOST)?;
        let Some(end) = head.iter().position(|&byte| byte == b'\n') else {
            return Err(broken(bytes.path(), "its first line has no end"));
        };
        let header = Header::parse(&bytes, &head[MAGIC.len()..end])?;
        let fourcc = header.fourcc;
        let Some(layout) = layout(fourcc, header.size.width, header.size.height) else {
            return Err(unsupported(bytes.path(), format!("{fourcc} frames are not known")));
        };
        let first = end as u64 + 1;
        if frame_at(&mut window, first, layout.1)?.is_none() {
            return Err(broken(bytes.path(), "there is no whole frame in it"));
        }
        let shape = Shape { size: header.size, rate: header.rate, offers: vec![fourcc] };
        Ok(Y4m { bytes, shape, layout, first })
    }
}

impl Footage for Y4m {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn show(&self, _: FourCc, repeat: bool) -> Result<Showing> {
        let frames = Frames {
            window: Window::new(self.bytes.clone(), LINE_MOST),
            index: Index::new(repeat),
            first: self.first,
            length: self.layout.1,
        };
        Ok(Showing { picture: Box::new(frames), stride: self.layout.0, largest: self.layout.1 })
    }
}

struct Header {
    size: Size,
    rate: Option<Rate>,
    fourcc: FourCc,
}

impl Header {
    /// Reads the tagged fields of the first line. Interlacing, pixel aspect and comments change nothing
    /// in where the samples lie.
    fn parse(bytes: &Bytes, line: &[u8]) -> Result<Header> {
        let line = String::from_utf8_lossy(line);
        let field = |tag: char| line.split(' ').find_map(|field| field.strip_prefix(tag));
        let side = |tag: char, what: &str| {
            let text = field(tag).unwrap_or("");
            text.parse().map_err(|_| broken(bytes.path(), format!("its {what} is \"{text}\"")))
        };
        let size = Size { width: side('W', "width")?, height: side('H', "height")? }.within_bounds(bytes.path())?;
        let fourcc = match field('C').unwrap_or("420") {
            // They differ in where a chroma sample sits between the luma samples.
            "420" | "420jpeg" | "420mpeg2" | "420paldv" => YUV420,
            "422" => YUV422P,
            "mono" => GREY,
            other => {
                return Err(unsupported(bytes.path(), format!("its frames are of colour space {other}"))
                    .hint("known are 420, 422 and mono of 8 bits: convert it with ffmpeg -pix_fmt yuv420p"));
            }
        };
        Ok(Header { size, rate: field('F').and_then(rate), fourcc })
    }
}

/// `30000:1001`; `0:0` stands for not known.
fn rate(text: &str) -> Option<Rate> {
    let (numerator, denominator) = text.split_once(':')?;
    Some(Rate::new(numerator.parse().ok()?, denominator.parse().ok()?)).filter(|rate| rate.is_set())
}

struct Frames {
    window: Window,
    index: Index<u64>,
    first: u64,
    length: usize,
}

impl Picture for Frames {
    fn paint(&mut self, sequence: u64, _: i64, into: &mut [u8]) -> Result<Painted> {
        let Frames { window, index, first, length } = self;
        let found = index
            .frame(sequence, |last| frame_at(window, last.map_or(*first, |pixels| pixels + *length as u64), *length))?;
        let Some(pixels) = found else { return Err(ended(window.bytes().path())) };
        window.bytes().read(pixels, &mut into[..*length])?;
        Ok(Painted { used: *length, corrupt: false })
    }
}

/// Where the pixels lie of the frame whose line begins at `line`; none when the file has no further
/// whole frame. Lines are read one by one because each may carry parameters of its own.
fn frame_at(window: &mut Window, line: u64, length: usize) -> Result<Option<u64>> {
    let bytes = window.bytes().clone();
    let head = window.at(line, LINE_MOST)?;
    let end = match head.iter().take(LINE_MOST).position(|&byte| byte == b'\n') {
        Some(end) => end,
        None if head.len() < LINE_MOST => return Ok(None),
        None => return Err(no_frame(&bytes, line)),
    };
    if !matches!(&head[..end], [b'F', b'R', b'A', b'M', b'E'] | [b'F', b'R', b'A', b'M', b'E', b' ', ..]) {
        return Err(no_frame(&bytes, line));
    }
    let pixels = line + end as u64 + 1;
    Ok((pixels + length as u64 <= bytes.length()?).then_some(pixels))
}

fn no_frame(bytes: &Bytes, at: u64) -> crate::error::Error {
    broken(bytes.path(), format!("no frame begins at byte {at}, where one must"))
}
