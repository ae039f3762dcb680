//! A model with its adapter added, as a folder that Transformers loads.

use crate::{
    Observer, TrainError,
    files::{self, at},
    session::Base,
};
use std::{
    fs::{self, File},
    path::Path,
};
use tightrope_device::{Cpu, DType};
use tightrope_model::{BaseStorage, LoadOptions, Model, Training};

/// Writes `model` with `adapter` added to `folder`, with the tokenizer's files. The folder must not
/// exist, or be empty; it appears whole or not at all. Computes in f32 on the processor, with the
/// weights that the model's files have, also where the adapter was trained on these in NF4; only
/// what files hold in NF4 is dequantised.
pub fn merge(
    threads: usize,
    model: &str,
    adapter: Option<&Path>,
    folder: &Path,
    observer: &dyn Observer,
) -> Result<(), TrainError> {
    let empty = fs::read_dir(folder).map(|mut entries| entries.next().is_none());
    if folder.exists() && !empty.unwrap_or(false) {
        return Err(TrainError::FolderNotEmpty {
            folder: folder.to_owned(),
        });
    }
    let base = Base::open(model, observer)?;
    let options = LoadOptions {
        training: Training::None,
        adapter: adapter.map(Path::to_owned),
        base: BaseStorage::AsStored,
        capacity: 1,
        recompute: false,
        precision: DType::F32,
        seed: 0,
    };
    let model = Model::load(&Cpu::new(threads)?, base.source.path(), &options)?;
    let parent = files::folder_of(folder);
    fs::create_dir_all(parent).map_err(at(parent))?;
    let temporary = tempfile::Builder::new().prefix(".tmp-").tempdir_in(parent);
    let temporary = temporary.map_err(at(parent))?;
    let inside = temporary.path().join("model");
    fs::create_dir(&inside).map_err(at(&inside))?;
    model.save_merged(&inside)?;
    if let Some(tokenizer) = &base.tokenizer {
        tokenizer.save_to_folder(&inside)?;
    }
    for name in files::files_below(&inside).map_err(at(&inside))? {
        let path = inside.join(name);
        let file = File::open(&path).map_err(at(&path))?;
        file.sync_all().map_err(at(&path))?;
    }
    files::sync_folder(&inside).map_err(at(&inside))?;
    fs::rename(&inside, folder).map_err(at(folder))?;
    files::sync_folder(parent).map_err(at(parent))
}
