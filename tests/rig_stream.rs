//! Streaming from real drivers: formats, rates, buffers, drop policies, timestamps, controls, and frames that outlive
//! their stream.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use camlease::{Camera, ControlKind, DropPolicy, FourCc, Kind, OpenOptions, Rate, StreamRequest};
use camlease_rig::vivid::{self, VividOptions};
use camlease_rig::{Webcam, WebcamOptions, alone, picture, require_guest, set_control, v4l2_ctl_streams};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));

fn vivid(multiplanar: bool) -> PathBuf {
    require_guest();
    vivid::load(VividOptions { multiplanar, first_number: Some(40), ..VividOptions::default() }).remove(0)
}

fn open(node: &Path) -> Camera {
    let uri = node.to_str().unwrap();
    Camera::open(uri, OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn code(text: &str) -> FourCc {
    FourCc::parse(text).unwrap()
}

fn request(fourcc: &str, width: u32, height: u32) -> StreamRequest {
    StreamRequest { fourcc: code(fourcc), width, height, rate: Rate::new(30, 1), ..StreamRequest::default() }
}

fn monotonic_ns() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for a timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn readable(fd: i32, timeout_ms: i32) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry.
    unsafe { libc::poll(&mut entry, 1, timeout_ms) == 1 }
}

#[test]
fn formats_are_listed_chosen_and_read_back() {
    let _alone = alone();
    let camera = open(&vivid(false));
    let formats = camera.formats().unwrap();
    for fourcc in ["YUYV", "NV12", "RGB3", "GREY"] {
        assert!(formats.iter().any(|format| format.fourcc == code(fourcc)), "{fourcc}");
    }
    for (fourcc, stride, bytes) in
        [("YUYV", 1280, 640 * 360 * 2), ("NV12", 640, 640 * 360 * 3 / 2), ("GREY", 640, 640 * 360)]
    {
        let given = camera.start(&request(fourcc, 640, 360)).unwrap();
        assert_eq!((given.fourcc, given.width, given.height), (code(fourcc), 640, 360));
        assert_eq!(given.planes, [(stride, bytes)], "{fourcc}");
        let frame = camera.next_frame(PATIENCE).unwrap();
        assert_eq!((frame.data(0).len(), frame.stride(0), frame.planes()), (bytes, stride, 1), "{fourcc}");
        drop(frame);
        camera.stop().unwrap();
    }
    // The driver gives the nearest that it has, and what it gave is told.
    let given = camera.start(&request("YUYV", 650, 370)).unwrap();
    assert_eq!((given.width, given.height), (640, 360));
    assert_eq!(given.rate, Rate::new(30, 1));
    camera.stop().unwrap();
    let error = camera.start(&request("MJPG", 640, 360)).unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.message().contains("does not offer MJPG") && error.message().contains("YUYV"), "{error}");
    // A start that failed leaves the camera held and usable.
    camera.start(&request("YUYV", 640, 360)).unwrap();
    drop(camera.next_frame(PATIENCE).unwrap());
}

#[test]
fn frames_in_several_planes() {
    let _alone = alone();
    let camera = open(&vivid(true));
    let given = camera.start(&request("NM12", 640, 360)).unwrap();
    assert_eq!(given.planes, [(640, 640 * 360), (640, 640 * 180)]);
    let frame = camera.next_frame(PATIENCE).unwrap();
    assert_eq!(frame.planes(), 2);
    assert_eq!([frame.data(0).len(), frame.data(1).len()], [640 * 360, 640 * 180]);
    let copies = [frame.data(0).to_vec(), frame.data(1).to_vec()];
    assert!(copies.iter().all(|plane| plane.iter().any(|&byte| byte != plane[0])), "there is a picture in each plane");
    camera.close();
    assert_eq!([frame.data(0), frame.data(1)], copies, "both planes stay readable after the close");
}

#[test]
fn any_number_of_buffers_within_a_bound_on_memory() {
    let _alone = alone();
    let camera = open(&vivid(false));
    for buffers in [2, 3, 8, 32] {
        let given = camera.start(&StreamRequest { buffers, ..request("YUYV", 640, 360) }).unwrap();
        assert_eq!(given.buffers, buffers);
        drop(camera.next_frame(PATIENCE).unwrap());
        camera.stop().unwrap();
    }
    let bytes = 640 * 360 * 2;
    let bounded = |max_bytes| StreamRequest { max_bytes, ..request("YUYV", 640, 360) };
    assert_eq!(camera.start(&bounded(3 * bytes + 1)).unwrap().buffers, 3);
    camera.stop().unwrap();
    let error = camera.start(&bounded(bytes)).unwrap_err();
    assert_eq!(error.kind(), Kind::Budget, "{error}");
    let error = camera.start(&StreamRequest { buffers: 33, ..StreamRequest::default() }).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
}

#[test]
fn the_newest_or_all_in_order() {
    let _alone = alone();
    let camera = open(&vivid(false));
    let late = Duration::from_millis(500); // fifteen frames

    // vivid numbers frames by the time that has passed: one for which its thread came too late is never made.
    support::judged(|| {
        camera.start(&StreamRequest { drop_policy: DropPolicy::Newest, ..request("YUYV", 640, 360) }).unwrap();
        let first = camera.next_frame(PATIENCE).unwrap().sequence();
        std::thread::sleep(late);
        let ahead: Vec<u64> = (0..3).map(|_| camera.next_frame(PATIENCE).unwrap().sequence() - first).collect();
        camera.stop().unwrap();
        if ahead == [1, 2, 3] { Ok(()) } else { Err(format!("not in order from where the host left off: {ahead:?}")) }
    });

    let dropped_before = camera.stats().dropped;
    camera.start(&StreamRequest { drop_policy: DropPolicy::Oldest, ..request("YUYV", 640, 360) }).unwrap();
    let first = camera.next_frame(PATIENCE).unwrap().sequence();
    let (mut last, mut youngest) = (first, i64::MAX);
    let tries = 5; // a machine that is slow may be so just before it looks at the clock
    for _ in 0..tries {
        std::thread::sleep(late);
        let frame = camera.next_frame(PATIENCE).unwrap();
        youngest = youngest.min(monotonic_ns() - frame.timestamp_ns());
        let ahead = frame.sequence() - last;
        assert!(ahead >= 8, "the newest: {ahead} frames ahead");
        last = frame.sequence();
    }
    assert!(youngest < 150_000_000, "and it is young: {youngest} ns");
    assert_eq!(camera.stats().dropped - dropped_before, last - first - tries);
}

#[test]
fn a_frame_cannot_come_while_all_buffers_are_out() {
    let _alone = alone();
    let camera = open(&vivid(false));
    camera.start(&StreamRequest { buffers: 2, drop_policy: DropPolicy::Newest, ..request("YUYV", 640, 360) }).unwrap();
    let out = [camera.next_frame(PATIENCE).unwrap(), camera.next_frame(PATIENCE).unwrap()];
    assert_eq!((camera.stats().frames_out, camera.stats().bytes_out), (2, 2 * 640 * 360 * 2));
    let error = camera.next_frame(Some(Duration::from_millis(200))).err().unwrap();
    assert_eq!(error.kind(), Kind::Timeout);
    assert!(error.message().contains("all 2 buffers are out"), "{error}");
    drop(out);
    drop(camera.next_frame(PATIENCE).unwrap());
    assert_eq!((camera.stats().frames_out, camera.stats().bytes_out), (0, 0));
}

#[test]
fn frames_outlive_stop_and_close() {
    let _alone = alone();
    let node = vivid(false);
    let camera = open(&node);
    camera.start(&request("YUYV", 640, 360)).unwrap();
    let first = camera.next_frame(PATIENCE).unwrap();
    let (address, copy) = (first.data(0).as_ptr(), first.data(0).to_vec());
    camera.stop().unwrap();
    assert_eq!((first.data(0).as_ptr(), first.data(0)), (address, &copy[..]));
    // The next stream has buffers of its own, and a frame of the last does not end up in it.
    camera.start(&request("YUYV", 320, 180)).unwrap();
    let second = camera.next_frame(PATIENCE).unwrap();
    assert_eq!(second.data(0).len(), 320 * 180 * 2);
    drop(first);
    drop(camera.next_frame(PATIENCE).unwrap());
    let copy = second.data(0).to_vec();
    drop(camera);
    assert_eq!(v4l2_ctl_streams(&node, 3), Ok(()), "the device is free with a frame out");
    assert_eq!(second.data(0), copy);
}

#[test]
fn the_descriptor_works_in_loops() {
    let _alone = alone();
    let camera = open(&vivid(false));
    let fd = camera.fd().unwrap();
    assert!(!readable(fd, 0), "not before the start");
    camera.start(&request("YUYV", 640, 360)).unwrap();
    for _ in 0..5 {
        assert!(readable(fd, 5000));
        drop(camera.next_frame(Some(Duration::ZERO)).unwrap());
    }
    // SAFETY: zeroed sets and structs are valid, the descriptors are open, and room is given for one event.
    unsafe {
        let mut set: libc::fd_set = std::mem::zeroed();
        libc::FD_SET(fd, &mut set);
        let mut time = libc::timeval { tv_sec: 5, tv_usec: 0 };
        assert_eq!(libc::select(fd + 1, &mut set, std::ptr::null_mut(), std::ptr::null_mut(), &mut time), 1);
        let epoll = libc::epoll_create1(libc::EPOLL_CLOEXEC);
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 7 };
        assert_eq!(libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &mut event), 0);
        assert_eq!(libc::epoll_wait(epoll, &mut event, 1, 5000), 1);
        libc::close(epoll);
    }
    camera.stop().unwrap();
    assert!(!readable(fd, 100), "not after the stop");
    camera.close();
    assert!(readable(fd, 0), "a loop is woken by the end");
    assert_eq!(camera.next_frame(PATIENCE).err().unwrap().kind(), Kind::Closed);
}

#[test]
fn a_stop_wakes_those_who_wait() {
    let _alone = alone();
    let camera = open(&vivid(false));
    camera.start(&StreamRequest { buffers: 2, drop_policy: DropPolicy::Newest, ..request("YUYV", 640, 360) }).unwrap();
    let _out = [camera.next_frame(PATIENCE).unwrap(), camera.next_frame(PATIENCE).unwrap()];
    std::thread::scope(|scope| {
        let waiters: Vec<_> = (0..3).map(|_| scope.spawn(|| camera.next_frame(None).err().unwrap().kind())).collect();
        std::thread::sleep(Duration::from_millis(100));
        camera.stop().unwrap();
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Kind::WrongState);
        }
    });
    assert!(!readable(camera.fd().unwrap(), 50), "the wake-up is over");
    camera.start(&request("YUYV", 640, 360)).unwrap();
    drop(camera.next_frame(PATIENCE).unwrap());
}

#[test]
fn controls_are_listed_read_and_set() {
    let _alone = alone();
    let camera = open(&vivid(false));
    let controls = camera.controls().unwrap();
    let named = |name: &str| controls.iter().find(|control| control.name == name).unwrap_or_else(|| panic!("{name}"));
    let brightness = named("Brightness");
    assert_eq!((brightness.kind, brightness.minimum, brightness.maximum), (ControlKind::Integer, 0, 255));
    for value in [10, 200] {
        camera.set_control(brightness.id, value).unwrap();
        assert_eq!(camera.control(brightness.id).unwrap(), value);
    }
    // Drivers clamp what is out of range.
    camera.set_control(brightness.id, 100_000).unwrap();
    assert_eq!(camera.control(brightness.id).unwrap(), 255);
    assert_eq!(camera.set_control(brightness.id, 1 << 40).unwrap_err().kind(), Kind::InvalidArgument);
    let pattern = named("Test Pattern");
    assert_eq!(pattern.kind, ControlKind::Menu);
    assert!(pattern.menu.iter().any(|(_, name)| name.contains("Colorbar")), "{:?}", pattern.menu);
    let wide = named("Integer 64 Bits");
    assert_eq!(wide.kind, ControlKind::Integer64);
    camera.set_control(wide.id, -5_000_000_000).unwrap();
    assert_eq!(camera.control(wide.id).unwrap(), -5_000_000_000);
    let text = named("String");
    assert_eq!((text.kind, text.readable, text.writable), (ControlKind::Other, false, false));
    assert_eq!(camera.control(1).unwrap_err().kind(), Kind::InvalidArgument);
}

#[test]
fn corrupt_and_dropped_frames_are_counted() {
    let _alone = alone();
    let node = vivid(false);
    let camera = open(&node);
    camera.start(&StreamRequest { drop_policy: DropPolicy::Newest, ..request("YUYV", 640, 360) }).unwrap();
    drop(camera.next_frame(PATIENCE).unwrap());
    set_control(&node, "inject_v4l2_buf_flag_error", 1);
    let corrupt = (0..60).any(|_| camera.next_frame(PATIENCE).unwrap().is_corrupt());
    assert!(corrupt, "one of the next frames is flagged");
    assert_eq!(camera.stats().corrupt, 1);
    let dropped = camera.stats().dropped;
    set_control(&node, "percentage_of_dropped_buffers", 50);
    // Which ones is chance: some dozen frames are enough, and 200 always are.
    let counted = (0..200).any(|_| {
        drop(camera.next_frame(PATIENCE).unwrap());
        camera.stats().dropped > dropped + 5
    });
    set_control(&node, "percentage_of_dropped_buffers", 0);
    assert!(counted, "{:?}", camera.stats());
}

#[test]
fn a_usb_camera_in_both_formats_with_true_pictures() {
    let _alone = alone();
    require_guest();
    for bulk in [false, true] {
        let webcam = Webcam::plug(WebcamOptions { bulk, ..WebcamOptions::default() });
        let camera = open(&webcam.node());
        let given = camera.start(&StreamRequest { drop_policy: DropPolicy::Newest, ..request("YUYV", 0, 0) }).unwrap();
        let mut last = None;
        for _ in 0..10 {
            let frame = camera.next_frame(PATIENCE).unwrap();
            assert!(!frame.is_corrupt());
            let number = picture::number_in_yuyv(frame.data(0), given.width, given.height).expect("a whole picture");
            assert!(last.is_none_or(|last| number > last), "{number} after {last:?}");
            last = Some(number);
        }
        camera.stop().unwrap();
        let given = camera.start(&request("MJPG", 0, 0)).unwrap();
        assert_eq!(given.fourcc, code("MJPG"));
        let frame = camera.next_frame(PATIENCE).unwrap();
        let bytes = frame.data(0);
        assert!(
            bytes.starts_with(&[0xff, 0xd8]) && bytes.ends_with(&[0xff, 0xd9]),
            "a JPEG from its first byte to its last"
        );
        assert!(!frame.is_corrupt());
    }
}

#[test]
fn timestamps_are_monotonic_whatever_the_drivers_clock() {
    let _alone = alone();
    require_guest();
    for clock in ["CLOCK_MONOTONIC", "CLOCK_REALTIME"] {
        let webcam = Webcam::plug(WebcamOptions { driver: vec![("clock", clock)], ..WebcamOptions::default() });
        let camera = open(&webcam.node());
        camera.start(&StreamRequest { drop_policy: DropPolicy::Newest, ..StreamRequest::default() }).unwrap();
        let mut last = 0;
        for _ in 0..5 {
            let frame = camera.next_frame(PATIENCE).unwrap();
            let age = monotonic_ns() - frame.timestamp_ns();
            assert!((0..2_000_000_000).contains(&age), "{clock}: {age} ns old");
            assert!(frame.timestamp_ns() > last, "{clock}");
            last = frame.timestamp_ns();
        }
    }
}

#[test]
fn unplugged_and_back() {
    let _alone = alone();
    require_guest();
    let webcam = Webcam::plug(WebcamOptions { serial: "BACK1".into(), ..WebcamOptions::default() });
    let node = webcam.node();
    let camera = open(&node);
    camera.start(&StreamRequest::default()).unwrap();
    let frame = camera.next_frame(PATIENCE).unwrap();
    let copy = frame.data(0).to_vec();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| std::iter::repeat_with(|| camera.next_frame(None)).find_map(Result::err).unwrap());
        webcam.order("detach");
        let error = waiter.join().unwrap();
        assert_eq!((error.kind(), error.errno()), (Kind::Disconnected, libc::ENODEV), "{error}");
    });
    println!("told of the unplug {} ms after the order", begun.elapsed().as_millis());
    assert_eq!(camera.set_control(0x0098_0900, 1).unwrap_err().kind(), Kind::Disconnected);
    assert_eq!(camera.stop().unwrap_err().kind(), Kind::Disconnected);
    assert_eq!(frame.data(0), copy);
    drop(camera);
    let again = webcam.replug();
    let camera = open(&again);
    camera.start(&StreamRequest::default()).unwrap();
    drop(camera.next_frame(PATIENCE).unwrap());
    assert_eq!(frame.data(0), copy, "the frame outlives its device");
}

#[test]
fn a_slow_control_does_not_hold_frames_up() {
    let _alone = alone();
    require_guest();
    let webcam = Webcam::plug(WebcamOptions::default());
    let camera = open(&webcam.node());
    camera.start(&StreamRequest { drop_policy: DropPolicy::Newest, ..StreamRequest::default() }).unwrap();
    drop(camera.next_frame(PATIENCE).unwrap());
    webcam.order("delay-controls 1000");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let begun = Instant::now();
            camera.set_control(0x0098_0900, 5).unwrap();
            begun.elapsed()
        });
        let mut frames = 0;
        while !slow.is_finished() {
            // The simulated camera answers one request after the other: frames come in between where they can.
            frames += u32::from(camera.next_frame(Some(Duration::from_millis(100))).is_ok());
        }
        let took = slow.join().unwrap();
        println!("{frames} frames during a control of {} ms", took.as_millis());
        assert!(took >= Duration::from_millis(900), "{took:?}");
        assert!(frames >= 10, "{frames} frames in {took:?}");
    });
    webcam.order("delay-controls 0");
    drop(camera.next_frame(PATIENCE).unwrap());
}

#[test]
fn a_spawned_program_inherits_nothing_and_disturbs_nothing() {
    let _alone = alone();
    let node = vivid(false);
    let camera = open(&node);
    camera.start(&StreamRequest { drop_policy: DropPolicy::Newest, ..request("YUYV", 640, 360) }).unwrap();
    let frame = camera.next_frame(PATIENCE).unwrap();
    let copy = frame.data(0).to_vec();
    // posix_spawn: the child shares the parent's memory until it execs, and no fork handler runs.
    let mut children: Vec<_> = (0..5).map(|_| Command::new("sleep").arg("30").spawn().unwrap()).collect();
    for child in &children {
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap().flatten();
        let targets: Vec<_> = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect();
        assert!(!targets.contains(&node), "{targets:?}");
    }
    (0..5).for_each(|_| drop(camera.next_frame(PATIENCE).unwrap()));
    assert_eq!(frame.data(0), copy);
    drop(camera);
    assert_eq!(v4l2_ctl_streams(&node, 2), Ok(()));
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
