//! Every kernel call of a camera's life made to fail with every errno that the kernel documents for it, on vivid with one
//! and with several planes and on a USB webcam: the right status, a message that names the camera, the errno, nothing left
//! behind, and the same call and the next open work at once. `faults.c` is the life, `interpose.c` the failing kernel.
//!
//! Then the faults that drivers and cameras have themselves: vivid's injection controls, and a webcam that misbehaves.
//!
//! `CAMLEASE_FAULTS=VIDIOC_QBUF` runs the cases alone that have this in their line.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use camlease::{Camera, DropPolicy, Error, Frame, Kind, OpenOptions, StreamRequest};
use camlease_rig::vivid::{self, VividOptions};
use camlease_rig::{Webcam, WebcamOptions, alone, set_control};
use libc::*;
use support::faults::{Case, run_cases};

/// Errnos that any ioctl of a camera may give, and what they mean to whoever made the call.
const ANY: [(i32, &str); 7] = [
    (ENODEV, "DISCONNECTED"),
    (EIO, "IO"),
    (EPROTO, "IO"),
    (EPIPE, "IO"),
    (ETIMEDOUT, "TIMEOUT"),
    (EPERM, "PERMISSION"),
    (EINTR, "OK"), // a signal is no failure: the call is made again
];

/// The table: phase, call, calls let through before, and what each errno has to become.
fn table() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut enter = |phase: &str, call: &str, skip: u32, errnos: &[(i32, &str)]| {
        cases.extend(errnos.iter().map(|&(errno, status)| Case::new(phase, call, skip, 1, errno, status)));
    };

    enter(
        "open",
        "open",
        0,
        &[
            (EACCES, "PERMISSION"),
            (EPERM, "PERMISSION"),
            (ENOENT, "NOT_FOUND"),
            (ENODEV, "DISCONNECTED"),
            (ENXIO, "DISCONNECTED"),
            (EBUSY, "BUSY"),
            (EMFILE, "IO"),
            (ENFILE, "IO"),
            (ENOMEM, "BUDGET"),
            (EIO, "IO"),
            (ETIMEDOUT, "TIMEOUT"),
            (EINTR, "OK"),
        ],
    );
    enter("open", "VIDIOC_QUERYCAP", 0, &ANY);
    enter("open", "VIDIOC_QUERYCAP", 0, &[(ENOTTY, "UNSUPPORTED"), (EINVAL, "UNSUPPORTED")]);
    // A file system without locks leaves the driver's own exclusion.
    enter("open", "flock", 0, &[(EWOULDBLOCK, "BUSY"), (ENOLCK, "OK"), (ENOTTY, "OK"), (EINVAL, "OK")]);
    let reqbufs =
        [(EBUSY, "BUSY"), (EINVAL, "IO"), (ENOMEM, "BUDGET"), (ENOTTY, "UNSUPPORTED"), (EACCES, "PERMISSION")];
    enter("open", "VIDIOC_REQBUFS", 0, &ANY);
    enter("open", "VIDIOC_REQBUFS", 0, &reqbufs);
    let descriptors = [(EMFILE, "IO"), (ENFILE, "IO"), (ENOMEM, "BUDGET")];
    enter("open", "eventfd", 0, &descriptors);
    enter("open", "epoll_create1", 0, &descriptors);
    enter("open", "epoll_ctl", 0, &[(ENOMEM, "BUDGET"), (ENOSPC, "IO")]);

    // The buffers of the claim are given up, at the second attempt after a STREAMOFF, then the stream's are made.
    enter("start", "VIDIOC_REQBUFS", 1, &ANY);
    enter("start", "VIDIOC_REQBUFS", 1, &reqbufs);
    enter("start", "VIDIOC_G_FMT", 0, &ANY);
    enter("start", "VIDIOC_G_FMT", 0, &[(EINVAL, "IO"), (ENOTTY, "UNSUPPORTED"), (EBUSY, "BUSY")]);
    enter("start", "VIDIOC_S_FMT", 0, &ANY);
    enter(
        "start",
        "VIDIOC_S_FMT",
        0,
        &[(EINVAL, "INVALID_ARGUMENT"), (EBUSY, "BUSY"), (ENOSPC, "NO_BANDWIDTH"), (ENOMEM, "BUDGET")],
    );
    enter("start", "VIDIOC_S_PARM", 0, &ANY);
    enter("start", "VIDIOC_S_PARM", 0, &[(EINVAL, "INVALID_ARGUMENT"), (EBUSY, "BUSY"), (ENOTTY, "OK")]);
    // A driver that does not tell its rate streams all the same.
    enter(
        "start",
        "VIDIOC_G_PARM",
        0,
        &[(EINVAL, "OK"), (ENOTTY, "OK"), (EIO, "OK"), (ETIMEDOUT, "OK"), (EINTR, "OK")],
    );
    for skip in [0, 3] {
        enter("start", "VIDIOC_QUERYBUF", skip, &ANY);
        enter("start", "VIDIOC_QUERYBUF", skip, &[(EINVAL, "IO")]);
        enter(
            "start",
            "mmap",
            skip,
            &[
                (ENOMEM, "BUDGET"),
                (EAGAIN, "IO"),
                (EINVAL, "IO"),
                (ENODEV, "DISCONNECTED"),
                (EACCES, "PERMISSION"),
                (EPERM, "PERMISSION"),
                (ENFILE, "IO"),
            ],
        );
        enter("start", "madvise", skip, &[(ENOMEM, "BUDGET"), (EINVAL, "IO")]);
        enter("start", "VIDIOC_QBUF", skip, &ANY);
        enter("start", "VIDIOC_QBUF", skip, &[(EINVAL, "IO"), (ENOMEM, "BUDGET"), (EAGAIN, "IO")]);
    }
    enter("start", "VIDIOC_STREAMON", 0, &ANY);
    enter(
        "start",
        "VIDIOC_STREAMON",
        0,
        &[
            (EINVAL, "IO"),
            (ENOSPC, "NO_BANDWIDTH"),
            (ENOLINK, "IO"),
            (EBUSY, "BUSY"),
            (ENOMEM, "BUDGET"),
            (EACCES, "PERMISSION"),
        ],
    );
    for skip in [0, 1] {
        enter("start", "VIDIOC_S_PRIORITY", skip, &[(EBUSY, "OK"), (EINVAL, "OK"), (ENOTTY, "OK"), (EIO, "OK")]);
    }
    enter("start", "epoll_ctl", 0, &[(ENOMEM, "BUDGET"), (ENOSPC, "IO")]);

    enter("frame", "VIDIOC_DQBUF", 0, &ANY);
    enter("frame", "VIDIOC_DQBUF", 0, &[(EINVAL, "IO"), (ENOMEM, "BUDGET"), (EAGAIN, "OK")]);
    enter("frame", "epoll_wait", 0, &[(EINVAL, "IO"), (EINTR, "OK")]);
    // The frame is released whatever becomes of its buffer.
    enter("release", "VIDIOC_QBUF", 0, &[(EINVAL, "OK"), (EIO, "OK"), (ENODEV, "OK"), (EINTR, "OK")]);

    enter("stop", "VIDIOC_STREAMOFF", 0, &ANY);
    enter("stop", "VIDIOC_STREAMOFF", 0, &[(EINVAL, "IO"), (EACCES, "PERMISSION")]);
    // The stream has ended; the next start says what is wrong with the claim.
    for skip in [0, 1] {
        enter(
            "stop",
            "VIDIOC_REQBUFS",
            skip,
            &[(EBUSY, "OK"), (EINVAL, "OK"), (EIO, "OK"), (ENOMEM, "OK"), (EINTR, "OK")],
        );
        enter("stop", "VIDIOC_S_PRIORITY", skip, &[(EBUSY, "OK"), (EIO, "OK")]);
    }
    // Without memory for a private copy of a frame the device is let go all the same, and the frame can be read.
    for phase in ["stop", "close"] {
        enter(phase, "mmap_anonymous", 0, &[(ENOMEM, "OK"), (EAGAIN, "OK")]);
        enter(phase, "mremap", 0, &[(ENOMEM, "OK"), (EAGAIN, "OK"), (EFAULT, "OK")]);
    }

    enter("wait", "inotify_init1", 0, &[(EMFILE, "BUSY"), (ENFILE, "BUSY"), (ENOMEM, "BUSY")]);
    enter("wait", "inotify_add_watch", 0, &[(ENOSPC, "BUSY"), (EACCES, "BUSY"), (ENOENT, "BUSY"), (ENOMEM, "BUSY")]);
    enter("wait", "eventfd", 0, &descriptors);
    enter("wait", "ppoll", 0, &[(ENOMEM, "BUDGET"), (EINVAL, "IO"), (EINTR, "BUSY")]);
    // The node goes while it is waited for, or cannot be opened from the beginning.
    enter("wait", "open", 0, &[(ENOENT, "NOT_FOUND"), (EACCES, "PERMISSION"), (ENODEV, "DISCONNECTED"), (EIO, "IO")]);
    enter("wait", "VIDIOC_QUERYCAP", 0, &[(EIO, "IO"), (ENODEV, "DISCONNECTED")]);

    // Memory that the kernel does not let a child inherit, as that of many boards' drivers: the child has the frame still.
    enter("fork", "madvise_dofork", 0, &[(EINVAL, "OK"), (ENOMEM, "OK")]);

    let twice = |&(errno, status): &(i32, &str)| Case::new("start", "VIDIOC_REQBUFS", 0, 2, errno, status);
    cases.extend(reqbufs.iter().map(twice));
    cases.extend(ANY.iter().filter(|any| any.0 != EINTR).map(twice));

    // From some call on each one fails.
    cases.push(Case::new("frame", "VIDIOC_DQBUF", 0, 0, EAGAIN, "TIMEOUT"));
    cases.push(Case::new("open", "VIDIOC_REQBUFS", 0, 0, EBUSY, "BUSY"));
    cases.push(Case::new("start", "VIDIOC_REQBUFS", 0, 0, ENOMEM, "BUDGET"));
    cases.push(Case::new("start", "VIDIOC_REQBUFS", 1, 0, ENODEV, "DISCONNECTED"));
    cases.push(Case::new("stop", "VIDIOC_REQBUFS", 0, 0, EIO, "OK"));
    cases.push(Case::new("close", "VIDIOC_STREAMOFF", 0, 0, ENODEV, "OK").never_called());
    // It fails late: the driver has done it.
    cases.push(Case::new("start", "VIDIOC_STREAMON", 0, 1, EIO, "IO").after());
    cases.push(Case::new("stop", "VIDIOC_STREAMOFF", 0, 1, EIO, "IO").after());
    cases.push(Case::new("start", "VIDIOC_S_FMT", 0, 1, EIO, "IO").after());
    cases.push(Case::new("start", "VIDIOC_REQBUFS", 1, 1, EIO, "IO").after());
    cases
}

#[test]
fn vivid_with_one_plane() {
    let _alone = alone();
    let nodes = vivid::load(VividOptions::default());
    run_cases(nodes[0].to_str().unwrap(), &table());
}

#[test]
fn vivid_with_several_planes() {
    let _alone = alone();
    let nodes = vivid::load(VividOptions { multiplanar: true, ..VividOptions::default() });
    run_cases(nodes[0].to_str().unwrap(), &table());
}

/// vivid's other memory, which drivers of many boards use: the kernel refuses MADV_DOFORK for it.
#[test]
fn vivid_with_contiguous_memory() {
    let _alone = alone();
    vivid::unload();
    support::run(Command::new("modprobe").args(["vivid", "n_devs=1", "node_types=0x1", "allocators=1"]));
    let node = camlease_rig::wait_for("vivid's node", SOON, || {
        Some(PathBuf::from("/dev/video0")).filter(|node| node.exists())
    });
    let uri = node.to_str().unwrap();
    let camera = started(uri);
    let mappings = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let flags =
        mappings.split(uri).nth(1).and_then(|rest| rest.split_once("VmFlags:")).expect("its buffers are mapped").1;
    assert!(flags.lines().next().unwrap().contains(" io"), "this memory is no device's: {flags}");
    drop(camera);
    run_cases(uri, &table().into_iter().filter(|case| case.phase != "open").collect::<Vec<_>>());
    children_disturb_nobody(uri);
    vivid::unload();
}

#[test]
fn children_of_a_process_with_a_real_camera() {
    let _alone = alone();
    for multiplanar in [false, true] {
        children_disturb_nobody(
            vivid::load(VividOptions { multiplanar, ..VividOptions::default() })[0].to_str().unwrap(),
        );
    }
    let webcam = Webcam::plug(WebcamOptions::default());
    children_disturb_nobody(webcam.node().to_str().unwrap());
}

#[track_caller]
fn children_disturb_nobody(uri: &str) {
    support::run(Command::new(support::c_program("handles_fork.c", &[])).arg(uri));
}

#[test]
fn usb_webcam() {
    let _alone = alone();
    let webcam = Webcam::plug(WebcamOptions::default());
    // What costs a negotiation with the camera costs time under emulation: one errno of each call that all drivers share.
    let mut seen = Vec::new();
    let cases: Vec<Case> = table()
        .into_iter()
        .filter(|case| {
            let key = (case.phase.clone(), case.call.clone(), case.status.clone());
            let new = !seen.contains(&key);
            seen.push(key);
            new
        })
        .collect();
    run_cases(webcam.node().to_str().unwrap(), &cases);
}

/// Long enough for a frame of anything here.
const SOON: Duration = Duration::from_secs(10);
const BRIGHTNESS: u32 = 0x0098_0900;

fn open(uri: &str) -> Camera {
    Camera::open(uri, OpenOptions::default()).unwrap_or_else(|error| panic!("{uri}: {error}"))
}

/// In order, so that every gap is the driver's.
fn in_order() -> StreamRequest {
    StreamRequest { width: 640, height: 360, buffers: 8, drop_policy: DropPolicy::Newest, ..StreamRequest::default() }
}

fn started(uri: &str) -> Camera {
    let camera = open(uri);
    camera.start(&in_order()).unwrap_or_else(|error| panic!("{uri}: {error}"));
    camera
}

#[track_caller]
fn frame(camera: &Camera) -> Frame {
    camera.next_frame(Some(SOON)).unwrap_or_else(|error| panic!("{error}"))
}

/// Frames until `enough`, or for as long as a driver's fault may take to show.
#[track_caller]
fn frames_until(camera: &Camera, mut enough: impl FnMut(&Frame) -> bool) -> Vec<u64> {
    let mut sequences = Vec::new();
    for _ in 0..200 {
        let frame = frame(camera);
        sequences.push(frame.sequence());
        if enough(&frame) {
            return sequences;
        }
    }
    panic!("it did not come in 200 frames: {sequences:?}");
}

#[track_caller]
fn refused<T>(result: Result<T, Error>, kind: Kind, errno: i32) -> Error {
    let Err(error) = result else { panic!("no error, where {kind:?} was due") };
    assert_eq!((error.kind(), error.errno()), (kind, errno), "{error}");
    error
}

/// Frames that are missing between those that came.
fn gaps(sequences: &[u64]) -> u64 {
    sequences.windows(2).map(|pair| pair[1] - pair[0] - 1).sum()
}

#[test]
fn vivids_own_faults() {
    let _alone = alone();
    for multiplanar in [false, true] {
        let nodes = vivid::load(VividOptions { multiplanar, ..VividOptions::default() });
        let (node, uri) = (nodes[0].as_path(), nodes[0].to_str().unwrap());

        // One damaged frame, and the stream goes on.
        let camera = started(uri);
        frame(&camera);
        set_control(node, "inject_v4l2_buf_flag_error", 1);
        frames_until(&camera, Frame::is_corrupt);
        assert!(!frame(&camera).is_corrupt());
        assert_eq!(camera.stats().corrupt, 1);

        // Half of the frames: the gaps are counted.
        let before = camera.stats().dropped;
        set_control(node, "percentage_of_dropped_buffers", 50);
        let mut left = 30;
        let sequences = frames_until(&camera, |_| {
            left -= 1;
            left == 0
        });
        set_control(node, "percentage_of_dropped_buffers", 0);
        let dropped = camera.stats().dropped - before;
        assert!(gaps(&sequences) > 3, "{sequences:?}");
        assert!(dropped >= gaps(&sequences), "{dropped} counted, {sequences:?}");

        // The queue breaks: the frame is refused, the next start works.
        set_control(node, "inject_fatal_streaming_error", 1);
        let broken = std::iter::repeat_with(|| camera.next_frame(Some(SOON))).take(50).find_map(Result::err);
        let error = refused(broken.map_or(Ok(()), Err), Kind::Io, EIO);
        assert!(error.message().contains(uri) && error.message().contains("start it again"), "{error}");
        camera.stop().unwrap_or_else(|error| panic!("{error}"));

        // What a start does is refused once, and works at once after it.
        for control in ["inject_vidioc_reqbufs_error", "inject_vidioc_qbuf_error", "inject_vidioc_streamon_error"] {
            set_control(node, control, 1);
            let error = refused(camera.start(&in_order()), Kind::Io, EINVAL);
            assert!(error.message().contains(uri), "{control}: {error}");
            camera.start(&in_order()).unwrap_or_else(|error| panic!("after {control}: {error}"));
            frame(&camera);
            camera.stop().unwrap();
        }
        drop(camera);

        // The claim of an open is refused, and nothing is kept of it.
        set_control(node, "inject_vidioc_reqbufs_error", 1);
        refused(Camera::open(uri, OpenOptions::default()), Kind::Io, EINVAL);
        let camera = started(uri);

        // Gone, as if unplugged: a frame that is out stays, and opening it again works.
        let kept = frame(&camera);
        let bytes = kept.data(0).to_vec();
        set_control(node, "disconnect", 1);
        let gone = std::iter::repeat_with(|| camera.next_frame(Some(SOON))).take(50).find_map(Result::err);
        refused(gone.map_or(Ok(()), Err), Kind::Disconnected, ENODEV);
        camera.close();
        assert_eq!(kept.data(0), bytes);
        frame(&started(uri));
    }
}

#[test]
fn a_silent_webcam() {
    let _alone = alone();
    let webcam = Webcam::plug(WebcamOptions::default());
    let camera = started(webcam.node().to_str().unwrap());
    frame(&camera);
    webcam.order("pause");
    // Frames that were under way may still come.
    let begun = Instant::now();
    let error = std::iter::repeat_with(|| camera.next_frame(Some(Duration::from_millis(700)))).find_map(Result::err);
    refused(error.map_or(Ok(()), Err), Kind::Timeout, 0);
    assert!(begun.elapsed() < SOON);
    webcam.order("resume");
    frame(&camera);
}

/// The driver drops what is damaged: gaps, which are counted.
#[test]
fn damaged_frames_that_the_driver_drops() {
    let _alone = alone();
    let webcam = Webcam::plug(WebcamOptions::default());
    let camera = started(webcam.node().to_str().unwrap());
    frame(&camera);
    for order in ["error-bit 3", "half-frame 3"] {
        let before = camera.stats();
        let mut last = frame(&camera).sequence();
        let mut missing = 0;
        webcam.order(order);
        frames_until(&camera, |frame| {
            assert!(!frame.is_corrupt());
            missing += frame.sequence() - last - 1;
            last = frame.sequence();
            missing >= 3
        });
        assert!(camera.stats().dropped - before.dropped >= 3, "{order}");
        assert_eq!(camera.stats().corrupt, 0, "{order}");
    }
}

/// With nodrop=1 the driver hands them over, and they are told as what they are.
#[test]
fn damaged_frames_that_the_driver_hands_over() {
    let _alone = alone();
    let webcam = Webcam::plug(WebcamOptions { driver: vec![("nodrop", "1")], ..WebcamOptions::default() });
    let camera = started(webcam.node().to_str().unwrap());
    let whole = frame(&camera).data(0).len();
    webcam.order("error-bit 2");
    let mut damaged = 0;
    frames_until(&camera, |frame| {
        damaged += u64::from(frame.is_corrupt());
        damaged == 2
    });
    webcam.order("half-frame 1");
    frames_until(&camera, |frame| {
        assert_eq!(frame.data(0).len() < whole, frame.is_corrupt(), "{} of {whole} bytes", frame.data(0).len());
        frame.is_corrupt()
    });
    assert_eq!(camera.stats().corrupt, 3);
    assert!(!frame(&camera).is_corrupt());
}

#[test]
fn a_webcam_that_refuses_to_negotiate() {
    let _alone = alone();
    let webcam = Webcam::plug(WebcamOptions::default());
    let uri = webcam.node().to_str().unwrap().to_owned();
    let camera = open(&uri);
    for order in ["stall-probe 1", "stall-commit 1"] {
        webcam.order(order);
        let Err(error) = camera.start(&in_order()) else { panic!("{order}: it started") };
        assert_eq!(error.kind(), Kind::Io, "{order}: {error}");
        assert!(error.errno() != 0 && error.message().contains(&uri), "{order}: {error}");
        camera.start(&in_order()).unwrap_or_else(|error| panic!("after {order}: {error}"));
        frame(&camera);
        camera.stop().unwrap();
    }
}

/// The driver waits five seconds for a control's answer; frames do not wait with it.
#[test]
fn a_webcam_with_slow_controls() {
    let _alone = alone();
    let webcam = Webcam::plug(WebcamOptions::default());
    let camera = started(webcam.node().to_str().unwrap());
    frame(&camera);
    let value = camera.control(BRIGHTNESS).unwrap();
    webcam.order("delay-controls 6000");
    let answered = AtomicBool::new(false);
    thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let result = camera.set_control(BRIGHTNESS, value);
            answered.store(true, Ordering::SeqCst);
            result
        });
        let mut meanwhile = 0;
        while !answered.load(Ordering::SeqCst) {
            frame(&camera);
            meanwhile += 1;
        }
        refused(slow.join().unwrap(), Kind::Timeout, ETIMEDOUT);
        assert!(meanwhile > 20, "{meanwhile} frames in five seconds");
    });
    webcam.order("delay-controls 0");
    let begun = Instant::now();
    while camera.set_control(BRIGHTNESS, value).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "the camera's control does not come back");
    }
}

#[test]
fn a_webcam_that_is_unplugged_and_comes_back() {
    let _alone = alone();
    let webcam = Webcam::plug(WebcamOptions::default());
    let id = |file: &str| {
        let text = std::fs::read_to_string(webcam.usb_device().join(file)).unwrap();
        text.trim().to_owned()
    };
    let usb = format!("usb:{}:{}:{}", id("idVendor"), id("idProduct"), id("serial"));
    let camera = started(&usb);
    let kept = frame(&camera);
    let bytes = kept.data(0).to_vec();
    webcam.order("detach");
    let gone = std::iter::repeat_with(|| camera.next_frame(Some(SOON))).take(50).find_map(Result::err);
    refused(gone.map_or(Ok(()), Err), Kind::Disconnected, ENODEV);
    refused(camera.set_control(BRIGHTNESS, 1), Kind::Disconnected, ENODEV);
    assert_eq!(kept.data(0), bytes);
    camera.close();
    assert_eq!(kept.data(0), bytes);
    camlease_rig::wait_for("the webcam to be gone", SOON, || (!webcam.usb_device().exists()).then_some(()));

    refused(Camera::open(&usb, OpenOptions { timeout: Some(Duration::ZERO), ..Default::default() }), Kind::NotFound, 0);
    let (told, hears) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let mut on_wait = |message: &str, _: &camlease::Holders| drop(told.send(message.to_owned()));
            let options = OpenOptions {
                timeout: Some(Duration::from_secs(30)),
                wait_for_device: true,
                on_wait: Some(&mut on_wait),
                ..OpenOptions::default()
            };
            Camera::open(&usb, options)
        });
        let message = hears.recv_timeout(SOON).expect("it says that it waits");
        assert!(message.contains(&usb), "{message}");
        webcam.replug();
        let camera = waiter.join().unwrap().unwrap_or_else(|error| panic!("{error}"));
        camera.start(&in_order()).unwrap();
        frame(&camera);
    });
    assert_eq!(kept.data(0), bytes);
    assert!(Path::new(&webcam.node()).exists());
}
