//! The live view, and its lines for programs.

mod support;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{Terminal, camera, camlease, foreign_holder};

#[test]
fn changes_come_as_lines() {
    let camera = camera("watch");
    let mut command = camlease(&["watch", "--interval", "100ms"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // Other cameras of the machine change as they like.
    let mut next = || -> Value {
        let own = |line: &String| line.contains(&format!("\"{camera}\""));
        serde_json::from_str(&lines.by_ref().map(Result::unwrap).find(own).unwrap()).unwrap()
    };
    let mut program = foreign_holder(&camera, "plain");
    let found = next();
    assert_eq!((&found["change"], &found["state"]), (&"found".into(), &"open".into()), "{found}");
    assert_eq!(found["holders"][0]["pid"], program.id());
    assert!(found["time_ms"].as_u64() > Some(1_600_000_000_000));
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    // Between its end and the look there may be one at what is left of it.
    let gone = std::iter::repeat_with(next).find(|line| line["change"] == "gone").unwrap();
    assert_eq!(gone["holders"], serde_json::json!([]), "{gone}");
    support::signal(child.id() as i32, Signal::SIGINT);
    let status = support::end_of(&mut child);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(2));
}

#[test]
fn the_view_shows_what_happens_and_leaves_the_terminal_as_it_was() {
    for (keys, wanted) in [("q", 0), ("\x03", 130)] {
        let camera = camera("view");
        let mut terminal = Terminal::start(&["watch", "--interval", "100ms"]);
        let before = terminal.before.clone();
        let screen = terminal.wait_for("q or Ctrl+C ends");
        assert!(screen.contains("\x1b[?1049h") && screen.contains("\x1b[?25l"), "{screen:?}");
        assert!(terminal.settings().contains("-icanon"), "{}", terminal.settings());
        let program = foreign_holder(&camera, "plain");
        terminal.wait_for(&camera);
        terminal.wait_for(&format!("foreign (pid {}", program.id()));
        terminal.type_in(keys);
        let begun = Instant::now();
        let (code, screen) = terminal.end();
        assert_eq!(code, wanted);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert!(screen.ends_with("\x1b[?25h\x1b[?1049l"), "{:?}", &screen[screen.len().saturating_sub(60)..]);
        assert!(before.contains(" icanon") && terminal.settings() == before, "{}", terminal.settings());
    }
}

#[test]
fn json_is_printed_on_a_terminal_too() {
    let camera = camera("view-json");
    let _program = foreign_holder(&camera, "plain");
    let mut terminal = Terminal::start(&["--json", "watch"]);
    let screen = terminal.wait_for(&format!("\"uri\":\"{camera}\""));
    assert!(!screen.contains('\x1b'), "{screen:?}");
    terminal.type_in("\x03");
    assert_eq!(terminal.end().0, 130);
}

#[test]
fn it_ends_with_its_reader_where_nothing_changes() {
    let camera = camera("reader");
    let _program = foreign_holder(&camera, "plain");
    let mut child = camlease(&["--json", "watch", "--interval", "200ms"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("\"change\":\"found\""), "{line}");
    // Other tests' cameras may have been printed meanwhile. With such an interval nothing is, and it ends all the same.
    assert_eq!(support::end_of(&mut child).code(), Some(1));
    let mut child = camlease(&["--json", "watch", "--interval", "1h"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(support::end_of(&mut child).code(), Some(1));
}
