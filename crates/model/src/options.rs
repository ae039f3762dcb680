//! What a caller chooses when a model is loaded.

use std::path::PathBuf;
use tightrope_device::DType;

/// Which linear layers get an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetModules {
    /// Every linear layer but the output head, as PEFT has it.
    AllLinear,
    /// Those whose name is, or ends with `.` and, one of these: `q_proj`, `self_attn.o_proj`.
    List(Vec<String>),
}

/// A new LoRA adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank.
    pub r: usize,
    /// α; the adapter's output is scaled by α/r, or α/√r with `rslora`.
    pub alpha: f64,
    /// Probability in `[0, 1)` that an input of `A` is dropped in training.
    pub dropout: f32,
    /// Which layers.
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

/// What is trained.
#[derive(Clone, Debug, PartialEq)]
pub enum Training {
    /// Every parameter, kept in f32.
    Full,
    /// A LoRA adapter on frozen weights. With [`LoadOptions::adapter`], rank, α, modules and
    /// rsLoRA come from the adapter's own configuration, and only `dropout` is taken from here.
    Lora(LoraConfig),
}

/// How the weights of the decoder's linear layers are kept while they are frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BaseStorage {
    /// As files hold them.
    #[default]
    AsStored,
    /// In NF4 with scales that are quantised themselves, 4.13 bits an element (QLoRA; Dettmers et al.,
    /// 2023). Embeddings, head, norms and biases stay as they are.
    Nf4,
}

/// How a model is loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadOptions {
    /// Folder of a PEFT adapter to start from.
    pub adapter: Option<PathBuf>,
    /// How frozen weights are kept; full training wants [`BaseStorage::AsStored`].
    pub base: BaseStorage,
    /// Tokens of the largest batch; all buffers are laid out for it.
    pub capacity: usize,
    /// For training: keep only the input of each layer and compute the rest again in the backward pass.
    pub recompute: bool,
    /// Type of activations: f32, or on a GPU bf16. Statistics, parameters that are trained
    /// and gradients of parameters are f32 whatever it is.
    pub precision: DType,
    /// Of fresh parameters.
    pub seed: u64,
}

impl LoadOptions {
    /// The plainest way: weights as the files hold them, no adapter, everything kept, in f32, seed 0.
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
