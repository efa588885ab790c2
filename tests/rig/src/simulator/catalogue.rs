//! What the webcam offers: two formats, each in two sizes, each at two rates.

/// Formats by their index in the descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Yuyv = 1,
    Mjpeg = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub width: u32,
    pub height: u32,
}

impl Size {
    /// Bytes of the largest frame; for MJPEG an upper bound, from which the driver sizes its buffers.
    pub fn bytes(self) -> u32 {
        self.width * self.height * 2
    }
}

/// One choice among those offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    pub format: Format,
    /// Index of the size in the descriptors, from 1.
    pub frame: u8,
    pub size: Size,
    /// In units of 100 ns, as everywhere in UVC.
    pub interval: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Catalogue {
    pub sizes: [Size; 2],
    pub intervals: [u32; 2],
}

impl Catalogue {
    /// A full size at a full rate, and the half of each.
    pub fn new(width: u32, height: u32, frames_per_second: u32) -> Result<Catalogue, String> {
        // Half the width has to be a multiple of the picture's pair of cells.
        if !width.is_multiple_of(32) || !height.is_multiple_of(2) {
            return Err(format!("{width}x{height}: the width is a multiple of 32, the height even"));
        }
        if !(128..=1920).contains(&width) || !(96..=1080).contains(&height) {
            return Err(format!("{width}x{height}: not within 128x96 and 1920x1080"));
        }
        if !(1..=120).contains(&frames_per_second) {
            return Err(format!("{frames_per_second} frames per second: not within 1 and 120"));
        }
        let interval = 10_000_000 / frames_per_second;
        Ok(Catalogue {
            sizes: [Size { width, height }, Size { width: width / 2, height: height / 2 }],
            intervals: [interval, interval * 2],
        })
    }

    /// The mode that a host gets when it asks for these indices and this interval: a device answers a wish that it does
    /// not know with something near it (UVC 1.0, 4.3.1.1).
    pub fn negotiate(&self, format: u8, frame: u8, interval: u32) -> Mode {
        let format = if format == Format::Mjpeg as u8 { Format::Mjpeg } else { Format::Yuyv };
        let frame = frame.clamp(1, self.sizes.len() as u8);
        let [fast, slow] = self.intervals;
        let interval = if interval == slow { slow } else { fast };
        Mode { format, frame, size: self.sizes[usize::from(frame) - 1], interval }
    }
}
