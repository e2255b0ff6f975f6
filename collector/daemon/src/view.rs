//! What the API may show of the other rooms: the ledger, the log, the doors, and whether all is well.
//!
//! Promise: received = accepted + rejected + refused, and for each consumer accepted = done + duplicate + pending + quarantined + shed +
//! lost, at every moment and over restarts: accepted is the head of the log, what is turned away is kept as it happens, each consumer's
//! book moves with its cursor, and pending follows from both, so nothing here can drift.
//! Not here: refusing to show it to someone (`emberd-api`); how evaluation is doing (`judging`).

use std::fmt::Write as _;
use std::sync::Arc;

use emberd_api::{Readiness, View};
use emberd_consumers::Progress;
use emberd_intake::redact::Redact;
use emberd_intake::turned_away::What;
use emberd_intake::{Counters, TurnedAway};
use emberd_log::{DiskLog, Log};
use emberd_model::{Clock, UnixNanos};
use emberd_store::Store;
use emberd_store::retention::Counts;
use serde_json::{Map, Value, json};

use crate::judging::Judging;
use crate::retention;
use crate::told;

/// Read-only handles on the rooms.
pub(crate) struct Board {
    log: Arc<DiskLog>,
    store: Store,
    counters: Arc<Counters>,
    turned_away: Arc<TurnedAway>,
    consumers: Vec<Arc<Progress>>,
    judging: Judging,
    redact: Option<Arc<Redact>>,
    retention: Option<Arc<Counts>>,
    clock: Arc<dyn Clock>,
    started: UnixNanos,
}

impl Board {
    pub(crate) fn new(
        log: Arc<DiskLog>,
        store: Store,
        counters: Arc<Counters>,
        turned_away: Arc<TurnedAway>,
        consumers: Vec<Arc<Progress>>,
        judging: Judging,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let started = clock.now();
        Self { log, store, counters, turned_away, consumers, judging, redact: None, retention: None, clock, started }
    }

    /// Also what rules took out of spans, and what went because it was old.
    pub(crate) fn with(self, redact: Option<Arc<Redact>>, retention: Option<Arc<Counts>>) -> Self {
        Self { redact, retention, ..self }
    }

    fn sums(&self) -> Value {
        // Cursors before the head: a consumer must never seem to be ahead of the log.
        let (rejected, refused) = (self.turned_away.total(What::Rejected), self.turned_away.total(What::Refused));
        let head = self.log.head();
        let consumers: Map<String, Value> =
            self.consumers.iter().map(|progress| (progress.name().to_owned(), progress.ledger(head))).collect();
        json!({
            "received_spans": head.0 + rejected + refused,
            "accepted_spans": head.0,
            "rejected_spans": rejected,
            "refused_spans": refused,
            "consumers": consumers,
        })
    }

    /// What is wrong; nothing: healthy.
    fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.log.has_failed() {
            reasons.push("the disk failed: nothing more is acknowledged".to_owned());
        }
        if self.log.is_refusing() {
            let used = self.log.used();
            let (bytes, budget) = (used.bytes, used.budget_bytes);
            reasons.push(format!(
                "spans are refused for want of room: {bytes} bytes in the log, budget {budget}, or the disk is full"
            ));
        }
        reasons
    }
}

impl View for Board {
    fn ledger(&self) -> Value {
        let lines = self.turned_away.lines();
        let turned_away = lines.iter().map(|(line, spans)| told::turned_away(line, *spans)).collect();
        let books: Map<String, Value> =
            self.consumers.iter().map(|progress| (progress.name().to_owned(), told::book(&progress.book()))).collect();
        let mut ledger = self.sums();
        ledger["turned_away"] = Value::Array(turned_away);
        ledger["books"] = Value::Object(books);
        ledger
    }

    fn status(&self) -> Value {
        let used = self.log.used();
        let failing: Map<String, Value> = self
            .consumers
            .iter()
            .filter_map(|progress| Some((progress.name().to_owned(), progress.failing()?.into())))
            .collect();
        let reasons = self.reasons();
        let snapshot = self.counters.snapshot();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_s": self.clock.now().0.saturating_sub(self.started.0) / 1_000_000_000,
            "healthy": reasons.is_empty() && failing.is_empty(),
            "reasons": reasons,
            "failing": failing,
            "ledger": self.sums(),
            "log": {
                "head": self.log.head().0,
                "tail": self.log.tail().0,
                "bytes": used.bytes,
                "budget": used.budget_bytes,
                "segments": used.segments,
            },
            "intake": {
                "requests": snapshot.requests(),
                "refused_requests": snapshot.refused_requests(),
                "connections_open": snapshot.connections_open,
                "in_flight_bytes": snapshot.in_flight_bytes,
            },
            "database": { "kind": self.store.kind(), "pool": self.store.pool() },
            "retention": self.retention.as_deref().map(retention::told),
            "plugins": self.judging.standings(),
        })
    }

    fn ready(&self) -> Readiness {
        // A consumer that is behind is a lag, not a reason to send spans elsewhere.
        Readiness { reasons: self.reasons(), plugins: self.judging.words() }
    }

    fn metrics(&self, out: &mut String) {
        self.counters.write_prometheus(out);
        if let Some(redact) = &self.redact {
            redact.write_prometheus(out);
        }
        if let Some(counts) = &self.retention {
            retention::write_prometheus(counts, out);
        }
        for (what, metric) in [(What::Rejected, "rejected"), (What::Refused, "refused")] {
            let spans = self.turned_away.total(what);
            let _ = writeln!(out, "# TYPE emberd_ledger_{metric}_spans gauge\nemberd_ledger_{metric}_spans {spans}");
        }
        let used = self.log.used();
        let head = self.log.head();
        let pool = self.store.pool();
        for (metric, value) in [
            ("head_spans", head.0),
            ("tail_spans", self.log.tail().0),
            ("bytes", used.bytes),
            ("budget_bytes", used.budget_bytes),
            ("segments", used.segments as u64),
        ] {
            let _ = writeln!(out, "# TYPE emberd_log_{metric} gauge\nemberd_log_{metric} {value}");
        }
        out.push_str("# TYPE emberd_pool_connections gauge\n");
        for (state, value) in [("in_use", pool.in_use), ("idle", pool.idle), ("max", pool.max)] {
            let _ = writeln!(out, "emberd_pool_connections{{state=\"{state}\"}} {value}");
        }
        out.push_str(emberd_consumers::progress::METRIC_HEADS);
        for progress in &self.consumers {
            progress.metrics(head, out);
        }
        self.judging.metrics(out);
    }
}
