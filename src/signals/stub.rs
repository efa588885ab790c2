//! What the kernel and the host know as our signal handler: a few instructions in memory that is never unmapped.
//!
//! A host may keep the address that `sigaction` told it as the old handler, and call or install it at any time, also
//! after this library was unloaded. So it is never an address in the library. The instructions go to the library while
//! it is there, and then to what was installed before it, without a frame of ours left on the stack: a handler of the
//! host's may unload the library, or leave by siglongjmp.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use super::system::Action;

/// Distance from the instructions to their data: a multiple of every page size.
const DATA: usize = 64 << 10;
/// Ways in, one for each slot, and their size in bytes.
const ENTRIES: usize = 32;
const ENTRY: usize = 16;
/// More than any host needs: a way in is used up only when the host's handler has changed between two calls of ours.
const BLOCKS: usize = 8;

/// What a way in stands for. The instructions read the first member, and know the size.
#[repr(C, align(256))]
pub struct Slot {
    /// SIG_DFL, SIG_IGN, or the function to go on to.
    pub previous: AtomicUsize,
    /// What was installed before ours; written before anybody else knows of the slot.
    before: UnsafeCell<MaybeUninit<Action>>,
}

impl Slot {
    pub fn before(&self) -> &Action {
        // SAFETY: written before the slot was given out, and never again.
        unsafe { (*self.before.get()).assume_init_ref() }
    }
}

#[repr(C, align(256))]
struct Head {
    /// Where the decision is made; 0 once the library is gone.
    target: AtomicUsize,
    /// Threads between the way in and the way on.
    in_flight: AtomicU32,
    /// Slots that are given out.
    used: AtomicU32,
    /// Whether the instructions may be executed.
    runs: AtomicBool,
}

#[repr(C)]
struct Data {
    head: Head,
    slots: [Slot; ENTRIES],
}

const _: () = assert!(size_of::<Slot>() == 256 && size_of::<Head>() == 256);

static MAPPED: [AtomicPtr<Data>; BLOCKS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; BLOCKS];

fn blocks() -> impl Iterator<Item = &'static Data> {
    // SAFETY: what is there was mapped by `map`, and is never unmapped.
    MAPPED.iter().filter_map(|block| unsafe { block.load(Ordering::Acquire).as_ref() })
}

/// Decides what a signal does: gives the function to go on to, or 0.
pub type Decide = extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void, &'static Slot) -> usize;

/// A fresh slot for what was installed before. One caller at a time.
pub fn slot(decide: Decide, before: Action) -> std::io::Result<&'static Slot> {
    let block = blocks().find(|block| block.head.used.load(Ordering::Relaxed) < ENTRIES as u32);
    let block = block.map_or_else(|| map(decide), Ok)?;
    let slot = &block.slots[block.head.used.fetch_add(1, Ordering::Relaxed) as usize];
    // SAFETY: nobody else knows of it yet.
    unsafe { (*slot.before.get()).write(before) };
    slot.previous.store(before.handler(), Ordering::SeqCst);
    Ok(slot)
}

/// The address to install for a slot; `None` where the system refuses memory that can be executed.
pub fn address(slot: &'static Slot) -> Option<usize> {
    blocks().find_map(|block| {
        let at = block.slots.iter().position(|known| std::ptr::eq(known, slot))?;
        let runs = block.head.runs.load(Ordering::Relaxed);
        runs.then(|| (&raw const *block).addr() - DATA + at * ENTRY)
    })
}

/// From now on the instructions go to what was installed before. Threads that are on their way still:
pub fn part() -> u32 {
    blocks().for_each(|block| block.head.target.store(0, Ordering::SeqCst));
    in_flight()
}

pub fn in_flight() -> u32 {
    blocks().map(|block| block.head.in_flight.load(Ordering::SeqCst)).sum()
}

fn map(decide: Decide) -> std::io::Result<&'static Data> {
    let full = || std::io::Error::from_raw_os_error(libc::ENOSPC);
    let place = MAPPED.iter().find(|block| block.load(Ordering::Relaxed).is_null()).ok_or_else(full)?;
    let start = memory(DATA + size_of::<Data>())?;
    let data: *mut Data = start.wrapping_add(DATA).cast();
    // SAFETY: zeroed memory of that size and alignment, which nobody else knows yet; all zeroes is a valid Data.
    let block: &'static Data = unsafe { &*data };
    block.head.target.store(decide as usize, Ordering::Relaxed);
    block.head.runs.store(code::copy_to(start, DATA), Ordering::Relaxed);
    place.store(data, Ordering::Release);
    Ok(block)
}

fn memory(length: usize) -> std::io::Result<*mut u8> {
    let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: fresh memory at an address of the kernel's choice.
    match unsafe { libc::mmap(std::ptr::null_mut(), length, prot, flags, -1, 0) } {
        libc::MAP_FAILED => Err(std::io::Error::last_os_error()),
        start => Ok(start.cast()),
    }
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod code {
    unsafe extern "C" {
        static camlease_signal_stub: u8;
        static camlease_signal_stub_end: u8;
    }

    /// Puts the instructions at `start`, in `room` bytes of fresh memory; false where they cannot be executed there.
    pub fn copy_to(start: *mut u8, room: usize) -> bool {
        let from = &raw const camlease_signal_stub;
        let length = (&raw const camlease_signal_stub_end).addr() - from.addr();
        assert!(length <= room);
        // SAFETY: from the instructions' begin to their end, into room for as many; the pages are ours, and whole.
        unsafe {
            std::ptr::copy_nonoverlapping(from, start, length);
            make_visible(start, length);
            // Never writable and executable at once: some systems refuse that, and rightly.
            libc::mprotect(start.cast(), room, libc::PROT_READ | libc::PROT_EXEC) == 0
        }
    }

    #[cfg(target_arch = "x86_64")]
    unsafe fn make_visible(_start: *const u8, _length: usize) {}

    /// What was written as data has to reach the place that instructions are fetched from.
    #[cfg(target_arch = "aarch64")]
    unsafe fn make_visible(start: *const u8, length: usize) {
        const LINE_LEAST: usize = 16;
        for at in (0..length).step_by(LINE_LEAST) {
            // SAFETY: cache maintenance of mapped memory.
            unsafe { core::arch::asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", in(reg) start.add(at)) };
        }
        // SAFETY: barriers.
        unsafe { core::arch::asm!("dsb ish", "isb") };
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod code {
    pub fn copy_to(_start: *mut u8, _room: usize) -> bool {
        false
    }
}

// In the order of the code: the ways in, 16 bytes each; the slot from the way that was taken; one more in flight; the
// decision, by the library while it is there; one less in flight; on to the function that was decided on, with the
// kernel's arguments and return address. Without the library: the slot's own function; or for SIG_DFL the default
// action, by rt_sigaction, rt_sigprocmask and tgkill to this thread.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".text",
    ".balign 64",
    ".globl camlease_signal_stub",
    ".hidden camlease_signal_stub",
    "camlease_signal_stub:",
    ".rept 32",
    ".balign 16",
    "endbr64",
    "lea rax, [rip]",
    "jmp 20f",
    ".endr",
    ".balign 16",
    "20:",
    "push rdi",
    "push rsi",
    "push rdx", // the stack is aligned as a call wants it
    "lea r8, [rip + camlease_signal_stub]",
    "sub rax, r8",
    "shr rax, 4",
    "shl rax, 8",
    "lea rcx, [r8 + rax + 0x10100]", // the slots come after the head
    "add r8, 0x10000",
    "lock inc dword ptr [r8 + 8]",
    "mov rax, [r8]",
    "test rax, rax",
    "jz 23f",
    "call rax",
    "21:",
    "lea rcx, [rip + camlease_signal_stub]",
    "lock dec dword ptr [rcx + 0x10008]",
    "pop rdx",
    "pop rsi",
    "pop rdi",
    "test rax, rax",
    "jz 22f",
    "jmp rax",
    "22:",
    "ret",
    "23:",
    "mov rax, [rcx]",
    "cmp rax, 1",
    "ja 21b",
    "je 24f",
    "mov r8, rdi",
    "sub rsp, 32",
    "mov qword ptr [rsp], 0",
    "mov qword ptr [rsp + 8], 0",
    "mov qword ptr [rsp + 16], 0",
    "mov qword ptr [rsp + 24], 0",
    "mov rsi, rsp",
    "xor edx, edx",
    "mov r10d, 8",
    "mov eax, 13", // rt_sigaction
    "syscall",
    "lea ecx, [r8 - 1]",
    "mov eax, 1",
    "shl rax, cl",
    "mov [rsp], rax",
    "mov edi, 1", // SIG_UNBLOCK
    "mov rsi, rsp",
    "xor edx, edx",
    "mov r10d, 8",
    "mov eax, 14", // rt_sigprocmask
    "syscall",
    "mov eax, 39", // getpid
    "syscall",
    "mov r9, rax",
    "mov eax, 186", // gettid
    "syscall",
    "mov rsi, rax",
    "mov rdi, r9",
    "mov rdx, r8",
    "mov eax, 234", // tgkill
    "syscall",
    "add rsp, 32",
    "24:",
    "xor eax, eax",
    "jmp 21b",
    ".globl camlease_signal_stub_end",
    ".hidden camlease_signal_stub_end",
    "camlease_signal_stub_end:",
);

#[cfg(target_arch = "aarch64")]
core::arch::global_asm!(
    ".text",
    ".balign 64",
    ".globl camlease_signal_stub",
    ".hidden camlease_signal_stub",
    "camlease_signal_stub:",
    ".rept 32",
    ".balign 16",
    "hint #34", // bti c
    "adr x16, .",
    "b 20f",
    ".endr",
    ".balign 16",
    "20:",
    "stp x29, x30, [sp, #-48]!",
    "mov x29, sp",
    "stp x0, x1, [sp, #16]",
    "str x2, [sp, #32]",
    "adr x17, camlease_signal_stub",
    "sub x16, x16, x17",
    "lsr x16, x16, #4",
    "add x9, x17, #16, lsl #12",
    "add x3, x9, #256",
    "add x3, x3, x16, lsl #8",
    "add x10, x9, #8",
    "30:",
    "ldaxr w11, [x10]",
    "add w11, w11, #1",
    "stlxr w12, w11, [x10]",
    "cbnz w12, 30b",
    "dmb ish",
    "ldar x9, [x9]",
    "cbz x9, 23f",
    "blr x9",
    "21:",
    "mov x16, x0",
    "adr x17, camlease_signal_stub",
    "add x17, x17, #16, lsl #12",
    "add x10, x17, #8",
    "31:",
    "ldaxr w11, [x10]",
    "sub w11, w11, #1",
    "stlxr w12, w11, [x10]",
    "cbnz w12, 31b",
    "ldr x2, [sp, #32]",
    "ldp x0, x1, [sp, #16]",
    "ldp x29, x30, [sp], #48",
    "cbz x16, 22f",
    "br x16",
    "22:",
    "ret",
    "23:",
    "ldr x9, [x3]",
    "mov x4, x0",
    "mov x0, x9",
    "cmp x9, #1",
    "b.hi 21b",
    "b.eq 24f",
    "sub sp, sp, #32",
    "stp xzr, xzr, [sp]",
    "stp xzr, xzr, [sp, #16]",
    "mov x0, x4",
    "mov x1, sp",
    "mov x2, #0",
    "mov x3, #8",
    "mov x8, #134", // rt_sigaction
    "svc #0",
    "sub x5, x4, #1",
    "mov x6, #1",
    "lsl x6, x6, x5",
    "str x6, [sp]",
    "mov x0, #1", // SIG_UNBLOCK
    "mov x1, sp",
    "mov x2, #0",
    "mov x3, #8",
    "mov x8, #135", // rt_sigprocmask
    "svc #0",
    "mov x8, #172", // getpid
    "svc #0",
    "mov x5, x0",
    "mov x8, #178", // gettid
    "svc #0",
    "mov x1, x0",
    "mov x0, x5",
    "mov x2, x4",
    "mov x8, #131", // tgkill
    "svc #0",
    "add sp, sp, #32",
    "24:",
    "mov x0, #0",
    "b 21b",
    ".globl camlease_signal_stub_end",
    ".hidden camlease_signal_stub_end",
    "camlease_signal_stub_end:",
);
