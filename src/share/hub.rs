//! What the threads of a shared camera have in common: its ring, its readers, and what was asked of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::memory::{Mapping, reserve, written_here, written_there};
use super::ring::{Control, Header, Mode, PLANES_MOST, SLOTS_MOST, Told, Writer};
use super::wire::{self, Geometry, Map, map};
use super::{Allowed, Commands, Feed, ShareInfo, ShareOptions, ShareStart};
use crate::backend::Identity;
use crate::error::{Error, Kind, Result};
use crate::format::{StreamFormat, StreamRequest};
use crate::kernel::{Bell, Event, Fd, MessageSocket, PASSED_MOST, Peer, monotonic_ns, poll, readable};
use crate::{kernel, policy, timed};

pub struct Hub {
    pub name: String,
    pub identity: Identity,
    pub readers: Allowed,
    pub commanders: Allowed,
    pub commands: Option<Arc<dyn Commands>>,
    /// Where frames come from; `None` where the host publishes its own.
    pub feed: Option<Weak<dyn Feed>>,
    start: ShareStart,
    history: u32,
    max_bytes: u64,
    /// Readers may read the driver's own buffers.
    lends: bool,
    state: Mutex<State>,
    /// Something for the thread that publishes: an order, or a reader that came.
    pub orders: Event,
    /// Something for the thread that listens: an order was carried out, or a reader is to go.
    pub results: Event,
    /// Signalled when the thread that publishes has nothing to do with the camera any more.
    pub left: Event,
    /// When each of the threads stepped last, in nanoseconds of CLOCK_MONOTONIC.
    pub published_at: AtomicI64,
    pub listened_at: AtomicI64,
    clients: AtomicU64,
}

/// Who asked, by what number, and how it went.
type Answer = (u64, Value, Result<Map>);

struct State {
    generation: Option<Generation>,
    generations: u64,
    /// What is streamed, or will be.
    request: StreamRequest,
    format: Option<StreamFormat>,
    readers: Vec<Reader>,
    /// By command: streams or not, whoever reads.
    ordered: Option<bool>,
    /// Why nothing is streamed though it should be.
    trouble: Option<Error>,
    orders: VecDeque<Order>,
    /// The format that is being set now.
    in_hand: Option<StreamRequest>,
    done: Vec<Answer>,
    /// Readers who broke the protocol: their clients are to be sent away.
    expelled: Vec<u64>,
    published: u64,
    /// Of these, the ones that readers find in the driver's own buffers.
    lent: u64,
    /// Frames for which there was no slot.
    dropped: u64,
    /// Nobody is taken in any more.
    has_ended: bool,
}

/// The memory of one format's frames.
struct Generation {
    number: u64,
    ring: Arc<Ring>,
    /// The driver's buffers that are the slots after the ring's own, one file for each plane.
    lent: Vec<Fd>,
    writer: Writer,
}

pub struct Ring {
    file: Fd,
    memory: Mapping,
    geometry: Geometry,
    /// A bit for each slot whose memory the kernel has given for good.
    given: AtomicU64,
}

impl Ring {
    /// Whether a slot has its memory. A write to memory that the kernel does not have would end this process.
    fn has(&self, slot: usize) -> bool {
        if self.given.load(Ordering::Relaxed) & 1 << slot != 0 {
            return true;
        }
        let at = self.geometry.first + slot * self.geometry.slot_bytes;
        let given = reserve(&self.file, at, self.geometry.slot_bytes);
        self.given.fetch_or(u64::from(given.is_ok()) << slot, Ordering::Relaxed);
        given.is_ok()
    }

    fn header(&self) -> &Header {
        // SAFETY: a struct of atomics.
        unsafe { self.memory.atomics() }
    }
}

/// One who reads.
pub struct Reader {
    /// Its client.
    pub client: u64,
    pub socket: Arc<MessageSocket>,
    pub name: String,
    pub peer: Peer,
    pub mode: Mode,
    /// How many frames it would like to hold, and how many it may.
    asked: u32,
    /// 0 where it is to be given the ring yet, or there is no room for it.
    pub quota: u32,
    /// The size and format that it cannot do without; 0 for any.
    pub pinned: StreamRequest,
    since_ns: i64,
    /// It was given a ring, this one or another.
    has_begun: bool,
    attached: Option<Attached>,
    /// The words of the trouble that it was told of last.
    told: Option<String>,
}

/// What a reader shares with the writer alone.
struct Attached {
    control: Mapping,
    bell: Bell,
}

impl Attached {
    fn control(&self) -> &Control {
        // SAFETY: a struct of atomics.
        unsafe { self.control.atomics() }
    }
}

/// Something that the thread which streams is asked to do.
pub struct Order {
    pub client: u64,
    pub id: Value,
    pub what: What,
}

pub enum What {
    Start,
    Stop,
    Format(StreamRequest),
}

impl Order {
    fn format(&self) -> Option<&StreamRequest> {
        if let What::Format(request) = &self.what { Some(request) } else { None }
    }
}

impl Hub {
    pub fn new(options: ShareOptions, identity: Identity, feed: Option<Weak<dyn Feed>>) -> std::io::Result<Hub> {
        let or = |asked, default| if asked == 0 { default } else { asked };
        let now = monotonic_ns();
        Ok(Hub {
            // Whoever has a driver's buffer can have another device write into it, or keep those who wait for that device
            // waiting: what it is opened for concerns the processor alone.
            lends: options.lend && [options.readers, options.commanders] == [Allowed::Owner; 2],
            name: options.name,
            identity,
            readers: options.readers,
            commanders: options.commanders,
            commands: options.commands,
            feed,
            start: options.start,
            history: or(options.history, policy::SHARE_HISTORY).min(policy::SHARE_HISTORY_MOST),
            max_bytes: match options.max_bytes {
                0 => policy::SHARE_BYTES,
                most => most,
            },
            state: Mutex::new(State {
                generation: None,
                generations: 0,
                request: options.request,
                format: None,
                readers: Vec::new(),
                ordered: None,
                trouble: None,
                orders: VecDeque::new(),
                in_hand: None,
                done: Vec::new(),
                expelled: Vec::new(),
                published: 0,
                lent: 0,
                dropped: 0,
                has_ended: false,
            }),
            orders: Event::new()?,
            results: Event::new()?,
            left: Event::new()?,
            published_at: AtomicI64::new(now),
            listened_at: AtomicI64::new(now),
            clients: AtomicU64::new(0),
        })
    }

    // For the one who publishes.

    /// Memory for frames of a new format: all readers are given it, and the driver's buffers that are lent. Those of the
    /// former one see that it has ended. How many buffers are.
    pub fn begin_generation(&self, format: &StreamFormat, lent: Vec<Vec<Fd>>) -> Result<usize> {
        let frame: usize = Geometry::of(format, 1, 0).slot_bytes;
        let planes = format.planes.len();
        let count = match lent.iter().all(|files| files.len() == planes) {
            true => lent.len().min(policy::SHARE_LENT_MOST).min((PASSED_MOST - OWN_FILES) / planes.max(1)),
            false => 0,
        };
        // The driver's take of the memory as well, whether they are lent or not.
        let room = self.max_bytes.saturating_sub(lent.len() as u64 * frame as u64);
        let slots = (room / frame.max(1) as u64).min((SLOTS_MOST - count) as u64) as usize;
        let least = self.history as usize + policy::SHARE_SPARE as usize;
        if slots < least {
            return Err(Error::new(
                Kind::Budget,
                format!(
                    "shared:{}: {least} frames of {frame} bytes do not fit into {} bytes",
                    self.name, self.max_bytes
                ),
            )
            .hint("raise max_bytes, or keep fewer frames (history)"));
        }
        let geometry = Geometry::of(format, slots, count);
        let failed = |e| Error::system(format!("shared:{}: memory of {} bytes", self.name, geometry.bytes()), e);
        let (file, memory) = written_here(geometry.bytes()).map_err(failed)?;
        reserve(&file, 0, geometry.first).map_err(failed)?;
        // What is certain to be used: the first frames are not to wait for memory.
        if count == 0 {
            memory.populate(geometry.first, least * geometry.slot_bytes);
        }
        let ring = Arc::new(Ring { file, memory, geometry, given: AtomicU64::new(0) });
        let mut state = timed::lock(&self.state);
        if state.has_ended {
            return Err(self.closed());
        }
        state.end_generation();
        state.generations += 1;
        let number = state.generations;
        let writer = Writer::new(slots + count, self.history.into());
        let lent = lent.into_iter().take(count).flatten().collect();
        state.generation = Some(Generation { number, ring, lent, writer });
        state.format = Some(format.clone());
        state.trouble = None;
        state.readers.iter_mut().for_each(|reader| reader.quota = 0);
        self.provide(&mut state);
        Ok(count)
    }

    /// Gives the ring to the readers who have no quota of it, in the order in which they came. Those for whom there is no
    /// room are told so, and get it when others have left.
    fn provide(&self, state: &mut State) {
        // Else who came for the format that is ordered would begin with another one: a former, or the nearest there is.
        if state.last_ordered().is_some() {
            return;
        }
        let Some(format) = state.format.clone() else { return };
        for at in 0..state.readers.len() {
            if state.readers[at].quota != 0 {
                continue;
            }
            let left = state.left_for(state.readers[at].peer, self.history);
            let State { generation: Some(generation), readers, expelled, .. } = &mut *state else { return };
            let reader = &mut readers[at];
            if left >= LEAST {
                reader.quota = granted(reader.asked, left);
                give(&self.name, reader, generation, &format, expelled);
            } else {
                tell(&self.name, reader, &self.no_room("this reader"), expelled);
            }
        }
        self.results.signal();
    }

    fn no_room(&self, whom: &str) -> Error {
        Error::new(
            Kind::Budget,
            format!("shared:{}: there is no memory for {whom} beside those that it has", self.name),
        )
        .hint("have readers hold fewer frames (buffers), or raise its max_bytes where that bounds it")
    }

    /// No further frame comes, for a reason where there is one: readers are told, once.
    pub fn end_generation(&self, trouble: Option<Error>) {
        let mut state = timed::lock(&self.state);
        state.end_generation();
        state.trouble = trouble;
        let State { readers, trouble: Some(trouble), expelled, .. } = &mut *state else { return };
        readers.iter_mut().for_each(|reader| tell(&self.name, reader, trouble, expelled));
        self.results.signal();
    }

    /// It is shared no longer, whatever its threads are at: all readers see that it is gone.
    pub fn end(&self) {
        let mut state = timed::lock(&self.state);
        state.has_ended = true;
        state.end_generation();
        for reader in state.readers.drain(..) {
            // The thread that listens has the socket, too, and may be waiting for a driver.
            reader.socket.hang_up();
        }
    }

    fn closed(&self) -> Error {
        Error::new(Kind::Closed, format!("shared:{}: it is not shared any more", self.name))
    }

    /// Whether the thread that publishes is through with the camera.
    pub fn has_left_by(&self, deadline: Instant) -> bool {
        poll(&mut [readable(self.left.fd())], Some(deadline)).unwrap_or(false)
    }

    /// Copies a frame into the ring and shows it to the readers. False when there was no slot for it.
    pub fn publish(&self, planes: &[&[u8]], told: Told) -> bool {
        let Some((ring, slot)) = self.take_slot_with_memory() else { return false };
        let mut told = Told { used: [0; PLANES_MOST], offset: [0; PLANES_MOST], ..told };
        for (plane, bytes) in planes.iter().enumerate().take(ring.geometry.planes.len()) {
            let (at, length) = ring.geometry.plane(slot, plane);
            let bytes = &bytes[..bytes.len().min(length)];
            ring.memory.write(at, bytes);
            told.used[plane] = bytes.len() as u64;
        }
        let mut state = timed::lock(&self.state);
        // It may have ended meanwhile.
        let is_ours = state.generation.as_ref().is_some_and(|now| Arc::ptr_eq(&now.ring, &ring));
        is_ours && state.show(slot, &told).is_some()
    }

    /// Shows readers a frame where the driver wrote it. How many were published with it, or `None` where there is no ring
    /// for it.
    pub fn publish_lent(&self, buffer: usize, told: Told) -> Option<u64> {
        let mut state = timed::lock(&self.state);
        let geometry = &state.generation.as_ref()?.ring.geometry;
        let slot = (buffer < geometry.lent).then_some(geometry.slots + buffer)?;
        let lengths = geometry.planes.iter().map(|plane| plane.1 as u64);
        let mut told = told;
        for (plane, length) in lengths.enumerate() {
            told.offset[plane] = told.offset[plane].min(length);
            told.used[plane] = told.used[plane].min(length - told.offset[plane]);
        }
        let published = state.show(slot, &told)?;
        state.lent += 1;
        Some(published)
    }

    /// Takes frames out of the driver's buffers which are none of the newest and which no reader holds. `lent` has the
    /// buffers, and how many were published with the frame in each; a bit for each that is empty now.
    pub fn empty_lent(&self, lent: impl Iterator<Item = (usize, u64)>) -> u64 {
        let mut state = timed::lock(&self.state);
        state.expel(&self.name, &self.results);
        let State { generation, readers, .. } = &mut *state;
        let Some(generation) = generation.as_mut() else { return 0 };
        let Generation { ring, writer, .. } = generation;
        let kept_from = writer.published().saturating_sub(self.history.into());
        lent.filter(|&(buffer, published)| buffer < ring.geometry.lent && published <= kept_from)
            .map(|(buffer, _)| buffer)
            .filter(|buffer| writer.empty(ring.header(), ring.geometry.slots + buffer, || held(readers)))
            .fold(0, |emptied, buffer| emptied | 1 << buffer)
    }

    fn take_slot_with_memory(&self) -> Option<(Arc<Ring>, usize)> {
        let taken = self.take_slot(u64::MAX).and_then(|(ring, slot)| match ring.has(slot) {
            true => Some((ring, slot)),
            // There is no more memory. Those that were used have theirs.
            false => self.take_slot(ring.given.load(Ordering::Relaxed)),
        });
        if taken.is_none() {
            let mut state = timed::lock(&self.state);
            state.dropped += u64::from(state.generation.is_some());
        }
        taken
    }

    /// A slot of these, by their bits.
    fn take_slot(&self, among: u64) -> Option<(Arc<Ring>, usize)> {
        let mut state = timed::lock(&self.state);
        state.expel(&self.name, &self.results);
        let State { generation, readers, .. } = &mut *state;
        let generation = generation.as_mut()?;
        let in_order =
            readers.iter().filter(|reader| reader.mode.in_order).filter_map(|reader| reader.attached.as_ref());
        let read = in_order.map(|attached| attached.control().faring().reached).min();
        generation.writer.are_read(read.unwrap_or(u64::MAX));
        let ring = generation.ring.clone();
        let slots = (0..ring.geometry.slots).filter(|slot| among & 1 << slot != 0);
        let slot = generation.writer.take(ring.header(), slots, || held(readers));
        slot.map(|slot| (ring, slot))
    }

    /// How many of the newest frames stay for readers who take all in order.
    pub fn history(&self) -> u32 {
        self.history
    }

    /// Whether a driver's buffers and the least memory for copies are within the bound.
    pub fn has_room(&self, format: &StreamFormat) -> bool {
        let frames = u64::from(format.buffers + self.history + policy::SHARE_SPARE);
        frames * Geometry::of(format, 1, 0).slot_bytes as u64 <= self.max_bytes
    }

    pub fn lends(&self) -> bool {
        self.lends
    }

    /// Whether frames are wanted: by command, always, or by somebody who reads.
    pub fn is_wanted(&self) -> bool {
        let state = timed::lock(&self.state);
        state.ordered.unwrap_or(self.start == ShareStart::Always || !state.readers.is_empty())
    }

    pub fn request(&self) -> StreamRequest {
        timed::lock(&self.state).request.clone()
    }

    pub fn set_request(&self, request: StreamRequest) {
        timed::lock(&self.state).request = request;
    }

    pub fn format(&self) -> Option<StreamFormat> {
        timed::lock(&self.state).format.clone()
    }

    /// Whether it was stopped by command.
    pub fn is_stopped(&self) -> bool {
        timed::lock(&self.state).ordered == Some(false)
    }

    /// Whether readers have been told of this failure.
    pub fn has_trouble(&self, error: &Error) -> bool {
        timed::lock(&self.state).trouble.as_ref().is_some_and(|known| known.message() == error.message())
    }

    pub fn set_ordered(&self, streams: bool) {
        timed::lock(&self.state).ordered = Some(streams);
    }

    pub fn next_order(&self) -> Option<Order> {
        let mut state = timed::lock(&self.state);
        let order = state.orders.pop_front()?;
        state.in_hand = order.format().cloned();
        Some(order)
    }

    pub fn is_done(&self, order: Order, outcome: Result<Map>) {
        let mut state = timed::lock(&self.state);
        if order.format().is_some() {
            state.in_hand = None;
            if let Err(error) = &outcome {
                state.refuse_who_came_for_it(order.client, error);
            }
            self.provide(&mut state);
        }
        drop(state);
        self.give(order.client, order.id, outcome);
    }

    /// Has an answer passed on to the client who asked.
    pub fn give(&self, client: u64, id: Value, outcome: Result<Map>) {
        timed::lock(&self.state).done.push((client, id, outcome));
        self.results.signal();
    }

    // For the one who listens.

    pub fn order(&self, order: Order) -> Result<()> {
        let mut state = timed::lock(&self.state);
        self.has_room_for_orders(&state)?;
        state.orders.push_back(order);
        self.orders.signal();
        Ok(())
    }

    /// While a driver hangs, nobody carries them out.
    fn has_room_for_orders(&self, state: &State) -> Result<()> {
        if state.orders.len() < policy::ORDERS_MOST {
            return Ok(());
        }
        let message = format!("shared:{}: {} commands wait for the camera already", self.name, state.orders.len());
        Err(Error::new(Kind::Busy, message).hint("try again when they are carried out"))
    }

    /// Answers that are ready, and clients that are to be sent away.
    pub fn take_results(&self) -> (Vec<Answer>, Vec<u64>) {
        self.results.clear();
        let mut state = timed::lock(&self.state);
        (std::mem::take(&mut state.done), std::mem::take(&mut state.expelled))
    }

    /// Takes one in who wants to read. It gets the ring now, or as soon as there is one: the next one, where it wants
    /// another format, which is ordered in the same moment, or where one is ordered already.
    pub fn add_reader(&self, mut reader: Reader, wants: Option<StreamRequest>) -> Result<Map> {
        let mut state = timed::lock(&self.state);
        let state = &mut *state;
        if state.has_ended {
            return Err(self.closed());
        }
        if state.readers.iter().any(|known| known.client == reader.client) {
            return Err(Error::new(Kind::WrongState, format!("shared:{}: it reads already", self.name)));
        }
        let left = state.left_for(reader.peer, self.history);
        if left < LEAST {
            return Err(self.no_room(match is_owner(reader.peer) {
                true => "a further reader",
                false => "a further reader of this user's",
            }));
        }
        if wants.is_some() {
            self.has_room_for_orders(state)?;
        }
        reader.quota = granted(reader.asked, left);
        let answer = map(json!({ "quota": reader.quota }));
        let is_to_wait = wants.is_some() || state.last_ordered().is_some();
        if is_to_wait && wants.is_none() {
            reader.quota = 0; // the former format's, which it is not to be given
        }
        if let (Some(generation), Some(format), false) = (&state.generation, &state.format, is_to_wait) {
            give(&self.name, &mut reader, generation, format, &mut state.expelled);
        } else if let Some(trouble) = &state.trouble {
            tell(&self.name, &mut reader, trouble, &mut state.expelled);
        }
        let order = |request| Order { client: reader.client, id: Value::Null, what: What::Format(request) };
        state.orders.extend(wants.map(order));
        state.readers.push(reader);
        self.orders.signal();
        self.results.signal();
        Ok(answer)
    }

    /// A client is gone: what it held is free, and nobody wants the format any more that it came for.
    pub fn remove_reader(&self, client: u64) {
        let mut state = timed::lock(&self.state);
        let before = state.readers.len();
        state.readers.retain(|reader| reader.client != client);
        if state.readers.len() != before {
            state.orders.retain(|order| order.client != client || !order.id.is_null());
            self.orders.signal();
        }
        self.provide(&mut state);
    }

    /// What a reader's wish comes to: nothing, an order for another format, or a refusal as others read.
    pub fn needs_format(&self, client: u64, wants: &StreamRequest) -> Result<Option<StreamRequest>> {
        let state = timed::lock(&self.state);
        let coming = state.coming();
        if allows(wants, &coming) {
            return Ok(None);
        }
        let others: Vec<_> = state.readers.iter().filter(|reader| reader.client != client).collect();
        let is_settled = state.format.is_some() || state.last_ordered().is_some();
        if let (true, [first, ..]) = (is_settled, &others[..]) {
            return Err(Error::new(
                Kind::Busy,
                format!(
                    "shared:{}: it is streamed as {} to {} (pid {}){}",
                    self.name,
                    needs_of(&coming),
                    first.name,
                    first.peer.pid,
                    match others.len() {
                        1 => String::new(),
                        count => format!(" and {} more", count - 1),
                    }
                ),
            )
            .hint("leave size and format open to take what there is, or have the format changed for all (format)"));
        }
        // While a driver starts, what it will give is not known yet; what others need is.
        self.agreed(&state, client, wants).map(Some)
    }

    /// Whether all who read can do with another format.
    pub fn agree(&self, client: u64, wants: &StreamRequest) -> Result<StreamRequest> {
        self.agreed(&timed::lock(&self.state), client, wants)
    }

    fn agreed(&self, state: &State, client: u64, wants: &StreamRequest) -> Result<StreamRequest> {
        let request = merged(state.last_ordered().unwrap_or(&state.request), wants);
        let refuses = |reader: &&Reader| reader.client != client && !allows(&reader.pinned, &request);
        match state.readers.iter().find(refuses) {
            None => Ok(request),
            Some(reader) => {
                let needs = needs_of(&reader.pinned);
                let what = format!("{} (pid {}) reads it and needs {needs}", reader.name, reader.peer.pid);
                Err(Error::new(Kind::Busy, format!("shared:{}: {what}", self.name)).hint("stop that program first"))
            }
        }
    }

    // For those who look.

    pub fn status(&self) -> Map {
        let state = timed::lock(&self.state);
        let now = monotonic_ns();
        let published = state.generation.as_ref().map_or(0, |generation| generation.writer.published());
        let readers: Vec<Value> = state
            .readers
            .iter()
            .map(|reader| {
                let faring = reader.attached.as_ref().map(|attached| attached.control().faring()).unwrap_or_default();
                json!({
                    "pid": reader.peer.pid, "uid": reader.peer.uid, "name": reader.name,
                    "mode": mode_words(reader.mode), "hold": reader.quota, "held": faring.held,
                    "lag": if faring.reached == 0 { 0 } else { published.saturating_sub(faring.reached) },
                    "taken": faring.taken, "lost": faring.lost,
                    "since_ms": (now - reader.since_ns) / 1_000_000,
                })
            })
            .collect();
        map(json!({
            "name": self.name, "uri": self.identity.uri, "camera": self.identity.name,
            "streaming": state.generation.is_some(), "format": state.format.as_ref().map(wire::of_format),
            "generation": state.generations, "published": state.published, "dropped": state.dropped,
            "copied": state.published - state.lent, "lent": state.lent,
            "readers": readers, "trouble": state.real_trouble().map(wire::failure),
            "stopped": state.ordered == Some(false),
            "pulse_ms": self.pulse().as_millis() as u64,
        }))
    }

    pub fn info(&self) -> ShareInfo {
        let state = timed::lock(&self.state);
        ShareInfo {
            name: self.name.clone(),
            streaming: state.generation.is_some(),
            readers: state.readers.len(),
            clients: self.clients.load(Ordering::Relaxed) as usize,
            published: state.published,
            pulse: self.pulse(),
            trouble: state.real_trouble().map(|error| error.message().to_owned()),
        }
    }

    pub fn set_clients(&self, count: usize) {
        self.clients.store(count as u64, Ordering::Relaxed);
    }

    /// Since the slower of the threads stepped last.
    fn pulse(&self) -> Duration {
        let mut oldest = self.listened_at.load(Ordering::Relaxed);
        if self.feed.is_some() {
            oldest = oldest.min(self.published_at.load(Ordering::Relaxed));
        }
        Duration::from_nanos((monotonic_ns() - oldest).max(0) as u64)
    }
}

impl Reader {
    pub fn new(client: u64, socket: Arc<MessageSocket>, name: &str, peer: Peer, wants: wire::Attachment) -> Reader {
        Reader {
            client,
            socket,
            name: name.to_owned(),
            peer,
            mode: wants.mode,
            asked: wants.hold,
            quota: 0,
            pinned: wants.wants,
            since_ns: monotonic_ns(),
            has_begun: false,
            attached: None,
            told: None,
        }
    }

    /// Slots that are kept for it: one more than it may hold, for a frame that it only tries to get.
    fn slots(&self) -> u32 {
        if self.quota == 0 { 0 } else { self.quota + 1 }
    }
}

impl State {
    /// How many slots there are for a further reader of this user's. Others than the owner and root leave half to the rest.
    fn left_for(&self, peer: Peer, history: u32) -> u32 {
        let capacity = self.capacity(history);
        let taken = |of: &dyn Fn(&&Reader) -> bool| self.readers.iter().filter(of).map(Reader::slots).sum::<u32>();
        let left = capacity.saturating_sub(taken(&|_| true));
        match is_owner(peer) {
            true => left,
            false => {
                let its = taken(&|reader| reader.peer.uid == peer.uid);
                left.min((capacity / 2).max(policy::SHARE_HOLD + 1).saturating_sub(its))
            }
        }
    }

    /// Shows a frame that is in a slot, and wakes who waits for it. How many were published with it.
    fn show(&mut self, slot: usize, told: &Told) -> Option<u64> {
        let generation = self.generation.as_mut()?;
        let published = generation.writer.publish(generation.ring.header(), slot, told);
        self.published += 1;
        for attached in self.readers.iter().filter_map(|reader| reader.attached.as_ref()) {
            if attached.control().is_to_be_woken(published, told.timestamp_ns) {
                attached.bell.ring();
            }
        }
        Some(published)
    }

    /// One who holds more than it may, which no reader of ours does, holds nothing.
    fn expel(&mut self, name: &str, results: &Event) {
        let State { readers, expelled, .. } = self;
        readers.retain(|reader| {
            let held = reader.attached.as_ref().map_or(0, |attached| attached.control().held());
            let obeys = held.count_ones() <= reader.slots();
            if !obeys {
                log::warn!("shared:{name}: {} (pid {}) holds more than it may", reader.name, reader.peer.pid);
                expelled.push(reader.client);
                results.signal();
            }
            obeys
        });
    }

    fn end_generation(&mut self) {
        let Some(generation) = self.generation.take() else { return };
        generation.ring.header().end();
        for attached in self.readers.iter_mut().filter_map(|reader| reader.attached.take()) {
            if attached.control().is_to_be_woken_at_the_end() {
                attached.bell.ring();
            }
        }
    }

    /// The format that was ordered last, and is not set yet.
    fn last_ordered(&self) -> Option<&StreamRequest> {
        self.orders.iter().rev().find_map(Order::format).or(self.in_hand.as_ref())
    }

    /// What there is; where there is nothing yet, what is to be: as of when all is carried out that was ordered.
    fn coming(&self) -> StreamRequest {
        let now = match &self.format {
            Some(StreamFormat { width, height, fourcc, .. }) => {
                StreamRequest { width: *width, height: *height, fourcc: *fourcc, ..StreamRequest::default() }
            }
            None => self.request.clone(),
        };
        match self.last_ordered() {
            Some(ordered) => merged(&now, ordered),
            None => now,
        }
    }

    /// A format could not be set. Who came for it is not to begin with another one; `asked` is told by itself.
    fn refuse_who_came_for_it(&mut self, asked: u64, error: &Error) {
        if self.generation.is_none() {
            self.format = None; // of what was tried, and not of what is streamed next
        }
        let coming = self.coming();
        let State { readers, done, .. } = self;
        readers.retain(|reader| {
            let stays = reader.has_begun || allows(&reader.pinned, &coming);
            if !stays && reader.client != asked {
                done.push((reader.client, Value::Null, Err(error.clone())));
            }
            stays
        });
    }

    /// Being stopped by command is told to readers as trouble is, but it is none.
    fn real_trouble(&self) -> Option<&Error> {
        self.trouble.as_ref().filter(|_| self.ordered != Some(false))
    }

    /// How many slots readers may have, one of each for a frame that it only tries to get.
    fn capacity(&self, history: u32) -> u32 {
        let (own, all) = match &self.generation {
            Some(generation) => (generation.ring.geometry.slots as u32, generation.ring.geometry.all() as u32),
            None => (SLOTS_MOST as u32, SLOTS_MOST as u32),
        };
        // All that readers hold may be copies; of the newest frames some are lent.
        all.saturating_sub(policy::SHARE_SPARE + history.min(all / 4)).min(own.saturating_sub(policy::SHARE_SPARE))
    }
}

/// How many frames one may hold who asks for so many, where so many slots are left. One more is reckoned for it: for a
/// frame that it only tries to get. Who wants all that there is leaves as much to the next.
fn granted(asked: u32, left: u32) -> u32 {
    let most = (left / 2).max(policy::SHARE_HOLD.min(left.saturating_sub(1)));
    asked.clamp(1, most.max(1))
}

/// The slots that readers hold.
fn held(readers: &[Reader]) -> u64 {
    let quota = |reader: &Reader, held: u64| if held.count_ones() <= reader.slots() { held } else { 0 };
    let each = readers.iter().filter_map(|reader| Some((reader, reader.attached.as_ref()?)));
    each.fold(0, |all, (reader, attached)| all | quota(reader, attached.control().held()))
}

/// Slots that a reader needs.
const LEAST: u32 = 2;

/// Whether it is this user or root, whom nobody else keeps out.
pub fn is_owner(peer: Peer) -> bool {
    peer.uid == 0 || peer.uid == kernel::effective_user()
}

/// Tells a reader why it gets no frames, unless it was told so last. One who does not hear it is sent away.
fn tell(name: &str, reader: &mut Reader, trouble: &Error, expelled: &mut Vec<u64>) {
    if reader.told.as_deref() == Some(trouble.message()) {
        return;
    }
    let mut event = wire::failure(trouble);
    event.insert("event".into(), "trouble".into());
    if let Err(error) = reader.socket.send(&wire::to_line(event), &[]) {
        log::warn!("shared:{name}: {} (pid {}) does not hear what is told: {error}", reader.name, reader.peer.pid);
        expelled.push(reader.client);
    }
    reader.told = Some(trouble.message().to_owned());
}

/// Files of a ring's own: its memory, the reader's page, and its event.
const OWN_FILES: usize = 3;

/// Gives a reader the ring, and a page of its own. One who does not take it, or for whom there is none, is sent away.
fn give(name: &str, reader: &mut Reader, generation: &Generation, format: &StreamFormat, expelled: &mut Vec<u64>) {
    let made = (|| {
        let (control_file, control) = written_there(policy::PAGE)?;
        reserve(&control_file, 0, policy::PAGE)?;
        Ok::<_, std::io::Error>((control_file, control, Bell::new()?))
    })();
    let (control_file, control, bell) = match made {
        Ok(made) => made,
        Err(error) => {
            let trouble = Error::system(format!("shared:{name}: its process, making room for a reader"), error)
                .hint("try again when that has closed something, or raise its limits");
            log::warn!("{trouble}; {} (pid {}) is sent away", reader.name, reader.peer.pid);
            tell(name, reader, &trouble, expelled);
            return expelled.push(reader.client);
        }
    };
    let message = wire::of_generation(&wire::Generation {
        number: generation.number,
        format: StreamFormat { buffers: reader.quota, ..format.clone() },
        geometry: generation.ring.geometry.clone(),
        quota: reader.quota,
    });
    let mut files = vec![&generation.ring.file, &control_file, bell.ear()];
    files.extend(&generation.lent);
    match reader.socket.send(&wire::to_line(message), &files) {
        Ok(()) => {
            (reader.attached, reader.told) = (Some(Attached { control, bell }), None);
            reader.has_begun = true;
        }
        Err(error) => {
            log::warn!("shared:{name}: {} (pid {}) takes no frames: {error}", reader.name, reader.peer.pid);
            expelled.push(reader.client);
        }
    }
}

fn mode_words(mode: Mode) -> String {
    let mut words = if mode.in_order { "in order" } else { "newest" }.to_owned();
    if mode.every > 1 {
        words += &format!(", every {}", mode.every);
    }
    if mode.interval_ns > 0 {
        words += &format!(", at most {:.1} per second", 1e9 / mode.interval_ns as f64);
    }
    words
}

/// Size and format in words: of 0, nothing was said.
fn needs_of(pinned: &StreamRequest) -> String {
    let side = |side: u32| if side == 0 { "any".to_owned() } else { side.to_string() };
    let size =
        (pinned.width != 0 || pinned.height != 0).then(|| format!("{}x{}", side(pinned.width), side(pinned.height)));
    let fourcc = (pinned.fourcc.0 != 0).then(|| pinned.fourcc.to_string());
    size.into_iter().chain(fourcc).collect::<Vec<_>>().join(" ")
}

/// Whether a request leaves open what another one has otherwise.
fn allows(pinned: &StreamRequest, request: &StreamRequest) -> bool {
    (pinned.width == 0 || pinned.width == request.width)
        && (pinned.height == 0 || pinned.height == request.height)
        && (pinned.fourcc.0 == 0 || pinned.fourcc == request.fourcc)
}

/// A request with what another one wants otherwise.
fn merged(request: &StreamRequest, wants: &StreamRequest) -> StreamRequest {
    let or = |asked: u32, own: u32| if asked == 0 { own } else { asked };
    StreamRequest {
        width: or(wants.width, request.width),
        height: or(wants.height, request.height),
        fourcc: if wants.fourcc.0 == 0 { request.fourcc } else { wants.fourcc },
        rate: if wants.rate.is_set() { wants.rate } else { request.rate },
        ..request.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRANGER: u32 = 54321;

    fn hub(frames: u64) -> Hub {
        let options = ShareOptions { max_bytes: frames * policy::PAGE as u64, ..ShareOptions::default() };
        Hub::new(options, Identity::default(), None).unwrap()
    }

    fn begin(hub: &Hub, pages: usize) {
        let format = StreamFormat { planes: vec![(1, pages * policy::PAGE)], ..StreamFormat::default() };
        hub.begin_generation(&format, Vec::new()).unwrap();
    }

    fn enter(hub: &Hub, client: u64, uid: u32, wants: Option<StreamRequest>) -> Result<MessageSocket> {
        let (socket, end) = MessageSocket::pair().unwrap();
        let pinned = wants.clone().unwrap_or_default();
        let attachment = wire::Attachment { mode: Mode::default(), hold: 2, wants: pinned };
        let reader = Reader::new(client, Arc::new(socket), "reader", Peer { pid: 1, uid }, attachment);
        hub.add_reader(reader, wants).map(|_| end)
    }

    fn said(socket: &MessageSocket) -> Option<String> {
        let mut room = vec![0; policy::ANSWER_MOST];
        let length = socket.receive_words(&mut room).ok()?;
        Some(String::from_utf8(room[..length].to_vec()).unwrap())
    }

    #[test]
    fn a_stranger_with_many_readers_leaves_half_to_the_others() {
        let hub = hub(64);
        begin(&hub, 1);
        let mut ends = Vec::new();
        let refused = (1..100).find_map(|client| match enter(&hub, client, STRANGER, None) {
            Ok(end) => {
                ends.push(end);
                None
            }
            Err(error) => Some(error),
        });
        let refused = refused.unwrap();
        assert!(refused.kind() == Kind::Budget && refused.message().contains("of this user's"), "{refused}");
        let of_others = ends.len();
        (200..200 + of_others as u64).for_each(|client| drop(enter(&hub, client, STRANGER + 1, None).unwrap()));
        assert!(of_others > 5, "{of_others}");
        let few = self::hub(6);
        begin(&few, 1);
        enter(&few, 1, STRANGER, None).unwrap();
    }

    #[test]
    fn a_trouble_is_told_once() {
        let hub = hub(64);
        let end = enter(&hub, 1, 0, None).unwrap();
        let trouble = |words: &str| Some(Error::new(Kind::Io, words));
        for words in ["one", "one", "two"] {
            hub.end_generation(trouble(words));
        }
        assert!(said(&end).unwrap().contains("one"));
        assert!(said(&end).unwrap().contains("two"));
        assert_eq!(said(&end), None);
        begin(&hub, 1);
        assert!(said(&end).unwrap().contains("generation"));
        hub.end_generation(trouble("two"));
        assert!(said(&end).unwrap().contains("two"), "it came again");
        for round in 0..100_000 {
            hub.end_generation(trouble(&round.to_string()));
            if hub.take_results().1 == [1] {
                return;
            }
        }
        panic!("one who does not hear is kept");
    }

    #[test]
    fn nobody_is_taken_in_at_the_end() {
        let hub = hub(64);
        begin(&hub, 1);
        let end = enter(&hub, 1, 0, None).unwrap();
        assert!(said(&end).unwrap().contains("generation"));
        hub.end();
        assert_eq!(said(&end).as_deref(), Some(""), "it is hung up on");
        assert_eq!(enter(&hub, 2, 0, None).unwrap_err().kind(), Kind::Closed);
        assert_eq!(hub.begin_generation(&StreamFormat::default(), Vec::new()).unwrap_err().kind(), Kind::Closed);
    }

    fn sized(width: u32, height: u32) -> StreamRequest {
        StreamRequest { width, height, ..StreamRequest::default() }
    }

    /// A start takes its time: what was ordered counts before there is a format, and beside a former one.
    #[test]
    fn of_readers_that_start_at_once_the_first_has_its_format() {
        let (small, large) = (sized(320, 240), sized(640, 480));
        for is_streamed in [false, true] {
            let hub = hub(64);
            if is_streamed {
                begin(&hub, 1);
            }
            let ordered = hub.needs_format(1, &small).unwrap();
            assert!(ordered.as_ref().is_some_and(|ordered| allows(&small, ordered)));
            let _first = enter(&hub, 1, 0, ordered).unwrap();
            let others = |when: &str| {
                let refused = hub.needs_format(2, &large).unwrap_err();
                assert!(refused.kind() == Kind::Busy && refused.message().contains("320x240"), "{when}: {refused}");
                assert!(hub.needs_format(2, &small).unwrap().is_none(), "{when}");
                assert_eq!(hub.agree(2, &large).unwrap_err().kind(), Kind::Busy, "{when}");
            };
            others("it is ordered");
            let order = hub.next_order().unwrap();
            others("it is being set");
            let format = StreamFormat { width: 320, height: 240, planes: vec![(1, 4096)], ..StreamFormat::default() };
            hub.begin_generation(&format, Vec::new()).unwrap();
            others("it is set");
            hub.is_done(order, Ok(Map::new()));
            others("it was told so");
        }
        // One came for what the camera was to be started with.
        let hub = hub(64);
        hub.set_request(small.clone());
        let (socket, _end) = MessageSocket::pair().unwrap();
        let attachment = wire::Attachment { mode: Mode::default(), hold: 2, wants: small };
        let first = Reader::new(1, Arc::new(socket), "first", Peer { pid: 1, uid: 0 }, attachment);
        hub.add_reader(first, None).unwrap();
        let refused = hub.needs_format(2, &large).unwrap_err();
        assert!(refused.kind() == Kind::Busy && refused.message().contains("needs 320x240"), "{refused}");
    }

    #[test]
    fn nobody_begins_with_a_format_that_another_one_is_ordered_for() {
        let hub = hub(64);
        begin(&hub, 1);
        let sole = enter(&hub, 1, 0, Some(sized(320, 240))).unwrap();
        let same = enter(&hub, 2, 0, None).unwrap();
        let have_nothing = || assert_eq!((said(&sole), said(&same)), (None, None));
        have_nothing();
        // The thread that publishes looked for orders just before.
        begin(&hub, 1);
        have_nothing();
        let order = hub.next_order().unwrap();
        let late = enter(&hub, 3, 0, None).unwrap();
        hub.remove_reader(99);
        assert_eq!(said(&late), None);
        begin(&hub, 2); // which may turn out to be none that was wanted
        let later = enter(&hub, 4, 0, None).unwrap();
        assert_eq!((said(&late), said(&later)), (None, None));
        have_nothing();
        hub.is_done(order, Ok(Map::new()));
        for reader in [&sole, &same, &late, &later] {
            assert!(said(reader).unwrap().contains("\"generation\":3"));
            assert_eq!(said(reader), None, "once");
        }
        // Those who are refused what they came for do not begin with what there is.
        hub.remove_reader(1);
        let refused = enter(&hub, 1, 0, Some(sized(641, 480))).unwrap();
        let order = hub.next_order().unwrap();
        begin(&hub, 1);
        hub.take_results();
        hub.is_done(order, Err(Error::new(Kind::Unsupported, "there is none")));
        assert_eq!(said(&refused).as_deref(), Some(""), "the reader is gone, and its end with it");
        assert_eq!(hub.info().readers, 3);
        assert_eq!(hub.take_results().0.len(), 1);
        assert!(said(&same).unwrap().contains("\"generation\":4"), "the others go on");
    }

    #[test]
    fn who_is_refused_or_leaves_orders_no_format() {
        let hub = hub(6);
        begin(&hub, 1);
        let wants = || Some(StreamRequest::default());
        let _first = enter(&hub, 1, 0, wants()).unwrap();
        assert_eq!(enter(&hub, 2, 0, wants()).unwrap_err().kind(), Kind::Budget);
        hub.remove_reader(1);
        assert!(hub.next_order().is_none());
        for client in 10..10 + policy::ORDERS_MOST as u64 {
            hub.order(Order { client, id: 1.into(), what: What::Start }).unwrap();
        }
        assert_eq!(enter(&hub, 3, 0, wants()).unwrap_err().kind(), Kind::Busy, "as many as may wait");
        assert_eq!(hub.info().readers, 0);
    }
}
