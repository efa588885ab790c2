//! The ring's protocol: one writer, many readers, who share nothing but words of memory. A reader can write its own
//! words alone, and no one waits for anyone: a process that stops or dies at any instruction delays nobody.
//!
//! A reader that wants a slot says so in its own words and then looks whether the slot still has the frame that it
//! wanted; the writer takes the frame out of a slot and then looks whether a reader has said that it wants it. Each has a
//! full barrier in between, so that at least one of the two sees the other, and gives way. This file knows neither
//! memory nor processes: a model checker goes through its interleavings (tests/model).

use super::sync::{AtomicU64, Ordering, fence};

/// Most slots of a ring: a reader tells by one bit for each which of them it holds.
#[cfg(not(loom))]
pub const SLOTS_MOST: usize = 64;
#[cfg(loom)]
pub const SLOTS_MOST: usize = 3;

#[cfg(not(loom))]
pub const PLANES_MOST: usize = 4;
#[cfg(loom)]
pub const PLANES_MOST: usize = 1;

/// What the writer writes and all readers read.
#[repr(C)]
#[cfg_attr(loom, derive(Default))]
pub struct Header {
    /// Frames that were published. Their numbers go from 0.
    head: AtomicU64,
    /// 1 when no further one will come.
    ended: AtomicU64,
    /// The slot of each of the newest frames, by its number.
    order: [AtomicU64; SLOTS_MOST],
    slots: [Slot; SLOTS_MOST],
}

#[repr(C)]
#[cfg_attr(loom, derive(Default))]
struct Slot {
    /// The number of the frame in it, and 1; 0 while there is none.
    stamp: AtomicU64,
    sequence: AtomicU64,
    timestamp_ns: AtomicU64,
    flags: AtomicU64,
    used: [AtomicU64; PLANES_MOST],
    offset: [AtomicU64; PLANES_MOST],
}

/// What one reader writes and the writer reads, and does not believe.
#[repr(C)]
#[cfg_attr(loom, derive(Default))]
pub struct Control {
    /// A bit for each slot that the reader holds or tries to.
    held: AtomicU64,
    /// How many frames are to be there before it is woken; 0 where it does not wait. The writer takes it away.
    wanted: AtomicU64,
    /// The frame that wakes it is not older than that.
    not_before_ns: AtomicU64,
    /// For those who ask how it fares: the number of its last frame, and 1; how many it got, and how many it lost.
    reached: AtomicU64,
    taken: AtomicU64,
    lost: AtomicU64,
}

/// What is told of a frame beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Told {
    pub sequence: u64,
    pub timestamp_ns: i64,
    pub corrupt: bool,
    pub used: [u64; PLANES_MOST],
    pub offset: [u64; PLANES_MOST],
}

/// How a reader fares, in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faring {
    pub held: u32,
    pub reached: u64,
    pub taken: u64,
    pub lost: u64,
}

impl Header {
    /// Frames that were published.
    pub fn published(&self) -> u64 {
        self.head.load(Ordering::Acquire)
    }

    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire) != 0
    }

    /// No further frame will come. What is there stays.
    pub fn end(&self) {
        self.ended.store(1, Ordering::Release);
    }

    fn slot_of(&self, number: u64) -> &AtomicU64 {
        &self.order[(number % SLOTS_MOST as u64) as usize]
    }
}

impl Control {
    /// The slots that it holds, in its own words.
    pub fn held(&self) -> u64 {
        self.held.load(Ordering::Acquire)
    }

    /// Whether its reader waits, and nobody has woken it.
    pub fn waits(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) != 0
    }

    pub fn faring(&self) -> Faring {
        let read = |word: &AtomicU64| word.load(Ordering::Relaxed);
        Faring {
            held: self.held().count_ones(),
            reached: read(&self.reached),
            taken: read(&self.taken),
            lost: read(&self.lost),
        }
    }

    /// Whether its reader waits for the frame that was published last. True once for each time that it waits.
    pub fn is_to_be_woken(&self, published: u64, timestamp_ns: i64) -> bool {
        let wanted = self.wanted.load(Ordering::Relaxed);
        if wanted == 0 || published < wanted || (timestamp_ns as u64) < self.not_before_ns.load(Ordering::Relaxed) {
            return false;
        }
        self.wanted.swap(0, Ordering::AcqRel) != 0
    }

    /// Whether its reader waits for anything at all, which it does no longer.
    pub fn is_to_be_woken_at_the_end(&self) -> bool {
        fence(Ordering::SeqCst);
        self.wanted.swap(0, Ordering::AcqRel) != 0
    }
}

/// The writer's own account of a ring.
pub struct Writer {
    /// Slots that there are.
    slots: usize,
    /// Frames that stay for readers who take all in order.
    history: u64,
    /// Those before this number no such reader wants any more.
    read: u64,
    published: u64,
    /// The number of the frame in each slot.
    numbers: [Option<u64>; SLOTS_MOST],
}

impl Writer {
    pub fn new(slots: usize, history: u64) -> Writer {
        Writer { slots: slots.min(SLOTS_MOST), history, read: 0, published: 0, numbers: [None; SLOTS_MOST] }
    }

    /// Readers who take all in order are through with the frames before this number, in their own words: one who lies
    /// loses frames.
    pub fn are_read(&mut self, before: u64) {
        self.read = before.min(self.published);
    }

    /// A slot of these that nobody reads, with no frame in it any more. `held` tells what readers hold now.
    ///
    /// Slots that were written before come first, and of them the one that was written last: its memory is there, and
    /// likely in the cache. With quick readers two slots take turns. A frame that is kept for slow ones goes only where
    /// there is no other, the oldest before all.
    pub fn take(
        &mut self,
        header: &Header,
        from: impl Iterator<Item = usize> + Clone,
        held: impl Fn() -> u64,
    ) -> Option<usize> {
        let kept_from = self.published.saturating_sub(self.history).max(self.read);
        let from = from.filter(|&slot| slot < self.slots);
        let mut candidates = [(0u64, 0usize); SLOTS_MOST];
        let mut count = 0;
        for slot in from {
            let rank = match self.numbers[slot] {
                // The newest stays: a reader that finds it gone can tell by that that there is a newer one.
                Some(number) if number + 1 == self.published => continue,
                Some(number) if number < kept_from => kept_from - number,
                None => u64::MAX / 2 + slot as u64,
                Some(number) => u64::MAX - (self.published - number),
            };
            candidates[count] = (rank, slot);
            count += 1;
        }
        let candidates = &mut candidates[..count];
        candidates.sort_unstable();
        candidates.iter().map(|&(_, slot)| slot).find(|&slot| self.empty(header, slot, &held))
    }

    /// Takes the frame out of a slot; false where a reader holds it.
    pub fn empty(&mut self, header: &Header, slot: usize, held: impl Fn() -> u64) -> bool {
        let is_held = || held() & (1 << slot) != 0;
        let Some(number) = self.numbers[slot] else {
            return true;
        };
        if is_held() {
            return false;
        }
        let stamp = &header.slots[slot].stamp;
        stamp.store(0, Ordering::Relaxed);
        // Either a reader that holds it now is seen here, or it sees that the frame is gone.
        fence(Ordering::SeqCst);
        if is_held() {
            stamp.store(number + 1, Ordering::Release);
            return false;
        }
        self.numbers[slot] = None;
        true
    }

    /// Shows a frame that was written into a slot which [`Writer::take`] gave; its number, and 1.
    pub fn publish(&mut self, header: &Header, slot: usize, told: &Told) -> u64 {
        let number = self.published;
        let place = &header.slots[slot];
        place.sequence.store(told.sequence, Ordering::Relaxed);
        place.timestamp_ns.store(told.timestamp_ns as u64, Ordering::Relaxed);
        place.flags.store(told.corrupt.into(), Ordering::Relaxed);
        for plane in 0..PLANES_MOST {
            place.used[plane].store(told.used[plane], Ordering::Relaxed);
            place.offset[plane].store(told.offset[plane], Ordering::Relaxed);
        }
        place.stamp.store(number + 1, Ordering::Release);
        header.slot_of(number).store(slot as u64, Ordering::Relaxed);
        self.numbers[slot] = Some(number);
        self.published = number + 1;
        header.head.store(self.published, Ordering::Release);
        // Either a reader that begins to wait now is seen by those who wake it, or it sees this frame.
        fence(Ordering::SeqCst);
        self.published
    }

    pub fn published(&self) -> u64 {
        self.published
    }
}

/// Which frames a reader wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    /// All that it can get, one after the other; else the newest.
    pub in_order: bool,
    /// Every so many.
    pub every: u64,
    /// At most one in so many nanoseconds.
    pub interval_ns: i64,
}

impl Default for Mode {
    fn default() -> Mode {
        Mode { in_order: false, every: 1, interval_ns: 0 }
    }
}

/// A reader's own account of a ring.
pub struct Reader {
    mode: Mode,
    slots: usize,
    /// How many frames it may hold.
    quota: u32,
    held: u64,
    /// The number of the first frame that it may take next.
    next: u64,
    /// The same when it took the last one: what lies between is lost.
    wanted: u64,
    due_ns: i64,
    taken: u64,
    lost: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    Frame {
        slot: usize,
        told: Told,
    },
    Nothing,
    /// It holds as many as it may.
    Full,
}

impl Reader {
    /// One that begins with the newest frame, where there is one.
    pub fn new(header: &Header, mode: Mode, slots: usize, quota: u32) -> Reader {
        let next = header.published().saturating_sub(1);
        let mode = Mode { every: mode.every.max(1), ..mode };
        Reader { mode, slots: slots.min(SLOTS_MOST), quota, held: 0, next, wanted: next, due_ns: 0, taken: 0, lost: 0 }
    }

    /// Takes the next frame and holds it.
    pub fn take(&mut self, header: &Header, control: &Control) -> Taken {
        if self.held.count_ones() >= self.quota {
            return Taken::Full;
        }
        // A writer that goes by this protocol leaves something to be found long before; another one does not keep us.
        for _ in 0..2 * SLOTS_MOST {
            let published = header.published();
            // Frames beyond the table's length are gone, whatever became of their slots.
            let oldest = published.saturating_sub(SLOTS_MOST as u64);
            let number = match self.mode.in_order {
                true => self.next.max(oldest),
                false => self.next.max(published.saturating_sub(1)),
            };
            if number >= published {
                return Taken::Nothing;
            }
            if let Some((slot, told)) = self.hold(header, control, number) {
                if told.timestamp_ns < self.due_ns {
                    self.release(control, slot);
                    self.next = number + 1;
                    continue;
                }
                self.account(control, number, told.timestamp_ns);
                return Taken::Frame { slot, told };
            }
            // Overwritten since: newer ones are there.
            if self.mode.in_order {
                self.next = number + 1;
            } else if header.published() == published {
                // It will be seen in a moment: whoever waits for it looks after a barrier.
                return Taken::Nothing;
            }
        }
        Taken::Nothing
    }

    /// Marks the slot of a frame as held, if the frame is there still.
    fn hold(&mut self, header: &Header, control: &Control, number: u64) -> Option<(usize, Told)> {
        let slot = header.slot_of(number).load(Ordering::Relaxed) as usize;
        let bit = 1u64 << (slot % SLOTS_MOST);
        // A slot that is held has an older frame.
        if slot >= self.slots || self.held & bit != 0 {
            return None;
        }
        let place = &header.slots[slot];
        // Who sees this store, and not the one that gave another slot back, has to see that slot's frame as read, too.
        control.held.store(self.held | bit, Ordering::Release);
        // Either the writer sees this, or the stamp is gone.
        fence(Ordering::SeqCst);
        if place.stamp.load(Ordering::Acquire) != number + 1 {
            control.held.store(self.held, Ordering::Release);
            return None;
        }
        self.held |= bit;
        let read = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let told = Told {
            sequence: read(&place.sequence),
            timestamp_ns: read(&place.timestamp_ns) as i64,
            corrupt: read(&place.flags) != 0,
            used: std::array::from_fn(|plane| read(&place.used[plane])),
            offset: std::array::from_fn(|plane| read(&place.offset[plane])),
        };
        Some((slot, told))
    }

    fn account(&mut self, control: &Control, number: u64, timestamp_ns: i64) {
        let Mode { every, interval_ns, .. } = self.mode;
        // What lies between, less what the mode leaves out.
        if self.taken > 0 && interval_ns == 0 {
            self.lost = self.lost.saturating_add(number.saturating_sub(self.wanted) / every);
        }
        // What it reads may be anything.
        self.next = number.saturating_add(every);
        self.wanted = self.next;
        if interval_ns > 0 {
            // On a schedule: a frame that comes a little late does not delay the ones after it.
            self.due_ns = self.due_ns.saturating_add(interval_ns);
            if self.due_ns <= timestamp_ns {
                self.due_ns = timestamp_ns.saturating_add(interval_ns);
            }
        }
        self.taken += 1;
        control.reached.store(number + 1, Ordering::Relaxed);
        control.taken.store(self.taken, Ordering::Relaxed);
        control.lost.store(self.lost, Ordering::Relaxed);
    }

    /// Gives a slot back.
    pub fn release(&mut self, control: &Control, slot: usize) {
        self.held &= !(1 << slot);
        // Reads of the frame's bytes come before.
        control.held.store(self.held, Ordering::Release);
    }

    /// Asks to be woken for the next frame; false where it is there already.
    pub fn wait(&self, header: &Header, control: &Control) -> bool {
        control.not_before_ns.store(self.due_ns as u64, Ordering::Relaxed);
        control.wanted.store(self.next.saturating_add(1), Ordering::Relaxed);
        // Either the writer sees this, or what it published is seen here.
        fence(Ordering::SeqCst);
        let waits = header.published() <= self.next && !header.has_ended();
        if !waits {
            control.wanted.store(0, Ordering::Relaxed);
        }
        waits
    }

    /// Frames that were published and not taken.
    pub fn behind(&self, header: &Header) -> u64 {
        header.published().saturating_sub(self.next)
    }
}
