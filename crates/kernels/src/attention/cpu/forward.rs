//! The forward pass: one task for each range, query head and block of queries.

use super::super::Forward;
use super::Shared;
use super::block::{BLOCK, Lanes, Layout, copy_rows, online_softmax, pack_queries, scale_row};
use super::seen::Seen;
use crate::{
    KernelError,
    cpu::{
        float::{Activation, round},
        scratch::Scratch,
    },
};
use rayon::prelude::*;
use std::{cmp::Reverse, ops::Range};
use tightrope_device::Cpu;

pub(super) fn run<T: Activation>(cpu: &Cpu, args: Forward<'_, Cpu>) -> Result<(), KernelError> {
    let pass = Pass {
        cpu,
        q: args.q.as_slice::<T>()?,
        k: args.k.as_slice()?,
        v: args.v.as_slice()?,
        y: Shared::new(args.y.into_slice()?),
        lse: Shared::new(args.lse.into_slice()?),
    };
    let mut tasks = Vec::new();
    for &range in args.config.ranges.as_slice() {
        let layout = Layout::new(&args.config, range);
        for start in layout.query_blocks() {
            let queries = Layout::block(start, layout.queries());
            let cost = queries.len() * layout.key_blocks(&queries).count();
            tasks.extend((0..layout.heads).map(|head| (cost, layout, queries.clone(), head)));
        }
    }
    // The longest tasks come first, so that no thread starts one when the others are done.
    tasks.sort_by_key(|task| Reverse(task.0));
    cpu.install(|| {
        tasks
            .into_par_iter()
            .with_max_len(1)
            .try_for_each(|(_, layout, queries, head)| pass.block(&layout, queries, head))
    })
}

struct Pass<'a, T> {
    cpu: &'a Cpu,
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    y: Shared<'a, T>,
    lse: Shared<'a, f32>,
}

impl<T: Activation> Pass<'_, T> {
    fn block(
        &self,
        layout: &Layout,
        queries: Range<usize>,
        head: usize,
    ) -> Result<(), KernelError> {
        let (dim, width, kv_head) = (layout.head_dim, layout.width(), layout.kv_head(head));
        let mut scratch = Scratch::take(self.cpu, BLOCK * (dim + 2 * width + BLOCK))?;
        let (q, rest) = scratch.split_at_mut(BLOCK * dim);
        let (values, rest) = rest.split_at_mut(BLOCK * width);
        let (sums, scores) = rest.split_at_mut(BLOCK * width);
        let q = pack_queries(q, self.q, layout, head, &queries);
        sums.fill(0.0);
        let (mut max, mut sum): (Lanes, Lanes) = ([f32::NEG_INFINITY; BLOCK], [0.0; BLOCK]);
        let mut factor = [0f32; BLOCK];
        for start in layout.key_blocks(&queries) {
            let keys = Layout::block(start, layout.keys());
            let seen = Seen::new(layout, &queries, &keys);
            let scores = &mut scores[..keys.len() * BLOCK];
            let k = layout.key_rows(self.k, kv_head, &keys, values);
            seen.pairs(k, (q, dim), layout.scale, scores);
            layout.cap(scores);
            layout.mask(scores, &queries, &keys);
            online_softmax(scores, &seen, &mut max, &mut sum, &mut factor);
            for (row, &factor) in sums
                .chunks_exact_mut(width)
                .zip(&factor)
                .take(queries.len())
            {
                scale_row(row, factor);
            }
            copy_rows(values, width, self.v, dim, keys.clone(), |key| {
                layout.key_at(key, kv_head)
            });
            seen.over_keys(scores, values, width, sums);
        }
        for (lane, query) in queries.enumerate() {
            let row = layout.query_row(query, head);
            // SAFETY: this task alone writes this query and head; ranges do not overlap.
            let (y, lse) = unsafe { (self.y.part(row * dim, dim), self.lse.part(row, 1)) };
            lse[0] = max[lane] + sum[lane].ln();
            let result = &mut sums[lane * width..][..dim];
            scale_row(result, 1.0 / sum[lane]);
            round(y, result);
        }
        Ok(())
    }
}
