//! The kernel's calls that more than one module needs, each with a safe face.

use std::ffi::CString;
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::fork;
use crate::slab::Token;

/// A descriptor that closes itself, survives no exec, and is let go of in a forked child.
#[derive(Debug)]
pub struct Fd {
    number: RawFd,
    entered: Token,
    epoch: u64,
}

impl Fd {
    /// Wraps what `make` returns; `make` must set O_CLOEXEC and give a new descriptor, or -1 with errno.
    fn make(make: impl FnOnce() -> RawFd) -> std::io::Result<Fd> {
        let (number, entered) = fork::enter_fd(|| match make() {
            -1 => Err(std::io::Error::last_os_error()),
            number => Ok(number),
        })?;
        Ok(Fd { number, entered, epoch: fork::epoch() })
    }

    pub fn open(path: &Path, flags: i32) -> std::io::Result<Fd> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        Fd::make(|| {
            loop {
                // SAFETY: a C string that outlives the call.
                let number = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) };
                let interrupted = || std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR);
                if number != -1 || !interrupted() {
                    return number;
                }
            }
        })
    }

    pub fn number(&self) -> RawFd {
        self.number
    }

    /// Whether this process made it. A forked child has let go of its parent's, whose numbers may be other
    /// files' by now.
    fn is_own(&self) -> bool {
        self.epoch == fork::epoch()
    }

    /// The same as a file, to look at or read; it stays this struct's to close.
    pub fn as_file(&self) -> ManuallyDrop<File> {
        // SAFETY: open for as long as self lives, and never closed through this.
        ManuallyDrop::new(unsafe { File::from_raw_fd(self.number) })
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        if self.is_own() {
            // SAFETY: our own descriptor, closed once.
            fork::leave_fd(self.entered, || unsafe { libc::close(self.number) });
        }
    }
}

/// A flag that wakes pollers: readable from [`Event::signal`] until [`Event::clear`].
#[derive(Debug)]
pub struct Event(Fd);

impl Event {
    pub fn new() -> std::io::Result<Event> {
        // SAFETY: no pointers.
        Fd::make(|| unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) }).map(Event)
    }

    /// Async-signal-safe.
    pub fn signal(&self) {
        if !self.is_own() {
            return;
        }
        let one = 1u64;
        // SAFETY: eight bytes, as an eventfd wants them. A full counter is readable already.
        unsafe { libc::write(self.0.number(), (&raw const one).cast(), 8) };
    }

    pub fn clear(&self) {
        drain(self.0.number());
    }

    /// Whether it belongs to this process, and not to a parent of it.
    pub fn is_own(&self) -> bool {
        self.0.is_own()
    }

    pub fn fd(&self) -> RawFd {
        self.0.number()
    }
}

/// A clock's alarm that pollers see.
#[derive(Debug)]
pub struct Timer(Fd);

impl Timer {
    pub fn new() -> std::io::Result<Timer> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: no pointers.
        Fd::make(|| unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) }).map(Timer)
    }

    /// Readable from `at_ns` of CLOCK_MONOTONIC on; `None`: never.
    pub fn arm(&self, at_ns: Option<i64>) {
        // 0 would disarm: the past is as good as any other past.
        let at = at_ns.map_or(0, |at| at.max(1));
        let spec = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec { tv_sec: at / 1_000_000_000, tv_nsec: at % 1_000_000_000 },
        };
        // SAFETY: a valid itimerspec; the old value is not asked for.
        unsafe { libc::timerfd_settime(self.0.number(), libc::TFD_TIMER_ABSTIME, &spec, std::ptr::null_mut()) };
    }

    pub fn fd(&self) -> RawFd {
        self.0.number()
    }
}

/// A descriptor that is readable when one of its members is. Handing this out instead of a device's
/// own keeps the device from being held by it.
#[derive(Debug)]
pub struct Epoll(Fd);

impl Epoll {
    pub fn new() -> std::io::Result<Epoll> {
        // SAFETY: no pointers.
        Fd::make(|| unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(Epoll)
    }

    pub fn add(&self, fd: RawFd) -> std::io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
        // SAFETY: a valid event.
        check(unsafe { libc::epoll_ctl(self.0.number(), libc::EPOLL_CTL_ADD, fd, &mut event) })
    }

    pub fn remove(&self, fd: RawFd) {
        // SAFETY: no event is needed to remove. Failing means that it was not a member.
        unsafe { libc::epoll_ctl(self.0.number(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut()) };
    }

    /// Waits until a member is readable; false when the time is up. A signal ends the wait as a readable member does:
    /// the caller looks, and waits again.
    pub fn wait(&self, timeout: Option<Duration>) -> std::io::Result<bool> {
        let whole_ms = |left: Duration| left.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32;
        let timeout = timeout.map_or(-1, whole_ms);
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: room for one event.
        match unsafe { libc::epoll_wait(self.0.number(), &mut event, 1, timeout) } {
            -1 => match std::io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EINTR) => Ok(true),
                error => Err(error),
            },
            count => Ok(count > 0),
        }
    }

    pub fn fd(&self) -> RawFd {
        self.0.number()
    }
}

/// File-system notices.
#[derive(Debug)]
pub struct Inotify {
    fd: Fd,
    watches: Vec<i32>,
}

impl Inotify {
    pub fn new() -> std::io::Result<Inotify> {
        // SAFETY: no pointers.
        let fd = Fd::make(|| unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) })?;
        Ok(Inotify { fd, watches: Vec::new() })
    }

    /// Adds or renews a watch.
    pub fn watch(&mut self, path: &Path, mask: u32) -> std::io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: a C string that outlives the call.
        match unsafe { libc::inotify_add_watch(self.fd.number(), path.as_ptr(), mask) } {
            -1 => return Err(std::io::Error::last_os_error()),
            known if self.watches.contains(&known) => {}
            new => self.watches.push(new),
        }
        Ok(())
    }

    /// Ends all watches. The kernel clears them away later, by itself, where closing waits for that: 10 ms were seen.
    pub fn unwatch(&mut self) {
        for watch in self.watches.drain(..) {
            // SAFETY: no pointers. Failing means that what was watched is gone.
            unsafe { libc::inotify_rm_watch(self.fd.number(), watch) };
        }
    }

    pub fn clear(&self) {
        drain(self.fd.number());
    }

    pub fn fd(&self) -> RawFd {
        self.fd.number()
    }
}

/// A local stream socket in the abstract name space: the kernel forgets the name with its last holder.
#[derive(Debug)]
pub struct AbstractSocket(Fd);

impl AbstractSocket {
    fn new() -> std::io::Result<AbstractSocket> {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers.
        Fd::make(|| unsafe { libc::socket(libc::AF_UNIX, kind, 0) }).map(AbstractSocket)
    }

    /// Takes the name, for as long as the socket lives; EADDRINUSE when it is taken.
    pub fn bind(name: &str) -> std::io::Result<AbstractSocket> {
        let socket = AbstractSocket::new()?;
        let (address, length) = abstract_address(name)?;
        // SAFETY: a valid address of that length.
        check(unsafe { libc::bind(socket.0.number(), (&raw const address).cast(), length) })?;
        // SAFETY: no pointers. Nobody is ever accepted: a connection is how a waiter sees the end.
        check(unsafe { libc::listen(socket.0.number(), libc::SOMAXCONN) })?;
        Ok(socket)
    }

    /// A connection that hangs up when the holder of the name is gone.
    pub fn connect(name: &str) -> std::io::Result<AbstractSocket> {
        let socket = AbstractSocket::new()?;
        let (address, length) = abstract_address(name)?;
        // SAFETY: a valid address of that length.
        check(unsafe { libc::connect(socket.0.number(), (&raw const address).cast(), length) })?;
        Ok(socket)
    }

    pub fn into_fd(self) -> Fd {
        self.0
    }
}

fn abstract_address(name: &str) -> std::io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    // SAFETY: all zeroes is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    if name.len() >= address.sun_path.len() {
        return Err(std::io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (place, byte) in address.sun_path[1..].iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    let length = std::mem::offset_of!(libc::sockaddr_un, sun_path) + 1 + name.len();
    Ok((address, length as libc::socklen_t))
}

/// Takes the lock on a whole open file, without waiting; EWOULDBLOCK when another open file has it.
pub fn lock_exclusive(fd: &Fd) -> std::io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::flock(fd.number(), libc::LOCK_EX | libc::LOCK_NB) })
}

pub fn unlock(fd: &Fd) {
    // SAFETY: no pointers. Unlocking what is not locked does nothing.
    unsafe { libc::flock(fd.number(), libc::LOCK_UN) };
}

/// One descriptor to wait on, and what was seen.
pub fn readable(fd: RawFd) -> libc::pollfd {
    libc::pollfd { fd, events: libc::POLLIN, revents: 0 }
}

/// Waits until one of `fds` has something or `deadline` has come. Signals do not end the wait.
pub fn poll(fds: &mut [libc::pollfd], deadline: Option<Instant>) -> std::io::Result<bool> {
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let spec = left.map(|left: Duration| libc::timespec {
            tv_sec: left.as_secs() as libc::time_t,
            tv_nsec: left.subsec_nanos() as libc::c_long,
        });
        let spec = spec.as_ref().map_or(std::ptr::null(), |spec| spec as *const libc::timespec);
        // SAFETY: a valid slice; spec is null or valid; no signal mask.
        match unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, spec, std::ptr::null()) } {
            -1 => match std::io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EINTR) => continue,
                error => return Err(error),
            },
            0 => return Ok(false),
            _ => return Ok(true),
        }
    }
}

/// Nanoseconds of one of the system's clocks.
pub fn clock_ns(clock: libc::clockid_t) -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for a timespec; the clocks asked for always exist.
    unsafe { libc::clock_gettime(clock, &mut now) };
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// Nanoseconds of CLOCK_MONOTONIC, the clock of every timestamp of ours.
pub fn monotonic_ns() -> i64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

fn drain(fd: RawFd) {
    let mut sink = [0u8; 4096];
    // SAFETY: room for the bytes; the descriptor does not block.
    while unsafe { libc::read(fd, sink.as_mut_ptr().cast(), sink.len()) } > 0 {}
}

fn check(result: i32) -> std::io::Result<()> {
    if result == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// A descriptor that is being closed, and perhaps hangs in it.
pub struct Closing {
    thread: Option<libc::pthread_t>,
    entered: Token,
}

impl Closing {
    /// Begins to close, in a thread: a driver may hang in it.
    pub fn begin(fd: Fd) -> Closing {
        let (number, entered) = (fd.number, fd.entered);
        match close_thread(number) {
            // In the table until it is closed: a child must not keep it.
            thread @ Some(_) => {
                std::mem::forget(fd);
                Closing { thread, entered }
            }
            None => {
                drop(fd);
                Closing { thread: None, entered }
            }
        }
    }

    /// Waits until it is closed, but not for longer than `deadline`: false when it hangs still. The kernel goes on
    /// with it.
    pub fn end_by(self, deadline: Instant) -> bool {
        let Some(thread) = self.thread else { return true };
        let joined = join_by(thread, deadline);
        fork::leave_fd(self.entered, || {});
        joined
    }
}

/// A thread that runs libc's `close` and nothing of this library, which may be unloaded while it hangs.
fn close_thread(number: RawFd) -> Option<libc::pthread_t> {
    type Start = extern "C" fn(*mut libc::c_void) -> *mut libc::c_void;
    // SAFETY: `close` takes an int where a thread's start takes a pointer, and returns an int where a
    // pointer is returned: on x86-64 and aarch64 each travels in the same register, and the result is
    // not read. The sets are initialised by the calls, and all pointers are to locals.
    unsafe {
        let close: Start = std::mem::transmute(libc::close as *const ());
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        // The host's signal handlers are not to run in a thread it does not know.
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let mut thread: libc::pthread_t = std::mem::zeroed();
        let made = libc::pthread_create(&mut thread, std::ptr::null(), close, number as usize as *mut libc::c_void);
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        (made == 0).then_some(thread)
    }
}

fn join_by(thread: libc::pthread_t, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now()).as_nanos() as i64;
    let until = clock_ns(libc::CLOCK_REALTIME) + left;
    let until = libc::timespec { tv_sec: until / 1_000_000_000, tv_nsec: (until % 1_000_000_000) as libc::c_long };
    // SAFETY: a thread that is joined or detached here, once; `until` is valid.
    unsafe {
        let joined = pthread_timedjoin_np(thread, std::ptr::null_mut(), &until) == 0;
        if !joined {
            libc::pthread_detach(thread);
        }
        joined
    }
}

unsafe extern "C" {
    fn pthread_timedjoin_np(
        thread: libc::pthread_t,
        value: *mut *mut libc::c_void,
        until: *const libc::timespec,
    ) -> libc::c_int;
}
