//! What the command prints: words for a person or JSON for a program, and the exit code that goes with them.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use camlease::{Error, Kind};
use serde::Serialize;

/// How the command ends. Scripts rely on these numbers: none is ever reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(pub u8);

impl Exit {
    pub const OK: Exit = Exit(0);
    /// It did not work, for a reason that has no number of its own.
    pub const FAILURE: Exit = Exit(1);
    /// The command line makes no sense. clap's own number.
    pub const USAGE: Exit = Exit(2);
    /// Somebody else has the camera.
    pub const BUSY: Exit = Exit(3);
    /// There is no such camera, or it is gone.
    pub const NOT_FOUND: Exit = Exit(4);
    pub const PERMISSION: Exit = Exit(5);
    pub const TIMEOUT: Exit = Exit(6);
    /// A holder was not to be ended, or has the camera still.
    pub const SURVIVED: Exit = Exit(7);
    /// The doctor found something.
    pub const TROUBLE: Exit = Exit(8);

    /// What a failure of the library ends the command with.
    pub fn of(kind: Kind) -> Exit {
        match kind {
            Kind::InvalidArgument | Kind::InvalidHandle => Exit::USAGE,
            Kind::Busy | Kind::Evicted => Exit::BUSY,
            Kind::NotFound | Kind::Disconnected => Exit::NOT_FOUND,
            Kind::Permission => Exit::PERMISSION,
            Kind::Timeout | Kind::Stalled => Exit::TIMEOUT,
            _ => Exit::FAILURE,
        }
    }

    /// The more telling one of two: the first that is a failure.
    pub fn and(self, other: Exit) -> Exit {
        if self == Exit::OK { other } else { self }
    }
}

/// A kind of failure as JSON names it.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::InvalidArgument => "invalid_argument",
        Kind::InvalidHandle => "invalid_handle",
        Kind::NotFound => "not_found",
        Kind::Busy => "busy",
        Kind::Timeout => "timeout",
        Kind::Disconnected => "disconnected",
        Kind::Permission => "permission",
        Kind::Unsupported => "unsupported",
        Kind::WrongState => "wrong_state",
        Kind::Io => "io",
        Kind::NoBandwidth => "no_bandwidth",
        Kind::Budget => "budget",
        Kind::Evicted => "evicted",
        Kind::Forked => "forked",
        Kind::ShutDown => "shut_down",
        Kind::Stalled => "stalled",
        Kind::Closed => "closed",
        Kind::Internal => "internal",
    }
}

/// What a piece of text means, which decides its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    Strong,
    Faint,
    Good,
    Warn,
    Bad,
}

impl Paint {
    fn style(self) -> Style {
        match self {
            Paint::Strong => Style::new().bold(),
            Paint::Faint => Style::new().dimmed(),
            Paint::Good => AnsiColor::Green.on_default(),
            Paint::Warn => AnsiColor::Yellow.on_default(),
            Paint::Bad => AnsiColor::Red.on_default().bold(),
        }
    }
}

/// Where the command prints, and how.
pub struct Output {
    json: bool,
    colour: bool,
    colour_on_stderr: bool,
}

#[derive(Serialize)]
struct Failure<'a> {
    error: FailureBody<'a>,
}

#[derive(Serialize)]
struct FailureBody<'a> {
    kind: &'a str,
    message: &'a str,
    errno: i32,
    exit_code: u8,
}

impl Output {
    pub fn new(json: bool) -> Output {
        // https://no-color.org: set and not empty.
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Output {
            json,
            colour: !json && !plain && io::stdout().is_terminal(),
            colour_on_stderr: !json && !plain && io::stderr().is_terminal(),
        }
    }

    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A line for the person, on standard output; nothing with `--json`.
    pub fn line(&self, text: impl fmt::Display) {
        if !self.json {
            print(format_args!("{text}\n"));
        }
    }

    /// A value for the program, as one line on standard output; nothing without `--json`.
    pub fn json(&self, value: &impl Serialize) {
        if self.json {
            print_json(value);
        }
    }

    /// An event for the program where standard output is another's: on standard error.
    pub fn event_on_stderr(&self, event: &impl Serialize) {
        let _ = writeln!(io::stderr(), "{}", serde_json::to_string(event).unwrap_or_default());
    }

    /// What is going on, for the person alone: on standard error, and not with `--json`.
    pub fn note(&self, text: impl fmt::Display) {
        if !self.json {
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Text for [`Output::line`], coloured where standard output is a terminal that may have colours.
    pub fn paint(&self, paint: Paint, text: impl fmt::Display) -> String {
        colour(self.colour, paint, text)
    }

    /// Text for [`Output::note`].
    pub fn paint_note(&self, paint: Paint, text: impl fmt::Display) -> String {
        colour(self.colour_on_stderr, paint, text)
    }

    /// Reports a failure on standard error; what the command then ends with.
    pub fn fail(&self, error: &Error) -> Exit {
        let exit = Exit::of(error.kind());
        // The library's advice names its own option; here it is this one.
        let message = error.message().replace("(timeout_ms)", "(--timeout)");
        self.fail_as(exit, kind_name(error.kind()), &message, error.errno())
    }

    /// A failure that is not the library's.
    pub fn fail_with(&self, exit: Exit, kind: &str, message: impl fmt::Display) -> Exit {
        self.fail_as(exit, kind, &message.to_string(), 0)
    }

    fn fail_as(&self, exit: Exit, kind: &str, message: &str, errno: i32) -> Exit {
        let text = match self.json {
            true => {
                let error = FailureBody { kind, message, errno, exit_code: exit.0 };
                serde_json::to_string(&Failure { error }).unwrap_or_default()
            }
            false => format!("{} {message}", colour(self.colour_on_stderr, Paint::Bad, "camlease:")),
        };
        let _ = writeln!(io::stderr(), "{text}");
        exit
    }
}

fn colour(on: bool, paint: Paint, text: impl fmt::Display) -> String {
    if !on {
        return text.to_string();
    }
    let style = paint.style();
    format!("{style}{text}{style:#}")
}

/// A value as one line on standard output.
pub fn print_json(value: &impl Serialize) {
    // Maps have text keys here, and nothing else can fail.
    print(format_args!("{}\n", serde_json::to_string(value).unwrap_or_default()));
}

/// Bytes on standard output as they are.
pub fn print_bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    end_without_reader(out.write_all(bytes).and_then(|()| out.flush()));
}

/// A reader that has gone (`camlease list | head -1`) is no reason for a panic.
fn end_without_reader(written: io::Result<()>) {
    if written.is_err() {
        std::process::exit(Exit::FAILURE.0.into());
    }
}

fn print(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    end_without_reader(out.write_fmt(text).and_then(|()| out.flush()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_decides() {
        assert_eq!(Exit::OK.and(Exit::BUSY), Exit::BUSY);
        assert_eq!(Exit::BUSY.and(Exit::TIMEOUT), Exit::BUSY);
        assert_eq!(Exit::BUSY.and(Exit::OK), Exit::BUSY);
    }

    #[test]
    fn colours_are_only_where_they_are_wanted() {
        let output = Output { json: false, colour: true, colour_on_stderr: false };
        assert_eq!(output.paint(Paint::Good, "free"), "\u{1b}[32mfree\u{1b}[0m");
        assert_eq!(output.paint_note(Paint::Good, "free"), "free");
    }
}
