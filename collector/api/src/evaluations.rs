//! Evaluations: made, watched, cancelled, tried again; and the evaluators that they may name.
//!
//! What is wrong with a request is found by the engine (`emberd-evaluators-jobs`), all of it, each with its path.

use std::sync::Arc;

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use emberd_evaluators_jobs::{CheckError, CreateError, Fault, Quote, Share};
use emberd_store::jobs::{Evaluation, EvaluationFilter, Money, ResultFilter, StoredResult, Viewer};
use emberd_store::library::Page;
use serde::Serialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::Shared;
use crate::ask::{Fields, Id, Parameters};
use crate::contract::{self, Body, CURSOR, Contract, Form, Given, LIMIT, Parameter};
use crate::refusal::{Detail, Refusal};

const STATUSES: [(&str, &str); 5] = [
    ("pending", "pending"),
    ("running", "running"),
    ("completed", "completed"),
    ("failed", "failed"),
    ("cancelled", "cancelled"),
];
const NAME_CHARS_MAX: usize = 255;
const DESCRIPTION_CHARS_MAX: usize = 10_000;

/// A row with how far it is and what it costs.
#[derive(Serialize)]
pub(crate) struct Told {
    #[serde(flatten)]
    row: Evaluation,
    /// None where emberd does not run it.
    progress: Option<Share>,
    cost: Option<Cost>,
}

/// Dollars.
#[derive(Serialize)]
struct Cost {
    spent: f64,
    reserved: f64,
    budget: Option<f64>,
    currency: &'static str,
}

pub(crate) fn dollars(money: Money) -> f64 {
    money.0 as f64 / 1e9
}

const STATUS_WORDS: Form = Form::Word(&contract::STATUSES);

pub(crate) const LIST: Contract = Contract::new("Evaluations, newest first")
    .query(&[
        LIMIT,
        CURSOR,
        Parameter::new("promptId", Form::Uuid),
        Parameter::new("status", STATUS_WORDS),
        Parameter::new("createdBy", Form::Uuid),
    ])
    .answers(&[(200, Given::Json("Evaluations"))]);

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    mut asked: Parameters,
) -> Result<Json<Page<Evaluation>>, Refusal> {
    let listing = asked.listing();
    let filter = EvaluationFilter {
        prompt: asked.parsed("promptId", "a UUID"),
        status: asked.word("status", &STATUSES).map(str::to_owned),
        creator: asked.parsed("createdBy", "a UUID"),
    };
    asked.finish()?;
    let place = listing.open(&shared).await?;
    Ok(Json(place.page(shared.store.seen_by(viewer).evaluations(&filter, place.after(), place.limit).await?)))
}

pub(crate) const OF_PROMPT: Contract = Contract::new("A prompt's evaluations, newest first")
    .query(&[LIMIT, CURSOR, Parameter::new("status", STATUS_WORDS)])
    .answers(&[(200, Given::Json("Evaluations"))]);

/// Those of a prompt: `GET /api/prompts/{id}/evaluations`.
pub(crate) async fn of_prompt(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    Id(prompt): Id,
    mut asked: Parameters,
) -> Result<Json<Page<Evaluation>>, Refusal> {
    let listing = asked.listing();
    let status = asked.word("status", &STATUSES).map(str::to_owned);
    asked.finish()?;
    let place = listing.open(&shared).await?;
    shared.store.seen_by(viewer).prompt(prompt).await?.ok_or(Refusal::Missing("prompt"))?;
    let filter = EvaluationFilter { prompt: Some(prompt), status, creator: None };
    Ok(Json(place.page(shared.store.seen_by(viewer).evaluations(&filter, place.after(), place.limit).await?)))
}

pub(crate) const CREATE: Contract =
    Contract::new("Makes an evaluation, which begins by itself; 200 where its key made it before")
        .body(Body::Json("NewEvaluation"))
        .answers(&[(201, Given::Json("EvaluationTold")), (200, Given::Json("EvaluationTold"))])
        .refuses(&[409])
        .once();

pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    asked: Parameters,
    fields: Fields,
) -> Result<(StatusCode, Json<Told>), Refusal> {
    asked.finish()?;
    let key = fields.key();
    let text = key.as_ref().map(|key| key.text().to_owned());
    let created = shared.evaluations.create(&fields.checked()?, text, viewer).await?;
    if let Some(key) = key {
        let once = key.of(viewer.user, "create_evaluation");
        if !shared.store.same_body(once, created.id, created.is_new, shared.clock.now()).await? {
            return Err(Refusal::OtherBody);
        }
    }
    let status = if created.is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(told(&shared, created.id).await?)))
}

pub(crate) const QUOTE: Contract = Contract::new("What an evaluation would take; nothing is made")
    .body(Body::Json("NewEvaluation"))
    .answers(&[(200, Given::Json("Quote"))]);

/// What a request would take; nothing is made.
pub(crate) async fn quote(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    asked: Parameters,
    fields: Fields,
) -> Result<Json<Value>, Refusal> {
    asked.finish()?;
    let Quote { examples, items, calls, cost_low, cost_high, unpriced, is_exact } =
        shared.evaluations.quote(&fields.whole(), viewer).await?;
    Ok(Json(json!({
        "examples": examples,
        "items": items,
        "calls": calls,
        "cost": { "low": cost_low, "high": cost_high, "currency": "USD" },
        "unpriced": unpriced,
        "is_exact": is_exact,
    })))
}

pub(crate) const GET: Contract =
    Contract::new("An evaluation, how far it is and what it costs").answers(&[(200, Given::Json("EvaluationTold"))]);

pub(crate) async fn get(
    State(shared): State<Arc<Shared>>,
    Id(id): Id,
    asked: Parameters,
) -> Result<Json<Told>, Refusal> {
    asked.finish()?;
    Ok(Json(told(&shared, id).await?))
}

async fn told(shared: &Shared, id: Uuid) -> Result<Told, Refusal> {
    let row = shared.store.evaluation(id).await?.ok_or(Refusal::Missing("evaluation"))?;
    let cost = shared.store.job(id).await?.map(|job| Cost {
        spent: dollars(job.spent),
        reserved: dollars(job.reserved),
        budget: job.budget.map(dollars),
        currency: "USD",
    });
    let progress = shared.evaluations.progress(id).await?;
    Ok(Told { row, progress, cost })
}

pub(crate) const CHANGE: Contract = Contract::new("Another name or description; `status: \"cancelled\"` cancels")
    .body(Body::Json("EvaluationChange"))
    .answers(&[(200, Given::Json("EvaluationTold"))])
    .refuses(&[409]);

/// Another name or description; `status: "cancelled"` cancels.
pub(crate) async fn change(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    Id(id): Id,
    asked: Parameters,
    mut fields: Fields,
) -> Result<Json<Told>, Refusal> {
    asked.finish()?;
    let name = fields.maybe_text("name", NAME_CHARS_MAX);
    let description = fields.nullable_text("description", DESCRIPTION_CHARS_MAX);
    let cancels = fields.word("status", &[("cancelled", ())]).is_some();
    fields.finish()?;
    if name.is_some() || description.is_some() {
        let is_own = shared.store.update_evaluation(viewer, id, name, description, shared.clock.now()).await?;
        if !is_own {
            return Err(missing_or_forbidden(&shared, id).await?);
        }
    }
    if cancels {
        cancel_own(&shared, viewer, id).await?;
    }
    Ok(Json(told(&shared, id).await?))
}

pub(crate) const CANCEL: Contract =
    Contract::new("Ends an evaluation before its end").answers(&[(200, Given::Json("EvaluationTold"))]).refuses(&[409]);

pub(crate) async fn cancel(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    Id(id): Id,
    asked: Parameters,
) -> Result<Json<Told>, Refusal> {
    asked.finish()?;
    cancel_own(&shared, viewer, id).await?;
    Ok(Json(told(&shared, id).await?))
}

async fn cancel_own(shared: &Shared, viewer: Viewer, id: Uuid) -> Result<(), Refusal> {
    own(shared, viewer, id).await?;
    if shared.evaluations.cancel(id).await? {
        return Ok(());
    }
    Err(Refusal::Conflict("it is over already"))
}

pub(crate) const RETRY: Contract = Contract::new("Tries again what failed, or what failed of these classes")
    .body(Body::Json("Retry"))
    .answers(&[(200, Given::Json("EvaluationTold"))]);

/// Tries again what failed; with `{"classes": [..]}` only errors of these classes.
pub(crate) async fn retry(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    Id(id): Id,
    asked: Parameters,
    mut fields: Fields,
) -> Result<Json<Told>, Refusal> {
    asked.finish()?;
    let classes = fields.texts("classes", 64);
    fields.finish()?;
    own(&shared, viewer, id).await?;
    shared.evaluations.retry(id, &classes).await?;
    Ok(Json(told(&shared, id).await?))
}

pub(crate) const DELETE: Contract =
    Contract::new("Deletes an evaluation and its results").answers(&[(204, Given::Nothing)]);

pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    Id(id): Id,
    asked: Parameters,
) -> Result<StatusCode, Refusal> {
    asked.finish()?;
    if shared.store.delete_evaluation(viewer, id).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(missing_or_forbidden(&shared, id).await?)
}

/// Everyone sees every evaluation; its creator changes it.
async fn own(shared: &Shared, viewer: Viewer, id: Uuid) -> Result<(), Refusal> {
    let row = shared.store.evaluation(id).await?.ok_or(Refusal::Missing("evaluation"))?;
    if viewer.is_admin || viewer.user == row.created_by { Ok(()) } else { Err(Refusal::Forbidden) }
}

async fn missing_or_forbidden(shared: &Shared, id: Uuid) -> Result<Refusal, Refusal> {
    let row = shared.store.evaluation(id).await?;
    Ok(if row.is_some() { Refusal::Forbidden } else { Refusal::Missing("evaluation") })
}

pub(crate) const RESULTS: Contract = Contract::new("What came out, a score each")
    .query(&[
        LIMIT,
        CURSOR,
        Parameter::new("evaluator", Form::Text),
        Parameter::new("errors", Form::Word(&["true", "false"])),
    ])
    .answers(&[(200, Given::Json("Results"))]);

pub(crate) async fn results(
    State(shared): State<Arc<Shared>>,
    Id(id): Id,
    mut asked: Parameters,
) -> Result<Json<Page<Value>>, Refusal> {
    let listing = asked.listing();
    let only_errors = asked.word("errors", &[("true", true), ("false", false)]).unwrap_or(false);
    let filter = ResultFilter { step: None, name: asked.text("evaluator"), only_errors };
    asked.finish()?;
    shared.store.evaluation(id).await?.ok_or(Refusal::Missing("evaluation"))?;
    let place = listing.open(&shared).await?;
    let page = place.page(shared.store.results(id, &filter, place.after(), place.limit).await?);
    Ok(Json(Page { data: page.data.into_iter().map(result).collect(), next_cursor: page.next_cursor }))
}

/// A result as spec/3 has it.
fn result(stored: StoredResult) -> Value {
    let scored = stored.scored;
    let mut told = Map::new();
    let mut put = |key: &str, value: Value| drop(told.insert(key.to_owned(), value));
    put("example_id", stored.target.into());
    put("evaluator", scored.name.into());
    put("evaluator_version", scored.version.into());
    let (score, failure) = match scored.outcome {
        Ok(score) => (Some(score), None),
        Err(failure) => (None, Some(failure)),
    };
    let score = score.unwrap_or_default();
    put("score", score.score.into());
    put("label", score.label.into());
    put("explanation", score.explanation.into());
    put("direction", scored.direction.as_str().into());
    put("error", failure.as_ref().map(|failure| failure.message.clone()).into());
    put("error_class", failure.map(|failure| failure.class).into());
    put("metadata", scored.metadata);
    put("cost", dollars(scored.cost).into());
    put("latency_ms", (scored.latency.as_secs_f64() * 1e3).into());
    put("cached", scored.cached.into());
    Value::Object(told)
}

pub(crate) const EVALUATORS: Contract =
    Contract::new("The evaluators there are: built in, shipped, and those of plugins that are ready")
        .answers(&[(200, Given::Json("Evaluators"))]);

/// Built in, shipped, and those of plugins that are ready.
pub(crate) async fn evaluators(State(shared): State<Arc<Shared>>, asked: Parameters) -> Result<Json<Value>, Refusal> {
    asked.finish()?;
    Ok(Json(json!({ "data": shared.evaluations.evaluators(), "next_cursor": null })))
}

impl From<CheckError> for Refusal {
    fn from(error: CheckError) -> Self {
        match error {
            CheckError::Invalid(faults) => invalid(faults),
            CheckError::Store(error) => error.into(),
        }
    }
}

impl From<CreateError> for Refusal {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Invalid(faults) => invalid(faults),
            CreateError::NoSuchProfile => Self::Conflict("the caller has no profile"),
            CreateError::Store(error) => error.into(),
        }
    }
}

pub(crate) fn invalid(faults: Vec<Fault>) -> Refusal {
    Refusal::Invalid(faults.into_iter().map(|Fault { path, message }| Detail { path, message }).collect())
}
