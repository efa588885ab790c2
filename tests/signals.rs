//! Release on signals, by real processes and signals: the cameras first, and then what the signal does without us. The
//! programs are `tests/c/signals.c`, which holds itself against its own behaviour without the release, and
//! `signals_close.c`, which tells when a camera has been closed, or makes that hang.

mod support;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use support::{camera, own};

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(support::c_program("signals.c", &["-rdynamic"]));
    command.args(arguments);
    // Whoever runs the tests in the background has them ignore some.
    let as_usual = || {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
            // SAFETY: a valid signal, and no handler.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
        Ok(())
    };
    // SAFETY: system calls alone.
    unsafe { command.pre_exec(as_usual) };
    command
}

/// The same, and it tells on its output when a camera has been closed.
fn telling(arguments: &[&str]) -> Command {
    let mut command = program(arguments);
    command.env("LD_PRELOAD", support::c_program("signals_close.c", &["-shared", "-fPIC"]));
    command
}

/// What `telling` ones say of it.
fn closed(name: &str) -> String {
    format!("closed {}", own(name))
}

/// A program that has said "ready".
struct Ready {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Ready {
    #[track_caller]
    fn new(mut command: Command) -> Ready {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Ready { child, output }
    }

    fn send(&self, signal: i32) {
        // SAFETY: no pointers; a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// How it ended, and what it said from "ready" on.
    fn end(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap(), rest)
    }
}

/// Runs it to its end, which is to be death by this signal. What it said.
#[track_caller]
fn killed_by(signal: i32, command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.signal(), Some(signal), "{command:?}: {}\n{}", output.status, support::text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn nothing_is_installed_without_the_call() {
    support::run(&mut program(&["nothing", &camera("signals-nothing")]));
}

#[test]
fn the_default_action_follows_the_release_of_all_cameras_newest_first() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        let [first, second, third] = ["a", "b-slow", "c"].map(|name| camera(&format!("signals-{signal}-{name}")));
        // Told by the process itself: it lived until the last was closed. The slow one is given its turn, and closed.
        let expected = ["c", "a", "b-slow"].map(|name| closed(&format!("signals-{signal}-{name}")));
        in_their_turn(&expected, || {
            let mut command = telling(&["wait", &third, &first, &second]);
            // No core file of a test.
            let none = || {
                let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                // SAFETY: a valid limit.
                unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
                Ok(())
            };
            // SAFETY: a system call alone.
            unsafe { command.pre_exec(none) };
            let ready = Ready::new(command);
            ready.send(signal);
            let (status, said) = ready.end();
            assert_eq!(status.signal(), Some(signal), "{status}");
            said
        });
    }
}

#[test]
fn cameras_that_close_in_their_turn_are_closed_one_after_the_other() {
    let names: Vec<_> = (0..6).map(|at| camera(&format!("signals-order-{at}"))).collect();
    let mut arguments = vec!["wait", names[5].as_str()];
    arguments.extend(names[..5].iter().map(String::as_str));
    let expected: Vec<_> = (0..6).rev().map(|at| closed(&format!("signals-order-{at}"))).collect();
    in_their_turn(&expected, || {
        let ready = Ready::new(telling(&arguments));
        ready.send(libc::SIGTERM);
        let (status, said) = ready.end();
        assert_eq!(status.signal(), Some(libc::SIGTERM));
        said
    });
}

/// All are closed each time, and at least once in this order: one whose thread the processors keep from its turn for long is
/// overtaken.
#[track_caller]
fn in_their_turn(expected: &[String], close: impl Fn() -> String) {
    let mut all: Vec<_> = expected.iter().map(String::as_str).collect();
    all.sort_unstable();
    support::judged_in(10, || {
        let said = close();
        let mut closed: Vec<_> = said.lines().collect();
        if closed == expected {
            return Ok(());
        }
        let words = format!("closed in this order: {closed:?}");
        closed.sort_unstable();
        assert_eq!(closed, all);
        Err(words)
    });
}

#[test]
fn the_second_signal_is_not_held_up_by_the_first() {
    for second in [libc::SIGINT, libc::SIGTERM] {
        let uri = camera(&format!("signals-second-{second}-hang"));
        let mut ready = Ready::new(telling(&["wait", &uri, "20000"]));
        ready.send(libc::SIGINT);
        std::thread::sleep(Duration::from_millis(1000));
        assert!(ready.child.try_wait().unwrap().is_none(), "the release hangs, and the process waits for it");
        let begun = Instant::now();
        ready.send(second);
        let (status, said) = ready.end();
        assert_eq!((status.signal(), said.as_str()), (Some(second), ""));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}

#[test]
fn a_driver_that_hangs_holds_the_signal_up_no_longer_than_the_shutdown_timeout() {
    let (hangs, works) = (camera("signals-bounded-hang"), camera("signals-bounded"));
    let ready = Ready::new(telling(&["wait", &hangs, &works, "3000"]));
    let begun = Instant::now();
    ready.send(libc::SIGTERM);
    let (status, said) = ready.end();
    assert_eq!((status.signal(), said), (Some(libc::SIGTERM), closed("signals-bounded") + "\n"));
    assert!((3000..15_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
}

#[test]
fn the_hosts_handler_runs_once_after_the_release_with_what_the_kernel_gave() {
    support::run(&mut program(&["handler", &camera("signals-handler")]));
}

#[test]
fn a_handler_for_once_is_one_for_once() {
    assert_eq!(killed_by(libc::SIGTERM, &mut program(&["resethand", &camera("signals-once")])), "once\n");
}

#[test]
fn handlers_run_on_the_stack_that_the_host_chose() {
    support::run(&mut program(&["altstack", &camera("signals-altstack")]));
}

#[test]
fn system_calls_are_interrupted_or_restarted_as_without_us() {
    support::run(&mut program(&["syscalls", &camera("signals-syscalls")]));
}

#[test]
fn a_call_that_waits_returns_after_the_handler_of_its_thread() {
    support::run(&mut program(&["inside", &camera("signals-inside")]));
}

#[test]
fn a_signal_in_on_wait_has_its_effect_there() {
    support::run(&mut program(&["on_wait", &camera("signals-on-wait")]));
}

#[test]
fn no_signal_is_lost_and_nothing_waits_for_itself() {
    let rounds = support::number("CAMLEASE_SIGNALS", 2000).to_string();
    println!("{}", support::run(&mut program(&["stress", &camera("signals-stress"), &rounds])));
}

#[test]
fn a_signal_upon_the_allocator_is_no_deadlock() {
    let rounds = (support::number("CAMLEASE_SIGNALS", 2000) / 10).to_string();
    println!("{}", support::run(&mut program(&["busy", &camera("signals-busy"), &rounds])));
}

#[test]
fn ignored_signals_stay_ignored() {
    support::run(&mut program(&["ignored", &camera("signals-ignored")]));
}

#[test]
fn later_handlers_of_the_host_work_and_may_call_ours() {
    support::run(&mut program(&["later", &camera("signals-later")]));
}

#[test]
fn what_was_installed_comes_back_and_only_in_the_place_of_ours() {
    support::run(&mut program(&["back", &camera("signals-back")]));
}

#[test]
fn after_an_unload_signals_do_what_they_do_without_us() {
    for way in ["handled", "handled-restored", "handled-called", "handled-replaced-restored", "handled-again"] {
        let uri = camera(&format!("signals-unload-{way}"));
        assert_eq!(support::run(&mut program(&["unloaded", &uri, way])), "unloaded\n", "{way}");
    }
    for way in ["plain", "plain-restored", "plain-called", "plain-replaced-restored", "plain-replaced-called"] {
        let uri = camera(&format!("signals-unload-{way}"));
        assert_eq!(killed_by(libc::SIGTERM, &mut program(&["unloaded", &uri, way])), "unloaded\n", "{way}");
    }
}

#[test]
fn an_unload_waits_for_a_thread_that_waits_in_the_handler() {
    support::run(&mut telling(&["unloading", &camera("signals-unloading-hang")]));
}

#[test]
fn a_handler_of_the_hosts_may_unload_the_library() {
    support::run(&mut program(&["unload_in_handler", &camera("signals-unload-in-handler")]));
}

#[test]
fn a_forked_child_gets_signals_as_they_are() {
    support::run(&mut program(&["forked", &camera("signals-forked")]));
}

#[test]
fn a_blocked_signal_stays_pending() {
    support::run(&mut program(&["blocked", &camera("signals-blocked")]));
}

#[test]
fn the_default_action_is_taken_in_sigsuspend_too() {
    let ready = Ready::new(telling(&["suspended", &camera("signals-suspended")]));
    ready.send(libc::SIGTERM);
    let (status, said) = ready.end();
    assert_eq!((status.signal(), said), (Some(libc::SIGTERM), closed("signals-suspended") + "\n"));
}

#[test]
fn where_memory_cannot_be_executed_the_library_stays() {
    let output = program(&["refused", &camera("signals-refused")]).output().unwrap();
    let text = support::text(&output);
    if text.contains("SKIPPED") {
        println!("{text}");
        return;
    }
    assert_eq!(output.status.signal(), Some(libc::SIGINT), "{}\n{text}", output.status);
}

#[test]
fn a_rust_host_gets_the_same() {
    let fault = camlease::release_on_signals(&[libc::SIGSEGV]).unwrap_err();
    assert_eq!(fault.kind(), camlease::Kind::InvalidArgument);
    assert!(fault.message().contains("SIGTERM"), "{fault}");
}
