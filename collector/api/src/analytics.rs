//! `POST /api/analytics/events`: what users of the application do; and what is computed of it and of the traces, beside requests.
//!
//! Promise: what is answered with 202 is written as soon as the database takes it; where no more can be held the answer is 503. Whose event
//! it is says the token, never the body. Today and the sessions of late are computed anew every [`EVERY`], those that lie back up to a week
//! every [`WEEK_EVERY`]th time, but never so often that it takes more than one [`SHARE`]th of the time; several emberds may do it at once and end at the same rows (`emberd-store`).

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use emberd_model::UnixNanos;
use emberd_store::Moment;
use emberd_store::analytics::Event;
use emberd_store::jobs::Viewer;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Shared;
use crate::ask::{Fields, Parameters};
use crate::batches::{Away, Batches};
use crate::contract::{Body, Contract, Given};
use crate::meter;
use crate::refusal::Refusal;

const QUEUE: usize = 20_000;
/// Events of one request.
const EVENTS_MAX: usize = 500;
const NAME_CHARS_MAX: usize = 100;
/// As JSON text.
const PROPERTIES_BYTES_MAX: usize = 16 << 10;
/// Objects and lists in each other.
const PROPERTIES_DEPTH_MAX: usize = 8;
/// How far an event's time may lie ahead of emberd's, and back.
const AHEAD_MICROS_MAX: i64 = 5 * 60 * 1_000_000;
const BACK_MICROS_MAX: i64 = 30 * 86_400 * 1_000_000;

/// How often sessions and days are computed.
const EVERY: Duration = Duration::from_secs(5 * 60);
/// Every how many times those of the last week are, for traces may come late.
const WEEK_EVERY: u64 = 12;
/// A pass is followed by at least so many times as long a pause, less one.
const SHARE: u32 = 20;
const DAY_NANOS: u64 = 86_400_000_000_000;

/// Events on their way into the table.
pub(crate) struct Events(Batches<Event>);

impl Events {
    pub(crate) fn new() -> Self {
        Self(Batches::new(QUEUE))
    }

    /// Appends how many events were not written although they were taken, in Prometheus' text format.
    pub(crate) fn write(&self, out: &mut String) {
        let help = "Product events that were taken and could not be written down.";
        meter::metric(out, "emberd_analytics_dropped_total", "counter", help, self.0.dropped());
    }
}

pub(crate) const POST: Contract = Contract::new("Takes events of the application, one or {events: [..]} of up to 500")
    .body(Body::Json("NewEvents"))
    .answers(&[(202, Given::Json("EventsTaken"))]);

pub(crate) async fn post(
    State(shared): State<Arc<Shared>>,
    Extension(viewer): Extension<Viewer>,
    asked: Parameters,
    mut fields: Fields,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    asked.finish()?;
    let (user, now) = (Some(viewer.user).filter(|user| !user.is_nil()), Moment::from(shared.clock.now()));
    let mut events = Vec::new();
    if fields.has("events") {
        for mut inside in fields.objects("events", EVENTS_MAX) {
            events.push(event(&mut inside, user, now));
            fields.join(inside);
        }
    } else {
        events.push(event(&mut fields, user, now));
    }
    fields.finish()?;
    let count = events.len();
    if !shared.events.0.offer(events) {
        return Err(Refusal::Unavailable("no more events can be held just now"));
    }
    Ok((StatusCode::ACCEPTED, Json(json!({ "accepted": count }))))
}

fn event(fields: &mut Fields, user: Option<Uuid>, now: Moment) -> Event {
    let name = fields.text("name", NAME_CHARS_MAX);
    if name.contains(char::is_control) {
        fields.fault("name", "must not hold control characters");
    }
    let properties = fields.maybe("properties").unwrap_or_else(|| json!({}));
    if !properties.is_object() || depth(&properties) > PROPERTIES_DEPTH_MAX {
        fields.fault("properties", format!("expected an object, at most {PROPERTIES_DEPTH_MAX} deep"));
    } else if properties.to_string().len() > PROPERTIES_BYTES_MAX {
        fields.fault("properties", format!("larger than {PROPERTIES_BYTES_MAX} bytes"));
    }
    let (session, prompt, id) =
        (fields.maybe_id("sessionId"), fields.maybe_id("promptId"), fields.maybe_id("id").unwrap_or_else(Uuid::new_v4));
    let at = fields.maybe_text("at", 64).map(|text| text.parse::<Moment>());
    let is_wrong = |at: &Moment| {
        let ahead = at.micros().saturating_sub(now.micros());
        !(-BACK_MICROS_MAX..=AHEAD_MICROS_MAX).contains(&ahead)
    };
    let at = match at {
        None => now,
        Some(Ok(at)) if !is_wrong(&at) => at,
        Some(_) => {
            fields.fault("at", "expected a time such as 2026-11-21T02:15:41Z, of the last 30 days");
            now
        }
    };
    Event { id, name, properties, user, session, prompt, at }
}

/// How many objects and lists are in each other; the parser has bounded it already.
fn depth(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Array(all) => 1 + all.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Writes events until the last request was `drained`, and computes sessions and days until `stop`.
pub(crate) async fn run(shared: &Shared, stop: &CancellationToken, drained: &CancellationToken) {
    let events = shared.events.0.run(drained, "product events", Away::Wait, |events| {
        let store = shared.store.clone();
        async move { store.put_events(events).await }
    });
    let computed = async {
        let (mut turn, mut late) = (0, 2 * EVERY);
        while !stop.is_cancelled() {
            let began = Instant::now();
            let done = tokio::select! {
                done = compute(shared, turn % WEEK_EVERY == 0, late) => done,
                // What was computed stands, and the rest is computed after the next start.
                () = stop.cancelled() => return,
            };
            if let Err(error) = done {
                tracing::warn!(%error, "sessions and days could not be computed");
            }
            turn += 1;
            let pause = EVERY.max(began.elapsed() * (SHARE - 1));
            // Of the next pass, with as much again for traces that take long.
            late = 2 * (pause + began.elapsed());
            let _ = tokio::time::timeout(pause, stop.cancelled()).await;
        }
    };
    tokio::join!(events, computed);
}

/// Today, and what went on since shortly; or the whole last week.
async fn compute(shared: &Shared, is_week: bool, late: Duration) -> Result<(), emberd_store::Error> {
    let now = shared.clock.now();
    let back = |days: u64| UnixNanos(now.0.saturating_sub(days * DAY_NANOS));
    let days = if is_week { 7 } else { 0 };
    for day in 0..=days {
        shared.store.refresh_day(back(day)).await?;
    }
    let since = if is_week { back(7) } else { UnixNanos(now.0.saturating_sub(late.as_nanos() as u64)) };
    shared.store.refresh_sessions(since).await
}
