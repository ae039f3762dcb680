//! Differences between the tensors of a GGUF file and those of Transformers: names, the order of
//! rows, and Gemma's norms.

/// Pairs of names outside of layers.
const OUTSIDE: [(&str, &str); 3] = [
    ("token_embd.weight", "model.embed_tokens.weight"),
    ("output_norm.weight", "model.norm.weight"),
    ("output.weight", "lm_head.weight"),
];

/// Pairs of names in a layer.
const INSIDE: [(&str, &str); 12] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Changes of llama.cpp's conversion, by architecture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conversion {
    /// `model_type` of Transformers.
    pub model_type: &'static str,
    /// Whether rows of queries and keys are reordered from halves to pairs.
    pub permuted: bool,
    /// Whether norms are stored with 1 added.
    pub norm_plus_one: bool,
    /// Name of the norm before the MLP.
    pub mlp_norm: &'static str,
}

/// The conversion of an architecture (`general.architecture`).
pub(super) fn conversion(architecture: &str) -> Option<Conversion> {
    let plain = |model_type| Conversion {
        model_type,
        permuted: false,
        norm_plus_one: false,
        mlp_norm: "post_attention_layernorm",
    };
    let permuted = |model_type| Conversion {
        permuted: true,
        ..plain(model_type)
    };
    Some(match architecture {
        "llama" => permuted("llama"),
        "smollm3" => permuted("smollm3"),
        "granite" => permuted("granite"),
        "qwen2" => plain("qwen2"),
        "qwen3" => plain("qwen3"),
        "gemma" => Conversion {
            norm_plus_one: true,
            ..plain("gemma")
        },
        "gemma2" => Conversion {
            norm_plus_one: true,
            mlp_norm: "pre_feedforward_layernorm",
            ..plain("gemma2")
        },
        _ => return None,
    })
}

/// The known architectures, for messages.
pub(super) const KNOWN: &str = "llama, qwen2, qwen3, gemma, gemma2, smollm3 and granite are";

impl Conversion {
    /// The name in Transformers; unknown names stay unchanged, so that they are reported.
    pub(super) fn rename(&self, name: &str) -> String {
        if let Some((_, renamed)) = OUTSIDE.iter().find(|(gguf, _)| *gguf == name) {
            return (*renamed).to_string();
        }
        let parts = name.strip_prefix("blk.").and_then(|rest| {
            let (layer, rest) = rest.split_once('.')?;
            let (module, kind) = rest.rsplit_once('.')?;
            Some((layer, module, kind))
        });
        let Some((layer, module, kind)) = parts else {
            return name.to_string();
        };
        let renamed = match module {
            "ffn_norm" => Some(self.mlp_norm),
            _ => INSIDE
                .iter()
                .find(|(gguf, _)| *gguf == module)
                .map(|(_, renamed)| *renamed),
        };
        match renamed {
            Some(renamed) => format!("model.layers.{layer}.{renamed}.{kind}"),
            None => name.to_string(),
        }
    }

    /// Whether rows (or the elements of a bias) must be reordered.
    pub(super) fn permutes(&self, renamed: &str) -> bool {
        let (module, _) = renamed.rsplit_once('.').unwrap_or((renamed, ""));
        self.permuted && (module.ends_with(".q_proj") || module.ends_with(".k_proj"))
    }

    /// Whether 1 must be subtracted.
    pub(super) fn takes_one_off(&self, renamed: &str) -> bool {
        self.norm_plus_one && renamed.ends_with("norm.weight")
    }
}

/// Undoes llama.cpp's order of rows for rotations of pairs `(2i, 2i + 1)`: restores `(i, i +
/// head_dim/2)`. `bytes` are rows of equal length.
pub(super) fn unpermute(bytes: &[u8], rows: usize, head_dim: usize) -> Vec<u8> {
    let row = bytes.len() / rows.max(1);
    let mut ordered = Vec::with_capacity(bytes.len());
    for target in 0..rows {
        let (head, i) = (target / head_dim, target % head_dim);
        let source = head * head_dim + 2 * (i % (head_dim / 2)) + i / (head_dim / 2);
        ordered.extend_from_slice(&bytes[source * row..(source + 1) * row]);
    }
    ordered
}
