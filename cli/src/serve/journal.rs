//! Log lines on standard error: one for each event, the camera's name first.

use std::fmt::Display;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::linux::fs::MetadataExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use crate::output::harmless;

/// How much an event matters, by syslog's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
}

/// What is said of no camera alone.
pub const SUPERVISOR: &str = "supervisor";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Words,
    /// For the journal, which takes the level from the line's beginning.
    Journal,
    Json,
}

static SHAPE: OnceLock<Shape> = OnceLock::new();

#[derive(Serialize)]
struct Line<'a> {
    level: &'static str,
    camera: &'a str,
    message: &'a str,
}

/// Called before the first line.
pub fn begin(json: bool) {
    let shape = match json {
        true => Shape::Json,
        false if is_journal() => Shape::Journal,
        false => Shape::Words,
    };
    let _ = SHAPE.set(shape);
}

/// Whether standard error is what systemd connected to the journal: it may have been redirected since.
fn is_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    let named = stream.split_once(':').and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    let own = std::fs::metadata("/proc/self/fd/2").ok().map(|file| (file.st_dev(), file.st_ino()));
    named.is_some() && named == own
}

/// Lines that were left out since the last one that was not.
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);

/// Waits for nobody: where standard error is not read, lines are left out, and counted.
pub fn say(level: Level, camera: &str, message: impl Display) {
    let mut text = line(level, camera, message);
    let stderr = std::io::stderr();
    let mut stderr = stderr.lock();
    // That it does not wait cannot be made a property of it: whoever else has the same terminal or pipe would have that, too.
    let mut polled = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut polled, PollTimeout::ZERO) == Ok(0) {
        LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        return;
    }
    match LEFT_OUT.swap(0, Ordering::Relaxed) {
        0 => {}
        count => {
            text.insert_str(0, &line(Level::Warning, camera, format_args!("{count} lines were left out: nobody read")))
        }
    }
    // In one piece: several processes write here.
    let _ = stderr.write_all(text.as_bytes());
}

fn line(level: Level, camera: &str, message: impl Display) -> String {
    let message = harmless(message.to_string().trim_end(), false);
    let line = match SHAPE.get() {
        Some(Shape::Json) => {
            let level = match level {
                Level::Error => "error",
                Level::Warning => "warning",
                Level::Notice => "notice",
                Level::Info => "info",
            };
            serde_json::to_string(&Line { level, camera, message: &message }).unwrap_or_default()
        }
        Some(Shape::Journal) => format!("<{}>{camera}: {message}", level as u8),
        _ => format!("{camera}: {message}"),
    };
    line + "\n"
}

/// What the library has to say is said of this camera.
pub fn take_from_library(camera: &str) {
    static CAMERA: OnceLock<Forward> = OnceLock::new();
    if log::set_logger(CAMERA.get_or_init(|| Forward(camera.to_owned()))).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

struct Forward(String);

impl log::Log for Forward {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Info
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = match record.level() {
                log::Level::Error => Level::Error,
                log::Level::Warn => Level::Warning,
                _ => Level::Info,
            };
            say(level, &self.0, record.args());
        }
    }

    fn flush(&self) {}
}
