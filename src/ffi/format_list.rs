//! Lists of what a camera offers.

use std::ffi::{CString, c_char};

use super::camera::{CAMERAS, camlease_camera};
use super::device_list::entry;
use super::handle::Handles;
use super::status::{call, call_that_waits, camlease_status, count};
use super::structs::{Extensible, c_text, handle_place, write};
use crate::format::Format;

/// What a camera offers.
pub struct camlease_format_list {
    _private: [u8; 0],
}

static LISTS: Handles<Vec<(Format, CString)>> = Handles::new(7, "format list");

/// Frames in this format are compressed, and vary in size.
pub const CAMLEASE_FORMAT_COMPRESSED: u32 = 1;

/// A pixel format in one size, or in a range of sizes, at one rate, or in a range of rates. Initialise with
/// CAMLEASE_FORMAT_INFO_INIT.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camlease_format_info {
    /// Set by the initialiser.
    pub struct_size: usize,
    /// V4L2 pixel format.
    pub fourcc: u32,
    /// Sum of CAMLEASE_FORMAT_ flags, or 0.
    pub flags: u32,
    /// The driver's words for the format, UTF-8, valid until the list is freed.
    pub description: *const c_char,
    /// Pixels. Equal least and greatest values for a single size.
    pub min_width: u32,
    /// Pixels.
    pub max_width: u32,
    /// Pixels from one width to the next in a range; 0 for a single size.
    pub step_width: u32,
    /// Pixels.
    pub min_height: u32,
    /// Pixels.
    pub max_height: u32,
    /// Pixels from one height to the next in a range; 0 for a single size.
    pub step_height: u32,
    /// The slowest rate, frames per second as a fraction; 0/0 where the driver does not tell.
    pub min_fps_numerator: u32,
    /// See min_fps_numerator.
    pub min_fps_denominator: u32,
    /// The fastest rate, equal to the slowest for a single rate.
    pub max_fps_numerator: u32,
    /// See max_fps_numerator.
    pub max_fps_denominator: u32,
}
// SAFETY: integers and pointers, the size first.
unsafe impl Extensible for camlease_format_info {
    const NAME: &'static str = "camlease_format_info";
}

/// Lists what a camera offers.
///
/// @param camera The camera; it may stream meanwhile.
/// @param out The list, to be freed by camlease_format_list_free(). NULL on failure.
/// @return CAMLEASE_OK, CAMLEASE_DISCONNECTED, CAMLEASE_IO; CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED. Callable
/// from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_format_list_new(
    camera: *mut camlease_camera,
    out: *mut *mut camlease_format_list,
) -> camlease_status {
    call_that_waits(|| {
        // SAFETY: see the conventions.
        let out = unsafe { handle_place(out) }?;
        let formats = CAMERAS.get(camera)?.camera.formats()?;
        *out = LISTS.add(
            formats.into_iter().map(|format| (c_text(&format.description), format)).map(|(d, f)| (f, d)).collect(),
        )?;
        Ok(())
    })
}

/// How many entries a list has.
///
/// @param list The list.
/// @return The number; 0 for a handle that is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_format_list_len(list: *const camlease_format_list) -> usize {
    count(|| Ok(LISTS.get(list)?.len()))
}

/// One entry of a list.
///
/// @param list The list.
/// @param index From 0.
/// @param out To be filled.
/// @return CAMLEASE_OK; CAMLEASE_INVALID_ARGUMENT when the list is not that long; CAMLEASE_INVALID_HANDLE,
/// CAMLEASE_FORKED. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_format_list_get(
    list: *const camlease_format_list,
    index: usize,
    out: *mut camlease_format_info,
) -> camlease_status {
    call(|| {
        let list = LISTS.get(list)?;
        let (format, description) = entry(&list, index)?;
        let info = camlease_format_info {
            struct_size: 0,
            fourcc: format.fourcc.0,
            flags: if format.compressed { CAMLEASE_FORMAT_COMPRESSED } else { 0 },
            description: description.as_ptr(),
            min_width: format.width.0,
            max_width: format.width.1,
            step_width: format.width.2,
            min_height: format.height.0,
            max_height: format.height.1,
            step_height: format.height.2,
            min_fps_numerator: format.slowest.numerator,
            min_fps_denominator: format.slowest.denominator,
            max_fps_numerator: format.fastest.numerator,
            max_fps_denominator: format.fastest.denominator,
        };
        // SAFETY: see the conventions.
        unsafe { write(out, info) }
    })
}

/// Frees a list and the texts in it.
///
/// @param list The list; its handle is used up.
/// @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_format_list_free(list: *mut camlease_format_list) -> camlease_status {
    call(|| LISTS.remove(list).map(drop))
}
