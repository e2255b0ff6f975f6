//! Prompts, and what a prompt's page shows: its latency percentiles and rates, its totals, its traces.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use emberd_model::rollup::Window;
use emberd_model::row::Status;
use emberd_store::jobs::Viewer;
use emberd_store::library::{Metric, MetricFilter, NewPrompt, Page, Prompt, Summary, Trace, TraceFilter};
use emberd_store::once::Done;
use emberd_store::{Moment, Store};
use serde::Serialize;
use uuid::Uuid;

use crate::Shared;
use crate::ask::{Fields, Id, Parameters};
use crate::contract::{Body, CURSOR, Contract, FROM, Form, Given, LIMIT, Parameter, TO};
use crate::refusal::Refusal;

const TITLE_CHARS_MAX: usize = 255;
const CONTENT_CHARS_MAX: usize = 100_000;

const STATUSES: [(&str, Status); 3] =
    [("success", Status::Success), ("error", Status::Error), ("timeout", Status::Timeout)];

pub(crate) const LIST: Contract = Contract::list("Prompts, newest first", &[(200, Given::Json("Prompts"))]);

pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    mut asked: Parameters,
) -> Result<Json<Page<Prompt>>, Refusal> {
    let listing = asked.listing();
    asked.finish()?;
    let place = listing.open(&shared).await?;
    Ok(Json(place.page(shared.store.seen_by(viewer).prompts(place.after(), place.limit).await?)))
}

pub(crate) const CREATE: Contract = Contract::new("Makes a prompt, where emberd owns their table")
    .body(Body::Json("NewPrompt"))
    .answers(&[(201, Given::Json("Prompt"))])
    .refuses(&[409])
    .once();

pub(crate) async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    asked: Parameters,
    mut fields: Fields,
) -> Result<(StatusCode, Json<Prompt>), Refusal> {
    asked.finish()?;
    let (title, content) = (fields.text("title", TITLE_CHARS_MAX), fields.text("content", CONTENT_CHARS_MAX));
    let once = fields.key().map(|key| key.of(viewer.user, "create_prompt"));
    fields.finish()?;
    // The local administrator is nobody in particular.
    let new = NewPrompt { title, content, created_by: Some(viewer.user).filter(|user| !user.is_nil()) };
    let prompt = match shared.store.create_prompt_once(new, once, shared.clock.now()).await? {
        Done::Now(prompt) => prompt,
        Done::Before(id) => shared.store.seen_by(viewer).prompt(id).await?.ok_or(Refusal::Missing("prompt"))?,
        Done::OtherBody => return Err(Refusal::OtherBody),
    };
    Ok((StatusCode::CREATED, Json(prompt)))
}

/// What `GET /api/prompts/{id}/performance` answers.
#[derive(Serialize)]
pub(crate) struct Performance {
    data: Vec<Metric>,
    summary: Option<Summary>,
}

pub(crate) const PERFORMANCE: Contract = Contract::new("A prompt's latency, rates and speed by window, and its totals")
    .query(&[Parameter::new("window", Form::Word(&["1h", "1d", "7d", "30d"])), FROM, TO])
    .answers(&[(200, Given::Json("Performance"))]);

pub(crate) async fn performance(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    Id(id): Id,
    mut asked: Parameters,
) -> Result<Json<Performance>, Refusal> {
    let words = Window::ALL.map(|window| (window.as_str(), window));
    let window = asked.word("window", &words);
    let (from, to) = asked.period::<Moment>();
    asked.finish()?;
    let store = shared.store.seen_by(viewer);
    exists(&store, id).await?;
    let data = store.performance(id, &MetricFilter { window, from, to }).await?;
    let summary = store.summary(id).await?;
    Ok(Json(Performance { data, summary }))
}

pub(crate) const TRACES: Contract = Contract::new("A prompt's traces, newest first")
    .query(&[
        LIMIT,
        CURSOR,
        FROM,
        TO,
        Parameter::new("status", Form::Word(&["success", "error", "timeout"])),
        Parameter::new("session", Form::Text),
        Parameter::new("model", Form::Text),
    ])
    .answers(&[(200, Given::Json("Traces"))]);

pub(crate) async fn traces(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    Id(id): Id,
    mut asked: Parameters,
) -> Result<Json<Page<Trace>>, Refusal> {
    let listing = asked.listing();
    let (from, to) = asked.period();
    let filter = TraceFilter {
        prompt_id: Some(id),
        status: asked.word("status", &STATUSES),
        session_id: asked.text("session").map(|session| session_id(&session)),
        model: asked.text("model"),
        from,
        to,
        trace: None,
    };
    asked.finish()?;
    let place = listing.open(&shared).await?;
    let store = shared.store.seen_by(viewer);
    exists(&store, id).await?;
    Ok(Json(place.page(store.traces(&filter, place.after(), place.limit).await?)))
}

async fn exists(store: &Store, prompt: Uuid) -> Result<(), Refusal> {
    store.prompt(prompt).await?.map(drop).ok_or(Refusal::Missing("prompt"))
}

/// A session as the rows name it: by its id where that is a UUID, else by the one derived from it (spec/2, session_id).
fn session_id(text: &str) -> Uuid {
    Uuid::parse_str(text).unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_URL, text.as_bytes()))
}
