//! Getting cameras back: shown first, done on a yes, and never to whom it should not be.

mod support;

use nix::sys::signal::Signal;
use support::{Terminal, camera, end_of, foreign_holder, holder, json, lives, run};

#[test]
fn without_a_yes_nothing_is_done() {
    let camera = camera("dry");
    let mut program = foreign_holder(&camera, "plain");
    for arguments in
        [&["release", &camera][..], &["release", &camera, "--dry-run"], &["release", &camera, "--dry-run", "--auto"]]
    {
        let (code, out, err) = run(arguments);
        assert_eq!(code, 0, "{err}");
        assert!(out.contains(&format!("foreign (pid {}", program.id())) && out.contains("SIGTERM"), "{out}");
        assert_eq!(err.contains("nothing was done"), arguments.len() == 2, "{err}");
        assert!(program.is_alive());
    }
    let (code, value) = json(&["release", &camera]);
    assert_eq!((code, &value["dry_run"]), (0, &true.into()));
    let told = &value["cameras"][0];
    assert_eq!((&told["camera"], &told["free"], &told["error"]), (&camera.as_str().into(), &().into(), &().into()));
    assert_eq!((&told["holders"][0]["pid"], &told["holders"][0]["outcome"]), (&program.id().into(), &"none".into()));
    assert!(!told["holders"][0]["reason"].as_str().unwrap().is_empty(), "{told}");
    assert!(program.is_alive());
    // All cameras: only shown, so other programs of this machine are safe from this test.
    let (_, out, _) = run(&["release", "--all", "--dry-run"]);
    assert!(out.contains(&camera), "{out}");
    assert!(program.is_alive());
}

#[test]
fn all_is_said_where_nobody_is_asked() {
    let (code, _, err) = run(&["release", "--auto"]);
    assert_eq!(code, 2);
    assert!(err.contains("--all"), "{err}");
    assert_eq!(run(&["release", "--all", "virtual:x", "--dry-run"]).0, 2);
}

#[test]
fn a_free_camera_is_left_alone() {
    let camera = camera("free");
    let (code, out, _) = run(&["release", &camera, "--auto"]);
    assert_eq!((code, out), (0, format!("{camera}: nobody has it\n")));
    let (code, value) = json(&["release", &camera, "--auto"]);
    assert_eq!((code, &value["dry_run"], &value["cameras"][0]["free"]), (0, &false.into(), &true.into()));
}

#[test]
fn a_holder_is_terminated_and_the_camera_is_free() {
    let camera = camera("auto");
    let mut program = foreign_holder(&camera, "plain");
    let (code, out, err) = run(&["release", &camera, "--auto"]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(out.contains("terminated") && out.ends_with(&format!("{camera}: free\n")), "{out}");
    assert!(!program.is_alive());
    assert_eq!(run(&["wait", &camera, "--timeout", "0"]).0, 0);
}

#[test]
fn one_that_ignores_sigterm_is_killed_after_the_grace() {
    let camera = camera("stubborn");
    let mut program = foreign_holder(&camera, "stubborn");
    let begun = std::time::Instant::now();
    let (code, value) = json(&["release", &camera, "--auto", "--grace", "300ms"]);
    assert_eq!(code, 0, "{value}");
    assert_eq!(
        (&value["cameras"][0]["free"], &value["cameras"][0]["holders"][0]["outcome"]),
        (&true.into(), &"killed".into())
    );
    assert!(begun.elapsed() >= std::time::Duration::from_millis(300));
    assert!(!program.is_alive());
}

#[test]
fn one_of_ours_hands_it_over_and_lives() {
    let camera = camera("yield");
    let mut program = holder(&camera, "started");
    let (code, value) = json(&["release", &camera, "--auto"]);
    assert_eq!(code, 0, "{value}");
    assert_eq!(value["cameras"][0]["holders"][0]["outcome"], "yielded", "{value}");
    assert!(program.is_alive());
    assert_eq!(run(&["wait", &camera, "--timeout", "0"]).0, 0);
}

#[test]
fn whoever_started_the_command_is_not_ended_by_it() {
    // The shell that a person types into may have the camera through its own job: here the holder is our parent.
    let camera = camera("parent");
    let name = camera.strip_prefix("virtual:").unwrap();
    let script = format!(
        "import socket, subprocess, sys\n\
         s = socket.socket(socket.AF_UNIX); s.bind('\\0camlease/virtual/{name}'); s.listen()\n\
         sys.exit(subprocess.call(['{}', '--json', 'release', '{camera}', '--auto']))",
        env!("CARGO_BIN_EXE_camlease")
    );
    let Ok(output) = std::process::Command::new("python3").args(["-c", &script]).output() else {
        support::skipped("a holder that is the caller: python3 is not installed");
        return;
    };
    let (code, out, err) = support::told(output);
    assert_eq!(code, 7, "{out}{err}");
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(value["cameras"][0]["free"], false);
    assert_eq!(value["cameras"][0]["holders"][0]["outcome"], "refused", "{value}");
}

#[test]
fn a_person_is_asked_and_a_no_changes_nothing() {
    let camera = camera("asked");
    let mut program = foreign_holder(&camera, "plain");
    let mut terminal = Terminal::start(&["release", &camera]);
    let screen = terminal.wait_for("[y/N]");
    assert!(screen.contains(&format!("foreign (pid {}", program.id())), "{screen}");
    terminal.type_in("\r");
    let (code, screen) = terminal.end();
    assert_eq!(code, 3, "{screen}");
    assert!(screen.contains("left as it is") && program.is_alive());

    let mut terminal = Terminal::start(&["release", &camera]);
    terminal.wait_for("[y/N]");
    terminal.type_in("\x03");
    assert_eq!(terminal.end().0, 130);
    assert!(program.is_alive());

    let mut terminal = Terminal::start(&["release", &camera]);
    terminal.wait_for("[y/N]");
    terminal.type_in("y\r");
    let (code, screen) = terminal.end();
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("terminated") && screen.contains("free"), "{screen}");
    end_of(&mut program.child);
    assert!(!lives(program.id()));
}

#[test]
fn a_stopped_holder_is_freed_as_well() {
    let camera = camera("stopped");
    let program = foreign_holder(&camera, "plain");
    support::signal(program.id(), Signal::SIGSTOP);
    let (code, out, err) = run(&["release", &camera, "--auto", "--grace", "1"]);
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(run(&["wait", &camera, "--timeout", "0"]).0, 0);
}

#[test]
fn a_yes_to_one_program_is_none_to_another() {
    let camera = camera("meanwhile");
    let first = foreign_holder(&camera, "plain");
    let mut terminal = Terminal::start(&["release", &camera]);
    terminal.wait_for("[y/N]");
    drop(first);
    let mut second = foreign_holder(&camera, "plain");
    terminal.type_in("y\r");
    let (code, screen) = terminal.end();
    assert_eq!(code, 3, "{screen}");
    assert!(screen.contains(&format!("foreign (pid {}", second.id())) && screen.contains("came meanwhile"), "{screen}");
    assert!(screen.contains("not free") && second.is_alive(), "{screen}");
}

/// A socket that listens under a virtual camera's name, which may be none.
fn listener(name: &str) -> std::os::unix::net::UnixListener {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(format!("camlease/virtual/{name}")).unwrap()).unwrap()
}

#[test]
fn a_name_that_is_no_cameras_hinders_nobody() {
    let pid = std::process::id();
    let _odd = [listener(&format!("strange-{pid}?x")), listener(&format!("strange-{pid}\u{1b}[2J\u{1b}[8m"))];
    let camera = camera("beside-odd");
    let program = foreign_holder(&camera, "plain");
    // Only shown: other programs of this machine are safe from this test.
    let (code, out, err) = run(&["release", "--all", "--dry-run"]);
    assert_ne!(code, 2, "{out}{err}");
    assert!(out.contains(&format!("foreign (pid {}", program.id())), "{out}");
    // Any program may listen under a name that is no camera's: none is told of.
    for (_, out, err) in [run(&["release", "--all", "--dry-run"]), run(&["list"])] {
        assert!(!format!("{out}{err}").contains(&format!("strange-{pid}")), "{out}{err}");
        assert!(!out.contains('\u{1b}') && !err.contains('\u{1b}'), "{out}{err}");
    }
}

#[test]
fn a_full_disk_under_its_words_does_not_stop_it() {
    let (camera, folder) = (camera("wordless"), support::folder("wordless"));
    let mut program = foreign_holder(&camera, "plain");
    // No byte fits into the file that its words go to.
    let script = format!(
        "trap '' XFSZ; ulimit -f 0; exec {} release {camera} --auto >{}",
        env!("CARGO_BIN_EXE_camlease"),
        folder.join("words").display()
    );
    let (code, _, err) = support::told(std::process::Command::new("sh").args(["-c", &script]).output().unwrap());
    assert_eq!((code, err.lines().count()), (1, 1), "{err}");
    assert!(err.contains("standard output: ") && !program.is_alive(), "{err}");

    // A reader that has gone is not worth a word.
    let mut program = foreign_holder(&camera, "plain");
    let script = format!("{} release {camera} --auto | true", env!("CARGO_BIN_EXE_camlease"));
    let (_, _, err) = support::told(std::process::Command::new("sh").args(["-c", &script]).output().unwrap());
    assert_eq!(err, "");
    assert!(!program.is_alive());
}
