//! The binary on a GPU, for which the emulator stands in: the loader finds its libraries first.

mod fixture;

use fixture::{Fixture, json_lines, metrics, shown};
use serde_json::Value;
use std::path::Path;
use tightrope_testkit::{is_emulated, link_libraries};

/// Runs a command that must succeed with a GPU; returns its standard output.
fn ok(fixture: &Fixture, arguments: &[&str]) -> String {
    let mut command = fixture.command(arguments);
    if is_emulated() {
        let libraries = fixture.path("libraries");
        link_libraries(&libraries);
        command.env("LD_LIBRARY_PATH", libraries);
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Losses of training steps, then of evaluations.
fn losses(output: &Path) -> Vec<f64> {
    let rows = metrics(output);
    let of = |key| rows.iter().filter_map(move |row| row[key].as_f64());
    of("loss").chain(of("eval_loss")).collect()
}

fn assert_close(a: &[f64], b: &[f64], tolerance: f64) {
    assert!(!a.is_empty() && a.len() == b.len(), "{a:?} {b:?}");
    for (a, b) in a.iter().zip(b) {
        let close = (a / b - 1.0).abs() <= tolerance;
        assert!(close, "{a} {b}");
    }
}

/// Options of a run in addition to the fixture's configuration.
const F32: [&str; 4] = ["--set", "device=cuda", "--set", "precision=f32"];

#[test]
fn training_gives_the_losses_of_the_processor() {
    let fixture = Fixture::with_config("");
    fixture.ok(&["train", "run.toml", "--set", "device=cpu"]);
    let expected = losses(&fixture.path("out"));
    let told = ok(
        &fixture,
        &[&["train", "run.toml", "--overwrite"], &F32[..]].concat(),
    );
    assert!(told.contains("cuda:0"), "{told}");
    assert_close(&losses(&fixture.path("out")), &expected, 1e-5);
    // By default it takes the GPU, and bf16.
    ok(&fixture, &["train", "run.toml", "--overwrite"]);
    assert_close(&losses(&fixture.path("out")), &expected, 2e-2);
    let rows = fixture.read("out/metrics.jsonl");
    let last = json_lines(&rows).pop().unwrap_or(Value::Null);
    assert!(last["step"].is_number(), "{rows}");
}

#[test]
fn a_run_that_was_stopped_goes_on_with_the_same_bits() {
    let fixture = Fixture::with_config("");
    ok(&fixture, &["train", "run.toml"]);
    let whole = metrics(&fixture.path("out"));
    let adapter = "out/adapter/adapter_model.safetensors";
    let weights = std::fs::read(fixture.path(adapter)).unwrap();
    ok(
        &fixture,
        &[
            "train",
            "run.toml",
            "--overwrite",
            "--set",
            "run.max_steps=4",
        ],
    );
    ok(&fixture, &["train", "run.toml", "--resume"]);
    let rows = metrics(&fixture.path("out"));
    let steps = |rows: &[Value]| -> Vec<Value> {
        rows.iter()
            .filter(|row| row["loss"].is_number())
            .cloned()
            .collect()
    };
    assert_eq!(steps(&rows), steps(&whole));
    assert_eq!(std::fs::read(fixture.path(adapter)).unwrap(), weights);
}

#[test]
fn the_adapter_answers_is_evaluated_and_verified() {
    let fixture = Fixture::with_config("");
    fixture.ok(&["train", "run.toml", "--set", "device=cpu"]);
    let both = |arguments: &[&str]| {
        let on_cpu = fixture.ok(&[arguments, &["--set", "device=cpu"]].concat());
        (on_cpu, ok(&fixture, &[arguments, &F32[..]].concat()))
    };
    let (a, b) = both(&["eval", "run.toml", "--json"]);
    let loss = |text: &str| json_lines(text)[0]["loss"].as_f64().unwrap();
    assert_close(&[loss(&a)], &[loss(&b)], 1e-5);
    let (a, b) = both(&[
        "generate",
        "run.toml",
        "--prompt",
        "Say red 3 times",
        "--max-tokens",
        "12",
    ]);
    assert_eq!(a, b);
    for precision in ["f32", "bf16"] {
        let precision = format!("precision={precision}");
        let verified = ok(
            &fixture,
            &["verify", "run.toml", "--json", "--set", &precision],
        );
        assert_eq!(json_lines(&verified)[0]["passed"], true, "{verified}");
    }
}

#[test]
fn adapters_on_weights_in_four_bits_learn_as_on_the_processor() {
    let fixture = Fixture::with_config("");
    let train = ["train", "run.toml", "--set", "lora.quantize=nf4"];
    fixture.ok(&[&train[..], &["--set", "device=cpu"]].concat());
    let expected = losses(&fixture.path("out"));
    let again = [&train[..], &["--overwrite"]].concat();
    ok(&fixture, &[&again[..], &F32[..]].concat());
    assert_close(&losses(&fixture.path("out")), &expected, 1e-5);
    ok(&fixture, &again);
    assert_close(&losses(&fixture.path("out")), &expected, 2e-2);
}

#[test]
fn without_a_driver_the_error_says_so() {
    let fixture = Fixture::with_config("");
    // On a machine with a driver there is nothing to refuse.
    if !tightrope_testkit::has_driver() {
        let error = fixture.error(&["train", "run.toml", "--set", "device=cuda"]);
        assert!(error.contains("libcuda"), "{error}");
    }
}
