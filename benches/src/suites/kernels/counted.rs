//! What an operation asks of a GPU, counted by the emulator.

use super::case::Case;
use crate::{Row, row};
use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, fs, path::Path, time::Instant};
use tightrope_device::{Cuda, Device};
use tightrope_emulator::{Counters, roofline::GPUS};

/// Issues the operation once. `report` is the file into which the emulator writes what it counts.
pub fn count(cuda: &Cuda, case: Case, report: &Path) -> Result<Row> {
    let mut work = (case.prepare)(cuda)?;
    cuda.synchronize()?;
    let before = read(report)?.len();
    let start = Instant::now();
    work(cuda)?;
    cuda.synchronize()?;
    let seconds = start.elapsed().as_secs_f64();
    let text = read(report)?;
    let (kernels, counters) = sum(&text[before..])?;
    ensure!(!kernels.is_empty(), "nothing was launched");

    let asked = counters.global_load_bytes + counters.global_store_bytes;
    let per = |part: u64, whole: usize| part as f64 / whole as f64;
    let of_gpu = |gpu: &tightrope_emulator::roofline::Gpu| {
        let (bound, counted) = gpu.estimate(&counters).bound();
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
        ("kernels", Vec::from_iter(kernels).into()),
        ("least_bytes", case.least_bytes.into()),
        ("asked_over_least", per(asked, case.least_bytes).into()),
        (
            "sectors",
            (counters.global_load_sectors + counters.global_store_sectors).into(),
        ),
        (
            "moved_over_asked",
            per(counters.global_bytes_moved(), asked as usize).into(),
        ),
        (
            "instructions_per_element",
            per(counters.thread_instructions(), case.elements).into(),
        ),
        ("shared_passes", counters.shared_passes.into()),
        ("bank_conflicts", counters.bank_conflicts().into()),
        ("tensor_multiply_adds", counters.tensor_multiply_adds.into()),
        ("emulation_s", seconds.into()),
        (
            "roofline",
            Value::Object(GPUS.iter().map(of_gpu).collect::<Map<_, _>>()),
        ),
    ]))
}

/// The report, which is not there before the first launch.
fn read(report: &Path) -> Result<String> {
    match fs::read_to_string(report) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        text => text.with_context(|| report.display().to_string()),
    }
}

/// The kernels that were launched, and their counts added up.
fn sum(lines: &str) -> Result<(BTreeSet<String>, Counters)> {
    let (mut kernels, mut all) = (BTreeSet::new(), Counters::default());
    for line in lines.lines() {
        // Kernel, grid and block, then the counts.
        let mut parts = line.splitn(4, '\t');
        let kernel = parts.next().unwrap_or_default();
        let counters: Result<Counters, _> = parts.nth(2).unwrap_or_default().parse();
        let counters = counters.map_err(|missing| anyhow::anyhow!("no `{missing}` in: {line}"))?;
        kernels.insert(kernel.to_owned());
        all.add(&counters);
    }
    Ok((kernels, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_are_added_up() {
        let counters = Counters {
            global_load_bytes: 3,
            ..Counters::default()
        };
        let line =
            |kernel: &str| format!("{kernel}\tgrid [1, 1, 1]\tblock [32, 1, 1]\t{counters}\n");
        let (kernels, sum_of) = sum(&(line("b") + &line("a") + &line("b"))).unwrap();
        assert_eq!(Vec::from_iter(kernels), ["a", "b"]);
        assert_eq!(sum_of.global_load_bytes, 9);
        assert!(sum("a\tgrid\tblock\tblocks 1\n").is_err());
    }
}
