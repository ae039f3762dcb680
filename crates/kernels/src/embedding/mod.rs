//! Embedding gather, and its scatter in the backward pass.

mod cpu;
#[cfg(test)]
mod tests;

use crate::{
    Check, Checked, KernelError,
    check::{at_least, exact, weight},
};
use tightrope_device::{DType, Device, Tensor};

/// `y[t,:] = scale · table[ids[t],:]`.
#[derive(Debug)]
pub struct Forward<'a, D: Device> {
    /// Token ids, u32 `[tokens]`.
    pub ids: &'a Tensor<D>,
    /// `[vocabulary, hidden]`; f32, bf16 or f16.
    pub table: &'a Tensor<D>,
    /// √hidden for Gemma, else 1.
    pub scale: f32,
    /// Overwritten, f32 `[tokens, hidden]`.
    pub y: &'a mut Tensor<D>,
    /// Rows to compute.
    pub tokens: usize,
    /// Rows of the table.
    pub vocabulary: usize,
    /// Features.
    pub hidden: usize,
}

/// `dtable[ids[t],:] += scale · dy[t,:]`, in the order of `t`.
#[derive(Debug)]
pub struct Backward<'a, D: Device> {
    /// Token ids, u32 `[tokens]`.
    pub ids: &'a Tensor<D>,
    /// f32 `[tokens, hidden]`.
    pub dy: &'a Tensor<D>,
    /// As in the forward pass.
    pub scale: f32,
    /// Added into, f32 `[vocabulary, hidden]`.
    pub dtable: &'a mut Tensor<D>,
    /// Rows of `dy`.
    pub tokens: usize,
    /// Rows of the table.
    pub vocabulary: usize,
    /// Features.
    pub hidden: usize,
}

/// Embedding gather and scatter. Ids outside the vocabulary are [`KernelError::Index`].
pub trait Embedding: Device {
    /// Writes `y`.
    fn embedding_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError>;
    /// Adds into `dtable`.
    fn embedding_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError>;
}

impl<D: Device> Check for Forward<'_, D> {
    fn check(&self) -> Result<(), KernelError> {
        at_least("ids", self.ids, DType::U32, &[self.tokens])?;
        weight("table", self.table, &[self.vocabulary, self.hidden])?;
        at_least("y", self.y, DType::F32, &[self.tokens, self.hidden])
    }
}

impl<D: Device> Check for Backward<'_, D> {
    fn check(&self) -> Result<(), KernelError> {
        at_least("ids", self.ids, DType::U32, &[self.tokens])?;
        at_least("dy", self.dy, DType::F32, &[self.tokens, self.hidden])?;
        exact("dtable", self.dtable, &[self.vocabulary, self.hidden])
    }
}
