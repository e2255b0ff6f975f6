//! A complete trace through the rules that sample it: a decision of each, with scores and annotations.
//!
//! Promise: scores go before the outbox, and both before the decision, so that a crash between leads to the same again and to nothing twice.
//! A trace that was judged and then fails takes its older scores back, in Phoenix too.
//! A trace that has not more spans than it was decided with is left as it is; one that has more is decided again under the next epoch.

use std::sync::Arc;

use super::gather::Whole;
use super::judge::{Case, Unjudged};
use super::rule::{On, Ready};
use super::seen::{Seen, seen};
use crate::engine::Shared;
use crate::outbox::{ANNOTATION, Annotated, By, Named};
use emberd_evaluators_kit::Kind;
use emberd_store::Error;
use emberd_store::jobs::{Decision, Scored, Subject, TraceScore};

/// What became of a trace by the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) run: u64,
    pub(super) duplicate: u64,
    pub(super) superseded: u64,
    pub(super) other: u64,
}

/// What a rule finds of a trace.
struct Found {
    decision: String,
    detail: Option<String>,
    scores: Vec<(Scored, bool)>,
}

impl Found {
    fn plain(decision: &str, detail: Option<String>) -> Self {
        Self { decision: decision.to_owned(), detail, scores: Vec::new() }
    }
}

/// Decides a trace by these rules, all of which sample it.
pub(super) async fn decide(shared: &Shared, rules: &[Arc<Ready>], whole: &Whole) -> Result<Told, Unjudged> {
    let stop = &shared.stopping;
    let before = shared.patiently(stop, || shared.store.decisions_of(whole.trace)).await?;
    let scores = shared.patiently(stop, || shared.store.trace_scores(whole.trace)).await?;
    let mut told = Told::default();
    let mut read: Option<Arc<Seen>> = None;
    for rule in rules {
        let prior = before.iter().find(|decision| decision.rule == rule.id);
        let is_known = prior.is_some_and(|prior| prior.spans >= whole.spans as i64);
        if is_known || (prior.is_some() && !whole.has_root) {
            told.duplicate += 1;
            continue;
        }
        // A score may be of a decision that a crash cut off.
        let scored = scores.iter().filter(|score| score.rule == rule.id).map(|score| score.epoch).max();
        let epoch = prior.map(|prior| prior.epoch).max(scored).map_or(0, |epoch| epoch + 1);
        let found = if whole.has_root {
            let seen = match &read {
                Some(seen) => Arc::clone(seen),
                None => Arc::clone(read.insert(Arc::new(read_of(shared, whole).await))),
            };
            let found = judged(shared, rule, whole, &seen).await?;
            write(shared, rule, whole, &seen, epoch, &found.scores).await?;
            found
        } else {
            Found::plain("not_ready", Some("its root did not come".to_owned()))
        };
        let is_run = found.decision == "run";
        if put(shared, rule, whole, epoch, found).await? {
            told.run += u64::from(is_run);
            told.other += u64::from(!is_run);
        } else {
            told.superseded += 1;
        }
    }
    Ok(told)
}

/// Reading megabytes of spans blocks no other trace.
async fn read_of(shared: &Shared, whole: &Whole) -> Seen {
    let (whole, prices) = (whole.clone(), Arc::clone(&shared.config.prices));
    tokio::task::spawn_blocking(move || seen(&whole, &prices)).await.unwrap_or_default()
}

async fn judged(shared: &Shared, rule: &Ready, whole: &Whole, seen: &Seen) -> Result<Found, Unjudged> {
    if let Some(fault) = rule.settings.filter.fault(seen) {
        return Ok(Found::plain("filtered", Some(fault.to_owned())));
    }
    if !rule.has_room(shared.now()) {
        return Ok(Found::plain("shed", Some(format!("more than {} traces a second", rule.settings.rate))));
    }
    let example = Arc::new(seen.example.clone());
    let mut scores = Vec::new();
    for ((planned, live), step) in rule.evaluators.iter().zip(1..) {
        let case = Case { shared, rule, trace: whole.trace, step, planned, example: &example };
        match case.judged(live).await {
            Ok(found) => scores.extend(found.into_iter().map(|scored| (scored, planned.kind == Kind::Llm))),
            Err(Unjudged::Disabled) => return Ok(Found::plain("disabled", None)),
            Err(unjudged) => return Err(unjudged),
        }
    }
    let failures: Vec<_> =
        scores.iter().filter_map(|(scored, _)| Some((scored, scored.outcome.as_ref().err()?))).collect();
    let first = failures
        .first()
        .map(|(scored, failure)| (failure.class.clone(), format!("{}: {}", scored.name, failure.message)));
    let (decision, detail) = match first {
        // Nothing was scored: the decision is why.
        Some((class, why)) if failures.len() == scores.len() => (class, Some(why)),
        Some((class, why)) => {
            ("run".to_owned(), Some(format!("{} of {} failed, {class}: {why}", failures.len(), scores.len())))
        }
        None => ("run".to_owned(), None),
    };
    Ok(Found { decision, detail, scores })
}

/// What a rule's scores are of: for the tables, and for Phoenix.
fn subject(on: On, whole: &Whole, seen: &Seen) -> (Subject, Named) {
    match (on, &seen.root, &seen.session) {
        (On::Span, Some(root), _) => (Subject::Span(root.clone()), Named::new("span", root.clone())),
        (On::Session, _, Some(session)) => (Subject::Session, Named::new("session", session.clone())),
        _ => (Subject::Trace, Named::new("trace", whole.trace.to_string())),
    }
}

async fn write(
    shared: &Shared,
    rule: &Ready,
    whole: &Whole,
    seen: &Seen,
    epoch: i64,
    scores: &[(Scored, bool)],
) -> Result<(), Error> {
    if scores.is_empty() {
        return Ok(());
    }
    let (subject, target) = subject(rule.settings.on, whole, seen);
    let rows: Vec<TraceScore> = scores
        .iter()
        .map(|(scored, _)| TraceScore {
            trace: whole.trace,
            rule: rule.id,
            epoch,
            subject: subject.clone(),
            scored: scored.clone(),
            at: shared.now(),
        })
        .collect();
    shared.patiently(&shared.stopping, || shared.store.put_trace_scores(rows.clone())).await?;
    if !shared.config.tells_phoenix {
        return Ok(());
    }
    let annotated = rows.iter().zip(scores).filter_map(|(row, (scored, is_llm))| {
        let by = By { rule: &rule.name, version: rule.version, spans: whole.spans as i64, is_llm: *is_llm };
        let body = Annotated::of(row, &by, target.clone(), whole.after)?;
        let key = format!("{}/{}/{}", rule.id, whole.trace, scored.name);
        Some((ANNOTATION.to_owned(), key, serde_json::to_value(body).ok()?))
    });
    let annotated: Vec<_> = annotated.collect();
    shared.patiently(&shared.stopping, || shared.store.put_all_outgoing(annotated.clone(), shared.now())).await
}

async fn put(shared: &Shared, rule: &Ready, whole: &Whole, epoch: i64, found: Found) -> Result<bool, Error> {
    let decision = Decision {
        rule: rule.id,
        trace: whole.trace,
        version: rule.version,
        epoch,
        decision: found.decision,
        detail: found.detail.map(|detail| detail.chars().take(500).collect()),
        spans: whole.spans as i64,
        at: shared.now(),
    };
    let stands = shared.patiently(&shared.stopping, || shared.store.decide(vec![decision.clone()])).await?;
    Ok(stands.first().copied().unwrap_or(false))
}

/// Decides traces that are not gathered: sampled out, or shed.
pub(super) async fn put_aside(shared: &Shared, decisions: Vec<Decision>) -> Result<(), Error> {
    for part in decisions.chunks(1_000) {
        shared.patiently(&shared.stopping, || shared.store.decide(part.to_vec())).await?;
    }
    Ok(())
}
