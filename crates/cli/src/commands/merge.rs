//! `tightrope merge`: writes a model with its adapter added, as a folder that Transformers loads.

use crate::{exit::Exit, paths, progress::Bars, signals, subject::Subject, terminal::Terminal};
use anyhow::{Result, ensure};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;
use std::path::PathBuf;
use tightrope_report::numbers::counted;
use tightrope_run::{Combination, DType, MergeOptions};
use tightrope_train::StopFlag;

const EXAMPLES: &str = "\
Examples:
  tightrope merge my.toml                        into merged/ of its output
  tightrope merge my.toml --to my-model
  tightrope merge --model M --adapter A --to my-model
  tightrope merge --model M.gguf --to my-model   dequantised, as safetensors
  tightrope merge my.toml --dtype bf16 --overwrite
  tightrope merge --model M --adapter A --adapter B --weights 0.7,0.3 --to both

An adapter that was trained with lora.quantize = \"nf4\" is added to the weights
of the model's files, not to what NF4 makes of them, as PEFT does with a base in
full precision; a model whose files are in NF4 is dequantised, and so is the
base of an adapter that lora.init = \"loftq\" started, which belongs to NF4.
Several adapters become one first: with cat, the change of each weight is the
weighted sum of the changes; linear adds their factors, which is no such sum.
The folder must not exist, or be empty, or be what an earlier merge has written
(its merged.json lists that); it appears whole or not at all.

Next:
  tightrope chat --model my-model
or from_pretrained(\"my-model\") in Python.";

/// Write a model with its adapter added as a Hugging Face folder
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Subject,

    /// Folder to write [default: merged/ in the output folder of the configuration]
    #[arg(long, value_name = "FOLDER", required_unless_present = "config", value_parser = paths::path())]
    to: Option<PathBuf>,

    /// Type of every tensor: f32, bf16 or f16 [default: as in the model's files]
    #[arg(long, value_name = "TYPE", value_parser = PossibleValuesParser::new(["f32", "bf16", "f16"])
        .map(|name| dtype(&name)), hide_possible_values = true)]
    dtype: Option<DType>,

    /// Replace the result of an earlier merge
    #[arg(long)]
    overwrite: bool,

    /// Weight of each adapter, in their order [default: 1 for each]
    #[arg(
        long,
        value_name = "NUMBER,…",
        value_delimiter = ',',
        allow_negative_numbers = true,
        requires = "adapter"
    )]
    weights: Vec<f64>,

    /// How several adapters become one, as in PEFT: cat or linear
    #[arg(long, value_name = "KIND", value_parser = PossibleValuesParser::new(["cat", "linear"])
        .map(|name| combination(&name)), default_value = "cat", hide_possible_values = true)]
    combination: Combination,

    /// Write the one adapter, and not a model with it
    #[arg(long, requires = "adapter", conflicts_with = "dtype")]
    as_adapter: bool,

    /// Add the adapter even to another model than the one that it was trained on
    #[arg(long)]
    any_base: bool,
}

fn dtype(name: &str) -> DType {
    match name {
        "bf16" => DType::BF16,
        "f16" => DType::F16,
        _ => DType::F32,
    }
}

fn combination(name: &str) -> Combination {
    match name {
        "linear" => Combination::Linear,
        _ => Combination::Cat,
    }
}

/// Each adapter with its weight; nothing for one adapter as it is.
fn weighted(
    adapters: Vec<PathBuf>,
    weights: Vec<f64>,
    as_adapter: bool,
) -> Result<Vec<(PathBuf, f64)>> {
    if adapters.len() < 2 && weights.is_empty() && !as_adapter {
        return Ok(Vec::new());
    }
    let weights = match weights.is_empty() {
        true => vec![1.0; adapters.len()],
        false => weights,
    };
    ensure!(
        weights.len() == adapters.len(),
        "{} for {}: give one weight for each --adapter, in their order",
        counted(weights.len() as u64, "weight"),
        counted(adapters.len() as u64, "adapter")
    );
    ensure!(
        weights.iter().all(|weight| weight.is_finite()),
        "--weights: every weight must be a finite number"
    );
    Ok(adapters.into_iter().zip(weights).collect())
}

pub(crate) fn run(args: Args, terminal: &Terminal) -> Result<Exit> {
    let (config, adapters) = args.subject.resolve_with_several()?;
    let folder = args.to.unwrap_or_else(|| config.output.join("merged"));
    let options = MergeOptions {
        threads: terminal.threads(),
        dtype: args.dtype,
        overwrite: args.overwrite,
        any_base: args.any_base,
        adapters: weighted(adapters, args.weights, args.as_adapter)?,
        combination: args.combination,
        as_adapter: args.as_adapter,
    };
    signals::stop_on_signal(StopFlag::default(), || ())?;
    tightrope_run::merge(&config, &folder, &options, &Bars::default())?;
    match terminal.json() {
        true => terminal.json_line(&json!({ "folder": folder }))?,
        false => terminal.line(format!("wrote {}", folder.display()))?,
    }
    Ok(Exit::Success)
}
