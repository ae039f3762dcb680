//! Several sets of files: options of their own, how often records are taken, and in which order.

use std::collections::BTreeMap;

use tightrope_data::{
    Amount, DataError, DataOptions, Dataset, FileSet, Format, TrainOn, load_sets,
};

use crate::common::{CHATML, marked, tokenizer, write};

/// A set of `count` rows, whose texts begin with the name of the set.
fn set(folder: &std::path::Path, name: &str, count: usize, amount: Amount) -> FileSet {
    let rows: Vec<String> = (0..count)
        .map(|row| format!("{{\"text\": \"{name}{row}\"}}"))
        .collect();
    FileSet {
        name: Some(name.to_owned()),
        paths: vec![write(folder, &format!("{name}.jsonl"), rows.join("\n"))],
        options: DataOptions::default(),
        amount,
    }
}

fn load(sets: &[FileSet]) -> Result<Dataset, DataError> {
    load_sets(sets, Some(&tokenizer(None)), None, &())
}

/// How often each text is there.
fn counts(data: &Dataset) -> BTreeMap<Vec<u32>, usize> {
    let mut counts = BTreeMap::new();
    for sequence in data.sequences.iter() {
        *counts
            .entry(sequence.unwrap().tokens().to_vec())
            .or_default() += 1;
    }
    counts
}

#[test]
fn amounts_say_how_often_records_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let of = |name, count, amount| set(folder.path(), name, count, amount);
    let sets = [
        of("a", 10, Amount::Weight(2.5)),
        of("b", 8, Amount::Weight(0.5)),
        of("c", 6, Amount::Samples(9)),
        of("d", 5, Amount::Samples(2)),
        of("e", 3, Amount::default()),
    ];
    let read = load(&sets).unwrap();
    assert_eq!(read.report.duplicate_rows, 0);
    let data = read.clone().mixed(7).unwrap();
    let reports: Vec<_> = data
        .report
        .sets
        .iter()
        .map(|s| (s.records, s.taken))
        .collect();
    assert_eq!(reports, [(10, 25), (8, 4), (6, 9), (5, 2), (3, 3)]);
    assert_eq!(data.sequences.len(), 43);
    assert_eq!(
        data.report.duplicate_rows, 0,
        "repeated records are no duplicates"
    );
    let a = read.sequences.get(0).unwrap().tokens()[0];
    let of_a = counts(&data).into_iter().filter(|(text, _)| text[0] == a);
    let mut of_a: Vec<usize> = of_a.map(|(_, count)| count).collect();
    of_a.sort_unstable();
    assert_eq!(of_a, [2, 2, 2, 2, 2, 3, 3, 3, 3, 3]);
    let tokens: u64 = data.report.sets.iter().map(|set| set.tokens).sum();
    assert_eq!(tokens, data.sequences.tokens());
    let share: f64 = data.report.sets.iter().map(|set| set.share).sum();
    assert!((share - 1.0).abs() < 1e-9);
    // The same records without mixing, set by set; other records for another seed.
    let taken = read.clone().taken(7).unwrap();
    assert_eq!(counts(&taken), counts(&data));
    assert!((1..taken.sequences.len()).all(|i| taken.set_of(i - 1) <= taken.set_of(i)));
    assert_ne!(counts(&read.clone().taken(8).unwrap()), counts(&data));
    let again = read.mixed(7).unwrap().sequences;
    assert_eq!(again.identity(), data.sequences.identity());
}

#[test]
fn what_a_set_takes_does_not_depend_on_the_other_sets() {
    let folder = tempfile::tempdir().unwrap();
    let half = set(folder.path(), "a", 20, Amount::Weight(0.5));
    let other = set(folder.path(), "b", 7, Amount::default());
    let of_a = |sets: &[FileSet]| {
        let data = load(sets).unwrap().mixed(3).unwrap();
        let a = data
            .report
            .sets
            .iter()
            .position(|set| set.name == "a")
            .unwrap();
        let own = (0..data.sequences.len()).filter(|&index| data.set_of(index) == a);
        own.map(|index| data.sequences.get(index).unwrap())
            .collect::<Vec<_>>()
    };
    let alone = of_a(std::slice::from_ref(&half));
    assert_eq!(alone.len(), 10);
    assert_eq!(alone, of_a(&[half.clone(), other.clone()]));
    assert_eq!(alone, of_a(&[other, half]));
}

#[test]
fn each_part_of_the_order_has_the_sets_in_their_proportions() {
    let folder = tempfile::tempdir().unwrap();
    let sets = [
        set(folder.path(), "a", 300, Amount::default()),
        set(folder.path(), "b", 50, Amount::Weight(2.0)),
    ];
    let data = load(&sets).unwrap().mixed(1).unwrap();
    for start in (0..data.sequences.len()).step_by(40) {
        let own = (start..start + 40)
            .filter(|&index| data.set_of(index) == 1)
            .count();
        assert!((9..=11).contains(&own), "{own} of 40 from {start}");
    }
    // The order within a set is by the seed, and a single whole set keeps its own.
    let of_a = |data: &Dataset| -> Vec<u64> {
        let own = (0..data.sequences.len()).filter(|&index| data.set_of(index) == 0);
        own.map(|index| data.sequences.origin(index).unwrap().row)
            .collect()
    };
    assert!(!of_a(&data).is_sorted());
    let one = load(&sets[..1]).unwrap().mixed(1).unwrap();
    assert!(of_a(&one).is_sorted());
}

#[test]
fn each_set_has_its_own_options() {
    let folder = tempfile::tempdir().unwrap();
    let row = r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}"#;
    let with = |name: &str, options: DataOptions| FileSet {
        name: Some(name.to_owned()),
        paths: vec![write(folder.path(), &format!("{name}.jsonl"), row)],
        options,
        amount: Amount::default(),
    };
    let plain = "{% for m in messages %}[{{ m.role }}]{{ m.content }};{% endfor %}";
    let sets = [
        with("last", DataOptions::default()),
        with(
            "every",
            DataOptions {
                train_on: TrainOn::Assistant,
                ..DataOptions::default()
            },
        ),
        with(
            "plain",
            DataOptions {
                chat_template: Some(plain.to_owned()),
                ..DataOptions::default()
            },
        ),
    ];
    let t = tokenizer(Some(CHATML));
    let data = load_sets(&sets, Some(&t), None, &()).unwrap();
    let shown = [0, 1, 2].map(|index| marked(&data, index, &t));
    assert!(
        !shown[0].contains("⟦b") && shown[0].contains("⟦d"),
        "{}",
        shown[0]
    );
    assert!(
        shown[1].contains("⟦b") && shown[1].contains("⟦d"),
        "{}",
        shown[1]
    );
    assert!(
        shown[2].starts_with("[user]a;[assistant]b;[user]c;"),
        "{}",
        shown[2]
    );
    assert_eq!(
        data.report.answers_trained().unwrap(),
        "4 of 6 answers trained"
    );
}

#[test]
fn pairs_and_split_records_stay_together() {
    let folder = tempfile::tempdir().unwrap();
    let pairs = |name: &str, count: usize, weight: f64| {
        let row = |row| {
            format!("{{\"prompt\": \"{name}{row}\", \"chosen\": \"y\", \"rejected\": \"n\"}}")
        };
        let rows: Vec<String> = (0..count).map(row).collect();
        FileSet {
            name: Some(name.to_owned()),
            paths: vec![write(
                folder.path(),
                &format!("{name}.jsonl"),
                rows.join("\n"),
            )],
            amount: Amount::Weight(weight),
            ..FileSet::default()
        }
    };
    let data = load(&[pairs("a", 5, 2.0), pairs("b", 4, 0.5)])
        .unwrap()
        .mixed(2)
        .unwrap();
    assert_eq!(
        (data.sequences.len(), data.report.sets[0].sequences),
        (24, 20)
    );
    for pair in 0..12 {
        let both = [0, 1].map(|side| 2 * pair + side);
        let [chosen, rejected] = both.map(|index| data.sequences.origin(index).unwrap());
        assert_eq!(chosen, rejected);
        let both = both.map(|index| data.sequences.get(index).unwrap());
        let [chosen, rejected] = [0, 1].map(|side| both[side].tokens());
        assert_eq!(chosen[..2], rejected[..2]);
        assert_ne!(chosen, rejected);
    }
}

#[test]
fn what_gives_nothing_or_too_much_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let of = |amount| {
        load(&[set(folder.path(), "a", 3, amount)])
            .unwrap()
            .mixed(1)
    };
    let error = |amount| of(amount).map(drop).unwrap_err().to_string();
    assert_eq!(
        error(Amount::Weight(0.1)),
        "set `a`: weight 0.1 takes none of its 3 records"
    );
    for amount in [Amount::Samples(u64::MAX), Amount::Weight(1e300)] {
        assert!(error(amount).contains("takes too many of its 3 records"));
    }
    let none = FileSet::default();
    assert!(matches!(load(&[none]), Err(DataError::NoFiles)));
    assert!(matches!(load(&[]), Err(DataError::NoFiles)));
    // Kinds of data cannot be mixed.
    let text = set(folder.path(), "text", 2, Amount::default());
    let pair = r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#;
    let pairs = FileSet {
        name: Some("pairs".to_owned()),
        paths: vec![write(folder.path(), "pairs.jsonl", pair)],
        ..FileSet::default()
    };
    let error = load(&[text, pairs]).map(drop).unwrap_err().to_string();
    assert!(
        error.contains("pairs.jsonl") && error.contains("one kind"),
        "{error}"
    );
}

#[test]
fn the_same_rows_in_two_sets_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let one = set(folder.path(), "a", 4, Amount::default());
    let other = FileSet {
        name: Some("b".to_owned()),
        options: DataOptions {
            format: Format::Text,
            ..DataOptions::default()
        },
        ..one.clone()
    };
    assert_eq!(load(&[one, other]).unwrap().report.duplicate_rows, 4);
}

#[test]
fn a_set_that_trains_nothing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let with = |name: &str, row: &str| FileSet {
        name: Some(name.to_owned()),
        paths: vec![write(folder.path(), &format!("{name}.jsonl"), row)],
        ..FileSet::default()
    };
    let sets = [
        with("all", r#"{"input_ids": [5, 6, 7]}"#),
        with(
            "none",
            r#"{"input_ids": [5, 6, 8], "labels": [-100, -100, -100]}"#,
        ),
    ];
    let notes = |sets: &[FileSet]| load(sets).unwrap().mixed(1).unwrap().report.notes();
    let said = notes(&sets);
    assert!(
        said.contains(&"set none: no token is trained".to_owned()),
        "{said:?}"
    );
    let every = "every token is trained: no `labels` and no mask leave any out";
    assert!(!said.contains(&every.to_owned()), "{said:?}");
    assert!(notes(&sets[..1]).contains(&every.to_owned()));
}
