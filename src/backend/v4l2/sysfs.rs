//! What the kernel's device tree says of a video node without opening it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::holders::printable;
use crate::uri::UsbDevice;

const CLASS: &str = "/sys/class/video4linux";
const USB_DEVICES: &str = "/sys/bus/usb/devices";
/// bInterfaceClass of cameras.
const VIDEO: &str = "0e";

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
pub fn folder(node: &Path) -> Option<PathBuf> {
    folder_of(fs::metadata(node).ok()?.rdev())
}

/// The same, by the node's device number.
pub fn folder_of(number: u64) -> Option<PathBuf> {
    let (major, minor) = (libc::major(number), libc::minor(number));
    fs::canonicalize(format!("/sys/dev/char/{major}:{minor}")).ok()
}

fn read(path: PathBuf) -> Option<String> {
    Some(printable(&fs::read_to_string(path).ok()?)).filter(|text| !text.is_empty())
}

/// The name that the driver gave the node.
pub fn name(node: &Path) -> Option<String> {
    read(folder(node)?.join("name"))
}

/// Whether this is the first node of its device: on a USB camera the one with the pictures.
pub fn is_first(node: &Path) -> bool {
    folder(node).and_then(|at| read(at.join("index"))).is_none_or(|index| index == "0")
}

/// The folder of the device that a node's folder is in, by name.
pub fn device_name(at: &Path) -> String {
    let device = fs::canonicalize(at.join("device")).ok();
    device.as_deref().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned()
}

/// The USB device that a folder of the device tree is in.
pub fn usb_ancestor(at: &Path) -> Option<PathBuf> {
    at.ancestors().find(|at| at.join("idVendor").exists()).map(Path::to_owned)
}

/// The USB device that a node belongs to.
fn usb_folder(node: &Path) -> Option<PathBuf> {
    usb_ancestor(&folder(node)?)
}

/// Which of its USB device's nodes one is, whatever their numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceInDevice {
    /// Configuration and interface, as 1.0; empty where the driver has the device as a whole.
    interface: String,
    index: String,
}

pub fn place_in_device(at: &Path) -> PlaceInDevice {
    let interface = device_name(at).split_once(':').map(|(_, interface)| interface.to_owned());
    PlaceInDevice { interface: interface.unwrap_or_default(), index: read(at.join("index")).unwrap_or_default() }
}

/// Folders of all USB devices.
pub fn usb_devices() -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(USB_DEVICES).into_iter().flatten().flatten();
    // Interfaces stand there as well, and have a colon in their names.
    let devices = entries.filter(|entry| !entry.file_name().as_encoded_bytes().contains(&b':'));
    devices.filter_map(|entry| fs::canonicalize(entry.path()).ok())
}

/// The folder of the USB device in a port.
pub fn usb_device(port: &str) -> Option<PathBuf> {
    fs::canonicalize(Path::new(USB_DEVICES).join(port)).ok()
}

/// Who a USB device says it is.
pub fn usb_identity(usb: &Path) -> Option<UsbDevice> {
    let id = |name| read(usb.join(name)).and_then(|text| u16::from_str_radix(&text, 16).ok());
    Some(UsbDevice { vendor: id("idVendor")?, product: id("idProduct")?, serial: read(usb.join("serial")) })
}

/// The node of a USB device as a whole.
pub fn usb_node(usb: &Path) -> Option<PathBuf> {
    let number = |name| read(usb.join(name)).and_then(|text| text.parse::<u32>().ok());
    Some(PathBuf::from(format!("/dev/bus/usb/{:03}/{:03}", number("busnum")?, number("devnum")?)))
}

/// Whether a USB device says that it is a camera, also where no driver has it.
fn is_camera(usb: &Path) -> bool {
    let parts = fs::read_dir(usb).into_iter().flatten().flatten();
    parts.map(|part| part.path()).any(|part| read(part.join("bInterfaceClass")).as_deref() == Some(VIDEO))
}

/// The cameras on USB with these ids, with nodes or without, by their folders.
pub fn usb_cameras(wanted: &UsbDevice) -> Vec<PathBuf> {
    let mut cameras: Vec<_> = usb_nodes(wanted).iter().filter_map(|node| usb_folder(node)).collect();
    cameras.extend(usb_devices().filter(|usb| is_usb(usb, wanted) && is_camera(usb)));
    cameras.sort();
    cameras.dedup();
    cameras
}

/// The video nodes of a USB device.
pub fn nodes_of(usb: &Path) -> Vec<PathBuf> {
    nodes().into_iter().filter(|node| usb_folder(node).as_deref() == Some(usb)).collect()
}

fn is_usb(usb: &Path, wanted: &UsbDevice) -> bool {
    usb_identity(usb).is_some_and(|found| {
        (found.vendor, found.product) == (wanted.vendor, wanted.product)
            && (wanted.serial.is_none() || found.serial == wanted.serial)
    })
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
    nodes().into_iter().filter(|node| usb_folder(node).is_some_and(|usb| is_usb(&usb, wanted))).collect()
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
