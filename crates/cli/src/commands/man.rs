//! `tightrope man`: prints manual pages with the text of `--help`.

use crate::{cli::Cli, exit::Exit, terminal::Terminal};
use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_mangen::Man;

const EXAMPLES: &str = "\
Examples:
  tightrope man | man -l -
  tightrope man train > ~/.local/share/man/man1/tightrope-train.1";

/// Print the manual page of the program or of one command
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Command [default: the program]
    command: Option<String>,
}

pub(crate) fn run(args: Args, terminal: &Terminal) -> Result<Exit> {
    let mut about = Cli::command();
    about.build();
    if let Some(name) = args.command {
        let found = about.find_subcommand(&name);
        about = found
            .with_context(|| format!("there is no command `{name}`; tightrope --help lists them"))?
            .clone();
    }
    let mut page = Vec::new();
    let program = concat!("tightrope ", env!("TIGHTROPE_VERSION"));
    Man::new(about).source(program).render(&mut page)?;
    // Examples keep their lines.
    let page = String::from_utf8(page)?
        .replace(".SH EXTRA\n", ".SH EXAMPLES\n.nf\n")
        .replace("\n.SH VERSION", "\n.fi\n.SH VERSION");
    terminal.write(page.as_bytes())?;
    Ok(Exit::Success)
}
