//! The rig's own test: each of its means once, against the real drivers, seen by a program that is not ours.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use camlease_rig::foreign::{Frame, Stream};
use camlease_rig::picture::{number_in_luma, number_in_yuyv};
use camlease_rig::vivid::VividOptions;
use camlease_rig::{
    Webcam, WebcamOptions, alone, require_guest, results, set_control, udev, v4l2_ctl_streams, vivid, wait_for,
};

const WHOLE_FRAME: u32 = 640 * 360 * 2;
const SOON: Duration = Duration::from_secs(10);

/// A tool's status and all that it said; it has 20 s, because v4l2-ctl waits for ever for a frame.
fn tool(program: &str, arguments: &[&str]) -> (bool, String) {
    let output = Command::new("timeout").args(["20", program]).args(arguments).output().expect(program);
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), text)
}

fn v4l2_ctl(node: &Path, arguments: &[&str]) -> (bool, String) {
    tool("v4l2-ctl", &[&["-d", node.to_str().unwrap()], arguments].concat())
}

/// What `frames` frames of the node look like, as v4l2-ctl writes them to a file.
fn record(node: &Path, format: &str, frames: u32) -> Vec<u8> {
    let file = Path::new("/tmp/recorded");
    let count = format!("--stream-count={frames}");
    let (well, said) = v4l2_ctl(node, &["-v", format, "--stream-mmap", &count, "--stream-to=/tmp/recorded"]);
    assert!(well, "{said}");
    fs::read(file).unwrap()
}

fn gaps(frames: &[Frame]) -> u32 {
    frames.windows(2).map(|pair| pair[1].sequence - pair[0].sequence - 1).sum()
}

/// Numbers rise by one, but for frames that the driver dropped for want of a buffer.
#[track_caller]
fn assert_in_order(numbers: &[u32]) {
    let steps: Vec<u32> = numbers.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert!(steps.iter().all(|step| (1..10).contains(step)), "{numbers:?}");
    assert!(steps.iter().filter(|&&step| step == 1).count() * 2 > steps.len(), "{numbers:?}");
}

fn numbers(recording: &[u8], width: u32, height: u32) -> Vec<u32> {
    let frame_bytes = (width * height * 2) as usize;
    assert_eq!(recording.len() % frame_bytes, 0);
    recording
        .chunks(frame_bytes)
        .map(|frame| number_in_yuyv(frame, width, height).expect("each frame is whole"))
        .collect()
}

#[test]
fn the_guest_is_a_machine_like_others() {
    require_guest();
    for folder in ["/tmp", "/run", "/dev/shm"] {
        let file = Path::new(folder).join("written");
        fs::write(&file, "x").unwrap();
        fs::remove_file(&file).unwrap();
    }
    fs::write(results().join("written"), "x").unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    TcpStream::connect(listener.local_addr().unwrap()).unwrap();

    let (well, said) = tool("dmesg", &[]);
    assert!(well && said.contains("Linux version"), "{said}");
    let tracing = "/sys/kernel/debug/tracing/tracing_on";
    fs::write(tracing, fs::read_to_string(tracing).unwrap()).unwrap();

    let nobody = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"];
    let (well, said) = tool("setpriv", &[&nobody[..], &["sh", "-c", "id -un; echo x > /tmp/nobodys"]].concat());
    assert!(well && said.starts_with("nobody"), "{said}");
    fs::remove_file("/tmp/nobodys").unwrap();
}

#[test]
fn vivid_streams_in_one_plane_and_in_several() {
    let _alone = alone();
    for multiplanar in [false, true] {
        let nodes = vivid::load(VividOptions { multiplanar, ..VividOptions::default() });
        assert_eq!(nodes.len(), 1);
        let (_, capabilities) = v4l2_ctl(&nodes[0], &["-D"]);
        assert_eq!(capabilities.contains("Multiplanar"), multiplanar, "{capabilities}");
        v4l2_ctl_streams(&nodes[0], 30).unwrap();
    }
    vivid::unload();
    assert!(!Path::new("/sys/module/vivid").exists());
}

#[test]
fn vivid_makes_several_cameras_that_stream_at_once() {
    let _alone = alone();
    let options = VividOptions { devices: 4, first_number: Some(20), ..VividOptions::default() };
    let nodes = vivid::load(options.clone());
    let expected: Vec<PathBuf> = (20..24).map(|number| format!("/dev/video{number}").into()).collect();
    assert_eq!(nodes, expected);
    let mut streams: Vec<Stream> = nodes.iter().map(|node| Stream::start(node)).collect();
    for stream in &mut streams {
        assert!(stream.take(30).iter().all(|frame| frame.bytes_used == WHOLE_FRAME));
    }
    drop(streams);
    assert_eq!(vivid::load(options), nodes);
}

#[test]
fn vivid_shows_its_faults() {
    let _alone = alone();
    let node = &vivid::load(VividOptions::default())[0];
    let mut stream = Stream::start(node);
    set_control(node, "inject_v4l2_buf_flag_error", 1);
    wait_for("a frame with the error flag", SOON, || stream.next_frame(SOON).filter(|frame| frame.error));
    set_control(node, "disconnect", 1);
    let end = stream.finish();
    assert!(end.is_its_own(), "{end:?}");
    v4l2_ctl_streams(node, 5).unwrap();

    let stream = Stream::start(node);
    vivid::unbind();
    let end = stream.finish();
    assert!(end.is_its_own(), "{end:?}");
    assert!(!node.exists());
    let nodes = vivid::bind();
    v4l2_ctl_streams(&nodes[0], 5).unwrap();
}

#[test]
fn a_held_camera_is_refused_until_its_holder_dies() {
    let _alone = alone();
    let node = vivid::load(VividOptions::default()).remove(0);
    let webcam = Webcam::plug(WebcamOptions::default());
    for node in [node, webcam.node()] {
        let holder = Stream::start(&node);
        let refusal = v4l2_ctl_streams(&node, 1).unwrap_err();
        assert!(refusal.contains("Device or resource busy"), "{refusal}");
        holder.kill();
        wait_for("the camera to be free", SOON, || v4l2_ctl_streams(&node, 5).ok());
    }
}

#[test]
fn a_webcam_streams_by_isochronous_and_by_bulk_transfers() {
    let _alone = alone();
    for bulk in [false, true] {
        let webcam = Webcam::plug(WebcamOptions { bulk, ..WebcamOptions::default() });
        let node = webcam.node();
        let recording = record(&node, "width=640,height=360,pixelformat=YUYV", 20);
        assert_in_order(&numbers(&recording, 640, 360));
        let recording = record(&node, "width=320,height=180,pixelformat=YUYV", 20);
        assert_in_order(&numbers(&recording, 320, 180));

        let metadata = webcam.metadata_node();
        assert_ne!(metadata, node);
        let (_, capabilities) = v4l2_ctl(&metadata, &["-D"]);
        assert!(capabilities.contains("Metadata Capture"), "{capabilities}");
    }
}

#[test]
fn a_webcam_sends_at_the_rate_that_was_set() {
    let _alone = alone();
    let webcam = Webcam::plug(WebcamOptions::default());
    for (rate, milliseconds) in [("30", 667), ("15", 1333)] {
        let (well, said) = v4l2_ctl(&webcam.node(), &["-p", rate]);
        assert!(well, "{said}");
        let mut stream = Stream::start(&webcam.node());
        let begin = Instant::now();
        stream.take(20);
        let took = begin.elapsed().as_millis();
        // Never faster; slower by much only if the host has other things to do.
        assert!((milliseconds * 3 / 4..milliseconds * 4).contains(&took), "{rate} fps: 20 frames in {took} ms");
    }
}

#[test]
fn a_webcam_sends_jpegs_that_decode() {
    let _alone = alone();
    for bulk in [false, true] {
        let webcam = Webcam::plug(WebcamOptions { bulk, ..WebcamOptions::default() });
        let recording = record(&webcam.node(), "width=640,height=360,pixelformat=MJPG", 20);
        fs::write("/tmp/recorded.mjpeg", recording).unwrap();
        let arguments = "-v error -y -f mjpeg -i /tmp/recorded.mjpeg -f rawvideo -pix_fmt gray /tmp/luma";
        let (well, said) = tool("ffmpeg", &arguments.split(' ').collect::<Vec<_>>());
        assert!(well && said.is_empty(), "{said}");
        let luma = fs::read("/tmp/luma").unwrap();
        let numbers: Vec<u32> = luma
            .chunks_exact(640 * 360)
            .map(|frame| number_in_luma(640, 360, |x, y| frame[(y * 640 + x) as usize]).expect("a whole frame"))
            .collect();
        assert_eq!(numbers.len(), 20);
        assert_in_order(&numbers);
    }
}

#[test]
fn silence_is_neither_frame_nor_error() {
    let _alone = alone();
    let webcam = Webcam::plug(WebcamOptions::default());
    let mut stream = Stream::start(&webcam.node());
    webcam.order("pause");
    // Frames that were under way may still come, and be told of late.
    let begun = Instant::now();
    while stream.next_frame(Duration::from_secs(1)).is_some() {
        assert!(begun.elapsed() < SOON, "frames come from a webcam that sends none");
    }
    assert_eq!(webcam.state("streaming"), 1);
    webcam.order("resume");
    assert!(stream.take(10).iter().all(|frame| !frame.error));
}

#[test]
fn damaged_frames_are_dropped_by_the_driver() {
    let _alone = alone();
    let webcam = Webcam::plug(WebcamOptions::default());
    let mut stream = Stream::start(&webcam.node());
    stream.take(5);
    let before = stream.take(1);
    for fault in ["error-bit", "half-frame"] {
        webcam.order(&format!("{fault} 3"));
        wait_for("the fault to be spent", SOON, || (webcam.state(fault) == 0).then_some(()));
    }
    stream.take_reported();
    let after = stream.take(5);
    assert!(after.iter().all(|frame| frame.bytes_used == WHOLE_FRAME && !frame.error), "{after:?}");
    assert!(after[0].sequence > before[0].sequence + 6);
}

#[test]
fn with_nodrop_damaged_frames_come_with_the_error_flag() {
    let _alone = alone();
    let webcam = Webcam::plug(WebcamOptions { driver: vec![("nodrop", "1")], ..WebcamOptions::default() });
    let mut stream = Stream::start(&webcam.node());
    for (fault, whole) in [("error-bit 1", true), ("half-frame 1", false), ("packet-errors 8", false)] {
        // The driver drops whole frames, too, while v4l2-ctl gets no time to hand its buffers back: one time of four in
        // which it got it is enough.
        let without_gaps = (0..4).any(|_| {
            webcam.order(fault);
            let damaged = wait_for(fault, SOON, || stream.next_frame(SOON).filter(|frame| frame.error));
            assert_eq!(damaged.bytes_used == WHOLE_FRAME, whole, "{fault}: {damaged:?}");
            let later = stream.take(10);
            assert!(later[5..].iter().all(|frame| !frame.error && frame.bytes_used == WHOLE_FRAME), "{later:?}");
            println!("{fault}: {} gaps: {later:?}", gaps(&later));
            gaps(&later) == 0
        });
        assert!(without_gaps, "{fault}: frames are missing each time");
    }
    drop(stream);
    drop(webcam);
    assert_eq!(fs::read_to_string("/sys/module/uvcvideo/parameters/nodrop").unwrap().trim(), "0");
}

#[test]
fn stalled_negotiations_fail_where_they_are_made() {
    let _alone = alone();
    let webcam = Webcam::plug(WebcamOptions::default());
    let node = webcam.node();
    webcam.order("stall-probe");
    let (well, said) = v4l2_ctl(&node, &["-v", "width=320,height=180,pixelformat=YUYV"]);
    assert!(!well && said.contains("Input/output error"), "{said}");
    webcam.order("stall-commit");
    let refusal = v4l2_ctl_streams(&node, 5).unwrap_err();
    assert!(refusal.contains("VIDIOC_STREAMON returned -1 (Input/output error)"), "{refusal}");
    v4l2_ctl_streams(&node, 5).unwrap();
}

#[test]
fn controls_are_kept_refused_and_delayed() {
    let _alone = alone();
    let webcam = Webcam::plug(WebcamOptions::default());
    let node = webcam.node();
    set_control(&node, "brightness", -3);
    assert!(v4l2_ctl(&node, &["-C", "brightness"]).1.contains("-3"));

    // The time of exposure is the camera's own affair until it is told otherwise.
    assert!(!v4l2_ctl(&node, &["-c", "exposure_time_absolute=200"]).0);
    set_control(&node, "auto_exposure", 1);
    set_control(&node, "exposure_time_absolute", 200);

    let mut stream = Stream::start(&node);
    webcam.order("delay-controls 400");
    let begin = Instant::now();
    set_control(&node, "brightness", 5);
    assert!(begin.elapsed() >= Duration::from_millis(400));
    assert!(stream.take_reported().len() > 5, "frames go on meanwhile");

    // The driver waits 5 s.
    webcam.order("delay-controls 20000");
    let (well, said) = v4l2_ctl(&node, &["-c", "brightness=6"]);
    assert!(!well && said.contains("timed out"), "{said}");
    webcam.order("delay-controls 0");
    set_control(&node, "brightness", 7);
}

#[test]
fn an_unplugged_webcam_is_gone_and_comes_back() {
    let _alone = alone();
    for bulk in [false, true] {
        let webcam = Webcam::plug(WebcamOptions { bulk, serial: "SAME".into(), ..WebcamOptions::default() });
        let (node, metadata) = (webcam.node(), webcam.metadata_node());
        let stream = Stream::start(&node);
        webcam.unplug();
        assert!(!node.exists() && !metadata.exists());
        let end = stream.finish();
        assert!(end.is_its_own(), "{end:?}");

        let node = webcam.replug();
        v4l2_ctl_streams(&node, 5).unwrap();
        assert_eq!(fs::read_to_string(webcam.usb_device().join("serial")).unwrap().trim(), "SAME");
        let before = webcam.state("frames");
        v4l2_ctl_streams(&node, 5).unwrap();
        assert!(webcam.state("frames") > before);

        drop(webcam);
        assert!(!node.exists());
    }
}

#[test]
fn several_webcams_share_the_machine() {
    let _alone = alone();
    let webcams: Vec<Webcam> = [false, true, false, false]
        .into_iter()
        .map(|bulk| Webcam::plug(WebcamOptions { bulk, serial: "SAME".into(), ..WebcamOptions::default() }))
        .collect();
    let mut streams: Vec<Stream> = webcams.iter().map(|webcam| Stream::start(&webcam.node())).collect();
    let begin = Instant::now();
    for stream in &mut streams {
        assert!(stream.take(30).iter().all(|frame| frame.bytes_used == WHOLE_FRAME));
    }
    eprintln!("four webcams, 30 frames each: {:?}", begin.elapsed());
}

#[test]
fn udev_links_a_webcam_by_its_serial_and_lends_it_to_a_group() {
    let _alone = alone();
    let link = Path::new("/dev/v4l/by-id/usb-Camlease_Rig_Camera_LINKED-video-index0");
    let webcam = Webcam::plug(WebcamOptions { serial: "LINKED".into(), ..WebcamOptions::default() });
    let node = webcam.node();
    assert_eq!(fs::metadata(&node).unwrap().permissions().mode() & 0o777, 0o600);

    udev::start();
    assert_eq!(fs::canonicalize(link).unwrap(), node);
    let metadata = fs::metadata(&node).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    assert_ne!(metadata.gid(), 0);

    webcam.unplug();
    udev::settle();
    assert!(!link.exists());
    let node = webcam.replug();
    udev::settle();
    assert_eq!(fs::canonicalize(link).unwrap(), node);

    let as_nobody = |groups: &str| {
        let node = node.to_str().unwrap();
        tool("setpriv", &["--reuid=nobody", "--regid=nogroup", groups, "v4l2-ctl", "-d", node, "--info"])
    };
    assert!(!as_nobody("--clear-groups").0);
    let (well, said) = as_nobody("--groups=video");
    assert!(well, "{said}");
}
