//! Products against the f64 oracle, in every storage, on both devices.

use super::*;
use tightrope_device::{Cpu, Tensor};
use tightrope_testkit::{
    Random, cuda, oracle::linear::product as oracle, rounded, tensor, unit, widen,
};

const SHAPES: [(usize, usize, usize); 7] = [
    // m, k, n
    (0, 3, 2),
    (2, 0, 3),
    (1, 1, 1),
    (3, 5, 2),
    (17, 40, 33),
    (70, 300, 20),
    (5, 700, 130),
];

struct Case {
    shape: (usize, usize, usize),
    types: (DType, DType),
    transposed: (bool, bool),
    accumulate: bool,
}

impl Case {
    fn run<D: Product>(&self, device: &D) -> (Vec<f32>, Vec<f64>, Vec<f64>) {
        let (m, k, n) = self.shape;
        let mut random = Random::new((m * 31 + k * 7 + n) as u64);
        let a = rounded(&random.normal(m * k, 1.0), self.types.0);
        let b = rounded(&random.normal(k * n, 1.0), self.types.1);
        let before = random.normal(m * n, 1.0);
        let stored_a = tensor(device, self.types.0, &[m * k], &a);
        let stored_b = tensor(device, self.types.1, &[k * n], &b);
        let mut c = tensor(
            device,
            DType::F32,
            &[m * n],
            &match self.accumulate {
                true => before.clone(),
                false => vec![f32::NAN; m * n],
            },
        );
        let of = |elements, transposed| match transposed {
            false => Matrix::rows(elements),
            true => Matrix::columns(elements),
        };
        let args = Args {
            a: of(stored_a.view(), self.transposed.0),
            b: of(stored_b.view(), self.transposed.1),
            c: c.view_mut(),
            accumulate: self.accumulate,
            alpha: 0.5,
            m,
            n,
            k,
        };
        device.product(args.checked().unwrap()).unwrap();
        let (a, b, before) = (widen(&a), widen(&b), widen(&before));
        let at = |transposed: bool, rows: usize, columns: usize, i: usize, j: usize| {
            if transposed {
                j * rows + i
            } else {
                i * columns + j
            }
        };
        let side = |sign: bool| {
            let size = move |x: f64| if sign { x } else { x.abs() };
            let a = |i, p| 0.5 * size(a[at(self.transposed.0, m, k, i, p)]);
            let b = |p, j| size(b[at(self.transposed.1, k, n, p, j)]);
            let mut all = oracle((m, k, n), a, b);
            if self.accumulate {
                all.iter_mut()
                    .zip(&before)
                    .for_each(|(c, x)| *c += size(*x));
            }
            all
        };
        (c.to_f32_vec().unwrap(), side(true), side(false))
    }

    fn compare<D: Product>(&self, device: &D) {
        let (got, expected, sizes) = self.run(device);
        // Any order of the sum, and of a factor that is converted one rounding more.
        let converted = match self.types.0 == self.types.1 {
            true => 0.0,
            false => 1.1 * unit(self.types.0),
        };
        let relative = (self.shape.1 + 4) as f64 * unit(DType::F32) + converted;
        for ((got, expected), size) in got.iter().zip(&expected).zip(&sizes) {
            let close = (f64::from(*got) - expected).abs() <= relative * size;
            assert!(
                close,
                "{:?} {:?}: {got}, {expected}",
                self.shape, self.types
            );
        }
    }
}

fn check<D: Product>(device: &D, activations: &[DType]) {
    for shape in SHAPES {
        for &activation in activations {
            for stored in [DType::F32, DType::BF16, DType::F16] {
                for bits in 0..8 {
                    Case {
                        shape,
                        types: (activation, stored),
                        transposed: (bits & 1 > 0, bits & 2 > 0),
                        accumulate: bits & 4 > 0,
                    }
                    .compare(device);
                }
            }
        }
    }
}

#[test]
fn the_cpu_is_the_oracle() {
    check(&Cpu::new(2).unwrap(), &[DType::F32]);
}

#[test]
fn cuda_is_the_oracle() {
    check(cuda(), &[DType::F32, DType::BF16]);
}

#[test]
fn operands_that_do_not_fit_are_named() {
    let cpu = Cpu::new(1).unwrap();
    let zeros = |dtype, len: usize| Tensor::zeros(&cpu, dtype, &[len]).unwrap();
    let error = |a: (DType, usize), b: (DType, usize), c: (DType, usize)| {
        let (a, b, mut c) = (zeros(a.0, a.1), zeros(b.0, b.1), zeros(c.0, c.1));
        let args = Args {
            a: Matrix::rows(a.view()),
            b: Matrix::columns(b.view()),
            c: c.view_mut(),
            accumulate: false,
            alpha: 1.0,
            m: 2,
            n: 3,
            k: 4,
        };
        args.check().map_err(|error| error.to_string())
    };
    let f32 = DType::F32;
    assert_eq!(error((f32, 8), (DType::F16, 12), (f32, 6)), Ok(()));
    for (name, a, b, c) in [
        ("`a`", (f32, 7), (f32, 12), (f32, 6)),
        ("`a`", (DType::BF16, 8), (f32, 12), (f32, 6)),
        ("`b`", (f32, 8), (f32, 11), (f32, 6)),
        ("`b`", (f32, 8), (DType::U8, 12), (f32, 6)),
        ("`c`", (f32, 8), (f32, 12), (f32, 5)),
        ("`c`", (f32, 8), (f32, 12), (DType::BF16, 6)),
    ] {
        let error = error(a, b, c).unwrap_err();
        assert!(error.contains(name), "{name}: {error}");
    }
}
