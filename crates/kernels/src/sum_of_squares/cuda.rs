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

const SUM: usize = size_of::<f64>();

impl SumOfSquares for Cuda {
    fn sums_of_squares(&self, args: Checked<Sum<'_, Self>>) -> Result<Vec<f64>, KernelError> {
        let tensors = args.on(self)?.tensors;
        if tensors.is_empty() {
            return Ok(Vec::new());
        }
        let chunks_of = |tensor: &View<'_, Cuda>| tensor.len().div_ceil(CHUNK);
        let chunks: usize = tensors.iter().map(chunks_of).sum();
        let mut sums = self.scratch(DType::U8, &[chunks * SUM])?;
        let mut totals = self.scratch(DType::U8, &[tensors.len() * SUM])?;
        let (mut rest, mut rest_of_totals) = (sums.view_mut(), totals.view_mut());
        for &tensor in tensors {
            let (mut own, others) = rest.split_rows(chunks_of(&tensor) * SUM)?;
            let (total, other_totals) = rest_of_totals.split_rows(SUM)?;
            (rest, rest_of_totals) = (others, other_totals);
            let kernel = SumOfSquaresChunks {
                x: Input::of(tensor),
                elements: tensor.len() as u64,
                chunk: CHUNK as u64,
                sums: Output::of(own.reborrow()),
            };
            let launch = Launch::linear(chunks_of(&tensor), THREADS)?;
            // SAFETY: the tensor is of this type and has this many elements; each chunk has room
            // for its sum.
            unsafe { self.launch(kernel, &[tensor.dtype().name()], launch) }?;
            let kernel = SumOfSquaresTotal {
                sums: Input::of(own.as_view()),
                total: Output::of(total),
                chunks: chunks_of(&tensor) as u64,
            };
            // SAFETY: there are this many sums, and room for the total.
            unsafe { self.launch(kernel, &[], Launch::linear(1, TOTAL_THREADS)?) }?;
        }
        let bytes = totals.view().to_vec::<u8>()?;
        let totals = bytes.as_chunks::<SUM>().0.iter();
        Ok(totals.map(|bytes| f64::from_ne_bytes(*bytes)).collect())
    }

    fn sum_of_squares(&self, args: Checked<Sum<'_, Self>>) -> Result<f64, KernelError> {
        Ok(self.sums_of_squares(args)?.iter().sum())
    }
}
