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
