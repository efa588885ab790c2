//! What a forked child must not keep: every descriptor and every driver mapping of ours is entered
//! here, and a child lets go of all of them before `fork` returns in it, and in the parent.
//!
//! `pthread_atfork` covers `fork`. A child made past it (`_Fork`, a bare `clone`) is found out by a
//! page that the kernel wipes in every child (`MADV_WIPEONFORK`): such a child lets go at its first
//! call. `vfork` and `posix_spawn` share the parent's memory and run no handler; there `O_CLOEXEC`
//! does the work at `exec`.
//!
//! No lock is held across a fork: the child would find it locked for ever, and a handler of the host
//! that waits for a thread which waits for us would never return. The tables are consistent at every
//! instant; what is in the making when a fork comes is waited for, for a bounded time.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::memory::Buffer;
use crate::policy;
use crate::slab::{Slab, Token};

static DESCRIPTORS: Slab<RawFd> = Slab::new(10);
static BUFFERS: Slab<Arc<Buffer>> = Slab::new(11);

/// Things of ours that are between being made and being entered, or between leaving and being gone.
static IN_THE_MAKING: AtomicU32 = AtomicU32::new(0);
/// Forks that are under way.
static FORKS: AtomicU32 = AtomicU32::new(0);

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

/// Words that parent and child both see: a child writes its fork's ticket when it has let go.
static TICKETS: AtomicPtr<AtomicU32> = AtomicPtr::new(std::ptr::null_mut());
const TICKETS_MOST: u32 = (policy::PAGE / size_of::<AtomicU32>()) as u32;
static NEXT_TICKET: AtomicU32 = AtomicU32::new(1);

thread_local! {
    /// The ticket of the fork that this thread is in; 0 for none.
    static TICKET: Cell<u32> = const { Cell::new(0) };
}

/// Which process a thing belongs to: differs between parent and child. Costs two loads.
pub fn epoch() -> u64 {
    match witness().epoch.load(Ordering::Acquire) {
        0 => unannounced_child(),
        seen => seen,
    }
}

fn witness() -> &'static Witness {
    // SAFETY: it points at UNWIPED or at a page that is never unmapped.
    unsafe { &*WITNESS.load(Ordering::Acquire) }
}

/// Handlers registered first run last before a fork, and so meet no handler of the host that waits.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_LOAD: extern "C" fn() = watch;

/// Registers the handlers, once.
pub extern "C" fn watch() {
    static WATCHES: AtomicBool = AtomicBool::new(false);
    if WATCHES.swap(true, Ordering::SeqCst) {
        return;
    }
    if let Some(page) = page(libc::MAP_PRIVATE) {
        // SAFETY: the page just mapped, whole.
        if unsafe { libc::madvise(page.cast(), policy::PAGE, libc::MADV_WIPEONFORK) } == 0 {
            let wiped: *mut Witness = page.cast();
            // SAFETY: page-aligned, zeroed memory of ours.
            unsafe { (*wiped).epoch.store(EPOCH.load(Ordering::Relaxed), Ordering::Release) };
            WITNESS.store(wiped, Ordering::Release);
        }
    }
    TICKETS.store(page(libc::MAP_SHARED).unwrap_or(std::ptr::null_mut()).cast(), Ordering::Release);
    // SAFETY: the handlers are functions of this library; libc removes them when it is unloaded.
    unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
}

/// A zeroed page that is never unmapped.
fn page(sharing: i32) -> Option<*mut u8> {
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, sharing | libc::MAP_ANONYMOUS);
    // SAFETY: a fresh anonymous page; all arguments are constants.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), policy::PAGE, prot, flags, -1, 0) };
    (page != libc::MAP_FAILED).then_some(page.cast())
}

/// While this lives, a fork waits: something is not in the tables that a child would have to let go of.
struct Making;

impl Making {
    fn begin() -> Making {
        let deadline = Instant::now() + policy::FORK_PATIENCE;
        loop {
            IN_THE_MAKING.fetch_add(1, Ordering::SeqCst);
            // A fork that waits for this very thread, in a handler of the host's, must not wait for ever.
            if FORKS.load(Ordering::SeqCst) == 0 || Instant::now() >= deadline {
                return Making;
            }
            IN_THE_MAKING.fetch_sub(1, Ordering::SeqCst);
            std::thread::sleep(policy::TIGHT_STEP);
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        IN_THE_MAKING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Runs `make`, which creates a descriptor, and enters it before any fork can copy it unseen.
pub fn enter_fd(make: impl FnOnce() -> std::io::Result<RawFd>) -> std::io::Result<(RawFd, Token)> {
    watch(); // a static library's constructors may have been left out by the linker
    let _making = Making::begin();
    let fd = make()?;
    Ok((fd, enter(fd)?))
}

/// Enters a descriptor that was made just now, in what no fork may come between.
pub fn enter(fd: RawFd) -> std::io::Result<Token> {
    DESCRIPTORS.insert(fd).map_err(|fd| {
        // SAFETY: just made, and known to nobody.
        unsafe { libc::close(fd) };
        std::io::Error::from_raw_os_error(libc::EMFILE)
    })
}

/// Takes a descriptor out of the table and lets `close` close it while no fork can come between.
pub fn leave_fd<T>(entered: Token, close: impl FnOnce() -> T) -> T {
    let _making = Making::begin();
    drop(DESCRIPTORS.remove(entered));
    close()
}

/// Runs what no fork may come between.
pub fn undisturbed<T>(work: impl FnOnce() -> T) -> T {
    watch();
    let _making = Making::begin();
    work()
}

/// Runs `map`, which maps memory from a driver, and enters it before any fork can copy it unseen.
pub fn enter_buffer(map: impl FnOnce() -> std::io::Result<Arc<Buffer>>) -> std::io::Result<(Arc<Buffer>, Token)> {
    let _making = Making::begin();
    let buffer = map()?;
    match BUFFERS.insert(buffer.clone()) {
        Ok(token) => Ok((buffer, token)),
        Err(_) => {
            buffer.give_up();
            Err(std::io::Error::from_raw_os_error(libc::ENOMEM))
        }
    }
}

/// Takes a driver's memory out of the table and gives it up while no fork can come between.
pub fn leave_buffer(entered: Token) {
    let _making = Making::begin();
    if let Some(buffer) = BUFFERS.remove(entered) {
        buffer.give_up();
    }
}

extern "C" fn before() {
    FORKS.fetch_add(1, Ordering::SeqCst);
    let deadline = Instant::now() + policy::FORK_PATIENCE;
    // A thread that hangs in a driver's open or close must not hang fork as well: then the child keeps that one
    // descriptor until it execs or exits.
    while IN_THE_MAKING.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
        std::thread::sleep(policy::TIGHT_STEP);
    }
    BUFFERS.each().for_each(|(_, buffer)| buffer.inherit(true));
    let mut ticket = 0;
    if DESCRIPTORS.each().next().is_some() {
        while ticket == 0 {
            ticket = NEXT_TICKET.fetch_add(1, Ordering::Relaxed);
        }
    }
    TICKET.set(ticket);
}

extern "C" fn after_in_parent() {
    BUFFERS.each().for_each(|(_, buffer)| buffer.inherit(false));
    FORKS.fetch_sub(1, Ordering::SeqCst);
    let ticket = TICKET.replace(0);
    if let Some(word) = ticket_word(ticket) {
        await_child(word, ticket);
    }
}

/// Waits until the child has let go. A child that was killed before holds nothing, and is waited for in vain.
fn await_child(word: &AtomicU32, ticket: u32) {
    let deadline = Instant::now() + policy::FORK_PATIENCE;
    loop {
        let seen = word.load(Ordering::Acquire);
        let left = deadline.saturating_duration_since(Instant::now());
        if seen == ticket || left == Duration::ZERO {
            return;
        }
        let time = libc::timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        // SAFETY: a word that lives for ever and a valid time. Whatever ends the wait, the loop looks again.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, seen, &time) };
    }
}

fn ticket_word(ticket: u32) -> Option<&'static AtomicU32> {
    let words = TICKETS.load(Ordering::Acquire);
    if ticket == 0 || words.is_null() {
        return None;
    }
    // SAFETY: a page of such words, never unmapped.
    Some(unsafe { &*words.add((ticket % TICKETS_MOST) as usize) })
}

extern "C" fn after_in_child() {
    let_go(true);
    let ticket = TICKET.replace(0);
    if let Some(word) = ticket_word(ticket) {
        word.store(ticket, Ordering::Release);
        // SAFETY: a word that lives for ever.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
    }
}

/// A child that ran no handler: it inherited descriptors, but no mapping. Nothing is its own until this returns, in
/// any of its threads.
#[cold]
fn unannounced_child() -> u64 {
    let witness = witness();
    if !witness.taken.swap(true, Ordering::AcqRel) {
        let_go(false);
    }
    // Bounded, as a signal handler may have come upon the thread that lets go. Nothing is of epoch 0.
    let deadline = Instant::now() + policy::FORK_PATIENCE;
    while witness.epoch.load(Ordering::Acquire) == 0 && Instant::now() < deadline {
        std::thread::yield_now();
    }
    witness.epoch.load(Ordering::Acquire)
}

/// Closes and unmaps all that came from the parent. Frames that were out stay readable where they were inherited.
/// The child has one thread, and other threads' doings stand still for ever in its memory.
fn let_go(buffers_inherited: bool) {
    for (_, fd) in DESCRIPTORS.each() {
        // SAFETY: the table names only descriptors of ours, and this process has its own copies.
        unsafe { libc::close(*fd) };
    }
    for (_, buffer) in BUFFERS.each() {
        buffer.let_go_in_child(buffers_inherited);
    }
    DESCRIPTORS.each().for_each(|(token, _)| drop(DESCRIPTORS.remove(token)));
    // The parent's camera lives on in the child's memory, and with it the frames that the child may read.
    BUFFERS.each().for_each(|(token, buffer)| {
        std::mem::forget(Arc::clone(&buffer));
        drop(BUFFERS.remove(token));
    });
    IN_THE_MAKING.store(0, Ordering::SeqCst);
    FORKS.store(0, Ordering::SeqCst);
    let next = EPOCH.fetch_add(1, Ordering::AcqRel) + 1;
    witness().epoch.store(next, Ordering::Release);
}
