//! Errors of the command for wrong input.

mod fixture;

use fixture::Fixture;

#[test]
fn an_unknown_key_is_answered_with_the_nearest() {
    let fixture = Fixture::with_config("");
    let error = fixture.error(&["train", "run.toml", "--set", "optimizer.learning_rat=1"]);
    assert!(
        error.contains("learning_rat`") && error.contains("learning_rate"),
        "{error}"
    );
    fixture.write(
        "run.toml",
        "model = \"model\"\n[dat]\ntrain = [\"train.jsonl\"]\n",
    );
    let error = fixture.error(&["train", "run.toml"]);
    assert!(
        error.contains("run.toml:2") && error.contains("data"),
        "{error}"
    );
}

#[test]
fn data_without_a_row_is_an_error() {
    let fixture = Fixture::with_config("");
    fixture.write("train.jsonl", "");
    let error = fixture.error(&["train", "run.toml"]);
    assert!(error.contains("train.jsonl"), "{error}");
    assert!(!fixture.path("out/adapter").exists());
}

#[test]
fn a_cut_off_line_is_named_with_line_and_column() {
    let fixture = Fixture::with_config("");
    let whole = fixture.read("train.jsonl");
    fixture.write(
        "train.jsonl",
        &format!("{whole}{{\"instruction\": \"x\", \"outp"),
    );
    let line = whole.lines().count() + 1;
    let error = fixture.error(&["train", "run.toml"]);
    assert!(error.contains(&format!("train.jsonl:{line}:")), "{error}");
    let skipped = fixture.ok(&["train", "run.toml", "--set", "data.on_bad_row=skip"]);
    assert!(skipped.contains("1 row skipped"), "{skipped}");
}

#[test]
fn a_label_beyond_the_embedding_is_named_before_the_first_step() {
    let fixture = Fixture::with_config("");
    let good = "{\"input_ids\": [1, 2, 3]}\n";
    let bad = "{\"input_ids\": [1, 2, 3], \"labels\": [-100, 2, 99999]}\n";
    fixture.write("train.jsonl", &format!("{good}{bad}"));
    let error = fixture.error(&["train", "run.toml"]);
    assert!(
        error.contains("train.jsonl:2:") && error.contains("`labels[2]`: id 99999"),
        "{error}"
    );
    assert!(error.contains("embedding"), "{error}");
    assert!(!fixture.path("out/metrics.jsonl").exists());
}

#[test]
fn nothing_to_train_is_an_error() {
    let fixture = Fixture::with_config("");
    fixture.write(
        "train.jsonl",
        "{\"input_ids\": [1, 2, 3], \"labels\": [-100, -100, -100]}\n",
    );
    let error = fixture.error(&["train", "run.toml"]);
    assert!(error.contains("train"), "{error}");
}

#[test]
fn data_that_is_all_dropped_or_held_out_is_named() {
    let fixture = Fixture::with_config("");
    let sets = ["--set", "data.max_length=2", "--set", "data.overlong=drop"];
    let error = fixture.error(&[&["train", "run.toml"], &sets[..]].concat());
    assert!(
        error.contains("nothing to train: no sequence is left"),
        "{error}"
    );
    let whole = fixture.read("train.jsonl");
    fixture.write("train.jsonl", whole.lines().next().unwrap());
    let held = ["--set", "data.eval=[]", "--set", "data.eval_ratio=0.9"];
    let error = fixture.error(&[&["train", "run.toml"], &held[..]].concat());
    assert!(
        error.contains("`data.eval_ratio` holds out 1 sequence"),
        "{error}"
    );
}

#[test]
fn what_is_missing_is_named() {
    let fixture = Fixture::with_config("");
    let error = fixture.error(&["train", "nothing.toml"]);
    assert!(error.contains("nothing.toml"), "{error}");
    let error = fixture.error(&["train", "run.toml", "--set", "model=./nowhere"]);
    assert!(error.contains("nowhere"), "{error}");
    let error = fixture.error(&["train", "run.toml", "--resume"]);
    assert!(error.contains("out"), "{error}");
    let error = fixture.error(&["eval", "run.toml"]);
    assert!(
        error.contains("out/adapter") && error.contains("--base"),
        "{error}"
    );
    let usage = fixture.run(&["eval", "--model", "model"]);
    assert_eq!(usage.status.code(), Some(2), "--data is missing");
}

#[test]
fn a_damaged_model_is_named() {
    let fixture = Fixture::with_config("");
    let file = fixture.path("model/model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() - 100]).unwrap();
    let error = fixture.error(&["train", "run.toml"]);
    assert!(error.contains("model.safetensors"), "{error}");
}
