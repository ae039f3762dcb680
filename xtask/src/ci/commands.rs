//! Tests that cargo and this repository know every `cargo` command in the documents.

use clap::{CommandFactory, error::ErrorKind};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tightrope_testkit::documents::{Command, commands};
use toml::Table;

const SUBCOMMANDS: &[&str] = &[
    "add", "bench", "build", "clippy", "deny", "doc", "fmt", "install", "package", "run", "test",
    "xtask",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Name and folder of every package.
fn packages() -> Vec<(String, PathBuf)> {
    let mut folders = vec![root().join("xtask"), root().join("benches")];
    for folder in ["crates", "crates/emulator"] {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        folders.extend(entries.map(|entry| entry.unwrap().path()));
    }
    let named = folders.into_iter().filter_map(|folder| {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).ok()?;
        let manifest: Table = manifest.parse().unwrap();
        let name = manifest["package"]["name"].as_str()?.to_owned();
        Some((name, folder))
    });
    named.collect()
}

/// Describes what is wrong with a command of cargo.
fn problem(command: &Command, packages: &[(String, PathBuf)]) -> Option<String> {
    let words: Vec<&str> = command.words.iter().map(String::as_str).collect();
    let (&["cargo", subcommand], rest) = words.split_at_checked(2)? else {
        return None;
    };
    if !SUBCOMMANDS.contains(&subcommand) && !subcommand.starts_with('-') {
        return Some(format!("cargo has no `{subcommand}`"));
    }
    if subcommand == "xtask" {
        let words = [&["cargo xtask"], rest].concat();
        let error = crate::Cli::command().try_get_matches_from(words).err()?;
        let missing = matches!(
            error.kind(),
            ErrorKind::MissingRequiredArgument
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                | ErrorKind::MissingSubcommand
        );
        return (command.complete || !missing).then(|| error.to_string());
    }
    let value = |option: &str| {
        let at = rest.iter().position(|word| *word == option)?;
        rest.get(at + 1).copied()
    };
    let package = value("-p");
    let folder = package.map(|name| packages.iter().find(|package| package.0 == name));
    let folder = match folder {
        Some(None) => return Some(format!("there is no package {}", package?)),
        Some(Some((_, folder))) => folder.clone(),
        None => root(),
    };
    for (option, sources) in [("--example", "examples"), ("--bench", "benches")] {
        let missing = value(option).filter(|name| {
            // Examples of the crates that work alone lie in the root.
            let folders = [folder.clone(), root()];
            let file = |folder: &PathBuf| folder.join(sources).join(format!("{name}.rs"));
            !folders.iter().any(|folder| file(folder).exists())
        });
        if let Some(name) = missing {
            return Some(format!("there is no {option} {name}"));
        }
    }
    let path = value("--path").filter(|path| !root().join(path).exists());
    path.map(|path| format!("there is no {path}"))
}

#[test]
fn documents_tell_commands_that_cargo_knows() {
    let packages = packages();
    let mut files = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    for folder in ["docs", "examples"] {
        let entries = fs::read_dir(root().join(folder)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files.extend(packages.iter().map(|package| package.1.join("README.md")));
    let mut count = 0;
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else {
            continue;
        };
        for command in commands(&text) {
            count += usize::from(command.words[0] == "cargo");
            if let Some(problem) = problem(&command, &packages) {
                panic!("{}:{}: {problem}", file.display(), command.line);
            }
        }
    }
    assert!(count > 30, "only {count} were found");
}

#[test]
fn a_wrong_command_is_found() {
    let packages = packages();
    for wrong in [
        "`cargo buidl`",
        "`cargo xtask trian`",
        "```\ncargo xtask fetch\n```",
        "`cargo test -p tightrope-nothing`",
        "`cargo run -p tightrope-packing --example nothing`",
        "`cargo install --path crates/nothing`",
    ] {
        let found = commands(wrong);
        assert!(problem(&found[0], &packages).is_some(), "{wrong}");
    }
    assert_eq!(
        problem(&commands("`cargo xtask fetch`")[0], &packages),
        None
    );
}
