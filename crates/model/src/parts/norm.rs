//! Root-mean-square norms, and the streams that they read.

use super::{Held, HeldMut};
use crate::{
    ModelError, activations,
    parameter::{ParameterKind, Replaceable},
    pass::Pass,
    plan::Allocate,
    weights,
};
use tightrope_device::{Device, Tensor, View};
use tightrope_kernels::{
    Check,
    rms_norm::{self, Residual, RmsNorm},
};

/// A norm of rows of the residual stream, or of a branch.
#[derive(Debug)]
pub(crate) struct Norm<T> {
    /// f32 `[hidden]`.
    pub scale: Replaceable<T>,
}

/// Rows that are normalised, and the statistics of the norm.
#[derive(Debug)]
pub(crate) struct Stream<T> {
    /// `[tokens, hidden]`.
    pub hidden: T,
    /// f32 `[tokens]`.
    pub rstd: T,
}

impl<T> Stream<T> {
    pub(crate) fn lay_out<A: Allocate<Buffer = T>>(
        step: &mut activations::Builder<'_, A>,
        name: &str,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            hidden: step.kept(name.to_string(), step.architecture.hidden)?,
            rstd: step.statistic(format!("{name}, rstd"), 1)?,
        })
    }
}

impl<T> Norm<T> {
    /// Lays out the norm called `module` in files.
    pub(crate) fn lay_out<A: Allocate<Buffer = T>>(
        weights: &mut weights::Builder<'_, A>,
        module: String,
    ) -> Result<Self, ModelError> {
        let shape = [weights.architecture.hidden];
        let name = format!("{module}.weight");
        let scale = weights.replaceable(name, ParameterKind::Norm, &shape)?;
        Ok(Self { scale })
    }

    pub(crate) fn held<'a>(&'a self, all: &mut Vec<Held<'a, T>>) {
        self.scale.held(all);
    }

    pub(crate) fn held_mut<'a>(&'a mut self, all: &mut Vec<HeldMut<'a, T>>) {
        self.scale.held_mut(all);
    }
}

impl<D: Device + RmsNorm> Norm<Tensor<D>> {
    /// Writes the norm of `stream.hidden` to `y`, and `stream.rstd`.
    pub(crate) fn forward(
        &self,
        pass: &Pass<'_, D>,
        stream: &mut Stream<Tensor<D>>,
        y: &mut Tensor<D>,
    ) -> Result<(), ModelError> {
        let Stream { hidden, rstd } = stream;
        self.run(pass, hidden.view(), None, y, rstd)
    }

    /// Computes `stream.hidden = x + branch` first, and then [`Norm::forward`].
    pub(crate) fn forward_of_sum(
        &self,
        pass: &Pass<'_, D>,
        (x, branch): (&Tensor<D>, &Tensor<D>),
        stream: &mut Stream<Tensor<D>>,
        y: &mut Tensor<D>,
    ) -> Result<(), ModelError> {
        let residual = Residual {
            add: branch.view(),
            sum: stream.hidden.view_mut(),
        };
        self.run(pass, x.view(), Some(residual), y, &mut stream.rstd)
    }

    fn run(
        &self,
        pass: &Pass<'_, D>,
        x: View<'_, D>,
        residual: Option<Residual<'_, D>>,
        y: &mut Tensor<D>,
        rstd: &mut Tensor<D>,
    ) -> Result<(), ModelError> {
        let forward = rms_norm::Forward {
            x,
            residual,
            weight: self.scale.of(pass.adapters).value.view(),
            plus_one: pass.architecture.norm_plus_one,
            eps: pass.architecture.norm_eps,
            y: y.view_mut(),
            rstd: rstd.view_mut(),
            rows: pass.tokens,
            dim: pass.architecture.hidden,
        };
        Ok(pass.device.rms_norm_forward(forward.checked()?)?)
    }

    /// Adds the gradient with respect to `stream.hidden` into `dx` (or overwrites it), and adds the
    /// gradient of the scale.
    pub(crate) fn backward(
        &mut self,
        pass: &Pass<'_, D>,
        dy: &Tensor<D>,
        stream: &Stream<Tensor<D>>,
        dx: &mut Tensor<D>,
        accumulate: bool,
    ) -> Result<(), ModelError> {
        let scale = self.scale.trained_mut();
        let backward = rms_norm::Backward {
            dy: dy.view(),
            x: stream.hidden.view(),
            rstd: stream.rstd.view(),
            weight: scale.value.view(),
            plus_one: pass.architecture.norm_plus_one,
            dx: dx.view_mut(),
            accumulate,
            dweight: scale.gradient.as_mut().map(Tensor::view_mut),
            rows: pass.tokens,
            dim: pass.architecture.hidden,
        };
        Ok(pass.device.rms_norm_backward(backward.checked()?)?)
    }
}
