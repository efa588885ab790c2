//! What a reader of a shared camera is told that it lost: the frames that its mode would have given it, and no others.

use std::time::Duration;

use camlease::{Camera, DropPolicy, FourCc, OpenOptions, Publisher, ShareOptions, StreamFormat, StreamRequest};

const SECONDS: Duration = Duration::from_secs(10);

/// Frames come when the test says so.
struct Shared {
    publisher: Publisher,
    next: u64,
}

impl Shared {
    fn new(name: &str) -> (String, Shared) {
        let name = format!("account-{name}-{}", std::process::id());
        let options = ShareOptions { name: name.clone(), ..ShareOptions::default() };
        let format = StreamFormat {
            width: 8,
            height: 8,
            fourcc: FourCc::new(b"GREY"),
            planes: vec![(8, 64)],
            ..StreamFormat::default()
        };
        (name, Shared { publisher: Publisher::new(options, &format).unwrap(), next: 0 })
    }

    /// So many, a tenth of a second apart.
    fn publish(&mut self, count: u64) {
        for _ in 0..count {
            let timestamp_ns = 1_000_000_000 + self.next as i64 * 100_000_000;
            assert!(self.publisher.publish(&[&[0; 64]], self.next, timestamp_ns, false));
            self.next += 1;
        }
    }
}

struct Reader {
    camera: Camera,
}

impl Reader {
    fn new(name: &str, query: &str, drop_policy: DropPolicy) -> Reader {
        let camera = Camera::open(&format!("shared:{name}{query}"), OpenOptions::default()).unwrap();
        camera.start(&StreamRequest { drop_policy, ..StreamRequest::default() }).unwrap();
        Reader { camera }
    }

    /// The sequence number of the next frame, which is released at once.
    fn take(&self) -> u64 {
        self.camera.next_frame(Some(SECONDS)).unwrap().sequence()
    }

    /// What the camera's process knows of it: frames taken and lost.
    fn account(&self) -> (u64, u64) {
        let request = [("do".to_owned(), "status".into())].into_iter().collect();
        let status = self.camera.command(request, SECONDS).unwrap();
        let reader = &status["readers"][0];
        (reader["taken"].as_u64().unwrap(), reader["lost"].as_u64().unwrap())
    }
}

#[test]
fn all_in_order_that_were_overwritten_are_lost() {
    // Fewer than the ring's table has, and more.
    for away in [30, 300] {
        let (name, mut shared) = Shared::new(&format!("order-{away}"));
        shared.publish(1);
        let reader = Reader::new(&name, "", DropPolicy::Newest);
        assert_eq!(reader.take(), 0);
        shared.publish(away);
        let next = reader.take();
        assert!(next > 1, "a reader that is away for {away} frames loses some");
        assert_eq!(reader.account(), (2, next - 1));
    }
}

#[test]
fn what_the_newest_passes_over_is_lost_and_what_every_leaves_out_is_not() {
    let (name, mut shared) = Shared::new("newest");
    shared.publish(1);
    let reader = Reader::new(&name, "", DropPolicy::Oldest);
    assert_eq!(reader.take(), 0);
    shared.publish(50);
    assert_eq!((reader.take(), reader.account()), (50, (2, 49)));

    for drop_policy in [DropPolicy::Oldest, DropPolicy::Newest] {
        let (name, mut shared) = Shared::new(&format!("every-{drop_policy:?}"));
        shared.publish(1);
        let reader = Reader::new(&name, "?every=5", drop_policy);
        assert_eq!(reader.take(), 0);
        for round in 1..=10 {
            shared.publish(5);
            assert_eq!(reader.take(), 5 * round);
        }
        assert_eq!(reader.account(), (11, 0), "{drop_policy:?}");
        shared.publish(200);
        let next = reader.take();
        assert_eq!(reader.account(), (12, (next - 55) / 5), "{drop_policy:?}: one in five was wanted");
    }
}

#[test]
fn what_a_rate_leaves_out_is_not_lost() {
    for drop_policy in [DropPolicy::Oldest, DropPolicy::Newest] {
        let (name, mut shared) = Shared::new(&format!("rate-{drop_policy:?}"));
        shared.publish(1);
        let reader = Reader::new(&name, "?rate=1", drop_policy);
        assert_eq!(reader.take(), 0);
        for _ in 0..3 {
            shared.publish(10);
            reader.take();
        }
        assert_eq!(reader.account(), (4, 0), "{drop_policy:?}");
    }
}
