//! The binary with activations in bf16 on the processor.

mod fixture;

use fixture::{Fixture, json_lines, metrics};

const BF16: [&str; 4] = ["--set", "device=cpu", "--set", "precision=bf16"];

/// Losses of training steps, then of evaluations.
fn losses(fixture: &Fixture) -> Vec<f64> {
    let rows = metrics(&fixture.path("out"));
    let of = |key| rows.iter().filter_map(move |row| row[key].as_f64());
    of("loss").chain(of("eval_loss")).collect()
}

fn in_bf16(fixture: &Fixture, arguments: &[&str]) -> String {
    fixture.ok(&[arguments, &BF16[..]].concat())
}

#[test]
fn it_trains_and_evaluates_within_the_tolerances_of_a_gpu() {
    let fixture = Fixture::with_config("");
    // By default the processor takes f32.
    let told = fixture.ok(&["train", "run.toml", "--set", "device=cpu"]);
    assert!(told.contains("), f32\n"), "{told}");
    let expected = losses(&fixture);
    let told = in_bf16(&fixture, &["train", "run.toml", "--overwrite"]);
    assert!(told.contains("), bf16\n"), "{told}");
    let got = losses(&fixture);
    assert_eq!(got.len(), expected.len());
    assert_ne!(got, expected);
    for (got, expected) in got.iter().zip(&expected) {
        let close = (got / expected - 1.0).abs() <= 2e-2;
        assert!(close, "{got} {expected}");
    }
    let verified = in_bf16(&fixture, &["verify", "run.toml", "--json"]);
    assert_eq!(json_lines(&verified)[0]["passed"], true, "{verified}");
    let evaluated = in_bf16(&fixture, &["eval", "run.toml", "--json"]);
    let loss = json_lines(&evaluated)[0]["loss"].as_f64().unwrap();
    assert!(
        (loss / got[got.len() - 1] - 1.0).abs() <= 1e-6,
        "{loss} {got:?}"
    );
    let answered = in_bf16(&fixture, &["generate", "run.toml", "--prompt", "Say red"]);
    assert!(!answered.is_empty());
}

#[test]
fn a_resumed_run_ends_with_the_same_bits() {
    let fixture = Fixture::with_config("");
    // Stopping evaluates once more.
    let trained = || {
        let rows = metrics(&fixture.path("out"));
        let losses = rows.iter().filter_map(|row| row["loss"].as_f64());
        losses.collect::<Vec<_>>()
    };
    in_bf16(&fixture, &["train", "run.toml"]);
    let whole = trained();
    in_bf16(
        &fixture,
        &[
            "train",
            "run.toml",
            "--overwrite",
            "--set",
            "run.max_steps=2",
        ],
    );
    in_bf16(
        &fixture,
        &["train", "run.toml", "--resume", "--allow-change"],
    );
    assert_eq!(trained(), whole);
}
