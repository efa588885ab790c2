//! What cameras on one USB bus ask for together, against what the bus has for them.
//!
//! A camera with isochronous transfers has its part of each microframe reserved while it streams, by the alternate
//! setting that the driver chose. Of one that does not stream, what it would reserve follows from the format and rate
//! that are set.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::finding::Finding;
use super::machine::Machine;
use super::machine::kernel::Picture;
use super::machine::nodes::Node;
use super::machine::usb::{Setting, Usb};

/// Nanoseconds of a microframe, and how many there are in a second.
const MICROFRAME: u64 = 125_000;
const MICROFRAMES: f64 = 8000.0;

/// Of each microframe 80 % may be reserved at high speed (USB 2.0, 5.5.4), 90 % at SuperSpeed (USB 3.2, 8.12.6).
const RESERVABLE_AT_HIGH_SPEED: u64 = MICROFRAME * 80 / 100;
const RESERVABLE_AT_SUPERSPEED: u64 = MICROFRAME * 90 / 100;

/// Bytes of bulk transfers that fit into a microframe that has nothing else: 13 packets of 512 (USB 2.0, 5.8.4).
const BULK_BYTES: u64 = 13 * 512;

/// The header of a payload, one in each microframe (UVC 1.5, 2.4.3.3).
const PAYLOAD_HEADER: u64 = 12;

/// Frames per second of a camera that does not tell.
const RATE_UNKNOWN: f64 = 30.0;

/// What one device takes of its bus.
struct Share {
    /// What to call it.
    name: String,
    usb: String,
    picture: Option<Picture>,
    streams: bool,
    is_camera: bool,
    /// Nanoseconds of each microframe that are reserved, that would be with its least setting, and that bulk takes.
    reserved: u64,
    least: u64,
    bulk: u64,
    bytes: u64,
}

pub fn check(machine: &Machine) -> Vec<Finding> {
    let mut buses: BTreeMap<u32, Vec<Share>> = BTreeMap::new();
    for device in machine.usb.iter().filter(|device| !device.is_root_hub()) {
        buses.entry(device.bus).or_default().extend(share(machine, device));
    }
    buses.iter().filter_map(|(bus, shares)| of_bus(machine, *bus, shares)).collect()
}

fn of_bus(machine: &Machine, bus: u32, shares: &[Share]) -> Option<Finding> {
    let cameras: Vec<&Share> = shares.iter().filter(|share| share.is_camera).collect();
    // All that stream have their part already: it fits.
    if cameras.len() < 2 || cameras.iter().all(|share| share.streams) {
        return None;
    }
    let speed = bus_speed(machine, bus);
    let reservable = if speed > 480 { RESERVABLE_AT_SUPERSPEED } else { RESERVABLE_AT_HIGH_SPEED };
    let sum = |part: fn(&Share) -> u64| shares.iter().map(part).sum::<u64>();
    let (reserved, bulk) = (sum(|share| share.reserved), sum(|share| share.bulk));
    if reserved <= reservable && reserved + bulk <= MICROFRAME {
        return None;
    }
    let (percent, of) = if reserved > reservable {
        (reserved * 100 / reservable, format!("what it may reserve ({} % of its time)", reservable * 100 / MICROFRAME))
    } else {
        ((reserved + bulk) * 100 / MICROFRAME, "all that it has".to_owned())
    };
    let described: Vec<String> = cameras.iter().map(|share| share.describe()).collect();
    let what = format!(
        "{} are on one USB bus (bus {bus}, {speed} Mbit/s), and together ask for {percent} % of {of}: the last to start \
         will fail (ENOSPC), or lose frames",
        described.join(" and ")
    );
    let settings_help = sum(|share| share.least) <= reservable && sum(|share| share.least) < reserved;
    let facts = json!({
        "bus": bus,
        "speed_mbit": speed,
        "percent": percent,
        "cameras": cameras.iter().map(|share| share.name.clone()).collect::<Vec<_>>(),
        "shares": shares.iter().map(Share::facts).collect::<Vec<_>>(),
    });
    let waiting = cameras.iter().find(|share| !share.streams).copied();
    Some(
        Finding::warning("usb-bandwidth", what)
            .of(&waiting.unwrap_or(cameras[0]).name)
            .remedy(remedy(machine, bus, settings_help || bulk > 0))
            .facts(facts),
    )
}

fn remedy(machine: &Machine, bus: u32, settings_help: bool) -> String {
    let others = other_controllers(machine, bus);
    let elsewhere = match others.is_empty() {
        true => "plug one of them into another USB controller: this machine has no other one, so add a card".to_owned(),
        false => format!("plug one of them into a port of another USB controller (bus {})", others.join(", ")),
    };
    match settings_help {
        true => format!("ask for MJPEG, a smaller picture or a lower rate; or {elsewhere}"),
        false => format!("{elsewhere}; no setting of these cameras asks for less"),
    }
}

/// Buses of other controllers that are as fast: ports of one controller's other bus are for other speeds.
fn other_controllers(machine: &Machine, bus: u32) -> Vec<String> {
    let hubs = || machine.usb.iter().filter(|device| device.is_root_hub());
    let Some(own) = hubs().find(|hub| hub.bus == bus) else { return Vec::new() };
    let elsewhere = |hub: &&Usb| hub.folder.parent() != own.folder.parent() && hub.speed == own.speed;
    let mut buses: Vec<u32> = hubs().filter(elsewhere).map(|hub| hub.bus).collect();
    buses.sort_unstable();
    buses.iter().map(u32::to_string).collect()
}

fn bus_speed(machine: &Machine, bus: u32) -> u32 {
    machine.usb.iter().find(|device| device.is_root_hub() && device.bus == bus).map_or(480, |hub| hub.speed)
}

fn share(machine: &Machine, device: &Usb) -> Option<Share> {
    // Slower devices sit behind a hub's translator, and take little.
    if device.speed < 480 {
        return None;
    }
    let cost = |setting: &Setting| cost(device.speed, setting);
    let now: u64 = device.reserved().map(cost).sum();
    let mut share = Share {
        name: machine.name_of_usb(device),
        usb: device.name.clone(),
        picture: None,
        streams: now > 0,
        is_camera: device.is_camera(),
        reserved: now,
        least: now,
        bulk: 0,
        bytes: device.reserved().map(|setting| u64::from(setting.bytes())).sum(),
    };
    if !share.is_camera {
        return (now > 0).then_some(share);
    }
    for node in machine.nodes_of_usb(device) {
        share.add(device, node);
    }
    Some(share)
}

impl Share {
    /// What a node's picture asks for, where it does not stream yet.
    fn add(&mut self, device: &Usb, node: &Node) {
        let Some(picture) = node.answers().and_then(|answers| answers.picture) else { return };
        self.picture = self.picture.or(Some(picture));
        if self.streams {
            return;
        }
        let wanted = bytes_per_microframe(&picture);
        let mut settings: Vec<&Setting> = device.isochronous().collect();
        settings.sort_by_key(|setting| setting.bytes() / setting.interval);
        let Some(least) = settings.first() else {
            self.bytes += wanted.unwrap_or(0);
            self.bulk += wanted.unwrap_or(0) * MICROFRAME / BULK_BYTES * 480 / u64::from(device.speed);
            return;
        };
        // As the driver does: the least that is enough. Compressed pictures need what the camera says when it starts, and
        // that is the least at least.
        let enough = |setting: &&&Setting| u64::from(setting.bytes() / setting.interval) >= wanted.unwrap_or(0);
        let chosen = settings.iter().find(enough).or(settings.last()).unwrap_or(least);
        self.bytes += u64::from(chosen.bytes());
        self.reserved += cost(device.speed, chosen);
        self.least += cost(device.speed, least);
    }

    /// "/dev/video0 (YUYV 640x360 at 30 fps)"
    fn describe(&self) -> String {
        let Some(picture) = &self.picture else { return self.name.clone() };
        let rate = picture.frames_per_second().map_or(String::new(), |rate| format!(" at {rate:.0} fps"));
        let streams = if self.streams { ", streaming" } else { "" };
        format!("{} ({} {}x{}{rate}{streams})", self.name, fourcc(picture), picture.width, picture.height)
    }

    fn facts(&self) -> Value {
        json!({
            "name": self.name,
            "usb": self.usb,
            "format": self.picture.as_ref().map(fourcc),
            "width": self.picture.map(|picture| picture.width),
            "height": self.picture.map(|picture| picture.height),
            "frames_per_second": self.picture.and_then(|picture| picture.frames_per_second()),
            "streaming": self.streams,
            "bytes_per_microframe": self.bytes,
        })
    }
}

fn fourcc(picture: &Picture) -> String {
    super::machine::printable(&String::from_utf8_lossy(&picture.fourcc))
}

/// Nothing for compressed pictures, whose size nobody knows before.
fn bytes_per_microframe(picture: &Picture) -> Option<u64> {
    const COMPRESSED: [&[u8; 4]; 7] = [b"MJPG", b"JPEG", b"H264", b"HEVC", b"H265", b"VP80", b"MPEG"];
    if COMPRESSED.contains(&&picture.fourcc) {
        return None;
    }
    let rate = picture.frames_per_second().unwrap_or(RATE_UNKNOWN);
    Some((f64::from(picture.bytes) * rate / MICROFRAMES).ceil() as u64 + PAYLOAD_HEADER)
}

/// Nanoseconds of each microframe, as the kernel's own account has it (usb_calc_bus_time): at high speed with the stuffed
/// bits of the worst case.
fn cost(speed: u32, setting: &Setting) -> u64 {
    let bytes = u64::from(setting.bytes());
    let turn = match speed {
        480 => {
            let bits = 7 * 8 * bytes / 6;
            (38 * 8 * 2083 + 2083 * (3 + bits)) / 1000 + 5
        }
        // Ten bits for each byte.
        _ => bytes * 10_000 / u64::from(speed.max(1)),
    };
    turn / u64::from(setting.interval.max(1))
}

#[cfg(test)]
mod tests {
    use super::super::machine::kernel::Answers;
    use super::super::machine::nodes::Access;
    use super::super::machine::tree::capture::capture;
    use super::super::machine::usb::capture::plug;
    use super::*;

    const CAPTURE: u32 = 1;

    fn picture(fourcc: &[u8; 4], width: u32, height: u32, rate: u32) -> Picture {
        Picture { fourcc: *fourcc, width, height, bytes: width * height * 2, interval: (1, rate) }
    }

    /// Two webcams on one bus with these pictures, and alternate settings of 128, 800 and 3072 bytes.
    fn two(first: Picture, second: Picture) -> Machine {
        let machine = capture(&[]);
        plug(&machine, 1, 0, Some("uvcvideo"));
        plug(&machine, 2, 1, Some("uvcvideo"));
        let mut machine = Machine::read_from(machine.tree.clone(), 0, vec![0]);
        for (node, picture) in machine.nodes.iter_mut().zip([first, second]) {
            let answers = Answers { capabilities: CAPTURE, picture: Some(picture), ..Answers::default() };
            node.access = Access::Answered(answers);
        }
        machine
    }

    #[test]
    fn two_large_pictures_are_too_much_for_one_bus() {
        let large = picture(b"YUYV", 640, 480, 30);
        let findings = check(&two(large, large));
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((finding.id, finding.camera.as_deref()), ("usb-bandwidth", Some("/dev/video0")));
        assert!(finding.what.starts_with("/dev/video0 (YUYV 640x480 at 30 fps) and /dev/video1"), "{}", finding.what);
        assert_eq!(finding.facts["percent"], 120);
        assert_eq!(finding.facts["cameras"], json!(["/dev/video0", "/dev/video1"]));
        assert!(finding.remedy.starts_with("ask for MJPEG"), "{}", finding.remedy);
    }

    #[test]
    fn one_large_and_one_small_fit() {
        assert_eq!(check(&two(picture(b"YUYV", 640, 480, 30), picture(b"YUYV", 320, 240, 15))), []);
        assert_eq!(check(&two(picture(b"MJPG", 1920, 1080, 30), picture(b"MJPG", 1920, 1080, 30))), []);
    }

    #[test]
    fn what_streams_counts_by_what_is_reserved() {
        let mut machine = two(picture(b"MJPG", 1920, 1080, 30), picture(b"YUYV", 640, 480, 30));
        machine.usb[0].interfaces[1].setting = 3;
        let findings = check(&machine);
        assert_eq!(findings[0].camera.as_deref(), Some("/dev/video1"), "the one that will not start");
        assert!(findings[0].what.contains("at 30 fps, streaming)"), "{}", findings[0].what);
        machine.usb[1].interfaces[1].setting = 3;
        assert_eq!(check(&machine), [], "both stream: the controller had enough");
    }

    #[test]
    fn cameras_without_smaller_settings_have_to_go_elsewhere() {
        let large = picture(b"YUYV", 640, 480, 30);
        let mut machine = two(large, large);
        for device in &mut machine.usb {
            device.settings.retain(|setting| setting.packets == 3 || !setting.isochronous);
        }
        assert!(check(&machine)[0].remedy.starts_with("plug one of them"), "{}", check(&machine)[0].remedy);
    }

    #[test]
    fn another_controller_is_named_where_there_is_one() {
        let large = picture(b"YUYV", 640, 480, 30);
        let mut machine = two(large, large);
        for (bus, controller) in [(1, "pci0"), (2, "pci0"), (3, "pci1")] {
            machine.usb.push(Usb {
                name: format!("usb{bus}"),
                folder: format!("/sys/devices/{controller}/usb{bus}").into(),
                bus,
                speed: if bus == 2 { 5000 } else { 480 },
                ..Usb::default()
            });
        }
        assert!(check(&machine)[0].remedy.ends_with("another USB controller (bus 3)"), "{}", check(&machine)[0].remedy);
    }

    #[test]
    fn bulk_cameras_share_what_there_is() {
        let large = picture(b"YUYV", 1280, 720, 30);
        let mut machine = two(large, large);
        for device in &mut machine.usb {
            device.settings.iter_mut().for_each(|setting| setting.isochronous = false);
        }
        assert!(check(&machine)[0].what.contains("% of all that it has"), "{}", check(&machine)[0].what);
        let small = picture(b"YUYV", 640, 360, 30);
        for node in &mut machine.nodes {
            node.access =
                Access::Answered(Answers { capabilities: CAPTURE, picture: Some(small), ..Answers::default() });
        }
        assert_eq!(check(&machine), []);
    }

    #[test]
    fn the_cost_is_the_kernels() {
        // usb_calc_bus_time(USB_SPEED_HIGH, 1, 1, 3072): 59 microseconds and some.
        let setting = Setting { packet: 1024, packets: 3, interval: 1, ..Setting::default() };
        assert_eq!(cost(480, &setting), (38 * 8 * 2083 + 2083 * (3 + 28_672)) / 1000 + 5);
        assert!((58_000..62_000).contains(&cost(480, &setting)));
    }
}
