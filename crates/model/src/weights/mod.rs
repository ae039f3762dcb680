//! The layout of a model's parameters, and their order.

mod builder;
mod nf4;

pub(crate) use builder::{Builder, Layout};
pub(crate) use nf4::{HostScales, Nf4, host};

use crate::parameter::Parameter;
use tightrope_device::{Device, Tensor};
use tightrope_kernels::linear;

/// One of something for each linear layer of a decoder layer.
#[derive(Debug, Default)]
pub(crate) struct Linears<X> {
    pub q: X,
    pub k: X,
    pub v: X,
    pub o: X,
    pub gate: X,
    pub up: X,
    pub down: X,
}

impl<X> Linears<X> {
    /// In the order of the fields.
    pub fn iter(&self) -> impl Iterator<Item = &X> {
        [
            &self.q, &self.k, &self.v, &self.o, &self.gate, &self.up, &self.down,
        ]
        .into_iter()
    }

    /// In the order of the fields.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut X> {
        [
            &mut self.q,
            &mut self.k,
            &mut self.v,
            &mut self.o,
            &mut self.gate,
            &mut self.up,
            &mut self.down,
        ]
        .into_iter()
    }

    /// Makes another one from each.
    pub fn try_map<Y, E>(&self, mut make: impl FnMut(&X) -> Result<Y, E>) -> Result<Linears<Y>, E> {
        Ok(Linears {
            q: make(&self.q)?,
            k: make(&self.k)?,
            v: make(&self.v)?,
            o: make(&self.o)?,
            gate: make(&self.gate)?,
            up: make(&self.up)?,
            down: make(&self.down)?,
        })
    }
}

/// The factors of a LoRA adapter.
#[derive(Debug)]
pub(crate) struct Adapter<T> {
    pub a: Parameter<T>,
    pub b: Parameter<T>,
    /// α/r, or α/√r.
    pub scale: f32,
    pub rank: usize,
    /// Tells adapters apart in the hash of dropout.
    pub salt: u64,
}

/// The weight of a linear layer.
#[derive(Debug)]
pub(crate) enum Weight<T> {
    /// Trained or frozen.
    Float(Parameter<T>),
    /// Frozen.
    Nf4(Nf4<T>),
}

/// A linear layer.
#[derive(Debug)]
pub(crate) struct Projection<T> {
    pub weight: Weight<T>,
    pub bias: Option<Parameter<T>>,
    pub adapter: Option<Adapter<T>>,
    pub inputs: usize,
    pub outputs: usize,
}

/// The norms of the queries and keys of each head.
#[derive(Debug)]
pub(crate) struct HeadNorms<T> {
    pub q: Parameter<T>,
    pub k: Parameter<T>,
}

/// A decoder layer.
#[derive(Debug)]
pub(crate) struct LayerWeights<T> {
    pub attention_norm: Parameter<T>,
    pub linears: Linears<Projection<T>>,
    pub head_norms: Option<HeadNorms<T>>,
    /// Of what attention returns.
    pub attention_branch_norm: Option<Parameter<T>>,
    pub mlp_norm: Parameter<T>,
    /// Of what the MLP returns.
    pub mlp_branch_norm: Option<Parameter<T>>,
}

/// All parameters.
#[derive(Debug)]
pub(crate) struct Weights<T> {
    pub embedding: Parameter<T>,
    pub layers: Vec<LayerWeights<T>>,
    pub norm: Parameter<T>,
    /// `None` when it is the embedding.
    pub head: Option<Parameter<T>>,
}

impl<T> Weight<T> {
    /// As files name it.
    pub fn name(&self) -> &str {
        match self {
            Weight::Float(parameter) => &parameter.name,
            Weight::Nf4(weight) => &weight.name,
        }
    }

    /// Its gradient, if it is trained.
    pub fn gradient_mut(&mut self) -> Option<&mut T> {
        match self {
            Weight::Float(parameter) => parameter.gradient.as_mut(),
            Weight::Nf4(_) => None,
        }
    }
}

impl<D: Device> Weight<Tensor<D>> {
    /// For an operation to read.
    pub fn view(&self) -> linear::Weight<'_, D> {
        match self {
            Weight::Float(parameter) => linear::Weight::Float(parameter.value.view()),
            Weight::Nf4(weight) => linear::Weight::Nf4(weight.view()),
        }
    }
}

impl<T> Projection<T> {
    /// The layer's own parameters, but not a weight in NF4.
    fn base(&self) -> impl Iterator<Item = &Parameter<T>> {
        let weight = match &self.weight {
            Weight::Float(parameter) => Some(parameter),
            Weight::Nf4(_) => None,
        };
        weight.into_iter().chain(&self.bias)
    }

    fn base_mut(&mut self) -> impl Iterator<Item = &mut Parameter<T>> {
        let weight = match &mut self.weight {
            Weight::Float(parameter) => Some(parameter),
            Weight::Nf4(_) => None,
        };
        weight.into_iter().chain(&mut self.bias)
    }

    /// The weight, if it is in NF4.
    fn nf4(&self) -> Option<&Nf4<T>> {
        match &self.weight {
            Weight::Float(_) => None,
            Weight::Nf4(weight) => Some(weight),
        }
    }

    fn nf4_mut(&mut self) -> Option<&mut Nf4<T>> {
        match &mut self.weight {
            Weight::Float(_) => None,
            Weight::Nf4(weight) => Some(weight),
        }
    }

    /// Whether anything in it is trained.
    pub fn trained(&self) -> bool {
        let adapter = self
            .adapter
            .iter()
            .flat_map(|adapter| [&adapter.a, &adapter.b]);
        self.base().chain(adapter).any(|p| p.gradient.is_some())
    }
}

impl<T> LayerWeights<T> {
    fn norms(&self) -> impl Iterator<Item = &Parameter<T>> {
        let head_norms = self
            .head_norms
            .iter()
            .flat_map(|norms| [&norms.q, &norms.k]);
        std::iter::once(&self.attention_norm)
            .chain(head_norms)
            .chain(&self.attention_branch_norm)
            .chain([&self.mlp_norm])
            .chain(&self.mlp_branch_norm)
    }

    /// Whether anything in it is trained.
    pub fn trained(&self) -> bool {
        self.norms().any(|p| p.gradient.is_some()) || self.linears.iter().any(Projection::trained)
    }
}

impl<T> Weights<T> {
    /// The model's own parameters, but not what is in NF4, in a fixed order.
    pub fn base(&self) -> impl Iterator<Item = &Parameter<T>> {
        let layers = self.layers.iter().flat_map(|layer| {
            let linears = layer.linears.iter().flat_map(Projection::base);
            layer.norms().chain(linears)
        });
        let first = std::iter::once(&self.embedding);
        first.chain(layers).chain([&self.norm]).chain(&self.head)
    }

    /// The model's own parameters, in the same order.
    pub fn base_mut(&mut self) -> impl Iterator<Item = &mut Parameter<T>> {
        let layers = self.layers.iter_mut().flat_map(|layer| {
            let linears = layer.linears.iter_mut().flat_map(Projection::base_mut);
            let head_norms = layer.head_norms.iter_mut();
            let head_norms = head_norms.flat_map(|norms| [&mut norms.q, &mut norms.k]);
            std::iter::once(&mut layer.attention_norm)
                .chain(head_norms)
                .chain(&mut layer.attention_branch_norm)
                .chain([&mut layer.mlp_norm])
                .chain(&mut layer.mlp_branch_norm)
                .chain(linears)
        });
        let first = std::iter::once(&mut self.embedding);
        first
            .chain(layers)
            .chain([&mut self.norm])
            .chain(&mut self.head)
    }

    /// The weights in NF4.
    pub fn nf4(&self) -> impl Iterator<Item = &Nf4<T>> {
        self.projections().filter_map(Projection::nf4)
    }

    /// The weights in NF4.
    pub fn nf4_mut(&mut self) -> impl Iterator<Item = &mut Nf4<T>> {
        let projections = self.layers.iter_mut().flat_map(|l| l.linears.iter_mut());
        projections.filter_map(Projection::nf4_mut)
    }

    /// Every linear layer.
    pub fn projections(&self) -> impl Iterator<Item = &Projection<T>> {
        self.layers.iter().flat_map(|layer| layer.linears.iter())
    }

    /// The adapter's parameters, in a fixed order.
    pub fn adapter(&self) -> impl Iterator<Item = &Parameter<T>> {
        let adapters = self.projections().filter_map(|p| p.adapter.as_ref());
        adapters.flat_map(|adapter| [&adapter.a, &adapter.b])
    }

    /// The adapter's parameters, in the same order.
    pub fn adapter_mut(&mut self) -> impl Iterator<Item = &mut Parameter<T>> {
        let projections = self.layers.iter_mut().flat_map(|l| l.linears.iter_mut());
        let adapters = projections.filter_map(|p| p.adapter.as_mut());
        adapters.flat_map(|adapter| [&mut adapter.a, &mut adapter.b])
    }
}
