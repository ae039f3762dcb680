//! Self-attention: projections, norms of queries and keys, rotation (in one pass with the norms of
//! heads), attention, output projection.

mod query_norms;

use super::{Held, HeldMut, Linear, linear};
use crate::{
    ModelError, QueryNorms, activations, cache::LayerCache, parameter::Replaceable, pass::Pass,
    plan::Allocate, weights,
};
use query_norms::Norms;
use tightrope_device::{DType, Device, Tensor};
use tightrope_kernels::{
    Check, Kernels, attention,
    rope::{Direction, Heads, Pairing, Rotate},
};

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
        let norms = Norms::lay_out(weights, layer)?;
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
