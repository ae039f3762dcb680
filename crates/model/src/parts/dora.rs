//! The magnitude of a weight-decomposed adapter (DoRA).

use super::{Adapter, linear::Linear};
use crate::{
    ModelError,
    lora::PREFIX,
    parameter::{Parameter, ParameterKind},
    plan::{Allocate, PlannedBuffer, Purpose},
    weights,
};
use tightrope_device::{Cpu, DType, Device, Tensor};
use tightrope_kernels::{Kernels, dora};

/// Magnitudes of the rows of a weight, and norms that follow from the weight and the factors.
#[derive(Debug)]
pub(crate) struct Dora<T> {
    /// f32 `[outputs]`.
    pub magnitude: Parameter<T>,
    /// f32 `[outputs]`: sums of the squares of the rows of the frozen weight.
    squares: T,
    /// f32 `[outputs]`: norms of the rows of the weight with the factors.
    pub(super) norm: T,
    /// f32 `[outputs]`: magnitude over norm.
    pub(super) gain: T,
}

impl<T> Dora<T> {
    /// Lays out the magnitude of the layer called `module` in files.
    pub(super) fn lay_out<A: Allocate<Buffer = T>>(
        weights: &mut weights::Builder<'_, A>,
        module: &str,
        outputs: usize,
    ) -> Result<Self, ModelError> {
        let name = format!("{PREFIX}{module}.lora_magnitude_vector");
        let magnitude = weights.of_adapter(name, ParameterKind::Magnitude, &[outputs])?;
        let mut buffer = |part: &str| {
            weights.allocate.allocate(PlannedBuffer {
                name: format!("{module}: {part}"),
                purpose: Purpose::Adapter,
                dtype: DType::F32,
                shape: vec![outputs],
                trained: None,
            })
        };
        Ok(Self {
            magnitude,
            squares: buffer("squares of rows")?,
            norm: buffer("norms of rows")?,
            gain: buffer("gains of rows")?,
        })
    }
}

impl<D: Device> Adapter<Tensor<D>> {
    /// The adapter for an operation of a layer with this factor, with its magnitude.
    pub(super) fn with_gain<'a>(
        &'a self,
        dora: &'a Dora<Tensor<D>>,
        factor: f32,
        dropout: Option<tightrope_kernels::product::Dropout<'a, D>>,
    ) -> dora::Adapter<'a, D> {
        dora::Adapter {
            a: self.a.value.view(),
            b: self.b.value.view(),
            scale: self.scale * factor,
            dropout,
            gain: dora.gain.view(),
        }
    }
}

impl<D: Kernels> Linear<Tensor<D>> {
    /// Computes what depends on the frozen weight alone, after that was read.
    pub(crate) fn fill_squares(&mut self, host: &Cpu) -> Result<(), ModelError> {
        let adapter = self.adapter.as_mut();
        let Some(dora) = adapter.and_then(|adapter| adapter.dora.as_mut()) else {
            return Ok(());
        };
        let weight = self.weight.to_f32_vec(host)?;
        let rows = weight.chunks_exact(self.inputs);
        let squares: Vec<f32> = rows.map(|row| sum_of_squares(row) as f32).collect();
        Ok(dora.squares.write(&squares)?)
    }

    /// Computes norms and gains for the present values of the factors and the magnitude.
    pub(crate) fn refresh_norms(&mut self, device: &D) -> Result<(), ModelError> {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let weight = self.weight.view();
        let Some(adapter) = &mut self.adapter else {
            return Ok(());
        };
        let Some(dora) = &mut adapter.dora else {
            return Ok(());
        };
        let norms = dora::Norms {
            weight,
            squares: dora.squares.view(),
            a: adapter.a.value.view(),
            b: adapter.b.value.view(),
            scale: adapter.scale,
            magnitude: dora.magnitude.value.view(),
            norm: dora.norm.view_mut(),
            gain: dora.gain.view_mut(),
            inputs,
            outputs,
        };
        Ok(norms.run(device)?)
    }

    /// Sets the magnitude of a new adapter to the norms, so that it changes nothing.
    pub(crate) fn start_magnitude(&mut self) -> Result<(), ModelError> {
        let adapter = self.adapter.as_mut();
        if let Some(dora) = adapter.and_then(|adapter| adapter.dora.as_mut()) {
            dora.magnitude.value.write(&dora.norm.to_f32_vec()?)?;
        }
        Ok(())
    }
}

/// The sum of the squares of a row, in f64.
fn sum_of_squares(row: &[f32]) -> f64 {
    row.iter().map(|&w| f64::from(w) * f64::from(w)).sum()
}
