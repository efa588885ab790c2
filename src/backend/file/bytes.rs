//! A file that is read by position, and whose errors name it. Positions and not a cursor: several
//! streams share one open file.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::kernel::Fd;

#[derive(Clone)]
pub struct Bytes {
    file: Arc<Fd>,
    path: Arc<Path>,
}

impl Bytes {
    pub fn open(path: &Path) -> Result<Bytes> {
        let file =
            Fd::open(path, libc::O_RDONLY).map_err(|e| Error::system(format!("opening {}", path.display()), e))?;
        Ok(Bytes { file: Arc::new(file), path: path.into() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asked anew each time: a recording may be cut, or still be written, while it plays.
    pub fn length(&self) -> Result<u64> {
        self.file.as_file().metadata().map(|about| about.len()).map_err(|e| self.failed(e))
    }

    /// Fills `into` from `offset` on.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<()> {
        match self.read_most(offset, into)? {
            read if read == into.len() => Ok(()),
            _ => Err(self.failed(io::Error::new(io::ErrorKind::UnexpectedEof, "the file has become shorter"))),
        }
    }

    /// Fills `into` as far as the file goes.
    fn read_most(&self, offset: u64, into: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.file.as_file().read_at(&mut into[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
        Ok(filled)
    }

    fn failed(&self, cause: io::Error) -> Error {
        Error::system(format!("reading {}", self.path.display()), cause)
    }
}

/// The part of a file around the place that is looked at.
pub struct Window {
    bytes: Bytes,
    start: u64,
    filled: usize,
    buffer: Vec<u8>,
}

impl Window {
    pub fn new(bytes: Bytes, length: usize) -> Window {
        Window { bytes, start: 0, filled: 0, buffer: vec![0; length] }
    }

    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// All that the window has from `offset` on: at least `least` bytes, fewer only where the file ends.
    pub fn at(&mut self, offset: u64, least: usize) -> Result<&[u8]> {
        debug_assert!(least <= self.buffer.len());
        let there = |window: &Window| match offset.checked_sub(window.start) {
            Some(skip) if skip <= window.filled as u64 => Some(skip as usize),
            _ => None,
        };
        let skip = match there(self) {
            Some(skip) if self.filled - skip >= least => skip,
            _ => {
                self.filled = 0;
                self.filled = self.bytes.read_most(offset, &mut self.buffer)?;
                self.start = offset;
                0
            }
        };
        Ok(&self.buffer[skip..self.filled])
    }
}
