//! Frame handles.

use super::handle::Handles;
use super::status::{call, camlease_status};
use super::structs::{Extensible, write};
use crate::frame::Frame;
use crate::memory::PLANES_MOST;

/// A frame that the host has. Its bytes stay readable, at the same address, until it is released, whatever
/// becomes of the stream, the camera and the device.
pub struct camlease_frame {
    _private: [u8; 0],
}

pub static FRAMES: Handles<Frame> = Handles::new(4, "frame");

/// The frame is damaged: the driver says so, or bytes are missing.
pub const CAMLEASE_FRAME_CORRUPT: u32 = 1;

/// One memory plane of a frame.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camlease_plane {
    /// First byte.
    pub data: *const u8,
    /// Bytes.
    pub size: usize,
    /// Bytes from one line to the next; 0 for compressed frames.
    pub stride: u32,
}

/// What a frame holds. Initialise with CAMLEASE_FRAME_DATA_INIT. The pointers are valid until the frame is
/// released; the bytes are not to be written.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct camlease_frame_data {
    /// Set by the initialiser.
    pub struct_size: usize,
    /// First byte of the first plane.
    pub data: *const u8,
    /// Bytes in the first plane.
    pub size: usize,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// V4L2 pixel format.
    pub fourcc: u32,
    /// Bytes from one line to the next in the first plane; 0 for compressed frames.
    pub stride: u32,
    /// The camera's own count; a gap tells of frames that were dropped.
    pub sequence: u64,
    /// Of the exposure, or as near as the driver tells, in nanoseconds of CLOCK_MONOTONIC.
    pub timestamp_ns: i64,
    /// Sum of CAMLEASE_FRAME_ flags, or 0.
    pub flags: u32,
    /// Memory planes, 1 to 4. A planar format in one piece of memory, as V4L2's NV12, has one.
    pub planes: u32,
    /// The planes, the first one again included.
    pub plane: [camlease_plane; 4],
}
const _: () = assert!(PLANES_MOST == 4);
// SAFETY: integers and pointers, the size first.
unsafe impl Extensible for camlease_frame_data {
    const NAME: &'static str = "camlease_frame_data";
}

/// What a frame holds.
///
/// @param frame The frame.
/// @param out To be filled.
/// @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE, CAMLEASE_FORKED or CAMLEASE_INVALID_ARGUMENT. Callable from any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_frame_info(
    frame: *const camlease_frame,
    out: *mut camlease_frame_data,
) -> camlease_status {
    call(|| {
        let frame = FRAMES.get(frame)?;
        let mut plane = [camlease_plane { data: std::ptr::null(), size: 0, stride: 0 }; PLANES_MOST];
        for (at, plane) in plane.iter_mut().enumerate().take(frame.planes()) {
            let data = frame.data(at);
            *plane = camlease_plane { data: data.as_ptr(), size: data.len(), stride: frame.stride(at) };
        }
        let data = camlease_frame_data {
            struct_size: 0,
            data: plane[0].data,
            size: plane[0].size,
            width: frame.width(),
            height: frame.height(),
            fourcc: frame.fourcc().0,
            stride: plane[0].stride,
            sequence: frame.sequence(),
            timestamp_ns: frame.timestamp_ns(),
            flags: if frame.is_corrupt() { CAMLEASE_FRAME_CORRUPT } else { 0 },
            planes: frame.planes() as u32,
            plane,
        };
        // SAFETY: see the conventions.
        unsafe { write(out, data) }
    })
}

/// Releases a frame: its buffer goes back to the camera.
///
/// @param frame The frame; its handle is used up.
/// @return CAMLEASE_OK, CAMLEASE_INVALID_HANDLE or CAMLEASE_FORKED. Callable from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn camlease_frame_release(frame: *mut camlease_frame) -> camlease_status {
    call(|| FRAMES.remove(frame).map(drop))
}
