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
            let (renamed, _) = self.modules().find(|(_, gguf)| *gguf == module)?;
            Some(format!("model.layers.{layer}.{renamed}.{kind}"))
        });
        renamed.unwrap_or_else(|| name.to_string())
    }

    /// The name in the file of a tensor (or of a factor of an adapter's module) by its name in
    /// Transformers; `None` for unknown names.
    pub(super) fn in_file(&self, name: &str) -> Option<String> {
        let mut outside = weights::NAMES.iter();
        if let Some((_, gguf)) = outside.find(|(renamed, _)| *renamed == name) {
            return Some((*gguf).to_string());
        }
        let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
        let (module, kind) = rest.rsplit_once('.')?;
        let (_, gguf) = self.modules().find(|(renamed, _)| *renamed == module)?;
        Some(format!("blk.{layer}.{gguf}.{kind}"))
    }

    /// Names of the modules of a layer, in Transformers and in the file.
    fn modules(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let own = self.files.renamed;
        let usual = module_names(self.norm_places);
        let usual = usual.filter(|(name, _)| own.iter().all(|(other, _)| other != name));
        own.iter().copied().chain(usual)
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

/// llama.cpp's order of rows, of which [`unpermute`] is the inverse. `elements` are rows of equal
/// length.
pub(super) fn permute(elements: &[f32], rows: usize, head_dim: usize) -> Vec<f32> {
    let row = elements.len() / rows.max(1);
    let mut ordered = Vec::with_capacity(elements.len());
    for target in 0..rows {
        let (head, i) = (target / head_dim, target % head_dim);
        let source = head * head_dim + i % 2 * (head_dim / 2) + i / 2;
        ordered.extend_from_slice(&elements[source * row..(source + 1) * row]);
    }
    ordered
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_in_their_order() {
        let (rows, head_dim) = (24, 8);
        let elements: Vec<f32> = (0..rows * 3).map(|x| x as f32).collect();
        let ordered = permute(&elements, rows, head_dim);
        // The first rows of a head are the first of its halves, in turn.
        let firsts: Vec<f32> = ordered.chunks(3).take(4).map(|row| row[0]).collect();
        assert_eq!(firsts, [0.0, 12.0, 3.0, 15.0]);
        let bytes: Vec<u8> = ordered.iter().flat_map(|x| x.to_le_bytes()).collect();
        let back = unpermute(&bytes, rows, head_dim);
        let expected: Vec<u8> = elements.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(back, expected);
    }
}
