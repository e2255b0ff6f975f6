//! The loop that takes items and hands them out: by turns over all open jobs and their steps.
//!
//! Each turn gives every (job, step) at most one batch, so that a large job does not keep a small one waiting. Items of a step that asks a
//! model are taken as its endpoint's pace allows; functions and plugins have a number of batches each.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use emberd_evaluators_kit::{Class, Failure};
use emberd_store::jobs::{Ended, Leased, Want};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ends::Ending;
use crate::engine::Shared;
use crate::evaluators::Live;
use crate::job::{Running, Step};
use crate::leases::Held;
use crate::prepare::CODE_WIDTH;
use crate::provider::Provider;
use crate::steps;

/// Items of a model's step in one taking.
const MODEL_BATCH: usize = 32;
/// Examples of a plugin's batch, where it bears as many.
const PLUGIN_BATCH: u32 = 100;
/// Examples of a function's batch, and bytes of them. It begins with one item; then as many as have this much together.
const CODE_BATCH_MAX: u32 = 2 * CODE_WIDTH;
const CODE_BATCH_BYTES: usize = 4 << 20;
/// Examples that fail together because their evaluator cannot be built.
const BROKEN_BATCH: u32 = 2 * CODE_WIDTH;
/// The shortest time between two looks at the open jobs.
const REFRESH_MIN: Duration = Duration::from_millis(25);
/// When an evaluator that is not ready is looked at again.
const NOT_YET: Duration = Duration::from_secs(2);

/// Asks for open jobs, as often as the configuration says and whenever something is new.
pub(crate) async fn refresh(shared: &Shared, stop: &CancellationToken) {
    while !stop.is_cancelled() {
        match shared.store.open_jobs().await {
            Ok(jobs) => drop(shared.open.send_replace(Arc::new(jobs))),
            Err(error) => tracing::warn!(error = %shared.told(&error), "open jobs could not be read"),
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(shared.config.poll) => {}
            () = shared.wake.notified() => {}
        }
        // However often something is new.
        tokio::time::sleep(shared.config.poll.min(REFRESH_MIN)).await;
    }
}

/// Works until `stop`, and then waits for what is in flight, for as long as the configuration says.
pub(crate) async fn run(shared: &Arc<Shared>, stop: &CancellationToken) {
    let mut work = Work::new(shared);
    let mut open = shared.open.subscribe();
    while !stop.is_cancelled() {
        let jobs = Arc::clone(&open.borrow_and_update());
        work.know(&jobs);
        let took = work.turn().await;
        while work.tasks.try_join_next().is_some() {}
        if took {
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            _ = open.changed() => work.idle.clear(),
            Some(_) = work.tasks.join_next() => {}
            () = tokio::time::sleep(shared.config.poll) => {}
        }
    }
    let all = async { while work.tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(shared.config.grace, all).await.is_err() {
        tracing::warn!("calls in flight did not end in time");
        work.tasks.shutdown().await;
    }
}

struct Work {
    shared: Arc<Shared>,
    jobs: Vec<Arc<Running>>,
    /// Steps that had nothing to take, until when.
    idle: HashMap<(Uuid, i64), Instant>,
    /// Items in a function's batch.
    code_items: HashMap<(Uuid, i64), u32>,
    code: Arc<Semaphore>,
    plugins: Arc<Semaphore>,
    /// Items in hand by model.
    in_hand: HashMap<String, Arc<AtomicUsize>>,
    tasks: JoinSet<()>,
    turn: usize,
}

/// An item of a model's step in hand: of its model, and of its job.
struct InHand([Arc<AtomicUsize>; 2]);

impl InHand {
    fn new(counts: [&Arc<AtomicUsize>; 2]) -> Self {
        for count in counts {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Self(counts.map(Arc::clone))
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        for count in &self.0 {
            count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Work {
    fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            jobs: Vec::new(),
            idle: HashMap::new(),
            code_items: HashMap::new(),
            code: Arc::new(Semaphore::new(shared.config.code_batches)),
            plugins: Arc::new(Semaphore::new(shared.config.plugin_batches)),
            in_hand: HashMap::new(),
            tasks: JoinSet::new(),
            turn: 0,
        }
    }

    /// Takes up new jobs and forgets those that are over.
    fn know(&mut self, open: &[emberd_store::jobs::Job]) {
        self.jobs.retain(|known| open.iter().any(|job| job.id == known.id));
        for job in open.iter().filter(|job| !self.jobs.iter().any(|known| known.id == job.id)).collect::<Vec<_>>() {
            match Running::new(job) {
                Ok(running) => self.jobs.push(Arc::new(running)),
                Err(why) => tracing::warn!(job = %job.id, why, "a job is left to others"),
            }
        }
        let jobs = &self.jobs;
        self.code_items.retain(|(job, _), _| jobs.iter().any(|known| known.id == *job));
    }

    /// One batch of each step of each job; whether there was anything.
    async fn turn(&mut self) -> bool {
        self.turn = self.turn.wrapping_add(1);
        let mut jobs = self.jobs.clone();
        if !jobs.is_empty() {
            let first = self.turn % jobs.len();
            jobs.rotate_left(first);
        }
        let mut took = false;
        for job in jobs {
            for step in job.plan.steps() {
                let now = Instant::now();
                if self.idle.get(&(job.id, step)).is_some_and(|until| now < *until) {
                    continue;
                }
                self.idle.remove(&(job.id, step));
                took |= self.batch(&job, step).await;
            }
        }
        took
    }

    async fn batch(&mut self, job: &Arc<Running>, step: i64) -> bool {
        let live = if step == 0 { None } else { Some(job.step(&self.shared, step).await) };
        match live {
            None => self.model_batch(job, step, None).await,
            Some(Step::Live(Live::Code(code))) => self.code_batch(job, step, code).await,
            Some(Step::Live(Live::Plugin(metric))) => self.plugin_batch(job, step, metric).await,
            Some(Step::Live(live @ Live::Judge(_))) => self.model_batch(job, step, Some(live)).await,
            Some(Step::Broken(failure)) => self.broken_batch(job, step, failure).await,
            Some(Step::NotYet) => {
                self.idle.insert((job.id, step), Instant::now() + NOT_YET);
                false
            }
        }
    }

    /// Takes so many targets and items at most; a step that has fewer is left alone for a while.
    async fn take(&mut self, job: &Running, step: i64, limit: u32, items: u32) -> (Vec<Leased>, Vec<Held>) {
        let shared = &self.shared;
        let (owner, lease, now) = (shared.owner.clone(), shared.config.lease, shared.now());
        let want = Want { job: job.id, step, limit, ranges: items, owner, lease, now };
        let taken = shared.store.take(want).await.unwrap_or_else(|error| {
            tracing::warn!(error = %shared.told(&error), "items could not be taken");
            Vec::new()
        });
        let targets: usize = taken.iter().map(|leased| leased.targets.len()).sum();
        // Where a range more would have had its place, there was none.
        let is_short = targets < limit as usize && (limit <= CODE_WIDTH || targets <= (limit - CODE_WIDTH) as usize);
        if taken.len() < items as usize && is_short {
            self.idle.insert((job.id, step), Instant::now() + shared.config.poll);
        }
        let held = taken.iter().map(|leased| shared.leases.hold(leased.key, leased.fence)).collect();
        (taken, held)
    }

    async fn code_batch(&mut self, job: &Arc<Running>, step: i64, code: Arc<emberd_evaluators_kit::Coded>) -> bool {
        let Ok(permit) = Arc::clone(&self.code).try_acquire_owned() else { return false };
        let items = self.code_items.get(&(job.id, step)).copied().unwrap_or(1);
        let (batch, held) = self.take(job, step, CODE_BATCH_MAX, items).await;
        if batch.is_empty() {
            return false;
        }
        self.code_items.insert((job.id, step), fitting(&batch));
        let (shared, job) = (Arc::clone(&self.shared), Arc::clone(job));
        self.tasks.spawn(async move {
            let judged = tokio::task::spawn_blocking(move || match job.plan.evaluator(step) {
                Some(planned) => steps::code(planned, &code, batch),
                None => Vec::new(),
            });
            if let Ok(ended) = judged.await {
                end(&shared, ended, held, Some(permit)).await;
            }
        });
        true
    }

    async fn plugin_batch(
        &mut self,
        job: &Arc<Running>,
        step: i64,
        metric: Arc<emberd_evaluators_hosts::Metric>,
    ) -> bool {
        let Ok(permit) = Arc::clone(&self.plugins).try_acquire_owned() else { return false };
        let limits = emberd_evaluators_kit::Evaluator::describe(&*metric).limits;
        let (batch, held) = {
            let limit = limits.batch_examples_max.clamp(1, PLUGIN_BATCH);
            self.take(job, step, limit, limit).await
        };
        if batch.is_empty() {
            return false;
        }
        let (shared, job) = (Arc::clone(&self.shared), Arc::clone(job));
        self.tasks.spawn(async move {
            let Some(planned) = job.plan.evaluator(step) else { return };
            let ended = steps::plugin(&shared, &job, planned, &metric, batch).await;
            end(&shared, ended, held, Some(permit)).await;
        });
        true
    }

    async fn broken_batch(&mut self, job: &Arc<Running>, step: i64, failure: Failure) -> bool {
        let (batch, held) = self.take(job, step, BROKEN_BATCH, BROKEN_BATCH).await;
        if batch.is_empty() {
            return false;
        }
        end(&self.shared, steps::broken(job, step, &failure, batch), held, None).await;
        true
    }

    async fn model_batch(&mut self, job: &Arc<Running>, step: i64, live: Option<Live>) -> bool {
        let Some(model) = job.plan.model(step) else { return false };
        let Some(provider) = self.shared.providers.of(model) else {
            let failure = Failure::new(Class::ConfigError, format!("no endpoint is configured for {model:?}"));
            return self.broken_batch(job, step, failure).await;
        };
        let in_hand = Arc::clone(self.in_hand.entry(model.to_owned()).or_default());
        let hand = in_hand.load(Ordering::Relaxed);
        let free = provider.room(hand).min(MODEL_BATCH);
        let room = free.min(job.room());
        // Not one by one: half of what may be called is worth a taking.
        if room == 0 || (hand > 0 && free < MODEL_BATCH.min(hand / 2)) {
            return false;
        }
        let (batch, held) = self.take(job, step, room as u32, room as u32).await;
        if batch.is_empty() {
            return false;
        }
        let retried = match job.retried(&self.shared).await {
            Ok(retried) => retried,
            // The items are dropped: their leases end.
            Err(_) => return false,
        };
        for (mut leased, held) in batch.into_iter().zip(held) {
            // Of a model's step, each item has one target.
            let Some(given) = leased.targets.pop() else { continue };
            let hand = InHand::new([&in_hand, &job.in_hand]);
            let item = Item {
                job: Arc::clone(job),
                provider: Arc::clone(&provider),
                live: live.clone(),
                one: steps::One { attempt: leased.attempt, given },
                held,
                retried,
            };
            let shared = Arc::clone(&self.shared);
            self.tasks.spawn(async move {
                item.work(&shared).await;
                drop(hand);
            });
        }
        true
    }
}

/// An item that asks a model.
struct Item {
    job: Arc<Running>,
    provider: Arc<Provider>,
    /// The judge; none for a run.
    live: Option<Live>,
    one: steps::One,
    held: Held,
    retried: u32,
}

impl Item {
    async fn work(self, shared: &Shared) {
        let Self { job, provider, live, one, held, retried } = self;
        let step = held.key.step;
        let ended = match (&live, &job.plan.run, job.plan.evaluator(step), job.plan.model(step)) {
            (Some(Live::Judge(judge)), _, Some(planned), Some(model)) => {
                let court = steps::Court { planned, judge, provider: &provider, model };
                steps::judge(shared, &job, court, &one, &held, retried).await
            }
            (None, Some(run), ..) => steps::run(shared, &job, (run, &provider), &one, &held, retried).await,
            _ => None,
        };
        if let Some(end) = ended {
            let ended = Ended { key: held.key, fence: held.fence, ends: vec![end] };
            self::end(shared, vec![ended], vec![held], None).await;
        }
    }
}

async fn end(shared: &Shared, ended: Vec<Ended>, held: Vec<Held>, permit: Option<OwnedSemaphorePermit>) {
    // Nobody writes ends any more: emberd stops, and the leases end.
    let _ = shared.ends.send(Ending { ended, held, permit }).await;
}

/// How many items such as these are of a batch's size.
fn fitting(batch: &[Leased]) -> u32 {
    let targets = batch.iter().map(|leased| leased.targets.len()).sum::<usize>();
    let bytes: usize = batch.iter().flat_map(|leased| &leased.targets).map(|given| given.body.len()).sum();
    let by_targets = batch.len() * CODE_BATCH_MAX as usize / targets.max(1);
    let by_bytes = batch.len() * CODE_BATCH_BYTES / bytes.max(1);
    by_targets.min(by_bytes).clamp(1, CODE_BATCH_MAX as usize) as u32
}
