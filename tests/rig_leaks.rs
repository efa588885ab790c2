//! As `leaks.rs`, on the kernel's vivid driver, with frames in one plane and in several, and on a USB webcam.
//!
//! The full run, 10,000 cycles of each vivid: `RIG_TIMEOUT=7200 CAMLEASE_CYCLES=10000 cargo test --test rig_leaks -- --nocapture`

mod support;

use camlease_rig::vivid::{self, VividOptions};
use camlease_rig::{Webcam, WebcamOptions, alone};
use support::{cycles_leave_nothing, number};

fn cycles() -> u64 {
    number("CAMLEASE_CYCLES", 300)
}

fn vivid_cycles(multiplanar: bool) {
    let _alone = alone();
    let nodes = vivid::load(VividOptions { multiplanar, ..VividOptions::default() });
    cycles_leave_nothing(nodes[0].to_str().unwrap(), cycles());
}

#[test]
fn vivid_with_one_plane() {
    vivid_cycles(false);
}

#[test]
fn vivid_with_several_planes() {
    vivid_cycles(true);
}

/// A tenth as many: a webcam under emulation takes its time to start.
#[test]
fn usb_webcam() {
    let _alone = alone();
    let webcam = Webcam::plug(WebcamOptions::default());
    cycles_leave_nothing(webcam.node().to_str().unwrap(), cycles() / 10);
}
