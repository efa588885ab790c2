//! Opening a camera beside others: attached to it where it is shared, and else shared from then on, by a process of its
//! own, for as long as somebody reads.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use camlease::{Access, Camera, Error, Frame, Kind, OpenOptions, StreamRequest};

const PATIENCE: Duration = Duration::from_secs(20);

/// Names are the whole machine's.
fn virtual_camera(name: &str) -> String {
    format!("virtual:{name}-{}?width=64&height=48&fps=100", std::process::id())
}

fn options<'a>(timeout: Duration) -> OpenOptions<'a> {
    OpenOptions { access: Access::Shared, timeout: Some(timeout), ..OpenOptions::default() }
}

fn open(uri: &str) -> Camera {
    Camera::open(uri, options(PATIENCE)).unwrap()
}

fn frame(camera: &Camera) -> Frame {
    let begun = Instant::now();
    loop {
        match camera.next_frame(Some(Duration::from_millis(500))) {
            Ok(frame) => return frame,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "no frame: {error}"),
        }
    }
}

fn name_of(camera: &Camera) -> String {
    camera.identity().uri.strip_prefix("shared:").unwrap().to_owned()
}

/// The camera process of a name.
fn server(name: &str) -> Option<i32> {
    camlease::shares().into_iter().find(|served| served.name == name).map(|served| served.pid)
}

#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "not so within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_free(uri: &str) -> bool {
    Camera::open(uri, OpenOptions { timeout: Some(Duration::ZERO), ..OpenOptions::default() }).is_ok()
}

fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// This program again, to do one thing with a camera.
fn child(part: &str, uri: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "plays_a_part", "--nocapture", "-q"])
        .env(PART, part)
        .env("URI", uri)
        .stdout(Stdio::null());
    command
}

const PART: &str = "CAMLEASE_TEST_PART";

/// What the children do; nothing in the test run itself.
#[test]
fn plays_a_part() {
    let (Ok(part), Ok(uri)) = (std::env::var(PART), std::env::var("URI")) else { return };
    let failure = || Camera::open(&uri, options(Duration::from_secs(10))).err().unwrap();
    match part.as_str() {
        "reads a little" => {
            let camera = open(&uri);
            camera.start(&StreamRequest::default()).unwrap();
            (0..20).for_each(|_| drop(frame(&camera)));
        }
        "reads for ever" => {
            let camera = open(&uri);
            camera.start(&StreamRequest::default()).unwrap();
            loop {
                frame(&camera);
            }
        }
        "outlives a process that starts slowly" => {
            let camera = open(&uri);
            camera.start(&StreamRequest::default()).unwrap();
            frame(&camera);
            kill(server(&name_of(&camera)).unwrap());
            while camera.next_frame(Some(Duration::from_millis(100))).is_ok() {}
            frame(&camera);
        }
        "meets no command" => assert!(failure().message().contains("/no/such/command"), "{}", failure()),
        "meets another command" => assert!(failure().message().contains("without a report"), "{}", failure()),
        _ => panic!("nobody knows how to {part}"),
    }
}

fn is_gone(pid: i32) -> bool {
    !Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn it_is_shared_until_its_last_user_has_gone() {
    let uri = virtual_camera("access-last");
    let first = open(&uri);
    let name = name_of(&first);
    let served_by = server(&name).unwrap();
    assert_ne!(served_by, std::process::id() as i32);
    first.start(&StreamRequest::default()).unwrap();
    assert_eq!(frame(&first).width(), 64);
    let second = open(&uri);
    second.start(&StreamRequest::default()).unwrap();
    assert_eq!((frame(&second).width(), server(&name)), (64, Some(served_by)), "attached to the same");
    let busy = Camera::open(&uri, OpenOptions { timeout: Some(Duration::ZERO), ..OpenOptions::default() });
    let busy = busy.err().unwrap();
    assert_eq!(busy.kind(), Kind::Busy);
    assert!(busy.message().contains(&format!("open shared:{name}")), "{busy}");
    drop(first);
    frame(&second);
    drop(second);
    until("the camera is free again", || is_free(&uri));
    until("its process has ended", || is_gone(served_by));
    assert_eq!(server(&name), None);
}

#[test]
fn a_camera_process_that_is_killed_is_replaced_by_its_readers() {
    let uri = virtual_camera("access-killed");
    let (first, second) = (open(&uri), open(&uri));
    for camera in [&first, &second] {
        camera.start(&StreamRequest::default()).unwrap();
        frame(camera);
    }
    let held = frame(&first);
    let before = held.data(0).to_vec();
    let name = name_of(&first);
    let former = server(&name).unwrap();
    kill(former);
    let lost = (0..1000).find_map(|_| first.next_frame(Some(PATIENCE)).err()).unwrap();
    assert_eq!(lost.kind(), Kind::Disconnected, "{lost}");
    assert_eq!(held.data(0), before);
    frame(&first);
    frame(&second);
    let present = server(&name).unwrap();
    assert_ne!(present, former);
    drop((first, second, held));
    until("its process has ended", || is_gone(present));
}

/// It takes longer than the pause between two tries.
#[test]
fn a_camera_process_that_starts_slowly_is_waited_for() {
    let folder = std::env::temp_dir().join(format!("camlease-slowly-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let command = folder.join("camlease");
    let script = format!("#!/bin/sh\nsleep 2\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_camlease"));
    // By another process: what this one has open for writing, a child of another test has for a moment, too, and then
    // nobody can start it.
    let write = "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\"";
    assert!(Command::new("sh").args(["-c", write]).arg(&command).arg(script).status().unwrap().success());
    let uri = virtual_camera("access-slowly");
    let ended = child("outlives a process that starts slowly", &uri).env("CAMLEASE_COMMAND", &command).status();
    assert!(ended.unwrap().success());
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn readers_that_come_at_once_share_one_process() {
    let uri = virtual_camera("access-at-once");
    let mut children: Vec<Child> = (0..6).map(|_| child("reads a little", &uri).spawn().unwrap()).collect();
    for child in &mut children {
        assert!(child.wait().unwrap().success());
    }
    until("the camera is free again", || is_free(&uri));
}

#[test]
fn a_reader_that_is_killed_leaves_nothing_behind() {
    let uri = virtual_camera("access-reader");
    let looks = open(&uri);
    let name = name_of(&looks);
    let served_by = server(&name).unwrap();
    let mut reads = child("reads for ever", &uri).spawn().unwrap();
    let readers = || {
        let request = serde_json::json!({ "do": "status" }).as_object().unwrap().clone();
        looks.command(request, PATIENCE).unwrap()["readers"].as_array().unwrap().len()
    };
    until("it reads", || readers() == 1);
    drop(looks);
    kill(reads.id() as i32);
    reads.wait().unwrap();
    until("its process has ended", || is_gone(served_by));
    assert!(is_free(&uri));
}

#[test]
fn one_that_somebody_has_for_himself_is_waited_for() {
    let uri = virtual_camera("access-busy");
    let alone = Camera::open(&uri, OpenOptions { name: "alone".into(), ..OpenOptions::default() }).unwrap();
    let busy = Camera::open(&uri, options(Duration::from_millis(100))).err().unwrap();
    assert_eq!(busy.kind(), Kind::Busy);
    assert!(busy.message().contains("alone") && !busy.message().contains("shares it"), "{busy}");
    let (tell, is_told) = std::sync::mpsc::channel();
    let mut on_wait = |words: &str, _: &camlease::Holders| _ = tell.send(words.to_owned());
    let frees = std::thread::spawn(move || {
        let told: String = is_told.recv().unwrap();
        drop(alone);
        told
    });
    let waits = OpenOptions { on_wait: Some(&mut on_wait), ..options(PATIENCE) };
    let camera = Camera::open(&uri, waits).unwrap();
    let told = frees.join().unwrap();
    camera.start(&StreamRequest::default()).unwrap();
    frame(&camera);
    assert!(told.contains("alone"), "{told}");
}

#[test]
fn a_wait_for_it_can_be_cancelled() {
    let uri = virtual_camera("access-cancelled");
    let _alone = Camera::open(&uri, OpenOptions::default()).unwrap();
    let cancel = camlease::Event::new().unwrap();
    let begun = Instant::now();
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            cancel.signal();
        });
        Camera::open(&uri, OpenOptions { cancel: Some(&cancel), ..options(PATIENCE) }).err().unwrap()
    });
    assert_eq!(error.kind(), Kind::Closed);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn what_is_wrong_with_a_camera_is_told_as_ever() {
    let kinds = |uri: &str| Camera::open(uri, options(Duration::ZERO)).map_err(|error: Error| error.kind()).err();
    assert_eq!(kinds("file:/no/such/file.mkv"), Some(Kind::NotFound));
    assert_eq!(kinds("/dev/no-such-node"), Some(Kind::NotFound));
    assert_eq!(kinds("shared:nobody-serves-this"), Some(Kind::NotFound));
    assert_eq!(kinds("virtual:x?colour=1"), Some(Kind::InvalidArgument));
}

#[test]
fn without_the_command_it_is_said_what_is_missing() {
    let uri = virtual_camera("access-missing");
    let ran = child("meets no command", &uri).env("CAMLEASE_COMMAND", "/no/such/command").status().unwrap();
    assert!(ran.success());
    let ran = child("meets another command", &uri).env("CAMLEASE_COMMAND", "/bin/true").status().unwrap();
    assert!(ran.success());
    assert!(is_free(&uri));
}

#[test]
fn a_recording_is_shared_as_well() {
    let uri = format!("virtual:access-source-{}?width=64&height=48&fps=100", std::process::id());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("access-{}.y4m", std::process::id()));
    let captured = Command::new(env!("CARGO_BIN_EXE_camlease"))
        .args(["capture", &uri, "--count", "10", "--output"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(captured.status.success(), "{captured:?}");
    let uri = format!("file:{}?loop=1", file.display());
    let (first, second) = (open(&uri), open(&uri));
    assert_eq!(name_of(&first), name_of(&second));
    first.start(&StreamRequest::default()).unwrap();
    (0..25).for_each(|_| assert_eq!(frame(&first).width(), 64));
    std::fs::remove_file(&file).unwrap();
}
