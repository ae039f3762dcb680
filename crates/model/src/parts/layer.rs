//! A decoder layer: attention and feed-forward with their norms, around the residual stream.

use super::{
    Held, HeldMut, Linear, Norm, Stream,
    attention::{self, Attention},
    linear,
    mlp::{self, Mlp},
    with_buffer,
};
use crate::{
    ModelError, activations, cache::LayerCache, parameter::Replaceable, pass::Pass, plan::Allocate,
    weights,
};
use tightrope_device::Tensor;
use tightrope_kernels::Kernels;

/// Name of the part in messages of [`with_buffer`].
const BRANCH_NORM: &str = "the norm of a branch";

/// Weights of the layer.
#[derive(Debug)]
pub(crate) struct Layer<T> {
    pub attention_norm: Norm<T>,
    pub attention: Attention<T>,
    /// Norm of the output of attention.
    attention_branch_norm: Option<Norm<T>>,
    mlp_norm: Norm<T>,
    pub mlp: Mlp<T>,
    /// Norm of the output of the MLP.
    mlp_branch_norm: Option<Norm<T>>,
}

/// Values that the backward pass needs from the forward pass, and overwrites.
#[derive(Debug)]
pub(crate) struct Saved<T> {
    attention: attention::Saved<T>,
    /// Output of attention before its norm.
    attention_branch: Option<Stream<T>>,
    /// The residual stream between attention and MLP.
    pub middle: Stream<T>,
    mlp: mlp::Saved<T>,
    /// Output of the MLP before its norm.
    mlp_branch: Option<Stream<T>>,
}

/// Buffers that every layer uses in turn.
#[derive(Debug)]
pub(crate) struct Work<T> {
    /// Output of a norm, `[tokens, hidden]`.
    pub normed: T,
    /// Output of attention or MLP that is added to the residual stream, `[tokens, hidden]`; in the
    /// backward pass the gradient of `normed`.
    pub branch: T,
    attention: attention::Work<T>,
    mlp: mlp::Work<T>,
}

/// Buffers of the backward pass.
#[derive(Debug)]
pub(crate) struct BackwardWork<T> {
    /// Gradient of the residual stream, `[tokens, hidden]`.
    pub dhidden: T,
    /// Gradient of a branch before its norm, `[tokens, hidden]`.
    dbranch: Option<T>,
    attention: attention::BackwardWork<T>,
    /// For the current linear layer.
    adapters: linear::BackwardWork<T>,
}

impl<T> Saved<T> {
    /// Lays out the buffers for the layers that share them.
    pub(crate) fn lay_out<W, A: Allocate<Buffer = T>>(
        step: &mut activations::Builder<'_, A>,
        at: &str,
        sharing: &[&Layer<W>],
    ) -> Result<Self, ModelError> {
        let attention: Vec<_> = sharing.iter().map(|layer| &layer.attention).collect();
        let mlp: Vec<_> = sharing.iter().map(|layer| &layer.mlp).collect();
        let has_branches = step.architecture.branch_norms;
        let branch = |step: &mut _, part: &str| match has_branches {
            true => Stream::lay_out(step, &format!("{at}: {part} branch")).map(Some),
            false => Ok(None),
        };
        Ok(Self {
            attention: attention::Saved::lay_out(step, at, &attention)?,
            attention_branch: branch(step, "attention")?,
            middle: Stream::lay_out(step, &format!("{at}: residual after attention"))?,
            mlp: mlp::Saved::lay_out(step, at, &mlp)?,
            mlp_branch: branch(step, "MLP")?,
        })
    }
}

impl<T> Work<T> {
    pub(crate) fn lay_out<A: Allocate<Buffer = T>>(
        step: &mut activations::Builder<'_, A>,
    ) -> Result<Self, ModelError> {
        let hidden = step.architecture.hidden;
        Ok(Self {
            normed: step.work("normed", hidden)?,
            branch: step.work("branch", hidden)?,
            attention: attention::Work::lay_out(step)?,
            mlp: mlp::Work::lay_out(step)?,
        })
    }
}

impl<T> BackwardWork<T> {
    /// Lays out the buffers for a model with these linear layers.
    pub(crate) fn lay_out<'a, W: 'a, A: Allocate<Buffer = T>>(
        step: &mut activations::Builder<'_, A>,
        linears: impl Iterator<Item = &'a Linear<W>>,
    ) -> Result<Self, ModelError> {
        let hidden = step.architecture.hidden;
        let dhidden = step.work("gradient of the residual", hidden)?;
        let dbranch = match step.architecture.branch_norms {
            true => Some(step.work("gradient of the branch", hidden)?),
            false => None,
        };
        let attention = attention::BackwardWork::lay_out(step)?;
        Ok(Self {
            dhidden,
            dbranch,
            attention,
            adapters: linear::BackwardWork::lay_out(step, linears)?,
        })
    }
}

/// Names of the norms in a layer of Transformers and of GGUF files.
const NAMES: [(&str, &str); 2] = [
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
];
/// The same with norms of branches. The norm that Llama names after attention is the one before the
/// MLP; here it is the one that its name says.
const BRANCH_NAMES: [(&str, &str); 4] = [
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];

/// Names of all modules in a layer of Transformers and of GGUF files.
pub(crate) fn module_names(
    branch_norms: bool,
) -> impl Iterator<Item = (&'static str, &'static str)> {
    let norms: &[_] = if branch_norms { &BRANCH_NAMES } else { &NAMES };
    let parts = attention::NAMES.iter().chain(&mlp::NAMES);
    norms.iter().chain(parts).copied()
}

impl<T> Layer<T> {
    /// Lays out layer `index`.
    pub(crate) fn lay_out<A: Allocate<Buffer = T>>(
        weights: &mut weights::Builder<'_, A>,
        index: usize,
    ) -> Result<Self, ModelError> {
        let name = format!("model.layers.{index}");
        let norm = |weights: &mut _, part: &str| Norm::lay_out(weights, format!("{name}.{part}"));
        let [attention_branch, mlp, mlp_branch] = match weights.architecture.branch_norms {
            true => [
                Some("post_attention_layernorm"),
                Some("pre_feedforward_layernorm"),
                Some("post_feedforward_layernorm"),
            ],
            false => [None, Some("post_attention_layernorm"), None],
        };
        let attention_norm = norm(weights, "input_layernorm")?;
        let attention = Attention::lay_out(weights, &name, index)?;
        let mut optional = |part: Option<&str>| part.map(|part| norm(weights, part)).transpose();
        let attention_branch_norm = optional(attention_branch)?;
        let mlp_norm = optional(mlp)?.ok_or(ModelError::NotAsPlanned)?;
        let mlp_branch_norm = optional(mlp_branch)?;
        Ok(Self {
            attention_norm,
            attention,
            attention_branch_norm,
            mlp_norm,
            mlp: Mlp::lay_out(weights, &name)?,
            mlp_branch_norm,
        })
    }

    /// Linear layers of the layer.
    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear<T>> {
        let attention = self.attention.linears().into_iter();
        attention.chain(self.mlp.linears())
    }

    /// Linear layers of the layer.
    pub(crate) fn linears_mut(&mut self) -> impl Iterator<Item = &mut Linear<T>> {
        let attention = self.attention.linears_mut().into_iter();
        attention.chain(self.mlp.linears_mut())
    }

    pub(crate) fn held<'a>(&'a self, all: &mut Vec<Held<'a, T>>) {
        self.attention_norm.held(all);
        self.attention.held(all);
        self.attention_branch_norm
            .iter()
            .for_each(|norm| norm.held(all));
        self.mlp_norm.held(all);
        self.mlp.held(all);
        self.mlp_branch_norm.iter().for_each(|norm| norm.held(all));
    }

    pub(crate) fn held_mut<'a>(&'a mut self, all: &mut Vec<HeldMut<'a, T>>) {
        self.attention_norm.held_mut(all);
        self.attention.held_mut(all);
        let branch = self.attention_branch_norm.iter_mut();
        branch.for_each(|norm| norm.held_mut(all));
        self.mlp_norm.held_mut(all);
        self.mlp.held_mut(all);
        let branch = self.mlp_branch_norm.iter_mut();
        branch.for_each(|norm| norm.held_mut(all));
    }

    /// Parameters of the layer that an adapter may replace.
    pub(crate) fn replaceable_mut<'a>(&'a mut self, all: &mut Vec<&'a mut Replaceable<T>>) {
        let Self {
            attention_norm,
            attention,
            attention_branch_norm,
            mlp_norm,
            mlp,
            mlp_branch_norm,
        } = self;
        let branches = attention_branch_norm.iter_mut().chain(mlp_branch_norm);
        let norms = [attention_norm, mlp_norm].into_iter().chain(branches);
        all.extend(norms.map(|norm| &mut norm.scale));
        attention.replaceable_mut(all);
        mlp.replaceable_mut(all);
    }

    /// Whether any parameter of the layer is trained.
    pub(crate) fn is_trained(&self) -> bool {
        let mut held = Vec::new();
        self.held(&mut held);
        held.iter().any(Held::is_trained)
    }
}

impl<D: Kernels> Layer<Tensor<D>> {
    /// Computes `saved.middle` and `work.branch` from `work.normed` (the norm of `hidden`); their
    /// sum is the residual stream after the layer.
    pub(crate) fn forward(
        &self,
        pass: &Pass<'_, D>,
        hidden: &Tensor<D>,
        saved: &mut Saved<Tensor<D>>,
        work: &mut Work<Tensor<D>>,
        cache: Option<LayerCache<'_, D>>,
    ) -> Result<(), ModelError> {
        self.forward_attention(pass, hidden, saved, work, cache)?;
        let norm = self.mlp_branch_norm.as_ref();
        let (buffers, of_mlp) = (&mut work.mlp, &mut saved.mlp);
        match with_buffer(norm, saved.mlp_branch.as_mut(), BRANCH_NORM)? {
            Some((norm, branch)) => {
                let y = &mut branch.hidden;
                self.mlp.forward(pass, &work.normed, y, of_mlp, buffers)?;
                norm.forward(pass, branch, &mut work.branch)
            }
            None => {
                let (x, y) = (&work.normed, &mut work.branch);
                self.mlp.forward(pass, x, y, of_mlp, buffers)
            }
        }
    }

    /// Fills `saved` again from the residual stream before the layer, bit for bit.
    pub(crate) fn forward_again(
        &self,
        pass: &Pass<'_, D>,
        stream: &mut Stream<Tensor<D>>,
        saved: &mut Saved<Tensor<D>>,
        work: &mut Work<Tensor<D>>,
    ) -> Result<(), ModelError> {
        self.attention_norm
            .forward(pass, stream, &mut work.normed)?;
        if self.mlp_branch_norm.is_some() {
            return self.forward(pass, &stream.hidden, saved, work, None);
        }
        self.forward_attention(pass, &stream.hidden, saved, work, None)?;
        let (x, y) = (&work.normed, &mut work.branch);
        self.mlp
            .forward_again(pass, x, y, &mut saved.mlp, &mut work.mlp)
    }

    /// Computes `saved.middle`, and its norm in `work.normed`.
    fn forward_attention(
        &self,
        pass: &Pass<'_, D>,
        hidden: &Tensor<D>,
        saved: &mut Saved<Tensor<D>>,
        work: &mut Work<Tensor<D>>,
        cache: Option<LayerCache<'_, D>>,
    ) -> Result<(), ModelError> {
        let norm = self.attention_branch_norm.as_ref();
        let buffers = (&mut saved.attention, &mut work.attention);
        match with_buffer(norm, saved.attention_branch.as_mut(), BRANCH_NORM)? {
            Some((norm, branch)) => {
                let y = &mut branch.hidden;
                self.attention
                    .forward(pass, &work.normed, y, buffers, cache)?;
                norm.forward(pass, branch, &mut work.branch)?;
            }
            None => {
                let (x, y) = (&work.normed, &mut work.branch);
                self.attention.forward(pass, x, y, buffers, cache)?;
            }
        }
        let (add, normed) = ((hidden, &work.branch), &mut work.normed);
        self.mlp_norm
            .forward_of_sum(pass, add, &mut saved.middle, normed)
    }

    /// `backward.dhidden` is the gradient of the residual stream after the layer, and becomes the
    /// gradient before it. Consumes `saved` (gate and up are overwritten).
    ///
    /// With `lowest`, nothing before this layer is trained, and `dhidden` may lack the part that
    /// comes through the queries, keys and values.
    pub(crate) fn backward(
        &mut self,
        pass: &Pass<'_, D>,
        stream: &mut Stream<Tensor<D>>,
        saved: &mut Saved<Tensor<D>>,
        work: &mut Work<Tensor<D>>,
        backward: &mut BackwardWork<Tensor<D>>,
        lowest: bool,
    ) -> Result<(), ModelError> {
        let BackwardWork {
            dhidden,
            dbranch,
            attention,
            adapters,
        } = backward;
        // Outputs of norms are computed again and not kept; from here on `work.branch` is the
        // gradient of such an output.
        let (normed, dnormed) = (&mut work.normed, &mut work.branch);
        self.mlp_norm.forward(pass, &mut saved.middle, normed)?;
        let norm = self.mlp_branch_norm.as_mut();
        let dy = gradient_of_branch(pass, norm, &saved.mlp_branch, dhidden, dbranch)?;
        let buffers = (&mut saved.mlp, &mut work.mlp);
        self.mlp
            .backward(pass, (&*normed, dy), dnormed, buffers, adapters)?;
        self.mlp_norm
            .backward(pass, dnormed, &saved.middle, dhidden, true)?;

        // The norm's own gradient needs that of its output.
        let lowest = lowest && !self.attention_norm.scale.is_trained();
        self.attention_norm.forward(pass, stream, normed)?;
        let norm = self.attention_branch_norm.as_mut();
        let dy = gradient_of_branch(pass, norm, &saved.attention_branch, dhidden, dbranch)?;
        let buffers = (&mut saved.attention, &mut work.attention);
        let dx = (!lowest).then_some(&mut *dnormed);
        let gradients = (attention, adapters);
        self.attention
            .backward(pass, (&*normed, dy), dx, buffers, gradients)?;
        match lowest {
            true => Ok(()),
            false => self
                .attention_norm
                .backward(pass, dnormed, stream, dhidden, true),
        }
    }
}

/// The gradient of the output of attention or MLP: the gradient of the residual stream, or, if the
/// branch is normalised, `dbranch`, which is written.
fn gradient_of_branch<'a, D: Kernels>(
    pass: &Pass<'_, D>,
    norm: Option<&mut Norm<Tensor<D>>>,
    branch: &Option<Stream<Tensor<D>>>,
    dhidden: &'a Tensor<D>,
    dbranch: &'a mut Option<Tensor<D>>,
) -> Result<&'a Tensor<D>, ModelError> {
    let buffers = branch.as_ref().zip(dbranch.as_mut());
    match with_buffer(norm, buffers, BRANCH_NORM)? {
        Some((norm, (branch, dbranch))) => {
            norm.backward(pass, dhidden, branch, dbranch, false)?;
            Ok(dbranch)
        }
        None => Ok(dhidden),
    }
}
