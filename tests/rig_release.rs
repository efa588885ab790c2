//! Release that cannot leak: every way to end, from every state, on vivid and on a USB webcam. Afterwards a foreign
//! program streams from the device, and nothing is left: no descriptor, mapping, lock, socket, file or shared memory.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, Once, OnceLock};
use std::time::{Duration, Instant};

use camlease::LastExit;
use camlease_rig::foreign::Stream;
use camlease_rig::vivid::{self, VividOptions};
use camlease_rig::{Webcam, WebcamOptions, require_guest, v4l2_ctl_streams};

/// How soon after the ending the foreign program must have had its frames, under emulation: it takes about
/// 0.3 s to start and stream where nobody ever held the device.
const FREE_WITHIN: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq)]
enum Driver {
    Vivid,
    Uvcvideo,
}

/// The device under test, which all tests of this file share, one at a time.
fn device(driver: Driver) -> PathBuf {
    static WEBCAM: OnceLock<Webcam> = OnceLock::new();
    static OWN_FOLDERS: Once = Once::new();
    require_guest();
    OWN_FOLDERS.call_once(|| {
        for folder in own_folders() {
            assert!(Command::new("mount").args(["-t", "tmpfs", "tmpfs", folder]).status().unwrap().success());
        }
    });
    match driver {
        Driver::Vivid => vivid::load(VividOptions { first_number: Some(40), ..VividOptions::default() }).remove(0),
        Driver::Uvcvideo => WEBCAM.get_or_init(|| Webcam::plug(WebcamOptions::default())).node(),
    }
}

/// The guest sees the host's files, and the host's own programs write into these folders: the guest gets its own. Not
/// where the checkout itself is in one: then what is left there cannot be told from what the host's programs write.
fn own_folders() -> Vec<&'static str> {
    ["/tmp", "/var/tmp"].into_iter().filter(|folder| !support::root().starts_with(folder)).collect()
}

/// The program `tests/c/holder.c`, and what it says.
struct Holder {
    process: Child,
    orders: Option<ChildStdin>,
    lines: Receiver<String>,
    /// A process that the ending left alive.
    left: Option<i32>,
}

impl Holder {
    fn start(node: &Path, state: &str, ending: &str) -> Holder {
        let mut process = Command::new(support::c_program("holder.c", &[]))
            .arg(support::library())
            .args([node.to_str().unwrap(), state, ending])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(process.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        let holder = Holder { orders: process.stdin.take(), process, lines, left: None };
        holder.expect("ready");
        holder
    }

    /// The rest of the next line that begins with `word`; lines before it are passed over.
    fn expect(&self, word: &str) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("the holder never said \"{word}\""));
            if let Some(rest) = line.strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Brings the ending about, and waits for it. What the call returned that waited, where it could.
    fn end(&mut self, ending: &str) -> Option<String> {
        let signal = match ending {
            "sigint" => Some(libc::SIGINT),
            "sigterm" => Some(libc::SIGTERM),
            "sigkill" => Some(libc::SIGKILL),
            _ => None,
        };
        let expected_signal = match (signal, ending) {
            (Some(signal), _) => Some(signal),
            (None, "abort") => Some(libc::SIGABRT),
            (None, "fork_killed") => Some(libc::SIGKILL),
            _ => None,
        };
        match signal {
            // SAFETY: the pid of a child that was not waited for.
            Some(signal) => assert_eq!(unsafe { libc::kill(self.process.id() as i32, signal) }, 0),
            None => drop(self.orders.take().unwrap().write_all(b"end\n")),
        }
        if matches!(ending, "close" | "shutdown" | "dlclose" | "exec" | "fork_exit" | "fork_killed") {
            let mut woken = None;
            let until = Instant::now() + PATIENCE;
            let pid = loop {
                let line = self.lines.recv_timeout(until.saturating_duration_since(Instant::now()));
                let line = line.unwrap_or_else(|_| panic!("the holder did not end by {ending}"));
                match line.split_once(' ') {
                    Some(("woken", status)) => woken = Some(status.to_owned()),
                    Some(("ended", pid)) => break pid.parse().unwrap(),
                    _ => {}
                }
            };
            self.left = Some(pid);
            if !ending.starts_with("fork") {
                return woken;
            }
        }
        let status = self.process.wait().unwrap();
        match expected_signal {
            Some(signal) => assert_eq!(status.signal(), Some(signal), "{ending}: {status}"),
            None => assert!(status.success(), "{ending}: {status}"),
        }
        None
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Some(left) = self.left {
            // SAFETY: a process that this test started, and that stays until it is killed.
            unsafe { libc::kill(left, libc::SIGKILL) };
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const LEASES: &str = "/run/camlease";

/// What could be left behind: files where programs leave some, and sockets with a name of ours.
fn traces() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for folder in own_folders().into_iter().chain(["/dev/shm", "/run", "/run/lock"]) {
        let names = fs::read_dir(folder).into_iter().flatten().flatten();
        found.extend(names.map(|entry| entry.path().display().to_string()));
    }
    // The runtime folder stays. What is in it is looked at by itself.
    found.remove(LEASES);
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    found.extend(sockets.lines().filter(|line| line.contains("camlease")).map(str::to_owned));
    found
}

/// What one that was killed leaves for the next one: an unlocked lease, which tells how its holder ended, and the socket
/// beside it; one that waited had made them ready. What ends in order leaves nothing, and the next holder takes a dead
/// one's away.
fn leases(node: &Path, state: &str, ending: &str) {
    let files = || fs::read_dir(LEASES).into_iter().flatten().count();
    let killed = matches!(ending, "exec" | "fork_killed" | "sigint" | "sigterm" | "sigkill" | "abort");
    let marks = if killed { 2 } else { 0 };
    assert_eq!(files(), marks, "files in {LEASES}");
    let uri = node.display().to_string();
    assert_eq!(camlease::holders(&uri).unwrap().list, [], "nobody holds it");
    let camera = camlease::Camera::open(&uri, camlease::OpenOptions::default()).unwrap();
    let expected = match (marks, state) {
        (0, _) | (_, "waiting_busy") => LastExit::Clean,
        (_, "opened") => LastExit::Died,
        _ => LastExit::Dirty,
    };
    assert_eq!(camera.last_exit(), expected);
    drop(camera);
    assert_eq!(files(), 0, "what a dead one left is taken away");
}

/// Locks on the node, and descriptors and mappings of it in the process that is left.
fn hold_of(node: &Path, left: Option<i32>) -> Vec<String> {
    let inode = fs::metadata(node).unwrap().ino().to_string();
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let mut found: Vec<_> =
        locks.lines().filter(|line| line.contains(&format!(":{inode} "))).map(|line| format!("lock {line}")).collect();
    if let Some(pid) = left {
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let targets = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
        found.extend(targets.filter(|target| target == node).map(|_| "a descriptor".to_owned()));
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        found.extend(maps.lines().filter(|line| line.ends_with(node.to_str().unwrap())).map(str::to_owned));
    }
    found
}

fn cell(driver: Driver, state: &str, ending: &str) {
    let _alone = camlease_rig::alone();
    support::judged(|| match released(driver, state, ending) {
        took if took < FREE_WITHIN => Ok(()),
        took => Err(format!("{took:?}")),
    });
}

/// How soon a foreign program had its frames.
fn released(driver: Driver, state: &str, ending: &str) -> Duration {
    let node = device(driver);
    let before = traces();
    // Somebody else has the camera that the program waits for.
    let foreign = (state == "waiting_busy").then(|| Stream::start(&node));
    let mut holder = Holder::start(&node, state, ending);
    let woken = holder.end(ending);
    let ended = Instant::now();
    let expected = match (state, ending) {
        ("waiting_frame" | "waiting_busy", "close") => Some("CAMLEASE_CLOSED"),
        ("waiting_frame" | "waiting_busy", "shutdown" | "dlclose") => Some("CAMLEASE_SHUT_DOWN"),
        _ => None,
    };
    assert_eq!(woken.as_deref(), expected, "what the waiting call returned");
    if let Some(foreign) = foreign {
        foreign.kill();
    }
    let streams = v4l2_ctl_streams(&node, 3);
    let took = ended.elapsed();
    assert_eq!(streams, Ok(()), "a foreign program streams afterwards; held by {:?}", hold_of(&node, holder.left));
    println!("{state}, {ending}: a foreign program had 3 frames {} ms later", took.as_millis());
    assert_eq!(hold_of(&node, holder.left), Vec::<String>::new());
    assert_eq!(traces(), before, "what is left behind");
    leases(&node, state, ending);
    slowest(driver, state, ending, took);
    took
}

/// Prints the slowest cell so far: the last one printed is the slowest of all.
fn slowest(driver: Driver, state: &str, ending: &str, took: Duration) {
    static SLOWEST: Mutex<[Duration; 2]> = Mutex::new([Duration::ZERO; 2]);
    let name = if driver == Driver::Vivid { "vivid" } else { "uvcvideo" };
    let mut slowest = SLOWEST.lock().unwrap();
    let slowest = &mut slowest[driver as usize];
    if took > *slowest {
        *slowest = took;
        let bound = FREE_WITHIN.as_millis();
        eprintln!(
            "slowest on {name}: {state}, {ending}: {} ms until 3 foreign frames (bound {bound} ms)",
            took.as_millis()
        );
    }
}

macro_rules! matrix {
    ($($driver:ident = $variant:ident),*; $states:tt; $endings:tt) => {
        $( mod $driver { matrix!(@states $variant $states $endings); } )*
    };
    (@states $variant:ident [$($state:ident),*] $endings:tt) => {
        $( mod $state { matrix!(@endings $variant $state $endings); } )*
    };
    (@endings $variant:ident $state:ident [$($ending:ident),*]) => {
        $( #[test] fn $ending() { crate::cell(crate::Driver::$variant, stringify!($state), stringify!($ending).trim_start_matches("r#")) } )*
    };
}

matrix! {
    vivid_camera = Vivid, usb_camera = Uvcvideo;
    [opened, started, frame, waiting_frame, waiting_busy];
    [close, exit, r#return, dlclose, shutdown, exec, fork_exit, fork_killed, sigint, sigterm, sigkill, abort]
}
