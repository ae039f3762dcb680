//! The backward pass of a decoder layer.

use crate::{
    Backend, ModelError,
    activations::{BackwardWorkspace, Saved, Stream, Workspace},
    forward::{BRANCH_NORM, HEAD_NORMS, norm, norm_heads, rotate},
    parameter::Parameter,
    pass::{Pass, with_buffer},
    weights::LayerWeights,
};
use tightrope_device::Tensor;
use tightrope_kernels::rope::Direction;
use tightrope_kernels::{
    Check, Kernels, attention, glu,
    qk_norm_rope::{self, HeadsBackward},
    rms_norm::{self, RmsNorm},
};

/// Adds the gradient of a norm into `dx` (or overwrites it), and into that of its weight.
pub(crate) fn norm_backward<D: RmsNorm>(
    pass: &Pass<'_, D>,
    weight: &mut Parameter<Tensor<D>>,
    dy: &Tensor<D>,
    (x, rstd): (&Tensor<D>, &Tensor<D>),
    dx: &mut Tensor<D>,
    accumulate: bool,
    (rows, dim): (usize, usize),
) -> Result<(), ModelError> {
    let backward = rms_norm::Backward {
        dy: dy.view(),
        x: x.view(),
        rstd: rstd.view(),
        weight: weight.value.view(),
        plus_one: pass.architecture.norm_plus_one,
        dx: dx.view_mut(),
        accumulate,
        dweight: weight.gradient.as_mut().map(Tensor::view_mut),
        rows,
        dim,
    };
    Ok(pass.device.rms_norm_backward(backward.checked()?)?)
}

/// A whole layer: `backward.dhidden` is the gradient of the residual stream after the layer, and
/// becomes that before it. Consumes `saved` (gate, up and queries are overwritten).
///
/// With `lowest`, nothing before this layer is trained, and `dhidden` is left without the part
/// that comes through the queries, keys and values.
#[expect(clippy::too_many_arguments, reason = "one of each buffer, all apart")]
pub(crate) fn layer<D: Backend>(
    pass: &Pass<'_, D>,
    layer: usize,
    weights: &mut LayerWeights<Tensor<D>>,
    stream: &mut Stream<Tensor<D>>,
    saved: &mut Saved<Tensor<D>>,
    workspace: &mut Workspace<Tensor<D>>,
    backward: &mut BackwardWorkspace<Tensor<D>>,
    lowest: bool,
) -> Result<(), ModelError> {
    mlp(pass, weights, saved, workspace, backward)?;
    attention(
        pass, layer, weights, stream, saved, workspace, backward, lowest,
    )
}

fn mlp<D: Kernels>(
    pass: &Pass<'_, D>,
    weights: &mut LayerWeights<Tensor<D>>,
    saved: &mut Saved<Tensor<D>>,
    workspace: &mut Workspace<Tensor<D>>,
    backward: &mut BackwardWorkspace<Tensor<D>>,
) -> Result<(), ModelError> {
    let rows = (pass.tokens, pass.architecture.hidden);
    let dyb = &mut backward.dyb;
    let branch = saved.mlp_branch.as_ref().zip(backward.dbranch.as_mut());
    let norm_of_branch = with_buffer(weights.mlp_branch_norm.as_mut(), branch, BRANCH_NORM)?;
    let dbranch = match norm_of_branch {
        Some((weight, (branch, dbranch))) => {
            let x = (&branch.hidden, &branch.rstd);
            norm_backward(pass, weight, &backward.dhidden, x, dbranch, false, rows)?;
            &*dbranch
        }
        None => &backward.dhidden,
    };
    let (linears, xa) = (&mut weights.linears, &saved.xa);
    let activated = &mut workspace.activated;
    linears
        .down
        .backward_input(pass, dbranch, Some(activated), false, dyb)?;
    let gated = glu::Backward {
        gate: saved.gate.view_mut(),
        up: saved.up.view_mut(),
        dy: activated.view_mut(),
        activation: pass.architecture.activation,
        elements: pass.tokens * pass.architecture.intermediate,
    };
    pass.device.glu_backward(gated.checked()?)?;
    linears
        .down
        .backward_weights(pass, activated, dbranch, &xa.down, dyb)?;

    // The norm's output is computed again rather than kept.
    let (middle, normed) = (&mut saved.middle, &mut workspace.normed);
    norm(
        pass,
        &weights.mlp_norm,
        &middle.hidden,
        normed,
        &mut middle.rstd,
        rows,
    )?;
    let dnormed = &mut workspace.branch;
    for (linear, dy, xa, accumulate) in [
        (&mut linears.gate, &saved.gate, &xa.gate, false),
        (&mut linears.up, &saved.up, &xa.up, true),
    ] {
        linear.backward_input(pass, dy, Some(dnormed), accumulate, dyb)?;
        linear.backward_weights(pass, normed, dy, xa, dyb)?;
    }
    let x = (&middle.hidden, &middle.rstd);
    let dhidden = &mut backward.dhidden;
    norm_backward(pass, &mut weights.mlp_norm, dnormed, x, dhidden, true, rows)
}

#[expect(clippy::too_many_arguments, reason = "one of each buffer, all apart")]
fn attention<D: Backend>(
    pass: &Pass<'_, D>,
    layer: usize,
    weights: &mut LayerWeights<Tensor<D>>,
    stream: &mut Stream<Tensor<D>>,
    saved: &mut Saved<Tensor<D>>,
    workspace: &mut Workspace<Tensor<D>>,
    backward: &mut BackwardWorkspace<Tensor<D>>,
    lowest: bool,
) -> Result<(), ModelError> {
    let architecture = pass.architecture;
    let rows = (pass.tokens, architecture.hidden);
    // Where heads are normalised, what attention saw is computed again.
    norm_heads(pass, weights, saved, workspace)?;
    let dyb = &mut backward.dyb;
    let branch = saved.attention_branch.as_ref();
    let branch = branch.zip(backward.dbranch.as_mut());
    let norm_of_branch = with_buffer(weights.attention_branch_norm.as_mut(), branch, BRANCH_NORM)?;
    let dbranch = match norm_of_branch {
        Some((weight, (branch, dbranch))) => {
            let x = (&branch.hidden, &branch.rstd);
            norm_backward(pass, weight, &backward.dhidden, x, dbranch, false, rows)?;
            &*dbranch
        }
        None => &backward.dhidden,
    };
    let (linears, xa) = (&mut weights.linears, &saved.xa);
    let dattended = &mut backward.dattended;
    linears
        .o
        .backward_input(pass, dbranch, Some(dattended), false, dyb)?;
    linears
        .o
        .backward_weights(pass, &saved.attended, dbranch, &xa.o, dyb)?;

    let (q, k) = match &workspace.rotated {
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
        delta: backward.delta.view_mut(),
        dq: backward.dq.view_mut(),
        dk: backward.dk.view_mut(),
        dv: backward.dv.view_mut(),
        config: pass.attention(layer),
    };
    pass.device.attention_backward(attended.checked()?)?;
    let (dq, dk) = (&mut backward.dq, &mut backward.dk);
    let norms = weights.head_norms.as_mut();
    match with_buffer(norms, saved.head_rstd.as_ref(), HEAD_NORMS)? {
        Some((norms, (q_rstd, k_rstd))) => {
            let normed = qk_norm_rope::Backward {
                q: HeadsBackward {
                    dx: dq.view_mut(),
                    x: saved.q.view(),
                    rstd: q_rstd.view(),
                    weight: norms.q.value.view(),
                    dweight: norms.q.gradient.as_mut().map(Tensor::view_mut),
                    heads: architecture.heads,
                },
                k: HeadsBackward {
                    dx: dk.view_mut(),
                    x: saved.k.view(),
                    rstd: k_rstd.view(),
                    weight: norms.k.value.view(),
                    dweight: norms.k.gradient.as_mut().map(Tensor::view_mut),
                    heads: architecture.kv_heads,
                },
                plus_one: architecture.norm_plus_one,
                cos: pass.cos.view(),
                sin: pass.sin.view(),
                tokens: pass.tokens,
                head_dim: architecture.head_dim,
                rotary_dim: architecture.rope.rotary_dim(),
            };
            pass.device.qk_norm_rope_backward(normed.checked()?)?;
        }
        None => rotate(pass, dq, dk, Direction::Backward)?,
    }

    let normed = &mut workspace.normed;
    norm(
        pass,
        &weights.attention_norm,
        &stream.hidden,
        normed,
        &mut stream.rstd,
        rows,
    )?;
    let dnormed = &mut workspace.branch;
    for (linear, dy, xa, accumulate) in [
        (&mut linears.q, &backward.dq, &xa.q, false),
        (&mut linears.k, &backward.dk, &xa.k, true),
        (&mut linears.v, &backward.dv, &xa.v, true),
    ] {
        let dx = (!lowest).then_some(&mut *dnormed);
        linear.backward_input(pass, dy, dx, accumulate, dyb)?;
        linear.backward_weights(pass, normed, dy, xa, dyb)?;
    }
    if lowest {
        return Ok(());
    }
    let x = (&stream.hidden, &stream.rstd);
    let dhidden = &mut backward.dhidden;
    norm_backward(
        pass,
        &mut weights.attention_norm,
        dnormed,
        x,
        dhidden,
        true,
        rows,
    )
}
