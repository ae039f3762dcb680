//! Options for loading a model.

use std::path::PathBuf;
use tightrope_device::DType;

/// Names of modules, or an expression for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModuleNames {
    /// Modules whose name is one of these, or ends with `.` and one of these: `q_proj`,
    /// `self_attn.o_proj`.
    List(Vec<String>),
    /// Modules whose whole name the regular expression matches.
    Expression(String),
}

/// Selects the modules that get an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetModules {
    /// Every linear layer but the output head, as in PEFT.
    AllLinear,
    /// The named modules.
    Named(ModuleNames),
}

impl TargetModules {
    /// The modules with these names.
    pub fn list(names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self::Named(ModuleNames::List(
            names.into_iter().map(Into::into).collect(),
        ))
    }
}

/// Biases that are trained beside an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TrainedBiases {
    /// No biases.
    #[default]
    None,
    /// Every bias of the model.
    All,
    /// Biases of the layers that have an adapter.
    LoraOnly,
}

impl TrainedBiases {
    /// Name in PEFT's configuration.
    pub fn name(self) -> &'static str {
        match self {
            TrainedBiases::None => "none",
            TrainedBiases::All => "all",
            TrainedBiases::LoraOnly => "lora_only",
        }
    }
}

/// Rows of tables that are trained beside an adapter, while the others of the table stay frozen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenIndices {
    /// Rows of the embedding, and of a head that is the embedding.
    Embedding(Vec<u32>),
    /// Rows by the end of the module's name: `embed_tokens`, `lm_head`.
    ByModule(Vec<(String, Vec<u32>)>),
}

/// Initial values of the factors of a new adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum InitialFactors {
    /// `A` uniform and `B` zero, as in PEFT.
    #[default]
    Random,
    /// The largest singular vectors of the weight, which are taken out of it (PiSSA; Meng et al.,
    /// 2024).
    Pissa,
    /// The first columns of `Q` and rows of `R` of the weight, which are taken out of it (OLoRA;
    /// Büyükakyüz, 2024).
    Olora,
    /// The best approximation of what NF4 loses of the weight (LoftQ with one iteration; Li et al.,
    /// 2024); the base is then in NF4, whatever [`LoadOptions::base`] says.
    Loftq,
}

impl InitialFactors {
    /// Whether the factors start as a part of the weight, which the weight then lacks.
    pub(crate) fn are_taken_out(self) -> bool {
        matches!(self, Self::Pissa | Self::Olora)
    }
}

/// A new LoRA adapter.
///
/// Names and expressions are matched as PEFT matches them; `docs/adapters.md` has the rules.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    /// Rank of the factors.
    pub r: usize,
    /// α; the adapter's output is scaled by α/r, or α/√r with `rslora`.
    pub alpha: f64,
    /// Probability in `[0, 1)` that an input of `A` is dropped in training.
    pub dropout: f32,
    /// Modules that get the adapter.
    pub target_modules: TargetModules,
    /// Modules that get none, although they are selected.
    pub exclude_modules: Option<ModuleNames>,
    /// Decoder layers whose modules get the adapter; empty: all.
    pub layers: Vec<usize>,
    /// Ranks of the modules that an expression matches; the first that matches counts.
    pub rank_pattern: Vec<(String, usize)>,
    /// α of the modules that an expression matches; the first that matches counts.
    pub alpha_pattern: Vec<(String, f64)>,
    /// Scale by α/√r (rank-stabilised LoRA).
    pub rslora: bool,
    /// Train the magnitudes of the rows of a weight beside their direction (DoRA; Liu et al.,
    /// 2024).
    pub dora: bool,
    /// Initial values of the factors. An adapter whose factors were taken out of the weights is saved
    /// with twice the rank, so that it belongs to the model's own weights. One that makes up for NF4
    /// says so in its files, and brings its base into NF4 wherever it is loaded.
    pub init: InitialFactors,
    /// Biases that are trained too.
    pub bias: TrainedBiases,
    /// Modules that are trained whole and kept in the adapter: ends of names of the embedding, of
    /// the head and of norms.
    pub modules_to_save: Vec<String>,
    /// Rows of the embedding and of the head that are trained; `None`: those of new tokens.
    pub trainable_token_indices: Option<TokenIndices>,
    /// Whether a head that is the embedding stays the embedding if one of them is trained whole.
    pub ensure_weight_tying: bool,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            r: 16,
            alpha: 32.0,
            dropout: 0.0,
            target_modules: TargetModules::AllLinear,
            exclude_modules: None,
            layers: Vec::new(),
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            rslora: false,
            dora: false,
            init: InitialFactors::Random,
            bias: TrainedBiases::None,
            modules_to_save: Vec::new(),
            trainable_token_indices: None,
            ensure_weight_tying: false,
        }
    }
}

/// Selects the trained parameters.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a run has one of it")]
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

/// A token that the model does not know: its row of the embedding and of the head is new, or was
/// never trained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// Id of the token, the number of its row.
    pub id: u32,
    /// Tokens of the model whose rows' mean the row starts with; empty: all.
    pub from: Vec<u32>,
}

/// Options for loading a model.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadOptions {
    /// Folder of a PEFT adapter to start from.
    pub adapter: Option<PathBuf>,
    /// Folder of a saved adapter of the same configuration. A new adapter whose factors are taken out
    /// of the weights starts from the values that this one started from, bit by bit, instead of
    /// decomposing the weights again. A folder that does not fit is not used.
    pub started: Option<PathBuf>,
    /// Storage of frozen weights; full training needs [`BaseStorage::AsStored`].
    pub base: BaseStorage,
    /// Number of tokens in the largest batch; all buffers are laid out for it.
    pub capacity: usize,
    /// For training: keeps only the input of each layer, and computes the rest again in the
    /// backward pass.
    pub recompute: bool,
    /// Type of activations: f32 or bf16. Statistics, trained parameters and their
    /// gradients are always f32.
    pub precision: DType,
    /// Whether the head scores sequences, which is the head of a reward model. Files without such a
    /// head get a new one; a model or an adapter that has one keeps it in any case.
    pub score: bool,
    /// Seed of new parameters.
    pub seed: u64,
    /// New tokens. The embedding and the head get the rows that they lack, and so do those of an
    /// adapter that has more rows than the model.
    pub new_tokens: Vec<NewToken>,
}

impl LoadOptions {
    /// The simplest options: weights as stored, no adapter, everything kept, f32, seed 0.
    pub fn new(capacity: usize) -> Self {
        Self {
            adapter: None,
            started: None,
            base: BaseStorage::AsStored,
            capacity,
            recompute: false,
            precision: DType::F32,
            score: false,
            seed: 0,
            new_tokens: Vec::new(),
        }
    }
}
