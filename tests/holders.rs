//! Who has a camera, on real processes: those that are easily overlooked too. A device's number is looked for, so any
//! character device does: /dev/full, which nobody else has open.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use camlease::{Activity, Condition, Holder, holders};

const NODE: &str = "/dev/full";

/// The program `tests/c/odd_holder.c`.
struct Odd {
    process: Child,
    /// The process that has the node: the program, or its child.
    pid: i32,
}

impl Odd {
    /// `None` where the kernel does not let this user do that.
    fn try_start(what: &str) -> Option<Odd> {
        let mut process = Command::new(support::c_program("odd_holder.c", &[]))
            .args([NODE, what])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        match line.trim().strip_prefix("ready ") {
            Some(pid) => Some(Odd { process, pid: pid.parse().unwrap() }),
            None => {
                let status = process.wait().unwrap();
                assert_eq!(status.code(), Some(77), "odd_holder {what}: {status}");
                None
            }
        }
    }

    #[track_caller]
    fn start(what: &str) -> Odd {
        Odd::try_start(what).unwrap_or_else(|| panic!("odd_holder {what} is not allowed"))
    }

    fn found(&self) -> Option<Holder> {
        holders(NODE).unwrap().list.into_iter().find(|holder| holder.pid == self.pid)
    }

    #[track_caller]
    fn expect(&self) -> Holder {
        let holder = self.found().unwrap_or_else(|| panic!("{} is not found: {}", self.pid, holders(NODE).unwrap()));
        assert_eq!((holder.activity, &holder.other_node), (Activity::Open, &None));
        assert!(holder.command.contains("odd_holder"), "{}", holder.command);
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        let start_time = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap();
        assert_eq!(holder.start_time.to_string(), start_time);
        holder
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn an_open_node_is_found_and_a_closed_one_is_not() {
    let (open, closed) = (Odd::start("plain"), Odd::start("closed"));
    assert_eq!(open.expect().condition, Condition::Alive);
    assert_eq!(closed.found(), None);
}

#[test]
fn a_process_whose_first_thread_has_ended_is_found() {
    let odd = Odd::start("ended");
    assert_eq!(fs::read_dir(format!("/proc/{}/fd", odd.pid)).unwrap().count(), 0, "the first thread has nothing");
    let holder = odd.expect();
    assert_eq!(holder.condition, Condition::Zombie);
    assert!(holder.command.ends_with(&format!("{NODE} ended")), "the whole command line: {}", holder.command);
}

#[test]
fn a_thread_with_descriptors_of_its_own_is_found() {
    let odd = Odd::start("unshared");
    let has = |folder: String| {
        let mut entries = fs::read_dir(folder).unwrap().flatten();
        entries.any(|entry| fs::read_link(entry.path()).is_ok_and(|link| link.as_os_str() == NODE))
    };
    assert!(!has(format!("/proc/{}/fd", odd.pid)), "the first thread has it not");
    assert_eq!(odd.expect().condition, Condition::Alive);
}

#[test]
fn a_stopped_process_is_told_as_such() {
    let odd = Odd::start("plain");
    // SAFETY: a process of this test's.
    unsafe { libc::kill(odd.pid, libc::SIGSTOP) };
    // It stops when it next runs, which its parent is told.
    let mut status = 0;
    // SAFETY: room for a status.
    assert_eq!(unsafe { libc::waitpid(odd.pid, &mut status, libc::WUNTRACED) }, odd.pid);
    assert!(libc::WIFSTOPPED(status));
    assert_eq!(odd.expect().condition, Condition::Stopped);
    // SAFETY: as above.
    unsafe { libc::kill(odd.pid, libc::SIGCONT) };
    let deadline = Instant::now() + Duration::from_secs(10);
    while odd.expect().condition != Condition::Alive {
        assert!(Instant::now() < deadline, "it goes on");
    }
}

#[test]
fn a_node_with_another_path_in_other_name_spaces_is_found() {
    let Some(odd) = Odd::try_start("elsewhere") else {
        skipped("this user may not make mount and pid name spaces");
        return;
    };
    let links = fs::read_dir(format!("/proc/{}/fd", odd.pid)).unwrap().flatten();
    let links: Vec<_> = links.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
    assert!(!links.iter().any(|link| link.as_os_str() == NODE), "{links:?}");
    odd.expect();
}

#[test]
fn processes_that_end_meanwhile_do_no_harm() {
    let steady = Odd::start("plain");
    let before = holders(NODE).unwrap().unreadable;
    let _churn = Odd::start("churn");
    let mut seen_ending = 0;
    for _ in 0..200 {
        let found = holders(NODE).unwrap();
        assert!(found.list.iter().any(|holder| holder.pid == steady.pid), "{found}");
        assert!(found.list.iter().all(|holder| !holder.command.is_empty() && holder.start_time > 0), "{found}");
        // Those that end are this user's: none of them could not be read. Others may come and go.
        assert!(found.unreadable <= before + 20, "{} of {before} could be read before", found.unreadable);
        seen_ending +=
            usize::from(found.list.iter().any(|holder| fs::metadata(format!("/proc/{}", holder.pid)).is_err()));
    }
    println!("in {seen_ending} of 200 lists somebody had ended by the time of the look");
}

/// Processes that are not the kernel's, and not `uid`'s.
fn processes_of_others(uid: u32) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let processes = entries.filter(|entry| entry.file_name().to_string_lossy().parse::<i32>().is_ok());
    let others = processes.filter(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let flags = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(6)?.parse::<u32>().ok());
        const PF_KTHREAD: u32 = 0x0020_0000;
        flags.is_some_and(|flags| flags & PF_KTHREAD == 0) && entry.metadata().is_ok_and(|file| file.uid() != uid)
    });
    others.count()
}

#[test]
fn an_ordinary_user_is_told_how_many_could_not_be_read() {
    // SAFETY: no pointers.
    let root = unsafe { libc::geteuid() } == 0;
    let odd = Odd::start("plain");
    // Where that user can get at them, wherever the checkout is.
    let folder = std::env::temp_dir().join(format!("camlease-who-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    let program = support::c_program("who.c", &[]);
    let links = fs::read_dir(program.parent().unwrap()).unwrap().flatten().map(|entry| entry.path());
    let libraries = links.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("libcamlease.so"));
    for file in libraries.chain([program.clone()]) {
        fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
    }
    let mut who = Command::new(folder.join(program.file_name().unwrap()));
    who.arg(NODE).env_remove("LD_LIBRARY_PATH");
    // SAFETY: no pointers.
    let mut uid = unsafe { libc::geteuid() };
    if root {
        uid = 65534;
        who.uid(uid).gid(65534);
    }
    let before = processes_of_others(uid);
    let output = support::run(&mut who);
    let after = processes_of_others(uid);
    fs::remove_dir_all(&folder).unwrap();
    let unreadable: usize =
        output.lines().find_map(|line| line.strip_prefix("unreadable ")).expect("it is told").parse().unwrap();
    // Between the two counts others may have come and gone.
    let (least, most) = (before.min(after).saturating_sub(20), before.max(after) + 20);
    assert!((least.max(1)..=most).contains(&unreadable), "{unreadable}, where there are {before} and {after}");
    let found = output.lines().any(|line| line == odd.pid.to_string());
    assert_eq!(found, !root, "a process of one's own is found, one of another user's is not: {output}");
}

/// Said past the test harness, which keeps what passing tests print to itself.
fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}
