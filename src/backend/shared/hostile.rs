//! Any bytes from a shared camera's process, taken as a reader's stream takes them.

use super::{Attached, Shared};
use crate::backend::Stream;
use crate::format::{FourCc, StreamRequest};
use crate::hostile::{Choices, HEADER_WORDS, spoil};
use crate::kernel::{Bell, MessageSocket};
use crate::policy;
use crate::share::link::Link;
use crate::share::memory::{Mapping, written_here, written_there};
use crate::share::wire;

/// What the file of frames has, whatever is said of it.
const BYTES: usize = 16 * policy::PAGE;

/// Lines: each is a message, without descriptors, but for those that begin with one of these.
///   *   the rest is a message, and memory comes with it
///   #   the rest says what is written into the header
///   -   a frame that is out is given back
pub fn attend(data: &[u8]) {
    let mut choices = Choices(data);
    let mode = (1 + u64::from(choices.byte() % 3), i64::from(choices.byte() % 2));
    let Some((mut attached, other)) = stream(mode) else { return };
    let mut written = None;
    let mut out = Vec::new();
    for line in choices.0.split(|byte| *byte == b'\n').take(64) {
        match line.first() {
            Some(b'*') => {
                let (Ok((file, memory)), Ok((page, _)), Ok(bell)) =
                    (written_here(BYTES), written_there(policy::PAGE), Bell::new())
                else {
                    return;
                };
                let _ = other.send(&line[1..], &[&file, &page, bell.ear()]);
                written = Some(memory);
            }
            Some(b'#') => {
                let Some(memory) = &written else { continue };
                // SAFETY: atomics alone.
                spoil(unsafe { Mapping::atomics::<[_; HEADER_WORDS]>(memory) }, &mut Choices(&line[1..]));
            }
            Some(b'-') => out.pop().into_iter().for_each(|index| attached.requeue(index).expect("taken back")),
            Some(_) => drop(other.send(line, &[])),
            None => continue,
        }
        if let Ok(Some(filled)) = attached.dequeue(false) {
            assert_eq!(filled.buffer.planes(), attached.format.planes.len());
            for plane in 0..filled.buffer.planes() {
                let (bytes, length) = filled.buffer.plane(plane);
                // SAFETY: the plane is mapped whole. One beyond the file's end would end the process here.
                let _ends = unsafe { (bytes.read_volatile(), bytes.add(length - 1).read_volatile()) };
            }
            out.push(filled.index);
        }
        if attached.has_new_format() {
            attached.format.bytes();
        }
        if attached.link.is_none() {
            return; // it would look for the process
        }
    }
}

/// A message by itself: what it says is as it has to be, or not taken.
pub fn parse(data: &[u8]) {
    let Some(message) = wire::parse(data) else { return };
    wire::failure_of(&message);
    let _ = wire::request_of(&message).map(|request| wire::of_request(&request));
    let _ = wire::attachment_of(&message).map(|attachment| assert!(attachment.mode.every >= 1));
    let listed = message.values().filter_map(|value| value.as_array()).flatten();
    for value in listed {
        let (offer, control) = (wire::offer_of(value), wire::control_of(value));
        let again = offer.as_ref().and_then(|offer| wire::offer_of(&wire::of_offer(offer)));
        assert_eq!(offer.as_ref().map(|offer| offer.fourcc), again.map(|again: crate::Format| again.fourcc));
        let again = control.as_ref().and_then(|control| wire::control_of(&wire::of_control(control)));
        assert_eq!(control.map(|control| control.id), again.map(|again| again.id));
    }
    for bytes in [BYTES as u64, u64::from(u32::MAX), u64::MAX] {
        let Some(generation) = wire::generation_of(&message, bytes) else { continue };
        let wire::Generation { format, geometry, .. } = generation;
        assert!(geometry.bytes() as u64 <= bytes);
        for slot in [0, geometry.slots - 1] {
            for plane in 0..geometry.planes.len() {
                let (at, length) = geometry.plane(slot, plane);
                assert!(at.is_multiple_of(policy::PAGE) && length > 0 && (at + length) as u64 <= bytes);
                assert!(at >= size_of::<crate::share::ring::Header>());
                assert_eq!(format.planes[plane].1, length);
            }
        }
        let _: (FourCc, u64) = (format.fourcc, format.bytes());
    }
}

/// A stream, and the other end of its link.
fn stream((every, interval_ns): (u64, i64)) -> Option<(Attached, MessageSocket)> {
    let (socket, other) = MessageSocket::pair().ok()?;
    let source = Shared { every, interval_ns, ..Shared::named("hostile") };
    let mut attached = Attached::new(source, &StreamRequest::default()).ok()?;
    attached.attach(Link::over(socket)).ok()?;
    Some((attached, other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::share::memory;

    /// One who could make it shorter could end its readers with SIGBUS.
    #[test]
    fn memory_that_can_shrink_is_refused() {
        let message = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/client/generation")).unwrap();
        let (sealed, _frames) = written_here(BYTES).unwrap();
        let (page, _words) = written_there(policy::PAGE).unwrap();
        let loose = memory::file(c"loose", BYTES).unwrap();
        for (file, page, is_taken) in [(&sealed, &page, true), (&loose, &page, false), (&sealed, &loose, false)] {
            let (mut attached, other) = stream((1, 0)).unwrap();
            other.send(&message, &[file, page, Bell::new().unwrap().ear()]).unwrap();
            assert_eq!(attached.dequeue(false).is_ok(), is_taken);
            assert_eq!(attached.ring.is_some(), is_taken);
        }
    }
}
