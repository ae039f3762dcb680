//! Groups of parameters: what decides how a parameter is treated, and the parameters that lie side
//! by side and are treated alike.

use super::rules::{self, Extent, Method, Part, Rule};
use crate::{
    TrainError,
    config::{OptimizerKind, OptimizerSection, OptimizerState},
};
use std::ops::Range;
use tightrope_device::{Tensor, View, ViewMut};
use tightrope_model::{Backend, ParameterKind, ParameterMut};

/// Parameters that lie side by side and are treated alike, with one rule for all.
#[derive(Debug)]
pub(super) struct Group<D: Backend> {
    pub treatment: Treatment,
    pub members: Vec<Parameter>,
    pub rule: Box<dyn Rule<D>>,
    /// The weights that are trained, while the model holds their averages.
    pub trained: Option<Tensor<D>>,
}

/// A parameter and its place in the group.
#[derive(Debug)]
pub(super) struct Parameter {
    pub name: String,
    pub shape: Vec<usize>,
    pub elements: Range<usize>,
}

/// How a parameter is treated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Treatment {
    pub method: Method,
    pub state: OptimizerState,
    /// Whether weight decay applies.
    pub decay: bool,
    /// Learning rate over that of the schedule.
    pub rate: f64,
}

impl Treatment {
    pub(super) fn of<D: Backend>(
        settings: &OptimizerSection,
        lora_plus_ratio: f64,
        parameter: &ParameterMut<'_, D>,
    ) -> Self {
        let kind = parameter.kind;
        let left = match &settings.kind {
            OptimizerKind::Muon(muon) => muon.adamw_learning_rate,
            _ => None,
        };
        let own = match kind {
            ParameterKind::Embedding => settings.embedding_learning_rate.or(left),
            ParameterKind::Head => settings.head_learning_rate.or(left),
            ParameterKind::Norm | ParameterKind::Bias | ParameterKind::Magnitude => left,
            ParameterKind::LoraA
            | ParameterKind::LoraB
            | ParameterKind::EmbeddingFactor
            | ParameterKind::Matrix => None,
        };
        Self {
            method: Method::of(&settings.kind, kind),
            state: rules::state_of(settings, parameter.weight.len()),
            decay: parameter.decay,
            rate: match (own, kind) {
                (Some(own), _) => own / settings.learning_rate,
                (None, ParameterKind::LoraB) => lora_plus_ratio,
                (None, _) => 1.0,
            },
        }
    }
}

impl<D: Backend> Group<D> {
    /// Takes the first parameters that belong together from the list.
    pub(super) fn take(
        parameters: &mut Vec<ParameterMut<'_, D>>,
        settings: &OptimizerSection,
        lora_plus_ratio: f64,
    ) -> Result<Option<Self>, TrainError> {
        let treatment =
            |parameter: &ParameterMut<'_, D>| Treatment::of(settings, lora_plus_ratio, parameter);
        let Some(first) = parameters.first() else {
            return Ok(None);
        };
        let treated = treatment(first);
        let neighbours = parameters.windows(2).take_while(|pair| {
            let [one, next] = [&pair[0], &pair[1]];
            one.weight.precedes(next.weight)
                && one.gradient.precedes(next.gradient)
                && treatment(next) == treated
        });
        let rest = parameters.split_off(1 + neighbours.count());
        let own = std::mem::replace(parameters, rest);
        let mut members = Vec::new();
        let start = own[0].weight.view().as_ptr().addr();
        for parameter in &own {
            let bytes = parameter.weight.view().as_ptr().addr() - start;
            let first = bytes / size_of::<f32>();
            members.push(Parameter {
                name: parameter.name.to_owned(),
                shape: parameter.weight.shape().to_vec(),
                elements: first..first + parameter.weight.len(),
            });
        }
        let Some(weights) = View::joined(own.iter().map(|p| &*p.weight))? else {
            return Ok(None);
        };
        let rule = rules::new(&settings.kind, &treated, weights, &members)?;
        Ok(Some(Self {
            treatment: treated,
            members,
            rule,
            trained: None,
        }))
    }

    /// Number of elements without the gaps.
    pub(super) fn elements(&self) -> u64 {
        let members = self.members.iter();
        members.map(|member| member.elements.len() as u64).sum()
    }

    /// State of each parameter, in its shape, by its name in files. If the group trains other
    /// weights than the run leaves, those (`weights`, of the whole group) are part of it.
    pub(super) fn parts<'a>(
        &'a mut self,
        weights: Option<ViewMut<'a, D>>,
    ) -> Result<Vec<(String, ViewMut<'a, D>)>, TrainError> {
        let mut all = Vec::new();
        let weights = weights
            .filter(|_| self.rule.averages())
            .map(|numbers| Part {
                name: "y",
                of: Extent::Blocks(1),
                numbers,
            });
        for part in self.rule.parts()?.into_iter().chain(weights) {
            let name = |member: &Parameter| format!("{}.{}", member.name, part.name);
            let block = match part.of {
                Extent::Parameter(index) => {
                    all.extend(self.members.get(index).map(|m| (name(m), part.numbers)));
                    continue;
                }
                Extent::Blocks(block) => block,
            };
            let (mut rest, mut at) = (part.numbers, 0);
            for member in &self.members {
                let Range { start, end } = member.elements;
                let (first, behind) = (start / block, end.div_ceil(block));
                let (_, from_first) = rest.split_rows(first - at)?;
                let (own, others) = from_first.split_rows(behind - first)?;
                let own = match block {
                    1 => own.reshaped(&member.shape)?,
                    _ => own,
                };
                all.push((format!("{}.{}", member.name, part.name), own));
                (rest, at) = (others, behind);
            }
        }
        Ok(all)
    }

    /// Overwrites the trained weights with their averages, and keeps a copy.
    pub(super) fn show(&mut self, weights: ViewMut<'_, D>) -> Result<(), TrainError> {
        if !self.rule.averages() || self.trained.is_some() {
            return Ok(());
        }
        let (dtype, elements) = (weights.dtype(), weights.len());
        let mut kept = Tensor::zeros(weights.device(), dtype, &[elements])?;
        kept.view_mut().copy_from(weights.as_view())?;
        self.trained = Some(kept);
        Ok(self.rule.average(weights)?)
    }

    /// Puts the trained weights back.
    pub(super) fn hide(&mut self, weights: ViewMut<'_, D>) -> Result<(), TrainError> {
        match self.trained.take() {
            Some(kept) => Ok(weights.copy_from(kept.view())?),
            None => Ok(()),
        }
    }
}
