//! Values of an adapter: new ones, and those of an adapter's file.

use crate::{
    Backend, ConfigError, LoadOptions, Model, ModelError,
    checkpoint::{self, Expected},
    parameter::ParameterKind,
    parts::host,
    random::uniforms,
    weights::Weights,
};
use std::path::Path;
use tightrope_formats::Tensors;
use tightrope_packing::random::Random;

impl<D: Backend> Model<D> {
    /// Reads the adapter, or creates a new one as PEFT does: `A` uniform with bound `1/√inputs`
    /// (Kaiming with a = √5), `B` zero, magnitudes the norms, and everything else as in the model.
    pub(crate) fn fill_adapter(&mut self, options: &LoadOptions) -> Result<(), ModelError> {
        let host = host(&self.device)?;
        for linear in self.weights.linears_mut() {
            linear.fill_squares(&host)?;
        }
        if let Some(folder) = &options.adapter {
            return self.read_adapter(folder);
        }
        for parameter in self.weights.adapter_mut() {
            if parameter.kind == ParameterKind::LoraA {
                let bound = (parameter.shape[1] as f64).powf(-0.5);
                let mut random = Random::named(options.seed, &parameter.name);
                let fresh = uniforms(&mut random, parameter.value.len(), bound);
                parameter.value.write(&fresh)?;
            }
        }
        self.refresh_norms()?;
        for linear in self.weights.linears_mut() {
            linear.start_magnitude()?;
        }
        self.norms_are_old = true;
        self.weights.start_copies()
    }

    /// Overwrites the values of the adapter with those in the folder of an adapter of the same
    /// configuration.
    pub fn read_adapter(&mut self, folder: &Path) -> Result<(), ModelError> {
        let Some(adapter) = &self.adapter else {
            return Err(ModelError::Unsupported("the model has no adapter to read"));
        };
        let values = adapter.open_weights(folder)?;
        check_factors(&values, &self.weights)?;
        self.norms_are_old = true;
        for parameter in self.weights.adapter_mut() {
            checkpoint::read_into(&values, &parameter.name, &mut parameter.value)?;
        }
        Ok(())
    }
}

/// Checks that the file has exactly the parameters of the adapter, in their shapes.
pub(crate) fn check_factors<T>(factors: &Tensors, weights: &Weights<T>) -> Result<(), ModelError> {
    let expected = weights.adapter().map(|p| Expected {
        name: &p.name,
        shape: &p.shape,
        nf4: false,
    });
    checkpoint::check(factors, expected, |_| false)
}

/// Names a wrong setting of a new adapter by its key in a run's configuration.
pub(crate) fn as_lora(error: ConfigError) -> ModelError {
    let key = match &*error.key {
        "lora_alpha" => "alpha",
        "lora_dropout" => "dropout",
        "use_dora" => "dora",
        "use_rslora" => "rslora",
        "layers_to_transform" => "layers",
        key => key,
    };
    ModelError::Lora(ConfigError::new(key, error.reason))
}
