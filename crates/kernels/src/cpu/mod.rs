//! What the CPU implementations of several operations share.

pub(crate) mod matmul;
