//! What a job is to do: its targets, and their items.

use emberd_model::UnixNanos;
use serde_json::Value;
use uuid::Uuid;

use crate::error::Error;
use crate::fault::Fault;
use crate::sql::{Bind, binds};
use crate::store::Store;
use crate::tx::{Tx, Work};

/// What is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its number in the job, from 0.
    pub nr: i64,
    /// The example's id, or the trace's; once in a job. At most 2 000 bytes: PostgreSQL's index refuses more.
    pub target: String,
    /// As it was when the job began.
    pub body: Value,
}

/// A step that every target has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// 0, or an evaluator's number, from 1.
    pub step: i64,
    /// Whether it waits for step 0.
    pub blocked: bool,
}

/// What of the targets was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put {
    /// Targets written.
    pub targets: u64,
    /// Items written.
    pub items: u64,
}

impl Store {
    /// Appends targets with their items to a job that is prepared under this fence. What stands already stays as it is, so a call can be
    /// repeated; a target that stands under another number is left out. None: the job is another's by now.
    pub async fn put_targets(
        &self,
        job: Uuid,
        fence: i64,
        targets: Vec<Target>,
        steps: Vec<Step>,
    ) -> Result<Option<Put>, Error> {
        Ok(self.run(PutTargets { job, fence, targets, steps }).await?)
    }

    /// Lets items be taken: phase open, the row's status running. A job without items goes on to closing. False: the job is another's by
    /// now.
    pub async fn open_job(&self, job: Uuid, fence: i64, now: UnixNanos) -> Result<bool, Error> {
        Ok(self.run(OpenJob { job, fence, now }).await?)
    }
}

struct PutTargets {
    job: Uuid,
    fence: i64,
    targets: Vec<Target>,
    steps: Vec<Step>,
}

impl Work for PutTargets {
    type Done = Option<Put>;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Option<Put>, Fault> {
        let held = "SELECT 1 FROM emberd.jobs WHERE id = $1 AND fence = $2 AND phase = 'preparing' FOR NO KEY UPDATE";
        if tx.query(held, &binds![self.job, self.fence]).await?.is_empty() {
            return Ok(None);
        }
        let rows: Vec<Vec<Bind<'_>>> = self
            .targets
            .iter()
            .map(|target| binds![self.job, target.nr, &target.target, &target.body].into())
            .collect();
        let sql = "INSERT INTO emberd.job_targets (job, nr, target, body)
             SELECT job_, nr_, target_, body_::jsonb FROM {rows} WHERE true ON CONFLICT DO NOTHING RETURNING nr";
        let targets = tx.each(sql, &["job_", "nr_", "target_", "body_"], &rows).await?.len() as u64;
        let mut items = 0;
        for Step { step, blocked } in &self.steps {
            let state = if *blocked { "blocked" } else { "waiting" };
            let numbers: Vec<i64> = self.targets.iter().map(|target| target.nr).collect();
            // From the targets that stand, so that one left out has no items either.
            let sql = "INSERT INTO emberd.job_items (job, nr, step, state)
                 SELECT job, nr, $2::bigint, $3::text FROM emberd.job_targets WHERE job = $1 AND nr = ANY($4)
                 ON CONFLICT DO NOTHING";
            items += tx.execute(sql, &binds![self.job, *step, state, numbers]).await?;
        }
        let sql = "UPDATE emberd.jobs SET items_left = items_left + $2 WHERE id = $1";
        tx.execute(sql, &binds![self.job, items as i64]).await?;
        Ok(Some(Put { targets, items }))
    }
}

struct OpenJob {
    job: Uuid,
    fence: i64,
    now: UnixNanos,
}

impl Work for OpenJob {
    type Done = bool;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<bool, Fault> {
        let sql = "UPDATE emberd.jobs SET owner = NULL, lease_until = 0,
                 phase = CASE WHEN items_left = 0 THEN 'closing' ELSE 'open' END
             WHERE id = $1 AND fence = $2 AND phase = 'preparing'";
        if tx.execute(sql, &binds![self.job, self.fence]).await? == 0 {
            return Ok(false);
        }
        let sql = "UPDATE public.prompt_evaluations SET status = 'running', started_at = coalesce(started_at, $2), updated_at = $2
             WHERE id = $1";
        tx.execute(sql, &binds![self.job, crate::Moment::from(self.now)]).await?;
        Ok(true)
    }
}
