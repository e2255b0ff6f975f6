//! A job that is worked on: its plan, its evaluators once built, and how patient it still is.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use emberd_evaluators_kit::contract::Retry;
use emberd_evaluators_kit::{Class, Failure};
use emberd_model::UnixNanos;
use emberd_store::jobs::{Answer, Job};
use tokio::sync::{Mutex, Semaphore};
use uuid::Uuid;

use crate::digest;
use crate::engine::Shared;
use crate::evaluators::{Live, rebuild};
use crate::plan::Plan;

/// Tries of what failed for want of time, or was refused for the pace, even where the patience is over.
const TIMEOUT_TRIES: i64 = 3;
const LATER_TRIES: i64 = 5;
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A built-in that is taken so often and never ends ends emberd each time.
pub(crate) const TAKINGS_MAX: i64 = 30;
/// How long a plugin that is not ready may take before the next one is asked.
const READY_WITHIN: Duration = Duration::from_millis(50);

pub(crate) struct Running {
    pub(crate) id: Uuid,
    pub(crate) plan: Plan,
    pub(crate) slots: Semaphore,
    /// Its items that ask models, in hand.
    pub(crate) in_hand: Arc<AtomicUsize>,
    created_at: UnixNanos,
    built: Mutex<HashMap<i64, Result<Live, String>>>,
    retried: AtomicU32,
    retried_at: AtomicU64,
}

/// An evaluator of a job.
pub(crate) enum Step {
    Live(Live),
    /// Its items fail, for this reason.
    Broken(Failure),
    /// It is asked for again later.
    NotYet,
}

impl Running {
    pub(crate) fn new(job: &Job) -> Result<Self, String> {
        let plan = Plan::read(&job.plan)?;
        let slots = Semaphore::new(plan.concurrency.map_or(Semaphore::MAX_PERMITS, |slots| slots as usize));
        Ok(Self {
            id: job.id,
            plan,
            slots,
            in_hand: Arc::default(),
            created_at: job.created_at,
            built: Mutex::default(),
            retried: AtomicU32::new(0),
            retried_at: AtomicU64::new(0),
        })
    }

    /// The evaluator of a step from 1 on.
    pub(crate) async fn step(&self, shared: &Shared, step: i64) -> Step {
        let mut built = self.built.lock().await;
        if let Some(known) = built.get(&step) {
            return match known {
                Ok(live) => Step::Live(live.clone()),
                Err(why) => Step::Broken(Failure::new(Class::ConfigError, why.clone())),
            };
        }
        let Some(planned) = self.plan.evaluator(step) else {
            return Step::Broken(Failure::new(Class::ConfigError, "the plan has no such step"));
        };
        match rebuild(planned, &shared.hosts, READY_WITHIN).await {
            Ok(live) => {
                built.insert(step, Ok(live.clone()));
                Step::Live(live)
            }
            Err(unbuilt) if unbuilt.is_later && self.is_patient(shared) => Step::NotYet,
            Err(unbuilt) if unbuilt.is_later => Step::Broken(Failure::new(Class::PluginFault, unbuilt.message)),
            Err(unbuilt) => {
                built.insert(step, Err(unbuilt.message.clone()));
                Step::Broken(Failure::new(Class::ConfigError, unbuilt.message))
            }
        }
    }

    /// How many more of its items are worth having in hand, by its own concurrency.
    pub(crate) fn room(&self) -> usize {
        let most = self.plan.concurrency.map_or(usize::MAX, |slots| 2 * slots as usize);
        most.saturating_sub(self.in_hand.load(Ordering::Relaxed))
    }

    /// How often the job was tried again by request: answers without a verdict count only since the last time.
    pub(crate) async fn retried(&self, shared: &Shared) -> Result<u32, emberd_store::Error> {
        let mut retried = self.retried.load(Ordering::Relaxed);
        while let Some((body, _)) = shared.store.answer(&digest::retried(self.id, retried + 1)).await? {
            retried += 1;
            self.retried_at.fetch_max(body.parse().unwrap_or(0), Ordering::Relaxed);
        }
        self.retried.fetch_max(retried, Ordering::Relaxed);
        Ok(retried)
    }

    pub(crate) fn is_patient(&self, shared: &Shared) -> bool {
        let since = self.created_at.0.max(self.retried_at.load(Ordering::Relaxed));
        let patience = u64::try_from(shared.config.patience.as_nanos()).unwrap_or(u64::MAX);
        shared.now().0 < since.saturating_add(patience)
    }

    /// When an item that failed so is tried again; none: it has failed.
    pub(crate) fn again(&self, shared: &Shared, attempt: i64, failure: &Failure) -> Option<UnixNanos> {
        let is_worth_it = match (failure.class.retry(), failure.class) {
            (Retry::Never, _) => false,
            // It was not asked at all: it is down, or its circuit open.
            (Retry::Once, Class::PluginFault) if failure.retry_after.is_some() => {
                attempt < LATER_TRIES || self.is_patient(shared)
            }
            // The second try was made at once.
            (Retry::Once, _) => false,
            (Retry::Later, Class::Timeout) => attempt < TIMEOUT_TRIES,
            (Retry::Later, _) => attempt < LATER_TRIES || self.is_patient(shared),
        };
        is_worth_it.then(|| {
            let wait = backoff(shared.config.backoff, attempt).max(failure.retry_after.unwrap_or_default());
            in_a_while(shared.now(), wait.min(Duration::from_secs(300)))
        })
    }
}

/// Marks that a job is tried again.
pub(crate) async fn mark_retried(shared: &Shared, job: Uuid) -> Result<(), emberd_store::Error> {
    let mut n = 1;
    while shared.store.answer(&digest::retried(job, n)).await?.is_some() {
        n += 1;
    }
    let mark = Answer { digest: digest::retried(job, n), body: shared.now().0.to_string() };
    shared.store.put_answer(mark, shared.now()).await
}

pub(crate) fn in_a_while(now: UnixNanos, wait: Duration) -> UnixNanos {
    UnixNanos(now.0.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
}

/// Twice as long with each attempt, and a random half of it, so that those who failed together do not come back together.
fn backoff(first: Duration, attempt: i64) -> Duration {
    let doublings = u32::try_from(attempt.clamp(1, 20) - 1).unwrap_or(0);
    let whole = first.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    let mut byte = [0_u8];
    // Without randomness, the whole time.
    let share = getrandom::fill(&mut byte).map_or(1.0, |()| 0.5 + f64::from(byte[0]) / 510.0);
    whole.mul_f64(share)
}
