//! Words that do not belong in the repository: marks of unfinished work, hosts, personal paths.

use super::{Problem, tree::Tree};

/// Each word in two halves (so that this file passes), with the reason.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("TO", "DO", "finish it, or file it"),
    ("FIX", "ME", "finish it, or file it"),
    ("to", "do!(", "finish it"),
    ("unimple", "mented!(", "finish it"),
    ("db", "g!(", "left from debugging"),
    ("<<<<", "<<< ", "left from a merge"),
    (
        "pypi",
        ".org",
        "where packages come from is the user's configuration",
    ),
    (
        "pythonhosted",
        ".org",
        "where packages come from is the user's configuration",
    ),
    (
        "crates",
        ".io",
        "where packages come from is the user's configuration",
    ),
    ("/ro", "ot/", "a path of one machine"),
    ("/ho", "me/", "a path of one machine"),
];
/// Files that cargo writes.
const GENERATED: &[&str] = &["Cargo.lock"];

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let words: Vec<(String, &str)> = FORBIDDEN
        .iter()
        .map(|(first, second, why)| (format!("{first}{second}"), *why))
        .collect();
    let mut problems = Vec::new();
    for (path, text) in &tree.files {
        if GENERATED.contains(&path.as_str()) {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            for (word, why) in words
                .iter()
                .filter(|(word, _)| line.contains(word.as_str()))
            {
                problems.push(Problem::new(path, index + 1, format!("`{word}`: {why}")));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_found_with_its_line() {
        for (first, second, _) in FORBIDDEN {
            let text = format!("fine\n    x {first}{second} y\n");
            let found = check(&Tree::of(&[("a.md", &text), ("Cargo.lock", &text)]));
            assert_eq!(found.len(), 1, "{first}{second}");
            assert_eq!((found[0].file.as_str(), found[0].line), ("a.md", 2));
        }
        assert!(check(&Tree::of(&[("a.md", "all done, in your own home")])).is_empty());
    }
}
