//! `tightrope export`: writes a model, or an adapter, as a file for other programs.

use crate::{exit::Exit, paths, progress::Bars, signals, subject::Subject, terminal::Terminal};
use anyhow::Result;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::path::PathBuf;
use tightrope_report::numbers::bytes;
use tightrope_run::{ExportOptions, FORMATS, Format};
use tightrope_train::StopFlag;

const EXAMPLES: &str = "\
Examples:
  tightrope export my.toml                       f16, into the output folder
  tightrope export my.toml --type q4_k_m --to my-model.gguf
  tightrope export --model M --type q8_0 --to m.gguf
  tightrope export --model M --adapter A --to both.gguf
  tightrope export my.toml --adapter-only        for llama.cpp's --lora
  tightrope export my.toml --type bf16 --overwrite

Types of gguf: f32, f16 and bf16; q8_0 and q4_0; q6_k, q5_k_m and q4_k_m, which
keep what matters most in more bits, as llama.cpp does. An adapter alone is f32,
f16, bf16 or q8_0, and must be plain LoRA.
A Modelfile for Ollama is written beside the file. Both appear whole or not at
all, and only what an earlier export has written is replaced.

Next:
  llama-cli -m my-model.gguf
  ollama create my-model -f my-model.Modelfile";

/// Write a model with its adapter added, or an adapter, for llama.cpp and Ollama
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Subject,

    /// Format of the file: gguf
    #[arg(long, value_name = "FORMAT", value_parser = PossibleValuesParser::new(FORMATS.map(|f| f.name))
        .map(|name| format(&name)), default_value = FORMATS[0].name, hide_possible_values = true)]
    format: &'static Format,

    /// Type of its tensors [default: f16]
    #[arg(long = "type", value_name = "TYPE")]
    file_type: Option<String>,

    /// File to write [default: model-TYPE.gguf or adapter-TYPE.gguf in the output folder of the
    /// configuration]
    #[arg(long, value_name = "FILE", required_unless_present = "config", value_parser = paths::path())]
    to: Option<PathBuf>,

    /// Write the adapter alone
    #[arg(long, conflicts_with = "base")]
    adapter_only: bool,

    /// Replace the result of an earlier export
    #[arg(long)]
    overwrite: bool,

    /// Name of the way in which the tokenizer splits text (`tokenizer.ggml.pre`), where llama.cpp has
    /// none for this tokenizer
    #[arg(long, value_name = "NAME")]
    pre: Option<String>,

    /// Add the adapter even to another model than the one that it was trained on
    #[arg(long)]
    any_base: bool,
}

fn format(name: &str) -> &'static Format {
    let found = FORMATS.iter().find(|format| format.name == name);
    found.copied().unwrap_or(FORMATS[0])
}

pub(crate) fn run(args: Args, terminal: &Terminal) -> Result<Exit> {
    let config = args.subject.resolve(Vec::new())?;
    let format = args.format;
    let file_type = args.file_type.unwrap_or_else(|| format.default_type.into());
    let what = if args.adapter_only {
        "adapter"
    } else {
        "model"
    };
    let name = format!("{what}-{file_type}.{}", format.ending);
    let file = args.to.unwrap_or_else(|| config.output.join(name));
    let options = ExportOptions {
        threads: terminal.threads(),
        format,
        file_type,
        overwrite: args.overwrite,
        any_base: args.any_base,
        adapter_only: args.adapter_only,
        pre: args.pre,
    };
    signals::stop_on_signal(StopFlag::default(), || ())?;
    let written = tightrope_run::export(&config, &file, &options, &Bars::default())?;
    if terminal.json() {
        terminal.json_line(&serde_json::to_value(&written)?)?;
        return Ok(Exit::Success);
    }
    let tensors = written.tensors.iter();
    let tensors: Vec<String> = tensors
        .map(|(encoding, count)| format!("{count} {encoding}"))
        .collect();
    terminal.line(format!(
        "wrote {} ({}; tensors: {}) and {}",
        file.display(),
        bytes(written.bytes),
        tensors.join(", "),
        file.with_extension("Modelfile").display()
    ))?;
    Ok(Exit::Success)
}
