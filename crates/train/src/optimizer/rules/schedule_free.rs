//! Schedule-free AdamW. The model holds `y`, at which gradients are taken; the run leaves the
//! average `x`.

use super::{Extent, Joined, Part, Rule, Step};
use crate::config::ScheduleFreeSettings;
use tightrope_device::{DType, DeviceError, Tensor, View, ViewMut};
use tightrope_kernels::{
    Check, KernelError,
    schedule_free::{Average, Hyperparameters, Update},
};
use tightrope_model::Backend;

#[derive(Debug)]
pub(super) struct ScheduleFree<D: Backend> {
    settings: ScheduleFreeSettings,
    /// Iterate, `[elements]`.
    z: Tensor<D>,
    /// Second moment, `[elements]`.
    v: Tensor<D>,
    /// Highest learning rate so far.
    highest: f64,
    /// Sum of the weights in the average so far.
    weights: f64,
    /// The bytes of both numbers, for files.
    numbers: Tensor<D>,
}

const SIZE: usize = size_of::<f64>();

impl<D: Backend> ScheduleFree<D> {
    pub(super) fn new(
        settings: &ScheduleFreeSettings,
        weights: View<'_, D>,
    ) -> Result<Self, DeviceError> {
        let (device, elements) = (weights.device(), weights.len());
        let mut z = Tensor::zeros(device, DType::F32, &[elements])?;
        z.view_mut().copy_from(weights)?;
        Ok(Self {
            settings: *settings,
            z,
            v: Tensor::zeros(device, DType::F32, &[elements])?,
            highest: 0.0,
            weights: 0.0,
            numbers: Tensor::zeros(device, DType::U8, &[2 * SIZE])?,
        })
    }
}

impl<D: Backend> Rule<D> for ScheduleFree<D> {
    fn update(&mut self, group: Joined<'_, D>, step: &Step) -> Result<(), KernelError> {
        let device = group.gradients.device();
        let settings = &self.settings;
        self.highest = self.highest.max(step.learning_rate);
        let weight =
            (step.number as f64).powf(settings.r) * self.highest.powf(settings.weight_lr_power);
        self.weights += weight;
        let update = Update {
            y: group.weights,
            gradient: group.gradients.into_view(),
            z: self.z.view_mut(),
            v: self.v.view_mut(),
            hyperparameters: Hyperparameters {
                learning_rate: step.learning_rate,
                beta1: settings.adamw.beta1,
                beta2: settings.adamw.beta2,
                eps: settings.adamw.eps,
                weight_decay: step.weight_decay,
                average: match self.weights > 0.0 {
                    true => weight / self.weights,
                    false => 0.0,
                },
                step: step.number,
                gradient_scale: step.gradient_scale,
            },
        };
        device.schedule_free_update(update.checked()?)
    }

    fn parts(&mut self) -> Result<Vec<Part<'_, D>>, DeviceError> {
        let numbers = [self.highest, self.weights].map(f64::to_le_bytes);
        self.numbers.write(numbers.as_flattened())?;
        let elements = Extent::Blocks(1);
        let parts = [
            ("z", elements, &mut self.z),
            ("v", elements, &mut self.v),
            // Those of the whole group lie with its first parameter.
            ("average", Extent::Parameter(0), &mut self.numbers),
        ];
        let parts = parts.into_iter().map(|(name, of, numbers)| Part {
            name,
            of,
            numbers: numbers.view_mut(),
        });
        Ok(parts.collect())
    }

    fn restored(&mut self) -> Result<(), DeviceError> {
        let bytes = self.numbers.to_vec::<u8>()?;
        if let [highest, weights] = bytes.as_chunks::<SIZE>().0 {
            self.highest = f64::from_le_bytes(*highest);
            self.weights = f64::from_le_bytes(*weights);
        }
        Ok(())
    }

    fn averages(&self) -> bool {
        true
    }

    fn average(&self, weights: ViewMut<'_, D>) -> Result<(), KernelError> {
        let device = self.z.device();
        let args = Average {
            y: weights,
            z: self.z.view(),
            beta1: self.settings.adamw.beta1,
        };
        device.schedule_free_average(args.checked()?)
    }
}
