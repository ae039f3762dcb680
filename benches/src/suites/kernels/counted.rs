//! Counts the demands of an operation on a GPU, with the emulator.

use super::case::Case;
use crate::{Row, row};
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, fs, path::Path, time::Instant};
use tightrope_device::{Cuda, Device};
use tightrope_emulator::{
    Counters,
    report::{Entry, Source},
    roofline::GPUS,
};

/// Issues the operation once. `report` is the file for the emulator's counts.
pub(super) fn count(cuda: &Cuda, case: Case, report: &Path) -> Result<Row> {
    let mut work = (case.prepare)(cuda)?;
    cuda.synchronize()?;
    let before = read(report)?.len();
    let start = Instant::now();
    work(cuda)?;
    cuda.synchronize()?;
    let seconds = start.elapsed().as_secs_f64();
    let issued = Issued::read(&read(report)?[before..])?;
    ensure!(!issued.names.is_empty(), "nothing was issued");

    let counters = &issued.counters;
    let asked = bytes(counters);
    let per = |part: u64, whole: usize| part as f64 / whole as f64;
    let of_gpu = |gpu: &tightrope_emulator::roofline::Gpu| {
        let (bound, counted) = gpu.estimate(counters).bound();
        let least = gpu.least_seconds(case.least_bytes as f64, case.least_multiply_adds as f64);
        let times = json!({
            "least_us": least * 1e6,
            "counted_us": counted * 1e6,
            "bound": format!("{bound:?}"),
        });
        (gpu.name.to_owned(), times)
    };
    Ok(row([
        ("operation", case.name.into()),
        ("shape", case.shape.into()),
        ("issued", Vec::from_iter(issued.names).into()),
        ("least_bytes", case.least_bytes.into()),
        ("asked_over_least", per(asked, case.least_bytes).into()),
        // Share of the requested bytes: matrix products are not executed, but are known to need
        // this many.
        (
            "share_by_formula",
            per(bytes(&issued.by_formula), asked as usize).into(),
        ),
        (
            "sectors",
            (counters.global_load_sectors + counters.global_store_sectors).into(),
        ),
        (
            "moved_over_asked",
            per(counters.global_bytes_moved(), asked as usize).into(),
        ),
        // Counts of the executed kernels.
        (
            "instructions_per_element",
            per(counters.thread_instructions(), case.elements).into(),
        ),
        ("shared_passes", counters.shared_passes.into()),
        ("bank_conflicts", counters.bank_conflicts().into()),
        ("tensor_multiply_adds", counters.tensor_multiply_adds.into()),
        (
            "tensor_multiply_adds_by_formula",
            issued.by_formula.tensor_multiply_adds.into(),
        ),
        ("emulation_s", seconds.into()),
        (
            "roofline",
            Value::Object(GPUS.iter().map(of_gpu).collect::<Map<_, _>>()),
        ),
    ]))
}

/// Number of bytes requested from device memory.
fn bytes(counters: &Counters) -> u64 {
    counters.global_load_bytes + counters.global_store_bytes
}

/// Reads the report, which does not exist before the first launch.
fn read(report: &Path) -> Result<String> {
    match fs::read_to_string(report) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        text => text.with_context(|| report.display().to_string()),
    }
}

/// Issued kernels and calls by name, and the sum of all counts.
#[derive(Default)]
struct Issued {
    names: BTreeSet<String>,
    counters: Counters,
    /// Counts that come from formulas.
    by_formula: Counters,
}

impl Issued {
    fn read(lines: &str) -> Result<Self> {
        let mut all = Self::default();
        for line in lines.lines() {
            let entry: Result<Entry, String> = line.parse();
            let entry =
                entry.map_err(|wrong| anyhow!("`{wrong}` is missing or wrong in: {line}"))?;
            all.counters.add(&entry.counters);
            all.names.insert(match entry.source {
                Source::Executed => entry.name,
                Source::Formula => {
                    all.by_formula.add(&entry.counters);
                    format!("{} (by formula)", entry.name)
                }
            });
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_added_up_and_formulas_told_apart() {
        let line = |name: &str, source, global_load_bytes| {
            let entry = Entry {
                name: name.into(),
                source,
                sizes: "[1]".into(),
                counters: Counters {
                    global_load_bytes,
                    ..Counters::default()
                },
            };
            format!("{entry}\n")
        };
        let lines = line("b", Source::Executed, 3)
            + &line("a", Source::Formula, 5)
            + &line("b", Source::Executed, 3);
        let issued = Issued::read(&lines).unwrap();
        assert_eq!(Vec::from_iter(issued.names), ["a (by formula)", "b"]);
        assert_eq!(issued.counters.global_load_bytes, 11);
        assert_eq!(issued.by_formula.global_load_bytes, 5);
        assert!(Issued::read("a\texecuted\t[1]\tblocks 1\n").is_err());
    }
}
