//! What is too old goes: rows by the store's keeper, quarantined spans by giving them up.
//!
//! A quarantined item goes as if somebody had dropped it: its consumer does it, and the ledger moves with it.
//! Not here: what of the database goes and how (`emberd_store::retention`), the log's own `keep`.
//! Kept by: `tests/it/retention.rs`.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use emberd_consumers::quarantine::{Decision, Item, Quarantine};
use emberd_model::Clock;
use emberd_store::Store;
use emberd_store::retention::{Counts, Keeper};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::config;

/// How often the quarantine is looked through.
const QUARANTINE_EVERY: Duration = Duration::from_secs(60);

/// Lets go of what is too old.
pub(crate) struct Retention {
    keeper: Keeper,
    aside: Aside,
}

impl Retention {
    pub(crate) fn new(config: &config::Retention, store: Store, quarantine: Quarantine, clock: Arc<dyn Clock>) -> Self {
        let bytes_max = config.quarantine_max.map(|most| most.0);
        let aside = Aside { quarantine, kept: config.quarantine, bytes_max, clock: clock.clone() };
        Self { keeper: Keeper::new(store, clock, config.tables()), aside }
    }

    /// What went so far.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.keeper.counts()
    }

    /// Runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        tokio::join!(self.keeper.run(stop.clone()), self.aside.run(&stop));
        Ok(())
    }
}

/// What is in quarantine for too long, or is too much.
struct Aside {
    quarantine: Quarantine,
    kept: Option<Duration>,
    bytes_max: Option<u64>,
    clock: Arc<dyn Clock>,
}

impl Aside {
    async fn run(self, stop: &CancellationToken) {
        if self.kept.is_none() && self.bytes_max.is_none() {
            return stop.cancelled().await;
        }
        let this = Arc::new(self);
        while !stop.is_cancelled() {
            let pass = this.clone();
            match tokio::task::spawn_blocking(move || pass.pass()).await {
                Ok(Ok(0)) | Err(_) => {}
                Ok(Ok(items)) => tracing::info!(items, "quarantined spans are given up: too old, or too many"),
                Ok(Err(error)) => tracing::warn!(%error, "the quarantine cannot be looked through"),
            }
            let _ = tokio::time::timeout(QUARANTINE_EVERY, stop.cancelled()).await;
        }
    }

    /// Gives up what is to go; how many items.
    fn pass(&self) -> io::Result<usize> {
        let mut items = self.quarantine.list(None)?;
        items.sort_by_key(|item| item.at_micros);
        let now = i64::try_from(self.clock.now().0 / 1_000).unwrap_or(i64::MAX);
        let kept = self.kept.and_then(|kept| i64::try_from(kept.as_micros()).ok());
        let is_old = |item: &Item| kept.is_some_and(|kept| item.at_micros < now.saturating_sub(kept));
        let (mut bytes, mut given_up) = (0, 0);
        // From the newest back: what no longer fits is the oldest.
        for item in items.iter().rev() {
            bytes += self.quarantine.bytes(item)?;
            if is_old(item) || self.bytes_max.is_some_and(|most| bytes > most) {
                self.quarantine.decide(item, Decision::Drop)?;
                given_up += 1;
            }
        }
        Ok(given_up)
    }
}

/// What went, for `/api/status`.
pub(crate) fn told(counts: &Counts) -> Value {
    let deleted: Map<String, Value> =
        counts.deleted().map(|(table, rows)| (table.as_str().to_owned(), rows.into())).collect();
    let held = counts.held_max().as_secs_f64() * 1_000.0;
    json!({ "deleted": deleted, "batches": counts.batches(), "held_max_ms": held, "failing": counts.failing() })
}

/// The same for `/metrics`.
pub(crate) fn write_prometheus(counts: &Counts, page: &mut String) {
    page.push_str("# HELP emberd_retention_deleted_total Rows that went because they were old.\n# TYPE emberd_retention_deleted_total counter\n");
    for (table, rows) in counts.deleted() {
        let _ = writeln!(page, "emberd_retention_deleted_total{{table=\"{}\"}} {rows}", table.as_str());
    }
    let held = counts.held_max().as_secs_f64();
    let _ = writeln!(page, "# TYPE emberd_retention_held_max_seconds gauge\nemberd_retention_held_max_seconds {held}");
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use emberd_model::UnixNanos;
    use emberd_model::clock::Still;

    use super::*;

    /// What is older goes, then the oldest of what is too much; what was given up once is not counted against the rest for ever.
    #[test]
    fn what_is_old_or_too_much_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(dir.path()).unwrap();
        for at in 0..6_u64 {
            let item: Item = serde_json::from_value(json!({
                "consumer": "phoenix", "offset": at, "spans": 1, "traces": [], "span_ids": [format!("{at:016x}")],
                "reason": "refused", "answer": "", "at_micros": at * 1_000_000,
            }))
            .unwrap();
            quarantine.put(&item, &Bytes::from(vec![0; 10_000])).unwrap();
        }
        let clock = Arc::new(Still::at(UnixNanos(6_000_000_000)));
        let aside = |kept, bytes_max| Aside { quarantine: quarantine.clone(), kept, bytes_max, clock: clock.clone() };
        let decided = || quarantine.decided("phoenix").unwrap().len();
        assert_eq!((aside(None, None).pass().unwrap(), decided()), (0, 0));
        assert_eq!((aside(Some(Duration::from_secs(4)), None).pass().unwrap(), decided()), (2, 2));
        assert_eq!((aside(None, Some(35_000)).pass().unwrap(), decided()), (3, 3));
    }
}
