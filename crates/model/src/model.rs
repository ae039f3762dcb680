//! A model on a device: loss, gradients and logits of a batch.

use crate::{
    Backend, Loss, ModelConfig, ModelError, ParameterMut, Plan,
    activations::{Activations, Inputs, Stream, Workspace},
    backward,
    cache::KvCache,
    forward,
    lora::AdapterConfig,
    parameter::Parameter,
    pass::Pass,
    weights::Weights,
};
use tightrope_device::{DType, Device, Tensor};
use tightrope_kernels::{
    Check, Kernels,
    attention::{Range, Ranges},
    embedding, linear, linear_cross_entropy,
};
use tightrope_packing::{Batch, Segment, Segments};
use tightrope_rope::RotaryEmbedding;

/// A model whose every buffer is laid out for a capacity of tokens.
#[derive(Debug)]
pub struct Model<D: Device> {
    pub(crate) device: D,
    pub(crate) config: ModelConfig,
    pub(crate) weights: Weights<Tensor<D>>,
    pub(crate) activations: Activations<Tensor<D>>,
    pub(crate) plan: Plan,
    pub(crate) rope: RotaryEmbedding,
    /// Cosines and sines on the host, on their way to the device.
    pub(crate) tables: [Vec<f32>; 2],
    pub(crate) adapter: Option<AdapterConfig>,
    /// Of adapters, in training.
    pub(crate) dropout: f32,
    pub(crate) capacity: usize,
}

impl<D: Backend> Model<D> {
    /// What it is.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The device that it is on.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Every buffer that it has.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Tokens of the largest batch.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The loss of a batch; adds the gradient of `scale · loss.sum` into the gradients.
    ///
    /// `scale` is 1 / (trained tokens of the whole optimizer step); `salt` differs for each step
    /// and decides which inputs of adapters are dropped.
    pub fn forward_backward(
        &mut self,
        batch: &Batch,
        scale: f32,
        salt: u64,
    ) -> Result<Loss, ModelError> {
        let ranges = self.stage(batch)?;
        let tokens = batch.len();
        let Self {
            device,
            config,
            weights,
            activations,
            dropout,
            ..
        } = self;
        let Activations {
            inputs,
            stream,
            saved,
            workspace,
            backward: Some(gradients),
        } = activations
        else {
            let reason = "the model was loaded without training: it has no gradients";
            return Err(ModelError::Unsupported(reason));
        };
        let architecture = config.architecture();
        let pass = Pass {
            device,
            architecture,
            tokens,
            ranges: &ranges,
            cos: &inputs.cos,
            sin: &inputs.sin,
            dropout: (*dropout > 0.0).then_some(linear::Dropout {
                probability: *dropout,
                salt,
                keys: &inputs.keys,
            }),
        };
        decode(&pass, weights, &inputs.ids, stream, saved, workspace, None)?;

        let (head, dhead) = head_mut(weights);
        let loss = linear_cross_entropy::ForwardBackward {
            forward: linear_cross_entropy::Forward {
                x: &workspace.normed,
                weight: head,
                targets: &inputs.targets,
                logit_scale: 1.0,
                softcap: architecture.logit_softcap,
                losses: &mut inputs.losses,
                tokens,
                hidden: architecture.hidden,
                vocabulary: architecture.vocabulary,
            },
            scale,
            dx: &mut workspace.branch,
            dweight: dhead,
        };
        device.linear_cross_entropy_forward_backward(loss.checked()?)?;

        let last = &stream[architecture.layers()];
        backward::norm_backward(
            &pass,
            &mut weights.norm,
            &workspace.branch,
            (&last.hidden, &last.rstd),
            &mut gradients.dhidden,
            false,
            (tokens, architecture.hidden),
        )?;
        // Below the lowest trained layer no gradient is needed.
        let embedding_trained = weights.embedding.gradient.is_some();
        let lowest = match embedding_trained {
            true => Some(0),
            false => weights.layers.iter().position(|layer| layer.trained()),
        };
        let lowest = lowest.unwrap_or(architecture.layers());
        for index in (lowest..architecture.layers()).rev() {
            let layer = &mut weights.layers[index];
            let stream = &mut stream[index];
            let recompute = saved.len() == 1 && index + 1 < architecture.layers();
            let slot = index % saved.len();
            let saved = &mut saved[slot];
            if recompute {
                forward::layer_again(&pass, index, layer, stream, saved, workspace)?;
            }
            let lowest = index == lowest && !embedding_trained;
            backward::layer(
                &pass, index, layer, stream, saved, workspace, gradients, lowest,
            )?;
        }
        if let Some(dtable) = &mut weights.embedding.gradient {
            let gradient = embedding::Backward {
                ids: &inputs.ids,
                dy: &gradients.dhidden,
                scale: architecture.embedding_scale,
                dtable,
                tokens,
                vocabulary: architecture.vocabulary,
                hidden: architecture.hidden,
            };
            device.embedding_backward(gradient.checked()?)?;
        }
        self.loss(batch)
    }

    /// The loss of a batch, without dropout and without gradients.
    pub fn evaluate(&mut self, batch: &Batch) -> Result<Loss, ModelError> {
        self.run(batch)?;
        let architecture = self.config.architecture();
        let loss = linear_cross_entropy::Forward {
            x: &self.activations.workspace.normed,
            weight: head(&self.weights),
            targets: &self.activations.inputs.targets,
            logit_scale: 1.0,
            softcap: architecture.logit_softcap,
            losses: &mut self.activations.inputs.losses,
            tokens: batch.len(),
            hidden: architecture.hidden,
            vocabulary: architecture.vocabulary,
        };
        self.device.linear_cross_entropy_forward(loss.checked()?)?;
        self.loss(batch)
    }

    /// Logits `[tokens, vocabulary]`, with the softcap: for tests and for verification, since
    /// training never holds them. Allocates them.
    pub fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        self.run(batch)?;
        let architecture = self.config.architecture();
        let shape = [batch.len(), architecture.vocabulary];
        let mut y = Tensor::zeros(&self.device, DType::F32, &shape)?;
        project(
            &self.device,
            architecture,
            head(&self.weights),
            &self.activations.workspace.normed,
            &mut y,
            batch.len(),
        )
    }

    /// Sets all gradients to zero.
    pub fn zero_gradients(&mut self) -> Result<(), ModelError> {
        let base = self.weights.base_mut().filter_map(|p| p.gradient.as_mut());
        for gradient in base {
            gradient.zero()?;
        }
        let adapter = self.weights.adapter_mut();
        for gradient in adapter.filter_map(|p| p.gradient.as_mut()) {
            gradient.zero()?;
        }
        Ok(())
    }

    /// What is trained, in a fixed order: either the model's own parameters or the adapter's.
    pub fn parameters(&mut self) -> Vec<ParameterMut<'_, D>> {
        if self.weights.norm.gradient.is_some() {
            self.weights
                .base_mut()
                .filter_map(Parameter::trained)
                .collect()
        } else {
            self.weights
                .adapter_mut()
                .filter_map(Parameter::trained)
                .collect()
        }
    }

    /// From tokens to `workspace.normed`.
    fn run(&mut self, batch: &Batch) -> Result<(), ModelError> {
        let ranges = self.stage(batch)?;
        self.forward(&ranges, batch.len(), None)
    }

    /// From what was staged to `workspace.normed`, without dropout.
    pub(crate) fn forward(
        &mut self,
        ranges: &Ranges<D>,
        tokens: usize,
        cache: Option<&mut KvCache<D>>,
    ) -> Result<(), ModelError> {
        let Activations {
            inputs,
            stream,
            saved,
            workspace,
            ..
        } = &mut self.activations;
        let pass = Pass {
            device: &self.device,
            architecture: self.config.architecture(),
            tokens,
            ranges,
            cos: &inputs.cos,
            sin: &inputs.sin,
            dropout: None,
        };
        decode(
            &pass,
            &self.weights,
            &inputs.ids,
            stream,
            saved,
            workspace,
            cache,
        )
    }

    /// Copies a batch to the device.
    fn stage(&mut self, batch: &Batch) -> Result<Ranges<D>, ModelError> {
        self.stage_tokens(batch.tokens(), batch.segments())?;
        let vocabulary = self.config.architecture().vocabulary;
        for (index, &target) in batch.targets().iter().enumerate() {
            if usize::try_from(target).is_ok_and(|id| id >= vocabulary) {
                return Err(ModelError::Token {
                    index,
                    id: i64::from(target),
                    vocabulary,
                });
            }
        }
        self.activations.inputs.targets.write(batch.targets())?;
        if self.dropout > 0.0 {
            let keys: Vec<u32> = batch.segments().as_slice().iter().flat_map(keys).collect();
            self.activations.inputs.keys.write(&keys)?;
        }
        let whole = |segment: &Segment| {
            let (start, len) = (segment.start as u32, segment.length as u32);
            Range {
                query_start: start,
                query_len: len,
                key_start: start,
                key_len: len,
            }
        };
        let ranges = batch.segments().as_slice().iter().map(whole).collect();
        Ok(Ranges::new(&self.device, ranges)?)
    }

    /// Copies token ids to the device, and the angles of their positions.
    pub(crate) fn stage_tokens(
        &mut self,
        tokens: &[u32],
        segments: &Segments,
    ) -> Result<(), ModelError> {
        let vocabulary = self.config.architecture().vocabulary;
        if tokens.len() > self.capacity {
            return Err(ModelError::Capacity {
                tokens: tokens.len(),
                capacity: self.capacity,
            });
        }
        if let Some(index) = tokens.iter().position(|&id| id as usize >= vocabulary) {
            return Err(ModelError::Token {
                index,
                id: i64::from(tokens[index]),
                vocabulary,
            });
        }
        let Inputs { ids, cos, sin, .. } = &mut self.activations.inputs;
        ids.write(tokens)?;
        let runs = segments
            .as_slice()
            .iter()
            .map(|s| (s.first_position, s.length));
        let [cosines, sines] = &mut self.tables;
        self.rope.fill_tables(runs, cosines, sines)?;
        let angles = tokens.len() * self.rope.rotary_dim() / 2;
        cos.write(&cosines[..angles])?;
        Ok(sin.write(&sines[..angles])?)
    }

    fn loss(&self, batch: &Batch) -> Result<Loss, ModelError> {
        let mut per_token = vec![0f32; batch.len()];
        self.activations.inputs.losses.read(&mut per_token)?;
        Ok(Loss {
            sum: per_token.iter().map(|&loss| f64::from(loss)).sum(),
            trained_tokens: batch.trained_tokens(),
            per_token,
        })
    }
}

/// Which sequence a token belongs to, and where it stands in it: what dropout hashes, so that a
/// token meets the same mask in every packing.
fn keys(segment: &Segment) -> impl Iterator<Item = u32> {
    let sequence = segment
        .sequence
        .map_or(u32::MAX, |sequence| sequence as u32);
    let first = segment.first_position;
    (0..segment.length as u32).flat_map(move |offset| [sequence, first.wrapping_add(offset)])
}

/// The weight of the output projection.
pub(crate) fn head<D: Device>(weights: &Weights<Tensor<D>>) -> &Tensor<D> {
    &weights.head.as_ref().unwrap_or(&weights.embedding).value
}

/// The same with its gradient, which for a tied head is that of the embedding.
fn head_mut<D: Device>(weights: &mut Weights<Tensor<D>>) -> (&Tensor<D>, Option<&mut Tensor<D>>) {
    let head = weights.head.as_mut().unwrap_or(&mut weights.embedding);
    (&head.value, head.gradient.as_mut())
}

/// Logits of the first `tokens` rows of `x`, by way of `y`.
pub(crate) fn project<D: Kernels>(
    device: &D,
    architecture: &crate::Architecture,
    head: &Tensor<D>,
    x: &Tensor<D>,
    y: &mut Tensor<D>,
    tokens: usize,
) -> Result<Vec<f32>, ModelError> {
    let forward = linear::Forward {
        x,
        weight: head,
        bias: None,
        lora: None,
        y,
        shape: linear::Shape {
            tokens,
            inputs: architecture.hidden,
            outputs: architecture.vocabulary,
        },
    };
    device.linear_forward(forward.checked()?)?;
    let mut logits = y.to_vec::<f32>()?;
    if let Some(cap) = architecture.logit_softcap {
        for logit in &mut logits {
            *logit = cap * (*logit / cap).tanh();
        }
    }
    Ok(logits)
}

/// All layers: from token ids to `workspace.normed`, the last norm's output.
fn decode<D: Backend>(
    pass: &Pass<'_, D>,
    weights: &Weights<Tensor<D>>,
    ids: &Tensor<D>,
    stream: &mut [Stream<Tensor<D>>],
    saved: &mut [crate::activations::Saved<Tensor<D>>],
    workspace: &mut Workspace<Tensor<D>>,
    mut cache: Option<&mut KvCache<D>>,
) -> Result<(), ModelError> {
    let architecture = pass.architecture;
    let embed = embedding::Forward {
        ids,
        table: &weights.embedding.value,
        scale: architecture.embedding_scale,
        y: &mut stream[0].hidden,
        tokens: pass.tokens,
        vocabulary: architecture.vocabulary,
        hidden: architecture.hidden,
    };
    pass.device.embedding_forward(embed.checked()?)?;
    let mut norms = weights
        .layers
        .iter()
        .map(|layer| &layer.attention_norm)
        .chain([&weights.norm]);
    if let Some(first) = norms.next() {
        let Stream { hidden, rstd } = &mut stream[0];
        let rows = (pass.tokens, architecture.hidden);
        forward::norm(pass, first, hidden, &mut workspace.normed, rstd, rows)?;
    }
    let (streams, slots) = (stream.len(), saved.len());
    for ((index, layer), next_norm) in weights.layers.iter().enumerate().zip(norms) {
        let saved = &mut saved[index % slots];
        let hidden = &stream[index % streams].hidden;
        let cache = cache.as_mut().map(|cache| cache.layer(index));
        forward::layer(pass, index, layer, hidden, saved, workspace, cache)?;
        let add = (&saved.middle.hidden, &workspace.branch);
        let next = &mut stream[(index + 1) % streams];
        forward::norm_stream(pass, next_norm, add, next, &mut workspace.normed)?;
    }
    Ok(())
}
