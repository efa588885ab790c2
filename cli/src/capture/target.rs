//! Where frames go: which files, and what is written into them.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use camlease::{Error, FourCc, Frame, StreamFormat};

use super::clip::{Avi, Raw, Y4m};
use super::outlet::Outlet;
use super::part::{self, Part};
use super::{picture, pixels};
use crate::signals::Signals;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Png,
    Jpg,
    /// YUV4MPEG2: uncompressed, for most players and encoders
    Y4m,
    /// Motion JPEG in AVI
    Avi,
    /// The camera's bytes, one frame after the other
    Raw,
}

impl Kind {
    pub fn is_clip(self) -> bool {
        matches!(self, Kind::Y4m | Kind::Avi | Kind::Raw)
    }

    /// Whether frames of this pixel format can be written so.
    pub fn takes(self, fourcc: FourCc) -> bool {
        self == Kind::Raw || pixels::is_known(fourcc)
    }

    pub fn words(self) -> &'static str {
        match self {
            Kind::Png => "a PNG picture",
            Kind::Jpg => "a JPEG picture",
            Kind::Y4m => "a Y4M clip",
            Kind::Avi => "a Motion JPEG clip",
            Kind::Raw => "a raw clip",
        }
    }

    fn of_name(name: &OsStr) -> Option<Kind> {
        let extension = Path::new(name).extension()?.to_str()?.to_ascii_lowercase();
        Some(match extension.as_str() {
            "png" => Kind::Png,
            "jpg" | "jpeg" => Kind::Jpg,
            "y4m" => Kind::Y4m,
            "avi" => Kind::Avi,
            "raw" | "yuv" | "mjpg" | "mjpeg" | "h264" | "hevc" => Kind::Raw,
            _ => return None,
        })
    }
}

/// What was asked for.
pub struct Target {
    pub kind: Kind,
    pattern: Pattern,
    force: bool,
}

enum Pattern {
    Stdout,
    One(PathBuf),
    /// Before the number, its least digits, after it.
    Numbered(OsString, usize, OsString),
}

/// What was written in the end.
#[derive(Default)]
pub struct Written {
    pub files: Vec<PathBuf>,
    pub bytes: u64,
}

/// Takes frames.
pub trait Sink {
    /// False where the frame cannot be decoded, and is left out.
    fn write(&mut self, frame: &Frame) -> camlease::Result<bool>;

    /// Whether no more fits into the file.
    fn is_full(&self) -> bool {
        false
    }

    fn finish(&mut self) -> camlease::Result<Written>;

    /// Where frames are that did not get to the file's own name: after a failure.
    fn left_in(&self) -> Option<&Path> {
        None
    }
}

impl Target {
    pub fn of(
        output: Option<&OsStr>,
        kind: Option<Kind>,
        count: Option<u64>,
        timed: bool,
        force: bool,
    ) -> Result<Target, String> {
        let default = match (kind, timed && count.is_none()) {
            (None, true) => "clip.avi",
            (None | Some(Kind::Png), _) => "picture.png",
            (Some(Kind::Jpg), _) => "picture.jpg",
            (Some(Kind::Y4m), _) => "clip.y4m",
            (Some(Kind::Avi), _) => "clip.avi",
            (Some(Kind::Raw), _) => "clip.raw",
        };
        let output = output.unwrap_or(OsStr::new(default));
        let Some(kind) = kind.or_else(|| Kind::of_name(output)) else {
            return Err(format!(
                "{}: what is to be written? End the name in .png, .jpg, .y4m, .avi or .raw, or say it by --as",
                output.display()
            ));
        };
        const NO_PIPE: &str =
            "an AVI file gets its head last, which a pipe or device cannot have: take --as y4m or --as raw";
        if output == "-" {
            if kind == Kind::Avi {
                return Err(NO_PIPE.into());
            }
            return Ok(Target { kind, pattern: Pattern::Stdout, force });
        }
        let many = !kind.is_clip() && (timed && count.is_none() || count.is_some_and(|count| count > 1));
        let target = Target { kind, pattern: Pattern::of(output, many)?, force };
        let first = target.pattern.name(1).unwrap_or_default();
        if !force && part::is_taken(&first) {
            let name = first.display();
            return Err(format!("{name} exists already: overwrite it with --force, or name another with --output"));
        }
        if kind == Kind::Avi && part::is_special(&first) {
            return Err(NO_PIPE.into());
        }
        Ok(target)
    }

    pub fn is_stdout(&self) -> bool {
        matches!(self.pattern, Pattern::Stdout)
    }

    /// Standard output, or a pipe or device that has to be opened. That waits for a pipe's reader, and so comes before
    /// the camera is taken and while signals have their usual effect.
    pub fn open_special(&self) -> camlease::Result<Option<File>> {
        match &self.pattern {
            Pattern::Stdout => {
                let copy = io::stdout().as_fd().try_clone_to_owned();
                copy.map(|copy| Some(copy.into())).map_err(|error| failed(Path::new("standard output"), error))
            }
            Pattern::One(name) if part::is_special(name) => {
                File::options().write(true).open(name).map(Some).map_err(|error| failed(name, error))
            }
            _ => Ok(None),
        }
    }

    pub fn open<'a>(
        &'a self,
        special: Option<File>,
        signals: &'a Signals,
        format: &StreamFormat,
        quality: u8,
    ) -> camlease::Result<Box<dyn Sink + 'a>> {
        let outlet = special.map(|file| Outlet::new(file, signals));
        if !self.kind.is_clip() {
            return Ok(Box::new(Pictures {
                target: self,
                quality,
                outlet,
                signals,
                written: Written::default(),
                left: None,
            }));
        }
        let name = self.pattern.name(1).unwrap_or_else(|| "standard output".into());
        if let Some(outlet) = outlet {
            return Ok(match self.kind {
                Kind::Y4m => Box::new(Clip::new(name, Y4m::new(outlet, format), None)),
                _ => Box::new(Clip::new(name, Raw::new(outlet), None)),
            });
        }
        let (part, file) = Part::create(&name, self.force).map_err(|error| failed(&name, error))?;
        let (part, file) = (Some(part), BufWriter::with_capacity(1 << 20, file));
        Ok(match self.kind {
            Kind::Y4m => Box::new(Clip::new(name, Y4m::new(file, format), part)),
            Kind::Avi => {
                let avi = Avi::new(file, format, quality).map_err(|error| failed(&name, error))?;
                Box::new(Clip::new(name, avi, part))
            }
            _ => Box::new(Clip::new(name, Raw::new(file), part)),
        })
    }
}

impl Pattern {
    fn of(name: &OsStr, many: bool) -> Result<Pattern, String> {
        let bytes = name.as_bytes();
        let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        if let Some(at) = bytes.iter().position(|&byte| byte == b'%') {
            let (before, rest) = (&bytes[..at], &bytes[at + 1..]);
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (width, after) = rest.split_at(digits);
            let Some(after) = after.strip_prefix(b"d").filter(|after| !after.contains(&b'%') && width.len() <= 2)
            else {
                return Err(format!("{}: a number in the name is written %d or %03d", name.display()));
            };
            let width = str::from_utf8(width).ok().and_then(|width| width.parse().ok()).unwrap_or(1);
            return Ok(Pattern::Numbered(text(before), width, text(after)));
        }
        if !many {
            return Ok(Pattern::One(name.into()));
        }
        let extension = Path::new(name).extension().map_or(0, |extension| extension.len() + 1);
        let (before, after) = bytes.split_at(bytes.len() - extension);
        Ok(Pattern::Numbered(text(&[before, b"-"].concat()), 3, text(after)))
    }

    fn name(&self, number: u64) -> Option<PathBuf> {
        match self {
            Pattern::Stdout => None,
            Pattern::One(name) => Some(name.clone()),
            Pattern::Numbered(before, digits, after) => {
                let mut name = before.clone();
                name.push(format!("{number:0digits$}"));
                name.push(after);
                Some(name.into())
            }
        }
    }
}

fn failed(name: &Path, error: io::Error) -> Error {
    let taken = error.kind() == io::ErrorKind::AlreadyExists;
    let error = Error::system(format!("{}: writing it", name.display()), error);
    if taken { error.hint("overwrite it with --force, or name another with --output") } else { error }
}

/// One file for each frame.
struct Pictures<'a> {
    target: &'a Target,
    quality: u8,
    outlet: Option<Outlet<'a>>,
    signals: &'a Signals,
    written: Written,
    left: Option<PathBuf>,
}

impl Pictures<'_> {
    fn put(&mut self, name: &Path, encoded: &[u8]) -> io::Result<()> {
        if part::is_special(name) {
            return Outlet::open_now(name, self.signals)?.write_all(encoded);
        }
        let (part, mut file) = Part::create(name, self.target.force)?;
        file.write_all(encoded)?;
        part.publish().map_err(|(error, left)| {
            self.left = Some(left);
            error
        })
    }
}

impl Sink for Pictures<'_> {
    fn write(&mut self, frame: &Frame) -> camlease::Result<bool> {
        let Some(encoded) = picture::encode(frame, self.target.kind, self.quality) else { return Ok(false) };
        self.written.bytes += encoded.len() as u64;
        let name = self.target.pattern.name(self.written.files.len() as u64 + 1);
        let shown = name.as_deref().map_or(Cow::Borrowed(Path::new("standard output")), |name| name.to_owned().into());
        let put = match (&mut self.outlet, &name) {
            (Some(outlet), _) => outlet.write_all(&encoded),
            (None, Some(name)) => self.put(name, &encoded),
            (None, None) => Ok(()), // standard output always has its outlet
        };
        put.map_err(|error| failed(&shown, error))?;
        self.written.files.extend(name);
        Ok(true)
    }

    fn finish(&mut self) -> camlease::Result<Written> {
        Ok(std::mem::take(&mut self.written))
    }

    fn left_in(&self) -> Option<&Path> {
        self.left.as_deref()
    }
}

/// One file for all frames.
pub trait Coding {
    fn write(&mut self, frame: &Frame) -> io::Result<bool>;
    fn is_full(&self) -> bool;
    /// The whole file's bytes.
    fn finish(&mut self) -> io::Result<u64>;
}

struct Clip<C> {
    name: PathBuf,
    coding: C,
    /// The file while it is written; none for standard output, pipes and devices.
    part: Option<Part>,
    frames: u64,
    left: Option<PathBuf>,
}

impl<C: Coding> Clip<C> {
    fn new(name: PathBuf, coding: C, part: Option<Part>) -> Clip<C> {
        Clip { name, coding, part, frames: 0, left: None }
    }
}

impl<C: Coding> Sink for Clip<C> {
    fn write(&mut self, frame: &Frame) -> camlease::Result<bool> {
        let written = self.coding.write(frame).map_err(|error| failed(&self.name, error))?;
        self.frames += u64::from(written);
        Ok(written)
    }

    fn is_full(&self) -> bool {
        self.coding.is_full()
    }

    fn finish(&mut self) -> camlease::Result<Written> {
        let finished = self.coding.finish();
        // A clip without a frame is none; one with frames is never thrown away, however its end went wrong.
        let Some(part) = self.part.take().filter(|_| self.frames > 0) else {
            let bytes = finished.map_err(|error| failed(&self.name, error))?;
            return Ok(Written { files: Vec::new(), bytes: if self.frames > 0 { bytes } else { 0 } });
        };
        let published = match finished {
            Ok(bytes) => part.publish().map(|()| bytes),
            Err(error) => Err((error, part.keep())),
        };
        let bytes = published.map_err(|(error, left)| {
            self.left = Some(left);
            failed(&self.name, error)
        })?;
        Ok(Written { files: vec![self.name.clone()], bytes })
    }

    fn left_in(&self) -> Option<&Path> {
        self.left.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbered_where_there_are_several() {
        let pattern = |text: &str, many| Pattern::of(OsStr::new(text), many);
        let name =
            |text, many, number| pattern(text, many).map(|pattern| pattern.name(number).unwrap().into_os_string());
        assert_eq!(name("a.png", false, 1).unwrap(), "a.png");
        assert_eq!(name("a.png", true, 12).unwrap(), "a-012.png");
        assert_eq!(name("a.b/c", true, 1).unwrap(), "a.b/c-001");
        assert_eq!(name("shot%05d.jpg", false, 3).unwrap(), "shot00003.jpg");
        assert_eq!(name("%d.jpg", true, 1234).unwrap(), "1234.jpg");
        assert!(pattern("%s.png", true).is_err());
        assert!(pattern("%d-%d.png", true).is_err());
    }

    #[test]
    fn the_name_tells_what_is_written() {
        let kind = |output: Option<&str>, kind| {
            Target::of(output.map(OsStr::new), kind, None, false, true).map(|target| target.kind)
        };
        assert_eq!(kind(None, None), Ok(Kind::Png));
        assert_eq!(kind(Some("X.JPEG"), None), Ok(Kind::Jpg));
        assert_eq!(kind(Some("x.dat"), Some(Kind::Raw)), Ok(Kind::Raw));
        assert!(kind(Some("x.dat"), None).is_err());
        assert!(kind(Some("-"), Some(Kind::Avi)).is_err());
        let timed = Target::of(None, None, None, true, true).unwrap();
        assert_eq!(timed.kind, Kind::Avi);
    }
}
