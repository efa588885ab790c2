//! The disk's side of a recording: files, when one is full, and what ends it.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use camlease::Result;

use super::disk::Disk;
use super::folder::Folder;
use super::picture::{Picture, Shape};
use super::queue::Next;
use super::{Container, FLUSH_EVERY, RecordOptions, Shared, failed, matroska, plain};

pub struct Writing {
    shared: Arc<Shared>,
    folder: Folder,
    camera: String,
    options: RecordOptions,
    /// Created at the start, so that a folder that takes none is told at once.
    first: Option<(PathBuf, File)>,
    /// The file's name was given, and so there is only one.
    is_named: bool,
    current: Option<Current>,
    /// In files that are finished.
    done: Total,
}

#[derive(Default, Clone, Copy)]
struct Total {
    frames: u64,
    bytes: u64,
    ns: i64,
}

struct Current {
    path: PathBuf,
    output: Output,
    shape: Shape,
    /// Of the first frame.
    begin_ns: i64,
    /// What is in the file for certain.
    written: Total,
    /// What was put in, and may wait to be written.
    put: Total,
}

enum Output {
    Matroska(matroska::Writer),
    Plain(plain::Writer),
}

/// Why a recording ends.
enum End {
    Stopped,
    Limit(&'static str),
}

impl Writing {
    pub fn new(
        shared: Arc<Shared>,
        folder: Folder,
        camera: String,
        options: RecordOptions,
        first: (PathBuf, File),
        is_named: bool,
    ) -> Writing {
        let (current, done) = (None, Total::default());
        Writing { shared, folder, camera, options, first: Some(first), is_named, current, done }
    }

    pub fn run(mut self) {
        /// Also when this thread panics.
        struct Told(Arc<Shared>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.queue.kill();
                self.0.stop.signal();
                self.0.progress().is_written = true;
                self.0.ended.notify_all();
            }
        }
        let _told = Told(self.shared.clone());
        let ended = self.write();
        // What is in the file already is worth its index, whatever ended it.
        let finished = self.finish();
        if let Some((path, _)) = self.first.take() {
            self.folder.remove(&path);
        }
        let mut progress = self.shared.progress();
        match ended.and_then(|end| finished.map(|()| end)) {
            Ok(End::Stopped) => {}
            Ok(End::Limit(reason)) => progress.reason = Some(reason),
            Err(error) => progress.error = Some(error.to_string()),
        }
    }

    fn write(&mut self) -> Result<End> {
        let mut due = Instant::now() + FLUSH_EVERY;
        loop {
            match self.shared.queue.next(due) {
                Next::Picture(picture) => {
                    if let Some(end) = self.put(&picture)? {
                        return Ok(end);
                    }
                }
                Next::Late => {}
                Next::End => return Ok(End::Stopped),
            }
            if Instant::now() < due {
                continue;
            }
            due = Instant::now() + FLUSH_EVERY;
            self.flush()?;
            if self.folder.free().is_ok_and(|free| free < self.options.min_free) {
                return Ok(End::Limit("min_free: the disk is nearly full"));
            }
        }
    }

    fn put(&mut self, picture: &Picture) -> Result<Option<End>> {
        if let Some(reason) = self.current.as_ref().and_then(|current| current.ends_before(picture, &self.options)) {
            let goes_on = reason == FORMAT || self.options.max_files > 0;
            if self.is_named || !goes_on {
                return Ok(Some(End::Limit(reason)));
            }
            self.finish()?;
        }
        if self.current.is_none() {
            self.begin(picture)?;
        }
        let Some(current) = &mut self.current else { return Ok(None) };
        current.put(picture).map_err(|error| failed(&current.path, error))?;
        Ok(None)
    }

    fn begin(&mut self, picture: &Picture) -> Result<()> {
        let (path, file) = match self.first.take() {
            Some(first) => first,
            None => self.folder.create(&self.camera, None, self.options.container.extension())?,
        };
        let disk = Disk::new(file);
        let output = match self.options.container {
            Container::Matroska => {
                let Shape { width, height, .. } = picture.shape;
                let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
                matroska::Writer::new(disk, &self.camera, width, height, now).map(Output::Matroska)
            }
            Container::Y4m | Container::Raw => {
                let index = Disk::new(self.folder.create_beside(&path)?);
                plain::Writer::new(disk, index, &picture.shape, picture.rate).map(Output::Plain)
            }
        };
        let output = output.map_err(|error| failed(&path, error))?;
        if self.options.max_files > 0 && !self.is_named {
            // A file that cannot be removed is no reason to record nothing: the disk's limit is looked at, too.
            let _ = self.folder.keep(&self.camera, self.options.max_files, &path);
        }
        self.shared.progress().file = path.clone();
        let (shape, begin_ns) = (picture.shape.clone(), picture.timestamp_ns);
        self.current =
            Some(Current { path, output, shape, begin_ns, written: Total::default(), put: Total::default() });
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(current) = &mut self.current {
            let flushed = current.flush();
            flushed.map_err(|error| failed(&current.path, error))?;
        }
        self.tell();
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        let Some(mut current) = self.current.take() else { return Ok(()) };
        let flushed = current.flush();
        let bytes = match current.output {
            Output::Matroska(writer) => writer.finish(),
            Output::Plain(writer) => writer.finish(),
        };
        let total = current.written;
        self.done.frames += total.frames;
        self.done.ns += total.ns;
        self.done.bytes += *bytes.as_ref().unwrap_or(&total.bytes);
        self.tell();
        flushed.and(bytes.map(drop)).map_err(|error| failed(&current.path, error))
    }

    fn tell(&self) {
        let now = self.current.as_ref().map_or(Total::default(), |current| current.written);
        let mut progress = self.shared.progress();
        progress.frames = self.done.frames + now.frames;
        progress.bytes = self.done.bytes + now.bytes;
        progress.seconds = (self.done.ns + now.ns) as f64 / 1e9;
    }
}

/// One file has one size and one pixel format.
const FORMAT: &str = "the camera's format changed";

impl Current {
    /// Why this picture does not go into the file any more.
    fn ends_before(&self, picture: &Picture, options: &RecordOptions) -> Option<&'static str> {
        if self.shape != picture.shape {
            return Some(FORMAT);
        }
        let RecordOptions { max_bytes, max_seconds, .. } = *options;
        if max_seconds > 0 && (picture.timestamp_ns - self.begin_ns) / 1_000_000_000 >= max_seconds as i64 {
            return Some("max_seconds");
        }
        (max_bytes > 0 && self.output.bytes() + picture.bytes.len() as u64 > max_bytes).then_some("max_bytes")
    }

    fn put(&mut self, picture: &Picture) -> io::Result<()> {
        match &mut self.output {
            Output::Matroska(writer) => writer.put(&picture.bytes, picture.timestamp_ns)?,
            Output::Plain(writer) => writer.put(picture)?,
        }
        self.put.frames += 1;
        self.put.ns = self.put.ns.max(picture.timestamp_ns - self.begin_ns);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.output {
            Output::Matroska(writer) => writer.flush()?,
            Output::Plain(writer) => writer.flush()?,
        }
        self.written = Total { bytes: self.output.bytes(), ..self.put };
        Ok(())
    }
}

impl Output {
    fn bytes(&self) -> u64 {
        match self {
            Output::Matroska(writer) => writer.bytes(),
            Output::Plain(writer) => writer.bytes(),
        }
    }
}
