//! `cargo xtask bench`: runs suites and stores their rows with date, commit and machine.

use anyhow::{Context, Result};
use chrono::Utc;
use serde_json::{Value, json};
use std::{fs, io::Write, path::Path, process::Command, thread};
use tightrope_benches::{Row, SUITES, Suite};

/// Runs the named suites (all if none is named); each writes one file into `benches/runs/`.
pub fn run(root: &Path, names: &[String]) -> Result<()> {
    for name in names {
        find(name)?;
    }
    for suite in SUITES {
        if names.is_empty() || names.iter().any(|name| name == suite.name) {
            println!("{}: {}", suite.name, suite.about);
            let mut rows = Vec::new();
            (suite.run)(&mut |row| {
                println!("  {}", line(&row));
                rows.push(row);
            })?;
            store(root, suite.name, rows)?;
        }
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static Suite> {
    let names = SUITES.iter().map(|suite| suite.name).collect::<Vec<_>>();
    SUITES
        .iter()
        .find(|suite| suite.name == name)
        .with_context(|| {
            format!(
                "no suite is named `{name}`; there are: {}",
                names.join(", ")
            )
        })
}

/// A row for people: `name value, name value`.
fn line(row: &Row) -> String {
    let field = |(name, value): (&String, &Value)| match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            format!("{name} {:.4}", number.as_f64().unwrap_or(f64::NAN))
        }
        value => format!("{name} {value}"),
    };
    row.iter().map(field).collect::<Vec<_>>().join(", ")
}

/// Writes `benches/runs/<date>-<suite>-<commit>.json`.
fn store(root: &Path, suite: &str, rows: Vec<Row>) -> Result<()> {
    let commit = output(
        "git",
        &[
            "-C",
            &root.to_string_lossy(),
            "describe",
            "--always",
            "--dirty",
        ],
    );
    let commit = commit.unwrap_or_else(|| "unknown".into());
    let now = Utc::now();
    let run = json!({
        "suite": suite,
        "time": now.to_rfc3339(),
        "commit": commit,
        "command": format!("cargo xtask bench {suite}"),
        "machine": machine(),
        "rows": rows,
    });
    let folder = root.join("benches/runs");
    fs::create_dir_all(&folder)?;
    let path = folder.join(format!("{}-{suite}-{commit}.json", now.format("%Y-%m-%d")));
    let mut file = tempfile::NamedTempFile::new_in(&folder)?;
    serde_json::to_writer_pretty(&mut file, &run)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    println!("{}", path.display());
    Ok(())
}

/// What the figures depend on, as far as the system tells.
fn machine() -> Value {
    json!({
        "cpu": proc_field("/proc/cpuinfo", "model name"),
        "cores": thread::available_parallelism().map_or(0, usize::from),
        "memory": proc_field("/proc/meminfo", "MemTotal"),
        "system": output("uname", &["-sr"]),
        "compiler": output("rustc", &["--version"]),
    })
}

/// The first `field: value` of a file below `/proc`; none where there is no such file.
fn proc_field(file: &str, field: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// What a program prints; none if it is not there or fails.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_suite_is_answered_with_the_known_ones() {
        let error = run(Path::new("."), &["pakcing".into()])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("pakcing") && error.contains(SUITES[0].name),
            "{error}"
        );
    }

    #[test]
    fn a_run_is_stored_with_what_is_needed_to_repeat_it() {
        let root = tempfile::tempdir().unwrap();
        let row: Row = [("min_s".to_owned(), json!(0.25))].into_iter().collect();
        assert_eq!(line(&row), "min_s 0.2500");
        store(root.path(), "packing", vec![row]).unwrap();
        let files: Vec<_> = fs::read_dir(root.path().join("benches/runs"))
            .unwrap()
            .collect();
        assert_eq!(files.len(), 1, "and no temporary file stays");
        let text = fs::read(files[0].as_ref().unwrap().path()).unwrap();
        let run: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(run["rows"][0]["min_s"], 0.25);
        assert_eq!(run["command"], "cargo xtask bench packing");
        for key in ["time", "commit", "machine"] {
            assert!(!run[key].is_null(), "{key}");
        }
    }
}
