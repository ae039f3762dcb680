//! What can go wrong between a file and a sequence, with the place and the values that disagreed.

use std::fmt;
use std::io;
use std::path::PathBuf;

use tightrope_packing::SequenceError;

pub use crate::key_path::{Key, KeyPath};
use crate::numbers::counted;
use crate::{Format, Preflight, RenderError};

/// Data, a tokenizer or a chat template that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// No path was given.
    #[error("no data files were given")]
    NoFiles,
    /// An option that makes no sense.
    #[error("`{key}`: {message}")]
    Option {
        /// Its name.
        key: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// Opening, reading, decompressing or writing failed.
    #[error("{}: cannot be read or written", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// A file without a byte other than white space.
    #[error("{}: the file is empty", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// A well-formed file that holds no row.
    #[error("{}: the file holds no rows", path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// A folder where a file is needed.
    #[error(
        "{}: is a folder; give the files in it{}",
        path.display(),
        if files.is_empty() { String::new() } else { format!(": {}", files.join(", ")) }
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Files in it that may be meant.
        files: Vec<String>,
    },
    /// A file of a kind that holds no rows as they are read here.
    #[error("{}: this {what}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is, and what to do.
        what: &'static str,
    },
    /// A row beyond the limit of memory.
    #[error(
        "{}: a row takes more than {limit} bytes; if it is no mistake, raise `max_row_bytes`",
        path.display()
    )]
    RowTooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: usize,
    },
    /// A JSON object of columns, or one record over several lines.
    #[error(
        "{}: a JSON object with {} at its top is no list of rows; put the rows into an array \
         `[ … ]` or on a line each (pandas: `to_json(…, orient=\"records\", lines=True)`)",
        path.display(), quoted(keys)
    )]
    Columns {
        /// The file.
        path: PathBuf,
        /// Its keys.
        keys: Vec<String>,
    },
    /// A damaged Parquet file, or one of a kind that cannot be read.
    #[error("{}: {message}", path.display())]
    Container {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A JSON object that does not hold exactly one array of rows.
    #[error(
        "{}: a JSON object must hold exactly one array of rows, this one has {}",
        path.display(), list(arrays)
    )]
    Arrays {
        /// The file.
        path: PathBuf,
        /// The keys whose values are arrays.
        arrays: Vec<String>,
    },
    /// The keys of the first rows belong to no known format.
    #[error(
        "{}: cannot tell the format: the first rows have the keys {}; known are \
         input_ids (tokens), messages or conversations (chat), instruction + output (alpaca), \
         prompt + completion (completion), text (text)",
        path.display(), list(saw)
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// The keys found.
        saw: Vec<String>,
    },
    /// A row that cannot be used.
    #[error("{_0}{}", hint(_0))]
    Row(Box<BadRow>),
    /// A file that is broken at a row: nothing behind it can be read.
    #[error("{0}")]
    Broken(Box<BadRow>),
    /// A sequence longer than allowed, with `overlong = "error"`.
    #[error("{place}: {tokens} tokens, but `max_length` is {max_length}")]
    Overlong {
        /// Where it stands.
        place: Place,
        /// Its length.
        tokens: usize,
        /// The limit.
        max_length: usize,
    },
    /// Text was found but there is nothing to tokenize it with.
    #[error(
        "{}: format `{format}` needs a tokenizer{}",
        path.display(), and_why(why)
    )]
    NeedsTokenizer {
        /// The file.
        path: PathBuf,
        /// Its format.
        format: &'static str,
        /// Why there is none; empty = not known.
        why: String,
    },
    /// Conversations were found but neither the tokenizer nor the options have a chat template.
    #[error(
        "{}: conversations need a chat template: the tokenizer has none and `chat_template` is not set",
        path.display()
    )]
    NeedsTemplate {
        /// The file.
        path: PathBuf,
    },
    /// A chat template that does not compile, or is too large.
    #[error("{name}{}: {message}", line_of(*line))]
    Template {
        /// What it is called: its file, where it has one.
        name: String,
        /// 1-based; 0 if unknown.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A folder without `tokenizer.json`.
    #[error("{}: {message}", path.display())]
    NoTokenizer {
        /// The file that is missing.
        path: PathBuf,
        /// What to do.
        message: String,
    },
    /// A tokenizer file that is damaged or of an unknown kind.
    #[error("{}: {message}", path.display())]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A tokenizer that cannot be built from the metadata of a GGUF file.
    #[error("GGUF tokenizer: {message}")]
    Gguf {
        /// What is wrong.
        message: String,
    },
    /// The tokenizer failed.
    #[error("tokenizer: {message}")]
    Tokenize {
        /// What it said.
        message: String,
    },
    /// No token of any sequence would be trained.
    #[error(
        "nothing to train: no token of {} has a target{}\n{report}",
        counted(report.sequences, "sequence"), without_answers(report)
    )]
    NothingToTrain {
        /// What was read.
        report: Box<Preflight>,
    },
}

impl DataError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| DataError::Io { path, source }
    }
}

/// Where a row, or a value in it, stands. All numbers count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Which row.
    pub row: u64,
    /// Which line, in files of text.
    pub line: Option<u64>,
    /// Which column, in characters.
    pub column: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())?;
        match (self.line, self.column) {
            (Some(line), Some(column)) => write!(f, ":{line}:{column}"),
            (Some(line), None) => write!(f, ":{line}"),
            _ => write!(f, ": row {}", self.row),
        }
    }
}

/// A row that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct BadRow {
    /// Where it stands, down to the value at fault where that is known.
    pub place: Place,
    /// What is wrong with it.
    pub problem: RowProblem,
}

/// What is wrong with a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowProblem {
    /// Bytes that are no text.
    #[error("not valid UTF-8")]
    Utf8,
    /// Not JSON, or cut off.
    #[error("invalid JSON: {0}")]
    Json(String),
    /// Rows of JSON lines that are separated like the elements of an array.
    #[error(
        "a comma behind the row: rows stand on lines of their own without commas, or all in one \
         array `[ … ]`"
    )]
    Comma,
    /// A CSV record with the wrong number of fields, or an unclosed quote.
    #[error("invalid CSV: {0}")]
    Csv(String),
    /// A row that is not an object.
    #[error("expected an object, got {0}")]
    NotAnObject(&'static str),
    /// A key that the format needs is absent.
    #[error("`{key}` is missing; the keys are {}", list(saw))]
    Missing {
        /// The key.
        key: KeyPath,
        /// The keys that are there.
        saw: Vec<String>,
    },
    /// A value of the wrong type.
    #[error("`{key}`: expected {expected}, got {got}")]
    WrongType {
        /// The key.
        key: KeyPath,
        /// What the format needs.
        expected: &'static str,
        /// What stands there.
        got: &'static str,
    },
    /// A value that means something which does not exist here.
    #[error("`{key}`: {why}")]
    Refused {
        /// The key.
        key: KeyPath,
        /// What it means, and what to do.
        why: String,
    },
    /// A ShareGPT speaker that has no role.
    #[error(
        "`{key}`: unknown speaker {speaker:?}; known are human and user, gpt, assistant, chatgpt, \
         bing, bard, model, bot, chatbot, function_call, tool, observation, function_response, \
         system"
    )]
    Speaker {
        /// The key.
        key: KeyPath,
        /// Its value.
        speaker: String,
    },
    /// Lists that must be equally long are not.
    #[error("`{key}` has {}, `input_ids` has {expected}", counted(*got as u64, "value"))]
    Lengths {
        /// The key.
        key: KeyPath,
        /// How many there are.
        got: usize,
        /// How many tokens there are.
        expected: usize,
    },
    /// A number that is no token id, label or mask value.
    #[error("`{key}`: {value} is not {expected}")]
    Value {
        /// The key.
        key: KeyPath,
        /// What stands there.
        value: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// A token id that the tokenizer does not have.
    #[error("`{key}`: token id {id} is outside the vocabulary of {vocab_size}")]
    OutsideVocabulary {
        /// The key.
        key: KeyPath,
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// A token id or label that the model's embedding does not have.
    #[error("`{key}`: id {id}, but the model's embedding has {rows} rows")]
    OutsideEmbedding {
        /// The key: a token or a label.
        key: KeyPath,
        /// The id.
        id: u32,
        /// Rows of the embedding.
        rows: usize,
    },
    /// A token that the tokenizer makes of a text, and the model's embedding does not have.
    #[error(
        "the tokenizer gives token id {id} ({text:?}), but the model's embedding has {rows} rows; \
         tokenizer and model do not belong together"
    )]
    BeyondEmbedding {
        /// The id.
        id: u32,
        /// Its text.
        text: String,
        /// Rows of the embedding.
        rows: usize,
    },
    /// Labels that cannot be trained.
    #[error("`labels`: {0}")]
    Labels(#[from] SequenceError),
    /// The chat template refused the conversation.
    #[error(transparent)]
    Template(#[from] RenderError),
    /// A conversation, and nothing to render it with.
    #[error("a conversation needs a chat template")]
    NoTemplate,
    /// The assistant's turns cannot be found in the rendered conversation.
    #[error(
        "cannot find the tokens of assistant turn {turn}: the template renders the conversation up \
         to it differently from the whole; mark assistant text in the template with \
         {{% generation %}}, or set `train_on = \"all\"`"
    )]
    Turn {
        /// Index of the message.
        turn: usize,
    },
    /// The tokenizer failed.
    #[error("tokenizer: {0}")]
    Tokenize(String),
}

impl RowProblem {
    /// The value at fault, if the problem lies in one.
    pub fn key(&self) -> Option<&KeyPath> {
        match self {
            RowProblem::WrongType { key, .. }
            | RowProblem::Refused { key, .. }
            | RowProblem::OutsideEmbedding { key, .. }
            | RowProblem::Speaker { key, .. }
            | RowProblem::Lengths { key, .. }
            | RowProblem::Value { key, .. }
            | RowProblem::OutsideVocabulary { key, .. }
            | RowProblem::Missing { key, .. } => Some(key),
            _ => None,
        }
    }
}

/// Not as its source: whoever shows a chain of errors would say it twice.
impl From<Box<BadRow>> for DataError {
    fn from(bad: Box<BadRow>) -> Self {
        DataError::Row(bad)
    }
}

/// What helps where a few rows of many are bad.
fn hint(bad: &BadRow) -> &'static str {
    match bad.problem {
        RowProblem::Refused { .. } | RowProblem::BeyondEmbedding { .. } | RowProblem::Comma => "",
        _ => "; `on_bad_row = \"skip\"` leaves such rows out and counts them",
    }
}

/// What is missing where conversations have no answer.
fn without_answers(report: &Preflight) -> &'static str {
    let chats = report.files.iter().any(|file| file.format == Format::Chat);
    match chats && report.answers == 0 && report.sequences > 0 {
        true => "; no message has the role `assistant`",
        false => "",
    }
}

fn quoted(names: &[String]) -> String {
    let quoted = names.iter().map(|name| format!("`{name}`"));
    quoted.collect::<Vec<_>>().join(", ")
}

fn and_why(why: &str) -> String {
    match why.is_empty() {
        true => String::new(),
        false => format!(", and there is none: {why}"),
    }
}

fn line_of(line: usize) -> String {
    match line {
        0 => String::new(),
        line => format!(", line {line}"),
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}
