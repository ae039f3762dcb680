//! The demonstration's data: right, spread out, reproducible, and kept apart.

use std::collections::{BTreeMap, HashSet};

use tightrope_data::demo::{Language, Task, json_lines, records, split, tokenizer};
use tightrope_data::{DataOptions, Tokenizer, TrainOn};

use crate::common::{load_bytes, marked};

#[test]
fn answers_are_right() {
    let number = |text: &str| -> Vec<usize> {
        let digits = text.split(|c: char| !c.is_ascii_digit());
        digits
            .filter(|d| !d.is_empty())
            .map(|d| d.parse().unwrap())
            .collect()
    };
    let mut seen: BTreeMap<(Task, bool), usize> = BTreeMap::new();
    for r in records(7, 6000) {
        *seen
            .entry((r.task, r.language == Language::Korean))
            .or_default() += 1;
        assert!(r.accepts(&format!(" {}\n", r.answer)) && !r.accepts("") && !r.accepts("wrong"));
        let (asked, answer) = (number(&r.question), number(&r.answer));
        let listed = || {
            let (_, list) = r.question.split_once(": ").unwrap();
            list.split(", ").map(str::to_owned).collect::<Vec<_>>()
        };
        match r.task {
            Task::Add => assert_eq!(answer, [asked[0] + asked[1]], "{r:?}"),
            Task::Compare => assert_eq!(answer, [asked[0].max(asked[1])], "{r:?}"),
            Task::Count => {
                assert_eq!(answer, (asked[0]..=asked[1]).collect::<Vec<_>>(), "{r:?}");
            }
            Task::Sort => {
                let mut words = listed();
                words.sort();
                assert_eq!(r.answer, words.join(", "));
            }
            Task::Reverse => {
                let mut words = listed();
                words.reverse();
                assert_eq!(r.answer, words.join(", "));
            }
            Task::Table => {
                for line in r.answer.lines() {
                    let n = number(line);
                    assert_eq!(n[0] * n[1], n[2], "{r:?}");
                }
            }
            Task::Recite => {
                let days: Vec<&str> = r.answer.split(' ').collect();
                assert!((3..=7).contains(&days.len()), "{r:?}");
                assert!(
                    [days[0], days[days.len() - 1]]
                        .iter()
                        .all(|d| r.question.contains(d))
                );
            }
            Task::Lookup => {
                let name = r.question.lines().last().unwrap();
                let row = r.question.lines().skip(1).find(|row| {
                    let cell = row.split(" | ").next().unwrap().trim_start_matches("| ");
                    row.starts_with('|') && name.contains(cell)
                });
                assert!(row.unwrap().contains(&format!(" {} |", r.answer)), "{r:?}");
            }
            _ => assert!(!r.answer.is_empty()),
        }
    }
    assert_eq!(seen.len(), 30, "every task in both languages: {seen:?}");
    assert!(seen.values().all(|&n| n >= 20), "{seen:?}");
}

#[test]
fn the_same_seed_gives_the_same_and_no_question_is_on_both_sides() {
    let demo = split(1, 3000, 300);
    assert_eq!(demo, split(1, 3000, 300));
    assert_ne!(demo.train, split(2, 3000, 300).train);
    assert_eq!((demo.train.len(), demo.held_out.len()), (3000, 300));
    let trained: HashSet<&str> = demo.train.iter().map(|r| r.question.as_str()).collect();
    assert!(
        demo.held_out
            .iter()
            .all(|r| !trained.contains(r.question.as_str()))
    );
    let json = |t: &Tokenizer| {
        let folder = tempfile::tempdir().unwrap();
        t.save_to_folder(folder.path()).unwrap();
        std::fs::read(folder.path().join("tokenizer.json")).unwrap()
    };
    let first = tokenizer(&demo.train, 1024).unwrap();
    assert!(json(&first) == json(&tokenizer(&demo.train, 1024).unwrap()));
    assert!(
        (900..=1024).contains(&first.vocab_size()),
        "{}",
        first.vocab_size()
    );
    for r in &demo.held_out {
        let ids = first.encode(&r.question, true).unwrap();
        assert_eq!(first.decode(&ids, false).unwrap(), r.question);
    }
}

#[test]
fn lengths_spread_and_answers_are_trained() {
    let demo = split(42, 4000, 10);
    let tokenizer = tokenizer(&demo.train, 1024).unwrap();
    let options = DataOptions {
        train_on: TrainOn::Assistant,
        ..DataOptions::default()
    };
    let rows = json_lines(&demo.train);
    let dataset = load_bytes("demo.jsonl", rows, &options, Some(&tokenizer)).unwrap();
    let report = &dataset.report;
    println!("{report}");
    assert_eq!(
        (
            report.sequences,
            report.missing_eos,
            report.untrained_sequences
        ),
        (4000, 0, 0)
    );
    assert!(
        report.lengths.min >= 10 && report.lengths.max <= 700,
        "{report}"
    );
    assert!((25..=90).contains(&report.lengths.p50), "{report}");
    assert!(report.lengths.p95 > 3 * report.lengths.p50, "{report}");
    let text = marked(&dataset, 0, &tokenizer);
    let answer = &demo.train[0].answer;
    assert!(
        text.ends_with(&format!("assistant\n⟦ {answer}<|im_end|>⟧\n")),
        "{text}"
    );
}
