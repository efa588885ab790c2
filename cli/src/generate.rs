//! Shell completions and man pages, out of the command line's own description.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::Cli;
use crate::output::{Exit, Output};

#[derive(Debug, clap::Args)]
pub struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub struct Man {
    /// The folder to write the pages to
    folder: PathBuf,
}

pub fn completions(args: &Completions) -> Exit {
    // Into memory first: clap_complete panics when a pipe has no reader any more.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "camlease", &mut script);
    crate::output::print_bytes(&script);
    Exit::OK
}

pub fn man(args: &Man, output: &Output) -> Exit {
    let written = std::fs::create_dir_all(&args.folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), &args.folder));
    match written {
        Ok(()) => Exit::OK,
        Err(error) => output.fail_with(Exit::FAILURE, "io", format_args!("{}: {error}", args.folder.display())),
    }
}
