//! `camlease release`: cameras got back from programs that keep them. Without a yes, nothing is done.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use camlease::{EvictOptions, Evicted, Holder, Outcome, State};
use serde::Serialize;

use crate::naming;
use crate::output::{Exit, Output, Paint, harmless};
use crate::progress;
use crate::telling::{self, ErrorJson, HolderJson};

/// For the help.
pub const JSON: &str = r#"JSON: {"dry_run", "cameras": [{"camera", "free": true|false|null, "holders": [{... as in "who", "outcome": "none"|"yielded"|"terminated"|"killed"|"refused"|"survived", "reason"}], "error"}]}"#;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The camera to get back
    #[arg(value_parser = naming::camera, conflicts_with = "all")]
    camera: Option<String>,
    /// All cameras that somebody has; the same as naming none, but --auto wants it said
    #[arg(long)]
    all: bool,
    /// Do it without asking
    #[arg(long)]
    auto: bool,
    /// Only show what would be done; so it is without a terminal, and with --json, unless --auto is given
    #[arg(long)]
    dry_run: bool,
    /// How long a holder has to let go: once when it is asked, and once more after SIGTERM, before it is killed
    #[arg(long, value_name = "TIME", value_parser = naming::time, default_value = "2s")]
    grace: Duration,
}

#[derive(Serialize)]
struct Report {
    dry_run: bool,
    cameras: Vec<CameraReport>,
}

#[derive(Serialize)]
struct CameraReport {
    camera: String,
    /// Null where it was not tried.
    free: Option<bool>,
    holders: Vec<EvictedJson>,
    error: Option<ErrorJson>,
}

#[derive(Serialize)]
struct EvictedJson {
    #[serde(flatten)]
    holder: HolderJson,
    outcome: &'static str,
    reason: String,
}

/// What is done once the holders are shown.
#[derive(Clone, Copy, PartialEq)]
enum Then {
    Nothing,
    Ask,
    Evict,
}

pub fn run(args: &Args, output: &Output) -> Exit {
    if args.auto && args.camera.is_none() && !args.all {
        let message = "release --auto without a camera ends every program that has one; name the camera, or say --all";
        return output.fail_with(Exit::USAGE, "usage", message);
    }
    let person = io::stdin().is_terminal() && io::stderr().is_terminal() && !output.is_json();
    let then = match (args.dry_run, args.auto, person) {
        (true, ..) => Then::Nothing,
        (_, true, _) => Then::Evict,
        (.., true) => Then::Ask,
        _ => Then::Nothing,
    };
    let cameras = match &args.camera {
        Some(camera) => vec![camera.clone()],
        None => match held() {
            Ok(cameras) => cameras,
            Err(error) => return output.fail(&error),
        },
    };
    if cameras.is_empty() {
        output.line("nobody has a camera of this machine");
    }
    let mut exit = Exit::OK;
    let mut reports = Vec::new();
    for camera in cameras {
        let (report, its_exit) = release(camera, args, then, output);
        exit = exit.and(its_exit);
        reports.push(report);
    }
    if then == Then::Nothing && !args.dry_run && reports.iter().any(|report| !report.holders.is_empty()) {
        output.note("nothing was done; to do it: camlease release --auto with the camera's name, or with --all");
    }
    output.json(&Report { dry_run: then == Then::Nothing, cameras: reports });
    exit
}

/// The cameras that somebody has, or that cannot be looked at.
fn held() -> camlease::Result<Vec<String>> {
    let held = |found: camlease::Found| (found.state != State::Free).then_some(found.identity.uri);
    Ok(camlease::list()?.into_iter().filter_map(held).collect())
}

fn release(camera: String, args: &Args, then: Then, output: &Output) -> (CameraReport, Exit) {
    let report = |free, holders: &[Evicted], error| CameraReport {
        camera: camera.clone(),
        free,
        holders: holders.iter().map(EvictedJson::from).collect(),
        error,
    };
    let evict = |dry_run, only: Option<&dyn Fn(&Holder) -> bool>| {
        let name = "camlease release".into();
        camlease::evict(&camera, EvictOptions { dry_run, grace: args.grace, name, only, ..EvictOptions::default() })
    };
    let failed =
        |error: camlease::Error| (report(Some(false), &[], Some(ErrorJson::from(&error))), output.fail(&error));
    let plan = match naming::check_that_it_exists(&camera).and_then(|()| evict(true, None)) {
        Ok(plan) => plan,
        Err(error) => return failed(error),
    };
    let name = output.paint(Paint::Strong, &camera);
    if plan.is_empty() {
        output.line(format_args!("{name}: nobody has it"));
        return (report(Some(true), &[], None), Exit::OK);
    }
    output.line(format_args!("{name} is held:"));
    plan.iter().for_each(|entry| show(entry, output));
    match then {
        Then::Nothing => return (report(None, &plan, None), after(&plan)),
        Then::Ask if !yes(&format!("Get {camera} back from {}?", counted(plan.len()))) => {
            output.line(format_args!("{name}: left as it is"));
            return (report(None, &plan, None), Exit::BUSY);
        }
        _ => {}
    }
    let spinner = progress::spinner(output);
    spinner.set_message(harmless(&format!("{camera}: waiting for its holders to let go"), false));
    // A yes is one to the processes that were shown: who came while the person read is not among them.
    let shown = |holder: &Holder| plan.iter().any(|entry| same(&entry.holder, holder));
    let asked = then == Then::Ask;
    let done = evict(false, asked.then_some(&shown as _));
    spinner.finish_and_clear();
    let now = if asked { evict(true, None).unwrap_or_default() } else { Vec::new() };
    let new: Vec<&Holder> = now.iter().map(|entry| &entry.holder).filter(|holder| !shown(holder)).collect();
    match done {
        Ok(done) => {
            done.iter().for_each(|entry| show(entry, output));
            new.iter().for_each(|holder| {
                let words = output.paint(
                    Paint::Bad,
                    "it came meanwhile and is left alone; to get the camera from it, too, call this again",
                );
                output.line(format_args!("  {holder}: {words}"));
            });
            let exit = after(&done).and(if new.is_empty() { Exit::OK } else { Exit::BUSY });
            let state = match exit {
                Exit::OK => output.paint(Paint::Good, "free"),
                _ => output.paint(Paint::Bad, "not free"),
            };
            output.line(format_args!("{name}: {state}"));
            (report(Some(exit == Exit::OK), &done, None), exit)
        }
        Err(error) => failed(error),
    }
}

fn same(one: &Holder, other: &Holder) -> bool {
    (one.pid, one.start_time) == (other.pid, other.start_time)
}

fn counted(holders: usize) -> String {
    if holders == 1 { "this process".into() } else { format!("these {holders} processes") }
}

fn after(entries: &[Evicted]) -> Exit {
    let keeps = |entry: &Evicted| matches!(entry.outcome, Outcome::Refused | Outcome::Survived);
    if entries.iter().any(keeps) { Exit::SURVIVED } else { Exit::OK }
}

fn show(entry: &Evicted, output: &Output) {
    let paint = match entry.outcome {
        Outcome::Refused | Outcome::Survived => Paint::Bad,
        Outcome::None => Paint::Warn,
        _ => Paint::Good,
    };
    let outcome = match entry.outcome {
        Outcome::None => "",
        Outcome::Yielded => "handed it over",
        Outcome::Terminated => "terminated",
        Outcome::Killed => "killed",
        Outcome::Refused => "not to be ended",
        Outcome::Survived => "has it still",
    };
    let words: Vec<&str> = [outcome, entry.reason.as_str()].into_iter().filter(|words| !words.is_empty()).collect();
    let words = if words.is_empty() { "let it go by itself".to_owned() } else { words.join(": ") };
    output.line(format_args!("  {}: {}", entry.holder, output.paint(paint, words)));
}

/// Whether the person types yes. The end of the input is a no.
fn yes(question: &str) -> bool {
    let _ = write!(io::stderr(), "{} [y/N] ", harmless(question, false));
    let mut answer = String::new();
    let _ = io::stdin().lock().read_line(&mut answer);
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

impl From<&Evicted> for EvictedJson {
    fn from(evicted: &Evicted) -> EvictedJson {
        EvictedJson {
            holder: HolderJson::from(&evicted.holder),
            outcome: telling::outcome_name(evicted.outcome),
            reason: evicted.reason.clone(),
        }
    }
}
