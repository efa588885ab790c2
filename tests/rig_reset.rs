//! Resets of a USB webcam's port, on real uvcvideo: it comes back as itself, streaming where it did, or is lost with the
//! reason; and nothing is left behind.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use camlease::{Camera, DropPolicy, Error, FourCc, Kind, LastExit, OpenOptions, StreamRequest};
use camlease_rig::foreign::Stream;
use camlease_rig::vivid::{self, VividOptions};
use camlease_rig::{Webcam, WebcamOptions, alone, picture, udev, v4l2_ctl_streams, wait_for};
use libc::{
    EACCES, EBUSY, EINTR, EINVAL, EIO, EMFILE, ENODEV, ENOENT, ENOMEM, ENOSPC, EPERM, EPROTO, ETIMEDOUT, EWOULDBLOCK,
};
use support::faults::{Case, run_cases};

const PATIENCE: Duration = Duration::from_secs(30);
const BRIGHTNESS: u32 = 0x0098_0900;

fn plug(serial: &str) -> Webcam {
    Webcam::plug(WebcamOptions { serial: serial.into(), ..WebcamOptions::default() })
}

fn uri(webcam: &Webcam) -> String {
    webcam.node().display().to_string()
}

fn open(uri: &str) -> Camera {
    Camera::open(uri, OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// In order, two buffers: once both are out, no frame can come.
fn small() -> StreamRequest {
    StreamRequest {
        fourcc: FourCc::new(b"YUYV"),
        width: 320,
        height: 180,
        buffers: 2,
        drop_policy: DropPolicy::Newest,
        ..StreamRequest::default()
    }
}

#[track_caller]
fn reset(camera: &Camera) -> Duration {
    let begun = Instant::now();
    camera.reset(Some(PATIENCE)).unwrap_or_else(|error| panic!("{error}"));
    begun.elapsed()
}

#[track_caller]
fn failed<T>(result: Result<T, Error>, kind: Kind, parts: &[&str]) -> Error {
    let Err(error) = result else { panic!("no error, where {kind:?} was due") };
    assert_eq!(error.kind(), kind, "{error}");
    for part in parts {
        assert!(error.message().contains(part), "\"{part}\" is not in: {error}");
    }
    error
}

/// What a node is to the kernel: another one after the driver let go of the camera and took it again.
fn incarnation(node: &str) -> u64 {
    fs::metadata(format!("/sys/class/video4linux/{}", node.strip_prefix("/dev/").unwrap())).unwrap().ino()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn readable(fd: i32, timeout_ms: i32) -> bool {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry.
    unsafe { libc::poll(&mut entry, 1, timeout_ms) == 1 }
}

#[test]
fn an_idle_camera_is_as_plugged_in_anew_and_idle_again() {
    let _alone = alone();
    let webcam = plug("IDLE");
    let node = uri(&webcam);
    let camera = open(&node);
    let default = camera.control(BRIGHTNESS).unwrap();
    camera.set_control(BRIGHTNESS, default + 1).unwrap();
    let (before, frames) = (incarnation(&node), webcam.state("frames"));
    let took = reset(&camera);
    println!("an idle camera: {} ms", took.as_millis());
    assert_ne!(incarnation(&node), before, "the driver let go of it");
    assert_eq!(camera.control(BRIGHTNESS).unwrap(), default, "it has been reset");
    assert!(webcam.state("frames") > frames, "it gave a fresh frame");
    assert_eq!(webcam.state("streaming"), 0);
    assert!(!camera.stream_format().1 && !readable(camera.fd().unwrap(), 0));
    assert_eq!((camera.stats().resets, camera.stats().frames), (1, 0));
    assert_eq!(camera.identity().serial, "IDLE");
    let busy = Camera::open(&node, OpenOptions { timeout: Some(Duration::ZERO), ..OpenOptions::default() });
    failed(busy, Kind::Busy, &["this process itself"]);
    camera.start(&small()).unwrap();
    drop(camera.next_frame(Some(PATIENCE)).unwrap());
    drop(camera);
    assert_eq!(v4l2_ctl_streams(Path::new(&node), 3), Ok(()));
}

#[test]
fn a_stream_goes_on() {
    let _alone = alone();
    for bulk in [false, true] {
        let webcam = Webcam::plug(WebcamOptions { serial: "GOESON".into(), bulk, ..WebcamOptions::default() });
        let camera = open(&uri(&webcam));
        let given = camera.start(&small()).unwrap();
        let fd = camera.fd().unwrap();
        for _ in 0..5 {
            drop(camera.next_frame(Some(PATIENCE)).unwrap());
        }
        let out = [camera.next_frame(Some(PATIENCE)).unwrap(), camera.next_frame(Some(PATIENCE)).unwrap()];
        let seen: Vec<_> = out.iter().map(|frame| (frame.data(0).as_ptr() as usize, frame.data(0).to_vec())).collect();
        let last = out[1].sequence();
        std::thread::scope(|scope| {
            // It waits in vain for as long as both buffers are out.
            let waiter = scope.spawn(|| camera.next_frame(None).map(|frame| (frame.sequence(), Instant::now())));
            std::thread::sleep(Duration::from_millis(200));
            assert!(!waiter.is_finished());
            let took = reset(&camera);
            println!("a streaming camera, bulk {bulk}: {} ms", took.as_millis());
            let (sequence, _) = waiter.join().unwrap().unwrap_or_else(|error| panic!("{error}"));
            assert!(sequence < last, "the sequence begins anew: {sequence} after {last}");
        });
        assert_eq!(camera.stream_format(), (given, true));
        for (frame, (address, bytes)) in out.iter().zip(&seen) {
            assert_eq!((frame.data(0).as_ptr() as usize, frame.data(0)), (*address, &bytes[..]));
        }
        let old = picture::number_in_yuyv(out[1].data(0), 320, 180).unwrap();
        // Frames of the stream before do not end up in the new one.
        drop(out);
        let mut sequence = None;
        for _ in 0..10 {
            let frame = camera.next_frame(Some(PATIENCE)).unwrap();
            assert!(sequence.is_none_or(|before| frame.sequence() > before));
            sequence = Some(frame.sequence());
            assert!(picture::number_in_yuyv(frame.data(0), 320, 180).unwrap() > old);
        }
        let stats = camera.stats();
        assert_eq!((stats.resets, stats.frames_out, stats.bytes_out), (1, 0, 0));
        assert!(readable(fd, 5000), "the descriptor is the same");
        reset(&camera);
        assert_eq!(camera.stats().resets, 2);
        camera.stop().unwrap();
        camera.start(&small()).unwrap();
        drop(camera.next_frame(Some(PATIENCE)).unwrap());
    }
}

#[test]
fn a_camera_that_refuses_at_first_and_a_silent_one() {
    let _alone = alone();
    let webcam = plug("SLOW");
    let camera = open(&uri(&webcam));
    camera.start(&small()).unwrap();
    webcam.order("stall-commit 2");
    reset(&camera);
    assert_eq!(webcam.state("stall-commit"), 0);
    drop(camera.next_frame(Some(PATIENCE)).unwrap());

    webcam.order("pause");
    failed(camera.reset(Some(Duration::from_secs(3))), Kind::Timeout, &["back after its reset, but gave no frame"]);
    assert!(camera.stream_format().1, "it is held, and streams");
    webcam.order("resume");
    drop(camera.next_frame(Some(PATIENCE)).unwrap());
    assert_eq!(camera.stats().resets, 2);
}

#[test]
fn it_comes_back_under_another_number() {
    let _alone = alone();
    let webcam = plug("NUMBER");
    let node = uri(&webcam);
    let camera = open(&node);
    camera.start(&small()).unwrap();
    // Whoever merely has the node open keeps its number from being given away.
    let open_elsewhere = fs::File::open(&node).unwrap();
    reset(&camera);
    assert_ne!(uri(&webcam), node);
    drop(camera.next_frame(Some(PATIENCE)).unwrap());
    drop(open_elsewhere);
    reset(&camera);
    drop(camera.next_frame(Some(PATIENCE)).unwrap());
}

#[test]
fn a_twin_beside_it_is_not_taken_for_it() {
    let _alone = alone();
    let (webcam, twin) = (plug("TWIN"), plug("TWIN"));
    let camera = open(&uri(&webcam));
    camera.start(&small()).unwrap();
    for _ in 0..3 {
        reset(&camera);
        drop(camera.next_frame(Some(PATIENCE)).unwrap());
        assert_eq!((webcam.state("streaming"), twin.state("streaming")), (1, 0));
    }
    // With the same serial number, too, which many cameras of a model have.
    webcam.order("vanish");
    failed(camera.reset(Some(Duration::from_secs(9))), Kind::Disconnected, &["has not come back"]);
    assert_eq!(twin.state("frames"), 0, "nobody touched it");
    let named = camlease::reset(&format!("usb:{}:TWIN", ids(&twin)), Some(PATIENCE));
    assert!(named.is_ok(), "the one that is left: {named:?}");
    webcam.replug();
    let named = camlease::reset(&format!("usb:{}:TWIN", ids(&twin)), Some(PATIENCE));
    failed(named, Kind::InvalidArgument, &["2 cameras are meant"]);
}

fn ids(webcam: &Webcam) -> String {
    let id = |name: &str| fs::read_to_string(webcam.usb_device().join(name)).unwrap().trim().to_owned();
    format!("{}:{}", id("idVendor"), id("idProduct"))
}

#[test]
fn it_is_found_by_its_serial_number_in_another_port() {
    let _alone = alone();
    let first = plug("FIRST");
    let webcam = plug("MOVES");
    let camera = open(&uri(&webcam));
    let place = webcam.usb_device();
    webcam.order("vanish");
    std::thread::scope(|scope| {
        let resetting = scope.spawn(|| camera.reset(Some(PATIENCE)));
        wait_for("it to be gone", PATIENCE, || (!place.exists()).then_some(()));
        drop(first); // its port is the first free one
        let moved = plug("MOVES");
        assert_ne!(moved.usb_device(), place);
        resetting.join().unwrap().unwrap_or_else(|error| panic!("{error}"));
        camera.start(&small()).unwrap();
        drop(camera.next_frame(Some(PATIENCE)).unwrap());
        assert_eq!(moved.state("streaming"), 1);
    });
}

#[test]
fn a_camera_that_does_not_come_back_is_lost_and_let_go() {
    let _alone = alone();
    let webcam = plug("LOST");
    let node = uri(&webcam);
    let before = descriptors();
    let camera = open(&node);
    camera.start(&small()).unwrap();
    let frame = camera.next_frame(Some(PATIENCE)).unwrap();
    let bytes = frame.data(0).to_vec();
    let fd = camera.fd().unwrap();
    webcam.order("vanish");
    let begun = Instant::now();
    let limit = Duration::from_secs(2);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| std::iter::repeat_with(|| camera.next_frame(None)).find_map(Result::err).unwrap());
        // The kernel asks for it for some more seconds: that is not waited for.
        let parts = [&node[..], "did not end within", "unplug it and plug it in again"];
        let error = failed(camera.reset(Some(limit)), Kind::Disconnected, &parts);
        println!("lost: {error}");
        assert!((limit..limit * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        failed::<()>(Err(waiter.join().unwrap()), Kind::Disconnected, &["did not end within"]);
    });
    let parts = &[&node[..], "did not end within", "camlease_camera_regain"];
    assert!(readable(fd, 0), "a loop is told that the next call fails");
    failed(camera.next_frame(Some(PATIENCE)), Kind::Disconnected, parts);
    failed(camera.formats(), Kind::Disconnected, parts);
    failed(camera.start(&small()), Kind::Disconnected, parts);
    failed(camera.stop(), Kind::Disconnected, parts);
    failed(camera.reset(Some(limit)), Kind::Disconnected, parts);
    assert_eq!(frame.data(0), bytes);
    webcam.replug();
    assert_eq!(v4l2_ctl_streams(&webcam.node(), 3), Ok(()), "the lost camera's handle holds nothing");
    camera.regain(Some(PATIENCE)).unwrap_or_else(|error| panic!("{error}"));
    camera.start(&small()).unwrap();
    drop(camera.next_frame(Some(PATIENCE)).unwrap());
    reset(&camera);
    drop(camera.next_frame(Some(PATIENCE)).unwrap());

    // Lost once more, after the kernel has given up: it is waited for until the time is up.
    webcam.order("vanish");
    let (begun, limit) = (Instant::now(), Duration::from_secs(9));
    failed(camera.reset(Some(limit)), Kind::Disconnected, &["has not come back"]);
    assert!((limit..limit * 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    drop((frame, camera));
    assert_eq!(descriptors(), before);
    assert_eq!(v4l2_ctl_streams(&webcam.replug(), 3), Ok(()));
}

#[test]
fn a_camera_that_stays_away_for_a_while_is_waited_for() {
    let _alone = alone();
    let webcam = plug("AWAY");
    let camera = open(&uri(&webcam));
    camera.start(&small()).unwrap();
    let frame = camera.next_frame(Some(PATIENCE)).unwrap();
    webcam.order("vanish");
    let place = webcam.usb_device();
    std::thread::scope(|scope| {
        let resetting = scope.spawn(|| camera.reset(Some(PATIENCE)));
        wait_for("it to be gone", PATIENCE, || (!place.exists()).then_some(()));
        std::thread::sleep(Duration::from_millis(500));
        drop(frame);
        assert!(!resetting.is_finished(), "a frame can be released within a reset");
        webcam.replug();
        resetting.join().unwrap().unwrap_or_else(|error| panic!("{error}"));
    });
    drop(camera.next_frame(Some(PATIENCE)).unwrap());
}

#[test]
fn a_camera_that_is_gone_has_no_port() {
    let _alone = alone();
    let webcam = plug("GONE");
    let node = uri(&webcam);
    let camera = open(&node);
    camera.start(&small()).unwrap();
    webcam.unplug();
    let parts = [&node[..], "the camera is gone", "plug it in again"];
    failed(camera.reset(Some(PATIENCE)), Kind::Disconnected, &parts);
    failed(camlease::reset(&node, Some(PATIENCE)), Kind::NotFound, &[&node]);
    // The number is still this handle's: what is plugged in now is not taken for it.
    let other = plug("OTHER");
    failed(camera.reset(Some(PATIENCE)), Kind::Disconnected, &parts);
    assert_eq!(other.state("frames"), 0);
}

#[test]
fn a_close_ends_a_reset() {
    let _alone = alone();
    let webcam = plug("CLOSED");
    let before = descriptors();
    let camera = open(&uri(&webcam));
    camera.start(&small()).unwrap();
    webcam.order("vanish");
    std::thread::scope(|scope| {
        let resetting = scope.spawn(|| camera.reset(None));
        wait_for("it to be gone", PATIENCE, || (webcam.state("plugged") == 0).then_some(()));
        let begun = Instant::now();
        camera.close();
        println!("closed within a reset: {} ms", begun.elapsed().as_millis());
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        failed(resetting.join().unwrap(), Kind::Closed, &[]);
    });
    drop(camera);
    let kernel_has_ended = || wait_for("the kernel", PATIENCE, || (descriptors() == before).then_some(()));
    kernel_has_ended();
    webcam.replug();
    assert_eq!(v4l2_ctl_streams(&webcam.node(), 3), Ok(()));

    // At any moment of it.
    for after in [0, 30, 100, 200, 300, 400, 600] {
        let camera = open(&uri(&webcam));
        camera.start(&small()).unwrap();
        std::thread::scope(|scope| {
            let resetting = scope.spawn(|| camera.reset(Some(PATIENCE)));
            std::thread::sleep(Duration::from_millis(after));
            camera.close();
            match resetting.join().unwrap() {
                Ok(()) => println!("done before {after} ms"),
                Err(error) => assert_eq!(error.kind(), Kind::Closed, "{error}"),
            }
        });
        drop(camera);
        kernel_has_ended();
        assert_eq!(v4l2_ctl_streams(&webcam.node(), 3), Ok(()), "closed after {after} ms");
    }
}

#[test]
fn by_name_for_a_camera_that_nobody_has() {
    let _alone = alone();
    let webcam = plug("NAMED");
    let node = uri(&webcam);
    let before = descriptors();
    let incarnation_before = incarnation(&node);
    let took = camlease::reset(&node, Some(PATIENCE)).unwrap_or_else(|error| panic!("{error}"));
    println!("by its node: {} ms", took.as_millis());
    assert!(took > Duration::from_millis(50));
    assert_ne!(incarnation(&node), incarnation_before);
    let by_ids = format!("usb:{}", ids(&webcam));
    camlease::reset(&by_ids, Some(PATIENCE)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(descriptors(), before);
    assert_eq!(v4l2_ctl_streams(Path::new(&node), 3), Ok(()), "it was let go");

    // Without a node it cannot be opened; the driver makes one.
    fs::remove_file(&node).unwrap();
    failed(Camera::open(&by_ids, OpenOptions::default()), Kind::NotFound, &[]);
    camlease::reset(&by_ids, Some(PATIENCE)).unwrap_or_else(|error| panic!("{error}"));
    assert!(Path::new(&node).exists());

    let stream = Stream::start(Path::new(&node));
    for name in [&node, &by_ids] {
        let error = failed(camlease::reset(name, Some(PATIENCE)), Kind::Busy, &[name, "v4l2-ctl (pid", "streaming"]);
        assert!(error.message().contains(&stream.process_id().to_string()), "{error}");
    }
    stream.kill();
    let mut holder = support::holder(&node, "opened");
    failed(camlease::reset(&node, Some(PATIENCE)), Kind::Busy, &[&holder.id().to_string()]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    let camera = open(&node);
    failed(camlease::reset(&node, Some(PATIENCE)), Kind::Busy, &["this process itself"]);
    drop(camera);

    failed(camlease::reset("usb:1d6b:0002", Some(PATIENCE)), Kind::NotFound, &["no such camera"]); // a hub
    failed(camlease::reset("/dev/video77", Some(PATIENCE)), Kind::NotFound, &["/dev/video77"]);
    failed(camlease::reset(&node, Some(Duration::ZERO)), Kind::InvalidArgument, &["timeout_ms"]);
}

#[test]
fn cameras_without_a_port() {
    let _alone = alone();
    let vivid = vivid::load(VividOptions { first_number: Some(40), ..VividOptions::default() }).remove(0);
    let clip = std::env::temp_dir().join("reset.y4m");
    fs::write(&clip, [&b"YUV4MPEG2 W2 H2 F25:1 Ip C420\nFRAME\n"[..], &[9; 6]].concat()).unwrap();
    let file = format!("file:{}", clip.display());
    let (synthetic, recorded) = ("a virtual camera has no port to reset", "a recording has no port to reset");
    for (uri, why, why_by_name) in [
        (vivid.to_str().unwrap(), "it is not on USB (platform:vivid", "it is not on USB (vivid"),
        ("virtual:reset", synthetic, synthetic),
        (&file, recorded, recorded),
    ] {
        let camera = open(uri);
        camera.start(&StreamRequest::default()).unwrap_or_else(|error| panic!("{error}"));
        failed(camera.reset(Some(PATIENCE)), Kind::Unsupported, &[uri, why]);
        drop(camera.next_frame(Some(PATIENCE)).unwrap_or_else(|error| panic!("it streams on: {error}")));
        assert_eq!(camera.stats().resets, 0);
        drop(camera);
        failed(camlease::reset(uri, Some(PATIENCE)), Kind::Unsupported, &[uri, why_by_name]);
    }
}

/// What is between two texts.
#[track_caller]
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no \"{before}\" in: {text}")).1;
    rest.split_once(after).unwrap_or_else(|| panic!("no \"{after}\" in: {rest}")).0
}

#[test]
fn without_the_right_the_message_has_the_rule_that_grants_it() {
    let _alone = alone();
    udev::start();
    let webcam = plug("RIGHTS");
    udev::settle();
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=nobody", "--regid=nogroup", "--groups=video"]);
        support::run(command.arg(support::c_program("reset.c", &[])).arg(webcam.node()).arg("1"))
    };
    let said = as_nobody();
    println!("{said}");
    assert!(said.starts_with("CAMLEASE_PERMISSION") && said.contains("EACCES"), "{said}");
    assert!(said.contains(webcam.usb_node().to_str().unwrap()), "{said}");
    assert!(said.contains("reset 0 times"), "the stream went on: {said}");

    let rules = PathBuf::from(between(&said, "this line in ", ": "));
    assert_eq!(rules.parent(), Some(Path::new("/etc/udev/rules.d")));
    fs::create_dir_all("/etc/udev/rules.d").unwrap();
    fs::write(&rules, format!("{}\n", between(&said, "70-camlease.rules: ", "; then run"))).unwrap();
    let commands = between(&said, "then run \"", "\"").replace("sudo ", "");
    support::run(Command::new("sh").args(["-c", &commands]));
    udev::settle();
    let said = as_nobody();
    fs::remove_file(&rules).unwrap();
    assert!(said.contains("reset 1 times"), "{said}");
}

#[test]
fn without_its_usb_device_a_container_is_told_what_to_add() {
    let _alone = alone();
    let webcam = plug("CONTAINER");
    let camera = open(&uri(&webcam));
    camera.start(&small()).unwrap();
    let node = webcam.usb_node();
    let hidden = node.with_extension("hidden");
    fs::rename(&node, &hidden).unwrap();
    let refused = camera.reset(Some(PATIENCE));
    fs::rename(&hidden, &node).unwrap();
    failed(refused, Kind::Permission, &[node.to_str().unwrap(), "in a container", "/dev/bus/usb:/dev/bus/usb"]);
    drop(camera.next_frame(Some(PATIENCE)).unwrap());
    reset(&camera);
}

#[test]
fn somebody_at_another_node_of_the_device_is_not_robbed_of_it() {
    let _alone = alone();
    let webcam = plug("SHARED");
    let camera = open(&uri(&webcam));
    let mut metadata = Command::new(support::c_program("neighbour.c", &[]))
        .args([webcam.metadata_node().as_os_str(), "metadata".as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(metadata.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("ready "), "{line}");
    let refused = camera.reset(Some(PATIENCE));
    let by_name = camlease::reset(&uri(&webcam), Some(PATIENCE));
    metadata.kill().unwrap();
    metadata.wait().unwrap();
    failed(by_name, Kind::Busy, &["this process itself"]);
    failed(refused, Kind::Busy, &["would take the device from others", "neighbour"]);
    reset(&camera);
}

/// Opens a camera after a holder of it was killed in that state.
fn after_a_kill(uri: &str, state: &str, reset_after_dirty_exit: bool) -> Camera {
    let mut holder = support::holder(uri, state);
    holder.kill().unwrap();
    holder.wait().unwrap();
    let options = OpenOptions { reset_after_dirty_exit, timeout: Some(PATIENCE), ..OpenOptions::default() };
    Camera::open(uri, options).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn before_the_use_of_a_camera_whose_holder_died_streaming() {
    let _alone = alone();
    let webcam = plug("DIRTY");
    let node = uri(&webcam);
    for (state, wanted, resets) in [("started", true, 1), ("started", false, 0), ("opened", true, 0)] {
        let before = incarnation(&node);
        let camera = after_a_kill(&node, state, wanted);
        assert_eq!((camera.stats().resets, incarnation(&node) != before), (resets, resets == 1), "{state}, {wanted}");
        assert_eq!(camera.last_exit() == LastExit::Dirty, state == "started");
        camera.start(&small()).unwrap();
        drop(camera.next_frame(Some(PATIENCE)).unwrap());
    }
    // Also where its node gets another number by that: what is known of the last holder stays known.
    let open_elsewhere = fs::File::open(&node).unwrap();
    let camera = after_a_kill(&node, "started", true);
    assert_ne!(uri(&webcam), node);
    assert_eq!((camera.stats().resets, camera.last_exit()), (1, LastExit::Dirty));
    let holders = camlease::holders(&uri(&webcam)).unwrap().list;
    assert!(holders.iter().any(|holder| holder.lease.is_some()), "its lease is filed under the new number");
    drop((camera, open_elsewhere));

    let vivid = vivid::load(VividOptions { first_number: Some(40), ..VividOptions::default() }).remove(0);
    let camera = after_a_kill(vivid.to_str().unwrap(), "started", true);
    assert_eq!(
        (camera.stats().resets, camera.last_exit()),
        (0, LastExit::Dirty),
        "it has no port, and is used as it is"
    );
    camera.start(&StreamRequest::default()).unwrap();
    drop(camera.next_frame(Some(PATIENCE)).unwrap());
}

/// Kernel calls of a reset made to fail: before anything is given up, in the reset, and on the way back.
#[test]
fn every_call_of_it_may_fail() {
    let _alone = alone();
    let webcam = plug("FAULTS");
    let mut cases = Vec::new();
    let mut enter = |call: &str, skip: u32, errnos: &[(i32, &str)]| {
        cases.extend(errnos.iter().map(|&(errno, status)| Case::new("reset", call, skip, 1, errno, status)));
    };
    enter("open_usb", 0, &[(EACCES, "PERMISSION"), (EPERM, "PERMISSION"), (ENOENT, "PERMISSION")]);
    enter("open_usb", 0, &[(ENODEV, "DISCONNECTED"), (EMFILE, "IO"), (EINTR, "OK")]);
    enter("eventfd", 0, &[(EMFILE, "IO")]);
    // The port refuses: the camera goes on as before.
    enter("eventfd", 1, &[(EMFILE, "IO")]);
    enter("eventfd", 2, &[(EMFILE, "IO")]);
    let refusals =
        [(EIO, "IO"), (EBUSY, "IO"), (EINVAL, "IO"), (ETIMEDOUT, "IO"), (ENOMEM, "IO"), (EPERM, "PERMISSION")];
    enter("USBDEVFS_RESET", 0, &refusals);
    enter("USBDEVFS_RESET", 0, &[(EINTR, "OK"), (ENODEV, "OK")]);
    // It left the bus in the reset, and came back.
    cases.push(Case::new("reset", "USBDEVFS_RESET", 0, 1, ENODEV, "OK").after());
    let mut enter = |call: &str, skip: u32, errnos: &[(i32, &str)]| {
        cases.extend(errnos.iter().map(|&(errno, status)| Case::new("reset", call, skip, 1, errno, status)));
    };
    // What passes: udev has not given the node its group yet, or the camera is still starting up.
    enter("open", 0, &[(EACCES, "OK"), (ENOENT, "OK"), (ENODEV, "OK"), (EIO, "OK")]);
    enter("VIDIOC_QUERYCAP", 0, &[(EIO, "OK"), (ENODEV, "OK")]);
    enter("flock", 0, &[(EWOULDBLOCK, "OK")]);
    enter("VIDIOC_REQBUFS", 0, &[(EBUSY, "OK"), (EIO, "OK"), (ENODEV, "OK")]);
    enter("VIDIOC_STREAMON", 0, &[(EIO, "OK"), (EPROTO, "OK"), (ETIMEDOUT, "OK")]);
    enter("ppoll", 0, &[(ENOMEM, "OK"), (EINTR, "OK")]);
    // What does not: the camera is lost, or held and does not stream.
    enter("VIDIOC_REQBUFS", 0, &[(ENOMEM, "DISCONNECTED")]);
    enter("open", 0, &[(EMFILE, "OK")]);
    enter("VIDIOC_STREAMON", 0, &[(ENOSPC, "NO_BANDWIDTH")]);
    enter("VIDIOC_DQBUF", 0, &[(EIO, "IO")]);
    run_cases(&uri(&webcam), &cases);
}

#[test]
fn resets_leave_nothing() {
    let _alone = alone();
    let webcam = plug("LEAK");
    let said = support::run(Command::new(support::c_program("reset.c", &[])).arg(webcam.node()).arg("20"));
    println!("{said}");
    let figure = |when: &str, name: &str| -> u64 {
        let line = said.lines().find_map(|line| line.strip_prefix(when)).unwrap();
        let word = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        word.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {name} in {when}: {said}"))
    };
    for name in ["descriptors", "threads"] {
        assert_eq!(figure("last", name), figure("first", name), "{name} were left behind: {said}");
    }
    // Each of the 19 resets between the two that left one would show.
    let bound = figure("first", "mappings") + support::MAPPINGS_GROWTH;
    assert!(figure("last", "mappings") <= bound, "mappings were left behind: {said}");
    assert!(said.contains("reset 20 times"), "{said}");
    assert_eq!(v4l2_ctl_streams(&webcam.node(), 3), Ok(()));
}

/// The program `tests/c/reset.c`, inside a reset that waits without end for the camera's return.
fn resetting(webcam: &Webcam, way: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut program = Command::new(support::c_program("reset.c", &[]))
        .arg(webcam.node())
        .arg(way)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "resetting\n");
    (program, lines)
}

#[test]
fn an_exit_ends_a_reset() {
    let _alone = alone();
    let webcam = plug("EXIT");
    webcam.order("vanish");
    let (mut program, _lines) = resetting(&webcam, "exit");
    wait_for("it to be gone", PATIENCE, || (webcam.state("plugged") == 0).then_some(()));
    // No process ends before what it does in the kernel: main's thread, the one that waits, and the doorbell's are left.
    let threads = || fs::read_dir(format!("/proc/{}/task", program.id())).unwrap().flatten();
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    wait_for("the kernel", PATIENCE, || threads().map(name).all(|name| name.trim() != "camlease-reset").then_some(()));
    let begun = Instant::now();
    program.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(program.wait().unwrap().success());
    println!("exited within a reset: {} ms", begun.elapsed().as_millis());
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn a_child_made_within_a_reset_has_nothing_of_it() {
    let _alone = alone();
    let webcam = plug("FORK");
    webcam.order("vanish");
    let (mut program, mut lines) = resetting(&webcam, "fork");
    wait_for("it to be gone", PATIENCE, || (webcam.state("plugged") == 0).then_some(()));
    program.stdin.take().unwrap().write_all(b"\n").unwrap();
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    let child: i32 = line.trim().strip_prefix("forked ").unwrap().parse().unwrap();
    webcam.replug();
    let end = program.wait().unwrap();
    let streams = v4l2_ctl_streams(&webcam.node(), 3);
    let files = fs::read_dir(format!("/proc/{child}/fd")).unwrap().count();
    // SAFETY: the program's child, which stays until it is killed.
    unsafe { libc::kill(child, libc::SIGKILL) };
    assert!(end.success(), "{end}");
    assert_eq!(streams, Ok(()), "the child does not keep it busy");
    assert_eq!(files, 3, "stdin, stdout, stderr");
}
