//! NF4 on the CPU, block by block.

use super::{BLOCK, Dequantize, Nf4, SCALE_BLOCK, Scales, VALUES};
use crate::{Checked, KernelError, cpu::block_rows, dynamic_map::DynamicMap};
use tightrope_device::{Cpu, rows};

/// What a byte stands for.
static PAIRS: [[f32; 2]; 256] = {
    let mut pairs = [[0.0; 2]; 256];
    let mut code = 0;
    while code < 256 {
        pairs[code] = [VALUES[code >> 4], VALUES[code & 15]];
        code += 1;
    }
    pairs
};

/// Scales in host memory.
#[derive(Clone, Copy)]
enum Host<'a> {
    Plain(&'a [f32]),
    Quantized(&'a [u8], &'a [f32], f32),
}

impl Host<'_> {
    fn of(self, block: usize) -> f32 {
        match self {
            Host::Plain(scales) => scales[block],
            Host::Quantized(codes, absmax, offset) => {
                DynamicMap::signed().value(codes[block]) * absmax[block / SCALE_BLOCK] + offset
            }
        }
    }
}

impl Nf4 for Cpu {
    fn nf4_dequantize(&self, args: Checked<Dequantize<'_, Self>>) -> Result<(), KernelError> {
        let args = args.into_inner();
        let scales = match args.scales {
            Scales::Plain(scales) => Host::Plain(scales.as_slice()?),
            Scales::Quantized {
                codes,
                absmax,
                offset,
            } => Host::Quantized(codes.as_slice()?, absmax.as_slice()?, offset),
        };
        let y = &mut args.y.as_mut_slice::<f32>()?[..args.elements];
        let codes = &args.codes.as_slice::<u8>()?[..args.elements.div_ceil(2)];
        let blocks = args.elements.div_ceil(BLOCK);
        let parts = (rows(codes, BLOCK / 2), rows(y, BLOCK));
        self.for_each_block(blocks, block_rows(BLOCK), parts, |first, _, (codes, y)| {
            let codes = codes.slice.chunks(BLOCK / 2);
            for (block, (codes, y)) in codes.zip(y.slice.chunks_mut(BLOCK)).enumerate() {
                let scale = scales.of(first + block);
                let scaled = |&code: &u8| PAIRS[usize::from(code)].map(|value| value * scale);
                let (pairs, odd) = y.as_chunks_mut();
                for (pair, code) in pairs.iter_mut().zip(codes) {
                    *pair = scaled(code);
                }
                if let ([last], Some(code)) = (odd, codes.last()) {
                    *last = scaled(code)[0];
                }
            }
        });
        Ok(())
    }
}
