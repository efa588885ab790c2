//! Programs that need a camera: started when it is free, started again, and never left with it.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{Terminal, camera, camlease, folder, foreign, foreign_holder, holder, lives, run, told, wait_for};

fn name(camera: &str) -> &str {
    camera.strip_prefix("virtual:").unwrap()
}

/// Runs a shell script under `camlease run` to its end: exit code, standard output, events.
#[track_caller]
fn shell(camera: &str, options: &[&str], script: &str) -> (i32, String, Vec<Value>) {
    let arguments =
        [&["--json", "run", "-c", camera, "--delay", "50ms", "--grace", "500ms"], options, &["--", "sh", "-c", script]];
    let (code, out, err) = run(&arguments.concat());
    (code, out, events(&err))
}

#[track_caller]
fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text}"))).collect()
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

/// `camlease run` with a script of which the first line, "ready PID", has come.
fn ready(camera: &str, options: &[&str], script: &str) -> (Child, i32) {
    let mut command = camlease(&["run", "-c", camera, "--delay", "50ms"]);
    command.args(options).args(["--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    // Unbuffered, in effect: the script prints one line.
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let pid = line.trim().strip_prefix("ready ").unwrap_or_else(|| panic!("{line}")).parse().unwrap();
    (child, pid)
}

#[test]
fn its_exit_code_and_output_are_the_commands() {
    let camera = camera("run");
    let (code, out, events) = shell(&camera, &[], "echo hello; cat");
    assert_eq!((code, out.as_str()), (0, "hello\n"));
    assert_eq!(names(&events), ["started", "ended"]);
    let (code, _, events) = shell(&camera, &["--retries", "0"], "exit 42");
    assert_eq!(code, 42);
    assert_eq!(names(&events), ["started", "ended", "gave_up"]);
    assert_eq!((&events[1]["exit_code"], &events[1]["signal"]), (&42.into(), &().into()));
    let (code, _, events) = shell(&camera, &["--retries", "0"], "kill -SEGV $$");
    assert_eq!((code, &events[1]["signal"]), (128 + 11, &11.into()));
    let (code, _, err) = run(&["run", "-c", &camera, "--", "/no/such/program"]);
    assert_eq!(code, 127);
    assert!(err.contains("/no/such/program: it cannot be started"), "{err}");
    assert_eq!(run(&["run", "-c", &camera, "--", "/etc/passwd"]).0, 126);
    assert_eq!(run(&["run", "-c", &camera]).0, 2);
    assert_eq!(run(&["run", "--", "true"]).0, 2);
}

#[test]
fn it_succeeds_at_the_third_try() {
    let (camera, folder) = (camera("third"), folder("third"));
    let count = folder.join("count");
    let script = format!("echo try >>{0}; test $(wc -l <{0}) = 3", count.display());
    let begun = Instant::now();
    let (code, _, events) = shell(&camera, &[], &script);
    assert_eq!(code, 0);
    let one = ["started", "ended", "retrying"];
    assert_eq!(names(&events), [&one[..], &one, &one[..2]].concat());
    assert_eq!((&events[2]["delay_ms"], &events[5]["delay_ms"]), (&50.into(), &100.into()), "the pause is doubled");
    assert!(begun.elapsed() >= Duration::from_millis(150), "{:?}", begun.elapsed());
    assert_eq!(events[7]["try"], 3);

    let (code, _, events) = shell(&camera, &["--retries", "1"], "exit 5");
    assert_eq!(code, 5);
    assert_eq!(names(&events), ["started", "ended", "retrying", "started", "ended", "gave_up"]);
}

#[test]
fn a_busy_camera_is_waited_for() {
    let camera = camera("busy");
    let mut program = foreign_holder(&camera, "plain");
    let mut command = camlease(&["--json", "run", "-c", &camera, "--", "echo", "has it"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    err.read_line(&mut line).unwrap();
    let waiting: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&waiting["event"], &waiting["holders"][0]["pid"]), (&"waiting".into(), &program.id().into()));
    assert!(child.try_wait().unwrap().is_none());
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"has it\n"[..]));

    let program = foreign_holder(&camera, "plain");
    let (code, out, err) = run(&["run", "-c", &camera, "--timeout", "200ms", "--", "echo", "has it"]);
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    drop(program);
}

#[test]
fn a_busy_camera_is_got_by_evicting_or_asking() {
    let camera = camera("evict");
    let mut program = foreign_holder(&camera, "stubborn");
    let (code, out, events) = shell(&camera, &["--evict"], "echo has it");
    assert_eq!((code, out.as_str()), (0, "has it\n"), "{events:?}");
    assert!(!program.is_alive());

    let mut program = holder(&camera, "started");
    let (code, _, _) = shell(&camera, &["--ask", "--timeout", "500ms"], "true");
    assert_eq!(code, 3, "an equal keeps it");
    let (code, _, events) = shell(&camera, &["--ask", "--priority", "1", "--timeout", "10s"], "true");
    assert_eq!(code, 0, "{events:?}");
    assert!(program.is_alive(), "it was asked and not ended");
}

#[test]
fn what_a_failed_command_left_is_released_and_nothing_else() {
    let (camera, other) = (camera("left"), camera("left-other"));
    let keeps_other = foreign_holder(&other, "plain");
    // A child that keeps the camera, a grandchild that keeps it and ignores SIGTERM, and one that keeps nothing.
    let script = format!("sleep 600 & echo $!; {} {} leave >/dev/null; exit 3", foreign().display(), name(&camera));
    let (code, out, events) = shell(&camera, &["-c", &other, "--retries", "0", "--timeout", "1s"], &script);
    assert_eq!(code, 3, "the other camera is busy, so nothing was run: {events:?}");
    assert_eq!(out, "");
    drop(keeps_other);

    let (code, out, events) = shell(&camera, &["-c", &other, "--retries", "1"], &script);
    let sleepers: Vec<i32> = out.lines().map(|line| line.parse().unwrap()).collect();
    let alive: Vec<bool> = sleepers.iter().map(|pid| lives(*pid)).collect();
    sleepers.iter().for_each(|pid| support::signal(*pid, Signal::SIGKILL));
    assert_eq!(code, 3);
    let round = ["started", "ended", "released"];
    assert_eq!(names(&events), [&round[..], &["retrying"], &round, &["gave_up"]].concat(), "{events:?}");
    assert_eq!((&events[2]["camera"], &events[2]["outcome"]), (&camera.as_str().into(), &"terminated".into()));
    assert_eq!(alive, [true, true], "who keeps no camera lives on");
    assert_eq!(run(&["wait", &camera, "--timeout", "0"]).0, 0);

    let script = format!("{} {} stubborn >/dev/null & sleep 0.3; exit 3", foreign().display(), name(&camera));
    let (code, _, events) = shell(&camera, &["--retries", "0"], &script);
    assert_eq!((code, &events[2]["outcome"]), (3, &"killed".into()), "{events:?}");
    assert_eq!(run(&["wait", &camera, "--timeout", "0"]).0, 0);
}

#[test]
fn another_program_that_takes_the_camera_meanwhile_is_waited_for() {
    let (camera, folder) = (camera("stranger"), folder("stranger"));
    let go = folder.join("go");
    let script = format!("echo ready $$; while ! test -e {}; do sleep 0.05; done; exit 3", go.display());
    let (child, _) = ready(&camera, &["--retries", "1"], &script);
    let mut stranger = foreign_holder(&camera, "plain");
    fs::write(&go, "").unwrap();
    let waits = || run(&["who", &camera]).0 == 0 && stranger_is_waited_for(child.id());
    wait_for("the command to have failed", || waits().then_some(()));
    assert!(stranger.is_alive(), "it is no child of the command's");
    drop(stranger);
    let (code, _, err) = told(child.wait_with_output().unwrap());
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("waiting for it") && err.contains("failed 2 times in a row"), "{err}");
}

/// Whether the process has no child any more: it does not run its command.
fn stranger_is_waited_for(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default().trim().is_empty()
}

#[test]
fn ctrl_c_ends_both() {
    let camera = camera("hangs");
    let mut terminal = Terminal::start(&["run", "-c", &camera, "--", "sh", "-c", "echo hangs as $$; exec sleep 600"]);
    let screen = terminal.wait_for("hangs as ");
    assert!(screen.contains("sh started (pid "), "{screen}");
    terminal.type_in("\x03");
    let begun = Instant::now();
    let (code, screen) = terminal.end();
    assert_eq!(code, 130, "{screen}");
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    let pid = screen.split("hangs as ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
    assert!(!lives(pid));
    assert!(!screen.contains("started again"), "{screen}");
}

#[test]
fn ctrl_c_comes_once() {
    // The terminal sends it to both: passed on again, it would come twice.
    let camera = camera("once");
    let script = "trap 'n=$((n+1)); echo signal $n' INT; echo ready; while test \"$n\" != 9; do sleep 0.1; test -z \"$n\" || m=$((m+1)); test \"$m\" != 5 || exit 7; done";
    let mut terminal = Terminal::start(&["run", "-c", &camera, "--", "sh", "-c", script]);
    terminal.wait_for("ready\r\n");
    terminal.type_in("\x03");
    let (code, screen) = terminal.end();
    assert_eq!(code, 7, "a command that ends by itself has its own exit code: {screen}");
    assert!(screen.contains("signal 1") && !screen.contains("signal 2"), "{screen}");
}

#[test]
fn signals_are_passed_on_and_become_stronger() {
    let camera = camera("signals");
    let (child, _) = ready(&camera, &[], "trap 'exit 9' TERM; echo ready $$; while :; do sleep 0.1; done");
    support::signal(child.id() as i32, Signal::SIGTERM);
    assert_eq!(told(child.wait_with_output().unwrap()).0, 9);

    let (child, pid) =
        ready(&camera, &["--grace", "300ms"], "trap '' TERM INT; echo ready $$; while :; do sleep 0.1; done");
    support::signal(child.id() as i32, Signal::SIGINT);
    let begun = Instant::now();
    let (code, _, err) = told(child.wait_with_output().unwrap());
    assert_eq!(code, 128 + 9, "{err}");
    assert!(begun.elapsed() >= Duration::from_millis(600), "SIGINT, SIGTERM, SIGKILL, with a grace between");
    assert!(!lives(pid));

    let (child, _) =
        ready(&camera, &["--grace", "60s"], "trap '' TERM INT; echo ready $$; while :; do sleep 0.1; done");
    support::signal(child.id() as i32, Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(100)); // so that they are two
    support::signal(child.id() as i32, Signal::SIGTERM);
    assert_eq!(told(child.wait_with_output().unwrap()).0, 128 + 9, "told twice, it does not wait");

    let (child, _) = ready(&camera, &[], "trap 'exit 11' USR1; echo ready $$; while :; do sleep 0.1; done");
    support::signal(child.id() as i32, Signal::SIGUSR1);
    let (code, _, err) = told(child.wait_with_output().unwrap());
    assert_eq!(code, 11);
    assert!(err.contains("failed 4 times in a row") || err.contains("started again"), "a failure as any other: {err}");
}

#[test]
fn the_pause_can_be_interrupted() {
    let camera = camera("pause");
    let mut command = camlease(&["--json", "run", "-c", &camera, "--delay", "10m", "--", "false"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.into_iter().any(|line| line.contains("retrying")));
    support::signal(child.id() as i32, Signal::SIGINT);
    let begun = Instant::now();
    assert_eq!(support::end_of(&mut child).code(), Some(130));
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_supervised_capture_lets_go_when_it_is_told_to() {
    let camera = camera("capture");
    let binary = env!("CARGO_BIN_EXE_camlease");
    let script = format!("echo ready $$; exec {binary} capture {camera} -o /dev/null --as raw --force");
    let (child, pid) = ready(&camera, &[], &script);
    let streams = || run(&["who", &camera]).1.contains(&format!("pid {pid}")).then_some(());
    wait_for("the capture to have the camera", streams);
    support::signal(child.id() as i32, Signal::SIGTERM);
    let (code, _, _) = told(child.wait_with_output().unwrap());
    assert_eq!(code, 128 + 15);
    assert_eq!(run(&["wait", &camera, "--timeout", "0"]).0, 0);
}
