//! The head in a training pass: the gradient of the last norm's output, and that of the head.

use super::{loss, read_losses, score};
use crate::{
    Adapters, Architecture, Backend, Loss, ModelError, TokenWeights,
    parts::Adapter,
    weights::{TrainedHead, Weights},
};
use tightrope_device::{Device, Tensor};
use tightrope_kernels::{Check, linear_cross_entropy, product::Dropout};
use tightrope_packing::Batch;

/// What the head reads and overwrites, after the layers.
pub(super) struct HeadPass<'a, D: Device> {
    pub device: &'a D,
    /// Dropout of the head's adapter.
    pub dropout: Option<Dropout<'a, D>>,
    pub architecture: &'a Architecture,
    /// Token that fills rows.
    pub padding: Option<u32>,
    pub weights: &'a mut Weights<Tensor<D>>,
    /// i32 `[tokens]`.
    pub targets: &'a Tensor<D>,
    /// f32 `[tokens]`: gets the losses.
    pub losses: &'a mut Tensor<D>,
    /// Outputs of the last norm.
    pub normed: &'a Tensor<D>,
    /// Gets the gradient of `normed`.
    pub dnormed: &'a mut Tensor<D>,
    /// f32 `[tokens]`: place for the weights of losses.
    pub loss_weights: &'a mut Tensor<D>,
}

impl<D: Backend> HeadPass<'_, D> {
    /// Gradients of `Σ_t token_weights[t] · loss[t]`.
    pub(super) fn losses(
        self,
        batch: &Batch,
        token_weights: TokenWeights<'_>,
    ) -> Result<Loss, ModelError> {
        let tokens = batch.len();
        match token_weights {
            TokenWeights::Known(known) if known.len() == tokens => {
                self.loss_weights.write(known)?
            }
            TokenWeights::Known(known) => {
                return Err(ModelError::Weights {
                    weights: known.len(),
                    tokens,
                });
            }
            TokenWeights::OfLosses(weigh) => {
                let results = (self.targets, &mut *self.losses);
                let head = &self.weights.head(Adapters::On).value;
                let lora = self.weights.head_adapter(Adapters::On);
                let lora = lora.map(|head| head.of_loss(self.dropout));
                let loss = loss(
                    self.architecture,
                    (self.normed, head),
                    lora,
                    results,
                    tokens,
                );
                self.device.linear_cross_entropy_forward(loss.checked()?)?;
                let mut of_losses = vec![0.0; tokens];
                weigh(&read_losses(self.losses, batch)?, &mut of_losses);
                self.loss_weights.write(&of_losses)?;
            }
        }
        let head = self.weights.trained_head();
        let split = |head| split(head, self.dropout);
        let (lora, dlora) = head.adapter.map(split).unzip();
        let loss = linear_cross_entropy::ForwardBackward {
            forward: loss(
                self.architecture,
                (self.normed, head.value),
                lora,
                (self.targets, &mut *self.losses),
                tokens,
            ),
            weights: self.loss_weights.view(),
            dx: self.dnormed.view_mut(),
            dweight: head.gradient.map(Tensor::view_mut),
            rows: head.rows,
            dlora: dlora.flatten(),
        };
        self.device
            .linear_cross_entropy_forward_backward(loss.checked()?)?;
        read_losses(self.losses, batch)
    }

    /// Gradients of a function of the scores, which writes its slopes.
    pub(super) fn scores(
        self,
        batch: &Batch,
        slopes: &mut dyn FnMut(&[f64], &mut [f64]),
    ) -> Result<Vec<f64>, ModelError> {
        let ends = score::ends(batch, self.padding);
        let TrainedHead {
            value, gradient, ..
        } = self.weights.trained_head();
        let head = value.to_f32_vec()?;
        let scores = score::of_rows(self.normed, &ends, &head)?;
        let mut by_score = vec![0.0; scores.len()];
        slopes(&scores, &mut by_score);
        let rows = (batch.len(), self.normed, self.dnormed);
        score::backward(rows, &ends, &by_score, &head, gradient)?;
        Ok(scores)
    }
}

/// The adapter of the output projection, and its gradients.
fn split<'a, D: Device>(
    head: &'a mut Adapter<Tensor<D>>,
    dropout: Option<Dropout<'a, D>>,
) -> (
    linear_cross_entropy::Lora<'a, D>,
    Option<linear_cross_entropy::LoraGradient<'a, D>>,
) {
    let Adapter { a, b, scale, .. } = head;
    let lora = linear_cross_entropy::Lora {
        a: a.value.view(),
        b: b.value.view(),
        scale: *scale,
        dropout,
    };
    let gradients = a.gradient.as_mut().zip(b.gradient.as_mut());
    let gradients = gradients.map(|(da, db)| linear_cross_entropy::LoraGradient {
        da: da.view_mut(),
        db: db.view_mut(),
    });
    (lora, gradients)
}
