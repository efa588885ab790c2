//! What participant.h says, for those that are written in Rust.

use std::io::{Error, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The sequence of the frame that ends readers.
pub const LAST: u64 = u64::MAX;
/// Frames that may wait for a reader.
#[allow(dead_code)] // readers only
pub const DEPTH: usize = 4;
const SECOND: i64 = 1_000_000_000;
const WARM_UP: Duration = Duration::from_millis(33);

/// A mapped file: its counts of frames and of torn ones, then three words for each frame.
struct Log {
    words: &'static [AtomicU64],
}

impl Log {
    fn open(path: &str) -> Log {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(path).expect("the log");
        let size = file.metadata().expect("the log's size").len() as usize;
        let shared = libc::MAP_SHARED | libc::MAP_POPULATE;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        // SAFETY: a new mapping of the whole file, which stays until the process ends; it is page-aligned, and atomics
        // may be written by anybody.
        let words = unsafe {
            let memory = libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, shared, fd, 0);
            assert!(memory != libc::MAP_FAILED, "{}", Error::last_os_error());
            std::slice::from_raw_parts(memory.cast(), size / 8)
        };
        Log { words }
    }

    fn count(&self) -> u64 {
        self.words[0].load(Ordering::Relaxed)
    }

    fn add(&self, sequence: u64, at: i64) {
        let count = self.count();
        let start = 2 + 3 * count as usize;
        if start + 3 <= self.words.len() {
            self.words[start].store(sequence, Ordering::Relaxed);
            self.words[start + 1].store(at as u64, Ordering::Relaxed);
            self.words[0].store(count + 1, Ordering::Release);
        }
    }
}

#[allow(dead_code)] // each takes the settings that it needs
pub struct Participant {
    pub producer: bool,
    pub folder: String,
    pub bytes: usize,
    pub width: u32,
    pub height: u32,
    pub format: String,
    pub readers: usize,
    pub fps: i64,
    frames: u64,
    limit: i64,
    log: Log,
    last: Option<u64>,
}

pub fn now_ns() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it only writes to `now`.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec * SECOND + now.tv_nsec
}

fn sleep_until(moment: i64) {
    let at = libc::timespec { tv_sec: moment / SECOND, tv_nsec: moment % SECOND };
    // SAFETY: it only reads `at`.
    while unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &at, std::ptr::null_mut()) } != 0 {
    }
}

fn say(line: String) {
    let mut output = std::io::stdout();
    output.write_all(line.as_bytes()).and_then(|()| output.flush()).expect("the driver listens");
}

fn heard(timeout: Duration) -> Option<u8> {
    let mut input = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
    // SAFETY: one descriptor, as is said.
    if unsafe { libc::poll(&mut input, 1, timeout.as_millis() as i32) } <= 0 {
        return None;
    }
    let mut line = [0; 64];
    match std::io::stdin().read(&mut line) {
        Ok(length) if length > 0 => Some(line[0]),
        _ => Some(b's'),
    }
}

impl Participant {
    pub fn new() -> Participant {
        let setting = |wanted: &str| {
            let found = std::env::args()
                .skip(2)
                .find_map(|word| Some(word.strip_prefix(wanted)?.strip_prefix('=')?.to_owned()));
            found.unwrap_or_else(|| panic!("the setting {wanted} is missing"))
        };
        let number = |wanted: &str| -> u64 { setting(wanted).parse().expect("a number") };
        Participant {
            producer: std::env::args().nth(1).as_deref() == Some("producer"),
            folder: setting("folder"),
            bytes: number("bytes") as usize,
            width: number("width") as u32,
            height: number("height") as u32,
            format: setting("format"),
            readers: number("readers") as usize,
            fps: number("fps") as i64,
            frames: number("frames"),
            limit: number("limit") as i64,
            log: Log::open(&setting("log")),
            last: None,
        }
    }

    /// A picture in private memory, as a driver's buffer is.
    pub fn picture(&self) -> Vec<u8> {
        vec![128; self.bytes]
    }

    /// The sequence at both ends of a frame: it tells a frame that was overwritten while it was read.
    pub fn mark(frame: &mut [u8], sequence: u64) {
        let bytes = frame.len();
        frame[..8].copy_from_slice(&sequence.to_ne_bytes());
        frame[bytes - 8..].copy_from_slice(&sequence.to_ne_bytes());
    }

    /// Just before a frame is handed over.
    pub fn published(&self, sequence: u64) {
        if sequence != LAST {
            self.log.add(sequence, now_ns());
        }
    }

    /// The moment just before its readers were woken, where that can be told.
    pub fn woke(&self, sequence: u64, at: i64) {
        let start = 3 * self.log.count() as usize - 1;
        if self.log.words[start].load(Ordering::Relaxed) == sequence {
            self.log.words[start + 2].store(at as u64, Ordering::Relaxed);
        }
    }

    /// A frame can be read. False: it was the last one.
    #[allow(dead_code)] // readers only
    pub fn received(&mut self, frame: &[u8]) -> bool {
        let head = u64::from_ne_bytes(frame[..8].try_into().expect("eight bytes"));
        let tail = u64::from_ne_bytes(frame[self.bytes - 8..self.bytes].try_into().expect("eight bytes"));
        let at = now_ns();
        if head == LAST {
            return false;
        }
        if head != tail || self.last.is_some_and(|last| head <= last) {
            self.log.words[1].fetch_add(1, Ordering::Relaxed);
            return true;
        }
        self.log.add(head, at);
        if self.last.is_none() {
            say(format!("ready {}\n", std::process::id()));
        }
        self.last = Some(head);
        true
    }

    /// A producer's whole life.
    pub fn produce(&self, mut publish: impl FnMut(&Participant, u64)) {
        let mut sequence = 0;
        say(format!("up {}\n", std::process::id()));
        while heard(WARM_UP) != Some(b'g') {
            publish(self, sequence);
            sequence += 1;
        }
        let first = sequence;
        let began = now_ns();
        let mut due = began;
        while sequence - first < self.frames && now_ns() - began < self.limit {
            if self.fps > 0 {
                due += SECOND / self.fps;
                if due < now_ns() - SECOND / self.fps {
                    due = now_ns(); // a producer that is late drops its beat, as a camera does
                }
                sleep_until(due);
            }
            publish(self, sequence);
            sequence += 1;
        }
        say(format!("done {first} {} {}\n", sequence - first, now_ns() - began));
        while heard(Duration::from_secs(10)).is_none() {}
        for _ in 0..5 {
            publish(self, LAST);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
