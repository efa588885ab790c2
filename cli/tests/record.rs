//! Preview, recordings and snapshots of cameras that `camlease serve` has: by command and by configuration, while others
//! read, on disks that are slow, full or hang, and when the process is killed.

#[path = "support/matroska.rs"]
mod matroska;
mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use camlease::{Camera, DropPolicy, Kind, Map, OpenOptions, StreamRequest};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{PATIENCE, camlease, end_of, folder, lives, signal, wait_for};

/// What a recording may usually be behind when it is killed: the second that was not written yet, and a busy machine's
/// delay.
const LOST_MOST: f64 = 1.0 + 1.0;

/// `camlease serve` with one camera.
struct Serving {
    child: Child,
    name: String,
    folder: PathBuf,
    log: Arc<Mutex<Vec<String>>>,
}

impl Serving {
    /// `more` are tables below `[camera.NAME]`, whose names begin with a dot: `NAME` is put before it.
    fn start(test: &str, query: &str, more: &str, prepare: impl FnOnce(&mut Command)) -> Serving {
        let name = format!("record-{test}-{}", std::process::id());
        let folder = folder(&name);
        fs::create_dir(folder.join("films")).unwrap();
        let file = folder.join("cameras.toml");
        fs::write(&file, config(&name, &folder, query, more)).unwrap();
        let mut command = camlease(&["serve", "--config", file.to_str().unwrap()]);
        command.env_remove("JOURNAL_STREAM").stdout(Stdio::null()).stderr(Stdio::piped());
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (lines, stderr) = (log.clone(), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("  {line}");
                lines.lock().unwrap().push(line);
            }
        });
        let serving = Serving { child, name, folder, log };
        serving.line("is served");
        serving
    }

    fn configure(&self, query: &str, more: &str) {
        fs::write(self.folder.join("cameras.toml"), config(&self.name, &self.folder, query, more)).unwrap();
        signal(self.child.id() as i32, Signal::SIGHUP);
    }

    fn ask(&self, request: Value) -> camlease::Result<Map> {
        let Value::Object(request) = request else { panic!("{request}") };
        camlease::command(&self.name, request, PATIENCE)
    }

    #[track_caller]
    fn ok(&self, request: Value) -> Value {
        self.ask(request.clone()).unwrap_or_else(|error| panic!("{request}: {error}")).into()
    }

    #[track_caller]
    fn refused(&self, request: Value) -> camlease::Error {
        self.ask(request).unwrap_err()
    }

    #[track_caller]
    fn status(&self) -> Value {
        self.ok(json!({"do": "status"}))
    }

    /// The state of preview or recording, as soon as it is so.
    #[track_caller]
    fn wait_until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        // A camera process that was killed is away for a moment.
        let status = || self.ask(json!({"do": "status"})).ok().map(Value::from);
        wait_for(&format!("{what} to be so"), || status().map(|mut all| all[what].take()).filter(&is_so))
    }

    #[track_caller]
    fn records(&self, seconds: f64) -> Value {
        self.wait_until("recording", |now| now["on"] == true && now["seconds"].as_f64() >= Some(seconds))
    }

    fn has_said(&self, text: &str) -> bool {
        self.log.lock().unwrap().iter().any(|line| line.contains(text))
    }

    #[track_caller]
    fn line(&self, text: &str) {
        wait_for(&format!("\"{text}\" in the log"), || self.has_said(text).then_some(()));
    }

    fn worker(&self) -> i32 {
        self.status()["pid"].as_i64().unwrap() as i32
    }

    fn films(&self, extension: &str) -> Vec<PathBuf> {
        let films = fs::read_dir(self.folder.join("films")).unwrap().map(|entry| entry.unwrap().path());
        films.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
    }

    fn read(&self) -> Reading {
        Reading::of(&self.name)
    }

    #[track_caller]
    fn stop(&mut self) -> Duration {
        let begun = Instant::now();
        signal(self.child.id() as i32, Signal::SIGTERM);
        assert_eq!(end_of(&mut self.child).code(), Some(0));
        begun.elapsed()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(name: &str, folder: &Path, query: &str, more: &str) -> String {
    let films = format!("folder = {:?}", folder.join("films"));
    let more = more.replace("[.", &format!("[camera.{name}.")).replace("FOLDER", &films);
    let rules =
        "[supervisor]\nfirst_delay = \"50ms\"\nlongest_delay = \"50ms\"\nfailures = 100\nheartbeat = \"100ms\"\n";
    // So that a busy machine's pauses are not taken for the disk's.
    let room = "buffers = 16\ndrop = \"newest\"\nhistory = 32";
    format!("[camera.{name}]\nuri = \"virtual:{name}?{query}\"\n{room}\n{more}\n{rules}")
}

/// Another program that reads the camera, every frame.
struct Reading {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Read>,
}

#[derive(Debug, Default)]
struct Read {
    frames: u64,
    missed: u64,
    /// The longest time that none came.
    pause: Duration,
}

impl Reading {
    fn of(name: &str) -> Reading {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, uri) = (stop.clone(), format!("shared:{name}"));
        let camera = Camera::open(&uri, OpenOptions::default()).unwrap();
        camera.start(&StreamRequest { drop_policy: DropPolicy::Newest, ..StreamRequest::default() }).unwrap();
        let thread = std::thread::spawn(move || {
            let mut read = Read::default();
            let mut last: Option<(u64, Instant)> = None;
            while read.frames < 2 || !stopped.load(Ordering::SeqCst) {
                let frame = camera.next_frame(Some(PATIENCE)).unwrap();
                let now = Instant::now();
                if let Some((sequence, at)) = last {
                    read.missed += frame.sequence().saturating_sub(sequence + 1);
                    read.pause = read.pause.max(now - at);
                }
                last = Some((frame.sequence(), now));
                read.frames += 1;
            }
            read
        });
        Reading { stop, thread }
    }

    fn end(self) -> Read {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }

    /// The camera is not kept waiting by anything: a disk that did would cost most of its frames, and a busy machine
    /// costs a few.
    #[track_caller]
    fn end_undisturbed(self) {
        let read = self.end();
        eprintln!("  {read:?}");
        assert!(read.frames > 0 && read.missed * 2 < read.frames + 20, "{read:?}");
        assert!(read.pause < Duration::from_secs(10), "{read:?}");
    }
}

fn film(file: &Path) -> matroska::Film {
    matroska::read(&fs::read(file).unwrap())
}

/// As many frames as a player counts, where there is one.
#[track_caller]
fn agrees_with_a_player(file: &Path, frames: usize) {
    let mut ffprobe = Command::new("ffprobe");
    ffprobe.args(["-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0"]);
    let Ok(output) = ffprobe.arg(file).output() else {
        support::skipped("ffprobe is missing");
        return;
    };
    let told = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(told, frames.to_string(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
}

const RECORDING: &str = "[.recording]\nFOLDER\nmin_free = 0\n";

#[test]
fn recordings_and_snapshots_by_command_while_others_read() {
    let mut serving = Serving::start("command", "width=320&height=240&fps=30", RECORDING, |_| ());
    assert_eq!(serving.status()["recording"], json!({"on": false, "error": null}));
    let reading = serving.read();
    let begun = serving.ok(json!({"do": "record", "on": true, "file": "by name.mkv"}));
    let file = serving.folder.join("films/by name.mkv");
    assert_eq!((&begun["on"], begun["file"].as_str().map(Path::new)), (&true.into(), Some(&*file)));
    assert_eq!(serving.ok(json!({"do": "record", "on": true}))["file"], begun["file"], "it goes on");
    let twice = serving.refused(json!({"do": "record", "on": true, "file": "other.mkv"}));
    assert!(twice.kind() == Kind::Busy && twice.message().contains("record off"), "{twice}");

    let told = serving.ok(json!({"do": "snapshot"}));
    assert_eq!((&told["width"], &told["height"]), (&320.into(), &240.into()));
    assert!(fs::read(told["file"].as_str().unwrap()).unwrap().starts_with(&[0xFF, 0xD8]));
    serving.ok(json!({"do": "snapshot", "file": "own.png"}));
    assert!(fs::read(serving.folder.join("films/own.png")).unwrap().starts_with(b"\x89PNG"));
    let errors = [
        (json!({"do": "snapshot", "file": "../own.png"}), Kind::InvalidArgument),
        (json!({"do": "snapshot", "file": 3}), Kind::InvalidArgument),
        (json!({"do": "record"}), Kind::InvalidArgument),
        (json!({"do": "preview", "on": "yes"}), Kind::InvalidArgument),
        (json!({"do": "dance"}), Kind::Unsupported),
    ];
    for (request, kind) in errors {
        assert_eq!(serving.refused(request.clone()).kind(), kind, "{request}");
    }

    serving.records(2.5);
    let status = serving.ok(json!({"do": "record", "on": false}));
    assert_eq!((&status["on"], &status["error"], &status["damaged"]), (&false.into(), &Value::Null, &0.into()));
    assert_eq!(serving.ok(json!({"do": "record", "on": false})), status, "off already");
    assert_eq!(serving.status()["recording"]["file"], status["file"]);
    let film = film(&file);
    assert_eq!(film.times.len() as u64, status["frames"].as_u64().unwrap());
    assert_eq!((film.torn, &film.index), (0, &film.clusters));
    let last = *film.times.last().unwrap();
    assert!((film.duration.unwrap() - last).abs() < 0.001 && last >= 2.5, "{film:?}");
    assert!((status["seconds"].as_f64().unwrap() - last).abs() < 0.001);
    agrees_with_a_player(&file, film.times.len());

    // A camera that nobody reads is started for the picture.
    reading.end_undisturbed();
    serving.wait_until("streaming", |streams| *streams == false);
    assert_eq!(serving.ok(json!({"do": "snapshot"}))["width"], 320);

    // Many at a time are taken or refused, and none is forgotten.
    let all: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..12).map(|_| scope.spawn(|| serving.ask(json!({"do": "snapshot"})))).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert!(all.iter().any(Result::is_ok));
    assert!(all.iter().all(|one| one.as_ref().err().is_none_or(|error| error.kind() == Kind::Busy)), "{all:?}");
    serving.stop();
}

#[test]
fn without_a_folder_nothing_is_recorded() {
    let mut serving = Serving::start("nowhere", "", "", |_| ());
    for request in [json!({"do": "record", "on": true}), json!({"do": "snapshot"})] {
        let refused = serving.refused(request);
        assert_eq!(refused.kind(), Kind::WrongState);
        assert!(refused.message().contains(&format!("below [camera.{}.recording]", serving.name)), "{refused}");
    }
    // A folder that is not there is told, and the camera is served.
    serving.configure("", "[.recording]\nfolder = \"/nowhere/at/all\"\non = true\n");
    let status = serving.wait_until("recording", |now| now["error"].is_string());
    assert!(status["on"] == false && status["error"].as_str().unwrap().contains("/nowhere/at/all"), "{status}");
    serving.line("recording: /nowhere/at/all");
    serving.read().end_undisturbed();
    serving.stop();
}

#[test]
fn a_preview_costs_nothing_while_nobody_looks() {
    let mut serving =
        Serving::start("preview", "width=640&height=360&fps=30", "[.preview]\nwidth = 160\nfps = 10\n", |_| ());
    let status = serving.wait_until("preview", |now| now["on"] == true);
    assert_eq!((&status["readers"], &status["frames"], &status["error"]), (&0.into(), &0.into(), &Value::Null));
    let before = cpu_of(serving.worker(), "camlease-previe");
    sleep(Duration::from_secs(3));
    let spent = cpu_of(serving.worker(), "camlease-previe") - before;
    eprintln!("  CPU while nobody looks: {spent:?} in 3 s");
    assert!(spent <= Duration::from_millis(30), "{spent:?}");
    let status = serving.status();
    assert_eq!(
        (&status["streaming"], &status["published"], &status["preview"]["frames"]),
        (&false.into(), &0.into(), &0.into())
    );

    let looks = Camera::open(&format!("shared:{}.preview", serving.name), OpenOptions::default()).unwrap();
    looks.start(&StreamRequest::default()).unwrap();
    let frame = looks.next_frame(Some(PATIENCE)).unwrap();
    assert_eq!((frame.width(), frame.height(), frame.fourcc().to_string().as_str()), (160, 90, "MJPG"));
    assert!(frame.data(0).starts_with(&[0xFF, 0xD8]));
    let status = serving.status();
    assert_eq!((&status["streaming"], &status["preview"]["readers"]), (&true.into(), &1.into()));
    drop(frame);
    looks.close();
    serving.wait_until("streaming", |streams| *streams == false);
    let frames = serving.status()["preview"]["frames"].clone();
    sleep(Duration::from_millis(500));
    assert_eq!(serving.status()["preview"]["frames"], frames);

    let preview = format!("{}.preview", serving.name);
    let is_there = || camlease::shares().iter().any(|share| share.name == preview);
    assert_eq!(serving.ok(json!({"do": "preview", "on": false}))["on"], false);
    assert!(!is_there());
    assert_eq!(serving.ok(json!({"do": "preview", "on": true}))["on"], true);
    assert!(is_there());
    serving.stop();
    assert!(!is_there());
}

/// What threads of this name have computed. The kernel keeps 15 letters of a name.
fn cpu_of(pid: i32, name: &str) -> Duration {
    let is_own = |at: &PathBuf| fs::read_to_string(at.join("comm")).is_ok_and(|comm| comm.trim() == name);
    // It takes its name itself, a moment after it was started.
    let own = wait_for(&format!("a thread {name}"), || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().map(|entry| entry.unwrap().path());
        Some(threads.filter(is_own).collect::<Vec<_>>()).filter(|own| !own.is_empty())
    });
    let ns = |at: &PathBuf| {
        let spent = fs::read_to_string(at.join("schedstat")).unwrap();
        spent.split(' ').next().unwrap().parse::<u64>().unwrap()
    };
    Duration::from_nanos(own.iter().map(ns).sum())
}

#[test]
fn a_reload_changes_preview_and_recording_while_the_camera_goes_on() {
    let query = "width=160&height=120&fps=50";
    let mut serving = Serving::start("reload", query, "", |_| ());
    let (worker, reading) = (serving.worker(), serving.read());
    serving.configure(query, &format!("{RECORDING}on = true\n[.preview]\n"));
    serving.wait_until("preview", |now| now["on"] == true && now["width"] == 320);
    let looks = Camera::open(&format!("shared:{}.preview", serving.name), OpenOptions::default()).unwrap();
    looks.start(&StreamRequest::default()).unwrap();
    assert_eq!(looks.next_frame(Some(PATIENCE)).unwrap().width(), 160, "nothing is enlarged");
    let first = serving.records(1.0)["file"].clone();
    serving.configure(query, &format!("{RECORDING}on = true\nformat = \"raw\"\n[.preview]\nwidth = 80\n"));
    // Whoever looks at it comes to the new one, as to any camera whose process began anew.
    wait_for("the smaller preview", || (looks.next_frame(Some(PATIENCE)).ok()?.width() == 80).then_some(()));
    looks.close();
    let second = serving.wait_until("recording", |now| now["on"] == true && now["file"] != first)["file"].clone();
    assert!(second.as_str().unwrap().ends_with(".raw"));
    let whole = film(Path::new(first.as_str().unwrap()));
    assert!(whole.duration.is_some() && whole.torn == 0, "{whole:?}");
    // Other changes leave them alone.
    serving.configure(
        query,
        &format!("{RECORDING}on = true\nformat = \"raw\"\n[.preview]\nwidth = 80\n[.controls]\nBrightness = 3\n"),
    );
    serving.records(1.0);
    assert_eq!(serving.status()["recording"]["file"], second);
    serving.configure(query, RECORDING);
    serving.wait_until("preview", |now| now["on"] == false);
    serving.wait_until("recording", |now| now["on"] == false);
    // What was begun by command goes on in a new file with what was changed.
    serving.ok(json!({"do": "record", "on": true}));
    let third = serving.records(0.2)["file"].clone();
    serving.configure(query, &format!("{RECORDING}max_files = 9\n"));
    serving.wait_until("recording", |now| now["on"] == true && now["file"] != third);
    serving.configure(query, "");
    serving.wait_until("recording", |now| now["on"] == false);
    assert_eq!(serving.worker(), worker, "the same process");
    assert_eq!(serving.status()["generation"], 1, "the camera was not started anew");
    reading.end_undisturbed();
    serving.stop();
}

#[test]
fn a_killed_recording_plays_up_to_its_last_second_and_begins_again() {
    let kills: usize = std::env::var("CAMLEASE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let more = format!("{RECORDING}on = true\n");
    let mut serving = Serving::start("killed", "width=160&height=120&fps=30", &more, |_| ());
    let mut before = Value::Null;
    let mut state = 20_261_121_u64;
    let (mut lost, mut frames, mut seconds) = (Vec::new(), 0, 0.0);
    for _ in 0..kills {
        let status =
            serving.wait_until("recording", |now| now["on"] == true && now["file"] != before && now["frames"] != 0);
        before = status["file"].clone();
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        sleep(Duration::from_millis((state >> 33) % 2500));
        let worker = serving.worker();
        let told = serving.status()["recording"].take();
        signal(worker, Signal::SIGKILL);
        let killed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        wait_for("its end", || (!lives(worker)).then_some(()));
        let file = Path::new(before.as_str().unwrap());
        let film = film(file);
        let (recorded, reach) = (killed - film.begun, film.times.last().copied().unwrap_or(0.0));
        lost.push(recorded - reach);
        assert_eq!(told["file"], before);
        let flushed = told["seconds"].as_f64().unwrap();
        // The file's times are cut to a tenth of a millisecond.
        assert!(film.duration.is_none() && reach > flushed - 0.001, "{reach} s of {flushed} s are there");
        let left_out = told["missed"].as_u64().unwrap() + told["thinned"].as_u64().unwrap();
        frames += film.times.len() as u64 + left_out;
        seconds += reach;
        // No cluster is missing within: frames that never came were counted.
        let is_whole = |pair: &[f64]| pair[1] > pair[0] && (pair[1] - pair[0] < 1.0 || left_out > 0);
        assert!(film.times.windows(2).all(is_whole), "{left_out} left out: {:?}", film.times);
        agrees_with_a_player(file, film.times.len());
    }
    lost.sort_by(f64::total_cmp);
    let (median, most) = (lost[kills / 2], lost[kills - 1]);
    println!("{kills} killed; seconds lost: median {median:.2}, most {most:.2}; {frames} frames in {seconds:.1} s");
    assert!(median < LOST_MOST, "{lost:?}");
    assert!(frames as f64 > seconds * 30.0 * 0.5, "{frames} frames in {seconds} s");
    serving.wait_until("recording", |now| now["file"] != before && now["frames"].as_u64() > Some(0));
    serving.stop();
    assert_eq!(serving.films("mkv").len(), kills + 1);
}

#[test]
fn a_recording_goes_on_when_the_camera_is_back() {
    let query = "width=160&height=120&fps=30&unplug=40&return=500&corrupt=10";
    let mut serving = Serving::start("lost", query, RECORDING, |_| ());
    serving.ok(json!({"do": "record", "on": true}));
    let worker = serving.worker();
    serving.records(3.0);
    let status = serving.ok(json!({"do": "record", "on": false}));
    assert_eq!((&status["error"], &status["ended"]), (&Value::Null, &Value::Null), "{status}");
    assert!(status["damaged"].as_u64() > Some(0), "{status}");
    let film = film(Path::new(status["file"].as_str().unwrap()));
    assert_eq!((film.times.len() as u64, film.torn), (status["frames"].as_u64().unwrap(), 0));
    let pauses = film.times.windows(2).filter(|pair| pair[1] - pair[0] > 0.4).count();
    eprintln!("  {} frames, {pauses} pauses: {status}", film.times.len());
    assert!(pauses > 0 && film.times.is_sorted(), "{:?}", film.times);
    assert_eq!(serving.films("mkv").len(), 1);
    assert_eq!(serving.worker(), worker);
    serving.stop();
}

/// A tmpfs of half a MiB over the folder of films; `None` where this user may not mount.
struct Small(PathBuf);

impl Small {
    fn over(folder: PathBuf) -> Option<Small> {
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=512k", "tmpfs"]).arg(&folder).output();
        mount.is_ok_and(|output| output.status.success()).then_some(Small(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_nothing_else() {
    let mut serving = Serving::start("full", "width=320&height=240&fps=30", RECORDING, |_| ());
    let (worker, reading) = (serving.worker(), serving.read());
    let ends = |words: &str| {
        serving.ok(json!({"do": "record", "on": true}));
        let status = serving.wait_until("recording", |now| now["on"] == false);
        assert!(status["error"].as_str().unwrap().contains(words), "{status}");
        let file = PathBuf::from(status["file"].as_str().unwrap());
        let film = film(&file);
        assert!(film.times.len() as u64 >= status["frames"].as_u64().unwrap() && film.times.len() > 30, "{status}");
        agrees_with_a_player(&file, film.times.len());
        serving.line(words);
    };
    match Small::over(serving.folder.join("films")) {
        Some(_small) => ends("the disk is full"),
        None => support::skipped("mount needs root"),
    }
    let most = libc::rlimit { rlim_cur: 512 << 10, rlim_max: libc::RLIM_INFINITY };
    let limit = |limit: &libc::rlimit| {
        // SAFETY: it reads a struct of its type.
        let set = unsafe { libc::prlimit(worker, libc::RLIMIT_FSIZE, limit, std::ptr::null_mut()) };
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    };
    limit(&most);
    ends("it may not grow further");
    limit(&libc::rlimit { rlim_cur: libc::RLIM_INFINITY, ..most });
    assert_eq!(serving.worker(), worker);
    // There is room again.
    serving.ok(json!({"do": "record", "on": true}));
    serving.records(0.5);
    assert_eq!(serving.ok(json!({"do": "record", "on": false}))["error"], Value::Null);
    reading.end_undisturbed();
    serving.stop();
}

/// The folder of films is on a disk that takes so long for each write.
fn slow_disk(command: &mut Command, ms: &str) {
    let file = Path::new(command.get_args().last().unwrap()).to_owned();
    let folder = file.parent().unwrap();
    let shim = folder.join("slow_disk.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slow_disk.c");
    let build = Command::new("cc").args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]).arg(&shim).arg(source).status();
    assert!(build.unwrap().success());
    command.env("LD_PRELOAD", shim).env("SLOW_DISK_MS", ms).env("SLOW_DISK_BELOW", folder.join("films"));
}

/// Memory that a process has for itself, in MiB: frames in shared memory are not counted.
fn memory_of(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

#[test]
fn a_slow_disk_thins_the_recording_and_keeps_nobody_waiting() {
    // 18 MB in a second, of which the disk takes two.
    let query = "width=640&height=480&fps=30&fourcc=YUYV";
    let more = format!("{RECORDING}format = \"raw\"\n");
    let mut serving = Serving::start("slow", query, &more, |command| slow_disk(command, "300"));
    let (worker, reading) = (serving.worker(), serving.read());
    sleep(Duration::from_secs(1));
    let before = memory_of(worker);
    serving.ok(json!({"do": "record", "on": true}));
    let begun = Instant::now();
    let mut most = 0;
    let mut status = Value::Null;
    while begun.elapsed() < Duration::from_secs(9) {
        most = most.max(memory_of(worker));
        let asked = Instant::now();
        status = serving.status()["recording"].take();
        assert!(asked.elapsed() < Duration::from_secs(10), "others are answered: {:?}", asked.elapsed());
        sleep(Duration::from_millis(100));
    }
    eprintln!("  memory: {before} MiB before, {most} MiB at most; {status}");
    // The queue's 64 MiB, a frame on either side of it, and what the allocator keeps.
    assert!(most - before <= 64 + 16, "{before} MiB before, {most} MiB");
    assert!(status["thinned"].as_u64() > Some(30) && status["frames"].as_u64() > Some(10), "{status}");
    let [missed, thinned, frames] = ["missed", "thinned", "frames"].map(|key| status[key].as_u64().unwrap());
    assert!(missed * 3 < missed + thinned + frames, "{status}");
    let off = Instant::now();
    let last = serving.ok(json!({"do": "record", "on": false}));
    // What is left would take the disk longer.
    assert!(off.elapsed() < Duration::from_secs(15), "{:?}", off.elapsed());
    assert!(last["error"].as_str().unwrap().contains("did not take the rest within 5.0 s"), "{last}");
    reading.end_undisturbed();
    // The frames that the index tells of are there.
    let file = serving.films("raw").remove(0);
    let text = fs::read_to_string(format!("{}.index", file.display())).unwrap();
    let lines: Vec<Value> = text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect();
    let bytes = fs::metadata(&file).unwrap().len();
    let sequence = |line: &Value| line["sequence"].as_u64().unwrap();
    assert!(lines.iter().all(|line| line["offset"].as_u64().unwrap() + 640 * 480 * 2 <= bytes));
    assert!(lines.windows(2).all(|pair| sequence(&pair[1]) > sequence(&pair[0])));
    serving.stop();
}

#[test]
fn a_disk_that_hangs_keeps_neither_the_camera_nor_its_end() {
    let query = "width=320&height=240&fps=30";
    let mut serving = Serving::start("hangs", query, RECORDING, |command| slow_disk(command, "600000"));
    let (worker, reading) = (serving.worker(), serving.read());
    serving.ok(json!({"do": "record", "on": true}));
    sleep(Duration::from_secs(2)); // the first second's frames are on their way to the disk
    // More orders than are kept: some wait for the disk, the others are refused at once.
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| serving.ask(json!({"do": "record", "on": false})))).collect();
        // Few times: after five seconds the disk is given up. Who waited for that would be told that it is off.
        for _ in 0..5 {
            let begun = Instant::now();
            assert_eq!(serving.status()["recording"]["on"], true);
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
            sleep(Duration::from_millis(50));
        }
        let answers: Vec<_> = asked.into_iter().map(|asked| asked.join().unwrap()).collect();
        let refused = answers.iter().filter(|one| one.as_ref().is_err_and(|error| error.kind() == Kind::Busy)).count();
        let told =
            answers.iter().flatten().filter(|one| one["error"].as_str().is_some_and(|e| e.contains("did not take")));
        assert!(refused > 0 && refused + told.count() == 8, "{answers:?}");
    });
    assert_eq!(serving.worker(), worker, "it was well all the time");
    reading.end_undisturbed();
    let took = serving.stop();
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(!serving.has_said("killed"));
}

#[test]
fn a_disk_that_hangs_is_left_for_another_one() {
    let on = |folder: &str| {
        format!(
            "[.recording]
{folder}
on = true
min_free = 0
"
        )
    };
    let query = "width=320&height=240&fps=30";
    let mut serving = Serving::start("other", query, &on("FOLDER"), |command| slow_disk(command, "600000"));
    let worker = serving.worker();
    let stuck = serving.wait_until("recording", |now| now["on"] == true)["file"].take();
    sleep(Duration::from_secs(2)); // the first second's frames are on their way to the disk
    let other = serving.folder.join("other");
    fs::create_dir(&other).unwrap();
    serving.configure(query, &on(&format!("folder = {other:?}")));
    let status = serving.wait_until("recording", |now| now["on"] == true && now["file"] != stuck);
    assert!(Path::new(status["file"].as_str().unwrap()).starts_with(&other), "{status}");
    serving.records(0.5);
    // By command it is the same: what was given up is over.
    serving.configure(query, RECORDING);
    serving.wait_until("recording", |now| now["on"] == false);
    let stuck = serving.ok(json!({"do": "record", "on": true}))["file"].take();
    sleep(Duration::from_secs(2));
    let given_up = serving.ok(json!({"do": "record", "on": false}));
    assert!(given_up["on"] == false && given_up["error"].as_str().unwrap().contains("did not take"), "{given_up}");
    let again = serving.ok(json!({"do": "record", "on": true}));
    assert!(again["on"] == true && again["file"] != stuck, "{again}");
    assert_eq!(serving.worker(), worker, "it was well all the time");
    serving.stop();
}

#[test]
fn a_supervisor_that_is_killed_leaves_a_whole_recording_and_nothing_else() {
    let mut serving = Serving::start("orphan", "width=320&height=240&fps=30", RECORDING, |_| ());
    let worker = serving.worker();
    serving.ok(json!({"do": "record", "on": true}));
    let status = serving.records(1.0);
    serving.child.kill().unwrap();
    end_of(&mut serving.child);
    wait_for("the end of the camera's process", || (!lives(worker)).then_some(()));
    let left: Vec<_> = fs::read_dir(serving.folder.join("films")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let file = PathBuf::from(status["file"].as_str().unwrap());
    assert!(left.len() == 1 && left[0] == file, "{left:?}");
    let film = film(&file);
    let told = |what: &str| status[what].as_u64().unwrap();
    let frames = film.times.len() as u64;
    // A busy machine's pauses cost some of the second's thirty, which are counted then.
    assert!(frames >= told("frames") && frames + told("missed") + told("thinned") >= 30, "{frames}: {status}");
    agrees_with_a_player(&file, film.times.len());
    assert!(camlease::shares().iter().all(|served| served.name != serving.name));
}
