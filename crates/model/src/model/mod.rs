//! A model on a device, with the loss and logits of a batch; a trained model also has gradients.

mod decode;
mod head;
mod score;
mod stage;
mod trainable;

pub(crate) use decode::project;
pub use trainable::{TokenWeights, TrainableModel};

use decode::decode;

use crate::{
    Adapters, Architecture, Backend, HeadKind, KvCache, Loss, ModelConfig, ModelError, Plan,
    activations::Activations, lora::AdapterConfig, pass::Pass, weights::Weights,
};
use tightrope_device::{DType, Device, Tensor};
use tightrope_kernels::{Check, attention::Ranges, linear_cross_entropy};
use tightrope_packing::Batch;
use tightrope_rope::RotaryEmbedding;

/// A model whose buffers are all laid out for a capacity of tokens.
#[derive(Debug)]
pub struct Model<D: Device> {
    pub(crate) device: D,
    pub(crate) config: ModelConfig,
    pub(crate) weights: Weights<Tensor<D>>,
    pub(crate) activations: Activations<Tensor<D>>,
    /// Ranges of the current batch.
    pub(crate) ranges: Ranges<D>,
    pub(crate) plan: Plan,
    /// Frequencies, as in [`Architecture::ropes`].
    pub(crate) ropes: Vec<RotaryEmbedding>,
    /// Cosines and sines on the host, before they are copied to the device.
    pub(crate) tables: [Vec<f32>; 2],
    pub(crate) adapter: Option<AdapterConfig>,
    /// `generation_config.json` of the folder that the model came from.
    pub(crate) generation: Option<serde_json::Value>,
    pub(crate) capacity: usize,
    /// Whether parameters may have changed since the norms of DoRA were computed.
    pub(crate) norms_are_old: bool,
    /// Whether the head that scores was drawn, because the files have none.
    pub(crate) new_head: bool,
    /// The rows that tables with trained rows have now; `None` before the first pass.
    pub(crate) shown: Option<Adapters>,
}

impl<D: Backend> Model<D> {
    /// Configuration of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Device of the model.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Plan of all buffers.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Number of all parameters, including those of an adapter.
    pub fn elements(&self) -> u64 {
        let floats = self.weights.base().chain(self.weights.adapter());
        let shapes = floats.map(|parameter| &parameter.shape);
        let shapes = shapes.chain(self.weights.nf4().map(|weight| &weight.shape));
        shapes
            .map(|shape| shape.iter().product::<usize>() as u64)
            .sum()
    }

    /// Number of tokens in the largest batch.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The loss of a batch, without dropout.
    pub fn evaluate(&mut self, batch: &Batch) -> Result<Loss, ModelError> {
        self.evaluate_with(batch, Adapters::On)
    }

    /// The loss of a batch, with or without the adapter.
    pub fn evaluate_with(&mut self, batch: &Batch, adapters: Adapters) -> Result<Loss, ModelError> {
        self.expect_head(HeadKind::Tokens)?;
        self.run(batch, adapters)?;
        let architecture = self.config.architecture();
        let Activations { inputs, work, .. } = &mut self.activations;
        let loss = loss(
            architecture,
            (&work.normed, &self.weights.head(adapters).value),
            self.weights
                .head_adapter(adapters)
                .map(|head| head.of_loss(None)),
            (&inputs.targets, &mut inputs.losses),
            batch.len(),
        );
        self.device.linear_cross_entropy_forward(loss.checked()?)?;
        read_losses(&inputs.losses, batch)
    }

    /// Logits `[tokens, vocabulary]`, with the softcap. They are for tests and verification,
    /// because training never holds them. Allocates them.
    pub fn logits(&mut self, batch: &Batch) -> Result<Vec<f32>, ModelError> {
        self.expect_head(HeadKind::Tokens)?;
        self.run(batch, Adapters::On)?;
        let architecture = self.config.architecture();
        let shape = [batch.len(), architecture.vocabulary];
        let mut y = Tensor::zeros(&self.device, self.precision(), &shape)?;
        project(
            &self.device,
            architecture,
            &self.weights,
            self.activations.work.normed.view(),
            &mut y,
            batch.len(),
        )
    }

    /// Type of activations.
    pub fn precision(&self) -> DType {
        self.activations.work.normed.dtype()
    }

    /// Computes what depends on parameters that may have changed: the norms of DoRA, and the rows of
    /// tables that are trained alone.
    pub(crate) fn refresh(&mut self, adapters: Adapters) -> Result<(), ModelError> {
        let changed = self.norms_are_old;
        if changed {
            let mut linears = self.weights.linears_mut();
            linears.try_for_each(|linear| linear.refresh_norms(&self.device))?;
            self.norms_are_old = false;
        }
        if changed || self.shown != Some(adapters) {
            for (table, rows) in self.weights.tables_with_rows_mut() {
                rows.show(&mut table.value, adapters)?;
            }
            self.shown = Some(adapters);
        }
        Ok(())
    }

    /// Runs the layers from tokens to `work.normed`.
    fn run(&mut self, batch: &Batch, adapters: Adapters) -> Result<(), ModelError> {
        self.stage(batch)?;
        self.forward(batch.len(), None, adapters)
    }

    /// Runs the layers from the staged inputs to `work.normed`, without dropout.
    pub(crate) fn forward(
        &mut self,
        tokens: usize,
        cache: Option<&mut KvCache<D>>,
        adapters: Adapters,
    ) -> Result<(), ModelError> {
        self.refresh(adapters)?;
        let Activations {
            inputs,
            stream,
            saved,
            work,
        } = &mut self.activations;
        let pass = Pass {
            device: &self.device,
            architecture: self.config.architecture(),
            tokens,
            ranges: &self.ranges,
            angles: &inputs.angles,
            dropout: None,
            adapters,
            noise: None,
        };
        decode(
            &pass,
            &self.weights,
            &inputs.ids,
            stream,
            saved,
            work,
            cache,
        )
    }
}

/// Losses of `tokens` rows of `x`, whose targets are on the device.
fn loss<'a, D: Device>(
    architecture: &Architecture,
    (x, head): (&'a Tensor<D>, &'a Tensor<D>),
    lora: Option<linear_cross_entropy::Lora<'a, D>>,
    (targets, losses): (&'a Tensor<D>, &'a mut Tensor<D>),
    tokens: usize,
) -> linear_cross_entropy::Forward<'a, D> {
    linear_cross_entropy::Forward {
        x: x.view(),
        weight: head.view(),
        lora,
        targets: targets.view(),
        logit_scale: architecture.logit_scale,
        softcap: architecture.logit_softcap,
        losses: losses.view_mut(),
        tokens,
        hidden: architecture.hidden,
        vocabulary: architecture.vocabulary,
    }
}

/// Reads the losses of a batch.
fn read_losses<D: Device>(losses: &Tensor<D>, batch: &Batch) -> Result<Loss, ModelError> {
    let mut per_token = vec![0f32; batch.len()];
    losses.read(&mut per_token)?;
    Ok(Loss {
        sum: per_token.iter().map(|&loss| f64::from(loss)).sum(),
        trained_tokens: batch.trained_tokens(),
        per_token,
    })
}
