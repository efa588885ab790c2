//! Starts a camera process for a camera that nobody shares yet: `camlease serve --detached`, which ends by itself a moment
//! after its last reader has gone.

use std::ffi::OsString;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use super::wire;
use crate::error::{Error, Kind, Result};
use crate::{fork, kernel, policy};

/// A camera that a process of its own is to share.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub uri: String,
    /// Of who wants it.
    pub priority: i32,
}

/// A camera process that has not said yet whether it has its camera. Dropping this has it give up.
pub struct Spawned {
    child: Child,
    report: Option<ChildStdout>,
    said: Vec<u8>,
    /// The process whose child it is.
    epoch: u64,
}

impl Spawned {
    /// Has one open the camera within that time, and share it by that name.
    pub fn start(wanted: &Wanted, name: &str, timeout: Duration) -> Result<Spawned> {
        let uri = &wanted.uri;
        let program = program().ok_or_else(|| {
            Error::new(Kind::Unsupported, format!("{uri}: the camlease command, which shares cameras, was not found"))
                .hint("install it beside the library or in PATH, or set CAMLEASE_COMMAND to its path")
        })?;
        let failed = |error| Error::system(format!("{uri}: starting {} to share it", program.display()), error);
        let mut child = Command::new(&program)
            .args(["serve", "--detached", uri, "--share", name, "--report-fd", "1", "--timeout"])
            .arg(timeout.as_millis().to_string())
            .args(["--priority", &wanted.priority.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let report = child.stdout.take();
        if let Some(report) = &report {
            kernel::do_not_block(report).map_err(failed)?;
        }
        Ok(Spawned { child, report, said: Vec::new(), epoch: fork::epoch() })
    }

    /// Readable when it has something to say.
    pub fn fd(&self) -> i32 {
        self.report.as_ref().map_or(-1, std::os::fd::AsRawFd::as_raw_fd)
    }

    /// What it said: that it shares the camera, or why it does not. `None` while it has said neither.
    pub fn report(&mut self) -> Option<Result<()>> {
        let report = self.report.as_mut()?;
        let mut room = [0; 1024];
        let ended = loop {
            match report.read(&mut room) {
                Ok(0) => break true,
                Ok(length) => self.said.extend(&room[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break false,
                Err(_) => break true,
            }
            if self.said.contains(&b'\n') || self.said.len() > policy::MESSAGE_MOST {
                break true;
            }
        };
        ended.then(|| {
            self.report = None;
            match wire::parse(&self.said) {
                Some(message) if message.get("ok") == Some(&true.into()) => Ok(()),
                Some(message) => Err(wire::failure_of(&message)),
                None => Err(Error::new(Kind::Internal, "the camlease command ended without a report")
                    .hint("it may be of another version than the library: see `camlease --version`")),
            }
        })
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        if self.epoch != fork::epoch() {
            return; // a parent's child
        }
        // Hung up, where nothing was said: that has it give up.
        self.report = None;
        // What was started goes on as a grandchild; the child itself ends at once, but where it could not even begin, or is
        // another program than it should be. A host may have taken its end already: then its number is nobody's.
        let until = Instant::now() + policy::SHARE_SPAWN_END;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() >= until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(policy::TIGHT_STEP);
        }
    }
}

/// The command: what the host says, else what was built or installed with this library, else what the user would start.
fn program() -> Option<PathBuf> {
    let trusts_environment = !kernel::is_privileged_by_file();
    let word = |key: &str| env::var_os(key).filter(|value| trusts_environment && !value.is_empty());
    if let Some(named) = word("CAMLEASE_COMMAND") {
        return Some(named.into());
    }
    let with_library = kernel::library_path().into_iter().flat_map(|library| beside(&library));
    let path: OsString = word("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(PROGRAM));
    with_library.filter(|path| is_ours(path)).chain(in_path).find(|path| is_program(path))
}

/// Where the command stands that came with the library, or the program, at a path.
fn beside(library: &Path) -> Vec<PathBuf> {
    let Some(folder) = library.parent() else { return Vec::new() };
    let is_named = |folder: &Path, begins: &str| {
        folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(begins.as_bytes()))
    };
    let mut folders = vec![folder.to_owned()];
    if let Some(above) = folder.parent() {
        if is_named(folder, "deps") {
            folders.push(above.to_owned()); // a test's
        }
        folders.push(above.join("bin")); // PREFIX/lib
        if let Some(prefix) = above.parent().filter(|_| is_named(above, "lib")) {
            folders.push(prefix.join("bin")); // PREFIX/lib/x86_64-linux-gnu
        }
    }
    folders.into_iter().map(|folder| folder.join(PROGRAM)).collect()
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|at| at.is_file() && at.permissions().mode() & 0o111 != 0)
}

/// Whether nobody but root and this user could have put it there: it is started unasked.
fn is_ours(path: &Path) -> bool {
    let is_safe = |path: &Path| {
        fs::metadata(path).is_ok_and(|at| {
            let others = if at.gid() == 0 || kernel::is_in_group(at.gid()) { 0o002 } else { 0o022 };
            [0, kernel::effective_user()].contains(&at.uid()) && at.mode() & others == 0
        })
    };
    is_safe(path) && path.parent().is_some_and(is_safe)
}

const PROGRAM: &str = "camlease";

/// By which name a camera is shared that nobody named: the same in every process.
pub fn name_of(key: &str) -> String {
    let fits = key.len() + PREFIX.len() <= policy::SHARE_NAME_MOST;
    let is_plain = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    match fits && is_plain && !key.is_empty() {
        true => format!("{PREFIX}{key}"),
        false => format!("{PREFIX}{:016x}", fnv_1a(key.as_bytes())),
    }
}

const PREFIX: &str = "auto-";

/// One that is the same in every build: the standard library's may change.
fn fnv_1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_looked_for_where_it_was_installed() {
        let all = |library: &str| {
            let found = beside(Path::new(library));
            found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(all("/usr/lib/libcamlease.so.0"), "/usr/lib/camlease /usr/bin/camlease");
        assert_eq!(all("/p/lib/arm/libcamlease.so.0"), "/p/lib/arm/camlease /p/lib/bin/camlease /p/bin/camlease");
        assert_eq!(all("/tmp/_MEI1/libcamlease.so"), "/tmp/_MEI1/camlease /tmp/bin/camlease");
        assert_eq!(all("/b/debug/deps/test-1"), "/b/debug/deps/camlease /b/debug/camlease /b/debug/bin/camlease");
    }

    #[test]
    fn what_others_could_have_put_there_is_not_started() {
        let folder = env::temp_dir().join(format!("camlease-spawn-{}", std::process::id()));
        let command = folder.join(PROGRAM);
        fs::create_dir(&folder).unwrap();
        fs::write(&command, "").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        set(&folder, 0o755);
        for (mode, is_taken) in [(0o755, true), (0o757, false), (0o700, true)] {
            set(&command, mode);
            assert_eq!(is_ours(&command), is_taken, "{mode:o}");
        }
        set(&folder, 0o1777);
        assert!(!is_ours(&command), "anybody can put a file there");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn names_are_names() {
        assert_eq!(name_of("video-81.0"), "auto-video-81.0");
        assert_eq!(name_of("a"), "auto-a");
        assert_eq!(fnv_1a(b"a"), 0xaf63_dc4c_8601_ec8c, "as its authors publish it");
        for odd in ["", "file:/a b.mkv", &"long".repeat(30)] {
            assert!(crate::lease::is_share_name(&name_of(odd)), "{odd}");
        }
        assert_ne!(name_of("file:/a"), name_of("file:/b"));
    }
}
