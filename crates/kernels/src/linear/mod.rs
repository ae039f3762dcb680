//! A linear layer with optional bias and LoRA adapter, as one operation.

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod dropout;
#[cfg(feature = "cuda")]
mod kernel;
#[cfg(test)]
mod tests;

use crate::{
    Check, Checked, KernelError,
    check::{Operands, product},
    nf4,
};
use tightrope_device::{DType, Device, View, ViewMut};

/// Stateless dropout before `A`: a hash of `salt`, the token's two keys and `i` decides whether
/// element `(t, i)` is kept, so the backward pass, recomputation and any packing use the same mask.
/// Kept elements are scaled by `1 / (1 − probability)`.
///
/// With `s = splitmix(splitmix(salt) ^ (sequence + 2³² · position))`, element `i` is dropped when
/// `h < probability · 2³²` (rounded), where, in 32 bits and with `low` and `high` the halves of `s`:
/// `h = 0x9e3779b9·i + low; h = (h ^ h >> 16)·0x7feb352d ^ high; h = (h ^ h >> 15)·0x846ca68b;
/// h ^= h >> 16`. `splitmix` is SplitMix64's step (Steele et al., 2014), the rest the finaliser
/// `lowbias32` (Wellons, 2018) with `high` added between its rounds. Every device computes this.
#[derive(Debug)]
pub struct Dropout<'a, D: Device> {
    /// Probability that an element is dropped, in `[0, 1)`.
    pub probability: f32,
    /// Salt, which differs for each step, layer and projection.
    pub salt: u64,
    /// u32 `[tokens, 2]`: the sequence of each token and its position in the sequence.
    pub keys: View<'a, D>,
}

impl<D: Device> Clone for Dropout<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device> Copy for Dropout<'_, D> {}

/// Sizes of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Number of rows of `x` and `y`.
    pub tokens: usize,
    /// Number of features of `x`.
    pub inputs: usize,
    /// Number of features of `y`.
    pub outputs: usize,
}

/// The base weight `[outputs, inputs]` of a layer. Only a weight of floating-point numbers has a
/// gradient.
#[derive(Debug)]
pub enum Weight<'a, D: Device> {
    /// f32, bf16 or f16.
    Float(View<'a, D>),
    /// NF4, row by row; blocks do not end with rows. A product decodes the weight as it reads it:
    /// on the CPU a few rows at a time, to f32; on GPUs the whole weight, to the type of the
    /// activations.
    Nf4(nf4::Weight<'a, D>),
}

impl<D: Device> Clone for Weight<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device> Copy for Weight<'_, D> {}

/// Adapter of the forward pass.
#[derive(Debug)]
pub struct LoraForward<'a, D: Device> {
    /// f32 `[rank, inputs]`.
    pub a: View<'a, D>,
    /// f32 `[outputs, rank]`.
    pub b: View<'a, D>,
    /// α/r, or α/√r (rsLoRA).
    pub scale: f32,
    /// Dropout before `A`.
    pub dropout: Option<Dropout<'a, D>>,
    /// Overwritten with `dropout(x)·Aᵀ`, f32 `[tokens, rank]`; saved for the backward pass.
    pub xa: ViewMut<'a, D>,
}

/// `y = factor · x·Wᵀ + bias + scale · (dropout(x)·Aᵀ)·Bᵀ`.
#[derive(Debug)]
pub struct Forward<'a, D: Device> {
    /// `[tokens, inputs]`.
    pub x: View<'a, D>,
    /// `[outputs, inputs]`.
    pub weight: Weight<'a, D>,
    /// Factor of the product with the weight.
    pub factor: f32,
    /// f32 `[outputs]`.
    pub bias: Option<View<'a, D>>,
    /// The adapter.
    pub lora: Option<LoraForward<'a, D>>,
    /// Overwritten, `[tokens, outputs]`.
    pub y: ViewMut<'a, D>,
    /// Sizes of the layer.
    pub shape: Shape,
}

/// Adapter of the gradient with respect to the input.
#[derive(Debug)]
pub struct LoraBackwardInput<'a, D: Device> {
    /// f32 `[rank, inputs]`.
    pub a: View<'a, D>,
    /// f32 `[outputs, rank]`.
    pub b: View<'a, D>,
    /// Scale of the forward pass.
    pub scale: f32,
    /// Dropout of the forward pass.
    pub dropout: Option<Dropout<'a, D>>,
    /// Overwritten with `dy·B`, f32 `[tokens, rank]`; [`LoraBackwardWeights`] reads it.
    pub dyb: ViewMut<'a, D>,
}

/// `dx (+)= factor · dy·W + scale · dropout'((dy·B)·A)`.
///
/// `dx: None` computes only `dyb` (if nothing before this layer is trained).
#[derive(Debug)]
pub struct BackwardInput<'a, D: Device> {
    /// `[tokens, outputs]`.
    pub dy: View<'a, D>,
    /// `[outputs, inputs]`.
    pub weight: Weight<'a, D>,
    /// Factor of the product with the weight.
    pub factor: f32,
    /// The adapter.
    pub lora: Option<LoraBackwardInput<'a, D>>,
    /// `[tokens, inputs]`.
    pub dx: Option<ViewMut<'a, D>>,
    /// Whether `dx` is added into; otherwise it is overwritten.
    pub accumulate: bool,
    /// Sizes of the layer.
    pub shape: Shape,
}

/// Adapter of the gradients of the parameters.
#[derive(Debug)]
pub struct LoraBackwardWeights<'a, D: Device> {
    /// Scale of the forward pass.
    pub scale: f32,
    /// Dropout of the forward pass.
    pub dropout: Option<Dropout<'a, D>>,
    /// From the forward pass, f32 `[tokens, rank]`.
    pub xa: View<'a, D>,
    /// From [`BackwardInput`], f32 `[tokens, rank]`.
    pub dyb: View<'a, D>,
    /// Added into, f32 `[rank, inputs]`: `scale · (dy·B)ᵀ·dropout(x)`.
    pub da: ViewMut<'a, D>,
    /// Added into, f32 `[outputs, rank]`: `scale · dyᵀ·xa`.
    pub db: ViewMut<'a, D>,
}

/// `dW += factor · dyᵀ·x`, `dbias += Σ_t dy`, and the adapter's gradients; a field that is `None`
/// is frozen.
#[derive(Debug)]
pub struct BackwardWeights<'a, D: Device> {
    /// `[tokens, inputs]`.
    pub x: View<'a, D>,
    /// `[tokens, outputs]`.
    pub dy: View<'a, D>,
    /// Added into, f32 `[outputs, inputs]`.
    pub dweight: Option<ViewMut<'a, D>>,
    /// Factor of the forward pass.
    pub factor: f32,
    /// Added into, f32 `[outputs]`.
    pub dbias: Option<ViewMut<'a, D>>,
    /// The adapter.
    pub lora: Option<LoraBackwardWeights<'a, D>>,
    /// Sizes of the layer.
    pub shape: Shape,
}

/// Linear layers with LoRA (Hu et al., 2021; rsLoRA: Kalajdzievski, 2023). Accumulation is f32;
/// activations (`x`, `y`, `dy`, `dx`) are all f32 or all bf16 (f32 on the CPU).
///
/// The bits of `y` and `dx` of a token depend on the token alone, not on the number of other tokens
/// or its place among them; on GPUs this holds under the condition that
/// [`Cuda::matmul`](tightrope_device::Cuda::matmul) states.
///
/// On GPUs, operands of a product have the type of the activations: a weight of another type, the
/// bias, the adapter's matrices, `xa` and `dyb` are rounded to it first. Their copies take working
/// memory, and so do 64 MiB of activations if there is dropout.
///
/// The gradient is in two parts because an operation between them (a gated unit) computes `x` again
/// only after its own gradient is known.
pub trait Linear: Device {
    /// Writes `y` and, with an adapter, `xa`.
    fn linear_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError>;
    /// Writes or adds into `dx`; with an adapter writes `dyb`.
    fn linear_backward_input(
        &self,
        args: Checked<BackwardInput<'_, Self>>,
    ) -> Result<(), KernelError>;
    /// Adds into the gradients of the parameters.
    fn linear_backward_weights(
        &self,
        args: Checked<BackwardWeights<'_, Self>>,
    ) -> Result<(), KernelError>;
}

fn check_dropout<'a, D: Device>(
    operands: &mut Operands<'a, D>,
    dropout: &Option<Dropout<'a, D>>,
    tokens: usize,
) -> Result<(), KernelError> {
    let Some(dropout) = dropout else {
        return Ok(());
    };
    if !(0.0..1.0).contains(&dropout.probability) {
        return Err(KernelError::Value {
            operand: "dropout.probability",
            value: f64::from(dropout.probability),
            rule: "must be at least 0 and less than 1",
        });
    }
    operands.at_least("dropout.keys", dropout.keys, DType::U32, &[tokens, 2])
}

fn check_weight<'a, D: Device>(
    operands: &mut Operands<'a, D>,
    stored: Weight<'a, D>,
    shape: Shape,
) -> Result<(), KernelError> {
    let shape = [shape.outputs, shape.inputs];
    match stored {
        Weight::Float(tensor) => operands.weight("weight", tensor, &shape),
        Weight::Nf4(stored) => stored.check(operands, product("weight", &shape)?),
    }
}

/// Checks both factors of an adapter and returns the rank.
fn check_factors<'a, D: Device>(
    operands: &mut Operands<'a, D>,
    a: View<'a, D>,
    b: View<'a, D>,
    shape: Shape,
) -> Result<usize, KernelError> {
    let rank = a.shape().first().copied().unwrap_or(0);
    operands.exact("a", a, &[rank, shape.inputs])?;
    operands.exact("b", b, &[shape.outputs, rank])?;
    Ok(rank)
}

impl<D: Device> Check for Forward<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let Shape {
            tokens,
            inputs,
            outputs,
        } = self.shape;
        let dtype = operands.activation("x", self.x)?;
        operands.at_least("x", self.x, dtype, &[tokens, inputs])?;
        check_weight(operands, self.weight, self.shape)?;
        if let Some(bias) = self.bias {
            operands.exact("bias", bias, &[outputs])?;
        }
        if let Some(lora) = &self.lora {
            let rank = check_factors(operands, lora.a, lora.b, self.shape)?;
            check_dropout(operands, &lora.dropout, tokens)?;
            operands.at_least("xa", lora.xa.as_view(), DType::F32, &[tokens, rank])?;
        }
        operands.at_least("y", self.y.as_view(), dtype, &[tokens, outputs])
    }
}

impl<D: Device> Check for BackwardInput<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let Shape {
            tokens,
            inputs,
            outputs,
        } = self.shape;
        let dtype = operands.activation("dy", self.dy)?;
        operands.at_least("dy", self.dy, dtype, &[tokens, outputs])?;
        check_weight(operands, self.weight, self.shape)?;
        if let Some(lora) = &self.lora {
            let rank = check_factors(operands, lora.a, lora.b, self.shape)?;
            check_dropout(operands, &lora.dropout, tokens)?;
            operands.at_least("dyb", lora.dyb.as_view(), DType::F32, &[tokens, rank])?;
        }
        match &self.dx {
            Some(dx) => operands.at_least("dx", dx.as_view(), dtype, &[tokens, inputs]),
            None => Ok(()),
        }
    }
}

impl<D: Device> Check for BackwardWeights<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let Shape {
            tokens,
            inputs,
            outputs,
        } = self.shape;
        let dtype = operands.activation("x", self.x)?;
        operands.at_least("x", self.x, dtype, &[tokens, inputs])?;
        operands.at_least("dy", self.dy, dtype, &[tokens, outputs])?;
        if let Some(dweight) = &self.dweight {
            operands.exact("dweight", dweight.as_view(), &[outputs, inputs])?;
        }
        if let Some(dbias) = &self.dbias {
            operands.exact("dbias", dbias.as_view(), &[outputs])?;
        }
        if let Some(lora) = &self.lora {
            let rank = check_factors(operands, lora.da.as_view(), lora.db.as_view(), self.shape)?;
            check_dropout(operands, &lora.dropout, tokens)?;
            operands.at_least("xa", lora.xa, DType::F32, &[tokens, rank])?;
            operands.at_least("dyb", lora.dyb, DType::F32, &[tokens, rank])?;
        }
        Ok(())
    }
}
