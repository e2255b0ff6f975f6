//! How far a consumer is, for the ledger, the status page and the metrics.
//!
//! Promise: at every moment `head = done + pending + quarantined + skipped`, in spans; nothing here is ever counted twice, as all of it
//! follows from the cursor, which is durable elsewhere, and from two sums that only grow.
//! Not here: the cursor itself (each consumer commits its own); what is in quarantine ([`crate::quarantine`]).
//! Kept by: `tests::the_sums_always_meet_the_head`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use emberd_model::Offset;
use serde_json::{Map, Value, json};

/// What the metrics of consumers are, for Prometheus; written once, before those of all consumers.
pub const METRIC_HEADS: &str = "\
# TYPE emberd_consumer_done_spans gauge
# TYPE emberd_consumer_pending_spans gauge
# TYPE emberd_consumer_quarantined_spans gauge
# TYPE emberd_consumer_skipped_spans gauge
# TYPE emberd_consumer_failing gauge
# TYPE emberd_consumer_sent_spans gauge
# TYPE emberd_consumer_resent_spans gauge
# TYPE emberd_consumer_mended_spans gauge
# TYPE emberd_consumer_failures_total counter
";

/// One consumer's progress, written by it, read by anyone.
#[derive(Debug)]
pub struct Progress {
    name: String,
    cursor: AtomicU64,
    sent: Option<AtomicU64>,
    /// Whether a span is done only once it was seen at the far end.
    verifies: bool,
    resent: AtomicU64,
    mended: AtomicU64,
    quarantined: AtomicU64,
    skipped: AtomicU64,
    unpublished: AtomicBool,
    trouble: Mutex<Trouble>,
}

/// What went wrong, and whether it still does.
#[derive(Debug, Default)]
struct Trouble {
    failures: BTreeMap<&'static str, u64>,
    last_error: Option<String>,
    is_failing: bool,
}

impl Progress {
    /// Of a consumer that is done with a span when its cursor has passed it.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            cursor: AtomicU64::new(0),
            sent: None,
            verifies: false,
            resent: AtomicU64::new(0),
            mended: AtomicU64::new(0),
            quarantined: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            unpublished: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    /// Of a forwarder: a span is sent before it is done; if it `verifies`, it is done once it was read back.
    #[must_use]
    pub fn forwarding(name: &str, verifies: bool) -> Self {
        Self { sent: Some(AtomicU64::new(0)), verifies, ..Self::new(name) }
    }

    /// The consumer's name in the ledger.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the durable cursor stands.
    #[must_use]
    pub fn cursor(&self) -> Offset {
        Offset(self.cursor.load(Relaxed))
    }

    /// The durable cursor has moved.
    pub fn passed(&self, cursor: Offset) {
        self.cursor.store(cursor.0, Relaxed);
        if let Some(sent) = &self.sent {
            sent.fetch_max(cursor.0, Relaxed);
        }
    }

    /// The far end said that it has everything below this.
    pub fn sent(&self, to: Offset) {
        if let Some(sent) = &self.sent {
            sent.store(to.0, Relaxed);
        }
    }

    /// Spans went out once more.
    pub fn resent(&self, spans: u64) {
        self.resent.fetch_add(spans, Relaxed);
    }

    /// Spans were changed in a copy before they went out.
    pub fn mended(&self, spans: u64) {
        self.mended.fetch_add(spans, Relaxed);
    }

    /// Spans were put into quarantine. At start: what is there already.
    pub fn quarantined(&self, spans: u64) {
        self.quarantined.fetch_add(spans, Relaxed);
    }

    /// Spans that the log no longer has, or has damaged.
    pub fn skipped(&self, spans: u64) {
        self.skipped.fetch_add(spans, Relaxed);
    }

    /// Whether readers do not see yet all that the cursor has passed.
    pub fn unpublished(&self, is: bool) {
        self.unpublished.store(is, Relaxed);
    }

    /// Something failed; `class` is one of a few words for the metrics, `error` is for people.
    pub fn failed(&self, class: &'static str, error: &dyn std::fmt::Display) {
        let mut trouble = self.trouble();
        *trouble.failures.entry(class).or_default() += 1;
        trouble.last_error = Some(error.to_string());
        trouble.is_failing = true;
    }

    /// It works (again).
    pub fn succeeded(&self) {
        let mut trouble = self.trouble();
        trouble.is_failing = false;
    }

    /// Whether the last try failed, and with what.
    #[must_use]
    pub fn failing(&self) -> Option<String> {
        let trouble = self.trouble();
        trouble.is_failing.then(|| trouble.last_error.clone().unwrap_or_default())
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Trouble> {
        self.trouble.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Spans that it is done with, out of a log whose head is `head`.
    fn done(&self) -> u64 {
        let aside = self.quarantined.load(Relaxed) + self.skipped.load(Relaxed);
        self.cursor().0.saturating_sub(aside)
    }

    /// Its part of the ledger.
    #[must_use]
    pub fn ledger(&self, head: Offset) -> Value {
        let (done, quarantined, skipped) = (self.done(), self.quarantined.load(Relaxed), self.skipped.load(Relaxed));
        let mut ledger = Map::new();
        if let Some(sent) = &self.sent {
            ledger.insert("sent".into(), sent.load(Relaxed).saturating_sub(quarantined + skipped).into());
            if self.verifies {
                ledger.insert("verified".into(), done.into());
            }
            ledger.insert("resent".into(), self.resent.load(Relaxed).into());
            ledger.insert("mended".into(), self.mended.load(Relaxed).into());
        }
        ledger.insert("done".into(), done.into());
        ledger.insert("pending".into(), head.since(self.cursor()).into());
        ledger.insert("quarantined".into(), quarantined.into());
        ledger.insert("skipped".into(), skipped.into());
        if self.unpublished.load(Relaxed) {
            ledger.insert("unpublished".into(), true.into());
        }
        let trouble = self.trouble();
        ledger.insert("failures".into(), json!(trouble.failures));
        ledger.insert("failing".into(), trouble.is_failing.into());
        ledger.insert("last_error".into(), json!(trouble.last_error));
        Value::Object(ledger)
    }

    /// Appends its metrics in Prometheus' text format; the caller writes the heads.
    pub fn metrics(&self, head: Offset, out: &mut String) {
        let name = &self.name;
        let mut line = |metric: &str, value: u64| {
            let _ = writeln!(out, "emberd_consumer_{metric}{{consumer=\"{name}\"}} {value}");
        };
        line("done_spans", self.done());
        line("pending_spans", head.since(self.cursor()));
        line("quarantined_spans", self.quarantined.load(Relaxed));
        line("skipped_spans", self.skipped.load(Relaxed));
        line("failing", u64::from(self.failing().is_some()));
        if let Some(sent) = &self.sent {
            line("sent_spans", sent.load(Relaxed));
            line("resent_spans", self.resent.load(Relaxed));
            line("mended_spans", self.mended.load(Relaxed));
        }
        for (class, count) in &self.trouble().failures {
            let _ = writeln!(out, "emberd_consumer_failures_total{{consumer=\"{name}\",class=\"{class}\"}} {count}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever happens to its spans, the parts add up to the head.
    #[test]
    fn the_sums_always_meet_the_head() {
        let progress = Progress::forwarding("phoenix", true);
        let head = Offset(100);
        let steps: [&dyn Fn(); 5] = [
            &|| progress.sent(Offset(60)),
            &|| progress.passed(Offset(40)),
            &|| progress.quarantined(3),
            &|| progress.skipped(7),
            &|| progress.passed(Offset(100)),
        ];
        for step in steps {
            step();
            let ledger = progress.ledger(head);
            let part = |name: &str| ledger[name].as_u64().unwrap();
            assert_eq!(part("done") + part("pending") + part("quarantined") + part("skipped"), 100, "{ledger}");
            assert!(part("sent") >= part("verified"), "{ledger}");
            assert_eq!(Progress::forwarding("sink", false).ledger(head).get("verified"), None, "nobody verified that");
        }
    }

    #[test]
    fn trouble_is_over_when_it_works_again() {
        let progress = Progress::new("recorder");
        progress.failed("unavailable", &"connection refused");
        assert_eq!(progress.failing().as_deref(), Some("connection refused"));
        progress.succeeded();
        assert_eq!(progress.failing(), None);
        assert_eq!(progress.ledger(Offset(0))["last_error"], "connection refused");
        let mut page = String::new();
        progress.metrics(Offset(5), &mut page);
        assert!(
            page.contains("emberd_consumer_failures_total{consumer=\"recorder\",class=\"unavailable\"} 1"),
            "{page}"
        );
        assert!(page.contains("emberd_consumer_pending_spans{consumer=\"recorder\"} 5"), "{page}");
    }
}
