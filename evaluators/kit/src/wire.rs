//! The contract in the plugins' protobuf: what is sent to a plugin, what its answers mean.
//!
//! Promise: what came over the wire is checked before it is believed ([`Outcome::checked`]): a score that is not finite, out of the declared
//! range, without number and label, or with an unknown direction is the failure `plugin_fault`, and so is an outcome with neither scores
//! nor an error. Bounded: messages, explanations and metadata are cut or refused.
//! Not here: streams, deadlines, processes (hosts).
//! Kept by: `tests/it/wire.rs`.

use std::borrow::Cow;
use std::time::Duration;

use emberd_proto::evaluator::v1 as proto;
use serde_json::{Map, Value};

use crate::contract::{
    Class, Cost, Description, Direction, Failure, Field, Key, Kind, Limits, Outcome, Output, Range, Score, cut,
};
use crate::example::Example;
use crate::fields::Mapping;

/// The version of the contract that emberd speaks.
pub const CONTRACT: u32 = 1;
/// A score's metadata, as JSON.
const METADATA_BYTES_MAX: usize = 64 << 10;
const NAME_BYTES_MAX: usize = 256;
const COUNT_MAX: usize = 256;

/// A description that cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("description of {evaluator:?}: {what}")]
pub struct DescriptionError {
    /// The evaluator.
    pub evaluator: String,
    /// What is wrong.
    pub what: String,
}

/// An example for a plugin: its fields where the plugin described some, else the whole.
///
/// # Errors
/// [`Class::MissingField`], before anything is sent.
pub fn example(
    id: u64,
    description: &Description,
    mapping: &Mapping,
    example: &Example,
) -> Result<proto::Example, Failure> {
    let fields = mapping.of(example);
    fields.complete()?;
    let mut sent = proto::Example { id, ..proto::Example::default() };
    if description.fields.is_empty() {
        let whole = serde_json::to_string(example);
        sent.example_json = whole.map_err(|error| Failure::new(Class::InvalidField, error.to_string()))?;
    }
    for field in &description.fields {
        if let Some(value) = fields.optional(&field.name) {
            sent.fields_json.insert(field.name.to_string(), value.to_string());
        }
    }
    Ok(sent)
}

/// What a plugin says of one of its evaluators.
///
/// # Errors
/// No usable name, a kind or direction that is not known, a path that cannot be read.
pub fn description(sent: proto::Description) -> Result<Description, DescriptionError> {
    let evaluator = cut(sent.name.clone(), NAME_BYTES_MAX);
    let wrong = |what: String| DescriptionError { evaluator: evaluator.clone(), what };
    let is_name = |name: &str| {
        let of = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(of)
    };
    if !is_name(&sent.name) {
        return Err(wrong(format!("its name is not of letters, digits, _, - and ., at most {NAME_BYTES_MAX}")));
    }
    if sent.version.is_empty() || sent.version.len() > NAME_BYTES_MAX {
        return Err(wrong("it has no version, or one that is too long".into()));
    }
    if [sent.fields.len(), sent.outputs.len(), sent.config.len()].into_iter().any(|count| count > COUNT_MAX) {
        return Err(wrong(format!("more than {COUNT_MAX} fields, outputs or keys")));
    }
    let kind = match sent.kind() {
        proto::Kind::Code => Kind::Code,
        proto::Kind::Llm => Kind::Llm,
        proto::Kind::Unspecified => return Err(wrong("its kind is not known".into())),
    };
    let limits = sent.limits.unwrap_or_default();
    let usual = Limits::default();
    let or = |value: u64, usual: u64| if value == 0 { usual } else { value.min(usual) };
    Ok(Description {
        version: sent.version,
        kind,
        summary: cut(sent.summary, 1 << 10),
        fields: sent.fields.into_iter().map(|sent| field(sent).map_err(wrong)).collect::<Result<_, _>>()?,
        outputs: sent.outputs.into_iter().map(|sent| output(sent).map_err(wrong)).collect::<Result<_, _>>()?,
        config: sent.config.into_iter().map(key).collect(),
        limits: Limits {
            batch_examples_max: or(limits.batch_examples_max.into(), usual.batch_examples_max.into()) as u32,
            field_bytes_max: or(limits.field_bytes_max, usual.field_bytes_max),
            concurrent_batches_max: or(limits.concurrent_batches_max.into(), usual.concurrent_batches_max.into())
                as u32,
        },
        name: sent.name,
    })
}

fn field(sent: proto::Field) -> Result<Field, String> {
    let paths = if sent.paths.is_empty() { vec![sent.name.clone()] } else { sent.paths };
    for path in &paths {
        crate::path::Path::parse(path).map_err(|error| format!("field {:?}: {error}", sent.name))?;
    }
    let paths = paths.into_iter().map(Cow::Owned).collect();
    Ok(Field { name: sent.name.into(), required: sent.required, summary: sent.summary.into(), paths })
}

fn output(sent: proto::Output) -> Result<Output, String> {
    let direction = direction(sent.direction).ok_or_else(|| format!("output {:?}: no direction", sent.name))?;
    if [sent.min, sent.max].into_iter().flatten().any(|end| !end.is_finite()) {
        return Err(format!("output {:?}: its range is not finite", sent.name));
    }
    let range = Range { min: sent.min, max: sent.max };
    Ok(Output { name: sent.name.into(), direction, range, labels: sent.labels.into_iter().map(Cow::Owned).collect() })
}

fn key(sent: proto::ConfigKey) -> Key {
    let default = sent.default_json.and_then(|json| serde_json::from_str(&json).ok());
    Key { name: sent.name.into(), summary: cut(sent.summary, 1 << 10).into(), default }
}

fn direction(sent: i32) -> Option<Direction> {
    match proto::Direction::try_from(sent).ok()? {
        proto::Direction::Maximize => Some(Direction::Maximize),
        proto::Direction::Minimize => Some(Direction::Minimize),
        proto::Direction::Neutral => Some(Direction::Neutral),
        proto::Direction::Unspecified => None,
    }
}

/// What a plugin answered for one example, checked against what it described.
pub fn outcome(sent: proto::Result, description: &Description) -> Outcome {
    let cost = sent.cost.map(|cost| Cost {
        prompt_tokens: cost.prompt_tokens,
        completion_tokens: cost.completion_tokens,
        usd: cost.usd.filter(|usd| usd.is_finite() && *usd >= 0.0),
        model: cut(cost.model, NAME_BYTES_MAX),
    });
    let result = match sent.outcome {
        Some(proto::result::Outcome::Scores(scores)) => scores_of(scores, description),
        Some(proto::result::Outcome::Error(error)) => Err(failure(error)),
        None => Err(fault("neither scores nor an error")),
    };
    Outcome { result, cost }.checked(description)
}

fn fault(what: impl Into<String>) -> Failure {
    Failure::new(Class::PluginFault, what)
}

fn failure(sent: proto::Error) -> Failure {
    let class = Class::from_name(&sent.class).unwrap_or(Class::PluginFault);
    let mut failure = Failure::new(class, sent.message);
    failure.retry_after = sent.retry_after_ms.map(Duration::from_millis);
    failure
}

fn scores_of(sent: proto::Scores, description: &Description) -> Result<Vec<Score>, Failure> {
    if sent.scores.len() > COUNT_MAX {
        return Err(fault(format!("{} scores, at most {COUNT_MAX}", sent.scores.len())));
    }
    sent.scores.into_iter().map(|sent| score(sent, description)).collect()
}

fn score(sent: proto::Score, description: &Description) -> Result<Score, Failure> {
    if sent.name.is_empty() || sent.name.len() > NAME_BYTES_MAX {
        return Err(fault("a score without a name, or with one that is too long"));
    }
    // The description is what alerts and charts know: a score may leave the direction to it, and not contradict it.
    let declared = description.outputs.iter().find(|output| output.name == sent.name).map(|output| output.direction);
    let direction = match (direction(sent.direction), declared) {
        (Some(said), Some(declared)) if said != declared => {
            return Err(fault("a score with another direction than declared"));
        }
        (said, declared) => said.or(declared).ok_or_else(|| fault("a score without a direction"))?,
    };
    if sent.metadata_json.len() > METADATA_BYTES_MAX {
        return Err(fault("metadata that is too long"));
    }
    let metadata = match sent.metadata_json.as_str() {
        "" => Map::new(),
        json => match serde_json::from_str(json) {
            Ok(Value::Object(metadata)) => metadata,
            _ => return Err(fault("metadata that is not a JSON object")),
        },
    };
    let label = sent.label.map(|label| Cow::Owned(cut(label, NAME_BYTES_MAX)));
    let score = Score { name: sent.name.into(), value: sent.score, label, explanation: None, direction, metadata };
    Ok(match sent.explanation {
        Some(explanation) => score.because(explanation),
        None => score,
    })
}
