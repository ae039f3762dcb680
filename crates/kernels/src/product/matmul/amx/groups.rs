//! Blocks of a sum, and the groups of 32 steps that tiles compute.

use super::split::{GROUP, PARTS, PLANE, STEPS};
use crate::product::matmul::{
    Precision,
    bf16::is_power_of_two,
    pieces::{Blocks, Piece, Span},
};

/// Panels of `b` (120 KiB) stream past while a block of `a` stays in the second-level cache.
pub(super) fn blocks(precision: Precision) -> Blocks {
    match precision {
        Precision::F32 => Blocks {
            most: 20 * STEPS,
            unit: STEPS,
            takes_factor: |_| true,
        },
        Precision::Bf16 => Blocks {
            most: PARTS * 20 * STEPS,
            unit: STEPS,
            takes_factor: is_power_of_two,
        },
    }
}

/// Number of groups of a sum that are packed at a time, unless a single block has more.
pub(super) fn most_groups(precision: Precision) -> usize {
    match precision {
        Precision::F32 => 160,
        Precision::Bf16 => PARTS * 160,
    }
}

/// Groups of steps of one block and of the term that continues in it; sizes of panels in elements
/// of f32.
#[derive(Clone, Copy)]
pub(super) struct Groups {
    /// Number of groups in which both operands have one part.
    pub(super) half: usize,
    /// Number of later groups in which only `b` has one part.
    pub(super) single: usize,
    /// Number of later groups in which both have three parts.
    pub(super) triple: usize,
}

impl Groups {
    pub(super) fn of(piece: &Piece<'_>, precision: Precision) -> Self {
        let mut groups = Self {
            half: 0,
            single: 0,
            triple: 0,
        };
        for span in piece.spans() {
            *match precision {
                Precision::Bf16 => &mut groups.half,
                Precision::F32 if Self::is_single(span) => &mut groups.single,
                Precision::F32 => &mut groups.triple,
            } += Self::of_span(span);
        }
        groups
    }

    pub(super) fn of_span(span: &Span<'_>) -> usize {
        span.steps.len().div_ceil(STEPS)
    }

    /// The term that continues in a block comes after it, always in three parts.
    pub(super) fn is_single(span: &Span<'_>) -> bool {
        !span.continues && span.term.b.rows().halves().is_some()
    }

    pub(super) fn all(self) -> usize {
        self.half + self.single + self.triple
    }

    pub(super) fn a_panel(self) -> usize {
        self.half * PLANE + (self.single + self.triple) * GROUP
    }

    pub(super) fn b_panel(self) -> usize {
        (self.half + self.single) * PLANE + self.triple * GROUP
    }
}
