//! One camera for many: sharing it, reading it here and in other processes, and what becomes of readers when it goes.

mod support;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use camlease::{
    Access, Camera, Commands, DropPolicy, Error, Event, FourCc, Frame, Kind, LateAnswer, Map, OnBusy, OpenOptions,
    Publisher, Rate, ShareOptions, StreamFormat, StreamRequest, command,
};
use serde_json::{Value, json};
use support::party::Party;
use support::stamped::{eventually, unshare};

const SECONDS: Option<Duration> = Some(Duration::from_secs(10));

/// Names are the whole machine's.
fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn shared(name: &str, query: &str) -> Camera {
    let camera = Camera::open(&format!("virtual:{name}?{query}"), OpenOptions::default()).unwrap();
    camera.share(ShareOptions { name: name.to_owned(), ..ShareOptions::default() }).unwrap();
    camera
}

fn reader(name: &str) -> Camera {
    Camera::open(&format!("shared:{name}"), OpenOptions { name: "reader".into(), ..OpenOptions::default() }).unwrap()
}

fn in_order() -> StreamRequest {
    StreamRequest { drop_policy: DropPolicy::Newest, ..StreamRequest::default() }
}

fn newest() -> StreamRequest {
    StreamRequest { drop_policy: DropPolicy::Oldest, ..StreamRequest::default() }
}

fn sized(width: u32, height: u32) -> StreamRequest {
    StreamRequest { width, height, ..in_order() }
}

fn map(value: Value) -> Map {
    value.as_object().unwrap().clone()
}

/// What a command comes to.
fn ask(camera: &Camera, request: Value) -> camlease::Result<Map> {
    camera.command(map(request), Duration::from_secs(10))
}

fn next(camera: &Camera) -> Frame {
    camera.next_frame(SECONDS).unwrap()
}

/// The next frame, however often the camera goes away before it.
fn next_after_a_gap(camera: &Camera) -> Frame {
    let begun = Instant::now();
    loop {
        match camera.next_frame(Some(Duration::from_millis(500))) {
            Ok(frame) => return frame,
            Err(error) if begun.elapsed() < Duration::from_secs(20) => {
                let passes = [Kind::Disconnected, Kind::Timeout, Kind::Evicted, Kind::WrongState, Kind::Busy];
                assert!(passes.contains(&error.kind()), "{error}");
            }
            Err(error) => panic!("no frame came again: {error}"),
        }
    }
}

/// The number that a virtual camera's frame carries.
fn number(frame: &camlease::Frame) -> u64 {
    u64::from_le_bytes(frame.data(0)[..8].try_into().unwrap())
}

#[test]
fn readers_here_and_elsewhere_get_the_frames() {
    let name = unique("share-1");
    let camera = shared(&name, "width=320&height=240&fps=100");
    let here = reader(&name);
    assert_eq!(here.identity().driver, "virtual");
    let format = here.start(&in_order()).unwrap();
    assert_eq!((format.width, format.height, format.fourcc.to_string().as_str()), (320, 240, "YUYV"));
    let mut elsewhere = Party::start();
    elsewhere.ok(&format!("open shared:{name} wait 0 0 0 other"));
    elsewhere.ok("start");
    elsewhere.ok("frame");
    let mut last = None;
    for _ in 0..20 {
        let frame = here.next_frame(SECONDS).unwrap();
        assert_eq!(number(&frame), frame.sequence());
        assert_eq!(frame.data(0).len(), 320 * 240 * 2);
        assert!(last.is_none_or(|last| frame.sequence() > last), "{last:?} {}", frame.sequence());
        last = Some(frame.sequence());
    }
    assert_eq!(camera.share_info().unwrap().readers, 2);
    elsewhere.ok("release");
    elsewhere.ok("close");
    let refused = camera.next_frame(SECONDS).err().unwrap();
    assert_eq!(refused.kind(), Kind::WrongState);
    assert!(refused.message().contains(&format!("open shared:{name} to read it")), "{refused}");
    camera.close();
    let gone = (0..100).find_map(|_| here.next_frame(SECONDS).err()).unwrap();
    assert_eq!(gone.kind(), Kind::Disconnected, "{gone}");
    let camera = shared(&name, "width=160&height=120&fps=100");
    let frame = next_after_a_gap(&here);
    assert_eq!((frame.width(), frame.height()), (160, 120));
    drop(camera);
}

#[test]
fn each_reader_has_its_own_choice_of_frames() {
    let name = unique("share-modes");
    let camera = shared(&name, "width=64&height=48&fps=100");
    let every = Camera::open(&format!("shared:{name}?every=3"), OpenOptions::default()).unwrap();
    let slow = Camera::open(&format!("shared:{name}?rate=10"), OpenOptions::default()).unwrap();
    let all = reader(&name);
    every.start(&in_order()).unwrap();
    slow.start(&newest()).unwrap();
    all.start(&in_order()).unwrap();
    let (mut third, mut tenth, mut each) = (Vec::new(), Vec::new(), Vec::new());
    while tenth.len() < 5 {
        each.push(next(&all).sequence());
        while let Ok(frame) = every.next_frame(Some(Duration::ZERO)) {
            third.push(frame.sequence());
        }
        while let Ok(frame) = slow.next_frame(Some(Duration::ZERO)) {
            tenth.push(frame.timestamp_ns());
        }
    }
    assert!(each.windows(2).all(|pair| pair[1] > pair[0]), "{each:?}");
    let lost = all.stats().dropped;
    // Where it was not the camera that came too late for some.
    let is_whole = camera.stats().dropped == 0;
    if is_whole {
        assert_eq!(each.last().unwrap() - each[0] + 1, each.len() as u64 + lost, "what was lost is counted");
    }
    assert!(third.len() >= 5 && third.windows(2).all(|pair| pair[1] - pair[0] >= 3), "{third:?}");
    // One that came late is no reason for the next ones to be late, too.
    let due = (0..).map(|at| tenth[0] + at * 100_000_000);
    assert!(tenth.iter().zip(due).all(|(came, due)| *came >= due), "{tenth:?}");
}

#[test]
fn of_frames_that_are_read_in_time_exactly_each_third_comes() {
    let name = unique("share-third");
    let publisher = made(&name);
    let every = Camera::open(&format!("shared:{name}?every=3"), OpenOptions::default()).unwrap();
    every.start(&in_order()).unwrap();
    for sequence in 0..30 {
        assert!(publisher.publish(&[&[1; 8]], sequence, 1, false));
        match sequence % 3 {
            0 => assert_eq!(next(&every).sequence(), sequence),
            _ => assert_eq!(every.next_frame(Some(Duration::ZERO)).err().unwrap().kind(), Kind::Timeout),
        }
    }
}

#[test]
fn what_a_reader_holds_stays_and_costs_the_others_nothing() {
    let name = unique("share-held");
    let publisher = made(&name);
    let (holds, reads) = (reader(&name), reader(&name));
    holds.start(&StreamRequest { buffers: 3, ..newest() }).unwrap();
    reads.start(&in_order()).unwrap();
    let mut published = 0;
    let mut publish = || {
        published += 1;
        assert!(publisher.publish(&[&[published as u8; 8]], published, published as i64, false), "there is room");
        published
    };
    let held: Vec<Frame> = (0..3).map(|_| (publish(), next(&holds)).1).collect();
    let before: Vec<Vec<u8>> = held.iter().map(|frame| frame.data(0).to_vec()).collect();
    publish();
    let full = holds.next_frame(Some(Duration::from_millis(100))).err().unwrap();
    assert_eq!(full.kind(), Kind::Timeout, "{full}");
    assert!(full.message().contains("out with the host"), "it says why: {full}");
    (0..4).for_each(|_| drop(next(&reads)));
    for _ in 0..200 {
        assert_eq!(publish(), next(&reads).sequence());
    }
    let last = publish();
    assert_eq!(next(&reads).sequence(), last);
    assert_eq!(reads.stats().dropped, 0);
    let after: Vec<&[u8]> = held.iter().map(|frame| frame.data(0)).collect();
    assert_eq!(before, after);
    let status = ask(&reads, json!({ "do": "status" })).unwrap();
    let of_holder = &status["readers"].as_array().unwrap()[0];
    assert_eq!(of_holder["held"], 3);
    assert_eq!(of_holder["lag"], 202, "{of_holder}");
    assert_eq!(holds.stats().behind, 202, "{:?}", holds.stats());
    assert_eq!(holds.stats().frames_out, 3);
    drop(held);
    assert_eq!(next(&holds).sequence(), last, "the newest");
    assert_eq!(holds.stats().dropped, 201, "its own losses are its own: {:?}", holds.stats());
    let status = ask(&reads, json!({ "do": "status" })).unwrap();
    assert_eq!(status["readers"][0]["lost"], 201, "and the other side knows them: {status:?}");
}

#[test]
fn there_is_room_for_what_ten_readers_hold_also_in_the_next_format() {
    let name = unique("share-room");
    let camera = shared(&name, "width=64&height=48&fps=100");
    let readers: Vec<_> = (0..10).map(|_| reader(&name)).collect();
    for reader in &readers {
        let format =
            reader.start(&StreamRequest { buffers: 4, ..in_order() }).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(format.buffers, 4);
    }
    for width in [64, 128] {
        ask(&readers[0], json!({ "do": "format", "width": width, "height": 48 })).unwrap();
        // However much they hold, there is a slot for each frame.
        let held: Vec<_> = readers
            .iter()
            .flat_map(|reader| {
                while next(reader).width() != width {}
                (0..4).map(|_| next(reader))
            })
            .collect();
        assert_eq!(held.len(), 40);
        let first = camera.share_info().unwrap().published;
        while camera.share_info().unwrap().published < first + 50 {
            thread::sleep(Duration::from_millis(10));
        }
        let status = camera.command(map(json!({ "do": "status" })), Duration::from_secs(5)).unwrap();
        assert_eq!(status["dropped"], 0, "{status:?}");
        let holds: Vec<_> = status["readers"].as_array().unwrap().iter().map(|reader| &reader["hold"]).collect();
        assert_eq!(holds, vec![&json!(4); 10]);
    }
}

/// A process whose answers take their time.
struct Slow;

impl Commands for Slow {
    fn command(&self, verb: &str, _request: &Map) -> Option<camlease::Result<Map>> {
        (verb == "nap").then(|| {
            thread::sleep(Duration::from_millis(250));
            Ok(Map::new())
        })
    }

    fn status(&self) -> Map {
        Map::new()
    }
}

#[test]
fn a_reader_finds_back_to_a_process_that_answers_late() {
    let name = unique("share-late");
    let camera = shared(&name, "width=64&height=48&fps=100");
    let here = reader(&name);
    here.start(&in_order()).unwrap();
    next(&here);
    camera.close();
    let gone = (0..100).find_map(|_| here.next_frame(SECONDS).err()).unwrap();
    assert_eq!(gone.kind(), Kind::Disconnected);
    let camera = Camera::open(&format!("virtual:{name}?width=64&height=48&fps=100"), OpenOptions::default()).unwrap();
    let commands: Option<Arc<dyn Commands>> = Some(Arc::new(Slow));
    camera.share(ShareOptions { name: name.clone(), commands, ..ShareOptions::default() }).unwrap();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            // There is always somebody whom it is answering.
            scope.spawn(|| {
                let nagging = reader(&name);
                while !over.load(Ordering::SeqCst) {
                    ask(&nagging, json!({ "do": "nap" })).unwrap();
                }
            });
        }
        thread::sleep(Duration::from_millis(500));
        let back = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(next_after_a_gap(&here))));
        over.store(true, Ordering::SeqCst);
        assert!(back.is_ok());
    });
}

#[test]
fn a_camera_streams_while_somebody_reads() {
    let name = unique("share-demand");
    let camera = shared(&name, "width=64&height=48&fps=50");
    let reads = reader(&name);
    assert!(!camera.share_info().unwrap().streaming);
    reads.start(&in_order()).unwrap();
    next(&reads);
    assert!(camera.share_info().unwrap().streaming);
    let begun = Instant::now();
    reads.stop().unwrap();
    while camera.share_info().unwrap().streaming {
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody reads, and it streams");
        thread::sleep(Duration::from_millis(10));
    }
    assert!(begun.elapsed() > Duration::from_millis(500), "one that changes its mind pays no new start");
    reads.start(&in_order()).unwrap();
    next(&reads);
    unshare(&camera);
    assert_eq!(camera.share_info(), None);
    camera.start(&in_order()).unwrap();
    next(&camera);
    let gone = (0..100).find_map(|_| reads.next_frame(SECONDS).err()).unwrap();
    assert_eq!(gone.kind(), Kind::Disconnected);
}

#[test]
fn the_format_is_agreed() {
    let name = unique("share-format");
    let camera = shared(&name, "width=320&height=240&fps=100");
    let first = reader(&name);
    let readers = |count| eventually("readers", || camera.share_info().unwrap().readers, |now| *now == count);
    let odd = first.start(&sized(161, 120)).unwrap_err();
    assert_eq!(odd.kind(), Kind::Unsupported, "no other size than it asked for: {odd}");
    assert!(odd.message().contains("the nearest is 160x120"), "{odd}");
    readers(0);
    let format = first.start(&sized(160, 120)).unwrap();
    assert_eq!((format.width, format.height), (160, 120), "nobody else reads: as it likes");
    assert_eq!(next(&first).width(), 160);
    let second = reader(&name);
    let other = second.start(&sized(320, 240)).unwrap_err();
    assert_eq!(other.kind(), Kind::Busy);
    assert!(other.message().contains("160x120") && other.message().contains("reader"), "{other}");
    second.start(&in_order()).unwrap();
    assert_eq!(next(&second).width(), 160);
    let needs = ask(&second, json!({ "do": "format", "width": 320, "height": 240 })).unwrap_err();
    assert_eq!(needs.kind(), Kind::Busy, "the first said what it needs: {needs}");
    first.stop().unwrap();
    readers(1); // what it needed goes with it
    first.start(&in_order()).unwrap();
    let held = next(&first);
    let before = held.data(0).to_vec();
    let changed = ask(&second, json!({ "do": "format", "width": 320, "height": 240, "fps": 50 })).unwrap();
    assert_eq!((&changed["format"]["width"], &changed["format"]["fps"]), (&json!(320), &json!([50, 1])));
    for camera in [&first, &second] {
        let begun = Instant::now();
        while next_after_a_gap(camera).width() != 320 {
            assert!(begun.elapsed() < Duration::from_secs(10));
        }
        let (format, _) = camera.stream_format();
        assert_eq!((format.width, format.height), (320, 240));
    }
    assert_eq!(held.data(0), before, "of the former format, and whole");
    let refused = ask(&second, json!({ "do": "format", "fourcc": "H264" })).unwrap_err();
    assert!([Kind::Unsupported, Kind::InvalidArgument].contains(&refused.kind()), "{refused}");
    assert!(refused.message().ends_with("; the former format goes on"), "{refused}");
    assert_eq!(next_after_a_gap(&first).width(), 320, "as before");
    let status = ask(&first, json!({ "do": "status" })).unwrap();
    assert_eq!(status["format"]["fourcc"], "YUYV");
    assert!(camera.share_info().unwrap().streaming);
}

#[test]
fn commands_are_obeyed_and_mistakes_told() {
    let name = unique("share-commands");
    let camera = shared(&name, "width=64&height=48&fps=100");
    let (reads, other) = (reader(&name), reader(&name));
    reads.start(&in_order()).unwrap();
    next(&reads);
    let brightness = reads.controls().unwrap().into_iter().find(|control| control.name == "Brightness").unwrap();
    reads.set_control(brightness.id, 77).unwrap();
    assert_eq!((camera.control(brightness.id).unwrap(), other.control(brightness.id).unwrap()), (77, 77));
    assert_eq!(reads.formats().unwrap(), camera.formats().unwrap());
    ask(&other, json!({ "do": "stop" })).unwrap();
    let stopped = (0..1000).find_map(|_| reads.next_frame(SECONDS).err()).unwrap();
    assert_eq!(stopped.kind(), Kind::WrongState);
    assert!(stopped.message().contains("stopped by command"), "{stopped}");
    ask(&other, json!({ "do": "start" })).unwrap();
    next_after_a_gap(&reads);
    for (request, kind) in [
        (json!({}), Kind::InvalidArgument),
        (json!({ "do": "dance" }), Kind::Unsupported),
        (json!({ "do": "format", "width": "wide" }), Kind::InvalidArgument),
        (json!({ "do": "format", "fourcc": "MANYLETTERS" }), Kind::InvalidArgument),
        (json!({ "do": "control" }), Kind::InvalidArgument),
        (json!({ "do": "control", "control": brightness.id, "value": "bright" }), Kind::InvalidArgument),
        (json!({ "do": "x".repeat(5000) }), Kind::InvalidArgument),
    ] {
        assert_eq!(
            ask(&other, request.clone()).map(drop).map_err(|error| error.kind()),
            Err(kind),
            "{}",
            &request.to_string()[..12]
        );
    }
    next(&reads);
    let status = ask(&other, json!({ "do": "status" })).unwrap();
    assert_eq!((&status["name"], &status["streaming"], &status["trouble"]), (&json!(name), &json!(true), &Value::Null));
    assert_eq!(
        camlease::command(&name, map(json!({ "do": "status" })), Duration::from_secs(5)).unwrap()["name"],
        name.as_str()
    );
    assert!(camlease::shares().iter().any(|served| served.name == name && served.pid == std::process::id() as i32));
    let nobody = camlease::command("share-nobody", map(json!({ "do": "status" })), Duration::from_secs(5)).unwrap_err();
    assert_eq!(nobody.kind(), Kind::NotFound);
}

#[test]
fn the_control_goes_to_another_and_the_stream_goes_on() {
    let name = unique("share-control");
    let _camera = shared(&name, "width=64&height=48&fps=100");
    let (first, second) = (reader(&name), reader(&name));
    second.start(&in_order()).unwrap();
    let mut last = next(&second).sequence();
    let id = second.controls().unwrap()[0].id;
    ask(&first, json!({ "do": "take-control", "priority": 1 })).unwrap();
    let refused = second.set_control(id, 1).unwrap_err();
    assert_eq!(refused.kind(), Kind::Busy);
    assert!(refused.message().contains("priority 1"), "{refused}");
    assert_eq!(ask(&second, json!({ "do": "format", "width": 32 })).unwrap_err().kind(), Kind::Busy);
    assert_eq!(ask(&second, json!({ "do": "take-control", "priority": 1 })).unwrap_err().kind(), Kind::Busy);
    ask(&second, json!({ "do": "take-control", "priority": 2 })).unwrap();
    second.set_control(id, 1).unwrap();
    assert_eq!(first.set_control(id, 2).unwrap_err().kind(), Kind::Busy);
    ask(&second, json!({ "do": "release-control" })).unwrap();
    first.set_control(id, 2).unwrap();
    ask(&first, json!({ "do": "take-control" })).unwrap();
    drop(first);
    let begun = Instant::now();
    while second.set_control(id, 3).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it goes with the one who had it");
    }
    for _ in 0..20 {
        let frame = next(&second);
        assert!(frame.sequence() > last);
        last = frame.sequence();
    }
}

#[test]
fn monitors_look_and_touch_nothing() {
    let name = unique("share-monitor");
    let uri = format!("virtual:{name}?width=64&height=48&fps=100");
    let monitor = || OpenOptions { access: Access::Monitor, timeout: Some(Duration::ZERO), ..OpenOptions::default() };
    let nobody = Camera::open(&uri, monitor()).err().unwrap();
    assert_eq!(nobody.kind(), Kind::NotFound);
    assert!(nobody.message().contains("nobody shares it"), "{nobody}");
    let camera = shared(&name, "width=64&height=48&fps=100");
    let looks = Camera::open(&uri, monitor()).unwrap();
    looks.start(&in_order()).unwrap();
    next(&looks);
    assert_eq!(ask(&looks, json!({ "do": "stop" })).unwrap_err().kind(), Kind::Permission);
    let id = looks.controls().unwrap()[0].id;
    assert_eq!(looks.set_control(id, 1).unwrap_err().kind(), Kind::Permission);
    assert_eq!(camera.share_info().unwrap().readers, 1);
}

#[test]
fn one_who_wants_the_camera_alone_is_told_and_can_ask_for_it() {
    let name = unique("share-asked");
    let _camera = shared(&name, "width=64&height=48&fps=100");
    let reads = reader(&name);
    reads.start(&in_order()).unwrap();
    next(&reads);
    let uri = format!("virtual:{name}");
    let once = || OpenOptions { timeout: Some(Duration::ZERO), ..OpenOptions::default() };
    let busy = Camera::open(&uri, once()).err().unwrap();
    assert_eq!(busy.kind(), Kind::Busy);
    assert!(busy.message().contains(&format!("shares it as \"{name}\"")), "{busy}");
    assert!(busy.message().contains(&format!("open shared:{name} to read it")), "{busy}");
    let beside = Camera::open(&uri, OpenOptions { access: Access::Shared, ..once() }).unwrap();
    assert_eq!(beside.identity().uri, format!("shared:{name}"));
    let mut other = Party::start();
    other.refused(&format!("open {uri} ask 0 500 300 equal"), "BUSY");
    next(&reads);
    other.ok(&format!("open {uri} ask 1 5000 300 higher"));
    other.ok("start");
    other.ok("frame");
    let evicted = (0..1000).find_map(|_| reads.next_frame(SECONDS).err()).unwrap();
    assert_eq!(evicted.kind(), Kind::Evicted, "{evicted}");
    other.ok("release");
    other.ok("close");
    next_after_a_gap(&reads);
}

#[test]
fn frames_that_a_host_makes_are_shared_too() {
    let name = unique("share-made");
    let format = |width: u32, planes: Vec<(u32, usize)>| StreamFormat {
        width,
        height: 2,
        fourcc: FourCc::new(b"GREY"),
        rate: Rate::new(30, 1),
        stride: width,
        planes,
        buffers: 0,
    };
    let options = ShareOptions { name: name.clone(), ..ShareOptions::default() };
    let publisher = Publisher::new(options, &format(4, vec![(4, 8), (2, 4)])).unwrap();
    let reads = reader(&name);
    reads.start(&in_order()).unwrap();
    assert!(publisher.publish(&[&[1; 8], &[2; 3]], 41, 7_000, true));
    let frame = next(&reads);
    assert_eq!((frame.planes(), frame.data(0), frame.data(1)), (2, &[1; 8][..], &[2; 3][..]));
    assert_eq!((frame.sequence(), frame.timestamp_ns(), frame.is_corrupt()), (41, 7_000, true));
    publisher.set_format(&format(6, vec![(6, 12)])).unwrap();
    assert!(publisher.publish(&[&[9; 5]], 50, 8_000, false), "less than a whole frame, as compressed ones are");
    let small = next(&reads);
    assert_eq!((small.width(), small.data(0), small.sequence()), (6, &[9; 5][..], 50));
    assert_eq!(frame.data(0), [1; 8], "kept, though its memory is gone from the writer");
    assert_eq!(publisher.info().readers, 1);
    let wants = reader(&name).start(&sized(100, 100)).unwrap_err();
    assert!([Kind::Busy, Kind::Unsupported].contains(&wants.kind()), "{wants}");
    drop(publisher);
    let gone = reads.next_frame(SECONDS).err().unwrap();
    assert_eq!(gone.kind(), Kind::Disconnected);
    assert_eq!(small.data(0), [9; 5]);
}

/// What a host's own loop sees.
fn is_readable(camera: &Camera, within_ms: i32) -> bool {
    let mut fd = libc::pollfd { fd: camera.fd().unwrap(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd.
    unsafe { libc::poll(&mut fd, 1, within_ms) == 1 }
}

/// Whether the descriptor was readable where there is no frame: it is not after it was looked for in vain.
fn is_readable_for_nothing(camera: &Camera) -> bool {
    let readable = is_readable(camera, 0);
    if readable {
        assert_eq!(camera.next_frame(Some(Duration::ZERO)).err().map(|error| error.kind()), Some(Kind::Timeout));
        assert!(!is_readable(camera, 0), "it stays readable");
    }
    readable
}

/// A share whose frames the test makes when it wants.
fn made(name: &str) -> Publisher {
    let format = StreamFormat {
        width: 4,
        height: 2,
        fourcc: FourCc::new(b"GREY"),
        rate: Rate::new(30, 1),
        stride: 4,
        planes: vec![(4, 8)],
        buffers: 0,
    };
    Publisher::new(ShareOptions { name: name.to_owned(), ..ShareOptions::default() }, &format).unwrap()
}

#[test]
fn the_descriptor_is_readable_while_there_are_frames() {
    let name = unique("share-fd");
    let publisher = made(&name);
    let publish = |sequence| assert!(publisher.publish(&[&[1; 8]], sequence, 1, false));
    let reads = reader(&name);
    reads.start(&in_order()).unwrap();
    // Once for the answer to the start, which comes behind the first memory.
    let mut for_nothing = u32::from(is_readable_for_nothing(&reads));
    let mut sequence = 0;
    // Frames are taken without waiting, with a wait that has nothing to wait for, and with one that sleeps: whatever
    // came before, the descriptor tells of frames, and of none where there are none.
    for round in 0..100 {
        for _ in 0..=round % 3 {
            publish(sequence);
            sequence += 1;
        }
        for left in (0..=round % 3).rev() {
            assert!(is_readable(&reads, 5000), "round {round}, {left} more");
            let timeout = if (round / 3 + left) % 2 == 0 { Duration::ZERO } else { Duration::from_secs(5) };
            let frame = reads.next_frame(Some(timeout)).unwrap();
            assert_eq!(frame.sequence() + left, sequence - 1);
        }
        for_nothing += u32::from(is_readable_for_nothing(&reads));
        assert!(for_nothing <= 1, "round {round}: all were taken");
        if round % 2 == 0 {
            thread::scope(|scope| {
                let waits = scope.spawn(|| next(&reads).sequence());
                thread::sleep(Duration::from_millis(round / 10)); // asleep by then, or not yet
                publish(sequence);
                assert_eq!(waits.join().unwrap(), sequence);
            });
            sequence += 1;
            // The wait may have found the frame before it was told of it: then it is told once more.
            is_readable_for_nothing(&reads);
        }
    }
    assert_eq!(reads.next_frame(Some(Duration::ZERO)).err().unwrap().kind(), Kind::Timeout);
}

#[test]
fn several_threads_wait_on_one_reader() {
    let name = unique("share-threads");
    let publisher = made(&name);
    let reads = reader(&name);
    reads.start(&in_order()).unwrap();
    let ended = AtomicBool::new(false);
    let got = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !ended.load(Ordering::SeqCst) {
                    // Without an end: a wake-up that is lost holds up the test.
                    let frame = reads.next_frame(SECONDS).unwrap();
                    got.lock().unwrap().push(frame.sequence());
                }
            });
        }
        for round in 0..200 {
            let burst = 1 + round % 3;
            let before = got.lock().unwrap().len();
            for at in 0..burst {
                assert!(publisher.publish(&[&[1; 8]], (before + at) as u64, 1, false));
            }
            // Sooner than they would look by themselves.
            let deadline = Instant::now() + Duration::from_secs(8);
            while got.lock().unwrap().len() < before + burst {
                assert!(Instant::now() < deadline, "round {round}: a frame is there, and threads sleep");
                thread::yield_now();
            }
        }
        ended.store(true, Ordering::SeqCst);
        let before = got.lock().unwrap().len() as u64;
        (0..3).for_each(|more| assert!(publisher.publish(&[&[1; 8]], before + more, 1, false)));
    });
    let mut got = got.into_inner().unwrap();
    got.sort_unstable();
    assert!(got.iter().copied().eq(0..got.len() as u64), "each frame once: {got:?}");
}

#[test]
fn few_slots_take_turns_while_readers_keep_up() {
    let name = unique("share-turns");
    let publisher = made(&name);
    let publish = |sequence| assert!(publisher.publish(&[&[1; 8]], sequence, 1, false));
    let (quick, late) = (reader(&name), reader(&name));
    quick.start(&in_order()).unwrap();
    let mut places = HashSet::new();
    for sequence in 0..100 {
        publish(sequence);
        let frame = next(&quick);
        assert_eq!(frame.sequence(), sequence);
        places.insert(frame.data(0).as_ptr() as usize);
    }
    assert!(places.len() <= 3, "the frames lay in {} places", places.len());
    // One who is late has what is kept for such readers, whatever the others have seen of it.
    late.start(&in_order()).unwrap();
    publish(100);
    let first = next(&late).sequence();
    assert!([99, 100].contains(&first), "{first}");
    for sequence in 101..104 {
        publish(sequence);
    }
    let seen: Vec<u64> = (0..4).map(|_| next(&quick).sequence()).collect();
    assert_eq!(seen, [100, 101, 102, 103]);
    let missed: Vec<u64> = (first..103).map(|_| next(&late).sequence()).collect();
    assert_eq!(missed, (first + 1..104).collect::<Vec<_>>());
}

#[test]
fn a_name_is_one_cameras() {
    let name = unique("share-name");
    let first = shared(&name, "width=64&height=48");
    let second = Camera::open(&format!("virtual:{name}-b"), OpenOptions::default()).unwrap();
    let share = |camera: &Camera, name: &str| {
        camera.share(ShareOptions { name: name.to_owned(), ..ShareOptions::default() }).map_err(|error| error.kind())
    };
    assert_eq!(share(&second, &name), Err(Kind::Busy));
    assert_eq!(share(&second, "no/name"), Err(Kind::InvalidArgument));
    assert_eq!(share(&first, &format!("{name}-c")), Err(Kind::WrongState), "it is shared already");
    first.close();
    share(&second, &name).unwrap();
    second.close();
    assert_eq!(Camera::open(&format!("shared:{name}"), OpenOptions::default()).err().unwrap().kind(), Kind::NotFound);
}

/// A process that answers nobody while this is locked.
#[derive(Default)]
struct Stuck {
    lock: Mutex<()>,
    was_asked: AtomicBool,
}

impl Commands for Stuck {
    fn command(&self, _verb: &str, _request: &Map) -> Option<camlease::Result<Map>> {
        self.was_asked.store(true, Ordering::SeqCst);
        drop(self.lock.lock());
        Some(Ok(Map::new()))
    }

    fn status(&self) -> Map {
        Map::new()
    }
}

#[test]
fn an_open_keeps_to_its_time_whatever_its_process_does() {
    let name = unique("share-stuck");
    let camera = Camera::open(&format!("virtual:{name}"), OpenOptions::default()).unwrap();
    let stuck = Arc::new(Stuck::default());
    let options = ShareOptions { name: name.clone(), commands: Some(stuck.clone()), ..ShareOptions::default() };
    camera.share(options).unwrap();
    let kept = stuck.lock.lock();
    while !stuck.was_asked.load(Ordering::SeqCst) {
        command(&name, map(json!({ "do": "stick" })), Duration::from_millis(100)).unwrap_err();
    }
    let uri = format!("shared:{name}");
    let begun = Instant::now();
    let late = Camera::open(&uri, OpenOptions { timeout: Some(Duration::ZERO), ..OpenOptions::default() });
    assert_eq!(late.err().unwrap().kind(), Kind::Timeout);
    // And not as long as one waits that has the time.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let cancel = Event::new().unwrap();
    thread::scope(|scope| {
        let begun = Instant::now();
        scope.spawn(|| cancel.signal());
        let options = OpenOptions { timeout: None, cancel: Some(&cancel), ..OpenOptions::default() };
        assert_eq!(Camera::open(&uri, options).err().unwrap().kind(), Kind::Closed);
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    });
    drop(kept);
    assert!(Camera::open(&uri, OpenOptions::default()).is_ok());
}

/// Knows a quick command and a long one, and forgets to answer a third.
#[derive(Default)]
struct Desk(Mutex<Option<LateAnswer>>);

impl Commands for Desk {
    fn command(&self, verb: &str, _request: &Map) -> Option<camlease::Result<Map>> {
        (verb == "quick").then(|| Ok(Map::new()))
    }

    fn begin(&self, verb: &str, _request: &Map, answer: LateAnswer) -> Option<LateAnswer> {
        match verb {
            "long" => *self.0.lock().unwrap() = Some(answer),
            "forgotten" => drop(answer),
            _ => return Some(answer),
        }
        None
    }

    fn status(&self) -> Map {
        [("desk".to_owned(), "open".into())].into_iter().collect()
    }
}

#[test]
fn a_long_command_keeps_nobody_waiting() {
    let name = unique("share-desk");
    let camera = Camera::open(&format!("virtual:{name}"), OpenOptions::default()).unwrap();
    let desk = Arc::new(Desk::default());
    let options = ShareOptions { name: name.clone(), commands: Some(desk.clone()), ..ShareOptions::default() };
    camera.share(options).unwrap();
    let ask = |verb: &str| command(&name, [("do".to_owned(), verb.into())].into_iter().collect(), SECONDS.unwrap());
    thread::scope(|scope| {
        let long = scope.spawn(|| ask("long"));
        let begun = Instant::now();
        let answer = loop {
            if let Some(answer) = desk.0.lock().unwrap().take() {
                break answer;
            }
            assert!(begun.elapsed() < SECONDS.unwrap());
            thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(ask("quick").unwrap()["ok"], true);
        assert_eq!(ask("status").unwrap()["desk"], "open");
        assert!(!long.is_finished());
        answer.give(Err(Error::new(Kind::Io, "the disk is full")));
        let error = long.join().unwrap().unwrap_err();
        assert_eq!((error.kind(), error.message()), (Kind::Io, "the disk is full"));
    });
    let forgotten = ask("forgotten").unwrap_err();
    assert!(forgotten.kind() == Kind::Internal && forgotten.message().contains("gave no answer"), "{forgotten}");
    assert_eq!(ask("unheard-of").unwrap_err().kind(), Kind::Unsupported);
}

#[test]
fn a_close_ends_a_command_that_nobody_answers() {
    let name = unique("share-mute");
    let camera = Camera::open(&format!("virtual:{name}"), OpenOptions::default()).unwrap();
    let desk = Arc::new(Desk::default());
    let options = ShareOptions { name: name.clone(), commands: Some(desk.clone()), ..ShareOptions::default() };
    camera.share(options).unwrap();
    let reader = reader(&name);
    thread::scope(|scope| {
        let waits = scope.spawn(|| reader.command(map(json!({ "do": "long" })), Duration::MAX));
        let begun = Instant::now();
        while desk.0.lock().unwrap().is_none() {
            assert!(begun.elapsed() < SECONDS.unwrap());
            thread::sleep(Duration::from_millis(1));
        }
        // One that has a time keeps to it, though another one waits for the same process.
        let late = reader.command(map(json!({ "do": "status" })), Duration::from_millis(50)).unwrap_err();
        assert_eq!(late.kind(), Kind::Timeout, "{late}");
        assert!(!waits.is_finished());
        reader.close();
        let ended = waits.join().unwrap().unwrap_err();
        assert!(ended.kind() == Kind::Closed && ended.message().contains("was closed"), "{ended}");
    });
}

#[test]
fn sharing_and_hand_overs_meet() {
    let name = unique("share-meets");
    let uri = format!("virtual:{name}?width=64&height=48&fps=100");
    let (told, over) = std::sync::mpsc::channel();
    let tries = thread::spawn(move || {
        let camera = Camera::open(&uri, OpenOptions::default()).unwrap();
        for round in 0..30 {
            let ended = AtomicBool::new(false);
            thread::scope(|scope| {
                // Whoever gets the camera back files its lease, which tells by what name it is shared.
                scope.spawn(|| {
                    let asks =
                        OpenOptions { on_busy: OnBusy::Ask, priority: 1, timeout: SECONDS, ..Default::default() };
                    drop(Camera::open(&uri, asks).unwrap());
                    let _ = camera.regain(Some(Duration::from_millis(50)));
                    ended.store(true, Ordering::SeqCst);
                });
                while !ended.load(Ordering::SeqCst) {
                    if camera.share(ShareOptions { name: name.clone(), ..ShareOptions::default() }).is_ok() {
                        unshare(&camera);
                    }
                }
            });
            // Whatever met: it is the host's again.
            if let Err(error) = camera.regain(SECONDS) {
                assert!(error.message().contains("it is held"), "round {round}: {error}");
            }
            camera.start(&in_order()).unwrap_or_else(|error| panic!("round {round}: {error}"));
            next(&camera);
            camera.stop().unwrap();
        }
        told.send(()).unwrap();
    });
    let in_time = over.recv_timeout(Duration::from_secs(200));
    assert!(in_time != Err(std::sync::mpsc::RecvTimeoutError::Timeout), "they wait for each other");
    tries.join().unwrap();
}

#[test]
fn a_driver_that_hangs_keeps_the_stream_and_no_reader() {
    let name = unique("share-hangs");
    let camera = shared(&name, "width=64&height=48&fps=100&hang=3");
    let reads = reader(&name);
    reads.start(&in_order()).unwrap();
    let begun = Instant::now();
    while camera.share_info().unwrap().pulse < Duration::from_secs(4) {
        assert!(begun.elapsed() < SECONDS.unwrap(), "it does not hang");
        thread::sleep(Duration::from_millis(10));
    }
    let begun = Instant::now();
    assert!(camera.stats().frames > 0, "how it fares is told meanwhile");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    for _ in 0..2 {
        let refused = camera.unshare().unwrap_err();
        assert_eq!(refused.kind(), Kind::Timeout, "{refused}");
        assert_eq!(camera.start(&in_order()).unwrap_err().kind(), Kind::WrongState, "a thread of the share's has it");
    }
    let gone = (0..100).find_map(|_| reads.next_frame(SECONDS).err()).unwrap();
    assert_eq!(gone.kind(), Kind::Disconnected, "{gone}");
    assert_eq!(Camera::open(&format!("shared:{name}"), OpenOptions::default()).err().unwrap().kind(), Kind::NotFound);
    // Its close would wait for the driver.
    std::mem::forget(camera);
}

#[test]
fn frames_go_on_when_a_new_format_leaves_room_for_few_readers() {
    let name = unique("share-few");
    let format = |pages: usize| StreamFormat {
        width: 4096,
        height: pages as u32,
        fourcc: FourCc::new(b"GREY"),
        rate: Rate::new(30, 1),
        stride: 4096,
        planes: vec![(4096, pages * 4096)],
        buffers: 0,
    };
    let options = ShareOptions { name: name.clone(), max_bytes: 64 * 4096, ..ShareOptions::default() };
    let publisher = Publisher::new(options, &format(1)).unwrap();
    let mut readers: Vec<_> = (0..12).map(|_| reader(&name)).collect();
    for reader in &readers {
        let format = reader.start(&StreamRequest { buffers: 3, ..in_order() }).unwrap();
        assert_eq!(format.buffers, 3);
    }
    publisher.set_format(&format(6)).unwrap();
    // Ten slots: some can hold frames of that size, and the others are told why they cannot.
    let mut held = Vec::new();
    for sequence in 0..50 {
        assert!(publisher.publish(&[&[1; 6 * 4096]], sequence, 1, false), "a slot for frame {sequence}");
        for reader in &readers {
            held.extend(reader.next_frame(Some(Duration::ZERO)));
        }
    }
    let (serving, waiting): (Vec<_>, Vec<_>) = readers.drain(..).partition(|reader| reader.stats().frames_out > 0);
    assert!(!serving.is_empty() && waiting.len() > 5, "{} {}", serving.len(), waiting.len());
    for reader in &waiting {
        let told = reader.next_frame(Some(Duration::from_millis(1))).err().unwrap();
        assert_eq!(told.kind(), Kind::Budget, "{told}");
    }
    drop((held, serving));
    let begun = Instant::now();
    let mut sequence = 100;
    while waiting[0].next_frame(Some(Duration::from_millis(10))).is_err() {
        assert!(begun.elapsed() < SECONDS.unwrap(), "others have left, and it gets no frames");
        publisher.publish(&[&[1; 6 * 4096]], sequence, 1, false);
        sequence += 1;
    }
}

#[test]
fn a_camera_that_another_one_shares_is_not_shared_again() {
    let name = unique("share-again");
    let camera = shared(&name, "width=64&height=48&fps=100");
    let beside = OpenOptions { access: Access::Shared, ..OpenOptions::default() };
    let beside = Camera::open(&format!("virtual:{name}"), beside).unwrap();
    let every = Camera::open(&format!("shared:{name}?every=2"), OpenOptions::default()).unwrap();
    for camera in [&beside, &every] {
        let options = ShareOptions { name: format!("{name}-b"), ..ShareOptions::default() };
        let refused = camera.share(options).unwrap_err();
        assert_eq!(refused.kind(), Kind::Unsupported);
        assert!(refused.message().ends_with(&format!("; have the readers open shared:{name}")), "{refused}");
        camera.start(&in_order()).unwrap();
        next(camera);
    }
    drop(camera);
}

/// Else the host would stream while readers wait, or stop a stream that is theirs.
#[test]
fn of_a_start_and_a_share_at_once_one_is_refused() {
    let name = unique("race");
    let camera = Camera::open(&format!("virtual:{name}?fps=100"), OpenOptions::default()).unwrap();
    let mut was_shared = 0;
    for round in 0..200u32 {
        let barrier = Barrier::new(2);
        let (shared, started) = thread::scope(|scope| {
            let shared = scope.spawn(|| {
                barrier.wait();
                camera.share(ShareOptions { name: name.clone(), ..ShareOptions::default() })
            });
            barrier.wait();
            thread::sleep(Duration::from_micros(2) * (round % 50));
            let started = camera.start(&StreamRequest::default());
            (shared.join().unwrap(), started)
        });
        match (shared, started) {
            (Ok(()), Err(refusal)) => {
                assert_eq!(refusal.kind(), Kind::WrongState, "{refusal}");
                unshare(&camera);
                was_shared += 1;
            }
            (Err(refusal), Ok(_)) => {
                assert_eq!(refusal.kind(), Kind::WrongState, "{refusal}");
                camera.stop().unwrap();
            }
            both => panic!("{both:?}"),
        }
    }
    println!("shared {was_shared} times of 200");
}
