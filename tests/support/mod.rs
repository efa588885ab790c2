//! C programs for tests: compiled from `tests/c` against the library that cargo has just built, which stands beside the
//! running test in `target/PROFILE/deps`.
//!
//! The programs are kept in `target/PROFILE/c-programs`, with links by the library's SONAME beside them, so that they
//! run from there as they are. `tests/c/build` compiles them; a test on the host calls it for what it needs, while one in
//! the rig's guest, where a compiler would take minutes, relies on its having run before.

#![allow(dead_code)] // each test uses its part of this

pub mod contention;
pub mod faults;
pub mod party;
pub mod reader;
pub mod rough;
pub mod stamped;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// The checkout.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// `target/PROFILE`, of the running test.
pub fn target() -> PathBuf {
    let test = std::env::current_exe().expect("a running program has a path");
    test.parent().and_then(Path::parent).expect("tests stand in target/PROFILE/deps").to_owned()
}

/// The library under test.
pub fn library() -> PathBuf {
    target().join("deps/libcamlease.so")
}

/// Does this process run in the rig's guest?
pub fn in_guest() -> bool {
    fs::read_to_string("/proc/cmdline").is_ok_and(|line| line.split_whitespace().any(|word| word == "rig.guest"))
}

/// A program of `tests/c`, by its source's name, compiled with these flags in addition to the usual ones. In the guest the
/// source has to ask for exactly these flags in a `build:` line, so that `tests/c/build` made it beforehand.
#[track_caller]
pub fn c_program(source: &str, flags: &[&str]) -> PathBuf {
    let program = target().join("c-programs").join(variant(source, flags));
    if in_guest() {
        let made = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
        let code = made(&root().join("tests/c").join(source));
        assert!(
            made(&program).is_some(),
            "{} is not there: tests/c/build comes before the rig's tests",
            program.display()
        );
        assert!(made(&program) >= code, "{} is older than its source: run tests/c/build", program.display());
        return program;
    }
    let mut build = Command::new(root().join("tests/c/build"));
    build.arg("-t").arg(target()).arg(source).args(flags);
    let output = build.output().unwrap_or_else(|error| panic!("{build:?}: {error}"));
    assert!(output.status.success(), "{source} {flags:?}:\n{}", text(&output));
    let told = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(Path::new(&told), program, "tests/c/build and this module name programs alike");
    program
}

/// The file name that `tests/c/build` gives a program.
fn variant(source: &str, flags: &[&str]) -> String {
    let name = source.strip_suffix(".c").unwrap_or(source);
    format!("{name}{}", flags.concat().replace(['/', ' '], "_"))
}

/// A name for this run of the tests alone: virtual cameras are the whole machine's.
pub fn own(name: &str) -> String {
    format!("{}-{name}", std::process::id())
}

/// A virtual camera of such a name.
pub fn camera(name: &str) -> String {
    format!("virtual:{}", own(name))
}

/// Runs a program to its end; panics with all that it said if it fails. Its standard output.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The program `tests/c/holder.c`, which has reached `state` with a camera and stays in it until it is killed.
#[track_caller]
pub fn holder(uri: &str, state: &str) -> Child {
    let mut holder = Command::new(c_program("holder.c", &[]))
        .arg(library())
        .args([uri, state, "signal"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    holder
}

/// Both streams of a program, for a message.
pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

/// A number from the environment, for the long runs; `default` in the gates.
#[track_caller]
pub fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")),
        Err(_) => default,
    }
}

/// What can only be measured on a machine that does other things, too: one attempt in which nothing else came between is
/// enough. Harm that is done shows in each.
#[track_caller]
pub fn judged(attempt: impl FnMut() -> Result<(), String>) {
    judged_in(4, attempt);
}

/// The same for what comes between more often.
#[track_caller]
pub fn judged_in(attempts: usize, mut attempt: impl FnMut() -> Result<(), String>) {
    let mut failures = Vec::new();
    while let Err(words) = attempt() {
        println!("attempt {}: {words}", failures.len() + 1);
        failures.push(words);
        assert!(failures.len() < attempts, "{failures:#?}");
    }
}

/// What `cycles.c` says of a process: its descriptors, threads and mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Figures {
    descriptors: u64,
    threads: u64,
    mappings: u64,
}

/// Kilobytes by which a process may grow however many cycles there are: the allocator's own unrest, and with the pages of
/// files those of the library that are run for the first time.
const ANONYMOUS_GROWTH: u64 = 256;
const RESIDENT_GROWTH: u64 = 4096;

/// Mappings by which it may: libc keeps stacks and arenas of threads that have ended for the next ones, and needs a second
/// one of each when a camera's thread begins while the one before is on its way out.
pub const MAPPINGS_GROWTH: u64 = 8;

/// Runs so many open-start-frame-close cycles on a camera in a program of its own, prints its first and last figures, and
/// panics where something grew.
#[track_caller]
pub fn cycles_leave_nothing(uri: &str, cycles: u64) {
    let output = run(Command::new(c_program("cycles.c", &[])).arg(uri).arg(cycles.to_string()));
    println!("{uri}\n{output}");
    let number = |when: &str, name: &str| -> u64 {
        let line = output.lines().find_map(|line| line.strip_prefix(when));
        let word =
            line.and_then(|line| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('=')));
        word.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no {name} in {when}: {output}"))
    };
    let figures = |when: &str| Figures {
        descriptors: number(when, "descriptors"),
        threads: number(when, "threads"),
        mappings: number(when, "mappings"),
    };
    let (first, last) = (figures("first"), figures("last"));
    let opened = |figures: &Figures| (figures.descriptors, figures.threads);
    assert_eq!(opened(&last), opened(&first), "{uri}: something was left behind: {output}");
    assert!(last.mappings <= first.mappings + MAPPINGS_GROWTH, "{uri}: mappings were left behind: {output}");
    for (name, bound) in [("anonymous", ANONYMOUS_GROWTH), ("resident", RESIDENT_GROWTH)] {
        let (first, last) = (number("first", name), number("last", name));
        assert!(last <= first + bound, "{uri}: {name} memory grew from {first} to {last} kB");
    }
}
