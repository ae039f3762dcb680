//! What is swept: one file for each suite.

pub mod batching;
pub mod kernels;
pub mod optimizer;
pub mod packing;
mod rows;
pub mod step;
