//! Reading and writing the structs that grow: the caller's `struct_size` says how much of one it knows.

use std::ffi::{CStr, CString, c_char};
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::policy;

/// A struct of integers and pointers whose first member is `size_t struct_size`.
///
/// # Safety
/// `repr(C)`, any bits are valid in it, and the first member is the size.
pub unsafe trait Extensible: Copy {
    const NAME: &'static str;
}

/// What the caller passed, with zeroes for what its version does not know.
///
/// # Safety
/// `from` is NULL or points at `struct_size` readable bytes.
pub unsafe fn read<T: Extensible>(from: *const T) -> Result<Option<T>> {
    if from.is_null() {
        return Ok(None);
    }
    // SAFETY: see above.
    let size = unsafe { check_size(from) }?;
    // SAFETY: any bits are valid in a T, zeroes too.
    let mut value: T = unsafe { std::mem::zeroed() };
    // As bytes: the caller's struct may be shorter than a T.
    // SAFETY: that many bytes are readable there and writable here.
    unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), (&raw mut value).cast(), size.min(size_of::<T>())) };
    Ok(Some(value))
}

/// Fills the caller's struct, as much of it as the caller's version knows.
///
/// # Safety
/// `to` is NULL or points at `struct_size` writable bytes.
pub unsafe fn write<T: Extensible>(to: *mut T, mut value: T) -> Result<()> {
    if to.is_null() {
        return Err(Error::new(Kind::InvalidArgument, format!("out is NULL where a {} is to be filled", T::NAME)));
    }
    // SAFETY: see above.
    let size = unsafe { check_size(to) }?;
    // SAFETY: the first member is the size, and stays the caller's.
    unsafe { (&raw mut value).cast::<usize>().write(size) };
    // SAFETY: that many bytes are writable there.
    unsafe { std::ptr::copy_nonoverlapping((&raw const value).cast::<u8>(), to.cast(), size.min(size_of::<T>())) };
    Ok(())
}

/// # Safety
/// As for [`read`].
unsafe fn check_size<T: Extensible>(at: *const T) -> Result<usize> {
    let name = T::NAME;
    // SAFETY: the size comes first, and the caller's struct has at least that.
    let size = unsafe { at.cast::<usize>().read_unaligned() };
    if !(size_of::<usize>()..=policy::STRUCT_SIZE_MOST).contains(&size) {
        let init = name.to_ascii_uppercase();
        return Err(Error::new(Kind::InvalidArgument, format!("{name}.struct_size is {size}"))
            .hint(format!("initialise the struct with {init}_INIT")));
    }
    for offset in size_of::<T>()..size {
        // SAFETY: within the caller's struct.
        if unsafe { at.cast::<u8>().add(offset).read() } != 0 {
            return Err(Error::new(
                Kind::InvalidArgument,
                format!("{name} has a member that this version does not know"),
            )
            .hint("the program was built for a later version of the library"));
        }
    }
    Ok(size)
}

/// A caller's text.
///
/// # Safety
/// `text` is NULL or a terminated string, which stays while the result is in use.
pub unsafe fn text<'a>(text: *const c_char, what: &str) -> Result<&'a str> {
    if text.is_null() {
        return Err(Error::new(Kind::InvalidArgument, format!("the {what} is NULL")));
    }
    // SAFETY: see above.
    unsafe { CStr::from_ptr(text) }
        .to_str()
        .map_err(|_| Error::new(Kind::InvalidArgument, format!("the {what} is not UTF-8 text")))
}

/// Text for the caller. What it must not contain is left out.
pub fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "")).unwrap_or_default()
}

/// Milliseconds as the calls take them: 0 tries once, -1 waits without end.
pub fn timeout(timeout_ms: i32) -> Result<Option<Duration>> {
    match timeout_ms {
        -1 => Ok(None),
        0.. => Ok(Some(Duration::from_millis(timeout_ms as u64))),
        _ => Err(Error::new(Kind::InvalidArgument, format!("timeout_ms is {timeout_ms}"))
            .hint("give milliseconds, 0 to try once, or -1 to wait without end")),
    }
}

/// A place for an output.
///
/// # Safety
/// `out` is NULL or writable.
pub unsafe fn place<'a, T>(out: *mut T) -> Result<&'a mut std::mem::MaybeUninit<T>> {
    // SAFETY: MaybeUninit asks nothing of what is there now.
    unsafe { out.cast::<std::mem::MaybeUninit<T>>().as_mut() }
        .ok_or_else(|| Error::new(Kind::InvalidArgument, "out is NULL: there is no place for the result"))
}

/// A place for a new handle, which is NULL until there is one.
///
/// # Safety
/// `out` is NULL or writable.
pub unsafe fn handle_place<'a, H>(out: *mut *mut H) -> Result<&'a mut *mut H> {
    // SAFETY: as above.
    Ok(unsafe { place(out) }?.write(std::ptr::null_mut()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Two {
        struct_size: usize,
        first: u32,
        second: u32,
    }
    // SAFETY: as the trait asks.
    unsafe impl Extensible for Two {
        const NAME: &'static str = "camlease_two";
    }

    #[repr(C)]
    struct Three {
        two: Two,
        third: u64,
    }

    #[test]
    fn shorter_and_longer_structs_are_read() {
        let short = [12usize, 7 | 9 << 32];
        // SAFETY: the first says that 12 bytes are readable.
        let read_short = unsafe { read(short.as_ptr().cast::<Two>()) }.unwrap().unwrap();
        assert_eq!((read_short.first, read_short.second), (7, 0), "what its size does not cover is 0");
        let mut long = Three { two: Two { struct_size: size_of::<Three>(), first: 1, second: 2 }, third: 0 };
        // SAFETY: 24 bytes are readable.
        let read_long = unsafe { read((&raw const long).cast::<Two>()) }.unwrap().unwrap();
        assert_eq!((read_long.first, read_long.second), (1, 2));
        long.third = 1;
        // SAFETY: as above.
        let refused = unsafe { read((&raw const long).cast::<Two>()) }.unwrap_err();
        assert!(refused.message().contains("later version"), "{refused}");
        for size in [0usize, 7, 4097, usize::MAX] {
            let bad = Two { struct_size: size, first: 0, second: 0 };
            // SAFETY: a size out of range is refused before anything else is read.
            let refused = unsafe { read(&raw const bad) }.unwrap_err();
            assert!(refused.message().contains("CAMLEASE_TWO_INIT"), "{refused}");
        }
    }

    #[test]
    fn no_more_is_written_than_the_caller_knows() {
        let mut short = [12usize, usize::MAX];
        let value = Two { struct_size: 0, first: 7, second: 8 };
        // SAFETY: 12 bytes are writable.
        unsafe { write(short.as_mut_ptr().cast::<Two>(), value) }.unwrap();
        assert_eq!(short, [12, 0xffff_ffff_0000_0007]);
    }
}
