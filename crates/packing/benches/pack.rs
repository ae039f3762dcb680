//! Times each algorithm by number of sequences, and on the published histograms.

use std::time::Duration;

use criterion::{
    BatchSize, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use tightrope_packing::{Algorithm, Histogram, Packer};

/// Log-normal lengths with median 90, sigma 0.9 and maximum 2,048.
fn log_normal(sequences: usize) -> Vec<u32> {
    let mut state = 1u64;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let mut normal = || (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos();
    (0..sequences)
        .map(|_| (90.0 * (0.9 * normal()).exp()).round().clamp(1.0, 2048.0) as u32)
        .collect()
}

fn sequences(criterion: &mut Criterion) {
    for count in [10_000, 1_000_000, 10_000_000] {
        let lengths = log_normal(count);
        let mut group = criterion.benchmark_group(format!("log-normal/{count}"));
        group.sampling_mode(SamplingMode::Flat);
        group.throughput(Throughput::Elements(count as u64));
        for algorithm in Algorithm::ALL {
            // At this capacity, three sequences per pack give 350,000 strategies, which need
            // minutes.
            let depth = (algorithm == Algorithm::Nnlshp).then_some(2);
            let packer = Packer {
                seed: Some(1),
                depth,
                ..Packer::new(algorithm, 2048)
            };
            let id = depth.map_or(algorithm.to_string(), |d| format!("{algorithm}, depth {d}"));
            group.bench_function(id, |b| {
                // Holds one packing at a time, and frees it outside of the measured time.
                let pack = |()| packer.pack(&lengths);
                b.iter_batched(|| (), pack, BatchSize::PerIteration);
            });
        }
        group.finish();
    }
}

fn histograms(criterion: &mut Criterion) {
    let text = include_str!("../tests/data/length_histograms.json");
    let all: serde_json::Value = serde_json::from_str(text).expect("valid JSON");
    for (name, capacity) in [("squad_1_1", 384), ("wikipedia", 512)] {
        let counts = all[name]["counts"].as_array().expect("counts");
        let counts: Vec<u64> = counts.iter().filter_map(|c| c.as_u64()).collect();
        let histogram = Histogram::from_counts(&counts).expect("fits 64 bits");
        let mut group = criterion.benchmark_group("histogram");
        group.sampling_mode(SamplingMode::Flat);
        for algorithm in Algorithm::ALL {
            let packer = Packer::new(algorithm, capacity);
            let id = BenchmarkId::new(algorithm.name(), name);
            group.bench_function(id, |b| b.iter(|| packer.pack_histogram(&histogram)));
        }
        // The loop ends when the packs are proved to be the fewest, which does not happen for
        // Wikipedia.
        if name == "squad_1_1" {
            let packer = Packer {
                improve_ms: 60_000,
                ..Packer::new(Algorithm::BestFit, capacity)
            };
            let id = BenchmarkId::new("best-fit, improved", name);
            group.bench_function(id, |b| b.iter(|| packer.pack_histogram(&histogram)));
        }
        group.finish();
    }
}

criterion_group! {
    name = pack;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = sequences, histograms
}
criterion_main!(pack);
