//! Where a field is found in an example: the paths of a mapping.
//!
//! Promise: `parse` accepts what is documented here and says what is wrong with the rest; `find` borrows where it can, never panics, and
//! takes null for absent. A path is read once, when a job starts.
//!
//! | path | what it finds |
//! |---|---|
//! | `/metadata/x`, `/input/messages/0` | a JSON pointer (RFC 6901) into {input, output, reference, context, messages, metadata} |
//! | `input`, `output`, `metadata`, ... | the same without the slash, the whole value |
//! | `root.input` | a property of the trace's root span |
//! | `first(LLM).input`, `last(LLM).output` | a property of the first or last span of a kind to begin |
//! | `all(TOOL).name` | that property of each span of a kind that has it, as a list |
//! | `last(LLM).attributes/llm.model_name` | a pointer after any property |
//!
//! Properties: input, output, name, kind, status, error, duration_ms, attributes; and, out of the attributes of OpenInference and
//! OpenTelemetry: model, finish_reason, prompt_tokens, completion_tokens, total_tokens, cost_usd, tool_call.
//!
//! Kept by: `tests/it/mapping.rs`.

use std::borrow::Cow;
use std::fmt;

use serde_json::{Value, json};

use crate::example::{Example, Span};

/// A path into an example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    text: String,
    base: Base,
    /// A JSON pointer from there; empty is the whole value.
    pointer: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Base {
    Part(Part),
    Span(Which, Property),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Input,
    Output,
    Reference,
    Context,
    Messages,
    Metadata,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Which {
    Root,
    First(String),
    Last(String),
    All(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Property {
    Input,
    Output,
    Name,
    Kind,
    Status,
    Error,
    DurationMs,
    Attributes,
    Model,
    FinishReason,
    PromptTokens,
    CompletionTokens,
    TotalTokens,
    CostUsd,
    ToolCall,
}

/// A path that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("path {path:?}: {what}")]
pub struct PathError {
    /// The path.
    pub path: String,
    /// What is wrong with it.
    pub what: String,
}

const PATH_BYTES_MAX: usize = 512;

impl Path {
    /// Reads a path.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        let wrong = |what: String| PathError { path: crate::contract::cut(text.to_owned(), PATH_BYTES_MAX), what };
        if text.len() > PATH_BYTES_MAX {
            return Err(wrong(format!("longer than {PATH_BYTES_MAX} bytes")));
        }
        let bare = text.strip_prefix('/').unwrap_or(text);
        let (head, pointer) = bare.find('/').map_or((bare, ""), |slash| bare.split_at(slash));
        if pointer.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
            return Err(wrong("in a JSON pointer, ~ is written ~0 and / inside a key ~1".into()));
        }
        let base = match Part::named(head) {
            Some(part) => Base::Part(part),
            None if text.starts_with('/') => {
                return Err(wrong(format!("it begins with one of {}", Part::NAMES.join(", "))));
            }
            None => spans(head).map_err(wrong)?,
        };
        Ok(Self { text: text.to_owned(), base, pointer: pointer.to_owned() })
    }

    /// What lies there. Null is nothing.
    pub fn find<'a>(&self, example: &'a Example) -> Option<Cow<'a, Value>> {
        let found = match &self.base {
            Base::Part(Part::Metadata) if self.pointer.is_empty() => {
                Cow::Owned(Value::Object(example.metadata.clone()))
            }
            Base::Part(Part::Metadata) => Cow::Borrowed(pointed_in(&example.metadata, &self.pointer)?),
            Base::Part(part) => Cow::Borrowed(part.of(example).pointer(&self.pointer)?),
            Base::Span(which, property) => self.find_in_spans(example, which, *property)?,
        };
        (!found.is_null()).then_some(found)
    }

    fn find_in_spans<'a>(&self, example: &'a Example, which: &Which, property: Property) -> Option<Cow<'a, Value>> {
        let trace = example.trace.as_ref()?;
        let one = |span| property.of(span, &self.pointer).filter(|value| !value.is_null());
        match which {
            Which::Root => one(trace.root()?),
            Which::First(kind) => one(trace.first(kind)?),
            Which::Last(kind) => one(trace.last(kind)?),
            Which::All(kind) => {
                let all = trace.of_kind(kind).into_iter().filter_map(one).map(Cow::into_owned).collect();
                Some(Cow::Owned(Value::Array(all)))
            }
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// `root.X`, `first(KIND).X`, `last(KIND).X`, `all(KIND).X`.
fn spans(head: &str) -> Result<Base, String> {
    let expected = || {
        format!(
            "expected a JSON pointer, one of {}, root.X, first(KIND).X, last(KIND).X or all(KIND).X",
            Part::NAMES.join(", ")
        )
    };
    let (which, property) = head.rsplit_once('.').ok_or_else(expected)?;
    let which = if which == "root" {
        Which::Root
    } else {
        let (word, kind) = which.strip_suffix(')').and_then(|which| which.split_once('(')).ok_or_else(expected)?;
        if kind.is_empty() || !kind.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(format!("{kind:?} is not a span kind such as LLM or TOOL"));
        }
        match word {
            "first" => Which::First(kind.to_owned()),
            "last" => Which::Last(kind.to_owned()),
            "all" => Which::All(kind.to_owned()),
            _ => return Err(expected()),
        }
    };
    let property = Property::named(property).ok_or_else(|| {
        format!("{property:?} is not a property of a span: {}", Property::NAMES.map(|(name, _)| name).join(", "))
    })?;
    Ok(Base::Span(which, property))
}

/// `Value::pointer` for a map that is not inside of a value.
fn pointed_in<'a>(map: &'a serde_json::Map<String, Value>, pointer: &str) -> Option<&'a Value> {
    let pointer = pointer.strip_prefix('/')?;
    let (key, rest) = pointer.find('/').map_or((pointer, ""), |slash| pointer.split_at(slash));
    let key =
        if key.contains('~') { Cow::Owned(key.replace("~1", "/").replace("~0", "~")) } else { Cow::Borrowed(key) };
    map.get(&*key)?.pointer(rest)
}

impl Part {
    const NAMES: [&'static str; 6] = ["input", "output", "reference", "context", "messages", "metadata"];

    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "input" => Self::Input,
            "output" => Self::Output,
            "reference" => Self::Reference,
            "context" => Self::Context,
            "messages" => Self::Messages,
            "metadata" => Self::Metadata,
            _ => return None,
        })
    }

    fn of(self, example: &Example) -> &Value {
        match self {
            Self::Input => &example.input,
            Self::Output => &example.output,
            Self::Reference => &example.reference,
            Self::Context => &example.context,
            Self::Messages => &example.messages,
            Self::Metadata => &Value::Null,
        }
    }
}

impl Property {
    const NAMES: [(&'static str, Self); 15] = [
        ("input", Self::Input),
        ("output", Self::Output),
        ("name", Self::Name),
        ("kind", Self::Kind),
        ("status", Self::Status),
        ("error", Self::Error),
        ("duration_ms", Self::DurationMs),
        ("attributes", Self::Attributes),
        ("model", Self::Model),
        ("finish_reason", Self::FinishReason),
        ("prompt_tokens", Self::PromptTokens),
        ("completion_tokens", Self::CompletionTokens),
        ("total_tokens", Self::TotalTokens),
        ("cost_usd", Self::CostUsd),
        ("tool_call", Self::ToolCall),
    ];

    fn named(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, property)| property)
    }

    fn of<'a>(self, span: &'a Span, pointer: &str) -> Option<Cow<'a, Value>> {
        let attribute = |names: &[&str]| span.attribute(names)?.pointer(pointer).map(Cow::Borrowed);
        let made = |value: Value| pointer.is_empty().then_some(Cow::Owned(value));
        match self {
            Self::Input => span.input.pointer(pointer).map(Cow::Borrowed),
            Self::Output => span.output.pointer(pointer).map(Cow::Borrowed),
            Self::Name => made(json!(span.name)),
            Self::Kind => made(json!(span.kind)),
            Self::Status => made(json!(span.status)),
            Self::Error => made(json!(span.error)),
            Self::DurationMs => made(json!(span.duration_ms())),
            Self::Attributes if pointer.is_empty() => made(Value::Object(span.attributes.clone())),
            Self::Attributes => pointed_in(&span.attributes, pointer).map(Cow::Borrowed),
            Self::Model => attribute(&["gen_ai.response.model", "llm.model_name", "gen_ai.request.model"]),
            Self::FinishReason => match span.attribute(&["llm.finish_reason", "gen_ai.response.finish_reasons"])? {
                Value::Array(reasons) => reasons.last()?.pointer(pointer).map(Cow::Borrowed),
                reason => reason.pointer(pointer).map(Cow::Borrowed),
            },
            Self::PromptTokens => attribute(&["llm.token_count.prompt", "gen_ai.usage.input_tokens"]),
            Self::CompletionTokens => attribute(&["llm.token_count.completion", "gen_ai.usage.output_tokens"]),
            Self::TotalTokens => match span.attribute(&["llm.token_count.total"]) {
                Some(total) => total.pointer(pointer).map(Cow::Borrowed),
                None => made(json!(total_tokens(span)?)),
            },
            Self::CostUsd => attribute(&["llm.cost.total"]),
            Self::ToolCall => made(json!({"name": tool_name(span), "arguments": span.input})),
        }
    }
}

fn total_tokens(span: &Span) -> Option<u64> {
    let prompt = span.attribute(&["llm.token_count.prompt", "gen_ai.usage.input_tokens"])?.as_u64()?;
    let completion = span.attribute(&["llm.token_count.completion", "gen_ai.usage.output_tokens"])?.as_u64()?;
    prompt.checked_add(completion)
}

fn tool_name(span: &Span) -> &str {
    span.attribute(&["tool.name", "gen_ai.tool.name"]).and_then(Value::as_str).unwrap_or(&span.name)
}
