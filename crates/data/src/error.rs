//! Errors between a file and a sequence, with the place and the values that disagreed.

use std::fmt;
use std::io;
use std::path::PathBuf;

use tightrope_packing::SequenceError;

use crate::advice::{and_why, hint, line_of, list, nothing, quoted};
pub use crate::key_path::{Key, KeyPath};
use crate::{Amount, ExampleKind, Preflight, RenderError};
use tightrope_report::numbers::counted;

/// Error of data, a tokenizer or a chat template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// No path was given.
    #[error("no data files were given")]
    NoFiles,
    /// An option has no meaning.
    #[error("`{key}`: {message}")]
    Option {
        /// Name of the option.
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
    /// The file has no byte other than white space.
    #[error("{}: the file is empty", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
    /// The file is well-formed, but has no row.
    #[error("{}: the file holds no rows", path.display())]
    NoRows {
        /// The file.
        path: PathBuf,
    },
    /// Records of several kinds would be read as one data set.
    #[error(
        "{}: its rows are {kind}, and those of the files before are {before}; train on one kind at a \
         time",
        path.display()
    )]
    MixedKinds {
        /// The first file of another kind.
        path: PathBuf,
        /// Kind of its rows.
        kind: ExampleKind,
        /// Kind of the rows before.
        before: ExampleKind,
    },
    /// A folder was given, but a file is needed.
    #[error(
        "{}: is a folder; give the files in it{}",
        path.display(),
        if files.is_empty() { String::new() } else { format!(": {}", files.join(", ")) }
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Files in the folder that may be meant.
        files: Vec<String>,
    },
    /// The file is of a kind that cannot be read as rows.
    #[error("{}: this {what}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// Kind of the file, and advice.
        what: &'static str,
    },
    /// A row exceeds the limit of memory.
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
    /// The file is a JSON object of columns, or one record over several lines.
    #[error(
        "{}: a JSON object with {} at its top is no list of rows; put the rows into an array \
         `[ … ]` or on a line each (pandas: `to_json(…, orient=\"records\", lines=True)`)",
        path.display(), quoted(keys)
    )]
    Columns {
        /// The file.
        path: PathBuf,
        /// Keys of the object.
        keys: Vec<String>,
    },
    /// The Parquet file is damaged, or of a kind that cannot be read.
    #[error("{}: {message}", path.display())]
    Container {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The JSON object does not hold exactly one array of rows.
    #[error(
        "{}: a JSON object must hold exactly one array of rows, this one has {}",
        path.display(), list(arrays)
    )]
    Arrays {
        /// Keys whose values are arrays.
        path: PathBuf,
        /// The keys whose values are arrays.
        arrays: Vec<String>,
    },
    /// A set gives no record, or too many to pack.
    #[error(
        "set `{set}`: {}",
        match records {
            0 => "it has no record with a token".to_owned(),
            n => format!(
                "{amount} takes {} of its {}",
                if amount.of(*n as usize) == 0 { "none" } else { "too many" },
                counted(*n, "record")
            ),
        }
    )]
    EmptySet {
        /// Name of the set.
        set: String,
        /// Number of its records.
        records: u64,
        /// How often they are to be taken.
        amount: Amount,
    },
    /// A column that a key is to be read from is in no row.
    #[error(
        "{}: no row has the column `{column}`, from which `columns` reads `{key}`; the columns are {}",
        path.display(), list(saw)
    )]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Name of the column.
        column: String,
        /// Columns of the first rows.
        saw: Vec<String>,
    },
    /// The keys of the first rows fit no known format.
    #[error(
        "{}: cannot tell the format: the first rows have the keys {}; known are \
         input_ids (tokens), messages or conversations (chat), instruction + output (alpaca), \
         prompt + completion (completion), chosen + rejected (preference), text (text)",
        path.display(), list(saw)
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// The keys found.
        saw: Vec<String>,
    },
    /// None of the first rows can be read, so that nothing tells the format.
    #[error(
        "{first}; {}",
        if *rows == 1 { "the file's only row".to_owned() }
        else { format!("all of the first {rows} rows are skipped as bad") }
    )]
    AllBad {
        /// The first row, and why it cannot be read.
        first: Box<BadRow>,
        /// Number of rows that were tried.
        rows: u64,
    },
    /// A row cannot be used.
    #[error("{_0}{}", hint(_0))]
    Row(Box<BadRow>),
    /// The file is damaged at a row: nothing after it can be read.
    #[error("{0}")]
    Broken(Box<BadRow>),
    /// A sequence is longer than allowed, with `overlong = "error"`.
    #[error("{place}: {tokens} tokens, but `max_length` is {max_length}")]
    Overlong {
        /// Place of the row.
        place: Place,
        /// Length of the sequence.
        tokens: usize,
        /// The limit.
        max_length: usize,
    },
    /// There is text, but no tokenizer.
    #[error(
        "{}: format `{format}` needs a tokenizer{}",
        path.display(), and_why(why)
    )]
    NeedsTokenizer {
        /// The file.
        path: PathBuf,
        /// Format of the file.
        format: &'static str,
        /// Reason why there is no tokenizer; empty = unknown.
        why: String,
    },
    /// There are conversations, but neither the tokenizer nor the options have a chat template.
    #[error(
        "{}: conversations need a chat template: the tokenizer has none and `chat_template` is not set",
        path.display()
    )]
    NeedsTemplate {
        /// The file.
        path: PathBuf,
    },
    /// A chat template does not compile, or is too large.
    #[error("{name}{}: {message}", line_of(*line))]
    Template {
        /// Name of the template: its file, if it has one.
        name: String,
        /// Line of the error, from 1; 0 if unknown.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// The folder has no `tokenizer.json`.
    #[error("{}: {message}", path.display())]
    NoTokenizer {
        /// The file that is missing.
        path: PathBuf,
        /// Advice.
        message: String,
    },
    /// The tokenizer file is damaged or of an unknown kind.
    #[error("{}: {message}", path.display())]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A tokenizer cannot be built from the metadata of a GGUF file.
    #[error("GGUF tokenizer: {message}")]
    Gguf {
        /// What is wrong.
        message: String,
    },
    /// The tokenizer failed.
    #[error("tokenizer: {message}")]
    Tokenize {
        /// Message of the tokenizer.
        message: String,
    },
    /// No token of any sequence would be trained.
    #[error("nothing to train: {}\n{report}", nothing(report))]
    NothingToTrain {
        /// Report about the data.
        report: Box<Preflight>,
    },
}

impl DataError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| DataError::Io { path, source }
    }
}

/// Place of a row, or of a value in it. All numbers count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Number of the row.
    pub row: u64,
    /// Line, in files of text.
    pub line: Option<u64>,
    /// Column, in characters.
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
    /// Place of the row, or of the wrong value if it is known.
    pub place: Place,
    /// What is wrong with it.
    pub problem: RowProblem,
}

/// Error of a row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowProblem {
    /// The bytes are no text.
    #[error("not valid UTF-8")]
    Utf8,
    /// The row is no JSON, or cut off.
    #[error("invalid JSON: {0}")]
    Json(String),
    /// Rows of JSON lines are separated like the elements of an array.
    #[error(
        "a comma behind the row: rows stand on lines of their own without commas, or all in one \
         array `[ … ]`"
    )]
    Comma,
    /// The CSV record has the wrong number of fields, or an unclosed quote.
    #[error("invalid CSV: {0}")]
    Csv(String),
    /// The row is no object.
    #[error("expected an object, got {0}")]
    NotAnObject(&'static str),
    /// A required key is absent.
    #[error("`{key}` is missing; the keys are {}", list(saw))]
    Missing {
        /// The key.
        key: KeyPath,
        /// Keys that the row has.
        saw: Vec<String>,
    },
    /// A required key has no value.
    #[error("`{key}` is null")]
    Null {
        /// The key.
        key: KeyPath,
    },
    /// An object has the same key twice, of which JSON readers keep the last.
    #[error("the key `{key}` occurs twice in one object; remove one of them")]
    Twice {
        /// The key.
        key: String,
    },
    /// A value has the wrong type.
    #[error("`{key}`: expected {expected}, got {got}")]
    WrongType {
        /// The key.
        key: KeyPath,
        /// Expected type.
        expected: &'static str,
        /// Type of the value.
        got: &'static str,
    },
    /// The meaning of a value is not supported.
    #[error("`{key}`: {why}")]
    Refused {
        /// The key.
        key: KeyPath,
        /// Meaning of the value, and advice.
        why: String,
    },
    /// A ShareGPT speaker has no known role.
    #[error(
        "`{key}`: unknown speaker {speaker:?}; known are human and user, gpt, assistant, chatgpt, \
         bing, bard, model, bot, chatbot, function_call, tool, observation, function_response, \
         system"
    )]
    Speaker {
        /// The key.
        key: KeyPath,
        /// Name of the speaker.
        speaker: String,
    },
    /// Lists that must have equal lengths differ.
    #[error("`{key}` has {}, `input_ids` has {expected}", counted(*got as u64, "value"))]
    Lengths {
        /// The key.
        key: KeyPath,
        /// Number of elements.
        got: usize,
        /// Number of tokens.
        expected: usize,
    },
    /// A number is no token id, label or mask value.
    #[error("`{key}`: {value} is not {expected}")]
    Value {
        /// The key.
        key: KeyPath,
        /// The value.
        value: String,
        /// Allowed values.
        expected: &'static str,
    },
    /// The tokenizer does not have the token id.
    #[error("`{key}`: token id {id} is outside the vocabulary of {vocab_size}")]
    OutsideVocabulary {
        /// The key.
        key: KeyPath,
        /// The id.
        id: u32,
        /// Size of the vocabulary.
        vocab_size: usize,
    },
    /// The model's embedding does not have the token id or label.
    #[error("`{key}`: id {id}, but the model's embedding has {rows} rows")]
    OutsideEmbedding {
        /// The key of the token or label.
        key: KeyPath,
        /// The id.
        id: u32,
        /// Number of rows of the embedding.
        rows: usize,
    },
    /// The tokenizer makes a token of a text that the model's embedding does not have.
    #[error(
        "the tokenizer gives token id {id} ({text:?}), but the model's embedding has {rows} rows; \
         tokenizer and model do not belong together"
    )]
    BeyondEmbedding {
        /// The id.
        id: u32,
        /// Text of the token.
        text: String,
        /// Number of rows of the embedding.
        rows: usize,
    },
    /// The labels cannot be trained.
    #[error("`labels`: {0}")]
    Labels(#[from] SequenceError),
    /// The chat template refused the conversation.
    #[error(transparent)]
    Template(#[from] RenderError),
    /// There is a conversation, but no template to render it.
    #[error("a conversation needs a chat template")]
    NoTemplate,
    /// The assistant's turns are not found in the rendered conversation.
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
    /// The problem, with another path to its value.
    pub(crate) fn with_key(mut self, path: impl FnOnce(&KeyPath) -> KeyPath) -> Self {
        if let RowProblem::WrongType { key, .. }
        | RowProblem::Refused { key, .. }
        | RowProblem::OutsideEmbedding { key, .. }
        | RowProblem::Speaker { key, .. }
        | RowProblem::Lengths { key, .. }
        | RowProblem::Value { key, .. }
        | RowProblem::OutsideVocabulary { key, .. }
        | RowProblem::Null { key }
        | RowProblem::Missing { key, .. } = &mut self
        {
            *key = path(key);
        }
        self
    }

    /// The wrong value, if the problem lies in one.
    pub fn key(&self) -> Option<&KeyPath> {
        match self {
            RowProblem::WrongType { key, .. }
            | RowProblem::Refused { key, .. }
            | RowProblem::OutsideEmbedding { key, .. }
            | RowProblem::Speaker { key, .. }
            | RowProblem::Lengths { key, .. }
            | RowProblem::Value { key, .. }
            | RowProblem::OutsideVocabulary { key, .. }
            | RowProblem::Null { key }
            | RowProblem::Missing { key, .. } => Some(key),
            _ => None,
        }
    }
}

/// The row is not the source of the error, because a chain of errors would say it twice.
impl From<Box<BadRow>> for DataError {
    fn from(bad: Box<BadRow>) -> Self {
        DataError::Row(bad)
    }
}
