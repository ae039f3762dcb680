//! Chores of the project: `cargo xtask CHORE`, one plain function for each.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod ci;
mod digest;
mod faults;
mod fetch;
mod fuzz;
#[path = "../../benches/src/program/options.rs"]
mod options;
mod ptx;
mod tidy;

use clap::{Parser, Subcommand};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

/// Project chores
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check what the compiler does not: crate edges, files' first lines, names in the documents
    Tidy,
    /// Run everything that has to pass: tidy, kernels, format, lints, tests, documentation, licences
    /// (needs Python with pip)
    Ci,
    /// Run benchmark suites and store their rows in benches/runs/
    Bench(options::Bench),
    /// Translate device code to PTX with its launch code, and assemble it for every architecture
    /// (needs Python with pip)
    Ptx {
        /// Change nothing: fail if a committed file differs from the result
        #[arg(long)]
        check: bool,
    },
    /// Run everything that needs a GPU (tests, times against the roofline, training), and write one
    /// report in benches/runs/
    Gpu(options::Gpu),
    /// Feed changed inputs to every reader of foreign files (needs a C++ compiler)
    Fuzz {
        /// Readers to try [default: all]
        targets: Vec<String>,
        /// Minutes for each reader
        #[arg(long, default_value_t = 1.0, value_name = "N")]
        minutes: f64,
        /// Seed that decides how inputs are changed
        #[arg(long, default_value_t = 1, value_name = "N")]
        seed: u64,
        /// Run only this input, and show its output
        #[arg(long, value_name = "FILE")]
        input: Option<PathBuf>,
    },
    /// Kill a run at every system call that writes, renames or syncs, and let each such call fail;
    /// the resumed run must end with the same bits (needs strace)
    Faults {
        /// Number of points to try, chosen by the seed [default: all]
        #[arg(long, value_name = "N")]
        sample: Option<usize>,
        /// Seed that chooses the sample
        #[arg(long, default_value_t = 1, value_name = "N")]
        seed: u64,
        /// Try only this point: run, fault, call and its number, as a report names it
        #[arg(long)]
        point: Option<faults::Point>,
    },
    /// Download a real model or data set into an ignored folder, checksums pinned (needs pip)
    Fetch {
        #[arg(value_enum)]
        item: fetch::Item,
    },
}

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies in the root of the repository");
    let result = match Cli::parse().chore {
        Chore::Tidy => tidy::run(root),
        Chore::Ci => ci::run(root),
        Chore::Bench(_) | Chore::Gpu(_) => match bench::run(root) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Chore::Ptx { check } => ptx::run(root, check),
        Chore::Fuzz {
            targets,
            minutes,
            seed,
            input,
        } => fuzz::run(
            root,
            &fuzz::Options {
                targets,
                time: Duration::from_secs_f64(minutes.max(0.0) * 60.0),
                seed,
                input,
            },
        ),
        Chore::Faults {
            sample,
            seed,
            point,
        } => faults::run(
            root,
            &faults::Options {
                sample,
                seed,
                point,
            },
        ),
        Chore::Fetch { item } => fetch::run(root, item),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
