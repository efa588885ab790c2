//! The USB port that a camera is plugged into: reset there from a descriptor of its own, and found again afterwards.

use std::path::{Path, PathBuf};

use super::{Node, Place, sysfs};
use crate::backend::{self, Source};
use crate::error::{Error, Kind, Result};
use crate::holders::{Activity, Holders, Target, scan};
use crate::kernel::Fd;
use crate::uri::UsbDevice;

/// _IO('U', 20) of linux/usbdevice_fs.h
const USBDEVFS_RESET: libc::Ioctl = 0x5514;

/// A port with a camera in it, and which of the camera's nodes is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The kernel's name for the place: bus, then a port for each hub on the way, as in 1-2.3.
    path: String,
    device: UsbDevice,
    /// Another device with the same ids and serial number is plugged in: the place alone tells them apart.
    has_twin: bool,
    /// `None`: the first node with pictures.
    node: Option<sysfs::PlaceInDevice>,
}

impl Port {
    /// The port of the camera with that device number; UNSUPPORTED for one that is not on USB. `bus` is where its driver
    /// says that it is, if it was asked.
    pub fn of(name: &str, number: u64, bus: &str) -> Result<Port> {
        let Some(at) = sysfs::folder_of(number) else {
            return Err(Error::new(
                Kind::Disconnected,
                format!("{name}: the camera is gone, and its USB port with it"),
            )
            .hint("plug it in again and reopen it"));
        };
        let Some(usb) = sysfs::usb_ancestor(&at) else {
            let place = if bus.is_empty() { sysfs::device_name(&at) } else { bus.to_owned() };
            return Err(Error::new(
                Kind::Unsupported,
                format!("{name}: it is not on USB ({place}): there is no port to reset"),
            )
            .hint("loading its driver anew may help it"));
        };
        Port::at(&usb, Some(sysfs::place_in_device(&at)))
            .ok_or_else(|| Error::new(Kind::Disconnected, format!("{name}: the camera is just leaving the USB")))
    }

    /// The port of a device that may have no node, because its driver failed.
    pub fn at(usb: &Path, node: Option<sysfs::PlaceInDevice>) -> Option<Port> {
        let device = sysfs::usb_identity(usb)?;
        let alike = sysfs::usb_devices().filter(|other| sysfs::usb_identity(other).as_ref() == Some(&device)).count();
        let path = usb.file_name()?.to_str()?.to_owned();
        Some(Port { path, device, has_twin: alike > 1, node })
    }

    /// The camera's folder: in its port, or in any where its serial number tells it from all others.
    fn folder(&self) -> Option<PathBuf> {
        let is_it = |usb: &PathBuf| sysfs::usb_identity(usb).as_ref() == Some(&self.device);
        let moved = || sysfs::usb_devices().find(is_it).filter(|_| self.device.serial.is_some() && !self.has_twin);
        sysfs::usb_device(&self.path).filter(is_it).or_else(moved)
    }

    /// The node that is meant, where the camera is there.
    pub fn nodes(&self) -> Result<Vec<PathBuf>> {
        let all = self.folder().map(|usb| sysfs::nodes_of(&usb)).unwrap_or_default();
        let is_meant = |node: &PathBuf| match &self.node {
            Some(place) => sysfs::folder(node).is_some_and(|at| sysfs::place_in_device(&at) == *place),
            None => sysfs::is_first(node),
        };
        let meant: Vec<_> = all.into_iter().filter(is_meant).take(1).collect();
        match meant.is_empty() {
            false => Ok(meant),
            true => Err(Error::new(Kind::NotFound, format!("{self}: the camera has not come back"))),
        }
    }

    /// Opens the port, which disturbs nobody. `name` is the camera's, for messages.
    pub fn open(self, name: &str) -> Result<OpenPort> {
        let node = self.folder().and_then(|usb| sysfs::usb_node(&usb)).ok_or_else(|| {
            Error::new(Kind::Disconnected, format!("{name}: its USB device is gone from {self}"))
                .hint("plug it in again and reopen it")
        })?;
        match Fd::open(&node, libc::O_WRONLY) {
            Ok(fd) => Ok(OpenPort { port: self, name: name.to_owned(), fd }),
            Err(cause) => Err(self.refused(name, &node, cause)),
        }
    }

    fn refused(&self, name: &str, node: &Path, cause: std::io::Error) -> Error {
        let node = node.display();
        let what = format!("{name}: opening its USB device {node} to reset it");
        let number = cause.raw_os_error().unwrap_or(0);
        let error = Error::system(what, cause);
        let outside = format!(
            "in a container, give it the USB devices: --volume /dev/bus/usb:/dev/bus/usb \
             --device-cgroup-rule 'c 189:* rw' for docker, {node} among them"
        );
        match number {
            libc::EACCES => error.hint(self.rule()),
            // A container's rules on devices refuse with this where the file's rights would allow it.
            libc::EPERM => error.hint(self.rule()).hint(outside),
            // The camera is there, and its USB device is kept from this process.
            libc::ENOENT | libc::ENOTDIR => error.with_kind(Kind::Permission).hint(outside),
            _ => error,
        }
    }

    /// What to do to be allowed to reset the camera.
    fn rule(&self) -> String {
        let UsbDevice { vendor, product, .. } = self.device;
        format!(
            "the group \"video\" is allowed to by this line in /etc/udev/rules.d/70-camlease.rules: \
             SUBSYSTEM==\"usb\", ATTR{{idVendor}}==\"{vendor:04x}\", ATTR{{idProduct}}==\"{product:04x}\", \
             MODE=\"0660\", GROUP=\"video\"; \
             then run \"sudo udevadm control --reload && sudo udevadm trigger --subsystem-match=usb\""
        )
    }
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "USB port {} ({})", self.path, self.device)
    }
}

/// A port that can be reset.
pub struct OpenPort {
    port: Port,
    name: String,
    fd: Fd,
}

impl backend::Port for OpenPort {
    fn source(&self) -> Box<dyn Source> {
        Box::new(Node { place: Place::Port(self.port.clone()), open: Vec::new() })
    }

    fn others(&self) -> Holders {
        let own = self.port.nodes().unwrap_or_default();
        let nodes = self.port.folder().map(|usb| sysfs::nodes_of(&usb)).unwrap_or_default();
        let others = nodes.iter().filter(|node| !own.contains(node));
        let cameras: Vec<_> = others.filter_map(|node| Target::device(node)).map(|target| vec![target]).collect();
        let mut all = Holders::default();
        for holders in scan(&cameras) {
            all.list.extend(holders.list.into_iter().filter(|holder| holder.activity == Activity::Streaming));
        }
        all
    }

    fn reset(&self) -> Result<()> {
        let cause = loop {
            // SAFETY: this request takes no argument.
            match unsafe { libc::ioctl(self.fd.number(), USBDEVFS_RESET, 0) } {
                0.. => return Ok(()),
                _ => match std::io::Error::last_os_error() {
                    cause if cause.raw_os_error() == Some(libc::EINTR) => {}
                    cause => break cause,
                },
            }
        };
        let number = cause.raw_os_error().unwrap_or(0);
        let error = Error::system(format!("{}: resetting {} (USBDEVFS_RESET)", self.name, self.port), cause);
        Err(match number {
            libc::EACCES | libc::EPERM => error.hint(self.port.rule()),
            // Gone, or it came up as another device than it was and is about to be enumerated anew.
            libc::ENODEV => error,
            // Others hold the bus for a second, the hub or the camera does not answer, the kernel has no memory.
            _ => error.with_kind(Kind::Io).hint("unplug it and plug it in again"),
        })
    }
}
