//! Global options, exit codes and completions of the built binary.

use std::process::{Command, Output};

fn tightrope(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tightrope"))
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn wrong_usage_leaves_with_2_and_help_with_0() {
    assert_eq!(tightrope(&["trian"]).status.code(), Some(2));
    assert_eq!(
        tightrope(&["completions", "bash", "--threads", "0"])
            .status
            .code(),
        Some(2)
    );
    let help = tightrope(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(
        text.contains("Exit codes:") && text.contains("Examples:"),
        "{text}"
    );
}

#[test]
fn what_is_needed_is_named_with_its_alternative() {
    for command in ["eval", "generate", "chat", "merge", "inspect", "verify"] {
        let error = String::from_utf8(tightrope(&[command]).stderr).unwrap();
        assert!(error.contains("<CONFIG|--model <MODEL>>"), "{error}");
    }
    let cold = tightrope(&["generate", "--model", "m", "--temperature", "-1"]);
    let error = String::from_utf8(cold.stderr).unwrap();
    assert!(error.contains("must be a number of at least 0"), "{error}");
}

#[test]
fn an_option_that_is_a_key_is_named_as_one() {
    for (arguments, expected) in [
        (["train", "--model", "m"], Some("--set model=VALUE")),
        (
            ["train", "my.toml", "--data=x"],
            Some("--set data.train=VALUE"),
        ),
        (
            ["inspect", "my.toml", "--max-length=5"],
            Some("--set data.max_length=VALUE"),
        ),
        (
            ["train", "my.toml", "--epochs=3"],
            Some("--set run.epochs=VALUE"),
        ),
        (
            ["train", "my.toml", "--lr=3"],
            Some("--set optimizer.learning_rate=VALUE"),
        ),
        (["train", "my.toml", "--colour=never"], None),
    ] {
        let error = String::from_utf8(tightrope(&arguments).stderr).unwrap();
        assert!(error.contains("unexpected argument '--"), "{error}");
        assert!(!error.contains("as a value"), "{error}");
        assert!(expected.is_none_or(|tip| error.contains(tip)), "{error}");
    }
}

#[test]
fn help_keeps_the_lines_of_its_examples() {
    let output = Command::new(env!("CARGO_BIN_EXE_tightrope"))
        .args(["train", "--help"])
        .env("COLUMNS", "40")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = "  tightrope train --template > my.toml   a configuration, every key explained\n";
    assert!(text.contains(line), "{text}");
}

#[test]
fn the_version_names_the_commit_of_a_clone() {
    let text = String::from_utf8(tightrope(&["--version"]).stdout).unwrap();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let head = Command::new("git")
        .args(["rev-parse", "HEAD"])
        .current_dir(&root)
        .output();
    let version = format!("tightrope {}", env!("CARGO_PKG_VERSION"));
    match head {
        Ok(head) if head.status.success() && root.join(".git").exists() => {
            let head = String::from_utf8(head.stdout).unwrap();
            assert_eq!(text, format!("{version} ({})\n", &head[..12]));
        }
        _ => assert!(text.starts_with(&version), "{text}"),
    }
}

#[test]
fn manual_pages_are_about_all_and_about_each() {
    let all = String::from_utf8(tightrope(&["man"]).stdout).unwrap();
    assert!(
        all.contains(".TH tightrope 1") && all.contains("tightrope\\-train"),
        "{all}"
    );
    let train = String::from_utf8(tightrope(&["man", "train"]).stdout).unwrap();
    assert!(train.contains(".SH EXAMPLES\n.nf\n"), "{train}");
    assert!(train.contains("resume"), "{train}");
    for page in [all, train] {
        let title = page.lines().find(|line| line.starts_with(".TH")).unwrap();
        let version = concat!("\"tightrope ", env!("CARGO_PKG_VERSION"));
        assert!(title.contains(version), "{title}");
    }
}

#[test]
fn completion_scripts_name_the_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = tightrope(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("tightrope"), "{shell}: {script}");
    }
}

/// A reader that leaves early (`| head`) is neither a panic nor a failure.
#[test]
fn a_closed_pipe_is_no_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_tightrope"))
        .args(["completions", "zsh"])
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn an_address_is_no_path_and_its_secrets_are_not_shown() {
    let address = "https://name:hf_1234@x/a.jsonl?key=5678";
    for arguments in [
        &["eval", "--model", "model", "--data", address] as &[_],
        &["pack", "--lengths", address, "--capacity", "8"],
        &["merge", "run.toml", "--to", address],
        &["train", address],
    ] {
        let output = tightrope(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("https://x/a.jsonl is an address"), "{said}");
        assert!(!said.contains("1234") && !said.contains("5678"), "{said}");
    }
}
