//! Initial factors that follow from the weight: PiSSA and OLoRA take them out of it, and LoftQ makes
//! up for what NF4 loses.

use super::{
    Adapter,
    linear::{Linear, Weight},
};
use crate::{ConfigError, InitialFactors, ModelError, adapter::halves, export::to_bytes};
use faer::MatRef;
use tightrope_device::{Cpu, Device, Tensor};
use tightrope_formats::Tensors;

/// The factors that an adapter started from, which the frozen weight lacks.
#[derive(Debug)]
pub(crate) struct Start<T> {
    /// f32 `[rank, inputs]`.
    pub a: T,
    /// f32 `[outputs, rank]`.
    pub b: T,
}

impl<D: Device> Linear<Tensor<D>> {
    /// Sets the factors of a new adapter to a part of the weight, and takes this part out of the
    /// weight: `W ← W − s·B·A`, rounded to the type of the weight (PiSSA: Meng et al., 2024; OLoRA:
    /// Büyükakyüz, 2024). The part is that of an earlier start, if there is one; otherwise the weight
    /// is decomposed in f64. Does nothing without an adapter.
    ///
    /// # Errors
    /// If the weight is in NF4.
    pub(crate) fn start_from_weight(
        &mut self,
        initial: InitialFactors,
        earlier: Option<&Tensors>,
        host: &Cpu,
    ) -> Result<(), ModelError> {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let Some(Adapter {
            a,
            b,
            rank,
            scale,
            start: Some(start),
            ..
        }) = &mut self.adapter
        else {
            return Ok(());
        };
        let (rank, scale) = (*rank, f64::from(*scale));
        let mut weight = self.weight.to_f32_vec(host)?;
        let Weight::Float(parameter) = &mut self.weight else {
            let reason = "an adapter cannot start from weights in NF4";
            return Err(ModelError::Unsupported(reason));
        };
        let (down, up) = match earlier {
            Some(values) => (
                halves(a, &values.read_f32(&a.name)?).1,
                halves(b, &values.read_f32(&b.name)?).1,
            ),
            None => {
                let elements: Vec<f64> = weight.iter().map(|&w| w.into()).collect();
                let matrix = MatRef::from_row_major_slice(&elements, outputs, inputs);
                match initial {
                    InitialFactors::Pissa => principal(matrix, rank, scale, &parameter.name)?,
                    InitialFactors::Olora => orthonormal(matrix, rank),
                    InitialFactors::Random | InitialFactors::Loftq => return Ok(()),
                }
            }
        };
        for (row, up) in weight.chunks_exact_mut(inputs).zip(up.chunks_exact(rank)) {
            for (index, weight) in row.iter_mut().enumerate() {
                let of =
                    |(p, up): (usize, &f32)| f64::from(*up) * f64::from(down[p * inputs + index]);
                let part: f64 = up.iter().enumerate().map(of).sum();
                *weight = (f64::from(*weight) - scale * part) as f32;
            }
        }
        let bytes = to_bytes(parameter.value.dtype(), &weight);
        parameter.value.view_mut().write_bytes(&bytes)?;
        for (tensor, values) in [
            (&mut a.value, &down),
            (&mut start.a, &down),
            (&mut b.value, &up),
            (&mut start.b, &up),
        ] {
            tensor.write(values)?;
        }
        Ok(())
    }

    /// Sets the factors of a new adapter to what NF4 lost of the weight, as far as their rank allows:
    /// `s·B·A` is the best approximation of `W − NF4(W)` (LoftQ with one iteration; Li et al., 2024).
    /// The decomposition is in f64. Rows of `A` for which nothing is left keep their random values.
    /// `original` reads the weight as it was. Does nothing without an adapter.
    ///
    /// # Errors
    /// If the weight is not in NF4.
    pub(crate) fn start_from_loss(
        &mut self,
        original: &dyn Fn(&str) -> Result<Vec<f32>, ModelError>,
        host: &Cpu,
    ) -> Result<(), ModelError> {
        let (inputs, outputs) = (self.inputs, self.outputs);
        let Some(Adapter {
            a, b, rank, scale, ..
        }) = &mut self.adapter
        else {
            return Ok(());
        };
        let Weight::Nf4(weight) = &self.weight else {
            let reason = "LoftQ makes up for what NF4 loses, and a weight is not in NF4";
            return Err(ModelError::Unsupported(reason));
        };
        let (before, after) = (original(&weight.name)?, weight.to_f32_vec(host)?);
        let lost = before.iter().zip(&after);
        let lost: Vec<f64> = lost.map(|(&w, &q)| f64::from(w) - f64::from(q)).collect();
        let matrix = MatRef::from_row_major_slice(&lost, outputs, inputs);
        let (down, up) = principal(matrix, *rank, f64::from(*scale), &weight.name)?;
        let mut values = a.value.to_f32_vec()?;
        let rows = values.chunks_exact_mut(inputs);
        for (row, down) in rows.zip(down.chunks_exact(inputs)) {
            if down.iter().any(|&x| x != 0.0) {
                row.copy_from_slice(down);
            }
        }
        a.value.write(&values)?;
        Ok(b.value.write(&up)?)
    }
}

/// The first `rank` singular vectors with the roots of their values: `s·B·A` is the best
/// approximation of the weight of this rank.
fn principal(
    weight: MatRef<'_, f64>,
    rank: usize,
    scale: f64,
    name: &str,
) -> Result<(Vec<f32>, Vec<f32>), ModelError> {
    let svd = weight.thin_svd().map_err(|error| {
        let reason = format!("the singular values of `{name}` cannot be computed: {error:?}");
        ModelError::Lora(ConfigError::new("init", reason))
    })?;
    let (u, v, values) = (svd.U(), svd.V(), svd.S().column_vector());
    let root = |p: usize| (values[p] / scale).sqrt();
    let down = (0..rank).flat_map(|p| (0..weight.ncols()).map(move |i| (p, i)));
    let down = down.map(|(p, i)| (root(p) * v[(i, p)]) as f32).collect();
    let up = (0..weight.nrows()).flat_map(|j| (0..rank).map(move |p| (j, p)));
    let up = up.map(|(j, p)| (root(p) * u[(j, p)]) as f32).collect();
    Ok((down, up))
}

/// The first columns of `Q` and rows of `R`.
fn orthonormal(weight: MatRef<'_, f64>, rank: usize) -> (Vec<f32>, Vec<f32>) {
    let qr = weight.qr();
    let (q, r) = (qr.compute_thin_Q(), qr.thin_R());
    let down = (0..rank).flat_map(|p| (0..weight.ncols()).map(move |i| (p, i)));
    // What is below the diagonal is no part of R.
    let down = down.map(|(p, i)| if i < p { 0.0 } else { r[(p, i)] as f32 });
    let up = (0..weight.nrows()).flat_map(|j| (0..rank).map(move |p| (j, p)));
    let up = up.map(|(j, p)| q[(j, p)] as f32).collect();
    (down.collect(), up)
}
