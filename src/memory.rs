//! The memory of one frame: mapped from a driver, or our own. It can be made private in place, so
//! that a frame stays readable at its address while the device goes to the next user.

use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::fork;

/// Most memory planes that a frame has in the C interface.
pub const PLANES_MOST: usize = 4;

/// The bytes of one frame, one mapping for each plane.
pub struct Buffer {
    planes: Vec<Plane>,
    use_: AtomicU8,
    /// Set between the handlers around a fork: the child inherits this buffer.
    inherited: AtomicBool,
    epoch: u64,
}

struct Plane {
    address: NonNull<u8>,
    length: usize,
    backing: AtomicU8,
}

// Who may touch the bytes.
const IDLE: u8 = 0;
const FILLING: u8 = 1;
const HANDED_OUT: u8 = 2;

// What is mapped at a plane's address.
const DRIVER: u8 = 0;
const PRIVATE: u8 = 1;
const NOTHING: u8 = 2;

// SAFETY: the addresses are mappings that this struct owns; their bytes are written only through
// `fill`, which excludes itself and a handed-out frame, or by the kernel.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Maps a driver's buffer, read-only, one `(offset, length)` for each plane.
    pub fn map(fd: RawFd, planes: &[(i64, usize)]) -> std::io::Result<Arc<Buffer>> {
        let mut mapped = Buffer::empty(planes.len());
        for &(offset, length) in planes {
            // SAFETY: a new mapping at an address of the kernel's choice.
            let plane = unsafe { map(length, libc::PROT_READ, libc::MAP_SHARED, fd, offset) }?;
            mapped.planes.push(Plane { address: plane, length, backing: AtomicU8::new(DRIVER) });
            // A child must not keep the device busy through a copy of this mapping.
            // SAFETY: the mapping just made, whole.
            if unsafe { libc::madvise(plane.as_ptr().cast(), length, libc::MADV_DONTFORK) } != 0 {
                return Err(std::io::Error::last_os_error());
            }
        }
        let buffer = Arc::new(mapped);
        fork::enter_buffer(&buffer);
        Ok(buffer)
    }

    /// Memory of our own, zeroed, in one plane. A child gets its copy by fork itself.
    pub fn anonymous(length: usize) -> std::io::Result<Arc<Buffer>> {
        let mut own = Buffer::empty(1);
        let plane = anonymous(length)?;
        own.planes.push(Plane { address: plane, length, backing: AtomicU8::new(PRIVATE) });
        Ok(Arc::new(own))
    }

    fn empty(planes: usize) -> Buffer {
        Buffer {
            planes: Vec::with_capacity(planes),
            use_: AtomicU8::new(IDLE),
            inherited: AtomicBool::new(false),
            epoch: fork::epoch(),
        }
    }

    pub fn planes(&self) -> usize {
        self.planes.len()
    }

    /// Where a plane's bytes are. They may be read while the frame is handed out.
    pub fn plane(&self, index: usize) -> (*const u8, usize) {
        let plane = &self.planes[index];
        (plane.address.as_ptr(), plane.length)
    }

    /// Lets `write` fill memory of our own; false when a frame of it is with the host, or it is a driver's.
    pub fn fill(&self, write: impl FnOnce(&mut [u8])) -> bool {
        let plane = &self.planes[0];
        if plane.backing.load(Ordering::Acquire) != PRIVATE
            || self.use_.compare_exchange(IDLE, FILLING, Ordering::Acquire, Ordering::Relaxed).is_err()
        {
            return false;
        }
        // SAFETY: private memory that is mapped for as long as self lives; FILLING excludes every other user.
        write(unsafe { std::slice::from_raw_parts_mut(plane.address.as_ptr(), plane.length) });
        self.use_.store(IDLE, Ordering::Release);
        true
    }

    /// The frame goes to the host: its bytes must stay readable until [`Buffer::take_back`].
    pub fn hand_out(&self) {
        self.use_.store(HANDED_OUT, Ordering::Release);
    }

    pub fn take_back(&self) {
        self.use_.store(IDLE, Ordering::Release);
    }

    pub fn is_handed_out(&self) -> bool {
        self.use_.load(Ordering::Acquire) == HANDED_OUT
    }

    /// Gives a driver's memory back to it: a frame with the host becomes a private copy at the same
    /// address, anything else is unmapped.
    pub fn detach(&self) {
        fork::leave_buffer(self, || {
            let keep = self.is_handed_out();
            for plane in self.driver_planes() {
                if keep { plane.make_private() } else { plane.unmap() }
            }
        });
    }

    /// In the parent, before fork: a frame with the host is to be readable in the child as well.
    pub(crate) fn before_fork(&self) {
        if self.is_handed_out() {
            self.advise(libc::MADV_DOFORK);
            self.inherited.store(true, Ordering::Release);
        }
    }

    pub(crate) fn after_fork_in_parent(&self) {
        if self.inherited.swap(false, Ordering::AcqRel) {
            self.advise(libc::MADV_DONTFORK);
        }
    }

    /// In the child: a frame that was with the host becomes a private copy, the rest was not inherited.
    pub(crate) fn after_fork_in_child(&self) {
        let inherited = self.inherited.swap(false, Ordering::AcqRel);
        for plane in self.driver_planes() {
            if inherited {
                plane.make_private();
            } else {
                plane.backing.store(NOTHING, Ordering::Release);
            }
        }
    }

    fn driver_planes(&self) -> impl Iterator<Item = &Plane> {
        self.planes.iter().filter(|plane| plane.backing.load(Ordering::Acquire) == DRIVER)
    }

    fn advise(&self, advice: i32) {
        for plane in self.driver_planes() {
            // SAFETY: a mapping of ours, whole. Failing leaves the child without these bytes, no worse.
            unsafe { libc::madvise(plane.address.as_ptr().cast(), plane.length, advice) };
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.epoch != fork::epoch() {
            return; // a child's image of its parent's memory
        }
        let unmap = || self.planes.iter().for_each(Plane::unmap);
        // Memory of our own was never entered, and must not wait for the table's lock on the frame path.
        if self.driver_planes().next().is_some() { fork::leave_buffer(self, unmap) } else { unmap() }
    }
}

impl Plane {
    /// Replaces the driver's memory by a copy at the same address, in one step as seen by other threads.
    /// Async-signal-safe: also runs in a forked child.
    fn make_private(&self) {
        let at = self.address.as_ptr().cast::<libc::c_void>();
        // SAFETY: source and destination are whole mappings of this length; mremap moves our new one
        // over our old one, which drops the driver's reference.
        let moved = unsafe {
            anonymous(self.length).is_ok_and(|copy| {
                std::ptr::copy_nonoverlapping(self.address.as_ptr(), copy.as_ptr(), self.length);
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                let moved = libc::mremap(copy.as_ptr().cast(), self.length, self.length, flags, at) != libc::MAP_FAILED;
                if !moved {
                    libc::munmap(copy.as_ptr().cast(), self.length);
                }
                moved
            })
        };
        if !moved {
            // No memory for a copy. The device must become free all the same, and the host must not
            // crash on its pointer: the bytes read as zero from now on.
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
            // SAFETY: over our own mapping, same length.
            unsafe { libc::mmap(at, self.length, libc::PROT_READ, flags, -1, 0) };
        }
        self.backing.store(PRIVATE, Ordering::Release);
    }

    fn unmap(&self) {
        if self.backing.swap(NOTHING, Ordering::AcqRel) != NOTHING {
            // SAFETY: our own mapping, whole, and the swap makes this happen once.
            unsafe { libc::munmap(self.address.as_ptr().cast(), self.length) };
        }
    }
}

fn anonymous(length: usize) -> std::io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice.
    unsafe { map(length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) }
}

/// SAFETY: `flags` must not hold MAP_FIXED.
unsafe fn map(length: usize, prot: i32, flags: i32, fd: RawFd, offset: i64) -> std::io::Result<NonNull<u8>> {
    // SAFETY: without MAP_FIXED a new mapping disturbs nothing.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), length, prot, flags, fd, offset) };
    if at == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    NonNull::new(at.cast()).ok_or_else(|| std::io::Error::from_raw_os_error(libc::ENOMEM))
}
