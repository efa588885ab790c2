//! `camlease doctor`: what on this machine keeps cameras from working.

use crate::output::{Exit, Output};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Cameras to look at; all when none is named
    #[arg(value_name = "CAMERA")]
    pub cameras: Vec<String>,
}

pub fn run(args: &Args, output: &Output) -> Exit {
    let _ = args;
    output.fail_with(Exit::FAILURE, "unsupported", "doctor: not there yet")
}
