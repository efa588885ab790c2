//! Threads that a signal found inside a call of this library. They may hold a lock that the release needs, so their
//! handler returns at once, with the signal noted; it takes effect in the same thread when the release is over, and
//! before the call returns to the host.
//!
//! All that a handler runs here is async-signal-safe: atomics, `pthread_getspecific`, `gettid`, `getpid`,
//! `rt_tgsigqueueinfo`, `tgkill`.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering, compiler_fence};
use std::time::Instant;

use super::system;
use crate::{exit, policy};

/// What a thread's handler looks at. Written by the thread alone and by its own handlers.
pub struct Thread {
    depth: AtomicU32,
    /// A signal of this thread was noted.
    noted: AtomicBool,
    /// Its handlers find it.
    known: AtomicBool,
}

thread_local! {
    static THREAD: Thread =
        const { Thread { depth: AtomicU32::new(0), noted: AtomicBool::new(false), known: AtomicBool::new(false) } };
}

/// The thread-specific key under which handlers find their [`Thread`]: the key's number plus one, 0 for none.
///
/// A handler must not touch a thread-local of the library: the first touch in a thread allocates.
static KEY: AtomicU32 = AtomicU32::new(0);

/// While this lives, the thread is inside a call.
pub struct Inside(*const Thread, PhantomData<*const ()>);

/// Begins a call that takes locks or waits. Nested ones cost as little as the first: the frame's way leads through here.
#[inline]
pub fn inside() -> Inside {
    THREAD.with(|thread| {
        if !thread.known.load(Ordering::Relaxed) {
            introduce(thread);
        }
        thread.depth.store(thread.depth.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        // A handler runs between any two instructions of this thread: the compiler is to leave their order.
        compiler_fence(Ordering::SeqCst);
        Inside(thread, PhantomData)
    })
}

impl Drop for Inside {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: this thread's own, which ends after this does.
        let thread = unsafe { &*self.0 };
        compiler_fence(Ordering::SeqCst);
        let depth = thread.depth.load(Ordering::Relaxed) - 1;
        thread.depth.store(depth, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        // A signal that comes from here on finds the thread outside.
        if depth == 0 && (thread.noted.load(Ordering::Relaxed) || super::is_releasing()) {
            settle(thread);
        }
    }
}

/// While this lives, the thread runs a function of the host's in the middle of a call that holds no lock: a signal has
/// its effect there, as anywhere in the host.
pub struct Outside(*const Thread, u32, PhantomData<*const ()>);

pub fn outside() -> Outside {
    THREAD.with(|thread| Outside(thread, thread.depth.swap(0, Ordering::Relaxed), PhantomData))
}

impl Drop for Outside {
    fn drop(&mut self) {
        // SAFETY: this thread's own, which ends after this does.
        unsafe { (*self.0).depth.store(self.1, Ordering::Relaxed) };
    }
}

#[cold]
fn introduce(thread: &Thread) {
    let Some(key) = key() else { return };
    // SAFETY: a key of ours. The value is a thread-local: it ends with its thread, or after the key.
    let told = unsafe { libc::pthread_setspecific(key, (&raw const *thread).cast()) };
    thread.known.store(told == 0, Ordering::Relaxed);
}

/// The key, made at the first call; `None` when the process has none left.
pub fn key() -> Option<libc::pthread_key_t> {
    exit::watch(); // which takes it away
    let known = KEY.load(Ordering::Acquire);
    if known != 0 {
        return Some(known - 1);
    }
    let mut key = 0;
    // SAFETY: room for a key. No destructor: one would be left behind by an unload.
    if unsafe { libc::pthread_key_create(&mut key, None) } != 0 {
        return None;
    }
    match KEY.compare_exchange(0, key + 1, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(key),
        Err(other) => {
            // SAFETY: just made, and used by nobody.
            unsafe { libc::pthread_key_delete(key) };
            Some(other - 1)
        }
    }
}

/// Takes the key away: the library is about to be.
pub fn end() {
    let key = KEY.swap(0, Ordering::AcqRel);
    if key != 0 {
        // SAFETY: a key of ours, deleted once.
        unsafe { libc::pthread_key_delete(key - 1) };
    }
}

/// The calling thread, if it ever was in a call. For handlers.
pub fn this_thread<'a>() -> Option<&'a Thread> {
    let key = KEY.load(Ordering::Acquire).checked_sub(1)?;
    // SAFETY: a key of ours; its value is NULL or this thread's own, which lives as long as the handler.
    unsafe { libc::pthread_getspecific(key).cast::<Thread>().as_ref() }
}

impl Thread {
    pub fn is_inside(&self) -> bool {
        self.depth.load(Ordering::Relaxed) > 0
    }

    /// The end of its call is to look after the notes.
    pub fn has_note(&self) {
        self.noted.store(true, Ordering::Relaxed);
    }
}

/// A signal that waits for its effect.
struct Note {
    state: AtomicU32,
    thread: AtomicI32,
    signal: AtomicI32,
    /// The release that it began.
    ticket: AtomicU32,
    info: UnsafeCell<MaybeUninit<libc::siginfo_t>>,
}

// SAFETY: `info` is written by who made the note WRITING, and read by who made it TAKEN.
unsafe impl Sync for Note {}

// The life of a note.
const FREE: u32 = 0;
const WRITING: u32 = 1;
const NOTED: u32 = 2;
/// Somebody is about to send the signal once more.
const TAKEN: u32 = 3;
/// It is under way to its thread, where it is to have its effect, and to begin nothing.
const SENT: u32 = 4;

/// As many threads can be inside calls when a signal finds each of them; for one more, the signal has its effect at once.
static NOTES: [Note; 64] = [const {
    Note {
        state: AtomicU32::new(FREE),
        thread: AtomicI32::new(0),
        signal: AtomicI32::new(0),
        ticket: AtomicU32::new(0),
        info: UnsafeCell::new(MaybeUninit::uninit()),
    }
}; 64];

impl Note {
    fn step(&self, from: u32, to: u32) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    fn is(&self, state: u32, thread: i32) -> bool {
        self.state.load(Ordering::Acquire) == state && self.thread.load(Ordering::Relaxed) == thread
    }
}

/// Notes a signal of the calling thread; false when there is no room. For handlers.
pub fn note(thread: i32, info: &libc::siginfo_t, ticket: u32) -> bool {
    let Some(note) = NOTES.iter().find(|note| note.step(FREE, WRITING)) else { return false };
    note.thread.store(thread, Ordering::Relaxed);
    note.signal.store(info.si_signo, Ordering::Relaxed);
    note.ticket.store(ticket, Ordering::Relaxed);
    // SAFETY: nobody else touches it while it is being written.
    unsafe { (*note.info.get()).write(*info) };
    note.state.store(NOTED, Ordering::Release);
    true
}

/// What came with a noted signal, if this is one that arrives. For handlers.
pub fn arrived(thread: i32, signal: i32) -> Option<libc::siginfo_t> {
    let is_it = |note: &&Note| note.is(SENT, thread) && note.signal.load(Ordering::Relaxed) == signal;
    let note = NOTES.iter().find(is_it)?;
    // SAFETY: written when it was noted, and by nobody until it is free again, which only this thread makes it.
    let info = unsafe { (*note.info.get()).assume_init() };
    note.step(SENT, FREE).then_some(info)
}

/// Sends every noted signal to its thread.
pub fn send_all() {
    NOTES.iter().filter(|note| note.step(NOTED, TAKEN)).for_each(send);
}

/// No note is left: those of a parent's threads, in a child.
pub fn forget_all() {
    NOTES.iter().for_each(|note| note.state.store(FREE, Ordering::Release));
}

/// Signals that were noted are under way no more: what is installed does not know of them.
pub fn forget_sent(signal: i32) {
    for note in NOTES.iter().filter(|note| note.signal.load(Ordering::Relaxed) == signal) {
        note.step(SENT, FREE);
    }
}

/// The outermost call of a thread ends: what was noted in it has its effect now, and what came to another thread first.
#[cold]
fn settle(thread: &Thread) {
    thread.noted.store(false, Ordering::Relaxed);
    let own = system::this_thread();
    for note in &NOTES {
        if note.is(NOTED, own) && note.step(NOTED, TAKEN) {
            super::await_release(note.ticket.load(Ordering::Relaxed));
            send(note);
        }
    }
    // Where the releasing thread took it, it is about to arrive; unless this thread blocks it by now.
    let patience = Instant::now() + policy::LEAVE_GRACE;
    let under_way = |note: &Note| note.is(TAKEN, own) || note.is(SENT, own);
    while NOTES.iter().any(under_way) && Instant::now() < patience {
        std::thread::sleep(policy::TIGHT_STEP);
    }
    super::await_effect();
}

/// Sends a noted signal to its thread once more, as it was.
fn send(note: &Note) {
    let (thread, signal) = (note.thread.load(Ordering::Relaxed), note.signal.load(Ordering::Relaxed));
    // SAFETY: written before it was NOTED, and nobody writes while it is TAKEN.
    let info = unsafe { (*note.info.get()).assume_init() };
    let state = if super::goes_on_to_default(signal) { FREE } else { SENT };
    note.state.store(state, Ordering::Release);
    if !system::queue(thread, &info) {
        // The thread has ended: any other takes it.
        note.step(SENT, FREE);
        system::raise(signal);
    }
}
