//! Records of other tools keep their meaning, or are refused by name.

use tightrope_data::{
    DataError, DataOptions, Dataset, OnBadRow, RowProblem, Tokenizer, TrainOn, load_for,
};

use crate::common::{CHATML, load_bytes, marked, tokenizer, write};

/// Writes out tools and calls, like the templates of models that know tools.
const TOOLS: &str = "{%- if tools %}{{ tools | tojson }}\n{% endif %}\
    {%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}\
    {%- for call in message.tool_calls or [] %}<call>{{ call.function.name }} \
    {{ call.function.arguments | tojson }}</call>{% endfor %}<|im_end|>\n{% endfor %}\
    {%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn assistant() -> DataOptions {
    DataOptions {
        train_on: TrainOn::Assistant,
        ..DataOptions::default()
    }
}

fn chat(role: &str, content: &str) -> String {
    format!("<|im_start|>{role}\n{content}<|im_end|>\n")
}

fn answer(content: &str) -> String {
    format!("<|im_start|>assistant\n⟦{content}<|im_end|>⟧\n")
}

fn read(row: &str, options: &DataOptions, tokenizer: &Tokenizer) -> Dataset {
    load_bytes("a.jsonl", row, options, Some(tokenizer)).unwrap_or_else(|e| panic!("{row}: {e}"))
}

fn refusal(row: &str, options: &DataOptions, tokenizer: Option<&Tokenizer>) -> String {
    match load_bytes("a.jsonl", row, options, tokenizer) {
        Err(error) => {
            // A chain of errors then says it once.
            assert!(std::error::Error::source(&error).is_none());
            error.to_string()
        }
        Ok(_) => panic!("{row} was read"),
    }
}

fn unused(dataset: &Dataset) -> Vec<(&str, u64)> {
    let unused = dataset.report.unused.iter();
    unused.map(|u| (u.key.as_str(), u.rows)).collect()
}

#[test]
fn documented_records_are_read_or_refused_as_documented() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/data.md");
    let document = std::fs::read_to_string(document).unwrap();
    let tokenizer = tokenizer(Some(TOOLS));
    let mut records = 0;
    for block in document.split("```json ").skip(1) {
        let (format, rows) = block.split_once('\n').unwrap();
        let (rows, _) = rows.split_once("```").unwrap();
        for row in rows.lines() {
            records += 1;
            let loaded = load_bytes("a.jsonl", row, &DataOptions::default(), Some(&tokenizer));
            match (format, loaded) {
                ("refused", Err(error)) => {
                    let DataError::Row(bad) = error else {
                        panic!("{row}: {error}");
                    };
                    assert!(matches!(bad.problem, RowProblem::Refused { .. }), "{row}");
                }
                ("refused", Ok(_)) => panic!("{row} was read"),
                (_, Err(error)) => panic!("{row}: {error}"),
                (format, Ok(dataset)) => {
                    assert_eq!(dataset.report.files[0].format.name(), format, "{row}");
                    let ids = "messages[].tool_call_id";
                    let unused = unused(&dataset).into_iter().filter(|(key, _)| *key != ids);
                    assert_eq!(unused.count(), 0, "{row}: {:?}", dataset.report.unused);
                }
            }
        }
    }
    assert!(records > 20, "{records}");
}

#[test]
fn alpaca_has_a_system_prompt_and_a_history() {
    let tokenizer = tokenizer(Some(CHATML));
    let row = r#"{"instruction": "And?", "input": "", "output": "Danube", "system": "Be brief", "history": [["Rivers?", "Rhine"]]}"#;
    let before = chat("system", "Be brief") + &chat("user", "Rivers?");
    let last = chat("user", "And?") + &answer("Danube");
    let dataset = read(row, &DataOptions::default(), &tokenizer);
    let expected = before.clone() + &chat("assistant", "Rhine") + &last;
    assert_eq!(marked(&dataset, 0, &tokenizer), expected);
    assert_eq!(unused(&dataset), []);
    let dataset = read(row, &assistant(), &tokenizer);
    assert_eq!(
        marked(&dataset, 0, &tokenizer),
        before + &answer("Rhine") + &last
    );
    let plain = crate::common::tokenizer(None);
    for (key, value) in [
        ("system", "\"s\""),
        ("history", "[[\"a\", \"b\"]]"),
        ("tools", "[{}]"),
    ] {
        let row = format!("{{\"instruction\": \"a\", \"output\": \"b\", \"{key}\": {value}}}");
        assert!(refusal(&row, &DataOptions::default(), Some(&plain)).contains(&format!("`{key}`")));
    }
    let empty = r#"{"instruction": "", "input": "a", "output": "b", "system": "", "history": [], "tools": null}"#;
    assert!(marked(&read(empty, &DataOptions::default(), &plain), 0, &plain).contains("Input:\na"));
    let dataset = read(empty, &DataOptions::default(), &tokenizer);
    assert_eq!(
        marked(&dataset, 0, &tokenizer),
        chat("user", "a") + &answer("b")
    );
    let wrong = r#"{"instruction": "", "output": "b", "history": [["a"]]}"#;
    assert!(refusal(wrong, &DataOptions::default(), Some(&tokenizer)).contains("history[0]"));
}

#[test]
fn a_system_prompt_beside_messages_comes_first() {
    let tokenizer = tokenizer(Some(CHATML));
    let expected = chat("system", "s") + &chat("user", "q") + &answer("a");
    for messages in [
        r#""messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]"#,
        r#""conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]"#,
        r#""conversations": [{"from": "human", "value": "q"}, {"from": "bard", "value": "a"}]"#,
        r#""messages": [{"from": "human", "value": "q"}, {"from": "bing", "value": "a"}]"#,
        r#""prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]"#,
    ] {
        let dataset = read(
            &format!("{{\"system\": \"s\", {messages}}}"),
            &assistant(),
            &tokenizer,
        );
        assert_eq!(marked(&dataset, 0, &tokenizer), expected, "{messages}");
        assert_eq!(unused(&dataset), []);
    }
    let row = r#"{"system": "other", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#;
    let dataset = read(row, &assistant(), &tokenizer);
    assert_eq!(marked(&dataset, 0, &tokenizer), expected);
    assert_eq!(unused(&dataset), [("system", 1)]);
}

#[test]
fn answers_marked_as_not_trained_are_not() {
    let tokenizer = tokenizer(Some(CHATML));
    let row = |mark: &str| {
        format!(
            r#"{{"system": "s", "messages": [{{"role": "user", "content": "q"}}, {{"role": "assistant", "content": "bad", {mark}}}, {{"role": "user", "content": "r"}}, {{"role": "assistant", "content": "a", "weight": null}}]}}"#
        )
    };
    let expected = chat("system", "s")
        + &chat("user", "q")
        + &chat("assistant", "bad")
        + &chat("user", "r")
        + &answer("a");
    for mark in [
        "\"weight\": 0",
        "\"weight\": 0.0",
        "\"loss_weight\": 0.0",
        "\"train\": false",
        "\"loss\": false",
    ] {
        let dataset = read(&row(mark), &assistant(), &tokenizer);
        assert_eq!(marked(&dataset, 0, &tokenizer), expected, "{mark}");
        assert_eq!(unused(&dataset), []);
        let all = DataOptions {
            train_on: TrainOn::All,
            ..DataOptions::default()
        };
        let text = marked(&read(&row(mark), &all, &tokenizer), 0, &tokenizer);
        assert!(text.contains("assistant\n⟧bad<|im_end|>⟦\n<"), "{text}");
    }
    for (mark, key) in [
        ("\"weight\": 0.5", "messages[1].weight"),
        ("\"loss_weight\": 0.5", "messages[1].loss_weight"),
        (
            "\"train_detail\": [{\"begin_offset\": 0}]",
            "messages[1].train_detail",
        ),
        ("\"train\": \"no\"", "messages[1].train"),
    ] {
        let shown = refusal(&row(mark), &assistant(), Some(&tokenizer));
        assert!(shown.contains(&format!("`{key}`")), "{shown}");
    }
    let user = r#"{"messages": [{"role": "user", "content": "q", "train": true}, {"role": "assistant", "content": "a"}]}"#;
    assert!(refusal(user, &assistant(), Some(&tokenizer)).contains("`messages[0].train`"));
}

#[test]
fn data_of_other_methods_is_refused_by_name() {
    let t = tokenizer(Some(CHATML));
    let chat =
        r#""messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]"#;
    for (row, key) in [
        (r#"{"prompt": "q", "chosen": "a"}"#.to_owned(), "chosen"),
        (
            r#"{"chosen": [{"role": "user", "content": "q"}]}"#.to_owned(),
            "chosen",
        ),
        (
            r#"{"instruction": "q", "input": "", "output": "a", "rejected": "b"}"#.to_owned(),
            "rejected",
        ),
        (
            format!("{{{chat}, \"rejected_response\": \"b\"}}"),
            "rejected_response",
        ),
        (
            format!("{{{chat}, \"chosen\": \"a\", \"label\": true}}"),
            "chosen",
        ),
        (format!("{{{chat}, \"images\": [\"a.png\"]}}"), "images"),
        (
            r#"{"input": {"messages": []}, "preferred_output": [1]}"#.to_owned(),
            "preferred_output",
        ),
    ] {
        let shown = refusal(&row, &DataOptions::default(), Some(&t));
        assert!(shown.contains("a.jsonl:1:"), "{shown}");
        assert!(shown.contains(&format!("`{key}`: ")), "{row}: {shown}");
        assert_eq!(shown.matches("a.jsonl").count(), 1, "{shown}");
    }
    let picture = r#"{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, {"role": "assistant", "content": "a"}]}"#;
    let shown = refusal(picture, &DataOptions::default(), Some(&t));
    assert!(shown.contains("`messages[0].content[0].type`"), "{shown}");
    // The class of a text is no verdict about an answer; each message is said once.
    let dataset = read(
        "{\"text\": \"ab\", \"label\": 1}\n{\"text\": \"cd\", \"label\": 0}",
        &DataOptions::default(),
        &t,
    );
    assert_eq!(unused(&dataset), [("label", 2)]);
}

#[test]
fn rows_packed_before_are_taken_apart() {
    let alone = "{\"input_ids\": [5, 6, 7]}\n{\"input_ids\": [8, 9], \"labels\": [8, 9]}";
    let alone = load_bytes("a.jsonl", alone, &DataOptions::default(), None).unwrap();
    for columns in [
        r#""input_ids": [5, 6, 7, 8, 9], "position_ids": [0, 1, 2, 0, 1]"#,
        r#""input_ids": [5, 6, 7, 8, 9], "seq_lengths": [3, 2]"#,
        r#""input_ids": [5, 6, 7, 8, 9], "attention_mask": [1, 1, 1, 2, 2]"#,
        r#""input_ids": [1, 5, 6, 7, 8, 9, 1], "attention_mask": [0, 1, 1, 1, 2, 2, 0], "position_ids": [0, 0, 1, 2, 0, 1, 0], "labels": [-100, 5, 6, 7, 8, 9, -100]"#,
    ] {
        let row = format!("{{{columns}}}");
        let packed = load_bytes("a.jsonl", &row, &DataOptions::default(), None).unwrap();
        assert_eq!(
            packed.sequences.identity(),
            alone.sequences.identity(),
            "{row}"
        );
        let row = packed.sequences.origin(1).unwrap().row;
        assert_eq!((packed.report.packed_rows, row), (1, 1));
        assert_eq!(unused(&packed), []);
    }
    for (columns, key) in [
        (
            r#""input_ids": [5, 6, 7], "position_ids": [1, 2, 3]"#,
            "position_ids[0]",
        ),
        (
            r#""input_ids": [5, 6, 7], "position_ids": [0, 2, 3]"#,
            "position_ids[1]",
        ),
        (
            r#""input_ids": [5, 6, 7], "seq_lengths": [1, 1]"#,
            "seq_lengths",
        ),
        (
            r#""input_ids": [5, 6, 7], "seq_lengths": [2, 2]"#,
            "seq_lengths[1]",
        ),
        (
            r#""input_ids": [5, 6, 7], "seq_lengths": [1, 2], "position_ids": [0, 1, 0]"#,
            "seq_lengths",
        ),
        (
            r#""input_ids": [5, 6, 7], "attention_mask": [2, 2, 2]"#,
            "attention_mask[0]",
        ),
        (r#""input_ids": [5, 6, 7], "seq_idx": [0, 0, 1]"#, "seq_idx"),
        (
            r#""input_ids": [5, 6, 7], "labels": [5, -3, 7]"#,
            "labels[1]",
        ),
    ] {
        let shown = refusal(&format!("{{{columns}}}"), &DataOptions::default(), None);
        assert!(shown.contains(&format!("`{key}`")), "{columns}: {shown}");
    }
}

#[test]
fn masks_of_tokenized_rows_say_what_is_trained() {
    for (columns, targets) in [
        (r#""completion_mask": [0, 0, 1, 1]"#, [-100, 7, 8, -100]),
        (r#""assistant_masks": [0, 1, 0, 1]"#, [6, -100, 8, -100]),
        (
            r#""assistant_masks": [0, 1, 0, 1], "completion_mask": [0, 0, 1, 1]"#,
            [-100, -100, 8, -100],
        ),
        (
            r#""labels": [-100, -100, 7, 8], "completion_mask": [0, 1, 1, 0]"#,
            [-100, 7, -100, -100],
        ),
        (
            r#""loss_mask": [false, false, true, true]"#,
            [-100, 7, 8, -100],
        ),
    ] {
        let row = format!("{{\"input_ids\": [5, 6, 7, 8], {columns}}}");
        let dataset = load_bytes("a.jsonl", &row, &DataOptions::default(), None).unwrap();
        assert_eq!(
            dataset.sequences.get(0).unwrap().targets(),
            targets,
            "{columns}"
        );
    }
    let row = r#"{"input_ids": [5, 6], "completion_mask": [0, 2]}"#;
    assert!(refusal(row, &DataOptions::default(), None).contains("`completion_mask[1]`"));
}

#[test]
fn null_columns_are_as_if_absent() {
    let t = tokenizer(Some(CHATML));
    for (row, format, expected) in [
        (
            r#"{"messages": null, "text": "ab"}"#,
            "text",
            "a⟦b</s>⟧".to_owned(),
        ),
        (
            r#"{"messages": [], "input_ids": null, "conversations": null, "instruction": "q", "input": null, "output": "a", "chosen": null, "label": null}"#,
            "alpaca",
            chat("user", "q") + &answer("a"),
        ),
        (
            r#"{"text": null, "messages": [{"role": "user", "content": "q", "tool_calls": null, "name": null}, {"role": "assistant", "content": "a", "weight": null}]}"#,
            "chat",
            chat("user", "q") + &answer("a"),
        ),
    ] {
        let dataset = read(row, &DataOptions::default(), &t);
        assert_eq!(dataset.report.files[0].format.name(), format);
        assert_eq!(marked(&dataset, 0, &t), expected);
    }
    let csv = "messages,text\n,ab\n,cd\n";
    let dataset = load_bytes("a.csv", csv, &DataOptions::default(), Some(&t)).unwrap();
    assert_eq!(dataset.report.files[0].format.name(), "text");
}

#[test]
fn function_calls_are_turns_of_the_assistant() {
    let rows = r#"{"conversations": [{"from": "human", "value": "w?"}, {"from": "function_call", "value": "{\"name\": \"w\", \"arguments\": {\"c\": 1}}"}, {"from": "observation", "value": "3"}, {"from": "gpt", "value": "cold"}], "tools": "[{\"name\": \"w\"}]"}"#;
    // A template that does not read calls gets the unchanged text.
    let t = tokenizer(Some(CHATML));
    let dataset = read(rows, &assistant(), &t);
    let call = "{\"name\": \"w\", \"arguments\": {\"c\": 1}}";
    let after = chat("tool", "3") + &answer("cold");
    assert_eq!(
        marked(&dataset, 0, &t),
        chat("user", "w?") + &answer(call) + &after
    );
    // It is reported once, although the call in the text has the tool's name.
    assert_eq!(
        (unused(&dataset), dataset.report.dropped.tools),
        (vec![], 1)
    );
    let t = tokenizer(Some(TOOLS));
    let dataset = read(rows, &assistant(), &t);
    let tools = "[{\"type\": \"function\", \"function\": {\"name\": \"w\"}}]\n";
    let call = answer("<call>w {\"c\": 1}</call>");
    let expected = format!("{tools}{}{call}{after}", chat("user", "w?"));
    assert_eq!(marked(&dataset, 0, &t), expected);
    assert_eq!(unused(&dataset), []);
    // The same in OpenAI's form, with arguments as text, and with the older names.
    for row in [
        r#"{"messages": [{"role": "user", "content": "w?"}, {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "w", "arguments": "{\"c\": 1}"}}]}, {"role": "tool", "content": "3"}, {"role": "assistant", "content": "cold"}], "tools": [{"type": "function", "function": {"name": "w"}}]}"#,
        r#"{"messages": [{"role": "user", "content": "w?"}, {"role": "assistant", "content": "", "function_call": {"name": "w", "arguments": "{\"c\": 1}"}}, {"role": "function", "content": "3"}, {"role": "assistant", "content": "cold"}], "functions": [{"name": "w"}]}"#,
    ] {
        let dataset = read(row, &assistant(), &t);
        assert_eq!(marked(&dataset, 0, &t), expected, "{row}");
    }
    let text = r#"{"conversations": [{"from": "human", "value": "w?"}, {"from": "function_call", "value": "look"}]}"#;
    assert_eq!(
        marked(&read(text, &assistant(), &t), 0, &t),
        chat("user", "w?") + &answer("look")
    );
}

#[test]
fn what_is_not_used_is_counted() {
    let t = tokenizer(Some(CHATML));
    let rows = concat!(
        r#"{"id": 1, "messages": [{"role": "user", "content": "q", "name": "x"}, {"role": "assistant", "content": "a", "name": "y"}], "chat_template_kwargs": {"think": true}}"#,
        "\n",
        r#"{"id": 2, "url": null, "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}"#,
    );
    let dataset = read(rows, &DataOptions::default(), &t);
    let kwargs = "chat_template_kwargs.think";
    assert_eq!(unused(&dataset), [("id", 2), (kwargs, 1)]);
    assert_eq!(dataset.report.duplicate_rows, 1);
    let shown = dataset.report.to_string();
    assert!(
        shown.contains("not used: id (2 rows), ")
            && shown
                .contains("1 row with messages with a `name` that the chat template leaves out"),
        "{shown}"
    );
    let many: String = (0..300)
        .map(|i| format!("{{\"text\": \"ab\", \"k{i}\": 1}}\n"))
        .collect();
    let dataset = read(&many, &DataOptions::default(), &t);
    assert_eq!(dataset.report.unused.len(), 101);
    assert_eq!(dataset.report.unused[100].rows, 200);
}

#[test]
fn the_longest_row_is_known_before_the_cut() {
    let options = DataOptions {
        max_length: 2,
        ..DataOptions::default()
    };
    let rows = "{\"input_ids\": [1, 2, 3, 4, 5]}\n{\"input_ids\": [6, 7]}\n";
    let dataset = load_bytes("a.jsonl", rows, &options, None).unwrap();
    assert_eq!((dataset.report.longest, dataset.report.lengths.max), (5, 2));
    assert!(dataset.report.to_string().contains("; 5 before the cut"));
}

#[test]
fn ids_are_compared_with_the_embedding() {
    let folder = tempfile::tempdir().unwrap();
    let load = |rows: &str, options: &DataOptions, t: Option<&Tokenizer>, embedding| {
        let path = write(folder.path(), "a.jsonl", rows);
        load_for(&[path], options, t, Some(embedding), &())
    };
    let good = "{\"input_ids\": [1, 2]}\n";
    for (bad, key) in [
        (r#"{"input_ids": [1, 300]}"#, "`input_ids[1]`: id 300"),
        (
            r#"{"input_ids": [1, 2], "labels": [-100, 300]}"#,
            "`labels[1]`: id 300",
        ),
        (
            r#"{"input_ids": [1, 2, 1, 300], "seq_lengths": [2, 2]}"#,
            "`input_ids[3]`: id 300",
        ),
    ] {
        let rows = format!("{good}{bad}");
        let shown = load(&rows, &DataOptions::default(), None, 300)
            .unwrap_err()
            .to_string();
        assert!(
            shown.contains(key) && shown.contains("a.jsonl:2:"),
            "{shown}"
        );
        assert!(shown.contains("on_bad_row = \"skip\""), "{shown}");
        assert!(load(&rows, &DataOptions::default(), None, 301).is_ok());
    }
    let skip = DataOptions {
        on_bad_row: OnBadRow::Skip,
        ..DataOptions::default()
    };
    let rows = format!("{good}{{\"input_ids\": [300, 1]}}");
    assert_eq!(
        load(&rows, &skip, None, 300).unwrap().report.skipped_rows,
        1
    );
    let t = tokenizer(None);
    let shown = load("{\"text\": \"hello</s>\"}", &skip, Some(&t), 260);
    assert!(shown.is_err());
    let shown = load(
        "{\"text\": \"hello</s>\"}",
        &DataOptions::default(),
        Some(&t),
        260,
    );
    let shown = shown.unwrap_err().to_string();
    assert!(shown.contains("embedding has 260 rows"), "{shown}");
}
