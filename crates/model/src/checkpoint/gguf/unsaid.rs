//! Finds what a GGUF file does not say of a model: what a reader would compute otherwise.

use crate::Architecture;
use std::fmt::Debug;
use tightrope_rope::{RopeConfig, RotaryEmbedding};

/// What a reader of the file would take for something else, if there is anything. The standard
/// deviation of new weights computes nothing.
pub(super) fn unsaid(own: &Architecture, read: &Architecture) -> Option<String> {
    // Without `..`, so that a new field is compared too.
    let Architecture {
        vocabulary,
        hidden,
        intermediate,
        windows,
        rotated,
        heads,
        kv_heads,
        head_dim,
        norm_eps,
        norm_plus_one,
        query_norms,
        norm_places,
        qkv_bias,
        output_bias,
        mlp_bias,
        activation,
        embedding_scale,
        residual_scale,
        attention_scale,
        attention_softcap,
        logit_scale,
        logit_softcap,
        head,
        tied_head,
        rope,
        window_rope,
        initializer_range: _,
    } = own;
    let unequal = [
        differs("the size of the vocabulary", vocabulary, &read.vocabulary),
        differs("the hidden size", hidden, &read.hidden),
        differs(
            "the size of the gated unit",
            intermediate,
            &read.intermediate,
        ),
        differs("the windows of its layers", windows, &read.windows),
        differs("which layers rotate", rotated, &read.rotated),
        differs("the number of heads", heads, &read.heads),
        differs("the number of key heads", kv_heads, &read.kv_heads),
        differs("the size of a head", head_dim, &read.head_dim),
        differs("the epsilon of norms", norm_eps, &read.norm_eps),
        differs("how norms are stored", norm_plus_one, &read.norm_plus_one),
        differs("the norms of queries", query_norms, &read.query_norms),
        differs("the places of norms", norm_places, &read.norm_places),
        differs(
            "the biases of queries, keys and values",
            qkv_bias,
            &read.qkv_bias,
        ),
        differs("the bias after attention", output_bias, &read.output_bias),
        differs("the biases of the gated unit", mlp_bias, &read.mlp_bias),
        differs("the activation", activation, &read.activation),
        differs(
            "the factor of the embedding",
            embedding_scale,
            &read.embedding_scale,
        ),
        differs(
            "the factor of residuals",
            residual_scale,
            &read.residual_scale,
        ),
        differs(
            "the factor of scores",
            attention_scale,
            &read.attention_scale,
        ),
        differs(
            "the softcap of scores",
            attention_softcap,
            &read.attention_softcap,
        ),
        differs("the factor of logits", logit_scale, &read.logit_scale),
        differs("the softcap of logits", logit_softcap, &read.logit_softcap),
        differs("what the head computes", head, &read.head),
        differs(
            "whether the head is the embedding",
            tied_head,
            &read.tied_head,
        ),
        rotates("the frequencies of the rotation", rope, &read.rope),
        rotates(
            "the frequencies of layers with windows",
            window_rope.as_ref().unwrap_or(rope),
            read.window_rope.as_ref().unwrap_or(&read.rope),
        ),
    ];
    unequal.into_iter().flatten().next()
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
