//! A linear layer with optional bias and LoRA adapter, as one operation. It is written once, over
//! the products of a device.

#[cfg(test)]
mod tests;

use crate::{
    Check, Checked, KernelError,
    check::{Operands, product},
    product::{
        Args, ColumnSums, Dropout, Elements, Matrix, MatrixMut, Product, Start, Through,
        check_dropout,
    },
};
use tightrope_device::{DType, Device, View, ViewMut};

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
    /// `[outputs, inputs]`. Only a weight of floating-point numbers has a gradient.
    pub weight: Elements<'a, D>,
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
    /// `[outputs, inputs]`. Only a weight of floating-point numbers has a gradient.
    pub weight: Elements<'a, D>,
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
/// activations (`x`, `y`, `dy`, `dx`) are all f32 or all bf16.
///
/// The bits of `y` and `dx` of a token depend on the token alone, not on the number of other tokens
/// or its place among them; on GPUs this holds under the condition that
/// [`Cuda::matmul`](tightrope_device::Cuda::matmul) states. [`Product`] says what else products do.
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

impl<D: Product> Linear for D {
    fn linear_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let Forward {
            x,
            weight,
            factor,
            bias,
            lora,
            y,
            shape,
        } = args.on(self)?;
        let (m, n, k) = (shape.tokens, shape.outputs, shape.inputs);
        let b = Matrix::stored(weight, k).transposed();
        let start = bias.map_or(Start::Zero, Start::Bias);
        let Some(lora) = lora else {
            let product = Args {
                alpha: factor,
                start,
                ..Args::new(Matrix::rows(x, k), b, MatrixMut::rows(y, n), (m, n, k))
            };
            return self.product(product.checked()?);
        };
        let rank = lora.a.shape()[0];
        let products = Through {
            a: x,
            b,
            alpha: factor,
            before: lora.dropout,
            down: Matrix::rows(lora.a, k).transposed(),
            x: lora.xa,
            up: Matrix::rows(lora.b, rank).transposed(),
            scale: lora.scale,
            after: None,
            start,
            c: y,
            m,
            n,
            k,
            rank,
        };
        self.product_through(products.checked()?)
    }

    fn linear_backward_input(
        &self,
        args: Checked<BackwardInput<'_, Self>>,
    ) -> Result<(), KernelError> {
        let BackwardInput {
            dy,
            weight,
            factor,
            lora,
            dx,
            accumulate,
            shape,
        } = args.on(self)?;
        let (m, n, k) = (shape.tokens, shape.inputs, shape.outputs);
        let b = Matrix::stored(weight, n);
        let start = match accumulate {
            true => Start::Result,
            false => Start::Zero,
        };
        match (lora, dx) {
            (None, None) => Ok(()),
            (None, Some(dx)) => {
                let product = Args {
                    alpha: factor,
                    start,
                    ..Args::new(Matrix::rows(dy, k), b, MatrixMut::rows(dx, n), (m, n, k))
                };
                self.product(product.checked()?)
            }
            (Some(lora), None) => {
                let rank = lora.a.shape()[0];
                let (a, b) = (Matrix::rows(dy, k), Matrix::rows(lora.b, rank));
                let c = MatrixMut::rows(lora.dyb, rank);
                self.product(Args::new(a, b, c, (m, rank, k)).checked()?)
            }
            (Some(lora), Some(dx)) => {
                let rank = lora.a.shape()[0];
                let products = Through {
                    a: dy,
                    b,
                    alpha: factor,
                    before: None,
                    down: Matrix::rows(lora.b, rank),
                    x: lora.dyb,
                    up: Matrix::rows(lora.a, n),
                    scale: lora.scale,
                    after: lora.dropout,
                    start,
                    c: dx,
                    m,
                    n,
                    k,
                    rank,
                };
                self.product_through(products.checked()?)
            }
        }
    }

    fn linear_backward_weights(
        &self,
        args: Checked<BackwardWeights<'_, Self>>,
    ) -> Result<(), KernelError> {
        let BackwardWeights {
            x,
            dy,
            dweight,
            factor,
            dbias,
            lora,
            shape,
        } = args.on(self)?;
        let Shape {
            tokens,
            inputs,
            outputs,
        } = shape;
        let (x, dy_rows) = (Matrix::rows(x, inputs), Matrix::rows(dy, outputs));
        // c += alpha · aᵀ·b, a sum over tokens.
        let over_tokens = |a: Matrix<'_, D>, dropout, b, c, (m, n), alpha| {
            let product = Args {
                alpha,
                dropout,
                start: Start::Result,
                ..Args::new(a.transposed(), b, c, (m, n, tokens))
            };
            self.product(product.checked()?)
        };
        if let Some(dweight) = dweight {
            let c = MatrixMut::rows(dweight, inputs);
            over_tokens(dy_rows, None, x, c, (outputs, inputs), factor)?;
        }
        if let Some(sums) = dbias {
            let sums = ColumnSums {
                rows: dy,
                sums,
                m: tokens,
                n: outputs,
            };
            self.column_sums(sums.checked()?)?;
        }
        let Some(lora) = lora else {
            return Ok(());
        };
        let rank = lora.da.shape()[0];
        let dyb = Matrix::rows(lora.dyb, rank);
        let da = MatrixMut::rows(lora.da, inputs).transposed();
        over_tokens(x, lora.dropout, dyb, da, (inputs, rank), lora.scale)?;
        let xa = Matrix::rows(lora.xa, rank);
        let db = MatrixMut::rows(lora.db, rank);
        over_tokens(dy_rows, None, xa, db, (outputs, rank), lora.scale)
    }
}

fn check_weight<'a, D: Device>(
    operands: &mut Operands<'a, D>,
    stored: Elements<'a, D>,
    shape: Shape,
) -> Result<(), KernelError> {
    let shape = [shape.outputs, shape.inputs];
    match stored {
        Elements::Float(tensor) => operands.weight("weight", tensor, &shape),
        Elements::Nf4(stored) => stored.check(operands, product("weight", &shape)?),
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
