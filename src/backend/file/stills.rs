//! Pictures in files of their own, shown one after the other: a folder of them, or a single one.

use std::cmp::Ordering;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bytes::{Bytes, Window};
use super::index::place;
use super::jpeg::{self, Ending, Extent};
use super::{Footage, Shape, Showing, Size, broken, ended, png, rgb_layout, unsupported};
use crate::backend::paced::{Painted, Picture};
use crate::error::{Error, Kind, Result};
use crate::format::{FourCc, MJPEG, RGB24};
use crate::policy;

pub struct Stills {
    path: PathBuf,
    files: Arc<[Still]>,
    shape: Shape,
}

struct Still {
    path: PathBuf,
    coding: Coding,
    /// None where the head of a JPEG is damaged.
    size: Option<Size>,
    length: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    Jpeg,
    Png,
}

impl Stills {
    /// A single picture.
    pub fn of_file(path: &Path) -> Result<Stills> {
        match Still::sniff(path)? {
            Some(still) => Stills::of(path, vec![still]),
            None => Err(no_picture(path)),
        }
    }

    /// The pictures in a folder, in the order of their names. The head of each is read now: what the
    /// folder offers depends on all, and one of another size is better told at once than in the middle.
    pub fn of_folder(folder: &Path) -> Result<Stills> {
        let failed = |e| Error::system(format!("reading the folder {}", folder.display()), e);
        let mut stills = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if is_hidden(&path) || !path.is_file() {
                continue;
            }
            match (Still::sniff(&path), is_named_as_picture(&path)) {
                (Ok(Some(still)), _) => stills.push(still),
                (Ok(None), true) => return Err(no_picture(&path)),
                (Err(error), true) => return Err(error),
                (_, false) => {} // whatever else lies there
            }
        }
        stills.sort_by(|a, b| in_order(&a.path, &b.path));
        Stills::of(folder, stills)
    }

    fn of(path: &Path, stills: Vec<Still>) -> Result<Stills> {
        let Some(first) = stills.first() else {
            let empty = format!("the folder {} holds no JPEG or PNG picture", path.display());
            return Err(Error::new(Kind::NotFound, empty));
        };
        let size = first.size.ok_or_else(|| broken(&first.path, "the picture does not tell its size"))?;
        let size = size.within_bounds(&first.path)?;
        for still in &stills {
            still.size.map_or(Ok(()), |found| same_size(&still.path, found, size))?;
        }
        let offers = match stills.iter().all(|still| still.coding == Coding::Jpeg) {
            true => vec![MJPEG, RGB24],
            false => vec![RGB24],
        };
        Ok(Stills { path: path.into(), files: stills.into(), shape: Shape { size, rate: None, offers } })
    }
}

impl Still {
    /// What a file's first bytes tell; none when it is no picture.
    fn sniff(path: &Path) -> Result<Option<Still>> {
        let bytes = Bytes::open(path)?;
        let length = bytes.length()?;
        let mut window = Window::new(bytes, policy::FILE_WINDOW);
        let Some(coding) = Coding::of(window.at(0, HEAD)?) else { return Ok(None) };
        let size = match coding {
            Coding::Jpeg => jpeg::size(&mut window, 0)?,
            Coding::Png => png::size(window.at(0, HEAD)?),
        };
        Ok(Some(Still { path: path.into(), coding, size, length }))
    }
}

/// As much of a file as tells a PNG's size.
const HEAD: usize = 24;

impl Coding {
    fn of(head: &[u8]) -> Option<Coding> {
        if head.starts_with(&jpeg::MAGIC) {
            Some(Coding::Jpeg)
        } else if head.starts_with(&png::MAGIC) {
            Some(Coding::Png)
        } else {
            None
        }
    }
}

/// Whether a file's name says that it is a JPEG or PNG.
pub fn is_named_as_picture(path: &Path) -> bool {
    let suffix = path.extension().unwrap_or_default();
    ["jpg", "jpeg", "jpe", "jfif", "png"].iter().any(|known| suffix.eq_ignore_ascii_case(known))
}

fn is_hidden(path: &Path) -> bool {
    name(path).starts_with(b".")
}

fn no_picture(path: &Path) -> Error {
    unsupported(path, "it is named as a picture, but does not begin as a JPEG or PNG does")
}

fn same_size(path: &Path, found: Size, size: Size) -> Result<()> {
    if found == size {
        return Ok(());
    }
    Err(unsupported(path, format!("the picture is {found}, but the first one is {size}")).hint("a camera has one size"))
}

impl Footage for Stills {
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn show(&self, fourcc: FourCc, repeat: bool) -> Result<Showing> {
        let (stride, largest) = match fourcc {
            RGB24 => rgb_layout(self.shape.size),
            _ => (
                0,
                self.files.iter().map(|still| still.length).max().unwrap_or(1).min(policy::JPEG_MOST as u64) as usize,
            ),
        };
        let frames = Frames {
            path: self.path.clone(),
            files: self.files.clone(),
            size: self.shape.size,
            repeat,
            pixels: (fourcc == RGB24).then(Pixels::default),
        };
        Ok(Showing { picture: Box::new(frames), stride, largest })
    }
}

struct Frames {
    path: PathBuf,
    files: Arc<[Still]>,
    size: Size,
    repeat: bool,
    /// When pixels are asked for.
    pixels: Option<Pixels>,
}

#[derive(Default)]
struct Pixels {
    jpeg: jpeg::Decoder,
    png: png::Decoder,
}

impl Picture for Frames {
    fn paint(&mut self, sequence: u64, _: i64, into: &mut [u8]) -> Result<Painted> {
        let Some(place) = place(sequence, self.files.len(), self.repeat) else { return Err(ended(&self.path)) };
        let still = &self.files[place];
        match &mut self.pixels {
            Some(pixels) => {
                let whole = pixels.decode(still, self.size, into)?;
                Ok(Painted { used: rgb_layout(self.size).1, corrupt: !whole })
            }
            None => copy(still, self.size, into),
        }
    }
}

/// A JPEG as it is, without what may lie behind it in its file.
fn copy(still: &Still, size: Size, into: &mut [u8]) -> Result<Painted> {
    let (bytes, jpeg) = open_jpeg(still, size)?;
    let used = jpeg.length().min(into.len());
    bytes.read(0, &mut into[..used])?;
    let whole = jpeg.ending == Ending::Whole && jpeg.size.is_some() && used == jpeg.length();
    Ok(Painted { used, corrupt: !whole })
}

impl Pixels {
    /// Says whether all of the picture could be decoded.
    fn decode(&mut self, still: &Still, size: Size, into: &mut [u8]) -> Result<bool> {
        match still.coding {
            Coding::Jpeg => {
                let (bytes, jpeg) = open_jpeg(still, size)?;
                self.jpeg.decode(&bytes, &jpeg, size, into)
            }
            Coding::Png => {
                let file = File::open(&still.path)
                    .map_err(|e| Error::system(format!("opening {}", still.path.display()), e))?;
                match self.png.decode(&still.path, file, size, into)? {
                    png::Decoded::Whole => Ok(true),
                    png::Decoded::Damaged => Ok(false),
                    png::Decoded::OtherSize(found) => same_size(&still.path, found, size).map(|()| true),
                }
            }
        }
    }
}

/// Opened anew for each frame: a folder of thousands would need as many descriptors. So it may have
/// been replaced since its size was read.
fn open_jpeg(still: &Still, size: Size) -> Result<(Bytes, Extent)> {
    let bytes = Bytes::open(&still.path)?;
    let jpeg = jpeg::extent(&mut Window::new(bytes.clone(), policy::FILE_WINDOW), 0)?;
    jpeg.size.map_or(Ok(()), |found| same_size(&still.path, found, size))?;
    Ok((bytes, jpeg))
}

/// The order in which people number files: img2 before img10.
fn in_order(a: &Path, b: &Path) -> Ordering {
    natural(name(a), name(b))
}

fn name(path: &Path) -> &[u8] {
    path.file_name().unwrap_or_default().as_bytes()
}

fn natural(mut a: &[u8], mut b: &[u8]) -> Ordering {
    let whole = (a, b);
    while let (Some(&first), Some(&second)) = (a.first(), b.first()) {
        let order = if first.is_ascii_digit() && second.is_ascii_digit() {
            let (left, right) = (digits(&mut a), digits(&mut b));
            left.len().cmp(&right.len()).then(left.cmp(right))
        } else {
            (a, b) = (&a[1..], &b[1..]);
            first.cmp(&second)
        };
        if order.is_ne() {
            return order;
        }
    }
    // One is the beginning of the other, or they differ in leading zeros only.
    a.len().cmp(&b.len()).then(whole.0.cmp(whole.1))
}

/// Takes a number off the front of `text`, and gives its digits without leading zeros.
fn digits<'a>(text: &mut &'a [u8]) -> &'a [u8] {
    let length = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = text.split_at(length);
    *text = rest;
    &number[number.iter().take_while(|&&digit| digit == b'0').count()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_the_order_in_which_people_number_them() {
        let mut names = ["img10", "img2", "img1", "img", "a2b10", "a2b9", "img02", "img002x", "9", "10", "img2x"];
        names.sort_by(|a, b| natural(a.as_bytes(), b.as_bytes()));
        assert_eq!(names, ["9", "10", "a2b9", "a2b10", "img", "img1", "img02", "img2", "img002x", "img2x", "img10"]);
        let long = |last| format!("{}{last}", "1234567890".repeat(5));
        assert_eq!(natural(long("1").as_bytes(), long("2").as_bytes()), Ordering::Less, "no number is too long");
    }
}
