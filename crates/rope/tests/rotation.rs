//! The rotation against the f64 oracle, its transpose, its invariants and its checks.

use proptest::prelude::*;
use tightrope_device::{Cpu, DType, IndexWidth, Tensor};
use tightrope_rope::{
    Direction, Heads, Pairing, Rope, RopeConfig, RopeError, RotaryEmbedding, Rotate,
};
use tightrope_testkit::{Random, assert_close, oracle, widen};

/// Two products and a sum of f32 numbers, tables rounded once: 4 half units of the pair's norm,
/// which is at most √2 times its larger element.
const TOLERANCE: f64 = 4.0 * f32::EPSILON as f64;

#[derive(Clone, Debug)]
struct Case {
    tokens: usize,
    q_heads: usize,
    k_heads: usize,
    head_dim: usize,
    rotary_dim: usize,
    /// Elements between the heads of a row and the next row.
    gap: usize,
    pairing: Pairing,
}

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
        let (q, k) = (
            random.normal(self.len(self.q_heads), 1.0),
            random.normal(self.len(self.k_heads), 1.0),
        );
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

    fn run(
        &self,
        cpu: &Cpu,
        data: &Data,
        direction: Direction,
        width: Option<IndexWidth>,
    ) -> (Vec<f32>, Vec<f32>) {
        let tensor = |values: &[f32]| Tensor::from_slice(cpu, &[values.len()], values).unwrap();
        let (mut q, mut k) = (tensor(&data.q), tensor(&data.k));
        let args = Rotate {
            q: Heads {
                tensor: &mut q,
                heads: self.q_heads,
                row_stride: self.stride(self.q_heads),
            },
            k: Heads {
                tensor: &mut k,
                heads: self.k_heads,
                row_stride: self.stride(self.k_heads),
            },
            cos: &tensor(&data.cos),
            sin: &tensor(&data.sin),
            tokens: self.tokens,
            head_dim: self.head_dim,
            rotary_dim: self.rotary_dim,
            pairing: self.pairing,
            direction,
        };
        match width {
            None => cpu.rope(args).unwrap(),
            Some(width) => cpu.rope_with_width(args, width).unwrap(),
        }
        (q.to_vec().unwrap(), k.to_vec().unwrap())
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

fn cases() -> impl Strategy<Value = Case> {
    let dims = prop_oneof![Just(2), Just(6), Just(16), Just(34), Just(64), Just(7)];
    let pairing = prop_oneof![Just(Pairing::Halves), Just(Pairing::Interleaved)];
    (
        0usize..6,
        0usize..4,
        0usize..3,
        dims,
        0usize..40,
        0usize..3,
        pairing,
    )
        .prop_map(
            |(tokens, q_heads, k_heads, head_dim, rotary, gap, pairing)| Case {
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
fn large(pairing: Pairing) -> Case {
    Case {
        tokens: 331,
        q_heads: 5,
        k_heads: 2,
        head_dim: 64,
        rotary_dim: 48,
        gap: 9,
        pairing,
    }
}

#[test]
fn rotation_is_the_oracles_in_both_directions() {
    let cpu = Cpu::new(2).unwrap();
    proptest!(config(), |(case in cases(), seed in any::<u64>())| {
        let data = case.data(seed);
        for (direction, sign) in [(Direction::Forward, 1.0), (Direction::Backward, -1.0)] {
            let (q, k) = case.run(&cpu, &data, direction, None);
            // The tolerance is relative to the pair; normal numbers of this test stay below 6.
            assert_close("q", &q, &case.expected(&data.q, case.q_heads, sign), 6.0 * TOLERANCE, 0.0);
            assert_close("k", &k, &case.expected(&data.k, case.k_heads, sign), 6.0 * TOLERANCE, 0.0);
        }
    });
}

#[test]
fn backward_is_the_transpose_and_undoes_forward() {
    let cpu = Cpu::new(2).unwrap();
    proptest!(config(), |(case in cases(), seed in any::<u64>())| {
        let data = case.data(seed);
        let (q, k) = case.run(&cpu, &data, Direction::Forward, None);
        let turned = Data { q, k, cos: data.cos.clone(), sin: data.sin.clone() };
        let (q, k) = case.run(&cpu, &turned, Direction::Backward, None);
        assert_close("q", &q, &widen(&data.q), 12.0 * TOLERANCE, 0.0);
        assert_close("k", &k, &widen(&data.k), 12.0 * TOLERANCE, 0.0);
        // ⟨R x, y⟩ = ⟨x, Rᵀ y⟩, with x = q and y of another seed.
        let other = case.data(seed ^ 1);
        let (back, _) = case.run(&cpu, &Data { cos: data.cos.clone(), sin: data.sin.clone(), ..other }, Direction::Backward, None);
        let other = case.data(seed ^ 1);
        let inner = |a: &[f32], b: &[f32]| -> f64 { widen(a).iter().zip(widen(b)).map(|(a, b)| a * b).sum() };
        let difference = (inner(&turned.q, &other.q) - inner(&data.q, &back)).abs();
        let close = difference <= 36.0 * TOLERANCE * data.q.len().max(1) as f64;
        prop_assert!(close, "{difference}");
    });
}

#[test]
fn what_does_not_rotate_keeps_its_bits_and_norms_are_kept() {
    let cpu = Cpu::new(2).unwrap();
    for pairing in [Pairing::Halves, Pairing::Interleaved] {
        let case = large(pairing);
        let data = case.data(3);
        let (q, _) = case.run(&cpu, &data, Direction::Forward, None);
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
            let close = (before - after).abs() <= 4.0 * TOLERANCE * before;
            assert!(close, "{before} {after}");
        }
    }
}

#[test]
fn bits_depend_neither_on_threads_nor_on_the_index_width_nor_on_the_place() {
    for pairing in [Pairing::Halves, Pairing::Interleaved] {
        let case = large(pairing);
        let data = case.data(5);
        let one = Cpu::new(1).unwrap();
        let expected = case.run(&one, &data, Direction::Forward, None);
        for threads in [2, 3] {
            let cpu = Cpu::new(threads).unwrap();
            for width in [IndexWidth::Narrow, IndexWidth::Wide] {
                assert!(case.run(&cpu, &data, Direction::Forward, Some(width)) == expected);
            }
        }
        // The last 100 rows alone, with the angles that they had.
        let (stride, pairs, skip) = (
            case.stride(case.q_heads),
            case.rotary_dim / 2,
            case.tokens - 100,
        );
        let tail = Case {
            tokens: 100,
            ..case.clone()
        };
        let part = Data {
            q: data.q[skip * stride..].to_vec(),
            k: data.k[skip * case.stride(case.k_heads)..].to_vec(),
            cos: data.cos[skip * pairs..].to_vec(),
            sin: data.sin[skip * pairs..].to_vec(),
        };
        let (q, _) = tail.run(&one, &part, Direction::Forward, None);
        assert!(q == expected.0[skip * stride..]);
    }
}

#[test]
fn inner_products_depend_on_the_distance_alone() {
    let cpu = Cpu::new(1).unwrap();
    let case = Case {
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
            case.run(&cpu, &data, Direction::Forward, None)
        };
        let ((q, _), (_, k)) = (rotated(query), rotated(key));
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
    let cpu = Cpu::new(1).unwrap();
    let case = Case {
        tokens: 2,
        q_heads: 1,
        k_heads: 1,
        head_dim: 8,
        rotary_dim: 8,
        gap: 0,
        pairing: Pairing::Halves,
    };
    let mut data = case.data(1);
    data.q[9] = f32::NAN;
    let (q, k) = case.run(&cpu, &data, Direction::Forward, None);
    let nan: Vec<usize> = (0..16).filter(|&index| q[index].is_nan()).collect();
    assert_eq!(nan, [9, 13]);
    assert!(k.iter().all(|k| !k.is_nan()));
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    // What is wrong, and the operand or parameter that the error names.
    let broken = |change: &str| {
        let zeros = |dtype, len: usize| Tensor::zeros(&cpu, dtype, &[len]).unwrap();
        let (mut q, mut k) = (zeros(DType::F32, 24), zeros(DType::F32, 24));
        let (mut cos, mut sin) = (zeros(DType::F32, 12), zeros(DType::F32, 12));
        match change {
            "q" => q = zeros(DType::F32, 23),
            "k dtype" => k = zeros(DType::BF16, 24),
            "cos" => cos = zeros(DType::F32, 11),
            "sin" => sin = zeros(DType::F32, 11),
            _ => {}
        }
        let (rotary_dim, row_stride) = match change {
            "odd" => (7, 8),
            "wide" => (10, 8),
            "row_stride" => (8, 7),
            _ => (8, 8),
        };
        cpu.rope(Rotate {
            q: Heads {
                tensor: &mut q,
                heads: 1,
                row_stride,
            },
            k: Heads {
                tensor: &mut k,
                heads: 1,
                row_stride: 8,
            },
            cos: &cos,
            sin: &sin,
            tokens: 3,
            head_dim: 8,
            rotary_dim,
            pairing: Pairing::Halves,
            direction: Direction::Forward,
        })
    };
    broken("nothing").unwrap();
    for operand in ["q", "cos", "sin"] {
        let error = broken(operand).unwrap_err();
        assert!(
            matches!(error, RopeError::TooShort { operand: o, .. } if o == operand),
            "{error}"
        );
    }
    assert!(matches!(
        broken("k dtype"),
        Err(RopeError::DType {
            operand: "k",
            got: DType::BF16
        })
    ));
    for (change, parameter) in [
        ("odd", "rotary_dim"),
        ("wide", "rotary_dim"),
        ("row_stride", "row_stride"),
    ] {
        let error = broken(change).unwrap_err();
        assert!(
            matches!(error, RopeError::Value { name, .. } if name == parameter),
            "{error}"
        );
    }
}
