//! What the bytes of a frame mean.

use camlease::{FourCc, Frame};
use yuv::{
    YuvBiPlanarImage, YuvConversionMode, YuvPackedImage, YuvPlanarImage, YuvRange, YuvStandardMatrix, uyvy422_to_rgb,
    vyuy422_to_rgb, yuv_nv12_to_rgb, yuv_nv16_to_rgb, yuv_nv21_to_rgb, yuv420_to_rgb, yuv422_to_rgb, yuyv422_to_rgb,
    yvyu422_to_rgb,
};

/// Cameras send these ranges and coefficients unless they say otherwise; V4L2's default for YUV of this size.
pub const RANGE: YuvRange = YuvRange::Limited;
pub const MATRIX: YuvStandardMatrix = YuvStandardMatrix::Bt601;

/// A picture's bytes, by their arrangement.
pub enum Pixels<'a> {
    /// Two pixels in four bytes.
    Packed {
        image: YuvPackedImage<'a, u8>,
        order: Order,
    },
    /// Luma, and beside it both chroma parts in turn.
    SemiPlanar {
        image: YuvBiPlanarImage<'a, u8>,
        rows: Rows,
        swapped: bool,
    },
    /// Luma and each chroma part for itself.
    Planar {
        image: YuvPlanarImage<'a, u8>,
        rows: Rows,
    },
    Grey {
        bytes: &'a [u8],
        stride: usize,
    },
    Rgb {
        bytes: &'a [u8],
        stride: usize,
        swapped: bool,
    },
    Jpeg(&'a [u8]),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Yuyv,
    Uyvy,
    Yvyu,
    Vyuy,
}

/// Lines of luma for each line of chroma.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    One,
    Two,
}

/// Whether [`Pixels::of`] knows this pixel format.
pub fn is_known(fourcc: FourCc) -> bool {
    const KNOWN: [&[u8; 4]; 18] = [
        b"YUYV", b"UYVY", b"YVYU", b"VYUY", b"GREY", b"RGB3", b"BGR3", b"NV12", b"NV21", b"NV16", b"NM12", b"NM21",
        b"NM16", b"YU12", b"YV12", b"422P", b"MJPG", b"JPEG",
    ];
    KNOWN.iter().any(|code| FourCc::new(code) == fourcc)
}

impl<'a> Pixels<'a> {
    pub fn of(frame: &'a Frame) -> Option<Pixels<'a>> {
        let planes: Vec<(&[u8], u32)> = (0..frame.planes()).map(|at| (frame.data(at), frame.stride(at))).collect();
        Pixels::in_planes(frame.fourcc(), frame.width(), frame.height(), &planes)
    }

    /// None where the pixel format is not known, or the frame is shorter than its size needs.
    pub fn in_planes(fourcc: FourCc, width: u32, height: u32, planes: &[(&'a [u8], u32)]) -> Option<Pixels<'a>> {
        let &(bytes, stride) = planes.first()?;
        let code = fourcc.0.to_le_bytes();
        if matches!(&code, b"MJPG" | b"JPEG") {
            return Some(Pixels::Jpeg(bytes));
        }
        // Some drivers tell no stride.
        let or = |told: u32, least: u32| if told == 0 { least } else { told };
        let packed = |order| {
            let stride = or(stride, width.div_ceil(2) * 4);
            let image = YuvPackedImage { yuy: lines(bytes, stride, height)?, yuy_stride: stride, width, height };
            Some(Pixels::Packed { image, order })
        };
        let semi_planar = |rows: Rows, swapped| {
            let y_stride = or(stride, width);
            let (y_plane, rest) = bytes.split_at_checked(y_stride as usize * height as usize)?;
            let (uv_plane, uv_stride) = match planes.get(1) {
                Some(&(uv, stride)) => (uv, or(stride, y_stride)),
                None => (rest, y_stride),
            };
            let uv_plane = lines(uv_plane, uv_stride, rows.of(height))?;
            let image = YuvBiPlanarImage { y_plane, y_stride, uv_plane, uv_stride, width, height };
            Some(Pixels::SemiPlanar { image, rows, swapped })
        };
        let planar = |rows: Rows, swapped: bool| {
            let y_stride = or(stride, width);
            let (y_plane, rest) = bytes.split_at_checked(y_stride as usize * height as usize)?;
            let chroma_stride = y_stride.div_ceil(2);
            let chroma = chroma_stride as usize * rows.of(height) as usize;
            let (first, rest) = rest.split_at_checked(chroma)?;
            let second = rest.get(..chroma)?;
            let (u_plane, v_plane) = if swapped { (second, first) } else { (first, second) };
            let (u_stride, v_stride) = (chroma_stride, chroma_stride);
            let image = YuvPlanarImage { y_plane, y_stride, u_plane, u_stride, v_plane, v_stride, width, height };
            Some(Pixels::Planar { image, rows })
        };
        let rgb = |swapped| {
            let stride = or(stride, width * 3);
            Some(Pixels::Rgb { bytes: lines(bytes, stride, height)?, stride: stride as usize, swapped })
        };
        match &code {
            b"YUYV" => packed(Order::Yuyv),
            b"UYVY" => packed(Order::Uyvy),
            b"YVYU" => packed(Order::Yvyu),
            b"VYUY" => packed(Order::Vyuy),
            b"NV12" | b"NM12" => semi_planar(Rows::Two, false),
            b"NV21" | b"NM21" => semi_planar(Rows::Two, true),
            b"NV16" | b"NM16" => semi_planar(Rows::One, false),
            b"YU12" => planar(Rows::Two, false),
            b"YV12" => planar(Rows::Two, true),
            b"422P" => planar(Rows::One, false),
            b"RGB3" => rgb(false),
            b"BGR3" => rgb(true),
            b"GREY" => {
                let stride = or(stride, width);
                Some(Pixels::Grey { bytes: lines(bytes, stride, height)?, stride: stride as usize })
            }
            _ => None,
        }
    }

    /// Red, green and blue, line by line without gaps. None for grey and JPEG, which are something else.
    pub fn rgb(&self, width: u32, height: u32) -> Option<Vec<u8>> {
        let row = width as usize * 3;
        let mut rgb = vec![0; row * height as usize];
        let mode = YuvConversionMode::Balanced;
        let stride = row as u32;
        let done = match self {
            Pixels::Packed { image, order } => match order {
                Order::Yuyv => yuyv422_to_rgb(image, &mut rgb, stride, RANGE, MATRIX),
                Order::Uyvy => uyvy422_to_rgb(image, &mut rgb, stride, RANGE, MATRIX),
                Order::Yvyu => yvyu422_to_rgb(image, &mut rgb, stride, RANGE, MATRIX),
                Order::Vyuy => vyuy422_to_rgb(image, &mut rgb, stride, RANGE, MATRIX),
            },
            Pixels::SemiPlanar { image, rows: Rows::One, .. } => {
                yuv_nv16_to_rgb(image, &mut rgb, stride, RANGE, MATRIX, mode)
            }
            Pixels::SemiPlanar { image, swapped: true, .. } => {
                yuv_nv21_to_rgb(image, &mut rgb, stride, RANGE, MATRIX, mode)
            }
            Pixels::SemiPlanar { image, .. } => yuv_nv12_to_rgb(image, &mut rgb, stride, RANGE, MATRIX, mode),
            Pixels::Planar { image, rows: Rows::Two } => yuv420_to_rgb(image, &mut rgb, stride, RANGE, MATRIX),
            Pixels::Planar { image, rows: Rows::One } => yuv422_to_rgb(image, &mut rgb, stride, RANGE, MATRIX),
            Pixels::Rgb { bytes, stride, swapped } => {
                for (to, from) in rgb.chunks_exact_mut(row).zip(bytes.chunks(*stride)) {
                    to.copy_from_slice(from.get(..row)?);
                    if *swapped {
                        to.chunks_exact_mut(3).for_each(|pixel| pixel.swap(0, 2));
                    }
                }
                Ok(())
            }
            Pixels::Grey { .. } | Pixels::Jpeg(_) => return None,
        };
        done.ok().map(|()| rgb)
    }
}

impl Rows {
    pub fn of(self, height: u32) -> u32 {
        match self {
            Rows::One => height,
            Rows::Two => height.div_ceil(2),
        }
    }
}

/// As many bytes as so many lines have; none where there are fewer.
fn lines(bytes: &[u8], stride: u32, height: u32) -> Option<&[u8]> {
    bytes.get(..stride as usize * height as usize)
}

/// Bytes without the gaps between lines.
pub fn tight(bytes: &[u8], stride: usize, width: usize) -> Vec<u8> {
    bytes.chunks(stride.max(1)).flat_map(|line| &line[..width.min(line.len())]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// BT.601 in limited range: white, black and pure red.
    const WHITE: [u8; 3] = [235, 128, 128];
    const RED: [u8; 3] = [81, 90, 240];

    fn near(rgb: &[u8], wanted: [u8; 3]) -> bool {
        rgb.chunks_exact(3).all(|pixel| pixel.iter().zip(wanted).all(|(a, b)| a.abs_diff(b) <= 3))
    }

    #[test]
    fn every_arrangement_of_red_is_red() {
        let [y, u, v] = RED;
        let (width, height) = (8, 4);
        let all = |bytes: &[u8], count: usize| bytes.iter().copied().cycle().take(count).collect::<Vec<u8>>();
        let luma = all(&[y], 32);
        let cases: [(&[u8; 4], Vec<u8>); 11] = [
            (b"YUYV", all(&[y, u, y, v], 64)),
            (b"UYVY", all(&[u, y, v, y], 64)),
            (b"YVYU", all(&[y, v, y, u], 64)),
            (b"VYUY", all(&[v, y, u, y], 64)),
            (b"NV12", [luma.clone(), all(&[u, v], 16)].concat()),
            (b"NV21", [luma.clone(), all(&[v, u], 16)].concat()),
            (b"NV16", [luma.clone(), all(&[u, v], 32)].concat()),
            (b"YU12", [luma.clone(), all(&[u], 8), all(&[v], 8)].concat()),
            (b"YV12", [luma.clone(), all(&[v], 8), all(&[u], 8)].concat()),
            (b"RGB3", all(&[255, 0, 0], 96)),
            (b"BGR3", all(&[0, 0, 255], 96)),
        ];
        for (code, bytes) in cases {
            let code = FourCc::new(code);
            assert!(is_known(code));
            let pixels = Pixels::in_planes(code, width, height, &[(&bytes, 0)]).expect("the bytes are enough");
            let rgb = pixels.rgb(width, height).expect("it is converted");
            assert!(near(&rgb, [255, 0, 0]), "{code}: {:?}", &rgb[..6]);
            assert!(
                Pixels::in_planes(code, width, height, &[(&bytes[..bytes.len() - 1], 0)]).is_none(),
                "{code} is short"
            );
        }
    }

    #[test]
    fn gaps_between_lines_and_separate_planes_are_followed() {
        let [y, u, v] = WHITE;
        let line: Vec<u8> = [[y, u, y, v].repeat(2), vec![0; 8]].concat();
        let bytes = line.repeat(2);
        let rgb = Pixels::in_planes(FourCc::new(b"YUYV"), 4, 2, &[(&bytes, 16)]).unwrap().rgb(4, 2).unwrap();
        assert!(near(&rgb, [255, 255, 255]), "{rgb:?}");
        let (luma, chroma) = ([y; 8], [u, v, u, v]);
        let planes = [(&luma[..], 4), (&chroma[..], 4)];
        let rgb = Pixels::in_planes(FourCc::new(b"NM12"), 4, 2, &planes).unwrap().rgb(4, 2).unwrap();
        assert!(near(&rgb, [255, 255, 255]), "{rgb:?}");
        assert_eq!(tight(&[1, 2, 0, 3, 4, 0], 3, 2), [1, 2, 3, 4]);
    }
}
