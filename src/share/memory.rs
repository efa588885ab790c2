//! Memory that two processes share: sealed files without a name, and mappings of them.

use std::ptr::NonNull;

use crate::fork;
use crate::kernel::Fd;

/// A mapping, kept from forked children.
pub struct Mapping {
    address: NonNull<u8>,
    length: usize,
    epoch: u64,
}

// SAFETY: an address range that this struct owns; what lies in it is reached through atomics and raw pointers alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `length` bytes of a file, which must be that long for as long as it lives.
    pub fn of(file: &Fd, length: usize, writable: bool) -> std::io::Result<Mapping> {
        let prot = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // A fork between the two calls would leave the child a copy.
        fork::undisturbed(|| {
            // SAFETY: a new mapping at an address of the kernel's choice.
            let at = unsafe { libc::mmap(std::ptr::null_mut(), length, prot, libc::MAP_SHARED, file.number(), 0) };
            if at == libc::MAP_FAILED {
                return Err(std::io::Error::last_os_error());
            }
            let address = NonNull::new(at.cast()).ok_or_else(|| std::io::Error::from_raw_os_error(libc::ENOMEM))?;
            let mapping = Mapping { address, length, epoch: fork::epoch() };
            // SAFETY: the mapping just made, whole.
            match unsafe { libc::madvise(at, length, libc::MADV_DONTFORK) } {
                0 => Ok(mapping),
                _ => Err(std::io::Error::last_os_error()),
            }
        })
    }

    /// A struct of atomics at the mapping's beginning.
    ///
    /// SAFETY: `T` must be made of atomics alone, for which any bytes will do.
    pub unsafe fn atomics<T>(&self) -> &T {
        assert!(size_of::<T>() <= self.length && align_of::<T>() <= crate::policy::PAGE);
        // SAFETY: within the mapping and page-aligned; others who write it do so by atomics, or spoil their own words.
        unsafe { self.address.cast::<T>().as_ref() }
    }

    /// Copies bytes to a place of a writable mapping that nobody reads now.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at <= self.length && bytes.len() <= self.length - at);
        // SAFETY: within the mapping; the ring's protocol keeps readers away.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.address.as_ptr().add(at), bytes.len()) };
    }

    /// Has the kernel give a part its memory now, and not at the first write. What it has not got is for later.
    pub fn populate(&self, at: usize, length: usize) {
        if at <= self.length && length <= self.length - at {
            // SAFETY: within the mapping.
            unsafe { libc::madvise(self.address.as_ptr().add(at).cast(), length, libc::MADV_POPULATE_WRITE) };
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // A child has nothing there, or something of its own.
        if self.epoch == fork::epoch() {
            // SAFETY: our own mapping, whole.
            unsafe { libc::munmap(self.address.as_ptr().cast(), self.length) };
        }
    }
}

/// A file in memory. Not sealed yet.
pub fn file(name: &std::ffi::CStr, length: usize) -> std::io::Result<Fd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: a C string.
    let file = Fd::make(|| unsafe { libc::memfd_create(name.as_ptr(), flags) })?;
    file.as_file().set_len(length as u64)?;
    Ok(file)
}

/// Whether a file that somebody else made is for good as long as it is: nobody can make it shorter beneath a mapping.
pub fn cannot_shrink(file: &Fd) -> bool {
    // SAFETY: no pointers.
    let seals = unsafe { libc::fcntl(file.number(), libc::F_GET_SEALS) };
    seals != -1 && seals & libc::F_SEAL_SHRINK != 0
}

fn seal(file: &Fd, seals: i32) -> std::io::Result<()> {
    let all = seals | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: no pointers.
    match unsafe { libc::fcntl(file.number(), libc::F_ADD_SEALS, all) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Zeroed memory that this process can write and all others who get the file can only read: the kernel grants no
/// further writable mapping of it.
pub fn written_here(length: usize) -> std::io::Result<(Fd, Mapping)> {
    let file = file(c"camlease-frames", length)?;
    let mapping = Mapping::of(&file, length, true)?;
    seal(&file, libc::F_SEAL_FUTURE_WRITE)?;
    Ok((file, mapping))
}

/// Zeroed memory that whoever gets the file can write, too.
pub fn written_there(length: usize) -> std::io::Result<(Fd, Mapping)> {
    let file = file(c"camlease-reader", length)?;
    let mapping = Mapping::of(&file, length, true)?;
    seal(&file, 0)?;
    Ok((file, mapping))
}
