//! The types of whole GGUF files, and which encoding each of their tensors has: the rules of
//! llama.cpp's `llama-quantize` for models without experts.

use crate::Encoding::{self, *};

/// Type of the tensors of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of llama.cpp")]
pub enum FileType {
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    /// Q4_K, with Q6_K where it matters more.
    Q4KM,
    /// Q5_K, with Q6_K where it matters more.
    Q5KM,
    Q6K,
}

/// Type, name, number in `general.file_type`, and encoding of most matrices.
type Row = (FileType, &'static str, u32, Encoding);

const TYPES: [Row; 8] = [
    (FileType::F32, "f32", 0, F32),
    (FileType::F16, "f16", 1, F16),
    (FileType::Bf16, "bf16", 32, Bf16),
    (FileType::Q8_0, "q8_0", 7, Q8_0),
    (FileType::Q4_0, "q4_0", 2, Q4_0),
    (FileType::Q4KM, "q4_k_m", 15, Q4K),
    (FileType::Q5KM, "q5_k_m", 17, Q5K),
    (FileType::Q6K, "q6_k", 18, Q6K),
];

/// What the rules ask of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of layers.
    pub layers: usize,
    /// Whether the head is the embedding.
    pub tied_head: bool,
    /// Whether llama.cpp takes the model for one of 70 billion parameters, whose values of attention
    /// are shared by eight heads: 80 layers, and fewer key heads than query heads.
    pub seventy_billion: bool,
}

impl FileType {
    /// Every type, from the largest file to the smallest of each kind.
    pub fn all() -> impl Iterator<Item = Self> {
        TYPES.iter().map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        &TYPES[self as usize]
    }

    /// Name as in options, such as `q4_k_m`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The type with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        let known = TYPES.iter().find(|row| row.1 == name);
        known.map(|row| row.0)
    }

    /// Number in `general.file_type`.
    pub fn id(self) -> u32 {
        self.row().2
    }

    /// Whether its tensors have blocks.
    pub fn is_quantized(self) -> bool {
        self.row().3.is_quantized()
    }

    /// Encoding of a tensor by its name in the file and its shape, outermost dimension first; rows that
    /// are not whole blocks have another one, as llama.cpp chooses it.
    pub fn encoding(self, name: &str, shape: &[usize], model: Shape) -> Encoding {
        let own = self.row().3;
        let kept = shape.len() < 2 || !name.ends_with("weight") || name.ends_with("_norm.weight");
        if kept {
            return F32;
        }
        let columns = shape.last().copied().unwrap_or(1);
        fallback(
            if own.is_quantized() {
                self.mixed(name, columns, model)
            } else {
                own
            },
            columns,
        )
    }

    /// The encoding that the tensor would have if its rows were whole blocks.
    pub fn wanted(self, name: &str, model: Shape) -> Encoding {
        let own = self.row().3;
        if own.is_quantized() {
            self.mixed(name, 0, model)
        } else {
            own
        }
    }

    fn mixed(self, name: &str, columns: usize, model: Shape) -> Encoding {
        let own = self.row().3;
        let module = name.rsplit('.').nth(1).unwrap_or(name);
        let layer = name
            .strip_prefix("blk.")
            .and_then(|rest| rest.split('.').next()?.parse().ok());
        let matters = layer.is_some_and(|layer| matters_more(layer, model.layers));
        match (self, module) {
            (_, "output") => of_head(own, columns),
            (_, "token_embd") if model.tied_head => of_head(own, columns),
            (FileType::Q4KM | FileType::Q5KM, "attn_v" | "ffn_down") if matters => Q6K,
            (FileType::Q4KM, "attn_v") if model.seventy_billion => Q5K,
            _ => own,
        }
    }
}

/// The head is finer than the other tensors, and has blocks of 32 if its rows do not fit the others'.
fn of_head(own: Encoding, columns: usize) -> Encoding {
    match own {
        Q8_0 => Q8_0,
        _ if !columns.is_multiple_of(own.block_elements()) => Q8_0,
        _ => Q6K,
    }
}

/// Whether the values and the projection of the gated unit of a layer get more bits: in the first and
/// the last eighth of the layers, and in every third between.
fn matters_more(layer: usize, layers: usize) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

/// The encoding that takes the place of another whose blocks do not fill rows of `columns`.
fn fallback(wanted: Encoding, columns: usize) -> Encoding {
    let fits = |encoding: Encoding| columns.is_multiple_of(encoding.block_elements());
    let next = match wanted {
        _ if fits(wanted) => return wanted,
        Q4K => Q5_0,
        Q5K => Q5_1,
        Q6K => Q8_0,
        other => other,
    };
    if fits(next) { next } else { F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: Shape = Shape {
        layers: 30,
        tied_head: true,
        seventy_billion: false,
    };

    #[test]
    fn every_type_stands_in_its_row() {
        for file_type in FileType::all() {
            assert_eq!(file_type.row().0, file_type);
            assert_eq!(FileType::from_name(file_type.name()), Some(file_type));
        }
    }

    #[test]
    fn mixtures_are_those_of_llama_quantize() {
        let of = |file_type: FileType, name: &str| file_type.encoding(name, &[512, 2048], SMALL);
        // 30 layers: an eighth is 3, the last eighth begins at 26.
        let more: Vec<usize> = (0..30).filter(|&layer| matters_more(layer, 30)).collect();
        assert_eq!(more, [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 26, 27, 28, 29]);
        for (file_type, own) in [(FileType::Q4KM, Q4K), (FileType::Q5KM, Q5K)] {
            for part in ["attn_v", "ffn_down"] {
                assert_eq!(of(file_type, &format!("blk.5.{part}.weight")), Q6K);
                assert_eq!(of(file_type, &format!("blk.6.{part}.weight")), own);
            }
            assert_eq!(of(file_type, "blk.5.ffn_up.weight"), own);
            assert_eq!(of(file_type, "token_embd.weight"), Q6K);
            let own_head = Shape {
                tied_head: false,
                ..SMALL
            };
            assert_eq!(
                file_type.encoding("token_embd.weight", &[9, 256], own_head),
                own
            );
            assert_eq!(
                file_type.encoding("output.weight", &[9, 256], own_head),
                Q6K
            );
        }
        assert_eq!(of(FileType::Q4_0, "token_embd.weight"), Q6K);
        assert_eq!(of(FileType::Q8_0, "token_embd.weight"), Q8_0);
        assert_eq!(of(FileType::Q4_0, "blk.0.ffn_down.weight"), Q4_0);
        let large = Shape {
            layers: 80,
            tied_head: false,
            seventy_billion: true,
        };
        let value =
            |file_type: FileType| file_type.encoding("blk.12.attn_v.weight", &[9, 256], large);
        assert!(!matters_more(11, 80));
        assert_eq!(
            FileType::Q4KM.encoding("blk.11.attn_v.weight", &[9, 256], large),
            Q5K
        );
        assert_eq!(value(FileType::Q6K), Q6K);
    }

    #[test]
    fn rows_that_are_not_whole_blocks_fall_back() {
        let of = |file_type: FileType, name: &str, columns| {
            file_type.encoding(name, &[3, columns], SMALL)
        };
        let names = [
            "blk.6.attn_q.weight",
            "blk.0.attn_v.weight",
            "token_embd.weight",
        ];
        let all = |file_type, columns| names.map(|name| of(file_type, name, columns));
        assert_eq!(all(FileType::Q4KM, 576), [Q5_0, Q8_0, Q8_0]);
        assert_eq!(all(FileType::Q5KM, 576), [Q5_1, Q8_0, Q8_0]);
        assert_eq!(all(FileType::Q6K, 576), [Q8_0, Q8_0, Q8_0]);
        assert_eq!(all(FileType::Q4_0, 576), [Q4_0, Q4_0, Q8_0]);
        assert_eq!(all(FileType::Q4KM, 40), [F16; 3]);
        assert_eq!(all(FileType::Q8_0, 40), [F16; 3]);
        assert_eq!(all(FileType::F32, 40), [F32; 3]);
        assert_eq!(FileType::Q4KM.wanted("blk.6.attn_q.weight", SMALL), Q4K);
    }

    #[test]
    fn norms_and_biases_stay_f32() {
        for file_type in FileType::all() {
            for (name, shape) in [
                ("blk.0.attn_norm.weight", &[256][..]),
                ("blk.0.attn_q.bias", &[256]),
                ("output_norm.weight", &[256]),
                ("rope_freqs.weight", &[32]),
            ] {
                assert_eq!(file_type.encoding(name, shape, SMALL), F32);
            }
        }
    }
}
