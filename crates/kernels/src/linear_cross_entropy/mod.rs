//! Output projection and cross-entropy in one operation, without tokens × vocabulary in memory.

mod chunks;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;
mod lora;
#[cfg(test)]
mod lora_tests;
#[cfg(test)]
mod rows_tests;
#[cfg(test)]
mod tests;

pub use cpu::work_bytes;

use crate::{
    Check, Checked, KernelError,
    check::Operands,
    product::{Dropout, check_dropout},
};
use chunks::{Gradient, run};
#[cfg(feature = "cuda")]
use tightrope_device::Cuda;
use tightrope_device::{Cpu, DType, Device, View, ViewMut};

/// Adapter of the projection.
#[derive(Debug)]
pub struct Lora<'a, D: Device> {
    /// f32 `[rank, hidden]`.
    pub a: View<'a, D>,
    /// f32 `[vocabulary, rank]`.
    pub b: View<'a, D>,
    /// α/r, or α/√r (rsLoRA).
    pub scale: f32,
    /// Dropout before `A`.
    pub dropout: Option<Dropout<'a, D>>,
}

/// Gradients of an adapter's factors.
#[derive(Debug)]
pub struct LoraGradient<'a, D: Device> {
    /// Added into, f32 `[rank, hidden]`.
    pub da: ViewMut<'a, D>,
    /// Added into, f32 `[vocabulary, rank]`.
    pub db: ViewMut<'a, D>,
}

/// With `z = logit_scale · (x·Wᵀ + scale · (dropout(x)·Aᵀ)·Bᵀ)` and `l = softcap · tanh(z / softcap)` (`l = z` without softcap):
/// `losses[t] = logsumexp(l[t,:]) − l[t, targets[t]]`, and 0 where the target is negative: minus the
/// log-probability of the target.
#[derive(Debug)]
pub struct Forward<'a, D: Device> {
    /// `[tokens, hidden]`.
    pub x: View<'a, D>,
    /// `[vocabulary, hidden]`; f32, bf16 or f16.
    pub weight: View<'a, D>,
    /// The adapter.
    pub lora: Option<Lora<'a, D>>,
    /// i32 `[tokens]`; a negative target is ignored, and its row is never computed.
    pub targets: View<'a, D>,
    /// Factor before the softcap; 1 for most models.
    pub logit_scale: f32,
    /// Softcap of the logits (Gemma 2: 30).
    pub softcap: Option<f32>,
    /// Overwritten, f32 `[tokens]`.
    pub losses: ViewMut<'a, D>,
    /// Number of rows.
    pub tokens: usize,
    /// Number of features.
    pub hidden: usize,
    /// Number of classes.
    pub vocabulary: usize,
}

/// The losses and the gradients of `Σ_t weights[t] · losses[t]`, which are computed from the same
/// logits.
#[derive(Debug)]
pub struct ForwardBackward<'a, D: Device> {
    /// Arguments of the loss alone.
    pub forward: Forward<'a, D>,
    /// f32 `[tokens]`: for cross-entropy 1 / (trained tokens of the whole optimizer step). Weights
    /// of rows without target have no effect.
    pub weights: View<'a, D>,
    /// Overwritten, `[tokens, hidden]`; zero in rows without target.
    pub dx: ViewMut<'a, D>,
    /// Added into, f32 `[vocabulary, hidden]`, or `[rows, hidden]` with `rows`; `None` when the
    /// projection is frozen.
    pub dweight: Option<ViewMut<'a, D>>,
    /// Rows of the weight whose gradients `dweight` has, in this order; `None`: all of them.
    pub rows: Option<&'a [usize]>,
    /// Gradients of the adapter; `None` when it is frozen.
    pub dlora: Option<LoraGradient<'a, D>>,
}

/// Output projection and cross-entropy. Accumulation is f32; `x` and `dx` are both f32 or both
/// bf16. Targets outside the vocabulary give [`KernelError::Index`].
///
/// A chunk of `r` rows is computed at a time; `r` depends on the vocabulary, and on the CPU also on
/// the number of rows. `dweight` and the gradients of an adapter are summed chunk by chunk. With an
/// adapter, working memory also holds two times `r · rank` f32, and `r · hidden` f32 for the
/// gradient with dropout; the smaller contribution, through `A`, is written first.
///
/// On the CPU, working memory holds the logits and the rows of `x` of a chunk, at most `r ·
/// (vocabulary + hidden)` f32, and the packed operands of the matrix product. A chunk has at most
/// 96 MiB of logits or 128 rows (134 MB at 262,144 classes), and never more than 1,024 rows.
///
/// On GPUs, working memory holds 256 MiB of logits in f32, but at least 256 and at most 4,096 rows
/// (268 MB at 262,144 classes), `r` rows of `x`, and a copy of a weight that has another type than
/// `x`. The gradients of the logits, weights included, are rounded to the type of `x` before they
/// are multiplied. Each call blocks once, to read the targets: their number decides how much is
/// computed. The bits of a loss and of a row of `dx` depend on that row alone; on GPUs this holds
/// under the condition that [`Cuda::matmul`](tightrope_device::Cuda::matmul) states.
pub trait LinearCrossEntropy: Device {
    /// Writes `losses`.
    fn linear_cross_entropy_forward(
        &self,
        args: Checked<Forward<'_, Self>>,
    ) -> Result<(), KernelError>;
    /// Writes `losses` and `dx`; adds into `dweight`.
    fn linear_cross_entropy_forward_backward(
        &self,
        args: Checked<ForwardBackward<'_, Self>>,
    ) -> Result<(), KernelError>;
}

macro_rules! over_chunks {
    ($device:ty) => {
        impl LinearCrossEntropy for $device {
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
                    rows,
                    dlora,
                } = args.on(self)?;
                let gradient = Gradient {
                    weights,
                    dx,
                    dweight,
                    rows,
                    dlora,
                };
                run(self, forward, Some(gradient))
            }
        }
    };
}

over_chunks!(Cpu);
#[cfg(feature = "cuda")]
over_chunks!(Cuda);

/// Returns the rows that have a target, with the target.
fn rows_with_target(
    targets: &[i32],
    vocabulary: usize,
) -> Result<Vec<(usize, usize)>, KernelError> {
    let mut rows = Vec::new();
    for (t, &target) in targets.iter().enumerate() {
        let Ok(class) = usize::try_from(target) else {
            continue;
        };
        if class >= vocabulary {
            return Err(KernelError::Index {
                operand: "targets",
                index: t,
                value: i64::from(target),
                bound: vocabulary,
            });
        }
        rows.push((t, class));
    }
    Ok(rows)
}

impl<D: Device> Check for Forward<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let dtype = operands.activation("x", self.x)?;
        operands.at_least("x", self.x, dtype, &[self.tokens, self.hidden])?;
        operands.weight("weight", self.weight, &[self.vocabulary, self.hidden])?;
        if let Some(lora) = &self.lora {
            let rank = lora.a.shape().first().copied().unwrap_or(0);
            operands.exact("a", lora.a, &[rank, self.hidden])?;
            operands.exact("b", lora.b, &[self.vocabulary, rank])?;
            check_dropout(operands, &lora.dropout, self.tokens)?;
        }
        if i32::try_from(self.vocabulary).is_err() {
            return Err(KernelError::Value {
                operand: "vocabulary",
                value: self.vocabulary as f64,
                rule: "classes are counted in 32 bits, like targets",
            });
        }
        operands.at_least("targets", self.targets, DType::I32, &[self.tokens])?;
        if let Some(softcap) = self.softcap
            && (softcap.is_nan() || softcap <= 0.0)
        {
            return Err(KernelError::Value {
                operand: "softcap",
                value: f64::from(softcap),
                rule: "must be positive",
            });
        }
        operands.at_least("losses", self.losses.as_view(), DType::F32, &[self.tokens])
    }
}

impl<D: Device> Check for ForwardBackward<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        let forward = &self.forward;
        forward.check_operands(operands)?;
        let dtype = forward.x.dtype();
        operands.at_least("weights", self.weights, DType::F32, &[forward.tokens])?;
        operands.at_least(
            "dx",
            self.dx.as_view(),
            dtype,
            &[forward.tokens, forward.hidden],
        )?;
        if let Some(&row) = self.rows.iter().flat_map(|rows| rows.iter()).max()
            && row >= forward.vocabulary
        {
            return Err(KernelError::Value {
                operand: "rows",
                value: row as f64,
                rule: "must be below the vocabulary",
            });
        }
        if let Some(LoraGradient { da, db }) = &self.dlora {
            let rank = forward.lora.as_ref().map(|lora| lora.a.shape()[0]);
            let rank = rank.unwrap_or(0);
            operands.exact("da", da.as_view(), &[rank, forward.hidden])?;
            operands.exact("db", db.as_view(), &[forward.vocabulary, rank])?;
        }
        let rows = self.rows.map_or(forward.vocabulary, <[usize]>::len);
        match &self.dweight {
            Some(dweight) => operands.exact("dweight", dweight.as_view(), &[rows, forward.hidden]),
            None => Ok(()),
        }
    }
}
