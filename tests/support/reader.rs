//! The program `tests/c/reader.c`: a process that reads a camera in order and tells each frame.
//!
//! The tests of the command use this file, too: nothing here is of one package.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use camlease_rig::picture::sum_of;

/// A frame as its reader saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub sequence: u64,
    pub width: u32,
    pub height: u32,
    pub bytes: usize,
    /// Over all bytes: those who got the same ones say the same.
    pub sum: u64,
    pub corrupt: bool,
}

impl Seen {
    pub fn of(frame: &camlease::Frame) -> Seen {
        let sum = (0..frame.planes()).fold(0, |sum, plane| sum_of(frame.data(plane), sum));
        Seen { sum, ..Seen::without_sum(frame) }
    }

    /// All but what takes time.
    pub fn without_sum(frame: &camlease::Frame) -> Seen {
        Seen {
            sequence: frame.sequence(),
            width: frame.width(),
            height: frame.height(),
            bytes: (0..frame.planes()).map(|plane| frame.data(plane).len()).sum(),
            sum: 0,
            corrupt: frame.is_corrupt(),
        }
    }
}

/// A line of its.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Frame(Seen),
    /// Status and words.
    Failed(String),
    /// The end, and how many frames it missed.
    Closed(u64),
}

/// Dropped, it is killed.
pub struct Reader {
    pub process: Child,
    told: Receiver<String>,
}

impl Reader {
    pub fn start(command: &mut Command) -> Reader {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
        Reader { process, told }
    }

    pub fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    /// What it says next; `None` at its end.
    #[track_caller]
    pub fn next(&mut self, patience: Duration) -> Option<Told> {
        match self.told.recv_timeout(patience) {
            Ok(line) => Some(read(&line).unwrap_or_else(|| panic!("{line}"))),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("it says nothing for {patience:?}"),
        }
    }

    /// The first of what it says that is wanted.
    #[track_caller]
    pub fn until<T>(&mut self, what: &str, patience: Duration, wanted: impl Fn(&Told) -> Option<T>) -> T {
        let deadline = Instant::now() + patience;
        loop {
            let told = self.next(patience).unwrap_or_else(|| panic!("it ended without {what}"));
            if let Some(found) = wanted(&told) {
                return found;
            }
            assert!(Instant::now() < deadline, "no {what} within {patience:?}, but {told:?}");
        }
    }

    #[track_caller]
    pub fn frame(&mut self, patience: Duration) -> Seen {
        self.until("frame", patience, |told| if let Told::Frame(seen) = told { Some(*seen) } else { None })
    }

    /// Has it end in order: the frames that were not looked at, by their numbers, and how many it missed in all.
    #[track_caller]
    pub fn end(mut self, patience: Duration) -> (BTreeMap<u64, Seen>, u64) {
        drop(self.process.stdin.take());
        let mut frames = BTreeMap::new();
        loop {
            match self.next(patience).expect("it says how it ended") {
                Told::Frame(seen) => drop(frames.insert(seen.sequence, seen)),
                // Under emulation a frame may be late; that none is missing is what is told last.
                Told::Failed(words) => assert!(words.starts_with("TIMEOUT"), "{words}"),
                Told::Closed(missed) => return (frames, missed),
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn read(line: &str) -> Option<Told> {
    let (kind, rest) = line.split_once(' ')?;
    match kind {
        "frame" => {
            let numbers: Vec<u64> = rest.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
            let [sequence, width, height, bytes, sum, corrupt] = numbers[..] else { return None };
            let (width, height, bytes) = (width as u32, height as u32, bytes as usize);
            Some(Told::Frame(Seen { sequence, width, height, bytes, sum, corrupt: corrupt != 0 }))
        }
        "failed" => Some(Told::Failed(rest.to_owned())),
        "closed" => Some(Told::Closed(rest.parse().ok()?)),
        _ => None,
    }
}
