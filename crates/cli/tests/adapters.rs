//! Adapters that go on: what is said about settings that do not count or cannot change.

mod fixture;

use fixture::Fixture;

#[test]
fn another_rank_cannot_be_allowed() {
    let fixture = Fixture::with_config("");
    fixture.ok(&["train", "run.toml", "--set", "run.max_steps=2"]);
    let other = ["train", "run.toml", "--resume", "--allow-change", "--set"];
    let error = fixture.error(&[&other[..], &["lora.r=8"]].concat());
    for part in ["--allow-change cannot change that", "lora.r: 4 -> 8"] {
        assert!(error.contains(part), "{error}");
    }
    fixture.ok(&[&other[..], &["lora.dropout=0.1"]].concat());
}

#[test]
fn settings_that_an_adapter_brings_along_are_not_used() {
    let fixture = Fixture::with_config("");
    fixture.ok(&["train", "run.toml"]);
    let onward = ["--set", "adapter=out/adapter", "--set", "output=onward"];
    let output = fixture.run(&[&["train", "run.toml"], &onward[..]].concat());
    let said = fixture::shown(&output);
    assert!(said.contains("are not used: lora.r, lora.alpha"), "{said}");
    let output = fixture.run(&["train", "run.toml", "--overwrite"]);
    assert!(!fixture::shown(&output).contains("are not used"));
}
