//! Times the rotation, a copy of the same bytes and the tables, on one thread and on all.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::{hint::black_box, time::Duration};
use tightrope_device::{Cpu, DType, Tensor};
use tightrope_kernels::{
    Check,
    rope::{Direction, Heads, Pairing, Rope, Rotate},
};
use tightrope_rope::{RopeConfig, RotaryEmbedding};

/// SmolLM2-135M has nine heads of queries and three of keys.
const Q_HEADS: usize = 9;
const K_HEADS: usize = 3;
const HEAD_DIM: usize = 64;

fn rotation(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rope");
    group.warm_up_time(Duration::from_millis(300));
    group
        .measurement_time(Duration::from_millis(800))
        .sample_size(20);
    let embedding = RotaryEmbedding::new(&RopeConfig::new(1e4, HEAD_DIM, 8192)).unwrap();
    for tokens in [16, 2048] {
        let elements = tokens * (Q_HEADS + K_HEADS) * HEAD_DIM;
        group.throughput(Throughput::Elements(elements as u64));
        let source = vec![1f32; elements];
        let mut copy = source.clone();
        group.bench_function(BenchmarkId::new("copy", tokens), |b| {
            b.iter(|| copy.copy_from_slice(black_box(&source)));
        });
        let pairs = HEAD_DIM / 2;
        let (mut cos, mut sin) = (vec![0f32; tokens * pairs], vec![0f32; tokens * pairs]);
        group.bench_function(BenchmarkId::new("fill_tables", tokens), |b| {
            b.iter(|| {
                embedding
                    .fill_tables([(0, tokens)].into_iter(), &mut cos, &mut sin)
                    .unwrap()
            });
        });
        for threads in [1, 0] {
            let cpu = Cpu::new(threads).unwrap();
            let table =
                |values: &[f32]| Tensor::from_slice(&cpu, &[tokens, pairs], values).unwrap();
            let (cos, sin) = (table(&cos), table(&sin));
            let zeros =
                |heads| Tensor::zeros(&cpu, DType::F32, &[tokens, heads * HEAD_DIM]).unwrap();
            let (mut q, mut k) = (zeros(Q_HEADS), zeros(K_HEADS));
            for pairing in [Pairing::Halves, Pairing::Interleaved] {
                let name = format!("{pairing:?}, {} threads", cpu.threads());
                group.bench_function(BenchmarkId::new(name, tokens), |b| {
                    b.iter(|| {
                        let args = Rotate {
                            q: Heads {
                                tensor: q.view_mut(),
                                heads: Q_HEADS,
                                row_stride: Q_HEADS * HEAD_DIM,
                            },
                            k: Heads {
                                tensor: k.view_mut(),
                                heads: K_HEADS,
                                row_stride: K_HEADS * HEAD_DIM,
                            },
                            cos: cos.view(),
                            sin: sin.view(),
                            tokens,
                            head_dim: HEAD_DIM,
                            rotary_dim: HEAD_DIM,
                            pairing,
                            direction: Direction::Forward,
                        };
                        cpu.rope(args.checked().unwrap()).unwrap();
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, rotation);
criterion_main!(benches);
