//! The output is a JSON text (RFC 8259), the whole of it. A value that is JSON already is valid.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::{Entry, OUTPUT, PASS_FAIL, true_false, zero_one};
use crate::contract::{Class, Direction, Failure, Score};
use crate::evaluator::Code;
use crate::fields::Fields;
use crate::spec::read;

pub(super) const ENTRY: Entry = Entry {
    name: "json_valid",
    aliases: &["is_json"],
    version: "1",
    summary: "The output is a JSON text.",
    fields: &[OUTPUT],
    output: PASS_FAIL,
    config: &[("type", "\"any\"", "any, object or array: what the text must be.")],
    build: |config, _| Ok(Box::new(read::<JsonValid>(config)?)),
};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct JsonValid {
    r#type: Type,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Type {
    #[default]
    Any,
    Object,
    Array,
}

impl Code for JsonValid {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let value = fields.value("output")?;
        let verdict = match &*value {
            Value::String(_) => {
                let text = fields.text("output")?;
                let first = text.trim_start().bytes().next();
                self.fits(first == Some(b'{'), first == Some(b'[')).and_then(|()| check(&text))
            }
            other => self.fits(other.is_object(), other.is_array()),
        };
        let passed = verdict.is_ok();
        let score = Score::number(ENTRY.name, zero_one(passed), Direction::Maximize).label(true_false(passed));
        Ok(vec![match verdict {
            Ok(()) => score,
            Err(why) => score.because(why),
        }])
    }
}

impl JsonValid {
    fn fits(&self, is_object: bool, is_array: bool) -> Result<(), String> {
        match self.r#type {
            Type::Object if !is_object => Err("not an object".into()),
            Type::Array if !is_array => Err("not a list".into()),
            _ => Ok(()),
        }
    }
}

/// Skipping a value keeps no tree and does not recurse, so any depth can be told.
fn check(text: &str) -> Result<(), String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map(|_| ()).map_err(|error| error.to_string())
}

/// A field as JSON: a string is read as a JSON text, any other value is what it is.
///
/// `Ok(Err(why))` when the text is no JSON.
pub(super) fn parsed<'a>(fields: Fields<'a>, name: &str) -> Result<Result<Cow<'a, Value>, String>, Failure> {
    let value = fields.value(name)?;
    if !value.is_string() {
        return Ok(Ok(value));
    }
    match serde_json::from_str(&fields.text(name)?) {
        Ok(value) => Ok(Ok(Cow::Owned(value))),
        Err(error) if error.to_string().starts_with("recursion limit") => {
            Err(Failure::new(Class::TooLarge, format!("{name}: JSON that is nested deeper than 128")))
        }
        Err(error) => Ok(Err(error.to_string())),
    }
}
