//! A conversation with a model: settings for answers, and the messages so far.

use crate::terminal::{self, Terminal};
use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};
use std::ops::ControlFlow;
use tightrope_run::{Answerer, Generation, Prompt, Sampling};

/// Settings for answers.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// System message of the conversation
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,

    /// Randomness of the choice of tokens; 0: always the most likely token
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = not_negative, allow_negative_numbers = true)]
    temperature: f64,

    /// Choose among the fewest tokens whose probabilities reach this sum
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = probability)]
    top_p: f64,

    /// Choose among this number of the most likely tokens; 0: all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,

    /// Seed of every random choice
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
    answer: &'a str,
    #[serde(flatten)]
    generation: Generation,
}

/// A model, its settings and the messages so far.
pub(crate) struct Conversation {
    answerer: Answerer,
    sampling: Sampling,
    max_tokens: usize,
    raw: bool,
    system: Option<String>,
    messages: Vec<Value>,
}

impl Conversation {
    /// Starts before the first question; a `raw` conversation continues each text without changes.
    pub(crate) fn new(answerer: Answerer, options: Options, max_tokens: usize, raw: bool) -> Self {
        let mut conversation = Self {
            answerer,
            sampling: Sampling {
                temperature: options.temperature,
                top_p: options.top_p,
                top_k: options.top_k,
                seed: options.seed,
            },
            max_tokens,
            raw,
            system: options.system,
            messages: Vec::new(),
        };
        conversation.clear();
        conversation
    }

    /// Clears all messages but the system message.
    pub(crate) fn clear(&mut self) {
        let message = |text| json!({ "role": "system", "content": text });
        self.messages = self.system.iter().map(message).collect();
    }

    /// Starts again with another system message.
    pub(crate) fn set_system(&mut self, system: &str) {
        self.system = (!system.is_empty()).then(|| system.to_owned());
        self.clear();
    }

    /// Streams the answer to the terminal, and keeps question and answer. `stop` is checked after
    /// every piece of text. A question that cannot be answered is forgotten.
    pub(crate) fn ask(
        &mut self,
        question: &str,
        terminal: &Terminal,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        self.messages
            .push(json!({ "role": "user", "content": question }));
        let prompt = match self.raw {
            true => Prompt::Text(question.to_owned()),
            false => Prompt::Chat(self.messages.clone()),
        };
        let mut text = String::new();
        let mut failure = None;
        let on_text = |piece: &str| {
            text.push_str(piece);
            if !terminal.json() {
                let shown = terminal.write(terminal::printable(piece).as_bytes());
                failure = shown.err();
            }
            match failure.is_some() || stop() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let answered = self
            .answerer
            .answer(&prompt, self.max_tokens, &self.sampling, on_text);
        let generation = match failure.map_or(answered.map_err(Into::into), Err) {
            Ok(generation) => generation,
            Err(error) => {
                self.messages.pop();
                return Err(error);
            }
        };
        match terminal.json() {
            true => terminal.json_line(&Answer {
                prompt: question,
                answer: &text,
                generation,
            })?,
            false => terminal.line("")?,
        }
        self.messages
            .push(json!({ "role": "assistant", "content": text }));
        Ok(())
    }
}
