//! Cameras are let go before a signal takes its effect, where the host asks for it.
//!
//! A handler may run between any two instructions of the host and of this library, so it can let go of nothing itself:
//! that takes locks. It wakes a thread that does, waits for it, and then leaves the signal to what was installed before:
//! the host's handler is gone on to with the kernel's arguments, in the same thread and frame; or the default action is
//! taken. What the handler's wait must not be is a deadlock, for the thread that it interrupted may have what the
//! release needs:
//! - The thread is inside a call of ours, and may have a camera's lock. The signal is noted, the thread goes on, and the
//!   signal has its effect before the call returns ([`calls`]).
//! - It is in code that has some other lock, such as the allocator's, and the release stands still. Then the thread goes
//!   on, too, and the signal is sent to it once more when the release is over. A thread that waits in the kernel is left
//!   waiting: it has no such lock, and would see its system call interrupted before its handler has run.
//!
//! The handler and what it calls are async-signal-safe. It allocates nothing, takes no lock, touches no thread-local
//! (the first touch in a thread allocates) and does not panic. Besides atomics it calls: `getpid`, `gettid`,
//! `clock_gettime`, `futex`, `sigaction`, `rt_sigprocmask`, `rt_tgsigqueueinfo`, `tgkill`, `pthread_getspecific`.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::kernel::{Thread, monotonic_ns};
use crate::{acquire, camera, exit, policy, timed};

mod calls;
mod stub;
mod system;

pub use calls::{inside, outside};
use stub::Slot;
use system::{Action, process};

/// The signals that cameras can be released on: those that end a process by default and can be handled, but not those
/// that tell of the program's own faults, after which nothing is safe any more.
const SIGNALS: [(i32, &str); 9] = [
    (libc::SIGHUP, "SIGHUP"),
    (libc::SIGINT, "SIGINT"),
    (libc::SIGQUIT, "SIGQUIT"),
    (libc::SIGTERM, "SIGTERM"),
    (libc::SIGPIPE, "SIGPIPE"),
    (libc::SIGALRM, "SIGALRM"),
    (libc::SIGUSR1, "SIGUSR1"),
    (libc::SIGUSR2, "SIGUSR2"),
    (libc::SIGXCPU, "SIGXCPU"),
];

/// A signal's name, as "SIGTERM".
pub fn name(signal: i32) -> &'static str {
    SIGNALS.iter().find(|known| known.0 == signal).map_or("a signal", |known| known.1)
}

/// From now on the cameras of this process are released when one of these signals arrives, and what the signal would
/// have done without us is done after. An empty list ends that. A signal that is ignored stays so.
///
/// SIGHUP, SIGINT, SIGQUIT and SIGTERM ask a program to end; SIGPIPE, SIGALRM, SIGUSR1, SIGUSR2 and SIGXCPU end one that
/// does not handle them. Others are refused.
pub fn release_on_signals(signals: &[i32]) -> Result<()> {
    if let Some(other) = signals.iter().find(|signal| !SIGNALS.iter().any(|known| known.0 == **signal)) {
        let names = SIGNALS.map(|known| known.1).join(", ");
        return Err(Error::new(Kind::InvalidArgument, format!("cameras cannot be released on signal {other}"))
            .hint(format!("choose among {names}")));
    }
    let _inside = inside();
    exit::watch();
    let mut releaser = lock()?;
    if !signals.is_empty() {
        if acquire::is_shut_down() {
            return Err(Error::new(Kind::ShutDown, "the library was shut down; there is nothing to release any more"));
        }
        begin_anew_in_child(&mut releaser);
        calls::key().ok_or_else(|| Error::new(Kind::Io, "this process has no thread-specific keys left"))?;
        if releaser.is_none() {
            STATE.store(0, Ordering::SeqCst);
            let thread = Thread::start(c"camlease-signal", release_when_told);
            *releaser = Some(thread.map_err(|e| Error::system("starting the thread that releases on signals", e))?);
        }
        OWNER.store(process(), Ordering::SeqCst);
    }
    for (signal, _) in SIGNALS {
        match signals.contains(&signal) {
            true => install(signal).map_err(|e| Error::system(format!("handling {}", name(signal)), e))?,
            false => put_back(signal),
        }
    }
    Ok(())
}

/// The releasing thread, while there is one.
static RELEASER: Mutex<Option<Thread>> = Mutex::new(None);
/// The process that asked for it: a child has inherited handlers and no thread.
static OWNER: AtomicI32 = AtomicI32::new(0);

fn lock() -> Result<std::sync::MutexGuard<'static, Option<Thread>>> {
    // Bounded: in a forked child it may be held by a thread that is not there.
    let deadline = Some(Instant::now() + policy::SIGNALS_PATIENCE);
    timed::lock_by(&RELEASER, deadline)
        .ok_or_else(|| Error::new(Kind::WrongState, "another thread sets the signals and does not return"))
}

fn begin_anew_in_child(releaser: &mut Option<Thread>) {
    let owner = OWNER.load(Ordering::SeqCst);
    if owner != 0 && owner != process() {
        *releaser = None; // the parent's
        calls::forget_all();
        STATE.store(0, Ordering::SeqCst);
        AWAITED.store(false, Ordering::SeqCst);
    }
}

// Installing.

/// Slots by their signals.
type Table = [AtomicPtr<Slot>; 32];
/// Through which slot a signal is ours now.
static INSTALLED: Table = [const { AtomicPtr::new(std::ptr::null_mut()) }; 32];
/// The slot that was taken last.
static LAST: Table = [const { AtomicPtr::new(std::ptr::null_mut()) }; 32];

fn slot_of(table: &'static Table, signal: i32) -> Option<&'static Slot> {
    // SAFETY: slots are never unmapped.
    table.get(signal as usize).and_then(|slot| unsafe { slot.load(Ordering::SeqCst).as_ref() })
}

fn set_slot(table: &'static Table, signal: i32, slot: Option<&'static Slot>) {
    let slot = slot.map_or(std::ptr::null_mut(), |slot| (&raw const *slot).cast_mut());
    table[signal as usize].store(slot, Ordering::SeqCst);
}

fn address(slot: &'static Slot) -> usize {
    stub::address(slot).unwrap_or(in_library as *const () as usize)
}

fn is_installed(slot: &'static Slot, signal: i32) -> bool {
    system::installed(signal).is_ok_and(|now| now.handler() == address(slot))
}

fn install(signal: i32) -> std::io::Result<()> {
    let now = system::installed(signal)?;
    if slot_of(&INSTALLED, signal).is_some_and(|slot| now.handler() == address(slot)) {
        return Ok(());
    }
    // An ignored signal has no effect that a release could come before (nohup). To the first process of a container,
    // a signal by default has none either.
    if now.handler() == libc::SIG_IGN || (now.is_default() && process() == 1) {
        set_slot(&INSTALLED, signal, None);
        return Ok(());
    }
    let last = slot_of(&LAST, signal);
    let slot = match last.filter(|slot| *slot.before() == now) {
        Some(slot) => slot,
        // Without stubs there is one address: the host's handler, which may go on to it, would be gone on to by it.
        None if last.is_some_and(|slot| stub::address(slot).is_none()) => return Ok(()),
        // Another one than before: the host's new handler may go on to that.
        None => stub::slot(decide, now)?,
    };
    if stub::address(slot).is_none() {
        system::pin_library()?;
    }
    slot.previous.store(now.handler(), Ordering::SeqCst);
    set_slot(&LAST, signal, Some(slot));
    set_slot(&INSTALLED, signal, Some(slot));
    // With the host's flags and mask: which system calls are interrupted, on which stack and with what blocked a handler
    // runs, all is as without us. SA_RESETHAND is ours to do, as the signal may have to come twice.
    let mut flags = now.flags() & !libc::SA_RESETHAND | libc::SA_SIGINFO;
    if now.is_default() {
        // The process will end: until then nothing of it is to be disturbed.
        flags |= libc::SA_RESTART | libc::SA_ONSTACK;
    }
    system::install(signal, &now.with(address(slot), flags)).map(drop)
}

/// What was installed before is installed again, where ours is what is installed.
fn put_back(signal: i32) {
    if let Some(slot) = slot_of(&INSTALLED, signal) {
        set_slot(&INSTALLED, signal, None);
        if is_installed(slot, signal)
            && let Ok(was) = system::install(signal, slot.before())
            && was.handler() != address(slot)
        {
            let _ = system::install(signal, &was); // somebody's new one, a moment ago
        }
        calls::forget_sent(signal);
    }
}

/// Takes everything away: the library's end, or the process's. After it nothing of the system's leads into the library.
pub fn end(deadline: Instant) {
    if OWNER.load(Ordering::SeqCst) == 0 {
        return calls::end(); // nobody ever asked
    }
    // A signal that comes meanwhile has its effect after, by what is installed then.
    let blocked = system::Blocked::all();
    let releaser = lock().ok().and_then(|mut releaser| releaser.take());
    SIGNALS.iter().for_each(|&(signal, _)| put_back(signal));
    let mut in_flight = stub::part();
    if let Some(releaser) = releaser {
        STATE.store(STOP, Ordering::SeqCst);
        wake();
        releaser.join_by(deadline);
    }
    // In a child, threads of the parent's count as in flight for ever.
    let until = if OWNER.load(Ordering::SeqCst) == process() { deadline } else { Instant::now() + policy::LEAVE_GRACE };
    while in_flight > 0 && Instant::now() < until {
        std::thread::sleep(policy::LEAVE_STEP);
        in_flight = stub::in_flight();
    }
    if OWNER.load(Ordering::SeqCst) == process() {
        calls::send_all();
    }
    calls::end();
    drop(blocked);
}

// The release.

/// What is being done: `[number of the release: 24 bits][its signal: 8 bits]`, the signal 0 while nothing is.
static STATE: AtomicU32 = AtomicU32::new(0);
/// In the place of a signal: the releasing thread is to end.
const STOP: u32 = 255;
const SIGNAL: u32 = 255;

/// Steps of the release; an odd number while it waits for the kernel alone.
static STEPS: AtomicU32 = AtomicU32::new(0);

/// The signal that began the release has not had its effect yet.
static AWAITED: AtomicBool = AtomicBool::new(false);

/// Whether a release is under way.
fn is_releasing() -> bool {
    !matches!(STATE.load(Ordering::SeqCst) & SIGNAL, 0 | STOP)
}

/// A call that ended because of the release, in another thread than the signal's, is not to tell the host before the
/// signal does: the host would take it for a failure, or end the process itself.
fn await_effect() {
    let patience = Instant::now() + policy::RELEASE_HOLD;
    let mut held = false;
    while (is_releasing() || AWAITED.load(Ordering::SeqCst)) && Instant::now() < patience {
        held = true;
        std::thread::sleep(policy::TIGHT_STEP);
    }
    if held {
        std::thread::sleep(policy::LEAVE_STEP); // for the handler's first steps
    }
}

/// The body of the releasing thread.
fn release_when_told() {
    let _inside = inside(); // what it calls is not held until it is over itself
    loop {
        let seen = STATE.load(Ordering::SeqCst);
        match seen & SIGNAL {
            0 => system::futex_wait(&STATE, seen, None),
            STOP => return,
            signal => {
                let in_kernel = |waits: bool| {
                    let steps = STEPS.load(Ordering::Relaxed);
                    STEPS.store((steps + 2) & !1 | u32::from(waits), Ordering::SeqCst);
                };
                in_kernel(false);
                let hanging = camera::release(signal as i32, Instant::now() + exit::timeout(), &in_kernel);
                // Fails when the end has come meanwhile.
                let _ = STATE.compare_exchange(seen, seen & !SIGNAL, Ordering::SeqCst, Ordering::SeqCst);
                wake();
                calls::send_all();
                // Last: the host's log may want what a thread has that waited for this.
                hanging.iter().for_each(|uri| {
                    log::error!("{uri}: its driver hangs; the kernel lets go of it when it returns");
                });
            }
        }
    }
}

fn wake() {
    system::futex_wake(&STATE);
}

/// Begins a release, and gives its number; `None` while one is under way.
fn begin(signal: i32) -> Option<u32> {
    let seen = STATE.load(Ordering::SeqCst);
    if seen & SIGNAL != 0 {
        return None;
    }
    let new = (seen & !SIGNAL).wrapping_add(1 << 8) | signal as u32;
    STATE.compare_exchange(seen, new, Ordering::SeqCst, Ordering::SeqCst).ok()?;
    AWAITED.store(true, Ordering::SeqCst);
    wake();
    Some(new >> 8)
}

#[derive(PartialEq)]
enum Wait {
    /// The cameras are released, or the time is up.
    Over,
    /// The release stands still.
    Stalled,
}

/// Waits until the release is over.
fn await_release(ticket: u32) {
    wait(ticket, false);
}

/// The same, unless it stands still for something that this thread may have.
fn wait(ticket: u32, may_have: bool) -> Wait {
    let until = monotonic_ns() + exit::timeout().as_nanos() as i64;
    let mut progress = (STEPS.load(Ordering::SeqCst), monotonic_ns());
    loop {
        let seen = STATE.load(Ordering::SeqCst);
        let now = monotonic_ns();
        if seen >> 8 != ticket || matches!(seen & SIGNAL, 0 | STOP) || now >= until {
            return Wait::Over;
        }
        let steps = STEPS.load(Ordering::SeqCst);
        if steps != progress.0 {
            progress = (steps, now);
        }
        let stands = steps.is_multiple_of(2) && now - progress.1 >= policy::RELEASE_STALL.as_nanos() as i64;
        if may_have && stands {
            return Wait::Stalled;
        }
        let left = Duration::from_nanos((until - now) as u64);
        system::futex_wait(&STATE, seen, Some(left.min(policy::RELEASE_STALL / 4)));
    }
}

// The handler.

/// Decides what a signal does: gives the function to go on to, or 0.
extern "C" fn decide(
    signal: i32,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
    slot: &'static Slot,
) -> usize {
    let errno = system::errno();
    let mut interrupted = Interrupted::at(signal, info, context.cast());
    let first = is_first(signal, slot, &mut interrupted);
    if interrupted.is_noted && interrupted.context.is_some() {
        // What came with it the first time: no thread may send another that a process or a terminal sent it.
        // SAFETY: the kernel's frame on this stack, as was found out; the host's handler reads it there.
        unsafe { info.write(interrupted.info) };
    }
    let next = match first.and_then(|ticket| release_before(signal, slot, ticket, &interrupted)) {
        Some(Noted) => 0,
        None => effect(signal, slot, &interrupted),
    };
    system::set_errno(errno);
    next
}

/// Where no memory can be executed, the handler is in the library, which is never unloaded then.
extern "C" fn in_library(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let Some(slot) = slot_of(&LAST, signal) else { return };
    let next = decide(signal, info, context, slot);
    if next != 0 {
        type Handler = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void);
        // SAFETY: the host's own handler, with the kernel's arguments.
        let next: Handler = unsafe { std::mem::transmute(next) };
        next(signal, info, context);
    }
}

/// The signal's effect is put off.
struct Noted;

/// The release that this signal begins: none in a child that has not asked for it, none for a signal that comes for the
/// second time because it was noted, and none while another is being worked on, which is never held up.
fn is_first(signal: i32, slot: &'static Slot, interrupted: &mut Interrupted) -> Option<u32> {
    let ours = slot_of(&INSTALLED, signal).is_some_and(|now| std::ptr::eq(now, slot));
    if !ours || OWNER.load(Ordering::SeqCst) != process() {
        return None;
    }
    if let Some(info) = calls::arrived(system::this_thread(), signal) {
        interrupted.info = info;
        interrupted.is_noted = true;
        AWAITED.store(false, Ordering::SeqCst);
        return None;
    }
    begin(signal)
}

/// Waits for the release, or notes the signal where this thread must not.
fn release_before(signal: i32, slot: &'static Slot, ticket: u32, interrupted: &Interrupted) -> Option<Noted> {
    let thread = calls::this_thread();
    let note = || {
        // A handler that the host put before ours would run twice.
        let noted = is_installed(slot, signal) && calls::note(system::this_thread(), &interrupted.info, ticket);
        if let (true, Some(thread)) = (noted, thread) {
            thread.has_note();
        }
        noted.then_some(Noted)
    };
    let noted = if thread.is_some_and(calls::Thread::is_inside) {
        note()
    } else {
        let mask = interrupted.mask_but(signal).map(system::set_mask);
        let waited = wait(ticket, !interrupted.waits_in_kernel());
        mask.map(system::set_mask);
        if waited == Wait::Stalled { note() } else { None }
    };
    AWAITED.store(noted.is_some(), Ordering::SeqCst);
    noted
}

/// What the signal does without us.
fn effect(signal: i32, slot: &'static Slot, interrupted: &Interrupted) -> usize {
    let resets = slot.before().flags() & libc::SA_RESETHAND != 0;
    let next = match resets {
        true => slot.previous.swap(libc::SIG_DFL, Ordering::SeqCst),
        false => slot.previous.load(Ordering::SeqCst),
    };
    match next {
        libc::SIG_IGN => 0,
        libc::SIG_DFL => {
            take_default_action(signal, &interrupted.info);
            0
        }
        next => {
            if resets && is_installed(slot, signal) {
                let _ = system::install(signal, &Action::default());
            }
            next
        }
    }
}

fn take_default_action(signal: i32, info: &libc::siginfo_t) {
    let Ok(before) = system::install(signal, &Action::default()) else { return };
    system::unblock(signal);
    system::queue(system::this_thread(), info);
    // Still here: somebody kept it from ending the process, a tracer for one.
    let _ = system::install(signal, &before);
}

/// Where the default action follows a noted signal it is to meet the process by itself: a thread that hangs in a driver
/// would run no handler.
fn goes_on_to_default(signal: i32) -> bool {
    let Some(slot) = slot_of(&INSTALLED, signal) else { return false };
    let default = slot.previous.load(Ordering::SeqCst) == libc::SIG_DFL && is_installed(slot, signal);
    default && system::install(signal, &Action::default()).is_ok()
}

/// What a signal interrupted.
struct Interrupted {
    info: libc::siginfo_t,
    /// It came before, and was noted.
    is_noted: bool,
    /// `None` where a handler of the host's called ours without saying.
    context: Option<&'static libc::ucontext_t>,
}

impl Interrupted {
    /// A handler of the host's may have called ours with one argument: the others are looked at only if they are where
    /// the kernel puts them, beside each other and a little further up on this stack.
    fn at(signal: i32, info: *const libc::siginfo_t, context: *const libc::ucontext_t) -> Interrupted {
        let here = (&raw const signal).addr();
        let above = context.addr().wrapping_sub(here);
        if info.addr().wrapping_sub(context.addr()) as isize == INFO_FROM_CONTEXT && above < FRAME_MOST {
            // SAFETY: the kernel's frame on this stack, which stays until the handler has returned.
            let (info, context) = unsafe { (*info, &*context) };
            if info.si_signo == signal {
                return Interrupted { info, is_noted: false, context: Some(context) };
            }
        }
        // SAFETY: all zeroes is a valid siginfo_t: sent by kill.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        info.si_signo = signal;
        Interrupted { info, is_noted: false, context: None }
    }

    /// What was blocked before the signal, but for the signal itself, which was not (`sigsuspend` puts a mask back that
    /// has it). With it the wait can be interrupted, by this signal once more and by others, as if it were the host's
    /// code that ran.
    fn mask_but(&self, signal: i32) -> Option<u64> {
        let context = self.context?;
        Some(system::bits(&context.uc_sigmask) & !system::bit(signal))
    }

    /// Whether the thread waited in a system call that the signal interrupted, or sent it itself: then it has no lock
    /// that another thread would be kept waiting for in a release; and the call is not to return before the handler.
    fn waits_in_kernel(&self) -> bool {
        self.context.is_some_and(|context| {
            let call = SystemCall::before(context);
            call.comes_again
                || (call.made && (call.result == -i64::from(libc::EINTR) || call.sends(self.info.si_signo)))
        })
    }
}

/// The system call that a thread was in when a signal came, if it was in one.
struct SystemCall {
    /// It is about to be made, or made again (SA_RESTART).
    comes_again: bool,
    /// It has returned: nothing was executed since.
    made: bool,
    result: i64,
    arguments: [i64; 3],
}

impl SystemCall {
    /// By kill, sigqueue (process, signal) or tgkill (process, thread, signal).
    fn sends(&self, signal: i32) -> bool {
        let [first, second, third] = self.arguments.map(|argument| argument as i32);
        let to_thread = second == system::this_thread() && third == signal;
        self.result == 0 && first == process() && (second == signal || to_thread)
    }
}

/// How far the kernel's siginfo is from its context in a signal frame, in bytes.
#[cfg(target_arch = "aarch64")]
const INFO_FROM_CONTEXT: isize = -128;
#[cfg(not(target_arch = "aarch64"))]
const INFO_FROM_CONTEXT: isize = 304;
/// How far up the stack a signal frame may be, in bytes: a handler of the host's may lie between.
const FRAME_MOST: usize = 64 << 10;

#[cfg(target_arch = "x86_64")]
impl SystemCall {
    fn before(context: &libc::ucontext_t) -> SystemCall {
        const SYSCALL: [u8; 2] = [0x0f, 0x05];
        let register = |number: i32| context.uc_mcontext.gregs[number as usize];
        let next = register(libc::REG_RIP) as usize;
        // SAFETY: the instruction that comes next can be read; so can what is before it on the same page.
        let is_call = |at: usize| unsafe { *std::ptr::with_exposed_provenance::<[u8; 2]>(at) } == SYSCALL;
        SystemCall {
            comes_again: next % policy::PAGE <= policy::PAGE - 2 && is_call(next),
            made: next % policy::PAGE >= 2 && is_call(next - 2),
            result: register(libc::REG_RAX),
            arguments: [register(libc::REG_RDI), register(libc::REG_RSI), register(libc::REG_RDX)],
        }
    }
}

#[cfg(target_arch = "aarch64")]
impl SystemCall {
    fn before(context: &libc::ucontext_t) -> SystemCall {
        const SVC: u32 = 0xd400_0001;
        let next = context.uc_mcontext.pc as usize;
        // SAFETY: the instruction that comes next can be read; so can what is before it on the same page.
        let is_call = |at: usize| unsafe { *std::ptr::with_exposed_provenance::<u32>(at) } == SVC;
        let register = |number: usize| context.uc_mcontext.regs[number] as i64;
        SystemCall {
            comes_again: is_call(next),
            made: next % policy::PAGE >= 4 && is_call(next - 4),
            result: register(0),
            // The first argument's register has the result: it is taken to be this process.
            arguments: [i64::from(process()), register(1), register(2)],
        }
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
impl SystemCall {
    fn before(_context: &libc::ucontext_t) -> SystemCall {
        SystemCall { comes_again: false, made: false, result: 0, arguments: [0; 3] }
    }
}
