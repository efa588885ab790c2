//! As `rig_faults.rs`, for virtual cameras: every kernel call that they need made to fail, with no driver behind it.

mod support;

use libc::*;
use support::faults::{Case, run_cases};

#[test]
fn virtual_cameras() {
    let mut cases = Vec::new();
    let mut enter = |phase: &str, call: &str, skip: u32, errnos: &[(i32, &str)]| {
        cases.extend(errnos.iter().map(|&(errno, status)| Case::new(phase, call, skip, 1, errno, status)));
    };
    let descriptors = [(EMFILE, "IO"), (ENFILE, "IO"), (ENOMEM, "BUDGET")];
    for call in ["socket", "eventfd", "epoll_create1"] {
        enter("open", call, 0, &descriptors);
    }
    enter("open", "bind", 0, &[(EADDRINUSE, "BUSY"), (ENOMEM, "BUDGET"), (EACCES, "PERMISSION")]);
    enter("open", "listen", 0, &[(EIO, "IO"), (ENOMEM, "BUDGET")]);
    enter("open", "epoll_ctl", 0, &[(ENOMEM, "BUDGET"), (ENOSPC, "IO")]);
    enter("start", "timerfd_create", 0, &descriptors);
    for skip in [0, 3] {
        enter("start", "mmap_anonymous", skip, &[(ENOMEM, "BUDGET"), (EAGAIN, "IO")]);
    }
    enter("start", "epoll_ctl", 0, &[(ENOMEM, "BUDGET"), (ENOSPC, "IO")]);
    // Without its mark a stream is taken for an open camera by others, no worse.
    enter("start", "socket", 0, &[(EMFILE, "OK"), (ENOMEM, "OK")]);
    enter("start", "bind", 0, &[(EADDRINUSE, "OK")]);
    enter("frame", "epoll_wait", 0, &[(EINVAL, "IO"), (EINTR, "OK")]);
    enter("wait", "inotify_init1", 0, &[(EMFILE, "BUSY"), (ENOMEM, "BUSY")]);
    enter("wait", "eventfd", 0, &descriptors);
    enter("wait", "connect", 0, &[(ECONNREFUSED, "BUSY"), (EAGAIN, "BUSY"), (ENOMEM, "BUSY")]);
    enter("wait", "ppoll", 0, &[(ENOMEM, "BUDGET"), (EINVAL, "IO"), (EINTR, "BUSY")]);
    // The wait goes on when no further socket can be had for an attempt or for the holder's hang-up.
    enter("wait", "bind", 1, &[(EADDRINUSE, "BUSY")]);
    // One who cannot ask, or is handed a camera that it has no descriptors for, leaves it to the next.
    enter("ask", "connect", 0, &[(EAGAIN, "BUSY"), (ECONNREFUSED, "BUSY"), (EACCES, "BUSY"), (ENOENT, "BUSY")]);
    enter("ask", "socket", 1, &[(EMFILE, "BUSY"), (ENOMEM, "BUSY")]);
    enter("ask", "epoll_create1", 0, &descriptors);
    lease(&mut cases);
    let uri = format!("virtual:faults-{}?width=640&height=360&fps=100", std::process::id());
    run_cases(&uri, &cases);
}

/// A lease that cannot be filed, or withdrawn, keeps nobody from a camera. What others are not told is in the log.
fn lease(cases: &mut Vec<Case>) {
    let errnos = [EACCES, EPERM, ENOENT, EEXIST, ELOOP, EROFS, ENOSPC, EDQUOT, EMFILE, ENFILE, ENOMEM, EIO, EINVAL];
    let mut enter = |phase: &str, call: &str, skip: u32, count: u32, warns: bool, errnos: &[i32]| {
        let case = |&errno: &i32| Case::new(phase, call, skip, count, errno, "OK");
        cases.extend(errnos.iter().map(case).map(|case| if warns { case.warns() } else { case }));
    };
    // Another name or another folder will do.
    enter("open", "open_lease", 0, 1, false, &errnos);
    enter("open", "lock_lease", 0, 1, false, &[EAGAIN, EACCES, ENOLCK, EINVAL, EINTR]);
    enter("open", "pwrite", 0, 1, false, &errnos);
    enter("open", "fchmod", 0, 1, false, &errnos);
    // None does.
    enter("open", "open_lease", 0, 0, true, &errnos);
    enter("open", "lock_lease", 0, 0, true, &[EAGAIN, EACCES, ENOLCK, EINVAL]);
    enter("open", "pwrite", 0, 0, true, &errnos);
    enter("open", "fchmod", 0, 0, true, &errnos);
    // Its holder is told of, and cannot be asked.
    for (call, skip) in
        [("socket", 1), ("fchmod", 1), ("bind", 1), ("listen", 1), ("eventfd", 1), ("pthread_create", 0)]
    {
        enter("open", call, skip, 0, true, &[EACCES, EADDRINUSE, EAGAIN, EMFILE, ENFILE, ENOMEM, ENOSPC, EROFS, EIO]);
    }
    // Once for its change to streaming, and back.
    enter("start", "pwrite", 0, 1, true, &[EIO, ENOSPC, EDQUOT]);
    enter("stop", "pwrite", 0, 1, true, &[EIO, ENOSPC, EDQUOT]);
    // The socket's name, and then the lease's.
    enter("close", "unlink", 1, 1, true, &[EACCES, EPERM, EROFS, EIO, EBUSY]);
}
