//! The steps between the products of the output projection on the CPU.

use super::chunks::{Chunk, Losses, Steps};
use crate::{
    KernelError,
    cpu::{
        float,
        math::{self, LANES, exp, sum_lanes},
        scratch::Scratch,
    },
};
use half::bf16;
use rayon::prelude::*;
use tightrope_device::{Cpu, DType, View, ViewMut, vectorize};

/// Largest size in bytes of the logits of a chunk, unless [`MIN_ROWS`] rows need more.
const CHUNK_BYTES: usize = 96 << 20;
/// With fewer rows the weight would be read too often for the amount of arithmetic.
const MIN_ROWS: usize = 128;
/// More rows would gain nothing.
const MAX_ROWS: usize = 1024;
/// Classes whose exponentials are summed in f32.
const BLOCK: usize = 4096;

fn chunk_rows(rows: usize, vocabulary: usize) -> usize {
    let most = (CHUNK_BYTES / (size_of::<f32>() * vocabulary.max(1))).clamp(MIN_ROWS, MAX_ROWS);
    rows.div_ceil(rows.div_ceil(most).max(1))
}

/// Working memory in bytes that the CPU takes for `rows` rows with a target: the logits of a chunk,
/// and its rows of `x` and of their gradient.
pub fn work_bytes(rows: usize, vocabulary: usize, hidden: usize) -> usize {
    let floats = vocabulary
        .saturating_add(hidden)
        .saturating_mul(chunk_rows(rows, vocabulary));
    floats.saturating_mul(size_of::<f32>())
}

impl Steps for Cpu {
    /// As few chunks as possible, of nearly equal size, so that no chunk reads the weight for a few
    /// rows. The number depends on the sizes alone, and so does the order in which `dweight` is
    /// summed.
    fn chunk_rows(&self, rows: usize, vocabulary: usize) -> usize {
        chunk_rows(rows, vocabulary)
    }

    fn stride(vocabulary: usize) -> usize {
        vocabulary
    }

    fn gather(
        &self,
        chunk: Chunk<'_, Self>,
        x: View<'_, Self>,
        rows: ViewMut<'_, Self>,
        hidden: usize,
    ) -> Result<(), KernelError> {
        let row = hidden * x.dtype().size();
        let (x, rows) = (x.as_bytes(), rows.into_bytes());
        for (to, &(t, _)) in rows.chunks_exact_mut(row.max(1)).zip(chunk.rows) {
            to.copy_from_slice(&x[t * row..][..row]);
        }
        Ok(())
    }

    fn scatter(
        &self,
        chunk: Chunk<'_, Self>,
        rows: View<'_, Self>,
        x: ViewMut<'_, Self>,
        hidden: usize,
    ) -> Result<(), KernelError> {
        let row = hidden * x.dtype().size();
        let (x, rows) = (x.into_bytes(), rows.as_bytes());
        for (from, &(t, _)) in rows.chunks_exact(row.max(1)).zip(chunk.rows) {
            x[t * row..][..row].copy_from_slice(from);
        }
        Ok(())
    }

    fn cross_entropy(&self, args: Losses<'_, Self>) -> Result<(), KernelError> {
        let rows = args.chunk.rows;
        let weights = args.weights.map(|weights| weights.as_slice::<f32>());
        let weights = weights.transpose()?;
        let logits = args.logits.into_slice::<f32>()?;
        let losses = args.losses.into_slice::<f32>()?;
        let mut row_losses = Scratch::take(self, rows.len())?;
        self.install(|| {
            logits
                .par_chunks_exact_mut(args.vocabulary)
                .zip(row_losses.par_iter_mut())
                .zip(rows.par_iter())
                .for_each(|((logits, loss), &(t, target))| {
                    let weight = weights.map(|weights| weights[t]);
                    *loss = cross_entropy(logits, target, args.softcap, weight);
                    if weight.is_some() && args.dtype == DType::BF16 {
                        round_in_place(logits);
                    }
                });
        });
        for (&(t, _), &loss) in rows.iter().zip(row_losses.iter()) {
            losses[t] = loss;
        }
        Ok(())
    }
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

/// Rounds a row to bf16, in the first half of its memory.
fn round_in_place(row: &mut [f32]) {
    const TOGETHER: usize = 64;
    let len = row.len();
    let halves: &mut [bf16] = bytemuck::cast_slice_mut(row);
    let mut values = [0f32; TOGETHER];
    for start in (0..len).step_by(TOGETHER) {
        // What is written lies at the place of numbers that have been read.
        let count = TOGETHER.min(len - start);
        let values = &mut values[..count];
        let from = &halves[2 * start..2 * (start + count)];
        bytemuck::cast_slice_mut::<f32, bf16>(values).copy_from_slice(from);
        float::round(&mut halves[start..start + count], values);
    }
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
