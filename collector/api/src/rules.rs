//! Rules on live traffic, and what each decided of a trace.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use emberd_evaluators_jobs::live::{RuleError, Why};
use emberd_model::TraceId;
use emberd_store::Moment;
use emberd_store::jobs::{Rule, Subject, Viewer};
use serde_json::{Value, json};

use crate::Shared;
use crate::ask::{Fields, Id, Parameters};
use crate::contract::{Body, Contract, Given};
use crate::evaluations::{dollars, invalid};
use crate::refusal::Refusal;

fn told(rule: &Rule) -> Value {
    json!({
        "id": rule.id,
        "name": rule.name,
        "version": rule.version,
        "config": rule.config["config"],
        "enabled": rule.is_enabled,
        "cost": {
            "spent": dollars(rule.spent),
            "reserved": dollars(rule.reserved),
            "budget": rule.budget.map(dollars),
            "currency": "USD",
        },
        "created_by": rule.created_by,
        "created_at": Moment::from(rule.created_at),
    })
}

pub(crate) const LIST: Contract =
    Contract::new("Rules on live traffic, by name").answers(&[(200, Given::Json("Rules"))]);

pub(crate) async fn list(State(shared): State<Arc<Shared>>, asked: Parameters) -> Result<Json<Value>, Refusal> {
    asked.finish()?;
    let rules = shared.evaluations.rules().await?;
    Ok(Json(json!({ "data": rules.iter().map(told).collect::<Vec<_>>(), "next_cursor": null })))
}

pub(crate) const PUT: Contract = Contract::new("Makes a rule, or gives the one of its name other contents")
    .body(Body::Json("NewRule"))
    .answers(&[(201, Given::Json("Rule"))])
    .refuses(&[409]);

/// Makes a rule, or gives the one of its name other contents.
pub(crate) async fn put(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    asked: Parameters,
    fields: Fields,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    asked.finish()?;
    let rule = shared.evaluations.put_rule(&fields.whole(), viewer).await?;
    Ok((StatusCode::CREATED, Json(told(&rule))))
}

pub(crate) const CHANGE: Contract =
    Contract::new("Switches a rule on or off").body(Body::Json("RuleChange")).answers(&[(200, Given::Json("Rule"))]);

/// Switches a rule on or off.
pub(crate) async fn change(
    State(shared): State<Arc<Shared>>,
    Id(id): Id,
    asked: Parameters,
    mut fields: Fields,
) -> Result<Json<Value>, Refusal> {
    asked.finish()?;
    let is_enabled = fields.flag("enabled");
    fields.finish()?;
    let is_enabled = is_enabled.ok_or_else(|| Refusal::invalid("enabled", "is missing"))?;
    if !shared.evaluations.enable_rule(id, is_enabled).await? {
        return Err(Refusal::Missing("rule"));
    }
    let rules = shared.evaluations.rules().await?;
    rules.iter().find(|rule| rule.id == id).map(|rule| Json(told(rule))).ok_or(Refusal::Missing("rule"))
}

pub(crate) const DELETE: Contract = Contract::new("Deletes a rule").answers(&[(204, Given::Nothing)]);

pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Id(id): Id,
    asked: Parameters,
) -> Result<StatusCode, Refusal> {
    asked.finish()?;
    match shared.evaluations.delete_rule(id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Refusal::Missing("rule")),
    }
}

pub(crate) const WHY: Contract =
    Contract::new("What each rule decided of a trace, and what it found").answers(&[(200, Given::Json("Decisions"))]);

/// What each rule decided of a trace, and what it found.
pub(crate) async fn why(
    State(shared): State<Arc<Shared>>,
    Path(trace): Path<String>,
    asked: Parameters,
) -> Result<Json<Value>, Refusal> {
    asked.finish()?;
    let trace: TraceId = trace.parse().map_err(|_| Refusal::invalid("trace", "expected 32 hex digits"))?;
    let found = shared.evaluations.why(trace).await?;
    Ok(Json(json!({ "data": found.iter().map(reason).collect::<Vec<_>>(), "next_cursor": null })))
}

fn reason(why: &Why) -> Value {
    let scores = why.scores.iter().map(|score| {
        let (value, failure) = match &score.scored.outcome {
            Ok(value) => (Some(value), None),
            Err(failure) => (None, Some(failure)),
        };
        json!({
            "name": score.scored.name,
            "subject": subject(&score.subject),
            "score": value.and_then(|value| value.score),
            "label": value.and_then(|value| value.label.as_deref()),
            "explanation": value.and_then(|value| value.explanation.as_deref()),
            "error": failure.map(|failure| &failure.message),
            "error_class": failure.map(|failure| &failure.class),
            "cost": dollars(score.scored.cost),
        })
    });
    json!({
        "rule": why.rule,
        "version": why.decision.version,
        "epoch": why.decision.epoch,
        "decision": why.decision.decision,
        "detail": why.decision.detail,
        "spans": why.decision.spans,
        "at": Moment::from(why.decision.at),
        "scores": scores.collect::<Vec<_>>(),
    })
}

/// trace, session, or the span's id.
fn subject(subject: &Subject) -> String {
    match subject {
        Subject::Trace => "trace".to_owned(),
        Subject::Session => "session".to_owned(),
        Subject::Span(span) => span.to_string(),
    }
}

impl From<RuleError> for Refusal {
    fn from(error: RuleError) -> Self {
        match error {
            RuleError::Invalid(faults) => invalid(faults),
            RuleError::NoSuchProfile => Self::Conflict("the caller has no profile"),
            RuleError::Store(error) => error.into(),
        }
    }
}
