//! The `camlease` command: one module for each subcommand.

mod doctor;
mod list;
mod output;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::{Exit, Output};

/// Who has a camera, getting it back, taking pictures, running a program with it
#[derive(Parser)]
#[command(name = "camlease", version, arg_required_else_help = true)]
struct Cli {
    /// Print JSON instead of words, on one line each
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the cameras of this machine
    List(list::Args),
    /// Look for what keeps cameras from working
    Doctor(doctor::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.json);
    let Exit(code) = match &cli.command {
        Command::List(args) => list::run(args, &output),
        Command::Doctor(args) => doctor::run(args, &output),
    };
    ExitCode::from(code)
}
