//! Frames one after the other in one file.

use std::io::{self, Seek, Write};

use camlease::{Frame, Rate, StreamFormat};
use yuv::{YuvChromaSubsampling, YuvConversionMode, YuvPlanarImageMut, rgb_to_yuv444};
use zune_jpeg::zune_core::colorspace::ColorSpace;

use super::pixels::{MATRIX, Order, Pixels, RANGE, Rows, tight};
use super::target::Coding;
use super::{avi, jpeg, picture};

/// The camera's bytes.
pub struct Raw<W> {
    out: W,
    bytes: u64,
}

impl<W: Write> Raw<W> {
    pub fn new(out: W) -> Raw<W> {
        Raw { out, bytes: 0 }
    }
}

impl<W: Write> Coding for Raw<W> {
    fn write(&mut self, frame: &Frame) -> io::Result<bool> {
        for plane in 0..frame.planes() {
            self.out.write_all(frame.data(plane))?;
            self.bytes += frame.data(plane).len() as u64;
        }
        Ok(true)
    }

    fn is_full(&self) -> bool {
        false
    }

    fn finish(&mut self) -> io::Result<u64> {
        self.out.flush()?;
        Ok(self.bytes)
    }
}

/// YUV4MPEG2: a line of text, then for each frame one more and the planes.
pub struct Y4m<W> {
    out: W,
    rate: Rate,
    /// Of the first frame; all others are to have the same.
    shape: Option<(u32, u32, Chroma)>,
    bytes: u64,
}

/// What a Y4M file's head says of its colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chroma {
    None,
    Rows420,
    Rows422,
    Full444,
    /// From JPEG, whose levels go from 0 to 255.
    Full444FullRange,
}

impl Chroma {
    pub fn tag(self) -> &'static str {
        match self {
            Chroma::None => "Cmono",
            Chroma::Rows420 => "C420mpeg2 XCOLORRANGE=LIMITED",
            Chroma::Rows422 => "C422 XCOLORRANGE=LIMITED",
            Chroma::Full444 => "C444 XCOLORRANGE=LIMITED",
            Chroma::Full444FullRange => "C444 XCOLORRANGE=FULL",
        }
    }

    fn of(rows: Rows) -> Chroma {
        match rows {
            Rows::One => Chroma::Rows422,
            Rows::Two => Chroma::Rows420,
        }
    }
}

impl<W: Write> Y4m<W> {
    pub fn new(out: W, format: &StreamFormat) -> Y4m<W> {
        Y4m { out, rate: format.rate, shape: None, bytes: 0 }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

impl<W: Write> Coding for Y4m<W> {
    fn write(&mut self, frame: &Frame) -> io::Result<bool> {
        let Some((planes, width, height, chroma)) =
            Pixels::of(frame).and_then(|pixels| planes(&pixels, frame.width(), frame.height()))
        else {
            return Ok(false);
        };
        if *self.shape.get_or_insert((width, height, chroma)) != (width, height, chroma) {
            return Ok(false);
        }
        if self.bytes == 0 {
            self.put(head(width, height, self.rate, chroma).as_bytes())?;
        }
        self.put(b"FRAME\n")?;
        planes.iter().try_for_each(|plane| self.put(plane))?;
        Ok(true)
    }

    fn is_full(&self) -> bool {
        false
    }

    fn finish(&mut self) -> io::Result<u64> {
        self.out.flush()?;
        Ok(self.bytes)
    }
}

/// The first line of a Y4M file.
pub fn head(width: u32, height: u32, rate: Rate, chroma: Chroma) -> String {
    // A player needs some rate.
    let Rate { numerator, denominator } = if rate.is_set() { rate } else { Rate::new(30, 1) };
    format!("YUV4MPEG2 W{width} H{height} F{numerator}:{denominator} Ip A1:1 {}\n", chroma.tag())
}

/// Luma and chroma as Y4M wants them: each part for itself, without gaps.
pub fn planes(pixels: &Pixels<'_>, width: u32, height: u32) -> Option<(Vec<Vec<u8>>, u32, u32, Chroma)> {
    let chroma_width = width.div_ceil(2) as usize;
    let wide = width as usize;
    Some(match pixels {
        Pixels::Jpeg(bytes) => {
            let (pixels, width, height) = jpeg::decode(bytes, ColorSpace::YCbCr)?;
            let part = |at| pixels.iter().skip(at).step_by(3).copied().collect::<Vec<u8>>();
            (vec![part(0), part(1), part(2)], width as u32, height as u32, Chroma::Full444FullRange)
        }
        Pixels::Grey { bytes, stride } => (vec![tight(bytes, *stride, wide)], width, height, Chroma::None),
        Pixels::Packed { image, order } => {
            let [y, u, v] = match order {
                Order::Yuyv => [0, 1, 3],
                Order::Uyvy => [1, 0, 2],
                Order::Yvyu => [0, 3, 1],
                Order::Vyuy => [1, 2, 0],
            };
            let rows = || image.yuy.chunks_exact(image.yuy_stride as usize);
            let luma = rows().flat_map(|row| row.iter().skip(y).step_by(2).take(wide)).copied().collect();
            let part =
                |at| rows().flat_map(move |row| row.iter().skip(at).step_by(4).take(chroma_width)).copied().collect();
            (vec![luma, part(u), part(v)], width, height, Chroma::Rows422)
        }
        Pixels::SemiPlanar { image, rows, swapped } => {
            let (u, v) = if *swapped { (1, 0) } else { (0, 1) };
            let lines = || image.uv_plane.chunks_exact(image.uv_stride as usize);
            let part =
                |at| lines().flat_map(move |row| row.iter().skip(at).step_by(2).take(chroma_width)).copied().collect();
            let luma = tight(image.y_plane, image.y_stride as usize, wide);
            (vec![luma, part(u), part(v)], width, height, Chroma::of(*rows))
        }
        Pixels::Planar { image, rows } => {
            let part = |bytes, stride: u32| tight(bytes, stride as usize, chroma_width);
            let luma = tight(image.y_plane, image.y_stride as usize, wide);
            let (u, v) = (part(image.u_plane, image.u_stride), part(image.v_plane, image.v_stride));
            (vec![luma, u, v], width, height, Chroma::of(*rows))
        }
        Pixels::Rgb { .. } => {
            let rgb = pixels.rgb(width, height)?;
            let mut image = YuvPlanarImageMut::alloc(width, height, YuvChromaSubsampling::Yuv444);
            rgb_to_yuv444(&mut image, &rgb, width * 3, RANGE, MATRIX, YuvConversionMode::Balanced).ok()?;
            let planes = [&image.y_plane, &image.u_plane, &image.v_plane].map(|plane| plane.borrow().to_vec());
            (planes.into(), width, height, Chroma::Full444)
        }
    })
}

/// Motion JPEG in AVI: the camera's own JPEGs as they are, anything else encoded.
pub struct Avi<W: Write + Seek> {
    writer: avi::Writer<W>,
    quality: u8,
}

impl<W: Write + Seek> Avi<W> {
    pub fn new(out: W, format: &StreamFormat, quality: u8) -> io::Result<Avi<W>> {
        Ok(Avi { writer: avi::Writer::new(out, format.width, format.height, format.rate)?, quality })
    }
}

impl<W: Write + Seek> Coding for Avi<W> {
    fn write(&mut self, frame: &Frame) -> io::Result<bool> {
        match picture::jpeg_of(frame, self.quality) {
            Some(jpeg) => self.writer.put(&jpeg, frame.timestamp_ns()).map(|()| true),
            None => Ok(false),
        }
    }

    fn is_full(&self) -> bool {
        self.writer.is_full()
    }

    fn finish(&mut self) -> io::Result<u64> {
        self.writer.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use camlease::FourCc;

    #[test]
    fn chroma_comes_apart_in_the_right_order() {
        let parts = |code: &[u8; 4], bytes: &[u8]| {
            let pixels = Pixels::in_planes(FourCc::new(code), 2, 2, &[(bytes, 0)]).unwrap();
            planes(&pixels, 2, 2).unwrap().0
        };
        let packed = vec![vec![1, 2, 5, 6], vec![3, 7], vec![4, 8]];
        assert_eq!(parts(b"YUYV", &[1, 3, 2, 4, 5, 7, 6, 8]), packed);
        assert_eq!(parts(b"UYVY", &[3, 1, 4, 2, 7, 5, 8, 6]), packed);
        assert_eq!(parts(b"YVYU", &[1, 4, 2, 3, 5, 8, 6, 7]), packed);
        let quarter = vec![vec![1, 2, 3, 4], vec![5], vec![6]];
        assert_eq!(parts(b"NV12", &[1, 2, 3, 4, 5, 6]), quarter);
        assert_eq!(parts(b"NV21", &[1, 2, 3, 4, 6, 5]), quarter);
        assert_eq!(parts(b"YU12", &[1, 2, 3, 4, 5, 6]), quarter);
        assert_eq!(parts(b"YV12", &[1, 2, 3, 4, 6, 5]), quarter);
        assert_eq!(parts(b"GREY", &[1, 2, 3, 4]), vec![vec![1, 2, 3, 4]]);
    }
}
