//! What the kernel's device tree says of a video node without opening it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::uri::UsbDevice;

const CLASS: &str = "/sys/class/video4linux";

/// All video nodes by number, capture or not.
pub fn nodes() -> Vec<PathBuf> {
    let mut numbers: Vec<u32> = fs::read_dir(CLASS)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("video")?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers.into_iter().map(|number| PathBuf::from(format!("/dev/video{number}"))).collect()
}

/// The node's folder in the device tree.
fn folder(node: &Path) -> Option<PathBuf> {
    let number = fs::metadata(node).ok()?.rdev();
    let (major, minor) = (libc::major(number), libc::minor(number));
    fs::canonicalize(format!("/sys/dev/char/{major}:{minor}")).ok()
}

fn read(path: PathBuf) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}

/// The name that the driver gave the node.
pub fn name(node: &Path) -> Option<String> {
    read(folder(node)?.join("name"))
}

/// Whether this is the first node of its device: on a USB camera the one with the pictures.
pub fn is_first(node: &Path) -> bool {
    folder(node).and_then(|at| read(at.join("index"))).is_none_or(|index| index == "0")
}

/// The USB device that a node belongs to.
fn usb_folder(node: &Path) -> Option<PathBuf> {
    folder(node)?.ancestors().find(|at| at.join("idVendor").exists()).map(Path::to_owned)
}

pub fn serial(node: &Path) -> Option<String> {
    read(usb_folder(node)?.join("serial"))
}

/// Bus and device number on it.
pub fn usb_number(node: &Path) -> Option<String> {
    let usb = usb_folder(node)?;
    Some(format!("usb {} {}", read(usb.join("busnum"))?, read(usb.join("devnum"))?))
}

/// The nodes of a USB camera, in the order of their numbers.
pub fn usb_nodes(wanted: &UsbDevice) -> Vec<PathBuf> {
    let id = |text: Option<String>| text.and_then(|text| u16::from_str_radix(&text, 16).ok());
    let matches = |node: &PathBuf| {
        usb_folder(node).is_some_and(|usb| {
            id(read(usb.join("idVendor"))) == Some(wanted.vendor)
                && id(read(usb.join("idProduct"))) == Some(wanted.product)
                && (wanted.serial.is_none() || read(usb.join("serial")) == wanted.serial)
        })
    };
    nodes().into_iter().filter(matches).collect()
}

/// The other nodes of the same device: metadata, further streams, the media controller.
pub fn siblings(node: &Path) -> Vec<PathBuf> {
    let Some(device) = folder(node).and_then(|at| fs::canonicalize(at.join("device")).ok()) else { return Vec::new() };
    let mut names: Vec<_> = [device.join("video4linux"), device]
        .iter()
        .flat_map(fs::read_dir)
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            let number = name.strip_prefix("video").or_else(|| name.strip_prefix("media")).unwrap_or("");
            !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
        })
        .collect();
    names.sort_unstable();
    names.into_iter().map(|name| Path::new("/dev").join(name)).filter(|other| other != node).collect()
}
