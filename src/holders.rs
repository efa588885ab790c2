//! Who has a camera: read from /proc, where the kernel itself tells it, so that nothing can be stale.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use procfs::process::Process;

use self::crowd::Crowd;
use self::descriptors::Seen;
use self::mappings::Wanted;
use crate::lease::Record;

mod crowd;
mod descriptors;
mod mappings;

/// What a holder does with the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// It merely has a node of the camera open; that keeps nobody from streaming.
    Open,
    /// It has the driver's buffers mapped, or otherwise is the one who streams.
    Streaming,
}

/// What the kernel says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It runs, or waits for something.
    Alive,
    /// It was stopped (SIGSTOP, Ctrl+Z, a debugger), and answers nobody.
    Stopped,
    /// It is inside the kernel and no signal reaches it, SIGKILL neither (state D).
    Stuck,
    /// Its first thread has ended, others go on with what it has open (state Z).
    Zombie,
}

/// One process that has a camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: i32,
    pub uid: u32,
    /// Clock ticks since boot, as in /proc/PID/stat: with pid it names one process for ever.
    pub start_time: u64,
    pub activity: Activity,
    /// Its command line, printable.
    pub command: String,
    /// What the kernel says of the process.
    pub condition: Condition,
    /// What it told of itself when it opened the camera, where it uses this library.
    pub lease: Option<Record>,
    /// The node that it has, where that is not the one that was asked for.
    pub other_node: Option<PathBuf>,
    /// It has a lock on that node: libcamera and those who use it own a camera by locking its media controller.
    pub locks_other_node: bool,
}

/// The holders of one camera, and whether there may be more.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Holders {
    pub list: Vec<Holder>,
    /// Processes whose open files could not be read: they may be holders too.
    pub unreadable: usize,
}

/// What to look for among the open files of all processes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Device { node: PathBuf, number: u64 },
    Socket { inode: u64 },
}

impl Target {
    /// A device node, if there is one at this path.
    pub fn device(node: &Path) -> Option<Target> {
        let file = fs::metadata(node).ok()?;
        file.file_type().is_char_device().then(|| Target::Device { node: node.to_owned(), number: file.rdev() })
    }

    pub fn device_number(&self) -> Option<u64> {
        match self {
            Target::Device { number, .. } => Some(*number),
            Target::Socket { .. } => None,
        }
    }
}

/// Looks through all processes once. Each inner list belongs to one camera: its first target is the
/// camera itself, further ones are its other nodes. The answer has one entry for each camera.
pub fn scan(cameras: &[Vec<Target>]) -> Vec<Holders> {
    let mut found = vec![Holders::default(); cameras.len()];
    if cameras.is_empty() {
        return found;
    }
    let Ok(crowd) = Crowd::gather().map(Arc::new) else {
        found.iter_mut().for_each(|holders| holders.unreadable = 1);
        return found;
    };
    let mut unreadable = 0;
    let sought: Arc<[_]> = cameras.into();
    for seen in crowd.each(move |proc, pid| descriptors::look(proc, pid, &sought)) {
        match seen {
            Seen::Unreadable => unreadable += 1,
            Seen::Open(open) => {
                for (camera, target) in open.targets {
                    let activity = match &cameras[camera][target] {
                        Target::Socket { .. } => Activity::Streaming,
                        device if maps(&crowd, open.pid, device) => Activity::Streaming,
                        _ => Activity::Open,
                    };
                    found[camera].list.extend(holder(open.pid, open.thread, activity, &cameras[camera], target));
                }
            }
        }
    }
    // A mapping keeps a device busy after its descriptor was closed. Reading every process's mappings
    // takes long: only where nobody else explains it.
    let unexplained = |camera: &usize| found[*camera].list.iter().all(|holder| holder.activity == Activity::Open);
    let cameras_left = (0..cameras.len()).filter(unexplained);
    let wanted: Vec<_> = cameras_left.filter_map(|camera| Wanted::new(camera, cameras[camera].first()?)).collect();
    if !wanted.is_empty() {
        let mapped = crowd.each(move |proc, pid| Some((pid, mappings::look(proc, pid, &wanted))));
        for (pid, camera) in mapped.into_iter().flat_map(|(pid, all)| all.into_iter().map(move |camera| (pid, camera)))
        {
            found[camera].list.retain(|known| known.pid != pid);
            found[camera].list.extend(holder(pid, pid, Activity::Streaming, &cameras[camera], 0));
        }
    }
    for holders in &mut found {
        holders.unreadable = unreadable;
        holders.sort();
    }
    found
}

/// A process that is known to have a camera, whatever its open files show. One of another container has no number
/// here.
pub fn known(pid: i32, activity: Activity) -> Option<Holder> {
    if pid == 0 {
        let command = "a process of another container".to_owned();
        let (uid, condition) = (u32::MAX, Condition::Alive);
        let (other_node, locks_other_node) = (None, false);
        return Some(Holder {
            pid,
            uid,
            start_time: 0,
            activity,
            command,
            condition,
            lease: None,
            other_node,
            locks_other_node,
        });
    }
    holder(pid, pid, activity, &[Target::Socket { inode: 0 }], 0)
}

/// Whether a process has a device's memory mapped.
fn maps(crowd: &Crowd, pid: i32, target: &Target) -> bool {
    Wanted::new(0, target).is_some_and(|wanted| crowd.one(|proc| !mappings::look(proc, pid, &[wanted]).is_empty()))
}

/// A process that has a target, as seen through one of its threads; `None` where it ended meanwhile.
fn holder(pid: i32, thread: i32, activity: Activity, targets: &[Target], target: usize) -> Option<Holder> {
    let process = Process::new(pid).ok()?;
    let stat = process.stat().ok()?;
    let other_node = match &targets[target] {
        Target::Device { node, .. } if target > 0 => Some(node.clone()),
        _ => None,
    };
    // A first thread that has ended has no memory any more in which a command line could stand.
    let line = |process: &Process| process.cmdline().ok().map(|words| words.join(" "));
    let thread = PathBuf::from(format!("/proc/{pid}/task/{thread}"));
    let command = line(&process)
        .filter(|line| !line.trim().is_empty())
        .or_else(|| line(&Process::new_with_root(thread).ok()?).filter(|line| !line.trim().is_empty()));
    let locks_other_node = other_node.as_deref().is_some_and(|node| locks(&process, node));
    Some(Holder {
        pid,
        uid: process.status().map(|status| status.euid).unwrap_or(u32::MAX),
        start_time: stat.starttime,
        activity,
        command: printable(&command.unwrap_or(stat.comm)),
        condition: match stat.state {
            'T' | 't' => Condition::Stopped,
            'D' => Condition::Stuck,
            'Z' | 'X' => Condition::Zombie,
            _ => Condition::Alive,
        },
        lease: None,
        other_node,
        locks_other_node,
    })
}

fn locks(process: &Process, node: &Path) -> bool {
    let Ok(inode) = fs::metadata(node).map(|file| file.ino()) else { return false };
    let locks = procfs::locks().unwrap_or_default();
    locks.iter().any(|lock| lock.inode == inode && lock.pid == Some(process.pid()))
}

/// Another process chooses its command line: what would steer a terminal is taken out.
pub fn printable(text: &str) -> String {
    let mut safe: String = text.trim().chars().take(512).collect();
    if safe.contains(char::is_control) {
        safe = safe.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    }
    safe
}

impl Holders {
    /// Those who stream first, then those who have the camera's own node.
    pub fn sort(&mut self) {
        self.list.sort_by_key(|holder| (std::cmp::Reverse(holder.activity), holder.other_node.is_some(), holder.pid));
    }
}

impl Holder {
    /// The program's name, for a message.
    fn program(&self) -> &str {
        let first = self.command.split(' ').next().unwrap_or("");
        first.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("a process")
    }

    /// The name by which it shares the camera with others.
    pub fn shares_as(&self) -> Option<&str> {
        self.lease.as_ref()?.share.as_deref()
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let itself = if self.pid == std::process::id() as i32 { "this process itself, " } else { "" };
        write!(f, "{itself}{} (pid {}, user {}, ", self.program(), self.pid, user_name(self.uid))?;
        match (self.activity, &self.other_node) {
            (Activity::Streaming, None) => f.write_str("streaming")?,
            (Activity::Open, None) => f.write_str("has it open")?,
            (_, Some(node)) => {
                let what = if self.locks_other_node { "locked" } else { "open" };
                write!(f, "has the same camera's {} {what}", node.display())?;
            }
        }
        if let Some(lease) = &self.lease {
            if !lease.name.is_empty() {
                write!(f, ", calls itself \"{}\"", lease.name)?;
            }
            if lease.priority != 0 {
                write!(f, ", priority {}", lease.priority)?;
            }
        }
        if let Some(share) = self.shares_as() {
            write!(f, ", shares it as \"{share}\"")?;
        }
        f.write_str(match self.condition {
            Condition::Alive => ")",
            Condition::Stopped => ", stopped)",
            Condition::Stuck => ", stuck in the kernel)",
            Condition::Zombie => ", its first thread has ended)",
        })
    }
}

impl fmt::Display for Holders {
    /// "held by v4l2-ctl (pid 812, user root, streaming)", or the truth about not knowing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list.split_first() {
            None => f.write_str("no holder was found in /proc")?,
            Some((first, rest)) => {
                write!(f, "held by {first}")?;
                rest.iter().try_for_each(|holder| write!(f, ", {holder}"))?;
            }
        }
        if self.unreadable > 0 {
            let processes = if self.unreadable == 1 { "process" } else { "processes" };
            write!(
                f,
                "; the list may be incomplete: the open files of {} {processes} of other users cannot be read (root can)",
                self.unreadable
            )?;
        }
        Ok(())
    }
}

/// From /etc/passwd alone: a look-up over the network must not delay an error message.
pub fn user_name(uid: u32) -> String {
    let name = fs::File::open("/etc/passwd").ok().and_then(|file| {
        BufReader::new(file).lines().map_while(Result::ok).find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
        })
    });
    name.unwrap_or_else(|| {
        let mut text = String::new();
        let _ = write!(text, "uid {uid}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    fn holder() -> Holder {
        Holder {
            pid: 812,
            uid: 0,
            start_time: 1,
            activity: Activity::Streaming,
            command: "/usr/bin/v4l2-ctl --stream-mmap".into(),
            condition: Condition::Alive,
            lease: None,
            other_node: None,
            locks_other_node: false,
        }
    }

    #[test]
    fn a_message_names_program_pid_user_and_activity() {
        let holders = Holders { list: vec![holder()], unreadable: 0 };
        assert_eq!(holders.to_string(), "held by v4l2-ctl (pid 812, user root, streaming)");
        let other = Holder { other_node: Some("/dev/video1".into()), uid: 4_000_000_000, ..holder() };
        let holders = Holders { list: vec![other], unreadable: 2 };
        let text = holders.to_string();
        assert!(text.contains("user uid 4000000000, has the same camera's /dev/video1 open"), "{text}");
        assert!(text.contains("incomplete: the open files of 2 processes"), "{text}");
        let own = Holder { pid: std::process::id() as i32, ..holder() };
        assert!(own.to_string().starts_with("this process itself, v4l2-ctl"));
    }

    #[test]
    fn a_scan_finds_this_process_by_device_and_by_socket() {
        let null = fs::File::open("/dev/null").unwrap();
        let (socket, _peer) = UnixStream::pair().unwrap();
        let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        let inode =
            link.to_str().unwrap().strip_prefix("socket:[").unwrap().strip_suffix(']').unwrap().parse().unwrap();
        let cameras = [
            vec![Target::device(Path::new("/dev/null")).unwrap()],
            vec![Target::Socket { inode }],
            vec![Target::Socket { inode: u64::MAX }],
        ];
        let found = scan(&cameras);
        let own = |holders: &Holders| holders.list.iter().find(|h| h.pid == std::process::id() as i32).cloned();
        let by_device = own(&found[0]).expect("this process has /dev/null open");
        assert_eq!(by_device.activity, Activity::Open);
        assert!(by_device.start_time > 0);
        assert_eq!(own(&found[1]).expect("this process has the socket").activity, Activity::Streaming);
        assert!(found[2].list.is_empty());
        drop(null);
    }

    #[test]
    fn command_lines_cannot_steer_a_terminal() {
        assert_eq!(printable("evil\x1b[2Jname\n"), "evil?[2Jname");
    }
}
