//! Working memory as a slice of f32.

use crate::KernelError;
use std::ops::{Deref, DerefMut};
use tightrope_device::{Cpu, DType, Device};

/// `len` f32 of unspecified content, returned to the pool when dropped.
pub(crate) struct Scratch<'a>(tightrope_device::Scratch<'a, Cpu>);

impl<'a> Scratch<'a> {
    /// Takes memory from the device's pool.
    pub(crate) fn take(cpu: &'a Cpu, len: usize) -> Result<Self, KernelError> {
        Ok(Self(cpu.scratch(DType::F32, &[len])?))
    }
}

impl Deref for Scratch<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        bytemuck::cast_slice(self.0.view().as_bytes())
    }
}

impl DerefMut for Scratch<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.0.view_mut().into_bytes())
    }
}
