//! Brings a load to its endpoint, however often that takes.
//!
//! Promise: [`Courier::deliver`] returns when each span of the load is either acknowledged by the endpoint or durable in
//! quarantine with the endpoint's answer; a span goes into quarantine only for an answer that concerns it alone, from an
//! endpoint that takes others. Nothing is given up for want of time, of a key, of room or of a connection.
//! Not here: what an acknowledgement is worth (`verified.rs`), in what order loads go (`plain.rs`).
//! Kept by: `tests/faults.rs`, one test for each kind of answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use emberd_model::ledger::{Fate, Reason};
use emberd_model::{Clock, Offset};
use http::HeaderValue;
use tokio::time::Instant;

use super::answer::{Failure, Kind, Taken};
use super::circuit::{Backoff, Circuit};
use super::load::{Load, Part};
use super::transport::Transport;
use super::{Config, Error, Key};
use crate::Progress;
use crate::quarantine::{Item, Quarantine, booked};

/// Why spans are in quarantine that the endpoint took its request without.
const PARTIAL: &str = "partial_success";

/// Tries before a span that an ill endpoint breaks on is taken to be the cause.
const TRIES_ALONE: u32 = 3;

/// A load is never made smaller than this for an endpoint that finds loads too large; spans that are larger go alone.
const LOAD_BYTES_MIN: usize = 64 << 10;

pub(super) struct Courier {
    consumer: String,
    transport: Transport,
    /// A second door of the same endpoint, for a span that is too large for the first.
    wide: Option<Transport>,
    key: Option<Key>,
    circuit: Circuit,
    backoff: Backoff,
    patience: Duration,
    /// How large a load may be, as far as is known by now.
    bytes_max: AtomicUsize,
    /// How often a connection broke: what was acknowledged before may be lost to an endpoint that keeps it in memory.
    breaks: AtomicU64,
    /// Spans ever acknowledged, for telling an ill endpoint from a bad span.
    taken: AtomicU64,
    mends: bool,
    quarantine: Quarantine,
    progress: Arc<Progress>,
    clock: Arc<dyn Clock>,
}

/// How a load fared.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Delivered {
    /// The offsets of the spans that are in quarantine instead, and why.
    pub(super) aside: Vec<(Offset, Reason)>,
    /// Whether the endpoint was busy or did not answer in between.
    pub(super) was_slow: bool,
}

/// The end of trying to send one load.
enum End {
    Taken(Taken),
    /// It must go in smaller pieces.
    Split,
    /// Its only span will never be taken.
    Bad(Failure),
}

impl Courier {
    pub(super) fn new(
        config: &Config,
        quarantine: Quarantine,
        progress: Arc<Progress>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, Error> {
        let wide = config.phoenix.as_ref().map(|phoenix| phoenix.wide_door(&config.endpoint)).unwrap_or_default();
        let courier = Self {
            consumer: config.name.clone(),
            transport: Transport::new(&config.endpoint, config, clock.clone())?,
            wide: wide.map(|door| Transport::new(&door, config, clock.clone())).transpose()?,
            key: config.key.clone(),
            circuit: Circuit::new(config.backoff),
            backoff: config.backoff,
            patience: config.patience,
            bytes_max: AtomicUsize::new(config.load_bytes_max),
            breaks: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            mends: config.phoenix.is_some(),
            quarantine,
            progress,
            clock,
        };
        courier.read_key()?;
        Ok(courier)
    }

    /// How large a load may be, as far as is known by now.
    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max.load(Relaxed)
    }

    /// How often the connection to the endpoint broke.
    pub(super) fn breaks(&self) -> u64 {
        self.breaks.load(Relaxed)
    }

    /// The connection broke elsewhere.
    pub(super) fn note_break(&self) {
        self.breaks.fetch_add(1, Relaxed);
    }

    pub(super) fn quarantine(&self) -> &Quarantine {
        &self.quarantine
    }

    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Reads the API key and uses it from now on.
    pub(super) fn read_key(&self) -> Result<(), Error> {
        let Some(key) = &self.key else { return Ok(()) };
        let mut header = HeaderValue::from_str(&format!("Bearer {}", key.read()?)).map_err(|_| Error::KeyText)?;
        header.set_sensitive(true);
        for transport in self.wide.iter().chain([&self.transport]) {
            transport.set_authorization(Some(header.clone()));
        }
        Ok(())
    }

    /// Delivers a load. What the endpoint will never take is put into quarantine.
    pub(super) async fn deliver(&self, load: Load) -> Delivered {
        self.deliver_all(load, true).await
    }

    /// Delivers a load that is in quarantine already.
    pub(super) async fn deliver_again(&self, load: Load) -> Delivered {
        self.deliver_all(load, false).await
    }

    async fn deliver_all(&self, load: Load, puts_aside: bool) -> Delivered {
        let mut delivered = Delivered::default();
        let mut stack = vec![load];
        let taken_before = self.taken.load(Relaxed);
        while let Some(load) = stack.pop() {
            let (load, end) = self.send_until_it_ends(load, taken_before, &mut delivered).await;
            match end {
                End::Taken(Taken { rejected: 0, said }) if said.is_empty() => {}
                End::Taken(taken) => {
                    let rejected = self.take_note(&load, taken, puts_aside).await;
                    // Which ones, the endpoint does not say.
                    let some = load.offsets().take(rejected as usize);
                    delivered.aside.extend(some.map(|at| (at, Reason::new(PARTIAL))));
                }
                End::Split => match load.halves() {
                    // The left half on top: spans go out in their order.
                    Ok([left, right]) => stack.extend([right, left]),
                    Err(single) => stack.push(single),
                },
                End::Bad(failure) => {
                    let reason = Reason::new(failure.class());
                    delivered.aside.extend(load.offsets().map(|at| (at, reason.clone())));
                    if puts_aside {
                        self.put_aside(&load, load.spans, failure.class(), failure.said).await;
                    }
                    self.progress.succeeded();
                }
            }
        }
        delivered
    }

    /// Sends a load until something is known about it. The load comes back, mended if that was tried.
    async fn send_until_it_ends(&self, mut load: Load, taken_before: u64, delivered: &mut Delivered) -> (Load, End) {
        let (mut tries, mut mended, mut wide, begun) = (0, false, false, Instant::now());
        loop {
            let pass = self.circuit.pass().await;
            let transport = self.wide.as_ref().filter(|_| wide).unwrap_or(&self.transport);
            let failure = match transport.send(&load).await {
                Ok(taken) => {
                    pass.went_well();
                    self.taken.fetch_add(load.spans, Relaxed);
                    self.progress.succeeded();
                    return (load, End::Taken(taken));
                }
                Err(failure) => failure,
            };
            self.progress.failed(failure.class(), &failure);
            match failure.kind {
                Kind::Busy | Kind::Unreachable | Kind::TimedOut => {
                    delivered.was_slow = true;
                    if failure.kind == Kind::Unreachable {
                        self.note_break();
                    }
                    tracing::warn!(consumer = %self.consumer, class = failure.class(), error = %failure, "spans wait");
                    pass.failed(failure.wait);
                }
                Kind::Unauthorized => {
                    tracing::error!(consumer = %self.consumer, error = %failure, "the endpoint refuses the api key: spans wait");
                    if let Err(error) = self.read_key() {
                        self.progress.failed("unauthorized", &error);
                    }
                    pass.failed(failure.wait);
                }
                Kind::Misdirected => {
                    tracing::error!(consumer = %self.consumer, error = %failure, "nobody takes spans at the endpoint: spans wait");
                    pass.failed(failure.wait);
                }
                Kind::TooLarge if load.spans > 1 => {
                    pass.went_well();
                    self.bytes_max.fetch_min((load.bytes / 2).max(LOAD_BYTES_MIN), Relaxed);
                    return (load, End::Split);
                }
                Kind::TooLarge => {
                    pass.went_well();
                    if wide || self.wide.is_none() {
                        return (load, End::Bad(failure));
                    }
                    wide = true;
                }
                Kind::Refused | Kind::Broken => {
                    tries += 1;
                    let is_content = failure.kind == Kind::Refused;
                    let alive = self.taken.load(Relaxed) > taken_before || self.is_alive(&load, is_content).await;
                    if !alive {
                        tracing::error!(consumer = %self.consumer, error = %failure, "the endpoint takes nothing: spans wait");
                        pass.failed(failure.wait);
                        continue;
                    }
                    pass.went_well();
                    if self.mends && !mended {
                        mended = true;
                        if let Some(better) = mended_load(&load) {
                            load = better;
                            continue;
                        }
                    }
                    if load.spans > 1 {
                        return (load, End::Split);
                    }
                    // What broke on it once may have been broken anyway.
                    if is_content || (tries >= TRIES_ALONE && begun.elapsed() >= self.patience) {
                        return (load, End::Bad(failure));
                    }
                    tokio::time::sleep((self.patience / TRIES_ALONE).max(self.backoff.base)).await;
                }
            }
        }
    }

    /// Whether the endpoint takes anything at all: a request without spans, which any takes that works.
    ///
    /// For several spans that were refused, it is enough that they will be tried one by one.
    async fn is_alive(&self, load: &Load, is_content: bool) -> bool {
        (is_content && load.spans > 1) || self.transport.send(&Load::default()).await.is_ok()
    }

    /// A success that was none for some spans, or that came with a warning. OTLP: never send those again. Says how many.
    async fn take_note(&self, load: &Load, taken: Taken, puts_aside: bool) -> u64 {
        let rejected = taken.rejected.min(load.spans);
        tracing::warn!(consumer = %self.consumer, rejected, of = load.spans, said = taken.said, "taken with a remark");
        if rejected > 0 {
            let answer = format!("{rejected} of {}, unknown which: {}", load.spans, taken.said);
            self.progress.failed("partial_success", &answer);
            self.progress.succeeded();
            if puts_aside {
                self.put_aside(load, rejected, PARTIAL, answer).await;
            }
        }
        rejected
    }

    /// Puts a load into quarantine, `spans` of it being bad; however long the disk takes to let it.
    pub(super) async fn put_aside(&self, load: &Load, spans: u64, reason: &str, answer: String) {
        let ids: Vec<_> = load.parts.iter().flat_map(|part| part.ids().collect::<Vec<_>>()).collect();
        let mut traces: Vec<_> = ids.iter().map(|(trace, _)| trace.to_string()).collect();
        traces.dedup();
        let item = Item {
            consumer: self.consumer.clone(),
            offset: load.parts.first().map_or(0, |part| part.first.0),
            spans,
            traces,
            span_ids: ids.iter().map(|(_, span)| span.to_string()).collect(),
            reason: reason.to_owned(),
            answer,
            at_micros: self.clock.now().micros(),
            accounts: booked(&load.tally(spans, &Fate::Done)),
            retries: 0,
        };
        tracing::warn!(consumer = %self.consumer, offset = item.offset, spans, reason, answer = item.answer, "into quarantine");
        let mut failures = 0;
        loop {
            let (quarantine, item, body) = (self.quarantine.clone(), item.clone(), load.body());
            match tokio::task::spawn_blocking(move || quarantine.put(&item, &body)).await {
                Ok(Ok(_is_new)) => return,
                Ok(Err(error)) => self.progress.failed("quarantine", &error),
                Err(error) => self.progress.failed("quarantine", &error),
            }
            failures += 1;
            tokio::time::sleep(self.backoff.wait(failures)).await;
        }
    }
}

/// The load mended for Phoenix, if that changes anything: the walk's flag errs towards yes, but it need not be right.
fn mended_load(load: &Load) -> Option<Load> {
    let mut changed = false;
    let mut better = Load::default();
    for part in &load.parts {
        let mended = emberd_phoenix::mend(&part.body).ok()?;
        changed |= mended.changed && mended.unforwardable.is_empty();
        better.push(Part { body: mended.body, ..part.clone() });
    }
    changed.then_some(better)
}
