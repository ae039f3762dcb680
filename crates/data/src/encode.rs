//! Records to tokens and labels.

use std::ops::Range;

use tightrope_packing::IGNORED;

use crate::error::{KeyPath, RowProblem};
use crate::options::TrainOn;
use crate::record::{Conversation, Record};
use crate::template::{ChatTemplate, assistant_turns};
use crate::tokenizer::Tokenizer;

/// Everything needed to turn records into tokens.
pub(crate) struct Encoder<'a> {
    pub tokenizer: Option<&'a Tokenizer>,
    pub template: Option<&'a ChatTemplate>,
    pub train_on: TrainOn,
    /// Spellings of the tokenizer's end tokens.
    pub end_texts: Vec<String>,
}

/// Tokens with unshifted labels.
#[derive(Debug, PartialEq)]
pub(crate) struct Encoded {
    pub tokens: Vec<u32>,
    pub labels: Vec<i64>,
    pub doubled_bos: bool,
    /// The last trained token other than white space is no end token.
    pub missing_eos: bool,
}

/// What comes before and between the parts of an alpaca record without chat template, as in
/// Stanford's original training code.
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
    pub fn encode(&self, record: Record) -> Result<Encoded, RowProblem> {
        let (tokens, labels) = match record {
            Record::Tokens { ids, labels } => self.ids(ids, labels)?,
            Record::Text(text) => {
                let ids = self.tokenizer()?.encode(&text, true).map_err(failed)?;
                let labels = ids.iter().map(|&id| id.into()).collect();
                (ids, labels)
            }
            Record::Completion { prompt, completion } => self.completion(&prompt, &completion)?,
            Record::Alpaca {
                instruction,
                input,
                output,
            } if self.template.is_some() => {
                self.chat(&alpaca_conversation(instruction, input, output))?
            }
            Record::Alpaca {
                instruction,
                input,
                output,
            } => self.completion(&alpaca_prompt(&instruction, &input), &output)?,
            Record::Chat(conversation) => self.chat(&conversation)?,
        };
        let bos = self.tokenizer.and_then(Tokenizer::bos_id);
        let ends = self.tokenizer.map_or(&[][..], Tokenizer::end_ids);
        let trained = labels.iter().rev().filter_map(|&l| u32::try_from(l).ok());
        // A template's line break after the end token is trained with `all`.
        let last = trained.clone().find(|&id| !self.is_blank(id));
        let last = last.or_else(|| trained.clone().next());
        Ok(Encoded {
            doubled_bos: bos.is_some_and(|bos| tokens.starts_with(&[bos, bos])),
            missing_eos: !ends.is_empty() && last.is_some_and(|id| !ends.contains(&id)),
            tokens,
            labels,
        })
    }

    fn is_blank(&self, id: u32) -> bool {
        let text = self.tokenizer.and_then(|t| t.decode(&[id], false).ok());
        text.is_some_and(|text| text.trim().is_empty())
    }

    fn tokenizer(&self) -> Result<&Tokenizer, RowProblem> {
        self.tokenizer
            .ok_or_else(|| RowProblem::Tokenize("none was given".to_owned()))
    }

    fn ids(
        &self,
        ids: Vec<u32>,
        labels: Option<Vec<i64>>,
    ) -> Result<(Vec<u32>, Vec<i64>), RowProblem> {
        if let Some(vocab_size) = self.tokenizer.map(Tokenizer::vocab_size) {
            let outside = ids.iter().position(|&id| id as usize >= vocab_size);
            if let Some(index) = outside {
                return Err(RowProblem::OutsideVocabulary {
                    key: KeyPath::name("input_ids").then(index),
                    id: ids[index],
                    vocab_size,
                });
            }
        }
        let labels = labels.unwrap_or_else(|| ids.iter().map(|&id| id.into()).collect());
        Ok((ids, labels))
    }

    /// Prompt and completion as one text, tokenized once; EOS at its end, so that the model
    /// learns to stop.
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
        let mut tokens = [prefix, &inner, suffix].concat();
        let mut labels = match self.train_on {
            TrainOn::All => prefix.iter().map(|&id| id.into()).collect(),
            TrainOn::Completion | TrainOn::Assistant => vec![IGNORED.into(); prefix.len()],
        };
        labels.extend(inner_labels);
        labels.extend(suffix.iter().map(|&id| i64::from(id)));
        let ended = tokens
            .last()
            .is_some_and(|id| tokenizer.end_ids().contains(id));
        if let Some(eos) = tokenizer.eos_id().filter(|_| !ended) {
            tokens.push(eos);
            labels.push(eos.into());
        }
        Ok((tokens, labels))
    }

    fn chat(&self, conversation: &Conversation) -> Result<(Vec<u32>, Vec<i64>), RowProblem> {
        let tokenizer = self.tokenizer()?;
        let template = self
            .template
            .ok_or_else(|| RowProblem::Template("none was given".to_owned()))?;
        let mut variables = tokenizer.special_texts().clone();
        variables.extend(conversation.variables.clone());
        let (messages, tools) = (&conversation.messages, conversation.tools.as_ref());
        let from = match self.train_on {
            TrainOn::All => {
                let rendered = template.render(messages, tools, false, &variables);
                let text = rendered.map_err(|e| RowProblem::Template(e.0))?.text;
                return self.masked(&text, std::slice::from_ref(&(0..text.len())));
            }
            TrainOn::Assistant => 0,
            TrainOn::Completion => conversation
                .completion
                .or_else(|| assistant_turns(messages).last().copied())
                .unwrap_or(messages.len()),
        };
        let (rendered, turns) =
            template.render_turns(messages, tools, &variables, &self.end_texts, from)?;
        let spans: Vec<Range<usize>> = turns.into_iter().map(|turn| turn.bytes).collect();
        self.masked(&rendered.text, &spans)
    }

    /// Tokens of a text; labels for those that share a byte with one of the ordered `spans`.
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

fn failed(error: crate::DataError) -> RowProblem {
    RowProblem::Tokenize(error.to_string())
}

/// An alpaca record as a user's turn (the input below the instruction) and the answer.
fn alpaca_conversation(instruction: String, input: String, output: String) -> Conversation {
    let question = if input.is_empty() {
        instruction
    } else {
        format!("{instruction}\n{input}")
    };
    Conversation {
        messages: vec![
            serde_json::json!({"role": "user", "content": question}),
            serde_json::json!({"role": "assistant", "content": output}),
        ],
        ..Conversation::default()
    }
}
