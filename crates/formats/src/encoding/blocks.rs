//! Converts quantised blocks of GGUF to f32, with the same operations in the same order as the
//! reference (`gguf.quants` of llama.cpp), and hence with the same bits.

use super::Encoding::{self, *};
use half::f16;

/// Writes the elements of one block.
type Decode = fn(&[u8], &mut [f32]);

/// Returns `None` for an encoding without blocks.
pub(super) fn decoder(encoding: Encoding) -> Option<Decode> {
    Some(match encoding {
        Q4_0 => q4_0,
        Q4_1 => q4_1,
        Q5_0 => q5_0,
        Q5_1 => q5_1,
        Q8_0 => q8_0,
        Q4K => q4_k,
        Q5K => q5_k,
        Q6K => q6_k,
        _ => return None,
    })
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Nibble `i` of 32: first the low halves of 16 bytes, then the high halves.
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

/// Five bits: a nibble, with bit `i` of four bytes above it.
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

/// Nibble of a sub-block of 32; two sub-blocks share 32 bytes, and the first has the low nibbles.
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

/// Six bits per element: 128 elements share 64 bytes of nibbles and 32 bytes of bit pairs.
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
            serde_json::from_str(include_str!("../../tests/gguf/blocks.json")).unwrap();
        let cases = cases.as_array().unwrap();
        assert_eq!(cases.len(), 8);
        for case in cases {
            let numbers = |key: &str| -> Vec<u64> {
                let list = case[key].as_array().unwrap();
                list.iter().map(|n| n.as_u64().unwrap()).collect()
            };
            let encoding = Encoding::from_gguf(case["id"].as_u64().unwrap() as u32).unwrap();
            assert_eq!(encoding.name(), case["name"]);
            let bytes: Vec<u8> = numbers("bytes").into_iter().map(|b| b as u8).collect();
            assert_eq!(bytes.len(), 2 * encoding.block_bytes());
            let values = encoding.to_f32(&bytes).unwrap();
            let bits: Vec<u64> = values.iter().map(|value| value.to_bits().into()).collect();
            assert_eq!(bits, numbers("bits"), "{}", encoding.name());
        }
    }
}
