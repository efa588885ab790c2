//! vivid, the kernel's virtual camera: quick to load, any number of them, and faults by its controls
//! ([`set_control`](crate::set_control)): `inject_v4l2_buf_flag_error`, `inject_vidioc_reqbufs_error`,
//! `inject_vidioc_qbuf_error`, `inject_vidioc_streamon_error`, `inject_fatal_streaming_error`,
//! `percentage_of_dropped_buffers`, `disconnect`.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::{NODE_WAIT, modprobe, require_guest, run, video_nodes, wait_for};

const NODES: &str = "/sys/devices/platform/vivid.0/video4linux";
const DRIVER: &str = "/sys/bus/platform/drivers/vivid";
const DEVICE: &str = "vivid.0";

/// `node_types` of vivid: video capture and nothing else.
const VIDEO_CAPTURE: &str = "0x1";

/// vivid starts at 5 frames per second; its webcam input gives 30 at this size, and less at any larger one.
pub const WIDTH: u32 = 640;
pub const HEIGHT: u32 = 360;
pub const FRAMES_PER_SECOND: u32 = 30;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VividOptions {
    pub devices: u32,
    /// Frames in several planes, with the other half of V4L2's structures.
    pub multiplanar: bool,
    /// Buffers in physically contiguous memory, as cameras of embedded boards have them.
    pub contiguous: bool,
    /// Number of the first node; the first free one if `None`.
    pub first_number: Option<u32>,
}

impl Default for VividOptions {
    fn default() -> Self {
        VividOptions { devices: 1, multiplanar: false, contiguous: false, first_number: None }
    }
}

static LOADED: Mutex<Option<VividOptions>> = Mutex::new(None);

/// Loads vivid and sets each camera to 640x360 YUYV at 30 frames per second; their nodes, in order. Loaded with the same
/// options already, it only sets them again; with others, it is loaded anew.
#[track_caller]
pub fn load(options: VividOptions) -> Vec<PathBuf> {
    require_guest();
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if loaded.as_ref() != Some(&options) {
        remove();
        modprobe(&module_arguments(&options).each_ref().map(String::as_str));
        *loaded = Some(options.clone());
    }
    let nodes = nodes(options.devices);
    for node in &nodes {
        set_mode(node);
    }
    nodes
}

/// Unloads vivid; panics if a camera is still open after a while.
#[track_caller]
pub fn unload() {
    require_guest();
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    remove();
    *loaded = None;
}

/// Takes the driver off its device: every camera is gone, as if unplugged.
pub fn unbind() {
    fs::write(format!("{DRIVER}/unbind"), DEVICE).expect("vivid: unbind");
}

/// Puts the driver back; the nodes of all cameras, which may have other numbers.
#[track_caller]
pub fn bind() -> Vec<PathBuf> {
    fs::write(format!("{DRIVER}/bind"), DEVICE).expect("vivid: bind");
    let devices = LOADED.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(1, |options| options.devices);
    let nodes = nodes(devices);
    for node in &nodes {
        set_mode(node);
    }
    nodes
}

fn module_arguments(options: &VividOptions) -> [String; 6] {
    let each = |value: &str| vec![value; options.devices as usize].join(",");
    let planes = if options.multiplanar { "2" } else { "1" };
    let numbers: Vec<String> = (0..options.devices)
        .map(|index| options.first_number.map_or("-1".into(), |first| (first + index).to_string()))
        .collect();
    [
        "vivid".into(),
        format!("n_devs={}", options.devices),
        format!("node_types={}", each(VIDEO_CAPTURE)),
        format!("multiplanar={}", each(planes)),
        format!("allocators={}", each(if options.contiguous { "1" } else { "0" })),
        format!("vid_cap_nr={}", numbers.join(",")),
    ]
}

fn remove() {
    wait_for("vivid to be unloaded", NODE_WAIT, || {
        (!Path::new("/sys/module/vivid").exists()
            || Command::new("rmmod").arg("vivid").output().is_ok_and(|output| output.status.success()))
        .then_some(())
    });
}

#[track_caller]
fn nodes(count: u32) -> Vec<PathBuf> {
    let nodes = wait_for("vivid's nodes", NODE_WAIT, || {
        let nodes = video_nodes(Path::new(NODES));
        (nodes.len() == count as usize).then_some(nodes)
    });
    nodes.into_iter().map(|(_, node)| node).collect()
}

#[track_caller]
fn set_mode(node: &Path) {
    let format = format!("width={WIDTH},height={HEIGHT},pixelformat=YUYV");
    run(Command::new("v4l2-ctl").arg("-d").arg(node).args(["-v", &format]));
    set_rate(node).unwrap_or_else(|error| panic!("{}: VIDIOC_S_PARM: {error}", node.display()));
}

/// `v4l2-ctl -p` asks for a single plane only, which vivid refuses when it has several.
fn set_rate(node: &Path) -> io::Result<()> {
    const SINGLE_PLANE: u32 = 1; // V4L2_BUF_TYPE_VIDEO_CAPTURE
    const SEVERAL_PLANES: u32 = 9; // V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE
    const VIDIOC_S_PARM: libc::c_ulong = 0xc0cc_5616;

    /// struct v4l2_streamparm, with a struct v4l2_captureparm in it.
    #[repr(C)]
    struct StreamParm {
        buffer_type: u32,
        capability: u32,
        mode: u32,
        numerator: u32,
        denominator: u32,
        rest: [u32; 46],
    }

    let file = File::options().read(true).write(true).open(node)?;
    let mut outcome = Ok(());
    for buffer_type in [SINGLE_PLANE, SEVERAL_PLANES] {
        let mut parm = StreamParm {
            buffer_type,
            capability: 0,
            mode: 0,
            numerator: 1,
            denominator: FRAMES_PER_SECOND,
            rest: [0; 46],
        };
        // SAFETY: an open descriptor, and a struct of the size that the request's number tells: 204 bytes.
        if unsafe { libc::ioctl(file.as_raw_fd(), VIDIOC_S_PARM, &raw mut parm) } == 0 {
            return Ok(());
        }
        outcome = Err(io::Error::last_os_error());
    }
    outcome
}
