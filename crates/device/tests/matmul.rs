//! Matrix products on the GPU: every transposition, type and option against f64, and refused
//! arguments.

use tightrope_device::{
    Cuda, DType, Device, DeviceError, Tensor,
    cuda::{Matrix, MatrixMut, Product, Varying},
};
use tightrope_testkit::{Random, cuda, rounded, rounding, tensor, unit, widen};

const SIZES: [(usize, usize, usize); 7] = [
    // m, n, k
    (1, 1, 1),
    (3, 5, 2),
    (1, 17, 33),
    (40, 1, 65),
    (16, 8, 64),
    (65, 31, 129),
    (7, 130, 300),
];
const ALPHA: f32 = 0.75;
const TYPES: [(DType, DType); 3] = [
    (DType::F32, DType::F32),
    (DType::BF16, DType::BF16),
    (DType::BF16, DType::F32),
];

/// A product whose rows have gaps of `gap` elements, which hold NaN.
struct Case {
    m: usize,
    n: usize,
    k: usize,
    types: (DType, DType),
    transposed: [bool; 2],
    accumulate: bool,
    gap: usize,
    /// Logical, `[m, k]` and `[k, n]`.
    a: Vec<f32>,
    b: Vec<f32>,
    bias: Option<Vec<f32>>,
    before: Vec<f32>,
    varying: Varying,
}

impl Case {
    fn new((m, n, k): (usize, usize, usize), types: (DType, DType)) -> Self {
        let mut random = Random::new((m * 1009 + n * 31 + k) as u64);
        let mut numbers = |len, dtype| rounded(&random.normal(len, 1.0), dtype);
        Self {
            m,
            n,
            k,
            types,
            transposed: [false; 2],
            accumulate: false,
            gap: 0,
            a: numbers(m * k, types.0),
            b: numbers(k * n, types.0),
            bias: None,
            before: numbers(m * n, types.1),
            varying: Varying::Rows,
        }
    }

    /// Row-major memory of a logical matrix, with NaN in the gaps, and the stride of its rows.
    fn stored(
        &self,
        values: &[f32],
        (rows, columns): (usize, usize),
        is_transposed: bool,
    ) -> (Vec<f32>, usize) {
        let (lines, width) = match is_transposed {
            false => (rows, columns),
            true => (columns, rows),
        };
        let stride = width + self.gap;
        // There is nothing after the last row, so that memory there must not be touched.
        let mut memory = vec![f32::NAN; (lines - 1) * stride + width];
        for (i, &value) in values.iter().enumerate() {
            let (row, column) = (i / columns, i % columns);
            let (line, at) = match is_transposed {
                false => (row, column),
                true => (column, row),
            };
            memory[line * stride + at] = value;
        }
        (memory, stride)
    }

    /// The memory of `c` afterwards, gaps included.
    fn run(&self, device: &Cuda) -> Result<Vec<f32>, DeviceError> {
        let Self { m, n, k, .. } = *self;
        let all = |dtype, values: &[f32]| tensor(device, dtype, &[values.len()], values);
        let (a, a_row) = self.stored(&self.a, (m, k), self.transposed[0]);
        let (b, b_row) = self.stored(&self.b, (k, n), self.transposed[1]);
        let before = match self.accumulate {
            true => self.before.clone(),
            false => vec![f32::NAN; m * n],
        };
        let (c, c_row) = self.stored(&before, (m, n), false);
        let (a, b) = (all(self.types.0, &a), all(self.types.0, &b));
        let mut c = all(self.types.1, &c);
        let bias = self.bias.as_ref().map(|bias| all(self.types.1, bias));
        let matrix = |tensor, row, is_transposed| {
            let matrix = Matrix::of(tensor, row);
            if is_transposed {
                matrix.transposed()
            } else {
                matrix
            }
        };
        device.matmul(Product {
            a: matrix(a.view(), a_row, self.transposed[0]),
            b: matrix(b.view(), b_row, self.transposed[1]),
            c: MatrixMut::of(c.view_mut(), c_row),
            bias: bias.as_ref().map(|bias| Matrix::of(bias.view(), n)),
            m,
            n,
            k,
            alpha: ALPHA,
            accumulate: self.accumulate,
            varying: self.varying,
        })?;
        c.to_f32_vec()
    }

    fn compare(&self) {
        let Self { m, n, k, .. } = *self;
        let got = self.run(cuda()).unwrap();
        let (a, b) = (widen(&self.a), widen(&self.b));
        let u = unit(DType::F32);
        for (index, got) in got.iter().enumerate() {
            let (i, j) = (index / (n + self.gap), index % (n + self.gap));
            if j >= n {
                assert!(got.is_nan(), "a gap was written: {got}");
                continue;
            }
            let products = (0..k).map(|p| f64::from(ALPHA) * a[i * k + p] * b[p * n + j]);
            let further = [
                self.accumulate.then(|| self.before[i * n + j]),
                self.bias.as_ref().map(|bias| bias[j]),
            ];
            let terms = products.chain(further.into_iter().flatten().map(f64::from));
            let (sum, size) = terms.fold((0.0, 0.0), |(s, z), t| (s + t, z + t.abs()));
            // Every product, factor and addition is rounded once, in any order of the sum, and then
            // the result is rounded.
            let error = (k as f64 + 4.0) * u * size + rounding(self.types.1, sum) * 1.001;
            let close = (f64::from(*got) - sum).abs() <= error;
            assert!(
                close,
                "[{m}, {n}, {k}] {:?} {:?}: c[{i}, {j}] = {got}, {sum} ± {error}",
                self.types, self.transposed
            );
        }
    }
}

#[test]
fn every_transposition_type_and_option_is_right() {
    for (sizes, types) in SIZES.iter().flat_map(|&s| TYPES.map(|t| (s, t))) {
        for option in 0..32 {
            let mut case = Case::new(sizes, types);
            case.transposed = [option & 1 != 0, option & 2 != 0];
            case.accumulate = option & 4 != 0;
            case.gap = if option & 8 != 0 { 3 } else { 0 };
            case.bias = (option & 16 != 0).then(|| case.before[..sizes.1].to_vec());
            case.varying = match option & 4 != 0 {
                true => Varying::Inner,
                false => Varying::Rows,
            };
            case.compare();
        }
    }
}

#[test]
fn f32_is_not_rounded_to_fewer_bits() {
    // 1 + 2⁻²³ would be 1 in TF32.
    let mut case = Case::new((1, 1, 1), (DType::F32, DType::F32));
    (case.a, case.b) = (vec![1.0 + f32::EPSILON], vec![4.0 / 3.0]);
    let expected = (1.0 + f32::EPSILON) * (4.0f32 / 3.0) * ALPHA;
    assert_eq!(case.run(cuda()).unwrap(), [expected]);
}

#[test]
fn a_row_has_the_same_bits_whatever_the_number_of_rows() {
    let (m, n, k) = (70, 33, 257);
    for (types, transposed) in TYPES.iter().flat_map(|&t| [(t, false), (t, true)]) {
        let mut whole = Case::new((m, n, k), types);
        whole.transposed[1] = transposed;
        let expected = whole.run(cuda()).unwrap();
        for (first, rows) in [(0, 1), (69, 1), (5, 2), (13, 50)] {
            let mut part = Case::new((m, n, k), types);
            part.transposed[1] = transposed;
            part.m = rows;
            part.a = whole.a[first * k..][..rows * k].to_vec();
            part.before.truncate(rows * n);
            let got = part.run(cuda()).unwrap();
            assert_eq!(got, expected[first * n..][..rows * n]);
        }
    }
}

#[test]
fn rows_from_the_middle_are_those_of_the_whole() {
    let device = cuda();
    let (m, n, k) = (9, 5, 7);
    let case = Case::new((m, n, k), (DType::BF16, DType::BF16));
    let expected = case.run(device).unwrap();
    let a = tensor(device, DType::BF16, &[m, k], &case.a);
    let b = tensor(device, DType::BF16, &[k, n], &case.b);
    let mut c = tensor(device, DType::BF16, &[m, n], &vec![7.0; m * n]);
    device
        .matmul(Product {
            a: Matrix::of(a.view(), k).from_row(3).unwrap(),
            b: Matrix::of(b.view(), n),
            c: MatrixMut::of(c.view_mut(), n).from_row(3).unwrap(),
            bias: None,
            m: 4,
            n,
            k,
            alpha: ALPHA,
            accumulate: false,
            varying: Varying::Rows,
        })
        .unwrap();
    let got = c.to_f32_vec().unwrap();
    let inside = 3 * n..7 * n;
    for (i, got) in got.iter().enumerate() {
        let expected = if inside.contains(&i) {
            expected[i]
        } else {
            7.0
        };
        assert_eq!(*got, expected);
    }
}

#[test]
fn a_sum_without_terms_is_zero_or_what_was_there() {
    for gap in [0, 2] {
        let mut case = Case::new((3, 4, 1), (DType::BF16, DType::F32));
        case.gap = gap;
        // Memory as for one term, although the sum has none.
        let device = cuda();
        let a = tensor(device, DType::BF16, &[3], &case.a);
        let b = tensor(device, DType::BF16, &[4], &case.b);
        for accumulate in [false, true] {
            let (memory, row) = case.stored(&[2.0; 12], (3, 4), false);
            let mut c = tensor(device, DType::F32, &[memory.len()], &memory);
            let product = Product {
                a: Matrix::of(a.view(), 1),
                b: Matrix::of(b.view(), 4),
                c: MatrixMut::of(c.view_mut(), row),
                bias: None,
                m: 3,
                n: 4,
                k: 0,
                alpha: 1.0,
                accumulate,
                varying: Varying::Inner,
            };
            device.matmul(product).unwrap();
            for (i, value) in c.to_f32_vec().unwrap().iter().enumerate() {
                if i % row >= 4 {
                    assert!(value.is_nan());
                } else {
                    assert_eq!(*value, if accumulate { 2.0 } else { 0.0 });
                }
            }
        }
    }
    let a = Tensor::zeros(cuda(), DType::F32, &[0, 3]).unwrap();
    let b = Tensor::zeros(cuda(), DType::F32, &[3, 4]).unwrap();
    let mut c = Tensor::zeros(cuda(), DType::F32, &[0, 4]).unwrap();
    let product = Product {
        a: Matrix::of(a.view(), 3),
        b: Matrix::of(b.view(), 4),
        c: MatrixMut::of(c.view_mut(), 4),
        bias: None,
        m: 0,
        n: 4,
        k: 3,
        alpha: 1.0,
        accumulate: false,
        varying: Varying::Rows,
    };
    cuda().matmul(product).unwrap();
}

#[test]
fn what_does_not_fit_is_refused() {
    let device = cuda();
    let zeros = |dtype, len: usize| Tensor::zeros(device, dtype, &[len]).unwrap();
    let attempt = |dtypes: [DType; 3], lens: [usize; 4], rows: [usize; 3]| {
        let (a, b) = (zeros(dtypes[0], lens[0]), zeros(dtypes[1], lens[1]));
        let (mut c, bias) = (zeros(dtypes[2], lens[2]), zeros(dtypes[2], lens[3]));
        device.matmul(Product {
            a: Matrix::of(a.view(), rows[0]),
            b: Matrix::of(b.view(), rows[1]).transposed(),
            c: MatrixMut::of(c.view_mut(), rows[2]),
            bias: Some(Matrix::of(bias.view(), 3)),
            m: 2,
            n: 3,
            k: 4,
            alpha: 1.0,
            accumulate: false,
            varying: Varying::Rows,
        })
    };
    let (f32s, lens, rows) = ([DType::F32; 3], [9, 14, 7, 3], [5, 5, 4]);
    attempt(f32s, lens, rows).unwrap();
    for i in 0..4 {
        let mut short = lens;
        short[i] -= 1;
        let error = attempt(f32s, short, rows).unwrap_err();
        assert!(matches!(error, DeviceError::OutOfRange { .. }), "{error}");
    }
    for (i, too_narrow) in [3, 3, 2].into_iter().enumerate() {
        let mut narrow = rows;
        narrow[i] = too_narrow;
        let error = attempt(f32s, lens, narrow).unwrap_err();
        assert!(matches!(error, DeviceError::WrongLength { .. }), "{error}");
    }
    use DType::{BF16, F16, F32, U32};
    for dtypes in [
        [F32, BF16, F32],
        [BF16, F16, F32],
        [BF16, BF16, F16],
        [F16, F16, F16],
        [F32, F32, BF16],
        [U32, U32, U32],
        [F32, F32, U32],
    ] {
        let error = attempt(dtypes, lens, rows).unwrap_err();
        assert!(
            matches!(error, DeviceError::WrongDType { .. }),
            "{dtypes:?}: {error}"
        );
    }
    assert!(Cuda::has_blas());
    assert_eq!(device.synchronize().ok(), Some(()));
}
