//! Conversations as JSON text: what the user said last, what the model answered, which tools it asked for.
//!
//! Understood: OpenTelemetry's `[{role, parts: [{type, content}]}]`, OpenAI's and LangChain's `[{role, content}]` with content as
//! text or parts, `{messages: [..]}` around either, Vercel's `{prompt}` and tool calls, and lists cut off by an SDK.

use serde_json::Value;

use super::loose::{each_element, each_field, looks_structured, scalar};
use super::stored::Text;

/// The most tool calls of one answer that are kept.
pub(super) const TOOL_CALLS_MAX: usize = 16;
/// The longest arguments of a tool call that are kept as JSON; longer ones are kept as text, cut.
const ARGUMENTS_BYTES_MAX: usize = 1024;

/// A tool that the model asked for.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct ToolCall {
    pub(super) name: String,
    /// JSON, or whatever the model wrote instead.
    pub(super) arguments: String,
}

impl ToolCall {
    /// As it is stored in a row.
    pub(super) fn to_json(&self, texts: bool) -> Value {
        let mut call = serde_json::Map::new();
        call.insert("name".into(), self.name.as_str().into());
        if texts && !self.arguments.is_empty() {
            let cut = &self.arguments[..self.arguments.floor_char_boundary(ARGUMENTS_BYTES_MAX)];
            call.insert("arguments".into(), serde_json::from_str(cut).unwrap_or_else(|_| cut.into()));
        }
        call.into()
    }
}

/// What a model said.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct Answer {
    pub(super) text: Option<String>,
    pub(super) tool_calls: Vec<ToolCall>,
    pub(super) finish_reason: Option<String>,
}

/// What the user said last; a text that is no JSON is what they said.
pub(super) fn last_user(json: &str) -> Option<String> {
    if !looks_structured(json) {
        return Some(json.to_owned()).filter(|text| !text.is_empty());
    }
    let mut said = None;
    each_message(json, &mut |message: &Message<'_>| {
        if message.role.is_none() || message.is_of("user") || message.is_of("human") {
            said = message.text().or(said.take());
        }
    });
    said
}

/// What the user asked in a whole request: its last user message, else its `prompt` or `input`.
pub(super) fn asked(json: &str) -> Option<String> {
    let mut messages = None;
    let mut prompt = None;
    each_field(json, |name, value| match name {
        "messages" => messages = last_user(value),
        "prompt" | "input" | "question" | "query" if prompt.is_none() => prompt = text_of(value),
        _ => {}
    });
    messages.or(prompt)
}

/// What a model answered; a text that is no JSON is its answer.
pub(super) fn answer(json: &str) -> Answer {
    if !looks_structured(json) {
        return Answer { text: Some(json.to_owned()).filter(|text| !text.is_empty()), ..Answer::default() };
    }
    let mut answer = Answer::default();
    each_message(json, &mut |message: &Message<'_>| {
        answer.text = answer.text.take().or_else(|| message.text());
        answer.finish_reason = answer.finish_reason.take().or_else(|| message.finish_reason());
        message.tool_calls(&mut answer.tool_calls);
    });
    answer
}

/// The tool calls in a list of them.
pub(super) fn tool_calls(json: &str, calls: &mut Vec<ToolCall>) {
    each_element(json, |call| {
        if calls.len() < TOOL_CALLS_MAX {
            calls.extend(tool_call(call));
        }
    });
}

/// One message, its parts not looked at yet.
#[derive(Default)]
struct Message<'a> {
    role: Option<String>,
    content: Option<&'a str>,
    parts: Option<&'a str>,
    tool_calls: Option<&'a str>,
    finish_reason: Option<&'a str>,
}

impl<'a> Message<'a> {
    fn read(json: &'a str) -> Self {
        // A list may hold bare texts: each is a message of whoever is asked about.
        if json.starts_with('"') {
            return Self { content: Some(json), ..Self::default() };
        }
        let mut message = Self::default();
        each_field(json, |name, value| match name {
            "role" | "type" if message.role.is_none() => message.role = scalar(value).map(|role| role.into_owned()),
            "role" => message.role = scalar(value).map(|role| role.into_owned()),
            "content" => message.content = Some(value),
            "parts" => message.parts = Some(value),
            "tool_calls" => message.tool_calls = Some(value),
            "finish_reason" => message.finish_reason = Some(value),
            _ => {}
        });
        message
    }

    fn is_of(&self, role: &str) -> bool {
        self.role.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(role))
    }

    fn text(&self) -> Option<String> {
        [self.parts, self.content].into_iter().flatten().find_map(text_of)
    }

    fn finish_reason(&self) -> Option<String> {
        let reason = scalar(self.finish_reason?)?;
        (!reason.is_empty()).then(|| reason.into_owned())
    }

    fn tool_calls(&self, calls: &mut Vec<ToolCall>) {
        if let Some(list) = self.tool_calls {
            tool_calls(list, calls);
        }
        for list in [self.parts, self.content].into_iter().flatten() {
            each_element(list, |part| {
                let mut is_call = false;
                each_field(part, |name, value| {
                    is_call |= name == "type" && matches!(value, "\"tool_call\"" | "\"tool-call\"" | "\"tool_use\"");
                });
                if is_call && calls.len() < TOOL_CALLS_MAX {
                    calls.extend(tool_call(part));
                }
            });
        }
    }
}

/// Calls `each` with every message of a list, of `{messages: [..]}`, of a list of lists (LangChain), or with the one message.
fn each_message<'a>(json: &'a str, each: &mut dyn FnMut(&Message<'a>)) {
    if json.trim_start().starts_with('[') {
        each_element(json, |element| {
            if element.starts_with('[') {
                each_element(element, |inner| each(&Message::read(inner)));
            } else {
                each(&Message::read(element));
            }
        });
        return;
    }
    let mut inner = None;
    each_field(json, |name, value| {
        if name == "messages" {
            inner = Some(value);
        }
    });
    match inner {
        Some(list) => each_element(list, |element| each(&Message::read(element))),
        None => each(&Message::read(json)),
    }
}

/// The text in a message's content: text, or the texts among its parts, each on a line of its own.
pub(super) fn text_of(content: &str) -> Option<String> {
    if let Some(text) = scalar(content) {
        return Some(text.into_owned()).filter(|text| !text.is_empty());
    }
    let mut texts = String::new();
    each_element(content, |part| {
        if texts.len() < Text::Input.bytes_max() {
            let text = if part.starts_with('"') { scalar(part).map(|text| text.into_owned()) } else { part_text(part) };
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                if !texts.is_empty() {
                    texts.push('\n');
                }
                texts.push_str(&text);
            }
        }
    });
    (!texts.is_empty()).then_some(texts)
}

/// The text of one part; none for images, tool calls, reasoning and the like.
fn part_text(part: &str) -> Option<String> {
    let (mut kind, mut text) = (None, None);
    each_field(part, |name, value| match name {
        "type" => kind = scalar(value),
        "text" | "content" if text.is_none() => text = scalar(value),
        _ => {}
    });
    let is_text = kind.is_none_or(|kind| matches!(&*kind, "text" | "input_text" | "output_text"));
    text.filter(|_| is_text).map(|text| text.into_owned())
}

/// A tool call as OpenTelemetry, OpenAI, Anthropic or Vercel write it.
fn tool_call(json: &str) -> Option<ToolCall> {
    let mut call = ToolCall::default();
    let mut function = None;
    each_field(json, |name, value| match name {
        "name" | "toolName" | "tool_name" => call.name = scalar(value).unwrap_or_default().into_owned(),
        "arguments" | "args" | "input" => call.arguments = arguments(value),
        "function" => function = Some(value),
        _ => {}
    });
    if let Some(function) = function {
        each_field(function, |name, value| match name {
            "name" => call.name = scalar(value).unwrap_or_default().into_owned(),
            "arguments" => call.arguments = arguments(value),
            _ => {}
        });
    }
    (!call.name.is_empty()).then_some(call)
}

/// Arguments come as JSON, or as JSON inside a text.
fn arguments(json: &str) -> String {
    if json.starts_with('"') { scalar(json).unwrap_or_default().into_owned() } else { json.to_owned() }
}
