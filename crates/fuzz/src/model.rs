//! A model as small as can be, in every form in which models come.

use serde_json::{Value, json};
use std::sync::LazyLock;
use tightrope_device::Cpu;
use tightrope_model::{LoadOptions, Training};

const VOCABULARY: usize = 16;
const HIDDEN: usize = 32;
const INTERMEDIATE: usize = 32;
const KEY_VALUES: usize = 16;

pub static CPU: LazyLock<Cpu> = LazyLock::new(|| Cpu::new(1).expect("one thread can be started"));

pub fn options() -> LoadOptions {
    LoadOptions::new(Training::None, 8)
}

pub fn config(model_type: &str) -> Value {
    json!({
        "model_type": model_type,
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "eos_token_id": 2,
    })
}

/// Names as Transformers has them and as GGUF has them, with rows and columns (no columns: a vector).
const TENSORS: &[(&str, &str, usize, usize)] = &[
    ("model.embed_tokens", "token_embd", VOCABULARY, HIDDEN),
    (
        "model.layers.0.input_layernorm",
        "blk.0.attn_norm",
        HIDDEN,
        0,
    ),
    (
        "model.layers.0.self_attn.q_proj",
        "blk.0.attn_q",
        HIDDEN,
        HIDDEN,
    ),
    (
        "model.layers.0.self_attn.k_proj",
        "blk.0.attn_k",
        KEY_VALUES,
        HIDDEN,
    ),
    (
        "model.layers.0.self_attn.v_proj",
        "blk.0.attn_v",
        KEY_VALUES,
        HIDDEN,
    ),
    (
        "model.layers.0.self_attn.o_proj",
        "blk.0.attn_output",
        HIDDEN,
        HIDDEN,
    ),
    (
        "model.layers.0.post_attention_layernorm",
        "blk.0.ffn_norm",
        HIDDEN,
        0,
    ),
    (
        "model.layers.0.mlp.gate_proj",
        "blk.0.ffn_gate",
        INTERMEDIATE,
        HIDDEN,
    ),
    (
        "model.layers.0.mlp.up_proj",
        "blk.0.ffn_up",
        INTERMEDIATE,
        HIDDEN,
    ),
    (
        "model.layers.0.mlp.down_proj",
        "blk.0.ffn_down",
        HIDDEN,
        INTERMEDIATE,
    ),
    ("model.norm", "output_norm", HIDDEN, 0),
];

/// A safetensors file of zeros: name, type, shape.
pub fn safetensors(tensors: &[(String, safetensors::Dtype, Vec<usize>)]) -> Vec<u8> {
    let zeros = vec![0; 1 << 16];
    let views = tensors.iter().map(|(name, dtype, shape)| {
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let view = safetensors::tensor::TensorView::new(*dtype, shape.clone(), &zeros[..bytes]);
        (
            name.clone(),
            view.expect("as many bytes as the shape needs"),
        )
    });
    safetensors::serialize(views, None).expect("a description of a few tensors")
}

/// The weights of [`config`].
pub fn weights() -> Vec<u8> {
    let all: Vec<_> = TENSORS
        .iter()
        .map(|&(name, _, rows, columns)| {
            let shape = if columns == 0 {
                vec![rows]
            } else {
                vec![rows, columns]
            };
            (format!("{name}.weight"), safetensors::Dtype::F16, shape)
        })
        .collect();
    safetensors(&all)
}

/// An adapter of rank 2 on one layer.
pub fn adapter() -> (Value, Vec<u8>) {
    let config = json!({
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "lora_dropout": 0.0,
        "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", "bias": "none",
    });
    let name =
        |factor| format!("base_model.model.model.layers.0.self_attn.q_proj.lora_{factor}.weight");
    let factors = [(name("A"), vec![2, HIDDEN]), (name("B"), vec![HIDDEN, 2])];
    let factors = factors.map(|(name, shape)| (name, safetensors::Dtype::F32, shape));
    (config, safetensors(&factors))
}

const TEXT: u32 = 8;
const F32: u32 = 0;
const F16: u32 = 1;
const Q8_0: u32 = 8;

/// The same as a GGUF file with a byte-level tokenizer, its matrices quantised if asked.
pub fn gguf(quantized: bool) -> Vec<u8> {
    let mut metadata = Metadata::default();
    metadata.text("general.architecture", "llama");
    for (key, value) in [
        ("embedding_length", HIDDEN),
        ("block_count", 1),
        ("feed_forward_length", INTERMEDIATE),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("attention.key_length", 16),
        ("attention.value_length", 16),
        ("context_length", 64),
    ] {
        metadata.add(&format!("llama.{key}"), 4, (value as u32).to_le_bytes());
    }
    let epsilon = 1e-5f32.to_le_bytes();
    metadata.add("llama.attention.layer_norm_rms_epsilon", 6, epsilon);
    metadata.text("tokenizer.ggml.model", "gpt2");
    metadata.text("tokenizer.ggml.pre", "smollm");
    let tokens = [
        "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "ab", "cd", "Ġ", "Ċ", "<s>", "</s>",
    ];
    metadata.texts("tokenizer.ggml.tokens", &tokens);
    metadata.texts("tokenizer.ggml.merges", &["a b", "c d"]);
    metadata.add("tokenizer.ggml.eos_token_id", 4, 15u32.to_le_bytes());

    let (mut infos, mut data) = (Vec::new(), Vec::new());
    for &(_, name, rows, columns) in TENSORS {
        let (kind, bytes) = match (columns, quantized) {
            (0, _) => (F32, rows * 4),
            (_, true) => (Q8_0, rows * columns / 32 * 34),
            (_, false) => (F16, rows * columns * 2),
        };
        let dimensions: Vec<usize> = [columns, rows].into_iter().filter(|&d| d > 0).collect();
        infos.extend(text(&format!("{name}.weight")));
        infos.extend((dimensions.len() as u32).to_le_bytes());
        infos.extend(dimensions.iter().flat_map(|&d| (d as u64).to_le_bytes()));
        infos.extend(kind.to_le_bytes());
        infos.extend((data.len() as u64).to_le_bytes());
        data.resize((data.len() + bytes).next_multiple_of(32), 0);
    }
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend((TENSORS.len() as u64).to_le_bytes());
    file.extend(metadata.count.to_le_bytes());
    file.extend(metadata.bytes);
    file.extend(infos);
    file.resize(file.len().next_multiple_of(32), 0);
    file.extend(data);
    file
}

#[derive(Default)]
struct Metadata {
    count: u64,
    bytes: Vec<u8>,
}

impl Metadata {
    fn add(&mut self, key: &str, kind: u32, value: impl AsRef<[u8]>) {
        self.count += 1;
        self.bytes.extend(text(key));
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend(value.as_ref());
    }
    fn text(&mut self, key: &str, value: &str) {
        self.add(key, TEXT, text(value));
    }
    fn texts(&mut self, key: &str, values: &[&str]) {
        let mut list = TEXT.to_le_bytes().to_vec();
        list.extend((values.len() as u64).to_le_bytes());
        list.extend(values.iter().flat_map(|value| text(value)));
        self.add(key, 9, list);
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}
