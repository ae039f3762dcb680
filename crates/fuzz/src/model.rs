//! The smallest possible model, in every format.

use serde_json::{Map, Value, json};
use std::{path::Path, sync::LazyLock};
use tightrope_device::Cpu;
use tightrope_formats::{
    Encoding, FormatError, TensorOut,
    gguf::{self, List},
    safetensors,
};
use tightrope_model::LoadOptions;

const VOCABULARY: usize = 16;
const HIDDEN: usize = 32;
const INTERMEDIATE: usize = 32;
const KEY_VALUES: usize = 16;

pub(crate) static CPU: LazyLock<Cpu> =
    LazyLock::new(|| Cpu::new(1).expect("one thread can be started"));

pub(crate) fn options() -> LoadOptions {
    LoadOptions::new(8)
}

pub(crate) fn config(model_type: &str) -> Value {
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

/// Names in Transformers and in GGUF, with rows and columns (no columns: a vector).
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

/// Tensors of zeros.
fn zeros(
    tensors: impl IntoIterator<Item = (String, Encoding, Vec<usize>)>,
) -> Vec<TensorOut<'static, FormatError>> {
    let out = |(name, encoding, shape): (String, Encoding, Vec<usize>)| {
        let blocks = shape.iter().product::<usize>() / encoding.block_elements();
        TensorOut::new(name, encoding, &shape, move || {
            Ok(vec![0; blocks * encoding.block_bytes()])
        })
    };
    tensors.into_iter().map(out).collect()
}

/// Bytes of the file that `write` writes.
fn written(write: impl FnOnce(&Path) -> Result<(), FormatError>) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder for a file");
    let path = folder.path().join("file");
    write(&path).expect("a file of a few tensors");
    std::fs::read(path).expect("what has been written")
}

fn shape(rows: usize, columns: usize) -> Vec<usize> {
    [rows, columns].into_iter().filter(|&dim| dim > 0).collect()
}

/// The weights of [`config`].
pub(crate) fn weights() -> Vec<u8> {
    let all = TENSORS.iter().map(|&(name, _, rows, columns)| {
        let name = format!("{name}.weight");
        (name, Encoding::F16, shape(rows, columns))
    });
    written(|path| safetensors::write(path, &[], zeros(all)))
}

/// The index of a model whose weights are in one file.
pub(crate) fn index(file: &str) -> Value {
    let names = TENSORS.iter().map(|(name, ..)| format!("{name}.weight"));
    let map: Map<String, Value> = names.map(|name| (name, file.into())).collect();
    json!({"metadata": {"total_size": 0}, "weight_map": map})
}

/// An adapter of rank 2 on one layer.
pub(crate) fn adapter() -> (Value, Vec<u8>) {
    let config = json!({
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "lora_dropout": 0.0,
        "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", "bias": "none",
    });
    let name =
        |factor| format!("base_model.model.model.layers.0.self_attn.q_proj.lora_{factor}.weight");
    let factors = [(name("A"), vec![2, HIDDEN]), (name("B"), vec![HIDDEN, 2])];
    let factors = factors.map(|(name, shape)| (name, Encoding::F32, shape));
    let factors = written(|path| safetensors::write(path, &[], zeros(factors)));
    (config, factors)
}

/// The same model as a GGUF file with a byte-level tokenizer, with quantised matrices on request.
pub(crate) fn gguf(quantized: bool) -> Vec<u8> {
    let text = |text: &str| gguf::Value::Text(text.to_owned());
    let texts = |texts: &[&'static str]| gguf::Value::List(List::texts(texts.iter().copied()));
    let number = |number: usize| gguf::Value::U32(number as u32);
    let metadata = [
        ("general.architecture", text("llama")),
        ("llama.embedding_length", number(HIDDEN)),
        ("llama.block_count", number(1)),
        ("llama.feed_forward_length", number(INTERMEDIATE)),
        ("llama.attention.head_count", number(2)),
        ("llama.attention.head_count_kv", number(1)),
        ("llama.attention.key_length", number(16)),
        ("llama.attention.value_length", number(16)),
        ("llama.context_length", number(64)),
        (
            "llama.attention.layer_norm_rms_epsilon",
            gguf::Value::F32(1e-5),
        ),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("smollm")),
        (
            "tokenizer.ggml.tokens",
            texts(&[
                "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "ab", "cd", "Ġ", "Ċ", "<s>",
                "</s>",
            ]),
        ),
        ("tokenizer.ggml.merges", texts(&["a b", "c d"])),
        ("tokenizer.ggml.eos_token_id", number(15)),
    ];
    let tensors = TENSORS.iter().map(|&(_, name, rows, columns)| {
        let encoding = match (columns, quantized) {
            (0, _) => Encoding::F32,
            (_, true) => Encoding::Q8_0,
            (_, false) => Encoding::F16,
        };
        (format!("{name}.weight"), encoding, shape(rows, columns))
    });
    written(|path| gguf::write(path, &metadata, zeros(tensors)))
}
