//! The loss of a batch and its gradient.

use super::{Model, decode};
use crate::{
    Adapters, Backend, Loss, ModelError,
    activations::{Activations, slot},
    parts::Layer,
    pass::Pass,
    weights::Weights,
};
use tightrope_device::{Device, Tensor};
use tightrope_kernels::{Check, embedding, linear, linear_cross_entropy};
use tightrope_packing::Batch;

impl<D: Backend> Model<D> {
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
        self.stage(batch)?;
        let tokens = batch.len();
        let Self {
            device,
            config,
            weights,
            activations,
            ranges,
            dropout,
            ..
        } = self;
        let Activations {
            inputs,
            stream,
            saved,
            work,
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
            ranges,
            cos: &inputs.cos,
            sin: &inputs.sin,
            dropout: (*dropout > 0.0).then_some(linear::Dropout {
                probability: *dropout,
                salt,
                keys: inputs.keys.view(),
            }),
            adapters: Adapters::On,
        };
        decode(&pass, weights, &inputs.ids, stream, saved, work, None)?;

        let (head, dhead) = head_mut(weights);
        let loss = linear_cross_entropy::ForwardBackward {
            forward: linear_cross_entropy::Forward {
                x: work.normed.view(),
                weight: head.view(),
                targets: inputs.targets.view(),
                logit_scale: architecture.logit_scale,
                softcap: architecture.logit_softcap,
                losses: inputs.losses.view_mut(),
                tokens,
                hidden: architecture.hidden,
                vocabulary: architecture.vocabulary,
            },
            scale,
            dx: work.branch.view_mut(),
            dweight: dhead.map(Tensor::view_mut),
        };
        device.linear_cross_entropy_forward_backward(loss.checked()?)?;

        let last = &stream[architecture.layers()];
        let dhidden = &mut gradients.dhidden;
        weights
            .norm
            .backward(&pass, &work.branch, last, dhidden, false)?;
        // Below the lowest trained layer no gradient is needed.
        let embedding_trained = weights.embedding.gradient.is_some();
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
            layer.backward(&pass, stream, saved, work, gradients, lowest)?;
        }
        if let Some(dtable) = &mut weights.embedding.gradient {
            let gradient = embedding::Backward {
                ids: inputs.ids.view(),
                dy: gradients.dhidden.view(),
                scale: architecture.embedding_scale,
                dtable: dtable.view_mut(),
                tokens,
                vocabulary: architecture.vocabulary,
                hidden: architecture.hidden,
            };
            device.embedding_backward(gradient.checked()?)?;
        }
        self.loss(batch)
    }
}

/// The same with its gradient, which for a tied head is that of the embedding.
fn head_mut<D: Device>(weights: &mut Weights<Tensor<D>>) -> (&Tensor<D>, Option<&mut Tensor<D>>) {
    let head = weights.head.as_mut().unwrap_or(&mut weights.embedding);
    (&head.value, head.gradient.as_mut())
}
