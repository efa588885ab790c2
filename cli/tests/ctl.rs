//! Commands to cameras that are served.

#[path = "support/serving.rs"]
mod serving;
mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use camlease::{Camera, OpenOptions, StreamRequest};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use serving::{QUICK, Serving, unique};
use support::{PATIENCE, camera, camlease, end_of, json, json_error, run, signal, stands, wait_for};

/// Two cameras that are served, and their names.
fn two(test: &str, more: &str) -> (Serving, [String; 2]) {
    let names = [unique(&format!("{test}-a")), unique(&format!("{test}-b"))];
    let table = |name: &String| format!("[camera.{name}]\nuri = \"{}\"\n{more}\n", camera(test));
    let mut serving = Serving::start_for_all(test, &(table(&names[0]) + &table(&names[1]) + QUICK));
    names.iter().for_each(|name| serving.wait_until_served(name));
    serving.line("is served");
    (serving, names)
}

/// What a person sees, of a command that works.
#[track_caller]
fn words(arguments: &[&str]) -> String {
    let (code, out, err) = run(&[&["ctl"], arguments].concat());
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}: {out}");
    out
}

#[track_caller]
fn reply(arguments: &[&str]) -> Value {
    let (code, reply) = json(&[&["ctl"], arguments].concat());
    assert_eq!((code, &reply["ok"], &reply["camlease"]), (0, &true.into(), &1.into()), "{reply}");
    reply
}

#[test]
fn what_is_shared_is_listed_and_told() {
    let (mut serving, [one, other]) = two("ctl-list", "");
    let (code, listed) = json(&["ctl"]);
    assert_eq!(code, 0);
    let share = |name: &str| listed["shares"].as_array().unwrap().iter().find(|share| share["name"] == name).cloned();
    let of_one = share(&one).unwrap();
    assert!(share(&other).is_some() && of_one["pid"].is_u64() && of_one["streaming"] == false, "{listed}");
    assert!(words(&[]).lines().any(|line| line.starts_with(&format!("{one}  idle  by pid {}", of_one["pid"]))));

    let status = reply(&[&one, "status"]);
    assert_eq!((&status["name"], &status["pid"]), (&one.as_str().into(), &of_one["pid"]));
    assert!(words(&[&one]).contains("nobody reads it"));
    let named = OpenOptions { name: "ctl-reader".into(), ..OpenOptions::default() };
    let reader = Camera::open(&format!("shared:{one}"), named).unwrap();
    reader.start(&StreamRequest::default()).unwrap();
    reader.next_frame(Some(PATIENCE)).unwrap();
    let shown = words(&[&format!("shared:{one}")]);
    assert!(shown.starts_with(&format!("{one}  streams 640x480 YUYV at 30 fps\n")), "{shown}");
    let frames = shown.lines().find(|line| line.contains(" frames, ")).unwrap();
    assert!(frames.contains(" lent and ") && frames.ends_with(" without room for them"), "{shown}");
    assert!(["lent:", "copied:"].iter().all(|key| !shown.contains(key)), "it is told in words: {shown}");
    let own = std::process::id();
    assert!(shown.contains(&format!("read by ctl-reader (pid {own}, user ")), "{shown}");
    let status = reply(&[&one]);
    assert_eq!((&status["readers"][0]["pid"], &status["streaming"]), (&own.into(), &true.into()), "{status}");
    drop(reader);
    serving.stop();
    let (_, listed) = json(&["ctl"]);
    assert!(listed["shares"].as_array().unwrap().iter().all(|share| share["name"] != one.as_str()), "{listed}");
}

#[test]
fn what_is_streamed_is_set_started_and_stopped() {
    let (mut serving, [one, _]) = two("ctl-stream", "");
    assert_eq!(words(&[&one, "format", "320x240@15", "GREY"]), format!("{one}: streams 320x240 GREY at 15 fps\n"));
    let format = &reply(&[&one, "start"])["format"];
    assert_eq!((&format["width"], &format["fps"]), (&320.into(), &json!([15, 1])), "{format}");
    assert_eq!(reply(&[&one, "format", "@60"])["format"]["fps"], json!([60, 1]));
    assert_eq!(reply(&[&one, "format", "UYVY"])["format"]["fourcc"], "UYVY");
    assert!(words(&[&one, "formats"]).contains("NV12  8..16384/2x8..16384/2  1 fps to 1000 fps  Y/UV 4:2:0\n"));
    assert_eq!(reply(&[&one, "formats"])["formats"].as_array().unwrap().len(), 6);
    assert!(words(&[&one, "stop"]).contains("stopped"));
    let status = reply(&[&one]);
    let seen = (&status["stopped"], &status["streaming"], &status["trouble"]);
    assert_eq!(seen, (&true.into(), &false.into(), &Value::Null));
    assert!(words(&[&one]).starts_with(&format!("{one}  stopped by command\n")));
    words(&[&one, "start"]);
    assert_eq!(reply(&[&one])["stopped"], false);

    let (code, refusal) = json_error(&["ctl", &one, "format", "MJPG"]);
    assert_eq!((code, &refusal["kind"]), (1, &"unsupported".into()), "{refusal}");
    for wrong in [&["format", "3x"][..], &["format", "640x480", "MJPEG"], &["format"], &["fly"], &["record", "maybe"]] {
        let (code, _, err) = run(&[&["ctl", &one], wrong].concat());
        assert_eq!(code, 2, "{wrong:?}: {err}");
    }
    serving.stop();
}

#[test]
fn controls_are_shown_and_set() {
    let (mut serving, [one, _]) = two("ctl-control", "controls = { brightness = 50 }");
    assert_eq!(words(&[&one, "controls"]), "Brightness = 50  0x00980900, 0 to 255, default 128\n");
    assert_eq!(reply(&[&one, "controls"])["controls"][0]["value"], 50);
    let set = reply(&[&one, "control", "brightness", "0x40"]);
    assert_eq!((&set["value"], &set["name"], &set["control"]), (&64.into(), &"Brightness".into(), &0x98_0900.into()));
    assert_eq!(reply(&[&one, "control", "0x00980900"])["value"], 64);
    assert_eq!(reply(&[&one, "control", "9963776"])["value"], 64);
    for (wrong, hint) in [
        (&["Brigthness"][..], "did you mean \"Brightness\"?"),
        (&["Brightness", "lots"], "it takes 0 to 255"),
        (&["Brightness", "-1"], "not within 0 to 255"),
    ] {
        let (code, refusal) = json_error(&[&["ctl", &one, "control"], wrong].concat());
        assert_eq!((code, &refusal["kind"]), (2, &"invalid_argument".into()), "{wrong:?}");
        assert!(refusal["message"].as_str().unwrap().contains(hint), "{refusal}");
    }
    serving.stop();
}

#[test]
fn a_name_that_nobody_shares_is_told_with_the_nearest() {
    let (mut serving, [one, _]) = two("ctl-near", "");
    let mistaken = one.replacen("near", "naer", 1);
    for verb in ["status", "start", "take-control", "control", "quit"] {
        let (code, refusal) =
            json_error(&[&["ctl", &mistaken, verb][..], &["x"][..usize::from(verb == "control")]].concat());
        assert_eq!((code, &refusal["kind"]), (4, &"not_found".into()), "{refusal}");
        let message = refusal["message"].as_str().unwrap();
        assert!(message.contains("nobody serves a camera by this name"), "{message}");
        assert!(message.contains(&format!("did you mean \"{one}\"?")), "{message}");
    }
    let (code, _, err) = run(&["ctl", "status"]);
    assert_eq!((code, err.contains("camlease ctl NAME VERB")), (2, true), "{err}");
    serving.stop();
}

#[test]
fn a_camera_that_was_told_to_quit_comes_back_when_the_file_is_read_again() {
    let (mut serving, [one, other]) = two("ctl-quit", "");
    assert_eq!(words(&[&one, "quit"]), format!("{one}: its process ends\n"));
    serving.line("was told to quit");
    assert_eq!(json_error(&["ctl", &one]).0, 4);
    serving.signal(Signal::SIGHUP);
    serving.served(&one);
    assert_eq!(reply(&[&one])["name"], one.as_str());
    [&one, &other].iter().for_each(|name| drop(words(&[name, "quit"])));
    assert_eq!(end_of(&mut serving.child).code(), Some(0), "nothing is left to be served");
    serving.line("all cameras were told to quit: ended");
}

/// A controller, which says when it is one.
fn controller(name: &str, priority: &str) -> Child {
    let mut command = camlease(&["ctl", name, "take-control", "--priority", priority]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, format!("{name}: has the control, until this ends\n"));
    child
}

#[test]
fn one_controls_and_the_others_read() {
    let (mut serving, [one, _]) = two("ctl-control-taken", "");
    let mut first = controller(&one, "1");
    let (code, refusal) = json_error(&["ctl", &one, "start"]);
    assert_eq!((code, &refusal["kind"]), (3, &"busy".into()), "{refusal}");
    assert!(refusal["message"].as_str().unwrap().contains(&format!("(pid {})", first.id())), "{refusal}");
    assert_eq!(json_error(&["ctl", &one, "take-control", "--priority", "1"]).0, 3, "the same is not more");
    assert_eq!(reply(&[&one])["controller"]["pid"], first.id());
    assert!(words(&[&one]).contains(&format!("controlled by camlease ctl (pid {}) with priority 1", first.id())));

    let mut second = controller(&one, "2");
    assert_eq!(end_of(&mut first).code(), Some(3));
    let mut err = String::new();
    first.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(err.contains(&format!("was taken away; camlease ctl (pid {})", second.id())), "{err}");
    signal(second.id() as i32, Signal::SIGINT);
    assert_eq!(end_of(&mut second).code(), Some(130));
    words(&[&one, "start"]);

    // Whose process ends without a word has it no longer either.
    let mut third = controller(&one, "0");
    third.kill().unwrap();
    third.wait().unwrap();
    wait_for("the control to be free", || reply(&[&one])["controller"].is_null().then_some(()));
    serving.stop();
}

#[test]
fn a_process_that_does_not_answer_is_not_waited_for_without_end() {
    let (mut serving, [one, _]) = two("ctl-silent", "");
    let pid = reply(&[&one])["pid"].as_i64().unwrap() as i32;
    signal(pid, Signal::SIGSTOP);
    wait_for("all of its threads to stand", || stands(pid).then_some(()));
    let (code, refusal) = json_error(&["ctl", &one, "status", "--timeout", "200ms"]);
    signal(pid, Signal::SIGCONT);
    assert_eq!((code, &refusal["kind"]), (6, &"timeout".into()), "{refusal}");
    wait_for("its answers", || (run(&["ctl", &one, "status"]).0 == 0).then_some(()));
    serving.stop();
}

#[test]
fn who_may_not_command_is_told_so() {
    if !nix::unistd::geteuid().is_root() {
        support::skipped("who_may_not_command_is_told_so: only root can be another user");
        return;
    }
    let (mut serving, [one, other]) = two("ctl-others", "readers = \"everyone\"\ncommanders = \"owner\"");
    // The command where everybody can start it, and a user that is nobody.
    let folder = std::env::temp_dir().join(format!("camlease-ctl-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::os::unix::fs::chown(&folder, Some(65534), Some(65534)).unwrap();
    let command = folder.join("camlease");
    // By another process: what this one has open for writing, a child of another test has for a moment, too, and then
    // nobody can start it.
    let copied = std::process::Command::new("cp").args(["-p", env!("CARGO_BIN_EXE_camlease")]).arg(&command).status();
    assert!(copied.unwrap().success());
    let nobody = |arguments: &[&str]| {
        let mut run = std::process::Command::new(&command);
        std::os::unix::process::CommandExt::uid(std::os::unix::process::CommandExt::gid(&mut run, 65534), 65534);
        support::told(run.arg("ctl").args(arguments).current_dir("/").output().unwrap())
    };
    let (code, out, err) = nobody(&[&one, "status"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("nobody reads it"), "{out}");
    let (code, _, err) = nobody(&[&other, "start"]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("user 65534 may read it and not command it"), "{err}");
    std::fs::remove_dir_all(&folder).unwrap();
    serving.stop();
}

#[test]
fn previews_recordings_and_snapshots_are_ordered() {
    let films = support::folder("ctl-films");
    let name = unique("ctl-films");
    let table = format!("[camera.{name}]\nuri = \"{}?width=64&height=48\"\n", camera("ctl-films"));
    let recording = format!("[camera.{name}.recording]\nfolder = \"{}\"\n", films.display());
    let mut serving = Serving::start_for_all("ctl-films", &(table + &recording + QUICK));
    serving.wait_until_served(&name);
    assert!(words(&[&name, "preview", "on"]).starts_with(&format!("{name}: offers shared:{name}.preview, ")));
    assert!(words(&[&name]).contains(&format!("offers shared:{name}.preview, ")));
    assert_eq!(words(&[&name, "preview", "off"]), format!("{name}: offers no preview\n"));
    let film = films.join("film.mkv");
    assert!(words(&[&name, "record", "on", "film.mkv"]).contains(&format!(" to {}", film.display())));
    wait_for("frames in the film", || (reply(&[&name])["recording"]["frames"].as_u64()? > 3).then_some(()));
    assert!(words(&[&name]).contains(&format!("records to {}", film.display())));
    let ended = words(&[&name, "record", "off"]);
    assert!(ended.starts_with(&format!("{name}: recorded to {}: ", film.display())), "{ended}");
    let picture = films.join("still.jpg");
    let taken = words(&[&name, "snapshot", "still.jpg"]);
    assert_eq!(taken, format!("{name}: wrote {}, 64x48\n", picture.display()));
    assert!(std::fs::metadata(&film).unwrap().len() > 0 && std::fs::metadata(&picture).unwrap().len() > 0);
    let (code, _, err) = run(&["ctl", &name, "snapshot", "../still.jpg"]);
    assert_ne!(code, 0, "{err}");
    serving.stop();
}
