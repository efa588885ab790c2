//! A simulated USB webcam as a test holds it: the program of [`crate::simulator`] in a process of its own, and the nodes
//! that uvcvideo makes for it.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::{NODE_WAIT, modprobe, require_guest, video_nodes, wait_for};

const CONTROLLER: &str = "/sys/devices/platform/vhci_hcd.0";
const PARAMETERS: &str = "/sys/module/uvcvideo/parameters";

#[derive(Clone, Debug)]
pub struct WebcamOptions {
    /// Bulk transfers instead of isochronous ones.
    pub bulk: bool,
    pub serial: String,
    pub frames_per_second: u32,
    /// The larger of the two sizes; the other one is its half.
    pub size: (u32, u32),
    /// Parameters of uvcvideo while the webcam is plugged in, for all cameras: `("nodrop", "1")` hands damaged frames
    /// over with the error flag instead of dropping them, `("clock", "CLOCK_REALTIME")` stamps them by another clock.
    pub driver: Vec<(&'static str, &'static str)>,
}

impl Default for WebcamOptions {
    fn default() -> Self {
        WebcamOptions {
            bulk: false,
            serial: "RIG0001".into(),
            frames_per_second: 30,
            size: (640, 360),
            driver: Vec::new(),
        }
    }
}

/// A webcam that is plugged in, or lies unplugged beside the machine. Dropped, it is gone, and so are its nodes.
pub struct Webcam {
    child: Child,
    wire: Mutex<Wire>,
    port: u32,
    /// uvcvideo's parameters as they were.
    before: Vec<(PathBuf, String)>,
}

struct Wire {
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Webcam {
    /// Plugs a webcam in and waits for its nodes.
    #[track_caller]
    pub fn plug(options: WebcamOptions) -> Webcam {
        require_guest();
        modprobe(&["--all", "vhci_hcd", "uvcvideo"]);
        let before = options.driver.iter().map(|(name, value)| set_parameter(name, value)).collect();

        let (width, height) = options.size;
        let mut command = Command::new(program());
        command.args(["--serial", &options.serial, "--fps", &options.frames_per_second.to_string()]);
        command.args(["--size", &format!("{width}x{height}")]);
        if options.bulk {
            command.arg("--bulk");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let orders = child.stdin.take().expect("piped");
        let mut answers = BufReader::new(child.stdout.take().expect("piped"));
        let ready = read_line(&mut answers);
        let port = ready
            .strip_prefix("ready port=")
            .and_then(|port| port.parse().ok())
            .unwrap_or_else(|| panic!("the webcam could not be plugged in: {ready:?}"));
        let webcam = Webcam { child, wire: Mutex::new(Wire { orders, answers }), port, before };
        webcam.node();
        webcam
    }

    /// The node that streams; waits until it is there.
    #[track_caller]
    pub fn node(&self) -> PathBuf {
        self.wait_for_node("0")
    }

    /// The node with metadata that uvcvideo adds to each camera: it looks like a camera and is none.
    #[track_caller]
    pub fn metadata_node(&self) -> PathBuf {
        self.wait_for_node("1")
    }

    /// The USB device in sysfs, with `authorized`, `serial`, `busnum` and `devnum`; it exists while plugged in.
    pub fn usb_device(&self) -> PathBuf {
        // Of the controller's two root hubs the one for high speed; its ports count from 1, vhci's from 0.
        let hub = fs::read_dir(CONTROLLER)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .find(|path| fs::read_to_string(path.join("speed")).is_ok_and(|speed| speed.trim() == "480"))
            .expect("vhci_hcd has a high-speed root hub");
        let bus = fs::read_to_string(hub.join("busnum")).expect("a root hub has a bus number");
        hub.join(format!("{}-{}", bus.trim(), self.port + 1))
    }

    /// The same device's node for ioctls like USBDEVFS_RESET; exists while plugged in.
    #[track_caller]
    pub fn usb_node(&self) -> PathBuf {
        let device = self.usb_device();
        let number = |file: &str| -> u32 {
            let text = fs::read_to_string(device.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            text.trim().parse().expect("a number")
        };
        PathBuf::from(format!("/dev/bus/usb/{:03}/{:03}", number("busnum"), number("devnum")))
    }

    /// Orders the webcam to misbehave, see [`Order`](crate::simulator::Order), and waits until it is set to; its answer.
    #[track_caller]
    pub fn order(&self, order: &str) -> String {
        let mut wire = self.wire.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(wire.orders, "{order}").unwrap_or_else(|error| panic!("the webcam takes no order: {error}"));
        let answer = read_line(&mut wire.answers);
        assert!(answer.starts_with("ok"), "order {order:?}: {answer:?}");
        answer
    }

    /// A number out of the answer to `state`: `frames` begun so far, `streaming`, `plugged`, or what is left of a fault,
    /// by the name of its order.
    #[track_caller]
    pub fn state(&self, name: &str) -> u32 {
        let state = self.order("state");
        state
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {state:?}"))
    }

    /// Pulls the plug and waits until the nodes are gone from /dev.
    #[track_caller]
    pub fn unplug(&self) {
        self.order("detach");
        self.wait_until_gone();
    }

    /// Plugs it in again, the same camera in the same port; its node.
    #[track_caller]
    pub fn replug(&self) -> PathBuf {
        self.order("attach");
        self.node()
    }

    #[track_caller]
    fn wait_for_node(&self, index: &str) -> PathBuf {
        let device = self.usb_device();
        let interface = format!("{}:1.0", device.file_name().expect("a device has a name").to_string_lossy());
        let video4linux = device.join(interface).join("video4linux");
        wait_for("the webcam's node", NODE_WAIT, || {
            let nodes = video_nodes(&video4linux);
            let is_wanted =
                |sysfs: &Path| fs::read_to_string(sysfs.join("index")).is_ok_and(|text| text.trim() == index);
            nodes.into_iter().find(|(sysfs, _)| is_wanted(sysfs)).map(|(_, node)| node)
        })
    }

    fn wait_until_gone(&self) {
        let device = self.usb_device();
        wait_for("the webcam to be gone", NODE_WAIT, || (!device.exists()).then_some(()));
    }
}

impl Drop for Webcam {
    fn drop(&mut self) {
        // A killed process is an unplugged camera: the kernel sees its end of the wire close.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            self.wait_until_gone();
        }
        for (path, value) in &self.before {
            let _ = fs::write(path, value);
        }
    }
}

/// Sets a parameter of uvcvideo; where it is and what it was.
#[track_caller]
fn set_parameter(name: &str, value: &str) -> (PathBuf, String) {
    let path = Path::new(PARAMETERS).join(name);
    let before = fs::read_to_string(&path).unwrap_or_else(|error| panic!("uvcvideo has no parameter {name}: {error}"));
    fs::write(&path, value).unwrap_or_else(|error| panic!("uvcvideo: {name}={value}: {error}"));
    (path, before.trim().to_owned())
}

fn read_line(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).expect("the webcam's answers are text");
    line.trim_end().to_owned()
}

/// The program beside the test binary: target/PROFILE/webcam, where the test is in target/PROFILE/deps. Cargo builds it
/// for this crate's own tests; before those of another crate, `cargo build -p camlease-rig` has to have run.
fn program() -> PathBuf {
    let test = env::current_exe().expect("a running program has a path");
    test.ancestors()
        .skip(1)
        .map(|folder| folder.join("webcam"))
        .take(3)
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("no webcam beside {}: cargo build -p camlease-rig", test.display()))
}
