//! Finds what a GGUF file does not say of a model: what a reader would compute otherwise.

use crate::Architecture;
use std::fmt::Debug;
use tightrope_rope::{RopeConfig, RotaryEmbedding};

/// Compares these fields, and the rotations. A field that is not named does not compile.
macro_rules! first_difference {
    ($own:ident, $read:ident, $($field:ident: $what:literal,)*) => {{
        let Architecture { $($field,)* rope, window_rope, initializer_range: _ } = $own;
        let unequal = [
            $(differs($what, $field, &$read.$field),)*
            rotates("the frequencies of the rotation", rope, &$read.rope),
            rotates(
                "the frequencies of layers with windows",
                window_rope.as_ref().unwrap_or(rope),
                $read.window_rope.as_ref().unwrap_or(&$read.rope),
            ),
        ];
        unequal.into_iter().flatten().next()
    }};
}

/// What a reader of the file would take for something else, if there is anything. The standard
/// deviation of new weights computes nothing.
pub(super) fn unsaid(own: &Architecture, read: &Architecture) -> Option<String> {
    first_difference! { own, read,
        vocabulary: "the size of the vocabulary",
        hidden: "the hidden size",
        intermediate: "the size of the gated unit",
        windows: "the windows of its layers",
        rotated: "which layers rotate",
        heads: "the number of heads",
        kv_heads: "the number of key heads",
        head_dim: "the size of a head",
        norm_eps: "the epsilon of norms",
        norm_plus_one: "how norms are stored",
        query_norms: "the norms of queries",
        norm_places: "the places of norms",
        qkv_bias: "the biases of queries, keys and values",
        output_bias: "the bias after attention",
        mlp_bias: "the biases of the gated unit",
        activation: "the activation",
        embedding_scale: "the factor of the embedding",
        residual_scale: "the factor of residuals",
        attention_scale: "the factor of scores",
        attention_softcap: "the softcap of scores",
        logit_scale: "the factor of logits",
        logit_softcap: "the softcap of logits",
        head: "what the head computes",
        tied_head: "whether the head is the embedding",
    }
}

fn differs<T: PartialEq + Debug>(what: &str, own: &T, read: &T) -> Option<String> {
    (own != read).then(|| {
        format!(
            "{what} ({}, and a reader takes {})",
            shown(own),
            shown(read)
        )
    })
}

/// The value without much of a long list.
fn shown(value: &impl Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(80) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Frequencies count as equal if no angle within the positions of a model changes visibly: they are
/// stored as factors in f32.
fn rotates(what: &str, own: &RopeConfig, read: &RopeConfig) -> Option<String> {
    let different = || Some(format!("{what} ({:?})", own.scaling));
    if own.max_position_embeddings != read.max_position_embeddings {
        return differs(
            "the number of positions",
            &own.max_position_embeddings,
            &read.max_position_embeddings,
        );
    }
    let (Ok(before), Ok(after)) = (RotaryEmbedding::new(own), RotaryEmbedding::new(read)) else {
        return different();
    };
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs().max(b.abs());
    let same_factor = near(before.attention_factor(), after.attention_factor());
    // Scalings by the length differ somewhere beyond the positions.
    let positions = own.max_position_embeddings as u64;
    let same = [1, positions, positions.saturating_mul(16)]
        .into_iter()
        .all(|length| {
            let (a, b) = (
                before.inverse_frequencies(length),
                after.inverse_frequencies(length),
            );
            a.len() == b.len() && a.iter().zip(&*b).all(|(&a, &b)| near(a.into(), b.into()))
        });
    match same && same_factor {
        true => None,
        false => different(),
    }
}
