// What has to hold of the protocol: included for it as it is, and for each mutant.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use self::ring::{Control, Header, Mode, Reader, SLOTS_MOST, Taken, Told, Writer};

pub const PROPERTIES: &[(&str, fn())] = &[
    ("a frame that is held is not written, and is whole", a_held_frame_stays),
    ("frames come in order, and those that do not are counted", frames_come_in_order),
    ("a reader that waits is woken", a_wake_up_is_not_lost),
    ("a reader that waits is woken at the end", the_end_is_told),
    ("every second frame", every_second),
    ("a rate is kept", a_rate),
    ("the newest frame stays where readers look for it", the_newest_stays),
    ("a dead reader's slots come back", the_dead_hold_nothing),
    ("two readers each hold what they hold", two_readers),
];

/// The memory: words, and what no two may touch at once unless both only read.
#[derive(Default)]
struct Shared {
    header: Header,
    controls: [Control; 2],
    frames: [UnsafeCell<u64>; SLOTS_MOST],
    /// An eventfd's.
    woken: AtomicBool,
}

fn explore(body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(2));
    model.max_branches = 10_000;
    model.check(move || {
        crate::EXECUTIONS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        body();
    });
}

fn publish(writer: &mut Writer, shared: &Shared, slots: usize, readers: usize) -> bool {
    let held = || shared.controls[..readers].iter().fold(0, |all, control| all | control.held());
    let Some(slot) = writer.take(&shared.header, 0..slots, held) else { return false };
    let number = writer.published();
    shared.frames[slot].with_mut(|frame| {
        // SAFETY: loom looks whether it is ours alone.
        unsafe { *frame = number + 100 };
    });
    let told = Told { sequence: number, timestamp_ns: 1000 + number as i64 * 10, ..Told::default() };
    writer.publish(&shared.header, slot, &told);
    for control in &shared.controls[..readers] {
        if control.is_to_be_woken(number + 1, told.timestamp_ns) {
            shared.woken.store(true, Ordering::Relaxed);
        }
    }
    true
}

/// Looks at a frame's bytes, which are that frame's.
fn look(shared: &Shared, slot: usize, told: &Told) {
    shared.frames[slot].with(|frame| {
        // SAFETY: as above.
        assert_eq!(unsafe { *frame }, told.sequence + 100, "another frame's bytes");
    });
    assert_eq!(told.timestamp_ns, 1000 + told.sequence as i64 * 10, "torn words");
}

fn a_held_frame_stays() {
    explore(|| {
        let shared = Arc::new(Shared::default());
        let mut writer = Writer::new(2, 0);
        assert!(publish(&mut writer, &shared, 2, 1));
        let other = shared.clone();
        let reading = thread::spawn(move || {
            let mut reader = Reader::new(&other.header, Mode::default(), 2, 1);
            let mut last = None;
            for _ in 0..2 {
                if let Taken::Frame { slot, told } = reader.take(&other.header, &other.controls[0]) {
                    look(&other, slot, &told);
                    assert!(last < Some(told.sequence), "not newer");
                    last = Some(told.sequence);
                    look(&other, slot, &told);
                    reader.release(&other.controls[0], slot);
                }
            }
        });
        publish(&mut writer, &shared, 2, 1);
        publish(&mut writer, &shared, 2, 1);
        reading.join().unwrap();
        assert!(publish(&mut writer, &shared, 2, 1), "a slot that nobody holds");
    });
}

fn frames_come_in_order() {
    explore(|| {
        let shared = Arc::new(Shared::default());
        let mode = Mode { in_order: true, ..Mode::default() };
        let mut reader = Reader::new(&shared.header, mode, 2, 1);
        let other = shared.clone();
        let writing = thread::spawn(move || {
            let mut writer = Writer::new(2, 1);
            (0..5).for_each(|_| _ = publish(&mut writer, &other, 2, 1));
            writer.published()
        });
        let mut taken = Vec::new();
        let mut take = |reader: &mut Reader| {
            let Taken::Frame { slot, told } = reader.take(&shared.header, &shared.controls[0]) else { return false };
            look(&shared, slot, &told);
            reader.release(&shared.controls[0], slot);
            assert!(taken.last().is_none_or(|last| *last < told.sequence), "out of order");
            taken.push(told.sequence);
            let faring = shared.controls[0].faring();
            assert_eq!(faring.taken, taken.len() as u64);
            // What went by before its first frame is not its loss.
            assert_eq!(faring.taken + faring.lost, told.sequence + 1 - taken[0], "a loss that was not counted");
            true
        };
        take(&mut reader);
        take(&mut reader);
        let published = writing.join().unwrap();
        while take(&mut reader) {}
        assert_eq!(reader.behind(&shared.header), 0);
        assert_eq!(taken.last(), Some(&(published - 1)), "the newest is always there");
    });
}

fn two_readers() {
    explore(|| {
        let shared = Arc::new(Shared::default());
        let mut writer = Writer::new(3, 0);
        publish(&mut writer, &shared, 3, 2);
        let read = |at: usize, shared: Arc<Shared>| {
            move || {
                let mut reader = Reader::new(&shared.header, Mode::default(), 3, 1);
                if let Taken::Frame { slot, told } = reader.take(&shared.header, &shared.controls[at]) {
                    look(&shared, slot, &told);
                    reader.release(&shared.controls[at], slot);
                }
            }
        };
        let reading = [thread::spawn(read(0, shared.clone())), thread::spawn(read(1, shared.clone()))];
        publish(&mut writer, &shared, 2, 2);
        publish(&mut writer, &shared, 2, 2);
        reading.into_iter().for_each(|reading| reading.join().unwrap());
    });
}

fn a_wake_up_is_not_lost() {
    explore(|| {
        let shared = Arc::new(Shared::default());
        let other = shared.clone();
        let writing = thread::spawn(move || {
            let mut writer = Writer::new(2, 0);
            (0..2).for_each(|_| _ = publish(&mut writer, &other, 2, 1));
        });
        let mut reader = Reader::new(&shared.header, Mode::default(), 2, 1);
        let waits = (0..3).any(|_| match reader.take(&shared.header, &shared.controls[0]) {
            Taken::Frame { slot, .. } => {
                reader.release(&shared.controls[0], slot);
                false
            }
            _ => reader.wait(&shared.header, &shared.controls[0]),
        });
        writing.join().unwrap();
        let is_there = reader.behind(&shared.header) > 0;
        assert!(!waits || !is_there || shared.woken.load(Ordering::Relaxed), "it sleeps, and the frame is there");
    });
}

fn the_end_is_told() {
    explore(|| {
        let shared = Arc::new(Shared::default());
        let other = shared.clone();
        let writing = thread::spawn(move || {
            other.header.end();
            if other.controls[0].is_to_be_woken_at_the_end() {
                other.woken.store(true, Ordering::Relaxed);
            }
        });
        let reader = Reader::new(&shared.header, Mode::default(), 2, 1);
        let waits = reader.wait(&shared.header, &shared.controls[0]);
        writing.join().unwrap();
        assert!(!waits || shared.woken.load(Ordering::Relaxed), "it sleeps, and it is over");
    });
}

/// What a reader gets that takes three times while four frames come.
fn taken_in(mode: Mode, shared: Arc<Shared>) -> Vec<u64> {
    let other = shared.clone();
    let writing = thread::spawn(move || {
        let mut writer = Writer::new(3, 2);
        (0..4).for_each(|_| _ = publish(&mut writer, &other, 3, 1));
    });
    let mut reader = Reader::new(&shared.header, mode, 3, 1);
    let mut taken = Vec::new();
    for at in 0..3 {
        if at == 2 {
            thread::yield_now();
        }
        if let Taken::Frame { slot, told } = reader.take(&shared.header, &shared.controls[0]) {
            look(&shared, slot, &told);
            reader.release(&shared.controls[0], slot);
            taken.push(told.sequence);
        }
    }
    writing.join().unwrap();
    taken
}

fn every_second() {
    for in_order in [false, true] {
        explore(move || {
            let mode = Mode { in_order, every: 2, ..Mode::default() };
            let taken = taken_in(mode, Arc::default());
            assert!(taken.windows(2).all(|pair| pair[1] >= pair[0] + 2), "{taken:?}");
        });
    }
}

fn a_rate() {
    for in_order in [false, true] {
        explore(move || {
            // Frames come every 10 ns.
            let mode = Mode { in_order, interval_ns: 20, ..Mode::default() };
            let taken = taken_in(mode, Arc::default());
            assert!(taken.windows(2).all(|pair| pair[1] >= pair[0] + 2), "{taken:?}");
        });
    }
}

fn the_newest_stays() {
    explore(|| {
        let shared = Arc::new(Shared::default());
        let mut writer = Writer::new(2, 0);
        publish(&mut writer, &shared, 2, 1);
        let other = shared.clone();
        let writing = thread::spawn(move || {
            // The next frame is not there yet when the slot for it is taken.
            writer.take(&other.header, 0..2, || other.controls[0].held());
            writer.take(&other.header, 0..2, || other.controls[0].held());
        });
        let mut reader = Reader::new(&shared.header, Mode::default(), 2, 1);
        let taken = reader.take(&shared.header, &shared.controls[0]);
        assert!(matches!(taken, Taken::Frame { .. }), "the newest frame is not there");
        writing.join().unwrap();
    });
}

fn the_dead_hold_nothing() {
    explore(|| {
        let shared = Arc::new(Shared::default());
        let mut writer = Writer::new(3, 0);
        publish(&mut writer, &shared, 3, 1);
        let other = shared.clone();
        let dying = thread::spawn(move || {
            let mut reader = Reader::new(&other.header, Mode::default(), 3, 1);
            reader.take(&other.header, &other.controls[0]);
        });
        publish(&mut writer, &shared, 3, 1);
        dying.join().unwrap();
        // Its page is not looked at any more.
        for _ in 0..2 * SLOTS_MOST {
            assert!(publish(&mut writer, &shared, 3, 0), "a slot is lost");
        }
        let slots: u64 = (0..SLOTS_MOST).filter(|&slot| writer.empty(&shared.header, slot, || 0)).count() as u64;
        assert_eq!(slots, SLOTS_MOST as u64);
    });
}
