//! SIGKILL in each state of a shared camera's producer and of its readers, and fork and exec in the midst of both: nothing
//! is kept by the dead or by children, and the others go on or are told at once.

mod support;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use camlease::{Camera, Commands, DropPolicy, Frame, Kind, Map, OpenOptions, ShareOptions, ShareStart, StreamRequest};
use support::rough::Rough;
use support::stamped::{self, Own, Stage, belongings, eventually, format, options, settled};

const SECONDS: Option<Duration> = Some(Duration::from_secs(20));
/// How soon the end of a process is noticed, beside whatever else runs.
const SOON: Duration = Duration::from_secs(15);

/// What a process has is counted: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Where a reader is killed.
const STATES: [&str; 9] =
    ["connecting", "hello", "opened", "started", "stopped", "streaming", "holding", "waiting", "commanding"];

#[test]
fn plays_a_part() {
    let Some((stage, part)) = stamped::part() else { return };
    match part[0].as_str() {
        "stay" => stay(&stage, &part[1]),
        "starve" => starve(&stage),
        "starve-and-produce" => starve_and_produce(&stage),
        "reader-forks" => reader_forks(&stage),
        "producer-forks" => producer_forks(&stage),
        _ => assert!(stamped::play(&stage, &part), "{part:?}"),
    }
    std::process::exit(0);
}

/// Commands that take their time.
struct Slow;

impl Commands for Slow {
    fn command(&self, verb: &str, _request: &Map) -> Option<camlease::Result<Map>> {
        std::thread::sleep(Duration::from_millis(200));
        (verb == "dawdle").then(|| Ok(Map::new()))
    }

    fn status(&self) -> Map {
        Map::new()
    }
}

fn slow(name: &str) -> ShareOptions {
    ShareOptions { commands: Some(Arc::new(Slow)), ..options(name) }
}

fn open(stage: &Stage) -> Camera {
    let options = OpenOptions { name: "reader".into(), ..OpenOptions::default() };
    Camera::open(&format!("shared:{}", stage.name), options).unwrap()
}

fn in_order(buffers: u32) -> StreamRequest {
    StreamRequest { drop_policy: DropPolicy::Newest, buffers, ..StreamRequest::default() }
}

fn next(camera: &Camera) -> Frame {
    let frame = camera.next_frame(SECONDS).unwrap();
    stamped::check(&frame).unwrap_or_else(|words| panic!("{words}"));
    frame
}

fn ask(camera: &Camera, verb: &str) -> camlease::Result<Map> {
    camera.command(Map::from_iter([("do".to_owned(), verb.into())]), Duration::from_secs(20))
}

/// Comes into a state, says so, and stays in it.
fn stay(stage: &Stage, state: &str) {
    let own = &stage.board.parties[1];
    let reached = || own.phase.store(1, SeqCst);
    let for_ever = || -> ! {
        reached();
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    };
    if state == "connecting" {
        let _client = Rough::connect(&stage.door()).unwrap();
        for_ever();
    }
    if state == "hello" {
        let _client = Rough::known(&stage.door(), "hello");
        for_ever();
    }
    let camera = open(stage);
    if state == "opened" {
        for_ever();
    }
    if state == "commanding" {
        reached();
        loop {
            ask(&camera, "dawdle").unwrap();
        }
    }
    let most = camera.start(&in_order(4)).unwrap().buffers;
    match state {
        "started" => for_ever(),
        "stopped" => {
            camera.stop().unwrap();
            for_ever();
        }
        "holding" => {
            let _held: Vec<_> = (0..most).map(|_| next(&camera)).collect();
            for_ever();
        }
        "waiting" => {
            next(&camera);
            own.holds.store(1, SeqCst); // no further frame, please
            reached();
            // One that was on its way is not the last.
            while camera.next_frame(None).is_ok() {}
        }
        _ => loop {
            drop(next(&camera));
            reached();
        },
    }
}

#[test]
fn a_reader_that_is_killed_leaves_nothing_in_any_state() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage::new("deaths-reader");
    let mut own = Own::new(&stage, slow(&stage.name));
    let honest = open(&stage);
    honest.start(&in_order(2)).unwrap();
    let room = |stage: &Stage| {
        let camera = open(stage);
        let format = camera.start(&in_order(32)).unwrap();
        drop(camera);
        eventually("who asked for room", || own_clients(stage), |clients| *clients == 1);
        format.buffers
    };
    let room_before = room(&stage);
    for state in STATES {
        eventually("clients", || own.publisher.info().clients, |clients| *clients == 2);
        let before = settled(std::process::id());
        let party = &stage.board.parties[1];
        party.phase.store(0, SeqCst);
        party.holds.store(0, SeqCst);
        let mut killed = stage.start(&format!("stay {state}"));
        let begun = Instant::now();
        while party.phase.load(SeqCst) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{state} is never reached");
            if party.holds.load(SeqCst) == 0 {
                own.publish();
                drop(next(&honest));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        std::thread::sleep(Duration::from_millis(20)); // into the call that is waited in
        if ["started", "streaming", "holding", "waiting"].contains(&state) {
            assert_eq!(own.publisher.info().readers, 2, "{state}");
        }
        let now = Instant::now();
        killed.kill();
        eventually(state, || own.publisher.info(), |info| (info.readers, info.clients) == (1, 2));
        assert!(now.elapsed() < SOON, "{state}: it was noticed after {:?}", now.elapsed());
        eventually(state, || belongings(std::process::id()), |now| opened(now) == opened(&before));
        for _ in 0..100 {
            own.publish();
            assert_eq!(next(&honest).sequence(), own.sequence, "{state}");
        }
    }
    assert_eq!(room(&stage), room_before);
    drop((honest, own));
    assert_eq!(stage.files(), Vec::<String>::new());
}

/// A reader of this process's own maps each slot when a frame comes in it first.
fn opened(of: &stamped::Belongings) -> (usize, usize) {
    (of.descriptors, of.memory_files)
}

/// Readers, by the producer's own word.
fn own_clients(stage: &Stage) -> usize {
    stage.readers().len()
}

/// From now on this process can have so many descriptors more.
fn leave_room_for(more: u32) {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for a limit, and valid ones.
    unsafe {
        assert_eq!(libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit), 0);
        limit.rlim_cur = limit.rlim_max;
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
        // The next one's number.
        limit.rlim_cur = File::open("/dev/null").unwrap().as_raw_fd() as libc::rlim_t + libc::rlim_t::from(more);
        assert_eq!(libc::setrlimit(libc::RLIMIT_NOFILE, &limit), 0);
    }
}

/// Attaches with so few descriptors to have that it fails at each of them in turn, and at last does not.
fn starve(stage: &Stage) {
    let camera = open(stage);
    for room in 0..30 {
        leave_room_for(room);
        let outcome = camera.start(&in_order(2)).and_then(|_| camera.next_frame(SECONDS));
        leave_room_for(100);
        let words = match outcome {
            Ok(frame) => {
                stamped::check(&frame).unwrap();
                assert!(room > 2, "a ring and what belongs to it come without descriptors");
                stage.board.parties[1].phase.store(1, SeqCst);
                return;
            }
            Err(error) => error,
        };
        assert_eq!(words.errno(), libc::EMFILE, "{room}: {words}");
        let _ = camera.stop();
    }
    panic!("it is never enough");
}

/// Publishes, and can have so many descriptors more as it is told.
fn starve_and_produce(stage: &Stage) {
    let mut own = Own::new(stage, slow(&stage.name));
    let party = &stage.board.parties[1];
    loop {
        let told = party.holds.load(SeqCst);
        if told != party.phase.load(SeqCst) {
            leave_room_for(told - 1);
            party.phase.store(told, SeqCst);
        }
        own.publish();
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_producer_that_runs_out_of_descriptors_says_so_and_goes_on() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage::new("deaths-scarce");
    let party = &stage.board.parties[1];
    let leave = |room: u32| {
        party.holds.store(room + 1, SeqCst);
        eventually("its limit", || party.phase.load(SeqCst), |now| *now == room + 1);
    };
    let _producer = stage.start("starve-and-produce");
    leave(100);
    let honest = open(&stage);
    honest.start(&in_order(8)).unwrap();
    let mut last = next(&honest).sequence();
    let mut refused = 0;
    for room in 0..30 {
        leave(room);
        let options = OpenOptions { timeout: SECONDS, ..OpenOptions::default() };
        let outcome = Camera::open(&format!("shared:{}", stage.name), options).and_then(|camera| {
            camera.start(&in_order(2))?;
            camera.next_frame(SECONDS).map(|frame| stamped::check(&frame).unwrap())
        });
        for _ in 0..20 {
            let sequence = next(&honest).sequence();
            assert!(sequence > last, "the frames of others go on");
            last = sequence;
        }
        match outcome {
            Ok(_) => break,
            Err(error) => {
                assert_eq!(error.errno(), libc::EMFILE, "{room}: {error}");
                assert!(error.message().contains("its process"), "whose they are is told: {error}");
                refused += 1;
            }
        }
    }
    assert!((2..30).contains(&refused), "{refused} were refused");
    leave(100);
    let late = open(&stage);
    late.start(&in_order(2)).unwrap();
    next(&late);
}

#[test]
fn a_reader_that_runs_out_of_descriptors_is_told_so_and_harms_nobody() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage::new("deaths-starve");
    let mut own = Own::new(&stage, slow(&stage.name));
    let honest = open(&stage);
    honest.start(&in_order(2)).unwrap();
    drop((own.publish(), next(&honest)));
    let before = settled(std::process::id());
    let mut starves = stage.start("starve");
    let ended = loop {
        own.publish();
        assert_eq!(next(&honest).sequence(), own.sequence);
        if let Some(ended) = starves.has_ended() {
            break ended;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    assert!(ended.success() && stage.board.parties[1].phase.load(SeqCst) == 1, "{ended}");
    eventually("what it was given", || opened(&belongings(std::process::id())), |now| *now == opened(&before));
}

/// What waits for a producer is told of its end, in each state.
#[test]
fn a_producer_that_is_killed_is_told_to_all() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage::new("deaths-producer");
    let before = belongings(std::process::id());
    let producer = || {
        let seen = stage.board.published.load(SeqCst);
        let producer = stage.start("produce 0 1 100 0 8");
        eventually("frames", || stage.board.published.load(SeqCst), |now| *now > seen);
        producer
    };
    let told_soon = |begun: Instant, state: &str| assert!(begun.elapsed() < SOON, "{state}: {:?}", begun.elapsed());

    // Connected, known, opened, holding frames, waiting for one.
    let mut killed = producer();
    let door = stage.door();
    let (connected, known) = (Rough::connect(&door).unwrap(), Rough::known(&door, "known"));
    let attached = Rough::known(&door, "attached");
    let given = attached.attach(2).unwrap();
    let (opened, holding, waiting) = (open(&stage), open(&stage), open(&stage));
    let most = holding.start(&in_order(3)).unwrap().buffers;
    waiting.start(&StreamRequest::default()).unwrap();
    let held: Vec<Frame> = (0..most).map(|_| next(&holding)).collect();
    let (refused, is_refused) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let error = loop {
                if let Err(error) = waiting.next_frame(None) {
                    break error;
                }
            };
            refused.send(error.kind()).unwrap();
        });
        let begun = Instant::now();
        killed.kill();
        for client in [&connected, &known, &attached] {
            client.is_sent_away();
        }
        assert_eq!(is_refused.recv_timeout(SOON), Ok(Kind::Disconnected));
        told_soon(begun, "waiting");
        // The first call after the end says so, and the next one finds nobody.
        let error = ask(&opened, "status").unwrap_err();
        assert!(matches!(error.kind(), Kind::Disconnected | Kind::NotFound), "{error}");
        let error = opened.controls().err().unwrap();
        assert!(matches!(error.kind(), Kind::Disconnected | Kind::NotFound), "{error}");
        told_soon(begun, "opened");
    });
    assert!(held.iter().all(|frame| stamped::check(frame).is_ok()), "frames stay");
    let error = holding.next_frame(SECONDS).err().unwrap();
    assert!(matches!(error.kind(), Kind::Disconnected | Kind::Budget), "{error}");
    // Whoever looks for it clears away what it left.
    assert!(stage.files().len() <= 2, "{:?}", stage.files());
    let error = Camera::open(&format!("shared:{}", stage.name), OpenOptions::default()).err().unwrap();
    assert_eq!(error.kind(), Kind::NotFound, "{error}");
    assert_eq!(stage.files(), Vec::<String>::new());
    // The next one of its name is gone over to.
    let mut killed = producer();
    drop(held);
    for camera in [&holding, &waiting] {
        let begun = Instant::now();
        while camera.next_frame(Some(Duration::from_millis(100))).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "frames come again");
        }
    }

    // A producer that hangs, and is killed then: whoever just opens, starts or asks.
    killed.signal(libc::SIGSTOP);
    eventually("all of its threads stand", || killed.running_threads(), |running| *running == 0);
    std::thread::scope(|scope| {
        let (told, is_told) = mpsc::channel();
        let calls: [Box<dyn Fn() -> Option<Kind> + Send>; 3] = [
            Box::new(|| {
                Camera::open(&format!("shared:{}", stage.name), OpenOptions::default()).err().map(|error| error.kind())
            }),
            Box::new(|| opened.start(&StreamRequest::default()).err().map(|error| error.kind())),
            Box::new(|| stage.ask("status").err().map(|error| error.kind())),
        ];
        for call in calls {
            let told = told.clone();
            scope.spawn(move || told.send(call()).unwrap());
        }
        std::thread::sleep(Duration::from_millis(100)); // into the calls
        let begun = Instant::now();
        killed.kill();
        for _ in 0..3 {
            let kind = is_told.recv_timeout(SOON).unwrap();
            assert!(matches!(kind, Some(Kind::Disconnected | Kind::NotFound)), "{kind:?}");
        }
        told_soon(begun, "opening, starting, asking");
    });
    drop((connected, known, attached, given, opened, holding, waiting));
    eventually(
        "what readers had",
        || belongings(std::process::id()),
        |now| (now.descriptors, now.memory_files, now.mappings) == (before.descriptors, 0, 0),
    );
}

#[test]
fn a_producer_is_killed_while_it_changes_the_format() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage::new("deaths-format");
    stage.board.may_reformat.store(1, SeqCst);
    let phase = &stage.board.parties[0].phase;
    let mut camera = None;
    for round in 0..20 {
        phase.store(stamped::BEGINS, SeqCst);
        let mut killed = stage.start(&format!("produce 0 {round} 400 0 4"));
        eventually("a share", || stage.board.producers.load(SeqCst), |now| *now == round + 1);
        let camera = camera.get_or_insert_with(|| {
            stage.door();
            let camera = open(&stage);
            camera.start(&in_order(2)).unwrap();
            camera
        });
        let begun = Instant::now();
        let mut seen = false;
        while phase.load(SeqCst) != stamped::CHANGES_FORMAT || !seen {
            assert!(begun.elapsed() < Duration::from_secs(20), "round {round}");
            match camera.next_frame(Some(Duration::from_millis(1))) {
                Ok(frame) => {
                    stamped::check(&frame).unwrap_or_else(|words| panic!("round {round}: {words}"));
                    seen = true;
                }
                Err(error) => assert!(matches!(error.kind(), Kind::Timeout | Kind::Disconnected), "{error}"),
            }
        }
        killed.kill();
        let begun = Instant::now();
        while camera.next_frame(Some(Duration::from_millis(100))).err().map(|error| error.kind())
            != Some(Kind::Disconnected)
        {
            assert!(begun.elapsed() < SOON, "round {round}: it is not told");
        }
    }
    stage.check();
    assert!(!camlease::shares().iter().any(|served| served.name == stage.name));
    assert_eq!(stage.files(), Vec::<String>::new());
}

/// What a process has open, but for the first three and the folder that is read, and what it has mapped of shares.
fn things_of(pid: &str) -> Vec<String> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(|entry| {
        let entry = entry.ok()?;
        let number: u32 = entry.file_name().to_str()?.parse().ok()?;
        let link = std::fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
        (number > 2 && !link.starts_with("/proc/")).then_some(link)
    });
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mapped = maps.lines().filter(|line| line.contains("/memfd:camlease")).map(str::to_owned);
    links.chain(mapped).collect()
}

/// Forks, and lets the child do something; it lives on until this process has ended.
fn fork_and(child: impl FnOnce() -> Result<(), String>, stage: &Stage) -> i32 {
    // SAFETY: the child goes on in this thread; what is called there is what a host's child may call.
    match unsafe { libc::fork() } {
        0 => {
            if let Err(words) = child() {
                stage.board.complain(&words);
            }
            stage.board.parties[2].phase.store(1, SeqCst);
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        child => child,
    }
}

/// Everything that a new program would inherit.
fn inherited_by_exec() -> Vec<String> {
    let list = Command::new("readlink").arg("-f").args((3..64).map(|fd| format!("/proc/self/fd/{fd}"))).output();
    // A number that is free is what it is called; one that is open is what it leads to.
    let text = String::from_utf8(list.unwrap().stdout).unwrap();
    text.lines().filter(|line| !line.contains("/fd/")).map(str::to_owned).collect()
}

/// A reader with a frame in hand forks and goes on; its child has the frame, and nothing else.
fn reader_forks(stage: &Stage) {
    let board = stage.board;
    let (had, inherited) = (things_of("self"), inherited_by_exec());
    let camera = open(stage);
    camera.start(&in_order(3)).unwrap();
    let frame = next(&camera);
    if inherited != inherited_by_exec() {
        return board.complain(&format!("a new program inherits {:?}", inherited_by_exec()));
    }
    let child = fork_and(
        || {
            let expect = |is: bool, words: &str| if is { Ok(()) } else { Err(format!("child: {words}")) };
            expect(frame.is_forked() && stamped::check(&frame).is_ok(), "the frame is there")?;
            let left = things_of("self");
            expect(left == had, &format!("it has {left:?}"))?;
            let refused = |error: Option<camlease::Error>| error.map(|error| error.kind()) == Some(Kind::Forked);
            expect(refused(camera.next_frame(SECONDS).err()), "a frame")?;
            expect(refused(camera.stop().err()), "a stop")?;
            expect(refused(ask(&camera, "status").err()), "a command")
        },
        stage,
    );
    board.parties[1].holds.store(child as u32, SeqCst);
    drop(frame);
    loop {
        drop(next(&camera));
        board.parties[1].frames.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_reader_forks_and_execs() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage::new("deaths-reader-forks");
    let mut own = Own::new(&stage, slow(&stage.name));
    let mut reader = stage.start("reader-forks");
    let frames = &stage.board.parties[1].frames;
    let begun = Instant::now();
    while frames.load(SeqCst) < 50 || stage.board.parties[2].phase.load(SeqCst) == 0 {
        stage.check();
        assert!(begun.elapsed() < Duration::from_secs(30), "{frames:?}");
        own.publish();
        std::thread::sleep(Duration::from_millis(5));
    }
    stage.check();
    assert_eq!(own.publisher.info().readers, 1);
    // The child lives, and holds nothing of its parent's.
    let child = stage.board.parties[1].holds.load(SeqCst) as i32;
    reader.kill();
    eventually("the reader", || own.publisher.info(), |info| (info.readers, info.clients) == (0, 0));
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0, "the child was there still");
}

/// A producer forks and goes on; its child has nothing.
fn producer_forks(stage: &Stage) {
    let board = stage.board;
    let (had, inherited) = (things_of("self"), inherited_by_exec());
    let mut own = Own::new(stage, slow(&stage.name));
    own.publish();
    let also = format!("{}-also", stage.name);
    let camera = Camera::open(&format!("virtual:{also}?fps=100"), OpenOptions::default()).unwrap();
    let start = ShareStart::Always;
    camera.share(ShareOptions { name: also, start, ..ShareOptions::default() }).unwrap();
    if inherited != inherited_by_exec() {
        return board.complain(&format!("a new program inherits {:?}", inherited_by_exec()));
    }
    let child = fork_and(
        || {
            let expect = |is: bool, words: &str| if is { Ok(()) } else { Err(format!("child: {words}")) };
            let left = things_of("self");
            expect(left == had, &format!("it has {left:?}"))?;
            let Own { publisher, bytes, .. } = &own;
            expect(!publisher.publish(&[bytes], 9, 9, false), "it publishes")?;
            let refused = publisher.set_format(&format(1)).err().map(|error| error.kind());
            expect(refused == Some(Kind::Forked), &format!("a format: {refused:?}"))?;
            expect(publisher.info().published == 0, "frames")?;
            expect(camera.share_info().is_none(), "a share")?;
            let refused = ask(&camera, "status").err().map(|error| error.kind());
            expect(refused == Some(Kind::Forked), &format!("a command: {refused:?}"))?;
            let refused = camera.unshare().err().map(|error| error.kind());
            expect(refused == Some(Kind::Forked), &format!("an end: {refused:?}"))?;
            // SAFETY: the child does not return to its parent's code, which has these for ever.
            drop(unsafe { (std::ptr::read(&own), std::ptr::read(&camera)) });
            Ok(())
        },
        stage,
    );
    board.parties[1].holds.store(child as u32, SeqCst);
    loop {
        own.publish();
        board.parties[0].frames.fetch_add(1, SeqCst);
        if !camera.share_info().is_some_and(|info| info.streaming || info.trouble.is_none()) {
            return board.complain("the camera is not shared any more");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_producer_forks_and_execs() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let stage = Stage::new("deaths-producer-forks");
    let mut producer = stage.start("producer-forks");
    stage.await_frames(0, 10);
    let camera = open(&stage);
    camera.start(&in_order(2)).unwrap();
    eventually("the child", || stage.board.parties[2].phase.load(SeqCst), |phase| *phase == 1);
    stage.check();
    (0..50).for_each(|_| drop(next(&camera)));
    assert_eq!(stage.files().len(), 2, "the child took nothing away: {:?}", stage.files());
    let child = stage.board.parties[1].holds.load(SeqCst) as i32;
    let begun = Instant::now();
    producer.kill();
    let gone = (0..100).find_map(|_| camera.next_frame(SECONDS).err()).unwrap();
    assert_eq!(gone.kind(), Kind::Disconnected, "{gone}");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    // The name is free, though the child lives.
    let own = Own::new(&stage, slow(&stage.name));
    // SAFETY: no pointers.
    assert_eq!(unsafe { libc::kill(child, libc::SIGKILL) }, 0, "the child was there still");
    drop(own);
}
