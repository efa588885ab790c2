//! The simulated USB webcam: a UVC 1.0 device in user space, plugged into the real uvcvideo by vhci_hcd, the kernel's
//! USB/IP host controller. There is no network: the kernel gets one end of a socket pair, the simulator keeps the other
//! and answers each transfer that the driver asks for. (The kernel's gadget side, dummy_hcd, has no isochronous
//! endpoints and so no webcam.)
//!
//! It behaves until ordered not to; see [`Order`].

mod catalogue;
mod controls;
mod descriptors;
mod device;
mod orders;
mod streaming;
mod usbip;
mod vhci;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

use catalogue::Catalogue;
use device::{Answer, Device, Setup, StreamChange};
use orders::Inbox;
use streaming::Streaming;
use usbip::{Link, Request, Submit};

pub use orders::Order;
pub use streaming::Transfer;

/// What the webcam is.
#[derive(Clone, Debug)]
pub struct Options {
    pub transfer: Transfer,
    /// Port of the virtual host controller; the first free one if `None`.
    pub port: Option<u32>,
    pub serial: String,
    pub frames_per_second: u32,
    pub width: u32,
    pub height: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            transfer: Transfer::Isochronous,
            port: None,
            serial: "RIG0001".into(),
            frames_per_second: 30,
            width: 640,
            height: 360,
        }
    }
}

/// Plugs the webcam in and serves it until it is ordered to exit or nobody can order it any more. Each order is a line
/// of `orders`; each is answered by a line on standard output: `ok`, or `error: ` and the reason. Before them comes
/// `ready port=N`.
pub fn run(options: &Options, orders: File) -> io::Result<()> {
    let catalogue = Catalogue::new(options.width, options.height, options.frames_per_second)
        .map_err(|reason| io::Error::new(io::ErrorKind::InvalidInput, reason))?;
    let (port, socket) = vhci::attach(options.port)?;
    let mut simulator = Simulator {
        port,
        link: Some(Link::new(socket)),
        device: Device::new(catalogue, options.transfer, &options.serial),
        streaming: Streaming::new(catalogue, options.transfer),
        delayed: VecDeque::new(),
        control_delay: Duration::ZERO,
        vanish: 0,
        latest: 0,
        early: Vec::new(),
    };
    let mut inbox = Inbox::new(orders);
    orders::answer(&format!("ready port={port}"));
    simulator.serve(&mut inbox)
}

struct Simulator {
    port: u32,
    /// The kernel's end; `None` while unplugged.
    link: Option<Link>,
    device: Device,
    streaming: Streaming,
    /// Answers to control requests that wait for their time.
    delayed: VecDeque<Delayed>,
    control_delay: Duration,
    /// How many more times it is unplugged when the host asks who it is.
    vanish: u32,
    /// The last transfer that was asked for; their numbers rise.
    latest: u32,
    /// Takings back, and what they take back, that overtook it in the kernel.
    early: Vec<(u32, u32)>,
}

struct Delayed {
    due: Instant,
    request: u32,
    answer: Answer,
}

/// Why the simulator stops serving.
struct Exit;

impl Simulator {
    fn serve(&mut self, inbox: &mut Inbox) -> io::Result<()> {
        loop {
            let ready = wait(inbox, self.link.as_ref(), self.next_due())?;
            if ready.orders {
                let open = inbox.read()?;
                while let Some(line) = inbox.next_line() {
                    let Some(order) = Order::parse(&line).transpose() else { continue };
                    match order.and_then(|order| self.obey(order)) {
                        Ok(Ok(report)) => orders::answer(&report),
                        Ok(Err(Exit)) => {
                            orders::answer("ok");
                            return Ok(());
                        }
                        Err(reason) => orders::answer(&format!("error: {reason}")),
                    }
                }
                if !open {
                    return Ok(());
                }
            }
            if let Err(error) = self.exchange(ready.link) {
                // The kernel hung up: unplugged, by order or by whoever wrote to vhci's `detach`.
                log(&format!("unplugged: {error}"));
                self.forget_host();
            }
        }
    }

    /// When there is something to send without being asked.
    fn next_due(&self) -> Option<Instant> {
        let answer = self.delayed.front().map(|delayed| delayed.due);
        let frame = self.streaming.next_due();
        [answer, frame].into_iter().flatten().min()
    }

    /// Takes one request if there is one, and sends what has become due.
    fn exchange(&mut self, requested: bool) -> io::Result<()> {
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        if requested {
            match link.receive()? {
                Request::Submit(submit) if self.is_taken_back(&submit)? => {}
                Request::Submit(submit) if submit.endpoint == 0 => self.control(submit)?,
                Request::Submit(submit) => self.streaming.queue(submit),
                Request::Unlink { request, victim } => self.unlink(request, victim)?,
            }
        }
        let now = Instant::now();
        let Some(link) = self.link.as_mut() else { return Ok(()) };
        while self.delayed.front().is_some_and(|delayed| delayed.due <= now) {
            if let Some(delayed) = self.delayed.pop_front() {
                link.answer(delayed.request, &delayed.answer)?;
            }
        }
        self.streaming.send_due(link, now)
    }

    fn control(&mut self, submit: Submit) -> io::Result<()> {
        let setup = Setup::parse(submit.setup);
        if self.vanish > 0 && setup.asks_who() {
            self.vanish -= 1;
            vhci::detach(self.port)?;
            self.forget_host();
            return Ok(());
        }
        let (answer, change) = self.device.request(setup, &submit.data);
        match change {
            Some(StreamChange::Start(mode)) => self.streaming.start(mode, Instant::now()),
            Some(StreamChange::Stop) => self.streaming.stop(),
            None => {}
        }
        // Only the controls of a user are slowed down: a slow enumeration would be another fault.
        if setup.is_for_a_unit() && !self.control_delay.is_zero() {
            let due = Instant::now() + self.control_delay;
            self.delayed.push_back(Delayed { due, request: submit.request, answer });
            return Ok(());
        }
        match self.link.as_mut() {
            Some(link) => link.answer(submit.request, &answer),
            None => Ok(()),
        }
    }

    /// Was it taken back before it came? The taking back is answered now.
    fn is_taken_back(&mut self, submit: &Submit) -> io::Result<bool> {
        self.latest = submit.request;
        let Some(at) = self.early.iter().position(|&(_, victim)| victim == submit.request) else { return Ok(false) };
        let (request, _) = self.early.swap_remove(at);
        if let Some(link) = self.link.as_mut() {
            link.unlinked(request, true)?;
        }
        Ok(true)
    }

    /// The driver takes a transfer back: it stops streaming, or gave up waiting for a control.
    fn unlink(&mut self, request: u32, victim: u32) -> io::Result<()> {
        // vhci hangs up on an answer to a transfer that it has forgotten. It sends transfers and takings back from two
        // lists, and one that is new in the first after it was looked at goes out behind its own taking back.
        if victim.wrapping_sub(self.latest) as i32 > 0 {
            self.early.push((request, victim));
            return Ok(());
        }
        let waiting = self.delayed.len();
        self.delayed.retain(|delayed| delayed.request != victim);
        let found = self.delayed.len() < waiting || self.streaming.forget(victim);
        match self.link.as_mut() {
            Some(link) => link.unlinked(request, found),
            None => Ok(()),
        }
    }

    fn forget_host(&mut self) {
        self.link = None;
        self.delayed.clear();
        self.early.clear();
        self.streaming.reset();
    }

    fn obey(&mut self, order: Order) -> Result<Result<String, Exit>, String> {
        let faults = &mut self.streaming.faults;
        match order {
            Order::Pause => self.streaming.pause(),
            Order::Resume => self.streaming.resume(Instant::now()),
            Order::ErrorBits(count) => faults.error_bits = count,
            Order::HalfFrames(count) => faults.half_frames = count,
            Order::PacketErrors(count) => {
                if self.streaming.transfer == Transfer::Bulk {
                    return Err("a bulk camera has no isochronous packets".into());
                }
                faults.packet_errors = count;
            }
            Order::StallProbes(count) => self.device.stalls.probes = count,
            Order::StallCommits(count) => self.device.stalls.commits = count,
            Order::DelayControls(delay) => self.control_delay = delay,
            Order::Detach => {
                if self.link.is_none() {
                    return Err("not plugged in".into());
                }
                vhci::detach(self.port).map_err(|error| error.to_string())?;
                self.forget_host();
            }
            Order::Vanish(count) => self.vanish = count,
            Order::Attach => {
                if self.link.is_some() {
                    return Err("plugged in already".into());
                }
                let (_, socket) = vhci::attach(Some(self.port)).map_err(|error| error.to_string())?;
                self.device.power_on();
                self.link = Some(Link::new(socket));
            }
            Order::State => return Ok(Ok(self.state())),
            Order::Exit => return Ok(Err(Exit)),
        }
        Ok(Ok("ok".into()))
    }

    fn state(&self) -> String {
        let faults = &self.streaming.faults;
        let stalls = &self.device.stalls;
        format!(
            "ok port={} plugged={} streaming={} frames={} \
             error-bit={} half-frame={} packet-errors={} stall-probe={} stall-commit={} vanish={}",
            self.port,
            u8::from(self.link.is_some()),
            u8::from(self.streaming.is_running()),
            self.streaming.frames(),
            faults.error_bits,
            faults.half_frames,
            faults.packet_errors,
            stalls.probes,
            stalls.commits,
            self.vanish,
        )
    }
}

struct Ready {
    orders: bool,
    link: bool,
}

fn wait(inbox: &Inbox, link: Option<&Link>, due: Option<Instant>) -> io::Result<Ready> {
    let watch = |fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // poll ignores a negative descriptor.
    let mut watched = [watch(inbox.as_raw_fd()), watch(link.map_or(-1, Link::as_raw_fd))];
    let milliseconds = due.map_or(-1, |due| {
        let left = due.saturating_duration_since(Instant::now());
        left.as_micros().div_ceil(1000) as libc::c_int
    });
    // SAFETY: `watched` is an array of two initialized pollfd.
    let count = unsafe { libc::poll(watched.as_mut_ptr(), watched.len() as libc::nfds_t, milliseconds) };
    if count < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(Ready { orders: watched[0].revents != 0, link: watched[1].revents != 0 })
}

fn log(line: &str) {
    eprintln!("webcam: {line}");
}
