//! Trained tokens if no beginning of the conversation renders like the whole.

use crate::common::{CHATML, load_bytes, marked, tokenizer};
use serde_json::{Value, json};
use tightrope_data::{
    ChatTemplate, ChatTemplates, DataOptions, Dataset, Tokenizer, TrainOn, inspect,
};

fn load(template: &str, train_on: TrainOn, row: &Value) -> Result<(Dataset, Tokenizer), String> {
    let tokenizer = tokenizer(Some(template));
    let options = DataOptions {
        train_on,
        ..DataOptions::default()
    };
    let dataset = load_bytes("a.jsonl", row.to_string(), &options, Some(&tokenizer));
    Ok((dataset.map_err(|error| error.to_string())?, tokenizer))
}

fn trained(template: &str, train_on: TrainOn, messages: Value) -> String {
    let row = json!({ "messages": messages });
    let (dataset, tokenizer) = load(template, train_on, &row).unwrap();
    marked(&dataset, 0, &tokenizer)
}

/// Like Mistral's later templates, which put the system prompt into the last question.
const SYSTEM_LAST: &str = "{%- if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set turns = messages[1:] %}{% else %}{% set turns = messages %}{% endif %}\
    {%- for m in turns %}{% if m.role == 'user' %}[INST] {% if loop.index >= (turns | length) - 1 and system %}{{ system ~ '\n\n' }}{% endif %}{{ m.content }}[/INST]{% else %}{{ ' ' ~ m.content ~ '</s>' }}{% endif %}{% endfor %}";

#[test]
fn the_system_prompt_may_stand_in_the_last_question() {
    let messages = json!([
        {"role": "system", "content": "brief"},
        {"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine</s> or"},
        {"role": "user", "content": "hello"}, {"role": "assistant", "content": "fine"},
        {"role": "user", "content": "rivers"}, {"role": "assistant", "content": "Rhine"},
    ]);
    assert_eq!(
        trained(SYSTEM_LAST, TrainOn::Assistant, messages.clone()),
        "[INST] hello[/INST]⟦ fine</s> or</s>⟧[INST] hello[/INST]⟦ fine</s>⟧\
         [INST] brief\n\nrivers[/INST]⟦ Rhine</s>⟧"
    );
    assert!(
        trained(SYSTEM_LAST, TrainOn::Completion, messages).ends_with("rivers[/INST]⟦ Rhine</s>⟧")
    );
}

#[test]
fn the_assistant_may_speak_first() {
    let system = "{% if not messages or messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}";
    let opening = json!([
        {"role": "assistant", "content": "Welcome"},
        {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"},
    ]);
    let before = "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>assistant\n";
    // Without messages, the first template renders and the second refuses.
    for system in [system, &system.replace("not messages or ", "")] {
        let template = format!("{system}{CHATML}");
        assert_eq!(
            trained(&template, TrainOn::Assistant, opening.clone()),
            format!(
                "{before}⟦Welcome<|im_end|>⟧\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦hello<|im_end|>⟧\n"
            )
        );
        let alone = json!([{"role": "assistant", "content": "Welcome"}]);
        assert_eq!(
            trained(&template, TrainOn::Completion, alone),
            format!("{before}⟦Welcome<|im_end|>⟧\n")
        );
    }
    let alone = json!([{"role": "assistant", "content": "Welcome"}]);
    assert_eq!(
        trained(SYSTEM_LAST, TrainOn::Completion, alone),
        " ⟦Welcome</s>⟧"
    );
}

#[test]
fn turns_in_a_row_are_trained_apart_or_as_the_template_joins_them() {
    let messages = json!([
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "one"}, {"role": "assistant", "content": " two "},
    ]);
    assert_eq!(
        trained(CHATML, TrainOn::Assistant, messages.clone()),
        "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n⟦one<|im_end|>⟧\n<|im_start|>assistant\n⟦ two <|im_end|>⟧\n"
    );
    let joining = "{% for m in messages %}{% if m.role == 'user' %}U: {{ m.content }}\nA: {% else %}{{ m.content | trim }}{% if loop.last or messages[loop.index].role == 'user' %}</s>{% else %}{{ '\n' }}{% endif %}{% endif %}{% endfor %}";
    assert_eq!(
        trained(joining, TrainOn::Assistant, messages),
        "U: q\nA: ⟦one\ntwo</s>⟧"
    );
}

/// Like Phi 3's template, which leaves out results of tools and ends with the only end token.
#[test]
fn a_turn_ends_before_the_next_message_that_is_written() {
    let template = "{% for m in messages if m.role in ['user', 'assistant'] %}{{ m.role }}:{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}assistant:{% else %}{{ eos_token }}{% endif %}";
    let messages = json!([
        {"role": "user", "content": "q"}, {"role": "assistant", "content": "one"},
        {"role": "tool", "content": "3"}, {"role": "assistant", "content": "two"},
    ]);
    assert_eq!(
        trained(template, TrainOn::Assistant, messages),
        "user:q<end>assistant:⟦one⟧<end>assistant:⟦two<end></s>⟧"
    );
}

#[test]
fn reasoning_is_trained_where_the_template_keeps_it() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/templates");
    let qwen3 = std::fs::read_to_string(format!("{folder}/qwen3.jinja")).unwrap();
    let messages = json!([
        {"role": "user", "content": "1+1?"}, {"role": "assistant", "content": "<think>\nadd\n</think>\n\n2 <|im_end|> no end"},
        {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "<think>\ntwo\n</think>\n\n4"},
    ]);
    let text = trained(&qwen3, TrainOn::Assistant, messages);
    let parts: Vec<&str> = text.split(['⟦', '⟧']).skip(1).step_by(2).collect();
    assert_eq!(
        parts,
        [
            "2 <|im_end|> no end<|im_end|>",
            "<think>\ntwo\n</think>\n\n4<|im_end|>"
        ]
    );
}

#[test]
fn content_may_be_null_or_in_parts() {
    let call = json!([{"type": "function", "function": {"name": "f", "arguments": {}}}]);
    let parts = json!([{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]);
    let messages = json!([
        {"role": "user", "content": parts},
        {"role": "assistant", "content": null, "tool_calls": call},
    ]);
    // A template that prints content gets the text of its parts, and nothing for null.
    let text = trained(CHATML, TrainOn::Completion, messages);
    assert_eq!(
        text,
        "<|im_start|>user\nhel\nlo<|im_end|>\n<|im_start|>assistant\n⟦<|im_end|>⟧\n"
    );
    let row = json!({"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "a"}]});
    let report = load(CHATML, TrainOn::Completion, &row).unwrap().0.report;
    assert_eq!(report.joined_parts, 1);
    assert!(report.to_string().contains("became one text"), "{report}");
    let reading = "{% for m in messages %}{{ m.role }}:{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}</s>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
    let messages = json!([
        {"role": "user", "content": parts}, {"role": "assistant", "content": parts},
    ]);
    assert_eq!(
        trained(reading, TrainOn::Completion, messages),
        "user:hello</s>assistant:⟦hello</s>⟧"
    );
    // Templates that fail on a list, or leave it out, get one text too.
    for template in [
        "{% for m in messages %}{{ m.role + ':' + m.content }}</s>{% endfor %}",
        "{% for m in messages %}{{ m.role }}:{% if m.content is string %}{{ m.content }}{% endif %}</s>{% endfor %}",
    ] {
        let row = json!({"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": ["a", "b"]}]});
        let (dataset, tokenizer) = load(template, TrainOn::All, &row).unwrap();
        let text = marked(&dataset, 0, &tokenizer);
        assert!(text.contains("ser:hel\nlo</s>assistant:a\nb</s>"), "{text}");
        assert_eq!(dataset.report.joined_parts, 1);
    }
    // A template that shortens the texts still gets the list.
    let shortens = "{% for m in messages %}{{ m.role }}:{% for p in m.content %}{{ p.text[:2] }}{% endfor %}</s>{% endfor %}";
    let row = json!({"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": ["abc"]}]});
    let (dataset, tokenizer) = load(shortens, TrainOn::All, &row).unwrap();
    let text = marked(&dataset, 0, &tokenizer);
    assert!(text.contains("ser:helo</s>assistant:ab</s>"), "{text}");
    assert_eq!(dataset.report.joined_parts, 0);
    let image = json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]});
    let refused = load(reading, TrainOn::Completion, &image).err().unwrap();
    assert!(
        refused.contains("a.jsonl:1")
            && refused.contains("messages[0].content[0]")
            && refused.contains("\"image_url\""),
        "{refused}"
    );
}

#[test]
fn what_the_template_leaves_out_is_counted() {
    let row = json!({
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "hi", "name": "Ada"},
            {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": "{}"}}]},
            {"role": "tool", "content": "cold"},
            {"role": "assistant", "content": "hello"},
        ],
        "tools": [{"type": "function", "function": {"name": "weather"}}],
    });
    let only_chat = "{% for m in messages if m.role in ['user', 'assistant'] %}{{ m.role }}:{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";
    let (dataset, _) = load(only_chat, TrainOn::Completion, &row).unwrap();
    let dropped = dataset.report.dropped;
    assert_eq!(
        [
            dropped.tools,
            dropped.system,
            dropped.messages,
            dropped.tool_calls,
            dropped.names
        ],
        [1; 5]
    );
    assert_eq!(
        (dataset.report.trained_answers, dataset.report.answers),
        (1, 2)
    );
    let said = dataset.report.to_string();
    assert!(
        said.contains("1 row with `tools` that the chat template leaves out"),
        "{said}"
    );
    assert!(said.contains("1 of 2 answers trained"), "{said}");
    // Each of these is said once.
    assert!(!said.contains("not used"), "{said}");
    let all = "{% for m in messages %}{{ m | tojson }}</s>{% endfor %}{{ tools | tojson }}";
    let (dataset, _) = load(all, TrainOn::All, &row).unwrap();
    assert_eq!(dataset.report.dropped, Default::default());
    assert!(!dataset.report.to_string().contains("leaves out"));
}

#[test]
fn thinking_that_a_trained_answer_loses_is_counted() {
    // Like Qwen3's, which keeps the thinking of the last answer only.
    let template = "{% for m in messages %}{{ m.role }}:{% if m.reasoning_content and loop.last %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content.split('</think>')[-1] if not loop.last else m.content }}</s>{% endfor %}";
    let beside = |thinking: &str| json!({"role": "assistant", "content": "fine", "reasoning_content": thinking});
    let inside = json!({"role": "assistant", "content": "<think>rivers</think>fine"});
    let user = json!({"role": "user", "content": "hello"});
    let lost = |train_on, messages: Value| {
        let (dataset, _) = load(template, train_on, &json!({ "messages": messages })).unwrap();
        let said = dataset.report.to_string();
        assert_eq!(
            said.contains("whose thinking"),
            dataset.report.dropped.thinking > 0,
            "{said}"
        );
        dataset.report.dropped.thinking
    };
    for first in [beside("rivers"), inside.clone()] {
        let two = json!([user, first, user, beside("mountains")]);
        assert_eq!(lost(TrainOn::Assistant, two.clone()), 1);
        // The last answer alone is trained, and has its own.
        assert_eq!(lost(TrainOn::Completion, two), 0);
    }
    assert_eq!(lost(TrainOn::Completion, json!([user, inside])), 0);
    assert_eq!(lost(TrainOn::Completion, json!([user, beside("")])), 0);
    // A template that does not know the key leaves it out in every row, which is said as such.
    let row = json!({"messages": [user, beside("rivers")]});
    let (dataset, _) = load(CHATML, TrainOn::Completion, &row).unwrap();
    assert_eq!(dataset.report.dropped.thinking, 0);
    assert_eq!(dataset.report.unused[0].key, "messages[].reasoning_content");
}

#[test]
fn rows_with_tools_take_the_template_for_tools() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let mut original = tokenizer(None);
    original.save_to_folder(path).unwrap();
    let config = std::fs::read_to_string(path.join("tokenizer_config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&config).unwrap();
    let tool_use = format!("{{{{ tools[0].name }}}}\n{CHATML}");
    config["chat_template"] = json!([
        {"name": "default", "template": CHATML}, {"name": "tool_use", "template": tool_use},
        {"name": "rag", "template": "{% not for us %}"},
    ]);
    std::fs::write(path.join("tokenizer_config.json"), config.to_string()).unwrap();
    let rows = "{\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}], \"tools\": [{\"name\": \"weather\"}]}\n\
        {\"messages\": [{\"role\": \"user\", \"content\": \"q\"}, {\"role\": \"assistant\", \"content\": \"a\"}]}";
    // Reads the configuration, and then the files that were written.
    for _ in 0..2 {
        let tokenizer = Tokenizer::from_folder(path).unwrap();
        let dataset =
            load_bytes("a.jsonl", rows, &DataOptions::default(), Some(&tokenizer)).unwrap();
        let text = |index: usize| -> String {
            let tokens = inspect(&dataset.sequences.get(index).unwrap(), Some(&tokenizer)).unwrap();
            tokens.iter().map(|token| token.text.as_str()).collect()
        };
        assert!(
            text(0).starts_with("weather<|im_start|>user")
                && text(1).starts_with("<|im_start|>user")
        );
        tokenizer.save_to_folder(path).unwrap();
        assert!(
            !std::fs::read_to_string(path.join("tokenizer_config.json"))
                .unwrap()
                .contains("chat_template")
        );
        let rag = path.join("additional_chat_templates/rag.jinja");
        assert_eq!(std::fs::read_to_string(rag).unwrap(), "{% not for us %}");
    }
    // Files override the configuration; a single template replaces all.
    original = Tokenizer::from_folder(path).unwrap();
    original.set_chat_template(ChatTemplates::from(ChatTemplate::compile("mine").unwrap()));
    assert_eq!(
        original.chat_templates().unwrap().choose(true).source(),
        "mine"
    );
    config["chat_template"] = json!([{"name": "../evil", "template": "x"}]);
    std::fs::remove_file(path.join("chat_template.jinja")).unwrap();
    std::fs::remove_dir_all(path.join("additional_chat_templates")).unwrap();
    std::fs::write(path.join("tokenizer_config.json"), config.to_string()).unwrap();
    let refused = Tokenizer::from_folder(path).err().unwrap().to_string();
    assert!(refused.contains("../evil"), "{refused}");
}

#[test]
fn answers_without_text_are_counted() {
    let chat = |answer: &str| {
        format!(
            r#"{{"messages": [{{"role": "user", "content": "q"}}, {{"role": "assistant", {answer}}}]}}"#
        )
    };
    let turns = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": ""}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#;
    let good = r#""content": "a""#;
    let cases = [
        (chat(r#""content": """#), 1, 1),
        (chat(r#""content": " \n""#), 1, 1),
        (chat(r#""content": [{"type": "text", "text": ""}]"#), 1, 1),
        (chat(r#""content": "a""#), 0, 0),
        (chat(r#""content": "", "weight": 0"#), 0, 0),
        (turns.to_owned(), 0, 1),
    ];
    for (row, last, all) in cases {
        for (train_on, expected) in [(TrainOn::Completion, last), (TrainOn::All, all)] {
            let options = DataOptions {
                train_on,
                ..DataOptions::default()
            };
            let rows = format!("{row}\n{}\n", chat(good));
            let t = tokenizer(Some(CHATML));
            let report = load_bytes("a.jsonl", rows, &options, Some(&t))
                .unwrap()
                .report;
            assert_eq!(report.empty_answers, expected, "{train_on:?}: {row}");
            let note = "1 trained answer without text: at most an end token is trained there";
            let said = report.notes().iter().filter(|n| *n == note).count();
            assert_eq!(said as u64, expected, "{:?}", report.notes());
        }
    }
    for (csv, template) in [
        ("instruction,input,output\na,,b\na,b,\n", Some(CHATML)),
        ("instruction,input,output\na,,b\na,b,\n", None),
        ("prompt,completion\na,b\na,\n", None),
    ] {
        let t = tokenizer(template);
        let dataset = load_bytes("a.csv", csv, &DataOptions::default(), Some(&t)).unwrap();
        assert_eq!(dataset.report.empty_answers, 1, "{csv}");
    }
    // An answer of calls alone says something, if the template writes them out.
    let calls = "{% for m in messages %}{{ m.content }}{{ m.tool_calls }}</s>{% endfor %}";
    let call = r#""content": "", "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}]"#;
    let t = tokenizer(Some(calls));
    let dataset = load_bytes("a.jsonl", chat(call), &DataOptions::default(), Some(&t)).unwrap();
    assert_eq!(dataset.report.empty_answers, 0);
}
