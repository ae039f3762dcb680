//! A model on a device: loss, gradients and logits of a batch.

mod decode;
mod gradient;
mod stage;

pub(crate) use decode::{head, project};

use decode::decode;

use crate::{
    Adapters, Backend, KvCache, Loss, ModelConfig, ModelError, ParameterMut, Plan,
    activations::Activations, lora::AdapterConfig, parameter::Parameter, pass::Pass,
    weights::Weights,
};
use tightrope_device::{DType, Device, Tensor, ViewMut};
use tightrope_kernels::{Check, attention::Ranges, linear_cross_entropy};
use tightrope_packing::Batch;
use tightrope_rope::RotaryEmbedding;

/// A model whose every buffer is laid out for a capacity of tokens.
#[derive(Debug)]
pub struct Model<D: Device> {
    pub(crate) device: D,
    pub(crate) config: ModelConfig,
    pub(crate) weights: Weights<Tensor<D>>,
    pub(crate) activations: Activations<Tensor<D>>,
    /// Of the batch at hand.
    pub(crate) ranges: Ranges<D>,
    pub(crate) plan: Plan,
    pub(crate) rope: RotaryEmbedding,
    /// Cosines and sines on the host, on their way to the device.
    pub(crate) tables: [Vec<f32>; 2],
    pub(crate) adapter: Option<AdapterConfig>,
    /// `generation_config.json` of the folder that it came from.
    pub(crate) generation: Option<serde_json::Value>,
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

    /// All numbers that it is made of, an adapter's included.
    pub fn elements(&self) -> u64 {
        let floats = self.weights.base().chain(self.weights.adapter());
        let shapes = floats.map(|parameter| &parameter.shape);
        let shapes = shapes.chain(self.weights.nf4().map(|weight| &weight.shape));
        shapes
            .map(|shape| shape.iter().product::<usize>() as u64)
            .sum()
    }

    /// Tokens of the largest batch.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The loss of a batch, without dropout and without gradients.
    pub fn evaluate(&mut self, batch: &Batch) -> Result<Loss, ModelError> {
        self.evaluate_with(batch, Adapters::On)
    }

    /// The same, with the adapter or without it.
    pub fn evaluate_with(&mut self, batch: &Batch, adapters: Adapters) -> Result<Loss, ModelError> {
        self.run(batch, adapters)?;
        let architecture = self.config.architecture();
        let loss = linear_cross_entropy::Forward {
            x: self.activations.work.normed.view(),
            weight: head(&self.weights).view(),
            targets: self.activations.inputs.targets.view(),
            logit_scale: architecture.logit_scale,
            softcap: architecture.logit_softcap,
            losses: self.activations.inputs.losses.view_mut(),
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
        self.run(batch, Adapters::On)?;
        let architecture = self.config.architecture();
        let shape = [batch.len(), architecture.vocabulary];
        let mut y = Tensor::zeros(&self.device, self.precision(), &shape)?;
        project(
            &self.device,
            architecture,
            head(&self.weights),
            self.activations.work.normed.view(),
            &mut y,
            batch.len(),
        )
    }

    /// Type of activations.
    pub fn precision(&self) -> DType {
        self.activations.work.normed.dtype()
    }

    /// Sets all gradients to zero.
    pub fn zero_gradients(&mut self) -> Result<(), ModelError> {
        let gradients = self.parameters().into_iter().map(|p| p.gradient);
        match ViewMut::joined(gradients)? {
            Some(gradients) => Ok(gradients.zero()?),
            None => Ok(()),
        }
    }

    /// What is trained, either the model's own parameters or the adapter's, in the order in which it
    /// lies in memory ([`Plan::offsets`]): both the weights and the gradients of neighbours can be
    /// joined to one view.
    pub fn parameters(&mut self) -> Vec<ParameterMut<'_, D>> {
        let mut parameters: Vec<_> = if self.weights.norm.scale.gradient.is_some() {
            let base = self.weights.base_mut();
            base.filter_map(Parameter::trained).collect()
        } else {
            let adapter = self.weights.adapter_mut();
            adapter.filter_map(Parameter::trained).collect()
        };
        parameters.sort_by_key(|parameter| parameter.weight.view().as_ptr());
        parameters
    }

    /// From tokens to `work.normed`.
    fn run(&mut self, batch: &Batch, adapters: Adapters) -> Result<(), ModelError> {
        self.stage(batch)?;
        self.forward(batch.len(), None, adapters)
    }

    /// From what was staged to `work.normed`, without dropout.
    pub(crate) fn forward(
        &mut self,
        tokens: usize,
        cache: Option<&mut KvCache<D>>,
        adapters: Adapters,
    ) -> Result<(), ModelError> {
        let Activations {
            inputs,
            stream,
            saved,
            work,
            ..
        } = &mut self.activations;
        let pass = Pass {
            device: &self.device,
            architecture: self.config.architecture(),
            tokens,
            ranges: &self.ranges,
            cos: &inputs.cos,
            sin: &inputs.sin,
            dropout: None,
            adapters,
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
