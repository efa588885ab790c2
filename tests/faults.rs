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
    let uri = format!("virtual:faults-{}?width=640&height=360&fps=100", std::process::id());
    run_cases(&uri, &cases);
}
