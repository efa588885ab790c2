//! The kernel's calls that more than one module needs, each with a safe face.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
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
    pub fn make(make: impl FnOnce() -> RawFd) -> std::io::Result<Fd> {
        let (number, entered) = fork::enter_fd(|| match make() {
            -1 => Err(std::io::Error::last_os_error()),
            number => Ok(number),
        })?;
        Ok(Fd { number, entered, epoch: fork::epoch() })
    }

    pub fn open(path: &Path, flags: i32) -> std::io::Result<Fd> {
        Fd::open_at(libc::AT_FDCWD, path, flags, 0)
    }

    /// Opens a file in a folder that is open.
    pub fn open_in(folder: &Fd, name: &str, flags: i32) -> std::io::Result<Fd> {
        Fd::open_at(folder.number(), Path::new(name), flags, 0)
    }

    /// The same for a file that is to be made; it gets the mode, less the umask.
    pub fn create(path: &Path, flags: i32, mode: u32) -> std::io::Result<Fd> {
        Fd::open_at(libc::AT_FDCWD, path, flags | libc::O_CREAT, mode)
    }

    fn open_at(folder: RawFd, path: &Path, flags: i32, mode: u32) -> std::io::Result<Fd> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        Fd::make(|| {
            loop {
                // SAFETY: a C string that outlives the call.
                let number = unsafe { libc::openat(folder, path.as_ptr(), flags | libc::O_CLOEXEC, mode) };
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
    pub fn is_own(&self) -> bool {
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

    /// The same event, for who outlives this one.
    pub fn twin(&self) -> std::io::Result<Event> {
        // SAFETY: no pointers.
        Fd::make(|| unsafe { libc::fcntl(self.0.number(), libc::F_DUPFD_CLOEXEC, 0) }).map(Event)
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
        let mut count = 0u64;
        // SAFETY: room for eight bytes; one read takes the whole count.
        unsafe { libc::read(self.0.number(), (&raw mut count).cast(), 8) };
    }

    /// Whether it belongs to this process, and not to a parent of it.
    pub fn is_own(&self) -> bool {
        self.0.is_own()
    }

    pub fn fd(&self) -> RawFd {
        self.0.number()
    }
}

/// Whether it failed for want of descriptors or of the kernel's memory: who comes is not at fault, and another time it may
/// not.
pub fn is_shortage(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS))
}

/// Fails where this process cannot have so many more descriptors.
pub fn has_room_for(descriptors: usize) -> std::io::Result<()> {
    (0..descriptors).map(|_| Event::new()).collect::<Result<Vec<_>, _>>().map(drop)
}

/// A bell that this process rings and another one hears: what was rung is readable there until it is cleared.
///
/// Nothing that the other does may hold up a ring. Of an eventfd both would have the same open file, and who takes
/// O_NONBLOCK off it and fills it stops the other in its next write; who reads a pipe into memory of which the kernel has
/// to wait for the pages keeps the pipe locked meanwhile; a socket that is passed may have to wait until the kernel has
/// looked through all sockets that others pass. So the other gets an epoll over an eventfd, by which nothing can be done
/// to that.
#[derive(Debug)]
pub struct Bell {
    rope: Event,
    ear: Epoll,
}

impl Bell {
    pub fn new() -> std::io::Result<Bell> {
        let (rope, ear) = (Event::new()?, Epoll::new()?);
        // It is never read: what is heard are its edges.
        ear.add_edges(rope.fd())?;
        Ok(Bell { rope, ear })
    }

    /// The end that is for the other process.
    pub fn ear(&self) -> &Fd {
        &self.ear.0
    }

    pub fn ring(&self) {
        self.rope.signal();
    }
}

/// The end of a bell that another process rings.
#[derive(Debug)]
pub struct Ear(Epoll);

impl Ear {
    pub fn from_fd(fd: Fd) -> Ear {
        Ear(Epoll(fd))
    }

    pub fn clear(&self) {
        // One that is no bell's is deaf.
        let _ = self.0.wait(Some(Duration::ZERO));
    }

    pub fn fd(&self) -> RawFd {
        self.0.fd()
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
        self.add_for(fd, libc::EPOLLIN)
    }

    /// A member of which a wait takes notice once each time that it becomes readable.
    pub fn add_edges(&self, fd: RawFd) -> std::io::Result<()> {
        self.add_for(fd, libc::EPOLLIN | libc::EPOLLET)
    }

    fn add_for(&self, fd: RawFd, events: i32) -> std::io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: 0 };
        // SAFETY: a valid event.
        check(unsafe { libc::epoll_ctl(self.0.number(), libc::EPOLL_CTL_ADD, fd, &mut event) })
    }

    pub fn remove(&self, fd: RawFd) {
        // A child has closed both numbers, and may have other files by them.
        if !self.0.is_own() {
            return;
        }
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

    /// One that another process bound.
    pub fn from_fd(fd: Fd) -> AbstractSocket {
        AbstractSocket(fd)
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

/// Most groups that a process has (NGROUPS_MAX).
const GROUPS_MOST: usize = 65_536;

/// Whether this process is a member of a group.
pub fn is_in_group(group: u32) -> bool {
    let mut groups = vec![0u32; GROUPS_MOST];
    // SAFETY: room for as many as are asked for.
    let count = unsafe { libc::getgroups(groups.len() as i32, groups.as_mut_ptr()) };
    // SAFETY: no pointers; it cannot fail.
    group == unsafe { libc::getegid() } || groups[..count.max(0) as usize].contains(&group)
}

/// A local socket that keeps messages apart, tells who speaks, and passes descriptors.
#[derive(Debug)]
pub struct MessageSocket(Fd);

/// Who is at the other end of a socket, by the kernel's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// 0 for a process that cannot be seen from this one's container.
    pub pid: i32,
    pub uid: u32,
}

impl MessageSocket {
    fn new() -> std::io::Result<MessageSocket> {
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no pointers.
        Fd::make(|| unsafe { libc::socket(libc::AF_UNIX, kind, 0) }).map(MessageSocket)
    }

    /// Listens at a path that must not exist yet. Only this user, and root, can connect, until the file's mode is changed.
    pub fn listen(path: &Path) -> std::io::Result<MessageSocket> {
        let socket = MessageSocket::new()?;
        // Before the name is there: the file gets the socket's mode, less the umask.
        // SAFETY: no pointers.
        check(unsafe { libc::fchmod(socket.0.number(), 0o600) })?;
        let (address, length, _folder) = path_address(path)?;
        // SAFETY: a valid address of that length.
        check(unsafe { libc::bind(socket.0.number(), (&raw const address).cast(), length) })?;
        // SAFETY: no pointers.
        check(unsafe { libc::listen(socket.0.number(), libc::SOMAXCONN) })?;
        Ok(socket)
    }

    /// EAGAIN when the listener's queue is full: it does not answer.
    pub fn connect(path: &Path) -> std::io::Result<MessageSocket> {
        let socket = MessageSocket::new()?;
        let (address, length, _folder) = path_address(path)?;
        // SAFETY: a valid address of that length.
        check(unsafe { libc::connect(socket.0.number(), (&raw const address).cast(), length) })?;
        Ok(socket)
    }

    /// Both ends of a connection.
    #[cfg(any(test, fuzzing))]
    pub fn pair() -> std::io::Result<(MessageSocket, MessageSocket)> {
        let mut ends = [0; 2];
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let one = Fd::make(|| {
            // SAFETY: room for two descriptors.
            match unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) } {
                0 => ends[0],
                failed => failed,
            }
        })?;
        Ok((MessageSocket(one), MessageSocket(Fd::make(|| ends[1])?)))
    }

    pub fn accept(&self) -> std::io::Result<MessageSocket> {
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        let (address, length) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: the peer's address is not asked for.
        Fd::make(|| unsafe { libc::accept4(self.0.number(), address, length, flags) }).map(MessageSocket)
    }

    pub fn peer(&self) -> std::io::Result<Peer> {
        let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut length = size_of::<libc::ucred>() as libc::socklen_t;
        // SAFETY: room for a ucred, of the length given.
        check(unsafe {
            libc::getsockopt(
                self.0.number(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut credentials).cast(),
                &mut length,
            )
        })?;
        Ok(Peer { pid: credentials.pid, uid: credentials.uid })
    }

    /// Whether the one at the other end was a member of this group when it connected, by the kernel's word.
    pub fn peer_is_in(&self, group: u32) -> bool {
        const SO_PEERGROUPS: i32 = 59; // asm-generic/socket.h
        let mut credentials = libc::ucred { pid: 0, uid: 0, gid: 0 };
        let mut groups = vec![0u32; GROUPS_MOST];
        let option = |option: i32, place: *mut libc::c_void, room: usize| {
            let mut length = room as libc::socklen_t;
            // SAFETY: room of the length given.
            let got = unsafe { libc::getsockopt(self.0.number(), libc::SOL_SOCKET, option, place, &mut length) };
            (got == 0).then_some(length as usize)
        };
        let own = option(libc::SO_PEERCRED, (&raw mut credentials).cast(), size_of::<libc::ucred>());
        let room = size_of_val(&groups[..]);
        let further = option(SO_PEERGROUPS, groups.as_mut_ptr().cast(), room).unwrap_or(0) / size_of::<u32>();
        own.is_some() && credentials.gid == group || groups[..further].contains(&group)
    }

    /// Ends the connection, whoever has the socket still.
    pub fn hang_up(&self) {
        // SAFETY: no pointers.
        unsafe { libc::shutdown(self.0.number(), libc::SHUT_RDWR) };
    }

    /// Sends a message, with descriptors where there are some: the receiver gets the same open files.
    pub fn send(&self, bytes: &[u8], passed: &[&Fd]) -> std::io::Result<()> {
        assert!(passed.len() <= PASSED_MOST);
        let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut room = ControlRoom::default();
        let mut message = message(&mut part, &mut room, passed.len());
        if !passed.is_empty() {
            // SAFETY: the room is that of one control message with as many descriptors, as CMSG_SPACE says.
            unsafe {
                let head = libc::CMSG_FIRSTHDR(&message);
                (*head).cmsg_level = libc::SOL_SOCKET;
                (*head).cmsg_type = libc::SCM_RIGHTS;
                (*head).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32 * passed.len() as u32) as _;
                let place = libc::CMSG_DATA(head).cast::<RawFd>();
                for (at, fd) in passed.iter().enumerate() {
                    place.add(at).write_unaligned(fd.number());
                }
            }
        } else {
            message.msg_control = std::ptr::null_mut();
            message.msg_controllen = 0;
        }
        // SAFETY: a valid message.
        let sent = unsafe { libc::sendmsg(self.0.number(), &message, libc::MSG_NOSIGNAL) };
        check(if sent == -1 { -1 } else { 0 })
    }

    /// The next message's length, 0 at the end. Descriptors that come with it stay with the kernel.
    pub fn receive_words(&self, bytes: &mut [u8]) -> std::io::Result<usize> {
        // SAFETY: room for the bytes.
        match unsafe { libc::recv(self.0.number(), bytes.as_mut_ptr().cast(), bytes.len(), 0) } {
            -1 => Err(std::io::Error::last_os_error()),
            length => Ok(length as usize),
        }
    }

    /// The same, and the descriptor that came with it.
    pub fn receive(&self, bytes: &mut [u8]) -> std::io::Result<(usize, Option<Fd>)> {
        let (length, [passed]) = self.receive_with(bytes)?;
        Ok((length, passed))
    }

    /// The same, and up to so many descriptors that came with it. The kernel closes what there is no place for.
    pub fn receive_with<const MOST: usize>(&self, bytes: &mut [u8]) -> std::io::Result<(usize, [Option<Fd>; MOST])> {
        self.receive_all(bytes).map(|received| (received.length, received.passed))
    }

    /// The same, and whether that is all of it.
    pub fn receive_all<const MOST: usize>(&self, bytes: &mut [u8]) -> std::io::Result<Received<MOST>> {
        const { assert!(MOST <= PASSED_MOST) };
        let (mut length, mut flags) = (0, 0);
        let mut passed = [const { None }; MOST];
        // What came with it is this process's from the call on: a fork must not come between.
        fork::undisturbed(|| {
            let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
            let mut room = ControlRoom::default();
            let mut message = message(&mut part, &mut room, MOST);
            // SAFETY: room for the bytes and one control message.
            match unsafe { libc::recvmsg(self.0.number(), &mut message, libc::MSG_CMSG_CLOEXEC) } {
                -1 => return Err(std::io::Error::last_os_error()),
                received => (length, flags) = (received as usize, message.msg_flags),
            }
            // SAFETY: the kernel filled the control message with whole descriptors, as many as its length says, or left
            // it away.
            let numbers = unsafe {
                let head = libc::CMSG_FIRSTHDR(&message);
                let are_descriptors =
                    !head.is_null() && (*head).cmsg_level == libc::SOL_SOCKET && (*head).cmsg_type == libc::SCM_RIGHTS;
                if !are_descriptors {
                    return Ok(());
                }
                let count = ((*head).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                let data = libc::CMSG_DATA(head).cast::<RawFd>();
                (0..count.min(MOST)).map(move |at| data.add(at).read_unaligned())
            };
            for (place, number) in passed.iter_mut().zip(numbers) {
                *place = fork::enter(number).ok().map(|entered| Fd { number, entered, epoch: fork::epoch() });
            }
            Ok(())
        })?;
        let (is_cut, has_lost) = (flags & libc::MSG_TRUNC != 0, flags & libc::MSG_CTRUNC != 0);
        Ok(Received { length, passed, is_cut, has_lost })
    }

    pub fn fd(&self) -> RawFd {
        self.0.number()
    }
}

/// A message as far as there was room for it.
pub struct Received<const MOST: usize> {
    /// 0 at the end.
    pub length: usize,
    pub passed: [Option<Fd>; MOST],
    /// The message is longer.
    pub is_cut: bool,
    /// More descriptors came with it, for which there was no place here or in the process.
    pub has_lost: bool,
}

/// Most descriptors that go with one message.
pub const PASSED_MOST: usize = 40;

/// Room for one control message with that many descriptors.
#[repr(align(8))]
struct ControlRoom([u8; 16 + 4 * PASSED_MOST]);

impl Default for ControlRoom {
    fn default() -> Self {
        ControlRoom([0; 16 + 4 * PASSED_MOST])
    }
}

fn message(part: &mut libc::iovec, room: &mut ControlRoom, descriptors: usize) -> libc::msghdr {
    // SAFETY: all zeroes is a valid msghdr.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut room.0).cast();
    // Not CMSG_SPACE: a receiver's padding would have room for one more descriptor.
    // SAFETY: arithmetic alone.
    message.msg_controllen = unsafe { libc::CMSG_LEN((size_of::<RawFd>() * descriptors) as u32) } as _;
    message
}

/// A socket's address by its path; what is to be kept until it was used.
fn path_address(path: &Path) -> std::io::Result<(libc::sockaddr_un, libc::socklen_t, Option<Fd>)> {
    // SAFETY: all zeroes is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let mut short = path.to_owned();
    let mut folder = None;
    // One that is too long for an address is named by its folder's descriptor.
    if let (true, Some(above), Some(name)) =
        (path.as_os_str().len() >= address.sun_path.len(), path.parent(), path.file_name())
    {
        let open = Fd::open(above, libc::O_PATH | libc::O_DIRECTORY)?;
        short = Path::new("/proc/self/fd").join(open.number().to_string()).join(name);
        folder = Some(open);
    }
    let bytes = short.as_os_str().as_bytes();
    if bytes.len() >= address.sun_path.len() {
        return Err(std::io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    for (place, byte) in address.sun_path.iter_mut().zip(bytes) {
        *place = *byte as libc::c_char;
    }
    Ok((address, size_of::<libc::sockaddr_un>() as libc::socklen_t, folder))
}

/// The name that an abstract socket is bound to, where it listens.
pub fn listening_name(fd: &Fd) -> Option<String> {
    // SAFETY: all zeroes is a valid sockaddr_un.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    let mut length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    let (mut listens, mut size) = (0i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: room for an address and for an int, of the lengths given.
    unsafe {
        check(libc::getsockname(fd.number(), (&raw mut address).cast(), &mut length)).ok()?;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_ACCEPTCONN);
        check(libc::getsockopt(fd.number(), level, option, (&raw mut listens).cast(), &mut size)).ok()?;
    }
    let head = std::mem::offset_of!(libc::sockaddr_un, sun_path) + 1;
    let is_abstract = address.sun_family == libc::AF_UNIX as libc::sa_family_t && address.sun_path[0] == 0;
    if !is_abstract || listens == 0 || (length as usize) < head {
        return None;
    }
    let name = &address.sun_path[1..][..length as usize - head];
    String::from_utf8(name.iter().map(|&byte| byte as u8).collect()).ok()
}

/// The user whose rights this process has.
pub fn effective_user() -> u32 {
    // SAFETY: no pointers; it cannot fail.
    unsafe { libc::geteuid() }
}

/// Whether this program's file gave it rights that its caller has not (set-user-id and the like): its environment is
/// its caller's word.
pub fn is_privileged_by_file() -> bool {
    // SAFETY: no pointers.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The file that this code was loaded from: the library, or the program that it is part of.
pub fn library_path() -> Option<PathBuf> {
    // SAFETY: all zeroes is a valid Dl_info, and there is room for one; the name that is found is a C string that stays as
    // long as the library.
    let name = unsafe {
        let mut library: libc::Dl_info = std::mem::zeroed();
        let here = library_path as *const libc::c_void;
        if libc::dladdr(here, &mut library) == 0 || library.dli_fname.is_null() {
            return None;
        }
        CStr::from_ptr(library.dli_fname)
    };
    // For a program that is what it was started by.
    let named = Path::new(OsStr::from_bytes(name.to_bytes())).canonicalize().ok();
    let is_program = || std::env::current_exe().ok();
    named.filter(|_| name.to_bytes().contains(&b'/')).or_else(is_program)
}

/// Has reads of an open file return at once where there is nothing to read.
pub fn do_not_block(file: &impl AsRawFd) -> std::io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
}

/// Random bits, as many as a name needs that nobody guesses beforehand.
pub fn random() -> u64 {
    let mut bits = [0u8; 8];
    // SAFETY: room for the bytes. Where the kernel gives none, the name is as good as the clock.
    let got = unsafe { libc::getrandom(bits.as_mut_ptr().cast(), bits.len(), libc::GRND_NONBLOCK) };
    if got == 8 { u64::from_ne_bytes(bits) } else { clock_ns(libc::CLOCK_MONOTONIC) as u64 }
}

/// How a file was opened: O_RDWR and the like.
pub fn access_mode(fd: &Fd) -> i32 {
    // SAFETY: no pointers.
    unsafe { libc::fcntl(fd.number(), libc::F_GETFL) & libc::O_ACCMODE }
}

/// Takes the write lock on an open file, without waiting. It belongs to the open file: the kernel drops it with its
/// last descriptor, and only who may write the file can take it.
pub fn lock_for_writing(fd: &Fd) -> std::io::Result<()> {
    let mut lock = whole_file(libc::F_WRLCK);
    // SAFETY: a valid flock.
    check(unsafe { libc::fcntl(fd.number(), libc::F_OFD_SETLK, &raw mut lock) })
}

/// Whether another open file has the write lock.
pub fn is_locked_for_writing(fd: &Fd) -> bool {
    let mut lock = whole_file(libc::F_RDLCK);
    // SAFETY: a valid flock, which the kernel overwrites with what stands in the way.
    let asked = unsafe { libc::fcntl(fd.number(), libc::F_OFD_GETLK, &raw mut lock) };
    asked == 0 && lock.l_type == libc::F_WRLCK as libc::c_short
}

fn whole_file(kind: i32) -> libc::flock {
    // SAFETY: all zeroes is a valid flock: the whole file, and no process, as these locks want it.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock
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

/// The unit of times in /proc. From libc: procfs has it from a parser of its own of the auxiliary vector, which ends the
/// process where the kernel's page that it names is not mapped, as under valgrind.
pub fn ticks_per_second() -> f64 {
    // SAFETY: no pointers.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) as f64 }
}

/// Whether what is behind a descriptor is gone for good.
pub fn is_hung_up(fd: &Fd) -> bool {
    let mut seen = [readable(fd.number())];
    poll(&mut seen, Some(Instant::now())).is_ok() && seen[0].revents & libc::POLLHUP != 0
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

    /// Waits until it is closed, but not for longer than `deadline`.
    pub fn is_closed_by(&mut self, deadline: Instant) -> bool {
        if self.thread.is_some_and(|thread| joined_by(thread, deadline)) {
            self.thread = None;
            fork::leave_fd(self.entered, || {});
        }
        self.thread.is_none()
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

/// A thread of the library's own. Not one of the standard library's: those leave thread-locals with destructors, and
/// libc does not unload a library while there are any.
pub struct Thread {
    thread: libc::pthread_t,
    epoch: u64,
}

impl Thread {
    /// Starts it with all signals blocked: the host's handlers are not to run in a thread that it does not know.
    pub fn start<F: FnOnce() + Send + 'static>(name: &CStr, body: F) -> std::io::Result<Thread> {
        extern "C" fn run<F: FnOnce()>(body: *mut libc::c_void) -> *mut libc::c_void {
            // On the thread's own stack: in a child, which has no such thread, memory that is known to it alone is a leak
            // to those who look for them.
            // SAFETY: the pointer that `start` made, taken once.
            let body: F = *unsafe { Box::from_raw(body.cast::<F>()) };
            // Nobody is left to be told of a panic.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            std::ptr::null_mut()
        }
        let body = Box::into_raw(Box::new(body));
        match start_thread(run::<F>, body.cast()) {
            Some(thread) => {
                // SAFETY: a thread that was neither joined nor detached, and a name of up to 15 bytes.
                unsafe { libc::pthread_setname_np(thread, name.as_ptr()) };
                Ok(Thread { thread, epoch: fork::epoch() })
            }
            None => {
                // SAFETY: nobody else took it.
                drop(unsafe { Box::from_raw(body) });
                Err(std::io::Error::from_raw_os_error(libc::EAGAIN))
            }
        }
    }

    /// Whether this is the calling thread.
    pub fn is_current(&self) -> bool {
        // SAFETY: no pointers.
        self.epoch == fork::epoch() && unsafe { libc::pthread_equal(self.thread, libc::pthread_self()) != 0 }
    }

    /// Waits for its end, but not for longer than `deadline`: false when it runs still, and does so by itself from
    /// now on. A child has none of its parent's threads.
    pub fn join_by(self, deadline: Instant) -> bool {
        self.epoch != fork::epoch() || join_by(self.thread, deadline)
    }

    /// Waits for its end, which must be certain.
    pub fn join(self) {
        if self.epoch == fork::epoch() {
            // SAFETY: neither joined nor detached before; its value is not asked for.
            unsafe { libc::pthread_join(self.thread, std::ptr::null_mut()) };
        }
    }

    /// Leaves it to itself.
    pub fn detach(self) {
        if self.epoch == fork::epoch() {
            // SAFETY: neither joined nor detached before.
            unsafe { libc::pthread_detach(self.thread) };
        }
    }
}

type Start = extern "C" fn(*mut libc::c_void) -> *mut libc::c_void;

fn start_thread(start: Start, argument: *mut libc::c_void) -> Option<libc::pthread_t> {
    // SAFETY: the sets are initialised by the calls, and all pointers are to locals.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let mut thread: libc::pthread_t = std::mem::zeroed();
        let made = libc::pthread_create(&mut thread, std::ptr::null(), start, argument);
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut());
        (made == 0).then_some(thread)
    }
}

/// A thread that runs libc's `close` and nothing of this library, which may be unloaded while it hangs.
fn close_thread(number: RawFd) -> Option<libc::pthread_t> {
    // SAFETY: `close` takes an int where a thread's start takes a pointer, and returns an int where a
    // pointer is returned: on x86-64 and aarch64 each travels in the same register, and the result is
    // not read.
    let close: Start = unsafe { std::mem::transmute(libc::close as *const ()) };
    start_thread(close, number as usize as *mut libc::c_void)
}

fn join_by(thread: libc::pthread_t, deadline: Instant) -> bool {
    let joined = joined_by(thread, deadline);
    if !joined {
        // SAFETY: neither joined nor detached before.
        unsafe { libc::pthread_detach(thread) };
    }
    joined
}

fn joined_by(thread: libc::pthread_t, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now()).as_nanos() as i64;
    let until = clock_ns(libc::CLOCK_REALTIME) + left;
    let until = libc::timespec { tv_sec: until / 1_000_000_000, tv_nsec: (until % 1_000_000_000) as libc::c_long };
    // SAFETY: a thread that was neither joined nor detached; `until` is valid.
    unsafe { pthread_timedjoin_np(thread, std::ptr::null_mut(), &until) == 0 }
}

unsafe extern "C" {
    fn pthread_timedjoin_np(
        thread: libc::pthread_t,
        value: *mut *mut libc::c_void,
        until: *const libc::timespec,
    ) -> libc::c_int;
}

/// Shows every name in an open folder but "." and "..": without an allocation, and without a look at the files.
pub fn names(folder: &Fd, mut see: impl FnMut(&CStr)) -> std::io::Result<()> {
    #[repr(align(8))]
    struct Room([u8; 16 << 10]);
    const LENGTH: usize = std::mem::offset_of!(libc::dirent64, d_reclen);
    const NAME: usize = std::mem::offset_of!(libc::dirent64, d_name);
    let mut room = Room([0; 16 << 10]);
    loop {
        let (data, size) = (room.0.as_mut_ptr(), room.0.len());
        // SAFETY: room of that size, aligned as entries are.
        let filled = match unsafe { libc::syscall(libc::SYS_getdents64, folder.number(), data, size) } {
            -1 => return Err(std::io::Error::last_os_error()),
            0 => return Ok(()),
            filled => filled as usize,
        };
        let mut rest = &room.0[..filled];
        while let Some(&[low, high]) = rest.get(LENGTH..LENGTH + 2) {
            let (entry, after) = rest.split_at(u16::from_ne_bytes([low, high]).into());
            match CStr::from_bytes_until_nul(&entry[NAME..]) {
                Ok(name) if !matches!(name.to_bytes(), b"." | b"..") => see(name),
                _ => {}
            }
            rest = after;
        }
    }
}

/// What a file in an open folder is, links followed. Nobody is asked who is far away: a network's file system that does
/// not answer holds this up no longer than any other.
pub fn status(folder: &Fd, name: &CStr) -> std::io::Result<libc::statx> {
    let flags = libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT;
    // SAFETY: all zeroes is a valid statx.
    let mut status: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: a C string, and room for a statx.
    check(unsafe {
        libc::statx(folder.number(), name.as_ptr(), flags, libc::STATX_TYPE | libc::STATX_INO, &mut status)
    })?;
    Ok(status)
}

/// Whether two threads of any process share their descriptors; `None` where the kernel does not tell.
pub fn share_descriptors(one: i32, other: i32) -> Option<bool> {
    const KCMP_FILES: libc::c_int = 2; // linux/kcmp.h
    // SAFETY: no pointers.
    match unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) } {
        -1 => None,
        order => Some(order == 0),
    }
}

/// Whether a process has any mapping of a file that is shared with others, by its open /proc/PID/maps; `None` where the
/// kernel does not tell (before 6.11), or the process has no memory.
pub fn has_shared_files(maps: &Fd) -> Option<bool> {
    const PROCMAP_QUERY: libc::c_ulong = 0xc068_6611; // linux/fs.h: _IOWR('f', 17, struct procmap_query)
    const SHARED: u64 = 0x08;
    const THIS_OR_NEXT: u64 = 0x10;
    const OF_A_FILE: u64 = 0x20;
    // struct procmap_query: its size, what is asked for, from which address; the answer is not read.
    let mut query = [0u64; 13];
    query[0] = size_of_val(&query) as u64;
    query[1] = SHARED | THIS_OR_NEXT | OF_A_FILE;
    // SAFETY: room of the size that the request's number and the first member tell.
    match check(unsafe { libc::ioctl(maps.number(), PROCMAP_QUERY, query.as_mut_ptr()) }) {
        Ok(()) => Some(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Some(false),
        Err(_) => None,
    }
}

/// How many processors the calling thread may use: one for a real-time thread, whose priority a thread that it starts
/// would inherit.
pub fn processors() -> usize {
    // SAFETY: all zeroes is a valid set; the calls fill it and count it.
    unsafe {
        if libc::sched_getscheduler(0) & !libc::SCHED_RESET_ON_FORK != libc::SCHED_OTHER {
            return 1;
        }
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        match libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) {
            0 => libc::CPU_COUNT(&set).max(1) as usize,
            _ => 1, // more processors than the set has room for
        }
    }
}
