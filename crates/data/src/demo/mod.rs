//! Generated instruction data with answers that can be checked, for the demonstration.

mod random;
mod tasks;
mod tokenizer;
mod words;

use std::collections::HashSet;

use serde_json::{Value, json};

pub use tokenizer::{CHAT_TEMPLATE, tokenizer};

use random::Random;

/// Kind of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// The sum of two numbers below 10.
    Add,
    /// The larger of two numbers below 100.
    Compare,
    /// A number below 100 from words to digits.
    ReadNumber,
    /// A number below 100 from digits to words.
    WriteNumber,
    /// The weekday some days later.
    Weekday,
    /// The month some months later.
    Month,
    /// A word in the other language.
    Translate,
    /// The letters of a word, counted.
    Letters,
    /// Words in alphabetical order.
    Sort,
    /// Words in reverse order.
    Reverse,
    /// All numbers from one to another.
    Count,
    /// Multiplication tables.
    Table,
    /// Weekdays, one after the other.
    Recite,
    /// A value from a table in the question.
    Lookup,
    /// A fact from a text in the question.
    Story,
}

impl Task {
    /// Name of the task.
    pub fn name(self) -> &'static str {
        match self {
            Task::Add => "add",
            Task::Compare => "compare",
            Task::ReadNumber => "read-number",
            Task::WriteNumber => "write-number",
            Task::Weekday => "weekday",
            Task::Month => "month",
            Task::Translate => "translate",
            Task::Letters => "letters",
            Task::Sort => "sort",
            Task::Reverse => "reverse",
            Task::Count => "count",
            Task::Table => "table",
            Task::Recite => "recite",
            Task::Lookup => "lookup",
            Task::Story => "story",
        }
    }
}

/// The language of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Language {
    /// English.
    English,
    /// Korean.
    Korean,
}

/// A question with its only right answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct Record {
    /// Kind of the question.
    pub task: Task,
    /// Language of the question.
    pub language: Language,
    /// The user's turn.
    pub question: String,
    /// The assistant's turn.
    pub answer: String,
}

impl Record {
    /// The question alone, in the form that a template takes.
    pub fn prompt(&self) -> Vec<Value> {
        vec![json!({"role": "user", "content": self.question})]
    }

    /// A row of the `chat` format.
    pub fn row(&self) -> Value {
        let mut messages = self.prompt();
        messages.push(json!({"role": "assistant", "content": self.answer}));
        json!({ "messages": messages })
    }

    /// Whether a reply is right: equal up to white space around it.
    pub fn accepts(&self, reply: &str) -> bool {
        reply.trim() == self.answer
    }
}

/// Records to train on, and other records to ask afterwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demo {
    /// Records to train on; short ones occur more than once, as in real data.
    pub train: Vec<Record>,
    /// Questions that `train` does not contain, each once.
    pub held_out: Vec<Record>,
}

/// `n` records, which are the same for the same seed. Lengths are distributed like those of real
/// instruction data: roughly log-normal, most questions short, with a tail ten times as long.
pub fn records(seed: u64, n: usize) -> Vec<Record> {
    let mut random = Random::new(seed);
    (0..n).map(|_| tasks::record(&mut random)).collect()
}

/// Divides records by a hash of the question, so that no question is on both sides.
pub fn split(seed: u64, train: usize, held_out: usize) -> Demo {
    let mut random = Random::new(seed);
    let mut demo = Demo {
        train: Vec::with_capacity(train),
        held_out: Vec::with_capacity(held_out),
    };
    let mut asked = HashSet::new();
    // One question in eight is held out; there are many more of them than are ever asked.
    while demo.train.len() < train || demo.held_out.len() < held_out {
        let record = tasks::record(&mut random);
        if !random::hash(record.question.as_bytes()).is_multiple_of(8) {
            if demo.train.len() < train {
                demo.train.push(record);
            }
        } else if demo.held_out.len() < held_out && asked.insert(record.question.clone()) {
            demo.held_out.push(record);
        }
    }
    demo
}

/// Records as JSON lines of the `chat` format, for [`load`](crate::load).
pub fn json_lines(records: &[Record]) -> String {
    records.iter().map(|r| format!("{}\n", r.row())).collect()
}
