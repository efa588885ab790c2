//! `camlease doctor`: what on this machine keeps cameras from working, each finding with its remedy.
//!
//! The machine is read once; each check is a function from what was read to findings, in a file of its own.

mod bandwidth;
mod devices;
mod finding;
mod holders;
mod inherited;
mod lease;
mod limits;
mod machine;
mod permissions;
mod stuck;
mod usb;
mod vendors;

use std::path::Path;

use serde::Serialize;

use crate::naming;
use crate::output::{Exit, Output, Paint};
use finding::{Finding, Severity};
use machine::Machine;

/// For the help.
pub const JSON: &str = r#"Looks at nodes and links, rights, holders, inherited descriptors, stuck processes, USB drivers, links and bandwidth, vendors' libraries, leases and limits. No stream is started and nothing is changed. As root it sees the holders of all users.

Exit codes: 0 when no trouble was found, notes included; 8 with a problem or a warning.

JSON: {"healthy", "findings": [{"id", "severity": "problem"|"warning"|"note", "camera" or null, "what", "remedy", "facts": {...}}], "cameras": [...], "checks": [...], "not_looked_at": [...]}"#;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Cameras to look at; all when none is named
    #[arg(value_name = "CAMERA", value_parser = naming::camera)]
    pub cameras: Vec<String>,
}

/// A check by its name, which the answer tells.
type Check = (&'static str, fn(&Machine) -> Vec<Finding>);

const CHECKS: [Check; 10] = [
    ("nodes", devices::check),
    ("permissions", permissions::check),
    ("holders", |machine| holders::check(machine, holders::leases)),
    ("inherited descriptors", inherited::check),
    ("stuck processes", stuck::check),
    ("usb", usb::check),
    ("usb bandwidth", bandwidth::check),
    ("vendor libraries", vendors::check),
    ("leases", lease::check),
    ("limits", limits::check),
];

#[derive(Serialize)]
struct Diagnosis {
    /// Neither a problem nor a warning.
    healthy: bool,
    findings: Vec<Finding>,
    /// What was looked at.
    cameras: Vec<String>,
    checks: Vec<&'static str>,
    not_looked_at: Vec<String>,
}

pub fn run(args: &Args, output: &Output) -> Exit {
    if let Some(camera) =
        args.cameras.iter().find(|camera| camera.starts_with("virtual:") || camera.starts_with("file:"))
    {
        let message =
            format!("{camera}: the doctor looks at the machine's own cameras; this one is made by its program");
        return output.fail_with(Exit::USAGE, "invalid_argument", message);
    }
    if let Some(camera) = args.cameras.iter().find(|camera| camera.starts_with("shared:")) {
        let message = format!(
            "{camera}: the doctor looks at the machine's own cameras; name the one behind it, which \"camlease ctl {}\" tells",
            camera.trim_start_matches("shared:")
        );
        return output.fail_with(Exit::USAGE, "invalid_argument", message);
    }
    let diagnosis = examine(&Machine::read(), &args.cameras);
    show(&diagnosis, output);
    output.json(&diagnosis);
    if diagnosis.healthy { Exit::OK } else { Exit::TROUBLE }
}

fn examine(machine: &Machine, wanted: &[String]) -> Diagnosis {
    let all: Vec<Finding> = CHECKS.iter().flat_map(|(_, check)| check(machine)).collect();
    let choices: Vec<Choice> = wanted.iter().map(|camera| Choice::new(machine, camera)).collect();
    let mut findings: Vec<Finding> =
        all.iter().filter(|finding| choices.is_empty() || concerns(finding, &choices)).cloned().collect();
    for choice in choices.iter().filter(|choice| choice.names.is_empty()) {
        // A name that a finding is about is explained by it: a link that leads nowhere, a node without a camera.
        if !all.iter().any(|finding| finding.camera.as_deref() == Some(&choice.written)) {
            findings.push(devices::unknown(&choice.written, "there is no such camera"));
        }
    }
    findings.sort_by(|one, other| (one.severity, &one.camera).cmp(&(other.severity, &other.camera)));
    let cameras = match choices.is_empty() {
        true => cameras(machine),
        false => choices.into_iter().flat_map(|choice| choice.names).collect(),
    };
    Diagnosis {
        healthy: findings.iter().all(|finding| finding.severity == Severity::Note),
        findings,
        cameras,
        checks: CHECKS.iter().map(|(name, _)| *name).collect(),
        not_looked_at: not_looked_at(machine),
    }
}

/// A camera that the person named, and the nodes or devices that are meant.
struct Choice {
    written: String,
    names: Vec<String>,
}

impl Choice {
    fn new(machine: &Machine, written: &str) -> Choice {
        let names = match written.strip_prefix("usb:") {
            Some(device) => usb_cameras(machine, device),
            None => {
                let path = written.strip_prefix("v4l2:").unwrap_or(written);
                let real = machine.tree.real(path);
                let meant =
                    |node: &&machine::nodes::Node| node.path == Path::new(path) || Some(&node.path) == real.as_ref();
                machine.nodes.iter().filter(meant).map(|node| node.path_text()).collect()
            }
        };
        Choice { written: written.to_owned(), names }
    }
}

/// The cameras that `VID:PID[:SERIAL]` means.
fn usb_cameras(machine: &Machine, device: &str) -> Vec<String> {
    let mut fields = device.splitn(3, ':');
    let mut id = || u16::from_str_radix(fields.next()?, 16).ok();
    let (vendor, product) = (id(), id());
    let serial = fields.next();
    machine
        .usb
        .iter()
        .filter(|device| Some(device.vendor) == vendor && Some(device.product) == product)
        .filter(|device| serial.is_none() || device.serial.as_deref() == serial)
        .map(|device| machine.name_of_usb(device))
        .collect()
}

/// What concerns no camera in particular concerns each.
fn concerns(finding: &Finding, choices: &[Choice]) -> bool {
    let Some(camera) = &finding.camera else { return true };
    let together = finding.facts.get("cameras").and_then(|cameras| cameras.as_array());
    let is_about = |name: &String| name == camera || together.is_some_and(|all| all.iter().any(|one| one == name));
    choices.iter().any(|choice| is_about(&choice.written) || choice.names.iter().any(is_about))
}

/// Nodes with pictures, and USB cameras that have none.
fn cameras(machine: &Machine) -> Vec<String> {
    let mut cameras: Vec<String> = machine.cameras().map(|node| node.path_text()).collect();
    let without_node = machine
        .usb
        .iter()
        .filter(|device| device.is_camera() && machine.nodes_of_usb(device).next().is_none())
        .map(|device| machine.name_of_usb(device));
    cameras.extend(without_node);
    cameras
}

fn not_looked_at(machine: &Machine) -> Vec<String> {
    let mut list = Vec::new();
    match machine.processes.unreadable {
        0 => {}
        1 => list.push("the open files of a process of another user (root sees them)".to_owned()),
        count => list.push(format!("the open files of {count} processes of other users (root sees them)")),
    }
    if machine.sees_some_processes_only {
        list.push(
            "processes that /proc does not show here: those outside of this container, or of other users".to_owned(),
        );
    }
    list
}

fn show(diagnosis: &Diagnosis, output: &Output) {
    for finding in &diagnosis.findings {
        let (paint, word) = match finding.severity {
            Severity::Problem => (Paint::Bad, "PROBLEM"),
            Severity::Warning => (Paint::Warn, "WARNING"),
            Severity::Note => (Paint::Faint, "note"),
        };
        let id = output.paint(Paint::Faint, format_args!("[{}]", finding.id));
        let what = machine::printable_whole(&finding.what);
        output.line(format_args!("{}: {what} {id}", output.paint(paint, word)));
        output.line(format_args!("    remedy: {}\n", machine::printable_whole(&finding.remedy)));
    }
    let count = |severity| diagnosis.findings.iter().filter(|finding| finding.severity == severity).count();
    let told = [
        counted(count(Severity::Problem), "problem"),
        counted(count(Severity::Warning), "warning"),
        counted(count(Severity::Note), "note"),
    ];
    let told: Vec<String> = told.into_iter().flatten().collect();
    let looked = counted(diagnosis.cameras.len(), "camera").unwrap_or_else(|| "0 cameras".into());
    let result = match (diagnosis.healthy, told.is_empty()) {
        (true, true) => output.paint(Paint::Good, "no trouble found"),
        (true, false) => format!("{}, {}", output.paint(Paint::Good, "no trouble found"), told.join(", ")),
        (false, _) => output.paint(Paint::Strong, told.join(", ")),
    };
    output.line(format_args!("{result}: {looked} looked at; checks run: {}", diagnosis.checks.join(", ")));
    for what in &diagnosis.not_looked_at {
        output.line(output.paint(Paint::Faint, format_args!("not looked at: {what}")));
    }
}

/// "2 problems"; nothing for none.
fn counted(count: usize, what: &str) -> Option<String> {
    (count > 0).then(|| format!("{count} {what}{}", if count == 1 { "" } else { "s" }))
}

#[cfg(test)]
mod tests {
    use super::machine::tree::capture::{Capture, capture};
    use super::machine::usb::capture::plug;
    use super::*;

    /// Two webcams, the second without a driver; video0 has lost its node.
    fn machine() -> (Capture, Machine) {
        let machine = capture(&[
            ("/sys/devices/c/video4linux/video0/dev", "81:0"),
            ("/sys/class/video4linux/video0", "-> ../../devices/c/video4linux/video0"),
            ("/dev/v4l/by-id/usb-Old-video-index0", "-> ../../video8"),
        ]);
        plug(&machine, 1, 1, Some("uvcvideo"));
        plug(&machine, 2, 2, None);
        let read = Machine::read_from(machine.tree.clone(), 0, vec![0]);
        (machine, read)
    }

    fn ids(wanted: &[&str]) -> Vec<&'static str> {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        let (_files, machine) = machine();
        examine(&machine, &wanted).findings.into_iter().map(|finding| finding.id).collect()
    }

    #[test]
    fn problems_come_first_and_every_finding_has_a_remedy() {
        let (_files, machine) = machine();
        let diagnosis = examine(&machine, &[]);
        assert!(!diagnosis.healthy);
        assert_eq!(ids(&[]), ["node-missing", "no-driver", "dangling-link"]);
        assert!(diagnosis.findings.iter().all(|finding| !finding.remedy.is_empty()), "{:?}", diagnosis.findings);
        assert_eq!(diagnosis.cameras, ["/dev/video0", "/dev/video1", "usb:046d:0825"]);
    }

    #[test]
    fn a_camera_that_is_named_is_all_that_is_told() {
        assert_eq!(ids(&["/dev/video0"]), ["node-missing"]);
        assert_eq!(ids(&["/dev/video1"]), [""; 0]);
        assert_eq!(ids(&["usb:046d:0825"]), ["no-driver"]);
        assert_eq!(ids(&["/dev/v4l/by-id/usb-Old-video-index0"]), ["dangling-link"]);
        assert_eq!(ids(&["/dev/video9"]), ["no-such-camera"]);
        assert_eq!(ids(&["usb:046d:0825:OTHER"]), ["no-such-camera"]);
    }
}
