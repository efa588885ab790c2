//! The one error type: what kind of failure, the operating system's number behind it, and words.

use std::fmt;

/// What went wrong, as a program needs to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    InvalidArgument,
    InvalidHandle,
    NotFound,
    Busy,
    Timeout,
    Disconnected,
    Permission,
    Unsupported,
    WrongState,
    Io,
    NoBandwidth,
    Budget,
    Evicted,
    Forked,
    ShutDown,
    Stalled,
    Closed,
    Internal,
}

const NAMES: [(Kind, &str); 18] = [
    (Kind::InvalidArgument, "INVALID_ARGUMENT"),
    (Kind::InvalidHandle, "INVALID_HANDLE"),
    (Kind::NotFound, "NOT_FOUND"),
    (Kind::Busy, "BUSY"),
    (Kind::Timeout, "TIMEOUT"),
    (Kind::Disconnected, "DISCONNECTED"),
    (Kind::Permission, "PERMISSION"),
    (Kind::Unsupported, "UNSUPPORTED"),
    (Kind::WrongState, "WRONG_STATE"),
    (Kind::Io, "IO"),
    (Kind::NoBandwidth, "NO_BANDWIDTH"),
    (Kind::Budget, "BUDGET"),
    (Kind::Evicted, "EVICTED"),
    (Kind::Forked, "FORKED"),
    (Kind::ShutDown, "SHUT_DOWN"),
    (Kind::Stalled, "STALLED"),
    (Kind::Closed, "CLOSED"),
    (Kind::Internal, "INTERNAL"),
];

impl Kind {
    /// By what name it goes from process to process: the status value's.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|row| row.0 == self).map_or("INTERNAL", |row| row.1)
    }

    pub fn of_name(name: &str) -> Option<Kind> {
        NAMES.iter().find(|row| row.1 == name).map(|row| row.0)
    }
}

/// A failure: its kind for the program, its message for the person, its errno for the curious.
///
/// A pointer wide: a result without a failure stays in registers on a frame's way.
#[derive(Debug, Clone)]
pub struct Error(Box<Failure>);

#[derive(Debug, Clone)]
struct Failure {
    kind: Kind,
    errno: i32,
    message: String,
    /// Where in the message the next steps begin.
    hints_at: Option<usize>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Failure { kind, errno: 0, message: message.into(), hints_at: None }))
    }

    /// A failed system call: the kind follows from errno, unless the caller knows better ([`Error::with_kind`]).
    pub fn system(what: impl fmt::Display, cause: std::io::Error) -> Self {
        let errno = cause.raw_os_error().unwrap_or(0);
        let message = format!("{what}: {}", describe(errno, &cause));
        Error(Box::new(Failure { kind: kind_of(errno), errno, message, hints_at: None }))
    }

    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The error number that another process told of.
    pub fn with_errno(mut self, errno: i32) -> Self {
        self.0.errno = errno;
        self
    }

    /// Adds the next step for the person who reads the message.
    pub fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.0.hints_at.get_or_insert(self.0.message.len());
        self.0.message = format!("{}; {hint}", self.0.message);
        self
    }

    /// Another next step than the one that is in it: it is told to somebody else.
    pub fn hint_instead(mut self, hint: impl fmt::Display) -> Self {
        let what = self.what().len();
        self.0.message.truncate(what);
        self.0.hints_at = None;
        self.hint(hint)
    }

    /// Puts what was tried before what happened.
    pub fn context(mut self, what: impl fmt::Display) -> Self {
        let before = self.0.message.len();
        self.0.message = format!("{what}: {}", self.0.message);
        let longer = self.0.message.len() - before;
        self.0.hints_at = self.0.hints_at.map(|at| at + longer);
        self
    }

    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The operating system's error number, or 0.
    pub fn errno(&self) -> i32 {
        self.0.errno
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The message without its next steps.
    pub fn what(&self) -> &str {
        &self.0.message[..self.0.hints_at.unwrap_or(self.0.message.len())]
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

impl std::error::Error for Error {}

/// What an errno means when nothing more is known than that a camera's system call gave it.
fn kind_of(errno: i32) -> Kind {
    match errno {
        libc::EBUSY => Kind::Busy,
        libc::ENODEV | libc::ENXIO | libc::ESHUTDOWN => Kind::Disconnected,
        libc::ENOENT | libc::ENOTDIR | libc::ELOOP => Kind::NotFound,
        libc::EACCES | libc::EPERM => Kind::Permission,
        libc::ENOTTY | libc::EOPNOTSUPP | libc::ENOSYS => Kind::Unsupported,
        libc::ENAMETOOLONG => Kind::InvalidArgument,
        libc::ETIMEDOUT => Kind::Timeout,
        libc::ENOMEM => Kind::Budget,
        _ => Kind::Io,
    }
}

/// errno by name and in words: the name is what a search engine finds.
fn describe(errno: i32, cause: &std::io::Error) -> String {
    let words = match errno {
        libc::EBUSY => "EBUSY, the camera is in use",
        libc::ENODEV => "ENODEV, the camera is gone (unplugged, or its driver let go)",
        libc::ENXIO => "ENXIO, no camera answers behind this node",
        libc::ESHUTDOWN => "ESHUTDOWN, the USB connection was shut down",
        libc::ENOENT => "ENOENT, there is no such file",
        libc::EACCES => "EACCES, permission denied",
        libc::EPERM => "EPERM, not permitted",
        libc::EINVAL => "EINVAL, the driver does not accept this",
        libc::EIO => "EIO, the driver reports a hardware or transfer error",
        libc::EPROTO => "EPROTO, the USB transfer broke (cable, hub or power)",
        libc::EPIPE => "EPIPE, the USB endpoint stalled",
        libc::ETIMEDOUT => "ETIMEDOUT, the camera did not answer in time",
        libc::ENOSPC => "ENOSPC, the kernel has no room left for it",
        libc::ENOMEM => "ENOMEM, the kernel has no memory for it",
        libc::EMFILE => "EMFILE, this process has too many open files",
        libc::ENFILE => "ENFILE, the system has too many open files",
        libc::ENOTTY => "ENOTTY, the driver does not know this request",
        libc::EFAULT => "EFAULT, the kernel could not reach the memory",
        libc::EAGAIN => "EAGAIN, nothing is there yet",
        libc::EINTR => "EINTR, a signal interrupted it",
        _ => return cause.to_string(),
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_next_step_can_be_replaced_by_that_of_another() {
        let error = Error::new(Kind::Io, "it broke").hint("mend it").hint("or buy another").context("/dev/video0");
        assert_eq!(error.message(), "/dev/video0: it broke; mend it; or buy another");
        assert_eq!(error.what(), "/dev/video0: it broke");
        assert_eq!(error.hint_instead("wait").message(), "/dev/video0: it broke; wait");
        assert_eq!(Error::new(Kind::Io, "it broke").hint_instead("wait").message(), "it broke; wait");
    }
}
