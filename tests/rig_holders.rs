//! Holders that have a camera's memory and no descriptor of it, on vivid.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use camlease::{Activity, holders};
use camlease_rig::vivid::{self, VividOptions};
use camlease_rig::{alone, require_guest};

/// The program `tests/c/odd_holder.c`, and the holder's id.
fn odd(node: &str, what: &str) -> (Child, i32) {
    let mut process = Command::new(support::c_program("odd_holder.c", &[]))
        .args([node, what])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid = line.trim().strip_prefix("ready ").unwrap_or_else(|| panic!("{what}: {:?}", process.wait()));
    (process, pid.parse().unwrap())
}

#[test]
fn a_mapping_without_a_descriptor_is_found_by_whatever_node() {
    let _alone = alone();
    require_guest();
    let cameras = vivid::load(VividOptions { first_number: Some(60), ..VividOptions::default() });
    let node = cameras[0].display().to_string();
    assert!(holders(&node).unwrap().list.is_empty());
    for what in ["mapped", "elsewhere-mapped"] {
        let (mut process, pid) = odd(&node, what);
        let found = holders(&node).unwrap();
        let seen: Vec<_> = found.list.iter().map(|holder| (holder.pid, holder.activity)).collect();
        assert_eq!(seen, [(pid, Activity::Streaming)], "{what}: {found}");
        process.kill().unwrap();
        process.wait().unwrap();
        // Its child, if any, dies with it.
        camlease_rig::wait_for("nobody has it", std::time::Duration::from_secs(20), || {
            holders(&node).unwrap().list.is_empty().then_some(())
        });
    }
}
