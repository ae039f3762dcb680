//! Self-attention: projections, norms of queries and keys, rotation (in one pass with the norms of
//! heads), attention, output projection.

use super::{Held, HeldMut, Linear, linear, with_buffer};
use crate::{
    ModelError, QueryNorms, activations,
    cache::LayerCache,
    parameter::{ParameterKind, Replaceable},
    pass::Pass,
    plan::Allocate,
    weights,
};
use tightrope_device::{DType, Device, Tensor};
use tightrope_kernels::{
    Check, Kernels, attention,
    qk_norm_rope::{self, HeadsBackward, HeadsForward},
    rms_norm,
    rope::{Direction, Heads, Pairing, Rotate},
};

/// Name of the part in messages of [`with_buffer`].
const QUERY_NORMS: &str = "the norms of queries and keys";

/// Weights, and settings that differ between layers.
#[derive(Debug)]
pub(crate) struct Attention<T> {
    pub q: Linear<T>,
    pub k: Linear<T>,
    pub v: Linear<T>,
    pub o: Linear<T>,
    /// Present if queries and keys are normalised.
    norms: Option<Norms<T>>,
    /// Largest number of keys that a query sees, its own included; `None` = all.
    window: Option<usize>,
    /// Number of features of a head that rotate.
    rotary_dim: usize,
    /// Index of its frequencies.
    rope: usize,
}

/// Norms of queries and keys: f32 `[head_dim]` for each head, or `[heads · head_dim]` and
/// `[kv_heads · head_dim]` for all of a token.
#[derive(Debug)]
struct Norms<T> {
    q: Replaceable<T>,
    k: Replaceable<T>,
}

/// Values that the backward pass needs from the forward pass.
#[derive(Debug)]
pub(crate) struct Saved<T> {
    /// `[tokens, heads · head_dim]`: rotated, or as projected if they are normalised.
    q: T,
    /// `[tokens, kv_heads · head_dim]`: rotated, or as projected if they are normalised.
    k: T,
    /// `[tokens, kv_heads · head_dim]`.
    v: T,
    /// Statistics of the norms of queries and keys: f32 `[tokens, heads]` and `[tokens, kv_heads]`,
    /// or `[tokens, 1]`.
    norm_rstd: Option<(T, T)>,
    /// Output of attention, `[tokens, heads · head_dim]`.
    attended: T,
    /// f32 `[tokens, heads]`.
    lse: T,
    of_q: linear::Saved<T>,
    of_k: linear::Saved<T>,
    of_v: linear::Saved<T>,
    of_o: linear::Saved<T>,
}

/// Work space of both passes.
#[derive(Debug)]
pub(crate) struct Work<T> {
    /// Normalised and rotated queries and keys, if they are normalised.
    rotated: Option<(T, T)>,
}

/// Work space of the backward pass.
#[derive(Debug)]
pub(crate) struct BackwardWork<T> {
    /// `[tokens, heads · head_dim]`.
    dq: T,
    /// `[tokens, kv_heads · head_dim]`.
    dk: T,
    /// `[tokens, kv_heads · head_dim]`.
    dv: T,
    /// `[tokens, heads · head_dim]`.
    dattended: T,
    /// f32 `[tokens, heads]`.
    delta: T,
}

impl<T> Saved<T> {
    /// Lays out the buffers for the layers that share them.
    pub(crate) fn lay_out<W, A: Allocate<Buffer = T>>(
        step: &mut activations::Builder<'_, A>,
        at: &str,
        sharing: &[&Attention<W>],
    ) -> Result<Self, ModelError> {
        let architecture = step.architecture;
        let (queries, keys) = (architecture.q_features(), architecture.kv_features());
        let name = |part: &str| format!("{at}: {part}");
        Ok(Self {
            q: step.kept(name("queries"), queries)?,
            k: step.kept(name("keys"), keys)?,
            v: step.kept(name("values"), keys)?,
            norm_rstd: match architecture.query_norms {
                QueryNorms::None => None,
                norms => {
                    let each = norms == QueryNorms::Heads;
                    let [heads, kv_heads] = [architecture.heads, architecture.kv_heads]
                        .map(|heads| if each { heads } else { 1 });
                    let q = step.statistic(name("query norms"), heads)?;
                    Some((q, step.statistic(name("key norms"), kv_heads)?))
                }
            },
            attended: step.kept(name("attended"), queries)?,
            lse: step.statistic(name("log-sum-exp"), architecture.heads)?,
            of_q: linear::Saved::lay_out(step, at, sharing.iter().map(|part| &part.q))?,
            of_k: linear::Saved::lay_out(step, at, sharing.iter().map(|part| &part.k))?,
            of_v: linear::Saved::lay_out(step, at, sharing.iter().map(|part| &part.v))?,
            of_o: linear::Saved::lay_out(step, at, sharing.iter().map(|part| &part.o))?,
        })
    }
}

impl<T> Work<T> {
    pub(crate) fn lay_out<A: Allocate<Buffer = T>>(
        step: &mut activations::Builder<'_, A>,
    ) -> Result<Self, ModelError> {
        let architecture = step.architecture;
        let rotated = match architecture.query_norms {
            QueryNorms::None => None,
            QueryNorms::Heads | QueryNorms::Tokens => {
                let q = step.work("rotated queries", architecture.q_features())?;
                Some((q, step.work("rotated keys", architecture.kv_features())?))
            }
        };
        Ok(Self { rotated })
    }
}

impl<T> BackwardWork<T> {
    pub(crate) fn lay_out<A: Allocate<Buffer = T>>(
        step: &mut activations::Builder<'_, A>,
    ) -> Result<Self, ModelError> {
        let architecture = step.architecture;
        let (queries, keys) = (architecture.q_features(), architecture.kv_features());
        Ok(Self {
            dq: step.work("gradient of the queries", queries)?,
            dk: step.work("gradient of the keys", keys)?,
            dv: step.work("gradient of the values", keys)?,
            dattended: step.work("gradient of attended", queries)?,
            delta: step.fixed("delta of attention", DType::F32, architecture.heads)?,
        })
    }
}

/// Names of modules in a layer of Transformers and of GGUF files.
pub(super) const NAMES: [(&str, &str); 6] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
];

impl<T> Attention<T> {
    /// Lays out the attention of layer `index`, called `layer` in files.
    pub(crate) fn lay_out<A: Allocate<Buffer = T>>(
        weights: &mut weights::Builder<'_, A>,
        layer: &str,
        index: usize,
    ) -> Result<Self, ModelError> {
        let architecture = weights.architecture;
        let hidden = architecture.hidden;
        let (queries, keys) = (architecture.q_features(), architecture.kv_features());
        let name = |part: &str| format!("{layer}.self_attn.{part}");
        let sizes = match architecture.query_norms {
            QueryNorms::None => None,
            QueryNorms::Heads => Some([architecture.head_dim; 2]),
            QueryNorms::Tokens => Some([queries, keys]),
        };
        let norms = match sizes {
            Some([of_q, of_k]) => {
                let mut norm = |part: &str, size| {
                    let name = name(&format!("{part}.weight"));
                    weights.replaceable(name, ParameterKind::Norm, &[size])
                };
                Some(Norms {
                    q: norm("q_norm", of_q)?,
                    k: norm("k_norm", of_k)?,
                })
            }
            None => None,
        };
        let (qkv_bias, output_bias) = (architecture.qkv_bias, architecture.output_bias);
        let mut linear =
            |part: &str, sizes, bias| Linear::lay_out(weights, name(part), sizes, bias);
        Ok(Self {
            q: linear("q_proj", (hidden, queries), qkv_bias)?,
            k: linear("k_proj", (hidden, keys), qkv_bias)?,
            v: linear("v_proj", (hidden, keys), qkv_bias)?,
            o: linear("o_proj", (queries, hidden), output_bias)?
                .times(architecture.residual_scale)?,
            norms,
            window: architecture.windows[index],
            rope: architecture.rope_of(index),
            rotary_dim: match architecture.rotated[index] {
                true => architecture.rope.rotary_dim(),
                false => 0,
            },
        })
    }

    /// Linear layers of the part.
    pub(crate) fn linears(&self) -> [&Linear<T>; 4] {
        [&self.q, &self.k, &self.v, &self.o]
    }

    /// Linear layers of the part.
    pub(crate) fn linears_mut(&mut self) -> [&mut Linear<T>; 4] {
        [&mut self.q, &mut self.k, &mut self.v, &mut self.o]
    }

    pub(crate) fn held<'a>(&'a self, all: &mut Vec<Held<'a, T>>) {
        let norms = self.norms.iter();
        norms
            .flat_map(|norms| [&norms.q, &norms.k])
            .for_each(|norm| norm.held(all));
        self.linears()
            .into_iter()
            .for_each(|linear| linear.held(all));
    }

    pub(crate) fn held_mut<'a>(&'a mut self, all: &mut Vec<HeldMut<'a, T>>) {
        let norms = self.norms.iter_mut();
        norms
            .flat_map(|norms| [&mut norms.q, &mut norms.k])
            .for_each(|norm| norm.held_mut(all));
        let linears = [&mut self.q, &mut self.k, &mut self.v, &mut self.o];
        linears.into_iter().for_each(|linear| linear.held_mut(all));
    }

    /// Parameters of the part that an adapter may replace.
    pub(crate) fn replaceable_mut<'a>(&'a mut self, all: &mut Vec<&'a mut Replaceable<T>>) {
        let norms = self.norms.iter_mut();
        all.extend(norms.flat_map(|norms| [&mut norms.q, &mut norms.k]));
        let linears = [&mut self.q, &mut self.k, &mut self.v, &mut self.o];
        all.extend(
            linears
                .into_iter()
                .filter_map(|linear| linear.bias.as_mut()),
        );
    }

    fn config<'a, D: Device>(&self, pass: &Pass<'a, D>) -> attention::Config<'a, D> {
        attention::Config {
            ranges: pass.ranges,
            heads: pass.architecture.heads,
            kv_heads: pass.architecture.kv_heads,
            head_dim: pass.architecture.head_dim,
            scale: pass.architecture.attention_scale,
            window: self.window,
            softcap: pass.architecture.attention_softcap,
        }
    }
}

impl<D: Kernels> Attention<Tensor<D>> {
    /// Computes `y` from `x`, the output of the norm.
    pub(crate) fn forward(
        &self,
        pass: &Pass<'_, D>,
        x: &Tensor<D>,
        y: &mut Tensor<D>,
        (saved, work): (&mut Saved<Tensor<D>>, &mut Work<Tensor<D>>),
        cache: Option<LayerCache<'_, D>>,
    ) -> Result<(), ModelError> {
        self.q.forward(pass, x, &mut saved.q, &mut saved.of_q)?;
        self.k.forward(pass, x, &mut saved.k, &mut saved.of_k)?;
        self.v.forward(pass, x, &mut saved.v, &mut saved.of_v)?;
        if !self.normalise(pass, saved, work)? {
            self.rotate(pass, &mut saved.q, &mut saved.k, Direction::Forward)?;
        }
        let (q, k) = match &work.rotated {
            Some((q, k)) => (q, k),
            None => (&saved.q, &saved.k),
        };
        let (k, v) = match cache {
            Some(cache) => cache.append(pass, k, &saved.v)?,
            None => (k, &saved.v),
        };
        let forward = attention::Forward {
            q: q.view(),
            k: k.view(),
            v: v.view(),
            y: saved.attended.view_mut(),
            lse: saved.lse.view_mut(),
            config: self.config(pass),
        };
        pass.device.attention_forward(forward.checked()?)?;
        self.o.forward(pass, &saved.attended, y, &mut saved.of_o)
    }

    /// Normalises and rotates `saved.q` and `saved.k` into `work.rotated` if they are normalised;
    /// returns whether they are.
    fn normalise(
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

    /// Writes the gradient with respect to `x` to `dx`, if it is wanted, or adds it there with
    /// `accumulate`, and adds into the gradients of trained parameters.
    pub(crate) fn backward(
        &mut self,
        pass: &Pass<'_, D>,
        (x, dy): (&Tensor<D>, &Tensor<D>),
        (mut dx, accumulate): (Option<&mut Tensor<D>>, bool),
        (saved, work): (&mut Saved<Tensor<D>>, &mut Work<Tensor<D>>),
        (backward, adapters): (
            &mut BackwardWork<Tensor<D>>,
            &mut linear::BackwardWork<Tensor<D>>,
        ),
    ) -> Result<(), ModelError> {
        // If queries and keys are normalised, the inputs of attention are computed again.
        self.normalise(pass, saved, work)?;
        let BackwardWork {
            dq,
            dk,
            dv,
            dattended,
            delta,
        } = backward;
        let o = (&saved.attended, dy);
        self.o.backward(
            pass,
            o,
            (Some(&mut *dattended), false),
            &saved.of_o,
            adapters,
        )?;
        let (q, k) = match &work.rotated {
            Some((q, k)) => (q, k),
            None => (&saved.q, &saved.k),
        };
        let attended = attention::Backward {
            dy: dattended.view(),
            y: saved.attended.view(),
            lse: saved.lse.view(),
            q: q.view(),
            k: k.view(),
            v: saved.v.view(),
            delta: delta.view_mut(),
            dq: dq.view_mut(),
            dk: dk.view_mut(),
            dv: dv.view_mut(),
            config: self.config(pass),
        };
        pass.device.attention_backward(attended.checked()?)?;
        let (dq, dk) = self.rotate_back(pass, saved, work, (dq, dk))?;
        let q = (x, dq);
        let dx_of_q = (dx.as_deref_mut(), accumulate);
        self.q.backward(pass, q, dx_of_q, &saved.of_q, adapters)?;
        let k = (x, dk);
        self.k
            .backward(pass, k, (dx.as_deref_mut(), true), &saved.of_k, adapters)?;
        let v = (x, &*dv);
        self.v.backward(pass, v, (dx, true), &saved.of_v, adapters)
    }

    /// The gradients of the projections from those of the inputs of attention, which are
    /// overwritten.
    fn rotate_back<'a>(
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

    /// Rotates queries and keys in place, or rotates their gradients back.
    fn rotate(
        &self,
        pass: &Pass<'_, D>,
        q: &mut Tensor<D>,
        k: &mut Tensor<D>,
        direction: Direction,
    ) -> Result<(), ModelError> {
        if self.rotary_dim == 0 {
            return Ok(());
        }
        let architecture = pass.architecture;
        let heads = |tensor, heads| Heads {
            tensor,
            heads,
            row_stride: heads * architecture.head_dim,
        };
        let rotate = Rotate {
            q: heads(q.view_mut(), architecture.heads),
            k: heads(k.view_mut(), architecture.kv_heads),
            cos: pass.angles[self.rope].cos.view(),
            sin: pass.angles[self.rope].sin.view(),
            tokens: pass.tokens,
            head_dim: architecture.head_dim,
            rotary_dim: self.rotary_dim,
            pairing: Pairing::Halves,
            direction,
        };
        Ok(pass.device.rope(rotate.checked()?)?)
    }
}
