//! Attention on the CPU: blocks of 64 queries × 64 keys, without tokens × tokens in memory.
//!
//! Scores are held transposed, `[keys, queries]`: the softmax then runs over rows with a query in
//! each lane, `q` is the side that is packed (once for a block of queries), and both uses of the
//! probabilities read them as they stand. Blocks are counted from the start of the range, and every
//! sum goes over blocks in ascending order: the bits of a range depend neither on its place nor on
//! the number of threads, nor on how the work is divided. Of a pair of blocks only the tiles of 16 × 16 in
//! which something is seen are computed: sequences are often shorter than a block.

mod backward;
mod block;
mod forward;
mod seen;

use super::{Attention, Backward, Forward};
use crate::{Checked, KernelError};
use std::marker::PhantomData;
use tightrope_device::Cpu;

impl Attention for Cpu {
    fn attention_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        forward::run(self, args.on(self)?)
    }

    fn attention_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError> {
        backward::run(self, args.on(self)?)
    }
}

/// Memory into which several threads write rows of their own.
struct Shared<'a> {
    start: *mut f32,
    len: usize,
    memory: PhantomData<&'a mut [f32]>,
}

// SAFETY: whoever takes a part promises that nobody else holds it.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    fn new(slice: &'a mut [f32]) -> Self {
        Self {
            start: slice.as_mut_ptr(),
            len: slice.len(),
            memory: PhantomData,
        }
    }

    /// The elements from `start` on.
    ///
    /// # Safety
    /// No other part that is alive overlaps.
    #[allow(
        clippy::mut_from_ref,
        reason = "the caller sees to it that no two parts overlap"
    )]
    unsafe fn part(&self, start: usize, len: usize) -> &mut [f32] {
        assert!(
            start <= self.len && len <= self.len - start,
            "outside the buffer"
        );
        // SAFETY: inside the slice that `self` borrows; apart from others as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), len) }
    }
}
