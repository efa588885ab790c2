//! Lists of who has a camera.

use std::ffi::{CString, c_char};

use super::device_list::entry;
use super::handle::Handles;
use super::status::{call, camlease_status, count};
use super::structs::{Extensible, c_text, handle_place, text, write};
use crate::camera;
use crate::holders::{Activity, Holder, Holders};

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
}

/// The process merely has a node of the camera open.
pub const CAMLEASE_ACTIVITY_OPEN: u32 = 1;
/// The process streams: it has the driver's buffers mapped.
pub const CAMLEASE_ACTIVITY_STREAMING: u32 = 2;

/// Nothing was done to the holder.
pub const CAMLEASE_OUTCOME_NONE: u32 = 0;
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
    /// CAMLEASE_OUTCOME_NONE in this version.
    pub outcome: u32,
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
        }
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
            outcome: CAMLEASE_OUTCOME_NONE,
        }
    }
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
