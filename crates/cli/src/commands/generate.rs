//! `tightrope generate`: shows a model's answers.

use crate::{
    answering::{Conversation, Options},
    commands::chat,
    exit::Exit,
    progress::Bars,
    subject::Subject,
    terminal::Terminal,
};
use anyhow::{Result, ensure};
use console::style;
use std::io::{self, IsTerminal, Read};
use tightrope_run::Answerer;

const EXAMPLES: &str = "\
Examples:
  tightrope generate my.toml --prompt \"Name three rivers.\"
  tightrope generate my.toml --base --prompt \"Name three rivers.\"
  tightrope generate --model M --adapter A --prompt \"Name three rivers.\"
  tightrope generate --model M --raw --prompt \"Once upon\" --temperature 0.8
  tightrope generate --model M < question.txt

Without a prompt it starts a conversation on a terminal, as tightrope chat does.
The same arguments give the same answer; --seed gives another where
--temperature is above 0.";

/// Answer questions with a model
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Subject,

    /// Prompt to answer (repeatable) [default: standard input]
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,

    /// Continue the prompt without the chat template
    #[arg(long, conflicts_with = "system")]
    raw: bool,

    /// Largest number of tokens in an answer
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,

    #[command(flatten)]
    options: Options,
}

pub(crate) fn run(args: Args, terminal: &Terminal) -> Result<Exit> {
    let config = args.subject.resolve(Vec::new())?;
    let answerer = Answerer::open(&config, terminal.threads(), &Bars::default())?;
    let mut conversation = Conversation::new(answerer, args.options, args.max_tokens, args.raw);
    let mut prompts = args.prompt;
    if prompts.is_empty() && io::stdin().is_terminal() && !terminal.json() {
        return chat::converse(conversation, terminal);
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
        conversation.clear();
        conversation.ask(prompt, terminal, &|| false)?;
    }
    Ok(Exit::Success)
}
