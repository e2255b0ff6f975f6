//! Scores of live traces, held against Phoenix's annotations; told again where they lack or say something else.
//!
//! Promise: a score is compared by what it says (its number and its label) where its trace's spans are known; a score whose trace is neither in log
//! nor archive any more is passed over, for nobody knows its project. Annotations under other identifiers are not touched.
//! Kept by: `tests/it/reconcile.rs`, against the real Phoenix.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use anyhow::Context;
use emberd_evaluators_jobs::outbox;
use emberd_model::ledger::project_of;
use emberd_model::trace::{TraceState, fold};
use emberd_model::{TraceId, UnixNanos, row, wire};
use emberd_phoenix::Client;
use emberd_phoenix::annotations::{Annotation, BATCH, Level, Sought, Stored};
use emberd_phoenix::rest;
use emberd_store::jobs::{Rule, Subject, TraceScore};
use uuid::Uuid;

use super::{Found, Reconcile, nanos};

/// Traces whose scores are in memory at once: a pass over the spans is made for each such part of them.
const TRACES_AT_ONCE: u32 = 5_000;

/// What the spans of a trace say of it.
#[derive(Default)]
struct Home {
    /// Phoenix has it in one of these projects.
    projects: BTreeSet<String>,
    session: Option<String>,
}

/// An annotation that should be in Phoenix, and in which of these projects.
struct Due<'h> {
    annotation: Annotation,
    projects: &'h BTreeSet<String>,
}

/// Phoenix, and what it calls projects.
struct There {
    client: Client,
    projects: HashMap<String, Option<String>>,
}

impl Reconcile<'_> {
    pub(super) async fn scores(&self, told: &(dyn Fn(u64) + Sync)) -> anyhow::Result<Found> {
        let mut found = Found::default();
        if self.config.phoenix.otlp.is_none() {
            return Ok(found);
        }
        let mut there = There { client: self.config.phoenix.client()?, projects: HashMap::new() };
        let rules = self.store.rules().await.context("cannot list the rules")?;
        let rules: HashMap<Uuid, Rule> = rules.into_iter().map(|rule| (rule.id, rule)).collect();
        let ago = |time| UnixNanos(self.now().0.saturating_sub(nanos(time)));
        let (since, until, mut after) = (ago(self.since), ago(self.until), None);
        loop {
            let traces = self.store.scored_traces(since, until, after, TRACES_AT_ONCE).await;
            let traces = traces.context("cannot list the traces with scores")?;
            let Some(last) = traces.last() else { return Ok(found) };
            after = Some(*last);
            let mut scores = BTreeMap::new();
            for trace in traces {
                scores.insert(trace, self.store.trace_scores(trace).await.context("cannot read scores")?);
            }
            let homes = self.homes(&scores).await?;
            let mut due = Vec::new();
            for (trace, scores) in &scores {
                let Some(home) = homes.get(trace) else {
                    found.skipped += scores.len() as u64;
                    continue;
                };
                let decisions = self.store.decisions_of(*trace).await.context("cannot read decisions")?;
                for score in scores {
                    let Some(rule) = rules.get(&score.rule) else { continue };
                    let decision = decisions.iter().find(|decision| decision.rule == score.rule);
                    let annotation = outbox::due(score, rule, decision, home.session.as_deref());
                    due.extend(annotation.map(|annotation| Due { annotation, projects: &home.projects }));
                }
            }
            for due in due.chunks(BATCH) {
                let wrong = there.wrong(due, &mut found).await?;
                told(found.compared);
                if self.fix {
                    found.healed += there.tell(&wrong, &mut found).await?;
                }
            }
        }
    }

    /// Projects of these traces, and the sessions of those that have a score of theirs.
    async fn homes(&self, scores: &BTreeMap<TraceId, Vec<TraceScore>>) -> anyhow::Result<HashMap<TraceId, Home>> {
        let is_of_session = |score: &TraceScore| score.subject == Subject::Session;
        let of_sessions: HashSet<TraceId> =
            scores.iter().filter(|(_, scores)| scores.iter().any(is_of_session)).map(|(trace, _)| *trace).collect();
        let reading = self.config.recorder.reading();
        let mut homes: HashMap<TraceId, Home> = HashMap::new();
        let mut states: HashMap<TraceId, TraceState> = HashMap::new();
        let wanted: HashSet<TraceId> = scores.keys().copied().collect();
        self.each(Some(Arc::new(wanted)), |batch| {
            for found in wire::spans(&batch.body).filter(|found| scores.contains_key(&found.span.trace_id)) {
                let home = homes.entry(found.span.trace_id).or_default();
                let project = project_of(&found.resource);
                if !home.projects.contains(project) {
                    home.projects.insert(project.to_owned());
                }
            }
            // Only a session's name has to be put together of all spans.
            if of_sessions.is_empty() {
                return;
            }
            for (trace, state) in fold([batch], &reading) {
                if of_sessions.contains(&trace) {
                    states.entry(trace).and_modify(|known| _ = known.merge(&state)).or_insert(state);
                }
            }
        })
        .await?;
        let prices = self.config.recorder.prices()?;
        for (trace, state) in states {
            let row = row::row(trace, &state, &prices, true);
            let told = row.and_then(|row| serde_json::from_str::<serde_json::Value>(&row.metadata).ok());
            if let Some(home) = homes.get_mut(&trace) {
                home.session = told.and_then(|told| Some(told.get("session_id")?.as_str()?.to_owned()));
            }
        }
        Ok(homes)
    }
}

impl There {
    /// Phoenix's id of a project; none: it has none of this name.
    async fn project(&mut self, name: &str) -> anyhow::Result<Option<String>> {
        if let Some(known) = self.projects.get(name) {
            return Ok(known.clone());
        }
        let id = self.client.project_id(name).await.context("cannot ask Phoenix for a project")?;
        self.projects.insert(name.to_owned(), id.clone());
        Ok(id)
    }

    /// Those that Phoenix lacks, or that say something else there.
    async fn wrong(&mut self, due: &[Due<'_>], found: &mut Found) -> anyhow::Result<Vec<Annotation>> {
        let mut asked: BTreeMap<(&str, &'static str), (Level, BTreeSet<String>)> = BTreeMap::new();
        for Due { annotation, projects } in due {
            let level = annotation.target.level();
            for project in *projects {
                let of = asked.entry((project, name(level))).or_insert_with(|| (level, BTreeSet::new()));
                of.1.insert(annotation.target.id());
            }
        }
        let mut held: HashMap<(String, String, String), Stored> = HashMap::new();
        for ((project, _), (level, targets)) in asked {
            let Some(project) = self.project(project).await? else { continue };
            let targets: Vec<String> = targets.into_iter().collect();
            let sought = Sought { targets: &targets, ..Sought::default() };
            match self.client.annotations(level, &project, &sought).await {
                Ok(all) => held.extend(
                    all.into_iter().map(|one| ((one.target.clone(), one.name.clone(), one.identifier.clone()), one)),
                ),
                Err(rest::Error::NotFound { .. }) => {}
                Err(error) => return Err(error).context("cannot ask Phoenix for annotations"),
            }
        }
        let mut wrong = Vec::new();
        for Due { annotation, .. } in due {
            found.compared += 1;
            let key = (annotation.target.id(), annotation.name.clone(), annotation.identifier.clone());
            let words = |what: &str| format!("{} of {} {}: {what}", key.1, name(annotation.target.level()), key.0);
            match held.get(&key) {
                None => {
                    found.missing += 1;
                    found.example(|| words("not in Phoenix"));
                }
                Some(stored) if says(stored) != (annotation.judgement.score, annotation.judgement.label.as_deref()) => {
                    found.different += 1;
                    found.example(|| words("something else in Phoenix"));
                }
                Some(_) => continue,
            }
            wrong.push(annotation.clone());
        }
        Ok(wrong)
    }

    /// Tells these; gives how many Phoenix has now.
    async fn tell(&self, wrong: &[Annotation], found: &mut Found) -> anyhow::Result<u64> {
        match self.client.annotate(wrong).await {
            Ok(done) => Ok(done.written as u64),
            // One of them spoils it for all: each for itself.
            Err(rest::Error::Refused { .. } | rest::Error::Unfit { .. }) if wrong.len() > 1 => {
                let mut written = 0;
                for one in wrong {
                    written += Box::pin(self.tell(std::slice::from_ref(one), found)).await?;
                }
                Ok(written)
            }
            Err(error @ (rest::Error::Refused { .. } | rest::Error::Unfit { .. })) => {
                found.example(|| error.to_string());
                Ok(0)
            }
            Err(error) => Err(error).context("cannot tell Phoenix of scores"),
        }
    }
}

fn says(stored: &Stored) -> (Option<f64>, Option<&str>) {
    (stored.judgement.score, stored.judgement.label.as_deref())
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Span => "span",
        Level::Trace => "trace",
        Level::Session => "session",
    }
}
