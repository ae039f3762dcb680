//! The adapter of the output projection, for a chunk of rows.

use super::{
    Lora, LoraGradient,
    chunks::{Chunk, Steps},
};
use crate::{
    Check, KernelError,
    product::{Args, Dropout, DroppedTerm, Matrix, MatrixMut, Start},
};
use tightrope_device::{DType, Device, Scratch, View, ViewMut};

/// The factors, and working memory for the rows of a chunk.
pub(super) struct Adapter<'a, D: Device> {
    lora: Lora<'a, D>,
    rank: usize,
    /// Factor of `(x·Aᵀ)·Bᵀ` in the logits.
    factor: f32,
    /// `dropout(x)·Aᵀ`, f32.
    xa: Scratch<'a, D>,
    /// `dlogits·B`, f32.
    dyb: Scratch<'a, D>,
    /// With dropout, the keys of the rows.
    keys: Option<Scratch<'a, D>>,
    /// With dropout, `dyb·A` before it, f32.
    term: Option<Scratch<'a, D>>,
}

/// Sizes of a chunk.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub(super) tokens: usize,
    pub(super) hidden: usize,
    pub(super) vocabulary: usize,
    /// Number of elements between the starts of two rows of logits.
    pub(super) stride: usize,
}

impl<'a, D: Steps> Adapter<'a, D> {
    pub(super) fn new(
        device: &'a D,
        lora: Lora<'a, D>,
        logit_scale: f32,
        capacity: usize,
    ) -> Result<Self, KernelError> {
        let [rank, hidden] = [lora.a.shape()[0], lora.a.shape()[1]];
        let f32s = |columns| device.scratch(DType::F32, &[capacity, columns]);
        let dropped = lora.dropout.is_some();
        Ok(Self {
            rank,
            factor: logit_scale * lora.scale,
            xa: f32s(rank)?,
            dyb: f32s(rank)?,
            keys: dropped.then(|| f32s(2)).transpose()?,
            term: dropped.then(|| f32s(hidden)).transpose()?,
            lora,
        })
    }

    /// Writes the adapter's share of the logits of the rows `x` of a chunk.
    pub(super) fn forward(
        &mut self,
        device: &D,
        chunk: Chunk<'_, D>,
        x: View<'_, D>,
        logits: ViewMut<'_, D>,
        shape: Shape,
    ) -> Result<(), KernelError> {
        let Shape {
            tokens,
            hidden,
            vocabulary,
            stride,
        } = shape;
        if let (Some(dropout), Some(keys)) = (self.lora.dropout, &mut self.keys) {
            // The bits of a key pass through f32 unchanged, because they are only copied.
            let all = dropout.keys.reinterpreted(DType::F32)?;
            device.gather(chunk, all, keys.view_mut(), 2)?;
        }
        let rank = self.rank;
        let product = Args {
            dropout: dropout(&self.lora, &self.keys)?,
            ..Args::new(
                Matrix::rows(x, hidden),
                Matrix::rows(self.lora.a, hidden).transposed(),
                MatrixMut::rows(self.xa.view_mut(), rank),
                (tokens, rank, hidden),
            )
        };
        device.product(product.checked()?)?;
        let product = Args {
            alpha: self.factor,
            ..Args::new(
                Matrix::rows(self.xa.view(), rank),
                Matrix::rows(self.lora.b, rank).transposed(),
                MatrixMut::rows(logits, stride),
                (tokens, vocabulary, rank),
            )
        };
        device.product(product.checked()?)
    }

    /// Adds into the gradients of the factors, and replaces the rows `x` by the share of their
    /// gradient that comes through the factors.
    pub(super) fn backward(
        &mut self,
        device: &D,
        dlogits: View<'_, D>,
        mut x: ViewMut<'_, D>,
        gradient: Option<&mut LoraGradient<'_, D>>,
        shape: Shape,
    ) -> Result<(), KernelError> {
        let Shape {
            tokens,
            hidden,
            vocabulary,
            stride,
        } = shape;
        let (rank, factor) = (self.rank, self.factor);
        let dtype = x.dtype();
        let dlogits = Matrix::rows(dlogits, stride);
        let b = Matrix::rows(self.lora.b, rank);
        let dyb = MatrixMut::rows(self.dyb.view_mut(), rank);
        let product = Args::new(dlogits, b, dyb, (tokens, rank, vocabulary));
        device.product(product.checked()?)?;
        let dyb = Matrix::rows(self.dyb.view(), rank);
        if let Some(LoraGradient { da, db }) = gradient {
            let rows = Matrix::rows(x.as_view(), hidden).transposed();
            let da = MatrixMut::rows(da.reborrow(), hidden).transposed();
            let product = Args {
                alpha: factor,
                dropout: dropout(&self.lora, &self.keys)?,
                start: Start::Result,
                ..Args::new(rows, dyb, da, (hidden, rank, tokens))
            };
            device.product(product.checked()?)?;
            let xa = Matrix::rows(self.xa.view(), rank);
            let db = MatrixMut::rows(db.reborrow(), rank);
            let product = Args {
                alpha: factor,
                start: Start::Result,
                ..Args::new(dlogits.transposed(), xa, db, (vocabulary, rank, tokens))
            };
            device.product(product.checked()?)?;
        }
        let a = Matrix::rows(self.lora.a, hidden);
        let sizes = (tokens, hidden, rank);
        let Some(term) = &mut self.term else {
            let rounded = device.rounded(self.dyb.view(), tokens * rank, dtype)?;
            let product = Args {
                alpha: factor,
                ..Args::new(
                    Matrix::rows(rounded.view(), rank),
                    a,
                    MatrixMut::rows(x, hidden),
                    sizes,
                )
            };
            return device.product(product.checked()?);
        };
        let product = Args {
            alpha: factor,
            ..Args::new(dyb, a, MatrixMut::rows(term.view_mut(), hidden), sizes)
        };
        device.product(product.checked()?)?;
        let Some(dropout) = dropout(&self.lora, &self.keys)? else {
            return Ok(());
        };
        let dropped = DroppedTerm {
            term: term.view(),
            dropout,
            c: x.reborrow(),
            accumulate: false,
            m: tokens,
            n: hidden,
        };
        device.dropped_term(dropped.checked()?)
    }
}

/// Dropout of the rows of a chunk, with their keys.
fn dropout<'k, D: Device>(
    lora: &Lora<'k, D>,
    keys: &'k Option<Scratch<'_, D>>,
) -> Result<Option<Dropout<'k, D>>, KernelError> {
    let (Some(dropout), Some(keys)) = (lora.dropout, keys) else {
        return Ok(None);
    };
    Ok(Some(Dropout {
        keys: keys.view().reinterpreted(DType::U32)?,
        ..dropout
    }))
}
