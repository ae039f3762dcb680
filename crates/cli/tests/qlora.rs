//! A run with `lora.quantize = "nf4"` from training to merging, and one on a model of bitsandbytes.

mod fixture;

use fixture::{Fixture, json_lines, metrics};
use serde_json::Value;
use std::path::Path;

const NF4: [&str; 2] = ["--set", "lora.quantize=nf4"];
const FULL: [&str; 2] = ["--set", "lora.quantize=none"];

fn loss(fixture: &Fixture, arguments: &[&str]) -> f64 {
    let text = fixture.ok(&[&["eval", "--json"], arguments].concat());
    json_lines(&text).pop().unwrap()["loss"].as_f64().unwrap()
}

fn values(rows: &[Value], key: &str) -> Vec<f64> {
    rows.iter().filter_map(|row| row[key].as_f64()).collect()
}

#[test]
fn a_run_on_weights_in_four_bits_learns_and_its_adapter_is_used_everywhere() {
    let fixture = Fixture::with_config("");
    let config = fixture.read("run.toml");
    let config = config.replace("[lora]\n", "[lora]\nquantize = \"nf4\"\n");
    fixture.write("run.toml", &config);
    fixture.ok(&["train", "run.toml"]);
    let rows = metrics(&fixture.path("out"));
    let losses = values(&rows, "loss");
    assert_eq!(losses.len(), 6);
    assert!(losses[5] < losses[0] - 0.1, "{losses:?}");

    // The evaluation during training and this one use the same weights, in four bits.
    let trained = loss(&fixture, &["run.toml"]);
    let last = *values(&rows, "eval_loss").last().unwrap();
    assert!((trained - last).abs() <= 1e-6, "{trained} {last}");
    let base = loss(&fixture, &["run.toml", "--base"]);
    assert!(trained < base - 0.1, "{trained} {base}");
    let full_base = loss(&fixture, &[&["run.toml", "--base"], &FULL[..]].concat());
    assert_ne!(base, full_base);

    // Merging uses the weights of the files.
    fixture.ok(&["merge", "run.toml", "--to", "merged"]);
    let on_files = loss(&fixture, &[&["run.toml"], &FULL[..]].concat());
    let merged = loss(&fixture, &["--model", "merged", "--data", "eval.jsonl"]);
    let (near, far) = ((merged - on_files).abs(), (merged - trained).abs());
    assert!(
        near <= 1e-5 && far > 10.0 * near,
        "{merged} {on_files} {trained}"
    );
    assert!(merged < base - 0.1, "{merged} {base}");

    let prompt = ["--prompt", "Say red 3 times", "--max-tokens", "8", "--json"];
    let answer = |arguments: &[&str]| fixture.ok(&[&["generate"], arguments, &prompt[..]].concat());
    let options = ["--model", "model", "--adapter", "out/adapter"];
    let by_options = answer(&[&options[..], &NF4[..]].concat());
    assert_eq!(answer(&["run.toml"]), by_options);
    let verified = fixture.ok(&["verify", "run.toml", "--json"]);
    assert_eq!(json_lines(&verified)[0]["passed"], true, "{verified}");
}

#[test]
fn another_storage_is_refused_on_resuming() {
    let fixture = Fixture::with_config("");
    fixture.ok(&["train", "run.toml", "--set", "run.max_steps=2"]);
    let error = fixture.error(&[&["train", "run.toml", "--resume"], &NF4[..]].concat());
    let said = "lora.quantize: \"none\" -> \"nf4\"";
    assert!(error.contains(said), "{error}");
}

#[test]
fn a_model_of_bitsandbytes_is_trained_and_merged() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model/tests");
    let folder = tests.join("bitsandbytes/double");
    let data = tests.join("golden/llama_biases/documents.jsonl");
    let (folder, data) = (folder.to_str().unwrap(), data.to_str().unwrap());
    let fixture = Fixture::new();
    let config = format!(
        "model = \"{folder}\"\noutput = \"out\"\n[data]\ntrain = [\"{data}\"]\neval = [\"{data}\"]\n\
         [lora]\nr = 4\n[packing]\ncapacity = 128\n[optimizer]\nlearning_rate = 0.02\n\
         [schedule]\nkind = \"constant\"\nwarmup_steps = 0\n[run]\nmax_steps = 8\n"
    );
    fixture.write("run.toml", &config);
    fixture.ok(&["train", "run.toml"]);
    let losses = values(&metrics(&fixture.path("out")), "loss");
    assert!(losses[7] < losses[0] - 0.5, "{losses:?}");
    // The files only have weights in four bits; the merged weights are bf16.
    let trained = loss(&fixture, &["run.toml"]);
    fixture.ok(&["merge", "run.toml", "--to", "merged"]);
    let merged = loss(&fixture, &["--model", "merged", "--data", data]);
    let distance = (merged - trained).abs();
    assert!(distance <= 0.02 * trained, "{merged} {trained}");

    fixture.write("full.toml", &config.replace("[lora]\nr = 4\n", ""));
    let error = fixture.error(&["train", "full.toml", "--set", "output=full"]);
    assert!(
        error.contains("NF4") && error.contains("adapter"),
        "{error}"
    );
}
