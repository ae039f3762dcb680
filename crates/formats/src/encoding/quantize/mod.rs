//! Converts f32 to the encodings of GGUF. Each block gets the scales for which the error of what is
//! stored is smallest among those that are tried; blocks do not depend on each other.

mod blocks;
mod k;
mod search;

use super::Encoding::{self, *};
use half::{bf16, f16};
use std::thread;

/// Writes one block: elements, bytes.
type Encode = fn(&[f32], &mut [u8]);

/// Returns `None` for an encoding without blocks, or whose blocks are only read.
fn encoder(encoding: Encoding) -> Option<Encode> {
    Some(match encoding {
        Q4_0 => blocks::q4_0,
        Q5_0 => blocks::q5_0,
        Q5_1 => blocks::q5_1,
        Q8_0 => blocks::q8_0,
        Q4K => k::q4_k,
        Q5K => k::q5_k,
        Q6K => k::q6_k,
        _ => return None,
    })
}

impl Encoding {
    /// Elements as little-endian bytes of this encoding, computed by `threads` threads (at least
    /// one); the bytes do not depend on their number. f32 is kept, f16 and bf16 are rounded to the
    /// nearest, and blocks (Q4_0, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K) are quantised. `None` for other
    /// encodings, and for elements that are not whole blocks.
    ///
    /// What is too large for f16 becomes infinite; scales of blocks are f16, so their elements must
    /// be at most 65,504.
    pub fn encode(self, elements: &[f32], threads: usize) -> Option<Vec<u8>> {
        match self {
            F32 => return Some(elements.iter().flat_map(|x| x.to_le_bytes()).collect()),
            F16 => {
                let halves = elements.iter().map(|&x| f16::from_f32(x).to_le_bytes());
                return Some(halves.flatten().collect());
            }
            Bf16 => {
                let halves = elements.iter().map(|&x| bf16::from_f32(x).to_le_bytes());
                return Some(halves.flatten().collect());
            }
            _ => {}
        }
        let encode = encoder(self)?;
        let (size, width) = (self.block_elements(), self.block_bytes());
        if !elements.len().is_multiple_of(size) {
            return None;
        }
        let blocks = elements.len() / size;
        let mut bytes = vec![0; blocks * width];
        // Many more parts than threads would cost more than they balance; blocks take equal times.
        let part = blocks.div_ceil(threads.max(1)).max(1);
        let run = |elements: &[f32], bytes: &mut [u8]| {
            for (block, bytes) in elements
                .chunks_exact(size)
                .zip(bytes.chunks_exact_mut(width))
            {
                encode(block, bytes);
            }
        };
        thread::scope(|scope| {
            let parts = elements.chunks(part * size);
            let mut parts = parts.zip(bytes.chunks_mut(part * width));
            let own = parts.next();
            for (elements, bytes) in parts {
                scope.spawn(move || run(elements, bytes));
            }
            if let Some((elements, bytes)) = own {
                run(elements, bytes);
            }
        });
        Some(bytes)
    }
}

#[cfg(test)]
mod tests;
