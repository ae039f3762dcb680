//! Thread instructions a second of processor time of some kernels: `cargo run --release --example throughput -- FILE.ptx`.
use std::time::Instant;
use tightrope_emulator::{DeviceMemory, LaunchConfig, Module, Order};

/// Seconds that this thread has been running on a processor (Linux): fair on a busy machine.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|ns| ns.parse::<f64>().ok())
        .map_or(0.0, |ns| ns * 1e-9)
}

fn upload(memory: &mut DeviceMemory, sequence: &mut u32, words: &[u32]) -> u64 {
    *sequence += 1;
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let address = memory.allocate(bytes.len() as u64, "input").expect("room");
    memory
        .write(address, &bytes, &Order::sequential(*sequence))
        .expect("in bounds");
    address
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("which PTX file?")?;
    let mut memory = DeviceMemory::new();
    let start = Instant::now();
    let module = Module::load(&std::fs::read_to_string(path)?, &mut memory)?;
    println!(
        "loaded {} kernels in {:?}",
        module.kernel_names().count(),
        start.elapsed()
    );
    let mut sequence = 0;
    // bf16 pairs of 1.0.
    let tensor = |memory: &mut _, sequence: &mut _, n: usize| {
        upload(memory, sequence, &vec![0x3f80_3f80; n / 2])
    };
    let run = |name: &str,
               memory: &DeviceMemory,
               sequence: &mut u32,
               config: LaunchConfig,
               parameters: Vec<u8>| {
        for races in [true, true, false] {
            let mut config = LaunchConfig {
                threads: Some(1),
                ..config.clone()
            };
            config.checks.races = races;
            config.checks.counters = races;
            *sequence += 1;
            let start = processor_seconds();
            let report = module.launch(
                name,
                memory,
                &Order::sequential(*sequence),
                &parameters,
                &config,
            );
            let seconds = processor_seconds() - start;
            match report {
                Err(error) => println!("{name}: {error}"),
                Ok(report) => {
                    report
                        .findings
                        .iter()
                        .for_each(|finding| println!("  {finding}"));
                    let instructions = report.counters.thread_instructions() as f64;
                    println!(
                        "{name:24} races {races:5}: {:7.1} M thread instructions, {:6.1} M a second on one core",
                        instructions / 1e6,
                        instructions / 1e6 / seconds
                    );
                }
            }
        }
    };
    let words = |values: &[u64]| {
        values
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect::<Vec<u8>>()
    };

    let n = 1 << 19;
    let (a, b, c) = (
        tensor(&mut memory, &mut sequence, n),
        tensor(&mut memory, &mut sequence, n),
        tensor(&mut memory, &mut sequence, n),
    );
    let config = LaunchConfig::new([(n / 8 / 256) as u32, 1, 1], [256, 1, 1]);
    run(
        "swiglu_fwd_i64",
        &memory,
        &mut sequence,
        config,
        words(&[a, b, c, n as u64]),
    );

    let (rows, columns) = (64u64, 4096u64);
    let (x, w) = (
        tensor(&mut memory, &mut sequence, (rows * columns) as usize),
        tensor(&mut memory, &mut sequence, columns as usize),
    );
    let (y, rstd) = (
        memory.allocate(rows * columns * 2, "y")?,
        memory.allocate(rows * 4, "rstd")?,
    );
    let config = LaunchConfig::new([rows as u32, 1, 1], [512, 1, 1]);
    let last = columns | u64::from(1e-6f32.to_bits()) << 32;
    run(
        "rmsnorm_fwd",
        &memory,
        &mut sequence,
        config,
        words(&[x, w, y, rstd, last]),
    );

    let (m, n, k) = (256u64, 256u64, 512u64);
    let (a, b) = (
        tensor(&mut memory, &mut sequence, (m * k) as usize),
        tensor(&mut memory, &mut sequence, (n * k) as usize),
    );
    let c = memory.allocate(m * n * 2, "c")?;
    let config = LaunchConfig::new([(n / 64) as u32, (m / 64) as u32, 1], [128, 1, 1]);
    let mut parameters = words(&[a, b, c, m | n << 32]);
    parameters.extend((k as u32).to_le_bytes());
    run("gemm_bf16", &memory, &mut sequence, config, parameters);
    Ok(())
}
