//! Cases for `faults.c`: a kernel call that fails, and what has to come of it.

use std::io::Write;
use std::process::{Command, Stdio};

use super::c_program;

/// One failing call.
#[derive(Debug, Clone)]
pub struct Case {
    pub phase: String,
    pub call: String,
    skip: u32,
    count: u32,
    errno: i32,
    /// Without CAMLEASE_.
    pub status: String,
    after: bool,
    called: bool,
    warns: bool,
}

impl Case {
    pub fn new(phase: &str, call: &str, skip: u32, count: u32, errno: i32, status: &str) -> Case {
        let (phase, call, status) = (phase.to_owned(), call.to_owned(), status.to_owned());
        Case { phase, call, skip, count, errno, status, after: false, called: true, warns: false }
    }

    /// The call is made, and its success is hidden.
    pub fn after(self) -> Case {
        Case { after: true, ..self }
    }

    /// The library has no business to make this call here.
    pub fn never_called(self) -> Case {
        Case { called: false, ..self }
    }

    /// The call works all the same, and the log says what does not.
    pub fn warns(self) -> Case {
        Case { warns: true, ..self }
    }

    fn line(&self) -> String {
        let Case { phase, call, skip, count, errno, .. } = self;
        format!("{phase} {call} {skip} {count} {errno}{}", if self.after { " after" } else { "" })
    }

    /// What the program is told: the same, and for how many milliseconds the call may wait. Short where it lasts as long
    /// as that; where the call that is made to fail comes late in a wait, or what is waited for has to come, as long as a
    /// busy machine may need for it.
    fn order(&self) -> String {
        let patience = match (self.phase.as_str(), self.call.as_str()) {
            ("frame", _) if self.status == "TIMEOUT" => 300,
            ("frame", _) => 3000,
            (_, "epoll_create1" | "ppoll") => 5000,
            _ => 150,
        };
        self.line().replacen(' ', &format!(" {patience} "), 1)
    }

    fn name(&self) -> String {
        let errno = std::io::Error::from_raw_os_error(self.errno);
        format!("{} [{errno}]", self.line())
    }

    /// What is wrong with an answer.
    fn complaints(&self, uri: &str, answer: &str) -> Vec<String> {
        let value = |name: &str| -> &str {
            answer.split('\t').find_map(|field| field.strip_prefix(name)?.strip_prefix('=')).unwrap_or("?")
        };
        let number = |name: &str| value(name).parse::<f64>().unwrap_or(f64::NAN);
        let wanted = format!("CAMLEASE_{}", self.status);
        let message = value("message");
        let mut complaints = Vec::new();
        let mut complain = |wrong: bool, what: String| {
            if wrong {
                complaints.push(what);
            }
        };
        complain((number("failed") > 0.0) != self.called, format!("the call failed {} times", value("failed")));
        complain(value("status") != wanted, format!("gave {} instead of {wanted}", value("status")));
        let silent = self.warns && number("warned").is_nan() | (number("warned") == 0.0);
        complain(silent, "nothing in the log".to_owned());
        if self.status != "OK" {
            let errnos = match (self.status.as_str(), self.errno) {
                ("BUSY", errno) => vec![errno, libc::EBUSY], // a lock or a wait that was refused is told as what it means
                ("TIMEOUT", libc::EAGAIN) => vec![0],        // no call failed: nothing came
                (_, errno) => vec![errno],
            };
            let told = errnos.iter().any(|errno| value("errno") == errno.to_string());
            complain(!told, format!("told errno {} instead of {}", value("errno"), self.errno));
            let node = uri.split('?').next().unwrap_or(uri);
            complain(!message.contains(node), format!("the message does not name the camera: {message:?}"));
            let usb = message.contains("USB bus") && self.status != "NO_BANDWIDTH";
            complain(usb, format!("the message speaks of something else: {message:?}"));
        }
        complain(value("again") != "CAMLEASE_OK", format!("the second attempt gave {}", value("again")));
        complain(value("left") != "0,0,0", format!("left descriptors, threads, mappings: {}", value("left")));
        complain(number("next").is_nan(), "no life followed".to_owned());
        complaints
    }
}

/// Kilobytes that all cases of a run may leave in memory: the allocator's own unrest.
const GROWTH: i64 = 512;

/// Runs cases on a camera, in one process after the other as long as they break, and panics with all complaints.
#[track_caller]
pub fn run_cases(uri: &str, cases: &[Case]) {
    let only = std::env::var("CAMLEASE_FAULTS").unwrap_or_default();
    let cases: Vec<&Case> = cases.iter().filter(|case| case.name().contains(&only)).collect();
    let mut complaints = Vec::new();
    let mut slowest = (0.0, String::new());
    let mut at = 0;
    while at < cases.len() {
        let answers = answers(uri, &cases[at..]);
        for answer in answers.lines() {
            if let Some(grown) = answer.strip_prefix("grown=") {
                let grown: i64 = grown.parse().unwrap();
                if grown > GROWTH {
                    complaints.push(format!("{} cases: memory grew by {grown} kB", cases.len()));
                }
                continue;
            }
            let case = cases[at];
            at += 1;
            if !answer.starts_with("status=") {
                complaints.push(format!("{}: {answer}", case.name())); // the process ended with this
                continue;
            }
            let found = case.complaints(uri, answer);
            complaints.extend(found.into_iter().map(|complaint| format!("{}: {complaint}", case.name())));
            let next =
                answer.split('\t').find_map(|field| field.strip_prefix("next=")?.parse::<f64>().ok()).unwrap_or(0.0);
            if next > slowest.0 {
                slowest = (next, case.name());
            }
        }
    }
    println!("{uri}: {} cases; the slowest next life took {:.0} ms, after {}", cases.len(), slowest.0, slowest.1);
    assert!(complaints.is_empty(), "{uri}: {} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

/// What a process says to these cases, until one breaks it.
fn answers(uri: &str, cases: &[&Case]) -> String {
    let interpose = c_program("interpose.c", &["-shared", "-fPIC"]);
    let mut command = Command::new(c_program("faults.c", &[]));
    command.arg(uri).env("LD_PRELOAD", interpose).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let lines: String = cases.iter().map(|case| case.order() + "\n").collect();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || drop(input.write_all(lines.as_bytes()))); // it may end before it reads all
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.code() {
        Some(0) => said,
        Some(3) if said.contains("broken=") => said,
        _ => {
            let words = String::from_utf8_lossy(&output.stderr).replace('\n', " | ");
            format!("{said}ended with {}: {words}\n", output.status)
        }
    }
}
