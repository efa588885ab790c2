//! Who may use a node: this user, too few, or everybody.

use serde_json::json;

use super::finding::Finding;
use super::machine::Machine;
use super::machine::nodes::{Access, Node};
use super::machine::tree::Entry;

const READ_WRITE: u32 = 0o6;

pub fn check(machine: &Machine) -> Vec<Finding> {
    machine.cameras().filter(|node| node.is_right()).filter_map(|node| of_node(machine, node)).collect()
}

fn of_node(machine: &Machine, node: &Node) -> Option<Finding> {
    let entry = node.entry.as_ref()?;
    match node.access {
        Access::Failed(libc::EACCES) => Some(forbidden(machine, node, entry)),
        Access::Failed(libc::EPERM) => Some(forbidden_by_cgroup(machine, node)),
        _ => open_to_all(machine, node, entry),
    }
}

fn forbidden(machine: &Machine, node: &Node, entry: &Entry) -> Finding {
    let (path, user) = (node.path_text(), &machine.user);
    let group = machine.group_name(entry.gid);
    let owner = format!("{}:{group}, mode {:04o}", machine.user_name(entry.uid), entry.mode);
    let group_has_rights = entry.mode >> 3 & READ_WRITE == READ_WRITE;
    let facts = json!({
        "user": user.name, "uid": user.uid, "owner": machine.user_name(entry.uid), "group": group,
        "mode": format!("{:04o}", entry.mode),
    });
    // In root's group nobody else should be: the node wants another one.
    let (id, what, remedy) = if entry.gid == 0 || !group_has_rights {
        (
            "no-group",
            format!("user {} may not use {path}, and no group may ({owner})", user.name),
            format!(
                "give the cameras to a group: echo 'SUBSYSTEM==\"video4linux\", GROUP=\"video\", MODE=\"0660\"' | \
                 sudo tee /etc/udev/rules.d/60-cameras.rules, sudo udevadm control --reload, \
                 sudo udevadm trigger --subsystem-match=video4linux; then sudo usermod -aG video {}, and log in again",
                user.name
            ),
        )
    } else if user.member_of.contains(&entry.gid) && !user.groups.contains(&entry.gid) {
        (
            "group-not-active",
            format!(
                "user {} is in the group {group}, and this session does not know it yet ({path}: {owner})",
                user.name
            ),
            format!("log out and in again, or for one shell: newgrp {group}"),
        )
    } else {
        ("no-permission", format!("user {} may not use {path} ({owner})", user.name), join(machine, entry.gid))
    };
    Finding::problem(id, what).of(path).remedy(remedy).facts(facts)
}

/// How this user gets into the node's group.
fn join(machine: &Machine, gid: u32) -> String {
    // Who is in which group is the container's beginning: nobody logs in there, and its /etc/group is not the machine's.
    if machine.container.is_some() {
        return format!("start the container with --group-add {gid}");
    }
    let user = &machine.user.name;
    match machine.group_name_of(gid) {
        Some(group) => format!("join the group: sudo usermod -aG {group} {user}, and log in again"),
        None => format!(
            "its group has no name here, and joining one wants it: sudo groupadd -g {gid} cameras; then sudo usermod -aG \
             cameras {user}, and log in again"
        ),
    }
}

fn forbidden_by_cgroup(machine: &Machine, node: &Node) -> Finding {
    let path = node.path_text();
    let (major, minor) = node.number;
    let what = format!("{path} is here, and the rules for devices of this container or service forbid it (EPERM)");
    let remedy = match &machine.container {
        Some(_) => format!("start the container with --device {path}, or --device-cgroup-rule 'c {major}:* rmw'"),
        None => format!("in the service's unit: DeviceAllow={path} rw, or DeviceAllow=char-video4linux rw"),
    };
    Finding::problem("device-rules", what).of(path).remedy(remedy).facts(json!({ "major": major, "minor": minor }))
}

fn open_to_all(machine: &Machine, node: &Node, entry: &Entry) -> Option<Finding> {
    if entry.mode & READ_WRITE != READ_WRITE {
        return None;
    }
    let path = node.path_text();
    let what = format!("every user and service of this machine may stream from {path} (mode {:04o})", entry.mode);
    let remedy = format!(
        "now: sudo chmod 0660 {path} && sudo chgrp video {path}; for good: look for the rule by grep -rn MODE \
         /etc/udev/rules.d, and give the camera to a group there"
    );
    // Intel's own rules for RealSense open it to everybody.
    let vendors_wish = machine.usb_of(node).is_some_and(super::vendors::is_realsense);
    let finding = if vendors_wish { Finding::note("open-to-all", what) } else { Finding::warning("open-to-all", what) };
    Some(finding.of(path).remedy(remedy).fact("mode", format!("{:04o}", entry.mode)))
}

#[cfg(test)]
mod tests {
    use super::super::machine::tree::capture::capture;
    use super::super::machine::usb::capture::plug;
    use super::*;

    /// The finding for user anna (1000), with the node's mode and group, and what opening it gave.
    fn finding(mode: u32, gid: u32, groups: Vec<u32>, access: Access) -> Option<Finding> {
        let machine = capture(&[
            ("/etc/passwd", "root:x:0:0::/root:/bin/sh\nanna:x:1000:1000::/home/anna:/bin/sh"),
            ("/etc/group", "root:x:0:\nvideo:x:44:bert\ncameras:x:45:anna,bert"),
        ]);
        plug(&machine, 1, 0, Some("uvcvideo"));
        let mut machine = Machine::read_from(machine.tree.clone(), 1000, groups);
        machine.nodes[0].access = access;
        let entry = machine.nodes[0].entry.as_mut().unwrap();
        (entry.mode, entry.gid) = (mode, gid);
        check(&machine).into_iter().next()
    }

    #[test]
    fn the_group_to_join_is_named() {
        let finding = finding(0o660, 44, vec![1000], Access::Failed(libc::EACCES)).unwrap();
        assert_eq!(finding.id, "no-permission");
        assert!(finding.remedy.contains("sudo usermod -aG video anna"), "{}", finding.remedy);
        assert!(finding.what.contains("root:video, mode 0660"), "{}", finding.what);
    }

    #[test]
    fn a_group_without_a_name_gets_one() {
        let finding = finding(0o660, 977, vec![1000], Access::Failed(libc::EACCES)).unwrap();
        assert_eq!(finding.id, "no-permission");
        assert!(finding.remedy.contains("sudo groupadd -g 977 cameras"), "{}", finding.remedy);
        assert!(!finding.remedy.contains("usermod -aG gid"), "{}", finding.remedy);
    }

    #[test]
    fn in_a_container_the_group_comes_with_its_start() {
        let files = capture(&[("/.dockerenv", ""), ("/etc/passwd", "anna:x:1000:1000::/home/anna:/bin/sh")]);
        plug(&files, 1, 0, Some("uvcvideo"));
        let mut machine = Machine::read_from(files.tree.clone(), 1000, vec![1000]);
        machine.nodes[0].access = Access::Failed(libc::EACCES);
        let entry = machine.nodes[0].entry.as_mut().unwrap();
        (entry.mode, entry.gid) = (0o660, 977);
        assert_eq!(check(&machine)[0].remedy, "start the container with --group-add 977");
    }

    #[test]
    fn a_member_who_did_not_log_in_since_is_told_so() {
        let finding = finding(0o660, 45, vec![1000], Access::Failed(libc::EACCES)).unwrap();
        assert_eq!(finding.id, "group-not-active");
        assert!(finding.remedy.contains("newgrp cameras"), "{}", finding.remedy);
    }

    #[test]
    fn without_a_group_a_rule_is_needed() {
        for (mode, gid) in [(0o660, 0), (0o600, 44)] {
            let finding = finding(mode, gid, vec![1000, 44], Access::Failed(libc::EACCES)).unwrap();
            assert_eq!(finding.id, "no-group");
            assert!(finding.remedy.contains("udev/rules.d"), "{}", finding.remedy);
        }
    }

    #[test]
    fn rules_for_devices_are_told_from_rights() {
        let finding = finding(0o660, 44, vec![1000, 44], Access::Failed(libc::EPERM)).unwrap();
        assert_eq!(finding.id, "device-rules");
        assert!(finding.remedy.contains("DeviceAllow"), "{}", finding.remedy);
    }

    #[test]
    fn a_node_for_everybody_is_told_and_one_for_a_group_is_not() {
        assert_eq!(finding(0o666, 44, vec![], Access::Untried).unwrap().id, "open-to-all");
        assert_eq!(finding(0o660, 44, vec![], Access::Untried), None);
        assert_eq!(finding(0o664, 44, vec![], Access::Untried), None);
    }
}
