//! Foreign programs that use a camera: `v4l2-ctl` in a process of its own. It proves that a device is free, holds one,
//! and sees faults with eyes that are not ours.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// Without a frame for this long, a stream counts as stuck.
const STUCK: Duration = Duration::from_secs(10);

/// Streams so many frames in another process, which then leaves the device free; what that process said if it could not.
pub fn v4l2_ctl_streams(node: &Path, frames: u32) -> Result<(), String> {
    let mut stream = Stream::start_counted(node, Some(frames), &[]);
    while stream.next_frame(STUCK).is_some() {}
    let end = stream.finish();
    if end.status.success() && end.frames == frames { Ok(()) } else { Err(end.describe()) }
}

/// A frame as `v4l2-ctl --verbose` reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub sequence: u32,
    pub bytes_used: u32,
    /// The buffer came with V4L2_BUF_FLAG_ERROR.
    pub error: bool,
}

/// A `v4l2-ctl` that streams. Dropping it kills it.
pub struct Stream {
    child: Child,
    lines: Receiver<String>,
    frames: u32,
    log: Vec<String>,
}

/// How a stream ended.
#[derive(Debug)]
pub struct End {
    /// 0 even when the camera vanished, of which v4l2-ctl only tells. A signal if it had to be killed.
    pub status: ExitStatus,
    pub frames: u32,
    /// All that the program said, but for its frames.
    pub log: Vec<String>,
}

impl End {
    /// The program gave up, and was not killed for standing still.
    pub fn is_its_own(&self) -> bool {
        self.status.code().is_some()
    }

    fn describe(&self) -> String {
        format!("{} after {} frames: {}", self.status, self.frames, self.log.join("; "))
    }
}

impl Stream {
    /// Starts a stream without an end. It holds the device from its first frame on, for which this waits.
    #[track_caller]
    pub fn start(node: &Path) -> Stream {
        let mut stream = Stream::start_counted(node, None, &[]);
        if stream.next_frame(STUCK).is_none() {
            panic!("{}: no frame: {}", node.display(), stream.finish().describe());
        }
        stream
    }

    /// Starts a stream of `frames` frames, or without an end, with more arguments to v4l2-ctl.
    #[track_caller]
    pub fn start_counted(node: &Path, frames: Option<u32>, arguments: &[&str]) -> Stream {
        let mut command = Command::new("v4l2-ctl");
        command.arg("-d").arg(node).args(["--stream-mmap", "--verbose"]).args(arguments);
        if let Some(frames) = frames {
            command.arg(format!("--stream-count={frames}"));
        }
        // Its report of frames goes to standard error, a line each.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = BufReader::new(child.stderr.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Stream { child, lines, frames: 0, log: Vec::new() }
    }

    /// The next frame; `None` when the program ended or none came in time.
    pub fn next_frame(&mut self, limit: Duration) -> Option<Frame> {
        loop {
            match self.lines.recv_timeout(limit) {
                Ok(line) => match parse(&line) {
                    Some(frame) => {
                        self.frames += 1;
                        return Some(frame);
                    }
                    None => self.log.push(line.trim().to_owned()),
                },
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// The next `count` frames, each expected soon.
    #[track_caller]
    pub fn take(&mut self, count: usize) -> Vec<Frame> {
        (0..count)
            .map(|index| {
                self.next_frame(STUCK).unwrap_or_else(|| panic!("no frame {index} of {count}: {:?}", self.log))
            })
            .collect()
    }

    /// Frames that were reported already, without waiting for more.
    pub fn take_reported(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.next_frame(Duration::ZERO)).collect()
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Ends the program as a crash would, by SIGKILL, and waits for its end.
    pub fn kill(mut self) {
        self.end();
    }

    /// Waits for the program's own end, or kills it if it has none in sight.
    pub fn finish(mut self) -> End {
        while self.next_frame(STUCK).is_some() {}
        let _ = self.child.kill();
        let status = self.child.wait().expect("v4l2-ctl is our child");
        End { status, frames: self.frames, log: std::mem::take(&mut self.log) }
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end();
    }
}

/// `cap dqbuf: 0 seq:      3 bytesused: 460800 ts: 2.786504 delta: 32.118 ms (error, ts-monotonic, ts-src-eof)`; with
/// several planes `bytesused: 230400/230400`.
fn parse(line: &str) -> Option<Frame> {
    let line = line.trim_start_matches('\r').strip_prefix("cap dqbuf:")?;
    let field = |name: &str| line.split_once(name).map(|(_, rest)| rest.trim_start());
    let sequence = field("seq:")?.split_whitespace().next()?.parse().ok()?;
    let bytes_used = field("bytesused:")?.split_whitespace().next()?.split('/').map(|plane| plane.parse::<u32>().ok());
    let flags = line.rsplit_once('(').map_or("", |(_, flags)| flags);
    let error = flags.split([',', ')']).any(|flag| flag.trim() == "error");
    Some(Frame { sequence, bytes_used: bytes_used.sum::<Option<u32>>()?, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_from_the_report() {
        let line = "cap dqbuf: 1 seq:     14 bytesused: 460800 ts: 5.36 delta: 33.621 ms fps: 31.43 (ts-monotonic, ts-src-soe)";
        assert_eq!(parse(line), Some(Frame { sequence: 14, bytes_used: 460_800, error: false }));
        let line = "cap dqbuf: 1 seq:      2 bytesused: 100/20 ts: 5.36 (error, ts-monotonic, ts-src-soe)";
        assert_eq!(parse(line), Some(Frame { sequence: 2, bytes_used: 120, error: true }));
        assert_eq!(parse("\t\tVIDIOC_STREAMON returned 0 (Success)"), None);
    }
}
