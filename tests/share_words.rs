//! What somebody is told whose wish for a shared camera is refused: what it is, who is in the way, what to do.

use std::time::{Duration, Instant};

use camlease::{Camera, Kind, Map, OpenOptions, ShareOptions, StreamRequest};

/// Names are the whole machine's.
fn shared(name: &str) -> (String, Camera) {
    let name = format!("words-{name}-{}", std::process::id());
    let camera = Camera::open(&format!("virtual:{name}?width=320&height=240&fps=50"), OpenOptions::default()).unwrap();
    camera.share(ShareOptions { name: name.clone(), ..ShareOptions::default() }).unwrap();
    (name, camera)
}

fn reader(name: &str, called: &str) -> Camera {
    Camera::open(&format!("shared:{name}"), OpenOptions { name: called.into(), ..OpenOptions::default() }).unwrap()
}

fn sized(width: u32, height: u32) -> StreamRequest {
    StreamRequest { width, height, ..StreamRequest::default() }
}

fn request(verb: &str) -> Map {
    [("do".to_owned(), verb.into())].into_iter().collect()
}

#[test]
fn a_name_is_told_as_others_open_it() {
    let (name, _camera) = shared("name");
    let other = Camera::open(&format!("virtual:{name}-other"), OpenOptions::default()).unwrap();
    let refused = other.share(ShareOptions { name: name.clone(), ..ShareOptions::default() }).unwrap_err();
    assert_eq!(refused.kind(), Kind::Busy);
    let pid = std::process::id();
    assert!(
        refused.message().starts_with(&format!("shared:{name}: it is served already, by pid {pid}; ")),
        "{refused}"
    );
}

#[test]
fn who_reads_another_format_is_named_with_what_it_needs() {
    let (name, _camera) = shared("format");
    let (first, second, third) = (reader(&name, "first"), reader(&name, "second"), reader(&name, "third"));
    first.start(&sized(160, 120)).unwrap();
    let refused = second.start(&sized(640, 480)).unwrap_err();
    assert_eq!(refused.kind(), Kind::Busy);
    let pid = std::process::id();
    assert!(refused.message().contains(&format!("streamed as 160x120 YUYV to first (pid {pid}); leave")), "{refused}");
    third.start(&StreamRequest::default()).unwrap();
    let refused = second.start(&sized(640, 480)).unwrap_err();
    assert!(refused.message().contains(&format!("to first (pid {pid}) and 1 more; ")), "{refused}");
    let mut change = request("format");
    change.extend([("width".to_owned(), 640.into()), ("height".to_owned(), 480.into())]);
    let refused = second.command(change, Duration::from_secs(10)).unwrap_err();
    assert!(refused.message().contains(&format!("first (pid {pid}) reads it and needs 160x120; ")), "{refused}");
}

#[test]
fn a_command_that_is_too_long_is_refused_at_once() {
    let (name, _camera) = shared("long");
    let camera = reader(&name, "talker");
    let begun = Instant::now();
    let refused = camera.command(request(&"x".repeat(5000)), Duration::from_secs(60)).unwrap_err();
    assert_eq!(refused.kind(), Kind::InvalidArgument, "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(30), "nothing was sent that could be answered");
    assert!(camera.command(request("status"), Duration::from_secs(10)).is_ok());
}

#[test]
fn a_command_goes_to_the_process_that_is_there_now() {
    let (name, first) = shared("now");
    let camera = reader(&name, "talker");
    let asked = |what: &str| camera.command(request(what), Duration::from_secs(10));
    assert_eq!(asked("status").unwrap()["name"], name);
    first.close();
    let gone = asked("status").unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound, "{gone}");
    let (_, _second) = shared("now");
    assert_eq!(asked("status").unwrap()["name"], name);
}

#[test]
fn a_command_goes_on_where_the_camera_came_back_unnoticed() {
    let (name, first) = shared("unnoticed");
    let camera = reader(&name, "talker");
    assert_eq!(camera.command(request("status"), Duration::from_secs(10)).unwrap()["name"], name);
    first.close();
    let (_, _second) = shared("unnoticed");
    assert_eq!(camera.command(request("status"), Duration::from_secs(10)).unwrap()["name"], name);
}

#[test]
fn readers_of_a_camera_that_is_closed_are_told_that_it_is_gone_and_not_that_theirs_was_closed() {
    for round in 0..30 {
        let (name, camera) = shared(&format!("closed-{round}"));
        let reader = reader(&name, "reader");
        reader.start(&StreamRequest::default()).unwrap();
        std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut failures = (0..1000).filter_map(|_| reader.next_frame(Some(Duration::from_secs(10))).err());
                failures.next().unwrap()
            });
            // So that the camera is closed at some time between two of its frames.
            std::thread::sleep(Duration::from_micros(20_000 + 700 * round));
            camera.close();
            let told = reading.join().unwrap();
            assert_eq!(told.kind(), Kind::Disconnected, "round {round}: {told}");
        });
    }
}
