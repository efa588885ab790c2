//! `camlease serve`: camera processes, one for each camera of a file, under one supervisor.

pub mod config;

mod channel;
pub mod controls;
mod desk;
mod detached;
mod journal;
mod last_resort;
mod notify;
mod opening;
mod pacing;
mod preview;
mod record;
mod sharing;
mod supervisor;
mod worker;

use std::fs::File;
use std::io::Read;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use camlease::{Error, Kind};
use serde::Serialize;

use crate::output::{Exit, Output, Paint};
use config::{Complaint, Config};

/// For the help.
pub const JSON: &str = r#"Programs open a served camera as shared:NAME, with NAME from its table [camera.NAME] in the file; "camlease ctl" commands it. A camera that is busy or not there is waited for. A camera's process that ends is started again, one that hangs is replaced; programs that read see a gap and no more.

Signals: SIGHUP reads the file again. Controls, preview and recording are changed while the camera goes on; for any other change that one camera's process is started anew; a camera that was told to quit is served again, unless it was the last one: with that the supervisor ends, too, with exit code 0; a file with mistakes changes nothing. SIGTERM and SIGINT stop all in order, with exit code 0; a second SIGINT does not wait.

Log: one line for each event on standard error, "NAME: what"; with --json {"level": "error"|"warning"|"notice"|"info", "camera", "message"}. The service manager is told of READY, RELOADING, STOPPING and WATCHDOG where it asks for that (sd_notify).

JSON of --check: {"config", "ok", "cameras": [name], "complaints": [{"file", "line", "column", "table", "message"}]}"#;

/// Whoever writes more than that by hand has made a mistake.
const FILE_MOST: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file that says which cameras are served, and how
    #[arg(long, value_name = "FILE", default_value = "/etc/camlease/cameras.toml")]
    config: PathBuf,
    /// Only look for mistakes in the file, with exit code 2 where there are some
    #[arg(long)]
    check: bool,
    /// Is one camera's process; for the supervisor
    #[arg(long, hide = true, value_name = "NAME", requires = "channel")]
    worker: Option<String>,
    #[arg(long, hide = true, value_name = "FD")]
    channel: Option<RawFd>,
    #[command(flatten)]
    alone: detached::Args,
}

#[derive(Serialize)]
struct Checked<'a> {
    config: String,
    ok: bool,
    cameras: Vec<&'a str>,
    complaints: &'a [Complaint],
}

pub fn run(args: &Args, output: &Output) -> Exit {
    journal::begin(output.is_json());
    if let (Some(name), Some(channel)) = (&args.worker, args.channel) {
        return worker::run(name, channel);
    }
    if let Some(uri) = &args.alone.detached {
        return detached::run(uri, &args.alone);
    }
    let file = args.config.display().to_string();
    let read = match read(&args.config) {
        Ok(read) => read,
        Err(error) => return output.fail(&error),
    };
    let config = match read {
        Ok(config) => config,
        Err(complaints) => return refuse(output, &file, &complaints),
    };
    if !args.check {
        return supervisor::run(&args.config, config, output.is_json());
    }
    let cameras: Vec<_> = config.cameras.iter().map(|camera| camera.name.as_str()).collect();
    let good = output.paint(Paint::Good, "no mistakes");
    output.line(format_args!("{file}: {good}, {}", cameras.join(", ")));
    output.json(&Checked { config: file, ok: true, cameras, complaints: &[] });
    Exit::OK
}

fn refuse(output: &Output, file: &str, complaints: &[Complaint]) -> Exit {
    if output.is_json() {
        output.json(&Checked { config: file.to_owned(), ok: false, cameras: Vec::new(), complaints });
    } else {
        complaints.iter().for_each(|complaint| output.note(complaint));
    }
    Exit::USAGE
}

/// A file's contents, or what is wrong with them; an error where the file cannot be read.
fn read(path: &Path) -> camlease::Result<Result<Config, Vec<Complaint>>> {
    let file = path.display().to_string();
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|opened| opened.take(FILE_MOST + 1).read_to_end(&mut bytes))
        .map_err(|error| Error::system(&file, error))?;
    if bytes.len() as u64 > FILE_MOST {
        return Err(Error::new(Kind::InvalidArgument, format!("{file}: it has more than {FILE_MOST} bytes")));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Error::new(Kind::InvalidArgument, format!("{file}: it is no text (UTF-8)")))?;
    Ok(config::parse(&text, &file))
}
