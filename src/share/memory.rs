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

    /// Copies bytes from a place of the mapping, whatever others write there meanwhile.
    pub fn read(&self, at: usize, bytes: &mut [u8]) {
        assert!(at <= self.length && bytes.len() <= self.length - at);
        // SAFETY: within the mapping; any bytes will do.
        unsafe { std::ptr::copy_nonoverlapping(self.address.as_ptr().add(at), bytes.as_mut_ptr(), bytes.len()) };
        std::hint::black_box(bytes);
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

/// Has the kernel give a part of a file its memory for good, or say that it has none: a write to a mapping of what it does
/// not have ends the process.
pub fn reserve(file: &Fd, at: usize, length: usize) -> std::io::Result<()> {
    loop {
        // SAFETY: no pointers.
        if unsafe { libc::fallocate(file.number(), 0, at as libc::off_t, length as libc::off_t) } == 0 {
            return Ok(());
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Whether a file is a driver's buffer: such a one stays as long as it is.
pub fn is_drivers(file: &Fd) -> bool {
    kind_of(file) == Some(DMA_BUF_MAGIC)
}

/// The kind of file system that a file is in.
fn kind_of(file: &Fd) -> Option<u64> {
    // SAFETY: all zeroes is a valid statfs.
    let mut about: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: room for the answer.
    let told = unsafe { libc::fstatfs(file.number(), &mut about) };
    (told == 0).then_some(about.f_type as u64)
}

/// Tells a driver that its buffer is about to be read by the processor, or was.
pub fn mark_reading(file: &Fd, begins: bool) -> std::io::Result<()> {
    let flags: u64 = DMA_BUF_SYNC_READ | if begins { 0 } else { DMA_BUF_SYNC_END };
    loop {
        // SAFETY: the request reads the flags that it is given.
        if unsafe { libc::ioctl(file.number(), DMA_BUF_IOCTL_SYNC, &raw const flags) } == 0 {
            return Ok(());
        }
        let error = std::io::Error::last_os_error();
        if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) {
            return Err(error);
        }
    }
}

// Of linux/dma-buf.h, which libc does not have.
const DMA_BUF_MAGIC: u64 = 0x444d_4142;
const DMA_BUF_SYNC_READ: u64 = 1;
const DMA_BUF_SYNC_END: u64 = 4;
/// _IOW('b', 0, struct dma_buf_sync)
const DMA_BUF_IOCTL_SYNC: libc::Ioctl = 0x4008_6200;

fn seal(file: &Fd, seals: i32) -> std::io::Result<()> {
    let all = seals | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: no pointers.
    match unsafe { libc::fcntl(file.number(), libc::F_ADD_SEALS, all) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Whether a file that somebody gave stays at least as long as it is from now on: its length is for after this. One of
/// huge pages can be sealed, too, and yet not be mapped and unmapped page by page.
pub fn is_for_good(file: &Fd) -> bool {
    // SAFETY: no pointers. What is no file in memory has no seals.
    let seals = unsafe { libc::fcntl(file.number(), libc::F_GET_SEALS) };
    seals != -1 && seals & libc::F_SEAL_SHRINK != 0 && kind_of(file) == Some(libc::TMPFS_MAGIC as u64)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_huge_pages_is_not_for_good() {
        let ordinary = file(c"ordinary", crate::policy::PAGE).unwrap();
        assert!(!is_for_good(&ordinary));
        seal(&ordinary, 0).unwrap();
        assert!(is_for_good(&ordinary));
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | libc::MFD_HUGETLB;
        // SAFETY: a C string.
        let Ok(huge) = Fd::make(|| unsafe { libc::memfd_create(c"huge".as_ptr(), flags) }) else {
            return; // a kernel without them
        };
        seal(&huge, 0).unwrap();
        assert!(!is_for_good(&huge));
    }
}
