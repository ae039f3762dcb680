//! Embedding gather, and its scatter in the backward pass.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;
#[cfg(test)]
mod tests;

use crate::{Check, Checked, KernelError, check::Operands};
use tightrope_device::{DType, Device, View, ViewMut};

/// `y[t,:] = scale · table[ids[t],:]`.
#[derive(Debug)]
pub struct Forward<'a, D: Device> {
    /// Token ids, u32 `[tokens]`.
    pub ids: View<'a, D>,
    /// `[vocabulary, hidden]`; f32, bf16 or f16.
    pub table: View<'a, D>,
    /// Factor of the rows: √hidden for Gemma, else 1.
    pub scale: f32,
    /// Overwritten, `[tokens, hidden]`; f32 or bf16.
    pub y: ViewMut<'a, D>,
    /// Number of rows to compute.
    pub tokens: usize,
    /// Number of rows of the table.
    pub vocabulary: usize,
    /// Number of features.
    pub hidden: usize,
}

/// `dtable[ids[t],:] += scale · dy[t,:]`, with fused multiply-adds in the order of `t`.
#[derive(Debug)]
pub struct Backward<'a, D: Device> {
    /// Token ids, u32 `[tokens]`.
    pub ids: View<'a, D>,
    /// `[tokens, hidden]`; f32 or bf16.
    pub dy: View<'a, D>,
    /// As in the forward pass.
    pub scale: f32,
    /// Added into, f32 `[vocabulary, hidden]`.
    pub dtable: ViewMut<'a, D>,
    /// Number of rows of `dy`.
    pub tokens: usize,
    /// Number of rows of the table.
    pub vocabulary: usize,
    /// Number of features.
    pub hidden: usize,
}

/// Embedding gather and scatter. The arithmetic is f32; `y` and `dy` have a type of activations.
///
/// An id outside the vocabulary gives [`KernelError::Index`] on the CPU, and nothing is written. A
/// GPU could report it only by blocking: there it is a trap, after which every call of the device
/// fails. Callers check ids on the host, where they come from.
pub trait Embedding: Device {
    /// Writes `y`.
    fn embedding_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError>;
    /// Adds into `dtable`.
    fn embedding_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError>;
}

impl<D: Device> Check for Forward<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        operands.at_least("ids", self.ids, DType::U32, &[self.tokens])?;
        operands.weight("table", self.table, &[self.vocabulary, self.hidden])?;
        let dtype = operands.activation("y", self.y.as_view())?;
        operands.at_least("y", self.y.as_view(), dtype, &[self.tokens, self.hidden])
    }
}

impl<D: Device> Check for Backward<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        operands.at_least("ids", self.ids, DType::U32, &[self.tokens])?;
        let dtype = operands.activation("dy", self.dy)?;
        operands.at_least("dy", self.dy, dtype, &[self.tokens, self.hidden])?;
        operands.exact(
            "dtable",
            self.dtable.as_view(),
            &[self.vocabulary, self.hidden],
        )
    }
}
