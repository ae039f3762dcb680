//! AdamW with moments that are stored in 8 bits.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;
#[cfg(test)]
mod tests;

pub use crate::adamw::Hyperparameters;

use crate::{Check, Checked, KernelError, check::Operands};
use tightrope_device::{DType, Device, View, ViewMut};

/// Number of elements that share a scale.
pub const BLOCK: usize = 256;

/// Parameters with fewer elements should keep their moments in f32 ([`crate::adamw`]): these
/// moments are small, and norms and biases are sensitive. The owner of the moments decides.
pub const LEAST_ELEMENTS: usize = 4096;

/// A moment: element `i` is `absmax[i / 256] · map(codes[i])`. All zeros mean zero.
#[derive(Debug)]
pub struct Moment<'a, D: Device> {
    /// u8 `[elements]`.
    pub codes: ViewMut<'a, D>,
    /// Largest magnitude of each block, f32 `[elements / 256]`, rounded up.
    pub absmax: ViewMut<'a, D>,
}

/// One update of one parameter: [`crate::adamw::Update`] with moments that are decoded first; the
/// weight is updated with the new moments before they are encoded again.
///
/// Each new moment is divided by the new largest magnitude of its block and stored as the nearest
/// number of the [dynamic map](crate::dynamic_map::DynamicMap) (Dettmers et al., 2022), signed for
/// `m` and unsigned for `v`. A positive `v` never becomes zero: otherwise `m / √v` would explode in
/// a later step with a small gradient, as can happen in bitsandbytes.
///
/// An element of the gradient that is not finite makes the scale of its block not finite, because
/// no code stands for it.
#[derive(Debug)]
pub struct Update<'a, D: Device> {
    /// Updated in place, f32 `[elements]`.
    pub weight: ViewMut<'a, D>,
    /// f32 `[elements]`.
    pub gradient: View<'a, D>,
    /// First moment, updated in place.
    pub m: Moment<'a, D>,
    /// Second moment, updated in place.
    pub v: Moment<'a, D>,
    /// Hyperparameters of the update.
    pub hyperparameters: Hyperparameters,
}

/// AdamW with 8-bit moments. The arithmetic is f32, with the same bits on every device.
pub trait AdamW8bit: Device {
    /// Updates `weight`, `m` and `v`.
    fn adamw_8bit_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError>;
}

impl<D: Device> Check for Update<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        self.hyperparameters.check()?;
        let elements = self.weight.len();
        let blocks = elements.div_ceil(BLOCK);
        operands.at_least("weight", self.weight.as_view(), DType::F32, &[elements])?;
        operands.at_least("gradient", self.gradient, DType::F32, &[elements])?;
        operands.at_least("m.codes", self.m.codes.as_view(), DType::U8, &[elements])?;
        operands.at_least("m.absmax", self.m.absmax.as_view(), DType::F32, &[blocks])?;
        operands.at_least("v.codes", self.v.codes.as_view(), DType::U8, &[elements])?;
        operands.at_least("v.absmax", self.v.absmax.as_view(), DType::F32, &[blocks])
    }
}
