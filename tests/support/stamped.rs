//! Frames that tell whether they are whole, and the processes that publish and read them.
//!
//! Each block of a frame says at its beginning, in its middle and at its end who made it, which frame it belongs to, when
//! that was and which block it is. A process is the running test binary once more, which plays a part instead of testing;
//! all of them see one board of memory, so that what they saw outlives their being killed.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

use super::rough;
use camlease::{Allowed, Camera, DropPolicy, FourCc, Frame, Kind, Map, OpenOptions};
use camlease::{Publisher, Rate, ShareOptions, StreamFormat, StreamRequest};

pub const BLOCK: usize = 4096;
/// Words of a stamp: maker, sequence, time, block, blocks.
const STAMP: usize = 5;
const PLACES_IN_BLOCK: [usize; 3] = [0, BLOCK / 2, BLOCK - STAMP * 8];

/// Of a frame of each of the two formats that a producer goes between, and of one that takes no time to write.
pub const BLOCKS: [usize; 3] = [128, 96, 2];
pub const SMALL: usize = 2;

pub const PARTIES: usize = 16;
const WORDS: usize = 480;
const SAMPLES: usize = 1 << 17;
pub const WITNESSES: usize = 3;

// What a party is about.
pub const BEGINS: u32 = 0;
pub const OPENS: u32 = 1;
pub const STARTS: u32 = 2;
pub const WAITS: u32 = 3;
pub const HOLDS: u32 = 4;
pub const CLOSES: u32 = 5;
pub const COMMANDS: u32 = 6;
pub const CHANGES_FORMAT: u32 = 7;
pub const PHASES: [&str; 8] =
    ["beginning", "opening", "starting", "waiting", "holding frames", "closing", "in a command", "changing the format"];

/// What all see. All zeroes at first.
#[repr(C)]
pub struct Board {
    pub stop: AtomicU32,
    complaints: AtomicU32,
    words: [AtomicU8; WORDS],
    /// Producers that there were; each is known by its number.
    pub producers: AtomicU64,
    pub published: AtomicU64,
    /// Frames for which there was no room.
    pub refused: AtomicU64,
    pub formats: AtomicU64,
    /// Whether the producer changes its format now and then.
    pub may_reformat: AtomicU32,
    pub frames: AtomicU64,
    pub blocks: AtomicU64,
    /// Frames that were looked at again before they were given back, and after their stream had ended.
    pub again: AtomicU64,
    pub afterwards: AtomicU64,
    pub lost: AtomicU64,
    pub commands: AtomicU64,
    pub parties: [Party; PARTIES],
    /// Which account the witnesses' figures go to; 0 for none.
    pub account: AtomicU32,
    /// Of each witness, by its number.
    pub accounts: [[Account; 2]; WITNESSES],
}

#[repr(C)]
pub struct Party {
    pub phase: AtomicU32,
    pub holds: AtomicU32,
    pub frames: AtomicU64,
}

/// What a witness saw: frames and what lay between them.
#[repr(C)]
pub struct Account {
    count: AtomicU64,
    lost: AtomicU64,
    gaps: [AtomicU32; SAMPLES],
    delays: [AtomicU32; SAMPLES],
}

pub fn monotonic_ns() -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for a timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

pub fn stamp(frame: &mut [u8], maker: u64, sequence: u64, timestamp_ns: i64) {
    let blocks = (frame.len() / BLOCK) as u64;
    for (block, bytes) in frame.chunks_exact_mut(BLOCK).enumerate() {
        let words = [maker, sequence, timestamp_ns as u64, block as u64, blocks];
        for at in PLACES_IN_BLOCK {
            for (word, place) in words.iter().zip(bytes[at..].chunks_exact_mut(8)) {
                place.copy_from_slice(&word.to_le_bytes());
            }
        }
    }
}

/// The number of the frame's maker, if every block belongs to the one frame that it says it is.
pub fn check(frame: &Frame) -> Result<u64, String> {
    let data = frame.data(0);
    let blocks = data.len() / BLOCK;
    if !data.len().is_multiple_of(BLOCK) || blocks == 0 {
        return Err(format!("frame {} has {} bytes", frame.sequence(), data.len()));
    }
    let read = |at: usize| -> [u64; STAMP] {
        // Each is to be read from memory, however often that was read before.
        // SAFETY: within the frame's bytes.
        std::array::from_fn(|word| unsafe { data.as_ptr().add(at + word * 8).cast::<u64>().read_volatile() })
    };
    let maker = read(0)[0];
    for block in 0..blocks {
        let right = [maker, frame.sequence(), frame.timestamp_ns() as u64, block as u64, blocks as u64];
        for at in PLACES_IN_BLOCK {
            let there = read(block * BLOCK + at);
            if there != right {
                return Err(format!("torn: block {block} at {at} says {there:?} and should say {right:?}"));
            }
        }
    }
    Ok(maker)
}

impl Board {
    pub fn complain(&self, words: &str) {
        if self.complaints.fetch_add(1, SeqCst) == 0 {
            let bytes = words.bytes().take(WORDS - 1);
            self.words.iter().zip(bytes).for_each(|(place, byte)| place.store(byte, SeqCst));
        }
    }

    pub fn complaint(&self) -> Option<String> {
        if self.complaints.load(SeqCst) == 0 {
            return None;
        }
        std::thread::sleep(Duration::from_millis(50)); // the words come after the number
        let words: Vec<u8> = self.words.iter().map(|byte| byte.load(SeqCst)).take_while(|byte| *byte != 0).collect();
        Some(String::from_utf8_lossy(&words).into_owned())
    }

    pub fn stops(&self) -> bool {
        self.stop.load(SeqCst) != 0 || self.complaints.load(SeqCst) != 0
    }

    /// Looks at a frame; its maker.
    fn look(&self, frame: &Frame, when: &str) -> u64 {
        match check(frame) {
            Ok(maker) if (1..=self.producers.load(SeqCst)).contains(&maker) => maker,
            Ok(maker) => {
                self.complain(&format!("{when}: frame {} is by {maker}, whom nobody knows", frame.sequence()));
                maker
            }
            Err(words) => {
                self.complain(&format!("{when}: {words}"));
                0
            }
        }
    }
}

impl Account {
    fn note(&self, gap_ns: i64, delay_ns: i64, lost: u64) {
        let at = self.count.fetch_add(1, SeqCst) as usize % SAMPLES;
        self.gaps[at].store((gap_ns / 1000).clamp(0, u32::MAX.into()) as u32, SeqCst);
        self.delays[at].store((delay_ns / 1000).clamp(0, u32::MAX.into()) as u32, SeqCst);
        self.lost.fetch_add(lost, SeqCst);
    }

    /// Another attempt begins.
    pub fn clear(&self) {
        self.count.store(0, SeqCst);
        self.lost.store(0, SeqCst);
    }

    pub fn seen(&self) -> Seen {
        let count = self.count.load(SeqCst) as usize;
        let sorted = |samples: &[AtomicU32; SAMPLES]| {
            let mut all: Vec<u32> = samples[..count.min(SAMPLES)].iter().map(|sample| sample.load(SeqCst)).collect();
            all.sort_unstable();
            all
        };
        Seen {
            frames: count as u64,
            lost: self.lost.load(SeqCst),
            gaps: sorted(&self.gaps),
            delays: sorted(&self.delays),
        }
    }
}

/// What a witness saw in one account, in microseconds, sorted.
pub struct Seen {
    pub frames: u64,
    pub lost: u64,
    gaps: Vec<u32>,
    delays: Vec<u32>,
}

fn share_of(sorted: &[u32], share: f64) -> Duration {
    let at = ((sorted.len().max(1) - 1) as f64 * share) as usize;
    Duration::from_micros(sorted.get(at).copied().unwrap_or(0).into())
}

impl Seen {
    pub fn gap(&self, share: f64) -> Duration {
        share_of(&self.gaps, share)
    }

    pub fn delay(&self, share: f64) -> Duration {
        share_of(&self.delays, share)
    }

    pub fn words(&self) -> String {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let row = |of: &dyn Fn(f64) -> Duration| {
            format!(
                "median {:.2}, p99 {:.2}, p99.9 {:.2}, largest {:.2} ms",
                ms(of(0.5)),
                ms(of(0.99)),
                ms(of(0.999)),
                ms(of(1.0))
            )
        };
        let (gaps, delays) = (row(&|share| self.gap(share)), row(&|share| self.delay(share)));
        format!("{} frames, {} lost; between frames {gaps}; from published to seen {delays}", self.frames, self.lost)
    }
}

const PART: &str = "CAMLEASE_TEST_PART";
const STAGE: &str = "CAMLEASE_TEST_STAGE";

/// A board, and processes of this test that play on it.
pub struct Stage {
    /// Made by this process.
    is_own: bool,
    file: PathBuf,
    pub board: &'static Board,
    pub name: String,
}

/// Stages that there are in this process: the first makes their runtime folder, the last takes it away.
static STAGES: Mutex<u32> = Mutex::new(0);

/// Where the leases of this test's processes are.
pub fn runtime() -> PathBuf {
    match std::env::var_os(PART) {
        Some(_) => std::env::var_os("CAMLEASE_RUNTIME_DIR").unwrap().into(),
        None => Path::new("/dev/shm").join(format!("camlease-stage-{}", std::process::id())),
    }
}

impl Stage {
    pub fn new(name: &str) -> Stage {
        let name = format!("{name}-{}", std::process::id());
        let mut stages = STAGES.lock().unwrap();
        if *stages == 0 {
            let _ = fs::remove_dir_all(runtime());
            DirBuilder::new().mode(0o700).create(runtime()).unwrap();
            // SAFETY: of this process's threads only Rust code reads its environment, under std's lock.
            unsafe { std::env::set_var("CAMLEASE_RUNTIME_DIR", runtime()) };
        }
        *stages += 1;
        let file = Path::new("/dev/shm").join(format!("camlease-board-{name}"));
        let board = File::options().read(true).write(true).create(true).truncate(true).open(&file).unwrap();
        board.set_len(size_of::<Board>() as u64).unwrap();
        Stage { is_own: true, board: map(&board), file, name }
    }

    /// What is filed about its share.
    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(runtime()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let prefix = format!("camlease-share-{}.", self.name);
        let mut names: Vec<_> = names.filter(|name| name.starts_with(&prefix)).collect();
        names.sort();
        names
    }

    /// Where its share listens.
    #[track_caller]
    pub fn door(&self) -> PathBuf {
        let door = || rough::door(&runtime(), &self.name);
        eventually("nobody listens", door, Option::is_some).unwrap()
    }

    /// A process that plays `part`: its role, and what that is told.
    pub fn command(&self, part: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "plays_a_part", "--nocapture", "--test-threads=1", "-q"]);
        command.env(PART, part).env(STAGE, format!("{} {}", self.file.display(), self.name));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    pub fn start(&self, part: &str) -> Player {
        Player(self.command(part).spawn().unwrap())
    }

    #[track_caller]
    pub fn check(&self) {
        if let Some(words) = self.board.complaint() {
            panic!("{words}");
        }
    }

    pub fn ask(&self, verb: &str) -> camlease::Result<Map> {
        let request = Map::from_iter([("do".to_owned(), verb.into())]);
        camlease::command(&self.name, request, Duration::from_secs(10))
    }

    /// The names of the readers that its producer knows of.
    pub fn readers(&self) -> Vec<String> {
        let Ok(status) = self.ask("status") else { return vec!["no answer".into()] };
        let readers = status["readers"].as_array().unwrap().iter();
        readers.map(|reader| reader["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits for that many further frames of a party.
    #[track_caller]
    pub fn await_frames(&self, party: usize, count: u64) {
        let seen = || {
            self.check();
            self.board.parties[party].frames.load(SeqCst)
        };
        let begun = seen();
        eventually("frames", seen, |now| *now >= begun + count);
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if self.is_own {
            let _ = fs::remove_file(&self.file);
            let mut stages = STAGES.lock().unwrap();
            *stages -= 1;
            if *stages == 0 {
                let _ = fs::remove_dir_all(runtime());
            }
        }
    }
}

/// A process that plays a part. It dies with this.
pub struct Player(pub Child);

impl Player {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: no pointers; a child of ours that nobody has waited for.
        unsafe { libc::kill(self.pid() as i32, signal) };
    }

    /// Those that were not stopped: a signal reaches one after the other.
    pub fn running_threads(&self) -> usize {
        let threads = fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        let stat = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let runs = |stat: &String| !stat.rsplit(") ").next().unwrap_or("").starts_with('T');
        threads.map(|thread| stat(thread.unwrap())).filter(runs).count()
    }

    /// SIGKILL, without waiting for what comes of it.
    pub fn strike(&self) {
        self.signal(libc::SIGKILL);
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }
}

impl Drop for Player {
    fn drop(&mut self) {
        self.kill();
    }
}

fn map(file: &File) -> &'static Board {
    let (protection, length) = (libc::PROT_READ | libc::PROT_WRITE, size_of::<Board>());
    // SAFETY: a file of that length, all zeroes, which is a valid board; it stays mapped as long as this process.
    unsafe {
        let memory = libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, file.as_raw_fd(), 0);
        assert_ne!(memory, libc::MAP_FAILED);
        &*memory.cast::<Board>()
    }
}

/// What a process has of the things that must not leak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Belongings {
    pub descriptors: usize,
    /// Files in memory among them, and mappings of such.
    pub memory_files: usize,
    pub mappings: usize,
    pub threads: usize,
}

pub fn belongings(pid: u32) -> Belongings {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let links: Vec<_> = fs::read_dir(folder.join("fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    let maps = fs::read_to_string(folder.join("maps")).unwrap();
    Belongings {
        descriptors: links.len(),
        memory_files: links.iter().filter(|link| link.starts_with("/memfd:camlease")).count(),
        mappings: maps.lines().filter(|line| line.contains("/memfd:camlease")).count(),
        threads: fs::read_dir(folder.join("task")).unwrap().count(),
    }
}

/// Kilobytes of a process's memory that are its own, and that it has of files in memory.
pub fn memory(pid: u32) -> (u64, u64) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    (of("RssAnon:"), of("RssShmem:"))
}

/// Waits until `is_so`; panics after a while.
#[track_caller]
pub fn eventually<T: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> T, is_so: impl Fn(&T) -> bool) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let seen = look();
        if is_so(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "{what}: it is still {seen:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Ends a share. That is given a second for its threads to leave, and a busy machine may take longer.
#[track_caller]
pub fn unshare(camera: &Camera) {
    let is_late = |ended: &camlease::Result<()>| ended.as_ref().is_err_and(|error| error.kind() == Kind::Timeout);
    eventually("the end of a share", || camera.unshare(), |ended| !is_late(ended)).unwrap();
}

/// The part of the stage that this process plays, where it was started for one, and what it is told.
pub fn part() -> Option<(Stage, Vec<String>)> {
    let part = std::env::var(PART).ok()?;
    let stage = std::env::var(STAGE).unwrap();
    let (file, name) = stage.split_once(' ').unwrap();
    // Nobody outlives a test that panics.
    // SAFETY: no pointers.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let board = File::options().read(true).write(true).open(file).unwrap();
    let stage = Stage { is_own: false, board: map(&board), file: file.into(), name: name.to_owned() };
    Some((stage, part.split(' ').map(str::to_owned).collect()))
}

/// Plays a part; false for one that is not known here. A process that played ends here: what it leaves is the test's to clear.
pub fn play(stage: &Stage, part: &[String]) -> bool {
    let number = |at: usize| part.get(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    match part[0].as_str() {
        "produce" => {
            produce(stage, number(1) as usize, Random(number(2) * 2 + 1), [number(3), number(4), number(5), number(6)])
        }
        "race" => race(stage, number(1) as usize, Random(number(2) * 2 + 1)),
        "read" => read(stage, number(1) as usize, Random(number(2) * 2 + 1)),
        "witness" => witness(stage, number(1) as usize, number(2) as usize, &part[3]),
        "stand-by" => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        _ => return false,
    }
    true
}

pub fn format(which: usize) -> StreamFormat {
    let (width, height) = (BLOCK as u32, BLOCKS[which] as u32);
    StreamFormat {
        width,
        height,
        fourcc: FourCc::new(b"GREY"),
        rate: Rate::new(250, 1),
        stride: width,
        planes: vec![(width, BLOCK * BLOCKS[which])],
        buffers: 4,
    }
}

/// Slots that a producer's memory is for.
pub const SLOTS: u64 = 44;

pub fn options(name: &str) -> ShareOptions {
    ShareOptions {
        name: name.to_owned(),
        readers: Allowed::Owner,
        max_bytes: SLOTS * (BLOCK * BLOCKS[0]) as u64,
        ..ShareOptions::default()
    }
}

/// Publishes without end: at a rate, 0 for as fast as it can, and one time in `bursts` many as fast as it can.
fn produce(stage: &Stage, party: usize, mut random: Random, [rate, bursts, history, which]: [u64; 4]) {
    let (board, own) = (stage.board, &stage.board.parties[party]);
    let maker = board.producers.fetch_add(1, SeqCst) + 1;
    let mut which = which as usize;
    let publisher = loop {
        let options = ShareOptions { history: history as u32, ..options(&stage.name) };
        match Publisher::new(options, &format(which)) {
            Ok(publisher) => break publisher,
            // The one before is on its way out.
            Err(error) if error.kind() == Kind::Busy => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => return board.complain(&format!("a producer: {error}")),
        }
    };
    let mut bytes = vec![0u8; BLOCK * BLOCKS[0]];
    let period = Duration::from_nanos(1_000_000_000 / rate.max(1));
    let mut due = Instant::now();
    let mut sequence = 0;
    while !board.stops() {
        let burst = if bursts != 0 && random.below(bursts) == 0 { 1 + random.below(2 * SLOTS) } else { 1 };
        for _ in 0..burst {
            sequence += 1;
            let frame = &mut bytes[..BLOCK * BLOCKS[which]];
            let now = monotonic_ns();
            stamp(frame, maker, sequence, now);
            let counter = match publisher.publish(&[frame], sequence, now, false) {
                true => &board.published,
                false => &board.refused,
            };
            counter.fetch_add(1, SeqCst);
            own.frames.fetch_add(1, SeqCst);
        }
        if board.may_reformat.load(SeqCst) != 0 && random.below(20) == 0 {
            own.phase.store(CHANGES_FORMAT, SeqCst);
            which = 1 - which;
            if let Err(error) = publisher.set_format(&format(which)) {
                return board.complain(&format!("a format: {error}"));
            }
            board.formats.fetch_add(1, SeqCst);
        }
        if rate == 0 {
            continue;
        }
        own.phase.store(WAITS, SeqCst);
        due = (due + period).max(Instant::now() - period);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// What a reader has out: a frame, by whom, and until when.
type Held = VecDeque<(Frame, u64, Instant)>;

/// Opens, reads in one of the modes and closes, without end, with as many frames out for as long as comes by chance.
fn read(stage: &Stage, party: usize, mut random: Random) {
    let (board, own) = (stage.board, &stage.board.parties[party]);
    while !board.stops() {
        own.phase.store(OPENS, SeqCst);
        own.holds.store(0, SeqCst);
        let query = ["", "", "?every=3", "?rate=60", "?every=2&rate=100"][random.below(5) as usize];
        let uri = format!("shared:{}{query}", stage.name);
        let name = format!("reader {party}");
        let Ok(camera) = Camera::open(
            &uri,
            OpenOptions { name, timeout: Some(Duration::from_millis(500)), ..OpenOptions::default() },
        ) else {
            continue;
        };
        if random.below(4) == 0 {
            own.phase.store(COMMANDS, SeqCst);
            let _ = stage.ask("status");
            board.commands.fetch_add(1, SeqCst);
        }
        own.phase.store(STARTS, SeqCst);
        let drop_policy = if random.below(2) == 0 { DropPolicy::Oldest } else { DropPolicy::Newest };
        let request = StreamRequest { drop_policy, buffers: 1 + random.below(4) as u32, ..StreamRequest::default() };
        let Ok(format) = camera.start(&request) else {
            // There is no room before the dead are noticed, or the producer is dead.
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        let (mut held, mut last) = (Held::new(), (0, 0));
        let rounds = [3, 30, 2000][random.below(3) as usize];
        for _ in 0..random.below(rounds) {
            if board.stops() {
                break;
            }
            let now = Instant::now();
            while held.front().is_some_and(|(_, _, until)| *until <= now) || held.len() >= format.buffers as usize {
                let Some(one) = held.remove(random.below(held.len() as u64) as usize) else { break };
                own.holds.store(held.len() as u32, SeqCst);
                look_again(board, one);
            }
            own.phase.store(if held.is_empty() { WAITS } else { HOLDS }, SeqCst);
            let frame = match camera.next_frame(Some(Duration::from_millis(20))) {
                Ok(frame) => frame,
                Err(error) if matches!(error.kind(), Kind::Timeout | Kind::Disconnected | Kind::Budget) => continue,
                Err(error) => {
                    board.complain(&format!("reader {party}: {:?}: {error}", error.kind()));
                    break;
                }
            };
            let maker = board.look(&frame, "received");
            if (maker, frame.sequence()) <= last {
                board.complain(&format!("reader {party}: {maker}, {} after {last:?}", frame.sequence()));
            }
            last = (maker, frame.sequence());
            board.frames.fetch_add(1, SeqCst);
            board.blocks.fetch_add((frame.data(0).len() / BLOCK) as u64, SeqCst);
            own.frames.fetch_add(1, SeqCst);
            let keeps = Duration::from_micros(random.below(30_000));
            held.push_back((frame, maker, Instant::now() + keeps));
            own.holds.store(held.len() as u32, SeqCst);
        }
        own.phase.store(CLOSES, SeqCst);
        if random.below(2) == 0 {
            let _ = camera.stop();
        }
        drop(camera);
        // Frames stay, whatever becomes of the stream.
        board.afterwards.fetch_add(held.len() as u64, SeqCst);
        std::thread::sleep(Duration::from_micros(random.below(20_000)));
        held.into_iter().for_each(|one| look_again(board, one));
    }
}

/// Takes frames as fast as it can, in order or the newest, with as many out as it may have.
fn race(stage: &Stage, party: usize, mut random: Random) {
    let (board, own) = (stage.board, &stage.board.parties[party]);
    let camera = Camera::open(&format!("shared:{}", stage.name), OpenOptions::default());
    let drop_policy = if party.is_multiple_of(2) { DropPolicy::Newest } else { DropPolicy::Oldest };
    let request = StreamRequest { drop_policy, buffers: 3, ..StreamRequest::default() };
    let started = camera.and_then(|camera| camera.start(&request).map(|format| (camera, format.buffers as usize)));
    let (camera, most) = match started {
        Ok(started) => started,
        Err(error) => return board.complain(&format!("racer {party}: {error}")),
    };
    let mut held = Held::new();
    while !board.stops() {
        if held.len() >= most
            && let Some(one) = held.remove(random.below(most as u64) as usize)
        {
            look_again(board, one);
        }
        match camera.next_frame(Some(Duration::from_secs(10))) {
            Ok(frame) => {
                let maker = board.look(&frame, "received in a race");
                board.blocks.fetch_add((frame.data(0).len() / BLOCK) as u64, SeqCst);
                own.frames.fetch_add(1, SeqCst);
                held.push_back((frame, maker, Instant::now()));
            }
            Err(error) => return board.complain(&format!("racer {party}: {error}")),
        }
    }
}

fn look_again(board: &Board, (frame, maker, _): (Frame, u64, Instant)) {
    if board.look(&frame, "before it was given back") != maker {
        board.complain(&format!("frame {} is another one's by now", frame.sequence()));
    }
    board.again.fetch_add(1, SeqCst);
}

/// Reads all in order, the newest, or every other, and notes what lies between frames.
fn witness(stage: &Stage, party: usize, witness: usize, mode: &str) {
    let (board, own) = (stage.board, &stage.board.parties[party]);
    let (query, every) = if mode == "other" { ("?every=2", 2) } else { ("", 1) };
    let uri = format!("shared:{}{query}", stage.name);
    let options = OpenOptions { name: "witness".into(), ..OpenOptions::default() };
    let drop_policy = if mode == "newest" { DropPolicy::Oldest } else { DropPolicy::Newest };
    let request = StreamRequest { drop_policy, ..StreamRequest::default() };
    let Ok(camera) = Camera::open(&uri, options) else { return board.complain("a witness cannot open") };
    if let Err(error) = camera.start(&request) {
        return board.complain(&format!("a witness: {error}"));
    }
    let (mut last_ns, mut last_seen, mut account) = (0, (0, 0), 0);
    while !board.stops() {
        let frame = match camera.next_frame(Some(Duration::from_millis(200))) {
            Ok(frame) => frame,
            // Where its producer is killed, others may take its place before it.
            Err(error) if matches!(error.kind(), Kind::Timeout | Kind::Disconnected | Kind::Budget) => continue,
            Err(error) => return board.complain(&format!("a witness: {:?}: {error}", error.kind())),
        };
        let now = monotonic_ns();
        let maker = board.look(&frame, "witnessed");
        let seen = (maker, frame.sequence());
        let lost = if last_seen.0 == maker { (seen.1 - last_seen.1 - 1) / every } else { 0 };
        board.lost.fetch_add(lost, SeqCst);
        own.frames.fetch_add(1, SeqCst);
        // What lies across the border of two accounts belongs to neither.
        let accounts = board.account.load(SeqCst);
        if accounts != 0 && accounts == account && last_seen.0 == maker {
            board.accounts[witness][accounts as usize - 1].note(now - last_ns, now - frame.timestamp_ns(), lost);
        }
        (last_ns, last_seen, account) = (now, seen, accounts);
    }
}

/// What a process has once the last who asked it something is gone.
pub fn settled(pid: u32) -> Belongings {
    let mut last = (belongings(pid), Instant::now());
    while last.1.elapsed() < Duration::from_millis(100) {
        std::thread::sleep(Duration::from_millis(5));
        let now = belongings(pid);
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    last.0
}

/// A camera whose frames this process makes, one for each time that it is asked to.
pub struct Own {
    pub publisher: Publisher,
    pub bytes: Vec<u8>,
    pub sequence: u64,
}

impl Own {
    pub fn new(stage: &Stage, options: ShareOptions) -> Own {
        stage.board.producers.fetch_max(1, SeqCst);
        let bytes = vec![0; BLOCK * BLOCKS[0]];
        Own { publisher: Publisher::new(options, &format(0)).unwrap(), bytes, sequence: 0 }
    }

    pub fn publish(&mut self) {
        self.sequence += 1;
        let now = monotonic_ns();
        stamp(&mut self.bytes, 1, self.sequence, now);
        assert!(self.publisher.publish(&[&self.bytes], self.sequence, now, false), "there is room for a frame");
    }
}
