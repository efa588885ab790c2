//! USB cameras: whether a driver has them, how fast they are connected, whether they may fall asleep.

use std::path::Path;

use serde_json::json;

use super::finding::Finding;
use super::machine::Machine;
use super::machine::usb::Usb;

const DRIVER: &str = "uvcvideo";
const MODULE_SETTINGS: [&str; 4] = ["/etc/modprobe.d", "/run/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d"];

/// Cameras that the kernel keeps awake since Linux 6.10 and 6.11, because they do not come back from sleep.
const BAD_SLEEPERS: [(u16, u16); 4] = [(0x046d, 0x087c), (0x046d, 0x089b), (0x046d, 0x08d3), (0x2e1a, 0x4c01)];

pub fn check(machine: &Machine) -> Vec<Finding> {
    machine.usb.iter().filter(|device| device.is_camera()).flat_map(|device| of_camera(machine, device)).collect()
}

fn of_camera(machine: &Machine, device: &Usb) -> Vec<Finding> {
    let facts = json!({
        "usb": device.name,
        "usb_name": device.title,
        "usb_id": format!("{:04x}:{:04x}", device.vendor, device.product),
        "speed_mbit": device.speed,
    });
    let findings = [without_driver(machine, device), slow_link(machine, device), sleeps(device)];
    let name = machine.name_of_usb(device);
    findings.into_iter().flatten().map(|finding| finding.of(&name).facts(facts.clone())).collect()
}

fn without_driver(machine: &Machine, device: &Usb) -> Option<Finding> {
    let called = device.called();
    if !device.authorized {
        let what = format!("{called} is plugged in, and this machine did not let it in (authorized is 0)");
        let remedy = format!(
            "echo 1 | sudo tee {}/authorized; for good: allow it in USBGuard, or where authorized_default is set",
            device.folder.display()
        );
        return Some(Finding::problem("not-authorized", what).remedy(remedy));
    }
    if device.interfaces.is_empty() {
        let what = format!("{called} is plugged in and was not configured: the port's power may not do for it");
        let remedy = "plug it into the machine itself or a hub with power of its own; sudo dmesg has the reason";
        return Some(Finding::problem("not-configured", what).remedy(remedy));
    }
    let interface = device.control().find(|interface| interface.driver.is_none())?;
    if !interface.authorized {
        let what = format!("{called} is plugged in, and its interface {} was not let in", interface.name);
        let remedy = format!("echo 1 | sudo tee {}/{}/authorized", device.folder.display(), interface.name);
        return Some(Finding::problem("not-authorized", what).remedy(remedy));
    }
    let (why, remedy) = missing_driver(machine, &interface.name);
    let what = format!("{called} is plugged in, and no driver has it: {why}");
    Some(Finding::problem("no-driver", what).remedy(remedy).fact("interface", interface.name.clone()))
}

/// Why nothing has bound a camera, and what helps.
fn missing_driver(machine: &Machine, interface: &str) -> (String, String) {
    let load = format!("sudo modprobe {DRIVER}");
    if machine.tree.exists(format!("/sys/module/{DRIVER}")) {
        return (
            format!("{DRIVER} is loaded, and was taken off it or refused it"),
            format!(
                "echo {interface} | sudo tee /sys/bus/usb/drivers/{DRIVER}/bind; sudo dmesg tells if it refuses again"
            ),
        );
    }
    if let Some((file, line)) = blocked(machine) {
        return (
            format!("{DRIVER} is kept from loading by \"{line}\" in {file}"),
            format!("take that line out of {file}; then {load}"),
        );
    }
    if let Some(kind) = &machine.container {
        return (format!("{DRIVER} is not loaded"), format!("on the machine around this container ({kind}): {load}"));
    }
    let release = machine.tree.text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let folder = Path::new("/lib/modules").join(&release);
    let has = |file: &str| machine.tree.text(folder.join(file)).is_some_and(|text| text.contains("uvcvideo.ko"));
    if !has("modules.dep") && !has("modules.builtin") {
        return (
            format!("the running kernel ({release}) has no module {DRIVER}"),
            format!(
                "install the modules of this kernel (Ubuntu: linux-modules-extra-{release}), or restart if it was \
                 updated since; then {load}"
            ),
        );
    }
    (format!("{DRIVER} is not loaded"), load)
}

/// The line that keeps the driver from being loaded, with its file.
fn blocked(machine: &Machine) -> Option<(String, String)> {
    for folder in MODULE_SETTINGS {
        for name in machine.tree.names(folder).into_iter().filter(|name| name.ends_with(".conf")) {
            let file = Path::new(folder).join(name);
            let text = machine.tree.text(&file).unwrap_or_default();
            let line = text.lines().map(str::trim).find(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                matches!(words[..], ["blacklist", DRIVER, ..] | ["install", DRIVER, ..])
            });
            if let Some(line) = line {
                return Some((file.display().to_string(), super::machine::printable(line)));
            }
        }
    }
    None
}

fn slow_link(machine: &Machine, device: &Usb) -> Option<Finding> {
    const FULL_SPEED: u32 = 12;
    const HIGH_SPEED: u32 = 480;
    // At high speed a device of USB 3 calls itself 2.1.
    let superspeed = device.superspeed || device.version == 0x0210 && super::vendors::is_realsense(device);
    let (could, remedy) = match device.speed {
        0 => return None,
        speed if superspeed && speed <= HIGH_SPEED => (
            "could do 5000 Mbit/s or more",
            "plug it into a USB 3 port (blue, or marked SS) by a USB 3 cable, and push the plug home",
        ),
        speed if speed <= FULL_SPEED && device.version >= 0x0200 => (
            "needs a high-speed link (480 Mbit/s) for pictures of any size",
            "try another cable and port, and leave out hubs and extensions that are older than USB 2.0",
        ),
        _ => return None,
    };
    let what = format!("{} is connected at {} Mbit/s, and {could}", device.called(), device.speed);
    // "1-2.3" is port 3 of the hub "1-2".
    let hub = device.name.rsplit_once('.').and_then(|(hub, _)| machine.usb.iter().find(|other| other.name == hub));
    let remedy = match hub {
        Some(hub) => format!("{remedy}. It is behind a hub, {}: try it without", hub.called()),
        None => remedy.to_owned(),
    };
    Some(
        Finding::warning("usb-slow-link", what)
            .remedy(remedy)
            .fact("usb_version", format!("{:x}", device.version))
            .fact("hub", hub.map(|hub| hub.name.clone())),
    )
}

fn sleeps(device: &Usb) -> Option<Finding> {
    if device.power != "auto" || !BAD_SLEEPERS.contains(&(device.vendor, device.product)) {
        return None;
    }
    let what = format!("{} may fall asleep (autosuspend), and its kind is known not to wake up well", device.called());
    let remedy = format!(
        "echo on | sudo tee {}/power/control; for good a udev rule: ATTR{{idVendor}}==\"{:04x}\", \
         ATTR{{idProduct}}==\"{:04x}\", ATTR{{power/control}}=\"on\"",
        device.folder.display(),
        device.vendor,
        device.product
    );
    Some(Finding::note("usb-autosuspend", what).remedy(remedy))
}

#[cfg(test)]
mod tests {
    use super::super::machine::tree::capture::{Capture, capture};
    use super::super::machine::usb::capture::plug;
    use super::*;

    fn read(machine: &Capture) -> Machine {
        Machine::read_from(machine.tree.clone(), 0, vec![0])
    }

    #[test]
    fn a_camera_with_its_driver_is_fine() {
        let machine = capture(&[]);
        plug(&machine, 1, 0, Some("uvcvideo"));
        assert_eq!(check(&read(&machine)), []);
    }

    /// What is told of a webcam that no driver has.
    fn without_driver_in(files: &[(&str, &str)]) -> Finding {
        let machine = capture(files);
        plug(&machine, 1, 0, None);
        let findings = check(&read(&machine));
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!((finding.id, finding.camera.as_deref()), ("no-driver", Some("usb:046d:0825")));
        finding.clone()
    }

    #[test]
    fn why_there_is_no_driver_is_told() {
        let release = ("/proc/sys/kernel/osrelease", "6.1.0-rig");
        let modules =
            ("/lib/modules/6.1.0-rig/modules.dep", "kernel/drivers/media/usb/uvc/uvcvideo.ko.xz: kernel/x.ko");
        let none = without_driver_in(&[release]);
        assert!(none.what.ends_with("(6.1.0-rig) has no module uvcvideo"), "{}", none.what);
        let unloaded = without_driver_in(&[release, modules]);
        assert_eq!(unloaded.remedy, "sudo modprobe uvcvideo");
        let blocked =
            without_driver_in(&[release, modules, ("/etc/modprobe.d/no.conf", "# no cameras\nblacklist uvcvideo\n")]);
        assert!(blocked.what.ends_with("by \"blacklist uvcvideo\" in /etc/modprobe.d/no.conf"), "{}", blocked.what);
        let unbound = without_driver_in(&[release, modules, ("/sys/module/uvcvideo/refcnt", "0")]);
        assert!(unbound.remedy.starts_with("echo 1-1:1.0 | sudo tee"), "{}", unbound.remedy);
        let contained = without_driver_in(&[("/run/.containerenv", "")]);
        assert!(contained.remedy.starts_with("on the machine around"), "{}", contained.remedy);
    }

    #[test]
    fn a_camera_that_was_not_let_in_or_not_configured_is_known_by_its_descriptors() {
        let machine = capture(&[]);
        plug(&machine, 1, 0, None);
        let mut machine = read(&machine);
        machine.usb[0].interfaces.clear();
        assert_eq!(check(&machine)[0].id, "not-configured");
        machine.usb[0].authorized = false;
        let findings = check(&machine);
        assert_eq!((findings.len(), findings[0].id), (1, "not-authorized"));
        assert!(findings[0].remedy.starts_with("echo 1 | sudo tee /sys/"), "{}", findings[0].remedy);
    }

    #[test]
    fn slow_links_and_bad_sleepers_are_told() {
        let machine = capture(&[]);
        plug(&machine, 1, 0, Some("uvcvideo"));
        let machine = read(&machine);
        let with = |change: fn(&mut Usb)| {
            let mut machine = machine.clone();
            change(&mut machine.usb[0]);
            check(&machine).into_iter().map(|finding| finding.id).collect::<Vec<_>>()
        };
        assert_eq!(with(|usb| usb.superspeed = true), ["usb-slow-link"]);
        assert_eq!(with(|usb| (usb.superspeed, usb.speed) = (true, 5000)), [""; 0]);
        assert_eq!(with(|usb| usb.speed = 12), ["usb-slow-link"]);
        assert_eq!(with(|usb| (usb.vendor, usb.product, usb.version) = (0x8086, 0x0b07, 0x0210)), ["usb-slow-link"]);
        assert_eq!(with(|usb| usb.version = 0x0210), [""; 0], "2.1 alone is no USB 3");
        assert_eq!(with(|usb| usb.power = "auto".into()), [""; 0], "most cameras sleep well");
        let mut behind_hub = machine.clone();
        let hub = Usb { name: "1-1".into(), title: "Old Hub".into(), ..Usb::default() };
        (behind_hub.usb[0].name, behind_hub.usb[0].superspeed) = ("1-1.4".into(), true);
        behind_hub.usb.push(hub);
        assert!(check(&behind_hub)[0].remedy.contains("behind a hub, Old Hub"), "{}", check(&behind_hub)[0].remedy);
        let sleeper = |usb: &mut Usb| (usb.power, usb.vendor, usb.product) = ("auto".into(), 0x046d, 0x08d3);
        assert_eq!(with(sleeper), ["usb-autosuspend"]);
    }
}
