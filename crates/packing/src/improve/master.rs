//! The linear relaxation of packing, by column generation.

use std::time::Instant;

use super::pricing::Knapsack;
use crate::{Histogram, Limits, Run};

/// Largest number of distinct lengths; for more, the dense inverse (8 bytes squared) takes too much
/// memory.
const MAX_ROWS: usize = 2500;
const TOLERANCE: f64 = 1e-9;

/// Fractional number of uses of each pack, and the dual value of each length.
pub(super) struct Relaxation {
    /// Packs with their (positive) uses.
    pub(super) uses: Vec<(Vec<Run>, f64)>,
    /// Dual value of each length of the histogram.
    pub(super) values: Vec<f64>,
}

/// Minimises `Σ x_p` over all packs `p` with `Σ_p x_p·(how often p holds l) ≥ count(l)`, `x ≥ 0`
/// (Gilmore and Gomory 1961), by the revised simplex method in f64 with a dense inverse. It starts
/// from `pool`, adds to it, and returns the current state at the deadline. `None` means that the
/// problem is too large.
pub(super) fn relax(
    histogram: &Histogram,
    limits: &Limits,
    pool: &mut Vec<Vec<Run>>,
    deadline: Instant,
) -> Option<Relaxation> {
    let lengths: Vec<u32> = histogram.entries().iter().map(|e| e.0).collect();
    if lengths.len() > MAX_ROWS {
        return None;
    }
    let knapsack = Knapsack::new(&lengths, limits)?;
    let row = |length: u32| lengths.binary_search(&length).ok();
    let known = |pack: &Vec<Run>| pack.iter().all(|run| row(run.length).is_some());
    let to_column = |pack: &[Run]| -> Vec<(usize, f64)> {
        let entries = pack
            .iter()
            .filter_map(|run| Some((row(run.length)?, run.repeat as f64)));
        entries.collect()
    };
    let mut columns: Vec<Column> = pool
        .iter()
        .filter(|pack| known(pack))
        .map(|pack| Column {
            cost: 1.0,
            entries: to_column(pack),
            pack: pack.clone(),
        })
        .collect();
    let mut tableau = Tableau::new(histogram, limits);
    // The limit is generous: degenerate instances end by it, others end by optimality or time.
    for iteration in 0..100 * (lengths.len() + 100) {
        if Instant::now() >= deadline {
            break;
        }
        if iteration % 200 == 199 {
            tableau.refresh();
        }
        let unwanted = tableau.values.iter().copied().enumerate();
        let unwanted = unwanted.min_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((row, value)) = unwanted.filter(|(_, value)| *value < -TOLERANCE) {
            // Covering more than needed is free.
            let surplus = Column {
                cost: 0.0,
                entries: vec![(row, -1.0)],
                pack: Vec::new(),
            };
            tableau.pivot(surplus, value);
            continue;
        }
        let priced = columns.iter().map(|column| tableau.reduced_cost(column));
        let best = priced.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((index, cost)) = best.filter(|(_, cost)| *cost < -1e-7) {
            tableau.pivot(columns[index].clone(), cost);
            continue;
        }
        let (worth, pack) = knapsack.best(&lengths, &tableau.values);
        if worth <= 1.0 + TOLERANCE {
            break;
        }
        let column = Column {
            cost: 1.0,
            entries: to_column(&pack),
            pack: pack.clone(),
        };
        tableau.pivot(column.clone(), 1.0 - worth);
        columns.push(column);
        pool.push(pack);
    }
    tableau.refresh();
    let basic = tableau.basis.iter().zip(&tableau.x);
    let used = basic.filter(|(column, x)| column.cost > 0.0 && **x > TOLERANCE);
    Some(Relaxation {
        uses: used.map(|(c, &x)| (c.pack.clone(), x)).collect(),
        values: tableau.values,
    })
}

#[derive(Clone)]
struct Column {
    cost: f64,
    /// Sparse entries by row.
    entries: Vec<(usize, f64)>,
    pack: Vec<Run>,
}

/// A basis with its inverse (row-major), the basic solution and the dual values.
struct Tableau {
    basis: Vec<Column>,
    inverse: Vec<f64>,
    demand: Vec<f64>,
    x: Vec<f64>,
    values: Vec<f64>,
}

impl Tableau {
    /// The basis in which each pack holds one length, as often as it fits.
    fn new(histogram: &Histogram, limits: &Limits) -> Self {
        let rows = histogram.entries().len();
        let mut inverse = vec![0.0; rows * rows];
        let mut basis = Vec::with_capacity(rows);
        for (row, &(length, _)) in histogram.entries().iter().enumerate() {
            let repeat = (limits.capacity / u64::from(length)).min(limits.sequences);
            inverse[row * rows + row] = 1.0 / repeat as f64;
            basis.push(Column {
                cost: 1.0,
                entries: vec![(row, repeat as f64)],
                pack: vec![Run { length, repeat }],
            });
        }
        let demand = histogram.entries().iter().map(|e| e.1 as f64).collect();
        let mut tableau = Self {
            basis,
            inverse,
            demand,
            x: vec![0.0; rows],
            values: vec![0.0; rows],
        };
        tableau.refresh();
        tableau
    }

    /// Recomputes the values that pivots only update.
    fn refresh(&mut self) {
        let rows = self.demand.len();
        self.values.fill(0.0);
        for (row, column) in self.basis.iter().enumerate() {
            let inverse = &self.inverse[row * rows..][..rows];
            let products = inverse.iter().zip(&self.demand).map(|(a, b)| a * b);
            self.x[row] = products.sum::<f64>().max(0.0);
            for (value, entry) in self.values.iter_mut().zip(inverse) {
                *value += column.cost * entry;
            }
        }
    }

    fn reduced_cost(&self, column: &Column) -> f64 {
        let worth = column.entries.iter().map(|&(row, n)| self.values[row] * n);
        column.cost - worth.sum::<f64>()
    }

    /// Brings a column into the basis.
    fn pivot(&mut self, column: Column, reduced_cost: f64) {
        let rows = self.demand.len();
        let direction: Vec<f64> = (0..rows)
            .map(|row| {
                let inverse = &self.inverse[row * rows..][..rows];
                column.entries.iter().map(|&(k, n)| inverse[k] * n).sum()
            })
            .collect();
        // The row with the least ratio leaves; among nearly equal ratios the largest pivot, for
        // stability.
        let mut leaving = None;
        let mut least = f64::INFINITY;
        for (row, &d) in direction.iter().enumerate() {
            if d > TOLERANCE {
                let ratio = self.x[row] / d;
                let better = leaving.is_none_or(|best: usize| d > direction[best]);
                if ratio < least - TOLERANCE || (ratio <= least + TOLERANCE && better) {
                    leaving = Some(row);
                    least = ratio.min(least);
                }
            }
        }
        // Every column with a negative reduced cost covers some row, so one row leaves.
        let Some(leaving) = leaving else { return };
        let step = self.x[leaving] / direction[leaving];
        let pivot = 1.0 / direction[leaving];
        let (before, rest) = self.inverse.split_at_mut(leaving * rows);
        let (pivot_row, after) = rest.split_at_mut(rows);
        pivot_row.iter_mut().for_each(|entry| *entry *= pivot);
        let others = before
            .chunks_exact_mut(rows)
            .chain(after.chunks_exact_mut(rows));
        let index = (0..rows).filter(|&row| row != leaving);
        for (row, inverse) in index.zip(others) {
            let d = direction[row];
            if d != 0.0 {
                for (entry, pivot) in inverse.iter_mut().zip(&*pivot_row) {
                    *entry -= d * pivot;
                }
                self.x[row] = (self.x[row] - d * step).max(0.0);
            }
        }
        self.x[leaving] = step;
        for (value, entry) in self.values.iter_mut().zip(&*pivot_row) {
            *value += reduced_cost * entry;
        }
        self.basis[leaving] = column;
    }
}
