//! `camlease capture`: pictures, or a clip.

mod avi;
pub mod clip;
pub mod jpeg;
mod outlet;
mod part;
pub mod picture;
pub mod pixels;
pub mod target;

use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use camlease::{
    Camera, DropPolicy, Error, FourCc, Frame, Holders, Kind, OnBusy, OpenOptions, Rate, StreamFormat, StreamRequest,
};
use indicatif::ProgressBar;
use nix::sys::signal::Signal;
use serde::Serialize;

use crate::naming;
use crate::output::{Exit, Output, Paint};
use crate::progress;
use crate::signals::{Signals, wait};
use target::{Sink, Target, Written};

/// For the help.
pub const JSON: &str = r#"JSON: {"camera", "files": [...], "frames", "bytes", "dropped", "corrupt", "width", "height", "fourcc", "fps", "seconds", "interrupted"}. With --output -, standard output has the pictures and the JSON comes on standard error."#;

/// How long a frame is waited for. The first one of a webcam may take two seconds.
const FRAME_TIMEOUT: Duration = Duration::from_secs(5);

/// A clip is to have every frame: while one is written, these wait.
const CLIP_BUFFERS: u32 = 8;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_parser = naming::camera)]
    camera: String,
    /// Where to: NAME.png and NAME.jpg are pictures, numbered where %d or %03d stands; NAME.y4m, NAME.avi (Motion JPEG)
    /// and NAME.raw (the camera's bytes) are clips; - is standard output [default: picture.png, or clip.avi with --seconds]
    #[arg(short, long, value_name = "PATTERN")]
    output: Option<OsString>,
    /// What is written, where the name does not tell
    #[arg(long = "as", value_name = "KIND", value_enum)]
    kind: Option<target::Kind>,
    /// So many frames [default: 1 picture; a clip goes on until Ctrl+C]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// For so long
    #[arg(short, long, value_name = "TIME", value_parser = naming::time)]
    seconds: Option<Duration>,
    /// Let so many frames pass first, while the camera finds its exposure
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: u64,
    /// Width and height, as 640x480; the nearest that the camera has is taken [default: the camera's own]
    #[arg(long, value_name = "WxH", value_parser = naming::size)]
    size: Option<(u32, u32)>,
    /// Frames per second, as 30, 7.5 or 30000/1001 [default: the camera's own]
    #[arg(long, value_name = "RATE", value_parser = naming::rate)]
    fps: Option<Rate>,
    /// Pixel format, as YUYV or MJPG: see "camlease list" [default: the camera's own]
    #[arg(long, value_name = "FOURCC", value_parser = pixel_format)]
    format: Option<FourCc>,
    /// Quality of JPEG pictures that the camera does not make itself
    #[arg(long, value_name = "1-100", default_value_t = 90, value_parser = clap::value_parser!(u8).range(1..=100))]
    quality: u8,
    /// Overwrite files
    #[arg(short, long)]
    force: bool,
    /// How long a busy camera is waited for
    #[arg(long, value_name = "TIME", value_parser = naming::time, default_value = "5s")]
    timeout: Duration,
    /// Ask the holder of a busy camera for it, with this priority: a higher one than its own gets the camera
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    ask: Option<i32>,
}

fn pixel_format(text: &str) -> Result<FourCc, String> {
    FourCc::parse(text).ok_or_else(|| "a pixel format has up to four characters, as YUYV".into())
}

#[derive(Serialize)]
struct Report<'a> {
    camera: &'a str,
    files: Vec<String>,
    frames: u64,
    bytes: u64,
    dropped: u64,
    corrupt: u64,
    width: u32,
    height: u32,
    fourcc: String,
    fps: f64,
    seconds: f64,
    interrupted: bool,
}

/// How far a capture came.
#[derive(Default)]
struct Taken {
    frames: u64,
    corrupt: u64,
    seconds: f64,
    interrupted: Option<Signal>,
}

pub fn run(args: &Args, output: &Output) -> Exit {
    let target = match Target::of(args.output.as_deref(), args.kind, args.count, args.seconds.is_some(), args.force) {
        Ok(target) => target,
        Err(message) => return output.fail_with(Exit::USAGE, "usage", message),
    };
    match capture(args, &target, output) {
        Ok(exit) => exit,
        Err(error) => output.fail(&error),
    }
}

fn capture(args: &Args, target: &Target, output: &Output) -> camlease::Result<Exit> {
    let special = target.open_special()?;
    let camera = open(args, output)?;
    // From here on, an end by a signal leaves whole files.
    let signals = Signals::take(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])
        .map_err(|error| Error::system("capture: signalfd", error))?;
    let format = start(&camera, args, target.kind)?;
    let mut sink = target.open(special, &signals, &format, args.quality)?;
    let bar = match (args.count, args.seconds) {
        (None, Some(time)) => progress::bar(output, Some(time.as_secs()), "s"),
        (count, _) => progress::bar(output, count.or((!target.kind.is_clip()).then_some(1)), "frames"),
    };
    let taken = take(&camera, &signals, args, target, sink.as_mut(), &bar);
    bar.finish_and_clear();
    let dropped = camera.stats().dropped;
    drop(camera);
    // Also after a failure: what came before it is worth having.
    let written = sink.finish();
    let with_place = |error: Error| match sink.left_in() {
        Some(left) => error.hint(format!("what was taken until then is in {}", left.display())),
        None => error,
    };
    let (taken, written) = (taken.map_err(with_place)?, written.map_err(with_place)?);
    tell(args, target, output, &format, &taken, &written, dropped);
    Ok(match taken.interrupted {
        // A clip without a given end is ended by Ctrl+C.
        Some(Signal::SIGINT) if target.kind.is_clip() && args.count.is_none() && args.seconds.is_none() => Exit::OK,
        Some(signal) => Exit(128 + signal as u8),
        None => Exit::OK,
    })
}

fn open(args: &Args, output: &Output) -> camlease::Result<Camera> {
    let mut on_wait = |message: &str, _: &Holders| output.note(message);
    let options = OpenOptions {
        timeout: Some(args.timeout),
        on_wait: Some(&mut on_wait),
        on_busy: if args.ask.is_some() { OnBusy::Ask } else { OnBusy::Wait },
        priority: args.ask.unwrap_or(0),
        name: "camlease capture".into(),
        ..OpenOptions::default()
    };
    Camera::open(&args.camera, options)
}

/// Starts the stream in a pixel format that can be written: the camera's own, if it can.
fn start(camera: &Camera, args: &Args, kind: target::Kind) -> camlease::Result<StreamFormat> {
    let (width, height) = args.size.unwrap_or_default();
    let clip = kind.is_clip() || args.count.is_some_and(|count| count > 1);
    let request = StreamRequest {
        width,
        height,
        fourcc: args.format.unwrap_or_default(),
        rate: args.fps.unwrap_or_default(),
        // Frames of a shared camera wait in its ring, and not with those who hold them.
        buffers: if clip && !args.camera.starts_with("shared:") { CLIP_BUFFERS } else { 0 },
        drop_policy: if clip { DropPolicy::Newest } else { DropPolicy::Oldest },
        ..StreamRequest::default()
    };
    let format = camera.start(&request)?;
    if kind.takes(format.fourcc) {
        return Ok(format);
    }
    let uri = &camera.identity().uri;
    let offered: Vec<FourCc> = camera.formats()?.iter().map(|format| format.fourcc).collect();
    let usable = offered.into_iter().find(|code| kind.takes(*code)).filter(|_| args.format.is_none());
    let Some(fourcc) = usable else {
        let message = format!("{uri}: {} cannot be turned into {}", format.fourcc, kind.words());
        return Err(Error::new(Kind::Unsupported, message)
            .hint("write the camera's bytes as they are, to a .raw file, or choose another --format: camlease list"));
    };
    camera.stop()?;
    camera.start(&StreamRequest { fourcc, ..request })
}

fn take(
    camera: &Camera,
    signals: &Signals,
    args: &Args,
    target: &Target,
    sink: &mut dyn Sink,
    bar: &ProgressBar,
) -> camlease::Result<Taken> {
    let wanted = args.count.or((!target.kind.is_clip() && args.seconds.is_none()).then_some(1));
    let mut taken = Taken::default();
    let mut skipped = 0;
    let mut first_ns = None;
    while wanted.is_none_or(|wanted| taken.frames < wanted) && !sink.is_full() {
        let frame = match next_frame(camera, signals) {
            Ok(Next::Frame(frame)) => frame,
            Ok(Next::Signal(signal)) => {
                taken.interrupted = Some(signal);
                break;
            }
            // A recording has an end.
            Err(error) if error.kind() == Kind::Disconnected && args.camera.starts_with("file:") => {
                if taken.frames == 0 {
                    return Err(error);
                }
                break;
            }
            Err(error) => return Err(error),
        };
        if skipped < args.skip {
            skipped += 1;
            continue;
        }
        // By the camera's clock: what was taken in time counts, also where writing it takes longer.
        let at = frame.timestamp_ns() - *first_ns.get_or_insert(frame.timestamp_ns());
        let at = Duration::from_nanos(at.max(0) as u64);
        if args.seconds.is_some_and(|time| at >= time) {
            break;
        }
        taken.seconds = at.as_secs_f64();
        let is_written = match !frame.is_corrupt() {
            true => sink.write(&frame),
            false => Ok(false),
        };
        match is_written {
            Ok(true) => taken.frames += 1,
            Ok(false) => taken.corrupt += 1,
            // A reader that does not read is not waited for.
            Err(error) if error.errno() == outlet::INTERRUPTED => {
                taken.interrupted = signals.next().map(|received| received.signal);
                break;
            }
            Err(error) => return Err(error),
        }
        bar.set_position(if args.count.is_none() && args.seconds.is_some() { at.as_secs() } else { taken.frames });
    }
    Ok(taken)
}

enum Next {
    Frame(Frame),
    Signal(Signal),
}

fn next_frame(camera: &Camera, signals: &Signals) -> camlease::Result<Next> {
    // SAFETY: the camera keeps its descriptor open until it is dropped, and it outlives this call.
    let ready = unsafe { BorrowedFd::borrow_raw(camera.fd()?) };
    let begun = Instant::now();
    loop {
        wait([ready, signals.as_fd()], Some(FRAME_TIMEOUT.saturating_sub(begun.elapsed())));
        if let Some(received) = signals.next() {
            return Ok(Next::Signal(received.signal));
        }
        match camera.next_frame(Some(Duration::ZERO)) {
            Ok(frame) => return Ok(Next::Frame(frame)),
            // It was readable for something that turned out to be no frame.
            Err(error) if error.kind() == Kind::Timeout && begun.elapsed() < FRAME_TIMEOUT => {}
            Err(error) if error.kind() == Kind::Timeout => {
                let seconds = FRAME_TIMEOUT.as_secs();
                let message = format!("{}: no frame came within {seconds} s", camera.identity().uri);
                return Err(Error::new(Kind::Timeout, message).hint("the camera may have stalled: camlease reset"));
            }
            Err(error) => return Err(error),
        }
    }
}

fn tell(
    args: &Args,
    target: &Target,
    output: &Output,
    format: &StreamFormat,
    taken: &Taken,
    written: &Written,
    dropped: u64,
) {
    let report = Report {
        camera: &args.camera,
        files: written.files.iter().map(|file| file.display().to_string()).collect(),
        frames: taken.frames,
        bytes: written.bytes,
        dropped,
        corrupt: taken.corrupt,
        width: format.width,
        height: format.height,
        fourcc: format.fourcc.to_string(),
        fps: format.rate.per_second(),
        seconds: taken.seconds,
        interrupted: taken.interrupted.is_some(),
    };
    if target.is_stdout() {
        if output.is_json() {
            output.event_on_stderr(&report);
        }
        return;
    }
    output.json(&report);
    let name = match written.files.as_slice() {
        [] => "nothing was written".to_owned(),
        [only] => only.display().to_string(),
        [first, .., last] => format!("{} to {}", first.display(), last.display()),
    };
    let frames = if taken.frames == 1 { "1 frame".into() } else { format!("{} frames", taken.frames) };
    let size = format!("{}x{} {}", format.width, format.height, format.fourcc);
    let mut line = format!("{}: {frames}, {size}, {}", output.paint(Paint::Strong, name), bytes(written.bytes));
    for (count, what) in [(dropped, "dropped"), (taken.corrupt, "corrupt and left out")] {
        if count > 0 {
            line += &format!(", {}", output.paint(Paint::Warn, format_args!("{count} {what}")));
        }
    }
    output.line(line);
}

fn bytes(count: u64) -> String {
    match count {
        0..10_000 => format!("{count} bytes"),
        10_000..10_000_000 => format!("{} kB", count / 1000),
        _ => format!("{:.1} MB", count as f64 / 1e6),
    }
}
