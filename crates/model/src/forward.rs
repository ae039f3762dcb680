//! The forward pass of a decoder layer.

use crate::{
    Backend, ModelError,
    activations::{Saved, Stream, Workspace},
    cache::LayerCache,
    parameter::Parameter,
    pass::{Pass, with_buffer},
    weights::LayerWeights,
};
use tightrope_device::Tensor;
use tightrope_kernels::{
    Check, Kernels, attention,
    glu::{self, Glu},
    qk_norm_rope::{self, HeadsForward, QkNormRope},
    rms_norm::{self, Residual, RmsNorm},
    rope::{Direction, Heads, Pairing, Rope, Rotate},
};

/// `y` = the norm of `stream.hidden`; with `add = (x, branch)`, `stream.hidden = x + branch` first.
pub(crate) fn norm_stream<D: RmsNorm>(
    pass: &Pass<'_, D>,
    weight: &Parameter<Tensor<D>>,
    add: (&Tensor<D>, &Tensor<D>),
    stream: &mut Stream<Tensor<D>>,
    y: &mut Tensor<D>,
) -> Result<(), ModelError> {
    let (x, branch) = add;
    let forward = rms_norm::Forward {
        x: x.view(),
        residual: Some(Residual {
            add: branch.view(),
            sum: stream.hidden.view_mut(),
        }),
        weight: weight.value.view(),
        plus_one: pass.architecture.norm_plus_one,
        eps: pass.architecture.norm_eps,
        y: y.view_mut(),
        rstd: stream.rstd.view_mut(),
        rows: pass.tokens,
        dim: pass.architecture.hidden,
    };
    Ok(pass.device.rms_norm_forward(forward.checked()?)?)
}

/// `y` = the norm of `x`, whose rows have `dim` features.
pub(crate) fn norm<D: RmsNorm>(
    pass: &Pass<'_, D>,
    weight: &Parameter<Tensor<D>>,
    x: &Tensor<D>,
    y: &mut Tensor<D>,
    rstd: &mut Tensor<D>,
    (rows, dim): (usize, usize),
) -> Result<(), ModelError> {
    let forward = rms_norm::Forward {
        x: x.view(),
        residual: None,
        weight: weight.value.view(),
        plus_one: pass.architecture.norm_plus_one,
        eps: pass.architecture.norm_eps,
        y: y.view_mut(),
        rstd: rstd.view_mut(),
        rows,
        dim,
    };
    Ok(pass.device.rms_norm_forward(forward.checked()?)?)
}

/// Rotates queries and keys in place, or their gradients back.
pub(crate) fn rotate<D: Rope>(
    pass: &Pass<'_, D>,
    q: &mut Tensor<D>,
    k: &mut Tensor<D>,
    direction: Direction,
) -> Result<(), ModelError> {
    let architecture = pass.architecture;
    let heads = |tensor, heads| Heads {
        tensor,
        heads,
        row_stride: heads * architecture.head_dim,
    };
    let rotate = Rotate {
        q: heads(q.view_mut(), architecture.heads),
        k: heads(k.view_mut(), architecture.kv_heads),
        cos: pass.cos.view(),
        sin: pass.sin.view(),
        tokens: pass.tokens,
        head_dim: architecture.head_dim,
        rotary_dim: architecture.rope.rotary_dim(),
        pairing: Pairing::Halves,
        direction,
    };
    Ok(pass.device.rope(rotate.checked()?)?)
}

/// For messages of [`with_buffer`].
pub(crate) const HEAD_NORMS: &str = "the norms of heads";
/// For messages of [`with_buffer`].
pub(crate) const BRANCH_NORM: &str = "the norm of a branch";

/// From `saved.q` and `saved.k` as projected to `workspace.rotated`, where heads are normalised:
/// whether they are.
pub(crate) fn norm_heads<D: QkNormRope>(
    pass: &Pass<'_, D>,
    weights: &LayerWeights<Tensor<D>>,
    saved: &mut Saved<Tensor<D>>,
    workspace: &mut Workspace<Tensor<D>>,
) -> Result<bool, ModelError> {
    let architecture = pass.architecture;
    let buffers = saved.head_rstd.as_mut().zip(workspace.rotated.as_mut());
    let norms = with_buffer(weights.head_norms.as_ref(), buffers, HEAD_NORMS)?;
    let Some((norms, ((q_rstd, k_rstd), (q, k)))) = norms else {
        return Ok(false);
    };
    let forward = qk_norm_rope::Forward {
        q: HeadsForward {
            x: saved.q.view(),
            weight: norms.q.value.view(),
            y: q.view_mut(),
            rstd: q_rstd.view_mut(),
            heads: architecture.heads,
        },
        k: HeadsForward {
            x: saved.k.view(),
            weight: norms.k.value.view(),
            y: k.view_mut(),
            rstd: k_rstd.view_mut(),
            heads: architecture.kv_heads,
        },
        plus_one: architecture.norm_plus_one,
        eps: architecture.norm_eps,
        cos: pass.cos.view(),
        sin: pass.sin.view(),
        tokens: pass.tokens,
        head_dim: architecture.head_dim,
        rotary_dim: architecture.rope.rotary_dim(),
    };
    pass.device.qk_norm_rope_forward(forward.checked()?)?;
    Ok(true)
}

/// From `workspace.normed` to `workspace.branch`.
fn attention<D: Backend>(
    pass: &Pass<'_, D>,
    layer: usize,
    weights: &LayerWeights<Tensor<D>>,
    saved: &mut Saved<Tensor<D>>,
    workspace: &mut Workspace<Tensor<D>>,
    cache: Option<LayerCache<'_, D>>,
) -> Result<(), ModelError> {
    let linears = &weights.linears;
    let x = &workspace.normed;
    linears.q.forward(pass, x, &mut saved.q, &mut saved.xa.q)?;
    linears.k.forward(pass, x, &mut saved.k, &mut saved.xa.k)?;
    linears.v.forward(pass, x, &mut saved.v, &mut saved.xa.v)?;
    if !norm_heads(pass, weights, saved, workspace)? {
        rotate(pass, &mut saved.q, &mut saved.k, Direction::Forward)?;
    }
    let (q, k) = match &workspace.rotated {
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
        config: pass.attention(layer),
    };
    pass.device.attention_forward(forward.checked()?)?;
    let (o, xa) = (&linears.o, &mut saved.xa.o);
    let norm = weights.attention_branch_norm.as_ref();
    match with_buffer(norm, saved.attention_branch.as_mut(), BRANCH_NORM)? {
        Some((norm, branch)) => {
            o.forward(pass, &saved.attended, &mut branch.hidden, xa)?;
            norm_branch(pass, norm, branch, &mut workspace.branch)
        }
        None => o.forward(pass, &saved.attended, &mut workspace.branch, xa),
    }
}

/// From `workspace.normed` to `workspace.branch`; `again`, only what fills `saved`.
fn mlp<D: Kernels>(
    pass: &Pass<'_, D>,
    weights: &LayerWeights<Tensor<D>>,
    saved: &mut Saved<Tensor<D>>,
    workspace: &mut Workspace<Tensor<D>>,
    again: bool,
) -> Result<(), ModelError> {
    let linears = &weights.linears;
    let x = &workspace.normed;
    linears
        .gate
        .forward(pass, x, &mut saved.gate, &mut saved.xa.gate)?;
    linears
        .up
        .forward(pass, x, &mut saved.up, &mut saved.xa.up)?;
    if again && linears.down.adapter.is_none() && weights.mlp_branch_norm.is_none() {
        return Ok(());
    }
    activate(pass, saved, &mut workspace.activated)?;
    let (down, xa) = (&linears.down, &mut saved.xa.down);
    let norm = weights.mlp_branch_norm.as_ref();
    match with_buffer(norm, saved.mlp_branch.as_mut(), BRANCH_NORM)? {
        Some((norm, branch)) => {
            down.forward(pass, &workspace.activated, &mut branch.hidden, xa)?;
            norm_branch(pass, norm, branch, &mut workspace.branch)
        }
        None => down.forward(pass, &workspace.activated, &mut workspace.branch, xa),
    }
}

fn activate<D: Glu>(
    pass: &Pass<'_, D>,
    saved: &Saved<Tensor<D>>,
    y: &mut Tensor<D>,
) -> Result<(), ModelError> {
    let forward = glu::Forward {
        gate: saved.gate.view(),
        up: saved.up.view(),
        y: y.view_mut(),
        activation: pass.architecture.activation,
        elements: pass.tokens * pass.architecture.intermediate,
    };
    Ok(pass.device.glu_forward(forward.checked()?)?)
}

fn norm_branch<D: RmsNorm>(
    pass: &Pass<'_, D>,
    weight: &Parameter<Tensor<D>>,
    branch: &mut Stream<Tensor<D>>,
    y: &mut Tensor<D>,
) -> Result<(), ModelError> {
    let rows = (pass.tokens, pass.architecture.hidden);
    norm(pass, weight, &branch.hidden, y, &mut branch.rstd, rows)
}

/// A whole layer: from `workspace.normed` (the norm of `hidden`) to `saved.middle` and
/// `workspace.branch`, whose sum is the residual stream after the layer.
pub(crate) fn layer<D: Backend>(
    pass: &Pass<'_, D>,
    layer: usize,
    weights: &LayerWeights<Tensor<D>>,
    hidden: &Tensor<D>,
    saved: &mut Saved<Tensor<D>>,
    workspace: &mut Workspace<Tensor<D>>,
    cache: Option<LayerCache<'_, D>>,
) -> Result<(), ModelError> {
    attention(pass, layer, weights, saved, workspace, cache)?;
    norm_middle(pass, weights, hidden, saved, workspace)?;
    mlp(pass, weights, saved, workspace, false)
}

/// Fills `saved` again from the residual stream before the layer, bit for bit.
pub(crate) fn layer_again<D: Backend>(
    pass: &Pass<'_, D>,
    layer: usize,
    weights: &LayerWeights<Tensor<D>>,
    stream: &mut Stream<Tensor<D>>,
    saved: &mut Saved<Tensor<D>>,
    workspace: &mut Workspace<Tensor<D>>,
) -> Result<(), ModelError> {
    let rows = (pass.tokens, pass.architecture.hidden);
    let (weight, normed) = (&weights.attention_norm, &mut workspace.normed);
    norm(pass, weight, &stream.hidden, normed, &mut stream.rstd, rows)?;
    attention(pass, layer, weights, saved, workspace, None)?;
    norm_middle(pass, weights, &stream.hidden, saved, workspace)?;
    mlp(pass, weights, saved, workspace, true)
}

fn norm_middle<D: RmsNorm>(
    pass: &Pass<'_, D>,
    weights: &LayerWeights<Tensor<D>>,
    hidden: &Tensor<D>,
    saved: &mut Saved<Tensor<D>>,
    workspace: &mut Workspace<Tensor<D>>,
) -> Result<(), ModelError> {
    let add = (hidden, &workspace.branch);
    let (middle, normed) = (&mut saved.middle, &mut workspace.normed);
    norm_stream(pass, &weights.mlp_norm, add, middle, normed)
}
