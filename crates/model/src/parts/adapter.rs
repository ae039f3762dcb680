//! The adapter of a linear layer.

use super::{Dora, Start};
use crate::{
    Adapters, ConfigError, InitialFactors, ModelError,
    lora::PREFIX,
    parameter::{Parameter, ParameterKind},
    plan::Allocate,
    weights,
};
use tightrope_device::{Device, Tensor};
use tightrope_kernels::{linear_cross_entropy, product::Dropout};
use tightrope_packing::random;

/// Factors of a LoRA adapter.
#[derive(Debug)]
pub(crate) struct Adapter<T> {
    pub a: Parameter<T>,
    pub b: Parameter<T>,
    /// α/r, or α/√r.
    pub scale: f32,
    pub rank: usize,
    /// Present if the adapter started from the weight.
    pub start: Option<Start<T>>,
    /// Present with DoRA.
    pub dora: Option<Dora<T>>,
    /// Distinguishes adapters in the hash of dropout.
    pub salt: u64,
}

impl<T> Adapter<T> {
    /// Lays out the adapter of the layer called `module` in files, if it has one.
    pub(crate) fn lay_out<A: Allocate<Buffer = T>>(
        weights: &mut weights::Builder<'_, A>,
        module: &str,
        (inputs, outputs): (usize, usize),
    ) -> Result<Option<Self>, ModelError> {
        let Some(config) = weights.layout.adapter else {
            return Ok(None);
        };
        let Some((rank, scale)) = config.matching(module) else {
            return Ok(None);
        };
        let most = inputs.min(outputs);
        if config.initial() != InitialFactors::Random && rank > most {
            let reason = format!(
                "{rank} is more than the {most} that the weight `{module}.weight` has; such an \
                 adapter cannot start from it"
            );
            return Err(ModelError::Lora(ConfigError::new("r", reason)));
        }
        let mut factor = |letter: &str, kind, shape: [usize; 2]| {
            let name = format!("{PREFIX}{module}.lora_{letter}.weight");
            weights.of_adapter(name, kind, &shape)
        };
        let a = factor("A", ParameterKind::LoraA, [rank, inputs])?;
        let b = factor("B", ParameterKind::LoraB, [outputs, rank])?;
        let dora = match config.is_dora() {
            true => Some(Dora::lay_out(weights, module, outputs)?),
            false => None,
        };
        let start = match config.initial().are_taken_out() {
            false => None,
            true => Some(Start {
                a: weights.start(module, "A", &[rank, inputs])?,
                b: weights.start(module, "B", &[outputs, rank])?,
            }),
        };
        Ok(Some(Self {
            a,
            b,
            scale,
            rank,
            start,
            dora,
            salt: random::hash(module.as_bytes()),
        }))
    }

    /// The factors that a pass uses: with adapters off, those that were taken out of the weight.
    pub(super) fn factors(&self, adapters: Adapters) -> (&T, &T) {
        match (adapters, &self.start) {
            (Adapters::Off, Some(start)) => (&start.a, &start.b),
            _ => (&self.a.value, &self.b.value),
        }
    }
}

impl<D: Device> Adapter<Tensor<D>> {
    /// The adapter of the output projection for its losses.
    pub(crate) fn of_loss<'a>(
        &'a self,
        dropout: Option<Dropout<'a, D>>,
    ) -> linear_cross_entropy::Lora<'a, D> {
        linear_cross_entropy::Lora {
            a: self.a.value.view(),
            b: self.b.value.view(),
            scale: self.scale,
            dropout,
        }
    }
}
