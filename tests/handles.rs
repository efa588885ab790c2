//! Handles: random calls over the whole C interface with valid, stale, foreign, made-up and NULL handles, by one thread
//! with a model that knows every answer (`tests/c/handles.c`), by many threads on shared handles
//! (`tests/c/handles_threads.c`), and by forked children (`tests/c/handles_fork.c`). The programs are built with the
//! address and undefined-behaviour sanitizers, leaks included, and a share runs under valgrind.
//!
//! The gates make a million calls. A long run: `CAMLEASE_CALLS=100000000 cargo test --test handles -- --nocapture`.
//! Another run than the usual one: `CAMLEASE_SEED=7`; a failure names the seed that repeats it.

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{c_program, number, run};

const SANITIZED: [&str; 2] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"];

/// Calls of all tests together.
fn calls() -> u64 {
    number("CAMLEASE_CALLS", 1_100_000)
}

fn seed() -> u64 {
    number("CAMLEASE_SEED", 2)
}

/// A folder with a recording of five frames.
struct Recording(PathBuf);

impl Recording {
    fn new(name: &str) -> Recording {
        let folder = std::env::temp_dir().join(format!("camlease-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut video = b"YUV4MPEG2 W16 H8 F30:1 Ip C420jpeg\n".to_vec();
        for frame in 0..5u8 {
            video.extend(b"FRAME\n");
            video.extend([frame * 20; 16 * 8 * 3 / 2]);
        }
        std::fs::write(folder.join("video.y4m"), video).unwrap();
        Recording(folder)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn sanitized(program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0:exitcode=71")
        .env("UBSAN_OPTIONS", "print_stacktrace=1");
    command
}

/// What a program printed, with the calls that it made.
#[track_caller]
fn calls_of(command: &mut Command) -> u64 {
    let output = run(command);
    print!("{output}");
    let calls = output.split_once(": ").and_then(|(_, rest)| rest.split_once(" calls")).map(|(number, _)| number);
    calls.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no calls in {output:?}"))
}

/// Every second seed leaves all handles to the end of the process.
#[test]
fn one_thread_and_every_answer_known() {
    let recording = Recording::new("handles");
    let program = c_program("handles.c", &SANITIZED);
    let share = calls() * 5 / 11;
    let made: u64 = (0..4)
        .map(|at| {
            let arguments = [(seed() + at).to_string(), (share / 4).to_string()];
            calls_of(sanitized(&program).args(arguments).arg(&recording.0))
        })
        .sum();
    assert!(made >= share / 4 * 4, "{made}");
}

#[test]
fn many_threads_on_the_same_handles() {
    let program = c_program("handles_threads.c", &SANITIZED);
    let share = calls() * 5 / 11;
    let made: u64 = [2, 8]
        .into_iter()
        .map(|threads: u64| {
            let arguments = [seed() + threads, share / 2, threads].map(|number| number.to_string());
            calls_of(sanitized(&program).args(arguments))
        })
        .sum();
    assert!(made >= share / 2 * 2 - 200, "{made}");
}

/// Without a sanitizer, whose allocator does not survive a fork beside other threads.
#[test]
fn threads_that_fork() {
    let program = c_program("handles_threads.c", &["-DFORKS"]);
    calls_of(Command::new(program).args([seed().to_string(), (calls() / 11).to_string(), "4".into()]));
}

#[test]
fn children_disturb_nobody() {
    let program = c_program("handles_fork.c", &[]);
    let uri = format!("virtual:handles-fork-{}?width=320&height=240&fps=100", std::process::id());
    print!("{}", run(Command::new(program).arg(uri)));
}

#[test]
fn a_share_under_valgrind() {
    let recording = Recording::new("valgrind");
    let valgrind = |program: &Path| {
        let mut command = Command::new("valgrind");
        command.args([
            "--quiet",
            "--leak-check=full",
            "--errors-for-leak-kinds=definite,indirect",
            "--error-exitcode=72",
        ]);
        command.args(["--fair-sched=yes", "--num-callers=30"]).arg(program);
        command
    };
    // Its seed is even: all is released at the end, and what is then lost was leaked.
    let seed = (seed() / 2 * 2).to_string();
    let program = c_program("handles.c", &["-DPLAIN"]);
    let share = (calls() / 55).to_string();
    calls_of(valgrind(&program).args([&seed, &share]).arg(&recording.0));
    let program = c_program("handles_threads.c", &["-DPLAIN"]);
    let share = (calls() / 110).to_string();
    calls_of(valgrind(&program).args([&seed, &share, "3"]));
}
