//! The folder of recordings: new files that replace nothing and follow no link, and which of them are the oldest.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use camlease::{Error, Kind, Result};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Files of one camera that are begun in one second.
const NUMBER_MOST: u32 = 1000;

pub struct Folder {
    /// It stays the folder that it was, whatever takes its name.
    fd: OwnedFd,
    path: PathBuf,
}

impl Folder {
    pub fn open(path: &Path) -> Result<Folder> {
        let fd =
            open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).map_err(|errno| {
                Error::system(format!("{}: the folder of recordings", path.display()), errno.into())
                    .hint("create it, and let the camera process's user write there")
            })?;
        Ok(Folder { fd, path: path.to_owned() })
    }

    /// Under this name, or under one of the camera and the time.
    pub fn create(&self, camera: &str, wanted: Option<&Path>, extension: &str) -> Result<(PathBuf, File)> {
        let failed = |name: &str, errno: Errno| {
            let path = self.path.join(name);
            Error::system(format!("{}: creating it", path.display()), errno.into())
        };
        if let Some(wanted) = wanted {
            let name = plain(wanted, extension)?;
            return self.create_new(name).map_err(|errno| failed(name, errno));
        }
        let time = utc(SystemTime::now());
        for number in 1..=NUMBER_MOST {
            let name = format!("{camera}-{time}-{number}.{extension}");
            match self.create_new(&name) {
                Err(Errno::EEXIST) => {}
                created => return created.map_err(|errno| failed(&name, errno)),
            }
        }
        Err(failed(&format!("{camera}-{time}-{NUMBER_MOST}.{extension}"), Errno::EEXIST))
    }

    /// Never one that is there, be it a link.
    fn create_new(&self, name: &str) -> nix::Result<(PathBuf, File)> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        // Pictures of a room are not everybody's.
        let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP;
        Ok((self.path.join(name), openat(&self.fd, name, flags, mode)?.into()))
    }

    /// The index that stands beside a file.
    pub fn create_beside(&self, file: &Path) -> Result<File> {
        let path = index_of(file);
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let created = self.create_new(name).map(|(_, file)| file);
        created.map_err(|errno| Error::system(format!("{}: creating it", path.display()), errno.into()))
    }

    pub fn remove(&self, file: &Path) {
        for path in [file, &index_of(file)] {
            if let Some(name) = path.file_name() {
                let _ = unlinkat(&self.fd, name, UnlinkatFlags::NoRemoveDir);
            }
        }
    }

    /// Removes the oldest recordings of this camera until so many are left, of which `newest` is one.
    pub fn keep(&self, camera: &str, count: u32, newest: &Path) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in self.path.read_dir()? {
            let name = entry?.file_name();
            if let Some((time, number)) = name.to_str().and_then(|name| parts(name, camera)) {
                found.push((time.to_owned(), number, name));
            }
        }
        found.retain(|(_, _, name)| newest.file_name() != Some(name));
        found.sort();
        let over = (found.len() + 1).saturating_sub(count.max(1) as usize);
        found.iter().take(over).for_each(|(_, _, name)| self.remove(Path::new(name)));
        Ok(())
    }

    /// Bytes that can be written there yet.
    pub fn free(&self) -> io::Result<u64> {
        let told = fstatvfs(&self.fd)?;
        Ok(told.blocks_available().saturating_mul(told.fragment_size()))
    }
}

fn index_of(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".index");
    path.into()
}

/// A name in the folder, and nothing that leads out of it: who may command a camera may not write elsewhere.
fn plain<'a>(wanted: &'a Path, extension: &str) -> Result<&'a str> {
    let mut parts = wanted.components();
    let name = match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) => name.to_str(),
        _ => None,
    };
    let is_plain = |name: &&str| !name.starts_with('.') && !name.contains(|c: char| c.is_control());
    let fits = |name: &&str| Path::new(name).extension() == Some(OsStr::new(extension));
    name.filter(is_plain).filter(fits).filter(|name| *name == wanted.as_os_str()).ok_or_else(|| {
        Error::new(Kind::InvalidArgument, format!("{}: not a name for a file here", wanted.display())).hint(format!(
            "give a name without a folder that ends with .{extension}: it is created in the configured folder"
        ))
    })
}

/// Time and number of a recording's name, if it is one of this camera's.
fn parts<'a>(name: &'a str, camera: &str) -> Option<(&'a str, u32)> {
    let rest = name.strip_prefix(camera)?.strip_prefix('-')?;
    let (time, rest) = rest.split_once('-')?;
    let (number, extension) = rest.split_once('.')?;
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    (shape == "00000000T000000Z" && ["mkv", "y4m", "raw"].contains(&extension)).then_some((time, number.parse().ok()?))
}

/// As 20261121T061504Z.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin with March have their odd day at the end: "chrono-Compatible Low-Level Date Algorithms", H. Hinnant.
    let day = days + 719_468;
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year, month + 3) } else { (year + 1, month - 9) };
    let year = year + era * 400;
    format!("{year:04}{month:02}{date:02}T{:02}{:02}{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |seconds| utc(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "19700101T000000Z");
        assert_eq!(at(951_782_399), "20000228T235959Z");
        assert_eq!(at(951_782_400), "20000229T000000Z");
        assert_eq!(at(1_709_251_199), "20240229T235959Z");
        assert_eq!(at(1_709_251_200), "20240301T000000Z");
        assert_eq!(at(1_795_241_704), "20261121T061504Z");
        assert_eq!(at(4_107_542_400), "21000301T000000Z");
    }

    #[test]
    fn names_are_told_from_others() {
        assert_eq!(parts("front-20261121T061504Z-12.mkv", "front"), Some(("20261121T061504Z", 12)));
        for other in ["front-door-20261121T061504Z-1.mkv", "front-20261121T061504Z-1.raw.index", "front-x.mkv", "front"]
        {
            assert_eq!(parts(other, "front"), None, "{other}");
        }
    }

    #[test]
    fn a_wanted_name_stays_in_the_folder() {
        assert_eq!(plain(Path::new("a b.mkv"), "mkv").unwrap(), "a b.mkv");
        for bad in ["/etc/a.mkv", "../a.mkv", "a/b.mkv", ".a.mkv", "a.mkv/", "./a.mkv", "a.avi", "a", "", "a\n.mkv"] {
            assert!(plain(Path::new(bad), "mkv").is_err(), "{bad}");
        }
    }
}
