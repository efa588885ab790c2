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
    // A short one is for those that end by nothing weaker.
    let grace: &[&str] = if options.contains(&"--grace") { &[] } else { &["--grace", "10s"] };
    let arguments = [&["--json", "run", "-c", camera, "--delay", "50ms"], grace, options, &["--", "sh", "-c", script]];
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
    let (code, out, events) = shell(&camera, &["--evict", "--grace", "500ms", "--timeout", "20s"], "echo has it");
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
    let script = format!(
        "sleep 600 >/dev/null 2>&1 & echo $!; {} {} leave >/dev/null 2>&1; exit 3",
        foreign().display(),
        name(&camera)
    );
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

    // A command that succeeds may go on in the background: that is told.
    let script = format!("{} {} leave >/dev/null 2>&1; exit 0", foreign().display(), name(&camera));
    let (code, _, events) = shell(&camera, &[], &script);
    assert_eq!((code, names(&events)), (0, ["started", "ended", "left"].to_vec()));
    let pid = events[2]["holder"]["pid"].as_i64().unwrap() as i32;
    assert!(lives(pid));
    support::signal(pid, Signal::SIGKILL);
    assert_eq!(run(&["wait", &camera, "--timeout", "10s"]).0, 0);

    let script = format!(
        "{} {} stubborn >/dev/null 2>&1 & \
         while ! {} who {camera} 2>/dev/null | grep -q \"pid $!\"; do sleep 0.1; done; exit 3",
        foreign().display(),
        name(&camera),
        env!("CARGO_BIN_EXE_camlease")
    );
    let (code, _, events) = shell(&camera, &["--retries", "0", "--grace", "500ms"], &script);
    assert_eq!((code, &events[2]["outcome"]), (3, &"killed".into()), "{events:?}");
    assert_eq!(run(&["wait", &camera, "--timeout", "0"]).0, 0);
}

#[test]
fn another_program_that_takes_the_camera_meanwhile_is_waited_for() {
    let (camera, folder) = (camera("stranger"), folder("stranger"));
    let go = folder.join("go");
    let script = format!("echo ready $$; while ! test -e {}; do sleep 0.05; done; exit 3", go.display());
    let (mut child, _) = ready(&camera, &["--retries", "1"], &script);
    let mut stranger = foreign_holder(&camera, "plain");
    fs::write(&go, "").unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(told.any(|line| line.contains("waiting for it") && line.contains(&stranger.id().to_string())));
    assert!(stranger.is_alive(), "it is no child of the command's");
    drop(stranger);
    assert!(told.any(|line| line.contains("failed 2 times in a row")));
    assert_eq!(support::end_of(&mut child).code(), Some(3));
}

#[test]
fn ctrl_c_ends_both() {
    let camera = camera("hangs");
    let script = "echo hangs as $$; exec sleep 600";
    let mut terminal = Terminal::start(&["run", "-c", &camera, "--grace", "60s", "--", "sh", "-c", script]);
    terminal.wait_for("hangs as ");
    terminal.wait_for("sh started (pid ");
    terminal.type_in("\x03");
    let begun = Instant::now();
    let (code, screen) = terminal.end();
    assert_eq!(code, 130, "{screen}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
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
    let begun = Instant::now();
    support::signal(child.id() as i32, Signal::SIGINT);
    let (code, _, err) = told(child.wait_with_output().unwrap());
    assert_eq!(code, 128 + 9, "{err}");
    assert!(begun.elapsed() >= Duration::from_millis(600), "SIGINT, SIGTERM, SIGKILL, with a grace between");
    assert!(!lives(pid));

    let (child, _) =
        ready(&camera, &["--grace", "60s"], "trap '' TERM INT; echo ready $$; while :; do sleep 0.1; done");
    support::signal(child.id() as i32, Signal::SIGINT);
    std::thread::sleep(Duration::from_millis(100)); // so that they are two
    support::signal(child.id() as i32, Signal::SIGINT);
    assert_eq!(told(child.wait_with_output().unwrap()).0, 128 + 9, "told twice, it does not wait");

    // A service that is stopped, or a terminal that closes: no impatience, and the command has its time.
    let script = "trap '' HUP; trap 'sleep 0.5; exit 9' TERM; echo ready $$; while :; do sleep 0.1; done";
    let (child, _) = ready(&camera, &["--grace", "60s"], script);
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGHUP, Signal::SIGTERM] {
        support::signal(child.id() as i32, signal);
        std::thread::sleep(Duration::from_millis(50)); // so that none is taken for another
    }
    assert_eq!(told(child.wait_with_output().unwrap()).0, 9, "it could clean up");

    let script = "trap 'exit 11' USR1; echo ready $$; while :; do sleep 0.1; done";
    let (child, _) = ready(&camera, &["--retries", "0"], script);
    support::signal(child.id() as i32, Signal::SIGUSR1);
    let (code, _, err) = told(child.wait_with_output().unwrap());
    assert_eq!(code, 11);
    assert!(err.contains("given up"), "a failure as any other: {err}");
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
    assert!(begun.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_supervised_capture_lets_go_when_it_is_told_to() {
    let camera = camera("capture");
    let binary = env!("CARGO_BIN_EXE_camlease");
    let script = format!("echo ready $$; exec {binary} capture {camera} -o - --as raw >/dev/null");
    let (child, pid) = ready(&camera, &[], &script);
    let streams = || run(&["who", &camera]).1.contains(&format!("pid {pid}")).then_some(());
    wait_for("the capture to have the camera", streams);
    support::signal(child.id() as i32, Signal::SIGTERM);
    let (code, _, _) = told(child.wait_with_output().unwrap());
    assert_eq!(code, 128 + 15);
    assert_eq!(run(&["wait", &camera, "--timeout", "0"]).0, 0);
}

#[test]
fn a_terminal_that_closes_ends_the_command_as_well() {
    let (camera, folder) = (camera("hangup"), folder("hangup"));
    let mark = folder.join("mark");
    let script = format!("trap 'echo came >{}; exit 1' HUP; echo begins; while :; do sleep 0.1; done", mark.display());
    let mut terminal = Terminal::start(&["run", "-c", &camera, "--", "sh", "-c", &script]);
    terminal.wait_for("begins");
    // The kernel tells the session's first process alone, which is `run`.
    terminal.hang_up();
    wait_for("SIGHUP at the command", || mark.exists().then_some(()));
    support::end_of(&mut terminal.child);
}

#[test]
fn two_cameras_are_taken_in_one_order_and_one_but_once() {
    let (one, other) = (camera("order-a"), camera("order-b"));
    let node = format!("{one}?width=64");
    let (code, out, err) = run(&["run", "-c", &one, "-c", &node, "-c", &one, "--timeout", "5s", "--", "echo", "once"]);
    assert_eq!((code, out.as_str()), (0, "once\n"), "{err}");
    // Each waits for the camera that is held here, and has none meanwhile: the order is theirs, not the person's.
    let program = foreign_holder(&one, "plain");
    let start = |first: &str, second: &str| {
        let mut command = camlease(&["--json", "run", "-c", first, "-c", second, "--", "true"]);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut err = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        err.read_line(&mut line).unwrap();
        let waiting: Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&waiting["event"], &waiting["camera"]), (&"waiting".into(), &one.as_str().into()), "{line}");
        (child, err)
    };
    let both = [start(&one, &other), start(&other, &one)];
    assert_eq!(run(&["wait", &other, "--timeout", "0"]).0, 0, "nobody has the second before the first");
    drop(program);
    for (mut child, _err) in both {
        assert!(support::end_of(&mut child).success());
    }
}

#[test]
fn an_end_by_a_real_time_signal_is_an_end() {
    let camera = camera("real-time");
    let (code, _, events) = shell(&camera, &["--retries", "0"], "kill -40 $$");
    assert_eq!((code, &events[1]["signal"]), (128 + 40, &40.into()), "{events:?}");
}

#[test]
fn an_ignored_sigchld_is_not_inherited() {
    let camera = camera("ignored");
    // Neither a shell nor a library between: a program that ignores it and starts ours.
    let script = format!(
        "import os, signal\n\
         signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n\
         os.execv('{0}', ['camlease', 'run', '-c', '{camera}', '--retries', '0', '--', 'sh', '-c', 'exit 42'])",
        env!("CARGO_BIN_EXE_camlease")
    );
    let mut command = std::process::Command::new("python3");
    let Ok(mut child) = command.args(["-c", &script]).stderr(Stdio::null()).spawn() else {
        support::skipped("an ignored SIGCHLD: python3 is not installed");
        return;
    };
    let status = support::end_of(&mut child);
    assert_eq!(status.code(), Some(42));
}

#[test]
fn arguments_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;
    let camera = camera("bytes");
    let mut command = camlease(&["run", "-c", &camera, "--", "printf", "%s"]);
    let output = command.arg(std::ffi::OsStr::from_bytes(b"m\xfcll")).output().unwrap();
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"m\xfcll"[..]));
}
