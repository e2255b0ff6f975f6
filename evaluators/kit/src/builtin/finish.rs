//! The model stopped by itself: its finish reason is among those that are right. `length` and `content_filter` are not.

use serde::Deserialize;
use serde_json::Value;

use super::{Entry, PASS_FAIL, true_false, zero_one};
use crate::contract::{Direction, Failure, Score};
use crate::evaluator::Code;
use crate::fields::Fields;
use crate::spec::{ConfigError, read};

pub(super) const ENTRY: Entry = Entry {
    name: "finish_reason_ok",
    aliases: &["finish_reason"],
    version: "1",
    summary: "The model stopped by itself.",
    fields: &[(
        "finish_reason",
        true,
        "Why the model stopped; of a list, the last.",
        &["/metadata/finish_reason", "last(LLM).finish_reason"],
    )],
    output: PASS_FAIL,
    config: &[(
        "allowed",
        r#"["stop", "end_turn", "stop_sequence", "tool_calls", "tool_use", "function_call", "completed"]"#,
        "The reasons that are right, in any case.",
    )],
    build: |config, _| {
        let config: Finish = read(config)?;
        if config.allowed.is_empty() {
            return Err(ConfigError::new("allowed: at least one reason"));
        }
        Ok(Box::new(config))
    },
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Finish {
    allowed: Vec<String>,
}

impl Default for Finish {
    fn default() -> Self {
        let allowed = ["stop", "end_turn", "stop_sequence", "tool_calls", "tool_use", "function_call", "completed"];
        Self { allowed: allowed.map(str::to_owned).to_vec() }
    }
}

impl Code for Finish {
    fn score(&self, fields: Fields<'_>) -> Result<Vec<Score>, Failure> {
        let value = fields.value("finish_reason")?;
        let reason = match &*value {
            Value::Array(reasons) => reasons.last().and_then(Value::as_str),
            reason => reason.as_str(),
        };
        let reason = reason.ok_or_else(|| Failure::invalid("finish_reason", "a word"))?;
        let passed = self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(reason));
        let score = Score::number(ENTRY.name, zero_one(passed), Direction::Maximize).label(true_false(passed));
        let reason = crate::contract::cut(reason.to_owned(), 64);
        Ok(vec![score.because(format!("it stopped with {reason:?}"))])
    }
}
