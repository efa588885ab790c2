//! The machine's files as the checks read them: below `/`, or below a folder in which another machine was captured.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Major and minor number of a device.
pub type Number = (u32, u32);

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: EntryKind,
    /// Permission bits, sticky bit included.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    CharDevice(Number),
    Folder,
    Link,
    File,
    Other,
}

impl Tree {
    pub fn machine() -> Tree {
        Tree { root: PathBuf::from("/") }
    }

    /// A capture. A device node is a text file there, such as `device 81:0 0660 0 44`: number, mode, user and group.
    #[cfg(test)]
    pub fn captured(root: &Path) -> Tree {
        Tree { root: fs::canonicalize(root).unwrap_or_else(|_| root.to_owned()) }
    }

    /// This machine and no capture: nodes can be opened, processes be asked about.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        self.bytes(path).map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
    }

    /// A file with a single number, such as those of sysfs.
    pub fn number(&self, path: impl AsRef<Path>) -> Option<u32> {
        self.text(path)?.parse().ok()
    }

    pub fn bytes(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        fs::read(self.at(path)).ok()
    }

    /// What a link says.
    pub fn link(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        fs::read_link(self.at(path)).ok()
    }

    /// The last part of what a link says: a driver's name, a module's.
    pub fn link_name(&self, path: impl AsRef<Path>) -> Option<String> {
        Some(self.link(path)?.file_name()?.to_str()?.to_owned())
    }

    /// A path without links, as the machine sees it; none where it leads nowhere.
    pub fn real(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        let real = fs::canonicalize(self.at(path)).ok()?;
        Some(Path::new("/").join(real.strip_prefix(&self.root).ok()?))
    }

    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.at(path).exists()
    }

    /// The names in a folder, in order; none where there is no such folder.
    pub fn names(&self, folder: impl AsRef<Path>) -> Vec<String> {
        self.try_names(folder).unwrap_or_default()
    }

    pub fn try_names(&self, folder: impl AsRef<Path>) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.at(folder))?;
        let mut names: Vec<String> =
            entries.map_while(Result::ok).filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    pub fn inode(&self, path: impl AsRef<Path>) -> Option<u64> {
        fs::metadata(self.at(path)).ok().map(|file| file.ino())
    }

    /// What stands at a path, links followed.
    pub fn entry(&self, path: impl AsRef<Path>) -> Option<Entry> {
        self.describe(&fs::metadata(self.at(&path)).ok()?, path.as_ref())
    }

    /// What stands at a path itself, be it a link.
    pub fn entry_itself(&self, path: impl AsRef<Path>) -> Option<Entry> {
        self.describe(&fs::symlink_metadata(self.at(&path)).ok()?, path.as_ref())
    }

    fn describe(&self, file: &fs::Metadata, path: &Path) -> Option<Entry> {
        let kind = match file.file_type() {
            kind if kind.is_char_device() => {
                EntryKind::CharDevice((libc::major(file.rdev()), libc::minor(file.rdev())))
            }
            kind if kind.is_dir() => EntryKind::Folder,
            kind if kind.is_symlink() => EntryKind::Link,
            kind if kind.is_file() => EntryKind::File,
            _ => EntryKind::Other,
        };
        if !self.is_live()
            && kind == EntryKind::File
            && let Some(device) = self.text(path).as_deref().and_then(captured_device)
        {
            return Some(device);
        }
        Some(Entry { kind, mode: file.mode() & 0o7777, uid: file.uid(), gid: file.gid() })
    }
}

/// "81:0"
pub fn device_number(text: &str) -> Option<Number> {
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn captured_device(text: &str) -> Option<Entry> {
    let mut words = text.strip_prefix("device ")?.split_whitespace();
    Some(Entry {
        kind: EntryKind::CharDevice(device_number(words.next()?)?),
        mode: u32::from_str_radix(words.next()?, 8).ok()?,
        uid: words.next()?.parse().ok()?,
        gid: words.next()?.parse().ok()?,
    })
}

/// A small machine in a folder, for tests of the checks.
#[cfg(test)]
pub mod capture {
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    pub struct Capture {
        pub tree: Tree,
        folder: PathBuf,
    }

    /// Files by path and content; content that begins with "-> " makes a link.
    pub fn capture(files: &[(&str, &str)]) -> Capture {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("camlease-doctor-{}-{count}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let capture = Capture { tree: Tree::captured(&folder), folder };
        for (path, content) in files {
            capture.add(path, content.as_bytes());
        }
        capture
    }

    impl Capture {
        pub fn add(&self, path: &str, content: &[u8]) {
            let at = self.folder.join(path.trim_start_matches('/'));
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            match std::str::from_utf8(content).ok().and_then(|text| text.strip_prefix("-> ")) {
                Some(target) => symlink(target, at).unwrap(),
                None => fs::write(at, content).unwrap(),
            }
        }
    }

    impl Drop for Capture {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}
