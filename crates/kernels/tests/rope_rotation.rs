//! The rotation against the f64 oracle, its transpose and its invariants.

use proptest::prelude::*;
use tightrope_device::{Cpu, DType, IndexWidth};
use tightrope_kernels::{
    Check, Checked, KernelError,
    rope::{Direction, Heads, Pairing, Rope, Rotate},
};
use tightrope_rope::{RopeConfig, RotaryEmbedding};
use tightrope_testkit::{Random, cuda, oracle, rounded, rounding, tensor, unit, widen};

/// Two products and a sum of f32 numbers, tables rounded once: 4 half units of the pair's norm,
/// which is at most √2 times its larger element.
const TOLERANCE: f64 = 4.0 * f32::EPSILON as f64;
const FLOATS: [DType; 2] = [DType::F32, DType::BF16];
const PAIRINGS: [Pairing; 2] = [Pairing::Halves, Pairing::Interleaved];

#[derive(Clone, Debug)]
struct Case {
    dtype: DType,
    tokens: usize,
    q_heads: usize,
    k_heads: usize,
    head_dim: usize,
    rotary_dim: usize,
    /// Elements between the heads of a row and the next row.
    gap: usize,
    pairing: Pairing,
}

#[derive(Clone, PartialEq)]
struct Data {
    q: Vec<f32>,
    k: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Case {
    fn stride(&self, heads: usize) -> usize {
        heads * self.head_dim + self.gap
    }

    /// Rows without the gap after the last one.
    fn len(&self, heads: usize) -> usize {
        (self.tokens * self.stride(heads)).saturating_sub(self.gap)
    }

    fn data(&self, seed: u64) -> Data {
        let mut random = Random::new(seed);
        let mut numbers = |heads| rounded(&random.normal(self.len(heads), 1.0), self.dtype);
        let (q, k) = (numbers(self.q_heads), numbers(self.k_heads));
        let pairs = self.rotary_dim / 2;
        let (mut cos, mut sin) = (
            vec![0.0; self.tokens * pairs],
            vec![0.0; self.tokens * pairs],
        );
        if pairs > 0 {
            self.embedding()
                .fill_tables([(3, self.tokens)].into_iter(), &mut cos, &mut sin)
                .unwrap();
        }
        Data { q, k, cos, sin }
    }

    fn embedding(&self) -> RotaryEmbedding {
        RotaryEmbedding::new(&RopeConfig::new(10_000.0, self.rotary_dim, 2048)).unwrap()
    }

    /// `data` with `q` and `k` rotated.
    fn run<D: Rope>(&self, device: &D, data: &Data, direction: Direction) -> Data {
        self.run_with(device, data, direction, |args| device.rope(args))
    }

    fn run_with<D: Rope>(
        &self,
        device: &D,
        data: &Data,
        direction: Direction,
        rope: impl Fn(Checked<Rotate<'_, D>>) -> Result<(), KernelError>,
    ) -> Data {
        let heads = |values: &[f32]| tensor(device, self.dtype, &[values.len()], values);
        let table = |values: &[f32]| tensor(device, DType::F32, &[values.len()], values);
        let (mut q, mut k) = (heads(&data.q), heads(&data.k));
        let (cos, sin) = (table(&data.cos), table(&data.sin));
        let args = Rotate {
            q: Heads {
                tensor: q.view_mut(),
                heads: self.q_heads,
                row_stride: self.stride(self.q_heads),
            },
            k: Heads {
                tensor: k.view_mut(),
                heads: self.k_heads,
                row_stride: self.stride(self.k_heads),
            },
            cos: cos.view(),
            sin: sin.view(),
            tokens: self.tokens,
            head_dim: self.head_dim,
            rotary_dim: self.rotary_dim,
            pairing: self.pairing,
            direction,
        };
        rope(args.checked().unwrap()).unwrap();
        Data {
            q: q.to_f32_vec().unwrap(),
            k: k.to_f32_vec().unwrap(),
            ..data.clone()
        }
    }

    fn expected(&self, x: &[f32], heads: usize, sign: f64) -> Vec<f64> {
        let mut x = widen(x);
        let pairs = self.rotary_dim / 2;
        let embedding = (pairs > 0).then(|| self.embedding());
        for (token, head) in (0..self.tokens).flat_map(|t| (0..heads).map(move |h| (t, h))) {
            let start = token * self.stride(heads) + head * self.head_dim;
            let angles = (0..pairs).map(|pair| {
                let frequency = embedding.as_ref().unwrap().inverse_frequencies(0)[pair];
                let angle = sign * (token + 3) as f64 * f64::from(frequency);
                match self.pairing {
                    Pairing::Halves => (start + pair, start + pair + pairs, angle),
                    Pairing::Interleaved => (start + 2 * pair, start + 2 * pair + 1, angle),
                }
            });
            oracle::rope::rotate(&mut x, angles, 1.0);
        }
        x
    }
}

/// Shapes with and without accesses of 16 bytes.
fn cases(dtype: DType) -> impl Strategy<Value = Case> {
    let dims = prop_oneof![Just(2), Just(6), Just(16), Just(34), Just(64), Just(7)];
    let gaps = prop_oneof![Just(0), Just(1), Just(2), Just(8)];
    let pairing = prop_oneof![Just(Pairing::Halves), Just(Pairing::Interleaved)];
    (
        0usize..6,
        0usize..7,
        0usize..3,
        dims,
        0usize..40,
        gaps,
        pairing,
    )
        .prop_map(
            move |(tokens, q_heads, k_heads, head_dim, rotary, gap, pairing)| Case {
                dtype,
                tokens,
                q_heads,
                k_heads,
                head_dim,
                rotary_dim: (2 * rotary).min(head_dim / 2 * 2),
                gap,
                pairing,
            },
        )
}

/// Failures are printed, not stored.
fn config() -> ProptestConfig {
    ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Large enough for several blocks, rows that do not fill the last one.
fn large(dtype: DType, pairing: Pairing, gap: usize) -> Case {
    Case {
        dtype,
        tokens: 331,
        q_heads: 5,
        k_heads: 2,
        head_dim: 64,
        rotary_dim: 48,
        gap,
        pairing,
    }
}

/// Elementwise; a NaN fails.
#[track_caller]
fn assert_within(name: &str, got: &[f32], expected: &[f64], tolerance: impl Fn(f64) -> f64) {
    assert_eq!(got.len(), expected.len(), "{name}");
    for (i, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let tolerance = tolerance(expected);
        let close = (f64::from(got) - expected).abs() <= tolerance;
        assert!(close, "{name}[{i}]: {got} {expected} ± {tolerance}");
    }
}

fn compare_with_the_oracle<D: Rope>(device: &D, dtype: DType) {
    proptest!(config(), |(case in cases(dtype), seed in any::<u64>())| {
        let data = case.data(seed);
        for (direction, sign) in [(Direction::Forward, 1.0), (Direction::Backward, -1.0)] {
            let got = case.run(device, &data, direction);
            // The tolerance is relative to the pair; normal numbers of this test stay below 6. The
            // result that is rounded is off by as much.
            let error = 6.0 * TOLERANCE;
            let within = |x: f64| error + rounding(dtype, x.abs() + error);
            assert_within("q", &got.q, &case.expected(&data.q, case.q_heads, sign), within);
            assert_within("k", &got.k, &case.expected(&data.k, case.k_heads, sign), within);
        }
    });
}

#[test]
fn rotation_is_the_oracles_in_both_directions() {
    for dtype in FLOATS {
        compare_with_the_oracle(&Cpu::new(2).unwrap(), dtype);
    }
}

#[test]
fn rotation_on_cuda_is_the_oracles_in_every_type() {
    for dtype in FLOATS {
        compare_with_the_oracle(cuda(), dtype);
    }
}

#[test]
fn cuda_and_the_cpu_have_the_same_bits_in_f32() {
    let cpu = Cpu::new(2).unwrap();
    for (pairing, gap) in PAIRINGS.into_iter().flat_map(|p| [(p, 8), (p, 9)]) {
        let case = large(DType::F32, pairing, gap);
        let data = case.data(4);
        for direction in [Direction::Forward, Direction::Backward] {
            let (got, expected) = (
                case.run(cuda(), &data, direction),
                case.run(&cpu, &data, direction),
            );
            assert!(got == expected);
        }
    }
}

fn check_the_transpose<D: Rope>(device: &D, dtype: DType) {
    proptest!(config(), |(case in cases(dtype), seed in any::<u64>())| {
        let data = case.data(seed);
        let turned = case.run(device, &data, Direction::Forward);
        let back = case.run(device, &turned, Direction::Backward);
        // Rounding both elements of a pair moves it by √2 units of its norm, below 6·√2; then each
        // is rounded once more.
        let u = if dtype == DType::F32 { 0.0 } else { unit(dtype) };
        let within = |_| 12.0 * TOLERANCE + 3.0 * 6.0 * u;
        assert_within("q", &back.q, &widen(&data.q), within);
        assert_within("k", &back.k, &widen(&data.k), within);
        // ⟨R x, y⟩ = ⟨x, Rᵀ y⟩, with x = q and y of another seed.
        let other = Data { q: case.data(seed ^ 1).q, ..data.clone() };
        let back = case.run(device, &other, Direction::Backward);
        let inner = |a: &[f32], b: &[f32]| -> f64 { widen(a).iter().zip(widen(b)).map(|(a, b)| a * b).sum() };
        let difference = (inner(&turned.q, &other.q) - inner(&data.q, &back.q)).abs();
        let bound = 36.0 * (TOLERANCE + 4.0 * u) * data.q.len().max(1) as f64;
        prop_assert!(difference <= bound, "{difference} {bound}");
    });
}

#[test]
fn backward_is_the_transpose_and_undoes_forward() {
    for dtype in FLOATS {
        check_the_transpose(&Cpu::new(2).unwrap(), dtype);
    }
    for dtype in FLOATS {
        check_the_transpose(cuda(), dtype);
    }
}

#[test]
fn what_does_not_rotate_keeps_its_bits_and_norms_are_kept() {
    for dtype in FLOATS {
        check_what_does_not_rotate(&Cpu::new(2).unwrap(), dtype);
    }
    for dtype in FLOATS {
        check_what_does_not_rotate(cuda(), dtype);
    }
}

fn check_what_does_not_rotate<D: Rope>(device: &D, dtype: DType) {
    for (pairing, gap) in PAIRINGS.into_iter().flat_map(|p| [(p, 8), (p, 9)]) {
        let case = large(dtype, pairing, gap);
        let data = case.data(3);
        let q = case.run(device, &data, Direction::Forward).q;
        let width = case.q_heads * case.head_dim;
        let mut changed = 0;
        for (index, value) in q.iter().enumerate() {
            let column = index % case.stride(case.q_heads);
            if column >= width || column % case.head_dim >= case.rotary_dim {
                assert_eq!(value.to_bits(), data.q[index].to_bits());
            } else {
                changed += usize::from(*value != data.q[index]);
            }
        }
        assert!(changed > 300 * 5 * 40, "{changed}");
        let norm = |x: &[f32]| widen(x).iter().map(|x| x * x).sum::<f64>();
        for start in (0..q.len()).step_by(case.stride(case.q_heads)) {
            let range = start..start + case.rotary_dim;
            let (before, after) = (norm(&data.q[range.clone()]), norm(&q[range]));
            // A unit of rounding in every element is two in its square.
            let error = 4.0 * TOLERANCE + 2.1 * unit(dtype);
            assert!((before - after).abs() <= error * before, "{before} {after}");
        }
    }
}

#[test]
fn bits_depend_neither_on_threads_nor_on_the_index_width_nor_on_the_place() {
    for pairing in PAIRINGS {
        let case = large(DType::F32, pairing, 9);
        let data = case.data(5);
        let one = Cpu::new(1).unwrap();
        let expected = case.run(&one, &data, Direction::Forward);
        for threads in [2, 3] {
            let cpu = Cpu::new(threads).unwrap();
            check_widths(&cpu, &case, &data, &expected);
        }
        check_the_place(&one, &case, &data, &expected);
    }
}

#[test]
fn bits_on_cuda_depend_neither_on_the_index_width_nor_on_the_place() {
    let wide = cuda().forcing(IndexWidth::Wide);
    for ((pairing, gap), dtype) in PAIRINGS
        .into_iter()
        .flat_map(|p| [(p, 8), (p, 9)])
        .flat_map(|p| FLOATS.map(|dtype| (p, dtype)))
    {
        let case = large(dtype, pairing, gap);
        let data = case.data(5);
        let expected = case.run(cuda(), &data, Direction::Forward);
        assert!(case.run(&wide, &data, Direction::Forward) == expected);
        check_widths(cuda(), &case, &data, &expected);
        check_the_place(cuda(), &case, &data, &expected);
    }
}

fn check_widths<D: Rope>(device: &D, case: &Case, data: &Data, expected: &Data) {
    for width in [IndexWidth::Narrow, IndexWidth::Wide] {
        let got = case.run_with(device, data, Direction::Forward, |args| {
            device.rope_with_width(args, width)
        });
        assert!(got == *expected, "{width:?}");
    }
}

/// The last 100 rows alone, with the angles that they had.
fn check_the_place<D: Rope>(device: &D, case: &Case, data: &Data, expected: &Data) {
    let (pairs, skip) = (case.rotary_dim / 2, case.tokens - 100);
    let tail = Case {
        tokens: 100,
        ..case.clone()
    };
    let (q, k) = (
        skip * case.stride(case.q_heads),
        skip * case.stride(case.k_heads),
    );
    let part = Data {
        q: data.q[q..].to_vec(),
        k: data.k[k..].to_vec(),
        cos: data.cos[skip * pairs..].to_vec(),
        sin: data.sin[skip * pairs..].to_vec(),
    };
    let part = tail.run(device, &part, Direction::Forward);
    assert!(part.q == expected.q[q..] && part.k == expected.k[k..]);
}

#[test]
fn inner_products_depend_on_the_distance_alone() {
    let cpu = Cpu::new(1).unwrap();
    let case = Case {
        dtype: DType::F32,
        tokens: 1,
        q_heads: 1,
        k_heads: 1,
        head_dim: 64,
        rotary_dim: 64,
        gap: 0,
        pairing: Pairing::Halves,
    };
    let embedding = case.embedding();
    let score = |query: u32, key: u32| {
        let mut data = case.data(9);
        let mut rotated = |position: u32| {
            embedding
                .fill_tables([(position, 1)].into_iter(), &mut data.cos, &mut data.sin)
                .unwrap();
            case.run(&cpu, &data, Direction::Forward)
        };
        let (q, k) = (rotated(query).q, rotated(key).k);
        widen(&q)
            .iter()
            .zip(widen(&k))
            .map(|(q, k)| q * k)
            .sum::<f64>()
    };
    for distance in [0, 1, 17, 500] {
        let near = score(distance, 0);
        for shift in [1, 1000, 100_000, 2_000_000_000] {
            let far = score(distance + shift, shift);
            // 64 terms below 16, each with the error of two rotations.
            assert!(
                (near - far).abs() <= 64.0 * 16.0 * TOLERANCE,
                "{distance} {shift}: {near} {far}"
            );
        }
        assert!(distance == 0 || (near - score(0, 0)).abs() > 0.1);
    }
}

#[test]
fn nan_stays_in_its_pair() {
    for dtype in FLOATS {
        check_nan(&Cpu::new(1).unwrap(), dtype);
    }
    for dtype in FLOATS {
        check_nan(cuda(), dtype);
    }
}

fn check_nan<D: Rope>(device: &D, dtype: DType) {
    for (pairing, partner) in [(Pairing::Halves, 25), (Pairing::Interleaved, 16)] {
        let case = Case {
            dtype,
            tokens: 2,
            q_heads: 1,
            k_heads: 1,
            head_dim: 16,
            rotary_dim: 16,
            gap: 0,
            pairing,
        };
        let mut data = case.data(1);
        data.q[17] = f32::NAN;
        let got = case.run(device, &data, Direction::Forward);
        let nan: Vec<usize> = (0..32).filter(|&index| got.q[index].is_nan()).collect();
        assert_eq!(nan, [17.min(partner), 17.max(partner)]);
        assert!(got.k.iter().all(|k| !k.is_nan()));
    }
}
