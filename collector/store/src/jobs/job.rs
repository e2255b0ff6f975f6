//! A job: made, held while it is prepared or closed, cancelled.

use std::time::Duration;

use emberd_model::UnixNanos;
use serde_json::Value;
use uuid::Uuid;

use super::items::sum;
use super::lease_end;
use super::money::Money;
use crate::Moment;
use crate::error::Error;
use crate::fault::Fault;
use crate::record::Writer;
use crate::sql::{Line, binds};
use crate::store::Store;
use crate::text::without_nul;
use crate::tx::{Tx, Work};

/// An evaluation as its row in `prompt_evaluations` begins.
#[derive(Clone, Debug, PartialEq)]
pub struct NewJob {
    /// The evaluation's, and the job's.
    pub id: Uuid,
    /// Whose evaluation it is.
    pub prompt: Uuid,
    /// What it runs on.
    pub dataset: Option<Uuid>,
    /// Which part of the dataset: `evaluation_dataset_runs.subset_config`.
    pub subset: Option<Value>,
    /// What people call it.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// As the caller gave it: the row's `config`.
    pub config: Value,
    /// A profile.
    pub created_by: Uuid,
    /// What `emberd-jobs` made of it: versions, mappings, settings.
    pub plan: Value,
    /// The most that may be spent, nano-dollars; none for no bound.
    pub budget: Option<Money>,
    /// Whoever creates again with the same key gets the first job.
    pub idempotency_key: Option<String>,
    /// The time of the call.
    pub now: UnixNanos,
}

/// A job was made, or was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Created {
    /// The job.
    pub id: Uuid,
    /// False where the idempotency key named an earlier one.
    pub is_new: bool,
}

/// A job was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateJobError {
    /// No such row in `prompts`.
    #[error("no such prompt")]
    NoSuchPrompt,
    /// No such row in `evaluation_datasets`. Whether the creator may see it is asked before ([`Store::dataset`]).
    #[error("no such dataset")]
    NoSuchDataset,
    /// `created_by` names no profile.
    #[error("no such profile")]
    NoSuchProfile,
    /// The database did not do it.
    #[error(transparent)]
    Database(#[from] Error),
}

/// How far a job is, beside the row's status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Targets are still written.
    Preparing,
    /// Items may be taken.
    Open,
    /// All items are done; the row's results are not written yet.
    Closing,
    /// Over.
    Closed,
}

impl Phase {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Open => "open",
            Self::Closing => "closing",
            Self::Closed => "closed",
        }
    }

    fn parse(text: &str) -> Result<Self, Fault> {
        [Self::Preparing, Self::Open, Self::Closing, Self::Closed]
            .into_iter()
            .find(|phase| phase.as_str() == text)
            .ok_or_else(|| Fault::damaged("the phase", text))
    }
}

/// A job as the engine sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// The evaluation's id.
    pub id: Uuid,
    /// How far it is.
    pub phase: Phase,
    /// What is to be done.
    pub plan: Value,
    /// The most that may be spent, nano-dollars.
    pub budget: Option<Money>,
    /// Set aside for calls on their way, nano-dollars.
    pub reserved: Money,
    /// Spent, nano-dollars.
    pub spent: Money,
    /// Tokens of all settled calls.
    pub tokens: i64,
    /// Items that are blocked, waiting or leased: of a range, each of its targets counts.
    pub items_left: i64,
    /// When it was made; microseconds are kept.
    pub created_at: UnixNanos,
}

const JOB: &str = "id, phase, plan, budget, reserved, spent, tokens, items_left, created_at";

impl Job {
    fn read(line: &Line) -> Result<Self, Fault> {
        Ok(Self {
            id: line.id(0)?,
            phase: Phase::parse(&line.text(1)?)?,
            plan: line.json(2)?,
            budget: line.maybe_int(3)?.map(Money),
            reserved: Money(line.int(4)?),
            spent: Money(line.int(5)?),
            tokens: line.int(6)?,
            items_left: line.int(7)?,
            created_at: UnixNanos((line.int(8)?.max(0) as u64).saturating_mul(1_000)),
        })
    }
}

/// A job whose targets are written, or whose results are summed up, by one emberd at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldJob {
    /// The job.
    pub job: Job,
    /// What the holding is proven by.
    pub fence: i64,
    /// One above the highest target's number: where preparing goes on.
    pub next_nr: i64,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There are results.
    Completed,
    /// There are none, and the error says why.
    Failed,
}

/// What is written into the row at the end.
#[derive(Clone, Debug, PartialEq)]
pub struct Closed {
    /// The status.
    pub outcome: Outcome,
    /// The row's `results`.
    pub results: Option<Value>,
    /// The row's `metrics`.
    pub metrics: Option<Value>,
    /// The row's `error`.
    pub error: Option<String>,
}

impl Store {
    /// Makes the row of `prompt_evaluations` (pending, `local:` and its id for Phoenix's) with what hangs on it.
    pub async fn create_job(&self, new: NewJob) -> Result<Created, CreateJobError> {
        match self.run(CreateJob(new)).await.map_err(Error::from)? {
            Made::Job(created) => Ok(created),
            Made::NoPrompt => Err(CreateJobError::NoSuchPrompt),
            Made::NoDataset => Err(CreateJobError::NoSuchDataset),
            Made::NoProfile => Err(CreateJobError::NoSuchProfile),
        }
    }

    /// Takes the oldest job of a phase (preparing or closing) that nobody holds, and raises its fence.
    pub async fn hold_job(
        &self,
        phase: Phase,
        owner: &str,
        lease: Duration,
        now: UnixNanos,
    ) -> Result<Option<HeldJob>, Error> {
        let (owner, until) = (owner.to_owned(), lease_end(now, lease));
        Ok(self.run(HoldJob { phase, owner, until, now: now.micros() }).await?)
    }

    /// Holds a job for longer. False: it is another's by now.
    pub async fn extend_job(&self, job: Uuid, fence: i64, lease: Duration, now: UnixNanos) -> Result<bool, Error> {
        Ok(self.run(ExtendJob { job, fence, until: lease_end(now, lease) }).await?)
    }

    /// Ends a job that is held while it is prepared or closed: status, results, completed_at. Items left are cancelled.
    /// False: it is another's by now, was cancelled, or was opened again.
    pub async fn close_job(&self, job: Uuid, fence: i64, closed: Closed, now: UnixNanos) -> Result<bool, Error> {
        Ok(self.run(CloseJob { job, fence, closed, now }).await?)
    }

    /// Cancels a job that is not over: its items are no longer taken; those in hand may end, which changes no status.
    /// False: it was over, or is not there.
    pub async fn cancel_job(&self, job: Uuid, now: UnixNanos) -> Result<bool, Error> {
        Ok(self.run(CancelJob { job, now }).await?)
    }

    /// A job.
    pub async fn job(&self, id: Uuid) -> Result<Option<Job>, Error> {
        let found = self.lines(&format!("SELECT {JOB} FROM emberd.jobs WHERE id = $1"), &binds![id]).await?;
        Ok(found.first().map(Job::read).transpose()?)
    }

    /// Jobs whose items may be taken, oldest first; at most 1 000.
    pub async fn open_jobs(&self) -> Result<Vec<Job>, Error> {
        let sql = format!(
            "SELECT {JOB} FROM emberd.jobs WHERE phase <> 'closed' AND phase = 'open' ORDER BY created_at, id LIMIT 1000"
        );
        let found = self.lines(&sql, &[]).await?;
        Ok(found.iter().map(Job::read).collect::<Result<_, Fault>>()?)
    }
}

enum Made {
    Job(Created),
    NoPrompt,
    NoDataset,
    NoProfile,
}

struct CreateJob(NewJob);

impl CreateJob {
    async fn earlier<T: Tx>(&self, tx: &mut T) -> Result<Option<Uuid>, Fault> {
        let Some(key) = &self.0.idempotency_key else {
            return Ok(None);
        };
        // Whoever else comes with this key waits here until we are done.
        let lock = format!("job {} {}", self.0.created_by, without_nul(key));
        tx.own(&Writer::new(&lock)).await?;
        let sql = "SELECT id FROM emberd.jobs WHERE creator = $1 AND idempotency_key = $2";
        tx.query(sql, &binds![self.0.created_by, key]).await?.first().map(|line| line.id(0)).transpose()
    }

    async fn put<T: Tx>(&self, tx: &mut T) -> Result<(), Fault> {
        let new = &self.0;
        let at = Moment::from(new.now);
        let sql = "INSERT INTO public.prompt_evaluations
                 (id, prompt_id, phoenix_eval_id, name, description, status, config, created_at, created_by, updated_at)
             VALUES ($1, $2, $3, $4, $5, 'pending', $6::jsonb, $7, $8, $7)";
        let local = format!("local:{}", new.id);
        let description = new.description.as_deref();
        tx.execute(sql, &binds![new.id, new.prompt, local, &new.name, description, &new.config, at, new.created_by])
            .await?;
        if let Some(dataset) = new.dataset {
            let sql = "INSERT INTO public.evaluation_dataset_runs (evaluation_id, dataset_id, subset_config)
                 VALUES ($1, $2, $3::jsonb)";
            tx.execute(sql, &binds![new.id, dataset, new.subset.as_ref()]).await?;
        }
        let sql = "INSERT INTO emberd.jobs (id, plan, phase, budget, creator, idempotency_key, created_at)
             VALUES ($1, $2::jsonb, 'preparing', $3, $4, $5, $6)";
        let (budget, key) = (new.budget.map(|budget| budget.0), new.idempotency_key.as_deref());
        tx.execute(sql, &binds![new.id, &new.plan, budget, new.created_by, key, new.now.micros()]).await?;
        Ok(())
    }
}

impl Work for CreateJob {
    type Done = Made;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Made, Fault> {
        let new = &self.0;
        if let Some(id) = self.earlier(tx).await? {
            return Ok(Made::Job(Created { id, is_new: false }));
        }
        if tx.query("SELECT 1 FROM public.prompts WHERE id = $1", &binds![new.prompt]).await?.is_empty() {
            return Ok(Made::NoPrompt);
        }
        if let Some(dataset) = new.dataset {
            let sql = "SELECT 1 FROM public.evaluation_datasets WHERE id = $1";
            if tx.query(sql, &binds![dataset]).await?.is_empty() {
                return Ok(Made::NoDataset);
            }
        }
        if tx.query("SELECT 1 FROM public.profiles WHERE id = $1", &binds![new.created_by]).await?.is_empty() {
            return Ok(Made::NoProfile);
        }
        self.put(tx).await?;
        Ok(Made::Job(Created { id: new.id, is_new: true }))
    }
}

struct HoldJob {
    phase: Phase,
    owner: String,
    until: i64,
    now: i64,
}

impl Work for HoldJob {
    type Done = Option<HeldJob>;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Option<HeldJob>, Fault> {
        if !matches!(self.phase, Phase::Preparing | Phase::Closing) {
            return Ok(None);
        }
        let sql = format!(
            "UPDATE emberd.jobs SET owner = $2, lease_until = $3, fence = fence + 1
             WHERE id = (SELECT id FROM emberd.jobs WHERE phase <> 'closed' AND phase = $1 AND lease_until <= $4
                 ORDER BY created_at, id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)
             RETURNING {JOB}, fence"
        );
        let held = tx.query(&sql, &binds![self.phase.as_str(), &self.owner, self.until, self.now]).await?;
        let Some(line) = held.first() else {
            return Ok(None);
        };
        let job = Job::read(line)?;
        let sql = "SELECT nr FROM emberd.job_targets WHERE job = $1 ORDER BY nr DESC LIMIT 1";
        let last = tx.query(sql, &binds![job.id]).await?.first().map(|line| line.int(0)).transpose()?;
        Ok(Some(HeldJob { fence: line.int(9)?, next_nr: last.map_or(0, |nr| nr + 1), job }))
    }
}

struct ExtendJob {
    job: Uuid,
    fence: i64,
    until: i64,
}

impl Work for ExtendJob {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        let sql = "UPDATE emberd.jobs SET lease_until = $3
             WHERE id = $1 AND fence = $2 AND owner IS NOT NULL AND phase IN ('preparing', 'closing')";
        Ok(tx.execute(sql, &binds![self.job, self.fence, self.until]).await? == 1)
    }
}

struct CloseJob {
    job: Uuid,
    fence: i64,
    closed: Closed,
    now: UnixNanos,
}

impl Work for CloseJob {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        let sql = "UPDATE emberd.jobs SET phase = 'closed', owner = NULL, lease_until = 0
             WHERE id = $1 AND fence = $2 AND phase IN ('preparing', 'closing')";
        if tx.execute(sql, &binds![self.job, self.fence]).await? == 0 {
            return Ok(false);
        }
        drop_items(tx, self.job).await?;
        let status = match self.closed.outcome {
            Outcome::Completed => "completed",
            Outcome::Failed => "failed",
        };
        let sql =
            "UPDATE public.prompt_evaluations SET status = $2, results = $3::jsonb, metrics = $4::jsonb, error = $5,
                 completed_at = $6, updated_at = $6 WHERE id = $1";
        let Closed { results, metrics, error, .. } = &self.closed;
        let at = Moment::from(self.now);
        tx.execute(sql, &binds![self.job, status, results.as_ref(), metrics.as_ref(), error.as_deref(), at]).await?;
        Ok(true)
    }
}

struct CancelJob {
    job: Uuid,
    now: UnixNanos,
}

impl Work for CancelJob {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        let sql = "UPDATE emberd.jobs SET phase = 'closed', owner = NULL, lease_until = 0, fence = fence + 1
             WHERE id = $1 AND phase <> 'closed'";
        if tx.execute(sql, &binds![self.job]).await? == 0 {
            return Ok(false);
        }
        drop_items(tx, self.job).await?;
        let sql = "UPDATE public.prompt_evaluations SET status = 'cancelled', completed_at = $2, updated_at = $2 WHERE id = $1";
        tx.execute(sql, &binds![self.job, Moment::from(self.now)]).await?;
        Ok(true)
    }
}

/// Cancels what waits; what is in hand may end.
async fn drop_items<T: Tx>(tx: &mut T, job: Uuid) -> Result<(), Fault> {
    let sql = "UPDATE emberd.job_items SET state = 'cancelled' WHERE job = $1 AND state IN ('blocked', 'waiting')
         RETURNING upto - nr + 1";
    let targets = sum(&tx.query(sql, &binds![job]).await?)?;
    let sql = "UPDATE emberd.jobs SET items_left = items_left - $2 WHERE id = $1";
    tx.execute(sql, &binds![job, targets]).await?;
    Ok(())
}
