//! Pairs of answers: every layout gives the same two sequences.

use tightrope_data::packing::Units;
use tightrope_data::{
    DataError, DataOptions, Dataset, ExampleKind, Examples, Format, Overlong, Tokenizer, TrainOn,
    load,
};

use crate::common::{CHATML, load_bytes, marked, tokenizer, write};

fn read(rows: &str, options: &DataOptions, tokenizer: &Tokenizer) -> Dataset {
    load_bytes("a.jsonl", rows, options, Some(tokenizer)).unwrap_or_else(|e| panic!("{rows}: {e}"))
}

fn refusal(rows: &str, options: &DataOptions, tokenizer: Option<&Tokenizer>) -> String {
    let error = load_bytes("a.jsonl", rows, options, tokenizer).map(drop);
    error.unwrap_err().to_string()
}

#[test]
fn every_layout_is_the_same_pair() {
    let t = tokenizer(Some(CHATML));
    let said = |answer: &str| {
        format!("<|im_start|>user\nTea?<|im_end|>\n<|im_start|>assistant\n⟦{answer}<|im_end|>⟧\n")
    };
    let user = r#"{"role": "user", "content": "Tea?"}"#;
    let yes = r#"{"role": "assistant", "content": "Yes"}"#;
    let no = r#"{"role": "assistant", "content": "No"}"#;
    let human = r#"{"from": "human", "value": "Tea?"}"#;
    for row in [
        format!(r#"{{"prompt": [{user}], "chosen": [{yes}], "rejected": [{no}]}}"#),
        format!(r#"{{"prompt": [{user}], "chosen": "Yes", "rejected": "No"}}"#),
        format!(r#"{{"prompt": [{user}], "chosen": [{user}, {yes}], "rejected": [{user}, {no}]}}"#),
        format!(r#"{{"prompt": "Tea?", "chosen": [{user}, {yes}], "rejected": [{user}, {no}]}}"#),
        serde_json::json!({"messages": format!("[{user}]"), "chosen": yes, "rejected": no})
            .to_string(),
        format!(r#"{{"chosen": [{user}, {yes}], "rejected": [{user}, {no}]}}"#),
        format!(r#"{{"messages": [{user}], "chosen": {yes}, "rejected": {no}}}"#),
        format!(r#"{{"messages": [{user}], "chosen_response": "Yes", "rejected_response": "No"}}"#),
        format!(
            r#"{{"conversations": [{human}], "chosen": {{"from": "gpt", "value": "Yes"}},
                "rejected": {{"from": "gpt", "value": "No"}}}}"#
        )
        .replace('\n', " "),
        r#"{"instruction": "Tea?", "input": "", "chosen": "Yes", "rejected": "No"}"#.to_owned(),
        format!(
            r#"{{"input": {{"messages": [{user}]}}, "preferred_output": [{yes}], "non_preferred_output": [{no}]}}"#
        ),
    ] {
        let data = read(&row, &DataOptions::default(), &t);
        assert_eq!(data.kind, ExampleKind::Pairs, "{row}");
        let both = [0, 1].map(|index| marked(&data, index, &t));
        assert_eq!(both, [said("Yes"), said("No")], "{row}");
        let [chosen, rejected] = [0, 1].map(|index| data.sequences.origin(index).unwrap());
        assert_eq!(chosen, rejected);
        assert_eq!(data.report.files[0].format, Format::Preference);
        assert_eq!(data.report.unused, [], "{row}");
        assert_eq!(data.report.pairs, Some(1));
    }
}

#[test]
fn texts_and_ids_are_pairs_too() {
    let t = tokenizer(None);
    let row = r#"{"prompt": "ab", "chosen": "c", "rejected": "de", "score": 3, "completion": "x"}"#;
    let data = read(row, &DataOptions::default(), &t);
    assert_eq!(marked(&data, 0, &t), "ab⟦c</s>⟧");
    assert_eq!(marked(&data, 1, &t), "ab⟦de</s>⟧");
    let unused: Vec<_> = data.report.unused.iter().map(|u| u.key.as_str()).collect();
    assert_eq!(unused, ["score", "completion"]);
    for [prompt, chosen, rejected] in [
        ["prompt_ids", "chosen_ids", "rejected_ids"],
        ["prompt_input_ids", "chosen_input_ids", "rejected_input_ids"],
    ] {
        let row = format!(r#"{{"{prompt}": [5, 6], "{chosen}": [7, 8], "{rejected}": [9]}}"#);
        let data = load_bytes("a.jsonl", &row, &DataOptions::default(), None).unwrap();
        let examples = Examples::from(&data);
        assert_eq!((examples.count(), examples.packed_lengths()), (1, vec![7]));
        assert_eq!(data.sequences.get(0).unwrap().tokens(), [5, 6, 7, 8]);
        assert_eq!(data.sequences.get(0).unwrap().targets(), [-100, 7, 8, -100]);
        assert_eq!(data.sequences.get(1).unwrap().targets(), [-100, 9, -100]);
    }
}

#[test]
fn answers_of_several_turns_are_trained_after_the_prompt() {
    let t = tokenizer(Some(CHATML));
    let row =
        r#"{"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}],
        "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "x"},
        {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}"#
            .replace('\n', " ");
    let data = read(&row, &DataOptions::default(), &t);
    assert!(marked(&data, 0, &t).contains("⟦b<|im_end|>⟧"));
    assert!(marked(&data, 0, &t).contains("⟦d<|im_end|>⟧"));
    assert!(marked(&data, 1, &t).contains("⟦x<|im_end|>⟧"));
}

#[test]
fn pairs_without_a_difference_are_left_out_and_counted() {
    let t = tokenizer(None);
    let rows = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"b\"}\n\
                {\"prompt\": \"a\", \"chosen\": \"bcdefg\", \"rejected\": \"bcdefh\"}\n\
                {\"prompt\": \"abcdefgh\", \"chosen\": \"b\", \"rejected\": \"c\"}\n\
                {\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}";
    let short = |overlong| DataOptions {
        max_length: 4,
        overlong,
        ..DataOptions::default()
    };
    let data = read(rows, &short(Overlong::Truncate), &t);
    let report = &data.report;
    let counts = (
        report.equal_pairs,
        report.untrained_pairs,
        report.halved_pairs,
    );
    assert_eq!(
        (counts, report.pairs, data.sequences.len()),
        ((2, 1, 0), Some(1), 2)
    );
    let shown = report.to_string();
    assert!(
        shown.contains("2 pairs left out: both answers are the same"),
        "{shown}"
    );
    let rows = "{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"bcdefg\"}\n\
                {\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"}";
    let data = read(rows, &short(Overlong::Drop), &t);
    assert_eq!((data.report.halved_pairs, data.sequences.len()), (1, 2));
}

#[test]
fn what_no_pair_can_be_is_refused() {
    let t = tokenizer(Some(CHATML));
    let pair = r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#;
    let options = |change: fn(&mut DataOptions)| {
        let mut options = DataOptions::default();
        change(&mut options);
        options
    };
    for (change, key) in [
        (options(|o| o.train_on = TrainOn::All), "train_on"),
        (options(|o| o.overlong = Overlong::Split), "overlong"),
    ] {
        let shown = refusal(pair, &change, Some(&t));
        assert!(shown.contains(key), "{shown}");
    }
    let shown = refusal(pair, &options(|o| o.format = Format::Completion), Some(&t));
    assert!(shown.contains("`chosen`: one of a pair"), "{shown}");
    for (row, says) in [
        (r#"{"chosen": "b", "rejected": "c"}"#, "`chosen`: "),
        (
            r#"{"prompt": "a", "chosen": 3, "rejected": "c"}"#,
            "`chosen`: ",
        ),
        (
            r#"{"prompt": "a", "chosen": "b", "rejected": null}"#,
            "`rejected` is missing",
        ),
        (
            r#"{"prompt": [{"role": "user", "content": "x"}], "chosen": [{"role": "assistant", "content": "b"}], "rejected": [{"role": "system", "content": "y"}, {"role": "assistant", "content": "b"}]}"#,
            "`rejected[0]`: has another system prompt than `chosen[0]`",
        ),
        (
            r#"{"chosen": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "b"}], "rejected": [{"role": "user", "content": "y"}, {"role": "assistant", "content": "b"}]}"#,
            "`chosen[0]`: differs from `rejected[0]`",
        ),
        (
            r#"{"prompt": "a", "chosen": "b", "rejected": "c", "images": ["x.png"]}"#,
            "`images`: ",
        ),
        (
            r#"{"instruction": "a", "chosen": [{}], "rejected": "c"}"#,
            "`chosen`: ",
        ),
    ] {
        let shown = refusal(row, &DataOptions::default(), Some(&t));
        assert!(shown.contains(says), "{shown}");
        assert_eq!(shown.matches("a.jsonl").count(), 1, "{shown}");
    }
    assert!(refusal(pair, &DataOptions::default(), None).contains("tokenizer"));
    let folder = tempfile::tempdir().unwrap();
    let pairs = write(folder.path(), "pairs.jsonl", pair);
    let texts = write(folder.path(), "texts.jsonl", r#"{"text": "a"}"#);
    for paths in [[pairs.clone(), texts.clone()], [texts, pairs]] {
        let second = paths[1].clone();
        let error = load(&paths, &DataOptions::default(), Some(&t), &()).map(drop);
        let Err(DataError::MixedKinds { path, .. }) = error else {
            panic!("{error:?}");
        };
        assert_eq!(path, second);
    }
}

#[test]
fn keys_of_either_answer_are_counted_once() {
    let t = tokenizer(Some(CHATML));
    let row = r#"{"prompt": [{"role": "user", "content": "q", "a": 1}], "chosen": [{"role": "assistant", "content": "b"}], "rejected": [{"role": "assistant", "content": "c", "b": 1}]}"#;
    let data = read(row, &DataOptions::default(), &t);
    let unused: Vec<_> = data
        .report
        .unused
        .iter()
        .map(|u| (u.key.as_str(), u.rows))
        .collect();
    assert_eq!(unused, [("prompt[].a", 1), ("rejected[].b", 1)]);
}

#[test]
fn errors_name_the_keys_of_the_row() {
    let t = tokenizer(Some(CHATML));
    let user = r#"{"role": "user", "content": "q"}"#;
    let yes = r#"{"role": "assistant", "content": "y"}"#;
    for (row, says) in [
        (
            format!(
                r#"{{"prompt": [{user}], "chosen": [{{"content": "y"}}], "rejected": [{yes}]}}"#
            ),
            "`chosen[0].role` is missing",
        ),
        (
            format!(r#"{{"prompt": [{user}], "chosen": [{yes}], "rejected": [{{"role": 3}}]}}"#),
            "1:121: `rejected[0].role`: expected a string",
        ),
        (
            format!(r#"{{"chosen": [{user}, {yes}], "rejected": [{user}, {{"role": 3}}]}}"#),
            "`rejected[1].role`: expected a string",
        ),
        (
            format!(r#"{{"chosen": [{{"role": 3}}, {yes}], "rejected": [{{"role": 3}}, {user}]}}"#),
            "`chosen[0].role`: expected a string",
        ),
        (
            format!(r#"{{"messages": [{{"role": 3}}], "chosen": {yes}, "rejected": {yes}}}"#),
            "`messages[0].role`: expected a string",
        ),
        (
            format!(
                r#"{{"input": {{"messages": [{{"role": 3}}]}}, "preferred_output": [{yes}], "non_preferred_output": [{yes}]}}"#
            ),
            "`input.messages[0].role`: expected a string",
        ),
        (
            r#"{"prompt_ids": [5], "chosen_ids": [6, -7], "rejected_ids": [8]}"#.to_owned(),
            "1:39: `chosen_ids[1]`: -7 is not a token id",
        ),
        (
            r#"{"prompt_ids": [5, "x"], "chosen_ids": [6], "rejected_ids": [8]}"#.to_owned(),
            "`prompt_ids[1]`: expected a whole number",
        ),
        (
            r#"{"prompt_ids": [5], "chosen_ids": [6], "rejected_ids": [8, 99999]}"#.to_owned(),
            "1:60: `rejected_ids[1]`: token id 99999 is outside the vocabulary",
        ),
        (
            r#"{"prompt_ids": [99999], "chosen_ids": [6], "rejected_ids": [8]}"#.to_owned(),
            "`prompt_ids[0]`: token id 99999 is outside the vocabulary",
        ),
        (
            r#"{"prompt_ids": [5], "chosen_ids": [6], "rejected_ids": [8, 1.5]}"#.to_owned(),
            "`rejected_ids[1]`: 1.5 is not a whole number",
        ),
    ] {
        let shown = refusal(&row, &DataOptions::default(), Some(&t));
        assert!(shown.contains(says), "{shown}\nlacks: {says}");
    }
}
