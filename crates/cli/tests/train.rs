//! `tightrope train` end to end: its files, output and refusals, interrupted and resumed.

mod fixture;

use fixture::{Fixture, json_lines, metrics, shown};
use std::{
    fs,
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
};

#[test]
fn a_run_learns_and_leaves_metrics_checkpoints_and_an_adapter() {
    let fixture = Fixture::with_config("");
    let output = fixture.ok(&["train", "run.toml"]);
    assert!(!output.contains('\x1b'), "colors on a pipe: {output:?}");
    for step in 1..=6 {
        assert!(
            output.contains(&format!("step {step}/6  loss ")),
            "{output}"
        );
    }
    for part in [
        "Data\n",
        "Plan\n",
        "Finished\n",
        "real tokens/s",
        "padding",
        "  model           model\n",
        "LoRA, rank 4, alpha 16, all linear layers\n",
        "  learning rate   2e-2\n",
        "), f32\n",
    ] {
        assert!(output.contains(part), "no {part:?} in:\n{output}");
    }
    let rows = metrics(&fixture.path("out"));
    let steps: Vec<_> = rows
        .iter()
        .filter(|row| row.get("loss").is_some())
        .collect();
    assert_eq!(steps.len(), 6);
    let loss = |index: usize| steps[index]["loss"].as_f64().unwrap();
    assert!(loss(5) < loss(0) - 0.1, "{} then {}", loss(0), loss(5));
    for key in [
        "step",
        "grad_norm",
        "learning_rate",
        "tokens",
        "trained_tokens",
        "padding_tokens",
    ] {
        assert!(steps[0][key].is_number(), "{key}");
    }
    assert!(rows.iter().any(|row| row["eval_loss"].is_number()));
    assert!(fixture.path("out/adapter/adapter_config.json").exists());
    assert!(
        fixture
            .path("out/adapter/adapter_model.safetensors")
            .exists()
    );
}

#[test]
fn json_is_one_event_a_line() {
    let fixture = Fixture::with_config("");
    let events = json_lines(&fixture.ok(&["train", "run.toml", "--json"]));
    let named = |name| events.iter().filter(move |event| event["event"] == name);
    assert_eq!(named("step").count(), 6);
    assert_eq!(
        named("preflight").count(),
        2,
        "training and evaluation data"
    );
    assert_eq!(named("plan").next().unwrap()["total_steps"], 6);
    assert!(named("checkpoint").count() >= 3 && named("evaluation").count() >= 1);
    let last = events.last().unwrap();
    assert_eq!(last["event"], "report");
    assert_eq!(last["report"]["outcome"], "finished");
    assert_eq!(last["report"]["steps"], 6);
}

#[test]
fn an_output_folder_with_a_run_is_refused() {
    let fixture = Fixture::with_config("");
    fixture.ok(&["train", "run.toml"]);
    let before = fixture.read("out/metrics.jsonl");
    let error = fixture.error(&["train", "run.toml"]);
    assert!(
        error.contains("--resume") && error.contains("--overwrite"),
        "{error}"
    );
    assert_eq!(fixture.read("out/metrics.jsonl"), before);
    fixture.ok(&[
        "train",
        "run.toml",
        "--overwrite",
        "--set",
        "run.max_steps=2",
    ]);
    assert_eq!(
        metrics(&fixture.path("out"))
            .iter()
            .filter(|r| r["loss"].is_number())
            .count(),
        2
    );
}

#[test]
fn a_changed_configuration_is_shown_and_refused() {
    let fixture = Fixture::with_config("");
    fixture.ok(&["train", "run.toml", "--set", "run.max_steps=2"]);
    let changed = [
        "train",
        "run.toml",
        "--resume",
        "--set",
        "optimizer.beta1=0.5",
    ];
    let error = fixture.error(&changed);
    assert!(
        error.contains("beta1") && error.contains("--allow-change"),
        "{error}"
    );
    fixture.ok(&[&changed[..], &["--allow-change"]].concat());
}

#[test]
fn the_plan_shows_what_the_optimizer_keeps() {
    let fixture = Fixture::with_config("");
    // Large enough factors of the adapter have 4,096 elements or more.
    let sets = ["lora.r=128", "optimizer.state=8bit", "run.max_steps=1"];
    let mut command = vec!["train", "run.toml", "--json"];
    command.extend(sets.iter().flat_map(|set| ["--set", set]));
    let events = json_lines(&fixture.ok(&command));
    let plan = events
        .iter()
        .find(|event| event["event"] == "plan")
        .unwrap();
    let ways = plan["optimizer"].as_array().unwrap();
    let states: Vec<_> = ways
        .iter()
        .map(|way| way["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["8bit", "f32"]);
    let sum = |key: &str| {
        ways.iter()
            .map(|way| way[key].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(sum("parameters"), plan["trained_parameters"]);

    let text = fixture.ok(&[&command[..2], &command[3..], &["--overwrite"]].concat());
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("  optimizer       "));
    // In each of two layers 9 factors have 32 × 128 elements, 3 have 48 × 128, and the second ones of k
    // and v 16 × 128.
    let expected = [
        "adamw, 8bit: 219.4 KiB for 110,592 parameters in 24 tensors",
        "adamw, f32: 64.0 KiB for 8,192 parameters in 4 tensors",
    ];
    assert_eq!(lines.collect::<Vec<_>>(), expected);
}

#[test]
fn threads_do_not_change_a_bit() {
    let fixture = Fixture::with_config("");
    let weights = |threads: &str, output: &str| {
        let output_key = format!("output={output}");
        fixture.ok(&[
            "train",
            "run.toml",
            "--threads",
            threads,
            "--set",
            &output_key,
        ]);
        fs::read(fixture.path(&format!("{output}/adapter/adapter_model.safetensors"))).unwrap()
    };
    assert_eq!(weights("1", "one"), weights("3", "three"));
}

/// The run is too short to learn much; tests of the training crate show that it learns.
#[cfg(unix)]
#[test]
fn without_a_configuration_the_demonstration_runs() {
    let fixture = Fixture::new();
    // The program is called by a path that is valid only here, as by `cargo run`.
    fs::create_dir(fixture.path("target")).unwrap();
    let program = fixture.path("target/tightrope");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_tightrope"), program).unwrap();
    let shell = |line: &str, input: &str| {
        fixture.write("input", input);
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(fixture.path(""));
        let input = fs::File::open(fixture.path("input")).unwrap();
        let output = command.stdin(input).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{line}\n{}", shown(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let demonstration = "target/tightrope train --steps 2 --records 400 --questions 5";
    let text = shell(demonstration, "");
    for part in ["step 2/2", "Asked ", "padded batches would have taken"] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
    let last = text.lines().last().unwrap();
    let told = last.strip_prefix("try it with: ").unwrap();
    assert!(told.starts_with("target/tightrope chat "), "{told}");
    let answer = shell(told, "2 + 2?\n");
    assert!(answer.starts_with("> 2 + 2?\n"), "{answer}");
    let usage = fixture.run(&["train", "--set", "seed=1"]);
    assert_eq!(usage.status.code(), Some(2), "a configuration is missing");
}

/// Interrupts a run after its second step, resumes it, and compares it with a run that never
/// stopped.
#[cfg(unix)]
fn interrupted(signal: &str) {
    let fixture = Fixture::with_config("");
    let steps = [
        "--threads",
        "1",
        "--set",
        "run.max_steps=100",
        "--set",
        "run.save_every=1000",
    ];
    let mut run = fixture
        .command(&[&["train", "run.toml"], &steps[..]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines();
    lines
        .find(|line| line.as_ref().unwrap().starts_with("step 2/"))
        .unwrap()
        .unwrap();
    let kill = Command::new("kill")
        .args([signal, &run.id().to_string()])
        .status()
        .unwrap();
    assert!(kill.success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    let mut stderr = String::new();
    run.stderr
        .take()
        .unwrap()
        .read_to_string(&mut stderr)
        .unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(75), "{rest:#?}\n{stderr}");
    let last = rest.last().unwrap();
    assert!(
        last.starts_with("go on with: ") && last.ends_with(" --resume"),
        "{last}"
    );
    assert!(stderr.contains("stopping after this step"), "{stderr}");
    let done = metrics(&fixture.path("out")).len();
    assert!((2..100).contains(&done), "{done}");

    let command = last.trim_start_matches("go on with: ");
    let resumed = Command::new("sh")
        .args(["-c", command])
        .current_dir(fixture.path(""))
        .output()
        .unwrap();
    assert_eq!(resumed.status.code(), Some(0), "{}", shown(&resumed));
    fixture.ok(&[&["train", "run.toml", "--set", "output=whole"], &steps[..]].concat());
    let weights = |output: &str| {
        fs::read(
            fixture
                .path(output)
                .join("adapter/adapter_model.safetensors"),
        )
        .unwrap()
    };
    assert_eq!(weights("out"), weights("whole"));
    assert_eq!(
        metrics(&fixture.path("out")),
        metrics(&fixture.path("whole"))
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_the_printed_command_ends_with_the_same_bits() {
    interrupted("-INT");
}

#[cfg(unix)]
#[test]
fn sigterm_does_the_same() {
    interrupted("-TERM");
}

/// With `tightrope pack --write` and `packing.file`, the run equals one that packs its data itself.
#[test]
fn a_stored_packing_gives_the_same_run_and_other_data_is_refused() {
    let fixture = Fixture::with_config("");
    let table = fixture.ok(&["pack", "run.toml", "--write", "packing.json"]);
    assert!(table.contains("packing.file=packing.json"), "{table}");
    fixture.ok(&["train", "run.toml"]);
    let file = ["--set", "packing.file=packing.json"];
    let stored = [&["train", "run.toml", "--set", "output=stored"], &file[..]].concat();
    fixture.ok(&stored);
    let weights = |folder: &str| {
        fs::read(
            fixture
                .path(folder)
                .join("adapter/adapter_model.safetensors"),
        )
    };
    assert!(weights("out").unwrap() == weights("stored").unwrap());
    assert_eq!(
        metrics(&fixture.path("out")),
        metrics(&fixture.path("stored"))
    );

    let mut data = fixture.read("train.jsonl");
    data.truncate(data.trim_end().rfind('\n').unwrap() + 1);
    fixture.write("train.jsonl", &data);
    let refused = [&["train", "run.toml", "--overwrite"], &file[..]].concat();
    let error = fixture.error(&refused);
    let said = "packing.json: cannot be used: packed from other data: the packing is of 24 sequences, the data has 23";
    assert!(error.contains(said), "{error}");
}

#[test]
fn inspect_says_what_is_what() {
    let fixture = Fixture::with_config("");
    let beyond = fixture.error(&["inspect", "run.toml", "--first", "25"]);
    assert!(
        beyond.contains("--first 25: the data has 24 sequences only"),
        "{beyond}"
    );
    let pair = "{\"instruction\": \"Say a\", \"chosen\": \"a\", \"rejected\": \"b\"}\n";
    fixture.write("pairs.jsonl", pair);
    let pairs = [
        "--set",
        "objective.kind=dpo",
        "--set",
        "data.train=pairs.jsonl",
        "--set",
        "data.eval=pairs.jsonl",
    ];
    let text = fixture.ok(&[&["inspect", "run.toml"], &pairs[..]].concat());
    for says in [
        "sequence 1 (chosen of pair 1) ·",
        "sequence 2 (rejected of pair 1) ·",
        "rejected of pair 1 ",
    ] {
        assert!(text.contains(says), "{says}: {text}");
    }
    // A chat template that is not the model's is said once.
    let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}";
    fixture.write("t.jinja", template);
    let said = |set: &str| shown(&fixture.run(&["inspect", "run.toml", "--set", set]));
    let other = said("data.chat_template=t.jinja");
    assert_eq!(
        other
            .matches("another chat template than it is trained with")
            .count(),
        1,
        "{other}"
    );
    let set = said("data.train=[{path=\"train.jsonl\", chat_template=\"t.jinja\"}]");
    assert!(
        set.contains("a chat template of their own") && set.contains("adapter/: train"),
        "{set}"
    );
    assert!(!said("seed=1").contains("chat template"));
}

#[test]
fn sets_are_counted_and_evaluated_one_by_one() {
    let fixture = Fixture::with_config("");
    let sets = [
        "--set",
        "data.train=[{path=\"train.jsonl\", weight=1.5}, {path=\"eval.jsonl\", name=\"more\", samples=4}]",
        "--set",
        "data.eval=[{path=\"eval.jsonl\"}, {path=\"train.jsonl\", samples=3}]",
    ];
    let shown = fixture.ok(&[&["inspect", "run.toml"], &sets[..]].concat());
    for says in [
        "train: weight 1.5 of 24 records, 36 records, 36 sequences",
        "more: samples 4 of 6 records, 4 records, 4 sequences",
    ] {
        assert!(shown.contains(says), "{says}: {shown}");
    }
    let run = fixture.ok(&[&["train", "run.toml"], &sets[..]].concat());
    assert!(
        run.contains("  eval: ") && run.contains("  train: "),
        "{run}"
    );
    let rows = json_lines(&fixture.read("out/metrics.jsonl"));
    let last = rows
        .iter()
        .rfind(|row| row.get("eval_loss").is_some())
        .unwrap();
    let part = |set: &str, key: &str| last["eval_sets"][set][key].as_f64().unwrap();
    // The whole is the mean over the tokens of both sets.
    let sum: f64 = ["eval", "train"]
        .map(|set| part(set, "loss") * part(set, "trained_tokens"))
        .iter()
        .sum();
    let tokens = last["eval_trained_tokens"].as_f64().unwrap();
    assert_eq!(
        tokens,
        part("eval", "trained_tokens") + part("train", "trained_tokens")
    );
    assert!(
        (sum / tokens - last["eval_loss"].as_f64().unwrap()).abs() < 1e-9,
        "{last}"
    );
    // A set alone has the loss that it has among others.
    let alone = ["--json", "--set", "data.eval=eval.jsonl"];
    let alone = json_lines(&fixture.ok(&[&["eval", "run.toml"], &alone[..]].concat()));
    assert!(
        (alone[0]["loss"].as_f64().unwrap() - part("eval", "loss")).abs() < 1e-5,
        "{alone:?}"
    );
    // Held-out shares are named after their sets.
    let held = [
        "--json",
        "--set",
        "data.eval=[]",
        "--set",
        "data.eval_ratio=0.2",
    ];
    let held = fixture.ok(&[&["eval", "run.toml"], &sets[..2], &held].concat());
    let held = json_lines(&held);
    assert!(
        held[0]["sets"]["more"]["tokens"].as_u64().unwrap() > 0,
        "{held:?}"
    );
    let column = fixture.error(&[
        "inspect",
        "run.toml",
        "--set",
        "data.columns={output=\"said\"}",
    ]);
    assert!(
        column.contains("--set data.columns") && column.contains("no row has the column `said`"),
        "{column}"
    );
}
