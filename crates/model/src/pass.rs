//! State that all parts of a model share while they process a batch.

use crate::{Architecture, activations::Angles, parts::Adapter};
use tightrope_device::{Device, Scratch, Tensor};
use tightrope_kernels::{attention::Ranges, product::Dropout};
use tightrope_packing::random::mix;

/// Whether a pass goes through the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Adapters {
    /// Uses the weights and the adapter, if there is one.
    #[default]
    On,
    /// Uses the weights alone: the model without its adapter.
    Off,
}

/// State that is the same for every layer of a pass.
#[derive(Debug)]
pub(crate) struct Pass<'a, D: Device> {
    pub device: &'a D,
    pub architecture: &'a Architecture,
    /// Number of rows of every buffer that are in use.
    pub tokens: usize,
    pub ranges: &'a Ranges<D>,
    /// Angles of each of the frequencies that the model has.
    pub angles: &'a [Angles<Tensor<D>>],
    /// Dropout of adapters in training, with the salt of the step.
    pub dropout: Option<Dropout<'a, D>>,
    pub adapters: Adapters,
    /// Noise of the embeddings in training.
    pub noise: Option<&'a Noise<'a, D>>,
}

/// Noise that is added to embeddings.
#[derive(Debug)]
pub(crate) struct Noise<'a, D: Device> {
    /// Random bits of each token, `[tokens, 2]`.
    pub states: Scratch<'a, D>,
    /// Largest noise of each token, `[tokens]`.
    pub scales: Scratch<'a, D>,
}

impl<D: Device> Pass<'_, D> {
    /// The adapter of a layer, unless adapters are off; one that started from the weight is always
    /// on, because the weight lacks a part.
    pub(crate) fn adapter<'a, T>(&self, adapter: &'a Option<Adapter<T>>) -> Option<&'a Adapter<T>> {
        let adapter = adapter.as_ref();
        adapter.filter(|adapter| self.adapters == Adapters::On || adapter.start.is_some())
    }

    /// Dropout with a separate salt for each adapter.
    pub(crate) fn dropout(&self, salt: u64) -> Option<Dropout<'_, D>> {
        self.dropout.map(|dropout| Dropout {
            salt: mix(dropout.salt ^ mix(salt)),
            ..dropout
        })
    }
}
