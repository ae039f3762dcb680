//! The program behind `cargo xtask bench` and `cargo xtask gpu`. It links everything that it
//! measures, so that xtask, which every check starts, does not have to.
#![forbid(unsafe_code)]

mod bench;
mod emulator;
mod gpu;
mod options;

use clap::Parser;
use std::{path::Path, process::ExitCode};

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Chore {
    /// Run benchmark suites and store their rows in benches/runs/
    Bench(options::Bench),
    /// Run everything that needs a GPU, and write one report in benches/runs/
    Gpu(options::Gpu),
}

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("benches lies in the root of the repository");
    let result = match Chore::parse() {
        Chore::Bench(options) => {
            let json = options.json.as_deref();
            bench::run(root, &options.suites, options.emulated, json)
        }
        Chore::Gpu(options) => gpu::run(root, options.emulated, options.json.as_deref()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
