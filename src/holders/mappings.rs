//! Which processes have a camera's memory mapped, with or without a descriptor of it.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::Target;
use super::crowd::other_threads;
use crate::kernel::{self, Fd};

/// A device whose mappings are looked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub camera: usize,
    number: u64,
    /// The node's file, as /proc/PID/maps writes it: "00:06 418".
    file: String,
}

impl Wanted {
    pub fn new(camera: usize, target: &Target) -> Option<Wanted> {
        let Target::Device { node, number } = target else { return None };
        let node = fs::metadata(node).ok()?;
        let (major, minor) = (libc::major(node.dev()), libc::minor(node.dev()));
        Some(Wanted { camera, number: *number, file: format!("{major:02x}:{minor:02x} {}", node.ino()) })
    }
}

/// The cameras among the wanted ones that a process has mapped.
pub fn look(proc: &Fd, pid: i32, wanted: &[Wanted]) -> Vec<usize> {
    let mut found = Vec::new();
    let (text, thread) = text(proc, pid);
    for line in text.split(|&byte| byte == b'\n') {
        let Some(shared) = Shared::parse(line) else { continue };
        let mut number = None;
        for one in wanted.iter().filter(|one| {
            one.file.as_bytes() == shared.file || {
                // The node may be another file, in a container: the device's number settles it.
                *number.get_or_insert_with(|| shared.device_number(proc, thread)) == Some(one.number)
            }
        }) {
            if !found.contains(&one.camera) {
                found.push(one.camera);
            }
        }
    }
    found
}

/// The mappings of a process where any may be a device's, and the thread through which they are seen: not the first one
/// where that has ended.
fn text(proc: &Fd, pid: i32) -> (Vec<u8>, i32) {
    let read = |path: &str| {
        let mut text = Vec::new();
        let Ok(file) = Fd::open_in(proc, path, libc::O_RDONLY) else { return Some(text) };
        // A question takes a tenth of the time that the kernel needs to write all mappings out.
        if kernel::has_shared_files(&file) == Some(false) {
            return None;
        }
        text.reserve(16 << 10);
        // What was read of a process that ends meanwhile does no harm.
        let _ = file.as_file().read_to_end(&mut text);
        Some(text)
    };
    match read(&format!("{pid}/maps")) {
        None => return (Vec::new(), pid),
        Some(text) if !text.is_empty() => return (text, pid),
        Some(_) => {}
    }
    let threads = other_threads(proc, pid).into_iter();
    threads
        .filter_map(|thread| Some((read(&format!("{pid}/task/{thread}/maps"))?, thread)))
        .find(|(text, _)| !text.is_empty())
        .unwrap_or((Vec::new(), pid))
}

/// A mapping of a file that is shared with others. Drivers map their buffers in no other way (vb2_mmap refuses it), and
/// most processes have few of these.
struct Shared<'a> {
    range: &'a [u8],
    file: &'a [u8],
    path: &'a Path,
}

impl Shared<'_> {
    /// A line: "7f0c4a000000-7f0c4a096000 rw-s 00000000 00:06 418                        /dev/video0"
    fn parse(line: &[u8]) -> Option<Shared<'_>> {
        let space = line.iter().position(|&byte| byte == b' ')?;
        let (range, rest) = line.split_at(space);
        if rest.get(4) != Some(&b's') {
            return None;
        }
        let mut fields = rest.splitn(6, |&byte| byte == b' ');
        let (_, _, _, device, tail) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let path = fields.next()?.trim_ascii_start();
        if tail == b"0" || !path.starts_with(b"/") {
            return None;
        }
        let start = device.as_ptr() as usize - rest.as_ptr() as usize;
        let file = &rest[start..start + device.len() + 1 + tail.len()];
        Some(Shared { range, file, path: Path::new(OsStr::from_bytes(path)) })
    }

    /// The number of the device that is mapped, if it is one.
    fn device_number(&self, proc: &Fd, thread: i32) -> Option<u64> {
        // /proc/PID/map_files is certain, but for root alone. Its names have no leading zeros.
        let range = str::from_utf8(self.range).ok()?;
        let (from, to) = range.split_once('-')?;
        let (from, to) = (from.trim_start_matches('0'), to.trim_start_matches('0'));
        let name = CString::new(format!("{thread}/map_files/{from}-{to}")).ok()?;
        match kernel::status(proc, &name) {
            Ok(file) => {
                let is_device = u32::from(file.stx_mode) & libc::S_IFMT == libc::S_IFCHR;
                return is_device.then(|| libc::makedev(file.stx_rdev_major, file.stx_rdev_minor));
            }
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return None,
            Err(_) => {}
        }
        // Else by its path, in that process's view or in this one's. Elsewhere than in a /dev it may lead to a network's
        // file system, which may not answer.
        if !self.path.as_os_str().as_bytes().windows(5).any(|part| part == b"/dev/") {
            return None;
        }
        let theirs = format!("/proc/{thread}/root{}", self.path.display());
        [Path::new(&theirs), self.path].into_iter().find_map(|path| {
            let file = fs::metadata(path).ok()?;
            file.file_type().is_char_device().then(|| file.rdev())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_mappings_of_files_are_told_from_others() {
        let line = b"7f0c4a000000-7f0c4a096000 rw-s 00001000 00:06 418                        /dev/video 0";
        let shared = Shared::parse(line).expect("it is one");
        assert_eq!(shared.range, b"7f0c4a000000-7f0c4a096000");
        assert_eq!((shared.file, shared.path), (&b"00:06 418"[..], Path::new("/dev/video 0")));
        for other in [
            &b"7f0c4a000000-7f0c4a096000 rw-p 00000000 00:06 418                        /dev/video0"[..],
            b"7f0c4a000000-7f0c4a096000 rw-s 00000000 00:00 0 ",
            b"7f0c4a000000-7f0c4a096000 rw-s 00000000 00:0f 9                          anon_inode:i915.gem",
            b"7f0c4a000000-7f0c4a096000 rw-s",
            b"",
        ] {
            assert!(Shared::parse(other).is_none(), "{}", String::from_utf8_lossy(other));
        }
    }
}
