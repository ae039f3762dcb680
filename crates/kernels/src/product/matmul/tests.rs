//! The product against f64, over layouts, strides, bases, gates, thread counts and edges.

use super::*;
use half::bf16;
use tightrope_device::Cpu;
use tightrope_device::DType;
use tightrope_testkit::{Random, assert_close, cpus, oracle::linear::product as oracle, rounded};

/// Every way of the processor to multiply f32, and every way to multiply bf16.
fn ways(threads: usize) -> impl Iterator<Item = (Cpu, Precision)> {
    cpus(threads).into_iter().flat_map(|cpu| {
        let f32s = cpu.has_amx() || !cpu.uses_avx512_bf16();
        let f32s = f32s.then(|| (cpu.clone(), Precision::F32));
        [(cpu, Precision::Bf16)].into_iter().chain(f32s)
    })
}

/// The numbers that are multiplied.
fn seen(values: &[f32], precision: Precision) -> Vec<f32> {
    match precision {
        Precision::F32 => values.to_vec(),
        Precision::Bf16 => rounded(values, DType::BF16),
    }
}

struct Tens;

impl Gate for Tens {
    fn apply(&self, row: usize, columns: Range<usize>, values: &mut [f32]) {
        for (column, value) in columns.zip(values) {
            *value *= ((row + 2 * column) % 10) as f32;
        }
    }
}

/// The result, `C` by rows or `Cᵀ` by rows, of one term with the given layouts.
#[allow(clippy::too_many_arguments, reason = "all sizes of a product")]
fn run(
    (cpu, precision): &(Cpu, Precision),
    (m, k, n): (usize, usize, usize),
    layouts: (bool, bool),
    base: &str,
    gated: bool,
    transposed: bool,
) -> (Vec<f32>, Vec<f64>) {
    let mut random = Random::new((m * 1000 + n * 10 + k) as u64);
    let (a, b) = (random.normal(m * k, 1.0), random.normal(k * n, 1.0));
    let bias = random.normal(n, 1.0);
    let start = random.normal(m * n, 1.0);
    let (a_rows, b_rows) = layouts;
    let (a_stride, b_stride) = (if a_rows { k } else { m }, if b_rows { k } else { n });
    let (a_matrix, b_matrix) = (Matrix::new(&a[..], a_stride), Matrix::new(&b[..], b_stride));
    let term = Term {
        a: if a_rows {
            Operand::Rows(&a_matrix)
        } else {
            Operand::Columns(&a_matrix)
        },
        b: if b_rows {
            Operand::Rows(&b_matrix)
        } else {
            Operand::Columns(&b_matrix)
        },
        k,
        alpha: 0.5,
        gate: gated.then_some(&Tens as &dyn Gate),
    };
    let mut c = if base == "output" {
        start.clone()
    } else {
        vec![f32::NAN; m * n]
    };
    let output = if transposed {
        Output::new(&mut c[..], m, true)
    } else {
        Output::new(&mut c[..], n, false)
    };
    let base_value = match base {
        "zero" => Base::Zero,
        "bias" => Base::Bias(&bias),
        _ => Base::Output,
    };
    product(cpu, *precision, (m, n), &[term], base_value, output).unwrap();
    let (a, b) = (seen(&a, *precision), seen(&b, *precision));
    let sums = oracle(
        (m, k, n),
        |i, p| if a_rows { a[i * k + p] } else { a[p * m + i] }.into(),
        |p, j| if b_rows { b[j * k + p] } else { b[p * n + j] }.into(),
    );
    let mut expected = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            let at = if transposed { j * m + i } else { i * n + j };
            let factor = if gated {
                ((i + 2 * j) % 10) as f64
            } else {
                1.0
            };
            let from = match base {
                "zero" => 0.0,
                "bias" => bias[j].into(),
                _ => start[at].into(),
            };
            expected[at] = from + 0.5 * factor * sums[i * n + j];
        }
    }
    (c, expected)
}

const SHAPES: [(usize, usize, usize); 15] = [
    (1, 1, 1),
    (1, 300, 40),
    (5, 0, 17),
    (6, 8, 16),
    (7, 9, 17),
    (12, 255, 15),
    (13, 257, 33),
    (95, 31, 16),
    (97, 520, 31),
    (200, 64, 300),
    (101, 2100, 18),
    // Rows of `a` are 4 KiB apart, and `b` is read unpacked in several blocks.
    (30, 1024, 80),
    (40, 700, 70),
    (3, 2, 1000),
    // More rows than any tile of the result has, and several blocks.
    (400, 700, 50),
];

#[test]
fn every_layout_matches() {
    for shape in SHAPES {
        for layouts in [(true, true), (true, false), (false, false), (false, true)] {
            for base in ["zero", "bias", "output"] {
                for way in ways(2) {
                    let (got, expected) = run(&way, shape, layouts, base, false, false);
                    let tolerance = 2e-6 * (shape.1 as f64).sqrt().max(1.0);
                    assert_close(base, &got, &expected, tolerance, 1e-6);
                }
            }
        }
    }
}

#[test]
fn gates_and_transposed_results_match() {
    for shape in SHAPES {
        for (gated, transposed) in [(true, false), (false, true), (true, true)] {
            for base in ["zero", "bias", "output"] {
                for way in ways(2) {
                    let layouts = (true, false);
                    let (got, expected) = run(&way, shape, layouts, base, gated, transposed);
                    let tolerance = 2e-5 * (shape.1 as f64).sqrt().max(1.0);
                    assert_close(base, &got, &expected, tolerance, 1e-6);
                }
            }
        }
    }
}

#[test]
fn bits_depend_on_neither_threads_nor_layout_nor_transposition() {
    for shape in SHAPES {
        let run = |threads| {
            ways(threads).map(|way| run(&way, shape, (true, true), "output", false, false).0)
        };
        for threads in [2, 3, 5] {
            assert!(run(1).eq(run(threads)), "{shape:?}");
        }
        // The same operands in the other layouts.
        for way in ways(2) {
            layouts_have_equal_bits(&way, shape);
        }
    }
}

fn layouts_have_equal_bits((cpu, precision): &(Cpu, Precision), (m, k, n): (usize, usize, usize)) {
    let mut random = Random::new(9);
    let (a, b) = (random.normal(m * k, 1.0), random.normal(k * n, 1.0));
    let flip = |x: &[f32], rows: usize, columns: usize| -> Vec<f32> {
        (0..rows * columns)
            .map(|at| x[at % rows * columns + at / rows])
            .collect()
    };
    let (at, bt) = (flip(&a, m, k), flip(&b, k, n));
    let (a, b) = (Matrix::new(&a[..], k), Matrix::new(&b[..], n));
    let (at, bt) = (Matrix::new(&at[..], m), Matrix::new(&bt[..], k));
    let compute = |a: Operand<'_>, b: Operand<'_>, transposed: bool| {
        let mut c = vec![0f32; m * n];
        let output = if transposed {
            Output::new(&mut c[..], m, true)
        } else {
            Output::new(&mut c[..], n, false)
        };
        let term = Term {
            a,
            b,
            k,
            alpha: 1.5,
            gate: None,
        };
        product(cpu, *precision, (m, n), &[term], Base::Zero, output).unwrap();
        if transposed { flip(&c, n, m) } else { c }
    };
    let first = compute(Operand::Rows(&a), Operand::Columns(&b), false);
    assert_eq!(
        first,
        compute(Operand::Columns(&at), Operand::Rows(&bt), false)
    );
    assert_eq!(first, compute(Operand::Rows(&a), Operand::Rows(&bt), true));
}

/// Rows of `2 + A·B + alpha · A₂·B₂` (`400 × 50`, sums of `k` and of `short` steps), and the same in f64.
/// `B` is stored by columns or by rows.
fn two_terms(
    (cpu, precision): &(Cpu, Precision),
    (k, short, alpha): (usize, usize, f32),
    b_rows: bool,
    rows: Range<usize>,
) -> (Vec<f32>, Vec<f64>) {
    let (m, n) = (400, 50);
    let mut random = Random::new(4);
    let operands = [k, short].map(|k| (k, random.normal(m * k, 1.0), random.normal(n * k, 1.0)));
    let matrices = operands.each_ref().map(|(k, a, b)| {
        let a = Matrix::new(&a[rows.start * k..], *k);
        (a, Matrix::new(&b[..], if b_rows { *k } else { n }))
    });
    let term = |at: usize, alpha: f32| Term {
        a: Operand::Rows(&matrices[at].0),
        b: if b_rows {
            Operand::Rows(&matrices[at].1)
        } else {
            Operand::Columns(&matrices[at].1)
        },
        k: operands[at].0,
        alpha,
        gate: None,
    };
    let mut c = vec![0f32; rows.len() * n];
    product(
        cpu,
        *precision,
        (rows.len(), n),
        &[term(0, 1.0), term(1, alpha)],
        Base::Bias(&[2.0; 50]),
        Output::new(&mut c[..], n, false),
    )
    .unwrap();
    let mut expected = vec![2.0; rows.len() * n];
    for ((k, a, b), alpha) in operands.iter().zip([1.0, alpha.into()]) {
        let (a, b) = (seen(a, *precision), seen(b, *precision));
        let sums = oracle(
            (rows.len(), *k, n),
            |i, p| a[(rows.start + i) * k + p].into(),
            |p, j| if b_rows { b[j * k + p] } else { b[p * n + j] }.into(),
        );
        for (expected, sum) in expected.iter_mut().zip(sums) {
            *expected += alpha * sum;
        }
    }
    (c, expected)
}

#[test]
fn a_row_has_the_same_bits_alone_and_among_others() {
    // No second term; a second term that continues the last block, alone, with rows 4 KiB apart and
    // with no term before it; and a term that is too long for that.
    for steps in [
        (700, 0, 1.5),
        (700, 16, 1.5),
        (1024, 32, 2.0),
        (0, 8, 1.5),
        (40, 33, 1.0),
        (40, 50, 1.0),
    ] {
        for (cpu, b_rows) in ways(2).flat_map(|way| [(way.clone(), true), (way, false)]) {
            let (whole, expected) = two_terms(&cpu, steps, b_rows, 0..400);
            assert_close("c", &whole, &expected, 1e-4, 1e-6);
            for rows in [0..1, 399..400, 17..22, 50..170, 60..390] {
                let (some, _) = two_terms(&cpu, steps, b_rows, rows.clone());
                assert_eq!(some, whole[rows.start * 50..rows.end * 50], "{steps:?}");
            }
        }
    }
}

#[test]
fn a_product_through_a_narrow_middle_has_the_bits_of_two() {
    // One block and several, more rows than a tile, a middle that is no short term, sums of too many blocks.
    for (m, k, n, rank) in [
        (1, 70, 40, 3),
        (300, 700, 1600, 16),
        (33, 64, 17, 40),
        (20, 5200, 48, 8),
    ] {
        for ((cpu, precision), gated) in ways(3).flat_map(|way| [(way.clone(), false), (way, true)])
        {
            let mut random = Random::new(8);
            let [a, b, d, u] =
                [m * k, k * n, k * rank, rank * n].map(|len| random.normal(len, 1.0));
            let (a, b) = (Matrix::new(&a[..], k), Matrix::new(&b[..], k));
            let (d, u) = (Matrix::new(&d[..], k), Matrix::new(&u[..], rank));
            let term = |a, b, k| Term {
                a,
                b,
                k,
                alpha: 1.0,
                gate: None,
            };
            let base = term(Operand::Rows(&a), Operand::Rows(&b), k);
            let through = Through {
                rows: None,
                down: Operand::Rows(&d),
                up: Operand::Rows(&u),
                rank,
                scale: 1.5,
                gate: gated.then_some(&Tens as &dyn Gate),
            };
            let mut first = (vec![f32::NAN; m * rank], vec![f32::NAN; m * n]);
            let output = Output::new(&mut first.1[..], n, false);
            product_through(
                &cpu,
                precision,
                (m, n),
                base,
                through,
                Base::Zero,
                (&mut first.0, output),
            )
            .unwrap();
            let mut second = (vec![f32::NAN; m * rank], vec![f32::NAN; m * n]);
            let down = term(base.a, through.down, k);
            let output = Output::new(&mut second.0[..], rank, false);
            product(&cpu, precision, (m, rank), &[down], Base::Zero, output).unwrap();
            let x = Matrix::new(&second.0[..], rank);
            let up = Term {
                alpha: through.scale,
                gate: through.gate,
                ..term(Operand::Rows(&x), through.up, rank)
            };
            let output = Output::new(&mut second.1[..], n, false);
            product(&cpu, precision, (m, n), &[base, up], Base::Zero, output).unwrap();
            assert_eq!(first, second, "{m} {k} {n} {rank}");
        }
    }
}

#[test]
fn tiles_are_as_accurate_as_vectors() {
    // Operands of all magnitudes, and with sums that cancel.
    for spread in [0usize, 20] {
        for (m, k, n) in [(64, 64, 64), (64, 640, 64), (64, 5000, 32)] {
            let mut random = Random::new(k as u64);
            let mut operand = |len: usize| -> Vec<f32> {
                let values = random.normal(len, 1.0).into_iter().enumerate();
                let scale =
                    |at: usize| 2f32.powi((at * 7919 % (spread + 1)) as i32 - spread as i32 / 2);
                values.map(|(at, value)| value * scale(at)).collect()
            };
            let (a, b) = (operand(m * k), operand(n * k));
            let (a_rows, b_rows) = (Matrix::new(&a[..], k), Matrix::new(&b[..], k));
            let term = Term {
                a: Operand::Rows(&a_rows),
                b: Operand::Rows(&b_rows),
                k,
                alpha: 1.0,
                gate: None,
            };
            let at = |x: &[f32], i: usize, p: usize| f64::from(x[i * k + p]);
            let expected = oracle((m, k, n), |i, p| at(&a, i, p), |p, j| at(&b, j, p));
            // Error of each element, in units of the roundings of its terms.
            let sizes = oracle(
                (m, k, n),
                |i, p| at(&a, i, p).abs(),
                |p, j| at(&b, j, p).abs(),
            );
            let f32s = ways(2).filter(|(_, precision)| *precision == Precision::F32);
            let errors: Vec<f64> = f32s
                .map(|(cpu, precision)| {
                    let mut c = vec![0f32; m * n];
                    product(
                        &cpu,
                        precision,
                        (m, n),
                        &[term],
                        Base::Zero,
                        Output::new(&mut c[..], n, false),
                    )
                    .unwrap();
                    let error = |at: usize| (f64::from(c[at]) - expected[at]) / sizes[at];
                    let squares: f64 = (0..m * n).map(|at| error(at).powi(2)).sum();
                    (squares / (m * n) as f64).sqrt() * 2f64.powi(24)
                })
                .collect();
            println!(
                "{k} steps, magnitudes 2^{spread} apart: {errors:.3?} units in the last place"
            );
            if let [vectors, tiles] = errors[..] {
                assert!(tiles <= vectors, "{errors:?}");
            }
        }
    }
}

#[test]
fn a_result_of_bf16_is_the_sum_of_f32_rounded_once() {
    // One block, several, and so many that sums are kept between parts.
    for (m, k, n) in [(1, 5, 3), (40, 70, 33), (300, 700, 50), (20, 16_000, 40)] {
        let mut random = Random::new(k as u64);
        let [a, b, start] = [m * k, k * n, m * n].map(|len| random.normal(len, 1.0));
        let bias = random.normal(n, 1.0);
        let stored: Vec<bf16> = a.iter().map(|&x| bf16::from_f32(x)).collect();
        let start: Vec<bf16> = start.iter().map(|&x| bf16::from_f32(x)).collect();
        let (a, b) = (Matrix::new(&stored[..], k), Matrix::new(&b[..], k));
        let term = Term {
            a: Operand::Rows(&a),
            b: Operand::Rows(&b),
            k,
            alpha: 0.75,
            gate: None,
        };
        for (cpu, base) in cpus(2)
            .into_iter()
            .flat_map(|cpu| ["zero", "bias", "output"].map(|base| (cpu.clone(), base)))
        {
            let base = match base {
                "zero" => Base::Zero,
                "bias" => Base::Bias(&bias),
                _ => Base::Output,
            };
            let mut sums: Vec<f32> = start.iter().map(|x| x.to_f32()).collect();
            let mut c = start.clone();
            let compute = |output| {
                product(&cpu, Precision::Bf16, (m, n), &[term], base, output).unwrap();
            };
            compute(Output::new(&mut sums[..], n, false));
            compute(Output::new(&mut c[..], n, false));
            let expected: Vec<bf16> = sums.iter().map(|&x| bf16::from_f32(x)).collect();
            assert_eq!(c, expected, "{m} {k} {n}");
        }
    }
}
