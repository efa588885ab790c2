//! Which processes have a target open. One system call for each descriptor of the machine: what `status` tells
//! through /proc/PID/fd/N is the open file itself, whatever its path and whoever's name space it is in.

use std::ffi::CStr;
use std::fs;
use std::io::Read;

use procfs::process::{Process, StatFlags};

use super::Target;
use super::crowd::{open_folder, other_threads};
use crate::kernel::{self, Fd};

/// What was seen of a process.
pub enum Seen {
    Open(Open),
    /// Its open files could not be read.
    Unreadable,
}

/// A process that has targets open.
pub struct Open {
    pub pid: i32,
    /// The thread that has them: the first one, unless that has ended or another one has descriptors of its own.
    pub thread: i32,
    /// Camera and target, the camera's own node before its other ones.
    pub targets: Vec<(usize, usize)>,
}

/// One table of descriptors.
#[derive(Default)]
struct Table {
    targets: Vec<(usize, usize)>,
    is_empty: bool,
    /// The table can be listed, but what is in it is not to be seen: a process with more rights than this one.
    refused: bool,
}

pub fn look(proc: &Fd, pid: i32, cameras: &[Vec<Target>]) -> Option<Seen> {
    let mut table = match read(proc, &format!("{pid}/fd"), cameras) {
        Ok(table) => table,
        Err(error) if has_ended(&error) => return None,
        Err(_) => return can_have_files(proc, pid).then_some(Seen::Unreadable),
    };
    let mut thread = pid;
    // Where the first thread has ended its table is empty, and the others' go on.
    let mut known = vec![pid];
    for other in other_threads(proc, pid) {
        match shares_with_any(other, &known) {
            Some(true) => continue,
            Some(false) => known.push(other),
            // Threads of one process nearly always share them.
            None if !table.is_empty => continue,
            None => {}
        }
        let Ok(others) = read(proc, &format!("{pid}/task/{other}/fd"), cameras) else { continue };
        if table.targets.is_empty() && !others.targets.is_empty() {
            thread = other;
        }
        table.is_empty &= others.is_empty;
        table.refused |= others.refused;
        others.targets.into_iter().for_each(|(camera, target)| enter(&mut table.targets, camera, target));
    }
    match table {
        Table { targets, .. } if !targets.is_empty() => Some(Seen::Open(Open { pid, thread, targets })),
        // So says the kernel, too, where a process ends at that very moment.
        Table { refused: true, .. } => can_have_files(proc, pid).then_some(Seen::Unreadable),
        _ => None,
    }
}

/// `None` where the kernel does not tell.
fn shares_with_any(thread: i32, known: &[i32]) -> Option<bool> {
    for &one in known {
        if kernel::share_descriptors(one, thread)? {
            return Some(true);
        }
    }
    Some(false)
}

fn read(proc: &Fd, path: &str, cameras: &[Vec<Target>]) -> std::io::Result<Table> {
    let folder = open_folder(Some(proc), path)?;
    let mut table = Table { is_empty: true, ..Table::default() };
    kernel::names(&folder, |name| {
        table.is_empty = false;
        match kernel::status(&folder, name) {
            Ok(file) => match u32::from(file.stx_mode) & libc::S_IFMT {
                libc::S_IFCHR => {
                    let number = libc::makedev(file.stx_rdev_major, file.stx_rdev_minor);
                    find(&mut table.targets, cameras, |target| target.device_number() == Some(number));
                }
                libc::S_IFSOCK => find(&mut table.targets, cameras, |target| match *target {
                    Target::Socket { inode } => inode == file.stx_ino && is_socket(path, name, inode),
                    Target::Device { .. } => false,
                }),
                _ => {}
            },
            Err(error) => table.refused |= error.kind() == std::io::ErrorKind::PermissionDenied,
        }
    })?;
    Ok(table)
}

fn find(targets: &mut Vec<(usize, usize)>, cameras: &[Vec<Target>], is_it: impl Fn(&Target) -> bool) {
    for (camera, wanted) in cameras.iter().enumerate() {
        if let Some(target) = wanted.iter().position(&is_it) {
            enter(targets, camera, target);
        }
    }
}

fn enter(targets: &mut Vec<(usize, usize)>, camera: usize, target: usize) {
    match targets.iter_mut().find(|known| known.0 == camera) {
        Some(known) => known.1 = known.1.min(target),
        None => targets.push((camera, target)),
    }
}

/// A socket's file on a disk has a number, too, that may be the same by chance: the link's text tells them apart.
fn is_socket(folder: &str, name: &CStr, inode: u64) -> bool {
    let link = fs::read_link(format!("/proc/{folder}/{}", name.to_string_lossy()));
    link.is_ok_and(|link| link.as_os_str().as_encoded_bytes() == format!("socket:[{inode}]").as_bytes())
}

fn has_ended(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

/// Not so a thread of the kernel's, and a process that has ended and of which only the status is left. Both have no
/// memory, which is quickly seen.
fn can_have_files(proc: &Fd, pid: i32) -> bool {
    let mut start = [0; 2];
    let memory = Fd::open_in(proc, &format!("{pid}/statm"), libc::O_RDONLY)
        .and_then(|statm| statm.as_file().read_exact(&mut start));
    match memory {
        Err(error) if has_ended(&error) => return false,
        Ok(()) if start == *b"0 " => {}
        _ => return true,
    }
    Process::new(pid).and_then(|process| process.stat()).is_ok_and(|stat| {
        let is_kernel_thread = StatFlags::from_bits_truncate(stat.flags).contains(StatFlags::PF_KTHREAD);
        let is_over = stat.state == 'Z' && stat.num_threads <= 1;
        !is_kernel_thread && !is_over
    })
}
