//! Two, three and ten processes contend for a virtual camera while they are killed at random moments.
//!
//! The full run: `CAMLEASE_KILLS=10000 cargo test --test contention -- --nocapture`; CAMLEASE_SEED decides what is
//! killed when.

mod support;

use std::time::{Duration, Instant};

use camlease::{Camera, OnBusy, OpenOptions};
use support::contention::{Bounds, Contention, files, leases_in_memory, sockets_of};
use support::number;
use support::party::Party;

/// Kills of all runs together.
const KILLS: u64 = 600;
/// Between two of them, on average.
const PAUSE: Duration = Duration::from_millis(20);
/// Beside compilers and emulators on the same processors.
const BOUNDS: Bounds = Bounds { median: Duration::from_millis(20), worst: Duration::from_secs(5) };

fn contend(processes: usize) {
    let kills = number("CAMLEASE_KILLS", KILLS) / 3;
    let seed = number("CAMLEASE_SEED", 1) + processes as u64;
    let name = format!("contention-{}-{processes}", std::process::id());
    let (uri, key) = (format!("virtual:{name}?fps=200&width=320&height=180"), format!("virtual-{name}"));
    support::judged(|| {
        let mut contention = Contention::begin(&uri, &key, processes, seed);
        contention.kill_at_random(kills - kills / 10, PAUSE);
        contention.end().judge(BOUNDS)
    });
    let mut contention = Contention::begin(&uri, &key, processes, seed + 100);
    contention.kill_at_random(kills / 10, PAUSE);
    contention.end_by_killing_all();
}

#[test]
fn two_processes() {
    contend(2);
}

#[test]
fn three_processes() {
    contend(3);
}

#[test]
fn ten_processes() {
    contend(10);
}

#[test]
fn nothing_stays_of_one_that_was_killed_after_it_had_handed_the_camera_over() {
    leases_in_memory();
    let uri = format!("virtual:contention-{}-loser", std::process::id());
    let key = uri.replace("virtual:", "camlease-virtual-");
    let (mut loser, mut winner) = (Party::start(), Party::start());
    loser.ok(&format!("open {uri} wait 0 0 0 loser"));
    winner.ok(&format!("open {uri} ask 1 5000 0 winner"));
    loser.refused("start", "EVICTED");
    assert_eq!(files(&key).len(), 2, "the winner's lease and the socket beside it: {:?}", files(&key));
    loser.kill();
    assert!(winner.ok("info").contains("last_exit=0"), "it was handed over");
    winner.ok("close");
    assert_eq!(files(&key), Vec::<String>::new());
}

#[test]
fn one_who_asked_in_vain_asks_the_next_holder_too() {
    leases_in_memory();
    let uri = format!("virtual:contention-{}-next", std::process::id());
    let mut parties = [Party::start(), Party::start(), Party::start()];
    let [first, second, waiter] = &mut parties;
    first.ok(&format!("open {uri} wait 9 0 0 first"));
    waiter.order(&format!("open {uri} ask 5 20000 0 waiter"));
    assert!(first.callback().ends_with("waiter"));
    // It is passed on as an open file: nothing is closed that would wake the one who waits.
    first.ok("answer yield");
    second.ok(&format!("open {uri} ask 0 5000 0 second"));
    let lost = Instant::now();
    assert!(waiter.answer().starts_with("OK"));
    assert!(lost.elapsed() < Duration::from_secs(5), "{:?}", lost.elapsed());
    second.refused("start", "EVICTED");
}

#[test]
fn one_that_is_asked_the_moment_it_opens_leaves_one_lease() {
    leases_in_memory();
    let uri = format!("virtual:contention-{}-moment", std::process::id());
    let key = uri.replace("virtual:", "camlease-virtual-");
    let name = uri.strip_prefix("virtual:").unwrap();
    for round in 0..400 {
        // A program that another test starts has all that is open here for a moment, the last round's camera too. Then the
        // first one would wait, and hang its socket out before it has the camera.
        let begun = Instant::now();
        while let [first, ..] = &sockets_of(name)[..] {
            assert!(begun.elapsed() < Duration::from_secs(20), "round {round}: {first}");
            std::thread::sleep(Duration::from_millis(1));
        }
        let opened = std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                let timeout = Some(Duration::from_millis(500));
                Camera::open(&uri, OpenOptions { timeout, ..OpenOptions::default() })
            });
            let second = scope.spawn(|| {
                // It asks as soon as there is a socket to ask at: the first one's open has not returned yet.
                let begun = Instant::now();
                while !files(&key).iter().any(|name| name.ends_with(".ask")) && begun.elapsed().as_secs() < 20 {
                    std::thread::yield_now();
                }
                Camera::open(&uri, OpenOptions { on_busy: OnBusy::Ask, priority: 1, ..OpenOptions::default() })
            });
            (first.join().unwrap().unwrap(), second.join().unwrap().unwrap())
        });
        assert_eq!(files(&key).len(), 2, "round {round}: a lease and its socket: {:?}", files(&key));
        drop(opened);
    }
}
