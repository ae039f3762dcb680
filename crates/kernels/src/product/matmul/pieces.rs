//! Divides a sum into blocks, and says how the operands of each are read.

use super::micro::{COLUMNS, ROWS, prefetch};
use super::pack::pack;
use super::{Operand, Term};
use std::ops::Range;

/// A term with at most this many steps continues the sum of the block before it, if possible.
pub(super) const TAIL: usize = 32;
/// For results with at most this many columns, `a` is read unpacked, because packing would not pay
/// off.
const THIN: usize = 4 * COLUMNS;
/// Rows at a multiple of this distance (4 KiB) share the same few lines of the first-level cache.
const ALIASED: usize = 1024;

/// Rule that divides a sum into blocks.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    /// Length of the longest block.
    pub(super) most: usize,
    /// All blocks but the last are multiples of this.
    pub(super) unit: usize,
    /// Whether `b` keeps its digits when it is packed with this factor.
    pub(super) takes_factor: fn(f32) -> bool,
}

impl Blocks {
    /// Splits `0..k` into the fewest blocks of nearly equal size. The blocks depend on `k` only, so
    /// results do not depend on threads.
    fn of(self, k: usize) -> impl Iterator<Item = Range<usize>> {
        let size = k.div_ceil(k.div_ceil(self.most).max(1));
        let size = size.next_multiple_of(self.unit);
        (0..k)
            .step_by(size.max(1))
            .map(move |start| start..k.min(start + size))
    }
}

/// Consecutive steps of one term.
pub(super) struct Span<'a> {
    pub(super) term: &'a Term<'a>,
    pub(super) steps: Range<usize>,
    /// Number of steps of the part before it.
    pub(super) offset: usize,
    /// `a` and `b` if tiles read them unpacked: the elements and the distance between rows.
    pub(super) a_direct: Option<(&'a [f32], usize)>,
    pub(super) b_direct: Option<(&'a [f32], usize)>,
    /// Whether the span continues the sum of the block before it; the factor of its `b`.
    pub(super) continues: bool,
    pub(super) factor: f32,
}

impl<'a> Span<'a> {
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
            // Packing does not pay off for few uses; `b` already has the form of a panel.
            b_direct: match term.b {
                Operand::Columns(rows) if some && m <= 16 * ROWS => rows.plain(),
                _ => None,
            },
            continues: false,
            factor: 1.0,
        }
    }

    /// Prefetches these columns of `b` if it is read unpacked, along its rows.
    pub(super) fn fetch(&self, columns: Range<usize>) {
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

    /// Writes nothing if tiles read `a` unpacked.
    pub(super) fn pack_a(&self, first: usize, count: usize, panels: &mut [f32]) {
        if self.a_direct.is_none() {
            pack::<ROWS>(self.term.a, first, count, self.steps.clone(), panels);
        }
    }

    pub(super) fn pack_b(&self, first: usize, count: usize, panels: &mut [f32]) {
        pack::<COLUMNS>(self.term.b, first, count, self.steps.clone(), panels);
        if self.factor != 1.0 {
            panels.iter_mut().for_each(|value| *value *= self.factor);
        }
    }
}

/// One block of the sum, and possibly a short term that continues it.
pub(super) struct Piece<'a> {
    pub(super) span: Span<'a>,
    pub(super) tail: Option<Span<'a>>,
}

impl<'a> Piece<'a> {
    fn joins(&self, term: &Term<'_>, blocks: Blocks) -> bool {
        let this = self.span.term;
        self.tail.is_none()
            && (1..=TAIL).contains(&term.k)
            && this.alpha == 1.0
            && (blocks.takes_factor)(term.alpha)
            && this.gate.is_none()
            && term.gate.is_none()
    }

    fn join(&mut self, term: &'a Term<'a>, n: usize) {
        // All of its `b` is packed, with its factor.
        let mut tail = Span::new(term, 0..term.k, usize::MAX, n);
        (tail.continues, tail.factor) = (true, term.alpha);
        // A tile reads `a` in one way only.
        if self.span.a_direct.is_none() || tail.a_direct.is_none() {
            (self.span.a_direct, tail.a_direct) = (None, None);
        }
        self.tail = Some(tail);
    }

    pub(super) fn spans(&self) -> impl Iterator<Item = &Span<'a>> {
        [&self.span].into_iter().chain(&self.tail)
    }

    pub(super) fn spans_mut(&mut self) -> impl Iterator<Item = &mut Span<'a>> {
        [&mut self.span].into_iter().chain(&mut self.tail)
    }

    pub(super) fn len(&self) -> usize {
        self.spans().map(|span| span.steps.len()).sum()
    }
}

/// Blocks of the sum of all terms for a result of `m` rows and `n` columns.
pub(super) fn pieces<'a>(
    terms: &'a [Term<'a>],
    (m, n): (usize, usize),
    blocks: Blocks,
) -> Vec<Piece<'a>> {
    // An empty sum still has a base: a block without steps writes it.
    let nothing = terms.iter().all(|term| term.k == 0);
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    for term in terms {
        if let Some(last) = pieces.last_mut()
            && last.joins(term, blocks)
        {
            last.join(term, n);
            continue;
        }
        let empty = nothing.then_some(0..0);
        pieces.extend(blocks.of(term.k).chain(empty).map(|steps| Piece {
            span: Span::new(term, steps, m, n),
            tail: None,
        }));
    }
    pieces
}
