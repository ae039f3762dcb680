//! Selects the model and the data of a command: from a configuration, or named by options.

use crate::paths;
use anyhow::{Result, ensure};
use std::path::{Path, PathBuf};
use tightrope_train::{Config, config::SetSection};

/// A configuration, or a model and an adapter.
#[derive(clap::Args)]
#[group(skip)]
#[command(group(clap::ArgGroup::new("subject").args(["config", "model"]).required(true)))]
pub(crate) struct Subject {
    /// Configuration file (TOML); the model is the result of its run
    #[arg(value_parser = paths::path())]
    config: Option<PathBuf>,

    /// Override a key of the configuration
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,

    /// Use the model as it was before the run of the configuration
    #[arg(long, requires = "config")]
    base: bool,

    /// Model folder, .gguf file or hub id, instead of a configuration
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,

    /// PEFT adapter folder to add to the model
    #[arg(long, value_name = "FOLDER", requires = "model", value_parser = paths::path())]
    adapter: Vec<PathBuf>,
}

impl Subject {
    /// Returns a configuration with the command's `model` and `adapter`. `options` are keys that
    /// options of the command have set.
    pub(crate) fn resolve(&self, options: Vec<String>) -> Result<Config> {
        let sets = [&self.sets[..], &options].concat();
        let mut config = configuration(self.config.as_deref(), self.model.as_deref(), sets)?;
        if let [adapter, others @ ..] = &self.adapter[..] {
            ensure!(
                others.is_empty(),
                "a model answers with one adapter: `tightrope merge` makes one of several"
            );
            config.adapter = Some(adapter.clone());
        } else if self.config.is_some() && !self.base {
            trained(&mut config)?;
        }
        Ok(config)
    }
}

impl Subject {
    /// The same for a command that takes several adapters, and the adapters if it was given several.
    /// The chat template is that of the first.
    pub(crate) fn resolve_with_several(&self) -> Result<(Config, Vec<PathBuf>)> {
        let first = Self {
            config: self.config.clone(),
            sets: self.sets.clone(),
            base: self.base,
            model: self.model.clone(),
            adapter: self.adapter.iter().take(1).cloned().collect(),
        };
        Ok((first.resolve(Vec::new())?, self.adapter.clone()))
    }
}

/// A configuration before its run, or a model and data.
#[derive(clap::Args)]
#[group(skip)]
#[command(group(clap::ArgGroup::new("subject").args(["config", "model"]).required(true)))]
pub(crate) struct ModelAndData {
    /// Configuration file (TOML)
    #[arg(value_parser = paths::path())]
    config: Option<PathBuf>,

    /// Override a key of the configuration
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,

    /// Model folder, .gguf file or hub id, instead of a configuration
    #[arg(long, value_name = "MODEL", requires = "data")]
    model: Option<String>,

    /// File of records, instead of data.train (repeatable)
    #[arg(long, value_name = "FILE", value_parser = paths::path())]
    data: Vec<PathBuf>,
}

impl ModelAndData {
    pub(crate) fn resolve(self) -> Result<Config> {
        let mut config = configuration(self.config.as_deref(), self.model.as_deref(), self.sets)?;
        if !self.data.is_empty() {
            config.data.train = SetSection::of(self.data);
            config.data.eval = Vec::new();
            config.data.eval_ratio = 0.0;
        }
        Ok(config)
    }
}

/// Reads the file, or without one an empty configuration, with the model and then `sets` applied.
fn configuration(file: Option<&Path>, model: Option<&str>, sets: Vec<String>) -> Result<Config> {
    // Quotes make a name like `2024` text.
    let model = model.map(|model| format!("model={}", serde_json::Value::from(model)));
    let sets: Vec<String> = model.into_iter().chain(sets).collect();
    Ok(match file {
        Some(path) => Config::load(path, &sets)?,
        None => Config::parse("", Path::new("command-line.toml"), &sets)?,
    })
}

/// Replaces model and adapter by the result of the run in its output folder.
fn trained(config: &mut Config) -> Result<()> {
    let name = if config.lora.is_some() {
        "adapter"
    } else {
        "model"
    };
    let weights = config.output.join(name);
    ensure!(
        weights.exists(),
        "{} does not exist: no run of this configuration has finished. Train first, add --base for \
         the model as it was, or name a checkpoint with --model and --adapter",
        weights.display()
    );
    match config.lora {
        Some(_) => config.adapter = Some(weights),
        None => {
            config.model = weights.to_string_lossy().into_owned();
            config.adapter = None;
        }
    }
    Ok(())
}
