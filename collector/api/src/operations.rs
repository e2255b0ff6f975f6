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
use crate::refusal::Refusal;
use crate::{Readiness, Shared};

/// The status is asked for most when the database does not answer, so it does not wait for it.
const DATABASE_TIME_MAX: Duration = Duration::from_secs(2);

/// The process answers; nothing more.
pub(crate) async fn healthz() -> Json<Value> {
    Json(json!({ "healthy": true }))
}

pub(crate) async fn readyz(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let Readiness { reasons, plugins } = shared.view.ready();
    if reasons.is_empty() {
        (StatusCode::OK, Json(json!({ "ready": true, "plugins": plugins })))
    } else {
        let answer = json!({ "ready": false, "reasons": reasons, "plugins": plugins });
        (StatusCode::SERVICE_UNAVAILABLE, Json(answer))
    }
}

pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let mut text = String::with_capacity(16 << 10);
    shared.meter.write(&mut text);
    shared.usage.write(&mut text);
    shared.caches.write_prometheus(&mut text);
    shared.view.metrics(&mut text);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

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
        "timestamp": Moment::from(shared.clock.now()),
    })))
}
