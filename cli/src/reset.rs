//! `camlease reset`: a camera that does not answer any more.

use std::time::Duration;

use serde::Serialize;

use crate::naming;
use crate::output::{Exit, Output, Paint};
use crate::progress;

/// For the help.
pub const JSON: &str = r#"JSON: {"camera", "took_ms"}"#;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_parser = naming::camera)]
    camera: String,
    /// How long the camera may take to come back
    #[arg(long, value_name = "TIME", value_parser = naming::time, default_value = "15s")]
    timeout: Duration,
}

#[derive(Serialize)]
struct Answer<'a> {
    camera: &'a str,
    took_ms: u128,
}

pub fn run(args: &Args, output: &Output) -> Exit {
    let spinner = progress::spinner(output);
    spinner.set_message("resetting, then waiting for its return");
    let reset = camlease::reset(&args.camera, Some(args.timeout));
    spinner.finish_and_clear();
    match reset {
        Ok(took) => {
            let (camera, back) = (output.paint(Paint::Strong, &args.camera), output.paint(Paint::Good, "reset"));
            output.line(format_args!("{camera}: {back}, back after {}", naming::shown(took)));
            output.json(&Answer { camera: &args.camera, took_ms: took.as_millis() });
            Exit::OK
        }
        Err(error) => output.fail(&error),
    }
}
