//! The element types of GGUF, and how quantised blocks become f32: the same operations in the same
//! order as the reference (`gguf.quants` of llama.cpp), hence the same bits.

use half::f16;
use tightrope_device::DType;

/// How elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    F32,
    F16,
    Bf16,
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

impl Encoding {
    /// For messages.
    pub const KNOWN: &'static str =
        "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K";

    /// The format's number for it.
    pub fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => F32,
            1 => F16,
            2 => Q4_0,
            3 => Q4_1,
            6 => Q5_0,
            7 => Q5_1,
            8 => Q8_0,
            12 => Q4K,
            13 => Q5K,
            14 => Q6K,
            30 => Bf16,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            F32 => "F32",
            F16 => "F16",
            Bf16 => "BF16",
            Q4_0 => "Q4_0",
            Q4_1 => "Q4_1",
            Q5_0 => "Q5_0",
            Q5_1 => "Q5_1",
            Q8_0 => "Q8_0",
            Q4K => "Q4_K",
            Q5K => "Q5_K",
            Q6K => "Q6_K",
        }
    }

    /// Elements that are stored together.
    pub fn block_elements(self) -> usize {
        match self {
            F32 | F16 | Bf16 => 1,
            Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 => 32,
            Q4K | Q5K | Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            F32 => 4,
            F16 | Bf16 => 2,
            Q4_0 => 2 + 16,
            Q4_1 => 4 + 16,
            Q5_0 => 2 + 4 + 16,
            Q5_1 => 4 + 4 + 16,
            Q8_0 => 2 + 32,
            Q4K => 4 + 12 + 128,
            Q5K => 4 + 12 + 32 + 128,
            Q6K => 128 + 64 + 16 + 2,
        }
    }

    /// What elements become: floating-point types stay what they are.
    pub fn dtype(self) -> DType {
        match self {
            F16 => DType::F16,
            Bf16 => DType::BF16,
            _ => DType::F32,
        }
    }

    /// Whole blocks as little-endian bytes of [`Self::dtype`].
    pub fn decode(self, blocks: Vec<u8>) -> Vec<u8> {
        let decode: fn(&[u8], &mut [f32]) = match self {
            F32 | F16 | Bf16 => return blocks,
            Q4_0 => q4_0,
            Q4_1 => q4_1,
            Q5_0 => q5_0,
            Q5_1 => q5_1,
            Q8_0 => q8_0,
            Q4K => q4_k,
            Q5K => q5_k,
            Q6K => q6_k,
        };
        let elements = blocks.len() / self.block_bytes() * self.block_elements();
        let mut bytes = Vec::with_capacity(elements * 4);
        let mut values = vec![0f32; self.block_elements()];
        for block in blocks.chunks_exact(self.block_bytes()) {
            decode(block, &mut values);
            bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        bytes
    }
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Nibble `i` of 32: first the low halves of 16 bytes, then the high ones.
fn nibble(bytes: &[u8], i: usize) -> u8 {
    (bytes[i % 16] >> (i / 16 * 4)) & 0x0f
}

fn q4_0(block: &[u8], y: &mut [f32]) {
    let d = half(block, 0);
    for (i, y) in y.iter_mut().enumerate() {
        *y = d * (f32::from(nibble(&block[2..], i)) - 8.0);
    }
}

fn q4_1(block: &[u8], y: &mut [f32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (i, y) in y.iter_mut().enumerate() {
        *y = d * f32::from(nibble(&block[4..], i)) + m;
    }
}

/// Five bits: a nibble, and above it bit `i` of four bytes.
fn five(high: &[u8], low: &[u8], i: usize) -> f32 {
    let top = (high[i / 8] >> (i % 8)) & 1;
    f32::from(nibble(low, i) | top << 4)
}

fn q5_0(block: &[u8], y: &mut [f32]) {
    let d = half(block, 0);
    for (i, y) in y.iter_mut().enumerate() {
        *y = d * (five(&block[2..6], &block[6..], i) - 16.0);
    }
}

fn q5_1(block: &[u8], y: &mut [f32]) {
    let (d, m) = (half(block, 0), half(block, 2));
    for (i, y) in y.iter_mut().enumerate() {
        *y = d * five(&block[4..8], &block[8..], i) + m;
    }
}

fn q8_0(block: &[u8], y: &mut [f32]) {
    let d = half(block, 0);
    for (y, &q) in y.iter_mut().zip(&block[2..]) {
        *y = f32::from(q as i8) * d;
    }
}

/// Scale and minimum, six bits each, of sub-block `j` of 8.
fn scale_and_minimum(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, minimum) = match j {
        0..4 => (packed[j] & 0x3f, packed[j + 4] & 0x3f),
        _ => (
            (packed[j + 4] & 0x0f) | (packed[j - 4] >> 2) & 0x30,
            (packed[j + 4] >> 4) | (packed[j] >> 2) & 0x30,
        ),
    };
    (f32::from(scale), f32::from(minimum))
}

/// Sub-blocks of 32; two share 32 bytes, the first in the low nibbles.
fn k_nibble(bytes: &[u8], j: usize, i: usize) -> u8 {
    (bytes[j / 2 * 32 + i] >> (j % 2 * 4)) & 0x0f
}

fn q4_k(block: &[u8], y: &mut [f32]) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    for (j, y) in y.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(&block[4..16], j);
        let (d, m) = (d * scale, dmin * minimum);
        for (i, y) in y.iter_mut().enumerate() {
            *y = d * f32::from(k_nibble(&block[16..], j, i)) - m;
        }
    }
}

fn q5_k(block: &[u8], y: &mut [f32]) {
    let (d, dmin) = (half(block, 0), half(block, 2));
    let (high, low) = block[16..].split_at(32);
    for (j, y) in y.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(&block[4..16], j);
        let (d, m) = (d * scale, dmin * minimum);
        for (i, y) in y.iter_mut().enumerate() {
            let top = (high[i] >> j) & 1;
            *y = d * f32::from(k_nibble(low, j, i) | top << 4) - m;
        }
    }
}

/// Six bits: 128 elements share 64 bytes of nibbles and 32 bytes of bit pairs.
fn q6_k(block: &[u8], y: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (high, rest) = rest.split_at(64);
    let d = half(rest, 16);
    for (index, y) in y.iter_mut().enumerate() {
        let (part, i) = (index / 128, index % 128);
        let nibble = (low[part * 64 + i % 64] >> (i / 64 * 4)) & 0x0f;
        let pair = (high[part * 32 + i % 32] >> (i / 32 * 2)) & 0x03;
        let scale = f32::from(rest[index / 16] as i8);
        *y = d * scale * (f32::from(nibble | pair << 4) - 32.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn blocks_decode_to_the_bits_of_the_reference() {
        let cases: Value =
            serde_json::from_str(include_str!("../../../tests/gguf/blocks.json")).unwrap();
        let cases = cases.as_array().unwrap();
        assert_eq!(cases.len(), 8);
        for case in cases {
            let numbers = |key: &str| -> Vec<u64> {
                let list = case[key].as_array().unwrap();
                list.iter().map(|n| n.as_u64().unwrap()).collect()
            };
            let encoding = Encoding::from_id(case["id"].as_u64().unwrap() as u32).unwrap();
            assert_eq!(encoding.name(), case["name"]);
            let bytes: Vec<u8> = numbers("bytes").into_iter().map(|b| b as u8).collect();
            assert_eq!(bytes.len(), 2 * encoding.block_bytes());
            let words = encoding.decode(bytes);
            let words = words.as_chunks::<4>().0.iter().copied();
            let bits: Vec<u64> = words.map(|word| u32::from_le_bytes(word).into()).collect();
            assert_eq!(bits, numbers("bits"), "{}", encoding.name());
        }
    }
}
