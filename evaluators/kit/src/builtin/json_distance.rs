//! How many places of two JSON values differ; Phoenix's server-side `json_distance`.
//!
//! d(a, b) = for objects: keys that only one has, plus d of those that both have; for lists: the difference in length, plus d of the
//! items by place; else 0 if equal, 1 if not. Values of different types differ by 1; whole and decimal numbers are two types, as there.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use super::json_valid::parsed;
use super::{Entry, OUTPUT, REFERENCE};
use crate::contract::{Direction, Failure, Range, Score};
use crate::evaluator::Code;
use crate::fields::Fields;
use crate::spec::read;

pub(super) const ENTRY: Entry = Entry {
    name: "json_distance",
    aliases: &[],
    version: "1",
    summary: "In how many places two JSON values differ.",
    fields: &[OUTPUT, REFERENCE],
    output: (Direction::Minimize, Range::COUNT, &[]),
    config: &[("parse_strings", "true", "Texts are read as JSON first; one that is none is an error.")],
    build: |config, _| Ok(Box::new(read::<JsonDistance>(config)?)),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct JsonDistance {
    parse_strings: bool,
}

impl Default for JsonDistance {
    fn default() -> Self {
        Self { parse_strings: true }
    }
}

impl Code for JsonDistance {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let read = |name: &str| -> Result<Cow<'_, Value>, Failure> {
            if !self.parse_strings {
                return fields.value(name);
            }
            parsed(fields, name)?.map_err(|why| Failure::invalid(name, format!("JSON: {why}")))
        };
        let (reference, output) = (read("reference")?, read("output")?);
        let differences = distance(&reference, &output);
        Ok(vec![Score::number(ENTRY.name, differences as f64, Direction::Minimize)])
    }
}

fn distance(a: &Value, b: &Value) -> u64 {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let only_in_b = b.keys().filter(|key| !a.contains_key(*key)).count() as u64;
            let of_a = a.iter().map(|(key, value)| b.get(key).map_or(1, |other| distance(value, other)));
            only_in_b + of_a.sum::<u64>()
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len().abs_diff(b.len()) as u64 + a.iter().zip(b).map(|(a, b)| distance(a, b)).sum::<u64>()
        }
        // serde_json takes 1 and 1.0 for two numbers, as Python takes them for two types.
        (a, b) => u64::from(a != b),
    }
}
