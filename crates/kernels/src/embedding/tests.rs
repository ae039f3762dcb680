//! Embedding: exact gathers from every type, scatters in the order of the tokens.

use super::*;
use half::{bf16, f16};
use tightrope_device::{Cpu, Element};
use tightrope_testkit::Random;

/// Tokens, rows of the table, features.
const SHAPES: [(usize, usize, usize); 7] = [
    (0, 5, 4),
    (1, 1, 1),
    (3, 2, 7),
    (40, 9, 33),
    (129, 1000, 128),
    (700, 300, 97),
    (300, 50, 576),
];

fn ids(tokens: usize, vocabulary: usize) -> Vec<u32> {
    let mut random = Random::new(tokens as u64);
    // A quarter of them is id 0, as frequent tokens are.
    let id = |_| (random.below(vocabulary) * usize::from(random.below(4) > 0)) as u32;
    (0..tokens).map(id).collect()
}

fn gather<T: Element>(
    cpu: &Cpu,
    ids: &[u32],
    table: &[T],
    hidden: usize,
    scale: f32,
) -> Result<Vec<f32>, KernelError> {
    let vocabulary = table.len() / hidden;
    let ids_tensor = Tensor::from_slice(cpu, &[ids.len()], ids).unwrap();
    let table = Tensor::from_slice(cpu, &[vocabulary, hidden], table).unwrap();
    let mut y =
        Tensor::from_slice(cpu, &[ids.len() * hidden], &vec![7f32; ids.len() * hidden]).unwrap();
    let args = Forward {
        ids: &ids_tensor,
        table: &table,
        scale,
        y: &mut y,
        tokens: ids.len(),
        vocabulary,
        hidden,
    };
    cpu.embedding_forward(args.checked()?)?;
    Ok(y.to_vec().unwrap())
}

fn scatter(
    cpu: &Cpu,
    ids: &[u32],
    dy: &[f32],
    before: &[f32],
    hidden: usize,
    scale: f32,
) -> Result<Vec<f32>, KernelError> {
    let vocabulary = before.len() / hidden;
    let ids_tensor = Tensor::from_slice(cpu, &[ids.len()], ids).unwrap();
    let mut dtable = Tensor::from_slice(cpu, &[vocabulary, hidden], before).unwrap();
    let args = Backward {
        ids: &ids_tensor,
        dy: &Tensor::from_slice(cpu, &[dy.len()], dy).unwrap(),
        scale,
        dtable: &mut dtable,
        tokens: ids.len(),
        vocabulary,
        hidden,
    };
    cpu.embedding_backward(args.checked()?)?;
    Ok(dtable.to_vec().unwrap())
}

#[test]
fn rows_are_gathered_exactly_from_every_type() {
    for (tokens, vocabulary, hidden) in SHAPES {
        let ids = ids(tokens, vocabulary);
        let table = Random::new(9).normal(vocabulary * hidden, 1.0);
        for cpu in [1, 2, 3].map(|threads| Cpu::new(threads).unwrap()) {
            for scale in [1.0, 24.0, 0.3] {
                let expected = |value: &dyn Fn(f32) -> f32| -> Vec<f32> {
                    let rows = ids
                        .iter()
                        .map(|&id| &table[id as usize * hidden..][..hidden]);
                    rows.flatten()
                        .map(|&element| scale * value(element))
                        .collect()
                };
                let brief: Vec<bf16> = table.iter().map(|&x| bf16::from_f32(x)).collect();
                let halves: Vec<f16> = table.iter().map(|&x| f16::from_f32(x)).collect();
                assert_eq!(
                    gather(&cpu, &ids, &table, hidden, scale).unwrap(),
                    expected(&|x| x)
                );
                let got = gather(&cpu, &ids, &brief, hidden, scale).unwrap();
                assert_eq!(got, expected(&|x| bf16::from_f32(x).to_f32()));
                let got = gather(&cpu, &ids, &halves, hidden, scale).unwrap();
                assert_eq!(got, expected(&|x| f16::from_f32(x).to_f32()));
            }
        }
    }
}

#[test]
fn every_number_of_16_bits_is_decoded_as_half_does() {
    let cpu = Cpu::new(1).unwrap();
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let brief: Vec<bf16> = all.iter().map(|&bits| bf16::from_bits(bits)).collect();
    let halves: Vec<f16> = all.iter().map(|&bits| f16::from_bits(bits)).collect();
    let decoded = [
        (
            gather(&cpu, &[0], &brief, 1 << 16, 1.0).unwrap(),
            brief.iter().map(|x| x.to_f32()).collect::<Vec<_>>(),
        ),
        (
            gather(&cpu, &[0], &halves, 1 << 16, 1.0).unwrap(),
            halves.iter().map(|x| x.to_f32()).collect(),
        ),
    ];
    for (got, expected) in decoded {
        for (got, expected) in got.iter().zip(&expected) {
            let same = got.to_bits() == expected.to_bits() || (got.is_nan() && expected.is_nan());
            assert!(same, "{got} {expected}");
        }
    }
}

#[test]
fn gradients_are_added_in_the_order_of_the_tokens_for_any_number_of_threads() {
    for (tokens, vocabulary, hidden) in SHAPES {
        let ids = ids(tokens, vocabulary);
        let mut random = Random::new(3);
        let dy = random.normal(tokens * hidden, 1.0);
        let before = random.normal(vocabulary * hidden, 1.0);
        let mut expected = before.clone();
        for (&id, dy) in ids.iter().zip(dy.chunks(hidden)) {
            for (total, &dy) in expected[id as usize * hidden..].iter_mut().zip(dy) {
                *total = 1.5f32.mul_add(dy, *total);
            }
        }
        for threads in [1, 2, 3] {
            let cpu = Cpu::new(threads).unwrap();
            assert_eq!(
                scatter(&cpu, &ids, &dy, &before, hidden, 1.5).unwrap(),
                expected
            );
        }
    }
}

#[test]
fn the_scatter_is_the_transpose_of_the_gather() {
    // ⟨gather(table), dy⟩ = ⟨table, scatter(dy)⟩, exact in small integers.
    let cpu = Cpu::new(2).unwrap();
    let (tokens, vocabulary, hidden) = (300, 20, 13);
    let mut random = Random::new(5);
    let mut integers =
        |len| -> Vec<f32> { (0..len).map(|_| random.below(9) as f32 - 4.0).collect() };
    let (table, dy) = (integers(vocabulary * hidden), integers(tokens * hidden));
    let ids = ids(tokens, vocabulary);
    let y = gather(&cpu, &ids, &table, hidden, 2.0).unwrap();
    let dtable = scatter(&cpu, &ids, &dy, &vec![0.0; table.len()], hidden, 2.0).unwrap();
    let inner = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    assert_eq!(inner(&y, &dy), inner(&table, &dtable));
}

#[test]
fn nan_reaches_its_row_and_no_other() {
    let cpu = Cpu::new(2).unwrap();
    let dy = [1.0, f32::NAN, 2.0, 2.0];
    let dtable = scatter(&cpu, &[1, 0], &dy, &[0.0; 6], 2, 1.0).unwrap();
    let nan: Vec<usize> = (0..6).filter(|&i| dtable[i].is_nan()).collect();
    assert_eq!(nan, [3]);
    let y = gather(&cpu, &[1, 0], &[1.0, 2.0, f32::NAN, 4.0], 2, 1.0).unwrap();
    assert!(y[0].is_nan() && y[1..] == [4.0, 1.0, 2.0]);
}

#[test]
fn ids_outside_the_table_are_refused_before_anything_is_written() {
    let cpu = Cpu::new(2).unwrap();
    for (ids, index, value) in [
        (vec![0, 4, 9], 1, 4),
        (vec![u32::MAX], 0, i64::from(u32::MAX)),
    ] {
        let errors = [
            gather(&cpu, &ids, &[0f32; 8], 2, 1.0).unwrap_err(),
            scatter(&cpu, &ids, &vec![0.0; 2 * ids.len()], &[0.0; 8], 2, 1.0).unwrap_err(),
        ];
        for error in errors {
            let expected = format!("`ids[{index}]` is {value}, outside 0..4");
            assert_eq!(error.to_string(), expected);
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let zeros = |dtype, shape: &[usize]| Tensor::zeros(&cpu, dtype, shape).unwrap();
    for wrong in ["ids", "table", "y", "dy", "dtable"] {
        for of_type in [false, true] {
            let make = |name: &str, dtype, shape: &[usize]| match (name == wrong, of_type) {
                (false, _) => zeros(dtype, shape),
                (true, true) => zeros(DType::I32, shape),
                (true, false) => zeros(dtype, &[&[shape[0] - 1], &shape[1..]].concat()),
            };
            let ids = make("ids", DType::U32, &[3]);
            let table = make("table", DType::F32, &[4, 2]);
            let (mut y, dy) = (make("y", DType::F32, &[6]), make("dy", DType::F32, &[6]));
            let mut dtable = make("dtable", DType::F32, &[4, 2]);
            let forward = Forward {
                ids: &ids,
                table: &table,
                scale: 1.0,
                y: &mut y,
                tokens: 3,
                vocabulary: 4,
                hidden: 2,
            }
            .check();
            let backward = Backward {
                ids: &ids,
                dy: &dy,
                scale: 1.0,
                dtable: &mut dtable,
                tokens: 3,
                vocabulary: 4,
                hidden: 2,
            }
            .check();
            assert_eq!(
                forward.is_err(),
                ["ids", "table", "y"].contains(&wrong),
                "{wrong}"
            );
            assert_eq!(
                backward.is_err(),
                ["ids", "dy", "dtable"].contains(&wrong),
                "{wrong}"
            );
            for error in [forward, backward].into_iter().filter_map(Result::err) {
                assert!(error.to_string().contains(wrong), "{wrong}: {error}");
            }
        }
    }
}
