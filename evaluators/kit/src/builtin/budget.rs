//! A run kept to its budget: of time, of money, of tokens. The measured value stands in the metadata.
//!
//! A list of numbers (the cost of each LLM span) is summed up; an empty one is a missing field, for what was not measured was not cheap.

use serde::Deserialize;
use serde_json::Value;

use super::{Entry, PASS_FAIL, true_false, zero_one};
use crate::contract::{Class, Direction, Failure, Score};
use crate::evaluator::Code;
use crate::fields::Fields;
use crate::spec::{ConfigError, read};

pub(super) const LATENCY: Entry = Entry {
    name: "latency_budget",
    aliases: &["latency"],
    version: "1",
    summary: "The run took no longer than allowed.",
    fields: &[("latency_ms", true, "Milliseconds.", &["/metadata/latency_ms", "root.duration_ms"])],
    output: PASS_FAIL,
    config: &[("max_ms", "", "The most, in milliseconds, inclusive.")],
    build: |config, _| {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Config {
            max_ms: f64,
        }
        within("latency_budget", "latency_ms", "max_ms", read::<Config>(config)?.max_ms)
    },
};

pub(super) const COST: Entry = Entry {
    name: "cost_budget",
    aliases: &["cost"],
    version: "1",
    summary: "The run cost no more than allowed.",
    fields: &[("cost_usd", true, "US dollars.", &["/metadata/cost_usd", "/metadata/cost", "all(LLM).cost_usd"])],
    output: PASS_FAIL,
    config: &[("max_usd", "", "The most, in US dollars, inclusive.")],
    build: |config, _| {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Config {
            max_usd: f64,
        }
        within("cost_budget", "cost_usd", "max_usd", read::<Config>(config)?.max_usd)
    },
};

pub(super) const TOKENS: Entry = Entry {
    name: "token_budget",
    aliases: &["tokens"],
    version: "1",
    summary: "The run took no more tokens than allowed.",
    fields: &[(
        "total_tokens",
        true,
        "Tokens, read and written.",
        &["/metadata/total_tokens", "/metadata/tokens/total", "all(LLM).total_tokens"],
    )],
    output: PASS_FAIL,
    config: &[("max_tokens", "", "The most, inclusive.")],
    build: |config, _| {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Config {
            max_tokens: f64,
        }
        within("token_budget", "total_tokens", "max_tokens", read::<Config>(config)?.max_tokens)
    },
};

struct Within {
    name: &'static str,
    field: &'static str,
    max: f64,
}

fn within(name: &'static str, field: &'static str, key: &str, max: f64) -> Result<Box<dyn Code>, ConfigError> {
    if !max.is_finite() || max < 0.0 {
        return Err(ConfigError::new(format!("{key}: 0 or more")));
    }
    Ok(Box::new(Within { name, field, max }))
}

impl Code for Within {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let value = fields.value(self.field)?;
        let spent = match &*value {
            Value::Array(parts) if parts.is_empty() => {
                return Err(Failure::new(
                    Class::MissingField,
                    format!("{} is missing: nothing was measured", self.field),
                ));
            }
            Value::Array(parts) => parts.iter().map(Value::as_f64).sum::<Option<f64>>(),
            _ => Some(fields.number(self.field)?),
        };
        let spent = spent
            .filter(|spent| spent.is_finite() && *spent >= 0.0)
            .ok_or_else(|| Failure::invalid(self.field, "a number of 0 or more"))?;
        let passed = spent <= self.max;
        let score = Score::number(self.name, zero_one(passed), Direction::Maximize).label(true_false(passed));
        let score = if passed { score } else { score.because(format!("{spent}, at most {}", self.max)) };
        Ok(vec![score.with(self.field, spent)])
    }
}
