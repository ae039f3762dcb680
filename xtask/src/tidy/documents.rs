//! Compares the documents with the repository: every command, crate and linked file that they name
//! exists, and they name every command and crate.

use super::{Problem, edges::EDGES, tree::Tree};
use clap::CommandFactory;
use std::collections::BTreeSet;

const COMMANDS: &str = "crates/cli/src/commands";
const README: &str = "README.md";
/// Documents in the root whose commands and links are checked, besides everything in docs/.
const IN_ROOT: &[&str] = &[README, "CONTRIBUTING.md"];
const ARCHITECTURE: &str = "docs/architecture.md";

pub(super) fn check(tree: &Tree) -> Vec<Problem> {
    let commands: BTreeSet<&str> = tree
        .entries(COMMANDS)
        .into_iter()
        .map(|file| file.trim_end_matches(".rs"))
        .filter(|command| *command != "mod")
        .collect();
    let xtask = crate::Cli::command();
    let chores: BTreeSet<&str> = xtask.get_subcommands().map(|c| c.get_name()).collect();

    let mut problems = Vec::new();
    let mut named_commands = BTreeSet::new();
    let mut named_chores = BTreeSet::new();
    for (path, text) in documents(tree) {
        for (line, code) in code_spans(text) {
            for (binary, known, named) in [
                ("tightrope", &commands, &mut named_commands),
                ("xtask", &chores, &mut named_chores),
            ] {
                for word in words_after(code, binary) {
                    if !known.contains(word) && word != "help" {
                        let message = format!("`{binary} {word}` does not exist");
                        problems.push(Problem::new(path, line, message));
                    }
                    named.insert(word);
                }
            }
        }
        for (line, target) in links(text) {
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            if !tree.exists(&resolve(folder, target)) {
                let message = format!("links to `{target}`, which does not exist");
                problems.push(Problem::new(path, line, message));
            }
        }
    }
    for (binary, known, named) in [
        ("tightrope", &commands, &named_commands),
        ("cargo xtask", &chores, &named_chores),
    ] {
        for missing in known.difference(named) {
            let message = format!("no document names `{binary} {missing}`");
            problems.push(Problem::new(README, 0, message));
        }
    }
    let architecture = tree.files.get(ARCHITECTURE).map_or("", String::as_str);
    for (folder, _) in EDGES {
        let short = short_name(folder);
        if !code_spans(architecture).any(|(_, code)| code.split_whitespace().next() == Some(short))
        {
            let message = format!("no line of code starts with `{short}`");
            problems.push(Problem::new(ARCHITECTURE, 0, message));
        }
    }
    problems
}

fn documents(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.ending(".md")
        .filter(|(path, _)| IN_ROOT.contains(path) || path.starts_with("docs/"))
}

/// Pieces of code in a Markdown text, with their lines: lines of fenced blocks and `inline` spans.
fn code_spans(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().flat_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        let spans: Vec<&str> = match (fence, fenced) {
            (true, _) => Vec::new(),
            (false, true) => vec![line],
            (false, false) => line.split('`').skip(1).step_by(2).collect(),
        };
        spans.into_iter().map(move |span| (index + 1, span))
    })
}

/// Commands called in `code`: the word after each `binary`, and each of `a|b`. After `cargo run`
/// the word behind `--` is a command of `tightrope`.
fn words_after<'a>(code: &'a str, binary: &str) -> Vec<&'a str> {
    let words: Vec<&str> = code.split_whitespace().collect();
    let runs_us = binary == "tightrope" && code.contains("cargo run") && !code.contains(" -p ");
    let called = |pair: &&[&'a str]| {
        pair[0] == binary
            || pair[0].ends_with(&format!("/{binary}"))
            || (runs_us && pair[0] == "--")
    };
    words
        .windows(2)
        .filter(called)
        .flat_map(|pair| pair[1].split('|'))
        .filter(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        .filter(|word| !word.starts_with('-'))
        .collect()
}

/// Links to files of the repository, with their lines.
fn links(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().flat_map(|(index, line)| {
        line.split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
            .map(|target| target.split('#').next().unwrap_or(target))
            .filter(|target| !target.is_empty() && !target.contains("://"))
            .map(move |target| (index + 1, target))
    })
}

/// `target` as seen from `folder`, without `.` and `..`.
fn resolve(folder: &str, target: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The name of a crate's folder, without the path to it.
fn short_name(folder: &str) -> &str {
    folder.rsplit('/').next().unwrap_or(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Messages for a README text, beside an architecture that names every crate and a README line
    /// that names every chore; the only command is `train`.
    fn problems(readme: &str) -> Vec<String> {
        let xtask = crate::Cli::command();
        let chores = xtask
            .get_subcommands()
            .map(|c| format!("`cargo xtask {}`\n", c.get_name()));
        let readme = readme.to_owned() + "\n" + &chores.collect::<String>();
        let crates = EDGES.iter().map(|(f, _)| format!("`{}`\n", short_name(f)));
        let tree = Tree::of(&[
            ("crates/cli/src/commands/mod.rs", ""),
            ("crates/cli/src/commands/train.rs", ""),
            (ARCHITECTURE, &crates.collect::<String>()),
            (README, &readme),
        ]);
        check(&tree)
            .into_iter()
            .map(|problem| problem.message)
            .collect()
    }

    #[test]
    fn named_commands_exist() {
        assert!(problems("Run `tightrope train`.").is_empty());
        assert!(problems("```sh\n./target/release/tightrope train x.toml | head\n```").is_empty());
        assert!(problems("`cargo run --release -- train`").is_empty());
        for unknown in [
            "`tightrope train` and `tightrope trian`",
            "`tightrope train|trian x`",
            "```\ntightrope train\ntightrope trian\n```",
            "`tightrope train`, `cargo run --release -- trian`",
            "`tightrope train`, `cargo xtask trian`",
        ] {
            let found = problems(unknown);
            assert_eq!(found.len(), 1, "{unknown}: {found:?}");
            assert!(found[0].contains("trian` does not exist"), "{found:?}");
        }
        assert_eq!(
            problems("tightrope trian in plain words").len(),
            1,
            "only `train` is missing"
        );
    }

    #[test]
    fn every_command_and_crate_is_named() {
        assert_eq!(problems(""), ["no document names `tightrope train`"]);
        let empty = check(&Tree::default());
        let chores = crate::Cli::command().get_subcommands().count();
        assert_eq!(empty.len(), chores + EDGES.len());
    }

    #[test]
    fn links_lead_somewhere() {
        let text = "`tightrope train` [a](docs/architecture.md#floors) [b](https://x.y) [c](#top)";
        assert!(problems(text).is_empty());
        let text = "`tightrope train` [a](docs/nothing.md)";
        assert_eq!(
            problems(text),
            ["links to `docs/nothing.md`, which does not exist"]
        );
        assert_eq!(resolve("docs", "../crates/./cli/"), "crates/cli");
    }
}
