//! Runs the commands of the README's section "Start" word for word, because newcomers try them
//! first.

use anyhow::{Context, Result, bail, ensure};
use std::{
    fs,
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

/// Time limit of the demonstration: much longer than it takes on two cores.
const DEMONSTRATION: Duration = Duration::from_secs(600);

/// Commands by the word that distinguishes them: `run` and `test`.
pub(super) fn commands(root: &Path) -> Result<Vec<(String, Vec<String>)>> {
    let readme = fs::read_to_string(root.join("README.md")).context("README.md")?;
    of_text(&readme)
}

fn of_text(readme: &str) -> Result<Vec<(String, Vec<String>)>> {
    let section = readme.split("\n## Start\n").nth(1);
    let block = section.and_then(|section| section.split("```").nth(1));
    let block = block.context("README.md has no block of commands under `## Start`")?;
    let mut commands = Vec::new();
    // The first line has the name of the language.
    for line in block.lines().skip(1) {
        let line = line.split(" #").next().unwrap_or(line);
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let [program, chore, ..] = words.as_slice() else {
            bail!("README.md, under `## Start`: `{line}` is no command");
        };
        ensure!(
            program == "cargo",
            "README.md, under `## Start`: `{line}` needs more than cargo"
        );
        commands.push((chore.clone(), words));
    }
    Ok(commands)
}

/// Runs a command; the demonstration must end in time.
pub(super) fn run(root: &Path, words: &[String]) -> Result<()> {
    let line = words.join(" ");
    println!("$ {line}");
    let mut command = Command::new(&words[0]);
    let mut child = command
        .args(&words[1..])
        .current_dir(root)
        .spawn()
        .with_context(|| line.clone())?;
    let limit = words
        .iter()
        .any(|word| word == "run")
        .then_some(DEMONSTRATION);
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if limit.is_some_and(|limit| started.elapsed() > limit) {
            // When cargo runs a program, it becomes that program.
            child.kill()?;
            child.wait()?;
            bail!("{line}: not done after {} s", started.elapsed().as_secs());
        }
        sleep(Duration::from_millis(200));
    };
    ensure!(status.success(), "{line}: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_readme_starts_with_the_demonstration_and_the_tests() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let commands = commands(root).unwrap();
        let expected = [
            ("run".to_owned(), words("cargo run --release -- train")),
            ("test".to_owned(), words("cargo test --release --workspace")),
        ];
        assert_eq!(commands, expected);
    }

    #[test]
    fn a_readme_without_its_start_and_a_command_that_fails_are_errors() {
        assert!(of_text("# Title\n").is_err());
        assert!(of_text("# Title\n\n## Start\n\n```sh\nmake all\n```\n").is_err());
        let error = run(Path::new("."), &words("cargo no-such-chore")).unwrap_err();
        assert!(
            error.to_string().starts_with("cargo no-such-chore: "),
            "{error}"
        );
    }
}
