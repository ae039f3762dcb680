//! Estimates the time of a run on the processor, and what its losses take of memory.

use crate::{Config, TrainError, config::PrecisionChoice};
use std::time::{Duration, Instant};
use tightrope_device::{Cpu, DType, Tensor};
use tightrope_kernels::{
    Check,
    linear_cross_entropy::work_bytes,
    product::{Args, Matrix, MatrixMut, Product as _},
};
use tightrope_model::{Architecture, HeadKind};

/// How long the processor is measured.
const PROBE: Duration = Duration::from_millis(500);
/// Share of the rate of a single product that whole steps reach in f32 and in bf16, whose products
/// are faster: the rest is attention's softmax, norms, activations and losses.
const SHARES: [f64; 2] = [0.75, 0.6];
/// Bytes of weights, gradients and state that an update reads and writes in a second, on two cores.
const UPDATE_BYTES_PER_SECOND: f64 = 8e9;

/// Work of an epoch.
#[derive(Clone, Copy, Debug)]
pub struct Epoch {
    /// Real tokens.
    pub tokens: f64,
    /// Packs or rows.
    pub packs: f64,
    /// Updates.
    pub steps: f64,
    /// Size in bytes of the weights, gradients and state that an update reads and writes.
    pub update_bytes: f64,
}

impl Epoch {
    /// Seconds on the processor, for products of `rate` operations in a second ([`product_rates`]).
    pub fn seconds(&self, model: &Architecture, config: &Config, rate: f64) -> f64 {
        let length = self.tokens / self.packs.max(1.0);
        let work = operations(model, config, length) * self.tokens;
        let updates = self.steps * 2.0 * self.update_bytes / UPDATE_BYTES_PER_SECOND;
        let share = SHARES[usize::from(config.precision == PrecisionChoice::Bf16)];
        work / (rate * share) + updates
    }
}

/// Working memory in bytes of the losses on the processor: a chunk of logits.
pub fn head_bytes(model: &Architecture, capacity: usize) -> u64 {
    match model.head {
        HeadKind::Tokens => work_bytes(capacity, model.vocabulary, model.hidden) as u64,
        HeadKind::Score => 0,
    }
}

/// Operations of the products for a token, forward and backward, in documents that fill packs of
/// `length` tokens.
fn operations(model: &Architecture, config: &Config, length: f64) -> f64 {
    let of = |size: usize| size as f64;
    let (hidden, heads) = (of(model.hidden), of(model.heads * model.head_dim));
    let keys = of(model.kv_heads * model.head_dim);
    let layers = of(model.windows.len());
    let block = hidden * (2.0 * heads + 2.0 * keys + 3.0 * of(model.intermediate));
    let head = match model.head {
        HeadKind::Tokens => of(model.vocabulary) * hidden,
        HeadKind::Score => hidden,
    };
    // Each query sees half of the pack at most.
    let attention = layers * 2.0 * heads * length / 2.0;
    let rank = config.lora.as_ref().map(|lora| of(lora.r));
    let adapter = rank.map_or(0.0, |rank| {
        rank * (6.0 * hidden + 2.0 * heads + 2.0 * keys + 4.0 * of(model.intermediate))
    });
    // Forward, inputs backward, and weights backward where they are trained.
    let passes = 2.0 + f64::from(rank.is_none()) + f64::from(config.run.recompute);
    let trained = passes * layers * block + (2.0 + f64::from(rank.is_none())) * head;
    let attention = (1.0 + 2.5 + f64::from(config.run.recompute)) * attention;
    2.0 * (trained + attention + 3.0 * layers * adapter)
}

/// Operations in a second of products in f32 and in bf16 of the size of the model's feed-forward, the
/// best of those of half a second. They take turns, so that other programs slow both alike.
///
/// # Errors
/// If the device has no memory.
pub fn product_rates(cpu: &Cpu, model: &Architecture) -> Result<[f64; 2], TrainError> {
    let (m, n, k) = (512, model.intermediate.min(4096), model.hidden.min(4096));
    let operands = |dtype: DType| -> Result<[Tensor<Cpu>; 3], TrainError> {
        let mut a = Tensor::zeros(cpu, dtype, &[m, k])?;
        let mut b = Tensor::zeros(cpu, dtype, &[k, n])?;
        let c = Tensor::zeros(cpu, dtype, &[m, n])?;
        for operand in [&mut a, &mut b] {
            // A half in bf16 and in f32, little-endian: 0x3f00 and 0x3f000000.
            let half = [0, 0, 0, 0x3f];
            let bytes = half[4 - dtype.size()..].repeat(operand.len());
            operand.view_mut().write_bytes(&bytes)?;
        }
        Ok([a, b, c])
    };
    let mut all = [operands(DType::F32)?, operands(DType::BF16)?];
    let mut best = [f64::INFINITY; 2];
    let begun = Instant::now();
    while begun.elapsed() < PROBE {
        for ([a, b, c], best) in all.iter_mut().zip(&mut best) {
            let args = Args::new(
                Matrix::rows(a.view(), k),
                Matrix::rows(b.view(), n),
                MatrixMut::rows(c.view_mut(), n),
                (m, n, k),
            );
            let start = Instant::now();
            cpu.product(args.checked()?)?;
            *best = best.min(start.elapsed().as_secs_f64());
        }
    }
    Ok(best.map(|seconds| 2.0 * (m * n * k) as f64 / seconds))
}
