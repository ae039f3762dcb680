//! What all parts of a model share while a batch goes through it.

use crate::{Architecture, parts::Adapter};
use tightrope_device::{Device, Tensor};
use tightrope_kernels::{attention::Ranges, linear::Dropout};
use tightrope_packing::random::mix;

/// Whether a pass goes through the adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Adapters {
    /// Through the weights and the adapter, if there is one.
    #[default]
    On,
    /// Through the weights alone: the model that the adapter was put on.
    Off,
}

/// The same for every layer of a pass.
#[derive(Debug)]
pub(crate) struct Pass<'a, D: Device> {
    pub device: &'a D,
    pub architecture: &'a Architecture,
    /// Rows of every buffer that are in use.
    pub tokens: usize,
    pub ranges: &'a Ranges<D>,
    pub cos: &'a Tensor<D>,
    pub sin: &'a Tensor<D>,
    /// Of adapters, in training; the salt is that of the step.
    pub dropout: Option<Dropout<'a, D>>,
    pub adapters: Adapters,
}

impl<D: Device> Pass<'_, D> {
    /// The adapter of a layer, unless adapters are off.
    pub(crate) fn adapter<'a, T>(&self, adapter: &'a Option<Adapter<T>>) -> Option<&'a Adapter<T>> {
        let adapter = adapter.as_ref();
        adapter.filter(|_| self.adapters == Adapters::On)
    }

    /// Dropout with a salt of its own for each adapter.
    pub(crate) fn dropout(&self, salt: u64) -> Option<Dropout<'_, D>> {
        self.dropout.map(|dropout| Dropout {
            salt: mix(dropout.salt ^ mix(salt)),
            ..dropout
        })
    }
}
