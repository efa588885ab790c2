//! What the kernel is asked by calls and not by files. No call here changes a camera.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What a node answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    pub driver: String,
    pub card: String,
    pub capabilities: u32,
    /// The picture that is set now, on a node that gives pictures.
    pub picture: Option<Picture>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Picture {
    pub fourcc: [u8; 4],
    pub width: u32,
    pub height: u32,
    /// The largest frame, in bytes.
    pub bytes: u32,
    /// Seconds for each frame, as a fraction; 0 where it is not known.
    pub interval: (u32, u32),
}

impl Answers {
    const CAPTURE: u32 = 0x1;
    const CAPTURE_PLANES: u32 = 0x1000;
    const OUTPUT: u32 = 0x2 | 0x2000;
    const MEMORY_TO_MEMORY: u32 = 0x8000 | 0x4000;

    pub fn is_camera(&self) -> bool {
        self.capabilities & (Self::CAPTURE | Self::CAPTURE_PLANES) != 0
            && self.capabilities & Self::MEMORY_TO_MEMORY == 0
    }

    pub fn is_output_only(&self) -> bool {
        self.capabilities & Self::OUTPUT != 0 && !self.is_camera() && self.capabilities & Self::MEMORY_TO_MEMORY == 0
    }
}

impl Picture {
    pub fn frames_per_second(&self) -> Option<f64> {
        let (seconds, parts) = self.interval;
        (seconds > 0 && parts > 0).then(|| f64::from(parts) / f64::from(seconds))
    }
}

const VIDIOC_QUERYCAP: libc::c_ulong = 0x8068_5600;
const VIDIOC_G_FMT: libc::c_ulong = 0xc0d0_5604;
const VIDIOC_G_PARM: libc::c_ulong = 0xc0cc_5615;

/// Asks a node who it is and what is set. For reading and without waiting, and closed at once.
pub fn ask(node: &Path) -> io::Result<Answers> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(node)?;
    // struct v4l2_capability: driver, card, bus_info, version, capabilities, device_caps
    let mut capability = [0u32; 26];
    call(&file, VIDIOC_QUERYCAP, &mut capability)?;
    let bytes: Vec<u8> = capability.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let text = |range: std::ops::Range<usize>| {
        let text = bytes[range].split(|&byte| byte == 0).next().unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    };
    const DEVICE_CAPS: u32 = 1 << 31;
    let capabilities = if capability[21] & DEVICE_CAPS != 0 { capability[22] } else { capability[21] };
    let mut answers = Answers { driver: text(0..16), card: text(16..48), capabilities, picture: None };
    if answers.is_camera() {
        answers.picture = picture(&file, capabilities & Answers::CAPTURE == 0);
    }
    Ok(answers)
}

fn picture(file: &File, planes: bool) -> Option<Picture> {
    let buffer_type = if planes { 9 } else { 1 };
    // struct v4l2_format: the type, a word of padding, then the picture.
    let mut format = [0u32; 52];
    format[0] = buffer_type;
    call(file, VIDIOC_G_FMT, &mut format).ok()?;
    let bytes = if planes {
        // struct v4l2_plane_pix_format has 20 bytes, the first of which are the plane's size; then their number.
        let count = (format[47].to_ne_bytes()[0] as usize).min(8);
        (0..count).map(|plane| format[7 + plane * 5]).fold(0, u32::saturating_add)
    } else {
        format[7]
    };
    let mut parameters = [0u32; 51];
    parameters[0] = buffer_type;
    let interval = match call(file, VIDIOC_G_PARM, &mut parameters) {
        Ok(()) => (parameters[3], parameters[4]),
        Err(_) => (0, 0),
    };
    Some(Picture { fourcc: format[4].to_le_bytes(), width: format[2], height: format[3], bytes, interval })
}

/// An ioctl whose number tells the size of what it writes; the array has at least that.
fn call<const WORDS: usize>(file: &File, request: libc::c_ulong, data: &mut [u32; WORDS]) -> io::Result<()> {
    const SIZE_SHIFT: u32 = 16;
    const SIZE_MASK: libc::c_ulong = 0x3fff;
    assert_eq!((request >> SIZE_SHIFT) & SIZE_MASK, size_of_val(data) as libc::c_ulong);
    // The kernel's structs may hold pointers and then want the alignment of one.
    #[repr(align(8))]
    struct Aligned<const WORDS: usize>([u32; WORDS]);
    let mut aligned = Aligned(*data);
    // SAFETY: an open descriptor, and memory of the size that the request's number tells, checked above.
    let outcome = unsafe { libc::ioctl(file.as_raw_fd(), request, &raw mut aligned) };
    *data = aligned.0;
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether this process may read and write a file, by its effective user and groups, access lists included.
pub fn may_use(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a string that ends with NUL.
    let outcome = unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::R_OK | libc::W_OK, libc::AT_EACCESS) };
    if outcome < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether two descriptors of two processes are one open file: one passed it on to the other, or both got it from a
/// third. Nothing where the kernel does not tell: kcmp wants what ptrace wants, and containers may forbid it.
pub fn same_file(one: (i32, i32), other: (i32, i32)) -> Option<bool> {
    const KCMP_FILE: libc::c_long = 0;
    let (pid, fd) = (libc::c_long::from(one.0), libc::c_long::from(one.1));
    let (other_pid, other_fd) = (libc::c_long::from(other.0), libc::c_long::from(other.1));
    // SAFETY: numbers alone.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, pid, other_pid, KCMP_FILE, fd, other_fd) };
    (order >= 0).then_some(order == 0)
}

/// Whether the kernel has an inotify instance for this user, and a watch: opens wait for a busy camera by them.
pub fn try_inotify(folder: &Path) -> Result<(), (InotifyLimit, io::Error)> {
    let folder = CString::new(folder.as_os_str().as_bytes()).expect("a path of ours");
    // SAFETY: no pointers.
    let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
    if fd < 0 {
        return Err((InotifyLimit::Instances, io::Error::last_os_error()));
    }
    // SAFETY: the descriptor is open and nobody else's.
    let inotify = unsafe { <File as std::os::fd::FromRawFd>::from_raw_fd(fd) };
    // SAFETY: an open descriptor, and a string that ends with NUL.
    if unsafe { libc::inotify_add_watch(inotify.as_raw_fd(), folder.as_ptr(), libc::IN_CREATE) } < 0 {
        return Err((InotifyLimit::Watches, io::Error::last_os_error()));
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InotifyLimit {
    Instances,
    Watches,
}

/// Effective user, and all groups of this process.
pub fn credentials() -> (u32, Vec<u32>) {
    // SAFETY: no pointers.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    // SAFETY: asks for the number alone.
    let count = unsafe { libc::getgroups(0, std::ptr::null_mut()) }.max(0);
    let mut groups = vec![0; count as usize];
    // SAFETY: room for as many as it says.
    let written = unsafe { libc::getgroups(count, groups.as_mut_ptr()) }.max(0);
    groups.truncate(written as usize);
    groups.push(group);
    groups.sort_unstable();
    groups.dedup();
    (user, groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_open_file_is_told_from_two() {
        let pid = std::process::id() as i32;
        let file = File::open("/dev/null").unwrap();
        let copy = file.try_clone().unwrap();
        let other = File::open("/dev/null").unwrap();
        let compare = |other: &File| same_file((pid, file.as_raw_fd()), (pid, other.as_raw_fd()));
        // A sandbox may forbid the call; it never lies.
        assert_ne!(compare(&copy), Some(false));
        assert_ne!(compare(&other), Some(true));
    }

    #[test]
    fn what_may_be_used_and_what_not() {
        assert!(may_use(Path::new("/dev/null")).is_ok());
        let missing = may_use(Path::new("/dev/no-such-node")).unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
    }

    #[test]
    fn what_is_no_camera_answers_nothing() {
        assert_eq!(ask(Path::new("/dev/null")).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}
