//! `tightrope completions`: completion scripts for shells.

use crate::{cli::Cli, exit::Exit, terminal::Terminal};
use clap::CommandFactory;
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  tightrope completions bash \\
      > ~/.local/share/bash-completion/completions/tightrope
  tightrope completions zsh > ~/.zfunc/_tightrope
  tightrope completions fish > ~/.config/fish/completions/tightrope.fish";

/// Print a completion script for a shell
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Shell to complete for
    shell: Shell,
}

pub(crate) fn run(args: Args, terminal: &Terminal) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tightrope", &mut script);
    terminal.write(&script)?;
    Ok(Exit::Success)
}
