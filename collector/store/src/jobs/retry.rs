//! Failed items are tried again.

use emberd_model::UnixNanos;
use uuid::Uuid;

use crate::Moment;
use crate::error::Error;
use crate::fault::Fault;
use crate::sql::{Bind, binds};
use crate::store::Store;
use crate::tx::{Tx, Work};

impl Store {
    /// Puts failed items back, of these error classes or (with none) of all, without their results, and opens the job again. An evaluator
    /// that failed for want of an output follows its run step: it is blocked again if that is tried again, and stays if not. Gives how
    /// many items; 0 also for a job that is still prepared or was cancelled. What they cost so far stays spent.
    pub async fn retry_failed(&self, job: Uuid, classes: Vec<String>, now: UnixNanos) -> Result<u64, Error> {
        Ok(self.run(Retry { job, classes, now }).await?)
    }
}

struct Retry {
    job: Uuid,
    classes: Vec<String>,
    now: UnixNanos,
}

/// `$3` is whether all are meant, `$4` the classes.
const MEANT: &str =
    "($3 OR EXISTS (SELECT 1 FROM emberd.job_results r WHERE r.job = i.job AND r.nr = i.nr AND r.step = i.step
     AND r.error_class = ANY($4)))";

impl Work for Retry {
    type Done = u64;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<u64, Fault> {
        let sql = "SELECT 1 FROM emberd.jobs j WHERE id = $1 AND phase <> 'preparing'
             AND EXISTS (SELECT 1 FROM public.prompt_evaluations e WHERE e.id = j.id AND e.status <> 'cancelled')
             FOR NO KEY UPDATE";
        if tx.query(sql, &binds![self.job]).await?.is_empty() {
            return Ok(0);
        }
        let back = self.items(tx).await?;
        if back > 0 {
            let sql = "DELETE FROM emberd.job_results AS r WHERE job = $1 AND EXISTS (SELECT 1 FROM emberd.job_items i
                 WHERE i.job = r.job AND i.nr = r.nr AND i.step = r.step AND i.state IN ('waiting', 'blocked'))";
            tx.execute(sql, &binds![self.job]).await?;
            // A new fence: whoever is closing the job does not write its results.
            let sql =
                "UPDATE emberd.jobs SET items_left = items_left + $2, phase = 'open', owner = NULL, lease_until = 0,
                 fence = fence + 1 WHERE id = $1";
            tx.execute(sql, &binds![self.job, back as i64]).await?;
            let sql = "UPDATE public.prompt_evaluations SET status = 'running', completed_at = NULL, results = NULL, metrics = NULL,
                 error = NULL, updated_at = $2 WHERE id = $1";
            tx.execute(sql, &binds![self.job, Moment::from(self.now)]).await?;
        }
        Ok(back)
    }
}

impl Retry {
    /// What failed or was blocked stands alone (the table says so), so that an item here is a target's.
    async fn items<T: Tx>(&self, tx: &mut T) -> Result<u64, Fault> {
        let all = self.classes.is_empty();
        let meant: [Bind<'_>; 4] = binds![self.job, self.now.micros(), all, self.classes.clone()];
        let sql = format!(
            "UPDATE emberd.job_items AS i SET state = 'waiting', due_at = $2, attempts = 0
             WHERE job = $1 AND step = 0 AND state = 'failed' AND {MEANT}"
        );
        let runs = tx.execute(&sql, &meant).await?;
        let sql = "UPDATE emberd.job_items AS i SET state = 'blocked', attempts = 0
             WHERE job = $1 AND step > 0 AND state = 'failed' AND EXISTS (SELECT 1 FROM emberd.job_items r
                 WHERE r.job = i.job AND r.nr = i.nr AND r.step = 0 AND r.state = 'waiting')";
        let followers = tx.execute(sql, &binds![self.job]).await?;
        let sql = format!(
            "UPDATE emberd.job_items AS i SET state = 'waiting', due_at = $2, attempts = 0
             WHERE job = $1 AND step > 0 AND state = 'failed' AND {MEANT} AND NOT EXISTS (SELECT 1 FROM emberd.job_items r
                 WHERE r.job = i.job AND r.nr = i.nr AND r.step = 0 AND r.state <> 'done')"
        );
        Ok(runs + followers + tx.execute(&sql, &meant).await?)
    }
}
