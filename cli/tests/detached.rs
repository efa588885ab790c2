//! The camera process that the library starts by itself: what it inherits, what it reports, and when it ends.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, Read};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::Duration;

use camlease::{Camera, Kind, OpenOptions, StreamRequest};
use nix::sys::signal::{SigHandler, SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getsid};
use serde_json::Value;
use support::{PATIENCE, camera, camlease, end_of, lives, wait_for, with_argument};

/// As the library starts it, with what a careless host leaves open and ignored.
fn start(uri: &str, share: &str, more: &[&str]) -> (Child, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = camlease(&["serve", "--detached", uri, "--share", share, "--report-fd", "1"]);
    command.args(more).stdout(writer).stderr(Stdio::null());
    let left_open = fs::File::open("/proc/self/stat").unwrap();
    let careless = move || {
        // SAFETY: no handler is installed.
        unsafe { nix::sys::signal::signal(Signal::SIGTERM, SigHandler::SigIgn)? };
        SigSet::from_iter([Signal::SIGUSR1, Signal::SIGCHLD]).thread_block()?;
        // SAFETY: a call with numbers, of an open descriptor.
        unsafe { libc::dup2(left_open.as_raw_fd(), 77) };
        Ok(())
    };
    // SAFETY: between fork and exec only system calls are made.
    unsafe { command.pre_exec(careless) };
    (command.spawn().unwrap(), reader)
}

/// The one line, and the end of the report after it.
fn report(reader: PipeReader) -> Value {
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert_eq!(reader.read_to_end(&mut Vec::new()).unwrap(), 0, "after {line}");
    let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    assert_eq!(said["camlease"], 1, "{said}");
    said
}

/// The process that serves a name.
fn server(share: &str) -> Option<i32> {
    camlease::shares().into_iter().find(|served| served.name == share).map(|served| served.pid)
}

/// The process that stays, of those that are started for a camera: the first one is in this session, and the second one
/// leads the new one until it ends.
#[track_caller]
fn away(uri: &str) -> i32 {
    let own = getsid(None).unwrap();
    let is_away = |pid: Pid| getsid(Some(pid)).is_ok_and(|session| session != own && session != pid);
    wait_for("the process that stays", || with_argument(uri).into_iter().find(|pid| is_away(Pid::from_raw(*pid))))
}

fn name_of(uri: &str) -> &str {
    uri.strip_prefix("virtual:").unwrap()
}

#[track_caller]
fn ends_and_lets_go(pid: i32, uri: &str) {
    wait_for("its end", || (!lives(pid)).then_some(()));
    Camera::open(uri, OpenOptions { timeout: Some(Duration::ZERO), ..OpenOptions::default() }).unwrap().close();
    assert!(camlease::shares().iter().all(|served| served.name != name_of(uri)));
}

#[test]
fn it_is_away_from_whoever_started_it_and_lives_as_long_as_it_is_used() {
    let uri = camera("detached");
    let share = name_of(&uri);
    let (mut child, reader) = start(&uri, share, &["--timeout", "20000"]);
    let pid = away(&uri);
    assert_eq!(end_of(&mut child).code(), Some(0), "its parent is not waited for");
    let said = report(reader);
    assert_eq!((&said["ok"], &said["share"]), (&true.into(), &share.into()), "{said}");
    let camera = Camera::open(&format!("shared:{share}"), OpenOptions::default()).unwrap();
    assert_eq!(server(share), Some(pid));

    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let bits = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    let bit = |signal: Signal| 1 << (signal as u64 - 1);
    // The C library has two for itself.
    let own = bit(Signal::SIGPIPE) | 0b11 << 31;
    assert_eq!(bits("SigIgn:") & !own, 0, "{status}");
    assert_eq!(bits("SigBlk:") & (bit(Signal::SIGUSR1) | bit(Signal::SIGCHLD)), 0, "{status}");
    assert!(!fs::exists(format!("/proc/{pid}/fd/77")).unwrap());
    for standard in 0..3 {
        assert_eq!(fs::read_link(format!("/proc/{pid}/fd/{standard}")).unwrap().to_str(), Some("/dev/null"));
    }
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
    let of = |pid: i32| getsid(Some(Pid::from_raw(pid))).unwrap().as_raw();
    assert!(of(pid) != of(std::process::id() as i32) && of(pid) != pid, "a session of its own, which it does not lead");

    camera.start(&StreamRequest::default()).unwrap();
    camera.next_frame(Some(PATIENCE)).unwrap();
    camera.stop().unwrap();
    // Longer than one without users lives.
    std::thread::sleep(Duration::from_millis(1500));
    assert!(lives(pid));
    camera.close();
    ends_and_lets_go(pid, &uri);
}

#[test]
fn one_that_nobody_comes_to_ends() {
    let uri = camera("detached-lonely");
    let (mut child, reader) = start(&uri, name_of(&uri), &[]);
    let pid = away(&uri);
    end_of(&mut child);
    assert_eq!(report(reader)["ok"], true);
    ends_and_lets_go(pid, &uri);
}

#[test]
fn it_says_why_it_has_no_camera() {
    for (uri, share, kind, words) in [
        (format!("{}?busy=1000000", camera("detached-busy")), "detached-busy", "BUSY", "plays busy"),
        ("/dev/video251".to_owned(), "detached-absent", "NOT_FOUND", "/dev/video251"),
        (camera("detached-name"), "a/b", "INVALID_ARGUMENT", "is no name to share a camera by"),
    ] {
        let (mut child, reader) = start(&uri, share, &["--timeout", "300ms"]);
        end_of(&mut child);
        let said = report(reader);
        assert_eq!((&said["ok"], &said["status"]), (&false.into(), &kind.into()), "{said}");
        assert!(said["message"].as_str().unwrap().contains(words), "{said}");
        wait_for("its end", || with_argument(share).is_empty().then_some(()));
    }
}

#[test]
fn who_hangs_up_does_not_want_the_camera_any_more() {
    let uri = format!("{}?busy=1000000", camera("detached-cancel"));
    // Who is left of what this process starts becomes its own child, so that it is told how that one ends.
    nix::sys::prctl::set_child_subreaper(true).unwrap();
    let (mut child, reader) = start(&uri, "detached-cancel", &[]);
    end_of(&mut child);
    let pid = Pid::from_raw(away(&uri));
    drop(reader);
    let ended = wait_for("its end", || {
        waitpid(pid, Some(WaitPidFlag::WNOHANG)).ok().filter(|status| *status != WaitStatus::StillAlive)
    });
    assert_eq!(ended, WaitStatus::Exited(pid, 0), "not by its last resort");
}

#[test]
fn one_whose_driver_hangs_ends_and_its_readers_are_told() {
    let uri = camera("detached-hang");
    let share = name_of(&uri);
    let hangs = format!("{uri}?fps=100&hang=10");
    let (mut child, reader) = start(&hangs, share, &[]);
    let pid = away(&hangs);
    end_of(&mut child);
    assert_eq!(report(reader)["ok"], true);
    let camera = Camera::open(&format!("shared:{share}"), OpenOptions::default()).unwrap();
    camera.start(&StreamRequest::default()).unwrap();
    let gone = (0..1000).find_map(|_| camera.next_frame(Some(PATIENCE)).err()).unwrap();
    assert_eq!(gone.kind(), Kind::Disconnected, "{gone}");
    ends_and_lets_go(pid, &uri);
}
