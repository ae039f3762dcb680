//! `tightrope eval`: measures loss and perplexity of a model on data.

use crate::{exit::Exit, paths, progress::Bars, report, subject::Subject, terminal::Terminal};
use anyhow::{Result, ensure};
use console::style;
use std::path::PathBuf;
use tightrope_data::{Preflight, Progress};
use tightrope_report::numbers::grouped;
use tightrope_train::{Evaluation, Observer, config::SetSection};

const EXAMPLES: &str = "\
Examples:
  tightrope eval my.toml                 what the run has trained, on data.eval
  tightrope eval my.toml --base          the model as it was before
  tightrope eval --model M --data test.jsonl
  tightrope eval --model M --adapter A --data test.jsonl --limit 100
  tightrope eval --model M --data book.jsonl --format text

The loss is the mean over trained tokens; --train-on chooses them.";

/// Measure loss and perplexity of a model on data
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Subject,

    /// File to evaluate on, instead of data.eval (repeatable)
    #[arg(long, value_name = "FILE", required_unless_present = "config", value_parser = paths::path())]
    data: Vec<PathBuf>,

    /// Layout of the records: auto, alpaca, chat, completion, preference, labelled, text, tokens
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,

    /// Tokens that count for the loss: completion, assistant, all
    #[arg(long, value_name = "WHICH")]
    train_on: Option<String>,

    /// Evaluate only the first N sequences
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

pub(crate) fn run(args: Args, terminal: &Terminal) -> Result<Exit> {
    let format = args.format.map(|format| format!("data.format={format}"));
    let train_on = args.train_on.map(|which| format!("data.train_on={which}"));
    let mut config = args
        .subject
        .resolve(format.into_iter().chain(train_on).collect())?;
    if !args.data.is_empty() {
        config.data.eval = SetSection::of(args.data);
        config.data.eval_ratio = 0.0;
    }
    let data = &config.data;
    ensure!(
        !data.eval.is_empty() || data.eval_ratio > 0.0,
        "there is nothing to evaluate on: set data.eval or data.eval_ratio in the configuration, or \
         name a file with --data"
    );
    let shown = Shown {
        bars: Bars::default(),
        terminal,
    };
    let limit = args
        .limit
        .map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let evaluation = tightrope_run::evaluate_config(&config, terminal.threads(), limit, &shown)?;
    if terminal.json() {
        terminal.json_line(&evaluation)?;
    } else {
        terminal.line(shown_as("Evaluation", &evaluation))?;
        for (name, evaluation) in &evaluation.sets {
            terminal.line(shown_as(name, evaluation))?;
        }
    }
    Ok(Exit::Success)
}

fn shown_as(heading: &str, evaluation: &Evaluation) -> String {
    format!(
        "{}\n  loss            {:.4}\n{}  tokens          {}, of which {} are predicted",
        style(heading).bold(),
        evaluation.loss,
        meaning(evaluation),
        grouped(evaluation.tokens),
        grouped(evaluation.trained_tokens),
    )
}

/// Lines about what the loss means.
fn meaning(evaluation: &Evaluation) -> String {
    let line = |name: &str, value: f64| format!("  {name:<16}{value:.3}\n");
    let rewards = &evaluation.rewards;
    let values = [
        ("accuracy", rewards.rewards_accuracy),
        ("margin", rewards.rewards_margin),
        ("reward, better", rewards.rewards_chosen),
        ("reward, worse", rewards.rewards_rejected),
        ("divergence", rewards.kl),
        ("perplexity", evaluation.perplexity),
    ];
    let known = values
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    known.map(|(name, value)| line(name, value)).collect()
}

/// Shows bars, and the facts about the data: rows that were cut or left out do not count for the
/// loss.
struct Shown<'a> {
    bars: Bars,
    terminal: &'a Terminal,
}

impl Progress for Shown<'_> {
    fn start(&self, what: &str, total: Option<u64>) {
        self.bars.start(what, total);
    }
    fn advance(&self, n: u64) {
        self.bars.advance(n);
    }
    fn finish(&self) {
        self.bars.finish();
    }
}

impl Observer for Shown<'_> {
    fn loaded(&self, _paths: &[PathBuf], preflight: &Preflight) {
        if !self.terminal.json() {
            // An output error shows when the result is written.
            drop(self.terminal.line(report::preflight(preflight)));
        }
    }
    fn notice(&self, text: &str) {
        self.bars.notice(text);
    }
}
