//! Recording a shared camera: one thread takes frames and makes pictures of them, another writes these to the disk, and
//! between them is a bounded queue. Neither the camera nor another reader ever waits for either.

pub mod archive;
mod disk;
mod folder;
mod matroska;
mod picture;
mod plain;
mod queue;
pub mod snapshot;
mod writing;

#[cfg(test)]
mod tests;

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use camlease::{Camera, DropPolicy, Error, Event, Kind, OpenOptions, Result, StreamRequest};
use nix::sys::signal::{SigSet, Signal};
use serde_json::{Map, Value, json};

use crate::signals::wait;
use folder::Folder;
use picture::Picture;
use queue::{Offered, Queue};
use writing::Writing;

/// How often what was taken is brought into the file, so that a killed recording is no more behind.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// Pictures that wait for the disk: seconds of Motion JPEG, and a few frames of 4K without compression.
const QUEUE_BYTES: usize = 64 << 20;

/// How long an orderly stop waits for the disk to take what is left.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Pause before a camera that failed is opened again.
const RETRY: Duration = Duration::from_millis(500);

/// A camera that is open and fails is opened again after so many failures, with this pause after each.
const FAILURES_MOST: u32 = 50;
const PAUSE: Duration = Duration::from_millis(50);

/// How long one attempt to open the camera may take: as long may a stop be late.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// Of JPEGs that the camera does not make itself, 1 to 100.
pub const QUALITY: u8 = 90;

/// Frames that a reader may be behind while one is made a picture.
const BUFFERS: u32 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Container {
    /// Motion JPEG: the camera's own JPEGs as they are, anything else encoded.
    #[default]
    Matroska,
    /// Uncompressed, with an index of times and places beside it.
    Y4m,
    /// The camera's bytes, with the same index.
    Raw,
}

impl Container {
    pub fn extension(self) -> &'static str {
        match self {
            Container::Matroska => "mkv",
            Container::Y4m => "y4m",
            Container::Raw => "raw",
        }
    }
}

#[derive(Debug, Clone)]
pub struct RecordOptions {
    /// Where files are created. It has to be there.
    pub folder: PathBuf,
    pub container: Container,
    /// Of JPEGs that the camera does not make itself, 1 to 100.
    pub quality: u8,
    /// When a file is full. 0: never.
    pub max_bytes: u64,
    pub max_seconds: u64,
    /// 0: the recording ends when its file is full. Else it goes on in a new file, and so many of this camera's files
    /// are kept, the newest, also of former recordings.
    pub max_files: u32,
    /// The recording ends when there are fewer bytes free on the disk.
    pub min_free: u64,
}

impl Default for RecordOptions {
    fn default() -> Self {
        RecordOptions {
            folder: PathBuf::from("."),
            container: Container::default(),
            quality: QUALITY,
            max_bytes: 0,
            max_seconds: 0,
            max_files: 0,
            min_free: crate::serve::config::MIN_FREE,
        }
    }
}

/// A recording, from its start to its end. It ends in order when this is dropped.
pub struct Recorder {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Queue,
    progress: Mutex<Progress>,
    /// Told when a thread has ended.
    ended: Condvar,
    stop: Event,
}

#[derive(Default)]
struct Progress {
    /// The one that is written, or was.
    file: PathBuf,
    /// In files, whole.
    frames: u64,
    bytes: u64,
    seconds: f64,
    /// Left out because the disk is slow.
    thinned: u64,
    /// Damaged, and left out.
    damaged: u64,
    /// Numbers that the camera counted and that never came here.
    missed: u64,
    /// What the camera's side waits for.
    trouble: Option<String>,
    error: Option<String>,
    /// Why the recording has ended, if by itself.
    reason: Option<&'static str>,
    is_written: bool,
    /// Nobody waits for the disk any more.
    is_given_up: bool,
}

impl Recorder {
    /// Begins to record `shared:NAME`. The camera is opened by a thread of the recording: this may be called where the
    /// camera's own requests are answered. `file` is a name in the folder; without one there is one of name and time.
    pub fn start(name: &str, options: RecordOptions, file: Option<PathBuf>) -> Result<Recorder> {
        Recorder::start_from(format!("shared:{name}"), name, options, file)
    }

    fn start_from(uri: String, name: &str, options: RecordOptions, file: Option<PathBuf>) -> Result<Recorder> {
        let folder = Folder::open(&options.folder)?;
        let first = folder.create(name, file.as_deref(), options.container.extension())?;
        let stop = Event::new().map_err(|error| Error::system(format!("{name}: recording"), error))?;
        let progress = Mutex::new(Progress { file: first.0.clone(), ..Progress::default() });
        let shared = Arc::new(Shared { queue: Queue::new(QUEUE_BYTES), progress, ended: Condvar::new(), stop });
        let (path, is_named) = (first.0.clone(), file.is_some());
        let writing = Writing::new(shared.clone(), folder, name.to_owned(), options.clone(), first, is_named);
        let spawned = spawn("camlease-disk", move || writing.run()).and_then(|()| {
            let shared = shared.clone();
            spawn("camlease-record", move || read(&shared, &uri, &options))
        });
        if let Err(error) = spawned {
            shared.queue.kill();
            return Err(Error::system(format!("{}: a thread that records", path.display()), error));
        }
        Ok(Recorder { shared })
    }

    /// Ends the recording: what was taken until now is written and the file made whole. Its last state.
    pub fn stop(&self) -> Map<String, Value> {
        self.stop_within(STOP_PATIENCE)
    }

    /// The same, and the disk has so long to take what is left.
    pub fn stop_within(&self, patience: Duration) -> Map<String, Value> {
        self.shared.stop.signal();
        self.shared.queue.close();
        let (mut progress, _) = self
            .shared
            .ended
            .wait_timeout_while(self.shared.progress(), patience, |now| !now.is_written && !now.is_given_up)
            .unwrap_or_else(PoisonError::into_inner);
        if !progress.is_written && !progress.is_given_up {
            // The thread that writes cannot be ended: it ends by itself when the disk answers.
            progress.is_given_up = true;
            let seconds = patience.as_secs_f32();
            let text = format!("{}: the disk did not take the rest within {seconds:.1} s", progress.file.display());
            progress.error.get_or_insert(text);
            self.shared.queue.kill();
        }
        drop(progress);
        self.status()
    }

    /// Whether files are written, or may be.
    pub fn is_on(&self) -> bool {
        self.shared.progress().is_on()
    }

    pub fn status(&self) -> Map<String, Value> {
        let progress = self.shared.progress();
        let Progress { frames, bytes, seconds, thinned, damaged, missed, reason, .. } = *progress;
        // What it waits for is no failure of one that has ended.
        let trouble = progress.trouble.as_ref().filter(|_| progress.is_on());
        let error = progress.error.as_ref().or(trouble);
        let status = json!({
            "on": progress.is_on(), "file": progress.file.to_string_lossy(), "frames": frames, "bytes": bytes,
            "seconds": seconds, "thinned": thinned, "damaged": damaged, "missed": missed, "error": error, "ended": reason,
        });
        match status {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Progress {
    /// One whose disk was given up is over, whatever its disk does yet.
    fn is_on(&self) -> bool {
        !self.is_written && !self.is_given_up
    }
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the recording is to end; waits for that so long.
    fn is_stopped(&self, timeout: Duration) -> bool {
        // SAFETY: the event's descriptor is open as long as the event, which `self` keeps.
        wait([unsafe { BorrowedFd::borrow_raw(self.stop.fd()) }], Some(timeout))[0]
    }
}

/// A thread that the camera's own threads go before, where the processors are busy.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let in_background = move || {
        // A file that may not grow further (RLIMIT_FSIZE) is an error, and not this process's end.
        let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
        // SAFETY: numbers only; 0 is the calling thread.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
        work();
    };
    thread::Builder::new().name(name.into()).spawn(in_background).map(drop)
}

/// Lower than the priority of what takes frames from the driver and passes them on.
const NICE: i32 = 5;

/// Takes frames until the recording ends, and opens the camera again when it is lost.
fn read(shared: &Shared, uri: &str, options: &RecordOptions) {
    /// Also when this thread panics: what is left is written then.
    struct Close<'a>(&'a Shared);
    impl Drop for Close<'_> {
        fn drop(&mut self) {
            self.0.queue.close();
        }
    }
    let _close = Close(shared);
    while let Err(error) = read_once(shared, uri, options) {
        shared.progress().trouble = Some(error.to_string());
        if shared.is_stopped(RETRY) {
            return;
        }
    }
}

/// Ends without an error when the recording does.
fn read_once(shared: &Shared, uri: &str, options: &RecordOptions) -> Result<()> {
    let open = OpenOptions { timeout: Some(OPEN_TIMEOUT), name: "camlease record".into(), ..OpenOptions::default() };
    let camera = Camera::open(uri, open)?;
    let request = StreamRequest { drop_policy: DropPolicy::Newest, buffers: BUFFERS, ..StreamRequest::default() };
    let format = camera.start(&request)?;
    let (mut next, mut failures) = (None, 0);
    loop {
        // SAFETY: the camera and the event keep their descriptors open until they are dropped.
        let fds = unsafe { [BorrowedFd::borrow_raw(shared.stop.fd()), BorrowedFd::borrow_raw(camera.fd()?)] };
        if wait(fds, None)[0] {
            return Ok(());
        }
        let frame = match camera.next_frame(Some(Duration::ZERO)) {
            Ok(frame) => frame,
            Err(error) if error.kind() == Kind::Timeout => continue,
            // A shared camera comes back to those who stay.
            Err(error) if failures < FAILURES_MOST => {
                failures += 1;
                next = None;
                shared.progress().trouble = Some(error.to_string());
                if shared.is_stopped(PAUSE) {
                    return Ok(());
                }
                continue;
            }
            Err(error) => return Err(error),
        };
        failures = 0;
        let missed = next.map_or(0, |next| frame.sequence().saturating_sub(next));
        next = Some(frame.sequence() + 1);
        let picture = Picture::of(&frame, options.container, options.quality, format.rate);
        drop(frame);
        let is_damaged = picture.is_none();
        let offered = picture.map(|picture| shared.queue.offer(picture));
        if offered == Some(Offered::Over) {
            return Ok(());
        }
        let mut progress = shared.progress();
        progress.trouble = None;
        progress.missed += missed;
        progress.damaged += u64::from(is_damaged);
        progress.thinned += u64::from(offered == Some(Offered::Thinned));
    }
}

/// Of an error at a file.
fn failed(path: &Path, error: std::io::Error) -> Error {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => Error::new(Kind::Io, format!("{}: the disk is full", path.display()))
            .hint("make room, or set max_files or min_free"),
        Some(libc::EFBIG) => Error::new(Kind::Io, format!("{}: it may not grow further", path.display()))
            .hint("raise the limit of this process's files (LimitFSIZE, ulimit -f), or set max_bytes"),
        _ => Error::system(format!("{}: writing it", path.display()), error),
    }
}
