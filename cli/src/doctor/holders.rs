//! Who has a camera: streams from it, merely has it open, has another node of it, or keeps memory of it.

use serde_json::{Value, json};

use super::finding::Finding;
use super::machine::Machine;
use super::machine::nodes::Node;
use super::machine::processes::{Process, VIDEO_MAJOR};
use super::machine::usb::Usb;

/// What holders of a camera that use this library told of themselves, by process.
pub type Leases = Vec<(i32, camlease::Record)>;

pub fn leases(node: &Node) -> Leases {
    let holders = camlease::holders(&node.path_text()).unwrap_or_default();
    holders.list.into_iter().filter_map(|holder| Some((holder.pid, holder.lease?))).collect()
}

pub fn check(machine: &Machine, leases: fn(&Node) -> Leases) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in machine.cameras() {
        let holders: Vec<&Process> = machine.processes.having(node.number).collect();
        if holders.is_empty() && machine.busy.contains(&node.path) {
            findings.push(out_of_sight(node));
        }
        let leases = if holders.is_empty() { Leases::new() } else { leases(node) };
        for process in holders {
            let lease = leases.iter().find(|(pid, _)| *pid == process.pid).map(|(_, record)| record);
            findings.push(of_node(machine, node, process, lease));
        }
        findings.extend(other_nodes(machine, node));
    }
    findings.extend(gone_cameras(machine));
    findings.extend(machine.usb.iter().filter(|device| device.is_camera()).flat_map(|device| raw(machine, device)));
    findings
}

/// "ffmpeg (pid 812, user anna, started 3 minutes ago)": the kernel does not tell since when a file is open.
fn who(machine: &Machine, process: &Process) -> String {
    format!(
        "{} (pid {}, user {}, started {} ago)",
        process.program,
        process.pid,
        machine.user_name(process.uid),
        machine.processes.age(process)
    )
}

pub fn facts(machine: &Machine, process: &Process) -> Value {
    json!({
        "pid": process.pid,
        "program": process.program,
        "command": process.command,
        "user": machine.user_name(process.uid),
        "uid": process.uid,
        "started_seconds_ago": machine.processes.age_in_seconds(process),
        "state": process.state.to_string(),
    })
}

fn of_node(machine: &Machine, node: &Node, process: &Process, lease: Option<&camlease::Record>) -> Finding {
    let path = node.path_text();
    let who = who(machine, process);
    let (open, maps) = (process.has_open(node.number), process.maps(node.number));
    let release = format!("camlease release {path} takes it from {}", process.called());
    let finding = if let Some(record) = lease {
        let name = if record.name.is_empty() {
            String::new()
        } else {
            format!(" as {}", super::machine::printable(&record.name))
        };
        let streams = if record.streaming { ", and streams" } else { "" };
        let since = match record.since_ns {
            0 => String::new(),
            since => format!(" for {}", machine.processes.time_since(since as f64 / 1e9)),
        };
        Finding::note("leased", format!("{who} has a lease on {path}{name}{since}{streams}"))
            .remedy(format!("ask it for the camera: camlease release {path}"))
            .facts(json!({ "lease": record.name, "priority": record.priority, "streaming": record.streaming }))
    } else if maps && !open {
        Finding::problem(
            "mapping-only",
            format!("{who} has closed {path}, and its mapping of the camera's memory keeps the camera busy"),
        )
        .remedy(format!("its code has to unmap the buffers (munmap): a close alone does not. Now: {release}"))
    } else if maps {
        // Its camera's user, as far as anybody can tell: no trouble where it is meant to have it.
        Finding::note("held", format!("{who} streams from {path}: nobody else can"))
            .remedy(format!("if another program is to have the camera: {release}"))
    } else {
        Finding::note("open", format!("{who} has {path} open, and no memory of it mapped"))
            .remedy(format!("that alone keeps nobody from streaming; where the camera is busy all the same: {release}"))
    };
    finding.of(path).facts(facts(machine, process)).fact("mapped", maps).fact("open", open)
}

fn out_of_sight(node: &Node) -> Finding {
    let path = node.path_text();
    let what = format!("somebody streams from {path} whom this user does not see: another user, or another container");
    Finding::warning("held-out-of-sight", what)
        .of(&path)
        .remedy(format!("sudo camlease doctor {path} names the program, outside of any container"))
}

/// Holders of the same device's other nodes, where they do not have the camera itself.
fn other_nodes(machine: &Machine, node: &Node) -> Vec<Finding> {
    // Told once for each device: at its first camera.
    if machine.camera_at(&node.device).is_some_and(|first| first.number != node.number) {
        return Vec::new();
    }
    let mut others: Vec<_> =
        machine.nodes.iter().filter(|other| other.device == node.device && !other.is_camera()).collect();
    others.dedup_by_key(|other| other.number);
    let others = others.into_iter().map(|other| (other.path.clone(), other.number));
    let mut findings = Vec::new();
    for (path, number) in others.chain(node.controllers.iter().cloned()) {
        for process in machine.processes.having(number).filter(|process| !process.has(node.number)) {
            let locked = process.open.iter().any(|descriptor| descriptor.number == number && descriptor.locked);
            let who = who(machine, process);
            let path = path.display();
            let finding = if locked {
                Finding::warning(
                    "controller-locked",
                    format!(
                        "{who} has locked {path}, the media controller of {}: libcamera owns cameras so",
                        node.path_text()
                    ),
                )
                .remedy(format!("end {}, or use the camera through libcamera alone", process.called()))
            } else {
                Finding::note("other-node-open", format!("{who} has {path} open, another node of {}", node.path_text()))
                    .remedy(format!(
                        "that keeps nobody from the pictures; if it is not wanted, end {}",
                        process.called()
                    ))
            };
            findings
                .push(finding.of(node.path_text()).facts(facts(machine, process)).fact("other_node", path.to_string()));
        }
    }
    findings
}

/// Nodes whose camera is gone, and which somebody still has open: the camera that comes back gets another number.
fn gone_cameras(machine: &Machine) -> Vec<Finding> {
    let known = |number| machine.nodes.iter().any(|node| node.number == number);
    let mut findings = Vec::new();
    for process in machine.processes.each() {
        for descriptor in &process.open {
            if descriptor.number.0 != VIDEO_MAJOR || known(descriptor.number) {
                continue;
            }
            // Radios, sub-devices and the like have the same major number.
            let path = descriptor.path.trim_end_matches(" (deleted)");
            if !path.starts_with("/dev/video") || descriptor.path == path && machine.tree.exists(path) {
                continue;
            }
            let what = format!(
                "{} still has {path} open, whose camera was unplugged or reset: plugged in again it gets another number",
                who(machine, process)
            );
            findings.push(
                Finding::warning("gone-camera-open", what)
                    .of(path)
                    .remedy(format!(
                        "its code has to close the camera after ENODEV; now end {}, and open cameras by their link in \
                         /dev/v4l/by-id, which follows them",
                        process.called()
                    ))
                    .facts(facts(machine, process)),
            );
        }
    }
    findings
}

/// A camera that a program drives by itself, through usbfs, is no video node's.
fn raw(machine: &Machine, device: &Usb) -> Vec<Finding> {
    let Some(interface) = device.control().find(|interface| interface.driver.as_deref() == Some("usbfs")) else {
        return Vec::new();
    };
    let node = device.raw_node();
    let number = device.raw_number();
    let facts = json!({ "usb": device.name, "interface": interface.name, "usb_node": node.display().to_string() });
    let finding = match machine.processes.having(number).next() {
        Some(process) => Finding::note(
            "driven-by-libusb",
            format!(
                "{} has no video node: {} drives it by itself through {} (libusb)",
                device.called(),
                who(machine, process),
                node.display()
            ),
        )
        .remedy(format!("end {}, where the camera is to be V4L2's; plugged in again it has its node", process.called()))
        .facts(self::facts(machine, process)),
        None => Finding::note(
            "driven-by-libusb",
            format!(
                "{} has no video node: a program drives it by itself through {} (libusb)",
                device.called(),
                node.display()
            ),
        )
        .remedy(format!("sudo fuser -v {} names the program", node.display())),
    };
    vec![finding.of(machine.name_of_usb(device)).facts(facts)]
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::super::machine::processes::capture::holder;
    use super::super::machine::processes::{Descriptor, Processes};
    use super::super::machine::tree::capture::{Capture, capture};
    use super::super::machine::usb::capture::plug;
    use super::*;

    fn machine(process: Process) -> (Capture, Machine) {
        let files = capture(&[("/etc/passwd", "anna:x:1000:1000::/home/anna:/bin/sh")]);
        plug(&files, 1, 0, Some("uvcvideo"));
        let mut machine = Machine::read_from(files.tree.clone(), 0, vec![0]);
        machine.nodes[0].controllers.push(("/dev/media0".into(), (250, 0)));
        machine.processes = Processes::of(vec![process]);
        (files, machine)
    }

    fn found(process: Process) -> Vec<Finding> {
        let (_files, machine) = machine(process);
        check(&machine, |_| Leases::new())
    }

    #[test]
    fn streaming_open_and_mapped_alone_are_told_apart() {
        let streaming = Process { mapped: vec![(81, 0)], uid: 1000, ..holder(812, 700) };
        let findings = found(streaming.clone());
        assert_eq!((findings.len(), findings[0].id), (1, "held"));
        assert_eq!(findings[0].severity, Severity::Note, "a program that has its camera is no trouble");
        let expected = "grabber (pid 812, user anna, started 10 minutes ago) streams from /dev/video0";
        assert!(findings[0].what.starts_with(expected), "{}", findings[0].what);
        assert!(findings[0].remedy.contains("camlease release /dev/video0"), "{}", findings[0].remedy);
        assert_eq!(findings[0].facts["pid"], 812);
        assert_eq!(found(holder(812, 700))[0].id, "open");
        assert_eq!(found(Process { open: Vec::new(), ..streaming })[0].id, "mapping-only");
    }

    #[test]
    fn a_holder_that_is_not_seen_is_told_where_no_other_explains_the_stream() {
        let (_files, mut machine) = machine(holder(812, 700));
        machine.busy = vec!["/dev/video0".into()];
        assert_eq!(check(&machine, |_| Leases::new())[0].id, "open");
        machine.processes = Processes::of(Vec::new());
        assert_eq!(check(&machine, |_| Leases::new())[0].id, "held-out-of-sight");
    }

    #[test]
    fn a_lease_is_no_trouble() {
        let leases = |_: &Node| {
            let record =
                camlease::Record { name: "inspection".into(), priority: 5, since_ns: 0, streaming: true, share: None };
            vec![(812, record)]
        };
        let (_files, machine) = machine(Process { mapped: vec![(81, 0)], ..holder(812, 700) });
        let findings = check(&machine, leases);
        assert_eq!(findings[0].id, "leased");
        assert!(findings[0].what.contains("as inspection"), "{}", findings[0].what);
    }

    #[test]
    fn the_media_controller_is_the_cameras_other_node() {
        let controller = |locked| {
            let mut process = holder(812, 700);
            process.open[0] =
                Descriptor { number: (250, 0), path: "/dev/media0".into(), locked, ..process.open[0].clone() };
            found(process)
        };
        assert_eq!(controller(false)[0].id, "other-node-open");
        assert_eq!(controller(true)[0].id, "controller-locked");
        assert!(controller(true)[0].what.contains("/dev/media0"));
    }

    #[test]
    fn a_camera_that_is_gone_and_still_open_is_told() {
        let mut process = holder(812, 700);
        process.open[0].number = (81, 7);
        process.open[0].path = "/dev/video7 (deleted)".into();
        let findings = found(process);
        assert_eq!((findings[0].id, findings[0].camera.as_deref()), ("gone-camera-open", Some("/dev/video7")));
    }

    #[test]
    fn a_camera_under_libusb_is_told() {
        let machine = capture(&[]);
        plug(&machine, 1, 0, Some("usbfs"));
        let findings = check(&Machine::read_from(machine.tree.clone(), 0, vec![0]), |_| Leases::new());
        assert_eq!((findings.len(), findings[0].id), (1, "driven-by-libusb"));
    }
}
