//! A baseline JPEG encoder for pictures of plain blocks: each block has a DC coefficient only, so there is no transform,
//! and the decoded picture is exact. Markers and tables as in ITU-T T.81; 4:2:2, as webcams send.

use super::{CELL, Picture};

/// Every quantizer is 8: a plain block's DC coefficient is 8 * (sample - 128), which leaves sample - 128 to be coded.
const QUANTIZER: u8 = 8;
/// Code lengths of the DC categories 0 to 11 (T.81, table K.3) and the codes that follow from them.
const DC_LENGTHS: [u8; 16] = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0];
const DC_CODES: [(u32, u32); 12] = [
    (0b00, 2),
    (0b010, 3),
    (0b011, 3),
    (0b100, 3),
    (0b101, 3),
    (0b110, 3),
    (0b1110, 4),
    (0b1_1110, 5),
    (0b11_1110, 6),
    (0b111_1110, 7),
    (0b1111_1110, 8),
    (0b1_1111_1110, 9),
];
/// One AC code, of one bit: "end of block".
const AC_LENGTHS: [u8; 16] = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const END_OF_BLOCK: (u32, u32) = (0, 1);

pub fn encode(picture: &Picture, out: &mut Vec<u8>) {
    out.clear();
    headers(picture, out);
    let mut bits = Bits { out, held: 0, count: 0 };
    let mut previous = [0i32; 3];
    let mut block = |component: usize, sample: u8| {
        let value = i32::from(sample) - 128;
        bits.difference(value - previous[component]);
        previous[component] = value;
        bits.put(END_OF_BLOCK);
    };
    for row in 0..picture.height.div_ceil(CELL) {
        for pair in 0..picture.width / CELL / 2 {
            let (cb, cr) = picture.chroma(pair, row);
            block(0, picture.luma(pair * 2, row));
            block(0, picture.luma(pair * 2 + 1, row));
            block(1, cb);
            block(2, cr);
        }
    }
    bits.finish();
    out.extend_from_slice(&[0xff, 0xd9]);
}

fn headers(picture: &Picture, out: &mut Vec<u8>) {
    let [height_high, height_low] = (picture.height as u16).to_be_bytes();
    let [width_high, width_low] = (picture.width as u16).to_be_bytes();
    out.extend_from_slice(&[0xff, 0xd8]);
    segment(out, 0xe0, &[b"JFIF\0\x01\x01\0\0\x01\0\x01\0\0"]);
    segment(out, 0xdb, &[&[0], &[QUANTIZER; 64]]);
    let frame = [8, height_high, height_low, width_high, width_low, 3, 1, 0x21, 0, 2, 0x11, 0, 3, 0x11, 0];
    segment(out, 0xc0, &[&frame]);
    segment(out, 0xc4, &[&[0x00], &DC_LENGTHS, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]]);
    segment(out, 0xc4, &[&[0x10], &AC_LENGTHS, &[0]]);
    segment(out, 0xda, &[&[3, 1, 0, 2, 0, 3, 0, 0, 63, 0]]);
}

fn segment(out: &mut Vec<u8>, marker: u8, parts: &[&[u8]]) {
    let length = 2 + parts.iter().map(|part| part.len()).sum::<usize>() as u16;
    out.extend_from_slice(&[0xff, marker]);
    out.extend_from_slice(&length.to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

struct Bits<'a> {
    out: &'a mut Vec<u8>,
    held: u32,
    count: u32,
}

impl Bits<'_> {
    /// A DC difference: its category's code, then its low bits; a negative one is coded less one (T.81, F.1.2.1).
    fn difference(&mut self, value: i32) {
        let category = i32::BITS - value.unsigned_abs().leading_zeros();
        self.put(DC_CODES[category as usize]);
        let low = if value < 0 { value - 1 } else { value } as u32;
        self.put((low & ((1 << category) - 1), category));
    }

    fn put(&mut self, (code, length): (u32, u32)) {
        self.held = self.held << length | code;
        self.count += length;
        while self.count >= 8 {
            self.count -= 8;
            let byte = (self.held >> self.count) as u8;
            self.out.push(byte);
            if byte == 0xff {
                self.out.push(0); // or a decoder would see a marker
            }
        }
    }

    fn finish(&mut self) {
        if self.count > 0 {
            let missing = 8 - self.count;
            self.put(((1 << missing) - 1, missing));
        }
    }
}
