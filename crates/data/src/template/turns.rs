//! Which bytes of a rendered conversation the assistant wrote.

use std::ops::Range;

use super::{ChatTemplate, Rendered, Variables};
use crate::error::RowProblem;

impl ChatTemplate {
    /// The whole conversation with the byte range of each assistant turn, by message.
    ///
    /// A template that marks `{% generation %}` says it itself, block by block. For any other,
    /// turn `i` begins where the conversation before it, with the generation prompt, ends, and
    /// ends where the conversation up to and with it ends; white space after the last of
    /// `end_tokens` in it is the template's own and stays out. A template that renders the last
    /// turn otherwise than earlier ones (with its reasoning, say) has no such end: the turn then
    /// ends with the first of `end_tokens` in it. Nor is there such a beginning if the generation
    /// prompt says more than the turn (that there is no reasoning, say): the turn then begins
    /// where the two part, or where its content begins. Only turns from message `from` on are
    /// looked for.
    pub fn render_turns(
        &self,
        messages: &[serde_json::Value],
        tools: Option<&serde_json::Value>,
        variables: &Variables,
        end_tokens: &[String],
        from: usize,
    ) -> Result<(Rendered, Vec<Turn>), RowProblem> {
        let render = |messages: &[_], prompt| {
            self.render(messages, tools, prompt, variables)
                .map_err(|e| RowProblem::Template(e.0))
        };
        let whole = render(messages, false)?;
        let assistant = assistant_turns(messages);
        let wanted = assistant.iter().copied().filter(|&message| message >= from);
        if self.marks_generation() {
            // A message may have several blocks (reasoning, tool calls); only if there is one
            // for each message is it known which is whose.
            let mut turns = if whole.spans.len() == assistant.len() {
                assistant
                    .iter()
                    .zip(&whole.spans)
                    .map(|(&message, span)| Turn {
                        message,
                        bytes: span.clone(),
                    })
                    .collect()
            } else {
                self.blocks_by_message(messages, &assistant, &whole, render)?
            };
            turns.retain(|turn| turn.message >= from);
            return Ok((whole, turns));
        }
        let mut turns: Vec<Turn> = Vec::new();
        for message in wanted {
            let lost = || RowProblem::Turn { turn: message };
            let before = match render(&messages[..message], true) {
                Ok(before) => before.text,
                // Many templates refuse an empty conversation: then the turn begins the text.
                Err(_) if message == 0 => String::new(),
                Err(problem) => return Err(problem),
            };
            let start = if whole.text.starts_with(&before) {
                before.len()
            } else {
                let plain = render(&messages[..message], false)?.text;
                let blank = render(&blanked(messages, message), false)?.text;
                let start = common(&whole.text, &before).min(common(&whole.text, &blank));
                if !whole.text.starts_with(&plain) || start <= plain.len() {
                    return Err(lost());
                }
                start
            };
            let last = message + 1 == messages.len();
            let until = if last {
                Some(whole.text.len())
            } else {
                let upto = render(&messages[..=message], false)?.text;
                (upto.len() >= start && whole.text.starts_with(&upto)).then_some(upto.len())
            };
            let bytes = match until {
                Some(end) => start..trim_after_end(&whole.text, start..end, end_tokens),
                None => start..first_end(&whole.text, start, end_tokens).ok_or_else(lost)?,
            };
            if turns.last().is_some_and(|t| t.bytes.end > bytes.start) {
                return Err(lost());
            }
            turns.push(Turn { message, bytes });
        }
        Ok((whole, turns))
    }

    /// Blocks belong to the message with whose rendering they appear.
    fn blocks_by_message(
        &self,
        messages: &[serde_json::Value],
        assistant: &[usize],
        whole: &Rendered,
        render: impl Fn(&[serde_json::Value], bool) -> Result<Rendered, RowProblem>,
    ) -> Result<Vec<Turn>, RowProblem> {
        let mut turns = Vec::with_capacity(whole.spans.len());
        for &message in assistant {
            let upto = match message + 1 == messages.len() {
                true => whole.spans.len(),
                false => render(&messages[..=message], false)?.spans.len(),
            };
            if upto < turns.len() || upto > whole.spans.len() {
                return Err(RowProblem::Turn { turn: message });
            }
            for span in &whole.spans[turns.len()..upto] {
                turns.push(Turn {
                    message,
                    bytes: span.clone(),
                });
            }
        }
        Ok(turns)
    }
}

/// A part of a rendered conversation that the assistant wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Index of the message.
    pub message: usize,
    /// Bytes of the rendered text.
    pub bytes: Range<usize>,
}

/// Indices of the assistant's messages.
pub(crate) fn assistant_turns(messages: &[serde_json::Value]) -> Vec<usize> {
    let role = |m: &serde_json::Value| m.get("role").and_then(|r| r.as_str()) == Some("assistant");
    let indices = messages.iter().enumerate();
    indices.filter(|(_, m)| role(m)).map(|(i, _)| i).collect()
}

/// The conversation with other content in one message.
fn blanked(messages: &[serde_json::Value], message: usize) -> Vec<serde_json::Value> {
    let mut messages = messages.to_vec();
    messages[message]["content"] = "\u{fdd0}".into();
    messages
}

/// How many bytes two texts have in common at their beginning, in whole characters.
fn common(a: &str, b: &str) -> usize {
    let pairs = a.chars().zip(b.chars());
    pairs
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a.len_utf8())
        .sum()
}

fn trim_after_end(text: &str, range: Range<usize>, end_tokens: &[String]) -> usize {
    let turn = &text[range.clone()];
    let trimmed = turn.trim_end();
    match end_tokens
        .iter()
        .any(|token| trimmed.ends_with(token.as_str()))
    {
        true => range.start + trimmed.len(),
        false => range.end,
    }
}

fn first_end(text: &str, start: usize, end_tokens: &[String]) -> Option<usize> {
    let ends = end_tokens.iter().filter(|token| !token.is_empty());
    ends.filter_map(|token| {
        text[start..]
            .find(token.as_str())
            .map(|at| start + at + token.len())
    })
    .min()
}
