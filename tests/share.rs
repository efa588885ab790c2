//! One camera for many: sharing it, reading it here and in other processes, and what becomes of readers when it goes.

mod support;

use std::time::{Duration, Instant};

use camlease::{Camera, DropPolicy, Kind, OpenOptions, ShareOptions, StreamRequest};
use support::party::Party;

const SECONDS: Option<Duration> = Some(Duration::from_secs(10));

/// Names are the whole machine's.
fn unique(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

fn shared(name: &str, query: &str) -> Camera {
    let camera = Camera::open(&format!("virtual:{name}?{query}"), OpenOptions::default()).unwrap();
    camera.share(ShareOptions { name: name.to_owned(), ..ShareOptions::default() }).unwrap();
    camera
}

fn reader(name: &str) -> Camera {
    Camera::open(&format!("shared:{name}"), OpenOptions { name: "reader".into(), ..OpenOptions::default() }).unwrap()
}

fn in_order() -> StreamRequest {
    StreamRequest { drop_policy: DropPolicy::Newest, ..StreamRequest::default() }
}

/// The number that a virtual camera's frame carries.
fn number(frame: &camlease::Frame) -> u64 {
    u64::from_le_bytes(frame.data(0)[..8].try_into().unwrap())
}

#[test]
fn readers_here_and_elsewhere_get_the_frames() {
    let name = unique("share-1");
    let camera = shared(&name, "width=320&height=240&fps=100");
    let here = reader(&name);
    assert_eq!(here.identity().driver, "virtual");
    let format = here.start(&in_order()).unwrap();
    assert_eq!((format.width, format.height, format.fourcc.to_string().as_str()), (320, 240, "YUYV"));
    let mut elsewhere = Party::start();
    elsewhere.ok(&format!("open shared:{name} wait 0 0 0 other"));
    elsewhere.ok("start");
    elsewhere.ok("frame");
    let mut last = None;
    for _ in 0..20 {
        let frame = here.next_frame(SECONDS).unwrap();
        assert_eq!(number(&frame), frame.sequence());
        assert_eq!(frame.data(0).len(), 320 * 240 * 2);
        assert!(last.is_none_or(|last| frame.sequence() > last), "{last:?} {}", frame.sequence());
        last = Some(frame.sequence());
    }
    assert_eq!(camera.share_info().unwrap().readers, 2);
    elsewhere.ok("release");
    elsewhere.ok("close");
    let refused = camera.next_frame(SECONDS).err().unwrap();
    assert_eq!(refused.kind(), Kind::WrongState);
    assert!(refused.message().contains(&format!("open shared:{name} to read it")), "{refused}");
    let t = Instant::now();
    camera.close();
    eprintln!("close {:?}", t.elapsed());
    let gone = (0..100).find_map(|_| here.next_frame(SECONDS).err()).unwrap();
    eprintln!("gone {:?}", t.elapsed());
    assert_eq!(gone.kind(), Kind::Disconnected, "{gone}");
    let camera = shared(&name, "width=160&height=120&fps=100");
    eprintln!("shared {:?}", t.elapsed());
    let begun = Instant::now();
    let frame = loop {
        match here.next_frame(Some(Duration::from_millis(500))) {
            Ok(frame) => break frame,
            Err(error) => assert_eq!(error.kind(), Kind::Disconnected, "{error}"),
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "it is attached again when the camera is back");
    };
    assert_eq!((frame.width(), frame.height()), (160, 120));
    drop(camera);
}
