//! Muon for the matrices of layers.

use super::{Extent, Joined, Part, Rule, Step, rows_and_columns};
use crate::config::{AdjustLr, MuonSettings};
use tightrope_device::{DType, DeviceError, Tensor, View};
use tightrope_kernels::{
    Check, KernelError,
    muon::{Hyperparameters, Momentum, Orthogonalize, orthogonalize},
    sum_of_squares::Sum,
};
use tightrope_model::Backend;

#[derive(Debug)]
pub(super) struct Muon<D: Backend> {
    settings: MuonSettings,
    /// Momentum, `[elements]`.
    m: Tensor<D>,
}

impl<D: Backend> Muon<D> {
    pub(super) fn new(settings: &MuonSettings, weights: View<'_, D>) -> Result<Self, DeviceError> {
        Ok(Self {
            settings: *settings,
            m: Tensor::zeros(weights.device(), DType::F32, &[weights.len()])?,
        })
    }
}

impl<D: Backend> Rule<D> for Muon<D> {
    fn update(&mut self, group: Joined<'_, D>, step: &Step) -> Result<(), KernelError> {
        let Joined {
            mut weights,
            mut gradients,
            members,
        } = group;
        let device = weights.device();
        let momentum = Momentum {
            weight: weights.reborrow(),
            gradient: gradients.reborrow(),
            m: self.m.view_mut(),
            hyperparameters: Hyperparameters {
                learning_rate: step.learning_rate,
                momentum: self.settings.momentum,
                nesterov: self.settings.nesterov,
                weight_decay: step.weight_decay,
                gradient_scale: step.gradient_scale,
            },
        };
        device.muon_momentum(momentum.checked()?)?;
        // The norms of all matrices at once, so that the device is waited for once.
        let directions = gradients.as_view();
        let directions = members
            .iter()
            .map(|member| directions.elements(member.elements.clone()));
        let directions: Vec<_> = directions.collect::<Result<_, _>>()?;
        let args = Sum {
            tensors: &directions,
        };
        let squares = device.sums_of_squares(args.checked()?)?;
        for ((member, direction), square) in members.iter().zip(directions).zip(squares) {
            let (rows, columns) = rows_and_columns(member);
            let weight = weights.reborrow().elements(member.elements.clone())?;
            orthogonalize(Orthogonalize {
                weight,
                direction,
                norm: square.sqrt(),
                rate: -step.learning_rate * adjusted(self.settings.adjust_lr, rows, columns),
                steps: self.settings.ns_steps,
                rows,
                columns,
            })?;
        }
        Ok(())
    }

    fn parts(&mut self) -> Result<Vec<Part<'_, D>>, DeviceError> {
        Ok(vec![Part {
            name: "m",
            of: Extent::Blocks(1),
            numbers: self.m.view_mut(),
        }])
    }
}

/// Factor of the learning rate for a matrix of this shape.
fn adjusted(how: AdjustLr, rows: usize, columns: usize) -> f64 {
    let (rows, columns) = (rows as f64, columns as f64);
    match how {
        AdjustLr::Original => (rows / columns).max(1.0).sqrt(),
        AdjustLr::MatchRmsAdamw => 0.2 * rows.max(columns).sqrt(),
    }
}
