//! `camlease list`: the cameras of this machine.

use camlease::{Found, State};
use serde::Serialize;

use crate::output::{Exit, Output, Paint};
use crate::telling::{self, CameraJson, FormatJson, HolderJson};

/// For the help.
pub const JSON: &str = r#"JSON: {"cameras": [{"uri", "name", "driver", "serial", "bus", "state": "free"|"open"|"streaming"|"unknown", "formats": [...] or null, "formats_error", "holders": [...]}]}"#;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show every format, size and rate, and not a line for each pixel format
    #[arg(long)]
    formats: bool,
}

#[derive(Serialize)]
struct Listing {
    cameras: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    camera: CameraJson,
    formats: Option<Vec<FormatJson>>,
    formats_error: Option<String>,
    holders: Vec<HolderJson>,
}

pub fn run(args: &Args, output: &Output) -> Exit {
    let found = match camlease::list() {
        Ok(found) => found,
        Err(error) => return output.fail(&error),
    };
    if found.is_empty() {
        output.note("no cameras: nothing under /dev/video* gives pictures, and no virtual camera is held");
    }
    let cameras = found.iter().map(|camera| show(camera, args, output)).collect();
    output.json(&Listing { cameras });
    Exit::OK
}

fn show(found: &Found, args: &Args, output: &Output) -> Entry {
    let identity = &found.identity;
    let state = output.paint(telling::state_paint(found.state), telling::state_name(found.state));
    output.line(format_args!("{}  {state}  {}", output.paint(Paint::Strong, &identity.uri), identity.name));
    let serial = if identity.serial.is_empty() { String::new() } else { format!("serial {}", identity.serial) };
    let facts: Vec<&str> =
        [identity.driver.as_str(), &identity.bus, &serial].into_iter().filter(|fact| !fact.is_empty()).collect();
    if !facts.is_empty() {
        output.line(format_args!("    {}", output.paint(Paint::Faint, facts.join(", "))));
    }
    let holders = match found.state {
        State::Free => Vec::new(),
        _ => camlease::holders(&identity.uri).map(|holders| holders.list).unwrap_or_default(),
    };
    for holder in &holders {
        output.line(format_args!("    held by {holder}"));
    }
    let formats = camlease::formats(&identity.uri);
    match &formats {
        Ok(formats) if args.formats => {
            for format in formats {
                output.line(format_args!("    {}", in_full(format)));
            }
        }
        Ok(formats) => {
            for line in telling::formats_in_short(formats) {
                output.line(format_args!("    {line}"));
            }
        }
        Err(error) => output.line(output.paint(Paint::Faint, format_args!("    formats unknown: {error}"))),
    }
    Entry {
        camera: CameraJson::from(found),
        formats_error: formats.as_ref().err().map(|error| error.message().to_owned()),
        formats: formats.ok().map(|formats| formats.iter().map(FormatJson::from).collect()),
        holders: holders.iter().map(HolderJson::from).collect(),
    }
}

fn in_full(format: &camlease::Format) -> String {
    let side = |(least, most, step): (u32, u32, u32)| match (least == most, step) {
        (true, _) => least.to_string(),
        (_, 0 | 1) => format!("{least}..{most}"),
        _ => format!("{least}..{most}/{step}"),
    };
    let rate = match (format.slowest.is_set(), format.slowest == format.fastest) {
        (false, _) => String::new(),
        (_, true) => format!("  {}", format.fastest),
        _ => format!("  {} to {}", format.slowest, format.fastest),
    };
    format!("{}  {}x{}{rate}  {}", format.fourcc, side(format.width), side(format.height), format.description)
}
