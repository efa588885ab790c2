//! The program `tests/c/party.c`: a process that does with a camera what it is told.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Party {
    pub process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// What its callback said.
    pub asked: BufReader<ChildStderr>,
}

impl Party {
    pub fn start() -> Party {
        Party::of(&mut Command::new(super::c_program("party.c", &[])))
    }

    /// One that a command starts, as another user say.
    pub fn of(command: &mut Command) -> Party {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let orders = process.stdin.take().unwrap();
        let answers = BufReader::new(process.stdout.take().unwrap());
        let asked = BufReader::new(process.stderr.take().unwrap());
        Party { process, orders, answers, asked }
    }

    pub fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    /// Gives an order without waiting for what comes of it.
    pub fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// The next answer.
    pub fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn tell(&mut self, order: &str) -> String {
        self.order(order);
        self.answer()
    }

    /// An order that succeeds; what is said with it.
    #[track_caller]
    pub fn ok(&mut self, order: &str) -> String {
        let answer = self.tell(order);
        answer.strip_prefix("OK").unwrap_or_else(|| panic!("{order}: {answer}")).trim().to_owned()
    }

    /// An order that fails with this status; the words.
    #[track_caller]
    pub fn refused(&mut self, order: &str, status: &str) -> String {
        let answer = self.tell(order);
        let words = answer.strip_prefix(status).and_then(|rest| rest.strip_prefix(' '));
        words.unwrap_or_else(|| panic!("{order}: {answer}")).to_owned()
    }

    /// Waits until its camera is another's; the words. Its callback speaks before that, and frames come until then.
    #[track_caller]
    pub fn evicted(&mut self) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let answer = self.tell("frame 0");
            if let Some(words) = answer.strip_prefix("EVICTED ") {
                return words.to_owned();
            }
            assert!(answer.starts_with("OK") || answer.starts_with("TIMEOUT"), "frame 0: {answer}");
            assert!(Instant::now() < deadline, "it has its camera still");
        }
    }

    /// When the order succeeded, of CLOCK_MONOTONIC.
    #[track_caller]
    pub fn when(&mut self, order: &str) -> Duration {
        Duration::from_micros(self.ok(order).parse().unwrap())
    }

    /// A line of its callback.
    pub fn callback(&mut self) -> String {
        let mut line = String::new();
        self.asked.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        self.kill();
    }
}
