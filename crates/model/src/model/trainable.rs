//! A model for training: the loss of a batch and its gradient.

use super::{Model, decode, head::HeadPass};
use crate::{
    Adapters, Architecture, Backend, HeadKind, LoadOptions, Loss, ModelConfig, ModelError,
    ParameterMut, Training,
    activations::{Activations, Step, slot},
    load::Loaded,
    parameter::Parameter,
    parts::{Layer, OfTokens},
    pass::{Noise, Pass},
};
use std::{
    ops::{Deref, DerefMut},
    path::Path,
};
use tightrope_device::{DType, Device, Tensor, ViewMut};
use tightrope_kernels::{Check, embedding, noise, product::Dropout};
use tightrope_packing::{Batch, Segment};

/// A model with gradients and the additional buffers of a training step. It evaluates, generates
/// and is saved through its [`Model`].
#[derive(Debug)]
pub struct TrainableModel<D: Device> {
    model: Model<D>,
    step: Step<Tensor<D>>,
    /// Probability that an input of an adapter is dropped.
    dropout: f32,
    /// Size of the noise on embeddings.
    noise_alpha: f64,
}

/// Weights of the tokens' losses in the sum whose gradient is computed.
pub enum TokenWeights<'a> {
    /// One weight for each token; weights of tokens without target have no effect.
    Known(&'a [f32]),
    /// A function of the losses of all tokens, which writes the weights; they are zero before. The
    /// output projection is then computed twice, and the layers once.
    OfLosses(&'a mut dyn FnMut(&Loss, &mut [f32])),
}

impl<D: Backend> TrainableModel<D> {
    /// Like [`Model::load`], with gradients for trained parameters.
    pub fn load(
        device: &D,
        path: &Path,
        training: &Training,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        Self::new(
            Model::read(device, path, Some(training), options)?,
            training,
        )
    }

    /// Like [`Model::random`], with gradients for trained parameters.
    pub fn random(
        device: &D,
        config: ModelConfig,
        training: &Training,
        options: &LoadOptions,
    ) -> Result<Self, ModelError> {
        Self::new(
            Model::fresh(device, config, Some(training), options)?,
            training,
        )
    }

    fn new((model, step): Loaded<D>, training: &Training) -> Result<Self, ModelError> {
        Ok(Self {
            model,
            step: step.ok_or(ModelError::NoBuffer("the backward pass"))?,
            dropout: match training {
                Training::Lora(lora) => lora.dropout,
                Training::Full => 0.0,
            },
            noise_alpha: 0.0,
        })
    }

    /// Adds noise to the embeddings of later training passes (NEFTune, Jain et al., 2023): uniform in
    /// ±`alpha` / √(L·d) for a sequence of L tokens, with d features, drawn as a function of the salt,
    /// the sequence, the position and the feature. 0: none. A scale of the embeddings applies to it.
    pub fn set_noise(&mut self, alpha: f64) {
        self.noise_alpha = alpha;
    }

    /// Sets all gradients to zero.
    pub fn zero_gradients(&mut self) -> Result<(), ModelError> {
        let gradients = self.parameters().into_iter().map(|p| p.gradient);
        match ViewMut::joined(gradients)? {
            Some(gradients) => Ok(gradients.zero()?),
            None => Ok(()),
        }
    }

    /// The trained parameters, either the model's own or the adapter's, in the order in which they
    /// lie in memory ([`Plan::offsets`](crate::Plan::offsets)): weights of neighbours can be joined to one view, and so
    /// can their gradients.
    pub fn parameters(&mut self) -> Vec<ParameterMut<'_, D>> {
        self.model.norms_are_old = true;
        let parameters = self.model.weights.parameters_mut();
        let mut parameters: Vec<_> = parameters.filter_map(Parameter::trained).collect();
        parameters.sort_by_key(|parameter| parameter.weight.view().as_ptr());
        parameters
    }

    /// Returns the loss of a batch, and adds the gradient of `Σ_t token_weights[t] ·
    /// loss.per_token[t]` into the gradients.
    ///
    /// For cross-entropy, a weight is 1 / (trained tokens of the whole optimizer step). `salt`
    /// differs for each step and decides which inputs of adapters are dropped.
    pub fn forward_backward(
        &mut self,
        batch: &Batch,
        token_weights: TokenWeights<'_>,
        salt: u64,
    ) -> Result<Loss, ModelError> {
        self.model.expect_head(HeadKind::Tokens)?;
        self.pass(batch, salt, |head| head.losses(batch, token_weights))
    }

    /// Returns the score of each sequence of a batch ([`Model::scores`]), and adds the gradient of a
    /// function of them into the gradients. `slopes` gets the scores and writes the derivative by
    /// each; `salt` is that of [`Self::forward_backward`].
    pub fn forward_backward_scores(
        &mut self,
        batch: &Batch,
        slopes: &mut dyn FnMut(&[f64], &mut [f64]),
        salt: u64,
    ) -> Result<Vec<f64>, ModelError> {
        self.model.expect_head(HeadKind::Score)?;
        self.pass(batch, salt, |head| head.scores(batch, slopes))
    }

    /// Runs the layers forward, the head, and the layers backward.
    fn pass<R>(
        &mut self,
        batch: &Batch,
        salt: u64,
        head: impl FnOnce(HeadPass<'_, D>) -> Result<R, ModelError>,
    ) -> Result<R, ModelError> {
        self.model.stage(batch)?;
        self.model.refresh(Adapters::On)?;
        let Self {
            model,
            step,
            dropout,
            noise_alpha,
        } = self;
        if *dropout > 0.0 {
            let keys: Vec<u32> = batch.segments().as_slice().iter().flat_map(keys).collect();
            step.keys.write(&keys)?;
        }
        let Model {
            device,
            config,
            weights,
            activations,
            ranges,
            ..
        } = model;
        let Activations {
            inputs,
            stream,
            saved,
            work,
        } = activations;
        let architecture = config.architecture();
        let tokens = batch.len();
        let noise = match *noise_alpha > 0.0 {
            true => Some(noise(device, architecture, batch, *noise_alpha, salt)?),
            false => None,
        };
        let pass = Pass {
            device,
            architecture,
            tokens,
            ranges,
            angles: &inputs.angles,
            dropout: (*dropout > 0.0).then_some(Dropout {
                probability: *dropout,
                salt,
                keys: step.keys.view(),
            }),
            adapters: Adapters::On,
            noise: noise.as_ref(),
        };
        decode(&pass, weights, &inputs.ids, stream, saved, work, None)?;

        let adapter = weights.head_adapter(Adapters::On);
        let dropout = adapter.and_then(|head| pass.dropout(head.salt));
        let result = head(HeadPass {
            device,
            dropout,
            architecture,
            padding: config.padding(),
            weights,
            targets: &inputs.targets,
            losses: &mut inputs.losses,
            normed: &work.normed,
            dnormed: &mut work.branch,
            loss_weights: &mut step.weights,
        })?;

        let last = &stream[architecture.layers()];
        let dhidden = &mut step.backward.dhidden;
        weights
            .norm
            .backward(&pass, &work.branch, last, dhidden, false)?;
        // Below the lowest trained layer no gradient is needed.
        let embedding_trained = weights.embedding.is_trained()
            || weights.embedding_rows.is_some()
            || weights.embedding_adapter.is_some();
        let lowest = match embedding_trained {
            true => Some(0),
            false => weights.layers.iter().position(Layer::is_trained),
        };
        let lowest = lowest.unwrap_or(architecture.layers());
        for index in (lowest..architecture.layers()).rev() {
            let layer = &mut weights.layers[index];
            let stream = &mut stream[index];
            let recompute = saved.len() == 1 && index + 1 < architecture.layers();
            let slots = saved.len();
            let saved = &mut saved[slot(index, slots)];
            if recompute {
                layer.forward_again(&pass, stream, saved, work)?;
            }
            let lowest = index == lowest && !embedding_trained;
            layer.backward(&pass, stream, saved, work, &mut step.backward, lowest)?;
        }
        if let Some(adapter) = &mut weights.embedding_adapter {
            adapter.backward(&pass, &inputs.ids, &step.backward.dhidden)?;
        }
        if let Some(rows) = &mut weights.embedding_rows {
            let of = OfTokens {
                tokens: batch.tokens(),
                dhidden: &step.backward.dhidden,
                scale: architecture.embedding_scale,
                hidden: architecture.hidden,
            };
            rows.backward(device, &of)?;
        }
        if let Some(dtable) = &mut weights.embedding.trained_mut().gradient {
            let gradient = embedding::Backward {
                ids: inputs.ids.view(),
                dy: step.backward.dhidden.view(),
                scale: architecture.embedding_scale,
                dtable: dtable.view_mut(),
                tokens,
                vocabulary: architecture.vocabulary,
                hidden: architecture.hidden,
            };
            device.embedding_backward(gradient.checked()?)?;
        }
        Ok(result)
    }
}

/// Random bits and largest noise of each token.
fn noise<'a, D: Device>(
    device: &'a D,
    architecture: &Architecture,
    batch: &Batch,
    alpha: f64,
    salt: u64,
) -> Result<Noise<'a, D>, ModelError> {
    let (tokens, segments) = (batch.len(), batch.segments().as_slice());
    let (mut states, mut scales) = (Vec::new(), Vec::new());
    for segment in segments {
        let mut root = segment;
        while let Some(prefix) = root.prefix.and_then(|prefix| segments.get(prefix)) {
            root = prefix;
        }
        // What the sequence has before the segment, and the segment.
        let length = segment.end_position() - root.first_position;
        let size = f64::from(length) * architecture.hidden as f64;
        let scale = alpha / size.sqrt() * f64::from(architecture.embedding_scale);
        scales.resize(scales.len() + segment.length, scale as f32);
        let keys: Vec<u32> = keys(segment).collect();
        let keys = keys.as_chunks::<2>().0.iter();
        states.extend(keys.flat_map(|key| noise::state(salt, *key)));
    }
    let mut noise = Noise {
        states: device.scratch(DType::U32, &[tokens, 2])?,
        scales: device.scratch(DType::F32, &[tokens])?,
    };
    noise.states.view_mut().write(&states)?;
    noise.scales.view_mut().write(&scales)?;
    Ok(noise)
}

/// Sequence of each token and its position in the sequence: dropout hashes them, so that a token
/// gets the same mask in every packing. Parts of a unit count as separate sequences.
fn keys(segment: &Segment) -> impl Iterator<Item = u32> {
    let sequence = segment
        .sequence
        .map_or(u32::MAX, |sequence| sequence as u32)
        ^ (segment.part as u32).wrapping_mul(0x9e37_79b9);
    let first = segment.first_position;
    (0..segment.length as u32).flat_map(move |offset| [sequence, first.wrapping_add(offset)])
}

impl<D: Device> Deref for TrainableModel<D> {
    type Target = Model<D>;
    fn deref(&self) -> &Model<D> {
        &self.model
    }
}

impl<D: Device> DerefMut for TrainableModel<D> {
    fn deref_mut(&mut self) -> &mut Model<D> {
        &mut self.model
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use tightrope_device::Cpu;
    use tightrope_packing::{Groups, Piece, Sequence, Units};

    #[test]
    fn noise_is_as_large_as_its_own_sequence_says() {
        let cpu = Cpu::new(1).unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gemma2");
        let config = ModelConfig::read(&folder).unwrap();
        let architecture = config.architecture();
        assert!(architecture.embedding_scale != 1.0);
        let sequence = |length: u32| {
            let labels: Vec<i64> = (0..length).map(i64::from).collect();
            Sequence::from_labels((0..length).collect(), &labels).unwrap()
        };
        // A beginning with two ends, and a sequence of its own.
        let mut units = Groups::default();
        let ends = [(sequence(2), Some(0)), (sequence(5), Some(0))];
        let parts = [(sequence(4), None)].into_iter().chain(ends);
        units.push(parts).unwrap();
        units.push(vec![(sequence(3), None)]).unwrap();
        let piece = |(length, sequence)| Piece {
            sequence,
            start: 0,
            length,
        };
        let pieces: Vec<_> = units.lengths().into_iter().zip(0..).map(piece).collect();
        let batch = Batch::packed(&units, &pieces).unwrap();
        let noise = noise(&cpu, architecture, &batch, 5.0, 7).unwrap();
        let lengths = [[4].repeat(4), [6].repeat(2), [9].repeat(5), [3].repeat(3)].concat();
        let scales = noise.scales.view().to_vec::<f32>().unwrap();
        assert_eq!(scales.len(), lengths.len());
        for (scale, length) in scales.into_iter().zip(lengths) {
            let size = f64::from(length * architecture.hidden as i32);
            let expected = 5.0 / size.sqrt() * f64::from(architecture.embedding_scale);
            assert!((f64::from(scale) / expected - 1.0).abs() < 1e-6);
        }
        let states = noise.states.view().to_vec::<u32>().unwrap();
        let distinct: HashSet<_> = states.as_chunks::<2>().0.iter().collect();
        assert_eq!(distinct.len(), 14);
    }
}
