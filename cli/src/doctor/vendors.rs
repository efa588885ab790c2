//! Cameras that need a library of their vendor's or libcamera for their pictures, and whether it is installed.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::finding::Finding;
use super::machine::Machine;
use super::machine::tree::Tree;
use super::machine::usb::Usb;

const INTEL: u16 = 0x8086;
const REALSENSE: &str = "librealsense2.so";
const LIBCAMERA: &str = "libcamera.so";

/// Drivers of camera interfaces and image processors that give raw sensor data, or nothing, without libcamera's set-up.
const NEEDS_LIBCAMERA: [&str; 17] = [
    "unicam",
    "bcm2835-unicam",
    "rp1-cfe",
    "pispbe",
    "bcm2835-isp",
    "rkisp1",
    "rkcif",
    "ipu3-cio2",
    "ipu3-imgu",
    "ipu6",
    "intel-ipu6",
    "intel-ipu7",
    "qcom-camss",
    "mxc-isi",
    "sun6i-csi",
    "starfive-camss",
    "mali-c55",
];

const RULES: [&str; 4] = ["/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d"];

/// Where the dynamic linker looks in any case.
const LIBRARIES: [&str; 4] = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"];

pub fn check(machine: &Machine) -> Vec<Finding> {
    let mut findings = realsense(machine);
    findings.extend(libcamera(machine));
    findings
}

/// Intel's depth cameras: D400 and L500 are its 0x0ad1 to 0x0b6f, and all call themselves so.
pub fn is_realsense(device: &Usb) -> bool {
    device.vendor == INTEL && (0x0ad1..=0x0b6f).contains(&device.product) || device.title.contains("RealSense")
}

fn realsense(machine: &Machine) -> Vec<Finding> {
    let Some(device) = machine.usb.iter().find(|device| is_realsense(device)) else { return Vec::new() };
    let mut findings = Vec::new();
    if find_library(&machine.tree, REALSENSE).is_none() {
        let what = format!(
            "{} is plugged in, and {REALSENSE} is not installed: depth and device settings need it",
            device.called()
        );
        let remedy = "install librealsense2 (github.com/realsenseai/librealsense has packages; ROS: \
                      ros-$ROS_DISTRO-librealsense2). Where it is, but elsewhere: LD_LIBRARY_PATH or ld.so.conf.d";
        findings.push(Finding::warning("realsense-library-missing", what).remedy(remedy).fact("library", REALSENSE));
    }
    if !has_rules(&machine.tree) {
        let what =
            format!("{} is plugged in without udev rules for RealSense: only root may use all of it", device.called());
        let remedy = "copy 99-realsense-libusb.rules from librealsense's config folder to /etc/udev/rules.d, then \
                      sudo udevadm control --reload && sudo udevadm trigger";
        findings.push(Finding::warning("realsense-rules-missing", what).remedy(remedy));
    }
    let called = machine.name_of_usb(device);
    findings.into_iter().map(|finding| finding.of(&called).fact("usb", device.name.clone())).collect()
}

fn libcamera(machine: &Machine) -> Option<Finding> {
    let needs = |driver: &str| NEEDS_LIBCAMERA.iter().any(|known| driver == *known || driver.starts_with("intel-ipu"));
    let node = machine.nodes.iter().find(|node| {
        let told = node.answers().map(|answers| answers.driver.as_str());
        node.driver.as_deref().is_some_and(needs) || told.is_some_and(needs)
    })?;
    if find_library(&machine.tree, LIBCAMERA).is_some() {
        return None;
    }
    let path = node.path_text();
    let what = format!(
        "{path} ({}) is part of a camera that gives pictures through libcamera, which is not installed ({LIBCAMERA})",
        node.label
    );
    let remedy = "sudo apt install libcamera-tools (Raspberry Pi OS: rpicam-apps), and use it through libcamera";
    Some(
        Finding::warning("libcamera-missing", what)
            .of(path)
            .remedy(remedy)
            .facts(json!({ "library": LIBCAMERA, "driver": node.driver })),
    )
}

fn has_rules(tree: &Tree) -> bool {
    RULES.iter().any(|folder| {
        tree.names(folder).iter().any(|name| {
            name.ends_with(".rules")
                && (name.contains("realsense")
                    || tree.text(Path::new(folder).join(name)).is_some_and(|text| {
                        let text = text.to_lowercase();
                        text.contains("8086") && text.contains("0b07")
                    }))
        })
    })
}

/// The library as the dynamic linker would find it, by its name or with a version behind it.
fn find_library(tree: &Tree, name: &str) -> Option<PathBuf> {
    folders(tree).into_iter().find_map(|folder| {
        let found = tree.names(&folder).into_iter().find(|file| file.starts_with(name))?;
        Some(folder.join(found))
    })
}

fn folders(tree: &Tree) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = LIBRARIES.iter().map(PathBuf::from).collect();
    // Debian's folders for one kind of processor each.
    for base in ["/lib", "/usr/lib", "/usr/local/lib"] {
        let names = tree.names(base).into_iter().filter(|name| name.contains("-linux-"));
        folders.extend(names.map(|name| Path::new(base).join(name)));
    }
    folders.push("/usr/local/lib".into());
    configured(tree, Path::new("/etc/ld.so.conf"), &mut folders, 0);
    // ROS sets LD_LIBRARY_PATH in the shells that use it, which need not be this one.
    for distribution in tree.names("/opt/ros") {
        let lib = Path::new("/opt/ros").join(distribution).join("lib");
        folders.extend(tree.names(&lib).into_iter().filter(|name| name.contains("-linux-")).map(|name| lib.join(name)));
        folders.push(lib);
    }
    if tree.is_live() {
        folders.extend(std::env::var_os("LD_LIBRARY_PATH").iter().flat_map(std::env::split_paths));
    }
    folders
}

/// Folders that ldconfig is told, with the files that are included.
fn configured(tree: &Tree, file: &Path, folders: &mut Vec<PathBuf>, depth: u32) {
    const DEPTH_MOST: u32 = 8; // files that include each other
    for line in tree.text(file).unwrap_or_default().lines().map(str::trim) {
        match line.strip_prefix("include ") {
            Some(pattern) if depth < DEPTH_MOST => {
                let pattern = Path::new(pattern.trim());
                let folder = pattern.parent().unwrap_or(Path::new("/etc"));
                for name in tree.names(folder).iter().filter(|name| name.ends_with(".conf")) {
                    configured(tree, &folder.join(name), folders, depth + 1);
                }
            }
            None if line.starts_with('/') => folders.push(line.into()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::machine::tree::capture::{Capture, capture};
    use super::super::machine::usb::capture::plug;
    use super::*;

    fn ids(machine: &Capture, change: fn(&mut Machine)) -> Vec<&'static str> {
        let mut machine = Machine::read_from(machine.tree.clone(), 0, vec![0]);
        change(&mut machine);
        check(&machine).into_iter().map(|finding| finding.id).collect()
    }

    fn with_realsense(machine: &mut Machine) {
        (machine.usb[0].vendor, machine.usb[0].product) = (INTEL, 0x0b07);
    }

    #[test]
    fn a_realsense_needs_its_library_and_rules() {
        let machine = capture(&[]);
        plug(&machine, 1, 0, Some("uvcvideo"));
        assert_eq!(ids(&machine, |_| ()), [""; 0], "an ordinary webcam needs neither");
        assert_eq!(ids(&machine, with_realsense), ["realsense-library-missing", "realsense-rules-missing"]);
        machine.add("/etc/ld.so.conf", b"include /etc/ld.so.conf.d/*.conf\n");
        machine.add("/etc/ld.so.conf.d/vendor.conf", b"# Intel\n/opt/intel/lib\n");
        machine.add("/opt/intel/lib/librealsense2.so.2.56", b"");
        assert_eq!(ids(&machine, with_realsense), ["realsense-rules-missing"]);
        machine.add("/usr/lib/udev/rules.d/60-librealsense2.rules", b"ATTRS{idVendor}==\"8086\"");
        assert_eq!(ids(&machine, with_realsense), [""; 0]);
    }

    #[test]
    fn a_sensor_behind_a_camera_interface_needs_libcamera() {
        let machine = capture(&[]);
        plug(&machine, 1, 0, Some("uvcvideo"));
        let sensor = |machine: &mut Machine| machine.nodes[0].driver = Some("unicam".into());
        assert_eq!(ids(&machine, sensor), ["libcamera-missing"]);
        machine.add("/usr/lib/aarch64-linux-gnu/libcamera.so.0.3", b"");
        assert_eq!(ids(&machine, sensor), [""; 0]);
    }
}
