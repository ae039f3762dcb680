//! Non-negative least squares with sparse columns: the active-set method of Lawson and Hanson.

/// A sparse matrix, stored by columns.
#[derive(Default)]
pub(super) struct Columns {
    ends: Vec<usize>,
    entries: Vec<(u32, f64)>,
}

impl Columns {
    /// Appends a column of `(row, value)` pairs with distinct rows.
    pub(super) fn push(&mut self, column: impl IntoIterator<Item = (u32, f64)>) {
        self.entries.extend(column);
        self.ends.push(self.entries.len());
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn column(&self, index: usize) -> &[(u32, f64)] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.entries[start..self.ends[index]]
    }

    fn dot(&self, index: usize, dense: &[f64]) -> f64 {
        let entries = self.column(index).iter();
        entries
            .map(|&(row, value)| value * dense[row as usize])
            .sum()
    }
}

/// `argmin_{x ≥ 0} ‖A·x − b‖₂` in f64; neither `A` nor `b` has a negative entry.
///
/// The minimum of `A·x` is unique, but `x` often is not: the result depends on which of several
/// columns with equal gradients enters. To find the result of the classical program, ties are
/// decided as there: by the gradients as computed from the columns after all orthogonal
/// transformations so far, without fused multiply-add, and the first in the permuted order wins.
/// Everything else is lazy: gradients come from the sparse residual, and only columns within
/// rounding of the largest are ever transformed.
///
/// Source: Lawson and Hanson, *Solving Least Squares Problems* (1974), chapter 23.
pub(super) fn solve(a: &Columns, b: &[f64]) -> Vec<f64> {
    let mut x = vec![0.0; a.len()];
    let mut triangle = Triangle::new(a, b);
    // A column has no negative entry, and its contribution to rows where `b` is 0 is too much:
    // without a row where `b` is larger, its gradient is never positive and the column never
    // enters.
    let touches = |j: &usize| a.column(*j).iter().any(|&(row, _)| b[row as usize] > 0.0);
    let candidates: Vec<usize> = (0..a.len()).filter(touches).collect();
    let scale = (0..a.len()).map(|j| a.dot(j, b)).fold(0.0, f64::max);
    let rounding = scale * 1e-12;
    while triangle.size < b.len().min(a.len()) {
        let mut residual = b.to_vec();
        for &j in triangle.passive() {
            for &(row, value) in a.column(j) {
                residual[row as usize] -= value * x[j];
            }
        }
        let zero = candidates.iter().map(|&j| (triangle.place[j], j));
        let mut gradients: Vec<(usize, f64)> = zero
            .filter(|&(at, _)| at >= triangle.size)
            .map(|(at, j)| (at, a.dot(j, &residual)))
            .collect();
        // Finds the column with the largest gradient that rounding lets enter.
        loop {
            let most = gradients.iter().map(|g| g.1).fold(0.0, f64::max);
            if most <= rounding {
                return x;
            }
            let mut ties: Vec<usize> = gradients
                .iter()
                .filter(|g| g.1 >= most - rounding)
                .map(|g| g.0)
                .collect();
            ties.sort_unstable();
            let at = triangle.steepest(&ties);
            if triangle.enter(at) {
                break;
            }
            gradients.retain(|g| g.0 != at);
        }
        let mut target = triangle.solution();
        while let Some((blocking, step)) = blocking(triangle.passive(), &x, &target) {
            for (&j, &to) in triangle.passive().iter().zip(&target) {
                x[j] += step * (to - x[j]);
            }
            // The blocking column leaves, and with it every column that rounding left at or below
            // zero.
            let mut leaving = Some(blocking);
            while let Some(at) = leaving {
                x[triangle.order[at]] = 0.0;
                triangle.leave(at);
                leaving = triangle.passive().iter().position(|&j| x[j] <= 0.0);
            }
            target = triangle.solution();
        }
        for (&j, &to) in triangle.passive().iter().zip(&target) {
            x[j] = to;
        }
    }
    x
}

/// Returns the column that first meets a bound on the way from `x` to `target`, and the share of
/// the way up to there.
fn blocking(passive: &[usize], x: &[f64], target: &[f64]) -> Option<(usize, f64)> {
    let ways = passive.iter().zip(target).enumerate();
    let blocked = ways.filter(|&(_, (_, &to))| to <= 0.0);
    let steps = blocked.map(|(at, (&j, &to))| (at, -x[j] / (to - x[j])));
    steps.reduce(|first, next| if next.1 < first.1 { next } else { first })
}

/// An orthogonal transformation of rows.
enum Transformation {
    /// Maps `c` to `c − τ·v·(vᵀc)`; `v` is sparse.
    Reflection { v: Vec<(u32, f64)>, tau: f64 },
    /// Rotates rows `row` and `row + 1`.
    Rotation { row: usize, cosine: f64, sine: f64 },
}

impl Transformation {
    fn apply(&self, column: &mut [f64]) {
        match *self {
            Self::Reflection { ref v, tau } => {
                let mut dot = 0.0;
                for &(row, value) in v {
                    dot += column[row as usize] * value;
                }
                if dot != 0.0 {
                    let factor = -tau * dot;
                    for &(row, value) in v {
                        column[row as usize] += value * factor;
                    }
                }
            }
            Self::Rotation { row, cosine, sine } => {
                let (p, q) = (column[row], column[row + 1]);
                column[row] = cosine * p + sine * q;
                column[row + 1] = cosine * q - sine * p;
            }
        }
    }
}

/// Holds `b` and the columns, transformed so that the passive columns are upper triangular.
struct Triangle<'a> {
    a: &'a Columns,
    b: Vec<f64>,
    /// Order of the columns; the first `size` are passive.
    order: Vec<usize>,
    /// Place of each column in the order.
    place: Vec<usize>,
    size: usize,
    /// Transformed columns, as far as they were needed, each with its number of transformations.
    columns: Vec<(Vec<f64>, usize)>,
    transformations: Vec<Transformation>,
}

impl<'a> Triangle<'a> {
    fn new(a: &'a Columns, b: &[f64]) -> Self {
        Self {
            a,
            b: b.to_vec(),
            order: (0..a.len()).collect(),
            place: (0..a.len()).collect(),
            size: 0,
            columns: vec![(Vec::new(), 0); a.len()],
            transformations: Vec::new(),
        }
    }

    fn passive(&self) -> &[usize] {
        &self.order[..self.size]
    }

    /// Applies the missing transformations to a column that is not passive.
    fn update(&mut self, j: usize) -> &mut [f64] {
        let (column, applied) = &mut self.columns[j];
        if column.is_empty() {
            column.resize(self.b.len(), 0.0);
            for &(row, value) in self.a.column(j) {
                column[row as usize] = value;
            }
        }
        for transformation in &self.transformations[*applied..] {
            transformation.apply(column);
        }
        *applied = self.transformations.len();
        column
    }

    /// Place with the largest gradient; the first among equal ones.
    fn steepest(&mut self, places: &[usize]) -> usize {
        if let &[only] = places {
            return only;
        }
        let mut best = (places[0], f64::NEG_INFINITY);
        for &at in places {
            self.update(self.order[at]);
            let column = &self.columns[self.order[at]].0[self.size..];
            let products = column.iter().zip(&self.b[self.size..]);
            let gradient = products.fold(0.0, |sum, (a, b)| sum + a * b);
            if gradient > best.1 {
                best = (at, gradient);
            }
        }
        best.0
    }

    /// Makes the column at a place passive unless it depends on the others or would not grow.
    fn enter(&mut self, at: usize) -> bool {
        let (j, size) = (self.order[at], self.size);
        let column = self.update(j);
        let (diagonal, reflection) = reflection(column, size);
        let above = norm(&column[..size]);
        let independent = above + diagonal.abs() * 0.01 > above;
        let mut b = self.b.clone();
        reflection.apply(&mut b);
        if !independent || b[size] / diagonal <= 0.0 {
            return false;
        }
        let column = &mut self.columns[j].0;
        column[size] = diagonal;
        column[size + 1..].fill(0.0);
        self.b = b;
        self.transformations.push(reflection);
        self.order.swap(at, size);
        self.place[self.order[at]] = at;
        self.place[self.order[size]] = size;
        self.size += 1;
        true
    }

    /// Removes a column from the passive ones; rotations make the rest triangular again.
    fn leave(&mut self, at: usize) {
        let leaving = self.order[at];
        for place in at + 1..self.size {
            let row = place - 1;
            let rotated = self.order[place];
            let column = &mut self.columns[rotated].0;
            let (p, q) = (column[row], column[row + 1]);
            // `length` is not 0, because `q` is on the diagonal of the triangle.
            let length = (p * p + q * q).sqrt();
            let rotation = Transformation::Rotation {
                row,
                cosine: p / length,
                sine: q / length,
            };
            for &j in &self.order[..self.size] {
                rotation.apply(&mut self.columns[j].0);
            }
            let column = &mut self.columns[rotated].0;
            (column[row], column[row + 1]) = (length, 0.0);
            rotation.apply(&mut self.b);
            self.transformations.push(rotation);
        }
        // The column missed the reflections while it was passive, but has the rotations.
        self.columns[leaving].1 = self.transformations.len();
        self.order[at..self.size].rotate_left(1);
        for place in at..self.size {
            self.place[self.order[place]] = place;
        }
        self.size -= 1;
    }

    /// Unconstrained solution over the passive columns.
    fn solution(&self) -> Vec<f64> {
        let mut solution = self.b[..self.size].to_vec();
        for at in (0..self.size).rev() {
            let column = &self.columns[self.order[at]].0;
            solution[at] /= column[at];
            let (above, this) = solution.split_at_mut(at);
            for (value, entry) in above.iter_mut().zip(column) {
                *value -= entry * this[0];
            }
        }
        solution
    }
}

/// Returns the reflection that clears `column[from + 1..]` and leaves `column[from]` non-negative,
/// and the value that it leaves there.
fn reflection(column: &[f64], from: usize) -> (f64, Transformation) {
    let head = column[from];
    let below = norm(&column[from + 1..]);
    let mut v = vec![(from as u32, 1.0)];
    if below <= f64::EPSILON / 2.0 * head.abs() {
        let tau = if head < 0.0 { 2.0 } else { 0.0 };
        return (head.abs(), Transformation::Reflection { v, tau });
    }
    let (large, small) = (head.abs().max(below), head.abs().min(below));
    let ratio = small / large;
    let length = large * (1.0 + ratio * ratio).sqrt();
    // This form avoids cancellation.
    let (tau, divisor) = if head < 0.0 {
        ((length - head) / length, head - length)
    } else {
        let rest = below * (below / (head + length));
        (rest / length, -rest)
    };
    let scale = 1.0 / divisor;
    let tail = column.iter().enumerate().skip(from + 1);
    let tail = tail.filter(|(_, value)| **value != 0.0);
    v.extend(tail.map(|(row, &value)| (row as u32, value * scale)));
    (length, Transformation::Reflection { v, tau })
}

fn norm(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |sum, v| sum + v * v).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Karush–Kuhn–Tucker conditions: the gradient is not positive outside the support, and
        /// zero inside.
        #[test]
        fn the_solution_is_optimal(
            columns in prop::collection::vec(prop::collection::vec(0.0f64..3.0, 6), 1..12),
            b in prop::collection::vec(0.0f64..50.0, 6),
        ) {
            let mut a = Columns::default();
            for column in &columns {
                a.push(column.iter().enumerate().map(|(row, &value)| (row as u32, value)));
            }
            let x = solve(&a, &b);
            let mut residual = b.clone();
            for (column, &value) in columns.iter().zip(&x) {
                for (residual, entry) in residual.iter_mut().zip(column) {
                    *residual -= entry * value;
                }
            }
            for (j, &value) in x.iter().enumerate() {
                let gradient = a.dot(j, &residual);
                prop_assert!(value >= 0.0);
                prop_assert!(gradient <= 1e-6, "{gradient}");
                prop_assert!(value == 0.0 || gradient.abs() <= 1e-6, "{gradient}");
            }
        }
    }
}
