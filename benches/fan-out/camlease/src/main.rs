//! camlease: a host that publishes its own frames. One copy, into the ring; by_camlease.c reads.

#[path = "../../participant.rs"]
mod participant;

use std::sync::atomic::{AtomicI64, Ordering};

use camlease::{FourCc, Publisher, Rate, ShareOptions, StreamFormat};
use participant::{Participant, now_ns};

/// When the first reader of a frame was woken: -1 while that is waited for.
static WOKEN: AtomicI64 = AtomicI64::new(0);

/// In front of the C library's: the library wakes a reader by eight bytes to its eventfd, and copy and wake-ups are one
/// call. Anything else of eight bytes that is written meanwhile would be mistaken for it; the thread that publishes
/// writes nothing else.
///
/// # Safety
///
/// As write(2) asks.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: libc::c_int, bytes: *const libc::c_void, count: usize) -> isize {
    if count == 8 && WOKEN.load(Ordering::Relaxed) == -1 {
        WOKEN.store(now_ns(), Ordering::Relaxed);
    }
    // SAFETY: the caller's arguments.
    unsafe { libc::syscall(libc::SYS_write, fd, bytes, count) as isize }
}

fn main() {
    let me = Participant::new();
    let name = me.folder.rsplit('/').next().unwrap_or_default().to_owned();
    let publisher = Publisher::new(ShareOptions { name, ..ShareOptions::default() }, &format(&me)).expect("a share");
    let mut picture = me.picture();
    me.produce(|me, sequence| {
        Participant::mark(&mut picture, sequence);
        me.published(sequence);
        WOKEN.store(-1, Ordering::Relaxed);
        publisher.publish(&[&picture], sequence, now_ns(), false);
        me.woke(sequence, WOKEN.swap(0, Ordering::Relaxed).max(0));
    });
}

fn format(me: &Participant) -> StreamFormat {
    let fourcc = FourCc::parse(&me.format).expect("a format");
    let stride = me.width * if me.format == "YUYV" { 2 } else { 1 };
    StreamFormat {
        width: me.width,
        height: me.height,
        fourcc,
        rate: Rate::new(me.fps.max(1) as u32, 1),
        stride,
        planes: vec![(stride, me.bytes)],
        buffers: 0,
    }
}
