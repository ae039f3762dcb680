//! New tokens end to end: training, going on, evaluating, answering, merging.

mod fixture;

use fixture::{Fixture, json_lines, metrics};
use serde_json::Value;
use std::fs;

const TOKENS: &str = "\n[tokens]\nadd = [\"<tool>\"]\nadd_special = [\"<call>\"]\n\
                      descriptions = { \"<call>\" = \"call\" }\n";

/// A run on records with new tokens, in `out`.
fn fixture(more: &str) -> Fixture {
    let fixture = Fixture::with_config(&format!("{TOKENS}{more}"));
    for name in ["train.jsonl", "eval.jsonl"] {
        let text = fixture
            .read(name)
            .replace("red", "<tool>")
            .replace("blue", "<call>");
        fixture.write(name, &text);
    }
    fixture
}

fn loss(fixture: &Fixture, arguments: &[&str]) -> f64 {
    let text = fixture.ok(&[&["eval", "--json"], arguments].concat());
    json_lines(&text).pop().unwrap()["loss"].as_f64().unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_adapter_with_new_tokens_is_trained_used_and_merged() {
    let fixture = fixture("");
    let before = loss(&fixture, &["run.toml", "--base"]);
    let said = fixture.run(&["train", "run.toml"]);
    let said =
        String::from_utf8_lossy(&said.stderr).into_owned() + &String::from_utf8_lossy(&said.stdout);
    let notice = "2 new tokens have the ids 258 to 259; the embedding grows from 258 to 260 rows";
    assert!(said.contains(notice), "{said}");
    let settings = json(&fixture.read("out/adapter/adapter_config.json"));
    assert_eq!(
        settings["trainable_token_indices"],
        serde_json::json!([258, 259])
    );
    assert!(
        fixture
            .read("out/adapter/tokenizer.json")
            .contains("<call>")
    );
    let trained = loss(&fixture, &["run.toml"]);
    assert!(trained < before, "{trained} {before}");
    // The adapter's folder is enough.
    let options = [
        "--model",
        "model",
        "--adapter",
        "out/adapter",
        "--data",
        "eval.jsonl",
    ];
    assert_eq!(loss(&fixture, &options), trained);
    let answer = ["generate", "--model", "model", "--adapter", "out/adapter"];
    fixture.ok(&[
        &answer[..],
        &["--max-tokens", "4", "--prompt", "Say <tool>"],
    ]
    .concat());
    fixture.ok(&["verify", "run.toml"]);
    fixture.ok(&["inspect", "run.toml"]);
    fixture.ok(&["pack", "run.toml"]);

    fixture.ok(&["merge", "run.toml", "--to", "merged"]);
    assert_eq!(json(&fixture.read("merged/config.json"))["vocab_size"], 260);
    let merged = loss(&fixture, &["--model", "merged", "--data", "eval.jsonl"]);
    assert!((merged - trained).abs() <= 1e-5, "{merged} {trained}");

    // A run that was stopped and goes on has the same rows and bits.
    let whole = fs::read(fixture.path("out/adapter/adapter_model.safetensors")).unwrap();
    let rows = metrics(&fixture.path("out"));
    fixture.ok(&[
        "train",
        "run.toml",
        "--overwrite",
        "--set",
        "run.max_steps=2",
    ]);
    fixture.ok(&["train", "run.toml", "--resume"]);
    let resumed = fs::read(fixture.path("out/adapter/adapter_model.safetensors")).unwrap();
    assert!(whole == resumed);
    let steps = |rows: &[Value]| -> Vec<Value> {
        let steps = rows.iter().filter(|row| row.get("grad_norm").is_some());
        steps.cloned().collect()
    };
    assert_eq!(steps(&rows), steps(&metrics(&fixture.path("out"))));
    let other = [
        "train",
        "run.toml",
        "--resume",
        "--set",
        "tokens.add=[\"<other>\"]",
    ];
    let error = fixture.error(&[&other[..], &["--set", "run.max_steps=8"]].concat());
    assert!(error.contains("tokens.add"), "{error}");

    // An adapter that goes on keeps its tokens.
    let onward = ["--set", "adapter=out/adapter", "--set", "output=onward"];
    fixture.ok(&[&["train", "run.toml"], &onward[..]].concat());
    assert!(
        fixture
            .read("onward/adapter/tokenizer.json")
            .contains("<call>")
    );
    let more = [
        "--overwrite",
        "--set",
        "tokens.add=[\"<tool>\", \"<more>\"]",
    ];
    let error = fixture.error(&[&["train", "run.toml"], &onward[..], &more].concat());
    assert!(
        error.contains("does not know the token `<more>`"),
        "{error}"
    );
}

#[test]
fn full_training_leaves_a_model_with_the_tokens() {
    let fixture = fixture("");
    let text = fixture
        .read("run.toml")
        .replace("[lora]\nr = 4\nalpha = 16\n", "");
    fixture.write("run.toml", &text);
    fixture.ok(&["train", "run.toml"]);
    assert_eq!(
        json(&fixture.read("out/model/config.json"))["vocab_size"],
        260
    );
    assert!(fixture.read("out/model/tokenizer.json").contains("<tool>"));
    let trained = loss(&fixture, &["run.toml"]);
    let alone = loss(&fixture, &["--model", "out/model", "--data", "eval.jsonl"]);
    assert_eq!(trained, alone);
    let weights = |folder: &str| fs::read(fixture.path(folder).join("model.safetensors")).unwrap();
    let whole = weights("out/model");
    fixture.ok(&[
        "train",
        "run.toml",
        "--overwrite",
        "--set",
        "run.max_steps=2",
    ]);
    fixture.ok(&["train", "run.toml", "--resume"]);
    assert!(whole == weights("out/model"));
}

#[test]
fn wrong_settings_of_tokens_are_errors_with_their_line() {
    let fixture = fixture("");
    let error = |set: &str| fixture.error(&["train", "run.toml", "--set", set]);
    let text = error("tokens.add=[\"<call>\"]");
    assert!(
        text.contains("adds `<call>`, which is added already"),
        "{text}"
    );
    let text = error("tokens.add_special=[]");
    assert!(text.contains("tokens.descriptions"), "{text}");
    let text = error("tokens.add=[7]");
    assert!(text.contains("a list of texts"), "{text}");
    let text = error("tokens.init=median");
    assert!(text.contains("one of mean, pieces"), "{text}");
    let text = error("lora.trainable_token_indices=[3]");
    assert!(text.contains("the row of the new token 258"), "{text}");
    let text = error("lora.trainable_token_indices={ embed_tokens = [-1] }");
    assert!(text.contains("a list of token ids"), "{text}");
    fixture.write(
        "run.toml",
        &fixture.read("run.toml").replace("add_special", "add"),
    );
    assert!(fixture.error(&["train", "run.toml"]).contains("run.toml:"));
}
