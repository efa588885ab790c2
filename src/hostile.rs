//! What others may send or write, and whatever they may write into memory that is shared with them: each function takes
//! any bytes for it, and panics where the library lets it do harm. A fuzzer calls them (fuzz/); a test here does, too,
//! with what the fuzzer found worth keeping and with variations of it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::backend::shared;
use crate::policy;
use crate::share::memory::{Mapping, written_there};
use crate::share::ring::{Control, Header, Mode, Reader, SLOTS_MOST, Taken, Told, Writer};
use crate::share::server;

/// Bytes as a row of choices; zeros when they are used up.
pub(crate) struct Choices<'a>(pub &'a [u8]);

impl Choices<'_> {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// Any number: small ones, those near the bounds, or all of its bytes.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => small.into(),
            near @ 200..=219 => u64::MAX - u64::from(near - 200),
            near @ 220..=239 => (i64::MAX as u64).wrapping_add(10).wrapping_sub((near - 220).into()),
            near @ 240..=247 => 1 << (8 * (near - 240)),
            _ => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
        }
    }
}

/// Words of the header, in their order: `head`, `ended`, the table and the slots.
pub(crate) const ORDER: usize = 2;
const SLOTS: usize = ORDER + SLOTS_MOST;
const SLOT_WORDS: usize = 12;
pub(crate) const HEADER_WORDS: usize = SLOTS + SLOTS_MOST * SLOT_WORDS;
const _: () = assert!(size_of::<Header>() == 8 * HEADER_WORDS);
const CONTROL_WORDS: usize = 6;
const _: () = assert!(size_of::<Control>() == 8 * CONTROL_WORDS);

/// Shared memory as whoever else has it sees it: words.
struct Words(Mapping);

impl Words {
    fn new(bytes: usize) -> Option<Words> {
        Some(Words(written_there(bytes.next_multiple_of(policy::PAGE)).ok()?.1))
    }

    fn all<const N: usize>(&self) -> &[AtomicU64; N] {
        // SAFETY: atomics alone.
        unsafe { self.0.atomics() }
    }

    fn header(&self) -> &Header {
        // SAFETY: a struct of atomics.
        unsafe { self.0.atomics() }
    }

    fn control(&self) -> &Control {
        // SAFETY: a struct of atomics.
        unsafe { self.0.atomics() }
    }
}

fn set(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Relaxed);
}

/// What clients send to a shared camera's process.
pub fn server(data: &[u8]) {
    server::hostile::hear(data);
}

/// What a shared camera's process sends to a reader: a message by itself, or a whole stream.
pub fn client(data: &[u8]) {
    match data.first() {
        Some(b'{') => shared::hostile::parse(data),
        _ => shared::hostile::attend(data),
    }
}

/// Writes something into a header: a word alone, or all that belongs to a frame.
pub(crate) fn spoil(words: &[AtomicU64; HEADER_WORDS], choices: &mut Choices<'_>) {
    match choices.byte() % 4 {
        0 => set(&words[choices.number() as usize % HEADER_WORDS], choices.number()),
        1 => set(&words[0], choices.number()),
        2 => set(&words[ORDER + choices.byte() as usize % SLOTS_MOST], choices.number()),
        _ => {
            let (number, slot) = (choices.number(), choices.byte() as usize % SLOTS_MOST);
            let place = &words[SLOTS + slot * SLOT_WORDS..][..SLOT_WORDS];
            set(&place[0], number.wrapping_add(1));
            place[1..].iter().take(choices.byte() as usize % SLOT_WORDS).for_each(|word| set(word, choices.number()));
            set(&words[ORDER + number as usize % SLOTS_MOST], slot as u64);
            set(&words[0], number.saturating_add(1));
        }
    }
}

/// The ring's words: a reader's view of a header, or a writer's view of its readers.
pub fn ring(data: &[u8]) {
    let mut choices = Choices(data);
    match choices.byte() % 2 {
        0 => read(choices),
        _ => write(choices),
    }
}

/// Whatever the header says, a reader ends, holds no more than it may, and only slots that there are.
fn read(mut choices: Choices<'_>) {
    let memory = memory();
    let Some((header, control)) = &*memory else { return };
    let mode = Mode {
        in_order: choices.byte().is_multiple_of(2),
        every: choices.number(),
        interval_ns: choices.number() as u32 as i64,
    };
    let (slots, quota) = (1 + choices.byte() as usize % SLOTS_MOST, 1 + u32::from(choices.byte()) % 64);
    let words = header.all();
    if choices.byte().is_multiple_of(2) {
        spoil(words, &mut choices);
    }
    let mut reader = Reader::new(header.header(), mode, slots, quota);
    let mut held = 0u64;
    while !choices.is_empty() {
        match choices.byte() % 8 {
            0..=2 => spoil(words, &mut choices),
            3..=5 => match reader.take(header.header(), control.control()) {
                Taken::Frame { slot, .. } => {
                    assert!(slot < slots, "slot {slot} of {slots}");
                    assert_eq!(held & 1 << slot, 0, "slot {slot} is held already");
                    held |= 1 << slot;
                    assert!(held.count_ones() <= quota);
                }
                Taken::Nothing => {}
                Taken::Full => assert_eq!(held.count_ones(), quota),
            },
            6 if held != 0 => {
                let nth = u32::from(choices.byte()) % held.count_ones();
                let slot = (0..64).filter(|slot| held & 1 << slot != 0).nth(nth as usize).unwrap_or(0);
                reader.release(control.control(), slot);
                held &= !(1 << slot);
            }
            _ => {
                let waits = reader.wait(header.header(), control.control());
                assert!(!waits || reader.behind(header.header()) == 0, "it waits for what is there");
                assert_eq!(control.control().waits(), waits);
            }
        }
        assert_eq!(control.control().held(), held);
    }
}

/// Whatever readers write into their pages, a writer ends, and gives no slot of which the last look said that it is held.
fn write(mut choices: Choices<'_>) {
    let memory = memory();
    let Some((header, control)) = &*memory else { return };
    let words: &[AtomicU64; CONTROL_WORDS] = control.all();
    let (slots, history) = (1 + choices.byte() as usize % SLOTS_MOST, u64::from(choices.byte()) % 64);
    let mut writer = Writer::new(slots, history);
    let mut newest = None;
    while !choices.is_empty() {
        let spoilt = std::cell::RefCell::new(&mut choices);
        let seen = std::cell::Cell::new(0);
        // It is another at every look.
        let held = || {
            let mut choices = spoilt.borrow_mut();
            if choices.byte().is_multiple_of(2) {
                set(&words[0], choices.number());
            }
            seen.set(control.control().held());
            seen.get()
        };
        if let Some(slot) = writer.take(header.header(), 0..slots, held) {
            assert!(slot < slots, "slot {slot} of {slots}");
            assert_ne!(Some(slot), newest, "the newest frame's slot");
            let told = Told { timestamp_ns: choices.number() as i64, ..Told::default() };
            if !choices.byte().is_multiple_of(8) {
                newest = Some(slot);
                let published = writer.publish(header.header(), slot, &told);
                assert_eq!((published, published), (writer.published(), header.header().published()));
                control.control().is_to_be_woken(published, told.timestamp_ns);
            }
        }
        match choices.byte() % 4 {
            0 => set(&words[choices.byte() as usize % CONTROL_WORDS], choices.number()),
            1 => assert!(control.control().faring().held <= 64),
            2 => assert!(!control.control().is_to_be_woken_at_the_end() || !control.control().waits()),
            _ => {}
        }
    }
}

/// A header and a page, zeroed. They are made once: that takes longer than all the rest.
fn memory() -> MutexGuard<'static, Option<(Words, Words)>> {
    static MEMORY: Mutex<Option<(Words, Words)>> = Mutex::new(None);
    let mut memory = MEMORY.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if memory.is_none() {
        *memory = Words::new(size_of::<Header>()).zip(Words::new(size_of::<Control>()));
    }
    if let Some((header, control)) = &*memory {
        header.all::<HEADER_WORDS>().iter().for_each(|word| set(word, 0));
        control.all::<CONTROL_WORDS>().iter().for_each(|word| set(word, 0));
    }
    memory
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::{Duration, Instant};

    /// What is kept for a target, and for a while whatever comes of changes to it.
    fn vary(name: &str, target: fn(&[u8]), seconds: u64) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut kept: Vec<Vec<u8>> = files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
        kept.sort();
        kept.iter().for_each(|data| target(data));
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 16) as usize % below.max(1)
        };
        let (until, mut runs) = (Instant::now() + Duration::from_secs(seconds), 0u64);
        while Instant::now() < until {
            let mut data = kept[random(kept.len())].clone();
            for _ in 0..=random(4) {
                let (at, other) = (random(data.len()), &kept[random(kept.len())]);
                match random(5) {
                    0 if !data.is_empty() => data[at] = random(256) as u8,
                    1 if !data.is_empty() => data[at] ^= 1 << random(8),
                    2 => drop(data.drain(at..(at + random(32)).min(data.len()))),
                    3 => data.splice(at..at, other[random(other.len())..].iter().copied().take(64)).for_each(drop),
                    _ => data.splice(at..at, random(usize::MAX).to_string().into_bytes()).for_each(drop),
                }
            }
            target(&data);
            runs += 1;
        }
        eprintln!("{name}: {} files, {runs} variations", kept.len());
    }

    #[test]
    fn whatever_clients_send_is_answered() {
        vary("server", super::server, 3);
    }

    #[test]
    fn whatever_a_server_sends_is_taken_or_not() {
        vary("client", super::client, 3);
    }

    #[test]
    fn whatever_the_ring_says_does_no_harm() {
        vary("ring", super::ring, 3);
    }

    #[test]
    fn a_plane_is_as_long_as_its_area() {
        let generation = |length: u64| {
            let planes = serde_json::json!({
                "camlease": 1, "event": "generation", "generation": 1, "quota": 1, "slots": 4, "first": 8192,
                "slot_bytes": 4096, "areas": [[0, 32]], "format": {
                    "width": 4, "height": 4, "code": 1, "stride": 8, "planes": [[8, length]], "buffers": 1,
                },
            });
            crate::share::wire::generation_of(planes.as_object().unwrap(), 1 << 20).is_some()
        };
        assert!(generation(32) && !generation(33) && !generation(u64::MAX));
    }
}
