//! Writes weight files, whole and damaged, for tests of their readers.

use super::Expected;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A safetensors file: any header, then `data`.
pub(crate) fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// The tensors of a safetensors file: name, description, bytes.
pub(crate) fn tensors(path: &Path) -> Vec<(String, Value, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Map<String, Value> = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
    let data = &bytes[8 + size..];
    let tensors = header
        .into_iter()
        .filter(|(name, _)| name != "__metadata__");
    tensors
        .map(|(name, description)| {
            let at = |i: usize| description["data_offsets"][i].as_u64().unwrap() as usize;
            let bytes = data[at(0)..at(1)].to_vec();
            (name, description, bytes)
        })
        .collect()
}

/// Writes tensors side by side.
pub(crate) fn write_tensors(path: &Path, tensors: &[(String, Value, Vec<u8>)]) {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, description, bytes) in tensors {
        let mut description = description.clone();
        description["data_offsets"] = json!([data.len(), data.len() + bytes.len()]);
        header.insert(name.clone(), description);
        data.extend(bytes);
    }
    std::fs::write(path, safetensors(&Value::Object(header).to_string(), &data)).unwrap();
}

/// A copy of a case in a folder of its own, to be damaged.
pub(crate) fn copy(case: &Path) -> TempDir {
    let folder = TempDir::new().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(case.join(name), folder.path().join(name)).unwrap();
    }
    std::fs::create_dir(folder.path().join("adapter")).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let name = Path::new("adapter").join(name);
        std::fs::copy(case.join(&name), folder.path().join(&name)).unwrap();
    }
    folder
}

/// One golden case by name.
pub(crate) fn case(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// Reads JSON, lets `change` change it, writes it back.
pub(crate) fn change_json(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// Metadata and tensors of a GGUF file to be written.
#[derive(Default)]
pub(crate) struct GgufWriter {
    pub version: u32,
    pub metadata: Vec<(String, u32, Vec<u8>)>,
    /// Name, dimensions (innermost first), type, bytes.
    pub tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

impl GgufWriter {
    pub(crate) fn new() -> Self {
        Self {
            version: 3,
            ..Self::default()
        }
    }
    pub(crate) fn number(&mut self, key: &str, value: u64) {
        let bytes = (value as u32).to_le_bytes().to_vec();
        self.metadata.push((key.into(), 4, bytes));
    }
    pub(crate) fn float(&mut self, key: &str, value: f64) {
        let bytes = (value as f32).to_le_bytes().to_vec();
        self.metadata.push((key.into(), 6, bytes));
    }
    pub(crate) fn flag(&mut self, key: &str, value: bool) {
        self.metadata.push((key.into(), 7, vec![value.into()]));
    }
    pub(crate) fn text(&mut self, key: &str, value: &str) {
        self.metadata.push((key.into(), 8, text(value)));
    }
    pub(crate) fn texts(&mut self, key: &str, values: &[&str]) {
        let mut bytes = 8u32.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.iter().flat_map(|value| text(value)));
        self.metadata.push((key.into(), 9, bytes));
    }
    pub(crate) fn numbers(&mut self, key: &str, values: &[i32]) {
        let mut bytes = 5u32.to_le_bytes().to_vec();
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.metadata.push((key.into(), 9, bytes));
    }
    /// An f32 tensor with its shape outermost first.
    pub(crate) fn tensor(&mut self, name: &str, shape: &[u64], values: &[f32]) {
        let dimensions = shape.iter().rev().copied().collect();
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.tensors.push((name.into(), dimensions, 0, bytes));
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.metadata {
            bytes.extend(text(key));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value);
        }
        let mut offset = 0u64;
        for (name, dimensions, kind, data) in &self.tensors {
            bytes.extend(text(name));
            bytes.extend((dimensions.len() as u32).to_le_bytes());
            bytes.extend(dimensions.iter().flat_map(|dim| dim.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            offset += (data.len() as u64).next_multiple_of(32);
        }
        for (_, _, _, data) in &self.tensors {
            bytes.resize(bytes.len().next_multiple_of(32), 0);
            bytes.extend(data);
        }
        bytes
    }
}

/// The result of llama.cpp's converter for a golden case: names, pairs instead of halves in the
/// rows of `llama`'s queries and keys, and Gemma's norms with 1 added.
pub(crate) fn convert(case: &Path) -> GgufWriter {
    let config: Value =
        serde_json::from_slice(&std::fs::read(case.join("config.json")).unwrap()).unwrap();
    let model_type = config["model_type"].as_str().unwrap();
    let arch = match model_type {
        "mistral" => "llama",
        "gemma3_text" => "gemma3",
        other => other,
    };
    let rope = &config["rope_parameters"];
    let rope = rope.get("full_attention").unwrap_or(rope);
    let count = |key: &str| config[key].as_u64();
    let heads = count("num_attention_heads").unwrap();
    let head_dim = count("head_dim").unwrap_or(count("hidden_size").unwrap() / heads);
    let mut gguf = GgufWriter::new();
    gguf.text("general.architecture", arch);
    for (key, name) in [
        ("hidden_size", "embedding_length"),
        ("num_hidden_layers", "block_count"),
        ("intermediate_size", "feed_forward_length"),
        ("num_attention_heads", "attention.head_count"),
        ("num_key_value_heads", "attention.head_count_kv"),
        ("max_position_embeddings", "context_length"),
        ("sliding_window", "attention.sliding_window"),
    ] {
        if let Some(value) = count(key) {
            gguf.number(&format!("{arch}.{name}"), value);
        }
    }
    gguf.number(&format!("{arch}.attention.key_length"), head_dim);
    gguf.number(&format!("{arch}.attention.value_length"), head_dim);
    let float = |value: &Value| value.as_f64();
    for (value, name) in [
        (&config["rms_norm_eps"], "attention.layer_norm_rms_epsilon"),
        (&rope["rope_theta"], "rope.freq_base"),
        (&config["attn_logit_softcapping"], "attn_logit_softcapping"),
        (
            &config["final_logit_softcapping"],
            "final_logit_softcapping",
        ),
        (&rope["factor"], "rope.scaling.factor"),
        (&config["embedding_multiplier"], "embedding_scale"),
        (&config["residual_multiplier"], "residual_scale"),
        (&config["attention_multiplier"], "attention.scale"),
        (&config["logits_scaling"], "logit_scale"),
    ] {
        if let Some(value) = float(value) {
            gguf.float(&format!("{arch}.{name}"), value);
        }
    }
    if let Some(kind @ ("linear" | "yarn")) = rope["rope_type"].as_str() {
        gguf.text(&format!("{arch}.rope.scaling.type"), kind);
    }
    if let Some(original) = rope["original_max_position_embeddings"].as_u64() {
        gguf.number(
            &format!("{arch}.rope.scaling.original_context_length"),
            original,
        );
    }
    let weights = Expected::open(&case.join("model.safetensors"));
    for name in weights.names() {
        let mut values: Vec<f32> = weights.get(&name).iter().map(|&v| v as f32).collect();
        let shape = weights.shape(&name);
        let permuted = ["llama", "smollm3", "granite"].contains(&arch);
        if permuted && (name.contains("q_proj") || name.contains("k_proj")) {
            values = permute(&values, shape[0] as usize, head_dim as usize);
        }
        if arch.starts_with("gemma") && name.ends_with("norm.weight") {
            values.iter_mut().for_each(|w| *w += 1.0);
        }
        gguf.tensor(&rename(&name, model_type), &shape, &values);
    }
    gguf
}

/// Rows `(i, i + head_dim/2)` become neighbours.
fn permute(values: &[f32], rows: usize, head_dim: usize) -> Vec<f32> {
    let row = values.len() / rows;
    let mut permuted = vec![0.0; values.len()];
    for from in 0..rows {
        let (head, i) = (from / head_dim, from % head_dim);
        let half = head_dim / 2;
        let to = head * head_dim + if i < half { 2 * i } else { 2 * (i - half) + 1 };
        permuted[to * row..(to + 1) * row].copy_from_slice(&values[from * row..(from + 1) * row]);
    }
    permuted
}

fn rename(name: &str, model_type: &str) -> String {
    let mut name = name
        .replace("model.embed_tokens", "token_embd")
        .replace("model.norm", "output_norm")
        .replace("lm_head", "output")
        .replace("model.layers.", "blk.");
    if ["gemma2", "gemma3_text", "olmo2"].contains(&model_type) {
        name = name
            .replace("post_attention_layernorm", "post_attention_norm")
            .replace("pre_feedforward_layernorm", "ffn_norm")
            .replace("post_feedforward_layernorm", "post_ffw_norm");
    }
    for (from, to) in [
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ] {
        name = name.replace(from, to);
    }
    name
}
