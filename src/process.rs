//! A process as the kernel knows it: named for good by a pidfd, signalled and watched by it, its state out of /proc.

use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::time::Instant;

use procfs::process::{Stat, StatFlags};

use crate::holders::{Condition, printable};
use crate::kernel::{Fd, poll, readable};

/// A process that cannot be taken for another one: not before it has ended, and not after.
pub struct Process {
    pid: i32,
    start_time: u64,
    /// `None` where the kernel gives none: before Linux 5.3, or under a container's filter that does not know the call.
    /// Then a signal goes to whoever has the pid a moment after the start time was compared: pids are given out in
    /// turn, so that all others would have to be used up in that moment.
    pidfd: Option<Fd>,
}

/// Why a process that was seen cannot be taken hold of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It has ended.
    Gone,
    /// Its pid is another process's by now.
    Reused,
    /// /proc shows another pid namespace than this process is in: a number means one process there, and another here.
    Elsewhere,
}

impl Process {
    /// Takes hold of the process that had this pid and began at that time.
    pub fn find(pid: i32, start_time: u64) -> Result<Process, Missing> {
        // One that another container's lease tells of has no number here, and 0 would be this one's whole group.
        if pid <= 0 {
            return Err(Missing::Elsewhere);
        }
        // First the pidfd and then the comparison: what it names from now on is what is compared.
        let opened = open_pidfd(pid);
        let stat = stat(pid).ok_or(Missing::Gone)?;
        if stat.starttime != start_time {
            return Err(Missing::Reused);
        }
        let pidfd = match opened {
            Ok(pidfd) if shown_pid(&pidfd).is_some_and(|shown| shown != pid) => return Err(Missing::Elsewhere),
            Ok(pidfd) => Some(pidfd),
            // It is in /proc as it was, and is not there for us.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Err(Missing::Elsewhere),
            Err(_) if own_pid() != std::process::id() as i32 => return Err(Missing::Elsewhere),
            Err(error) => {
                log::debug!("no pidfd for process {pid} ({error}): signals go by its pid and start time");
                None
            }
        };
        Ok(Process { pid, start_time, pidfd })
    }

    /// Sends a signal; 0 sends none, and asks whether one could be sent.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let sent = match &self.pidfd {
            // SAFETY: no pointer but a null one, which means a signal as kill sends it.
            Some(pidfd) => unsafe {
                libc::syscall(
                    libc::SYS_pidfd_send_signal,
                    pidfd.number(),
                    signal,
                    std::ptr::null::<libc::siginfo_t>(),
                    0,
                )
            },
            None if self.has_ended() => return Err(io::Error::from_raw_os_error(libc::ESRCH)),
            // SAFETY: no pointers.
            None => i64::from(unsafe { libc::kill(self.pid, signal) }),
        };
        if sent == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Readable when the process has ended with all its threads; -1, which poll passes over, where there is no pidfd.
    pub fn fd(&self) -> RawFd {
        self.pidfd.as_ref().map_or(-1, Fd::number)
    }

    /// Whether it has ended with all its threads, and so let go of all that it had.
    pub fn has_ended(&self) -> bool {
        match &self.pidfd {
            Some(pidfd) => poll(&mut [readable(pidfd.number())], Some(Instant::now())).unwrap_or(false),
            None => match stat(self.pid) {
                Some(stat) => stat.starttime != self.start_time || threads(self.pid).iter().all(Thread::has_ended),
                None => true,
            },
        }
    }

    /// What the kernel says of it now, all its threads looked at: a process can do without its first one.
    pub fn condition(&self) -> Condition {
        condition(&threads(self.pid))
    }

    /// Where in the kernel the thread is that no signal reaches, as far as the kernel tells.
    pub fn stuck_in(&self) -> Option<String> {
        stuck_in(self.pid)
    }

    /// Whether it is on its way out: its files and memory are being given back, or are already.
    pub fn is_ending(&self) -> bool {
        stat(self.pid).is_none_or(|stat| flags(&stat).contains(StatFlags::PF_EXITING) && stat.state != 'Z')
    }

    /// Whether it is the kernel's own: it heeds no signal.
    pub fn is_kernel_thread(&self) -> bool {
        stat(self.pid).is_some_and(|stat| flags(&stat).contains(StatFlags::PF_KTHREAD))
    }

    /// Whether it is the first process of a pid namespace below ours, as a container's is.
    pub fn is_first_of_its_namespace(&self) -> bool {
        let status = procfs::process::Process::new(self.pid).and_then(|process| process.status());
        status.is_ok_and(|status| status.nspid.is_some_and(|pids| pids.len() > 1 && pids.last() == Some(&1)))
    }

    /// Who debugs it, if anybody does.
    pub fn tracer(&self) -> Option<i32> {
        let status = procfs::process::Process::new(self.pid).and_then(|process| process.status()).ok()?;
        Some(status.tracerpid).filter(|&pid| pid != 0)
    }
}

/// Whether the process that had this pid and began at that time is on its way out, or gone.
pub fn is_ending(pid: i32, start_time: u64) -> bool {
    stat(pid).is_none_or(|stat| stat.starttime != start_time || flags(&stat).contains(StatFlags::PF_EXITING))
}

/// This process, as /proc counts.
pub fn own_pid() -> i32 {
    let link = fs::read_link("/proc/self").unwrap_or_default();
    link.to_str().and_then(|pid| pid.parse().ok()).unwrap_or(std::process::id() as i32)
}

/// The parent of this process, its parent, and so on up to the first one.
pub fn ancestors() -> Vec<i32> {
    let mut found = Vec::new();
    let mut pid = own_pid();
    while let Some(stat) = stat(pid) {
        pid = stat.ppid;
        // A parent that lies outside of the namespace is 0. A chain that is read while it changes has no loop for long.
        if pid == 0 || found.contains(&pid) {
            break;
        }
        found.push(pid);
    }
    found
}

struct Thread {
    id: i32,
    state: char,
}

impl Thread {
    fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

fn condition(threads: &[Thread]) -> Condition {
    let any = |states: &[char]| threads.iter().any(|thread| states.contains(&thread.state));
    match threads {
        _ if any(&['D']) => Condition::Stuck,
        _ if any(&['T', 't']) => Condition::Stopped,
        [first, ..] if first.has_ended() => Condition::Zombie,
        _ => Condition::Alive,
    }
}

/// The threads of a process, its first one first.
fn threads(pid: i32) -> Vec<Thread> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut threads: Vec<_> = entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name before it may have any character in it, brackets too.
            let state = line.rsplit_once(") ")?.1.chars().next()?;
            Some(Thread { id, state })
        })
        .collect();
    threads.sort_by_key(|thread| (thread.id != pid, thread.id));
    threads
}

/// Processes that no signal reaches: pid, name, and where in the kernel they are.
pub fn stuck() -> Vec<(i32, String, String)> {
    let processes = procfs::process::all_processes().into_iter().flatten().flatten();
    processes
        .filter_map(|process| {
            let stat = process.stat().ok()?;
            let place = stuck_in(stat.pid).filter(|_| !flags(&stat).contains(StatFlags::PF_KTHREAD))?;
            Some((stat.pid, printable(&stat.comm), place))
        })
        .collect()
}

/// Where in the kernel a process is that no signal reaches, as far as the kernel tells.
pub fn stuck_in(pid: i32) -> Option<String> {
    threads(pid).iter().find(|thread| thread.state == 'D').map(|thread| {
        let place = fs::read_to_string(format!("/proc/{pid}/task/{}/wchan", thread.id)).unwrap_or_default();
        // "0" is for those who may not know.
        if place.is_empty() || place == "0" { "an unknown place".to_owned() } else { place }
    })
}

fn flags(stat: &Stat) -> StatFlags {
    StatFlags::from_bits_truncate(stat.flags)
}

fn stat(pid: i32) -> Option<Stat> {
    procfs::process::Process::new(pid).ok()?.stat().ok()
}

fn open_pidfd(pid: i32) -> io::Result<Fd> {
    // SAFETY: no pointers. A pidfd is made close-on-exec by the kernel.
    Fd::make(|| unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as RawFd)
}

/// The pid that /proc has for the process that a pidfd names.
fn shown_pid(pidfd: &Fd) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.number())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::time::Duration;

    fn start_time(pid: i32) -> u64 {
        stat(pid).unwrap().starttime
    }

    #[test]
    fn a_process_is_found_signalled_and_seen_to_end() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id() as i32;
        let process = Process::find(pid, start_time(pid)).unwrap();
        assert!(process.pidfd.is_some(), "this kernel gives pidfds");
        assert!(!process.has_ended());
        process.signal(0).unwrap();
        process.signal(libc::SIGKILL).unwrap();
        assert!(poll(&mut [readable(process.fd())], Some(Instant::now() + Duration::from_secs(10))).unwrap());
        assert!(process.has_ended(), "also before its parent has asked how");
        child.wait().unwrap();
        assert_eq!(process.signal(libc::SIGKILL).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn another_start_time_is_another_process() {
        let own = std::process::id() as i32;
        assert_eq!(Process::find(own, start_time(own) + 1).err(), Some(Missing::Reused));
        let mut child = Command::new("true").spawn().unwrap();
        let (pid, began) = (child.id() as i32, start_time(child.id() as i32));
        child.wait().unwrap();
        assert_eq!(Process::find(pid, began).err(), Some(Missing::Gone));
    }

    #[test]
    fn without_a_pidfd_the_end_is_seen_as_well() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id() as i32;
        let process = Process { pid, start_time: start_time(pid), pidfd: None };
        assert!(!process.has_ended());
        process.signal(libc::SIGKILL).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !process.has_ended() {
            assert!(Instant::now() < deadline, "it was killed");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(stat(pid).is_some(), "a zombie has ended");
        child.wait().unwrap();
        assert_eq!(process.signal(libc::SIGKILL).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn ancestors_go_up_to_the_first_process() {
        let ancestors = ancestors();
        assert_eq!(ancestors.first().copied(), Some(std::os::unix::process::parent_id() as i32));
        assert!(!ancestors.contains(&own_pid()));
    }

    #[test]
    fn the_worst_thread_is_the_process() {
        let threads = |states: &str| states.chars().map(|state| Thread { id: 1, state }).collect::<Vec<_>>();
        assert_eq!(condition(&threads("SR")), Condition::Alive);
        assert_eq!(condition(&threads("ZS")), Condition::Zombie);
        assert_eq!(condition(&threads("ZD")), Condition::Stuck);
        assert_eq!(condition(&threads("TT")), Condition::Stopped);
        assert_eq!(condition(&threads("SDS")), Condition::Stuck);
    }
}
