//! What a recording and a pass over rootless traces do: states in; rows, rollups and marks out.
//!
//! Promise: rollups equal the fold over the rows, in every transaction: for each trace that changes, what it added before is taken
//! away where it was added (both stand in its state), and what its new row adds is added. A trace of which nothing new is said costs
//! a load and no write.
//! Kept by:  `tests::any_order_split_and_repetition_gives_the_same`.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use emberd_model::TraceId;
use emberd_model::cost::Prices;
use emberd_model::ledger::{Fate, Reason, Tally};
use emberd_model::rollup::{Contribution, Rollup};
use emberd_model::row::{Row, row};
use emberd_model::trace::TraceState;
use uuid::Uuid;

use crate::Moment;
use crate::fault::Fault;
use crate::library::UNASSIGNED;
use crate::record::{Booking, Recorded, Recording, Rootless, RootlessDone, Writer};
use crate::text::{self, Name};
use crate::told::Told;
use crate::tx::{Counted, Found, Key, Resolution, Resolved, Stored, Tx, Work};

const MICROS_PER_MINUTE: i64 = 60_000_000;
/// Why a span of a trace long quiet is left out, and one of a trace whose state cannot be read.
const SETTLED: &str = "settled";
const UNREADABLE: &str = "unreadable_state";
/// Traces whose states are in memory at once: a state may have 256 KiB, and more in a statement gains nothing.
const CHUNK: usize = 1_000;

/// Stretches of one log, each from where the one before ends, in one transaction: what they do to a rollup is written once.
pub(crate) struct Recordings {
    all: Vec<Recording>,
    /// Empty yet.
    told: Told,
}

impl Recordings {
    pub(crate) fn new(all: Vec<Recording>, told: Told) -> Self {
        Self { all, told }
    }
}

impl Work for Recordings {
    type Done = Recorded;
    const TRUSTED: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T, attempt: u32) -> Result<Recorded, Fault> {
        let mut all = Recorded { retries: attempt, told: self.told.clone(), ..Recorded::default() };
        let mut deltas = Deltas::default();
        for recording in &self.all {
            let recorded = recording.apply(tx, attempt, &mut deltas, &mut all.told).await?;
            all.add(&recorded);
        }
        if let Some(first) = self.all.first() {
            deltas.write(tx, &first.writer).await?;
        }
        Ok(all)
    }
}

/// A trace that changed: its state as it shall be stored (`version` still that of the load, bytes not yet written) and decoded.
struct Changed<'a> {
    stored: Stored,
    state: Cow<'a, TraceState>,
}

impl Recording {
    /// All that it does but what it adds to the rollups.
    async fn apply<T: Tx>(
        &self,
        tx: &mut T,
        attempt: u32,
        deltas: &mut Deltas,
        told: &mut Told,
    ) -> Result<Recorded, Fault> {
        tx.own(&self.writer).await?;
        if attempt > 0 {
            tx.reserve_prompt().await?;
        }
        let now = Moment::from(self.now);
        if !tx.move_cursor(&self.consumer, &self.writer, self.from, self.to).await? {
            let found = tx.cursor(&self.consumer, &self.writer).await?;
            return Err(Fault::Cursor { expected: self.from, found });
        }
        let mut recorded = Recorded { retries: attempt, tally: self.booked.clone(), ..Recorded::default() };
        let traces: Vec<TraceId> = self.states.keys().copied().collect();
        for traces in traces.chunks(CHUNK) {
            let changed = self.merged(tx, traces, attempt > 0, now, &mut recorded).await?;
            recorded.rows += write(tx, &self.prices, changed, &HashSet::new(), deltas, told).await?;
        }
        let is_written = match &self.booking {
            Booking::Write => true,
            Booking::Tell => false,
            Booking::Release(item) => {
                let is_new = tx.release(&self.consumer, &self.writer, item).await?;
                if !is_new {
                    recorded.tally = Tally::default();
                }
                is_new
            }
        };
        if is_written {
            tx.set_origin(&self.consumer, &self.writer, self.from.signed(), true).await?;
            tx.put_ledger(&self.consumer, &self.writer, &recorded.tally).await?;
        }
        Ok(recorded)
    }

    /// These of the recording's traces joined with what is stored of them, without those that say nothing new or come too late.
    async fn merged<T: Tx>(
        &self,
        tx: &mut T,
        traces: &[TraceId],
        lock: bool,
        now: Moment,
        recorded: &mut Recorded,
    ) -> Result<Vec<Changed<'_>>, Fault> {
        let known = tx.known(traces, lock).await?;
        let mut stored: HashMap<TraceId, Stored> =
            known.states.into_iter().map(|stored| (stored.trace, stored)).collect();
        let settled: HashSet<TraceId> = known.settled.into_iter().collect();
        let touched = Moment::from_micros(now.micros().div_euclid(MICROS_PER_MINUTE) * MICROS_PER_MINUTE);

        let mut changed = Vec::with_capacity(traces.len());
        for &trace in traces {
            let Some(partial) = self.states.get(&trace) else { continue };
            let spans = self.origins.spans(trace);
            // Of a trace with more spans than are kept, a repeated one cannot be told from a new one.
            let is_whole = !partial.has_dropped_spans();
            let Some(mut before) = stored.remove(&trace) else {
                if settled.contains(&trace) {
                    recorded.late += 1;
                    self.origins.book(trace, 0, &Fate::Shed(Reason::new(SETTLED)), &mut recorded.tally);
                } else {
                    recorded.new += 1;
                    let distinct = if is_whole { partial.spans() as u64 } else { spans };
                    self.origins.book(trace, distinct, &Fate::Duplicate, &mut recorded.tally);
                    let stored = Stored {
                        trace,
                        place: 0,
                        version: 0,
                        state: Vec::new(),
                        first_seen: now,
                        touched,
                        waiting: false,
                        counted: None,
                    };
                    changed.push(Changed { stored, state: Cow::Borrowed(partial) });
                }
                continue;
            };
            let Ok(mut state) = TraceState::decode(&before.state) else {
                recorded.unreadable += 1;
                self.origins.book(trace, 0, &Fate::Shed(Reason::new(UNREADABLE)), &mut recorded.tally);
                continue;
            };
            let is_whole = is_whole && !state.has_dropped_spans();
            let unknown = if is_whole { state.unknown_of(partial) as u64 } else { spans };
            self.origins.book(trace, unknown, &Fate::Duplicate, &mut recorded.tally);
            if state.merge(partial) {
                recorded.merged += 1;
                before.touched = touched;
                changed.push(Changed { stored: before, state: Cow::Owned(state) });
            } else {
                recorded.unchanged += 1;
            }
        }
        Ok(changed)
    }
}

/// A pass over traces without a root.
pub(crate) struct RootlessPass {
    pub(crate) pass: Rootless,
    /// Empty yet.
    pub(crate) told: Told,
}

impl Work for RootlessPass {
    type Done = RootlessDone;
    const TRUSTED: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T, attempt: u32) -> Result<RootlessDone, Fault> {
        let Self { pass, told } = self;
        let mut told = told.clone();
        tx.own(&pass.writer).await?;
        if attempt > 0 {
            tx.reserve_prompt().await?;
        }
        let wait = i64::try_from(pass.wait.as_micros()).unwrap_or(i64::MAX);
        let before = Moment::from_micros(Moment::from(pass.now).micros().saturating_sub(wait));
        let mut due = tx.waiting(before, pass.limit).await?;
        let all = due.len() < pass.limit as usize;
        due.sort_unstable_by_key(|stored| stored.trace);

        let mut changed = Vec::with_capacity(due.len());
        let mut unreadable = Vec::new();
        for stored in due {
            match TraceState::decode(&stored.state) {
                Ok(state) => changed.push(Changed { stored, state: Cow::Owned(state) }),
                // Whatever it was, it shall not be looked at again and again.
                Err(_) => unreadable.push(Stored { waiting: false, version: stored.version + 1, ..stored }),
            }
        }
        let due = changed.iter().map(|changed| changed.stored.trace).collect();
        let mut deltas = Deltas::default();
        let written = write(tx, &pass.prices, changed, &due, &mut deltas, &mut told).await?;
        tx.put(&unreadable, &[]).await?;
        deltas.write(tx, &pass.writer).await?;
        let next = match tx.waiting_longest().await? {
            Some(_) if !all => Some(pass.now),
            since => since.map(|since| Moment::from_micros(since.micros().saturating_add(wait)).nanos()),
        };
        Ok(RootlessDone { written, next, told })
    }
}

/// Writes changed traces and their rows; says how many rows, and adds what follows for the rollups. `due`: those that get a row though
/// they have no root.
async fn write<T: Tx>(
    tx: &mut T,
    prices: &Prices,
    changed: Vec<Changed<'_>>,
    due: &HashSet<TraceId>,
    deltas: &mut Deltas,
    told: &mut Told,
) -> Result<u64, Fault> {
    let mut states = Vec::with_capacity(changed.len());
    let mut rows = Vec::with_capacity(changed.len());
    for Changed { mut stored, state } in changed {
        // A row once written without a root stays, and follows what comes.
        let rootless = due.contains(&stored.trace) || stored.counted.is_some();
        let row = row(stored.trace, &state, prices, rootless);
        stored.waiting = row.is_none()
            && stored.counted.is_none()
            && !due.contains(&stored.trace)
            && state.deserves_row()
            && !state.has_root();
        stored.version += 1;
        stored.state = state.encode();
        rows.extend(row.map(|row| (states.len(), row)));
        states.push(stored);
    }
    let rows = resolve(tx, rows).await?;

    for resolved in &rows {
        let counted = Counted { prompt: resolved.prompt, contribution: Contribution::of(&resolved.row) };
        if let Some(before) = states[resolved.at].counted.replace(counted) {
            deltas.add(&before, -1);
        }
        deltas.add(&counted, 1);
    }
    tx.put(&states, &rows).await?;
    told.add(&rows);
    Ok(rows.len() as u64)
}

/// Looks up whom the rows name, each name once.
async fn resolve<T: Tx>(tx: &mut T, rows: Vec<(usize, Row)>) -> Result<Vec<Resolved>, Fault> {
    let prompts = Names::of(rows.iter().filter_map(|(_, row)| row.prompt_ref.as_deref()));
    let prompts = match prompts.is_empty() {
        true => Found::default(),
        false => tx.prompts_named(&prompts.ids, &prompts.texts).await?,
    };
    let users = Names::of(rows.iter().filter_map(|(_, row)| row.user_ref.as_deref()));
    let users = match users.is_empty() {
        true => Found::default(),
        false => tx.profiles_named(&users.ids, &users.texts).await?,
    };
    Ok(rows
        .into_iter()
        .map(|(at, mut row)| {
            let prompt = row.prompt_ref.as_deref().and_then(|name| prompts.get(name)).unwrap_or(UNASSIGNED);
            let user = row.user_ref.as_deref().and_then(|name| users.get(name));
            let metadata = text::json(std::mem::take(&mut row.metadata));
            Resolved { at, row, prompt, user, metadata }
        })
        .collect())
}

/// Distinct names, sorted.
pub(crate) struct Names<'a> {
    pub(crate) ids: Vec<Uuid>,
    pub(crate) texts: Vec<&'a str>,
}

impl<'a> Names<'a> {
    pub(crate) fn of(names: impl Iterator<Item = &'a str>) -> Self {
        let (mut ids, mut texts) = (BTreeSet::new(), BTreeSet::new());
        for name in names {
            match text::name(name) {
                Name::Id(id) => ids.insert(id),
                // PostgreSQL has no text with NUL, so none can be named by one.
                Name::Text(text) => !text.contains('\0') && texts.insert(text),
            };
        }
        Self { ids: ids.into_iter().collect(), texts: texts.into_iter().collect() }
    }

    fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.texts.is_empty()
    }
}

impl Found {
    /// Whom this text names.
    pub(crate) fn get(&self, name: &str) -> Option<Uuid> {
        match text::name(name) {
            Name::Id(id) => self.ids.contains(&id).then_some(id),
            Name::Text(text) => self.texts.get(text).copied(),
        }
    }
}

/// What the hours of prompts gain and lose in a transaction.
#[derive(Default)]
pub(crate) struct Deltas(BTreeMap<(Uuid, i64), Rollup>);

impl Deltas {
    pub(crate) fn add(&mut self, counted: &Counted, sign: i64) {
        self.0.entry((counted.prompt, counted.contribution.hour)).or_default().add(&counted.contribution, sign);
    }

    /// Brings them into the writer's rollups, and marks the hours. An hour that gains what it loses is marked too: its rows changed.
    pub(crate) async fn write<T: Tx>(self, tx: &mut T, writer: &Writer) -> Result<(), Fault> {
        let hours: Vec<(Uuid, i64)> = self.0.keys().copied().collect();
        let mut deltas: BTreeMap<Key, Rollup> = BTreeMap::new();
        for ((prompt, hour), delta) in self.0.into_iter().filter(|(_, delta)| !delta.is_empty()) {
            for resolution in [Resolution::Hour, Resolution::Day, Resolution::All] {
                let key = Key { prompt, resolution, bucket: resolution.bucket(hour) };
                deltas.entry(key).or_default().merge(&delta);
            }
        }
        let keys: Vec<Key> = deltas.keys().copied().collect();
        for (key, rollup) in tx.rollups_of(writer, &keys).await? {
            deltas.entry(key).or_default().merge(&rollup);
        }
        let rollups: Vec<(Key, Rollup)> = deltas.into_iter().collect();
        tx.put_rollups(writer, &rollups).await?;
        tx.mark(&hours).await
    }
}
