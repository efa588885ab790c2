//! `camlease watch`: all cameras, as they are now.

use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant, SystemTime};

use camlease::{Activity, Found, Holder, Holders, State};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, raise};
use serde::Serialize;

use crate::naming;
use crate::output::{Exit, Output, Paint, harmless};
use crate::signals::{Signals, wait};
use crate::telling::{self, CameraJson, HolderJson};
use crate::terminal::View;

/// For the help.
pub const JSON: &str = r#"With --json, or where standard output is no terminal, one JSON line for each camera at the beginning and at each change: {"time_ms", "change": "found"|"state"|"holders"|"gone", "uri", "name", "driver", "serial", "bus", "state", "holders": [... as in "who"]}; time_ms counts from 1970."#;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// How often to look
    #[arg(long, value_name = "TIME", value_parser = naming::time, default_value = "1s")]
    interval: Duration,
}

/// A camera as it was seen last.
struct Seen {
    found: Found,
    holders: Vec<Holder>,
    /// When it was first seen in this state, and whether that was when the watch began.
    since: Instant,
    from_the_start: bool,
}

#[derive(Serialize)]
struct Change<'a> {
    time_ms: u128,
    change: &'static str,
    #[serde(flatten)]
    camera: CameraJson,
    holders: &'a [HolderJson],
}

pub fn run(args: &Args, output: &Output) -> Exit {
    // Zero would keep a processor busy.
    let interval = args.interval.max(Duration::from_millis(50));
    let looked = match output.is_json() || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        true => print_changes(interval),
        false => show(interval, output),
    };
    match looked {
        Ok(exit) => exit,
        Err(error) => output.fail(&error),
    }
}

/// All cameras with their holders. A camera that somebody merely has open costs a look through /proc.
fn look() -> camlease::Result<Vec<(Found, Vec<Holder>)>> {
    let with_holders = |found: Found| {
        let holders = match found.state {
            State::Free => Holders::default(),
            _ => camlease::holders(&found.identity.uri).unwrap_or_default(),
        };
        (found, holders.list)
    };
    Ok(camlease::list()?.into_iter().map(with_holders).collect())
}

/// Who has it and how, without what changes by itself.
fn who(holders: &[Holder]) -> Vec<(i32, u64, Activity)> {
    holders.iter().map(|holder| (holder.pid, holder.start_time, holder.activity)).collect()
}

/// What is new at each camera, in the order of the list; those that are gone come last.
fn compare(
    seen: &mut Vec<Seen>,
    now: Vec<(Found, Vec<Holder>)>,
    first: bool,
) -> Vec<(&'static str, Found, Vec<Holder>)> {
    let mut changes = Vec::new();
    let mut current = Vec::new();
    for (found, holders) in now {
        let before = seen.iter().position(|camera| camera.found.identity.uri == found.identity.uri);
        let before = before.map(|at| seen.remove(at));
        let change = match &before {
            None => Some("found"),
            Some(before) if before.found.state != found.state => Some("state"),
            Some(before) if who(&before.holders) != who(&holders) => Some("holders"),
            Some(_) => None,
        };
        changes.extend(change.map(|change| (change, found.clone(), holders.clone())));
        let (since, from_the_start) = match before {
            Some(before) if change.is_none() => (before.since, before.from_the_start),
            _ => (Instant::now(), first),
        };
        current.push(Seen { found, holders, since, from_the_start });
    }
    let gone = std::mem::replace(seen, current);
    changes.extend(gone.into_iter().map(|camera| ("gone", camera.found, Vec::new())));
    changes
}

fn print_changes(interval: Duration) -> camlease::Result<Exit> {
    let mut seen = Vec::new();
    let mut first = true;
    loop {
        for (change, found, holders) in compare(&mut seen, look()?, first) {
            let time_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_millis());
            let holders: Vec<HolderJson> = holders.iter().map(HolderJson::from).collect();
            let mut camera = CameraJson::from(&found);
            if change == "gone" {
                camera.state = "unknown";
            }
            crate::output::print_json(&Change { time_ms, change, camera, holders: &holders });
        }
        first = false;
        // A reader that has gone is seen without writing, which a quiet machine would never do.
        if crate::output::is_unprinted() || loses_reader(interval) {
            return Ok(Exit::FAILURE);
        }
    }
}

/// Waits so long; whether standard output's reader has gone by then.
fn loses_reader(time: Duration) -> bool {
    let until = Instant::now() + time;
    let stdout = io::stdout();
    loop {
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
        // No event is asked for: an error is told all the same.
        let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Err(Errno::EINTR) => {}
            Ok(0) | Err(_) => return false,
            Ok(_) => return true,
        }
    }
}

fn show(interval: Duration, output: &Output) -> camlease::Result<Exit> {
    let fail = |what: &'static str| move |error: io::Error| camlease::Error::system(what, error);
    let ending = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
    let signals = Signals::take(&[&ending[..], &[Signal::SIGTSTP, Signal::SIGWINCH]].concat())
        .map_err(fail("watch: signalfd"))?;
    let mut view = Some(View::enter().map_err(fail("watch: the terminal"))?);
    let (mut seen, mut first) = (Vec::new(), true);
    let mut due = Instant::now();
    loop {
        if Instant::now() >= due {
            compare(&mut seen, look()?, first);
            first = false;
            due = Instant::now() + interval;
        }
        if let Some(view) = &view {
            view.show(&lines(&seen, output)).map_err(fail("watch: the terminal"))?;
        }
        let stdin = io::stdin();
        let left = due.saturating_duration_since(Instant::now());
        let [key, _] = wait([stdin.as_fd(), signals.as_fd()], Some(left));
        if key && ends_it() {
            return Ok(Exit::OK);
        }
        while let Some(received) = signals.next() {
            match received.signal {
                Signal::SIGWINCH => {}
                Signal::SIGTSTP => {
                    // Ctrl+Z: the shell gets its terminal as it was, and we take it anew afterwards.
                    drop(view.take());
                    let _ = raise(Signal::SIGSTOP);
                    view = Some(View::enter().map_err(fail("watch: the terminal"))?);
                }
                signal => return Ok(Exit(128 + signal as u8)),
            }
        }
    }
}

/// Whether the keys that were pressed ask for the end; so does a terminal that is gone.
fn ends_it() -> bool {
    let mut keys = [0; 64];
    match io::stdin().read(&mut keys) {
        Ok(0) | Err(_) => true,
        Ok(count) => keys[..count].iter().any(|key| b"qQ\x04".contains(key)),
    }
}

fn lines(seen: &[Seen], output: &Output) -> Vec<String> {
    let mut lines = vec![
        format!("{}  {}", output.paint(Paint::Strong, "Cameras"), output.paint(Paint::Faint, "q or Ctrl+C ends")),
        String::new(),
    ];
    if seen.is_empty() {
        lines.push("none: nothing under /dev/video* gives pictures, and no virtual camera is held".into());
    }
    let width = seen.iter().map(|camera| camera.found.identity.uri.chars().count()).max().unwrap_or(0);
    for camera in seen {
        let (identity, state) = (&camera.found.identity, camera.found.state);
        let word = output.paint(telling::state_paint(state), format_args!("{:9}", telling::state_name(state)));
        let uri = output.paint(Paint::Strong, format_args!("{:width$}", identity.uri));
        let since = naming::shown_whole(camera.since.elapsed());
        let at_least = if camera.from_the_start { "at least " } else { "" };
        lines.push(format!(
            "{uri}  {word}  {}  {}",
            identity.name,
            output.paint(Paint::Faint, format!("for {at_least}{since}"))
        ));
        for holder in &camera.holders {
            let since = telling::held_for(holder).map(|time| format!(", for {}", naming::shown_whole(time)));
            lines.push(format!("{:width$}  {holder}{}", "", since.unwrap_or_default()));
        }
    }
    lines.iter().map(|line| harmless(line, output.is_coloured())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use camlease::Identity;

    #[test]
    fn only_changes_are_told() {
        let camera = |state| {
            let identity = Identity { uri: "/dev/video0".into(), ..Identity::default() };
            vec![(Found { identity, state }, Vec::new())]
        };
        let mut seen = Vec::new();
        let mut changes =
            |now| -> Vec<_> { compare(&mut seen, now, false).into_iter().map(|change| change.0).collect() };
        assert_eq!(changes(camera(State::Free)), ["found"]);
        assert_eq!(changes(camera(State::Free)), [""; 0]);
        assert_eq!(changes(camera(State::Streaming)), ["state"]);
        assert_eq!(changes(Vec::new()), ["gone"]);
        assert_eq!(changes(Vec::new()), [""; 0]);
    }
}
