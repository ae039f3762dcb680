//! Writes trained weights: a PEFT adapter, or a whole model for Transformers.

use crate::{
    Adapters, Backend, Model, ModelError,
    adapter::{both, both_shape},
    checkpoint::{EMBEDDING, HEAD},
    lora::{CONFIG, WEIGHTS},
    parameter::{Parameter, transposed},
    parts::{Adapter, EmbeddingAdapter, host},
};
use half::{bf16, f16};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, path::Path};
use tightrope_device::{Cpu, DType, Device, Tensor};
use tightrope_formats::{Encoding, TensorOut, files::write_json, safetensors};

/// Files larger than this are split, as in Transformers.
const SHARD_BYTES: u64 = 5_000_000_000;

impl<D: Backend> Model<D> {
    /// Records in the adapter, if there is one, the model that it belongs to: the id of a model on
    /// the hub, with the revision if it was named, or a path.
    pub fn name_base(&mut self, name: &str, revision: Option<&str>) {
        if let Some(adapter) = &mut self.adapter {
            adapter.set_base(name, revision);
        }
    }

    /// `generation_config.json` of the folder that the model came from, if there was one.
    pub fn generation_config(&self) -> Option<&Value> {
        self.generation.as_ref()
    }

    /// Writes `adapter_config.json` and `adapter_model.safetensors` (f32) into `folder`, which
    /// must exist. The same adapter gives the same bytes.
    pub fn save_adapter(&self, folder: &Path) -> Result<(), ModelError> {
        let Some(adapter) = &self.adapter else {
            return Err(ModelError::Unsupported("the model has no adapter to save"));
        };
        let mut parameters: Vec<_> = self.weights.adapter().collect();
        parameters.sort_by(|a, b| a.name.cmp(&b.name));
        let started: BTreeMap<&str, _> = self
            .weights
            .started()
            .map(|(parameter, start)| (parameter.name.as_str(), start))
            .collect();
        let tables = adapter.tables().filter_map(|(own, in_file)| {
            let table = self.weights.base().find(|p| p.name == own)?;
            let name = in_file.to_owned();
            let elements = self.elements_of(table, Adapters::Off);
            let encoding = encoding(table.stored);
            Some(TensorOut::new(name, encoding, &table.shape, move || {
                Ok::<_, ModelError>(to_bytes(table.stored, &elements()?))
            }))
        });
        let tensors = parameters.into_iter().map(|parameter| {
            if let Some(start) = started.get(parameter.name.as_str()).copied() {
                let shape = both_shape(parameter);
                return TensorOut::new(parameter.name.clone(), Encoding::F32, &shape, move || {
                    Ok::<_, ModelError>(to_bytes(DType::F32, &both(parameter, start)?))
                });
            }
            let (name, shape) = (parameter.name.clone(), parameter.file_shape());
            TensorOut::new(name, Encoding::F32, &shape, move || {
                Ok::<_, ModelError>(to_bytes(DType::F32, &parameter.to_file()?))
            })
        });
        let path = folder.join(WEIGHTS);
        let mut tensors: Vec<_> = tensors.chain(tables).collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        safetensors::write(&path, &[("format", "pt")], tensors)?;
        Ok(write_json(&folder.join(CONFIG), &adapter.to_json())?)
    }

    /// Writes `config.json`, `generation_config.json` (if the base had one) and `model.safetensors`
    /// into `folder`, which must exist, with the adapter (if any) added to the weights. The
    /// tokenizer's files are the caller's.
    ///
    /// After full training all weights are f32; otherwise tensors have the type of the file that
    /// they came from. Weights kept in NF4 are decoded to the type that they were quantised from.
    /// An adapter is added in f64 and rounded once.
    pub fn save_merged(&self, folder: &Path) -> Result<(), ModelError> {
        self.save_merged_as(folder, None)
    }

    /// Like [`Model::save_merged`], with every tensor in one type, if it is given. A finite weight
    /// that would be infinite in this type is an error.
    pub fn save_merged_as(&self, folder: &Path, dtype: Option<DType>) -> Result<(), ModelError> {
        self.save_merged_sharded(folder, dtype, SHARD_BYTES)
    }

    /// The same, with files of at most `shard_bytes` (or more for a larger tensor).
    pub(crate) fn save_merged_sharded(
        &self,
        folder: &Path,
        dtype: Option<DType>,
        shard_bytes: u64,
    ) -> Result<(), ModelError> {
        let host = host(&self.device)?;
        let mut tensors = self.merged(&host, dtype);
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        safetensors::write_model(folder, tensors, shard_bytes)?;
        if let Some(generation) = &self.generation {
            write_json(&folder.join("generation_config.json"), generation)?;
        }
        Ok(write_json(
            &folder.join("config.json"),
            &self.merged_config(dtype),
        )?)
    }

    fn merged<'a>(
        &'a self,
        host: &'a Cpu,
        wanted: Option<DType>,
    ) -> Vec<TensorOut<'a, ModelError>> {
        let out = |tensor: Merged<'a>| {
            let Merged {
                name,
                stored,
                shape,
                elements,
            } = tensor;
            let dtype = wanted.unwrap_or(stored);
            TensorOut::new(name, encoding(dtype), shape, move || {
                let elements = elements()?;
                match dtype == stored || fits(dtype, &elements) {
                    true => Ok(to_bytes(dtype, &elements)),
                    false => Err(ModelError::OutOfRange {
                        tensor: name.to_owned(),
                        dtype,
                    }),
                }
            })
        };
        self.merged_tensors(host).into_iter().map(out).collect()
    }

    /// Every tensor of the model with the adapter added, from the embedding to the head, then weights
    /// in NF4.
    pub(crate) fn merged_tensors<'a>(&'a self, host: &'a Cpu) -> Vec<Merged<'a>> {
        let linears = self.weights.linears().filter_map(|linear| {
            let factors = Factors::of(linear.adapter.as_ref()?, linear.inputs);
            Some((linear.weight.name(), factors))
        });
        let hidden = self.weights.embedding.base.shape[1];
        let head = self.weights.head.adapter.as_ref();
        let head = head.map(|head| (HEAD, Factors::of(head, hidden)));
        let embedding = self.weights.embedding_adapter.as_ref();
        let embedding = embedding.map(|adapter| (EMBEDDING, Factors::of_embedding(adapter)));
        let adapted: BTreeMap<&str, Factors<'_, D>> =
            linears.chain(head).chain(embedding).collect();
        let out = |name: &'a str, stored, shape: &'a [usize], elements: Elements<'a>| {
            let factors = adapted.get(name).copied();
            Merged {
                name,
                stored,
                shape,
                elements: Box::new(move || {
                    let mut elements = elements()?;
                    if let Some(factors) = &factors {
                        factors.add_to(&mut elements)?;
                    }
                    Ok(elements)
                }),
            }
        };
        let adapter: BTreeMap<_, _> = self
            .weights
            .adapter()
            .map(|parameter| (parameter.name.as_str(), parameter))
            .collect();
        let copy = |name: &str| {
            let in_file = self.adapter.as_ref()?.copy_of(name)?;
            adapter.get(in_file).copied()
        };
        let parameters = self.weights.base().map(|parameter| {
            let used = copy(&parameter.name).unwrap_or(parameter);
            let elements = self.elements_of(used, Adapters::On);
            let Parameter {
                name,
                stored,
                shape,
                ..
            } = parameter;
            out(name, *stored, shape, elements)
        });
        let head = self.weights.untied_head().map(|used| {
            let elements = Box::new(|| Ok(used.value.to_f32_vec()?));
            out(
                HEAD,
                self.weights.embedding.base.stored,
                &used.shape,
                elements,
            )
        });
        let quantized = self.weights.nf4().map(|weight| {
            let elements = Box::new(|| weight.to_f32_vec(host));
            out(&weight.name, weight.stored, &weight.shape, elements)
        });
        parameters.chain(head).chain(quantized).collect()
    }

    /// Elements of a parameter; a table of which rows are trained has these rows, or its own.
    fn elements_of<'a>(
        &'a self,
        parameter: &'a Parameter<Tensor<D>>,
        adapters: Adapters,
    ) -> Elements<'a> {
        let mut tables = self.weights.tables_with_rows();
        let rows = tables.find(|(table, _)| table.name == parameter.name);
        Box::new(move || {
            let mut elements = parameter.value.to_f32_vec()?;
            if let Some((table, rows)) = rows {
                rows.write_to(&mut elements, table.value.dtype(), adapters)?;
            }
            Ok(elements)
        })
    }

    fn merged_config(&self, dtype: Option<DType>) -> Value {
        let name = match dtype.unwrap_or(self.weights.embedding.base.stored) {
            DType::BF16 => "bfloat16",
            DType::F16 => "float16",
            _ => "float32",
        };
        let mut config = self.config.to_json();
        if let Some(settings) = config.as_object_mut() {
            set_dtype(settings, name);
            settings.shift_remove("quantization_config");
            if self.weights.untied_head().is_some() {
                settings.insert("tie_word_embeddings".into(), Value::Bool(false));
            }
        }
        config
    }
}

/// A tensor of a model with its adapter added.
pub(crate) struct Merged<'a> {
    /// Name in Transformers.
    pub name: &'a str,
    /// Type in the files of the model.
    stored: DType,
    pub shape: &'a [usize],
    pub elements: Elements<'a>,
}

/// Elements of a tensor, read on demand.
type Elements<'a> = Box<dyn Fn() -> Result<Vec<f32>, ModelError> + 'a>;

/// Encoding of the result of [`to_bytes`] in files.
fn encoding(dtype: DType) -> Encoding {
    match dtype {
        DType::BF16 => Encoding::Bf16,
        DType::F16 => Encoding::F16,
        _ => Encoding::F32,
    }
}

/// Sets the type under the key that the file has, old or new.
fn set_dtype(settings: &mut Map<String, Value>, name: &str) {
    let key = match settings.contains_key("torch_dtype") {
        true => "torch_dtype",
        false => "dtype",
    };
    settings.insert(key.into(), name.into());
}

/// Factors of an adapter, to add them to the weight.
struct Factors<'a, D: Device> {
    /// `[rank, inputs]`; of the embedding, the transpose.
    a: &'a Parameter<Tensor<D>>,
    /// `[outputs, rank]`.
    b: &'a Parameter<Tensor<D>>,
    a_transposed: bool,
    scale: f32,
    rank: usize,
    inputs: usize,
    magnitude: Option<&'a Parameter<Tensor<D>>>,
}

impl<D: Device> Clone for Factors<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device> Copy for Factors<'_, D> {}

impl<'a, D: Device> Factors<'a, D> {
    fn of(adapter: &'a Adapter<Tensor<D>>, inputs: usize) -> Self {
        Self {
            a: &adapter.a,
            b: &adapter.b,
            a_transposed: false,
            scale: adapter.scale,
            rank: adapter.rank,
            inputs,
            magnitude: adapter.dora.as_ref().map(|dora| &dora.magnitude),
        }
    }

    /// A row of the embedding is a row of `Aᵀ` times `Bᵀ`.
    fn of_embedding(adapter: &'a EmbeddingAdapter<Tensor<D>>) -> Self {
        Self {
            a: &adapter.b,
            b: &adapter.a,
            a_transposed: true,
            scale: adapter.scale,
            rank: adapter.rank,
            inputs: adapter.b.shape[0],
            magnitude: None,
        }
    }

    /// Computes `W += scale · B·A`, accumulated in f64; with DoRA, rows then get their magnitudes.
    fn add_to(&self, weight: &mut [f32]) -> Result<(), ModelError> {
        let (rank, inputs) = (self.rank, self.inputs);
        let (mut a, b) = (self.a.value.to_f32_vec()?, self.b.value.to_f32_vec()?);
        if self.a_transposed {
            a = transposed(&a, inputs);
        }
        if a.len() != rank * inputs || weight.len() * rank != b.len() * inputs {
            let reason = "the factors of an adapter do not fit the weight that they are added to";
            return Err(ModelError::Unsupported(reason));
        }
        let magnitudes = self.magnitude.map(|magnitude| magnitude.value.to_f32_vec());
        let magnitudes = magnitudes.transpose()?;
        let mut row = vec![0f64; inputs];
        let rows = weight.chunks_exact_mut(inputs).zip(b.chunks_exact(rank));
        for (index, (weights, b)) in rows.enumerate() {
            row.fill(0.0);
            for (&b, a) in b.iter().zip(a.chunks_exact(inputs)) {
                for (sum, &a) in row.iter_mut().zip(a) {
                    *sum += f64::from(b) * f64::from(a);
                }
            }
            for (sum, &weight) in row.iter_mut().zip(&*weights) {
                *sum = f64::from(weight) + f64::from(self.scale) * *sum;
            }
            let gain = match &magnitudes {
                Some(magnitudes) => {
                    let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                    f64::from(magnitudes[index]) / norm
                }
                None => 1.0,
            };
            for (weight, &sum) in weights.iter_mut().zip(&row) {
                *weight = (gain * sum) as f32;
            }
        }
        Ok(())
    }
}

/// A number in the precision of a type.
pub(crate) fn rounded(dtype: DType, x: f32) -> f32 {
    match dtype {
        DType::F16 => f16::from_f32(x).to_f32(),
        DType::BF16 => bf16::from_f32(x).to_f32(),
        _ => x,
    }
}

/// Whether every finite number stays finite.
pub(crate) fn fits(dtype: DType, elements: &[f32]) -> bool {
    elements
        .iter()
        .all(|&x| !x.is_finite() || rounded(dtype, x).is_finite())
}

/// Little-endian bytes, rounded to the nearest.
pub(crate) fn to_bytes(dtype: DType, elements: &[f32]) -> Vec<u8> {
    match dtype {
        DType::BF16 => {
            let halves = elements.iter().map(|&x| bf16::from_f32(x).to_le_bytes());
            halves.flatten().collect()
        }
        DType::F16 => {
            let halves = elements.iter().map(|&x| f16::from_f32(x).to_le_bytes());
            halves.flatten().collect()
        }
        _ => elements.iter().flat_map(|x| x.to_le_bytes()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LoadOptions;

    #[test]
    fn numbers_stay_numbers() {
        let infinite = f32::INFINITY;
        assert!(fits(DType::F16, &[65504.0, -1e-30, infinite, f32::NAN]));
        assert!(!fits(DType::F16, &[0.0, -65520.0]));
        assert!(fits(DType::BF16, &[65520.0]) && !fits(DType::BF16, &[f32::MAX]));
    }

    #[test]
    fn large_models_are_split_and_read_back() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let case = root.join("tests/golden/qwen2_tied");
        let options = LoadOptions::new(1);
        let cpu = Cpu::new(1).unwrap();
        let model = Model::load(&cpu, &case, &options).unwrap();
        let folder = tempfile::tempdir().unwrap();
        model
            .save_merged_sharded(folder.path(), None, 20_000)
            .unwrap();
        assert!(!folder.path().join("model.safetensors").exists());
        let files = std::fs::read_dir(folder.path()).unwrap();
        let sizes = files.map(|file| file.unwrap().metadata().unwrap().len());
        let sizes: Vec<u64> = sizes.collect();
        // Several shards, the index and the configuration, none much larger than was asked.
        assert!(
            sizes.len() > 4 && sizes.iter().all(|&bytes| bytes < 24_000),
            "{sizes:?}"
        );
        let again = Model::load(&cpu, folder.path(), &options).unwrap();
        let pairs = model.weights.base().zip(again.weights.base());
        for (before, after) in pairs {
            assert_eq!(before.name, after.name);
            let [before, after] = [before, after].map(|p| p.value.to_f32_vec().unwrap());
            assert_eq!(before, after);
        }
    }
}
