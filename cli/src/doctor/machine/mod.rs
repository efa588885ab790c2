//! What the doctor reads of the machine, once, before any check: files and a few harmless calls. Checks then look at
//! this alone, so that each can be tried on a machine that was captured.

pub mod kernel;
pub mod nodes;
pub mod processes;
pub mod tree;
pub mod usb;

use std::path::PathBuf;

use nodes::{Access, Node};
use processes::Processes;
use tree::Tree;
use usb::Usb;

/// All that was read.
#[derive(Debug, Clone)]
pub struct Machine {
    pub tree: Tree,
    pub user: User,
    /// Inside of what kind of container this runs, if it does.
    pub container: Option<String>,
    pub nodes: Vec<Node>,
    pub usb: Vec<Usb>,
    pub processes: Processes,
    /// /proc shows this container's processes alone, or this user's.
    pub sees_some_processes_only: bool,
    /// Cameras that somebody streams from, whoever it is; asked only where holders may be out of sight.
    pub busy: Vec<PathBuf>,
}

/// Who looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub name: String,
    /// Groups of this process.
    pub groups: Vec<u32>,
    /// Groups that a new login of this user would have.
    pub member_of: Vec<u32>,
}

impl Machine {
    pub fn read() -> Machine {
        let tree = Tree::machine();
        let (uid, groups) = kernel::credentials();
        let mut machine = Machine::read_from(tree, uid, groups);
        // The library asks the nodes as well, and would hang where one does not answer.
        let hangs = !hanging(&machine.nodes, &machine.processes).is_empty()
            || machine.nodes.iter().any(|node| node.access == Access::Failed(libc::ETIMEDOUT));
        if !hangs && (machine.processes.unreadable > 0 || machine.sees_some_processes_only) {
            let streaming = |found: &camlease::Found| found.state == camlease::State::Streaming;
            let found = camlease::list().unwrap_or_default();
            machine.busy = found.into_iter().filter(streaming).map(|found| found.identity.uri.into()).collect();
        }
        machine
    }

    pub fn read_from(tree: Tree, uid: u32, groups: Vec<u32>) -> Machine {
        let (mut nodes, usb) = (nodes::read(&tree), usb::read(&tree));
        // Before any node is asked: a holder that hangs in the driver tells which ones would not answer.
        let processes = Processes::read(&tree, &nodes, &usb);
        if tree.is_live() {
            let hanging = hanging(&nodes, &processes);
            nodes::ask(&mut nodes, &hanging);
        }
        Machine {
            user: User::read(&tree, uid, groups),
            container: container(&tree),
            processes,
            // The kernel's own second process is there wherever all are.
            sees_some_processes_only: tree.text("/proc/2/comm").as_deref() != Some("kthreadd"),
            busy: Vec::new(),
            nodes,
            usb,
            tree,
        }
    }

    /// The nodes that give pictures, or may where they could not be asked.
    pub fn cameras(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.is_camera())
    }

    /// The node that stands for a device in findings: its first camera, else its first node.
    pub fn camera_at(&self, device: &std::path::Path) -> Option<&Node> {
        let mut nodes = self.nodes.iter().filter(|node| node.device == device);
        nodes.clone().find(|node| node.is_camera()).or_else(|| nodes.next())
    }

    pub fn usb_of(&self, node: &Node) -> Option<&Usb> {
        self.usb.iter().find(|device| node.device.starts_with(&device.folder))
    }

    pub fn nodes_of_usb<'a>(&'a self, device: &'a Usb) -> impl Iterator<Item = &'a Node> {
        self.nodes.iter().filter(|node| node.device.starts_with(&device.folder))
    }

    /// What to call a USB camera: its node if it has one, else the name by which an open would wait for it.
    pub fn name_of_usb(&self, device: &Usb) -> String {
        if let Some(node) = self.nodes_of_usb(device).find(|node| node.is_camera()) {
            return node.path_text();
        }
        let serial = device.serial.as_deref().map_or(String::new(), |serial| format!(":{serial}"));
        format!("usb:{:04x}:{:04x}{serial}", device.vendor, device.product)
    }

    pub fn group_name(&self, gid: u32) -> String {
        self.group_name_of(gid).unwrap_or_else(|| format!("gid {gid}"))
    }

    /// None where the group has no name here.
    pub fn group_name_of(&self, gid: u32) -> Option<String> {
        name_in(&self.tree, "/etc/group", gid)
    }

    pub fn user_name(&self, uid: u32) -> String {
        name_in(&self.tree, "/etc/passwd", uid).unwrap_or_else(|| format!("uid {uid}"))
    }
}

impl User {
    fn read(tree: &Tree, uid: u32, groups: Vec<u32>) -> User {
        let name = name_in(tree, "/etc/passwd", uid).unwrap_or_else(|| format!("uid {uid}"));
        let member_of = tree
            .text("/etc/group")
            .unwrap_or_default()
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split(':').collect();
                let member = fields.get(3)?.split(',').any(|member| member == name);
                member.then(|| fields[2].parse().ok()).flatten()
            })
            .collect();
        User { uid, name, groups, member_of }
    }
}

/// Devices of which a holder is inside the kernel for good: nodes of one device share the driver's locks.
fn hanging(nodes: &[Node], processes: &Processes) -> Vec<PathBuf> {
    let hangs = |process: &processes::Process| process.threads.iter().any(|thread| thread.state == 'D');
    let has_one = |node: &&Node| processes.having(node.number).any(hangs);
    nodes.iter().filter(has_one).map(|node| node.device.clone()).collect()
}

/// From the files alone: a directory service that hangs must not hang the doctor.
fn name_in(tree: &Tree, file: &str, id: u32) -> Option<String> {
    tree.text(file)?.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

/// None where the nodes are the machine's own all the same: /dev is the kernel's.
fn container(tree: &Tree) -> Option<String> {
    let mounts = tree.text("/proc/self/mounts").unwrap_or_default();
    if mounts.lines().any(|line| line.split(' ').skip(1).take(2).eq(["/dev", "devtmpfs"])) {
        return None;
    }
    if tree.exists("/.dockerenv") {
        return Some("docker".into());
    }
    if tree.exists("/run/.containerenv") {
        return Some("podman".into());
    }
    tree.text("/run/systemd/container").filter(|name| !name.is_empty())
}

/// What other programs say of themselves is shown: what would steer a terminal is taken out.
pub fn printable(text: &str) -> String {
    const MOST: usize = 300; // characters
    printable_whole(text.trim()).chars().take(MOST).collect()
}

/// The same for a whole sentence.
pub fn printable_whole(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A folder of /dev for a node's name.
pub fn dev(name: &str) -> PathBuf {
    PathBuf::from("/dev").join(name)
}

#[cfg(test)]
mod tests {
    use super::processes::Thread;
    use super::processes::capture::holder;
    use super::tree::capture::capture;
    use super::usb::capture::plug;
    use super::*;

    #[test]
    fn a_device_whose_holder_hangs_is_not_asked() {
        let files = capture(&[]);
        plug(&files, 1, 0, Some("uvcvideo"));
        let machine = Machine::read_from(files.tree.clone(), 0, vec![0]);
        let of = |state| {
            let threads = vec![Thread { id: 813, state, waits_in: "usb_start_wait_urb".into() }];
            hanging(&machine.nodes, &Processes::of(vec![processes::Process { threads, ..holder(812, 700) }]))
        };
        assert_eq!(of('D'), [machine.nodes[0].device.clone()]);
        assert_eq!(of('S'), [""; 0].map(PathBuf::from));
    }
}
