//! Values of an adapter: new ones, and those of an adapter's file.

use crate::{
    Adapters, Backend, ConfigError, InitialFactors, LoadOptions, Model, ModelError,
    checkpoint::{self, Expected},
    lora::AdapterConfig,
    parameter::{Parameter, ParameterKind},
    parts::{Linear, host},
    random::{normals, uniforms},
    weights::Weights,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};
use tightrope_device::{Device, Tensor};
use tightrope_formats::Tensors;
use tightrope_packing::random::Random;

impl<D: Backend> Model<D> {
    /// Reads the adapter, or creates a new one as PEFT does: `A` uniform with bound `1/√inputs`
    /// (Kaiming with a = √5), `B` zero, magnitudes the norms, and everything else as in the model.
    /// `original` reads a weight as it was before it became NF4.
    pub(crate) fn fill_adapter(
        &mut self,
        options: &LoadOptions,
        original: &dyn Fn(&str) -> Result<Vec<f32>, ModelError>,
    ) -> Result<(), ModelError> {
        let host = host(&self.device)?;
        for linear in self.weights.linears_mut() {
            linear.fill_squares(&host)?;
        }
        if let Some(folder) = &options.adapter {
            return self.read_adapter(folder);
        }
        for (table, rows) in self.weights.tables_with_rows_mut() {
            rows.keep_own(&table.value, true)?;
        }
        let initial = self.adapter.as_ref().map(AdapterConfig::initial);
        let initial = initial.unwrap_or_default();
        if initial.are_taken_out() {
            let earlier = options.started.as_deref();
            let earlier = earlier.and_then(|folder| self.fitting(folder));
            for linear in self.weights.linears_mut() {
                linear.start_from_weight(initial, earlier.as_ref(), &host)?;
            }
            return self.weights.start_copies();
        }
        for parameter in self.weights.adapter_mut() {
            if parameter.kind == ParameterKind::LoraA {
                let bound = (parameter.shape[1] as f64).powf(-0.5);
                let mut random = Random::named(options.seed, &parameter.name);
                let fresh = uniforms(&mut random, parameter.value.len(), bound);
                parameter.value.write(&fresh)?;
            }
            // PEFT: `A` is zero, and `B` normal.
            if parameter.kind == ParameterKind::EmbeddingFactor && !parameter.transposed {
                let mut random = Random::named(options.seed, &parameter.name);
                let fresh = normals(&mut random, parameter.value.len(), 1.0);
                parameter.value.write(&fresh)?;
            }
        }
        if initial == InitialFactors::Loftq {
            for linear in self.weights.linears_mut() {
                linear.start_from_loss(original, &host)?;
            }
        }
        self.refresh(Adapters::On)?;
        for linear in self.weights.linears_mut() {
            linear.start_magnitude()?;
        }
        self.norms_are_old = true;
        self.weights.start_copies()
    }

    /// Values of a saved adapter, if they fit this model's.
    fn fitting(&self, folder: &Path) -> Option<Tensors> {
        let adapter = self.adapter.as_ref()?;
        let values = adapter.open_weights(folder).ok()?;
        let fit = check_factors(adapter, &values, &self.weights);
        fit.ok().map(|()| values)
    }

    /// Overwrites the values of the adapter with those in the folder of an adapter of the same
    /// configuration.
    pub fn read_adapter(&mut self, folder: &Path) -> Result<(), ModelError> {
        let Some(adapter) = &self.adapter else {
            return Err(ModelError::Unsupported("the model has no adapter to read"));
        };
        let values = adapter.open_weights(folder)?;
        check_factors(adapter, &values, &self.weights)?;
        self.norms_are_old = true;
        for (own, in_file) in adapter.tables() {
            let table = self.weights.base_mut().find(|p| p.name == own);
            if let Some(table) = table {
                checkpoint::read_into(&values, in_file, table.value.view_mut())?;
                self.shown = None;
            }
        }
        if self.shown.is_none() {
            for (table, rows) in self.weights.tables_with_rows_mut() {
                rows.keep_own(&table.value, false)?;
            }
        }
        let started: BTreeSet<String> = self
            .weights
            .started()
            .map(|(p, _)| p.name.clone())
            .collect();
        for parameter in self.weights.adapter_mut() {
            if !started.contains(&parameter.name) {
                parameter.write_from_file(&values.read_f32(&parameter.name)?)?;
            }
        }
        for linear in self.weights.linears_mut() {
            linear.read_started(&values)?;
        }
        Ok(())
    }
}

/// Checks that the file has exactly the parameters of the adapter and its tables, in their shapes.
pub(crate) fn check_factors<T>(
    adapter: &AdapterConfig,
    factors: &Tensors,
    weights: &Weights<T>,
) -> Result<(), ModelError> {
    let wide: BTreeMap<&str, Vec<usize>> = weights
        .started()
        .map(|(parameter, _)| (parameter.name.as_str(), both_shape(parameter)))
        .collect();
    let shapes: Vec<_> = weights.adapter().map(|p| (p, p.file_shape())).collect();
    let shapes = shapes.iter().map(|(p, shape)| {
        let name = p.name.as_str();
        (name, wide.get(name).unwrap_or(shape))
    });
    let expected = shapes.map(|(name, shape)| Expected {
        name,
        shape,
        nf4: false,
    });
    let table = &weights.embedding.base.shape;
    let tables = adapter.tables().map(|(_, name)| Expected {
        name,
        shape: table,
        nf4: false,
    });
    let tied = weights.head.is_tied();
    checkpoint::check(factors, expected.chain(tables), |name| {
        adapter.is_beside(name, tied)
    })
}

/// Shape in files of a factor that started from the weight: twice the rank.
pub(crate) fn both_shape<T>(parameter: &Parameter<T>) -> Vec<usize> {
    match parameter.kind {
        ParameterKind::LoraA => vec![2 * parameter.shape[0], parameter.shape[1]],
        _ => vec![parameter.shape[0], 2 * parameter.shape[1]],
    }
}

impl<T> Weights<T> {
    /// Factors that started from the weight, with the values that they started from.
    pub(crate) fn started(&self) -> impl Iterator<Item = (&Parameter<T>, &T)> {
        self.linears().flat_map(|linear| {
            let adapter = linear.adapter.as_ref();
            let started = adapter.and_then(|adapter| {
                let start = adapter.start.as_ref()?;
                Some([(&adapter.a, &start.a), (&adapter.b, &start.b)])
            });
            started.into_iter().flatten()
        })
    }
}

/// A factor in files, where it belongs to the model's own weights: `[A; A₀]` and `[B, −B₀]`, so that
/// their product is `B·A − B₀·A₀`.
pub(crate) fn both<D: Device>(
    parameter: &Parameter<Tensor<D>>,
    start: &Tensor<D>,
) -> Result<Vec<f32>, ModelError> {
    let (now, start) = (parameter.value.to_f32_vec()?, start.to_f32_vec()?);
    Ok(match parameter.kind {
        ParameterKind::LoraA => [now, start].concat(),
        _ => {
            let rank = parameter.shape[1];
            let rows = now.chunks_exact(rank).zip(start.chunks_exact(rank));
            rows.flat_map(|(now, start)| now.iter().copied().chain(start.iter().map(|x| -x)))
                .collect()
        }
    })
}

/// The inverse of [`both`]: the values that a factor in files has, and those that it started from.
pub(crate) fn halves<T>(parameter: &Parameter<T>, read: &[f32]) -> (Vec<f32>, Vec<f32>) {
    match parameter.kind {
        ParameterKind::LoraA => {
            let (now, start) = read.split_at(read.len() / 2);
            (now.to_vec(), start.to_vec())
        }
        _ => {
            let rank = parameter.shape[1];
            let rows = || read.chunks_exact(2 * rank).map(|row| row.split_at(rank));
            let now = rows().flat_map(|(now, _)| now).copied().collect();
            (
                now,
                rows().flat_map(|(_, start)| start).map(|x| -x).collect(),
            )
        }
    }
}

impl<D: Device> Linear<Tensor<D>> {
    /// Reads the factors of an adapter that started from this weight.
    fn read_started(&mut self, values: &Tensors) -> Result<(), ModelError> {
        let Some(adapter) = &mut self.adapter else {
            return Ok(());
        };
        let Some(start) = &adapter.start else {
            return Ok(());
        };
        for (parameter, start) in [(&mut adapter.a, &start.a), (&mut adapter.b, &start.b)] {
            let (now, started) = halves(parameter, &values.read_f32(&parameter.name)?);
            let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            if bits(&started) != bits(&start.to_f32_vec()?) {
                return Err(ModelError::OtherStart {
                    file: values.file(&parameter.name).to_owned(),
                    tensor: parameter.name.clone(),
                });
            }
            parameter.value.write(&now)?;
        }
        Ok(())
    }
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
