//! An open video node: the kernel's requests as typed calls. All `ioctl`s of V4L2 are here.

use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use v4l::v4l_sys::*;
use v4l::v4l2::vidioc;

use crate::error::{Error, Kind, Result};
use crate::format::{FourCc, Rate};
use crate::holders::printable;
use crate::kernel::{self, Fd};
use crate::memory::PLANES_MOST;
use crate::policy;

/// A video node that is open, and which of the two streaming interfaces it has.
pub struct OpenNode {
    pub fd: Fd,
    pub path: PathBuf,
    pub capability: Capability,
    buffer_type: u32,
    /// Buffers that somebody has mapped or was given can be given up all the same: so says the driver's queue, since
    /// Linux 5.0.
    lets_buffers_be_orphaned: AtomicBool,
}

/// What a driver says of itself.
pub struct Capability {
    pub driver: String,
    pub card: String,
    pub bus: String,
}

/// What a buffer tells when it comes back from the driver.
#[derive(Default)]
pub struct Dequeued {
    pub index: u32,
    pub sequence: u32,
    pub timestamp_us: i64,
    pub corrupt: bool,
    pub offset: [usize; PLANES_MOST],
    pub used: [usize; PLANES_MOST],
}

/// A frame's size and layout, single- and multi-planar alike.
#[derive(Clone)]
pub struct PixelFormat {
    raw: v4l2_format,
    multi_planar: bool,
}

/// What a request was for: the same errno means different things to different requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Open,
    QueryCapability,
    Lease,
    Claim,
    GetFormat,
    SetFormat,
    SetRate,
    Allocate,
    MapBuffer,
    Queue,
    Dequeue,
    StreamOn,
    StreamOff,
    GetControl,
    SetControl,
}

impl Request {
    fn words(self) -> &'static str {
        match self {
            Request::Open => "opening it",
            Request::QueryCapability => "asking what it is (VIDIOC_QUERYCAP)",
            Request::Lease => "taking the lease that users of this library have on it (flock)",
            Request::Claim => "claiming its buffers (VIDIOC_REQBUFS)",
            Request::GetFormat => "reading its format (VIDIOC_G_FMT)",
            Request::SetFormat => "setting its format (VIDIOC_S_FMT)",
            Request::SetRate => "setting its frame rate (VIDIOC_S_PARM)",
            Request::Allocate => "allocating its buffers (VIDIOC_REQBUFS)",
            Request::MapBuffer => "mapping its buffers (VIDIOC_QUERYBUF, mmap)",
            Request::Queue => "queueing a buffer (VIDIOC_QBUF)",
            Request::Dequeue => "taking a frame (VIDIOC_DQBUF)",
            Request::StreamOn => "starting the stream (VIDIOC_STREAMON)",
            Request::StreamOff => "stopping the stream (VIDIOC_STREAMOFF)",
            Request::GetControl => "reading a control (VIDIOC_G_CTRL)",
            Request::SetControl => "setting a control (VIDIOC_S_CTRL)",
        }
    }

    /// The kind where this request knows better than the errno alone.
    fn kind(self, errno: i32) -> Option<Kind> {
        match (self, errno) {
            // uvcvideo and the host controllers: no isochronous bandwidth left on the bus.
            (Request::StreamOn | Request::SetFormat, libc::ENOSPC) => Some(Kind::NoBandwidth),
            (Request::SetFormat | Request::SetRate, libc::EINVAL) => Some(Kind::InvalidArgument),
            (Request::SetControl | Request::GetControl, libc::EINVAL | libc::ERANGE) => Some(Kind::InvalidArgument),
            // A control that cannot be written, or not be read.
            (Request::SetControl | Request::GetControl, libc::EACCES) => Some(Kind::Unsupported),
            // Another setting has it (auto exposure, say), or the sensor streams.
            (Request::SetControl, libc::EBUSY) => Some(Kind::WrongState),
            (Request::Claim | Request::Allocate, libc::EINVAL) => Some(Kind::Io),
            // The driver's queue broke; only a new stream helps.
            (Request::Dequeue, libc::EPIPE) => Some(Kind::Io),
            _ => None,
        }
    }
}

impl OpenNode {
    pub fn open(path: &Path) -> Result<OpenNode> {
        let fail = |error| failed(path, Request::Open, error);
        OpenNode::of(path, Fd::open(path, libc::O_RDWR | libc::O_NONBLOCK).map_err(fail)?)
    }

    /// A node that another process opened.
    pub fn take(path: &Path, fd: Fd) -> Result<OpenNode> {
        match kernel::access_mode(&fd) {
            libc::O_RDWR => OpenNode::of(path, fd),
            _ => Err(not_a_camera(path, "it was not opened for reading and writing")),
        }
    }

    fn of(path: &Path, fd: Fd) -> Result<OpenNode> {
        // SAFETY: all zeroes is a valid v4l2_capability.
        let mut raw: v4l2_capability = unsafe { std::mem::zeroed() };
        request(&fd, vidioc::VIDIOC_QUERYCAP, &mut raw).map_err(|error| match error.raw_os_error() {
            Some(libc::ENOTTY | libc::EINVAL) => {
                Error::system(format!("{}: it is no video device", path.display()), error)
                    .with_kind(Kind::Unsupported)
                    .hint(NODES_THAT_GIVE_PICTURES)
            }
            _ => failed(path, Request::QueryCapability, error),
        })?;
        // A driver that has several nodes tells in device_caps what this one can do.
        let caps = if raw.capabilities & V4L2_CAP_DEVICE_CAPS != 0 { raw.device_caps } else { raw.capabilities };
        let buffer_type = if caps & V4L2_CAP_VIDEO_CAPTURE != 0 {
            v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE
        } else if caps & V4L2_CAP_VIDEO_CAPTURE_MPLANE != 0 {
            v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE
        } else if caps & V4L2_CAP_META_CAPTURE != 0 {
            return Err(not_a_camera(path, "it carries metadata; the pictures are at another node of the same camera"));
        } else {
            return Err(not_a_camera(path, "this node gives no pictures"));
        };
        if caps & V4L2_CAP_STREAMING == 0 {
            return Err(not_a_camera(path, "its driver cannot stream"));
        }
        let capability = Capability { driver: text(&raw.driver), card: text(&raw.card), bus: text(&raw.bus_info) };
        let lets_buffers_be_orphaned = AtomicBool::new(false);
        Ok(OpenNode { fd, path: path.to_owned(), capability, buffer_type, lets_buffers_be_orphaned })
    }

    pub fn failed(&self, request: Request, error: std::io::Error) -> Error {
        failed(&self.path, request, error)
    }

    fn is_multi_planar(&self) -> bool {
        self.buffer_type == v4l2_buf_type_V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE
    }

    /// While raised, the kernel refuses others that would set a format or take buffers. All nodes of a device share
    /// one priority: where another has raised its own, it is waited for, for a moment.
    pub fn raise_priority(&self) {
        let deadline = Instant::now() + policy::PRIORITY_PATIENCE;
        let busy = |error: &std::io::Error| error.raw_os_error() == Some(libc::EBUSY);
        while self.set_priority(v4l2_priority_V4L2_PRIORITY_RECORD).is_err_and(|e| busy(&e))
            && Instant::now() < deadline
        {
            std::thread::sleep(policy::PRIORITY_STEP);
        }
    }

    pub fn restore_priority(&self) {
        // A driver without priorities streams as well.
        let _ = self.set_priority(v4l2_priority_V4L2_PRIORITY_DEFAULT);
    }

    fn set_priority(&self, mut priority: v4l2_priority) -> std::io::Result<()> {
        request(&self.fd, vidioc::VIDIOC_S_PRIORITY, &mut priority)
    }

    /// Takes or (with 0) gives up buffers, and with them the right to stream. How many it became.
    pub fn request_buffers(&self, count: u32) -> std::io::Result<u32> {
        // SAFETY: all zeroes is a valid v4l2_requestbuffers.
        let mut raw: v4l2_requestbuffers = unsafe { std::mem::zeroed() };
        raw.count = count;
        raw.type_ = self.buffer_type;
        raw.memory = v4l2_memory_V4L2_MEMORY_MMAP;
        request(&self.fd, vidioc::VIDIOC_REQBUFS, &mut raw)?;
        let orphans = raw.capabilities & V4L2_BUF_CAP_SUPPORTS_ORPHANED_BUFS != 0;
        self.lets_buffers_be_orphaned.store(orphans, Ordering::Relaxed);
        Ok(raw.count)
    }

    pub fn lets_buffers_be_orphaned(&self) -> bool {
        self.lets_buffers_be_orphaned.load(Ordering::Relaxed)
    }

    /// A plane of a buffer as a file that can be mapped to be read, and not to be written.
    pub fn export_buffer(&self, index: u32, plane: u32) -> std::io::Result<Fd> {
        // SAFETY: all zeroes is a valid v4l2_exportbuffer.
        let mut raw: v4l2_exportbuffer = unsafe { std::mem::zeroed() };
        (raw.type_, raw.index, raw.plane) = (self.buffer_type, index, plane);
        raw.flags = (libc::O_RDONLY | libc::O_CLOEXEC) as u32;
        Fd::make(|| match request(&self.fd, vidioc::VIDIOC_EXPBUF, &mut raw) {
            Ok(()) => raw.fd,
            Err(_) => -1,
        })
    }

    pub fn format(&self) -> Result<PixelFormat> {
        let mut format = PixelFormat { raw: zeroed_format(self.buffer_type), multi_planar: self.is_multi_planar() };
        request(&self.fd, vidioc::VIDIOC_G_FMT, &mut format.raw).map_err(|e| self.failed(Request::GetFormat, e))?;
        Ok(format)
    }

    /// Sets a format; what the driver made of it comes back in it.
    pub fn set_format(&self, format: &mut PixelFormat) -> Result<()> {
        request(&self.fd, vidioc::VIDIOC_S_FMT, &mut format.raw).map_err(|e| self.failed(Request::SetFormat, e))
    }

    /// 0/0 where the driver has no rate.
    pub fn rate(&self) -> Rate {
        let mut raw = self.zeroed_parameters();
        match request(&self.fd, vidioc::VIDIOC_G_PARM, &mut raw) {
            // SAFETY: for a capture type the driver fills the capture member; all bits are valid.
            Ok(()) => rate_of(unsafe { raw.parm.capture.timeperframe }),
            Err(_) => Rate::default(),
        }
    }

    pub fn set_rate(&self, rate: Rate) -> Result<()> {
        let mut raw = self.zeroed_parameters();
        raw.parm.capture.timeperframe = v4l2_fract { numerator: rate.denominator, denominator: rate.numerator };
        match request(&self.fd, vidioc::VIDIOC_S_PARM, &mut raw) {
            // A driver without a choice of rates: what it does is read back.
            Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => Ok(()),
            result => result.map_err(|e| self.failed(Request::SetRate, e)),
        }
    }

    fn zeroed_parameters(&self) -> v4l2_streamparm {
        // SAFETY: all zeroes is a valid v4l2_streamparm.
        let mut raw: v4l2_streamparm = unsafe { std::mem::zeroed() };
        raw.type_ = self.buffer_type;
        raw
    }

    /// Offset and length of each plane of a buffer, for mmap.
    pub fn query_buffer(&self, index: u32) -> std::io::Result<Vec<(i64, usize)>> {
        let mut planes = self.planes();
        let mut raw = self.buffer(index, planes.as_mut());
        request(&self.fd, vidioc::VIDIOC_QUERYBUF, &mut raw)?;
        if let Some(planes) = planes {
            // SAFETY: of an MMAP buffer's plane the kernel fills mem_offset.
            let place = |plane: &v4l2_plane| (unsafe { plane.m.mem_offset } as i64, plane.length as usize);
            Ok(planes[..(raw.length as usize).min(PLANES_MOST)].iter().map(place).collect())
        } else {
            // SAFETY: of a single-planar MMAP buffer the kernel fills offset.
            Ok(vec![(unsafe { raw.m.offset } as i64, raw.length as usize)])
        }
    }

    pub fn queue(&self, index: u32) -> std::io::Result<()> {
        let mut planes = self.planes();
        let mut raw = self.buffer(index, planes.as_mut());
        request(&self.fd, vidioc::VIDIOC_QBUF, &mut raw)
    }

    /// The oldest full buffer, if there is one.
    pub fn dequeue(&self) -> std::io::Result<Option<Dequeued>> {
        let mut planes = self.planes();
        let mut raw = self.buffer(0, planes.as_mut());
        match request(&self.fd, vidioc::VIDIOC_DQBUF, &mut raw) {
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => return Ok(None),
            result => result?,
        }
        let mut full = Dequeued {
            index: raw.index,
            sequence: raw.sequence,
            timestamp_us: raw.timestamp.tv_sec * 1_000_000 + raw.timestamp.tv_usec,
            corrupt: raw.flags & V4L2_BUF_FLAG_ERROR != 0,
            ..Dequeued::default()
        };
        if let Some(planes) = planes {
            for (at, plane) in planes[..(raw.length as usize).min(PLANES_MOST)].iter().enumerate() {
                // bytesused counts from the plane's start, data_offset included.
                full.offset[at] = plane.data_offset as usize;
                full.used[at] = plane.bytesused.saturating_sub(plane.data_offset) as usize;
            }
        } else {
            full.used[0] = raw.bytesused as usize;
        }
        Ok(Some(full))
    }

    pub fn stream_on(&self) -> std::io::Result<()> {
        request(&self.fd, vidioc::VIDIOC_STREAMON, &mut self.buffer_type.clone())
    }

    pub fn stream_off(&self) -> std::io::Result<()> {
        request(&self.fd, vidioc::VIDIOC_STREAMOFF, &mut self.buffer_type.clone())
    }

    /// What a buffer of a multi-planar queue points at; nothing is zeroed in vain for a frame of another.
    fn planes(&self) -> Option<[v4l2_plane; VIDEO_MAX_PLANES as usize]> {
        // SAFETY: all zeroes is a valid v4l2_plane.
        self.is_multi_planar().then(|| unsafe { std::mem::zeroed() })
    }

    /// An MMAP buffer's struct. It points at `planes`: both must live through the request.
    fn buffer(&self, index: u32, planes: Option<&mut [v4l2_plane; VIDEO_MAX_PLANES as usize]>) -> v4l2_buffer {
        // SAFETY: all zeroes is a valid v4l2_buffer.
        let mut raw: v4l2_buffer = unsafe { std::mem::zeroed() };
        raw.index = index;
        raw.type_ = self.buffer_type;
        raw.memory = v4l2_memory_V4L2_MEMORY_MMAP;
        if let Some(planes) = planes {
            raw.m.planes = planes.as_mut_ptr();
            raw.length = planes.len() as u32;
        }
        raw
    }

    pub fn enumerate_format(&self, index: u32) -> Option<v4l2_fmtdesc> {
        // SAFETY: all zeroes is a valid v4l2_fmtdesc.
        let mut raw: v4l2_fmtdesc = unsafe { std::mem::zeroed() };
        raw.index = index;
        raw.type_ = self.buffer_type;
        request(&self.fd, vidioc::VIDIOC_ENUM_FMT, &mut raw).ok().map(|()| raw)
    }

    /// Width and height as least, most and step; equal least and most for a single size.
    pub fn enumerate_size(&self, fourcc: u32, index: u32) -> Option<[(u32, u32, u32); 2]> {
        // SAFETY: all zeroes is a valid v4l2_frmsizeenum.
        let mut raw: v4l2_frmsizeenum = unsafe { std::mem::zeroed() };
        raw.index = index;
        raw.pixel_format = fourcc;
        request(&self.fd, vidioc::VIDIOC_ENUM_FRAMESIZES, &mut raw).ok()?;
        if raw.type_ == v4l2_frmsizetypes_V4L2_FRMSIZE_TYPE_DISCRETE {
            // SAFETY: the type says which member the driver filled.
            let size = unsafe { raw.__bindgen_anon_1.discrete };
            Some([(size.width, size.width, 0), (size.height, size.height, 0)])
        } else {
            // A range has one entry.
            (index == 0).then_some(())?;
            // SAFETY: as above; stepwise and continuous fill the same member.
            let range = unsafe { raw.__bindgen_anon_1.stepwise };
            Some([
                (range.min_width, range.max_width, range.step_width),
                (range.min_height, range.max_height, range.step_height),
            ])
        }
    }

    /// Slowest and fastest; the same for a single rate.
    pub fn enumerate_rate(&self, fourcc: u32, width: u32, height: u32, index: u32) -> Option<(Rate, Rate)> {
        // SAFETY: all zeroes is a valid v4l2_frmivalenum.
        let mut raw: v4l2_frmivalenum = unsafe { std::mem::zeroed() };
        raw.index = index;
        raw.pixel_format = fourcc;
        raw.width = width;
        raw.height = height;
        request(&self.fd, vidioc::VIDIOC_ENUM_FRAMEINTERVALS, &mut raw).ok()?;
        if raw.type_ == v4l2_frmivaltypes_V4L2_FRMIVAL_TYPE_DISCRETE {
            // SAFETY: the type says which member the driver filled.
            let rate = rate_of(unsafe { raw.__bindgen_anon_1.discrete });
            Some((rate, rate))
        } else {
            (index == 0).then_some(())?;
            // SAFETY: as above; stepwise and continuous fill the same member.
            let range = unsafe { raw.__bindgen_anon_1.stepwise };
            Some((rate_of(range.max), rate_of(range.min)))
        }
    }

    /// The control with this id, or, with V4L2_CTRL_FLAG_NEXT_CTRL in it, the first one after it.
    pub fn query_control(&self, id: u32) -> std::io::Result<v4l2_query_ext_ctrl> {
        // SAFETY: all zeroes is a valid v4l2_query_ext_ctrl.
        let mut raw: v4l2_query_ext_ctrl = unsafe { std::mem::zeroed() };
        raw.id = id;
        request(&self.fd, vidioc::VIDIOC_QUERY_EXT_CTRL, &mut raw)?;
        Ok(raw)
    }

    /// The name (of a menu) or the value (of an integer menu) behind an index.
    pub fn query_menu(&self, id: u32, index: u32, integers: bool) -> Option<String> {
        // SAFETY: all zeroes is a valid v4l2_querymenu.
        let mut raw: v4l2_querymenu = unsafe { std::mem::zeroed() };
        raw.id = id;
        raw.index = index;
        request(&self.fd, vidioc::VIDIOC_QUERYMENU, &mut raw).ok()?;
        Some(if integers {
            // SAFETY: the control's kind says which member the driver filled. The struct is packed: copied out.
            let value = unsafe { raw.__bindgen_anon_1.value };
            value.to_string()
        } else {
            // SAFETY: as above.
            let name = unsafe { raw.__bindgen_anon_1.name };
            text(&name)
        })
    }

    pub fn control(&self, id: u32) -> Result<i64> {
        let mut raw = zeroed_control(id);
        self.exchange_control(vidioc::VIDIOC_G_EXT_CTRLS, &mut raw).map_err(|e| self.failed(Request::GetControl, e))?;
        // SAFETY: of a plain control the kernel fills value, or value64 where the type is 64 bits wide.
        Ok(unsafe { if self.is_wide(id) { raw.__bindgen_anon_1.value64 } else { raw.__bindgen_anon_1.value.into() } })
    }

    pub fn set_control(&self, id: u32, value: i64) -> Result<()> {
        let mut raw = zeroed_control(id);
        if self.is_wide(id) {
            raw.__bindgen_anon_1.value64 = value;
        } else {
            // A bit mask uses all 32 bits: what fits either way is meant.
            let narrow = i32::try_from(value).or_else(|_| u32::try_from(value).map(|bits| bits as i32));
            raw.__bindgen_anon_1.value = narrow.map_err(|_| {
                Error::new(
                    Kind::InvalidArgument,
                    format!("{}: {value} does not fit control 0x{id:08x}", self.path.display()),
                )
            })?;
        }
        self.exchange_control(vidioc::VIDIOC_S_EXT_CTRLS, &mut raw).map_err(|e| self.failed(Request::SetControl, e))
    }

    fn is_wide(&self, id: u32) -> bool {
        self.query_control(id).is_ok_and(|found| found.type_ == v4l2_ctrl_type_V4L2_CTRL_TYPE_INTEGER64)
    }

    fn exchange_control(&self, code: vidioc::_IOC_TYPE, control: &mut v4l2_ext_control) -> std::io::Result<()> {
        // SAFETY: all zeroes is a valid v4l2_ext_controls; class 0 takes controls of any class.
        let mut raw: v4l2_ext_controls = unsafe { std::mem::zeroed() };
        raw.count = 1;
        raw.controls = control;
        request(&self.fd, code, &mut raw)
    }
}

impl PixelFormat {
    pub fn fourcc(&self) -> FourCc {
        // SAFETY: multi_planar says which member the kernel filled; all bits are valid in both.
        FourCc(unsafe {
            if self.multi_planar { self.raw.fmt.pix_mp.pixelformat } else { self.raw.fmt.pix.pixelformat }
        })
    }

    pub fn size(&self) -> (u32, u32) {
        // SAFETY: as in `fourcc`.
        unsafe {
            match self.multi_planar {
                true => (self.raw.fmt.pix_mp.width, self.raw.fmt.pix_mp.height),
                false => (self.raw.fmt.pix.width, self.raw.fmt.pix.height),
            }
        }
    }

    /// Stride and greatest size of each memory plane.
    pub fn planes(&self) -> Vec<(u32, usize)> {
        // SAFETY: as in `fourcc`. The multi-planar struct is packed: its members are copied out.
        unsafe {
            if self.multi_planar {
                let pix = self.raw.fmt.pix_mp;
                let planes = pix.plane_fmt;
                let count = (pix.num_planes as usize).clamp(1, PLANES_MOST);
                planes[..count].iter().map(|plane| (plane.bytesperline, plane.sizeimage as usize)).collect()
            } else {
                let pix = self.raw.fmt.pix;
                vec![(pix.bytesperline, pix.sizeimage as usize)]
            }
        }
    }

    /// Asks for other values; 0 leaves one as it is. Strides and sizes become the driver's choice.
    pub fn ask(&mut self, fourcc: FourCc, width: u32, height: u32) {
        let (own_width, own_height) = self.size();
        let fourcc = if fourcc.0 == 0 { self.fourcc() } else { fourcc };
        let width = if width == 0 { own_width } else { width };
        let height = if height == 0 { own_height } else { height };
        if self.multi_planar {
            // SAFETY: as in `fourcc`.
            let mut pix = unsafe { self.raw.fmt.pix_mp };
            (pix.pixelformat, pix.width, pix.height) = (fourcc.0, width, height);
            // SAFETY: all zeroes is a valid plane format.
            pix.plane_fmt = unsafe { std::mem::zeroed() };
            self.raw.fmt.pix_mp = pix;
        } else {
            // SAFETY: as in `fourcc`.
            let mut pix = unsafe { self.raw.fmt.pix };
            (pix.pixelformat, pix.width, pix.height) = (fourcc.0, width, height);
            (pix.bytesperline, pix.sizeimage) = (0, 0);
            self.raw.fmt.pix = pix;
        }
    }
}

pub fn text<B: Copy + Into<i64>>(bytes: &[B]) -> String {
    let bytes: Vec<u8> = bytes.iter().map(|&b| b.into() as u8).take_while(|&b| b != 0).collect();
    // A device chooses its own words: what would steer a terminal is taken out.
    printable(&String::from_utf8_lossy(&bytes))
}

fn rate_of(interval: v4l2_fract) -> Rate {
    Rate::new(interval.denominator, interval.numerator)
}

fn zeroed_format(buffer_type: u32) -> v4l2_format {
    // SAFETY: all zeroes is a valid v4l2_format.
    let mut raw: v4l2_format = unsafe { std::mem::zeroed() };
    raw.type_ = buffer_type;
    raw
}

fn zeroed_control(id: u32) -> v4l2_ext_control {
    // SAFETY: all zeroes is a valid v4l2_ext_control.
    let mut raw: v4l2_ext_control = unsafe { std::mem::zeroed() };
    raw.id = id;
    raw
}

/// One ioctl; a signal does not end it.
fn request<T>(fd: &Fd, code: vidioc::_IOC_TYPE, argument: &mut T) -> std::io::Result<()> {
    loop {
        // SAFETY: every caller passes the struct that its request code was made for, and what it
        // points to lives in the caller.
        match unsafe { v4l::v4l2::ioctl(fd.number(), code, (&raw mut *argument).cast::<c_void>()) } {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => continue,
            result => return result,
        }
    }
}

const NODES_THAT_GIVE_PICTURES: &str = "camlease_device_list_new lists the nodes that give pictures";

fn not_a_camera(path: &Path, why: &str) -> Error {
    Error::new(Kind::Unsupported, format!("{}: {why}", path.display())).hint(NODES_THAT_GIVE_PICTURES)
}

fn failed(path: &Path, request: Request, cause: std::io::Error) -> Error {
    let errno = cause.raw_os_error().unwrap_or(0);
    let error = Error::system(format!("{}: {}", path.display(), request.words()), cause);
    let error = match request.kind(errno) {
        Some(kind) => error.with_kind(kind),
        None => error,
    };
    match (request, errno) {
        (Request::Open, libc::EACCES | libc::EPERM) => error.hint(permission_hint(path)),
        (Request::Open, libc::ENOENT) => {
            error.hint("is the camera plugged in? camlease_device_list_new lists what is there")
        }
        (Request::StreamOn | Request::SetFormat, libc::ENOSPC) => error.hint("the USB bus has no bandwidth left"),
        (_, libc::ENODEV) => error.hint("plug it in again and reopen it"),
        (Request::Dequeue, libc::EIO | libc::EPIPE) => error.hint("stop the stream and start it again"),
        (_, libc::EPROTO | libc::EPIPE) => {
            error.hint("try another cable or port, without a hub; then replug the camera")
        }
        (Request::Allocate, libc::ENOMEM) => error.hint("ask for fewer buffers or a smaller size"),
        (Request::SetControl, libc::EBUSY) => error.hint("another setting or the running stream has taken it over"),
        (_, libc::EMFILE) => error.hint("close some, or raise the limit (ulimit -n)"),
        _ => error,
    }
}

/// Names the group that may use the node, which on most systems is "video".
fn permission_hint(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let group = std::fs::metadata(path).ok().and_then(|node| {
        let readable_by_group = node.mode() & 0o060 == 0o060 && node.gid() != 0;
        readable_by_group.then(|| group_name(node.gid())).flatten()
    });
    match group {
        Some(group) => {
            format!("its group is \"{group}\": join it with \"sudo usermod -aG {group} $USER\" and log in again")
        }
        None => "no group may use it: a udev rule such as SUBSYSTEM==\"video4linux\", GROUP=\"video\", MODE=\"0660\" \
                 gives it to the group \"video\""
            .to_owned(),
    }
}

fn group_name(gid: u32) -> Option<String> {
    std::fs::read_to_string("/etc/group").ok()?.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_means_what_the_request_makes_of_it() {
        let kind =
            |request, errno| failed(Path::new("/dev/video9"), request, std::io::Error::from_raw_os_error(errno)).kind();
        for (request, errno, expected) in [
            (Request::Open, libc::ENOENT, Kind::NotFound),
            (Request::Open, libc::EACCES, Kind::Permission),
            (Request::Open, libc::ENODEV, Kind::Disconnected),
            (Request::Open, libc::EBUSY, Kind::Busy),
            (Request::StreamOn, libc::ENOSPC, Kind::NoBandwidth),
            (Request::StreamOn, libc::EPROTO, Kind::Io),
            (Request::StreamOn, libc::EIO, Kind::Io),
            (Request::SetFormat, libc::EINVAL, Kind::InvalidArgument),
            (Request::Claim, libc::EINVAL, Kind::Io),
            (Request::Claim, libc::EBUSY, Kind::Busy),
            (Request::Allocate, libc::ENOMEM, Kind::Budget),
            (Request::SetControl, libc::ERANGE, Kind::InvalidArgument),
            (Request::SetControl, libc::EACCES, Kind::Unsupported),
            (Request::SetControl, libc::ETIMEDOUT, Kind::Timeout),
            (Request::Dequeue, libc::EIO, Kind::Io),
            (Request::Dequeue, libc::ENODEV, Kind::Disconnected),
        ] {
            assert_eq!(kind(request, errno), expected, "{request:?} {errno}");
        }
    }

    #[test]
    fn a_message_names_the_node_the_reason_and_the_next_step() {
        let error =
            failed(Path::new("/dev/video9"), Request::StreamOn, std::io::Error::from_raw_os_error(libc::EPROTO));
        assert_eq!(
            error.message(),
            "/dev/video9: starting the stream (VIDIOC_STREAMON): EPROTO, the USB transfer broke (cable, hub or power); \
             try another cable or port, without a hub; then replug the camera"
        );
        assert_eq!(error.errno(), libc::EPROTO);
    }
}
