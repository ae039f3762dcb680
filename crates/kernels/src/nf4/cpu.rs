//! NF4 on the CPU: decodes any run of elements, so that a product decodes what it is about to read.

use super::{BLOCK, Dequantize, Nf4, SCALE_BLOCK, Scales, VALUES, Weight};
use crate::{
    Checked, KernelError,
    cpu::{
        block_rows,
        float::{Activation, round},
    },
    dynamic_map::DynamicMap,
    product::matmul::Rows,
};
use half::bf16;
use std::ops::Range;
use tightrope_device::{Cpu, DType, DeviceError, rows};

/// Scales in host memory.
#[derive(Clone, Copy)]
enum HostScales<'a> {
    Plain(&'a [f32]),
    Quantized(&'a [u8], &'a [f32], f32),
}

impl HostScales<'_> {
    fn of(self, block: usize) -> f32 {
        match self {
            HostScales::Plain(scales) => scales[block],
            HostScales::Quantized(codes, absmax, offset) => {
                DynamicMap::signed().value(codes[block]) * absmax[block / SCALE_BLOCK] + offset
            }
        }
    }
}

/// A weight in host memory.
#[derive(Clone, Copy)]
struct Host<'a> {
    codes: &'a [u8],
    scales: HostScales<'a>,
}

impl<'a> Host<'a> {
    fn new(weight: Weight<'a, Cpu>) -> Result<Self, DeviceError> {
        Ok(Self {
            codes: weight.codes.as_slice()?,
            scales: match weight.scales {
                Scales::Plain(scales) => HostScales::Plain(scales.as_slice()?),
                Scales::Quantized {
                    codes,
                    absmax,
                    offset,
                } => HostScales::Quantized(codes.as_slice()?, absmax.as_slice()?, offset),
            },
        })
    }

    /// Decodes the elements from `first` on.
    fn decode(&self, mut first: usize, mut y: &mut [f32]) {
        while !y.is_empty() {
            let len = y.len().min(BLOCK - first % BLOCK);
            let (now, later) = y.split_at_mut(len);
            let scale = self.scales.of(first / BLOCK);
            let codes = &self.codes[first / 2..(first + len).div_ceil(2)];
            decode_block(codes, first % 2, &VALUES.map(|value| value * scale), now);
            (first, y) = (first + len, later);
        }
    }
}

/// Sets `y[i] = values[code]`; the first code is in half `skip` of the first byte, and `y` is not
/// empty.
fn decode_block(codes: &[u8], skip: usize, values: &[f32; 16], y: &mut [f32]) {
    let value = |code: u8| values[usize::from(code)];
    let (codes, y) = match skip {
        1 => {
            y[0] = value(codes[0] & 15);
            (&codes[1..], &mut y[1..])
        }
        _ => (codes, y),
    };
    let (pairs, last) = y.as_chunks_mut::<2>();
    for (pair, &code) in pairs.iter_mut().zip(codes) {
        *pair = [value(code >> 4), value(code & 15)];
    }
    if let ([y], Some(code)) = (last, codes.last()) {
        *y = value(code >> 4);
    }
}

/// A weight as rows of `stride` elements.
pub(crate) struct HostRows<'a> {
    weight: Host<'a>,
    stride: usize,
}

impl<'a> HostRows<'a> {
    pub(crate) fn new(weight: Weight<'a, Cpu>, stride: usize) -> Result<Self, DeviceError> {
        Ok(Self {
            weight: Host::new(weight)?,
            stride,
        })
    }
}

impl Rows for HostRows<'_> {
    fn row<'s>(&'s self, row: usize, columns: Range<usize>, scratch: &'s mut [f32]) -> &'s [f32] {
        let decoded = &mut scratch[..columns.len()];
        self.weight
            .decode(row * self.stride + columns.start, decoded);
        decoded
    }
}

impl Nf4 for Cpu {
    fn nf4_dequantize(&self, args: Checked<Dequantize<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        match args.y.dtype() {
            DType::BF16 => dequantize::<bf16>(self, args),
            _ => dequantize::<f32>(self, args),
        }
    }
}

fn dequantize<T: Activation>(cpu: &Cpu, args: Dequantize<'_, Cpu>) -> Result<(), KernelError> {
    let weight = Host::new(args.weight)?;
    let y = &mut args.y.into_slice::<T>()?[..args.elements];
    let blocks = args.elements.div_ceil(BLOCK);
    let parts = rows(y, BLOCK);
    cpu.for_each_block(blocks, block_rows(BLOCK), parts, |first, _, y| {
        let mut decoded = [0f32; BLOCK];
        for (block, y) in y.slice.chunks_mut(BLOCK).enumerate() {
            let decoded = &mut decoded[..y.len()];
            weight.decode((first + block) * BLOCK, decoded);
            round(y, decoded);
        }
    });
    Ok(())
}
