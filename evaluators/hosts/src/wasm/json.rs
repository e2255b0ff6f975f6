//! The contract as JSON, for modules: the protobuf's own words, with `scores` and `error` side by side.
//!
//! Promise: what is read is as deep as serde_json allows (128) and as long as a message may be; what is wrong is an error, in one sentence.

use std::collections::BTreeMap;

use emberd_proto::evaluator::v1 as pb;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

#[derive(Serialize)]
struct Request<'a> {
    evaluator: &'a str,
    config: &'a RawValue,
    examples: Vec<Example<'a>>,
}

#[derive(Serialize)]
struct Example<'a> {
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<BTreeMap<&'a str, &'a RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    example: Option<&'a RawValue>,
}

/// A request as a module reads it.
pub(crate) fn request(request: &pb::EvaluateRequest) -> Result<String, String> {
    let raw = |text: &'_ str| {
        serde_json::from_str::<&RawValue>(text).map_err(|error| error.to_string()).map(ToOwned::to_owned)
    };
    let config = raw(&request.config_json)?;
    let mut held = Vec::with_capacity(request.examples.len());
    for example in &request.examples {
        let fields = example.fields_json.iter().map(|(name, text)| Ok((name.as_str(), raw(text)?)));
        let fields = fields.collect::<Result<BTreeMap<&str, Box<RawValue>>, String>>()?;
        let whole = if example.example_json.is_empty() { None } else { Some(raw(&example.example_json)?) };
        held.push((example.id, fields, whole));
    }
    let examples = held.iter().map(|(id, fields, whole)| Example {
        id: *id,
        fields: whole.is_none().then(|| fields.iter().map(|(name, value)| (*name, &**value)).collect()),
        example: whole.as_deref(),
    });
    let request = Request { evaluator: &request.evaluator, config: &config, examples: examples.collect() };
    serde_json::to_string(&request).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
struct Described {
    contract: u32,
    plugin: String,
    evaluators: Vec<Evaluator>,
}

#[derive(Deserialize)]
struct Evaluator {
    name: String,
    version: String,
    kind: String,
    #[serde(default)]
    summary: String,
    #[serde(default)]
    fields: Vec<Field>,
    outputs: Vec<Output>,
    #[serde(default)]
    config: Vec<Key>,
    #[serde(default)]
    batch_examples_max: u32,
    #[serde(default)]
    field_bytes_max: u64,
    #[serde(default)]
    concurrent_batches_max: u32,
}

#[derive(Deserialize)]
struct Field {
    name: String,
    #[serde(default)]
    required: bool,
    #[serde(default)]
    summary: String,
    #[serde(default)]
    paths: Vec<String>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    direction: String,
    min: Option<f64>,
    max: Option<f64>,
    #[serde(default)]
    labels: Vec<String>,
}

#[derive(Deserialize)]
struct Key {
    name: String,
    #[serde(default)]
    summary: String,
    default: Option<Value>,
}

/// A module's description.
pub(crate) fn description(bytes: &[u8]) -> Result<pb::DescribeResponse, String> {
    let told: Described = serde_json::from_slice(bytes).map_err(|error| format!("its description: {error}"))?;
    let evaluators = told.evaluators.into_iter().map(evaluator).collect::<Result<_, _>>()?;
    Ok(pb::DescribeResponse { contract: told.contract, plugin: told.plugin, evaluators })
}

fn evaluator(told: Evaluator) -> Result<pb::Description, String> {
    let kind = match told.kind.as_str() {
        "code" => pb::Kind::Code,
        "llm" => pb::Kind::Llm,
        _ => pb::Kind::Unspecified,
    };
    let field = |Field { name, required, summary, paths }| pb::Field { name, required, summary, paths };
    let output = |told: Output| {
        let direction = direction(&told.direction)?.into();
        Ok(pb::Output { name: told.name, direction, min: told.min, max: told.max, labels: told.labels })
    };
    let key = |told: Key| pb::ConfigKey {
        name: told.name,
        summary: told.summary,
        default_json: told.default.map(|default| default.to_string()),
    };
    Ok(pb::Description {
        name: told.name,
        version: told.version,
        kind: kind.into(),
        summary: told.summary,
        fields: told.fields.into_iter().map(field).collect(),
        outputs: told.outputs.into_iter().map(output).collect::<Result<_, String>>()?,
        config: told.config.into_iter().map(key).collect(),
        limits: Some(pb::Limits {
            batch_examples_max: told.batch_examples_max,
            field_bytes_max: told.field_bytes_max,
            concurrent_batches_max: told.concurrent_batches_max,
        }),
    })
}

fn direction(told: &str) -> Result<pb::Direction, String> {
    match told {
        "" => Ok(pb::Direction::Unspecified),
        "maximize" => Ok(pb::Direction::Maximize),
        "minimize" => Ok(pb::Direction::Minimize),
        "neutral" => Ok(pb::Direction::Neutral),
        _ => Err("a direction is maximize, minimize or neutral".into()),
    }
}

#[derive(Deserialize)]
struct Response {
    results: Vec<Judged>,
}

#[derive(Deserialize)]
struct Judged {
    id: u64,
    scores: Option<Vec<Score>>,
    error: Option<Error>,
}

#[derive(Deserialize)]
struct Score {
    #[serde(default)]
    name: String,
    score: Option<f64>,
    label: Option<String>,
    explanation: Option<String>,
    #[serde(default)]
    direction: String,
    metadata: Option<Value>,
}

#[derive(Deserialize)]
struct Error {
    #[serde(default)]
    class: String,
    #[serde(default)]
    message: String,
}

/// A module's answer.
pub(crate) fn response(bytes: &[u8]) -> Result<pb::EvaluateResponse, String> {
    let told: Response = serde_json::from_slice(bytes).map_err(|error| format!("its answer: {error}"))?;
    let results = told.results.into_iter().map(judged).collect::<Result<_, _>>()?;
    Ok(pb::EvaluateResponse { results })
}

fn judged(told: Judged) -> Result<pb::Result, String> {
    let outcome = match (told.scores, told.error) {
        (Some(scores), None) => {
            let scores = scores.into_iter().map(score).collect::<Result<_, _>>()?;
            Some(pb::result::Outcome::Scores(pb::Scores { scores }))
        }
        (None, Some(Error { class, message })) => {
            Some(pb::result::Outcome::Error(pb::Error { class, message, retry_after_ms: None }))
        }
        // Both, or neither: the ledger says what that is.
        _ => None,
    };
    Ok(pb::Result { id: told.id, cost: None, outcome })
}

fn score(told: Score) -> Result<pb::Score, String> {
    Ok(pb::Score {
        name: told.name,
        score: told.score,
        label: told.label,
        explanation: told.explanation,
        direction: direction(&told.direction)?.into(),
        metadata_json: told.metadata.map(|metadata| metadata.to_string()).unwrap_or_default(),
    })
}
