//! `tightrope train`: fine-tunes a model as a configuration says.

use crate::{exit::Exit, report, screen::Screen, signals, terminal::Terminal};
use anyhow::Result;
use serde_json::json;
use std::{env, path::PathBuf};
use tightrope_train::{Config, Outcome, RunOptions, RunReport, StopFlag, config};

const EXAMPLES: &str = "\
Examples:
  tightrope train --template > my.toml    write a configuration with every key explained
  tightrope inspect my.toml               see the data as the model will see it
  tightrope train my.toml                 train
  tightrope train my.toml --resume        go on after an interruption
  tightrope train my.toml --set optimizer.learning_rate=1e-4 --set run.max_steps=30

Ctrl-C finishes the step, saves, and prints the command that goes on (exit code 75).
A second Ctrl-C stops at once.

Next: tightrope eval my.toml, tightrope generate my.toml \"A question\", tightrope merge my.toml.";

/// Fine-tune a model
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Configuration file (TOML)
    #[arg(required_unless_present = "template")]
    config: Option<PathBuf>,

    /// Set a key over the file's value
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,

    /// Go on from the newest whole checkpoint in the output folder
    #[arg(long)]
    resume: bool,

    /// Resume even though configuration or data have changed so that the result will differ
    #[arg(long, requires = "resume")]
    allow_change: bool,

    /// Delete an earlier run in the output folder
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,

    /// Print a configuration with every key, its default and what it does, and do nothing else
    #[arg(long)]
    template: bool,
}

pub fn run(args: Args, terminal: &Terminal) -> Result<Exit> {
    let Some(path) = args.config.filter(|_| !args.template) else {
        terminal.write(config::default_toml().as_bytes())?;
        return Ok(Exit::Success);
    };
    let config = Config::load(&path, &args.sets)?;
    let options = RunOptions {
        threads: terminal.threads(),
        resume: args.resume,
        overwrite: args.overwrite,
        allow_change: args.allow_change,
    };
    let screen = Screen::new(terminal);
    let stop = StopFlag::default();
    signals::stop_on_signal(stop.clone(), || {
        eprintln!("stopping after this step; once more stops at once");
    })?;
    let result = tightrope_train::train(&config, &options, &stop, &screen);
    screen.close();
    finish(&result?, &config, terminal)
}

/// Shows the report, and what to do next.
fn finish(report: &RunReport, config: &Config, terminal: &Terminal) -> Result<Exit> {
    let stopped = matches!(report.outcome, Outcome::Stopped { .. });
    let resume = resume_command(env::args());
    if terminal.json() {
        let mut event = json!({ "event": "report", "report": report });
        if stopped {
            event["resume"] = resume.into();
        }
        terminal.json_line(&event)?;
    } else {
        terminal.line(report::run(report))?;
        if stopped {
            terminal.line(format!("go on with: {resume}"))?;
        } else {
            terminal.line(format!("try it with: {}", generate_command(report, config)))?;
        }
    }
    Ok(if stopped { Exit::Saved } else { Exit::Success })
}

/// The command line of this process, resuming.
fn resume_command(arguments: impl Iterator<Item = String>) -> String {
    let mut words: Vec<String> = arguments.filter(|word| word != "--overwrite").collect();
    if !words.iter().any(|word| word == "--resume") {
        words.push("--resume".into());
    }
    shell(&words)
}

fn generate_command(report: &RunReport, config: &Config) -> String {
    let weights = report.weights.display().to_string();
    let mut words = vec![
        "tightrope".to_owned(),
        "generate".to_owned(),
        "--model".to_owned(),
    ];
    match config.lora {
        Some(_) => words.extend([config.model.clone(), "--adapter".to_owned(), weights]),
        None => words.push(weights),
    }
    words.extend(["--prompt".to_owned(), "A question".to_owned()]);
    shell(&words)
}

/// Words as a POSIX shell reads them back.
fn shell(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    let quoted = |word: &String| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    words.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resumed(command: &str) -> String {
        resume_command(command.split(' ').map(str::to_owned))
    }

    #[test]
    fn the_command_that_resumes_can_be_pasted() {
        assert_eq!(
            resumed("./tightrope train a.toml"),
            "./tightrope train a.toml --resume"
        );
        assert_eq!(
            resumed("tightrope train --resume a.toml"),
            "tightrope train --resume a.toml"
        );
        assert_eq!(
            resumed("tightrope train a.toml --overwrite --set data.train=['a.jsonl']"),
            r"tightrope train a.toml --set 'data.train=['\''a.jsonl'\'']' --resume"
        );
    }
}
