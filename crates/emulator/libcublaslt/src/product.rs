//! Computes the product.
use crate::algorithm::{Algorithm, Problem};
use crate::descriptors::{self, Handle, Layout, Type};
use crate::device::Place;
use crate::pointers::get;
use crate::status::{INVALID_VALUE, NOT_SUPPORTED, Status, api, refuse};
use std::ffi::c_void;
use tightrope_emulator::{
    Counters,
    report::{Entry, Source},
};

/// Alignment of a workspace and of the bias.
const WORKSPACE_ALIGNMENT: u64 = 256;

/// Returns `matrix[i, p]` as `out[p · rows + i]`, for any storage order.
fn by_columns(values: Vec<f32>, layout: Layout, is_transposed: bool) -> Vec<f32> {
    if !is_transposed {
        return values;
    }
    let (rows, columns) = (layout.columns as usize, layout.rows as usize);
    let mut out = vec![0.0; rows * columns];
    for (i, stored) in values.chunks_exact(columns).enumerate() {
        for (p, &value) in stored.iter().enumerate() {
            out[p * rows + i] = value;
        }
    }
    out
}

/// Computes `A[m,k] · B[k,n]`, column-major, with `terms` terms at a time in f32.
fn multiply(a: &[f32], b: &[f32], (m, n, k): (usize, usize, usize), terms: usize) -> Vec<f32> {
    let mut d = vec![0f32; m * n];
    let mut part = vec![0f32; m];
    for (j, d) in d.chunks_exact_mut(m).enumerate() {
        for start in (0..k).step_by(terms) {
            part.fill(0.0);
            for p in start..(start + terms).min(k) {
                let factor = b[j * k + p];
                for (part, a) in part.iter_mut().zip(&a[p * m..]) {
                    *part += a * factor;
                }
            }
            for (d, part) in d.iter_mut().zip(&part) {
                *d += part;
            }
        }
    }
    d
}

struct Call<'a> {
    problem: Problem,
    algorithm: Algorithm,
    a: Place<'a>,
    b: Place<'a>,
    d: Place<'a>,
    workspace: (u64, u64),
}

impl Call<'_> {
    fn check(&self) -> Status {
        self.problem.accepts(&self.algorithm)?;
        let places = [&self.a, &self.b, &self.d, &self.d];
        for (place, alignment) in places.into_iter().zip(self.algorithm.alignment) {
            let alignment = u64::from(alignment).max(place.layout.of.bytes());
            if place.address == 0 || !place.address.is_multiple_of(alignment) {
                return refuse(
                    INVALID_VALUE,
                    format_args!(
                        "{} is at {:#x}, alignment {alignment}",
                        place.name, place.address
                    ),
                );
            }
        }
        let (start, bytes) = self.workspace;
        let needed = self.algorithm.workspace;
        if bytes < needed || start == 0 || !start.is_multiple_of(WORKSPACE_ALIGNMENT) {
            return refuse(
                INVALID_VALUE,
                format_args!("a workspace of {bytes} bytes at {start:#x}, {needed} are needed"),
            );
        }
        let overlap = |(s, e): (u64, u64), (other, end): (u64, u64)| s < end && other < e;
        let workspace = (start, start.saturating_add(bytes));
        for place in [&self.a, &self.b, &self.d] {
            if overlap(workspace, place.range()) {
                return refuse(
                    INVALID_VALUE,
                    format_args!("{} and the workspace overlap", place.name),
                );
            }
        }
        for place in [&self.a, &self.b] {
            if overlap(self.d.range(), place.range()) {
                return refuse(INVALID_VALUE, format_args!("{} and D overlap", place.name));
            }
        }
        Ok(())
    }

    fn run(&self, alpha: f32, beta: f32) -> Status {
        let Problem {
            operation,
            a,
            b,
            d,
            k,
        } = self.problem;
        let [a_transposed, b_transposed] = operation.is_transposed;
        let a = by_columns(self.a.read()?, a, a_transposed);
        let b = by_columns(self.b.read()?, b, b_transposed);
        // The contents of the workspace after the call are undefined.
        let garbage = vec![0xff; self.algorithm.workspace as usize];
        self.d.put(self.workspace.0, &garbage)?;
        let (m, n, k) = (d.rows as usize, d.columns as usize, k as usize);
        let terms = self.algorithm.terms as usize;
        let mut result = multiply(&a, &b, (m, n, k), terms);
        result.iter_mut().for_each(|value| *value *= alpha);
        // If `beta` is 0, C is never read.
        if beta != 0.0 {
            for (value, before) in result.iter_mut().zip(self.d.read()?) {
                *value += beta * before;
            }
        }
        if operation.has_bias {
            let bias = Place {
                name: "the bias",
                address: operation.bias,
                layout: Layout {
                    columns: 1,
                    stride: d.rows,
                    ..d
                },
                ..self.d
            };
            let bias = bias.read()?;
            for column in result.chunks_exact_mut(m) {
                column
                    .iter_mut()
                    .zip(&bias)
                    .for_each(|(value, b)| *value += b);
            }
        }
        self.d.write(&result)?;
        if Entry::is_wanted() {
            self.problem.entry(beta != 0.0).append();
        }
        Ok(())
    }
}

impl Problem {
    /// Counts the least that any implementation moves and computes: each operand and the result
    /// once, whatever the caches do. f32 is multiplied outside of tensor cores.
    fn entry(&self, adds: bool) -> Entry {
        let bytes = |layout: Layout| layout.rows * layout.columns * layout.of.bytes();
        let Self { a, b, d, k, .. } = *self;
        let (m, n) = (d.rows, d.columns);
        let multiply_adds = m * n * k;
        let bias = match self.operation.has_bias {
            true => m * d.of.bytes(),
            false => 0,
        };
        let before = if adds { bytes(d) } else { 0 };
        let loaded = bytes(a) + bytes(b) + bias + before;
        let mut counters = Counters {
            global_load_bytes: loaded,
            global_load_sectors: loaded.div_ceil(32),
            global_store_bytes: bytes(d),
            global_store_sectors: bytes(d).div_ceil(32),
            ..Counters::default()
        };
        match a.of {
            Type::F32 => counters.float_operations = 2 * multiply_adds,
            Type::F16 | Type::BF16 => counters.tensor_multiply_adds = multiply_adds,
        }
        Entry {
            name: "cublasLtMatmul".into(),
            source: Source::Formula,
            sizes: format!("[{m}, {n}, {k}]"),
            counters,
        }
    }
}

api! {
    fn cublasLtMatmul(
        library: Handle, operation: Handle,
        alpha: *const f32, a: u64, a_layout: Handle, b: u64, b_layout: Handle,
        beta: *const f32, c: u64, c_layout: Handle, d: u64, d_layout: Handle,
        algorithm: *const Algorithm, workspace: u64, workspace_bytes: usize, stream: *mut c_void,
    ) {
        descriptors::library(library)?;
        let problem = Problem::of(operation, [a_layout, b_layout, c_layout, d_layout])?;
        if c != d {
            return refuse(NOT_SUPPORTED, "C and D are different matrices");
        }
        let place = |name, address, layout| Place { name, address, layout, stream };
        let call = Call {
            problem,
            algorithm: get(algorithm)?,
            a: place("A", a, problem.a),
            b: place("B", b, problem.b),
            d: place("D", d, problem.d),
            workspace: (workspace, workspace_bytes as u64),
        };
        call.check()?;
        call.run(get(alpha)?, get(beta)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::Operation;

    #[test]
    fn a_product_moves_each_matrix_once() {
        let layout = |of, rows, columns| Layout {
            of,
            rows,
            columns,
            // The gaps between columns are not touched.
            stride: 1000,
        };
        let problem = |of, result, has_bias| Problem {
            operation: Operation {
                is_transposed: [true, false],
                has_bias,
                bias: 0,
            },
            a: layout(of, 4, 2),
            b: layout(of, 4, 3),
            d: layout(result, 2, 3),
            k: 4,
        };
        let entry = problem(Type::F32, Type::F32, false).entry(false);
        assert_eq!(
            (entry.source, &*entry.sizes),
            (Source::Formula, "[2, 3, 4]")
        );
        let counters = entry.counters;
        assert_eq!(counters.global_load_bytes, 4 * (8 + 12));
        assert_eq!(counters.global_store_bytes, 4 * 6);
        assert_eq!(counters.global_bytes_moved(), 32 * (3 + 1));
        assert_eq!(counters.float_operations, 2 * 24);
        assert_eq!(counters.tensor_multiply_adds, 0);
        let counters = problem(Type::BF16, Type::F32, true).entry(true).counters;
        assert_eq!(counters.global_load_bytes, 2 * (8 + 12) + 4 * 6 + 4 * 2);
        assert_eq!(counters.tensor_multiply_adds, 24);
        assert_eq!(counters.float_operations, 0);
    }
}
