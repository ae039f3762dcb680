//! Measures the peak of the processor.

use std::{hint::black_box, time::Instant};
use tightrope_device::Cpu;
#[cfg(target_arch = "x86_64")]
use tightrope_device::{has_avx2_fma, has_avx512};

/// Number of independent sums: enough to hide the latency of each.
const CHAINS: usize = 12;
const STEPS: usize = 20_000;

/// Floating-point operations per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flops {
    /// Sum over threads of each thread's best round: the capability of the processor.
    pub best: f64,
    /// Sum over threads of the mean of all rounds: the rate at this moment, beside other work on
    /// the machine.
    pub mean: f64,
}

/// Measures fused multiply-adds of f32 (two operations each) in the widest vectors, from registers
/// alone, on all threads of `cpu` at once. A round takes a fraction of a millisecond; there is at
/// least one.
pub fn measure_flops(cpu: &Cpu, rounds: usize) -> Flops {
    let rates = cpu.install(|| rayon::broadcast(|_| rates(rounds.max(1))));
    let sum = |rate: fn(&Flops) -> f64| rates.iter().map(rate).sum();
    Flops {
        best: sum(|rates| rates.best),
        mean: sum(|rates| rates.mean),
    }
}

/// Rates of this thread.
fn rates(rounds: usize) -> Flops {
    let (mut best, mut total) = (f64::INFINITY, 0.0);
    let mut operations = 0.0;
    for _ in 0..rounds {
        let start = Instant::now();
        let lanes = multiply_add(black_box(0.999), black_box(1e-3));
        let seconds = start.elapsed().as_secs_f64();
        operations = (2 * lanes * CHAINS * STEPS) as f64;
        best = seconds.min(best);
        total += seconds;
    }
    Flops {
        best: operations / best,
        mean: operations * rounds as f64 / total,
    }
}

/// Runs all chains once; returns the number of lanes.
fn multiply_add(a: f32, b: f32) -> usize {
    #[cfg(target_arch = "x86_64")]
    if has_avx512() {
        // SAFETY: the processor has AVX-512F.
        black_box(unsafe { x86::avx512(a, b) });
        return 16;
    } else if has_avx2_fma() {
        // SAFETY: the processor has AVX2 and FMA.
        black_box(unsafe { x86::avx2(a, b) });
        return 8;
    }
    let mut sums = [[0.5f32; 4]; CHAINS];
    for _ in 0..STEPS {
        for sum in sums.as_flattened_mut() {
            *sum = *sum * a + b;
        }
    }
    black_box(sums);
    4
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{CHAINS, STEPS};
    use std::arch::x86_64::*;

    macro_rules! chains {
        ($name:ident, $features:literal: $set1:ident, $fmadd:ident, $add:ident, $first:ident) => {
            #[target_feature(enable = $features)]
            pub(super) fn $name(a: f32, b: f32) -> f32 {
                let (a, b) = ($set1(a), $set1(b));
                let mut sums = [$set1(0.5); CHAINS];
                for _ in 0..STEPS {
                    for sum in &mut sums {
                        *sum = $fmadd(*sum, a, b);
                    }
                }
                $first(sums.into_iter().fold(b, |total, sum| $add(total, sum)))
            }
        };
    }

    chains!(avx512, "avx512f": _mm512_set1_ps, _mm512_fmadd_ps, _mm512_add_ps, _mm512_cvtss_f32);
    chains!(avx2, "avx2,fma": _mm256_set1_ps, _mm256_fmadd_ps, _mm256_add_ps, _mm256_cvtss_f32);
}
