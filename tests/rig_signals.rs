//! Release on signals, with real drivers: when the host's handler runs, a program that does not know of this library can
//! take the camera; and the default action is taken.

mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use camlease_rig::vivid::{self, VividOptions};
use camlease_rig::{Webcam, WebcamOptions, alone, require_guest, v4l2_ctl_streams};

fn program(how: &str, node: &Path) -> Command {
    let mut command = Command::new(support::c_program("signals.c", &["-rdynamic"]));
    command.arg(how).arg(node);
    command
}

fn released_before_the_effect(node: &Path) {
    support::run(&mut program("handler", node));
    support::run(&mut program("blocked", node));
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let mut child = program("wait", node).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        // SAFETY: no pointers; a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        assert_eq!(child.wait().unwrap().signal(), Some(signal));
        v4l2_ctl_streams(node, 2).unwrap();
    }
}

#[test]
fn vivid() {
    require_guest();
    let _alone = alone();
    released_before_the_effect(&vivid::load(VividOptions::default())[0]);
}

#[test]
fn uvcvideo() {
    require_guest();
    let _alone = alone();
    let webcam = Webcam::plug(WebcamOptions::default());
    released_before_the_effect(&webcam.node());
}
