//! Compares keys and types of the output for programs with docs/metrics.md.

mod fixture;

use fixture::{Fixture, json_lines};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Command, Stdio},
};

/// Types by key, by section.
type Sections = BTreeMap<String, BTreeMap<String, String>>;

fn documented() -> Sections {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
    let mut sections = Sections::new();
    let mut section = String::new();
    for line in fs::read_to_string(file).unwrap().lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            section = heading.replace('`', "");
        } else if line.starts_with("| `") {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let (key, kind) = (cells[1].trim_matches('`'), cells[2]);
            let keys = sections.entry(section.clone()).or_default();
            let double = keys.insert(key.to_owned(), kind.to_owned());
            assert_eq!(double, None, "{section}: {key} twice");
        }
    }
    sections
}

/// Output for programs, by section.
#[derive(Default)]
struct Written(BTreeMap<String, BTreeMap<String, BTreeSet<&'static str>>>);

impl Written {
    fn add(&mut self, section: &str, value: &Value) {
        let keys = self.0.entry(section.to_owned()).or_default();
        leaves("", value, &mut |path, kind| {
            keys.entry(path.to_owned()).or_default().insert(kind);
        });
    }

    fn add_events(&mut self, text: &str) {
        for event in json_lines(text) {
            let name = event["event"].as_str().unwrap();
            self.add(&format!("train: event {name}"), &event);
        }
    }
}

/// Calls `leaf` with the path and the type of every value that has no keys.
fn leaves(path: &str, value: &Value, leaf: &mut dyn FnMut(&str, &'static str)) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                let dot = if path.is_empty() { "" } else { "." };
                leaves(&format!("{path}{dot}{key}"), value, leaf);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                leaves(&format!("{path}[]"), item, leaf);
            }
        }
        Value::Array(_) => leaf(path, "list"),
        Value::Null => leaf(path, "null"),
        Value::Bool(_) => leaf(path, "true or false"),
        Value::String(_) => leaf(path, "text"),
        Value::Number(number) if number.is_f64() => leaf(path, "number"),
        Value::Number(_) => leaf(path, "whole number"),
    }
}

fn compare(documented: &Sections, written: &Written) -> Vec<String> {
    let mut problems = Vec::new();
    let names = |section: &String| format!("section `{section}`");
    for section in documented
        .keys()
        .filter(|name| !written.0.contains_key(*name))
    {
        problems.push(format!("{} is never written", names(section)));
    }
    for (section, keys) in &written.0 {
        let Some(known) = documented.get(section) else {
            problems.push(format!("{} is not documented", names(section)));
            continue;
        };
        for key in known.keys().filter(|key| !keys.contains_key(*key)) {
            problems.push(format!("{}: `{key}` is never written", names(section)));
        }
        for (key, kinds) in keys {
            // If there is nothing to say, an object is null and a list of objects is empty.
            let inside = [format!("{key}."), format!("{key}[]")];
            let nested = known
                .keys()
                .any(|k| inside.iter().any(|start| k.starts_with(start)));
            let kinds = kinds
                .iter()
                .filter(|kind| !(nested && ["null", "list"].contains(kind)));
            for kind in kinds {
                let fits = known
                    .get(key)
                    .is_some_and(|documented| documented.contains(kind));
                if !fits {
                    problems.push(format!("{}: `{key}` is {kind}", names(section)));
                }
            }
        }
    }
    problems
}

/// Interrupts a run after its first step, and resumes it to its end.
fn interrupted(fixture: &Fixture) -> String {
    let mut run = fixture
        .command(&[
            "train",
            "run.toml",
            "--json",
            "--overwrite",
            "--set",
            "run.max_steps=100000",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(run.stdout.take().unwrap());
    let mut text = String::new();
    while !text.contains("\"event\":\"step\"") {
        assert_ne!(output.read_line(&mut text).unwrap(), 0, "{text}");
    }
    let id = run.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    output.read_to_string(&mut text).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(75));
    text
}

#[cfg(unix)]
#[test]
fn keys_are_those_of_the_document() {
    let fixture = Fixture::with_config("");
    let mut written = Written::default();
    let unused = "{\"instruction\": \"Say a\", \"output\": \"a\", \"note\": \"unused\"}\n";
    let bad = fixture.read("train.jsonl") + unused + "{\"instruction\"\n";
    fixture.write("bad.jsonl", &bad);
    let skip = [
        "--set",
        "data.on_bad_row=skip",
        "--set",
        "data.train=bad.jsonl",
    ];
    written.add_events(&fixture.ok(&[&["train", "run.toml", "--json"], &skip[..]].concat()));
    for row in json_lines(&fixture.read("out/metrics.jsonl")) {
        written.add("metrics.jsonl", &row);
    }
    // Changes are reported as notices.
    let changed = ["--resume", "--allow-change", "--set", "optimizer.beta1=0.5"];
    let resumed = [&["train", "run.toml", "--json"], &changed[..], &skip].concat();
    written.add_events(&fixture.ok(&resumed));
    written.add_events(&interrupted(&fixture));
    let pair = "{\"instruction\": \"Say a\", \"chosen\": \"a\", \"rejected\": \"b\"}\n";
    fixture.write("pairs.jsonl", &pair.repeat(4));
    let answer = "{\"instruction\": \"Say a\", \"output\": \"a\", \"label\": true}\n";
    let answers = [answer, &answer.replace("true", "false")].concat();
    fixture.write("answers.jsonl", &answers.repeat(2));
    for (kind, file) in [("dpo", "pairs.jsonl"), ("kto", "answers.jsonl")] {
        let sets = [
            format!("objective.kind={kind}"),
            "lora.r=2".into(),
            format!("data.train={file}"),
            format!("data.eval={file}"),
        ];
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let train = [&["train", "run.toml", "--json", "--overwrite"], &sets[..]].concat();
        written.add_events(&fixture.ok(&train));
        for row in json_lines(&fixture.read("out/metrics.jsonl")) {
            written.add("metrics.jsonl", &row);
        }
        let compared = [&["eval", "run.toml", "--json"], &sets[..]].concat();
        for value in json_lines(&fixture.ok(&compared)) {
            written.add("eval", &value);
        }
    }
    // The same data as sets with names.
    let sets = |file: &str| {
        let set =
            |key: &str, file: &str| format!("data.{key}=[{{path=\"{file}\", name=\"NAME\"}}]");
        [set("train", file), set("eval", file)]
    };
    let adapter = ["--set", "lora.r=2", "--set"];
    let [dpo, kto] = ["objective.kind=dpo", "objective.kind=kto"].map(|kind| {
        let sets = [&adapter[..], &[kind]];
        sets.concat()
    });
    for (file, more) in [
        ("train.jsonl", &[][..]),
        ("pairs.jsonl", &dpo),
        ("answers.jsonl", &kto),
    ] {
        let [train, eval] = sets(file);
        let sets = ["--set", &train, "--set", &eval];
        let arguments = [
            &["train", "run.toml", "--json", "--overwrite"],
            &sets[..],
            more,
        ];
        written.add_events(&fixture.ok(&arguments.concat()));
        for row in json_lines(&fixture.read("out/metrics.jsonl")) {
            written.add("metrics.jsonl", &row);
        }
        let arguments = [&["eval", "run.toml", "--json"], &sets[..], more];
        for value in json_lines(&fixture.ok(&arguments.concat())) {
            written.add("eval", &value);
        }
    }
    let small = ["--steps", "2", "--records", "200", "--questions", "20"];
    written.add_events(&fixture.ok(&[&["train", "--json"], &small[..]].concat()));

    fixture.ok(&["train", "run.toml", "--overwrite"]);
    for (section, arguments) in [
        ("eval", &["eval", "run.toml"][..]),
        ("verify", &["verify", "run.toml"]),
        ("merge", &["merge", "run.toml", "--to", "merged"]),
        (
            "generate and chat",
            &[
                "generate",
                "run.toml",
                "--prompt",
                "Hi",
                "--max-tokens",
                "4",
            ],
        ),
        ("pack", &["pack", "run.toml"]),
        ("plan", &["plan", "run.toml"]),
        ("export", &["export", "run.toml", "--pre", "gpt-2"]),
        ("inspect", &["inspect", "run.toml"]),
    ] {
        let text = fixture.ok(&[arguments, &["--json"]].concat());
        for mut value in json_lines(&text) {
            if section == "inspect" {
                let preflight = value.as_object_mut().unwrap().remove("preflight");
                written.add("train: event preflight", &preflight.unwrap());
            }
            if let Some(tensors) = value.get_mut("tensors") {
                // Keys are encodings.
                let numbers = tensors.as_object().unwrap().values().cloned();
                let numbers = numbers.map(|number| ("<encoding>".to_owned(), number));
                *tensors = numbers.collect();
            }
            written.add(section, &value);
        }
    }
    let problems = compare(&documented(), &written);
    assert!(
        problems.is_empty(),
        "docs/metrics.md:\n{}",
        problems.join("\n")
    );
}

#[test]
fn a_key_too_many_and_a_key_too_few_are_found() {
    let mut sections = Sections::new();
    let keys = [("a", "text"), ("b.c", "number or null")];
    let keys = keys.map(|(key, kind)| (key.to_owned(), kind.to_owned()));
    sections.insert("x".into(), keys.into());
    let problems = |text: &str| {
        let mut written = Written::default();
        written.add("x", &serde_json::from_str(text).unwrap());
        compare(&sections, &written)
    };
    assert!(problems(r#"{"a": "", "b": {"c": 1.5}}"#).is_empty());
    assert_eq!(
        problems(r#"{"a": "", "b": null}"#),
        ["section `x`: `b.c` is never written"]
    );
    assert_eq!(
        problems(r#"{"a": 1, "b": {"c": null}}"#),
        ["section `x`: `a` is whole number"]
    );
    assert_eq!(
        problems(r#"{"a": "", "b": {"c": 1.5}, "d": true}"#).len(),
        1
    );
}
