//! `export` end to end: files that are read again, answers that stay, and what is refused.

mod fixture;

use fixture::{Fixture, json_lines};
use serde_json::Value;

/// A name of a way to split text that splits the texts of the fixture as its tokenizer does: without
/// merges every way does.
const PRE: [&str; 2] = ["--pre", "gpt-2"];

fn export(fixture: &Fixture, arguments: &[&str]) -> Value {
    let text = fixture.ok(&[&["export", "--json"], arguments, &PRE].concat());
    json_lines(&text).pop().unwrap()
}

fn answer(fixture: &Fixture, arguments: &[&str]) -> Value {
    let prompt = [
        "--prompt",
        "Say red 3 times",
        "--max-tokens",
        "24",
        "--json",
    ];
    let text = fixture.ok(&[&["generate"], arguments, &prompt].concat());
    json_lines(&text).remove(0)
}

#[test]
fn exported_files_answer_as_the_model_does() {
    let fixture = Fixture::with_config("");
    fixture.ok(&["train", "run.toml"]);
    let written = export(&fixture, &["run.toml", "--type", "f32"]);
    assert!(
        written["file"]
            .as_str()
            .unwrap()
            .ends_with("out/model-f32.gguf")
    );
    let size = fixture.path("out/model-f32.gguf").metadata().unwrap().len();
    assert_eq!(written["bytes"], size);
    assert!(
        written["tensors"]["F32"].as_u64().unwrap() > 10,
        "{written}"
    );
    let trained = answer(&fixture, &["run.toml"]);
    assert_eq!(
        answer(&fixture, &["--model", "out/model-f32.gguf"])["answer"],
        trained["answer"]
    );
    let modelfile = fixture.read("out/model-f32.Modelfile");
    for line in [
        "FROM ./model-f32.gguf\n",
        "PARAMETER stop \"<|im_end|>\"\n",
        "{{ \"<|im_start|>user\\n\" }}{{ .Content }}",
    ] {
        assert!(modelfile.contains(line), "{line}: {modelfile}");
    }
    // Blocks of 32 do not fit the rows of the gated unit: a notice says what is used.
    let output = fixture.run(&[&["export", "run.toml", "--type", "q4_k_m"][..], &PRE].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("not Q4_K, as in llama.cpp: rows of 32"),
        "{said}"
    );
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(
        shown.contains("out/model-q4_k_m.gguf") && shown.contains("Q5_0"),
        "{shown}"
    );
    answer(&fixture, &["--model", "out/model-q4_k_m.gguf"]);

    let adapter = export(
        &fixture,
        &[
            "run.toml",
            "--adapter-only",
            "--type",
            "f32",
            "--to",
            "a.gguf",
        ],
    );
    assert_eq!(adapter["tensors"]["F32"], 28);
    assert!(fixture.read("a.Modelfile").contains("ADAPTER ./a.gguf"));
    // A run that replaces the earlier one removes what was made of it.
    fixture.ok(&["train", "run.toml", "--overwrite"]);
    assert!(!fixture.path("out/model-f32.gguf").exists());
    assert!(!fixture.path("out/model-f32.Modelfile").exists());
    assert!(fixture.path("a.gguf").exists());
}

#[test]
fn a_gguf_file_is_written_again_and_keeps_its_tokenizer() {
    let fixture = Fixture::new();
    let to = |name: &'static str, more: &[&str]| {
        export(&fixture, &[&["--to", name, "--type", "f32"], more].concat())
    };
    to("one.gguf", &["--model", "model"]);
    to("two.gguf", &["--model", "one.gguf"]);
    let same = answer(&fixture, &["--model", "two.gguf"]);
    assert_eq!(
        same["answer"],
        answer(&fixture, &["--model", "model"])["answer"]
    );
    // The file says how its tokenizer splits text: no name is needed.
    fixture.ok(&["export", "--model", "one.gguf", "--to", "three.gguf"]);
}

#[test]
fn exports_are_refused_with_advice() {
    let fixture = Fixture::new();
    let error = |arguments: &[&str]| fixture.error(&[&["export"], arguments].concat());
    let model = ["--model", "model", "--to", "m.gguf"];
    let unknown = error(&model);
    assert!(
        unknown.contains("its hash is") && unknown.contains("--pre"),
        "{unknown}"
    );
    let wrong = error(&[&model[..], &["--type", "q3_k"]].concat());
    assert!(
        wrong.contains("no type `q3_k`") && wrong.contains("q4_k_m"),
        "{wrong}"
    );
    let ending = error(&["--model", "model", "--to", "m.bin"]);
    assert!(ending.contains("ends in .gguf"), "{ending}");
    let inside = error(&["--model", "model", "--to", "model/m.gguf"]);
    assert!(inside.contains("lies in the model"), "{inside}");
    let none = error(&[&model[..], &["--adapter-only"]].concat());
    assert!(none.contains("no adapter"), "{none}");
    fixture.write("m.gguf", "mine");
    let exists = error(&[&model[..], &["--overwrite"]].concat());
    assert!(exists.contains("no export has written it"), "{exists}");
    assert_eq!(fixture.read("m.gguf"), "mine");
    std::fs::remove_file(fixture.path("m.gguf")).unwrap();
    export(&fixture, &model);
    let again = error(&[&model[..], &PRE].concat());
    assert!(again.contains("add --overwrite"), "{again}");
    export(&fixture, &[&model[..], &["--overwrite"]].concat());
    std::fs::remove_file(fixture.path("model/tokenizer.json")).unwrap();
    let without = error(&["--model", "model", "--to", "n.gguf"]);
    assert!(without.contains("no tokenizer"), "{without}");
    let config = fixture
        .read("model/config.json")
        .replace("\"llama\"", "\"mamba\"");
    fixture.write("model/config.json", &config);
    let family = error(&["--model", "model", "--to", "n.gguf"]);
    assert!(
        family.contains("mamba") || family.contains("tokenizer"),
        "{family}"
    );
    assert!(!fixture.path("n.gguf").exists() && !fixture.path("n.Modelfile").exists());
}

/// A write that fails leaves nothing behind.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_leaves_nothing() {
    use std::os::unix::process::CommandExt;
    let fixture = Fixture::new();
    let binary = env!("CARGO_BIN_EXE_tightrope");
    let line = format!("ulimit -f 16; exec {binary} export --model model --to m.gguf --pre gpt-2");
    let mut shell = std::process::Command::new("sh");
    let output = shell.args(["-c", &line]).current_dir(fixture.path("."));
    let output = output.process_group(0).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("m.gguf"), "{said}");
    let names = std::fs::read_dir(fixture.path(".")).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["model"], "{said}");
}
