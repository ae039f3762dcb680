//! The optimizer over the parameters of a model.

mod group;
mod rules;

use crate::{
    TrainError,
    checkpoint::{read_tensors, write_tensors},
    config::{OptimizerKind, OptimizerSection, OptimizerState},
};
use group::{Group, Parameter, Treatment};
use rules::{Joined, Method, Step};
use serde::Serialize;
use std::{collections::BTreeSet, path::Path};
use tightrope_device::{Tensor, View, ViewMut};
use tightrope_kernels::{Check, sum_of_squares::Sum};
use tightrope_model::{Backend, ParameterKind, ParameterMut, Purpose, TrainableModel};

const FILE: &str = "optimizer.safetensors";

/// The state of every trained parameter, with the treatment of each kind: matrices and embeddings
/// decay, norms and biases do not; the B matrices of adapters have `lora_plus_ratio` times the
/// learning rate, embedding and head may have rates of their own.
#[derive(Debug)]
pub struct Optimizer<D: Backend> {
    settings: OptimizerSection,
    groups: Vec<Group<D>>,
}

/// Part of the optimizer's state with one rule and one kind of storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StatePlan {
    /// Rule of these parameters.
    pub kind: &'static str,
    /// Kind of storage.
    pub state: OptimizerState,
    /// Number of tensors of parameters with this storage.
    pub tensors: u64,
    /// Number of elements in these tensors.
    pub parameters: u64,
    /// Size of their state in bytes, scales included.
    pub bytes: u64,
}

/// Size in bytes of the state that an optimizer keeps for the trained parameters of a plan.
pub fn state_bytes(settings: &OptimizerSection, plan: &tightrope_model::Plan) -> u64 {
    let trained = plan.buffers().iter().filter(|buffer| {
        let is_parameter = matches!(buffer.purpose, Purpose::Weights | Purpose::Adapter);
        is_parameter && buffer.trained.is_some()
    });
    let bytes = trained.map(|buffer| {
        let method = buffer.trained.map(|kind| Method::of(&settings.kind, kind));
        let state = rules::state_of(settings, buffer.shape.iter().product());
        method.map_or(0, |method| {
            method.state_bytes(&settings.kind, state, &buffer.shape)
        })
    });
    bytes.sum()
}

impl<D: Backend> Optimizer<D> {
    /// Creates the state before the first step.
    pub fn new(
        model: &mut TrainableModel<D>,
        settings: &OptimizerSection,
        lora_plus_ratio: f64,
    ) -> Result<Self, TrainError> {
        let mut parameters = model.parameters();
        check_rates(settings, &parameters)?;
        let mut groups = Vec::new();
        while let Some(group) = Group::take(&mut parameters, settings, lora_plus_ratio)? {
            groups.push(group);
        }
        Ok(Self {
            settings: settings.clone(),
            groups,
        })
    }

    /// Storage of the state: most parameters as configured, small ones in f32. The storage of most
    /// parameters comes first.
    pub fn plan(&mut self) -> Result<Vec<StatePlan>, TrainError> {
        let mut plans: Vec<StatePlan> = Vec::new();
        for group in &mut self.groups {
            let plan = StatePlan::of(&group.treatment);
            let same = |known: &StatePlan| (known.kind, known.state) == (plan.kind, plan.state);
            let known = plans.iter().position(same).unwrap_or_else(|| {
                plans.push(plan);
                plans.len() - 1
            });
            let plan = &mut plans[known];
            plan.tensors += group.members.len() as u64;
            plan.parameters += group.elements();
            let parts = group.parts(None)?;
            let bytes = parts.iter().map(|(_, part)| part.bytes() as u64);
            plan.bytes += bytes.sum::<u64>();
        }
        plans.sort_by_key(|plan| std::cmp::Reverse(plan.parameters));
        Ok(plans)
    }

    /// Does one update, with `step` counted from 1, after scaling the gradients down to the largest
    /// global norm; `grad_norm` is the norm before scaling. The gradients may be overwritten.
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
        let weight_decay = self.settings.weight_decay;
        self.each_group(model, |group, weights, gradients| {
            let Treatment { decay, rate, .. } = group.treatment;
            let step = Step {
                number: step,
                learning_rate: learning_rate * rate,
                weight_decay: if decay { weight_decay } else { 0.0 },
                gradient_scale,
            };
            let joined = Joined {
                weights,
                gradients,
                members: &group.members,
            };
            Ok(group.rule.update(joined, &step)?)
        })
    }

    /// Overwrites trained weights with those that the run leaves, if they differ; until
    /// [`Optimizer::hide_averages`].
    pub fn show_averages(&mut self, model: &mut TrainableModel<D>) -> Result<(), TrainError> {
        self.each_group(model, |group, weights, _| group.show(weights))
    }

    /// Puts the weights back that are trained.
    pub fn hide_averages(&mut self, model: &mut TrainableModel<D>) -> Result<(), TrainError> {
        self.each_group(model, |group, weights, _| group.hide(weights))
    }

    /// Calls `f` with each group, its weights and its gradients.
    fn each_group<'m>(
        &mut self,
        model: &'m mut TrainableModel<D>,
        mut f: impl FnMut(&mut Group<D>, ViewMut<'m, D>, ViewMut<'m, D>) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let parameters = model.parameters();
        check(&self.groups, &parameters)?;
        let mut parameters = parameters.into_iter();
        for group in &mut self.groups {
            let members = parameters.by_ref().take(group.members.len());
            let (weights, gradients): (Vec<_>, Vec<_>) = members
                .map(|parameter| (parameter.weight, parameter.gradient))
                .unzip();
            let (weights, gradients) = (ViewMut::joined(weights)?, ViewMut::joined(gradients)?);
            if let (Some(weights), Some(gradients)) = (weights, gradients) {
                f(group, weights, gradients)?;
            }
        }
        Ok(())
    }

    /// Writes the state into a checkpoint.
    pub(crate) fn write(
        &mut self,
        model: &mut TrainableModel<D>,
        checkpoint: &Path,
    ) -> Result<(), TrainError> {
        let about = self.about();
        let parts = self.parts(model)?;
        let parts = parts
            .into_iter()
            .map(|(name, part)| (name, part.into_view()));
        write_tensors(&checkpoint.join(FILE), &about, parts)
    }

    /// Reads the state from a checkpoint of the same kind and storage; the model gets the weights
    /// that are trained, if these are not those that the run leaves.
    pub(crate) fn read(
        &mut self,
        model: &mut TrainableModel<D>,
        checkpoint: &Path,
    ) -> Result<(), TrainError> {
        let about = self.about();
        read_tensors(&checkpoint.join(FILE), &about, self.parts(model)?)?;
        let mut groups = self.groups.iter_mut();
        Ok(groups.try_for_each(|group| group.rule.restored())?)
    }

    /// Whether all of the state is finite; for moments in 8 bits, whether every scale is. Blocks
    /// once.
    pub(crate) fn is_finite(&mut self, device: &D) -> Result<bool, TrainError> {
        let mut floats = Vec::new();
        for group in &mut self.groups {
            let parts = group.rule.parts()?.into_iter();
            let parts = parts.map(|part| part.numbers.into_view());
            floats.extend(parts.filter(|part| part.dtype().is_float()));
        }
        let args = Sum { tensors: &floats };
        Ok(device.sum_of_squares(args.checked()?)?.is_finite())
    }

    fn about(&self) -> [(&'static str, &'static str); 2] {
        [
            ("optimizer.kind", self.settings.kind.name()),
            ("optimizer.state", self.settings.state.name()),
        ]
    }

    /// State of each parameter, in its shape, by its name in files.
    fn parts<'a>(
        &'a mut self,
        model: &'a mut TrainableModel<D>,
    ) -> Result<Vec<(String, ViewMut<'a, D>)>, TrainError> {
        let parameters = model.parameters();
        check(&self.groups, &parameters)?;
        let mut parameters = parameters.into_iter();
        let mut all = Vec::new();
        for group in &mut self.groups {
            let members = parameters.by_ref().take(group.members.len());
            let weights: Vec<_> = members.map(|parameter| parameter.weight).collect();
            all.extend(group.parts(ViewMut::joined(weights)?)?);
        }
        Ok(all)
    }
}

/// Refuses learning rates of parameters that are not trained.
fn check_rates<D: Backend>(
    settings: &OptimizerSection,
    parameters: &[ParameterMut<'_, D>],
) -> Result<(), TrainError> {
    let is_left = |p: &ParameterMut<'_, D>| Method::of(&settings.kind, p.kind) == Method::Adamw;
    let left = match &settings.kind {
        OptimizerKind::Muon(muon) => muon.adamw_learning_rate,
        _ => None,
    };
    let any = |wanted: &dyn Fn(&ParameterMut<'_, D>) -> bool| parameters.iter().any(wanted);
    for (key, rate, what, trained) in [
        (
            "optimizer.embedding_learning_rate",
            settings.embedding_learning_rate,
            "the embedding",
            any(&|p| p.kind == ParameterKind::Embedding),
        ),
        (
            "optimizer.head_learning_rate",
            settings.head_learning_rate,
            "a head that is not tied to the embedding",
            any(&|p| p.kind == ParameterKind::Head),
        ),
        (
            "optimizer.adamw_learning_rate",
            left,
            "anything but matrices of layers",
            any(&is_left),
        ),
    ] {
        if rate.is_some() && !trained {
            return Err(TrainError::RateOfNothing { key, what });
        }
    }
    Ok(())
}

/// Refuses parameters that differ, by name, from those of the groups.
fn check<D: Backend>(
    groups: &[Group<D>],
    parameters: &[ParameterMut<'_, D>],
) -> Result<(), TrainError> {
    let kept = groups.iter().flat_map(|group| &group.members);
    let kept = kept.map(|p: &Parameter| (p.name.as_str(), p.elements.len()));
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
