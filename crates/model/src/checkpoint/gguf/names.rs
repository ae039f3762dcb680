//! Differences between the tensors of a GGUF file and those of Transformers: names, the order of
//! rows, and Gemma's norms.

use crate::{NormPlaces, family::gguf::GgufFiles, parts::module_names, weights};

/// The conversion of the tensors of a family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conversion {
    pub files: &'static GgufFiles,
    /// Whether layers have norms of branches.
    pub norm_places: NormPlaces,
}

impl Conversion {
    /// The name in Transformers; unknown names stay unchanged, so that they are reported.
    pub(super) fn rename(&self, name: &str) -> String {
        if let Some((renamed, _)) = weights::NAMES.iter().find(|(_, gguf)| *gguf == name) {
            return (*renamed).to_string();
        }
        let renamed = name.strip_prefix("blk.").and_then(|rest| {
            let (layer, rest) = rest.split_once('.')?;
            let (module, kind) = rest.rsplit_once('.')?;
            let mut names = module_names(self.norm_places);
            let (renamed, _) = names.find(|(_, gguf)| *gguf == module)?;
            Some(format!("model.layers.{layer}.{renamed}.{kind}"))
        });
        renamed.unwrap_or_else(|| name.to_string())
    }

    /// Whether rows (or the elements of a bias) must be reordered.
    pub(super) fn permutes(&self, renamed: &str) -> bool {
        let (module, _) = renamed.rsplit_once('.').unwrap_or((renamed, ""));
        self.files.permuted && (module.ends_with(".q_proj") || module.ends_with(".k_proj"))
    }

    /// Whether 1 must be subtracted.
    pub(super) fn takes_one_off(&self, renamed: &str) -> bool {
        self.files.norm_plus_one && renamed.ends_with("norm.weight")
    }
}

/// Undoes llama.cpp's order of rows for rotations of pairs `(2i, 2i + 1)`: restores `(i, i +
/// head_dim/2)`. `bytes` are rows of equal length.
pub(super) fn unpermute(bytes: &[u8], rows: usize, head_dim: usize) -> Vec<u8> {
    let row = bytes.len() / rows.max(1);
    let mut ordered = Vec::with_capacity(bytes.len());
    for target in 0..rows {
        let (head, i) = (target / head_dim, target % head_dim);
        let source = head * head_dim + 2 * (i % (head_dim / 2)) + i / (head_dim / 2);
        ordered.extend_from_slice(&bytes[source * row..(source + 1) * row]);
    }
    ordered
}
