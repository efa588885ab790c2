//! The end of a process or of the library in it, where no real driver is needed: bounded when a driver hangs, once,
//! and in any order with the host's own handlers.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::camera;

/// Milliseconds by which a program has ended that waits for no driver, beside whatever else runs: `hang.c` hangs for ten
/// minutes.
const LATE: u128 = 15_000;

/// Runs `tests/c/ends.c` with a driver that hangs in close.
fn hanging(arguments: &[&str]) -> Command {
    let mut command = Command::new(support::c_program("ends.c", &[]));
    command.env("LD_PRELOAD", support::c_program("hang.c", &["-shared", "-fPIC"])).args(arguments);
    command
}

/// How long the program took, and what it printed.
#[track_caller]
fn timed(command: &mut Command) -> (Duration, String) {
    let begun = Instant::now();
    let output = support::run(command);
    (begun.elapsed(), output)
}

#[test]
fn exit_is_bounded_when_a_driver_hangs() {
    let (took, _) = timed(&mut hanging(&["exit", &camera("end-exit"), "400"]));
    assert!((400..LATE).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn the_bound_is_three_seconds_for_all_cameras_unless_it_is_set() {
    let (took, _) = timed(&mut hanging(&["exit", &camera("end-default"), "0", &camera("end-default-2")]));
    assert!((3000..LATE).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn shutdown_says_that_a_driver_hangs() {
    let uri = camera("end-shutdown");
    let (took, output) = timed(&mut hanging(&["shutdown", &uri, "300"]));
    assert!(output.contains("shutdown CAMLEASE_TIMEOUT"), "{output}");
    assert!(output.contains(&format!("{uri}: its driver hangs")), "the log names the camera: {output}");
    assert!(took.as_millis() < LATE, "{took:?}");
}

#[test]
fn unloading_is_bounded_and_the_hanging_thread_survives_it() {
    let (took, output) = timed(&mut hanging(&["dlclose", &camera("end-dlclose"), "300"]));
    assert!(output.contains("unloaded"), "{output}");
    assert!((300..LATE).contains(&took.as_millis()), "{took:?}");
}

#[test]
fn calls_in_the_hosts_own_exit_handlers_are_answered() {
    let mut command = Command::new(support::c_program("ends.c", &[]));
    let output = support::run(command.args(["handlers", &camera("end-handlers"), "0"]));
    // The handler that the host registered last runs first, before the library's: all still works there.
    assert!(output.contains("late handler: next_frame CAMLEASE_OK"), "{output}");
    // The one that it registered first runs last: the library is shut down, and frames are still readable.
    assert!(output.contains("early handler: next_frame CAMLEASE_SHUT_DOWN"), "{output}");
    assert!(output.contains("early handler: open CAMLEASE_SHUT_DOWN"), "{output}");
    assert!(output.contains("early handler: frame CAMLEASE_OK readable"), "{output}");
    assert!(output.contains("early handler: close CAMLEASE_OK"), "{output}");
}

#[test]
fn shutdown_twice_and_then_exit() {
    let mut command = Command::new(support::c_program("ends.c", &[]));
    let output = support::run(command.args(["twice", &camera("end-twice"), "0"]));
    assert!(output.contains("shutdown CAMLEASE_OK, shutdown CAMLEASE_OK, open CAMLEASE_SHUT_DOWN"), "{output}");
}

#[test]
fn a_camera_held_by_a_killed_process_is_got_at_once() {
    let uri = camera("end-killed");
    support::judged(|| {
        let mut times: Vec<_> = (0..20).map(|_| got_from_a_killed_one(&uri)).collect();
        // By notice, not by sleeping: polls alone, up to 50 ms apart, would make the median 25 ms.
        times.sort();
        if times[10] < Duration::from_millis(15) { Ok(()) } else { Err(format!("{times:?}")) }
    });
}

/// How long after its holder was killed one who waits for a camera gets it.
fn got_from_a_killed_one(uri: &str) -> Duration {
    let mut holder = support::holder(uri, "started");
    let took = std::thread::scope(|scope| {
        let (waits, waiting) = std::sync::mpsc::channel();
        let waiter = scope.spawn(move || {
            let mut told = |_: &str, holders: &camlease::Holders| waits.send(holders.list[0].pid).unwrap();
            let options = camlease::OpenOptions { on_wait: Some(&mut told), ..Default::default() };
            camlease::Camera::open(uri, options).map(|_| Instant::now())
        });
        assert_eq!(waiting.recv().unwrap(), holder.id() as i32, "told who has it");
        let killed = Instant::now();
        holder.kill().unwrap();
        waiter.join().unwrap().unwrap() - killed
    });
    holder.wait().unwrap();
    took
}

#[test]
fn the_library_is_unloaded_even_after_threads_had_to_wait_for_each_other() {
    let mut command = Command::new(support::c_program("ends.c", &[]));
    let (took, output) = timed(command.args(["contended", &camera("end-contended"), "0"]));
    assert!(output.contains("unloaded") && output.contains("free"), "{output}");
    assert!(took.as_millis() < LATE, "{took:?}");
}

/// A waiting thread is on its way out as soon as it is woken, and the code beneath it stays until it is out: it would not
/// once in some hundred rounds beside busy processors, if only those who wait still were counted.
#[test]
fn the_code_stays_until_a_woken_thread_has_left_it() {
    let uri = camera("end-unloaded");
    let _holder = camlease::Camera::open(&uri, Default::default()).unwrap();
    for round in 0..60 {
        let mut process = Command::new(support::c_program("holder.c", &[]))
            .arg(support::library())
            .args([&uri, "waiting_busy", "dlclose"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(lines.next().as_deref(), Some("ready"));
        process.stdin.as_mut().unwrap().write_all(b"end\n").unwrap();
        let ended: Vec<String> = lines.by_ref().take(2).collect();
        process.kill().unwrap();
        let status = process.wait().unwrap();
        let is_told = ended.len() == 2 && ended[0] == "woken CAMLEASE_SHUT_DOWN" && ended[1].starts_with("ended ");
        assert!(is_told, "round {round}: {ended:?}, {status}");
    }
}

#[test]
fn an_on_wait_may_end_the_process() {
    let uri = camera("end-told");
    let holder = camlease::Camera::open(&uri, Default::default()).unwrap();
    let mut command = Command::new(support::c_program("ends.c", &[]));
    let (took, _) = timed(command.args(["told", &uri, "0"]));
    assert!(took.as_millis() < LATE, "{took:?}");
    drop(holder);
}
