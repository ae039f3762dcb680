//! The two files of a PEFT adapter.

use super::{AdapterConfig, EMBEDDING, HEAD, Inventory, PREFIX, SCORES};
use crate::{ModelError, checkpoint::only_floats, read_json};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};
use tightrope_formats::{FormatError, Tensors, diagnosis};

/// File of the configuration.
pub(crate) const CONFIG: &str = "adapter_config.json";
/// File of the factors.
pub(crate) const WEIGHTS: &str = "adapter_model.safetensors";

impl AdapterConfig {
    /// Reads the configuration in `folder`, and opens the factors, for a model with these modules.
    pub(crate) fn open(
        folder: &Path,
        inventory: &Inventory,
    ) -> Result<(Self, Tensors), ModelError> {
        let path = folder.join(CONFIG);
        if folder.is_dir() && !path.exists() {
            return Err(ModelError::Format(FormatError::NoModel {
                path: folder.to_path_buf(),
                reason: format!("has no {CONFIG}: give the whole folder of an adapter"),
            }));
        }
        if folder.is_dir() && !folder.join(WEIGHTS).exists() {
            return Err(diagnosis::of_folder(folder, &format!("has no {WEIGHTS}")).into());
        }
        let in_config = |error| ModelError::config(&path)(error);
        let mut config = Self::from_json(&read_json(&path)?).map_err(in_config)?;
        config.select(inventory).map_err(in_config)?;
        let weights = config.open_weights(folder)?;
        config.note_tables(&weights, inventory);
        let mut found = BTreeSet::new();
        for name in weights.names() {
            let module = name.strip_prefix(PREFIX).and_then(factor_of);
            let known = match module {
                Some(module) => inventory.adaptable().any(|known| known == module),
                None => {
                    let mut rows = config.rows.values();
                    config.copies.values().any(|copy| copy == name)
                        || rows.any(|(known, _)| known == name)
                        || config.is_beside(name, inventory.tied)
                }
            };
            if !known {
                return Err(ModelError::Unexpected {
                    file: PathBuf::from(weights.file(name)),
                    tensor: name.to_string(),
                });
            }
            found.extend(module.map(str::to_owned));
        }
        let check = config.check_file(|module| found.contains(module), inventory);
        check.map_err(in_config)?;
        Ok((config, weights))
    }

    /// Opens the adapter's file without the tensors that hold nothing of their own.
    pub(crate) fn open_weights(&self, folder: &Path) -> Result<Tensors, ModelError> {
        let mut weights = only_floats(Tensors::open(&folder.join(WEIGHTS))?)?;
        // PEFT writes a shared embedding under both names.
        if self.shares_embedding() {
            let [embedding, head] = [EMBEDDING, HEAD].map(|name| format!("{PREFIX}{name}.weight"));
            weights.rename(&head, &embedding);
        }
        Ok(weights)
    }
}

/// Whether the adapter in a folder has a head that scores sequences. What cannot be read is no such
/// adapter here, and an error where it is opened.
pub(crate) fn scores(folder: &Path) -> bool {
    let config = read_json(&folder.join(CONFIG));
    config.is_ok_and(|config| config["task_type"] == SCORES)
}

/// The module whose factor or magnitude a tensor is.
pub(super) fn factor_of(tensor: &str) -> Option<&str> {
    [
        ".lora_A.weight",
        ".lora_B.weight",
        ".lora_embedding_A",
        ".lora_embedding_B",
        ".lora_magnitude_vector",
    ]
    .into_iter()
    .find_map(|end| tensor.strip_suffix(end))
}
