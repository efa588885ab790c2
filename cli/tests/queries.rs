//! Questions: list, who, wait; how failures are told; help, completions, man pages.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::{Terminal, camera, camlease, folder, foreign_holder, holder, json, json_error, run, told, wait_for};

#[test]
fn list_tells_who_has_a_camera() {
    let camera = camera("list");
    let holder = holder(&camera, "started");
    let (code, out, _) = run(&["list"]);
    assert_eq!(code, 0);
    let at = out.find(&format!("{camera}  streaming")).unwrap_or_else(|| panic!("{out}"));
    let block: Vec<_> = out[at..].lines().take(3).collect();
    assert!(block[2].contains(&format!("held by holder (pid {}", holder.id())), "{block:?}");
    assert!(!out.contains('\x1b'), "no colours into a pipe");

    let (code, value) = json(&["list"]);
    assert_eq!(code, 0);
    let entry = value["cameras"].as_array().unwrap().iter().find(|entry| entry["uri"] == *camera).unwrap();
    assert_eq!((&entry["state"], &entry["driver"]), (&"streaming".into(), &"virtual".into()));
    assert_eq!(entry["holders"][0]["pid"], holder.id());
    for key in ["name", "serial", "bus"] {
        assert!(entry[key].is_string(), "{key}");
    }
    let formats = entry["formats"].as_array().expect("a virtual camera's formats are known, whoever has it");
    let yuyv = formats.iter().find(|format| format["fourcc"] == "YUYV").unwrap();
    assert!(yuyv["width"]["most"].as_u64() > Some(640) && yuyv["fps_most"].as_f64() > Some(1.0), "{yuyv}");
}

#[test]
fn who_names_the_holder() {
    let camera = camera("who");
    let (code, out, _) = run(&["who", &camera]);
    assert_eq!((code, out), (0, format!("{camera}: nobody has it\n")));
    let (_, value) = json(&["who", &camera]);
    assert_eq!(value, serde_json::json!({"camera": camera, "holders": [], "unreadable": value["unreadable"]}));

    let program = holder(&camera, "opened");
    let (code, out, _) = run(&["who", &camera]);
    assert_eq!(code, 0);
    assert!(out.contains(&format!("holder (pid {}, ", program.id())) && out.contains("has it open"), "{out}");
    assert!(out.contains("command: ") && out.contains("/c-programs/holder"), "{out}");
    let (_, value) = json(&["who", &camera]);
    let told = &value["holders"][0];
    assert_eq!((&told["pid"], &told["activity"]), (&program.id().into(), &"open".into()));
    assert_eq!(told["condition"], "alive");
    assert!(told["start_time"].as_u64() > Some(0) && told["command"].as_str().unwrap().contains("holder"));
    let lease = &told["lease"];
    assert!(lease["since_ns"].as_u64() > Some(0) && lease["priority"] == 0 && lease["streaming"] == false, "{lease}");

    support::signal(program.id(), nix::sys::signal::Signal::SIGSTOP);
    let stopped = || run(&["who", &camera]).1.contains(&format!("kill -CONT {}", program.id())).then_some(());
    wait_for("the holder to be told as stopped", stopped);
}

#[test]
fn what_is_not_there_is_told_with_its_own_exit_code() {
    for command in ["who", "wait", "release", "reset", "capture"] {
        let (code, out, err) = run(&[command, "/dev/video987"]);
        assert_eq!(code, 4, "{command}: {err}");
        assert_eq!(out, "", "{command}");
        assert!(err.starts_with("camlease: ") && err.contains("/dev/video987"), "{command}: {err}");
        if command != "release" {
            let (code, error) = json_error(&[command, "987"]);
            assert_eq!((code, &error["kind"]), (4, &"not_found".into()), "{command}: {error}");
        }
    }
    let (code, error) = json_error(&["who", "nonsense"]);
    assert_eq!((code, &error["kind"]), (2, &"invalid_argument".into()));
    let (code, error) = json_error(&["who"]);
    assert_eq!((code, &error["kind"]), (2, &"usage".into()));
    assert_eq!(run(&["no-such-command"]).0, 2);
    assert_eq!(run(&["wait", "virtual:x", "--timeout", "soon"]).0, 2);
}

#[test]
fn a_wait_ends_when_the_camera_is_free() {
    let camera = camera("wait");
    let (code, out, err) = run(&["wait", &camera]);
    assert_eq!((code, out.as_str(), err.as_str()), (0, format!("{camera}: free\n").as_str(), ""));

    let mut program = foreign_holder(&camera, "plain");
    let begun = Instant::now();
    let mut waiting = camlease(&["wait", &camera]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(waiting.stderr.take().unwrap()).lines().map_while(Result::ok);
    let (code, _, err) = run(&["wait", &camera, "--timeout", "300ms"]);
    assert_eq!(code, 6, "{err}");
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert!(err.contains(&format!("foreign (pid {}", program.id())) && err.contains("--timeout"), "{err}");
    let (code, error) = json_error(&["wait", &camera, "--timeout", "0"]);
    assert_eq!((code, &error["kind"]), (3, &"busy".into()));
    let (code, error) = json_error(&["wait", &camera, "--timeout", "0.2"]);
    assert_eq!((code, &error["kind"]), (6, &"timeout".into()));

    // Before its end: who comes later finds the camera free.
    assert!(said.any(|line| line.contains("waiting for")));
    assert!(said.any(|line| line.contains(&format!("pid {}", program.id()))));
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    let (code, out, _) = told(waiting.wait_with_output().unwrap());
    assert_eq!(code, 0, "{:?}", said.collect::<Vec<_>>());
    assert!(out.starts_with(&format!("{camera}: free, after ")), "{out}");
    let (code, value) = json(&["wait", &camera]);
    assert_eq!((code, &value["free"], &value["attempts"]), (0, &true.into(), &1.into()));
}

#[test]
fn ctrl_c_ends_a_wait_at_once() {
    let camera = camera("wait-ctrl-c");
    let _program = foreign_holder(&camera, "plain");
    let mut terminal = Terminal::start(&["wait", &camera]);
    terminal.wait_for("waiting for");
    terminal.wait_for("Ctrl+C ends");
    terminal.type_in("\x03");
    let begun = Instant::now();
    let (code, _) = terminal.end();
    assert_eq!(code, 130);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let camera = camera("colours");
    let program = foreign_holder(&camera, "plain");
    let (code, screen) = Terminal::start(&["who", &camera]).end();
    assert_eq!(code, 0);
    assert!(screen.contains("\x1b[") && screen.contains(&format!("pid {}", program.id())), "{screen:?}");
    let (_, screen) = Terminal::start(&["--json", "who", &camera]).end();
    assert!(!screen.contains('\x1b'), "{screen:?}");
    let script = format!("NO_COLOR=1 '{}' who {camera}", env!("CARGO_BIN_EXE_camlease"));
    let plain = Command::new("script").args(["-qec", &script, "/dev/null"]).output().expect("util-linux has script");
    let (code, screen, _) = told(plain);
    assert_eq!(code, 0);
    assert!(!screen.contains('\x1b') && screen.contains(&camera), "{screen:?}");
}

#[test]
fn a_reader_that_goes_away_makes_no_noise() {
    let script = format!("'{}' --json list | true", env!("CARGO_BIN_EXE_camlease"));
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn completions_and_man_pages_are_made() {
    for (shell, words) in
        [("bash", "complete -F _camlease"), ("zsh", "#compdef camlease"), ("fish", "complete -c camlease")]
    {
        let (code, out, _) = run(&["completions", shell]);
        assert_eq!(code, 0);
        assert!(out.contains(words) && out.contains("release") && out.contains("dry-run"), "{shell}");
    }
    let (_, script, _) = run(&["completions", "bash"]);
    let words = format!(
        "{script}\nCOMP_WORDS=(camlease re) COMP_CWORD=1; _camlease camlease re camlease; echo ${{COMPREPLY[@]}}"
    );
    let (code, out, err) = told(Command::new("bash").args(["-c", &words]).output().unwrap());
    assert_eq!((code, out.trim(), err.as_str()), (0, "release reset", ""));

    let folder = folder("man");
    assert_eq!(run(&["man", folder.to_str().unwrap()]).0, 0);
    let commands = ["list", "who", "wait", "release", "reset", "capture", "run", "doctor", "watch", "completions"];
    for command in commands {
        let page = std::fs::read_to_string(folder.join(format!("camlease-{command}.1"))).unwrap();
        assert!(page.contains(".TH") && page.contains("DESCRIPTION"), "{command}: {page}");
        let (code, help, _) = run(&[command, "--help"]);
        assert!(code == 0 && help.contains("--json"), "{command}: {help}");
    }
    let page = std::fs::read_to_string(folder.join("camlease.1")).unwrap();
    assert!(page.contains("somebody else has the camera") && page.contains("camlease\\-run(1)"), "{page}");
    let (code, help, _) = run(&["--help"]);
    assert!(code == 0 && help.contains("Exit codes:") && help.contains("130"), "{help}");
    let (code, version, _) = run(&["--version"]);
    assert_eq!((code, version), (0, format!("camlease {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn the_doctor_wants_the_camera_itself() {
    for (camera, told) in [("virtual:x", "made by its program"), ("shared:x", "which \"camlease ctl x\" tells")] {
        let (code, out, err) = run(&["doctor", camera]);
        assert_eq!((code, out.as_str()), (2, ""));
        assert!(err.contains(told), "{err}");
    }
}
