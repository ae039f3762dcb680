//! Divides a product into packed panels and tiles of the result, and distributes the tiles over
//! threads.

use super::micro::{COLUMNS, Call, Kernel, MOST_COLUMNS, MOST_ROWS, ROWS, Steps, Tile};
use super::output::{Memory, Target};
use super::pack::pack_all;
use super::pieces::{Blocks, Piece, Span, TAIL, pieces};
use super::{Base, Gate, Term, parts};
use crate::{KernelError, cpu::scratch::Scratch};
use rayon::prelude::*;
use std::ops::Range;
use tightrope_device::Cpu;

/// Longest block of the sum: a panel of `b` (20 KiB) and a panel of `a` (8 KiB) share the
/// first-level cache.
const K_BLOCK: usize = 320;
/// Longest part of the sum that is packed at a time.
const K_PART: usize = 8 * K_BLOCK;
/// Largest number of elements of a packed operand (8 MiB), unless [`K_PART`] × one tile needs more.
const PACKED: usize = 2 << 20;
/// Largest number of rows in a tile of the result: its block of `a` (240 KiB) stays in the
/// second-level cache.
const TILE_ROWS: usize = 32 * ROWS;
/// Largest number of columns in a tile of the result.
const TILE_COLUMNS: usize = 16 * COLUMNS;

/// Each element is `((base + alpha · s₁) + alpha · s₂) + …` with one fused multiply-add per block
/// of the sum; `s` is the block's own chain of fused multiply-adds from zero. A short term (`k` ≤
/// [`TAIL`]) is folded into the chain of the term before it, as `a · (alpha · b)`, if neither is
/// gated and that term's `alpha` is 1.
pub(super) fn product(
    cpu: &Cpu,
    kernel: &'static Kernel,
    (m, n): (usize, usize),
    terms: &[Term<'_>],
    base: Base<'_>,
    c: Target,
) -> Result<(), KernelError> {
    let blocks = Blocks {
        most: K_BLOCK,
        unit: 8,
        takes_factor: match kernel.is_pairs {
            true => |factor| factor == 1.0,
            false => |_| true,
        },
    };
    let mut pieces = pieces(terms, (m, n), blocks);
    let steps: usize = pieces.iter().map(Piece::len).sum();
    if let Target::Bf16(c) = c
        && pieces.len() > 1
        && steps > K_PART
    {
        // Later parts add to the sums of earlier ones.
        let in_f32 = |base, c| product(cpu, kernel, (m, n), terms, base, Target::F32(c));
        // SAFETY: these are the elements of the result, which nothing else uses.
        return unsafe { c.in_f32(cpu, (0..m, 0..n), base, in_f32) };
    }
    cpu.install(|| {
        let (mut rest, mut base) = (&mut pieces[..], base);
        while !rest.is_empty() {
            let mut steps = 0;
            let mut count = 0;
            while let Some(piece) = rest.get_mut(count)
                && (count == 0 || steps + piece.len() <= K_PART)
            {
                for span in piece.spans_mut() {
                    span.offset = steps;
                    steps += span.steps.len();
                }
                count += 1;
            }
            let (pieces, after) = rest.split_at_mut(count);
            let part = Part {
                cpu,
                kernel,
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

/// A packed operand: the panels of each block of the sum, `W` elements per step.
struct Packed<'a> {
    scratch: Scratch<'a>,
    /// Index of the first element of the operand.
    first: usize,
    /// Number of elements of a step over all panels.
    width: usize,
}

impl<'a> Packed<'a> {
    fn new<const W: usize>(
        part: &Part<'a>,
        range: Range<usize>,
        pack: impl Fn(&Span<'_>, usize, usize, &mut [f32]) + Sync,
    ) -> Result<Self, KernelError> {
        let (first, count) = (range.start, range.len());
        let width = count.next_multiple_of(W);
        let mut scratch = Scratch::take(part.cpu, width * part.steps)?;
        let spans = part.pieces.iter().flat_map(Piece::spans);
        let spans = spans.map(|span| (span, W * span.steps.len()));
        pack_all(spans, range, W, &mut scratch, pack);
        Ok(Self {
            scratch,
            first,
            width,
        })
    }

    /// Panels of the elements `index..index + count`, for a block that starts `offset` steps into
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

/// Consecutive blocks of one or several terms.
struct Part<'a> {
    cpu: &'a Cpu,
    kernel: &'static Kernel,
    pieces: &'a [Piece<'a>],
    steps: usize,
    base: Base<'a>,
    c: Target,
}

impl Part<'_> {
    fn compute(&self, m: usize, n: usize) -> Result<(), KernelError> {
        let limit = |unit: usize| {
            (PACKED / self.steps.max(1))
                .max(unit)
                .next_multiple_of(unit)
        };
        let pack_a = self
            .pieces
            .iter()
            .any(|piece| piece.span.a_direct.is_none());
        let m_limit = if pack_a { limit(TILE_ROWS) } else { m };
        for columns in parts(n, limit(TILE_COLUMNS)) {
            // If all rows fit one tile, nothing else uses `b`: its panels are packed where they are
            // used. With more rows, `b` is never read unpacked.
            let b = if m <= TILE_ROWS {
                None
            } else {
                Some(Packed::new::<COLUMNS>(
                    self,
                    columns.clone(),
                    |span, first, count, panels| {
                        span.pack_b(first, count, panels);
                    },
                )?)
            };
            for rows in parts(m, m_limit) {
                let a = if pack_a {
                    Some(Packed::new::<ROWS>(
                        self,
                        rows.clone(),
                        |span, first, count, panels| {
                            span.pack_a(first, count, panels);
                        },
                    )?)
                } else {
                    None
                };
                self.tiles(rows, columns.clone())
                    .into_par_iter()
                    .with_max_len(1)
                    .try_for_each(|(rows, columns)| {
                        self.tile(rows, columns, a.as_ref(), b.as_ref())
                    })?;
            }
        }
        Ok(())
    }

    /// Computes one tile of the result.
    fn tile(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        a: Option<&Packed<'_>>,
        b: Option<&Packed<'_>>,
    ) -> Result<(), KernelError> {
        let tile = (rows.clone(), columns.clone());
        match self.c {
            Target::F32(c) => self.blocks(tile, a, b, self.base, c),
            // SAFETY: `product` checked that the elements lie inside the memory, and only this
            // thread works on this tile.
            Target::Bf16(c) => unsafe {
                c.in_f32(self.cpu, (rows, columns), self.base, |base, c| {
                    self.blocks(tile, a, b, base, c)
                })
            },
        }
    }

    /// Computes all blocks of one tile of the result.
    fn blocks(
        &self,
        (rows, columns): (Range<usize>, Range<usize>),
        a: Option<&Packed<'_>>,
        b: Option<&Packed<'_>>,
        base: Base<'_>,
        c: Memory<f32>,
    ) -> Result<(), KernelError> {
        let width = self.kernel.columns;
        // Room for the part of `b` that is packed where it is used.
        let room = if b.is_none() { K_BLOCK + TAIL } else { 0 };
        let mut local = Scratch::take(self.cpu, room * width)?;
        let mut strip = |piece: &Piece<'_>, j: usize| {
            let strip = Strip {
                rows: rows.clone(),
                columns: j..columns.end.min(j + width),
                a,
                b,
                fetch_rows: j == columns.start,
            };
            let mut local = &mut local[..];
            let steps = strip.steps(&piece.span, &mut local);
            let more = piece.tail.as_ref();
            let more = more.map_or(Steps::NONE, |tail| strip.steps(tail, &mut local));
            // Only the first block has the base of the earlier part.
            let base = match piece.span.offset {
                0 => base,
                _ => Base::Output,
            };
            self.strip(piece, &strip, (steps, more), base, c);
        };
        let strips = columns.clone().step_by(width);
        let by_rows = |piece: &Piece<'_>| b.is_none() && piece.span.b_direct.is_none();
        if self.pieces.iter().any(by_rows) {
            // `b` is read from memory, along its rows.
            for j in strips {
                self.pieces.iter().for_each(|piece| strip(piece, j));
            }
        } else {
            // A block of `a` stays in the cache for all strips.
            for piece in self.pieces {
                piece.span.fetch(columns.clone());
                strips.clone().for_each(|j| strip(piece, j));
            }
        }
        Ok(())
    }

    /// Computes one block of one strip.
    fn strip(
        &self,
        piece: &Piece<'_>,
        strip: &Strip<'_>,
        (steps, more): (Steps, Steps),
        base: Base<'_>,
        c: Memory<f32>,
    ) {
        let (kernel, term) = (self.kernel, piece.span.term);
        let (rows, columns) = (strip.rows.clone(), strip.columns.clone());
        let panels = columns.len().div_ceil(COLUMNS);
        // Each tile prefetches its share of the next strip of packed `b`.
        let packed = steps.b_stride == COLUMNS;
        let size = steps.k * panels * COLUMNS;
        let next = steps.b.wrapping_add(if packed { size } else { 0 });
        let mut call = Call {
            steps,
            more,
            alpha: term.alpha,
            base: std::ptr::null(),
            base_stride: 0,
            c: std::ptr::null_mut(),
            c_stride: c.row_stride,
            next,
            fetch_rows: strip.fetch_rows,
        };
        let in_place =
            columns.len().is_multiple_of(COLUMNS) && c.column_stride == 1 && term.gate.is_none();
        if let (true, Base::Bias(bias)) = (in_place, base) {
            call.base = bias[columns.clone()].as_ptr();
        }
        for i in rows.clone().step_by(kernel.rows) {
            let height = kernel.rows.min(rows.end - i);
            let tile = kernel.tile(piece.span.a_direct.is_some(), height, panels);
            if in_place {
                call.c = c.at(i, columns.start);
                if let Base::Output = base {
                    (call.base, call.base_stride) = (call.c.cast_const(), call.c_stride);
                }
                // SAFETY: `product` checked that the result's elements lie inside its memory, and
                // only this thread works on this tile; `Strip::steps` checked `a` and `b`.
                unsafe { tile(&call) };
            } else {
                let place = (i..i + height, columns.clone(), c);
                write(call, tile, place, base, term.gate);
            }
            for steps in [&mut call.steps, &mut call.more] {
                steps.a = steps.a.wrapping_add(kernel.rows / ROWS * steps.a_panel);
            }
            call.next = call.next.wrapping_add(size * kernel.rows / TILE_ROWS);
        }
    }

    /// Divides a part of the result into tiles that fit the caches and suffice for all threads, by
    /// columns first if that is enough.
    fn tiles(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
    ) -> Vec<(Range<usize>, Range<usize>)> {
        let (kernel, threads) = (self.kernel, self.cpu.threads());
        let split = |range: &Range<usize>, unit: usize, count: usize| -> Vec<Range<usize>> {
            let size = range.len().div_ceil(count).next_multiple_of(unit);
            let starts = range.clone().step_by(size);
            starts
                .map(|start| start..range.end.min(start + size))
                .collect()
        };
        let row_panels = rows.len().div_ceil(kernel.rows);
        let column_panels = columns.len().div_ceil(kernel.columns);
        let mut down = rows.len().div_ceil(TILE_ROWS);
        let mut across = columns.len().div_ceil(TILE_COLUMNS);
        // Four tiles per thread even out the time that other work on the machine takes from one thread.
        let wanted = if threads == 1 { 1 } else { 4 * threads };
        if rows.len() <= TILE_ROWS {
            // Every tile reads its columns of `b` from memory once, in long pieces of its rows.
            across = across.max(wanted).min(column_panels);
            down = down.max(threads.div_ceil(across)).min(row_panels);
        } else if down * across < wanted {
            down = down.max(wanted.div_ceil(across)).min(row_panels);
            across = across.max(wanted.div_ceil(down)).min(column_panels);
        }
        if !(down * across).is_multiple_of(threads) {
            across = across.next_multiple_of(threads).min(column_panels);
        }
        let across = split(&columns, kernel.columns, across);
        let mut tiles = Vec::new();
        for rows in split(&rows, kernel.rows, down) {
            tiles.extend(across.iter().map(|columns| (rows.clone(), columns.clone())));
        }
        tiles
    }
}

/// Writes edges, transposed and gated results through a temporary tile.
fn write(
    mut call: Call,
    tile: Tile,
    (rows, columns, c): (Range<usize>, Range<usize>, Memory<f32>),
    base: Base<'_>,
    gate: Option<&dyn Gate>,
) {
    let (height, count) = (rows.len(), columns.len());
    let at = |row: usize, column: usize| c.at(rows.start + row, columns.start + column);
    let mut from = [[0f32; MOST_COLUMNS]; MOST_ROWS];
    for (row, from) in from.iter_mut().enumerate().take(height) {
        for (column, from) in from.iter_mut().enumerate().take(count) {
            *from = match base {
                Base::Zero => 0.0,
                Base::Bias(bias) => bias[columns.start + column],
                // SAFETY: this element lies inside the result, whose memory `product` checked,
                // and only this thread works on this tile.
                Base::Output => unsafe { *at(row, column) },
            };
        }
    }
    let mut into = [[0f32; MOST_COLUMNS]; MOST_ROWS];
    call.c = into.as_mut_ptr().cast();
    call.c_stride = MOST_COLUMNS;
    if let Some(gate) = gate {
        // SAFETY: `into` has room for all rows; `Strip::steps` checked `a` and `b`.
        unsafe { tile(&call) };
        for (row, into) in into.iter_mut().enumerate().take(height) {
            gate.apply(rows.start + row, columns.clone(), &mut into[..count]);
        }
        for (into, from) in into.as_flattened_mut().iter_mut().zip(from.as_flattened()) {
            *into += from;
        }
    } else {
        call.base = from.as_ptr().cast();
        call.base_stride = MOST_COLUMNS;
        // SAFETY: `from` and `into` have room for all rows; `Strip::steps` checked `a` and `b`.
        unsafe { tile(&call) };
    }
    for (row, into) in into.iter().enumerate().take(height) {
        for (column, &into) in into.iter().enumerate().take(count) {
            // SAFETY: this element lies inside the result, whose memory `product` checked, and
            // only this thread works on this tile.
            unsafe { *at(row, column) = into };
        }
    }
}

/// Columns of a tile that its kernel computes together, over all rows of the tile.
struct Strip<'a> {
    rows: Range<usize>,
    columns: Range<usize>,
    a: Option<&'a Packed<'a>>,
    b: Option<&'a Packed<'a>>,
    /// Whether the tiles of this strip are the first to read these rows.
    fetch_rows: bool,
}

impl Strip<'_> {
    /// Addresses of the operands of the first tile; `b` is packed into `local` if nothing else
    /// holds it.
    fn steps(&self, span: &Span<'_>, local: &mut &mut [f32]) -> Steps {
        let (k, start) = (span.steps.len(), span.steps.start);
        let (i, height) = (self.rows.start, self.rows.len());
        let (a, a_stride, a_panel) = match (span.a_direct, self.a) {
            (Some((data, stride)), _) => {
                let a = &data[i * stride + start..][..(height - 1) * stride + k];
                (a, stride, ROWS * stride)
            }
            (None, Some(a)) => {
                let a = a.panels::<ROWS>((i, height), span.offset, k);
                (a, ROWS, ROWS * k)
            }
            (None, None) => unreachable!("`a` is packed unless it is read where it stands"),
        };
        let (j, count) = (self.columns.start, self.columns.len());
        let width = count.next_multiple_of(COLUMNS);
        // Distances between steps and between panels.
        let (b, b_stride, b_panel) = match (self.b, span.b_direct) {
            (Some(b), _) => {
                let b = b.panels::<COLUMNS>((j, count), span.offset, k);
                (b, COLUMNS, COLUMNS * k)
            }
            (None, Some((data, stride))) if count == width => {
                let b = &data[start * stride + j..][..(k - 1) * stride + count];
                (b, stride, COLUMNS)
            }
            _ => {
                let (now, later) = std::mem::take(local).split_at_mut(k * width);
                *local = later;
                span.pack_b(j, count, now);
                (&*now, COLUMNS, COLUMNS * k)
            }
        };
        Steps {
            k,
            a: a.as_ptr(),
            a_stride,
            a_panel,
            b: b.as_ptr(),
            b_stride,
            b_panel,
        }
    }
}
