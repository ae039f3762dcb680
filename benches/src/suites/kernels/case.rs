//! One operation at one shape, with the least that it must move and multiply.

use anyhow::Result;
use half::bf16;
use tightrope_device::{Cuda, DType, Tensor};

/// Size of the work.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// Few tokens, so that the emulator takes about a second.
    Emulated,
    /// Many tokens, so that no cache holds them.
    Hardware,
}

impl Scale {
    /// Number of tokens; on the emulator the given number.
    pub(super) fn tokens(self, emulated: usize) -> usize {
        self.pick(emulated, 16 * 1024)
    }

    /// Chooses another size.
    pub(super) fn pick(self, emulated: usize, hardware: usize) -> usize {
        match self {
            Scale::Emulated => emulated,
            Scale::Hardware => hardware,
        }
    }
}

/// Issues an operation once; it may be called repeatedly.
pub(super) type Work = Box<dyn FnMut(&Cuda) -> Result<()>>;
/// Makes the operands.
pub(super) type Prepare = Box<dyn FnOnce(&Cuda) -> Result<Work>>;

/// One operation at one shape.
pub(super) struct Case {
    /// Operation, direction and other distinctions.
    pub name: String,
    /// Sizes in words.
    pub shape: String,
    /// Divisor of the instruction counts.
    pub elements: usize,
    /// Least number of bytes that must be read and written: each operand and result of the
    /// operation once. Data between its kernels is not counted.
    pub least_bytes: usize,
    /// Least number of multiply-adds of its matrix products; 0 if there are none. Bytes and
    /// multiply-adds are separate bounds, which no single implementation needs to reach together.
    pub least_multiply_adds: usize,
    /// Called when the case runs, so that the operands of one case exist at a time.
    pub prepare: Prepare,
}

/// bf16 numbers below 1 in magnitude, without regularity.
pub(super) fn activations(cuda: &Cuda, shape: &[usize]) -> Result<Tensor<Cuda>> {
    let count = shape.iter().product();
    let values: Vec<bf16> = (0..count).map(|i| bf16::from_f32(number(i))).collect();
    Ok(Tensor::from_slice(cuda, shape, &values)?)
}

/// The same in f32.
pub(super) fn floats(cuda: &Cuda, shape: &[usize]) -> Result<Tensor<Cuda>> {
    let values: Vec<f32> = (0..shape.iter().product()).map(number).collect();
    Ok(Tensor::from_slice(cuda, shape, &values)?)
}

/// f32 numbers between 0 and 1: scales.
pub(super) fn positive(cuda: &Cuda, shape: &[usize]) -> Result<Tensor<Cuda>> {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| (number(i) + 1.0) / 2.0).collect();
    Ok(Tensor::from_slice(cuda, shape, &values)?)
}

/// Bytes of every value: codes.
pub(super) fn bytes(cuda: &Cuda, shape: &[usize]) -> Result<Tensor<Cuda>> {
    let count: usize = shape.iter().product();
    let values: Vec<u8> = (0..count)
        .map(|i| (number(i) * 127.0) as i8 as u8)
        .collect();
    Ok(Tensor::from_slice(cuda, shape, &values)?)
}

/// Zeros.
pub(super) fn zeros(cuda: &Cuda, dtype: DType, shape: &[usize]) -> Result<Tensor<Cuda>> {
    Ok(Tensor::zeros(cuda, dtype, shape)?)
}

/// The fractional part of a multiple of the golden ratio, moved to `-1..1`.
fn number(index: usize) -> f32 {
    let bits = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    bits as f32 / (1u64 << 23) as f32 - 1.0
}
