//! What a configuration says about data.

use serde::{Deserialize, Serialize};
use tightrope_packing::Overlong;

/// The `[data]` options that decide how records become sequences.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields, default)]
pub struct DataOptions {
    /// How records are read; `auto` looks at the keys of the first rows of each file.
    pub format: Format,
    /// Most tokens of a sequence.
    pub max_length: usize,
    /// What happens to a sequence of more than `max_length` tokens. The first token of each further
    /// piece of one that is split has nothing before it and is not trained.
    pub overlong: Overlong,
    /// Which tokens are trained.
    pub train_on: TrainOn,
    /// Whether what has no chat template is given the tokenizer's end token where it does not end
    /// in one.
    pub add_end_token: AddEndToken,
    /// What happens to a row that cannot be read.
    pub on_bad_row: OnBadRow,
    /// Most bytes of a row; a longer one is refused before it is in memory.
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

/// How a record is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Decided per file by the keys of its first rows; the first of `tokens`, `chat`, `alpaca`,
    /// `completion`, `text` whose keys are there.
    #[default]
    Auto,
    /// `instruction`, optional `input`, `output`; optional `system`, `history` and `tools`.
    Alpaca,
    /// `messages` with `role` and `content`, or ShareGPT's `conversations` with `from` and
    /// `value`; optional `system`, `tools` and `chat_template_kwargs`.
    Chat,
    /// `prompt` and `completion`, both text or both lists of messages.
    Completion,
    /// `text`, all of it trained with its end token.
    Text,
    /// `input_ids`, optional `labels` (-100 = ignored), `attention_mask` (0 = padding), masks of
    /// what is trained, and `position_ids` or `seq_lengths` where a row holds several sequences.
    Tokens,
}

impl Format {
    /// The name used in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Format::Auto => "auto",
            Format::Alpaca => "alpaca",
            Format::Chat => "chat",
            Format::Completion => "completion",
            Format::Text => "text",
            Format::Tokens => "tokens",
        }
    }
}

/// Which tokens are trained.
///
/// `text` records have no answer and are trained whole; `tokens` records say it themselves by
/// their `labels`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrainOn {
    /// The completion, the output, or the last assistant turn, each with its end token.
    #[default]
    Completion,
    /// Every assistant turn with its end-of-turn token.
    Assistant,
    /// Everything.
    All,
}

/// What is given an end token. Conversations have the ends that their template writes, rows of
/// token ids stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AddEndToken {
    /// Completions; and texts, unless the chat template ends the turns of a conversation with it.
    #[default]
    Auto,
    /// Completions and texts.
    Always,
    /// Nothing.
    Never,
}

/// What happens to a row that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadRow {
    /// Stop at the first one.
    #[default]
    Error,
    /// Leave it out, count it, keep the first few reasons.
    Skip,
}
