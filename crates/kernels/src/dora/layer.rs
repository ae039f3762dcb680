//! A linear layer with a weight-decomposed adapter, from products and the operations of [`Dora`].
//!
//! With `xd = dropout(x)`, `z = factor · xd·Wᵀ + s · (xd·Aᵀ)·Bᵀ` and `gain = magnitude / norm`,
//! `y = gain ⊙ z + bias + factor · (x − xd)·Wᵀ`: as in PEFT, dropped inputs reach the output
//! through the frozen weight alone. The difference is zero without dropout.

use super::{Dora, RowNorms, ScaleColumns, ScaleColumnsBackward};
use crate::{
    Check, KernelError,
    linear::{self, Linear, LoraBackwardInput, LoraBackwardWeights, LoraForward, Shape},
    product::{Args, Dropout, DroppedTerm, Elements, Matrix, MatrixMut, Product, Start},
};
use tightrope_device::{DType, Device, View, ViewMut};

/// An adapter with a magnitude.
#[derive(Debug)]
pub struct Adapter<'a, D: Device> {
    /// f32 `[rank, inputs]`.
    pub a: View<'a, D>,
    /// f32 `[outputs, rank]`.
    pub b: View<'a, D>,
    /// Factor of `B·A`, times the layer's factor.
    pub scale: f32,
    /// Dropout of the layer's input.
    pub dropout: Option<Dropout<'a, D>>,
    /// f32 `[outputs]`: magnitude over norm.
    pub gain: View<'a, D>,
}

impl<D: Device> Clone for Adapter<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device> Copy for Adapter<'_, D> {}

/// Forward pass of the layer.
#[derive(Debug)]
pub struct Forward<'a, D: Device> {
    /// `[tokens, inputs]`.
    pub x: View<'a, D>,
    /// `[outputs, inputs]`.
    pub weight: Elements<'a, D>,
    /// Factor of the product with the weight.
    pub factor: f32,
    /// f32 `[outputs]`.
    pub bias: Option<View<'a, D>>,
    /// The adapter.
    pub adapter: Adapter<'a, D>,
    /// Overwritten with `xd·Aᵀ`, f32 `[tokens, rank]`; saved for the backward pass.
    pub xa: ViewMut<'a, D>,
    /// Overwritten, `[tokens, outputs]`, of the type of `x`; saved for the backward pass.
    pub z: ViewMut<'a, D>,
    /// Overwritten, `[tokens, outputs]`.
    pub y: ViewMut<'a, D>,
    /// Sizes of the layer.
    pub shape: Shape,
}

/// Gradient with respect to the input, and of the magnitude.
#[derive(Debug)]
pub struct BackwardInput<'a, D: Device> {
    /// `[tokens, outputs]`.
    pub dy: View<'a, D>,
    /// `[outputs, inputs]`.
    pub weight: Elements<'a, D>,
    /// Factor of the forward pass.
    pub factor: f32,
    /// The adapter.
    pub adapter: Adapter<'a, D>,
    /// f32 `[outputs]`: norms of the rows of `W + s·B·A`.
    pub norm: View<'a, D>,
    /// From the forward pass, `[tokens, outputs]`.
    pub z: View<'a, D>,
    /// Overwritten with `gain ⊙ dy`, `[tokens, outputs]`; [`BackwardWeights`] reads it.
    pub dz: ViewMut<'a, D>,
    /// Overwritten with `dz·B`, f32 `[tokens, rank]`; [`BackwardWeights`] reads it.
    pub dyb: ViewMut<'a, D>,
    /// Added into, f32 `[outputs]`.
    pub dmagnitude: ViewMut<'a, D>,
    /// `[tokens, inputs]`; `None` if nothing before this layer is trained.
    pub dx: Option<ViewMut<'a, D>>,
    /// Whether `dx` is added into; otherwise it is overwritten.
    pub accumulate: bool,
    /// Sizes of the layer.
    pub shape: Shape,
}

/// Gradients of the factors and of the bias.
#[derive(Debug)]
pub struct BackwardWeights<'a, D: Device> {
    /// `[tokens, inputs]`.
    pub x: View<'a, D>,
    /// `[tokens, outputs]`.
    pub dy: View<'a, D>,
    /// From [`BackwardInput`], `[tokens, outputs]`.
    pub dz: View<'a, D>,
    /// Added into, f32 `[outputs]`.
    pub dbias: Option<ViewMut<'a, D>>,
    /// Gradients of the factors, with `dz` in place of `dy`.
    pub lora: LoraBackwardWeights<'a, D>,
    /// Sizes of the layer.
    pub shape: Shape,
}

/// Norms of the rows of `W + s·B·A`.
#[derive(Debug)]
pub struct Norms<'a, D: Device> {
    /// `[outputs, inputs]`.
    pub weight: Elements<'a, D>,
    /// f32 `[outputs]`: `Σ_i W[j,i]²`.
    pub squares: View<'a, D>,
    /// f32 `[rank, inputs]`.
    pub a: View<'a, D>,
    /// f32 `[outputs, rank]`.
    pub b: View<'a, D>,
    /// s.
    pub scale: f32,
    /// f32 `[outputs]`.
    pub magnitude: View<'a, D>,
    /// Overwritten, f32 `[outputs]`.
    pub norm: ViewMut<'a, D>,
    /// Overwritten with magnitude over norm, f32 `[outputs]`.
    pub gain: ViewMut<'a, D>,
    /// Number of features of the layer's input.
    pub inputs: usize,
    /// Number of features of the layer's output.
    pub outputs: usize,
}

/// The dropout, unless nothing is dropped.
fn active<'a, D: Device>(adapter: &Adapter<'a, D>) -> Option<Dropout<'a, D>> {
    adapter.dropout.filter(|dropout| dropout.probability != 0.0)
}

/// `y = start + alpha · gain ⊙ z` for the outputs of a layer.
fn scale<D: Dora>(
    device: &D,
    (z, gain, alpha): (View<'_, D>, Option<View<'_, D>>, f32),
    start: Start<'_, D>,
    y: ViewMut<'_, D>,
    shape: Shape,
) -> Result<(), KernelError> {
    let scale = ScaleColumns {
        z,
        gain,
        alpha,
        start,
        y,
        rows: shape.tokens,
        columns: shape.outputs,
    };
    device.scale_columns(scale.checked()?)
}

impl<D: Linear + Product + Dora> Forward<'_, D> {
    /// Writes `y`, `xa` and `z`.
    pub fn run(self, device: &D) -> Result<(), KernelError> {
        let Self {
            x,
            weight,
            factor,
            bias,
            adapter,
            mut xa,
            mut z,
            mut y,
            shape,
        } = self;
        let Shape {
            tokens,
            inputs,
            outputs,
        } = shape;
        let Some(dropout) = active(&adapter) else {
            let forward = linear::Forward {
                x,
                weight,
                factor,
                bias: None,
                lora: Some(LoraForward {
                    a: adapter.a,
                    b: adapter.b,
                    scale: adapter.scale,
                    dropout: None,
                    xa,
                }),
                y: z.reborrow(),
                shape,
            };
            device.linear_forward(forward.checked()?)?;
            let start = bias.map_or(Start::Zero, Start::Bias);
            return scale(
                device,
                (z.as_view(), Some(adapter.gain), 1.0),
                start,
                y,
                shape,
            );
        };
        let rank = adapter.a.shape().first().copied().unwrap_or(0);
        let rows = Matrix::rows(x, inputs);
        let frozen = linear::Forward {
            x,
            weight,
            factor,
            bias,
            lora: None,
            y: y.reborrow(),
            shape,
        };
        device.linear_forward(frozen.checked()?)?;
        // The frozen weight's share of the dropped input is taken out of `y`, and comes back scaled.
        let weight = Matrix::stored(weight, inputs).transposed();
        let into = MatrixMut::rows(z.reborrow(), outputs);
        let kept = Args {
            dropout: Some(dropout),
            alpha: factor,
            ..Args::new(rows, weight, into, (tokens, outputs, inputs))
        };
        device.product(kept.checked()?)?;
        scale(
            device,
            (z.as_view(), None, -1.0),
            Start::Result,
            y.reborrow(),
            shape,
        )?;
        let down = Matrix::rows(adapter.a, inputs).transposed();
        let into = MatrixMut::rows(xa.reborrow(), rank);
        let down = Args {
            dropout: Some(dropout),
            ..Args::new(rows, down, into, (tokens, rank, inputs))
        };
        device.product(down.checked()?)?;
        let narrow = device.rounded(xa.as_view(), tokens * rank, z.dtype())?;
        let up = Matrix::rows(adapter.b, rank).transposed();
        let into = MatrixMut::rows(z.reborrow(), outputs);
        let up = Args {
            alpha: adapter.scale,
            start: Start::Result,
            ..Args::new(
                Matrix::rows(narrow.view(), rank),
                up,
                into,
                (tokens, outputs, rank),
            )
        };
        device.product(up.checked()?)?;
        scale(
            device,
            (z.as_view(), Some(adapter.gain), 1.0),
            Start::Result,
            y,
            shape,
        )
    }
}

impl<D: Linear + Product + Dora> BackwardInput<'_, D> {
    /// Writes `dz` and `dyb`, writes or adds into `dx`, and adds into `dmagnitude`.
    pub fn run(self, device: &D) -> Result<(), KernelError> {
        let Self {
            dy,
            weight,
            factor,
            adapter,
            norm,
            z,
            mut dz,
            mut dyb,
            dmagnitude,
            dx,
            accumulate,
            shape,
        } = self;
        let Shape {
            tokens,
            inputs,
            outputs,
        } = shape;
        let gained = ScaleColumnsBackward {
            dy,
            z,
            gain: adapter.gain,
            norm,
            dz: dz.reborrow(),
            dmagnitude,
            rows: tokens,
            columns: outputs,
        };
        device.scale_columns_backward(gained.checked()?)?;
        let dz = dz.as_view();
        let through = |dyb, dx| {
            let backward = linear::BackwardInput {
                dy: dz,
                weight,
                factor,
                lora: Some(LoraBackwardInput {
                    a: adapter.a,
                    b: adapter.b,
                    scale: adapter.scale,
                    dropout: None,
                    dyb,
                }),
                dx,
                accumulate,
                shape,
            };
            device.linear_backward_input(backward.checked()?)
        };
        let (dropout, mut dx) = match (active(&adapter), dx) {
            (None, dx) => return through(dyb, dx),
            (Some(_), None) => return through(dyb, None),
            (Some(dropout), Some(dx)) => (dropout, dx),
        };
        through(dyb.reborrow(), None)?;
        let frozen = linear::BackwardInput {
            dy,
            weight,
            factor,
            lora: None,
            dx: Some(dx.reborrow()),
            accumulate,
            shape,
        };
        device.linear_backward_input(frozen.checked()?)?;
        // What reaches x through the mask: factor · (dz − dy)·W + scale · (dz·B)·A.
        let mut change = device.scratch(dy.dtype(), &[tokens, outputs])?;
        let gain = Some(adapter.gain);
        scale(
            device,
            (dy, gain, 1.0),
            Start::Zero,
            change.view_mut(),
            shape,
        )?;
        scale(
            device,
            (dy, None, -1.0),
            Start::Result,
            change.view_mut(),
            shape,
        )?;
        let mut term = device.scratch(DType::F32, &[tokens, inputs])?;
        let wide = Args {
            alpha: factor,
            ..Args::new(
                Matrix::rows(change.view(), outputs),
                Matrix::stored(weight, inputs),
                MatrixMut::rows(term.view_mut(), inputs),
                (tokens, inputs, outputs),
            )
        };
        device.product(wide.checked()?)?;
        let rank = adapter.a.shape().first().copied().unwrap_or(0);
        let narrow = device.rounded(dyb.as_view(), tokens * rank, dy.dtype())?;
        let narrow = Args {
            alpha: adapter.scale,
            start: Start::Result,
            ..Args::new(
                Matrix::rows(narrow.view(), rank),
                Matrix::rows(adapter.a, inputs),
                MatrixMut::rows(term.view_mut(), inputs),
                (tokens, inputs, rank),
            )
        };
        device.product(narrow.checked()?)?;
        let add = DroppedTerm {
            term: term.view(),
            dropout,
            c: dx,
            accumulate: true,
            m: tokens,
            n: inputs,
        };
        device.dropped_term(add.checked()?)
    }
}

impl<D: Linear> BackwardWeights<'_, D> {
    /// Adds into the gradients.
    pub fn run(self, device: &D) -> Result<(), KernelError> {
        let Self {
            x,
            dy,
            dz,
            dbias,
            lora,
            shape,
        } = self;
        let gradients = |dy, dbias, lora| {
            let backward = linear::BackwardWeights {
                x,
                dy,
                dweight: None,
                factor: 1.0,
                dbias,
                lora,
                shape,
            };
            device.linear_backward_weights(backward.checked()?)
        };
        if dbias.is_some() {
            gradients(dy, dbias, None)?;
        }
        gradients(dz, None, Some(lora))
    }
}

impl<D: Product + Dora> Norms<'_, D> {
    /// Writes `norm` and `gain`, from `A·Wᵀ` and `A·Aᵀ`.
    pub fn run(self, device: &D) -> Result<(), KernelError> {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let rank = self.a.shape().first().copied().unwrap_or(0);
        let a = Matrix::rows(self.a, inputs);
        let mut u = device.scratch(DType::F32, &[rank, outputs])?;
        let mut c = device.scratch(DType::F32, &[rank, rank])?;
        let weight = Matrix::stored(self.weight, inputs).transposed();
        let into = MatrixMut::rows(u.view_mut(), outputs);
        device.product(Args::new(a, weight, into, (rank, outputs, inputs)).checked()?)?;
        let into = MatrixMut::rows(c.view_mut(), rank);
        device.product(Args::new(a, a.transposed(), into, (rank, rank, inputs)).checked()?)?;
        let norms = RowNorms {
            squares: self.squares,
            b: self.b,
            u: u.view(),
            c: c.view(),
            magnitude: self.magnitude,
            scale: self.scale,
            norm: self.norm,
            gain: self.gain,
            outputs,
            rank,
        };
        device.row_norms(norms.checked()?)
    }
}
