//! The Python reader of the examples: frames without a copy, their lifetimes and failures, and a producer that goes.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use camlease::{Camera, OpenOptions, ShareOptions};
use support::{library, root, run};

/// Names are the whole machine's.
fn unique(name: &str) -> String {
    format!("python-{name}-{}", std::process::id())
}

fn shared(name: &str, width: u32, height: u32) -> Camera {
    let uri = format!("virtual:{name}?width={width}&height={height}&fps=100");
    let camera = Camera::open(&uri, OpenOptions::default()).unwrap();
    camera.share(ShareOptions { name: name.to_owned(), ..ShareOptions::default() }).unwrap();
    camera
}

/// Said past the test harness, which keeps what passing tests print to itself.
fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what} (make deps installs it)");
}

/// A Python that can do this: the user's, or else the system's, for which packages are installed.
fn python(import: &str) -> Option<&'static str> {
    ["python3", "/usr/bin/python3"].into_iter().find(|python| {
        let mut asked = Command::new(python);
        asked.args(["-c", &format!("import sys, {import}; sys.exit(sys.version_info < (3, 8))")]);
        asked.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    })
}

fn reader(python: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["120", python]).env("CAMLEASE_LIBRARY", library()).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("PYTHONPATH", root().join("examples-python"));
    command
}

fn checks() -> std::path::PathBuf {
    root().join("tests/python/reader.py")
}

#[test]
fn python_reads_a_shared_camera_without_any_package() {
    let Some(python) = python("ctypes") else { return skipped("the Python reader: python3 is not installed") };
    let name = unique("plain");
    let camera = shared(&name, 64, 48);
    // -S: without the folders in which packages are installed.
    run(reader(python).arg("-S").arg(checks()).args(["plain", &name]));
    let begun = Instant::now();
    while camera.share_info().unwrap().readers > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "one was left behind");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn numpy_arrays_are_the_frames_themselves() {
    let Some(python) = python("numpy") else { return skipped("NumPy arrays of frames: numpy is not installed") };
    let name = unique("numpy");
    let _camera = shared(&name, 64, 48);
    run(reader(python).arg(checks()).args(["numpy", &name]));
}

#[test]
fn python_goes_on_when_the_camera_comes_back() {
    let Some(python) = python("ctypes") else { return skipped("the Python reader: python3 is not installed") };
    let name = unique("patient");
    let mut program = reader(python).arg(checks()).args(["patient", &name]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let camera = shared(&name, 64, 48);
    assert_eq!(lines.next().as_deref(), Some("64x48"));
    camera.close();
    let camera = shared(&name, 32, 16);
    assert_eq!(lines.next().as_deref(), Some("32x16"));
    assert_eq!(lines.next().as_deref(), Some("again"));
    camera.close();
    assert_eq!(lines.next().as_deref(), Some("ok"));
    assert!(program.wait().unwrap().success());
}

#[test]
fn the_reader_is_a_program_too_and_says_where_the_library_is_missing() {
    let Some(python) = python("ctypes") else { return skipped("the Python reader: python3 is not installed") };
    let name = unique("program");
    let _camera = shared(&name, 64, 48);
    let program = root().join("examples-python/camlease_reader.py");
    let said = run(reader(python).arg(&program).args([&format!("shared:{name}"), "--count", "3", "--in-order"]));
    assert_eq!(said.lines().filter(|line| line.contains("64x48 YUYV>, 6144 bytes")).count(), 3, "{said}");
    let missing = reader(python).arg(&program).arg("shared:x").env("CAMLEASE_LIBRARY", Path::new("/nowhere")).output();
    let missing = support::text(&missing.unwrap());
    assert!(missing.contains("/nowhere") && missing.contains("set CAMLEASE_LIBRARY"), "{missing}");
}
