//! Times work on parameters that does not depend on tokens: updates, the norm of gradients and
//! weights in few bits, on one thread and on all.
//!
//! `cargo bench -p tightrope-kernels --bench parameters`

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::time::Duration;
use tightrope_device::{Cpu, DType, Tensor};
use tightrope_kernels::{
    Check,
    absmax::{self, Absmax},
    adamw::{self, AdamW, Hyperparameters},
    adamw_8bit::{self, AdamW8bit, Moment},
    nf4::{self, Nf4, Scales},
    sum_of_squares::{Sum, SumOfSquares},
};
use tightrope_testkit::Random;

const ELEMENTS: usize = 4 << 20;
/// Number of inputs of a layer whose weight is stored in 8 bits.
const COLUMNS: usize = 1024;

fn normal() -> Vec<f32> {
    Random::new(1).normal(ELEMENTS, 1.0)
}

fn zeros(cpu: &Cpu, dtype: DType, elements: usize) -> Tensor<Cpu> {
    Tensor::zeros(cpu, dtype, &[elements]).unwrap()
}

fn bytes(cpu: &Cpu, values: &[u8]) -> Tensor<Cpu> {
    Tensor::from_slice(cpu, &[values.len()], values).unwrap()
}

fn floats(cpu: &Cpu, values: &[f32]) -> Tensor<Cpu> {
    Tensor::from_slice(cpu, &[values.len()], values).unwrap()
}

fn devices() -> [Cpu; 2] {
    [1, 0].map(|threads| Cpu::new(threads).unwrap())
}

fn hyperparameters() -> Hyperparameters {
    Hyperparameters {
        learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        weight_decay: 0.01,
        step: 7,
        gradient_scale: 1.0,
    }
}

fn gradients(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("gradients");
    group.throughput(Throughput::Elements(ELEMENTS as u64));
    for cpu in devices() {
        let gradient = floats(&cpu, &normal());
        let [mut weight, mut m, mut v] = [(); 3].map(|()| zeros(&cpu, DType::F32, ELEMENTS));
        group.bench_function(format!("adamw, {}", cpu.threads()), |b| {
            b.iter(|| {
                let args = adamw::Update {
                    weight: weight.view_mut(),
                    gradient: gradient.view(),
                    m: m.view_mut(),
                    v: v.view_mut(),
                    hyperparameters: hyperparameters(),
                };
                cpu.adamw_update(args.checked().unwrap()).unwrap();
            });
        });
        let [mut m_codes, mut v_codes] = [(); 2].map(|()| zeros(&cpu, DType::U8, ELEMENTS));
        let blocks = ELEMENTS / adamw_8bit::BLOCK;
        let [mut m_absmax, mut v_absmax] = [(); 2].map(|()| zeros(&cpu, DType::F32, blocks));
        group.bench_function(format!("adamw_8bit, {}", cpu.threads()), |b| {
            b.iter(|| {
                let args = adamw_8bit::Update {
                    weight: weight.view_mut(),
                    gradient: gradient.view(),
                    m: Moment {
                        codes: m_codes.view_mut(),
                        absmax: m_absmax.view_mut(),
                    },
                    v: Moment {
                        codes: v_codes.view_mut(),
                        absmax: v_absmax.view_mut(),
                    },
                    hyperparameters: hyperparameters(),
                };
                cpu.adamw_8bit_update(args.checked().unwrap()).unwrap();
            });
        });
        group.bench_function(format!("sum_of_squares, {}", cpu.threads()), |b| {
            b.iter(|| {
                let args = Sum {
                    tensors: &[gradient.view()],
                };
                cpu.sum_of_squares(args.checked().unwrap()).unwrap()
            });
        });
    }
}

fn weights(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("weights");
    group.throughput(Throughput::Elements(ELEMENTS as u64));
    let x = normal();
    for cpu in devices() {
        let threads = cpu.threads();
        let mut y = zeros(&cpu, DType::F32, ELEMENTS);

        let stored = nf4::quantize(&cpu, &x);
        let of_scales = nf4::quantize_scales(&stored.scales);
        let (codes, scales) = (bytes(&cpu, &stored.codes), floats(&cpu, &stored.scales));
        let scale_codes = bytes(&cpu, &of_scales.codes);
        let scale_absmax = floats(&cpu, &of_scales.absmax);
        let double = Scales::Quantized {
            codes: scale_codes.view(),
            absmax: scale_absmax.view(),
            offset: of_scales.offset,
        };
        for (name, scales) in [
            ("nf4", Scales::Plain(scales.view())),
            ("nf4 double", double),
        ] {
            group.bench_function(format!("{name} dequantize, {threads}"), |b| {
                b.iter(|| {
                    let codes = &codes;
                    let args = nf4::Dequantize {
                        weight: nf4::Weight {
                            codes: codes.view(),
                            scales,
                        },
                        y: y.view_mut(),
                        elements: ELEMENTS,
                    };
                    cpu.nf4_dequantize(args.checked().unwrap()).unwrap();
                });
            });
        }
        group.bench_function(format!("nf4 quantize, {threads}"), |b| {
            b.iter(|| nf4::quantize(&cpu, &x));
        });

        let stored = absmax::quantize(&cpu, &x, COLUMNS);
        let (codes, scales) = (bytes(&cpu, &stored.codes), floats(&cpu, &stored.absmax));
        group.bench_function(format!("absmax dequantize, {threads}"), |b| {
            b.iter(|| {
                let args = absmax::Dequantize {
                    codes: codes.view(),
                    absmax: scales.view(),
                    y: y.view_mut(),
                    rows: ELEMENTS / COLUMNS,
                    columns: COLUMNS,
                };
                cpu.absmax_dequantize(args.checked().unwrap()).unwrap();
            });
        });
        group.bench_function(format!("absmax quantize, {threads}"), |b| {
            b.iter(|| absmax::quantize(&cpu, &x, COLUMNS));
        });
    }
}

fn short() -> Criterion {
    Criterion::default()
        .sample_size(15)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
}

criterion_group! {
    name = benches;
    config = short();
    targets = gradients, weights
}
criterion_main!(benches);
