//! A model with its adapter added, as a folder that Transformers loads.

mod manifest;
mod place;

use crate::{
    Config, Observer, TrainError, checkpoint::folder::digests, files::at, output::note_written,
    session::Base, source::Origin,
};
use std::{fs, path::Path};
use tightrope_device::{Cpu, DType};
use tightrope_formats::files::{Temporary, folder_of};
use tightrope_model::{LoadOptions, Model};

/// How a model is merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeOptions {
    /// Threads to compute with; 0 = one per core.
    pub threads: usize,
    /// The type of every tensor; absent: as the model's files have it.
    pub dtype: Option<DType>,
    /// Replace what an earlier merge has written.
    pub overwrite: bool,
    /// Add the adapter also to another model than the one that it names.
    pub any_base: bool,
}

/// A merge that is refused. Nothing has been written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MergeError {
    /// A target that is named like a file.
    #[error(
        "{target}: a folder with safetensors is written, and this is the name of a file; give a \
         folder{}",
        advice(target)
    )]
    NamedLikeAFile {
        /// The target.
        target: String,
    },
    /// A target that is a file.
    #[error("{target}: there is a file of this name; give the name of a folder")]
    IsAFile {
        /// The target.
        target: String,
    },
    /// A target at the model or the adapter.
    #[error("{target} {relation} {what} ({input}), which is never touched; give another folder")]
    InTheWay {
        /// The target.
        target: String,
        /// Is, holds, lies in.
        relation: &'static str,
        /// The model, the adapter.
        what: &'static str,
        /// Its path.
        input: String,
    },
    /// A target with something in it.
    #[error("{target}: already exists and is not empty; {advice}")]
    NotEmpty {
        /// The target.
        target: String,
        /// What to do.
        advice: String,
    },
    /// An adapter that was trained on another model.
    #[error(
        "the adapter {adapter} was trained on {named}, and the model is {model}: added to another \
         model it means nothing; give that model, or add --any-base if both have the same weights"
    )]
    OtherBase {
        /// The adapter's folder.
        adapter: String,
        /// The model that it names.
        named: String,
        /// The model that was given.
        model: String,
    },
}

fn advice(target: &str) -> &'static str {
    match target.to_ascii_lowercase().ends_with(".gguf") {
        true => ", and make the GGUF file of that with convert_hf_to_gguf.py of llama.cpp",
        false => "",
    }
}

/// Writes the configuration's model with its adapter added to `folder`, with the tokenizer's files
/// and the chat template that was trained with. The folder must not exist, or be empty, or be what an
/// earlier merge has written; it appears whole or not at all.
/// Computes in f32 on the processor, with the weights that the model's files have, also where the
/// adapter was trained on these in NF4; only what files hold in NF4 is dequantised.
pub fn merge(
    config: &Config,
    folder: &Path,
    options: &MergeOptions,
    observer: &dyn Observer,
) -> Result<(), TrainError> {
    let (model, adapter) = (&config.model, config.adapter.as_deref());
    let target = place::target(folder)?;
    let parent = folder_of(&target);
    manifest::check(&target, options.overwrite)?;
    place::keep_apart(&target, "the model", Path::new(model))?;
    if let Some(adapter) = adapter {
        place::keep_apart(&target, "the adapter", adapter)?;
    }
    let base = Base::of(config, observer)?;
    place::keep_apart(&target, "the model", base.source.path())?;
    if let (Some(adapter), false) = (adapter, options.any_base) {
        place::check_base(adapter, &Origin::new(model, &base.source), &base.source)?;
    }
    let load = LoadOptions {
        adapter: config.adapter.clone(),
        ..LoadOptions::new(1)
    };
    let model = Model::load(&Cpu::new(options.threads)?, base.source.path(), &load)?;
    fs::create_dir_all(parent).map_err(at(parent))?;
    let temporary = Temporary::folder(&target).map_err(at(&target))?;
    model.save_merged_as(temporary.path(), options.dtype)?;
    base.say_if_without_tokenizer(observer);
    if let Some(tokenizer) = &base.tokenizer {
        tokenizer.save_to_folder(temporary.path())?;
    }
    manifest::write(temporary.path())?;
    temporary.sync().map_err(at(&target))?;
    // Again: much time has passed.
    manifest::check(&target, options.overwrite)?;
    note_written(&target, digests(temporary.path())?)?;
    let replaced = manifest::set_aside(&target)?;
    temporary.finish().map_err(at(&target))?;
    drop(replaced);
    Ok(())
}

#[cfg(test)]
mod tests;
