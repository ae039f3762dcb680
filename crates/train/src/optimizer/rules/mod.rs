//! The rules of optimizers: a file for each, and the choice among them.

mod adafactor;
mod adamw;
mod lion;
mod muon;
mod schedule_free;

use super::{Parameter, StatePlan, Treatment};
use crate::config::{OptimizerKind, OptimizerSection, OptimizerState};
use std::fmt::Debug;
use tightrope_device::{DeviceError, View, ViewMut};
use tightrope_kernels::{
    KernelError,
    adamw_8bit::{BLOCK, LEAST_ELEMENTS},
};
use tightrope_model::{Backend, ParameterKind};

/// How parameters that lie side by side and are treated alike follow their gradients, with the state
/// that this needs.
pub(super) trait Rule<D: Backend>: Debug + Send + Sync {
    /// Does one step: updates all weights and the state; may overwrite the gradients.
    fn update(&mut self, group: Joined<'_, D>, step: &Step) -> Result<(), KernelError>;

    /// All stored values.
    fn parts(&mut self) -> Result<Vec<Part<'_, D>>, DeviceError>;

    /// Takes note that the stored values were read from a file.
    fn restored(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Whether the weights that are trained are not those that the run leaves.
    fn averages(&self) -> bool {
        false
    }

    /// Overwrites trained weights with those that the run leaves.
    fn average(&self, _weights: ViewMut<'_, D>) -> Result<(), KernelError> {
        Ok(())
    }
}

/// A group of parameters for an update.
#[derive(Debug)]
pub(super) struct Joined<'a, D: Backend> {
    /// All weights, with the gaps between them.
    pub weights: ViewMut<'a, D>,
    /// All gradients, likewise.
    pub gradients: ViewMut<'a, D>,
    /// The parameters and their places.
    pub members: &'a [Parameter],
}

/// Numbers of an update.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    /// Counted from 1.
    pub number: u64,
    /// Learning rate of the group.
    pub learning_rate: f64,
    /// Weight decay of the group.
    pub weight_decay: f64,
    /// Factor of clipping by global norm.
    pub gradient_scale: f64,
}

/// Stored values.
#[derive(Debug)]
pub(super) struct Part<'a, D: Backend> {
    /// Name in files, after the name of the parameter.
    pub name: &'static str,
    /// Elements that the values belong to.
    pub of: Extent,
    /// The values.
    pub numbers: ViewMut<'a, D>,
}

/// Elements that stored values belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All elements of the group, one value for each block of this number of elements. Parameters
    /// begin at whole blocks, because an arena aligns them ([`tightrope_device::ALIGNMENT`]).
    Blocks(usize),
    /// One parameter of the group, by its index.
    Parameter(usize),
}

/// The rule of some parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Adamw,
    Muon,
    Adafactor,
    Lion,
    ScheduleFree,
}

impl Method {
    /// The rule of a kind of parameters: Muon leaves what is no matrix of a layer to AdamW.
    pub(super) fn of(optimizer: &OptimizerKind, parameter: ParameterKind) -> Self {
        match (optimizer, parameter) {
            (OptimizerKind::Adamw(_), _) => Self::Adamw,
            (
                OptimizerKind::Muon(_),
                ParameterKind::Matrix
                | ParameterKind::LoraA
                | ParameterKind::LoraB
                | ParameterKind::EmbeddingFactor,
            ) => Self::Muon,
            (OptimizerKind::Muon(_), _) => Self::Adamw,
            (OptimizerKind::Adafactor(_), _) => Self::Adafactor,
            (OptimizerKind::Lion(_), _) => Self::Lion,
            (OptimizerKind::ScheduleFree(_), _) => Self::ScheduleFree,
        }
    }

    /// Size in bytes of the state for a parameter.
    pub(super) fn state_bytes(
        self,
        optimizer: &OptimizerKind,
        state: OptimizerState,
        shape: &[usize],
    ) -> u64 {
        let elements: u64 = shape.iter().map(|&size| size as u64).product();
        let moment = match state {
            OptimizerState::F32 => 4 * elements,
            OptimizerState::Bf16 => 2 * elements,
            // A scale for each block.
            OptimizerState::EightBits => elements + 4 * elements.div_ceil(BLOCK as u64),
        };
        match (self, optimizer) {
            (Self::Adamw, _) => 2 * moment,
            (Self::Lion, _) => moment,
            (Self::Muon, _) => 4 * elements,
            (Self::ScheduleFree, _) => 8 * elements,
            (Self::Adafactor, kind) => {
                let columns = shape.last().copied().unwrap_or(1) as u64;
                let second = match shape.len() {
                    0 | 1 => elements,
                    _ => elements / columns.max(1) + columns,
                };
                let beta1 = match kind {
                    OptimizerKind::Adafactor(settings) => settings.beta1,
                    _ => None,
                };
                4 * (second + beta1.map_or(0, |_| elements))
            }
        }
    }

    /// Name in reports.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Adamw => "adamw",
            Self::Muon => "muon",
            Self::Adafactor => "adafactor",
            Self::Lion => "lion",
            Self::ScheduleFree => "schedule-free",
        }
    }
}

/// Creates the rule of a group with these weights.
pub(super) fn new<D: Backend>(
    optimizer: &OptimizerKind,
    treatment: &Treatment,
    weights: View<'_, D>,
    members: &[Parameter],
) -> Result<Box<dyn Rule<D>>, DeviceError> {
    Ok(match optimizer {
        OptimizerKind::Adamw(settings) => adamw::rule(settings, treatment.state, weights)?,
        OptimizerKind::Muon(settings) if treatment.method == Method::Muon => {
            Box::new(muon::Muon::new(settings, weights)?)
        }
        OptimizerKind::Muon(settings) => adamw::rule(&settings.adamw, treatment.state, weights)?,
        OptimizerKind::Adafactor(settings) => {
            Box::new(adafactor::Adafactor::new(settings, weights, members)?)
        }
        OptimizerKind::Lion(settings) => {
            Box::new(lion::Lion::new(settings, treatment.state, weights)?)
        }
        OptimizerKind::ScheduleFree(settings) => {
            Box::new(schedule_free::ScheduleFree::new(settings, weights)?)
        }
    })
}

/// Storage of the moments of a parameter: f32 if the parameter is too small for 8 bits.
pub(super) fn state_of(settings: &OptimizerSection, elements: usize) -> OptimizerState {
    match settings.state {
        OptimizerState::EightBits if elements < LEAST_ELEMENTS => OptimizerState::F32,
        state => state,
    }
}

impl StatePlan {
    /// A plan of nothing with this treatment.
    pub(super) fn of(treatment: &Treatment) -> Self {
        Self {
            kind: treatment.method.name(),
            state: treatment.state,
            tensors: 0,
            parameters: 0,
            bytes: 0,
        }
    }
}

impl<'a, D: Backend> Joined<'a, D> {
    /// The weights and gradients of each parameter, in its own shape.
    pub(super) fn each(
        self,
    ) -> impl Iterator<Item = Result<(&'a Parameter, ViewMut<'a, D>, ViewMut<'a, D>), DeviceError>>
    {
        let Self {
            weights,
            gradients,
            members,
        } = self;
        let mut rest = Some((weights, gradients));
        let mut at = 0;
        members.iter().map(move |member| {
            let (start, end) = (member.elements.start, member.elements.end);
            let Some((weights, gradients)) = rest.take() else {
                return Err(DeviceError::OutOfRange { start, end, len: 0 });
            };
            let (weight, weights) = within(weights, start - at, end - at)?;
            let (gradient, gradients) = within(gradients, start - at, end - at)?;
            rest = Some((weights, gradients));
            at = end;
            Ok((member, weight, gradient))
        })
    }
}

/// Elements `start..end`, and those behind them.
fn within<D: Backend>(
    view: ViewMut<'_, D>,
    start: usize,
    end: usize,
) -> Result<(ViewMut<'_, D>, ViewMut<'_, D>), DeviceError> {
    let (_, from) = view.split_rows(start)?;
    from.split_rows(end - start)
}

/// Number of rows and columns of a parameter; a vector is one row.
pub(super) fn rows_and_columns(parameter: &Parameter) -> (usize, usize) {
    let columns = parameter.shape.last().copied().unwrap_or(1);
    match parameter.shape.len() {
        0 | 1 => (1, columns),
        _ => (parameter.elements.len() / columns.max(1), columns),
    }
}
