//! What the command prints: words for a person or JSON for a program, and the exit code that goes with them.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

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
            print(format_args!("{}\n", harmless(&text.to_string(), self.colour)));
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
            let _ = writeln!(io::stderr(), "{}", harmless(&text.to_string(), self.colour_on_stderr));
        }
    }

    /// Whether standard output may have colours.
    pub fn is_coloured(&self) -> bool {
        self.colour
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
            false => {
                let text = format!("{} {message}", colour(self.colour_on_stderr, Paint::Bad, "camlease:"));
                harmless(&text, self.colour_on_stderr)
            }
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
    note_failure(out.write_all(bytes).and_then(|()| out.flush()));
}

fn print(text: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    note_failure(out.write_fmt(text).and_then(|()| out.flush()));
}

/// Something that was to be printed was not.
static UNPRINTED: AtomicBool = AtomicBool::new(false);

/// The work goes on: a program that was asked to let go is not to be left half way because a disk is full. A reader that
/// has gone (`camlease list | head -1`) is no reason for words; anything else is told, once.
fn note_failure(written: io::Result<()>) {
    let Err(error) = written else { return };
    if !UNPRINTED.swap(true, Ordering::Relaxed) && error.kind() != io::ErrorKind::BrokenPipe {
        let _ = writeln!(io::stderr(), "camlease: standard output: {error}");
    }
}

/// What the command ends with: also a failure where the answer did not get out.
pub fn with_unprinted(exit: Exit) -> Exit {
    exit.and(if is_unprinted() { Exit::FAILURE } else { Exit::OK })
}

/// Whether something could not be printed: who only prints has no more to do then.
pub fn is_unprinted() -> bool {
    UNPRINTED.load(Ordering::Relaxed)
}

/// Names of programs, drivers and devices are shown, which others choose: what would steer a terminal, or turn the
/// direction of text, is taken out. So are ends of lines, which could pretend lines of ours, but for the last ones.
/// Colours stay where there are any: those of ours, none of which hides anything.
pub fn harmless(text: &str, coloured: bool) -> String {
    let (text, end) = text.split_at(text.trim_end_matches('\n').len());
    let mut harmless = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let colour = if coloured { own_colour(rest) } else { None };
        match colour {
            Some(colour) => harmless += colour,
            None if steers(next) => harmless.push('?'),
            None => harmless.push(next),
        }
        rest = &rest[colour.map_or(next.len_utf8(), str::len)..];
    }
    harmless + end
}

fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The colour's beginning or end that a text begins with.
fn own_colour(text: &str) -> Option<&str> {
    if !text.starts_with('\u{1b}') {
        return None;
    }
    let paints = [Paint::Strong, Paint::Faint, Paint::Good, Paint::Warn, Paint::Bad].map(Paint::style);
    let ends = |style: Style| [style.render().to_string(), style.render_reset().to_string()];
    let length = paints.into_iter().flat_map(ends).filter(|own| text.starts_with(own)).map(|own| own.len()).max()?;
    Some(&text[..length])
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
    fn what_others_named_does_not_steer_a_terminal() {
        let hostile = "a\u{1b}[2J\u{1b}[8mb\rc\nd\u{9b}1m\u{202e}e\n";
        assert_eq!(harmless(hostile, true), "a?[2J?[8mb?c?d?1m?e\n");
        let output = Output { json: false, colour: true, colour_on_stderr: false };
        for paint in [Paint::Strong, Paint::Faint, Paint::Good, Paint::Warn, Paint::Bad] {
            let painted = output.paint(paint, "kamera größer");
            assert_eq!(harmless(&painted, true), painted);
            assert!(!harmless(&painted, false).contains('\u{1b}'));
        }
    }

    #[test]
    fn colours_are_only_where_they_are_wanted() {
        let output = Output { json: false, colour: true, colour_on_stderr: false };
        assert_eq!(output.paint(Paint::Good, "free"), "\u{1b}[32mfree\u{1b}[0m");
        assert_eq!(output.paint_note(Paint::Good, "free"), "free");
    }
}
