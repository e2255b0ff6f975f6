//! What a caller asks for: JSON in, a typed request out, or all that is wrong with it.
//!
//! ```json
//! {"promptId": "...", "datasetId": "...", "name": "nightly", "description": "...",
//!  "config": {"model": "gpt-4o-mini", "temperature": 0, "maxTokens": 512, "judgeModel": "gpt-4o", "budget": 2.5, "concurrency": 8,
//!             "evaluators": ["exact_match", {"name": "regex", "config": {"pattern": "[0-9]+"}}]}}
//! ```
//!
//! `traces: {limit, from?, to?, status?, sessionId?}` stands in place of `datasetId` where past traces of the prompt are judged.
//! Without `model`, or with `"recorded"`, the examples' own outputs are judged.
//!
//! Promise: each fault names its place as `config.evaluators[1].config.pattern`; unknown keys are faults; nothing is looked up here.

use std::fmt;

use emberd_evaluators_kit::Spec;
use emberd_store::Moment;
use emberd_store::jobs::Money;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

/// Evaluators of one job.
pub const EVALUATORS_MAX: usize = 64;
/// Traces of one job.
pub const TRACES_MAX: u64 = 1_000_000;
const NAME_CHARS_MAX: usize = 255;
const DESCRIPTION_CHARS_MAX: usize = 10_000;
/// The most tokens that an answer may be asked to have.
const TOKENS_MAX: u64 = 1_000_000;
/// Dollars.
const BUDGET_MAX: i64 = 1_000_000;
const CONCURRENCY_MAX: u64 = 1_000;

/// Something is wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Where, as in `config.evaluators[1].config.pattern`.
    pub path: String,
    /// What.
    pub message: String,
}

impl Fault {
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.path, self.message)
    }
}

/// Where a job's examples come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A row of `evaluation_datasets`.
    Dataset {
        /// Which.
        id: Uuid,
    },
    /// Traces that were recorded for the prompt.
    Traces(Traces),
}

/// Which traces; newest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Traces {
    /// So many at most.
    pub limit: u64,
    /// Begun at or after; microseconds since 1970.
    pub from: Option<i64>,
    /// Begun before; microseconds since 1970.
    pub to: Option<i64>,
    /// success, error or timeout.
    pub status: Option<String>,
    /// Of this session.
    pub session: Option<Uuid>,
}

/// A request whose form is right.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Whose evaluation it is.
    pub prompt: Uuid,
    /// What it runs on.
    pub source: Source,
    /// 1 to 255 characters.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The model that runs the prompt; none where recorded outputs are judged.
    pub model: Option<String>,
    /// Of the run, 0 to 2.
    pub temperature: Option<f64>,
    /// The longest answer of the run.
    pub max_tokens: Option<u32>,
    /// The model that judges.
    pub judge_model: Option<String>,
    /// The most that may be spent.
    pub budget: Option<Money>,
    /// Calls of models at the same time, in each emberd.
    pub concurrency: Option<u32>,
    /// What judges.
    pub evaluators: Vec<Spec>,
    /// `config` as it was given.
    pub config: Value,
}

impl Request {
    /// Reads a request.
    ///
    /// # Errors
    /// All faults of its form.
    pub fn parse(value: &Value) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        let Some(body) = value.as_object() else {
            return Err(vec![Fault::new("", "a JSON object")]);
        };
        let mut top = Part { path: "", of: body, faults: &mut faults };
        top.only(&["promptId", "datasetId", "traces", "name", "description", "config"]);
        let prompt = top.required("promptId", "a UUID", uuid);
        let name = top.required("name", "1 to 255 characters", |value| text(value, NAME_CHARS_MAX));
        let description = top
            .optional("description", "a text of at most 10000 characters", |value| text(value, DESCRIPTION_CHARS_MAX));
        let source = source(&mut top);
        let empty = Map::new();
        let config = top.required("config", "an object", Value::as_object).unwrap_or(&empty);
        let has_config = body.get("config").is_some_and(Value::is_object);
        let mut part = Part { path: "config.", of: config, faults: &mut faults };
        part.only(&["model", "temperature", "maxTokens", "judgeModel", "budget", "concurrency", "evaluators"]);
        let model = part.optional("model", MODEL, model).filter(|model| model != "recorded");
        let temperature = part.optional("temperature", "a number from 0 to 2", |value| {
            value.as_f64().filter(|value| (0.0..=2.0).contains(value))
        });
        let max_tokens =
            part.optional("maxTokens", "a whole number over 0, at most 1000000", |value| whole(value, TOKENS_MAX));
        let judge_model = part.optional("judgeModel", MODEL, model_name);
        let budget = part.optional("budget", "dollars, from 0 to 1000000", money);
        let concurrency =
            part.optional("concurrency", "a whole number from 1 to 1000", |value| whole(value, CONCURRENCY_MAX));
        let evaluators = if has_config { evaluators(&mut part) } else { Vec::new() };
        match (prompt, name, source) {
            (Some(prompt), Some(name), Some(source)) if faults.is_empty() => Ok(Self {
                prompt,
                source,
                name,
                description,
                model,
                temperature,
                max_tokens,
                judge_model,
                budget,
                concurrency,
                evaluators,
                config: Value::Object(config.clone()),
            }),
            _ => Err(faults),
        }
    }
}

const MODEL: &str = "a model's name, 1 to 200 characters";

/// An object of the request, with where it stands.
struct Part<'a, 'f> {
    path: &'static str,
    of: &'a Map<String, Value>,
    faults: &'f mut Vec<Fault>,
}

impl<'a> Part<'a, '_> {
    fn wrong(&mut self, key: &str, message: impl Into<String>) {
        self.faults.push(Fault::new(format!("{}{key}", self.path), message));
    }

    fn only(&mut self, known: &[&str]) {
        for key in self.of.keys().filter(|key| !known.contains(&key.as_str())) {
            let key: String = key.chars().take(100).collect();
            self.wrong(&key, format!("unknown key; there are {}", known.join(", ")));
        }
    }

    fn optional<T>(&mut self, key: &str, wanted: &str, read: impl Fn(&'a Value) -> Option<T>) -> Option<T> {
        let value = self.of.get(key).filter(|value| !value.is_null())?;
        let read = read(value);
        if read.is_none() {
            self.wrong(key, format!("expected {wanted}"));
        }
        read
    }

    fn required<T>(&mut self, key: &str, wanted: &str, read: impl Fn(&'a Value) -> Option<T>) -> Option<T> {
        if self.of.get(key).is_none_or(Value::is_null) {
            self.wrong(key, format!("missing: {wanted}"));
            return None;
        }
        self.optional(key, wanted, read)
    }
}

fn source(top: &mut Part<'_, '_>) -> Option<Source> {
    let given = |key: &str| top.of.get(key).is_some_and(|value| !value.is_null());
    match (given("datasetId"), given("traces")) {
        (true, false) => top.optional("datasetId", "a UUID", uuid).map(|id| Source::Dataset { id }),
        (false, true) => {
            let of = top.optional("traces", "an object", Value::as_object)?;
            let mut part = Part { path: "traces.", of, faults: &mut *top.faults };
            let before = part.faults.len();
            part.only(&["limit", "from", "to", "status", "sessionId"]);
            let limit = part.required("limit", "a whole number from 1 to 1000000", |value| whole(value, TRACES_MAX));
            let from = part.optional("from", "a time like 2026-11-21T02:15:41Z", moment);
            let to = part.optional("to", "a time like 2026-11-21T02:15:41Z", moment);
            let status = part.optional("status", "success, error or timeout", |value| {
                value.as_str().filter(|word| ["success", "error", "timeout"].contains(word)).map(str::to_owned)
            });
            let session = part.optional("sessionId", "a UUID", uuid);
            if let (Some(from), Some(to)) = (from, to)
                && from >= to
            {
                part.wrong("to", "later than from");
            }
            let is_right = part.faults.len() == before;
            limit
                .filter(|_| is_right)
                .map(|limit: u32| Source::Traces(Traces { limit: limit.into(), from, to, status, session }))
        }
        (true, true) => {
            top.wrong("traces", "either datasetId or traces, not both");
            None
        }
        (false, false) => {
            top.wrong("datasetId", "missing: a UUID, or traces in its place");
            None
        }
    }
}

fn evaluators(part: &mut Part<'_, '_>) -> Vec<Spec> {
    let wanted = "a list of evaluators";
    let Some(list) = part.required("evaluators", wanted, Value::as_array) else { return Vec::new() };
    if list.is_empty() || list.len() > EVALUATORS_MAX {
        part.wrong("evaluators", format!("between 1 and {EVALUATORS_MAX} evaluators"));
        return Vec::new();
    }
    let mut specs = Vec::with_capacity(list.len());
    for (at, value) in list.iter().enumerate() {
        match Spec::deserialize(value) {
            Ok(spec) => specs.push(spec),
            Err(error) => part.wrong(&format!("evaluators[{at}]"), error.to_string()),
        }
    }
    specs
}

fn uuid(value: &Value) -> Option<Uuid> {
    value.as_str().and_then(|text| Uuid::try_parse(text).ok())
}

fn text(value: &Value, chars_max: usize) -> Option<String> {
    let text = value.as_str().filter(|text| !text.trim().is_empty() && text.chars().count() <= chars_max)?;
    Some(text.to_owned())
}

fn model_name(value: &Value) -> Option<String> {
    value
        .as_str()
        .filter(|name| (1..=200).contains(&name.trim().len()) && !name.contains(char::is_control))
        .map(str::to_owned)
}

fn model(value: &Value) -> Option<String> {
    model_name(value)
}

fn whole(value: &Value, max: u64) -> Option<u32> {
    value.as_u64().filter(|value| (1..=max).contains(value)).and_then(|value| u32::try_from(value).ok())
}

fn moment(value: &Value) -> Option<i64> {
    value.as_str().and_then(|text| text.parse::<Moment>().ok()).map(Moment::micros)
}

/// Dollars as nano-dollars; what is finer is cut off.
fn money(value: &Value) -> Option<Money> {
    let text = value.as_number()?.to_string();
    let dollars = text.parse::<Decimal>().or_else(|_| Decimal::from_scientific(&text)).ok()?;
    let within = !dollars.is_sign_negative() && dollars <= Decimal::from(BUDGET_MAX);
    dollars.checked_mul(Decimal::from(1_000_000_000)).filter(|_| within)?.trunc().to_i64().map(Money)
}
