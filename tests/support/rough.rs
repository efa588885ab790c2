//! A client of a shared camera that speaks by bare system calls, and need not keep to anything.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Most descriptors that the kernel passes with one message.
pub const PASSED_MOST: usize = 253;

/// Where whoever shares a camera by this name listens.
pub fn door(runtime: &Path, name: &str) -> Option<PathBuf> {
    let prefix = format!("camlease-share-{name}.");
    let names = fs::read_dir(runtime).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|file| file.starts_with(&prefix) && file.ends_with(".ask")).map(|file| runtime.join(file)).next()
}

pub struct Rough(OwnedFd);

/// What a reader is given.
pub struct Given {
    pub told: Value,
    pub ring: OwnedFd,
    pub page: OwnedFd,
    pub bell: OwnedFd,
}

impl Rough {
    pub fn connect(door: &Path) -> io::Result<Rough> {
        // SAFETY: no pointers; the descriptor is new.
        let socket = unsafe {
            let number =
                libc::socket(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0);
            OwnedFd::from_raw_fd(check(number)?)
        };
        // SAFETY: all zeroes is a valid sockaddr_un.
        let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
        address.sun_family = libc::AF_UNIX as libc::sa_family_t;
        for (place, byte) in address.sun_path.iter_mut().zip(door.as_os_str().as_bytes()) {
            *place = *byte as libc::c_char;
        }
        let length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        // SAFETY: a valid address of that length.
        check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
        Ok(Rough(socket))
    }

    /// One who has said hello, and calls itself this.
    #[track_caller]
    pub fn known(door: &Path, name: &str) -> Rough {
        let rough = Rough::connect(door).unwrap();
        let answer = rough.ask(json!({ "camlease": 1, "id": 1, "do": "hello", "name": name }));
        assert_eq!(answer.as_ref().map(|answer| answer["ok"] == true), Some(true), "{answer:?}");
        rough
    }

    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// One message, with descriptors.
    pub fn send_with(&self, bytes: &[u8], passed: &[RawFd]) -> io::Result<()> {
        let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut room = [0u64; 16 + PASSED_MOST / 2];
        // SAFETY: all zeroes is a valid msghdr; the room is large enough for the control message, as CMSG_SPACE says.
        let sent = unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            (message.msg_iov, message.msg_iovlen) = (&mut part, 1);
            if !passed.is_empty() {
                let length = size_of_val(passed) as u32;
                message.msg_control = room.as_mut_ptr().cast();
                message.msg_controllen = libc::CMSG_SPACE(length) as _;
                let head = libc::CMSG_FIRSTHDR(&message);
                ((*head).cmsg_level, (*head).cmsg_type) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);
                (*head).cmsg_len = libc::CMSG_LEN(length) as _;
                libc::CMSG_DATA(head).cast::<RawFd>().copy_from_nonoverlapping(passed.as_ptr(), passed.len());
            }
            libc::sendmsg(self.fd(), &message, libc::MSG_NOSIGNAL)
        };
        check(sent as i32).map(drop)
    }

    pub fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.send_with(bytes, &[])
    }

    pub fn say(&self, message: Value) -> io::Result<()> {
        self.send(message.to_string().as_bytes())
    }

    /// The next message and what came with it; `None` once the other end is closed. WouldBlock where there is none.
    pub fn hear_now(&self) -> io::Result<Option<(Value, Vec<OwnedFd>)>> {
        let mut bytes = vec![0u8; 64 << 10];
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut room = [0u64; 32];
        let mut passed = Vec::new();
        // SAFETY: room for the bytes and for control messages, which are read as far as the kernel filled them.
        let length = unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            (message.msg_iov, message.msg_iovlen) = (&mut part, 1);
            (message.msg_control, message.msg_controllen) = (room.as_mut_ptr().cast(), size_of_val(&room) as _);
            let length = libc::recvmsg(self.fd(), &mut message, libc::MSG_CMSG_CLOEXEC);
            check(length as i32)?;
            let head = libc::CMSG_FIRSTHDR(&message);
            if !head.is_null() && (*head).cmsg_type == libc::SCM_RIGHTS {
                let count = ((*head).cmsg_len as usize - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>();
                let numbers = libc::CMSG_DATA(head).cast::<RawFd>();
                passed.extend((0..count).map(|at| OwnedFd::from_raw_fd(numbers.add(at).read_unaligned())));
            }
            length as usize
        };
        match length {
            0 => Ok(None),
            length => Ok(Some((serde_json::from_slice(&bytes[..length]).unwrap(), passed))),
        }
    }

    /// The same, waited for; `None`, too, where the connection was reset.
    #[track_caller]
    pub fn hear(&self) -> Option<(Value, Vec<OwnedFd>)> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match self.hear_now() {
                Ok(heard) => return heard,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
            let mut fd = libc::pollfd { fd: self.fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one pollfd.
            unsafe { libc::poll(&mut fd, 1, 100) };
            assert!(Instant::now() < deadline, "nothing is heard");
        }
    }

    /// Says something; the answer to it, or `None` when it is sent away.
    #[track_caller]
    pub fn ask(&self, message: Value) -> Option<Value> {
        self.say(message.clone()).ok()?;
        loop {
            let (heard, _) = self.hear()?;
            let is_refusal = heard["id"].is_null() && heard["ok"] == false;
            if heard["id"] == message["id"] || is_refusal {
                return Some(heard);
            }
        }
    }

    /// Waits until the other end closes.
    #[track_caller]
    pub fn is_sent_away(&self) {
        while self.hear().is_some() {}
    }

    /// Becomes a reader who holds as much as it may get; what it is given, where it is given something.
    pub fn attach(&self, hold: u64) -> Option<Given> {
        self.say(json!({ "camlease": 1, "id": 2, "do": "attach", "hold": hold })).ok()?;
        loop {
            let (told, passed) = self.hear()?;
            if told["ok"] == false {
                return None;
            }
            if let Ok([ring, page, bell]) = <[OwnedFd; 3]>::try_from(passed) {
                return Some(Given { told, ring, page, bell });
            }
        }
    }
}

pub fn check(returned: i32) -> io::Result<i32> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// A reader's page as the words that it is, for as long as this process lives.
pub fn words(page: &OwnedFd) -> &'static [AtomicU64] {
    let (protection, number) = (libc::PROT_READ | libc::PROT_WRITE, page.as_raw_fd());
    // SAFETY: a new mapping of a page of a file that is as long, never unmapped.
    unsafe {
        let memory = libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_SHARED, number, 0);
        assert_ne!(memory, libc::MAP_FAILED);
        std::slice::from_raw_parts(memory.cast(), 4096 / 8)
    }
}
