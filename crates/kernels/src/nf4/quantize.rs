//! Quantises weights to NF4 on the host.

use super::{BLOCK, SCALE_BLOCK, VALUES};
use crate::{
    cpu::block_rows,
    dynamic_map::{DynamicMap, absmax, ratio},
};
use tightrope_device::{Cpu, rows, vectorize};

/// Codes and scales for [`super::Dequantize`].
#[derive(Clone, Debug, PartialEq)]
pub struct Quantized {
    /// Two elements in a byte, the first in the high half; a zero follows an odd number of
    /// elements.
    pub codes: Vec<u8>,
    /// Largest magnitude of each block.
    pub scales: Vec<f32>,
}

/// Quantised scales for [`super::Scales::Quantized`].
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedScales {
    /// One code for each scale.
    pub codes: Vec<u8>,
    /// Largest magnitude of 256 scales minus the offset.
    pub absmax: Vec<f32>,
    /// Mean of all scales.
    pub offset: f32,
}

/// Midpoints between neighbouring values.
const MIDPOINTS: [f32; 15] = {
    let mut midpoints = [0.0; 15];
    let mut code = 0;
    while code < 15 {
        midpoints[code] = (VALUES[code] + VALUES[code + 1]) * 0.5;
        code += 1;
    }
    midpoints
};

/// Divides every 64 elements by their largest magnitude and takes the nearest of [`VALUES`]. An
/// element that is NaN makes its scale NaN.
pub fn quantize<T: Copy + Into<f32> + Sync>(cpu: &Cpu, x: &[T]) -> Quantized {
    let blocks = x.len().div_ceil(BLOCK);
    let mut quantized = Quantized {
        codes: vec![0; x.len().div_ceil(2)],
        scales: vec![0.0; blocks],
    };
    let parts = (
        rows(x, BLOCK),
        rows(&mut quantized.codes[..], BLOCK / 2),
        rows(&mut quantized.scales[..], 1),
    );
    cpu.for_each_block(
        blocks,
        block_rows(BLOCK),
        parts,
        |_, _, (x, codes, scales)| {
            let blocks = x.slice.chunks(BLOCK);
            let codes = codes.slice.chunks_mut(BLOCK / 2);
            for ((x, codes), scale) in blocks.zip(codes).zip(scales.slice) {
                // Zeros follow the last element.
                let mut values = [0f32; BLOCK];
                for (value, &x) in values.iter_mut().zip(x) {
                    *value = x.into();
                }
                *scale = scaled(codes, &values);
            }
        },
    );
    quantized
}

vectorize! {
    /// Overwrites `codes` and returns the scale.
    fn scaled(codes: &mut [u8], values: &[f32; BLOCK]) -> f32 {
        let scale = absmax(values);
        let ratios = values.map(|x| ratio(x, scale));
        // Counts the midpoints below the value: the lower of two equally near values wins, and NaN
        // gives 0.
        let mut nearest = [0u32; BLOCK];
        for midpoint in MIDPOINTS {
            for (nearest, &x) in nearest.iter_mut().zip(&ratios) {
                *nearest += u32::from(x > midpoint);
            }
        }
        for (code, pair) in codes.iter_mut().zip(nearest.chunks_exact(2)) {
            *code = (pair[0] << 4 | pair[1]) as u8;
        }
        scale
    }
}

/// Subtracts the mean, divides every 256 scales by their largest magnitude and takes the nearest
/// value of the signed dynamic map. A scale that is not finite makes all scales not finite.
pub fn quantize_scales(scales: &[f32]) -> QuantizedScales {
    let sum: f64 = scales.iter().map(|&scale| f64::from(scale)).sum();
    let offset = (sum / scales.len().max(1) as f64) as f32;
    let map = DynamicMap::signed();
    let mut quantized = QuantizedScales {
        codes: Vec::with_capacity(scales.len()),
        absmax: Vec::with_capacity(scales.len().div_ceil(SCALE_BLOCK)),
        offset,
    };
    for group in scales.chunks(SCALE_BLOCK) {
        let centred: Vec<f32> = group.iter().map(|scale| scale - offset).collect();
        let largest = absmax(&centred);
        let codes = centred.iter().map(|&x| map.nearest(ratio(x, largest)));
        quantized.codes.extend(codes);
        quantized.absmax.push(largest);
    }
    quantized
}
