//! The whole command line as data: global options, and one variant for each command.

use crate::{
    commands,
    exit::Exit,
    terminal::{Color, Terminal},
};
use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand,
    builder::StyledStr,
    error::{ContextKind, ContextValue, ErrorKind},
};
use tightrope_train::config::{KEYS, Key};

const EXAMPLES: &str = "\
Examples:
  tightrope train                        a small model learns from nothing
  tightrope train --template > my.toml   a configuration, every key explained
  tightrope inspect my.toml              the data as the model will see it
  tightrope plan my.toml                 memory and time that it will need
  tightrope train my.toml                train
  tightrope eval my.toml                 measure what was trained
  tightrope chat my.toml                 talk with it
  tightrope merge my.toml                a folder that Transformers loads
  tightrope export my.toml --type q8_0   a file for llama.cpp and Ollama

`tightrope COMMAND --help` explains a command with examples.";

/// Fine-tunes large language models without wasting a token.
///
/// Sequences of different lengths are packed tightly into full rows, and every
/// sequence still computes exactly what it would compute alone.
#[derive(Parser)]
#[command(
    name = "tightrope",
    version = env!("TIGHTROPE_VERSION"),
    arg_required_else_help = true,
    after_help = EXAMPLES,
    after_long_help = [EXAMPLES, "\n\n", crate::exit::HELP].concat()
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    global: Global,
}

/// Reads a number of things of which there must be some.
pub(crate) fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| "must be a whole number of at least 1".to_owned())
}

/// Options of every command.
#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Print JSON for programs instead of tables and bars
    #[arg(long, global = true)]
    json: bool,

    /// Threads to compute with; results do not depend on it [default: one per core]
    #[arg(long, global = true, value_name = "N", value_parser = at_least_one)]
    threads: Option<usize>,

    /// When to color the output; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: Color,
}

#[derive(Subcommand)]
enum Command {
    Train(commands::train::Args),
    Eval(commands::eval::Args),
    Pack(commands::pack::Args),
    Plan(commands::plan::Args),
    Inspect(commands::inspect::Args),
    Generate(commands::generate::Args),
    Chat(commands::chat::Args),
    Merge(commands::merge::Args),
    Export(commands::export::Args),
    Verify(commands::verify::Args),
    Completions(commands::completions::Args),
    Man(commands::man::Args),
}

impl Cli {
    /// Parses the arguments of the process; help and wrong usage end it.
    pub(crate) fn of_process() -> Self {
        let matches = with_examples_as_written(Cli::command()).try_get_matches();
        let matches = matches.unwrap_or_else(|error| with_the_key(error).exit());
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Runs the chosen command.
    pub(crate) fn run(self) -> anyhow::Result<Exit> {
        let terminal = Terminal::new(self.global.json, self.global.threads, self.global.color)?;
        match self.command {
            Command::Train(args) => commands::train::run(args, &terminal),
            Command::Eval(args) => commands::eval::run(args, &terminal),
            Command::Pack(args) => commands::pack::run(args, &terminal),
            Command::Plan(args) => commands::plan::run(args, &terminal),
            Command::Inspect(args) => commands::inspect::run(args, &terminal),
            Command::Generate(args) => commands::generate::run(args, &terminal),
            Command::Chat(args) => commands::chat::run(args, &terminal),
            Command::Merge(args) => commands::merge::run(args, &terminal),
            Command::Export(args) => commands::export::run(args, &terminal),
            Command::Verify(args) => commands::verify::run(args, &terminal),
            Command::Completions(args) => commands::completions::run(args, &terminal),
            Command::Man(args) => commands::man::run(args, &terminal),
        }
    }
}

/// Explains an option that does not exist but may be a key of the configuration; clap would suggest
/// a value after `--`, which is never right.
fn with_the_key(mut error: clap::Error) -> clap::Error {
    let option = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(option)) if error.kind() == ErrorKind::UnknownArgument => {
            option.trim_start_matches('-').replace('-', "_")
        }
        _ => return error,
    };
    error.remove(ContextKind::Suggested);
    let is_meant =
        |key: &&Key| key.name == option || (key.path() == "data.train" && option == "data");
    let keys = KEYS.iter().filter(is_meant);
    let keys = keys.chain(Key::named_elsewhere(&option));
    let tips = keys.map(|key| {
        let path = key.path();
        format!(
            "a key of the configuration: `{path}` in the file, or `--set {path}=VALUE` after it"
        )
    });
    let tips: Vec<StyledStr> = tips.map(StyledStr::from).collect();
    if !tips.is_empty() {
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(tips));
    }
    error
}

/// Commands whose help ends in examples line by line: clap would rewrap its last paragraphs.
fn with_examples_as_written(command: clap::Command) -> clap::Command {
    let commands = command.mut_subcommands(|command| {
        let examples = command.get_after_help().map(ToString::to_string);
        let examples = examples.map_or_else(String::new, |examples| format!("\n\n{examples}"));
        command.help_template(format!("{HELP_TEMPLATE}{examples}"))
    });
    commands.help_template(format!(
        "{HELP_TEMPLATE}\n\n{EXAMPLES}\n\n{}",
        crate::exit::HELP
    ))
}

/// Clap's own template, without its end.
const HELP_TEMPLATE: &str = "{about-with-newline}\n{usage-heading} {usage}\n\n{all-args}";

#[cfg(test)]
mod documents;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declaration_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_ends_the_help_fits_a_terminal() {
        for text in [EXAMPLES, crate::exit::HELP] {
            let wide = text.lines().find(|line| line.chars().count() > 80);
            assert_eq!(wide, None);
        }
    }

    /// Checks that `--help` explains the purpose and has an example.
    #[test]
    fn every_command_shows_an_example() {
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            let help = command.clone().render_long_help().to_string();
            let after = command.get_after_help().unwrap().to_string();
            let narrow = after.lines().all(|line| line.chars().count() <= 80);
            assert!(narrow, "wider than 80 columns:\n{after}");
            assert!(
                help.contains("Example") && help.contains(&format!("tightrope {name}")),
                "tightrope {name} --help has no example:\n{help}"
            );
        }
    }
}
