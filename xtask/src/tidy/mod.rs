//! `cargo xtask tidy`: checks rules of the repository that the compiler does not enforce.
//!
//! A rule is a function from the tree to its problems; a new one is a file here and a line in
//! `RULES`.

mod documents;
mod edges;
mod sources;
mod toolchain;
mod tree;
mod words;

use anyhow::{Result, ensure};
use std::{fmt, path::Path};
use tree::Tree;

type Rule = fn(&Tree) -> Vec<Problem>;

/// The rules, each with its description.
const RULES: &[(&str, Rule)] = &[
    ("crates use only the crates they may", edges::check),
    (
        "the compiler is the oldest that is promised",
        toolchain::check,
    ),
    ("every source file says what it is for", sources::purpose),
    ("unsafe code only in its rooms", sources::unsafe_code),
    ("no source file is too long", sources::length),
    ("nothing unfinished or out of place", words::check),
    ("documents and commands name each other", documents::check),
];

/// One broken rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    file: String,
    /// Line, counted from 1; 0 stands for the whole file.
    line: usize,
    message: String,
}

impl Problem {
    fn new(file: impl Into<String>, line: usize, message: impl Into<String>) -> Self {
        Self {
            file: file.into(),
            line,
            message: message.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.message),
            line => write!(f, "{}:{line}: {}", self.file, self.message),
        }
    }
}

/// Applies every rule to the repository at `root` and prints each problem.
pub(crate) fn run(root: &Path) -> Result<()> {
    let tree = Tree::read(root)?;
    let mut count = 0;
    for (name, rule) in RULES {
        let problems = rule(&tree);
        println!(
            "{} {name}",
            if problems.is_empty() { "ok  " } else { "FAIL" }
        );
        for problem in &problems {
            println!("     {problem}");
        }
        count += problems.len();
    }
    ensure!(count == 0, "tidy found {count} problems");
    Ok(())
}
