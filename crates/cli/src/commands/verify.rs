//! `tightrope verify`: proves on the user's own model and data that packing changes nothing.

use crate::{
    cli::at_least_one,
    exit::{self, Exit},
    progress::Bars,
    subject::ModelAndData,
    terminal::Terminal,
};
use anyhow::Result;
use console::style;
use tightrope_report::{
    numbers::counted,
    table::{Cell, Table},
};
use tightrope_run::Verification;

const EXAMPLES: &str = "\
Examples:
  tightrope verify my.toml
  tightrope verify my.toml --packs 4 --json
  tightrope verify --model M --data chats.jsonl

Packed sequences are compared with the same sequences one by one, each with its
own beginning, and in another order, under the objective of the configuration
(kto and dft by cross-entropy); then one sequence is changed, and nothing of the
others may change, not in a single bit.
Exit code 0 if every check has passed, else 1.";

/// Prove on your own model and data that packing changes nothing
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    subject: ModelAndData,

    /// Number of packs to compare
    #[arg(long, value_name = "N", default_value_t = 2)]
    #[arg(value_parser = at_least_one)]
    packs: usize,
}

pub(crate) fn run(args: Args, terminal: &Terminal) -> Result<Exit> {
    let config = args.subject.resolve()?;
    let bars = Bars::default();
    let result = tightrope_run::verify_config(&config, terminal.threads(), args.packs, &bars)?;
    let said = match terminal.json() {
        true => terminal.json_line(&result),
        false => terminal.line(shown(&result)),
    };
    let exit = match result.passed {
        true => Exit::Success,
        false => Exit::Failed,
    };
    exit::after(exit, said)
}

fn shown(result: &Verification) -> String {
    let headings = ["compared with", "quantity", ">difference", ">allowed", ""];
    let mut table = Table::new(&headings);
    for check in &result.checks {
        let allowed = match check.allowed {
            0.0 => "0 (bit for bit)".to_owned(),
            allowed => format!("{allowed:.0e}"),
        };
        table.row([
            Cell::from(check.compared_with),
            Cell::from(check.quantity),
            Cell::from(format!("{:.1e}", check.difference)),
            Cell::from(allowed),
            match check.passed {
                true => Cell::good("passed"),
                false => Cell::bad("FAILED"),
            },
        ]);
    }
    let verdict = match result.passed {
        true => style("packing changes nothing").green().bold(),
        false => style("packing changes the result: please report this")
            .red()
            .bold(),
    };
    format!(
        "{} of {}, {}\n{table}\n{verdict}",
        counted(result.packs as u64, "pack"),
        counted(result.sequences as u64, "sequence"),
        counted(result.tokens as u64, "token"),
    )
}
