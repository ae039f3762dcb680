//! A decoder layer: attention and feed-forward with their norms, around the residual stream.

use super::{
    Held, HeldMut, Linear, Norm, Stream,
    attention::{self, Attention},
    linear,
    mlp::{self, Mlp},
    with_buffer,
};
use crate::{
    ModelError, NormPlaces, activations, cache::LayerCache, parameter::Replaceable, pass::Pass,
    plan::Allocate, weights,
};
use tightrope_device::Tensor;
use tightrope_kernels::Kernels;

/// Name of the part in messages of [`with_buffer`].
const BRANCH_NORM: &str = "the norm of a branch";

/// Weights of the layer.
#[derive(Debug)]
pub(crate) struct Layer<T> {
    /// Norm of the input of attention.
    attention_norm: Option<Norm<T>>,
    pub attention: Attention<T>,
    /// Norm of the output of attention.
    attention_branch_norm: Option<Norm<T>>,
    /// Norm of the input of the MLP.
    mlp_norm: Option<Norm<T>>,
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
        let has_branches = step.architecture.norm_places.after();
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
        let dbranch = match step.architecture.norm_places.after() {
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

/// Names of the norms in a layer of Transformers and of GGUF files: of the input of attention, its
/// output, the input of the MLP, and its output.
type NormNames = [Option<(&'static str, &'static str)>; 4];

/// The norm that Llama names after attention is the one before the MLP; elsewhere it is the one that
/// its name says.
fn norm_names(places: NormPlaces) -> NormNames {
    let input = ("input_layernorm", "attn_norm");
    let before_mlp = ("post_attention_layernorm", "ffn_norm");
    let attention = ("post_attention_layernorm", "post_attention_norm");
    let mlp = ("post_feedforward_layernorm", "post_ffw_norm");
    match places {
        NormPlaces::Before => [Some(input), None, Some(before_mlp), None],
        NormPlaces::Around => {
            let before_mlp = ("pre_feedforward_layernorm", "ffn_norm");
            [Some(input), Some(attention), Some(before_mlp), Some(mlp)]
        }
        NormPlaces::Peri => {
            let [attention, mlp] = [("post_norm1", attention.1), ("post_norm2", mlp.1)];
            [Some(input), Some(attention), Some(before_mlp), Some(mlp)]
        }
        NormPlaces::After => [None, Some(attention), None, Some(mlp)],
    }
}

/// Names of all modules in a layer of Transformers and of GGUF files.
pub(crate) fn module_names(
    places: NormPlaces,
) -> impl Iterator<Item = (&'static str, &'static str)> {
    let parts = attention::NAMES.iter().chain(&mlp::NAMES);
    norm_names(places)
        .into_iter()
        .flatten()
        .chain(parts.copied())
}

impl<T> Layer<T> {
    /// Lays out layer `index`.
    pub(crate) fn lay_out<A: Allocate<Buffer = T>>(
        weights: &mut weights::Builder<'_, A>,
        index: usize,
    ) -> Result<Self, ModelError> {
        let name = format!("model.layers.{index}");
        let norm = |weights: &mut _, names: Option<(&str, &str)>| {
            let norm = names.map(|(part, _)| Norm::lay_out(weights, format!("{name}.{part}")));
            norm.transpose()
        };
        let [of_attention, after_attention, of_mlp, after_mlp] =
            norm_names(weights.architecture.norm_places);
        Ok(Self {
            attention_norm: norm(weights, of_attention)?,
            attention: Attention::lay_out(weights, &name, index)?,
            attention_branch_norm: norm(weights, after_attention)?,
            mlp_norm: norm(weights, of_mlp)?,
            mlp: Mlp::lay_out(weights, &name)?,
            mlp_branch_norm: norm(weights, after_mlp)?,
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
        let norm = |norm: &'a Option<Norm<T>>, all: &mut Vec<_>| {
            norm.iter().for_each(|norm| norm.held(all));
        };
        norm(&self.attention_norm, all);
        self.attention.held(all);
        norm(&self.attention_branch_norm, all);
        norm(&self.mlp_norm, all);
        self.mlp.held(all);
        norm(&self.mlp_branch_norm, all);
    }

    pub(crate) fn held_mut<'a>(&'a mut self, all: &mut Vec<HeldMut<'a, T>>) {
        let norm = |norm: &'a mut Option<Norm<T>>, all: &mut Vec<_>| {
            norm.iter_mut().for_each(|norm| norm.held_mut(all));
        };
        norm(&mut self.attention_norm, all);
        self.attention.held_mut(all);
        norm(&mut self.attention_branch_norm, all);
        norm(&mut self.mlp_norm, all);
        self.mlp.held_mut(all);
        norm(&mut self.mlp_branch_norm, all);
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
        let norms = [
            attention_norm,
            mlp_norm,
            attention_branch_norm,
            mlp_branch_norm,
        ];
        all.extend(norms.into_iter().flatten().map(|norm| &mut norm.scale));
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
    /// The residual stream before the layer, `x + branch`, and in `normed` the norm of it if the layer
    /// has one.
    pub(crate) fn enter(
        &self,
        pass: &Pass<'_, D>,
        add: (&Tensor<D>, &Tensor<D>),
        stream: &mut Stream<Tensor<D>>,
        normed: &mut Tensor<D>,
    ) -> Result<(), ModelError> {
        let norms = [&self.attention_norm, &self.attention_branch_norm];
        sum(pass, norms, add, stream, normed)
    }

    /// The norm of the residual stream before the layer, if the layer has one.
    pub(crate) fn norm_input(
        &self,
        pass: &Pass<'_, D>,
        stream: &mut Stream<Tensor<D>>,
        normed: &mut Tensor<D>,
    ) -> Result<(), ModelError> {
        match &self.attention_norm {
            Some(norm) => norm.forward(pass, stream, normed),
            None => Ok(()),
        }
    }

    /// Computes `saved.middle` and `work.branch` from `work.normed` (the norm of `hidden`, if the
    /// layer has one); their sum is the residual stream after the layer.
    pub(crate) fn forward(
        &self,
        pass: &Pass<'_, D>,
        hidden: &Tensor<D>,
        saved: &mut Saved<Tensor<D>>,
        work: &mut Work<Tensor<D>>,
        cache: Option<LayerCache<'_, D>>,
    ) -> Result<(), ModelError> {
        self.forward_attention(pass, hidden, saved, work, cache)?;
        let x = input(&self.mlp_norm, &work.normed, &saved.middle.hidden);
        let norm = self.mlp_branch_norm.as_ref();
        let (buffers, of_mlp) = (&mut work.mlp, &mut saved.mlp);
        match with_buffer(norm, saved.mlp_branch.as_mut(), BRANCH_NORM)? {
            Some((norm, branch)) => {
                let y = &mut branch.hidden;
                self.mlp.forward(pass, x, y, of_mlp, buffers)?;
                norm.forward(pass, branch, &mut work.branch)
            }
            None => {
                let y = &mut work.branch;
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
        self.norm_input(pass, stream, &mut work.normed)?;
        if self.mlp_branch_norm.is_some() {
            return self.forward(pass, &stream.hidden, saved, work, None);
        }
        self.forward_attention(pass, &stream.hidden, saved, work, None)?;
        let x = input(&self.mlp_norm, &work.normed, &saved.middle.hidden);
        let y = &mut work.branch;
        self.mlp
            .forward_again(pass, x, y, &mut saved.mlp, &mut work.mlp)
    }

    /// Computes `saved.middle`, and its norm in `work.normed` if the layer has one.
    fn forward_attention(
        &self,
        pass: &Pass<'_, D>,
        hidden: &Tensor<D>,
        saved: &mut Saved<Tensor<D>>,
        work: &mut Work<Tensor<D>>,
        cache: Option<LayerCache<'_, D>>,
    ) -> Result<(), ModelError> {
        let x = input(&self.attention_norm, &work.normed, hidden);
        let norm = self.attention_branch_norm.as_ref();
        let buffers = (&mut saved.attention, &mut work.attention);
        match with_buffer(norm, saved.attention_branch.as_mut(), BRANCH_NORM)? {
            Some((norm, branch)) => {
                let y = &mut branch.hidden;
                self.attention.forward(pass, x, y, buffers, cache)?;
                norm.forward(pass, branch, &mut work.branch)?;
            }
            None => {
                let y = &mut work.branch;
                self.attention.forward(pass, x, y, buffers, cache)?;
            }
        }
        let norms = [&self.mlp_norm, &self.mlp_branch_norm];
        let add = (hidden, &work.branch);
        sum(pass, norms, add, &mut saved.middle, &mut work.normed)
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
        let buffers = (&mut saved.mlp, &mut work.mlp);
        match &mut self.mlp_norm {
            Some(mlp_norm) => {
                mlp_norm.forward(pass, &mut saved.middle, normed)?;
                let norm = self.mlp_branch_norm.as_mut();
                let dy = gradient_of_branch(pass, norm, &saved.mlp_branch, dhidden, dbranch)?;
                let (x, dx) = (&*normed, (&mut *dnormed, false));
                self.mlp.backward(pass, (x, dy), dx, buffers, adapters)?;
                mlp_norm.backward(pass, dnormed, &saved.middle, dhidden, true)?;
            }
            None => {
                let norm = self.mlp_branch_norm.as_mut();
                let dy = own_gradient(pass, norm, &saved.mlp_branch, dhidden, dbranch)?;
                let (x, dx) = (&saved.middle.hidden, (&mut *dhidden, true));
                self.mlp.backward(pass, (x, dy), dx, buffers, adapters)?;
            }
        }

        let buffers = (&mut saved.attention, &mut work.attention);
        let gradients = (attention, adapters);
        let Some(attention_norm) = &mut self.attention_norm else {
            let norm = self.attention_branch_norm.as_mut();
            let dy = own_gradient(pass, norm, &saved.attention_branch, dhidden, dbranch)?;
            let dx = ((!lowest).then_some(dhidden), true);
            let x = &stream.hidden;
            return self
                .attention
                .backward(pass, (x, dy), dx, buffers, gradients);
        };
        // The norm's own gradient needs that of its output.
        let lowest = lowest && !attention_norm.scale.is_trained();
        attention_norm.forward(pass, stream, normed)?;
        let norm = self.attention_branch_norm.as_mut();
        let dy = gradient_of_branch(pass, norm, &saved.attention_branch, dhidden, dbranch)?;
        let dx = ((!lowest).then_some(&mut *dnormed), false);
        self.attention
            .backward(pass, (&*normed, dy), dx, buffers, gradients)?;
        match lowest {
            true => Ok(()),
            false => attention_norm.backward(pass, dnormed, stream, dhidden, true),
        }
    }
}

/// The input of attention or MLP: the norm of the residual stream, or the stream itself.
fn input<'a, T>(norm: &Option<Norm<T>>, normed: &'a T, hidden: &'a T) -> &'a T {
    match norm {
        Some(_) => normed,
        None => hidden,
    }
}

/// `stream.hidden = x + branch`, and in `normed` its norm before a part. A part without such a norm
/// has one of its output, which then serves for the sum alone: `normed` is not read.
fn sum<D: Kernels>(
    pass: &Pass<'_, D>,
    [before, after]: [&Option<Norm<Tensor<D>>>; 2],
    add: (&Tensor<D>, &Tensor<D>),
    stream: &mut Stream<Tensor<D>>,
    normed: &mut Tensor<D>,
) -> Result<(), ModelError> {
    let norm = before.as_ref().or(after.as_ref());
    let norm = norm.ok_or(ModelError::NotAsPlanned)?;
    norm.forward_of_sum(pass, add, stream, normed)
}

/// The gradient of the output of a part whose output is normalised, in `dbranch`.
fn own_gradient<'a, D: Kernels>(
    pass: &Pass<'_, D>,
    norm: Option<&mut Norm<Tensor<D>>>,
    branch: &Option<Stream<Tensor<D>>>,
    dhidden: &Tensor<D>,
    dbranch: &'a mut Option<Tensor<D>>,
) -> Result<&'a Tensor<D>, ModelError> {
    gradient_of_branch(pass, norm, branch, dhidden, dbranch)?;
    dbranch.as_ref().ok_or(ModelError::NoBuffer(BRANCH_NORM))
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
