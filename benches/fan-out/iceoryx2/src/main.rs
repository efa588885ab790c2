//! iceoryx2: publish and subscribe by shared memory, an event service to wake readers, which block in its listener. The
//! one copy is into memory that is on loan from the publisher.

#[path = "../../participant.rs"]
mod participant;

use std::time::Duration;

use iceoryx2::prelude::*;
use participant::{DEPTH, Participant, now_ns};

type Failure = Box<dyn core::error::Error>;

const READERS: usize = 17;
/// So that a reader whose last wake-up was lost ends at all.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> Result<(), Failure> {
    set_log_level(LogLevel::Error);
    let me = Participant::new();
    let mut config = Config::default();
    let folder = Path::new(me.folder.as_bytes())?;
    config.global.set_root_path(&folder);
    // What stays in /dev/shm is found by it.
    config.global.prefix = FileName::new(b"fan_out_iox2_")?;
    let node = NodeBuilder::new().config(&config).create::<ipc::Service>()?;
    let name: ServiceName = "frames".try_into()?;
    let frames = node
        .service_builder(&name)
        .publish_subscribe::<[u8]>()
        .max_publishers(1)
        .max_subscribers(READERS)
        .max_nodes(READERS + 1)
        .subscriber_max_buffer_size(DEPTH)
        .subscriber_max_borrowed_samples(1)
        .history_size(0)
        .enable_safe_overflow(true)
        .open_or_create()?;
    let wake_ups = node
        .service_builder(&name)
        .event()
        .max_notifiers(1)
        .max_listeners(READERS)
        .max_nodes(READERS + 1)
        .open_or_create()?;
    if me.producer {
        let publisher = frames.publisher_builder().initial_max_slice_len(me.bytes).max_loaned_samples(1).create()?;
        let notifier = wake_ups.notifier_builder().create()?;
        let mut picture = me.picture();
        me.produce(|me, sequence| {
            Participant::mark(&mut picture, sequence);
            me.published(sequence);
            let sample = publisher.loan_slice_uninit(me.bytes).expect("a loan");
            let sample = sample.write_from_slice(&picture);
            me.woke(sequence, now_ns());
            sample.send().expect("a frame that is sent");
            // A reader that sleeps on has a wake-up waiting: nothing to tell it.
            let _ = notifier.notify();
        });
    } else {
        read(me, &frames, &wake_ups)?;
    }
    Ok(())
}

fn read(
    mut me: Participant,
    frames: &iceoryx2::service::port_factory::publish_subscribe::PortFactory<ipc::Service, [u8], ()>,
    wake_ups: &iceoryx2::service::port_factory::event::PortFactory<ipc::Service>,
) -> Result<(), Failure> {
    let listener = wake_ups.listener_builder().create()?;
    let subscriber = frames.subscriber_builder().buffer_size(DEPTH).create()?;
    loop {
        listener.timed_wait(|_| {}, PATIENCE)?;
        while let Some(sample) = subscriber.receive()? {
            if !me.received(sample.payload()) {
                return Ok(());
            }
        }
    }
}
