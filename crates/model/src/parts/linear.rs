//! A linear layer with its adapter.

use super::{Adapter, Dora, Held, HeldMut, Nf4, with_buffer};
use crate::{
    Adapters, BaseStorage, ModelError, activations,
    checkpoint::Stored,
    parameter::{Parameter, ParameterKind, Replaceable},
    pass::Pass,
    plan::Allocate,
    weights,
};
use tightrope_device::{Cpu, DType, Device, Tensor};
use tightrope_kernels::{
    Check, Kernels, dora,
    linear::{
        BackwardInput, BackwardWeights, Forward, LoraBackwardInput, LoraBackwardWeights,
        LoraForward, Shape,
    },
    product::Elements,
};

/// Name of the part in messages of [`with_buffer`].
const ADAPTER: &str = "an adapter";

/// The weight of a linear layer.
#[derive(Debug)]
pub(crate) enum Weight<T> {
    /// A trained or frozen weight.
    Float(Parameter<T>),
    /// A frozen weight.
    Nf4(Nf4<T>),
}

/// A linear layer.
#[derive(Debug)]
pub(crate) struct Linear<T> {
    pub weight: Weight<T>,
    pub bias: Option<Replaceable<T>>,
    pub adapter: Option<Adapter<T>>,
    /// Factor of the whole output (such a layer has no bias).
    pub factor: f32,
    pub inputs: usize,
    pub outputs: usize,
}

/// Values that a linear layer with an adapter keeps for its backward pass, with the largest rank of
/// the layers that share them.
#[derive(Debug)]
pub(crate) struct Saved<T> {
    /// `x·Aᵀ`, f32 `[tokens, rank]`.
    xa: Option<T>,
    /// With DoRA the output before the gain, `[tokens, outputs]`.
    z: Option<T>,
}

/// Work space of the backward pass of layers with adapters, with the largest sizes of all layers.
#[derive(Debug)]
pub(crate) struct BackwardWork<T> {
    /// `dy·B`, f32 `[tokens, rank]`.
    dyb: Option<T>,
    /// With DoRA the gradient before the gain, `[tokens, outputs]`.
    dz: Option<T>,
}

impl<T> BackwardWork<T> {
    /// Lays out the buffers for these layers.
    pub(crate) fn lay_out<'a, W: 'a, A: Allocate<Buffer = T>>(
        step: &mut activations::Builder<'_, A>,
        linears: impl Iterator<Item = &'a Linear<W>>,
    ) -> Result<Self, ModelError> {
        let (mut rank, mut outputs) = (None, None);
        for linear in linears {
            rank = rank.max(linear.rank());
            outputs = outputs.max(linear.has_dora().then_some(linear.outputs));
        }
        let dyb = rank.map(|rank| step.fixed("gradient of the adapter", DType::F32, rank));
        let dz = outputs.map(|outputs| step.work("gradient before the gain", outputs));
        Ok(Self {
            dyb: dyb.transpose()?,
            dz: dz.transpose()?,
        })
    }
}

impl<T> Saved<T> {
    /// Lays out the buffers for the layers that share them.
    pub(crate) fn lay_out<'a, W: 'a, A: Allocate<Buffer = T>>(
        step: &mut activations::Builder<'_, A>,
        at: &str,
        sharing: impl Iterator<Item = &'a Linear<W>>,
    ) -> Result<Self, ModelError> {
        let (mut rank, mut outputs) = (None, None);
        for linear in sharing {
            rank = rank.max(linear.rank());
            outputs = outputs.max(linear.has_dora().then_some(linear.outputs));
        }
        let xa = rank.map(|rank| step.statistic(format!("{at}: adapter"), rank));
        let z = outputs.map(|outputs| step.kept(format!("{at}: before the gain"), outputs));
        Ok(Self {
            xa: xa.transpose()?,
            z: z.transpose()?,
        })
    }
}

impl<T> Weight<T> {
    /// Name of the tensor in files.
    pub(crate) fn name(&self) -> &str {
        match self {
            Weight::Float(parameter) => &parameter.name,
            Weight::Nf4(weight) => &weight.name,
        }
    }

    fn lay_out<A: Allocate<Buffer = T>>(
        weights: &mut weights::Builder<'_, A>,
        name: String,
        shape: &[usize],
    ) -> Result<Self, ModelError> {
        let stored = (weights.layout.stored)(&name);
        let double = match (stored, weights.layout.base) {
            (Stored::Float(_), BaseStorage::AsStored) => {
                let weight = weights.matrix(name, shape)?;
                return Ok(Weight::Float(weight));
            }
            (Stored::Nf4 { double, .. }, _) => double,
            (Stored::Float(_), BaseStorage::Nf4) => true,
        };
        if weights.layout.full {
            let reason = "weights in NF4 cannot be trained: train an adapter on them";
            return Err(ModelError::Unsupported(reason));
        }
        let weight = Nf4::allocate(weights.allocate, name, stored.dtype(), shape, double)?;
        Ok(Weight::Nf4(weight))
    }
}

impl<D: Device> Weight<Tensor<D>> {
    pub(super) fn view(&self) -> Elements<'_, D> {
        match self {
            Weight::Float(parameter) => Elements::Float(parameter.value.view()),
            Weight::Nf4(weight) => Elements::Nf4(weight.view()),
        }
    }

    /// The elements, decoded on the host.
    pub(super) fn to_f32_vec(&self, host: &Cpu) -> Result<Vec<f32>, ModelError> {
        match self {
            Weight::Float(parameter) => Ok(parameter.value.to_f32_vec()?),
            Weight::Nf4(weight) => weight.to_f32_vec(host),
        }
    }
}

impl<T> Linear<T> {
    /// Lays out the layer called `module` in files.
    pub(crate) fn lay_out<A: Allocate<Buffer = T>>(
        weights: &mut weights::Builder<'_, A>,
        module: String,
        (inputs, outputs): (usize, usize),
        bias: bool,
    ) -> Result<Self, ModelError> {
        let weight = Weight::lay_out(weights, format!("{module}.weight"), &[outputs, inputs])?;
        let bias = match bias {
            true => {
                let name = format!("{module}.bias");
                Some(weights.replaceable(name, ParameterKind::Bias, &[outputs])?)
            }
            false => None,
        };
        let adapter = Adapter::lay_out(weights, &module, (inputs, outputs))?;
        Ok(Self {
            weight,
            bias,
            adapter,
            factor: 1.0,
            inputs,
            outputs,
        })
    }

    /// The same layer with its output multiplied by `factor`. Returns an error if the layer has a
    /// bias, which would be multiplied too.
    pub(crate) fn times(self, factor: f32) -> Result<Self, ModelError> {
        if factor != 1.0 && self.bias.is_some() {
            let reason = "a factor of the residual stream together with biases is not supported";
            return Err(ModelError::Unsupported(reason));
        }
        Ok(Self { factor, ..self })
    }

    pub(crate) fn held<'a>(&'a self, all: &mut Vec<Held<'a, T>>) {
        all.push(match &self.weight {
            Weight::Float(parameter) => Held::Base(parameter),
            Weight::Nf4(weight) => Held::Nf4(weight),
        });
        self.bias.iter().for_each(|bias| bias.held(all));
        if let Some(Adapter { a, b, dora, .. }) = &self.adapter {
            let magnitude = dora.as_ref().map(|dora| &dora.magnitude);
            all.extend([a, b].into_iter().chain(magnitude).map(Held::Adapter));
        }
    }

    pub(crate) fn held_mut<'a>(&'a mut self, all: &mut Vec<HeldMut<'a, T>>) {
        all.push(match &mut self.weight {
            Weight::Float(parameter) => HeldMut::Base(parameter),
            Weight::Nf4(weight) => HeldMut::Nf4(weight),
        });
        self.bias.iter_mut().for_each(|bias| bias.held_mut(all));
        if let Some(Adapter { a, b, dora, .. }) = &mut self.adapter {
            let magnitude = dora.as_mut().map(|dora| &mut dora.magnitude);
            all.extend([a, b].into_iter().chain(magnitude).map(HeldMut::Adapter));
        }
    }

    /// Name of the layer in files.
    pub(crate) fn module(&self) -> &str {
        self.weight.name().trim_end_matches(".weight")
    }

    /// Rank of the layer's adapter.
    pub(crate) fn rank(&self) -> Option<usize> {
        self.adapter.as_ref().map(|adapter| adapter.rank)
    }

    fn has_dora(&self) -> bool {
        let adapter = self.adapter.as_ref();
        adapter.is_some_and(|adapter| adapter.dora.is_some())
    }

    /// Whether any parameter of the layer is trained.
    fn is_trained(&self) -> bool {
        let weight = match &self.weight {
            Weight::Float(parameter) => Some(parameter),
            Weight::Nf4(_) => None,
        };
        let factors = self.adapter.iter().flat_map(|a| [&a.a, &a.b]);
        let bias = self.bias.as_ref().map(|bias| bias.of(Adapters::On));
        let mut parameters = weight.into_iter().chain(bias).chain(factors);
        parameters.any(|parameter| parameter.gradient.is_some())
    }

    fn shape(&self, tokens: usize) -> Shape {
        Shape {
            tokens,
            inputs: self.inputs,
            outputs: self.outputs,
        }
    }
}

impl<D: Kernels> Linear<Tensor<D>> {
    /// Writes `y` and the values kept for the backward pass.
    pub(crate) fn forward(
        &self,
        pass: &Pass<'_, D>,
        x: &Tensor<D>,
        y: &mut Tensor<D>,
        saved: &mut Saved<Tensor<D>>,
    ) -> Result<(), ModelError> {
        let adapter = pass.adapter(&self.adapter);
        let lora = with_buffer(adapter, saved.xa.as_mut(), ADAPTER)?;
        let bias = self.bias.as_ref();
        let dora = adapter.and_then(|adapter| adapter.dora.as_ref());
        let dora = with_buffer(dora, saved.z.as_mut(), ADAPTER)?;
        let lora = match (lora, dora) {
            (Some((adapter, xa)), Some((dora, z))) => {
                let dropout = pass.dropout(adapter.salt);
                let forward = dora::Forward {
                    x: x.view(),
                    weight: self.weight.view(),
                    factor: self.factor,
                    bias: bias.map(|bias| bias.of(pass.adapters).value.view()),
                    adapter: adapter.with_gain(dora, self.factor, dropout),
                    xa: xa.view_mut(),
                    z: z.view_mut(),
                    y: y.view_mut(),
                    shape: self.shape(pass.tokens),
                };
                return Ok(forward.run(pass.device)?);
            }
            (lora, _) => lora,
        };
        let forward = Forward {
            x: x.view(),
            weight: self.weight.view(),
            factor: self.factor,
            bias: bias.map(|bias| bias.of(pass.adapters).value.view()),
            lora: lora.map(|(adapter, xa)| LoraForward {
                a: adapter.factors(pass.adapters).0.view(),
                b: adapter.factors(pass.adapters).1.view(),
                scale: adapter.scale * self.factor,
                dropout: pass.dropout(adapter.salt),
                xa: xa.view_mut(),
            }),
            y: y.view_mut(),
            shape: self.shape(pass.tokens),
        };
        Ok(pass.device.linear_forward(forward.checked()?)?)
    }

    /// Adds into the gradients of trained parameters. Before that it writes or adds into `dx`, if
    /// it is wanted; with an adapter it writes `work`.
    pub(crate) fn backward(
        &mut self,
        pass: &Pass<'_, D>,
        (x, dy): (&Tensor<D>, &Tensor<D>),
        (dx, accumulate): (Option<&mut Tensor<D>>, bool),
        saved: &Saved<Tensor<D>>,
        work: &mut BackwardWork<Tensor<D>>,
    ) -> Result<(), ModelError> {
        self.backward_input(pass, dy, (dx, accumulate), saved, work)?;
        self.backward_weights(pass, (x, dy), saved, work)
    }

    /// The first half of [`Linear::backward`], which does not need `x`.
    pub(crate) fn backward_input(
        &mut self,
        pass: &Pass<'_, D>,
        dy: &Tensor<D>,
        (dx, accumulate): (Option<&mut Tensor<D>>, bool),
        saved: &Saved<Tensor<D>>,
        work: &mut BackwardWork<Tensor<D>>,
    ) -> Result<(), ModelError> {
        let shape = self.shape(pass.tokens);
        if let Some(adapter) = self
            .adapter
            .as_mut()
            .filter(|adapter| adapter.dora.is_some())
        {
            let buffers = saved
                .z
                .as_ref()
                .zip(work.dyb.as_mut().zip(work.dz.as_mut()));
            let Some((z, (dyb, dz))) = buffers else {
                return Err(ModelError::NoBuffer(ADAPTER));
            };
            // The gradient is taken out, so that the rest can be read at the same time.
            let gradient = |dora: &mut Dora<_>| dora.magnitude.gradient.take();
            let Some(mut dmagnitude) = adapter.dora.as_mut().and_then(gradient) else {
                return Err(ModelError::NoBuffer(ADAPTER));
            };
            let Some(dora) = &adapter.dora else {
                return Err(ModelError::NoBuffer(ADAPTER));
            };
            let dropout = pass.dropout(adapter.salt);
            let backward = dora::BackwardInput {
                dy: dy.view(),
                weight: self.weight.view(),
                factor: self.factor,
                adapter: adapter.with_gain(dora, self.factor, dropout),
                norm: dora.norm.view(),
                z: z.view(),
                dz: dz.view_mut(),
                dyb: dyb.view_mut(),
                dmagnitude: dmagnitude.view_mut(),
                dx: dx.map(Tensor::view_mut),
                accumulate,
                shape,
            };
            let result = backward.run(pass.device);
            if let Some(dora) = &mut adapter.dora {
                dora.magnitude.gradient = Some(dmagnitude);
            }
            return Ok(result?);
        }
        let lora = with_buffer(pass.adapter(&self.adapter), work.dyb.as_mut(), ADAPTER)?;
        let backward = BackwardInput {
            dy: dy.view(),
            weight: self.weight.view(),
            factor: self.factor,
            lora: lora.map(|(adapter, dyb)| LoraBackwardInput {
                a: adapter.a.value.view(),
                b: adapter.b.value.view(),
                scale: adapter.scale * self.factor,
                dropout: pass.dropout(adapter.salt),
                dyb: dyb.view_mut(),
            }),
            dx: dx.map(Tensor::view_mut),
            accumulate,
            shape,
        };
        Ok(pass.device.linear_backward_input(backward.checked()?)?)
    }

    /// The second half of [`Linear::backward`], with the `work` of the first.
    pub(crate) fn backward_weights(
        &mut self,
        pass: &Pass<'_, D>,
        (x, dy): (&Tensor<D>, &Tensor<D>),
        saved: &Saved<Tensor<D>>,
        work: &BackwardWork<Tensor<D>>,
    ) -> Result<(), ModelError> {
        if !self.is_trained() {
            return Ok(());
        }
        let (shape, has_dora) = (self.shape(pass.tokens), self.has_dora());
        let buffers = saved.xa.as_ref().zip(work.dyb.as_ref());
        let lora = match with_buffer(self.adapter.as_mut(), buffers, ADAPTER)? {
            None => None,
            Some((adapter, (xa, dyb))) => {
                let (da, db) = (&mut adapter.a.gradient, &mut adapter.b.gradient);
                let gradients = with_buffer(da.as_mut(), db.as_mut(), ADAPTER)?;
                gradients.map(|(da, db)| LoraBackwardWeights {
                    scale: adapter.scale * self.factor,
                    dropout: pass.dropout(adapter.salt),
                    xa: xa.view(),
                    dyb: dyb.view(),
                    da: da.view_mut(),
                    db: db.view_mut(),
                })
            }
        };
        let dweight = match &mut self.weight {
            Weight::Float(parameter) => parameter.gradient.as_mut(),
            Weight::Nf4(_) => None,
        };
        let dbias = self.bias.as_mut();
        let dbias = dbias.and_then(|bias| bias.trained_mut().gradient.as_mut());
        let lora = match (lora, work.dz.as_ref().filter(|_| has_dora)) {
            (Some(lora), Some(dz)) => {
                let backward = dora::BackwardWeights {
                    x: x.view(),
                    dy: dy.view(),
                    dz: dz.view(),
                    dbias: dbias.map(Tensor::view_mut),
                    lora,
                    shape,
                };
                return Ok(backward.run(pass.device)?);
            }
            (lora, _) => lora,
        };
        let backward = BackwardWeights {
            x: x.view(),
            dy: dy.view(),
            dweight: dweight.map(Tensor::view_mut),
            factor: self.factor,
            dbias: dbias.map(Tensor::view_mut),
            lora,
            shape,
        };
        Ok(pass.device.linear_backward_weights(backward.checked()?)?)
    }
}
