//! The gated feed-forward unit: `down(activation(gate(x)) · up(x))`.

use super::{Held, HeldMut, Linear, linear};
use crate::{ModelError, activations, parameter::Replaceable, pass::Pass, plan::Allocate, weights};
use tightrope_device::Tensor;
use tightrope_kernels::{Check, Kernels, glu};

/// Weights of the unit.
#[derive(Debug)]
pub(crate) struct Mlp<T> {
    pub gate: Linear<T>,
    pub up: Linear<T>,
    pub down: Linear<T>,
}

/// Values that the backward pass needs from the forward pass, and overwrites.
#[derive(Debug)]
pub(crate) struct Saved<T> {
    /// `[tokens, intermediate]`; in the backward pass its gradient.
    gate: T,
    /// `[tokens, intermediate]`; in the backward pass its gradient.
    up: T,
    of_gate: linear::Saved<T>,
    of_up: linear::Saved<T>,
    of_down: linear::Saved<T>,
}

/// Work space.
#[derive(Debug)]
pub(crate) struct Work<T> {
    /// Input of `down`, `[tokens, intermediate]`; in the backward pass first its gradient.
    activated: T,
}

impl<T> Saved<T> {
    /// Lays out the buffers for the layers that share them.
    pub(crate) fn lay_out<W, A: Allocate<Buffer = T>>(
        step: &mut activations::Builder<'_, A>,
        at: &str,
        sharing: &[&Mlp<W>],
    ) -> Result<Self, ModelError> {
        let features = step.architecture.intermediate;
        Ok(Self {
            gate: step.kept(format!("{at}: gate"), features)?,
            up: step.kept(format!("{at}: up"), features)?,
            of_gate: linear::Saved::lay_out(step, at, sharing.iter().map(|mlp| &mlp.gate))?,
            of_up: linear::Saved::lay_out(step, at, sharing.iter().map(|mlp| &mlp.up))?,
            of_down: linear::Saved::lay_out(step, at, sharing.iter().map(|mlp| &mlp.down))?,
        })
    }
}

impl<T> Work<T> {
    pub(crate) fn lay_out<A: Allocate<Buffer = T>>(
        step: &mut activations::Builder<'_, A>,
    ) -> Result<Self, ModelError> {
        let activated = step.work("activated", step.architecture.intermediate)?;
        Ok(Self { activated })
    }
}

/// Names of modules in a layer of Transformers and of GGUF files.
pub(super) const NAMES: [(&str, &str); 3] = [
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

impl<T> Mlp<T> {
    /// Lays out the unit of the layer called `layer` in files.
    pub(crate) fn lay_out<A: Allocate<Buffer = T>>(
        weights: &mut weights::Builder<'_, A>,
        layer: &str,
    ) -> Result<Self, ModelError> {
        let architecture = weights.architecture;
        let (hidden, intermediate) = (architecture.hidden, architecture.intermediate);
        let mut linear = |part: &str, sizes| {
            let module = format!("{layer}.mlp.{part}");
            Linear::lay_out(weights, module, sizes, architecture.mlp_bias)
        };
        Ok(Self {
            gate: linear("gate_proj", (hidden, intermediate))?,
            up: linear("up_proj", (hidden, intermediate))?,
            down: linear("down_proj", (intermediate, hidden))?
                .times(architecture.residual_scale)?,
        })
    }

    /// Linear layers of the part.
    pub(crate) fn linears(&self) -> [&Linear<T>; 3] {
        [&self.gate, &self.up, &self.down]
    }

    /// Linear layers of the part.
    pub(crate) fn linears_mut(&mut self) -> [&mut Linear<T>; 3] {
        [&mut self.gate, &mut self.up, &mut self.down]
    }

    pub(crate) fn held<'a>(&'a self, all: &mut Vec<Held<'a, T>>) {
        self.linears()
            .into_iter()
            .for_each(|linear| linear.held(all));
    }

    pub(crate) fn held_mut<'a>(&'a mut self, all: &mut Vec<HeldMut<'a, T>>) {
        let linears = self.linears_mut().into_iter();
        linears.for_each(|linear| linear.held_mut(all));
    }

    /// Parameters of the part that an adapter may replace.
    pub(crate) fn replaceable_mut<'a>(&'a mut self, all: &mut Vec<&'a mut Replaceable<T>>) {
        let linears = [&mut self.gate, &mut self.up, &mut self.down];
        all.extend(
            linears
                .into_iter()
                .filter_map(|linear| linear.bias.as_mut()),
        );
    }
}

impl<D: Kernels> Mlp<Tensor<D>> {
    /// Computes `y` from `x`, the output of the norm.
    pub(crate) fn forward(
        &self,
        pass: &Pass<'_, D>,
        x: &Tensor<D>,
        y: &mut Tensor<D>,
        saved: &mut Saved<Tensor<D>>,
        work: &mut Work<Tensor<D>>,
    ) -> Result<(), ModelError> {
        self.gate_and_up(pass, x, saved)?;
        let gated = glu::Forward {
            gate: saved.gate.view(),
            up: saved.up.view(),
            y: work.activated.view_mut(),
            activation: pass.architecture.activation,
            elements: pass.tokens * pass.architecture.intermediate,
        };
        pass.device.glu_forward(gated.checked()?)?;
        self.down
            .forward(pass, &work.activated, y, &mut saved.of_down)
    }

    /// Fills `saved` again, bit for bit; `y` is written only if that is necessary.
    pub(crate) fn forward_again(
        &self,
        pass: &Pass<'_, D>,
        x: &Tensor<D>,
        y: &mut Tensor<D>,
        saved: &mut Saved<Tensor<D>>,
        work: &mut Work<Tensor<D>>,
    ) -> Result<(), ModelError> {
        if self.down.adapter.is_some() {
            return self.forward(pass, x, y, saved, work);
        }
        self.gate_and_up(pass, x, saved)
    }

    fn gate_and_up(
        &self,
        pass: &Pass<'_, D>,
        x: &Tensor<D>,
        saved: &mut Saved<Tensor<D>>,
    ) -> Result<(), ModelError> {
        self.gate
            .forward(pass, x, &mut saved.gate, &mut saved.of_gate)?;
        self.up.forward(pass, x, &mut saved.up, &mut saved.of_up)
    }

    /// Writes the gradient with respect to `x` to `dx`, or adds it there with `accumulate`, and adds
    /// into the gradients of trained parameters.
    pub(crate) fn backward(
        &mut self,
        pass: &Pass<'_, D>,
        (x, dy): (&Tensor<D>, &Tensor<D>),
        (dx, accumulate): (&mut Tensor<D>, bool),
        (saved, work): (&mut Saved<Tensor<D>>, &mut Work<Tensor<D>>),
        adapters: &mut linear::BackwardWork<Tensor<D>>,
    ) -> Result<(), ModelError> {
        let activated = &mut work.activated;
        self.down
            .backward_input(pass, dy, (Some(activated), false), &saved.of_down, adapters)?;
        let gated = glu::Backward {
            gate: saved.gate.view_mut(),
            up: saved.up.view_mut(),
            dy: activated.view_mut(),
            activation: pass.architecture.activation,
            elements: pass.tokens * pass.architecture.intermediate,
        };
        pass.device.glu_backward(gated.checked()?)?;
        let down = (&*activated, dy);
        self.down
            .backward_weights(pass, down, &saved.of_down, adapters)?;
        let gate = (x, &saved.gate);
        self.gate.backward(
            pass,
            gate,
            (Some(&mut *dx), accumulate),
            &saved.of_gate,
            adapters,
        )?;
        let up = (x, &saved.up);
        self.up
            .backward(pass, up, (Some(dx), true), &saved.of_up, adapters)
    }
}
