//! What emberd has written, held against what it was made of, and against what Phoenix has; set right where it differs.
//!
//! Promise: looking changes nothing. What is set right is set right by the ways that made it: rollups by their difference to the rows, rows by
//! recording their spans again, Phoenix by sending it what it lacks, experiments by the outbox; so a second look finds nothing, and
//! whoever records meanwhile loses nothing. What still moves is left alone.
//! Shape:   rollups against a recount of `prompt_traces`; `prompt_traces` against the spans of log and archive; spans against Phoenix;
//! evaluations against Phoenix's experiments; scores of live traces against its annotations (`scores`).
//! Not here: when it runs (`commands::reconcile`, and the daemon's own job by [`keep`]).
//! Kept by: `tests/it/reconcile.rs`, `emberd_store`'s `tests::recount`.

#[path = "reconcile/scores.rs"]
mod scores;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum as _;
use emberd_archive::keeping::Place;
use emberd_model::cost::Prices;
use emberd_model::ledger::{Origins, Tally, project_of};
use emberd_model::trace::{TraceState, fold};
use emberd_model::{Batch, Offset, SpanId, TraceId, UnixNanos, row, wire};
use emberd_store::jobs::EvaluationFilter;
use emberd_store::recount::Brief;
use emberd_store::{Booking, Moment, Recording, Store, Writer};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::config::Config;
use crate::replay::plan::Into;
use crate::replay::source::{Fed, Places, Source, Wanted};
use crate::wiring::known_log_name;
use crate::world::World;

/// What was received so lately may still be on its way to the tables, the archive and Phoenix.
pub(crate) const MOVING: Duration = Duration::from_secs(120);
/// Traces whose states are in memory at once: a pass over the spans is made for each such part of them.
const TRACES_AT_ONCE: u64 = 200_000;
/// Examples that are told of each part.
const EXAMPLES: usize = 5;
/// Spans that Phoenix is asked about at once.
const ASKED_AT_ONCE: usize = 500;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Part {
    /// Rollups against the rows
    Rollups,
    /// prompt_traces against the spans of log and archive
    Traces,
    /// Those spans against Phoenix
    Phoenix,
    /// Evaluations against Phoenix's experiments
    Evaluations,
    /// Scores of live traces against Phoenix's annotations
    Scores,
}

impl Part {
    /// Its word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rollups => "rollups",
            Self::Traces => "traces",
            Self::Phoenix => "phoenix",
            Self::Evaluations => "evaluations",
            Self::Scores => "scores",
        }
    }
}

/// What a comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Found {
    /// How many were compared: days of prompts, traces, spans, evaluations, scores.
    pub(crate) compared: u64,
    /// How many were other than they should be.
    pub(crate) different: u64,
    /// How many were not there.
    pub(crate) missing: u64,
    /// How many of both were set right.
    pub(crate) healed: u64,
    /// How many moved meanwhile.
    pub(crate) skipped: u64,
    /// Some of those that differ, in words.
    pub(crate) examples: Vec<String>,
}

impl Found {
    /// Whether nothing is left to do.
    pub(crate) fn is_well(&self) -> bool {
        self.different + self.missing <= self.healed
    }

    fn example(&mut self, words: impl FnOnce() -> String) {
        if self.examples.len() < EXAMPLES {
            self.examples.push(words());
        }
    }
}

/// The daemon's own reconciliation: every so often, of what came since the last one and a little more; until `stop`.
pub(crate) async fn keep(daemon: Arc<Kept>, stop: CancellationToken) {
    let Kept { config, world, store, log } = &*daemon;
    let (every, fix) = (config.reconcile.every, config.reconcile.fix);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let reconcile =
            Reconcile { config, world, store, log: log.clone(), since: every + every / 4, until: MOVING, fix };
        for part in Part::value_variants() {
            let found = tokio::select! {
                () = stop.cancelled() => return,
                found = reconcile.part(*part, &|_| ()) => found,
            };
            let part = part.name();
            match found {
                Ok(Found { compared, different: 0, missing: 0, .. }) => {
                    tracing::info!(part, compared, "reconciled: nothing differs")
                }
                Ok(Found { compared, different, missing, healed, examples, .. }) => {
                    tracing::warn!(
                        part,
                        compared,
                        different,
                        missing,
                        healed,
                        ?examples,
                        "reconciled: something differed"
                    );
                }
                Err(error) => tracing::warn!(part, error = format!("{error:#}"), "could not be reconciled"),
            }
        }
    }
}

/// What of the daemon outlives its assembly, for those who work beside it.
pub(crate) struct Kept {
    pub(crate) config: Config,
    pub(crate) world: World,
    pub(crate) store: Store,
    pub(crate) log: PathBuf,
}

/// Where everything is, and how far back to look.
pub(crate) struct Reconcile<'a> {
    pub(crate) config: &'a Config,
    pub(crate) world: &'a World,
    pub(crate) store: &'a Store,
    pub(crate) log: PathBuf,
    pub(crate) since: Duration,
    /// What came since then is left alone: [`MOVING`], if nobody says.
    pub(crate) until: Duration,
    pub(crate) fix: bool,
}

impl Reconcile<'_> {
    /// Compares one part; `told` hears how many were compared.
    pub(crate) async fn part(&self, part: Part, told: &(dyn Fn(u64) + Sync)) -> anyhow::Result<Found> {
        match part {
            Part::Rollups => self.rollups(told).await,
            Part::Traces => self.traces(told).await,
            Part::Phoenix => self.phoenix(told).await,
            Part::Evaluations => self.evaluations(told).await,
            Part::Scores => self.scores(told).await,
        }
    }

    async fn rollups(&self, told: &(dyn Fn(u64) + Sync)) -> anyhow::Result<Found> {
        let mut found = Found::default();
        let since = UnixNanos(self.now().0.saturating_sub(nanos(self.since)));
        let days = self.store.prompt_days(Moment::from(since)).await.context("cannot list the days")?;
        let prompts: BTreeSet<_> = days.iter().map(|day| day.prompt).collect();
        let mut take = |recount: emberd_store::recount::Recount, words: &dyn Fn() -> String| {
            found.compared += 1;
            found.skipped += u64::from(recount.is_unknown);
            if recount.different > 0 {
                found.different += 1;
                found.healed += u64::from(recount.is_fixed);
                found.example(|| format!("{}: off by {} traces", words(), recount.traces_off));
            }
            told(found.compared);
        };
        for day in days {
            let recount = self.store.recount(day, self.fix).await.context("cannot count a day again")?;
            let on = crate::told::moment(day.day * 86_400_000_000);
            take(recount, &|| format!("prompt {} on {}", day.prompt, &on[..10.min(on.len())]));
        }
        // Where old days' rollups are let go of, what is for ever is more than their sum.
        for prompt in prompts {
            let recount = self.store.recount_all(prompt, self.fix).await.context("cannot count a prompt again")?;
            take(recount, &|| format!("prompt {prompt} for ever"));
        }
        Ok(found)
    }

    async fn traces(&self, told: &(dyn Fn(u64) + Sync)) -> anyhow::Result<Found> {
        let mut spans = 0;
        self.each(None, |batch| spans += u64::from(batch.spans)).await?;
        let passes = spans.div_ceil(TRACES_AT_ONCE).max(1);
        let reading = self.config.recorder.reading();
        let prices = self.config.recorder.prices()?;
        let mut found = Found::default();
        for pass in 0..passes {
            let mut states: BTreeMap<TraceId, TraceState> = BTreeMap::new();
            self.each(None, |batch| {
                for (trace, state) in fold([batch], &reading) {
                    if trace.chance() % passes == pass {
                        states.entry(trace).and_modify(|known| _ = known.merge(&state)).or_insert(state);
                    }
                }
            })
            .await?;
            let ids: Vec<TraceId> = states.keys().copied().collect();
            let briefs = self.store.briefs(&ids).await.context("cannot read the rows")?;
            let rows: HashMap<TraceId, Brief> = briefs.into_iter().map(|brief| (brief.trace, brief)).collect();
            let mut wrong = BTreeMap::new();
            for (trace, state) in states {
                self.compare(trace, state, &rows, &prices, &mut found, &mut wrong);
                told(found.compared);
            }
            // What was let go of has no row, and shall have none.
            let lacking: Vec<TraceId> = wrong.keys().filter(|trace| !rows.contains_key(trace)).copied().collect();
            for trace in self.store.gone(&lacking).await.context("cannot read which traces went")? {
                wrong.remove(&trace);
                found.missing -= 1;
            }
            if self.fix && !wrong.is_empty() {
                found.healed += self.record(wrong, &prices).await?;
            }
        }
        Ok(found)
    }

    /// A trace's row, and what its spans say that it should be.
    fn compare(
        &self,
        trace: TraceId,
        state: TraceState,
        rows: &HashMap<TraceId, Brief>,
        prices: &Prices,
        found: &mut Found,
        wrong: &mut BTreeMap<TraceId, TraceState>,
    ) {
        let Some(row) = row::row(trace, &state, prices, true) else { return };
        found.compared += 1;
        let Some(stored) = rows.get(&trace) else {
            found.missing += 1;
            wrong.insert(trace, state);
            return;
        };
        let spans = state.spans() as i64;
        if stored.spans > spans {
            // Some of its spans were received before the time that is looked at, or are gone from log and archive.
            found.skipped += 1;
            return;
        }
        let is_same = stored.execution_time_ms == i64::from(row.execution_time_ms)
            && stored.status == row.status.as_str()
            && stored.model == row.model
            && stored.tokens == [row.tokens.prompt, row.tokens.completion, row.tokens.total];
        if !is_same {
            found.different += 1;
            found.example(|| format!("trace {trace} of {spans} spans: its row was made of {}", stored.spans));
            wrong.insert(trace, state);
        }
    }

    /// Records these traces again; how many of them are right now.
    async fn record(&self, states: BTreeMap<TraceId, TraceState>, prices: &Arc<Prices>) -> anyhow::Result<u64> {
        let ids: Vec<TraceId> = states.keys().copied().collect();
        let expected: HashMap<TraceId, u64> =
            states.iter().map(|(trace, state)| (*trace, state.spans() as u64)).collect();
        let recording = Recording {
            consumer: "reconcile".to_owned(),
            writer: Writer::new("reconcile"),
            from: Offset(0),
            to: Offset(0),
            now: self.now(),
            states,
            origins: Origins::default(),
            booked: Tally::default(),
            booking: Booking::Tell,
            prices: prices.clone(),
        };
        // A state that knows all of the spans would let nothing be written; what its row added is counted again below.
        self.store.unrecord(&ids).await.context("cannot take away what is wrong")?;
        self.store.record(recording).await.context("cannot record what is missing")?;
        self.rollups(&|_| ()).await?;
        self.store.publish(self.now()).await.context("cannot publish what was recorded")?;
        let briefs = self.store.briefs(&ids).await?;
        let is_right = |brief: &&Brief| expected.get(&brief.trace).is_some_and(|spans| brief.spans >= *spans as i64);
        Ok(briefs.iter().filter(is_right).count() as u64)
    }

    async fn phoenix(&self, told: &(dyn Fn(u64) + Sync)) -> anyhow::Result<Found> {
        let mut found = Found::default();
        if self.config.phoenix.otlp.is_none() {
            return Ok(found);
        }
        let client = self.config.phoenix.client()?;
        let mut asked: Vec<(String, SpanId)> = Vec::new();
        let mut lacking: HashSet<SpanId> = HashSet::new();
        let mut source = self.source(None)?;
        while let Some(fed) = source.next().await? {
            for span in wire::spans(&fed.entry.body) {
                asked.push((project_of(&span.resource).to_owned(), span.span.span_id));
            }
            if asked.len() >= ASKED_AT_ONCE {
                self.ask(&client, std::mem::take(&mut asked), &mut found, &mut lacking).await?;
                told(found.compared);
            }
        }
        self.ask(&client, asked, &mut found, &mut lacking).await?;
        if self.fix && !lacking.is_empty() {
            found.healed = self.send(&client, &lacking).await?;
        }
        Ok(found)
    }

    async fn ask(
        &self,
        client: &emberd_phoenix::Client,
        asked: Vec<(String, SpanId)>,
        found: &mut Found,
        lacking: &mut HashSet<SpanId>,
    ) -> anyhow::Result<()> {
        let sought: Vec<_> =
            asked.iter().map(|(project, span)| emberd_phoenix::client::Sought { project, span: *span }).collect();
        let held = client.held(&sought).await.context("cannot ask Phoenix what it has")?;
        let gone: Vec<SpanId> = asked.iter().map(|(_, span)| *span).filter(|span| !held.contains_key(span)).collect();
        // It may be there under another project.
        let elsewhere = client.whereabouts(&gone).await.context("cannot ask Phoenix what it has")?;
        let distinct: HashSet<SpanId> = asked.iter().map(|(_, span)| *span).collect();
        found.compared += distinct.len() as u64;
        for span in gone.into_iter().filter(|span| !elsewhere.contains_key(span)) {
            if lacking.insert(span) {
                found.missing += 1;
                found.example(|| format!("span {span} is not in Phoenix"));
            }
        }
        Ok(())
    }

    /// Sends Phoenix what it lacks, as the forwarder would; how many of the spans it has then.
    async fn send(&self, client: &emberd_phoenix::Client, lacking: &HashSet<SpanId>) -> anyhow::Result<u64> {
        let mut source = self.source(None)?;
        let mut traces = HashSet::new();
        while let Some(fed) = source.next().await? {
            let of = wire::spans(&fed.entry.body).filter(|found| lacking.contains(&found.span.span_id));
            traces.extend(of.map(|found| found.span.trace_id));
        }
        let source = self.source(Some(Arc::new(traces)))?;
        crate::replay::once(self.config, self.world, self.store, Into::Phoenix, source).await?;
        let spans: Vec<SpanId> = lacking.iter().copied().collect();
        let mut there = 0;
        for spans in spans.chunks(ASKED_AT_ONCE) {
            there += client.whereabouts(spans).await.context("cannot ask Phoenix what it has")?.len() as u64;
        }
        Ok(there)
    }

    async fn evaluations(&self, told: &(dyn Fn(u64) + Sync)) -> anyhow::Result<Found> {
        let mut found = Found::default();
        if self.config.phoenix.otlp.is_none() {
            return Ok(found);
        }
        let client = self.config.phoenix.client()?;
        for (evaluation, experiment) in self.told_evaluations().await.context("cannot list the evaluations")? {
            found.compared += 1;
            told(found.compared);
            match client.experiment(&experiment).await {
                Ok(there) if there.missing_run_count == 0 => continue,
                Ok(there) => {
                    let missing = there.missing_run_count;
                    found.different += 1;
                    found.example(|| {
                        format!("evaluation {evaluation}: {missing} runs of {experiment} are not in Phoenix")
                    });
                }
                Err(emberd_phoenix::rest::Error::NotFound { .. }) => {
                    found.missing += 1;
                    found.example(|| format!("evaluation {evaluation}: experiment {experiment} is not in Phoenix"));
                }
                Err(error) => return Err(error).context("cannot ask Phoenix for an experiment"),
            }
            if self.fix {
                let again = emberd_evaluators_jobs::outbox::tell_again(self.store, evaluation, self.now()).await?;
                found.healed += u64::from(again);
            }
        }
        Ok(found)
    }

    /// The evaluations that Phoenix was told of, each with its experiment there.
    async fn told_evaluations(&self) -> anyhow::Result<Vec<(Uuid, String)>> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.store.evaluations(&EvaluationFilter::default(), cursor.as_deref(), 500).await?;
            let told = page.data.into_iter().filter(|row| !row.phoenix_eval_id.starts_with("local:"));
            all.extend(told.map(|row| (row.id, row.phoenix_eval_id)));
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(all);
            }
        }
    }

    /// Every batch of the time that is looked at, in turn; of these traces, if there are some here.
    async fn each(&self, traces: Option<Arc<HashSet<TraceId>>>, mut each: impl FnMut(&Batch)) -> anyhow::Result<()> {
        let mut source = self.source(traces)?;
        while let Some(Fed { entry, .. }) = source.next().await? {
            let emberd_log::Entry { spans, received_at, key, flags, body } = entry;
            each(&Batch { offset: Offset(0), spans: spans.get(), received_at, key, flags, body });
        }
        Ok(())
    }

    fn source(&self, traces: Option<Arc<HashSet<TraceId>>>) -> anyhow::Result<Source> {
        let now = self.now();
        let from = UnixNanos(now.0.saturating_sub(nanos(self.since)));
        let to = UnixNanos(now.0.saturating_sub(nanos(self.until)));
        let places = Places { disk: self.world.disk.clone(), log: Some(self.log.clone()), archive: self.archive()? };
        Ok(Source::open(places, Wanted { from, to, traces }, None, 0))
    }

    /// The archive, and the log's own name there.
    fn archive(&self) -> anyhow::Result<Option<(Arc<dyn Place>, String)>> {
        if !self.config.archive.enabled {
            return Ok(None);
        }
        let name = known_log_name(&self.log)?;
        Ok(Some((self.config.archive.place(&self.config.data_dir)?, name.as_str().to_owned())))
    }

    fn now(&self) -> UnixNanos {
        self.world.clock.now()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
