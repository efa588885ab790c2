//! Video nodes: those that the kernel has, what stands for them in /dev, and what they answer.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use super::kernel::{self, Answers};
use super::tree::{Entry, EntryKind, Number, Tree, device_number};
use super::{dev, printable};

const CLASS: &str = "/sys/class/video4linux";

/// A node that the kernel has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// "video0"
    pub name: String,
    pub path: PathBuf,
    pub number: Number,
    /// Its place among the nodes of its device.
    pub index: u32,
    /// What the driver calls it.
    pub label: String,
    pub driver: Option<String>,
    /// The device that it belongs to, in sysfs.
    pub device: PathBuf,
    /// What stands in /dev.
    pub entry: Option<Entry>,
    pub access: Access,
    /// Media controllers of the same device, with their numbers.
    pub controllers: Vec<(PathBuf, Number)>,
}

/// What became of opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// It was not tried: there is no such node, or another one.
    Untried,
    Answered(Answers),
    /// This errno.
    Failed(i32),
}

pub fn read(tree: &Tree) -> Vec<Node> {
    let mut nodes: Vec<Node> = tree
        .names(CLASS)
        .into_iter()
        .filter(|name| name.strip_prefix("video").is_some_and(|number| number.parse::<u32>().is_ok()))
        .filter_map(|name| Node::read(tree, name))
        .collect();
    nodes.sort_by_key(|node| node.name.trim_start_matches("video").parse::<u32>().ok());
    nodes
}

/// Asks the nodes, those of devices apart whose driver is known to hang: it would keep whoever asks, too.
pub fn ask(nodes: &mut [Node], hanging: &[PathBuf]) {
    for node in nodes.iter_mut().filter(|node| node.is_right() && !hanging.contains(&node.device)) {
        let path = node.path.clone();
        node.access = in_time(PATIENCE, move || open(&path));
    }
}

/// How long a node has to answer: it does so at once, or waits for a camera that does not.
const PATIENCE: Duration = Duration::from_secs(2);

/// In a thread of its own, since a call that hangs cannot be ended: it is left to itself.
fn in_time(patience: Duration, ask: impl FnOnce() -> Access + Send + 'static) -> Access {
    let (send, answer) = mpsc::channel();
    std::thread::spawn(move || send.send(ask()));
    answer.recv_timeout(patience).unwrap_or(Access::Failed(libc::ETIMEDOUT))
}

impl Node {
    fn read(tree: &Tree, name: String) -> Option<Node> {
        let folder = tree.real(Path::new(CLASS).join(&name))?;
        let device = tree.real(folder.join("device")).unwrap_or_else(|| folder.clone());
        Some(Node {
            path: dev(&name),
            number: device_number(&tree.text(folder.join("dev"))?)?,
            index: tree.number(folder.join("index")).unwrap_or(0),
            label: printable(&tree.text(folder.join("name")).unwrap_or_default()),
            driver: tree.link_name(device.join("driver")),
            controllers: controllers(tree, &device),
            device,
            entry: tree.entry(dev(&name)),
            access: Access::Untried,
            name,
        })
    }

    /// What stands in /dev is the node that the kernel means.
    pub fn is_right(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.kind == EntryKind::CharDevice(self.number))
    }

    /// Metadata nodes, converters and outputs are none. Of those that could not be asked the first of a device is taken
    /// for one.
    pub fn is_camera(&self) -> bool {
        match &self.access {
            Access::Answered(answers) => answers.is_camera(),
            _ => self.index == 0,
        }
    }

    pub fn answers(&self) -> Option<&Answers> {
        match &self.access {
            Access::Answered(answers) => Some(answers),
            _ => None,
        }
    }

    pub fn path_text(&self) -> String {
        self.path.display().to_string()
    }
}

fn open(path: &Path) -> Access {
    // The rights are looked at first: a camera is opened for writing by those who stream, and here for reading alone.
    match kernel::may_use(path).and_then(|()| kernel::ask(path)) {
        Ok(answers) => Access::Answered(answers),
        Err(error) => Access::Failed(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

fn controllers(tree: &Tree, device: &Path) -> Vec<(PathBuf, Number)> {
    tree.names(device)
        .into_iter()
        .filter(|name| name.strip_prefix("media").is_some_and(|number| number.parse::<u32>().is_ok()))
        .filter_map(|name| Some((dev(&name), device_number(&tree.text(device.join(&name).join("dev"))?)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tree::capture::capture;
    use super::*;

    #[test]
    fn a_node_that_does_not_answer_is_not_waited_for() {
        let (never, wait) = mpsc::channel::<Access>();
        let hangs = move || wait.recv().unwrap_or(Access::Untried);
        assert_eq!(in_time(Duration::from_millis(50), hangs), Access::Failed(libc::ETIMEDOUT));
        drop(never);
        assert_eq!(in_time(PATIENCE, || Access::Failed(libc::EACCES)), Access::Failed(libc::EACCES));
    }

    #[test]
    fn nodes_are_read_from_a_capture() {
        let machine = capture(&[
            ("/sys/devices/platform/vivid.0/video4linux/video2/dev", "81:2\n"),
            ("/sys/devices/platform/vivid.0/video4linux/video2/index", "0\n"),
            ("/sys/devices/platform/vivid.0/video4linux/video2/name", "vivid-000-vid-cap\n"),
            ("/sys/devices/platform/vivid.0/video4linux/video2/device", "-> ../../../vivid.0"),
            ("/sys/devices/platform/vivid.0/media0/dev", "250:0\n"),
            ("/sys/devices/platform/vivid.0/driver", "-> ../../../bus/platform/drivers/vivid"),
            ("/sys/class/video4linux/video2", "-> ../../devices/platform/vivid.0/video4linux/video2"),
            ("/dev/video2", "device 81:2 0660 0 44"),
        ]);
        let nodes = read(&machine.tree);
        let [node] = &nodes[..] else { panic!("{nodes:?}") };
        assert_eq!((node.number, node.label.as_str()), ((81, 2), "vivid-000-vid-cap"));
        assert_eq!(node.driver.as_deref(), Some("vivid"));
        assert_eq!(node.device, Path::new("/sys/devices/platform/vivid.0"));
        assert_eq!(node.controllers, [(PathBuf::from("/dev/media0"), (250, 0))]);
        assert!(node.is_right() && node.is_camera());
    }
}
