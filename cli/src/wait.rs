//! `camlease wait`: until a camera could be opened.

use std::time::{Duration, Instant};

use camlease::{Camera, Holders, Kind, OpenOptions};
use serde::Serialize;

use crate::naming;
use crate::output::{Exit, Output, Paint};
use crate::progress;
use crate::telling;

/// For the help.
pub const JSON: &str = r#"JSON: {"camera", "free": true, "waited_ms", "attempts"}"#;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_parser = naming::camera)]
    camera: String,
    /// Give up after this time, with exit code 6; 0 tries once, with exit code 3 when it is busy [default: never]
    #[arg(long, value_name = "TIME", value_parser = naming::time)]
    timeout: Option<Duration>,
    /// Wait for a camera that is not there at all, too
    #[arg(long)]
    plugged: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    camera: &'a str,
    free: bool,
    waited_ms: u128,
    attempts: u64,
}

pub fn run(args: &Args, output: &Output) -> Exit {
    let begun = Instant::now();
    let uri = &args.camera;
    let spinner = progress::spinner(output);
    let mut on_wait = |message: &str, holders: &Holders| {
        spinner.suspend(|| match holders.list.is_empty() {
            true => output.note(message),
            false => {
                output.note(format_args!("{uri}: waiting for"));
                telling::note_holders(output, holders);
            }
        });
        spinner.set_message("waiting, Ctrl+C ends");
    };
    let options = OpenOptions {
        timeout: args.timeout,
        wait_for_device: args.plugged,
        on_wait: Some(&mut on_wait),
        name: "camlease wait".into(),
        ..OpenOptions::default()
    };
    let opened = Camera::open(uri, options);
    spinner.finish_and_clear();
    match opened {
        Ok(camera) => {
            let attempts = camera.stats().open_attempts;
            drop(camera);
            let after = match attempts {
                1 => String::new(),
                _ => format!(", after {}", naming::shown(begun.elapsed())),
            };
            let free = output.paint(Paint::Good, "free");
            output.line(format_args!("{}: {free}{after}", output.paint(Paint::Strong, uri)));
            output.json(&Answer { camera: uri, free: true, waited_ms: begun.elapsed().as_millis(), attempts });
            Exit::OK
        }
        // The library says busy, which a wait knew before: what is new is that the time is up.
        Err(error) if error.kind() == Kind::Busy && args.timeout.is_some_and(|timeout| !timeout.is_zero()) => {
            output.fail(&error.with_kind(Kind::Timeout))
        }
        Err(error) => output.fail(&error),
    }
}
