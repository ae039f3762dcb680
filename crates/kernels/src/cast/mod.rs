//! Operands of matrix products on NVIDIA GPUs in one element type.

mod cuda;
mod kernel;
#[cfg(test)]
mod tests;

pub(crate) use cuda::Source;
