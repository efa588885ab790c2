//! Who holds what, told by the holders themselves. Each camera that is held has a lease: a file in the runtime folder
//! that its holder has locked. The kernel drops the lock with the holder, so nothing can be stale, and what stays of a
//! holder that died tells the next one about its end.
//!
//! A lease keeps nobody out: the camera itself does that. It tells, and names the socket at which the holder can be
//! asked. A file counts for what its owner may say: that a process of the owner's own holds the camera.

use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};
use std::{fs, process};

use procfs::process::Process;

use self::folder::Folder;
use self::record::{DOING_AT, Doing, Entry};
use crate::backend::Source;
use crate::error::{Error, Kind, Result};
use crate::holders::{self, Activity, Holder, Holders};
use crate::kernel::{self, Fd};
use crate::{policy, timed};

mod ask;
mod doorbell;
mod folder;
mod record;

pub use ask::{Ask, Petition, Progress};
pub use doorbell::{Door, Doorbell, HandedOver, Verdict};
pub use record::{is_share_name, one_line};

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
    /// The name under which it shares the camera, which `shared:NAME` then opens.
    pub share: Option<String>,
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
    /// Root, and those who gave their file a group that this process is a member of.
    Peers,
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
            Users::Peers => kernel::is_in_group(about.gid()),
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
    file: PathBuf,
    /// Where its holder can be asked.
    door: PathBuf,
}

impl Found {
    /// Its file, by which it is known: no other lease has the same name.
    pub fn lease(&self) -> &Path {
        &self.file
    }

    /// Where its holder listens.
    pub fn door(&self) -> &Path {
        &self.door
    }
}

/// A lease of this process. Dropping it gives it up.
pub struct Lease {
    /// `None` once the camera was handed over.
    paper: Option<Paper>,
    bell: Option<Doorbell>,
    past: Arc<Past>,
}

/// A lease's file.
struct Paper {
    file: Fd,
    folder: Folder,
    name: String,
    /// Bytes of what stands in it, but for the last line, which comes and goes.
    length: u64,
    past: Arc<Past>,
    /// The camera is its holder's.
    is_held: bool,
}

/// What the holders before left. Looked at when it is asked for, and at the end: whoever waited for the camera is to
/// have it at once.
struct Past {
    filing: Filing,
    swept: Mutex<Option<Swept>>,
}

#[derive(Clone, Copy)]
struct Swept {
    last_exit: LastExit,
    /// Something stays that this user may not remove.
    remains: bool,
}

impl Past {
    fn swept(&self) -> Swept {
        *timed::lock(&self.swept).get_or_insert_with(|| sweep(&self.filing))
    }
}

const PREFIX: &str = "camlease-";
/// What the keys of signs begin with.
pub const SIGN: &str = "share-";
const DOOR: &str = ".ask";
const TAG_LENGTH: usize = 16;
/// With the folder, as /proc/self/fd/N or as /run/camlease, it is less than a path's 107.
const DOOR_NAME_MOST: usize = 80;

fn prefix_of(key: &str) -> String {
    format!("{PREFIX}{key}.")
}

/// The key in the name of a lease's file.
fn key_of(name: &str) -> Option<&str> {
    let (key, tag) = name.strip_prefix(PREFIX)?.rsplit_once('.')?;
    is_tag(tag).then_some(key)
}

fn is_tag(tag: &str) -> bool {
    tag.len() == TAG_LENGTH && tag.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The names of a camera's leases, not of another's whose key begins like its own.
fn names(folder: &Folder, filing: &Filing) -> Vec<String> {
    let mut names = folder.names(&prefix_of(&filing.key));
    names.retain(|name| key_of(name) == Some(&filing.key));
    // Anybody can put any number of files there: those of others are passed over unopened.
    let is_users =
        |name: &String| fs::symlink_metadata(folder.path_of(name)).is_ok_and(|file| filing.users.have(&file));
    names.retain(is_users);
    names.truncate(policy::LEASES_MOST);
    names
}

/// The name of the socket beside a lease. Without a long key: a socket's path has 107 bytes at most.
fn door_of(name: &str) -> String {
    match name.len() > DOOR_NAME_MOST {
        true => format!("{PREFIX}{}{DOOR}", &name[name.len() - TAG_LENGTH..]),
        false => format!("{name}{DOOR}"),
    }
}

impl Lease {
    /// Makes a lease ready for a camera that is waited for: there is less to do when it is got.
    pub fn prepare(filing: &Filing, name: &str, priority: i32) -> io::Result<Lease> {
        let (paper, bell) = Paper::new(filing, name, priority, |path| {
            Doorbell::hang(path).inspect_err(|e| log::warn!("{}: nobody can ask this holder: {e}", path.display())).ok()
        })?;
        Ok(Lease { past: paper.past.clone(), paper: Some(paper), bell })
    }

    pub fn filing(&self) -> &Filing {
        &self.past.filing
    }

    /// The camera is this process's.
    pub fn hold(&mut self, door: Weak<dyn Door>) {
        if let Some(bell) = &self.bell {
            bell.begin(door);
        }
        if let Some(paper) = &mut self.paper {
            paper.hold();
        }
    }

    /// Tells by which name the camera is shared now.
    pub fn set_share(&self, share: Option<&str>) {
        if let Some(paper) = &self.paper {
            paper.write_share(share);
        }
    }

    /// How the holder before this one ended.
    pub fn last_exit(&self) -> LastExit {
        self.past.swept().last_exit
    }

    /// It takes the place of another lease of this holder's.
    pub fn go_on_after(&mut self, last_exit: LastExit) {
        let remains = self.past.swept().remains;
        *timed::lock(&self.past.swept) = Some(Swept { last_exit, remains });
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

impl Drop for Lease {
    fn drop(&mut self) {
        // Of one that only waited; a holder's was taken before.
        if let Some(bell) = self.bell.take() {
            bell.end_by(Instant::now() + policy::HAND_OVER_END);
        }
    }
}

/// What tells others by which name something is served, and where: a lease of a name, with a socket beside it. Dropping it
/// takes it away.
pub struct Sign {
    paper: Paper,
}

impl Sign {
    /// Puts one up, with what listens at the path that is given. `Kind::Busy` where another process serves this name.
    pub fn put<T>(filing: &Filing, holder: &str, listen: impl Fn(&Path) -> io::Result<T>) -> Result<(Sign, T)> {
        let taken = |by: &Found| {
            Error::new(Kind::Busy, format!("shared:{holder}: it is served already, by pid {}", by.pid))
                .hint("choose another name, or stop that program")
        };
        if let Some(other) = find(std::slice::from_ref(filing)).first() {
            return Err(taken(other));
        }
        let failed = |e| {
            Error::system(format!("shared:{holder}: putting its name into the runtime folder"), e)
                .hint("see to it that /run/camlease is there and may be written, or set CAMLEASE_RUNTIME_DIR")
        };
        let (mut paper, listener) = Paper::new(filing, holder, 0, &listen).map_err(failed)?;
        let listener = listener.map_err(failed)?;
        let own = paper.folder.path_of(&paper.name);
        let since = paper.hold();
        // Of two who came at once, both see each other: the later one goes.
        let order = |file: &Path, since_ns| (since_ns, file.to_owned());
        let is_first = |other: &Found| order(&other.file, other.record.since_ns) < order(&own, since);
        if let Some(other) =
            find(std::slice::from_ref(filing)).iter().find(|other| other.file != own && is_first(other))
        {
            return Err(taken(other));
        }
        // What dead processes left goes now, whatever their names.
        paper.past.swept();
        tidy();
        Ok((Sign { paper }, listener))
    }

    pub fn set_streaming(&self, streaming: bool) {
        self.paper.write(if streaming { Doing::Streaming } else { Doing::Open });
    }
}

/// Removes what those who are dead left under these names.
pub fn clear_away(filing: &Filing) {
    sweep(filing);
}

/// Removes what dead processes of this user left in the runtime folder under names that may never come again: all that they
/// shared, and of leases, which tell a camera's next holder how the last one ended, the oldest when they are many.
pub fn tidy() {
    Folder::all().iter().for_each(tidy_folder);
}

fn tidy_folder(folder: &Folder) {
    let (mut signs, mut leases) = (Vec::new(), Vec::new());
    for name in folder.names(PREFIX) {
        match key_of(&name).map(|key| key.starts_with(SIGN)) {
            Some(true) => signs.push(name),
            Some(false) => leases.push(name),
            None => {}
        }
    }
    // Others see to theirs: root is not to be led by what anybody may put there.
    let own = kernel::effective_user();
    let about = |name: &String| fs::symlink_metadata(folder.path_of(name)).ok().filter(|about| about.uid() == own);
    let mut gone: Vec<String> = signs.into_iter().filter(|name| about(name).is_some()).collect();
    // Only where they are many are they looked at, each: that takes longer than all the rest of a close.
    if leases.len() > policy::LEASES_KEPT {
        let dated = |name: String| Some((about(&name)?.modified().ok(), name));
        let mut leases: Vec<_> = leases.into_iter().filter_map(dated).collect();
        if leases.len() > policy::LEASES_KEPT {
            leases.sort_unstable();
            leases.truncate(leases.len() - policy::LEASES_KEPT / 2);
            gone.extend(leases.into_iter().map(|(_, name)| name));
        }
    }
    for name in gone {
        let Ok(file) = folder.open(&name, libc::O_RDWR) else { continue };
        // Nobody has it. One that says nothing yet is new, and its maker about to lock it.
        if kernel::lock_for_writing(&file).is_ok() && look(&file).is_some() {
            let _ = folder.remove(&door_of(&name));
            let _ = folder.remove(&name);
        }
    }
}

/// Where leases appear and vanish.
pub fn folders() -> Vec<PathBuf> {
    Folder::all().iter().map(|folder| folder.path_of("")).collect()
}

/// What follows [`SIGN`] in the keys of all signs, also of those that dead processes left.
pub fn signs() -> Vec<String> {
    let names = Folder::all().into_iter().flat_map(|folder| folder.names(&format!("{PREFIX}{SIGN}")));
    let mut keys: Vec<String> = names.filter_map(|name| Some(key_of(&name)?.strip_prefix(SIGN)?.to_owned())).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

impl Paper {
    /// A lease's file, with what is made at the path of its socket.
    fn new<T>(filing: &Filing, name: &str, priority: i32, listen: impl Fn(&Path) -> T) -> io::Result<(Paper, T)> {
        let own = Process::myself().and_then(|own| own.stat()).map_err(io::Error::other)?;
        let entry = Entry {
            doing: Doing::Waiting,
            pid: process::id() as i32,
            start_time: own.starttime,
            space: process_space(),
            boot: boot(),
            instance: filing.instance.clone(),
            priority,
            since_ns: now_ns(),
            name: name.to_owned(),
            share: None,
        };
        let mut refusal = io::Error::from_raw_os_error(libc::ENOENT);
        for folder in Folder::all_for_writing() {
            match create(&folder, filing, &entry) {
                Ok((name, file)) => {
                    let made = listen(&folder.path_of(&door_of(&name)));
                    let past = Arc::new(Past { filing: filing.clone(), swept: Mutex::default() });
                    let length = entry.to_text().len() as u64;
                    return Ok((Paper { file, folder, name, length, past, is_held: false }, made));
                }
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// Makes it count; since when it does.
    fn hold(&mut self) -> u64 {
        self.is_held = true;
        let since_ns = now_ns();
        let _ = self.file.as_file().write_at(Entry::since_text(since_ns).as_bytes(), Entry::SINCE_AT);
        self.write(Doing::Open);
        since_ns
    }

    fn write_share(&self, share: Option<&str>) {
        let file = self.file.as_file();
        let written = file.set_len(self.length).and_then(|()| match share {
            Some(share) => file.write_all_at(Entry::share_text(share).as_bytes(), self.length),
            None => Ok(()),
        });
        if let Err(error) = written {
            log::warn!("{}: {error}", self.folder.path_of(&self.name).display());
        }
    }

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
        // First: one that is killed in between leaves the lease, and whoever finds that removes both. By its name alone a
        // socket would be found by nobody.
        let _ = self.folder.remove(&door_of(&self.name));
        // One that only waited leaves the past to the next one.
        if self.is_held && self.past.swept().remains {
            // Somebody who may remove both will.
            self.write(Doing::Ended);
        } else if let Err(error) = self.folder.remove(&self.name) {
            // What stays must not be taken for the lease of a holder that died.
            self.write(Doing::Ended);
            log::warn!("{}: {error}", self.folder.path_of(&self.name).display());
        }
        if self.is_held {
            tidy_folder(&self.folder);
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
    let mut bytes = [0u8; policy::PAGE];
    let length = file.as_file().read_at(&mut bytes, 0).ok()?;
    Some((Entry::parse(std::str::from_utf8(&bytes[..length]).ok()?)?, about))
}

/// Who has these cameras, by what the holders say.
pub fn find(filings: &[Filing]) -> Vec<Found> {
    let mut found = Vec::new();
    for folder in Folder::all() {
        let of_each = |filing: &Filing| {
            let users = filing.users;
            names(&folder, filing).into_iter().map(move |name| (name, users))
        };
        for (name, users) in filings.iter().flat_map(of_each) {
            let Ok(file) = folder.open(&name, libc::O_RDONLY) else { continue };
            if !kernel::is_locked_for_writing(&file) {
                continue;
            }
            let believed = |(entry, about): &(Entry, fs::Metadata)| {
                users.have(about) && matches!(entry.doing, Doing::Open | Doing::Streaming)
            };
            let Some((entry, about)) = look(&file).filter(believed) else { continue };
            let (file, door) = (folder.path_of(&name), folder.path_of(&door_of(&name)));
            found.extend(verify(entry, about.uid(), file, door));
        }
    }
    found
}

/// Whether a lease says what the owner of its file may say, in this process's numbers.
fn verify(entry: Entry, owner: u32, file: PathBuf, door: PathBuf) -> Option<Found> {
    let record = entry.record();
    if entry.space != process_space() {
        // Its numbers are another container's; the kernel translates the socket's. That is the number of the process
        // which listened first, and by now perhaps another user's.
        let peer = ask::peer_of(&door).filter(|peer| peer.uid == owner || owner == 0);
        let (pid, start_time) = peer.and_then(|peer| owned(peer.pid, owner)).unwrap_or((0, 0));
        return Some(Found { pid, uid: owner, start_time, record, file, door });
    }
    let (pid, start_time) = owned(entry.pid, owner).filter(|process| process.1 == entry.start_time)?;
    let uid = Process::new(pid).ok()?.uid().ok()?;
    Some(Found { pid, uid, start_time, record, file, door })
}

/// A process and its start, if it is one that this user might signal: nobody names another's.
fn owned(pid: i32, owner: u32) -> Option<(i32, u64)> {
    let process = Process::new(pid).ok().filter(|_| pid > 0)?;
    let status = process.status().ok()?;
    let is_owners = owner == 0 || [status.ruid, status.suid].contains(&owner);
    Some((pid, process.stat().ok()?.starttime)).filter(|_| is_owners)
}

/// Removes what dead holders left behind, and tells how the last of them ended.
fn sweep(filing: &Filing) -> Swept {
    let mut last: Option<Entry> = None;
    let mut remains = false;
    let deadline = Instant::now() + policy::LEASE_SETTLE;
    for folder in Folder::all() {
        for name in names(&folder, filing) {
            let lock = |file: &Fd| kernel::lock_for_writing(file).is_ok();
            // What others put there is passed over at once: it says nothing, and is not to be waited for.
            let is_users = |file: &Fd| file.as_file().metadata().is_ok_and(|about| filing.users.have(&about));
            let open = |access| folder.open(&name, access).ok().filter(is_users);
            let to_remove = open(libc::O_RDWR).filter(|file| comes_free(file, deadline, lock));
            let removable = to_remove.is_some();
            let Some(file) = to_remove.or_else(|| open(libc::O_RDONLY)) else { continue };
            if !removable && !comes_free(&file, deadline, |file| !kernel::is_locked_for_writing(file)) {
                continue; // it is somebody's: one who waits, or it is not of this camera any more
            }
            if let Some((entry, _)) = look(&file)
                && entry.doing != Doing::Waiting
                && entry.boot == boot()
                && entry.instance == filing.instance
                && last.as_ref().is_none_or(|last| last.since_ns < entry.since_ns)
            {
                last = Some(entry);
            }
            if removable {
                let _ = folder.remove(&door_of(&name));
            }
            // It may be gone by now: its owner or another one's look was quicker.
            let stays = |error: io::Error| error.kind() != io::ErrorKind::NotFound;
            remains |= !removable || folder.remove(&name).is_err_and(stays);
        }
    }
    let last_exit = match last.map(|entry| entry.doing) {
        None | Some(Doing::Ended | Doing::Waiting) => LastExit::Clean,
        Some(Doing::Open) => LastExit::Died,
        Some(Doing::Streaming) => LastExit::Dirty,
    };
    Swept { last_exit, remains }
}

/// Of CLOCK_BOOTTIME.
fn now_ns() -> u64 {
    kernel::clock_ns(libc::CLOCK_BOOTTIME) as u64
}

/// Whether a lease is nobody's, as `is_free` tells. One whose holder is ending is waited for: of what a process has open
/// the kernel may close the camera first and the lease a moment later.
fn comes_free(file: &Fd, deadline: Instant, is_free: impl Fn(&Fd) -> bool) -> bool {
    loop {
        if is_free(file) {
            return true;
        }
        let ends =
            |entry: Entry| entry.space == process_space() && crate::process::is_ending(entry.pid, entry.start_time);
        let ends = look(file).is_some_and(|(entry, _)| ends(entry));
        if !ends || Instant::now() >= deadline {
            return is_free(file); // it may have ended just before it was looked for
        }
        std::thread::sleep(policy::TIGHT_STEP);
    }
}

/// Who has a camera: from /proc, and with what the holders tell of themselves.
pub fn holders(source: &dyn Source) -> Holders {
    let is_its = |holder: &Holder, lease: &Found| {
        (holder.pid, holder.start_time) == (lease.pid, lease.start_time) && holder.other_node.is_none()
    };
    let mut all = source.holders();
    for lease in find(&source.filings()) {
        if let Some(holder) = all.list.iter_mut().find(|holder| is_its(holder, &lease)) {
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
