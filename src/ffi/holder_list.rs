//! Lists of who has a camera.

use std::ffi::{CString, c_char};

use super::device_list::entry;
use super::evict::*;
use super::handle::Handles;
use super::status::{call, camlease_status, count};
use super::structs::{Extensible, c_text, handle_place, text, write};
use crate::camera;
use crate::error::Result;
use crate::evict::{Evicted, Outcome};
use crate::holders::{Activity, Condition, Holder, Holders};

/// Who had a camera when the list was made.
pub struct camlease_holder_list {
    _private: [u8; 0],
}

static LISTS: Handles<List> = Handles::new(6, "holder list");

struct List {
    entries: Vec<Entry>,
    unreadable: usize,
}

struct Entry {
    holder: Holder,
    command: CString,
    name: CString,
    share: CString,
    outcome: u32,
    reason: CString,
}

/// The process merely has a node of the camera open.
pub const CAMLEASE_ACTIVITY_OPEN: u32 = 1;
/// The process streams: it has the driver's buffers mapped.
pub const CAMLEASE_ACTIVITY_STREAMING: u32 = 2;

/// The process runs, or waits for something.
pub const CAMLEASE_CONDITION_ALIVE: u32 = 0;
/// The process was stopped (SIGSTOP, Ctrl+Z, a debugger), and answers nobody.
pub const CAMLEASE_CONDITION_STOPPED: u32 = 1;
/// The process is inside the kernel and no signal reaches it (state D).
pub const CAMLEASE_CONDITION_STUCK: u32 = 2;
/// The process's first thread has ended, others go on with what it has open (state Z).
pub const CAMLEASE_CONDITION_ZOMBIE: u32 = 3;

/// A process that has a camera. Initialise with CAMLEASE_HOLDER_INIT. The texts are UTF-8, never NULL, and
/// valid until the list is freed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camlease_holder {
    /// Set by the initialiser.
    pub struct_size: usize,
    /// Process id.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Clock ticks since boot, as in /proc/PID/stat: with pid it names one process for ever.
    pub start_time: u64,
    /// CAMLEASE_ACTIVITY_OPEN or CAMLEASE_ACTIVITY_STREAMING.
    pub activity: u32,
    /// Its command line, without characters that would steer a terminal.
    pub command: *const c_char,
    /// What it called itself when it opened the camera; "" where that is not known.
    pub name: *const c_char,
    /// What camlease_evict() did to it, one of CAMLEASE_OUTCOME_; CAMLEASE_OUTCOME_NONE elsewhere.
    pub outcome: u32,
    /// Why it was refused or survived and what would help, why nothing was done, or what a dry run would do; else "".
    pub reason: *const c_char,
    /// What the kernel says of the process, one of CAMLEASE_CONDITION_.
    pub condition: u32,
    /// Its camlease_open_options.priority; 0 where that is not known.
    pub priority: i32,
    /// When it got the camera, in nanoseconds of CLOCK_BOOTTIME; 0 where that is not known.
    pub since_ns: u64,
    /// The name by which it shares the camera, which shared:NAME opens; "" where it does not, or that is not known.
    pub share: *const c_char,
}
// SAFETY: integers and pointers, the size first.
unsafe impl Extensible for camlease_holder {
    const NAME: &'static str = "camlease_holder";
}

impl Entry {
    fn new(holder: &Holder) -> Entry {
        Entry {
            holder: holder.clone(),
            command: c_text(&holder.command),
            name: c_text(holder.lease.as_ref().map_or("", |lease| &lease.name)),
            share: c_text(holder.shares_as().unwrap_or("")),
            outcome: CAMLEASE_OUTCOME_NONE,
            reason: CString::default(),
        }
    }

    fn evicted(evicted: &Evicted) -> Entry {
        let outcome = match evicted.outcome {
            Outcome::None => CAMLEASE_OUTCOME_NONE,
            Outcome::Yielded => CAMLEASE_OUTCOME_YIELDED,
            Outcome::Terminated => CAMLEASE_OUTCOME_TERMINATED,
            Outcome::Killed => CAMLEASE_OUTCOME_KILLED,
            Outcome::Refused => CAMLEASE_OUTCOME_REFUSED,
            Outcome::Survived => CAMLEASE_OUTCOME_SURVIVED,
        };
        Entry { outcome, reason: c_text(&evicted.reason), ..Entry::new(&evicted.holder) }
    }

    fn lent(&self) -> camlease_holder {
        camlease_holder {
            struct_size: size_of::<camlease_holder>(),
            pid: self.holder.pid,
            uid: self.holder.uid,
            start_time: self.holder.start_time,
            activity: match self.holder.activity {
                Activity::Open => CAMLEASE_ACTIVITY_OPEN,
                Activity::Streaming => CAMLEASE_ACTIVITY_STREAMING,
            },
            command: self.command.as_ptr(),
            name: self.name.as_ptr(),
            outcome: self.outcome,
            reason: self.reason.as_ptr(),
            condition: match self.holder.condition {
                Condition::Alive => CAMLEASE_CONDITION_ALIVE,
                Condition::Stopped => CAMLEASE_CONDITION_STOPPED,
                Condition::Stuck => CAMLEASE_CONDITION_STUCK,
                Condition::Zombie => CAMLEASE_CONDITION_ZOMBIE,
            },
            priority: self.holder.lease.as_ref().map_or(0, |lease| lease.priority),
            since_ns: self.holder.lease.as_ref().map_or(0, |lease| lease.since_ns),
            share: self.share.as_ptr(),
        }
    }
}

/// A list of who had a camera, and of what became of each.
pub fn list_evicted(all: &[Evicted]) -> Result<*mut camlease_holder_list> {
    LISTS.add(List { entries: all.iter().map(Entry::evicted).collect(), unreadable: 0 })
}

/// Shows holders to `see` in C's form, for as long as it runs.
pub fn lend(holders: &Holders, see: impl FnOnce(&[camlease_holder])) {
    let entries: Vec<_> = holders.list.iter().map(Entry::new).collect();
    see(&entries.iter().map(Entry::lent).collect::<Vec<_>>());
}

/// Finds who has a camera, this process included. It is read from /proc: nothing can be stale.
///
/// @param uri The camera, as for camlease_camera_open().
/// @param out The list, to be freed by camlease_holder_list_free(). NULL on failure.
/// @return CAMLEASE_OK, also when nobody has it or there is no such camera; CAMLEASE_INVALID_ARGUMENT or
/// CAMLEASE_UNSUPPORTED for a name that is none. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_holder_list_new(
    uri: *const c_char,
    out: *mut *mut camlease_holder_list,
) -> camlease_status {
    call(|| {
        // SAFETY: see the conventions.
        let (out, uri) = unsafe { (handle_place(out)?, text(uri, "uri")?) };
        let holders = camera::holders(uri)?;
        let entries = holders.list.iter().map(Entry::new).collect();
        *out = LISTS.add(List { entries, unreadable: holders.unreadable })?;
        Ok(())
    })
}

/// How many holders a list has.
///
/// @param list The list.
/// @return The number; 0 for a handle that is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_holder_list_len(list: *const camlease_holder_list) -> usize {
    count(|| Ok(LISTS.get(list)?.entries.len()))
}

/// How many processes could not be looked at, as those of other users: they may be holders, too.
///
/// @param list The list.
/// @return The number; 0 when the list is complete, or for a handle that is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_holder_list_unreadable(list: *const camlease_holder_list) -> usize {
    count(|| Ok(LISTS.get(list)?.unreadable))
}

/// One holder of a list: those who stream first.
///
/// @param list The list.
/// @param index From 0.
/// @param out To be filled.
/// @return CAMLEASE_OK; CAMLEASE_INVALID_ARGUMENT when the list is not that long; CAMLEASE_INVALID_HANDLE,
/// CAMLEASE_FORKED. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_holder_list_get(
    list: *const camlease_holder_list,
    index: usize,
    out: *mut camlease_holder,
) -> camlease_status {
    call(|| {
        let list = LISTS.get(list)?;
        // SAFETY: see the conventions.
        unsafe { write(out, entry(&list.entries, index)?.lent()) }
    })
}

/// Frees a list and the texts in it.
///
/// @param list The list; its handle is used up.
/// @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_holder_list_free(list: *mut camlease_holder_list) -> camlease_status {
    call(|| LISTS.remove(list).map(drop))
}
