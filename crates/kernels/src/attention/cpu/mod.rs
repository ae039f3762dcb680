//! Attention on the CPU: blocks of 64 queries × 64 keys, without tokens × tokens in memory.
//!
//! Scores are stored transposed, `[keys, queries]`: the softmax then runs over rows with one query
//! per lane, `q` is the packed operand (packed once for each block of queries), and both uses of
//! the probabilities read them without packing. Blocks are counted from the start of the range (keys
//! from that of its prefix), and every sum runs over blocks in ascending order: the bits of a range
//! depend neither on its place, nor on the number of threads, nor on the division of the work. Only
//! the tiles of 16 × 16 with visible pairs are computed in a pair of blocks, because sequences are
//! often shorter than a block. Activations of bf16 are widened block by block; the arithmetic is f32.

mod backward;
mod block;
mod forward;
mod seen;

use super::{Attention, Backward, Forward};
use crate::{Checked, KernelError};
use half::bf16;
use std::marker::PhantomData;
use tightrope_device::{Cpu, DType};

impl Attention for Cpu {
    fn attention_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        match args.q.dtype() {
            DType::BF16 => forward::run::<bf16>(self, args),
            _ => forward::run::<f32>(self, args),
        }
    }

    fn attention_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        match args.q.dtype() {
            DType::BF16 => backward::run::<bf16>(self, args),
            _ => backward::run::<f32>(self, args),
        }
    }
}

/// Memory in which several threads write separate rows.
struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    memory: PhantomData<&'a mut [T]>,
}

// SAFETY: the caller of `part` promises that no other part overlaps.
unsafe impl<T> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    fn new(slice: &'a mut [T]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            memory: PhantomData,
        }
    }

    /// Returns `len` elements from `start` on.
    ///
    /// # Safety
    /// No other live part may overlap.
    #[allow(
        clippy::mut_from_ref,
        reason = "the caller sees to it that no two parts overlap"
    )]
    unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(
            start <= self.len && len <= self.len - start,
            "outside the buffer"
        );
        // SAFETY: the part lies inside the slice that `self` borrows, and overlaps no other, as the
        // caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
