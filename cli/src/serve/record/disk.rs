//! A file that grows by whole pieces: one that could not be written is taken away again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

pub struct Disk {
    file: File,
    bytes: u64,
}

impl Disk {
    pub fn new(file: File) -> Disk {
        Disk { file, bytes: 0 }
    }

    pub fn append(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let mut at = self.bytes;
        let written = parts.iter().try_for_each(|part| {
            self.file.write_all_at(part, at)?;
            at += part.len() as u64;
            Ok(())
        });
        match written {
            Ok(()) => self.bytes = at,
            // Where this fails too, players leave out what is torn.
            Err(_) => _ = self.file.set_len(self.bytes),
        }
        written
    }

    /// Replaces what is there already.
    pub fn overwrite(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
