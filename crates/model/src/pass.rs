//! What one pass through the model has in common for every layer, and the linear layer in both
//! directions.

use crate::{Architecture, ModelError, weights::Projection};
use tightrope_device::{Device, Tensor};
use tightrope_kernels::{
    Check,
    attention::{self, Ranges},
    linear::{
        BackwardInput, BackwardWeights, Dropout, Forward, Linear, LoraBackwardInput,
        LoraBackwardWeights, LoraForward, Shape,
    },
};

/// The same for every layer of a pass.
#[derive(Debug)]
pub(crate) struct Pass<'a, D: Device> {
    pub device: &'a D,
    pub architecture: &'a Architecture,
    /// Rows of every buffer that are in use.
    pub tokens: usize,
    pub ranges: &'a Ranges<D>,
    pub cos: &'a Tensor<D>,
    pub sin: &'a Tensor<D>,
    /// Of adapters, in training; the salt is that of the step.
    pub dropout: Option<Dropout<'a, D>>,
}

impl<D: Device> Pass<'_, D> {
    /// Attention of one layer.
    pub fn attention(&self, layer: usize) -> attention::Config<'_, D> {
        attention::Config {
            ranges: self.ranges,
            heads: self.architecture.heads,
            kv_heads: self.architecture.kv_heads,
            head_dim: self.architecture.head_dim,
            scale: self.architecture.attention_scale,
            window: self.architecture.windows[layer],
            softcap: self.architecture.attention_softcap,
        }
    }

    /// Dropout with a salt of its own for each adapter.
    fn dropout(&self, salt: u64) -> Option<Dropout<'_, D>> {
        self.dropout.map(|dropout| Dropout {
            salt: mix(dropout.salt ^ mix(salt)),
            ..dropout
        })
    }
}

/// The finalizer of SplitMix64: neighbouring numbers give unrelated ones.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a layer has, with the buffer that was laid out for it. A buffer may be there in vain, since
/// layers share them; that one is lacking is an error, and never means that the layer has nothing.
pub(crate) fn with_buffer<P, B>(
    part: Option<P>,
    buffer: Option<B>,
    what: &'static str,
) -> Result<Option<(P, B)>, ModelError> {
    match (part, buffer) {
        (None, _) => Ok(None),
        (Some(part), Some(buffer)) => Ok(Some((part, buffer))),
        (Some(_), None) => Err(ModelError::NoBuffer(what)),
    }
}

/// For messages of [`with_buffer`].
const ADAPTER: &str = "an adapter";

impl<D: Linear> Projection<Tensor<D>> {
    fn shape(&self, tokens: usize) -> Shape {
        Shape {
            tokens,
            inputs: self.inputs,
            outputs: self.outputs,
        }
    }

    /// Writes `y` and, with an adapter, `xa`.
    pub fn forward(
        &self,
        pass: &Pass<'_, D>,
        x: &Tensor<D>,
        y: &mut Tensor<D>,
        xa: &mut Option<Tensor<D>>,
    ) -> Result<(), ModelError> {
        let lora = with_buffer(self.adapter.as_ref(), xa.as_mut(), ADAPTER)?;
        let forward = Forward {
            x: x.view(),
            weight: self.weight.view(),
            bias: self.bias.as_ref().map(|bias| bias.value.view()),
            lora: lora.map(|(adapter, xa)| LoraForward {
                a: adapter.a.value.view(),
                b: adapter.b.value.view(),
                scale: adapter.scale,
                dropout: pass.dropout(adapter.salt),
                xa: xa.view_mut(),
            }),
            y: y.view_mut(),
            shape: self.shape(pass.tokens),
        };
        Ok(pass.device.linear_forward(forward.checked()?)?)
    }

    /// Writes or adds into `dx`; with an adapter writes `dyb`.
    pub fn backward_input(
        &self,
        pass: &Pass<'_, D>,
        dy: &Tensor<D>,
        dx: Option<&mut Tensor<D>>,
        accumulate: bool,
        dyb: &mut Option<Tensor<D>>,
    ) -> Result<(), ModelError> {
        let lora = with_buffer(self.adapter.as_ref(), dyb.as_mut(), ADAPTER)?;
        let backward = BackwardInput {
            dy: dy.view(),
            weight: self.weight.view(),
            lora: lora.map(|(adapter, dyb)| LoraBackwardInput {
                a: adapter.a.value.view(),
                b: adapter.b.value.view(),
                scale: adapter.scale,
                dropout: pass.dropout(adapter.salt),
                dyb: dyb.view_mut(),
            }),
            dx: dx.map(Tensor::view_mut),
            accumulate,
            shape: self.shape(pass.tokens),
        };
        Ok(pass.device.linear_backward_input(backward.checked()?)?)
    }

    /// Adds into the gradients of what is trained; `dyb` is that of [`Self::backward_input`].
    pub fn backward_weights(
        &mut self,
        pass: &Pass<'_, D>,
        x: &Tensor<D>,
        dy: &Tensor<D>,
        xa: &Option<Tensor<D>>,
        dyb: &Option<Tensor<D>>,
    ) -> Result<(), ModelError> {
        if !self.trained() {
            return Ok(());
        }
        let shape = self.shape(pass.tokens);
        let buffers = xa.as_ref().zip(dyb.as_ref());
        let lora = match with_buffer(self.adapter.as_mut(), buffers, ADAPTER)? {
            None => None,
            Some((adapter, (xa, dyb))) => {
                let (da, db) = (&mut adapter.a.gradient, &mut adapter.b.gradient);
                let gradients = with_buffer(da.as_mut(), db.as_mut(), ADAPTER)?;
                gradients.map(|(da, db)| LoraBackwardWeights {
                    scale: adapter.scale,
                    dropout: pass.dropout(adapter.salt),
                    xa: xa.view(),
                    dyb: dyb.view(),
                    da: da.view_mut(),
                    db: db.view_mut(),
                })
            }
        };
        let backward = BackwardWeights {
            x: x.view(),
            dy: dy.view(),
            dweight: self.weight.gradient_mut().map(Tensor::view_mut),
            dbias: self
                .bias
                .as_mut()
                .and_then(|b| b.gradient.as_mut())
                .map(Tensor::view_mut),
            lora,
            shape,
        };
        Ok(pass.device.linear_backward_weights(backward.checked()?)?)
    }
}
