//! AdamW over the parameters of a model.

mod moments;

use crate::{
    TrainError,
    checkpoint::{read_tensors, write_tensors},
    config::{OptimizerSection, OptimizerState},
};
use moments::{Moments, Part, state_of};
use serde::Serialize;
use std::{collections::BTreeSet, ops::Range, path::Path};
use tightrope_device::{DType, Tensor, View, ViewMut};
use tightrope_kernels::{Check, adamw::Hyperparameters, sum_of_squares::Sum};
use tightrope_model::{Backend, ParameterKind, ParameterMut, TrainableModel};

const FILE: &str = "optimizer.safetensors";

/// First and second moments of every trained parameter, with the treatment of each kind: matrices
/// and embeddings decay, norms and biases do not; the B matrices of adapters have `lora_plus_ratio`
/// times the learning rate.
#[derive(Debug)]
pub struct Optimizer<D: Backend> {
    settings: OptimizerSection,
    lora_plus_ratio: f64,
    groups: Vec<Group<D>>,
}

/// Parameters that lie side by side and are treated alike, with one update for all.
#[derive(Debug)]
struct Group<D: Backend> {
    decay: bool,
    is_lora_b: bool,
    parameters: Vec<Parameter>,
    moments: Box<dyn Moments<D>>,
}

/// A parameter and its place in the group.
#[derive(Debug)]
struct Parameter {
    name: String,
    shape: Vec<usize>,
    elements: Range<usize>,
}

/// Part of the optimizer's state with one kind of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StatePlan {
    /// Kind of storage.
    pub state: OptimizerState,
    /// Number of tensors of parameters with this storage.
    pub tensors: u64,
    /// Number of elements in these tensors.
    pub parameters: u64,
    /// Size of their moments in bytes, scales included.
    pub bytes: u64,
}

impl<D: Backend> Optimizer<D> {
    /// Creates zero moments for every parameter.
    pub fn new(
        model: &mut TrainableModel<D>,
        settings: &OptimizerSection,
        lora_plus_ratio: f64,
    ) -> Result<Self, TrainError> {
        let device = model.device().clone();
        let mut parameters = model.parameters();
        let mut groups = Vec::new();
        while !parameters.is_empty() {
            let state = |p: &ParameterMut<'_, D>| state_of(settings.state, p.weight.len());
            let neighbours = parameters.windows(2).take_while(|pair| {
                let [one, next] = [&pair[0], &pair[1]];
                one.weight.precedes(next.weight)
                    && one.gradient.precedes(next.gradient)
                    && treatment(one) == treatment(next)
                    && state(one) == state(next)
            });
            let rest = parameters.split_off(1 + neighbours.count());
            let first = &parameters[0];
            let (state, (decay, is_lora_b)) = (state(first), treatment(first));
            let mut members = Vec::new();
            let start = first.weight.view().as_ptr().addr();
            for parameter in &parameters {
                let bytes = parameter.weight.view().as_ptr().addr() - start;
                let first = bytes / size_of::<f32>();
                members.push(Parameter {
                    name: parameter.name.to_owned(),
                    shape: parameter.weight.shape().to_vec(),
                    elements: first..first + parameter.weight.len(),
                });
            }
            let weights = View::joined(parameters.iter().map(|p| &*p.weight))?;
            let elements = weights.map_or(0, |weights| weights.len());
            groups.push(Group {
                decay,
                is_lora_b,
                parameters: members,
                moments: moments::zeros(state, &device, elements)?,
            });
            parameters = rest;
        }
        Ok(Self {
            settings: settings.clone(),
            lora_plus_ratio,
            groups,
        })
    }

    /// Storage of the moments: most parameters as configured, small ones in f32. The storage of
    /// most parameters comes first.
    pub fn plan(&mut self) -> Result<Vec<StatePlan>, TrainError> {
        let mut plans: Vec<StatePlan> = Vec::new();
        for group in &mut self.groups {
            let state = group.moments.state();
            let known = plans.iter().position(|plan| plan.state == state);
            let known = known.unwrap_or_else(|| {
                plans.push(StatePlan {
                    state,
                    tensors: 0,
                    parameters: 0,
                    bytes: 0,
                });
                plans.len() - 1
            });
            let plan = &mut plans[known];
            plan.tensors += group.parameters.len() as u64;
            let elements = group.parameters.iter().map(|p| p.elements.len() as u64);
            plan.parameters += elements.sum::<u64>();
            let parts = group.parts()?;
            plan.bytes += parts
                .iter()
                .map(|(_, part)| part.bytes() as u64)
                .sum::<u64>();
        }
        plans.sort_by_key(|plan| std::cmp::Reverse(plan.parameters));
        Ok(plans)
    }

    /// Does one update, with `step` counted from 1, after scaling the gradients down to the largest
    /// global norm; `grad_norm` is the norm before scaling.
    pub fn update(
        &mut self,
        model: &mut TrainableModel<D>,
        step: u64,
        learning_rate: f64,
        grad_norm: f64,
    ) -> Result<(), TrainError> {
        let largest = self.settings.max_grad_norm;
        let gradient_scale = if largest > 0.0 && grad_norm > largest {
            largest / grad_norm
        } else {
            1.0
        };
        let parameters = model.parameters();
        self.check(&parameters)?;
        let mut parameters = parameters.into_iter();
        for group in &mut self.groups {
            let members = parameters.by_ref().take(group.parameters.len());
            let (weights, gradients): (Vec<_>, Vec<_>) = members
                .map(|parameter| (parameter.weight, &*parameter.gradient))
                .unzip();
            let (weights, gradients) = (ViewMut::joined(weights)?, View::joined(gradients)?);
            let (Some(weights), Some(gradients)) = (weights, gradients) else {
                continue;
            };
            let ratio = match group.is_lora_b {
                true => self.lora_plus_ratio,
                false => 1.0,
            };
            let hyperparameters = Hyperparameters {
                learning_rate: learning_rate * ratio,
                beta1: self.settings.beta1,
                beta2: self.settings.beta2,
                eps: self.settings.eps,
                weight_decay: match group.decay {
                    true => self.settings.weight_decay,
                    false => 0.0,
                },
                step,
                gradient_scale,
            };
            group.moments.update(weights, gradients, hyperparameters)?;
        }
        Ok(())
    }

    /// Refuses parameters that differ, by name, from those of the moments.
    fn check(&self, parameters: &[ParameterMut<'_, D>]) -> Result<(), TrainError> {
        let kept = self.groups.iter().flat_map(|group| &group.parameters);
        let kept = kept.map(|p| (p.name.as_str(), p.elements.len()));
        let given = parameters.iter().map(|p| (p.name, p.weight.len()));
        if kept.clone().eq(given.clone()) {
            return Ok(());
        }
        let kept: BTreeSet<_> = kept.collect();
        let given: BTreeSet<_> = given.collect();
        let other = kept.symmetric_difference(&given).next();
        Err(TrainError::OtherParameters {
            name: other.map_or("their order", |(name, _)| name).to_owned(),
        })
    }

    /// Writes the moments into a checkpoint.
    pub(crate) fn write(&mut self, checkpoint: &Path) -> Result<(), TrainError> {
        let about = self.about();
        let parts = self.parts()?;
        let parts = parts
            .into_iter()
            .map(|(name, part)| (name, part.into_view()));
        write_tensors(&checkpoint.join(FILE), &about, parts)
    }

    /// Reads the moments from a checkpoint with the same storage.
    pub(crate) fn read(&mut self, checkpoint: &Path) -> Result<(), TrainError> {
        let about = self.about();
        read_tensors(&checkpoint.join(FILE), &about, self.parts()?)
    }

    /// Whether every moment is finite; for moments in 8 bits, whether every scale is. Blocks once.
    pub(crate) fn is_finite(&mut self, device: &D) -> Result<bool, TrainError> {
        let groups = self.groups.iter_mut();
        let parts = groups.flat_map(|group| group.moments.parts());
        let parts = parts.map(|part| part.numbers.into_view());
        let floats: Vec<_> = parts.filter(|part| part.dtype() == DType::F32).collect();
        let args = Sum { tensors: &floats };
        Ok(device.sum_of_squares(args.checked()?)?.is_finite())
    }

    fn about(&self) -> [(&'static str, &'static str); 1] {
        [("optimizer.state", self.settings.state.name())]
    }

    /// State of each parameter, in its shape, by its name in files.
    fn parts(&mut self) -> Result<Vec<(String, ViewMut<'_, D>)>, TrainError> {
        let mut all = Vec::new();
        for group in &mut self.groups {
            all.extend(group.parts()?);
        }
        Ok(all)
    }
}

impl<D: Backend> Group<D> {
    /// State of each parameter, in its shape, by its name in files.
    fn parts(&mut self) -> Result<Vec<(String, ViewMut<'_, D>)>, TrainError> {
        let mut all = Vec::new();
        for Part {
            name,
            numbers: mut rest,
            block,
        } in self.moments.parts()
        {
            let mut at = 0;
            for parameter in &self.parameters {
                let Range { start, end } = parameter.elements;
                let (first, behind) = (start / block, end.div_ceil(block));
                let (_, from_first) = rest.split_rows(first - at)?;
                let (own, others) = from_first.split_rows(behind - first)?;
                let own = match block {
                    1 => own.reshaped(&parameter.shape)?,
                    _ => own,
                };
                all.push((format!("{}.{name}", parameter.name), own));
                (rest, at) = (others, behind);
            }
        }
        Ok(all)
    }
}

/// Treatment of a parameter: whether it decays, and whether it is the B of an adapter.
fn treatment<D: Backend>(parameter: &ParameterMut<'_, D>) -> (bool, bool) {
    let is_lora_b = parameter.kind == ParameterKind::LoraB;
    (parameter.decay, is_lora_b)
}

/// `Σ x²` over all trained parameters, or over their gradients. Blocks once.
fn sum_of_squares<D: Backend>(
    model: &mut TrainableModel<D>,
    which: impl for<'a> Fn(&'a ParameterMut<'_, D>) -> &'a Tensor<D>,
) -> Result<f64, TrainError> {
    let device = model.device().clone();
    let parameters = model.parameters();
    let joined = View::joined(parameters.iter().map(which))?;
    let args = Sum {
        tensors: joined.as_slice(),
    };
    Ok(device.sum_of_squares(args.checked()?)?)
}

/// Whether every trained weight is finite. Blocks once.
pub(crate) fn weights_are_finite<D: Backend>(
    model: &mut TrainableModel<D>,
) -> Result<bool, TrainError> {
    Ok(sum_of_squares(model, |parameter| parameter.weight)?.is_finite())
}

/// `√(Σ g²)` over all gradients; not finite exactly if one of them is not. Blocks once.
pub fn gradient_norm<D: Backend>(model: &mut TrainableModel<D>) -> Result<f64, TrainError> {
    Ok(sum_of_squares(model, |parameter| parameter.gradient)?.sqrt())
}
