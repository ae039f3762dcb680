//! Translates the description of a model to the metadata of its GGUF file.

use super::gguf::GgufFiles;
use crate::Architecture;
use tightrope_formats::gguf::{List, Value};
use tightrope_rope::{RopeConfig, RotaryEmbedding, Scaling};

/// Metadata of one architecture, written by key.
#[derive(Debug)]
pub(crate) struct Keys {
    architecture: &'static str,
    entries: Vec<(String, Value)>,
}

impl Keys {
    fn add(&mut self, name: &str, value: Value) {
        let key = format!("{}.{name}", self.architecture);
        self.entries.push((key, value));
    }

    pub(super) fn count(&mut self, name: &str, count: usize) {
        // Longer counts than any reader takes are written as the largest, which the caller compares.
        self.add(name, Value::U32(u32::try_from(count).unwrap_or(u32::MAX)));
    }

    pub(super) fn number(&mut self, name: &str, number: f32) {
        self.add(name, Value::F32(number));
    }

    pub(super) fn optional(&mut self, name: &str, number: Option<f32>) {
        if let Some(number) = number {
            self.number(name, number);
        }
    }

    /// The width of the windows, and the layers that have them unless all but every `every`-th do,
    /// as readers assume.
    pub(super) fn windows(&mut self, architecture: &Architecture, every: usize) {
        let windows = &architecture.windows;
        if let Some(window) = windows.iter().flatten().next() {
            self.count("attention.sliding_window", *window);
        }
        let sliding = || windows.iter().map(Option::is_some);
        let usual = (1..=windows.len()).map(|layer| !layer.is_multiple_of(every));
        if !sliding().eq(usual) {
            let pattern = Value::List(List::bools(sliding()));
            self.add("attention.sliding_window_pattern", pattern);
        }
    }
}

/// The metadata of a model's computation. What it cannot say is left out: a reader then computes
/// otherwise, which the caller finds out.
pub(crate) fn keys(files: &GgufFiles, architecture: &Architecture) -> Vec<(String, Value)> {
    let mut keys = Keys {
        architecture: files.architecture,
        entries: Vec::new(),
    };
    let rope = &architecture.rope;
    for (name, count) in [
        ("block_count", architecture.layers()),
        ("context_length", rope.max_position_embeddings),
        ("embedding_length", architecture.hidden),
        ("feed_forward_length", architecture.intermediate),
        ("attention.head_count", architecture.heads),
        ("attention.head_count_kv", architecture.kv_heads),
        ("attention.key_length", architecture.head_dim),
        ("attention.value_length", architecture.head_dim),
    ] {
        keys.count(name, count);
    }
    keys.number("attention.layer_norm_rms_epsilon", architecture.norm_eps);
    keys.number("rope.freq_base", rope.theta as f32);
    let mut scaled = |kind: &str, factor: f64| {
        keys.add("rope.scaling.type", Value::Text(kind.into()));
        keys.number("rope.scaling.factor", factor as f32);
    };
    match &rope.scaling {
        Scaling::Linear { factor } => scaled("linear", *factor),
        Scaling::Yarn(yarn) => {
            scaled("yarn", yarn.factor);
            let original = yarn.original_max_position_embeddings;
            keys.count("rope.scaling.original_context_length", original);
        }
        // Scalings by length have no keys, and those by frequency are a tensor.
        _ => {}
    }
    (files.keys)(architecture, &mut keys);
    keys.entries
}

/// Factors that divide the frequencies, for `rope_freqs.weight`, if this says all of the scaling.
pub(crate) fn factors(rope: &RopeConfig) -> Option<Vec<f32>> {
    match rope.scaling {
        Scaling::Llama3 { .. } | Scaling::LongRope { .. } => {}
        _ => return None,
    }
    let plain = RopeConfig {
        scaling: Scaling::Default,
        ..rope.clone()
    };
    let [plain, scaled] = [&plain, rope].map(|rope| RotaryEmbedding::new(rope).ok());
    let (plain, scaled) = (plain?, scaled?);
    let (plain, scaled) = (plain.inverse_frequencies(1), scaled.inverse_frequencies(1));
    let pairs = plain.iter().zip(scaled.iter());
    let divided = pairs.map(|(&plain, &scaled)| (f64::from(plain) / f64::from(scaled)) as f32);
    Some(divided.collect())
}
