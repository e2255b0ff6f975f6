//! A rule: what is asked for, all that is wrong with it, and what it is once its evaluators are built.
//!
//! ```json
//! {"name": "quality", "enabled": true, "budget": 5,
//!  "config": {"share": 0.2, "salt": "quality", "filter": {"project": ["shop"], "spanKind": ["LLM"]}, "tracesPerSecond": 50,
//!             "annotate": "span", "judgeModel": "gpt-4o-mini", "evaluators": ["json_valid", {"name": "relevance"}]}}
//! ```
//!
//! Kept in the rule's row is the `config` as it was given, and beside it `plan`: evaluators with the template's text and the model, so that
//! a template which is changed does not change a rule.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use emberd_evaluators_kit::Spec;
use emberd_model::{TraceId, UnixNanos};
use emberd_store::jobs::{Money, NewRule, Rule, Viewer};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::filter::Filter;
use super::sample;
use crate::check::{CheckError, named_once, plan_one};
use crate::engine::Shared;
use crate::evaluators::{Live, find, rebuild};
use crate::plan::{By, Planned};
use crate::request::{EVALUATORS_MAX, Fault, Request, Source};

const PLUGIN_WAIT: Duration = Duration::from_secs(5);
const NAME_CHARS_MAX: usize = 100;
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
pub(super) struct Settings {
    pub(super) filter: Filter,
    pub(super) share: f64,
    pub(super) salt: String,
    pub(super) rate: f64,
    pub(super) on: On,
    judge_model: Option<String>,
    evaluators: Vec<Spec>,
}

/// A rule with its evaluators.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) id: Uuid,
    pub(super) name: String,
    pub(super) version: i64,
    pub(super) settings: Settings,
    /// Each with how it is asked, or why it cannot be.
    pub(super) evaluators: Vec<(Planned, Result<Live, String>)>,
    bucket: Mutex<(f64, UnixNanos)>,
}

impl Ready {
    pub(super) fn samples(&self, trace: TraceId) -> bool {
        sample::is_in(&self.settings.salt, trace, self.settings.share)
    }

    /// Whether one more trace may be judged now.
    pub(super) fn has_room(&self, now: UnixNanos) -> bool {
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let (rate, burst) = (self.settings.rate, self.settings.rate.max(1.0));
        let since = now.0.saturating_sub(bucket.1.0) as f64 / 1e9;
        *bucket = ((bucket.0 + since * rate).min(burst), UnixNanos(now.0.max(bucket.1.0)));
        let is_room = bucket.0 >= 1.0;
        if is_room {
            bucket.0 -= 1.0;
        }
        is_room
    }
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

fn unknown(path: &str, of: &Map<String, Value>, known: &[&str], faults: &mut Vec<Fault>) {
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

/// Reads a rule that is to be made, and builds its evaluators once.
pub(super) async fn check(shared: &Shared, value: &Value, viewer: Viewer) -> Result<NewRule, CheckError> {
    let mut faults = Vec::new();
    let Some(body) = value.as_object() else {
        return Err(CheckError::Invalid(vec![Fault::new("", "a JSON object")]));
    };
    unknown("", body, &["name", "enabled", "budget", "config"], &mut faults);
    let is_name = |name: &&str| {
        !name.trim().is_empty() && name.chars().count() <= NAME_CHARS_MAX && !name.contains(char::is_control)
    };
    let name = body.get("name").and_then(Value::as_str).filter(is_name);
    if name.is_none() {
        faults.push(Fault::new("name", format!("missing: 1 to {NAME_CHARS_MAX} characters")));
    }
    let is_enabled = body.get("enabled").map_or(Some(true), Value::as_bool);
    if is_enabled.is_none() {
        faults.push(Fault::new("enabled", "true or false"));
    }
    let budget = body.get("budget").filter(|value| !value.is_null()).map(money);
    if budget == Some(None) {
        faults.push(Fault::new("budget", "dollars, from 0 to 1000000"));
    }
    let config = body.get("config").cloned().unwrap_or(Value::Null);
    let settings = settings(&config, name.unwrap_or_default(), &mut faults);
    let mut planned = Vec::new();
    if let Some(settings) = &settings {
        planned = plan(shared, settings, viewer, budget.is_some(), &mut faults).await?;
    }
    match (name, is_enabled) {
        (Some(name), Some(is_enabled)) if faults.is_empty() => Ok(NewRule {
            name: name.to_owned(),
            config: json!({"config": config, "plan": planned}),
            is_enabled,
            budget: budget.flatten(),
            created_by: viewer.user,
        }),
        _ => Err(CheckError::Invalid(faults)),
    }
}

async fn plan(
    shared: &Shared,
    settings: &Settings,
    viewer: Viewer,
    has_budget: bool,
    faults: &mut Vec<Fault>,
) -> Result<Vec<Planned>, CheckError> {
    // As a job's request, whose evaluators are checked the same way.
    let request = Request {
        prompt: Uuid::nil(),
        source: Source::Dataset { id: Uuid::nil() },
        name: String::new(),
        description: None,
        model: None,
        temperature: None,
        max_tokens: None,
        judge_model: settings.judge_model.clone(),
        budget: None,
        concurrency: None,
        evaluators: settings.evaluators.clone(),
        config: Value::Null,
    };
    let mut planned: Vec<Planned> = Vec::new();
    for (at, spec) in request.evaluators.iter().enumerate() {
        let path = format!("config.evaluators[{at}]");
        match find(spec, &shared.hosts, &shared.store, viewer, PLUGIN_WAIT).await? {
            Ok((live, template)) => {
                if let Some(plan) = plan_one(shared, &request, &live, template, at, faults) {
                    named_once(&path, &plan, &planned, faults);
                    for score in plan.scores.iter().filter(|score| score.name == "note") {
                        faults.push(Fault::new(&path, format!("phoenix keeps the name {:?} for itself", score.name)));
                    }
                    planned.push(plan);
                }
            }
            Err(unbuilt) => faults.push(Fault::new(format!("{path}{}", unbuilt.place), unbuilt.message)),
        }
    }
    for (at, plan) in planned.iter().enumerate() {
        if let By::Judge { model, .. } = &plan.by
            && has_budget
            && shared.config.prices.of(model).is_none()
        {
            let message = format!("there is a budget, and the price of {model:?} is not known");
            faults.push(Fault::new(format!("config.evaluators[{at}]"), message));
        }
    }
    Ok(planned)
}

/// Dollars as nano-dollars; what is finer is cut off.
fn money(value: &Value) -> Option<Money> {
    let text = value.as_number()?.to_string();
    let dollars = text.parse::<Decimal>().or_else(|_| Decimal::from_scientific(&text)).ok()?;
    let within = !dollars.is_sign_negative() && dollars <= Decimal::from(BUDGET_MAX);
    dollars.checked_mul(Decimal::from(1_000_000_000)).filter(|_| within)?.trunc().to_i64().map(Money)
}

/// A rule's row, with its evaluators built; none, with the reason, where it cannot be read.
pub(super) async fn ready(shared: &Shared, rule: &Rule) -> Result<Ready, String> {
    let mut faults = Vec::new();
    let read = settings(rule.config.get("config").unwrap_or(&Value::Null), &rule.name, &mut faults);
    let Some(settings) = read else {
        return Err(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
    };
    let plan = rule.config.get("plan").cloned().unwrap_or_default();
    let planned: Vec<Planned> = serde_json::from_value(plan).map_err(|error| error.to_string())?;
    let mut evaluators = Vec::with_capacity(planned.len());
    for planned in planned {
        evaluators.push(built(shared, planned).await);
    }
    let bucket = Mutex::new((settings.rate.max(1.0), shared.now()));
    Ok(Ready { id: rule.id, name: rule.name.clone(), version: rule.version, settings, evaluators, bucket })
}

/// Built anew. What is built in or a plugin's may be of a newer version by now: a rule goes on with it, and its scores say so.
async fn built(shared: &Shared, mut planned: Planned) -> (Planned, Result<Live, String>) {
    let wait = Duration::from_millis(50);
    let live = match &planned.by {
        By::Judge { template: Some(_), .. } => rebuild(&planned, &shared.hosts, wait).await,
        By::Judge { template: None, .. } | By::Code | By::Plugin => {
            let viewer = Viewer { user: Uuid::nil(), is_admin: true };
            match find(&planned.spec, &shared.hosts, &shared.store, viewer, wait).await {
                Ok(found) => found.map(|(live, _)| live),
                Err(error) => return (planned, Err(error.to_string())),
            }
        }
    };
    if let Ok(live) = &live {
        planned.version.clone_from(&live.identity().version);
        planned.digest.clone_from(&live.identity().digest);
    }
    let live = live.map_err(|unbuilt| unbuilt.message);
    (planned, live)
}
