//! Encodings of elements: the types of safetensors, and the types and blocks of GGUF.

mod blocks;
mod quantize;

use half::{bf16, f16};
use std::fmt;

/// Encoding of the elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are those of the formats")]
#[non_exhaustive]
pub enum Encoding {
    F32,
    F16,
    Bf16,
    F64,
    F8E4M3,
    F8E5M2,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
}

use Encoding::*;

/// Name, number of elements and number of bytes of a block.
type Row = (Encoding, &'static str, usize, usize);

const PLAIN: [Row; 15] = [
    (F32, "F32", 1, 4),
    (F16, "F16", 1, 2),
    (Bf16, "BF16", 1, 2),
    (F64, "F64", 1, 8),
    (F8E4M3, "F8_E4M3", 1, 1),
    (F8E5M2, "F8_E5M2", 1, 1),
    (I64, "I64", 1, 8),
    (I32, "I32", 1, 4),
    (I16, "I16", 1, 2),
    (I8, "I8", 1, 1),
    (U64, "U64", 1, 8),
    (U32, "U32", 1, 4),
    (U16, "U16", 1, 2),
    (U8, "U8", 1, 1),
    (Bool, "BOOL", 1, 1),
];

const BLOCKS: [Row; 8] = [
    (Q4_0, "Q4_0", 32, 2 + 16),
    (Q4_1, "Q4_1", 32, 4 + 16),
    (Q5_0, "Q5_0", 32, 2 + 4 + 16),
    (Q5_1, "Q5_1", 32, 4 + 4 + 16),
    (Q8_0, "Q8_0", 32, 2 + 32),
    (Q4K, "Q4_K", 256, 4 + 12 + 128),
    (Q5K, "Q5_K", 256, 4 + 12 + 32 + 128),
    (Q6K, "Q6_K", 256, 128 + 64 + 16 + 2),
];

/// Numbers of the types in GGUF.
const GGUF: [(u32, Encoding); 11] = [
    (0, F32),
    (1, F16),
    (2, Q4_0),
    (3, Q4_1),
    (6, Q5_0),
    (7, Q5_1),
    (8, Q8_0),
    (12, Q4K),
    (13, Q5K),
    (14, Q6K),
    (30, Bf16),
];

impl Encoding {
    /// Types that safetensors can hold, for messages.
    pub(crate) const OF_SAFETENSORS: &'static str =
        "F32, F16, BF16, F64, F8_E4M3, F8_E5M2, BOOL or whole numbers of 8 to 64 bits";

    /// Types that GGUF can hold, for messages.
    pub(crate) const OF_GGUF: &'static str =
        "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K";

    /// The type with this name in safetensors.
    pub fn from_safetensors(name: &str) -> Option<Self> {
        let known = PLAIN.iter().find(|row| row.1 == name);
        known.map(|row| row.0)
    }

    /// The type with this number in GGUF.
    pub fn from_gguf(id: u32) -> Option<Self> {
        let known = GGUF.iter().find(|(known, _)| *known == id);
        known.map(|(_, encoding)| *encoding)
    }

    /// Number in GGUF; `None` for types that GGUF lacks.
    pub fn gguf_id(self) -> Option<u32> {
        let known = GGUF.iter().find(|(_, known)| *known == self);
        known.map(|(id, _)| *id)
    }

    fn row(self) -> &'static Row {
        let (plain, blocks) = (PLAIN.len(), self as usize);
        match blocks.checked_sub(plain) {
            None => &PLAIN[self as usize],
            Some(block) => &BLOCKS[block],
        }
    }

    /// Name in the formats, such as `BF16` or `Q4_K`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Number of elements that are stored together; 1 unless they are quantised.
    pub fn block_elements(self) -> usize {
        self.row().2
    }

    /// Number of bytes of these elements.
    pub fn block_bytes(self) -> usize {
        self.row().3
    }

    /// Whether a tensor consists of blocks that each have a scale.
    pub fn is_quantized(self) -> bool {
        self.block_elements() > 1
    }

    /// Size in bytes of a tensor of this shape, outermost dimension first; `None` if it overflows,
    /// or if rows are not whole blocks.
    pub fn bytes(self, shape: &[u64]) -> Option<u64> {
        let (elements, bytes) = (self.block_elements() as u64, self.block_bytes() as u64);
        let all = shape
            .iter()
            .try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
        let row = shape.last().copied().unwrap_or(1);
        let whole = row.is_multiple_of(elements);
        whole.then_some(all / elements)?.checked_mul(bytes)
    }

    /// Elements of a tensor as f32: exact for f32, bf16 and f16; blocks are dequantised with the
    /// bits of llama.cpp's reference. `None` for other types. Bytes after the last whole block are
    /// left out.
    pub fn to_f32(self, bytes: &[u8]) -> Option<Vec<f32>> {
        let halves = || bytes.as_chunks::<2>().0.iter().copied();
        let words = || bytes.as_chunks::<4>().0.iter().copied();
        Some(match self {
            F32 => words().map(f32::from_le_bytes).collect(),
            Bf16 => halves().map(|b| bf16::from_le_bytes(b).to_f32()).collect(),
            F16 => halves().map(|b| f16::from_le_bytes(b).to_f32()).collect(),
            _ => {
                let decode = blocks::decoder(self)?;
                let blocks = bytes.chunks_exact(self.block_bytes());
                let mut values = vec![0.0; blocks.len() * self.block_elements()];
                for (block, values) in blocks.zip(values.chunks_exact_mut(self.block_elements())) {
                    decode(block, values);
                }
                values
            }
        })
    }
}

/// Writes the name as device types have it: `bf16`, `q4_k`.
impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name().to_lowercase())
    }
}
