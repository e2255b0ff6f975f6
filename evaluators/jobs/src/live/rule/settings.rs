//! A rule's `config`: read, or all that is wrong with it.

use emberd_evaluators_kit::Spec;
use emberd_store::jobs::Money;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::filter::Filter;
use crate::request::{EVALUATORS_MAX, Fault};

/// Traces a second that a rule judges, where it does not say.
const RATE: f64 = 100.0;
const RATE_MAX: f64 = 10_000.0;
/// Dollars.
const BUDGET_MAX: i64 = 1_000_000;

/// What an annotation is put on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum On {
    /// The root span.
    #[default]
    Span,
    /// The trace.
    Trace,
    /// The session; the trace where it has none.
    Session,
}

/// A rule's `config`, read.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::live) struct Settings {
    pub(in crate::live) filter: Filter,
    pub(in crate::live) share: f64,
    pub(in crate::live) salt: String,
    pub(in crate::live) rate: f64,
    pub(in crate::live) on: On,
    pub(super) judge_model: Option<String>,
    pub(super) evaluators: Vec<Spec>,
}

/// Reads settings, and says all that is wrong with them. `name` is the salt where none is given.
pub(super) fn settings(config: &Value, name: &str, faults: &mut Vec<Fault>) -> Option<Settings> {
    let before = faults.len();
    let Some(config) = config.as_object() else {
        faults.push(Fault::new("config", "an object"));
        return None;
    };
    const KEYS: [&str; 7] = ["filter", "share", "salt", "tracesPerSecond", "annotate", "judgeModel", "evaluators"];
    unknown("config.", config, &KEYS, faults);
    let mut wrong = |key: &str, what: &str| faults.push(Fault::new(format!("config.{key}"), what));
    let given = |key: &str| config.get(key).filter(|value| !value.is_null());
    let number = |key: &str, or: f64| given(key).map_or(Some(or), Value::as_f64);
    let text = |key: &str| given(key).map(|value| value.as_str().filter(|text| !text.is_empty() && text.len() <= 200));
    let share = number("share", 1.0).filter(|share| (0.0..=1.0).contains(share));
    if share.is_none() {
        wrong("share", "a number from 0 to 1");
    }
    let rate = number("tracesPerSecond", RATE).filter(|rate| *rate > 0.0 && *rate <= RATE_MAX);
    if rate.is_none() {
        wrong("tracesPerSecond", "a number over 0, at most 10000");
    }
    let on = given("annotate").map_or(Ok(On::default()), On::deserialize);
    if on.is_err() {
        wrong("annotate", "span, trace or session");
    }
    let (salt, judge_model) = (text("salt"), text("judgeModel"));
    if salt == Some(None) {
        wrong("salt", "a text of 1 to 200 bytes");
    }
    if judge_model == Some(None) {
        wrong("judgeModel", "a model's name, 1 to 200 characters");
    }
    let filter = given("filter").map_or(Ok(Filter::default()), Filter::deserialize);
    let filter = filter.map_err(|error| faults.push(Fault::new("config.filter", error.to_string())));
    if let Ok(filter) = &filter {
        filter_faults(filter, faults);
    }
    let evaluators = evaluators(given("evaluators"), faults);
    if faults.len() > before {
        return None;
    }
    Some(Settings {
        filter: filter.ok()?,
        share: share?,
        salt: salt.flatten().unwrap_or(name).to_owned(),
        rate: rate?,
        on: on.ok()?,
        judge_model: judge_model.flatten().map(str::to_owned),
        evaluators,
    })
}

pub(super) fn unknown(path: &str, of: &Map<String, Value>, known: &[&str], faults: &mut Vec<Fault>) {
    for key in of.keys().filter(|key| !known.contains(&key.as_str())) {
        let key: String = key.chars().take(100).collect();
        faults.push(Fault::new(format!("{path}{key}"), format!("unknown key; there are {}", known.join(", "))));
    }
}

fn filter_faults(filter: &Filter, faults: &mut Vec<Fault>) {
    let words = ["success", "error", "timeout"];
    if filter.status.iter().any(|status| !words.contains(&status.as_str())) {
        faults.push(Fault::new("config.filter.status", "success, error or timeout"));
    }
    let is_bound = |bound: Option<f64>| bound.is_none_or(|bound| bound >= 0.0);
    if !is_bound(filter.min_duration_ms) || !is_bound(filter.max_duration_ms) {
        faults.push(Fault::new("config.filter.minDurationMs", "milliseconds, from 0"));
    }
    if matches!((filter.min_duration_ms, filter.max_duration_ms), (Some(min), Some(max)) if min > max) {
        faults.push(Fault::new("config.filter.maxDurationMs", "not under minDurationMs"));
    }
    if matches!((filter.min_tokens, filter.max_tokens), (Some(min), Some(max)) if min > max) {
        faults.push(Fault::new("config.filter.maxTokens", "not under minTokens"));
    }
}

fn evaluators(list: Option<&Value>, faults: &mut Vec<Fault>) -> Vec<Spec> {
    let list = list.and_then(Value::as_array).filter(|list| (1..=EVALUATORS_MAX).contains(&list.len()));
    let Some(list) = list else {
        faults.push(Fault::new("config.evaluators", format!("missing: between 1 and {EVALUATORS_MAX} evaluators")));
        return Vec::new();
    };
    let mut specs = Vec::with_capacity(list.len());
    for (at, value) in list.iter().enumerate() {
        match Spec::deserialize(value) {
            Ok(spec) => specs.push(spec),
            Err(error) => faults.push(Fault::new(format!("config.evaluators[{at}]"), error.to_string())),
        }
    }
    specs
}

/// Dollars as nano-dollars; what is finer is cut off.
pub(super) fn money(value: &Value) -> Option<Money> {
    let text = value.as_number()?.to_string();
    let dollars = text.parse::<Decimal>().or_else(|_| Decimal::from_scientific(&text)).ok()?;
    let within = !dollars.is_sign_negative() && dollars <= Decimal::from(BUDGET_MAX);
    dollars.checked_mul(Decimal::from(1_000_000_000)).filter(|_| within)?.trunc().to_i64().map(Money)
}
