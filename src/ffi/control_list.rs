//! Lists of a camera's controls.

use std::ffi::{CString, c_char};

use super::camera::{CAMERAS, camlease_camera};
use super::device_list::entry;
use super::handle::Handles;
use super::status::{call, call_that_waits, camlease_status, count};
use super::structs::{Extensible, c_text, handle_place, place, write};
use crate::error::{Error, Kind};
use crate::format::{Control, ControlKind};

/// A camera's controls.
pub struct camlease_control_list {
    _private: [u8; 0],
}

static LISTS: Handles<Vec<Entry>> = Handles::new(8, "control list");

struct Entry {
    control: Control,
    name: CString,
    menu: Vec<(i64, CString)>,
}

/// A number.
pub const CAMLEASE_CONTROL_INTEGER: u32 = 1;
/// 0 or 1.
pub const CAMLEASE_CONTROL_BOOLEAN: u32 = 2;
/// One of several named values; camlease_control_list_menu() tells the names.
pub const CAMLEASE_CONTROL_MENU: u32 = 3;
/// An action: setting it to anything does it.
pub const CAMLEASE_CONTROL_BUTTON: u32 = 4;
/// A number of 64 bits.
pub const CAMLEASE_CONTROL_INTEGER64: u32 = 5;
/// One bit for each of several things.
pub const CAMLEASE_CONTROL_BITMASK: u32 = 8;
/// One of several numbers; camlease_control_list_menu() tells them.
pub const CAMLEASE_CONTROL_INTEGER_MENU: u32 = 9;
/// Text or a struct, which these calls neither read nor set.
pub const CAMLEASE_CONTROL_OTHER: u32 = 255;

/// camlease_camera_get_control() can read it.
pub const CAMLEASE_CONTROL_READABLE: u32 = 1;
/// camlease_camera_set_control() can set it.
pub const CAMLEASE_CONTROL_WRITABLE: u32 = 2;
/// It has an effect now; another setting, as an automatic, may take it away.
pub const CAMLEASE_CONTROL_ACTIVE: u32 = 4;

/// One control. Initialise with CAMLEASE_CONTROL_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camlease_control_info {
    /// Set by the initialiser.
    pub struct_size: usize,
    /// V4L2's id.
    pub id: u32,
    /// CAMLEASE_CONTROL_INTEGER to CAMLEASE_CONTROL_OTHER; V4L2's number of the type where it has one.
    pub kind: u32,
    /// The driver's words, UTF-8, valid until the list is freed.
    pub name: *const c_char,
    /// Least value.
    pub minimum: i64,
    /// Greatest value.
    pub maximum: i64,
    /// From one value to the next.
    pub step: i64,
    /// What the camera starts with.
    pub default_value: i64,
    /// Sum of CAMLEASE_CONTROL_READABLE, CAMLEASE_CONTROL_WRITABLE and CAMLEASE_CONTROL_ACTIVE.
    pub flags: u32,
    /// Entries of its menu, or 0.
    pub menu_len: u32,
}
// SAFETY: integers and pointers, the size first.
unsafe impl Extensible for camlease_control_info {
    const NAME: &'static str = "camlease_control_info";
}

impl Entry {
    fn new(control: Control) -> Entry {
        let name = c_text(&control.name);
        let menu = control.menu.iter().map(|(value, name)| (*value, c_text(name))).collect();
        Entry { control, name, menu }
    }
}

/// Lists a camera's controls.
///
/// @param camera The camera; it may stream meanwhile.
/// @param out The list, to be freed by camlease_control_list_free(). NULL on failure.
/// @return CAMLEASE_OK; CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_control_list_new(
    camera: *mut camlease_camera,
    out: *mut *mut camlease_control_list,
) -> camlease_status {
    call_that_waits(|| {
        // SAFETY: see the conventions.
        let out = unsafe { handle_place(out) }?;
        *out = LISTS.add(CAMERAS.get(camera)?.camera.controls()?.into_iter().map(Entry::new).collect())?;
        Ok(())
    })
}

/// How many controls a list has.
///
/// @param list The list.
/// @return The number; 0 for a handle that is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_control_list_len(list: *const camlease_control_list) -> usize {
    count(|| Ok(LISTS.get(list)?.len()))
}

/// One control of a list.
///
/// @param list The list.
/// @param index From 0.
/// @param out To be filled.
/// @return CAMLEASE_OK; CAMLEASE_INVALID_ARGUMENT when the list is not that long; CAMLEASE_INVALID_HANDLE,
/// CAMLEASE_FORKED. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_control_list_get(
    list: *const camlease_control_list,
    index: usize,
    out: *mut camlease_control_info,
) -> camlease_status {
    call(|| {
        let list = LISTS.get(list)?;
        let Entry { control, name, menu } = entry(&list, index)?;
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        let info = camlease_control_info {
            struct_size: 0,
            id: control.id,
            kind: match control.kind {
                ControlKind::Integer => CAMLEASE_CONTROL_INTEGER,
                ControlKind::Boolean => CAMLEASE_CONTROL_BOOLEAN,
                ControlKind::Menu => CAMLEASE_CONTROL_MENU,
                ControlKind::Button => CAMLEASE_CONTROL_BUTTON,
                ControlKind::Integer64 => CAMLEASE_CONTROL_INTEGER64,
                ControlKind::Bitmask => CAMLEASE_CONTROL_BITMASK,
                ControlKind::IntegerMenu => CAMLEASE_CONTROL_INTEGER_MENU,
                ControlKind::Other => CAMLEASE_CONTROL_OTHER,
            },
            name: name.as_ptr(),
            minimum: control.minimum,
            maximum: control.maximum,
            step: control.step,
            default_value: control.default,
            flags: flag(control.readable, CAMLEASE_CONTROL_READABLE)
                | flag(control.writable, CAMLEASE_CONTROL_WRITABLE)
                | flag(control.active, CAMLEASE_CONTROL_ACTIVE),
            menu_len: menu.len() as u32,
        };
        // SAFETY: see the conventions.
        unsafe { write(out, info) }
    })
}

/// One entry of a menu control.
///
/// @param list The list.
/// @param index The control, from 0.
/// @param item The entry, from 0 to menu_len - 1.
/// @param value The value that chooses it.
/// @param name Its name, UTF-8, valid until the list is freed.
/// @return As camlease_control_list_get().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_control_list_menu(
    list: *const camlease_control_list,
    index: usize,
    item: usize,
    value: *mut i64,
    name: *mut *const c_char,
) -> camlease_status {
    call(|| {
        // SAFETY: see the conventions.
        let (value, name) = unsafe { (place(value)?, place(name)?) };
        let list = LISTS.get(list)?;
        let control = entry(&list, index)?;
        let (item_value, item_name) = control.menu.get(item).ok_or_else(|| {
            let words = &control.control.name;
            Error::new(
                Kind::InvalidArgument,
                format!("control \"{words}\" has {} menu entries, not {item}", control.menu.len()),
            )
        })?;
        value.write(*item_value);
        name.write(item_name.as_ptr());
        Ok(())
    })
}

/// Frees a list and the texts in it.
///
/// @param list The list; its handle is used up.
/// @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_control_list_free(list: *mut camlease_control_list) -> camlease_status {
    call(|| LISTS.remove(list).map(drop))
}
