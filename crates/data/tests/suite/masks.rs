//! Trained tokens for every format and value of `train_on`.

use crate::common::{CHATML, load_bytes, marked, tokenizer};
use tightrope_data::{DataOptions, TrainOn};

fn options(train_on: TrainOn) -> DataOptions {
    DataOptions {
        train_on,
        ..DataOptions::default()
    }
}

fn chat(template: &str, train_on: TrainOn) -> String {
    let row = r#"{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "한국어 🙂"}, {"role": "assistant", "content": "네 world"}]}"#;
    let tokenizer = tokenizer(Some(template));
    let dataset = load_bytes("a.jsonl", row, &options(train_on), Some(&tokenizer)).unwrap();
    assert_eq!(dataset.report.missing_eos, 0);
    marked(&dataset, 0, &tokenizer)
}

#[test]
fn chatml() {
    assert_eq!(
        chat(CHATML, TrainOn::Completion),
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n\
         <|im_start|>user\n한국어 🙂<|im_end|>\n<|im_start|>assistant\n⟦네 world<|im_end|>⟧\n"
    );
    assert_eq!(
        chat(CHATML, TrainOn::Assistant),
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦hello<|im_end|>⟧\n\
         <|im_start|>user\n한국어 🙂<|im_end|>\n<|im_start|>assistant\n⟦네 world<|im_end|>⟧\n"
    );
}

fn template(name: &str) -> String {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/templates");
    std::fs::read_to_string(format!("{folder}/{name}.jinja")).unwrap()
}

/// Trained parts of the conversation, turn by turn.
fn trained(name: &str, train_on: TrainOn) -> Vec<String> {
    let text = chat(&template(name), train_on);
    let parts = text.split('⟦').skip(1);
    parts
        .map(|part| part.split('⟧').next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_template_trains_the_turns_and_their_ends() {
    for (name, answers) in [
        ("chatml", ["hello<|im_end|>", "네 world<|im_end|>"]),
        (
            "chatml_generation",
            ["hello<|im_end|>", "네 world<|im_end|>"],
        ),
        ("llama3", ["hello<|eot_id|>", "네 world<|eot_id|>"]),
        ("llama3_1", ["hello<|eot_id|>", "네 world<|eot_id|>"]),
        ("mistral", [" hello</s>", " 네 world</s>"]),
        ("gemma", ["hello<end_of_turn>", "네 world<end_of_turn>"]),
        ("gemma3", ["hello<end_of_turn>", "네 world<end_of_turn>"]),
        // Only the last turn has reasoning, so its end is found by the end token.
        (
            "qwen3",
            [
                "hello<|im_end|>",
                "<think>\n\n</think>\n\n네 world<|im_end|>",
            ],
        ),
    ] {
        assert_eq!(trained(name, TrainOn::Assistant), answers, "{name}");
        assert_eq!(trained(name, TrainOn::Completion), answers[1..], "{name}");
        let all = chat(&template(name), TrainOn::All);
        // Every token but the first, which nothing predicts.
        assert!(
            all.find('⟦').unwrap() <= "<|begin_of_text|>".len() && all.ends_with('⟧'),
            "{name}: {all}"
        );
    }
}

#[test]
fn a_template_given_in_the_options_wins() {
    let tokenizer = tokenizer(Some("{{ raise_exception('the tokenizer\\'s') }}"));
    let options = DataOptions {
        chat_template: Some(CHATML.to_owned()),
        ..DataOptions::default()
    };
    let row = r#"{"instruction": "Add", "input": "1 2", "output": "3"}"#;
    let dataset = load_bytes("a.jsonl", row, &options, Some(&tokenizer)).unwrap();
    assert_eq!(
        marked(&dataset, 0, &tokenizer),
        "<|im_start|>user\nAdd\n1 2<|im_end|>\n<|im_start|>assistant\n⟦3<|im_end|>⟧\n"
    );
}

#[test]
fn tool_calls_are_trained_and_results_are_not() {
    let tokenizer = tokenizer(Some(&template("qwen3")));
    let row = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"b": 1.0, "a": null}}]}, {"role": "tool", "content": "r"}, {"role": "assistant", "content": "a"}], "tools": "[{\"name\": \"f\"}]", "chat_template_kwargs": {"enable_thinking": false}}"#;
    let dataset = load_bytes(
        "a.jsonl",
        row,
        &options(TrainOn::Assistant),
        Some(&tokenizer),
    );
    let text = marked(&dataset.unwrap(), 0, &tokenizer);
    let call = "⟦<tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\": 1.0, \"a\": null}}\n</tool_call><|im_end|>⟧";
    assert!(text.contains(call), "{text}");
    assert_eq!(text.matches('⟦').count(), 2, "{text}");
}

#[test]
fn a_token_across_the_border_is_trained() {
    // The line break of the template and that of the answer become one token.
    let tokenizer = tokenizer(Some(CHATML));
    let row = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "\n\nhello"}]}"#;
    let dataset = load_bytes("a.jsonl", row, &DataOptions::default(), Some(&tokenizer)).unwrap();
    assert!(marked(&dataset, 0, &tokenizer).ends_with("assistant⟦\n\n\nhello<|im_end|>⟧\n"));
}

#[test]
fn completion_ends_in_eos_and_alpaca_uses_its_prompt_without_a_template() {
    let tokenizer = tokenizer(None);
    let load = |row: &str, train_on| {
        let dataset = load_bytes("a.jsonl", row, &options(train_on), Some(&tokenizer)).unwrap();
        marked(&dataset, 0, &tokenizer)
    };
    let row = r#"{"prompt": "2+2=", "completion": "4"}"#;
    assert_eq!(load(row, TrainOn::Completion), "2+2=⟦4</s>⟧");
    assert_eq!(load(row, TrainOn::All), "2⟦+2=4</s>⟧");
    let row = r#"{"prompt": "2+2=", "completion": "4</s>"}"#;
    assert_eq!(load(row, TrainOn::Completion), "2+2=⟦4</s>⟧");
    let row = r#"{"instruction": "Add", "input": "", "output": "4"}"#;
    assert_eq!(
        load(row, TrainOn::Completion),
        "Below is an instruction that describes a task. Write a response that appropriately \
         completes the request.\n\n### Instruction:\nAdd\n\n### Response:⟦4</s>⟧"
    );
}
