//! Shared beginnings in the words of every command.

mod fixture;

use fixture::{Fixture, json_lines};
use serde_json::Value;

/// Pairs share their prompts: `pack`, `inspect`, `verify` and the plan of a run say so.
#[test]
fn shared_beginnings_are_said_shown_and_verified() {
    let fixture = Fixture::with_config("");
    let pair = "{\"instruction\": \"Say a long thing\", \"chosen\": \"a\", \"rejected\": \"b\"}\n";
    fixture.write("pairs.jsonl", &pair.repeat(4));
    let pairs = [
        "--set",
        "objective.kind=dpo",
        "--set",
        "data.train=pairs.jsonl",
        "--set",
        "data.eval=pairs.jsonl",
    ];
    let said = |command: &str, more: &[&str]| {
        fixture.ok(&[&[command, "run.toml"], &pairs[..], more].concat())
    };
    let text = said("pack", &[]);
    let saves = "packing.share_prefix: beginnings are computed once: ";
    assert!(text.contains(saves), "{text}");
    let off = ["--set", "packing.share_prefix=false"];
    let text = said("pack", &off);
    let predicts = "with packing.share_prefix = true, beginnings are computed once: ";
    assert!(text.contains(predicts), "{text}");
    let text = said("inspect", &[]);
    assert!(text.contains("beginning of 1 to 2"), "{text}");
    assert!(!said("inspect", &off).contains("beginning of"));
    let verified: Value = serde_json::from_str(&said("verify", &["--json"])).unwrap();
    assert_eq!(verified["passed"], true);
    let checks = verified["checks"].as_array().unwrap();
    assert!(
        checks
            .iter()
            .any(|check| check["quantity"] == "loss of the pairs")
    );
    let plan = |more: &[&str]| {
        let events = json_lines(&said("train", &[&["--json", "--overwrite"], more].concat()));
        events
            .into_iter()
            .find(|event| event["event"] == "plan")
            .unwrap()
    };
    let (shared, whole) = (plan(&[]), plan(&off));
    let saved = shared["shared_tokens_per_epoch"].as_u64().unwrap();
    let tokens = |plan: &Value| plan["tokens_per_epoch"].as_u64().unwrap();
    assert!(saved > 8);
    assert_eq!(tokens(&shared) + saved, tokens(&whole));
    assert_eq!(whole["shared_tokens_per_epoch"], Value::Null);

    // Records of `train.jsonl` begin alike.
    let text = fixture.ok(&["pack", "run.toml", "--set", "packing.share_prefix=true"]);
    assert!(text.contains(saves), "{text}");
    let error = fixture.error(&[
        "pack",
        "run.toml",
        "--set",
        "packing.share_prefix=true",
        "--algorithm",
        "wrapped",
    ]);
    assert!(
        error.contains("share a beginning, cannot be cut"),
        "{error}"
    );
}
