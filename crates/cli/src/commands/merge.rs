//! `tightrope merge`: a model with its adapter added, as a folder that Transformers loads.

use crate::{exit::Exit, progress::Bars, signals, subject::Subject, terminal::Terminal};
use anyhow::Result;
use serde_json::json;
use std::path::PathBuf;
use tightrope_train::StopFlag;

const EXAMPLES: &str = "\
Examples:
  tightrope merge my.toml                        into merged/ of its output
  tightrope merge my.toml --to my-model
  tightrope merge --model M --adapter A --to my-model
  tightrope merge --model M.gguf --to my-model   dequantised, as safetensors

An adapter that was trained with lora.quantize = \"nf4\" is added to the weights
of the model's files, not to what NF4 makes of them, as PEFT does with a base in
full precision; a model whose files are in NF4 is dequantised.
The folder must not exist or be empty; it appears whole or not at all.

Next:
  tightrope chat --model my-model
or from_pretrained(\"my-model\") in Python.";

/// Write a model with its adapter added as a Hugging Face folder
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    subject: Subject,

    /// Folder to write [default: merged/ in the output folder of the configuration]
    #[arg(long, value_name = "FOLDER", required_unless_present = "config")]
    to: Option<PathBuf>,
}

pub fn run(args: Args, terminal: &Terminal) -> Result<Exit> {
    let config = args.subject.resolve(Vec::new())?;
    let folder = args.to.unwrap_or_else(|| config.output.join("merged"));
    let threads = terminal.threads();
    signals::stop_on_signal(StopFlag::default(), || ())?;
    tightrope_train::merge(threads, &config, &folder, &Bars::default())?;
    match terminal.json() {
        true => terminal.json_line(&json!({ "folder": folder }))?,
        false => terminal.line(format!("wrote {}", folder.display()))?,
    }
    Ok(Exit::Success)
}
