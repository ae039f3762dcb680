//! `config.json`: the family of a model and its computation.

use crate::{
    Architecture, ConfigError, HeadKind, LoadOptions, ModelError,
    checkpoint::{Quantization, Stored},
    family::{self, Family},
    lora,
    settings::Settings,
};
use serde_json::{Map, Value, json};
use tightrope_device::DType;

/// Configuration of a model: the settings as read, and their meaning.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    settings: Map<String, Value>,
    family: &'static Family,
    architecture: Architecture,
    quantization: Option<Quantization>,
    /// Whether the files also have parts for images, which are left out.
    text_part: bool,
}

/// Types of models with other parts beside the text, and the type of the text if it is not named.
const WITH_OTHER_PARTS: &[(&str, &str)] = &[("gemma3", "gemma3_text"), ("mistral3", "mistral")];

/// Keys of a whole model that count for its text.
const OF_THE_WHOLE: &[&str] = &[
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "pad_token_id",
    "quantization_config",
    "tie_word_embeddings",
    "torch_dtype",
];

/// The settings of the text of a model that has other parts too; `None` for others.
fn of_text(settings: &Map<String, Value>) -> Option<Map<String, Value>> {
    let whole = settings.get("model_type")?.as_str()?;
    let (_, text) = WITH_OTHER_PARTS.iter().find(|(name, _)| *name == whole)?;
    let own = settings.get("text_config")?.as_object()?;
    let mut own = own.clone();
    own.entry("model_type").or_insert_with(|| json!(text));
    for key in OF_THE_WHOLE {
        if let Some(value) = settings.get(*key) {
            own.entry(*key).or_insert_with(|| value.clone());
        }
    }
    own.shift_remove("architectures");
    Some(own)
}

/// Settings that would change the computation and are not supported.
const UNSUPPORTED: &[(&str, &str)] = &[
    (
        "use_bidirectional_attention",
        "only causal attention is supported",
    ),
    ("num_experts", "mixtures of experts are not supported"),
    ("num_local_experts", "mixtures of experts are not supported"),
    (
        "attention_dropout",
        "dropout in attention is not supported: set it to 0",
    ),
    (
        "residual_dropout",
        "dropout on the residual stream is not supported: set it to 0",
    ),
    ("clip_qkv", "clipped queries are not supported"),
];

impl ModelConfig {
    /// Reads the contents of a `config.json`.
    pub fn from_json(settings: &Value) -> Result<Self, ConfigError> {
        let Value::Object(settings) = settings else {
            return Err(ConfigError::new("config", "expected an object"));
        };
        let text = of_text(settings);
        let text_part = text.is_some();
        let settings = text.as_ref().unwrap_or(settings);
        let reader = Settings(settings);
        let model_type = reader
            .text("model_type")?
            .ok_or_else(|| ConfigError::new("model_type", "is missing"))?;
        let family = family::find(model_type)?;
        for (key, reason) in UNSUPPORTED {
            reader.refuse(key, reason)?;
        }
        let mut config = Self {
            architecture: (family.describe)(&reader)?,
            quantization: Quantization::read(&reader)?,
            family,
            settings: settings.clone(),
            text_part,
        };
        let classes = settings.get("architectures").and_then(Value::as_array);
        let class = classes.and_then(|classes| classes.first()?.as_str());
        if class.is_some_and(|class| class.ends_with("ForSequenceClassification")) {
            let labels = match reader.value("id2label") {
                Some(Value::Object(labels)) => labels.len(),
                // The default of Transformers.
                _ => reader.count("num_labels")?.unwrap_or(2),
            };
            if labels != 1 {
                let reason = format!(
                    "{labels} labels are not supported: a model that scores sequences has one"
                );
                return Err(ConfigError::new("num_labels", reason));
            }
            config.architecture.head = HeadKind::Score;
            config.architecture.tied_head = false;
        }
        Ok(config)
    }

    /// Replaces the head by one that scores sequences, as Transformers' sequence classifiers with one
    /// label have it; nothing changes if it is one.
    pub(crate) fn score_sequences(&mut self) -> Result<(), ConfigError> {
        if self.architecture.head == HeadKind::Score {
            return Ok(());
        }
        let Some(class) = self.family.classifier else {
            let reason = format!(
                "`{}` cannot score sequences: Transformers has no sequence classifier for it",
                self.family.model_type
            );
            return Err(ConfigError::new("model_type", reason));
        };
        self.architecture.head = HeadKind::Score;
        self.architecture.tied_head = false;
        let settings = &mut self.settings;
        settings.insert("architectures".into(), json!([class]));
        settings.insert("id2label".into(), json!({ "0": "LABEL_0" }));
        settings.insert("label2id".into(), json!({ "LABEL_0": 0 }));
        Ok(())
    }

    /// Takes over the head and the number of tokens that the options and their adapter ask for.
    pub(crate) fn apply(&mut self, options: &LoadOptions) -> Result<(), ModelError> {
        if options.score || options.adapter.as_deref().is_some_and(lora::scores) {
            self.score_sequences().map_err(ModelError::Setting)?;
        }
        self.resize(self.rows(options)?);
        Ok(())
    }

    /// The token that fills rows, if the settings name it.
    pub(crate) fn padding(&self) -> Option<u32> {
        let id = self.settings.get("pad_token_id")?.as_u64()?;
        u32::try_from(id).ok()
    }

    /// Names the token that fills rows, by which Transformers finds the last token of a sequence,
    /// unless there is one.
    pub(crate) fn name_padding(&mut self, id: u32) {
        let pad = self.settings.entry("pad_token_id").or_insert(Value::Null);
        if pad.is_null() {
            *pad = json!(id);
        }
    }

    /// The settings as read, as a `config.json` that Transformers loads.
    pub fn to_json(&self) -> Value {
        let mut settings = self.settings.clone();
        settings
            .entry("architectures")
            .or_insert_with(|| Value::from(vec![self.family.class]));
        Value::Object(settings)
    }

    /// Makes the head a separate tensor.
    pub(crate) fn untie(&mut self) {
        self.architecture.tied_head = false;
        self.settings
            .insert("tie_word_embeddings".into(), Value::Bool(false));
    }

    /// Sets the number of rows of the embedding.
    pub(crate) fn resize(&mut self, rows: usize) {
        if self.architecture.vocabulary != rows {
            self.architecture.vocabulary = rows;
            self.settings.insert("vocab_size".into(), rows.into());
        }
    }

    /// Whether the files also have parts for images, which are left out.
    pub fn is_text_part(&self) -> bool {
        self.text_part
    }

    /// Whether files hold weights of linear layers in NF4, in the layout of bitsandbytes.
    pub fn is_quantized(&self) -> bool {
        self.quantization.is_some()
    }

    /// Storage of the weight `name` of a linear layer in files; unquantised weights have type
    /// `dtype`.
    pub(crate) fn stored(&self, name: &str, dtype: DType) -> Stored {
        match &self.quantization {
            Some(quantization) => quantization.stored(name, dtype),
            None => Stored::Float(dtype),
        }
    }

    /// Description of the computation.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Name of the family: `llama`, `qwen3`, …
    pub fn model_type(&self) -> &'static str {
        self.family.model_type
    }

    /// How GGUF files hold the family.
    pub(crate) fn gguf(&self) -> &'static family::gguf::Gguf {
        &self.family.gguf
    }

    /// Ids that end a text, from `eos_token_id`.
    pub fn eos_token_ids(&self) -> Vec<u32> {
        self.token_ids("eos_token_id")
    }

    /// Id that begins a text, from `bos_token_id`.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.token_ids("bos_token_id").first().copied()
    }

    fn token_ids(&self, key: &str) -> Vec<u32> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        match self.settings.get(key) {
            Some(Value::Array(ids)) => ids.iter().filter_map(id).collect(),
            Some(value) => id(value).into_iter().collect(),
            None => Vec::new(),
        }
    }
}
