//! Uniform noise that is added to rows, such as embeddings while training (NEFTune).

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
#[cfg(feature = "cuda")]
mod kernel;
#[cfg(test)]
mod tests;

use crate::{Check, Checked, KernelError, check::Operands};
use tightrope_device::{DType, Device, View, ViewMut};

/// `y[t, h] += scales[t] · u[t, h]`, where `u` is uniform in [−1, 1): a hash of `states[t]` and `h`.
#[derive(Debug)]
pub struct Add<'a, D: Device> {
    /// Added into, `[rows, features]`, of a type of activations; computed in f32.
    pub y: ViewMut<'a, D>,
    /// Random bits for each row ([`state`]), u32 `[rows, 2]`.
    pub states: View<'a, D>,
    /// Largest noise of each row, f32 `[rows]`.
    pub scales: View<'a, D>,
    /// Number of rows.
    pub rows: usize,
    /// Number of features, below 2³².
    pub features: usize,
}

/// Noise.
pub trait Noise: Device {
    /// Adds into `y`, with the same bits on every device.
    fn noise_add(&self, args: Checked<Add<'_, Self>>) -> Result<(), KernelError>;
}

/// Random bits for a row: a hash of a number that differs for each step and of what identifies the
/// row, such as its sequence and position.
pub fn state(salt: u64, row: [u32; 2]) -> [u32; 2] {
    let row = u64::from(row[0]) | u64::from(row[1]) << 32;
    let state = splitmix(splitmix(salt) ^ row);
    [state as u32, (state >> 32) as u32]
}

fn splitmix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<D: Device> Check for Add<'_, D> {
    type Device = D;

    fn check_operands<'a>(&'a self, operands: &mut Operands<'a, D>) -> Result<(), KernelError> {
        if u32::try_from(self.features).is_err() {
            return Err(KernelError::TooNarrow);
        }
        let dtype = operands.activation("y", self.y.as_view())?;
        operands.at_least("y", self.y.as_view(), dtype, &[self.rows, self.features])?;
        operands.at_least("states", self.states, DType::U32, &[self.rows, 2])?;
        operands.at_least("scales", self.scales, DType::F32, &[self.rows])
    }
}
