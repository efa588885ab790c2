//! The simulated USB webcam as a program, for tests in any language. See the rig's README.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::process::ExitCode;

use camlease_rig::simulator::{self, Options, Transfer};

const USAGE: &str = "usage: webcam [--bulk] [--port N] [--serial S] [--fps F] [--size WxH] [--control FIFO]
Plugs a USB webcam into the running kernel (vhci_hcd and uvcvideo must be loaded) and serves it.
Orders come on standard input, whose end unplugs the webcam, or from FIFO; answers go to standard output:
  pause | resume | error-bit [N] | half-frame [N] | packet-errors [N] | stall-probe [N] | stall-commit [N] |
  delay-controls MS | detach | vanish [N] | attach | state | exit";

fn main() -> ExitCode {
    let outcome = parse(std::env::args().skip(1)).and_then(|(options, control)| {
        let orders = open_orders(control.as_deref())?;
        simulator::run(&options, orders).map_err(|error| error.to_string())
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("webcam: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<(Options, Option<String>), String> {
    let mut options = Options::default();
    let mut control = None;
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{argument}: a value is missing\n{USAGE}"));
        let number = |text: &str| text.parse::<u32>().map_err(|_| format!("not a number: {text}"));
        match argument.as_str() {
            "--bulk" => options.transfer = Transfer::Bulk,
            "--port" => options.port = Some(number(&value()?)?),
            "--serial" => options.serial = value()?,
            "--fps" => options.frames_per_second = number(&value()?)?,
            "--size" => {
                let text = value()?;
                let (width, height) = text.split_once('x').ok_or_else(|| format!("not a size: {text}"))?;
                (options.width, options.height) = (number(width)?, number(height)?);
            }
            "--control" => control = Some(value()?),
            _ => return Err(format!("{argument}?\n{USAGE}")),
        }
    }
    Ok((options, control))
}

fn open_orders(control: Option<&str>) -> Result<File, String> {
    match control {
        // For writing too: otherwise the end of the first writer would be the end of all orders.
        Some(path) => OpenOptions::new().read(true).write(true).open(path).map_err(|error| format!("{path}: {error}")),
        None => std::io::stdin().as_fd().try_clone_to_owned().map(File::from).map_err(|error| error.to_string()),
    }
}
