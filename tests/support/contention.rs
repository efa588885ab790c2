//! Processes that contend for one camera (`tests/c/contend.c`) while they are killed at random moments: never two of them
//! hold it, nobody waits while it is free, the next holder learns how the last one ended, and nothing stale is left.
//!
//! What they do is decided by seeds of their own, and what is killed when by one that is printed on failure; how the
//! machine's scheduler mixes it all is not in the seed.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::time::{Duration, Instant};

use camlease::{Camera, LastExit, OpenOptions, holders};

const SLOTS: usize = 16;
const WORDS: usize = 480;
const GAPS: usize = 1 << 18;
const IDLE: u32 = 0;
const OPENING: u32 = 1;
/// 1 << CAMLEASE_EXIT_CLEAN
const CLEAN: u64 = 1;

/// How soon the camera is to be had again by those who wait for it, once nobody has it.
pub struct Bounds {
    /// Half of all: a wait that is woken is over at once, where one that only looks again now and then takes 50 ms.
    pub median: Duration,
    /// The processes share processors with whatever else runs.
    pub worst: Duration,
}

/// Without a claim for so long nobody gets it at all.
const STANDSTILL: Duration = Duration::from_secs(20);

/// After so many kills everything has to have happened once. Where the processes get little of their processors it may take
/// some times as many, with longer pauses.
const ENOUGH: u64 = 150;
const TIMES: u32 = 10;

#[repr(C)]
struct Slot {
    pid: AtomicU32,
    phase: AtomicU32,
    killed: AtomicU32,
    rest: AtomicU32,
    since_us: AtomicU64,
}

/// As in `tests/c/contend.c`.
#[repr(C)]
struct Board {
    holder: AtomicU32,
    stop: AtomicU32,
    complaints: AtomicU32,
    blurs: AtomicU32,
    blurs_at_claim: AtomicU32,
    rest: AtomicU32,
    claims: AtomicU64,
    leaves: AtomicU64,
    freed: AtomicU64,
    begun_us: AtomicU64,
    evicted: AtomicU32,
    regained: AtomicU32,
    frames: AtomicU32,
    forked: AtomicU32,
    after_death: AtomicU32,
    exits_checked: AtomicU32,
    dirty: AtomicU32,
    busy: AtomicU32,
    slots: [Slot; SLOTS],
    words: [u8; WORDS],
    gaps: [AtomicU32; GAPS],
}

fn now_us() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for a timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }
}

pub struct Contention {
    uri: String,
    /// What the names of its lease's files begin with.
    files: String,
    seed: u64,
    random: Random,
    program: PathBuf,
    path: PathBuf,
    board: &'static Board,
    processes: Vec<Option<Child>>,
    kills: u64,
    killed_holders: u64,
    /// Claims when each was killed.
    claims_at_kills: Vec<u64>,
}

impl Contention {
    /// So many processes for a camera whose leases are filed under `key`.
    pub fn begin(uri: &str, key: &str, processes: usize, seed: u64) -> Contention {
        assert!(processes <= SLOTS);
        leases_in_memory();
        let path = std::env::temp_dir().join(format!("contention-{}-{key}-{processes}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        file.set_len(size_of::<Board>() as u64).unwrap();
        let (protection, length) = (libc::PROT_READ | libc::PROT_WRITE, size_of::<Board>());
        // SAFETY: a file of that length, all zeroes, which is a valid board; it stays mapped as long as this process.
        let board: &'static Board = unsafe {
            let memory = libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, file.as_raw_fd(), 0);
            assert_ne!(memory, libc::MAP_FAILED);
            &*memory.cast::<Board>()
        };
        board.begun_us.store(now_us(), SeqCst);
        board.leaves.store(CLEAN, SeqCst);
        let mut contention = Contention {
            uri: uri.to_owned(),
            files: format!("camlease-{key}."),
            seed,
            random: Random(seed * 2 + 1),
            program: super::c_program("contend.c", &[]),
            path,
            board,
            processes: Vec::new(),
            kills: 0,
            killed_holders: 0,
            claims_at_kills: Vec::new(),
        };
        contention.processes.resize_with(processes, || None);
        (0..processes).for_each(|at| contention.start(at));
        contention
    }

    fn start(&mut self, at: usize) {
        let slot = &self.board.slots[at];
        slot.phase.store(IDLE, SeqCst);
        slot.killed.store(0, SeqCst);
        let child = Command::new(&self.program)
            .args([self.uri.as_str(), self.path.to_str().unwrap(), &at.to_string()])
            .arg(self.random.below(1 << 30).to_string())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        slot.pid.store(child.id(), SeqCst);
        self.processes[at] = Some(child);
    }

    /// Kills one, and takes note of its end.
    fn kill(&mut self, at: usize) {
        let slot = &self.board.slots[at];
        let Some(mut child) = self.processes[at].take() else { return };
        slot.killed.store(1, SeqCst);
        self.claims_at_kills.push(self.board.claims.load(SeqCst));
        child.kill().unwrap();
        let pid = child.id();
        self.killed_holders += u64::from(self.board.holder.load(SeqCst) == pid);
        child.wait().unwrap();
        self.kills += 1;
        // It may have had the camera, or taken note of its former holder's end, and have told nobody yet.
        if slot.phase.load(SeqCst) == OPENING {
            self.board.blurs.fetch_add(1, SeqCst);
        }
        // Only one that may have had it: whoever has it tells when it lets go.
        if [0, pid].contains(&self.board.holder.load(SeqCst)) {
            self.note_freed();
        }
        let _ = self.board.holder.compare_exchange(pid, 0, SeqCst, SeqCst);
        slot.phase.store(IDLE, SeqCst);
        slot.killed.store(0, SeqCst);
    }

    fn note_freed(&self) {
        let now = now_us() - self.board.begun_us.load(SeqCst);
        self.board.freed.fetch_max(self.board.claims.load(SeqCst) << 40 | now, SeqCst);
    }

    /// One to be killed: every other time whoever has it.
    fn victim(&mut self) -> usize {
        let holder = self.board.holder.load(SeqCst);
        let of_holder = (0..self.processes.len()).find(|&at| self.board.slots[at].pid.load(SeqCst) == holder);
        match of_holder {
            Some(at) if self.random.below(2) == 0 => at,
            _ => self.random.below(self.processes.len() as u64) as usize,
        }
    }

    /// Kills so many, one after the other, each followed by a new one; more where not everything has happened by then.
    #[track_caller]
    pub fn kill_at_random(&mut self, kills: u64, pause: Duration) {
        let mut claimed = (self.board.claims.load(SeqCst), Instant::now());
        for made in 0..kills * u64::from(TIMES) {
            let is_enough = made >= kills;
            if is_enough && (made < ENOUGH || self.figures().has_everything()) {
                break;
            }
            let pause = if is_enough { pause * TIMES } else { pause };
            std::thread::sleep(Duration::from_micros(self.random.below(2 * pause.as_micros() as u64)));
            self.check();
            let claims = self.board.claims.load(SeqCst);
            if claims != claimed.0 {
                claimed = (claims, Instant::now());
            }
            assert!(claimed.1.elapsed() < STANDSTILL, "{}: nobody gets it: {}", self.name(), self.stands());
            let at = self.victim();
            self.kill(at);
            self.start(at);
        }
    }

    fn name(&self) -> String {
        format!("{} with {} processes, seed {}, after {} kills", self.uri, self.processes.len(), self.seed, self.kills)
    }

    fn stands(&self) -> String {
        let board = self.board;
        let now = now_us() - board.begun_us.load(SeqCst);
        let slot = |slot: &Slot| {
            let since = now.saturating_sub(slot.since_us.load(SeqCst)) / 1000;
            format!("pid {} phase {} for {since} ms", slot.pid.load(SeqCst), slot.phase.load(SeqCst))
        };
        let slots: Vec<_> = board.slots[..self.processes.len()].iter().map(slot).collect();
        let holder = board.holder.load(SeqCst);
        format!("witness {holder}, {}; {:?}; {}", slots.join(", "), files(&self.files), holders(&self.uri).unwrap())
    }

    #[track_caller]
    fn check(&mut self) {
        let board = self.board;
        if board.complaints.load(SeqCst) == 0 {
            let ended = self.processes.iter_mut().flatten().find_map(|child| child.try_wait().unwrap());
            let may_end = board.stop.load(SeqCst) != 0 || board.complaints.load(SeqCst) != 0;
            assert!(ended.is_none() || may_end, "{}: one ended by itself: {ended:?}", self.name());
            return;
        }
        std::thread::sleep(Duration::from_millis(50)); // the words come after the number
        let words: Vec<_> = self.board.words.iter().copied().take_while(|byte| *byte != 0).collect();
        panic!("{}: {}", self.name(), String::from_utf8_lossy(&words));
    }

    /// Ends all in order: each closes what it has. Nothing is left.
    #[track_caller]
    pub fn end(mut self) -> Figures {
        self.board.stop.store(1, SeqCst);
        let deadline = Instant::now() + STANDSTILL;
        for at in 0..self.processes.len() {
            let mut child = self.processes[at].take().unwrap();
            while child.try_wait().unwrap().is_none() {
                assert!(Instant::now() < deadline, "{}: one does not end: {}", self.name(), self.stands());
                std::thread::sleep(Duration::from_millis(1));
            }
            self.check();
            assert!(child.wait().unwrap().success());
        }
        assert_eq!(self.board.holder.load(SeqCst), 0);
        // Each that was killed leaves a lease and a socket, which the next holder removes when it gets the camera: that may be
        // just before its claim is counted. Nobody need have held it since.
        let claims = self.board.claims.load(SeqCst);
        let since = self.claims_at_kills.iter().filter(|at| **at + 1 >= claims).count();
        let left = files(&self.files);
        assert!(left.len() <= 2 * self.processes.len().max(since), "{}: {left:?}", self.name());
        self.all_have_ended();
        self.tidy_up();
        self.nothing_is_left();
        self.figures()
    }

    /// Kills all together, at whatever moment. Nothing is left.
    #[track_caller]
    pub fn end_by_killing_all(mut self) -> Figures {
        for at in 0..self.processes.len() {
            self.board.slots[at].killed.store(1, SeqCst);
            self.processes[at].as_mut().unwrap().kill().unwrap();
        }
        (0..self.processes.len()).for_each(|at| self.kill(at));
        self.check();
        self.all_have_ended();
        self.tidy_up();
        self.nothing_is_left();
        self.figures()
    }

    /// Children that were forked live for a few milliseconds longer. One whose parent was killed in its fork has what that
    /// had, until it lets go.
    #[track_caller]
    fn all_have_ended(&self) {
        let deadline = Instant::now() + STANDSTILL;
        while let Some(process) = running_with(self.path.to_str().unwrap()) {
            assert!(Instant::now() < deadline, "{}: a process is left: {process}", self.name());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A dead holder's lease stays for the next one to learn from: that one is held here. A process that has no command line
    /// any more may be about to close what it has.
    #[track_caller]
    fn tidy_up(&self) {
        let options = OpenOptions { timeout: Some(STANDSTILL), ..OpenOptions::default() };
        drop(Camera::open(&self.uri, options).unwrap_or_else(|error| panic!("{}: {error}", self.name())));
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        let name = self.name();
        assert_eq!(files(&self.files), Vec::<String>::new(), "{name}: leases, or sockets beside them");
        // A program that another test starts has for a moment what is open here.
        let deadline = Instant::now() + STANDSTILL;
        let gone = |what: &dyn Fn() -> Vec<String>| {
            while let [first, ..] = &what()[..] {
                assert!(Instant::now() < deadline, "{name}: {first}");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        gone(&|| holders(&self.uri).unwrap().list.iter().map(|holder| format!("{holder:?}")).collect());
        let virtual_name = self.files.strip_prefix("camlease-virtual-").map(|name| name.trim_end_matches('.'));
        if let Some(camera) = virtual_name {
            gone(&|| sockets_of(camera));
        }
        let options = OpenOptions { timeout: Some(Duration::ZERO), ..OpenOptions::default() };
        let camera = Camera::open(&self.uri, options).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(camera.last_exit(), LastExit::Clean, "{name}: all is tidied up");
    }

    fn figures(&self) -> Figures {
        let board = self.board;
        let claims = board.claims.load(SeqCst);
        let gaps = board.gaps[1..(claims as usize + 1).min(GAPS)].iter().map(|gap| gap.load(SeqCst));
        let mut gaps: Vec<u32> = gaps.filter(|gap| *gap > 0).collect();
        gaps.sort();
        let read = |counter: &AtomicU32| u64::from(counter.load(SeqCst));
        Figures {
            name: format!("{} with {} processes", self.uri, self.processes.len()),
            kills: self.kills,
            killed_holders: self.killed_holders,
            claims,
            evicted: read(&board.evicted),
            regained: read(&board.regained),
            frames: read(&board.frames),
            forked: read(&board.forked),
            exits_checked: read(&board.exits_checked),
            dirty: read(&board.dirty),
            busy: read(&board.busy),
            gaps,
        }
    }
}

impl Drop for Contention {
    fn drop(&mut self) {
        for child in self.processes.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// What came of it.
pub struct Figures {
    name: String,
    pub kills: u64,
    pub killed_holders: u64,
    pub claims: u64,
    pub evicted: u64,
    pub regained: u64,
    pub frames: u64,
    pub forked: u64,
    pub exits_checked: u64,
    pub dirty: u64,
    pub busy: u64,
    /// Microseconds from the camera's being free to the next claim, those of claims alone that somebody waited for.
    gaps: Vec<u32>,
}

impl Figures {
    fn gap(&self, share: f64) -> Duration {
        let at = ((self.gaps.len().max(1) - 1) as f64 * share) as usize;
        Duration::from_micros(self.gaps.get(at).copied().unwrap_or(0).into())
    }

    /// Whether it all has happened.
    fn has_everything(&self) -> bool {
        let Figures { killed_holders, evicted, regained, frames, forked, exits_checked, dirty, .. } = self;
        let all = [killed_holders, evicted, regained, frames, forked, exits_checked, dirty];
        all.iter().all(|count| **count > 0) && self.claims > self.kills / 10
    }

    /// Prints them, and panics where somebody waited for a camera that nobody had.
    #[track_caller]
    pub fn hold(&self, bounds: Bounds) {
        self.judge(bounds).unwrap_or_else(|words| panic!("{words}"));
    }

    /// The same; how long somebody waited for a camera that nobody had is returned, as it depends on what else the
    /// processors had to do.
    #[track_caller]
    pub fn judge(&self, bounds: Bounds) -> Result<(), String> {
        let Figures { name, kills, killed_holders, claims, evicted, regained, frames, forked, .. } = self;
        let Figures { exits_checked, dirty, busy, .. } = self;
        let ms = |share| self.gap(share).as_secs_f64() * 1e3;
        println!(
            "{name}: {kills} kills, {killed_holders} of them of the holder; {claims} claims, {evicted} hand-overs, \
             {regained} regained, {busy} timed out, {frames} frames, {forked} forks; {exits_checked} last exits checked, \
             {dirty} of them dirty; free to claimed, {} times: median {:.2} ms, p99 {:.1} ms, worst {:.1} ms",
            self.gaps.len(),
            ms(0.5),
            ms(0.99),
            ms(1.0)
        );
        assert!(*kills < ENOUGH || self.has_everything(), "{name}: something did not happen once");
        assert!(*claims > *kills / 10, "{name}");
        if self.gap(0.5) >= bounds.median {
            return Err(format!("{name}: it lay free for {:?}, in the median", self.gap(0.5)));
        }
        if self.gap(1.0) >= bounds.worst {
            return Err(format!("{name}: it lay free for {:?}, and somebody waited", self.gap(1.0)));
        }
        Ok(())
    }
}

/// Has this test and its programs file their leases in a folder in memory, as /run is on most machines: on a disk that is
/// busy a file may take a second to be made.
pub fn leases_in_memory() {
    static CHOSEN: Once = Once::new();
    CHOSEN.call_once(|| {
        let folder = folder_in_memory();
        let _ = fs::DirBuilder::new().mode(0o700).create(&folder);
        if folder.is_dir() {
            // SAFETY: of this process's threads only Rust code reads its environment, under std's lock.
            unsafe { std::env::set_var("CAMLEASE_RUNTIME_DIR", folder) };
        }
    });
}

fn folder_in_memory() -> PathBuf {
    // SAFETY: no pointers.
    PathBuf::from(format!("/dev/shm/camlease-contention-{}", unsafe { libc::geteuid() }))
}

/// Files of leases, and sockets beside them, in all folders where they may be.
pub fn files(prefix: &str) -> Vec<String> {
    let folders = [folder_in_memory(), "/run/camlease".into(), "/tmp".into()];
    let names = folders.into_iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    names.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.starts_with(prefix)).collect()
}

/// Sockets that bear the name of this virtual camera: those that hold it, whoever has them, and of those who wait for it.
pub fn sockets_of(camera: &str) -> Vec<String> {
    let its = format!("@camlease/virtual/{camera}");
    let bound = fs::read_to_string("/proc/net/unix").unwrap();
    bound.lines().filter(|line| line.contains(&its)).map(str::to_owned).collect()
}

/// A living process with that word in its command line.
fn running_with(word: &str) -> Option<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok()).find(|line| line.contains(word))
}
