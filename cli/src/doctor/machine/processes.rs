//! Processes: all of them for who started whom, and of each what it has of cameras.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use procfs::FromRead;
use procfs::process::{Stat, StatFlags};

use super::nodes::Node;
use super::tree::{EntryKind, Number, Tree};
use super::usb::Usb;
use super::{kernel, printable};

/// Major number of V4L2.
pub const VIDEO_MAJOR: u32 = 81;

/// Between two looks at a thread that is inside the kernel: whoever merely reads from a disk is out of it by then.
const SECOND_LOOK: Duration = Duration::from_millis(400);

/// Tells whether two descriptors, each a process's, are one open file; nothing where that cannot be known.
type SameFile = fn((i32, i32), (i32, i32)) -> Option<bool>;

#[derive(Debug, Clone, Default)]
pub struct Processes {
    list: HashMap<i32, Process>,
    /// Processes of others, whose open files the kernel does not show to this user.
    pub unreadable: usize,
    /// Seconds since boot, at the time of reading.
    pub uptime: f64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub group: i32,
    pub session: i32,
    /// As in /proc/PID/stat: R, S, D, T, t, Z.
    pub state: char,
    /// Seconds after boot.
    pub started: f64,
    pub uid: u32,
    /// Its program's name.
    pub program: String,
    pub command: String,
    /// It is a fork that has not started a program of its own since: what it has mapped may be its parent's doing.
    pub is_mere_fork: bool,
    /// Threads that have not ended; looked up where the process has something of a camera.
    pub threads: Vec<Thread>,
    /// Its open nodes of cameras.
    pub open: Vec<Descriptor>,
    /// Cameras whose memory it has mapped.
    pub mapped: Vec<Number>,
    /// How many descriptors it has, and may have.
    pub descriptors: usize,
    pub descriptors_most: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    pub id: i32,
    pub state: char,
    /// The kernel's function that it waits in.
    pub waits_in: String,
}

/// An open node of a camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    pub fd: i32,
    pub number: Number,
    /// The path by which it was opened.
    pub path: String,
    /// Flags of fdinfo, in the kernel's values.
    pub flags: u32,
    /// Descriptors that are one open file have the same number here.
    pub file: usize,
    pub locked: bool,
}

impl Descriptor {
    /// It does not outlive an exec.
    pub fn closes_on_exec(&self) -> bool {
        self.flags & libc::O_CLOEXEC as u32 != 0
    }
}

impl Process {
    pub fn has_open(&self, number: Number) -> bool {
        self.open.iter().any(|descriptor| descriptor.number == number)
    }

    pub fn maps(&self, number: Number) -> bool {
        self.mapped.contains(&number)
    }

    pub fn has(&self, number: Number) -> bool {
        self.has_open(number) || self.maps(number)
    }

    /// "ffmpeg (pid 812)"
    pub fn called(&self) -> String {
        format!("{} (pid {})", self.program, self.pid)
    }
}

impl Processes {
    pub fn read(tree: &Tree, nodes: &[Node], usb: &[Usb]) -> Processes {
        let uptime = tree.text("/proc/uptime").and_then(|text| text.split(' ').next()?.parse().ok()).unwrap_or(0.0);
        let mut processes = Processes { uptime, ..Processes::default() };
        let own = if tree.is_live() { std::process::id() as i32 } else { 0 };
        let wanted = Wanted::new(nodes, usb);
        for pid in tree.names("/proc").iter().filter_map(|name| name.parse::<i32>().ok()).filter(|&pid| pid != own) {
            let Some(mut process) = Process::read(tree, pid) else { continue };
            match process.read_cameras(tree, &wanted) {
                Ok(()) => {}
                // A kernel thread has no files, and no command line; one that ended has none either.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !process.command.is_empty() => {
                    processes.unreadable += 1;
                }
                Err(_) => {}
            }
            processes.list.insert(pid, process);
        }
        processes.mark_locks(tree, nodes);
        processes.tell_files_apart(if tree.is_live() { kernel::same_file } else { |_, _| None });
        processes.forget_passing_stays(tree);
        processes
    }

    #[cfg(test)]
    pub fn of(list: Vec<Process>) -> Processes {
        let list = list.into_iter().map(|process| (process.pid, process)).collect();
        let mut processes = Processes { list, unreadable: 0, uptime: 1000.0 };
        processes.tell_files_apart(|_, _| None);
        processes
    }

    pub fn get(&self, pid: i32) -> Option<&Process> {
        self.list.get(&pid)
    }

    /// In the order of their numbers.
    pub fn each(&self) -> impl Iterator<Item = &Process> {
        let mut all: Vec<&Process> = self.list.values().collect();
        all.sort_by_key(|process| process.pid);
        all.into_iter()
    }

    /// Who has a node, or memory of it.
    pub fn having(&self, number: Number) -> impl Iterator<Item = &Process> {
        self.each().filter(move |process| process.has(number))
    }

    /// The process's parent, grandparent and so on, up to the first process.
    pub fn ancestors<'a>(&'a self, process: &'a Process) -> impl Iterator<Item = &'a Process> {
        std::iter::successors(self.get(process.parent), |process| self.get(process.parent))
            // A capture may be inconsistent: no chain is longer than there are processes.
            .take(self.list.len())
    }

    /// Whether the one who started a process has ended: another process took it over as a child.
    pub fn is_orphan(&self, process: &Process) -> bool {
        // A child is in its parent's session, until it makes one of its own.
        let parents_session = self.get(process.parent).map_or(0, |parent| parent.session);
        let leads = process.session == process.pid;
        !leads && process.session != parents_session
    }

    /// "3 minutes"
    pub fn age(&self, process: &Process) -> String {
        self.time_since(process.started)
    }

    /// The same for something that happened so many seconds after boot.
    pub fn time_since(&self, moment: f64) -> String {
        let seconds = (self.uptime - moment).max(0.0) as u64;
        let (count, unit) = match seconds {
            0..120 => (seconds, "second"),
            120..7200 => (seconds / 60, "minute"),
            7200..172_800 => (seconds / 3600, "hour"),
            _ => (seconds / 86_400, "day"),
        };
        format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
    }

    pub fn age_in_seconds(&self, process: &Process) -> u64 {
        (self.uptime - process.started).max(0.0) as u64
    }

    /// libcamera and those who use it own a camera by a lock on its media controller.
    fn mark_locks(&mut self, tree: &Tree, nodes: &[Node]) {
        let locks = tree.text("/proc/locks").unwrap_or_default();
        // 1: POSIX  ADVISORY  WRITE 812 00:05:143 0 EOF
        let held: Vec<(i32, u64)> = locks
            .lines()
            .filter_map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                Some((fields.get(4)?.parse().ok()?, fields.get(5)?.rsplit(':').next()?.parse().ok()?))
            })
            .collect();
        if held.is_empty() {
            return;
        }
        for (path, number) in nodes.iter().flat_map(|node| &node.controllers) {
            let Some(inode) = tree.inode(path) else { continue };
            for (pid, _) in held.iter().filter(|(_, locked)| *locked == inode) {
                if let Some(process) = self.list.get_mut(pid) {
                    let own = process.open.iter_mut().filter(|descriptor| descriptor.number == *number);
                    own.for_each(|descriptor| descriptor.locked = true);
                }
            }
        }
    }

    /// Gives descriptors that are one open file the same number.
    fn tell_files_apart(&mut self, same_file: SameFile) {
        let mut places: Vec<(i32, usize)> =
            self.each().flat_map(|process| (0..process.open.len()).map(|at| (process.pid, at))).collect();
        places.sort_unstable();
        let mut known: Vec<(i32, usize)> = Vec::new();
        for place in places {
            let descriptor = &self.list[&place.0].open[place.1];
            let first = known.iter().position(|other| {
                let earlier = &self.list[&other.0].open[other.1];
                earlier.number == descriptor.number
                    && same_file((other.0, earlier.fd), (place.0, descriptor.fd))
                        .unwrap_or_else(|| self.look_alike(*other, place))
            });
            let file = first.unwrap_or_else(|| {
                known.push(place);
                known.len() - 1
            });
            if let Some(process) = self.list.get_mut(&place.0) {
                process.open[place.1].file = file;
            }
        }
    }

    /// Where the kernel does not tell: a child that has the same node at the same number got it from its parent.
    fn look_alike(&self, one: (i32, usize), other: (i32, usize)) -> bool {
        let (process, child) = (&self.list[&one.0], &self.list[&other.0]);
        let related = child.parent == process.pid || process.parent == child.pid;
        let (open, inherited) = (&process.open[one.1], &child.open[other.1]);
        related && open.fd == inherited.fd && open.path == inherited.path
    }

    /// A thread that is inside the kernel is stuck only if it stays there.
    fn forget_passing_stays(&mut self, tree: &Tree) {
        let inside = |process: &Process| process.threads.iter().any(|thread| thread.state == 'D');
        if !self.list.values().any(inside) {
            return;
        }
        if tree.is_live() {
            std::thread::sleep(SECOND_LOOK);
        }
        for process in self.list.values_mut().filter(|process| inside(process)) {
            let now = threads(tree, process.pid);
            for thread in process.threads.iter_mut().filter(|thread| thread.state == 'D') {
                let still = now.iter().find(|other| other.id == thread.id);
                if still.is_none_or(|now| now.state != 'D' || now.waits_in != thread.waits_in) {
                    thread.state = 'S';
                }
            }
        }
    }
}

/// What to look for.
struct Wanted<'a> {
    nodes: &'a [Node],
    /// Media controllers, and USB cameras for programs that drive them by themselves.
    others: Vec<Number>,
}

impl<'a> Wanted<'a> {
    fn new(nodes: &'a [Node], usb: &[Usb]) -> Wanted<'a> {
        let controllers = nodes.iter().flat_map(|node| &node.controllers).map(|(_, number)| *number);
        let raw = usb.iter().filter(|device| device.is_camera()).map(Usb::raw_number);
        Wanted { nodes, others: controllers.chain(raw).collect() }
    }

    /// Any V4L2 node, also one whose camera is gone.
    fn wants(&self, number: Number) -> bool {
        number.0 == VIDEO_MAJOR || self.others.contains(&number)
    }

    fn by_path(&self, path: &str) -> Option<Number> {
        self.nodes.iter().find(|node| node.path == Path::new(path)).map(|node| node.number)
    }
}

impl Process {
    fn read(tree: &Tree, pid: i32) -> Option<Process> {
        let folder = format!("/proc/{pid}");
        let stat = Stat::from_read(&tree.bytes(format!("{folder}/stat"))?[..]).ok()?;
        let command = tree.bytes(format!("{folder}/cmdline")).unwrap_or_default();
        let words: Vec<String> =
            command.split(|&byte| byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let first = words.first().and_then(|word| word.rsplit('/').next()).filter(|name| !name.is_empty());
        let status = tree.text(format!("{folder}/status")).unwrap_or_default();
        let uid = status.lines().find_map(|line| line.strip_prefix("Uid:")?.split_whitespace().nth(1)?.parse().ok());
        Some(Process {
            pid,
            parent: stat.ppid,
            group: stat.pgrp,
            session: stat.session,
            state: stat.state,
            started: stat.starttime as f64 / procfs::ticks_per_second() as f64,
            uid: uid.unwrap_or(u32::MAX),
            program: printable(first.unwrap_or(&stat.comm)),
            command: printable(&words.join(" ")),
            is_mere_fork: StatFlags::from_bits_truncate(stat.flags).contains(StatFlags::PF_FORKNOEXEC),
            ..Process::default()
        })
    }

    fn read_cameras(&mut self, tree: &Tree, wanted: &Wanted<'_>) -> io::Result<()> {
        let folder = self.files_folder(tree);
        let names = tree.try_names(format!("{folder}/fd"))?;
        self.descriptors = names.len();
        self.open = names
            .iter()
            .filter_map(|name| name.parse().ok())
            .filter_map(|fd| Descriptor::read(tree, &folder, fd, wanted))
            .collect();
        self.mapped = mapped(tree, &folder);
        if !self.open.is_empty() || !self.mapped.is_empty() {
            self.threads = threads(tree, self.pid);
            self.descriptors_most = tree.text(format!("{folder}/limits")).as_deref().and_then(descriptors_most);
        }
        Ok(())
    }

    /// Of a process whose first thread has ended the files are seen at another thread alone.
    fn files_folder(&self, tree: &Tree) -> String {
        let itself = format!("/proc/{}", self.pid);
        if self.state != 'Z' {
            return itself;
        }
        let living = threads(tree, self.pid).into_iter().find(|thread| !matches!(thread.state, 'Z' | 'X'));
        living.map_or(itself, |thread| format!("/proc/{}/task/{}", self.pid, thread.id))
    }
}

impl Descriptor {
    fn read(tree: &Tree, folder: &str, fd: i32, wanted: &Wanted<'_>) -> Option<Descriptor> {
        let link = format!("{folder}/fd/{fd}");
        let path = tree.link(&link)?.to_str()?.to_owned();
        // What else is open is not looked at: on a network's file system that is gone, a look would wait for ever.
        if !may_be_device(&path) {
            return None;
        }
        // The open file itself is asked: its path may be another node's by now, or another container's.
        let number = match tree.entry(&link).map(|entry| entry.kind) {
            Some(EntryKind::CharDevice(number)) => number,
            _ => wanted.by_path(&path)?,
        };
        let info = tree.text(format!("{folder}/fdinfo/{fd}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
        wanted.wants(number).then(|| Descriptor {
            fd,
            number,
            path: printable(&path),
            flags: flags.unwrap_or(0),
            file: 0,
            locked: false,
        })
    }
}

/// Whether a path may be a camera's: one in /dev, or in that of another root.
fn may_be_device(path: &str) -> bool {
    const IN_OTHER_ROOTS: [&str; 3] = ["video", "media", "bus/usb/"];
    match path.rfind("/dev/") {
        None => false,
        Some(0) => true,
        Some(at) => IN_OTHER_ROOTS.iter().any(|name| path[at + "/dev/".len()..].starts_with(name)),
    }
}

/// The device that a process has mapped from a path. Its own view of the path counts: in a container, /dev/video0 may be
/// any camera.
fn mapped_device(tree: &Tree, folder: &str, range: &str, path: &str) -> Option<Number> {
    let number = |path: &str| match tree.entry(path)?.kind {
        EntryKind::CharDevice(number) => Some(number),
        _ => None,
    };
    // Certain, and for root alone. Its names have no leading zeros.
    let (from, to) = range.split_once('-')?;
    let name = format!("{}-{}", from.trim_start_matches('0'), to.trim_start_matches('0'));
    let own_root = format!("{folder}/root");
    number(&format!("{folder}/map_files/{name}")).or_else(|| match tree.exists(format!("{own_root}/dev")) {
        true => number(&format!("{own_root}{path}")),
        false => number(path),
    })
}

fn mapped(tree: &Tree, folder: &str) -> Vec<Number> {
    let mut numbers: Vec<Number> = tree
        .text(format!("{folder}/maps"))
        .unwrap_or_default()
        .lines()
        // Of a camera that was unplugged: its path may be another camera's by now.
        .filter(|line| !line.ends_with("(deleted)"))
        .filter_map(|line| {
            // 7f..-7f.. rw-s 00000000 00:05 143    /dev/video0
            let path = line.split_whitespace().nth(5).filter(|path| may_be_device(path))?;
            mapped_device(tree, folder, line.split(' ').next()?, path)
        })
        .filter(|number| number.0 == VIDEO_MAJOR)
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}

fn threads(tree: &Tree, pid: i32) -> Vec<Thread> {
    let folder = format!("/proc/{pid}/task");
    tree.names(&folder)
        .iter()
        .filter_map(|name| {
            let stat = Stat::from_read(&tree.bytes(format!("{folder}/{name}/stat"))?[..]).ok()?;
            let waits_in = tree.text(format!("{folder}/{name}/wchan")).filter(|function| function != "0");
            Some(Thread { id: name.parse().ok()?, state: stat.state, waits_in: waits_in.unwrap_or_default() })
        })
        .collect()
}

/// Max open files            1024                 524288               files
fn descriptors_most(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
pub mod capture {
    use super::*;

    /// The line of /proc/PID/stat for a program.
    pub fn stat(pid: i32, program: &str, state: char, parent: i32, group: i32, session: i32) -> String {
        format!(
            "{pid} ({program}) {state} {parent} {group} {session} 0 -1 4194304 100 0 0 0 1 1 0 0 20 0 1 0 5000 1000000 \
             100 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0"
        )
    }

    /// A process with one descriptor of the camera 81:0.
    pub fn holder(pid: i32, parent: i32) -> Process {
        Process {
            pid,
            parent,
            group: pid,
            session: 700,
            state: 'S',
            started: 400.0,
            program: "grabber".into(),
            command: "grabber /dev/video0".into(),
            open: vec![Descriptor {
                fd: 3,
                number: (81, 0),
                path: "/dev/video0".into(),
                flags: libc::O_RDWR as u32,
                file: 0,
                locked: false,
            }],
            ..Process::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::nodes;
    use super::super::tree::capture::capture as machine;
    use super::capture::stat;
    use super::*;

    const CAMERA: [(&str, &str); 4] = [
        ("/sys/devices/c/video4linux/video0/dev", "81:0"),
        ("/sys/devices/c/video4linux/video0/device", "-> ../../../c"),
        ("/sys/class/video4linux/video0", "-> ../../devices/c/video4linux/video0"),
        ("/dev/video0", "device 81:0 0660 0 44"),
    ];

    #[test]
    fn what_a_process_has_is_read_from_a_capture() {
        let machine = machine(&CAMERA);
        machine.add("/proc/uptime", b"1000.0 4000.0");
        machine.add("/proc/812/stat", stat(812, "grab ber)", 'T', 1, 800, 700).as_bytes());
        machine.add("/proc/812/cmdline", b"/usr/bin/grabber\0/dev/video0\0");
        machine.add("/proc/812/status", b"Name:\tgrabber\nUid:\t1000\t1001\t1000\t1000\n");
        machine.add("/proc/812/fd/3", b"-> /dev/video0");
        machine.add("/proc/812/fd/0", b"-> /dev/null");
        machine.add("/proc/812/fdinfo/3", b"pos:\t0\nflags:\t02100002\nmnt_id:\t20\n");
        machine.add("/proc/812/maps", b"7f00-7f01 rw-s 00000000 00:05 143    /dev/video0\n");
        machine.add("/proc/812/limits", b"Max open files            1024                 524288               files\n");
        machine.add("/proc/812/task/812/stat", stat(812, "grabber", 'T', 1, 800, 700).as_bytes());
        let processes = Processes::read(&machine.tree, &nodes::read(&machine.tree), &[]);
        let process = processes.get(812).unwrap();
        assert_eq!((process.parent, process.group, process.session, process.state), (1, 800, 700, 'T'));
        assert_eq!((process.uid, process.program.as_str()), (1001, "grabber"));
        assert_eq!((process.descriptors, process.descriptors_most), (2, Some(1024)));
        let [open] = &process.open[..] else { panic!("{process:?}") };
        assert_eq!((open.fd, open.number, open.closes_on_exec()), (3, (81, 0), true));
        assert!(process.maps((81, 0)));
        assert_eq!(processes.age(process), "15 minutes");
        assert!(processes.is_orphan(process), "the first process took it over");
    }

    #[test]
    fn memory_is_that_of_the_camera_that_the_process_sees() {
        let machine = machine(&CAMERA);
        machine.add("/dev/video2", b"device 81:2 0660 0 44");
        let maps = b"0007f00-0007f01 rw-s 00000000 00:05 143    /dev/video0\n";
        for pid in [812, 813] {
            machine.add(&format!("/proc/{pid}/stat"), stat(pid, "grabber", 'S', 700, pid, 700).as_bytes());
            machine.add(&format!("/proc/{pid}/fd/0"), b"-> /mnt/dead/file");
            machine.add(&format!("/proc/{pid}/maps"), maps);
        }
        // In a container, whose /dev/video0 is the machine's second camera.
        machine.add("/proc/812/root/dev/video0", b"device 81:2 0660 0 44");
        machine.add("/proc/813/map_files/7f00-7f01", b"device 81:2 0660 0 44");
        let processes = Processes::read(&machine.tree, &nodes::read(&machine.tree), &[]);
        for pid in [812, 813] {
            assert_eq!(processes.get(pid).unwrap().mapped, [(81, 2)], "{pid}");
        }
    }

    #[test]
    fn only_what_may_be_a_device_is_looked_at() {
        for path in ["/dev/video0", "/dev/cameras/front", "/srv/root/dev/video2", "/x/dev/bus/usb/001/004"] {
            assert!(may_be_device(path), "{path}");
        }
        for path in ["/mnt/dead/film.avi", "/home/anna/dev/robot/film.avi", "socket:[812]", "anon_inode:[eventfd]"] {
            assert!(!may_be_device(path), "{path}");
        }
    }

    #[test]
    fn memory_of_a_camera_that_is_gone_is_not_the_next_ones() {
        let machine = machine(&CAMERA);
        machine.add("/proc/812/stat", stat(812, "grabber", 'S', 700, 812, 700).as_bytes());
        machine.add("/proc/812/fd/0", b"-> /dev/null");
        machine.add("/proc/812/maps", b"7f00-7f01 rw-s 00000000 00:05 143    /dev/video0 (deleted)\n");
        let processes = Processes::read(&machine.tree, &nodes::read(&machine.tree), &[]);
        assert!(!processes.get(812).unwrap().maps((81, 0)));
    }

    #[test]
    fn files_of_a_process_whose_first_thread_ended_are_those_of_another_thread() {
        let machine = machine(&CAMERA);
        machine.add("/proc/812/stat", stat(812, "grabber", 'Z', 700, 812, 700).as_bytes());
        machine.add("/proc/812/task/812/stat", stat(812, "grabber", 'Z', 700, 812, 700).as_bytes());
        machine.add("/proc/812/task/815/stat", stat(815, "worker", 'S', 700, 812, 700).as_bytes());
        machine.add("/proc/812/task/815/fd/3", b"-> /dev/video0");
        let processes = Processes::read(&machine.tree, &nodes::read(&machine.tree), &[]);
        assert!(processes.get(812).unwrap().has_open((81, 0)));
    }
}
