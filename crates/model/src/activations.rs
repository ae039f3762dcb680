//! The layout of a step's activations for a capacity of tokens. Unless its description names a
//! type, a buffer has the type of the model's precision.

use crate::{
    Architecture, ModelError,
    parts::{BackwardWork, Saved, Stream, Work},
    plan::{Allocate, PlannedBuffer, Purpose},
    weights::Weights,
};
use tightrope_device::DType;

/// A batch on the device.
#[derive(Debug)]
pub(crate) struct Inputs<T> {
    /// u32 `[tokens]`.
    pub ids: T,
    /// i32 `[tokens]`.
    pub targets: T,
    /// Angles of each of the frequencies that the model has.
    pub angles: Vec<Angles<T>>,
    /// f32 `[tokens]`.
    pub losses: T,
}

/// Angles of the rotation, f32 `[tokens, rotary_dim / 2]`.
#[derive(Debug)]
pub(crate) struct Angles<T> {
    pub cos: T,
    pub sin: T,
}

/// All activations.
#[derive(Debug)]
pub(crate) struct Activations<T> {
    pub inputs: Inputs<T>,
    /// The residual stream: one entry before each layer and one at the end; a single entry if
    /// nothing is trained.
    pub stream: Vec<Stream<T>>,
    /// One entry per layer; a single one with recomputation, or if nothing is trained.
    pub saved: Vec<Saved<T>>,
    pub work: Work<T>,
}

/// Additional buffers of a training step.
#[derive(Debug)]
pub(crate) struct Step<T> {
    /// f32 `[tokens]`: weight of each loss in the gradient.
    pub weights: T,
    /// u32 `[tokens, 2]`: sequence and position of each token, for dropout.
    pub keys: T,
    pub backward: BackwardWork<T>,
}

/// Index of the element of [`Activations::saved`] that a layer uses, of `count` elements.
pub(crate) fn slot(layer: usize, count: usize) -> usize {
    layer % count
}

/// Lays activations out.
pub(crate) struct Builder<'a, A> {
    pub allocate: &'a mut A,
    pub architecture: &'a Architecture,
    pub capacity: usize,
    /// Type of activations.
    pub precision: DType,
}

impl<T, A: Allocate<Buffer = T>> Builder<'_, A> {
    /// Lays out all activations of the model whose parameters are `weights`.
    pub(crate) fn activations<W>(
        &mut self,
        weights: &Weights<W>,
        trained: bool,
        recompute: bool,
    ) -> Result<Activations<T>, ModelError> {
        let layers = self.architecture.layers();
        let streams = if trained { layers + 1 } else { 1 };
        let slots = if trained && !recompute { layers } else { 1 };
        let inputs = self.inputs()?;
        let stream = (0..streams)
            .map(|index| Stream::lay_out(self, &format!("residual {index}")))
            .collect::<Result<_, _>>()?;
        let saved = (0..slots)
            .map(|index| {
                let layers = weights.layers.iter().enumerate();
                let sharing = layers.filter(|(layer, _)| slot(*layer, slots) == index);
                let sharing: Vec<_> = sharing.map(|(_, layer)| layer).collect();
                Saved::lay_out(self, &format!("layer {index}"), &sharing)
            })
            .collect::<Result<_, _>>()?;
        let work = Work::lay_out(self)?;
        Ok(Activations {
            inputs,
            stream,
            saved,
            work,
        })
    }

    /// Lays out the additional buffers of a training step for the model whose parameters are
    /// `weights`.
    pub(crate) fn step<W>(&mut self, weights: &Weights<W>) -> Result<Step<T>, ModelError> {
        Ok(Step {
            weights: self.fixed("weights of losses", DType::F32, 1)?,
            keys: self.fixed("dropout keys", DType::U32, 2)?,
            backward: BackwardWork::lay_out(self, weights.linears())?,
        })
    }

    fn inputs(&mut self) -> Result<Inputs<T>, ModelError> {
        let ropes = self.architecture.ropes();
        let pairs: Vec<usize> = ropes.map(|rope| rope.rotary_dim() / 2).collect();
        Ok(Inputs {
            ids: self.fixed("token ids", DType::U32, 1)?,
            targets: self.fixed("targets", DType::I32, 1)?,
            angles: pairs
                .into_iter()
                .map(|pairs| {
                    let cos = self.fixed("cosines", DType::F32, pairs)?;
                    let sin = self.fixed("sines", DType::F32, pairs)?;
                    Ok(Angles { cos, sin })
                })
                .collect::<Result<_, ModelError>>()?,
            losses: self.fixed("losses", DType::F32, 1)?,
        })
    }

    /// A buffer kept for the backward pass, `[tokens, features]` in the model's precision.
    pub(crate) fn kept(&mut self, name: String, features: usize) -> Result<T, ModelError> {
        self.rows(name, Purpose::Saved, self.precision, features)
    }

    /// A buffer kept for the backward pass in f32, whatever the precision, `[tokens, features]`.
    pub(crate) fn statistic(&mut self, name: String, features: usize) -> Result<T, ModelError> {
        self.rows(name, Purpose::Saved, DType::F32, features)
    }

    /// Work space, `[tokens, features]` in the model's precision.
    pub(crate) fn work(&mut self, name: &str, features: usize) -> Result<T, ModelError> {
        self.rows(name.into(), Purpose::Workspace, self.precision, features)
    }

    /// Work space of a fixed type, `[tokens, features]`.
    pub(crate) fn fixed(
        &mut self,
        name: &str,
        dtype: DType,
        features: usize,
    ) -> Result<T, ModelError> {
        self.rows(name.into(), Purpose::Workspace, dtype, features)
    }

    fn rows(
        &mut self,
        name: String,
        purpose: Purpose,
        dtype: DType,
        features: usize,
    ) -> Result<T, ModelError> {
        self.allocate.allocate(PlannedBuffer {
            name,
            purpose,
            dtype,
            shape: vec![self.capacity, features],
            trained: None,
        })
    }
}
