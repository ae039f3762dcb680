//! The plan of memory: every buffer of a model, known before the first is allocated.
//!
//! What lays a model out ([`weights`](crate::weights), [`activations`](crate::activations)) is
//! written once, over [`Allocate`]. Run with a [`Plan`] it only notes each buffer; run with an
//! [`Allocator`] it allocates the same buffers. The two cannot drift apart.

use crate::ModelError;
use tightrope_device::{DType, Device, Tensor};

/// What a buffer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The model's own parameters.
    Weights,
    /// The adapter's parameters.
    Adapter,
    /// Gradients of trained parameters.
    Gradients,
    /// Kept from the forward to the backward pass.
    Saved,
    /// Inputs of a batch, and what operations use in passing.
    Workspace,
}

/// One buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedBuffer {
    /// The parameter's name, or what it holds: `layer 3: gate`.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// Type of its elements.
    pub dtype: DType,
    /// Its dimensions.
    pub shape: Vec<usize>,
}

impl PlannedBuffer {
    /// Its size, at most `usize::MAX`.
    pub fn bytes(&self) -> usize {
        let elements = self.shape.iter().fold(1usize, |a, &b| a.saturating_mul(b));
        elements.saturating_mul(self.dtype.size())
    }
}

/// Every buffer of a model, in the order of allocation.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Plan {
    buffers: Vec<PlannedBuffer>,
}

impl Plan {
    /// The buffers.
    pub fn buffers(&self) -> &[PlannedBuffer] {
        &self.buffers
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> usize {
        let sizes = self.buffers.iter().map(PlannedBuffer::bytes);
        sizes.fold(0, usize::saturating_add)
    }

    /// Bytes of the buffers with one purpose.
    pub fn bytes_for(&self, purpose: Purpose) -> usize {
        let of_purpose = self.buffers.iter().filter(|b| b.purpose == purpose);
        of_purpose
            .map(PlannedBuffer::bytes)
            .fold(0, usize::saturating_add)
    }
}

/// Where buffers come from.
pub(crate) trait Allocate {
    /// What stands for a buffer.
    type Buffer;
    /// The buffer, zeroed.
    fn allocate(&mut self, buffer: PlannedBuffer) -> Result<Self::Buffer, ModelError>;
}

/// Notes what would be allocated.
impl Allocate for Plan {
    type Buffer = ();
    fn allocate(&mut self, buffer: PlannedBuffer) -> Result<(), ModelError> {
        self.buffers.push(buffer);
        Ok(())
    }
}

/// Allocates on a device, and notes it.
pub(crate) struct Allocator<'a, D> {
    pub device: &'a D,
    pub plan: Plan,
}

impl<D: Device> Allocate for Allocator<'_, D> {
    type Buffer = Tensor<D>;
    fn allocate(&mut self, buffer: PlannedBuffer) -> Result<Tensor<D>, ModelError> {
        let tensor = Tensor::zeros(self.device, buffer.dtype, &buffer.shape)?;
        self.plan.allocate(buffer)?;
        Ok(tensor)
    }
}
