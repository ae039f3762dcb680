//! `tightrope train`: fine-tunes a model as configured.

use crate::{
    cli::at_least_one,
    exit::{self, Exit},
    paths, report,
    screen::Screen,
    signals,
    terminal::Terminal,
};
use anyhow::Result;
use serde_json::{Value, json};
use std::{
    env,
    path::{Path, PathBuf},
};
use tightrope_data::ChatTemplates;
use tightrope_run::demo;
use tightrope_train::{Config, Outcome, RunOptions, RunReport, StopFlag, config};

/// Output folder of the demonstration.
const DEMONSTRATION: &str = "runs/demonstration";

const EXAMPLES: &str = "\
Examples:
  tightrope train                        a small model learns from nothing
  tightrope train --template > my.toml   a configuration, every key explained
  tightrope inspect my.toml              see the data as the model will see it
  tightrope train my.toml                train
  tightrope train my.toml --resume       go on after an interruption
  tightrope train my.toml --set optimizer.learning_rate=1e-4

Ctrl-C finishes the step, saves, and prints the command that goes on (exit
code 75). A second Ctrl-C stops at once.

Next:
  tightrope eval my.toml
  tightrope chat my.toml
  tightrope merge my.toml";

/// Fine-tune a model; without a configuration, show that it works on a small one
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Configuration file (TOML) [default: the built-in demonstration, in runs/demonstration]
    #[arg(value_parser = paths::path())]
    config: Option<PathBuf>,

    /// Override a key of the configuration
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,

    /// Number of steps of the demonstration
    #[arg(long, value_name = "N", default_value_t = demo::Settings::default().steps, conflicts_with_all = ["config", "sets"])]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    steps: u64,

    /// Number of records that the demonstration trains on
    #[arg(long, value_name = "N", default_value_t = demo::Settings::default().records, conflicts_with_all = ["config", "sets"])]
    #[arg(value_parser = at_least_one)]
    records: usize,

    /// Number of questions that the demonstration asks at the end
    #[arg(long, value_name = "N", default_value_t = demo::Settings::default().questions, conflicts_with_all = ["config", "sets"])]
    questions: usize,

    /// Continue from the newest whole checkpoint in the output folder
    #[arg(long)]
    resume: bool,

    /// Resume even though configuration or data have changed so that the result will differ
    #[arg(long, requires = "resume")]
    allow_change: bool,

    /// Delete an earlier run in the output folder
    #[arg(long, conflicts_with = "resume")]
    overwrite: bool,

    /// Print a configuration with every key, its default and its effect, and do nothing else
    #[arg(long)]
    template: bool,
}

pub(crate) fn run(args: Args, terminal: &Terminal) -> Result<Exit> {
    if args.template {
        terminal.write(config::default_toml().as_bytes())?;
        return Ok(Exit::Success);
    }
    let options = RunOptions {
        threads: terminal.threads(),
        resume: args.resume,
        overwrite: args.overwrite,
        allow_change: args.allow_change,
    };
    let config = match &args.config {
        Some(path) => Some(Config::load(path, &args.sets)?),
        None => None,
    };
    let screen = Screen::new(terminal);
    let stop = StopFlag::default();
    let announced = screen.announcer();
    signals::stop_on_signal(stop.clone(), move || {
        announced("stopping after this step; once more stops at once");
    })?;
    let Some(config) = config else {
        let settings = demo::Settings {
            steps: args.steps,
            records: args.records,
            questions: args.questions,
        };
        let result = demo::run(
            Path::new(DEMONSTRATION),
            &settings,
            &options,
            &stop,
            &screen,
        );
        screen.close();
        let result = result?;
        let model = result.report.weights.display().to_string();
        let subject = vec!["--model".to_owned(), model];
        let (text, event) = (report::demonstration(&result), json!(result));
        let next = Some(answering(&result.report, subject));
        return finish(&result.report, text, event, next, terminal);
    };
    let result = tightrope_run::train(&config, &options, &stop, &screen);
    screen.close();
    let report = result?;
    let weights = report.weights.display().to_string();
    let next = match (config.objective.kind.scores(), &args.config) {
        // A model that scores does not answer.
        (true, Some(path)) if report.evaluation.is_some() => {
            Some(vec!["eval".to_owned(), path.display().to_string()])
        }
        (true, _) => None,
        (false, _) if !has_tokenizer(&config.model) => None,
        (false, _) => Some(answering(
            &report,
            match config.lora {
                Some(_) => vec!["--model".into(), config.model, "--adapter".into(), weights],
                None => vec!["--model".into(), weights],
            },
        )),
    };
    let (text, event) = (report::run(&report), json!({ "report": report }));
    finish(&report, text, event, next, terminal)
}

/// Whether a model can have a tokenizer: a folder shows it.
fn has_tokenizer(model: &str) -> bool {
    let folder = Path::new(model);
    !folder.is_dir() || folder.join("tokenizer.json").exists()
}

/// The command that answers with a trained model, which `subject` names.
fn answering(report: &RunReport, subject: Vec<String>) -> Vec<String> {
    // Without a template the model cannot chat.
    let chats = ChatTemplates::beside_adapter(&report.weights);
    match chats.is_ok_and(|templates| templates.is_some()) {
        true => [vec!["chat".to_owned()], subject].concat(),
        false => {
            let raw = ["--raw", "--prompt", "Once"].map(str::to_owned);
            [vec!["generate".to_owned()], subject, raw.into()].concat()
        }
    }
}

/// Shows the result and the next step.
fn finish(
    report: &RunReport,
    text: String,
    event: Value,
    next: Option<Vec<String>>,
    terminal: &Terminal,
) -> Result<Exit> {
    let stopped = matches!(report.outcome, Outcome::Stopped { .. });
    let said = say(stopped, text, event, next, terminal);
    exit::after(if stopped { Exit::Saved } else { Exit::Success }, said)
}

fn say(
    stopped: bool,
    text: String,
    mut event: Value,
    next: Option<Vec<String>>,
    terminal: &Terminal,
) -> Result<()> {
    let resume = resume_command(env::args());
    if terminal.json() {
        event["event"] = "report".into();
        if stopped {
            event["resume"] = resume.into();
        }
        terminal.json_line(&event)?;
    } else {
        terminal.line(text)?;
        if stopped {
            terminal.line(format!("go on with: {resume}"))?;
        } else if let Some(next) = next {
            // The program is called as this process was, because it may be on no search path.
            let program = env::args().next().unwrap_or_else(|| "tightrope".to_owned());
            let words = [vec![program], next].concat();
            terminal.line(format!("try it with: {}", shell(&words)))?;
        }
    }
    Ok(())
}

/// Command line of this process with `--resume`.
fn resume_command(arguments: impl Iterator<Item = String>) -> String {
    let mut words: Vec<String> = arguments.filter(|word| word != "--overwrite").collect();
    if !words.iter().any(|word| word == "--resume") {
        words.push("--resume".into());
    }
    shell(&words)
}

/// Quotes words for a POSIX shell.
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
