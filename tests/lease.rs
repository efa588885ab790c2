//! What holders tell of themselves: true, never stale, and not to be forged by other users.

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use camlease::{Activity, Camera, Holder, LastExit, OpenOptions, holders};
use support::party::Party;
use support::{camera, own};

const NOBODY: u32 = 65534;

/// The folder that leases are in, as this user's processes have it.
fn folder() -> PathBuf {
    let own = Path::new("/run/camlease");
    if own.exists() { own.into() } else { "/tmp".into() }
}

/// The files about such a camera.
fn files(name: &str) -> Vec<PathBuf> {
    let prefix = format!("camlease-virtual-{}.", own(name));
    let is_one = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with(&prefix);
    let mut files: Vec<_> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).filter(is_one).collect();
    files.sort();
    files
}

/// Those who hold a camera that this process may have: without the programs that other tests start just now, which have
/// this one's open files until their exec, and no lease.
fn holders_but_for_ours(uri: &str) -> Vec<Holder> {
    let is_ours = |pid: i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit(") ").next().and_then(|rest| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        stat.is_empty() || parent == Some(std::process::id())
    };
    let mut list = holders(uri).unwrap().list;
    list.retain(|holder| holder.lease.is_some() || !is_ours(holder.pid));
    list
}

fn last_exit(uri: &str) -> LastExit {
    Camera::open(uri, OpenOptions::default()).unwrap().last_exit()
}

#[test]
fn a_holder_is_known_by_name_priority_and_activity() {
    let uri = &camera("lease-1?fps=100");
    let mut party = Party::start();
    party.ok(&format!("open {uri} wait -7 0 0 front camera"));
    let holder = |list: camlease::Holders| list.list.into_iter().next().expect("it is held");
    let seen = holder(holders(uri).unwrap());
    let lease = seen.lease.clone().expect("it has a lease");
    assert_eq!((seen.pid, lease.name.as_str(), lease.priority), (party.pid(), "front camera", -7));
    assert!(!lease.streaming && seen.activity == Activity::Open);
    let now = clock_ns(libc::CLOCK_BOOTTIME);
    assert!(lease.since_ns < now && now - lease.since_ns < 60_000_000_000, "{} {now}", lease.since_ns);
    assert!(seen.to_string().contains("has it open, calls itself \"front camera\", priority -7)"), "{seen}");
    party.ok("start");
    let seen = holder(holders(uri).unwrap());
    assert!(seen.lease.unwrap().streaming && seen.activity == Activity::Streaming);
    party.ok("stop");
    assert!(!holder(holders(uri).unwrap()).lease.unwrap().streaming);
    party.ok("close");
    assert!(holders(uri).unwrap().list.is_empty());
    assert_eq!(files("lease-1"), Vec::<PathBuf>::new(), "nothing stays of one that closed");
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for a timespec.
    unsafe { libc::clock_gettime(clock, &mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

#[test]
fn the_next_holder_learns_how_the_last_one_ended() {
    let uri = &camera("lease-2?fps=100");
    for (orders, expected) in [
        (&["start"][..], LastExit::Dirty),
        (&[], LastExit::Died),
        (&["start", "frame", "stop"], LastExit::Died),
        (&["start", "close"], LastExit::Clean),
        (&["start", "exit"], LastExit::Clean),
    ] {
        let mut party = Party::start();
        party.ok(&format!("open {uri} wait 0 2000 0"));
        for order in orders.iter().filter(|order| **order != "exit") {
            party.ok(order);
        }
        if orders.contains(&"exit") {
            party.order("exit");
            party.process.wait().unwrap();
        }
        party.kill();
        assert!(holders(uri).unwrap().list.is_empty(), "a dead holder is none");
        assert_eq!(last_exit(uri), expected, "{orders:?}");
        assert_eq!(last_exit(uri), LastExit::Clean, "one clean end makes it good");
    }
    assert_eq!(files("lease-2"), Vec::<PathBuf>::new());
}

#[test]
fn what_a_dead_holder_leaves_is_one_file_that_nobody_has_locked() {
    let uri = &camera("lease-3");
    let mut party = Party::start();
    party.ok(&format!("open {uri} wait 0 0 0 gone"));
    assert_eq!(files("lease-3").len(), 2, "the lease and the socket beside it");
    party.kill();
    let camera = Camera::open(uri, OpenOptions { timeout: Some(Duration::ZERO), ..OpenOptions::default() }).unwrap();
    assert_eq!(camera.last_exit(), LastExit::Died);
    let now = files("lease-3");
    assert_eq!(now.len(), 2, "those of the dead one are gone: {now:?}");
    drop(camera);
    assert!(files("lease-3").is_empty());
}

/// Names that never come again must not fill the folder, which each open looks through.
#[test]
fn what_the_dead_left_under_other_names_does_not_pile_up() {
    let base = std::env::temp_dir().join(format!("camlease-lease-many-{}", std::process::id()));
    fs::create_dir(&base).unwrap();
    let party = || Party::of(Command::new(support::c_program("party.c", &[])).env("CAMLEASE_RUNTIME_DIR", &base));
    let all = || {
        let entries = fs::read_dir(&base).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let (doors, papers): (Vec<_>, Vec<_>) = entries.partition(|name| name.ends_with(".ask"));
        (papers, doors)
    };
    let mut gone = party();
    let open = |party: &mut Party, name: &str| party.ok(&format!("open {} wait 0 0 0", camera(name)));
    open(&mut gone, "lease-21");
    let paper = fs::read(base.join(&all().0[0])).unwrap();
    gone.kill();
    let leave = |key: &str, number: usize| {
        let name = format!("camlease-{key}.{number:016x}");
        fs::write(base.join(&name), &paper).unwrap();
        fs::write(base.join(format!("{name}.ask")), "").unwrap();
        let begun = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + number as u64);
        fs::File::options().write(true).open(base.join(&name)).unwrap().set_modified(begun).unwrap();
    };
    const KEPT: usize = 512;
    (0..KEPT - 1).for_each(|number| leave(&format!("virtual-many-{number}"), number));
    leave("share-gone", KEPT);
    // Not the library's own: nobody's paper, and one that is about to be locked.
    fs::write(base.join("camlease-share-notes"), &paper).unwrap();
    fs::write(base.join(format!("camlease-share-new.{:016x}", 1)), "").unwrap();

    let (mut holder, mut other) = (party(), party());
    open(&mut holder, "lease-22");
    open(&mut other, "lease-23");
    other.ok("close");
    let (papers, doors) = all();
    let has = |name: &str| papers.iter().any(|paper| paper.starts_with(name));
    // With the dead one's and the one that is held there were more than are kept: half of them are left.
    assert_eq!((papers.len(), doors.len()), (KEPT / 2 + 2, KEPT / 2), "{papers:?}");
    assert!(!has("camlease-share-gone") && has("camlease-share-notes") && has("camlease-share-new"), "{papers:?}");
    assert!(
        ["lease-21", "lease-22"].iter().all(|name| has(&camera(name).replace("virtual:", "camlease-virtual-"))),
        "the newest stay, and what is held"
    );
    assert!(has("camlease-virtual-many-510.") && !has("camlease-virtual-many-0."), "the oldest go");
    holder.ok("close");
    assert_eq!(all().0.len(), KEPT / 2 + 1, "few are left alone");
    fs::remove_dir_all(&base).unwrap();
}

#[test]
fn a_child_does_not_take_its_parents_lease_along() {
    let uri = &camera("lease-4");
    let mut party = Party::start();
    party.ok(&format!("open {uri} wait 0 0 0 parent"));
    let child: i32 = party.ok("fork").parse().unwrap();
    assert!(holders(uri).unwrap().list[0].lease.is_some());
    party.kill();
    assert!(holders(uri).unwrap().list.is_empty(), "the child holds neither the camera nor the lease");
    assert_eq!(last_exit(uri), LastExit::Died);
    // SAFETY: a child of this test's.
    unsafe { libc::kill(child, libc::SIGKILL) };
}

#[test]
fn a_name_cannot_forge_lines_nor_steer_a_terminal() {
    let uri = &camera("lease-5");
    let name = "x\npid 1\npriority 99\u{1b}[2J";
    let camera = Camera::open(uri, OpenOptions { name: name.into(), ..OpenOptions::default() }).unwrap();
    let seen = holders_but_for_ours(uri).remove(0);
    let lease = seen.lease.unwrap();
    assert_eq!((lease.name.as_str(), lease.priority), ("x?pid 1?priority 99?[2J", 0));
    drop(camera);
}

/// What an ordinary user can put in place against root's processes, and others' users.
#[test]
fn another_user_can_neither_block_nor_forge() {
    // SAFETY: no pointers.
    if unsafe { libc::geteuid() } != 0 {
        skipped("another_user_can_neither_block_nor_forge: only root can be another user as well");
        return;
    }
    let uri = &camera("lease-6");
    let file = |tag: &str| folder().join(format!("camlease-virtual-{}.{tag}", own("lease-6")));
    let forged = file("00000000000000aa");
    // A lease in the name of process 1, whose file belongs to somebody else: locked, as a real one.
    let space = fs::metadata("/proc/self/ns/pid").unwrap().ino();
    let stat = fs::read_to_string("/proc/1/stat").unwrap();
    let start = stat.rsplit(')').next().unwrap().split_whitespace().nth(19).unwrap();
    let text = format!(
        "camlease lease 1 s\npid 1\nstart {start}\nspace {space}\nboot x\ninstance \npriority 9\nsince 1\nname evil\n"
    );
    fs::write(&forged, text).unwrap();
    fs::set_permissions(&forged, fs::Permissions::from_mode(0o644)).unwrap();
    chown(&forged, Some(NOBODY), None).unwrap();
    let locked = fs::OpenOptions::new().write(true).open(&forged).unwrap();
    lock_for_writing(&locked);
    assert!(holders(uri).unwrap().list.is_empty(), "nobody can speak for root's processes");
    // A link to a file of root's, a second name of one, a pipe, a folder.
    let secret = folder().join(format!("camlease-test-secret-{}", std::process::id()));
    fs::write(&secret, "untouched").unwrap();
    symlink(&secret, file("00000000000000ab")).unwrap();
    fs::hard_link(&secret, file("00000000000000ac")).unwrap();
    assert!(Command::new("mkfifo").arg(file("00000000000000ad")).status().unwrap().success());
    fs::create_dir(file("00000000000000ae")).unwrap();
    fs::write(file("00000000000000af"), [0xff; 100_000]).unwrap();
    let camera = Camera::open(uri, OpenOptions { name: "real".into(), ..OpenOptions::default() }).unwrap();
    let seen = holders_but_for_ours(uri);
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].lease.as_ref().unwrap().name, "real");
    assert_eq!(camera.last_exit(), LastExit::Clean, "none of it passes for a dead holder");
    drop(camera);
    assert_eq!(fs::read_to_string(&secret).unwrap(), "untouched");
    drop(locked);
    for path in files("lease-6") {
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
    }
    fs::remove_file(secret).unwrap();
}

fn lock_for_writing(file: &fs::File) {
    use std::os::fd::AsRawFd;
    // SAFETY: all zeroes is a valid flock.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as i16;
    // SAFETY: a valid flock.
    assert_eq!(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) }, 0);
}

/// A party that runs as an ordinary user.
fn nobody() -> Party {
    let program = support::c_program("party.c", &[]);
    Party::of(Command::new("setpriv").args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program))
}

#[test]
fn users_know_each_other_and_only_root_and_the_same_user_may_ask() {
    // SAFETY: no pointers.
    if unsafe { libc::geteuid() } != 0 {
        skipped("users_know_each_other_and_only_root_and_the_same_user_may_ask: needs root");
        return;
    }
    let uri = &camera("lease-7");
    let mut user = nobody();
    user.ok(&format!("open {uri} wait 0 0 0 user"));
    let seen = holders(uri).unwrap().list.remove(0);
    assert_eq!((seen.uid, seen.lease.unwrap().name.as_str()), (NOBODY, "user"));
    // Root may ask.
    let mut root = Party::start();
    root.ok(&format!("open {uri} ask 1 5000 100 root"));
    let words = user.refused("frame", "EVICTED");
    assert!(words.contains("handed over to \"root\""), "{words}");
    user.ok("close");
    // A user may not ask root's, and is told whose it is.
    let words = user.refused(&format!("open {uri} ask 99 300 100 user"), "BUSY");
    let holder =
        format!("its holder \"root\" (pid {}) cannot be asked; only the same user and root may ask", root.pid());
    assert!(words.contains(&holder), "{words}");
    assert!(words.contains("calls itself \"root\", priority 1"), "{words}");
    root.ok("close");
    user.ok(&format!("open {uri} wait 0 2000 0 user"));
}

#[test]
fn a_users_own_folder_is_used_where_it_is_named_and_refused_where_others_may_write() {
    let base = std::env::temp_dir().join(format!("camlease-lease-test-{}", std::process::id()));
    fs::create_dir(&base).unwrap();
    let set = |mode| fs::set_permissions(&base, fs::Permissions::from_mode(mode)).unwrap();
    let count = || fs::read_dir(&base).unwrap().count();
    for (mode, leases) in [(0o700, 2), (0o1777, 2), (0o777, 0)] {
        set(mode);
        let program = support::c_program("party.c", &[]);
        let mut party = Party::of(Command::new(program).env("CAMLEASE_RUNTIME_DIR", &base));
        party.ok(&format!("open {} wait 0 2000 0 here", camera("lease-8")));
        assert_eq!(count(), leases, "{mode:o}");
        party.ok("close");
        assert_eq!(count(), 0, "{mode:o}");
    }
    fs::remove_dir_all(&base).unwrap();
}

#[test]
fn one_that_waits_is_no_holder() {
    let uri = &camera("lease-10");
    let mut holder = Party::start();
    holder.ok(&format!("open {uri} wait 0 0 0 holder"));
    let mut waiter = Party::start();
    waiter.order(&format!("open {uri} wait 7 20000 0 waiter"));
    while files("lease-10").len() < 4 {
        std::thread::sleep(Duration::from_millis(1)); // until the waiter's lease is ready
    }
    let seen = holders(uri).unwrap().list;
    assert_eq!((seen.len(), seen[0].pid), (1, holder.pid()), "{seen:?}");
    waiter.kill();
    let mut waiter = Party::start();
    waiter.order(&format!("open {uri} wait 7 20000 0 waiter"));
    while files("lease-10").len() < 6 {
        std::thread::sleep(Duration::from_millis(1));
    }
    holder.ok("close");
    assert!(waiter.answer().starts_with("OK"));
    let seen = holders(uri).unwrap().list.remove(0);
    assert_eq!((seen.pid, seen.lease.unwrap().priority), (waiter.pid(), 7));
    assert!(waiter.ok("info").contains("last_exit=0"), "one that died while it waited says nothing");
    assert_eq!(files("lease-10").len(), 2);
}

#[test]
fn a_holder_can_be_asked_whatever_the_length_of_names() {
    let base = std::env::temp_dir().join(format!("camlease-long-{}", std::process::id()));
    let long = base.join("x".repeat(100));
    fs::create_dir_all(&long).unwrap();
    fs::set_permissions(&long, fs::Permissions::from_mode(0o700)).unwrap();
    for uri in [camera("lease-11"), format!("virtual:{:n<64}", std::process::id())] {
        let party = || {
            let program = support::c_program("party.c", &[]);
            Party::of(Command::new(program).env("CAMLEASE_RUNTIME_DIR", &long))
        };
        let (mut holder, mut asker) = (party(), party());
        holder.ok(&format!("open {uri} wait 0 2000 0 holder"));
        asker.ok(&format!("open {uri} ask 1 5000 100 asker"));
        holder.refused("frame", "EVICTED");
        asker.ok("close");
    }
    assert_eq!(fs::read_dir(&long).unwrap().count(), 0);
    fs::remove_dir_all(&base).unwrap();
}

#[test]
fn an_open_that_evicts_asks_a_holder_of_ours_and_leaves_it_its_grace() {
    let uri = &camera("lease-12?fps=100");
    let mut holder = Party::start();
    holder.ok(&format!("open {uri} wait 9 0 0 holder"));
    holder.ok("start");
    holder.ok("frame");
    let mut evictor = Party::start();
    // Its frame is out for most of the grace, and everything else that could be noticed is no reason to hurry.
    evictor.order(&format!("open {uri} evict 0 20000 2000 evictor"));
    assert!(holder.callback().ends_with("evictor"));
    let other = Camera::open(uri, OpenOptions { timeout: Some(Duration::from_millis(500)), ..OpenOptions::default() });
    assert_eq!(other.err().unwrap().kind(), camlease::Kind::Busy);
    assert_eq!(holder.tell("check"), "OK", "it is alive, and has its frame");
    holder.ok("release");
    assert!(evictor.answer().starts_with("OK"));
    holder.refused("frame", "EVICTED");
    // Two who evict at the same time: whoever comes second asks the first.
    let mut second = Party::start();
    second.ok(&format!("open {uri} evict 0 20000 500 second"));
    evictor.refused("start", "EVICTED");
    second.ok("start");
    second.ok("frame");
}

/// Containers that share the runtime folder, and neither processes nor networks.
#[test]
fn containers_know_each_other() {
    let program = support::c_program("party.c", &[]);
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]).arg(&program);
    let probe = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        skipped("containers_know_each_other: this machine lets nobody make a name space");
        return;
    }
    let uri = &camera("lease-9");
    let mut inside = Party::of(&mut unshare);
    inside.ok(&format!("open {uri} wait 3 0 0 inside"));
    // Seen from outside, by the number that it has here.
    let seen = holders(uri).unwrap().list;
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(seen[0].lease.as_ref().unwrap().name, "inside");
    let names = fs::read_to_string(format!("/proc/{}/comm", seen[0].pid)).unwrap();
    assert_eq!(names.trim(), "party");
    // Handed over from inside to outside, and seen from inside under no number.
    let mut outside = Party::start();
    outside.ok(&format!("open {uri} ask 4 5000 100 outside"));
    inside.refused("frame", "EVICTED");
    let words = inside.refused("regain 0", "BUSY");
    assert!(words.contains("a process of another container") || words.contains("calls itself \"outside\""), "{words}");
}

/// Said past the test harness, which keeps what passing tests print to itself.
fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}");
}
