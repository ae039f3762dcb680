//! AdamW, with moments in f32, bf16 or 8 bits.

use super::{Extent, Joined, Part, Rule, Step};
use crate::config::{AdamwSettings, OptimizerState};
use tightrope_device::{ALIGNMENT, DType, DeviceError, Tensor, View};
use tightrope_kernels::{
    Check, KernelError,
    adamw::{Hyperparameters, Update},
    adamw_8bit::{self, BLOCK, Moment},
    dynamic_map::DynamicMap,
};
use tightrope_model::Backend;

/// Creates zero moments for these weights.
pub(super) fn rule<D: Backend>(
    settings: &AdamwSettings,
    state: OptimizerState,
    weights: View<'_, D>,
) -> Result<Box<dyn Rule<D>>, DeviceError> {
    let (device, elements) = (weights.device(), weights.len());
    let settings = *settings;
    let floats = |dtype| {
        Ok(Box::new(Floats {
            settings,
            m: Tensor::zeros(device, dtype, &[elements])?,
            v: Tensor::zeros(device, dtype, &[elements])?,
        }))
    };
    Ok(match state {
        OptimizerState::F32 => floats(DType::F32)?,
        OptimizerState::Bf16 => floats(DType::BF16)?,
        OptimizerState::EightBits => Box::new(EightBits {
            settings,
            m: Quantized::zeros(device, elements, DynamicMap::signed())?,
            v: Quantized::zeros(device, elements, DynamicMap::unsigned())?,
        }),
    })
}

fn hyperparameters(settings: &AdamwSettings, step: &Step) -> Hyperparameters {
    Hyperparameters {
        learning_rate: step.learning_rate,
        beta1: settings.beta1,
        beta2: settings.beta2,
        eps: settings.eps,
        weight_decay: step.weight_decay,
        step: step.number,
        gradient_scale: step.gradient_scale,
    }
}

/// Moments in f32 or bf16, both `[elements]`.
#[derive(Debug)]
struct Floats<D: Backend> {
    settings: AdamwSettings,
    m: Tensor<D>,
    v: Tensor<D>,
}

impl<D: Backend> Rule<D> for Floats<D> {
    fn update(&mut self, group: Joined<'_, D>, step: &Step) -> Result<(), KernelError> {
        let device = group.gradients.device();
        let update = Update {
            weight: group.weights,
            gradient: group.gradients.into_view(),
            m: self.m.view_mut(),
            v: self.v.view_mut(),
            hyperparameters: hyperparameters(&self.settings, step),
        };
        device.adamw_update(update.checked()?)
    }

    fn parts(&mut self) -> Result<Vec<Part<'_, D>>, DeviceError> {
        let moments = [("m", &mut self.m), ("v", &mut self.v)].into_iter();
        let parts = moments.map(|(name, moment)| Part {
            name,
            of: Extent::Blocks(1),
            numbers: moment.view_mut(),
        });
        Ok(parts.collect())
    }
}

/// Moments in 8 bits, 2 bytes for each element and 8 for each block of 256.
#[derive(Debug)]
struct EightBits<D: Backend> {
    settings: AdamwSettings,
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

impl<D: Backend> Rule<D> for EightBits<D> {
    fn update(&mut self, group: Joined<'_, D>, step: &Step) -> Result<(), KernelError> {
        let device = group.gradients.device();
        let update = adamw_8bit::Update {
            weight: group.weights,
            gradient: group.gradients.into_view(),
            m: self.m.moment(),
            v: self.v.moment(),
            hyperparameters: hyperparameters(&self.settings, step),
        };
        device.adamw_8bit_update(update.checked()?)
    }

    fn parts(&mut self) -> Result<Vec<Part<'_, D>>, DeviceError> {
        let (m, v) = (&mut self.m, &mut self.v);
        let parts = [
            ("m.codes", &mut m.codes, 1),
            ("m.absmax", &mut m.absmax, BLOCK),
            ("v.codes", &mut v.codes, 1),
            ("v.absmax", &mut v.absmax, BLOCK),
        ];
        let parts = parts.into_iter().map(|(name, numbers, block)| Part {
            name,
            of: Extent::Blocks(block),
            numbers: numbers.view_mut(),
        });
        Ok(parts.collect())
    }
}
