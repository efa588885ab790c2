//! The `camlease` command: one module for each subcommand, over the library's public interface alone.

#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

mod capture;
mod ctl;
mod doctor;
mod generate;
mod list;
mod naming;
mod output;
mod progress;
mod release;
mod reset;
mod run;
mod serve;
mod signals;
mod telling;
mod terminal;
mod wait;
mod watch;
mod who;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::{Exit, Output};

const EXIT_CODES: &str = "\
Exit codes:
  0    it worked
  1    it did not, for a reason without a number of its own
  2    the command line makes no sense, or the camera's name does not
  3    somebody else has the camera
  4    there is no such camera, or it is gone
  5    no permission
  6    out of time
  7    a holder was not to be ended, or has the camera still
  8    \"doctor\" found a problem or a warning
  130  interrupted (Ctrl+C); other signals likewise, 128 and their number
  \"run\" ends with its command's exit code, 126 when the command cannot be started and 127 when there is none.

A CAMERA is /dev/video0 or another path to a video node, video0, 0, usb:VID:PID[:SERIAL], virtual:NAME or file:PATH.
A TIME is 5, 2.5s, 300ms, 2m or 1h.

With --json, standard output has one JSON value on one line, whose keys stay (\"watch\": one line for each change); an \
error comes on standard error as {\"error\": {\"kind\", \"message\", \"errno\", \"exit_code\"}}.

Colours are used on a terminal only, and not where NO_COLOR is set.";

/// Who has a camera, getting it back, taking pictures, running a program with it
#[derive(Parser)]
#[command(name = "camlease", version, arg_required_else_help = true, after_long_help = EXIT_CODES)]
#[command(after_help = "See exit codes, camera names and JSON with --help, and each command's own --help.")]
struct Cli {
    /// Print JSON instead of words
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the cameras of this machine: who they are, what they offer, whether they are free
    #[command(after_long_help = list::JSON)]
    List(list::Args),
    /// Show who has a camera
    #[command(after_long_help = who::JSON)]
    Who(who::Args),
    /// Wait until a camera could be opened, and show who is waited for
    #[command(after_long_help = wait::JSON)]
    Wait(wait::Args),
    /// Get cameras back from programs that keep them: shows who has them, asks you, then asks and ends those programs
    #[command(after_long_help = release::JSON)]
    Release(release::Args),
    /// Reset a camera that does not answer any more, and wait for its return
    #[command(after_long_help = reset::JSON)]
    Reset(reset::Args),
    /// Take pictures or a clip
    #[command(after_long_help = capture::JSON)]
    Capture(capture::Args),
    /// Run a program when its cameras are free, and again when it fails
    #[command(after_long_help = run::JSON)]
    Run(run::Args),
    /// Look for what keeps cameras from working
    #[command(after_long_help = doctor::JSON)]
    Doctor(doctor::Args),
    /// Watch all cameras: state, holders, since when
    #[command(after_long_help = watch::JSON)]
    Watch(watch::Args),
    /// Serve cameras to many programs at once, each camera by a process of its own
    #[command(after_long_help = serve::JSON)]
    Serve(serve::Args),
    /// Command a shared camera: what it streams, its controls, recordings; or list what is shared
    #[command(after_long_help = ctl::JSON)]
    Ctl(ctl::Args),
    /// Print completions for a shell
    Completions(generate::Completions),
    /// Write the man pages
    #[command(hide = true)]
    Man(generate::Man),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let output = Output::new(cli.json);
    let exit = match &cli.command {
        Command::List(args) => list::run(args, &output),
        Command::Who(args) => who::run(args, &output),
        Command::Wait(args) => wait::run(args, &output),
        Command::Release(args) => release::run(args, &output),
        Command::Reset(args) => reset::run(args, &output),
        Command::Capture(args) => capture::run(args, &output),
        Command::Run(args) => run::run(args, &output),
        Command::Doctor(args) => doctor::run(args, &output),
        Command::Watch(args) => watch::run(args, &output),
        Command::Serve(args) => serve::run(args, &output),
        Command::Ctl(args) => ctl::run(args, &output),
        Command::Completions(args) => generate::completions(args),
        Command::Man(args) => generate::man(args, &output),
    };
    let Exit(code) = output::with_unprinted(exit);
    ExitCode::from(code)
}

/// A command line that clap does not take, or that asks for help.
fn refuse(error: &clap::Error) -> ExitCode {
    let before_a_command = std::env::args_os().skip(1).take_while(|argument| argument != "--");
    if error.use_stderr() && before_a_command.into_iter().any(|argument| argument == "--json") {
        let text = error.to_string();
        let message = text.trim().strip_prefix("error: ").unwrap_or(text.trim());
        return ExitCode::from(Output::new(true).fail_with(Exit::USAGE, "usage", message).0);
    }
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { Exit::USAGE.0 } else { Exit::OK.0 })
}
