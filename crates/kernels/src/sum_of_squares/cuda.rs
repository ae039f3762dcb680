//! Sums of squares on NVIDIA GPUs.

use super::{
    Sum, SumOfSquares,
    kernel::{SumOfSquaresChunks, SumOfSquaresTotal},
};
use crate::{Checked, KernelError};
use tightrope_device::{Cuda, Tensor, cuda::Launch};

const THREADS: u32 = 256;
const TOTAL_THREADS: u32 = 1024;
/// Elements of a block. Fixed, so that the order of additions follows from the lengths.
const CHUNK: usize = 1 << 16;

/// Address, elements and first chunk of each tensor that has elements, as the kernel reads them;
/// and the number of all chunks.
fn table(tensors: &[&Tensor<Cuda>]) -> (Vec<[u64; 3]>, usize) {
    let mut chunks = 0;
    let tensors = tensors.iter().filter(|tensor| !tensor.is_empty());
    let entries = tensors.map(|tensor| {
        let first = chunks as u64;
        chunks += tensor.len().div_ceil(CHUNK);
        [tensor.buffer().address(), tensor.len() as u64, first]
    });
    (entries.collect(), chunks)
}

impl SumOfSquares for Cuda {
    fn sum_of_squares(&self, args: Checked<Sum<'_, Self>>) -> Result<f64, KernelError> {
        let (entries, chunks) = table(args.tensors);
        if chunks == 0 {
            return Ok(0.0);
        }
        let scratch = [
            self.scratch("sum_of_squares_table", size_of_val(&entries[..]))?,
            self.scratch("sum_of_squares_chunks", chunks * size_of::<f64>())?,
        ];
        let [mut table, mut sums] = scratch.each_ref().map(|scratch| scratch.hold());
        table.write(self, bytemuck::cast_slice(&entries))?;
        let kernel = SumOfSquaresChunks {
            table: table.input(),
            tensors: entries.len() as u64,
            chunk: CHUNK as u64,
            sums: sums.output(),
        };
        let launch = Launch::linear(chunks, THREADS)?;
        // SAFETY: the table names f32 tensors of this device, which the arguments borrow until the
        // sum has been read; there is room for the sum of each chunk.
        unsafe { kernel.launch(self, &[], launch) }?;
        let kernel = SumOfSquaresTotal {
            sums: sums.output(),
            chunks: chunks as u64,
        };
        // SAFETY: there are so many sums.
        unsafe { kernel.launch(self, &[], Launch::linear(1, TOTAL_THREADS)?) }?;
        let mut total = [0f64];
        sums.read(self, bytemuck::cast_slice_mut(&mut total))?;
        Ok(total[0])
    }
}
