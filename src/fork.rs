//! What a forked child must not keep: every descriptor and every driver mapping of ours is entered
//! here, and a child lets go of all of them before `fork` returns, in the child and in the parent.
//!
//! `pthread_atfork` covers `fork`. A child made past it (`_Fork`, a bare `clone`) is found out by a
//! page that the kernel wipes in every child (`MADV_WIPEONFORK`): such a child lets go at its first
//! call. `vfork` and `posix_spawn` share the parent's memory and run no handler; there `O_CLOEXEC`
//! does the work at `exec`.

use std::cell::{Cell, UnsafeCell};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError};
use std::time::Instant;

use crate::memory::Buffer;
use crate::policy;

/// Held for reading from before a descriptor is made until it is in the table, and from when it leaves
/// the table until it is closed: a fork in between would give the child a descriptor nobody knows of.
static MAKING: RwLock<()> = RwLock::new(());
static TABLE: Mutex<Table> = Mutex::new(Table { fds: Vec::new(), buffers: Vec::new() });

struct Table {
    fds: Vec<RawFd>,
    buffers: Vec<Entered>,
}

/// How many forks lie between the first process and this one, as far as this library saw.
static EPOCH: AtomicU64 = AtomicU64::new(1);

/// What reads as zeroes in a child until the child has let go.
struct Witness {
    epoch: AtomicU64,
    /// One of the child's threads lets go; the others wait for it.
    taken: AtomicBool,
}
/// Before [`watch`], and where the kernel knows no MADV_WIPEONFORK.
static UNWIPED: Witness = Witness { epoch: AtomicU64::new(1), taken: AtomicBool::new(true) };
static WITNESS: AtomicPtr<Witness> = AtomicPtr::new((&raw const UNWIPED).cast_mut());

fn witness() -> &'static Witness {
    // SAFETY: it points at UNWIPED or at a page that is never unmapped.
    unsafe { &*WITNESS.load(Ordering::Acquire) }
}

/// Which process a thing belongs to: differs between parent and child. Costs two loads.
pub fn epoch() -> u64 {
    match witness().epoch.load(Ordering::Acquire) {
        0 => unannounced_child(),
        seen => seen,
    }
}

/// Registers the handlers; called before the first descriptor is made.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: a fresh anonymous page; length and flags are constants.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        // SAFETY: the page just mapped, whole.
        if page != libc::MAP_FAILED && unsafe { libc::madvise(page, 4096, libc::MADV_WIPEONFORK) } == 0 {
            let wiped: *mut Witness = page.cast();
            // SAFETY: page-aligned, zeroed memory of ours.
            unsafe { (*wiped).epoch.store(EPOCH.load(Ordering::Relaxed), Ordering::Release) };
            WITNESS.store(wiped, Ordering::Release);
        }
        // SAFETY: the handlers are functions of this library, which removes them when it is unloaded.
        unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
    });
}

/// Runs `make`, which creates a descriptor, and enters it before any fork can copy it unseen.
pub fn enter_fd(make: impl FnOnce() -> std::io::Result<RawFd>) -> std::io::Result<RawFd> {
    watch();
    let _making: RwLockReadGuard<'_, ()> = MAKING.read().unwrap_or_else(|e| e.into_inner());
    let fd = make()?;
    table().fds.push(fd);
    Ok(fd)
}

/// Takes a descriptor out of the table and lets `close` close it while no fork can come between.
pub fn leave_fd<T>(fd: RawFd, close: impl FnOnce() -> T) -> T {
    let _making: RwLockReadGuard<'_, ()> = MAKING.read().unwrap_or_else(|e| e.into_inner());
    let mut table = table();
    if let Some(at) = table.fds.iter().position(|&known| known == fd) {
        table.fds.swap_remove(at);
    }
    drop(table);
    close()
}

/// Memory mapped from a driver. A buffer leaves the table, under its lock, before it is freed: a
/// pointer found under the lock is valid.
struct Entered(*const Buffer);
// SAFETY: only followed under TABLE's lock, see above; Buffer is Sync.
unsafe impl Send for Entered {}

impl Entered {
    fn buffer(&self) -> &Buffer {
        // SAFETY: as the struct's comment says.
        unsafe { &*self.0 }
    }
}

/// Enters memory that is mapped from a driver.
pub fn enter_buffer(buffer: &Buffer) {
    table().buffers.push(Entered(buffer));
}

/// Takes memory out of the table, and lets `detach` give it back while no fork can come between.
pub fn leave_buffer(buffer: &Buffer, detach: impl FnOnce()) {
    let mut table = table();
    detach();
    table.buffers.retain(|known| !std::ptr::eq(known.0, buffer));
}

fn table() -> MutexGuard<'static, Table> {
    TABLE.lock().unwrap_or_else(|e| e.into_inner())
}

/// What `before` leaves for the two handlers after it.
struct Fork {
    making: Option<RwLockWriteGuard<'static, ()>>,
    table: Option<MutexGuard<'static, Table>>,
    /// Read and write end: the child closes its copies when it has let go, which the parent sees.
    barrier: Option<[RawFd; 2]>,
}

struct InFork(UnsafeCell<Fork>);
// SAFETY: written and read only between `before` and the handlers after it, under the write lock of
// MAKING, by the thread that FORKS.
unsafe impl Sync for InFork {}
static IN_FORK: InFork = InFork(UnsafeCell::new(Fork { making: None, table: None, barrier: None }));

thread_local! {
    /// Whether this thread's `before` got what it wanted; without that, its handlers leave another fork's
    /// things alone. Without a destructor: one would keep the library from being unloaded.
    static FORKS: Cell<bool> = const { Cell::new(false) };
}

extern "C" fn before() {
    let deadline = Instant::now() + policy::FORK_PATIENCE;
    let Some(making) = patiently(deadline, || MAKING.try_write()) else { return };
    let Some(table) = patiently(deadline, || TABLE.try_lock()) else { return };
    let mut barrier = None;
    if !table.fds.is_empty() {
        let mut ends = [-1; 2];
        // SAFETY: room for two descriptors.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } == 0 {
            barrier = Some(ends);
        }
    }
    for buffer in table.buffers.iter().map(Entered::buffer) {
        buffer.before_fork();
    }
    // SAFETY: see InFork; this thread holds the write lock.
    unsafe { *IN_FORK.0.get() = Fork { making: Some(making), table: Some(table), barrier } };
    FORKS.set(true);
}

/// Retries for a bounded time: a thread that hangs in a driver's open must not hang fork as well.
fn patiently<G, E>(deadline: Instant, mut attempt: impl FnMut() -> Result<G, TryLockError<E>>) -> Option<G>
where
    TryLockError<E>: IntoGuard<G>,
{
    loop {
        match attempt() {
            Ok(guard) => return Some(guard),
            Err(error) => {
                if let Some(guard) = error.into_guard() {
                    return Some(guard);
                }
            }
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(policy::TIGHT_STEP);
    }
}

/// A poisoned lock is as good as another here: the table is valid after every single step.
trait IntoGuard<G> {
    fn into_guard(self) -> Option<G>;
}
impl<G> IntoGuard<G> for TryLockError<G> {
    fn into_guard(self) -> Option<G> {
        match self {
            TryLockError::Poisoned(poisoned) => Some(poisoned.into_inner()),
            TryLockError::WouldBlock => None,
        }
    }
}

extern "C" fn after_in_parent() {
    if !FORKS.replace(false) {
        return;
    }
    // SAFETY: see InFork; the same thread as `before`.
    let fork = unsafe { &mut *IN_FORK.0.get() };
    let barrier = fork.barrier.take();
    if let Some(table) = fork.table.take() {
        for buffer in table.buffers.iter().map(Entered::buffer) {
            buffer.after_fork_in_parent();
        }
    }
    if let Some([read, write]) = barrier {
        // SAFETY: our own descriptors, made in `before`; poll gets one valid entry.
        unsafe {
            libc::close(write);
            let mut end = libc::pollfd { fd: read, events: 0, revents: 0 };
            libc::poll(&mut end, 1, policy::FORK_PATIENCE.as_millis() as i32);
            libc::close(read);
        }
    }
    // Out of its place before the lock opens: the next fork's `before` writes there.
    let making = fork.making.take();
    drop(making);
}

extern "C" fn after_in_child() {
    if !FORKS.replace(false) {
        return; // found out at the first call, as a child that ran no handler
    }
    // SAFETY: see InFork; the child has this one thread.
    let fork = unsafe { &mut *IN_FORK.0.get() };
    if let Some(mut table) = fork.table.take() {
        let_go(&mut table);
    }
    if let Some([read, write]) = fork.barrier.take() {
        // SAFETY: this process's copies of our own descriptors.
        unsafe {
            libc::close(read);
            libc::close(write);
        }
    }
    // Out of its place before the lock opens: the next fork's `before` writes there.
    let making = fork.making.take();
    drop(making);
}

/// A child that ran no handler: some lock may have been held by another thread of its parent, so the
/// table is read only if it can be had at once. Nothing is the child's own until this has returned.
#[cold]
fn unannounced_child() -> u64 {
    let witness = witness();
    if !witness.taken.swap(true, Ordering::AcqRel) {
        match TABLE.try_lock().map_or_else(IntoGuard::into_guard, Some) {
            Some(mut table) => let_go(&mut table),
            None => next_epoch(),
        }
    }
    // Bounded, as a signal handler may have come upon the thread that lets go. Nothing is of epoch 0.
    let deadline = Instant::now() + policy::FORK_PATIENCE;
    while witness.epoch.load(Ordering::Acquire) == 0 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    witness.epoch.load(Ordering::Acquire)
}

/// Closes and unmaps all that came from the parent. Frames that were out stay readable.
fn let_go(table: &mut Table) {
    for fd in table.fds.drain(..) {
        // SAFETY: the table names only descriptors of ours, and this process has its own copies.
        unsafe { libc::close(fd) };
    }
    for entered in table.buffers.drain(..) {
        entered.buffer().after_fork_in_child();
    }
    next_epoch();
}

fn next_epoch() {
    witness().epoch.store(EPOCH.fetch_add(1, Ordering::AcqRel) + 1, Ordering::Release);
}
