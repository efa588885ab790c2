//! `virtual:NAME`: a camera made in the process. Its NAME is one device for the whole machine: the
//! holder has an abstract socket bound to it, which the kernel forgets with the holder, and whose
//! connections hang up when it is gone. (The name space of these sockets is the network name space's.)
//!
//! Faults on order, so that a host can test what it does about them: `busy=N` refuses N attempts,
//! `stall=N` gives no frame after N, `hang=N` does not return from the call for a frame after N, `corrupt=N` flags every
//! Nth frame, `unplug=N` vanishes after N frames and comes back after `return=MS`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::paced::{Pace, Paced, Painted, Picture};
use super::{Device, Found, Identity, Notice, Port, Source, State, Stream};
use crate::error::{Error, Kind, Result};
use crate::format::*;
use crate::holders::{Activity, Holders, Target, scan};
use crate::kernel::{self, AbstractSocket, Closing, Fd};
use crate::lease::{Filing, Users};
use crate::uri::Options;
use crate::{policy, timed};

const FORMATS: [(FourCc, &str); 6] = [
    (YUYV, "YUYV 4:2:2"),
    (UYVY, "UYVY 4:2:2"),
    (NV12, "Y/UV 4:2:0"),
    (GREY, "8-bit Greyscale"),
    (RGB24, "24-bit RGB 8-8-8"),
    (BGR24, "24-bit BGR 8-8-8"),
];
const DRIVER: &str = "virtual";
const BRIGHTNESS: u32 = 0x0098_0900; // V4L2_CID_BRIGHTNESS
/// The kernel's __SO_ACCEPTCON in the flags of /proc/net/unix.
const LISTENS: u32 = 1 << 16;
const BRIGHTNESS_DEFAULT: i64 = 128;

/// Names that are unplugged in this process, and when they come back.
static UNPLUGGED: Mutex<BTreeMap<String, Instant>> = Mutex::new(BTreeMap::new());

pub struct Virtual {
    camera: Camera,
    refusals: u64,
}

/// What the name says of the camera.
#[derive(Clone)]
struct Camera {
    uri: String,
    name: String,
    width: u32,
    height: u32,
    fourcc: FourCc,
    rate: Rate,
    stall: Option<u64>,
    hang: Option<u64>,
    corrupt: Option<u64>,
    unplug: Option<u64>,
    away: Duration,
}

impl Virtual {
    pub fn new(options: &Options) -> Result<Virtual> {
        options.only(&["width", "height", "fps", "fourcc", "busy", "stall", "hang", "corrupt", "unplug", "return"])?;
        let name = options.target.clone();
        if !is_name(&name) {
            let most = policy::VIRTUAL_NAME_MOST;
            return Err(
                options.invalid(format!("a name has up to {most} letters, digits, dots, dashes and underscores"))
            );
        }
        let side = u64::from(policy::VIRTUAL_SIDE_LEAST)..=u64::from(policy::SIDE_MOST);
        let fourcc = options.fourcc("fourcc", YUYV)?;
        if !FORMATS.iter().any(|known| known.0 == fourcc) {
            return Err(options.invalid(format!("fourcc={fourcc} cannot be made; {}", offered())));
        }
        let after = |key| Ok(if options.has(key) { Some(options.number(key, 0, 0..=u64::MAX)?) } else { None });
        let corrupt = if options.has("corrupt") { Some(options.number("corrupt", 1, 1..=u64::MAX)?) } else { None };
        let (width, height) = even(
            fourcc,
            options.number("width", 640, side.clone())? as u32,
            options.number("height", 480, side)? as u32,
        );
        let camera = Camera {
            uri: options.uri.clone(),
            name,
            width,
            height,
            fourcc,
            rate: Rate::new(options.number("fps", 30, 1..=u64::from(policy::FPS_MOST))? as u32, 1),
            stall: after("stall")?,
            hang: after("hang")?,
            corrupt,
            unplug: after("unplug")?,
            away: Duration::from_millis(options.number("return", 1000, 0..=3_600_000)?),
        };
        Ok(Virtual { camera, refusals: options.number("busy", 0, 0..=u64::MAX)? })
    }
}

impl Virtual {
    fn held(&self, lease: AbstractSocket) -> Held {
        let identity = Identity {
            uri: self.camera.uri.clone(),
            name: self.camera.name.clone(),
            driver: DRIVER.into(),
            serial: String::new(),
            bus: String::new(),
        };
        let brightness = Arc::new(AtomicI64::new(BRIGHTNESS_DEFAULT));
        Held { camera: self.camera.clone(), identity, brightness, lease }
    }
}

/// Not waited for without end: in a forked child a lock may be held by a thread that is not there.
fn unplugged() -> Option<MutexGuard<'static, BTreeMap<String, Instant>>> {
    timed::lock_by(&UNPLUGGED, Some(Instant::now() + policy::TIGHT_WINDOW))
}

fn is_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    name.len() <= policy::VIRTUAL_NAME_MOST && name.bytes().all(allowed)
}

fn offered() -> String {
    let codes: Vec<_> = FORMATS.iter().map(|known| known.0.to_string()).collect();
    format!("virtual cameras offer {}", codes.join(", "))
}

/// Formats that share colour between neighbours have even sides.
fn even(fourcc: FourCc, width: u32, height: u32) -> (u32, u32) {
    match fourcc {
        YUYV | UYVY => (width & !1, height),
        NV12 => (width & !1, height & !1),
        _ => (width, height),
    }
}

fn filing(name: &str) -> Filing {
    Filing { key: format!("virtual-{name}"), instance: String::new(), users: Users::All }
}

fn socket_name(name: &str) -> String {
    format!("camlease/virtual/{name}")
}

fn streaming_name(name: &str) -> String {
    format!("camlease/virtual/{name}/streaming")
}

impl Source for Virtual {
    fn acquire(&mut self) -> Result<Box<dyn Device>> {
        let uri = &self.camera.uri;
        if let Some(mut unplugged) = unplugged() {
            if unplugged.get(&self.camera.name).is_some_and(|back| *back > Instant::now()) {
                return Err(Error::new(
                    Kind::NotFound,
                    format!("{uri}: the camera is unplugged (on order, by unplug=N)"),
                ));
            }
            unplugged.remove(&self.camera.name);
        }
        if self.refusals > 0 {
            self.refusals -= 1;
            return Err(Error::new(Kind::Busy, format!("{uri}: the camera plays busy (on order, by busy=N)")));
        }
        let lease = AbstractSocket::bind(&socket_name(&self.camera.name)).map_err(|error| {
            let busy = || std::io::Error::from_raw_os_error(libc::EBUSY);
            let error = if error.raw_os_error() == Some(libc::EADDRINUSE) { busy() } else { error };
            Error::system(format!("{uri}: taking its name on this machine"), error)
        })?;
        Ok(Box::new(self.held(lease)))
    }

    fn notice(&mut self) -> Result<Notice> {
        // A refused connection means that the name has just become free: no notice, the next attempt gets it.
        let hangup = AbstractSocket::connect(&socket_name(&self.camera.name)).ok().map(AbstractSocket::into_fd);
        Ok(Notice { hangup, ..Notice::default() })
    }

    fn holders(&self) -> Holders {
        let bound = bound_names();
        let inode = |name: &str| bound.iter().find(|known| known.0 == name).map(|known| known.1);
        let Some(inode_of_lease) = inode(&socket_name(&self.camera.name)) else { return Holders::default() };
        let streams = inode(&streaming_name(&self.camera.name)).is_some();
        let mut holders = scan(&[vec![Target::Socket { inode: inode_of_lease }]]).pop().unwrap_or_default();
        if !streams {
            holders.list.iter_mut().for_each(|holder| holder.activity = Activity::Open);
        }
        // One socket has the name: whoever has that is the holder, and nobody is missing.
        if !holders.list.is_empty() {
            holders.unreadable = 0;
        }
        holders
    }

    fn filings(&self) -> Vec<Filing> {
        vec![filing(&self.camera.name)]
    }

    fn port(&self) -> Result<Box<dyn Port>> {
        Err(no_port(&self.camera.uri))
    }

    fn receive(&mut self, camera: Fd) -> Result<Box<dyn Device>> {
        if kernel::listening_name(&camera).as_deref() != Some(&socket_name(&self.camera.name)) {
            let message = format!("{}: what was handed over is not this camera", self.camera.uri);
            return Err(Error::new(Kind::NotFound, message));
        }
        Ok(Box::new(self.held(AbstractSocket::from_fd(camera))))
    }

    fn formats(&self) -> Result<Vec<Format>> {
        Ok(formats())
    }
}

fn no_port(uri: &str) -> Error {
    Error::new(Kind::Unsupported, format!("{uri}: a virtual camera has no port to reset"))
        .hint("close it and open it again")
}

/// Abstract names of this library's and the inodes of the sockets that have them. Read line by line, and
/// not by a crate that gives the whole table up for one odd line: anybody can bind an odd name.
fn bound_names() -> Vec<(String, u64)> {
    let table = std::fs::read("/proc/net/unix").unwrap_or_default();
    let row = |line: &[u8]| {
        let mut fields = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
        // Waiters' connections stand there as well, under the same name: only the holder listens.
        let listens = u32::from_str_radix(fields.nth(3)?, 16).ok()? & LISTENS != 0;
        let inode = fields.nth(2)?.parse().ok()?;
        let name = fields.next()?.strip_prefix('@')?;
        (listens && name.starts_with("camlease/virtual/")).then(|| (name.to_owned(), inode))
    };
    table.split(|&byte| byte == b'\n').filter_map(row).collect()
}

/// Virtual cameras that somebody on this machine holds.
pub fn list() -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for (name, _) in bound_names() {
        let Some(name) = name.strip_prefix("camlease/virtual/") else { continue };
        let (name, state) = match name.strip_suffix("/streaming") {
            Some(name) => (name, State::Streaming),
            None => (name, State::Open),
        };
        // Anybody can bind a socket of any name; no camera has it.
        if name.is_empty() || !is_name(name) {
            continue;
        }
        match found.iter_mut().find(|known| known.identity.name == name) {
            Some(known) if state == State::Streaming => known.state = state,
            Some(_) => {}
            None => {
                let identity = Identity {
                    uri: format!("virtual:{name}"),
                    name: name.to_owned(),
                    driver: DRIVER.into(),
                    ..Identity::default()
                };
                found.push(Found { identity, state });
            }
        }
    }
    found.sort_by(|a, b| a.identity.name.cmp(&b.identity.name));
    found
}

fn formats() -> Vec<Format> {
    let offer = |&(fourcc, description): &(FourCc, &str)| Format {
        fourcc,
        description: description.to_owned(),
        compressed: false,
        width: (policy::VIRTUAL_SIDE_LEAST, policy::SIDE_MOST, 2),
        height: (policy::VIRTUAL_SIDE_LEAST, policy::SIDE_MOST, 2),
        slowest: Rate::new(1, 1),
        fastest: Rate::new(policy::FPS_MOST, 1),
    };
    FORMATS.iter().map(offer).collect()
}

struct Held {
    camera: Camera,
    identity: Identity,
    brightness: Arc<AtomicI64>,
    lease: AbstractSocket,
}

impl Device for Held {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn formats(&self) -> Result<Vec<Format>> {
        Ok(formats())
    }

    fn controls(&self) -> Result<Vec<Control>> {
        Ok(vec![Control {
            id: BRIGHTNESS,
            name: "Brightness".into(),
            kind: ControlKind::Integer,
            minimum: 0,
            maximum: 255,
            step: 1,
            default: BRIGHTNESS_DEFAULT,
            readable: true,
            writable: true,
            active: true,
            menu: Vec::new(),
        }])
    }

    fn control(&self, id: u32) -> Result<i64> {
        self.known(id)?;
        Ok(self.brightness.load(Ordering::Relaxed))
    }

    fn set_control(&self, id: u32, value: i64) -> Result<()> {
        self.known(id)?;
        if !(0..=255).contains(&value) {
            let uri = &self.identity.uri;
            return Err(Error::new(Kind::InvalidArgument, format!("{uri}: brightness {value} is not within 0 to 255")));
        }
        self.brightness.store(value, Ordering::Relaxed);
        Ok(())
    }

    fn start(&self, request: &StreamRequest) -> Result<Box<dyn Stream>> {
        let or = |asked: u32, own: u32| {
            if asked == 0 { own } else { asked.clamp(policy::VIRTUAL_SIDE_LEAST, policy::SIDE_MOST) }
        };
        let fourcc = if request.fourcc.0 == 0 { self.camera.fourcc } else { request.fourcc };
        let (width, height) =
            even(fourcc, or(request.width, self.camera.width), or(request.height, self.camera.height));
        let Some((stride, bytes)) = FORMATS.iter().find(|known| known.0 == fourcc).and(layout(fourcc, width, height))
        else {
            let uri = &self.identity.uri;
            return Err(Error::new(Kind::Unsupported, format!("{uri}: {fourcc} cannot be made; {}", offered())));
        };
        let rate = match request.rate.is_set() {
            // As a driver does, the nearest that can be done is what is given.
            true if request.rate.per_second() > policy::FPS_MOST.into() => Rate::new(policy::FPS_MOST, 1),
            true => request.rate,
            false => self.camera.rate,
        };
        let pace = self.camera.stall.map_or(Pace::At(rate), |frames| Pace::Stalling(rate, frames));
        let format = StreamFormat { width, height, fourcc, rate, stride, planes: vec![(stride, bytes)], buffers: 0 };
        let picture = TestPicture {
            camera: self.camera.clone(),
            brightness: self.brightness.clone(),
            size: (fourcc, width, height, stride as usize),
            template: Vec::new(),
            template_brightness: -1,
        };
        let mark = mark(&streaming_name(&self.camera.name)).map(|mark| Box::new(mark) as _);
        Ok(Box::new(Paced::start(format, pace, request, Box::new(picture), mark)?))
    }

    fn port(&self) -> Result<Box<dyn Port>> {
        Err(no_port(&self.camera.uri))
    }

    fn filing(&self) -> Option<Filing> {
        Some(filing(&self.camera.name))
    }

    fn hand_over(self: Box<Self>) -> Option<Fd> {
        Some(self.lease.into_fd())
    }

    fn let_go(self: Box<Self>) -> Option<Closing> {
        Some(Closing::begin(self.lease.into_fd()))
    }
}

impl Held {
    fn known(&self, id: u32) -> Result<()> {
        match id {
            BRIGHTNESS => Ok(()),
            _ => {
                Err(Error::new(Kind::InvalidArgument, format!("{}: there is no control 0x{id:08x}", self.identity.uri)))
            }
        }
    }
}

/// Seen by others as streaming for as long as this socket exists; without it, merely as open. A child that another thread
/// forks has the former stream's for a moment.
fn mark(name: &str) -> Option<AbstractSocket> {
    let deadline = Instant::now() + policy::TIGHT_WINDOW;
    loop {
        match AbstractSocket::bind(name) {
            Ok(mark) => return Some(mark),
            Err(error) if error.raw_os_error() != Some(libc::EADDRINUSE) || Instant::now() >= deadline => return None,
            Err(_) => std::thread::sleep(policy::TIGHT_STEP),
        }
    }
}

/// Colour bars, and a white mark on black below them that goes from left to right.
struct TestPicture {
    camera: Camera,
    brightness: Arc<AtomicI64>,
    /// Pixel format, width, height, stride.
    size: (FourCc, u32, u32, usize),
    template: Vec<u8>,
    template_brightness: i64,
}

/// Y, Cb and Cr of the bars: 75 % white, yellow, cyan, green, magenta, red, blue, black (BT.601).
const BARS: [[u8; 3]; 8] = [
    [180, 128, 128],
    [162, 44, 142],
    [131, 156, 44],
    [112, 72, 58],
    [84, 184, 198],
    [65, 100, 212],
    [35, 212, 114],
    [16, 128, 128],
];

impl Picture for TestPicture {
    fn paint(&mut self, sequence: u64, timestamp_ns: i64, into: &mut [u8]) -> Result<Painted> {
        if self.camera.hang.is_some_and(|frames| sequence >= frames) {
            log::warn!("{}: the driver hangs (on order, by hang=N)", self.camera.uri);
            loop {
                std::thread::sleep(policy::FOR_EVER);
            }
        }
        if self.camera.unplug.is_some_and(|frames| sequence >= frames) {
            if let Some(mut unplugged) = unplugged() {
                unplugged.entry(self.camera.name.clone()).or_insert_with(|| Instant::now() + self.camera.away);
            }
            let uri = &self.camera.uri;
            return Err(Error::new(
                Kind::Disconnected,
                format!("{uri}: the camera was unplugged (on order, by unplug=N)"),
            )
            .hint("close it and open it again when it is back"));
        }
        let brightness = self.brightness.load(Ordering::Relaxed);
        if self.template_brightness != brightness {
            self.template = vec![0; into.len()];
            render(self.size, brightness - BRIGHTNESS_DEFAULT, &mut self.template);
            self.template_brightness = brightness;
        }
        into.copy_from_slice(&self.template);
        self.mark(sequence, into);
        into[..8].copy_from_slice(&sequence.to_le_bytes());
        into[8..16].copy_from_slice(&timestamp_ns.to_le_bytes());
        let corrupt = self.camera.corrupt.is_some_and(|every| (sequence + 1).is_multiple_of(every));
        Ok(Painted { used: into.len(), corrupt })
    }
}

impl TestPicture {
    fn mark(&self, sequence: u64, into: &mut [u8]) {
        let (_, _, height, stride) = self.size;
        let (from, to) = mark_rows(height);
        // Whole groups of pixels, so that the mark is white in every format.
        let length = (stride / 16).max(12) / 12 * 12;
        let at = (sequence as usize * 12) % stride.saturating_sub(length).max(1) / 12 * 12;
        for row in from..to {
            let line = &mut into[row * stride..(row + 1) * stride];
            let white = match self.size.0 {
                YUYV => [235, 128],
                UYVY => [128, 235],
                _ => [235, 235],
            };
            let end = (at + length).min(line.len());
            line[at..end].iter_mut().zip(white.iter().cycle()).for_each(|(byte, &value)| *byte = value);
        }
    }
}

/// The rows of the moving mark: the last eighth of the picture.
fn mark_rows(height: u32) -> (usize, usize) {
    ((height - (height / 8).max(1)) as usize, height as usize)
}

fn render((fourcc, width, height, stride): (FourCc, u32, u32, usize), brighter: i64, into: &mut [u8]) {
    let (mark_from, _) = mark_rows(height);
    let pixel = |x: usize, y: usize| {
        let [luma, cb, cr] = if y >= mark_from { BARS[7] } else { BARS[x * BARS.len() / width as usize] };
        [(i64::from(luma) + brighter).clamp(16, 235) as u8, cb, cr]
    };
    for y in 0..height as usize {
        for x in 0..width as usize {
            let [luma, cb, cr] = pixel(x, y);
            let colour = if x % 2 == 0 { cb } else { cr };
            match fourcc {
                YUYV => into[y * stride + 2 * x..][..2].copy_from_slice(&[luma, colour]),
                UYVY => into[y * stride + 2 * x..][..2].copy_from_slice(&[colour, luma]),
                NV12 => {
                    into[y * stride + x] = luma;
                    into[height as usize * stride + y / 2 * stride + x] = colour;
                }
                RGB24 | BGR24 => {
                    let mut rgb = to_rgb([luma, cb, cr]);
                    if fourcc == BGR24 {
                        rgb.reverse();
                    }
                    into[y * stride + 3 * x..][..3].copy_from_slice(&rgb);
                }
                _ => into[y * stride + x] = luma,
            }
        }
    }
}

/// BT.601, studio range.
fn to_rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (298 * (i32::from(y) - 16), i32::from(cb) - 128, i32::from(cr) - 128);
    [y + 409 * cr, y - 100 * cb - 208 * cr, y + 516 * cb].map(|value| ((value + 128) >> 8).clamp(0, 255) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uri::Uri;

    fn camera(uri: &str) -> Result<Virtual> {
        let Uri::Virtual(options) = Uri::parse(uri)? else { panic!("{uri}") };
        Virtual::new(&options)
    }

    fn acquire(uri: &str) -> Box<dyn Device> {
        camera(uri).unwrap().acquire().unwrap()
    }

    /// Names are the whole machine's.
    fn unique(name: &str) -> String {
        format!("virtual:unit-{name}-{}", std::process::id())
    }

    /// A child that another test forks has what this one has open until it is another program.
    fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn one_holder_a_name_and_the_next_after_it() {
        let uri = unique("one");
        let first = acquire(&uri);
        let mut second = camera(&uri).unwrap();
        assert_eq!(second.acquire().err().unwrap().kind(), Kind::Busy);
        let this_process = |source: &Virtual| {
            let holders = source.holders();
            let its = holders.list.iter().find(|holder| holder.pid == std::process::id() as i32);
            its.unwrap_or_else(|| panic!("{holders}")).activity
        };
        assert_eq!(this_process(&second), Activity::Open);
        assert!(list().iter().any(|found| found.identity.uri == uri && found.state == State::Open));
        let stream = first.start(&StreamRequest::default()).unwrap();
        assert_eq!(this_process(&second), Activity::Streaming);
        eventually("this process alone has it", || (second.holders().list.len() == 1).then_some(()));
        let notice = second.notice().unwrap().hangup.unwrap();
        assert!(!crate::kernel::poll(&mut [crate::kernel::readable(notice.number())], Some(Instant::now())).unwrap());
        drop(stream);
        assert!(first.let_go().unwrap().end_by(Instant::now() + Duration::from_secs(20)));
        let hangs_up = Some(Instant::now() + Duration::from_secs(20));
        assert!(crate::kernel::poll(&mut [crate::kernel::readable(notice.number())], hangs_up).unwrap(), "it hangs up");
        eventually("it is free", || second.acquire().ok());
    }

    #[test]
    fn frames_carry_number_and_time_in_every_format() {
        for (fourcc, _) in FORMATS {
            let device =
                acquire(&format!("{}?width=63&height=31&fps=1000&fourcc={fourcc}", unique(&fourcc.to_string())));
            let mut stream = device.start(&StreamRequest::default()).unwrap();
            let filled = stream.dequeue(true).unwrap().expect("the first frame is due at once");
            let (data, length) = filled.buffer.plane(0);
            assert_eq!(filled.used[0], length);
            // SAFETY: the buffer is alive and nobody fills it: the stream is not called.
            let bytes = unsafe { std::slice::from_raw_parts(data, length) };
            assert_eq!(bytes[..8], filled.sequence.to_le_bytes());
            assert_eq!(bytes[8..16], filled.timestamp_ns.to_le_bytes());
            let format = stream.format();
            assert_eq!(layout(fourcc, format.width, format.height).unwrap(), format.planes[0]);
        }
    }

    #[test]
    fn brightness_changes_the_picture() {
        let device = acquire(&(unique("bright") + "?fourcc=GREY&width=64&height=64&fps=1000"));
        let mut stream = device.start(&StreamRequest::default()).unwrap();
        let mut luma = || {
            let filled = stream.dequeue(true).unwrap().unwrap();
            // SAFETY: as above; row 1, first bar.
            let byte = unsafe { *filled.buffer.plane(0).0.add(64) };
            stream.requeue(filled.index).unwrap();
            std::thread::sleep(Duration::from_millis(2));
            byte
        };
        assert_eq!(luma(), 180);
        device.set_control(BRIGHTNESS, 100).unwrap();
        assert_eq!(luma(), 152);
        assert_eq!(device.set_control(BRIGHTNESS, 256).unwrap_err().kind(), Kind::InvalidArgument);
        assert_eq!(device.control(1).unwrap_err().kind(), Kind::InvalidArgument);
    }

    #[test]
    fn faults_come_on_order() {
        let mut busy = camera(&(unique("busy") + "?busy=2")).unwrap();
        assert_eq!(busy.acquire().err().unwrap().kind(), Kind::Busy);
        assert_eq!(busy.acquire().err().unwrap().kind(), Kind::Busy);
        assert!(busy.acquire().is_ok());

        let device = acquire(&(unique("unplug") + "?unplug=1&return=2000&fps=1000"));
        let request = StreamRequest { drop_policy: DropPolicy::Newest, ..Default::default() };
        let mut stream = device.start(&request).unwrap();
        assert_eq!(stream.dequeue(true).unwrap().unwrap().sequence, 0);
        let gone = std::iter::repeat_with(|| stream.dequeue(true)).find_map(Result::err).unwrap();
        assert_eq!(gone.kind(), Kind::Disconnected);
        drop((stream, device));
        let mut again = camera(&unique("unplug")).unwrap();
        assert_eq!(again.acquire().err().unwrap().kind(), Kind::NotFound);
        let begun = Instant::now();
        while again.acquire().is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it does not come back");
            std::thread::sleep(Duration::from_millis(50));
        }

        let device = acquire(&(unique("corrupt") + "?corrupt=2&fps=1000"));
        let mut stream = device.start(&request).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        let flags: Vec<bool> = (0..4).map(|_| stream.dequeue(true).unwrap().unwrap().corrupt).collect();
        assert_eq!(flags, [false, true, false, true]);
    }

    #[test]
    fn bad_orders_are_refused() {
        for (uri, part) in [
            ("virtual:a/b", "letters, digits"),
            ("virtual:a?fps=0", "fps=0"),
            ("virtual:a?fourcc=MJPG", "virtual cameras offer YUYV"),
            ("virtual:a?width=4", "width=4"),
            ("virtual:a?colour=red", "\"colour\" is not known"),
        ] {
            let error = camera(uri).err().unwrap();
            assert_eq!(error.kind(), Kind::InvalidArgument, "{uri}");
            assert!(error.message().contains(part), "{uri}: {error}");
        }
    }
}
