//! Messages of other tools: contents in parts, other names of speakers, calls alone.

use tightrope_data::{DataOptions, TrainOn};

use crate::common::{CHATML, load_bytes, marked, tokenizer};

/// Writes out reasoning and calls.
const REASONING: &str = "{%- for message in messages %}<|im_start|>{{ message.role ~ '\n' }}\
    {%- if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}\
    {{- message.content }}\
    {%- for call in message.tool_calls or [] %}<call>{{ call.function.name }} \
    {{ call.function.arguments | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}\
    {%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn options(train_on: TrainOn) -> DataOptions {
    DataOptions {
        train_on,
        ..DataOptions::default()
    }
}

/// The only sequence of a row, trained parts in brackets.
fn read(row: &str, template: &str) -> Result<String, String> {
    let t = tokenizer(Some(template));
    let dataset = load_bytes("a.jsonl", row, &options(TrainOn::Assistant), Some(&t));
    let dataset = dataset.map_err(|e| e.to_string())?;
    Ok(marked(&dataset, 0, &t))
}

#[test]
fn parts_that_hold_everything_under_value() {
    let row = r#"{"messages": [{"role": "user", "content": [{"type": "text", "value": "w?"}], "loss_weight": 0.0}, {"role": "assistant", "content": [{"type": "reasoning", "value": "look"}, {"type": "text", "value": "I "}, {"type": "text", "value": "look."}, {"type": "tool_call", "value": "{\"name\": \"w\", \"arguments\": {\"c\": 1}}"}], "loss_weight": 1.0}]}"#;
    assert_eq!(
        read(row, REASONING).unwrap(),
        "<|im_start|>user\nw?<|im_end|>\n<|im_start|>assistant\n\
         ⟦<think>look</think>I look.<call>w {\"c\": 1}</call><|im_end|>⟧\n"
    );
    // A template that knows neither: the call becomes text, and the reasoning counts as not used.
    let t = tokenizer(Some(CHATML));
    let dataset = load_bytes("a.jsonl", row, &DataOptions::default(), Some(&t)).unwrap();
    let call = "{\"name\": \"w\", \"arguments\": {\"c\": 1}}";
    assert!(marked(&dataset, 0, &t).ends_with(&format!("⟦I look.{call}<|im_end|>⟧\n")));
    assert_eq!(dataset.report.unused[0].key, "messages[].reasoning_content");
}

#[test]
fn a_part_without_its_text_is_refused() {
    for (part, said) in [
        (
            r#"{"type": "text"}"#,
            "`messages[0].content[0].text` is missing",
        ),
        (
            r#"{"type": "text", "text": {"value": "a"}}"#,
            "`messages[0].content[0].text`: expected a string, got an object",
        ),
        (
            r#"{"type": "text", "value": 3}"#,
            "`messages[0].content[0].value`: expected a string",
        ),
        (
            r#"{"type": "text", "value": "a"}, {"type": "text", "text": "b"}"#,
            "`messages[0].content[1]`: expected an object with `value`",
        ),
        (
            r#"{"type": "image_url", "value": "a.jpg"}"#,
            "`messages[0].content[0].type`: only text can be trained",
        ),
        (
            r#"{"type": "tool_call", "value": "look"}"#,
            "`messages[0].content[0].value`: expected a call as JSON",
        ),
        (
            r#"{"type": "tool_call"}"#,
            "`messages[0].content[0].type`: only text can be trained",
        ),
    ] {
        let row = format!(r#"{{"messages": [{{"role": "assistant", "content": [{part}]}}]}}"#);
        let error = read(&row, REASONING).unwrap_err();
        assert!(error.contains(said), "{row}: {error}");
    }
    let twice = r#"{"messages": [{"role": "assistant", "reasoning_content": "a", "content": [{"type": "reasoning", "value": "b"}]}]}"#;
    let error = read(twice, REASONING).unwrap_err();
    assert!(error.contains("`reasoning_content` beside it"), "{error}");
}

#[test]
fn speakers_have_roles_by_whatever_key() {
    let expected = "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n⟦a<|im_end|>⟧\n";
    for (user, assistant) in [("human", "gpt"), ("User", "Assistant"), ("user", "model")] {
        let row = format!(
            r#"{{"messages": [{{"role": "{user}", "content": "q"}}, {{"role": "{assistant}", "content": "a"}}]}}"#
        );
        assert_eq!(read(&row, CHATML).unwrap(), expected, "{row}");
    }
    let row = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "function_call", "content": "{\"name\": \"w\", \"arguments\": {}}"}, {"role": "observation", "content": "3"}]}"#;
    let call = "<|im_start|>assistant\n⟦<call>w {}</call><|im_end|>⟧\n";
    assert_eq!(
        read(row, REASONING).unwrap(),
        format!("<|im_start|>user\nq<|im_end|>\n{call}<|im_start|>tool\n3<|im_end|>\n")
    );
    // A template's own name for the result of a tool is kept.
    let own = REASONING.replace("{%- for message", "{# observation #}{%- for message");
    assert!(
        read(row, &own)
            .unwrap()
            .ends_with("<|im_start|>observation\n3<|im_end|>\n")
    );
    let nobody =
        r#"{"messages": [{"role": "user", "content": "q"}, {"role": "narrator", "content": "a"}]}"#;
    let error = read(nobody, CHATML).unwrap_err();
    assert!(
        error.contains("no message has the role `assistant`"),
        "{error}"
    );
}

#[test]
fn a_call_alone_needs_a_template_that_writes_it() {
    let row = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [{"type": "function", "function": {"name": "w", "arguments": {}}}]}]}"#;
    let adds = "{%- for message in messages %}{{ message.role + ':' + message.content + '</s>' }}{% endfor %}";
    let error = read(row, adds).unwrap_err();
    assert!(
        error.contains("a.jsonl:1:")
            && error.contains("`messages[1].tool_calls`: the chat template has no place for calls"),
        "{error}"
    );
    assert!(
        read(
            &row.replace("\"tool_calls\"", "\"content\": \"\", \"tool_calls\""),
            adds
        )
        .is_ok()
    );
}
