//! `camlease who`: who has a camera.

use serde::Serialize;

use crate::naming;
use crate::output::{Exit, Output, Paint};
use crate::telling::{self, HolderJson};

/// For the help.
pub const JSON: &str = r#"JSON: {"camera", "holders": [{"pid", "uid", "start_time", "activity": "open"|"streaming", "condition": "alive"|"stopped"|"stuck"|"zombie", "command", "lease": {"name", "priority", "since_ns", "streaming", "share"} or null, "other_node", "locks_other_node"}], "unreadable"}"#;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// /dev/video0, 0, usb:VID:PID[:SERIAL], virtual:NAME, ...
    #[arg(value_parser = naming::camera)]
    camera: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    camera: &'a str,
    holders: Vec<HolderJson>,
    unreadable: usize,
}

pub fn run(args: &Args, output: &Output) -> Exit {
    let uri = &args.camera;
    let holders = match camlease::holders(uri) {
        Ok(holders) => holders,
        Err(error) => return output.fail(&error),
    };
    if holders.list.is_empty() {
        if let Err(error) = naming::check_that_it_exists(uri) {
            return output.fail(&error);
        }
        output.line(format_args!("{}: nobody has it", output.paint(Paint::Strong, uri)));
    } else {
        output.line(format_args!("{}:", output.paint(Paint::Strong, uri)));
    }
    for holder in &holders.list {
        output.line(format_args!("  {}", output.paint(Paint::Bad, holder)));
        for line in telling::details(holder) {
            output.line(format_args!("    {line}"));
        }
    }
    if let Some(warning) = telling::incomplete(holders.unreadable) {
        output.note(output.paint_note(Paint::Warn, format_args!("note: {warning}")));
    }
    output.json(&Answer { camera: uri, holders: telling::holders_json(&holders), unreadable: holders.unreadable });
    Exit::OK
}
