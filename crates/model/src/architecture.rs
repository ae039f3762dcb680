//! Description of the computation of a model, whatever its family: the forward and backward passes
//! interpret it.

use crate::{
    ConfigError,
    checkpoint::{HEAD, SCORE},
    settings::Settings,
};
use serde_json::Value;
use tightrope_kernels::glu::Activation;
use tightrope_rope::{RopeConfig, RotaryEmbedding};

/// A decoder of the Llama family.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// Number of rows of the embedding and of the head.
    pub vocabulary: usize,
    /// Number of features of the residual stream.
    pub hidden: usize,
    /// Number of features inside the gated unit.
    pub intermediate: usize,
    /// For each layer, the largest number of keys that a query sees, its own included; `None` =
    /// all.
    pub windows: Vec<Option<usize>>,
    /// For each layer, whether queries and keys rotate; in SmolLM3 every fourth layer does not
    /// rotate.
    pub rotated: Vec<bool>,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads.
    pub kv_heads: usize,
    /// Number of features of a head; independent of `hidden / heads`.
    pub head_dim: usize,
    /// Added inside the root of every norm.
    pub norm_eps: f32,
    /// Gemma's norms store `w - 1`.
    pub norm_plus_one: bool,
    /// Norms of queries and keys before the rotation.
    pub query_norms: QueryNorms,
    /// Places of the norms in a layer.
    pub norm_places: NormPlaces,
    /// Whether the projections to queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the projection after attention has a bias.
    pub output_bias: bool,
    /// Whether the projections of the MLP have biases.
    pub mlp_bias: bool,
    /// Activation of the MLP's gate.
    pub activation: Activation,
    /// Factor of the embeddings: √hidden in f32 for Gemma.
    pub embedding_scale: f32,
    /// Factor of the outputs of attention and MLP before they are added to the residual stream
    /// (Granite).
    pub residual_scale: f32,
    /// Factor of `q·k`.
    pub attention_scale: f32,
    /// Softcap of attention scores (Gemma 2).
    pub attention_softcap: Option<f32>,
    /// Factor of the output logits (Granite).
    pub logit_scale: f32,
    /// Softcap of the output logits (Gemma 2).
    pub logit_softcap: Option<f32>,
    /// What the head computes.
    pub head: HeadKind,
    /// Whether the head is the embedding.
    pub tied_head: bool,
    /// Frequencies of the rotation.
    pub rope: RopeConfig,
    /// Frequencies of layers with a window, if these have their own (Gemma 3, OLMo 3).
    pub window_rope: Option<RopeConfig>,
    /// Standard deviation of newly initialised weights.
    pub initializer_range: f64,
}

/// What the head of a model computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// The logits of the next token.
    Tokens,
    /// One number for a whole sequence, from its last token: a reward model.
    Score,
}

/// Norms of queries and keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryNorms {
    /// There are none.
    None,
    /// Of each head by itself (Qwen3, Gemma 3, EXAONE 4).
    Heads,
    /// Of all heads of a token together (OLMo 2).
    Tokens,
}

/// Places of the norms of attention and MLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormPlaces {
    /// Of the inputs (Llama).
    Before,
    /// Of inputs and outputs (Gemma 2).
    Around,
    /// Of inputs and outputs, under other names (HyperCLOVA X).
    Peri,
    /// Of the outputs (OLMo 2).
    After,
}

impl NormPlaces {
    /// Whether outputs are normalised.
    pub(crate) fn after(self) -> bool {
        self != Self::Before
    }
}

/// Defaults that differ between families if a key is absent.
pub(crate) struct Defaults {
    pub kv_heads: Option<usize>,
    pub head_dim: Option<usize>,
    pub tied_head: bool,
    pub max_positions: usize,
}

impl Architecture {
    /// Reads the settings that all families share; a family then changes what differs.
    pub(crate) fn common(
        settings: &Settings<'_>,
        defaults: &Defaults,
    ) -> Result<Self, ConfigError> {
        let hidden = settings.required_dimension("hidden_size")?;
        let heads = settings.required_dimension("num_attention_heads")?;
        let layers = settings.required_dimension("num_hidden_layers")?;
        if layers > 10_000 {
            let reason = format!("{layers} layers are more than any model has");
            return Err(ConfigError::new("num_hidden_layers", reason));
        }
        let kv_heads = match settings.dimension("num_key_value_heads")? {
            Some(kv_heads) => kv_heads,
            // An absent key and an explicit null differ in Transformers.
            None if settings.0.contains_key("num_key_value_heads") => heads,
            None => defaults.kv_heads.unwrap_or(heads),
        };
        if !heads.is_multiple_of(kv_heads) {
            let reason = format!("{heads} query heads are not a multiple of {kv_heads}");
            return Err(ConfigError::new("num_key_value_heads", reason));
        }
        let head_dim = match settings.dimension("head_dim")?.or(defaults.head_dim) {
            Some(head_dim) => head_dim,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                let reason = format!("{hidden} is not a multiple of {heads} heads");
                return Err(ConfigError::new("hidden_size", reason));
            }
        };
        let max_positions = settings
            .count("max_position_embeddings")?
            .unwrap_or(defaults.max_positions);
        let rope = rope_of("full_attention", settings, head_dim, max_positions)?;
        if rope.partial_rotary_factor != 1.0 {
            let reason = "rotations of a part of the head are not supported";
            return Err(ConfigError::new("partial_rotary_factor", reason));
        }
        Ok(Self {
            vocabulary: settings.required_dimension("vocab_size")?,
            hidden,
            intermediate: settings.required_dimension("intermediate_size")?,
            windows: vec![None; layers],
            rotated: vec![true; layers],
            heads,
            kv_heads,
            head_dim,
            norm_eps: settings.positive("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            norm_plus_one: false,
            query_norms: QueryNorms::None,
            norm_places: NormPlaces::Before,
            qkv_bias: false,
            output_bias: false,
            mlp_bias: false,
            activation: settings
                .activation("hidden_act")?
                .unwrap_or(Activation::Silu),
            embedding_scale: 1.0,
            residual_scale: 1.0,
            attention_scale: (head_dim as f64).powf(-0.5) as f32,
            attention_softcap: None,
            logit_scale: 1.0,
            logit_softcap: None,
            head: HeadKind::Tokens,
            tied_head: settings.flag("tie_word_embeddings", defaults.tied_head)?,
            rope,
            window_rope: None,
            initializer_range: settings.positive("initializer_range")?.unwrap_or(0.02),
        })
    }

    /// Name of the head's tensor in files, and its shape.
    pub(crate) fn head_tensor(&self) -> (&'static str, [usize; 2]) {
        match self.head {
            HeadKind::Tokens => (HEAD, [self.vocabulary, self.hidden]),
            HeadKind::Score => (SCORE, [1, self.hidden]),
        }
    }

    /// Reads the frequencies of layers with a window, which a file may give apart.
    pub(crate) fn read_window_rope(&mut self, settings: &Settings<'_>) -> Result<(), ConfigError> {
        let (head_dim, positions) = (self.head_dim, self.rope.max_position_embeddings);
        let rope = rope_of("sliding_attention", settings, head_dim, positions)?;
        self.window_rope = (rope != self.rope).then_some(rope);
        Ok(())
    }

    /// Frequencies of all kinds of layers; [`Self::rope_of`] says which a layer has.
    pub fn ropes(&self) -> impl Iterator<Item = &RopeConfig> {
        std::iter::once(&self.rope).chain(&self.window_rope)
    }

    /// Index of the frequencies of a layer in [`Self::ropes`].
    pub fn rope_of(&self, layer: usize) -> usize {
        usize::from(self.window_rope.is_some() && self.windows[layer].is_some())
    }

    /// Number of positions up to which no frequency depends on the length of the sequence.
    pub fn fixed_length(&self) -> u64 {
        let lengths = self.ropes().map(RopeConfig::fixed_length);
        lengths.min().unwrap_or(u64::MAX)
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.windows.len()
    }

    /// Number of features of all query heads.
    pub fn q_features(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Number of features of all key heads.
    pub fn kv_features(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Reads `attention_bias`: whether all four projections of attention have biases.
    pub(crate) fn read_attention_bias(
        &mut self,
        settings: &Settings<'_>,
    ) -> Result<(), ConfigError> {
        let attention_bias = settings.flag("attention_bias", false)?;
        self.qkv_bias = attention_bias;
        self.output_bias = attention_bias;
        Ok(())
    }

    /// Sets windows from `layer_types`, or from `slides` (called with the layer) if the key is
    /// absent.
    pub(crate) fn set_windows(
        &mut self,
        settings: &Settings<'_>,
        window: Option<usize>,
        slides: impl Fn(usize) -> bool,
    ) -> Result<(), ConfigError> {
        if window == Some(0) {
            return Err(ConfigError::new("sliding_window", "must be at least 1"));
        }
        let layers = self.layers();
        let sliding: Vec<bool> = match settings.value("layer_types") {
            None => (0..layers).map(slides).collect(),
            Some(value) => layer_types(value, layers)?,
        };
        let windows = sliding.into_iter().map(|sliding| match (sliding, window) {
            (false, _) => Ok(None),
            (true, Some(window)) => Ok(Some(window)),
            (true, None) => {
                let reason = "is missing, but some layers have sliding attention";
                Err(ConfigError::new("sliding_window", reason))
            }
        });
        self.windows = windows.collect::<Result<_, _>>()?;
        Ok(())
    }
}

/// Frequencies of the layers of one type.
fn rope_of(
    layers: &str,
    settings: &Settings<'_>,
    head_dim: usize,
    positions: usize,
) -> Result<RopeConfig, ConfigError> {
    RopeConfig::from_json_for_layers(settings.0, layers, head_dim, positions)
        .and_then(|rope| RotaryEmbedding::new(&rope).map(|_| rope))
        .map_err(|error| ConfigError::new("rope_parameters", error.to_string()))
}

/// Whether each layer slides.
fn layer_types(value: &Value, layers: usize) -> Result<Vec<bool>, ConfigError> {
    let error = |reason: String| ConfigError::new("layer_types", reason);
    let types = value
        .as_array()
        .ok_or_else(|| error(format!("expected a list, got {value}")))?;
    if types.len() != layers {
        return Err(error(format!("{} types for {layers} layers", types.len())));
    }
    types
        .iter()
        .map(|kind| match kind.as_str() {
            Some("full_attention") => Ok(false),
            Some("sliding_attention") => Ok(true),
            _ => Err(error(format!(
                "{kind} is not supported: full_attention and sliding_attention are"
            ))),
        })
        .collect()
}
