//! Motion JPEG in Matroska (RFC 9559), written so that whatever ends the writer leaves a file that plays.
//!
//! A writer of our own: what the crates have is WebM's codecs alone (webm), a tree of elements in memory by procedural
//! macros or unmaintained ones (webm-iterable, mkv-element), or part of a whole framework (oxideav-mkv). A recording
//! needs ten kinds of elements, and to decide itself what stands in the file when.
//!
//! The segment's size stays unknown until the end. Frames are collected into clusters whose sizes are known, and each
//! cluster is written at once: a reader finds whole clusters, and at most one torn one at the end. An orderly end
//! adds the index and fills in the places that were kept for size, duration and the index's place.

use std::io;

use super::disk::Disk;

/// The unit of time in the file, in nanoseconds. Blocks count it in 16 bits from their cluster's start.
const TICK_NS: i64 = 100_000;

/// A cluster is at most so long and, but for a single larger frame, so large: what is lost when the writer is killed,
/// and what is kept in memory.
const CLUSTER_NS: i64 = 1_000_000_000;
const CLUSTER_BYTES: usize = 16 << 20;

const TRACK: u64 = 1;

/// Bytes of an entry of the index, at most.
const CUE_BYTES: u64 = 32;

/// Room for the seek head: 3 entries of up to 21 bytes, and its own head.
const SEEK_ROOM: usize = 80;

mod id {
    pub const EBML: u32 = 0x1A45_DFA3;
    pub const EBML_VERSION: u32 = 0x4286;
    pub const EBML_READ_VERSION: u32 = 0x42F7;
    pub const EBML_MAX_ID_LENGTH: u32 = 0x42F2;
    pub const EBML_MAX_SIZE_LENGTH: u32 = 0x42F3;
    pub const DOC_TYPE: u32 = 0x4282;
    pub const DOC_TYPE_VERSION: u32 = 0x4287;
    pub const DOC_TYPE_READ_VERSION: u32 = 0x4285;
    pub const VOID: u32 = 0xEC;
    pub const SEGMENT: u32 = 0x1853_8067;
    pub const SEEK_HEAD: u32 = 0x114D_9B74;
    pub const SEEK: u32 = 0x4DBB;
    pub const SEEK_ID: u32 = 0x53AB;
    pub const SEEK_POSITION: u32 = 0x53AC;
    pub const INFO: u32 = 0x1549_A966;
    pub const TIMESTAMP_SCALE: u32 = 0x2A_D7B1;
    pub const DURATION: u32 = 0x4489;
    pub const DATE: u32 = 0x4461;
    pub const TITLE: u32 = 0x7BA9;
    pub const MUXING_APP: u32 = 0x4D80;
    pub const WRITING_APP: u32 = 0x5741;
    pub const TRACKS: u32 = 0x1654_AE6B;
    pub const TRACK_ENTRY: u32 = 0xAE;
    pub const TRACK_NUMBER: u32 = 0xD7;
    pub const TRACK_UID: u32 = 0x73C5;
    pub const TRACK_TYPE: u32 = 0x83;
    pub const FLAG_LACING: u32 = 0x9C;
    pub const CODEC: u32 = 0x86;
    pub const VIDEO: u32 = 0xE0;
    pub const PIXEL_WIDTH: u32 = 0xB0;
    pub const PIXEL_HEIGHT: u32 = 0xBA;
    pub const CLUSTER: u32 = 0x1F43_B675;
    pub const TIMESTAMP: u32 = 0xE7;
    pub const SIMPLE_BLOCK: u32 = 0xA3;
    pub const CUES: u32 = 0x1C53_BB6B;
    pub const CUE_POINT: u32 = 0xBB;
    pub const CUE_TIME: u32 = 0xB3;
    pub const CUE_TRACK_POSITIONS: u32 = 0xB7;
    pub const CUE_TRACK: u32 = 0xF7;
    pub const CUE_CLUSTER_POSITION: u32 = 0xF1;
}

pub struct Writer {
    disk: Disk,
    /// Of the first frame.
    begin_ns: i64,
    /// Of the newest frame, from the first one on.
    last: i64,
    /// Of the newest one that is in the file.
    written: i64,
    frames: u64,
    /// Where the file's places are that are filled in at the end.
    places: Places,
    /// Blocks that are not written yet, and when the first of them was taken.
    blocks: Vec<u8>,
    start: i64,
    /// When each cluster begins, and where it is in the segment.
    cues: Vec<(i64, u64)>,
}

/// Places in the file.
struct Places {
    segment_size: u64,
    /// The segment's content, which positions are counted from; the room for the seek head is its first.
    segment: u64,
    info: u64,
    duration: u64,
    tracks: u64,
}

impl Writer {
    /// `begun_ns` is the wall clock's time of the first frame, in nanoseconds from 1970 on.
    pub fn new(mut disk: Disk, title: &str, width: u32, height: u32, begun_ns: i64) -> io::Result<Writer> {
        let (head, places) = head(title, width, height, begun_ns);
        disk.append(&[&head])?;
        let (blocks, cues) = (Vec::new(), Vec::new());
        Ok(Writer { disk, begin_ns: 0, last: 0, written: 0, frames: 0, places, blocks, start: 0, cues })
    }

    pub fn put(&mut self, jpeg: &[u8], timestamp_ns: i64) -> io::Result<()> {
        if self.frames == 0 {
            self.begin_ns = timestamp_ns;
        }
        // A camera that was lost and came again may have another clock: its frames are not earlier for that.
        let at = ((timestamp_ns - self.begin_ns) / TICK_NS).max(self.last);
        if (at - self.start) * TICK_NS >= CLUSTER_NS || self.blocks.len() + jpeg.len() > CLUSTER_BYTES {
            self.flush()?;
        }
        if self.blocks.is_empty() {
            self.start = at;
        }
        let since = i16::try_from(at - self.start).unwrap_or(i16::MAX);
        let [high, low] = since.to_be_bytes();
        // The track's number, the time, and that it is a key frame.
        let begin = [0x80 | TRACK as u8, high, low, 0x80];
        open(&mut self.blocks, id::SIMPLE_BLOCK, begin.len() + jpeg.len());
        self.blocks.extend(begin);
        self.blocks.extend(jpeg);
        self.last = at;
        self.frames += 1;
        Ok(())
    }

    /// What was put in until now is in the file, as a cluster.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.blocks.is_empty() {
            return Ok(());
        }
        let mut head = Vec::with_capacity(24);
        let timestamp = element(id::TIMESTAMP, &unsigned(self.start as u64));
        open(&mut head, id::CLUSTER, timestamp.len() + self.blocks.len());
        head.extend(timestamp);
        let position = self.disk.bytes() - self.places.segment;
        self.disk.append(&[&head, &self.blocks])?;
        self.cues.push((self.start, position));
        self.blocks.clear();
        self.written = self.last;
        Ok(())
    }

    /// Also of what is not written yet, and the index.
    pub fn bytes(&self) -> u64 {
        self.disk.bytes() + self.blocks.len() as u64 + CUE_BYTES * (self.cues.len() as u64 + 1)
    }

    /// Also after a write that failed: what is in the file then gets its index.
    pub fn finish(mut self) -> io::Result<u64> {
        let flushed = self.flush();
        self.blocks.clear();
        let cues = self.disk.bytes();
        self.disk.append(&[&self.index()])?;
        // In this order: wherever it ends, what stands in the file is true.
        let Places { segment_size, segment, info, duration, tracks } = self.places;
        let ticks = self.written as f64;
        self.disk.overwrite(duration, &element(id::DURATION, &ticks.to_be_bytes()))?;
        let seek =
            seek_head(&[(id::INFO, info), (id::TRACKS, tracks), (id::CUES, cues)].map(|(id, at)| (id, at - segment)));
        self.disk.overwrite(segment, &seek)?;
        self.disk.overwrite(segment_size, &long_size(self.disk.bytes() - segment))?;
        flushed.map(|()| self.disk.bytes())
    }

    fn index(&self) -> Vec<u8> {
        let points = self.cues.iter().flat_map(|(at, position)| {
            let positions =
                [element(id::CUE_TRACK, &unsigned(TRACK)), element(id::CUE_CLUSTER_POSITION, &unsigned(*position))];
            let time = element(id::CUE_TIME, &unsigned(*at as u64));
            element(id::CUE_POINT, &[time, element(id::CUE_TRACK_POSITIONS, &positions.concat())].concat())
        });
        element(id::CUES, &points.collect::<Vec<u8>>())
    }
}

/// All that stands before the first cluster.
fn head(title: &str, width: u32, height: u32, begun_ns: i64) -> (Vec<u8>, Places) {
    /// 2001-01-01, which Matroska counts from.
    const EPOCH_NS: i64 = 978_307_200_000_000_000;
    let number = |id, value: u32| element(id, &unsigned(value.into()));
    let app = format!("camlease {}", env!("CARGO_PKG_VERSION"));
    let mut head = element(
        id::EBML,
        &[
            number(id::EBML_VERSION, 1),
            number(id::EBML_READ_VERSION, 1),
            number(id::EBML_MAX_ID_LENGTH, 4),
            number(id::EBML_MAX_SIZE_LENGTH, 8),
            element(id::DOC_TYPE, b"matroska"),
            number(id::DOC_TYPE_VERSION, 4),
            number(id::DOC_TYPE_READ_VERSION, 2),
        ]
        .concat(),
    );
    head.extend(id_bytes(id::SEGMENT));
    let segment_size = head.len() as u64;
    head.extend([0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]);
    let segment = head.len() as u64;
    head.extend(void(SEEK_ROOM));

    let info = head.len() as u64;
    let duration_room = void(element(id::DURATION, &[0; 8]).len());
    let content = [
        number(id::TIMESTAMP_SCALE, TICK_NS as u32),
        element(id::DATE, &(begun_ns - EPOCH_NS).to_be_bytes()),
        element(id::TITLE, title.as_bytes()),
        element(id::MUXING_APP, app.as_bytes()),
        element(id::WRITING_APP, app.as_bytes()),
    ]
    .concat();
    open(&mut head, id::INFO, content.len() + duration_room.len());
    head.extend(content);
    let duration = head.len() as u64;
    head.extend(duration_room);

    let tracks = head.len() as u64;
    let video = [number(id::PIXEL_WIDTH, width), number(id::PIXEL_HEIGHT, height)].concat();
    let track = [
        number(id::TRACK_NUMBER, TRACK as u32),
        number(id::TRACK_UID, TRACK as u32),
        number(id::TRACK_TYPE, 1),
        number(id::FLAG_LACING, 0),
        element(id::CODEC, b"V_MJPEG"),
        element(id::VIDEO, &video),
    ];
    head.extend(element(id::TRACKS, &element(id::TRACK_ENTRY, &track.concat())));
    (head, Places { segment_size, segment, info, duration, tracks })
}

/// As long as its room.
fn seek_head(entries: &[(u32, u64)]) -> Vec<u8> {
    let entries = entries.iter().flat_map(|(id, at)| {
        let content = [element(id::SEEK_ID, &id_bytes(*id)), element(id::SEEK_POSITION, &unsigned(*at))];
        element(id::SEEK, &content.concat())
    });
    let mut head = element(id::SEEK_HEAD, &entries.collect::<Vec<u8>>());
    let left = SEEK_ROOM - head.len();
    head.extend(void(left));
    head
}

/// An element that means nothing, so many bytes long with its head: 2 at least.
fn void(bytes: usize) -> Vec<u8> {
    let mut void = id_bytes(id::VOID);
    void.extend(size(bytes - 2));
    void.resize(bytes, 0);
    void
}

fn element(id: u32, content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(12 + content.len());
    open(&mut bytes, id, content.len());
    bytes.extend(content);
    bytes
}

/// An element's head.
fn open(bytes: &mut Vec<u8>, id: u32, length: usize) {
    bytes.extend(id_bytes(id));
    bytes.extend(size(length));
}

/// An identifier tells its length by its own first bits.
fn id_bytes(id: u32) -> Vec<u8> {
    unsigned(id.into())
}

/// As few bytes as it takes.
fn unsigned(value: u64) -> Vec<u8> {
    let zeros = (value.leading_zeros() as usize / 8).min(7);
    value.to_be_bytes()[zeros..].to_vec()
}

/// A size in 1, 4 or 8 bytes: the first bit that is set tells how many.
fn size(length: usize) -> Vec<u8> {
    match length {
        0..0x7F => vec![0x80 | length as u8],
        0x7F..0x0FFF_FFFF => (0x1000_0000 | length as u32).to_be_bytes().to_vec(),
        _ => long_size(length as u64).to_vec(),
    }
}

fn long_size(length: u64) -> [u8; 8] {
    (0x0100_0000_0000_0000 | length).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes_are_as_the_specification_has_them() {
        assert_eq!((unsigned(0), unsigned(1), unsigned(256)), (vec![0], vec![1], vec![1, 0]));
        assert_eq!(unsigned(u64::MAX), [0xFF; 8]);
        assert_eq!((size(0), size(126)), (vec![0x80], vec![0xFE]));
        // All ones would be an unknown size.
        assert_eq!(size(127), [0x10, 0, 0, 127]);
        assert_eq!(size(0x0FFF_FFFF), [1, 0, 0, 0, 0x0F, 0xFF, 0xFF, 0xFF]);
        assert_eq!(void(2), [0xEC, 0x80]);
        assert_eq!(id_bytes(id::SEGMENT), [0x18, 0x53, 0x80, 0x67]);
    }

    #[test]
    fn what_is_filled_in_fits_its_place() {
        let far = 1 << 62;
        assert_eq!(seek_head(&[(id::INFO, far), (id::TRACKS, far), (id::CUES, far)]).len(), SEEK_ROOM);
        assert_eq!(seek_head(&[(id::INFO, 80), (id::TRACKS, 200), (id::CUES, 1000)]).len(), SEEK_ROOM);
        let (head, places) = head("a camera", 640, 480, 0);
        let at = |place: u64| &head[place as usize..];
        assert!(at(places.segment_size).starts_with(&[1, 0xFF]) && at(places.segment).starts_with(&[0xEC]));
        assert!(at(places.duration).starts_with(&[0xEC, 0x89]), "as long as a duration");
        assert!(
            at(places.info).starts_with(&id_bytes(id::INFO)) && at(places.tracks).starts_with(&id_bytes(id::TRACKS))
        );
    }
}
