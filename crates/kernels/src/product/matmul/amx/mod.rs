//! Computes products on the matrix unit of x86 processors (AMX), of bf16 or in the precision of f32.
//!
//! Operands of bf16 take one product of tiles for 32 steps (`round`). Otherwise a number is the sum of three bf16 (`split`). `a · b` is the sum of the six products of parts
//! that are not below its last digit: `a₂b₀ + a₁b₀ + a₁b₁ + a₀b₁ + a₀b₂ + a₀b₀`. Tiles multiply
//! bf16 exactly and add in f32, with one rounding of the sum for 32 products. The unit is so fast
//! that six products take less than half the time of one in vectors (`tile`).

mod division;
mod groups;
mod join;
mod round;
mod split;
mod tile;

use super::output::{Memory, Target};
use super::pack::pack_all;
use super::pieces::{Piece, pieces};
use super::{Base, Matrix, Operand, Precision, Term, Through, parts, parts_of};
use crate::{KernelError, cpu::scratch::Scratch};
use division::{TILE_COLUMNS, TILE_ROWS, tiles};
use groups::{Groups, blocks, most_groups};
use join::join;
use rayon::prelude::*;
use split::{GROUP, PARTS, PLANE, Panels, SIDE, pack};
use std::ops::Range;
use tightrope_device::Cpu;
use tile::{AHEAD, BLOCK, Call, Sums, Tiles, kernel};

/// Largest number of elements of packed `b` (16 MiB), unless [`most_groups`] × one tile needs more.
const PACKED: usize = 4 << 20;
/// Number of columns of `b` that are packed at once where they are used: whole cache lines of its
/// rows.
const STRIP: usize = 128;

/// `C[m, n] = base + Σ_terms alpha · gate(A[m, k] · B[k, n])` on a device that has tiles.
///
/// Blocks of the sum are joined as in the product without tiles. A block is a sum over groups of 32
/// steps. In a group, each of the one or six products is two chains of 16 fused multiply-adds,
/// whose sum is added.
pub(super) fn product(
    cpu: &Cpu,
    precision: Precision,
    (m, n): (usize, usize),
    terms: &[Term<'_>],
    base: Base<'_>,
    c: Target,
) -> Result<(), KernelError> {
    assert!(cpu.has_amx());
    let pieces = pieces(terms, (m, n), blocks(precision));
    cpu.install(|| {
        let (mut rest, mut base) = (&pieces[..], base);
        while !rest.is_empty() {
            let mut sum = 0;
            let fits = |piece: &&Piece<'_>| {
                sum += Groups::of(piece, precision).all();
                sum <= most_groups(precision)
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (pieces, after) = rest.split_at(count);
            if let (Target::Bf16(c), false) = (c, after.is_empty()) {
                // Later parts add to the sums of earlier ones.
                let size = (m, n);
                let in_f32 = |base, c| product(cpu, precision, size, terms, base, Target::F32(c));
                // SAFETY: these are the elements of the result, which nothing else uses.
                return unsafe { c.in_f32(cpu, (0..m, 0..n), base, in_f32) };
            }
            let part = Part {
                cpu,
                precision,
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
/// Returns whether it was done: sums of more than [`most_groups`] groups would need `X` in several
/// parts.
pub(super) fn product_through(
    cpu: &Cpu,
    precision: Precision,
    (m, n): (usize, usize),
    term: Term<'_>,
    through: Through<'_>,
    base: Base<'_>,
    (x, c): (&mut [f32], Target),
) -> Result<bool, KernelError> {
    assert!(cpu.has_amx() && through.rows.is_none());
    let rank = through.rank;
    // Stands for `X`, which does not exist yet.
    let unread = Matrix::<f32>::new(&[], rank);
    let (terms, down) = ([term, through.up(&unread)], [through.down(term)]);
    let rule = blocks(precision);
    let blocks = pieces(&terms, (m, n), rule);
    let groups = blocks
        .iter()
        .map(|piece| Groups::of(piece, precision).all());
    if groups.sum::<usize>() > most_groups(precision) {
        return Ok(false);
    }
    let of_x = pieces(&down, (m, rank), rule);
    assert!(m * rank <= x.len(), "the middle does not fit its memory");
    let x = Memory::tile(x, &(0..m), 0, rank);
    cpu.install(|| {
        let part = |pieces, c, base| Part {
            cpu,
            precision,
            pieces,
            base,
            c,
            middle: None,
        };
        let product = part(&of_x, Target::F32(x), Base::Zero);
        let middle = Middle {
            packed: product.pack_b(0..rank)?,
            product,
            x,
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
    /// Destination of its result.
    x: Memory<f32>,
    rank: usize,
    /// The term that uses its result as `a`.
    up: &'a Term<'a>,
}

/// Consecutive blocks of one or several terms.
#[derive(Clone, Copy)]
struct Part<'a> {
    cpu: &'a Cpu,
    precision: Precision,
    pieces: &'a [Piece<'a>],
    base: Base<'a>,
    c: Target,
    middle: Option<&'a Middle<'a>>,
}

/// Packs `factor` times some elements of an operand, for some steps.
type Pack = unsafe fn(Operand<'_>, f32, (usize, usize), Range<usize>, &mut Panels<'_>);

/// Packs columns of `b` of one block.
fn pack_b(
    piece: &Piece<'_>,
    precision: Precision,
    (first, count): (usize, usize),
    data: &mut [f32],
) {
    let stride = Groups::of(piece, precision).b_panel();
    let mut start = 0;
    for span in piece.spans() {
        let data = &mut data[start..];
        let mut panels = Panels { data, stride };
        let (operand, steps, columns) = (span.term.b, span.steps.clone(), (first, count));
        let groups = Groups::of_span(span);
        // SAFETY: a processor with tiles has AVX-512 with bf16.
        unsafe {
            if precision == Precision::Bf16 {
                round::pack::<false>(operand, span.factor, columns, steps, &mut panels);
                start += groups * PLANE;
            } else if Groups::is_single(span) {
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
            let threads = self.cpu.threads();
            tiles(m, columns.clone(), self.precision, b.is_some(), threads)
                .into_par_iter()
                .with_max_len(1)
                .try_for_each(|(rows, tile)| {
                    let b = b.as_ref().map(|b| (&b[..], columns.clone()));
                    self.tile(rows, tile, b)
                })?;
        }
        Ok(())
    }

    fn groups(&self, piece: &Piece<'_>) -> Groups {
        Groups::of(piece, self.precision)
    }

    /// Number of elements of packed `b` for each 16 columns.
    fn panel(&self) -> usize {
        self.pieces.iter().map(|p| self.groups(p).b_panel()).sum()
    }

    /// Packs the panels of every block.
    fn pack_b(&self, columns: Range<usize>) -> Result<Scratch<'_>, KernelError> {
        let panels = columns.len().div_ceil(SIDE);
        let mut scratch = Scratch::take(self.cpu, panels * self.panel())?;
        let pieces = self.pieces.iter();
        let pieces = pieces.map(|piece| (piece, self.groups(piece).b_panel()));
        let pack = |piece: &Piece<'_>, first, count, data: &mut [f32]| {
            pack_b(piece, self.precision, (first, count), data);
        };
        pack_all(pieces, columns, SIDE, &mut scratch, pack);
        Ok(scratch)
    }

    /// Computes one tile of the result. `b` has its packed panels and their columns.
    fn tile(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        b: Option<(&[f32], Range<usize>)>,
    ) -> Result<(), KernelError> {
        let tile = (rows.clone(), columns.clone());
        match self.c {
            Target::Bf16(c) if self.pieces.len() > 1 => {
                let in_f32 = |base, c| self.blocks(tile, b, base, Target::F32(c));
                // SAFETY: `super::product` checked that the elements lie inside the memory, and
                // only this thread works on this tile.
                unsafe { c.in_f32(self.cpu, (rows, columns), self.base, in_f32) }
            }
            c => self.blocks(tile, b, self.base, c),
        }
    }

    /// Computes all blocks of one tile of the result.
    fn blocks(
        &self,
        (rows, columns): (Range<usize>, Range<usize>),
        b: Option<(&[f32], Range<usize>)>,
        base: Base<'_>,
        c: Target,
    ) -> Result<(), KernelError> {
        // SAFETY: the device has tiles.
        let registers = unsafe { Tiles::new() };
        let a_panels = self.pieces.iter().map(|p| self.groups(p).a_panel());
        let most = a_panels.max().unwrap_or(0);
        let mut a = Scratch::take(self.cpu, rows.len().div_ceil(SIDE) * most)?;
        let room = if b.is_none() { STRIP / SIDE } else { 0 };
        let mut local = Scratch::take(self.cpu, room * most)?;
        // Tiles of the first column write `X` to its destination; the others have their own copy.
        let mut own = None;
        let middle = match self.middle {
            Some(middle) if columns.start == 0 => Some((middle, middle.x)),
            Some(middle) => {
                let own = own.insert(Scratch::take(self.cpu, rows.len() * middle.rank)?);
                Some((middle, Memory::tile(own, &rows, 0, middle.rank)))
            }
            None => None,
        };
        let mut before = 0;
        for (index, piece) in self.pieces.iter().enumerate() {
            let base = if index == 0 { base } else { Base::Output };
            let len = self.groups(piece).b_panel();
            self.pack_a(index, &registers, rows.clone(), middle, &mut a);
            for strip in parts_of(columns.clone(), STRIP) {
                let b = match &b {
                    Some((b, all)) => {
                        let panels = all.len().div_ceil(SIDE);
                        let start = before * panels + (strip.start - all.start) / SIDE * len;
                        &b[start..][..strip.len().div_ceil(SIDE) * len]
                    }
                    None => {
                        let columns = (strip.start, strip.len());
                        pack_b(piece, self.precision, columns, &mut local);
                        &local[..strip.len().div_ceil(SIDE) * len]
                    }
                };
                for columns in parts_of(strip.clone(), BLOCK) {
                    let from = (columns.start - strip.start) / SIDE * len;
                    let b = &b[from..][..columns.len().div_ceil(SIDE) * len];
                    let a = (rows.clone(), &a[..], self.groups(piece).a_panel());
                    self.column(piece, (base, c), &registers, a, (columns, b));
                }
            }
            before += len;
        }
        Ok(())
    }

    /// Packs rows of `a` of one block, and writes these rows of the first product to its memory on
    /// the way.
    fn pack_a(
        &self,
        index: usize,
        registers: &Tiles,
        rows: Range<usize>,
        middle: Option<(&Middle<'_>, Memory<f32>)>,
        data: &mut [f32],
    ) {
        let piece = &self.pieces[index];
        let stride = self.groups(piece).a_panel();
        let (group, pack): (_, Pack) = match self.precision {
            Precision::F32 => (GROUP, pack::<true, PARTS>),
            Precision::Bf16 => (PLANE, round::pack::<true>),
        };
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
                    unsafe { pack(Operand::Rows(&x), 1.0, (0, count), steps, panels) };
                }
                _ => {
                    let which = (rows.start, count);
                    // SAFETY: a processor with tiles has AVX-512 with bf16.
                    unsafe { pack(span.term.a, 1.0, which, steps, panels) };
                    if let Some((middle, x)) = middle {
                        let a = (rows.clone(), &data[start..], stride);
                        middle.block(index, registers, a, x);
                    }
                }
            }
            start += Groups::of_span(span) * group;
        }
    }

    /// Computes one block of the sum for some columns of a tile. `a` comes with the distance
    /// between its panels.
    fn column(
        &self,
        piece: &Piece<'_>,
        (base, target): (Base<'_>, Target),
        registers: &Tiles,
        (rows, a, a_panel): (Range<usize>, &[f32], usize),
        (columns, b): (Range<usize>, &[f32]),
    ) {
        let groups = self.groups(piece);
        let mut sums = Sums([[0.0; BLOCK]; BLOCK]);
        let term = piece.span.term;
        // Whole sums of f32 are written directly to the result.
        let direct = match target {
            Target::F32(c)
                if matches!(base, Base::Zero)
                    && (term.alpha, columns.len(), c.column_stride) == (1.0, BLOCK, 1)
                    && term.gate.is_none() =>
            {
                Some(c)
            }
            _ => None,
        };
        let blocks = rows.len().div_ceil(BLOCK);
        for (index, rows) in parts_of(rows, BLOCK).enumerate() {
            if groups.all() == 0 {
                join(target, term, base, (rows, columns.clone()), &mut sums);
                continue;
            }
            let (next, next_bytes) = target.line(rows.start, columns.start);
            let b_panel = groups.b_panel();
            let a = a[index * BLOCK / SIDE * a_panel..].as_ptr();
            let direct = direct.filter(|_| rows.len() == BLOCK);
            let (sums_at, row_bytes) = match direct {
                Some(c) => (c.at(rows.start, columns.start), next_bytes),
                None => (sums.0.as_mut_ptr().cast(), BLOCK * size_of::<f32>()),
            };
            // Each block prefetches its share of the next columns' panels, and two shares if there
            // are few blocks.
            let share = index * b_panel / PLANE * AHEAD;
            let far = if blocks > 4 { 0 } else { b_panel };
            let call = Call {
                half: groups.half,
                single: groups.single,
                triple: groups.triple,
                a: [a, a.wrapping_add(a_panel)],
                b: [b.as_ptr(), b.as_ptr().wrapping_add(b_panel)],
                sums: sums_at,
                row_bytes,
                next,
                next_bytes,
                ahead: b.as_ptr_range().end.wrapping_add(share),
                ahead_bytes: far * size_of::<f32>(),
            };
            let kernel = kernel(rows.len().div_ceil(SIDE), columns.len().div_ceil(SIDE));
            // SAFETY: `a` and `b` have these panels; `super::product` checked that all elements lie
            // inside the result, and only this thread works on this tile.
            unsafe { kernel(registers, &call) };
            if direct.is_none() {
                join(target, term, base, (rows, columns.clone()), &mut sums);
            }
        }
    }
}

impl Middle<'_> {
    /// Computes one block of the sum for these rows of `a`, into `x`.
    fn block(
        &self,
        index: usize,
        registers: &Tiles,
        a: (Range<usize>, &[f32], usize),
        x: Memory<f32>,
    ) {
        let (pieces, product) = (self.product.pieces, &self.product);
        let panel = |piece| product.groups(piece).b_panel();
        let panels = self.rank.div_ceil(SIDE);
        let start = panels * pieces[..index].iter().map(panel).sum::<usize>();
        let len = panel(&pieces[index]);
        let base = if index == 0 { Base::Zero } else { Base::Output };
        for columns in parts(self.rank, BLOCK) {
            let from = start + columns.start / SIDE * len;
            let b = (
                columns.clone(),
                &self.packed[from..][..columns.len().div_ceil(SIDE) * len],
            );
            product.column(
                &pieces[index],
                (base, Target::F32(x)),
                registers,
                a.clone(),
                b,
            );
        }
    }
}
