//! All processes of the machine, looked at by several threads where there are many.

use std::ffi::CStr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::kernel::{self, Fd, Thread};
use crate::policy;

/// The processes that there were.
pub struct Crowd {
    proc: Fd,
    pids: Vec<i32>,
}

impl Crowd {
    pub fn gather() -> std::io::Result<Crowd> {
        let proc = open_folder(None, "/proc")?;
        let pids = numbers(&proc)?;
        Ok(Crowd { proc, pids })
    }

    /// What `look` says, which gets the open /proc.
    pub fn one<T>(&self, look: impl FnOnce(&Fd) -> T) -> T {
        look(&self.proc)
    }

    /// What `look` says of each process, in no order. `look` gets the open /proc.
    pub fn each<T: Send + 'static>(
        self: &Arc<Crowd>,
        look: impl Fn(&Fd, i32) -> Option<T> + Send + Sync + 'static,
    ) -> Vec<T> {
        let shared = Arc::new(Shared { crowd: self.clone(), next: AtomicUsize::new(0), said: Mutex::default(), look });
        let threads = kernel::processors().min(policy::SCAN_THREADS_MOST).min(self.pids.len() / policy::SCAN_SHARE);
        let others: Vec<_> = (1..threads)
            .map_while(|_| {
                let shared = shared.clone();
                Thread::start(c"camlease-scan", move || shared.work()).ok()
            })
            .collect();
        shared.work();
        others.into_iter().for_each(Thread::join);
        std::mem::take(&mut *shared.said.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Shared<T, L> {
    crowd: Arc<Crowd>,
    next: AtomicUsize,
    said: Mutex<Vec<T>>,
    look: L,
}

impl<T, L: Fn(&Fd, i32) -> Option<T>> Shared<T, L> {
    /// Processes are taken one by one: one may have as many descriptors as all others.
    fn work(&self) {
        let mut said = Vec::new();
        while let Some(&pid) = self.crowd.pids.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            said.extend((self.look)(&self.crowd.proc, pid));
        }
        self.said.lock().unwrap_or_else(PoisonError::into_inner).append(&mut said);
    }
}

pub fn open_folder(within: Option<&Fd>, name: &str) -> std::io::Result<Fd> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    match within {
        Some(folder) => Fd::open_in(folder, name, flags),
        None => Fd::open(Path::new(name), flags),
    }
}

/// The numbers among a folder's names: processes, or threads.
pub fn numbers(folder: &Fd) -> std::io::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    let number = |name: &CStr| name.to_str().ok()?.parse::<i32>().ok();
    kernel::names(folder, |name| numbers.extend(number(name)))?;
    Ok(numbers)
}

/// The threads of a process but its first, where it has any.
pub fn other_threads(proc: &Fd, pid: i32) -> Vec<i32> {
    // A folder's links are two, and one for each folder in it: most processes have one thread and are not looked at.
    let name = std::ffi::CString::new(format!("{pid}/task")).unwrap_or_default();
    if kernel::status(proc, &name).is_ok_and(|task| task.stx_nlink <= 3) {
        return Vec::new();
    }
    let mut threads =
        open_folder(Some(proc), &format!("{pid}/task")).and_then(|task| numbers(&task)).unwrap_or_default();
    threads.retain(|&thread| thread != pid);
    threads
}
