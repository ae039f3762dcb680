//! Thirty kinds of bad input: each gets one error that names what is wrong and repeats nothing.

mod fixture;

use fixture::Fixture;

/// A part of the message that occurs twice: a clause, or a run of five words.
fn repeated(message: &str) -> Option<String> {
    let clauses: Vec<&str> = message
        .split([':', ';', '\n'])
        .map(str::trim)
        .filter(|clause| clause.len() >= 8)
        .collect();
    let words: Vec<&str> = message.split_whitespace().collect();
    let runs: Vec<String> = words.windows(5).map(|run| run.join(" ")).collect();
    let clause = clauses.iter().enumerate();
    let clause = clause.filter(|(index, clause)| clauses[..*index].contains(clause));
    let run = runs.iter().enumerate();
    let run = run.filter(|(index, run)| runs[..*index].contains(run));
    let clause = clause.map(|(_, clause)| (*clause).to_owned());
    clause.chain(run.map(|(_, run)| run.clone())).next()
}

/// Runs the command in a fixture damaged by `damage`; its error must name `expected`.
fn check(name: &str, damage: impl Fn(&Fixture), arguments: &[&str], expected: &[&str]) {
    let fixture = Fixture::with_config("");
    damage(&fixture);
    let error = fixture.error(arguments);
    let line = error.lines().find(|line| line.contains("error:")).unwrap();
    let message = &error[error.find(line).unwrap()..];
    assert_eq!(repeated(message), None, "{name}: said twice:\n{error}");
    for expected in expected {
        assert!(
            message.contains(expected),
            "{name}: no {expected:?} in:\n{error}"
        );
    }
}

/// Nothing is damaged, but the command line is wrong.
fn wrong(arguments: &[&str], expected: &[&str]) {
    check(&arguments.join(" "), |_| {}, arguments, expected);
}

fn spoilt(file: &str, text: &str, expected: &[&str]) {
    let damage = |fixture: &Fixture| fixture.write(file, text);
    check(
        &format!("{file}: {text}"),
        damage,
        &["train", "run.toml"],
        expected,
    );
}

#[test]
fn what_is_missing() {
    wrong(&["train", "none.toml"], &["none.toml", "No such file"]);
    wrong(
        &["pack", "--lengths", "none", "--capacity", "8"],
        &["none", "No such file"],
    );
    wrong(
        &["pack", "--histogram", "none", "--capacity", "8"],
        &["none", "No such file"],
    );
    wrong(
        &["eval", "--model", "./none", "--data", "eval.jsonl"],
        &["none"],
    );
    wrong(
        &["eval", "--model", "model", "--data", "none.jsonl"],
        &["none.jsonl", "No such file"],
    );
    wrong(
        &[
            "eval",
            "--model",
            "model",
            "--adapter",
            "none",
            "--data",
            "eval.jsonl",
        ],
        &["none: no such folder", "adapter/"],
    );
    wrong(
        &["eval", "run.toml", "--adapter", "someone/an-adapter"],
        &[
            "someone/an-adapter: no such folder",
            "hf download someone/an-adapter",
        ],
    );
    wrong(&["chat", "run.toml"], &["out/adapter", "--base"]);
    wrong(&["merge", "run.toml"], &["out/adapter"]);
    wrong(
        &["train", "run.toml", "--set", "data.train=none.jsonl"],
        &["none.jsonl"],
    );
    wrong(
        &["train", "run.toml", "--set", "packing.file=none.json"],
        &["none.json"],
    );
    wrong(
        &[
            "train",
            "run.toml",
            "--set",
            "data.chat_template=none.jinja",
        ],
        &["none.jinja"],
    );
    wrong(&["train", "run.toml", "--resume"], &["out"]);
    for key in ["data.train", "data.eval", "data.chat_template", "output"] {
        let set = format!("{key}=s3://x/y");
        wrong(
            &["train", "run.toml", "--set", &set],
            &["s3://x/y is an address"],
        );
    }
    let page = "model=https://huggingface.co/owner/name/tree/main";
    wrong(
        &["train", "run.toml", "--set", page],
        &["hub id such as owner/name"],
    );
    wrong(&["man", "trian"], &["trian"]);
    let plain = |fixture: &Fixture| fixture.write("run.toml", "model = \"model\"\n");
    let expected = ["nothing to evaluate on", "data.eval", "--data"];
    check("eval", plain, &["eval", "run.toml", "--base"], &expected);
    for file in ["config.json", "model.safetensors"] {
        let remove = |fixture: &Fixture| {
            std::fs::remove_file(fixture.path("model").join(file)).unwrap();
        };
        check(file, remove, &["train", "run.toml"], &["model"]);
    }
}

#[test]
fn what_is_wrong_in_a_configuration() {
    spoilt("run.toml", "model = \"model\"\nmodel = 3", &["run.toml:2"]);
    spoilt("run.toml", "model = ", &["run.toml:1"]);
    spoilt("run.toml", "seed = 1", &["run.toml", "`model`"]);
    spoilt("run.toml", "model = 3", &["run.toml:1", "`model`"]);
    spoilt(
        "run.toml",
        "modle = \"model\"",
        &["run.toml:1", "did you mean `model`?"],
    );
    spoilt(
        "run.toml",
        "model = \"model\"\n[pakking]",
        &["run.toml:2", "[packing]"],
    );
    spoilt(
        "run.toml",
        "model = \"model\"\n[run]\nkeep = 0",
        &["run.toml:3", "`run.keep`"],
    );
    spoilt(
        "run.toml",
        "model = \"model\"\nlora = 3",
        &["run.toml:2", "[lora]"],
    );
    spoilt("run.toml", "model = \"model\"", &["`data.train`"]);
    wrong(
        &["train", "run.toml", "--set", "seed"],
        &["--set seed", "key=value"],
    );
    wrong(
        &["train", "run.toml", "--set", "seed=x"],
        &["`seed` must be a whole number", "got \"x\""],
    );
    wrong(&["inspect", "train.jsonl"], &["this is JSON", "[data]"]);
    wrong(&["inspect", "model"], &["this may be a model"]);
    wrong(
        &["inspect", "run.toml", "--set", "data.chat_template=chatml"],
        &["there is no file", "chatml"],
    );
    wrong(
        &["train", "run.toml", "--set", "precision=f16"],
        &["precision"],
    );
    let modules = [
        "train",
        "run.toml",
        "--set",
        "lora.target_modules=[\"nothing\"]",
    ];
    wrong(&modules, &["--set lora.target_modules", "`nothing`"]);
    spoilt(
        "run.toml",
        "model = \"model\"\n[data]\ntrain = \"train.jsonl\"\n[lora]\ntarget_modules = [\"q_porj\"]",
        &["run.toml:5", "`lora.target_modules`", "`q_proj`"],
    );
}

#[test]
fn what_is_wrong_in_data() {
    spoilt("train.jsonl", "", &["train.jsonl"]);
    spoilt("train.jsonl", "{\"instruction\": \"a\"", &["train.jsonl:1"]);
    spoilt("train.jsonl", "{\"a\": 1}\n", &["train.jsonl"]);
    spoilt("train.jsonl", "3\n", &["train.jsonl"]);
    spoilt("train.jsonl", "{\"input_ids\": [1, 9999]}\n", &["9999"]);
    spoilt(
        "train.jsonl",
        "{\"input_ids\": [1, -5]}\n",
        &["train.jsonl"],
    );
    let bytes = |fixture: &Fixture| {
        std::fs::write(fixture.path("train.jsonl"), [0xff, 0xfe, 0x00, b'\n']).unwrap();
    };
    check("bytes", bytes, &["train", "run.toml"], &["train.jsonl"]);
}

#[test]
fn what_is_wrong_in_a_model() {
    spoilt("model/config.json", "{", &["config.json"]);
    spoilt("model/config.json", "{}", &["config.json"]);
    spoilt(
        "model/config.json",
        "{\"model_type\": \"gpt2\"}",
        &["config.json", "gpt2"],
    );
    spoilt("model/tokenizer.json", "{", &["tokenizer.json"]);
    spoilt(
        "model/tokenizer_config.json",
        "[",
        &["tokenizer_config.json"],
    );
    spoilt("model/model.safetensors", "short", &["model.safetensors"]);
}

#[test]
fn repetitions_are_found() {
    let twice = "error: a.toml: No such file (os error 2): No such file (os error 2)";
    assert_eq!(repeated(twice).unwrap(), "No such file (os error 2)");
    let run = "error: one two three four five, then one two three four five.";
    assert!(repeated(&run.replace(['.', ','], "")).is_some());
    assert_eq!(
        repeated("error: a.toml:2: unknown key `modle`; did you mean `model`?"),
        None
    );
}
