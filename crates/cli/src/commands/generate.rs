//! `tightrope generate`: lets a person see what a model answers.

use crate::{exit::Exit, painting, progress::Bars, subject::Subject, terminal::Terminal};
use anyhow::{Result, ensure};
use console::style;
use serde::Serialize;
use serde_json::{Value, json};
use std::{
    io::{self, BufRead, IsTerminal, Read},
    ops::ControlFlow,
};
use tightrope_train::{Answerer, Generation, Prompt, Sampling};

const EXAMPLES: &str = "\
Examples:
  tightrope generate my.toml --prompt \"Name three rivers.\"      what the run has trained
  tightrope generate my.toml --base --prompt \"Name three rivers.\"
  tightrope generate --model M --adapter A                      a conversation, line by line
  tightrope generate --model M --raw --prompt \"Once upon a time\" --temperature 0.8 --top-p 0.9
  tightrope generate --model M < question.txt

The same arguments give the same answer; --seed gives another where --temperature is above 0.";

/// Answer questions with a model
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    subject: Subject,

    /// What to answer, each for itself (repeatable) [default: standard input]
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,

    /// System message of the conversation
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,

    /// Go on from the prompt as it stands, without the chat template
    #[arg(long)]
    raw: bool,

    /// Most tokens of an answer
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,

    /// Randomness; 0: always the most likely token
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = not_negative)]
    temperature: f64,

    /// Choose among the fewest tokens whose probabilities reach this sum
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = probability)]
    top_p: f64,

    /// Choose among so many of the most likely tokens; 0: all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,

    /// Decides every random choice
    #[arg(long, value_name = "N", default_value_t = 42)]
    seed: u64,
}

fn not_negative(text: &str) -> Result<f64, String> {
    let number = text
        .parse::<f64>()
        .ok()
        .filter(|x| x.is_finite() && *x >= 0.0);
    number.ok_or_else(|| "must be a number of at least 0".into())
}

fn probability(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|x| *x > 0.0 && *x <= 1.0);
    number.ok_or_else(|| "must be a number above 0 and at most 1".into())
}

/// One answer, for programs.
#[derive(Serialize)]
struct Answer<'a> {
    prompt: &'a str,
    answer: String,
    #[serde(flatten)]
    generation: Generation,
}

pub fn run(args: Args, terminal: &Terminal) -> Result<Exit> {
    let config = args.subject.resolve(Vec::new())?;
    let bars = Bars::default();
    let mut answerer = Answerer::open(&config, terminal.threads(), &bars)?;
    let settings = Settings {
        sampling: Sampling {
            temperature: args.temperature,
            top_p: args.top_p,
            top_k: args.top_k,
            seed: args.seed,
        },
        max_tokens: args.max_tokens,
        raw: args.raw,
        system: args.system,
    };
    let mut prompts = args.prompt;
    if prompts.is_empty() && io::stdin().is_terminal() && !terminal.json() {
        return converse(&mut answerer, &settings, terminal);
    }
    if prompts.is_empty() {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text)?;
        ensure!(
            !text.trim().is_empty(),
            "nothing to answer: standard input is empty"
        );
        prompts.push(text.trim_end_matches(['\r', '\n']).to_owned());
    }
    let many = prompts.len() > 1;
    for prompt in &prompts {
        if many && !terminal.json() {
            terminal.line(style(format!("> {prompt}")).bold())?;
        }
        let mut messages = settings.opening();
        let (answer, generation) =
            settings.answer(&mut answerer, prompt, &mut messages, terminal)?;
        if terminal.json() {
            terminal.json_line(&Answer {
                prompt,
                answer,
                generation,
            })?;
        }
    }
    Ok(Exit::Success)
}

/// How to answer.
struct Settings {
    sampling: Sampling,
    max_tokens: usize,
    raw: bool,
    system: Option<String>,
}

impl Settings {
    /// The messages before the first question.
    fn opening(&self) -> Vec<Value> {
        let message = |text| json!({ "role": "system", "content": text });
        self.system.iter().map(message).collect()
    }

    /// Streams the answer to the terminal, and adds question and answer to the messages.
    fn answer(
        &self,
        answerer: &mut Answerer,
        question: &str,
        messages: &mut Vec<Value>,
        terminal: &Terminal,
    ) -> Result<(String, Generation)> {
        messages.push(json!({ "role": "user", "content": question }));
        let prompt = match self.raw {
            true => Prompt::Text(question.to_owned()),
            false => Prompt::Chat(messages.clone()),
        };
        let mut text = String::new();
        let mut failure = None;
        let generation = answerer.answer(&prompt, self.max_tokens, &self.sampling, |piece| {
            text.push_str(piece);
            if terminal.json() {
                return ControlFlow::Continue(());
            }
            match terminal.write(painting::printable(piece).as_bytes()) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        failure.map_or(Ok(()), Err)?;
        if !terminal.json() {
            terminal.line("")?;
        }
        messages.push(json!({ "role": "assistant", "content": text }));
        Ok((text, generation))
    }
}

/// A conversation: each line is a question; an empty line starts anew, the end of input ends it.
fn converse(answerer: &mut Answerer, settings: &Settings, terminal: &Terminal) -> Result<Exit> {
    terminal.line(style("a line is a question; an empty one starts anew; Ctrl-D ends").dim())?;
    let mut messages = settings.opening();
    loop {
        terminal.write(format!("{} ", style(">").bold()).as_bytes())?;
        let mut line = String::new();
        if io::stdin().lock().read_line(&mut line)? == 0 {
            terminal.line("")?;
            return Ok(Exit::Success);
        }
        match line.trim() {
            "" => messages = settings.opening(),
            question => drop(settings.answer(answerer, question, &mut messages, terminal)?),
        }
    }
}
