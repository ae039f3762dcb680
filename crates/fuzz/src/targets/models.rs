//! Foreign models: weights, configuration, adapter, GGUF.

use crate::{
    BOUNDARY, Outcome, Target, files, folder,
    model::{self, CPU},
};
use tightrope_device::DType;
use tightrope_model::{Model, ModelConfig, Plan};
use tightrope_run::Base;

pub(super) const SAFETENSORS: Target = Target {
    name: "safetensors",
    run: |bytes| {
        let config = model::config("llama").to_string();
        let (_folder, path) = folder(&[
            ("config.json", config.as_bytes()),
            ("model.safetensors", bytes),
        ])?;
        Model::load(&*CPU, &path, &model::options())?;
        Ok(())
    },
    seeds: || vec![model::weights()],
    words: &[
        "__metadata__",
        "dtype",
        "shape",
        "data_offsets",
        "F32",
        "BF16",
        "F16",
        "U8",
        "I64",
        "F64",
        "lm_head.weight",
        "model.embed_tokens.weight",
        "rotary_emb.inv_freq",
    ],
};

pub(super) const CONFIG: Target = Target {
    name: "config",
    run: |bytes| {
        let (_folder, path) = folder(&[("config.json", bytes)])?;
        let config = ModelConfig::read(&path)?;
        Plan::new(&config, None, &model::options(), DType::BF16)?;
        ModelConfig::from_json(&config.to_json())?;
        Ok(())
    },
    seeds: || {
        let types = ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"];
        types
            .map(|kind| model::config(kind).to_string().into())
            .to_vec()
    },
    words: &[
        "rope_parameters",
        "rope_scaling",
        "rope_type",
        "type",
        "factor",
        "yarn",
        "linear",
        "dynamic",
        "llama3",
        "longrope",
        "short_factor",
        "long_factor",
        "original_max_position_embeddings",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "low_freq_factor",
        "high_freq_factor",
        "sliding_window",
        "layer_types",
        "sliding_attention",
        "full_attention",
        "use_sliding_window",
        "max_window_layers",
        "hidden_act",
        "silu",
        "gelu_pytorch_tanh",
        "attention_bias",
        "mlp_bias",
        "quantization_config",
        "bitsandbytes",
        "load_in_4bit",
        "bnb_4bit_quant_type",
        "nf4",
        "query_pre_attn_scalar",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "initializer_range",
        "bos_token_id",
        "architectures",
        "1e308",
        "18446744073709551615",
        "-1",
    ],
};

pub(super) const ADAPTER: Target = Target {
    name: "adapter",
    run: |bytes| {
        let [config, factors] = files(bytes);
        let (base, weights) = (model::config("llama").to_string(), model::weights());
        let (_folder, path) = folder(&[
            ("config.json", base.as_bytes()),
            ("model.safetensors", &weights),
            ("adapter_config.json", config),
            ("adapter_model.safetensors", factors),
        ])?;
        let mut options = model::options();
        options.adapter = Some(path.clone());
        Model::load(&*CPU, &path, &options)?;
        Ok(())
    },
    seeds: || {
        let (config, factors) = model::adapter();
        vec![[config.to_string().as_bytes(), BOUNDARY, &factors].concat()]
    },
    words: &[
        "all-linear",
        "rank_pattern",
        "alpha_pattern",
        "layers_to_transform",
        "use_rslora",
        "use_dora",
        "modules_to_save",
        "fan_in_fan_out",
        "lora_bias",
        "exclude_modules",
        "init_lora_weights",
        "base_model_name_or_path",
        "q_proj",
        "k_proj",
        "down_proj",
        "bias",
        "all",
        "18446744073709551615",
    ],
};

pub(super) const GGUF: Target = Target {
    name: "gguf",
    run: gguf,
    seeds: || vec![model::gguf(false), model::gguf(true)],
    words: &[
        "general.architecture",
        "general.alignment",
        "general.file_type",
        "llama.",
        "qwen2.",
        "gemma2.",
        "rope.freq_base",
        "rope.scaling.type",
        "rope.scaling.factor",
        "attention.sliding_window",
        "tokenizer.ggml.token_type",
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.add_bos_token",
        "tokenizer.ggml.scores",
        "tokenizer.chat_template",
        "output.weight",
        "vocab_size",
    ],
};

fn gguf(bytes: &[u8]) -> Outcome {
    let (_folder, path) = folder(&[("model.gguf", bytes)])?;
    // The tokenizer may be wrong although the weights are right.
    let tokenizer = Base::open(&path.to_string_lossy(), &()).map(drop);
    let file = path.join("model.gguf");
    Model::load(&*CPU, &file, &model::options())?;
    Ok(tokenizer?)
}
