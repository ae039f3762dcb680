//! Options for loading a model.

use std::path::PathBuf;
use tightrope_device::DType;

/// Selects the linear layers that get an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetModules {
    /// Every linear layer but the output head, as in PEFT.
    AllLinear,
    /// Layers whose name is one of these, or ends with `.` and one of these: `q_proj`,
    /// `self_attn.o_proj`.
    List(Vec<String>),
}

/// A new LoRA adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank of the factors.
    pub r: usize,
    /// α; the adapter's output is scaled by α/r, or α/√r with `rslora`.
    pub alpha: f64,
    /// Probability in `[0, 1)` that an input of `A` is dropped in training.
    pub dropout: f32,
    /// Layers that get the adapter.
    pub target_modules: TargetModules,
    /// Scale by α/√r (rank-stabilised LoRA).
    pub rslora: bool,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            r: 16,
            alpha: 32.0,
            dropout: 0.0,
            target_modules: TargetModules::AllLinear,
            rslora: false,
        }
    }
}

/// Selects the trained parameters.
#[derive(Clone, Debug, PartialEq)]
pub enum Training {
    /// Trains every parameter, kept in f32.
    Full,
    /// Trains a LoRA adapter on frozen weights. With [`LoadOptions::adapter`], rank, α, modules and
    /// rsLoRA come from the configuration of that adapter, and only `dropout` comes from here.
    Lora(LoraConfig),
}

/// Storage of the frozen weights of the decoder's linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BaseStorage {
    /// Weights keep the encoding of the files.
    #[default]
    AsStored,
    /// NF4 with quantised scales, 4.13 bits per element (QLoRA; Dettmers et al., 2023). Embeddings,
    /// head, norms and biases keep their type.
    Nf4,
}

/// Options for loading a model.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadOptions {
    /// Folder of a PEFT adapter to start from.
    pub adapter: Option<PathBuf>,
    /// Storage of frozen weights; full training needs [`BaseStorage::AsStored`].
    pub base: BaseStorage,
    /// Number of tokens in the largest batch; all buffers are laid out for it.
    pub capacity: usize,
    /// For training: keeps only the input of each layer, and computes the rest again in the
    /// backward pass.
    pub recompute: bool,
    /// Type of activations: f32, or on a GPU bf16. Statistics, trained parameters and their
    /// gradients are always f32.
    pub precision: DType,
    /// Seed of new parameters.
    pub seed: u64,
}

impl LoadOptions {
    /// The simplest options: weights as stored, no adapter, everything kept, f32, seed 0.
    pub fn new(capacity: usize) -> Self {
        Self {
            adapter: None,
            base: BaseStorage::AsStored,
            capacity,
            recompute: false,
            precision: DType::F32,
            seed: 0,
        }
    }
}
