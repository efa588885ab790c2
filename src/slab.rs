//! Things that are known by a token instead of an address. A token is never dereferenced: it names a
//! place and the generation of what stands there, and what was removed is never found again.
//!
//! Look-up, insertion and removal take no lock. What was found is pinned: it is dropped when it was
//! removed and the last pin is gone.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ops::Deref;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// A token: `[kind: 4 bits][place: 20 bits][generation: 40 bits]`, never 0.
pub type Token = u64;

const PLACE_BITS: u32 = 20;
const GENERATION_BITS: u32 = 40;
const GENERATION_MOST: u64 = (1 << GENERATION_BITS) - 1;

// A slot's state: `[generation: 40 bits][removed: 1][live: 1][pins: 22 bits]`.
const PINS: u64 = (1 << 22) - 1;
const LIVE: u64 = 1 << 22;
const REMOVED: u64 = 1 << 23;
const GENERATION_SHIFT: u32 = 24;

/// The first chunk has this many slots, each further one twice as many as the one before.
const FIRST_CHUNK: u32 = 64;
const CHUNKS: usize = (PLACE_BITS - FIRST_CHUNK.trailing_zeros()) as usize;

const NO_SLOT: u32 = u32::MAX;

/// One slot to a cache line, so that two cameras' look-ups do not slow each other.
#[repr(align(128))]
struct Slot<T> {
    state: AtomicU64,
    next_free: AtomicU32,
    value: UnsafeCell<MaybeUninit<T>>,
}

/// A table of `T`s of one kind.
pub struct Slab<T> {
    kind: u8,
    chunks: [AtomicPtr<Slot<T>>; CHUNKS],
    /// Head of the list of free slots: `[tag: 32 bits][place: 32 bits]`. The tag changes with every
    /// step, so that a head seen before and a head seen after are not taken for the same.
    free: AtomicU64,
}

// SAFETY: a value is reached through pins, shared; it is dropped by whoever takes the last pin away.
unsafe impl<T: Send + Sync> Sync for Slab<T> {}

impl<T> Slab<T> {
    /// `kind` tells the tokens of one slab from those of another: 1 to 15.
    pub const fn new(kind: u8) -> Self {
        assert!(kind > 0 && kind < 16);
        Slab { kind, chunks: [const { AtomicPtr::new(null_mut()) }; CHUNKS], free: AtomicU64::new(NO_SLOT as u64) }
    }

    /// Takes `value` in; gives it back when a million things are in already.
    pub fn insert(&self, value: T) -> Result<Token, T> {
        let place = loop {
            if let Some(place) = self.pop_free() {
                break place;
            }
            if !self.grow() {
                return Err(value);
            }
        };
        let slot = self.slot(place).expect("a free slot exists");
        // SAFETY: a popped slot is neither live nor pinned: nobody else looks at the value.
        unsafe { (*slot.value.get()).write(value) };
        let generation = (slot.state.load(Ordering::Relaxed) >> GENERATION_SHIFT) + 1;
        slot.state.store(generation << GENERATION_SHIFT | LIVE, Ordering::Release);
        Ok(self.token(place, generation))
    }

    /// Makes room for `more` insertions that will not allocate.
    pub fn reserve(&self, more: u32) {
        let mut taken = NO_SLOT;
        let mut count = 0;
        while count < more {
            match self.pop_free() {
                Some(place) => {
                    self.slot(place).expect("a free slot exists").next_free.store(taken, Ordering::Relaxed);
                    taken = place;
                    count += 1;
                }
                None if self.grow() => {}
                None => break,
            }
        }
        while taken != NO_SLOT {
            let next = self.slot(taken).expect("a free slot exists").next_free.load(Ordering::Relaxed);
            self.push_free(taken);
            taken = next;
        }
    }

    pub fn get(&self, token: Token) -> Option<Pin<'_, T>> {
        self.pin(token, |state| state)
    }

    /// Removes it: no look-up finds it from now on. The pin is the remover's.
    pub fn remove(&self, token: Token) -> Option<Pin<'_, T>> {
        self.pin(token, |state| state & !LIVE | REMOVED)
    }

    fn pin(&self, token: Token, change: impl Fn(u64) -> u64) -> Option<Pin<'_, T>> {
        if token >> (PLACE_BITS + GENERATION_BITS) != self.kind as u64 {
            return None;
        }
        let place = (token >> GENERATION_BITS) as u32 & ((1 << PLACE_BITS) - 1);
        let slot = self.slot(place)?;
        let wanted = token & GENERATION_MOST;
        let mut state = slot.state.load(Ordering::Relaxed);
        loop {
            if state >> GENERATION_SHIFT != wanted || state & LIVE == 0 || state & PINS == PINS {
                return None;
            }
            let pinned = change(state) + 1;
            match slot.state.compare_exchange_weak(state, pinned, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(Pin { slab: self, slot, place }),
                Err(seen) => state = seen,
            }
        }
    }

    fn slot(&self, place: u32) -> Option<&Slot<T>> {
        let (chunk, offset) = locate(place);
        let first = self.chunks.get(chunk)?.load(Ordering::Acquire);
        if first.is_null() {
            return None;
        }
        // SAFETY: chunk `chunk` has `FIRST_CHUNK << chunk` slots, is never freed, and offset lies within.
        Some(unsafe { &*first.add(offset as usize) })
    }

    fn pop_free(&self) -> Option<u32> {
        let mut head = self.free.load(Ordering::Acquire);
        loop {
            let place = head as u32;
            if place == NO_SLOT {
                return None;
            }
            let next = self.slot(place)?.next_free.load(Ordering::Relaxed);
            let new = retag(head, next);
            match self.free.compare_exchange_weak(head, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(place),
                Err(seen) => head = seen,
            }
        }
    }

    fn push_free(&self, place: u32) {
        let slot = self.slot(place).expect("only existing slots become free");
        let mut head = self.free.load(Ordering::Relaxed);
        loop {
            slot.next_free.store(head as u32, Ordering::Relaxed);
            match self.free.compare_exchange_weak(head, retag(head, place), Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => head = seen,
            }
        }
    }

    /// Adds a chunk, without a lock: a forked child could find it held for ever. False when all are there.
    fn grow(&self) -> bool {
        let Some(at) = self.chunks.iter().position(|chunk| chunk.load(Ordering::Acquire).is_null()) else {
            return self.free.load(Ordering::Acquire) as u32 != NO_SLOT;
        };
        let count = FIRST_CHUNK << at;
        let slots: Box<[Slot<T>]> = (0..count)
            .map(|_| Slot {
                state: AtomicU64::new(0),
                next_free: AtomicU32::new(NO_SLOT),
                value: UnsafeCell::new(MaybeUninit::uninit()),
            })
            .collect();
        let slots = Box::into_raw(slots);
        let added = self.chunks[at].compare_exchange(null_mut(), slots.cast(), Ordering::AcqRel, Ordering::Relaxed);
        match added {
            Ok(_) => {
                let first = count - FIRST_CHUNK;
                (first..first + count).rev().for_each(|place| self.push_free(place));
            }
            // Another thread added this chunk meanwhile.
            // SAFETY: just made by Box::into_raw, and seen by nobody.
            Err(_) => drop(unsafe { Box::from_raw(slots) }),
        }
        true
    }

    /// Pins everything that is in, one after the other.
    pub fn each(&self) -> impl Iterator<Item = (Token, Pin<'_, T>)> {
        let places = self.chunks.iter().take_while(|chunk| !chunk.load(Ordering::Acquire).is_null()).count();
        (0..(FIRST_CHUNK << places) - FIRST_CHUNK).filter_map(|place| {
            let generation = self.slot(place)?.state.load(Ordering::Relaxed) >> GENERATION_SHIFT;
            let token = self.token(place, generation);
            Some((token, self.get(token)?))
        })
    }

    fn token(&self, place: u32, generation: u64) -> Token {
        (self.kind as u64) << (PLACE_BITS + GENERATION_BITS) | (place as u64) << GENERATION_BITS | generation
    }
}

/// Chunk and offset of a place.
fn locate(place: u32) -> (usize, u32) {
    let shifted = place + FIRST_CHUNK;
    let chunk = shifted.ilog2() - FIRST_CHUNK.ilog2();
    (chunk as usize, shifted - (FIRST_CHUNK << chunk))
}

fn retag(head: u64, place: u32) -> u64 {
    ((head >> 32).wrapping_add(1) << 32) | place as u64
}

impl<T> Drop for Slab<T> {
    fn drop(&mut self) {
        for (at, chunk) in self.chunks.iter_mut().enumerate() {
            let first = *chunk.get_mut();
            if first.is_null() {
                continue;
            }
            // SAFETY: made in `grow` by Box::into_raw of a slice of this length.
            let mut slots =
                unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(first, (FIRST_CHUNK as usize) << at)) };
            for slot in slots.iter_mut().filter(|slot| slot.state.load(Ordering::Relaxed) & LIVE != 0) {
                // SAFETY: live: the value is there, and nobody has a pin on a slab that is dropped.
                unsafe { slot.value.get_mut().assume_init_drop() };
            }
        }
    }
}

/// Something found, kept from being dropped.
pub struct Pin<'a, T> {
    slab: &'a Slab<T>,
    slot: &'a Slot<T>,
    place: u32,
}

impl<T> Deref for Pin<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: pinned: the value was written before the slot became live, and stays until the last pin.
        unsafe { (*self.slot.value.get()).assume_init_ref() }
    }
}

impl<T> Drop for Pin<'_, T> {
    fn drop(&mut self) {
        let before = self.slot.state.fetch_sub(1, Ordering::AcqRel);
        if before & (PINS | REMOVED) != REMOVED | 1 {
            return;
        }
        // SAFETY: removed, so there are no new pins, and ours was the last: nobody else is here.
        unsafe { (*self.slot.value.get()).assume_init_drop() };
        let generation = before >> GENERATION_SHIFT;
        self.slot.state.store(generation << GENERATION_SHIFT, Ordering::Release);
        // A slot whose generations are used up is never used again: a token means one thing for ever.
        if generation < GENERATION_MOST {
            self.slab.push_free(self.place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn what_was_removed_is_never_found_again() {
        let slab = Slab::new(3);
        let mut old = Vec::new();
        for round in 0..1000u32 {
            let token = slab.insert(round).unwrap();
            assert_eq!(*slab.get(token).unwrap(), round);
            assert_eq!(*slab.remove(token).unwrap(), round);
            assert!(slab.remove(token).is_none());
            old.push(token);
        }
        let _live = slab.insert(7).unwrap();
        assert!(old.iter().all(|&token| slab.get(token).is_none()));
    }

    #[test]
    fn made_up_tokens_and_other_kinds_are_not_found() {
        let slab = Slab::new(1);
        let other = Slab::new(2);
        let token = slab.insert(1u8).unwrap();
        let foreign = other.insert(1u8).unwrap();
        assert!(slab.get(foreign).is_none());
        for made_up in [0, 1, u64::MAX, token + 1, token ^ (1 << 45), token << 1, !token] {
            assert!(slab.get(made_up).is_none(), "{made_up:#x}");
            assert!(slab.remove(made_up).is_none(), "{made_up:#x}");
        }
    }

    #[test]
    fn a_pin_keeps_a_removed_value() {
        struct Counted(Arc<AtomicUsize>);
        impl Drop for Counted {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let dropped = Arc::new(AtomicUsize::new(0));
        let slab = Slab::new(1);
        let token = slab.insert(Counted(dropped.clone())).unwrap_or_else(|_| unreachable!());
        let pin = slab.get(token).unwrap();
        drop(slab.remove(token).unwrap());
        assert_eq!(dropped.load(Ordering::Relaxed), 0);
        drop(pin);
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
        let _second = slab.insert(Counted(dropped.clone())).unwrap_or_else(|_| unreachable!());
        drop(slab);
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn places_beyond_the_first_chunk() {
        let slab = Slab::new(1);
        let count = if cfg!(miri) { 300 } else { 10_000 };
        let tokens: Vec<_> = (0..count).map(|n| slab.insert(n).unwrap()).collect();
        for (n, &token) in tokens.iter().enumerate() {
            assert_eq!(*slab.get(token).unwrap(), n);
        }
        assert_eq!(slab.each().map(|(_, value)| *value).sum::<usize>(), count * (count - 1) / 2);
        assert!(slab.each().zip(&tokens).all(|((token, _), &known)| token == known));
        for (place, chunk, offset) in [(0, 0, 0), (63, 0, 63), (64, 1, 0), (191, 1, 127), (192, 2, 0)] {
            assert_eq!(locate(place), (chunk, offset));
        }
    }

    #[test]
    fn a_slot_is_retired_when_its_generations_are_used_up() {
        let slab = Slab::new(1);
        let first = slab.insert(0).unwrap();
        drop(slab.remove(first));
        let place = (first >> GENERATION_BITS) as u32 & ((1 << PLACE_BITS) - 1);
        slab.slot(place).unwrap().state.store((GENERATION_MOST - 1) << GENERATION_SHIFT, Ordering::Relaxed);
        let last = slab.insert(1).unwrap();
        assert_eq!(last & GENERATION_MOST, GENERATION_MOST);
        drop(slab.remove(last));
        assert_ne!(slab.insert(2).unwrap() >> GENERATION_BITS, last >> GENERATION_BITS);
    }

    #[test]
    fn threads_insert_find_and_remove() {
        let slab = Slab::new(1);
        let rounds = if cfg!(miri) { 50 } else { 20_000 };
        let shared = AtomicU64::new(slab.insert(u64::MAX).unwrap());
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (slab, shared) = (&slab, &shared);
                scope.spawn(move || {
                    for round in 0..rounds {
                        let value = thread << 32 | round;
                        let token = slab.insert(value).unwrap();
                        assert_eq!(*slab.get(token).unwrap(), value);
                        let other = shared.swap(token, Ordering::Relaxed);
                        let found = slab.get(other);
                        drop(slab.remove(other).expect("whoever swaps it out is the only one to remove it"));
                        drop(found);
                    }
                });
            }
        });
    }
}
