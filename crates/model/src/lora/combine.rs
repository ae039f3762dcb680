//! Several adapters of one model as one adapter.

use super::{AdapterConfig, CONFIG, HEAD, PREFIX, WEIGHTS, file};
use crate::{ConfigError, ModelError, TrainedBiases, checkpoint::only_floats, read_json};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};
use tightrope_formats::{Encoding, TensorOut, Tensors, files::write_json, safetensors};

/// How adapters become one, as in PEFT's `add_weighted_adapter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Combination {
    /// The factors side by side, so that the change of each weight is exactly the weighted sum of
    /// the changes; the rank is the sum of the ranks.
    #[default]
    Cat,
    /// Weighted sums of the factors of equal ranks. This is no sum of the changes: products of
    /// factors of different adapters come in.
    Linear,
}

/// One of the adapters.
struct Part {
    path: PathBuf,
    weight: f64,
    config: AdapterConfig,
    tensors: Tensors,
    /// Rank and weighted scale of each module.
    modules: BTreeMap<String, (usize, f64)>,
    /// The largest rank.
    rank: usize,
}

/// Sizes of a module.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sizes {
    inputs: usize,
    outputs: usize,
}

/// Writes one adapter into `folder`, which must exist, of several adapters of one model and their
/// weights. Its factors are f32 and its scale is 1.
///
/// Adapters with magnitudes (DoRA), trained biases or modules that are trained whole are refused:
/// these have no weighted sum that is an adapter.
pub fn combine_adapters(
    adapters: &[(PathBuf, f64)],
    combination: Combination,
    folder: &Path,
) -> Result<(), ModelError> {
    let open = |(path, weight): &(PathBuf, f64)| Part::open(path, *weight);
    let parts: Vec<Part> = adapters.iter().map(open).collect::<Result<_, _>>()?;
    let Some(first) = parts.first() else {
        return Err(ModelError::Unsupported("there is no adapter to combine"));
    };
    let rank = match combination {
        Combination::Cat => parts.iter().map(|part| part.rank).sum(),
        Combination::Linear => first.rank,
    };
    let modules: BTreeSet<&String> = parts.iter().flat_map(|part| part.modules.keys()).collect();
    let mut tensors = Vec::new();
    for module in &modules {
        let of: Vec<&Part> = parts
            .iter()
            .filter(|part| part.modules.contains_key(*module))
            .collect();
        let mut sizes = None;
        for part in &of {
            let own = part.sizes(module)?;
            match *sizes.get_or_insert(own) {
                sizes if sizes == own => {}
                sizes => return Err(part.other_sizes(module, sizes, own)),
            }
            let (own_rank, _) = part.modules[*module];
            if combination == Combination::Linear && own_rank != rank {
                let reason = format!(
                    "`{module}` has rank {own_rank}, and a linear combination needs rank {rank} \
                     everywhere; cat takes any ranks"
                );
                return Err(part.wrong("r", reason));
            }
        }
        let Some(Sizes { inputs, outputs }) = sizes else {
            continue;
        };
        for (letter, shape) in [('A', [rank, inputs]), ('B', [outputs, rank])] {
            let of = of.clone();
            let name = format!("{PREFIX}{module}.lora_{letter}.weight");
            let from = name.clone();
            tensors.push(TensorOut::new(name, Encoding::F32, &shape, move || {
                let factor = factor(&of, &from, shape, combination)?;
                Ok::<_, ModelError>(factor.iter().flat_map(|x| x.to_le_bytes()).collect())
            }));
        }
    }
    safetensors::write(&folder.join(WEIGHTS), &[("format", "pt")], tensors)?;
    let mut settings = first.config.to_json();
    for (key, value) in [
        ("r", json!(rank)),
        ("lora_alpha", json!(rank)),
        ("lora_dropout", json!(0.0)),
        ("use_rslora", json!(false)),
        ("rank_pattern", json!({})),
        ("alpha_pattern", json!({})),
        ("target_modules", json!(modules)),
        ("exclude_modules", Value::Null),
        ("layers_to_transform", Value::Null),
        ("layers_pattern", Value::Null),
    ] {
        settings[key] = value;
    }
    Ok(write_json(&folder.join(CONFIG), &settings)?)
}

/// One factor of the combined adapter.
fn factor(
    parts: &[&Part],
    name: &str,
    [rows, columns]: [usize; 2],
    combination: Combination,
) -> Result<Vec<f32>, ModelError> {
    let is_a = name.ends_with(".lora_A.weight");
    let mut sum = vec![0f64; rows * columns];
    let mut first = 0;
    for part in parts {
        let module = module_of(name).unwrap_or_default();
        let (rank, scale) = part.modules[module];
        let values = part.tensors.read_f32(name)?;
        let own = match is_a {
            true => columns,
            false => rank,
        };
        // PEFT: the whole weight goes to A side by side, and its root to each in a sum.
        let weight = match (combination, is_a) {
            (Combination::Cat, true) => scale,
            (Combination::Cat, false) => 1.0,
            (Combination::Linear, true) => scale.abs().sqrt() * scale.signum(),
            (Combination::Linear, false) => scale.abs().sqrt(),
        };
        for (index, &value) in values.iter().enumerate() {
            let (row, column) = (index / own, index % own);
            let (row, column) = match is_a {
                true => (first + row, column),
                false => (row, first + column),
            };
            sum[row * columns + column] += weight * f64::from(value);
        }
        if combination == Combination::Cat {
            first += rank;
        }
    }
    Ok(sum.into_iter().map(|x| x as f32).collect())
}

/// The module of a factor's full name.
fn module_of(name: &str) -> Option<&str> {
    name.strip_prefix(PREFIX).and_then(file::factor_of)
}

impl Part {
    fn open(path: &Path, weight: f64) -> Result<Self, ModelError> {
        let settings = path.join(CONFIG);
        let config = AdapterConfig::from_json(&read_json(&settings)?);
        let config = config.map_err(ModelError::config(&settings))?;
        let refuse = |key: &str, what: &str| {
            let reason = format!("adapters with {what} cannot be combined with others");
            Err(ModelError::config(&settings)(ConfigError::new(key, reason)))
        };
        if config.dora {
            return refuse("use_dora", "magnitudes");
        }
        if config.needs_nf4 {
            return refuse("loftq_config", "a base of their own (NF4)");
        }
        if config.bias != TrainedBiases::None {
            return refuse("bias", "trained biases");
        }
        if !config.saved.is_empty() {
            return refuse("modules_to_save", "modules that are trained whole");
        }
        if !config.tokens.is_empty() {
            return refuse("trainable_token_indices", "rows of their own");
        }
        let tensors = only_floats(Tensors::open(&path.join(WEIGHTS))?)?;
        let mut part = Self {
            path: path.to_owned(),
            weight,
            config,
            tensors,
            modules: BTreeMap::new(),
            rank: 0,
        };
        let names: Vec<String> = part.tensors.names().map(str::to_owned).collect();
        for name in names {
            if name.contains(".lora_embedding_") {
                return refuse("target_modules", "factors of the embedding");
            }
            // PEFT saves the head of the model beside the factors of the head.
            if name == format!("{PREFIX}{HEAD}.base_layer.weight") {
                continue;
            }
            let Some(module) = module_of(&name) else {
                return Err(ModelError::Unexpected {
                    file: part.tensors.file(&name).to_owned(),
                    tensor: name,
                });
            };
            if part.modules.contains_key(module) {
                continue;
            }
            let found = part.config.rank_and_scale(module);
            let (rank, scale) = found.map_err(ModelError::config(&settings))?;
            part.modules
                .insert(module.to_owned(), (rank, scale * part.weight));
            part.rank = part.rank.max(rank);
        }
        Ok(part)
    }

    fn wrong(&self, key: &str, reason: String) -> ModelError {
        ModelError::config(&self.path.join(CONFIG))(ConfigError::new(key, reason))
    }

    /// Sizes of a module, from both of its factors.
    fn sizes(&self, module: &str) -> Result<Sizes, ModelError> {
        let (rank, _) = self.modules[module];
        let shape = |letter: char| {
            let name = format!("{PREFIX}{module}.lora_{letter}.weight");
            match self.tensors.info(&name) {
                Some(tensor) => Ok((name, tensor.shape.clone())),
                None => Err(ModelError::Format(self.tensors.missing(&name))),
            }
        };
        let ((a_name, a), (b_name, b)) = (shape('A')?, shape('B')?);
        let wrong = |tensor: String, expected, got| ModelError::Shape {
            file: self.tensors.file(&tensor).to_owned(),
            tensor,
            expected,
            got,
        };
        match (&a[..], &b[..]) {
            ([r, _], _) if *r != rank => Err(wrong(a_name, vec![rank, a[1]], a)),
            (&[_, inputs], &[outputs, r]) if r == rank => Ok(Sizes { inputs, outputs }),
            (&[_, _], _) => {
                let outputs = b.first().copied().unwrap_or(0);
                Err(wrong(b_name, vec![outputs, rank], b))
            }
            _ => Err(wrong(a_name, vec![rank, 0], a)),
        }
    }

    fn other_sizes(&self, module: &str, expected: Sizes, got: Sizes) -> ModelError {
        let tensor = format!("{PREFIX}{module}.lora_A.weight");
        ModelError::Shape {
            file: self.tensors.file(&tensor).to_owned(),
            tensor: format!("{tensor}, with its lora_B"),
            expected: vec![expected.outputs, expected.inputs],
            got: vec![got.outputs, got.inputs],
        }
    }
}
