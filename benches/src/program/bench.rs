//! `cargo xtask bench`: runs suites and stores their rows with date, commit and machine.

use crate::emulator;
use anyhow::{Context, Result, ensure};
use chrono::Utc;
use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    thread,
};
use tightrope_benches::{Row, SUITES, Suite};

/// Name of the suite that can run on the emulator.
const EMULATED: &str = "kernels";

/// Runs the named suites (all if none is named). Each writes one file into `benches/runs/`; with
/// `json`, the only suite writes into that file. Emulated runs are stored only there.
pub(crate) fn run(
    root: &Path,
    names: &[String],
    emulated: bool,
    json: Option<&Path>,
) -> Result<()> {
    for name in names {
        find(name)?;
    }
    ensure!(
        json.is_none() || names.len() == 1,
        "--json takes the rows of one suite: name it"
    );
    ensure!(
        !emulated || names == [EMULATED],
        "--emulated is for one suite: cargo xtask bench {EMULATED} --emulated"
    );
    if emulated && !emulator::is_loaded() {
        return emulator::run_again(root);
    }
    for suite in SUITES {
        if names.is_empty() || names.iter().any(|name| name == suite.name) {
            let run = measure(root, suite)?;
            match json {
                Some(path) => store(path, &run)?,
                None if emulated => {}
                None => store(&dated(root, suite.name, &run), &run)?,
            }
        }
    }
    Ok(())
}

/// Runs a suite, and returns its rows with the facts that they depend on.
pub(crate) fn measure(root: &Path, suite: &Suite) -> Result<Value> {
    println!("{}: {}", suite.name, suite.about);
    let mut rows = Vec::new();
    (suite.run)(&mut |row| {
        println!("  {}", line(&row));
        rows.push(row);
    })?;
    Ok(described(root, suite.name, rows))
}

/// Finds the suite with this name.
pub(crate) fn find(name: &str) -> Result<&'static Suite> {
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

/// A row in readable form: `name value, name value`.
fn line(row: &Row) -> String {
    let field = |(name, value): (&String, &Value)| match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            format!("{name} {:.4}", number.as_f64().unwrap_or(f64::NAN))
        }
        Value::Array(values) => {
            let texts = values.iter().filter_map(Value::as_str);
            texts.collect::<Vec<_>>().join(" + ")
        }
        Value::Object(fields) => format!("{name} ({})", line(fields)),
        value => format!("{name} {value}"),
    };
    row.iter().map(field).collect::<Vec<_>>().join(", ")
}

/// Rows with date, commit, command and machine.
pub(crate) fn described(root: &Path, suite: &str, rows: Vec<Row>) -> Value {
    let root = root.to_string_lossy();
    let commit = output("git", &["-C", &root, "describe", "--always", "--dirty"]);
    let command: Vec<String> = std::env::args().skip(1).collect();
    json!({
        "suite": suite,
        "time": Utc::now().to_rfc3339(),
        "commit": commit.unwrap_or_else(|| "unknown".into()),
        "command": format!("cargo xtask {}", command.join(" ")),
        "machine": machine(),
        "rows": rows,
    })
}

/// `benches/runs/<date>-<suite>-<commit>.json`.
pub(crate) fn dated(root: &Path, suite: &str, run: &Value) -> PathBuf {
    let text = |key: &str| run[key].as_str().unwrap_or("unknown");
    let date = text("time").split('T').next().unwrap_or_default();
    root.join("benches/runs")
        .join(format!("{date}-{suite}-{}.json", text("commit")))
}

/// Writes the whole file, then renames it.
pub(crate) fn store(path: &Path, run: &Value) -> Result<()> {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    let folder = folder.unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer_pretty(&mut file, run)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    println!("{}", path.display());
    Ok(())
}

/// Facts about the machine, as far as the system reports them.
fn machine() -> Value {
    json!({
        "cpu": proc_field("/proc/cpuinfo", "model name"),
        "cores": thread::available_parallelism().map_or(0, usize::from),
        "memory": proc_field("/proc/meminfo", "MemTotal"),
        "system": output("uname", &["-sr"]),
        "compiler": output("rustc", &["--version"]),
    })
}

/// First `field: value` of a file below `/proc`; `None` if there is no such file.
fn proc_field(file: &str, field: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// Output of a program; `None` if the program does not exist or fails.
pub(crate) fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_suite_is_answered_with_the_known_ones() {
        let error = run(Path::new("."), &["pakcing".into()], false, None);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("pakcing") && error.contains(SUITES[0].name),
            "{error}"
        );
    }

    #[test]
    fn options_that_do_not_fit_the_suites_are_refused() {
        let refused = |names: &[&str], emulated, json: Option<&str>| {
            let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
            let result = run(Path::new("."), &names, emulated, json.map(Path::new));
            result.unwrap_err().to_string()
        };
        assert!(refused(&[], true, None).contains("bench kernels --emulated"));
        assert!(refused(&["packing"], true, None).contains("bench kernels --emulated"));
        assert!(refused(&[], false, Some("rows.json")).contains("name it"));
    }

    #[test]
    fn a_row_is_one_line() {
        let row = json!({
            "kernels": ["a", "b"], "shape": "2 × 3", "count": 3, "min_s": 0.25, "gpu": { "us": 0.5 },
        });
        let text = "a + b, 2 × 3, count 3, min_s 0.2500, gpu (us 0.5000)";
        assert_eq!(line(row.as_object().unwrap()), text);
    }

    #[test]
    fn a_run_is_stored_with_what_is_needed_to_repeat_it() {
        let root = tempfile::tempdir().unwrap();
        let row: Row = [("min_s".to_owned(), json!(0.25))].into_iter().collect();
        let run = described(root.path(), "packing", vec![row]);
        let path = dated(root.path(), "packing", &run);
        store(&path, &run).unwrap();
        let files: Vec<_> = fs::read_dir(root.path().join("benches/runs"))
            .unwrap()
            .collect();
        assert_eq!(files.len(), 1, "and no temporary file stays");
        let name = path.file_name().unwrap().to_string_lossy();
        assert!(name.ends_with("-packing-unknown.json"), "{name}");
        let text = fs::read(path).unwrap();
        let run: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(run["rows"][0]["min_s"], 0.25);
        for key in ["time", "commit", "command", "machine"] {
            assert!(!run[key].is_null(), "{key}");
        }
    }
}
