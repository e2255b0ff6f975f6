//! Sums up the jobs whose items are all over, and ends them.
//!
//! A job is completed when at least one score was given, and failed when none was; the reason then is what failed most often. Latencies are
//! those of the runs, where the prompt was run, and of the evaluations otherwise.

use emberd_evaluators_kit::contract::Range;
use emberd_evaluators_kit::stats::Tally;
use emberd_evaluators_kit::stats::summary::percentiles;
use emberd_evaluators_kit::{Class, Score};
use emberd_store::Error;
use emberd_store::jobs::{Closed, HeldJob, Job, Outcome, Phase, Tallied};
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::engine::Shared;
use crate::held::{self, Stage};
use crate::plan::{Plan, PlannedScore};
use crate::{outbox, price};

/// Of the intervals.
const LEVEL: f64 = 0.95;
const STRETCH: u32 = 10_000;

/// Closes jobs until `stop`.
pub(crate) async fn run(shared: &Shared, stop: &CancellationToken) {
    held::each(shared, stop, Closing { shared, open: shared.open.subscribe() }).await;
}

struct Closing<'a> {
    shared: &'a Shared,
    open: watch::Receiver<Arc<Vec<Job>>>,
}

impl Stage for Closing<'_> {
    const PHASE: Phase = Phase::Closing;
    const DOING: &'static str = "closing";

    async fn work(&self, held: &HeldJob) -> Result<(), Error> {
        close(self.shared, held).await
    }

    async fn woken(&mut self) {
        // The sender lives as long as the engine.
        let _ = self.open.changed().await;
    }
}

async fn close(shared: &Shared, held: &HeldJob) -> Result<(), Error> {
    let job = held.job.id;
    let plan = match Plan::read(&held.job.plan) {
        Ok(plan) => plan,
        Err(why) => {
            return finish(
                shared,
                held,
                Closed { outcome: Outcome::Failed, results: None, metrics: None, error: Some(why) },
            )
            .await;
        }
    };
    let mut sums = Sums::new(&plan);
    let mut last: Option<Tallied> = None;
    loop {
        let stretch = shared.store.tally(job, last.as_ref(), STRETCH).await?;
        stretch.iter().for_each(|result| sums.add(result));
        let is_last = stretch.len() < STRETCH as usize;
        last = stretch.into_iter().next_back();
        if is_last {
            break;
        }
        if !shared.store.extend_job(job, held.fence, shared.config.lease, shared.now()).await? {
            return Ok(());
        }
    }
    // Calls that were cut off count before the sum is told.
    while shared.store.release_stale(1_000, shared.now()).await? == 1_000 {}
    let Some(now) = shared.store.job(job).await? else { return Ok(()) };
    finish(shared, held, sums.closed(&plan, &now)).await
}

async fn finish(shared: &Shared, held: &HeldJob, closed: Closed) -> Result<(), Error> {
    let (job, outcome) = (held.job.id, closed.outcome);
    if shared.config.tells_phoenix {
        outbox::enqueue(&shared.store, &held.job, shared.now()).await?;
    }
    if shared.store.close_job(job, held.fence, closed, shared.now()).await? {
        shared.counting.closed(outcome, held.job.created_at, shared.now());
        shared.events.tell(shared, job).await;
    }
    Ok(())
}

struct Sums {
    /// By step and name.
    tallies: BTreeMap<(i64, String), Tally>,
    runs: Vec<f64>,
    evaluations: Vec<f64>,
    errors: BTreeMap<String, u64>,
    /// Of each class, one message.
    messages: BTreeMap<String, String>,
    scored: u64,
    cached: u64,
    examples: i64,
}

impl Sums {
    fn new(plan: &Plan) -> Self {
        let mut tallies = BTreeMap::new();
        for (at, planned) in plan.evaluators.iter().enumerate() {
            for PlannedScore { name, direction, min, max, .. } in &planned.scores {
                tallies.insert((at as i64 + 1, name.clone()), Tally::new(Range { min: *min, max: *max }, *direction));
            }
        }
        let (runs, evaluations) = (Vec::new(), Vec::new());
        let (errors, messages) = (BTreeMap::new(), BTreeMap::new());
        Self { tallies, runs, evaluations, errors, messages, scored: 0, cached: 0, examples: 0 }
    }

    fn add(&mut self, result: &Tallied) {
        self.examples = self.examples.max(result.nr + 1);
        self.cached += u64::from(result.cached);
        if let Err(failure) = &result.outcome {
            *self.errors.entry(failure.class.clone()).or_default() += 1;
            if !self.messages.contains_key(&failure.class) {
                self.messages.insert(failure.class.clone(), failure.message.clone());
            }
        }
        let millis = result.latency.as_micros() as f64 / 1e3;
        if result.step == 0 {
            if result.outcome.is_ok() {
                self.runs.push(millis);
            }
            return;
        }
        if result.outcome.is_ok() {
            self.scored += 1;
            self.evaluations.push(millis);
        }
        let unplanned = || Tally::new(Range { min: None, max: None }, kit_direction(result.direction));
        let tally = self.tallies.entry((result.step, result.name.clone())).or_insert_with(unplanned);
        match &result.outcome {
            Ok(score) => tally.score(&Score {
                name: "".into(),
                value: score.score,
                label: score.label.clone().map(Into::into),
                explanation: None,
                direction: kit_direction(result.direction),
                metadata: Map::new(),
            }),
            // The classes of the store's own (no_output, not_a_number) are counted by name above.
            Err(failure) => tally.failure(Class::from_name(&failure.class).unwrap_or(Class::MissingField)),
        }
    }

    fn closed(mut self, plan: &Plan, job: &emberd_store::jobs::Job) -> Closed {
        let (mut by_name, mut results) = (Map::new(), Vec::new());
        for ((step, name), tally) in &self.tallies {
            let mut summary = serde_json::to_value(tally.summary(LEVEL)).unwrap_or_default();
            if let Some(planned) = plan.evaluator(*step) {
                let direction = planned.scores.iter().find(|score| score.name == *name).map(|score| score.direction);
                results.push(json!({
                    "name": name,
                    "evaluator": planned.spec.name,
                    "version": planned.version,
                    "kind": planned.kind,
                    "direction": direction,
                    "mean": summary["mean"],
                    "pass_rate": summary["pass_rate"],
                    "scored": summary["scored"],
                    "errors": summary["errors"],
                    "of": summary["of"],
                }));
                summary["direction"] = json!(direction);
            }
            by_name.insert(name.clone(), summary);
        }
        let latencies = if plan.run.is_some() { &mut self.runs } else { &mut self.evaluations };
        let metrics = json!({
            "evaluators": by_name,
            "latency_ms": percentiles(latencies),
            "tokens": job.tokens,
            "cost": price::dollars(job.spent),
            "errors": self.errors,
            "cached": self.cached,
            "examples": self.examples,
        });
        let is_failed = self.scored == 0;
        Closed {
            outcome: if is_failed { Outcome::Failed } else { Outcome::Completed },
            results: Some(json!({"evaluators": results, "examples": self.examples})),
            metrics: Some(metrics),
            error: is_failed.then(|| self.why()),
        }
    }

    /// Why nothing was scored. What a run failed of counts, rather than that its evaluators had no output.
    fn why(&self) -> String {
        let most = self.errors.iter().filter(|(class, _)| *class != "no_output").max_by_key(|(_, count)| **count);
        match most {
            Some((class, count)) => {
                let message = self.messages.get(class).map_or("", String::as_str);
                format!("nothing could be scored: {count} times {class}: {message}")
            }
            None => "nothing could be scored".to_owned(),
        }
    }
}

fn kit_direction(direction: emberd_store::jobs::Direction) -> emberd_evaluators_kit::Direction {
    use emberd_evaluators_kit::Direction as Kit;
    use emberd_store::jobs::Direction as Stored;
    match direction {
        Stored::Maximize => Kit::Maximize,
        Stored::Minimize => Kit::Minimize,
        Stored::Neutral => Kit::Neutral,
    }
}
