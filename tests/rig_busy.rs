//! Busy cameras: who has it is told truly, and it is got when it is free.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use camlease::{Activity, Camera, Event, Holders, Kind, OpenOptions, StreamRequest};
use camlease_rig::foreign::Stream;
use camlease_rig::vivid::{self, VividOptions};
use camlease_rig::{Webcam, WebcamOptions, alone, require_guest, udev, v4l2_ctl_streams, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);

fn vivid() -> String {
    vivid::load(VividOptions { first_number: Some(40), ..VividOptions::default() }).remove(0).display().to_string()
}

fn open(uri: &str, timeout: Duration) -> camlease::Result<Camera> {
    Camera::open(uri, OpenOptions { timeout: Some(timeout), ..OpenOptions::default() })
}

/// The program `tests/c/neighbour.c`.
struct Neighbour {
    process: Child,
    output: BufReader<ChildStdout>,
    /// The process that has the camera: the program, or the child that it left.
    pid: i32,
}

impl Neighbour {
    fn start(node: &str, what: &str) -> Neighbour {
        let mut process = Command::new(support::c_program("neighbour.c", &[]))
            .args([node, what])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut neighbour = Neighbour { process, output, pid: 0 };
        neighbour.pid = neighbour.line().strip_prefix("ready ").expect("it is ready").parse().unwrap();
        neighbour
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    fn order(&mut self) {
        self.process.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    fn kill(&mut self) {
        // SAFETY: a process of this test's.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Refused with a message that names the holder; and told to `on_wait` before.
#[track_caller]
fn refused_because_of(uri: &str, pid: i32, program: &str, activity: Activity) {
    let mut told: Option<(String, Holders)> = None;
    let mut on_wait = |message: &str, holders: &Holders| {
        told.get_or_insert((message.into(), holders.clone()));
    };
    let options = OpenOptions {
        timeout: Some(Duration::from_millis(300)),
        on_wait: Some(&mut on_wait),
        ..OpenOptions::default()
    };
    let begun = Instant::now();
    let error = Camera::open(uri, options).err().expect("it is busy");
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!((error.kind(), error.errno()), (Kind::Busy, libc::EBUSY), "{error}");
    let words = if activity == Activity::Streaming { "streaming" } else { "has it open" };
    let expected = format!("{program} (pid {pid}, user root, {words})");
    assert!(error.message().contains(&expected), "\"{expected}\" is not in: {error}");
    assert!(error.message().starts_with(uri), "{error}");
    let (message, holders) = told.expect("on_wait was called");
    assert!(message.contains(&expected), "\"{expected}\" is not in: {message}");
    let holder = holders.list.iter().find(|holder| holder.pid == pid).expect("the holder is in the list");
    assert_eq!((holder.activity, holder.uid), (activity, 0));
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let start_time = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap();
    assert_eq!(holder.start_time.to_string(), start_time);
}

#[test]
fn held_by_v4l2_ctl() {
    let _alone = alone();
    require_guest();
    let uri = vivid();
    let stream = Stream::start(Path::new(&uri));
    refused_because_of(&uri, stream.process_id() as i32, "v4l2-ctl", Activity::Streaming);
    stream.kill();
    drop(open(&uri, PATIENCE).unwrap());
}

#[test]
fn held_by_ffmpeg() {
    let _alone = alone();
    require_guest();
    let uri = vivid();
    let mut ffmpeg = Command::new("ffmpeg")
        .args(["-loglevel", "error", "-f", "v4l2", "-i", &uri, "-f", "null", "-"])
        .stdin(Stdio::null())
        .spawn()
        .expect("ffmpeg is installed");
    let pid = ffmpeg.id() as i32;
    wait_for("ffmpeg to stream", PATIENCE, || {
        camlease::holders(&uri).unwrap().list.iter().any(|holder| holder.activity == Activity::Streaming).then_some(())
    });
    refused_because_of(&uri, pid, "ffmpeg", Activity::Streaming);
    ffmpeg.kill().unwrap();
    ffmpeg.wait().unwrap();
    drop(open(&uri, PATIENCE).unwrap());
}

#[test]
fn held_by_another_process_of_this_library() {
    let _alone = alone();
    require_guest();
    let uri = vivid();
    for (state, activity) in [("opened", Activity::Open), ("started", Activity::Streaming)] {
        let mut holder = support::holder(&uri, state);
        refused_because_of(&uri, holder.id() as i32, "holder", activity);
        holder.kill().unwrap();
        holder.wait().unwrap();
    }
    drop(open(&uri, PATIENCE).unwrap());
}

#[test]
fn held_by_a_forked_child_that_inherited_it() {
    let _alone = alone();
    require_guest();
    let uri = vivid();
    let mut neighbour = Neighbour::start(&uri, "inherit");
    assert!(neighbour.process.wait().unwrap().success(), "the parent has exited");
    refused_because_of(&uri, neighbour.pid, "neighbour", Activity::Streaming);
    neighbour.kill();
    drop(open(&uri, PATIENCE).unwrap());
}

#[test]
fn held_by_this_process_itself() {
    let _alone = alone();
    require_guest();
    let uri = vivid();
    let first = Camera::open(&uri, OpenOptions { name: "left eye".into(), ..OpenOptions::default() }).unwrap();
    let error = open(&uri, Duration::ZERO).err().unwrap();
    assert_eq!(error.kind(), Kind::Busy);
    assert!(error.message().contains("this process itself"), "{error}");
    assert!(error.message().contains("tried once"), "{error}");
    let own = camlease::holders(&uri).unwrap().list;
    let name = own[0].lease.as_ref().map(|lease| lease.name.as_str());
    assert_eq!((own.len(), own[0].pid, name), (1, std::process::id() as i32, Some("left eye")));
    drop(first);

    // Who waits for a camera has its node open, and holds nothing: not for other waiters of the process either.
    let stream = Stream::start(Path::new(&uri));
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| drop(open(&uri, PATIENCE).unwrap()));
        let nodes_open = || {
            let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
            descriptors.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to == Path::new(&uri))).count()
        };
        wait_for("the waiter to have the node open", PATIENCE, || (nodes_open() == 1).then_some(()));
        let pids: Vec<_> = camlease::holders(&uri).unwrap().list.iter().map(|holder| holder.pid).collect();
        assert_eq!(pids, [stream.process_id() as i32]);
        stream.kill();
        waiter.join().unwrap();
    });
    drop(open(&uri, Duration::ZERO).unwrap());
    assert_eq!(camlease::holders(&uri).unwrap(), Holders::default());
}

#[test]
fn a_program_that_merely_has_the_node_open_keeps_nobody_out() {
    let _alone = alone();
    require_guest();
    let uri = vivid();
    let neighbour = Neighbour::start(&uri, "open");
    let camera = open(&uri, Duration::ZERO).unwrap();
    let holders = camlease::holders(&uri).unwrap();
    let open = holders.list.iter().find(|holder| holder.pid == neighbour.pid).unwrap();
    assert_eq!(open.activity, Activity::Open);
    camera.start(&StreamRequest::default()).unwrap();
    drop(camera.next_frame(Some(PATIENCE)).unwrap());
}

#[test]
fn a_release_without_notice_is_found_by_polling() {
    let _alone = alone();
    require_guest();
    let uri = vivid();
    let mut soonest = Duration::MAX; // of some: a machine that is slow is late by itself
    for _ in 0..5 {
        let mut neighbour = Neighbour::start(&uri, "stream");
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let camera = open(&uri, PATIENCE).unwrap();
                (Instant::now(), camera.stats())
            });
            std::thread::sleep(Duration::from_millis(600)); // so that the waiter has backed off
            neighbour.order();
            assert_eq!(neighbour.line(), "let go");
            let free = Instant::now();
            let (got, stats) = waiter.join().unwrap();
            let (after, attempts) = (got.saturating_duration_since(free), stats.open_attempts);
            println!("got it {} ms after a release without notice, {attempts} attempts", after.as_millis());
            assert!(stats.busy_wait_ns >= 300_000_000 && attempts > 3, "{stats:?}");
            soonest = soonest.min(after);
        });
    }
    assert!(soonest < Duration::from_millis(300), "{soonest:?}");
}

#[test]
fn a_wait_ends_by_kill_cancel_and_deadline() {
    let _alone = alone();
    require_guest();
    let uri = vivid();
    let stream = Stream::start(Path::new(&uri));
    let cancel = Event::new().unwrap();
    std::thread::scope(|scope| {
        let cancelled = scope.spawn(|| {
            let options = OpenOptions { timeout: None, cancel: Some(&cancel), ..OpenOptions::default() };
            Camera::open(&uri, options).err().unwrap().kind()
        });
        let waiting = scope.spawn(|| open(&uri, PATIENCE).map(|camera| camera.stats()));
        std::thread::sleep(Duration::from_millis(200));
        cancel.signal();
        assert_eq!(cancelled.join().unwrap(), Kind::Closed);
        assert!(!waiting.is_finished());
        stream.kill();
        let killed = Instant::now();
        waiting.join().unwrap().unwrap();
        println!("got it {} ms after its holder was killed", killed.elapsed().as_millis());
    });
}

#[test]
fn nobody_takes_the_camera_while_its_format_changes() {
    let _alone = alone();
    require_guest();
    for uri in [vivid(), usb()] {
        let camera = open(&uri, PATIENCE).unwrap();
        let mut thief = Neighbour::start(&uri, "steal");
        for round in 0..30 {
            let width = if round % 2 == 0 { 320 } else { 640 };
            let request = StreamRequest { width, height: width * 9 / 16, ..StreamRequest::default() };
            let given = camera.start(&request).unwrap_or_else(|error| panic!("{uri}, round {round}: {error}"));
            assert_eq!(given.width, width);
            camera.stop().unwrap_or_else(|error| panic!("{uri}, round {round}: {error}"));
        }
        thief.order();
        let told = thief.line();
        println!("{uri}: the thief {told} attempts");
        assert!(told.starts_with("stole 0 of "), "{uri}: {told}");
        drop(camera);
    }
}

fn usb() -> String {
    use std::sync::OnceLock;
    static WEBCAM: OnceLock<Webcam> = OnceLock::new();
    WEBCAM
        .get_or_init(|| Webcam::plug(WebcamOptions { serial: "BUSY1".into(), ..WebcamOptions::default() }))
        .node()
        .display()
        .to_string()
}

#[test]
fn a_usb_camera_by_id_by_ids_and_behind_its_metadata_node() {
    let _alone = alone();
    require_guest();
    let node = usb();
    let metadata = node.replace("video0", "video1");
    let error = open(&metadata, Duration::ZERO).err().unwrap();
    assert_eq!(error.kind(), Kind::Unsupported);
    assert!(error.message().contains("metadata"), "{error}");

    udev::start();
    let link = wait_for("the by-id link", PATIENCE, || {
        let entries = std::fs::read_dir("/dev/v4l/by-id").ok()?;
        entries.flatten().map(|entry| entry.path()).find(|path| path.to_string_lossy().ends_with("BUSY1-video-index0"))
    });
    let link = link.to_str().unwrap();
    let camera = open(link, PATIENCE).unwrap();
    assert_eq!(camera.identity().uri, node);
    assert_eq!(camera.identity().serial, "BUSY1");
    let usb_id = std::fs::read_to_string("/sys/class/video4linux/video0/device/uevent").unwrap();
    let (vendor, product) = usb_id
        .lines()
        .find_map(|line| line.strip_prefix("PRODUCT=")?.split_once('/'))
        .map(|(vendor, rest)| (u16::from_str_radix(vendor, 16).unwrap(), rest.split('/').next().unwrap().to_owned()))
        .unwrap();
    let product = u16::from_str_radix(&product, 16).unwrap();
    let by_ids = format!("usb:{vendor:04x}:{product:04x}:BUSY1");
    let error = open(&by_ids, Duration::ZERO).err().unwrap();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    assert!(error.message().contains(&by_ids), "{error}");
    drop(camera);
    drop(open(&by_ids, Duration::ZERO).unwrap());
    let other = open(&format!("{by_ids}X"), Duration::ZERO).err().unwrap();
    assert_eq!(other.kind(), Kind::NotFound);

    // A program that has the metadata node alone is told apart.
    let metadata_open = Neighbour::start(&metadata, "open");
    let holders = camlease::holders(&node).unwrap();
    let beside = holders.list.iter().find(|holder| holder.pid == metadata_open.pid).expect("it is listed");
    assert_eq!(beside.other_node.as_deref(), Some(Path::new(&metadata)));
}

#[test]
fn a_locked_media_controller_is_told() {
    let _alone = alone();
    require_guest();
    let uri = vivid();
    let device = format!("/sys/class/video4linux/{}/device", uri.strip_prefix("/dev/").unwrap());
    let media = std::fs::read_dir(device).unwrap().flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        name.starts_with("media").then(|| format!("/dev/{name}"))
    });
    let media = media.expect("vivid has a media controller");
    let neighbour = Neighbour::start(&media, "lock");
    let holders = camlease::holders(&uri).unwrap();
    assert_eq!((holders.list.len(), holders.list[0].pid), (1, neighbour.pid), "{holders}");
    assert!(holders.to_string().contains(&format!("has the same camera's {media} locked")), "{holders}");
}

#[test]
fn a_camera_that_is_not_there_yet_is_waited_for() {
    let _alone = alone();
    require_guest();
    let options = || WebcamOptions { serial: "LATER".into(), ..WebcamOptions::default() };
    let webcam = Webcam::plug(options());
    let node = webcam.node().display().to_string();
    webcam.unplug();
    assert_eq!(open(&node, Duration::ZERO).err().unwrap().kind(), Kind::NotFound);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let options = OpenOptions { timeout: Some(PATIENCE), wait_for_device: true, ..OpenOptions::default() };
            Camera::open(&node, options).map(|camera| camera.identity().serial.clone())
        });
        std::thread::sleep(Duration::from_millis(100));
        webcam.replug();
        assert_eq!(waiter.join().unwrap().unwrap(), "LATER");
    });
}

/// What an open without privilege says.
fn said_to_nobody(uri: &str) -> String {
    let output = Command::new("setpriv")
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"])
        .arg(support::c_program("holder.c", &[]))
        .arg(support::library())
        .args([uri, "opened", "exit"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn no_permission_names_the_group() {
    let _alone = alone();
    require_guest();
    let uri = vivid();
    let status = Command::new("chgrp").args(["video", &uri]).status().unwrap();
    assert!(status.success());
    assert!(Command::new("chmod").args(["660", &uri]).status().unwrap().success());
    let said = said_to_nobody(&uri);
    assert!(said.contains("EACCES"), "{said}");
    assert!(said.contains("sudo usermod -aG video $USER"), "{said}");
    // Afterwards, as everywhere: the device is free.
    assert_eq!(v4l2_ctl_streams(Path::new(&uri), 2), Ok(()));
}

#[test]
fn what_could_not_be_looked_at_is_said() {
    let _alone = alone();
    require_guest();
    let uri = vivid();
    let stream = Stream::start(Path::new(&uri));
    assert!(Command::new("chmod").args(["666", &uri]).status().unwrap().success());
    let said = said_to_nobody(&uri);
    assert!(said.contains("the list may be incomplete"), "{said}");
    stream.kill();
}

#[test]
fn a_list_tells_free_open_and_streaming() {
    let _alone = alone();
    require_guest();
    let uri = vivid();
    let state = || camlease::list().unwrap().into_iter().find(|found| found.identity.uri == uri).unwrap().state;
    assert_eq!(state(), camlease::State::Free);
    let neighbour = Neighbour::start(&uri, "open");
    assert_eq!(state(), camlease::State::Open);
    drop(neighbour);
    let stream = Stream::start(Path::new(&uri));
    assert_eq!(state(), camlease::State::Streaming);
    stream.kill();
}
