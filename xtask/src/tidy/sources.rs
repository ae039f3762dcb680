//! Rules about single source files: a first line that states the purpose, no unsafe code outside
//! the allowed crates, and a limited length.

use super::{Problem, tree::Tree};

/// Crates that may contain unsafe code.
const UNSAFE_ROOMS: &[&str] = &[
    "crates/device/",
    "crates/emulator/",
    "crates/kernels/",
    "crates/testkit/",
    // The measurement of the peak uses multiply-adds of the widest vectors.
    "benches/",
];
/// Longer files are split by idea.
const MAX_LINES: usize = 500;
const FORBID: &str = "#![forbid(unsafe_code)]";

pub(super) fn purpose(tree: &Tree) -> Vec<Problem> {
    tree.ending(".rs")
        .filter(|(_, text)| {
            let words = text
                .lines()
                .next()
                .and_then(|line| line.strip_prefix("//! "));
            words.is_none_or(|words| words.split_whitespace().count() < 2)
        })
        .map(|(path, _)| Problem::new(path, 1, "does not start with `//! ` and its purpose"))
        .collect()
}

pub(super) fn unsafe_code(tree: &Tree) -> Vec<Problem> {
    tree.ending(".rs")
        .filter(|(path, _)| path.ends_with("src/lib.rs") || path.ends_with("src/main.rs"))
        .filter(|(path, _)| !UNSAFE_ROOMS.iter().any(|room| path.starts_with(room)))
        .filter(|(_, text)| !text.lines().any(|line| line == FORBID))
        .map(|(path, _)| Problem::new(path, 0, format!("lacks {FORBID}")))
        .collect()
}

pub(super) fn length(tree: &Tree) -> Vec<Problem> {
    tree.ending(".rs")
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(path, lines)| {
            Problem::new(
                path,
                0,
                format!("{lines} lines, at most {MAX_LINES} allowed"),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(rule: fn(&Tree) -> Vec<Problem>, path: &str, text: &str) -> usize {
        rule(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn a_purpose_is_more_than_a_word_in_the_first_line() {
        assert_eq!(count(purpose, "a.rs", "//! Adds numbers.\nfn add() {}"), 0);
        for text in [
            "",
            "//!",
            "//! placeholder",
            "fn f() {}\n//! Adds numbers.",
            "// Adds numbers.",
        ] {
            assert_eq!(count(purpose, "a.rs", text), 1, "{text:?}");
        }
        assert_eq!(count(purpose, "a.py", ""), 0);
    }

    #[test]
    fn unsafe_code_is_forbidden_outside_its_rooms() {
        assert_eq!(count(unsafe_code, "crates/data/src/lib.rs", "//! x"), 1);
        assert_eq!(
            count(
                unsafe_code,
                "crates/cli/src/main.rs",
                &format!("// {FORBID}")
            ),
            1
        );
        assert_eq!(
            count(
                unsafe_code,
                "crates/data/src/lib.rs",
                &format!("//! x\n{FORBID}")
            ),
            0
        );
        assert_eq!(count(unsafe_code, "crates/kernels/src/lib.rs", "//! x"), 0);
        assert_eq!(count(unsafe_code, "crates/data/src/csv.rs", "//! x"), 0);
    }

    #[test]
    fn length_counts_lines() {
        assert_eq!(count(length, "a.rs", &"x\n".repeat(MAX_LINES)), 0);
        assert_eq!(count(length, "a.rs", &"x\n".repeat(MAX_LINES + 1)), 1);
    }
}
