//! Converts elements to another type on NVIDIA GPUs: both operands of a matrix product need one
//! type.

mod cuda;
mod kernel;
#[cfg(test)]
mod tests;

pub use cuda::{Cast, cast};
