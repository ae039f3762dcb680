//! A weight in NF4 equals its decoded matrix.

use super::super::*;
use super::{
    ACTIVATIONS, SHAPES,
    case::{Case, NAMES},
    cpu,
};
use crate::nf4::{self, Dequantize, Nf4, Quantized, QuantizedScales, Scales};
use tightrope_device::{IndexWidth, Tensor};
use tightrope_testkit::{
    cpus, cuda_with_small_limits, finite_difference, oracle::linear as oracle, widen,
};

/// A weight in NF4 on the host.
#[derive(Clone)]
pub(super) struct Stored {
    codes: Vec<u8>,
    scales: Vec<f32>,
    quantized: Option<QuantizedScales>,
}

/// A weight in NF4 on a device.
pub(super) struct OnDevice<D: Device> {
    codes: Tensor<D>,
    scales: Tensor<D>,
    scale_codes: Option<(Tensor<D>, f32)>,
}

impl Stored {
    pub(super) fn on<D: Device>(&self, device: &D) -> OnDevice<D> {
        let bytes = |bytes: &[u8]| Tensor::from_slice(device, &[bytes.len()], bytes).unwrap();
        let floats = |values: &[f32]| Tensor::from_slice(device, &[values.len()], values).unwrap();
        OnDevice {
            codes: bytes(&self.codes),
            scales: match &self.quantized {
                Some(quantized) => floats(&quantized.absmax),
                None => floats(&self.scales),
            },
            scale_codes: self
                .quantized
                .as_ref()
                .map(|quantized| (bytes(&quantized.codes), quantized.offset)),
        }
    }
}

impl<D: Device> OnDevice<D> {
    pub(super) fn weight(&self) -> nf4::Weight<'_, D> {
        nf4::Weight {
            codes: self.codes.view(),
            scales: match &self.scale_codes {
                Some((codes, offset)) => Scales::Quantized {
                    codes: codes.view(),
                    absmax: self.scales.view(),
                    offset: *offset,
                },
                None => Scales::Plain(self.scales.view()),
            },
        }
    }
}

/// The case with its weight in NF4, and the same case with the decoded f32 matrix.
fn cases(
    dtype: DType,
    shape: (usize, usize, usize, usize),
    probability: f32,
    double: bool,
) -> [Case; 2] {
    let mut case = Case::of((dtype, DType::F32), shape, probability);
    let Quantized { codes, scales } = nf4::quantize(&cpu(1), &case.weight);
    let stored = Stored {
        codes,
        quantized: double.then(|| nf4::quantize_scales(&scales)),
        scales,
    };
    let elements = case.weight.len();
    let mut y = Tensor::zeros(&cpu(1), DType::F32, &[elements]).unwrap();
    let on_cpu = stored.on(&cpu(1));
    let args = Dequantize {
        weight: on_cpu.weight(),
        y: y.view_mut(),
        elements,
    };
    cpu(1).nf4_dequantize(args.checked().unwrap()).unwrap();
    case.weight = y.to_vec().unwrap();
    let float = case.clone();
    case.nf4 = Some(stored);
    [case, float]
}

/// Compares with the oracle, and bit by bit with the dequantised matrix.
fn compare<D: Linear>(device: &D, types: &[DType]) {
    for (i, shape) in SHAPES.into_iter().enumerate() {
        for &dtype in types {
            for option in [0, 3] {
                let probability = if option & 1 == 0 { 0.0 } else { 0.3 };
                let mut cases = cases(dtype, shape, probability, (i + option) % 2 == 0);
                for case in &mut cases {
                    case.accumulate = option & 2 != 0;
                }
                let [nf4, float] = cases.each_ref().map(|case| case.run(device));
                cases[0].compare(&nf4);
                for (name, (nf4, float)) in NAMES.iter().zip(nf4.0.iter().zip(&float.0)) {
                    assert!(nf4 == float, "{shape:?} {dtype}: {name}");
                }
            }
        }
    }
}

#[test]
fn the_cpu_multiplies_what_the_codes_stand_for() {
    for cpu in cpus(2) {
        compare(&cpu, &ACTIVATIONS);
    }
}

#[test]
fn cuda_multiplies_what_the_codes_stand_for_in_every_type() {
    compare(cuda_with_small_limits(), &ACTIVATIONS);
}

#[test]
fn neither_threads_nor_wide_offsets_change_a_bit() {
    let wide = cuda_with_small_limits().forcing(IndexWidth::Wide);
    for (shape, double) in SHAPES.iter().flat_map(|&s| [(s, false), (s, true)]) {
        let [case, _] = cases(DType::F32, shape, 0.3, double);
        assert!(case.run(&cpu(1)) == case.run(&cpu(3)), "{shape:?}");
        let [case, _] = cases(DType::BF16, shape, 0.3, double);
        assert!(
            case.run(cuda_with_small_limits()) == case.run(&wide),
            "{shape:?}"
        );
    }
}

#[test]
fn the_gradient_is_that_of_the_layer() {
    fn compare<D: Linear>(device: &D) {
        let shape = (5, 37, 13, 3);
        let (tokens, inputs, outputs, _) = shape;
        let [case, _] = cases(DType::F32, shape, 0.3, true);
        let [x, dy, weight, a, b] =
            [&case.x, &case.dy, &case.weight, &case.a, &case.b].map(|values| widen(values));
        let weight: Vec<f64> = weight.iter().map(|w| f64::from(case.factor) * w).collect();
        let mask = case.mask();
        let lora = oracle::Lora {
            a: &a,
            b: &b,
            scale: super::SCALE.into(),
            mask: &mask,
        };
        // The layer is linear, so the differences are exact except for rounding.
        let numeric = finite_difference(&x, |x| {
            let y = oracle::forward(x, &weight, None, Some(lora), (tokens, inputs, outputs));
            y.iter().zip(&dy).map(|(y, dy)| y * dy).sum()
        });
        let got = &case.run(device).0[1];
        for (got, numeric) in got.iter().zip(numeric) {
            let close = (f64::from(*got) - numeric).abs() <= 1e-4;
            assert!(close, "{got} {numeric}");
        }
    }
    compare(&cpu(1));
    compare(cuda_with_small_limits());
}

#[test]
fn a_weight_that_is_too_short_is_refused() {
    let cpu = cpu(1);
    let zeros = |dtype, shape: &[usize]| Tensor::zeros(&cpu, dtype, shape).unwrap();
    // 35 · 9 elements are five blocks, the last of 59.
    let shape = Shape {
        tokens: 2,
        inputs: 35,
        outputs: 9,
    };
    for (codes, scales) in [(158, 5), (157, 5), (158, 4)] {
        let (codes, scales) = (zeros(DType::U8, &[codes]), zeros(DType::F32, &[scales]));
        let weight = Elements::Nf4(nf4::Weight {
            codes: codes.view(),
            scales: Scales::Plain(scales.view()),
        });
        let fits = codes.len() == 158 && scales.len() == 5;
        let mut y = zeros(DType::F32, &[2, 9]);
        let x = zeros(DType::F32, &[2, 35]);
        let forward = Forward {
            factor: 1.0,
            x: x.view(),
            weight,
            bias: None,
            lora: None,
            y: y.view_mut(),
            shape,
        };
        assert_eq!(forward.check().is_ok(), fits);
        let dy = zeros(DType::F32, &[2, 9]);
        let mut dx = zeros(DType::F32, &[2, 35]);
        let backward = BackwardInput {
            factor: 1.0,
            dy: dy.view(),
            weight,
            lora: None,
            dx: Some(dx.view_mut()),
            accumulate: false,
            shape,
        };
        assert_eq!(backward.check().is_ok(), fits);
    }
}
