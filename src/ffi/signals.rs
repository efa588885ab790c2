//! Release on signals.

use super::status::{call, camlease_status};
use crate::error::{Error, Kind, Result};
use crate::signals::release_on_signals;

/// SIGHUP: the terminal is gone.
pub const CAMLEASE_SIGNAL_HUP: u32 = 1;
/// SIGINT: Ctrl+C.
pub const CAMLEASE_SIGNAL_INT: u32 = 2;
/// SIGQUIT: Ctrl+\.
pub const CAMLEASE_SIGNAL_QUIT: u32 = 4;
/// SIGTERM: what service managers and kill send.
pub const CAMLEASE_SIGNAL_TERM: u32 = 8;
/// SIGPIPE: whoever read the output is gone.
pub const CAMLEASE_SIGNAL_PIPE: u32 = 16;
/// SIGALRM.
pub const CAMLEASE_SIGNAL_ALRM: u32 = 32;
/// SIGUSR1.
pub const CAMLEASE_SIGNAL_USR1: u32 = 64;
/// SIGUSR2.
pub const CAMLEASE_SIGNAL_USR2: u32 = 128;
/// SIGXCPU: the processor time is used up.
pub const CAMLEASE_SIGNAL_XCPU: u32 = 256;
/// Those by which a program is asked to end: SIGHUP, SIGINT, SIGQUIT and SIGTERM.
pub const CAMLEASE_SIGNAL_USUAL: u32 = 15;
const _: () = assert!(
    CAMLEASE_SIGNAL_USUAL == CAMLEASE_SIGNAL_HUP | CAMLEASE_SIGNAL_INT | CAMLEASE_SIGNAL_QUIT | CAMLEASE_SIGNAL_TERM
);

const SIGNALS: [(u32, i32); 9] = [
    (CAMLEASE_SIGNAL_HUP, libc::SIGHUP),
    (CAMLEASE_SIGNAL_INT, libc::SIGINT),
    (CAMLEASE_SIGNAL_QUIT, libc::SIGQUIT),
    (CAMLEASE_SIGNAL_TERM, libc::SIGTERM),
    (CAMLEASE_SIGNAL_PIPE, libc::SIGPIPE),
    (CAMLEASE_SIGNAL_ALRM, libc::SIGALRM),
    (CAMLEASE_SIGNAL_USR1, libc::SIGUSR1),
    (CAMLEASE_SIGNAL_USR2, libc::SIGUSR2),
    (CAMLEASE_SIGNAL_XCPU, libc::SIGXCPU),
];

/// From now on, when one of these signals arrives, the cameras of this process are released, the last one opened
/// first, and then the signal does what it would have done without this library: the host's own handler runs, in the
/// same thread and with the same arguments, or the default action is taken. The release takes up to
/// camlease_set_shutdown_timeout(). A second signal is not held up by the first.
///
/// Calls on released cameras give CAMLEASE_CLOSED, and so do opens that were under way; their handles are still to be
/// closed. Cameras may be opened again if the host goes on. Handlers that the host installs later replace this
/// library's; they may call what they replaced. An ignored signal stays ignored. A thread that the signal finds in a call
/// of this library gets its effect before that call returns.
///
/// @param set Sum of CAMLEASE_SIGNAL_ values, which replaces the former set; 0 takes this library's handlers away again.
/// So does unloading the library.
/// @return CAMLEASE_OK; CAMLEASE_INVALID_ARGUMENT for a value that is not known; CAMLEASE_SHUT_DOWN; CAMLEASE_IO when
/// the process has no thread or memory left. Callable from any thread, but not from a signal handler.
#[unsafe(no_mangle)]
pub extern "C" fn camlease_release_on_signals(set: u32) -> camlease_status {
    call(|| release_on_signals(&signals(set)?))
}

fn signals(set: u32) -> Result<Vec<i32>> {
    let unknown = SIGNALS.iter().fold(set, |rest, (value, _)| rest & !value);
    match unknown {
        0 => Ok(SIGNALS.iter().filter(|(value, _)| set & value != 0).map(|(_, signal)| *signal).collect()),
        _ => Err(Error::new(Kind::InvalidArgument, format!("there is no CAMLEASE_SIGNAL_ value 0x{unknown:x}"))),
    }
}
