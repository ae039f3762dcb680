//! Output projection and cross-entropy, a chunk of rows at a time: written once, over the products
//! of a device and the few steps between them.

use super::{
    Forward, LoraGradient,
    lora::{Adapter, Shape},
    rows_with_target,
};
use crate::{
    Check, KernelError,
    product::{Args, Matrix, MatrixMut, Product, Start},
};
use std::ops::Range;
use tightrope_device::{DType, Device, View, ViewMut};

/// The rows of a chunk.
#[cfg_attr(
    not(feature = "cuda"),
    expect(dead_code, reason = "the CPU needs no copies of numbers on a device")
)]
pub(super) struct Chunk<'a, D: Device> {
    /// Number and target of each row.
    pub(super) rows: &'a [(usize, usize)],
    /// The numbers on the device, u64 as bytes.
    pub(super) numbers: View<'a, D>,
    /// Number of rows of the arrays that the chunk is taken from.
    pub(super) tokens: usize,
}

impl<D: Device> Clone for Chunk<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device> Copy for Chunk<'_, D> {}

/// Cross-entropy on the logits of a chunk.
#[cfg_attr(
    not(feature = "cuda"),
    expect(dead_code, reason = "the CPU needs no copies of numbers on a device")
)]
pub(super) struct Losses<'a, D: Device> {
    pub(super) chunk: Chunk<'a, D>,
    /// f32, in rows of `stride`. With weights, overwritten with the gradients of the capped logits
    /// times their weight, of the type of activations; each row starts where its logits start.
    pub(super) logits: ViewMut<'a, D>,
    pub(super) stride: usize,
    pub(super) vocabulary: usize,
    pub(super) targets: View<'a, D>,
    pub(super) softcap: Option<f32>,
    pub(super) weights: Option<View<'a, D>>,
    /// Overwritten in the rows of the chunk.
    pub(super) losses: ViewMut<'a, D>,
    /// Type of the gradients.
    pub(super) dtype: DType,
}

/// The steps between the products. Sizes, types and the device of every operand are proved by the
/// check of the operation, and the rows of a chunk are below the number of tokens.
pub(super) trait Steps: Product {
    /// Number of rows in a chunk, of `rows` in all.
    fn chunk_rows(&self, rows: usize, vocabulary: usize) -> usize;
    /// Number of elements between the starts of two rows of logits.
    fn stride(vocabulary: usize) -> usize;
    /// Copies the rows of a chunk from `x` to `rows`.
    fn gather(
        &self,
        chunk: Chunk<'_, Self>,
        x: View<'_, Self>,
        rows: ViewMut<'_, Self>,
        hidden: usize,
    ) -> Result<(), KernelError>;
    /// Copies `rows` to the rows of a chunk in `x`.
    fn scatter(
        &self,
        chunk: Chunk<'_, Self>,
        rows: View<'_, Self>,
        x: ViewMut<'_, Self>,
        hidden: usize,
    ) -> Result<(), KernelError>;
    /// Writes the losses, and with weights the gradients.
    fn cross_entropy(&self, args: Losses<'_, Self>) -> Result<(), KernelError>;
}

/// Output of the backward half.
pub(super) struct Gradient<'a, D: Device> {
    pub(super) weights: View<'a, D>,
    pub(super) dx: ViewMut<'a, D>,
    pub(super) dweight: Option<ViewMut<'a, D>>,
    pub(super) rows: Option<&'a [usize]>,
    pub(super) dlora: Option<LoraGradient<'a, D>>,
}

/// Classes that follow each other, with the first row of `dweight` that has their gradients.
fn runs(rows: Option<&[usize]>, vocabulary: usize) -> Vec<(usize, Range<usize>)> {
    let Some(rows) = rows else {
        return vec![(0, 0..vocabulary)];
    };
    let mut first = 0;
    rows.chunk_by(|one, next| one + 1 == *next)
        .map(|run| {
            let at = first;
            first += run.len();
            (at, run[0]..run[0] + run.len())
        })
        .collect()
}

/// Writes the losses, and the gradients if they are wanted.
pub(super) fn run<D: Steps>(
    device: &D,
    forward: Forward<'_, D>,
    mut gradient: Option<Gradient<'_, D>>,
) -> Result<(), KernelError> {
    let Forward {
        x,
        weight,
        lora,
        targets,
        logit_scale,
        softcap,
        mut losses,
        tokens,
        hidden,
        vocabulary,
    } = forward;
    let mut on_host = vec![0i32; tokens];
    targets.elements(0..tokens)?.read(&mut on_host)?;
    let rows = rows_with_target(&on_host, vocabulary)?;
    losses.reborrow().elements(0..tokens)?.zero()?;
    if let Some(gradient) = &mut gradient {
        let dx = gradient.dx.reborrow().elements(0..tokens * hidden)?;
        dx.zero()?;
    }
    if rows.is_empty() {
        return Ok(());
    }

    let dtype = x.dtype();
    let (stride, capacity) = (
        D::stride(vocabulary),
        device.chunk_rows(rows.len(), vocabulary),
    );
    let mut logits = device.scratch(DType::F32, &[capacity, stride])?;
    let mut gathered = device.scratch(dtype, &[capacity, hidden])?;
    let mut numbers = device.scratch(DType::U8, &[capacity * size_of::<u64>()])?;
    let mut adapter = match lora {
        Some(lora) => Some(Adapter::new(device, lora, logit_scale, capacity)?),
        None => None,
    };
    let weight = device.prepare(weight, vocabulary * hidden, dtype)?;
    let weight = Matrix::rows(weight.view(), hidden);
    for rows in rows.chunks(capacity) {
        let m = rows.len();
        let bytes: Vec<u8> = rows
            .iter()
            .flat_map(|&(t, _)| (t as u64).to_ne_bytes())
            .collect();
        numbers.view_mut().elements(0..bytes.len())?.write(&bytes)?;
        let chunk = Chunk {
            rows,
            numbers: numbers.view(),
            tokens,
        };
        device.gather(chunk, x, gathered.view_mut(), hidden)?;
        let shape = Shape {
            tokens: m,
            hidden,
            vocabulary,
            stride,
        };
        if let Some(adapter) = &mut adapter {
            adapter.forward(device, chunk, gathered.view(), logits.view_mut(), shape)?;
        }
        let start = match adapter {
            Some(_) => Start::Result,
            None => Start::Zero,
        };
        let product = Args {
            alpha: logit_scale,
            start,
            ..Args::new(
                Matrix::rows(gathered.view(), hidden),
                weight.transposed(),
                MatrixMut::rows(logits.view_mut(), stride),
                (m, vocabulary, hidden),
            )
        };
        device.product(product.checked()?)?;
        device.cross_entropy(Losses {
            chunk,
            logits: logits.view_mut(),
            stride,
            vocabulary,
            targets,
            softcap,
            weights: gradient.as_ref().map(|gradient| gradient.weights),
            losses: losses.reborrow(),
            dtype,
        })?;
        let Some(gradient) = &mut gradient else {
            continue;
        };
        let elements = logits.view().reinterpreted(dtype)?;
        let stride = stride * size_of::<f32>() / dtype.size();
        let dlogits = Matrix::rows(elements, stride);
        if let Some(dweight) = &mut gradient.dweight {
            for (at, classes) in runs(gradient.rows, vocabulary) {
                let of_classes = elements.elements(classes.start..elements.len())?;
                let dweight = dweight.reborrow().rows(at..at + classes.len())?;
                let product = Args {
                    alpha: logit_scale,
                    start: Start::Result,
                    ..Args::new(
                        Matrix::rows(of_classes, stride).transposed(),
                        Matrix::rows(gathered.view(), hidden),
                        MatrixMut::rows(dweight, hidden),
                        (classes.len(), hidden, m),
                    )
                };
                device.product(product.checked()?)?;
            }
        }
        if let Some(adapter) = &mut adapter {
            let shape = Shape { stride, ..shape };
            let dlora = gradient.dlora.as_mut();
            adapter.backward(device, elements, gathered.view_mut(), dlora, shape)?;
        }
        let product = Args {
            alpha: logit_scale,
            start,
            ..Args::new(
                dlogits,
                weight,
                MatrixMut::rows(gathered.view_mut(), hidden),
                (m, hidden, vocabulary),
            )
        };
        device.product(product.checked()?)?;
        device.scatter(chunk, gathered.view(), gradient.dx.reborrow(), hidden)?;
    }
    Ok(())
}
