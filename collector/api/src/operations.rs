//! What an operator and a scraper ask: is it alive, is it ready, how is it doing.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use emberd_store::jobs::Viewer;
use emberd_store::{Moment, Store};
use serde_json::{Value, json};

use crate::ask::Parameters;
use crate::contract::{Contract, Given, LIMIT};
use crate::refusal::Refusal;
use crate::{Readiness, Shared};

/// The status is asked for most when the database does not answer, so it does not wait for it.
const DATABASE_TIME_MAX: Duration = Duration::from_secs(2);

pub(crate) const HEALTHZ: Contract =
    Contract::new("The process answers; nothing more").answers(&[(200, Given::Json("Health"))]);

/// The process answers; nothing more.
pub(crate) async fn healthz() -> Json<Value> {
    Json(json!({ "healthy": true }))
}

pub(crate) const READYZ: Contract = Contract::new("Whether spans are taken in and worked off")
    .answers(&[(200, Given::Json("Readiness")), (503, Given::Json("Readiness"))]);

pub(crate) async fn readyz(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let Readiness { reasons, plugins } = shared.view.ready();
    if reasons.is_empty() {
        (StatusCode::OK, Json(json!({ "ready": true, "plugins": plugins })))
    } else {
        let answer = json!({ "ready": false, "reasons": reasons, "plugins": plugins });
        (StatusCode::SERVICE_UNAVAILABLE, Json(answer))
    }
}

pub(crate) const OPENAPI: Contract = Contract::new("This document").answers(&[(200, Given::Json("OpenApi"))]);

/// To whoever has a token: without one nothing but health answers. The document itself is no secret (`emberd openapi` prints it).
pub(crate) async fn openapi(
    State(shared): State<Arc<Shared>>,
    parameters: Parameters,
) -> Result<impl IntoResponse, Refusal> {
    parameters.finish()?;
    let document = shared.document.get().ok_or(Refusal::Broken("the document is not made yet"))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], document.clone()))
}

pub(crate) const METRICS: Contract = Contract::new("Everything that is counted, in Prometheus' text format")
    .answers(&[(200, Given::File(&["text/plain"]))]);

pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let mut text = String::with_capacity(16 << 10);
    shared.meter.write(&mut text);
    shared.usage.write(&mut text);
    shared.live.write(&mut text);
    shared.events.write(&mut text);
    shared.caches.write_prometheus(&mut text);
    shared.view.metrics(&mut text);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

pub(crate) const STATUS: Contract =
    Contract::new("How emberd is: log, consumers, database, plugins").answers(&[(200, Given::Json("Status"))]);

pub(crate) async fn status(State(shared): State<Arc<Shared>>, parameters: Parameters) -> Result<Json<Value>, Refusal> {
    parameters.finish()?;
    let mut status = shared.view.status();
    let database = database(&shared.store, true).await;
    if database["healthy"] == false {
        status["healthy"] = false.into();
    }
    if let (Some(told), Value::Object(asked)) = (status.get_mut("database").and_then(Value::as_object_mut), &database) {
        told.extend(asked.clone());
    } else {
        status["database"] = database;
    }
    Ok(Json(status))
}

pub(crate) const LEDGER: Contract =
    Contract::new("What became of every span, by hour and project").answers(&[(200, Given::Json("Ledger"))]);

pub(crate) async fn ledger(State(shared): State<Arc<Shared>>, parameters: Parameters) -> Result<Json<Value>, Refusal> {
    parameters.finish()?;
    Ok(Json(shared.view.ledger()))
}

/// How the database answers, and how much it holds where that is asked, which costs it counting.
async fn database(store: &Store, counted: bool) -> Value {
    let ask = async {
        let ping = store.ping().await?;
        let counts = if counted { Some(store.counts().await?) } else { None };
        Ok::<_, emberd_store::Error>((ping, counts))
    };
    let mut answer = json!({ "kind": store.kind(), "pool": store.pool() });
    match tokio::time::timeout(DATABASE_TIME_MAX, ask).await {
        Ok(Ok((ping, counts))) => {
            answer["healthy"] = true.into();
            answer["acquire_ms"] = millis(ping.acquire);
            answer["query_ms"] = millis(ping.query);
            if let Some(counts) = counts {
                answer["counts"] = json!(counts);
            }
        }
        Ok(Err(error)) => {
            tracing::warn!(error = %error, "the status cannot tell how much the database holds");
            answer["healthy"] = false.into();
            answer["error"] = error.to_string().into();
        }
        Err(_) => {
            answer["healthy"] = false.into();
            answer["error"] = format!("no answer within {DATABASE_TIME_MAX:?}").into();
        }
    }
    answer
}

fn millis(duration: Duration) -> Value {
    json!(duration.as_micros() as f64 / 1_000.0)
}

pub(crate) const HEALTH: Contract =
    Contract::new("What the application's monitor shows").answers(&[(200, Given::Json("PhoenixHealth"))]);

/// `GET /api/phoenix/health`: what the application's monitor shows.
pub(crate) async fn health(State(shared): State<Arc<Shared>>, parameters: Parameters) -> Result<Json<Value>, Refusal> {
    parameters.finish()?;
    let status = shared.view.status();
    let mut metrics = database(&shared.store, false).await;
    let healthy = metrics["healthy"].take();
    if let Some(metrics) = metrics.as_object_mut() {
        metrics.remove("healthy");
    }
    let (good, bad) = shared.logins.counts();
    Ok(Json(json!({
        "database": { "healthy": healthy, "metrics": metrics },
        "cache": { "metrics": shared.caches.metrics(), "stats": shared.caches.stats() },
        "logins": { "good": good, "bad": bad },
        "phoenix": shared.proxy.as_ref().map(|proxy| proxy.standing()),
        "log": status["log"],
        "timestamp": Moment::from(shared.clock.now()),
    })))
}

pub(crate) const STATS: Contract = Contract::new("Quick numbers for a home page, with the prompts used last")
    .query(&[LIMIT])
    .answers(&[(200, Given::Json("Stats"))]);

/// `GET /api/phoenix/stats`: quick numbers for a home page.
pub(crate) async fn stats(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    mut parameters: Parameters,
) -> Result<Json<Value>, Refusal> {
    let limit = parameters.limit();
    parameters.finish()?;
    let (counts, summaries) = (shared.store.counts().await?, shared.store.seen_by(viewer).summaries(limit).await?);
    Ok(Json(json!({
        "prompts": counts.prompts,
        "traces": counts.traces,
        "unassigned": counts.unassigned,
        "data": summaries,
        "phoenix_url": shared.proxy.as_ref().map(|proxy| proxy.public_url().as_str()),
        "timestamp": Moment::from(shared.clock.now()),
    })))
}
