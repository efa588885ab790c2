//! The runtime folder, where leases are files. It is shared by all users, and trusted only where none of them could
//! take away or put in place another's files.

use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use crate::kernel::Fd;

/// Made for this: by the system at boot (tmpfiles.d), or by the first holder that may.
const OWN: &str = "/run/camlease";
/// Where there is no folder of our own.
const COMMON: &str = "/tmp";

pub struct Folder(PathBuf);

impl Folder {
    /// All folders in which holders may have put their leases, the preferred one first.
    pub fn all() -> Vec<Folder> {
        let paths = match chosen() {
            Some(path) => vec![path],
            None => vec![PathBuf::from(OWN), PathBuf::from(COMMON)],
        };
        paths.into_iter().filter(|path| check(path).is_ok()).map(Folder).collect()
    }

    /// The same, once it was tried to make the one of our own.
    pub fn all_for_writing() -> Vec<Folder> {
        let is_root = crate::kernel::effective_user() == 0;
        let missing = chosen().is_none() && is_root && !Path::new(OWN).exists();
        if missing && fs::DirBuilder::new().mode(0o700).create(OWN).is_ok() {
            // Set after: the umask would take the others' rights away.
            let _ = fs::set_permissions(OWN, fs::Permissions::from_mode(0o1777));
        }
        Folder::all()
    }

    pub fn path_of(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A new file that only this user can read yet. Never an existing one, nor through a link.
    pub fn create(&self, name: &str) -> io::Result<Fd> {
        Fd::create(&self.path_of(name), libc::O_RDWR | libc::O_EXCL | libc::O_NOFOLLOW, 0o600)
    }

    /// A file to look at: never one behind a link, and a pipe in its place does not block.
    pub fn open(&self, name: &str, access: i32) -> io::Result<Fd> {
        Fd::open(&self.path_of(name), access | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
    }

    pub fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path_of(name))
    }

    /// What stands in it under names that begin with `prefix`.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let names = fs::read_dir(&self.0).into_iter().flatten().flatten();
        names.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with(prefix)).collect()
    }
}

/// The host's own choice. Not in a program that runs with another user's rights than its caller's.
fn chosen() -> Option<PathBuf> {
    let path = env::var_os("CAMLEASE_RUNTIME_DIR").filter(|path| !path.is_empty())?;
    (!crate::kernel::is_privileged_by_file()).then(|| PathBuf::from(path))
}

/// Whether other users can neither remove nor replace what this one puts there.
fn check(path: &Path) -> Result<(), &'static str> {
    let Ok(folder) = fs::symlink_metadata(path) else { return Err("it is not there") };
    if !folder.is_dir() {
        return Err("it is no folder");
    }
    if folder.uid() != 0 && folder.uid() != crate::kernel::effective_user() {
        return Err("it belongs to another user");
    }
    if folder.mode() & 0o2000 != 0 {
        return Err("files in it get its group, whoever makes them (the set-group-id bit)");
    }
    if folder.mode() & 0o022 != 0 && folder.mode() & 0o1000 == 0 {
        return Err("others may remove files in it (the sticky bit is missing)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_which_others_could_remove_files_is_not_trusted() {
        let base = env::temp_dir().join(format!("camlease-folder-{}", std::process::id()));
        fs::create_dir(&base).unwrap();
        let set = |mode| fs::set_permissions(&base, fs::Permissions::from_mode(mode)).unwrap();
        for (mode, trusted) in
            [(0o700, true), (0o755, true), (0o1777, true), (0o777, false), (0o775, false), (0o3777, false)]
        {
            set(mode);
            assert_eq!(check(&base).is_ok(), trusted, "{mode:o}");
        }
        set(0o700);
        let link = base.join("link");
        std::os::unix::fs::symlink("/run", &link).unwrap();
        assert!(check(&link).is_err(), "a link is not followed");
        assert!(check(&base.join("nothing")).is_err());
        fs::write(base.join("file"), "").unwrap();
        assert!(check(&base.join("file")).is_err());
        if crate::kernel::effective_user() == 0 {
            std::os::unix::fs::chown(&base, Some(65534), None).unwrap();
            assert_eq!(check(&base), Err("it belongs to another user"));
        }
        fs::remove_dir_all(&base).unwrap();
    }
}
