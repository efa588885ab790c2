//! Cameras change hands on real drivers: frames flow at the new holder, in another size; nobody comes between; whoever is
//! killed on the way leaves the camera free. And what the next holder learns of the last one's end.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use camlease::{Camera, Kind, OnBusy, OpenOptions, StreamRequest, holders};
use camlease_rig::vivid::{self, VividOptions};
use camlease_rig::{Webcam, WebcamOptions, alone, require_guest, v4l2_ctl_streams};
use support::party::Party;

const PATIENCE: Duration = Duration::from_secs(20);

fn vivid_with(options: VividOptions) -> Vec<String> {
    let options = VividOptions { first_number: Some(40), ..options };
    vivid::load(options).iter().map(|node| node.display().to_string()).collect()
}

fn vivid() -> String {
    vivid_with(VividOptions::default()).remove(0)
}

fn webcam() -> &'static Webcam {
    static WEBCAM: OnceLock<Webcam> = OnceLock::new();
    WEBCAM.get_or_init(|| Webcam::plug(WebcamOptions::default()))
}

fn both() -> [String; 2] {
    [vivid(), webcam().node().display().to_string()]
}

#[track_caller]
fn free_for_others(uri: &str) {
    v4l2_ctl_streams(Path::new(uri), 2).unwrap_or_else(|error| panic!("{uri}: {error}"));
}

/// Its pid and what it calls itself, of all who have the camera. (All cameras of vivid are one device's.)
fn names(uri: &str) -> Vec<(i32, String)> {
    let list = holders(uri).unwrap().list.into_iter().filter(|holder| holder.other_node.is_none());
    list.map(|holder| (holder.pid, holder.lease.map_or(String::new(), |lease| lease.name))).collect()
}

/// The host learns a moment after its callback that it has lost the camera.
#[track_caller]
fn until_it_is_lost(party: &mut Party) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = party.tell("frame");
        if answer.starts_with("EVICTED") {
            return;
        }
        assert!(answer.starts_with("OK") && Instant::now() < deadline, "{answer}");
    }
}

/// From one process to another and back, with a frame out all the time.
#[track_caller]
fn there_and_back(uri: &str) {
    let (mut low, mut high) = (Party::start(), Party::start());
    low.ok(&format!("open {uri} wait 1 0 0 low"));
    low.ok("start 640 360");
    low.ok("frame");
    high.ok(&format!("open {uri} ask 2 20000 300 high"));
    assert_eq!(low.callback().split(' ').next(), Some("asked"));
    assert_eq!(low.tell("check"), "OK", "{uri}: a frame that is out keeps its bytes");
    let words = low.refused("frame", "EVICTED");
    assert!(words.contains("was handed over to \"high\""), "{words}");
    assert_eq!(names(uri), [(high.pid(), "high".to_owned())], "{uri}: one holder, with one lease");
    high.ok("start 320 180");
    high.ok("frame");
    let info = high.ok("info");
    assert!(info.contains("width=320 last_exit=0 priority=2"), "{uri}: {info}");
    assert_eq!(low.tell("check"), "OK", "{uri}: also while the other one streams");
    low.refused("regain 0", "BUSY");
    low.order("regain 20000");
    high.ok("close");
    assert!(low.answer().starts_with("OK"));
    low.ok("start 640 360");
    assert_eq!(low.tell("check"), "OK");
    low.ok("frame");
    let info = low.ok("info");
    assert!(info.contains("width=640") && info.contains("reconnects=1"), "{uri}: {info}");
    low.ok("release");
    low.ok("close");
    free_for_others(uri);
}

#[test]
fn frames_flow_at_the_new_holder_and_again_at_the_old_one() {
    let _alone = alone();
    require_guest();
    both().iter().for_each(|uri| there_and_back(uri));
}

#[test]
fn the_same_with_frames_in_several_planes() {
    let _alone = alone();
    require_guest();
    there_and_back(&vivid_with(VividOptions { multiplanar: true, ..VividOptions::default() })[0]);
}

#[test]
fn within_one_process() {
    let _alone = alone();
    require_guest();
    for uri in both() {
        let open = |priority| {
            let grace = Some(Duration::from_millis(50));
            let name = format!("priority {priority}");
            let options = OpenOptions { on_busy: OnBusy::Ask, priority, grace, name, ..OpenOptions::default() };
            Camera::open(&uri, options).unwrap_or_else(|error| panic!("{error}"))
        };
        let start = |camera: &Camera, width| {
            let request = StreamRequest { width, height: width * 9 / 16, ..StreamRequest::default() };
            assert_eq!(camera.start(&request).unwrap_or_else(|error| panic!("{error}")).width, width);
        };
        let first = open(0);
        start(&first, 640);
        let frame = first.next_frame(Some(PATIENCE)).unwrap();
        let (number, bytes) = (frame.sequence(), frame.data(0).to_vec());
        let second = open(1);
        assert_eq!(first.next_frame(None).err().unwrap().kind(), Kind::Evicted);
        start(&second, 320);
        drop(second.next_frame(Some(PATIENCE)).unwrap());
        assert_eq!((frame.sequence(), frame.data(0)), (number, &bytes[..]), "{uri}");
        // A close of the one that lost it takes nothing from the other.
        drop(first);
        drop(second.next_frame(Some(PATIENCE)).unwrap());
        assert_eq!(names(&uri), [(std::process::id() as i32, "priority 1".to_owned())], "{uri}");
        drop(second);
        free_for_others(&uri);
    }
}

/// A foreign program that tries for the camera's buffers as fast as it can (`tests/c/neighbour.c`).
struct Thief(Child);

impl Thief {
    fn start(uri: &str) -> Thief {
        let mut command = Command::new(support::c_program("neighbour.c", &[]));
        let command = command.args([uri, "steal"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut thief = Thief(command.spawn().unwrap());
        assert!(thief.line().starts_with("ready"));
        thief
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// How often it got the camera, and of how many attempts.
    fn told(mut self) -> (u64, u64) {
        self.0.stdin.as_mut().unwrap().write_all(b"tell\n").unwrap();
        let line = self.line();
        let numbers: Vec<_> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
        (numbers[0], numbers[1])
    }
}

impl Drop for Thief {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn nobody_comes_between() {
    let _alone = alone();
    require_guest();
    for uri in both() {
        let mut parties = [Party::start(), Party::start()];
        let mut waiter = Party::start();
        parties[0].ok(&format!("open {uri} wait 0 0 0 first"));
        waiter.order(&format!("open {uri} wait 0 60000 0 waiter"));
        let thief = Thief::start(&uri);
        let (over, deadline) = (AtomicBool::new(false), Instant::now() + 3 * PATIENCE);
        std::thread::scope(|scope| {
            // Another program that wants it: it starts anew each time that it is refused.
            let got = scope.spawn(|| {
                let mut tries = 0;
                while !over.load(Ordering::SeqCst) && Instant::now() < deadline {
                    tries += 1;
                    if v4l2_ctl_streams(Path::new(&uri), 1).is_ok() {
                        return Err(tries);
                    }
                }
                Ok(tries)
            });
            for round in 0..12 {
                let [holder, other] = &mut parties;
                // With streams and without.
                if round % 3 != 0 {
                    holder.ok("start 320 180");
                    holder.ok("frame");
                    holder.ok("release");
                }
                other.ok(&format!("open {uri} ask {} 20000 2000 round {round}", round + 1));
                holder.refused("frame", "EVICTED");
                holder.ok("close");
                parties.swap(0, 1);
            }
            over.store(true, Ordering::SeqCst);
            let tries = got.join().unwrap();
            println!("{uri}: v4l2-ctl tried: {tries:?}");
            assert!(tries.is_ok_and(|tries| tries > 2), "{uri}: v4l2-ctl came between: {tries:?}");
        });
        let told = thief.told();
        println!("{uri}: the thief got it {} of {} times", told.0, told.1);
        assert!(told.0 == 0 && told.1 > 100, "{uri}: {told:?}");
        parties[0].ok("close");
        let answer = waiter.answer();
        assert!(answer.starts_with("OK"), "{uri}: {answer}");
        assert!(waiter.ok("info").contains("last_exit=0"));
        waiter.ok("start");
        waiter.ok("frame");
    }
}

#[test]
fn a_holder_that_is_killed_in_the_middle_leaves_it_to_the_one_who_asked() {
    let _alone = alone();
    require_guest();
    for uri in both() {
        let (mut holder, mut asker) = (Party::start(), Party::start());
        holder.ok(&format!("open {uri} wait 0 0 0 holder"));
        holder.ok("start");
        holder.ok("frame"); // is not given back: the hand-over waits for it
        asker.order(&format!("open {uri} ask 1 20000 20000 asker"));
        holder.callback();
        until_it_is_lost(&mut holder);
        let killed = Instant::now();
        holder.kill();
        let answer = asker.answer();
        assert!(answer.starts_with("OK"), "{uri}: {answer}");
        println!("{uri}: got it {} ms after its holder was killed", killed.elapsed().as_millis());
        assert!(killed.elapsed() < Duration::from_secs(10), "{uri}: {:?}", killed.elapsed());
        assert!(asker.ok("info").contains("last_exit=2"), "{uri}: it died while it was streaming");
        asker.ok("start 320 180");
        asker.ok("frame");
        asker.ok("release");
        asker.ok("close");
        free_for_others(&uri);
    }
}

#[test]
fn an_asker_that_is_killed_before_it_had_it_leaves_it_free() {
    let _alone = alone();
    require_guest();
    for uri in both() {
        let (mut holder, mut asker) = (Party::start(), Party::start());
        holder.ok(&format!("open {uri} wait 0 0 0 holder"));
        holder.ok("start");
        holder.ok("frame");
        asker.order(&format!("open {uri} ask 1 20000 20000 asker"));
        holder.callback();
        asker.kill();
        holder.ok("release");
        holder.refused("frame", "EVICTED");
        holder.ok("regain 10000");
        assert_eq!(names(&uri), [(holder.pid(), "holder".to_owned())]);
        holder.ok("start");
        holder.ok("frame");
        holder.ok("release");
        holder.ok("close");
        free_for_others(&uri);
    }
}

#[test]
fn the_next_holder_learns_how_the_last_one_ended() {
    let _alone = alone();
    require_guest();
    for uri in both() {
        for (orders, last_exit) in [
            (&["start", "frame"][..], 2),
            (&[], 1),
            (&["start", "frame", "stop"], 1),
            (&["start", "close"], 0),
            (&["start", "frame", "exit"], 0),
        ] {
            let mut party = Party::start();
            party.ok(&format!("open {uri} wait 0 10000 0"));
            orders.iter().filter(|order| **order != "exit").for_each(|order| drop(party.ok(order)));
            if orders.contains(&"exit") {
                party.order("exit");
                party.process.wait().unwrap();
            }
            party.kill();
            for expected in [last_exit, 0] {
                let mut next = Party::start();
                next.ok(&format!("open {uri} wait 0 10000 0"));
                let info = next.ok("info");
                assert!(info.contains(&format!("last_exit={expected} ")), "{uri}: after {orders:?}: {info}");
                next.ok("close");
            }
        }
        free_for_others(&uri);
    }
}

#[test]
fn each_camera_has_a_lease_of_its_own_under_whatever_name() {
    let _alone = alone();
    require_guest();
    let nodes = vivid_with(VividOptions { devices: 2, ..VividOptions::default() });
    let (mut left, mut right, mut asker) = (Party::start(), Party::start(), Party::start());
    left.ok(&format!("open {} wait 0 0 0 left", nodes[0]));
    right.ok(&format!("open {} wait 0 0 0 right", nodes[1]));
    assert_eq!(names(&nodes[0]), [(left.pid(), "left".to_owned())]);
    assert_eq!(names(&nodes[1]), [(right.pid(), "right".to_owned())]);
    let link = format!("/tmp/camlease-link-{}", std::process::id());
    symlink(&nodes[1], &link).unwrap();
    asker.ok(&format!("open {link} ask 1 10000 0 by link"));
    right.refused("start", "EVICTED");
    left.ok("start");
    left.ok("frame");
    assert_eq!(names(&nodes[1]), [(asker.pid(), "by link".to_owned())]);
    std::fs::remove_file(&link).unwrap();
}
