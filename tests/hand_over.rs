//! Cameras change hands: between processes and within one, by priority and by agreement, and back.

mod support;

use std::time::{Duration, Instant};

use camlease::{Camera, Kind, OnBusy, OpenOptions, StreamRequest};
use support::party::Party;
use support::{camera, own};

fn ask<'a>(priority: i32) -> OpenOptions<'a> {
    OpenOptions { on_busy: OnBusy::Ask, priority, name: "test".into(), ..OpenOptions::default() }
}

#[test]
fn the_higher_priority_gets_it_and_the_loser_gets_it_back() {
    let uri = &camera("hand-over-1?fps=100");
    let mut low = Party::start();
    low.ok(&format!("open {uri} wait 1 0 0 low"));
    low.ok("start");
    low.ok("frame");
    let mut high = Party::start();
    high.order(&format!("open {uri} ask 2 5000 300 high"));
    let told = low.callback();
    let expected = format!("asked {} {} 2 1 300 high", high.pid(), own_uid());
    assert_eq!(told, expected);
    // Its frame is out still: the camera is not taken before the grace is over, and the frame keeps its bytes.
    assert_eq!(low.tell("check"), "OK");
    let words = low.evicted();
    assert!(words.contains(&format!("handed over to \"high\" (pid {}), priority 2", high.pid())), "{words}");
    assert!(high.answer().starts_with("OK"));
    assert_eq!(low.tell("check"), "OK", "a frame that was out stays readable");
    assert_eq!(low.tell("fd 0"), "OK 1", "its descriptor is readable, once it was handed over");
    high.ok("start 320 240");
    high.ok("frame");
    assert!(high.ok("info").contains("width=320 last_exit=0 priority=2"), "{}", high.ok("info"));
    let busy = low.refused("regain 0", "BUSY");
    assert!(busy.contains(&format!("(pid {}, user", high.pid())) && busy.contains("calls itself \"high\""), "{busy}");
    low.order("regain 10000");
    high.ok("close");
    assert!(low.answer().starts_with("OK"));
    low.ok("start");
    low.ok("frame");
    assert!(low.ok("info").contains("reconnects=1"));
    assert_eq!(low.tell("fd 5000"), "OK 1");
    low.ok("release");
    low.ok("close");
}

fn own_uid() -> u32 {
    // SAFETY: no pointers.
    unsafe { libc::geteuid() }
}

#[test]
fn an_equal_priority_keeps_it_unless_its_host_agrees() {
    let uri = &camera("hand-over-2?fps=100");
    let mut holder = Party::start();
    holder.ok(&format!("open {uri} wait 5 0 0 keeper"));
    let error = Camera::open(uri, OpenOptions { timeout: Some(Duration::from_secs(5)), ..ask(5) }).err().unwrap();
    assert_eq!(error.kind(), Kind::Busy);
    let words =
        format!("its holder \"keeper\" (pid {}) keeps it: its priority is 5, and the one who asks has 5", holder.pid());
    assert!(error.message().contains(&words), "{error}");
    let told = holder.callback();
    let words: Vec<_> = told.split(' ').collect();
    assert_eq!((words[3], words[4], words[6]), ("5", "0", "test"), "{told}");
    let grace: u64 = words[5].parse().unwrap();
    assert!((1..=5000).contains(&grace), "what was left of the time is its grace: {told}");
    holder.ok("start"); // and keeps it
    holder.ok("answer yield");
    let begun = Instant::now();
    let camera = Camera::open(uri, ask(-1)).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    holder.refused("frame", "EVICTED");
    camera.start(&StreamRequest::default()).unwrap();
    camera.next_frame(Some(Duration::from_secs(5))).unwrap();
}

#[test]
fn a_holder_with_a_frame_finishes_it_and_is_not_waited_for_longer() {
    let uri = &camera("hand-over-3?fps=100");
    let mut holder = Party::start();
    for (grace, released) in [(5000, true), (300, false)] {
        holder.ok(&format!("open {uri} wait 0 5000 0 holder"));
        holder.ok("start");
        holder.ok("frame");
        let uri = uri.to_owned();
        let asker = std::thread::spawn(move || {
            let begun = Instant::now();
            let options = OpenOptions { grace: Some(Duration::from_millis(grace)), ..ask(1) };
            Camera::open(&uri, options).map(|camera| (camera, begun.elapsed())).unwrap()
        });
        holder.callback();
        if released {
            holder.ok("release");
        }
        let (camera, took) = asker.join().unwrap();
        match released {
            true => assert!(took < Duration::from_millis(grace), "{took:?}"),
            false => assert!(took >= Duration::from_millis(grace), "{took:?}"),
        }
        holder.refused("frame", "EVICTED");
        drop(camera);
        holder.ok("close");
    }
}

#[test]
fn a_holder_that_closes_when_it_is_asked_hands_it_over_by_that() {
    let uri = &camera("hand-over-4");
    let mut holder = Party::start();
    holder.ok(&format!("open {uri} wait 0 0 0 holder"));
    holder.ok("answer close");
    let camera = Camera::open(uri, ask(1)).unwrap();
    holder.refused("info", "INVALID_HANDLE");
    drop(camera);
    // Programs that other tests start just now have this one's open files until their exec.
    holder.ok(&format!("open {uri} wait 0 2000 0 again"));
}

#[test]
fn within_one_process_the_device_is_not_closed() {
    let uri = &camera("hand-over-5?fps=100");
    let first = Camera::open(uri, OpenOptions { name: "first".into(), ..OpenOptions::default() }).unwrap();
    first.start(&StreamRequest::default()).unwrap();
    let frame = first.next_frame(None).unwrap();
    let (number, bytes) = (frame.sequence(), frame.data(0).to_vec());
    let own = format!("@camlease/virtual/{}", own("hand-over-5"));
    let bound = || {
        let table = std::fs::read_to_string("/proc/net/unix").unwrap();
        let inode = |line: &str| line.split_whitespace().nth(6).unwrap().to_owned();
        // Connections of those who wait bear the name as well: the holder's socket listens.
        let name = |line: &&str| line.ends_with(&own) && line.contains(" 00010000 ");
        table.lines().find(name).map(inode)
    };
    let before = bound().expect("it is held");
    let request = StreamRequest { width: 320, height: 240, ..StreamRequest::default() };
    let second = Camera::open(uri, OpenOptions { grace: Some(Duration::from_millis(50)), ..ask(1) }).unwrap();
    assert_eq!(bound(), Some(before), "the open file that holds it is the same");
    assert_eq!(first.next_frame(None).err().unwrap().kind(), Kind::Evicted);
    assert_eq!(second.start(&request).unwrap().width, 320);
    second.next_frame(None).unwrap();
    assert_eq!((frame.sequence(), frame.data(0)), (number, &bytes[..]));
    // A close of the one that lost it takes nothing from the other.
    drop(first);
    second.next_frame(None).unwrap();
}

#[test]
fn waiting_calls_return_when_the_camera_is_handed_over() {
    let uri = &camera("hand-over-6?stall=0");
    let first = Camera::open(uri, OpenOptions::default()).unwrap();
    first.start(&StreamRequest::default()).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| first.next_frame(None).err().unwrap().kind());
        let second = Camera::open(uri, ask(1)).unwrap();
        assert_eq!(waits.join().unwrap(), Kind::Evicted);
        drop(second);
    });
}

#[test]
fn closing_ends_the_wait_to_get_it_back() {
    let uri = &camera("hand-over-7");
    let first = Camera::open(uri, OpenOptions::default()).unwrap();
    assert_eq!(first.regain(None).unwrap_err().kind(), Kind::WrongState);
    let second = Camera::open(uri, ask(1)).unwrap();
    let waits = |timeout| first.regain(timeout).unwrap_err().kind();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| waits(None));
        let deadline = Instant::now() + Duration::from_secs(20);
        // "wrong state" says that another thread is the one who waits. One attempt may come in the way of its own.
        while waits(Some(Duration::ZERO)) != Kind::WrongState && !waiter.is_finished() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(20));
        }
        first.close();
        let seen = waiter.join().unwrap();
        assert!(seen == Kind::Closed || seen == Kind::WrongState, "{seen:?}");
    });
    assert_eq!(first.regain(None).unwrap_err().kind(), Kind::Closed);
    drop(second);
}

#[test]
fn an_asker_that_is_gone_leaves_the_camera_free() {
    let uri = &camera("hand-over-8?fps=100");
    let mut holder = Party::start();
    holder.ok(&format!("open {uri} wait 0 0 0 holder"));
    holder.ok("start");
    holder.ok("frame");
    let mut asker = Party::start();
    asker.order(&format!("open {uri} ask 1 10000 10000 asker"));
    holder.callback();
    asker.kill();
    holder.evicted();
    holder.ok("release");
    holder.ok("regain 5000");
    holder.ok("start");
    holder.ok("frame");
}
