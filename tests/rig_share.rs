//! Cameras of real drivers, shared: whole pictures for many readers, unplugging, other formats, those who want the camera
//! for themselves, and processes that are killed.

mod support;

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once};
use std::time::{Duration, Instant};

use camlease::{
    Access, Camera, DropPolicy, Error, FourCc, Frame, Kind, Map, OpenOptions, Rate, ShareOptions, StreamRequest,
};
use camlease_rig::picture::{self, Picture, sum_of};
use camlease_rig::vivid::{self, VividOptions};
use camlease_rig::{Webcam, WebcamOptions, alone, require_guest, set_control, v4l2_ctl_streams};
use serde_json::{Value, json};
use support::party::Party;
use support::reader::{Reader, Seen, Told};

const PATIENCE: Duration = Duration::from_secs(30);
const WIDTH: u32 = 320;
const HEIGHT: u32 = 180;

fn vivid_with(options: VividOptions) -> String {
    own_runtime_folder();
    vivid::load(VividOptions { first_number: Some(40), ..options })[0].display().to_string()
}

fn vivid() -> String {
    vivid_with(VividOptions::default())
}

fn webcam() -> Webcam {
    own_runtime_folder();
    Webcam::plug(WebcamOptions { size: (2 * WIDTH, 2 * HEIGHT), frames_per_second: 10, ..WebcamOptions::default() })
}

/// For this process and those that it starts.
#[track_caller]
fn own_runtime_folder() {
    static MADE: Once = Once::new();
    require_guest(); // elsewhere the folder would stay
    MADE.call_once(|| {
        let folder = std::env::temp_dir().join(format!("camlease-share-{}", std::process::id()));
        // The guest sees the host's files, and its pids are low: the host may have had the same one.
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::DirBuilder::new().mode(0o700).create(&folder).unwrap();
        // SAFETY: no other thread of this process reads the environment yet: tests here run one after the other.
        unsafe { std::env::set_var("CAMLEASE_RUNTIME_DIR", folder) };
    });
}

/// Small frames and few: all readers share one emulated processor.
fn stream(fourcc: &str) -> StreamRequest {
    StreamRequest {
        width: WIDTH,
        height: HEIGHT,
        fourcc: FourCc::parse(fourcc).unwrap(),
        rate: Rate::new(5, 1),
        buffers: 8,
        drop_policy: DropPolicy::Newest,
        ..StreamRequest::default()
    }
}

fn open(uri: &str, priority: i32) -> Camera {
    let options = OpenOptions { name: "camera process".into(), priority, ..OpenOptions::default() };
    Camera::open(uri, options).unwrap_or_else(|error| panic!("{error}"))
}

fn share(camera: &Camera, name: &str, request: StreamRequest) {
    // As many frames as can be kept: that a process gets no time for a second is not what is tested here.
    let options = ShareOptions { name: name.into(), request, history: 32, ..ShareOptions::default() };
    camera.share(options).unwrap_or_else(|error| panic!("{error}"));
}

fn reader(name: &str) -> Camera {
    let options = OpenOptions { name: "reader here".into(), ..OpenOptions::default() };
    Camera::open(&format!("shared:{name}"), options).unwrap_or_else(|error| panic!("{error}"))
}

fn in_order() -> StreamRequest {
    StreamRequest { drop_policy: DropPolicy::Newest, buffers: 4, ..StreamRequest::default() }
}

fn started(name: &str) -> Camera {
    let camera = reader(name);
    camera.start(&in_order()).unwrap_or_else(|error| panic!("{error}"));
    camera
}

fn reader_elsewhere(name: &str) -> Reader {
    let program = support::c_program("reader.c", &[]);
    Reader::start(Command::new(program).args([&format!("shared:{name}"), "reader elsewhere"]))
}

#[track_caller]
fn next(camera: &Camera) -> Frame {
    camera.next_frame(Some(PATIENCE)).unwrap_or_else(|error| panic!("{error}"))
}

fn ask(name: &str, request: Value) -> camlease::Result<Map> {
    let Value::Object(request) = request else { panic!("{request}") };
    camlease::command(name, request, PATIENCE)
}

#[track_caller]
fn status(name: &str) -> Map {
    ask(name, json!({ "do": "status" })).unwrap_or_else(|error| panic!("{error}"))
}

/// vivid's picture moves to the right, which is the same for all its lines but those with text: a picture of two frames
/// has lines that differ.
fn let_vivid_move(uri: &str) {
    set_control(Path::new(uri), "horizontal_movement", 6);
    set_control(Path::new(uri), "osd_text_mode", 1);
}

const LINES_WITH_TEXT: usize = 40;

/// Whether these bytes are one whole picture of that size.
type Judge = fn(&[u8], u32, u32) -> bool;

fn is_whole(frame: &Frame, judge: Judge) -> bool {
    judge(frame.data(0), frame.width(), frame.height())
}

fn of_vivid(bytes: &[u8], width: u32, height: u32) -> bool {
    let lines: Vec<_> = bytes.chunks(2 * width as usize).collect();
    lines.len() == height as usize && lines[LINES_WITH_TEXT..].iter().all(|line| *line == lines[LINES_WITH_TEXT])
}

/// The webcam's picture, as it left the webcam.
fn of_webcam(bytes: &[u8], width: u32, height: u32) -> bool {
    let Some(number) = picture::number_in_yuyv(bytes, width, height) else { return false };
    let mut made = Vec::new();
    Picture { width, height, number }.yuyv(&mut made);
    bytes == made
}

fn of_webcam_as_jpeg(bytes: &[u8], width: u32, height: u32) -> bool {
    // To look near the last one: which number it is only its bytes tell.
    static NEAR: AtomicU32 = AtomicU32::new(0);
    let from = NEAR.load(Ordering::Relaxed).saturating_sub(100);
    let found = (from..from + 3000).find(|&number| {
        let mut made = Vec::new();
        Picture { width, height, number }.jpeg(&mut made);
        made == bytes
    });
    found.inspect(|number| NEAR.store(*number, Ordering::Relaxed)).is_some()
}

/// Ten readers: four in this process, three programs that take all in order, three that take the newest and keep it a
/// while. All who take all get the same frames, byte by byte, and none is lost.
#[track_caller]
fn ten_readers(uri: &str, fourcc: &str, judge: Judge) -> BTreeMap<u64, Seen> {
    const FRAMES: usize = 25;
    let name = format!("ten-{}", std::process::id());
    let camera = open(uri, 0);
    share(&camera, &name, stream(fourcc));
    let begun = Instant::now();
    let mut programs: Vec<_> = (0..3).map(|_| reader_elsewhere(&name)).collect();
    for program in &mut programs {
        program.frame(PATIENCE);
    }
    let mut parties: Vec<_> = (0..3).map(|_| Party::start()).collect();
    for party in &mut parties {
        party.ok(&format!("open shared:{name} wait 0 0 0 newest"));
        party.ok("start");
    }
    let seen: Mutex<Vec<BTreeMap<u64, Seen>>> = Mutex::default();
    let attached = begun.elapsed();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let camera = started(&name);
                let mut copies: Vec<(Seen, Vec<u8>)> = Vec::new();
                // Two are kept, while others are written. What takes time is done afterwards.
                let mut kept: Vec<Frame> = Vec::new();
                for _ in 0..FRAMES {
                    let frame = next(&camera);
                    let format = camera.stream_format().0;
                    assert_eq!((frame.width(), frame.height()), (WIDTH, HEIGHT));
                    assert_eq!((frame.fourcc().to_string().as_str(), format.fourcc), (fourcc, frame.fourcc()));
                    copies.push((Seen::without_sum(&frame), frame.data(0).to_vec()));
                    kept.push(frame);
                    if kept.len() > 2 {
                        let (oldest, (_, copy)) = (kept.remove(0), &copies[copies.len() - 3]);
                        assert_eq!(oldest.data(0), copy, "a frame that is held stays as it is");
                        assert!(oldest.timestamp_ns() < kept[0].timestamp_ns());
                    }
                }
                let dropped = camera.stats().dropped;
                drop((kept, camera));
                let mut own = BTreeMap::new();
                for (seen, bytes) in copies {
                    let sequence = seen.sequence;
                    assert!(judge(&bytes, WIDTH, HEIGHT), "{uri} {fourcc}: frame {sequence} is not whole");
                    own.insert(sequence, Seen { sum: sum_of(&bytes, 0), ..seen });
                }
                assert_eq!((own.len(), dropped), (FRAMES, gaps(&own)), "{own:?}");
                seen.lock().unwrap().push(own);
            });
        }
        for party in &mut parties {
            for _ in 0..8 {
                party.ok("frame");
                assert_eq!(party.tell("check"), "OK", "a frame that is held stays as it is");
            }
        }
    });
    let told = status(&name);
    let readers = told["readers"].as_array().unwrap();
    assert_eq!(readers.len(), 6, "{told:?}");
    for reader in readers.iter().filter(|reader| reader["mode"] == "in order") {
        assert_eq!((&reader["lost"], &reader["hold"]), (&0.into(), &2.into()), "{told:?}");
    }
    assert_eq!(told["dropped"], 0, "there was room for each frame: {told:?}");
    let mut seen = seen.into_inner().unwrap();
    for program in programs {
        let (frames, missed) = program.end(PATIENCE);
        assert_eq!(missed, gaps(&frames), "what the driver dropped, and nothing else");
        assert!(frames.len() > FRAMES, "{}", frames.len());
        seen.push(frames);
    }
    drop(parties);
    // The programs were there before the others and after them: they saw all that any of these saw.
    let all = seen.last().unwrap().clone();
    for each in &seen {
        let (first, last) = (*each.first_key_value().unwrap().0, *each.last_key_value().unwrap().0);
        for (sequence, frame) in each.range(first..=last) {
            assert!(!frame.corrupt);
            if let Some(theirs) = all.get(sequence) {
                assert_eq!(theirs, frame, "{uri} {fourcc}: one frame for all");
            }
        }
        let (from, to) = (first.max(*all.first_key_value().unwrap().0), last.min(*all.last_key_value().unwrap().0));
        let numbers = |frames: &BTreeMap<u64, Seen>| frames.range(from..=to).map(|frame| *frame.0).collect::<Vec<_>>();
        assert_eq!(numbers(each), numbers(&all), "{uri} {fourcc}: nobody lost one that another got");
    }
    println!(
        "{uri} {fourcc}: {} frames in order at each of 7 readers, 3 beside them; {} were dropped by the driver; \
         attached after {attached:?}, {:?} in all",
        all.len(),
        gaps(&all),
        begun.elapsed()
    );
    camera.close();
    v4l2_ctl_streams(Path::new(uri), 2).unwrap_or_else(|error| panic!("{uri}: {error}"));
    all
}

/// Numbers that are missing between those that came.
fn gaps(frames: &BTreeMap<u64, Seen>) -> u64 {
    let (first, last) = (frames.first_key_value().unwrap().0, frames.last_key_value().unwrap().0);
    last - first + 1 - frames.len() as u64
}

#[test]
fn ten_readers_of_vivid_get_whole_pictures() {
    let _alone = alone();
    let uri = vivid();
    let_vivid_move(&uri);
    let frames = ten_readers(&uri, "YUYV", of_vivid);
    let mut sums: Vec<_> = frames.values().map(|frame| frame.sum).collect();
    sums.sort_unstable();
    sums.dedup();
    assert_eq!(sums.len(), frames.len(), "each frame is another picture");
    assert!(frames.values().all(|frame| frame.bytes == (WIDTH * HEIGHT * 2) as usize));
}

#[test]
fn ten_readers_of_a_webcam_get_whole_pictures() {
    let _alone = alone();
    let webcam = webcam();
    let uri = webcam.node().display().to_string();
    ten_readers(&uri, "YUYV", of_webcam);
    let jpegs = ten_readers(&uri, "MJPG", of_webcam_as_jpeg);
    let (least, most) = (jpegs.values().map(|frame| frame.bytes).min(), jpegs.values().map(|frame| frame.bytes).max());
    println!("JPEGs of {least:?} to {most:?} bytes");
    assert!(least < most, "they have different sizes, and came with their own: {least:?}");
}

/// The first frame that fulfils this. Failures on the way are those that a reader may see while the camera is away.
#[track_caller]
fn frame_again(camera: &Camera, wanted: impl Fn(&Frame) -> bool) -> Frame {
    let begun = Instant::now();
    loop {
        match camera.next_frame(Some(Duration::from_millis(200))) {
            Ok(frame) if wanted(&frame) => return frame,
            Ok(_) => {}
            Err(error) => {
                let kind = error.kind();
                assert!(matches!(kind, Kind::Timeout | Kind::Disconnected | Kind::Evicted | Kind::Io), "{error}");
            }
        }
        assert!(begun.elapsed() < PATIENCE, "no such frame came");
    }
}

/// What the reader is told when no more frames come.
#[track_caller]
fn failure(camera: &Camera) -> Error {
    let begun = Instant::now();
    loop {
        match camera.next_frame(Some(Duration::from_millis(500))) {
            Err(error) if error.kind() != Kind::Timeout => return error,
            _ => assert!(begun.elapsed() < PATIENCE, "it is not told"),
        }
    }
}

#[track_caller]
fn failed_elsewhere(reader: &mut Reader, status: &str) -> String {
    let failed = |told: &Told| match told {
        Told::Failed(words) if words.starts_with(status) => Some(words.clone()),
        _ => None,
    };
    reader.until(status, PATIENCE, failed)
}

#[test]
fn readers_of_a_webcam_that_is_unplugged_go_on_when_it_is_back() {
    let _alone = alone();
    let webcam = webcam();
    let name = format!("plug-{}", std::process::id());
    let id = |file: &str| std::fs::read_to_string(webcam.usb_device().join(file)).unwrap().trim().to_owned();
    let camera = open(&format!("usb:{}:{}:{}", id("idVendor"), id("idProduct"), id("serial")), 0);
    share(&camera, &name, stream("YUYV"));
    let here = started(&name);
    let (mut elsewhere, mut keeper) = (reader_elsewhere(&name), Party::start());
    keeper.ok(&format!("open shared:{name} wait 0 0 0 keeper"));
    keeper.ok("start");
    elsewhere.frame(PATIENCE);
    for round in 0..2 {
        keeper.ok("frame 20000");
        let kept = [next(&here), next(&here)];
        let seen = kept.each_ref().map(Seen::of);
        let unplugged = Instant::now();
        webcam.unplug();
        let error = failure(&here);
        assert_eq!(error.kind(), Kind::Disconnected, "{error}");
        assert!(error.message().ends_with("); frames come again when it is back"), "{error}");
        assert_eq!(failed_elsewhere(&mut elsewhere, "DISCONNECTED"), format!("DISCONNECTED {error}"));
        let told = unplugged.elapsed();
        // One who comes now is told the same, at once.
        let late = reader(&name);
        let refused = late.start(&in_order()).unwrap_err();
        assert_eq!(refused.kind(), Kind::Disconnected, "{refused}");
        assert!(camera.share_info().unwrap().trouble.is_some());
        assert_eq!(status(&name)["streaming"], false);
        let replugged = Instant::now();
        webcam.replug();
        let frame = frame_again(&here, |_| true);
        let back = replugged.elapsed();
        assert!(is_whole(&frame, of_webcam));
        assert!(elsewhere.frame(PATIENCE).bytes > 0);
        assert_eq!(kept.each_ref().map(Seen::of), seen, "what is held stays, whatever became of the camera");
        assert!(kept.iter().all(|frame| is_whole(frame, of_webcam)));
        assert_eq!(keeper.tell("check"), "OK");
        assert_eq!(camera.share_info().unwrap().trouble, None);
        println!("round {round}: told after {told:?} ({error}), frames {back:?} after it was plugged in again");
    }
}

#[test]
fn the_format_is_changed_by_command_for_all_readers() {
    let _alone = alone();
    let uri = vivid();
    let_vivid_move(&uri);
    let name = format!("format-{}", std::process::id());
    let camera = open(&uri, 0);
    share(&camera, &name, stream("YUYV"));
    let (here, mut elsewhere) = (started(&name), reader_elsewhere(&name));
    elsewhere.frame(PATIENCE);
    let kept = next(&here);
    let seen = Seen::of(&kept);
    let before = status(&name)["generation"].as_u64().unwrap();

    let answer = ask(&name, json!({ "do": "format", "width": 640, "height": 360 })).unwrap();
    assert_eq!((&answer["format"]["width"], &answer["format"]["fourcc"]), (&640.into(), &"YUYV".into()), "{answer:?}");
    let frame = frame_again(&here, |frame| frame.width() == 640);
    assert!(is_whole(&frame, of_vivid));
    assert_eq!(here.stream_format().0.width, 640, "what is streamed is told anew");
    drop(frame);
    elsewhere
        .until("larger frame", PATIENCE, |told| matches!(told, Told::Frame(seen) if seen.width == 640).then_some(()));
    assert_eq!(status(&name)["generation"], before + 1);
    assert_eq!(Seen::of(&kept), seen, "a frame of the former format stays as it is");

    // What vivid does not have, what it has only nearly, and what it refuses once.
    let refusals: [(_, Kind, &[&str]); 3] = [
        (json!({ "do": "format", "fourcc": "MJPG" }), Kind::Unsupported, &["does not offer MJPG"]),
        (json!({ "do": "format", "width": 650, "height": 370 }), Kind::Unsupported, &["nearest is 640x360"]),
        (json!({ "do": "format", "fourcc": "NV12" }), Kind::Io, &["STREAMON"]),
    ];
    for (request, kind, words) in refusals {
        if kind == Kind::Io {
            set_control(Path::new(&uri), "inject_vidioc_streamon_error", 1);
        }
        let error = ask(&name, request).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(words.iter().all(|words| error.message().contains(words)), "{error}");
        assert!(error.message().contains("the former format goes on"), "{error}");
        // The driver counts its frames anew.
        let format = &status(&name)["format"];
        assert_eq!((&format["width"], &format["fourcc"]), (&640.into(), &"YUYV".into()));
        let published = camera.share_info().unwrap().published;
        camlease_rig::wait_for("further frames", PATIENCE, || {
            (camera.share_info().unwrap().published > published + 3).then_some(())
        });
        // Those that waited are of the former stream, which had the same format.
        (0..20).for_each(|_| {
            let frame = next(&here);
            assert_eq!((frame.width(), frame.fourcc()), (640, FourCc::parse("YUYV").unwrap()));
            assert!(is_whole(&frame, of_vivid));
        });
    }

    // One who needs what there is.
    let mut choosy = Party::start();
    choosy.ok(&format!("open shared:{name} wait 0 0 0 choosy"));
    choosy.ok("start 640 360");
    choosy.ok("frame");
    let error = ask(&name, json!({ "do": "format", "width": WIDTH, "height": HEIGHT })).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    assert!(error.message().contains(&format!("choosy (pid {})", choosy.pid())), "{error}");
    choosy.ok("close");
    ask(&name, json!({ "do": "format", "width": WIDTH, "height": HEIGHT, "fourcc": "NV12" })).unwrap();
    let frame = frame_again(&here, |frame| frame.width() == WIDTH);
    assert_eq!((frame.fourcc().to_string().as_str(), frame.data(0).len()), ("NV12", (WIDTH * HEIGHT * 3 / 2) as usize));
    let bytes = (WIDTH * HEIGHT * 3 / 2) as usize;
    elsewhere.until("NV12", PATIENCE, |told| matches!(told, Told::Frame(seen) if seen.bytes == bytes).then_some(()));
}

#[test]
fn frames_in_several_planes_are_shared() {
    let _alone = alone();
    let uri = vivid_with(VividOptions { multiplanar: true, ..VividOptions::default() });
    let_vivid_move(&uri);
    let name = format!("planes-{}", std::process::id());
    let camera = open(&uri, 0);
    share(&camera, &name, stream("NM12"));
    let mut elsewhere = reader_elsewhere(&name);
    let first = elsewhere.frame(PATIENCE);
    let readers = [started(&name), started(&name)];
    let format = readers[0].stream_format().0;
    let (luma, chroma) = ((WIDTH * HEIGHT) as usize, (WIDTH * HEIGHT / 2) as usize);
    assert_eq!(format.planes, [(WIDTH, luma), (WIDTH, chroma)]);
    let mut seen = [BTreeMap::new(), BTreeMap::new()];
    for _ in 0..10 {
        for (reader, seen) in readers.iter().zip(&mut seen) {
            let frame = next(reader);
            assert_eq!((frame.planes(), frame.stride(0), frame.stride(1)), (2, WIDTH, WIDTH));
            assert_eq!([frame.data(0).len(), frame.data(1).len()], [luma, chroma]);
            for plane in 0..2 {
                let lines: Vec<_> = frame.data(plane).chunks(WIDTH as usize).collect();
                let whole = lines[LINES_WITH_TEXT..].iter().all(|line| *line == lines[LINES_WITH_TEXT]);
                assert!(whole, "plane {plane} of frame {} is not whole", frame.sequence());
                assert!(lines[LINES_WITH_TEXT].iter().any(|byte| *byte != lines[LINES_WITH_TEXT][0]), "a picture");
            }
            seen.insert(frame.sequence(), Seen::of(&frame));
        }
    }
    let (mut all, missed) = elsewhere.end(PATIENCE);
    all.insert(first.sequence, first);
    assert_eq!(missed, gaps(&all));
    // What it missed was counted above.
    let both: Vec<_> =
        seen.iter().flatten().filter_map(|(sequence, frame)| Some((all.get(sequence)?, frame))).collect();
    assert!(both.len() >= 20, "{} of 40 frames came there as well", both.len());
    assert!(both.iter().all(|(there, here)| there == here), "both planes have the same bytes there as here");
}

#[test]
fn whoever_wants_the_camera_alone_is_told_who_shares_it_and_gets_it_by_priority() {
    let _alone = alone();
    let uri = vivid();
    let_vivid_move(&uri);
    let name = format!("alone-{}", std::process::id());
    let camera = open(&uri, 5);
    share(&camera, &name, stream("YUYV"));
    let (here, mut elsewhere) = (started(&name), reader_elsewhere(&name));
    elsewhere.frame(PATIENCE);
    let kept = next(&here);
    let seen = Seen::of(&kept);
    let mut asker = Party::start();
    let words = asker.refused(&format!("open {uri} wait 0 0 0 other"), "BUSY");
    assert!(words.contains("camera process") && words.contains(&format!("pid {}", std::process::id())), "{words}");
    let shares = [format!("shares it as \"{name}\""), format!("open shared:{name} to read it beside others")];
    assert!(shares.iter().all(|part| words.contains(part)), "{words}");
    // By the device's own name, with access shared.
    let options = OpenOptions { access: Access::Shared, ..OpenOptions::default() };
    let beside = Camera::open(&uri, options).unwrap_or_else(|error| panic!("{error}"));
    beside.start(&in_order()).unwrap_or_else(|error| panic!("{error}"));
    assert!(is_whole(&next(&beside), of_vivid));
    drop(beside);
    let words = asker.refused(&format!("open {uri} ask 1 1000 200 low"), "BUSY");
    assert!(words.contains("its priority is 5, and the one who asks has 1"), "{words}");
    drop(next(&here));
    assert_eq!(camera.share_info().unwrap().trouble, None, "nobody noticed");
    for is_killed in [false, true] {
        let asked = Instant::now();
        asker.ok(&format!("open {uri} ask 9 20000 2000 high"));
        let got = asked.elapsed();
        asker.ok("start");
        asker.ok("frame");
        let error = failure(&here);
        assert_eq!(error.kind(), Kind::Evicted, "{error}");
        assert!(error.message().ends_with("priority 9; frames come again when it is back"), "{error}");
        failed_elsewhere(&mut elsewhere, "EVICTED");
        assert!(status(&name)["trouble"]["message"].as_str().unwrap().contains("high"));
        assert_eq!(Seen::of(&kept), seen);
        let given_back = Instant::now();
        if is_killed {
            asker.kill();
            asker = Party::start();
        } else {
            asker.ok("release");
            asker.ok("close");
        }
        drop(frame_again(&here, |_| true));
        let back = given_back.elapsed();
        elsewhere.frame(PATIENCE);
        assert_eq!(Seen::of(&kept), seen);
        println!("handed over after {got:?}, frames again {back:?} after it was let go ({error})");
    }
    camera.close();
    v4l2_ctl_streams(Path::new(&uri), 2).unwrap();
}

#[test]
fn faults_of_a_driver_are_told_as_they_are_and_streaming_goes_on() {
    let _alone = alone();
    let uri = vivid();
    let name = format!("faults-{}", std::process::id());
    let camera = open(&uri, 0);
    share(&camera, &name, stream("YUYV"));
    let (here, mut elsewhere) = (started(&name), reader_elsewhere(&name));
    elsewhere.frame(PATIENCE);
    set_control(Path::new(&uri), "inject_v4l2_buf_flag_error", 1);
    drop(frame_again(&here, Frame::is_corrupt));
    elsewhere.until("damaged frame", PATIENCE, |told| matches!(told, Told::Frame(seen) if seen.corrupt).then_some(()));
    assert_eq!(here.stats().corrupt, 1);
    let before = here.stats().dropped;
    set_control(Path::new(&uri), "percentage_of_dropped_buffers", 50);
    let begun = Instant::now();
    while here.stats().dropped <= before + 3 {
        assert!(begun.elapsed() < PATIENCE, "gaps in the numbers are the driver's: {:?}", here.stats());
        drop(next(&here));
    }
    set_control(Path::new(&uri), "percentage_of_dropped_buffers", 0);
    // Its queue breaks, and takes no frames until it is started anew.
    set_control(Path::new(&uri), "inject_fatal_streaming_error", 1);
    let error = failure(&here);
    assert_eq!(error.kind(), Kind::Io, "{error}");
    assert!(error.message().ends_with("; it is started again by itself"), "{error}");
    let broken = Instant::now();
    drop(frame_again(&here, |_| true));
    println!("frames again {:?} after {error}", broken.elapsed());
    failed_elsewhere(&mut elsewhere, "IO");
    elsewhere.frame(PATIENCE);
    drop((here, elsewhere));
    camera.close();

    let webcam = Webcam::plug(WebcamOptions {
        size: (2 * WIDTH, 2 * HEIGHT),
        driver: vec![("nodrop", "1")],
        ..WebcamOptions::default()
    });
    let camera = open(webcam.node().to_str().unwrap(), 0);
    share(&camera, &name, stream("YUYV"));
    let (here, mut elsewhere) = (started(&name), reader_elsewhere(&name));
    elsewhere.frame(PATIENCE);
    let whole = next(&here).data(0).len();
    webcam.order("half-frame 1");
    let half = frame_again(&here, Frame::is_corrupt);
    assert!(half.data(0).len() < whole, "{} of {whole} bytes", half.data(0).len());
    let is_half = |told: &Told| matches!(told, Told::Frame(seen) if seen.corrupt && seen.bytes < whole).then_some(());
    elsewhere.until("half of a frame", PATIENCE, is_half);
    assert!(is_whole(&next(&here), of_webcam));
    webcam.order("pause");
    let silent = Instant::now();
    while here.next_frame(Some(Duration::from_millis(700))).is_ok() {
        assert!(silent.elapsed() < PATIENCE, "it is silent");
    }
    webcam.order("resume");
    assert!(is_whole(&next(&here), of_webcam));
    // The device is reset under all of them.
    let before = status(&name)["published"].as_u64().unwrap();
    camera.reset(Some(PATIENCE)).unwrap_or_else(|error| panic!("{error}"));
    (0..3).for_each(|_| drop(frame_again(&here, |frame| is_whole(frame, of_webcam))));
    assert!(status(&name)["published"].as_u64().unwrap() > before);
}

/// What stands in the runtime folder.
fn left() -> Vec<String> {
    let folder = std::env::var_os("CAMLEASE_RUNTIME_DIR").expect("set by the test");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn whoever_is_killed_leaves_the_camera_free_and_nothing_else() {
    let _alone = alone();
    let webcam = webcam();
    for uri in [vivid(), webcam.node().display().to_string()] {
        let name = format!("killed-{}", std::process::id());
        let mut camera = Party::start();
        camera.ok(&format!("open {uri} wait 0 0 0 camera process"));
        camera.ok(&format!("share {name} {WIDTH} {HEIGHT}"));
        let (here, mut elsewhere) = (started(&name), reader_elsewhere(&name));
        let mut holding = Party::start();
        holding.ok(&format!("open shared:{name} wait 0 0 0 holding"));
        holding.ok("start");
        holding.ok("frame");
        elsewhere.frame(PATIENCE);

        // Readers, one of which has a frame.
        holding.kill();
        elsewhere.process.kill().unwrap();
        elsewhere.process.wait().unwrap();
        camlease_rig::wait_for("them to be gone", PATIENCE, || {
            (status(&name)["readers"].as_array().unwrap().len() == 1).then_some(())
        });
        let kept = next(&here);
        let seen = Seen::of(&kept);
        (0..30).for_each(|_| drop(next(&here)));
        assert_eq!(status(&name)["dropped"], 0, "there is room for each frame: what the dead ones held is free");

        // The camera's process.
        camera.kill();
        let killed = Instant::now();
        let other = Camera::open(&uri, OpenOptions { timeout: Some(PATIENCE), ..OpenOptions::default() });
        let other = other.unwrap_or_else(|error| panic!("{error}"));
        let free = killed.elapsed();
        other.start(&StreamRequest::default()).unwrap();
        drop(next(&other));
        let error = failure(&here);
        assert_eq!(error.kind(), Kind::Disconnected, "{error}");
        other.close();
        assert_eq!(Seen::of(&kept), seen, "the memory of a process that is no more stays readable");
        println!("{uri}: free {free:?} after its process was killed: {error}; left {:?}", left());
        assert!(free < Duration::from_secs(10), "{uri}: {free:?}");
        v4l2_ctl_streams(Path::new(&uri), 2).unwrap_or_else(|error| panic!("{uri}: {error}"));

        // The next one takes its place, and the reader finds it.
        let mut camera = Party::start();
        camera.ok(&format!("open {uri} wait 0 0 0 camera process"));
        camera.ok(&format!("share {name} {WIDTH} {HEIGHT}"));
        drop(frame_again(&here, |_| true));
        assert_eq!(Seen::of(&kept), seen);
        drop(here);
        camera.ok("close");
        assert_eq!(left(), Vec::<String>::new(), "{uri}");
    }
}
