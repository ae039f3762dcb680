//! Sums of squares on the CPU: a fixed tree of blocks for each tensor, one tensor after the other.

use super::{Sum, SumOfSquares};
use crate::{Checked, KernelError};
use tightrope_device::{Cpu, vectorize};

/// Number of elements in a leaf of the tree.
const LEAF: usize = 16 * 1024;
/// Up to this number of elements the calling thread adds up the tree.
const SEQUENTIAL: usize = 4 * LEAF;

impl SumOfSquares for Cpu {
    fn sum_of_squares(&self, args: Checked<Sum<'_, Self>>) -> Result<f64, KernelError> {
        let mut total = 0.0;
        for tensor in args.on(self)?.tensors {
            let x = tensor.as_slice::<f32>()?;
            total += if x.len() <= SEQUENTIAL || self.threads() == 1 {
                tree(x, false)
            } else {
                self.install(|| tree(x, true))
            };
        }
        Ok(total)
    }
}

/// Both forms split at the same places and add in the same order.
fn tree(x: &[f32], parallel: bool) -> f64 {
    if x.len() <= LEAF {
        return leaf(x);
    }
    let (left, right) = x.split_at(x.len().div_ceil(LEAF) / 2 * LEAF);
    let (left, right) = if parallel && x.len() > SEQUENTIAL {
        rayon::join(|| tree(left, true), || tree(right, true))
    } else {
        (tree(left, false), tree(right, false))
    };
    left + right
}

vectorize! {
    fn leaf(x: &[f32]) -> f64 {
        const LANES: usize = 16;
        let mut lanes = [0f64; LANES];
        let chunks = x.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for lane in 0..LANES {
                let value = f64::from(chunk[lane]);
                lanes[lane] = value.mul_add(value, lanes[lane]);
            }
        }
        for (lane, &value) in lanes.iter_mut().zip(rest) {
            let value = f64::from(value);
            *lane = value.mul_add(value, *lane);
        }
        lanes.iter().sum()
    }
}
