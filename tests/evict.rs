//! Eviction, where no real driver is needed: each outcome and each refusal, on virtual cameras that real processes have.

mod support;

use std::cell::Cell;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::party::Party;
use support::{camera, own};

use camlease::{
    Activity, Camera, Condition, Event, EvictOptions, Evicted, Kind, OnBusy, OpenOptions, Outcome, evict, holders,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// The program `tests/c/evictee.c`.
struct Evictee {
    process: Child,
    output: BufReader<ChildStdout>,
    uri: String,
}

impl Evictee {
    /// Started, and in possession of the camera `virtual:NAME`.
    fn start(name: &str, what: &str) -> Evictee {
        let mut process = Command::new(support::c_program("evictee.c", &[]))
            .args([own(name).as_str(), what])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let uri = camera(name.trim_end_matches("/streaming"));
        Evictee { process, output, uri }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// The pid of one that has the camera.
    fn ready(&mut self) -> i32 {
        let line = self.line();
        let pid = line.strip_prefix("ready ").unwrap_or_else(|| panic!("it is not ready: {line:?}")).parse().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !holders(&self.uri).unwrap().list.iter().any(|holder| holder.pid == pid) {
            assert!(Instant::now() < deadline, "process {pid} never has {}", self.uri);
            thread::sleep(Duration::from_millis(2));
        }
        pid
    }

    fn evict(&self, grace_ms: u64) -> Vec<Evicted> {
        evict(&self.uri, EvictOptions { grace: Duration::from_millis(grace_ms), ..EvictOptions::default() })
            .unwrap_or_else(|error| panic!("{}: {error}", self.uri))
    }

    fn is_alive(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }
}

impl Drop for Evictee {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn started(name: &str, what: &str) -> (Evictee, i32) {
    let mut evictee = Evictee::start(name, what);
    let pid = evictee.ready();
    (evictee, pid)
}

fn condition(pid: i32) -> Condition {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    match stat.rsplit(") ").next().unwrap().chars().next().unwrap() {
        'T' | 't' => Condition::Stopped,
        'Z' => Condition::Zombie,
        'D' => Condition::Stuck,
        _ => Condition::Alive,
    }
}

#[track_caller]
fn reached(pid: i32, wanted: Condition) {
    let deadline = Instant::now() + PATIENCE;
    while condition(pid) != wanted {
        assert!(Instant::now() < deadline, "process {pid} never is {wanted:?}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// What became of the one holder that there was.
#[track_caller]
fn single(list: Vec<Evicted>, pid: i32, outcome: Outcome) -> String {
    let told: Vec<_> = list.iter().map(|evicted| (evicted.holder.pid, evicted.outcome)).collect();
    assert_eq!(told, [(pid, outcome)], "{list:?}");
    list.into_iter().next().unwrap().reason
}

/// Programs that other tests start just now have this one's open files until their exec.
#[track_caller]
fn free(uri: &str) {
    let options = OpenOptions { timeout: Some(Duration::from_secs(2)), ..OpenOptions::default() };
    drop(Camera::open(uri, options).unwrap_or_else(|error| panic!("{error}")));
}

#[track_caller]
fn still_busy(uri: &str) {
    assert_eq!(open_once(uri).err().map(|error| error.kind()), Some(Kind::Busy), "{uri}");
}

fn open_once(uri: &str) -> camlease::Result<Camera> {
    Camera::open(uri, OpenOptions { timeout: Some(Duration::ZERO), ..OpenOptions::default() })
}

/// Runs the rest only where tests are root, and says so where they are not.
fn is_root(lost: &str) -> bool {
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        let _ = writeln!(std::io::stderr(), "SKIPPED: {lost}: needs root");
    }
    root
}

/// Runs `tests/c/evict.c`; its lines.
#[track_caller]
fn by_c(uri: &str, arguments: &[&str]) -> Vec<String> {
    let output = support::run(Command::new(support::c_program("evict.c", &[])).arg(uri).args(arguments));
    output.lines().map(str::to_owned).collect()
}

#[test]
fn a_free_camera_has_nobody_to_evict() {
    assert!(evict(&camera("evict-free"), EvictOptions::default()).unwrap().is_empty());
    free(&camera("evict-free"));
    assert_eq!(by_c(&camera("evict-free"), &["null"]), ["status CAMLEASE_OK"]);
}

#[test]
fn a_holder_ends_by_sigterm() {
    for name in ["evict-plain", "evict-plain-streams/streaming"] {
        let (mut evictee, pid) = started(name, "plain");
        let begun = Instant::now();
        let list = evictee.evict(20_000);
        assert!(begun.elapsed() < PATIENCE / 2, "the end of a process is noticed: {:?}", begun.elapsed());
        let activity = if name.contains("streams") { Activity::Streaming } else { Activity::Open };
        assert_eq!(list[0].holder.activity, activity);
        assert_eq!(single(list, pid, Outcome::Terminated), "");
        free(&evictee.uri);
        assert!(!evictee.is_alive());
    }
}

#[test]
fn a_holder_that_takes_its_time_is_left_its_grace() {
    let (evictee, pid) = started("evict-late", "late");
    let begun = Instant::now();
    single(evictee.evict(5000), pid, Outcome::Terminated);
    assert!(begun.elapsed() >= Duration::from_millis(200), "{:?}", begun.elapsed());
    free(&evictee.uri);
}

#[test]
fn a_holder_that_ignores_sigterm_is_killed_after_its_grace() {
    let (evictee, pid) = started("evict-ignore", "ignore");
    let begun = Instant::now();
    assert_eq!(single(evictee.evict(300), pid, Outcome::Killed), "");
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    free(&evictee.uri);
}

#[test]
fn a_stopped_holder_is_continued_to_act_on_sigterm() {
    let (mut evictee, pid) = started("evict-stop", "stop");
    reached(pid, Condition::Stopped);
    let list = evictee.evict(5000);
    assert_eq!(list[0].holder.condition, Condition::Stopped);
    single(list, pid, Outcome::Terminated);
    assert_eq!(evictee.line(), "got SIGTERM");
    free(&evictee.uri);
}

#[test]
fn a_holder_under_a_debugger_is_killed() {
    let (evictee, pid) = started("evict-traced", "traced");
    let list = evictee.evict(200);
    assert_eq!(list[0].holder.condition, Condition::Stopped);
    single(list, pid, Outcome::Killed);
    free(&evictee.uri);
}

#[test]
fn a_holder_that_lets_go_and_stays_is_not_killed() {
    for (name, what) in [("evict-close", "close"), ("evict-busy", "busy")] {
        let (mut evictee, pid) = started(name, what);
        single(evictee.evict(5000), pid, Outcome::Terminated);
        free(&evictee.uri);
        assert!(evictee.is_alive(), "{what}");
    }
}

#[test]
fn a_child_that_inherited_the_camera_is_a_holder_too() {
    let mut evictee = Evictee::start("evict-child/streaming", "child");
    let mut pids = [evictee.ready(), evictee.ready()];
    let list = evictee.evict(5000);
    let mut told: Vec<_> = list.iter().map(|evicted| (evicted.holder.pid, evicted.outcome)).collect();
    told.sort_by_key(|told| told.0);
    pids.sort_unstable();
    assert_eq!(told, pids.map(|pid| (pid, Outcome::Terminated)));
    free(&evictee.uri);
}

#[test]
fn all_holders_have_one_grace_together() {
    let mut evictee = Evictee::start("evict-together/streaming", "children");
    let pids: Vec<_> = (0..5).map(|_| evictee.ready()).collect();
    let list = evictee.evict(6000);
    assert_eq!(list.len(), pids.len());
    assert!(list.iter().all(|evicted| evicted.outcome == Outcome::Killed), "{list:?}");
    free(&evictee.uri);
    let when = |line: String| line.strip_prefix("got SIGTERM ").unwrap().parse::<i64>().unwrap();
    let times: Vec<_> = pids.iter().map(|_| when(evictee.line())).collect();
    let apart = times.iter().max().unwrap() - times.iter().min().unwrap();
    assert!(apart < 6000, "one is not told when the time of the other one is over: {times:?}");
}

#[test]
fn an_heir_is_evicted_as_well_and_one_after_the_other_is_told() {
    let (evictee, pid) = started("evict-heir/streaming", "heir");
    let list = evictee.evict(5000);
    let outcomes: Vec<_> = list.iter().map(|evicted| evicted.outcome).collect();
    assert_eq!(outcomes, [Outcome::Terminated, Outcome::Terminated], "{list:?}");
    assert_eq!(list[0].holder.pid, pid);
    free(&evictee.uri);

    let (evictee, _) = started("evict-heirs/streaming", "heirs");
    let error = evict(&evictee.uri, EvictOptions::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    let busy = format!("{}: it is busy still", evictee.uri);
    for words in [busy.as_str(), "3 holders are gone", "now it is held by evictee (pid", "stop what"] {
        assert!(error.message().contains(words), "\"{words}\" is not in: {error}");
    }
    for holder in holders(&evictee.uri).unwrap().list {
        // SAFETY: no pointers.
        unsafe { libc::kill(holder.pid, libc::SIGKILL) };
    }
}

#[test]
fn a_holder_without_its_first_thread_is_found_and_ended() {
    let (evictee, pid) = started("evict-zombie", "zombie");
    reached(pid, Condition::Zombie);
    let list = evictee.evict(5000);
    assert_eq!(list[0].holder.condition, Condition::Zombie);
    single(list, pid, Outcome::Terminated);
    free(&evictee.uri);
}

#[test]
fn a_dry_run_does_nothing() {
    let (mut evictee, pid) = started("evict-dry", "plain");
    let list = evict(&evictee.uri, EvictOptions { dry_run: true, ..EvictOptions::default() }).unwrap();
    assert_eq!(single(list, pid, Outcome::None), "would be ended by SIGTERM and, after 2 s, by SIGKILL");
    let lines = by_c(&evictee.uri, &["plain", "300", "1"]);
    let reason = "would be ended by SIGTERM and, after 0.3 s, by SIGKILL";
    assert_eq!(lines[0], "status CAMLEASE_OK");
    assert!(
        lines[1].starts_with(&format!("holder {pid} ")) && lines[1].ends_with(&format!(" 0 0 {reason}")),
        "{lines:?}"
    );
    still_busy(&evictee.uri);
    assert!(evictee.is_alive());
}

#[test]
fn the_c_face_tells_each_outcome() {
    let (evictee, pid) = started("evict-c", "user");
    let lines = by_c(&evictee.uri, &["plain", "5000"]);
    let uid = if is_root("another user's holder") { 65534 } else { unreachable!("it could not change its user") };
    assert_eq!(lines, ["status CAMLEASE_OK".to_owned(), format!("holder {pid} {uid} 2 0 ")]);
    let (evictee, pid) = started("evict-c-2", "ignore");
    let lines = by_c(&evictee.uri, &["plain", "0"]);
    assert!(lines[1].starts_with(&format!("holder {pid} ")) && lines[1].ends_with(" 3 0 "), "{lines:?}");

    let refused = |arguments: &[&str], words: &str| {
        let uri = camera("evict-c-3");
        let lines = by_c(&uri, arguments);
        assert_eq!(lines[0], "status CAMLEASE_INVALID_ARGUMENT");
        assert!(lines[1].contains(&uri) && lines[1].contains(words), "{lines:?}");
    };
    refused(&["plain", "-1"], "grace_ms is -1");
    refused(&["plain", "100", "6"], "flags 0x6 has one that is not known");
}

/// One of ours, which has the camera and streams.
fn party(uri: &str) -> Party {
    let mut party = Party::start();
    party.ok(&format!("open {uri} wait 3 0 0 the-left-eye"));
    party.ok("start");
    party
}

#[test]
fn a_holder_of_ours_is_asked_and_yields() {
    let uri = &camera("evict-ours");
    let mut holder = party(uri);
    let dry = evict(uri, EvictOptions { dry_run: true, ..EvictOptions::default() }).unwrap();
    assert!(single(dry, holder.pid(), Outcome::None).starts_with("would be asked, then ended by SIGTERM"));

    let grace = Duration::from_secs(20);
    let options = EvictOptions { name: "the night shift".into(), grace, ..EvictOptions::default() };
    let begun = Instant::now();
    let list = evict(uri, options).unwrap();
    assert!(begun.elapsed() < grace / 2, "{:?}", begun.elapsed());
    assert_eq!(list[0].holder.lease.as_ref().unwrap().name, "the-left-eye");
    assert_eq!(single(list, holder.pid(), Outcome::Yielded), "");
    free(uri);
    let asked = holder.callback();
    assert!(asked.starts_with(&format!("asked {} ", std::process::id())), "{asked}");
    assert!(asked.contains(" 1 20000 the night shift"), "it is told that it must, by when, and who: {asked}");
    holder.refused("frame 0", "EVICTED");

    // With a frame out it takes all of its grace, and is not ended for it.
    holder.ok("regain 1000");
    holder.ok("start");
    holder.ok("frame");
    let lines = by_c(uri, &["plain", "300"]);
    assert_eq!(holder.tell("check"), "OK", "the frame stays");
    assert!(lines[1].starts_with(&format!("holder {} ", holder.pid())) && lines[1].ends_with(" 1 0 "), "{lines:?}");
    free(uri);
}

#[test]
fn an_open_that_evicts_leaves_a_holder_its_grace() {
    let uri = &camera("evict-open");
    let mut holder = party(uri);
    holder.ok("frame"); // it is out for longer than the grace
    let (grace, begun) = (Duration::from_millis(300), Instant::now());
    let options =
        OpenOptions { on_busy: OnBusy::Evict, grace: Some(grace), timeout: Some(PATIENCE), ..OpenOptions::default() };
    let camera = Camera::open(uri, options).unwrap();
    assert!(begun.elapsed() >= grace, "{:?}", begun.elapsed());
    assert_eq!(holder.tell("check"), "OK", "it handed over in time, and is not ended for it");
    holder.refused("frame", "EVICTED");
    drop(camera);
}

#[test]
fn a_holder_of_ours_that_does_not_answer_is_ended() {
    let uri = &camera("evict-silent");
    let holder = party(uri);
    // SAFETY: no pointers.
    unsafe { libc::kill(holder.pid(), libc::SIGSTOP) };
    reached(holder.pid(), Condition::Stopped);
    let begun = Instant::now();
    let grace = Duration::from_millis(2000);
    single(evict(uri, EvictOptions { grace, ..EvictOptions::default() }).unwrap(), holder.pid(), Outcome::Terminated);
    assert!(begun.elapsed() >= grace, "it had its time to answer");
    free(uri);
}

#[test]
fn a_holder_of_ours_in_another_container_is_asked_and_cannot_be_ended() {
    if !is_root("pid namespaces") {
        return;
    }
    let uri = &camera("evict-container");
    let mut holder = party(uri);
    let lines = by_c(uri, &["container"]);
    assert!(lines[1].starts_with("holder 0 0 1 "), "{lines:?}");
    holder.refused("frame 0", "EVICTED");
    free(uri);

    holder.ok("regain 1000");
    // SAFETY: no pointers.
    unsafe { libc::kill(holder.pid(), libc::SIGSTOP) };
    reached(holder.pid(), Condition::Stopped);
    let lines = by_c(uri, &["container", "300"]);
    assert!(lines[1].starts_with("holder 0 0 4 0 it is in another pid namespace"), "{lines:?}");
    still_busy(uri);
}

#[test]
fn this_process_is_refused() {
    let uri = &camera("evict-self");
    let camera = open_once(uri).unwrap();
    let list = evict(uri, EvictOptions::default()).unwrap();
    let reason = single(list, std::process::id() as i32, Outcome::Refused);
    assert!(reason.contains("this process itself") && reason.contains("close its camera"), "{reason}");
    drop(camera);
    let lines = by_c(uri, &["self"]);
    assert!(lines[1].contains(" 4 0 it is this process itself"), "{lines:?}");
}

/// What an evictor that `evictee` started said.
#[track_caller]
fn from_below(name: &str, what: &str) -> (Vec<i32>, Vec<String>) {
    let uri = camera(name.trim_end_matches("/streaming"));
    let mut evictee = Command::new(support::c_program("evictee.c", &[]));
    evictee.args([own(name).as_str(), what]).arg(support::c_program("evict.c", &[])).args([&uri, "plain", "300"]);
    let output = support::run(&mut evictee);
    let (ready, said): (Vec<_>, Vec<_>) = output.lines().map(str::to_owned).partition(|line| line.starts_with("ready"));
    (ready.iter().map(|line| line.strip_prefix("ready ").unwrap().parse().unwrap()).collect(), said)
}

#[test]
fn an_ancestor_is_refused() {
    let (pids, said) = from_below("evict-parent", "parent");
    assert_eq!(said[0], "status CAMLEASE_OK");
    assert!(said[1].starts_with(&format!("holder {} ", pids[0])), "{said:?}");
    assert!(said[1].contains(" 4 0 it is an ancestor of this process"), "{said:?}");
    free(&camera("evict-parent"));
}

#[test]
fn process_1_is_refused() {
    if !is_root("pid namespaces") {
        return;
    }
    let (_, said) = from_below("evict-first", "first");
    assert_eq!(said[0], "status CAMLEASE_OK");
    assert!(said[1].starts_with("holder 1 0 4 0 it is process 1, with which the machine or the container"), "{said:?}");
}

#[test]
fn nobody_is_ended_in_vain() {
    let (pids, said) = from_below("evict-parents/streaming", "parents");
    assert_eq!((said[0].as_str(), said.len()), ("status CAMLEASE_OK", 3), "{said:?}");
    let [child, parent] = [pids[0], pids[1]].map(|pid| {
        said.iter().find(|line| line.starts_with(&format!("holder {pid} "))).unwrap_or_else(|| panic!("{said:?}"))
    });
    assert!(parent.contains(" 4 0 it is an ancestor"), "{said:?}");
    assert!(child.contains(&format!(" 0 0 left alone: process {}, which is refused", pids[1])), "{said:?}");
}

#[test]
fn another_users_process_is_refused_without_the_right() {
    if !is_root("a holder of another user") {
        return;
    }
    let (mut evictee, pid) = started("evict-user", "user");
    let lines = by_c(&evictee.uri, &["no_kill"]);
    assert!(lines[1].starts_with(&format!("holder {pid} 65534 4 0 it is a process of user ")), "{lines:?}");
    assert!(lines[1].contains("evict as that user, or as root (CAP_KILL)"), "{lines:?}");
    assert!(evictee.is_alive());

    // One of ours tells everybody that it has the camera.
    let uri = &camera("evict-user-3");
    let mut ours = party(uri);
    let lines = by_c(uri, &["nobody"]);
    assert!(lines[1].starts_with(&format!("holder {} 0 4 0 it is a process of user root", ours.pid())), "{lines:?}");
    ours.ok("frame 1000");

    // Who may not even look does not learn who it is, but that there may be somebody.
    let (mut other, _) = started("evict-user-2", "plain");
    let lines = by_c(&other.uri, &["nobody"]);
    assert_eq!(lines[0], "status CAMLEASE_BUSY", "{lines:?}");
    assert!(lines[1].contains(&other.uri) && lines[1].contains("processes of other users"), "{lines:?}");
    assert!(other.is_alive());
}

#[test]
fn without_pidfds_processes_are_told_by_their_start() {
    let (evictee, pid) = started("evict-no-pidfd", "plain");
    let lines = by_c(&evictee.uri, &["no_pidfd", "5000"]);
    assert!(lines[1].starts_with(&format!("holder {pid} ")) && lines[1].ends_with(" 2 0 "), "{lines:?}");
    free(&evictee.uri);
    let (evictee, pid) = started("evict-no-pidfd-2", "ignore");
    let lines = by_c(&evictee.uri, &["no_pidfd", "200"]);
    assert!(lines[1].starts_with(&format!("holder {pid} ")) && lines[1].ends_with(" 3 0 "), "{lines:?}");
    free(&evictee.uri);
}

#[test]
fn pids_of_another_namespace_are_refused() {
    if !is_root("pid namespaces") {
        return;
    }
    let (mut evictee, pid) = started("evict-inside", "plain");
    let lines = by_c(&evictee.uri, &["inside"]);
    assert!(lines[1].starts_with(&format!("holder {pid} ")), "{lines:?}");
    assert!(lines[1].contains(" 4 0 it is in another pid namespace"), "{lines:?}");
    assert!(evictee.is_alive());
}

#[test]
fn a_containers_first_process_is_killed_where_it_has_to_be() {
    if !is_root("pid namespaces") {
        return;
    }
    let (evictee, pid) = started("evict-init", "init");
    let list = evict(&evictee.uri, EvictOptions { dry_run: true, ..EvictOptions::default() }).unwrap();
    let reason = single(list, pid, Outcome::None);
    assert!(reason.contains("first process of a container, which would end with it"), "{reason}");
    // The kernel keeps SIGTERM from it, as it has no handler for it.
    single(evictee.evict(200), pid, Outcome::Killed);
    free(&evictee.uri);
}

#[test]
fn only_those_who_are_wanted() {
    let mut evictee = Evictee::start("evict-only", "child");
    let (child, parent) = (evictee.ready(), evictee.ready());
    let only = |holder: &camlease::Holder| holder.pid == child;
    let list = evict(&evictee.uri, EvictOptions { only: Some(&only), ..EvictOptions::default() }).unwrap();
    single(list, child, Outcome::Terminated);
    assert!(evictee.is_alive());
    let left: Vec<_> = holders(&evictee.uri).unwrap().list.iter().map(|holder| holder.pid).collect();
    assert_eq!(left, [parent]);
}

#[test]
fn a_holder_that_ended_meanwhile_is_no_harm() {
    let (evictee, pid) = started("evict-gone", "plain");
    let evictee = Cell::new(Some(evictee));
    let only = |_: &camlease::Holder| {
        drop(evictee.take());
        true
    };
    let list = evict(&camera("evict-gone"), EvictOptions { only: Some(&only), ..EvictOptions::default() }).unwrap();
    assert_eq!(single(list, pid, Outcome::None), "it had ended by itself");
    free(&camera("evict-gone"));
}

#[test]
fn a_holder_that_only_sigkill_reaches_is_killed() {
    for name in ["evict-vfork", "evict-vfork-streams/streaming"] {
        let (evictee, pid) = started(name, "vfork");
        reached(pid, Condition::Stuck);
        let list = evict(&evictee.uri, EvictOptions { dry_run: true, ..EvictOptions::default() }).unwrap();
        let reason = single(list, pid, Outcome::None);
        assert!(
            reason.contains("inside the kernel (state D, in ") && reason.contains("where it may heed no signal"),
            "{reason}"
        );
        single(evictee.evict(200), pid, Outcome::Killed);
        free(&evictee.uri);
    }
}

#[test]
fn nobody_is_found_who_keeps_it() {
    let (_stuck, pid) = started("evict-stuck", "vfork");
    reached(pid, Condition::Stuck);
    // It plays busy for longer than an eviction tries.
    let uri = camera("evict-nobody?busy=1000000");
    let error = evict(&uri, EvictOptions::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Busy);
    let busy = format!("{uri}: it is busy still");
    let words = [busy.as_str(), "no holder was found", "camlease reset"];
    // Whoever is stuck may be closing it; on a busy machine, others are as well.
    for words in words.into_iter().chain(["is inside the kernel (state D, in ", "may be closing it"]) {
        assert!(error.message().contains(words), "\"{words}\" is not in: {error}");
    }
}

#[test]
fn a_name_that_is_none_and_a_file_that_anybody_can_open() {
    assert_eq!(evict("nonsense", EvictOptions::default()).unwrap_err().kind(), Kind::InvalidArgument);
    assert_eq!(evict("/dev/video987", EvictOptions::default()).unwrap_err().kind(), Kind::NotFound);
    let picture = format!("file:{}", support::root().join("tests/data/red.jpg").display());
    assert!(evict(&picture, EvictOptions::default()).unwrap().is_empty());
}

#[test]
fn a_cancelled_eviction_tells_what_it_did() {
    let (mut evictee, pid) = started("evict-cancel", "ignore");
    let cancel = Event::new().unwrap();
    let begun = Instant::now();
    let error = thread::scope(|scope| {
        let evicting = scope.spawn(|| {
            let options = EvictOptions { cancel: Some(&cancel), grace: PATIENCE, ..EvictOptions::default() };
            evict(&evictee.uri, options).unwrap_err()
        });
        thread::sleep(Duration::from_millis(3000)); // it is old enough to be ended by then
        cancel.signal();
        evicting.join().unwrap()
    });
    assert!(begun.elapsed() < PATIENCE / 2);
    assert_eq!(error.kind(), Kind::Closed);
    assert!(error.message().contains(&format!("process {pid} was sent SIGTERM")), "{error}");
    assert!(evictee.is_alive());
    still_busy(&evictee.uri);

    for (what, status) in [("cancel", "CLOSED"), ("shutdown", "SHUT_DOWN")] {
        let begun = Instant::now();
        let lines = by_c(&evictee.uri, &[what, "20000"]);
        assert_eq!(lines[0], format!("status CAMLEASE_{status}"));
        assert!(lines[1].contains(&evictee.uri), "{lines:?}");
        assert!(begun.elapsed() < PATIENCE / 2);
    }
}
