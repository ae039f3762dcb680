//! Parameters: a value and, if it is trained, its gradient.

use tightrope_device::{Device, Tensor};

/// What a parameter is; optimizers treat kinds differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParameterKind {
    /// First factor of an adapter, `[r, inputs]`.
    LoraA,
    /// Second factor of an adapter, `[outputs, r]`.
    LoraB,
    /// The embedding (and a head that is tied to it).
    Embedding,
    /// Scale of a norm.
    Norm,
    /// Bias of a linear layer.
    Bias,
    /// Weight of a linear layer.
    Matrix,
}

impl ParameterKind {
    /// Whether weight decay applies: to matrices and embeddings, not to norms and biases.
    pub fn decays(self) -> bool {
        !matches!(self, ParameterKind::Norm | ParameterKind::Bias)
    }
}

/// A trained parameter, for an optimizer.
#[derive(Debug)]
pub struct ParameterMut<'a, D: Device> {
    /// As files name it: `model.layers.0.mlp.up_proj.weight`, or PEFT's name in an adapter.
    pub name: &'a str,
    /// f32.
    pub weight: &'a mut Tensor<D>,
    /// f32, the same shape.
    pub gradient: &'a mut Tensor<D>,
    /// Whether weight decay applies.
    pub decay: bool,
    /// What it is.
    pub kind: ParameterKind,
}
