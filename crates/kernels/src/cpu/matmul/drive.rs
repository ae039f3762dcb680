//! Divides a product into packed panels and tiles of the result, and those among the threads.

use super::micro::{COLUMNS, Call, KERNEL, MOST_COLUMNS, MOST_ROWS, ROWS, Tile, prefetch};
use super::pack::pack;
use super::{Base, Gate, Operand, Output, Term};
use crate::{KernelError, cpu::scratch::Scratch};
use rayon::prelude::*;
use std::ops::Range;
use tightrope_device::Cpu;

/// Longest block of the sum: a panel of `b` (20 KiB) and of `a` (8 KiB) share the first-level cache.
const K_BLOCK: usize = 320;
/// Longest part of the sum that is packed at a time.
const K_PART: usize = 8 * K_BLOCK;
/// Elements that a packed operand has at most (8 MiB), unless [`K_PART`] × one tile needs more.
const PACKED: usize = 2 << 20;
/// Results with at most so many columns read `a` where it stands: too few uses to pack it for.
const THIN: usize = 4 * COLUMNS;
/// Rows at a multiple of this distance (4 KiB) share the same few lines of the first-level cache.
const ALIASED: usize = 1024;
/// Most rows of a tile of the result: its block of `a` (240 KiB) stays in the second-level cache.
const TILE_ROWS: usize = 32 * ROWS;
/// Most columns of a tile of the result.
const TILE_COLUMNS: usize = 16 * COLUMNS;

/// The memory of the result; tiles of it are written from several threads.
#[derive(Clone, Copy)]
struct Memory {
    data: *mut f32,
    row_stride: usize,
    column_stride: usize,
}

// SAFETY: threads write disjoint tiles only (`Part::tile` is called once for each).
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// Blocks of a sum of `k` steps: as few as possible, nearly equal, a function of `k` alone.
fn blocks(k: usize) -> impl Iterator<Item = Range<usize>> {
    let size = k.div_ceil(k.div_ceil(K_BLOCK).max(1)).next_multiple_of(8);
    (0..k)
        .step_by(size.max(1))
        .map(move |start| start..k.min(start + size))
}

/// `C[m, n] = base + Σ_terms alpha · gate(A[m, k] · B[k, n])`.
///
/// Each element is `((base + alpha · s₁) + alpha · s₂) + …` with one fused multiply-add per block
/// of the sum; `s` is the block's own chain of fused multiply-adds from zero.
pub(crate) fn product(
    cpu: &Cpu,
    (m, n): (usize, usize),
    terms: &[Term<'_>],
    base: Base<'_>,
    output: Output<'_>,
) -> Result<(), KernelError> {
    if m == 0 || n == 0 {
        return Ok(());
    }
    let last = (m - 1) * output.row_stride + (n - 1) * output.column_stride;
    assert!(
        last < output.data.len(),
        "the result does not fit its memory"
    );
    let c = Memory {
        data: output.data.as_mut_ptr(),
        row_stride: output.row_stride,
        column_stride: output.column_stride,
    };
    // Sums of no steps still have a base: a block of no steps writes it.
    let nothing = terms.iter().all(|term| term.k == 0);
    let mut pieces = Vec::new();
    for term in terms {
        let empty = nothing.then_some(0..0);
        pieces.extend(
            blocks(term.k)
                .chain(empty)
                .map(|steps| Piece::new(term, steps, m, n)),
        );
    }
    cpu.install(|| {
        let (mut rest, mut base) = (&mut pieces[..], base);
        while !rest.is_empty() {
            let mut steps = 0;
            let mut count = 0;
            while let Some(piece) = rest.get_mut(count)
                && (count == 0 || steps + piece.steps.len() <= K_PART)
            {
                piece.offset = steps;
                steps += piece.steps.len();
                count += 1;
            }
            let (pieces, after) = rest.split_at_mut(count);
            let part = Part {
                cpu,
                pieces,
                steps,
                base,
                c,
            };
            part.compute(m, n)?;
            (rest, base) = (after, Base::Output);
        }
        Ok(())
    })
}

/// One block of the sum of one term.
struct Piece<'a> {
    term: &'a Term<'a>,
    steps: Range<usize>,
    /// Steps of the part before it.
    offset: usize,
    /// `a` and `b` if tiles read them where they stand: elements and the distance between rows.
    a_direct: Option<(&'a [f32], usize)>,
    b_direct: Option<(&'a [f32], usize)>,
}

impl<'a> Piece<'a> {
    fn new(term: &'a Term<'a>, steps: Range<usize>, m: usize, n: usize) -> Self {
        // A block of no steps reads nothing.
        let some = !steps.is_empty();
        Self {
            term,
            steps,
            offset: 0,
            a_direct: match term.a {
                Operand::Rows(rows) if some => rows
                    .plain()
                    .filter(|(_, stride)| n <= THIN || !stride.is_multiple_of(ALIASED)),
                _ => None,
            },
            // Too few uses to pay for packing; `b` has the form of a panel already.
            b_direct: match term.b {
                Operand::Columns(rows) if some && m <= 16 * ROWS => rows.plain(),
                _ => None,
            },
        }
    }

    /// Asks for these columns of `b` if it is read where it stands: along its rows, as memory likes it.
    fn fetch(&self, columns: Range<usize>) {
        let Some((data, stride)) = self.b_direct else {
            return;
        };
        for p in self.steps.clone() {
            let row = &data[p * stride..];
            for j in columns.clone().step_by(COLUMNS) {
                prefetch(&raw const row[j]);
            }
        }
    }

    fn packed_a(&self) -> Option<Operand<'a>> {
        self.a_direct.is_none().then_some(self.term.a)
    }

    fn packed_b(&self) -> Option<Operand<'a>> {
        self.b_direct.is_none().then_some(self.term.b)
    }
}

/// A packed operand: for each block of the sum its panels, `W` elements a step.
struct Packed {
    scratch: Scratch,
    /// First element of the operand.
    first: usize,
    /// Elements of a step over all panels.
    width: usize,
}

impl Packed {
    fn new<const W: usize>(
        part: &Part<'_>,
        range: Range<usize>,
        operand: for<'p> fn(&Piece<'p>) -> Option<Operand<'p>>,
    ) -> Result<Self, KernelError> {
        let (first, count) = (range.start, range.len());
        let width = count.next_multiple_of(W);
        let mut scratch = Scratch::take(part.cpu, width * part.steps)?;
        // Tasks of a block and a few panels each.
        let group = 8 * W;
        let mut tasks = Vec::new();
        let mut rest = &mut scratch[..];
        for piece in part.pieces {
            let (mut panels, after) = rest.split_at_mut(width * piece.steps.len());
            rest = after;
            for start in (0..count).step_by(group) {
                let take = group.min(width - start) * piece.steps.len();
                let (now, later) = panels.split_at_mut(take);
                panels = later;
                tasks.push((piece, start, now));
            }
        }
        tasks
            .into_par_iter()
            .with_max_len(1)
            .for_each(|(piece, start, panels)| {
                if let Some(operand) = operand(piece) {
                    let count = group.min(count - start);
                    pack::<W>(operand, first + start, count, piece.steps.clone(), panels);
                }
            });
        Ok(Self {
            scratch,
            first,
            width,
        })
    }

    /// The panels of the elements `index..index + count`, for a block that starts `offset` steps into
    /// the part and has `len` steps.
    fn panels<const W: usize>(
        &self,
        (index, count): (usize, usize),
        offset: usize,
        len: usize,
    ) -> &[f32] {
        let start = self.width * offset + (index - self.first) * len;
        &self.scratch[start..start + count.next_multiple_of(W) * len]
    }
}

/// Some consecutive blocks, of one term or several.
struct Part<'a> {
    cpu: &'a Cpu,
    pieces: &'a [Piece<'a>],
    steps: usize,
    base: Base<'a>,
    c: Memory,
}

impl Part<'_> {
    fn compute(&self, m: usize, n: usize) -> Result<(), KernelError> {
        let limit = |unit: usize| {
            (PACKED / self.steps.max(1))
                .max(unit)
                .next_multiple_of(unit)
        };
        let pack_a = self.pieces.iter().any(|piece| piece.a_direct.is_none());
        let m_limit = if pack_a { limit(TILE_ROWS) } else { m };
        for columns in parts(n, limit(TILE_COLUMNS)) {
            // Rows that fit one tile share `b` with nobody: its panels are packed where they are used.
            let b = if m <= TILE_ROWS {
                None
            } else {
                Some(Packed::new::<COLUMNS>(self, columns.clone(), |piece| {
                    piece.packed_b()
                })?)
            };
            for rows in parts(m, m_limit) {
                let a = if pack_a {
                    Some(Packed::new::<ROWS>(self, rows.clone(), |piece| {
                        piece.packed_a()
                    })?)
                } else {
                    None
                };
                tiles(rows, columns.clone(), self.cpu.threads())
                    .into_par_iter()
                    .with_max_len(1)
                    .try_for_each(|(rows, columns)| {
                        self.tile(rows, columns, a.as_ref(), b.as_ref())
                    })?;
            }
        }
        Ok(())
    }

    /// All blocks of one tile of the result.
    fn tile(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        a: Option<&Packed>,
        b: Option<&Packed>,
    ) -> Result<(), KernelError> {
        // Of `b` what is packed where it is used.
        let room = if b.is_none() {
            K_BLOCK * KERNEL.columns
        } else {
            0
        };
        let mut local = Scratch::take(self.cpu, room)?;
        let mut strip = |piece: &Piece<'_>, j: usize| {
            let (term, k, start) = (piece.term, piece.steps.len(), piece.steps.start);
            // The first block alone has the base of the part below it.
            let base = if piece.offset == 0 {
                self.base
            } else {
                Base::Output
            };
            let count = KERNEL.columns.min(columns.end - j);
            let panels = count.div_ceil(COLUMNS);
            // From one step and from one panel to the next.
            let (b, b_stride, b_panel) = match (b, piece.b_direct) {
                (Some(b), _) => {
                    let b = b.panels::<COLUMNS>((j, count), piece.offset, k);
                    (b, COLUMNS, COLUMNS * k)
                }
                (None, Some((data, stride))) if count == panels * COLUMNS => {
                    let b = &data[start * stride + j..][..(k - 1) * stride + count];
                    (b, stride, COLUMNS)
                }
                _ => {
                    let b = &mut local[..k * panels * COLUMNS];
                    pack::<COLUMNS>(term.b, j, count, piece.steps.clone(), b);
                    (&*b, COLUMNS, COLUMNS * k)
                }
            };
            // Tiles fetch the next strip of packed `b`, each its share.
            let packed = b_stride == COLUMNS;
            let mut next = b[usize::from(packed) * (k * panels * COLUMNS)..].as_ptr();
            for i in rows.clone().step_by(KERNEL.rows) {
                let height = KERNEL.rows.min(rows.end - i);
                let (a, a_stride, a_panel) = match (piece.a_direct, a) {
                    (Some((data, stride)), _) => {
                        let a = &data[i * stride + start..][..(height - 1) * stride + k];
                        (a, stride, ROWS * stride)
                    }
                    (None, Some(a)) => {
                        let a = a.panels::<ROWS>((i, height), piece.offset, k);
                        (a, ROWS, ROWS * k)
                    }
                    (None, None) => unreachable!("`a` is packed unless it is read where it stands"),
                };
                let call = Call {
                    k,
                    a: a.as_ptr(),
                    a_stride,
                    a_panel,
                    b: b.as_ptr(),
                    b_stride,
                    b_panel,
                    alpha: term.alpha,
                    base: std::ptr::null(),
                    base_stride: 0,
                    c: std::ptr::null_mut(),
                    c_stride: 0,
                    next,
                    next_rows: if j == columns.start && piece.a_direct.is_some() {
                        a.as_ptr().wrapping_add(height * a_stride)
                    } else {
                        std::ptr::null()
                    },
                };
                let tile = KERNEL.tile(piece.a_direct.is_some(), height, panels);
                self.write(call, tile, (i, height), (j, count), base, term.gate);
                next = next.wrapping_add(k * COLUMNS * panels * KERNEL.rows / TILE_ROWS);
            }
        };
        let strips = columns.clone().step_by(KERNEL.columns);
        let by_rows = |piece: &Piece<'_>| b.is_none() && piece.b_direct.is_none();
        if self.pieces.iter().any(by_rows) {
            // `b` is read from memory: along its rows.
            for j in strips {
                self.pieces.iter().for_each(|piece| strip(piece, j));
            }
        } else {
            // A block of `a` stays in the cache for all strips.
            for piece in self.pieces {
                piece.fetch(columns.clone());
                strips.clone().for_each(|j| strip(piece, j));
            }
        }
        Ok(())
    }

    /// Computes rows `i..i + height` and columns `j..j + count` of the result into its memory.
    fn write(
        &self,
        mut call: Call,
        tile: Tile,
        (i, height): (usize, usize),
        (j, count): (usize, usize),
        base: Base<'_>,
        gate: Option<&dyn Gate>,
    ) {
        let at = |row: usize, column: usize| {
            (i + row) * self.c.row_stride + (j + column) * self.c.column_stride
        };
        if count.is_multiple_of(COLUMNS) && self.c.column_stride == 1 && gate.is_none() {
            call.c = self.c.data.wrapping_add(at(0, 0));
            call.c_stride = self.c.row_stride;
            (call.base, call.base_stride) = match base {
                Base::Zero => (std::ptr::null(), 0),
                Base::Bias(bias) => (bias[j..j + count].as_ptr(), 0),
                Base::Output => (call.c.cast_const(), call.c_stride),
            };
            // SAFETY: `product` checked that the result's elements lie inside its memory, this
            // thread alone works on this tile; `a` and `b` are slices of the length that `k` and
            // `height` need.
            unsafe { tile(&call) };
            return;
        }
        // Edges, transposed and gated results go through a tile of their own.
        let mut from = [[0f32; MOST_COLUMNS]; MOST_ROWS];
        for (row, from) in from.iter_mut().enumerate().take(height) {
            for (column, from) in from.iter_mut().enumerate().take(count) {
                *from = match base {
                    Base::Zero => 0.0,
                    Base::Bias(bias) => bias[j + column],
                    // SAFETY: as for the write below.
                    Base::Output => unsafe { *self.c.data.add(at(row, column)) },
                };
            }
        }
        let mut into = [[0f32; MOST_COLUMNS]; MOST_ROWS];
        call.c = into.as_mut_ptr().cast();
        call.c_stride = MOST_COLUMNS;
        if let Some(gate) = gate {
            // SAFETY: `into` has room for all rows; `a` and `b` as above.
            unsafe { tile(&call) };
            for (row, into) in into.iter_mut().enumerate().take(height) {
                gate.apply(i + row, j..j + count, &mut into[..count]);
            }
            for (into, from) in into.as_flattened_mut().iter_mut().zip(from.as_flattened()) {
                *into += from;
            }
        } else {
            call.base = from.as_ptr().cast();
            call.base_stride = MOST_COLUMNS;
            // SAFETY: `from` and `into` have room for all rows; `a` and `b` as above.
            unsafe { tile(&call) };
        }
        for (row, into) in into.iter().enumerate().take(height) {
            for (column, &into) in into.iter().enumerate().take(count) {
                // SAFETY: `(i + row, j + column)` lies inside the result, whose memory `product`
                // checked, and this thread alone works on this tile.
                unsafe { *self.c.data.add(at(row, column)) = into };
            }
        }
    }
}

/// `0..len` in parts of at most `limit`.
fn parts(len: usize, limit: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len)
        .step_by(limit)
        .map(move |start| start..len.min(start + limit))
}

/// Divides a part of the result into tiles: small enough for the caches, and enough of them for all
/// threads, by columns first where that suffices.
fn tiles(
    rows: Range<usize>,
    columns: Range<usize>,
    threads: usize,
) -> Vec<(Range<usize>, Range<usize>)> {
    let split = |range: &Range<usize>, unit: usize, count: usize| -> Vec<Range<usize>> {
        let size = range.len().div_ceil(count).next_multiple_of(unit);
        let starts = range.clone().step_by(size);
        starts
            .map(|start| start..range.end.min(start + size))
            .collect()
    };
    let row_panels = rows.len().div_ceil(KERNEL.rows);
    let column_panels = columns.len().div_ceil(KERNEL.columns);
    let mut down = rows.len().div_ceil(TILE_ROWS);
    let mut across = columns.len().div_ceil(TILE_COLUMNS);
    // Four tiles a thread even out what other work on the machine takes from one of them.
    let wanted = if threads == 1 { 1 } else { 4 * threads };
    if rows.len() <= TILE_ROWS {
        // Every tile reads its columns of `b` from memory: once, and long pieces of its rows.
        across = across.max(wanted).min(column_panels);
        down = down.max(threads.div_ceil(across)).min(row_panels);
    } else if down * across < wanted {
        down = down.max(wanted.div_ceil(across)).min(row_panels);
        across = across.max(wanted.div_ceil(down)).min(column_panels);
    }
    if !(down * across).is_multiple_of(threads) {
        across = across.next_multiple_of(threads).min(column_panels);
    }
    let across = split(&columns, KERNEL.columns, across);
    let mut tiles = Vec::new();
    for rows in split(&rows, KERNEL.rows, down) {
        tiles.extend(across.iter().map(|columns| (rows.clone(), columns.clone())));
    }
    tiles
}
