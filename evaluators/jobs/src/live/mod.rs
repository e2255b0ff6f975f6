//! Rules on live traffic: traces are judged as they come, each once, and again when more of them comes.
//!
//! Promise: exactly the traces whose hash says so are judged by a rule ([`sample`]), whatever the order, the pieces and the repetitions in
//! which their spans come, and wherever emberd is restarted; of each (rule, trace) there is a decision that says what was done and why.
//! Memory is bounded in bytes: what does not fit is decided as `shed`. Without an enabled rule nothing is read.
//! Shape:    [`Live::run`] reads the log with a reader of its own and remembers in a cursor file where the oldest trace begins that may
//! still change; a restart reads from there, and what is decided already stays. Time is the log's own until its head is reached.
//! - [`rule`], [`filter`], [`sample`]: what is asked for. `gather`, `origin`, `lateness`: until a trace is complete. `seen`: a trace as
//!   evaluators see it. `decide`, `judge`: through the rules. `handle`: rules and reasons, for the API.
//!
//! Limits:   spans that come later than [`Config::late`] after their trace was decided are counted, and change nothing.
//! Not here: what an evaluator is (kit), money and rows (store), telling Phoenix (`outbox`).
//! Kept by:  `tests/live.rs`.

mod decide;
pub mod filter;
mod gather;
mod handle;
mod judge;
mod lateness;
mod origin;
pub mod rule;
pub mod sample;
mod seen;

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use emberd_log::{CursorError, CursorFile, ReadError, Reader};
use emberd_model::wire::spans;
use emberd_model::{Batch, Offset, TraceId, UnixNanos};
use emberd_store::jobs::Decision;
use futures_util::FutureExt as _;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use handle::{RuleError, Why};

use crate::engine::{Engine, Shared};
use decide::Told;
use gather::{Bounds, Gather, Taken, Whole};
use judge::Unjudged;
use origin::Origin;
use rule::Ready;

/// The name under which the log knows this consumer.
pub const CONSUMER: &str = "live";

/// After an error of the log's or the database's.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the cursor is written down.
const CURSOR_EVERY: Duration = Duration::from_secs(1);

/// How live traffic is judged.
#[derive(Clone, Debug)]
pub struct Config {
    /// How often rules are read anew; a change by this emberd counts at once.
    pub rules_every: Duration,
    /// Bytes of spans that are gathered.
    pub bytes_max: usize,
    /// A trace is quiet for at least so long before it is judged.
    pub quiet_min: Duration,
    /// And for at most so long; a trace without its root is then given up.
    pub quiet_max: Duration,
    /// How long a judged trace is held for spans that come late.
    pub late: Duration,
    /// Traces that are judged at the same time.
    pub concurrency: usize,
    /// Bytes read at a time.
    pub read_bytes: usize,
    /// How often complete traces are looked for.
    pub tick: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rules_every: Duration::from_secs(5),
            bytes_max: 64 << 20,
            quiet_min: Duration::from_secs(2),
            quiet_max: Duration::from_secs(600),
            late: Duration::from_secs(120),
            concurrency: 16,
            read_bytes: 2 << 20,
            tick: Duration::from_millis(200),
        }
    }
}

/// What the wiring hands in.
pub struct Parts {
    /// A reader of the log, wherever it stands.
    pub reader: Box<dyn Reader>,
    /// The log's head.
    pub head: Box<dyn Fn() -> Offset + Send + Sync>,
    /// Where the cursor is kept: [`CONSUMER`]'s.
    pub cursor: CursorFile,
    /// Hears of each durable cursor, for the log's sake.
    pub passed: Box<dyn Fn(Offset) + Send + Sync>,
    /// How.
    pub config: Config,
}

/// What happened since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Decisions `run`.
    pub run: u64,
    /// Traces that were complete again, and had nothing new.
    pub duplicate: u64,
    /// Decisions that came too late: another emberd's stands.
    pub superseded: u64,
    /// Decisions that are neither `run` nor `sampled_out`.
    pub other: u64,
    /// Traces that no rule samples.
    pub sampled_out: u64,
    /// Traces for which there was no memory.
    pub shed: u64,
    /// Spans that changed nothing: repeated.
    pub spans_repeated: u64,
    /// Spans of traces that are settled: sampled out, shed, or later than is waited for.
    pub spans_settled: u64,
    /// Spans of the log that could not be read any more.
    pub spans_lost: u64,
    /// Traces that are gathered now.
    pub open: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Up to where the log was read.
    pub position: u64,
    /// Where reading begins after a restart.
    pub cursor: u64,
}

/// The consumer of live traffic.
pub struct Live {
    shared: Arc<Shared>,
    parts: Mutex<Option<Parts>>,
    counters: Arc<Mutex<Counters>>,
}

impl Engine {
    /// The consumer that judges live traffic by rules, with this engine's evaluators, endpoints and money. Nothing runs before
    /// [`Live::run`].
    #[must_use]
    pub fn live(&self, parts: Parts) -> Live {
        Live { shared: Arc::clone(&self.shared), parts: Mutex::new(Some(parts)), counters: Arc::default() }
    }
}

impl Live {
    /// What happened since it began.
    #[must_use]
    pub fn counters(&self) -> Counters {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs until `stop`, or until the log is sealed and all of it is judged; once only. Traces that are with the rules then are judged again
    /// by whoever runs next. Dropped, it is as if killed.
    ///
    /// # Errors
    /// The cursor file cannot be read.
    pub async fn run(&self, stop: CancellationToken) -> Result<(), CursorError> {
        let parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(parts) = parts else { return Ok(()) };
        let cursor = match parts.cursor.load() {
            Ok(cursor) => cursor,
            // Reading more again costs nothing but time: what is decided stays.
            Err(error @ CursorError::Corrupt { .. }) => {
                tracing::warn!(%error, "rules on live traffic read the log again from its beginning");
                Some(parts.reader.position())
            }
            Err(error) => return Err(error),
        };
        let mut consumer = Consumer::new(Arc::clone(&self.shared), parts, Arc::clone(&self.counters));
        // A new consumer begins with what comes from now on.
        consumer.begin(cursor);
        consumer.run(&stop).await;
        Ok(())
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Live").field("counters", &self.counters()).finish_non_exhaustive()
    }
}

/// A trace that went through the rules.
struct Decided {
    trace: TraceId,
    /// None: it broke off.
    done: Option<Result<Told, Unjudged>>,
}

struct Consumer {
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
    fn new(shared: Arc<Shared>, parts: Parts, counters: Arc<Mutex<Counters>>) -> Self {
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

    fn begin(&mut self, cursor: Option<Offset>) {
        let from = cursor.unwrap_or_else(|| (self.head)());
        self.reader.seek(from);
        self.stored = cursor;
        (self.passed)(from);
    }

    fn count(&self, change: impl FnOnce(&mut Counters)) {
        change(&mut self.counters.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn run(&mut self, stop: &CancellationToken) {
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
        for rule in rules.iter().filter(|rule| rule.is_enabled) {
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

    /// Reads once, for a tick at most.
    async fn read(&mut self, stop: &CancellationToken) {
        let read = tokio::select! {
            () = stop.cancelled() => return,
            read = tokio::time::timeout(self.config.tick, self.reader.next(self.config.read_bytes)), if !self.is_sealed => read,
            () = tokio::time::sleep(self.config.tick), if self.is_sealed => return,
        };
        match read {
            Err(_) => {}
            Ok(Ok(batches)) if batches.is_empty() => self.is_sealed = true,
            Ok(Ok(batches)) => batches.iter().for_each(|batch| self.take(batch)),
            Ok(Err(error)) => self.unread(&error).await,
        }
        let position = self.reader.position().0;
        let (open, bytes) = (self.gather.len() as u64, self.gather.bytes() as u64);
        self.count(|counters| (counters.position, counters.open, counters.bytes) = (position, open, bytes));
    }

    async fn unread(&mut self, error: &ReadError) {
        tracing::warn!(%error, "live traffic cannot be read");
        let at = self.reader.position();
        let lost = match error {
            ReadError::Gone { tail, .. } => {
                self.reader.seek(*tail);
                tail.since(at)
            }
            ReadError::Ahead { head, .. } => {
                self.reader.seek(*head);
                0
            }
            ReadError::Damaged { from, to } => to.since(*from),
            _ => {
                tokio::time::sleep(AGAIN).await;
                0
            }
        };
        self.count(|counters| counters.spans_lost += lost);
    }

    fn take(&mut self, batch: &Batch) {
        self.read_at = self.read_at.max(batch.received_at);
        let (mut origin, mut passed) = (None, HashSet::new());
        let (mut repeated, mut settled, mut sampled_out) = (0, 0, 0);
        for found in spans(&batch.body) {
            let trace = found.span.trace_id;
            if trace == TraceId::default() || passed.contains(&trace) {
                continue;
            }
            if !self.gather.is_open(trace) {
                if self.gather.is_settled(trace) {
                    settled += 1;
                    continue;
                }
                if !self.begins(trace) {
                    sampled_out += 1;
                    passed.insert(trace);
                    continue;
                }
            }
            let index = found.resource.index;
            let from = match &origin {
                Some((known, origin)) if *known == index => Arc::clone(origin),
                _ => {
                    let read = self.origin(Origin::of(&found.resource));
                    origin = Some((index, Arc::clone(&read)));
                    read
                }
            };
            match self.gather.take(&found, &from, (batch.offset, batch.end()), batch.received_at) {
                Taken::Held => {}
                Taken::Duplicate => repeated += 1,
                Taken::Settled => settled += 1,
            }
        }
        self.count(|counters| {
            counters.spans_repeated += repeated;
            counters.spans_settled += settled;
            counters.sampled_out += sampled_out;
        });
    }

    /// The first span of a trace: which rules sample it. Whether any does.
    fn begins(&mut self, trace: TraceId) -> bool {
        let now = self.shared.now();
        let mut is_in = false;
        for rule in self.rules.iter() {
            if rule.samples(trace) {
                is_in = true;
            } else {
                self.aside.push(aside(rule.id, rule.version, trace, "sampled_out", None, 1, now));
            }
        }
        if !is_in {
            self.gather.settle(trace);
        }
        is_in
    }

    fn origin(&mut self, origin: Origin) -> Arc<Origin> {
        if self.origins.len() >= 1_000 {
            self.origins.clear();
        }
        Arc::clone(self.origins.entry(origin.encoded.clone()).or_insert_with(|| Arc::new(origin)))
    }

    /// The log's time: behind the head it stands still between batches.
    fn now(&self) -> UnixNanos {
        if self.is_sealed || self.reader.position() >= (self.head)() {
            self.shared.now().max(self.read_at)
        } else {
            self.read_at
        }
    }

    /// Gives complete traces to the rules.
    fn judge(&mut self) {
        let room = self.config.concurrency.max(1).saturating_sub(self.judging.len());
        let now = self.now();
        for whole in self.gather.due(now, room) {
            let (shared, rules) = (Arc::clone(&self.shared), self.rules_of(&whole));
            self.judging.spawn(async move {
                let done = AssertUnwindSafe(decide::decide(&shared, &rules, &whole)).catch_unwind().await;
                Decided { trace: whole.trace, done: done.ok() }
            });
        }
    }

    fn rules_of(&self, whole: &Whole) -> Vec<Arc<Ready>> {
        self.rules.iter().filter(|rule| rule.samples(whole.trace)).map(Arc::clone).collect()
    }

    fn done(&mut self, done: Option<Decided>) {
        let Some(Decided { trace, done }) = done else { return };
        let now = self.now();
        match done {
            Some(Ok(told)) => {
                self.gather.decided(trace, now);
                self.count(|counters| {
                    counters.run += told.run;
                    counters.duplicate += told.duplicate;
                    counters.superseded += told.superseded;
                    counters.other += told.other;
                });
            }
            None => {
                tracing::error!(%trace, "the judging of a trace broke off");
                self.gather.settle(trace);
            }
            Some(Err(unjudged)) => {
                tracing::debug!(%trace, ?unjudged, "a trace is judged again");
                self.gather.undecided(trace);
            }
        }
    }

    fn shed(&mut self) {
        let now = self.now();
        let shed = self.gather.shed(now);
        self.count(|counters| counters.shed += shed.len() as u64);
        for (trace, spans) in shed {
            for rule in self.rules.iter().filter(|rule| rule.samples(trace)) {
                let why = Some("there was no memory for it".to_owned());
                self.aside.push(aside(rule.id, rule.version, trace, "shed", why, spans as i64, self.shared.now()));
            }
        }
    }

    async fn put_aside(&mut self) -> Result<(), emberd_store::Error> {
        if self.aside.is_empty() {
            return Ok(());
        }
        decide::put_aside(&self.shared, self.aside.clone()).await?;
        self.aside.clear();
        Ok(())
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
