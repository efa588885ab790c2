//! Pixel formats, frame sizes and rates: what a camera offers, what a host asks for, what it got.

use std::fmt;

/// A four-character code, as V4L2 has them: least significant byte first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FourCc(pub u32);

impl FourCc {
    pub const fn new(code: &[u8; 4]) -> Self {
        FourCc(u32::from_le_bytes(*code))
    }

    /// The code of a text of one to four printable characters, padded with blanks.
    pub fn parse(text: &str) -> Option<Self> {
        let mut code = *b"    ";
        if text.is_empty() || text.len() > 4 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        code[..text.len()].copy_from_slice(text.as_bytes());
        Some(FourCc::new(&code))
    }
}

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.0.to_le_bytes();
        if code.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
            f.write_str(std::str::from_utf8(&code).unwrap_or("????").trim_end())
        } else {
            write!(f, "0x{:08x}", self.0)
        }
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

pub const YUYV: FourCc = FourCc::new(b"YUYV");
pub const UYVY: FourCc = FourCc::new(b"UYVY");
pub const GREY: FourCc = FourCc::new(b"GREY");
pub const RGB24: FourCc = FourCc::new(b"RGB3");
pub const BGR24: FourCc = FourCc::new(b"BGR3");
pub const NV12: FourCc = FourCc::new(b"NV12");
pub const YUV420: FourCc = FourCc::new(b"YU12");
pub const YUV422P: FourCc = FourCc::new(b"422P");
pub const MJPEG: FourCc = FourCc::new(b"MJPG");

/// Frames in a time: `numerator / denominator` per second. 0/0 stands for the device's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    pub numerator: u32,
    pub denominator: u32,
}

impl Rate {
    pub const fn new(numerator: u32, denominator: u32) -> Self {
        Rate { numerator, denominator }
    }

    pub fn is_set(self) -> bool {
        self.numerator != 0 && self.denominator != 0
    }

    pub fn per_second(self) -> f64 {
        if self.is_set() { self.numerator as f64 / self.denominator as f64 } else { 0.0 }
    }

    /// Nanoseconds from the start to frame `index`, without a sum of rounding errors.
    pub fn ns_of(self, index: u64) -> i64 {
        (index as u128 * self.denominator as u128 * 1_000_000_000 / self.numerator.max(1) as u128) as i64
    }

    /// How many frames are due in `ns`.
    pub fn frames_in(self, ns: i64) -> u64 {
        (ns.max(0) as u128 * self.numerator as u128 / (self.denominator.max(1) as u128 * 1_000_000_000)) as u64
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = (self.per_second() * 100.0).round() / 100.0;
        write!(f, "{rate} fps")
    }
}

/// One thing that a camera offers: a pixel format in one size, or in a range of sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Format {
    pub fourcc: FourCc,
    pub description: String,
    pub compressed: bool,
    /// Width and height in pixels: least, most, step. Least and most are equal for a single size.
    pub width: (u32, u32, u32),
    pub height: (u32, u32, u32),
    /// Slowest and fastest rate; a camera with several single rates lists the format once for each.
    pub slowest: Rate,
    pub fastest: Rate,
}

impl Format {
    /// A format in exactly one size and rate.
    pub fn single(fourcc: FourCc, description: &str, compressed: bool, width: u32, height: u32, rate: Rate) -> Self {
        Format {
            fourcc,
            description: description.to_owned(),
            compressed,
            width: (width, width, 0),
            height: (height, height, 0),
            slowest: rate,
            fastest: rate,
        }
    }
}

/// Which frame a host gets that is slower than the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DropPolicy {
    /// The newest: older ones that nobody took go back to the driver.
    #[default]
    Oldest,
    /// All in order; the driver drops when every buffer is full.
    Newest,
}

/// What a host asks for. 0 stands for the device's own.
#[derive(Debug, Clone, Default)]
pub struct StreamRequest {
    pub width: u32,
    pub height: u32,
    pub fourcc: FourCc,
    pub rate: Rate,
    pub buffers: u32,
    pub drop_policy: DropPolicy,
    /// Most bytes that all buffers together may take; 0: no bound.
    pub max_bytes: u64,
}

/// What the driver gave.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StreamFormat {
    pub width: u32,
    pub height: u32,
    pub fourcc: FourCc,
    pub rate: Rate,
    /// Bytes from one line to the next in the first plane; 0 for compressed frames.
    pub stride: u32,
    /// Stride and greatest size in bytes of each memory plane.
    pub planes: Vec<(u32, usize)>,
    pub buffers: u32,
}

impl StreamFormat {
    pub fn bytes(&self) -> u64 {
        // Another process may have said what they are.
        let frame = self.planes.iter().fold(0, |all: u64, plane| all.saturating_add(plane.1 as u64));
        frame.saturating_mul(self.buffers.into())
    }
}

/// Stride and size in bytes of an uncompressed picture in one memory plane.
pub fn layout(fourcc: FourCc, width: u32, height: u32) -> Option<(u32, usize)> {
    let pixels = width as usize * height as usize;
    let chroma = (width as usize).div_ceil(2) * (height as usize).div_ceil(2);
    match fourcc {
        YUYV | UYVY => Some((width.div_ceil(2) * 4, width.div_ceil(2) as usize * 4 * height as usize)),
        GREY => Some((width, pixels)),
        RGB24 | BGR24 => Some((width * 3, pixels * 3)),
        NV12 | YUV420 => Some((width, pixels + 2 * chroma)),
        YUV422P => Some((width, pixels + 2 * (width as usize).div_ceil(2) * height as usize)),
        _ => None,
    }
}

/// One setting of a camera.
#[derive(Debug, Clone, PartialEq)]
pub struct Control {
    pub id: u32,
    pub name: String,
    pub kind: ControlKind,
    pub minimum: i64,
    pub maximum: i64,
    pub step: i64,
    pub default: i64,
    /// What can be done with it now: it may be read-only, inactive beside another setting, write-only.
    pub readable: bool,
    pub writable: bool,
    pub active: bool,
    /// The names behind a menu's values.
    pub menu: Vec<(i64, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlKind {
    Integer,
    Boolean,
    Menu,
    IntegerMenu,
    Bitmask,
    Button,
    Integer64,
    /// A string or a compound, which these calls cannot read or set.
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_character_codes_are_read_and_shown() {
        assert_eq!(FourCc::parse("YUYV"), Some(YUYV));
        assert_eq!(FourCc::parse("Y8").map(|f| f.to_string()), Some("Y8".into()));
        assert_eq!(FourCc::parse("TOOLONG"), None);
        assert_eq!(FourCc::parse(""), None);
        assert_eq!(FourCc(1).to_string(), "0x00000001");
    }

    #[test]
    fn rates_count_frames_without_drift() {
        let ntsc = Rate::new(30_000, 1001);
        assert_eq!(ntsc.to_string(), "29.97 fps");
        for index in [0u64, 1, 29, 1_000_000] {
            let due = ntsc.ns_of(index);
            assert_eq!(ntsc.frames_in(due + 1), index);
        }
    }

    #[test]
    fn layouts_cover_odd_sizes() {
        assert_eq!(layout(YUYV, 3, 2), Some((8, 16)));
        assert_eq!(layout(NV12, 3, 3), Some((3, 9 + 8)));
        assert_eq!(layout(RGB24, 640, 480), Some((1920, 921_600)));
        assert_eq!(layout(MJPEG, 640, 480), None);
    }
}
