//! The output's length lies between two bounds, both inclusive.

use serde::Deserialize;

use super::{Entry, OUTPUT, PASS_FAIL, true_false, zero_one};
use crate::contract::{Direction, Failure, Score};
use crate::evaluator::Code;
use crate::fields::Fields;
use crate::spec::{ConfigError, read};

pub(super) const ENTRY: Entry = Entry {
    name: "length_bounds",
    aliases: &["length"],
    version: "1",
    summary: "The output is neither too short nor too long.",
    fields: &[OUTPUT],
    output: PASS_FAIL,
    config: &[
        ("min", "null", "The least, in units. At least one of min and max."),
        ("max", "null", "The most, in units."),
        ("unit", "\"chars\"", "chars (Unicode characters), words (between white space), lines or bytes (UTF-8)."),
    ],
    build: |config, _| {
        let config: Length = read(config)?;
        match (config.min, config.max) {
            (None, None) => Err(ConfigError::new("min, max: at least one of them")),
            (Some(min), Some(max)) if min > max => Err(ConfigError::new("min: greater than max")),
            _ => Ok(Box::new(config)),
        }
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Length {
    min: Option<u64>,
    max: Option<u64>,
    #[serde(default)]
    unit: Unit,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unit {
    #[default]
    Chars,
    Words,
    Lines,
    Bytes,
}

impl Code for Length {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let output = fields.text("output")?;
        let length = match self.unit {
            Unit::Chars => output.chars().count(),
            Unit::Words => output.split_whitespace().count(),
            Unit::Lines => output.lines().count(),
            Unit::Bytes => output.len(),
        } as u64;
        let because = match (self.min, self.max) {
            (Some(min), _) if length < min => format!("{length}, at least {min}"),
            (_, Some(max)) if length > max => format!("{length}, at most {max}"),
            _ => String::new(),
        };
        let passed = because.is_empty();
        let score = Score::number(ENTRY.name, zero_one(passed), Direction::Maximize).label(true_false(passed));
        let score = score.with("length", length);
        Ok(vec![if passed { score } else { score.because(because) }])
    }
}
