//! Products against the f64 oracle, in every storage, on both devices.

use super::*;
use tightrope_device::{Cpu, Tensor};
use tightrope_testkit::{
    Random, cpus, cuda, cuda_with_small_limits, oracle::linear::product as oracle, rounded,
    rounding, tensor, unit, widen,
};

const SHAPES: [(usize, usize, usize); 8] = [
    // m, k, n
    (0, 3, 2),
    (2, 0, 3),
    (1, 1, 1),
    (3, 5, 2),
    (17, 40, 33),
    (70, 300, 20),
    (5, 700, 130),
    // Several blocks, whatever their length, and rows in several tiles.
    (300, 2000, 33),
];

struct Case {
    shape: (usize, usize, usize),
    /// Types of `a`, `b` and `c`.
    types: (DType, DType, DType),
    /// Whether `a`, `b` and `c` are stored as their transposes.
    transposed: [bool; 3],
    accumulate: bool,
    /// Number of elements between rows.
    gap: usize,
    /// Dropout of the stored rows of `a`.
    probability: f32,
}

/// The rows and columns of a stored matrix, and the index of its element `(i, j)`.
#[derive(Clone, Copy)]
struct Layout {
    rows: usize,
    columns: usize,
    stride: usize,
    transposed: bool,
}

impl Layout {
    fn new((rows, columns): (usize, usize), transposed: bool, gap: usize) -> Self {
        let (rows, columns) = stored(transposed, (rows, columns));
        Self {
            rows,
            columns,
            stride: columns + gap,
            transposed,
        }
    }

    fn len(self) -> usize {
        self.rows * self.stride
    }

    fn at(self, i: usize, j: usize) -> usize {
        let (row, column) = stored(self.transposed, (i, j));
        row * self.stride + column
    }

    /// Puts NaN between the rows.
    fn with_gaps(self, mut values: Vec<f32>) -> Vec<f32> {
        for row in values.chunks_exact_mut(self.stride.max(1)) {
            row[self.columns..].fill(f32::NAN);
        }
        values
    }

    fn matrix<D: Device>(self, elements: View<'_, D>) -> Matrix<'_, D> {
        let matrix = Matrix::rows(elements, self.stride);
        match self.transposed {
            false => matrix,
            true => matrix.transposed(),
        }
    }
}

impl Case {
    /// Returns the result, the expected one, and the sums of the magnitudes of its terms.
    fn run<D: Product>(&self, device: &D) -> (Vec<f32>, Vec<f64>, Vec<f64>) {
        let (m, k, n) = self.shape;
        let [ta, tb, tc] = self.transposed;
        let gap_of_a = if self.probability > 0.0 { 0 } else { self.gap };
        let (la, lb) = (
            Layout::new((m, k), ta, gap_of_a),
            Layout::new((k, n), tb, self.gap),
        );
        let lc = Layout::new((m, n), tc, self.gap);
        let mut random = Random::new((m * 31 + k * 7 + n) as u64);
        let a = la.with_gaps(rounded(&random.normal(la.len(), 1.0), self.types.0));
        let b = lb.with_gaps(rounded(&random.normal(lb.len(), 1.0), self.types.1));
        let before = rounded(&random.normal(lc.len(), 1.0), self.types.2);
        let keys: Vec<u32> = (0..la.rows as u32).flat_map(|t| [t / 10, t % 10]).collect();
        let stored_a = tensor(device, self.types.0, &[la.len()], &a);
        let stored_b = tensor(device, self.types.1, &[lb.len()], &b);
        let keys = Tensor::from_slice(device, &[la.rows, 2], &keys).unwrap();
        let mut c = tensor(device, self.types.2, &[lc.len()], &before);
        let c_matrix = MatrixMut::rows(c.view_mut(), lc.stride);
        let args = Args {
            start: match self.accumulate {
                true => Start::Result,
                false => Start::Zero,
            },
            alpha: 0.5,
            dropout: (self.probability > 0.0).then_some(Dropout {
                probability: self.probability,
                salt: 3,
                keys: keys.view(),
            }),
            ..Args::new(
                la.matrix(stored_a.view()),
                lb.matrix(stored_b.view()),
                match tc {
                    false => c_matrix,
                    true => c_matrix.transposed(),
                },
                (m, n, k),
            )
        };
        device.product(args.checked().unwrap()).unwrap();
        let got = c.to_f32_vec().unwrap();
        for (index, (got, before)) in got.iter().zip(&before).enumerate() {
            let is_gap = index % lc.stride.max(1) >= lc.columns;
            assert!(
                !is_gap || got == before,
                "{:?}: a gap has changed",
                self.shape
            );
        }
        let mask = self.mask(la);
        let side = |sign: bool| {
            let size = move |x: f64| if sign { x } else { x.abs() };
            let of_a = |i, p| {
                let factor = mask[la.at(i, p)];
                0.5 * size(factor * f64::from(a[la.at(i, p)]))
            };
            let of_b = |p, j| size(f64::from(b[lb.at(p, j)]));
            let mut all = oracle((m, k, n), of_a, of_b);
            if self.accumulate {
                for (index, c) in all.iter_mut().enumerate() {
                    *c += size(f64::from(before[lc.at(index / n, index % n)]));
                }
            }
            all
        };
        let got = (0..m * n).map(|index| got[lc.at(index / n, index % n)]);
        (got.collect(), side(true), side(false))
    }

    /// The factors of dropout, by the place of the element.
    fn mask(&self, layout: Layout) -> Vec<f64> {
        let mut factors = vec![1f32; layout.len()];
        let keys: Vec<u32> = (0..layout.rows as u32)
            .flat_map(|t| [t / 10, t % 10])
            .collect();
        let cpu = Cpu::new(1).unwrap();
        let keys = Tensor::from_slice(&cpu, &[layout.rows, 2], &keys).unwrap();
        let dropout = Dropout {
            probability: self.probability,
            salt: 3,
            keys: keys.view(),
        };
        if let Some(mask) = Mask::new(&Some(dropout), layout.rows).unwrap() {
            let rows = factors.chunks_exact_mut(layout.stride.max(1));
            for (t, row) in rows.enumerate() {
                matmul::Gate::apply(&mask, t, 0..layout.columns, &mut row[..layout.columns]);
            }
        }
        widen(&factors)
    }

    fn compare<D: Product>(&self, device: &D) {
        let (got, expected, sizes) = self.run(device);
        // Any order of the sum, and of a factor that is converted or dropped one rounding more.
        let rounds = self.types.0 != self.types.1 || self.probability > 0.0;
        let converted = if rounds {
            2.2 * unit(self.types.0)
        } else {
            0.0
        };
        let relative = (self.shape.1 + 4) as f64 * unit(DType::F32) + converted;
        for ((got, expected), size) in got.iter().zip(&expected).zip(&sizes) {
            let stored = match self.types.2 {
                DType::F32 => 0.0,
                dtype => (1.0 + relative) * rounding(dtype, *expected),
            };
            let close = (f64::from(*got) - expected).abs() <= relative * size + stored;
            assert!(
                close,
                "{:?} {:?} {:?}: {got}, {expected}",
                self.shape, self.types, self.transposed
            );
        }
    }
}

fn check<D: Product>(device: &D, activations: &[DType]) {
    for (index, shape) in SHAPES.into_iter().enumerate() {
        for &activation in activations {
            for form in 0..16 {
                // Every form with every shape, and each pair of types with some of them.
                let stored = [DType::F32, DType::BF16, DType::F16][(index + form) % 3];
                for (gap, probability) in [(0, 0.0), (3, 0.0), (3, 0.4)] {
                    // A sum over tokens with dropout may be rounded several times on a GPU.
                    let result = match (form + gap) % 2 == 0 || form & 1 > 0 {
                        true => DType::F32,
                        false => activation,
                    };
                    Case {
                        shape,
                        types: (activation, stored, result),
                        transposed: [form & 1 > 0, form & 2 > 0, form & 8 > 0],
                        accumulate: form & 4 > 0,
                        gap,
                        probability,
                    }
                    .compare(device);
                }
            }
        }
    }
}

#[test]
fn the_cpu_is_the_oracle() {
    for cpu in cpus(2) {
        check(&cpu, &[DType::F32, DType::BF16]);
    }
}

#[test]
fn cuda_is_the_oracle() {
    check(cuda_with_small_limits(), &[DType::F32, DType::BF16]);
}

/// Sums of columns of a matrix of numbers that need no rounding.
fn sums<D: Product>(device: &D, dtype: DType, (m, n): (usize, usize)) -> Vec<f32> {
    let rows: Vec<f32> = (0..m * n).map(|i| (i % 13) as f32 - 5.0).collect();
    let rows = tensor(device, dtype, &[m * n], &rows);
    let mut sums = tensor(device, DType::F32, &[n], &vec![0.5; n]);
    let args = ColumnSums {
        rows: rows.view(),
        sums: sums.view_mut(),
        m,
        n,
    };
    device.column_sums(args.checked().unwrap()).unwrap();
    sums.to_f32_vec().unwrap()
}

#[test]
fn columns_are_summed() {
    for (m, n) in [(0, 3), (1, 1), (5, 70), (600, 33)] {
        let column = |j| (0..m).map(|i| ((i * n + j) % 13) as f32 - 5.0).sum::<f32>();
        let expected: Vec<f32> = (0..n).map(|j| 0.5 + column(j)).collect();
        for dtype in [DType::F32, DType::BF16] {
            assert_eq!(sums(&Cpu::new(2).unwrap(), dtype, (m, n)), expected);
            assert_eq!(sums(cuda(), dtype, (m, n)), expected);
        }
    }
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let cpu = Cpu::new(1).unwrap();
    let zeros = |dtype, len: usize| Tensor::zeros(&cpu, dtype, &[len]).unwrap();
    let error = |a: (DType, usize), b: (DType, usize), c: (DType, usize)| {
        let (a, b, mut c) = (zeros(a.0, a.1), zeros(b.0, b.1), zeros(c.0, c.1));
        let args = Args::new(
            Matrix::rows(a.view(), 4),
            Matrix::rows(b.view(), 4).transposed(),
            MatrixMut::rows(c.view_mut(), 3),
            (2, 3, 4),
        );
        args.check().map_err(|error| error.to_string())
    };
    let f32 = DType::F32;
    assert_eq!(error((f32, 8), (DType::F16, 12), (f32, 6)), Ok(()));
    for (name, a, b, c) in [
        ("`a`", (f32, 7), (f32, 12), (f32, 6)),
        ("`a`", (DType::F16, 8), (f32, 12), (f32, 6)),
        ("`b`", (f32, 8), (f32, 11), (f32, 6)),
        ("`b`", (f32, 8), (DType::U8, 12), (f32, 6)),
        ("`c`", (f32, 8), (f32, 12), (f32, 5)),
        ("`c`", (f32, 8), (f32, 12), (DType::BF16, 6)),
    ] {
        let error = error(a, b, c).unwrap_err();
        assert!(error.contains(name), "{name}: {error}");
    }
}

#[test]
fn forms_that_no_device_computes_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let zeros = || Tensor::zeros(&cpu, DType::F32, &[20]).unwrap();
    let keys = Tensor::zeros(&cpu, DType::U32, &[4, 2]).unwrap();
    let (a, b, bias) = (
        zeros(),
        zeros(),
        Tensor::zeros(&cpu, DType::F32, &[3]).unwrap(),
    );
    let mut c = zeros();
    let refused = |args: Args<'_, Cpu>| args.check().unwrap_err().to_string();
    let mut args = |stride| {
        let c = MatrixMut::rows(c.view_mut(), 2).transposed();
        let (a, b) = (Matrix::rows(a.view(), stride), Matrix::rows(b.view(), 3));
        refused(Args {
            dropout: (stride > 4).then_some(Dropout {
                probability: 0.5,
                salt: 0,
                keys: keys.view(),
            }),
            start: Start::Bias(bias.view()),
            ..Args::new(a, b, c, (2, 3, 4))
        })
    };
    assert!(args(5).starts_with("`a`: dropout takes rows without gaps"));
    assert!(args(4).starts_with("`c`: a transposed result cannot start"));
    assert!(args(3).starts_with("`a`: needs 4 elements, has 3"));
    let scales = crate::nf4::Scales::Plain(bias.view());
    let codes = Tensor::zeros(&cpu, DType::U8, &[4]).unwrap();
    let weight = crate::nf4::Weight {
        codes: codes.view(),
        scales,
    };
    let mut c = zeros();
    let c = MatrixMut::rows(c.view_mut(), 3);
    let a = Matrix::stored(Elements::Nf4(weight), 4);
    let args = Args::new(a, Matrix::rows(b.view(), 3), c, (2, 3, 4));
    assert!(refused(args).starts_with("`a`: u8 is not supported here"));
}
