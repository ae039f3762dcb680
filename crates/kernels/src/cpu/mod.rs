//! Code that the CPU implementations of several operations share.

pub(crate) mod float;
pub(crate) mod math;
pub(crate) mod scratch;

/// Number of elements in a block: about ten microseconds of work, and small enough for the
/// second-level cache.
const BLOCK_ELEMENTS: usize = 16 * 1024;

/// Number of rows of `width` elements in a block. Up to four blocks, 65,536 elements, stay on the
/// calling thread ([`tightrope_device::Cpu::for_each_block`]).
pub(crate) fn block_rows(width: usize) -> usize {
    (BLOCK_ELEMENTS / width.max(1)).max(1)
}
