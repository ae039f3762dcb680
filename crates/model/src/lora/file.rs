//! The two files of a PEFT adapter.

use super::AdapterConfig;
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

/// Prefix that PEFT puts before the name of a module.
const PREFIX: &str = "base_model.model.";

impl AdapterConfig {
    /// Reads the configuration in `folder`, and opens the factors; `modules` are the model's
    /// linear layers.
    pub(crate) fn open(folder: &Path, modules: &[String]) -> Result<(Self, Tensors), ModelError> {
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
        let config = Self::from_json(&read_json(&path)?);
        let mut config = config.map_err(ModelError::config(&path))?;
        let weights = only_floats(Tensors::open(&folder.join(WEIGHTS))?)?;
        let mut found = BTreeSet::new();
        for name in weights.names() {
            let module = name.strip_prefix(PREFIX).and_then(|name| {
                let a = name.strip_suffix(".lora_A.weight");
                a.or_else(|| name.strip_suffix(".lora_B.weight"))
            });
            match module {
                Some(module) if modules.iter().any(|m| m == module) => {
                    found.insert(module.to_string());
                }
                _ => {
                    return Err(ModelError::Unexpected {
                        file: PathBuf::from(weights.file(name)),
                        tensor: name.to_string(),
                    });
                }
            }
        }
        config
            .set_modules(found, modules)
            .map_err(ModelError::config(&path))?;
        Ok((config, weights))
    }
}
