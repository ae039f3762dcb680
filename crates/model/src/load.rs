//! Creates a model from files, or with new parameters from a seed.

use crate::{
    Architecture, Backend, BaseStorage, HeadKind, LoadOptions, Model, ModelConfig, ModelError,
    Plan, Training,
    activations::{self, Activations, Step},
    adapter::{as_lora, check_factors},
    checkpoint::{self, Bitsandbytes, Checkpoint, Expected, GgufModel, HEAD, SCORE, Stored},
    lora::{AdapterConfig, Inventory},
    parameter::{Parameter, ParameterKind},
    parts::host,
    plan::{Allocate, Allocator},
    random::normals,
    read_json,
    vocabulary::is_table,
    weights::{self, Layout, Weights},
};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, path::Path};
use tightrope_device::{DType, Tensor};
use tightrope_formats::{Tensors, diagnosis};
use tightrope_kernels::attention::Ranges;
use tightrope_packing::random::Random;
use tightrope_rope::RotaryEmbedding;

/// A model, and the additional buffers of a training step if it is trained.
pub(crate) type Loaded<D> = (Model<D>, Option<Step<Tensor<D>>>);

impl<D: Backend> Model<D> {
    /// Loads a Hugging Face folder (`config.json` and `model.safetensors`, whole or sharded), or a
    /// `.gguf` file, whose quantised tensors become f32.
    ///
    /// Full training keeps all weights in f32. Otherwise matrices and embeddings keep the type of
    /// the file, or [`LoadOptions::base`] chooses the storage of the weights of linear layers;
    /// norms and biases are small and become f32. A folder may already hold those weights in NF4,
    /// in the layout of bitsandbytes.
    pub fn load(device: &D, path: &Path, options: &LoadOptions) -> Result<Self, ModelError> {
        Ok(Self::read(device, path, None, options)?.0)
    }

    /// Creates a model with new parameters: matrices and embeddings are normal with the
    /// configuration's `initializer_range`, norms are the identity, and biases are 0.
    pub fn random(
        device: &D,
        config: ModelConfig,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        Ok(Self::fresh(device, config, None, options)?.0)
    }

    /// Like [`Model::load`], also for training.
    pub(crate) fn read(
        device: &D,
        path: &Path,
        training: Option<&Training>,
        options: &LoadOptions,
    ) -> Result<Loaded<D>, ModelError> {
        // The model is first laid out without memory, so that the files are checked before anything
        // is allocated.
        let files = Files::open(path, training, options)?;
        let (config, own, new_score) = (files.config.clone(), files.own, files.new_score);
        let stored = |name: &str| files.stored(name);
        let (mut model, step) =
            Self::build(device, config, training, options, &files.base, &stored)?;
        let checkpoint = files.checkpoint;
        let range = model.config.architecture().initializer_range;
        for parameter in model.weights.base_mut() {
            if new_score && parameter.name == SCORE {
                fill_normal(parameter, options.seed, range)?;
                continue;
            }
            let is_table = is_table(parameter);
            let mut value = parameter.value.view_mut();
            if is_table {
                value = value.rows(0..own)?;
            }
            checkpoint::read_into(&*checkpoint, &parameter.name, value)?;
        }
        model.start_new_tokens(own, &options.new_tokens)?;
        let host = host(device)?;
        for weight in model.weights.nf4_mut() {
            checkpoint::read_nf4_into(&*checkpoint, &host, weight)?;
        }
        model.new_head = new_score && options.adapter.is_none();
        let generation = path.join("generation_config.json");
        model.generation = match generation.is_file() {
            true => Some(read_json(&generation)?),
            false if path.is_file() => generation_settings(&model.config),
            false => None,
        };
        model.fill_adapter(options, &|name| {
            checkpoint::read_unquantized(&*checkpoint, name)
        })?;
        Ok((model, step))
    }

    /// Like [`Model::random`], also for training.
    pub(crate) fn fresh(
        device: &D,
        mut config: ModelConfig,
        training: Option<&Training>,
        options: &LoadOptions,
    ) -> Result<Loaded<D>, ModelError> {
        if options.score {
            config.score_sequences().map_err(ModelError::Setting)?;
        }
        let stored = &|_: &str| Stored::Float(DType::F32);
        let (mut model, step) = Self::build(device, config, training, options, "", stored)?;
        let Architecture {
            norm_plus_one,
            initializer_range,
            ..
        } = *model.config.architecture();
        for parameter in model.weights.base_mut() {
            let len = parameter.value.len();
            match parameter.kind {
                ParameterKind::Norm if norm_plus_one => {}
                ParameterKind::Norm => parameter.value.write(&vec![1f32; len])?,
                ParameterKind::Bias => {}
                _ => fill_normal(parameter, options.seed, initializer_range)?,
            }
        }
        let host = host(device)?;
        let draw = |name: &str, len| {
            let mut random = Random::named(options.seed, name);
            normals(&mut random, len, initializer_range)
        };
        let mut lengths = BTreeMap::new();
        for weight in model.weights.nf4_mut() {
            let len = weight.shape.iter().product();
            weight.quantize(&host, &draw(&weight.name, len))?;
            lengths.insert(weight.name.clone(), len);
        }
        model.fill_adapter(options, &|name| Ok(draw(name, lengths[name])))?;
        Ok((model, step))
    }

    /// Allocates all buffers, zeroed.
    fn build(
        device: &D,
        config: ModelConfig,
        training: Option<&Training>,
        options: &LoadOptions,
        base: &str,
        stored: &dyn Fn(&str) -> Stored,
    ) -> Result<Loaded<D>, ModelError> {
        let mut plan = Plan::default();
        lay_out_all(&mut plan, &config, training, options, base, stored)?;
        let mut allocator = Allocator::new(device, plan)?;
        let all = lay_out_all(&mut allocator, &config, training, options, base, stored)?;
        let plan = allocator.into_plan()?;
        let ropes = config.architecture().ropes().map(RotaryEmbedding::new);
        let ropes = ropes.collect::<Result<Vec<_>, _>>()?;
        let widest = ropes.iter().map(RotaryEmbedding::rotary_dim).max();
        let angles = options.capacity * widest.unwrap_or(0) / 2;
        let model = Self {
            device: device.clone(),
            config,
            weights: all.weights,
            activations: all.activations,
            plan,
            ropes,
            tables: [vec![0.0; angles], vec![0.0; angles]],
            ranges: Ranges::empty(device)?,
            adapter: all.adapter,
            generation: None,
            capacity: options.capacity,
            norms_are_old: true,
            new_head: false,
            shown: None,
        };
        Ok((model, all.step))
    }
}

impl Plan {
    /// Plans every buffer that [`Model::load`] would allocate (or
    /// [`TrainableModel::load`](crate::TrainableModel::load), if it is trained), for matrices that
    /// are stored as `dtype`, or in NF4 if the configuration says so; reads no weights.
    pub fn new(
        config: &ModelConfig,
        training: Option<&Training>,
        options: &LoadOptions,
        dtype: DType,
    ) -> Result<Self, ModelError> {
        let mut plan = Self::default();
        let mut config = config.clone();
        config.apply(options)?;
        let stored = |name: &str| config.stored(name, dtype);
        lay_out_all(&mut plan, &config, training, options, "", &stored)?;
        Ok(plan)
    }

    /// Plans the same for the files of a model, and finds everything that is wrong with them, with
    /// the options or with their adapter, except values that are not finite; reads no weights.
    pub fn of_files(
        path: &Path,
        training: Option<&Training>,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        let mut plan = Self::default();
        let files = Files::open(path, training, options)?;
        let stored = |name: &str| files.stored(name);
        let (config, base) = (&files.config, &files.base);
        lay_out_all(&mut plan, config, training, options, base, &stored)?;
        Ok(plan)
    }
}

/// Files of a model that have every tensor of it.
struct Files {
    config: ModelConfig,
    checkpoint: Box<dyn Checkpoint>,
    base: String,
    /// Number of tokens that the files have rows for.
    own: usize,
    /// Whether the model gets a head that the files lack.
    new_score: bool,
}

impl Files {
    fn open(
        path: &Path,
        training: Option<&Training>,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        let (mut config, checkpoint) = open(path)?;
        let own = config.architecture().vocabulary;
        config.apply(options).map_err(|error| match error {
            ModelError::Setting(error) => ModelError::config(&path.join("config.json"))(error),
            error => error,
        })?;
        let new_score = config.architecture().head == HeadKind::Score;
        let files = Self {
            own,
            new_score: new_score && checkpoint.info(SCORE).is_none(),
            base: path.to_string_lossy().into_owned(),
            config,
            checkpoint,
        };
        files.check(training, options)?;
        Ok(files)
    }

    fn stored(&self, name: &str) -> Stored {
        let found = checkpoint::find(&*self.checkpoint, name);
        let info = found.and_then(|name| self.checkpoint.info(name));
        info.map_or(Stored::Float(DType::F32), |info| info.stored)
    }

    /// Checks that the files have exactly the tensors of the model.
    fn check(&self, training: Option<&Training>, options: &LoadOptions) -> Result<(), ModelError> {
        let Self { config, base, .. } = self;
        let stored = |name: &str| self.stored(name);
        let nowhere = &mut Plan::default();
        let (expected, _) = lay_out(nowhere, config, training, options, base, &stored)?;
        let Architecture {
            tied_head,
            head,
            hidden,
            ..
        } = *config.architecture();
        let text_part = config.is_text_part();
        let read = |parameter: &&Parameter<()>| !self.new_score || parameter.name != SCORE;
        let table = [self.own, hidden];
        let parameters = expected.base().filter(read).map(|p| Expected {
            name: &p.name,
            shape: if is_table(p) { &table } else { &p.shape },
            nf4: false,
        });
        let quantized = expected.nf4().map(|weight| Expected {
            name: &weight.name,
            shape: &weight.shape,
            nf4: true,
        });
        checkpoint::check(&*self.checkpoint, parameters.chain(quantized), |name| {
            // Old files contain the frequencies, and may contain a tied head.
            if text_part && checkpoint::is_of_other_part(name) {
                return true;
            }
            let unused = tied_head || head == HeadKind::Score;
            name.ends_with(".rotary_emb.inv_freq") || unused && name == HEAD
        })
    }
}

/// Draws the values of a new parameter.
fn fill_normal<D: Backend>(
    parameter: &mut Parameter<Tensor<D>>,
    seed: u64,
    range: f64,
) -> Result<(), ModelError> {
    let mut random = Random::named(seed, &parameter.name);
    let fresh = normals(&mut random, parameter.value.len(), range);
    Ok(parameter.value.write(&fresh)?)
}

/// Opens the configuration and the weights.
fn open(path: &Path) -> Result<(ModelConfig, Box<dyn Checkpoint>), ModelError> {
    if path.is_file()
        && path
            .extension()
            .is_some_and(|extension| extension == "gguf")
    {
        let (mut config, mut checkpoint) = GgufModel::open(path)?;
        checkpoint::settle(&mut config, &mut checkpoint)?;
        return Ok((config, Box::new(checkpoint)));
    }
    let mut config = read_config(path)?;
    let files = Tensors::open(path)?;
    let mut checkpoint: Box<dyn Checkpoint> = match config.is_quantized() {
        true => Box::new(Bitsandbytes::new(files)?),
        false => Box::new(checkpoint::only_floats(files)?),
    };
    if config.is_text_part() {
        checkpoint::take_text_part(&mut *checkpoint);
    }
    checkpoint::settle(&mut config, &mut *checkpoint)?;
    Ok((config, checkpoint))
}

/// Reads the configuration in a folder.
fn read_config(folder: &Path) -> Result<ModelConfig, ModelError> {
    let file = folder.join("config.json");
    if folder.is_dir() && !file.exists() {
        return Err(diagnosis::of_model(folder, "has no config.json").into());
    }
    ModelConfig::from_json(&read_json(&file)?).map_err(ModelError::config(&file))
}

impl ModelConfig {
    /// Reads only the configuration of a folder or `.gguf` file that [`Model::load`] loads. The
    /// weights, which are not read here, finally decide whether the head is the embedding.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        match path.is_file() {
            true => Ok(GgufModel::open(path)?.0),
            false => read_config(path),
        }
    }
}

/// Generation settings of a GGUF file, which Transformers derives from a configuration alone: ids
/// that begin and end texts.
fn generation_settings(config: &ModelConfig) -> Option<Value> {
    let settings = config.to_json();
    let keys = ["bos_token_id", "eos_token_id", "pad_token_id"].into_iter();
    let known = keys.filter_map(|key| Some((key.to_owned(), settings.get(key)?.clone())));
    let known: Map<String, Value> = known.collect();
    (!known.is_empty()).then_some(Value::Object(known))
}

/// All buffers of a model.
pub(crate) struct LaidOut<T> {
    weights: Weights<T>,
    adapter: Option<AdapterConfig>,
    activations: Activations<T>,
    /// Present if something is trained.
    step: Option<Step<T>>,
}

/// Lays out parameters and activations.
pub(crate) fn lay_out_all<A: Allocate>(
    allocate: &mut A,
    config: &ModelConfig,
    training: Option<&Training>,
    options: &LoadOptions,
    base: &str,
    stored: &dyn Fn(&str) -> Stored,
) -> Result<LaidOut<A::Buffer>, ModelError> {
    let (weights, adapter) = lay_out(allocate, config, training, options, base, stored)?;
    let mut builder = activations::Builder {
        allocate,
        architecture: config.architecture(),
        capacity: options.capacity,
        precision: options.precision,
    };
    let trained = training.is_some();
    let activations = builder.activations(&weights, trained, options.recompute)?;
    let step = trained.then(|| builder.step(&weights)).transpose()?;
    Ok(LaidOut {
        weights,
        adapter,
        activations,
        step,
    })
}

/// Lays out the parameters. The modules of an adapter follow from the model's own parameters, so
/// these are first laid out once without memory.
fn lay_out<A: Allocate>(
    allocate: &mut A,
    config: &ModelConfig,
    training: Option<&Training>,
    options: &LoadOptions,
    base: &str,
    stored: &dyn Fn(&str) -> Stored,
) -> Result<(Weights<A::Buffer>, Option<AdapterConfig>), ModelError> {
    let architecture = config.architecture();
    let mut plan = Plan::default();
    let bare = weights::Builder {
        allocate: &mut plan,
        architecture,
        layout: layout(training, options, stored, None),
    }
    .weights()?;
    let inventory = Inventory::of(&bare);
    let adapter = match (training, &options.adapter) {
        (Some(Training::Full), Some(_)) => {
            let reason =
                "an adapter cannot be trained together with the weights below it: merge it first";
            return Err(ModelError::Unsupported(reason));
        }
        (training, Some(folder)) => {
            let (mut adapter, factors) = AdapterConfig::open(folder, &inventory)?;
            if let Some(Training::Lora(lora)) = training {
                adapter.set_dropout(lora.dropout).map_err(as_lora)?;
            }
            // Ranks are checked before memory is allocated for them.
            let planned = weights::Builder {
                allocate: &mut plan,
                architecture,
                layout: layout(training, options, stored, Some(&adapter)),
            }
            .weights()?;
            check_factors(&adapter, &factors, &planned)?;
            Some(adapter)
        }
        (Some(Training::Lora(lora)), None) => {
            let new: Vec<u32> = options.new_tokens.iter().map(|new| new.id).collect();
            Some(AdapterConfig::new(lora, &inventory, base, &new).map_err(as_lora)?)
        }
        (_, None) => None,
    };
    let weights = weights::Builder {
        allocate,
        architecture,
        layout: layout(training, options, stored, adapter.as_ref()),
    }
    .weights()?;
    Ok((weights, adapter))
}

fn layout<'a>(
    training: Option<&Training>,
    options: &LoadOptions,
    stored: &'a dyn Fn(&str) -> Stored,
    adapter: Option<&'a AdapterConfig>,
) -> Layout<'a> {
    Layout {
        full: training == Some(&Training::Full),
        adapter,
        adapter_trained: matches!(training, Some(Training::Lora(_))),
        base: match adapter.is_some_and(AdapterConfig::needs_nf4) {
            true => BaseStorage::Nf4,
            false => options.base,
        },
        stored,
    }
}
