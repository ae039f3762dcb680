//! NF4: weights in 4 bits, as in QLoRA.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;
mod quantize;
#[cfg(test)]
mod tests;

pub(crate) use cpu::HostRows;
pub use quantize::{Quantized, QuantizedScales, quantize, quantize_scales};

use crate::{Check, Checked, KernelError, check::Operands};
use tightrope_device::{DType, Device, View, ViewMut};

/// Number of elements that share a scale.
pub const BLOCK: usize = 64;
/// Number of scales that share a scale, if scales are quantised themselves.
pub const SCALE_BLOCK: usize = 256;

/// Values of the codes: quantiles of the normal distribution, from −1 to 1, with 0 among them
/// (Dettmers et al., 2023).
pub const VALUES: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Scale of each block: the largest magnitude of its elements.
#[derive(Debug)]
pub enum Scales<'a, D: Device> {
    /// Plain scales, f32 `[blocks]`.
    Plain(View<'a, D>),
    /// Double quantisation: the scale of block `b` is `map(codes[b]) · absmax[b / 256] + offset`,
    /// with the signed [dynamic map](crate::dynamic_map::DynamicMap).
    Quantized {
        /// u8 `[blocks]`.
        codes: View<'a, D>,
        /// f32 `[blocks / 256]`, rounded up.
        absmax: View<'a, D>,
        /// Mean of all scales.
        offset: f32,
    },
}

/// Elements in NF4, laid out as in bitsandbytes.
#[derive(Debug)]
pub struct Weight<'a, D: Device> {
    /// Two elements in a byte, the first in the high half; u8 `[elements / 2]`, rounded up.
    pub codes: View<'a, D>,
    /// Scales of `elements / 64` blocks, rounded up.
    pub scales: Scales<'a, D>,
}

/// `y[i] = VALUES[code(i)] · scale[i / 64]`, computed in f32 and rounded to the type of `y`.
#[derive(Debug)]
pub struct Dequantize<'a, D: Device> {
    /// `[elements]`.
    pub weight: Weight<'a, D>,
    /// Overwritten, `[elements]`; f32 or bf16.
    pub y: ViewMut<'a, D>,
    /// Number of elements to compute.
    pub elements: usize,
}

/// Weights in NF4. `y` is of a type of activations. A scale that is not finite makes
/// its block not finite. Weights are quantised on the host ([`quantize`]).
pub trait Nf4: Device {
    /// Writes `y`.
    fn nf4_dequantize(&self, args: Checked<Dequantize<'_, Self>>) -> Result<(), KernelError>;
}

impl<D: Device> Clone for Scales<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device> Copy for Scales<'_, D> {}

impl<D: Device> Clone for Weight<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device> Copy for Weight<'_, D> {}

impl<'a, D: Device> Weight<'a, D> {
    /// Checks that there are `elements` elements.
    pub(crate) fn check(
        &self,
        operands: &mut Operands<'a, D>,
        elements: usize,
    ) -> Result<(), KernelError> {
        let blocks = elements.div_ceil(BLOCK);
        operands.at_least("codes", self.codes, DType::U8, &[elements.div_ceil(2)])?;
        match self.scales {
            Scales::Plain(scales) => operands.at_least("scales", scales, DType::F32, &[blocks]),
            Scales::Quantized { codes, absmax, .. } => {
                operands.at_least("scales.codes", codes, DType::U8, &[blocks])?;
                let groups = blocks.div_ceil(SCALE_BLOCK);
                operands.at_least("scales.absmax", absmax, DType::F32, &[groups])
            }
        }
    }
}

impl<D: Device> Check for Dequantize<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        self.weight.check(operands, self.elements)?;
        let dtype = operands.activation("y", self.y.as_view())?;
        operands.at_least("y", self.y.as_view(), dtype, &[self.elements])
    }
}
