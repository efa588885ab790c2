//! Recordings as a player sees them: ffmpeg decodes what was recorded, also by a process that was killed and on disks that
//! are full or slow.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use super::*;

#[path = "../../../tests/support/matroska.rs"]
mod reader;

const PATIENCE: Duration = Duration::from_secs(60);

/// What a player may usually be behind a killed recording: the second that was not written yet, and a busy machine's
/// delay.
const LOST_MOST: f64 = 1.0 + 1.0;

fn camera(query: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("virtual:record-{}-{number}?{query}", std::process::id())
}

fn folder(test: &str) -> PathBuf {
    let built = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("cli-tests");
    let folder = built.join(format!("record-{test}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn options(folder: &Path, container: Container) -> RecordOptions {
    RecordOptions { folder: folder.to_owned(), container, min_free: 0, ..RecordOptions::default() }
}

#[track_caller]
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        sleep(Duration::from_millis(10));
    }
}

/// Records until so much is in the file; the last state.
#[track_caller]
fn record(uri: &str, options: RecordOptions, file: Option<PathBuf>, seconds: f64) -> Map<String, Value> {
    let recorder = Recorder::start_from(uri.into(), "cam", options, file).unwrap();
    wait_for("the recording", || {
        let status = recorder.status();
        assert_eq!((&status["error"], &status["ended"]), (&Value::Null, &Value::Null), "{status:?}");
        (status["seconds"].as_f64() >= Some(seconds)).then_some(())
    });
    let status = recorder.stop();
    assert_eq!((&status["on"], &status["error"]), (&false.into(), &Value::Null), "{status:?}");
    status
}

/// Said past the test harness, which keeps what passing tests print to itself.
fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}

/// Whether there is a player; without one these tests have nothing to say.
fn has_player() -> bool {
    let there = Command::new("ffprobe").arg("-version").output().is_ok();
    if !there {
        skipped("ffprobe is missing");
    }
    there
}

struct Played {
    /// When each frame is shown, in seconds.
    times: Vec<f64>,
    width: u64,
    height: u64,
    codec: String,
    /// Seconds, where the file tells.
    duration: Option<f64>,
    /// Since 1970, where the file tells.
    created: Option<f64>,
    complaints: String,
}

/// Decodes all frames.
#[track_caller]
fn play(file: &Path) -> Played {
    let output = Command::new("ffprobe")
        .args(["-v", "error", "-of", "json", "-show_entries"])
        .arg("frame=pts_time:stream=width,height,codec_name:format=duration:format_tags=creation_time")
        .arg(file)
        .output()
        .unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let number = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
    let frames = told["frames"].as_array().cloned().unwrap_or_default();
    let stream = &told["streams"][0];
    Played {
        times: frames.iter().filter_map(|frame| number(&frame["pts_time"])).collect(),
        width: stream["width"].as_u64().unwrap_or(0),
        height: stream["height"].as_u64().unwrap_or(0),
        codec: stream["codec_name"].as_str().unwrap_or("").to_owned(),
        duration: number(&told["format"]["duration"]),
        created: told["format"]["tags"]["creation_time"].as_str().map(seconds_of),
        complaints: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Of a time as 2026-11-21T06:15:04.123456Z, by the machine's own calendar.
fn seconds_of(text: &str) -> f64 {
    let output = Command::new("date").args(["-u", "+%s.%N", "-d", text]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn every_pixel_format_becomes_a_film_that_is_played_whole() {
    if !has_player() {
        return;
    }
    let folder = folder("formats");
    for fourcc in ["YUYV", "UYVY", "NV12", "RGB3", "BGR3", "GREY"] {
        let uri = camera(&format!("fourcc={fourcc}&width=96&height=64&fps=50"));
        let status = record(&uri, options(&folder, Container::Matroska), None, 1.5);
        let file = Path::new(status["file"].as_str().unwrap());
        let played = play(file);
        assert_eq!(played.complaints, "", "{fourcc}");
        assert_eq!((played.width, played.height, &*played.codec), (96, 64, "mjpeg"));
        assert_eq!(played.times.len() as u64, status["frames"].as_u64().unwrap(), "{fourcc}: {status:?}");
        assert_eq!(fs::metadata(file).unwrap().len(), status["bytes"].as_u64().unwrap());
        // Times are the frames' own: 20 ms and not a sum of rounded ones.
        let last = played.times.last().unwrap();
        assert!((last - status["seconds"].as_f64().unwrap()).abs() < 0.001, "{fourcc}: {last}, {status:?}");
        assert!((played.duration.unwrap() - last).abs() < 0.05, "{fourcc}: {:?}", played.duration);
        let due = |at: &f64| (at / 0.02 - (at / 0.02).round()).abs() < 0.05;
        assert!(played.times.iter().all(due), "{fourcc}: {:?}", played.times);
    }
}

#[test]
fn the_index_leads_into_the_middle() {
    if !has_player() {
        return;
    }
    let folder = folder("seek");
    let status = record(&camera("width=96&height=64&fps=50"), options(&folder, Container::Matroska), None, 3.2);
    let seek = Command::new("ffprobe")
        .args(["-v", "error", "-read_intervals", "2.5%+#1", "-show_entries", "packet=pts_time", "-of", "csv=p=0"])
        .arg(status["file"].as_str().unwrap())
        .output()
        .unwrap();
    let text = String::from_utf8(seek.stdout).unwrap();
    let at: f64 = text.trim().trim_end_matches(',').parse().unwrap();
    // A cluster's begin: without an index it would be the first frame.
    assert!(at > 1.0 && at <= 2.5, "{at}");
}

#[test]
fn a_cameras_own_jpegs_are_passed_through() {
    if !has_player() {
        return;
    }
    let folder = folder("through");
    let source = folder.join("source.mjpeg");
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-f", "lavfi", "-i", "testsrc=size=128x96:rate=25", "-frames:v", "60", "-f", "mjpeg"])
        .arg(&source)
        .status();
    assert!(made.unwrap().success());
    let uri = format!("file:{}?fps=25&loop=1", source.display());
    // A machine that is busy has it miss some.
    let status = (0..10)
        .map(|_| record(&uri, options(&folder, Container::Matroska), None, 1.5))
        .find(|status| status["missed"] == 0 && status["thinned"] == 0)
        .expect("a recording without gaps");
    let frames = status["frames"].as_u64().unwrap();
    let copy = |file: &Path, to: &str| {
        let to = folder.join(to);
        let mut ffmpeg = Command::new("ffmpeg");
        ffmpeg.args(["-v", "error", "-y", "-i"]).arg(file).args(["-c", "copy", "-f", "mjpeg", "-frames:v"]);
        assert!(ffmpeg.arg(frames.min(60).to_string()).arg(&to).status().unwrap().success());
        fs::read(to).unwrap()
    };
    let (own, recorded) = (copy(&source, "own"), copy(Path::new(status["file"].as_str().unwrap()), "recorded"));
    assert!(own == recorded, "{} bytes and {}", own.len(), recorded.len());
}

/// The first line of an index, and those of the frames; a torn last line is left out.
fn index(file: &Path) -> (Value, Vec<Value>) {
    let text = fs::read_to_string(format!("{}.index", file.display())).unwrap();
    let whole = &text[..text.rfind('\n').map_or(0, |at| at + 1)];
    let mut lines = whole.lines().map(|line| serde_json::from_str(line).unwrap());
    (lines.next().unwrap_or_default(), lines.collect())
}

#[test]
fn frames_as_they_are_have_an_index() {
    if !has_player() {
        return;
    }
    let folder = folder("plain");
    let uri = || camera("fourcc=YUYV&width=96&height=64&fps=50");
    let status = record(&uri(), options(&folder, Container::Y4m), Some("own name.y4m".into()), 1.2);
    let file = folder.join("own name.y4m");
    assert_eq!(status["file"].as_str().map(Path::new), Some(&*file));
    let played = play(&file);
    assert_eq!((&*played.complaints, played.width, &*played.codec), ("", 96, "rawvideo"));
    let (head, lines) = index(&file);
    assert_eq!((&head["fourcc"], &head["fps"]), (&"Y4M".into(), &json!([50, 1])));
    assert_eq!(lines.len(), played.times.len());
    assert_eq!(lines.len() as u64, status["frames"].as_u64().unwrap());
    let bytes = fs::read(&file).unwrap();
    for line in &lines {
        let offset = line["offset"].as_u64().unwrap() as usize;
        assert_eq!(&bytes[offset - 6..offset], b"FRAME\n");
        assert_eq!(line["planes"], json!([96 * 64, 48 * 64, 48 * 64]));
    }

    let status = record(&uri(), options(&folder, Container::Raw), None, 1.2);
    let file = Path::new(status["file"].as_str().unwrap());
    let (head, lines) = index(file);
    assert_eq!((&head["fourcc"], &head["width"], &head["strides"]), (&"YUYV".into(), &96.into(), &json!([192])));
    assert_eq!(lines.len() as u64, status["frames"].as_u64().unwrap());
    assert_eq!(fs::metadata(file).unwrap().len(), lines.len() as u64 * 96 * 64 * 2);
    for pair in lines.windows(2) {
        let step = |key: &str| pair[1][key].as_i64().unwrap() - pair[0][key].as_i64().unwrap();
        assert_eq!((step("offset"), step("timestamp_ns") / step("sequence")), (96 * 64 * 2, 20_000_000));
    }
    let total = fs::metadata(file).unwrap().len() + fs::metadata(format!("{}.index", file.display())).unwrap().len();
    assert_eq!(status["bytes"], total);
}

#[test]
fn full_files_end_the_recording_or_make_room() {
    if !has_player() {
        return;
    }
    let folder = folder("limits");
    let run = |options: RecordOptions, seconds: u64| {
        let uri = camera("width=96&height=64&fps=50");
        let recorder = Recorder::start_from(uri, "cam", options, None).unwrap();
        wait_for("the recording", || {
            let status = recorder.status();
            (status["on"] == false || status["seconds"].as_f64() > Some(seconds as f64)).then_some(())
        });
        recorder.stop()
    };
    let base = options(&folder, Container::Matroska);
    let status = run(RecordOptions { max_seconds: 1, ..base.clone() }, 60);
    assert_eq!((&status["ended"], &status["error"]), (&"max_seconds".into(), &Value::Null));
    let played = play(Path::new(status["file"].as_str().unwrap()));
    let last = *played.times.last().unwrap();
    let reaches = last >= 0.9 || status["missed"] != 0 || status["thinned"] != 0;
    assert!(played.complaints.is_empty() && last < 1.0 && reaches, "{status:?}: {:?}", played.times);

    let status = run(RecordOptions { max_bytes: 100_000, ..base.clone() }, 60);
    assert_eq!(status["ended"], "max_bytes");
    let file = Path::new(status["file"].as_str().unwrap());
    let bytes = fs::metadata(file).unwrap().len();
    assert!((50_000..=100_000).contains(&bytes), "{bytes}");
    assert_eq!(play(file).times.len() as u64, status["frames"].as_u64().unwrap());

    let status = run(RecordOptions { min_free: u64::MAX, ..base.clone() }, 60);
    assert!(status["ended"].as_str().unwrap().starts_with("min_free"), "{status:?}");

    // Other files stay, and the newest two recordings, of which one had been there before.
    let others = ["cam.mkv", "cam-door-20200101T000000Z-1.mkv", "cam-20200101T000000Z-1.txt"];
    others.iter().for_each(|name| fs::write(folder.join(name), "another's").unwrap());
    let status = run(RecordOptions { max_seconds: 1, max_files: 2, ..base }, 5);
    assert_eq!((&status["ended"], &status["error"]), (&Value::Null, &Value::Null));
    let mut left: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    left.retain(|path| !others.contains(&path.file_name().unwrap().to_str().unwrap()));
    assert_eq!(left.len(), 2, "{left:?}");
    left.iter().for_each(|file| assert!(play(file).complaints.is_empty() && !play(file).times.is_empty()));
    assert!(left.iter().any(|file| Some(file.to_str().unwrap()) == status["file"].as_str()));
    others.iter().for_each(|name| assert!(folder.join(name).exists()));
}

#[test]
fn nothing_is_overwritten_and_no_link_followed() {
    let folder = folder("names");
    let start = |name: &str| {
        let uri = camera("width=96&height=64");
        Recorder::start_from(uri, "cam", options(&folder, Container::Matroska), Some(name.into())).map(|_| ())
    };
    fs::write(folder.join("there.mkv"), "mine").unwrap();
    std::os::unix::fs::symlink("elsewhere", folder.join("link.mkv")).unwrap();
    for name in ["there.mkv", "link.mkv"] {
        assert_eq!(start(name).unwrap_err().errno(), libc::EEXIST, "{name}");
    }
    assert_eq!(fs::read_to_string(folder.join("there.mkv")).unwrap(), "mine");
    assert!(!folder.join("elsewhere").exists());
    assert_eq!(start("../out.mkv").unwrap_err().kind(), Kind::InvalidArgument);
    let nowhere = options(&folder.join("nowhere"), Container::Matroska);
    let error = Recorder::start_from(camera(""), "cam", nowhere, None).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("nowhere") && error.to_string().contains("create it"), "{error}");
}

#[test]
fn a_recording_without_a_frame_leaves_no_file() {
    let folder = folder("empty");
    let uri = camera("stall=0");
    let recorder = Recorder::start_from(uri, "cam", options(&folder, Container::Raw), None).unwrap();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    let begun = Instant::now();
    assert_eq!(recorder.stop()["frames"], 0);
    assert!(begun.elapsed() < STOP_PATIENCE);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn a_camera_that_is_not_there_is_waited_for_and_told() {
    let folder = folder("absent");
    let uri = format!("file:{}", folder.join("absent.mjpeg").display());
    let recorder = Recorder::start_from(uri, "cam", options(&folder, Container::Raw), None).unwrap();
    let status = wait_for("the trouble", || Some(recorder.status()).filter(|status| status["error"].is_string()));
    assert!(status["on"] == true && status["error"].as_str().unwrap().contains("absent.mjpeg"), "{status:?}");
}

#[test]
fn a_snapshot_is_a_picture_in_full_size() {
    let folder = folder("snapshot");
    let take = |name: Option<&str>| {
        let uri = camera("width=320&height=240");
        snapshot::take_from(&uri, "cam", &folder, name.map(Path::new), 90)
    };
    let told = take(None).unwrap();
    let file = told["file"].as_str().unwrap();
    assert!(file.ends_with(".jpg") && (&told["width"], &told["height"]) == (&320.into(), &240.into()), "{told:?}");
    let bytes = fs::read(file).unwrap();
    assert_eq!(told["bytes"], bytes.len());
    let (_, width, height) =
        crate::capture::jpeg::decode(&bytes, zune_jpeg::zune_core::colorspace::ColorSpace::RGB).unwrap();
    assert_eq!((width, height), (320, 240));
    take(Some("own.png")).unwrap();
    assert!(fs::read(folder.join("own.png")).unwrap().starts_with(b"\x89PNG"));
    assert_eq!(take(Some("own.png")).unwrap_err().errno(), libc::EEXIST);
    assert_eq!(take(Some("/tmp/own.png")).unwrap_err().kind(), Kind::InvalidArgument);
}

/// A process that records until its standard input ends, and then prints its last state; for each line that comes there,
/// its present one.
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

const CHILD: &str = "CAMLEASE_TEST_RECORD";

impl Process {
    fn start(uri: &str, options: &RecordOptions, environment: &[(&str, &str)]) -> Process {
        let container = options.container.extension();
        let order = json!({"uri": uri, "folder": options.folder, "container": container, "quality": options.quality});
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "serve::record::tests::a_process_that_records", "--nocapture"]);
        command.env(CHILD, order.to_string()).envs(environment.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Process { child, stdin, stdout }
    }

    fn status(&mut self) -> Value {
        self.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        self.told()
    }

    fn stop(mut self) -> Value {
        drop(self.stdin.take());
        self.told()
    }

    /// The next state. What the test harness prints comes between.
    fn told(&mut self) -> Value {
        let mut lines = self.stdout.by_ref().lines().map_while(std::result::Result::ok);
        let status = lines.find_map(|line| Some(line.split_once("STATUS ")?.1.to_owned())).unwrap();
        serde_json::from_str(&status).unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the other tests kill and slow down; without an order of theirs it has nothing to do.
#[test]
fn a_process_that_records() {
    let Some(order) = std::env::var(CHILD).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok()) else {
        return;
    };
    let container = match order["container"].as_str().unwrap() {
        "mkv" => Container::Matroska,
        "y4m" => Container::Y4m,
        _ => Container::Raw,
    };
    let quality = order["quality"].as_u64().unwrap() as u8;
    let options = RecordOptions { quality, ..options(Path::new(order["folder"].as_str().unwrap()), container) };
    let recorder = Recorder::start_from(order["uri"].as_str().unwrap().into(), "cam", options, None).unwrap();
    let tell = |status: Map<String, Value>| writeln!(std::io::stdout(), "\nSTATUS {}", Value::from(status)).unwrap();
    for line in std::io::stdin().lock().lines() {
        line.unwrap();
        tell(recorder.status());
    }
    let before = recorder.status();
    let begun = Instant::now();
    let mut status = recorder.stop();
    status.insert("before".into(), before.into());
    status.insert("stop_ms".into(), (begun.elapsed().as_millis() as u64).into());
    tell(status);
}

/// The only file with this extension.
fn only(folder: &Path, extension: &str) -> Option<PathBuf> {
    let paths = fs::read_dir(folder).ok()?.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|found| found == extension)).last()
}

/// A linear congruential generator, so that a failure's moments are the next run's, too.
fn random(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

#[test]
fn a_killed_recording_plays_up_to_its_last_whole_second() {
    if !has_player() {
        return;
    }
    let rounds: u64 = std::env::var("CAMLEASE_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let root = folder("killed");
    let mut state = 20_261_121;
    let (mut lost, mut frames, mut seconds) = (Vec::new(), 0, 0.0);
    for round in 0..rounds.div_ceil(AT_ONCE) {
        let starts = (0..AT_ONCE).map(|at| {
            let container = if at == 0 { Container::Raw } else { Container::Matroska };
            let folder = root.join(format!("{round}-{at}"));
            fs::create_dir(&folder).unwrap();
            let options = options(&folder, container);
            (Process::start(&camera("width=160&height=120&fps=30"), &options, &[]), folder, container)
        });
        let running: Vec<_> = starts.collect();
        for (mut process, folder, container) in running {
            let extension = container.extension();
            wait_for("the first bytes", || {
                Some(fs::metadata(only(&folder, extension)?).ok()?.len()).filter(|at| *at > 0)
            });
            sleep(Duration::from_millis(random(&mut state, 3000)));
            let told = process.status();
            process.child.kill().unwrap();
            let killed = now();
            process.child.wait().unwrap();
            let file = only(&folder, extension).unwrap();
            if container == Container::Raw {
                let (_, lines) = index(&file);
                let bytes = fs::metadata(&file).unwrap().len();
                let end = |line: &Value| line["offset"].as_u64().unwrap() + line["planes"][0].as_u64().unwrap();
                assert!(lines.iter().all(|line| end(line) <= bytes), "the index tells of what is there");
                continue;
            }
            let played = play(&file);
            let reach = played.times.last().copied().unwrap_or(0.0);
            // A player that finds no frame tells nothing of the file.
            let film = reader::read(&fs::read(&file).unwrap());
            assert_eq!(film.times.len(), played.times.len(), "{}", file.display());
            assert!(played.created.is_none_or(|created| (created - film.begun).abs() < 0.001), "{:?}", played.created);
            let elapsed = killed - film.begun;
            lost.push(elapsed - reach);
            let flushed = told["seconds"].as_f64().unwrap();
            // The file's times are cut to a tenth of a millisecond.
            assert!(reach > flushed - 0.001, "{flushed} s were written, {reach} s are played: {}", file.display());
            // No cluster is missing within: frames that never came were counted.
            let left_out = told["missed"].as_u64().unwrap() + told["thinned"].as_u64().unwrap();
            let is_whole = |pair: &[f64]| pair[1] - pair[0] < 1.0 || left_out > 0;
            assert!(played.times.windows(2).all(is_whole), "{left_out} left out: {:?}", played.times);
            (frames, seconds) = (frames + played.times.len() as u64 + left_out, seconds + reach);
            fs::remove_file(file).unwrap();
        }
    }
    lost.sort_by(f64::total_cmp);
    let (median, most) = (lost[lost.len() / 2], lost[lost.len() - 1]);
    println!(
        "{} killed; seconds lost: median {median:.2}, most {most:.2}; {frames} frames in {seconds:.1} s",
        lost.len()
    );
    assert!(median < LOST_MOST, "{lost:?}");
    // It runs behind everything else: a busy machine has it miss frames, and a cluster that is lost would be a second's.
    assert!(frames as f64 > seconds * 30.0 * 0.5, "{frames} frames in {seconds} s");
}

/// Recordings that run side by side while one after the other is killed.
const AT_ONCE: u64 = 3;

#[test]
fn a_torn_tail_is_left_out() {
    if !has_player() {
        return;
    }
    let folder = folder("torn");
    let process = Process::start(&camera("width=96&height=64&fps=50"), &options(&folder, Container::Matroska), &[]);
    // Some clusters, none of which an orderly end has touched.
    let file = wait_for("the recording", || only(&folder, "mkv"));
    let clusters = |bytes: &[u8]| -> Vec<usize> {
        bytes.windows(4).enumerate().filter(|(_, id)| *id == [0x1F, 0x43, 0xB6, 0x75]).map(|(at, _)| at).collect()
    };
    wait_for("some clusters", || (clusters(&fs::read(&file).unwrap()).len() >= 4).then_some(()));
    drop(process);
    let bytes = fs::read(&file).unwrap();
    let clusters = clusters(&bytes);
    let cut = folder.join("cut.mkv");
    let frames_until = |end: usize| {
        fs::write(&cut, &bytes[..end]).unwrap();
        play(&cut).times.len()
    };
    let whole: Vec<usize> = clusters.iter().map(|end| frames_until(*end)).collect();
    assert!(whole[0] == 0 && whole.windows(2).all(|pair| pair[1] > pair[0]), "{whole:?}");
    let mut state = 4;
    for _ in 0..40 {
        let end = clusters[0] + random(&mut state, (bytes.len() - clusters[0]) as u64) as usize;
        let before = clusters.iter().filter(|at| **at <= end).count() - 1;
        let frames = frames_until(end);
        assert!(frames >= whole[before], "cut at {end}: {frames} frames, {} in whole clusters", whole[before]);
    }
}

/// A small disk of its own, until it is dropped. None where this user may not mount.
struct Small(PathBuf);

impl Small {
    fn mount(folder: PathBuf, options: &str) -> Option<Small> {
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&folder).output();
        let there = mount.is_ok_and(|output| output.status.success());
        if !there {
            skipped("mount needs root");
        }
        there.then_some(Small(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_ends_the_recording_and_what_is_there_plays() {
    if !has_player() {
        return;
    }
    for container in [Container::Matroska, Container::Y4m, Container::Raw] {
        let Some(disk) = Small::mount(folder(&format!("full-{}", container.extension())), "size=700k") else { return };
        let options = RecordOptions { quality: 100, ..options(&disk.0, container) };
        let recorder = Recorder::start_from(camera("width=320&height=240&fps=30"), "cam", options, None).unwrap();
        let status = wait_for("the full disk", || Some(recorder.status()).filter(|status| status["on"] == false));
        assert!(status["error"].as_str().unwrap().contains("the disk is full"), "{status:?}");
        assert!(status["error"].as_str().unwrap().contains(status["file"].as_str().unwrap()), "{status:?}");
        let file = Path::new(status["file"].as_str().unwrap());
        if container == Container::Raw {
            let frame = 320 * 240 * 2;
            let bytes = fs::metadata(file).unwrap().len();
            assert!(bytes > frame && bytes.is_multiple_of(frame), "whole frames: {bytes}");
            continue;
        }
        let played = play(file);
        assert_eq!(played.complaints, "", "{container:?}");
        assert!(!played.times.is_empty() && played.times.len() as u64 >= status["frames"].as_u64().unwrap());
    }
    // Before the disk is full.
    let Some(disk) = Small::mount(folder("full-kept"), "size=1500k") else { return };
    let options = RecordOptions { quality: 100, min_free: 1 << 20, ..options(&disk.0, Container::Matroska) };
    let recorder = Recorder::start_from(camera("width=320&height=240&fps=30"), "cam", options, None).unwrap();
    let status = wait_for("the limit", || Some(recorder.status()).filter(|status| status["on"] == false));
    assert!(status["ended"].as_str().unwrap().starts_with("min_free") && status["error"].is_null(), "{status:?}");
    assert_eq!(
        play(Path::new(status["file"].as_str().unwrap())).times.len() as u64,
        status["frames"].as_u64().unwrap()
    );
}

#[test]
fn a_slow_disk_thins_the_recording() {
    if !has_player() {
        return;
    }
    let folder = folder("slow");
    let shim = folder.join("slow_disk.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slow_disk.c");
    let build = Command::new("cc").args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"]).arg(&shim).arg(source).status();
    assert!(build.unwrap().success());
    // 10 MB for each second without compression; the disk takes 4. The queue is full after some seven seconds.
    let uri = camera("width=640&height=480&fps=30&fourcc=YUYV");
    let environment = [("LD_PRELOAD", shim.to_str().unwrap()), ("SLOW_DISK_MS", "150")];
    let process = Process::start(&uri, &options(&folder, Container::Raw), &environment);
    sleep(Duration::from_secs(9));
    let status = process.stop();
    let count = |key: &str| status["before"][key].as_u64().unwrap();
    assert!(count("thinned") > 10, "{status}");
    assert!(count("frames") > 30, "it goes on: {status}");
    let all = count("missed") + count("thinned") + count("frames");
    assert!(count("missed") * 4 < all, "a disk that delayed the camera would have it miss most: {status}");
    assert!(status["stop_ms"].as_u64().unwrap() < 7000, "{status}");
    let (_, lines) = index(&only(&folder, "raw").unwrap());
    let gaps =
        lines.windows(2).map(|pair| pair[1]["sequence"].as_u64().unwrap() - pair[0]["sequence"].as_u64().unwrap());
    assert!(gaps.max().unwrap() <= 30 + status["missed"].as_u64().unwrap(), "thinned evenly: {status}");
}
