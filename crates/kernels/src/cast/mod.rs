//! Elements in another type, on NVIDIA GPUs: operands of matrix products are of one type.

mod cuda;
mod kernel;
#[cfg(test)]
mod tests;

pub use cuda::{Cast, cast};

pub(crate) use cuda::Converted;
