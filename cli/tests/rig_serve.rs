//! `camlease serve` on real drivers: readers of every kind, a driver that hangs, and processes that are killed.

#[path = "../../tests/support/reader.rs"]
mod reader;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use camlease::{Access, Camera, DropPolicy, Frame, Kind, Map, OpenOptions, StreamRequest};
use camlease_rig::picture::sum_of;
use camlease_rig::vivid::{self, VividOptions};
use camlease_rig::{Webcam, WebcamOptions, alone, require_guest, set_control, v4l2_ctl_streams};
use nix::sys::signal::Signal;
use reader::{Reader, Seen, Told};
use serde_json::{Value, json};
use support::{PATIENCE, camlease, end_of, folder, lives, signal, target, told, wait_for};

/// `camlease serve` and what it logs.
struct Serving {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
}

/// Small frames and few, as all share one emulated processor; and as many of them are kept as can be.
const CAMERA: &str =
    "width = 320\nheight = 180\nfps = 5\nformat = \"YUYV\"\ndrop = \"newest\"\nbuffers = 8\nhistory = 32\n";
const BYTES: usize = 320 * 180 * 2;
const SUPERVISOR: &str = "[supervisor]\nfirst_delay = \"50ms\"\nlongest_delay = \"200ms\"\nheartbeat = \"100ms\"\n";

/// Where nothing hangs, but processes may take their time.
const PATIENT: &str = "hang_timeout = \"20s\"\n";

impl Serving {
    fn start(test: &str, cameras: &[(&str, &Path)], rules: &str) -> Serving {
        let table = |(name, uri): &(&str, &Path)| format!("[camera.{name}]\nuri = \"{}\"\n{CAMERA}\n", uri.display());
        let tables: String = cameras.iter().map(table).collect();
        let config = folder(test).join("cameras.toml");
        fs::write(&config, format!("{tables}{SUPERVISOR}{rules}")).unwrap();
        let mut command = camlease(&["serve", "--config", config.to_str().unwrap()]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (log.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            use std::io::{BufRead, BufReader};
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                println!("  {line}");
                lines.lock().unwrap().push(line);
            }
        });
        let serving = Serving { child, log };
        for (name, _) in cameras {
            process_of(name);
        }
        serving
    }

    fn signal(&self, sent: Signal) {
        signal(self.child.id() as i32, sent);
    }

    fn has_said(&self, text: &str) -> bool {
        self.log.lock().unwrap().iter().any(|line| line.contains(text))
    }

    #[track_caller]
    fn wait_for_line(&self, text: &str) {
        wait_for(&format!("\"{text}\" in the log"), || self.has_said(text).then_some(()));
    }

    #[track_caller]
    fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        assert_eq!(end_of(&mut self.child).code(), Some(0));
        assert_eq!(left(), Vec::<String>::new());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// For this process and those that it starts: here, "nothing is left" is looked at.
#[track_caller]
fn own_runtime_folder() {
    static MADE: Once = Once::new();
    require_guest(); // elsewhere the folder would stay
    MADE.call_once(|| {
        // The guest sees the host's files, and its pids are low: the host may have had the same one.
        let _ = fs::remove_dir_all(runtime_folder());
        fs::DirBuilder::new().mode(0o700).create(runtime_folder()).unwrap();
        // SAFETY: of this process's threads only Rust code reads its environment, under std's lock.
        unsafe {
            std::env::set_var("CAMLEASE_RUNTIME_DIR", runtime_folder());
            std::env::set_var("CAMLEASE_COMMAND", env!("CARGO_BIN_EXE_camlease"));
        }
    });
}

fn runtime_folder() -> PathBuf {
    std::env::temp_dir().join(format!("camlease-serve-{}", std::process::id()))
}

fn left() -> Vec<String> {
    let entries = fs::read_dir(runtime_folder()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn vivid() -> PathBuf {
    own_runtime_folder();
    let node = vivid::load(VividOptions { first_number: Some(40), ..VividOptions::default() }).remove(0);
    // Each picture is another one, and all lines without text are the same.
    set_control(&node, "horizontal_movement", 6);
    set_control(&node, "osd_text_mode", 1);
    node
}

fn webcam() -> Webcam {
    own_runtime_folder();
    Webcam::plug(WebcamOptions { serial: "SERVE1".into(), frames_per_second: 10, ..WebcamOptions::default() })
}

fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn ask(name: &str, request: Value) -> camlease::Result<Map> {
    let Value::Object(request) = request else { panic!("{request}") };
    camlease::command(name, request, PATIENCE)
}

fn status(name: &str) -> camlease::Result<Map> {
    ask(name, json!({ "do": "status" }))
}

/// The pid of the process that serves this, when there is one.
#[track_caller]
fn process_of(name: &str) -> i32 {
    wait_for(&format!("{name} to be served"), || status(name).ok()?["pid"].as_i64().map(|pid| pid as i32))
}

fn started(name: &str) -> Camera {
    let options = OpenOptions { name: "reader here".into(), ..OpenOptions::default() };
    let camera = Camera::open(&format!("shared:{name}"), options).unwrap_or_else(|error| panic!("{error}"));
    let request = StreamRequest { drop_policy: DropPolicy::Newest, buffers: 4, ..StreamRequest::default() };
    camera.start(&request).unwrap_or_else(|error| panic!("{error}"));
    camera
}

fn reader_elsewhere(name: &str) -> Reader {
    // tests/c/build made it before.
    Reader::start(
        Command::new(target().join("c-programs/reader")).args([&format!("shared:{name}"), "reader elsewhere"]),
    )
}

#[track_caller]
fn next(camera: &Camera) -> Frame {
    camera.next_frame(Some(PATIENCE)).unwrap_or_else(|error| panic!("{error}"))
}

/// How often the reader is told something else before it has a frame again.
#[track_caller]
fn frame_again(camera: &Camera) -> (Frame, Vec<Kind>) {
    let (begun, mut kinds) = (Instant::now(), Vec::new());
    loop {
        match camera.next_frame(Some(Duration::from_millis(200))) {
            Ok(frame) => return (frame, kinds),
            Err(error) => {
                let kind = error.kind();
                assert!(matches!(kind, Kind::Timeout | Kind::Disconnected | Kind::NotFound), "{error}");
                if kinds.last() != Some(&kind) {
                    kinds.push(kind);
                }
            }
        }
        assert!(begun.elapsed() < PATIENCE, "no frame comes: {kinds:?}");
    }
}

/// Three of the library in this process, four programs in C, three commands.
#[track_caller]
fn ten_readers(name: &str) {
    const FRAMES: usize = 25;
    let begun = Instant::now();
    let mut programs: Vec<_> = (0..4).map(|_| reader_elsewhere(name)).collect();
    for program in &mut programs {
        program.frame(PATIENCE);
    }
    let files = folder(&format!("ten-{name}"));
    let commands: Vec<_> = (0..3)
        .map(|number| {
            let file = files.join(format!("{number}.raw"));
            let count = FRAMES.to_string();
            let camera = format!("shared:{name}");
            let arguments = ["--json", "capture", &camera, "-n", &count, "-o", file.to_str().unwrap()];
            (camlease(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(), file)
        })
        .collect();
    let seen: Mutex<Vec<BTreeMap<u64, Seen>>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let camera = started(name);
                let frames = (0..FRAMES).map(|_| next(&camera));
                let own: BTreeMap<_, _> = frames.map(|frame| (frame.sequence(), Seen::of(&frame))).collect();
                seen.lock().unwrap().push(own);
            });
        }
    });
    let captured: Vec<Vec<u64>> =
        commands.into_iter().map(|(command, file)| captured(command, &file, FRAMES)).collect();
    let status = status(name).unwrap();
    let lost: Vec<_> = status["readers"].as_array().unwrap().iter().map(|reader| &reader["lost"]).collect();
    assert_eq!((lost, &status["dropped"]), (vec![&json!(0); 4], &0.into()), "{status:?}");
    let mut seen = seen.into_inner().unwrap();
    for program in programs {
        let (frames, missed) = program.end(PATIENCE);
        assert_eq!(missed, gaps(&frames));
        seen.push(frames);
    }
    // The programs were there before all others and after them.
    let all = seen.last().unwrap().clone();
    for each in &seen {
        let (from, to) = (each.first_key_value().unwrap().0, each.last_key_value().unwrap().0);
        let both = |frames: &BTreeMap<u64, Seen>| {
            let (from, to) = (from.max(all.first_key_value().unwrap().0), to.min(all.last_key_value().unwrap().0));
            frames.range(from..=to).map(|frame| *frame.1).collect::<Vec<_>>()
        };
        assert_eq!(both(each), both(&all), "{name}: the same frames for all, byte by byte");
    }
    let sums: Vec<u64> = all.values().map(|frame| frame.sum).collect();
    for captured in captured {
        assert!(
            sums.windows(FRAMES).any(|part| part == captured),
            "{name}: the command wrote {FRAMES} frames one after the other, as they were"
        );
    }
    println!("{name}: {} frames, {} dropped by the driver, {:?}", all.len(), gaps(&all), begun.elapsed());
}

/// The sums of the frames that the command wrote.
#[track_caller]
fn captured(command: Child, file: &Path, frames: usize) -> Vec<u64> {
    let (code, out, err) = told(command.wait_with_output().unwrap());
    assert_eq!(code, 0, "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&report["frames"], &report["fourcc"]), (&frames.into(), &"YUYV".into()), "{report}");
    let bytes = fs::read(file).unwrap();
    assert_eq!(bytes.len(), frames * BYTES);
    bytes.chunks(BYTES).map(|frame| sum_of(frame, 0)).collect()
}

/// Numbers that are missing between those that came.
fn gaps(frames: &BTreeMap<u64, Seen>) -> u64 {
    let (first, last) = (frames.first_key_value().unwrap().0, frames.last_key_value().unwrap().0);
    last - first + 1 - frames.len() as u64
}

#[test]
fn ten_readers_of_each_camera_by_library_program_and_command() {
    let _alone = alone();
    let (vivid, webcam) = (vivid(), webcam());
    let names = [unique("vivid"), unique("usb")];
    let cameras = [(names[0].as_str(), vivid.as_path()), (names[1].as_str(), &webcam.node())];
    let mut serving = Serving::start("ten", &cameras, PATIENT);
    names.iter().for_each(|name| ten_readers(name));
    serving.stop();
    cameras.iter().for_each(|(_, node)| v4l2_ctl_streams(node, 2).unwrap());
}

#[test]
fn a_camera_that_is_opened_as_a_shared_one_has_a_process_for_as_long_as_it_is_used() {
    let _alone = alone();
    let (vivid, webcam) = (vivid(), webcam());
    for node in [vivid, webcam.node()] {
        let uri = node.to_str().unwrap();
        let open = || {
            let options = OpenOptions { access: Access::Shared, timeout: Some(PATIENCE), ..OpenOptions::default() };
            Camera::open(uri, options).unwrap_or_else(|error| panic!("{error}"))
        };
        let request =
            StreamRequest { width: 320, height: 180, drop_policy: DropPolicy::Newest, ..StreamRequest::default() };
        let begun = Instant::now();
        let first = open();
        first.start(&request).unwrap_or_else(|error| panic!("{error}"));
        drop(next(&first));
        let opened = begun.elapsed();
        let shares = camlease::shares();
        let [served] = &shares[..] else { panic!("{shares:?}") };
        let mut elsewhere = reader_elsewhere(&served.name);
        elsewhere.frame(PATIENCE);
        let second = open();
        second
            .start(&StreamRequest { width: 0, height: 0, ..request.clone() })
            .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(next(&second).width(), 320);
        assert_eq!(camlease::shares(), shares, "one process for all");
        let alone = OpenOptions { timeout: Some(Duration::ZERO), ..OpenOptions::default() };
        let error = Camera::open(uri, alone).err().unwrap();
        assert_eq!(error.kind(), Kind::Busy);
        let said = format!("open shared:{} to read it beside others", served.name);
        assert!(error.message().contains(&format!("pid {}", served.pid)) && error.message().contains(&said), "{error}");

        // Its users have another one started.
        let kept = next(&first);
        let seen = Seen::of(&kept);
        signal(served.pid, Signal::SIGKILL);
        let killed = Instant::now();
        wait_for("its end", || (!lives(served.pid)).then_some(()));
        for reader in [&first, &second] {
            while reader.next_frame(Some(Duration::ZERO)).is_ok() {}
            drop(frame_again(reader));
        }
        let back = killed.elapsed();
        elsewhere.until("gap", PATIENCE, |told| matches!(told, Told::Failed(_)).then_some(()));
        elsewhere.frame(PATIENCE);
        let [again] = &camlease::shares()[..] else { panic!("{:?}", camlease::shares()) };
        assert!(again.name == served.name && again.pid != served.pid);
        assert_eq!(Seen::of(&kept), seen);

        drop((first, second, elsewhere));
        let left_alone = Instant::now();
        wait_for("its end", || (!lives(again.pid)).then_some(()));
        println!(
            "{uri}: a frame {opened:?} after the open; frames again {back:?} after its process was killed, which ended \
             {:?} after its last user",
            left_alone.elapsed()
        );
        v4l2_ctl_streams(&node, 2).unwrap();
        assert_eq!(left(), Vec::<String>::new());
    }
}

#[test]
fn a_camera_process_that_hangs_in_the_driver_is_replaced() {
    let _alone = alone();
    let webcam = webcam();
    let name = unique("hangs");
    let mut serving = Serving::start("hangs", &[(&name, &webcam.node())], "hang_timeout = \"4s\"\n");
    let (here, mut elsewhere) = (started(&name), reader_elsewhere(&name));
    elsewhere.frame(PATIENCE);
    let kept = next(&here);
    let seen = Seen::of(&kept);
    // The process that was killed, and when it began to hang. None where the driver gave up before: a supervisor that
    // itself had no time for a second of those five is late, and gives the process its time anew.
    let hangs = |value: u32| {
        let process = process_of(&name);
        let line = format!("its process (pid {process}) was not well for 4.0 s: killed, to be replaced");
        // Whoever asks for a control now is inside the driver for five seconds, beyond the reach of any signal.
        webcam.order("delay-controls 6000");
        let begun = Instant::now();
        let answer = std::thread::scope(|scope| {
            let asked = scope.spawn(|| ask(&name, json!({ "do": "control", "control": 0x0098_0900, "value": value })));
            wait_for("the process to be killed, or well again", || {
                (serving.has_said(&line) || asked.is_finished()).then_some(())
            });
            println!("killed, or well again, after {:?}", begun.elapsed());
            webcam.order("delay-controls 0");
            asked.join().unwrap()
        });
        println!("answered after {:?}: {answer:?}", begun.elapsed());
        answer.is_err_and(|error| error.kind() == Kind::Disconnected).then(|| {
            serving.wait_for_line(&line);
            (process, begun)
        })
    };
    let (first, begun) = (1..=3).find_map(hangs).expect("whoever asked is told of the end, one time of three");
    // Those that came before the end are still to be had.
    while here.next_frame(Some(Duration::ZERO)).is_ok() {}
    let (frame, kinds) = frame_again(&here);
    println!("frames again {:?} after it hung; meanwhile {kinds:?}", begun.elapsed());
    assert!(!lives(first));
    assert_ne!(process_of(&name), first);
    drop(frame);
    elsewhere.until("gap", PATIENCE, |told| matches!(told, Told::Failed(_)).then_some(()));
    elsewhere.frame(PATIENCE);
    assert_eq!(Seen::of(&kept), seen);
    assert!(!serving.has_said("was sent away"), "readers whose patience was over are no news");
    serving.stop();
    v4l2_ctl_streams(&webcam.node(), 2).unwrap();
}

#[test]
fn whoever_is_killed_leaves_the_camera_free_and_nothing_else() {
    let _alone = alone();
    let (vivid, webcam) = (vivid(), webcam());
    for (name, node) in [(unique("kill-vivid"), vivid), (unique("kill-usb"), webcam.node())] {
        let mut serving = Serving::start("kills", &[(&name, &node)], PATIENT);
        let (here, mut elsewhere) = (started(&name), reader_elsewhere(&name));
        elsewhere.frame(PATIENCE);
        let kept = next(&here);
        let seen = Seen::of(&kept);

        // A reader.
        signal(elsewhere.pid(), Signal::SIGKILL);
        elsewhere.process.wait().unwrap();
        wait_for("the reader to be gone", || (status(&name).ok()?["readers"].as_array()?.len() == 1).then_some(()));
        (0..10).for_each(|_| drop(next(&here)));
        assert_eq!(status(&name).unwrap()["dropped"], 0);

        // The camera's process.
        let first = process_of(&name);
        signal(first, Signal::SIGKILL);
        let killed = Instant::now();
        wait_for("another process", || (status(&name).ok()?["pid"] != first).then_some(()));
        while here.next_frame(Some(Duration::ZERO)).is_ok() {}
        let (frame, kinds) = frame_again(&here);
        println!("{name}: frames {:?} after its process was killed; meanwhile {kinds:?}", killed.elapsed());
        drop(frame);
        assert_eq!(Seen::of(&kept), seen);

        // The supervisor, while frames flow.
        let second = process_of(&name);
        drop(next(&here));
        serving.signal(Signal::SIGKILL);
        let killed = Instant::now();
        serving.child.wait().unwrap();
        let options = OpenOptions { timeout: Some(Duration::from_secs(10)), ..OpenOptions::default() };
        let camera = Camera::open(node.to_str().unwrap(), options).unwrap_or_else(|error| panic!("{error}"));
        println!("{name}: free {:?} after the supervisor was killed", killed.elapsed());
        camera.start(&StreamRequest::default()).unwrap();
        drop(next(&camera));
        camera.close();
        wait_for("the camera's process to end", || (!lives(second)).then_some(()));
        assert_eq!(left(), Vec::<String>::new(), "{name}");
        assert_eq!(Seen::of(&kept), seen, "the memory of a process that is no more stays readable");
        v4l2_ctl_streams(&node, 2).unwrap();

        // All three at once.
        let mut serving = Serving::start("kills", &[(&name, &node)], PATIENT);
        let elsewhere = reader_elsewhere(&name);
        let (_, last) = (frame_again(&here), process_of(&name));
        for pid in [elsewhere.pid(), serving.child.id() as i32, last] {
            signal(pid, Signal::SIGKILL);
        }
        let killed = Instant::now();
        serving.child.wait().unwrap();
        let options = OpenOptions { timeout: Some(Duration::from_secs(10)), ..OpenOptions::default() };
        drop(Camera::open(node.to_str().unwrap(), options).unwrap_or_else(|error| panic!("{error}")));
        println!("{name}: free {:?} after all were killed; left {:?}", killed.elapsed(), left());
        // What nobody was there to clear away goes with the next use of any camera.
        wait_for("the camera's process to end", || (!lives(last)).then_some(()));
        Camera::open("virtual:next", OpenOptions::default()).unwrap().close();
        assert_eq!(left(), Vec::<String>::new(), "{name}");
        v4l2_ctl_streams(&node, 2).unwrap();
        let mut serving = Serving::start("kills", &[(&name, &node)], PATIENT);
        drop(frame_again(&here));
        drop(here);
        serving.stop();
    }
}
