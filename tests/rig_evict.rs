//! Eviction on real drivers: foreign programs that keep a camera in every way that there is, a pid that is used again,
//! and a process that no signal reaches.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use support::party::Party;

use camlease::{
    Activity, Camera, Condition, EvictOptions, Evicted, Holder, OpenOptions, Outcome, StreamRequest, evict, holders,
};
use camlease_rig::foreign::Stream;
use camlease_rig::vivid::{self, VividOptions};
use camlease_rig::{Webcam, WebcamOptions, alone, require_guest, v4l2_ctl_streams, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);

fn vivid() -> String {
    vivid::load(VividOptions { first_number: Some(40), ..VividOptions::default() }).remove(0).display().to_string()
}

fn webcam() -> &'static Webcam {
    static WEBCAM: OnceLock<Webcam> = OnceLock::new();
    WEBCAM.get_or_init(|| Webcam::plug(WebcamOptions::default()))
}

fn both() -> [String; 2] {
    [vivid(), webcam().node().display().to_string()]
}

/// A program of `tests/c` that says "ready PID".
struct Program {
    process: Child,
    pid: i32,
}

impl Program {
    fn start(mut command: Command) -> Program {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let pid = line.trim().strip_prefix("ready ").unwrap_or_else(|| panic!("it is not ready: {line:?}"));
        Program { process, pid: pid.parse().unwrap() }
    }

    fn streamer(uri: &str, what: &str) -> Program {
        let mut command = Command::new(support::c_program("streamer.c", &[]));
        command.args([uri, what]);
        Program::start(command)
    }

    fn neighbour(uri: &str, what: &str) -> Program {
        let mut command = Command::new(support::c_program("neighbour.c", &[]));
        command.args([uri, what]);
        Program::start(command)
    }

    fn is_alive(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn with_grace(grace_ms: u64) -> EvictOptions<'static> {
    EvictOptions { grace: Duration::from_millis(grace_ms), ..EvictOptions::default() }
}

/// Evicts the one holder that there is; it, as it was found.
#[track_caller]
fn evicted(uri: &str, pid: i32, grace_ms: u64, outcome: Outcome) -> Evicted {
    let begun = Instant::now();
    let list = evict(uri, with_grace(grace_ms)).unwrap_or_else(|error| panic!("{uri}: {error}"));
    println!("{uri}: {outcome:?} after {} ms", begun.elapsed().as_millis());
    let told: Vec<_> = list.iter().map(|evicted| (evicted.holder.pid, evicted.outcome)).collect();
    assert_eq!(told, [(pid, outcome)], "{uri}: {list:?}");
    list.into_iter().next().unwrap()
}

/// At once, by us, and by a program that is not ours.
#[track_caller]
fn free(uri: &str) {
    let options = OpenOptions { timeout: Some(Duration::ZERO), ..OpenOptions::default() };
    let camera = Camera::open(uri, options).unwrap_or_else(|error| panic!("{error}"));
    camera.start(&StreamRequest::default()).unwrap_or_else(|error| panic!("{error}"));
    drop(camera.next_frame(Some(PATIENCE)).unwrap_or_else(|error| panic!("{error}")));
    drop(camera);
    v4l2_ctl_streams(Path::new(uri), 2).unwrap_or_else(|error| panic!("{uri}: {error}"));
}

#[test]
fn v4l2_ctl_ends_by_sigterm() {
    let _alone = alone();
    require_guest();
    for uri in both() {
        let stream = Stream::start(Path::new(&uri));
        let gone = evicted(&uri, stream.process_id() as i32, 5000, Outcome::Terminated);
        assert_eq!(gone.holder.activity, Activity::Streaming);
        assert!(gone.holder.command.contains("v4l2-ctl"), "{}", gone.holder.command);
        free(&uri);
    }
}

#[test]
fn a_holder_of_ours_yields() {
    let _alone = alone();
    require_guest();
    for uri in both() {
        let mut holder = Party::start();
        holder.ok(&format!("open {uri} wait 9 0 0 the-left-eye"));
        holder.ok("start");
        holder.ok("frame");
        // With a frame out, it takes all of its grace.
        let gone = evicted(&uri, holder.pid(), 700, Outcome::Yielded);
        assert_eq!(gone.holder.lease.unwrap().name, "the-left-eye");
        holder.refused("frame 0", "EVICTED");
        assert_eq!(holder.tell("check"), "OK", "its frame stays");
        free(&uri);
        holder.ok("close");
    }
}

#[test]
fn a_stream_that_ignores_sigterm_is_killed() {
    let _alone = alone();
    require_guest();
    for uri in both() {
        // What a program is told to ignore, it ignores after exec as well.
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; exec \"$@\"", "sh"]);
        command.arg(support::c_program("neighbour.c", &[])).args([&uri, "stream"]);
        let stream = Program::start(command);
        let begun = Instant::now();
        evicted(&uri, stream.pid, 500, Outcome::Killed);
        assert!(begun.elapsed() >= Duration::from_millis(500), "{:?}", begun.elapsed());
        free(&uri);
    }
}

#[test]
fn every_way_to_keep_a_camera() {
    let _alone = alone();
    require_guest();
    for uri in both() {
        for (what, activity) in [
            ("buffers", Activity::Open),
            ("mapping", Activity::Streaming),
            ("zombie", Activity::Streaming),
            ("stop", Activity::Streaming),
        ] {
            println!("{uri}: {what}");
            let mut streamer = Program::streamer(&uri, what);
            if what == "zombie" {
                wait_for("its first thread to end", PATIENCE, || {
                    let stat = fs::read_to_string(format!("/proc/{}/stat", streamer.pid)).unwrap();
                    stat.contains(") Z ").then_some(())
                });
            }
            let gone = evicted(&uri, streamer.pid, 5000, Outcome::Terminated);
            assert_eq!(gone.holder.activity, activity, "{uri}: {what}");
            assert_eq!(gone.holder.condition == Condition::Zombie, what == "zombie");
            assert_eq!(streamer.is_alive(), what == "stop", "{uri}: {what}");
            free(&uri);
        }
        let neighbour = Program::neighbour(&uri, "inherit");
        evicted(&uri, neighbour.pid, 5000, Outcome::Terminated);
        free(&uri);
    }
}

#[test]
fn who_merely_has_it_open_beside_its_holder_is_left_in_peace() {
    let _alone = alone();
    require_guest();
    let uri = vivid();
    let mut reader = Program::neighbour(&uri, "open");
    assert!(evict(&uri, EvictOptions::default()).unwrap().is_empty(), "it keeps nobody from streaming");
    let stream = Stream::start(Path::new(&uri));
    evicted(&uri, stream.process_id() as i32, 5000, Outcome::Terminated);
    assert!(reader.is_alive());
    free(&uri);

    // That of a webcam's metadata neither.
    let uri = webcam().node().display().to_string();
    let mut reader = Program::neighbour(&webcam().metadata_node().display().to_string(), "open");
    let stream = Stream::start(Path::new(&uri));
    evicted(&uri, stream.process_id() as i32, 5000, Outcome::Terminated);
    assert!(reader.is_alive());
}

#[test]
fn one_of_several_alike_is_to_be_named() {
    let _alone = alone();
    require_guest();
    let other = Webcam::plug(WebcamOptions { serial: "RIG0002".into(), ..WebcamOptions::default() });
    let streams = [webcam().node(), other.node()].map(|node| Stream::start(&node));
    let id = |file: &str| fs::read_to_string(other.usb_device().join(file)).unwrap().trim().to_owned();
    let both = format!("usb:{}:{}", id("idVendor"), id("idProduct"));
    let error = evict(&both, EvictOptions::default()).unwrap_err();
    assert_eq!(error.kind(), camlease::Kind::InvalidArgument, "{error}");
    assert!(error.message().contains("2 cameras have this name"), "{error}");
    evicted(&format!("{both}:RIG0002"), streams[1].process_id() as i32, 5000, Outcome::Terminated);
    let left = holders(webcam().node().to_str().unwrap()).unwrap();
    assert!(left.list.iter().any(|holder| holder.pid == streams[0].process_id() as i32), "{left}");
}

#[test]
fn a_pid_that_is_used_again_is_refused() {
    const PID_MAX: &str = "/proc/sys/kernel/pid_max";
    let _alone = alone();
    require_guest();
    let uri = vivid();
    let before = fs::read_to_string(PID_MAX).unwrap();
    // The kernel gives pids out in turn, from 300 on after the first round: few of them are soon used up.
    while Command::new("true").spawn().map(|mut child| (child.id(), child.wait().unwrap())).unwrap().0 < 300 {}
    fs::write(PID_MAX, "1000").unwrap();
    let holder = std::cell::RefCell::new(Some(Program::neighbour(&uri, "stream")));
    let pid = holder.borrow().as_ref().unwrap().pid;
    assert!((300..1000).contains(&pid), "{pid}");
    let heir = std::cell::RefCell::new(None);
    let only = |seen: &Holder| {
        assert_eq!(seen.pid, pid);
        drop(holder.take()); // killed, and waited for: its pid is free
        let mut tries = 0;
        let another = loop {
            tries += 1;
            assert!(tries < 5000, "pid {pid} is never used again");
            let mut another = Command::new("sleep").arg("1000").spawn().unwrap();
            if another.id() as i32 == pid {
                break another;
            }
            another.kill().unwrap();
            another.wait().unwrap();
        };
        println!("pid {pid} is used again after {tries} processes");
        heir.replace(Some(another));
        true
    };
    let list = evict(&uri, EvictOptions { only: Some(&only), ..EvictOptions::default() }).unwrap();
    fs::write(PID_MAX, before).unwrap();
    let told: Vec<_> = list.iter().map(|evicted| (evicted.holder.pid, evicted.outcome)).collect();
    assert_eq!(told, [(pid, Outcome::Refused)], "{list:?}");
    assert!(list[0].reason.contains(&format!("its pid {pid} is another process's by now")), "{}", list[0].reason);
    let mut heir = heir.take().unwrap();
    assert_eq!(heir.id() as i32, pid);
    assert!(heir.try_wait().unwrap().is_none(), "whoever has the pid now was left in peace");
    heir.kill().unwrap();
    heir.wait().unwrap();
    free(&uri);
}

#[test]
fn a_process_that_no_signal_reaches_is_told_as_such() {
    let _alone = alone();
    require_guest();
    let uri = webcam().node().display().to_string();
    let told = ["state D, in ", "until the driver returns", "reset its USB port (camlease reset)", "else reboot"];
    // Who evicts does not get into the driver behind it, which waits five seconds for the camera's answer: it sees that
    // the process survives, and is done before. A machine that is slow may take as long by itself: it has three tries.
    let survives = || {
        let mut streamer = Program::streamer(&uri, "control");
        webcam().order("delay-controls 6000");
        streamer.process.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        wait_for("it to be inside the driver", PATIENCE, || {
            holders(&uri).unwrap().list.iter().any(|holder| holder.condition == Condition::Stuck).then_some(())
        });
        let begun = Instant::now();
        let list = evict(&uri, EvictOptions { dry_run: true, ..EvictOptions::default() }).unwrap();
        assert!(list[0].reason.contains("it is inside the kernel (state D, in "), "{}", list[0].reason);

        let list = evict(&uri, with_grace(300)).unwrap_or_else(|error| panic!("{error}"));
        let took = begun.elapsed();
        let [evicted] = &list[..] else { panic!("{list:?}") };
        println!("{:?} after {took:?}: {}", evicted.outcome, evicted.reason);
        assert_eq!(evicted.holder.pid, streamer.pid);
        let survived = evicted.outcome == Outcome::Survived;
        assert!(!survived || evicted.holder.condition == Condition::Stuck);
        for words in told {
            assert!(!survived || evicted.reason.contains(words), "\"{words}\" is not in: {}", evicted.reason);
        }
        webcam().order("delay-controls 0");
        wait_for("the driver to return", PATIENCE, || (!streamer.is_alive()).then_some(()));
        assert!(evict(&uri, EvictOptions::default()).unwrap().is_empty());
        free(&uri);
        survived && took < Duration::from_secs(4)
    };
    assert!((0..3).any(|_| survives()), "it was waited for");
}

#[test]
fn a_frozen_process_is_told_as_such() {
    let _alone = alone();
    require_guest();
    let uri = vivid();
    let group = Path::new("/run/freezer/camlease");
    fs::create_dir_all("/run/freezer").unwrap();
    support::run(Command::new("mount").args(["-t", "cgroup", "-o", "freezer", "none", "/run/freezer"]));
    fs::create_dir_all(group).unwrap();
    let streamer = Program::neighbour(&uri, "stream");
    fs::write(group.join("cgroup.procs"), streamer.pid.to_string()).unwrap();
    fs::write(group.join("freezer.state"), "FROZEN").unwrap();
    wait_for("it to be frozen", PATIENCE, || {
        fs::read_to_string(group.join("freezer.state")).unwrap().starts_with("FROZEN").then_some(())
    });
    let survivor = evicted(&uri, streamer.pid, 200, Outcome::Survived);
    println!("{}", survivor.reason);
    assert!(survivor.reason.contains("frozen by its control group"), "{}", survivor.reason);
    fs::write(group.join("freezer.state"), "THAWED").unwrap();
    wait_for("it to end", PATIENCE, || holders(&uri).unwrap().list.is_empty().then_some(()));
    free(&uri);
}
