//! Lists of cameras.

use std::ffi::{CString, c_char};

use super::handle::Handles;
use super::status::{call, camlease_status, count};
use super::structs::{Extensible, c_text, handle_place, write};
use crate::backend::{self, Found, State};
use crate::error::{Error, Kind, Result};

/// The cameras that were there when the list was made.
pub struct camlease_device_list {
    _private: [u8; 0],
}

struct Entry {
    texts: [CString; 5],
    state: u32,
}

static LISTS: Handles<Vec<Entry>> = Handles::new(5, "device list");

/// Nobody has the camera.
pub const CAMLEASE_DEVICE_FREE: u32 = 0;
/// Somebody has a node of it open; that keeps nobody from streaming.
pub const CAMLEASE_DEVICE_OPEN: u32 = 1;
/// Somebody has its buffers.
pub const CAMLEASE_DEVICE_STREAMING: u32 = 2;
/// It could not be found out, as when the node may not be opened.
pub const CAMLEASE_DEVICE_UNKNOWN: u32 = 3;

/// A camera of this machine. Initialise with CAMLEASE_DEVICE_INFO_INIT. The texts are UTF-8, never NULL, and
/// valid until the list is freed.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camlease_device_info {
    /// Set by the initialiser.
    pub struct_size: usize,
    /// The name that opens it.
    pub uri: *const c_char,
    /// What the driver calls it.
    pub name: *const c_char,
    /// The driver.
    pub driver: *const c_char,
    /// Its USB serial number, or "".
    pub serial: *const c_char,
    /// Where it is plugged in, or "".
    pub bus: *const c_char,
    /// CAMLEASE_DEVICE_FREE to CAMLEASE_DEVICE_UNKNOWN.
    pub state: u32,
}
// SAFETY: integers and pointers, the size first.
unsafe impl Extensible for camlease_device_info {
    const NAME: &'static str = "camlease_device_info";
}

impl Entry {
    fn new(found: &Found) -> Entry {
        let identity = &found.identity;
        let state = match found.state {
            State::Free => CAMLEASE_DEVICE_FREE,
            State::Open => CAMLEASE_DEVICE_OPEN,
            State::Streaming => CAMLEASE_DEVICE_STREAMING,
            State::Unknown => CAMLEASE_DEVICE_UNKNOWN,
        };
        let texts = [&identity.uri, &identity.name, &identity.driver, &identity.serial, &identity.bus];
        Entry { texts: texts.map(|text| c_text(text)), state }
    }
}

/// Lists the cameras of this machine: V4L2 nodes that give pictures, and virtual cameras that somebody holds.
///
/// @param out The list, to be freed by camlease_device_list_free(). NULL on failure.
/// @return CAMLEASE_OK, also when there is no camera. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_device_list_new(out: *mut *mut camlease_device_list) -> camlease_status {
    call(|| {
        // SAFETY: see the conventions.
        let out = unsafe { handle_place(out) }?;
        *out = LISTS.add(backend::list()?.iter().map(Entry::new).collect())?;
        Ok(())
    })
}

/// How many cameras a list has.
///
/// @param list The list.
/// @return The number; 0 for a handle that is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_device_list_len(list: *const camlease_device_list) -> usize {
    count(|| Ok(LISTS.get(list)?.len()))
}

/// One camera of a list.
///
/// @param list The list.
/// @param index From 0.
/// @param out To be filled.
/// @return CAMLEASE_OK; CAMLEASE_INVALID_ARGUMENT when the list is not that long; CAMLEASE_INVALID_HANDLE,
/// CAMLEASE_FORKED. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_device_list_get(
    list: *const camlease_device_list,
    index: usize,
    out: *mut camlease_device_info,
) -> camlease_status {
    call(|| {
        let list = LISTS.get(list)?;
        let entry = entry(&list, index)?;
        let [uri, name, driver, serial, bus] = entry.texts.each_ref().map(|text| text.as_ptr());
        let info = camlease_device_info { struct_size: 0, uri, name, driver, serial, bus, state: entry.state };
        // SAFETY: see the conventions.
        unsafe { write(out, info) }
    })
}

/// Frees a list and the texts in it.
///
/// @param list The list; its handle is used up.
/// @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_device_list_free(list: *mut camlease_device_list) -> camlease_status {
    call(|| LISTS.remove(list).map(drop))
}

/// An entry of any list.
pub fn entry<T>(list: &[T], index: usize) -> Result<&T> {
    list.get(index).ok_or_else(|| {
        Error::new(Kind::InvalidArgument, format!("index {index} is past the end of a list of {}", list.len()))
    })
}
