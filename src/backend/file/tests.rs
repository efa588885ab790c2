//! Recordings as a host sees them, made here in a folder of their own.

use std::io::Cursor;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::backend::Filled;
use crate::format::YUYV;
use crate::uri::Uri;

/// 32x16 pixels of one colour each, and one of noise: its data has escaped 0xFF bytes. Made by ffmpeg:
/// `-f lavfi -i color=red:s=32x16 -frames:v 1 -bitexact`, `testsrc2` with `noise=alls=60:all_seed=2`.
const RED: &[u8] = include_bytes!("../../../tests/data/red.jpg");
const GREEN: &[u8] = include_bytes!("../../../tests/data/green.jpg");
const BLUE: &[u8] = include_bytes!("../../../tests/data/blue.jpg");
const NOISE: &[u8] = include_bytes!("../../../tests/data/noise.jpg");
/// With the tables that a UVC camera leaves out (`-huffman default`).
const STANDARD_TABLES: &[u8] = include_bytes!("../../../tests/data/red-standard-tables.jpg");
/// 16x16 pixels.
const SQUARE: &[u8] = include_bytes!("../../../tests/data/square.jpg");

/// A folder that is gone at the end of the test.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("camlease-file-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        Place(folder.canonicalize().unwrap())
    }

    fn with(files: &[(&str, &[u8])]) -> Place {
        let place = Place::new();
        files.iter().for_each(|(name, bytes)| drop(place.write(name, bytes)));
        place
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn recording(path: &Path, query: &str) -> Result<Recording> {
    let Uri::File(options) = Uri::parse(&format!("file:{}?{query}", path.display()))? else { panic!() };
    Recording::new(&options)
}

fn open(path: &Path, query: &str) -> Result<Box<dyn Device>> {
    recording(path, query)?.acquire()
}

fn refusal(path: &Path) -> Error {
    open(path, "").err().unwrap_or_else(|| panic!("{} was opened", path.display()))
}

/// One run of a recording whose frames are taken by number.
struct Run(Showing);

impl Run {
    fn of(path: &Path, fourcc: FourCc, repeat: bool) -> Run {
        Run(find(path).unwrap().show(fourcc, repeat).unwrap())
    }

    /// The frame's bytes, and whether it is marked corrupt.
    fn frame(&mut self, sequence: u64) -> Result<(Vec<u8>, bool)> {
        let mut into = vec![7; self.0.largest];
        let painted = self.0.picture.paint(sequence, 0, &mut into)?;
        into.truncate(painted.used);
        Ok((into, painted.corrupt))
    }

    fn whole(&mut self, sequence: u64) -> Vec<u8> {
        let (bytes, corrupt) = self.frame(sequence).unwrap();
        assert!(!corrupt, "frame {sequence}");
        bytes
    }

    fn error(&mut self, sequence: u64) -> Error {
        self.frame(sequence).err().unwrap_or_else(|| panic!("there is a frame {sequence}"))
    }
}

/// What most of a picture's pixels are: `r`, `g`, `b`, or `-` for none of these.
fn colour(rgb: &[u8]) -> char {
    match rgb[rgb.len() / 6 * 3..][..3] {
        [200..=255, 0..=60, 0..=60] => 'r',
        [0..=60, 100..=255, 0..=60] => 'g',
        [0..=60, 0..=60, 200..=255] => 'b',
        _ => '-',
    }
}

mod of_y4m {
    use super::*;

    fn y4m(header: &str, frames: &[(&str, &[u8])]) -> Vec<u8> {
        let mut file = format!("YUV4MPEG2 {header}\n").into_bytes();
        for (parameters, planes) in frames {
            file.extend(format!("FRAME{parameters}\n").bytes());
            file.extend(*planes);
        }
        file
    }

    /// Five frames of 4x2 pixels: every byte of frame n is n. Lines of frames differ in length.
    fn five() -> Vec<u8> {
        let planes: Vec<_> = (0..5).map(|n| [n; 12]).collect();
        let frames: Vec<(&str, &[u8])> =
            planes.iter().zip(["", " Ip", "", " XCOMMENT", ""]).map(|(planes, more)| (more, &planes[..])).collect();
        y4m("W4 H2 F25:1 Ip A1:1 C420jpeg XYSCSS=420JPEG", &frames)
    }

    #[test]
    fn colour_spaces_become_formats() {
        let place = Place::new();
        for (colour, fourcc, length, stride) in [
            (" C420", YUV420, 9 + 8, 3),
            (" C420mpeg2", YUV420, 9 + 8, 3),
            (" C420paldv", YUV420, 9 + 8, 3),
            ("", YUV420, 9 + 8, 3),
            (" C422", YUV422P, 9 + 12, 3),
            (" Cmono", GREY, 9, 3),
        ] {
            let planes: Vec<u8> = (0..length).collect();
            let path = place.write("x", &y4m(&format!("W3 H3 F30000:1001{colour}"), &[("", &planes)]));
            let device = open(&path, "").unwrap();
            let formats = device.formats().unwrap();
            assert_eq!(formats.len(), 1);
            assert_eq!((formats[0].fourcc, formats[0].compressed), (fourcc, false), "{colour}");
            assert_eq!(formats[0].fastest, Rate::new(30000, 1001));
            let stream = device.start(&StreamRequest::default()).unwrap();
            assert_eq!(stream.format().planes, [(stride, length as usize)]);
            assert_eq!(Run::of(&path, fourcc, false).whole(0), planes);
        }
    }

    #[test]
    fn frames_are_found_by_number_and_the_end_is_told() {
        let place = Place::new();
        let path = place.write("x.y4m", &five());
        let mut run = Run::of(&path, YUV420, false);
        for sequence in [0, 3, 4, 1] {
            assert_eq!(run.whole(sequence), [sequence as u8; 12]);
        }
        for _ in 0..2 {
            let error = run.error(5);
            assert_eq!(error.kind(), Kind::Disconnected);
            assert_eq!(error.message(), format!("the recording {} has ended", path.display()));
        }
        assert_eq!(run.whole(2), [2; 12]);
        assert_eq!(Run::of(&path, YUV420, false).error(1_000_000).kind(), Kind::Disconnected);
    }

    #[test]
    fn a_loop_goes_on_for_ever() {
        let place = Place::new();
        let path = place.write("x.y4m", &five());
        let mut run = Run::of(&path, YUV420, true);
        for sequence in [1_000_000_004, 0, 5, 7, 14] {
            assert_eq!(run.whole(sequence), [(sequence % 5) as u8; 12]);
        }
    }

    #[test]
    fn a_frame_that_the_end_cuts_is_left_out() {
        let place = Place::new();
        let file = five();
        for missing in [1, 11, 12, 13, 17] {
            let path = place.write("x.y4m", &file[..file.len() - missing]);
            let mut run = Run::of(&path, YUV420, true);
            assert_eq!(run.whole(3), [3; 12]);
            assert_eq!(run.whole(4), [0; 12], "{missing} bytes short");
        }
    }

    #[test]
    fn a_file_that_becomes_shorter_is_an_error_that_names_it() {
        let place = Place::new();
        let path = place.write("x.y4m", &five());
        let mut run = Run::of(&path, YUV420, true);
        run.whole(4);
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(80).unwrap();
        assert_eq!(run.whole(0), [0; 12]);
        let error = run.error(4);
        assert_eq!(error.kind(), Kind::Io);
        assert!(error.message().contains("x.y4m: the file has become shorter"), "{error}");
    }

    #[test]
    fn a_deleted_file_plays_on() {
        let place = Place::new();
        let path = place.write("x.y4m", &five());
        let device = open(&path, "fps=0").unwrap();
        fs::remove_file(&path).unwrap();
        let mut stream = device.start(&StreamRequest::default()).unwrap();
        assert!(stream.dequeue(true).unwrap().is_some());
    }

    #[test]
    fn what_cannot_be_played_is_told() {
        let place = Place::new();
        for (file, kind, part) in [
            (y4m("W4 H2 F25:1 C444", &[("", &[0; 24])]), Kind::Unsupported, "colour space 444"),
            (y4m("W4 H2 F25:1 C420p10", &[("", &[0; 24])]), Kind::Unsupported, "colour space 420p10"),
            (y4m("W4 F25:1", &[("", &[0; 24])]), Kind::Io, "its height is \"\""),
            (y4m("Wx H2", &[("", &[0; 24])]), Kind::Io, "its width is \"x\""),
            (y4m("W4 H99999", &[("", &[0; 24])]), Kind::Unsupported, "4x99999"),
            (y4m("W0 H2", &[("", &[0; 24])]), Kind::Unsupported, "0x2"),
            (y4m("W4 H2", &[]), Kind::Io, "no whole frame"),
            (y4m("W4 H2", &[("", &[0; 11])]), Kind::Io, "no whole frame"),
            (b"YUV4MPEG2 W4 H2".to_vec(), Kind::Io, "first line has no end"),
            (y4m("W4 H2", &[("X", &[0; 12])]), Kind::Io, "no frame begins at byte 16"),
        ] {
            let path = place.write("x.y4m", &file);
            let error = refusal(&path);
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.message().contains(part) && error.message().contains("x.y4m"), "{error}");
        }
    }

    #[test]
    fn damage_in_the_middle_ends_the_stream_with_an_error() {
        let place = Place::new();
        let mut file = y4m("W4 H2", &[("", &[0; 12]), ("", &[1; 12]), ("", &[2; 12])]);
        file.insert(40, 0);
        let mut run = Run::of(&place.write("x.y4m", &file), YUV420, false);
        run.whole(1);
        assert!(run.error(2).message().contains("no frame begins at byte 52"), "{}", run.error(2));
    }

    #[test]
    fn a_rate_that_is_not_told_is_the_default() {
        let place = Place::new();
        for (rate, expected) in [
            ("", Rate::new(policy::FILE_FPS_DEFAULT, 1)),
            (" F0:0", Rate::new(policy::FILE_FPS_DEFAULT, 1)),
            (" Fx", Rate::new(policy::FILE_FPS_DEFAULT, 1)),
            (" F50:1", Rate::new(50, 1)),
            (" F1000000:1", Rate::new(1000, 1)),
        ] {
            let path = place.write("x.y4m", &y4m(&format!("W4 H2{rate}"), &[("", &[0; 12])]));
            assert_eq!(open(&path, "").unwrap().formats().unwrap()[0].fastest, expected, "{rate}");
        }
    }
}

mod of_mjpeg {
    use super::*;

    /// Puts an application segment behind the start: EXIF with `thumbnail` in it, say.
    fn with_segment(jpeg: &[u8], body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u16 + 2).to_be_bytes();
        [&jpeg[..2], &[0xFF, 0xE1], &length, body, &jpeg[2..]].concat()
    }

    fn without_tables(jpeg: &[u8]) -> Vec<u8> {
        let at = jpeg.windows(2).position(|two| two == [0xFF, 0xC4]).unwrap();
        let length = u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]) as usize + 2;
        [&jpeg[..at], &jpeg[at + length..]].concat()
    }

    #[test]
    fn frames_are_told_apart_by_their_markers() {
        let place = Place::new();
        let thumbnail = with_segment(RED, &[b"Exif\0\0", SQUARE, SQUARE].concat());
        let filled = [&GREEN[..2], &[0xFF; 5], &GREEN[2..]].concat();
        // Entropy-coded data with every restart marker, an escaped 0xFF and a fill byte.
        let mut restarts = BLUE[..BLUE.len() - 2].to_vec();
        (0xD0..=0xD7).for_each(|marker| restarts.extend([0x12, 0xFF, marker]));
        restarts.extend([0xFF, 0x00, 0xFF, 0xFF, 0xD9]);
        let frames = [NOISE, &thumbnail, &filled, &restarts, RED, STANDARD_TABLES];
        let path = place.write("x.mjpeg", &frames.concat());
        let mut run = Run::of(&path, MJPEG, false);
        for (sequence, frame) in frames.iter().enumerate() {
            assert_eq!(run.whole(sequence as u64), *frame, "frame {sequence}");
        }
        assert_eq!(run.error(6).kind(), Kind::Disconnected);
    }

    #[test]
    fn a_frame_may_lie_across_any_window() {
        let place = Place::new();
        let frames: Vec<Vec<u8>> =
            (0..40u8).map(|n| with_segment(NOISE, &vec![n; 9000 + 37 * usize::from(n)])).collect();
        let path = place.write("x.mjpeg", &frames.concat());
        let mut run = Run::of(&path, MJPEG, true);
        for sequence in (0..40).rev() {
            assert_eq!(run.whole(sequence), frames[sequence as usize], "frame {sequence}");
        }
        assert_eq!(run.whole(4039), frames[39]);
    }

    #[test]
    fn what_stands_between_frames_is_passed_over() {
        let place = Place::new();
        let part = b"--boundary\r\nContent-Type: image/jpeg\r\n\r\n".as_slice();
        let path = place.write("x.mjpg", &[part, RED, b"\r\n", part, GREEN, &[0; 100], BLUE, b"\r\n"].concat());
        let mut run = Run::of(&path, MJPEG, false);
        assert_eq!([run.whole(0), run.whole(1), run.whole(2)], [RED, GREEN, BLUE]);
        assert_eq!(run.error(3).kind(), Kind::Disconnected);
    }

    #[test]
    fn the_content_tells_what_it_is() {
        let place = Place::new();
        let path = place.write("x.raw", &[RED, GREEN].concat());
        assert_eq!(Run::of(&path, MJPEG, false).whole(1), GREEN);
    }

    #[test]
    fn pixels_are_decoded_when_they_are_asked_for() {
        let place = Place::new();
        let path = place.write("x.mjpeg", &[RED, GREEN, BLUE, STANDARD_TABLES].concat());
        let mut run = Run::of(&path, RGB24, true);
        assert_eq!((run.0.stride, run.0.largest), (96, 32 * 16 * 3));
        let seen: String = [0, 1, 2, 3, 6].map(|sequence| colour(&run.whole(sequence))).iter().collect();
        assert_eq!(seen, "rgbrb");
    }

    #[test]
    fn standard_tables_are_used_where_a_camera_leaves_them_out() {
        let place = Place::new();
        let bare = without_tables(STANDARD_TABLES);
        assert!(bare.len() + 400 < STANDARD_TABLES.len());
        let path = place.write("x.mjpeg", &[RED, &bare].concat());
        let mut run = Run::of(&path, RGB24, false);
        run.whole(0);
        assert_eq!(colour(&run.whole(1)), 'r');
        assert_eq!(Run::of(&path, MJPEG, false).whole(1), bare);
    }

    #[test]
    fn a_frame_that_the_end_cuts_is_left_out() {
        let place = Place::new();
        for missing in [1, 2, 3, 100, RED.len() - 3] {
            let path = place.write("x.mjpeg", &[RED, GREEN, &BLUE[..BLUE.len() - missing]].concat());
            let mut run = Run::of(&path, MJPEG, false);
            assert_eq!(run.whole(1), GREEN);
            assert_eq!(run.error(2).kind(), Kind::Disconnected, "{missing} bytes short");
        }
        let error = refusal(&place.write("x.mjpeg", &BLUE[..BLUE.len() - 1]));
        assert!(error.message().contains("no whole frame"), "{error}");
    }

    #[test]
    fn broken_frames_are_marked_and_the_stream_goes_on() {
        let place = Place::new();
        let endless = &NOISE[..500];
        let mut headless = GREEN.to_vec();
        headless[2..30].fill(0x11);
        let mut bad_length = BLUE.to_vec();
        bad_length[4..6].fill(0);
        let file = [RED, endless, GREEN, &headless, RED, &bad_length, BLUE, SQUARE, RED].concat();
        let path = place.write("x.mjpeg", &file);
        let (mut bytes, mut pixels) = (Run::of(&path, MJPEG, false), Run::of(&path, RGB24, false));
        // The headless one does not begin as a JPEG does, and so is padding.
        let expected = [RED, endless, GREEN, RED, &bad_length, BLUE, SQUARE, RED];
        for (sequence, frame) in expected.iter().enumerate() {
            let corrupt = [1, 4, 6].contains(&sequence);
            assert_eq!(bytes.frame(sequence as u64).unwrap(), (frame.to_vec(), corrupt), "frame {sequence}");
            let (rgb, marked) = pixels.frame(sequence as u64).unwrap();
            assert_eq!((rgb.len(), marked), (32 * 16 * 3, corrupt), "frame {sequence}");
        }
        assert_eq!(bytes.error(8).kind(), Kind::Disconnected);
    }

    #[test]
    fn no_damage_to_a_byte_stops_the_stream() {
        let place = Place::new();
        // Where the file ends first, a length that is damaged cannot be told from a frame that is cut.
        let behind = [0; 64 << 10];
        for at in 0..NOISE.len() {
            for byte in [0x00, 0xFF, NOISE[at] ^ 0x10] {
                let mut damaged = NOISE.to_vec();
                damaged[at] = byte;
                let path = place.write("x.mjpeg", &[RED, &damaged, GREEN, BLUE, &behind].concat());
                let mut run = Run::of(&path, RGB24, true);
                let seen: String = (0..4).map(|sequence| colour(&run.frame(sequence).unwrap().0)).collect();
                assert!(seen.contains("gb"), "byte {at} = {byte}: {seen}");
            }
        }
    }

    #[test]
    fn a_panic_of_the_decoder_is_one_more_damaged_frame() {
        let place = Place::new();
        // Of random damage to progressive JPEGs: an assertion of zune-jpeg 0.5.15 fails in the second of three.
        let path = place.write("x.mjpeg", include_bytes!("../../../tests/data/decoder-panic.mjpeg"));
        let mut run = Run::of(&path, RGB24, false);
        run.whole(0);
        run.frame(1).unwrap();
        run.whole(2);
    }

    #[test]
    fn a_file_too_long_to_look_through_has_a_bound_on_its_frames() {
        let place = Place::new();
        let large = with_segment(GREEN, &[0; 8000]);
        let path = place.write("x.mjpeg", &[RED, &large].concat());
        assert_eq!(Run::of(&path, MJPEG, false).0.largest, large.len());
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(policy::INDEX_AT_ONCE + 1).unwrap();
        let mut run = Run::of(&path, MJPEG, false);
        assert_eq!(run.0.largest, 32 * 16 * 2);
        assert_eq!(run.whole(0), RED);
        assert_eq!(run.frame(1).unwrap(), (large[..1024].to_vec(), true));
        let path = place.write("x.mjpeg", &[&large, RED].concat());
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(policy::INDEX_AT_ONCE + 1).unwrap();
        assert_eq!(Run::of(&path, MJPEG, false).0.largest, large.len() * 4);
    }
}

mod of_stills {
    use super::*;
    use ::png::{BitDepth, ColorType};

    fn png(width: u32, height: u32, color: ColorType, depth: BitDepth, samples: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut encoder = ::png::Encoder::new(Cursor::new(&mut file), width, height);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette(vec![0, 0, 255, 255, 0, 0]);
        }
        encoder.write_header().unwrap().write_image_data(samples).unwrap();
        file
    }

    fn blue_png() -> Vec<u8> {
        png(32, 16, ColorType::Rgb, BitDepth::Eight, &[0, 0, 255].repeat(32 * 16))
    }

    #[test]
    fn pictures_of_a_folder_come_in_natural_order() {
        let place = Place::with(&[("img10.jpg", BLUE), ("img2.JPG", GREEN), ("img1.jpeg", RED)]);
        let mut run = Run::of(&place.0, MJPEG, false);
        assert_eq!([run.whole(0), run.whole(1), run.whole(2)], [RED, GREEN, BLUE]);
        let error = run.error(3);
        assert_eq!(error.kind(), Kind::Disconnected);
        assert_eq!(error.message(), format!("the recording {} has ended", place.0.display()));
        let mut run = Run::of(&place.0, RGB24, true);
        let seen: String = [5, 0, 4].map(|sequence| colour(&run.whole(sequence))).iter().collect();
        assert_eq!(seen, "brg");
    }

    #[test]
    fn what_is_no_picture_is_left_out() {
        let place = Place::with(&[("a", RED), (".b.jpg", GREEN), ("notes.txt", b"x"), ("empty", b""), ("z.bin", BLUE)]);
        fs::create_dir(place.0.join("folder.jpg")).unwrap();
        let mut run = Run::of(&place.0, MJPEG, false);
        assert_eq!([run.whole(0), run.whole(1)], [RED, BLUE]);
        assert_eq!(run.error(2).kind(), Kind::Disconnected);
        let empty = Place::with(&[("notes.txt", b"x"), (".hidden.jpg", RED)]);
        let error = refusal(&empty.0);
        assert_eq!(error.kind(), Kind::NotFound);
        assert!(error.message().contains("holds no JPEG or PNG picture"), "{error}");
    }

    #[test]
    fn a_picture_in_name_only_is_an_error_that_names_it() {
        let place = Place::with(&[("1.jpg", RED), ("2.jpg", b"GIF89a")]);
        let error = refusal(&place.0);
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.message().contains("2.jpg"), "{error}");
        assert!(refusal(&place.0.join("2.jpg")).message().contains("2.jpg"));
    }

    #[test]
    fn a_picture_of_another_size_is_an_error_that_names_it() {
        let small = png(8, 8, ColorType::Grayscale, BitDepth::Eight, &[0; 64]);
        for (name, bytes) in [("3.jpg", SQUARE), ("3.png", &small)] {
            let place = Place::with(&[("1.jpg", RED), ("2.jpg", GREEN), (name, bytes)]);
            let error = refusal(&place.0);
            assert_eq!(error.kind(), Kind::Unsupported);
            assert!(error.message().contains(name) && error.message().contains("32x16"), "{error}");
        }
    }

    #[test]
    fn a_picture_that_is_replaced_by_one_of_another_size_is_found_out() {
        let place = Place::with(&[("1.jpg", RED), ("2.jpg", GREEN), ("3.png", &blue_png())]);
        let jpegs = Place::with(&[("1.jpg", RED), ("2.jpg", GREEN)]);
        let (mut pixels, mut bytes) = (Run::of(&place.0, RGB24, false), Run::of(&jpegs.0, MJPEG, false));
        place.write("2.jpg", SQUARE);
        place.write("3.png", &png(8, 8, ColorType::Grayscale, BitDepth::Eight, &[0; 64]));
        jpegs.write("2.jpg", SQUARE);
        for error in [pixels.error(1), pixels.error(2), bytes.error(1)] {
            assert_eq!(error.kind(), Kind::Unsupported);
            assert!(error.message().contains("but the first one is 32x16"), "{error}");
        }
    }

    #[test]
    fn a_picture_that_vanishes_is_an_error_that_names_it() {
        let place = Place::with(&[("1.jpg", RED), ("2.jpg", GREEN), ("3.png", &blue_png())]);
        let mut run = Run::of(&place.0, RGB24, false);
        fs::remove_file(place.0.join("2.jpg")).unwrap();
        fs::remove_file(place.0.join("3.png")).unwrap();
        assert_eq!(colour(&run.whole(0)), 'r');
        for (sequence, name) in [(1, "2.jpg"), (2, "3.png")] {
            let error = run.error(sequence);
            assert_eq!((error.kind(), error.errno()), (Kind::NotFound, libc::ENOENT));
            assert!(error.message().contains(name), "{error}");
        }
    }

    #[test]
    fn folders_with_png_offer_pixels_only() {
        let place = Place::with(&[("1.jpg", RED), ("2.png", &blue_png())]);
        let device = open(&place.0, "").unwrap();
        let offered: Vec<_> = device.formats().unwrap().iter().map(|format| format.fourcc).collect();
        assert_eq!(offered, [RGB24]);
        let error = device.start(&StreamRequest { fourcc: MJPEG, ..Default::default() }).err().unwrap();
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.message().contains("MJPG is not on offer, only RGB3"), "{error}");
        let mut run = Run::of(&place.0, RGB24, false);
        assert_eq!([colour(&run.whole(0)), colour(&run.whole(1))], ['r', 'b']);
    }

    #[test]
    fn every_kind_of_png_becomes_8_bit_rgb() {
        let place = Place::new();
        for (color, depth, samples, expected) in [
            (ColorType::Rgb, BitDepth::Eight, &[1, 2, 3, 4, 5, 6][..], [1, 2, 3, 4, 5, 6]),
            (ColorType::Rgb, BitDepth::Sixteen, &[1, 0xFF, 2, 0, 3, 9, 4, 4, 5, 5, 6, 6], [1, 2, 3, 4, 5, 6]),
            (ColorType::Rgba, BitDepth::Eight, &[1, 2, 3, 0, 4, 5, 6, 128], [1, 2, 3, 4, 5, 6]),
            (ColorType::Grayscale, BitDepth::Eight, &[9, 200], [9, 9, 9, 200, 200, 200]),
            (ColorType::Grayscale, BitDepth::Sixteen, &[9, 1, 200, 1], [9, 9, 9, 200, 200, 200]),
            (ColorType::Grayscale, BitDepth::One, &[0b0100_0000], [0, 0, 0, 255, 255, 255]),
            (ColorType::GrayscaleAlpha, BitDepth::Eight, &[9, 0, 200, 7], [9, 9, 9, 200, 200, 200]),
            (ColorType::GrayscaleAlpha, BitDepth::Sixteen, &[9, 9, 0, 0, 200, 7, 1, 1], [9, 9, 9, 200, 200, 200]),
            (ColorType::Indexed, BitDepth::One, &[0b0100_0000], [0, 0, 255, 255, 0, 0]),
        ] {
            let path = place.write("x.png", &png(2, 1, color, depth, samples));
            assert_eq!(Run::of(&path, RGB24, false).whole(0), expected, "{color:?} {depth:?}");
        }
    }

    #[test]
    fn grey_jpegs_become_rgb() {
        let place = Place::new();
        let path = place.write("x.jpg", include_bytes!("../../../tests/data/grey.jpg"));
        let rgb = Run::of(&path, RGB24, false).whole(0);
        assert_eq!(rgb.len(), 32 * 16 * 3);
        assert!(rgb.iter().all(|&sample| (126..=130).contains(&sample)), "{rgb:?}");
    }

    #[test]
    fn damaged_pictures_are_marked_and_the_stream_goes_on() {
        let noise: Vec<u8> = (0..32 * 16 * 3u32).map(|n| (n * n % 251) as u8).collect();
        let png = png(32, 16, ColorType::Rgb, BitDepth::Eight, &noise);
        let mut headless = GREEN.to_vec();
        headless[3..40].fill(0);
        let place = Place::with(&[
            ("1.jpg", RED),
            ("2.jpg", &NOISE[..600]),
            ("3.jpg", &headless),
            ("4.png", &png[..png.len() / 2]),
            ("5.png", &png),
            ("6.jpg", &BLUE[..BLUE.len() - 1]),
        ]);
        let mut run = Run::of(&place.0, RGB24, true);
        for (sequence, broken) in [false, true, true, true, false, true, false].into_iter().enumerate() {
            assert_eq!(run.frame(sequence as u64).unwrap().1, broken, "frame {sequence}");
        }
        let (upper, _) = run.frame(3).unwrap();
        assert_eq!(upper[..96], noise[..96], "rows before the damage are there");
        let error = refusal(&Place::with(&[("1.jpg", &headless)]).0);
        assert!(error.message().contains("1.jpg is damaged: the picture does not tell its size"), "{error}");
    }

    #[test]
    fn one_picture_is_a_folder_of_one() {
        let place = Place::new();
        // A phone puts more behind the picture that is meant.
        let jpeg = place.write("x.jpg", &[RED, SQUARE, b"ftypmp42"].concat());
        let mut run = Run::of(&jpeg, MJPEG, true);
        assert_eq!([run.whole(0), run.whole(1)], [RED, RED]);
        let png = place.write("picture", &blue_png());
        let mut run = Run::of(&png, RGB24, false);
        assert_eq!(colour(&run.whole(0)), 'b');
        assert_eq!(run.error(1).kind(), Kind::Disconnected);
    }
}

#[test]
fn what_is_no_recording_is_told() {
    let place = Place::with(&[("x.mp4", b"\0\0\0\x18ftypmp42"), ("empty.mjpeg", b""), ("text.mjpeg", b"hello")]);
    for name in ["x.mp4", "empty.mjpeg", "text.mjpeg"] {
        let error = refusal(&place.0.join(name));
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.message().contains(name) && error.message().contains("ffmpeg"), "{error}");
    }
    let error = refusal(Path::new("/dev/null"));
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.message().contains("neither a file nor a folder"), "{error}");
    let error = refusal(&place.0.join("missing.y4m"));
    assert_eq!((error.kind(), error.errno()), (Kind::NotFound, libc::ENOENT));
    assert!(error.message().contains("missing.y4m"), "{error}");
}

#[test]
fn keys_are_checked() {
    let place = Place::new();
    let path = place.write("x.mjpeg", RED);
    for query in ["width=3", "loop=2", "fps=1001", "fps=-1", "fps=29.97", "fourcc=TOOLONG"] {
        let error = recording(&path, query).err().unwrap();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{query}");
    }
    assert_eq!(open(&path, "fourcc=YUYV").err().unwrap().kind(), Kind::Unsupported);
}

#[test]
fn a_camera_tells_who_it_is_and_what_it_offers() {
    let place = Place::new();
    let path = place.write("x.mjpeg", RED);
    let device = open(&path, "loop=1").unwrap();
    let identity = Identity {
        uri: format!("file:{}?loop=1", path.display()),
        name: "x.mjpeg".into(),
        driver: "file".into(),
        serial: String::new(),
        bus: path.display().to_string(),
    };
    assert_eq!(*device.identity(), identity);
    assert_eq!(
        device.formats().unwrap(),
        [
            Format::single(MJPEG, "Motion-JPEG", true, 32, 16, Rate::new(policy::FILE_FPS_DEFAULT, 1)),
            Format::single(RGB24, "24-bit RGB 8-8-8", false, 32, 16, Rate::new(policy::FILE_FPS_DEFAULT, 1)),
        ]
    );
    assert_eq!(open(&path, "fourcc=RGB3").unwrap().formats().unwrap()[0].fourcc, RGB24);
    assert!(device.controls().unwrap().is_empty());
    for error in [device.control(1).unwrap_err(), device.set_control(1, 1).unwrap_err()] {
        assert_eq!(error.kind(), Kind::Unsupported);
        assert!(error.message().contains("a file has no controls"), "{error}");
    }
    assert!(device.let_go().is_none());
}

#[test]
fn a_request_gets_what_is_nearest() {
    let place = Place::new();
    let path = place.write("x.mjpeg", RED);
    let given = |query, request: StreamRequest| open(&path, query).unwrap().start(&request).unwrap().format().clone();
    let format = given("", StreamRequest { width: 640, height: 480, ..Default::default() });
    assert_eq!(
        (format.width, format.height, format.fourcc, format.rate),
        (32, 16, MJPEG, Rate::new(policy::FILE_FPS_DEFAULT, 1))
    );
    assert_eq!((format.stride, format.planes), (0, vec![(0, RED.len())]));
    let format = given("fourcc=RGB3&fps=5", StreamRequest::default());
    assert_eq!((format.fourcc, format.stride, format.rate), (RGB24, 96, Rate::new(5, 1)));
    let rate = |query, numerator, denominator| {
        given(query, StreamRequest { rate: Rate::new(numerator, denominator), ..Default::default() }).rate
    };
    assert_eq!(rate("fps=5", 7, 1), Rate::new(7, 1));
    assert_eq!(rate("fps=0", 7, 1), Rate::new(7, 1));
    assert_eq!(rate("", 5000, 1), Rate::new(1000, 1));
    assert_eq!(rate("fps=0", 0, 0), Rate::default());
    let error = open(&path, "").unwrap().start(&StreamRequest { fourcc: YUYV, ..Default::default() }).err().unwrap();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.message().contains("YUYV is not on offer, only MJPG and RGB3"), "{error}");
}

#[test]
fn several_play_a_file_each_from_its_beginning() {
    let place = Place::new();
    let path = place.write("x.mjpeg", &[RED, GREEN].concat());
    let mut recording = recording(&path, "fps=0").unwrap();
    let (first, second) = (recording.acquire().unwrap(), recording.acquire().unwrap());
    let start = |device: &dyn Device| device.start(&StreamRequest::default()).unwrap();
    let mut streams = [start(&*first), start(&*second), start(&*first)];
    drop((first, second, recording));
    for (sequence, expected) in [RED, GREEN].into_iter().enumerate() {
        for stream in &mut streams {
            let filled = stream.dequeue(true).unwrap().unwrap();
            assert_eq!(
                (bytes_of(&filled), filled.sequence, filled.corrupt),
                (expected.to_vec(), sequence as u64, false)
            );
            stream.requeue(filled.index).unwrap();
        }
    }
    for stream in &mut streams {
        assert_eq!(stream.dequeue(true).err().unwrap().kind(), Kind::Disconnected);
        assert_eq!(stream.dequeue(true).err().unwrap().kind(), Kind::Disconnected, "it stays ended");
    }
}

/// What a frame shows, taken out of its buffer.
fn bytes_of(filled: &Filled) -> Vec<u8> {
    let mut seen = Vec::new();
    assert!(filled.buffer.fill(|bytes| seen.extend_from_slice(&bytes[..filled.used[0]])));
    seen
}
