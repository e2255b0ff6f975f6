//! From a chat completion to a verdict, or to a failure by class.
//!
//! Promise: the verdict is the value of `label` (or `score`) of the one JSON object that the message's whole content is. Text around it, a
//! second object, another or a missing key, a label that was not offered, a number out of range: `parse`, never a guess. A refusal is
//! `refusal`, an answer cut off at its limit `truncated`, one withheld `content_filter`. What was used up is told in each case.
//! Kept by: `tests/it/judge.rs` (every class), `tests/it/properties.rs` (no score out of text outside of the field).

use serde::Deserialize;
use serde_json::Value;

use super::template::Verdicts;
use crate::contract::{Class, Cost, Failure};

/// The longest answer that is read.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What an answer says.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) verdict: Result<Verdict, Failure>,
    pub(super) cost: Cost,
}

#[derive(Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) label: Option<String>,
    pub(super) value: Option<f64>,
    pub(super) explanation: String,
}

/// A chat completion: what is needed of it. Providers add keys of their own, so those are let pass.
#[derive(Deserialize)]
struct Completion {
    #[serde(default)]
    choices: Vec<Choice>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    content: Option<Value>,
    #[serde(default)]
    refusal: Option<Value>,
    #[serde(default)]
    tool_calls: Option<Value>,
}

#[derive(Deserialize, Default)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
    #[serde(default)]
    completion_tokens: Option<u64>,
}

/// The asked structure, and nothing else: unknown and repeated keys are errors.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Labelled {
    explanation: String,
    label: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scored {
    explanation: String,
    score: f64,
}

pub(super) fn read(body: &[u8], verdicts: &Verdicts) -> Answer {
    let fail = |failure| Answer { verdict: Err(failure), cost: Cost::default() };
    if body.len() > ANSWER_BYTES_MAX {
        return fail(Failure::too_large("bytes of the answer", body.len(), ANSWER_BYTES_MAX));
    }
    let completion: Completion = match serde_json::from_slice(body) {
        Ok(completion) => completion,
        Err(error) => return fail(parse(format!("the answer is no chat completion: {}", place(&error)))),
    };
    let usage = completion.usage.unwrap_or_default();
    let cost = Cost {
        prompt_tokens: usage.prompt_tokens.unwrap_or(0),
        completion_tokens: usage.completion_tokens.unwrap_or(0),
        usd: None,
        model: crate::contract::cut(completion.model.unwrap_or_default(), 256),
    };
    let verdict = match completion.choices.as_slice() {
        [choice] => content(choice).and_then(|content| structured(content, verdicts)),
        choices => Err(parse(format!("{} choices in the answer, not one", choices.len()))),
    };
    Answer { verdict, cost }
}

/// The content, if the model came to its end by itself.
fn content(choice: &Choice) -> Result<&str, Failure> {
    let is_there = |value: &Option<Value>| match value {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(_) => true,
    };
    // A finish reason says why there is no structure, so it goes first.
    match choice.finish_reason.as_deref() {
        Some("length" | "max_tokens" | "MAX_TOKENS") => {
            return Err(Failure::new(Class::Truncated, "the answer was cut off at its token limit"));
        }
        Some("content_filter" | "SAFETY") => {
            return Err(Failure::new(Class::ContentFilter, "the provider withheld the answer"));
        }
        _ => {}
    }
    if is_there(&choice.message.refusal) {
        return Err(Failure::new(Class::Refusal, "the model refused to judge"));
    }
    if is_there(&choice.message.tool_calls) {
        return Err(parse("the model called a tool, and has none".into()));
    }
    match &choice.message.content {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text),
        None | Some(Value::Null | Value::String(_)) => Err(parse("the answer has no content".into())),
        Some(_) => Err(parse("the answer's content is not a text".into())),
    }
}

fn structured(content: &str, verdicts: &Verdicts) -> Result<Verdict, Failure> {
    match verdicts {
        Verdicts::Choices(choices) => {
            let Labelled { explanation, label } = object(content)?;
            let choice = choices.iter().find(|choice| choice.label == label);
            let choice = choice.ok_or_else(|| parse("the label is none of the choices".into()))?;
            Ok(Verdict { label: Some(label), value: choice.score, explanation })
        }
        Verdicts::Scale(scale) => {
            let Scored { explanation, score } = object(content)?;
            if !(scale.min..=scale.max).contains(&score) {
                return Err(parse(format!("the score is not between {} and {}", scale.min, scale.max)));
            }
            Ok(Verdict { label: None, value: Some(score), explanation })
        }
    }
}

/// An object with exactly these keys. A struct would also be read from a list; the asked form is an object.
fn object<'a, T: Deserialize<'a>>(content: &'a str) -> Result<T, Failure> {
    if !content.trim_start().starts_with('{') {
        return Err(parse("the answer is not the asked JSON object".into()));
    }
    serde_json::from_str(content).map_err(|error| match error.classify() {
        serde_json::error::Category::Eof => Failure::new(Class::Truncated, "the answer's JSON breaks off"),
        _ => parse(format!("the answer is not the asked JSON object: {}", place(&error))),
    })
}

fn parse(what: String) -> Failure {
    Failure::new(Class::Parse, what)
}

/// The error without what the model wrote: a message must not carry judged text.
fn place(error: &serde_json::Error) -> String {
    let kind = match error.classify() {
        serde_json::error::Category::Data => "other keys or types",
        serde_json::error::Category::Eof => "it breaks off",
        _ => "not JSON",
    };
    format!("{kind}, line {} column {}", error.line(), error.column())
}
