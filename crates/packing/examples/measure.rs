//! Prints packs, efficiency, bound and time (the best of five runs) on published and generated
//! lengths:
//! `cargo run --release -p tightrope-packing --example measure -- [squad|wikipedia|log-normal N|hard] …`

use std::time::Instant;

use tightrope_packing::{Algorithm, Histogram, PackError, Packer, Padding};

/// Budget of the improving pass in milliseconds; the pass ends earlier if it finds an optimum.
const IMPROVE_MS: u64 = 1_000;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["squad"] => published("squad_1_1", 384),
        ["wikipedia"] => published("wikipedia", 512),
        ["log-normal", sequences] => log_normal(sequences.parse().expect("a number")),
        ["hard"] => hard(),
        _ => eprintln!("one of: squad, wikipedia, log-normal N, hard"),
    }
}

fn published(name: &str, capacity: u64) {
    let text = include_str!("../tests/data/length_histograms.json");
    let all: serde_json::Value = serde_json::from_str(text).expect("valid JSON");
    let counts = all[name]["counts"].as_array().expect("counts");
    let counts: Vec<u64> = counts.iter().filter_map(|c| c.as_u64()).collect();
    let histogram = Histogram::from_counts(&counts).expect("fits 64 bits");
    for algorithm in Algorithm::ALL {
        for improve_ms in [0, IMPROVE_MS] {
            if improve_ms > 0 && algorithm != Algorithm::BestFit {
                continue;
            }
            let packer = Packer {
                improve_ms,
                ..Packer::new(algorithm, capacity)
            };
            let (packing, seconds) = fastest(|| packer.pack_histogram(&histogram));
            println!(
                "{algorithm:12} {:>9} packs  {:8.4} %  bound {:>9}  {:9.3} ms{}",
                packing.packs,
                100.0 * packing.efficiency(),
                packing.lower_bound,
                seconds * 1e3,
                if improve_ms > 0 { "  improved" } else { "" },
            );
        }
    }
    for batch_size in [8, 32] {
        let padded = Padding::expected(&histogram, batch_size);
        let bucketed = Padding::bucketed(&histogram, batch_size);
        println!(
            "batches of {batch_size}: padding {:.1} %, packing {:.2}x; by length {:.3} %, {:.4}x",
            100.0 * padded.share(),
            padded.speed_up(),
            100.0 * bucketed.share(),
            bucketed.speed_up(),
        );
    }
}

/// Log-normal lengths with median 90, sigma 0.9 and maximum 2,048.
fn log_normal(sequences: usize) {
    let mut random = Random(1);
    let lengths: Vec<u32> = (0..sequences)
        .map(|_| {
            (90.0 * (0.9 * random.normal()).exp())
                .round()
                .clamp(1.0, 2048.0) as u32
        })
        .collect();
    println!("{sequences} lengths: {} MiB resident", peak_mib());
    let best_fit = Packer {
        seed: Some(1),
        ..Packer::new(Algorithm::BestFit, 2048)
    };
    // The strategies of nnlshp at this capacity need minutes.
    let algorithms = Algorithm::ALL.into_iter();
    let algorithms = algorithms.filter(|a| *a != Algorithm::Nnlshp);
    let as_they_are = algorithms.map(|algorithm| (algorithm, 0));
    for (algorithm, improve_ms) in as_they_are.chain([(Algorithm::BestFit, IMPROVE_MS)]) {
        let packer = Packer {
            algorithm,
            improve_ms,
            ..best_fit.clone()
        };
        let (packing, seconds) = fastest(|| packer.pack(&lengths));
        println!(
            "{algorithm:12} {:>8} packs  {:8.4} %  bound {:>8}  {seconds:7.3} s  peak {} MiB{}",
            packing.len(),
            100.0 * packing.efficiency(),
            packing.lower_bound(),
            peak_mib(),
            if improve_ms > 0 { "  improved" } else { "" },
        );
    }
    let histogram = Histogram::from_lengths(lengths.iter().copied()).expect("fits 64 bits");
    let (packing, seconds) = fastest(|| best_fit.pack_histogram(&histogram));
    println!(
        "histogram only: {} packs, {:.3} ms",
        packing.packs,
        seconds * 1e3
    );
}

/// Falkenauer's families, five instances of each size: `uniform` has lengths 20–100 in packs of
/// 150, `triplet` has triples that fill 1000 exactly.
fn hard() {
    println!("packs of five instances together; seconds of the slowest");
    for (family, sizes) in [
        ("uniform", [120, 250, 500, 1000]),
        ("triplet", [60, 120, 249, 501]),
    ] {
        for size in sizes {
            let (mut before, mut after, mut bound, mut slowest) = (0, 0, 0, 0.0f64);
            for seed in 0..5 {
                let mut random = Random(seed * 7919 + size);
                let (lengths, capacity) = match family {
                    "uniform" => ((0..size).map(|_| random.between(20, 100)).collect(), 150),
                    _ => (random.triplets(size / 3), 1000),
                };
                let histogram = Histogram::from_lengths(lengths).expect("fits 64 bits");
                let best_fit = Packer::new(Algorithm::BestFit, capacity);
                before += best_fit.pack_histogram(&histogram).expect("packs").packs;
                let packer = Packer {
                    improve_ms: 60 * IMPROVE_MS,
                    ..best_fit
                };
                let start = Instant::now();
                let packing = packer.pack_histogram(&histogram).expect("packs");
                slowest = slowest.max(start.elapsed().as_secs_f64());
                after += packing.packs;
                bound += packing.lower_bound;
            }
            println!(
                "{family} {size:>4}: best-fit {before:>4}, improved {after:>4}, bound {bound:>4}, {slowest:7.3} s"
            );
        }
    }
}

/// Returns the result and the shortest time of five runs; one result is held at a time.
fn fastest<T>(mut work: impl FnMut() -> Result<T, PackError>) -> (T, f64) {
    let mut timed = || {
        let start = Instant::now();
        let result = work().expect("packs");
        (result, start.elapsed().as_secs_f64())
    };
    let others = (0..4).map(|_| timed().1).fold(f64::INFINITY, f64::min);
    let (result, seconds) = timed();
    (result, seconds.min(others))
}

/// Peak memory of the process in MiB (on Linux; elsewhere 0).
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// SplitMix64 generator.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn between(&mut self, least: u32, most: u32) -> u32 {
        least + (self.uniform() * f64::from(most - least + 1)) as u32
    }

    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Triples of one length in 380–490, one from 250 to half the rest, and the remainder to 1000.
    fn triplets(&mut self, count: u64) -> Vec<u32> {
        let mut lengths = Vec::new();
        for _ in 0..count {
            let large = self.between(380, 490);
            let middle = self.between(250, (1000 - large) / 2);
            lengths.extend([large, middle, 1000 - large - middle]);
        }
        lengths
    }
}
