//! A recording as a camera: the frames of a video file, or of a folder of pictures, at a camera's pace.
//! Nobody holds a file, so it can be played any number of times at once.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::paced::{Pace, Paced, Picture};
use super::{Device, Identity, Notice, Port, Source, Stream};
use crate::error::{Error, Kind, Result};
use crate::format::{
    Control, Format, FourCc, GREY, MJPEG, RGB24, Rate, StreamFormat, StreamRequest, YUV420, YUV422P, layout,
};
use crate::holders::Holders;
use crate::kernel::Fd;
use crate::lease::Filing;
use crate::policy;
use crate::uri::Options;

mod bytes;
mod index;
mod jpeg;
mod mjpeg;
mod png;
mod stills;
#[cfg(test)]
mod tests;
mod y4m;

use bytes::{Bytes, Window};

/// `file:PATH?loop=1&fps=30&fourcc=RGB3`
pub struct Recording {
    uri: String,
    path: PathBuf,
    repeat: bool,
    /// Frames per second that the name tells; 0 is as fast as they are taken.
    fps: Option<u32>,
    /// The format of streams that ask for none.
    fourcc: FourCc,
}

impl Recording {
    pub fn new(options: &Options) -> Result<Recording> {
        options.only(&["loop", "fps", "fourcc"])?;
        let fps = options.number("fps", 0, 0..=policy::FPS_MOST.into())? as u32;
        Ok(Recording {
            uri: options.uri.clone(),
            path: PathBuf::from(&options.target),
            repeat: options.number("loop", 0, 0..=1)? == 1,
            fps: options.has("fps").then_some(fps),
            fourcc: options.fourcc("fourcc", FourCc::default())?,
        })
    }
}

impl Recording {
    fn player(&self) -> Result<Player> {
        let path =
            fs::canonicalize(&self.path).map_err(|e| Error::system(format!("opening {}", self.path.display()), e))?;
        let footage = find(&path)?;
        let fourcc = chosen(&path, footage.shape(), self.fourcc)?;
        let pace = match (self.fps, footage.shape().rate) {
            (Some(0), _) => None,
            (Some(fps), _) => Some(Rate::new(fps, 1)),
            (None, own) => Some(bounded(own.unwrap_or(Rate::new(policy::FILE_FPS_DEFAULT, 1)))),
        };
        let identity = Identity {
            uri: self.uri.clone(),
            name: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            driver: "file".to_owned(),
            serial: String::new(),
            bus: path.display().to_string(),
        };
        Ok(Player { identity, path, footage, fourcc, pace, repeat: self.repeat })
    }
}

impl Source for Recording {
    fn acquire(&mut self) -> Result<Box<dyn Device>> {
        Ok(Box::new(self.player()?))
    }

    fn notice(&mut self) -> Result<Notice> {
        Ok(Notice::default())
    }

    fn holders(&self) -> Holders {
        Holders::default()
    }

    /// A file is nobody's.
    fn filings(&self) -> Vec<Filing> {
        Vec::new()
    }

    fn port(&self) -> Result<Box<dyn Port>> {
        Err(no_port(&self.uri))
    }

    fn receive(&mut self, _: Fd) -> Result<Box<dyn Device>> {
        Err(Error::new(Kind::Unsupported, format!("{}: a file is not handed over", self.uri)))
    }

    fn formats(&self) -> Result<Vec<Format>> {
        self.player()?.formats()
    }
}

fn no_port(uri: &str) -> Error {
    Error::new(Kind::Unsupported, format!("{uri}: a recording has no port to reset")).hint("close it and open it again")
}

/// What lies behind a path, and can be shown any number of times.
trait Footage: Send + Sync {
    fn shape(&self) -> &Shape;

    /// From the first frame on, in one of the formats on offer.
    fn show(&self, fourcc: FourCc, repeat: bool) -> Result<Showing>;
}

#[derive(Debug, Clone)]
struct Shape {
    size: Size,
    /// When the file tells it.
    rate: Option<Rate>,
    /// The first is for those who don't choose.
    offers: Vec<FourCc>,
}

/// One run of a recording.
struct Showing {
    picture: Box<dyn Picture>,
    stride: u32,
    /// Bytes of its largest frame.
    largest: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Size {
    width: u32,
    height: u32,
}

impl Size {
    fn pixels(self) -> usize {
        self.width as usize * self.height as usize
    }

    fn within_bounds(self, path: &Path) -> Result<Size> {
        let bounds = 1..=policy::SIDE_MOST;
        match bounds.contains(&self.width) && bounds.contains(&self.height) {
            true => Ok(self),
            false => {
                Err(unsupported(path, format!("its frames are {self}, sides are from 1 to {}", policy::SIDE_MOST)))
            }
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// Recognises a recording by what is in it. The name decides only where the content leaves it open:
/// a picture of a phone has other JPEGs behind it, and a recorded HTTP stream has text before the first.
fn find(path: &Path) -> Result<Box<dyn Footage>> {
    let about = fs::metadata(path).map_err(|e| Error::system(format!("opening {}", path.display()), e))?;
    if about.is_dir() {
        return Ok(Box::new(stills::Stills::of_folder(path)?));
    }
    if !about.is_file() {
        return Err(unsupported(path, "it is neither a file nor a folder").hint("write v4l2:PATH for a video node"));
    }
    let bytes = Bytes::open(path)?;
    let mut window = Window::new(bytes.clone(), policy::FILE_WINDOW);
    let head = window.at(0, policy::FILE_WINDOW)?;
    if head.starts_with(y4m::MAGIC) {
        Ok(Box::new(y4m::Y4m::probe(bytes)?))
    } else if stills::is_named_as_picture(path) || head.starts_with(&png::MAGIC) {
        Ok(Box::new(stills::Stills::of_file(path)?))
    } else if head.starts_with(&jpeg::MAGIC) || is_named_as_mjpeg(path) && holds(head, &jpeg::MAGIC) {
        Ok(Box::new(mjpeg::Mjpeg::probe(bytes)?))
    } else {
        Err(unsupported(path, "it is neither Y4M, Motion JPEG, JPEG or PNG, nor a folder of JPEG or PNG pictures")
            .hint("convert it: ffmpeg -i VIDEO -c:v mjpeg -q:v 2 VIDEO.mjpeg"))
    }
}

fn is_named_as_mjpeg(path: &Path) -> bool {
    let suffix = path.extension().unwrap_or_default();
    suffix.eq_ignore_ascii_case("mjpeg") || suffix.eq_ignore_ascii_case("mjpg")
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A recording that is open. Streams read it each for itself.
struct Player {
    identity: Identity,
    path: PathBuf,
    footage: Box<dyn Footage>,
    fourcc: FourCc,
    /// None: as fast as frames are taken.
    pace: Option<Rate>,
    repeat: bool,
}

impl Device for Player {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn formats(&self) -> Result<Vec<Format>> {
        let shape = self.footage.shape();
        let Size { width, height } = shape.size;
        let rate = self.pace.unwrap_or_default();
        let format = |&fourcc| Format::single(fourcc, description(fourcc), fourcc == MJPEG, width, height, rate);
        let mut formats: Vec<Format> = shape.offers.iter().map(format).collect();
        formats.sort_by_key(|format| format.fourcc != self.fourcc);
        Ok(formats)
    }

    fn controls(&self) -> Result<Vec<Control>> {
        Ok(Vec::new())
    }

    fn control(&self, _: u32) -> Result<i64> {
        Err(no_controls(&self.path))
    }

    fn set_control(&self, _: u32, _: i64) -> Result<()> {
        Err(no_controls(&self.path))
    }

    /// A recording has one size: it is what a request for any other gets, as from a driver.
    fn start(&self, request: &StreamRequest) -> Result<Box<dyn Stream>> {
        let fourcc = match request.fourcc {
            FourCc(0) => self.fourcc,
            asked => chosen(&self.path, self.footage.shape(), asked)?,
        };
        let rate = if request.rate.is_set() { Some(bounded(request.rate)) } else { self.pace };
        let Size { width, height } = self.footage.shape().size;
        let Showing { picture, stride, largest } = self.footage.show(fourcc, self.repeat)?;
        let format = StreamFormat {
            width,
            height,
            fourcc,
            rate: rate.unwrap_or_default(),
            stride,
            planes: vec![(stride, largest)],
            ..Default::default()
        };
        let pace = rate.map_or(Pace::Unpaced, Pace::At);
        Ok(Box::new(Paced::start(format, pace, request, picture, None)?))
    }

    fn port(&self) -> Result<Box<dyn Port>> {
        Err(no_port(&self.identity.uri))
    }
}

/// The format that was asked for if it is on offer, or the first.
fn chosen(path: &Path, shape: &Shape, asked: FourCc) -> Result<FourCc> {
    if asked == FourCc::default() {
        return Ok(shape.offers[0]);
    }
    if shape.offers.contains(&asked) {
        return Ok(asked);
    }
    let offers = shape.offers.iter().map(FourCc::to_string).collect::<Vec<_>>().join(" and ");
    Err(unsupported(path, format!("{asked} is not on offer, only {offers}")))
}

/// The fastest rate in place of one that is faster.
fn bounded(rate: Rate) -> Rate {
    let fastest = Rate::new(policy::FPS_MOST, 1);
    if rate.per_second() > fastest.per_second() { fastest } else { rate }
}

/// The kernel's names of the formats.
fn description(fourcc: FourCc) -> &'static str {
    match fourcc {
        YUV420 => "Planar YUV 4:2:0",
        YUV422P => "Planar YUV 4:2:2",
        GREY => "8-bit Greyscale",
        MJPEG => "Motion-JPEG",
        RGB24 => "24-bit RGB 8-8-8",
        _ => "",
    }
}

/// Bytes of a line and of a picture in 8-bit RGB.
fn rgb_layout(size: Size) -> (u32, usize) {
    layout(RGB24, size.width, size.height).unwrap_or_default()
}

fn no_controls(path: &Path) -> Error {
    unsupported(path, "a file has no controls")
}

/// It is not, or holds not, what this library plays.
fn unsupported(path: &Path, why: impl fmt::Display) -> Error {
    Error::new(Kind::Unsupported, format!("{}: {why}", path.display()))
}

/// It is damaged.
fn broken(path: &Path, why: impl fmt::Display) -> Error {
    Error::new(Kind::Io, format!("{} is damaged: {why}", path.display()))
}

fn ended(path: &Path) -> Error {
    Error::new(Kind::Disconnected, format!("the recording {} has ended", path.display()))
}
