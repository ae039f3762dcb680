//! `cargo xtask fuzz`: runs the targets of crates/fuzz under libFuzzer, which changes inputs and
//! keeps those that reach new branches. It needs no nightly compiler.

mod driver;
mod log;

use anyhow::{Result, ensure};
use driver::Driver;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Time that `cargo xtask ci` spends on each target.
const GATE: Duration = Duration::from_secs(4);
/// Largest number of faults in one run; more are hardly looked at.
const MOST_FAULTS: usize = 20;

/// Options of the command line.
pub(crate) struct Options {
    /// Names of targets; all if there is none.
    pub targets: Vec<String>,
    /// Time for each target.
    pub time: Duration,
    pub seed: u64,
    /// One input to run again instead.
    pub input: Option<PathBuf>,
}

/// Reason why the targets cannot be built here, if there is one.
pub(crate) fn missing() -> Option<&'static str> {
    (!driver::has_cxx())
        .then_some("there is no C++ compiler (`c++`, or `CXX`), which libFuzzer needs")
}

/// Runs every target for a short time, with the same first inputs every time.
pub(crate) fn gate(root: &Path) -> Result<()> {
    let corpora = tempfile::tempdir()?;
    let options = Options {
        targets: Vec::new(),
        time: GATE,
        seed: 1,
        input: None,
    };
    fuzz(root, &options, corpora.path())
}

/// Runs the requested targets; inputs that reached new branches are kept below target/fuzz for the
/// next run.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    fuzz(root, options, &root.join("target/fuzz/corpus"))
}

fn fuzz(root: &Path, options: &Options, corpora: &Path) -> Result<()> {
    if let Some(why) = missing() {
        anyhow::bail!("{why}");
    }
    let driver = Driver::build(root)?;
    let known = driver.targets()?;
    for name in &options.targets {
        let all = known.join(", ");
        ensure!(known.contains(name), "no target `{name}`; there are: {all}");
    }
    if let Some(input) = &options.input {
        let [target] = options.targets.as_slice() else {
            anyhow::bail!("--input is run by one target: name it");
        };
        return driver.again(target, input);
    }
    let wanted = match options.targets.is_empty() {
        true => &known,
        false => &options.targets,
    };
    println!(
        "{:<14}{:>10}{:>8}{:>10}{:>9}  found",
        "target", "inputs", "per s", "branches", "peak MB"
    );
    let mut faults = 0;
    for target in wanted {
        faults += one(&driver, target, options, &corpora.join(target))?;
    }
    ensure!(faults == 0, "fuzzing found {faults} faults");
    Ok(())
}

/// Runs one target for its time, again after each fault; returns the number of different faults.
fn one(driver: &Driver, target: &str, options: &Options, corpus: &Path) -> Result<usize> {
    fs::create_dir_all(corpus)?;
    let start = Instant::now();
    let (mut inputs, mut branches, mut peak) = (0, 0, 0);
    let mut faults = BTreeMap::new();
    for seed in options.seed.. {
        let left = options.time.saturating_sub(start.elapsed());
        if left < Duration::from_secs(1) || faults.len() >= MOST_FAULTS {
            break;
        }
        let ended = driver.run(target, corpus, left, seed)?;
        inputs += ended.inputs;
        branches = branches.max(ended.branches);
        peak = peak.max(ended.peak_megabytes);
        match ended.fault {
            // The same place with another message is the same fault.
            Some((what, input)) => {
                let place = what.split(": ").next().unwrap_or_default().to_owned();
                faults.entry(place).or_insert((what, input))
            }
            None => break,
        };
    }
    let rate = inputs as f64 / start.elapsed().as_secs_f64();
    let found = match faults.len() {
        0 => "nothing".to_owned(),
        count => count.to_string(),
    };
    println!("{target:<14}{inputs:>10}{rate:>8.0}{branches:>10}{peak:>9}  {found}");
    for (what, input) in faults.values() {
        println!("    {what}");
        println!(
            "    again: cargo xtask fuzz {target} --input {}",
            input.display()
        );
    }
    if !faults.is_empty() {
        println!("    once mended, keep the inputs in crates/fuzz/found/{target}/");
    }
    Ok(faults.len())
}
