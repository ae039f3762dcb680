//! Options for data in a configuration.

use serde::{Deserialize, Serialize};
use tightrope_packing::Overlong;

use crate::columns::Columns;

/// The `[data]` options that decide how records become sequences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields, default)]
pub struct DataOptions {
    /// Layout of records; `auto` looks at the keys of the first rows of each file.
    pub format: Format,
    /// Columns of keys that have another name in the files.
    #[serde(skip_serializing_if = "Columns::is_empty")]
    pub columns: Columns,
    /// Largest number of tokens in a sequence.
    pub max_length: usize,
    /// Treatment of a sequence of more than `max_length` tokens. The first token of each further
    /// piece of a split sequence has no token before it and is not trained.
    pub overlong: Overlong,
    /// Tokens that are trained.
    pub train_on: TrainOn,
    /// Whether rows without chat template get the tokenizer's end token if they do not end in one.
    pub add_end_token: AddEndToken,
    /// Treatment of a row that cannot be read.
    pub on_bad_row: OnBadRow,
    /// Largest size of a row in bytes; a larger row is refused before it is in memory.
    pub max_row_bytes: usize,
    /// A chat template that replaces the tokenizer's own: the template itself if it contains `{{`
    /// or `{%`, otherwise the path of a file that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self {
            format: Format::Auto,
            columns: Columns::default(),
            max_length: 2048,
            overlong: Overlong::Truncate,
            train_on: TrainOn::Completion,
            add_end_token: AddEndToken::Auto,
            on_bad_row: OnBadRow::Error,
            max_row_bytes: 16 << 20,
            chat_template: None,
        }
    }
}

/// Layout of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Decides for each file by the keys of its first rows: the first of `preference`, `labelled`,
    /// `tokens`, `chat`, `alpaca`, `completion`, `text` whose keys are there.
    #[default]
    Auto,
    /// `instruction`, optional `input`, `output`; optional `system`, `history` and `tools`.
    Alpaca,
    /// `messages` with `role` and `content`, or ShareGPT's `conversations` with `from` and
    /// `value`; optional `system`, `tools` and `chat_template_kwargs`.
    Chat,
    /// `prompt` and `completion`, both text or both lists of messages.
    Completion,
    /// `chosen` and `rejected`, answers to a `prompt`, to `messages` or to an alpaca record, or whole
    /// conversations that begin alike.
    Preference,
    /// An answer as in `chat`, `alpaca` or `completion`, with `label`, `kto_tag` or `desirable`: true
    /// or false.
    Labelled,
    /// `text`, all of it trained with its end token.
    Text,
    /// `input_ids`, optional `labels` (-100 = ignored), `attention_mask` (0 = padding), masks of
    /// trained tokens, and `position_ids` or `seq_lengths` if a row holds several sequences.
    Tokens,
}

impl Format {
    /// Name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Format::Auto => "auto",
            Format::Alpaca => "alpaca",
            Format::Chat => "chat",
            Format::Completion => "completion",
            Format::Preference => "preference",
            Format::Labelled => "labelled",
            Format::Text => "text",
            Format::Tokens => "tokens",
        }
    }
}

/// Selects the trained tokens.
///
/// `text` records have no answer and are trained whole; the `labels` of `tokens` records select the
/// tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainOn {
    /// The completion, the output, or the last assistant turn, with its end token.
    #[default]
    Completion,
    /// Every assistant turn with its end-of-turn token.
    Assistant,
    /// Everything.
    All,
}

/// Selects the rows that get an end token. Conversations have the ends that their template writes,
/// and rows of token ids stay unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddEndToken {
    /// Completions get one; texts get one unless the chat template ends the turns of a conversation
    /// with it.
    #[default]
    Auto,
    /// Completions and texts get one.
    Always,
    /// No row gets one.
    Never,
}

/// Treatment of a row that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadRow {
    /// Stop at the first one.
    #[default]
    Error,
    /// Leave out the row, count it, and keep the first few reasons.
    Skip,
}
