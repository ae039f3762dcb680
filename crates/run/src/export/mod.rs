//! Writes a model with its adapter added, or the adapter alone, as one file for another program.
//!
//! A format is a file here and a line in [`FORMATS`].

mod gguf;
mod ollama;
mod place;

use crate::{
    RunError,
    merge::{check_base, load},
    session::Base,
    source::Origin,
};
use serde::Serialize;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tightrope_device::Cpu;
use tightrope_formats::{FormatError, files::folder_of};
use tightrope_model::Model;
use tightrope_train::{Config, Observer};

/// A format of files.
#[derive(Debug)]
pub struct Format {
    /// Name in options.
    pub name: &'static str,
    /// Ending of its files.
    pub ending: &'static str,
    /// Names of the types of tensors that it has.
    pub types: &'static [&'static str],
    /// The type that is taken if none is named.
    pub default_type: &'static str,
    write: fn(&Job<'_>, &Path) -> Result<Exported, RunError>,
}

impl Format {
    fn no_type(&self, name: &str) -> RunError {
        let error = ExportError::NoType {
            format: self.name,
            name: name.to_owned(),
            known: self.types,
        };
        error.into()
    }
}

/// Every format.
pub static FORMATS: [&Format; 1] = [&gguf::FORMAT];

/// Options of an export.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Number of threads; 0 = one per core.
    pub threads: usize,
    /// The format.
    pub format: &'static Format,
    /// Name of the type of tensors, one of [`Format::types`].
    pub file_type: String,
    /// Replaces the result of an earlier export.
    pub overwrite: bool,
    /// Adds the adapter also to another model than the one that it names.
    pub any_base: bool,
    /// Writes the adapter alone.
    pub adapter_only: bool,
    /// Name of the way in which the tokenizer splits text, for tokenizers that the format does not
    /// know.
    pub pre: Option<String>,
}

/// What an export has written.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Exported {
    /// The file.
    pub file: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The file for Ollama beside it.
    pub modelfile: PathBuf,
    /// Number of tensors of each encoding.
    pub tensors: BTreeMap<&'static str, usize>,
}

/// Error of an export that is refused. Nothing has been written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    /// The target is a folder, or has no name of a file.
    #[error(
        "{target}: one file is written, and this is a folder; give the name of a .{ending} file"
    )]
    IsAFolder {
        /// The target.
        target: String,
        /// Ending of the format.
        ending: &'static str,
    },
    /// The target has another ending than files of the format.
    #[error(
        "{target}: programs know these files by their ending; give a name that ends in .{ending}"
    )]
    Ending {
        /// The target.
        target: String,
        /// Ending of the format.
        ending: &'static str,
    },
    /// The target overlaps the model or the adapter.
    #[error("{target} {relation} {what} ({input}), which is never touched; give another file")]
    InTheWay {
        /// The target.
        target: String,
        /// Relation: is, lies in.
        relation: &'static str,
        /// Kind of the input: the model or the adapter.
        what: &'static str,
        /// Path of the input.
        input: String,
    },
    /// The target exists.
    #[error("{target}: already exists; {advice}")]
    Exists {
        /// The target.
        target: String,
        /// Advice.
        advice: &'static str,
    },
    /// The format does not have the type.
    #[error("{format} has no type `{name}`: it has {}", known.join(", "))]
    NoType {
        /// Name of the format.
        format: &'static str,
        /// The name.
        name: String,
        /// Every type.
        known: &'static [&'static str],
    },
    /// There is no adapter to be written alone.
    #[error(
        "there is no adapter to write alone: name one with --adapter, or a run that trained one"
    )]
    NoAdapter,
}

/// An export on the way.
struct Job<'a> {
    config: &'a Config,
    options: &'a ExportOptions,
    observer: &'a dyn Observer,
    base: Base,
    model: Model<Cpu>,
}

/// Writes the configuration's model with its adapter added to the file `target`, or the adapter alone,
/// with a file for Ollama beside it. Both appear whole or not at all, and nothing is replaced but the
/// result of an earlier export. The export computes in f32 on the processor, with the weights of the
/// model's files.
pub fn export(
    config: &Config,
    target: &Path,
    options: &ExportOptions,
    observer: &dyn Observer,
) -> Result<Exported, RunError> {
    let format = options.format;
    if !format.types.contains(&options.file_type.as_str()) {
        return Err(format.no_type(&options.file_type));
    }
    if options.adapter_only && config.adapter.is_none() {
        return Err(ExportError::NoAdapter.into());
    }
    let target = place::target(target, format)?;
    place::check(&target, options.overwrite)?;
    let adapter = config.adapter.as_deref();
    place::keep_apart(&target, "the model", Path::new(&config.model))?;
    if let Some(adapter) = adapter {
        place::keep_apart(&target, "the adapter", adapter)?;
    }
    let base = Base::of(config, observer)?;
    place::keep_apart(&target, "the model", base.source.path())?;
    if let (Some(adapter), false) = (adapter, options.any_base) {
        check_base(
            adapter,
            &Origin::new(&config.model, &base.source),
            &base.source,
        )?;
    }
    if base.tokenizer.is_none() && !options.adapter_only {
        let why = base.no_tokenizer.clone();
        return Err(RunError::NoTokenizer { why });
    }
    let model = load(&base, config.adapter.clone(), options.threads)?;
    let parent = folder_of(&target);
    fs::create_dir_all(parent).map_err(FormatError::io(parent))?;
    let job = Job {
        config,
        options,
        observer,
        base,
        model,
    };
    (format.write)(&job, &target)
}

#[cfg(test)]
mod tests;
