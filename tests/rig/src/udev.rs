//! systemd-udevd in the guest, for a test that wants what it adds to the kernel's bare nodes: links by id and by path,
//! the group `video`, modules loaded by the device's arrival.

use std::process::Command;
use std::sync::Once;

use crate::{require_guest, run};

/// What is shown to udevd of the devices that were there before it; all of them would take seconds under emulation.
const SUBSYSTEMS: [&str; 4] = ["usb", "video4linux", "media", "input"];

/// Starts udevd, once for the guest, and waits until it has seen the cameras that exist already.
#[track_caller]
pub fn start() {
    static STARTED: Once = Once::new();
    require_guest();
    STARTED.call_once(|| {
        run(Command::new("/lib/systemd/systemd-udevd").arg("--daemon"));
        let matches = SUBSYSTEMS.map(|subsystem| format!("--subsystem-match={subsystem}"));
        run(Command::new("udevadm").args(["trigger", "--action=add"]).args(matches));
    });
    settle();
}

/// Waits until udevd has dealt with every event so far.
#[track_caller]
pub fn settle() {
    run(Command::new("udevadm").args(["settle", "--timeout=30"]));
}
