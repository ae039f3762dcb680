//! Short training runs: a small model on GPU and CPU, whose losses must agree, and a real model.

use super::{Machine, State};
use crate::emulator::build_packages;
use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use std::{fs, path::Path};

const STEPS: usize = 10;
const TRAINER: &str = "tightrope-cli";
/// A small model and its data, made by the trainer's demonstration on the CPU.
const DEMONSTRATION: [&str; 7] = [
    "train",
    "--steps",
    "1",
    "--records",
    "300",
    "--questions",
    "0",
];
const CONFIGURATION: &str = r#"
model = "runs/demonstration/model"
[data]
train = ["runs/demonstration/train.jsonl"]
max_length = 256
overlong = "drop"
[packing]
capacity = 256
[optimizer]
learning_rate = 1e-3
[run]
max_steps = 10
"#;

/// Kinds of training, with the option that selects each.
const KINDS: [(&str, Option<&str>); 2] = [
    ("all weights", None),
    ("adapter with dropout", Some("lora.dropout=0.05")),
];
/// Device and precision of each run, and the allowed relative difference of its losses from those
/// of the first: f32 differs in the order of sums and in the last bits of some functions, which
/// grow over ten steps; bf16 has 8 bits.
const RUNS: [(&str, &str, f64); 3] = [
    ("cpu", "f32", 0.0),
    ("cuda", "f32", 1e-4),
    ("cuda", "bf16", 2e-2),
];

/// The real model, and the files that it needs with the item of `cargo xtask fetch` for each.
const REAL: &str = "examples/smollm2-alpaca.toml";
const NEEDED: [(&str, &str); 2] = [
    ("models/SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2"),
    ("datasets/alpaca_en_demo.json", "alpaca"),
];

/// Trains the same small model on the CPU in f32 and on the GPU in f32 and bf16, and compares the loss
/// of each step.
pub(super) fn parity(machine: &Machine) -> Result<State> {
    build_packages(&machine.root, &[TRAINER])?;
    let folder = tempfile::tempdir()?;
    machine.tightrope(folder.path(), &DEMONSTRATION.map(str::to_owned))?;
    fs::write(folder.path().join("run.toml"), CONFIGURATION)?;
    let mut detail = Map::new();
    let mut wrong = Vec::new();
    for (kind, told) in KINDS {
        let mut expected = Vec::new();
        for (device, precision, tolerance) in RUNS {
            let output = format!("{kind}, {device}, {precision}");
            let losses = losses(machine, folder.path(), &output, told, device, precision)?;
            if expected.is_empty() {
                expected.clone_from(&losses);
            }
            let difference = difference(&losses, &expected);
            println!("{output}: at most {difference:.1e} from the CPU");
            if difference > tolerance {
                wrong.push(format!(
                    "{output}: {difference:.1e} from the CPU, more than {tolerance:.0e}"
                ));
            }
            let run = json!({ "losses": losses, "largest_difference": difference });
            detail.insert(output, run);
        }
    }
    Ok(match wrong.is_empty() {
        true => State::Ok(detail.into()),
        false => State::Failed(format!("{}\n{}", wrong.join("; "), json!(detail))),
    })
}

/// The losses of a run, step by step.
fn losses(
    machine: &Machine,
    folder: &Path,
    output: &str,
    told: Option<&str>,
    device: &str,
    precision: &str,
) -> Result<Vec<f64>> {
    let own = [
        format!("output={}", json!(folder.join(output))),
        format!("device={device}"),
        format!("precision={precision}"),
    ];
    let sets = own.into_iter().chain(told.map(str::to_owned));
    let sets = sets.flat_map(|set| ["--set".to_owned(), set]);
    let arguments: Vec<String> = ["train".to_owned(), "run.toml".to_owned()]
        .into_iter()
        .chain(sets)
        .collect();
    machine.tightrope(folder, &arguments)?;
    let metrics = folder.join(output).join("metrics.jsonl");
    let losses = step_losses(&fs::read_to_string(metrics)?)?;
    ensure!(losses.len() == STEPS, "{} steps in {output}", losses.len());
    Ok(losses)
}

/// Reads the losses from the rows of `metrics.jsonl`.
fn step_losses(metrics: &str) -> Result<Vec<f64>> {
    let mut losses = Vec::new();
    for line in metrics.lines() {
        let row: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        // Rows of evaluations have another kind of loss.
        losses.extend(row["loss"].as_f64());
    }
    Ok(losses)
}

/// Largest relative difference of two lists of losses; infinite if one is not a number.
fn difference(losses: &[f64], expected: &[f64]) -> f64 {
    let pairs = losses.iter().zip(expected);
    let differences = pairs.map(|(loss, expected)| (loss / expected - 1.0).abs());
    differences.fold(0.0, |most, difference| match difference.is_nan() {
        true => f64::INFINITY,
        false => difference.max(most),
    })
}

/// Runs a few steps of a real model with the trainer's default, which is bf16 on the GPU.
pub(super) fn real_model(machine: &Machine) -> Result<State> {
    for (file, item) in NEEDED {
        if !machine.root.join(file).exists() {
            let why = format!("{file} is not there: cargo xtask fetch {item}");
            return Ok(State::Skipped(why));
        }
    }
    if machine.stand_ins.is_some() {
        return Ok(State::Skipped("too large for the emulator".into()));
    }
    build_packages(&machine.root, &[TRAINER])?;
    let folder = tempfile::tempdir()?;
    let arguments = [
        "train".to_owned(),
        REAL.to_owned(),
        "--set".to_owned(),
        "device=cuda".to_owned(),
        "--set".to_owned(),
        format!("run.max_steps={STEPS}"),
        "--set".to_owned(),
        format!("output={}", json!(folder.path().join("run"))),
    ];
    let text = machine.tightrope(&machine.root, &arguments)?;
    print!("{text}");
    Ok(State::Ok(json!(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_those_of_steps() {
        let metrics = "{\"step\": 1, \"loss\": 2.5}\n{\"step\": 1, \"eval_loss\": 9.0}\n\
            {\"step\": 2, \"loss\": 2.0}\n";
        assert_eq!(step_losses(metrics).unwrap(), [2.5, 2.0]);
        assert!(step_losses("cut off").is_err());
    }

    #[test]
    fn the_largest_difference_counts() {
        assert_eq!(difference(&[2.0, 4.0], &[2.0, 4.0]), 0.0);
        assert_eq!(difference(&[3.0, 4.0, 2.0], &[2.0, 4.0, 2.0]), 0.5);
        assert_eq!(difference(&[f64::NAN, 4.0], &[2.0, 4.0]), f64::INFINITY);
    }

    #[test]
    fn every_run_has_as_many_steps() {
        assert!(CONFIGURATION.contains(&format!("max_steps = {STEPS}\n")));
    }
}
