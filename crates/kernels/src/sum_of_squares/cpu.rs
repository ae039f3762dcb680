//! Sums of squares on the CPU: a fixed tree of blocks for each tensor, one tensor after the other.

use super::{Sum, SumOfSquares};
use crate::{Checked, KernelError, moment::Moment};
use half::bf16;
use tightrope_device::{Cpu, DType, View, vectorize};

/// Number of elements in a leaf of the tree.
const LEAF: usize = 16 * 1024;
/// Up to this number of elements the calling thread adds up the tree.
const SEQUENTIAL: usize = 4 * LEAF;

impl SumOfSquares for Cpu {
    fn sums_of_squares(&self, args: Checked<Sum<'_, Self>>) -> Result<Vec<f64>, KernelError> {
        let tensors = args.on(self)?.tensors.iter();
        tensors.map(|&tensor| sum(self, tensor)).collect()
    }

    fn sum_of_squares(&self, args: Checked<Sum<'_, Self>>) -> Result<f64, KernelError> {
        let mut tensors = args.on(self)?.tensors.iter();
        tensors.try_fold(0.0, |total, &tensor| Ok(total + sum(self, tensor)?))
    }
}

fn sum(cpu: &Cpu, tensor: View<'_, Cpu>) -> Result<f64, KernelError> {
    Ok(match tensor.dtype() {
        DType::BF16 => of(cpu, tensor.as_slice::<bf16>()?),
        _ => of(cpu, tensor.as_slice::<f32>()?),
    })
}

fn of<T: Moment>(cpu: &Cpu, x: &[T]) -> f64 {
    if x.len() <= SEQUENTIAL || cpu.threads() == 1 {
        tree(x, false)
    } else {
        cpu.install(|| tree(x, true))
    }
}

/// Both forms split at the same places and add in the same order.
fn tree<T: Moment>(x: &[T], parallel: bool) -> f64 {
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
    fn leaf<T: Moment>(x: &[T]) -> f64 {
        const LANES: usize = 16;
        let mut lanes = [0f64; LANES];
        let chunks = x.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for lane in 0..LANES {
                let value = f64::from(chunk[lane].get());
                lanes[lane] = value.mul_add(value, lanes[lane]);
            }
        }
        for (lane, &value) in lanes.iter_mut().zip(rest) {
            let value = f64::from(value.get());
            *lane = value.mul_add(value, *lane);
        }
        lanes.iter().sum()
    }
}
