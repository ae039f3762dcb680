//! Output projection and cross-entropy on the CPU: a chunk of rows at a time.

use super::{Forward, ForwardBackward, LinearCrossEntropy, rows_with_target};
use crate::{
    Checked, KernelError,
    cpu::{
        math::{self, LANES, exp, sum_lanes},
        matmul::{Base, Matrix, Operand, Output, Term, Weight, product},
        scratch::Scratch,
    },
};
use rayon::prelude::*;
use tightrope_device::{Cpu, vectorize};

/// Largest size in bytes of the logits of a chunk, unless [`MIN_ROWS`] rows need more.
const CHUNK_BYTES: usize = 96 << 20;
/// With fewer rows the weight would be read too often for the amount of arithmetic.
const MIN_ROWS: usize = 128;
/// More rows would gain nothing.
const MAX_ROWS: usize = 1024;
/// Classes whose exponentials are summed in f32.
const BLOCK: usize = 4096;

impl LinearCrossEntropy for Cpu {
    fn linear_cross_entropy_forward(
        &self,
        args: Checked<Forward<'_, Self>>,
    ) -> Result<(), KernelError> {
        run(self, args.on(self)?, None)
    }

    fn linear_cross_entropy_forward_backward(
        &self,
        args: Checked<ForwardBackward<'_, Self>>,
    ) -> Result<(), KernelError> {
        let ForwardBackward {
            forward,
            weights,
            dx,
            dweight,
        } = args.on(self)?;
        let dweight = match dweight {
            Some(dweight) => Some(dweight.into_slice::<f32>()?),
            None => None,
        };
        let gradient = Gradient {
            weights: weights.as_slice::<f32>()?,
            dx: dx.into_slice::<f32>()?,
            dweight,
        };
        run(self, forward, Some(gradient))
    }
}

/// Output of the backward half.
struct Gradient<'a> {
    weights: &'a [f32],
    dx: &'a mut [f32],
    dweight: Option<&'a mut [f32]>,
}

/// Number of rows in a chunk: as few chunks as possible, of nearly equal size, so that no chunk
/// reads the weight for a few rows. It depends on the sizes alone, and so does the order in which
/// `dweight` is summed.
fn chunk_rows(rows: usize, vocabulary: usize) -> usize {
    let most = (CHUNK_BYTES / (size_of::<f32>() * vocabulary.max(1))).clamp(MIN_ROWS, MAX_ROWS);
    rows.div_ceil(rows.div_ceil(most).max(1))
}

fn run(
    cpu: &Cpu,
    forward: Forward<'_, Cpu>,
    mut gradient: Option<Gradient<'_>>,
) -> Result<(), KernelError> {
    let Forward {
        x,
        weight,
        targets,
        logit_scale,
        softcap,
        losses,
        tokens,
        hidden,
        vocabulary,
    } = forward;
    let rows = rows_with_target(&targets.as_slice::<i32>()?[..tokens], vocabulary)?;
    let x = x.as_slice::<f32>()?;
    let weight = Weight::new("weight", weight, hidden)?;
    let losses = losses.into_slice::<f32>()?;
    losses[..tokens].fill(0.0);
    if let Some(gradient) = &mut gradient {
        gradient.dx[..tokens * hidden].fill(0.0);
    }

    let capacity = chunk_rows(rows.len(), vocabulary);
    let mut logits = Scratch::take(cpu, capacity * vocabulary)?;
    let mut gathered = Scratch::take(cpu, capacity * hidden)?;
    let mut row_losses = Scratch::take(cpu, capacity)?;
    for chunk in rows.chunks(capacity.max(1)) {
        let logits = &mut logits[..chunk.len() * vocabulary];
        let gathered = &mut gathered[..chunk.len() * hidden];
        for (row, &(t, _)) in gathered.chunks_exact_mut(hidden.max(1)).zip(chunk) {
            row.copy_from_slice(&x[t * hidden..][..hidden]);
        }
        let term = Term {
            a: Operand::Rows(&Matrix::new(gathered, hidden)),
            b: Operand::Rows(weight.rows()),
            k: hidden,
            alpha: logit_scale,
            gate: None,
        };
        let output = Output::rows(logits, vocabulary);
        product(cpu, (chunk.len(), vocabulary), &[term], Base::Zero, output)?;

        let weights = gradient.as_ref().map(|gradient| gradient.weights);
        cpu.install(|| {
            logits
                .par_chunks_exact_mut(vocabulary)
                .zip(row_losses.par_iter_mut())
                .zip(chunk.par_iter())
                .for_each(|((logits, loss), &(t, target))| {
                    let factor = weights.map(|weights| weights[t] * logit_scale);
                    *loss = cross_entropy(logits, target, softcap, factor);
                });
        });
        for (&(t, _), &loss) in chunk.iter().zip(row_losses.iter()) {
            losses[t] = loss;
        }
        let Some(gradient) = &mut gradient else {
            continue;
        };
        let dlogits = Matrix::new(&*logits, vocabulary);
        if let Some(dweight) = &mut gradient.dweight {
            let term = Term {
                a: Operand::Columns(&dlogits),
                b: Operand::Columns(&Matrix::new(gathered, hidden)),
                k: chunk.len(),
                alpha: 1.0,
                gate: None,
            };
            let output = Output::rows(dweight, hidden);
            product(cpu, (vocabulary, hidden), &[term], Base::Output, output)?;
        }
        let term = Term {
            a: Operand::Rows(&dlogits),
            b: Operand::Columns(weight.rows()),
            k: vocabulary,
            alpha: 1.0,
            gate: None,
        };
        let output = Output::rows(gathered, hidden);
        product(cpu, (chunk.len(), hidden), &[term], Base::Zero, output)?;
        for (row, &(t, _)) in gathered.chunks_exact(hidden.max(1)).zip(chunk) {
            gradient.dx[t * hidden..][..hidden].copy_from_slice(row);
        }
    }
    Ok(())
}

/// Returns the loss of one row; with `factor`, turns its scaled products `z` into
/// `factor · dloss/dz`.
///
/// With `m` the largest logit, `e = exp(l[target] − m)` and `s` the sum of `exp(l − m)` over the
/// other classes: `loss = m − l[target] + ln(e + s)`, and the derivative for the target is
/// `−s / (e + s)`, which stays accurate where `p − 1` would cancel.
fn cross_entropy(
    logits: &mut [f32],
    target: usize,
    softcap: Option<f32>,
    factor: Option<f32>,
) -> f32 {
    if let Some(cap) = softcap {
        math::softcap(logits, cap);
    }
    let largest = math::row_max(logits);
    let at_target = logits[target];
    // This spares the sum over the other classes a branch.
    logits[target] = f32::NEG_INFINITY;
    // The sum is f32 within a block and f64 over the blocks.
    let others: f64 = match softcap {
        None => logits
            .chunks_mut(BLOCK)
            .map(|block| f64::from(math::exp_sum(block, largest)))
            .sum(),
        // The slope of the softcap needs the logits again.
        Some(_) => logits
            .chunks(BLOCK)
            .map(|block| f64::from(exp_total(block, largest)))
            .sum(),
    };
    let distance = f64::from(largest) - f64::from(at_target);
    let own = (-distance).exp();
    let total = own + others;
    // If the target has the largest logit, `own` is 1, and a small loss keeps all its digits.
    let loss = if distance == 0.0 {
        others.ln_1p()
    } else {
        distance + total.ln()
    };
    if let Some(factor) = factor {
        let scale = (f64::from(factor) / total) as f32;
        let at_target_slope = match softcap {
            None => {
                scale_row(logits, scale);
                1.0
            }
            Some(cap) => {
                capped_gradient(logits, largest, scale, 1.0 / cap);
                1.0 - (at_target / cap).powi(2)
            }
        };
        logits[target] = (-f64::from(factor) * others / total) as f32 * at_target_slope;
    }
    loss as f32
}

vectorize! {
    /// `Σ exp(row − max)`.
    fn exp_total(row: &[f32], max: f32) -> f32 {
        let mut lanes = [0f32; LANES];
        let (chunks, rest) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                lanes[lane] += exp(chunk[lane] - max);
            }
        }
        for (lane, value) in lanes.iter_mut().zip(rest) {
            *lane += exp(value - max);
        }
        sum_lanes(lanes)
    }

    /// `row *= scale`.
    fn scale_row(row: &mut [f32], scale: f32) {
        for value in row {
            *value *= scale;
        }
    }

    /// `row = exp(row − max) · scale · (1 − (row / softcap)²)`.
    fn capped_gradient(row: &mut [f32], max: f32, scale: f32, inverse_softcap: f32) {
        for value in row {
            let t = *value * inverse_softcap;
            *value = exp(*value - max) * scale * (1.0 - t * t);
        }
    }
}
