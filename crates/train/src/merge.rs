//! A model with its adapter added, as a folder that Transformers loads.

use crate::{
    Config, Observer, Temporary, TrainError,
    checkpoint::folder::digests,
    files::{self, at},
    output::note_written,
    session::Base,
};
use std::{fs, path::Path};
use tightrope_device::{Cpu, DType};
use tightrope_model::{BaseStorage, LoadOptions, Model, Training};

/// Writes the configuration's model with its adapter added to `folder`, with the tokenizer's files
/// and the chat template that was trained with. The folder must not
/// exist, or be empty; it appears whole or not at all. Computes in f32 on the processor, with the
/// weights that the model's files have, also where the adapter was trained on these in NF4; only
/// what files hold in NF4 is dequantised.
pub fn merge(
    threads: usize,
    config: &Config,
    folder: &Path,
    observer: &dyn Observer,
) -> Result<(), TrainError> {
    let empty = fs::read_dir(folder).map(|mut entries| entries.next().is_none());
    if folder.exists() && !empty.unwrap_or(false) {
        return Err(TrainError::FolderNotEmpty {
            folder: folder.to_owned(),
        });
    }
    let base = Base::of(config, observer)?;
    let options = LoadOptions {
        training: Training::None,
        adapter: config.adapter.clone(),
        base: BaseStorage::AsStored,
        capacity: 1,
        recompute: false,
        precision: DType::F32,
        seed: 0,
    };
    let model = Model::load(&Cpu::new(threads)?, base.source.path(), &options)?;
    let parent = files::folder_of(folder);
    fs::create_dir_all(parent).map_err(at(parent))?;
    let temporary = Temporary::folder(folder).map_err(at(folder))?;
    model.save_merged(temporary.path())?;
    base.say_if_without_tokenizer(observer);
    if let Some(tokenizer) = &base.tokenizer {
        tokenizer.save_to_folder(temporary.path())?;
    }
    note_written(folder, digests(temporary.path())?)?;
    temporary.finish().map_err(at(folder))
}
