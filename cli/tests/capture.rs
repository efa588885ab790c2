//! Pictures and clips: what is written can be read by others' decoders.

mod support;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use support::{Terminal, camera, camlease, folder, foreign_holder, json, json_error, run, told, wait_for};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;

/// Width, height and bytes of the pixels.
fn png(path: &Path) -> (u32, u32, Vec<u8>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(fs::read(path).unwrap())).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    (info.width, info.height, pixels)
}

fn jpeg(bytes: &[u8]) -> (usize, usize, Vec<u8>) {
    let mut decoder = JpegDecoder::new(ZCursor::new(bytes));
    let pixels = decoder.decode().unwrap();
    let (width, height) = decoder.dimensions().unwrap();
    (width, height, pixels)
}

/// How much there is to see: a picture of one colour has none.
fn colours(pixels: &[u8]) -> usize {
    pixels.chunks_exact(3).collect::<std::collections::HashSet<_>>().len()
}

#[test]
fn one_picture_of_every_pixel_format() {
    let folder = folder("formats");
    for fourcc in ["YUYV", "UYVY", "NV12", "RGB3", "BGR3", "GREY"] {
        let camera = camera("formats");
        let at = |extension: &str| folder.join(format!("{fourcc}.{extension}"));
        let take = |path: &Path| {
            json(&["capture", &format!("{camera}?fourcc={fourcc}&width=96&height=64"), "-o", path.to_str().unwrap()])
        };
        let (code, value) = take(&at("png"));
        assert_eq!((code, &value["frames"], &value["fourcc"]), (0, &1.into(), &fourcc.into()), "{value}");
        assert_eq!(value["bytes"], fs::metadata(at("png")).unwrap().len());
        let (width, height, pixels) = png(&at("png"));
        assert_eq!((width, height), (96, 64));
        if fourcc != "GREY" {
            assert!(colours(&pixels) >= 6, "{fourcc}: {} colours", colours(&pixels));
        }
        assert_eq!(take(&at("jpg")).0, 0);
        let (width, height, _) = jpeg(&fs::read(at("jpg")).unwrap());
        assert_eq!((width, height), (96, 64));
    }
    // The same picture, whatever its way: colours are not exchanged.
    let (_, _, yuyv) = png(&folder.join("YUYV.png"));
    for other in ["UYVY", "NV12", "RGB3", "BGR3"] {
        let (_, _, pixels) = png(&folder.join(format!("{other}.png")));
        let far = yuyv.iter().zip(&pixels).filter(|(a, b)| a.abs_diff(**b) > 48).count();
        assert!(far < yuyv.len() / 10, "{other}: {far} of {} bytes are far from YUYV's", yuyv.len());
    }
}

#[test]
fn several_pictures_are_numbered_and_none_is_overwritten() {
    let (folder, camera) = (folder("numbered"), camera("numbered"));
    let pattern = folder.join("shot-%02d.jpg");
    let pattern = pattern.to_str().unwrap();
    let (code, value) = json(&["capture", &camera, "-n", "3", "-o", pattern, "--skip", "2"]);
    assert_eq!(code, 0);
    let names: Vec<_> =
        value["files"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["01", "02", "03"].map(|number| pattern.replace("%02d", number)));
    names.iter().for_each(|name| assert_eq!(jpeg(&fs::read(name).unwrap()).0, 640));

    let before = fs::read(&names[0]).unwrap();
    let (code, _, err) = run(&["capture", &camera, "-n", "3", "-o", pattern]);
    assert_eq!(code, 2);
    assert!(err.contains("shot-01.jpg exists already") && err.contains("--force"), "{err}");
    assert_eq!(fs::read(&names[0]).unwrap(), before);
    let (code, out, _) =
        run(&["capture", &camera, "-n", "3", "-o", pattern, "--force", "--size", "64x48", "--fps", "100"]);
    assert_eq!(code, 0);
    assert!(out.contains("shot-01.jpg to ") && out.contains("3 frames, 64x48 YUYV"), "{out}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3, "no half file is left");
}

#[test]
fn a_y4m_clip_has_its_frames() {
    let folder = folder("y4m");
    for (fourcc, tag, bytes) in
        [("YUYV", "C422", 2.0), ("NV12", "C420mpeg2", 1.5), ("GREY", "Cmono", 1.0), ("RGB3", "C444", 3.0)]
    {
        let path = folder.join(format!("{fourcc}.y4m"));
        let uri = format!("{}?fourcc={fourcc}&width=64&height=48&fps=50", camera("y4m"));
        let (code, value) = json(&["capture", &uri, "-n", "5", "-o", path.to_str().unwrap()]);
        assert_eq!((code, &value["frames"]), (0, &5.into()), "{value}");
        let clip = fs::read(&path).unwrap();
        let head = clip.iter().position(|byte| *byte == b'\n').unwrap();
        let line = String::from_utf8(clip[..head].to_vec()).unwrap();
        assert!(line.starts_with("YUV4MPEG2 W64 H48 F50:1 ") && line.contains(tag), "{line}");
        let frame = 6 + (64.0 * 48.0 * bytes) as usize;
        let frames: Vec<_> = clip[head + 1..].chunks(frame).collect();
        assert_eq!(frames.len(), 5);
        assert!(frames.iter().all(|bytes| bytes.len() == frame && bytes.starts_with(b"FRAME\n")));
    }
}

#[test]
fn an_avi_clip_is_as_long_as_was_asked_and_its_jpegs_decode() {
    let (folder, camera) = (folder("avi"), camera("avi"));
    let path = folder.join("clip.avi");
    let uri = format!("{camera}?width=64&height=48&fps=50");
    let (code, value) = json(&["capture", &uri, "--seconds", "1", "-o", path.to_str().unwrap()]);
    assert_eq!(code, 0, "{value}");
    let frames = value["frames"].as_u64().unwrap();
    assert!(frames + value["dropped"].as_u64().unwrap() == 50, "{value}");
    let seconds = value["seconds"].as_f64().unwrap();
    assert!(seconds < 1.0 && (seconds >= 0.9 || value["dropped"] != 0), "{value}");
    let clip = fs::read(&path).unwrap();
    let word = |at: usize| u32::from_le_bytes(clip[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!((&clip[..4], &clip[8..12], word(4) + 8), (&b"RIFF"[..], &b"AVI "[..], clip.len()));
    assert_eq!(word(48), frames as usize);
    let movie = clip.windows(4).position(|at| at == b"movi").unwrap();
    let index = movie - 4 + word(movie - 4) + 4;
    assert_eq!(&clip[index..index + 4], b"idx1");
    for entry in 0..frames as usize {
        let at = index + 8 + entry * 16;
        let frame = movie + word(at + 8);
        assert_eq!(jpeg(&clip[frame + 8..frame + 8 + word(at + 12)]).0, 64);
    }
}

#[test]
fn a_jpeg_of_the_camera_is_kept_and_gets_its_tables() {
    let folder = folder("recorded");
    let uri = |name: &str| format!("file:{}", support::root().join("tests/data").join(name).display());
    let path = folder.join("red.jpg");
    let (code, value) = json(&["capture", &uri("red-standard-tables.jpg"), "-o", path.to_str().unwrap()]);
    assert_eq!((code, &value["fourcc"]), (0, &"MJPG".into()));
    let (_, _, pixels) = jpeg(&fs::read(&path).unwrap());
    assert!(pixels.chunks_exact(3).all(|pixel| pixel[0] > 150 && pixel[1] < 80 && pixel[2] < 80), "it is red");
    assert_eq!(json(&["capture", &uri("red.jpg"), "-o", folder.join("red.png").to_str().unwrap()]).0, 0);
    assert!(png(&folder.join("red.png")).2.chunks_exact(3).all(|pixel| pixel[0] > 150 && pixel[1] < 80));
    // The end of a recording is the end of a clip.
    let (code, value) = json(&["capture", &uri("red.jpg"), "-n", "9", "-o", folder.join("red.y4m").to_str().unwrap()]);
    assert_eq!((code, &value["frames"]), (0, &1.into()), "{value}");
}

#[test]
fn standard_output_takes_bytes() {
    let uri = format!("{}?width=64&height=48", camera("stdout"));
    let output = camlease(&["--json", "capture", &uri, "-n", "3", "-o", "-", "--as", "raw"]).output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout.len(), 3 * 64 * 48 * 2);
    let report: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((&report["frames"], &report["files"]), (&3.into(), &serde_json::json!([])));
    let output = camlease(&["capture", &uri, "-o", "-", "--as", "jpg"]).output().unwrap();
    assert_eq!(jpeg(&output.stdout).0, 64);
    assert_eq!(run(&["capture", &uri, "-o", "-"]).0, 2, "nothing tells what is to be written");
}

#[test]
fn a_pipe_is_written_into_and_not_replaced() {
    let (folder, camera) = (folder("pipe"), camera("pipe"));
    let pipe = folder.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let uri = format!("{camera}?width=64&height=48");
    for (kind, bytes) in [("raw", 2 * 64 * 48 * 2), ("jpg", 0)] {
        let reader = pipe.clone();
        let reader = std::thread::spawn(move || fs::read(reader).unwrap());
        let count = if kind == "raw" { "2" } else { "1" };
        let arguments = ["capture", &uri, "-n", count, "-o", pipe.to_str().unwrap(), "--as", kind, "--force"];
        let (code, out, err) = run(&arguments);
        assert_eq!(code, 0, "{out}{err}");
        let read = reader.join().unwrap();
        assert!(if kind == "raw" { read.len() == bytes } else { jpeg(&read).0 == 64 }, "{kind}: {} bytes", read.len());
        assert!(std::os::unix::fs::FileTypeExt::is_fifo(&fs::metadata(&pipe).unwrap().file_type()));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }
}

#[test]
fn failures_leave_no_file_and_have_their_codes() {
    let (folder, camera) = (folder("failures"), camera("failures"));
    let path = folder.join("x.png");
    let path = path.to_str().unwrap();
    let (code, error) = json_error(&["capture", &format!("{camera}?stall=0"), "-o", path]);
    assert_eq!((code, &error["kind"]), (6, &"timeout".into()), "{error}");
    let holder = foreign_holder(&camera, "plain");
    let (code, error) = json_error(&["capture", &camera, "-o", path, "--timeout", "100ms"]);
    assert_eq!((code, &error["kind"]), (3, &"busy".into()));
    assert!(error["message"].as_str().unwrap().contains(&format!("pid {}", holder.id())), "{error}");
    drop(holder);
    let (code, error) = json_error(&["capture", &camera, "-o", "/nonexistent/x.png"]);
    assert_eq!(code, 4, "{error}");
    assert_eq!(run(&["capture", &camera, "-o", "x.tiff"]).0, 2);
    assert_eq!(run(&["capture", &camera, "-o", "a%s.png"]).0, 2);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

/// Waits until a clip that has begun has a few frames. What is written is gathered first, so that its file does not show
/// them; but the first one is due at once, and before each of the next ones the command sleeps.
#[track_caller]
fn wait_for_frames(pid: u32) {
    let told = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    wait_for("its wait for a frame", || told("wchan").contains("poll").then_some(()));
    let sleeps = || -> u64 {
        let status = told("status");
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        count.trim().parse().unwrap()
    };
    let first = sleeps();
    wait_for("a few frames", || (sleeps() >= first + 3).then_some(()));
}

#[test]
fn ctrl_c_ends_a_clip_that_is_whole() {
    let (folder, camera) = (folder("interrupted"), camera("interrupted"));
    for (name, arguments, wanted) in [("open.avi", &[][..], 0), ("counted.avi", &["-n", "100000"], 130)] {
        let path = folder.join(name);
        let uri = format!("{camera}?width=64&height=48");
        let arguments = [&["--json", "capture", &uri, "-o", path.to_str().unwrap()], arguments].concat();
        let child = camlease(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let part = folder.join(format!("{name}.{}.part", child.id()));
        wait_for("the clip to begin", || part.exists().then_some(()));
        wait_for_frames(child.id()); // so that there is something to end
        support::signal(child.id() as i32, Signal::SIGINT);
        let begun = Instant::now();
        let (code, out, err) = told(child.wait_with_output().unwrap());
        assert_eq!(code, wanted, "{out}{err}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(report["interrupted"], true);
        let clip = fs::read(&path).unwrap();
        let told = u32::from_le_bytes(clip[48..52].try_into().unwrap());
        assert!(told > 0 && report["frames"] == told, "{report}");
        assert!(!part.exists());
    }
    assert_eq!(run(&["wait", &camera, "--timeout", "0"]).0, 0, "nothing keeps the camera");
}

#[test]
fn progress_is_shown_on_a_terminal_alone() {
    let (folder, camera) = (folder("progress"), camera("progress"));
    let path = folder.join("a.jpg");
    let uri = format!("{camera}?width=64&height=48");
    let arguments = ["capture", &uri, "-n", "30", "-o", path.to_str().unwrap()];
    let mut terminal = Terminal::start(&arguments);
    terminal.wait_for("/30 frames");
    assert_eq!(terminal.end().0, 0);
    let (code, _, err) = run(&[&arguments[..], &["--force"]].concat());
    assert_eq!((code, err.as_str()), (0, ""));
}

/// What the folder has, by name.
fn names(folder: &Path) -> Vec<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

#[test]
fn a_full_disk_does_not_cost_the_recording() {
    let (folder, camera) = (folder("full"), camera("full"));
    for name in ["clip.raw", "clip.avi"] {
        let path = folder.join(name);
        // A limit on the size of files, in blocks of 512 bytes, stands for the disk.
        let script = format!(
            "trap '' XFSZ; ulimit -f 4096; exec {} capture '{camera}?fps=100' -n 1000 --quality 100 -o {}",
            env!("CARGO_BIN_EXE_camlease"),
            path.display()
        );
        let (code, out, err) = told(std::process::Command::new("sh").args(["-c", &script]).output().unwrap());
        assert_eq!(code, 1, "{out}{err}");
        assert!(!path.exists());
        let [part] = &names(&folder)[..] else { panic!("{:?}", names(&folder)) };
        assert!(part.starts_with(name) && part.ends_with(".part") && err.contains(part), "{part}: {err}");
        assert_eq!(fs::metadata(folder.join(part)).unwrap().len(), 4096 * 512);
        fs::remove_file(folder.join(part)).unwrap();
    }
}

#[test]
fn a_link_stays_and_its_file_is_written() {
    let (folder, camera) = (folder("links"), camera("links"));
    fs::create_dir(folder.join("there")).unwrap();
    let link = folder.join("latest.png");
    for target in ["there/real.png", "there/not-yet.png"] {
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(target, &link).unwrap();
        if target == "there/real.png" {
            fs::write(folder.join(target), "an older picture").unwrap();
        }
        assert_eq!(run(&["capture", &camera, "-o", link.to_str().unwrap()]).0, 2, "it is there");
        let (code, _, err) = run(&["capture", &camera, "-o", link.to_str().unwrap(), "--force"]);
        assert_eq!(code, 0, "{err}");
        assert_eq!(fs::read_link(&link).unwrap(), Path::new(target));
        assert_eq!(png(&folder.join(target)).0, 640);
    }
    assert_eq!(names(&folder), ["latest.png", "there"]);
    assert_eq!(names(&folder.join("there")), ["not-yet.png", "real.png"]);

    // As /dev/stdout: through a link to an open file, here one of the test's own.
    let file = fs::File::create(folder.join("redirected.raw")).unwrap();
    let link = folder.join("stdout");
    std::os::unix::fs::symlink("/proc/self/fd/1", &link).unwrap();
    let uri = format!("{camera}?width=64&height=48");
    let mut command = camlease(&["--json", "capture", &uri, "-n", "2", "--as", "raw", "--force", "-o"]);
    assert!(command.arg(&link).stdout(file).status().unwrap().success());
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("/proc/self/fd/1"));
    assert_eq!(fs::metadata(folder.join("redirected.raw")).unwrap().len(), 2 * 2 * 64 * 48);
}

#[test]
fn no_other_file_is_touched() {
    let (folder, camera) = (folder("others"), camera("others"));
    let (own, planted) = (folder.join("x.png.part"), folder.join("precious"));
    fs::write(&own, "somebody's").unwrap();
    fs::write(&planted, "somebody's").unwrap();
    std::os::unix::fs::symlink(&planted, folder.join("clip.raw.part")).unwrap();
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    assert_eq!(run(&["capture", &camera, "-o", &at("x.png")]).0, 0);
    assert_eq!(run(&["capture", &camera, "-n", "1", "-o", &at("clip.raw")]).0, 0);
    assert_eq!(fs::read(&own).unwrap(), b"somebody's");
    assert_eq!(fs::read(&planted).unwrap(), b"somebody's");
    assert_eq!(names(&folder), ["clip.raw", "clip.raw.part", "precious", "x.png", "x.png.part"]);

    // A file that appears under the name meanwhile is another's, and both are kept.
    let path = folder.join("late.raw");
    let uri = format!("{camera}?width=64&height=48");
    let child = camlease(&["capture", &uri, "-o", path.to_str().unwrap()]);
    let child = { child }.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let part = folder.join(format!("late.raw.{}.part", child.id()));
    wait_for("the clip to begin", || part.exists().then_some(()));
    wait_for_frames(child.id());
    fs::write(&path, "another's").unwrap();
    support::signal(child.id() as i32, Signal::SIGINT);
    let (code, out, err) = told(child.wait_with_output().unwrap());
    assert_eq!(code, 1, "{out}{err}");
    assert!(err.contains("late.raw: ") && err.contains(part.to_str().unwrap()), "{err}");
    assert_eq!(fs::read(&path).unwrap(), b"another's");
    assert!(fs::metadata(&part).unwrap().len() > 0);
}

#[test]
fn a_pipe_that_nobody_reads_can_be_given_up() {
    let (folder, camera) = (folder("unread"), camera("unread"));
    let pipe = folder.join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let start = |output: &str| {
        let mut command = camlease(&["capture", &camera, "--as", "raw", "--force", "-o", output]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let end = |mut child: std::process::Child, signal| {
        support::signal(child.id() as i32, signal);
        let begun = Instant::now();
        let status = support::end_of(&mut child);
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        let by_signal = std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| 128 + signal);
        by_signal.or(status.code()).unwrap()
    };
    // Without a reader the open waits.
    let child = start(pipe.to_str().unwrap());
    let stat = format!("/proc/{}/wchan", child.id());
    wait_for("it to wait for a reader", || {
        fs::read_to_string(&stat).unwrap().contains("wait_for_partner").then_some(())
    });
    assert_eq!(end(child, Signal::SIGTERM), 128 + 15);
    // With one that does not read, the write.
    let reader = fs::File::options().read(true).write(true).open(&pipe).unwrap();
    let child = start(pipe.to_str().unwrap());
    let has_it = |pid: u32| run(&["who", &camera]).1.contains(&format!("pid {pid}")).then_some(());
    wait_for("the camera to be taken", || has_it(child.id()));
    std::thread::sleep(Duration::from_millis(300)); // until the pipe is full
    assert_eq!(end(child, Signal::SIGTERM), 128 + 15);
    drop(reader);
    // Standard output is as any pipe.
    let child = start("-");
    wait_for("the camera to be taken", || has_it(child.id()));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(end(child, Signal::SIGTERM), 128 + 15);
    assert_eq!(run(&["wait", &camera, "--timeout", "0"]).0, 0);
}

#[test]
fn a_name_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let (folder, camera) = (folder("bytes"), camera("bytes"));
    let path = folder.join(std::ffi::OsStr::from_bytes(b"m\xfcll.png"));
    assert!(camlease(&["capture", &camera, "-o"]).arg(&path).status().unwrap().success());
    assert_eq!(png(&path).0, 640);
}
