//! USB devices: where each is plugged in, how fast, what drives it, and what its descriptors say that it needs.

use std::path::PathBuf;

use super::printable;
use super::tree::{Number, Tree};

const DEVICES: &str = "/sys/bus/usb/devices";

/// Class of interfaces that give pictures, and its two subclasses.
pub const VIDEO: u8 = 0x0e;
const VIDEO_CONTROL: u8 = 1;
const VIDEO_STREAMING: u8 = 2;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usb {
    /// "1-2.3": bus and ports, "usb1" for a bus's own hub.
    pub name: String,
    pub folder: PathBuf,
    pub bus: u32,
    pub address: u32,
    pub vendor: u16,
    pub product: u16,
    pub title: String,
    pub serial: Option<String>,
    /// In Mbit/s, 1 for 1.5.
    pub speed: u32,
    /// bcdUSB: 0x0200.
    pub version: u16,
    pub authorized: bool,
    /// power/control: "auto" lets it sleep, "on" does not.
    pub power: String,
    pub interfaces: Vec<Interface>,
    /// All alternate settings of the interfaces with video, out of the descriptors.
    pub settings: Vec<Setting>,
    /// The device could go at 5 Gbit/s or more, by its own word.
    pub superspeed: bool,
}

/// An interface as sysfs has it, once the device is configured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interface {
    /// "1-2.3:1.0"
    pub name: String,
    pub number: u8,
    pub class: u8,
    pub subclass: u8,
    pub driver: Option<String>,
    /// The alternate setting that is in force.
    pub setting: u8,
    pub authorized: bool,
}

/// One alternate setting's endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Setting {
    pub interface: u8,
    pub setting: u8,
    pub class: u8,
    pub subclass: u8,
    pub isochronous: bool,
    /// Most bytes of one packet, and packets in each microframe.
    pub packet: u32,
    pub packets: u32,
    /// Microframes (frames below high speed) from one turn to the next.
    pub interval: u32,
    /// Bytes of each turn at SuperSpeed, where a companion descriptor says so.
    pub bytes_per_interval: Option<u32>,
}

impl Setting {
    /// Bytes of each turn.
    pub fn bytes(&self) -> u32 {
        self.bytes_per_interval.unwrap_or(self.packet * self.packets)
    }
}

pub fn read(tree: &Tree) -> Vec<Usb> {
    let names = tree.names(DEVICES);
    names.iter().filter(|name| !name.contains(':')).filter_map(|name| Usb::read(tree, name, &names)).collect()
}

impl Usb {
    fn read(tree: &Tree, name: &str, all: &[String]) -> Option<Usb> {
        let folder = tree.real(format!("{DEVICES}/{name}"))?;
        let text = |file: &str| tree.text(folder.join(file));
        let id = |file: &str| u16::from_str_radix(&text(file)?, 16).ok();
        let of_this = |other: &&String| other.strip_prefix(name).is_some_and(|rest| rest.starts_with(':'));
        let descriptors = tree.bytes(folder.join("descriptors")).unwrap_or_default();
        let capabilities = tree.bytes(folder.join("bos_descriptors")).unwrap_or_default();
        let version = text("version").and_then(|text| version(&text)).unwrap_or(0);
        Some(Usb {
            name: name.to_owned(),
            bus: tree.number(folder.join("busnum"))?,
            address: tree.number(folder.join("devnum"))?,
            vendor: id("idVendor")?,
            product: id("idProduct")?,
            title: printable(
                &[text("manufacturer"), text("product")].into_iter().flatten().collect::<Vec<_>>().join(" "),
            ),
            serial: text("serial").map(|serial| printable(&serial)),
            speed: text("speed").and_then(|speed| speed.split('.').next()?.parse().ok()).unwrap_or(0),
            version,
            authorized: text("authorized").is_none_or(|word| word != "0"),
            power: text("power/control").unwrap_or_default(),
            interfaces: all.iter().filter(of_this).filter_map(|interface| Interface::read(tree, interface)).collect(),
            settings: settings(&descriptors),
            superspeed: version >= 0x0300 || names_superspeed(&capabilities),
            folder,
        })
    }

    pub fn is_root_hub(&self) -> bool {
        self.name.starts_with("usb")
    }

    /// Whether it is a camera by its descriptors, which tell even where it was not let in.
    pub fn is_camera(&self) -> bool {
        self.interfaces.iter().any(|interface| interface.class == VIDEO)
            || self.settings.iter().any(|setting| setting.class == VIDEO)
    }

    /// The interface that a driver binds; it takes the streaming ones along.
    pub fn control(&self) -> impl Iterator<Item = &Interface> {
        self.interfaces.iter().filter(|interface| interface.class == VIDEO && interface.subclass == VIDEO_CONTROL)
    }

    /// Isochronous settings that a driver chooses from.
    pub fn isochronous(&self) -> impl Iterator<Item = &Setting> {
        let video = |setting: &&Setting| setting.class == VIDEO && setting.subclass == VIDEO_STREAMING;
        self.settings.iter().filter(|setting| setting.isochronous && setting.packet > 0).filter(video)
    }

    /// Settings that are in force: what the bus has reserved for it now.
    pub fn reserved(&self) -> impl Iterator<Item = &Setting> {
        self.settings.iter().filter(|setting| setting.isochronous).filter(|setting| {
            self.interfaces
                .iter()
                .any(|interface| interface.number == setting.interface && interface.setting == setting.setting)
        })
    }

    /// "Camlease Rig Camera (1209:0001, USB 15-1)"
    pub fn called(&self) -> String {
        let title = if self.title.is_empty() { "a USB device" } else { &self.title };
        format!("{title} ({:04x}:{:04x}, USB {})", self.vendor, self.product, self.name)
    }

    /// Its node for programs that drive USB devices by themselves.
    pub fn raw_node(&self) -> PathBuf {
        PathBuf::from(format!("/dev/bus/usb/{:03}/{:03}", self.bus, self.address))
    }

    /// That node's number: 128 minors for each bus.
    pub fn raw_number(&self) -> Number {
        const USB_MAJOR: u32 = 189;
        (USB_MAJOR, (self.bus.max(1) - 1) * 128 + self.address.max(1) - 1)
    }
}

impl Interface {
    fn read(tree: &Tree, name: &str) -> Option<Interface> {
        let folder = tree.real(format!("{DEVICES}/{name}"))?;
        let text = |file: &str| tree.text(folder.join(file));
        let hex = |file: &str| u8::from_str_radix(&text(file)?, 16).ok();
        Some(Interface {
            name: name.to_owned(),
            number: hex("bInterfaceNumber")?,
            class: hex("bInterfaceClass")?,
            subclass: hex("bInterfaceSubClass")?,
            driver: tree.link_name(folder.join("driver")),
            setting: text("bAlternateSetting").and_then(|text| text.parse().ok()).unwrap_or(0),
            authorized: text("authorized").is_none_or(|word| word != "0"),
        })
    }
}

/// " 2.10" is 0x0210.
fn version(text: &str) -> Option<u16> {
    let (major, minor) = text.trim().split_once('.')?;
    Some(u16::from_str_radix(major, 16).ok()? << 8 | u16::from_str_radix(minor, 16).ok()?)
}

/// The descriptors one after the other: type and bytes.
fn each_descriptor(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(*rest.first()?);
        if length < 2 || length > rest.len() {
            return None;
        }
        let (one, more) = rest.split_at(length);
        rest = more;
        Some((one[1], one))
    })
}

fn settings(descriptors: &[u8]) -> Vec<Setting> {
    const INTERFACE: u8 = 4;
    const ENDPOINT: u8 = 5;
    const COMPANION: u8 = 0x30;
    let mut settings: Vec<Setting> = Vec::new();
    let mut interface = Setting::default();
    for (kind, bytes) in each_descriptor(descriptors) {
        match kind {
            INTERFACE if bytes.len() >= 9 => {
                interface = Setting {
                    interface: bytes[2],
                    setting: bytes[3],
                    class: bytes[5],
                    subclass: bytes[6],
                    ..Setting::default()
                };
                // A setting without endpoints tells the class all the same.
                if bytes[4] == 0 {
                    settings.push(interface);
                }
            }
            ENDPOINT if bytes.len() >= 7 => {
                let size = u32::from(u16::from_le_bytes([bytes[4], bytes[5]]));
                settings.push(Setting {
                    isochronous: bytes[3] & 3 == 1,
                    packet: size & 0x7ff,
                    packets: 1 + (size >> 11 & 3),
                    interval: 1 << u32::from(bytes[6].clamp(1, 16) - 1),
                    ..interface
                });
            }
            COMPANION if bytes.len() >= 6 => {
                if let Some(endpoint) = settings.last_mut() {
                    endpoint.bytes_per_interval = Some(u32::from(u16::from_le_bytes([bytes[4], bytes[5]])));
                }
            }
            _ => {}
        }
    }
    settings
}

/// A device that is plugged into an old port says there what it could do in a new one.
fn names_superspeed(capabilities: &[u8]) -> bool {
    const DEVICE_CAPABILITY: u8 = 0x10;
    const SUPERSPEED: u8 = 3;
    const SUPERSPEED_PLUS: u8 = 0x0a;
    each_descriptor(capabilities)
        .any(|(kind, bytes)| kind == DEVICE_CAPABILITY && matches!(bytes.get(2), Some(&(SUPERSPEED | SUPERSPEED_PLUS))))
}

#[cfg(test)]
pub mod capture {
    use super::super::tree::capture::Capture;
    use super::*;

    /// The descriptors of a webcam with an interface for control and one for streaming, whose alternate settings from 1
    /// on have these sizes (wMaxPacketSize).
    pub fn descriptors(sizes: &[u16]) -> Vec<u8> {
        let mut bytes = vec![9, 2, 0, 0, 2, 1, 0, 0x80, 250];
        bytes.extend([9, 4, 0, 0, 1, VIDEO, VIDEO_CONTROL, 0, 0]);
        bytes.extend([7, 5, 0x83, 3, 16, 0, 8]);
        bytes.extend([9, 4, 1, 0, 0, VIDEO, VIDEO_STREAMING, 0, 0]);
        for (index, size) in sizes.iter().enumerate() {
            bytes.extend([9, 4, 1, index as u8 + 1, 1, VIDEO, VIDEO_STREAMING, 0, 0]);
            let [low, high] = size.to_le_bytes();
            bytes.extend([7, 5, 0x81, 5, low, high, 1]);
        }
        bytes
    }

    /// Plugs a webcam in, with node videoNUMBER where there is a driver.
    pub fn plug(machine: &Capture, port: u32, number: u32, driver: Option<&str>) -> PathBuf {
        let folder = format!("/sys/devices/pci0/usb1/1-{port}");
        let add = |file: &str, text: &str| machine.add(&format!("{folder}/{file}"), text.as_bytes());
        let own = [
            ("busnum", "1"),
            ("idVendor", "046d"),
            ("idProduct", "0825"),
            ("manufacturer", "Acme"),
            ("product", "Webcam"),
            ("speed", "480"),
            ("version", " 2.00"),
            ("authorized", "1"),
            ("power/control", "on"),
        ];
        own.iter().for_each(|(file, text)| add(file, text));
        add("devnum", &(port + 1).to_string());
        machine.add(&format!("{folder}/descriptors"), &descriptors(&[128, 800, 0x1400]));
        for (interface, subclass) in [(0, "01"), (1, "02")] {
            let at = format!("1-{port}:1.{interface}");
            add(&format!("{at}/bInterfaceNumber"), &format!("0{interface}"));
            add(&format!("{at}/bInterfaceClass"), "0e");
            add(&format!("{at}/bInterfaceSubClass"), subclass);
            add(&format!("{at}/bAlternateSetting"), " 0");
            if let Some(driver) = driver {
                add(&format!("{at}/driver"), &format!("-> ../../../../../bus/usb/drivers/{driver}"));
            }
            let link = format!("/sys/bus/usb/devices/{at}");
            machine.add(&link, format!("-> ../../../devices/pci0/usb1/1-{port}/{at}").as_bytes());
        }
        machine.add(
            &format!("/sys/bus/usb/devices/1-{port}"),
            format!("-> ../../../devices/pci0/usb1/1-{port}").as_bytes(),
        );
        if driver == Some("uvcvideo") {
            let node = format!("1-{port}:1.0/video4linux/video{number}");
            add(&format!("{node}/dev"), &format!("81:{number}"));
            add(&format!("{node}/index"), "0");
            add(&format!("{node}/name"), "Webcam");
            add(&format!("{node}/device"), &format!("-> ../../../1-{port}:1.0"));
            let link = format!("-> ../../devices/pci0/usb1/1-{port}/{node}");
            machine.add(&format!("/sys/class/video4linux/video{number}"), link.as_bytes());
            let entry = format!("device 81:{number} 0660 0 44");
            machine.add(&format!("/dev/video{number}"), entry.as_bytes());
        }
        PathBuf::from(folder)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::capture::capture as machine;
    use super::*;

    #[test]
    fn a_webcam_is_read_from_a_capture() {
        let machine = machine(&[]);
        capture::plug(&machine, 2, 0, Some("uvcvideo"));
        let all = read(&machine.tree);
        let [webcam] = &all[..] else { panic!("{all:?}") };
        assert_eq!(webcam.called(), "Acme Webcam (046d:0825, USB 1-2)");
        assert_eq!((webcam.speed, webcam.version, webcam.superspeed), (480, 0x0200, false));
        assert!(webcam.is_camera());
        assert_eq!(webcam.control().next().unwrap().driver.as_deref(), Some("uvcvideo"));
        let bytes: Vec<u32> = webcam.isochronous().map(Setting::bytes).collect();
        assert_eq!(bytes, [128, 800, 3072]);
        assert_eq!(webcam.reserved().count(), 0, "it does not stream");
        assert_eq!(webcam.raw_node(), PathBuf::from("/dev/bus/usb/001/003"));
        assert_eq!(webcam.raw_number(), (189, 2));
    }

    #[test]
    fn a_device_in_an_old_port_tells_that_it_could_do_more() {
        // USB 3.2, 9.6.2: the header, a capability of USB 2.0, one of SuperSpeed.
        let mut bytes = vec![5, 0x0f, 22, 0, 2, 7, 0x10, 2, 2, 0, 0, 0];
        assert!(!names_superspeed(&bytes));
        bytes.extend([10, 0x10, 3, 0, 0x0e, 0, 1, 0, 0, 0]);
        assert!(names_superspeed(&bytes));
    }

    #[test]
    fn descriptors_that_end_early_are_no_trouble() {
        let whole = capture::descriptors(&[3072]);
        for length in 0..whole.len() {
            settings(&whole[..length]);
        }
        assert!(settings(&[0, 5, 7]).is_empty());
    }

    #[test]
    fn versions_are_binary_coded_decimals() {
        assert_eq!(version(" 2.10"), Some(0x0210));
        assert_eq!(version(" 3.20"), Some(0x0320));
    }
}
