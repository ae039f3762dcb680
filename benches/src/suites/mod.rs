//! The suites, one file for each.

pub(crate) mod batching;
pub(crate) mod kernels;
pub(crate) mod optimizer;
pub(crate) mod packing;
mod rows;
pub(crate) mod step;
