//! As `contention.rs`, on the kernel's vivid driver and on a USB webcam.
//!
//! The full run, 10,000 kills on each: `RIG_TIMEOUT=14400 CAMLEASE_KILLS=10000 cargo test --test rig_contention --
//! --nocapture`.

mod support;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use camlease_rig::vivid::{self, VividOptions};
use camlease_rig::{Webcam, WebcamOptions, alone, v4l2_ctl_streams};
use support::contention::{Bounds, Contention};
use support::number;

/// Kills of all runs together, on vivid. A webcam under emulation takes its time to start and stop: half as many.
const KILLS: u64 = 120;
const PAUSE: Duration = Duration::from_millis(250);
/// All processes share one emulated processor.
const BOUNDS: Bounds = Bounds { median: Duration::from_millis(300), worst: Duration::from_secs(5) };

fn contend(node: &Path, kills: u64) {
    let seed = number("CAMLEASE_SEED", 1);
    let device = std::fs::metadata(node).unwrap().rdev();
    let key = format!("v4l2-{}-{}", libc::major(device), libc::minor(device));
    for processes in [2, 3, 10] {
        let mut contention = Contention::begin(node.to_str().unwrap(), &key, processes, seed + processes as u64);
        contention.kill_at_random(kills / 3 - kills / 30, PAUSE);
        contention.end().hold(BOUNDS);
        v4l2_ctl_streams(node, 2).unwrap_or_else(|error| panic!("{}: {error}", node.display()));
        let mut contention = Contention::begin(node.to_str().unwrap(), &key, processes, seed + processes as u64);
        contention.kill_at_random(kills / 30, PAUSE);
        contention.end_by_killing_all();
    }
    v4l2_ctl_streams(node, 2).unwrap_or_else(|error| panic!("{}: {error}", node.display()));
}

#[test]
fn vivid() {
    let _alone = alone();
    let node = vivid::load(VividOptions { first_number: Some(40), ..VividOptions::default() }).remove(0);
    contend(&node, number("CAMLEASE_KILLS", KILLS));
}

#[test]
fn usb_webcam() {
    let _alone = alone();
    let webcam = Webcam::plug(WebcamOptions::default());
    contend(&webcam.node(), number("CAMLEASE_KILLS", KILLS / 2));
}
