//! A rule: what is asked for, all that is wrong with it, and what it is once its evaluators are built.
//!
//! ```json
//! {"name": "quality", "enabled": true, "budget": 5,
//!  "config": {"share": 0.2, "salt": "quality", "filter": {"project": ["shop"], "spanKind": ["LLM"]}, "tracesPerSecond": 50,
//!             "annotate": "span", "judgeModel": "gpt-4o-mini", "evaluators": ["json_valid", {"name": "relevance"}]}}
//! ```
//!
//! `settings`: the `config`, read.
//! Kept in the rule's row is the `config` as it was given, and beside it `plan`: evaluators with the template's text and the model, so that
//! a template which is changed does not change a rule.

mod settings;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use emberd_model::{TraceId, UnixNanos};
use emberd_store::jobs::{NewRule, Rule, Viewer};
use serde_json::{Value, json};
use uuid::Uuid;

use super::sample;
use crate::check::{CheckError, named_once, plan_one};
use crate::engine::Shared;
use crate::evaluators::{Live, find, rebuild};
use crate::plan::{By, Planned};
use crate::request::{Fault, Request, Source};
use settings::{Settings, money, settings, unknown};

pub use settings::On;

const PLUGIN_WAIT: Duration = Duration::from_secs(5);
const NAME_CHARS_MAX: usize = 100;

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
