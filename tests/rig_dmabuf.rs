//! Shared cameras whose readers read the driver's own buffers: nothing is copied, readers cannot write, a slow one starves
//! nobody, and whoever keeps a buffer keeps no camera.

mod support;

use std::collections::{BTreeSet, VecDeque};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use camlease::{Allowed, Camera, DropPolicy, FourCc, Frame, Kind, Map, OpenOptions, ShareOptions, StreamRequest};
use camlease_rig::vivid::{self, VividOptions};
use camlease_rig::{Webcam, WebcamOptions, alone, picture, require_guest, set_control, v4l2_ctl_streams};
use support::stamped::unshare;

const PATIENCE: Option<Duration> = Some(Duration::from_secs(10));

fn vivid(multiplanar: bool) -> PathBuf {
    vivid_of(VividOptions { multiplanar, ..VividOptions::default() })
}

fn vivid_of(options: VividOptions) -> PathBuf {
    require_guest();
    vivid::load(VividOptions { first_number: Some(40), ..options }).remove(0)
}

fn open(uri: &str) -> Camera {
    Camera::open(uri, OpenOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn request(fourcc: &str, width: u32, height: u32) -> StreamRequest {
    let drop_policy = DropPolicy::Newest;
    StreamRequest { fourcc: FourCc::parse(fourcc).unwrap(), width, height, drop_policy, ..StreamRequest::default() }
}

fn in_order(buffers: u32) -> StreamRequest {
    StreamRequest { drop_policy: DropPolicy::Newest, buffers, ..StreamRequest::default() }
}

fn shared(node: &Path, name: &str, request: StreamRequest) -> Camera {
    let camera = open(node.to_str().unwrap());
    camera.share(ShareOptions { name: name.into(), request, ..ShareOptions::default() }).unwrap();
    camera
}

fn status(camera: &Camera) -> Map {
    let mut request = Map::new();
    request.insert("do".into(), "status".into());
    camera.command(request, Duration::from_secs(5)).unwrap()
}

fn count(camera: &Camera, what: &str) -> u64 {
    status(camera)[what].as_u64().unwrap()
}

/// The files of this process that are buffers of a driver.
fn dmabufs() -> BTreeSet<i32> {
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    fds.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains("dmabuf")))
        .filter_map(|fd| fd.file_name().to_str()?.parse().ok())
        .collect()
}

/// What the kernel says to a mapping of a file; the mapping, else the errno.
fn mapped(fd: i32, prot: i32, length: usize) -> Result<*mut libc::c_void, i32> {
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), length, prot, libc::MAP_SHARED, fd, 0) };
    if at == libc::MAP_FAILED { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(at) }
}

fn number(frame: &Frame) -> u32 {
    picture::number_in_yuyv(frame.data(0), frame.width(), frame.height()).expect("a whole picture")
}

#[test]
fn nothing_is_copied_and_readers_see_what_the_driver_wrote() {
    let _alone = alone();
    require_guest();
    let webcam = Webcam::plug(WebcamOptions::default());
    let camera = shared(&webcam.node(), "lent", request("YUYV", 640, 360));
    let (one, other) = (open("shared:lent"), open("shared:lent"));
    one.start(&in_order(0)).unwrap();
    other.start(&StreamRequest::default()).unwrap();
    let mut last = None;
    for _ in 0..30 {
        let frame = one.next_frame(PATIENCE).unwrap();
        assert_eq!(frame.data(0).len(), 640 * 360 * 2);
        let found = number(&frame);
        assert!(last.is_none_or(|last| found > last), "{found} after {last:?}");
        last = Some(found);
        number(&other.next_frame(PATIENCE).unwrap());
    }
    assert_eq!(count(&camera, "copied"), 0);
    assert!(count(&camera, "lent") >= 30);
    assert_eq!(count(&camera, "dropped"), 0);
    // Compressed frames: each has its own length.
    drop((one, other));
    let reader = open("shared:lent");
    let given = reader.start(&request("MJPG", 0, 0)).unwrap();
    assert_eq!(given.fourcc.to_string(), "MJPG");
    for _ in 0..10 {
        let frame = reader.next_frame(PATIENCE).unwrap();
        let bytes = frame.data(0);
        assert!(bytes.starts_with(&[0xff, 0xd8]) && bytes.ends_with(&[0xff, 0xd9]), "a whole JPEG");
    }
    assert_eq!(count(&camera, "copied"), 0);
}

#[test]
fn lent_frames_and_copies_are_equal() {
    let _alone = alone();
    for (multiplanar, contiguous, fourcc, planes) in
        [(false, false, "YUYV", 1), (false, false, "NV12", 1), (true, false, "NM12", 2), (true, true, "NM12", 2)]
    {
        let node = vivid_of(VividOptions { multiplanar, contiguous, ..VividOptions::default() });
        set_control(&node, "osd_text_mode", 2); // nothing that changes in the picture
        let pictures = [true, false].map(|lend| {
            let camera = open(node.to_str().unwrap());
            let request = request(fourcc, 640, 360);
            camera.share(ShareOptions { name: "equal".into(), request, lend, ..ShareOptions::default() }).unwrap();
            let reader = open("shared:equal");
            reader.start(&in_order(0)).unwrap();
            (0..5).for_each(|_| drop(reader.next_frame(PATIENCE).unwrap()));
            let frame = reader.next_frame(PATIENCE).unwrap();
            assert_eq!(frame.planes(), planes, "{fourcc}");
            assert_eq!((count(&camera, "copied") == 0, count(&camera, "lent") > 0), (lend, lend), "{fourcc}");
            (0..planes).map(|plane| frame.data(plane).to_vec()).collect::<Vec<_>>()
        });
        assert!(pictures[0].iter().all(|plane| plane.iter().any(|byte| *byte != plane[0])), "{fourcc}: a picture");
        assert!(pictures[0] == pictures[1], "{fourcc}");
        set_control(&node, "osd_text_mode", 0);
    }
}

#[test]
fn others_than_this_user_get_copies() {
    let _alone = alone();
    let camera = open(vivid(false).to_str().unwrap());
    // Who may command may read as well.
    for (readers, commanders) in [(Allowed::Everyone, Allowed::Owner), (Allowed::Owner, Allowed::Group(44))] {
        let options = ShareOptions { name: "others".into(), readers, commanders, ..ShareOptions::default() };
        camera.share(options).unwrap();
        let reader = open("shared:others");
        reader.start(&in_order(0)).unwrap();
        drop(reader.next_frame(PATIENCE).unwrap());
        assert_eq!(count(&camera, "lent"), 0);
        assert_eq!(dmabufs(), BTreeSet::new());
        unshare(&camera);
    }
}

#[test]
fn where_memory_is_short_frames_are_copied() {
    let _alone = alone();
    let camera = open(vivid(false).to_str().unwrap());
    let (request, max_bytes) = (request("YUYV", 640, 360), 8 * 640 * 360 * 2);
    camera.share(ShareOptions { name: "short".into(), request, max_bytes, ..ShareOptions::default() }).unwrap();
    let reader = open("shared:short");
    reader.start(&in_order(0)).unwrap();
    (0..10).for_each(|_| drop(reader.next_frame(PATIENCE).unwrap()));
    assert_eq!((count(&camera, "lent"), count(&camera, "dropped")), (0, 0));
}

#[test]
fn a_reader_that_holds_starves_nobody() {
    let _alone = alone();
    require_guest();
    let webcam = Webcam::plug(WebcamOptions::default());
    let camera = shared(&webcam.node(), "held", request("YUYV", 640, 360));
    let (greedy, other) = (open("shared:held"), open("shared:held"));
    greedy.start(&in_order(16)).unwrap();
    other.start(&in_order(0)).unwrap();
    let held: Vec<Frame> = (0..16).map(|_| greedy.next_frame(PATIENCE).unwrap()).collect();
    let copies: Vec<Vec<u8>> = held.iter().map(|frame| frame.data(0).to_vec()).collect();
    let mut last = number(&other.next_frame(PATIENCE).unwrap());
    for _ in 0..30 {
        let found = number(&other.next_frame(PATIENCE).unwrap());
        assert!(found > last, "{found} after {last}");
        last = found;
    }
    let copied = count(&camera, "copied");
    assert!(copied > 20, "{copied} copied");
    assert_eq!(count(&camera, "dropped"), 0, "there was room for each frame");
    assert!(held.iter().zip(&copies).all(|(frame, copy)| frame.data(0) == copy), "what is held stays as it is");
    drop(held);
    // And all is as before.
    let settled = (0..5).find(|_| {
        let before = count(&camera, "copied");
        (0..10).for_each(|_| drop(other.next_frame(PATIENCE).unwrap()));
        count(&camera, "copied") == before
    });
    assert!(settled.is_some(), "nothing is copied again");
}

#[test]
fn readers_cannot_write() {
    let _alone = alone();
    let camera = shared(&vivid(false), "read-only", request("YUYV", 640, 360));
    let reader = open("shared:read-only");
    reader.start(&in_order(0)).unwrap();
    let frame = reader.next_frame(PATIENCE).unwrap();
    assert_eq!(count(&camera, "copied"), 0);
    let (files, length) = (dmabufs(), 4096);
    assert!(files.len() >= 8, "{files:?}");
    for &fd in &files {
        assert_eq!(mapped(fd, libc::PROT_READ | libc::PROT_WRITE, length), Err(libc::EACCES));
        let at = mapped(fd, libc::PROT_READ, length).unwrap();
        // SAFETY: the mapping just made.
        unsafe {
            assert_eq!(libc::mprotect(at, length, libc::PROT_READ | libc::PROT_WRITE), -1);
            libc::munmap(at, length);
        }
        let again = std::fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{fd}"));
        assert!(again.is_err(), "it cannot be opened anew to be written");
        // SAFETY: one byte to write.
        assert_eq!(unsafe { libc::write(fd, [0u8].as_ptr().cast(), 1) }, -1);
    }
    drop(frame);
}

#[test]
fn whoever_keeps_a_buffer_keeps_no_camera() {
    let _alone = alone();
    require_guest();
    let webcam = Webcam::plug(WebcamOptions::default());
    for kind in ["vivid", "vivid, contiguous", "uvcvideo"] {
        let node = match kind {
            "uvcvideo" => webcam.node(),
            kind => vivid_of(VividOptions { contiguous: kind != "vivid", ..VividOptions::default() }),
        };
        let camera = shared(&node, "kept", request("YUYV", 640, 360));
        let reader = open("shared:kept");
        reader.start(&in_order(0)).unwrap();
        let frame = reader.next_frame(PATIENCE).unwrap();
        let copy = frame.data(0).to_vec();
        assert_eq!(count(&camera, "copied"), 0);
        // One that keeps all it ever got: files and mappings.
        let kept: Vec<(i32, *mut libc::c_void)> = dmabufs()
            .into_iter()
            // SAFETY: descriptors of this process.
            .map(|fd| unsafe { libc::dup(fd) })
            .map(|fd| (fd, mapped(fd, libc::PROT_READ, copy.len()).unwrap()))
            .collect();
        let begun = Instant::now();
        unshare(&camera);
        println!("{kind}: stopped in {:?} with {} buffers kept", begun.elapsed(), kept.len());
        // Another format, by the same handle, and then by another program.
        camera.start(&request("YUYV", 320, 180)).unwrap();
        drop(camera.next_frame(PATIENCE).unwrap());
        camera.stop().unwrap();
        let begun = Instant::now();
        camera.close();
        println!("closed in {:?}", begun.elapsed());
        assert_eq!(v4l2_ctl_streams(&node, 3), Ok(()), "the camera is free");
        assert!(frame.data(0) == copy, "what is held stays as it is");
        // And it is shared again, with buffers of its own.
        let camera = shared(&node, "kept", request("YUYV", 640, 360));
        drop(reader);
        let reader = open("shared:kept");
        reader.start(&in_order(0)).unwrap();
        (0..10).for_each(|_| drop(reader.next_frame(PATIENCE).unwrap()));
        assert_eq!(count(&camera, "copied"), 0);
        assert!(frame.data(0) == copy);
        drop((reader, camera));
        for (fd, at) in kept {
            // SAFETY: descriptors and mappings of this test.
            unsafe {
                libc::munmap(at, copy.len());
                libc::close(fd);
            }
        }
    }
    assert_eq!(dmabufs(), BTreeSet::new(), "nothing is left");
}

/// Not a test: the process that shares a camera in the next one.
#[test]
fn producer() {
    let Ok(node) = std::env::var("RIG_DMABUF_NODE") else { return };
    let camera = shared(Path::new(&node), "killed", request("YUYV", 640, 360));
    println!("shared");
    std::thread::sleep(Duration::from_secs(100));
    drop(camera);
}

fn start_producer(node: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "producer", "--nocapture"]).env("RIG_DMABUF_NODE", node).stdout(Stdio::piped());
    let mut process = command.spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().ends_with("shared")), "it shares the camera");
    process
}

#[test]
fn a_producer_that_is_killed_leaves_frames_and_a_free_camera() {
    let _alone = alone();
    let node = vivid(false);
    let mut producer = start_producer(&node);
    let reader = open("shared:killed");
    reader.start(&in_order(4)).unwrap();
    let held: Vec<Frame> = (0..4).map(|_| reader.next_frame(PATIENCE).unwrap()).collect();
    let copies: Vec<Vec<u8>> = held.iter().map(|frame| frame.data(0).to_vec()).collect();
    assert!(dmabufs().len() >= 8);
    producer.kill().unwrap();
    producer.wait().unwrap();
    let begun = Instant::now();
    assert_eq!(v4l2_ctl_streams(&node, 3), Ok(()), "the camera is free");
    println!("free and streaming elsewhere {:?} after the kill, with {} frames held", begun.elapsed(), held.len());
    let gone = (0..100).find_map(|_| reader.next_frame(PATIENCE).err()).unwrap();
    assert_eq!(gone.kind(), Kind::Disconnected, "{gone}");
    assert!(held.iter().zip(&copies).all(|(frame, copy)| frame.data(0) == copy), "what is held stays as it is");
    // The next one, to which the reader goes by itself.
    let mut producer = start_producer(&node);
    let begun = Instant::now();
    while reader.next_frame(Some(Duration::from_millis(500))).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is attached again");
    }
    assert!(held.iter().zip(&copies).all(|(frame, copy)| frame.data(0) == copy), "what is held stays as it is");
    producer.kill().unwrap();
    producer.wait().unwrap();
    drop(held);
    drop(reader);
    assert_eq!(dmabufs(), BTreeSet::new(), "nothing is left");
}

#[test]
fn unplugged_and_reset_while_buffers_are_held() {
    let _alone = alone();
    require_guest();
    let webcam = Webcam::plug(WebcamOptions { serial: "LENT1".into(), ..WebcamOptions::default() });
    let camera = shared(&webcam.node(), "unplugged", request("YUYV", 640, 360));
    let reader = open("shared:unplugged");
    reader.start(&in_order(0)).unwrap();
    let frame = reader.next_frame(PATIENCE).unwrap();
    let copy = frame.data(0).to_vec();
    camera.reset(PATIENCE).unwrap();
    // The stream goes on, in buffers that readers are given anew.
    for _ in 0..20 {
        number(&reader.next_frame(PATIENCE).unwrap());
    }
    assert_eq!(count(&camera, "copied"), 0);
    assert_eq!(count(&camera, "generation"), 2);
    assert!(frame.data(0) == copy, "what is held stays as it is");
    webcam.order("detach");
    let error = (0..100).find_map(|_| reader.next_frame(PATIENCE).err()).unwrap();
    assert_eq!(error.kind(), Kind::Disconnected, "{error}");
    assert!(frame.data(0) == copy);
    webcam.replug();
    let begun = Instant::now();
    while reader.next_frame(Some(Duration::from_millis(500))).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the camera is back");
    }
    assert!(frame.data(0) == copy);
}

#[test]
fn no_buffer_is_filled_while_somebody_reads_it() {
    let _alone = alone();
    require_guest();
    let webcam = Webcam::plug(WebcamOptions::default());
    let camera = shared(&webcam.node(), "stress", request("YUYV", 320, 180));
    std::thread::scope(|scope| {
        for hold in [1, 3, 7, 12] {
            scope.spawn(move || {
                let reader = open("shared:stress");
                reader.start(&in_order(hold as u32 + 1)).unwrap();
                let mut held = VecDeque::new();
                for _ in 0..60 {
                    let frame = reader.next_frame(PATIENCE).unwrap();
                    held.push_back((number(&frame), frame));
                    if held.len() > hold {
                        let (before, frame) = held.pop_front().unwrap();
                        assert_eq!(number(&frame), before, "held: {hold}");
                    }
                }
                assert!(held.iter().all(|(before, frame)| number(frame) == *before), "held: {hold}");
            });
        }
    });
    let (lent, copied) = (count(&camera, "lent"), count(&camera, "copied"));
    assert!(lent > 10 && copied > 10, "{lent} lent, {copied} copied");
}
