//! The dropout mask: a hash of salt, token and feature.

use super::Dropout;
use crate::{
    KernelError,
    cpu::matmul::{Gate, Matrix, Rows},
};
use std::ops::Range;
use tightrope_device::{Cpu, Device, vectorize};

/// Parameters that all elements share.
#[derive(Clone, Copy)]
pub(super) struct Parameters {
    /// `splitmix` of the operation's salt.
    pub salt: u64,
    /// Elements whose hash is below this are dropped.
    pub threshold: u32,
    /// Factor of the other elements.
    pub factor: f32,
}

impl Parameters {
    pub(super) fn of<D: Device>(dropout: &Dropout<'_, D>) -> Self {
        let probability = f64::from(dropout.probability);
        Self {
            salt: splitmix(dropout.salt),
            // Below 2³², because the probability is at most 1 − 2⁻²⁴.
            threshold: (probability * 2f64.powi(32)).round() as u32,
            factor: (1.0 / (1.0 - probability)) as f32,
        }
    }
}

/// The mask of one operation, as [`Dropout`] defines it; there is none if nothing is dropped.
pub(crate) struct Mask {
    /// State `s` of each token, low half first. It is computed once, because a mask is applied a
    /// few columns at a time.
    states: Vec<(u32, u32)>,
    parameters: Parameters,
}

fn splitmix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[inline(always)]
fn mix(index: u32, low: u32, high: u32) -> u32 {
    let mut x = index.wrapping_mul(0x9e37_79b9).wrapping_add(low);
    x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    x ^= high;
    x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

impl Mask {
    /// The mask of the first `tokens` tokens.
    pub(crate) fn new(
        dropout: &Option<Dropout<'_, Cpu>>,
        tokens: usize,
    ) -> Result<Option<Self>, KernelError> {
        let Some(dropout) = dropout else {
            return Ok(None);
        };
        if dropout.probability == 0.0 {
            return Ok(None);
        }
        let parameters = Parameters::of(dropout);
        let keys = dropout.keys.as_slice::<u32>()?.as_chunks::<2>().0;
        let state = |key: &[u32; 2]| {
            let state = splitmix(parameters.salt ^ (u64::from(key[0]) | u64::from(key[1]) << 32));
            (state as u32, (state >> 32) as u32)
        };
        Ok(Some(Self {
            states: keys[..tokens].iter().map(state).collect(),
            parameters,
        }))
    }
}

impl Gate for Mask {
    fn apply(&self, row: usize, columns: Range<usize>, values: &mut [f32]) {
        let first = columns.start as u32;
        let Parameters {
            threshold, factor, ..
        } = self.parameters;
        multiply(values, first, self.states[row], threshold, factor);
    }
}

vectorize! {
    /// Multiplies kept elements by `factor` and the others by 0.
    fn multiply(values: &mut [f32], first: u32, state: (u32, u32), threshold: u32, factor: f32) {
        for (offset, value) in values.iter_mut().enumerate() {
            let hash = mix(first.wrapping_add(offset as u32), state.0, state.1);
            // A factor and not a choice, so that NaN passes through dropped elements too.
            *value *= if hash < threshold { 0.0 } else { factor };
        }
    }
}

/// `dropout(x)`, computed while it is read.
pub(crate) struct Dropped<'a> {
    pub(crate) x: Matrix<'a, f32>,
    pub(crate) mask: &'a Mask,
}

impl Rows for Dropped<'_> {
    fn row<'s>(&'s self, row: usize, columns: Range<usize>, scratch: &'s mut [f32]) -> &'s [f32] {
        let kept = &mut scratch[..columns.len()];
        kept.copy_from_slice(self.x.row(row, columns.clone(), &mut []));
        self.mask.apply(row, columns, kept);
        kept
    }
}
