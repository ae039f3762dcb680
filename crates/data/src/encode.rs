//! Turns records into tokens and labels.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::Value;
use tightrope_packing::IGNORED;

use crate::error::{KeyPath, RowProblem};
use crate::options::{AddEndToken, TrainOn};
use crate::record::{Conversation, Record, TemplateReads, Tokens, is_empty};
use crate::template::{ChatTemplates, Dropped, Turn, assistant_turns, parts};
use crate::tokenizer::Tokenizer;

/// Everything needed to turn records into tokens.
pub(crate) struct Encoder<'a> {
    pub tokenizer: Option<&'a Tokenizer>,
    pub templates: Option<&'a ChatTemplates>,
    /// Keys that the template can read.
    pub reads: Option<TemplateReads>,
    /// Number of rows of the model's embedding, if a model is known.
    pub embedding: Option<usize>,
    pub train_on: TrainOn,
    /// End token for rows without chat template.
    pub added_end: AddedEnd,
    /// Spellings of the tokenizer's end tokens.
    pub end_texts: Vec<String>,
}

/// The end token that is added to rows that do not end in one.
#[derive(Debug, Default)]
pub(crate) struct AddedEnd {
    to_completions: Option<u32>,
    to_texts: Option<u32>,
    /// Texts get no end token, because it ends the turns of conversations.
    ends_turns: bool,
}

impl AddedEnd {
    pub(crate) fn new(
        option: AddEndToken,
        tokenizer: Option<&Tokenizer>,
        templates: Option<&ChatTemplates>,
    ) -> Self {
        let eos = tokenizer.and_then(Tokenizer::eos_id);
        let text = eos.and_then(|eos| tokenizer?.id_to_token(eos));
        let source = templates.map_or("", |all| all.choose(false).source());
        let in_template =
            source.contains("eos_token") || text.is_some_and(|text| source.contains(&text));
        let ends_turns = in_template && option == AddEndToken::Auto;
        let eos = eos.filter(|_| option != AddEndToken::Never);
        Self {
            to_completions: eos,
            to_texts: eos.filter(|_| !ends_turns),
            ends_turns,
        }
    }
}

/// Tokens with unshifted labels.
#[derive(Debug, PartialEq)]
pub(crate) struct Encoded {
    pub tokens: Vec<u32>,
    pub labels: Vec<i64>,
    pub doubled_bos: bool,
    /// Whether the last trained token other than white space is no end token.
    pub missing_eos: bool,
    /// Whether the end token was added to the row.
    pub added_eos: bool,
    /// Whether a text does not end in an end token, and got none because it ends turns.
    pub open_text: bool,
    pub chat: Chat,
}

/// Result of encoding a conversation.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Chat {
    pub answers: u64,
    pub trained_answers: u64,
    /// Number of trained answers without text.
    pub empty_answers: u64,
    pub dropped: Dropped,
    /// Whether the parts of a message became one text.
    pub joined_parts: bool,
}

/// Prompt before and between the parts of an alpaca record without chat template, as in Stanford's
/// original training code.
fn alpaca_prompt(instruction: &str, input: &str) -> String {
    if input.is_empty() {
        format!(
            "Below is an instruction that describes a task. Write a response that appropriately \
             completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:"
        )
    } else {
        format!(
            "Below is an instruction that describes a task, paired with an input that provides \
             further context. Write a response that appropriately completes the request.\n\n\
             ### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:"
        )
    }
}

impl Encoder<'_> {
    /// Sequences of a record: one, or those that were packed into its row.
    pub(crate) fn encode(&self, record: Record) -> Result<Vec<Encoded>, RowProblem> {
        let record = match record {
            Record::Preference { chosen, rejected } => {
                let mut pair = self.encode(*chosen)?;
                pair.extend(self.encode(*rejected)?);
                return Ok(pair);
            }
            Record::Labelled { answer, .. } => return self.encode(*answer),
            record => record,
        };
        let mut chat = Chat::default();
        let is_text = matches!(&record, Record::Text(text) if !text.is_empty());
        let end = match &record {
            Record::Text(_) => self.added_end.to_texts.filter(|_| is_text),
            Record::Completion { .. } | Record::Alpaca { .. } => self.added_end.to_completions,
            _ => None,
        };
        let (mut tokens, mut labels) = match record {
            Record::Tokens(parts) => return self.parts(parts),
            Record::Preference { .. } | Record::Labelled { .. } => {
                unreachable!("their answers are encoded one by one")
            }
            Record::Text(text) => self.text(&text)?,
            Record::Completion { prompt, completion } => {
                chat.empty_answers = completion.trim().is_empty().into();
                self.completion(&prompt, &completion)?
            }
            Record::Alpaca {
                instruction,
                input,
                output,
            } => {
                chat.empty_answers = output.trim().is_empty().into();
                self.completion(&alpaca_prompt(&instruction, &input), &output)?
            }
            Record::Chat(conversation) => self.chat(&conversation, &mut chat)?,
        };
        let is_open = self.ends(tokens.iter().rev().copied()) == Some(false);
        let added = end.filter(|_| is_open);
        tokens.extend(added);
        labels.extend(added.map(i64::from));
        if let Some(rows) = self.embedding {
            let outside = tokens.iter().find(|&&id| id as usize >= rows);
            if let Some(&id) = outside {
                let text = self.tokenizer.and_then(|t| t.decode(&[id], false).ok());
                let text = text.unwrap_or_default();
                return Err(RowProblem::BeyondEmbedding { id, text, rows });
            }
        }
        let encoded = self.encoded(tokens, labels);
        Ok(vec![Encoded {
            chat,
            added_eos: added.is_some(),
            open_text: is_text && is_open && self.added_end.ends_turns,
            ..encoded
        }])
    }

    fn encoded(&self, tokens: Vec<u32>, labels: Vec<i64>) -> Encoded {
        let bos = self.tokenizer.and_then(Tokenizer::bos_id);
        let trained = labels.iter().rev().filter_map(|&l| u32::try_from(l).ok());
        Encoded {
            doubled_bos: bos.is_some_and(|bos| tokens.starts_with(&[bos, bos])),
            missing_eos: self.tokenizer.is_some() && self.ends(trained) == Some(false),
            added_eos: false,
            open_text: false,
            tokens,
            labels,
            chat: Chat::default(),
        }
    }

    /// Whether ids, given from the last one on, end in an end token. Templates put a line break
    /// after it.
    fn ends(&self, mut reversed: impl Iterator<Item = u32> + Clone) -> Option<bool> {
        let last = reversed.clone().find(|&id| !self.is_blank(id));
        let last = last.or_else(|| reversed.next())?;
        let ends = self.tokenizer.map_or(&[][..], Tokenizer::end_ids);
        Some(ends.contains(&last))
    }

    fn is_blank(&self, id: u32) -> bool {
        let text = self.tokenizer.and_then(|t| t.decode(&[id], false).ok());
        text.is_some_and(|text| text.trim().is_empty())
    }

    fn tokenizer(&self) -> Result<&Tokenizer, RowProblem> {
        self.tokenizer
            .ok_or_else(|| RowProblem::Tokenize("none was given".to_owned()))
    }

    /// Sequences of ids without changes; each id and label is checked.
    fn parts(&self, parts: Vec<Tokens>) -> Result<Vec<Encoded>, RowProblem> {
        let vocabulary = self.tokenizer.map(Tokenizer::vocab_size);
        let check = |key: &dyn Fn() -> KeyPath, id: i64| {
            let id = u32::try_from(id).unwrap_or_default();
            let outside = |limit: Option<usize>| limit.filter(|&limit| id as usize >= limit);
            if let Some(rows) = outside(self.embedding) {
                return Err(RowProblem::OutsideEmbedding {
                    key: key(),
                    id,
                    rows,
                });
            }
            match outside(vocabulary) {
                None => Ok(()),
                Some(vocab_size) => Err(RowProblem::OutsideVocabulary {
                    key: key(),
                    id,
                    vocab_size,
                }),
            }
        };
        let encode = |part: Tokens| {
            let place = |key: &str, index: usize| match part.columns {
                Some(columns) => columns.place(index),
                None => KeyPath::name(key).then(part.start + index),
            };
            for (index, &id) in part.ids.iter().enumerate() {
                check(&|| place("input_ids", index), id.into())?;
            }
            if part.labelled {
                for (index, &label) in part.labels.iter().enumerate() {
                    check(&|| place("labels", index), label)?;
                }
            }
            Ok(self.encoded(part.ids, part.labels))
        };
        parts.into_iter().map(encode).collect()
    }

    /// A text, of which every token is trained.
    fn text(&self, text: &str) -> Result<(Vec<u32>, Vec<i64>), RowProblem> {
        let ids = self.tokenizer()?.encode(text, true).map_err(failed)?;
        let labels = ids.iter().map(|&id| id.into()).collect();
        Ok((ids, labels))
    }

    /// Prompt and completion as one text, tokenized once.
    fn completion(
        &self,
        prompt: &str,
        completion: &str,
    ) -> Result<(Vec<u32>, Vec<i64>), RowProblem> {
        let tokenizer = self.tokenizer()?;
        let text = format!("{prompt}{completion}");
        let trained = match self.train_on {
            TrainOn::All => 0..text.len(),
            TrainOn::Completion | TrainOn::Assistant => prompt.len()..text.len(),
        };
        let (inner, inner_labels) = self.masked(&text, &[trained])?;
        let (prefix, suffix) = tokenizer.around(&inner);
        let tokens = [prefix, &inner, suffix].concat();
        let mut labels = match self.train_on {
            TrainOn::All => prefix.iter().map(|&id| id.into()).collect(),
            TrainOn::Completion | TrainOn::Assistant => vec![IGNORED.into(); prefix.len()],
        };
        labels.extend(inner_labels);
        labels.extend(suffix.iter().map(|&id| i64::from(id)));
        Ok((tokens, labels))
    }

    fn chat(
        &self,
        conversation: &Conversation,
        chat: &mut Chat,
    ) -> Result<(Vec<u32>, Vec<i64>), RowProblem> {
        let tokenizer = self.tokenizer()?;
        let tools = conversation.tools.as_ref();
        let (templates, reads) = self
            .templates
            .zip(self.reads.as_ref())
            .ok_or(RowProblem::NoTemplate)?;
        let template = templates.choose(tools.is_some());
        let mut variables = tokenizer.special_texts().clone();
        variables.extend(conversation.variables.clone());
        let messages = parts::as_template_reads(template, conversation, &variables);
        let joined_parts = matches!(messages, Cow::Owned(_));
        let messages = &*messages;
        if !reads.mentions("tool_calls")
            && let Some(call) = messages.iter().position(has_only_calls)
            && let Err(error) = template.render(messages, tools, false, &variables)
        {
            return Err(RowProblem::Refused {
                key: KeyPath::name("messages").then(call).then("tool_calls"),
                why: format!(
                    "the chat template has no place for calls of tools ({}); set `chat_template` \
                     to one that has, or write the call as `content`",
                    error.message
                ),
            });
        }
        let answers = assistant_turns(messages);
        let whole = self.train_on == TrainOn::All && conversation.untrained.is_empty();
        let from = match self.train_on {
            TrainOn::All | TrainOn::Assistant => 0,
            TrainOn::Completion => {
                let last = answers.last().copied();
                conversation.completion.or(last).unwrap_or(messages.len())
            }
        };
        let trains = |message: usize| message >= from && !conversation.untrained.contains(&message);
        let (text, spans) = if whole {
            let text = template.render(messages, tools, false, &variables)?.text;
            let all = 0..text.len();
            (text, vec![all])
        } else {
            let (rendered, turns) =
                template.render_turns(messages, tools, &variables, &self.end_texts, from)?;
            let (trained, untrained): (Vec<_>, Vec<_>) =
                turns.into_iter().partition(|turn| trains(turn.message));
            let bytes = |turns: Vec<Turn>| turns.into_iter().map(|turn| turn.bytes).collect();
            let spans = match self.train_on {
                TrainOn::All => around(bytes(untrained), rendered.text.len()),
                TrainOn::Assistant | TrainOn::Completion => bytes(trained),
            };
            (rendered.text, spans)
        };
        let trained: Vec<&Value> = answers
            .iter()
            .filter(|&&answer| trains(answer))
            .map(|&answer| &messages[answer])
            .collect();
        let empty = trained.iter().filter(|answer| says_nothing(answer, reads));
        let mut dropped = Dropped::from(messages, tools, &text, reads);
        dropped.add_thinking(&trained, &text, reads);
        *chat = Chat {
            answers: answers.len() as u64,
            trained_answers: trained.len() as u64,
            empty_answers: empty.count() as u64,
            dropped,
            joined_parts,
        };
        self.masked(&text, &spans)
    }

    /// Tokens of a text; tokens that share a byte with one of the ordered `spans` get labels.
    fn masked(
        &self,
        text: &str,
        spans: &[Range<usize>],
    ) -> Result<(Vec<u32>, Vec<i64>), RowProblem> {
        let tokens = self
            .tokenizer()?
            .encode_with_offsets(text)
            .map_err(failed)?;
        let mut ids = Vec::with_capacity(tokens.len());
        let mut labels = Vec::with_capacity(tokens.len());
        let mut spans = spans.iter().peekable();
        for token in tokens {
            while spans
                .next_if(|span| span.end <= token.bytes.start)
                .is_some()
            {}
            let trained = spans
                .peek()
                .is_some_and(|s| token.bytes.start < s.end && s.start < token.bytes.end);
            ids.push(token.id);
            labels.push(if trained {
                token.id.into()
            } else {
                IGNORED.into()
            });
        }
        Ok((ids, labels))
    }
}

/// Whether a message contains nothing but calls.
fn has_only_calls(message: &Value) -> bool {
    let says = message.get("content").is_some_and(Value::is_string);
    message.get("tool_calls").is_some() && !says
}

/// Whether a message has no text, and nothing else that the template writes out.
fn says_nothing(message: &Value, reads: &TemplateReads) -> bool {
    let no_text = |text: &Value| text.as_str().is_none_or(|text| text.trim().is_empty());
    let empty = |(key, value): (&String, &Value)| match key.as_str() {
        "role" | "name" => true,
        "content" => match value {
            Value::Array(parts) => parts.iter().all(|part| no_text(&part["text"])),
            value => no_text(value),
        },
        "tool_calls" => is_empty(value),
        key => !reads.reads_key_of_message(key) || is_empty(value),
    };
    message
        .as_object()
        .is_some_and(|message| message.iter().all(empty))
}

fn failed(error: crate::DataError) -> RowProblem {
    RowProblem::Tokenize(error.to_string())
}

/// Parts of a text before, between and after ordered ranges.
fn around(ranges: Vec<Range<usize>>, len: usize) -> Vec<Range<usize>> {
    let mut start = 0;
    let mut between = Vec::with_capacity(ranges.len() + 1);
    for range in ranges {
        between.push(start..range.start);
        start = range.end;
    }
    between.push(start..len);
    between
}
