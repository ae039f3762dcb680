//! Embedding on the CPU: the forward pass runs in parallel over tokens, and the backward pass over
//! table rows.

use super::{Backward, Embedding, Forward};
use crate::{
    Checked, KernelError,
    cpu::{
        block_rows,
        float::{Activation, Float},
    },
};
use half::{bf16, f16};
use tightrope_device::{Cpu, DType, rows, vectorize};

impl Embedding for Cpu {
    fn embedding_forward(&self, args: Checked<Forward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        match args.y.dtype() {
            DType::BF16 => forward::<bf16>(self, args),
            _ => forward::<f32>(self, args),
        }
    }

    fn embedding_backward(&self, args: Checked<Backward<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        match args.dy.dtype() {
            DType::BF16 => backward::<bf16>(self, args),
            _ => backward::<f32>(self, args),
        }
    }
}

fn forward<T: Activation>(cpu: &Cpu, args: Forward<'_, Cpu>) -> Result<(), KernelError> {
    let ids = known(&args.ids.as_slice::<u32>()?[..args.tokens], args.vocabulary)?;
    let y = &mut args.y.into_slice::<T>()?[..args.tokens * args.hidden];
    let (width, scale) = (args.hidden, args.scale);
    match args.table.dtype() {
        DType::BF16 => gather::<bf16, T>(cpu, ids, args.table.as_slice()?, width, scale, y),
        DType::F16 => gather::<f16, T>(cpu, ids, args.table.as_slice()?, width, scale, y),
        _ => gather::<f32, T>(cpu, ids, args.table.as_slice()?, width, scale, y),
    }
    Ok(())
}

fn backward<T: Activation>(cpu: &Cpu, args: Backward<'_, Cpu>) -> Result<(), KernelError> {
    let ids = known(&args.ids.as_slice::<u32>()?[..args.tokens], args.vocabulary)?;
    let width = args.hidden;
    let dy = &args.dy.as_slice::<T>()?[..args.tokens * width];
    let dtable = args.dtable.into_slice::<f32>()?;
    // Each shard of the table looks through all ids and takes its own in their order, so the
    // number of shards changes no sum. There are more shards than threads, because some ids are
    // frequent.
    let small = args.tokens * width <= 4 * block_rows(1);
    let shards = if small { 1 } else { 4 * cpu.threads() };
    let shard = args.vocabulary.div_ceil(shards).max(1);
    cpu.for_each_block(
        args.vocabulary,
        shard,
        rows(dtable, width),
        |first, count, dtable| {
            for (&id, dy) in ids.iter().zip(dy.chunks_exact(width.max(1))) {
                let row = (id as usize).wrapping_sub(first);
                if row < count {
                    add_scaled(
                        &mut dtable.slice[row * width..(row + 1) * width],
                        dy,
                        args.scale,
                    );
                }
            }
        },
    );
    Ok(())
}

/// Returns the ids if all of them lie inside the table.
fn known(ids: &[u32], vocabulary: usize) -> Result<&[u32], KernelError> {
    match ids.iter().position(|&id| id as usize >= vocabulary) {
        None => Ok(ids),
        Some(index) => Err(KernelError::Index {
            operand: "ids",
            index,
            value: i64::from(ids[index]),
            bound: vocabulary,
        }),
    }
}

fn gather<F: Float, T: Activation>(
    cpu: &Cpu,
    ids: &[u32],
    table: &[F],
    width: usize,
    scale: f32,
    y: &mut [T],
) {
    let parts = (rows(ids, 1), rows(y, width));
    cpu.for_each_block(ids.len(), block_rows(width), parts, |_, _, (ids, y)| {
        for (&id, y) in ids.slice.iter().zip(y.slice.chunks_exact_mut(width.max(1))) {
            let id = id as usize;
            scaled(y, &table[id * width..(id + 1) * width], scale);
        }
    });
}

vectorize! {
    fn scaled<F: Float, T: Activation>(y: &mut [T], row: &[F], scale: f32) {
        for (y, &value) in y.iter_mut().zip(row) {
            *y = T::rounded(scale * value.get());
        }
    }

    fn add_scaled<T: Activation>(total: &mut [f32], row: &[T], scale: f32) {
        for (total, &value) in total.iter_mut().zip(row) {
            *total = scale.mul_add(value.get(), *total);
        }
    }
}
