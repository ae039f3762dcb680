//! Times linear layers of SmolLM2-135M with adapters of rank 16 on 1,024 tokens, as in training:
//! operands come from memory, because no two consecutive layers are the same.
//!
//! Run `cargo run --release -p tightrope-benches --example lora_layers [THREADS [WEIGHTS
//! [ACTIVATIONS]]]`; weights and activations are f32 unless `bf16` is given.
//!
//! Times are the best of several rounds, and at the end also the mean, which other work on the
//! machine disturbs; shares are relative to the measured peak of the processor.

use half::bf16;
use std::time::Instant;
use tightrope_benches::measure_flops;
use tightrope_device::{Cpu, DType, Device, Tensor};
use tightrope_kernels::{
    Check,
    linear::{
        BackwardInput, BackwardWeights, Forward, Linear, LoraBackwardInput, LoraBackwardWeights,
        LoraForward, Shape,
    },
    product::Elements,
};
use tightrope_testkit::Random;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const TOKENS: usize = 1024;
const RANK: usize = 16;
const SCALE: f32 = 2.0;
/// Number of layers of one shape: more than the caches hold.
const LAYERS: usize = 12;
const ROUNDS: usize = 10;

fn main() -> Result<()> {
    let threads = std::env::args().nth(1).map_or(Ok(0), |text| text.parse())?;
    let dtype = |index| match std::env::args().nth(index).as_deref() {
        Some("bf16") => DType::BF16,
        _ => DType::F32,
    };
    let (weights, activations) = (dtype(2), dtype(3));
    let cpu = Cpu::new(threads)?;
    let peak = measure_flops(&cpu, 50).best;
    println!(
        "{}, weights in {weights}, activations in {activations}, peak {:.0} GFLOP/s of f32; milliseconds \
         and share of the peak",
        cpu.name(),
        peak / 1e9
    );
    let (mut seconds, mut mean, mut operations) = (0.0, 0.0, 0.0);
    // Queries and output, keys and values, gate and up, down.
    for (inputs, outputs, count) in [
        (576, 576, 2.0),
        (576, 192, 2.0),
        (576, 1536, 2.0),
        (1536, 576, 1.0),
    ] {
        let shape = Shape {
            tokens: TOKENS,
            inputs,
            outputs,
        };
        let (times, total) = measure(&cpu, shape, weights, activations)?;
        let base = 2.0 * (TOKENS * inputs * outputs) as f64;
        let adapter = 2.0 * (TOKENS * RANK * (inputs + outputs)) as f64;
        let work = [base + adapter, base + adapter, adapter];
        print!("{inputs:>5} -> {outputs:>4}:");
        for (name, (time, work)) in ["forward", "backward", "adapter"]
            .into_iter()
            .zip(times.into_iter().zip(work))
        {
            print!(
                "  {name} {:6.2} {:3.0} %",
                1e3 * time,
                100.0 * work / time / peak
            );
        }
        println!();
        mean += count * total / (LAYERS * ROUNDS) as f64;
        seconds += count * times.iter().sum::<f64>();
        operations += count * work.iter().sum::<f64>();
    }
    println!(
        "all of a layer: {:.1} ms, {:.1} % of the peak; in the mean {:.1} ms",
        1e3 * seconds,
        100.0 * operations / seconds / peak,
        1e3 * mean
    );
    Ok(())
}

/// Returns the seconds of a layer's forward pass, of its input gradient and of its adapter
/// gradients, each the best time per layer; and all seconds of all rounds.
fn measure(cpu: &Cpu, shape: Shape, weights: DType, activations: DType) -> Result<([f64; 3], f64)> {
    let Shape {
        tokens,
        inputs,
        outputs,
    } = shape;
    let mut random = Random::new(1);
    let mut tensor = |dtype: DType, rows: usize, columns: usize| {
        let (shape, values) = ([rows, columns], random.normal(rows * columns, 0.1));
        let halves = || {
            values
                .iter()
                .map(|&x| bf16::from_f32(x))
                .collect::<Vec<_>>()
        };
        match dtype {
            DType::BF16 => Tensor::from_slice(cpu, &shape, &halves()),
            _ => Tensor::from_slice(cpu, &shape, &values),
        }
    };
    let mut best = [[f64::INFINITY; 3]; LAYERS];
    let mut total = 0.0;
    let mut count = |best: &mut f64, start: Instant| {
        let seconds = start.elapsed().as_secs_f64();
        *best = best.min(seconds);
        total += seconds;
    };
    let mut layers = Vec::new();
    for _ in 0..LAYERS {
        layers.push((
            // x, W, A, B
            [
                tensor(activations, tokens, inputs)?,
                tensor(weights, outputs, inputs)?,
                tensor(DType::F32, RANK, inputs)?,
                tensor(DType::F32, outputs, RANK)?,
            ],
            // y, dx, xA, dyB, dA, dB
            [
                tensor(activations, tokens, outputs)?,
                tensor(activations, tokens, inputs)?,
                tensor(DType::F32, tokens, RANK)?,
                tensor(DType::F32, tokens, RANK)?,
                tensor(DType::F32, RANK, inputs)?,
                tensor(DType::F32, outputs, RANK)?,
            ],
        ));
    }
    for _ in 0..ROUNDS {
        for (layer, best) in layers.iter_mut().zip(&mut best) {
            let ([x, w, a, b], [y, dx, xa, dyb, da, db]) = layer;
            let weight = Elements::Float(w.view());
            let forward = Forward {
                factor: 1.0,
                x: x.view(),
                weight,
                bias: None,
                lora: Some(LoraForward {
                    a: a.view(),
                    b: b.view(),
                    scale: SCALE,
                    dropout: None,
                    xa: xa.view_mut(),
                }),
                y: y.view_mut(),
                shape,
            };
            let start = Instant::now();
            cpu.linear_forward(forward.checked()?)?;
            count(&mut best[0], start);
            let backward = BackwardInput {
                factor: 1.0,
                dy: y.view(),
                weight,
                lora: Some(LoraBackwardInput {
                    a: a.view(),
                    b: b.view(),
                    scale: SCALE,
                    dropout: None,
                    dyb: dyb.view_mut(),
                }),
                dx: Some(dx.view_mut()),
                accumulate: false,
                shape,
            };
            let start = Instant::now();
            cpu.linear_backward_input(backward.checked()?)?;
            count(&mut best[1], start);
            let adapter = BackwardWeights {
                factor: 1.0,
                x: x.view(),
                dy: y.view(),
                dweight: None,
                dbias: None,
                lora: Some(LoraBackwardWeights {
                    scale: SCALE,
                    dropout: None,
                    xa: xa.view(),
                    dyb: dyb.view(),
                    da: da.view_mut(),
                    db: db.view_mut(),
                }),
                shape,
            };
            let start = Instant::now();
            cpu.linear_backward_weights(adapter.checked()?)?;
            count(&mut best[2], start);
        }
    }
    let of = |part: usize| best.iter().map(|best| best[part]).sum::<f64>() / LAYERS as f64;
    Ok(([0, 1, 2].map(of), total))
}
