//! Moments in 8 bits, 2 bytes for each element and 8 for each block of 256.

use super::{Moments, Part};
use crate::config::OptimizerState;
use tightrope_device::{ALIGNMENT, DType, DeviceError, Tensor, View, ViewMut};
use tightrope_kernels::{
    Check, KernelError,
    adamw_8bit::{BLOCK, Hyperparameters, Moment, Update},
    dynamic_map::DynamicMap,
};
use tightrope_model::Backend;

#[derive(Debug)]
pub(super) struct EightBits<D: Backend> {
    m: Quantized<D>,
    v: Quantized<D>,
}

#[derive(Debug)]
struct Quantized<D: Backend> {
    /// `[elements]`.
    codes: Tensor<D>,
    /// One scale for each block.
    absmax: Tensor<D>,
}

const _: () = assert!(ALIGNMENT.is_multiple_of(BLOCK * size_of::<f32>()));

impl<D: Backend> EightBits<D> {
    pub(super) fn zeros(device: &D, elements: usize) -> Result<Self, DeviceError> {
        Ok(Self {
            m: Quantized::zeros(device, elements, DynamicMap::signed())?,
            v: Quantized::zeros(device, elements, DynamicMap::unsigned())?,
        })
    }
}

impl<D: Backend> Quantized<D> {
    /// Every code stands for 0, even in the gaps between parameters, which no file stores: there it
    /// must be 0 whatever the scale of the block is.
    fn zeros(device: &D, elements: usize, map: &DynamicMap) -> Result<Self, DeviceError> {
        const AT_ONCE: usize = 1 << 20;
        let mut codes = Tensor::zeros(device, DType::U8, &[elements])?;
        let zero = vec![map.nearest(0.0); AT_ONCE.min(elements)];
        for first in (0..elements).step_by(AT_ONCE) {
            let end = elements.min(first + AT_ONCE);
            let part = codes.view_mut().elements(first..end)?;
            part.write(&zero[..end - first])?;
        }
        Ok(Self {
            codes,
            absmax: Tensor::zeros(device, DType::F32, &[elements.div_ceil(BLOCK)])?,
        })
    }

    fn moment(&mut self) -> Moment<'_, D> {
        Moment {
            codes: self.codes.view_mut(),
            absmax: self.absmax.view_mut(),
        }
    }
}

impl<D: Backend> Moments<D> for EightBits<D> {
    fn state(&self) -> OptimizerState {
        OptimizerState::EightBits
    }

    fn update(
        &mut self,
        weight: ViewMut<'_, D>,
        gradient: View<'_, D>,
        hyperparameters: Hyperparameters,
    ) -> Result<(), KernelError> {
        let device = gradient.device();
        let update = Update {
            weight,
            gradient,
            m: self.m.moment(),
            v: self.v.moment(),
            hyperparameters,
        };
        device.adamw_8bit_update(update.checked()?)
    }

    fn parts(&mut self) -> Vec<Part<'_, D>> {
        let (m, v) = (&mut self.m, &mut self.v);
        let parts = [
            ("m.codes", &mut m.codes, 1),
            ("m.absmax", &mut m.absmax, BLOCK),
            ("v.codes", &mut v.codes, 1),
            ("v.absmax", &mut v.absmax, BLOCK),
        ];
        parts
            .into_iter()
            .map(|(name, numbers, block)| Part {
                name,
                numbers: numbers.view_mut(),
                block,
            })
            .collect()
    }
}
