//! Keys and values of the tokens read so far, for generation.

use crate::{
    Architecture, ModelError, Plan,
    pass::Pass,
    plan::{Allocate, Allocator, PlannedBuffer, Purpose},
};
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
    /// A cache in one allocation for `capacity` tokens of a model whose activations have type `precision`.
    pub fn new(
        device: &D,
        architecture: &Architecture,
        capacity: usize,
        precision: DType,
    ) -> Result<Self, ModelError> {
        let plan = Plan::of_cache(architecture, capacity, precision)?;
        let mut allocator = Allocator::new(device, plan)?;
        let (layers, logits) = lay_out(&mut allocator, architecture, capacity, precision)?;
        allocator.into_plan()?;
        Ok(Self {
            layers,
            logits,
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

impl Plan {
    /// Every buffer of a [`KvCache`].
    pub fn of_cache(
        architecture: &Architecture,
        capacity: usize,
        precision: DType,
    ) -> Result<Self, ModelError> {
        let mut plan = Self::default();
        lay_out(&mut plan, architecture, capacity, precision)?;
        Ok(plan)
    }
}

/// Keys and values of each layer.
type Layers<T> = Vec<(T, T)>;

/// Lays out keys and values of each layer, and the logits of one token.
fn lay_out<A: Allocate>(
    allocate: &mut A,
    architecture: &Architecture,
    capacity: usize,
    precision: DType,
) -> Result<(Layers<A::Buffer>, A::Buffer), ModelError> {
    let mut buffer = |name: String, shape: [usize; 2]| {
        allocate.allocate(PlannedBuffer {
            name,
            purpose: Purpose::Cache,
            dtype: precision,
            shape: shape.to_vec(),
            trained: None,
        })
    };
    let rows = [capacity, architecture.kv_features()];
    let layers = (0..architecture.layers()).map(|layer| {
        let keys = buffer(format!("layer {layer}: keys"), rows)?;
        Ok((keys, buffer(format!("layer {layer}: values"), rows)?))
    });
    let layers = layers.collect::<Result<_, ModelError>>()?;
    Ok((
        layers,
        buffer("logits".into(), [1, architecture.vocabulary])?,
    ))
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
