//! What is swept: one file for each suite.

pub(crate) mod batching;
pub(crate) mod kernels;
pub(crate) mod optimizer;
pub(crate) mod packing;
mod rows;
pub(crate) mod step;
