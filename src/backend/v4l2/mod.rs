//! V4L2 cameras: a node is acquired by opening it, taking the lease on it, and claiming the driver's
//! buffers, which is what keeps every other program from streaming.
//!
//! The `v4l` crate gives the kernel's structs and the ioctl call. Its `Device` opens nodes without
//! O_CLOEXEC and its stream panics in Drop: neither is used.

use std::fs;
use std::os::fd::RawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use self::device::Held;
use self::node::{OpenNode, Request};
use self::usb::Port;
use super::{Device, Found, Identity, Notice, Source, State};
use crate::error::{Error, Kind, Result};
use crate::format::Format;
use crate::holders::{Holders, Target, scan};
use crate::kernel;
use crate::kernel::Fd;
use crate::lease::{Filing, Users};
use crate::slab::{Slab, Token};
use crate::uri::UsbDevice;

mod device;
mod export;
mod node;
mod stream;
mod sysfs;
mod usb;

/// A V4L2 camera by path or by its place on USB.
pub struct Node {
    place: Place,
    /// Opened by an earlier attempt and kept for the next: each close would wake every waiter.
    open: Vec<Kept>,
}

/// A node that a waiter has open. That is no holding of the camera: all of them are known, and left out of holders.
struct Kept {
    node: OpenNode,
    identity: Identity,
    known: Token,
}

static WAITERS: Slab<RawFd> = Slab::new(12);

impl Kept {
    fn new(node: OpenNode, identity: Identity) -> Kept {
        // Where there is no place for it, the waiter is seen as a holder: no worse.
        let known = WAITERS.insert(node.fd.number()).unwrap_or(0);
        Kept { node, identity, known }
    }

    /// The node, which is a waiter's no longer.
    fn take(self) -> (OpenNode, Identity) {
        drop(WAITERS.remove(self.known));
        (self.node, self.identity)
    }
}

enum Place {
    Path(PathBuf),
    Usb(UsbDevice),
    /// Where a camera was reset.
    Port(Port),
}

impl Node {
    pub fn at(path: PathBuf) -> Node {
        Node { place: Place::Path(path), open: Vec::new() }
    }

    pub fn on_usb(device: UsbDevice) -> Node {
        Node { place: Place::Usb(device), open: Vec::new() }
    }

    /// The nodes that may be meant: one for a path, one or more where alike cameras are plugged in.
    fn candidates(&self) -> Result<Vec<PathBuf>> {
        match &self.place {
            // A link may point elsewhere after a replug: followed anew each time.
            Place::Path(path) => Ok(vec![fs::canonicalize(path).unwrap_or_else(|_| path.clone())]),
            Place::Port(port) => port.nodes(),
            Place::Usb(device) => {
                let nodes: Vec<_> = sysfs::usb_nodes(device).into_iter().filter(|node| sysfs::is_first(node)).collect();
                match nodes.is_empty() {
                    false => Ok(nodes),
                    true => Err(not_plugged_in(device)),
                }
            }
        }
    }

    fn attempt(&mut self, path: &Path) -> Result<Held> {
        // Looked up before the claim: whoever waited for the camera is to have it the moment that the claim succeeds.
        let (node, identity) = match self.open.iter().position(|kept| kept.node.path == path) {
            Some(at) => self.open.swap_remove(at).take(),
            None => {
                let node = open(path)?;
                let identity = identity(&node);
                (node, identity)
            }
        };
        match claim(&node) {
            Ok(()) => Ok(Held::new(node, identity)),
            Err(error) => {
                if error.kind() == Kind::Busy {
                    self.open.push(Kept::new(node, identity));
                }
                Err(error)
            }
        }
    }
}

impl Source for Node {
    fn acquire(&mut self) -> Result<Box<dyn Device>> {
        let candidates = self.candidates()?;
        for gone in self.open.extract_if(.., |kept| !candidates.contains(&kept.node.path)) {
            drop(gone.take());
        }
        let mut refusal: Option<Error> = None;
        for path in &candidates {
            match self.attempt(path) {
                Ok(held) => return Ok(Box::new(held)),
                // Of several alike the next may do; a busy one can be waited for, whatever ails the others.
                Err(error) if error.kind() == Kind::Busy => refusal = Some(error),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        Err(refusal.unwrap_or_else(no_camera_is_meant))
    }

    fn notice(&mut self) -> Result<Notice> {
        let mut notice = Notice { nodes: self.candidates().unwrap_or_default(), ..Notice::default() };
        // Where the node, or a link to it, will appear again.
        let mut folders = vec![PathBuf::from("/dev")];
        if let Place::Path(path) = &self.place {
            folders.extend(path.parent().map(Path::to_owned));
        }
        folders.extend(notice.nodes.iter().filter_map(|node| node.parent()).map(Path::to_owned));
        folders.sort();
        folders.dedup();
        notice.folders = folders;
        Ok(notice)
    }

    fn holders(&self) -> Holders {
        let cameras: Vec<_> = self.candidates().unwrap_or_default().iter().filter_map(|node| targets(node)).collect();
        let mut all = Holders::default();
        for holders in scan(&cameras) {
            all.unreadable = all.unreadable.max(holders.unreadable);
            all.list.extend(holders.list);
        }
        forget_waiters(&mut all, &cameras);
        all
    }

    fn filings(&self) -> Vec<Filing> {
        let filing = |node: &PathBuf| Some(filing(node, &fs::metadata(node).ok()?));
        self.candidates().unwrap_or_default().iter().filter_map(filing).collect()
    }

    fn port(&self) -> Result<Box<dyn super::Port>> {
        let (name, port) = match &self.place {
            Place::Path(path) => {
                let name = path.display().to_string();
                let node = fs::metadata(path).map_err(|e| Error::system(&name, e))?;
                let port = Port::of(&name, node.rdev(), "")?;
                (name, port)
            }
            Place::Port(port) => (port.to_string(), port.clone()),
            Place::Usb(device) => {
                let mut cameras = sysfs::usb_cameras(device);
                if cameras.len() > 1 {
                    let message = format!("{device}: {} cameras are meant by this name", cameras.len());
                    return Err(Error::new(Kind::InvalidArgument, message).hint("name one by its node, or its serial"));
                }
                let port = cameras.pop().and_then(|usb| Port::at(&usb, None));
                (device.to_string(), port.ok_or_else(|| not_plugged_in(device))?)
            }
        };
        Ok(Box::new(port.open(&name)?))
    }

    fn receive(&mut self, camera: Fd) -> Result<Box<dyn Device>> {
        let number = camera.as_file().metadata().map(|file| file.rdev()).unwrap_or(0);
        let is_it = |path: &PathBuf| number != 0 && fs::metadata(path).is_ok_and(|node| node.rdev() == number);
        let path = self.candidates()?.into_iter().find(is_it).ok_or_else(|| {
            Error::new(Kind::NotFound, "what was handed over is another device than the one that was asked for")
        })?;
        let node = OpenNode::take(&path, camera)?;
        // The lock came with the open file, and so did the buffers: where both are granted it is the camera's holder.
        claim(&node)?;
        let identity = identity(&node);
        Ok(Box::new(Held::new(node, identity)))
    }

    fn formats(&self) -> Result<Vec<Format>> {
        let path = self.candidates()?.into_iter().next();
        device::formats(&open(&path.ok_or_else(no_camera_is_meant)?)?)
    }
}

fn no_camera_is_meant() -> Error {
    Error::new(Kind::NotFound, "no camera is meant by this name")
}

impl Drop for Node {
    fn drop(&mut self) {
        self.open.drain(..).for_each(|kept| drop(kept.take()));
    }
}

/// Takes this process out when all that it has of the camera is what waiters of its own have open.
fn forget_waiters(all: &mut Holders, cameras: &[Vec<Target>]) {
    let own = std::process::id() as i32;
    let waiting: Vec<_> = WAITERS.each().map(|(_, fd)| *fd).collect();
    if waiting.is_empty() {
        return;
    }
    let numbers: Vec<_> = cameras.iter().filter_map(|targets| targets[0].device_number()).collect();
    let holds = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten().any(|entry| {
        let waits =
            entry.file_name().to_str().and_then(|name| name.parse().ok()).is_some_and(|fd| waiting.contains(&fd));
        !waits && fs::metadata(entry.path()).is_ok_and(|file| numbers.contains(&file.rdev()))
    });
    if !holds {
        all.list.retain(|holder| holder.pid != own || holder.other_node.is_some());
    }
}

fn not_plugged_in(device: &UsbDevice) -> Error {
    Error::new(Kind::NotFound, format!("{device}: no such camera is plugged in"))
        .hint("lsusb shows vendor and product of what is; camlease_device_list_new lists the cameras")
}

/// A camera's own node and its other ones.
fn targets(node: &Path) -> Option<Vec<Target>> {
    let mut targets = vec![Target::device(node)?];
    targets.extend(sysfs::siblings(node).iter().filter_map(|other| Target::device(other)));
    Some(targets)
}

fn open(path: &Path) -> Result<OpenNode> {
    // Opening a pipe or a tape by mistake has effects of its own: only a character device is opened.
    match fs::metadata(path) {
        Ok(file) if !file.file_type().is_char_device() => {
            return Err(Error::new(Kind::InvalidArgument, format!("{}: this is no device node", path.display()))
                .hint("for a video file write file:PATH"));
        }
        // What is missing or forbidden is told by open itself, with its errno.
        _ => {}
    }
    OpenNode::open(path)
}

/// By the device's number and not its path: a container may know the camera by another one.
fn filing(node: &Path, about: &fs::Metadata) -> Filing {
    let number = about.rdev();
    Filing {
        key: format!("v4l2-{}-{}", libc::major(number), libc::minor(number)),
        // A USB device gets another number each time that it is plugged in.
        instance: sysfs::usb_number(node).unwrap_or_default(),
        users: match about.mode() {
            mode if mode & 0o006 == 0o006 => Users::All,
            mode if mode & 0o060 == 0o060 => Users::Group(about.gid()),
            _ => Users::Root,
        },
    }
}

fn identity(node: &OpenNode) -> Identity {
    Identity {
        uri: node.path.display().to_string(),
        name: node.capability.card.clone(),
        driver: node.capability.driver.clone(),
        serial: sysfs::serial(&node.path).unwrap_or_default(),
        bus: node.capability.bus.clone(),
    }
}

/// Lease and buffers, or neither. The lease (flock) tells users of this library apart where a driver
/// does not; the buffers keep everybody else out.
fn claim(node: &OpenNode) -> Result<()> {
    match kernel::lock_exclusive(&node.fd) {
        Err(error) if error.raw_os_error() == Some(libc::EWOULDBLOCK) => {
            // Its holder may be left with a camera that is unplugged: the node that comes back is another one.
            node.format()?;
            return Err(node.failed(Request::Lease, std::io::Error::from_raw_os_error(libc::EBUSY)));
        }
        // On a file system without locks the driver's own exclusion is what counts.
        _ => {}
    }
    match node.request_buffers(1) {
        Ok(1..) => Ok(()),
        outcome => {
            kernel::unlock(&node.fd);
            let error = outcome.err().unwrap_or_else(|| std::io::Error::from_raw_os_error(libc::ENOMEM));
            Err(node.failed(Request::Claim, error))
        }
    }
}

/// The capture nodes of this machine.
pub fn list() -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let mut cameras = Vec::new();
    for path in sysfs::nodes() {
        let entry = match OpenNode::open(&path) {
            // Asking for no buffers changes nothing where nobody holds any, and is refused where somebody does.
            Ok(node) => {
                let held = node.request_buffers(0).is_err_and(|error| error.raw_os_error() == Some(libc::EBUSY));
                Found { identity: identity(&node), state: if held { State::Streaming } else { State::Free } }
            }
            Err(error) if error.kind() == Kind::Unsupported => continue,
            Err(_) if !sysfs::is_first(&path) => continue,
            // It cannot be opened, which is what the host will want to know when it tries.
            Err(_) => Found {
                identity: Identity {
                    uri: path.display().to_string(),
                    name: sysfs::name(&path).unwrap_or_default(),
                    serial: sysfs::serial(&path).unwrap_or_default(),
                    ..Identity::default()
                },
                state: State::Unknown,
            },
        };
        cameras.push(Target::device(&path).into_iter().collect::<Vec<_>>());
        found.push(entry);
    }
    if found.iter().any(|entry| entry.state == State::Free) {
        for (entry, holders) in found.iter_mut().zip(scan(&cameras)) {
            if entry.state == State::Free && !holders.list.is_empty() {
                entry.state = State::Open;
            }
        }
    }
    Ok(found)
}
