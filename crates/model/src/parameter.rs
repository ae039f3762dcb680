//! Parameters: values and, if they are trained, gradients.

use crate::{
    ModelError,
    plan::{Allocate, PlannedBuffer, Purpose},
};
use tightrope_device::{DType, Device, Tensor};

/// Kind of a parameter; optimizers treat kinds differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParameterKind {
    /// First factor of an adapter, `[r, inputs]`.
    LoraA,
    /// Second factor of an adapter, `[outputs, r]`.
    LoraB,
    /// The embedding (and a head that is tied to it).
    Embedding,
    /// A head that is not tied to the embedding.
    Head,
    /// Scale of a norm.
    Norm,
    /// Bias of a linear layer.
    Bias,
    /// Weight of a linear layer.
    Matrix,
}

impl ParameterKind {
    /// Group of parameters that an optimizer may treat alike: by the same rule, with the same weight
    /// decay and the same learning rate.
    pub(crate) fn group(self) -> u8 {
        match self {
            ParameterKind::Embedding => 0,
            ParameterKind::Head => 1,
            ParameterKind::LoraA | ParameterKind::Matrix => 2,
            ParameterKind::LoraB => 3,
            ParameterKind::Norm | ParameterKind::Bias => 4,
        }
    }

    /// Whether weight decay applies: to matrices and embeddings, not to norms and biases.
    pub fn decays(self) -> bool {
        !matches!(self, ParameterKind::Norm | ParameterKind::Bias)
    }
}

/// A trained parameter, for an optimizer.
#[derive(Debug)]
pub struct ParameterMut<'a, D: Device> {
    /// Name of the tensor in checkpoint files: `model.layers.0.mlp.up_proj.weight`, or PEFT's name
    /// in an adapter.
    pub name: &'a str,
    /// f32.
    pub weight: &'a mut Tensor<D>,
    /// f32, with the shape of the weight.
    pub gradient: &'a mut Tensor<D>,
    /// Whether weight decay applies.
    pub decay: bool,
    /// Kind of the parameter.
    pub kind: ParameterKind,
}

/// A named value with its gradient, if it is trained.
#[derive(Debug)]
pub(crate) struct Parameter<T> {
    pub name: String,
    pub kind: ParameterKind,
    pub shape: Vec<usize>,
    pub value: T,
    pub gradient: Option<T>,
    /// Type that exports convert back to.
    pub stored: DType,
}

impl<T> Parameter<T> {
    /// Lays out a parameter whose value has type `dtype` (and type `stored` in files); gradients
    /// are always f32.
    pub(crate) fn allocate<A: Allocate<Buffer = T>>(
        allocate: &mut A,
        name: String,
        kind: ParameterKind,
        (dtype, stored): (DType, DType),
        shape: &[usize],
        trained: bool,
    ) -> Result<Self, ModelError> {
        let purpose = match kind {
            ParameterKind::LoraA | ParameterKind::LoraB => Purpose::Adapter,
            _ => Purpose::Weights,
        };
        let value = allocate.allocate(PlannedBuffer {
            name: name.clone(),
            purpose,
            dtype,
            shape: shape.to_vec(),
            trained: trained.then_some(kind),
        })?;
        let gradient = if trained {
            Some(allocate.allocate(PlannedBuffer {
                name: format!("gradient of {name}"),
                purpose: Purpose::Gradients,
                dtype: DType::F32,
                shape: shape.to_vec(),
                trained: Some(kind),
            })?)
        } else {
            None
        };
        Ok(Self {
            name,
            kind,
            shape: shape.to_vec(),
            value,
            gradient,
            stored,
        })
    }
}

impl<D: Device> Parameter<Tensor<D>> {
    /// The parameter for an optimizer, if it is trained.
    pub(crate) fn trained(&mut self) -> Option<ParameterMut<'_, D>> {
        let gradient = self.gradient.as_mut()?;
        Some(ParameterMut {
            name: &self.name,
            weight: &mut self.value,
            gradient,
            decay: self.kind.decays(),
            kind: self.kind,
        })
    }
}
