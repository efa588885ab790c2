//! What a test needs inside the rig's guest: real drivers to load, a USB webcam to plug in, and foreign programs that use
//! the same cameras. The README beside this crate tells what the guest is and how a test gets into it.
//!
//! A test binary that uses this is named `rig_*`, which makes cargo's runner start it in the guest. Helpers panic with
//! the reason when something of the rig itself fails: a test has nothing to decide there.

pub mod foreign;
pub mod picture;
pub mod simulator;
pub mod udev;
pub mod vivid;
mod webcam;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

pub use foreign::v4l2_ctl_streams;
pub use webcam::{Webcam, WebcamOptions};

/// How long a node may take to appear or vanish: seconds under emulation when several come at once.
const NODE_WAIT: Duration = Duration::from_secs(20);
/// Between two looks at something that the kernel changes.
const POLL: Duration = Duration::from_millis(5);

/// Does this process run in the guest? It goes by the kernel's command line, which nobody inherits by accident.
pub fn in_guest() -> bool {
    fs::read_to_string("/proc/cmdline").is_ok_and(|line| line.split_whitespace().any(|word| word == "rig.guest"))
}

/// Stops a test that would otherwise load drivers into the machine of whoever started it.
#[track_caller]
pub fn require_guest() {
    assert!(
        in_guest(),
        "not in the rig's guest: run this by tests/rig/cargo-runner, or tests/rig/run -- {}",
        program()
    );
}

fn program() -> String {
    env::args().next().unwrap_or_default()
}

/// The folder whose files outlive the guest, where `tests/rig/run -k` finds them.
pub fn results() -> PathBuf {
    PathBuf::from(env::var_os("RIG_OUT").expect("RIG_OUT is not set: not in the rig's guest?"))
}

/// Held by a test that wants the cameras for itself: the others of its binary wait. A test that panicked meanwhile is no
/// reason for the next one to fail.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks again and again until `look` gives something; panics after `limit`.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain for {what}");
        thread::sleep(POLL);
    }
}

/// Sets a control by name, through another process.
#[track_caller]
pub fn set_control(node: &Path, control: &str, value: i64) {
    run(Command::new("v4l2-ctl").arg("-d").arg(node).arg("-c").arg(format!("{control}={value}")));
}

/// Runs a program of the guest to its end; panics with its output if it fails.
#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {}: {text}", output.status);
    text
}

#[track_caller]
fn modprobe(arguments: &[&str]) {
    run(Command::new("modprobe").args(arguments));
}

/// Nodes of /dev below a device of sysfs: those that exist already, in the order of their numbers.
fn video_nodes(video4linux: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut nodes: Vec<_> = fs::read_dir(video4linux)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let number = name.strip_prefix("video")?.parse::<u32>().ok()?;
            let node = Path::new("/dev").join(name);
            node.exists().then_some((number, entry.path(), node))
        })
        .collect();
    nodes.sort();
    nodes.into_iter().map(|(_, sysfs, node)| (sysfs, node)).collect()
}
