//! What a job is to do: its targets, and their items.

use std::collections::{BTreeMap, HashSet};

use emberd_model::UnixNanos;
use serde_json::Value;
use uuid::Uuid;

use crate::error::Error;
use crate::fault::Fault;
use crate::sql::{Bind, binds};
use crate::store::Store;
use crate::text::json_text;
use crate::tx::{Tx, Work};

const KEEP_FIRST: &str = "ON CONFLICT DO NOTHING";
/// Bytes of bodies in a range that is wider than one target.
const RANGE_BYTES: usize = 2 << 20;

/// What is judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Its number in the job, from 0.
    pub nr: i64,
    /// The example's id, or the trace's; once in a job.
    pub target: String,
    /// As it was when the job began.
    pub body: Value,
}

/// What is to be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTarget {
    /// Its number in the job, from 0.
    pub nr: i64,
    /// The example's id, or the trace's; once in a job. At most 2 000 bytes: PostgreSQL's index refuses more.
    pub target: String,
    /// As it is now: JSON.
    pub body: String,
}

/// A step that every target has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// 0, or an evaluator's number, from 1.
    pub step: i64,
    /// Whether it waits for step 0.
    pub blocked: bool,
    /// Targets of an item, which are taken and ended together: 1 for what is paid for, retried by itself or blocked. Fewer where their
    /// bodies are large.
    pub width: u32,
}

/// What of the targets was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Put {
    /// Targets written.
    pub targets: u64,
    /// What is to be done for them: one for each target and step.
    pub items: u64,
}

impl Store {
    /// Appends targets with their items to a job that is prepared under this fence. What stands already stays as it is, so a call can be
    /// repeated; a target that stands under another number is left out. None: the job is another's by now.
    pub async fn put_targets(
        &self,
        job: Uuid,
        fence: i64,
        targets: Vec<NewTarget>,
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
    targets: Vec<NewTarget>,
    steps: Vec<Step>,
}

impl PutTargets {
    /// Writes the targets; gives the numbers of those that are new, each with its body's bytes.
    async fn targets<T: Tx>(&self, tx: &mut T) -> Result<BTreeMap<i64, usize>, Fault> {
        let rows: Vec<Vec<Bind<'_>>> = self
            .targets
            .iter()
            .map(|NewTarget { nr, target, body }| binds![self.job, *nr, target, json_text(body)].into())
            .collect();
        let numbers: Vec<i64> = self.targets.iter().map(|target| target.nr).collect();
        let before = self.standing(tx, &numbers).await?;
        let written =
            tx.insert("emberd.job_targets (job, nr, target, body)", "$1, $2, $3, $4::jsonb", KEEP_FIRST, &rows).await?;
        let sizes = self.targets.iter().map(|target| (target.nr, target.body.len()));
        if written == rows.len() as u64 {
            return Ok(sizes.collect());
        }
        let after = self.standing(tx, &numbers).await?;
        Ok(sizes.filter(|(nr, _)| after.contains(nr) && !before.contains(nr)).collect())
    }

    /// Which of these targets stand.
    async fn standing<T: Tx>(&self, tx: &mut T, numbers: &[i64]) -> Result<HashSet<i64>, Fault> {
        let (Some(first), Some(last)) = (numbers.iter().min(), numbers.iter().max()) else { return Ok(HashSet::new()) };
        let sql = "SELECT nr FROM emberd.job_targets WHERE job = $1 AND nr >= $2 AND nr <= $3 ORDER BY nr";
        tx.query(sql, &binds![self.job, *first, *last]).await?.iter().map(|line| line.int(0)).collect()
    }
}

/// Targets as ranges without gaps, of so many targets at most, and of so many bytes unless one alone has more.
fn ranges(targets: &BTreeMap<i64, usize>, width: u32) -> Vec<(i64, i64)> {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    let mut bytes = 0;
    for (nr, size) in targets {
        bytes += size;
        match ranges.last_mut() {
            Some((from, upto)) if *upto + 1 == *nr && nr - *from < i64::from(width) && bytes <= RANGE_BYTES => {
                *upto = *nr
            }
            _ => {
                ranges.push((*nr, *nr));
                bytes = *size;
            }
        }
    }
    ranges
}

impl Work for PutTargets {
    type Done = Option<Put>;

    async fn run<T: Tx>(&self, tx: &mut T, _attempt: u32) -> Result<Option<Put>, Fault> {
        let held = "SELECT 1 FROM emberd.jobs WHERE id = $1 AND fence = $2 AND phase = 'preparing' FOR NO KEY UPDATE";
        if tx.query(held, &binds![self.job, self.fence]).await?.is_empty() {
            return Ok(None);
        }
        // A target that stood already has its items: they were written with it.
        let new = self.targets(tx).await?;
        for Step { step, blocked, width } in &self.steps {
            let state = if *blocked { "blocked" } else { "waiting" };
            let width = if *blocked { 1 } else { *width };
            let rows: Vec<Vec<Bind<'_>>> = ranges(&new, width)
                .into_iter()
                .map(|(nr, upto)| binds![self.job, nr, upto, *step, state].into())
                .collect();
            tx.insert("emberd.job_items (job, nr, upto, step, state)", "$1, $2, $3, $4, $5", "", &rows).await?;
        }
        let (targets, items) = (new.len() as u64, (new.len() * self.steps.len()) as u64);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_no_gap_and_keep_to_their_bounds() {
        let of = |numbers: &[i64], size: usize| numbers.iter().map(|nr| (*nr, size)).collect::<BTreeMap<_, _>>();
        assert_eq!(ranges(&of(&[], 1), 3), []);
        assert_eq!(ranges(&of(&[4, 5, 6, 7, 9, 10], 1), 3), [(4, 6), (7, 7), (9, 10)]);
        assert_eq!(ranges(&of(&[0, 1, 2], 1), 1), [(0, 0), (1, 1), (2, 2)]);
        assert_eq!(ranges(&of(&[0, 1, 2, 3, 4], RANGE_BYTES / 2), 9), [(0, 1), (2, 3), (4, 4)]);
        assert_eq!(ranges(&of(&[0, 1], 2 * RANGE_BYTES), 9), [(0, 0), (1, 1)], "one alone may be larger");
    }
}
