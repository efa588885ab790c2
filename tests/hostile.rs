//! A client that means harm harms itself alone: it speaks to a shared camera by bare system calls, tries to write the frames'
//! memory, spoils its own, says what is no message, takes all that it can get and hears nothing. The others' frames come
//! as they came before.
//!
//! For longer: `CAMLEASE_HOSTILE_SECONDS=60 cargo test --release --test hostile -- --nocapture`

mod support;

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use camlease::{Camera, Kind, OpenOptions, StreamRequest};
use serde_json::json;
use support::rough::{Given, PASSED_MOST, Rough, check, words};
use support::stamped::{
    self, Account, Own, Player, Random, SLOTS, Seen, Stage, belongings, eventually, memory, options, settled,
};
use support::{judged, number};

const SECONDS: Option<Duration> = Some(Duration::from_secs(20));

/// What a process has is counted: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Frames per second that honest readers get, and how many are kept for those who take all.
const RATE: u64 = 100;
const HISTORY: u64 = 32;

/// How much longer than with harm elsewhere 99 of 100 frames take at most. The processors are shared with whatever else runs.
const DELAY: Duration = Duration::from_millis(250);

/// What a hostile process does.
const HARMS: [&str; 6] = ["scribble", "juggle", "mute", "flood", "babble", "crowd"];

#[test]
fn plays_a_part() {
    let Some((stage, part)) = stamped::part() else { return };
    match part[0].as_str() {
        "harm" => harm(&stage, &part[1], Random(part[2].parse::<u64>().unwrap() * 2 + 1)),
        _ => assert!(stamped::play(&stage, &part), "{part:?}"),
    }
    std::process::exit(0);
}

fn honest(stage: &Stage) -> Camera {
    let options = OpenOptions { name: "honest".into(), ..OpenOptions::default() };
    let camera = Camera::open(&format!("shared:{}", stage.name), options).unwrap();
    camera.start(&StreamRequest::default()).unwrap();
    camera
}

#[track_caller]
fn whole(camera: &Camera) -> u64 {
    let frame = camera.next_frame(SECONDS).unwrap();
    stamped::check(&frame).unwrap_or_else(|words| panic!("{words}"));
    frame.sequence()
}

fn errno(outcome: io::Result<i64>, what: &str) -> i32 {
    match outcome {
        Ok(_) => panic!("{what}: it was let"),
        Err(error) => error.raw_os_error().unwrap(),
    }
}

fn outcome(returned: i64) -> io::Result<i64> {
    if returned == -1 { Err(io::Error::last_os_error()) } else { Ok(returned) }
}

/// Tries all that the kernel has for writing to a file, or changing its size.
#[track_caller]
fn cannot_be_written(ring: RawFd, how: &str) {
    let length = File::from(dup(ring)).metadata().unwrap().len() as usize;
    let bytes = [0xa5u8; 4096];
    let from = bytes.as_ptr().cast();
    let part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let source = memory_file(&bytes);
    let map = |protection: i32, sharing: i32| {
        // SAFETY: a new mapping.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), length, protection, sharing, ring, 0) };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at) }
    };
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    let refusals = [
        libc::EIO,
        libc::EPERM,
        libc::EACCES,
        libc::EBADF,
        libc::EINVAL,
        libc::EOPNOTSUPP,
        libc::EFAULT,
        libc::ETXTBSY,
    ];
    let mut tried = 0;
    let mut refused = |what: &str, outcome: io::Result<i64>| {
        let number = errno(outcome, &format!("{how}: {what}"));
        assert!(refusals.contains(&number), "{how}: {what}: errno {number}");
        tried += 1;
    };
    // SAFETY: calls of the kernel with this file, and room of our own that they read at most.
    unsafe {
        refused("mmap", map(libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED).map(|at| at as i64));
        refused("mmap, executable", map(libc::PROT_WRITE | libc::PROT_EXEC, libc::MAP_SHARED).map(|at| at as i64));
        refused("write", outcome(libc::write(ring, from, bytes.len()) as i64));
        refused("pwrite", outcome(libc::pwrite(ring, from, bytes.len(), 8192) as i64));
        refused("pwritev2", outcome(libc::pwritev2(ring, &part, 1, 0, libc::RWF_NOWAIT) as i64));
        refused("sendfile", outcome(libc::sendfile(ring, source.as_raw_fd(), &mut 0, 4096) as i64));
        let (mut here, mut there) = (0, 4096);
        let copied = libc::copy_file_range(source.as_raw_fd(), &mut here, ring, &mut there, 4096, 0);
        refused("copy_file_range", outcome(copied as i64));
        refused("shrinking", outcome(libc::ftruncate(ring, 4096).into()));
        refused("growing", outcome(libc::ftruncate(ring, length as i64 + 4096).into()));
        refused("punching a hole", outcome(libc::fallocate(ring, punch, 0, 4096).into()));
        refused("zeroing", outcome(libc::fallocate(ring, libc::FALLOC_FL_ZERO_RANGE, 0, 4096).into()));
        refused("collapsing", outcome(libc::fallocate(ring, libc::FALLOC_FL_COLLAPSE_RANGE, 0, 4096).into()));
        refused("allocating beyond", outcome(libc::fallocate(ring, 0, length as i64, 4096).into()));
        refused("sealing", outcome(libc::fcntl(ring, libc::F_ADD_SEALS, libc::F_SEAL_WRITE).into()));

        let at = map(libc::PROT_READ, libc::MAP_SHARED).unwrap();
        let writable = libc::PROT_READ | libc::PROT_WRITE;
        refused("mprotect", outcome(libc::mprotect(at, length, writable).into()));
        refused("removing", outcome(libc::madvise(at, length, libc::MADV_REMOVE).into()));
        refused("populating", outcome(libc::madvise(at, length, libc::MADV_POPULATE_WRITE).into()));
        let own = File::options().write(true).open("/proc/self/mem").unwrap();
        refused("/proc/self/mem", outcome(libc::pwrite(own.as_raw_fd(), from, 4096, at as i64) as i64));
        let reader = File::open("/dev/zero").unwrap();
        refused("reading into it", outcome(libc::read(reader.as_raw_fd(), at, 4096) as i64));
        refused("userfaultfd", fill_by_fault(at, length, from));
        libc::munmap(at, length);

        // A private copy is this process's own.
        let at = map(writable, libc::MAP_PRIVATE).unwrap();
        at.cast::<u8>().write_bytes(0xa5, length);
        libc::munmap(at, length);
    }
    assert_eq!(tried, 20);
}

fn dup(fd: RawFd) -> OwnedFd {
    // SAFETY: the new descriptor is nobody else's.
    unsafe { OwnedFd::from_raw_fd(check(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0)).unwrap()) }
}

fn memory_file(bytes: &[u8]) -> OwnedFd {
    // SAFETY: a C string; the descriptor is new; the bytes are read.
    unsafe {
        let file = OwnedFd::from_raw_fd(check(libc::memfd_create(c"source".as_ptr(), libc::MFD_CLOEXEC)).unwrap());
        assert_eq!(libc::write(file.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()), bytes.len() as isize);
        file
    }
}

/// Has the kernel fill what was never written, by way of userfaultfd.
fn fill_by_fault(at: *mut libc::c_void, length: usize, from: *const libc::c_void) -> io::Result<i64> {
    // linux/userfaultfd.h
    const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
    const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
    const UFFDIO_COPY: libc::c_ulong = 0xc028_aa03;
    const MISSING: u64 = 1;
    // SAFETY: the structs are as the kernel has them, and the addresses are mapped.
    unsafe {
        let number = outcome(libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK))?;
        let faults = OwnedFd::from_raw_fd(number as RawFd);
        let mut api = [0xaau64, 0, 0];
        outcome(libc::ioctl(faults.as_raw_fd(), UFFDIO_API as _, api.as_mut_ptr()).into())?;
        let mut range = [at as u64, length as u64, MISSING, 0];
        outcome(libc::ioctl(faults.as_raw_fd(), UFFDIO_REGISTER as _, range.as_mut_ptr()).into())?;
        let mut copy = [at as u64 + length as u64 - 4096, from as u64, 4096, 0, 0];
        outcome(libc::ioctl(faults.as_raw_fd(), UFFDIO_COPY as _, copy.as_mut_ptr()).into())
    }
}

#[test]
fn nobody_who_reads_can_write() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage::new("hostile-memory");
    let mut own = Own::new(&stage, options(&stage.name));
    let reader = honest(&stage);
    let hostile = Rough::known(&stage.door(), "hostile");
    let Given { ring, page, .. } = hostile.attach(2).unwrap();
    own.publish();
    cannot_be_written(ring.as_raw_fd(), "as it was given");
    // Whoever has a file may open it anew, as he likes: it is his user's.
    let path = format!("/proc/self/fd/{}", ring.as_raw_fd());
    let path = Path::new(&path);
    for (how, options) in
        [("anew", File::options().read(true).write(true)), ("to append", File::options().read(true).append(true))]
    {
        cannot_be_written(options.open(path).unwrap().as_raw_fd(), how);
    }
    let emptied = File::options().write(true).truncate(true).open(path);
    assert_eq!(emptied.unwrap_err().raw_os_error(), Some(libc::EPERM));
    assert_eq!(whole(&reader), own.sequence);
    own.publish();
    assert_eq!(whole(&reader), own.sequence);
    // His own page is his to write, and not to cut off beneath the producer.
    for length in [0, 1, 8192] {
        // SAFETY: no pointers.
        assert_eq!(unsafe { libc::ftruncate(page.as_raw_fd(), length) }, -1);
    }
    // SAFETY: no pointers.
    let sealed = unsafe { libc::fcntl(page.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_WRITE) };
    assert_eq!((sealed, io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EPERM)));
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    for _ in 0..20 {
        // SAFETY: no pointers.
        check(unsafe { libc::fallocate(page.as_raw_fd(), punch, 0, 4096) }).unwrap();
        own.publish();
        assert_eq!(whole(&reader), own.sequence);
    }
}

/// All that is shared with a reader beside memory is its bell. Its end of it blocks whom it likes, itself that is.
#[test]
fn nobody_who_reads_can_stop_the_producer() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage::new("hostile-bell");
    let mut own = Own::new(&stage, options(&stage.name));
    let reader = honest(&stage);
    let hostile = Rough::known(&stage.door(), "hostile");
    let given = hostile.attach(2).unwrap();
    let bell = given.bell.as_raw_fd();
    // SAFETY: no pointers.
    check(unsafe { libc::fcntl(bell, libc::F_SETFL, 0) }).unwrap();
    let most = (u64::MAX - 1).to_ne_bytes();
    for _ in 0..1000 {
        // SAFETY: eight bytes, as an eventfd would want them.
        unsafe {
            libc::fcntl(bell, libc::F_SETFL, libc::O_NONBLOCK);
            libc::write(bell, most.as_ptr().cast(), most.len());
            libc::fcntl(bell, libc::F_SETFL, 0);
        }
    }
    let page = words(&given.page);
    let (done, is_done) = mpsc::channel();
    let publishes = std::thread::spawn(move || {
        for _ in 0..200 {
            // It wants to be woken for each.
            page[1].store(1, SeqCst);
            own.publish();
        }
        done.send(()).unwrap();
        own
    });
    is_done.recv_timeout(Duration::from_secs(20)).expect("the producer goes on");
    whole(&reader);
    drop(publishes.join().unwrap());
}

#[test]
fn what_is_no_message_ends_the_connection() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage::new("hostile-words");
    let mut own = Own::new(&stage, options(&stage.name));
    let reader = honest(&stage);
    let door = stage.door();
    let before = settled(std::process::id());
    for bytes in nonsense(&mut Random(77)) {
        let client = Rough::known(&door, "babbler");
        client.send(&bytes).unwrap();
        client.is_sent_away();
    }
    // Not even a hello.
    let silent = Rough::connect(&door).unwrap();
    let begun = Instant::now();
    silent.is_sent_away();
    assert!(begun.elapsed() < Duration::from_secs(10));
    // What is wrong and yet a message is answered.
    let client = Rough::connect(&door).unwrap();
    let refused = |message: serde_json::Value, status: &str| {
        let answer = client.ask(message.clone()).unwrap();
        assert_eq!(answer["status"], status, "{message}: {answer}");
    };
    refused(json!({ "camlease": 1, "id": 1, "do": "status" }), "WRONG_STATE");
    client.ask(json!({ "camlease": 1, "id": 2, "do": "hello", "name": ["none"] })).unwrap();
    refused(json!({ "camlease": 1, "id": 3 }), "INVALID_ARGUMENT");
    refused(json!({ "camlease": 1, "id": 3, "do": 7 }), "INVALID_ARGUMENT");
    refused(json!({ "camlease": 1, "id": 3, "do": "fly" }), "UNSUPPORTED");
    for wrong in [json!(-1), json!("x"), json!(1e300), json!([1]), json!(u64::MAX)] {
        for key in ["hold", "every", "interval_ns", "width", "fourcc", "fps"] {
            if (key, &wrong) != ("every", &json!(u64::MAX)) && (key, &wrong) != ("fourcc", &json!("x")) {
                refused(json!({ "camlease": 1, "id": 3, "do": "attach", key: wrong.clone() }), "INVALID_ARGUMENT");
            }
        }
    }
    // Descriptors that nobody asked for are closed again.
    let zero = File::open("/dev/zero").unwrap();
    let many = [zero.as_raw_fd(); PASSED_MOST];
    for passed in [&many[..], &many[..1]] {
        let status = json!({ "camlease": 1, "id": { "deep": [1, [2]] }, "do": "status" }).to_string();
        client.send_with(status.as_bytes(), passed).unwrap();
        let (answer, _) = client.hear().unwrap();
        assert_eq!((&answer["ok"], &answer["id"]), (&json!(true), &json!({ "deep": [1, [2]] })));
    }
    assert!(client.attach(2).is_some());
    refused(json!({ "camlease": 1, "id": 9, "do": "attach" }), "WRONG_STATE");
    drop((client, silent, zero));
    own.publish();
    assert_eq!(whole(&reader), own.sequence);
    eventually("what they brought", || belongings(std::process::id()), |now| now.memory_files == before.memory_files);
    eventually("clients", || own.publisher.info().clients, |clients| *clients == 2);
}

/// Messages that are none.
fn nonsense(random: &mut Random) -> Vec<Vec<u8>> {
    let deep = |depth: usize| [r#"{"camlease":1,"do":"status","x":"#.into(), "[".repeat(depth)].concat();
    let mut all: Vec<Vec<u8>> = [
        "{",
        "}",
        "[]",
        "1",
        "null",
        "\"status\"",
        "{}",
        "\0\0\0\0",
        r#"{"camlease":1,"id":3,"do":"stat"#,
        r#"{"camlease":2,"id":3,"do":"status"}"#,
        r#"{"camlease":"1","id":3,"do":"status"}"#,
        r#"{"camlease":1,"id":3,"do":"status"} {}"#,
        r#"{"camlease":1.5,"do":"status"}"#,
    ]
    .into_iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    all.push(Vec::new()); // as if it had hung up
    all.push(deep(3000).into_bytes());
    all.push([deep(400), "]".repeat(400), "}".into()].concat().into_bytes());
    all.push(vec![b'a'; 100_000]);
    all.push([br#"{"camlease":1,"do":"status","x":""#.to_vec(), vec![b'a'; 5000], b"\"}".to_vec()].concat());
    all.push([&br#"{"camlease":1,"do":"status","x":""#[..], &[0xff, 0xfe, 0xc0], b"\"}"].concat());
    all.extend((0..20).map(|_| (0..1 + random.below(3000)).map(|_| random.below(256) as u8 | 0x80).collect()));
    all
}

#[test]
fn who_takes_all_leaves_enough() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage::new("hostile-greed");
    let mut own = Own::new(&stage, options(&stage.name));
    let door = stage.door();
    let greedy: Vec<_> = (0..2).map(|_| Rough::known(&door, "greedy")).collect();
    let given: Vec<_> = greedy.iter().map(|client| client.attach(1000).unwrap()).collect();
    let may_hold: Vec<_> = given.iter().map(|given| given.told["quota"].as_u64().unwrap()).collect();
    let reader = honest(&stage);
    let pages: Vec<_> = given.iter().map(|given| words(&given.page)).collect();
    // Each holds as many as it may, and those that the writer will want next.
    let mut taken = 0;
    for (page, most) in pages.iter().zip(&may_hold) {
        let bits = ((1u64 << most) - 1) << taken;
        taken += most;
        page[0].store(bits, SeqCst);
    }
    assert!(taken > SLOTS / 2 && taken < SLOTS, "{may_hold:?}");
    for _ in 0..200 {
        own.publish();
        assert_eq!(whole(&reader), own.sequence);
    }
    // And more than it may: it holds nothing any more.
    pages[0][0].store(u64::MAX, SeqCst);
    own.publish();
    greedy[0].is_sent_away();
    for _ in 0..200 {
        own.publish();
        assert_eq!(whole(&reader), own.sequence);
    }
    // Another one comes in its place.
    assert!(Rough::known(&door, "greedy").attach(1000).is_some());
}

#[test]
fn a_crowd_keeps_nobody_out() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage::new("hostile-crowd");
    let mut own = Own::new(&stage, options(&stage.name));
    let crowd = stage.start("harm crowd 1");
    eventually("a crowd", || own.publisher.info().clients, |clients| *clients >= 60);
    for _ in 0..5 {
        let reader = honest(&stage);
        own.publish();
        assert_eq!(whole(&reader), own.sequence);
    }
    drop(crowd);
    eventually("the crowd", || own.publisher.info().clients, |clients| *clients == 0);
    // One process may have some, and is told when these are all.
    // Those who say nothing at all would be sent away in a while.
    let hello = json!({ "camlease": 1, "id": 1, "do": "hello", "name": "one of many" }).to_string();
    let own: Vec<_> = (0..500).map(|_| Rough::connect(&stage.door()).unwrap()).collect();
    own.iter().for_each(|client| drop(client.send(hello.as_bytes())));
    // Who is refused before its hello was read is told of the hello first, and then hears why.
    let answers = own.iter().rev().filter_map(|client| client.hear().or_else(|| client.hear()));
    let refused = answers.map(|answer| answer.0).find(|answer| answer["status"] == "BUDGET").unwrap();
    assert_eq!(refused["status"], "BUDGET", "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("connections to it already"), "{refused}");
    let error = Camera::open(&format!("shared:{}", stage.name), OpenOptions::default()).err().unwrap();
    assert_eq!(error.kind(), Kind::Budget, "{error}");
}

/// Does one sort of harm to the stage's share until this process is killed.
fn harm(stage: &Stage, sort: &str, mut random: Random) {
    // Processor time is not what is tested: honest programs are to have it.
    // SAFETY: no pointers.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
    let door = stage.door();
    while !stage.board.stops() {
        stage.board.commands.fetch_add(1, SeqCst);
        let client = || {
            let client = Rough::connect(&door).ok()?;
            client.ask(json!({ "camlease": 1, "id": 1, "do": "hello", "name": sort }))?;
            Some(client)
        };
        match sort {
            "crowd" => crowd(&door, &mut random),
            "babble" => {
                for bytes in nonsense(&mut random) {
                    let _ = client().map(|client| client.send(&bytes));
                }
            }
            "flood" => drop(client().map(|client| flood(&client, &mut random))),
            _ => drop(client().and_then(|client| {
                let given = client.attach(1 + random.below(64))?;
                match sort {
                    "mute" => mute(&client, &given),
                    sort => scribble(&client, &given, sort == "juggle", &mut random),
                }
                Some(())
            })),
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// All random, or as many slots as may be held and never the same ones, until it is sent away or for a while.
fn scribble(client: &Rough, given: &Given, keeps_to_quota: bool, random: &mut Random) {
    let page = words(&given.page);
    let most = given.told["quota"].as_u64().unwrap();
    for turn in 0..2000u64 {
        for _ in 0..100 {
            for word in page {
                word.store(random.below(u64::MAX / 2) << random.below(2), SeqCst);
            }
            if keeps_to_quota {
                page[0].store((((1u128 << most) - 1) as u64).rotate_left(random.below(64) as u32), SeqCst);
            } else {
                page[0].store(random.below(u64::MAX) & random.below(u64::MAX), SeqCst);
            }
        }
        if turn % 20 == 0 && matches!(client.hear_now(), Ok(None)) {
            break;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    // SAFETY: mapped by `words`, and used no more.
    unsafe { libc::munmap(page.as_ptr().cast_mut().cast(), 4096) };
}

/// Reads neither its socket nor its bell, takes O_NONBLOCK off both, and wants to be woken for each frame.
fn mute(client: &Rough, given: &Given) {
    let page = words(&given.page);
    for fd in [client.fd(), given.bell.as_raw_fd()] {
        // SAFETY: no pointers.
        unsafe { libc::fcntl(fd, libc::F_SETFL, 0) };
    }
    let status = json!({ "camlease": 1, "id": 1, "do": "status" }).to_string();
    for turn in 0..500 {
        page[1].store(1, SeqCst);
        page[2].store(0, SeqCst);
        // SAFETY: the bytes of the message.
        let sent = unsafe {
            libc::send(client.fd(), status.as_ptr().cast(), status.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        };
        if sent < 0 && turn % 10 == 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EPIPE) {
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // SAFETY: mapped by `words`, and used no more.
    unsafe { libc::munmap(page.as_ptr().cast_mut().cast(), 4096) };
}

fn flood(client: &Rough, random: &mut Random) {
    let zero = File::open("/dev/zero").unwrap();
    let passed = [zero.as_raw_fd(); PASSED_MOST];
    for turn in 0..1000 {
        let verb =
            ["status", "controls", "formats", "format", "start", "fly", "take-control"][random.below(7) as usize];
        let message =
            json!({ "camlease": 1, "id": turn, "do": verb, "width": turn, "x": "x".repeat(2000) }).to_string();
        let passed = if random.below(4) == 0 { &passed[..] } else { &[] };
        if client.send_with(message.as_bytes(), passed).is_err() {
            std::thread::sleep(Duration::from_millis(1));
        }
        if random.below(2) == 0 && !matches!(client.hear_now(), Ok(Some(_)) | Err(_)) {
            return;
        }
    }
}

/// Comes five hundred times, says hello or nothing, and hangs up, by half or whole.
fn crowd(door: &Path, random: &mut Random) {
    let mut all: Vec<Rough> = (0..500).filter_map(|_| Rough::connect(door).ok()).collect();
    for client in &all {
        match random.below(3) {
            0 => drop(client.say(json!({ "camlease": 1, "id": 1, "do": "hello", "name": "crowd" }))),
            // SAFETY: no pointers.
            1 => drop(unsafe { libc::shutdown(client.fd(), [libc::SHUT_WR, libc::SHUT_RD][random.below(2) as usize]) }),
            _ => {}
        }
    }
    std::thread::sleep(Duration::from_millis(200 + random.below(300)));
    all.truncate(random.below(500) as usize);
    std::thread::sleep(Duration::from_millis(50));
}

#[test]
fn honest_readers_do_not_notice() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let seconds = number("CAMLEASE_HOSTILE_SECONDS", 4);
    let stage = Stage::new("hostile-storm");
    // The same is done to another share first: what it costs in processor time is no harm.
    let decoy = Stage::new("hostile-decoy");
    let producers = [&stage, &decoy].map(|stage| stage.start(&format!("produce 0 1 {RATE} 0 {HISTORY}")));
    [&stage, &decoy].iter().for_each(|stage| stage.await_frames(0, 1));
    let modes = ["order", "newest", "other"];
    let witnesses: Vec<Player> =
        modes.iter().enumerate().map(|(at, mode)| stage.start(&format!("witness {} {at} {mode}", at + 1))).collect();
    (1..=modes.len()).for_each(|party| stage.await_frames(party, 10));
    let producer = producers[0].pid();
    let attack = |victim: &Stage, seconds: Duration, account: u32| {
        let start = |(at, sort): (usize, &&str)| victim.start(&format!("harm {sort} {at}"));
        let hostile: Vec<Player> = HARMS.iter().enumerate().map(start).collect();
        let done = victim.board.commands.load(SeqCst);
        eventually("harm", || victim.board.commands.load(SeqCst), |now| *now > done + HARMS.len() as u64);
        let published = || stage.board.published.load(SeqCst);
        stage.board.account.store(account, SeqCst);
        let (begun, first) = (Instant::now(), published());
        let mut worst = Duration::ZERO;
        while begun.elapsed() < seconds {
            stage.check();
            // Commands are answered meanwhile, and newcomers come in.
            let asked = Instant::now();
            stage.ask("status").unwrap();
            worst = worst.max(asked.elapsed());
            std::thread::sleep(Duration::from_millis(100));
        }
        let frames = published() - first;
        stage.board.account.store(0, SeqCst);
        drop(hostile);
        (frames, worst)
    };
    // What is there only after the first time is no leak.
    attack(&stage, Duration::from_millis(500), 0);
    eventually("hostile readers", || stage.readers().len(), |readers| *readers == modes.len());
    let before = (settled(producer), memory(producer));
    judged(|| {
        stage.board.accounts.iter().flatten().for_each(Account::clear);
        // In turns: whatever else the machine does meets both alike.
        let (mut quiet, mut stormy) = ((0, Duration::ZERO), (0, Duration::ZERO));
        for _ in 0..seconds {
            for (victim, account, sum) in [(&decoy, 1, &mut quiet), (&stage, 2, &mut stormy)] {
                let (frames, worst) = attack(victim, Duration::from_secs(1), account);
                *sum = (sum.0 + frames, sum.1.max(worst));
            }
        }
        println!("frames published with harm elsewhere and here: {quiet:?}, {stormy:?}");
        for (mode, accounts) in modes.iter().zip(&stage.board.accounts) {
            let [calm, storm] = [accounts[0].seen(), accounts[1].seen()];
            println!("{mode}, harm elsewhere: {}\n{mode}, harm here:      {}", calm.words(), storm.words());
            let due = stormy.0 / if *mode == "other" { 2 } else { 1 };
            is_unharmed(mode, &calm, &storm, due, seconds)?;
        }
        match stormy.0 * 10 >= quiet.0 * 9 {
            true => Ok(()),
            false => Err(format!("the producer's rate: {stormy:?}, {quiet:?}")),
        }
    });
    eventually("hostile readers", || stage.readers().len(), |readers| *readers == modes.len());
    let after = (eventually("what they left", || belongings(producer), |now| *now == before.0), memory(producer));
    println!("producer before {before:?}, after {after:?}");
    println!("{} times harm was done", stage.board.commands.load(SeqCst));
    assert!(after.1.0 <= before.1.0 + 1024, "memory of its own: {before:?} {after:?}");
    assert!(after.1.1 <= SLOTS * 512 + 1024, "shared memory: {after:?}");
    assert_eq!(stage.board.refused.load(SeqCst), 0, "there was no room for a frame");
    stage.check();
    drop((witnesses, producers));
}

/// Of `due` frames an honest reader gets as many, and as soon, while harm is done to its own camera as to another one.
fn is_unharmed(mode: &str, calm: &Seen, storm: &Seen, due: u64, seconds: u64) -> Result<(), String> {
    let of = |what: &str, here: &dyn Debug, elsewhere: &dyn Debug| {
        Err(format!("{mode}, of {due} frames: {what} {here:?}, with harm elsewhere {elsewhere:?}"))
    };
    // The newest is what one who comes late gets: how often that is the processors decide.
    if storm.lost > if mode == "newest" { calm.lost * 3 + due / 4 } else { 0 } {
        return of("lost", &storm.lost, &calm.lost);
    }
    if storm.frames + storm.lost + 3 * seconds < due * 98 / 100 {
        return of("got", &storm.frames, &calm.frames);
    }
    if storm.delay(0.99) >= calm.delay(0.99) * 3 + DELAY {
        return of("delays of 99 of 100", &storm.delay(0.99), &calm.delay(0.99));
    }
    Ok(())
}
