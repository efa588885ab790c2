//! The picture that the simulated webcam sends: a pattern of cells of 8x8 pixels which carries the frame's number twice,
//! in its first and its last rows of cells, so that a test can tell one frame from another and a whole one from a torn
//! one. The number is written in luma alone, which every conversion keeps.

mod jpeg;

/// Side of a cell in pixels. It is a JPEG block, so that a block's DC coefficient alone draws it exactly.
const CELL: u32 = 8;
/// Cells that carry the number, one for each bit, the highest first.
const BITS: u32 = u32::BITS;
const ZERO: u8 = 16;
const ONE: u8 = 235;
const GREY: (u8, u8) = (128, 128);

/// One frame's picture. Width is a multiple of 16, as a pair of cells shares its colour.
#[derive(Clone, Copy, Debug)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    pub number: u32,
}

impl Picture {
    /// Replaces `out` by the picture in YUYV.
    pub fn yuyv(&self, out: &mut Vec<u8>) {
        out.clear();
        out.reserve((self.width * self.height * 2) as usize);
        for row in 0..self.rows() {
            let line_start = out.len();
            for column in 0..self.columns() {
                let luma = self.luma(column, row);
                let (cb, cr) = self.chroma(column / 2, row);
                out.extend_from_slice([[luma, cb, luma, cr]; CELL as usize / 2].as_flattened());
            }
            let line_end = out.len();
            for _ in 1..CELL.min(self.height - row * CELL) {
                out.extend_from_within(line_start..line_end);
            }
        }
    }

    /// Replaces `out` by the picture as a baseline JPEG.
    pub fn jpeg(&self, out: &mut Vec<u8>) {
        jpeg::encode(self, out);
    }

    fn columns(&self) -> u32 {
        self.width / CELL
    }

    fn rows(&self) -> u32 {
        self.height.div_ceil(CELL)
    }

    fn luma(&self, column: u32, row: u32) -> u8 {
        match bit_at(self.width, self.height, column, row) {
            Some(bit) if self.number >> bit & 1 == 1 => ONE,
            Some(_) => ZERO,
            // A slope that moves with the number.
            None => (64 + (column * 3 + row * 5 + self.number % 64 * 2) % 128) as u8,
        }
    }

    /// Blue and red difference of a pair of cells.
    fn chroma(&self, pair: u32, row: u32) -> (u8, u8) {
        if bit_at(self.width, self.height, pair * 2, row).is_some() {
            return GREY;
        }
        // Eight upright bars.
        let bar = (pair * 16 / self.columns()) as u8;
        (60 + bar * 18, 200 - bar * 18)
    }
}

/// The bit of the number that a cell carries.
fn bit_at(width: u32, height: u32, column: u32, row: u32) -> Option<u32> {
    let columns = width / CELL;
    let rows = height.div_ceil(CELL);
    let marked = BITS.div_ceil(columns);
    let row = if row < marked { row } else { (row + marked).checked_sub(rows)? };
    (BITS - 1).checked_sub(row * columns + column)
}

/// The number of the frame whose luma `luma(x, y)` gives; `None` when the picture is none of ours, or torn.
pub fn number_in_luma(width: u32, height: u32, luma: impl Fn(u32, u32) -> u8) -> Option<u32> {
    let columns = width / CELL;
    let rows = height.div_ceil(CELL);
    let marked = BITS.div_ceil(columns);
    let read = |first_row: u32| {
        (0..BITS).try_fold(0u32, |number, bit| {
            let (column, row) = (bit % columns, first_row + bit / columns);
            match luma(column * CELL + CELL / 2, row * CELL) {
                0..=63 => Some(number << 1),
                191.. => Some(number << 1 | 1),
                _ => None,
            }
        })
    };
    let number = read(0)?;
    (read(rows - marked)? == number).then_some(number)
}

/// The number of a frame in YUYV without padding.
pub fn number_in_yuyv(frame: &[u8], width: u32, height: u32) -> Option<u32> {
    if frame.len() != (width * height * 2) as usize {
        return None;
    }
    number_in_luma(width, height, |x, y| frame[((y * width + x) * 2) as usize])
}

/// A sum over a plane's bytes, after that over others: who got the same bytes says the same. `tests/c/reader.c` has it, too.
pub fn sum_of(bytes: &[u8], sum: u64) -> u64 {
    let mix = |sum: u64, word: u64| (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(sum, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| mix(sum, (*byte).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_yuyv_frame_carries_its_number() {
        for (width, height) in [(640, 360), (320, 180), (64, 64), (1280, 720)] {
            for number in [0, 1, 0x8000_0001, 123_456_789, u32::MAX] {
                let mut frame = Vec::new();
                Picture { width, height, number }.yuyv(&mut frame);
                assert_eq!(number_in_yuyv(&frame, width, height), Some(number), "{width}x{height}");
            }
        }
    }

    #[test]
    fn a_torn_frame_has_no_number() {
        let (mut frame, mut next) = (Vec::new(), Vec::new());
        Picture { width: 640, height: 360, number: 7 }.yuyv(&mut frame);
        Picture { width: 640, height: 360, number: 8 }.yuyv(&mut next);
        let half = frame.len() / 2;
        frame[half..].copy_from_slice(&next[half..]);
        assert_eq!(number_in_yuyv(&frame, 640, 360), None);
    }
}
