//! Every tool call's arguments are valid under the tool's JSON Schema: valid calls / calls.
//!
//! A run without tool calls shows nothing: `undecided`, not 1. Schemas as in `json_schema`.

use std::collections::BTreeMap;

use jsonschema::Validator;
use serde::Deserialize;
use serde_json::Value;

use super::json_schema::{compile, violations};
use super::tools::{TOOL_CALLS, calls};
use super::{Entry, true_false};
use crate::contract::{Class, Direction, Failure, Range, Score};
use crate::evaluator::Code;
use crate::fields::Fields;
use crate::spec::{ConfigError, read};

pub(super) const ENTRY: Entry = Entry {
    name: "tool_args_schema",
    aliases: &[],
    version: "1",
    summary: "The arguments of tool calls are valid under the tools' schemas.",
    fields: &[TOOL_CALLS],
    output: (Direction::Maximize, Range::UNIT, super::TRUE_FALSE),
    config: &[
        ("schemas", "", "{tool: JSON Schema}, at most 256 tools."),
        ("unknown", "\"fail\"", "fail or ignore: what a call of a tool without a schema means."),
    ],
    build: |config, _| ToolArgs::built(read(config)?),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    schemas: BTreeMap<String, Value>,
    #[serde(default)]
    unknown: Unknown,
}

#[derive(Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unknown {
    #[default]
    Fail,
    Ignore,
}

struct ToolArgs {
    schemas: BTreeMap<String, Validator>,
    unknown: Unknown,
}

impl ToolArgs {
    fn built(config: Config) -> Result<Box<dyn Code>, ConfigError> {
        if config.schemas.is_empty() || config.schemas.len() > 256 {
            return Err(ConfigError::new("schemas: between 1 and 256 tools"));
        }
        let compiled = config.schemas.into_iter().map(|(tool, schema)| {
            let schema = compile(&format!("schemas.{tool}"), &schema)?;
            Ok((tool, schema))
        });
        Ok(Box::new(Self { schemas: compiled.collect::<Result<_, ConfigError>>()?, unknown: config.unknown }))
    }
}

impl Code for ToolArgs {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let value = fields.value("tool_calls")?;
        let mut checked = 0_u32;
        let mut wrong = Vec::new();
        for call in calls("tool_calls", &value)? {
            let Some(schema) = self.schemas.get(call.name) else {
                if self.unknown == Unknown::Fail {
                    checked += 1;
                    wrong.push(format!("{}: a tool without a schema", call.name));
                }
                continue;
            };
            checked += 1;
            if !schema.is_valid(&call.arguments) {
                wrong.push(format!("{}: {}", call.name, violations(schema, &call.arguments).unwrap_or_default()));
            }
        }
        if checked == 0 {
            return Err(Failure::new(Class::Undecided, "no tool call to check"));
        }
        let valid = f64::from(checked) - wrong.len() as f64;
        let score = Score::number(ENTRY.name, valid / f64::from(checked), Direction::Maximize);
        let score = score.label(true_false(wrong.is_empty()));
        Ok(vec![if wrong.is_empty() { score } else { score.because(wrong.join("\n")) }])
    }
}
