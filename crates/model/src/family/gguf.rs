//! Translates GGUF metadata to the `config.json` that Transformers would have, so that one reader
//! of settings is enough.

pub(crate) use super::keys::{Keys, factors, keys};

use super::Family;
use crate::Architecture;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use tightrope_formats::{
    FormatError,
    gguf::{self, Gguf as File},
};

/// How GGUF files hold a family.
#[derive(Debug)]
pub(crate) enum Gguf {
    /// Not at all: llama.cpp does not know the family.
    None,
    /// As files of their own.
    Own(GgufFiles),
    /// As files of another family, which is told apart by what they say.
    Of(&'static Family),
}

impl Gguf {
    /// The files in which a model of the family is written.
    pub(crate) fn files(&self) -> Option<&GgufFiles> {
        match self {
            Self::None => None,
            Self::Own(files) => Some(files),
            Self::Of(family) => family.gguf.files(),
        }
    }
}

/// What llama.cpp loads beside the tensors that every architecture has; a file with other tensors is
/// refused there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loads {
    /// The bias of the projection after attention.
    pub output_bias: bool,
    /// The biases of the MLP.
    pub mlp_bias: bool,
    /// Factors of the frequencies, `rope_freqs.weight`.
    pub rope_factors: bool,
    /// Windows, where files have them.
    pub windows: bool,
    pub own_head: OwnHead,
}

/// Whether a model has a head beside its embedding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnHead {
    Never,
    Possible,
    Always,
}

impl Loads {
    pub(super) const LEAST: Self = Self {
        output_bias: false,
        mlp_bias: false,
        rope_factors: false,
        windows: true,
        own_head: OwnHead::Possible,
    };
}

/// The GGUF files of a family, as llama.cpp's conversion writes them.
#[derive(Debug)]
pub(crate) struct GgufFiles {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// Whether rows of queries and keys are reordered from halves to pairs.
    pub permuted: bool,
    /// Whether norms are stored with 1 added.
    pub norm_plus_one: bool,
    /// Modules of a layer with other names than elsewhere, each in Transformers and in the file.
    pub renamed: &'static [(&'static str, &'static str)],
    pub loads: Loads,
    /// Adds the settings that not every family has.
    pub settings: fn(&Metadata<'_>, &mut Map<String, Value>) -> Result<(), FormatError>,
    /// Adds the keys that not every family has.
    pub keys: fn(&Architecture, &mut Keys),
}

impl GgufFiles {
    /// Files with nothing but what every family has.
    pub(super) const fn new(architecture: &'static str) -> Self {
        Self {
            architecture,
            permuted: false,
            norm_plus_one: false,
            renamed: &[],
            loads: Loads::LEAST,
            settings: |metadata, _| metadata.refuse_window(),
            keys: |_, _| {},
        }
    }
}

/// Metadata of one architecture, read by key.
pub(crate) struct Metadata<'a> {
    gguf: &'a File,
    architecture: &'a str,
}

impl<'a> Metadata<'a> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    pub(super) fn error(&self, name: &str, reason: impl Into<String>) -> FormatError {
        self.gguf.metadata.error(&self.key(name), reason)
    }

    pub(super) fn value(&self, name: &str) -> Option<&'a gguf::Value> {
        self.gguf.metadata.get(&self.key(name))
    }

    /// Reads a whole number; a list (one number per layer) must repeat one number.
    pub(super) fn count(&self, name: &str) -> Result<Option<u64>, FormatError> {
        let error = |reason: String| self.error(name, reason);
        let one = |value: &gguf::Value| u64::try_from(value.as_integer()?).ok();
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let found = match value {
            gguf::Value::List(list) => match list.iter().next().as_ref().and_then(one) {
                Some(first) if list.iter().all(|value| one(&value) == Some(first)) => Some(first),
                _ => return Err(error("layers that differ are not supported".into())),
            },
            value => one(value),
        };
        let found = found.ok_or_else(|| error(format!("expected a whole number, got {value}")))?;
        Ok(Some(found))
    }

    pub(super) fn required(&self, name: &str) -> Result<u64, FormatError> {
        let missing = || self.error(name, "is missing");
        self.count(name)?.ok_or_else(missing)
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<f64>, FormatError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        if let Some(number) = value.as_float() {
            // The number was written from f32: the shortest decimal with that value is the intended
            // one.
            let shortest = (number as f32).to_string().parse();
            return Ok(Some(shortest.unwrap_or(number)));
        }
        let whole = value.as_integer().map(|number| number as f64);
        let wrong = || self.error(name, format!("expected a number, got {value}"));
        whole.map(Some).ok_or_else(wrong)
    }

    /// Width of the sliding window, if there is one.
    pub(super) fn window(&self) -> Result<Option<u64>, FormatError> {
        let window = self.count("attention.sliding_window")?;
        Ok(window.filter(|&window| window > 0))
    }

    /// Adds `layer_types`, if the file says which layers have windows: by a truth for each, or by a
    /// number of which every multiple has none.
    pub(super) fn layer_types(&self, settings: &mut Map<String, Value>) -> Result<(), FormatError> {
        const NAME: &str = "attention.sliding_window_pattern";
        let Some(value) = self.value(NAME) else {
            return Ok(());
        };
        let sliding: Option<Vec<bool>> = match value {
            gguf::Value::List(list) => {
                let flags = list.iter().map(|value| match value {
                    gguf::Value::Bool(sliding) => Some(sliding),
                    _ => None,
                });
                flags.collect()
            }
            number => {
                let every = number.as_id().filter(|&every| every > 0);
                let layers = 1..=self.required("block_count")?;
                let slides = |every| move |layer: u64| !layer.is_multiple_of(u64::from(every));
                every.map(|every| layers.map(slides(every)).collect())
            }
        };
        let wrong = || {
            self.error(
                NAME,
                format!("expected a truth for each layer, got {value}"),
            )
        };
        let name = |sliding: &bool| match sliding {
            true => "sliding_attention",
            false => "full_attention",
        };
        let types: Vec<_> = sliding.ok_or_else(wrong)?.iter().map(name).collect();
        settings.insert("layer_types".into(), json!(types));
        Ok(())
    }

    /// Refuses a sliding window in a family whose layers do not all have one.
    pub(super) fn refuse_window(&self) -> Result<(), FormatError> {
        match self.window()? {
            None => Ok(()),
            Some(_) => {
                let reason = "the file does not say which layers slide";
                Err(self.error("attention.sliding_window", reason))
            }
        }
    }

    /// A number that the architecture cannot do without.
    pub(super) fn required_number(&self, name: &str) -> Result<f64, FormatError> {
        let missing = || self.gguf.metadata.error(&self.key(name), "is missing");
        self.number(name)?.ok_or_else(missing)
    }

    /// The setting `mlp_bias`, which a file shows by having the bias.
    pub(super) fn mlp_bias(&self) -> Value {
        json!(self.has_tensor("blk.0.ffn_gate.bias"))
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.value(name)?.as_text()
    }

    pub(super) fn has_tensor(&self, name: &str) -> bool {
        self.gguf.tensors.info(name).is_some()
    }
}

/// Translates the settings; `frequencies` are the factors of `rope_freqs.weight`.
pub(crate) fn settings(
    gguf: &File,
    (family, files): (&Family, &GgufFiles),
    frequencies: Option<Vec<f32>>,
) -> Result<Value, FormatError> {
    let metadata = Metadata {
        gguf,
        architecture: files.architecture,
    };
    let missing = |key: &str| gguf.metadata.error(key, "is missing");
    let embedding = gguf.tensors.info("token_embd.weight");
    let vocabulary = embedding.and_then(|tensor| tensor.shape.first());
    let hidden = metadata.required("embedding_length")?;
    let heads = metadata.required("attention.head_count")?;
    let positions = metadata.required("context_length")?;
    let head_dim = match metadata.count("attention.key_length")? {
        Some(head_dim) => head_dim,
        None => hidden / heads.max(1),
    };
    for (name, reason) in [
        (
            "attention.value_length",
            "values with another head dimension are not supported",
        ),
        (
            "rope.dimension_count",
            "rotations of a part of the head are not supported",
        ),
    ] {
        if metadata.count(name)?.is_some_and(|other| other != head_dim) {
            return Err(metadata.error(name, reason));
        }
    }
    if metadata
        .count("expert_count")?
        .is_some_and(|experts| experts > 0)
    {
        let reason = "mixtures of experts are not supported";
        return Err(metadata.error("expert_count", reason));
    }
    let mut settings = Map::new();
    let mut set = |key: &str, value: Value| settings.insert(key.to_string(), value);
    set("model_type", json!(family.model_type));
    set(
        "vocab_size",
        json!(vocabulary.ok_or_else(|| missing("token_embd.weight"))?),
    );
    set("hidden_size", json!(hidden));
    set(
        "intermediate_size",
        json!(metadata.required("feed_forward_length")?),
    );
    set(
        "num_hidden_layers",
        json!(metadata.required("block_count")?),
    );
    set("num_attention_heads", json!(heads));
    set(
        "num_key_value_heads",
        json!(metadata.count("attention.head_count_kv")?.unwrap_or(heads)),
    );
    set("head_dim", json!(head_dim));
    set("max_position_embeddings", json!(positions));
    let eps = metadata.required_number("attention.layer_norm_rms_epsilon")?;
    set("rms_norm_eps", json!(eps));
    set(
        "tie_word_embeddings",
        json!(!metadata.has_tensor("output.weight")),
    );
    set(
        "rope_theta",
        json!(metadata.number("rope.freq_base")?.unwrap_or(10_000.0)),
    );
    if let Some(scaling) = scaling(&metadata, positions, frequencies)? {
        set("rope_scaling", scaling);
    }
    set(
        "attention_bias",
        json!(metadata.has_tensor("blk.0.attn_q.bias")),
    );
    (files.settings)(&metadata, &mut settings)?;
    let mut set = |key: &str, value: Value| settings.insert(key.to_string(), value);
    for (key, name) in [
        ("bos_token_id", "tokenizer.ggml.bos_token_id"),
        ("eos_token_id", "tokenizer.ggml.eos_token_id"),
        ("pad_token_id", "tokenizer.ggml.padding_token_id"),
    ] {
        if let Some(id) = gguf.metadata.get(name).and_then(gguf::Value::as_integer) {
            set(key, json!(u64::try_from(id).ok()));
        }
    }
    let ends = gguf::end_ids(&gguf.metadata)?;
    if !ends.is_empty() {
        let eos = settings.get("eos_token_id").and_then(Value::as_u64);
        let all: BTreeSet<u64> = eos
            .into_iter()
            .chain(ends.into_iter().map(u64::from))
            .collect();
        settings.insert("eos_token_id".into(), json!(all));
    }
    settings.insert("dtype".into(), json!("float32"));
    Ok(Value::Object(settings))
}

/// The `rope_scaling` of Transformers.
fn scaling(
    metadata: &Metadata<'_>,
    positions: u64,
    frequencies: Option<Vec<f32>>,
) -> Result<Option<Value>, FormatError> {
    let factor = metadata.number("rope.scaling.factor")?;
    let original = metadata.count("rope.scaling.original_context_length")?;
    if let Some(factors) = frequencies {
        // Factors of each frequency, as those of llama3: this is longrope without attention factor,
        // whatever the length.
        return Ok(Some(json!({
            "rope_type": "longrope",
            "factor": 1.0,
            "attention_factor": 1.0,
            "original_max_position_embeddings": original.unwrap_or(positions),
            "short_factor": factors,
            "long_factor": factors,
        })));
    }
    let kind = metadata.text("rope.scaling.type");
    match kind {
        None => {
            // The older key of linear scaling.
            let linear = metadata.number("rope.scale_linear")?;
            let linear = linear.filter(|&factor| factor != 1.0);
            Ok(linear.map(|factor| json!({"rope_type": "linear", "factor": factor})))
        }
        Some("none") => Ok(None),
        Some("linear" | "yarn") => {
            let Some(factor) = factor else {
                return Err(metadata.error("rope.scaling.factor", "is missing"));
            };
            let mut scaling = json!({"rope_type": kind, "factor": factor});
            if let Some(original) = original {
                scaling["original_max_position_embeddings"] = json!(original);
            }
            Ok(Some(scaling))
        }
        Some(other) => {
            let reason = format!("`{other}` is not supported: none, linear and yarn are");
            Err(metadata.error("rope.scaling.type", reason))
        }
    }
}
