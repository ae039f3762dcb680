//! Runs all layers one after the other, and the output projection.

use crate::{
    Adapters, Architecture, KvCache, ModelError,
    activations::slot,
    parts::{Saved, Stream, Work},
    pass::Pass,
    weights::Weights,
};
use tightrope_device::{DType, Tensor, View};
use tightrope_kernels::{Check, Kernels, embedding, linear, noise, product::Elements};

/// Runs all layers: from token ids to `work.normed`, the output of the last norm.
pub(super) fn decode<D: Kernels>(
    pass: &Pass<'_, D>,
    weights: &Weights<Tensor<D>>,
    ids: &Tensor<D>,
    stream: &mut [Stream<Tensor<D>>],
    saved: &mut [Saved<Tensor<D>>],
    work: &mut Work<Tensor<D>>,
    mut cache: Option<&mut KvCache<D>>,
) -> Result<(), ModelError> {
    let architecture = pass.architecture;
    let embed = embedding::Forward {
        ids: ids.view(),
        table: weights.embedding.of(pass.adapters).value.view(),
        scale: architecture.embedding_scale,
        y: stream[0].hidden.view_mut(),
        tokens: pass.tokens,
        vocabulary: architecture.vocabulary,
        hidden: architecture.hidden,
    };
    pass.device.embedding_forward(embed.checked()?)?;
    if let Some(adapter) = &weights.embedding_adapter {
        adapter.forward(pass, ids, &mut stream[0].hidden)?;
    }
    if let Some(noise) = pass.noise {
        let add = noise::Add {
            y: stream[0].hidden.view_mut(),
            states: noise.states.view(),
            scales: noise.scales.view(),
            rows: pass.tokens,
            features: architecture.hidden,
        };
        pass.device.noise_add(add.checked()?)?;
    }
    match weights.layers.first() {
        Some(layer) => layer.norm_input(pass, &mut stream[0], &mut work.normed)?,
        None => weights
            .norm
            .forward(pass, &mut stream[0], &mut work.normed)?,
    }
    let (streams, slots) = (stream.len(), saved.len());
    for (index, layer) in weights.layers.iter().enumerate() {
        let saved = &mut saved[slot(index, slots)];
        let hidden = &stream[index % streams].hidden;
        let cache = cache.as_mut().map(|cache| cache.layer(index));
        layer.forward(pass, hidden, saved, work, cache)?;
        let add = (&saved.middle.hidden, &work.branch);
        let next = &mut stream[(index + 1) % streams];
        let normed = &mut work.normed;
        match weights.layers.get(index + 1) {
            Some(layer) => layer.enter(pass, add, next, normed)?,
            None => weights.norm.forward_of_sum(pass, add, next, normed)?,
        }
    }
    Ok(())
}

/// Computes the logits of the first `tokens` rows of `x`, with `y` as work space.
pub(crate) fn project<D: Kernels>(
    device: &D,
    architecture: &Architecture,
    weights: &Weights<Tensor<D>>,
    x: View<'_, D>,
    y: &mut Tensor<D>,
    tokens: usize,
) -> Result<Vec<f32>, ModelError> {
    let head = weights.head(Adapters::On).value.view();
    let adapter = weights.head_adapter(Adapters::On);
    let mut xa = device.scratch(DType::F32, &[tokens, adapter.map_or(0, |a| a.rank)])?;
    let forward = linear::Forward {
        x,
        weight: Elements::Float(head),
        factor: 1.0,
        bias: None,
        lora: adapter.map(|adapter| linear::LoraForward {
            a: adapter.a.value.view(),
            b: adapter.b.value.view(),
            scale: adapter.scale,
            dropout: None,
            xa: xa.view_mut(),
        }),
        y: y.view_mut(),
        shape: linear::Shape {
            tokens,
            inputs: architecture.hidden,
            outputs: architecture.vocabulary,
        },
    };
    device.linear_forward(forward.checked()?)?;
    let mut logits = y.to_f32_vec()?;
    logits
        .iter_mut()
        .for_each(|l| *l *= architecture.logit_scale);
    if let Some(cap) = architecture.logit_softcap {
        for logit in &mut logits {
            *logit = cap * (*logit / cap).tanh();
        }
    }
    Ok(logits)
}
