//! The backward pass, which computes the probabilities again, block by block.
//!
//! A family is a range and the ranges that read it as their prefix. A unit of work is a key head of a
//! family: it takes five products for each pair of blocks. If such units would leave threads idle,
//! `dk` and `dv` are computed separately for each block of keys, and `dq` for each block of queries:
//! this takes seven products and gives the same bits. In both, the keys of a prefix are summed over
//! the queries of their own range and then over those of each reader.

use super::super::Backward;
use super::Shared;
use super::block::{BLOCK, Lanes, Layout, copy_rows, differentiate, dot, overlap, pack_queries};
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

/// Work of one task.
#[derive(Clone)]
enum Task {
    /// All gradients of a key head and the query heads that share it.
    KeyHead(usize),
    /// `dk` and `dv` of some of a member's own keys of a key head.
    Keys(usize, usize, Range<usize>),
    /// `dq` of some queries of a member and query head.
    Queries(usize, usize, Range<usize>),
}

pub(super) fn run<T: Activation>(cpu: &Cpu, args: Backward<'_, Cpu>) -> Result<(), KernelError> {
    let config = &args.config;
    let ranges = config.ranges.as_slice();
    let (dy, y) = (args.dy.as_slice::<T>()?, args.y.as_slice::<T>()?);
    let dim = config.head_dim;
    let delta = args.delta.into_slice::<f32>()?;
    for layout in ranges.iter().map(|&range| Layout::new(config, range)) {
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
    let first = (0..ranges.len()).filter(|&index| ranges[index].prefix_len == 0);
    let layout = |index: usize| Layout::new(config, ranges[index]);
    let families = first.map(|first| config.ranges.family(first).map(layout).collect());
    let families: Vec<Vec<Layout>> = families.collect();
    let mut tasks = tasks(&families, cpu.threads());
    // The longest tasks come first, so that no thread starts one when the others are done.
    tasks.sort_by_key(|task| Reverse(task.0));
    cpu.install(|| {
        tasks
            .into_par_iter()
            .with_max_len(1)
            .try_for_each(|(_, family, task)| match task {
                Task::KeyHead(kv_head) => pass.key_head(family, kv_head),
                Task::Keys(member, kv_head, keys) => pass.keys(family, member, kv_head, keys),
                Task::Queries(member, head, queries) => {
                    pass.queries(&family[member], head, queries)
                }
            })
    })
}

/// Returns the tasks with their cost in pairs of blocks.
fn tasks(families: &[Vec<Layout>], threads: usize) -> Vec<(usize, &[Layout], Task)> {
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
    for family in families.iter().filter(|family| family[0].keys() > 0) {
        let layout = &family[0];
        let cost = family.iter().map(pairs).sum::<usize>() * (layout.heads / layout.kv_heads);
        let heads = (0..layout.kv_heads).map(Task::KeyHead);
        whole.extend(heads.map(|task| (cost, &family[..], task)));
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
    for family in families {
        for (member, layout) in family.iter().enumerate() {
            for keys in layout.own_key_blocks() {
                let readers = readers(family, member).iter();
                let blocks = readers.map(|layout| layout.query_blocks_of(&keys).count());
                let cost = blocks.sum::<usize>() * layout.heads / layout.kv_heads;
                let task = |kv_head| Task::Keys(member, kv_head, keys.clone());
                let heads = (0..layout.kv_heads).map(task);
                split.extend(heads.map(|task| (4 * cost, &family[..], task)));
            }
            for start in layout.query_blocks() {
                let queries = Layout::block(start, layout.queries());
                let cost = layout.key_blocks(&queries).count();
                let task = |head| Task::Queries(member, head, queries.clone());
                let heads = (0..layout.heads).map(task);
                split.extend(heads.map(|task| (3 * cost, &family[..], task)));
            }
        }
    }
    split
}

/// The members of a family that see the own keys of one of them.
fn readers(family: &[Layout], member: usize) -> &[Layout] {
    match member {
        0 => family,
        _ => &family[member..=member],
    }
}

struct Pass<'a, T> {
    cpu: &'a Cpu,
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    dy: &'a [T],
    lse: &'a [f32],
    delta: &'a [f32],
    dq: Shared<'a, T>,
    dk: Shared<'a, T>,
    dv: Shared<'a, T>,
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

    fn load<T: Activation>(
        &mut self,
        pass: &Pass<'_, T>,
        layout: &Layout,
        head: usize,
        queries: Range<usize>,
    ) {
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

/// Memory of a task that computes `dk` and `dv`.
struct KeysWork<'a> {
    scratch: Scratch<'a>,
    width: usize,
    rows: usize,
}

/// The parts of [`KeysWork`].
struct KeysParts<'a> {
    queries: &'a mut [f32],
    /// `[BLOCK, BLOCK]`.
    p: &'a mut [f32],
    ds: &'a mut [f32],
    /// `[BLOCK, width]`.
    k: &'a mut [f32],
    dq: &'a mut [f32],
    /// `[rows, width]`, zero at first.
    dk: &'a mut [f32],
    dv: &'a mut [f32],
}

impl<'a> KeysWork<'a> {
    fn take(cpu: &'a Cpu, width: usize, rows: usize) -> Result<Self, KernelError> {
        let sums = 2 * rows * width;
        let len = QueryBlock::len(width) + 2 * BLOCK * (BLOCK + width) + sums;
        let mut scratch = Scratch::take(cpu, len)?;
        scratch[len - sums..].fill(0.0);
        Ok(Self {
            scratch,
            width,
            rows,
        })
    }

    fn parts(&mut self) -> KeysParts<'_> {
        let (queries, rest) = self.scratch.split_at_mut(QueryBlock::len(self.width));
        let (p, rest) = rest.split_at_mut(BLOCK * BLOCK);
        let (ds, rest) = rest.split_at_mut(BLOCK * BLOCK);
        let (k, rest) = rest.split_at_mut(BLOCK * self.width);
        let (dq, rest) = rest.split_at_mut(BLOCK * self.width);
        let (dk, dv) = rest.split_at_mut(self.rows * self.width);
        KeysParts {
            queries,
            p,
            ds,
            k,
            dq,
            dk,
            dv,
        }
    }
}

impl<T: Activation> Pass<'_, T> {
    /// Computes the probabilities and the gradient of `q·k` of one pair of blocks, both `[keys,
    /// BLOCK]`, and returns the tiles that hold them. `rows` is work space, `[BLOCK, width]`.
    fn pair(
        &self,
        layout: &Layout,
        block: &QueryBlock<'_>,
        kv_head: usize,
        keys: &Range<usize>,
        [p, ds, rows]: [&mut [f32]; 3],
    ) -> Seen {
        let seen = Seen::new(layout, &block.queries, keys);
        let dim = layout.head_dim;
        let k = layout.key_rows(self.k, kv_head, keys, rows);
        seen.pairs(k, (block.q_packed, dim), layout.scale, p);
        let v = layout.key_rows(self.v, kv_head, keys, rows);
        seen.pairs(v, (block.dy_packed, dim), 1.0, ds);
        layout.cap(p);
        layout.mask(p, &block.queries, keys);
        let inverse = layout.softcap.map_or(0.0, |softcap| 1.0 / softcap);
        let (lse, delta) = (&block.lse, &block.delta);
        differentiate(p, ds, &seen, lse, delta, layout.scale, inverse);
        seen
    }

    /// Computes all gradients of a key head of a family.
    fn key_head(&self, family: &[Layout], kv_head: usize) -> Result<(), KernelError> {
        // The own keys of each member, one after the other.
        let mut rows = 0;
        let mut own = Vec::with_capacity(family.len());
        for layout in family {
            own.push((layout.own_keys(), rows));
            rows += layout.own_keys().len();
        }
        let mut work = KeysWork::take(self.cpu, family[0].width(), rows)?;
        for (member, layout) in family.iter().enumerate() {
            let wanted = match member {
                0 => &own[..1],
                _ => &[own[0].clone(), own[member].clone()],
            };
            self.add(layout, kv_head, wanted, true, &mut work.parts());
        }
        for (layout, (keys, row)) in family.iter().zip(own) {
            self.write_keys(layout, kv_head, keys, &mut work.parts(), row);
        }
        Ok(())
    }

    /// Computes `dk` and `dv` of some of a member's own keys.
    fn keys(
        &self,
        family: &[Layout],
        member: usize,
        kv_head: usize,
        keys: Range<usize>,
    ) -> Result<(), KernelError> {
        let mut work = KeysWork::take(self.cpu, family[0].width(), keys.len())?;
        for layout in readers(family, member) {
            let wanted = [(keys.clone(), 0)];
            self.add(layout, kv_head, &wanted, false, &mut work.parts());
        }
        self.write_keys(&family[member], kv_head, keys, &mut work.parts(), 0);
        Ok(())
    }

    /// Adds the gradients of `wanted` keys from the queries of a range to rows of `dk` and `dv`; each
    /// run of keys has its first row. With `dq`, also computes the gradient of the queries, for which
    /// all keys must be wanted.
    fn add(
        &self,
        layout: &Layout,
        kv_head: usize,
        wanted: &[(Range<usize>, usize)],
        with_dq: bool,
        work: &mut KeysParts<'_>,
    ) {
        let (dim, width) = (layout.head_dim, layout.width());
        let (Some((first, _)), Some((last, _))) = (wanted.first(), wanted.last()) else {
            return;
        };
        let all = first.start..last.end;
        let mut block = QueryBlock::new(work.queries, width);
        for head in layout.group(kv_head) {
            for start in layout.query_blocks_of(&all) {
                block.load(self, layout, head, Layout::block(start, layout.queries()));
                work.dq.fill(0.0);
                for start in layout.key_blocks(&block.queries) {
                    let keys = overlap(&Layout::block(start, layout.keys()), &all);
                    if keys.is_empty() {
                        continue;
                    }
                    let size = keys.len() * BLOCK;
                    let (p, ds) = (&mut work.p[..size], &mut work.ds[..size]);
                    let space = [&mut *p, &mut *ds, &mut *work.k];
                    let seen = self.pair(layout, &block, kv_head, &keys, space);
                    for (span, row) in wanted {
                        let run = overlap(&keys, span);
                        if run.is_empty() {
                            continue;
                        }
                        let at = (row + run.start - span.start) * width;
                        let run = run.start - keys.start..run.end - keys.start;
                        let (dk, dv) = (&mut work.dk[at..], &mut work.dv[at..]);
                        seen.over_queries(run.clone(), p, (block.dy, width), dv);
                        seen.over_queries(run, ds, (block.q, width), dk);
                    }
                    if with_dq {
                        copy_rows(work.k, width, self.k, dim, keys, |key| {
                            layout.key_at(key, kv_head)
                        });
                        seen.over_keys(ds, work.k, width, work.dq);
                    }
                }
                if with_dq {
                    self.write_dq(layout, head, &block.queries, work.dq);
                }
            }
        }
    }

    /// Writes `dk` and `dv` of own keys of a range, which lie in the rows from `row` on.
    fn write_keys(
        &self,
        layout: &Layout,
        kv_head: usize,
        keys: Range<usize>,
        work: &mut KeysParts<'_>,
        row: usize,
    ) {
        let (dim, width) = (layout.head_dim, layout.width());
        for (row, key) in (row..).zip(keys) {
            let at = layout.key_at(key, kv_head);
            // SAFETY: this task alone writes these keys and this head: they are own keys of the range,
            // own keys of ranges do not overlap, and each range has one family.
            let to = unsafe { (self.dk.part(at, dim), self.dv.part(at, dim)) };
            round(to.0, &work.dk[row * width..][..dim]);
            round(to.1, &work.dv[row * width..][..dim]);
        }
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
            let space = [&mut *p, &mut *ds, &mut *k];
            let seen = self.pair(layout, &block, kv_head, &keys, space);
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
            round(to, &dq[..dim]);
        }
    }
}
