//! Writes a model with its adapter added, as a folder that Transformers loads.

mod manifest;
mod place;

pub(crate) use place::{check_base, other_base};

use crate::{RunError, session::Base, source::Origin};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tightrope_device::{Cpu, DType};
use tightrope_formats::{
    FormatError,
    files::{Temporary, folder_of},
};
use tightrope_model::{Combination, LoadOptions, Model, combine_adapters};
use tightrope_train::{Config, Observer, Output, checkpoint::folder::digests};

/// Options of a merge.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MergeOptions {
    /// Number of threads; 0 = one per core.
    pub threads: usize,
    /// Type of every tensor; absent: the type in the model's files.
    pub dtype: Option<DType>,
    /// Replaces the result of an earlier merge.
    pub overwrite: bool,
    /// Adds the adapter also to another model than the one that it names.
    pub any_base: bool,
    /// Several adapters, or one with a weight, in place of the configuration's adapter.
    pub adapters: Vec<(PathBuf, f64)>,
    /// How several adapters become one.
    pub combination: Combination,
    /// Writes the adapter that several become, and not a model with it.
    pub as_adapter: bool,
}

/// Error of a merge that is refused. Nothing has been written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// The target has the name of a file.
    #[error(
        "{target}: a folder with safetensors is written, and this is the name of a file; give a \
         folder{}",
        advice(target)
    )]
    NamedLikeAFile {
        /// The target.
        target: String,
    },
    /// The target is a file.
    #[error("{target}: there is a file of this name; give the name of a folder")]
    IsAFile {
        /// The target.
        target: String,
    },
    /// The target overlaps the model or the adapter.
    #[error("{target} {relation} {what} ({input}), which is never touched; give another folder")]
    InTheWay {
        /// The target.
        target: String,
        /// Relation: is, contains, lies in.
        relation: &'static str,
        /// Kind of the input: the model or the adapter.
        what: &'static str,
        /// Path of the input.
        input: String,
    },
    /// The target is not empty.
    #[error("{target}: already exists and is not empty; {advice}")]
    NotEmpty {
        /// The target.
        target: String,
        /// Advice.
        advice: String,
    },
    /// The adapter was trained on another model.
    #[error(
        "the adapter {adapter} was trained on {named}, and the model is {model}: added to another \
         model it means nothing; give that model, or add --any-base if both have the same weights"
    )]
    OtherBase {
        /// Folder of the adapter.
        adapter: String,
        /// Model that the adapter names.
        named: String,
        /// The given model.
        model: String,
    },
    /// A weight that is infinite or not a number.
    #[error(
        "{tensor} has an element that is infinite or not a number, so nothing is written: the files \
         are damaged, or the adapter comes from a training that failed; take an earlier checkpoint"
    )]
    NotFinite {
        /// Name of the tensor.
        tensor: String,
    },
}

fn advice(target: &str) -> &'static str {
    match target.to_ascii_lowercase().ends_with(".gguf") {
        true => ", or write the file with `tightrope export`",
        false => "",
    }
}

/// Writes the configuration's model with its adapter added to `folder`, with the tokenizer's files
/// and the chat template of the training. The folder must not exist, or be empty, or be the result
/// of an earlier merge; it appears whole or not at all. The merge computes in f32 on the processor,
/// with the weights of the model's files, even if the adapter was trained on their NF4 form; only
/// weights that the files hold in NF4 are dequantised.
///
/// Several adapters of [`MergeOptions::adapters`] first become one.
pub fn merge(
    config: &Config,
    folder: &Path,
    options: &MergeOptions,
    observer: &dyn Observer,
) -> Result<(), RunError> {
    let model = &config.model;
    let adapters: Vec<&Path> = match &options.adapters[..] {
        [] => config.adapter.iter().map(PathBuf::as_path).collect(),
        several => several.iter().map(|(path, _)| path.as_path()).collect(),
    };
    let target = place::target(folder)?;
    let parent = folder_of(&target);
    manifest::check(&target, options.overwrite)?;
    place::keep_apart(&target, "the model", Path::new(model))?;
    for adapter in &adapters {
        place::keep_apart(&target, "the adapter", adapter)?;
    }
    let base = Base::of(config, observer)?;
    place::keep_apart(&target, "the model", base.source.path())?;
    if !options.any_base {
        for adapter in &adapters {
            place::check_base(adapter, &Origin::new(model, &base.source), &base.source)?;
        }
    }
    let make_parent = || fs::create_dir_all(parent).map_err(FormatError::io(parent));
    let combined = match options.adapters.is_empty() {
        true => None,
        false => {
            make_parent()?;
            let folder = Temporary::folder(&target).map_err(FormatError::io(&target))?;
            combine_adapters(&options.adapters, options.combination, folder.path())?;
            Some(folder)
        }
    };
    let adapter = match &combined {
        Some(combined) => Some(combined.path().to_owned()),
        None => config.adapter.clone(),
    };
    let model = load(&base, adapter, options.threads)?;
    drop(combined);
    make_parent()?;
    let temporary = Temporary::folder(&target).map_err(FormatError::io(&target))?;
    if options.as_adapter {
        model.save_adapter(temporary.path())?;
        if let Some(tokenizer) = &base.tokenizer {
            tokenizer.save_beside_adapter(temporary.path())?;
        }
    } else {
        model.save_merged_as(temporary.path(), options.dtype)?;
        base.say_if_without_tokenizer(observer);
        if let Some(tokenizer) = &base.tokenizer {
            tokenizer.save_to_folder(temporary.path())?;
        }
    }
    manifest::write(temporary.path())?;
    temporary.sync().map_err(FormatError::io(&target))?;
    // The check is repeated, because much time has passed.
    manifest::check(&target, options.overwrite)?;
    Output::note_written(&target, digests(temporary.path())?)?;
    let replaced = manifest::set_aside(&target)?;
    temporary.finish().map_err(FormatError::io(&target))?;
    drop(replaced);
    Ok(())
}

/// Loads a model that is to be written with its adapter; refuses numbers that are not finite.
pub(crate) fn load(
    base: &Base,
    adapter: Option<PathBuf>,
    threads: usize,
) -> Result<Model<Cpu>, RunError> {
    let options = LoadOptions {
        adapter,
        new_tokens: base.new_tokens.clone(),
        ..LoadOptions::new(1)
    };
    let mut model = Model::load(&Cpu::new(threads)?, base.source.path(), &options)?;
    base.name_padding(&mut model);
    match model.first_not_finite()? {
        Some(tensor) => Err(MergeError::NotFinite { tensor }.into()),
        None => Ok(model),
    }
}

#[cfg(test)]
mod tests;
