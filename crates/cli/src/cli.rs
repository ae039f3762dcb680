//! The whole command line as data: global options, and one variant for each command.

use crate::{
    commands,
    exit::Exit,
    terminal::{Color, Terminal},
};
use clap::{Parser, Subcommand};
use std::num::NonZeroUsize;

const EXAMPLES: &str = "\
Examples:
  tightrope train                           see it work: a small model learns from nothing
  tightrope train --template > my.toml      a configuration with every key explained
  tightrope inspect my.toml                 the data as the model will see it
  tightrope train my.toml                   train
  tightrope eval my.toml                    measure what was trained
  tightrope generate my.toml --prompt \"…\"  see what it answers
  tightrope merge my.toml                   a folder that Transformers loads

`tightrope COMMAND --help` explains a command with examples.";

/// Fine-tunes large language models without wasting a token.
///
/// Sequences of different lengths are packed tightly into full rows, and every
/// sequence still computes exactly what it would compute alone.
#[derive(Parser)]
#[command(
    name = "tightrope",
    version,
    arg_required_else_help = true,
    after_help = EXAMPLES,
    after_long_help = [EXAMPLES, "\n\n", crate::exit::HELP].concat()
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    global: Global,
}

/// Options of every command.
#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Print JSON for programs instead of tables and bars
    #[arg(long, global = true)]
    json: bool,

    /// Threads to compute with; results do not depend on it [default: one per core]
    #[arg(long, global = true, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// When to color the output; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: Color,
}

#[derive(Subcommand)]
enum Command {
    Train(commands::train::Args),
    Eval(commands::eval::Args),
    Pack(commands::pack::Args),
    Inspect(commands::inspect::Args),
    Generate(commands::generate::Args),
    Merge(commands::merge::Args),
    Verify(commands::verify::Args),
    Completions(commands::completions::Args),
}

impl Cli {
    /// Runs the chosen command.
    pub fn run(self) -> anyhow::Result<Exit> {
        let terminal = Terminal::new(self.global.json, self.global.threads, self.global.color)?;
        match self.command {
            Command::Train(args) => commands::train::run(args, &terminal),
            Command::Eval(args) => commands::eval::run(args, &terminal),
            Command::Pack(args) => commands::pack::run(args, &terminal),
            Command::Inspect(args) => commands::inspect::run(args, &terminal),
            Command::Generate(args) => commands::generate::run(args, &terminal),
            Command::Merge(args) => commands::merge::run(args, &terminal),
            Command::Verify(args) => commands::verify::run(args, &terminal),
            Command::Completions(args) => commands::completions::run(args, &terminal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_declaration_is_consistent() {
        Cli::command().debug_assert();
    }

    /// `--help` teaches: what it is for, and an example of its own.
    #[test]
    fn every_command_shows_an_example() {
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let help = command.clone().render_long_help().to_string();
            assert!(
                help.contains("Example") && help.contains(&format!("tightrope {name}")),
                "tightrope {name} --help has no example:\n{help}"
            );
        }
    }
}
