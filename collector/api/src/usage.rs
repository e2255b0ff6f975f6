//! `api_usage_logs`: every call of the API, who, what, with which answer and how long; and from it, users' sessions. Written in batches.
//!
//! Promise: noting a call never waits and never fails it; what is noted faster than it can be written is counted and dropped, beyond
//! [`QUEUE`] calls. A user's activity is written at most once in [`ACTIVE_EVERY`] by each emberd.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use emberd_identity::Caller;
use emberd_model::UnixNanos;
use emberd_store::Store;
use emberd_store::people::Used;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::batches::{Away, Batches};
use crate::meter;

const QUEUE: usize = 8_192;
/// How often a user's activity is written.
const ACTIVE_EVERY: Duration = Duration::from_secs(60);
/// Users whose last writing is remembered; beyond it those go that may be written again, then all.
const ACTIVE_MAX: usize = 10_000;

/// A call of the API.
pub(crate) struct Call(Used);

impl Call {
    pub(crate) fn new(
        caller: &Caller,
        method: Method,
        path: String,
        status: StatusCode,
        took: Duration,
        at: UnixNanos,
    ) -> Self {
        Self(Used {
            user: caller.id().filter(|id| !id.is_nil()),
            method: method.to_string().chars().take(16).collect(),
            path,
            status: status.as_u16(),
            latency: took,
            at,
        })
    }
}

/// Calls and activity on their way into the tables.
pub(crate) struct Usage {
    calls: Batches<Used>,
    active: Batches<(Uuid, UnixNanos)>,
    /// When each user's activity was last left to be written.
    noted: Mutex<HashMap<Uuid, Instant>>,
}

impl Usage {
    pub(crate) fn new() -> Self {
        Self { calls: Batches::new(QUEUE), active: Batches::new(QUEUE), noted: Mutex::default() }
    }

    pub(crate) fn note(&self, Call(used): Call) {
        if let Some(user) = used.user.filter(|user| self.is_due(*user)) {
            self.active.leave((user, used.at));
        }
        self.calls.leave(used);
    }

    fn is_due(&self, user: Uuid) -> bool {
        let now = Instant::now();
        let is_old = |since: &Instant| now.saturating_duration_since(*since) >= ACTIVE_EVERY;
        let mut noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.get(&user).is_some_and(|since| !is_old(since)) {
            return false;
        }
        if noted.len() >= ACTIVE_MAX {
            noted.retain(|_, since| !is_old(since));
            if noted.len() >= ACTIVE_MAX {
                noted.clear();
            }
        }
        noted.insert(user, now);
        true
    }

    /// Appends how many calls were not written, in Prometheus' text format.
    pub(crate) fn write(&self, out: &mut String) {
        let (name, help) = ("emberd_api_usage_dropped_total", "Calls of the API that could not be written down.");
        meter::metric(out, name, "counter", help, self.calls.dropped() + self.active.dropped());
    }

    /// Writes calls until `stop`, and then what is left.
    pub(crate) async fn run(&self, store: &Store, stop: &CancellationToken) {
        let calls = self.calls.run(stop, "calls of the API", Away::Drop, |calls| {
            let store = store.clone();
            async move { store.put_usage(calls).await }
        });
        let active = self.active.run(stop, "users' activity", Away::Drop, |active| {
            let store = store.clone();
            async move { store.touch_sessions(active).await }
        });
        tokio::join!(calls, active);
    }
}
