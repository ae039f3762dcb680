//! The backward pass, which computes the probabilities again, block by block.
//!
//! A unit of work is a key head of a range: it takes five products for each pair of blocks. If such
//! units would leave threads idle, `dk` and `dv` are computed separately for each block of keys,
//! and `dq` for each block of queries: this takes seven products and gives the same bits.

use super::super::Backward;
use super::Shared;
use super::block::{BLOCK, Lanes, Layout, copy_rows, differentiate, dot, pack_queries};
use super::seen::Seen;
use crate::{KernelError, cpu::scratch::Scratch};
use rayon::prelude::*;
use std::{cmp::Reverse, ops::Range};
use tightrope_device::Cpu;

/// Work of one task.
#[derive(Clone)]
enum Task {
    /// All gradients of a key head and the query heads that share it.
    KeyHead(usize),
    /// `dk` and `dv` of some keys of a key head.
    Keys(usize, Range<usize>),
    /// `dq` of some queries of a query head.
    Queries(usize, Range<usize>),
}

pub(super) fn run(cpu: &Cpu, args: Backward<'_, Cpu>) -> Result<(), KernelError> {
    let config = &args.config;
    let layouts = config
        .ranges
        .as_slice()
        .iter()
        .map(|&range| Layout::new(config, range));
    let (dy, y) = (args.dy.as_slice::<f32>()?, args.y.as_slice::<f32>()?);
    let dim = config.head_dim;
    let delta = args.delta.into_slice::<f32>()?;
    for layout in layouts.clone() {
        let rows = layout.query_row(0, 0)..layout.query_row(layout.queries(), 0);
        cpu.install(|| {
            let first = rows.start;
            let delta = delta[rows].par_iter_mut().with_min_len(256);
            delta.enumerate().for_each(|(row, delta)| {
                let at = (first + row) * dim;
                *delta = dot(&dy[at..at + dim], &y[at..at + dim]);
            });
        });
    }
    let pass = Pass {
        cpu,
        q: args.q.as_slice()?,
        k: args.k.as_slice()?,
        v: args.v.as_slice()?,
        dy,
        lse: args.lse.as_slice()?,
        delta,
        dq: Shared::new(args.dq.into_slice()?),
        dk: Shared::new(args.dk.into_slice()?),
        dv: Shared::new(args.dv.into_slice()?),
    };
    let mut tasks = tasks(layouts, cpu.threads());
    // The longest tasks come first, so that no thread starts one when the others are done.
    tasks.sort_by_key(|task| Reverse(task.0));
    cpu.install(|| {
        tasks
            .into_par_iter()
            .with_max_len(1)
            .try_for_each(|(_, layout, task)| match task {
                Task::KeyHead(kv_head) => {
                    let keys = 0..layout.keys();
                    pass.keys(&layout, kv_head, keys, true)
                }
                Task::Keys(kv_head, keys) => pass.keys(&layout, kv_head, keys, false),
                Task::Queries(head, queries) => pass.queries(&layout, head, queries),
            })
    })
}

/// Returns the tasks with their cost in pairs of blocks.
fn tasks(
    layouts: impl Iterator<Item = Layout> + Clone,
    threads: usize,
) -> Vec<(usize, Layout, Task)> {
    let pairs = |layout: &Layout| -> usize {
        let blocks = layout.query_blocks();
        blocks
            .map(|start| {
                layout
                    .key_blocks(&Layout::block(start, layout.queries()))
                    .count()
            })
            .sum()
    };
    let mut whole = Vec::new();
    for layout in layouts.clone().filter(|layout| layout.keys() > 0) {
        let cost = pairs(&layout) * (layout.heads / layout.kv_heads);
        whole.extend((0..layout.kv_heads).map(|kv_head| (cost, layout, Task::KeyHead(kv_head))));
    }
    let total: usize = whole.iter().map(|task| task.0).sum();
    // Loads of the threads if each always takes the longest remaining task.
    let mut loads = vec![0; threads.max(1)];
    let mut costs: Vec<usize> = whole.iter().map(|task| task.0).collect();
    costs.sort_by_key(|&cost| Reverse(cost));
    for cost in costs {
        if let Some(least) = loads.iter_mut().min() {
            *least += cost;
        }
    }
    let longest = loads.into_iter().max().unwrap_or(0);
    // Seven products instead of five pay off if they are divided evenly and the five are not.
    if 5 * longest * threads <= 7 * total {
        return whole;
    }
    let mut split = Vec::new();
    for layout in layouts {
        let blocks = (0..layout.keys())
            .step_by(BLOCK)
            .map(|start| Layout::block(start, layout.keys()));
        for keys in blocks {
            let cost = layout.query_blocks_of(&keys).count() * layout.heads / layout.kv_heads;
            let task = |kv_head| (4 * cost, layout, Task::Keys(kv_head, keys.clone()));
            split.extend((0..layout.kv_heads).map(task));
        }
        for start in layout.query_blocks() {
            let queries = Layout::block(start, layout.queries());
            let cost = layout.key_blocks(&queries).count();
            let task = |head| (3 * cost, layout, Task::Queries(head, queries.clone()));
            split.extend((0..layout.heads).map(task));
        }
    }
    split
}

struct Pass<'a> {
    cpu: &'a Cpu,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    dy: &'a [f32],
    lse: &'a [f32],
    delta: &'a [f32],
    dq: Shared<'a>,
    dk: Shared<'a>,
    dv: Shared<'a>,
}

/// A block of queries of one head, ready for the kernel.
struct QueryBlock<'a> {
    queries: Range<usize>,
    /// `[BLOCK, width]`.
    q: &'a mut [f32],
    dy: &'a mut [f32],
    /// The same block, packed.
    q_packed: &'a mut [f32],
    dy_packed: &'a mut [f32],
    lse: Lanes,
    delta: Lanes,
}

impl<'a> QueryBlock<'a> {
    /// Number of elements of memory.
    fn len(width: usize) -> usize {
        4 * BLOCK * width
    }

    fn new(memory: &'a mut [f32], width: usize) -> Self {
        let (q, rest) = memory.split_at_mut(BLOCK * width);
        let (dy, rest) = rest.split_at_mut(BLOCK * width);
        let (q_packed, dy_packed) = rest.split_at_mut(BLOCK * width);
        Self {
            queries: 0..0,
            q,
            dy,
            q_packed,
            dy_packed,
            lse: [0.0; BLOCK],
            delta: [0.0; BLOCK],
        }
    }

    fn load(&mut self, pass: &Pass<'_>, layout: &Layout, head: usize, queries: Range<usize>) {
        let (dim, width) = (layout.head_dim, layout.width());
        let row = |query| layout.query_row(query, head);
        for (to, packed, from) in [
            (&mut self.q, &mut self.q_packed, pass.q),
            (&mut self.dy, &mut self.dy_packed, pass.dy),
        ] {
            copy_rows(to, width, from, dim, queries.clone(), |query| {
                row(query) * dim
            });
            pack_queries(packed, from, layout, head, &queries);
        }
        // Lanes without a query get the probability exp(−∞).
        (self.lse, self.delta) = ([f32::INFINITY; BLOCK], [0.0; BLOCK]);
        for (lane, query) in queries.clone().enumerate() {
            self.lse[lane] = pass.lse[row(query)];
            self.delta[lane] = pass.delta[row(query)];
        }
        self.queries = queries;
    }
}

impl Pass<'_> {
    /// Computes the probabilities and the gradient of `q·k` of one pair of blocks, both `[keys,
    /// BLOCK]`, and returns the tiles that hold them.
    fn pair(
        &self,
        layout: &Layout,
        block: &QueryBlock<'_>,
        kv_head: usize,
        keys: &Range<usize>,
        (p, ds): (&mut [f32], &mut [f32]),
    ) -> Seen {
        let (dim, at) = (layout.head_dim, layout.key_at(keys.start, kv_head));
        let stride = layout.kv_heads * dim;
        let seen = Seen::new(layout, &block.queries, keys);
        seen.pairs(
            (&self.k[at..], stride),
            (block.q_packed, dim),
            layout.scale,
            p,
        );
        seen.pairs((&self.v[at..], stride), (block.dy_packed, dim), 1.0, ds);
        layout.cap(p);
        layout.mask(p, &block.queries, keys);
        let inverse = layout.softcap.map_or(0.0, |softcap| 1.0 / softcap);
        let (lse, delta) = (&block.lse, &block.delta);
        differentiate(p, ds, &seen, lse, delta, layout.scale, inverse);
        seen
    }

    /// Computes `dk` and `dv` of `keys`; with `dq`, also the gradient of the queries, for which
    /// `keys` must be all keys.
    fn keys(
        &self,
        layout: &Layout,
        kv_head: usize,
        keys: Range<usize>,
        with_dq: bool,
    ) -> Result<(), KernelError> {
        let (dim, width) = (layout.head_dim, layout.width());
        let sums = keys.len() * width;
        let len = QueryBlock::len(width) + 2 * BLOCK * (BLOCK + width) + 2 * sums;
        let mut scratch = Scratch::take(self.cpu, len)?;
        let (memory, rest) = scratch.split_at_mut(QueryBlock::len(width));
        let (p, rest) = rest.split_at_mut(BLOCK * BLOCK);
        let (ds, rest) = rest.split_at_mut(BLOCK * BLOCK);
        let (k, rest) = rest.split_at_mut(BLOCK * width);
        let (dq, rest) = rest.split_at_mut(BLOCK * width);
        rest.fill(0.0);
        let (dk, dv) = rest.split_at_mut(sums);
        let mut block = QueryBlock::new(memory, width);
        for head in layout.group(kv_head) {
            for start in layout.query_blocks_of(&keys) {
                block.load(self, layout, head, Layout::block(start, layout.queries()));
                dq.fill(0.0);
                for start in layout
                    .key_blocks(&block.queries)
                    .filter(|start| keys.contains(start))
                {
                    let keys_here = Layout::block(start, layout.keys());
                    let size = keys_here.len();
                    let (p, ds) = (&mut p[..size * BLOCK], &mut ds[..size * BLOCK]);
                    let seen = self.pair(layout, &block, kv_head, &keys_here, (p, ds));
                    let at = (start - keys.start) * width;
                    seen.over_queries(p, block.dy, width, &mut dv[at..]);
                    seen.over_queries(ds, block.q, width, &mut dk[at..]);
                    if with_dq {
                        copy_rows(k, width, self.k, dim, keys_here, |key| {
                            layout.key_at(key, kv_head)
                        });
                        seen.over_keys(ds, k, width, dq);
                    }
                }
                if with_dq {
                    self.write_dq(layout, head, &block.queries, dq);
                }
            }
        }
        for (row, key) in keys.enumerate() {
            let at = layout.key_at(key, kv_head);
            // SAFETY: this task alone writes this key and head; ranges do not overlap.
            let to = unsafe { (self.dk.part(at, dim), self.dv.part(at, dim)) };
            to.0.copy_from_slice(&dk[row * width..][..dim]);
            to.1.copy_from_slice(&dv[row * width..][..dim]);
        }
        Ok(())
    }

    /// Computes `dq` of `queries`.
    fn queries(
        &self,
        layout: &Layout,
        head: usize,
        queries: Range<usize>,
    ) -> Result<(), KernelError> {
        let (dim, width, kv_head) = (layout.head_dim, layout.width(), layout.kv_head(head));
        let len = QueryBlock::len(width) + 2 * BLOCK * (BLOCK + width);
        let mut scratch = Scratch::take(self.cpu, len)?;
        let (memory, rest) = scratch.split_at_mut(QueryBlock::len(width));
        let (p, rest) = rest.split_at_mut(BLOCK * BLOCK);
        let (ds, rest) = rest.split_at_mut(BLOCK * BLOCK);
        let (k, dq) = rest.split_at_mut(BLOCK * width);
        let mut block = QueryBlock::new(memory, width);
        block.load(self, layout, head, queries);
        dq.fill(0.0);
        for start in layout.key_blocks(&block.queries) {
            let keys = Layout::block(start, layout.keys());
            let (p, ds) = (&mut p[..keys.len() * BLOCK], &mut ds[..keys.len() * BLOCK]);
            let seen = self.pair(layout, &block, kv_head, &keys, (p, ds));
            copy_rows(k, width, self.k, dim, keys, |key| {
                layout.key_at(key, kv_head)
            });
            seen.over_keys(ds, k, width, dq);
        }
        self.write_dq(layout, head, &block.queries, dq);
        Ok(())
    }

    fn write_dq(&self, layout: &Layout, head: usize, queries: &Range<usize>, dq: &[f32]) {
        let (dim, width) = (layout.head_dim, layout.width());
        for (dq, query) in dq.chunks_exact(width).zip(queries.clone()) {
            // SAFETY: one task writes this query and head; ranges do not overlap.
            let to = unsafe { self.dq.part(layout.query_row(query, head) * dim, dim) };
            to.copy_from_slice(&dq[..dim]);
        }
    }
}
