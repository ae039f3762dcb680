//! Quantises weights to 8 bits on the host.

use crate::{
    cpu::block_rows,
    dynamic_map::{absmax, ratio},
};
use tightrope_device::{Cpu, rows, vectorize};

/// Codes and scales for [`super::Dequantize`].
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// Integers from −127 to 127 in two's complement.
    pub codes: Vec<u8>,
    /// Largest magnitude of each row.
    pub absmax: Vec<f32>,
}

/// Divides each row of `columns` elements by its largest magnitude and takes the nearest 127th, or
/// the even one of two equally near; the last row may be shorter. An element that is not finite
/// makes the scale of its row not finite.
pub fn quantize<T: Copy + Into<f32> + Sync>(cpu: &Cpu, x: &[T], columns: usize) -> Quantized {
    let columns = columns.max(1);
    let count = x.len().div_ceil(columns);
    let mut quantized = Quantized {
        codes: vec![0; x.len()],
        absmax: vec![0.0; count],
    };
    let parts = (
        rows(x, columns),
        rows(&mut quantized.codes[..], columns),
        rows(&mut quantized.absmax[..], 1),
    );
    cpu.for_each_block(
        count,
        block_rows(columns),
        parts,
        |_, _, (x, codes, scales)| {
            let codes = codes.slice.chunks_mut(columns);
            for ((x, codes), scale) in x.slice.chunks(columns).zip(codes).zip(scales.slice) {
                let values: Vec<f32> = x.iter().map(|&x| x.into()).collect();
                *scale = scaled(codes, &values);
            }
        },
    );
    quantized
}

vectorize! {
    /// Overwrites `codes` and returns the scale.
    fn scaled(codes: &mut [u8], values: &[f32]) -> f32 {
        let scale = absmax(values);
        for (code, &value) in codes.iter_mut().zip(values) {
            // NaN becomes 0.
            *code = (127.0 * ratio(value, scale)).round_ties_even() as i8 as u8;
        }
        scale
    }
}
