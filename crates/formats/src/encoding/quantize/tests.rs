//! Compares the error of quantised blocks with that of llama.cpp's own quantiser.

use super::*;
use serde_json::Value;

/// Whole numbers of 16 bits.
struct Random(u64);

impl Random {
    fn next(&mut self) -> i64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 48) as i64
    }
}

/// The numbers of a case, as `quantized.py` makes them: exact in f32.
fn numbers(case: &str) -> Vec<f32> {
    let mut random = Random(case.len() as u64);
    let mut next = || (0..4).map(|_| random.next()).sum::<i64>() - 131_070;
    let power = |exponent: i32| 2f64.powi(exponent);
    let number = |index: usize, sum: i64| match case {
        "normal" => sum as f64 * power(-20),
        "heavy" => (sum * sum / 65_536 * sum) as f64 * power(-37),
        "positive" => (sum + 131_070) as f64 * power(-20),
        "outlier" if index.is_multiple_of(97) => sum as f64 * power(-15),
        "outlier" => sum as f64 * power(-20),
        "sparse" if sum & 3 == 0 => sum as f64 * power(-20),
        "sparse" => 0.0,
        other => panic!("{other}"),
    };
    (0..4096)
        .map(|index| number(index, next()) as f32)
        .collect()
}

/// Error that llama.cpp counts in the blocks of an encoding: for k-quants, of large elements more.
fn weighted(encoding: Encoding, x: &[f32], y: &[f32]) -> f64 {
    let part = match encoding {
        Q4K | Q5K => 32,
        _ => 16,
    };
    let parts = x.chunks_exact(part).zip(y.chunks_exact(part));
    let errors = parts.map(|(x, y)| {
        let squares = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        let mean = (squares / part as f64).sqrt();
        let weight = |x: f64| match encoding {
            Q4K | Q5K => mean + x.abs(),
            Q6K => x * x,
            _ => 1.0,
        };
        let pairs = x.iter().zip(y).map(|(&x, &y)| (f64::from(x), f64::from(y)));
        pairs
            .map(|(x, y)| weight(x) * (x - y) * (x - y))
            .sum::<f64>()
    });
    errors.sum()
}

fn squared(x: &[f32], y: &[f32]) -> f64 {
    let pairs = x.iter().zip(y).map(|(&x, &y)| f64::from(x) - f64::from(y));
    pairs.map(|difference| difference * difference).sum()
}

#[test]
fn errors_are_at_most_those_of_llama_cpp() {
    let text = include_str!("../../../tests/gguf/quantized.json");
    let cases: Vec<Value> = serde_json::from_str(text).unwrap();
    assert_eq!(cases.len(), 7 * 5);
    for case in cases {
        let encoding = Encoding::from_gguf(case["id"].as_u64().unwrap() as u32).unwrap();
        let name = case["case"].as_str().unwrap();
        let x = numbers(name);
        let sum: f64 = x.iter().map(|&x| f64::from(x.abs())).sum();
        assert_eq!(
            Some(sum),
            case["sum"].as_f64(),
            "{name}: other numbers than in Python"
        );
        let y = encoding.to_f32(&encoding.encode(&x, 1).unwrap()).unwrap();
        for (measure, own) in [
            ("weighted", weighted(encoding, &x, &y)),
            ("squared", squared(&x, &y)),
        ] {
            let theirs = case[measure].as_f64().unwrap();
            println!(
                "{encoding} {name}: {measure} error {:.4} of llama.cpp's",
                own / theirs
            );
            assert!(
                own <= theirs * (1.0 + 1e-9),
                "{encoding} {name} {measure}: {own} and {theirs}"
            );
        }
    }
}

#[test]
fn bytes_do_not_depend_on_threads() {
    let x = numbers("normal");
    for encoding in [Q4_0, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K] {
        let one = encoding.encode(&x, 1).unwrap();
        for threads in [0, 2, 3, 7, 100] {
            assert_eq!(encoding.encode(&x, threads).unwrap(), one, "{encoding}");
        }
    }
}

#[test]
fn awkward_blocks_stay_numbers() {
    let mut blocks = vec![vec![0.0; 256], vec![1.0; 256], vec![-65_504.0; 256]];
    blocks.push(
        (0..256)
            .map(|i| if i == 200 { 65_504.0 } else { 0.0 })
            .collect(),
    );
    blocks.push(
        (0..256)
            .map(|i| if i == 200 { -1e-30 } else { 0.0 })
            .collect(),
    );
    blocks.push((0..256).map(|i| (i as f32 - 128.0) * 1e-8).collect());
    for encoding in [Q4_0, Q5_0, Q5_1, Q8_0, Q4K, Q5K, Q6K] {
        for block in &blocks {
            let read = encoding
                .to_f32(&encoding.encode(block, 1).unwrap())
                .unwrap();
            let largest = block.iter().fold(0.0, |l: f32, x| l.max(x.abs()));
            for (x, y) in block.iter().zip(&read) {
                // A step of four bits is an eighth, and the smallest scale is that of f16.
                let allowed = largest / 7.0 + 1e-5;
                assert!((x - y).abs() <= allowed, "{encoding}: {x} and {y}");
            }
        }
        let empty: &[f32] = &[];
        assert_eq!(encoding.encode(empty, 3).unwrap(), Vec::<u8>::new());
        assert_eq!(encoding.encode(&[0.0; 31], 1), None);
    }
    assert_eq!(Q4_1.encode(&[0.0; 32], 1), None);
    assert_eq!(F16.encode(&[1.0, -2.0], 1).unwrap(), [0, 0x3c, 0, 0xc0]);
    assert_eq!(Bf16.encode(&[1.0], 1).unwrap(), [0x80, 0x3f]);
}
