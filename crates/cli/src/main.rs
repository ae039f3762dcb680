//! The `tightrope` command: parses arguments, calls the library crates, shows their results.
#![forbid(unsafe_code)]

mod answering;
mod cli;
mod commands;
mod exit;
mod message;
mod painting;
mod paths;
mod progress;
mod report;
mod screen;
mod signals;
mod subject;
mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    signals::survive_large_files();
    // A usage error prints itself and exits with 2; `--help` and `--version` exit with 0.
    exit::code(cli::Cli::of_process().run())
}
