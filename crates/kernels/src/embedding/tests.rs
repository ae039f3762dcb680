//! Embedding: exact gathers from and to every type, scatters in the order of the tokens.

use super::*;
use half::{bf16, f16};
use tightrope_device::{Cpu, Element, IndexWidth, Tensor};
use tightrope_testkit::{Random, cuda, rounded, tensor};

const ACTIVATIONS: [DType; 2] = [DType::F32, DType::BF16];
/// Types of tables.
const STORED: [DType; 3] = [DType::F32, DType::BF16, DType::F16];
/// Tokens, rows of the table, features.
const SHAPES: [(usize, usize, usize); 9] = [
    (0, 5, 4),
    (1, 1, 1),
    (3, 2, 7),
    (40, 9, 33),
    (129, 1000, 128),
    (700, 300, 97),
    (300, 50, 576),
    (33, 20, 2056),
    // Three passes of the sort.
    (1100, 70_000, 2),
];

fn ids(tokens: usize, vocabulary: usize) -> Vec<u32> {
    let mut random = Random::new(tokens as u64);
    // A quarter of them is id 0, as frequent tokens are.
    let id = |_| (random.below(vocabulary) * usize::from(random.below(4) > 0)) as u32;
    (0..tokens).map(id).collect()
}

/// `y` of type `dtype`, widened.
fn gather<D: Embedding>(
    ids: &[u32],
    table: &Tensor<D>,
    scale: f32,
    dtype: DType,
) -> Result<Vec<f32>, KernelError> {
    let device = table.device();
    let (vocabulary, hidden) = (table.shape()[0], table.shape()[1]);
    let elements = ids.len() * hidden;
    let mut y = tensor(device, dtype, &[elements], &vec![7.0; elements]);
    let ids = Tensor::from_slice(device, &[ids.len()], ids).unwrap();
    let args = Forward {
        ids: ids.view(),
        table: table.view(),
        scale,
        y: y.view_mut(),
        tokens: ids.len(),
        vocabulary,
        hidden,
    };
    device.embedding_forward(args.checked()?)?;
    Ok(y.to_f32_vec().unwrap())
}

/// `dtable`, from `before` on; `dy` of type `dtype`.
fn scatter<D: Embedding>(
    device: &D,
    ids: &[u32],
    (dy, dtype): (&[f32], DType),
    before: &[f32],
    hidden: usize,
    scale: f32,
) -> Result<Vec<f32>, KernelError> {
    let vocabulary = before.len() / hidden;
    let mut dtable = Tensor::from_slice(device, &[vocabulary, hidden], before).unwrap();
    let dy = tensor(device, dtype, &[dy.len()], dy);
    let ids = Tensor::from_slice(device, &[ids.len()], ids).unwrap();
    let args = Backward {
        ids: ids.view(),
        dy: dy.view(),
        scale,
        dtable: dtable.view_mut(),
        tokens: ids.len(),
        vocabulary,
        hidden,
    };
    device.embedding_backward(args.checked()?)?;
    Ok(dtable.to_vec().unwrap())
}

/// Every table at every shape.
fn gathers_are_exact<D: Embedding>(device: &D, dtypes: &[DType]) {
    for (tokens, vocabulary, hidden) in SHAPES {
        let ids = ids(tokens, vocabulary);
        let values = Random::new(9).normal(vocabulary * hidden, 1.0);
        for table in STORED {
            let values = rounded(&values, table);
            let table = tensor(device, table, &[vocabulary, hidden], &values);
            for (&dtype, scale) in dtypes.iter().flat_map(|d| [1.0, 24.0, 0.3].map(|s| (d, s))) {
                let row = |&id: &u32| &values[id as usize * hidden..][..hidden];
                let expected: Vec<f32> = ids.iter().flat_map(row).map(|&x| scale * x).collect();
                let got = gather(&ids, &table, scale, dtype).unwrap();
                assert!(
                    got == rounded(&expected, dtype),
                    "{tokens} {vocabulary} {hidden} {} {dtype} {scale}",
                    table.dtype()
                );
            }
        }
    }
}

#[test]
fn the_cpu_gathers_exactly_from_every_type() {
    for threads in [1, 2, 3] {
        gathers_are_exact(&Cpu::new(threads).unwrap(), &ACTIVATIONS);
    }
}

#[test]
fn cuda_gathers_exactly_from_and_to_every_type() {
    gathers_are_exact(cuda(), &ACTIVATIONS);
}

#[test]
fn every_number_of_16_bits_is_decoded_as_half_does() {
    decode_every_number(&Cpu::new(1).unwrap());
    decode_every_number(cuda());
}

fn decode_every_number<D: Embedding>(device: &D) {
    fn table<D: Embedding, T: Element>(device: &D, values: &[T]) -> Vec<f32> {
        let table = Tensor::from_slice(device, &[1, values.len()], values).unwrap();
        gather(&[0], &table, 1.0, DType::F32).unwrap()
    }
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let brief: Vec<bf16> = all.iter().map(|&bits| bf16::from_bits(bits)).collect();
    let halves: Vec<f16> = all.iter().map(|&bits| f16::from_bits(bits)).collect();
    let decoded = [
        (
            table(device, &brief),
            brief.iter().map(|x| x.to_f32()).collect::<Vec<_>>(),
        ),
        (
            table(device, &halves),
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

/// The result of the scatter, with its order and its roundings.
fn scattered(ids: &[u32], dy: &[f32], before: &[f32], hidden: usize, scale: f32) -> Vec<f32> {
    let mut expected = before.to_vec();
    for (&id, dy) in ids.iter().zip(dy.chunks(hidden)) {
        for (total, &dy) in expected[id as usize * hidden..].iter_mut().zip(dy) {
            *total = scale.mul_add(dy, *total);
        }
    }
    expected
}

fn scatters_are_exact<D: Embedding>(device: &D, dtypes: &[DType]) {
    for (tokens, vocabulary, hidden) in SHAPES {
        let ids = ids(tokens, vocabulary);
        let mut random = Random::new(3);
        let dy = random.normal(tokens * hidden, 1.0);
        let before = random.normal(vocabulary * hidden, 1.0);
        for &dtype in dtypes {
            let dy = rounded(&dy, dtype);
            let expected = scattered(&ids, &dy, &before, hidden, 1.5);
            let got = scatter(device, &ids, (&dy, dtype), &before, hidden, 1.5).unwrap();
            assert!(got == expected, "{tokens} {vocabulary} {hidden} {dtype}");
        }
    }
}

#[test]
fn the_cpu_adds_in_the_order_of_the_tokens_for_any_number_of_threads() {
    for threads in [1, 2, 3] {
        scatters_are_exact(&Cpu::new(threads).unwrap(), &ACTIVATIONS);
    }
}

#[test]
fn cuda_adds_in_the_order_of_the_tokens_in_every_type() {
    scatters_are_exact(cuda(), &ACTIVATIONS);
}

#[test]
fn cuda_keeps_the_order_where_tiles_are_large_and_runs_are_long() {
    let tokens = 150_000;
    for ids in [ids(tokens, 40), vec![1; tokens]] {
        let dy = Random::new(8).normal(tokens, 1.0);
        let expected = scattered(&ids, &dy, &[0.5; 40], 1, 1.0);
        let got = scatter(cuda(), &ids, (&dy, DType::F32), &[0.5; 40], 1, 1.0).unwrap();
        assert!(got == expected);
    }
}

#[test]
fn wide_offsets_change_no_bit() {
    let wide = cuda().forcing(IndexWidth::Wide);
    for (tokens, vocabulary, hidden) in SHAPES {
        let ids = ids(tokens, vocabulary);
        let values = Random::new(7).normal((vocabulary + tokens) * hidden, 1.0);
        let (table, dy) = values.split_at(vocabulary * hidden);
        let run = |device: &tightrope_device::Cuda| {
            let of = tensor(device, DType::F16, &[vocabulary, hidden], table);
            let dy = (dy, DType::BF16);
            (
                gather(&ids, &of, 0.3, DType::BF16).unwrap(),
                scatter(device, &ids, dy, table, hidden, 0.3).unwrap(),
            )
        };
        assert!(run(cuda()) == run(&wide));
    }
}

#[test]
fn the_scatter_is_the_transpose_of_the_gather() {
    check_the_transpose(&Cpu::new(2).unwrap());
    check_the_transpose(cuda());
}

/// ⟨gather(table), dy⟩ = ⟨table, scatter(dy)⟩, exact in small integers.
fn check_the_transpose<D: Embedding>(device: &D) {
    let (tokens, vocabulary, hidden) = (300, 20, 13);
    let mut random = Random::new(5);
    let mut integers =
        |len| -> Vec<f32> { (0..len).map(|_| random.below(9) as f32 - 4.0).collect() };
    let (table, dy) = (integers(vocabulary * hidden), integers(tokens * hidden));
    let ids = ids(tokens, vocabulary);
    let of = tensor(device, DType::F32, &[vocabulary, hidden], &table);
    let y = gather(&ids, &of, 2.0, DType::F32).unwrap();
    let zeros = vec![0.0; table.len()];
    let dtable = scatter(device, &ids, (&dy, DType::F32), &zeros, hidden, 2.0).unwrap();
    let inner = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    assert_eq!(inner(&y, &dy), inner(&table, &dtable));
}

#[test]
fn nan_reaches_its_row_and_no_other() {
    check_nan(&Cpu::new(2).unwrap());
    check_nan(cuda());
}

fn check_nan<D: Embedding>(device: &D) {
    let dy = ([1.0, f32::NAN, 2.0, 2.0], DType::F32);
    let dtable = scatter(device, &[1, 0], (&dy.0, dy.1), &[0.0; 6], 2, 1.0).unwrap();
    let nan: Vec<usize> = (0..6).filter(|&i| dtable[i].is_nan()).collect();
    assert_eq!(nan, [3]);
    let table = tensor(device, DType::F32, &[2, 2], &[1.0, 2.0, f32::NAN, 4.0]);
    let y = gather(&[1, 0], &table, 1.0, DType::F32).unwrap();
    assert!(y[0].is_nan() && y[1..] == [4.0, 1.0, 2.0]);
}

#[test]
fn the_cpu_refuses_ids_outside_the_table_before_anything_is_written() {
    let cpu = Cpu::new(2).unwrap();
    let table = tensor(&cpu, DType::F32, &[4, 2], &[0.0; 8]);
    for (ids, index, value) in [
        (vec![0, 4, 9], 1, 4),
        (vec![u32::MAX], 0, i64::from(u32::MAX)),
    ] {
        let dy = vec![0.0; 2 * ids.len()];
        let errors = [
            gather(&ids, &table, 1.0, DType::F32).unwrap_err(),
            scatter(&cpu, &ids, (&dy, DType::F32), &[0.0; 8], 2, 1.0).unwrap_err(),
        ];
        for error in errors {
            let expected = format!("`ids[{index}]` is {value}, outside 0..4");
            assert_eq!(error.to_string(), expected);
        }
    }
}

#[test]
fn activations_of_f16_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let table = tensor(&cpu, DType::F32, &[4, 2], &[0.0; 8]);
    let dtype = DType::F16;
    let errors = [
        gather(&[1], &table, 1.0, dtype).unwrap_err(),
        scatter(&cpu, &[1], (&[0.0; 2], dtype), &[0.0; 8], 2, 1.0).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(
            error,
            KernelError::DType {
                operand: "y" | "dy",
                ..
            }
        ));
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
                ids: ids.view(),
                table: table.view(),
                scale: 1.0,
                y: y.view_mut(),
                tokens: 3,
                vocabulary: 4,
                hidden: 2,
            }
            .check();
            let backward = Backward {
                ids: ids.view(),
                dy: dy.view(),
                scale: 1.0,
                dtable: dtable.view_mut(),
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
