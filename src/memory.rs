//! The memory of one frame: mapped from a driver, or our own. It can be made private in place, so
//! that a frame stays readable at its address while the device goes to the next user.

use std::os::fd::RawFd;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::fork;

/// Most memory planes that a frame has in the C interface.
pub const PLANES_MOST: usize = 4;

/// The bytes of one frame, one mapping for each plane.
pub struct Buffer {
    planes: Vec<Plane>,
    use_: AtomicU8,
    /// Kept while planes change hands, and while a fork handler gives advice on them: forks that are under way.
    changing: Mutex<u32>,
    /// Its place in the table of what a child must let go of; 0 for none.
    entered: AtomicU64,
    epoch: u64,
}

struct Plane {
    address: NonNull<u8>,
    length: usize,
    backing: AtomicU8,
    /// During a fork, for a child that cannot inherit the driver's memory: its bytes, or NULL.
    copy: AtomicPtr<u8>,
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
    /// Maps a driver's buffer, read-only, one `(file, offset, length)` for each plane. It stays mapped until
    /// [`Buffer::detach`].
    pub fn map(planes: &[(RawFd, i64, usize)]) -> std::io::Result<Arc<Buffer>> {
        let (buffer, token) = fork::enter_buffer(|| {
            let mut mapped = Buffer::empty(planes.len());
            for &(fd, offset, length) in planes {
                // SAFETY: a new mapping at an address of the kernel's choice.
                let plane = unsafe { map(length, libc::PROT_READ, libc::MAP_SHARED, fd, offset) }?;
                mapped.planes.push(Plane::new(plane, length, DRIVER));
                // A child must not keep the device busy through a copy of this mapping.
                // SAFETY: the mapping just made, whole.
                if unsafe { libc::madvise(plane.as_ptr().cast(), length, libc::MADV_DONTFORK) } != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(Arc::new(mapped))
        })?;
        buffer.entered.store(token, Ordering::Release);
        Ok(buffer)
    }

    /// Memory of our own, zeroed, in one plane. A child gets its copy by fork itself.
    pub fn anonymous(length: usize) -> std::io::Result<Arc<Buffer>> {
        let mut own = Buffer::empty(1);
        let plane = anonymous(length)?;
        own.planes.push(Plane::new(plane, length, PRIVATE));
        Ok(Arc::new(own))
    }

    fn empty(planes: usize) -> Buffer {
        Buffer {
            planes: Vec::with_capacity(planes),
            use_: AtomicU8::new(IDLE),
            changing: Mutex::new(0),
            entered: AtomicU64::new(0),
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
    /// address, anything else is unmapped. Once; memory of our own stays.
    pub fn detach(&self) {
        let token = self.entered.swap(0, Ordering::AcqRel);
        if token != 0 && self.epoch == fork::epoch() {
            fork::leave_buffer(token);
        }
    }

    /// What [`Buffer::detach`] does when no fork can come between.
    pub(crate) fn give_up(&self) {
        let _changing = self.changing.lock().unwrap_or_else(|e| e.into_inner());
        let keep = self.is_handed_out();
        for plane in self.driver_planes() {
            if keep { plane.make_private() } else { plane.unmap() }
        }
    }

    /// In the parent, around a fork: for that moment the memory is inherited, so that the child can keep what is, or
    /// is just being, handed out.
    pub(crate) fn inherit(&self, inherit: bool) {
        let mut forks = self.changing.lock().unwrap_or_else(|e| e.into_inner());
        // Several threads may fork at once: the first makes it so, the last undoes it.
        match (inherit, *forks) {
            (true, 0) => self.driver_planes().for_each(|plane| plane.bequeath(self.is_handed_out())),
            (false, 1) => self.planes.iter().for_each(Plane::withhold),
            _ => {}
        }
        *forks = if inherit { *forks + 1 } else { forks.saturating_sub(1) };
    }

    /// In the child: a frame that is with the host becomes a private copy, the rest goes.
    pub(crate) fn let_go_in_child(&self, inherited: bool) {
        let keep = self.is_handed_out();
        for plane in self.driver_planes() {
            match (inherited, keep) {
                (true, true) => plane.keep_in_child(),
                (true, false) => plane.unmap(),
                (false, _) => plane.backing.store(NOTHING, Ordering::Release),
            }
            plane.drop_copy();
        }
    }

    fn driver_planes(&self) -> impl Iterator<Item = &Plane> {
        self.planes.iter().filter(|plane| plane.backing.load(Ordering::Acquire) == DRIVER)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Not a child's image of its parent's memory.
        if self.epoch == fork::epoch() {
            self.planes.iter().for_each(Plane::unmap);
        }
    }
}

impl Plane {
    fn new(address: NonNull<u8>, length: usize, backing: u8) -> Plane {
        Plane { address, length, backing: AtomicU8::new(backing), copy: AtomicPtr::default() }
    }

    /// Before a fork: the child is to have these bytes if they are with the host.
    fn bequeath(&self, handed_out: bool) {
        // SAFETY: a mapping of ours, whole.
        let inherited = unsafe { libc::madvise(self.address.as_ptr().cast(), self.length, libc::MADV_DOFORK) } == 0;
        // The kernel refuses it for memory of a device, which drivers with contiguous buffers map.
        if !inherited && handed_out {
            self.copy.store(self.copied().map_or(null_mut(), NonNull::as_ptr), Ordering::Release);
        }
    }

    /// After a fork, in the parent.
    fn withhold(&self) {
        if self.backing.load(Ordering::Acquire) == DRIVER {
            // SAFETY: a mapping of ours, whole.
            unsafe { libc::madvise(self.address.as_ptr().cast(), self.length, libc::MADV_DONTFORK) };
        }
        self.drop_copy();
    }

    fn drop_copy(&self) {
        let copy = self.copy.swap(null_mut(), Ordering::AcqRel);
        if !copy.is_null() {
            // SAFETY: a mapping of ours of this length, and the swap makes this happen once.
            unsafe { libc::munmap(copy.cast(), self.length) };
        }
    }

    fn keep_in_child(&self) {
        let mut resident = 0u8;
        // SAFETY: room for the one page that is asked about; ENOMEM tells that nothing is mapped there.
        let is_mapped = unsafe { libc::mincore(self.address.as_ptr().cast(), 1, &mut resident) } == 0;
        match NonNull::new(self.copy.swap(null_mut(), Ordering::AcqRel)) {
            None if is_mapped => self.make_private(),
            copy => self.replace(copy),
        }
    }

    /// Replaces the driver's memory by a copy at the same address, in one step as seen by other threads.
    /// Async-signal-safe: also runs in a forked child.
    fn make_private(&self) {
        self.replace(self.copied());
    }

    fn copied(&self) -> Option<NonNull<u8>> {
        let copy = anonymous(self.length).ok()?;
        // SAFETY: source and destination are whole mappings of this length.
        unsafe { std::ptr::copy_nonoverlapping(self.address.as_ptr(), copy.as_ptr(), self.length) };
        Some(copy)
    }

    /// Puts `copy` in the place of what is mapped.
    fn replace(&self, copy: Option<NonNull<u8>>) {
        let at = self.address.as_ptr().cast::<libc::c_void>();
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: mremap moves our new mapping over our old one of the same length, which drops the driver's
        // reference.
        let moved = copy.is_some_and(|copy| unsafe {
            let moved = libc::mremap(copy.as_ptr().cast(), self.length, self.length, flags, at) != libc::MAP_FAILED;
            if !moved {
                libc::munmap(copy.as_ptr().cast(), self.length);
            }
            moved
        });
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
