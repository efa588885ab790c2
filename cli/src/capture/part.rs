//! A file while it is written: under a name of its own beside the real one, and under its own name when it is whole.

use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Links that may lead from one to the next, as the kernel has it.
const LINKS_MOST: usize = 40;

/// Whether something stands under this name, be it a link that leads nowhere.
pub fn is_taken(name: &Path) -> bool {
    fs::symlink_metadata(name).is_ok()
}

/// A device or a pipe is written into as it is: another file must not take its place. So is an open file without a name
/// any more, which only its link in /proc leads to.
pub fn is_special(name: &Path) -> bool {
    fs::metadata(name).is_ok_and(|file| !file.is_file() || fs::canonicalize(name).is_err())
}

pub struct Part {
    /// Where the file is to be in the end: no link, or the link itself would be replaced.
    real: PathBuf,
    path: PathBuf,
    force: bool,
    is_wanted: bool,
}

impl Part {
    pub fn create(name: &Path, force: bool) -> io::Result<(Part, File)> {
        if !force && is_taken(name) {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        let real = without_links(name);
        // Never a file that is there: it may be another capture's, a link, or a file of the user's.
        for number in 0..100 {
            let mut path = OsString::from(&real);
            path.push(match number {
                0 => format!(".{}.part", std::process::id()),
                _ => format!(".{}-{number}.part", std::process::id()),
            });
            let path = PathBuf::from(path);
            match File::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return created.map(|file| (Part { real, path, force, is_wanted: false }, file)),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EEXIST))
    }

    /// Gives the file its name. Where that fails it stays where it is told.
    pub fn publish(self) -> Result<(), (io::Error, PathBuf)> {
        let renamed = match self.force {
            true => fs::rename(&self.path, &self.real),
            false => rename_to_new(&self.path, &self.real),
        };
        let left = self.keep();
        renamed.map_err(|error| (error, left))
    }

    /// Leaves the file where it is, and tells where.
    pub fn keep(mut self) -> PathBuf {
        self.is_wanted = true;
        std::mem::take(&mut self.path)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.is_wanted {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The file that a name leads to, also where it is not there yet.
fn without_links(name: &Path) -> PathBuf {
    let mut name = name.to_owned();
    for _ in 0..LINKS_MOST {
        if let Ok(real) = fs::canonicalize(&name) {
            return real;
        }
        let Ok(next) = fs::read_link(&name) else { return name };
        name = name.parent().unwrap_or(Path::new("")).join(next);
    }
    name
}

/// Renames, unless the new name is taken: a look beforehand would miss who takes it meanwhile.
fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let (old, new) = (text(from)?, text(to)?);
    let here = libc::AT_FDCWD;
    // By its number: not every C library has a function for it.
    // SAFETY: two strings that end with NUL, and numbers.
    let outcome =
        unsafe { libc::syscall(libc::SYS_renameat2, here, old.as_ptr(), here, new.as_ptr(), libc::RENAME_NOREPLACE) };
    if outcome == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // Not every file system has it: NFS and some in user space. A second name serves as well.
        Some(libc::EINVAL | libc::ENOSYS) => {}
        _ => return Err(error),
    }
    match fs::hard_link(from, to) {
        Ok(()) => fs::remove_file(from),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // FAT over such a file system has no second names: nothing is left but to look.
        Err(_) if is_taken(to) => Err(io::Error::from_raw_os_error(libc::EEXIST)),
        Err(_) => fs::rename(from, to),
    }
}
