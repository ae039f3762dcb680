//! Measures the thread instructions that the emulator executes per second of processor time, on one
//! thread: a gated unit (SwiGLU) on half a million elements, with and without checks.
//!
//! `cargo run --release -p tightrope-emulator --example throughput` (Linux)
use tightrope_emulator::{DeviceMemory, LaunchConfig, Module, Order};

const PTX: &str = include_str!("../../kernels/src/glu/kernel.ptx");
const KERNEL: &str = "glu_forward_silu_bf16_u64";
const ELEMENTS: u64 = 1 << 19;
/// Each thread of a block of 256 takes 8 elements.
const BLOCKS: u32 = (ELEMENTS / (256 * 8)) as u32;

/// Seconds that this thread has run on a processor, which is a fair measure on a busy machine.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok());
    nanoseconds.map_or(f64::NAN, |ns| ns * 1e-9)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut memory = DeviceMemory::new();
    let module = Module::load(PTX, &mut memory)?;
    let mut sequence = 0;
    let mut order = || {
        sequence += 1;
        Order::sequential(sequence)
    };
    let ones: Vec<u8> = 0x3f80_u16.to_le_bytes().repeat(ELEMENTS as usize);
    let mut parameters = Vec::new();
    for name in ["gate", "up", "y"] {
        let address = memory.allocate(ones.len() as u64, name)?;
        if let Err(findings) = memory.write(address, &ones, &order()) {
            return Err(format!("{findings:?}").into());
        }
        parameters.extend(address.to_le_bytes());
    }
    parameters.extend(ELEMENTS.to_le_bytes());
    let mut instructions = 0.0;
    for checked in [true, true, false] {
        let mut config = LaunchConfig::new([BLOCKS, 1, 1], [256, 1, 1]);
        config.threads = Some(1);
        (config.checks.races, config.checks.counters) = (checked, checked);
        let start = processor_seconds();
        let report = module.launch(KERNEL, &memory, &order(), &parameters, &config)?;
        let seconds = processor_seconds() - start;
        if let Some(finding) = report.findings.first() {
            return Err(finding.to_string().into());
        }
        if checked {
            instructions = report.counters.thread_instructions() as f64;
        }
        println!(
            "{KERNEL}, races and counters {checked:5}: {:.1} M thread instructions, {:.0} M a second",
            instructions / 1e6,
            instructions / 1e6 / seconds
        );
    }
    Ok(())
}
