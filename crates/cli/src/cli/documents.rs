//! Tests that this program takes every command in documents and help texts.

use super::Cli;
use clap::{CommandFactory, error::ErrorKind};
use std::{fs, path::Path};
use tightrope_testkit::documents::{Command, commands};

/// Describes what is wrong with a command.
fn problem(command: &Command) -> Option<String> {
    let words = command.of_tightrope()?;
    let error = Cli::command().try_get_matches_from(&words).err()?;
    let fine = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => true,
        ErrorKind::MissingRequiredArgument
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => !command.complete,
        _ => false,
    };
    (!fine).then(|| format!("line {}: {}: {error}", command.line, words.join(" ")))
}

fn of_tightrope(text: &str) -> usize {
    let found = commands(text);
    found.iter().filter_map(Command::of_tightrope).count()
}

#[test]
fn documents_tell_commands_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = vec![root.join("README.md")];
    for folder in ["docs", "examples", "crates/packing", "crates/rope"] {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    let mut count = 0;
    for file in files.iter().filter(|file| file.extension().is_some()) {
        let text = fs::read_to_string(file).unwrap();
        count += of_tightrope(&text);
        for command in commands(&text) {
            if let Some(problem) = problem(&command) {
                panic!("{}: {problem}", file.display());
            }
        }
    }
    assert!(count > 20, "only {count} were found");
}

#[test]
fn help_tells_commands_that_exist() {
    let cli = Cli::command();
    for command in cli.get_subcommands().chain([&cli]) {
        let name = command.get_name();
        let after = command.get_after_help().unwrap().to_string();
        let block = format!("```\n{after}\n```");
        let listed = after.lines().filter(|line| line.starts_with("  tightrope"));
        assert_eq!(of_tightrope(&block), listed.count(), "{name}");
        for command in commands(&block) {
            if let Some(problem) = problem(&command) {
                panic!("tightrope {name} --help: {problem}");
            }
        }
    }
}

#[test]
fn a_wrong_command_is_found() {
    for wrong in [
        "`tightrope trian`",
        "`tightrope generate my.toml \"A question\"`",
        "```\ntightrope eval --model M\n```",
        "`cargo run --release -- train --set`",
    ] {
        let problems: Vec<String> = commands(wrong).iter().filter_map(problem).collect();
        assert_eq!(problems.len(), 1, "{wrong}: {problems:?}");
    }
}
