//! Products of bf16 without a matrix unit: operands are rounded while they are packed.
//!
//! With instructions on pairs of bf16, a step of the kernel is two steps of the sum: its elements
//! are pairs, the even step in the low half, and everything but the kernel treats a pair as it
//! treats an f32. Without them, the kernel of f32 multiplies the rounded numbers.

use super::output::Target;
use super::{Base, Operand, Rows, Term, drive};
#[cfg(target_arch = "x86_64")]
use super::{Matrix, micro, pieces::TAIL};
use crate::{
    KernelError,
    cpu::float::{Activation, Float},
};
use half::bf16;
use std::ops::Range;
use tightrope_device::{Cpu, vectorize};

/// Largest number of elements of a row that are decoded at a time.
const CHUNK: usize = 128;

/// `C[m, n] = base + Σ_terms alpha · gate(A[m, k] · B[k, n])` with `A` and `B` rounded to bf16.
pub(super) fn product(
    cpu: &Cpu,
    size: (usize, usize),
    terms: &[Term<'_>],
    base: Base<'_>,
    c: Target,
) -> Result<(), KernelError> {
    #[cfg(target_arch = "x86_64")]
    if cpu.uses_avx512_bf16() {
        let pairs = terms.iter().map(|term| {
            // A short term continues the sum of the term before it if it has no factor of its own.
            let folded = term.k <= TAIL && is_power_of_two(term.alpha);
            let factor = if folded { term.alpha } else { 1.0 };
            let (a, b) = (
                Pairs::new(term.a, term.k, 1.0),
                Pairs::new(term.b, term.k, factor),
            );
            (a, b, term.alpha / factor)
        });
        let pairs: Vec<_> = pairs.collect();
        let terms = terms.iter().zip(&pairs).map(|(term, (a, b, alpha))| Term {
            a: with_rows(term.a, a.rows()),
            b: with_rows(term.b, b.rows()),
            k: term.k.div_ceil(2),
            alpha: *alpha,
            ..*term
        });
        let terms: Vec<Term<'_>> = terms.collect();
        return drive::product(cpu, micro::PAIRS, size, &terms, base, c);
    }
    let rounded: Vec<[Rounded<'_>; 2]> = terms
        .iter()
        .map(|term| [term.a, term.b].map(|operand| Rounded(operand.rows())))
        .collect();
    let terms = terms.iter().zip(&rounded).map(|(term, [a, b])| Term {
        a: with_rows(term.a, a.rows()),
        b: with_rows(term.b, b.rows()),
        ..*term
    });
    let terms: Vec<Term<'_>> = terms.collect();
    drive::product(cpu, *super::micro::KERNEL, size, &terms, base, c)
}

/// Whether a product with this factor is exact.
pub(super) fn is_power_of_two(factor: f32) -> bool {
    factor.is_normal() && factor.to_bits() & 0x7f_ffff == 0
}

/// The same operand with other rows.
fn with_rows<'a>(operand: Operand<'_>, rows: &'a dyn Rows) -> Operand<'a> {
    match operand {
        Operand::Rows(_) => Operand::Rows(rows),
        Operand::Columns(_) => Operand::Columns(rows),
    }
}

/// Rows that are rounded to bf16 and read as f32.
struct Rounded<'a>(&'a dyn Rows);

impl Rounded<'_> {
    /// These rows, or the stored ones if they need no rounding.
    fn rows(&self) -> &dyn Rows {
        match self.0.halves() {
            Some(_) => self.0,
            None => self,
        }
    }
}

impl Rows for Rounded<'_> {
    fn row<'s>(&'s self, row: usize, columns: Range<usize>, scratch: &'s mut [f32]) -> &'s [f32] {
        let mut decoded = [0f32; CHUNK];
        let values = self.0.row(row, columns, &mut decoded);
        let rounded = &mut scratch[..values.len()];
        round_to_bf16(rounded, values);
        rounded
    }
}

/// Pairs of consecutive steps of an operand with `k` steps, of which the last may be alone.
#[cfg(target_arch = "x86_64")]
enum Pairs<'a> {
    /// Rows of bf16 of an even length are rows of pairs.
    Stored(Matrix<'a, f32>),
    /// Pairs of neighbours in a row, times a power of two.
    InRows {
        rows: &'a dyn Rows,
        k: usize,
        factor: f32,
    },
    /// Pairs of neighbours in a column, times a power of two.
    InColumns {
        rows: &'a dyn Rows,
        k: usize,
        factor: f32,
    },
}

#[cfg(target_arch = "x86_64")]
impl<'a> Pairs<'a> {
    fn new(operand: Operand<'a>, k: usize, factor: f32) -> Self {
        let rows = match operand {
            Operand::Columns(rows) => return Self::InColumns { rows, k, factor },
            Operand::Rows(rows) => rows,
        };
        if let Some((data, stride)) = rows.halves()
            && factor == 1.0
            && k.is_multiple_of(2)
            && stride.is_multiple_of(2)
            && let Ok(data) = bytemuck::try_cast_slice(&data[..data.len() / 2 * 2])
        {
            return Self::Stored(Matrix::new(data, stride / 2));
        }
        Self::InRows { rows, k, factor }
    }

    fn rows(&self) -> &dyn Rows {
        match self {
            Self::Stored(matrix) => matrix,
            _ => self,
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Rows for Pairs<'_> {
    fn row<'s>(&'s self, row: usize, columns: Range<usize>, scratch: &'s mut [f32]) -> &'s [f32] {
        let pairs = &mut scratch[..columns.len()];
        match *self {
            Self::Stored(ref matrix) => return matrix.row(row, columns, pairs),
            Self::InRows { rows, k, factor } => {
                let mut decoded = [0f32; 2 * CHUNK];
                let steps = 2 * columns.start..k.min(2 * columns.end);
                pair_neighbours(pairs, rows.row(row, steps, &mut decoded), factor);
            }
            Self::InColumns { rows, k, factor } => {
                let mut decoded = [[0f32; CHUNK]; 2];
                let [even, odd] = &mut decoded;
                let even = rows.row(2 * row, columns.clone(), even);
                let odd = match 2 * row + 1 < k {
                    true => rows.row(2 * row + 1, columns.clone(), odd),
                    false => &odd[..columns.len()],
                };
                pair_rows(pairs, even, odd, factor);
            }
        }
        pairs
    }
}

/// Both numbers as bf16 in one element.
#[inline(always)]
fn pair(even: f32, odd: f32) -> f32 {
    let bits = |x| u32::from(bf16::rounded(x).to_bits());
    f32::from_bits(bits(even) | bits(odd) << 16)
}

vectorize! {
    fn round_to_bf16(to: &mut [f32], from: &[f32]) {
        for (to, &from) in to.iter_mut().zip(from) {
            *to = bf16::rounded(from).get();
        }
    }

    fn pair_neighbours(to: &mut [f32], from: &[f32], factor: f32) {
        let (pairs, last) = from.as_chunks::<2>();
        for (to, [even, odd]) in to.iter_mut().zip(pairs) {
            *to = pair(factor * even, factor * odd);
        }
        if let (Some(to), [even]) = (to.get_mut(pairs.len()), last) {
            *to = pair(factor * even, 0.0);
        }
    }

    fn pair_rows(to: &mut [f32], even: &[f32], odd: &[f32], factor: f32) {
        for ((to, even), odd) in to.iter_mut().zip(even).zip(odd) {
            *to = pair(factor * even, factor * odd);
        }
    }
}
