//! Embedding gather, and its scatter in the backward pass.

mod cpu;
mod cuda;
mod kernel;
#[cfg(test)]
mod tests;

use crate::{
    Check, Checked, KernelError,
    check::{activation, at_least, exact, weight},
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
    /// Overwritten, `[tokens, hidden]`; f32, bf16 or f16.
    pub y: &'a mut Tensor<D>,
    /// Rows to compute.
    pub tokens: usize,
    /// Rows of the table.
    pub vocabulary: usize,
    /// Features.
    pub hidden: usize,
}

/// `dtable[ids[t],:] += scale · dy[t,:]`, fused and in the order of `t`.
#[derive(Debug)]
pub struct Backward<'a, D: Device> {
    /// Token ids, u32 `[tokens]`.
    pub ids: &'a Tensor<D>,
    /// `[tokens, hidden]`; f32, bf16 or f16.
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

/// Embedding gather and scatter. Arithmetic in f32, `y` and `dy` of any type (f32 on the CPU).
///
/// An id outside the vocabulary is [`KernelError::Index`] on the CPU, and nothing is written. A GPU
/// would have to be waited for to say so: there it is a trap, after which every call of the device
/// fails. Callers check ids on the host, where they come from.
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
        let dtype = activation("y", self.y)?;
        at_least("y", self.y, dtype, &[self.tokens, self.hidden])
    }
}

impl<D: Device> Check for Backward<'_, D> {
    fn check(&self) -> Result<(), KernelError> {
        at_least("ids", self.ids, DType::U32, &[self.tokens])?;
        let dtype = activation("dy", self.dy)?;
        at_least("dy", self.dy, dtype, &[self.tokens, self.hidden])?;
        exact("dtable", self.dtable, &[self.vocabulary, self.hidden])
    }
}
