//! Writes the targets of new jobs: chunk by chunk, from where the last one ended.

use emberd_model::row::Status;
use emberd_store::jobs::{Closed, HeldJob, NewTarget, Outcome, Phase, Step, Viewer};
use emberd_store::library::TraceFilter;
use emberd_store::{Error, Moment};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::engine::Shared;
use crate::examples::{of_dataset, of_trace};
use crate::held::{self, Stage};
use crate::plan::{By, Plan};
use crate::request::{Source, Traces};

/// Examples that are read at a time: begun with few, then as many as are of this size together, for the database goes through the whole
/// dataset for each stretch.
const STRETCH_FIRST: u32 = 1_000;
const STRETCH_MAX: u32 = 100_000;
const STRETCH_BYTES: usize = 16 << 20;
/// Targets that are written at a time: others wait for the writer meanwhile.
const CHUNK: usize = 5_000;
/// Targets that a function takes at a time: so many that taking and ending them costs next to nothing, so few that several emberds share
/// a job of some thousands.
pub(crate) const CODE_WIDTH: u32 = 1_000;

/// Prepares jobs until `stop`.
pub(crate) async fn run(shared: &Shared, stop: &CancellationToken) {
    held::each(shared, stop, Preparing { shared, stop }).await;
}

struct Preparing<'a> {
    shared: &'a Shared,
    stop: &'a CancellationToken,
}

impl Stage for Preparing<'_> {
    const PHASE: Phase = Phase::Preparing;
    const DOING: &'static str = "preparing";

    async fn work(&self, held: &HeldJob) -> Result<(), Error> {
        prepare(self.shared, held, self.stop).await
    }

    async fn woken(&mut self) {
        self.shared.events.created.notified().await;
    }
}

async fn prepare(shared: &Shared, held: &HeldJob, stop: &CancellationToken) -> Result<(), Error> {
    let job = held.job.id;
    let plan = match Plan::read(&held.job.plan) {
        Ok(plan) => plan,
        Err(why) => return fail(shared, held, why).await,
    };
    let steps: Vec<Step> = plan.steps().map(|step| planned(&plan, step)).collect();
    let targets = match &plan.source {
        Source::Dataset { id } => dataset(shared, held, *id, plan.run.is_some(), &steps, stop).await?,
        Source::Traces(traces) => self::traces(shared, held, plan.prompt, traces, &steps, stop).await?,
    };
    match targets {
        Written::All(0) => fail(shared, held, "there is nothing to evaluate: no example was found".to_owned()).await,
        Written::All(_) => {
            shared.store.open_job(job, held.fence, shared.now()).await?;
            shared.wake.notify_one();
            Ok(())
        }
        Written::Gone(why) => fail(shared, held, why).await,
        // Another's by now, or emberd stops: who prepares it next goes on from here.
        Written::Left => Ok(()),
    }
}

/// A step's items: functions that wait for nothing take many targets at a time, all else one by one.
fn planned(plan: &Plan, step: i64) -> Step {
    let blocked = plan.run.is_some() && step > 0;
    let is_code = plan.evaluator(step).is_some_and(|planned| planned.by == By::Code);
    Step { step, blocked, width: if is_code && !blocked { CODE_WIDTH } else { 1 } }
}

enum Written {
    All(i64),
    Gone(String),
    Left,
}

async fn fail(shared: &Shared, held: &HeldJob, why: String) -> Result<(), Error> {
    let closed = Closed { outcome: Outcome::Failed, results: None, metrics: None, error: Some(why) };
    if shared.store.close_job(held.job.id, held.fence, closed, shared.now()).await? {
        shared.counting.closed(Outcome::Failed, held.job.created_at, shared.now());
        shared.events.tell(shared, held.job.id).await;
    }
    Ok(())
}

/// Writes a chunk; false: the job is another's by now.
async fn put(shared: &Shared, held: &HeldJob, targets: Vec<NewTarget>, steps: &[Step]) -> Result<bool, Error> {
    let (job, fence) = (held.job.id, held.fence);
    let put = shared.store.put_targets(job, fence, targets, steps.to_vec()).await?;
    Ok(put.is_some() && shared.store.extend_job(job, fence, shared.config.lease, shared.now()).await?)
}

async fn dataset(
    shared: &Shared,
    held: &HeldJob,
    id: Uuid,
    is_run: bool,
    steps: &[Step],
    stop: &CancellationToken,
) -> Result<Written, Error> {
    // Whether its creator may see it was asked when the job was made.
    let viewer = Viewer { user: Uuid::nil(), is_admin: true };
    let Some(dataset) = shared.store.dataset(viewer, id).await? else {
        return Ok(Written::Gone("the dataset is gone".to_owned()));
    };
    let (mut from, mut limit) = (held.next_nr, STRETCH_FIRST);
    loop {
        let examples = shared.store.example_texts(viewer, id, from, limit).await?;
        let (count, bytes) = (examples.len(), examples.iter().map(|(_, text)| text.len()).sum::<usize>());
        for chunk in examples.chunks(CHUNK) {
            if stop.is_cancelled() {
                return Ok(Written::Left);
            }
            let target = |(nr, text): &(i64, String)| {
                let body = serde_json::from_str(text).unwrap_or_default();
                of_dataset(dataset.kind, *nr, body, is_run)
            };
            if !put(shared, held, chunk.iter().map(target).collect(), steps).await? {
                return Ok(Written::Left);
            }
        }
        from = examples.last().map_or(from, |(last, _)| last + 1);
        if (count as u64) < u64::from(limit) {
            return Ok(Written::All(from));
        }
        let fit = count * STRETCH_BYTES / bytes.max(1);
        limit = u32::try_from(fit).unwrap_or(STRETCH_MAX).clamp(1, STRETCH_MAX);
    }
}

/// The rows that a job of traces is about.
pub(crate) fn filter(prompt: Uuid, traces: &Traces) -> TraceFilter {
    let status = [Status::Success, Status::Error, Status::Timeout];
    TraceFilter {
        prompt_id: Some(prompt),
        status: traces.status.as_deref().and_then(|word| status.into_iter().find(|status| status.as_str() == word)),
        session_id: traces.session,
        from: traces.from.map(Moment::from_micros),
        to: traces.to.map(Moment::from_micros),
        ..TraceFilter::default()
    }
}

/// From the newest on. Taken up again it begins anew, and finds the same rows under the same numbers.
async fn traces(
    shared: &Shared,
    held: &HeldJob,
    prompt: Uuid,
    traces: &Traces,
    steps: &[Step],
    stop: &CancellationToken,
) -> Result<Written, Error> {
    let filter = filter(prompt, traces);
    let mut cursor: Option<String> = None;
    let mut nr = 0;
    let limit = i64::try_from(traces.limit).unwrap_or(i64::MAX);
    while nr < limit {
        if stop.is_cancelled() {
            return Ok(Written::Left);
        }
        let page = shared.store.traces(&filter, cursor.as_deref(), 500).await?;
        let targets: Vec<NewTarget> =
            page.data.iter().take((limit - nr).max(0) as usize).zip(nr..).map(|(row, nr)| of_trace(nr, row)).collect();
        nr += targets.len() as i64;
        if !targets.is_empty() && !put(shared, held, targets, steps).await? {
            return Ok(Written::Left);
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    Ok(Written::All(nr))
}
