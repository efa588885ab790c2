//! Where frames go: which files, and what is written into them.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use camlease::{Error, FourCc, Frame, StreamFormat};

use super::clip::{Avi, Raw, Y4m};
use super::{picture, pixels};

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

    fn of_name(name: &str) -> Option<Kind> {
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
    One(String),
    /// Before the number, its least digits, after it.
    Numbered(String, usize, String),
}

/// What was written in the end.
#[derive(Default)]
pub struct Written {
    pub files: Vec<String>,
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
}

impl Target {
    pub fn of(
        output: Option<&str>,
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
        let output = output.unwrap_or(default);
        let Some(kind) = kind.or_else(|| Kind::of_name(output)) else {
            return Err(format!(
                "{output}: what is to be written? End the name in .png, .jpg, .y4m, .avi or .raw, or say it by --as"
            ));
        };
        if output == "-" {
            if kind == Kind::Avi {
                return Err(
                    "an AVI file gets its head last, which a pipe cannot have: take --as y4m or --as raw".into()
                );
            }
            return Ok(Target { kind, pattern: Pattern::Stdout, force });
        }
        let many = !kind.is_clip() && (timed && count.is_none() || count.is_some_and(|count| count > 1));
        let target = Target { kind, pattern: Pattern::of(output, many)?, force };
        match target.pattern.name(1) {
            Some(first) if !force && Path::new(&first).exists() => {
                Err(format!("{first} exists already: overwrite it with --force, or name another with --output"))
            }
            _ => Ok(target),
        }
    }

    pub fn is_stdout(&self) -> bool {
        matches!(self.pattern, Pattern::Stdout)
    }

    pub fn open<'a>(&'a self, format: &StreamFormat, quality: u8) -> camlease::Result<Box<dyn Sink + 'a>> {
        if !self.kind.is_clip() {
            return Ok(Box::new(Pictures { target: self, quality, written: Written::default() }));
        }
        if let Pattern::Stdout = self.pattern {
            let out = io::stdout();
            return Ok(match self.kind {
                Kind::Y4m => Box::new(Clip::new("-", Y4m::new(out, format), None)),
                _ => Box::new(Clip::new("-", Raw::new(out), None)),
            });
        }
        let name = self.pattern.name(1).unwrap_or_default();
        let part = part_of(&name);
        let path = part.clone().unwrap_or_else(|| name.clone().into());
        let file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(|error| failed(&name, error))?);
        Ok(match self.kind {
            Kind::Y4m => Box::new(Clip::new(&name, Y4m::new(file, format), part)),
            Kind::Avi => {
                Box::new(Clip::new(&name, Avi::new(file, format, quality).map_err(|error| failed(&name, error))?, part))
            }
            _ => Box::new(Clip::new(&name, Raw::new(file), part)),
        })
    }
}

impl Pattern {
    fn of(text: &str, many: bool) -> Result<Pattern, String> {
        if let Some((before, rest)) = text.split_once('%') {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (width, after) = rest.split_at(digits);
            let Some(after) = after.strip_prefix('d').filter(|after| !after.contains('%') && width.len() <= 2) else {
                return Err(format!("{text}: a number in the name is written %d or %03d"));
            };
            return Ok(Pattern::Numbered(before.to_owned(), width.parse().unwrap_or(1), after.to_owned()));
        }
        if !many {
            return Ok(Pattern::One(text.to_owned()));
        }
        let extension = Path::new(text).extension().map_or(0, |extension| extension.len() + 1);
        let (before, after) = text.split_at(text.len() - extension);
        Ok(Pattern::Numbered(format!("{before}-"), 3, after.to_owned()))
    }

    fn name(&self, number: u64) -> Option<String> {
        match self {
            Pattern::Stdout => None,
            Pattern::One(name) => Some(name.clone()),
            Pattern::Numbered(before, digits, after) => Some(format!("{before}{number:0digits$}{after}")),
        }
    }
}

fn failed(name: &str, error: io::Error) -> Error {
    Error::system(format!("{name}: writing it"), error)
}

/// A file becomes visible under its name when it is whole. A device or a pipe is written into as it is: another file
/// must not take its place.
fn part_of(name: &str) -> Option<PathBuf> {
    let is_special = std::fs::metadata(name).is_ok_and(|file| !file.is_file());
    (!is_special).then(|| PathBuf::from(format!("{name}.part")))
}

/// One file for each frame.
struct Pictures<'a> {
    target: &'a Target,
    quality: u8,
    written: Written,
}

impl Sink for Pictures<'_> {
    fn write(&mut self, frame: &Frame) -> camlease::Result<bool> {
        let Some(encoded) = picture::encode(frame, self.target.kind, self.quality) else { return Ok(false) };
        self.written.bytes += encoded.len() as u64;
        let Some(name) = self.target.pattern.name(self.written.files.len() as u64 + 1) else {
            let mut out = io::stdout().lock();
            out.write_all(&encoded).and_then(|()| out.flush()).map_err(|error| failed("standard output", error))?;
            return Ok(true);
        };
        if !self.target.force && Path::new(&name).exists() {
            let error = Error::new(camlease::Kind::Io, format!("{name} exists already"));
            return Err(error.hint("overwrite it with --force, or name another with --output"));
        }
        match part_of(&name) {
            None => std::fs::write(&name, &encoded).map_err(|error| failed(&name, error))?,
            Some(part) => {
                std::fs::write(&part, &encoded).and_then(|()| std::fs::rename(&part, &name)).map_err(|error| {
                    let _ = std::fs::remove_file(&part);
                    failed(&name, error)
                })?;
            }
        }
        self.written.files.push(name);
        Ok(true)
    }

    fn finish(&mut self) -> camlease::Result<Written> {
        Ok(std::mem::take(&mut self.written))
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
    name: String,
    coding: C,
    /// Its name while it is written; none for standard output.
    part: Option<PathBuf>,
    frames: u64,
}

impl<C: Coding> Clip<C> {
    fn new(name: &str, coding: C, part: Option<PathBuf>) -> Clip<C> {
        Clip { name: name.to_owned(), coding, part, frames: 0 }
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
        let bytes = self.coding.finish().map_err(|error| failed(&self.name, error))?;
        let Some(part) = self.part.take().filter(|_| self.frames > 0) else {
            return Ok(Written { files: Vec::new(), bytes: if self.frames > 0 { bytes } else { 0 } });
        };
        std::fs::rename(part, &self.name).map_err(|error| failed(&self.name, error))?;
        Ok(Written { files: vec![self.name.clone()], bytes })
    }
}

impl<C> Drop for Clip<C> {
    fn drop(&mut self) {
        if let Some(part) = &self.part {
            let _ = std::fs::remove_file(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbered_where_there_are_several() {
        let name = |text, many, number| Pattern::of(text, many).map(|pattern| pattern.name(number).unwrap());
        assert_eq!(name("a.png", false, 1).unwrap(), "a.png");
        assert_eq!(name("a.png", true, 12).unwrap(), "a-012.png");
        assert_eq!(name("a.b/c", true, 1).unwrap(), "a.b/c-001");
        assert_eq!(name("shot%05d.jpg", false, 3).unwrap(), "shot00003.jpg");
        assert_eq!(name("%d.jpg", true, 1234).unwrap(), "1234.jpg");
        assert!(Pattern::of("%s.png", true).is_err());
        assert!(Pattern::of("%d-%d.png", true).is_err());
    }

    #[test]
    fn the_name_tells_what_is_written() {
        let kind = |output, kind| Target::of(output, kind, None, false, true).map(|target| target.kind);
        assert_eq!(kind(None, None), Ok(Kind::Png));
        assert_eq!(kind(Some("X.JPEG"), None), Ok(Kind::Jpg));
        assert_eq!(kind(Some("x.dat"), Some(Kind::Raw)), Ok(Kind::Raw));
        assert!(kind(Some("x.dat"), None).is_err());
        assert!(kind(Some("-"), Some(Kind::Avi)).is_err());
        let timed = Target::of(None, None, None, true, true).unwrap();
        assert_eq!(timed.kind, Kind::Avi);
    }
}
