//! Frames are whole, whoever is killed: a producer and readers in all modes are killed at random and begin anew, while
//! every block of every frame is checked when it comes and before it is given back. The dead leave no descriptor, no memory
//! and no slot, and delay nobody.
//!
//! The full run: `CAMLEASE_TORN_KILLS=10000 cargo test --release --test torn -- --nocapture`; CAMLEASE_SEED decides what is
//! killed when.

mod support;

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use camlease::{Camera, OpenOptions, StreamRequest};
use support::stamped::{
    self, Account, Belongings, Board, PHASES, Player, Random, SLOTS, Seen, Stage, belongings, eventually, memory,
    settled,
};
use support::{judged, number};

const KILLS: u64 = 300;
/// Between two rounds of kills, on average.
const PAUSE: Duration = Duration::from_millis(20);
/// Frames per second.
const RATE: u64 = 250;
/// One time in so many it publishes many at once.
const BURSTS: u64 = 32;

// Who plays where.
const PRODUCER: usize = 0;
const WITNESS: usize = 1;
const FIRST_READER: usize = 2;
const READERS: usize = 8;
/// Processes that are killed and begun as readers are, and have nothing to do with the share.
const FIRST_BYSTANDER: usize = FIRST_READER + READERS;
const BYSTANDERS: usize = 4;

/// Kills in a row of one sort.
const CHUNK: u64 = 50;

/// How much longer than without the kills nobody waits for a frame. The processors are shared with whatever else runs.
const DELAY: Duration = Duration::from_millis(250);

/// Kilobytes by which a producer may grow: its allocator's own unrest.
const GROWTH: u64 = 1024;

#[test]
fn plays_a_part() {
    if let Some((stage, part)) = stamped::part() {
        assert!(stamped::play(&stage, &part), "{part:?}");
        std::process::exit(0);
    }
}

struct Run {
    stage: Stage,
    parties: Vec<Option<Player>>,
    random: Random,
    seed: u64,
    kills: u64,
    producers_killed: u64,
    with_frames: u64,
    phases: [u64; PHASES.len()],
    begun: Instant,
}

impl Run {
    fn begin(seed: u64) -> Run {
        let stage = Stage::new("torn");
        let parties = (0..stamped::PARTIES).map(|_| None).collect();
        let random = Random(seed * 2 + 1);
        let mut run = Run {
            stage,
            parties,
            random,
            seed,
            kills: 0,
            producers_killed: 0,
            with_frames: 0,
            phases: Default::default(),
            begun: Instant::now(),
        };
        run.start(PRODUCER);
        run.stage.await_frames(PRODUCER, 1);
        run.start(WITNESS);
        run.stage.await_frames(WITNESS, 10);
        run
    }

    fn board(&self) -> &'static Board {
        self.stage.board
    }

    fn start(&mut self, party: usize) {
        let seed = self.random.below(u32::MAX.into());
        let part = match party {
            PRODUCER => format!("produce {party} {seed} {RATE} {BURSTS} 8 0"),
            WITNESS => format!("witness {party} 0 order"),
            party if party < FIRST_BYSTANDER => format!("read {party} {seed}"),
            _ => "stand-by".to_owned(),
        };
        self.board().parties[party].phase.store(stamped::BEGINS, SeqCst);
        self.parties[party] = Some(self.stage.start(&part));
    }

    fn pid(&self, party: usize) -> u32 {
        self.parties[party].as_ref().unwrap().pid()
    }

    /// Kills these at once, and waits until they are dead.
    fn kill(&mut self, victims: &[usize]) {
        for &party in victims {
            self.parties[party].as_ref().unwrap().strike();
        }
        for &party in victims {
            self.parties[party] = None;
        }
    }

    fn count(&mut self, victims: &[usize]) {
        for &party in victims {
            let seen = &self.board().parties[party];
            self.phases[seen.phase.load(SeqCst) as usize % PHASES.len()] += 1;
            self.with_frames += u64::from(seen.holds.load(SeqCst) > 0);
            self.producers_killed += u64::from(party == PRODUCER);
        }
        self.kills += victims.len() as u64;
    }

    #[track_caller]
    fn check(&mut self) {
        self.stage.check();
        for (at, party) in self.parties.iter_mut().enumerate() {
            let ended = party.as_mut().and_then(Player::has_ended);
            assert!(ended.is_none(), "seed {}: party {at} ended by itself: {ended:?}", self.seed);
        }
    }

    /// So many out of a row of parties, at random.
    fn some_of(&mut self, first: usize, all: usize, count: usize) -> Vec<usize> {
        let mut parties: Vec<usize> = (first..first + all).collect();
        for at in 0..count {
            let other = at + self.random.below((all - at) as u64) as usize;
            parties.swap(at, other);
        }
        parties.truncate(count);
        parties
    }

    fn pause(&mut self) {
        // Every fourth time the last ones have hardly begun.
        let most = if self.random.below(4) == 0 { PAUSE / 2 } else { PAUSE * 2 };
        std::thread::sleep(Duration::from_micros(self.random.below(most.as_micros() as u64)));
    }

    /// Kills readers, or bystanders, and begins new ones.
    fn kill_some_of(&mut self, first: usize, all: usize, kills: u64) {
        let mut left = kills;
        while left > 0 {
            self.pause();
            self.check();
            let most = left.min(BYSTANDERS as u64);
            let count = 1 + self.random.below(most);
            let victims = self.some_of(first, all, count as usize);
            if first == FIRST_READER {
                self.count(&victims);
            }
            self.kill(&victims);
            victims.iter().for_each(|&party| self.start(party));
            left -= count;
        }
    }

    /// Whether the witness waits longer while readers are killed than while others are who read nothing.
    fn delays_nobody(&mut self, kills: u64) -> Result<(), String> {
        let board = self.board();
        board.accounts[0].iter().for_each(Account::clear);
        let mut left = kills;
        while left > 0 {
            let some = left.min(CHUNK);
            for (account, first, all) in [(1, FIRST_BYSTANDER, BYSTANDERS), (2, FIRST_READER, READERS)] {
                board.account.store(account, SeqCst);
                self.kill_some_of(first, all, some);
                board.account.store(0, SeqCst);
            }
            self.tell_now_and_then();
            left -= some;
        }
        let [quiet, disturbed] = [0, 1].map(|account| board.accounts[0][account].seen());
        nobody_was_delayed(&quiet, &disturbed)
    }

    /// Kills readers and every now and then the producer, alone or with all its readers.
    fn kill_anybody(&mut self, kills: u64) {
        let until = self.kills + kills;
        while self.kills < until {
            self.pause();
            self.check();
            let count = 1 + self.random.below(BYSTANDERS as u64) as usize;
            let mut victims = match self.random.below(40) {
                0 => (FIRST_READER..FIRST_READER + READERS).collect(),
                _ => self.some_of(FIRST_READER, READERS, count),
            };
            if self.random.below(8) == 0 {
                victims.push(PRODUCER);
            }
            self.count(&victims);
            self.kill(&victims);
            victims.iter().for_each(|&party| self.start(party));
            if self.random.below(50) == 0 {
                // Those who stay get frames again from the next producer.
                self.stage.await_frames(WITNESS, 1);
            }
            self.tell_now_and_then();
        }
    }

    fn tell_now_and_then(&self) {
        if self.kills % 500 < 4 && self.kills >= 500 {
            println!("{}", self.words());
        }
    }

    fn words(&self) -> String {
        let board = self.board();
        let read = |counter: &std::sync::atomic::AtomicU64| counter.load(SeqCst);
        let phases: Vec<_> = PHASES.iter().zip(self.phases).map(|(words, count)| format!("{count} {words}")).collect();
        format!(
            "{} kills in {:.0?} ({} of producers, {} with frames in hand; {}); {} frames published, {} without room, {} \
             formats; {} frames received, {} blocks, {} looked at again, {} after their stream",
            self.kills,
            self.begun.elapsed(),
            self.producers_killed,
            self.with_frames,
            phases.join(", "),
            read(&board.published),
            read(&board.refused),
            read(&board.formats),
            read(&board.frames),
            read(&board.blocks),
            read(&board.again),
            read(&board.afterwards),
        )
    }

    /// Kills all readers but the witness, and waits until the producer has seen it.
    fn only_the_witness(&mut self) {
        let readers: Vec<usize> = (FIRST_READER..FIRST_READER + READERS).collect();
        let alive: Vec<usize> = readers.into_iter().filter(|&at| self.parties[at].is_some()).collect();
        self.count(&alive);
        self.kill(&alive);
        eventually("readers that are dead", || self.stage.readers(), |readers| readers[..] == ["witness".to_owned()]);
    }

    /// How many frames one reader may hold.
    fn room(&self) -> u32 {
        let camera = Camera::open(&format!("shared:{}", self.stage.name), OpenOptions::default()).unwrap();
        let format = camera.start(&StreamRequest { buffers: 32, ..StreamRequest::default() }).unwrap();
        drop(camera);
        eventually("the one who asked", || self.stage.readers().len(), |readers| *readers == 1);
        format.buffers
    }
}

#[test]
fn frames_are_whole_whoever_is_killed() {
    let kills = number("CAMLEASE_TORN_KILLS", KILLS);
    let mut run = Run::begin(number("CAMLEASE_SEED", 1));
    // What is there only after the first use is no leak.
    (FIRST_READER..FIRST_READER + READERS).for_each(|party| run.start(party));
    (FIRST_BYSTANDER..FIRST_BYSTANDER + BYSTANDERS).for_each(|party| run.start(party));
    run.kill_some_of(FIRST_READER, READERS, CHUNK / 2);
    run.only_the_witness();
    let (producer, witness) = (run.pid(PRODUCER), run.pid(WITNESS));
    let before = [producer, witness].map(settled);
    let (memory_before, room_before) = (memory(producer), run.room());
    assert!(room_before > 4, "{room_before}");

    // Readers alone are killed: one producer outlives them all, and a witness sees whether it is delayed.
    (FIRST_READER..FIRST_READER + READERS).for_each(|party| run.start(party));
    let of_readers = kills * 7 / 10;
    let board = run.board();
    judged(|| run.delays_nobody(of_readers.min(2000)));
    while run.kills < of_readers {
        run.kill_some_of(FIRST_READER, READERS, CHUNK.min(of_readers - run.kills));
        run.tell_now_and_then();
    }
    run.only_the_witness();
    let after = [producer, witness].map(|pid| {
        let was = before[(pid == witness) as usize];
        // A reader maps each slot when a frame comes in it first.
        let is_as_it_was = |now: &Belongings| match pid == witness {
            true => now.mappings <= SLOTS as usize + 2 && Belongings { mappings: was.mappings, ..*now } == was,
            false => *now == was,
        };
        eventually("what the dead left", || belongings(pid), is_as_it_was)
    });
    let (memory_after, room_after) = (memory(producer), run.room());
    println!("{}", run.words());
    println!("producer and witness before {before:?}, after {after:?}");
    println!("producer's memory in kB, its own and shared: before {memory_before:?}, after {memory_after:?}");
    println!("one reader may hold {room_before} frames before, {room_after} after");
    assert_eq!(room_after, room_before, "slots that the dead held");
    let ring = SLOTS * (stamped::BLOCK * stamped::BLOCKS[0]) as u64 / 1024;
    assert!(memory_after.0 <= memory_before.0 + GROWTH, "memory of its own: {memory_before:?} {memory_after:?}");
    assert!(memory_after.1 <= ring + GROWTH, "shared memory: {memory_after:?}, of a ring of {ring}");
    assert_eq!(board.refused.load(SeqCst), 0, "a frame found no room though readers held no more than they may");

    // Producers, too, in all states.
    board.may_reformat.store(1, SeqCst);
    (FIRST_READER..FIRST_READER + READERS).for_each(|party| run.start(party));
    let left = kills.saturating_sub(run.kills).max(CHUNK);
    run.kill_anybody(left);
    run.stage.await_frames(WITNESS, 1);
    println!("{}", run.words());
    let frames = run.board().frames.load(SeqCst);
    assert!(
        frames > run.kills
            && run.producers_killed > 0
            && run.with_frames > if kills < 2000 { 0 } else { run.kills / 10 },
        "{frames}"
    );

    // All at once: what the last producer leaves goes when somebody looks for it.
    let all: Vec<usize> = (0..run.parties.len()).filter(|&at| run.parties[at].is_some()).collect();
    run.kill(&all);
    run.stage.check();
    let left = run.stage.files();
    assert!(left.len() <= 2, "a lease and its socket at most: {left:?}");
    let served = camlease::shares().into_iter().find(|served| served.name == run.stage.name);
    assert_eq!(served, None);
    assert_eq!(run.stage.files(), Vec::<String>::new());
}

fn nobody_was_delayed(quiet: &Seen, disturbed: &Seen) -> Result<(), String> {
    println!("witness while bystanders are killed: {}", quiet.words());
    println!("witness while readers are killed:    {}", disturbed.words());
    if quiet.frames.min(disturbed.frames) <= 100 {
        return Err("the witness got hardly a frame".into());
    }
    for (what, share) in [("99 of 100", 0.99), ("all", 1.0)] {
        for (sort, usual, seen) in
            [("gaps", quiet.gap(share), disturbed.gap(share)), ("delays", quiet.delay(share), disturbed.delay(share))]
        {
            if seen >= usual * 3 + DELAY {
                return Err(format!("{what} {sort}: {seen:?} with readers that die, {usual:?} without"));
            }
        }
    }
    Ok(())
}

/// The writer is at the heels of readers who take the oldest frames that there are.
#[test]
fn frames_are_whole_at_full_speed() {
    let seconds = number("CAMLEASE_TORN_SECONDS", 3);
    let stage = Stage::new("torn-race");
    let small = stamped::SMALL;
    let _producer = stage.start(&format!("produce 0 1 0 0 1 {small}"));
    stage.await_frames(0, 1);
    let _racers: Vec<Player> = (1..=4).map(|party| stage.start(&format!("race {party} {party}"))).collect();
    (1..=4).for_each(|party| stage.await_frames(party, 1));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        stage.check();
        std::thread::sleep(Duration::from_millis(50));
    }
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(SeqCst);
    let taken: Vec<u64> = stage.board.parties[1..=4].iter().map(|party| read(&party.frames)).collect();
    println!("{} frames published in {seconds} s, {taken:?} taken", read(&stage.board.published));
    assert!(taken.iter().all(|frames| *frames > 100), "{taken:?}");
    assert_eq!(read(&stage.board.refused), 0);
}
