//! 8-bit weights against f64 and against bitsandbytes, in rows of any length.

use super::*;
use half::f16;
use tightrope_device::{Cpu, IndexWidth, Tensor};
use tightrope_testkit::{Random, cuda, rounding, tensor, unit};

const FLOATS: [DType; 2] = [DType::F32, DType::BF16];
/// Rows and columns; blocks of threads have 4,096 (f32) or 8,192 elements, or 1,024 where rows are no
/// multiple of 16 bytes.
const SHAPES: [(usize, usize); 12] = [
    (0, 8),
    (3, 0),
    (1, 1),
    (5, 7),
    (3, 255),
    (3, 256),
    (5, 257),
    (1, 4097),
    (33, 255),
    (40, 256),
    (16, 1028),
    (70, 576),
];

struct Case {
    rows: usize,
    columns: usize,
    codes: Vec<u8>,
    absmax: Vec<f32>,
}

impl Case {
    fn new((rows, columns): (usize, usize)) -> Self {
        let mut random = Random::new((rows * 10_007 + columns) as u64);
        let sizes = random.normal(rows, 2.0);
        // −128 is included, which no weight is quantised to.
        let codes = (0..rows * columns).map(|_| random.below(256) as u8);
        Self {
            rows,
            columns,
            codes: codes.collect(),
            absmax: sizes.iter().map(|size| 0.05 * size.exp()).collect(),
        }
    }

    fn run<D: Absmax>(&self, device: &D, dtype: DType) -> Vec<f32> {
        let elements = self.codes.len();
        // One element more than is written.
        let mut y = tensor(device, dtype, &[elements + 1], &vec![7.0; elements + 1]);
        let absmax = tensor(device, DType::F32, &[self.rows], &self.absmax);
        let codes = Tensor::from_slice(device, &[elements], &self.codes).unwrap();
        let args = Dequantize {
            codes: codes.view(),
            absmax: absmax.view(),
            y: y.view_mut(),
            rows: self.rows,
            columns: self.columns,
        };
        device.absmax_dequantize(args.checked().unwrap()).unwrap();
        let mut y = y.to_f32_vec().unwrap();
        assert_eq!(y.pop(), Some(7.0));
        y
    }
}

fn compare_with_the_oracle<D: Absmax>(device: &D, dtype: DType) {
    for shape in SHAPES {
        let case = Case::new(shape);
        for (i, got) in case.run(device, dtype).into_iter().enumerate() {
            let absmax = f64::from(case.absmax[i / case.columns]);
            let exact = f64::from(case.codes[i] as i8) * absmax / 127.0;
            // The quotient and the product.
            let off = 2.0 * unit(DType::F32) * exact.abs() + rounding(dtype, exact);
            let close = (f64::from(got) - exact).abs() <= off;
            assert!(close, "{shape:?} {dtype} [{i}]: {got} {exact} ± {off}");
        }
    }
}

#[test]
fn the_cpu_is_the_oracle() {
    for dtype in FLOATS {
        compare_with_the_oracle(&Cpu::new(2).unwrap(), dtype);
    }
}

#[test]
fn cuda_is_the_oracle_in_every_type() {
    for dtype in FLOATS {
        compare_with_the_oracle(cuda(), dtype);
    }
}

#[test]
fn bits_depend_neither_on_the_device_nor_on_threads_nor_on_the_width() {
    let wide = cuda().forcing(IndexWidth::Wide);
    for shape in SHAPES {
        let case = Case::new(shape);
        let expected = case.run(&Cpu::new(1).unwrap(), DType::F32);
        assert!(case.run(cuda(), DType::F32) == expected);
        for dtype in FLOATS {
            assert!(case.run(cuda(), dtype) == case.run(&wide, dtype));
        }
    }
    let case = Case::new((401, 257));
    let run = |threads| case.run(&Cpu::new(threads).unwrap(), DType::F32);
    assert!(run(1) == run(3));
}

#[test]
fn every_element_takes_the_nearest_127th() {
    for (rows, columns) in SHAPES {
        let x = Random::new(columns as u64).normal(rows * columns, 0.3);
        let Quantized { codes, absmax } = quantize(&Cpu::new(2).unwrap(), &x, columns);
        assert_eq!(codes.len(), x.len());
        for (row, x) in x.chunks(columns.max(1)).enumerate() {
            let largest = x.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            assert_eq!(absmax[row], largest);
            for (&x, &code) in x.iter().zip(&codes[row * columns..]) {
                let exact = f64::from(x) / f64::from(largest) * 127.0;
                // Half, and two roundings of up to 127.
                let off = 0.5 + 2.0 * 127.0 * unit(DType::F32);
                assert!((f64::from(code as i8) - exact).abs() <= off, "{x} {code}");
            }
        }
    }
}

#[test]
fn ties_go_to_even_numbers_and_zeros_stay_zero() {
    let x = [127.0, -127.0, 0.5, 1.5, 2.5, -0.5, -1.5, 0.0f32];
    let Quantized { codes, absmax } = quantize(&Cpu::new(1).unwrap(), &x, 8);
    let codes: Vec<i8> = codes.iter().map(|&code| code as i8).collect();
    assert_eq!(
        (codes, absmax),
        (vec![127, -127, 0, 2, 2, 0, -2, 0], vec![127.0])
    );
    // The last row is shorter; numbers so small that their reciprocal overflows.
    let x = [0.0, 0.0, -1e-44, 1e-45, 1e-45];
    let Quantized { codes, absmax } = quantize(&Cpu::new(1).unwrap(), &x, 2);
    assert_eq!(absmax, [0.0, 1e-44, 1e-45]);
    assert_eq!(codes, [0, 0, -127i8 as u8, 18, 127]);
    let nothing = quantize::<f32>(&Cpu::new(1).unwrap(), &[], 5);
    assert!(nothing.absmax.is_empty());
}

#[test]
fn codes_and_scales_are_bitsandbytes() {
    // bitsandbytes 0.50.2: `int8_vectorwise_quant` of [300, 64].
    let mut state = 1u32;
    let mut number = |i: i32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / 16_777_216.0 - 0.5) * 2f32.powi(-(i / 64 % 5))
    };
    let x: Vec<f32> = (0..64 * 300).map(&mut number).collect();
    let Quantized { codes, absmax } = quantize(&Cpu::new(1).unwrap(), &x, 64);
    let first: Vec<i8> = codes[..8].iter().map(|&code| code as i8).collect();
    assert_eq!(first, [-68, -34, 1, 53, -115, -34, 71, 14]);
    assert_eq!(absmax[..3], [0.494_339_3, 0.249_199_45, 0.121_701_404]);
    // FNV-1a.
    let hash = |words: Vec<u32>| {
        words.into_iter().fold(0x811c_9dc5_u32, |hash, word| {
            (hash ^ word).wrapping_mul(0x0100_0193)
        })
    };
    assert_eq!(
        hash(codes.iter().map(|&code| code.into()).collect()),
        0x953d_8a43
    );
    assert_eq!(
        hash(absmax.iter().map(|x| x.to_bits()).collect()),
        0x06ed_34e3
    );
}

#[test]
fn weights_of_16_bits_are_quantised_as_their_values() {
    let x = Random::new(3).normal(1000, 1.0);
    let x: Vec<f16> = x.into_iter().map(f16::from_f32).collect();
    let widened: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
    let cpu = Cpu::new(1).unwrap();
    assert_eq!(quantize(&cpu, &x, 100), quantize(&cpu, &widened, 100));
    let x = Random::new(4).normal(100_003, 1.0);
    let run = |threads| quantize(&Cpu::new(threads).unwrap(), &x, 100);
    assert!(run(1) == run(3));
}

#[test]
fn what_is_not_finite_stays_in_its_row() {
    check_what_is_not_finite(&Cpu::new(1).unwrap());
    check_what_is_not_finite(cuda());
}

fn check_what_is_not_finite<D: Absmax>(device: &D) {
    for bad in [f32::NAN, f32::NEG_INFINITY] {
        let mut x = Random::new(2).normal(200, 1.0);
        x[70] = bad;
        let Quantized { codes, absmax } = quantize(&Cpu::new(1).unwrap(), &x, 50);
        let case = Case {
            rows: 4,
            columns: 50,
            codes,
            absmax,
        };
        for (i, y) in case.run(device, DType::F32).iter().enumerate() {
            assert_eq!(y.is_finite(), i / 50 != 1, "{i}");
        }
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let zeros = |dtype, len: usize| Tensor::zeros(&cpu, dtype, &[len]).unwrap();
    let names = ["codes", "absmax", "y"];
    for (wrong, of_type) in names.iter().flat_map(|&n| [(n, false), (n, true)]) {
        let make = |name, dtype, len: usize| match (name == wrong, of_type) {
            (true, true) => zeros(DType::I32, len),
            (true, false) => zeros(dtype, len - 1),
            (false, _) => zeros(dtype, len),
        };
        let absmax = make("absmax", DType::F32, 2);
        let codes = make("codes", DType::U8, 6);
        let mut y = make("y", DType::F32, 6);
        let args = Dequantize {
            codes: codes.view(),
            absmax: absmax.view(),
            y: y.view_mut(),
            rows: 2,
            columns: 3,
        };
        let error = args.check().unwrap_err().to_string();
        assert!(error.contains(&format!("`{wrong}`")), "{error}");
    }
    let absmax = zeros(DType::F32, 1);
    let codes = zeros(DType::U8, 1);
    let mut y = zeros(DType::F16, 1);
    let args = Dequantize {
        codes: codes.view(),
        absmax: absmax.view(),
        y: y.view_mut(),
        rows: 1,
        columns: 1,
    };
    let error = args.checked().unwrap_err();
    assert!(matches!(error, KernelError::DType { operand: "y", .. }));
}
