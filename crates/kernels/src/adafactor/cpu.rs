//! Adafactor on the CPU: sums over rows and columns, the limit, then the update.

use super::{Adafactor, Factors, RUN, SecondMoment, Update};
use crate::{
    Checked, KernelError,
    cpu::{block_rows, scratch::Scratch},
};
use tightrope_device::{Cpu, rows, vectorize};

impl Adafactor for Cpu {
    fn adafactor_update(&self, args: Checked<Update<'_, Self>>) -> Result<(), KernelError> {
        let args = args.on(self)?;
        let f = Factors::new(&args.hyperparameters);
        let (count, columns) = (args.rows, args.columns);
        let elements = count * columns;
        if elements == 0 {
            return Ok(());
        }
        let gradient = &args.gradient.as_slice::<f32>()?[..elements];
        let block = block_rows(columns);
        // `1 / √v` of the columns and of the rows.
        let mut of_columns = Scratch::take(self, columns)?;
        let mut of_rows = Scratch::take(self, count)?;
        match args.v {
            SecondMoment::Whole(v) => {
                let v = &mut v.into_slice::<f32>()?[..columns];
                whole(gradient, v, f);
                inverse_roots(v, 1.0, &mut of_columns);
                of_rows.fill(1.0);
            }
            SecondMoment::Factored {
                rows: row,
                columns: column,
            } => {
                let row = &mut row.into_slice::<f32>()?[..count];
                let parts = (rows(&mut *row, 1), rows(gradient, columns));
                self.for_each_block(count, block, parts, |_, _, (row, gradient)| {
                    let gradients = gradient.slice.chunks(columns);
                    for (moment, gradient) in row.slice.iter_mut().zip(gradients) {
                        let mean = sum_of_squares(gradient, f.gradient) / columns as f64;
                        let mean = (mean + f64::from(f.eps)) as f32;
                        *moment = f.blend2.mul_add(mean, f.beta2 * *moment);
                    }
                });
                let column = &mut column.into_slice::<f32>()?[..columns];
                add_columns(self, gradient, column, count, f)?;
                let mean: f64 = row.iter().map(|&moment| f64::from(moment)).sum();
                inverse_roots(row, (mean / count as f64) as f32, &mut of_rows);
                inverse_roots(column, 1.0, &mut of_columns);
            }
        }
        let mut sums = Scratch::take(self, count)?;
        let parts = (
            rows(&mut sums[..], 1),
            rows(gradient, columns),
            rows(&of_rows[..], 1),
        );
        self.for_each_block(count, block, parts, |_, _, (sums, gradient, of_rows)| {
            let each = gradient.slice.chunks(columns).zip(of_rows.slice);
            for (sum, (gradient, &inverse)) in sums.slice.iter_mut().zip(each) {
                *sum = directions(gradient, f.gradient * inverse, &of_columns) as f32;
            }
        });
        let sum: f64 = sums.iter().map(|&sum| f64::from(sum)).sum();
        let size = (sum / elements as f64).sqrt() / f64::from(f.threshold);
        // NaN stays.
        let limit = if size <= 1.0 { 1.0 } else { 1.0 / size };
        let rate = (f64::from(f.rate) * limit) as f32;
        let m = match args.m {
            Some(m) => Some(rows(&mut m.into_slice::<f32>()?[..elements], columns)),
            None => None,
        };
        let parts = (
            rows(&mut args.weight.into_slice::<f32>()?[..elements], columns),
            rows(gradient, columns),
            rows(&of_rows[..], 1),
            m,
        );
        self.for_each_block(
            count,
            block,
            parts,
            |_, _, (weight, gradient, of_rows, m)| {
                let weights = weight.slice.chunks_mut(columns);
                let gradients = gradient.slice.chunks(columns);
                let mut moments = m.map(|m| m.slice.chunks_mut(columns));
                for ((weight, gradient), &inverse) in weights.zip(gradients).zip(of_rows.slice) {
                    let factor = rate * (f.gradient * inverse);
                    match moments.as_mut().and_then(Iterator::next) {
                        Some(m) => with_moment(weight, gradient, &of_columns, m, factor, f),
                        None => without_moment(weight, gradient, &of_columns, factor, f.keep),
                    }
                }
            },
        );
        Ok(())
    }
}

/// Updates the second moments of the columns: partial sums of runs of rows, then their sum.
fn add_columns(
    cpu: &Cpu,
    gradient: &[f32],
    column: &mut [f32],
    count: usize,
    f: Factors,
) -> Result<(), KernelError> {
    let columns = column.len();
    let runs = count.div_ceil(RUN);
    let mut partial = Scratch::take(cpu, runs * columns)?;
    partial.fill(0.0);
    let parts = (
        rows(&mut partial[..], columns),
        rows(gradient, RUN * columns),
    );
    let block = block_rows(RUN * columns);
    cpu.for_each_block(runs, block, parts, |_, _, (partial, gradient)| {
        let gradients = gradient.slice.chunks(RUN * columns);
        for (sums, gradients) in partial.slice.chunks_mut(columns).zip(gradients) {
            for gradient in gradients.chunks(columns) {
                add_squares(gradient, f.gradient, sums);
            }
        }
    });
    let mut total = Scratch::take(cpu, columns)?;
    total.fill(0.0);
    for sums in partial.chunks(columns) {
        for (total, &sum) in total.iter_mut().zip(sums) {
            *total += sum;
        }
    }
    for (moment, &sum) in column.iter_mut().zip(&*total) {
        let mean = sum / count as f32 + f.eps;
        *moment = f.blend2.mul_add(mean, f.beta2 * *moment);
    }
    Ok(())
}

vectorize! {
    fn whole(gradient: &[f32], v: &mut [f32], f: Factors) {
        for (v, &g) in v.iter_mut().zip(gradient) {
            let g = f.gradient * g;
            *v = f.blend2.mul_add(g.mul_add(g, f.eps), f.beta2 * *v);
        }
    }

    fn inverse_roots(v: &[f32], mean: f32, inverse: &mut [f32]) {
        for (inverse, &v) in inverse.iter_mut().zip(v) {
            *inverse = 1.0 / (v / mean).sqrt();
        }
    }

    fn add_squares(gradient: &[f32], scale: f32, sums: &mut [f32]) {
        for (sum, &g) in sums.iter_mut().zip(gradient) {
            let g = scale * g;
            *sum = g.mul_add(g, *sum);
        }
    }

    fn sum_of_squares(gradient: &[f32], scale: f32) -> f64 {
        let mut lanes = [0f64; 16];
        let chunks = gradient.chunks_exact(16);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (lane, &g) in lanes.iter_mut().zip(chunk) {
                let g = f64::from(scale * g);
                *lane = g.mul_add(g, *lane);
            }
        }
        for (lane, &g) in lanes.iter_mut().zip(rest) {
            let g = f64::from(scale * g);
            *lane = g.mul_add(g, *lane);
        }
        lanes.iter().sum()
    }

    /// Sum of the squares of a row's directions.
    fn directions(gradient: &[f32], scale: f32, of_columns: &[f32]) -> f64 {
        let mut lanes = [0f64; 16];
        let (chunks, inverses) = (gradient.chunks_exact(16), of_columns.chunks_exact(16));
        let rest = chunks.remainder().iter().zip(inverses.remainder());
        for (chunk, inverses) in chunks.zip(inverses) {
            for (lane, (&g, &inverse)) in lanes.iter_mut().zip(chunk.iter().zip(inverses)) {
                let u = f64::from(scale * g * inverse);
                *lane = u.mul_add(u, *lane);
            }
        }
        for (lane, (&g, &inverse)) in lanes.iter_mut().zip(rest) {
            let u = f64::from(scale * g * inverse);
            *lane = u.mul_add(u, *lane);
        }
        lanes.iter().sum()
    }

    fn with_moment(
        weight: &mut [f32],
        gradient: &[f32],
        of_columns: &[f32],
        m: &mut [f32],
        factor: f32,
        f: Factors,
    ) {
        let elements = weight.iter_mut().zip(gradient).zip(of_columns).zip(m);
        for (((weight, &g), &inverse), m) in elements {
            *m = f.blend1.mul_add(factor * g * inverse, f.beta1 * *m);
            *weight = *weight * f.keep - *m;
        }
    }

    fn without_moment(
        weight: &mut [f32],
        gradient: &[f32],
        of_columns: &[f32],
        factor: f32,
        keep: f32,
    ) {
        for ((weight, &g), &inverse) in weight.iter_mut().zip(gradient).zip(of_columns) {
            *weight = *weight * keep - factor * g * inverse;
        }
    }
}
