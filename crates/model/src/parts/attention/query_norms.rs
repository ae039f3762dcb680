//! Norms of queries and keys, and the rotation behind them.

use super::{Attention, Saved, Work};
use crate::{
    ModelError, QueryNorms,
    parameter::{ParameterKind, Replaceable},
    parts::with_buffer,
    pass::Pass,
    plan::Allocate,
    weights,
};
use tightrope_device::Tensor;
use tightrope_kernels::{
    Check, Kernels,
    qk_norm_rope::{self, HeadsBackward, HeadsForward},
    rms_norm,
    rope::Direction,
};

/// Name of the part in messages of [`with_buffer`].
const QUERY_NORMS: &str = "the norms of queries and keys";

/// Norms of queries and keys: f32 `[head_dim]` for each head, or `[heads · head_dim]` and
/// `[kv_heads · head_dim]` for all of a token.
#[derive(Debug)]
pub(super) struct Norms<T> {
    pub(super) q: Replaceable<T>,
    pub(super) k: Replaceable<T>,
}

impl<T> Norms<T> {
    /// Lays out the norms of the layer called `layer` in files, if it has them.
    pub(super) fn lay_out<A: Allocate<Buffer = T>>(
        weights: &mut weights::Builder<'_, A>,
        layer: &str,
    ) -> Result<Option<Self>, ModelError> {
        let architecture = weights.architecture;
        let sizes = match architecture.query_norms {
            QueryNorms::None => None,
            QueryNorms::Heads => Some([architecture.head_dim; 2]),
            QueryNorms::Tokens => Some([architecture.q_features(), architecture.kv_features()]),
        };
        match sizes {
            Some([of_q, of_k]) => {
                let mut norm = |part: &str, size| {
                    let name = format!("{layer}.self_attn.{part}.weight");
                    weights.replaceable(name, ParameterKind::Norm, &[size])
                };
                Ok(Some(Norms {
                    q: norm("q_norm", of_q)?,
                    k: norm("k_norm", of_k)?,
                }))
            }
            None => Ok(None),
        }
    }
}

impl<D: Kernels> Attention<Tensor<D>> {
    /// Normalises and rotates `saved.q` and `saved.k` into `work.rotated` if they are normalised;
    /// returns whether they are.
    pub(super) fn normalise(
        &self,
        pass: &Pass<'_, D>,
        saved: &mut Saved<Tensor<D>>,
        work: &mut Work<Tensor<D>>,
    ) -> Result<bool, ModelError> {
        let architecture = pass.architecture;
        let buffers = saved.norm_rstd.as_mut().zip(work.rotated.as_mut());
        let norms = with_buffer(self.norms.as_ref(), buffers, QUERY_NORMS)?;
        let Some((norms, ((q_rstd, k_rstd), (q, k)))) = norms else {
            return Ok(false);
        };
        let (of_q, of_k) = (norms.q.of(pass.adapters), norms.k.of(pass.adapters));
        if architecture.query_norms == QueryNorms::Tokens {
            let sides = [
                (&saved.q, of_q, &mut *q, q_rstd, architecture.q_features()),
                (&saved.k, of_k, &mut *k, k_rstd, architecture.kv_features()),
            ];
            for (x, weight, y, rstd, dim) in sides {
                let forward = rms_norm::Forward {
                    x: x.view(),
                    residual: None,
                    weight: weight.value.view(),
                    plus_one: architecture.norm_plus_one,
                    eps: architecture.norm_eps,
                    y: y.view_mut(),
                    rstd: rstd.view_mut(),
                    rows: pass.tokens,
                    dim,
                };
                pass.device.rms_norm_forward(forward.checked()?)?;
            }
            self.rotate(pass, q, k, Direction::Forward)?;
            return Ok(true);
        }
        let angles = &pass.angles[self.rope];
        let forward = qk_norm_rope::Forward {
            q: HeadsForward {
                x: saved.q.view(),
                weight: of_q.value.view(),
                y: q.view_mut(),
                rstd: q_rstd.view_mut(),
                heads: architecture.heads,
            },
            k: HeadsForward {
                x: saved.k.view(),
                weight: of_k.value.view(),
                y: k.view_mut(),
                rstd: k_rstd.view_mut(),
                heads: architecture.kv_heads,
            },
            plus_one: architecture.norm_plus_one,
            eps: architecture.norm_eps,
            cos: angles.cos.view(),
            sin: angles.sin.view(),
            tokens: pass.tokens,
            head_dim: architecture.head_dim,
            rotary_dim: self.rotary_dim,
        };
        pass.device.qk_norm_rope_forward(forward.checked()?)?;
        Ok(true)
    }

    /// The gradients of the projections from those of the inputs of attention, which are
    /// overwritten.
    pub(super) fn rotate_back<'a>(
        &mut self,
        pass: &Pass<'_, D>,
        saved: &Saved<Tensor<D>>,
        work: &'a mut Work<Tensor<D>>,
        (dq, dk): (&'a mut Tensor<D>, &'a mut Tensor<D>),
    ) -> Result<(&'a Tensor<D>, &'a Tensor<D>), ModelError> {
        let architecture = pass.architecture;
        let whole = architecture.query_norms == QueryNorms::Tokens;
        if whole || self.norms.is_none() {
            self.rotate(pass, dq, dk, Direction::Backward)?;
        }
        let norms = self.norms.as_mut();
        let Some((norms, (q_rstd, k_rstd))) =
            with_buffer(norms, saved.norm_rstd.as_ref(), QUERY_NORMS)?
        else {
            return Ok((dq, dk));
        };
        let (of_q, of_k) = (norms.q.trained_mut(), norms.k.trained_mut());
        if whole {
            // The normalised queries and keys are no longer needed.
            let (q, k) = work
                .rotated
                .as_mut()
                .ok_or(ModelError::NoBuffer(QUERY_NORMS))?;
            let sides = [
                (
                    &*dq,
                    &saved.q,
                    of_q,
                    q_rstd,
                    &mut *q,
                    architecture.q_features(),
                ),
                (
                    &*dk,
                    &saved.k,
                    of_k,
                    k_rstd,
                    &mut *k,
                    architecture.kv_features(),
                ),
            ];
            for (dy, x, scale, rstd, dx, dim) in sides {
                let backward = rms_norm::Backward {
                    dy: dy.view(),
                    x: x.view(),
                    rstd: rstd.view(),
                    weight: scale.value.view(),
                    plus_one: architecture.norm_plus_one,
                    dx: dx.view_mut(),
                    accumulate: false,
                    dweight: scale.gradient.as_mut().map(Tensor::view_mut),
                    rows: pass.tokens,
                    dim,
                };
                pass.device.rms_norm_backward(backward.checked()?)?;
            }
            return Ok((q, k));
        }
        let angles = &pass.angles[self.rope];
        let normed = qk_norm_rope::Backward {
            q: HeadsBackward {
                dx: dq.view_mut(),
                x: saved.q.view(),
                rstd: q_rstd.view(),
                weight: of_q.value.view(),
                dweight: of_q.gradient.as_mut().map(Tensor::view_mut),
                heads: architecture.heads,
            },
            k: HeadsBackward {
                dx: dk.view_mut(),
                x: saved.k.view(),
                rstd: k_rstd.view(),
                weight: of_k.value.view(),
                dweight: of_k.gradient.as_mut().map(Tensor::view_mut),
                heads: architecture.kv_heads,
            },
            plus_one: architecture.norm_plus_one,
            cos: angles.cos.view(),
            sin: angles.sin.view(),
            tokens: pass.tokens,
            head_dim: architecture.head_dim,
            rotary_dim: self.rotary_dim,
        };
        pass.device.qk_norm_rope_backward(normed.checked()?)?;
        Ok((dq, dk))
    }
}
