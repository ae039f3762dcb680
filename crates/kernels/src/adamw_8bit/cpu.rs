//! AdamW with 8-bit moments on the CPU, block by block.

use super::{AdamW8bit, BLOCK, Update};
use crate::{
    Checked, KernelError,
    adamw::Factors,
    cpu::block_rows,
    dynamic_map::{DynamicMap, Key, absmax, ratio},
};
use tightrope_device::{Cpu, rows, vectorize};

impl AdamW8bit for Cpu {
    fn adamw_8bit_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let factors = Factors::new(&args.hyperparameters);
        let elements = args.weight.len();
        let blocks = elements.div_ceil(BLOCK);
        let parts = (
            (
                rows(args.weight.into_slice::<f32>()?, BLOCK),
                rows(&args.gradient.as_slice::<f32>()?[..elements], BLOCK),
            ),
            (
                rows(&mut args.m.codes.into_slice::<u8>()?[..elements], BLOCK),
                rows(&mut args.m.absmax.into_slice::<f32>()?[..blocks], 1),
            ),
            (
                rows(&mut args.v.codes.into_slice::<u8>()?[..elements], BLOCK),
                rows(&mut args.v.absmax.into_slice::<f32>()?[..blocks], 1),
            ),
        );
        self.for_each_block(
            blocks,
            block_rows(BLOCK),
            parts,
            |_, _, ((weight, gradient), (m_codes, m_absmax), (v_codes, v_absmax))| {
                let weights = weight.slice.chunks_mut(BLOCK);
                let gradients = gradient.slice.chunks(BLOCK);
                let m_codes = m_codes.slice.chunks_mut(BLOCK).zip(m_absmax.slice);
                let v_codes = v_codes.slice.chunks_mut(BLOCK).zip(v_absmax.slice);
                let moments = m_codes.zip(v_codes);
                for ((weight, gradient), (m, v)) in weights.zip(gradients).zip(moments) {
                    update(weight, gradient, m, v, factors);
                }
            },
        );
        Ok(())
    }
}

vectorize! {
    fn update(
        weight: &mut [f32],
        gradient: &[f32],
        m: (&mut [u8], &mut f32),
        v: (&mut [u8], &mut f32),
        factors: Factors,
    ) {
        let (signed, unsigned) = (DynamicMap::signed(), DynamicMap::unsigned());
        let (mut m_values, mut v_values) = ([0f32; BLOCK], [0f32; BLOCK]);
        let m_values = &mut m_values[..weight.len()];
        let v_values = &mut v_values[..weight.len()];
        let moments = m_values.iter_mut().zip(&mut *v_values);
        let codes = m.0.iter().zip(&*v.0);
        let elements = weight.iter_mut().zip(gradient);
        for ((weight, &gradient), (moments, codes)) in elements.zip(moments.zip(codes)) {
            *moments.0 = signed.value(*codes.0) * *m.1;
            *moments.1 = unsigned.value(*codes.1) * *v.1;
            factors.step(gradient, weight, moments.0, moments.1);
        }
        (*m.1, *v.1) = (absmax(m_values), absmax(v_values));
        // Keys are computed apart from codes, so that the compiler vectorises everything but the
        // look-up.
        let mut keys = [Key::default(); BLOCK];
        for (key, &value) in keys.iter_mut().zip(&*m_values) {
            *key = Key::of(ratio(value, *m.1));
        }
        for (code, &key) in m.0.iter_mut().zip(&keys) {
            *code = signed.nearest_of(key);
        }
        for (key, &value) in keys.iter_mut().zip(&*v_values) {
            // A positive number never becomes zero.
            let least = if value > 0.0 { unsigned.value(1) } else { 0.0 };
            *key = Key::of(ratio(value, *v.1).max(least));
        }
        for (code, &key) in v.0.iter_mut().zip(&keys) {
            *code = unsigned.nearest_of(key);
        }
    }
}
