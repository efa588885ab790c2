//! The kernel's calls that a signal handler may make, each with a safe face. All are async-signal-safe but for the
//! last two.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Waits until the word is woken, is not `seen` any more, the time is up or a signal came.
pub fn futex_wait(word: &AtomicU32, seen: u32, timeout: Option<Duration>) {
    let time = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let time = time.as_ref().map_or(std::ptr::null(), |time| time as *const libc::timespec);
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: a word that outlives the call; the time is null or valid.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, seen, time) };
}

/// Wakes all who wait on the word.
pub fn futex_wake(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: a word that outlives the call.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, i32::MAX) };
}

pub fn errno() -> i32 {
    // SAFETY: this thread's own.
    unsafe { *libc::__errno_location() }
}

pub fn set_errno(errno: i32) {
    // SAFETY: this thread's own.
    unsafe { *libc::__errno_location() = errno };
}

pub fn process() -> i32 {
    // SAFETY: no pointers.
    unsafe { libc::getpid() }
}

pub fn this_thread() -> i32 {
    // SAFETY: no pointers.
    unsafe { libc::gettid() }
}

/// The kernel's set of signals in one of the C library's, which has room for more.
pub fn bits(set: &libc::sigset_t) -> u64 {
    // SAFETY: the first 8 of its bytes, of which the kernel's own sets have no more.
    unsafe { (&raw const *set).cast::<u64>().read() }
}

pub fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

fn change_mask(how: i32, signals: u64) -> u64 {
    let mut before = 0u64;
    // SAFETY: two sets of the kernel's size.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const signals, &raw mut before, size_of::<u64>()) };
    before
}

/// Sets what this thread blocks, and gives what it blocked.
pub fn set_mask(signals: u64) -> u64 {
    change_mask(libc::SIG_SETMASK, signals)
}

pub fn unblock(signal: i32) {
    change_mask(libc::SIG_UNBLOCK, bit(signal));
}

/// All signals are blocked in this thread while this lives.
pub struct Blocked(u64);

impl Blocked {
    pub fn all() -> Blocked {
        Blocked(set_mask(u64::MAX))
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        set_mask(self.0);
    }
}

/// What is installed for a signal. By the C library's call throughout: a program may have something stand before that,
/// such as a virtual machine's chain of handlers, and then the kernel's word is another one.
#[derive(Clone, Copy)]
pub struct Action(libc::sigaction);

/// Set by the C library by itself.
const SA_RESTORER: i32 = 0x0400_0000;

impl PartialEq for Action {
    fn eq(&self, other: &Action) -> bool {
        self.handler() == other.handler()
            && self.flags() & !SA_RESTORER == other.flags() & !SA_RESTORER
            && bits(&self.0.sa_mask) == bits(&other.0.sa_mask)
    }
}

impl Action {
    pub fn default() -> Action {
        // SAFETY: all zeroes is a valid sigaction, that of SIG_DFL.
        Action(unsafe { std::mem::zeroed() })
    }

    /// Another handler, with its flags and this one's mask.
    pub fn with(&self, handler: usize, flags: i32) -> Action {
        let mut new = *self;
        (new.0.sa_sigaction, new.0.sa_flags) = (handler, flags);
        new
    }

    pub fn handler(&self) -> usize {
        self.0.sa_sigaction
    }

    pub fn flags(&self) -> i32 {
        self.0.sa_flags
    }

    pub fn is_default(&self) -> bool {
        self.handler() == libc::SIG_DFL
    }
}

pub fn installed(signal: i32) -> std::io::Result<Action> {
    action(signal, std::ptr::null())
}

/// Installs it, and gives what was installed.
pub fn install(signal: i32, new: &Action) -> std::io::Result<Action> {
    action(signal, &new.0)
}

fn action(signal: i32, new: *const libc::sigaction) -> std::io::Result<Action> {
    let mut before = Action::default();
    // SAFETY: `new` is null, or was installed before, or is the default, or leads to instructions that stay.
    match unsafe { libc::sigaction(signal, new, &mut before.0) } {
        0 => Ok(before),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Sends a signal to a thread of this process, with what came with it; false when there is no such thread.
pub fn queue(thread: i32, info: &libc::siginfo_t) -> bool {
    let (process, signal) = (process(), info.si_signo);
    // SAFETY: a valid siginfo_t.
    let told = unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, signal, info) };
    // To another thread nobody may send what tells of another process or a terminal (EPERM), and the queue may be full:
    // the signal alone still arrives, and the handler puts in what was noted.
    // SAFETY: no pointers.
    told == 0 || unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) } == 0
}

/// Sends a signal to this process.
pub fn raise(signal: i32) {
    // SAFETY: no pointers.
    unsafe { libc::kill(process(), signal) };
}

/// Keeps the library that this code is in from being unloaded.
pub fn pin_library() -> std::io::Result<()> {
    // SAFETY: all zeroes is a valid Dl_info, and there is room for one; its name outlives the calls.
    unsafe {
        let mut library: libc::Dl_info = std::mem::zeroed();
        let here = pin_library as *const libc::c_void;
        let unknown = || std::io::Error::from_raw_os_error(libc::ENOSYS);
        if libc::dladdr(here, &mut library) == 0 {
            return Err(unknown());
        }
        // The program itself is never unloaded: its headers are where the kernel told that they are.
        let headers = libc::getauxval(libc::AT_PHDR) as usize;
        if headers.wrapping_sub(library.dli_fbase.addr()) < crate::policy::PAGE {
            return Ok(());
        }
        let flags = libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
        if libc::dlopen(library.dli_fname, flags).is_null() { Err(unknown()) } else { Ok(()) }
    }
}
