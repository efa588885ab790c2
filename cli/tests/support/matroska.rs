//! Matroska as a reader sees it that shares no code with the writer: what stands whole in a file, be it torn at its end.

/// A film's whole frames.
#[derive(Debug, Default)]
pub struct Film {
    /// When each frame is shown, in seconds.
    pub times: Vec<f64>,
    /// Seconds since 1970 at the first frame.
    pub begun: f64,
    /// Seconds, where the file was ended in order.
    pub duration: Option<f64>,
    pub clusters: Vec<usize>,
    /// Where the index says that clusters are.
    pub index: Vec<usize>,
    /// Bytes at the end that belong to no whole element.
    pub torn: usize,
}

/// 2001-01-01 in seconds since 1970.
const EPOCH: f64 = 978_307_200.0;

/// Reads a film whose frames are JPEGs. Panics where a whole element is not as it has to be.
pub fn read(bytes: &[u8]) -> Film {
    let mut film = Film::default();
    let (id, header, at) = element(bytes, 0).expect("an EBML header");
    assert_eq!(
        (id, children(header).find(|(id, _)| *id == 0x4282).map(|(_, text)| text)),
        (0x1A45_DFA3, Some(&b"matroska"[..]))
    );
    let (id, size, segment) = head(bytes, at).expect("a segment");
    assert_eq!(id, 0x1853_8067);
    assert!(size.is_none_or(|size| segment + size == bytes.len()), "the segment ends where the file does");
    let mut scale = 1e-3;
    let mut at = segment;
    while let Some((id, content, next)) = element(bytes, at) {
        match id {
            0x1549_A966 => {
                for (id, value) in children(content) {
                    match id {
                        0x2A_D7B1 => scale = number(value) as f64 / 1e9,
                        0x4461 => film.begun = EPOCH + number(value) as f64 / 1e9,
                        0x4489 => film.duration = Some(f64::from_be_bytes(value.try_into().unwrap())),
                        _ => {}
                    }
                }
                film.duration = film.duration.map(|ticks| ticks * scale);
            }
            0x1F43_B675 => {
                film.clusters.push(at - segment);
                cluster(content, scale, &mut film.times);
            }
            0x1C53_BB6B => {
                let points = children(content).flat_map(|(_, point)| children(point));
                let places = points.filter(|(id, _)| *id == 0xB7).flat_map(|(_, places)| children(places));
                film.index = places.filter(|(id, _)| *id == 0xF1).map(|(_, at)| number(at) as usize).collect();
            }
            _ => {}
        }
        at = next;
    }
    film.torn = bytes.len() - at;
    film
}

fn cluster(content: &[u8], scale: f64, times: &mut Vec<f64>) {
    let mut start = 0;
    for (id, content) in children(content) {
        match id {
            0xE7 => start = number(content) as i64,
            0xA3 => {
                let since = i16::from_be_bytes([content[1], content[2]]);
                let jpeg = &content[4..];
                assert!(jpeg.starts_with(&[0xFF, 0xD8]) && jpeg.ends_with(&[0xFF, 0xD9]), "a whole JPEG");
                times.push((start + i64::from(since)) as f64 * scale);
            }
            _ => {}
        }
    }
}

fn children(content: &[u8]) -> impl Iterator<Item = (u32, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (id, child, next) = element(content, at)?;
        at = next;
        Some((id, child))
    })
}

/// An element that is there whole: its identifier, its content, where the next one begins.
fn element(bytes: &[u8], at: usize) -> Option<(u32, &[u8], usize)> {
    let (id, size, begin) = head(bytes, at)?;
    let end = begin.checked_add(size?)?;
    Some((id, bytes.get(begin..end)?, end))
}

/// Identifier, size where it is known, and where the content begins.
fn head(bytes: &[u8], at: usize) -> Option<(u32, Option<usize>, usize)> {
    let length = bytes.get(at)?.leading_zeros() as usize + 1;
    let id = number(bytes.get(at..at + length)?) as u32;
    let at = at + length;
    let length = bytes.get(at)?.leading_zeros() as usize + 1;
    let value = number(bytes.get(at..at + length)?);
    let mask = (1u64 << (7 * length)) - 1;
    let size = (value & mask != mask).then_some((value & mask) as usize);
    Some((id, size, at + length))
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
