//! Finds the bytes of a rendered conversation that the assistant wrote.

use std::ops::Range;

use serde_json::Value;

use super::{ChatTemplate, RenderError, Rendered, Variables};
use crate::error::RowProblem;

impl ChatTemplate {
    /// Returns the whole conversation with the byte range of each assistant turn, by message.
    ///
    /// A template with `{% generation %}` marks the turns itself, block by block. For any other
    /// template, turn `i` begins where the conversation before it, with the generation prompt,
    /// ends; it ends where the conversation up to and including it ends. White space after the last
    /// of `end_tokens` belongs to the template and is left out. Many conversations have no such
    /// beginning or end: the template renders earlier turns in another way than the last, puts the
    /// system prompt into the last question, or writes text before the assistant opens. In these
    /// cases the turn contains the bytes that change with the message (found by changing it alone):
    /// it begins after the generation prompt before them, or with them, and ends after the end
    /// token behind them, or with them. Only turns from message `from` on are searched.
    pub fn render_turns(
        &self,
        messages: &[Value],
        tools: Option<&Value>,
        variables: &Variables,
        end_tokens: &[String],
        from: usize,
    ) -> Result<(Rendered, Vec<Turn>), RowProblem> {
        super::limits::on_deep_stack(|| {
            let conversation = Conversation {
                template: self,
                messages,
                tools,
                variables,
                end_tokens,
            };
            let whole = conversation.render(messages, false)?;
            let assistant = assistant_turns(messages);
            if self.marks_generation() {
                let mut turns = conversation.blocks(&assistant, &whole)?;
                turns.retain(|turn| turn.message >= from);
                return Ok((whole, turns));
            }
            let mut turns: Vec<Turn> = Vec::new();
            for message in assistant.into_iter().filter(|&message| message >= from) {
                let turn = conversation.turn(&whole.text, message)?;
                if turns.last().is_some_and(|t| t.bytes.end > turn.bytes.start) {
                    return Err(RowProblem::Turn { turn: message });
                }
                turns.push(turn);
            }
            Ok((whole, turns))
        })
    }
}

/// A part of a rendered conversation that the assistant wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Index of the message.
    pub message: usize,
    /// Byte range in the rendered text.
    pub bytes: Range<usize>,
}

/// Indices of the assistant's messages.
pub(crate) fn assistant_turns(messages: &[Value]) -> Vec<usize> {
    let indices = messages.iter().enumerate();
    indices
        .filter(|(_, message)| is_assistant(message))
        .map(|(index, _)| index)
        .collect()
}

fn is_assistant(message: &Value) -> bool {
    message.get("role").and_then(Value::as_str) == Some("assistant")
}

struct Conversation<'a> {
    template: &'a ChatTemplate,
    messages: &'a [Value],
    tools: Option<&'a Value>,
    variables: &'a Variables,
    end_tokens: &'a [String],
}

impl Conversation<'_> {
    fn render(&self, messages: &[Value], prompt: bool) -> Result<Rendered, RenderError> {
        self.template
            .render(messages, self.tools, prompt, self.variables)
    }

    /// The same, if a refusal only means that nothing can be learnt.
    fn text(&self, messages: &[Value], prompt: bool) -> Option<String> {
        Some(self.render(messages, prompt).ok()?.text)
    }

    fn turn(&self, whole: &str, message: usize) -> Result<Turn, RowProblem> {
        let lost = || RowProblem::Turn { turn: message };
        let before = &self.messages[..message];
        let last = message + 1 == self.messages.len();
        // Without messages a template may write text that no assistant said.
        let prompt = self.text(before, true).filter(|_| message > 0);
        let known = prompt.filter(|prompt| whole.starts_with(prompt.as_str()));
        let end = match last {
            true => Some(whole.len()),
            false => {
                let upto = self.text(&self.messages[..=message], false);
                let upto = upto.filter(|upto| whole.starts_with(upto.as_str()));
                upto.map(|upto| upto.len())
            }
        };
        if let (Some(prompt), Some(end)) = (&known, end)
            && prompt.len() <= end
        {
            let bytes = prompt.len()..self.trim_after_end(whole, prompt.len()..end);
            return Ok(Turn { message, bytes });
        }
        let own = self
            .influence(self.messages, whole, message)
            .ok_or_else(lost)?;
        let start = match known {
            Some(prompt) if prompt.len() <= own.end => prompt.len(),
            _ => self.beginning(whole, message, own.start),
        };
        let end = match end.filter(|end| *end >= own.end) {
            Some(end) => self.trim_after_end(whole, own.end..end),
            None => self.ending(whole, message, own.end),
        };
        Ok(Turn {
            message,
            bytes: start..end,
        })
    }

    /// Beginning of a turn whose message changes nothing before `limit`.
    fn beginning(&self, whole: &str, message: usize, limit: usize) -> usize {
        let before = &self.messages[..message];
        let previous = message.checked_sub(1);
        let lower = previous.and_then(|m| self.influence(self.messages, whole, m));
        let lower = lower.filter(|own| own.end <= limit).map(|own| own.end);
        let between = &whole[lower.unwrap_or(0)..limit];
        let prompt = self.generation_prompt(before);
        if let Some(at) = between.rfind(&prompt).filter(|_| !prompt.is_empty()) {
            return limit - between.len() + at + prompt.len();
        }
        let goes_on = previous.is_some_and(|m| is_assistant(&self.messages[m]));
        match (lower, prompt.is_empty()) {
            // The template joined two turns to one: the text between them belongs to the assistant
            // as well.
            (Some(lower), _) if goes_on && self.first_end(between).is_none() => return lower,
            (_, true) => {}
            (_, false) => return limit,
        }
        // A template without generation prompt: the turn follows the text that closes the message
        // before.
        let closed = || {
            let (lower, previous) = (lower?, previous?);
            let text = self.text(before, true)?;
            let own = self.influence_with(before, &text, previous, true)?;
            let closing = &text[own.end..];
            between
                .starts_with(closing)
                .then_some(lower + closing.len())
        };
        closed().unwrap_or(limit)
    }

    /// The text that the template adds so that the assistant speaks.
    fn generation_prompt(&self, before: &[Value]) -> String {
        let added = |messages: &[Value]| {
            let (without, with) = (self.text(messages, false)?, self.text(messages, true)?);
            with.strip_prefix(&without).map(str::to_owned)
        };
        let known = (!before.is_empty()).then(|| added(before)).flatten();
        known.or_else(|| added(self.messages)).unwrap_or_default()
    }

    /// End of a turn whose message changes nothing from `limit` on: after the end token that
    /// follows, if there is one before the next message that the template writes.
    fn ending(&self, whole: &str, message: usize, limit: usize) -> usize {
        let mut later = message + 1..self.messages.len();
        let next = later.find_map(|later| self.influence(self.messages, whole, later));
        let next = next.map(|own| own.start).filter(|next| *next >= limit);
        let after = &whole[limit..next.unwrap_or(whole.len())];
        limit + self.first_end(after).unwrap_or(0)
    }

    /// End of the first end token in a text.
    fn first_end(&self, text: &str) -> Option<usize> {
        let ends = self.end_tokens.iter().filter(|token| !token.is_empty());
        ends.filter_map(|token| Some(text.find(token.as_str())? + token.len()))
            .min()
    }

    fn trim_after_end(&self, text: &str, range: Range<usize>) -> usize {
        let trimmed = text[range.clone()].trim_end();
        let mut ends = self.end_tokens.iter();
        match ends.any(|token| !token.is_empty() && trimmed.ends_with(token.as_str())) {
            true => range.start + trimmed.len(),
            false => range.end,
        }
    }

    fn influence(&self, messages: &[Value], text: &str, message: usize) -> Option<Range<usize>> {
        self.influence_with(messages, text, message, false)
    }

    /// Bytes of the rendered `text` that change with one message: from the first to the last byte
    /// that any of its variants changes. `None` if nothing changes, or if the message is written
    /// twice.
    fn influence_with(
        &self,
        messages: &[Value],
        text: &str,
        message: usize,
        prompt: bool,
    ) -> Option<Range<usize>> {
        let mut own: Option<Range<usize>> = None;
        let mut changed = messages.to_vec();
        for variant in variants(messages.get(message)?) {
            changed[message] = variant;
            let Some(other) = self.text(&changed, prompt).filter(|other| other != text) else {
                continue;
            };
            if other.matches(MARK).count() > 1 {
                return None;
            }
            let start = common(text.chars(), other.chars());
            let rest = (&text[start..], &other[start..]);
            let end = text.len() - common(rest.0.chars().rev(), rest.1.chars().rev());
            own = Some(match own {
                None => start..end,
                Some(own) => own.start.min(start)..own.end.max(end),
            });
        }
        own
    }

    /// The `{% generation %}` blocks with their messages. A message may have several blocks
    /// (reasoning, tool calls); only if there is one for each is the assignment immediately known.
    fn blocks(&self, assistant: &[usize], whole: &Rendered) -> Result<Vec<Turn>, RowProblem> {
        let turn = |message: usize, span: &Range<usize>| Turn {
            message,
            bytes: span.clone(),
        };
        if whole.spans.len() == assistant.len() {
            let pairs = assistant.iter().zip(&whole.spans);
            return Ok(pairs.map(|(&message, span)| turn(message, span)).collect());
        }
        let mut turns = Vec::with_capacity(whole.spans.len());
        for &message in assistant {
            let upto = match message + 1 == self.messages.len() {
                true => whole.spans.len(),
                false => self.render(&self.messages[..=message], false)?.spans.len(),
            };
            if upto < turns.len() || upto > whole.spans.len() {
                return Err(RowProblem::Turn { turn: message });
            }
            let spans = &whole.spans[turns.len()..upto];
            turns.extend(spans.iter().map(|span| turn(message, span)));
        }
        Ok(turns)
    }
}

/// A character that occurs in no text.
const MARK: &str = "\u{fdd0}";

/// Variants of the message: other content, more content, other reasoning and other calls.
fn variants(message: &Value) -> Vec<Value> {
    let mut variants = Vec::new();
    let mut with = |key: &str, value: Value| {
        let mut variant = message.clone();
        if let Value::Object(fields) = &mut variant {
            fields.insert(key.to_owned(), value);
            variants.push(variant);
        }
    };
    match message.get("content") {
        Some(Value::Array(parts)) => {
            for replaced in [true, false] {
                let mut parts = parts.clone();
                let texts = parts.iter_mut().filter_map(|part| part.get_mut("text"));
                texts.for_each(|text| mark(text, replaced));
                with("content", parts.into());
            }
        }
        Some(Value::String(text)) => {
            with("content", MARK.into());
            with("content", format!("{text}{MARK}").into());
        }
        _ => with("content", MARK.into()),
    }
    for key in ["reasoning_content", "thinking", "reasoning"] {
        if message.get(key).is_some_and(Value::is_string) {
            with(key, MARK.into());
        }
    }
    if let Some(Value::Array(calls)) = message.get("tool_calls") {
        for ends in [false, true] {
            let mut calls = calls.clone();
            let call = if ends {
                calls.last_mut()
            } else {
                calls.first_mut()
            };
            call.into_iter().for_each(|call| mark_call(call, ends));
            with("tool_calls", calls.into());
        }
    }
    variants
}

/// Replaces a text, or adds to it.
fn mark(text: &mut Value, replaced: bool) {
    if let Value::String(text) = text {
        if replaced {
            text.clear();
        }
        text.push_str(MARK);
    }
}

/// Changes the name of a call, or its arguments.
fn mark_call(call: &mut Value, arguments: bool) {
    let function = match call.get_mut("function").is_some() {
        true => &mut call["function"],
        false => call,
    };
    match function.get_mut("arguments").filter(|_| arguments) {
        Some(Value::Object(fields)) => {
            fields.insert(MARK.to_owned(), true.into());
        }
        Some(text) => mark(text, false),
        None => function
            .get_mut("name")
            .into_iter()
            .for_each(|name| mark(name, false)),
    }
}

/// Number of bytes that two texts have in common at their beginning, in whole characters.
fn common(a: impl Iterator<Item = char>, b: impl Iterator<Item = char>) -> usize {
    let pairs = a.zip(b);
    pairs
        .take_while(|(a, b)| a == b)
        .map(|(a, _)| a.len_utf8())
        .sum()
}
