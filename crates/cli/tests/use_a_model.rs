//! `eval`, `generate`, `merge`, `verify` and `inspect` end to end, around one short run.

mod fixture;

use fixture::{Fixture, json_lines};
use serde_json::Value;

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is not a number"))
}

fn evaluation(fixture: &Fixture, arguments: &[&str]) -> Value {
    let text = fixture.ok(&[&["eval", "--json"], arguments].concat());
    json_lines(&text).pop().unwrap()
}

#[test]
fn eval_measures_base_adapter_and_merged_model() {
    let fixture = Fixture::with_config("");
    let base = evaluation(&fixture, &["run.toml", "--base"]);
    for key in ["loss", "perplexity", "tokens", "trained_tokens"] {
        assert!(base[key].is_number(), "{key}: {base}");
    }
    let exponential = number(&base["loss"]).exp();
    assert!((number(&base["perplexity"]) / exponential - 1.0).abs() <= 1e-9);
    let options = ["--model", "model", "--data", "eval.jsonl"];
    assert_eq!(
        evaluation(&fixture, &options),
        base,
        "options say the same as the configuration"
    );
    let all = evaluation(&fixture, &[&options[..], &["--train-on", "all"]].concat());
    assert!(number(&all["trained_tokens"]) > number(&base["trained_tokens"]));
    assert_eq!(all["tokens"], base["tokens"]);
    let one = evaluation(&fixture, &[&options[..], &["--limit", "1"]].concat());
    assert!(number(&one["tokens"]) < number(&base["tokens"]));

    // Sequences that were cut do not count for the loss, and the user is told.
    let cut = ["--train-on", "all", "--set", "data.max_length=8"];
    let shown = fixture.ok(&[&["eval"], &options[..], &cut].concat());
    assert!(
        shown.contains("perplexity") && shown.contains("truncated"),
        "{shown}"
    );

    fixture.ok(&["train", "run.toml"]);
    let trained = evaluation(&fixture, &["run.toml"]);
    assert!(
        number(&trained["loss"]) < number(&base["loss"]),
        "{trained} {base}"
    );
    let adapter = [&options[..], &["--adapter", "out/adapter"]].concat();
    // The same losses, added in the order of other packs.
    let alone = evaluation(&fixture, &adapter);
    let difference = (number(&alone["loss"]) - number(&trained["loss"])).abs();
    assert!(difference <= 1e-14, "{alone} {trained}");
    assert_eq!(alone["trained_tokens"], trained["trained_tokens"]);

    fixture.ok(&["merge", "run.toml", "--to", "merged"]);
    let merged = evaluation(&fixture, &["--model", "merged", "--data", "eval.jsonl"]);
    let difference = (number(&merged["loss"]) - number(&trained["loss"])).abs();
    assert!(difference <= 1e-5, "{merged} {trained}");
    let error = fixture.error(&["merge", "run.toml", "--to", "merged"]);
    assert!(error.contains("add --overwrite"), "{error}");
    fixture.ok(&[
        "merge",
        "run.toml",
        "--to",
        "merged",
        "--overwrite",
        "--dtype",
        "bf16",
    ]);
    assert!(fixture.read("merged/config.json").contains("bfloat16"));
    fixture.write("merged/notes.txt", "mine");
    let error = fixture.error(&["merge", "run.toml", "--to", "merged", "--overwrite"]);
    assert!(error.contains("notes.txt"), "{error}");
    let error = fixture.error(&["merge", "run.toml", "--to", "m.gguf"]);
    assert!(error.contains("tightrope export"), "{error}");
    assert!(!fixture.path("m.gguf").exists());
    let error = fixture.error(&["merge", "run.toml", "--to", "model/new"]);
    assert!(error.contains("lies in the model"), "{error}");
}

#[test]
fn generate_is_decided_by_its_arguments() {
    let fixture = Fixture::new();
    let answer = |seed: &str| {
        let prompt = [
            "generate",
            "--model",
            "model",
            "--prompt",
            "Hello",
            "--max-tokens",
            "24",
        ];
        let random = ["--temperature", "1.0", "--seed", seed, "--json"];
        json_lines(&fixture.ok(&[&prompt[..], &random[..]].concat())).remove(0)
    };
    assert_eq!(answer("1"), answer("1"));
    assert_ne!(answer("1")["tokens"], answer("2")["tokens"]);
    assert_eq!(answer("1")["prompt"], "Hello");
    assert!(answer("1")["tokens"].as_array().unwrap().len() <= 24);

    let plain = fixture.ok(&[
        "generate",
        "--model",
        "model",
        "--prompt",
        "Hi",
        "--max-tokens",
        "8",
    ]);
    assert!(
        plain.ends_with('\n') && !plain.contains('\x1b'),
        "{plain:?}"
    );
}

/// Each line of a pipe is a question of one conversation, or a command.
#[test]
fn chat_answers_line_by_line() {
    let fixture = Fixture::new();
    fixture.write(
        "questions",
        "Hello\n\n/clear\nHello\n/hepl\n\"\"\"two\nlines\"\"\"\n/bye\nNo\n",
    );
    let chat = |more: &[&str]| {
        let arguments = ["chat", "--model", "model", "--max-tokens", "8"];
        let questions = std::fs::File::open(fixture.path("questions")).unwrap();
        let mut command = fixture.command(&[&arguments[..], more].concat());
        let output = command.stdin(questions).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let answers = json_lines(&chat(&["--json"]));
    let prompts: Vec<&str> = answers
        .iter()
        .map(|a| a["prompt"].as_str().unwrap())
        .collect();
    assert_eq!(prompts, ["Hello", "Hello", "two\nlines"]);
    assert_eq!(answers[0], answers[1], "nothing is remembered after /clear");
    let text = chat(&[]);
    assert!(
        text.contains("> Hello\n") && text.contains("there is no /hepl"),
        "{text}"
    );
    assert!(!text.contains('\x1b'), "{text:?}");
}

#[test]
fn verify_proves_that_packing_changes_nothing() {
    let fixture = Fixture::with_config("");
    let table = fixture.ok(&["verify", "run.toml"]);
    assert!(table.contains("packing changes nothing"), "{table}");
    let result = json_lines(&fixture.ok(&["verify", "run.toml", "--json"])).remove(0);
    assert_eq!(result["passed"], true);
    assert!(result["checks"].as_array().unwrap().len() >= 4);
    assert!(!fixture.path("out").exists(), "nothing is written");
}

#[test]
fn inspect_marks_what_is_trained() {
    let fixture = Fixture::with_config("");
    let text = fixture.ok(&["inspect", "run.toml", "--sequences", "1"]);
    assert!(!text.contains('\x1b'), "colors on a pipe");
    assert!(text.contains("<|im_start|>assistant⏎\n[["), "{text}");
    assert!(
        text.contains("<|im_end|>]]"),
        "the end token is trained: {text}"
    );
    assert!(
        text.contains("pack 1 · ") && text.contains("sequence 1 · train.jsonl line 1"),
        "{text}"
    );
    let colored = fixture.ok(&[
        "inspect",
        "run.toml",
        "--sequences",
        "1",
        "--color",
        "always",
    ]);
    assert!(
        colored.contains('\x1b') && !colored.contains("[["),
        "{colored}"
    );

    let of = ["inspect", "--model", "model", "--data", "train.jsonl"];
    let without_configuration = fixture.ok(&[&of[..], &["--sequences", "1"]].concat());
    let (shown, _) = text.split_once("pack 1").unwrap();
    assert!(
        without_configuration.starts_with(shown),
        "{without_configuration}"
    );
    let output = fixture.run(&["inspect", "--model", "model"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("--data <FILE>"), "{error}");

    let json = json_lines(&fixture.ok(&["inspect", "run.toml", "--json"])).remove(0);
    assert_eq!(json["sequences"].as_array().unwrap().len(), 3);
    let tokens = json["sequences"][0]["tokens"].as_array().unwrap();
    assert!(tokens.iter().any(|token| token["trained"] == true));
    assert!(tokens.iter().any(|token| token["trained"] == false));
    let segments = json["packs"][0]["segments"].as_array().unwrap();
    assert!(segments.len() > 1, "{segments:?}");
    let mut start = 0;
    for segment in segments {
        assert_eq!(segment["start"], start);
        assert_eq!(segment["first_position"], 0);
        start += segment["length"].as_u64().unwrap();
    }
}

#[test]
fn pack_takes_the_training_data_of_a_configuration() {
    let fixture = Fixture::with_config("");
    let rows = json_lines(&fixture.ok(&["pack", "run.toml", "--json"])).remove(0);
    let best_fit = &rows.as_array().unwrap()[0];
    assert_eq!(best_fit["algorithm"], "best-fit");
    let plan = json_lines(&fixture.ok(&["train", "run.toml", "--json"]))
        .into_iter()
        .find(|event| event["event"] == "plan");
    assert_eq!(best_fit["packs"], plan.unwrap()["packs"]);
    let wide = fixture.ok(&["pack", "run.toml", "--json", "--capacity", "1024"]);
    assert!(number(&json_lines(&wide)[0][0]["packs"]) < number(&best_fit["packs"]));
}

#[test]
fn pack_takes_rows_of_token_ids() {
    let fixture = Fixture::with_config("");
    let row = "{\"input_ids\": [1, 2, 3], \"labels\": [-100, 2, 3]}\n";
    fixture.write("train.jsonl", &row.repeat(5));
    let table = fixture.ok(&["pack", "run.toml", "--capacity", "6"]);
    assert!(
        table.contains("5 sequences, 15 tokens, longest 3"),
        "{table}"
    );
    let rows = fixture.ok(&["pack", "run.toml", "--capacity", "6", "--json"]);
    assert_eq!(json_lines(&rows)[0][0]["packs"], 3);
}

/// `script` gives the program a terminal; the lines are there before the model is loaded.
#[test]
#[cfg(target_os = "linux")]
fn lines_typed_ahead_of_a_chat_are_all_read() {
    let fixture = Fixture::with_config("");
    let program = env!("CARGO_BIN_EXE_tightrope");
    let chat = format!("{program} chat --model model");
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &chat, "/dev/null"]);
    script.current_dir(fixture.path(""));
    script.env("XDG_STATE_HOME", fixture.path("state"));
    script.stdin(std::process::Stdio::piped());
    script.stdout(std::process::Stdio::piped());
    let Ok(mut child) = script.spawn() else {
        return;
    };
    let mut typed = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut typed, b"/clear\n/hepl\n/bye\n").unwrap();
    drop(typed);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("forgotten"), "{text}");
    assert!(text.contains("there is no /hepl"), "{text}");
    assert!(output.status.success(), "{text}");
}
