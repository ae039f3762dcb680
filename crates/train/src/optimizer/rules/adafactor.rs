//! Adafactor, with a second moment of its own for each parameter.

use super::{Extent, Joined, Part, Rule, Step, rows_and_columns};
use crate::{config::AdafactorSettings, optimizer::Parameter};
use tightrope_device::{DType, DeviceError, Tensor, View};
use tightrope_kernels::{
    Check, KernelError,
    adafactor::{Hyperparameters, SecondMoment, Update},
    sum_of_squares::Sum,
};
use tightrope_model::Backend;

/// Smallest root mean square of a parameter that scales its learning rate.
const LEAST_SCALE: f64 = 1e-3;

#[derive(Debug)]
pub(super) struct Adafactor<D: Backend> {
    settings: AdafactorSettings,
    /// Second moment of each parameter.
    v: Vec<Second<D>>,
    /// First moment, `[elements]`.
    m: Option<Tensor<D>>,
}

#[derive(Debug)]
enum Second<D: Backend> {
    Factored {
        /// `[rows]`.
        rows: Tensor<D>,
        /// `[columns]`.
        columns: Tensor<D>,
    },
    /// `[elements]`.
    Whole(Tensor<D>),
}

impl<D: Backend> Adafactor<D> {
    pub(super) fn new(
        settings: &AdafactorSettings,
        weights: View<'_, D>,
        members: &[Parameter],
    ) -> Result<Self, DeviceError> {
        let zeros = |len| Tensor::zeros(weights.device(), DType::F32, &[len]);
        let second = |member: &Parameter| {
            let (rows, columns) = rows_and_columns(member);
            Ok(match member.shape.len() {
                0 | 1 => Second::Whole(zeros(columns)?),
                _ => Second::Factored {
                    rows: zeros(rows)?,
                    columns: zeros(columns)?,
                },
            })
        };
        let m = settings.beta1.map(|_| zeros(weights.len()));
        Ok(Self {
            settings: *settings,
            v: members.iter().map(second).collect::<Result<_, _>>()?,
            m: m.transpose()?,
        })
    }

    /// Factor of the learning rate of each parameter.
    fn scales(&self, group: &Joined<'_, D>) -> Result<Vec<f64>, KernelError> {
        let members = group.members;
        if !self.settings.scale_parameter {
            return Ok(vec![1.0; members.len()]);
        }
        let weights = group.weights.as_view();
        let each = members
            .iter()
            .map(|member| weights.elements(member.elements.clone()));
        let each: Vec<_> = each.collect::<Result<_, _>>()?;
        let args = Sum { tensors: &each };
        let squares = weights.device().sums_of_squares(args.checked()?)?;
        let sizes = members.iter().map(|member| member.elements.len() as f64);
        let scale = |(square, size): (f64, f64)| (square / size).sqrt().max(LEAST_SCALE);
        Ok(squares.into_iter().zip(sizes).map(scale).collect())
    }
}

impl<D: Backend> Rule<D> for Adafactor<D> {
    fn update(&mut self, group: Joined<'_, D>, step: &Step) -> Result<(), KernelError> {
        let device = group.weights.device();
        let scales = self.scales(&group)?;
        let each = group.each().zip(&mut self.v).zip(scales);
        for ((member, v), scale) in each {
            let (member, weight, gradient) = member?;
            let (rows, columns) = rows_and_columns(member);
            let m = self.m.as_mut();
            let m = m.map(|m| m.view_mut().elements(member.elements.clone()));
            let update = Update {
                weight,
                gradient: gradient.into_view(),
                v: match v {
                    Second::Whole(v) => SecondMoment::Whole(v.view_mut()),
                    Second::Factored { rows, columns } => SecondMoment::Factored {
                        rows: rows.view_mut(),
                        columns: columns.view_mut(),
                    },
                },
                m: m.transpose()?,
                rows,
                columns,
                hyperparameters: Hyperparameters {
                    learning_rate: step.learning_rate * scale,
                    beta1: self.settings.beta1.unwrap_or(0.0),
                    decay_rate: self.settings.decay_rate,
                    eps: self.settings.eps,
                    clip_threshold: self.settings.clip_threshold,
                    weight_decay: step.weight_decay,
                    step: step.number,
                    gradient_scale: step.gradient_scale,
                },
            };
            device.adafactor_update(update.checked()?)?;
        }
        Ok(())
    }

    fn parts(&mut self) -> Result<Vec<Part<'_, D>>, DeviceError> {
        let mut parts = Vec::new();
        for (index, v) in self.v.iter_mut().enumerate() {
            let mut add = |name, numbers| {
                parts.push(Part {
                    name,
                    of: Extent::Parameter(index),
                    numbers,
                });
            };
            match v {
                Second::Whole(v) => add("v", v.view_mut()),
                Second::Factored { rows, columns } => {
                    add("v.rows", rows.view_mut());
                    add("v.columns", columns.view_mut());
                }
            }
        }
        parts.extend(self.m.as_mut().map(|m| Part {
            name: "m",
            of: Extent::Blocks(1),
            numbers: m.view_mut(),
        }));
        Ok(parts)
    }
}
