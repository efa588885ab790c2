//! The thread that listens: who may come in, and what they may ask for. Whatever a client sends, or leaves unsaid, costs
//! that client alone.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::hub::{Hub, Order, Reader, What, is_owner};
use super::wire::{self, Map, map, number, word};
use super::{Allowed, Feed, LateAnswer};
use crate::error::{Error, Kind, Result};
use crate::kernel::{self, Event, MessageSocket, Peer, monotonic_ns, poll, readable};
use crate::lease::one_line;
use crate::{fork, policy};

#[cfg(any(test, fuzzing))]
pub mod hostile;

pub fn serve(hub: &Arc<Hub>, listener: &MessageSocket, stop: &Event) {
    let room = vec![0; policy::MESSAGE_MOST];
    let mut server = Server { hub, clients: Vec::new(), next: 1, controller: None, room, spare: Event::new().ok() };
    let epoch = fork::epoch();
    loop {
        hub.listened_at.store(monotonic_ns(), Ordering::Relaxed);
        let mut fds = vec![readable(stop.fd()), readable(listener.fd()), readable(hub.results.fd())];
        let now = Instant::now();
        fds.extend(server.clients.iter().map(|client| match client.may_speak(now) {
            true => readable(client.socket.fd()),
            // One that talks too much is heard later; that it hung up is seen all the same.
            false => libc::pollfd { events: 0, ..readable(client.socket.fd()) },
        }));
        if poll(&mut fds, Some(now + server.pause())).is_err() {
            // Not to go round and round.
            std::thread::sleep(policy::ACCEPT_PAUSE);
        }
        if fds[0].revents != 0 || epoch != fork::epoch() {
            return;
        }
        let spoke: Vec<u64> = server
            .clients
            .iter()
            .zip(&fds[3..])
            .filter(|(_, fd)| fd.revents != 0)
            .map(|(client, _)| client.id)
            .collect();
        spoke.into_iter().for_each(|client| server.hear(client));
        server.pass_results_on();
        if fds[1].revents != 0 {
            server.let_in(listener);
        }
        server.send_the_silent_away();
        hub.set_clients(server.clients.len());
    }
}

struct Server<'a> {
    hub: &'a Arc<Hub>,
    clients: Vec<Client>,
    next: u64,
    /// Who alone may command now, and with what priority.
    controller: Option<(u64, i64)>,
    room: Vec<u8>,
    /// A descriptor that is given up to tell somebody that there is none.
    spare: Option<Event>,
}

struct Client {
    id: u64,
    socket: Arc<MessageSocket>,
    peer: Peer,
    /// What it calls itself; `None` until it has said hello.
    name: Option<String>,
    may_read: bool,
    may_command: bool,
    came: Instant,
    /// Messages that it may send yet, and as of when.
    credit: f64,
    credited: Instant,
}

impl Client {
    fn may_speak(&self, now: Instant) -> bool {
        self.credit + self.earned(now) >= 1.0
    }

    fn earned(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.credited).as_secs_f64() * f64::from(policy::MESSAGES_PER_SECOND)
    }

    fn spend(&mut self, now: Instant) {
        let most = f64::from(policy::MESSAGES_PER_SECOND) / 4.0;
        self.credit = (self.credit + self.earned(now)).min(most) - 1.0;
        self.credited = now;
    }
}

/// What becomes of a request.
enum Reply {
    Now(Result<Map>),
    /// Another thread answers.
    Later,
}

impl Server<'_> {
    /// How long nothing but what others do needs attention.
    fn pause(&self) -> Duration {
        let now = Instant::now();
        match self.clients.iter().all(|client| client.may_speak(now)) {
            true => policy::SHARE_STEP,
            false => Duration::from_millis(1000 / u64::from(policy::MESSAGES_PER_SECOND)),
        }
    }

    fn let_in(&mut self, listener: &MessageSocket) {
        let socket = match listener.accept() {
            Ok(socket) => socket,
            Err(error) => return self.turn_away(listener, error),
        };
        let Ok(peer) = socket.peer() else { return };
        let refuse = |error| refuse(&socket, error);
        let may_read = is_allowed(&self.hub.readers, &socket, peer);
        let may_command = is_allowed(&self.hub.commanders, &socket, peer);
        if !may_read && !may_command {
            let message = format!("shared:{}: user {} may not read it", self.hub.name, peer.uid);
            return refuse(Error::new(Kind::Permission, message).hint("its readers setting says who may"));
        }
        let room = if is_owner(peer) { policy::CLIENTS_MOST } else { policy::CLIENTS_MOST - policy::CLIENTS_KEPT };
        if self.clients.len() >= room {
            let message = format!("shared:{}: {} clients are here already", self.hub.name, self.clients.len());
            return refuse(Error::new(Kind::Budget, message));
        }
        // A program that opens and never closes is not to keep all others out. Who is in another container has no number.
        let its = self.clients.iter().filter(|client| client.peer.pid == peer.pid && peer.pid != 0).count();
        if its >= policy::CLIENTS_OF_ONE_MOST {
            let message = format!("shared:{}: process {} has {its} connections to it already", self.hub.name, peer.pid);
            return refuse(Error::new(Kind::Budget, message).hint("close cameras that are not used any more"));
        }
        // Nor is a user with several of them to keep out the others.
        let its = self.clients.iter().filter(|client| client.peer.uid == peer.uid).count();
        if !is_owner(peer) && its >= policy::CLIENTS_OF_USER_MOST {
            let message = format!("shared:{}: user {} has {its} connections to it already", self.hub.name, peer.uid);
            return refuse(Error::new(Kind::Budget, message).hint("close cameras that are not used any more"));
        }
        let now = Instant::now();
        self.clients.push(Client {
            id: self.next,
            socket: Arc::new(socket),
            peer,
            name: None,
            may_read,
            may_command,
            came: now,
            credit: f64::from(policy::MESSAGES_PER_SECOND) / 4.0,
            credited: now,
        });
        self.next += 1;
    }

    /// One comes for whom there is no descriptor, or no memory: left at the door it would wait, and not know for what.
    fn turn_away(&mut self, listener: &MessageSocket, error: io::Error) {
        if !kernel::is_shortage(&error) {
            return;
        }
        let error = Error::system(format!("shared:{}: its process, letting a client in", self.hub.name), error)
            .hint("try again when that has closed something, or raise its limits");
        log::warn!("{error}");
        self.spare = None;
        match listener.accept() {
            Ok(socket) => refuse(&socket, error),
            // Not to go round and round.
            Err(_) => std::thread::sleep(policy::ACCEPT_PAUSE),
        }
        self.spare = Event::new().ok();
    }

    /// Takes one message of a client's, or sees that it is gone.
    fn hear(&mut self, id: u64) {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else { return };
        let now = Instant::now();
        let spoke = client.socket.receive_words(&mut self.room);
        let length = match spoke {
            Ok(0) => return self.send_away(id, None),
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return,
            Err(_) => return self.send_away(id, None),
        };
        client.spend(now);
        // One that is longer than the room was cut off, and is no message then.
        let Some(message) = wire::parse(&self.room[..length]) else {
            return self.send_away(id, Some("what it sent is no message of this version"));
        };
        let request = message.get("id").cloned().unwrap_or(Value::Null);
        match self.answer(id, &message) {
            Reply::Now(outcome) => self.send(id, wire::answer(&request, outcome)),
            Reply::Later => {}
        }
    }

    fn send(&mut self, id: u64, message: Map) {
        let Some(client) = self.clients.iter().find(|client| client.id == id) else { return };
        let line = wire::to_line(message);
        match client.socket.send(&line, &[]) {
            Ok(()) => {}
            // It went before its answer came, as one does whose patience is over.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                self.send_away(id, None);
            }
            Err(error) => self.send_away(id, Some(&format!("it does not take its answers: {error}"))),
        }
    }

    fn send_away(&mut self, id: u64, why: Option<&str>) {
        self.hub.remove_reader(id);
        let Some(at) = self.clients.iter().position(|client| client.id == id) else { return };
        let client = self.clients.swap_remove(at);
        if let Some(why) = why {
            let name = client.name.as_deref().unwrap_or("a client");
            log::warn!("shared:{}: {name} (pid {}) was sent away: {why}", self.hub.name, client.peer.pid);
        }
        if self.controller.is_some_and(|controller| controller.0 == id) {
            self.controller = None;
        }
        drop(client); // nobody is to be told that it is gone while its socket is here
        self.hub.set_clients(self.clients.len());
    }

    fn send_the_silent_away(&mut self) {
        let is_silent = |client: &&Client| client.name.is_none() && client.came.elapsed() > policy::HELLO_PATIENCE;
        let silent: Vec<_> = self.clients.iter().filter(is_silent).map(|client| client.id).collect();
        silent.into_iter().for_each(|id| self.send_away(id, Some("it did not say who it is")));
    }

    fn pass_results_on(&mut self) {
        let (done, expelled) = self.hub.take_results();
        for (client, id, outcome) in done {
            self.send(client, wire::answer(&id, outcome));
        }
        expelled.into_iter().for_each(|client| self.send_away(client, None));
    }

    fn answer(&mut self, id: u64, message: &Map) -> Reply {
        let Some(client) = self.clients.iter_mut().find(|client| client.id == id) else { return Reply::Later };
        let Some(verb) = word(message, "do") else {
            return Reply::Now(Err(Error::new(Kind::InvalidArgument, "\"do\" is missing: it says what is asked")));
        };
        if verb == "hello" {
            client.name = Some(one_line(word(message, "name").unwrap_or("")));
            client.may_command &= message.get("monitor") != Some(&Value::Bool(true));
            return Reply::Now(Ok(welcome(self.hub, client.may_command)));
        }
        if client.name.is_none() {
            return Reply::Now(Err(Error::new(Kind::WrongState, "say hello first")));
        }
        match verb {
            "status" => Reply::Now(Ok(self.status())),
            "formats" => Reply::Now(self.with_feed(|feed| {
                let formats: Vec<_> = feed.formats()?.iter().map(wire::of_offer).collect();
                Ok(map(json!({ "formats": formats })))
            })),
            "controls" => Reply::Now(self.with_feed(|feed| {
                let controls: Vec<_> = feed.controls()?.iter().map(wire::of_control).collect();
                Ok(map(json!({ "controls": controls })))
            })),
            "control" if !message.contains_key("value") => Reply::Now(self.control(message)),
            "attach" => self.attach(id, message),
            _ => self.command(id, verb, message),
        }
    }

    /// What changes something, and not everybody may do.
    fn command(&mut self, id: u64, verb: &str, message: &Map) -> Reply {
        if let Err(error) = self.may_command(id) {
            return Reply::Now(Err(error));
        }
        if verb == "take-control" {
            return Reply::Now(self.take_control(id, message));
        }
        if let Err(error) = self.is_in_control(id) {
            return Reply::Now(Err(error));
        }
        let order = |what| {
            if self.hub.feed.is_none() {
                return Reply::Now(Err(self.unknown(verb)));
            }
            let order = Order { client: id, id: message.get("id").cloned().unwrap_or(Value::Null), what };
            match self.hub.order(order) {
                Ok(()) => Reply::Later,
                Err(error) => Reply::Now(Err(error)),
            }
        };
        match verb {
            "release-control" => {
                self.controller = None;
                Reply::Now(Ok(Map::new()))
            }
            "start" => order(What::Start),
            "stop" => order(What::Stop),
            "control" => Reply::Now(self.control(message)),
            "format" => match wire::request_of(message).and_then(|wants| self.hub.agree(id, &wants)) {
                Ok(request) => order(What::Format(request)),
                Err(error) => Reply::Now(Err(error)),
            },
            _ => self.pass_on(id, verb, message),
        }
    }

    /// What the library does not know itself.
    fn pass_on(&self, id: u64, verb: &str, message: &Map) -> Reply {
        let Some(commands) = &self.hub.commands else { return Reply::Now(Err(self.unknown(verb))) };
        if let Some(outcome) = commands.command(verb, message) {
            return Reply::Now(outcome);
        }
        let answer = LateAnswer::new(self.hub.clone(), id, message.get("id").cloned().unwrap_or(Value::Null));
        if let Some(answer) = commands.begin(verb, message, answer) {
            answer.give(Err(self.unknown(verb)));
        }
        Reply::Later
    }

    fn unknown(&self, verb: &str) -> Error {
        Error::new(Kind::Unsupported, format!("shared:{}: whoever serves it knows no \"{verb}\"", self.hub.name))
    }

    fn may_command(&self, id: u64) -> Result<()> {
        match self.clients.iter().find(|client| client.id == id) {
            Some(client) if client.may_command => Ok(()),
            client => {
                let uid = client.map_or(0, |client| client.peer.uid);
                let message = format!("shared:{}: user {uid} may read it and not command it", self.hub.name);
                Err(Error::new(Kind::Permission, message)
                    .hint("its commanders setting says who may, and a monitor never does"))
            }
        }
    }

    fn is_in_control(&self, id: u64) -> Result<()> {
        match self.controller {
            Some((other, priority)) if other != id => {
                let who = self.clients.iter().find(|client| client.id == other);
                let (name, pid) = who.map_or(("", 0), |who| (who.name.as_deref().unwrap_or(""), who.peer.pid));
                let message = format!(
                    "shared:{}: {name} (pid {pid}) has the control over it, with priority {priority}",
                    self.hub.name
                );
                Err(Error::new(Kind::Busy, message)
                    .hint("take it with a higher priority, or wait until it is released"))
            }
            _ => Ok(()),
        }
    }

    /// The stream goes on as it is; only who may change it is another.
    fn take_control(&mut self, id: u64, message: &Map) -> Result<Map> {
        let priority = message.get("priority").and_then(Value::as_i64).unwrap_or(0);
        if let Some((other, its)) = self.controller.filter(|controller| controller.0 != id) {
            if priority <= its {
                self.is_in_control(id)?;
            }
            self.send(other, map(json!({ "event": "control", "lost": true })));
        }
        self.controller = Some((id, priority));
        Ok(Map::new())
    }

    fn attach(&mut self, id: u64, message: &Map) -> Reply {
        let wants = match wire::attachment_of(message) {
            Ok(wants) => wants,
            Err(error) => return Reply::Now(Err(error)),
        };
        let Some(client) = self.clients.iter().find(|client| client.id == id) else { return Reply::Later };
        if !client.may_read {
            let uid = client.peer.uid;
            let message = format!("shared:{}: user {uid} may command it and not read it", self.hub.name);
            return Reply::Now(Err(Error::new(Kind::Permission, message).hint("its readers setting says who may")));
        }
        let (socket, name, peer) = (client.socket.clone(), client.name.clone().unwrap_or_default(), client.peer);
        let request = match self.hub.needs_format(id, &wants.wants) {
            Ok(request) => request,
            Err(error) => return Reply::Now(Err(error)),
        };
        if request.is_some() {
            // Nobody else reads: it is streamed as this one wants it.
            if let Err(error) = self.may_command(id).and_then(|()| self.is_in_control(id)) {
                return Reply::Now(Err(error));
            }
            if self.hub.feed.is_none() {
                let message = format!("shared:{}: it comes as it is; leave size and format open", self.hub.name);
                return Reply::Now(Err(Error::new(Kind::Unsupported, message)));
            }
        }
        Reply::Now(self.hub.add_reader(Reader::new(id, socket, &name, peer, wants), request))
    }

    fn status(&self) -> Map {
        let mut status = self.hub.status();
        let controller = self.controller.and_then(|(id, priority)| {
            let client = self.clients.iter().find(|client| client.id == id)?;
            Some(json!({ "pid": client.peer.pid, "name": client.name, "priority": priority }))
        });
        status.insert("controller".into(), controller.into());
        status.insert("pid".into(), std::process::id().into());
        status.extend(self.hub.commands.iter().flat_map(|commands| commands.status()));
        status
    }

    fn with_feed<T>(&self, look: impl FnOnce(&dyn Feed) -> Result<T>) -> Result<T> {
        match self.hub.feed.as_ref().and_then(|feed| feed.upgrade()) {
            Some(feed) => look(feed.as_ref()),
            None => {
                Err(Error::new(Kind::Unsupported, format!("shared:{}: there is no camera behind it", self.hub.name)))
            }
        }
    }

    fn control(&self, message: &Map) -> Result<Map> {
        let id = number(message, "control").and_then(|id| u32::try_from(id).ok()).ok_or_else(|| {
            Error::new(
                Kind::InvalidArgument,
                "\"control\" is missing: the number of the control, as \"controls\" lists it",
            )
        })?;
        self.with_feed(|feed| {
            if let Some(value) = message.get("value") {
                let value = value.as_i64().ok_or_else(|| {
                    Error::new(Kind::InvalidArgument, format!("\"value\": {value} is not a whole number"))
                })?;
                feed.set_control(id, value)?;
            }
            Ok(map(json!({ "value": feed.control(id)? })))
        })
    }
}

fn refuse(socket: &MessageSocket, error: Error) {
    let _ = socket.send(&wire::to_line(wire::answer(&Value::Null, Err(error))), &[]);
}

fn is_allowed(who: &Allowed, socket: &MessageSocket, peer: Peer) -> bool {
    is_owner(peer)
        || match who {
            Allowed::Owner => false,
            Allowed::Group(group) => socket.peer_is_in(*group),
            Allowed::Everyone => true,
        }
}

fn welcome(hub: &Hub, may_command: bool) -> Map {
    let identity = &hub.identity;
    map(json!({
        "name": hub.name, "uri": identity.uri, "camera": identity.name, "driver": identity.driver,
        "serial": identity.serial, "bus": identity.bus, "may_command": may_command,
    }))
}
