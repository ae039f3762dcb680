//! Keys and values of the tokens read so far, for generation.

use crate::{Architecture, ModelError, pass::Pass};
use tightrope_device::{DType, Device, Tensor};

/// Keys and values of one text, for every layer.
#[derive(Debug)]
pub struct KvCache<D: Device> {
    layers: Vec<(Tensor<D>, Tensor<D>)>,
    pub(crate) logits: Tensor<D>,
    pub(crate) len: usize,
    capacity: usize,
}

impl<D: Device> KvCache<D> {
    /// A cache for `capacity` tokens of a model whose activations have type `precision`.
    pub fn new(
        device: &D,
        architecture: &Architecture,
        capacity: usize,
        precision: DType,
    ) -> Result<Self, ModelError> {
        let zeros = |rows, features| Tensor::zeros(device, precision, &[rows, features]);
        let keys = architecture.kv_features();
        let layers = (0..architecture.layers())
            .map(|_| Ok((zeros(capacity, keys)?, zeros(capacity, keys)?)))
            .collect::<Result<_, ModelError>>()?;
        Ok(Self {
            layers,
            logits: zeros(1, architecture.vocabulary)?,
            len: 0,
            capacity,
        })
    }

    /// Number of tokens read so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token was read yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of tokens that fit into the cache.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Clears the cache for another text.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    pub(crate) fn layer(&mut self, layer: usize) -> LayerCache<'_, D> {
        let (k, v) = &mut self.layers[layer];
        LayerCache {
            k,
            v,
            len: self.len,
        }
    }
}

/// One layer of a cache.
#[derive(Debug)]
pub(crate) struct LayerCache<'a, D: Device> {
    k: &'a mut Tensor<D>,
    v: &'a mut Tensor<D>,
    len: usize,
}

impl<'a, D: Device> LayerCache<'a, D> {
    /// Adds the rows of a pass, and returns all keys and values.
    pub(crate) fn append(
        self,
        pass: &Pass<'_, D>,
        k: &Tensor<D>,
        v: &Tensor<D>,
    ) -> Result<(&'a Tensor<D>, &'a Tensor<D>), ModelError> {
        let rows = self.len..self.len + pass.tokens;
        self.k.view_mut().rows(rows.clone())?.copy_from(k.view())?;
        self.v.view_mut().rows(rows)?.copy_from(v.view())?;
        Ok((self.k, self.v))
    }
}
