//! `tightrope chat`: a conversation with a model, on a terminal or line by line from a pipe.

mod input;

use crate::{
    answering::{Conversation, Options},
    exit::{self, Exit},
    progress::Bars,
    subject::Subject,
    terminal::Terminal,
};
use anyhow::{Context, Result};
use console::style;
use input::{Input, Line};
use signal_hook::{consts::SIGINT, flag};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use tightrope_run::Answerer;

const EXAMPLES: &str = "\
Examples:
  tightrope chat my.toml                    with what the run has trained
  tightrope chat my.toml --base             with the model as it was before
  tightrope chat --model M --adapter A --system \"Answer briefly.\"
  tightrope chat --model M --temperature 0.8 --top-p 0.9
  tightrope chat --model M < questions.txt  each line is a question

Ctrl-C ends the answer, Ctrl-D the conversation; /help lists what else there is.
Lines can be edited, the arrows bring back earlier ones, also of other days.";

const HELP: &str = "\
/clear          forget what was said
/system TEXT    forget what was said, and start with this system message
/help           this list
/bye            end (also /exit, /quit and Ctrl-D)
\"\"\"             begins and ends a question of several lines
Ctrl-C          end the answer";

/// Talk with a model
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    subject: Subject,

    /// Largest number of tokens in an answer
    #[arg(long, value_name = "N", default_value_t = 1024)]
    max_tokens: usize,

    #[command(flatten)]
    options: Options,
}

pub(crate) fn run(args: Args, terminal: &Terminal) -> Result<Exit> {
    let config = args.subject.resolve(Vec::new())?;
    let answerer = Answerer::open(&config, terminal.threads(), &Bars::default())?;
    let conversation = Conversation::new(answerer, args.options, args.max_tokens, false);
    converse(conversation, terminal)
}

/// Meaning of a line.
#[derive(Debug, PartialEq, Eq)]
enum Request<'a> {
    Nothing,
    Question(&'a str),
    Help,
    Clear,
    System(&'a str),
    End,
    Unknown(&'a str),
}

impl<'a> Request<'a> {
    fn of(line: &'a str) -> Self {
        let line = line.trim();
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        match word {
            "" => Self::Nothing,
            "/help" | "/?" => Self::Help,
            "/clear" => Self::Clear,
            "/system" => Self::System(rest.trim()),
            "/bye" | "/exit" | "/quit" => Self::End,
            // A path may begin a question; a single word after a slash is meant as a command.
            _ if rest.is_empty() && is_command(word) => Self::Unknown(word),
            _ => Self::Question(line),
        }
    }
}

fn is_command(word: &str) -> bool {
    let name = word.strip_prefix('/');
    name.is_some_and(|name| !name.is_empty() && name.chars().all(char::is_alphabetic))
}

/// Answers until the input ends.
pub(crate) fn converse(mut conversation: Conversation, terminal: &Terminal) -> Result<Exit> {
    let mut input = Input::open(terminal)?;
    let interrupted = Arc::new(AtomicBool::new(false));
    if input.is_live() {
        // The second Ctrl-C during one answer ends the process, because a model may take long to
        // its first word.
        flag::register_conditional_shutdown(SIGINT, 130, Arc::clone(&interrupted))
            .and_then(|_| flag::register(SIGINT, Arc::clone(&interrupted)))
            .context("cannot listen for signals")?;
        let hint = "/help lists what there is; Ctrl-C ends an answer, Ctrl-D the conversation";
        terminal.line(style(hint).dim())?;
    }
    loop {
        interrupted.store(false, Ordering::Relaxed);
        let line = match input.read()? {
            Line::Text(line) => line,
            Line::Interrupted => {
                terminal.line(style("Ctrl-D or /bye ends the conversation").dim())?;
                continue;
            }
            Line::End => return Ok(Exit::Success),
        };
        match Request::of(&line) {
            Request::Nothing => {}
            Request::End => return Ok(Exit::Success),
            Request::Help => terminal.line(HELP)?,
            Request::Clear => {
                conversation.clear();
                note(terminal, "forgotten")?;
            }
            Request::System(text) => {
                conversation.set_system(text);
                note(terminal, "a new conversation with this system message")?;
            }
            Request::Unknown(word) => {
                note(
                    terminal,
                    &format!("there is no {word}; /help lists what there is"),
                )?;
            }
            Request::Question(question) => {
                if !input.is_live() && !terminal.json() {
                    terminal.line(style(format!("> {question}")).bold())?;
                }
                let stop = || interrupted.load(Ordering::Relaxed);
                match conversation.ask(question, terminal, &stop) {
                    // A user can ask something else, but a program needs the error.
                    Err(error) if input.is_live() => {
                        exit::complain(&error);
                    }
                    answered => answered?,
                }
            }
        }
    }
}

/// Prints a message of the chat itself.
fn note(terminal: &Terminal, text: &str) -> Result<()> {
    match terminal.json() {
        true => Ok(()),
        false => terminal.line(style(text).dim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_begins_a_command_or_a_path() {
        for (line, expected) in [
            ("  ", Request::Nothing),
            (" What? ", Request::Question("What?")),
            ("/help", Request::Help),
            ("/clear ", Request::Clear),
            ("/system Be brief. ", Request::System("Be brief.")),
            ("/quit", Request::End),
            ("/hepl", Request::Unknown("/hepl")),
            ("/etc/hosts", Request::Question("/etc/hosts")),
            ("/dev is what?", Request::Question("/dev is what?")),
        ] {
            assert_eq!(Request::of(line), expected, "{line}");
        }
    }
}
