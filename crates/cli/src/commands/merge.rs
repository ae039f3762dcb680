//! `tightrope merge`: writes a model with its adapter added, as a folder that Transformers loads.

use crate::{exit::Exit, paths, progress::Bars, signals, subject::Subject, terminal::Terminal};
use anyhow::Result;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::json;
use std::path::PathBuf;
use tightrope_run::{DType, MergeOptions};
use tightrope_train::StopFlag;

const EXAMPLES: &str = "\
Examples:
  tightrope merge my.toml                        into merged/ of its output
  tightrope merge my.toml --to my-model
  tightrope merge --model M --adapter A --to my-model
  tightrope merge --model M.gguf --to my-model   dequantised, as safetensors
  tightrope merge my.toml --dtype bf16 --overwrite

An adapter that was trained with lora.quantize = \"nf4\" is added to the weights
of the model's files, not to what NF4 makes of them, as PEFT does with a base in
full precision; a model whose files are in NF4 is dequantised.
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

pub(crate) fn run(args: Args, terminal: &Terminal) -> Result<Exit> {
    let config = args.subject.resolve(Vec::new())?;
    let folder = args.to.unwrap_or_else(|| config.output.join("merged"));
    let options = MergeOptions {
        threads: terminal.threads(),
        dtype: args.dtype,
        overwrite: args.overwrite,
        any_base: args.any_base,
    };
    signals::stop_on_signal(StopFlag::default(), || ())?;
    tightrope_run::merge(&config, &folder, &options, &Bars::default())?;
    match terminal.json() {
        true => terminal.json_line(&json!({ "folder": folder }))?,
        false => terminal.line(format!("wrote {}", folder.display()))?,
    }
    Ok(Exit::Success)
}
