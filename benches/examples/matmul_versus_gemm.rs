//! Times matrix products of linear layers beside the `gemm` crate and the processor's measured
//! peak.
//!
//! `cargo run --release -p tightrope-benches --example matmul_versus_gemm [THREADS]`
//!
//! Rates are per second of processor time: they are rates of one core, and other programs on the
//! machine disturb only the caches; time that threads wait for each other is not included.

use std::time::Instant;
use tightrope_benches::measure_flops;
use tightrope_device::{Cpu, DType, Tensor};
use tightrope_kernels::{
    Check,
    linear::{BackwardInput, BackwardWeights, Forward, Linear, Shape},
    product::Elements,
};
use tightrope_testkit::Random;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let threads = std::env::args().nth(1).map_or(Ok(2), |text| text.parse())?;
    let cpu = Cpu::new(threads)?;
    println!(
        "{threads} threads; GFLOP/s of us, of gemm, ratio; share of the peak beside each shape"
    );
    let mut ratios = Vec::new();
    for tokens in [1, 8, 64, 512, 2048] {
        for (inputs, outputs) in [(576, 576), (576, 1536), (1536, 576)] {
            let shape = Shape {
                tokens,
                inputs,
                outputs,
            };
            let row = measure(&cpu, shape)?;
            if tokens >= 512 {
                ratios.extend(row);
            }
        }
    }
    let mean = ratios.iter().map(|r: &(f64, f64)| r.0.ln()).sum::<f64>() / ratios.len() as f64;
    let peak = ratios.iter().map(|r| r.1.ln()).sum::<f64>() / ratios.len() as f64;
    println!(
        "from 512 tokens on, geometric means: {:.3} of gemm, {:.1} % of peak",
        mean.exp(),
        100.0 * peak.exp()
    );
    Ok(())
}

/// Seconds of processor time that this process has used.
fn cpu_time() -> f64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `t` is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut t) };
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}

/// Best time of several repetitions in seconds, with ours and theirs alternating.
fn best_of(mut ours: impl FnMut(), mut theirs: impl FnMut()) -> (f64, f64) {
    let mut best = (f64::INFINITY, f64::INFINITY);
    let time = |f: &mut dyn FnMut()| {
        let start = cpu_time();
        f();
        cpu_time() - start
    };
    let start = Instant::now();
    let mut repetitions = 0;
    while repetitions < 5 || start.elapsed().as_millis() < 150 {
        best.0 = time(&mut ours).min(best.0);
        best.1 = time(&mut theirs).min(best.1);
        repetitions += 1;
    }
    best
}

/// Prints one shape; returns (ratio to gemm, share of peak) of NT, NN and TN.
fn measure(cpu: &Cpu, shape: Shape) -> Result<[(f64, f64); 3]> {
    let Shape {
        tokens,
        inputs,
        outputs,
    } = shape;
    let mut random = Random::new(1);
    let x = Tensor::from_slice(cpu, &[tokens, inputs], &random.normal(tokens * inputs, 1.0))?;
    let dy = Tensor::from_slice(
        cpu,
        &[tokens, outputs],
        &random.normal(tokens * outputs, 1.0),
    )?;
    let w = Tensor::from_slice(
        cpu,
        &[outputs, inputs],
        &random.normal(outputs * inputs, 1.0),
    )?;
    let mut y = Tensor::zeros(cpu, DType::F32, &[tokens, outputs])?;
    let mut dx = Tensor::zeros(cpu, DType::F32, &[tokens, inputs])?;
    let mut dw = Tensor::zeros(cpu, DType::F32, &[outputs, inputs])?;
    let theirs = |c: &mut [f32], m, k, n, a: (&[f32], bool), b: (&[f32], bool), add: bool| {
        // Strides (column, row) of the operands as they are stored.
        let (acs, ars) = if a.1 {
            (m as isize, 1)
        } else {
            (1, k as isize)
        };
        let (bcs, brs) = if b.1 {
            (k as isize, 1)
        } else {
            (1, n as isize)
        };
        let parallelism = match cpu.threads() {
            1 => gemm::Parallelism::None,
            threads => gemm::Parallelism::Rayon(threads),
        };
        // SAFETY: every slice has the length that its sizes and strides name.
        cpu.install(|| unsafe {
            gemm::gemm(
                m,
                n,
                k,
                c.as_mut_ptr(),
                1,
                n as isize,
                add,
                a.0.as_ptr(),
                acs,
                ars,
                b.0.as_ptr(),
                bcs,
                brs,
                1.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        });
    };
    let (xs, dys, ws) = (
        x.as_slice::<f32>()?,
        dy.as_slice::<f32>()?,
        w.as_slice::<f32>()?,
    );
    let mut c = vec![0f32; (tokens * inputs.max(outputs)).max(inputs * outputs)];
    // Peak of one core.
    let peak = || measure_flops(cpu, 50).best / cpu.threads() as f64;
    let before = peak();
    let nt = best_of(
        || {
            let args = Forward {
                factor: 1.0,
                x: x.view(),
                weight: Elements::Float(w.view()),
                bias: None,
                lora: None,
                y: y.view_mut(),
                shape,
            };
            cpu.linear_forward(args.checked().expect("shapes fit"))
                .expect("memory suffices");
        },
        || {
            theirs(
                &mut c,
                tokens,
                inputs,
                outputs,
                (xs, false),
                (ws, true),
                false,
            )
        },
    );
    check("NT", y.as_slice::<f32>()?, &c);
    let nn = best_of(
        || {
            let args = BackwardInput {
                factor: 1.0,
                dy: dy.view(),
                weight: Elements::Float(w.view()),
                lora: None,
                dx: Some(dx.view_mut()),
                accumulate: false,
                shape,
            };
            let args = args.checked().expect("shapes fit");
            cpu.linear_backward_input(args).expect("memory suffices");
        },
        || {
            theirs(
                &mut c,
                tokens,
                outputs,
                inputs,
                (dys, false),
                (ws, false),
                false,
            )
        },
    );
    check("NN", dx.as_slice::<f32>()?, &c);
    c.fill(0.0);
    let tn = best_of(
        || {
            let args = BackwardWeights {
                factor: 1.0,
                x: x.view(),
                dy: dy.view(),
                dweight: Some(dw.view_mut()),
                dbias: None,
                lora: None,
                shape,
            };
            let args = args.checked().expect("shapes fit");
            cpu.linear_backward_weights(args).expect("memory suffices");
        },
        || {
            theirs(
                &mut c,
                outputs,
                tokens,
                inputs,
                (dys, true),
                (xs, false),
                true,
            )
        },
    );
    check("TN", dw.as_slice::<f32>()?, &c);
    // The machine may have slowed down in the meantime.
    let peak = before.max(peak());
    let flops = 2.0 * tokens as f64 * inputs as f64 * outputs as f64;
    print!("{tokens:>5} x {inputs:>4} -> {outputs:>4}:");
    let rows = [("NT", nt), ("NN", nn), ("TN", tn)].map(|(name, (ours, theirs))| {
        let share = flops / ours / peak;
        print!(
            "  {name} {:6.1} {:6.1} {:5.2} {:3.0} %",
            flops / ours / 1e9,
            flops / theirs / 1e9,
            theirs / ours,
            100.0 * share
        );
        (theirs / ours, share)
    });
    println!("   peak {:.1}", peak / 1e9);
    Ok(rows)
}

fn check(name: &str, ours: &[f32], theirs: &[f32]) {
    for (index, (a, b)) in ours.iter().zip(theirs).enumerate() {
        let close = (a - b).abs() <= 1e-2 + 1e-3 * b.abs();
        assert!(close, "{name}[{index}]: {a} and {b}");
    }
}
