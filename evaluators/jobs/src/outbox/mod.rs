//! Tells Phoenix what evaluation found: experiments of dataset jobs, annotations of traces.
//!
//! Promise: what stands in the store's outbox is told, however long Phoenix is away and whoever is restarted meanwhile, and told again it
//! changes nothing. What Phoenix refuses for good stays in the outbox with the reason, an experiment's also in its evaluation's `error`;
//! a refused experiment is taken out of Phoenix again, so that none is half there. Many emberds may tell: a row is one's for its lease.
//! Shape:    [`Outbox::run`] takes what is due. `annotation`: batches of up to a hundred. `experiment`: one at a time, in steps that
//! Phoenix's own lists of what is missing make resumable. `examples`: a job's targets as Phoenix's examples. `described`: what charts need to
//! know of a score's name.
//! Not here: what is put into the outbox and when (`close`, `live`), rows and leases (store), Phoenix's wire (`emberd-phoenix`).
//! Kept by:  `tests/outbox.rs`, against the real Phoenix, killed midway.

mod annotation;
mod described;
mod examples;
mod experiment;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use emberd_model::{Clock, Offset, UnixNanos};
use emberd_phoenix::{Client, client, rest};
use emberd_store::Store;
use emberd_store::jobs::Outgoing;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use annotation::due;
pub(crate) use annotation::{Annotated, By, Named};
pub(crate) use experiment::enqueue;

use crate::job::in_a_while;

/// The outbox's kind of a dataset job.
pub(crate) const EXPERIMENT: &str = "experiment";
/// The outbox's kind of a score of a trace.
pub(crate) const ANNOTATION: &str = "annotation";

/// Rows in one taking.
const BATCH: u32 = 100;
/// Tries of what Phoenix answers strangely, while it is there.
const STRIKES_MAX: u32 = 10;
/// Tries of an annotation whose target Phoenix does not have.
const MISSES_MAX: u32 = 5;
/// Counts of tries that are kept; beyond that all are forgotten, which only makes for more tries.
const STRIKES_KEPT: usize = 100_000;

/// How far what is in the log is known to be in Phoenix.
pub trait Verified: Send + Sync {
    /// Whether all spans before this place were seen in Phoenix, or given up.
    fn is_past(&self, offset: Offset) -> bool;
}

impl<F: Fn(Offset) -> bool + Send + Sync> Verified for F {
    fn is_past(&self, offset: Offset) -> bool {
        self(offset)
    }
}

/// Has Phoenix told of an evaluation once more, whose experiment it does not have any more. False: it is none, or of no dataset.
///
/// # Errors
/// The database.
pub async fn tell_again(store: &Store, evaluation: Uuid, now: UnixNanos) -> Result<bool, emberd_store::Error> {
    let (Some(job), Some(row)) = (store.job(evaluation).await?, store.evaluation(evaluation).await?) else {
        return Ok(false);
    };
    let local = format!("local:{evaluation}");
    if !row.phoenix_eval_id.starts_with("local:") {
        store.set_phoenix_eval_id(evaluation, &row.phoenix_eval_id, &local, now).await?;
    }
    enqueue(store, &job, now).await?;
    Ok(true)
}

/// How the outbox is told.
#[derive(Clone, Debug)]
pub struct Config {
    /// How often it is asked for what is due.
    pub poll: Duration,
    /// How long a row is one emberd's without a sign of life.
    pub lease: Duration,
    /// The first pause while Phoenix is away, and between tries.
    pub backoff: Duration,
    /// The longest.
    pub backoff_max: Duration,
    /// Runs of an experiment that are posted at the same time.
    pub concurrency: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            poll: Duration::from_millis(500),
            lease: Duration::from_secs(60),
            backoff: Duration::from_millis(500),
            backoff_max: Duration::from_secs(30),
            concurrency: 4,
        }
    }
}

/// What was told since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Experiments that are whole in Phoenix.
    pub experiments: u64,
    /// Annotations written.
    pub annotations: u64,
    /// Rows refused for good.
    pub refused: u64,
    /// Times Phoenix was found away.
    pub away: u64,
}

/// Tells Phoenix what is in the store's outbox.
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Arc<dyn Clock>,
    client: Arc<Client>,
    verified: Arc<dyn Verified>,
    config: Config,
    counters: Mutex<Counters>,
    /// Tries by kind, key and version, since this emberd began.
    strikes: Mutex<HashMap<(String, String, i64), u32>>,
    /// Scores' names of which Phoenix has a config, since this emberd began.
    described: Mutex<HashSet<String>>,
}

/// Why something was not told.
#[derive(Debug)]
enum Trouble {
    /// Phoenix is not there, or does not take the key.
    Away(String),
    /// It is there, and answers strangely: another try may help.
    Strange(String),
    /// It will always refuse.
    Refused(String),
    /// It cannot be told yet.
    NotYet,
    /// There is a newer version by now, or the row is another's.
    Lost,
    /// The database's.
    Store(emberd_store::Error),
}

impl From<emberd_store::Error> for Trouble {
    fn from(error: emberd_store::Error) -> Self {
        Self::Store(error)
    }
}

impl From<rest::Error> for Trouble {
    fn from(error: rest::Error) -> Self {
        let said = error.to_string();
        match error {
            rest::Error::Refused { .. } | rest::Error::Unfit { .. } => Self::Refused(said),
            rest::Error::NotFound { .. } | rest::Error::Conflict { .. } => Self::Strange(said),
            rest::Error::Phoenix(client::Error::Answer { status, .. }) => match status.as_u16() {
                429 | 502..=504 => Self::Away(said),
                _ => Self::Strange(said),
            },
            rest::Error::Phoenix(_) => Self::Away(said),
        }
    }
}

impl Outbox {
    /// Builds it; nothing runs before [`Outbox::run`]. A default crypto provider for TLS must have been installed by then.
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        client: Arc<Client>,
        verified: Arc<dyn Verified>,
        config: Config,
    ) -> Self {
        let (counters, strikes, described) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self(Arc::new(Inner { store, clock, client, verified, config, counters, strikes, described }))
    }

    /// What was told since it began.
    #[must_use]
    pub fn counters(&self) -> Counters {
        *self.0.counting()
    }

    /// Tells until `stop`. Dropped, it is as if killed: leases end, and all is told again from where Phoenix stands.
    pub async fn run(&self, stop: CancellationToken) {
        let mut experiment = JoinSet::new();
        let mut pause = Duration::ZERO;
        while !stop.is_cancelled() {
            while experiment.try_join_next().is_some() {}
            let wait = match self.0.turn(&mut experiment).await {
                Ok(0) => {
                    pause = Duration::ZERO;
                    self.0.config.poll
                }
                Ok(_) => {
                    pause = Duration::ZERO;
                    continue;
                }
                Err(trouble) => {
                    pause = (pause * 2).clamp(self.0.config.backoff, self.0.config.backoff_max);
                    self.0.say(&trouble, pause);
                    self.0.back(&stop, pause).await;
                    continue;
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
                Some(_) = experiment.join_next(), if !experiment.is_empty() => {}
            }
        }
        experiment.shutdown().await;
    }
}

impl Inner {
    fn counting(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, trouble: &Trouble, pause: Duration) {
        if let Trouble::Away(_) = trouble {
            self.counting().away += 1;
        }
        tracing::debug!(?trouble, ?pause, "phoenix is not told now");
    }

    /// Waits, and then until Phoenix is there.
    async fn back(&self, stop: &CancellationToken, mut pause: Duration) {
        loop {
            if tokio::time::timeout(pause, stop.cancelled()).await.is_ok() || self.client.version().await.is_ok() {
                return;
            }
            pause = (pause * 2).min(self.config.backoff_max);
        }
    }

    /// Takes what is due and tells it; how many rows it took.
    async fn turn(self: &Arc<Self>, experiment: &mut JoinSet<()>) -> Result<usize, Trouble> {
        let taken = self.store.take_outgoing(self.config.lease, BATCH, self.clock.now()).await?;
        let count = taken.len();
        let mut annotations = Vec::new();
        for row in taken {
            match &*row.kind {
                ANNOTATION => annotations.push(row),
                EXPERIMENT if experiment.is_empty() => {
                    let inner = Arc::clone(self);
                    experiment.spawn(async move { inner.experiment(row).await });
                }
                // One at a time.
                EXPERIMENT => self.later(&row, self.config.backoff * 4).await?,
                // A newer emberd's word.
                _ => self.later(&row, Duration::from_secs(3_600)).await?,
            }
        }
        self.annotations(annotations).await?;
        Ok(count)
    }

    async fn later(&self, row: &Outgoing, wait: Duration) -> Result<(), Trouble> {
        self.store.postpone(row, in_a_while(self.clock.now(), wait)).await?;
        Ok(())
    }

    /// Counts a try; how many there were.
    fn strike(&self, row: &Outgoing) -> u32 {
        let mut strikes = self.strikes.lock().unwrap_or_else(PoisonError::into_inner);
        if strikes.len() >= STRIKES_KEPT {
            strikes.clear();
        }
        let count = strikes.entry((row.kind.clone(), row.key.clone(), row.version)).or_default();
        *count += 1;
        *count
    }

    fn forget(&self, row: &Outgoing) {
        let mut strikes = self.strikes.lock().unwrap_or_else(PoisonError::into_inner);
        strikes.remove(&(row.kind.clone(), row.key.clone(), row.version));
    }

    async fn refuse(&self, row: &Outgoing, why: &str) -> Result<(), Trouble> {
        tracing::warn!(kind = %row.kind, key = %row.key, why, "phoenix refuses what it is told");
        self.forget(row);
        if self.store.refuse(row, why).await? {
            self.counting().refused += 1;
        }
        Ok(())
    }

    /// Between tries: twice as long with each.
    fn pause(&self, tries: u32) -> Duration {
        self.config.backoff.saturating_mul(1 << tries.min(10)).min(self.config.backoff_max)
    }
}

impl std::fmt::Debug for Outbox {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Outbox").field("config", &self.0.config).finish_non_exhaustive()
    }
}
