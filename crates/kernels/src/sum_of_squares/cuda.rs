//! Sums of squares on NVIDIA GPUs.

use super::{
    Sum, SumOfSquares,
    kernel::{SumOfSquaresChunks, SumOfSquaresTotal},
};
use crate::{Checked, KernelError};
use tightrope_device::{
    Cuda, DType, Device, View,
    cuda::{Input, Launch, Output},
};

const THREADS: u32 = 256;
const TOTAL_THREADS: u32 = 1024;
/// Number of elements in a block. It is fixed, so that the order of additions follows from the
/// lengths.
const CHUNK: usize = 1 << 16;

impl SumOfSquares for Cuda {
    fn sum_of_squares(&self, args: Checked<Sum<'_, Self>>) -> Result<f64, KernelError> {
        let tensors = args.on(self)?.tensors;
        let chunks_of = |tensor: &View<'_, Cuda>| tensor.len().div_ceil(CHUNK);
        let chunks: usize = tensors.iter().map(chunks_of).sum();
        if chunks == 0 {
            return Ok(0.0);
        }
        const SUM: usize = size_of::<f64>();
        let mut sums = self.scratch(DType::U8, &[chunks * SUM])?;
        let mut rest = sums.view_mut();
        for &tensor in tensors {
            let (own, others) = rest.split_rows(chunks_of(&tensor) * SUM)?;
            rest = others;
            let kernel = SumOfSquaresChunks {
                x: Input::of(tensor),
                elements: tensor.len() as u64,
                chunk: CHUNK as u64,
                sums: Output::of(own),
            };
            let launch = Launch::linear(chunks_of(&tensor), THREADS)?;
            // SAFETY: the tensor is f32 and has this many elements; each chunk has room for its
            // sum.
            unsafe { self.launch(kernel, &[], launch) }?;
        }
        let kernel = SumOfSquaresTotal {
            sums: Output::of(sums.view_mut()),
            chunks: chunks as u64,
        };
        // SAFETY: there are this many sums.
        unsafe { self.launch(kernel, &[], Launch::linear(1, TOTAL_THREADS)?) }?;
        let mut total = [0u8; SUM];
        sums.view().read(&mut total)?;
        Ok(f64::from_ne_bytes(total))
    }
}
