//! Moments in 8 bits, 2 bytes for each element of the parameter and 8 for each block of 256.

use super::Moments;
use crate::config::OptimizerState;
use tightrope_device::{DType, DeviceError, Tensor};
use tightrope_kernels::{
    Check, KernelError,
    adamw_8bit::{BLOCK, Hyperparameters, Moment, Update},
};
use tightrope_model::Backend;

#[derive(Debug)]
pub(super) struct EightBits<D: Backend> {
    m: Quantized<D>,
    v: Quantized<D>,
}

#[derive(Debug)]
struct Quantized<D: Backend> {
    /// Of the parameter's shape.
    codes: Tensor<D>,
    absmax: Tensor<D>,
}

impl<D: Backend> EightBits<D> {
    pub fn zeros(device: &D, shape: &[usize]) -> Result<Self, DeviceError> {
        let elements: usize = shape.iter().product();
        let zeros = || {
            Ok(Quantized {
                codes: Tensor::zeros(device, DType::U8, shape)?,
                absmax: Tensor::zeros(device, DType::F32, &[elements.div_ceil(BLOCK)])?,
            })
        };
        Ok(Self {
            m: zeros()?,
            v: zeros()?,
        })
    }
}

impl<D: Backend> Quantized<D> {
    fn moment(&mut self) -> Moment<'_, D> {
        Moment {
            codes: &mut self.codes,
            absmax: &mut self.absmax,
        }
    }
}

impl<D: Backend> Moments<D> for EightBits<D> {
    fn state(&self) -> OptimizerState {
        OptimizerState::EightBits
    }

    fn update(
        &mut self,
        weight: &mut Tensor<D>,
        gradient: &Tensor<D>,
        hyperparameters: Hyperparameters,
    ) -> Result<(), KernelError> {
        let device = weight.device().clone();
        let update = Update {
            weight,
            gradient,
            m: self.m.moment(),
            v: self.v.moment(),
            hyperparameters,
        };
        device.adamw_8bit_update(update.checked()?)
    }

    fn tensors(&mut self) -> Vec<(&'static str, &mut Tensor<D>)> {
        vec![
            ("m.codes", &mut self.m.codes),
            ("m.absmax", &mut self.m.absmax),
            ("v.codes", &mut self.v.codes),
            ("v.absmax", &mut self.v.absmax),
        ]
    }
}
