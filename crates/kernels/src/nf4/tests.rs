//! NF4 against f64 and against bitsandbytes, at the edges of bytes, blocks and groups of scales.

use super::*;
use crate::{dynamic_map::DynamicMap, product::matmul::Rows};
use half::bf16;
use tightrope_device::{Cpu, IndexWidth, Tensor};
use tightrope_testkit::{Random, cuda, rounding, tensor, unit};

const FLOATS: [DType; 2] = [DType::F32, DType::BF16];
/// Blocks have 64 elements, groups of scales 16,384, blocks of threads 4,096 (f32) or 8,192.
const LENGTHS: [usize; 15] = [
    0, 1, 2, 7, 8, 63, 64, 65, 255, 257, 4096, 8191, 8193, 16_385, 40_003,
];

/// Every code, and scales of all sizes.
struct Case {
    elements: usize,
    codes: Vec<u8>,
    scales: Vec<f32>,
    quantized: QuantizedScales,
}

impl Case {
    fn new(elements: usize) -> Self {
        let mut random = Random::new(elements as u64);
        let blocks = elements.div_ceil(BLOCK);
        let byte = |random: &mut Random| random.below(256) as u8;
        let sizes = random.normal(blocks, 2.0);
        Self {
            elements,
            codes: (0..elements.div_ceil(2))
                .map(|_| byte(&mut random))
                .collect(),
            scales: sizes.iter().map(|size| 0.05 * size.exp()).collect(),
            quantized: QuantizedScales {
                codes: (0..blocks).map(|_| byte(&mut random)).collect(),
                absmax: random.normal(blocks.div_ceil(SCALE_BLOCK), 0.1),
                offset: 0.25,
            },
        }
    }

    fn code(&self, i: usize) -> usize {
        let byte = self.codes[i / 2];
        usize::from(if i.is_multiple_of(2) {
            byte >> 4
        } else {
            byte & 15
        })
    }

    /// The value in f64, and the allowed error in f32.
    fn exact(&self, double: bool, i: usize) -> (f64, f64) {
        let u = unit(DType::F32);
        let (scale, off) = if double {
            let QuantizedScales {
                codes,
                absmax,
                offset,
            } = &self.quantized;
            let (block, offset) = (i / BLOCK, f64::from(*offset));
            let value = f64::from(DynamicMap::signed().value(codes[block]));
            let product = value * f64::from(absmax[block / SCALE_BLOCK]);
            let scale = product + offset;
            // The product and the sum, which may cancel.
            (scale, u * (product.abs() + scale.abs()))
        } else {
            (f64::from(self.scales[i / BLOCK]), 0.0)
        };
        let value = f64::from(VALUES[self.code(i)]);
        (value * scale, value.abs() * (off + u * scale.abs()))
    }

    fn run<D: Nf4>(&self, device: &D, dtype: DType, double: bool) -> Vec<f32> {
        let bytes = |bytes: &[u8]| Tensor::from_slice(device, &[bytes.len()], bytes).unwrap();
        let floats = |values: &[f32]| tensor(device, DType::F32, &[values.len()], values);
        let scale_codes = bytes(&self.quantized.codes);
        let scales = floats(if double {
            &self.quantized.absmax
        } else {
            &self.scales
        });
        // One element more than is written.
        let mut y = tensor(
            device,
            dtype,
            &[self.elements + 1],
            &vec![7.0; self.elements + 1],
        );
        let codes = bytes(&self.codes);
        let args = Dequantize {
            weight: Weight {
                codes: codes.view(),
                scales: if double {
                    Scales::Quantized {
                        codes: scale_codes.view(),
                        absmax: scales.view(),
                        offset: self.quantized.offset,
                    }
                } else {
                    Scales::Plain(scales.view())
                },
            },
            y: y.view_mut(),
            elements: self.elements,
        };
        device.nf4_dequantize(args.checked().unwrap()).unwrap();
        let mut y = y.to_f32_vec().unwrap();
        assert_eq!(y.pop(), Some(7.0));
        y
    }
}

fn compare_with_the_oracle<D: Nf4>(device: &D, dtype: DType) {
    for (length, double) in LENGTHS.iter().flat_map(|&l| [(l, false), (l, true)]) {
        let case = Case::new(length);
        for (i, got) in case.run(device, dtype, double).into_iter().enumerate() {
            let (exact, off) = case.exact(double, i);
            let off = off + rounding(dtype, exact);
            let close = (f64::from(got) - exact).abs() <= off;
            assert!(
                close,
                "{length} {double} {dtype} [{i}]: {got} {exact} ± {off}"
            );
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
    for (length, double) in LENGTHS.iter().flat_map(|&l| [(l, false), (l, true)]) {
        let case = Case::new(length);
        let expected = case.run(&Cpu::new(1).unwrap(), DType::F32, double);
        assert!(case.run(cuda(), DType::F32, double) == expected);
        for dtype in FLOATS {
            let wide = case.run(&wide, dtype, double);
            assert!(case.run(cuda(), dtype, double) == wide);
        }
    }
    let case = Case::new(100_003);
    let run = |threads| case.run(&Cpu::new(threads).unwrap(), DType::F32, true);
    assert!(run(1) == run(3));
}

#[test]
fn any_run_of_a_row_is_decoded() {
    let case = Case::new(40_003);
    let all = case.run(&Cpu::new(1).unwrap(), DType::F32, true);
    let cpu = Cpu::new(1).unwrap();
    let bytes = |bytes: &[u8]| Tensor::from_slice(&cpu, &[bytes.len()], bytes).unwrap();
    let (codes, scale_codes) = (bytes(&case.codes), bytes(&case.quantized.codes));
    let absmax = &case.quantized.absmax;
    let absmax = Tensor::from_slice(&cpu, &[absmax.len()], absmax).unwrap();
    let weight = Weight {
        codes: codes.view(),
        scales: Scales::Quantized {
            codes: scale_codes.view(),
            absmax: absmax.view(),
            offset: case.quantized.offset,
        },
    };
    let mut random = Random::new(5);
    for stride in [1, 2, 7, 64, 101, 1000] {
        let rows = HostRows::new(weight, stride).unwrap();
        for _ in 0..200 {
            let row = random.below(40_003 / stride);
            let start = random.below(stride + 1);
            let len = random.below(stride - start + 1);
            let mut scratch = vec![f32::NAN; len + 1];
            let got = rows.row(row, start..start + len, &mut scratch);
            let first = row * stride + start;
            assert_eq!(got, &all[first..first + len], "{row} of {stride}, {start}");
            assert!(scratch[len].is_nan());
        }
    }
}

#[test]
fn every_element_takes_the_nearest_value() {
    for length in LENGTHS {
        let x = Random::new(length as u64).normal(length, 0.3);
        let Quantized { codes, scales } = quantize(&Cpu::new(2).unwrap(), &x);
        assert_eq!(
            (codes.len(), scales.len()),
            (length.div_ceil(2), length.div_ceil(64))
        );
        for (block, x) in x.chunks(BLOCK).enumerate() {
            let largest = x.iter().fold(0f32, |largest, x| largest.max(x.abs()));
            assert_eq!(scales[block], largest);
            for (i, &x) in x.iter().enumerate() {
                let at = block * BLOCK + i;
                let code = codes[at / 2] >> (if at.is_multiple_of(2) { 4 } else { 0 }) & 15;
                let ratio = f64::from(x) / f64::from(largest);
                let distance = |value: f32| (f64::from(value) - ratio).abs();
                let nearest = VALUES.into_iter().map(distance).fold(f64::MAX, f64::min);
                // The division and the midpoint are rounded.
                let off = 4.0 * unit(DType::F32);
                assert!(
                    distance(VALUES[usize::from(code)]) <= nearest + off,
                    "{x} {code}"
                );
            }
        }
        if !length.is_multiple_of(2) {
            assert_eq!(
                codes.last().unwrap() & 15,
                7,
                "a zero behind the last element"
            );
        }
    }
}

#[test]
fn values_and_midpoints_are_found_and_zeros_stay_zero() {
    let cpu = Cpu::new(1).unwrap();
    // One block: all values, then the numbers just above each midpoint, then each midpoint.
    let midpoints = || VALUES.windows(2).map(|pair| (pair[0] + pair[1]) * 0.5);
    let x: Vec<f32> = VALUES
        .into_iter()
        .chain(midpoints().map(f32::next_up))
        .chain(midpoints())
        .collect();
    let Quantized { codes, scales } = quantize(&cpu, &x);
    assert_eq!(scales, [1.0]);
    let codes: Vec<u8> = codes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .collect();
    let expected: Vec<u8> = (0..16).chain(1..16).chain(0..15).collect();
    assert_eq!(codes[..46], expected);

    let zeros = quantize(&cpu, &[0f32; 65]);
    assert!(zeros.codes.iter().all(|&code| code == 0x77));
    assert_eq!(zeros.scales, [0.0, 0.0]);
    let scales = quantize_scales(&zeros.scales);
    assert_eq!((scales.absmax, scales.offset), (vec![0.0], 0.0));
    assert_eq!(scales.codes, [127, 127]);
    assert!(quantize_scales(&[]).codes.is_empty());
}

/// FNV-1a over words.
fn hash(words: impl IntoIterator<Item = u32>) -> u32 {
    words.into_iter().fold(0x811c_9dc5, |hash, word| {
        (hash ^ word).wrapping_mul(0x0100_0193)
    })
}

#[test]
fn codes_and_scales_are_bitsandbytes() {
    // bitsandbytes 0.50.2: `quantize_4bit(x, blocksize=64, quant_type="nf4")` and
    // `dequantize_4bit`, without and with `compress_statistics`.
    let mut state = 1u32;
    let mut number = |i: i32| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((state >> 8) as f32 / 16_777_216.0 - 0.5) * 2f32.powi(-(i / 64 % 5))
    };
    let x: Vec<f32> = (0..64 * 300 + 37).map(&mut number).collect();
    let cpu = Cpu::new(1).unwrap();
    let Quantized { codes, scales } = quantize(&cpu, &x);
    assert_eq!(codes[..8], [36, 124, 4, 216, 10, 37, 158, 47]);
    assert_eq!(codes[codes.len() - 4..], [19, 249, 4, 231]);
    let bits = |values: &[f32]| hash(values.iter().map(|x| x.to_bits()));
    assert_eq!(hash(codes.iter().map(|&code| code.into())), 0x5d7b_2b1c);
    assert_eq!(scales[..3], [0.494_339_3, 0.249_199_45, 0.121_701_404]);
    assert_eq!(bits(&scales), 0x9296_0c9f);

    let quantized = quantize_scales(&scales);
    assert_eq!(
        hash(quantized.codes.iter().map(|&code| code.into())),
        0xae23_fa43
    );
    let close = |got: f32, expected: f32| assert!((got - expected).abs() <= 1e-7, "{got}");
    // Its mean is a sum in f32.
    close(quantized.offset, 0.191_647_87);
    close(quantized.absmax[0], 0.308_336_68);
    close(quantized.absmax[1], 0.307_464_54);

    fn check<D: Nf4>(device: &D, case: &Case, bits: &dyn Fn(&[f32]) -> u32) {
        assert_eq!(bits(&case.run(device, DType::F32, false)), 0x6a72_f15f);
        assert_eq!(bits(&case.run(device, DType::F32, true)), 0xb520_c286);
    }
    let case = Case {
        elements: x.len(),
        codes,
        scales,
        quantized: QuantizedScales {
            absmax: vec![0.308_336_68, 0.307_464_54],
            offset: 0.191_647_87,
            ..quantized
        },
    };
    check(&cpu, &case, &bits);
    check(cuda(), &case, &bits);
}

#[test]
fn weights_of_16_bits_are_quantised_as_their_values() {
    let x = Random::new(3).normal(1000, 1.0);
    let x: Vec<bf16> = x.into_iter().map(bf16::from_f32).collect();
    let widened: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
    let run = |threads| quantize(&Cpu::new(threads).unwrap(), &x);
    assert_eq!(run(1), quantize(&Cpu::new(1).unwrap(), &widened));
    let x = Random::new(4).normal(100_003, 1.0);
    let run = |threads| quantize(&Cpu::new(threads).unwrap(), &x);
    assert!(run(1) == run(3));
}

#[test]
fn what_is_not_finite_stays_in_its_block() {
    check_what_is_not_finite(&Cpu::new(1).unwrap());
    check_what_is_not_finite(cuda());
}

fn check_what_is_not_finite<D: Nf4>(device: &D) {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = Random::new(2).normal(200, 1.0);
        x[70] = bad;
        let Quantized { codes, scales } = quantize(&Cpu::new(1).unwrap(), &x);
        let case = Case {
            elements: 200,
            codes,
            quantized: quantize_scales(&scales),
            scales,
        };
        for (i, y) in case.run(device, DType::F32, false).iter().enumerate() {
            assert_eq!(y.is_finite(), i / BLOCK != 1, "{i}");
        }
        let of_all = case.run(device, DType::F32, true);
        assert!(of_all.iter().all(|y| !y.is_finite()));
    }
}

#[test]
fn arguments_that_do_not_fit_are_refused() {
    let cpu = Cpu::new(1).unwrap();
    let zeros = |dtype, len: usize| Tensor::zeros(&cpu, dtype, &[len]).unwrap();
    let names = ["codes", "scales", "scales.codes", "scales.absmax", "y"];
    for (wrong, of_type) in names.iter().flat_map(|&n| [(n, false), (n, true)]) {
        let make = |name, dtype, len: usize| match (name == wrong, of_type) {
            (true, true) => zeros(DType::I32, len),
            (true, false) => zeros(dtype, len - 1),
            (false, _) => zeros(dtype, len),
        };
        // Two groups of scales, the last of one block of one element.
        let elements = BLOCK * SCALE_BLOCK + 1;
        let codes = make("codes", DType::U8, elements.div_ceil(2));
        let plain = make("scales", DType::F32, SCALE_BLOCK + 1);
        let scale_codes = make("scales.codes", DType::U8, SCALE_BLOCK + 1);
        let absmax = make("scales.absmax", DType::F32, 2);
        for double in [false, true] {
            let scales = if double {
                Scales::Quantized {
                    codes: scale_codes.view(),
                    absmax: absmax.view(),
                    offset: 0.0,
                }
            } else {
                Scales::Plain(plain.view())
            };
            let mut y = make("y", DType::F32, elements);
            let args = Dequantize {
                weight: Weight {
                    codes: codes.view(),
                    scales,
                },
                y: y.view_mut(),
                elements,
            };
            let concerned = match wrong {
                "scales" => !double,
                "scales.codes" | "scales.absmax" => double,
                _ => true,
            };
            match args.check() {
                Ok(()) => assert!(!concerned, "{wrong}"),
                Err(error) => {
                    assert!(concerned && error.to_string().contains(&format!("`{wrong}`")));
                }
            }
        }
    }
    let codes = zeros(DType::U8, 1);
    let mut y = zeros(DType::F16, 1);
    let scales = zeros(DType::F32, 1);
    let args = Dequantize {
        weight: Weight {
            codes: codes.view(),
            scales: Scales::Plain(scales.view()),
        },
        y: y.view_mut(),
        elements: 1,
    };
    let error = args.checked().unwrap_err();
    assert!(matches!(error, KernelError::DType { operand: "y", .. }));
}
