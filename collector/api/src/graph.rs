//! `POST /graphql`: the subgraph (`emberd-graph`), asked as the caller sees it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use emberd_graph::Parts;
use emberd_identity::Caller;
use emberd_store::jobs::Viewer;
use serde_json::Value;

use crate::Shared;
use crate::ask::{Fields, Parameters};
use crate::contract::{Body, Contract, Given};
use crate::flags::Part;
use crate::refusal::Refusal;

pub(crate) const ASK: Contract = Contract::new("A question of the subgraph; 400 where it could not be asked at all")
    .body(Body::Json("GraphQuestion"))
    .answers(&[(200, Given::Json("GraphAnswer")), (400, Given::Json("GraphRefusal"))]);

/// 200 where the question could be asked, whatever became of its fields; 400 where it could not.
pub(crate) async fn ask(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Extension(viewer): Extension<Viewer>,
    asked: Parameters,
    fields: Fields,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    asked.finish()?;
    let flags = shared.gate.flags();
    let parts =
        Parts { traces: flags.let_in(Part::Traces, &caller), evaluations: flags.let_in(Part::Evaluations, &caller) };
    let answer = shared.graph.answer(&fields.whole(), &caller, viewer, parts).await;
    let status = if answer.is_answered { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    Ok((status, Json(answer.body)))
}
