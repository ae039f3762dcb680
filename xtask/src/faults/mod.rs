//! `cargo xtask faults`: kills a run at each system call that changes its output, and lets each
//! such call fail. The resumed run must end with the bits of an undisturbed run.

mod compare;
mod point;
mod scene;

use crate::digest::sha256;
use anyhow::{Context, Result, ensure};
use point::Fault;
pub(crate) use point::Point;
use scene::{Kind, Scene};
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
};

/// Number of points that `cargo xtask ci` tries.
const GATE: usize = 12;

/// Options of the command line.
pub(crate) struct Options {
    /// Number of points, chosen by the seed; all if absent.
    pub sample: Option<usize>,
    pub seed: u64,
    /// The only point to try.
    pub point: Option<Point>,
}

/// Reason why no run can be disturbed here, if there is one.
pub(crate) fn missing() -> Option<&'static str> {
    let mut command = Command::new("strace");
    command
        .args(["-qq", "-e", "trace=none", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let works = command.status().is_ok_and(|status| status.success());
    (!works).then_some("strace is not installed, or may not trace here")
}

/// Tries a sample of points, the same every time.
pub(crate) fn gate(root: &Path) -> Result<()> {
    let options = Options {
        sample: Some(GATE),
        seed: 1,
        point: None,
    };
    run(root, &options)
}

/// Tries the points, prints a table of the calls, and fails if any run did not recover.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    if let Some(why) = missing() {
        anyhow::bail!("{why}");
    }
    let program = crate::build::program(root, "--bin", "tightrope", |_| ())?;
    let mut scenes = Vec::new();
    for kind in Kind::ALL {
        scenes.push(Scene::new(root, &program, kind)?);
    }
    let points = match &options.point {
        Some(point) => vec![point.clone()],
        None => choose(scenes.iter().flat_map(Scene::points), options),
    };
    let mut table = BTreeMap::<_, Row>::new();
    for point in &points {
        let scene = scenes.iter().find(|scene| scene.kind == point.kind);
        let scene = scene.context("every kind of run has its scene")?;
        let outcome = scene.try_point(point);
        let row = table.entry((point.call.clone(), point.fault)).or_default();
        row.tried += 1;
        match outcome {
            Ok(()) => row.whole += 1,
            Err(error) => row.failures.push((point, format!("{error:#}"))),
        }
    }
    report(&table);
    let failed: usize = table.values().map(|row| row.failures.len()).sum();
    ensure!(
        failed == 0,
        "{failed} of {} disturbed runs did not come back whole",
        points.len()
    );
    Ok(())
}

#[derive(Default)]
struct Row<'a> {
    tried: usize,
    whole: usize,
    failures: Vec<(&'a Point, String)>,
}

fn report(table: &BTreeMap<(String, Fault), Row>) {
    println!(
        "{:<17}{:<8}{:>6}{:>11}",
        "call", "fault", "tried", "same bits"
    );
    for ((call, fault), row) in table {
        println!("{call:<17}{fault:<8}{:>6}{:>11}", row.tried, row.whole);
    }
    for (point, why) in table.values().flat_map(|row| &row.failures) {
        println!("{point}: {why}\n    again: cargo xtask faults --point {point}");
    }
}

/// All points, or the requested number: the same seed always chooses the same points.
fn choose(points: impl Iterator<Item = Point>, options: &Options) -> Vec<Point> {
    let mut points: Vec<Point> = points.collect();
    if let Some(count) = options.sample {
        points.sort_by_cached_key(|point| {
            sha256(&[&options.seed.to_le_bytes(), point.to_string().as_bytes()])
        });
        points.truncate(count);
    }
    points
}
