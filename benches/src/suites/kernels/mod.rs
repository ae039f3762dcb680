//! Operations of a GPU one after another: their demands on the emulator, or their times on
//! hardware.
//!
//! Tests beside the operations check their results. A new operation is a file here and a line in
//! [`OPERATIONS`].

mod absmax;
mod adafactor;
mod adamw;
mod adamw_8bit;
mod attention;
mod case;
mod cast;
mod counted;
mod dora;
mod embedding;
mod glu;
mod linear;
mod linear_cross_entropy;
mod lion;
mod muon;
mod nf4;
mod noise;
mod qk_norm_rope;
mod rms_norm;
mod rotate;
mod schedule_free;
mod sum_of_squares;
mod timed;

use crate::{EMULATOR_REPORT, Row, Suite, row};
use anyhow::{Context, Result};
use case::{Case, Scale};
use std::{collections::BTreeSet, env, fs, path::Path};
use tightrope_device::Cuda;

pub(crate) const SUITE: Suite = Suite {
    name: "kernels",
    about: "every operation that a GPU has, at the sizes of Llama 3 8B in bf16: on hardware times against \
            the roofline; with --emulated bytes, sectors, instructions and bank conflicts, and least \
            times of named GPUs (matrix products by formula, as if each moved its operands once)",
    run,
};

/// Makes the cases of an operation at a scale.
type Cases = fn(Scale) -> Vec<Case>;

/// Every operation, by the folder of its `kernel.cu`.
const OPERATIONS: &[(&str, Cases)] = &[
    ("absmax", absmax::cases),
    ("adafactor", adafactor::cases),
    ("adamw", adamw::cases),
    ("adamw_8bit", adamw_8bit::cases),
    ("attention", attention::cases),
    ("cast", cast::cases),
    ("dora", dora::cases),
    ("embedding", embedding::cases),
    ("glu", glu::cases),
    ("linear", linear::cases),
    ("linear_cross_entropy", linear_cross_entropy::cases),
    ("lion", lion::cases),
    ("muon", muon::cases),
    ("nf4", nf4::cases),
    ("noise", noise::cases),
    ("qk_norm_rope", qk_norm_rope::cases),
    ("rms_norm", rms_norm::cases),
    ("rotate", rotate::cases),
    ("schedule_free", schedule_free::cases),
    ("sum_of_squares", sum_of_squares::cases),
];

fn run(emit: &mut dyn FnMut(Row)) -> Result<()> {
    let cuda = Cuda::new(0)?;
    let report = env::var_os(EMULATOR_REPORT);
    let scale = match report {
        Some(_) => Scale::Emulated,
        None => Scale::Hardware,
    };
    for case in OPERATIONS.iter().flat_map(|(_, cases)| cases(scale)) {
        let name = case.name.clone();
        let result = match &report {
            Some(path) => counted::count(&cuda, case, Path::new(path)),
            None => timed::time(&cuda, case),
        };
        emit(result.context(name)?);
    }
    for folder in without_cases()? {
        emit(row([
            ("operation", folder.into()),
            ("measured", "no, it has no case in this suite".into()),
        ]));
    }
    Ok(())
}

/// Folders with a `kernel.cu` that [`OPERATIONS`] lacks.
fn without_cases() -> Result<BTreeSet<String>> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut found = BTreeSet::new();
    for krate in fs::read_dir(crates)? {
        let Ok(folders) = fs::read_dir(krate?.path().join("src")) else {
            continue;
        };
        for folder in folders {
            let folder = folder?;
            if folder.path().join("kernel.cu").exists() {
                found.insert(folder.file_name().to_string_lossy().into_owned());
            }
        }
    }
    found.retain(|folder| OPERATIONS.iter().all(|(name, _)| name != folder));
    Ok(found)
}
