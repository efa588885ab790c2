//! Nodes in /dev: missing, of the wrong kind, without a camera behind; links that lead nowhere; cameras that do not
//! answer.

use std::path::Path;

use serde_json::json;

use super::finding::Finding;
use super::machine::Machine;
use super::machine::nodes::{Access, Node};
use super::machine::processes::VIDEO_MAJOR;
use super::machine::tree::EntryKind;

const LINKS: [&str; 2] = ["/dev/v4l/by-id", "/dev/v4l/by-path"];

pub fn check(machine: &Machine) -> Vec<Finding> {
    let mut findings: Vec<Finding> = machine.nodes.iter().filter_map(|node| node_itself(machine, node)).collect();
    findings.extend(machine.nodes.iter().filter_map(|node| answer(machine, node)));
    findings.extend(machine.nodes.iter().filter_map(loopback));
    findings.extend(nodes_without_camera(machine));
    findings.extend(dangling_links(machine));
    findings
}

fn node_itself(machine: &Machine, node: &Node) -> Option<Finding> {
    // Of the nodes that are no camera's pictures nobody misses one.
    if !node.is_camera() || node.is_right() {
        return None;
    }
    let (major, minor) = node.number;
    let path = node.path_text();
    let facts = json!({ "name": node.label, "major": major, "minor": minor, "container": machine.container });
    let make = format!("mknod {path} c {major} {minor} && chgrp video {path} && chmod 660 {path}");
    let Some(entry) = &node.entry else {
        let what = match &machine.container {
            Some(kind) => {
                format!("the kernel has the camera {}, and this container ({kind}) has no {path}", node.label)
            }
            None => format!("the kernel has the camera {}, and there is no {path}", node.label),
        };
        let remedy = match &machine.container {
            Some(_) => format!("start the container with --device {path}"),
            None => format!(
                "sudo udevadm trigger --action=add --subsystem-match=video4linux, or make the node: sudo sh -c '{make}'"
            ),
        };
        return Some(Finding::problem("node-missing", what).of(path).remedy(remedy).facts(facts));
    };
    let found = match entry.kind {
        EntryKind::CharDevice((major, minor)) => format!("the device {major}:{minor}"),
        EntryKind::File => "an ordinary file, as a program leaves that writes to a node which is not there".into(),
        EntryKind::Folder => "a folder".into(),
        EntryKind::Link | EntryKind::Other => "neither a device nor a file".into(),
    };
    let what = format!("{path} is {found}, not the camera {} ({major}:{minor})", node.label);
    let remedy = format!("sudo sh -c 'rm -r {path}; {make}'");
    Some(Finding::problem("node-wrong", what).of(path).remedy(remedy).facts(facts))
}

fn answer(machine: &Machine, node: &Node) -> Option<Finding> {
    let Access::Failed(errno) = node.access else { return None };
    // Rights are another check's.
    if matches!(errno, libc::EACCES | libc::EPERM | libc::EBUSY) || !node.is_camera() {
        return None;
    }
    let reason = std::io::Error::from_raw_os_error(errno);
    let remedy = match machine.usb_of(node) {
        Some(_) => format!("camlease reset {}; sudo dmesg tells what the driver says", node.path_text()),
        None => "sudo dmesg tells what the driver says; load the driver's module anew".into(),
    };
    let what = format!("{} does not answer: {reason}", node.path_text());
    Some(Finding::problem("no-answer", what).of(node.path_text()).remedy(remedy).fact("errno", errno))
}

fn loopback(node: &Node) -> Option<Finding> {
    let answers = node.answers().filter(|answers| answers.driver.contains("loopback"))?;
    if !answers.is_output_only() {
        return None;
    }
    let what = format!(
        "{} ({}) is a v4l2loopback node that no program feeds: with exclusive_caps it is a camera only then",
        node.path_text(),
        node.label
    );
    let remedy = "start the program that feeds it, or load the module with exclusive_caps=0";
    Some(Finding::note("loopback-not-fed", what).of(node.path_text()).remedy(remedy))
}

/// Nodes that stayed in /dev without a device: in a container, or made by hand.
fn nodes_without_camera(machine: &Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in machine.tree.names("/dev") {
        if name.strip_prefix("video").is_none_or(|number| number.parse::<u32>().is_err()) {
            continue;
        }
        let path = Path::new("/dev").join(&name);
        if machine.nodes.iter().any(|node| node.path == path) {
            continue; // it was looked at from the kernel's side
        }
        let Some(entry) = machine.tree.entry_itself(&path) else { continue };
        let (number, remedy) = match entry.kind {
            // Somebody's own name for a node.
            EntryKind::Link => continue,
            EntryKind::CharDevice(number) if number.0 != VIDEO_MAJOR => continue,
            EntryKind::CharDevice(number) if machine.nodes.iter().any(|node| node.number == number) => continue,
            EntryKind::CharDevice(number) => (
                Some(number),
                match machine.container {
                    Some(_) => {
                        "plug the camera in, and start the container again: it has the nodes of its start".to_owned()
                    }
                    None => format!("plug the camera in; sudo rm {} if it is not to come back", path.display()),
                },
            ),
            _ => (None, format!("sudo rm -r {}: the camera's node could not take its place", path.display())),
        };
        let what = match number {
            Some(_) => format!("{} stands for a camera that the kernel does not have", path.display()),
            None => format!("{} is no device, and the kernel has no camera of this name", path.display()),
        };
        findings.push(
            Finding::warning("node-without-camera", what)
                .of(path.display())
                .remedy(remedy)
                .facts(json!({ "major": number.map(|number| number.0), "minor": number.map(|number| number.1) })),
        );
    }
    findings
}

fn dangling_links(machine: &Machine) -> Vec<Finding> {
    let mut findings = Vec::new();
    for folder in LINKS {
        for name in machine.tree.names(folder) {
            let link = Path::new(folder).join(name);
            let Some(target) = machine.tree.link(&link) else { continue };
            if machine.tree.exists(&link) {
                continue;
            }
            let what = format!("{} leads to {}, which is not there", link.display(), target.display());
            let remedy = format!(
                "plug the camera in again; udev makes the link anew. If it does not run here: sudo rm {}",
                link.display()
            );
            findings.push(
                Finding::warning("dangling-link", what)
                    .of(link.display())
                    .remedy(remedy)
                    .fact("target", target.display().to_string()),
            );
        }
    }
    findings
}

/// Cameras that were asked about and are not there.
pub fn unknown(camera: &str, reason: &str) -> Finding {
    Finding::problem("no-such-camera", format!("{camera}: {reason}"))
        .of(camera)
        .remedy("camlease list shows the cameras of this machine; lsusb whether a USB camera is plugged in at all")
}

#[cfg(test)]
mod tests {
    use super::super::machine::kernel::Answers;
    use super::super::machine::tree::capture::{Capture, capture};
    use super::super::machine::usb::capture::plug;
    use super::*;

    fn found(machine: &Capture) -> Vec<(&'static str, Option<String>)> {
        let machine = Machine::read_from(machine.tree.clone(), 1000, vec![1000]);
        check(&machine).into_iter().map(|finding| (finding.id, finding.camera)).collect()
    }

    #[test]
    fn a_camera_with_its_node_and_link_is_fine() {
        let machine = capture(&[("/dev/v4l/by-id/usb-Acme-video-index0", "-> ../../video0")]);
        plug(&machine, 1, 0, Some("uvcvideo"));
        assert_eq!(found(&machine), []);
    }

    #[test]
    fn a_node_is_missing_or_wrong_or_stays_behind() {
        let machine = capture(&[
            ("/sys/devices/c/video4linux/video1/dev", "81:1"),
            ("/sys/class/video4linux/video1", "-> ../../devices/c/video4linux/video1"),
            ("/sys/devices/c/video4linux/video2/dev", "81:2"),
            ("/sys/class/video4linux/video2", "-> ../../devices/c/video4linux/video2"),
            ("/dev/video2", "device 81:7 0660 0 44"),
            ("/sys/devices/c/video4linux/video3/dev", "81:3"),
            ("/sys/class/video4linux/video3", "-> ../../devices/c/video4linux/video3"),
            ("/dev/video3", "a film"),
            ("/dev/video9", "device 81:9 0660 0 44"),
            ("/dev/v4l/by-id/usb-Acme-video-index0", "-> ../../video8"),
        ]);
        let of = |path: &str| Some(path.to_owned());
        assert_eq!(
            found(&machine),
            [
                ("node-missing", of("/dev/video1")),
                ("node-wrong", of("/dev/video2")),
                ("node-wrong", of("/dev/video3")),
                ("node-without-camera", of("/dev/video9")),
                ("dangling-link", of("/dev/v4l/by-id/usb-Acme-video-index0")),
            ]
        );
    }

    #[test]
    fn in_a_container_the_remedy_is_the_containers() {
        let machine = capture(&[
            ("/.dockerenv", ""),
            ("/sys/devices/c/video4linux/video1/dev", "81:1"),
            ("/sys/class/video4linux/video1", "-> ../../devices/c/video4linux/video1"),
        ]);
        let findings = check(&Machine::read_from(machine.tree.clone(), 0, vec![0]));
        assert_eq!(findings[0].remedy, "start the container with --device /dev/video1");
    }

    #[test]
    fn a_loopback_that_nobody_feeds_is_told() {
        let machine = capture(&[]);
        plug(&machine, 1, 0, Some("uvcvideo"));
        let mut machine = Machine::read_from(machine.tree.clone(), 0, vec![0]);
        let mut answers = Answers { driver: "v4l2 loopback".into(), capabilities: 0x2, ..Answers::default() };
        machine.nodes[0].access = Access::Answered(answers.clone());
        assert_eq!(check(&machine)[0].id, "loopback-not-fed");
        answers.capabilities = 0x1;
        machine.nodes[0].access = Access::Answered(answers);
        assert_eq!(check(&machine), []);
    }
}
