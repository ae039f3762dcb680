//! Computes products on the matrix unit of x86 processors (AMX), in the precision of f32.
//!
//! A number is the sum of three bf16 (`split`). `a · b` is the sum of the six products of parts
//! that are not below its last digit: `a₂b₀ + a₁b₀ + a₁b₁ + a₀b₁ + a₀b₂ + a₀b₀`. Tiles multiply
//! bf16 exactly and add in f32, with one rounding of the sum for 32 products. The unit is so fast
//! that six products take less than half the time of one in vectors (`tile`).

mod division;
mod join;
mod split;
mod tile;

use super::pack::pack_all;
use super::pieces::{Blocks, Piece, Span, pieces};
use super::{Base, Matrix, Memory, Operand, Term, Through, parts, parts_of};
use crate::{KernelError, cpu::scratch::Scratch};
use division::{TILE_COLUMNS, TILE_ROWS, tiles};
use join::join;
use rayon::prelude::*;
use split::{GROUP, PARTS, PLANE, Panels, SIDE, STEPS, pack};
use std::ops::Range;
use tightrope_device::Cpu;
use tile::{AHEAD, BLOCK, Call, Sums, Tiles, kernel};

/// Panels of `b` (120 KiB) stream past while a block of `a` stays in the second-level cache.
const BLOCKS: Blocks = Blocks {
    most: 20 * STEPS,
    unit: STEPS,
};
/// Number of groups of a sum that are packed at a time, unless a single block has more.
const GROUPS: usize = 160;
/// Largest number of elements of packed `b` (16 MiB), unless [`GROUPS`] × one tile needs more.
const PACKED: usize = 4 << 20;
/// Number of columns of `b` that are packed at once where they are used: whole cache lines of its
/// rows.
const STRIP: usize = 128;

/// `C[m, n] = base + Σ_terms alpha · gate(A[m, k] · B[k, n])` on a device that has tiles.
///
/// Blocks of the sum are joined as in the product without tiles. A block is a sum over groups of 32
/// steps. In a group, each of the six products is two chains of 16 fused multiply-adds, whose sum
/// is added.
pub(super) fn product(
    cpu: &Cpu,
    (m, n): (usize, usize),
    terms: &[Term<'_>],
    base: Base<'_>,
    c: Memory,
) -> Result<(), KernelError> {
    assert!(cpu.has_amx());
    let pieces = pieces(terms, (m, n), BLOCKS);
    cpu.install(|| {
        let (mut rest, mut base) = (&pieces[..], base);
        while !rest.is_empty() {
            let mut sum = 0;
            let fits = |piece: &&Piece<'_>| {
                sum += Groups::of(piece).all();
                sum <= GROUPS
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (pieces, after) = rest.split_at(count);
            let part = Part {
                cpu,
                pieces,
                base,
                c,
                middle: None,
            };
            part.compute(m, n)?;
            (rest, base) = (after, Base::Output);
        }
        Ok(())
    })
}

/// Like [`super::product_through`], if the rows are `A` itself: `A` is then packed once, and `X` is
/// read where it was written.
///
/// Returns whether it was done: sums of more than [`GROUPS`] groups would need `X` in several
/// parts.
pub(super) fn product_through(
    cpu: &Cpu,
    (m, n): (usize, usize),
    term: Term<'_>,
    through: Through<'_>,
    base: Base<'_>,
    (x, c): (Memory, Memory),
) -> Result<bool, KernelError> {
    assert!(cpu.has_amx() && through.rows.is_none());
    let rank = through.rank;
    // Stands for `X`, which does not exist yet.
    let unread = Matrix::<f32>::new(&[], rank);
    let (terms, down) = ([term, through.up(&unread)], [through.down(term)]);
    let blocks = pieces(&terms, (m, n), BLOCKS);
    let groups: usize = blocks.iter().map(|piece| Groups::of(piece).all()).sum();
    if groups > GROUPS {
        return Ok(false);
    }
    let of_x = pieces(&down, (m, rank), BLOCKS);
    cpu.install(|| {
        let part = |pieces, c, base| Part {
            cpu,
            pieces,
            base,
            c,
            middle: None,
        };
        let product = part(&of_x, x, Base::Zero);
        let middle = Middle {
            packed: product.pack_b(0..rank)?,
            product,
            rank,
            up: &terms[1],
        };
        let part = Part {
            middle: Some(&middle),
            ..part(&blocks, c, base)
        };
        part.compute(m, n)
    })?;
    Ok(true)
}

/// The first of two chained products.
struct Middle<'a> {
    product: Part<'a>,
    /// All of its `b`, packed.
    packed: Scratch<'a>,
    rank: usize,
    /// The term that uses its result as `a`.
    up: &'a Term<'a>,
}

/// Groups of steps of one block and of the term that continues in it; sizes of panels in elements
/// of f32.
#[derive(Clone, Copy)]
struct Groups {
    /// Number of groups in which `b` has one part.
    single: usize,
    /// Number of later groups in which `b` has three parts.
    triple: usize,
}

impl Groups {
    fn of(piece: &Piece<'_>) -> Self {
        let mut groups = Self {
            single: 0,
            triple: 0,
        };
        for span in piece.spans() {
            *if Self::is_single(span) {
                &mut groups.single
            } else {
                &mut groups.triple
            } += Self::of_span(span);
        }
        groups
    }

    fn of_span(span: &Span<'_>) -> usize {
        span.steps.len().div_ceil(STEPS)
    }

    /// The term that continues in a block comes after it, always in three parts.
    fn is_single(span: &Span<'_>) -> bool {
        !span.continues && span.term.b.rows().is_bf16()
    }

    fn all(self) -> usize {
        self.single + self.triple
    }

    fn a_panel(self) -> usize {
        self.all() * GROUP
    }

    fn b_panel(self) -> usize {
        self.single * PLANE + self.triple * GROUP
    }
}

/// Consecutive blocks of one or several terms.
#[derive(Clone, Copy)]
struct Part<'a> {
    cpu: &'a Cpu,
    pieces: &'a [Piece<'a>],
    base: Base<'a>,
    c: Memory,
    middle: Option<&'a Middle<'a>>,
}

/// Packs columns of `b` of one block.
fn pack_b(piece: &Piece<'_>, first: usize, count: usize, data: &mut [f32]) {
    let stride = Groups::of(piece).b_panel();
    let mut start = 0;
    for span in piece.spans() {
        let data = &mut data[start..];
        let mut panels = Panels { data, stride };
        let (operand, steps, columns) = (span.term.b, span.steps.clone(), (first, count));
        let groups = Groups::of_span(span);
        // SAFETY: a processor with tiles has AVX-512 with bf16.
        unsafe {
            if Groups::is_single(span) {
                pack::<false, 1>(operand, 1.0, columns, steps, &mut panels);
                start += groups * PLANE;
            } else {
                pack::<false, PARTS>(operand, span.factor, columns, steps, &mut panels);
                start += groups * GROUP;
            }
        }
    }
}

impl Part<'_> {
    fn compute(&self, m: usize, n: usize) -> Result<(), KernelError> {
        let limit = PACKED * SIDE / self.panel().max(1);
        let limit = limit.max(TILE_COLUMNS) / TILE_COLUMNS * TILE_COLUMNS;
        for columns in parts(n, limit) {
            // If all rows fit one tile, nothing else uses `b`: it is packed where it is used.
            let b = if m <= TILE_ROWS {
                None
            } else {
                Some(self.pack_b(columns.clone())?)
            };
            tiles(m, columns.clone(), b.is_some(), self.cpu.threads())
                .into_par_iter()
                .with_max_len(1)
                .try_for_each(|(rows, tile)| {
                    let b = b.as_ref().map(|b| (&b[..], columns.clone()));
                    self.tile(rows, tile, b)
                })?;
        }
        Ok(())
    }

    /// Number of elements of packed `b` for each 16 columns.
    fn panel(&self) -> usize {
        self.pieces.iter().map(|p| Groups::of(p).b_panel()).sum()
    }

    /// Packs the panels of every block.
    fn pack_b(&self, columns: Range<usize>) -> Result<Scratch<'_>, KernelError> {
        let panels = columns.len().div_ceil(SIDE);
        let mut scratch = Scratch::take(self.cpu, panels * self.panel())?;
        let pieces = self.pieces.iter();
        let pieces = pieces.map(|piece| (piece, Groups::of(piece).b_panel()));
        pack_all(pieces, columns, SIDE, &mut scratch, pack_b);
        Ok(scratch)
    }

    /// Computes all blocks of one tile of the result. `b` has its packed panels and their columns.
    fn tile(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        b: Option<(&[f32], Range<usize>)>,
    ) -> Result<(), KernelError> {
        // SAFETY: the device has tiles.
        let registers = unsafe { Tiles::new() };
        let a_panels = self.pieces.iter().map(|p| Groups::of(p).a_panel());
        let most = a_panels.max().unwrap_or(0);
        let mut a = Scratch::take(self.cpu, rows.len().div_ceil(SIDE) * most)?;
        let room = if b.is_none() { STRIP / SIDE } else { 0 };
        let mut local = Scratch::take(self.cpu, room * most)?;
        // Tiles of the first column write `X` to its destination; the others have their own copy.
        let mut own = None;
        let middle = match self.middle {
            Some(middle) if columns.start == 0 => Some((middle, middle.product.c)),
            Some(middle) => {
                let own = own.insert(Scratch::take(self.cpu, rows.len() * middle.rank)?);
                Some((middle, middle.memory(own, rows.start)))
            }
            None => None,
        };
        let mut before = 0;
        for (index, piece) in self.pieces.iter().enumerate() {
            let base = self.base_of(index);
            let len = Groups::of(piece).b_panel();
            self.pack_a(index, &registers, rows.clone(), middle, &mut a);
            for strip in parts_of(columns.clone(), STRIP) {
                let b = match &b {
                    Some((b, all)) => {
                        let panels = all.len().div_ceil(SIDE);
                        let start = before * panels + (strip.start - all.start) / SIDE * len;
                        &b[start..][..strip.len().div_ceil(SIDE) * len]
                    }
                    None => {
                        pack_b(piece, strip.start, strip.len(), &mut local);
                        &local[..strip.len().div_ceil(SIDE) * len]
                    }
                };
                for columns in parts_of(strip.clone(), BLOCK) {
                    let from = (columns.start - strip.start) / SIDE * len;
                    let b = &b[from..][..columns.len().div_ceil(SIDE) * len];
                    let a = (rows.clone(), &a[..], Groups::of(piece).a_panel());
                    self.column(piece, base, &registers, a, (columns, b));
                }
            }
            before += len;
        }
        Ok(())
    }

    /// Values that a block is added to.
    fn base_of(&self, piece: usize) -> Base<'_> {
        if piece == 0 { self.base } else { Base::Output }
    }

    /// Packs rows of `a` of one block, and writes these rows of the first product to its memory on
    /// the way.
    fn pack_a(
        &self,
        index: usize,
        registers: &Tiles,
        rows: Range<usize>,
        middle: Option<(&Middle<'_>, Memory)>,
        data: &mut [f32],
    ) {
        let piece = &self.pieces[index];
        let stride = Groups::of(piece).a_panel();
        let mut start = 0;
        for span in piece.spans() {
            let panels = &mut Panels {
                data: &mut data[start..],
                stride,
            };
            let (steps, count) = (span.steps.clone(), rows.len());
            match middle {
                Some((middle, x)) if std::ptr::eq(middle.up, span.term) => {
                    let len = count * middle.rank;
                    // SAFETY: these rows lie in the memory one after the other, earlier blocks
                    // wrote them, and only this thread uses them.
                    let x = unsafe { std::slice::from_raw_parts(x.at(rows.start, 0), len) };
                    let x = Matrix::new(x, middle.rank);
                    // SAFETY: a processor with tiles has AVX-512 with bf16.
                    unsafe {
                        pack::<true, PARTS>(Operand::Rows(&x), 1.0, (0, count), steps, panels);
                    }
                }
                _ => {
                    let which = (rows.start, count);
                    // SAFETY: a processor with tiles has AVX-512 with bf16.
                    unsafe { pack::<true, PARTS>(span.term.a, 1.0, which, steps, panels) };
                    if let Some((middle, x)) = middle {
                        let a = (rows.clone(), &data[start..], stride);
                        middle.block(index, registers, a, x);
                    }
                }
            }
            start += Groups::of_span(span) * GROUP;
        }
    }

    /// Computes one block of the sum for some columns of a tile. `a` comes with the distance
    /// between its panels.
    fn column(
        &self,
        piece: &Piece<'_>,
        base: Base<'_>,
        registers: &Tiles,
        (rows, a, a_panel): (Range<usize>, &[f32], usize),
        (columns, b): (Range<usize>, &[f32]),
    ) {
        let groups = Groups::of(piece);
        let mut sums = Sums([[0.0; BLOCK]; BLOCK]);
        let term = piece.span.term;
        // Whole sums are written directly to the result.
        let direct = matches!(base, Base::Zero)
            && (term.alpha, columns.len(), self.c.column_stride) == (1.0, BLOCK, 1)
            && term.gate.is_none();
        let blocks = rows.len().div_ceil(BLOCK);
        for (index, rows) in parts_of(rows, BLOCK).enumerate() {
            if groups.all() == 0 {
                join(self.c, term, base, rows, columns.clone(), &mut sums);
                continue;
            }
            let c = self.c.at(rows.start, columns.start);
            let b_panel = groups.b_panel();
            let a = a[index * BLOCK / SIDE * a_panel..].as_ptr();
            let direct = direct && rows.len() == BLOCK;
            let row_bytes = self.c.row_stride * size_of::<f32>();
            let (sums_at, sums_bytes) = if direct {
                (c, row_bytes)
            } else {
                (sums.0.as_mut_ptr().cast(), BLOCK * size_of::<f32>())
            };
            // Each block prefetches its share of the next columns' panels, and two shares if there
            // are few blocks.
            let share = index * b_panel / PLANE * AHEAD;
            let far = if blocks > 4 { 0 } else { b_panel };
            let call = Call {
                single: groups.single,
                triple: groups.triple,
                a: [a, a.wrapping_add(a_panel)],
                b: [b.as_ptr(), b.as_ptr().wrapping_add(b_panel)],
                sums: sums_at,
                row_bytes: sums_bytes,
                next: c.cast_const(),
                next_bytes: row_bytes,
                ahead: b.as_ptr_range().end.wrapping_add(share),
                ahead_bytes: far * size_of::<f32>(),
            };
            let kernel = kernel(rows.len().div_ceil(SIDE), columns.len().div_ceil(SIDE));
            // SAFETY: `a` and `b` have these panels; `super::product` checked that all elements lie
            // inside the result, and only this thread works on this tile.
            unsafe { kernel(registers, &call) };
            if !direct {
                join(self.c, term, base, rows, columns.clone(), &mut sums);
            }
        }
    }
}

impl Middle<'_> {
    /// Memory for the rows from `first` on.
    fn memory(&self, own: &mut [f32], first: usize) -> Memory {
        Memory {
            data: own.as_mut_ptr().wrapping_sub(first * self.rank),
            row_stride: self.rank,
            column_stride: 1,
        }
    }

    /// Computes one block of the sum for these rows of `a`, into `x`.
    fn block(&self, index: usize, registers: &Tiles, a: (Range<usize>, &[f32], usize), x: Memory) {
        let pieces = self.product.pieces;
        let panel = |piece| Groups::of(piece).b_panel();
        let panels = self.rank.div_ceil(SIDE);
        let start = panels * pieces[..index].iter().map(panel).sum::<usize>();
        let len = panel(&pieces[index]);
        let part = Part {
            c: x,
            middle: None,
            ..self.product
        };
        for columns in parts(self.rank, BLOCK) {
            let from = start + columns.start / SIDE * len;
            let b = &self.packed[from..][..columns.len().div_ceil(SIDE) * len];
            let base = part.base_of(index);
            part.column(&pieces[index], base, registers, a.clone(), (columns, b));
        }
    }
}
