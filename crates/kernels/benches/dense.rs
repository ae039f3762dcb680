//! Times linear layers with and without adapter, the fused loss and attention at SmolLM2-135M's
//! sizes.
//!
//! Run `cargo bench -p tightrope-kernels --bench dense`; its elements are floating-point
//! operations.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::{hint::black_box, time::Duration};
use tightrope_device::{Cpu, DType, Tensor};
use tightrope_kernels::{
    Check,
    attention::{self, Attention, Config, Range, Ranges},
    linear::{self, BackwardInput, BackwardWeights, Linear, LoraForward, Shape},
    linear_cross_entropy::{self as loss, LinearCrossEntropy},
    product::Elements,
};
use tightrope_testkit::Random;

fn random(cpu: &Cpu, shape: &[usize]) -> Tensor<Cpu> {
    let values = Random::new(1).normal(shape.iter().product(), 0.05);
    Tensor::from_slice(cpu, shape, &values).unwrap()
}

fn zeros(cpu: &Cpu, shape: &[usize]) -> Tensor<Cpu> {
    Tensor::zeros(cpu, DType::F32, shape).unwrap()
}

fn linear(criterion: &mut Criterion) {
    let cpu = &Cpu::new(0).unwrap();
    let mut group = criterion.benchmark_group("linear");
    for (tokens, inputs, outputs) in [(1, 576, 1536), (512, 576, 1536), (2048, 1536, 576)] {
        let shape = Shape {
            tokens,
            inputs,
            outputs,
        };
        let (x, dy) = (
            random(cpu, &[tokens, inputs]),
            random(cpu, &[tokens, outputs]),
        );
        let w = random(cpu, &[outputs, inputs]);
        let (mut y, mut dx) = (
            zeros(cpu, &[tokens, outputs]),
            zeros(cpu, &[tokens, inputs]),
        );
        let mut dw = zeros(cpu, &[outputs, inputs]);
        group.throughput(Throughput::Elements((2 * tokens * inputs * outputs) as u64));
        for rank in [0, 8, 16, 64] {
            let (a, b) = (random(cpu, &[rank, inputs]), random(cpu, &[outputs, rank]));
            let mut xa = zeros(cpu, &[tokens, rank]);
            group.bench_function(
                format!("forward {tokens}x{inputs}->{outputs} r{rank}"),
                |bencher| {
                    bencher.iter(|| {
                        let lora = (rank > 0).then_some(LoraForward {
                            a: a.view(),
                            b: b.view(),
                            scale: 2.0,
                            dropout: None,
                            xa: xa.view_mut(),
                        });
                        let args = linear::Forward {
                            factor: 1.0,
                            x: x.view(),
                            weight: Elements::Float(w.view()),
                            bias: None,
                            lora,
                            y: y.view_mut(),
                            shape,
                        };
                        cpu.linear_forward(args.checked().unwrap()).unwrap();
                    });
                },
            );
        }
        group.bench_function(
            format!("backward input {tokens}x{inputs}->{outputs}"),
            |bencher| {
                bencher.iter(|| {
                    let args = BackwardInput {
                        factor: 1.0,
                        dy: dy.view(),
                        weight: Elements::Float(w.view()),
                        lora: None,
                        dx: Some(dx.view_mut()),
                        accumulate: false,
                        shape,
                    };
                    cpu.linear_backward_input(args.checked().unwrap()).unwrap();
                });
            },
        );
        group.bench_function(
            format!("backward weights {tokens}x{inputs}->{outputs}"),
            |bencher| {
                bencher.iter(|| {
                    let args = BackwardWeights {
                        factor: 1.0,
                        x: x.view(),
                        dy: dy.view(),
                        dweight: Some(dw.view_mut()),
                        dbias: None,
                        lora: None,
                        shape,
                    };
                    cpu.linear_backward_weights(args.checked().unwrap())
                        .unwrap();
                });
            },
        );
    }
}

fn linear_cross_entropy(criterion: &mut Criterion) {
    let cpu = &Cpu::new(0).unwrap();
    let mut group = criterion.benchmark_group("linear_cross_entropy");
    let (tokens, hidden, vocabulary) = (256, 576, 49_152);
    let (x, weight) = (
        random(cpu, &[tokens, hidden]),
        random(cpu, &[vocabulary, hidden]),
    );
    let targets: Vec<i32> = (0..tokens as i32).map(|t| t * 191).collect();
    let targets = Tensor::from_slice(cpu, &[tokens], &targets).unwrap();
    let weights = Tensor::from_slice(cpu, &[tokens], &vec![1.0f32; tokens]).unwrap();
    let (mut losses, mut dx) = (zeros(cpu, &[tokens]), zeros(cpu, &[tokens, hidden]));
    for softcap in [None, Some(30.0)] {
        group.throughput(Throughput::Elements(
            (4 * tokens * hidden * vocabulary) as u64,
        ));
        let name = format!("frozen {tokens}x{hidden}x{vocabulary} softcap {softcap:?}");
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let args = loss::ForwardBackward {
                    forward: loss::Forward {
                        x: x.view(),
                        weight: weight.view(),
                        lora: None,
                        targets: targets.view(),
                        logit_scale: 1.0,
                        softcap,
                        losses: losses.view_mut(),
                        tokens,
                        hidden,
                        vocabulary,
                    },
                    weights: weights.view(),
                    dx: dx.view_mut(),
                    dweight: None,
                    rows: None,
                    dlora: None,
                };
                let args = args.checked().unwrap();
                cpu.linear_cross_entropy_forward_backward(args).unwrap();
            });
        });
    }
}

fn attention(criterion: &mut Criterion) {
    let cpu = &Cpu::new(0).unwrap();
    let mut group = criterion.benchmark_group("attention");
    let (heads, kv_heads, head_dim) = (9, 3, 64);
    for (count, length) in [(64, 16), (32, 32), (8, 128), (1, 1024), (1, 4096)] {
        let tokens = count * length;
        let range = |index: usize| Range::rows((index * length) as u32, length as u32);
        let mut ranges = Ranges::empty(cpu).unwrap();
        ranges.set((0..count).map(range)).unwrap();
        let config = Config {
            ranges: &ranges,
            heads,
            kv_heads,
            head_dim,
            scale: 0.125,
            window: None,
            softcap: None,
        };
        let query = [tokens, heads, head_dim];
        let key = [tokens, kv_heads, head_dim];
        let (q, dy, k, v) = (
            random(cpu, &query),
            random(cpu, &query),
            random(cpu, &key),
            random(cpu, &key),
        );
        let (mut y, mut dq, mut dk, mut dv) = (
            zeros(cpu, &query),
            zeros(cpu, &query),
            zeros(cpu, &key),
            zeros(cpu, &key),
        );
        let (mut lse, mut delta) = (zeros(cpu, &query[..2]), zeros(cpu, &query[..2]));
        // Counts two products forward and five backward, over the pairs that causality leaves.
        let product = (heads * head_dim * count * length * (length + 1)) as u64;
        group.throughput(Throughput::Elements(2 * product));
        group.bench_function(format!("forward {count}x{length}"), |bencher| {
            bencher.iter(|| {
                let args = attention::Forward {
                    q: q.view(),
                    k: k.view(),
                    v: v.view(),
                    y: y.view_mut(),
                    lse: lse.view_mut(),
                    config,
                };
                cpu.attention_forward(args.checked().unwrap()).unwrap();
            });
        });
        group.throughput(Throughput::Elements(5 * product));
        group.bench_function(format!("backward {count}x{length}"), |bencher| {
            bencher.iter(|| {
                let args = attention::Backward {
                    dy: dy.view(),
                    y: y.view(),
                    lse: lse.view(),
                    q: q.view(),
                    k: k.view(),
                    v: v.view(),
                    delta: delta.view_mut(),
                    dq: dq.view_mut(),
                    dk: dk.view_mut(),
                    dv: dv.view_mut(),
                    config,
                };
                cpu.attention_backward(args.checked().unwrap()).unwrap();
            });
        });
        black_box(&y);
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400));
    targets = linear, linear_cross_entropy, attention
}
criterion_main!(benches);
