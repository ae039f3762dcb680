//! Times row operations at SmolLM2-135M's sizes, on one thread and on all, in nanoseconds per
//! element.
//!
//! Run `cargo bench -p tightrope-kernels --bench sparse`. The copy moves 8 bytes per element and
//! shows what the memory allows at that moment.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::{hint::black_box, time::Duration};
use tightrope_device::{Cpu, DType, Tensor};
use tightrope_kernels::{
    Check,
    embedding::{self, Embedding},
    glu::{self, Activation, Glu},
    qk_norm_rope::{self, HeadsBackward, HeadsForward, QkNormRope},
    rms_norm::{self, RmsNorm},
};
use tightrope_testkit::Random;

const TOKENS: usize = 2048;
const HIDDEN: usize = 576;
const INTERMEDIATE: usize = 1536;
const VOCABULARY: usize = 49_152;

fn random(cpu: &Cpu, shape: &[usize]) -> Tensor<Cpu> {
    let values = Random::new(1).normal(shape.iter().product(), 1.0);
    Tensor::from_slice(cpu, shape, &values).unwrap()
}

fn zeros(cpu: &Cpu, shape: &[usize]) -> Tensor<Cpu> {
    Tensor::zeros(cpu, DType::F32, shape).unwrap()
}

fn devices() -> [Cpu; 2] {
    [1, 0].map(|threads| Cpu::new(threads).unwrap())
}

fn copy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("copy");
    let (source, mut target) = (
        vec![1f32; TOKENS * INTERMEDIATE],
        vec![0f32; TOKENS * INTERMEDIATE],
    );
    group.throughput(Throughput::Elements(source.len() as u64));
    group.bench_function("1", |b| {
        b.iter(|| target.copy_from_slice(black_box(&source)))
    });
}

fn glu(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("glu");
    for cpu in devices() {
        let elements = TOKENS * INTERMEDIATE;
        group.throughput(Throughput::Elements(elements as u64));
        let (mut gate, mut up) = (random(&cpu, &[elements]), random(&cpu, &[elements]));
        let mut y = zeros(&cpu, &[elements]);
        for activation in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
            group.bench_function(format!("{activation:?} forward, {}", cpu.threads()), |b| {
                b.iter(|| {
                    let args = glu::Forward {
                        gate: gate.view(),
                        up: up.view(),
                        y: y.view_mut(),
                        activation,
                        elements,
                    };
                    cpu.glu_forward(args.checked().unwrap()).unwrap();
                });
            });
        }
        // The operation works in place, so the numbers drift; they stay finite, and the work does
        // not depend on them.
        for activation in [Activation::Silu, Activation::GeluTanh, Activation::GeluErf] {
            gate = random(&cpu, &[elements]);
            up = random(&cpu, &[elements]);
            let mut dy = random(&cpu, &[elements]);
            group.bench_function(format!("{activation:?} backward, {}", cpu.threads()), |b| {
                b.iter(|| {
                    let args = glu::Backward {
                        gate: gate.view_mut(),
                        up: up.view_mut(),
                        dy: dy.view_mut(),
                        activation,
                        elements,
                    };
                    cpu.glu_backward(args.checked().unwrap()).unwrap();
                });
            });
        }
    }
}

fn rms_norm(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rms_norm");
    for cpu in devices() {
        // Covers hidden rows, and a norm for each head.
        for (rows, dim) in [(TOKENS, HIDDEN), (TOKENS * 9, 64)] {
            group.throughput(Throughput::Elements((rows * dim) as u64));
            let (x, add) = (random(&cpu, &[rows, dim]), random(&cpu, &[rows, dim]));
            let weight = random(&cpu, &[dim]);
            let (mut sum, mut y) = (zeros(&cpu, &[rows, dim]), zeros(&cpu, &[rows, dim]));
            let (mut rstd, mut dweight) = (zeros(&cpu, &[rows]), zeros(&cpu, &[dim]));
            for fused in [false, true] {
                let name = format!(
                    "forward {dim}{}, {}",
                    if fused { " + residual" } else { "" },
                    cpu.threads()
                );
                group.bench_function(name, |b| {
                    b.iter(|| {
                        let args = rms_norm::Forward {
                            x: x.view(),
                            residual: fused.then_some(rms_norm::Residual {
                                add: add.view(),
                                sum: sum.view_mut(),
                            }),
                            weight: weight.view(),
                            plus_one: false,
                            eps: 1e-5,
                            y: y.view_mut(),
                            rstd: rstd.view_mut(),
                            rows,
                            dim,
                        };
                        cpu.rms_norm_forward(args.checked().unwrap()).unwrap();
                    });
                });
            }
            for frozen in [true, false] {
                let name = format!(
                    "backward {dim}{}, {}",
                    if frozen { " frozen" } else { "" },
                    cpu.threads()
                );
                group.bench_function(name, |b| {
                    b.iter(|| {
                        let args = rms_norm::Backward {
                            dy: add.view(),
                            x: x.view(),
                            rstd: rstd.view(),
                            weight: weight.view(),
                            plus_one: false,
                            dx: y.view_mut(),
                            accumulate: false,
                            dweight: (!frozen).then_some(dweight.view_mut()),
                            rows,
                            dim,
                        };
                        cpu.rms_norm_backward(args.checked().unwrap()).unwrap();
                    });
                });
            }
        }
    }
}

/// Uses the heads of Qwen3-0.6B.
fn qk_norm_rope(criterion: &mut Criterion) {
    const HEADS: [usize; 2] = [16, 8];
    const DIM: usize = 128;
    let tokens = TOKENS / 4;
    let mut group = criterion.benchmark_group("qk_norm_rope");
    let elements = tokens * HEADS.iter().sum::<usize>() * DIM;
    group.throughput(Throughput::Elements(elements as u64));
    for cpu in devices() {
        let [q, k] = HEADS.map(|heads| random(&cpu, &[tokens, heads, DIM]));
        let [mut q_y, mut k_y] = HEADS.map(|heads| random(&cpu, &[tokens, heads, DIM]));
        let [mut q_rstd, mut k_rstd] = HEADS.map(|heads| zeros(&cpu, &[tokens, heads]));
        let [mut q_dweight, mut k_dweight] = HEADS.map(|_| zeros(&cpu, &[DIM]));
        let weight = random(&cpu, &[DIM]);
        let [cos, sin] = [(); 2].map(|()| zeros(&cpu, &[tokens, DIM / 2]));
        group.bench_function(format!("forward, {}", cpu.threads()), |b| {
            b.iter(|| {
                let args = qk_norm_rope::Forward {
                    q: HeadsForward {
                        x: q.view(),
                        weight: weight.view(),
                        y: q_y.view_mut(),
                        rstd: q_rstd.view_mut(),
                        heads: HEADS[0],
                    },
                    k: HeadsForward {
                        x: k.view(),
                        weight: weight.view(),
                        y: k_y.view_mut(),
                        rstd: k_rstd.view_mut(),
                        heads: HEADS[1],
                    },
                    plus_one: false,
                    eps: 1e-5,
                    cos: cos.view(),
                    sin: sin.view(),
                    tokens,
                    head_dim: DIM,
                    rotary_dim: DIM,
                };
                cpu.qk_norm_rope_forward(args.checked().unwrap()).unwrap();
            });
        });
        // The operation works in place: the numbers become zeros, and the work does not depend on
        // them.
        group.bench_function(format!("backward, {}", cpu.threads()), |b| {
            b.iter(|| {
                let args = qk_norm_rope::Backward {
                    q: HeadsBackward {
                        dx: q_y.view_mut(),
                        x: q.view(),
                        rstd: q_rstd.view(),
                        weight: weight.view(),
                        dweight: Some(q_dweight.view_mut()),
                        heads: HEADS[0],
                    },
                    k: HeadsBackward {
                        dx: k_y.view_mut(),
                        x: k.view(),
                        rstd: k_rstd.view(),
                        weight: weight.view(),
                        dweight: Some(k_dweight.view_mut()),
                        heads: HEADS[1],
                    },
                    plus_one: false,
                    cos: cos.view(),
                    sin: sin.view(),
                    tokens,
                    head_dim: DIM,
                    rotary_dim: DIM,
                };
                cpu.qk_norm_rope_backward(args.checked().unwrap()).unwrap();
            });
        });
    }
}

fn embedding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("embedding");
    group.throughput(Throughput::Elements((TOKENS * HIDDEN) as u64));
    for cpu in devices() {
        let mut pick = Random::new(3);
        // The square favours small ids, as natural token frequencies do.
        let ids: Vec<u32> = (0..TOKENS)
            .map(|_| (pick.uniform().powi(2) * VOCABULARY as f64) as u32)
            .collect();
        let ids = Tensor::from_slice(&cpu, &[TOKENS], &ids).unwrap();
        let mut table = zeros(&cpu, &[VOCABULARY, HIDDEN]);
        let mut y = random(&cpu, &[TOKENS, HIDDEN]);
        group.bench_function(format!("backward, {}", cpu.threads()), |b| {
            b.iter(|| {
                let args = embedding::Backward {
                    ids: ids.view(),
                    dy: y.view(),
                    scale: 1.0,
                    dtable: table.view_mut(),
                    tokens: TOKENS,
                    vocabulary: VOCABULARY,
                    hidden: HIDDEN,
                };
                cpu.embedding_backward(args.checked().unwrap()).unwrap();
            });
        });
        group.bench_function(format!("forward, {}", cpu.threads()), |b| {
            b.iter(|| {
                let args = embedding::Forward {
                    ids: ids.view(),
                    table: table.view(),
                    scale: 1.0,
                    y: y.view_mut(),
                    tokens: TOKENS,
                    vocabulary: VOCABULARY,
                    hidden: HIDDEN,
                };
                cpu.embedding_forward(args.checked().unwrap()).unwrap();
            });
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
    targets = copy, glu, rms_norm, qk_norm_rope, embedding
}
criterion_main!(benches);
