//! Which files of a listing are those of a part of a data set.

use super::data::{CONVERTED, Part};
use std::collections::BTreeSet;

/// Endings of files that hold records.
const ENDINGS: [&str; 5] = [".parquet", ".jsonl", ".json", ".csv", ".tsv"];
/// Splits with their other names.
const SPLITS: [&[&str]; 3] = [
    &["train", "training"],
    &["validation", "valid", "val", "dev"],
    &["test", "testing", "eval", "evaluation"],
];

/// What a listing has for a part.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Files(Vec<String>),
    /// Nothing; what there is instead, for people.
    Instead(String),
}

impl Part<'_> {
    /// Files of the part among those of a converted data set, `SUBSET/SPLIT/0000.parquet`.
    fn converted<'a>(&self, names: impl Iterator<Item = &'a str>) -> Found {
        let parts = names.filter_map(|name| {
            let (subset, rest) = name.split_once('/')?;
            let (split, file) = rest.split_once('/')?;
            file.ends_with(".parquet").then_some((subset, split, name))
        });
        let parts: Vec<_> = parts.collect();
        let subsets: BTreeSet<&str> = parts.iter().map(|(subset, ..)| *subset).collect();
        let subset = match self.subset {
            Some(subset) => subset,
            None if subsets.contains("default") => "default",
            None if subsets.len() == 1 => subsets.first().copied().unwrap_or_default(),
            None => return Found::Instead(format!("its subsets are {}", list(&subsets))),
        };
        let own = parts.iter().filter(|(other, ..)| *other == subset);
        let files = own.clone().filter(|(_, split, _)| *split == self.split);
        let files: Vec<String> = files.map(|(.., name)| (*name).to_owned()).collect();
        match files.is_empty() {
            false => Found::Files(files),
            true => {
                let splits: BTreeSet<&str> = own.map(|(_, split, _)| *split).collect();
                Found::Instead(match splits.is_empty() {
                    true => format!("its subsets are {}", list(&subsets)),
                    false => format!("its splits are {}", list(&splits)),
                })
            }
        }
    }

    /// Files of the part among those of its owner: files of records whose path names the subset, if
    /// one is wanted, and the split. Files that name no split are the split `train`.
    fn own<'a>(&self, names: impl Iterator<Item = &'a str>) -> Found {
        let records = names.filter(|name| {
            let name = name
                .strip_suffix(".gz")
                .or(name.strip_suffix(".zst"))
                .unwrap_or(name);
            ENDINGS.iter().any(|end| name.ends_with(end)) && name != "dataset_infos.json"
        });
        let of_subset = |name: &&str| {
            self.subset
                .is_none_or(|subset| name.split('/').rev().skip(1).any(|folder| folder == subset))
        };
        let records: Vec<&str> = records.filter(of_subset).collect();
        let split = |name: &str| {
            let words: Vec<&str> = name.split(|c: char| !c.is_alphanumeric()).collect();
            SPLITS
                .iter()
                .find(|names| names.iter().any(|name| words.contains(name)))
        };
        let named = SPLITS.iter().find(|names| names.contains(&self.split));
        let is_own = |name: &&&str| match (split(name), named) {
            (Some(own), Some(wanted)) => own == wanted,
            (None, Some(wanted)) => {
                wanted[0] == "train" && records.iter().all(|r| split(r).is_none())
            }
            (_, None) => name
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|word| word == self.split),
        };
        let files: Vec<String> = records
            .iter()
            .filter(is_own)
            .map(|name| (*name).to_owned())
            .collect();
        match files.is_empty() {
            false => Found::Files(files),
            true => Found::Instead(match records.is_empty() {
                true => "it has no files of records there".to_owned(),
                false => format!(
                    "its files of records are {}",
                    list(&records.into_iter().collect())
                ),
            }),
        }
    }

    pub(super) fn find<'a>(&self, revision: &str, names: impl Iterator<Item = &'a str>) -> Found {
        match revision {
            CONVERTED => self.converted(names),
            _ => self.own(names),
        }
    }
}

/// A few of many names, in a form that is safe for terminals.
fn list(names: &BTreeSet<&str>) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<_> = names
        .iter()
        .take(SHOWN)
        .map(|name| name.escape_debug().to_string())
        .collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part<'a>(subset: Option<&'a str>, split: &'a str) -> Part<'a> {
        Part {
            id: "owner/name",
            revision: None,
            subset,
            split,
        }
    }

    fn files(found: Found) -> Vec<String> {
        match found {
            Found::Files(files) => files,
            Found::Instead(there) => vec![format!("not: {there}")],
        }
    }

    #[test]
    fn a_converted_data_set_has_folders_for_subsets_and_splits() {
        let one = [
            "default/test/0000.parquet",
            "default/train/0000.parquet",
            "default/train/0001.parquet",
        ];
        let of = |subset, split, names: &[&'static str]| {
            files(part(subset, split).converted(names.iter().copied()))
        };
        assert_eq!(of(None, "train", &one), one[1..]);
        assert_eq!(of(Some("default"), "test", &one), one[..1]);
        assert_eq!(
            of(None, "validation", &one),
            ["not: its splits are test, train"]
        );
        let two = ["en/train/0.parquet", "fr/train/0.parquet", "README.md"];
        assert_eq!(of(Some("fr"), "train", &two), two[1..2]);
        assert_eq!(of(None, "train", &two), ["not: its subsets are en, fr"]);
        assert_eq!(
            of(Some("de"), "train", &two),
            ["not: its subsets are en, fr"]
        );
        // A part of a large split is not the split.
        let partial = ["default/partial-train/0000.parquet"];
        assert_eq!(
            of(None, "train", &partial),
            ["not: its splits are partial-train"]
        );
    }

    #[test]
    fn other_data_sets_name_splits_in_their_paths() {
        let of = |subset, split, names: &[&'static str]| {
            files(part(subset, split).own(names.iter().copied()))
        };
        let names = [
            "README.md",
            "data/dev.jsonl",
            "data/test-0.parquet",
            "data/train-0-of-2.parquet",
            "data/train-1-of-2.parquet",
            "x.py",
        ];
        assert_eq!(of(None, "train", &names), names[3..5]);
        assert_eq!(of(None, "validation", &names), names[1..2]);
        assert_eq!(of(None, "test", &names), names[2..3]);
        let plain = ["a.jsonl", "b.csv.gz", "dataset_infos.json"];
        assert_eq!(of(None, "train", &plain), plain[..2]);
        assert_eq!(
            of(None, "test", &plain),
            ["not: its files of records are a.jsonl, b.csv.gz"]
        );
        let subsets = ["en/train.jsonl", "fr/train.jsonl"];
        assert_eq!(of(Some("fr"), "train", &subsets), subsets[1..]);
        let odd = ["train_sft.jsonl", "train_gen.jsonl"];
        assert_eq!(of(None, "train_sft", &odd), odd[..1]);
        // A word in another word is no split.
        assert_eq!(
            of(None, "train", &["constraints.jsonl", "test.jsonl"])[0][..4],
            *"not:"
        );
        assert_eq!(
            of(None, "train", &["README.md"]),
            ["not: it has no files of records there"]
        );
    }
}
