//! Who holds what, told by the holders themselves. Each camera that is held has a lease: a file in the runtime folder
//! that its holder has locked. The kernel drops the lock with the holder, so nothing can be stale, and what stays of a
//! holder that died tells the next one about its end.
//!
//! A lease keeps nobody out: the camera itself does that. It tells, and names the socket at which the holder can be
//! asked. A file counts for what its owner may say: that a process of the owner's own holds the camera.

use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use std::time::Duration;
use std::{fs, process};

use procfs::process::Process;

use self::folder::Folder;
use self::record::{DOING_AT, Doing, Entry};
use crate::backend::Source;
use crate::holders::{self, Activity, Holders};
use crate::kernel::{self, Fd};
use crate::policy;

mod ask;
mod doorbell;
mod folder;
mod record;

pub use ask::{Ask, Petition, Progress};
pub use doorbell::{Door, Doorbell, HandedOver, Verdict};

/// What a holder tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What it calls itself.
    pub name: String,
    pub priority: i32,
    /// When it got the camera, in nanoseconds of CLOCK_BOOTTIME.
    pub since_ns: u64,
    /// Whether it streams.
    pub streaming: bool,
}

/// How a camera's last holder ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LastExit {
    /// It let the camera go, or none is known since the machine was started.
    #[default]
    Clean,
    /// It died while it held the camera and did not stream.
    Died,
    /// It died while it was streaming.
    Dirty,
}

/// Who asks for a camera.
#[derive(Debug, Clone)]
pub struct Asker {
    /// 0 for a process of another container.
    pub pid: i32,
    pub uid: u32,
    pub name: String,
    pub priority: i32,
    /// Whether the camera is lost whatever the answer: the asker's priority is higher, or it evicts.
    pub must: bool,
    /// How long the holder may take to finish with its frames.
    pub grace: Duration,
}

/// A holder's answer to one who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// As priorities say: the higher one gets it, an equal one does not.
    ByPriority,
    /// The asker gets it.
    Yield,
}

/// Told, in a thread of the library's, that somebody asks for the camera.
pub type OnAsk = Box<dyn Fn(&Asker) -> Answer + Send + Sync>;

/// What a camera's leases are filed under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filing {
    /// Letters, digits, dots, dashes and underscores.
    pub key: String,
    /// Tells apart devices that get the same key one after the other.
    pub instance: String,
    pub users: Users,
}

/// Who may use a camera. Others can put a file in the runtime folder as well, and are not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    All,
    /// Root, and the members of this group. A lease's file has that group: only a member can give it to a file.
    Group(u32),
    Root,
}

impl Users {
    /// Whether the owner of this file is one of them, or this process's own user.
    fn have(self, about: &fs::Metadata) -> bool {
        match self {
            _ if [0, kernel::effective_user()].contains(&about.uid()) => true,
            Users::All => true,
            Users::Group(group) => about.gid() == group,
            Users::Root => false,
        }
    }
}

/// A lease that somebody has now.
#[derive(Debug, Clone)]
pub struct Found {
    /// 0 for a process of another container.
    pub pid: i32,
    pub uid: u32,
    pub start_time: u64,
    pub record: Record,
    /// Where its holder can be asked.
    door: PathBuf,
}

/// A lease of this process. Dropping it gives it up.
pub struct Lease {
    /// `None` once the camera was handed over.
    paper: Option<Paper>,
    bell: Option<Doorbell>,
    last_exit: LastExit,
}

/// A lease's file.
struct Paper {
    file: Fd,
    folder: Folder,
    name: String,
    /// What an earlier holder left behind could not be removed.
    unswept: bool,
}

const PREFIX: &str = "camlease-";
const DOOR: &str = ".ask";
const FILE_MOST: u64 = policy::PAGE as u64;

fn prefix_of(key: &str) -> String {
    format!("{PREFIX}{key}.")
}

/// The names of leases under `key`, not of another camera whose key begins like it.
fn names(folder: &Folder, key: &str) -> Vec<String> {
    let prefix = prefix_of(key);
    let is_tag = |tag: &str| tag.len() == 16 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
    folder.names(&prefix).into_iter().filter(|name| is_tag(&name[prefix.len()..])).collect()
}

impl Lease {
    /// Files a lease. The camera is this process's already.
    pub fn take(filing: &Filing, name: &str, priority: i32, door: std::sync::Weak<dyn Door>) -> io::Result<Lease> {
        let (last_exit, unswept) = sweep(filing);
        let own = Process::myself().and_then(|own| own.stat()).map_err(io::Error::other)?;
        let entry = Entry {
            doing: Doing::Open,
            pid: process::id() as i32,
            start_time: own.starttime,
            space: process_space(),
            boot: boot(),
            instance: filing.instance.clone(),
            priority,
            since_ns: kernel::clock_ns(libc::CLOCK_BOOTTIME) as u64,
            name: name.to_owned(),
        };
        let mut refusal = io::Error::from_raw_os_error(libc::ENOENT);
        for folder in Folder::all_for_writing() {
            match create(&folder, filing, &entry) {
                Ok((name, file)) => {
                    let path = folder.path_of(&format!("{name}{DOOR}"));
                    let bell = Doorbell::hang(&path, door)
                        .inspect_err(|e| log::warn!("{}: nobody can ask this holder: {e}", path.display()))
                        .ok();
                    let paper = Some(Paper { file, folder, name, unswept });
                    return Ok(Lease { paper, bell, last_exit });
                }
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// How the holder before this one ended.
    pub fn last_exit(&self) -> LastExit {
        self.last_exit
    }

    /// It takes the place of another lease of this holder's.
    pub fn go_on_after(&mut self, last_exit: LastExit) {
        self.last_exit = last_exit;
    }

    pub fn set_streaming(&self, streaming: bool) {
        if let Some(paper) = &self.paper {
            paper.write(if streaming { Doing::Streaming } else { Doing::Open });
        }
    }

    /// The doorbell, for one who ends it: not while a lock is held that it may want.
    pub fn take_bell(&mut self) -> Option<Doorbell> {
        self.bell.take()
    }

    /// Gives it up, for the one who gets the camera to file its own: a camera has one lease at a time.
    pub fn withdraw(&mut self) {
        self.paper = None;
    }
}

impl Paper {
    fn write(&self, doing: Doing) {
        if let Err(error) = self.file.as_file().write_at(&[doing.byte()], DOING_AT) {
            log::warn!("{}: {error}", self.folder.path_of(&self.name).display());
        }
    }
}

impl Drop for Paper {
    fn drop(&mut self) {
        // A child must not give its parent's up.
        if !self.file.is_own() {
            return;
        }
        if self.unswept {
            self.write(Doing::Ended);
            // Somebody who may remove both will.
            return;
        }
        if let Err(error) = self.folder.remove(&self.name) {
            // What stays must not be taken for the lease of a holder that died.
            self.write(Doing::Ended);
            log::warn!("{}: {error}", self.folder.path_of(&self.name).display());
        }
    }
}

/// Makes a lease's file. It is locked before it says anything.
fn create(folder: &Folder, filing: &Filing, entry: &Entry) -> io::Result<(String, Fd)> {
    let mut refusal = io::Error::from_raw_os_error(libc::EEXIST);
    for _ in 0..policy::LEASE_NAMES {
        let name = format!("{}{:016x}", prefix_of(&filing.key), kernel::random());
        let file = match folder.create(&name) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        };
        match fill(&file, filing, entry) {
            Ok(true) => return Ok((name, file)),
            Ok(false) => {}
            Err(error) => refusal = error,
        }
        // Before its lock is gone: without, it is a dead holder's.
        let _ = folder.remove(&name);
    }
    Err(refusal)
}

/// Writes a lease into its new file. False when the file was taken away meanwhile.
fn fill(file: &Fd, filing: &Filing, entry: &Entry) -> io::Result<bool> {
    kernel::lock_for_writing(file)?;
    // One who sweeps may have taken it for a dead holder's in between, and removed it.
    if file.as_file().metadata()?.nlink() != 1 {
        return Ok(false);
    }
    file.as_file().write_all_at(entry.to_text().as_bytes(), 0)?;
    if let Users::Group(group) = filing.users {
        // One who got the camera past its group, by an access list say, is believed by root and itself.
        let _ = std::os::unix::fs::fchown(&*file.as_file(), None, Some(group));
    }
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    Ok(true)
}

/// What stands in a lease's file, by its open file. `None` for what is no lease's.
fn look(file: &Fd) -> Option<(Entry, fs::Metadata)> {
    let about = file.as_file().metadata().ok()?;
    // One with a second name is somebody's link to another file of its owner's.
    if !about.is_file() || about.nlink() > 1 {
        return None;
    }
    let mut text = String::new();
    (&*file.as_file()).take(FILE_MOST).read_to_string(&mut text).ok()?;
    Some((Entry::parse(&text)?, about))
}

/// Who has these cameras, by what the holders say.
pub fn find(filings: &[Filing]) -> Vec<Found> {
    let mut found = Vec::new();
    for folder in Folder::all() {
        let of_each = |filing: &Filing| {
            let users = filing.users;
            names(&folder, &filing.key).into_iter().map(move |name| (name, users))
        };
        for (name, users) in filings.iter().flat_map(of_each) {
            let Ok(file) = folder.open(&name, libc::O_RDONLY) else { continue };
            if !kernel::is_locked_for_writing(&file) {
                continue;
            }
            let Some((entry, about)) = look(&file).filter(|(_, about)| users.have(about)) else { continue };
            let door = folder.path_of(&format!("{name}{DOOR}"));
            if let Some(lease) = verify(entry, about.uid(), door) {
                found.push(lease);
            }
        }
    }
    found
}

/// Whether a lease says what the owner of its file may say, in this process's numbers.
fn verify(entry: Entry, owner: u32, door: PathBuf) -> Option<Found> {
    let record = entry.record();
    if entry.space != process_space() {
        // Its numbers are another container's; the kernel translates the socket's.
        let peer = ask::peer_of(&door);
        let pid = peer.filter(|peer| peer.uid == owner || owner == 0).map_or(0, |peer| peer.pid);
        let start_time = start_time(pid).unwrap_or(0);
        return Some(Found { pid, uid: owner, start_time, record, door });
    }
    let process = Process::new(entry.pid).ok()?;
    let status = process.status().ok()?;
    let is_owners = owner == 0 || [status.euid, status.ruid, status.suid, status.fuid].contains(&owner);
    let is_it = process.stat().ok()?.starttime == entry.start_time;
    (is_owners && is_it).then_some(Found {
        pid: entry.pid,
        uid: status.euid,
        start_time: entry.start_time,
        record,
        door,
    })
}

/// Removes what dead holders left behind, and tells how the last of them ended, and whether something stays that this
/// user may not remove.
fn sweep(filing: &Filing) -> (LastExit, bool) {
    let mut last: Option<Entry> = None;
    let mut unswept = false;
    for folder in Folder::all() {
        for name in names(&folder, &filing.key) {
            let to_remove = folder.open(&name, libc::O_RDWR).ok().filter(|file| kernel::lock_for_writing(file).is_ok());
            let removable = to_remove.is_some();
            let Some(file) = to_remove.or_else(|| folder.open(&name, libc::O_RDONLY).ok()) else { continue };
            if !removable && kernel::is_locked_for_writing(&file) {
                continue; // it is somebody's: not of this camera any more, or of a hostile user's making
            }
            if let Some((entry, about)) = look(&file)
                && filing.users.have(&about)
                && entry.boot == boot()
                && entry.instance == filing.instance
                && last.as_ref().is_none_or(|last| last.since_ns < entry.since_ns)
            {
                last = Some(entry);
            }
            let removed = removable && folder.remove(&name).is_ok();
            if removed {
                let _ = folder.remove(&format!("{name}{DOOR}"));
            }
            unswept |= !removed;
        }
    }
    let last_exit = match last.map(|entry| entry.doing) {
        None | Some(Doing::Ended) => LastExit::Clean,
        Some(Doing::Open) => LastExit::Died,
        Some(Doing::Streaming) => LastExit::Dirty,
    };
    (last_exit, unswept)
}

/// Who has a camera: from /proc, and with what the holders tell of themselves.
pub fn holders(source: &dyn Source) -> Holders {
    let mut all = source.holders();
    for lease in find(&source.filings()) {
        if let Some(holder) = all.list.iter_mut().find(|holder| holder.pid == lease.pid && holder.other_node.is_none())
        {
            holder.lease = Some(lease.record);
            continue;
        }
        // Its open files may not be looked at, and it tells all the same.
        let activity = if lease.record.streaming { Activity::Streaming } else { Activity::Open };
        if let Some(mut holder) = holders::known(lease.pid, activity) {
            if holder.pid == 0 {
                holder.uid = lease.uid;
            }
            holder.lease = Some(lease.record);
            all.list.push(holder);
        }
    }
    all.sort();
    all
}

fn start_time(pid: i32) -> Option<u64> {
    (pid > 0).then(|| Process::new(pid).ok()?.stat().ok()).flatten().map(|stat| stat.starttime)
}

/// The name space in which this process's numbers count.
fn process_space() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |space| space.ino())
}

fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_may_use_the_camera_are_believed() {
        if kernel::effective_user() != 0 {
            println!("SKIPPED: only_those_who_may_use_the_camera_are_believed: needs root to play other users");
            return;
        }
        let path = std::env::temp_dir().join(format!("camlease-believed-{}", process::id()));
        fs::write(&path, "").unwrap();
        let (somebody, group, other_group) = (65534, 44, 65534);
        for (owner, owners_group, users, believed) in [
            (somebody, group, Users::Group(group), true),
            (somebody, other_group, Users::Group(group), false),
            (0, other_group, Users::Group(group), true),
            (somebody, group, Users::Root, false),
            (0, 0, Users::Root, true),
            (somebody, other_group, Users::All, true),
        ] {
            std::os::unix::fs::chown(&path, Some(owner), Some(owners_group)).unwrap();
            let about = fs::metadata(&path).unwrap();
            assert_eq!(users.have(&about), believed, "{owner} {owners_group} {users:?}");
        }
        fs::remove_file(&path).unwrap();
    }
}
