//! `camlease list`: the cameras of this machine.

use serde::Serialize;

use crate::output::{Exit, Output};

#[derive(Debug, clap::Args)]
pub struct Args {}

#[derive(Serialize)]
struct Entry {
    uri: String,
    name: String,
}

pub fn run(_args: &Args, output: &Output) -> Exit {
    let found = match camlease::list() {
        Ok(found) => found,
        Err(error) => return output.fail(&error),
    };
    for camera in found {
        output.line(format_args!("{}  {}", camera.identity.uri, camera.identity.name));
        output.json(&Entry { uri: camera.identity.uri, name: camera.identity.name });
    }
    Exit::OK
}
