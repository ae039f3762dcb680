//! Dropout of rows: the mask is a hash of salt, token and feature.

use super::matmul::{Gate, Matrix, Rows};
use crate::{
    KernelError,
    check::Operands,
    cpu::float::{Float, widen},
};
use std::ops::Range;
use tightrope_device::{Cpu, DType, Device, View, vectorize};

/// Stateless dropout of rows: a hash of `salt`, the row's two keys and `i` decides whether element
/// `(t, i)` is kept, so the backward pass, recomputation and any packing use the same mask. Kept
/// elements are scaled by `1 / (1 − probability)`.
///
/// With `s = splitmix(splitmix(salt) ^ (sequence + 2³² · position))`, element `i` is dropped when
/// `h < probability · 2³²` (rounded), where, in 32 bits and with `low` and `high` the halves of `s`:
/// `h = 0x9e3779b9·i + low; h = (h ^ h >> 16)·0x7feb352d ^ high; h = (h ^ h >> 15)·0x846ca68b;
/// h ^= h >> 16`. `splitmix` is SplitMix64's step (Steele et al., 2014), the rest the finaliser
/// `lowbias32` (Wellons, 2018) with `high` added between its rounds. Every device computes this.
#[derive(Debug)]
pub struct Dropout<'a, D: Device> {
    /// Probability that an element is dropped, in `[0, 1)`.
    pub probability: f32,
    /// Salt, which differs for each step, layer and projection.
    pub salt: u64,
    /// u32 `[rows, 2]`: the sequence of each row's token and its position in the sequence.
    pub keys: View<'a, D>,
}

impl<D: Device> Clone for Dropout<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<D: Device> Copy for Dropout<'_, D> {}

/// Checks the dropout of this many rows.
pub(crate) fn check_dropout<'a, D: Device>(
    operands: &mut Operands<'a, D>,
    dropout: &Option<Dropout<'a, D>>,
    rows: usize,
) -> Result<(), KernelError> {
    let Some(dropout) = dropout else {
        return Ok(());
    };
    if !(0.0..1.0).contains(&dropout.probability) {
        return Err(KernelError::Value {
            operand: "dropout.probability",
            value: f64::from(dropout.probability),
            rule: "must be at least 0 and less than 1",
        });
    }
    operands.at_least("dropout.keys", dropout.keys, DType::U32, &[rows, 2])
}

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
    /// State `s` of each row, low half first. It is computed once, because a mask is applied a
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
    /// The mask of the first `rows` rows.
    pub(crate) fn new(
        dropout: &Option<Dropout<'_, Cpu>>,
        rows: usize,
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
            states: keys[..rows].iter().map(state).collect(),
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
pub(crate) struct Dropped<'a, T> {
    pub(crate) x: Matrix<'a, T>,
    pub(crate) mask: &'a Mask,
}

impl<T: Float> Rows for Dropped<'_, T> {
    fn row<'s>(&'s self, row: usize, columns: Range<usize>, scratch: &'s mut [f32]) -> &'s [f32] {
        let kept = &mut scratch[..columns.len()];
        widen(kept, self.x.slice(row, columns.clone()));
        self.mask.apply(row, columns, kept);
        kept
    }
}
