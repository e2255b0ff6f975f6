//! What went into a span and what came out of it, out of the many places where emitters put that.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::messages::{self, Answer, ToolCall};
use super::print::Print;
use super::stored::Text;
use super::values::{Best, Later};

/// The most messages of one list that are held while a span is read; of more, the last ones.
const PARTS_MAX: usize = 256;

/// One side of a span, input or output, while it is read.
#[derive(Debug, Default)]
pub(super) struct Words<'a> {
    /// Messages spread over attributes: `llm.input_messages.0.message.content`.
    parts: VecDeque<Part<'a>>,
    /// A list of messages as JSON: `gen_ai.input.messages`.
    pub(super) messages: Best<Later<'a>>,
    /// A text as it is: `input.value`.
    pub(super) whole: Best<Later<'a>>,
    /// A JSON text that wraps what was said: `ai.prompt`, `traceloop.entity.input`.
    pub(super) json: Best<Later<'a>>,
    /// `whole` is JSON, as its MIME type says.
    pub(super) is_json: bool,
    /// Messages in events, which are older than messages in attributes and come last.
    pub(super) event: Option<Cow<'a, str>>,
}

#[derive(Debug, Default)]
struct Part<'a> {
    index: u32,
    role: &'a str,
    text: Option<Later<'a>>,
    finish_reason: Option<&'a str>,
    calls: Vec<(u32, ToolCall)>,
}

/// A text, and whether it is JSON rather than what a person wrote or reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    pub(super) text: Cow<'a, str>,
    pub(super) is_json: bool,
}

impl<'a> Found<'a> {
    fn plain(text: impl Into<Cow<'a, str>>) -> Self {
        Self { text: text.into(), is_json: false }
    }
}

impl<'a> Words<'a> {
    /// Takes in an attribute of a message spread over attributes: `rest` is what follows the list's name, as `0.message.role`.
    pub(super) fn take_part(&mut self, rest: &str, value: Later<'a>) {
        let Some((index, rest)) = numbered(rest) else { return };
        let rest = rest.strip_prefix("message.").unwrap_or(rest);
        let Some(part) = self.part(index) else { return };
        match rest {
            "role" => part.role = borrowed(value),
            "content" => part.text = Some(value),
            "finish_reason" => part.finish_reason = Some(borrowed(value)),
            _ => {
                let Some(value) = value.text() else { return };
                if let Some(rest) = rest.strip_prefix("contents.") {
                    if rest.ends_with(".message_content.text") {
                        part.add_text(&value);
                    }
                } else if let Some((nth, rest)) = rest.strip_prefix("tool_calls.").and_then(numbered) {
                    part.take_call(nth, rest, &value);
                }
            }
        }
    }

    /// The message of this index; none if it is far before the last.
    fn part(&mut self, index: u32) -> Option<&mut Part<'a>> {
        let at = match self.parts.binary_search_by_key(&index, |part| part.index) {
            Ok(at) => at,
            Err(at) => {
                let mut at = at;
                if self.parts.len() == PARTS_MAX {
                    at = at.checked_sub(1)?;
                    self.parts.pop_front();
                }
                self.parts.insert(at, Part { index, ..Part::default() });
                at
            }
        };
        self.parts.get_mut(at)
    }

    /// Whether anything was taken in.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
            && self.event.is_none()
            && [&self.messages, &self.whole, &self.json].iter().all(|best| best.get().is_none())
    }

    /// Prints what was taken in, as it came.
    pub(super) fn print(&self, place: usize, print: &mut Print) {
        for text in [&self.messages, &self.whole, &self.json] {
            print.add(place, text.get().map_or(&[], Later::bytes));
        }
        self.parts.iter().filter_map(|part| part.text.as_ref()).for_each(|text| print.add(place, text.bytes()));
        print.add(place, self.event.as_deref().unwrap_or_default().as_bytes());
    }

    /// What was asked. For a call, JSON around it is searched for the question; for other spans it stays as it is.
    pub(super) fn input(mut self, is_call: bool) -> Option<Found<'a>> {
        let of_user = |part: &Part<'_>| part.role.is_empty() || matches!(part.role, "user" | "human");
        let at = self.parts.iter().rposition(|part| part.text.is_some() && of_user(part));
        if let Some(text) = at.and_then(|at| self.parts.remove(at)?.text?.text()) {
            let inner = if text.starts_with('[') { messages::text_of(&text) } else { None };
            return Some(inner.map_or(Found::plain(text), Found::plain));
        }
        if let Some(said) = self.messages.take().and_then(Later::text).and_then(|json| messages::last_user(&json)) {
            return Some(Found::plain(said));
        }
        if let Some(said) = self.event {
            return Some(Found::plain(said));
        }
        let wrapped = match self.whole.take().and_then(Later::text) {
            Some(text) if !self.is_json => return Some(Found::plain(text)),
            Some(json) => Some(json),
            None => self.json.take().and_then(Later::text),
        }?;
        match messages::asked(&wrapped).filter(|_| is_call) {
            Some(said) => Some(Found::plain(said)),
            None => Some(Found { text: wrapped, is_json: true }),
        }
    }

    /// What was answered, with which tools, and why it ended there.
    pub(super) fn output(mut self) -> (Option<Found<'a>>, Vec<ToolCall>, Option<String>) {
        let json = self.messages.take().and_then(Later::text);
        let mut answer = json.map(|json| messages::answer(&json)).unwrap_or_default();
        if answer == Answer::default() {
            answer = self.event.as_deref().map(messages::answer).unwrap_or_default();
        }
        let has_messages = !self.parts.is_empty() || answer != Answer::default();
        let mut calls: Vec<_> = self.parts.iter_mut().flat_map(|part| std::mem::take(&mut part.calls)).collect();
        calls.retain(|(_, call)| !call.name.is_empty());
        calls.truncate(messages::TOOL_CALLS_MAX);
        let calls =
            if calls.is_empty() { answer.tool_calls } else { calls.into_iter().map(|(_, call)| call).collect() };
        let finish = self.parts.iter().find_map(|part| part.finish_reason.map(str::to_owned)).or(answer.finish_reason);
        let said = self.parts.into_iter().find_map(|part| part.text.filter(|text| !text.bytes().is_empty())?.text());
        let found = match said.map(Found::plain).or(answer.text.map(Found::plain)) {
            Some(found) => Some(found),
            None => match self.whole.take().and_then(Later::text) {
                Some(text) if !self.is_json => Some(Found::plain(text)),
                // An answer that only asks for tools has no text; the JSON around it is not one.
                _ if has_messages => None,
                Some(json) => Some(Found { text: json, is_json: true }),
                None => self.json.take().and_then(Later::text).map(|json| Found { text: json, is_json: true }),
            },
        };
        (found, calls, finish)
    }
}

impl Part<'_> {
    fn add_text(&mut self, more: &str) {
        let mut text = self.text.take().and_then(Later::text).unwrap_or_default();
        if text.len() < Text::Input.bytes_max() {
            let text = text.to_mut();
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(&more[..more.floor_char_boundary(Text::Input.bytes_max())]);
        }
        self.text = Some(Later::Text(text));
    }

    fn take_call(&mut self, nth: u32, rest: &str, value: &str) {
        let field = rest.strip_prefix("tool_call.function.").unwrap_or(rest);
        if !matches!(field, "name" | "arguments") {
            return;
        }
        let at = match self.calls.binary_search_by_key(&nth, |call| call.0) {
            Ok(at) => at,
            Err(_) if self.calls.len() == messages::TOOL_CALLS_MAX => return,
            Err(at) => {
                self.calls.insert(at, (nth, ToolCall::default()));
                at
            }
        };
        let call = &mut self.calls[at].1;
        if field == "name" { &mut call.name } else { &mut call.arguments }.replace_range(.., value);
    }
}

/// Splits `12.message.role` into 12 and the rest.
fn numbered(rest: &str) -> Option<(u32, &str)> {
    let (index, rest) = rest.split_once('.')?;
    Some((index.parse().ok()?, rest))
}

/// A short word out of an attribute; a number or list is none.
fn borrowed<'a>(value: Later<'a>) -> &'a str {
    match value.text() {
        Some(Cow::Borrowed(text)) => text,
        _ => "",
    }
}
