//! Which tokens are trained, for every format and way of training.

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
