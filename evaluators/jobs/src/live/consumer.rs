//! The loop: rules, reading, judging, and the cursor, in turn.
//!
//! Promise: the cursor stands where the oldest trace begins that may still change, and moves only when what was decided before it is written.
//! Without an enabled rule nothing is read, and the cursor goes along with the head.
//! - `reading`: batches of the log into traces. `judging`: complete traces to the rules, and what comes back.

mod judging;
mod reading;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use emberd_log::{CursorFile, Reader};
use emberd_model::{Offset, TraceId, UnixNanos};
use emberd_store::jobs::{Decision, Rule};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::gather::{Bounds, Gather};
use super::origin::Origin;
use super::rule::{self, Ready};
use super::{AGAIN, Config, Counters, Parts};
use crate::engine::Shared;
use judging::Decided;

/// How often the cursor is written down.
const CURSOR_EVERY: Duration = Duration::from_secs(1);

pub(super) struct Consumer {
    shared: Arc<Shared>,
    reader: Box<dyn Reader>,
    head: Box<dyn Fn() -> Offset + Send + Sync>,
    cursor: Arc<CursorFile>,
    passed: Box<dyn Fn(Offset) + Send + Sync>,
    config: Config,
    counters: Arc<Mutex<Counters>>,
    rules: Arc<Vec<Arc<Ready>>>,
    rules_at: Option<Instant>,
    /// Whether the rules were ever read: not knowing any is not having none.
    knows_rules: bool,
    gather: Gather,
    origins: HashMap<Vec<u8>, Arc<Origin>>,
    /// Decisions that are not written yet; the cursor waits for them.
    aside: Vec<Decision>,
    judging: JoinSet<Decided>,
    /// The log's time: when the last batch that was read came.
    read_at: UnixNanos,
    stored: Option<Offset>,
    stored_at: Option<Instant>,
    is_sealed: bool,
}

impl Consumer {
    pub(super) fn new(shared: Arc<Shared>, parts: Parts, counters: Arc<Mutex<Counters>>) -> Self {
        let Parts { reader, head, cursor, passed, config } = parts;
        let Config { quiet_min, quiet_max, late, bytes_max, .. } = config;
        Self {
            shared,
            reader,
            head,
            cursor: Arc::new(cursor),
            passed,
            rules: Arc::default(),
            rules_at: None,
            knows_rules: false,
            gather: Gather::new(Bounds { quiet_min, quiet_max: quiet_max.max(quiet_min), late, bytes_max }),
            origins: HashMap::new(),
            aside: Vec::new(),
            judging: JoinSet::new(),
            read_at: UnixNanos(0),
            stored: None,
            stored_at: None,
            is_sealed: false,
            config,
            counters,
        }
    }

    pub(super) fn begin(&mut self, cursor: Option<Offset>) {
        let from = cursor.unwrap_or_else(|| (self.head)());
        self.reader.seek(from);
        self.stored = cursor;
        (self.passed)(from);
    }

    fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.counters.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub(super) async fn run(&mut self, stop: &CancellationToken) {
        while !stop.is_cancelled() && !self.shared.stopping.is_cancelled() {
            self.rules().await;
            if !self.knows_rules {
                let _ = tokio::time::timeout(AGAIN, stop.cancelled()).await;
                continue;
            }
            if self.rules.is_empty() {
                self.rest(stop).await;
                continue;
            }
            self.read(stop).await;
            self.judge();
            while let Some(done) = self.judging.try_join_next() {
                self.done(done.ok());
            }
            self.shed();
            if let Err(error) = self.put_aside().await {
                tracing::warn!(error = %self.shared.told(&error), "decisions could not be written");
                continue;
            }
            self.remember().await;
            if self.is_sealed && self.judging.is_empty() && self.gather.oldest().is_none() {
                break;
            }
        }
        let grace = self.shared.config.grace;
        let all = async {
            while let Some(done) = self.judging.join_next().await {
                self.done(done.ok());
            }
        };
        let _ = tokio::time::timeout(grace, all).await;
        self.judging.shutdown().await;
        self.stored_at = None;
        if self.aside.is_empty() {
            self.remember().await;
        }
    }

    /// Reads the rules anew, if it is time or somebody changed one.
    async fn rules(&mut self) {
        let is_time = self.rules_at.is_none_or(|at| at.elapsed() >= self.config.rules_every);
        let is_told = self.shared.rules_changed.swap(false, std::sync::atomic::Ordering::AcqRel);
        if !is_time && !is_told {
            return;
        }
        self.rules_at = Some(Instant::now());
        let rules = match self.shared.store.rules().await {
            Ok(rules) => rules,
            Err(error) => {
                tracing::warn!(error = %self.shared.told(&error), "rules could not be read: those known go on");
                // Soon again.
                self.rules_at = None;
                return;
            }
        };
        let mut ready = Vec::new();
        let only = &self.config.only;
        let is_meant = |rule: &&Rule| only.as_ref().map_or(rule.is_enabled, |only| rule.name == *only);
        for rule in rules.iter().filter(is_meant) {
            let known = self.rules.iter().find(|known| (known.id, known.version) == (rule.id, rule.version));
            match known {
                // One whose evaluators could not be built, as a plugin's that was not ready, is tried again.
                Some(known) if known.evaluators.iter().all(|(_, live)| live.is_ok()) => ready.push(Arc::clone(known)),
                _ => match rule::ready(&self.shared, rule).await {
                    Ok(rule) => ready.push(Arc::new(rule)),
                    Err(why) => tracing::warn!(rule = %rule.name, why, "a rule cannot be read, and decides nothing"),
                },
            }
        }
        self.disabled(&ready);
        self.knows_rules = true;
        self.rules = Arc::new(ready);
    }

    /// Traces that a rule was waiting for when it was switched off.
    fn disabled(&mut self, enabled: &[Arc<Ready>]) {
        for rule in self.rules.iter().filter(|rule| !enabled.iter().any(|other| other.id == rule.id)) {
            for (trace, spans) in self.gather.undecided_traces().filter(|(trace, _)| rule.samples(*trace)) {
                self.aside.push(aside(rule.id, rule.version, trace, "disabled", None, spans as i64, self.shared.now()));
            }
        }
    }

    /// Nothing is judged: the log is not held up, and not read.
    async fn rest(&mut self, stop: &CancellationToken) {
        while let Some(done) = self.judging.join_next().await {
            self.done(done.ok());
        }
        self.gather = Gather::new(self.bounds());
        if let Err(error) = self.put_aside().await {
            tracing::warn!(error = %self.shared.told(&error), "decisions could not be written");
        }
        let head = (self.head)();
        self.reader.seek(head);
        self.remember().await;
        let wait = self.config.rules_every.min(Duration::from_secs(1));
        let _ = tokio::time::timeout(wait, stop.cancelled()).await;
    }

    fn bounds(&self) -> Bounds {
        let Config { quiet_min, quiet_max, late, bytes_max, .. } = self.config;
        Bounds { quiet_min, quiet_max: quiet_max.max(quiet_min), late, bytes_max }
    }

    /// Writes down where reading would begin again.
    async fn remember(&mut self) {
        if self.stored_at.is_some_and(|at| at.elapsed() < CURSOR_EVERY) {
            return;
        }
        let position = self.reader.position();
        let to = self.gather.oldest().map_or(position, |oldest| oldest.min(position));
        self.stored_at = Some(Instant::now());
        if self.stored == Some(to) {
            return;
        }
        let file = Arc::clone(&self.cursor);
        match tokio::task::spawn_blocking(move || file.store(to)).await {
            Ok(Ok(())) => {
                self.stored = Some(to);
                (self.passed)(to);
                self.count(|counters| counters.cursor = to.0);
            }
            Ok(Err(error)) => tracing::warn!(%error, "the cursor of live traffic could not be stored"),
            Err(_) => {}
        }
    }
}

fn aside(
    rule: Uuid,
    version: i64,
    trace: TraceId,
    decision: &str,
    detail: Option<String>,
    spans: i64,
    at: UnixNanos,
) -> Decision {
    Decision { rule, trace, version, epoch: 0, decision: decision.to_owned(), detail, spans, at }
}
