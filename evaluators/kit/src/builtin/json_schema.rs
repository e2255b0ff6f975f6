//! The output, read as JSON, is valid under a JSON Schema (drafts 4 to 2020-12, by `$schema`; 2020-12 without it).
//!
//! The schema stands in the configuration and is compiled once. References to files and URLs are refused, patterns are linear and
//! bounded. Text that is no JSON is not valid: a score of 0, not an error. Explanations name places, not values.

use jsonschema::{PatternOptions, Validator};
use serde::Deserialize;
use serde_json::Value;

use super::json_valid::parsed;
use super::{Entry, OUTPUT, PASS_FAIL, true_false, zero_one};
use crate::contract::{Direction, Failure, Score};
use crate::evaluator::Code;
use crate::fields::Fields;
use crate::spec::{ConfigError, read};

pub(super) const ENTRY: Entry = Entry {
    name: "json_schema",
    aliases: &[],
    version: "1",
    summary: "The output is valid under a JSON Schema.",
    fields: &[OUTPUT],
    output: PASS_FAIL,
    config: &[("schema", "", "The schema, of at most 256 KiB.")],
    build: |config, _| {
        let config: Config = read(config)?;
        Ok(Box::new(JsonSchema { schema: compile("schema", &config.schema)? }))
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    schema: Value,
}

struct JsonSchema {
    schema: Validator,
}

const SCHEMA_BYTES_MAX: usize = 256 << 10;
const ERRORS_NAMED_MAX: usize = 5;

/// A validator, or what is wrong with the schema under this key.
pub(super) fn compile(key: &str, schema: &Value) -> Result<Validator, ConfigError> {
    if schema.to_string().len() > SCHEMA_BYTES_MAX {
        return Err(ConfigError::new(format!("{key}: longer than {SCHEMA_BYTES_MAX} bytes")));
    }
    jsonschema::options()
        .with_pattern_options(PatternOptions::regex().size_limit(1 << 20).dfa_size_limit(4 << 20))
        .build(schema)
        .map_err(|error| ConfigError::new(format!("{key}: {}", error.masked())))
}

/// What does not fit, without the values themselves; `None` when all does.
pub(super) fn violations(schema: &Validator, value: &Value) -> Option<String> {
    let mut errors = schema.iter_errors(value);
    let mut named: Vec<String> = Vec::new();
    for error in errors.by_ref().take(ERRORS_NAMED_MAX) {
        let place = error.instance_path().to_string();
        named.push(format!("{}: {}", if place.is_empty() { "/" } else { &place }, error.masked()));
    }
    if named.is_empty() {
        return None;
    }
    if errors.next().is_some() {
        named.push("and more".into());
    }
    Some(named.join("; "))
}

impl Code for JsonSchema {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let wrong = match parsed(fields, "output")? {
            Ok(value) if self.schema.is_valid(&value) => None,
            Ok(value) => Some(violations(&self.schema, &value).unwrap_or_default()),
            Err(why) => Some(format!("not JSON: {why}")),
        };
        let passed = wrong.is_none();
        let score = Score::number(ENTRY.name, zero_one(passed), Direction::Maximize).label(true_false(passed));
        Ok(vec![match wrong {
            Some(wrong) => score.because(wrong),
            None => score,
        }])
    }
}
